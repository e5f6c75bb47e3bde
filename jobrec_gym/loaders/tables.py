"""A user's own jobs and applicants: CSV, JSON lines or Parquet, two files or one."""

from __future__ import annotations

import csv
import difflib
import gzip
import importlib
import io
import json
import logging
import math
import numbers
import os
import zlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobrec_gym.encoders import DEFAULT_ENCODER, Encoder
from jobrec_gym.loaders.assembly import SPLITS, Record, SplitBy, assemble_market, check_text
from jobrec_gym.loaders.careers import Occupation, applicants_of
from jobrec_gym.loaders.release import no_such_column
from jobrec_gym.market import ContextField, ContextValue, LabourMarket, MarketError
from jobrec_gym.market.context import Context, ContextKind, context_fields

__all__ = [
    "FIELDS",
    "Table",
    "load_csv",
    "load_jsonl",
    "load_parquet",
    "parse_json",
    "read_table",
    "records_of",
]

logger = logging.getLogger(__name__)

FIELDS = ("key", "title", "hard", "soft", "seniority", "experience", "occupation", "family", "split", "description")
"""What a row can tell, see :class:`~jobrec_gym.loaders.assembly.Record`."""

_SIDES = ("jobs", "applicants")
_SKILL_FIELDS = ("hard", "soft")
_ROLE_VALUES = {"jobs": "job", "applicants": "applicant"}
_FLAGS = {
    **dict.fromkeys(("true", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "n", "0", "0.0"), False),
}
_MAX_CELL = 1 << 30
_ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

Columns = Mapping[str, Any]


