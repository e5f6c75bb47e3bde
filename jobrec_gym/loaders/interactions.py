"""Loads a log of recommendations and answers on a market, from CSV, JSON lines, Parquet or a saved log."""

from __future__ import annotations

import hashlib
import logging
import math
import numbers
import os
from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np

from jobrec_gym.interactions import Interactions, LogError, is_saved_log
from jobrec_gym.loaders.cells import is_nothing
from jobrec_gym.loaders.events import EVENT_FIELDS, WITHOUT_PROPENSITIES, Events, read_events
from jobrec_gym.loaders.files import DEFAULT_MAX_BYTES
from jobrec_gym.loaders.log_cells import (
    TIMES,
    BadCell,
    BadRows,
    Ids,
    Notation,
    OnBad,
    OnUnknownShown,
    Time,
    TimeForm,
    check_id,
    columns_of,
    difference_of,
    find_of,
    found_row,
    is_test_in,
    jobs_in,
    places_of,
    propensity_in,
    proposed_columns_of_log,
    refuse_near_columns,
    reward_in,
    spellings_of,
    time_in,
    way_to_times,
    word_number,
    yes_in,
)
from jobrec_gym.loaders.reading import Reading, Table, read_table
from jobrec_gym.loaders.release import no_such_column
from jobrec_gym.market import LabourMarket
from jobrec_gym.market.dates import DAY, DateFormat, date_formats
from jobrec_gym.near_miss import with_known_keywords
from jobrec_gym.paths import place_of, what_came
from jobrec_gym.simulators.base import DECISIONS, decision_rewards

__all__ = ["LOG_FIELDS", "Ids", "OnBad", "load_interactions"]

logger = logging.getLogger(__name__)

LOG_FIELDS = ("applicant", "job", "decision", "reward", "time", "posted", "shown", "propensity", "split", "moving")
"""The fields that a row of a log may have, see :func:`load_interactions`."""

_UNKNOWN_DECISION = "unknown decision"
_TWICE = "twice the same"
_CODES = {"applicant": "q", "job": "q", "decision": "b", "reward": "d", "time": "d", "propensity": "d", "split": "b"}
_NAMED = 3  # how many unknown jobs a message names
_ROWS_ARE_EVENTS = "If rows are events (shown, clicked, applied), say `events=True`."


