"""A file's rows: CSV, JSON or Parquet, as all loaders of tables read them."""

from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.util
import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, overload

import numpy as np

from jobrec_gym.extras import install_command
from jobrec_gym.loaders.files import (
    DEFAULT_MAX_BYTES,
    check_encoding,
    check_exists,
    decoding,
    encoding_of,
    open_bytes,
    open_text,
    packing_of,
    readable_size,
)
from jobrec_gym.market import MarketError
from jobrec_gym.paths import place_of

__all__ = [
    "Block",
    "Reading",
    "Rows",
    "Table",
    "csv_blocks",
    "json_rows",
    "kind_of",
    "parquet_blocks",
    "parse_json",
    "read_sides",
    "read_table",
    "stem_of",
]

_KINDS = ("csv", "json", "jsonl", "parquet")
_DOCUMENTS = {
    "json-resume": "jobrec_gym.loaders.resumes:read_resumes",
    "job-posting": "jobrec_gym.loaders.postings:read_postings",
}
"""The readers of documents, which are files or folders of files, by kind. Only a scheme names such a kind."""
_ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
_PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zip")
_SHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
_DELIMITERS = (",", ";", "\t", "|")
_SIDES = ("jobs", "applicants")
_MAX_CELL = 1 << 30
_ROWS = 256
_LINES = 1 << 14
"""How many characters of lines are read at once. Like ``_ROWS`` this is small, so that the results fit into the
processor's cache until they are used."""
_PIECE = 1 << 20
_SAMPLE = 1 << 16
_LARGE = 1 << 20
"""From this many bytes on, a CSV file is worth the import of pyarrow."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file becomes rows.

    Attributes:
        delimiter: The character that separates the cells of CSV; ``None`` finds it.
        encoding: Encoding of text; ``None`` is UTF-8, or the one of a byte order mark.
        max_bytes: Largest size of a compressed file once it is uncompressed.

    Raises:
        MarketError: For a value that is not allowed.
    """

    delimiter: str | None = None
    encoding: str | None = None
    max_bytes: int = DEFAULT_MAX_BYTES

    def __post_init__(self) -> None:
        delimiter = self.delimiter
        if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"'):
            raise MarketError(
                f"`delimiter` must be one character, no quotation mark and no end of line, or None, got {delimiter!r}."
            )
        check_encoding(self.encoding)
        if isinstance(self.max_bytes, bool) or not isinstance(self.max_bytes, int) or self.max_bytes < 1:
            raise MarketError(f"`max_bytes` must be a whole number of at least 1, got {self.max_bytes!r}.")


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a file, by column.

    Attributes:
        columns: For each column of the header its cells: a list, or an array of pyarrow.
        n_rows: How many rows there are.
    """

    columns: list[Any]
    n_rows: int


class Rows(Sequence[tuple[int, dict[str, Any]]]):
    """The rows of blocks, each with its number from 1. A row becomes a mapping when it is read.

    Args:
        header: Names of the columns.
        blocks: The rows.
    """

    def __init__(self, header: Sequence[str], blocks: Sequence[Block]):
        self._header, self._blocks = list(header), list(blocks)
        self._n = sum(block.n_rows for block in self._blocks)

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        for block in self._blocks:
            for cells in zip(*map(_cells, block.columns), strict=True):
                number += 1
                yield number, dict(zip(self._header, cells, strict=True))

    @overload
    def __getitem__(self, index: int) -> tuple[int, dict[str, Any]]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, dict[str, Any]]]: ...

    def __getitem__(self, index: int | slice) -> tuple[int, dict[str, Any]] | list[tuple[int, dict[str, Any]]]:
        places = range(self._n)[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        number = places + 1
        for block in self._blocks:
            if places < block.n_rows:
                return number, {
                    name: _cells(column[places : places + 1])[0]
                    for name, column in zip(self._header, block.columns, strict=True)
                }
            places -= block.n_rows
        raise IndexError(index)

    def column(self, name: str) -> list[Any]:
        """The cells of one column, without the others, which is faster than reading rows."""
        place = self._header.index(name)
        return [cell for block in self._blocks for cell in _cells(block.columns[place])]


@dataclass(frozen=True, slots=True)
class Table:
    """A file's columns, and its rows with their numbers.

    Attributes:
        file: Name of the file in messages.
        header: Names of the columns.
        rows: The rows, each with its number; 1 is the first below the header.
    """

    file: str
    header: list[str]
    rows: Sequence[tuple[int, dict[str, Any]]]

    def filled(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows that have a non-empty cell; spreadsheets write empty rows below a table."""
        return ((number, row) for number, row in self.rows if not row or any(cell != "" for cell in row.values()))

    def column(self, name: str) -> list[Any]:
        """The cells of one column of the header, in the order of the rows; ``None`` where a row does not have it."""
        rows = self.rows
        return rows.column(name) if isinstance(rows, Rows) else [row.get(name) for _, row in rows]


