"""A user's own jobs and applicants: CSV, JSON or Parquet, two files or one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from jobrec_gym.encoders import DEFAULT_ENCODER, Encoder, absolute_name
from jobrec_gym.loaders.amounts import unit_differs
from jobrec_gym.loaders.assembly import SPLITS, Record, SplitBy, assemble_market
from jobrec_gym.loaders.careers import Occupation, applicants_of
from jobrec_gym.loaders.cells import (
    CellReader,
    CellRules,
    End,
    Unit,
    has_column,
    normal_form,
    plain_name,
    way_to_decimal,
)
from jobrec_gym.loaders.files import DEFAULT_MAX_BYTES, check_exists
from jobrec_gym.loaders.headings import MARKET_HEADINGS, proposed_columns
from jobrec_gym.loaders.reading import Reading, Table, kind_of, read_sides, read_table
from jobrec_gym.loaders.release import no_such_column
from jobrec_gym.market import ContextField, ContextValue, LabourMarket, MarketError
from jobrec_gym.market.context import Context, ContextKind, context_fields
from jobrec_gym.market.dates import DATE_FIELDS, DAY, DateFormat, usual_formats, way_to_format
from jobrec_gym.near_miss import did_you_mean, with_known_keywords
from jobrec_gym.paths import place_of, what_came

__all__ = [
    "FIELDS",
    "ROLE_VALUES",
    "NoSuchField",
    "OnEmpty",
    "by_role",
    "check_on_empty",
    "check_same_units",
    "columns_of_side",
    "encoding_of_side",
    "load_csv",
    "load_json",
    "load_jsonl",
    "load_parquet",
    "load_table",
    "records_of",
    "with_skills",
]

logger = logging.getLogger(__name__)

FIELDS = ("key", "title", "hard", "soft", "seniority", "experience", "occupation", "family", "split", "description")
"""The fields that a row may have, see :class:`~jobrec_gym.loaders.assembly.Record`."""

_SIDES = ("jobs", "applicants")
_NUMBERS = ("number", "at_least", "at_most")
_ENDS: Mapping[tuple[str, str], End] = {
    ("at_most", "applicants"): "low",
    ("at_most", "jobs"): "high",
    ("at_least", "applicants"): "high",
    ("at_least", "jobs"): "low",
}
"""Which end of a range is taken, by the kind of a field and the side."""
_SKILL_FIELDS = ("hard", "soft")
ROLE_VALUES = {"jobs": "job", "applicants": "applicant"}
"""The values of a column that says of which side a row is, unless others are given."""

Columns = Mapping[str, Any]
OnEmpty = Literal["raise", "skip"]
_Value = TypeVar("_Value")


class NoSuchField(MarketError):
    """A file has no column for a field of :data:`FIELDS` that it must have, or that ``columns=`` names."""


@with_known_keywords
def load_table(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    applicants: str | os.PathLike[str] | None = None,
    role_column: str | None = None,
    role_values: Mapping[str, str] | None = None,
    n_applicants: int | None = None,
    columns: Columns | None = None,
    text_columns: Sequence[str] | Mapping[str, Sequence[str]] = (),
    skill_separator: str | None = None,
    delimiter: str | None = None,
    encoding: str | Mapping[str, str | None] | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    null_values: Collection[str] | None = None,
    seniority_values: Mapping[str, int | None] | None = None,
    decimal: str | None = None,
    date_format: DateFormat | None = None,
    on_empty: OnEmpty = "raise",
    context: Context | None = None,
    encoder: str | os.PathLike[str] | Encoder = DEFAULT_ENCODER,
    cache_dir: str | bool | None = None,
    test_fraction: float = 0.3,
    split_by: SplitBy = "row",
    seed: int = 0,
) -> LabourMarket:
    """A market from files of rows: CSV with a header, JSON (lines, an array, objects) or Parquet.

    A file of CSV or JSON may be compressed by gzip, bz2, xz, zstd or zip, whatever its name is; a Parquet file may not.
    Texts are brought to Unicode's normal form C. If a file may have been misread, a ``UserWarning`` names the argument
    that settles it.

    Args:
        path: The file of the jobs. It may also have the applicants, with ``role_column`` or in one JSON object,
            ``{"jobs": [...], "applicants": [...]}``.
        kind: ``"csv"``, ``"json"``, ``"jsonl"`` or ``"parquet"``; by default the kind that the file's name says.
        applicants: The file of the applicants, read by its own ending or scheme, ``"csv:people.txt"``. Without either
            it is read like the file of the jobs.
        role_column: The column that says whether a row is a job or an applicant.
        role_values: The values of that column, ``{"jobs": "job", "applicants": "applicant"}`` unless given.
        n_applicants: For jobs without applicants: sample this many people from the jobs' occupations (nobody among them
            is real). This needs an occupation for every job, and skills in lists.
        columns: Which column holds which of :data:`FIELDS`; by default each column is named like its field. Give
            ``{"jobs": {...}, "applicants": {...}}`` if the sides differ. ``hard`` and ``soft`` may name several
            columns, which are joined. If a column holds objects, ``"skills.name"`` is their entry ``name``. A mapped
            column must exist. Columns that are not mapped may be missing, but ``hard`` or ``soft`` must exist. A column
            that differs from a field only by case or spaces (``Hard``) is refused until it is mapped. Without a key
            column a row's key is its number. ``split`` says ``train`` or ``test`` for each row, in place of
            ``test_fraction``. If rows of both sides are read, either both sides have this column or neither has.
            ``description`` is a text for language models to read; no vector is made of it. For a vector of it, use
            ``text_columns`` with ``columns={"hard": "description"}``. Jobs may also have ``posted`` and ``expires``:
            dates, by which :func:`~jobrec_gym.recommendations.recommend` leaves out jobs (``open_at``). A date without
            a time of day stands for the whole day, in UTC. A cell that is no date is an error if its column is mapped
            or if ``date_format`` is given. Otherwise such a cell is unknown and counted. Unlike other fields, these two
            dates are also read without a mapping if the column's name differs by capitals (``Posted``). If a field of
            the ``context`` is called ``posted`` or ``expires`` and ``columns`` does not name that date, the field of
            the ``context`` has precedence.
        text_columns: Which of ``"hard", "soft"`` hold free text instead of a list of skills; a free text counts as one
            skill. Give a mapping ``{"jobs": [...], "applicants": [...]}`` if the sides differ.
        skill_separator: The text that separates skills in a cell, ``;`` unless given. A cell may also hold a list in
            the notation of JSON, Python or a database.
        delimiter: The character that separates the cells of CSV. By default it is the one of ``, ; | tab`` that splits
            the header and the rows into equally many cells, or the one that a first line ``sep=;`` names.
        encoding: Encoding of text; by default UTF-8, or the one of a byte order mark. Give a mapping if the two files
            differ: ``{"jobs": "cp1252"}`` leaves the default for the applicants.
        max_bytes: Largest size in bytes of a compressed file once it is uncompressed.
        null_values: Words that mean an empty cell, whatever their case, in place of
            :data:`~jobrec_gym.loaders.cells.NULL_WORDS`. Such words are also left out of a cell's skills. A log line
            and the market's summary say how many were left out of lists; those that were left out of a text that is
            split at ``skill_separator`` are not counted.
        seniority_values: Levels, 1 (entry) to 5 (lead) or 0 (unknown), by the file's words, ``{"Director": 5}``. The
            usual English words are known, see :data:`~jobrec_gym.loaders.cells.SENIORITY_WORDS`.
        decimal: ``"."`` or ``","``, the decimal sign of numbers in the ``context``. The other sign then separates
            thousands, as in ``50,000`` or ``50.000``. By default the numbers of a column show it. If all of them are
            plain numbers, a point is the decimal sign. If some are not plain, such as ``45,000`` or ``45.000 €``, a
            number that may mean 45 or 45,000 is an error, unless other numbers of the column show that its sign
            separates thousands. A plain ``45.000`` is also an error if numbers of the other side are not plain.
        date_format: How the dates of jobs are written: a format of :meth:`datetime.datetime.strptime`, such as
            ``"%d.%m.%Y"`` for 31.12.2026, or several in a list. A date that two of them read as different days or times
            is an error. A day of digits alone, ``%Y%m%d``, must have all its zeros. ``%B``, ``%b``, ``%A``, ``%a`` and
            ``%p`` are words in the language of Python's locale, English unless your program sets another.
            ``"ISO8601"`` stands for ISO 8601, as in pandas, and is what dates must be in by default.
        on_empty: Whether rows without skills are an error, or are left out and counted.
        context: Further fields of both sides, by names of your choice, and how each is compared: ``{"place":
            "category", "salary": "number", "remote": "flag", "languages": "set"}``, see
            :class:`~jobrec_gym.market.context.ContextField`. Columns are named like the field. If they are not, give
            the kind, the applicants' column and the jobs' column, ``("number", "wanted_salary", "salary")``. For a
            category the two columns are enough, ``{"place": ("wanted_place", "place")}``. An empty cell is unknown. A
            number may be written as pay: ``EUR 45,000.00 per year``, ``45k``, or a range ``45000-52000``. Of a range,
            ``"number"`` takes the middle. ``"at_most"`` and ``"at_least"`` take the ends at which most pairs fit. For
            ``"at_most"`` these are the applicants' lower and the jobs' upper end, for ``"at_least"`` the other two.
            Different currencies or periods in one field are an error.
        encoder: As in :func:`~jobrec_gym.encoders.make_encoder`; ``"hashing"`` needs no torch.
        cache_dir: Folder that keeps vectors between runs; ``False`` keeps none.
        test_fraction: Share of the rows of each side that is held out.
        split_by: Hold out rows, or whole occupations (every row needs one).
        seed: Seed of the choice of held-out rows, and of sampled people.

    Raises:
        MarketError: For a file, column or cell that is missing or wrong; the message names file, row (1 is the first
            below the header) and column.

    Example:
        >>> market = load_csv("jobs.csv", applicants="people.csv", columns={"hard": "skills"})
    """
    for name, source in (("path", path), ("applicants", "" if applicants is None else applicants)):
        if not isinstance(source, str | os.PathLike):
            raise MarketError(f"`{name}` must be a file, got {what_came(source)}.")
    readings = {side: Reading(delimiter, encoding_of_side(encoding, side), max_bytes) for side in _SIDES}
    if isinstance(encoding, Mapping) and applicants is None:
        raise MarketError(
            f"`encoding` has an entry for each of two files, and {os.fspath(path)} is one file: give one encoding, "
            "`encoding='cp1252'`."
        )
    rules = CellRules(skill_separator, null_values, seniority_values, decimal, date_format)
    check_on_empty(on_empty)
    _check_columns(columns)
    if role_values is not None and role_column is None:
        raise MarketError("`role_values` has no meaning without `role_column`.")
    fields = context_fields(context)
    if fields and n_applicants is not None:
        raise MarketError(
            f"{path}: `context` compares both sides, but the people that `n_applicants` samples have no such fields: "
            "give the file of the applicants as `applicants=`."
        )
    kind, file = (kind, place_of(path)) if kind else kind_of(path)
    tables = _tables(file, kind, readings, applicants, role_column, role_values, n_applicants)
    records = {}
    left_out: list[str] = []
    units: dict[str, dict[str, Unit]] = {side: {} for side in tables}
    for side, table in tables.items():
        told = records_of(
            table, side, columns, text_columns, rules, role_column, context=fields, left_out=left_out, units=units[side]
        )
        records[side] = with_skills(table.file, side, told, on_empty, left_out)
    _check_both_split(tables, records)
    if len(tables) == len(_SIDES):
        check_same_units(tables["applicants"].file, units["applicants"], tables["jobs"].file, units["jobs"])
    if n_applicants is not None:
        records["applicants"] = _sampled(file, records["jobs"], n_applicants, seed)
    market = assemble_market(
        f"{kind}:{file.name}",
        records["applicants"],
        records["jobs"],
        context={name: field.kind for name, field in fields.items()},
        encoder=encoder,
        cache_dir=cache_dir,
        test_fraction=test_fraction,
        split_by=split_by,
        seed=seed,
        left_out=left_out,
    )
    return market.read_with(
        {
            "columns": columns,
            "text_columns": text_columns or None,
            "role_column": role_column,
            "role_values": role_values,
            "skill_separator": skill_separator,
            "null_values": null_values,
            "seniority_values": seniority_values,
            "decimal": decimal,
            "date_format": date_format,
            "context": context,
            "encoder": absolute_name(encoder) if isinstance(encoder, str) else encoder,
            # A place in a file means nothing for a saved market.
            "units": {name: unit[:3] for name, unit in units["jobs"].items() if any(unit[:3])} or None,
        }
    )


def load_csv(path: str | os.PathLike[str], **options: Any) -> LabourMarket:
    """A market from CSV files. Arguments and errors as of :func:`load_table`.

    Example:
        >>> market = load_csv("jobs.csv", applicants="people.csv", columns={"hard": "skills"})  # doctest: +SKIP
    """
    return load_table(path, kind="csv", **options)


def load_json(path: str | os.PathLike[str], **options: Any) -> LabourMarket:
    """A market from JSON: lines, one array, objects one after another, or one object with a list for each side.

    Skills are arrays of texts, or of objects with ``columns={"hard": "skills.name"}``. Arguments and errors as of
    :func:`load_table`.
    """
    return load_table(path, kind="json", **options)


def load_jsonl(path: str | os.PathLike[str], **options: Any) -> LabourMarket:
    """A market from JSON lines, one object on each line; as :func:`load_json`."""
    return load_table(path, kind="jsonl", **options)


def load_parquet(path: str | os.PathLike[str], **options: Any) -> LabourMarket:
    """A market from Parquet files. Skills are texts, or lists of texts or objects.

    Arguments and errors as of :func:`load_table`.

    Raises:
        ImportError: If pyarrow is not installed.
    """
    return load_table(path, kind="parquet", **options)


# ------------------------------------------------------------------------------------------------------------- building


def _tables(
    file: Path,
    kind: str,
    readings: Mapping[str, Reading],
    applicants: str | os.PathLike[str] | None,
    role_column: str | None,
    role_values: Mapping[str, str] | None,
    n_applicants: int | None,
) -> dict[str, Table]:
    """The table of each side that is in a file."""
    if kind in ("csv", "json", "jsonl", "parquet"):  # documents may be a folder
        check_exists(file)
    sources = {"applicants": applicants, "role_column": role_column, "n_applicants": n_applicants}
    given = [name for name, value in sources.items() if value is not None]
    tables: dict[str, Table] = {}
    if not given and kind in ("json", "jsonl"):
        tables = {
            side: table for side, table in read_sides(file, readings["jobs"], kind=kind).items() if side in _SIDES
        }
    if len(given) != 1 and len(tables) != len(_SIDES):
        raise MarketError(
            f"{file}: give exactly one of `applicants` (their file), `role_column` (jobs and applicants in one file) "
            f"and `n_applicants` (people sampled from the jobs' occupations), got {given or 'none'}."
        )
    if not tables:
        tables = {"jobs": read_table(file, readings["jobs"], kind=kind, side="jobs")}
    if applicants is not None:
        their_kind, their_file = kind_of(applicants, otherwise=kind)
        tables["applicants"] = read_table(their_file, readings["applicants"], kind=their_kind, side="applicants")
    for table in tables.values():
        if not table.rows:
            raise MarketError(f"{table.file} has no rows.")
    return tables if role_column is None else by_role(tables["jobs"], role_column, role_values)


def encoding_of_side(encoding: str | Mapping[str, str | None] | None, side: str) -> str | None:
    """The encoding of the file of ``"jobs"`` or ``"applicants"``.

    Raises:
        MarketError: For a mapping that names something else than the two sides.
    """
    if not isinstance(encoding, Mapping):
        return encoding
    _known("encoding", encoding, _SIDES)
    return encoding.get(side)


def with_skills(file: str, side: str, records: list[Record], on_empty: OnEmpty, left_out: list[str]) -> list[Record]:
    """The records that have skills; others are an error, or are left out and counted in ``left_out``.

    Raises:
        MarketError: If a record has no skills and ``on_empty`` is ``"raise"``, or if no record has any.
    """
    empty = [record for record in records if not record.hard and not record.soft]
    if not empty:
        return records
    first = f"{empty[0].where} (key {empty[0].key!r}) has neither hard nor soft skills"
    if len(empty) == len(records):
        others = f", nor has any of the {len(records):,} {side}" if len(records) > 1 else ""
        raise MarketError(f"{first}{others}: are the skills in another column? Name it by `columns=...`.")
    if on_empty == "raise":
        more = f", like {len(empty):,} of {len(records):,} {side}" if len(empty) > 1 else ""
        raise MarketError(f"{first}{more}; give the row a skill, or leave such rows out by `on_empty='skip'`.")
    left_out.append(f"{len(empty):,} of {len(records):,} {side}, which have no skills")
    logger.warning("%s: left out %s.", file, left_out[-1])
    return [record for record in records if record.hard or record.soft]


def _check_both_split(tables: Mapping[str, Table], records: Mapping[str, Sequence[Record]]) -> None:
    """Raises if only one side has a column ``split``, because the other side would be split by chance."""
    with_split = [side for side, some in records.items() if some[0].split is not None]
    without = [side for side in records if side not in with_split]
    if with_split and without:
        raise MarketError(
            f"{tables[with_split[0]].file} says the split of the {with_split[0]}, and {tables[without[0]].file} has no "
            f"column 'split' for the {without[0]}: give both files this column ('train' in every row "
            "holds nothing out), or neither file."
        )


def check_same_units(file: str, units: Mapping[str, Unit], other_file: str, others: Mapping[str, Unit]) -> None:
    """Checks that the numbers of two tables that are compared are in one currency, for one period and in one notation.

    Args:
        file: Name of the first table in the message.
        units: The units of its fields.
        other_file: Name of the second table.
        others: The units of its fields.

    Raises:
        MarketError: If a field has two currencies or two periods, or if one table has a plain number such as ``50.000``
            and the other has numbers that are not plain, such as ``45k``.
    """
    for name in units.keys() & others.keys():
        unit, other = units[name], others[name]
        if unit_differs("currency", unit.currency, other.currency) or unit_differs("period", unit.period, other.period):
            raise MarketError(
                f"the context field {name!r} compares numbers {_in_unit(unit.currency, unit.period)} in {file} with "
                f"numbers {_in_unit(other.currency, other.period)} in {other_file}: convert them in one of the files, "
                f"or leave {name!r} out of `context`."
            )
        for doubtful, shown, where in ((unit, other, other_file), (other, unit, file)):
            if doubtful.in_doubt and shown.decimal:
                raise MarketError(
                    f"the context field {name!r} has a number that may be thousands or have decimals: "
                    f"{doubtful.in_doubt}. It is compared with numbers in {where}, and some of these are not plain "
                    f"(45000 is plain, 45k is not). So {way_to_decimal('.')}. If no sign fits both, write the numbers "
                    "of both in one way."
                )


def _in_unit(currency: str, period: str) -> str:
    return f"{f'in {currency} ' if currency else ''}for one {period or 'year'}"


def check_on_empty(on_empty: str) -> None:
    """Raises :class:`MarketError` if ``on_empty`` is neither ``"raise"`` nor ``"skip"``."""
    if on_empty not in get_args(OnEmpty):
        raise MarketError(f"`on_empty` must be 'raise' or 'skip', got {on_empty!r}.")


def records_of(
    table: Table,
    side: str,
    columns: Columns | None = None,
    text_columns: Sequence[str] | Mapping[str, Sequence[str]] = (),
    rules: CellRules | None = None,
    role_column: str | None = None,
    fields: Sequence[str] = FIELDS,
    context: Mapping[str, ContextField] | None = None,
    left_out: list[str] | None = None,
    units: dict[str, Unit] | None = None,
) -> list[Record]:
    """Reads the rows of a table as jobs or as applicants.

    Args:
        table: A table whose rows are all of one side.
        side: ``"jobs"`` or ``"applicants"``.
        columns: As in :func:`load_table`, like the next argument.
        text_columns: Which fields are free text.
        rules: How cells are read.
        role_column: A column that says what a row is; it is not a field.
        fields: Which fields are read; columns of other fields are ignored.
        context: The fields of :func:`~jobrec_gym.market.context.context_fields`.
        left_out: A list to which phrases are added that say what was left out of the cells.
        units: A mapping to which the unit of each numeric field of the context is added, if the field has a number.

    Raises:
        MarketError: As :func:`load_table`.
    """
    dates = _date_columns(table, columns, context or {}) if side == "jobs" else {}
    columns_of = _columns_of(table, side, columns, role_column, fields, [column for column, _ in dates.values()])
    text = _text_fields(side, text_columns)
    told = _context_columns(table, side, context or {})
    rules = rules or CellRules()
    cells = CellReader(table.file, rules, table.header, table.column)
    if rules.date_format is not None:
        dates = {field: (column, True) for field, (column, _) in dates.items()}
    records = [_record(table.file, number, row, cells, columns_of, text, told, dates) for number, row in table.filled()]
    if not records:
        raise MarketError(f"{table.file} has no rows.")
    cells.finish()
    has_dates = any(getattr(record, field) is not None for field in dates for record in records)
    for column, _ in dates.values():
        if cells.counts[_unreadable(column)] and usual_formats(cells.column(column)):
            logger.warning(
                "%s: column %r has dates that are not in ISO 8601, and they count as unknown.%s",
                *(table.file, column, way_to_format(cells.column(column))),
            )
        elif not has_dates:
            del cells.counts[_unreadable(column)]  # whatever this column holds, it is not dates
    if "expires" in dates:
        _doubt_midnights(table, dates["expires"][0], cells, records)
    if units is not None:
        found = {name: cells.units(column) for name, (kind, column, _) in told.items() if kind in _NUMBERS}
        units |= {name: unit for name, unit in found.items() if unit is not None}
    phrases = [f"{n:,} {what} of {side}" for what, n in cells.counts.items()]
    if phrases:
        logger.warning("%s: left out %s.", table.file, ", ".join(phrases))
    if left_out is not None:
        left_out += phrases
    return records


def _date_columns(
    table: Table, columns: Columns | None, context: Mapping[str, ContextField]
) -> dict[str, tuple[str, bool]]:
    """The columns of the jobs' dates, by field, each with whether a cell that is no date is an error.

    It is an error if ``columns`` names the column.
    """
    told = columns_of_side("jobs", columns)
    found: dict[str, tuple[str, bool]] = {}
    for field in DATE_FIELDS:
        if field in told:
            column = told[field]
            if not isinstance(column, str):
                raise MarketError(f"`columns[{field!r}]` must be one column name, got {column!r}.")
            if field in context:
                raise MarketError(
                    f"`context` must not name a field {field!r} if `columns` says where that date is: rename the field."
                )
            column = normal_form(column)
            if not has_column(table.header, column):
                raise MarketError(no_such_column(table.file, column, table.header))
            found[field] = column, True
        elif field not in context:
            alike = [name for name in table.header if plain_name(name) == field and name not in told.values()]
            if alike:
                found[field] = field if field in alike else alike[0], False
    return found


def _doubt_midnights(table: Table, column: str, cells: CellReader, records: Sequence[Record]) -> None:
    """Warns if each date in the column has a time of day, and it is midnight: pandas may have added it to days."""
    if all(record.expires is None or record.expires % DAY for record in records):
        return
    is_midnight = (
        record.expires % DAY == 0
        and cells.date(cells.cell(row, column, record.where), record.where, column) == record.expires
        for (_, row), record in zip(table.filled(), records, strict=True)
        if record.expires is not None
    )
    if all(is_midnight):
        logger.warning(
            "%s: all times in column %r are midnight, the beginning of a day. If a job is open on that day, write the "
            "day without a time, 2026-11-30.",
            *(table.file, column),
        )


def _unreadable(column: str) -> str:
    """Name of the count of cells that are no dates, in a column that has a date's name and is not mapped."""
    return f"unreadable dates in column {column!r}"


