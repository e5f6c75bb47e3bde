"""Reads the cells of a log, by row or by column, and counts the rows that are wrong."""

from __future__ import annotations

import contextlib
import datetime
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from jobrec_gym.interactions import LogError
from jobrec_gym.loaders.amounts import number_in_text
from jobrec_gym.loaders.cells import is_nothing, list_in_text, normal_form, plain_name, without_markup, yes_or_no
from jobrec_gym.loaders.headings import LOG_HEADINGS, proposed_columns
from jobrec_gym.loaders.reading import Table
from jobrec_gym.loaders.release import no_such_column
from jobrec_gym.market import LabourMarket, MarketError, Population
from jobrec_gym.market.dates import moment_of, reason_against, seconds_of, way_to_format
from jobrec_gym.market.keys import padded_key
from jobrec_gym.near_miss import best_match, did_you_mean

__all__ = [
    "TIMES",
    "BadCell",
    "BadRows",
    "Ids",
    "Notation",
    "OnBad",
    "OnUnknownShown",
    "Time",
    "TimeForm",
    "check_id",
    "columns_of",
    "difference_of",
    "find_of",
    "found_row",
    "is_test_in",
    "jobs_in",
    "places_of",
    "propensity_in",
    "proposed_columns_of_log",
    "refuse_near_columns",
    "reward_in",
    "spellings_of",
    "time_in",
    "way_to_times",
    "word_number",
    "yes_in",
]

OnBad = Literal["raise", "skip"]
OnUnknownShown = Literal["bad", "skip"]
Ids = Literal["key", "row"]
TimeForm = Literal["number", "date", "zoned"]

_NAMED = 3  # how many bad rows of each kind a message names
_WORDS = 8  # how many unknown words a message names

_NO_REWARD = "reward that is no finite number"
_NO_PROPENSITY = "propensity outside of (0, 1]"

_UNKNOWN_SHOWN = "unknown job among those shown"
_NO_ROW_SHOWN = "shown job that is no row number"
_NO_LIST = "list of shown jobs that cannot be read"

_WAYS_OUT = {
    _NO_REWARD: " A reward is a number; words are decisions, `columns={'decision': ...}, "
    "decisions={'yes': 'click', 'no': 'ignore'}`.",
    "time without a zone among times with one": " Say the zone of all times, 2026-06-01T08:00Z, or of none.",
    "time with a zone among times without one": " Say the zone of all times, 2026-06-01T08:00Z, or of none.",
    _NO_PROPENSITY: " A propensity is a share, such as 0.25.",
    "bot that is neither yes nor no": " A row of a bot says yes, true, 1, x or ja, and any other row says no, "
    "false, 0 or nein, or is empty: write these words in place of yours.",
    "unknown job": " The market must have all jobs of the log, also expired ones.",
    _NO_LIST: ' Write jobs that were shown as "j1;j2" (`separator` may be another sign), or as a JSON array, '
    """'["j1", "j2"]'.""",
    _UNKNOWN_SHOWN: " The market must have all jobs that were shown, also expired ones; learning "
    "needs no `shown`. `on_unknown_shown='skip'` takes the known ones alone as the candidate set.",
}
"""What to do about some kinds of bad rows."""
TIMES = {"time": "no time", "posted": "posting time that cannot be read"}
"""The fields that hold times, with the kind of a bad row whose cell is no time."""


@dataclass(frozen=True, slots=True)
class Notation:
    """How the dates and numbers of a log are written.

    Attributes:
        dates: The formats of :func:`~jobrec_gym.market.dates.date_formats`; empty for numbers and ISO 8601.
        decimal: The decimal sign, ``"."`` or ``","``. The other sign then separates thousands. ``None`` reads a point
            as the decimal sign, and separates no thousands.
    """

    dates: tuple[str, ...] = ()
    decimal: str | None = None

    def __post_init__(self) -> None:
        if self.decimal not in (None, ".", ","):
            raise LogError(f"`decimal` must be '.', ',' or None, got {self.decimal!r:.40}.")


# ------------------------------------------------------------------------------------------------------------- bad rows


class BadCell(Exception):
    """A wrong cell: the kind of error, and the cell's content."""

    def __init__(self, kind: str, cell: Any):
        super().__init__(kind, cell)
        self.kind, self.cell = kind, cell


