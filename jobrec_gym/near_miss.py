"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["best_match"]


def best_match(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like a misspelt one, without regard to case; ``None`` if no name is like it.

    Example:
        >>> best_match("DQN", ["dqn", "dynaq"])
        'dqn'
    """
    folded = {one.casefold(): one for one in reversed(list(known))}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1)
    return folded[near[0]] if near else None
