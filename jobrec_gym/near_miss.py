"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["best_match", "did_you_mean", "with_known_keywords"]

C = TypeVar("C", bound=Callable[..., Any])


def best_match(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like a misspelt one, without regard to case; ``None`` if no name is like it.

    Example:
        >>> best_match("DQN", ["dqn", "dynaq"])
        'dqn'
    """
    folded = {one.casefold(): one for one in reversed(list(known))}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1)
    return folded[near[0]] if near else None


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of a message about a misspelt name, with a blank before it; nothing if no known name is like it.

    Example:
        >>> did_you_mean("DQN", ["dqn", "dynaq"])
        " Did you mean 'dqn'?"
    """
    near = best_match(str(name), known)
    return f" Did you mean {near!r}?" if near else ""


def with_known_keywords(call: C) -> C:
    """Wraps a function or constructor so that its ``TypeError`` about an unknown keyword suggests a known keyword.

    If no known keyword is like the unknown one, the error names all known keywords. It begins with Python's own words,
    because other libraries search for them: TorchRL tries a keyword, and takes it back if it reads that it is unknown.

    Example:
        >>> with_known_keywords(lambda n_jobs=1: n_jobs)(n_jbs=2)
        Traceback (most recent call last):
        TypeError: <lambda>() got an unexpected keyword argument 'n_jbs': did you mean 'n_jobs'?
    """
    known = [name for name in inspect.signature(call).parameters if name != "self"]
    whose = call.__qualname__.removesuffix(".__init__")

    @functools.wraps(call)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name in known:
                continue
            near = best_match(name, known)
            hint = f"did you mean {near!r}?" if near else f"it has {', '.join(known) or 'none'}."
            raise TypeError(f"{whose}() got an unexpected keyword argument {name!r:.80}: {hint}")
        return call(*args, **kwargs)

    return checked  # type: ignore[return-value]