def load_csv(
    path: str | os.PathLike[str],
    *,
    applicants: str | os.PathLike[str] | None = None,
    role_column: str | None = None,
    role_values: Mapping[str, str] | None = None,
    n_applicants: int | None = None,
    columns: Columns | None = None,
    text_columns: Sequence[str] | Mapping[str, Sequence[str]] = (),
    skill_separator: str = ";",
    delimiter: str = ",",
    context: Context | None = None,
    encoder: str | os.PathLike[str] | Encoder = DEFAULT_ENCODER,
    cache_dir: str | bool | None = None,
    test_fraction: float = 0.3,
    split_by: SplitBy = "row",
    seed: int = 0,
) -> LabourMarket:
    """A market from CSV files (UTF-8, with a header; ``.gz`` too).

    Args:
        path: The jobs; or jobs and applicants, with ``role_column``.
        applicants: The file of the applicants.
        role_column: The column that says what a row is.
        role_values: What stands there, ``{"jobs": "job", "applicants": "applicant"}`` unless given.
        n_applicants: For jobs without applicants: sample this many people from the jobs' occupations (nobody among them
            is real). Needs an occupation for every job, and skills in lists.
        columns: Which column holds which of :data:`FIELDS`; by default each is named like its field. ``{"jobs": {...},
            "applicants": {...}}`` where the sides differ. ``hard`` and ``soft`` may name several columns, which are
            joined. A mapped column must be there; of the others only one of ``hard`` and ``soft`` must. A column that
            differs from a field only by case or spaces (``Hard``) is refused until it is mapped. Without a key column a
            row's key is its number. ``split`` says ``train`` or ``test`` of each row, in place of ``test_fraction``;
            where rows of both sides are read, both have it or none has. ``description`` is a text for language models
            to read, of which no vector is made; ``text_columns`` with ``columns={"hard": "description"}`` makes one.
        text_columns: Which of ``"hard", "soft"`` hold free text instead of a list of skills; a free text counts as one
            skill. A mapping ``{"jobs": [...], "applicants": [...]}`` where the sides differ.
        skill_separator: What separates skills in a cell. A cell may hold a JSON array as well.
        delimiter: What separates cells.
        context: What else both sides have, by a name of your own, and how it is compared: ``{"place": "category",
            "salary": "number", "remote": "flag", "languages": "set"}``, see
            :class:`~jobrec_gym.market.context.ContextField`. The columns are named like the field; where they are not,
            ``("number", "wanted_salary", "salary")`` is the kind, the applicants' column and the jobs'. Of a category
            the two columns will do, ``{"place": ("wanted_place", "place")}``. An empty cell is unknown.
        encoder: As in :func:`~jobrec_gym.encoders.make_encoder`; ``"hashing"`` needs no torch.
        cache_dir: Where vectors are kept between runs; ``False`` keeps none.
        test_fraction: Share of the rows of each side that is held out.
        split_by: Hold out rows, or whole occupations (every row needs one).
        seed: Which rows are held out, and which people are sampled.

    Raises:
        MarketError: For a file, column or cell that is missing or wrong; the message names file, row (1 is the first
            below the header) and column.

    Example:
        >>> market = load_csv("jobs.csv", applicants="people.csv", columns={"hard": "skills"})
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"':
        raise MarketError(
            f"`delimiter` must be one character, no quotation mark and no end of line, got {delimiter!r}."
        )

    def read(file: Path) -> Table:
        return _read_csv(file, delimiter)

    return _load(
        "csv",
        read,
        _Options(role_column, role_values, n_applicants, columns, text_columns, skill_separator, context),
        path,
        applicants,
        encoder=encoder,
        cache_dir=cache_dir,
        test_fraction=test_fraction,
        split_by=split_by,
        seed=seed,
    )


def load_jsonl(
    path: str | os.PathLike[str],
    *,
    applicants: str | os.PathLike[str] | None = None,
    role_column: str | None = None,
    role_values: Mapping[str, str] | None = None,
    n_applicants: int | None = None,
    columns: Columns | None = None,
    text_columns: Sequence[str] | Mapping[str, Sequence[str]] = (),
    skill_separator: str = ";",
    context: Context | None = None,
    encoder: str | os.PathLike[str] | Encoder = DEFAULT_ENCODER,
    cache_dir: str | bool | None = None,
    test_fraction: float = 0.3,
    split_by: SplitBy = "row",
    seed: int = 0,
) -> LabourMarket:
    """A market from JSON lines (``.gz`` too): one object a line, skills as arrays of texts.

    Arguments and errors as in :func:`load_csv`.
    """
    return _load(
        "jsonl",
        _read_jsonl,
        _Options(role_column, role_values, n_applicants, columns, text_columns, skill_separator, context),
        path,
        applicants,
        encoder=encoder,
        cache_dir=cache_dir,
        test_fraction=test_fraction,
        split_by=split_by,
        seed=seed,
    )


def load_parquet(
    path: str | os.PathLike[str],
    *,
    applicants: str | os.PathLike[str] | None = None,
    role_column: str | None = None,
    role_values: Mapping[str, str] | None = None,
    n_applicants: int | None = None,
    columns: Columns | None = None,
    text_columns: Sequence[str] | Mapping[str, Sequence[str]] = (),
    skill_separator: str = ";",
    context: Context | None = None,
    encoder: str | os.PathLike[str] | Encoder = DEFAULT_ENCODER,
    cache_dir: str | bool | None = None,
    test_fraction: float = 0.3,
    split_by: SplitBy = "row",
    seed: int = 0,
) -> LabourMarket:
    """A market from Parquet files, skills as lists of texts. Arguments and errors as in :func:`load_csv`.

    Raises:
        ImportError: If pyarrow is not installed.
    """
    return _load(
        "parquet",
        _read_parquet,
        _Options(role_column, role_values, n_applicants, columns, text_columns, skill_separator, context),
        path,
        applicants,
        encoder=encoder,
        cache_dir=cache_dir,
        test_fraction=test_fraction,
        split_by=split_by,
        seed=seed,
    )


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Table:
    """A file's columns, and its rows with their numbers.

    Attributes:
        file: What messages call it.
        header: Names of the columns.
        rows: Each with its number, which is 1 for the first below the header.
    """

    file: str
    header: list[str]
    rows: list[tuple[int, dict[str, Any]]]


def read_table(source: str | os.PathLike[str], delimiter: str = ",") -> Table:
    """A file of one side, read by its own scheme (``"csv:people.txt"``) or ending, whatever another file is.

    Args:
        source: A CSV file (``.csv``, ``.csv.gz``), JSON lines (``.jsonl``, ``.jsonl.gz``, ``.ndjson``) or Parquet
            (``.parquet``).
        delimiter: What separates the cells of a CSV file.

    Raises:
        MarketError: For another ending, or a file that is missing or cannot be read.
        ImportError: For a Parquet file without pyarrow.
    """
    text = os.fspath(source)
    scheme, colon, path = text.partition(":")
    kind = scheme if colon and scheme in ("csv", "jsonl", "parquet") else None
    file = Path(path if kind else text)
    kind = kind or _ENDINGS.get(Path(file.stem if file.suffix == ".gz" else file.name).suffix.lower())
    if kind is None:
        raise MarketError(
            f"{file} must end in {', '.join(_ENDINGS)} (or one of them and .gz), or be named with what it is, "
            f"e.g. 'csv:{file}'."
        )
    if kind == "csv":
        return _read_csv(file, delimiter)
    return _read_jsonl(file) if kind == "jsonl" else _read_parquet(file)


def _read_csv(file: Path, delimiter: str) -> Table:
    limit = csv.field_size_limit(_MAX_CELL)  # of the process: put back below
    try:
        reader = csv.reader(io.StringIO(_text(file), newline=""), delimiter=delimiter, strict=True)
        header = next(reader, [])
        _check_header(file, header)
        rows = []
        number = 0
        for cells in reader:
            if not cells:  # a blank line
                continue
            number += 1
            if len(cells) != len(header):
                raise MarketError(f"{file}, row {number}: {len(cells)} cells, expected {len(header)} as in the header.")
            rows.append((number, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise MarketError(f"{file}, line {reader.line_num}: {error}.") from error
    finally:
        csv.field_size_limit(limit)
    return Table(str(file), header, rows)


def _read_jsonl(file: Path) -> Table:
    header: dict[str, None] = {}
    rows = []
    # Not splitlines: a JSON text may hold U+2028 and its kin.
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{file}, row {number}")
        if not isinstance(row, dict):
            raise MarketError(f"{file}, row {number}: must be a JSON object, got {type(row).__name__}.")
        header.update(dict.fromkeys(row))
        rows.append((number, row))
    return Table(str(file), list(header), rows)


def _read_parquet(file: Path) -> Table:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f'{file} needs pyarrow: pip install "jobrec-gym[data]".') from error
    if not file.is_file():
        raise MarketError(f"{file} does not exist.")
    try:
        # Not read_table: that would take a folder name like `side=jobs` for a partition.
        table = parquet.ParquetFile(file).read()
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise MarketError(f"{file} cannot be read as Parquet: {error}.") from error
    _check_header(file, table.column_names)
    return Table(str(file), list(table.column_names), list(enumerate(table.to_pylist(), start=1)))


def _check_header(file: Path, header: Sequence[str]) -> None:
    if len(set(header)) < len(header):
        repeated = next(name for name in header if header.count(name) > 1)
        raise MarketError(f"{file}: column {repeated!r} appears twice in the header.")


def parse_json(text: str, where: str, complaint: str = "no JSON") -> Any:
    """A JSON text's value; :class:`MarketError` names the place where it is none or an object repeats a name."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise MarketError(f"{where}: {repeated!r} appears twice in one JSON object.")
        return found

    try:
        return json.loads(text, object_pairs_hook=distinct)
    except MarketError:
        raise
    except ValueError as error:  # also for an integer of too many digits
        raise MarketError(f"{where}: {complaint}: {error}.") from error
    except RecursionError:
        raise MarketError(f"{where}: holds brackets in brackets too deep to read.") from None