def kind_of(source: str | os.PathLike[str], otherwise: str | None = None) -> tuple[str, Path]:
    """A file's kind and path, by its own scheme (``"csv:people.txt"``) or ending.

    Args:
        source: The file; ``~`` is the home folder.
        otherwise: The kind of a file with neither scheme nor known ending.

    Returns:
        ``"csv"``, ``"json"``, ``"jsonl"``, ``"parquet"``, ``"json-resume"`` or ``"job-posting"``, and the path without
        the scheme.

    Raises:
        MarketError: If nothing says of which kind the file is.
    """
    text = os.fspath(source)
    scheme, colon, path = text.partition(":")
    if colon and scheme in (*_KINDS, *_DOCUMENTS):
        return scheme, place_of(path)
    file = place_of(text)
    kind = _ENDINGS.get(_unpacked(file).suffix.lower(), otherwise)
    if kind is None:
        if not file.exists():
            check_exists(file)
        if file.suffix.lower() in _SHEETS:
            raise MarketError(
                f"{file} must end in {', '.join(_ENDINGS)}, and it is a spreadsheet: save the sheet as CSV (UTF-8)."
            )
        # `look` finds out what such a file or folder is.
        is_looked_at = file.is_dir() or file.suffix.lower() in (".zip", ".html", ".htm", ".xhtml")
        hint = f"; `jobrec look {file}` tells what it is" if is_looked_at else ""
        raise MarketError(
            f"{file} must end in {', '.join(_ENDINGS)} (or one of them and {', '.join(_PACKED_ENDINGS)}, except for "
            f".parquet), or have its kind before its path, e.g. 'csv:{file}'{hint}."
        )
    return kind, file


def stem_of(file: Path) -> str:
    """A file's name without its ending: ``"anna.k"`` for both ``anna.k.json`` and ``anna.k.json.gz``."""
    return _unpacked(file).stem


def _unpacked(file: Path) -> Path:
    """A file's name without the ending of a packed file."""
    return Path(file.stem if file.suffix.lower() in _PACKED_ENDINGS else file.name)


def read_table(
    source: str | os.PathLike[str],
    reading: Reading | None = None,
    *,
    kind: str | None = None,
    side: str | None = None,
) -> Table:
    """A file's table.

    Args:
        source: A file of CSV or JSON, packed or not, or an unpacked file of Parquet.
        reading: How it is read.
        kind: Its kind; by default its scheme or ending says it, see :func:`kind_of`.
        side: ``"jobs"`` or ``"applicants"``: which list to read if a JSON object holds several.

    Raises:
        MarketError: For a file that is missing or cannot be read; the message names the place.
        ImportError: For a Parquet file without pyarrow.
    """
    tables = read_sides(source, reading, kind=kind)
    if side in tables or len(tables) == 1:
        return tables[side] if side in tables else next(iter(tables.values()))
    raise MarketError(
        f"{kind_of(source, kind or 'json')[1]} is one JSON object with the lists "
        f"{' and '.join(map(repr, tables))}, and only one list is wanted: write that list to its own file."
    )


