"""Reads arrays of untrusted files: nothing is unpickled, sizes are checked, a damaged file is a ``ValueError``."""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import os
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.paths import place_of

__all__ = ["MAX_BYTES", "give_back", "mapped_array", "read_arrays"]

MAX_BYTES = 1 << 34
"""The most bytes that a file of several arrays may unpack to, by default."""


def mapped_array(file: str | os.PathLike[str]) -> NDArray[Any]:
    """An ``.npy`` file, memory-mapped, so that a false size in its header takes no memory.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If the file is not a complete array, or is an array of objects.
    """
    with _told_by_value_errors():
        array: Any = np.load(place_of(file), mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):  # `np.load` opens an archive too
            array.close()
            raise ValueError(f"{os.fspath(file)} is an archive, not an array")
        _require_letters(os.fspath(file), array)
        return array


def give_back(array: NDArray[Any]) -> None:
    """Gives the memory of a mapped array back to the system. A later use of the array reads the file again.

    Nothing happens if the array is not mapped, or if the system has no call that gives memory back.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def read_arrays(file: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name.

    Args:
        file: Path of the file.
        max_bytes: The most bytes of all arrays together.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not a whole file of arrays, holds objects, or unpacks to more than ``max_bytes``.
    """
    with _told_by_value_errors(), zipfile.ZipFile(place_of(file)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > max_bytes:
            raise ValueError(f"it unpacks to more than {max_bytes:,} bytes")
        found = {}
        for entry in entries:
            with archive.open(entry) as content:
                _require_size(entry, io.BytesIO(content.read(min(entry.file_size, 1 << 16))))
            with archive.open(entry) as content:
                array = np.lib.format.read_array(content, allow_pickle=False)
            _require_letters(entry.filename, array)
            found[entry.filename.removesuffix(".npy")] = array
        return found


def _require_size(entry: zipfile.ZipInfo, head: io.BytesIO) -> None:
    """Checks that an array is as large as its header says, because numpy takes the memory before it reads."""
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{entry.filename} is in a version of numpy's file format that is not supported")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(head)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != entry.file_size - head.tell():
        raise ValueError(f"{entry.filename} is not what its header says, {shape} of {dtype}")


def _require_letters(name: str, array: NDArray[Any]) -> None:
    """Checks that each letter of the texts is a valid Unicode character, and not a surrogate (half of a character).

    Python cannot decode numbers beyond Unicode, and no encoding writes surrogates.
    """
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        numbers = array.ravel(order="K").view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if numbers.max() > sys.maxunicode or ((numbers >= 0xD800) & (numbers <= 0xDFFF)).any():
            raise ValueError(f"{name} holds texts with invalid Unicode characters")


@contextlib.contextmanager
def _told_by_value_errors() -> Iterator[None]:
    """Turns the errors of numpy, zipfile and zlib for a broken file into one class, ``ValueError``.

    Syntax errors are among them, because numpy parses a header as Python source.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:  # a damaged file, for instance an offset before its first byte
            raise ValueError(f"it cannot be read: {error}") from error
        raise
    except (
        *(SyntaxError, tokenize.TokenError, EOFError, KeyError, TypeError, OverflowError, MemoryError, RuntimeError),
        *(NotImplementedError, RecursionError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ValueError(f"it is not whole: {' '.join(str(error).split()) or type(error).__name__}") from error