@dataclass
class BadRows:
    """Bad rows of a file by kind: their number, and the first ones."""

    n: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    cells: dict[str, Any] = field(default_factory=dict)  # the first cell of each kind
    words: dict[str, None] = field(default_factory=dict)  # unknown words, each once; see `add_word`

    def add(self, kind: str, row: int, cell: Any) -> None:
        """Counts one row."""
        self.add_all(kind, 1, [(row, cell)])

    def add_all(self, kind: str, n: int, first: Sequence[tuple[int, Any]]) -> None:
        """Counts n rows of one kind, of which the first ones are given with their cells."""
        self.n[kind] = self.n.get(kind, 0) + n
        named = self.first.setdefault(kind, [])
        for row, cell in first[: _NAMED - len(named)]:
            self.cells.setdefault(kind, cell)
            named.append(f"row {row} ({cell!r:.60})")

    def add_word(self, cell: Any) -> None:
        """Keeps an unknown word, so that the way out can name it.

        At most one word more is kept than a message names: it shows that the message has to end in ``...``.
        """
        if len(self.words) <= _WORDS:
            self.words.setdefault(_word(cell))

    def text(self) -> str:
        """The counts, and the first rows of each kind."""
        return "; ".join(
            f"{kind}: {n:,}, {', '.join(self.first[kind])}{', ...' if n > _NAMED else ''}" for kind, n in self.n.items()
        )

    def ways_out(self, market: LabourMarket, ids: Ids, notation: Notation) -> str:
        """What to do about the rows, where that is known; begins with a blank, or is empty."""
        hint = ""
        if any(kind.startswith(("unknown person", "unknown job")) for kind in self.n) and ids == "key":
            hint = " People and jobs are looked up by the market's keys; where they are row numbers say `ids='row'`."
            hint += _lost_zeros(self.cells.get("unknown person"), market.applicants)
            jobs = (self.cells.get("unknown job"), self.cells.get(_UNKNOWN_SHOWN))
            hint += "".join(dict.fromkeys(_lost_zeros(job, market.jobs) for job in jobs))
        hint += _way_to_separator(self.cells.get(_UNKNOWN_SHOWN, self.cells.get(_NO_ROW_SHOWN)), market, ids)
        hint += "".join(dict.fromkeys(way for kind, way in _WAYS_OUT.items() if kind in self.n))
        return hint + _way_to_decimal(notation) if {_NO_REWARD, _NO_PROPENSITY} & self.n.keys() else hint

    def mapping(self, known: Sequence[str]) -> str:
        """An example of ``decisions=`` with the unknown words of the log, and the known words that are like them."""
        named = []
        for word in list(self.words)[:_WORDS]:
            near = best_match(word, known)
            named.append(f"{word!r:.40}: {repr(near) if near else '...'}")
        more = ", ..." if len(self.words) > _WORDS else ""
        return f"`decisions={{{', '.join(named)}{more}}}`"


def _way_to_decimal(notation: Notation) -> str:
    """What to say about the decimal sign where numbers cannot be read."""
    if notation.decimal is None:
        return " If a comma is the decimal sign, say `decimal=','`."
    sign, other = (",", ".") if notation.decimal == "," else (".", ",")
    return (
        f" `decimal={sign!r}` makes {other!r} a mere separator of thousands. If {other!r} is the decimal sign, say "
        f"`decimal={other!r}`."
    )


def _way_to_separator(cell: Any, market: LabourMarket, ids: Ids) -> str:
    """The hint on an entry of ``shown`` that is several known jobs with another sign between them; else nothing."""
    if not isinstance(cell, str):
        return ""
    find, (_, jobs) = find_of(ids), places_of(market, ids)
    for sign in (",", "|"):
        if sign in cell and all(find(jobs, part) is not None for part in cell.split(sign)):
            return f" Say `separator={sign!r}` if {sign!r} separates the jobs that were shown."
    return ""


def _lost_zeros(cell: Any, population: Population) -> str:
    """The hint on a key that is unknown because a spreadsheet dropped the zeros before it; else nothing."""
    text = str(cell).strip()
    meant = padded_key(population.keys, text)
    if meant is None or not text.strip("0"):
        return ""
    return f" The market has {meant!r}, not {text!r}: a spreadsheet may have dropped zeros; give both files equal ids."


# -------------------------------------------------------------------------------------------------------------- columns


def columns_of(
    table: Table, columns: Mapping[str, str], fields: Sequence[str], needed: Sequence[str]
) -> dict[str, str]:
    """The column of each field that the table has.

    Args:
        table: The table.
        columns: The columns that a user named, by field; other columns are named like their field.
        fields: All fields.
        needed: The fields that the table must have.

    Raises:
        LogError: For an unknown field, or a missing column.
    """
    if not isinstance(columns, Mapping):
        raise LogError(f"`columns` must map fields to columns, `{{'job': 'item'}}`, got {columns!r:.80}.")
    for name, column in columns.items():
        if name not in fields:
            raise LogError(
                f"`columns` may name {', '.join(map(repr, fields))}, got {name!r}.{did_you_mean(name, fields)}"
            )
        if not isinstance(column, str):
            raise LogError(f"`columns[{name!r}]` must be the name of one column, got {column!r:.80}.")
        if normal_form(column) not in table.header:
            raise LogError(no_such_column(table.file, column, table.header))
    columns = {name: normal_form(column) for name, column in columns.items()}
    found = {name: columns.get(name, name) for name in fields if columns.get(name, name) in table.header}
    for name in needed:
        if name not in found:
            said = dict(columns) | perhaps if name in (perhaps := proposed_columns_of_log(table, found, fields)) else {}
            example = f", perhaps `columns={said!r}`" if said else f": `columns={{{name!r}: ...}}`"
            raise LogError(f"{no_such_column(table.file, name, table.header)} Say which it is{example}.")
    return found