def read_sides(
    source: str | os.PathLike[str], reading: Reading | None = None, *, kind: str | None = None
) -> dict[str, Table]:
    """The tables of a file by name: the lists of one JSON object, ``{"jobs": [...], "applicants": [...]}``.

    Arguments and errors as of :func:`read_table`.

    Returns:
        The tables by name; any other file is one table with an empty name.
    """
    reading = reading or Reading()
    if kind is None:
        kind, file = kind_of(source)
    elif kind in (*_KINDS, *_DOCUMENTS):
        file = place_of(source)
    else:
        raise MarketError(f"`kind` must be one of {', '.join((*_KINDS, *_DOCUMENTS))}, or None, got {kind!r:.40}.")
    if kind in _DOCUMENTS:
        module, _, function = _DOCUMENTS[kind].partition(":")
        return {"": getattr(importlib.import_module(module), function)(file, reading)}
    if kind == "csv":
        layout = _layout(file, reading)
        return {"": Table(str(file), layout.header, Rows(layout.header, list(_blocks(file, reading, layout))))}
    if kind == "parquet":
        header, blocks = parquet_blocks(file, reading)
        return {"": Table(str(file), header, Rows(header, list(blocks)))}
    rows = list(json_rows(file, reading))
    if len(rows) == 1 and (lists := _lists(rows[0][1])):
        return {
            name: _json_table(f"{file}, {name!r}", list(enumerate(entries, start=1))) for name, entries in lists.items()
        }
    if len(rows) == 1 and _is_by_column(rows[0][1]):
        raise MarketError(
            f"{file} holds columns, {', '.join(map(repr, rows[0][1])):.80}, as pandas writes them by default: write "
            "rows instead, `to_json(..., orient='records')`."
        )
    if len(rows) == 1 and (place := _deeper_rows(rows[0][1])):
        raise MarketError(
            f"{file} is one JSON object, and not a row, since none of its entries is a text. Its rows seem to be "
            f"{place}: write these as an array to a file of their own."
        )
    return {"": _json_table(str(file), rows)}


# ------------------------------------------------------------------------------------------------------------------ csv


@dataclass(frozen=True, slots=True)
class _Layout:
    """Layout of a CSV file.

    Attributes:
        delimiter: The character that separates cells.
        header: Names of the columns, in normal form.
        written: The cells of the header as they are written.
        sep_line: Whether the file begins with ``sep=;``.
        skips_blanks: Whether blanks stand before the quotation marks of cells, ``1, "SQL; R"``.
    """

    delimiter: str
    header: list[str]
    written: list[str]
    sep_line: bool
    skips_blanks: bool


def csv_blocks(file: Path, reading: Reading, with_pyarrow: bool | None = None) -> Iterator[Block]:
    """The rows of a CSV file as texts, in blocks, so that only one block need be in memory.

    Args:
        file: The file.
        reading: How it is read.
        with_pyarrow: Whether pyarrow reads the rows, up to the first one that it would read differently from the
            standard library. The standard library reads the rest, so the rows are the same with and without pyarrow.
            ``None`` uses pyarrow for large files, if it is installed.

    Raises:
        MarketError: For a file that cannot be read; the message names row (1 is the first below the header) or line.
    """
    return _blocks(file, reading, _layout(file, reading), with_pyarrow)


def _blocks(file: Path, reading: Reading, layout: _Layout, with_pyarrow: bool | None = None) -> Iterator[Block]:
    if with_pyarrow is None:
        with_pyarrow = file.stat().st_size >= _LARGE and importlib.util.find_spec("pyarrow") is not None
    n_rows = 0
    if with_pyarrow and not layout.skips_blanks:
        try:
            for block in _pyarrow_csv(file, reading, layout):
                yield block
                n_rows += block.n_rows
        except (ValueError, OSError):
            pass  # The standard library reads on after `n_rows` rows, or says what is wrong.
        else:
            return
    yield from _standard_csv(file, reading, layout, n_rows)


def _standard_csv(file: Path, reading: Reading, layout: _Layout, skipped: int) -> Iterator[Block]:
    width = len(layout.header)
    number = 0
    with (
        decoding(file, reading.encoding, reading.max_bytes),
        open_text(file, reading.encoding, reading.max_bytes) as text,
    ):
        if layout.sep_line:
            text.readline()
        reader = csv.reader(text, delimiter=layout.delimiter, strict=True, skipinitialspace=layout.skips_blanks)
        try:
            _next_rows(reader, 1)  # the header
            while True:
                rows = _next_rows(reader, _ROWS)
                for place, cells in enumerate(rows, start=number + 1):
                    if len(cells) != width:
                        _drop_unnamed(file, place, cells, layout)
                kept = rows[max(0, skipped - number) :]
                number += len(rows)
                if kept:
                    yield Block([list(column) for column in zip(*kept, strict=True)], len(kept))
                if len(rows) < _ROWS:
                    return
        except csv.Error as error:
            raise MarketError(_complaint(file, reader.line_num, error)) from error