def _text(file: Path) -> str:
    if not file.is_file():
        raise MarketError(f"{file} does not exist.")
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MarketError(f"{file}, near line {line}: not UTF-8 ({error.reason}); save it as UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise MarketError(f"{file} cannot be read: {error}.") from error


# ------------------------------------------------------------------------------------------------------------- building


@dataclass(frozen=True, slots=True)
class _Options:
    role_column: str | None
    role_values: Mapping[str, str] | None
    n_applicants: int | None
    columns: Columns | None
    text_columns: Sequence[str] | Mapping[str, Sequence[str]]
    skill_separator: str
    context: Context | None


def _load(
    scheme: str,
    read: Callable[[Path], Table],
    options: _Options,
    path: str | os.PathLike[str],
    applicants: str | os.PathLike[str] | None,
    **assembly: Any,
) -> LabourMarket:
    path = Path(path)
    sources = {"applicants": applicants, "role_column": options.role_column, "n_applicants": options.n_applicants}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise MarketError(
            f"{path}: give exactly one of `applicants` (their file), `role_column` (jobs and applicants in one file) "
            "and "
            f"`n_applicants` (people sampled from the jobs' occupations), got {given or 'none'}."
        )
    _check_reading(options.columns, options.skill_separator)
    context = context_fields(options.context)
    if context and options.n_applicants is not None:
        raise MarketError(
            f"{path}: `context` compares both sides, and of people that `n_applicants` samples nothing is known but "
            "skills: give the file of the applicants as `applicants=`."
        )
    table = read(path)
    if not table.rows:
        raise MarketError(f"{path} has no rows.")
    if options.role_column is not None:
        tables = _by_role(table, options.role_column, options.role_values)
    else:
        tables = {"jobs": table}
        if applicants is not None:
            tables["applicants"] = read(Path(applicants))
            if not tables["applicants"].rows:
                raise MarketError(f"{applicants} has no rows.")
    if options.role_values is not None and options.role_column is None:
        raise MarketError("`role_values` has no meaning without `role_column`.")

    records = {}
    for side, some in tables.items():
        records[side] = records_of(
            some,
            side,
            options.columns,
            options.text_columns,
            options.skill_separator,
            options.role_column,
            context=context,
        )
    _check_both_split(tables, records)
    if options.n_applicants is not None:
        records["applicants"] = _sampled(path, records["jobs"], options.n_applicants, assembly["seed"])
    kinds = {name: field.kind for name, field in context.items()}
    return assemble_market(f"{scheme}:{path.name}", records["applicants"], records["jobs"], context=kinds, **assembly)


def _check_both_split(tables: Mapping[str, Table], records: Mapping[str, Sequence[Record]]) -> None:
    """Raises where one side's rows say which are held out and the other side's do not: it would be split by chance."""
    with_split = [side for side, some in records.items() if some[0].split is not None]
    without = [side for side in records if side not in with_split]
    if with_split and without:
        raise MarketError(
            f"{tables[with_split[0]].file} says the split of the {with_split[0]}, and {tables[without[0]].file} has no "
            f"column 'split' for the {without[0]}: give them one as well ('train' in every row holds nothing out), or "
            "give it to neither."
        )


def records_of(
    table: Table,
    side: str,
    columns: Columns | None = None,
    text_columns: Sequence[str] | Mapping[str, Sequence[str]] = (),
    skill_separator: str = ";",
    role_column: str | None = None,
    fields: Sequence[str] = FIELDS,
    context: Mapping[str, ContextField] | None = None,
) -> list[Record]:
    """What the rows of a table say of jobs or of applicants.

    Args:
        table: Its rows are all of one side.
        side: ``"jobs"`` or ``"applicants"``.
        columns: As in :func:`load_csv`, like the next two.
        text_columns: Which fields are free text.
        skill_separator: What separates skills in a cell.
        role_column: A column that says what a row is, and is no field.
        fields: Which are read; columns of the others are as good as not there.
        context: From :func:`~jobrec_gym.market.context.context_fields`.

    Raises:
        MarketError: As :func:`load_csv`.
    """
    _check_reading(columns, skill_separator)
    columns_of = _columns_of(table, side, columns, role_column, fields)
    text = _text_fields(side, text_columns)
    told = _context_columns(table, side, context or {})
    return [_record(table.file, number, row, columns_of, text, skill_separator, told) for number, row in table.rows]


def _context_columns(
    table: Table, side: str, context: Mapping[str, ContextField]
) -> dict[str, tuple[ContextKind, str]]:
    """Kind and column of each field of the context."""
    found: dict[str, tuple[ContextKind, str]] = {}
    for name, field in context.items():
        column = (field.applicants if side == "applicants" else field.jobs) or name
        if column not in table.header:
            raise MarketError(
                f"{no_such_column(table.file, column, table.header)} `context` compares {name!r} of both sides: say "
                f"the kind and both columns, `context={{{name!r}: ({field.kind!r}, 'of applicants', 'of jobs')}}`."
            )
        found[name] = (field.kind, column)
    return found


def _check_reading(columns: Columns | None, skill_separator: str) -> None:
    if not isinstance(skill_separator, str) or not skill_separator:
        raise MarketError(f"`skill_separator` must not be empty and be a text, got {skill_separator!r}.")
    if columns is not None and not isinstance(columns, Mapping):
        raise MarketError(f"`columns` must map fields to columns, `{{'hard': 'skills'}}`, got {columns!r}.")


def _by_role(table: Table, column: str, role_values: Mapping[str, str] | None) -> dict[str, Table]:
    if column not in table.header:
        raise MarketError(no_such_column(table.file, column, table.header))
    if role_values is not None and not isinstance(role_values, Mapping):
        raise MarketError(f"`role_values` must give {_SIDES} a value each, got {role_values!r}.")
    values = dict(_ROLE_VALUES if role_values is None else role_values)
    if set(values) != set(_SIDES) or len(set(values.values())) != len(_SIDES):
        raise MarketError(f"`role_values` must give {_SIDES} a value each, got {values}.")
    side_of = {value: side for side, value in values.items()}
    rows: dict[str, list[tuple[int, dict[str, Any]]]] = {side: [] for side in _SIDES}
    for number, row in table.rows:
        role = row.get(column)
        role = role.strip() if isinstance(role, str) else role
        if not isinstance(role, Hashable) or role not in side_of:
            near = difflib.get_close_matches(role if isinstance(role, str) else "", list(map(str, side_of)), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise MarketError(
                f"{table.file}, row {number}, column {column!r}: must be {' or '.join(map(repr, side_of))}, got "
                f"{role!r:.80}.{hint}"
            )
        rows[side_of[role]].append((number, row))
    for side, some in rows.items():
        if not some:
            raise MarketError(f"{table.file} has no {side}: no row has {values[side]!r} in column {column!r}.")
    return {side: Table(table.file, table.header, some) for side, some in rows.items()}


def _columns_of(
    table: Table, side: str, columns: Columns | None, role_column: str | None, fields: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The file's columns of each of these fields that it has."""
    columns = columns or {}
    if set(columns) & set(_SIDES):
        _known("columns", columns, _SIDES)
        columns = columns.get(side) or {}
        if not isinstance(columns, Mapping):
            raise MarketError(f"`columns[{side!r}]` must map fields to columns, got {columns!r}.")
    _known("columns", columns, FIELDS)
    found: dict[str, tuple[str, ...]] = {}
    for field in fields:
        names = columns.get(field, field)
        if not isinstance(names, str):
            if field not in _SKILL_FIELDS:
                raise MarketError(f"`columns[{field!r}]` must be one column name, got {names!r}.")
            if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
                raise MarketError(
                    f"`columns[{field!r}]` must be a column name or a list of them, got {names!r}; leave {field!r} out "
                    "where the file has no such column."
                )
            names = tuple(names)
        else:
            names = (names,)
        for name in names:
            if name not in table.header and field in columns:
                raise MarketError(no_such_column(table.file, name, table.header))
        if all(name in table.header for name in names):
            found[field] = names
    near = set(fields) - set(columns)
    _refuse_near_misses(table, side, near, {name for names in found.values() for name in names} | {role_column})
    if not found.keys() & set(_SKILL_FIELDS):
        raise MarketError(
            f"{no_such_column(table.file, 'hard', table.header)} A file of {side} needs 'hard', 'soft' or both: say "
            "which columns they are, "
            "e.g. `columns={'hard': 'skills'}`."
        )
    used = {name for names in found.values() for name in names}
    logger.info(
        "%s: %s read from %s; columns not used: %s",
        *(
            table.file,
            side,
            ", ".join(sorted(used)),
            ", ".join(name for name in table.header if name not in used) or "none",
        ),
    )
    return found


def _refuse_near_misses(table: Table, side: str, unmapped: Set[str], used: Set[str | None]) -> None:
    """Raises for a column like ``Hard`` or ``soft_``: by its name a field, and yet nobody would read it."""
    for name in table.header:
        field = name.casefold().strip(" \t_\ufeff\xa0")
        if field not in unmapped or name in used:
            continue
        for number, row in table.rows:
            # In JSON lines some rows may have the one name and some the other.
            if name in row and field not in row:
                place = table.file if field not in table.header else f"{table.file}, row {number}"
                raise MarketError(
                    f"{place}: column {name!r} would not be read, since the field is called {field!r}: say "
                    f"`columns={{{field!r}: {name!r}}}` (for one side `columns={{{side!r}: {{{field!r}: {name!r}}}}}`) "
                    "or rename the column."
                )


def _text_fields(side: str, text_columns: Sequence[str] | Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    if isinstance(text_columns, Mapping):
        _known("text_columns", text_columns, _SIDES)
        text_columns = text_columns.get(side, ())
    if isinstance(text_columns, str):
        text_columns = (text_columns,)
    if not isinstance(text_columns, Collection):
        raise MarketError(f"`text_columns` must list 'hard', 'soft' or both, got {text_columns!r}.")
    _known("text_columns", text_columns, _SKILL_FIELDS)
    return tuple(text_columns)


def _known(argument: str, names: Sequence[str] | Mapping[str, Any], allowed: Sequence[str]) -> None:
    for name in names:
        if name not in allowed:
            near = difflib.get_close_matches(str(name), allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise MarketError(f"`{argument}` may name {', '.join(map(repr, allowed))}, got {name!r}.{hint}")


def _record(
    file: str,
    number: int,
    row: Mapping[str, Any],
    fields: Mapping[str, tuple[str, ...]],
    text_fields: Sequence[str],
    separator: str,
    context: Mapping[str, tuple[ContextKind, str]],
) -> Record:
    where = f"{file}, row {number}"

    def text(field: str) -> str:
        return _cell_text(row.get(fields[field][0]), where, fields[field][0]) if field in fields else ""

    def skills(field: str) -> tuple[str, ...] | str:
        names = fields.get(field, ())
        if field in text_fields:
            texts = [_cell_free_text(row.get(name), where, name) for name in names]
            return "\n".join(part for part in texts if part)
        return tuple(skill for name in names for skill in _cell_skills(row.get(name), where, name, separator))

    key = text("key") if "key" in fields else str(number)
    if not key:
        raise MarketError(f"{where}, column {fields['key'][0]!r}: is empty; every row needs a key of its own.")
    return Record(
        key=key,
        title=text("title"),
        hard=skills("hard"),
        soft=skills("soft"),
        seniority=_cell_seniority(row.get(fields["seniority"][0]), where, fields["seniority"][0])
        if "seniority" in fields
        else 0,
        experience=text("experience"),
        occupation=text("occupation") or None,
        family=text("family") or None,
        where=where,
        split=_cell_split(text("split"), where, fields["split"][0]) if "split" in fields else None,
        description=_cell_free_text(row.get(fields["description"][0]), where, fields["description"][0])
        if "description" in fields
        else "",
        context={
            name: _cell_context(row.get(column), kind, where, column, separator)
            for name, (kind, column) in context.items()
        },
    )


def _is_missing(cell: Any) -> bool:
    return (
        cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())
    )


def _cell_text(cell: Any, where: str, column: str) -> str:
    if _is_missing(cell):
        return ""
    if isinstance(cell, str):
        check_text(cell, f"{where}, column {column!r}")
        return cell.strip()
    if isinstance(cell, numbers.Number) and not isinstance(cell, bool):
        return str(cell)
    raise MarketError(f"{where}, column {column!r}: must be a text or a number, got {cell!r:.80}.")


def _cell_free_text(cell: Any, where: str, column: str) -> str:
    if isinstance(cell, list):
        return "\n".join(_skill_texts(cell, where, column))
    return _cell_text(cell, where, column)


def _cell_skills(cell: Any, where: str, column: str, separator: str) -> Iterator[str]:
    if _is_missing(cell):
        return
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        cell = parse_json(cell, f"{where}, column {column!r}", "begins like a JSON array and is none")
    if isinstance(cell, str):
        check_text(cell, f"{where}, column {column!r}")
        yield from (skill for part in cell.split(separator) if (skill := part.strip()))
    elif isinstance(cell, list):
        yield from _skill_texts(cell, where, column)
    else:
        raise MarketError(f"{where}, column {column!r}: must be a list of skills, got {cell!r:.80}.")


def _skill_texts(cell: Sequence[Any], where: str, column: str) -> list[str]:
    for skill in cell:
        if not isinstance(skill, str):
            raise MarketError(f"{where}, column {column!r}: must list texts, got {skill!r:.80} among them.")
        check_text(skill, f"{where}, column {column!r}")
    return [stripped for skill in cell if (stripped := skill.strip())]


def _cell_seniority(cell: Any, where: str, column: str) -> int:
    if _is_missing(cell):
        return 0
    try:
        if isinstance(cell, bool):
            raise ValueError
        value = float(cell)  # 3.0 is what an integer column with gaps becomes
        if not value.is_integer() or not 1 <= value <= 5:
            raise ValueError
    except (TypeError, ValueError, OverflowError):  # the last for an integer beyond any float
        raise MarketError(
            f"{where}, column {column!r}: must be a whole number from 1 (entry) to 5 (lead), or empty; got "
            f"{cell!r:.80}."
        ) from None
    return int(value)


def _cell_context(cell: Any, kind: ContextKind, where: str, column: str, separator: str) -> ContextValue | None:
    """A value of the context; ``None`` where nothing is said."""
    if kind == "set":
        return tuple(_cell_skills(cell, where, column, separator)) or None
    if kind == "category" and isinstance(cell, list):
        raise MarketError(
            f"{where}, column {column!r}: lists several, {cell!r:.80}, and a category has one: say "
            f'`context={{{column!r}: "set"}}`.'
        )
    if kind == "category":
        return _cell_text(cell, where, column) or None
    if _is_missing(cell):
        return None
    if kind == "flag":
        word = str(cell).strip().casefold()
        if word not in _FLAGS:
            raise MarketError(
                f"{where}, column {column!r}: must be one of {', '.join(_FLAGS)}, or empty; got {cell!r:.80}."
            )
        return _FLAGS[word]
    try:
        value = float("nan" if isinstance(cell, bool) else cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise MarketError(
            f"{where}, column {column!r}: must be a plain number such as 45000, without currency or thousands' "
            f"separators, or empty; got {cell!r:.80}."
        )
    return value


def _cell_split(cell: str, where: str, column: str) -> str:
    if cell not in SPLITS:
        near = difflib.get_close_matches(cell.lower(), SPLITS, n=1)
        raise MarketError(
            f"{where}, column {column!r}: must be 'train' or 'test', got {cell!r:.80}."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + " A column that says something else needs another name."
        )
    return cell


def _sampled(path: Path, jobs: Sequence[Record], n: int, seed: int) -> list[Record]:
    """People of the jobs' occupations, each needing what any of its jobs asks for, related within its family."""
    by_name: dict[str, list[Record]] = {}
    for job in jobs:
        if job.occupation is None:
            raise MarketError(
                f"{job.where} has no occupation: `n_applicants` samples people from the jobs' occupations. Map a "
                "column, "
                "`columns={'occupation': ...}`, or give the file of the applicants as `applicants=`."
            )
        if isinstance(job.hard, str) or isinstance(job.soft, str):
            raise MarketError(
                f"{path}: `n_applicants` samples single skills and cannot from free text; give the file of the "
                "applicants as `applicants=`."
            )
        by_name.setdefault(job.occupation, []).append(job)
    families: dict[str, list[str]] = {}
    for name, some in by_name.items():
        families.setdefault(_first(job.family for job in some), []).append(name)
    occupations = []
    for name in sorted(by_name):
        some = by_name[name]
        family = _first(job.family for job in some)
        levels = sorted(job.seniority for job in some if job.seniority)
        occupations.append(
            Occupation(
                key=name,
                name=name,
                hard=_union(job.hard for job in some),
                soft=_union(job.soft for job in some),
                titles=_union([job.title] for job in some if job.title),
                seniority=levels[len(levels) // 2] if levels else 0,
                family=family,
                related=tuple(sorted(other for other in families[family] if other != name)) if family else (),
                where=some[0].where,
            )
        )
    return applicants_of(occupations, n, seed)


def _first(texts: Iterator[str | None]) -> str:
    return next((text for text in texts if text), "")


def _union(rows: Any) -> tuple[str, ...]:
    return tuple(sorted({text for row in rows for text in row}))
