"""Files and folders that are replaced whole or not at all, whenever a kill comes or the disk is full."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: leftovers stay
    fcntl = None

__all__ = ["is_empty", "put_back", "whole_file", "whole_folder", "write_array"]

_OLD, _NEW, _LOCK = "old", "new", ".lock"
_BRIEFLY = 60.0
"""Seconds beyond which no living writer's scratch folder is without a lock."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside ``path`` to write to. If the block ends well, it takes the place of ``path``; else it is removed.

    Folders above it are made.

    Raises:
        OSError: If it cannot be written, with the path.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.with_name(f".{place.name}-{os.getpid()}")
    try:
        with _named(place):
            yield scratch
            scratch.replace(place)
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(
    path: str | os.PathLike[str], is_saved: Callable[[Path], bool], kind: str, error: type[Exception]
) -> Iterator[Path]:
    """An empty folder to write into; when the block ends well, it takes the place of ``path``.

    ``path`` appears whole or not at all. Whenever a kill comes, the old folder or the new one is there for who asks by
    :func:`put_back` before opening ``path``. Folders that dead writers left beside it are removed.

    Args:
        path: Where to; folders above it are made.
        is_saved: Whether a folder holds what may be replaced.
        kind: What that is, in words: ``"market"``.
        error: What is raised, with a sentence.

    Raises:
        error: If ``path`` exists and neither holds what may be replaced nor is an empty folder, or is a mount point.
        OSError: If it cannot be written, with the path.
    """
    folder = Path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(folder)
    if folder.exists() and not is_saved(folder) and not is_empty(folder):
        raise error(f"{folder} exists and is not a saved {kind}; choose another path.")
    if folder.is_mount():
        raise error(f"{folder} is where a file system is mounted, which cannot be replaced; choose a path in it.")
    with (
        _named(folder),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch,
        _held(Path(scratch), folder.name),
    ):
        new, old = Path(scratch) / _NEW, Path(scratch) / _OLD
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise


def write_array(file: Path, array: NDArray[Any]) -> None:
    """Writes an ``.npy`` file as ``np.save`` does, but on a full disk the error says so and names the file.

    Raises:
        ValueError: For an array of objects.
        OSError: If it cannot be written.
    """
    if array.dtype.hasobject:
        raise ValueError(f"`array` must hold no Python objects, which {file.name} would pickle, got {array.dtype}.")
    rows = np.ascontiguousarray(array)
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(rows))
        out.write(rows.reshape(-1).view(np.uint8).data)


def put_back(path: str | os.PathLike[str]) -> None:
    """Puts back what a kill left beside ``path``, if nothing is there."""
    folder = Path(path)
    if not folder.exists():
        with contextlib.suppress(OSError):
            _clear_leftovers(folder)


def is_empty(folder: Path) -> bool:
    """Whether a folder is there and holds nothing."""
    return folder.is_dir() and not any(folder.iterdir())


@contextlib.contextmanager
def _named(place: Path) -> Iterator[None]:
    """An error of the system that names no file, or one beside ``place`` that nobody asked for, names ``place``."""
    try:
        yield
    except OSError as error:
        beside = place.with_name(f".{place.name}").absolute()
        is_scratch = error.filename is not None and str(Path(error.filename).absolute()).startswith(str(beside))
        if error.errno is not None and (error.filename is None or is_scratch):
            raise OSError(error.errno, error.strerror, str(place)) from error
        raise


@contextlib.contextmanager
def _held(scratch: Path, name: str) -> Iterator[None]:
    """Marks a scratch folder as that of a living process, for a folder of this name: the lock goes with the process."""
    if fcntl is None:
        yield
        return
    with (scratch / f"{_LOCK}-new").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(name)
        file.flush()
        Path(file.name).rename(scratch / _LOCK)  # appears locked
        yield


def _clear_leftovers(folder: Path) -> None:
    """Removes scratch folders of dead writers; an old folder that one of them had moved away is put back."""
    if fcntl is None or not folder.name or not folder.parent.is_dir():
        return
    for scratch in folder.parent.glob(f".{glob.escape(folder.name)}-*"):
        if _is_abandoned(scratch, folder.name):
            shutil.rmtree(scratch, ignore_errors=True)
            continue
        with contextlib.suppress(OSError), (scratch / _LOCK).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.read() != folder.name:  # of a folder whose name begins with this one's
                continue
            if not folder.exists() and (scratch / _OLD).is_dir():
                (scratch / _OLD).rename(folder)
            shutil.rmtree(scratch, ignore_errors=True)


def _is_abandoned(scratch: Path, name: str) -> bool:
    """Whether a writer was killed before it had its lock, or while it cleared away, when its lock goes first."""
    try:
        is_ours = re.fullmatch(r"[a-z0-9_]{8}", scratch.name.removeprefix(f".{name}-")) is not None
        is_ours = is_ours and {path.name for path in scratch.iterdir()} <= {_OLD, _NEW, f"{_LOCK}-new"}
        return is_ours and time.time() - scratch.stat().st_mtime > _BRIEFLY
    except OSError:
        return False