def _drop_unnamed(file: Path, row: int, cells: list[str], layout: _Layout) -> None:
    """Drops, in place, empty cells beyond the header's columns, as spreadsheets write them.

    Raises:
        MarketError: For a row with fewer cells than the header, or with a filled cell beyond it.
    """
    width = len(layout.header)
    if len(cells) > width and not any(map(str.strip, cells[width:])):
        del cells[width:]
        return
    message = f"{file}, row {row}: {len(cells)} cells, expected {width} as in the header"
    if len(cells) < width:
        raise MarketError(f"{message}.")
    raise MarketError(
        f"{message}: a cell that holds {layout.delimiter!r} must stand in quotation marks, and every column with "
        "something in it needs a name."
    )


def _next_rows(reader: Any, n: int) -> list[list[str]]:
    """Up to ``n`` rows of a reader; blank lines do not count."""
    limit = csv.field_size_limit(_MAX_CELL)  # a limit of the whole process, so it is reset below
    try:
        return list(islice(filter(None, reader), n))
    finally:
        csv.field_size_limit(limit)


def _pyarrow_csv(file: Path, reading: Reading, layout: _Layout) -> Iterator[Block]:
    """The rows of :func:`_standard_csv`, read by pyarrow; ValueError for anything that it would read differently."""
    pyarrow, arrow_csv = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.csv")
    with open_bytes(file, reading.max_bytes) as raw:
        encoding = encoding_of(file, raw.peek(4096), reading.encoding)  # type: ignore[attr-defined]
        if encoding.lower() not in ("utf-8", "utf8", "utf-8-sig") or not layout.delimiter.isascii():
            raise ValueError("another encoding")
        if encoding == "utf-8-sig":
            raw.read(3)
        if layout.sep_line:
            raw.readline()
        with arrow_csv.open_csv(
            _WellQuoted(raw, layout.delimiter),
            read_options=arrow_csv.ReadOptions(block_size=_PIECE),
            parse_options=arrow_csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(layout.written, pyarrow.string()), null_values=[], strings_can_be_null=False
            ),
        ) as batches:
            if _normal(batches.schema.names) != layout.header:
                raise ValueError("another header")
            for batch in batches:
                if batch.num_rows:
                    yield Block(batch.columns, batch.num_rows)


class _WellQuoted(io.RawIOBase):
    """Gives a stream's bytes as long as every quotation mark opens a cell, closes one, or is doubled within a cell.

    If a quotation mark stands elsewhere, readers of CSV differ, and a ValueError is raised. A ValueError is also raised
    if the bytes read at once may end within a line break of a cell, because pyarrow would lose its second half.
    """

    def __init__(self, stream: Any, delimiter: str):
        self._stream = stream
        self._edges = np.zeros(256, dtype=bool)
        self._edges[[*delimiter.encode(), 10, 13, 34]] = True
        self._before, self._open, self._closed_last = 10, False, False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        if size == 0:
            return data
        if not data:
            if self._open:
                raise ValueError("a quotation that does not end")
            return data
        codes = np.frombuffer(data, dtype=np.uint8)
        if self._closed_last and not self._edges[codes[0]]:
            raise ValueError("text behind a quotation")
        marks = np.flatnonzero(codes == 34)
        opening, closing = marks[int(self._open) :: 2], marks[1 - int(self._open) :: 2]
        before = codes[opening - 1]
        if len(opening) and opening[0] == 0:
            before[0] = self._before
        after = codes[np.minimum(closing + 1, len(codes) - 1)]
        if not self._edges[before].all() or not self._edges[after].all():
            raise ValueError("a quotation mark within a cell")
        self._closed_last = bool(len(closing) and closing[-1] == len(codes) - 1)
        self._open ^= len(marks) % 2 == 1
        self._before = int(codes[-1])
        if self._open and self._before == 13:
            raise ValueError("a line break that may be cut in two")
        return data


