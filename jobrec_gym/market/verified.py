"""Digests of arrays, and a record of the saved markets and indexes that were found whole before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.cache_folder import default_cache_dir
from jobrec_gym.version import written_by

__all__ = ["array_digest", "forget", "is_remembered", "remember"]

_FORMAT = "jobrec-verified/1"
_FILE = "verified.json"
_MOST_KEPT = 1_000
_CHUNK_BYTES = 1 << 24

_here: dict[str, str] = {}
"""What this process remembers; it is all that is remembered if the cache cannot be written."""


def array_digest(array: NDArray[np.generic]) -> str:
    """SHA-256 of type, shape and values, as hex; a memory-mapped array is read in pieces."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    n_rows = max(1, _CHUNK_BYTES // max(1, array.itemsize * int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), n_rows):
        digest.update(np.ascontiguousarray(array[start : start + n_rows]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def is_remembered(folder: Path, files: Iterable[Path]) -> bool:
    """Whether a folder or a file was found whole when its files had their present sizes, times and inodes."""
    key, state = _key(folder), _state(files)
    return state is not None and state in (_here.get(key), _read().get(key))


def remember(folder: Path, files: Sequence[Path]) -> None:
    """Remembers that a folder was found whole; other processes know it too if the cache can be written."""
    key, state = _key(folder), _state(files)
    if state is None:
        return
    _here[key] = state
    with contextlib.suppress(OSError, RuntimeError):  # no writable home: only this process remembers
        place = default_cache_dir()
        place.mkdir(parents=True, exist_ok=True)
        kept = {**{name: value for name, value in _read().items() if name != key}, key: state}
        kept = dict(list(kept.items())[-_MOST_KEPT:])
        with tempfile.NamedTemporaryFile("w", dir=place, prefix=f".{_FILE}-", delete=False) as file:
            json.dump({"format": _FORMAT, "written_by": written_by(), "markets": kept}, file)
        Path(file.name).replace(place / _FILE)


def forget() -> None:
    """Drops what this process remembers; the cache is not changed."""
    _here.clear()


def _key(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()


def _state(files: Iterable[Path]) -> str | None:
    """The present state of files; ``None`` if one does not exist."""
    try:
        found = [(file.name, file.stat()) for file in files]
    except OSError:
        return None
    text = json.dumps([[name, state.st_size, state.st_mtime_ns, state.st_ino] for name, state in found])
    return hashlib.sha256(text.encode()).hexdigest()


def _read() -> dict[str, str]:
    """The memory of other processes; empty if it cannot be read."""
    try:
        content = json.loads((default_cache_dir() / _FILE).read_text())
        if content["format"] == _FORMAT:
            return {str(key): str(value) for key, value in content["markets"].items()}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}