def _context_columns(
    table: Table, side: str, context: Mapping[str, ContextField]
) -> dict[str, tuple[ContextKind, str, End]]:
    """Kind and column of each field of the context, and which end of a range is taken."""
    found: dict[str, tuple[ContextKind, str, End]] = {}
    for name, field in context.items():
        column = normal_form((field.applicants if side == "applicants" else field.jobs) or name)
        if not has_column(table.header, column):
            raise MarketError(
                f"{no_such_column(table.file, column, table.header)} `context` compares {name!r} of both sides: say "
                f"the kind and both columns, `context={{{name!r}: ({field.kind!r}, 'of applicants', 'of jobs')}}`."
            )
        found[name] = (field.kind, column, _ENDS.get((field.kind, side), "middle"))
    return found


def _check_columns(columns: Columns | None) -> None:
    if columns is not None and not isinstance(columns, Mapping):
        raise MarketError(f"`columns` must map fields to columns, `{{'hard': 'skills'}}`, got {columns!r}.")


def by_role(
    table: Table, column: str, role_values: Mapping[str, str] | None, needed: Sequence[str] = _SIDES
) -> dict[str, Table]:
    """The rows of each side of a table in which a column says of which side a row is.

    Args:
        table: The rows of both sides.
        column: The column, as ``role_column`` of :func:`load_table`.
        role_values: As in :func:`load_table`.
        needed: The sides that must have a row.

    Raises:
        MarketError: If there is no such column, if it holds another value, if a side that is needed has no row, or if
            an argument is wrong.
    """
    if not isinstance(column, str):
        raise MarketError(f"`role_column` must be the name of a column, got {column!r:.80}.")
    column = normal_form(column)
    if column not in table.header:
        raise MarketError(no_such_column(table.file, column, table.header))
    if role_values is not None and not isinstance(role_values, Mapping):
        raise MarketError(f"`role_values` must give {_SIDES} a value each, got {role_values!r}.")
    given = ROLE_VALUES if role_values is None else role_values
    values = {side: normal_form(value) if isinstance(value, str) else value for side, value in given.items()}
    if set(values) != set(_SIDES) or len(set(values.values())) != len(_SIDES):
        raise MarketError(f"`role_values` must give {_SIDES} a value each, got {values}.")
    side_of = {value: side for side, value in values.items()}
    rows: dict[str, list[tuple[int, dict[str, Any]]]] = {side: [] for side in _SIDES}
    for number, row in table.filled():
        role = row.get(column)
        role = normal_form(role.strip()) if isinstance(role, str) else role
        if not isinstance(role, Hashable) or role not in side_of:
            hint = did_you_mean(role if isinstance(role, str) else "", map(str, side_of))
            raise MarketError(
                f"{table.file}, row {number}, column {column!r}: must be {' or '.join(map(repr, side_of))}, got "
                f"{role!r:.80}.{hint}"
            )
        rows[side_of[role]].append((number, row))
    for side in needed:
        if not rows[side]:
            raise MarketError(f"{table.file} has no {side}: no row has {values[side]!r} in column {column!r}.")
    return {side: Table(table.file, table.header, some) for side, some in rows.items()}


