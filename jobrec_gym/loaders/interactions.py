"""Loads a log of recommendations and answers on a market, from CSV, JSON lines, Parquet or a saved log."""

from __future__ import annotations

import datetime
import logging
import math
import numbers
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.interactions import Interactions, LogError, is_saved_log
from jobrec_gym.loaders.cells import is_nothing, list_in_text, normal_form, without_markup
from jobrec_gym.loaders.files import DEFAULT_MAX_BYTES
from jobrec_gym.loaders.reading import Reading, Table, read_table
from jobrec_gym.loaders.release import no_such_column
from jobrec_gym.market import LabourMarket, MarketError, Population
from jobrec_gym.near_miss import best_match, with_known_keywords
from jobrec_gym.paths import place_of
from jobrec_gym.simulators.base import DECISIONS, decision_rewards

__all__ = ["LOG_FIELDS", "Ids", "OnBad", "load_interactions"]

logger = logging.getLogger(__name__)

LOG_FIELDS = ("applicant", "job", "decision", "reward", "time", "posted", "shown", "propensity", "split", "moving")
"""The fields that a row of a log may have, see :func:`load_interactions`."""

OnBad = Literal["raise", "skip"]
Ids = Literal["key", "row"]
_NAMED = 3  # how many bad rows of each kind a message names
_WORDS = 8  # how many unknown decisions a message names

_UNKNOWN_DECISION = "unknown decision"
_TWICE = "twice the same"
_WAYS_OUT = {
    "reward that is no finite number": " A reward is a number with a decimal point; words are decisions, "
    "`columns={'decision': ...}, decisions={'yes': 'click', 'no': 'ignore'}`.",
    "no time": " A time is a number, or a date such as 2026-06-01T08:00 (ISO 8601).",
    "propensity outside of (0, 1]": " A propensity is a share with a decimal point, such as 0.25.",
    "unknown job among those shown": " The market must have all jobs that were shown, also expired ones; learning "
    "needs no `shown`.",
}
"""What to do about some kinds of bad rows."""
_YES_OR_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@with_known_keywords
def load_interactions(
    source: str | os.PathLike[str],
    market: LabourMarket,
    columns: Mapping[str, str] | None = None,
    *,
    ids: Ids = "key",
    decisions: Mapping[str, str] | None = None,
    rewards: Mapping[str, float] | None = None,
    separator: str = ";",
    delimiter: str | None = None,
    encoding: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    split_by: Literal["time"] | None = None,
    test_fraction: float = 0.3,
    on_bad: OnBad = "raise",
) -> Interactions:
    """A log on a market, from a file or from a folder of :meth:`~jobrec_gym.interactions.Interactions.save`.

    A row is one recommendation. It has ``applicant`` and ``job``, and ``decision``, ``reward`` or both. If it has both,
    ``reward`` is used. A row without either is a recommendation without an answer. A row may also have ``time`` and
    ``posted`` (when the recommendation and the job's posting were made: numbers, or dates in ISO 8601), ``shown`` (all
    jobs that the person was shown, including the recommended one), ``propensity`` (the probability with which this job
    was chosen), ``split`` (``train`` or ``test``) and ``moving`` (``yes`` if answers changed the applicants, as in
    ``JobRecCareer-v0``; one such row marks the whole log).

    Args:
        source: ``"csv:log.csv"``, ``"jsonl:..."``, ``"parquet:..."``, a file with one of these endings, or a folder.
            The rows of a folder were read before they were saved: ``on_bad`` and ``max_bytes`` then change nothing, and
            of the other arguments only ``split_by`` and ``test_fraction`` may be given.
        market: The market of the people and jobs.
        columns: Which column holds which of :data:`LOG_FIELDS`; by default each is named like its field.
        ids: Whether ``applicant``, ``job`` and ``shown`` hold the market's keys (``5`` is then the key ``"5"``,
            whatever row that is), or its row numbers, from 0.
        decisions: The log's own words for ``apply``, ``save``, ``click`` and ``ignore``, such as ``{"applied":
            "apply"}``. An empty cell counts as no answer, unless it is mapped like a word, ``{"": "ignore"}``.
        rewards: Rewards in place of apply 1.0, save 0.5, click 0.0, ignore -0.1.
        separator: The text that separates the jobs in a cell of ``shown``. A cell may also hold a list in the notation
            of JSON or Python.
        delimiter: The character that separates cells of CSV; by default it is found. This and the next two arguments
            are as in :func:`~jobrec_gym.loaders.tables.load_table`.
        encoding: Encoding of text; by default UTF-8, or the one of a byte order mark.
        max_bytes: Largest size in bytes of a compressed file once it is uncompressed.
        split_by: ``"time"`` holds out the latest interactions. By default the column ``split`` says which ones are held
            out; without that column they are those of the market's held-out applicants.
        test_fraction: Share that ``"time"`` holds out. At least one row is held out, and at least one is not.
        on_bad: Whether rows that are wrong raise an error, or are left out and counted.

    Raises:
        LogError: For a missing column, for a column that is nearly a field (``Propensity``) but not mapped, and for
            wrong rows. The error counts wrong rows by kind and names the first ones. A row is wrong if, for example,
            its person or job is unknown, its propensity is outside of (0, 1], its time is before the posting, or its
            time is a number while earlier rows have dates. A repeated row is wrong too: one with the same person, job
            and time as an earlier row. In a log without times, only a row that is equal in everything counts as
            repeated. With ``on_bad="skip"`` the error still comes if no row is left, or no row has an answer.
        MarketError: For a file that cannot be read.

    Example:
        >>> log = load_interactions("csv:log.csv", market, {"applicant": "user", "job": "item"})  # doctest: +SKIP
    """
    for name, value, allowed in (("ids", ids, get_args(Ids)), ("on_bad", on_bad, get_args(OnBad))):
        if value not in allowed:
            raise LogError(f"`{name}` must be one of {allowed}, got {value!r}.")
    if split_by not in (None, "time"):
        raise LogError(f"`split_by` must be 'time' or None, got {split_by!r}.")
    is_number = isinstance(test_fraction, numbers.Real) and not isinstance(test_fraction, bool)
    if not is_number or not 0 < test_fraction < 1:
        raise LogError(f"`test_fraction` must be in (0, 1), got {test_fraction!r:.40}.")
    if not isinstance(separator, str) or not separator:
        raise LogError(f"`separator` must be a text that is not empty, such as ';', got {separator!r:.40}.")
    if is_saved_log(source):
        asked: dict[str, Any] = {"columns": columns, "decisions": decisions, "rewards": rewards, "encoding": encoding}
        asked |= {"ids": ids != "key", "separator": separator != ";", "delimiter": delimiter}
        if given := [name for name, value in asked.items() if value]:
            raise LogError(
                f"{' and '.join(f'`{name}`' for name in given)} cannot be given for {source}, which is a saved log: it "
                "is as it was read before it was saved. Leave them out, or read the file again and save that log."
            )
        log = Interactions.load(source, market)
    elif place_of(source).is_dir():
        raise LogError(f"{source} is a folder and holds no saved log; give a file, or a folder that `log.save` wrote.")
    else:
        table = read_table(source, Reading(delimiter, encoding, max_bytes))
        log = _read(table, market, columns or {}, ids, decisions, rewards, separator, on_bad)
    if split_by == "time":
        if log.time is None:
            raise LogError('`split_by="time"` needs a column `time`, which the log does not have.')
        n_latest = max(1, min(int(len(log) * test_fraction + 0.5), len(log) - 1))
        held_out = np.zeros(len(log), dtype=bool)
        held_out[np.argsort(log.time, kind="stable")[-n_latest:]] = True
        log = _with_split(log, held_out)
    return log


