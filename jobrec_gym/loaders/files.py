"""Opens a file as bytes or as text.

The content of the file, not its name, decides how it is unpacked. The unpacked size is bounded. A text that cannot be
decoded is refused.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import difflib
import gzip
import importlib
import io
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TextIO, cast

from jobrec_gym.extras import install_command
from jobrec_gym.market import MarketError
from jobrec_gym.market.sources import near_source

__all__ = [
    "DEFAULT_MAX_BYTES",
    "check_encoding",
    "check_exists",
    "decoding",
    "encoding_of",
    "files_in",
    "open_bytes",
    "open_member",
    "open_text",
    "packing_of",
    "readable_size",
]

DEFAULT_MAX_BYTES = 4 << 30
"""The most bytes that a file may unpack to, by default."""

_PACKED = (
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), "bz2"),
    (re.compile(rb"\xfd7zXZ\x00"), "xz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "zstd"),
    (re.compile(rb"PK(\x03\x04|\x05\x06)"), "zip"),
)
_TAR = re.compile(rb".{257}ustar", re.DOTALL)
_NO_TABLE = (
    (b"PAR1", "a Parquet file: name it 'parquet:{file}'"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook of Excel: save the sheet as CSV (UTF-8)"),
    (b"%PDF-", "a PDF, which is no table"),
)
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, which begins with the same bytes
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LIKELY = ("cp1252", "cp1250", "cp1251", "gb18030", "shift_jis", "euc_kr")
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def open_bytes(file: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> BinaryIO:
    """A file's content as a stream: gzip, bz2, xz, zstd, and zip with one member are unpacked on the way.

    Args:
        file: The file. Its first bytes decide how it is packed, not its ending.
        max_bytes: The most bytes that a packed file may unpack to.

    Raises:
        MarketError: If it is not a file; and later, while reading, if it is broken, encrypted or too large.
        ImportError: For zstd without pyarrow.
    """
    check_exists(file)
    try:
        with file.open("rb") as raw:
            head = raw.read(16)
        kind = _packing(head)
        for magic, what in _NO_TABLE:
            if head.startswith(magic):
                raise MarketError(f"{file} is {what.format(file=file)}.")
        if kind is None:
            return file.open("rb")
        inner = _opened(file, kind)
    except MarketError:
        raise
    except _UNREADABLE as error:
        raise MarketError(f"{file} cannot be read: {error}.") from error
    stream = io.BufferedReader(_Bounded(file, inner, max_bytes), 1 << 20)
    try:
        _check_unpacked(file, stream.peek(512))
    except MarketError:
        stream.close()
        raise
    return stream


def packing_of(file: Path) -> str | None:
    """How a file is packed, such as ``"gzip"``; ``None`` if it is not packed. Its first bytes tell."""
    with file.open("rb") as raw:
        return _packing(raw.read(16))


def files_in(archive: zipfile.ZipFile) -> list[str]:
    """Names of the files in an archive. Folders and empty names are left out."""
    return [name for name in archive.namelist() if name and not name.endswith("/")]


def open_member(file: Path, member: str, max_bytes: int) -> BinaryIO:
    """A member of a zip archive as a stream; arguments and errors as of :func:`open_bytes`.

    Args:
        file: The archive.
        member: Name of the member in the archive.
        max_bytes: The most bytes that it may unpack to.
    """
    place = Path(f"{file}, {PurePath(member).name}")  # for messages
    try:
        return io.BufferedReader(_Bounded(place, zipfile.ZipFile(file).open(member), max_bytes), 1 << 20)
    except _UNREADABLE as error:
        raise MarketError(f"{place} cannot be read: {error}.") from error


def open_text(file: Path, encoding: str | None, max_bytes: int, newline: str = "") -> TextIO:
    r"""A file's content as text; ends of lines stay as they are.

    Args:
        file: As in :func:`open_bytes`.
        encoding: The encoding, or ``None`` for UTF-8. A byte order mark has precedence over both.
        max_bytes: As in :func:`open_bytes`.
        newline: The end of a line, as in :func:`open`; by default any of ``\n``, ``\r`` and ``\r\n``.

    Raises:
        MarketError: As :func:`open_bytes`. Reading may raise UnicodeDecodeError, see :func:`decoding`.
    """
    stream = open_bytes(file, max_bytes)
    try:
        name = encoding_of(file, cast(io.BufferedReader, stream).peek(4096), encoding)
    except MarketError:
        stream.close()
        raise
    return io.TextIOWrapper(stream, name, newline=newline)


@contextlib.contextmanager
def decoding(file: Path, encoding: str | None, max_bytes: int) -> Iterator[None]:
    """Turns a UnicodeDecodeError into a :class:`MarketError` that names the line and likely encodings.

    Args:
        file: As in :func:`open_text`, like the next two arguments.
        encoding: The encoding that the user gave.
        max_bytes: The most bytes that a packed file may unpack to.
    """
    try:
        yield
    except UnicodeDecodeError as found:
        n_lines, error = _first_undecodable(file, encoding, max_bytes) or (0, found)
        piece = error.object
        line = n_lines + piece.count(b"\n", 0, error.start) + 1
        raise MarketError(
            f"{file}, near line {line}: not {_name(error.encoding)} ({error.reason}){_guesses(piece, error.start)}"
        ) from error


def _first_undecodable(file: Path, encoding: str | None, max_bytes: int) -> tuple[int, UnicodeDecodeError] | None:
    """The number of lines before the piece of a file that cannot be decoded, and the error, which holds the piece."""
    n_lines = 0
    with open_bytes(file, max_bytes) as stream:
        head = cast(io.BufferedReader, stream).peek(4096)
        decoder = codecs.getincrementaldecoder(encoding_of(file, head, encoding))()
        try:
            while piece := stream.read(1 << 20):
                n_lines += decoder.decode(piece).count("\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return n_lines, error
    return None


def check_exists(file: Path) -> None:
    """Raises :class:`MarketError` if there is no such file; the message suggests the nearest name that exists."""
    if file.is_file():
        return
    if file.is_dir():
        raise MarketError(f"{file} is a folder, not a file.")
    where = "" if file.is_absolute() else f" (looked in {Path.cwd()})"
    near: list[str] = []
    with contextlib.suppress(OSError):
        near = difflib.get_close_matches(file.name, os.listdir(file.parent)[:1000], n=1)  # noqa: PTH208
    meant = near[0] if near else near_source(str(file))
    raise MarketError(f"{file} does not exist{where}.{f' Did you mean {meant!r}?' if meant else ''}")


def check_encoding(encoding: Any) -> None:
    """Raises :class:`MarketError` if it is neither ``None`` nor the name of an encoding of text."""
    if encoding is None:
        return
    try:
        known = isinstance(encoding, str) and isinstance("".encode(encoding), bytes)
    except (LookupError, ValueError):
        known = False
    if not known:
        raise MarketError(f"`encoding` must be the name of an encoding such as 'cp1252', got {encoding!r}.")


def encoding_of(file: Path, head: bytes, encoding: str | None) -> str:
    """The encoding of a file that begins with ``head``; :class:`MarketError` if it looks like UTF-16 without a mark.

    Args:
        file: The file, for messages.
        head: Its first bytes.
        encoding: The encoding that the user gave, or ``None``.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if encoding is None and head.count(b"\0") * 4 > len(head):
        guess = "utf-16-le" if head[1::2].count(b"\0") >= head[::2].count(b"\0") else "utf-16-be"
        raise MarketError(
            f"{file}: looks like UTF-16 without a byte order mark: say `encoding={guess!r}`, or save it as UTF-8."
        )
    return encoding or "utf-8"


