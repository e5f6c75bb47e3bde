"""A command with a config: what its command line has wrong is said in one line, with what may have been meant."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.runs.arguments import add_own_arguments
from experiments.runs.keys import refuse_keys

__all__ = ["command", "in_one_line"]

_FULL_ERROR = "HYDRA_FULL_ERROR"
_OF_A_USER = (ValueError, TypeError, LookupError, ImportError, OSError)
"""What says by its message alone what is wrong; another error is one of the code, and where it stands matters."""


def command(config_path: str, config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[..., Any]]:
    """Makes a function a command, as ``hydra.main`` does, but for what it says of errors.

    With ``HYDRA_FULL_ERROR=1`` every error is told in full.

    Args:
        config_path: Where configs are, from the function's file.
        config_name: Of the primary one.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[..., Any]:
        as_command = hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)

        @wraps(task)
        def told(cfg: DictConfig) -> Any:
            try:
                return task(cfg)
            except (HydraException, OmegaConfBaseException) as error:
                if HydraConfig.get().mode is RunMode.MULTIRUN:
                    raise  # a sweep goes on with its other runs
                raise SystemExit(f"error: {in_one_line(error)}") from error

        # By the function's file Hydra finds the configs and names the log.
        function: Any = told
        function.__code__ = function.__code__.replace(co_filename=task.__code__.co_filename)

        @wraps(task)
        def main(cfg: DictConfig | None = None) -> Any:
            if cfg is not None:
                return task(cfg)
            refuse_keys(sys.argv[1:])
            sys.argv[1:] = add_own_arguments(sys.argv[1:])
            if os.environ.get(_FULL_ERROR) == "1":
                return as_command(task)()
            try:
                with _errors_raised():
                    return as_command(told)()
            except (HydraException, OmegaConfBaseException) as error:
                raise SystemExit(f"error: {in_one_line(error)}") from error
            except Exception as error:
                # From the command on: Hydra's own steps before it tell nobody anything.
                steps = error.__traceback__
                while steps is not None and steps.tb_frame.f_code is not task.__code__:
                    steps = steps.tb_next
                raise error.with_traceback(steps)  # noqa: B904  # it is the same error

        return main

    return decorate


def in_one_line(error: BaseException) -> str:
    """What is wrong with a config, and what may have been meant, as a sentence.

    Args:
        error: Of Hydra or OmegaConf.
    """
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        guess = _guess(option, error.options, f"{group}=")
        return f"there is no {group}={option}.{guess} There are {', '.join(error.options)}."
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read: {_first_line(error)}. A value that holds =, commas or brackets needs "
            """quotation marks of its own, in a shell 'key="a=b"'."""
        )
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, OmegaConfBaseException):
        return f"{_first_line(error)}{_entries_beside(error.__cause__)}"
    if isinstance(error, MissingMandatoryValue):
        return f"`{error.full_key}` must be given, {error.full_key}=..."
    if isinstance(error, InstantiationException):
        return _not_made(error)
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Hydra raises its errors and does not print them."""
    before = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = before


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _guess(name: str, known: Iterable[str], before: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {before}{near[0]}?" if near else ""


def _entries_beside(cause: OmegaConfBaseException) -> str:
    """What there is where an entry is not, behind the sentence that says so."""
    beside = cause.parent_node
    name, place = str(cause.key), str(cause.full_key)
    if "not in struct" not in str(cause):
        return f": {_first_line(cause)}."
    if not OmegaConf.is_dict(beside) or not len(beside):
        return ": there is no such entry."
    names = [str(key) for key in beside if key != "hydra"]
    before = place.removesuffix(name)
    guess = _guess(name, names, before)
    if not guess:
        deeper = [path for path in _paths(beside) if path.rpartition(".")[2] == name and not path.startswith("hydra.")]
        guess = f" Did you mean {before}{deeper[0]}?" if deeper else ""
    return f": there is no such entry.{guess} There are {', '.join(names)}; +{place}=... adds one."


def _paths(config: Any, before: str = "") -> Iterator[str]:
    """The dotted paths of all entries of a config."""
    for key in config:
        yield f"{before}{key}"
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        if OmegaConf.is_dict(config[key]):
            yield from _paths(config[key], f"{before}{key}.")


def _not_made(error: InstantiationException) -> str:
    """Of an entry with a ``_target_`` that could not be made."""
    place = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
    target = re.search(r"target '([^']+)'", str(error))
    what = f"`{place[1]}`" if place else "an entry"
    cause = error.__cause__
    if cause is None or target is None:
        return f"{what}: {_first_line(error)}."
    if "locating target" in str(error):
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return f"{what}: there is no {target[1]} to be imported: {' '.join(str(cause).split())}."
    said = " ".join(str(cause).split())
    unknown = re.search(r"unexpected keyword argument '(\w+)'", said)
    if unknown:
        known = _arguments_of(target[1])
        said += f".{_guess(unknown[1], known)} There are {', '.join(known)}."
    if not isinstance(cause, _OF_A_USER):
        said = f"{type(cause).__name__}: {said} ({_FULL_ERROR}=1 shows where)"
    return f"{what}: {said}"


def _arguments_of(target: str) -> Sequence[str]:
    return [name for name in inspect.signature(get_object(target)).parameters if name not in ("self", "env")]
