"""Reads arrays from a file that others may have made: checks it before taking memory, and uses no pickle."""

from __future__ import annotations

import io
import math
import zipfile
from os import PathLike
from typing import IO, Any

import numpy as np

from dynaq_algo.agent_file import AgentFileError, place_of, reading

__all__ = ["MAX_ARRAY_BYTES", "read_arrays"]

MAX_ARRAY_BYTES = 1 << 34
"""How much memory, in bytes, a file of arrays may take by default."""


def read_arrays(
    file: str | PathLike[str] | IO[bytes], shown: str, what: str, max_bytes: int = MAX_ARRAY_BYTES
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Args:
        file: The file's path, or an open file with `seek`.
        shown: How messages name the file.
        what: What the file should be, in messages, such as "replay".
        max_bytes: Limit of all arrays together, uncompressed.

    Raises:
        FileNotFoundError: If there is no such file.
        AgentFileError: If it is not an .npz file, is incomplete, was changed, holds objects or unpacks to more than
            `max_bytes`.
    """
    file = place_of(file) if isinstance(file, (str, PathLike)) else file
    with reading(shown, what), zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > max_bytes:
            raise AgentFileError(
                f"{shown} unpacks to more than `max_bytes` = {max_bytes:,} bytes: raise that if you know the file."
            )
        found = {}
        for entry in entries:
            with archive.open(entry) as content:
                _check_header(shown, entry, content)
            with archive.open(entry) as content:
                found[entry.filename.removesuffix(".npy")] = np.lib.format.read_array(content, allow_pickle=False)
        return found


def _check_header(shown: str, entry: zipfile.ZipInfo, content: Any) -> None:
    """Check that an array is as large as its header says, because numpy takes the memory before it reads.

    Raises:
        AgentFileError: If the size differs, or the array holds objects.
    """
    head = io.BytesIO(content.read(min(entry.file_size, 1 << 16)))
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise AgentFileError(f"{shown}: {entry.filename} is in a version of numpy's file format that is not supported.")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(head)
    if dtype.hasobject:
        raise AgentFileError(f"{shown}: {entry.filename} holds Python objects, which are not loaded.")
    if math.prod(shape) * dtype.itemsize != entry.file_size - head.tell():
        raise AgentFileError(
            f"{shown}: {entry.filename} is not as large as its header says, {shape} of {dtype}. Use an unchanged copy."
        )