# -------------------------------------------------------------------------------------------------------------- reading


class _BadCell(Exception):
    """A wrong cell: the kind of error, and the cell's content."""

    def __init__(self, kind: str, cell: Any):
        super().__init__(kind, cell)
        self.kind, self.cell = kind, cell


@dataclass
class _BadRows:
    """Bad rows of a file by kind: their number, and the first ones."""

    n: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    cells: dict[str, Any] = field(default_factory=dict)  # the first cell of each kind
    words: dict[str, None] = field(default_factory=dict)  # unknown decisions, each once, and one more than are named

    def add(self, kind: str, row: int, cell: Any) -> None:
        self.n[kind] = self.n.get(kind, 0) + 1
        self.cells.setdefault(kind, cell)
        if kind == _UNKNOWN_DECISION and len(self.words) <= _WORDS:
            self.words.setdefault(str(cell).strip())
        named = self.first.setdefault(kind, [])
        if len(named) < _NAMED:
            named.append(f"row {row} ({cell!r:.60})")

    def text(self) -> str:
        return "; ".join(
            f"{kind}: {n:,}, {', '.join(self.first[kind])}{', ...' if n > _NAMED else ''}" for kind, n in self.n.items()
        )


@dataclass(frozen=True, slots=True)
class _Row:
    applicant: int
    job: int
    decision: int
    reward: float
    time: float
    shown: tuple[int, ...]
    propensity: float
    split: bool
    moving: bool