def _layout(file: Path, reading: Reading) -> _Layout:
    """Finds the delimiter in the first lines, and reads the header."""
    where = file, reading.encoding, reading.max_bytes
    with decoding(*where), open_text(*where) as text:
        sample = text.read(_SAMPLE)
        whole = len(sample) < _SAMPLE
    said = re.match(r'"?sep=([^\r\n"])"?(?:\r\n|\r|\n)', sample)
    if said:
        sample = sample[said.end() :]
    delimiter = reading.delimiter or (said[1] if said else _found_delimiter(file, sample, whole))
    skips_blanks = _skips_blanks(sample, delimiter)
    with decoding(*where), open_text(*where) as text:
        if said:
            text.readline()
        reader = csv.reader(text, delimiter=delimiter, strict=True, skipinitialspace=skips_blanks)
        try:
            header = next(iter(_next_rows(reader, 1)), [])
        except csv.Error as error:
            raise MarketError(_complaint(file, reader.line_num, error)) from error
    written, header = header, _normal(header)
    while header and not header[-1].strip():  # Spreadsheets write empty columns at the end.
        header.pop()
    _check_header(file, header)
    return _Layout(delimiter, header, written, bool(said), skips_blanks)


def _skips_blanks(sample: str, delimiter: str) -> bool:
    """Whether a row of a sample has a blank before a cell that stands in quotation marks."""
    if ' "' not in sample or delimiter == " ":
        return False
    plain, skipping = (_rows_of(sample, delimiter, skipinitialspace=skips, strict=True) for skips in (False, True))
    return any(
        # Blanks alone make no difference: texts lose them later.
        [cell.lstrip(" ") for cell in one] != [cell.lstrip(" ") for cell in other]
        for one, other in zip(plain, skipping, strict=False)
    )


def _found_delimiter(file: Path, sample: str, whole: bool) -> str:
    """The delimiter that cuts the header and every row of the sample into equally many cells."""
    widths = {delimiter: _widths(sample, delimiter, whole) for delimiter in _DELIMITERS}
    cutting = {delimiter: some for delimiter, some in widths.items() if some and some[0] > 1}
    if len(cutting) <= 1:
        return next(iter(cutting), ",")
    even = [delimiter for delimiter, some in cutting.items() if len(some) > 1 and len(set(some)) == 1]
    if len(even) == 1:
        return even[0]
    first = sample.splitlines()[0]
    among = even or list(cutting)
    raise MarketError(
        f"{file}: its cells may be separated by {' or by '.join(map(repr, among))}: the header {first!r:.80} "
        f"holds each of them. Say which one separates cells, e.g. `delimiter={among[0]!r}`."
    )


def _widths(sample: str, delimiter: str, whole: bool) -> list[int]:
    """How many cells the rows of a sample have. If the sample is only a part of the file, its last row is left out."""
    widths = [len(cells) for cells in _rows_of(sample, delimiter, skipinitialspace=True) if cells]
    return widths if whole else widths[:-1]


def _rows_of(sample: str, delimiter: str, **options: Any) -> Iterator[list[str]]:
    """The rows of a sample up to the first one that cannot be read."""
    with contextlib.suppress(csv.Error):
        yield from csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, **options)


def _complaint(file: Path, line: int, error: csv.Error) -> str:
    return (
        f"{file}, line {line}: {error}. If a quotation mark begins a cell, another one must end the cell, and each one "
        "between them is written twice."
    )


def _normal(header: Iterable[str]) -> list[str]:
    """Names of columns in Unicode's normal form C, like the texts below them."""
    return [unicodedata.normalize("NFC", name) for name in header]


def _check_header(file: Path, header: Sequence[str]) -> None:
    repeated = next((name for name, n in Counter(header).items() if n > 1), None)
    if repeated is not None:
        raise MarketError(f"{file}: column {repeated!r} appears twice in the header.")


# ----------------------------------------------------------------------------------------------------------------- json