def _columns_of(
    table: Table,
    side: str,
    columns: Columns | None,
    role_column: str | None,
    fields: Sequence[str],
    dates: Sequence[str],
) -> dict[str, tuple[str, ...]]:
    """The columns of these fields, as far as the file has them; ``dates`` are further columns that are read."""
    columns = columns_of_side(side, columns)
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
        names = tuple(map(normal_form, names))
        for name in names:
            if not has_column(table.header, name) and field in columns:
                raise NoSuchField(no_such_column(table.file, name, table.header))
        if all(has_column(table.header, name) for name in names):
            found[field] = names
    near = set(fields) - set(columns)
    _refuse_near_misses(table, side, near, {name for names in found.values() for name in names} | {role_column})
    if not found.keys() & set(_SKILL_FIELDS):
        used = {*dates, *(name for names in found.values() for name in names)}
        perhaps = proposed_columns(
            [name for name in table.header if name not in used],
            [field for field in fields if field not in found],
            MARKET_HEADINGS,
        )
        example = dict(columns) | perhaps if perhaps.keys() & set(_SKILL_FIELDS) else {"hard": "skills"}
        raise NoSuchField(
            f"{no_such_column(table.file, 'hard', table.header)} A file of {side} needs 'hard', 'soft' or both: say "
            f"which columns they are, e.g. `columns={example!r}`."
        )
    used = {*dates, *(name for names in found.values() for name in names)}
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