@with_known_keywords
def load_interactions(
    source: str | os.PathLike[str],
    market: LabourMarket,
    columns: Mapping[str, str] | None = None,
    *,
    ids: Ids = "key",
    decisions: Mapping[str, str | None] | None = None,
    rewards: Mapping[str, float] | None = None,
    events: Events | Mapping[str, Any] | bool | None = None,
    separator: str = ";",
    delimiter: str | None = None,
    encoding: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    decimal: str | None = None,
    date_format: DateFormat | None = None,
    split_by: Literal["time"] | None = None,
    test_fraction: float = 0.3,
    on_bad: OnBad = "raise",
    on_unknown_shown: OnUnknownShown = "bad",
) -> Interactions:
    """A log on a market, from a file or from a folder of :meth:`~jobrec_gym.interactions.Interactions.save`.

    A row is one recommendation. It has ``applicant`` and ``job``, and ``decision``, ``reward`` or both. If it has both,
    ``reward`` is used. A row without either is a recommendation without an answer. A row may also have ``time`` and
    ``posted`` (when the recommendation and the job's posting were made: numbers or dates), ``shown`` (all jobs that the
    person was shown, including the recommended one), ``propensity`` (the probability with which this job was chosen),
    ``split`` (``train`` or ``test``) and ``moving`` (``yes`` if answers changed the applicants, as in
    ``JobRecCareer-v0``; one such row marks the whole log).

    With ``events``, a row is one event: a job was shown, clicked, saved, applied for or dismissed. It has
    ``applicant``, ``job`` and ``event``, and should have ``time``. It may also have ``set`` (the id of a list, a page
    or a session: what was shown to a person under one id was shown together), ``bot`` (``yes`` for rows to leave out),
    ``propensity`` (of impressions) and ``split``. :class:`~jobrec_gym.loaders.events.Events` says how events become
    recommendations. A warning of ``logging`` counts the events, the recommendations, and what was left out.

    Args:
        source: ``"csv:log.csv"``, ``"jsonl:..."``, ``"parquet:..."``, a file with one of these endings, or a folder.
            The rows of a folder were read before they were saved: ``on_bad`` and ``max_bytes`` then change nothing, and
            of the other arguments only ``split_by`` and ``test_fraction`` may be given.
        market: The market of the people and jobs.
        columns: Which column holds which of :data:`LOG_FIELDS`, or of :data:`~jobrec_gym.loaders.events.EVENT_FIELDS`;
            by default each is named like its field.
        ids: Whether ``applicant``, ``job`` and ``shown`` hold the market's keys (``5`` is then the key ``"5"``,
            whatever row that is), or its row numbers, from 0.
        decisions: The log's own words for ``apply``, ``save``, ``click`` and ``ignore``, such as ``{"applied":
            "apply"}``. ``True`` stands for the cells ``true``, ``True`` and ``TRUE``. An empty cell counts as no
            answer, unless it is mapped like a word, ``{"": "ignore"}``. With ``events`` a word may also stand for
            ``impression``, ``{"shown": "impression"}``, or for ``None``: events with such a word are left out.
        rewards: Rewards in place of apply 1.0, save 0.5, click 0.0, ignore -0.1.
        events: Whether a row is an event, and how events are joined: ``True``, or a mapping that names attributes of
            :class:`~jobrec_gym.loaders.events.Events`, ``{"window": 7 * 86_400, "without_impression": "keep"}``.
        separator: The text that separates the jobs in a cell of ``shown``. A cell may also hold a list in the notation
            of JSON, Python or numpy.
        delimiter: The character that separates cells of CSV; by default it is found. This and the next two arguments
            are as in :func:`~jobrec_gym.loaders.tables.load_table`.
        encoding: Encoding of text; by default UTF-8, or the one of a byte order mark.
        max_bytes: Largest size in bytes of a compressed file once it is uncompressed.
        decimal: ``"."`` or ``","``, the decimal sign of ``reward`` and ``propensity``. The other sign then separates
            thousands. By default a point is the decimal sign.
        date_format: How dates are written, as in :func:`~jobrec_gym.loaders.tables.load_table`; by default in ISO 8601.
            If it is given, every time must be such a date, and a number such as 20261231 is read by it.
        split_by: ``"time"`` holds out the latest interactions. By default the column ``split`` says which ones are held
            out; without that column the interactions of the market's held-out applicants are held out.
        test_fraction: Share that ``"time"`` holds out. At least one row is held out, and at least one is not.
        on_bad: Whether rows that are wrong raise an error, or are left out and counted.
        on_unknown_shown: What an unknown job does to the candidate sets of other jobs, which were shown together with
            it. With ``"bad"`` it spoils them: a row that has it in ``shown`` is wrong, and with ``events`` all
            recommendations of its set are left out. With ``"skip"`` the set is the known jobs alone, and a warning
            counts such sets. With either value a row is wrong if its own job is unknown. It is also wrong if an entry
            of ``shown`` cannot be an id (a key, or with ``ids="row"`` a row number). If a set has lost jobs, the log
            gets no propensities: they are probabilities of a choice among all jobs that were shown, and say nothing
            about a choice among fewer. The method ``"dm"`` of :mod:`jobrec_gym.off_policy` needs none; it then
            estimates a choice among the known jobs.

    Raises:
        LogError: For a missing column, for a column that is nearly a field (``Propensity``) but not mapped, and for
            wrong rows. The error counts wrong rows by kind and names the first ones. A row is wrong if, for example,
            its person or job is unknown, its propensity is outside of (0, 1], its time is before the posting, its time
            is a number while earlier rows have dates, or it has no time zone while those of earlier rows have one. A
            repeated row is wrong too: one with the same person, job and time as an earlier row. In a log without times,
            only a row that is equal in everything counts as repeated. Events that came twice are no error. With
            ``on_bad="skip"`` the error still comes if no row is left, or no row has an answer.
        MarketError: For a file that cannot be read.

    Example:
        >>> log = load_interactions("csv:log.csv", market, {"applicant": "user", "job": "item"})  # doctest: +SKIP
    """
    for name, value, allowed in (
        ("ids", ids, get_args(Ids)),
        ("on_bad", on_bad, get_args(OnBad)),
        ("on_unknown_shown", on_unknown_shown, get_args(OnUnknownShown)),
    ):
        if value not in allowed:
            raise LogError(f"`{name}` must be one of {allowed}, got {value!r}.")
    if split_by not in (None, "time"):
        raise LogError(f"`split_by` must be 'time' or None, got {split_by!r}.")
    is_number = isinstance(test_fraction, numbers.Real) and not isinstance(test_fraction, bool)
    if not is_number or not 0 < test_fraction < 1:
        raise LogError(f"`test_fraction` must be in (0, 1), got {test_fraction!r:.40}.")
    if not isinstance(separator, str) or not separator:
        raise LogError(f"`separator` must be a text that is not empty, such as ';', got {separator!r:.40}.")
    notation = Notation(date_formats(date_format), decimal)
    rules = Events.of(events)
    if rules is not None and separator != ";":
        raise LogError("`separator` has no meaning with `events`: the jobs of a set are rows of their own.")
    if not isinstance(source, str | os.PathLike):
        raise LogError(f"`source` must be a file or the folder of a saved log, got {what_came(source)}.")
    if is_saved_log(source):
        asked: dict[str, Any] = {"columns": columns, "decisions": decisions, "rewards": rewards, "encoding": encoding}
        asked |= {"ids": ids != "key", "separator": separator != ";", "delimiter": delimiter, "events": rules}
        asked |= {"decimal": decimal, "date_format": date_format, "on_unknown_shown": on_unknown_shown != "bad"}
        if given := [name for name, value in asked.items() if value]:
            raise LogError(
                f"{' and '.join(f'`{name}`' for name in given)} cannot be given for {source}, which is a saved log: "
                "its rows were read before it was saved. Leave these arguments out, or read the file again with them, "
                "and save that log."
            )
        log = Interactions.load(source, market)
    elif place_of(source).is_dir():
        raise LogError(f"{source} is a folder and holds no saved log; give a file, or a folder that `log.save` wrote.")
    else:
        table = read_table(source, Reading(delimiter, encoding, max_bytes))
        if rules is None:
            names = _columns_of(table, columns or {})
            reader = _RowReader(market, names, ids, decisions, rewards, separator, notation, on_unknown_shown)
            log = _read(table, market, names, reader, ids, on_bad, notation)
        else:
            log = read_events(
                table,
                market,
                rules,
                columns,
                ids=ids,
                decisions=decisions,
                rewards=rewards,
                on_bad=on_bad,
                on_unknown_shown=on_unknown_shown,
                notation=notation,
            )
    if split_by == "time":
        if log.time is None:
            raise LogError('`split_by="time"` needs a column `time`, which the log does not have.')
        n_latest = max(1, min(int(len(log) * test_fraction + 0.5), len(log) - 1))
        held_out = np.zeros(len(log), dtype=bool)
        held_out[np.argsort(log.time, kind="stable")[-n_latest:]] = True
        log = replace(log, held_out=held_out, folder=None)
    return log


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _Row:
    applicant: int
    job: int
    decision: int
    reward: float
    time: float
    shown: tuple[int, ...]
    unknown: tuple[str, ...]  # further jobs that were shown, which the market lacks
    propensity: float
    split: bool
    moving: bool