class _Repeated(Exception):
    """A JSON object has a name twice."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Repeated(next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1))
    return found


_decoder = json.JSONDecoder()
_careful_decoder = json.JSONDecoder(object_pairs_hook=_distinct)
_space = re.compile(r"[ \t\r\n]*")


def parse_json(text: str, where: str, complaint: str = "no JSON") -> Any:
    """The value of a JSON text. For invalid JSON or a repeated name, :class:`MarketError` names the place."""
    try:
        return _careful_decoder.decode(text)
    except _Repeated as error:
        raise MarketError(f"{where}: {error.args[0]!r} appears twice in one JSON object.") from None
    except ValueError as error:  # JSON errors, and integers with too many digits
        raise MarketError(f"{where}: {complaint}: {error}.") from error
    except RecursionError:
        raise MarketError(f"{where}: holds brackets in brackets too deep to read.") from None


def json_rows(file: Path, reading: Reading) -> Iterator[tuple[int, Any]]:
    """The values of a JSON file, one at a time: one on each line, the entries of one array, or one after another.

    Args:
        file: The file.
        reading: How it is read.

    Yields:
        The number of each value, from 1, and the value. As long as each line holds one value, the number is that of
        the line.

    Raises:
        MarketError: For invalid JSON, or an object that has a name twice.
    """
    with decoding(file, reading.encoding, reading.max_bytes):
        with open_text(file, reading.encoding, reading.max_bytes, newline="\n") as text:
            first = ""
            while not first and (line := text.readline(_SAMPLE)):
                first = line.lstrip()
            in_array = first.startswith("[")
            if not in_array and not first.endswith("\n"):
                first += text.readline()
        with open_text(file, reading.encoding, reading.max_bytes, newline="\n") as text:
            if not in_array and _is_one_value(first):
                yield from _by_line(file, text)
            else:
                yield from _one_after_another(file, _Window(text), in_array)


def _is_one_value(line: str) -> bool:
    """Whether a file that begins with this line is read line by line.

    It is if the line is one whole JSON value. It is, too, if the line begins neither with a JSON value nor with ``{``:
    such a line cannot be read, and the error then names the line.
    """
    try:
        return not line[_decoder.raw_decode(line)[1] :].strip()
    except (ValueError, RecursionError):
        return not line.startswith("{")


def _by_line(file: Path, text: TextIO) -> Iterator[tuple[int, Any]]:
    """The values of lines. From the first line on that is not one whole value, values may spread over lines."""
    number, plain = 1, True
    while piece := text.read(_LINES):
        piece += text.readline()
        # Not splitlines, because a JSON text may hold U+2028 and similar characters.
        lines = piece.removesuffix("\n").split("\n")
        values = _plain_values(piece, lines, number) if plain else None
        plain = values is not None
        if values is not None:
            yield from values
        else:
            for row, line in enumerate(lines, start=number):
                if not line.strip():
                    continue
                try:
                    value = parse_json(line, f"{file}, row {row}")
                except MarketError:
                    if not _may_go_on(line):
                        raise
                    window = _Window(text, "\n".join([*lines[row - number :], ""]))
                    yield from _one_after_another(file, window, in_array=False, number=row - 1)
                    return
                yield row, value
        number += len(lines)


def _may_go_on(line: str) -> bool:
    """Whether a line that is not one JSON value may still be part of a valid file.

    It may if its value is only cut off by the end of the line, or if it begins with a value that an object follows.
    """
    line = line.strip(" \t\r")
    try:
        end = _decoder.raw_decode(line)[1]
    except json.JSONDecodeError as error:
        return error.pos >= len(line)
    except (ValueError, RecursionError):
        return False
    return line[end:].lstrip(" \t\r").startswith("{")


def _plain_values(piece: str, lines: list[str], number: int) -> list[tuple[int, Any]] | None:
    """The values of lines, read in the fastest way; ``None`` if something may be wrong with one of them."""
    values = []
    decode = _decoder.raw_decode
    for place, line in enumerate(lines, start=number):
        try:
            value, end = decode(line)
        except (ValueError, RecursionError):
            if line.strip():
                return None
            continue
        if end < len(line) and line[end:].strip(" \t\r"):
            return None
        values.append((place, value))
    # A repeated name in an object leaves only one entry. The text then has more names than were found.
    n_names = sum(len(value) for _, value in values if isinstance(value, dict))
    if piece.count(":") == n_names:
        return values
    is_spaced = any(spaced in piece for spaced in (" :", "\t:", "\r:"))
    return None if is_spaced or piece.count('":') != n_names else values


def _one_after_another(file: Path, window: _Window, in_array: bool, number: int = 0) -> Iterator[tuple[int, Any]]:
    """The entries of an array, or values that spread over lines, numbered from ``number + 1`` on."""
    if in_array:
        window.next_character()
        window.place += 1
    while True:
        character = window.next_character()
        if in_array and character == "]":
            window.place += 1
            if window.next_character():
                raise MarketError(f"{file}: holds more behind the end of its array, after row {number}.")
            return
        if not character and not in_array:
            return
        number += 1
        if in_array and number > 1:
            if character != ",":
                raise MarketError(f"{file}, row {number}: no JSON: expected ',' or the end of the array.")
            window.place += 1
            window.next_character()
        yield number, window.value(f"{file}, row {number}")


class _Window:
    """A window on a text: it holds one part of the text, and moves on as far as the next JSON value needs.

    Args:
        text: The text.
        part: A part of the text that was read already and is to be read again.
    """

    def __init__(self, text: TextIO, part: str = ""):
        self._text, self._part, self.place = text, part, 0

    def next_character(self) -> str:
        """The next character after any blanks; empty at the end."""
        while True:
            self.place = _space.match(self._part, self.place).end()  # type: ignore[union-attr]
            if self.place < len(self._part):
                return self._part[self.place]
            if not self._moved():
                return ""

    def value(self, where: str) -> Any:
        while True:
            try:
                value, end = _careful_decoder.raw_decode(self._part, self.place)
                if end < len(self._part) or not self._moved():  # a number may go on
                    self.place = end
                    return value
                continue
            except _Repeated as error:
                raise MarketError(f"{where}: {error.args[0]!r} appears twice in one JSON object.") from None
            except RecursionError:
                raise MarketError(f"{where}: holds brackets in brackets too deep to read.") from None
            except json.JSONDecodeError as error:
                problem = error.msg
                place = len(self._part) if problem.startswith("Unterminated") else error.pos
            except ValueError as error:  # an integer with too many digits
                problem, place = str(error), 0
            # An error near the end of the part may only mean that the value is cut off.
            if place < len(self._part) - 16 or not self._moved():
                raise MarketError(f"{where}: no JSON: {problem}.")

    def _moved(self) -> bool:
        """Reads on, so that the part begins at the place; returns whether there was more text."""
        rest = self._part[self.place :]
        more = self._text.read(max(_PIECE, len(rest)))
        self._part, self.place = rest + more, 0
        return bool(more)


def _lists(value: Any) -> dict[str, list[Any]]:
    """The lists of rows in one JSON object: those of both sides by name, or its only entry."""
    if not isinstance(value, dict):
        return {}
    named = {name: entries for name, entries in value.items() if name in _SIDES and _is_rows(entries)}
    if not named and len(value) == 1:
        named = {name: entries for name, entries in value.items() if _is_rows(entries) and entries}
    return named


def _is_by_column(value: Any) -> bool:
    """Whether a JSON value is a table by column, such as ``{"key": {"0": ...}, "hard": {"0": ...}}``."""
    if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
        return False
    numbers = next(map(list, value.values()), [])
    is_numbered = bool(numbers) and all(map(str.isdecimal, numbers))
    return is_numbered and all(list(column) == numbers for column in value.values())


def _deeper_rows(value: Any) -> str:
    """Where the rows seem to be in one JSON object; empty if nowhere.

    An object with a text among its entries counts as a row itself; the result is then empty too.
    """
    if not isinstance(value, dict) or any(isinstance(entry, str) for entry in value.values()):
        return ""
    for name, entry in value.items():
        if _is_rows(entry) and entry:
            return f"in {name!r:.80}"
        if isinstance(entry, dict) and (place := _deeper_rows(entry)):
            return f"in {name!r:.80}, {place}"
    if len(value) > 1 and all(isinstance(entry, dict) for entry in value.values()):
        return f"its {len(value)} entries, which are objects"
    return ""


def _is_rows(entries: Any) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)


def _json_table(file: str, rows: list[tuple[int, Any]]) -> Table:
    for number, row in rows:
        if not isinstance(row, dict):
            raise MarketError(f"{file}, row {number}: must be a JSON object, got {type(row).__name__}.")
    header = list(dict.fromkeys(name for _, row in rows for name in row))
    normal = _normal(header)
    if normal != header:
        _check_header(Path(file), normal)
        names = dict(zip(header, normal, strict=True))
        rows = [(number, {names[name]: value for name, value in row.items()}) for number, row in rows]
    return Table(file, normal, rows)


# -------------------------------------------------------------------------------------------------------------- parquet


def parquet_blocks(file: Path, reading: Reading) -> tuple[list[str], Iterator[Block]]:
    """The header of a Parquet file, and its rows in blocks of some thousands.

    Raises:
        MarketError: For a file that is not Parquet, two columns of one name, or more than ``max_bytes`` of values.
        ImportError: Without pyarrow.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f"{file} needs pyarrow: {install_command('data')}.") from error
    check_exists(file)
    try:
        packing = packing_of(file)
        if packing is not None:
            raise MarketError(f"{file} is packed by {packing}, but Parquet is read only unpacked: unpack the file.")
        # pyarrow's `read_table` is not used: it would take a folder name like `side=jobs` for a partition.
        opened = parquet.ParquetFile(file)
    except MarketError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise MarketError(f"{file} cannot be read as Parquet: {error}.") from error
    header = list(opened.schema_arrow.names)
    header = _normal(header)
    _check_header(file, header)
    return header, _parquet_rows(file, opened, reading.max_bytes)