def _read(
    table: Table,
    market: LabourMarket,
    columns: Mapping[str, str],
    ids: Ids,
    decisions: Mapping[str, str] | None,
    rewards: Mapping[str, float] | None,
    separator: str,
    on_bad: OnBad,
) -> Interactions:
    names = _columns_of(table, columns)
    places = [
        _places(getattr(market, side)) if ids == "key" else range(len(getattr(market, side)))
        for side in ("applicants", "jobs")
    ]
    words = _words(decisions)
    worth = np.array([decision_rewards(rewards)[decision] for decision in DECISIONS])
    find = _by_key if ids == "key" else _by_row
    is_date: bool | None = None  # decided by the first row with a valid time

    def row_of(cells: Mapping[str, Any]) -> _Row:
        def cell(name: str) -> Any:
            value = cells.get(names[name]) if name in names else None
            return None if is_nothing(value) else value

        # A key may be any word, even "none".
        applicant = _found(find, places[0], cells.get(names["applicant"]), "unknown person")
        job = _found(find, places[1], cells.get(names["job"]), "unknown job")
        decision = _decision(cells.get(names["decision"]), words) if "decision" in names else -1
        reward = _number(cell("reward"), "reward that is no finite number")
        if reward is None:
            reward = math.nan if decision < 0 else float(worth[decision])
        time = posted = None
        if "time" in names:
            time = _time(cell("time"), "no time")
            if time is None:
                raise _BadCell("no time", cells.get(names["time"]))
        if "posted" in names:
            posted = _time(cell("posted"), "posting time that cannot be read")
        if time is not None and posted is not None and time < posted:
            raise _BadCell("time before the posting", cell("time"))
        for name in ("time", "posted"):
            given = cell(name)
            if given is not None and is_date is not None and _is_date(given) != is_date:
                raise _BadCell("number among dates" if is_date else "date among numbers", given)
        shown: tuple[int, ...] = ()
        if "shown" in names:
            listed = _listed(cells.get(names["shown"]), separator, places[1])
            shown = tuple(_found(find, places[1], one, "unknown job among those shown") for one in listed)
            if len(set(shown)) < len(shown):
                raise _BadCell("the same job shown twice", cell("shown"))
            if job not in shown:
                raise _BadCell("recommended job not among those shown", cell("job"))
        propensity = math.nan
        if "propensity" in names:
            found = _number(cell("propensity"), "propensity outside of (0, 1]")
            if found is None or not 0 < found <= 1:
                raise _BadCell("propensity outside of (0, 1]", cells.get(names["propensity"]))
            propensity = found
        split = cell("split")
        split = split.strip() if isinstance(split, str) else split
        if "split" in names and split not in ("train", "test"):
            raise _BadCell("split that is neither train nor test", cells.get(names["split"]))
        moving = str(cells.get(names["moving"])).strip().casefold() if "moving" in names else "no"
        if moving not in _YES_OR_NO:
            raise _BadCell("moving that is neither yes nor no", cells.get(names["moving"]))
        time = math.nan if time is None else time
        is_test, is_moving = split == "test", _YES_OR_NO[moving]
        return _Row(applicant, job, decision, reward, time, shown, propensity, is_test, is_moving)

    rows: list[_Row] = []
    bad, seen = _BadRows(), set()
    for number, cells in table.rows:
        try:
            row = row_of(cells)
            same = (row.applicant, row.job, row.time) if "time" in names else (*_parts(row), str(cells.get("posted")))
            if same in seen:
                raise _BadCell(_TWICE, f"{market.applicants.keys[row.applicant]}, {market.jobs.keys[row.job]}")
            seen.add(same)
            rows.append(row)
            times = [cells.get(names[name]) for name in ("time", "posted") if name in names]
            if is_date is None and (known := [value for value in times if not is_nothing(value)]):
                is_date = _is_date(known[0])
        except _BadCell as error:
            bad.add(error.kind, number, error.cell)
    if bad.n:
        n = sum(bad.n.values())
        found = f"{table.file}: {n:,} of {len(table.rows):,} rows are impossible: {bad.text()}."
        if _TWICE in bad.n:
            found += (
                " A row is one recommendation with its answer: if rows are events (shown, clicked, applied), keep one "
                "row of each recommendation, with the most that the person did."
            )
        if on_bad == "raise" or not rows:
            hint = ""
            if any(kind.startswith(("unknown person", "unknown job")) for kind in bad.n) and ids == "key":
                hint = (
                    " People and jobs are looked up by the market's keys; where they are row numbers say `ids='row'`."
                )
                hint += _lost_zeros(bad.cells.get("unknown person"), market.applicants)
                hint += _lost_zeros(bad.cells.get("unknown job"), market.jobs)
            if _UNKNOWN_DECISION in bad.n:
                hint += f" Decisions are {', '.join(DECISIONS)}; say what other words mean, {_mapping(bad)}."
            hint += "".join(way for kind, way in _WAYS_OUT.items() if kind in bad.n)
            way_out = " `on_bad='skip'` leaves them out." if rows else " No row is left."
            raise LogError(f"{found}{hint}{way_out}")
        logger.warning("%s They were left out.", found)
    if not rows:
        raise LogError(f"{table.file} has no rows.")
    return _assembled(table, market, rows, names)