def columns_of_side(side: str, columns: Columns | None) -> Columns:
    """What the argument ``columns`` says of one side. Only jobs have dates."""
    _check_columns(columns)
    columns = columns or {}
    known: tuple[str, ...] = (*FIELDS, *DATE_FIELDS)
    if set(columns) & set(_SIDES):
        _known("columns", columns, _SIDES)
        columns = columns.get(side) or {}
        if not isinstance(columns, Mapping):
            raise MarketError(f"`columns[{side!r}]` must map fields to columns, got {columns!r}.")
        known = known if side == "jobs" else FIELDS
    _known("columns", columns, known)
    return columns


def _refuse_near_misses(table: Table, side: str, unmapped: Set[str], used: Set[str | None]) -> None:
    """Raises for a column like ``Hard`` or ``soft_``, which is nearly a field's name and would not be read."""
    for name in table.header:
        field = plain_name(name)
        if field not in unmapped or name in used:
            continue
        for number, row in table.rows:
            # In JSON lines, some rows may have one name and some the other.
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
            raise MarketError(
                f"`{argument}` may name {', '.join(map(repr, allowed))}, got {name!r}.{did_you_mean(name, allowed)}"
            )


def _record(
    file: str,
    number: int,
    row: Mapping[str, Any],
    cells: CellReader,
    fields: Mapping[str, tuple[str, ...]],
    text_fields: Sequence[str],
    context: Mapping[str, tuple[ContextKind, str, End]],
    dates: Mapping[str, tuple[str, bool]],
) -> Record:
    where = f"{file}, row {number}"

    def of(field: str, read: Callable[[Any, str, str], _Value], otherwise: _Value) -> _Value:
        if field not in fields:
            return otherwise
        column = fields[field][0]
        return read(cells.cell(row, column, where), where, column)

    def text(field: str) -> str:
        return of(field, cells.text, "")

    def skills(field: str) -> tuple[str, ...] | str:
        found = [(name, cells.cell(row, name, where)) for name in fields.get(field, ())]
        if field in text_fields:
            texts = [cells.free_text(cell, where, name) for name, cell in found]
            return "\n".join(part for part in texts if part)
        return tuple(skill for name, cell in found for skill in cells.skills(cell, where, name))

    key = of("key", cells.key, str(number))
    if not key:
        raise MarketError(f"{where}, column {fields['key'][0]!r}: is empty; every row needs a key of its own.")
    return Record(
        key=key,
        title=text("title"),
        hard=skills("hard"),
        soft=skills("soft"),
        seniority=of("seniority", cells.seniority, 0),
        experience=text("experience"),
        occupation=text("occupation") or None,
        family=text("family") or None,
        where=where,
        split=_cell_split(text("split"), where, fields["split"][0]) if "split" in fields else None,
        description=of("description", cells.free_text, ""),
        context={
            name: _cell_context(cells, cells.cell(row, column, where), kind, where, column, end)
            for name, (kind, column, end) in context.items()
        },
        **{name: _cell_date(cells, row, where, name, *dates[name]) for name in dates},
    )