def _parquet_rows(file: Path, opened: Any, max_bytes: int) -> Iterator[Block]:
    n_bytes = 0
    try:
        for batch in opened.iter_batches():
            n_bytes += batch.nbytes
            if n_bytes > max_bytes:
                raise MarketError(
                    f"{file} unpacks to more than {readable_size(max_bytes)}: say `max_bytes={max_bytes * 4}` or more "
                    "if it may be that large."
                )
            names = batch.schema.names
            columns = [_decoded(file, name, column) for name, column in zip(names, batch.columns, strict=True)]
            yield Block(columns, batch.num_rows)
    except MarketError:
        raise
    except (OSError, ValueError) as error:
        raise MarketError(f"{file} cannot be read as Parquet: {error}.") from error


def _decoded(file: Path, name: str, column: Any) -> Any:
    """A column whose cells Python has types for. Most columns stay as they are.

    Bytes, and lists of bytes, are read as UTF-8, because some writers do not mark texts. Times are cut to
    microseconds. Dates that Python cannot hold are read as texts.

    Raises:
        MarketError: For objects or lists with such dates, and for an unknown time zone.
    """
    pyarrow = importlib.import_module("pyarrow")
    kinds = {pyarrow.binary(): pyarrow.string(), pyarrow.large_binary(): pyarrow.large_string()}
    of_lists = {pyarrow.types.is_list: pyarrow.list_, pyarrow.types.is_large_list: pyarrow.large_list}
    text = kinds.get(column.type)
    for is_list, list_of in of_lists.items():
        if is_list(column.type) and column.type.value_type in kinds:
            text = list_of(kinds[column.type.value_type])
    try:
        if text is not None:
            return column.cast(text)
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
            column = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
    except ValueError:
        return column
    if not re.search("date|time|duration", str(column.type)):
        return column
    try:
        column.to_pylist()
    except (ValueError, OverflowError, LookupError):
        try:
            return list(map(_readable, column, column.cast(pyarrow.string()).to_pylist()))
        except (ValueError, NotImplementedError, LookupError):
            raise MarketError(
                f"{file}: column {name!r:.80} has dates or times that Python cannot read: write it as text, or leave "
                "it out."
            ) from None
    return column


def _readable(cell: Any, text: str | None) -> Any:
    """A cell of pyarrow as Python reads it; its text if Python cannot read it."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return text


def _cells(column: Any) -> list[Any]:
    found: list[Any] = column if isinstance(column, list) else column.to_pylist()
    return found