def _assembled(table: Table, market: LabourMarket, rows: Sequence[_Row], names: Mapping[str, str]) -> Interactions:
    reward = np.array([row.reward for row in rows])
    n_silent = int(np.isnan(reward).sum())
    if n_silent == len(rows):
        raise LogError(
            f"{table.file}: none of the {len(rows):,} rows has an answer (decision or reward), so nothing can be "
            "learned or estimated from them."
        )
    if n_silent:
        logger.warning("%s: %d of %d rows have no answer; they are kept without one.", table.file, n_silent, len(rows))
    return Interactions.of(
        market,
        [row.applicant for row in rows],
        [row.job for row in rows],
        reward,
        decision=[row.decision for row in rows],
        held_out=[row.split for row in rows] if "split" in names else None,
        time=[row.time for row in rows] if "time" in names else None,
        propensity=[row.propensity for row in rows] if "propensity" in names else None,
        shown=[row.shown for row in rows] if "shown" in names else None,
        moving=any(row.moving for row in rows),
    )


def _with_split(log: Interactions, held_out: NDArray[np.bool_]) -> Interactions:
    shown = None if log.shown_ids is None else [log.shown(row) for row in range(len(log))]
    more = {name: getattr(log, name) for name in ("decision", "time", "propensity", "moving")}
    return Interactions.of(
        log.market, log.applicant_ids, log.job_ids, log.reward, held_out=held_out, shown=shown, **more
    )


def _lost_zeros(cell: Any, population: Population) -> str:
    """The hint on a key that is unknown because a spreadsheet dropped the zeros before it; else nothing."""
    text = str(cell).strip()
    number = text.lstrip("0")
    if not number.isdecimal():
        return ""
    meant = next((key for key in population.keys.tolist() if key != text and key.lstrip("0") == number), None)
    if meant is None:
        return ""
    return f" The market has {meant!r}, not {text!r}: a spreadsheet may have dropped zeros; write ids alike in both."


def _mapping(bad: _BadRows) -> str:
    """An example of ``decisions=`` with words of the log."""
    named = []
    for word in list(bad.words)[:_WORDS]:
        near = best_match(word, DECISIONS)
        named.append(f"{word!r:.40}: {repr(near) if near else '...'}")
    more = ", ..." if len(bad.words) > _WORDS else ""
    return f"`decisions={{{', '.join(named)}{more}}}`"


