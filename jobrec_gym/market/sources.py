"""Sources of markets: names, schemes and paths, and their loaders, which are imported when they are first used."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jobrec_gym.market.folder import HEADER, is_saved_market
from jobrec_gym.market.tables import MarketError
from jobrec_gym.near_miss import best_match
from jobrec_gym.paths import place_of
from jobrec_gym.whole_files import is_empty

__all__ = [
    "MarketSpec",
    "absolute",
    "file_states",
    "find_loader",
    "named_sources",
    "near_source",
    "plain_option",
    "register_market_source",
]

MarketSpec = str | dict[str, Any]

_SOURCES: dict[str, str] = {
    "default": "jobrec_gym.loaders.generated:load_default",
    "recorded": "jobrec_gym.loaders.recorded:load_recorded",
    "onet": "jobrec_gym.loaders.onet:load_onet",
    "esco": "jobrec_gym.loaders.esco:load_esco",
    "csv": "jobrec_gym.loaders.tables:load_csv",
    "json": "jobrec_gym.loaders.tables:load_json",
    "jsonl": "jobrec_gym.loaders.tables:load_jsonl",
    "parquet": "jobrec_gym.loaders.tables:load_parquet",
    "json-resume": "jobrec_gym.loaders.resumes:load_json_resume",
    "job-posting": "jobrec_gym.loaders.postings:load_job_posting",
    "dynaq-json": "jobrec_gym.loaders.dynaq_json:load_dynaq_json",
}
_WITHOUT_PATH = {"default", "recorded"}
_WITH_SUBFOLDERS = {"onet", "esco"}
"""Sources that are also read from folders within their folder."""
_PATHS = {"applicants", "jobs", "folder", "cache_dir"}
"""Keywords whose value, if it is a text, is a file or a folder."""


def register_market_source(scheme: str, entry_point: str, needs_path: bool = True) -> None:
    """Adds a source to :func:`~jobrec_gym.market.load_market`.

    Args:
        scheme: The part before the colon in ``load_market("SCHEME:PATH")``, or the whole name of a source without a
            path.
        entry_point: ``"module:function"``, imported when first used. The function takes the path (if there is one) and
            the keywords of :func:`~jobrec_gym.market.load_market`, and returns a
            :class:`~jobrec_gym.market.LabourMarket`.
        needs_path: False if ``load_market("SCHEME")`` is allowed, without a path.
    """
    _SOURCES[scheme] = entry_point
    (_WITHOUT_PATH.discard if needs_path else _WITHOUT_PATH.add)(scheme)


def find_loader(source: str) -> Callable[..., Any] | None:
    """The function that makes the market of a registered source (:func:`register_market_source`).

    Returns:
        ``None`` for the folder of a saved market.

    Raises:
        MarketError: If there is no such source.
    """
    scheme, colon, path = source.partition(":")
    if scheme in _SOURCES and (colon or scheme in _WITHOUT_PATH):
        if colon and not path:
            raise _without_its_path(source)
        module, _, function = _SOURCES[scheme].partition(":")
        load: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return partial(load, path) if colon else load
    if is_saved_market(source):
        return None
    if kind := _kind_of_file(source):
        return find_loader(f"{kind}:{source}")
    if source in _SOURCES:
        raise _without_its_path(source)
    if not colon and (os.sep in source or Path(source).suffix):
        _check_exists(source)
    names = [name if name in _WITHOUT_PATH else f"{name}:PATH" for name in _SOURCES]
    near = best_match(source if not colon else scheme, _SOURCES)
    hint = f' did you mean "{near}{":" + path if colon else ""}"?' if near else ""
    what = "unknown market scheme" if colon else "unknown market"
    looked = "" if colon or Path(source).is_absolute() else f" (looked in {Path.cwd()})"
    raise MarketError(
        f'{what} "{source}":{hint} It must be the folder of a saved market{looked}, a file with a known ending, such '
        f"as jobs.csv, or one of {', '.join(names)}."
    )


def _without_its_path(source: str) -> MarketError:
    return MarketError(f"market {source!r} lacks a path: write '{source.partition(':')[0]}:PATH'.")


def named_sources() -> tuple[str, ...]:
    """The markets that have a name and no path."""
    return tuple(name for name in _SOURCES if name in _WITHOUT_PATH)


def near_source(source: str) -> str | None:
    """The source that may have been meant by a misspelt name or scheme; ``None`` if no source is similar.

    Example:
        >>> near_source("cvs:jobs.csv"), near_source("defalt")
        ('csv:jobs.csv', 'default')
    """
    scheme, colon, path = source.partition(":")
    near = best_match(scheme, [name for name in _SOURCES if colon or name in _WITHOUT_PATH])
    return None if near is None or near == scheme else f"{near}{colon}{path}"


def _check_exists(source: str) -> None:
    """Refuses a path that does not exist.

    Raises:
        MarketError: For such a path. The message suggests the nearest name that exists.
    """
    exists = True
    with contextlib.suppress(OSError, ValueError):  # a text that cannot be a path
        exists = place_of(source).exists()
    if not exists:
        importlib.import_module("jobrec_gym.loaders.files").check_exists(place_of(source))


def _kind_of_file(source: str) -> str | None:
    """The scheme of a file that is named without one, by its ending; ``None`` if the source is not a file.

    Raises:
        MarketError: For a file with an unknown ending.
    """
    is_file = False
    with contextlib.suppress(OSError, ValueError):  # a text that cannot be a path
        is_file = place_of(source).is_file()
    if not is_file:
        return None
    kind: str = importlib.import_module("jobrec_gym.loaders.reading").kind_of(source)[0]
    return kind


_met: dict[str, str] = {}
"""Folders of markets by the relative path by which they were first opened; a process may change its working folder."""


def absolute(source: str) -> str:
    """The source with its path made absolute, so that a worker in another folder finds it too; ``~`` is expanded.

    A relative path that does not exist stands for the folder that it named when this process first opened it.
    """
    scheme, colon, path = source.partition(":")
    if colon and scheme in _SOURCES:
        return f"{scheme}:{place_of(path).absolute()}" if path else source
    if source in _SOURCES:
        return source
    with contextlib.suppress(OSError, ValueError):  # a text that cannot be a path
        folder = place_of(source)
        if folder.exists():
            _met.setdefault(source, str(folder.absolute()))
            return str(folder.absolute())
    return _met.get(source, source)


def plain_option(name: str, value: Any) -> Any:
    """A keyword's value in plain JSON, if it has such a form; paths are made absolute."""
    if isinstance(value, os.PathLike):
        return str(place_of(value).absolute())
    if name in _PATHS and isinstance(value, str):
        scheme, colon, path = value.partition(":")
        prefix, path = (f"{scheme}:", path) if colon and scheme in _SOURCES else ("", value)
        return f"{prefix}{place_of(path).absolute()}"
    if name == "encoder" and isinstance(value, str):
        found: str = importlib.import_module("jobrec_gym.encoders").absolute_name(value)
        return found
    return value.item() if isinstance(value, np.generic) else value


def _inside(path: Path, scheme: str) -> Iterable[Path]:
    """What is in a folder that a source of this scheme reads; nothing for a file."""
    if not path.is_dir():
        return ()
    return path.rglob("*") if scheme in _WITH_SUBFOLDERS else path.iterdir()


def file_states(options: Iterable[Any]) -> dict[str, tuple[int, int]]:
    """States of the files that options name, and of the files in folders that options name.

    Equal states mean that no file has changed.
    """
    found = {}
    for option in options:
        if isinstance(option, str):
            scheme, _, rest = option.partition(":")
            for text in filter(None, (option, rest)):
                path = place_of(text)
                with contextlib.suppress(OSError, ValueError):
                    # A saved market is written whole, so its header shows whether the market changed. Other files in
                    # the folder do not count: an index may be added at any time.
                    files = (path / HEADER,) if is_saved_market(path) else (path, *_inside(path, scheme))
                    # An empty folder counts as no folder: the call may put a market in its place.
                    for file in () if is_empty(path) else files:
                        with contextlib.suppress(OSError):  # a link to nothing
                            state = file.stat()
                            found[str(file)] = state.st_mtime_ns, state.st_size
    return found
