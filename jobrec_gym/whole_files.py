"""Files and folders that are replaced whole or not at all, even if the process is killed or the disk is full."""

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

from jobrec_gym.paths import place_of

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # on Windows leftovers of killed writers stay
    fcntl = None

__all__ = ["is_empty", "put_back", "whole_file", "whole_folder", "write_array"]

_OLD, _NEW, _LOCK = "old", "new", ".lock"
_BRIEFLY = 60.0
"""Seconds after which a scratch folder without a lock has no living writer."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside ``path`` to write to.

    If the ``with`` block ends without an error, the file takes the place of ``path``. Otherwise it is removed. Missing
    parent folders are made.

    Raises:
        OSError: If the file cannot be written; the error names ``path``.
    """
    place = place_of(path)
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
    """An empty folder to write into. It takes the place of ``path`` if the ``with`` block raises no error.

    ``path`` appears whole or not at all. After a kill, the old folder or the new one is there for readers that call
    :func:`put_back` before they open ``path``. Folders that dead writers left beside ``path`` are removed.

    Args:
        path: The folder's place; missing parent folders are made.
        is_saved: Says whether an existing folder may be replaced.
        kind: What a saved folder holds, for the message, such as ``"market"``.
        error: The class of the error to raise; it is called with the message.

    Raises:
        error: If ``path`` is a mount point, or if it exists, is not empty and may not be replaced.
        OSError: If the folder cannot be written; the error names ``path``.
    """
    folder = place_of(path)
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
    """Writes an ``.npy`` file as ``np.save`` does. On a full disk the error says so.

    The error then names no file. Within :func:`whole_folder` it names the folder.

    Raises:
        ValueError: For an array of objects.
        OSError: If the file cannot be written.
    """
    if array.dtype.hasobject:
        raise ValueError(f"`array` must hold no Python objects, which {file.name} would pickle, got {array.dtype}.")
    rows = np.ascontiguousarray(array)
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(rows))
        out.write(rows.reshape(-1).view(np.uint8).data)


def put_back(path: str | os.PathLike[str]) -> None:
    """If ``path`` does not exist, puts back a folder that a killed process left beside it."""
    folder = place_of(path)
    if not folder.exists():
        with contextlib.suppress(OSError):
            _clear_leftovers(folder)


def is_empty(folder: Path) -> bool:
    """Whether a folder exists and is empty."""
    return folder.is_dir() and not any(folder.iterdir())


@contextlib.contextmanager
def _named(place: Path) -> Iterator[None]:
    """Makes errors of the system name ``place`` if they name no file, or only a scratch file beside ``place``."""
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
    """Puts a locked file into a scratch folder. A lock ends with its process: a held lock means a live process.

    The file holds ``name``, the name of the folder that the process writes.
    """
    if fcntl is None:
        yield
        return
    with (scratch / f"{_LOCK}-new").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(name)
        file.flush()
        Path(file.name).rename(scratch / _LOCK)  # the file is locked when it appears under this name
        yield


def _clear_leftovers(folder: Path) -> None:
    """Removes scratch folders of dead writers; an old folder that a dead writer had moved away is put back."""
    if fcntl is None or not folder.name or not folder.parent.is_dir():
        return
    for scratch in folder.parent.glob(f".{glob.escape(folder.name)}-*"):
        if _is_abandoned(scratch, folder.name):
            shutil.rmtree(scratch, ignore_errors=True)
            continue
        with contextlib.suppress(OSError), (scratch / _LOCK).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.read() != folder.name:  # the pattern also finds those of folders named `NAME-...`
                continue
            if not folder.exists() and (scratch / _OLD).is_dir():
                (scratch / _OLD).rename(folder)
            shutil.rmtree(scratch, ignore_errors=True)


def _is_abandoned(scratch: Path, name: str) -> bool:
    """Whether a writer was killed before it had its lock, or during its clean-up, when the lock was removed already."""
    try:
        is_ours = re.fullmatch(r"[a-z0-9_]{8}", scratch.name.removeprefix(f".{name}-")) is not None
        is_ours = is_ours and {path.name for path in scratch.iterdir()} <= {_OLD, _NEW, f"{_LOCK}-new"}
        return is_ours and time.time() - scratch.stat().st_mtime > _BRIEFLY
    except OSError:
        return False