class _Columns:
    """The rows of a log by column, in a small part of the memory that an object for each row would take.

    Attributes:
        of: The columns that hold one number for each row, by field.
        offsets: Where each row's jobs begin in ``shown``, and the end.
        shown: The shown jobs of all rows.
        unknown: The further jobs that were shown, which the market lacks, each once.
        n_smaller: How many rows have such jobs.
        moving: Whether any row is moving.
    """

    def __init__(self) -> None:
        self.of: dict[str, array[Any]] = {name: array(code) for name, code in _CODES.items()}
        self.offsets, self.shown = array("q", [0]), array("q")
        self.unknown: dict[str, None] = {}
        self.n_smaller = 0
        self.moving = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def add(self, row: _Row) -> None:
        """Appends a row."""
        for name, column in self.of.items():
            column.append(getattr(row, name))
        self.shown.extend(row.shown)
        self.offsets.append(len(self.shown))
        self.unknown.update(dict.fromkeys(row.unknown))
        self.n_smaller += bool(row.unknown)
        self.moving |= row.moving


class _RowReader:
    """Reads the rows of a log.

    Args:
        market: The market of the people and jobs.
        names: The column of each field that the log has.
        ids: As in :func:`load_interactions`, like the arguments below.
        decisions: The log's own words.
        rewards: Rewards in place of those of the decisions.
        separator: The text that separates shown jobs.
        notation: How dates and numbers are written.
        on_unknown_shown: Whether unknown jobs among those shown make a row bad.
    """

    def __init__(
        self,
        market: LabourMarket,
        names: Mapping[str, str],
        ids: Ids,
        decisions: Mapping[str, str | None] | None,
        rewards: Mapping[str, float] | None,
        separator: str,
        notation: Notation,
        on_unknown_shown: OnUnknownShown,
    ):
        self._names = names
        self._skips_unknown = on_unknown_shown == "skip"
        self._notation = notation
        self._ids, self._find = ids, find_of(ids)
        self._people, self._jobs = places_of(market, ids)
        self._words = _words(decisions)
        self._worth = [decision_rewards(rewards)[decision] for decision in DECISIONS]
        self._separator = separator
        self._forms: dict[str, TimeForm] = {}  # of `time` and of `posted`; the first good row with each decides

    def row(self, cells: Mapping[str, Any]) -> _Row:
        """A row of the log; :class:`BadCell` if a cell is wrong."""
        names = self._names
        # A key may be any word, even "none".
        applicant = found_row(self._find, self._people, cells.get(names["applicant"]), "unknown person")
        job = found_row(self._find, self._jobs, cells.get(names["job"]), "unknown job")
        decision = _decision(cells.get(names["decision"]), self._words) if "decision" in names else -1
        reward = self._reward(cells, decision)
        times = self._times(cells)
        shown, unknown = self._shown(cells, job) if "shown" in names else ((), ())
        propensity = (
            propensity_in(cells.get(names["propensity"]), self._notation) if "propensity" in names else math.nan
        )
        is_test = is_test_in(cells.get(names["split"])) if "split" in names else False
        is_moving = False
        if "moving" in names:
            is_moving = yes_in(cells.get(names["moving"]), "moving that is neither yes nor no")
        for name, read in times.items():
            self._forms.setdefault(name, read.form)
        time = times["time"].value if "time" in times else math.nan
        return _Row(applicant, job, decision, reward, time, shown, unknown, propensity, is_test, is_moving)

    def _cell(self, cells: Mapping[str, Any], name: str) -> Any:
        """The cell of a field; ``None`` if it says nothing."""
        cell = cells.get(self._names[name]) if name in self._names else None
        return None if is_nothing(cell) else cell

    def _reward(self, cells: Mapping[str, Any], decision: int) -> float:
        cell = self._cell(cells, "reward")
        if cell is not None:
            return reward_in(cell, self._notation)
        return math.nan if decision < 0 else float(self._worth[decision])

    def _times(self, cells: Mapping[str, Any]) -> dict[str, Time]:
        """The row's ``time`` and ``posted``, as far as it has them."""
        found: dict[str, Time] = {}
        for name, kind in TIMES.items():
            cell = self._cell(cells, name)
            if cell is not None:
                found[name] = time_in(cell, kind, self._notation)
            elif name == "time" and "time" in self._names:
                raise BadCell(kind, cells.get(self._names["time"]))
        forms = [*self._forms.values(), *(time.form for time in found.values())]
        for name, time in found.items():
            error = difference_of(time.form, self._forms.get(name, time.form))
            # Zones are compared within each column alone, because a posting is often a mere day.
            if "number" in (time.form, forms[0]):
                error = difference_of(time.form, forms[0])
            if error is not None:
                raise BadCell(error, self._cell(cells, name))
        if len(found) == 2 and _is_before(found["time"], found["posted"]):
            raise BadCell("time before the posting", self._cell(cells, "time"))
        return found

    def _shown(self, cells: Mapping[str, Any], job: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The rows of the jobs that were shown, including the recommended ``job``, and unknown jobs that were shown."""
        listed = jobs_in(cells.get(self._names["shown"]), self._separator, self._jobs)
        shown: list[int] = []
        unknown: list[str] = []
        for one in listed:
            try:
                shown.append(found_row(self._find, self._jobs, one, "unknown job among those shown"))
            except BadCell:
                check_id(one, self._ids, "shown job")
                if not self._skips_unknown:
                    raise
                unknown.append(str(one))
        if len(set(shown)) < len(shown):
            raise BadCell("the same job shown twice", self._cell(cells, "shown"))
        if job not in shown:
            raise BadCell("recommended job not among those shown", self._cell(cells, "job"))
        return tuple(shown), tuple(unknown)


def _is_before(time: Time, other: Time) -> bool:
    """Whether a time is before another one. A day is before it if the whole day is."""
    return time.value + DAY <= other.value if time.is_day else time.value < other.value


def _read(
    table: Table,
    market: LabourMarket,
    names: Mapping[str, str],
    reader: _RowReader,
    ids: Ids,
    on_bad: OnBad,
    notation: Notation,
) -> Interactions:
    rows, bad = _Columns(), BadRows()
    seen: set[bytes] = set()
    for number, cells in table.rows:
        try:
            row = reader.row(cells)
            posted = cells.get(names["posted"]) if "posted" in names else None
            same = _digest(row.applicant, row.job, row.time) if "time" in names else _digest(*_parts(row), str(posted))
            if same in seen:
                raise BadCell(_TWICE, f"{market.applicants.keys[row.applicant]}, {market.jobs.keys[row.job]}")
            seen.add(same)
            rows.add(row)
        except BadCell as error:
            bad.add(error.kind, number, error.cell)
            if error.kind == _UNKNOWN_DECISION:
                bad.add_word(error.cell)
    if bad.n:
        n = sum(bad.n.values())
        found = f"{table.file}: {n:,} of {len(table.rows):,} rows are impossible: {bad.text()}."
        if _TWICE in bad.n:
            found += f" A row is one recommendation with its answer. {_ROWS_ARE_EVENTS}"
        if on_bad == "raise" or not rows:
            hint = f"{bad.ways_out(market, ids, notation)}{way_to_times(bad, table, names, notation)}"
            if _UNKNOWN_DECISION in bad.n:
                hint += (
                    f" Decisions are {', '.join(DECISIONS)}; say what other words mean, {bad.mapping(DECISIONS)}. "
                    f"{_ROWS_ARE_EVENTS}"
                )
            way_out = " `on_bad='skip'` leaves them out." if rows else " No row is left."
            raise LogError(f"{found}{hint}{way_out}")
        logger.warning("%s They were left out.", found)
    if not rows:
        raise LogError(f"{table.file} has no rows.")
    return _assembled(table, market, rows, names)


def _assembled(table: Table, market: LabourMarket, rows: _Columns, names: Mapping[str, str]) -> Interactions:
    reward = np.array(rows.of["reward"], dtype=np.float64)
    n_silent = int(np.isnan(reward).sum())
    if n_silent == len(rows):
        raise LogError(
            f"{table.file}: none of the {len(rows):,} rows has an answer (decision or reward), so nothing can be "
            "learned or estimated from them."
        )
    if n_silent:
        logger.warning("%s: %d of %d rows have no answer; they are kept without one.", table.file, n_silent, len(rows))
    if rows.unknown:
        _tell_what_sets_lack(table, rows.unknown, rows.n_smaller, len(rows), "propensity" in names)
    people = np.array(rows.of["applicant"], dtype=np.int64)
    has_propensities = "propensity" in names and not rows.unknown
    return Interactions(
        market,
        people,
        np.array(rows.of["job"], dtype=np.int64),
        reward,
        decision=np.array(rows.of["decision"], dtype=np.int8),
        held_out=np.array(rows.of["split"], dtype=bool) if "split" in names else market.applicants.held_out[people],
        time=np.array(rows.of["time"], dtype=np.float64) if "time" in names else None,
        propensity=np.array(rows.of["propensity"], dtype=np.float64) if has_propensities else None,
        shown_offsets=np.array(rows.offsets, dtype=np.int64) if "shown" in names else None,
        shown_ids=np.array(rows.shown, dtype=np.int64) if "shown" in names else None,
        moving=rows.moving,
    )


def _tell_what_sets_lack(
    table: Table, unknown: Collection[str], n_smaller: int, n_rows: int, has_propensities: bool
) -> None:
    """Logs how many candidate sets lack which unknown jobs, and that the log therefore has no propensities."""
    named = ", ".join(f"{job!r:.60}" for job in islice(unknown, _NAMED))
    logger.warning(
        "%s: %s of %s candidate sets %s without the jobs that the market lacks: %s %s, %s%s.%s",
        *(table.file, f"{n_smaller:,}", f"{n_rows:,}", "is" if n_smaller == 1 else "are"),
        *(f"{len(unknown):,}", "job" if len(unknown) == 1 else "jobs"),
        *(named, ", ..." if len(unknown) > _NAMED else "", WITHOUT_PROPENSITIES if has_propensities else ""),
    )


def _columns_of(table: Table, columns: Mapping[str, str]) -> dict[str, str]:
    of_events = set(EVENT_FIELDS) - set(LOG_FIELDS)
    if isinstance(columns, Mapping) and (named := [name for name in columns if name in of_events]):
        raise LogError(f"`columns` names {named[0]!r}, which only events have. {_ROWS_ARE_EVENTS}")
    found = columns_of(table, columns, LOG_FIELDS, ("applicant", "job"))
    if not found.keys() & {"decision", "reward"}:
        perhaps = proposed_columns_of_log(table, found, ["decision"])
        example = dict(columns) | perhaps if perhaps else {"reward": "clicked"}
        raise LogError(
            f"{no_such_column(table.file, 'decision', table.header)} A log needs 'decision', 'reward' or both: say "
            f"which columns they are, e.g. `columns={example!r}`. {_ROWS_ARE_EVENTS}"
        )
    refuse_near_columns(table, found, LOG_FIELDS)
    return found


def _words(decisions: Mapping[str, str | None] | None) -> dict[str, int]:
    places = {decision: place for place, decision in enumerate(DECISIONS)}
    if decisions is not None and not isinstance(decisions, Mapping):
        raise LogError(f"`decisions` must map words to decisions, `{{'applied': 'apply'}}`, got {decisions!r:.80}.")
    places_of_words = dict(places)
    for word, decision in (decisions or {}).items():
        if not isinstance(decision, str) or decision not in places:
            hint = f" {_ROWS_ARE_EVENTS}" if decision in ("impression", None) else ""
            raise LogError(f"`decisions[{word!r}]` must be one of {DECISIONS}, got {decision!r}.{hint}")
        places_of_words |= dict.fromkeys(spellings_of(word), places[decision])
    return places_of_words


def _parts(row: _Row) -> tuple[Any, ...]:
    """All values of a row except for its time, for comparison."""
    return row.applicant, row.job, row.decision, row.shown, row.unknown, row.split, row.reward, row.propensity


def _digest(*values: Any) -> bytes:
    """16 bytes that are equal for equal values. NaN is equal to itself, and the numbers 0.0 and -0.0 are equal."""
    plain = [value + 0.0 if isinstance(value, float) else value for value in values]
    return hashlib.blake2b(repr(plain).encode(), digest_size=16).digest()


def _decision(cell: Any, words: Mapping[str, int]) -> int:
    """Number of a decision in ``DECISIONS``, -1 for none."""
    number = word_number(cell, words)
    if number is None and not is_nothing(cell):
        raise BadCell(_UNKNOWN_DECISION, cell)
    return -1 if number is None else number