def _cell_date(
    cells: CellReader, row: Mapping[str, Any], where: str, field: str, column: str, is_mapped: bool
) -> float | None:
    """A date of a job in seconds since 1970; a job that expires on a day is open on that day."""
    cell, through = cells.cell(row, column, where), field == "expires"
    if is_mapped:
        return cells.date(cell, where, column, through=through)
    try:
        return cells.seconds(cell, through=through)
    except ValueError:
        cells.counts[_unreadable(column)] += 1
        return None


def _cell_context(
    cells: CellReader, cell: Any, kind: ContextKind, where: str, column: str, end: End
) -> ContextValue | None:
    """A value of the context; ``None`` for an empty cell."""
    if kind == "set":
        return tuple(cells.skills(cell, where, column)) or None
    if kind == "category" and isinstance(cell, list):
        raise MarketError(
            f"{where}, column {column!r}: lists several values, {cell!r:.80}, but a category has one: say "
            f'`context={{{column!r}: "set"}}`.'
        )
    if kind == "category":
        return cells.text(cell, where, column) or None
    return cells.flag(cell, where, column) if kind == "flag" else cells.number(cell, where, column, end)


def _cell_split(cell: str, where: str, column: str) -> str:
    if cell not in SPLITS:
        raise MarketError(
            f"{where}, column {column!r}: must be 'train' or 'test', got {cell!r:.80}.{did_you_mean(cell, SPLITS)} "
            "A column that says something else needs another name."
        )
    return cell


def _sampled(path: Path, jobs: Sequence[Record], n: int, seed: int) -> list[Record]:
    """People of the jobs' occupations.

    An occupation needs all skills of its jobs, and is related to the other occupations of its family.
    """
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
                f"{path}: `n_applicants` samples single skills, and free text has none; give the file of the "
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
