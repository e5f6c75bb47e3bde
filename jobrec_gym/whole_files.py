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
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.paths import place_of

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # on Windows leftovers of killed writers stay
    fcntl = None

__all__ = ["is_empty", "read_whole", "whole_file", "whole_folder", "write_array"]

T = TypeVar("T")

_OLD, _NEW, _LOCK = "old", "new", ".lock"
_BRIEFLY = 60.0
"""Seconds after which a scratch folder without a lock has no living writer."""
_PATIENCE = 10.0
"""Seconds that a reader waits for a writer that is between the two renames by which it replaces a folder."""
_MOST_TURNS = 1_000
"""How often a reader begins again because a folder was replaced meanwhile."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside ``path`` to write to.

    If the ``with`` block ends without an error, the file takes the place of ``path``. Otherwise it is removed. Missing
    parent folders are made. If ``path`` is a symbolic link, the link stays, and the file takes the place of its target.

    Raises:
        OSError: If the file cannot be written; the error names ``path``, or the target of the link.
    """
    place = _target_of(path)
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

    ``path`` appears whole or not at all. Readers that use :func:`read_whole` find the old folder or the new one, also
    after a kill. Several processes may write ``path`` at once; the last one's folder stays. Folders that dead writers
    left beside ``path`` are removed. If ``path`` is a symbolic link, the link stays, and its target is replaced.

    Args:
        path: The folder's place; missing parent folders are made.
        is_saved: Says whether an existing folder may be replaced.
        kind: What a saved folder holds, for the message, such as ``"market"``.
        error: The class of the error to raise; it is called with the message.

    Raises:
        error: If ``path`` is a mount point, or if it exists, is not empty and may not be replaced.
        OSError: If the folder cannot be written; the error names ``path``, or the target of the link.
    """
    folder = _target_of(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
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
        with _alone(folder):
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise


def read_whole(path: str | os.PathLike[str], read: Callable[[], T], error: type[Exception]) -> T:
    """The result of ``read()``, which reads files in the folder ``path`` that :func:`whole_folder` wrote.

    If the folder was replaced while ``read`` was at work, ``read`` may have found files of two folders. It is then
    called again. If ``path`` does not exist, a folder that a killed process left beside it is put back first.

    Args:
        path: The folder.
        read: Reads the files. An error that it raises while the folder stays the same is passed on.
        error: The class of the error to raise; it is called with the message.

    Raises:
        error: If the folder was replaced during each of many calls.
    """
    folder = _target_of(path)
    for _ in range(_MOST_TURNS):
        _put_back(folder)
        with _opened(folder) as number:
            before = _identity(folder if number is None else number)
            try:
                found = read()
            except Exception:
                if _is_still(folder, before):
                    raise
                continue
            if _is_still(folder, before):
                return found
    raise error(f"{folder} is replaced by another process again and again; read it when that process has ended.")


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


def is_empty(folder: Path) -> bool:
    """Whether a folder exists and is empty."""
    return folder.is_dir() and not any(folder.iterdir())


def _target_of(path: str | os.PathLike[str]) -> Path:
    """The place that a path names; if a symbolic link is there, the place that it points to."""
    place = place_of(path)
    return Path(os.path.realpath(place)) if place.is_symlink() else place


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A block in which no other writer checks or replaces a folder in the same parent folder."""
    with _opened(folder.parent) as parent:
        if fcntl is None or parent is None:
            yield
            return
        with contextlib.suppress(OSError):  # some file systems cannot lock a folder
            fcntl.flock(parent, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Closing is not enough: a process that was forked meanwhile has the folder open too.
            with contextlib.suppress(OSError):
                fcntl.flock(parent, fcntl.LOCK_UN)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """A folder that is held open, so that no other folder can get its inode; ``None`` where it cannot be opened."""
    try:
        number = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))  # to open a pipe would take from it
    except (OSError, ValueError):  # it is not there, is no folder or may not be listed, or this is Windows
        yield None
        return
    try:
        yield number
    finally:
        os.close(number)


def _identity(folder: Path | int) -> tuple[int, int] | None:
    """What tells a folder, or an open one, from another folder at the same path; ``None`` if there is none."""
    try:
        state = folder.stat() if isinstance(folder, Path) else os.fstat(folder)
    except (OSError, ValueError):  # a path with a NUL is a ValueError
        return None
    return state.st_dev, state.st_ino


def _is_still(folder: Path, before: tuple[int, int] | None) -> bool:
    """Whether a folder is the one that it was, or is still not there."""
    if before is not None:
        return _identity(folder) == before
    with _alone(folder):  # a writer that replaces it has moved the old folder away for a moment
        return _identity(folder) is None


def _put_back(folder: Path) -> None:
    """If a folder does not exist, puts back the one that a killed process left beside it, or waits for a live one."""
    deadline = time.monotonic() + _PATIENCE
    while not folder.exists():
        with contextlib.suppress(OSError):
            _clear_leftovers(folder)
        if not _is_being_replaced(folder) or time.monotonic() > deadline:
            return
        time.sleep(0.001)


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
    with (scratch / f"{_LOCK}-new").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(os.fsencode(name))  # a name need not be UTF-8
        file.flush()
        Path(file.name).rename(scratch / _LOCK)  # the file is locked when it appears under this name
        yield


def _scratch_folders(folder: Path) -> Iterator[Path]:
    """The scratch folders of a folder's writers, and those of folders named ``NAME-...``."""
    if folder.name and folder.parent.is_dir():
        yield from folder.parent.glob(f".{glob.escape(folder.name)}-*")


def _clear_leftovers(folder: Path) -> None:
    """Removes scratch folders of dead writers; an old folder that a dead writer had moved away is put back."""
    if fcntl is None:
        return
    for scratch in _scratch_folders(folder):
        if _is_abandoned(scratch, folder.name):
            shutil.rmtree(scratch, ignore_errors=True)
            continue
        with contextlib.suppress(OSError), (scratch / _LOCK).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.read() != os.fsencode(folder.name):
                continue
            if not folder.exists() and (scratch / _OLD).is_dir():
                (scratch / _OLD).rename(folder)
            shutil.rmtree(scratch, ignore_errors=True)


def _is_being_replaced(folder: Path) -> bool:
    """Whether a live writer has moved the old folder away."""
    if fcntl is None:
        return False
    for scratch in _scratch_folders(folder):
        with contextlib.suppress(OSError), (scratch / _LOCK).open("rb") as file:
            if file.read() == os.fsencode(folder.name) and (scratch / _OLD).is_dir():
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
    return False


def _is_abandoned(scratch: Path, name: str) -> bool:
    """Whether a writer was killed before it had its lock, or during its clean-up, when the lock was removed already."""
    try:
        is_ours = re.fullmatch(r"[a-z0-9_]{8}", scratch.name.removeprefix(f".{name}-")) is not None
        is_ours = is_ours and {path.name for path in scratch.iterdir()} <= {_OLD, _NEW, f"{_LOCK}-new"}
        return is_ours and time.time() - scratch.stat().st_mtime > _BRIEFLY
    except OSError:
        return False