def _columns_of(table: Table, columns: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(columns, Mapping):
        raise LogError(f"`columns` must map fields to columns, `{{'job': 'item'}}`, got {columns!r:.80}.")
    for name, column in columns.items():
        if name not in LOG_FIELDS:
            near = best_match(str(name), LOG_FIELDS)
            hint = f" Did you mean {near!r}?" if near else ""
            raise LogError(f"`columns` may name {', '.join(map(repr, LOG_FIELDS))}, got {name!r}.{hint}")
        if not isinstance(column, str):
            raise LogError(f"`columns[{name!r}]` must be the name of one column, got {column!r:.80}.")
        if normal_form(column) not in table.header:
            raise LogError(no_such_column(table.file, column, table.header))
    columns = {name: normal_form(column) for name, column in columns.items()}
    found = {name: columns.get(name, name) for name in LOG_FIELDS if columns.get(name, name) in table.header}
    for name in ("applicant", "job"):
        if name not in found:
            raise LogError(
                f"{no_such_column(table.file, name, table.header)} Say which it is: `columns={{{name!r}: ...}}`."
            )
    if not found.keys() & {"decision", "reward"}:
        raise LogError(
            f"{no_such_column(table.file, 'decision', table.header)} A log needs 'decision', 'reward' or both: say "
            "which columns they are, e.g. `columns={'reward': 'clicked'}`."
        )
    for column in table.header:
        name = column.casefold().strip(" \t_\ufeff\xa0")
        if name in LOG_FIELDS and name not in found and column not in found.values():
            raise LogError(
                f"{table.file}: column {column!r} would not be read, since the field is called {name!r}: say "
                f"`columns={{{name!r}: {column!r}}}` or rename the column."
            )
    return found


def _words(decisions: Mapping[str, str] | None) -> dict[str, int]:
    places = {decision: place for place, decision in enumerate(DECISIONS)}
    if decisions is not None and not isinstance(decisions, Mapping):
        raise LogError(f"`decisions` must map words to decisions, `{{'applied': 'apply'}}`, got {decisions!r:.80}.")
    for word, decision in (decisions or {}).items():
        if not isinstance(decision, str) or decision not in places:
            raise LogError(f"`decisions[{word!r}]` must be one of {DECISIONS}, got {decision!r}.")
    return places | {str(word): places[decision] for word, decision in (decisions or {}).items()}


def _places(population: Population) -> dict[str, int]:
    return {key: row for row, key in enumerate(population.keys.tolist())}


def _parts(row: _Row) -> tuple[Any, ...]:
    """All values of a row, for comparison; NaN becomes a value that is equal to itself."""
    numbers_ = (None if math.isnan(value) else value for value in (row.reward, row.propensity))
    return row.applicant, row.job, row.decision, row.shown, row.split, *numbers_


# ---------------------------------------------------------------------------------------------------------------- cells


def _found(find: Callable[[Any, Any], int | None], places: Any, cell: Any, kind: str) -> int:
    row = None if cell is None else find(places, cell)
    if row is None:
        raise _BadCell(kind, cell)
    return row


def _by_key(places: Mapping[str, int], cell: Any) -> int | None:
    return next((places[key] for key in _keys_of(cell) if key in places), None)


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
    try:
        value = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(value) if value.is_integer() and int(value) in rows else None


def _decision(cell: Any, words: Mapping[str, int]) -> int:
    """Number of a decision in ``DECISIONS``, -1 for none.

    The log's own words come first: a user may map ``""`` or ``"none"``.
    """
    word = "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else str(cell).strip()
    if word not in words and word.endswith(".0"):
        word = word.removesuffix(".0")  # a column of whole numbers with gaps has floats
    if word in words:
        return words[word]
    if is_nothing(cell):
        return -1
    raise _BadCell(_UNKNOWN_DECISION, cell)


def _number(cell: Any, kind: str) -> float | None:
    if cell is None:
        return None
    try:
        value = math.nan if isinstance(cell, bool) and kind.startswith("propensity") else float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise _BadCell(kind, cell)
    return value


def _time(cell: Any, kind: str) -> float | None:
    """Seconds since 1970 of a date, in UTC unless it names a time zone; a number stays as it is."""
    if cell is None:
        return None
    try:
        if isinstance(cell, str):
            try:
                value = float(cell)
            except ValueError:
                cell = datetime.datetime.fromisoformat(cell.strip())
        if isinstance(cell, datetime.date) and not isinstance(cell, datetime.datetime):
            cell = datetime.datetime(cell.year, cell.month, cell.day)
        if isinstance(cell, datetime.datetime):
            zoned = cell if cell.tzinfo is not None else cell.replace(tzinfo=datetime.UTC)
            value = zoned.timestamp()
        elif not isinstance(cell, str):
            value = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError, OverflowError):
        raise _BadCell(kind, cell) from None
    if not math.isfinite(value):
        raise _BadCell(kind, cell)
    return value


def _is_date(cell: Any) -> bool:
    """Whether a time is a date, not a number."""
    if isinstance(cell, str):
        try:
            float(cell)
        except ValueError:
            return True
        return False
    return isinstance(cell, datetime.date)


def _listed(cell: Any, separator: str, known: Any) -> list[Any]:
    """The jobs in a cell. A word that means nothing elsewhere (``none``) may be the key of a job."""
    if is_nothing(cell) and not (isinstance(cell, str) and isinstance(known, Mapping) and cell.strip() in known):
        raise _BadCell("nothing shown", cell)
    if isinstance(cell, str):
        try:
            cell = list_in_text(cell.strip(), "", "shown")
        except MarketError:
            raise _BadCell("list of shown jobs that cannot be read", cell) from None
    if isinstance(cell, str):
        return [part.strip() for part in cell.split(separator) if part.strip()]
    if isinstance(cell, numbers.Real) and not isinstance(cell, bool):
        return [cell]
    if not isinstance(cell, list):
        raise _BadCell("list of shown jobs that cannot be read", cell)
    return cell