def proposed_columns_of_log(table: Table, found: Mapping[str, str], fields: Sequence[str]) -> dict[str, str]:
    """The columns that may hold the fields that are not found, by their headings."""
    header = [column for column in table.header if column not in found.values()]
    return proposed_columns(header, [name for name in fields if name not in found], LOG_HEADINGS)


def refuse_near_columns(table: Table, found: Mapping[str, str], fields: Sequence[str]) -> None:
    """Raises :class:`LogError` for a column like ``Time``, which is nearly a field's name and would not be read."""
    for column in table.header:
        name = plain_name(column)
        if name in fields and name not in found and column not in found.values():
            raise LogError(
                f"{table.file}: column {column!r} would not be read, since the field is called {name!r}: say "
                f"`columns={{{name!r}: {column!r}}}` or rename the column."
            )


# ---------------------------------------------------------------------------------------------------------------- cells


def places_of(market: LabourMarket, ids: Ids) -> list[Any]:
    """For the applicants and for the jobs: the rows of the market by key, or the range of its row numbers."""
    sides = (market.applicants, market.jobs)
    if ids == "row":
        return [range(len(side)) for side in sides]
    return [{key: row for row, key in enumerate(side.keys.tolist())} for side in sides]


def check_id(cell: Any, ids: Ids, kind: str) -> bool:
    """True; :class:`BadCell` if a cell cannot be an id, so that no market can have a row for it.

    Args:
        cell: The cell.
        ids: Which kind of id it must be: ``"key"`` for a key, ``"row"`` for a row number.
        kind: How the kind of error begins, such as ``"job"``.
    """
    if ids == "row" and _row_number(cell) is None:
        raise BadCell(f"{kind} that is no row number", cell)
    if ids == "key" and not list(_keys_of(cell)):
        raise BadCell(f"{kind} that is no key", cell)
    return True


def find_of(ids: Ids) -> Callable[[Any, Any], int | None]:
    """The function that finds a cell among :func:`places_of`; it returns ``None`` for an unknown cell."""
    return _by_key if ids == "key" else _by_row


def found_row(find: Callable[[Any, Any], int | None], places: Any, cell: Any, kind: str) -> int:
    """The row that a cell names; :class:`BadCell` of this kind if there is none."""
    row = None if cell is None else find(places, cell)
    if row is None:
        raise BadCell(kind, cell)
    return row


def _by_key(places: Mapping[str, int], cell: Any) -> int | None:
    row = places.get(cell.strip()) if isinstance(cell, str) else None  # so are nearly all cells
    return next((places[key] for key in _keys_of(cell) if key in places), None) if row is None else row


def _keys_of(cell: Any) -> Iterator[str]:
    """The keys that a cell may mean: as it is written, and as the loader of a market reads such a cell."""
    if isinstance(cell, datetime.date):
        yield cell.isoformat()
    if isinstance(cell, bool) or not isinstance(cell, str | numbers.Number):
        return
    text = str(cell).strip()
    yield text
    yield text.removesuffix(".0")  # a column of whole numbers with gaps has floats
    yield without_markup(normal_form(text))


def _by_row(rows: range, cell: Any) -> int | None:
    number = _row_number(cell)
    return number if number in rows else None


def _row_number(cell: Any) -> int | None:
    """A whole number of at least 0; ``None`` for anything else."""
    try:
        value = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(value) if value >= 0 and value.is_integer() else None


def word_number(cell: Any, words: Mapping[str, int]) -> int | None:
    """The number of a cell's word; ``None`` for an unknown word.

    Words that elsewhere stand for an empty cell are looked up too: a user may map ``""`` or ``"none"``.
    """
    word = _word(cell)
    if word not in words and word.endswith(".0"):
        word = word.removesuffix(".0")  # a column of whole numbers with gaps has floats
    return words.get(word)


def _word(cell: Any) -> str:
    is_empty = cell is None or (isinstance(cell, float) and math.isnan(cell))
    return "" if is_empty else normal_form(str(cell).strip())


def spellings_of(word: Any) -> tuple[str, ...]:
    """The words of cells that a key of ``decisions`` stands for; True stands for ``true``, ``True`` and ``TRUE``."""
    text = normal_form(str(word))
    return (text, text.lower(), text.upper()) if isinstance(word, bool) else (text,)