def readable_size(n_bytes: int) -> str:
    """A number of bytes for people: ``"4.0 GiB"``."""
    size, unit = float(n_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{n_bytes} {_UNITS[0]}"


class _Bounded(io.RawIOBase):
    """A stream's content, up to a bound. Errors of the stream become a :class:`MarketError` that names the file."""

    def __init__(self, file: Path, inner: Any, limit: int):
        self._file, self._inner, self._limit, self._n = file, inner, limit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except _UNREADABLE as error:
            raise MarketError(f"{self._file} cannot be read: {error}.") from error
        self._n += len(data)
        if self._n > self._limit:
            raise MarketError(
                f"{self._file} unpacks to more than {readable_size(self._limit)}: say "
                f"`max_bytes={self._limit * 4}` or more if it may be that large."
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


def _packing(head: bytes) -> str | None:
    return next((name for magic, name in _PACKED if magic.match(head)), None)


def _opened(file: Path, kind: str) -> Any:
    if kind == "gzip":
        return gzip.open(file, "rb")
    if kind == "bz2":
        return bz2.open(file, "rb")
    if kind == "xz":
        return lzma.open(file, "rb")
    if kind == "zip":
        return _only_member(file)
    try:
        pyarrow = importlib.import_module("pyarrow")
    except ImportError as error:
        raise ImportError(f"{file} is packed by zstd and needs pyarrow: {install_command('data')}.") from error
    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(file), "rb"), "zstd")


def _check_unpacked(file: Path, head: bytes) -> None:
    """Raises :class:`MarketError` if a packed file holds another packed file, or a file that is no text."""
    inner = "tar" if _TAR.match(head) else _packing(head)
    if inner is not None:
        raise MarketError(f"{file} holds another packed file ({inner}): unpack it and name the file in it.")
    for magic, what in _NO_TABLE:
        if head.startswith(magic):
            raise MarketError(f"{file} holds {what.format(file='...')}.")


def _only_member(file: Path) -> Any:
    archive = zipfile.ZipFile(file)
    names = files_in(archive)
    if any(name.startswith(("xl/", "word/")) for name in names):
        raise MarketError(f"{file} is a document of Office: save the sheet as CSV (UTF-8).")
    members = [name for name in names if not name.startswith("__MACOSX/") and not PurePath(name).name.startswith(".")]
    if len(members) != 1:
        listed = ", ".join(map(repr, members[:5])) + (", ..." if len(members) > 5 else "")
        raise MarketError(
            f"{file} holds {len(members)} files{f' ({listed})' if members else ''}, expected one: unpack the "
            "archive and name the file to read."
        )
    return archive.open(members[0])


def _name(encoding: str) -> str:
    return {"utf-8": "UTF-8", "utf-8-sig": "UTF-8", "utf8": "UTF-8"}.get(encoding, encoding)


def _guesses(piece: bytes, place: int) -> str:
    """Likely encodings, each with the text that it would give, so that the reader sees which is right."""
    first = max(piece.rfind(mark, 0, place) for mark in (b" ", b"\n", b",", b";", b"\t", b'"')) + 1
    found = re.match(rb'[^\s,;"]*', piece[place:])
    word = piece[max(first, place - 20) : place + min(len(found[0]) if found else 0, 20)]
    readings: dict[str, str] = {}
    for encoding in _LIKELY:
        with contextlib.suppress(UnicodeDecodeError):
            text = word.decode(encoding)
            if text.isprintable() and text not in readings.values():
                readings[encoding] = text
    listed = [f"{encoding} ({text!r})" for encoding, text in list(readings.items())[:4]]
    example = f"`encoding={next(iter(readings), _LIKELY[0])!r}`"
    if not listed:
        return f"; save it as UTF-8, or say how it is encoded, e.g. {example}."
    return f"; save it as UTF-8. It may be {' or '.join(listed)}: say e.g. {example}."