def reward_in(cell: Any, notation: Notation) -> float:
    """The reward in a cell, a finite number; :class:`BadCell` for anything else."""
    return _number_in(cell, _NO_REWARD, notation)


def _number_in(cell: Any, kind: str, notation: Notation) -> float:
    """A finite number; :class:`BadCell` of this kind for anything else."""
    try:
        value = number_in_text(cell, notation.decimal) if notation.decimal and isinstance(cell, str) else float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise BadCell(kind, cell)
    return value


def propensity_in(cell: Any, notation: Notation) -> float:
    """The probability in a cell, in (0, 1]; :class:`BadCell` for anything else, also for True."""
    value = math.nan if is_nothing(cell) or isinstance(cell, bool) else _number_in(cell, _NO_PROPENSITY, notation)
    if not 0 < value <= 1:
        raise BadCell(_NO_PROPENSITY, cell)
    return value


def is_test_in(cell: Any) -> bool:
    """Whether a cell says ``test``, and not ``train``; :class:`BadCell` for anything else."""
    word = cell.strip() if isinstance(cell, str) else cell
    if word not in ("train", "test"):
        raise BadCell("split that is neither train nor test", cell)
    return bool(word == "test")


class Time(NamedTuple):
    """A time of a log.

    Attributes:
        value: A number as it is written, or the seconds since 1970 of a date or of the beginning of a day.
        form: The form that it had.
        is_day: Whether it is a day without a time of day.
    """

    value: float
    form: TimeForm = "number"
    is_day: bool = False


def time_in(cell: Any, kind: str, notation: Notation) -> Time:
    """The time in a cell.

    A date is read as by :func:`~jobrec_gym.market.dates.seconds_of`. A number stays the same, unless dates have formats
    of their own: ``20261231`` is then a date.

    Raises:
        BadCell: Of this kind, for a cell that is no time.
    """
    time: Time | None = None
    if not notation.dates:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            time = Time(math.nan if isinstance(cell, bool) else float(cell))
    if time is None:
        try:
            moment, is_day = moment_of(cell, notation.dates)
            time = Time(seconds_of(moment), "date" if moment.tzinfo is None else "zoned", is_day)
        except (ValueError, OverflowError):
            raise BadCell(kind, cell) from None
    if not math.isfinite(time.value):
        raise BadCell(kind, cell)
    return time


def difference_of(form: TimeForm, others: TimeForm) -> str | None:
    """The kind of error of a time among times of another form; ``None`` if it can be compared with them."""
    if form == others:
        return None
    if "number" in (form, others):
        return "number among dates" if form == "number" else "date among numbers"
    return "time with a zone among times without one" if form == "zoned" else "time without a zone among times with one"


def way_to_times(bad: BadRows, table: Table, names: Mapping[str, str], notation: Notation) -> str:
    """What to do about times that cannot be read; begins with a blank, or is empty.

    Args:
        bad: The bad rows.
        table: The table that they are in.
        names: The column of each field that the table has.
        notation: How dates were read.
    """
    said = ""
    for name, kind in TIMES.items():
        if kind in bad.n and name in names:
            needed = "a number, or a date such as 2026-06-01T08:00 (ISO 8601)"
            if notation.dates:
                needed = f"written as `date_format={list(notation.dates)!r}` says"
            said += f" A time is {needed}."
            cell = bad.cells[kind]
            if reason := reason_against(cell, notation.dates):
                said += reason
            elif isinstance(cell, str) and any(map(str.isdigit, cell)):
                said += way_to_format(table.column(names[name]))
    return said


def yes_in(cell: Any, kind: str, empty: bool | None = None) -> bool:
    """Whether a cell says yes, and not no; :class:`BadCell` of this kind for anything else.

    Args:
        cell: The cell.
        kind: The kind of error.
        empty: What an empty cell says; ``None`` makes it an error.
    """
    found = empty if is_nothing(cell) else yes_or_no(cell)
    if found is None:
        raise BadCell(kind, cell)
    return found


def jobs_in(cell: Any, separator: str, known: Any) -> list[Any]:
    """The jobs in a cell. A word that elsewhere stands for an empty cell (``none``) may be the key of a job."""
    if is_nothing(cell) and not (isinstance(cell, str) and isinstance(known, Mapping) and cell.strip() in known):
        raise BadCell("nothing shown", cell)
    if isinstance(cell, str):
        try:
            cell = list_in_text(cell.strip(), "", "shown")
        except MarketError:
            raise BadCell(_NO_LIST, cell) from None
    if isinstance(cell, str):
        return [part.strip() for part in cell.split(separator) if part.strip()]
    if isinstance(cell, numbers.Real) and not isinstance(cell, bool):
        return [cell]
    if not isinstance(cell, list):
        raise BadCell(_NO_LIST, cell)
    return cell
