"""Joins the events of a site (shown, clicked, saved, applied) to a log with one row for each recommendation."""

from __future__ import annotations

import dataclasses
import logging
import math
import numbers
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.interactions import Interactions, LogError
from jobrec_gym.loaders.cells import is_nothing
from jobrec_gym.loaders.log_cells import (
    BadCell,
    BadRows,
    Ids,
    Notation,
    OnBad,
    OnUnknownShown,
    TimeForm,
    check_id,
    columns_of,
    difference_of,
    find_of,
    found_row,
    is_test_in,
    places_of,
    propensity_in,
    refuse_near_columns,
    spellings_of,
    time_in,
    way_to_times,
    word_number,
    yes_in,
)
from jobrec_gym.loaders.reading import Rows, Table
from jobrec_gym.market import LabourMarket
from jobrec_gym.near_miss import did_you_mean
from jobrec_gym.simulators.base import DECISIONS, decision_rewards

__all__ = ["EVENT_FIELDS", "EVENT_WORDS", "WITHOUT_PROPENSITIES", "Events", "WithoutImpression", "read_events"]

logger = logging.getLogger(__name__)

EVENT_FIELDS = ("applicant", "job", "event", "time", "set", "bot", "propensity", "split")
"""The fields that a row of events may have, see :class:`Events`."""

EVENT_WORDS = ("impression", *DECISIONS)
"""What an event may be. A log's own words are mapped to these by ``decisions=``; ``dismiss`` is read as ``ignore``."""

WITHOUT_PROPENSITIES = (
    " So the log gets no propensities: nobody knows the probability of the choice among fewer jobs. To keep "
    "propensities, leave such sets out: `on_unknown_shown='bad', on_bad='skip'`."
)
"""The end of the warning that candidate sets lack unknown jobs, for a log that has propensities."""

WithoutImpression = Literal["skip", "keep"]

_IMPRESSION = len(DECISIONS)
_NO_EVENT = -1
"""The number of a word that ``decisions=`` maps to ``None``."""
_UNKNOWN_EVENT = "unknown event"
_NO_SET = -1
_NOT_WHOLE = "recommendations of a set with an impossible event (`events={'sets': False}` keeps them, without sets"
_KEEPS_KNOWN = "; if the market lacks some jobs of a set, `on_unknown_shown='skip'` keeps the set without these jobs"
_PLURAL = re.compile(r"\b(event|recommendation)s\b")
_MOST_SHOWN = 1 << 28
"""The most entries of ``shown_ids``: 2 GiB of them."""

_NO_SECONDS = 1e11
"""Times of at least this size are hardly seconds since 1970: as seconds they would lie in the year 5138 or later."""

_Numbers = NDArray[np.int64]
_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Events:
    """How the events of a site become recommendations with one answer each; see ``load_interactions(events=)``.

    An impression, which is an event that says that a job was shown, opens a recommendation. Any other event counts for
    one impression of the same person and job that is not later than the event. If the event names a set, it counts for
    the latest such impression in this set. If it names no set, or if that set has no such impression, it counts for the
    latest of all such impressions. The answer is the strongest event that counts: ``ignore`` < ``click`` < ``save`` <
    ``apply``. An impression for which no event counts was ignored. The order of the file does not matter, and at equal
    times impressions come first.

    All jobs that a person was shown under one id (column ``set``) are the candidate set of each recommendation under
    this id. Impressions without an id are in one set if they have the same time. A job that is shown again under the
    same id is the same recommendation. If no set has a second job, the log does not say what else was shown, and
    recommendations get no sets.

    If an impression is left out as a bad row (``on_bad="skip"``), the events that count for it are left out too.

    In a log without any impression each pair of a person and a job is one recommendation, at the time of its first
    event.

    Attributes:
        window: How long after an impression events count for it, in the unit of ``time``: seconds if times are dates.
            ``None`` sets no limit.
        without_impression: What happens to events that have no impression, or none within the window. ``"skip"``
            leaves them out and counts them. ``"keep"`` makes recommendations of them. All such events of one person
            and one job become one recommendation, at the time of the first of these events. If an impression of this
            person and job lies between two of the events, for instance one whose window has ended, they become two
            recommendations. The set of such a recommendation is the job alone. Its propensity is 1 if the log has
            propensities.
        sets: Whether recommendations get candidate sets. If True, a set of which an impression was left out as a bad
            row is not whole, and all recommendations of that set are left out too. If the row is bad only because the
            market lacks its job, ``on_unknown_shown="skip"`` leaves only this job out of the set.

    Raises:
        LogError: For a value that is not allowed.
    """

    window: float | None = None
    without_impression: WithoutImpression = "skip"
    sets: bool = True

    def __post_init__(self) -> None:
        is_number = isinstance(self.window, numbers.Real) and not isinstance(self.window, bool)
        if self.window is not None and not (is_number and math.isfinite(self.window) and self.window >= 0):
            raise LogError(
                "`events.window` must be a finite number of at least 0, in the unit of `time` (seconds if times are "
                f"dates, 7 * 86_400 for a week), or None, got {self.window!r:.40}."
            )
        if self.without_impression not in get_args(WithoutImpression):
            allowed = get_args(WithoutImpression)
            raise LogError(
                f"`events.without_impression` must be one of {allowed}, got {self.without_impression!r:.40}."
                f"{did_you_mean(self.without_impression, allowed)}"
            )
        if not isinstance(self.sets, bool):
            raise LogError(f"`events.sets` must be True or False, got {self.sets!r:.40}.")

    @classmethod
    def of(cls, events: Events | Mapping[str, Any] | bool | None) -> Events | None:
        """The rules that the argument ``events`` of ``load_interactions`` means; ``None`` if rows are no events."""
        if events is None or isinstance(events, bool):
            return cls() if events else None
        if isinstance(events, Events):
            return events
        if not isinstance(events, Mapping):
            raise LogError(
                f"`events` must be True, or say how events are joined, `{{'window': 86_400}}`, got {events!r:.80}."
            )
        known = [field.name for field in dataclasses.fields(cls)]
        for name in events:
            if name not in known:
                raise LogError(
                    f"`events` may name {', '.join(map(repr, known))}, got {name!r:.80}.{did_you_mean(name, known)}"
                )
        return cls(**events)


def read_events(
    table: Table,
    market: LabourMarket,
    rules: Events,
    columns: Mapping[str, str] | None = None,
    *,
    ids: Ids = "key",
    decisions: Mapping[str, str | None] | None = None,
    rewards: Mapping[str, float] | None = None,
    on_bad: OnBad = "raise",
    on_unknown_shown: OnUnknownShown = "bad",
    notation: Notation = Notation(),  # noqa: B008  # frozen
) -> Interactions:
    """The log that a table of events makes, in the order of its recommendations' times.

    A warning of ``logging`` counts the events, the recommendations, and what was left out.

    Args:
        table: The events.
        market: The market of the people and jobs.
        rules: How events are joined.
        columns: Which column holds which of :data:`EVENT_FIELDS`; by default each is named like its field.
        ids: As in :func:`~jobrec_gym.loaders.interactions.load_interactions`, like the arguments below.
        decisions: The log's own words, mapped to :data:`EVENT_WORDS`. Events with a word that is mapped to ``None`` are
            left out.
        rewards: Rewards in place of those of the decisions.
        on_bad: Whether rows that are wrong raise an error, or are left out and counted.
        on_unknown_shown: Whether an impression of an unknown job, if it is left out, spoils its set.
        notation: How dates and numbers are written.

    Raises:
        LogError: As :func:`~jobrec_gym.loaders.interactions.load_interactions`.
    """
    names = columns_of(table, columns or {}, EVENT_FIELDS, ("applicant", "job", "event"))
    refuse_near_columns(table, names, EVENT_FIELDS)
    if rules.window is not None and "time" not in names:
        raise LogError(
            f"{table.file} has no column 'time', from which `events.window` is counted: say which it is, "
            "`columns={'time': ...}`, or leave `window` out."
        )
    worth = np.array([decision_rewards(rewards)[decision] for decision in DECISIONS])
    left_out: Counter[str] = Counter()
    found = _found(table, market, names, rules, ids, _words(decisions), on_bad, notation, left_out)
    if not found.has_impressions:  # only impressions have propensities
        names.pop("propensity", None)
    if rules.window is not None and not found.has_impressions:
        raise LogError(
            f"{table.file}: `events.window` is counted from impressions, and no event is an impression: say which word "
            "means one, `decisions={'shown': 'impression'}`, or leave `window` out."
        )
    if rules.window is not None and _are_days(found.time):
        raise LogError(
            f"{table.file}: `events.window` is in the unit of `time`, and times such as {found.time[0]:.0f} seem to be "
            "days: say `date_format='%Y%m%d'`. If they are mere numbers, subtract one and the same number from all."
        )
    joined = _joined(found, rules, left_out)
    skips_unknown = on_unknown_shown == "skip"
    log, n_smaller = _assembled(market, found, joined, rules, worth, names, skips_unknown, left_out)
    if not len(log):
        raise LogError(f"{table.file}: no recommendation is left; left out were {_listed(left_out)}.")
    logger.warning("%s", _told(table, names, rules, found, log, n_smaller, left_out))
    return log


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _Found:
    """The events of a file, without those that are left out or wrong.

    An impression stays among the events if its person, job and time are right and only another cell of it is wrong.
    Later events then count for it, and not for an earlier impression. Its recommendation is left out.

    Attributes:
        kind: int64 (n,), a place in ``DECISIONS``, or ``_IMPRESSION``.
        person, job: int64 (n,), rows of the market.
        pair: int64 (n,), a number for each person and job.
        time: float64 (n,); the order in the file if that has no times.
        set: int64 (n,), a number for each id of a set, ``_NO_SET`` where there is none.
        propensity: float64 (n,).
        is_test: bool (n,).
        is_lost: bool (n,), whether the event is an impression with a wrong cell.
        has_impressions: Whether any event of the file is an impression, even a wrong one.
        lost: The persons, sets and times of wrong impressions that are not among the events, and whether each is wrong
            only because the market lacks its job. Their sets are not whole. With ``on_unknown_shown="skip"`` unknown
            jobs do not count: a set that lacks only unknown jobs is whole.
    """

    kind: _Numbers
    person: _Numbers
    job: _Numbers
    pair: _Numbers
    time: NDArray[np.float64]
    set: _Numbers
    propensity: NDArray[np.float64]
    is_test: _Mask
    is_lost: _Mask
    has_impressions: bool
    lost: tuple[_Numbers, _Numbers, NDArray[np.float64], _Mask]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column's distinct cells, in the order of their first appearance, and each row's place among them (n,)."""

    distinct: list[Any]
    places: _Numbers

    @classmethod
    def of(cls, cells: Sequence[Any]) -> _Column:
        known: dict[Any, int] = {}
        distinct: list[Any] = []
        places = np.empty(len(cells), dtype=np.int64)
        for row, cell in enumerate(cells):
            # Not every cell can be a key of a dictionary, and True is equal to 1.
            key = cell if type(cell) is str else (type(cell), repr(cell))
            place = known.setdefault(key, len(distinct))
            if place == len(distinct):
                distinct.append(cell)
            places[row] = place
        return cls(distinct, places)


class _Checked:
    """The rows of a file that are still good, and the bad ones by kind."""

    def __init__(self, table: Table):
        rows = table.rows
        self.numbers = range(1, len(rows) + 1) if isinstance(rows, Rows) else [number for number, _ in rows]
        self.good = np.ones(len(rows), dtype=bool)
        self.bad = BadRows()

    def values(self, column: _Column, read: Callable[[Any], float], among: _Mask | None = None) -> NDArray[np.float64]:
        """The value (n,) of each row's cell, 0 for a wrong cell; a good row with a wrong cell becomes bad.

        If ``among`` is given, only the rows that it marks become bad.
        """
        values = np.zeros(len(column.distinct))
        complaints: dict[str, list[int]] = {}
        for place, cell in enumerate(column.distinct):
            try:
                values[place] = read(cell)
            except BadCell as error:
                complaints.setdefault(error.kind, []).append(place)
        for kind, places in complaints.items():
            is_wrong = np.zeros(len(column.distinct), dtype=bool)
            is_wrong[places] = True
            wrong = is_wrong[column.places]
            self.refuse(kind, column, wrong if among is None else wrong & among)
        return values[column.places]

    def refuse(self, kind: str, column: _Column, wrong: _Mask) -> None:
        """Makes good rows bad."""
        rows = np.flatnonzero(self.good & wrong)
        if len(rows):
            first = [(self.numbers[row], column.distinct[column.places[row]]) for row in rows[:3].tolist()]
            self.bad.add_all(kind, len(rows), first)
            self.good[rows] = False


def _found(
    table: Table,
    market: LabourMarket,
    names: Mapping[str, str],
    rules: Events,
    ids: Ids,
    words: Mapping[str, int],
    on_bad: OnBad,
    notation: Notation,
    left_out: Counter[str],
) -> _Found:
    """Reads the columns of a table, and counts in ``left_out`` what is left out."""
    n = len(table.rows)
    if not n:
        raise LogError(f"{table.file} has no rows.")
    columns = {name: _Column.of(table.column(column)) for name, column in names.items()}
    rows, find, places = _Checked(table), find_of(ids), places_of(market, ids)
    if "bot" in columns:
        is_bot = (
            rows.values(columns["bot"], lambda cell: yes_in(cell, "bot that is neither yes nor no", empty=False)) > 0
        )
        left_out["events of bots"] = int((is_bot & rows.good).sum())
        rows.good &= ~is_bot

    def event(cell: Any) -> int:
        number = word_number(cell, words)
        if number is None:
            rows.bad.add_word(cell)
            raise BadCell(_UNKNOWN_EVENT, cell)
        return number

    kind = rows.values(columns["event"], event).astype(np.int64)
    is_none = rows.good & (kind == _NO_EVENT)
    left_out["events that `decisions` maps to nothing"] = int(is_none.sum())
    rows.good &= ~is_none
    is_impression = rows.good & (kind == _IMPRESSION)
    person = rows.values(columns["applicant"], lambda cell: found_row(find, places[0], cell, "unknown person"))
    of_known = rows.good.copy()
    time = _times(rows, columns["time"], notation) if "time" in columns else np.arange(n, dtype=np.float64)
    at_known = rows.good.copy()
    rows.values(columns["job"], lambda cell: check_id(cell, ids, "job"))
    is_named = rows.good.copy()
    job = rows.values(columns["job"], lambda cell: found_row(find, places[1], cell, "unknown job"))
    can_open = rows.good.copy()
    propensity = np.ones(n)
    if "propensity" in columns:
        propensity = rows.values(columns["propensity"], lambda cell: propensity_in(cell, notation), is_impression)
    is_test = np.zeros(n, dtype=bool)
    if "split" in columns:
        only_impressions = rules.without_impression == "skip" and is_impression.any()
        is_test = rows.values(columns["split"], is_test_in, is_impression if only_impressions else None) > 0
    sets = np.full(n, _NO_SET)
    if "set" in columns:
        known: dict[str, int] = {}
        sets = rows.values(columns["set"], lambda cell: _set_number(cell, known)).astype(np.int64)

    if n_bad := sum(rows.bad.n.values()):
        if on_bad == "raise" or not rows.good.any():
            raise LogError(_complaint(table, market, rows, n_bad, ids, names, notation))
        left_out[f"impossible events ({rows.bad.text()})"] = n_bad
    if not rows.good.any():
        raise LogError(f"{table.file}: no event is left; left out were {_listed(left_out)}.")
    is_lost = is_impression & ~rows.good
    kept = rows.good | (is_lost & can_open)
    elsewhere = is_lost & ~can_open & (at_known | (of_known & (sets != _NO_SET)))
    people, jobs = person.astype(np.int64), job.astype(np.int64)
    return _Found(
        kind=kind[kept],
        person=people[kept],
        job=jobs[kept],
        pair=people[kept] * len(market.jobs) + jobs[kept],
        time=time[kept],
        set=sets[kept],
        propensity=propensity[kept],
        is_test=is_test[kept],
        is_lost=is_lost[kept],
        has_impressions=bool(is_impression.any()),
        lost=(people[elsewhere], sets[elsewhere], time[elsewhere], is_named[elsewhere]),
    )


def _complaint(
    table: Table,
    market: LabourMarket,
    rows: _Checked,
    n_bad: int,
    ids: Ids,
    names: Mapping[str, str],
    notation: Notation,
) -> str:
    hint = f"{rows.bad.ways_out(market, ids, notation)}{way_to_times(rows.bad, table, names, notation)}"
    if _UNKNOWN_EVENT in rows.bad.n:
        hint += (
            f" Events are {EVENT_WORDS[0]} (a job was shown), "
            f"{', '.join(EVENT_WORDS[1:])}, or None to leave them out; say what other words mean, "
            f"{rows.bad.mapping(EVENT_WORDS)}."
        )
    way_out = " `on_bad='skip'` leaves them out." if rows.good.any() else " No row is left."
    return f"{table.file}: {n_bad:,} of {len(table.rows):,} events are impossible: {rows.bad.text()}.{hint}{way_out}"


def _words(decisions: Mapping[str, str | None] | None) -> dict[str, int]:
    """The number of each word of an event."""
    numbers_ = {decision: number for number, decision in enumerate(DECISIONS)}
    numbers_ |= {"impression": _IMPRESSION, "dismiss": numbers_["ignore"]}
    if decisions is not None and not isinstance(decisions, Mapping):
        raise LogError(f"`decisions` must map words to events, `{{'applied': 'apply'}}`, got {decisions!r:.80}.")
    words = dict(numbers_)
    for word, event in (decisions or {}).items():
        if event is not None and (not isinstance(event, str) or event not in numbers_):
            raise LogError(
                f"`decisions[{word!r}]` must be one of {EVENT_WORDS}, or None to leave such events out, got "
                f"{event!r:.80}.{did_you_mean(event, EVENT_WORDS)}"
            )
        words |= dict.fromkeys(spellings_of(word), _NO_EVENT if event is None else numbers_[event])
    return words


def _times(rows: _Checked, column: _Column, notation: Notation) -> NDArray[np.float64]:
    """The times (n,). Numbers, dates, and dates with a time zone cannot be put in order with one another."""
    known: tuple[TimeForm, ...] = get_args(TimeForm)
    forms: list[int] = []  # of each distinct cell, a place in `known`

    def read(cell: Any) -> float:
        forms.append(known.index("number"))
        if is_nothing(cell):
            raise BadCell("no time", cell)
        time = time_in(cell, "no time", notation)
        forms[-1] = known.index(time.form)
        return time.value

    time = rows.values(column, read)
    form = np.array(forms)[column.places]
    if rows.good.any():
        of_all = known[form[rows.good.argmax()]]  # the first good row decides
        for place, other in enumerate(known):
            if error := difference_of(other, of_all):
                rows.refuse(error, column, form == place)
    return time


def _set_number(cell: Any, known: dict[str, int]) -> int:
    return _NO_SET if is_nothing(cell) else known.setdefault(str(cell).strip().removesuffix(".0"), len(known))


# -------------------------------------------------------------------------------------------------------------- joining


@dataclass(frozen=True, slots=True)
class _Joined:
    """The m recommendations, in the order of their times.

    Attributes:
        event: int64 (m,), the event that opened each recommendation: its impression, or without one its first event.
        decision: int64 (m,), a place in ``DECISIONS``.
        is_alone: bool (m,), whether the recommendation has no impression.
    """

    event: _Numbers
    decision: _Numbers
    is_alone: _Mask


def _joined(found: _Found, rules: Events, left_out: Counter[str]) -> _Joined:
    n = len(found.kind)
    # At equal times right impressions come before lost ones, and otherwise the order of the file counts.
    in_time = np.lexsort((found.is_lost, found.time))
    is_open = found.kind == _IMPRESSION
    # Of equal events, and of impressions of one job in one set, only the first one counts.
    first = _is_first(in_time, found.pair, found.kind, found.time, found.set)
    left_out["events that came twice"] = int((~first & ~found.is_lost).sum())
    again = is_open & first & (found.set != _NO_SET) & ~_is_first(in_time, found.pair, found.set, found.kind)
    left_out["events of a job that was shown again in the same set"] = int((again & ~found.is_lost).sum())
    counts = first & ~again
    is_open &= counts
    is_answer = counts & ~is_open

    latest = _latest(found.time, is_open, is_answer, found.pair)
    in_set = found.set != _NO_SET
    same = _latest(found.time, is_open & in_set, is_answer & in_set, found.pair, found.set)
    # An event that names a set with an impression counts for no other impression, even if it comes too late.
    of = np.where(same >= 0, same, latest)
    if rules.window is not None:
        of[found.time - found.time[of] > rules.window] = -1
    lonely = is_answer & (of < 0)
    is_alone = np.zeros(n, dtype=bool)
    if rules.without_impression == "keep" or not found.has_impressions:
        rows = np.flatnonzero(lonely)
        opened, group = _first_of_each(rows[np.argsort(found.time[rows], kind="stable")], found.pair, latest)
        of[rows] = opened[group[rows]]
        is_alone[opened] = True
    else:
        left_out["events without an earlier impression"] = int((lonely & (latest < 0)).sum())
        left_out["events later than `window` after the impression"] = int((lonely & (latest >= 0)).sum())
    decision = np.zeros(n, dtype=np.int64)
    answers = np.flatnonzero(is_answer & (of >= 0))
    left_out["events that would answer an impossible impression"] = int(found.is_lost[of[answers]].sum())
    np.maximum.at(decision, of[answers], found.kind[answers])
    event = in_time[(is_open | is_alone)[in_time]]
    return _Joined(event, decision[event], is_alone[event])


def _groups(*keys: NDArray[Any]) -> _Numbers:
    """A number (n,) for each row, equal where all keys (n,) are equal."""
    order = np.lexsort(keys)
    changes = np.zeros(len(order), dtype=bool)
    for key in keys:
        changes[1:] |= key[order][1:] != key[order][:-1]
    groups = np.empty(len(order), dtype=np.int64)
    groups[order] = np.cumsum(changes)
    return groups


def _first_of_each(rows: _Numbers, *keys: NDArray[Any]) -> tuple[_Numbers, _Numbers]:
    """The first of ``rows`` (m,) for each value of the keys; and for each row (n,) the place of its value, or -1."""
    groups = _groups(*(key[rows] for key in keys))
    _, places = np.unique(groups, return_index=True)
    group = np.full(len(keys[0]), -1)
    group[rows] = groups
    return rows[places], group


def _is_first(order: _Numbers, *keys: NDArray[Any]) -> _Mask:
    """Whether each row (n,) is the first of its keys in an order."""
    is_first = np.zeros(len(order), dtype=bool)
    is_first[_first_of_each(order, *keys)[0]] = True
    return is_first


def _latest(time: NDArray[np.float64], is_open: _Mask, is_answer: _Mask, *keys: NDArray[Any]) -> _Numbers:
    """For each answer the latest opening event of the same keys that is not later than it; -1 if none is, (n,)."""
    rows = np.flatnonzero(is_open | is_answer)
    groups = _groups(*(key[rows] for key in keys))
    order = np.lexsort((is_answer[rows], time[rows], groups))
    rows, groups = rows[order], groups[order]
    last = np.maximum.accumulate(np.where(is_open[rows], np.arange(len(rows)), -1))
    is_theirs = is_answer[rows] & (last >= 0) & (groups[last] == groups)
    latest = np.full(len(time), -1)
    latest[rows[is_theirs]] = rows[last[is_theirs]]
    return latest


def _assembled(
    market: LabourMarket,
    found: _Found,
    joined: _Joined,
    rules: Events,
    worth: NDArray[np.float64],
    names: Mapping[str, str],
    skips_unknown: bool,
    left_out: Counter[str],
) -> tuple[Interactions, int]:
    """The log, and the number of its recommendations whose set lacks unknown jobs."""
    offsets = shown = None
    kept = ~found.is_lost[joined.event]
    group, is_whole, is_smaller = _sets(found, joined, skips_unknown)
    has_sets = rules.sets and (np.bincount(group[kept], minlength=1).max() > 1 or is_smaller[kept].any())
    if has_sets:
        way_to_known = _KEEPS_KNOWN if found.lost[3].any() and not skips_unknown else ""
        left_out[f"{_NOT_WHOLE}{way_to_known})"] = int((kept & ~is_whole).sum())
        kept &= is_whole
    joined = _Joined(joined.event[kept], joined.decision[kept], joined.is_alone[kept])
    if has_sets:
        offsets, shown = _shown(found.job[joined.event], _groups(group[kept]))
    event = joined.event
    people = found.person[event]
    n_smaller = int(is_smaller[kept].sum()) if has_sets else 0
    has_propensities = "propensity" in names and not n_smaller
    log = Interactions(
        market,
        people,
        found.job[event],
        reward=worth[joined.decision],
        decision=joined.decision.astype(np.int8),
        held_out=found.is_test[event] if "split" in names else market.applicants.held_out[people],
        time=found.time[event] if "time" in names else None,
        propensity=np.where(joined.is_alone, 1.0, found.propensity[event]) if has_propensities else None,
        shown_offsets=offsets,
        shown_ids=shown,
    )
    return log, n_smaller


def _sets(found: _Found, joined: _Joined, skips_unknown: bool) -> tuple[_Numbers, _Mask, _Mask]:
    """The number (m,) of each recommendation's set, and whether that set is whole and whether it is smaller, bool (m,).

    A set is not whole if an impression of it is lost. It is smaller, and may be whole, if unknown jobs are left out.
    """
    event, m = joined.event, len(joined.event)
    *lost, is_unknown = found.lost
    people, sets, time = (
        np.concatenate([of_all[event], of_lost])
        for of_all, of_lost in zip((found.person, found.set, found.time), lost, strict=True)
    )
    # Equal ids make a set; without ids equal times do. A recommendation without an impression is a set of its own.
    kind = (sets == _NO_SET).astype(np.int64)
    value = np.where(sets == _NO_SET, time, sets)
    kind[:m][joined.is_alone] = 2
    value[:m][joined.is_alone] = np.flatnonzero(joined.is_alone)
    group = _groups(kind, people, value)
    is_left_out = np.append(np.zeros(m, dtype=bool), is_unknown & skips_unknown)
    is_lost = np.append(found.is_lost[event], np.ones(len(group) - m, dtype=bool)) & ~is_left_out
    return _groups(group[:m]), ~np.isin(group[:m], group[is_lost]), np.isin(group[:m], group[is_left_out])


def _shown(jobs: _Numbers, group: _Numbers) -> tuple[_Numbers, _Numbers]:
    """The offsets (m + 1,) and ids of the jobs that were shown in each row, from the rows' jobs and sets (m,)."""
    sizes = np.bincount(group)
    total = int((sizes**2).sum())
    if total > _MOST_SHOWN:
        raise LogError(
            f"a set of {sizes.max():,} jobs was shown to one person, which is hardly one decision, and all sets have "
            f"{total:,} entries, more than {_MOST_SHOWN:,}. Name another column that says what was shown together, "
            "`columns={'set': ...}`, or do without sets, `events={'sets': False}`."
        )
    offsets = np.concatenate(([0], np.cumsum(sizes[group])))
    members = np.argsort(group, kind="stable")
    starts = np.cumsum(sizes) - sizes
    places = np.arange(total) + np.repeat(starts[group] - offsets[:-1], sizes[group])
    return offsets, jobs[members[places]]


# -------------------------------------------------------------------------------------------------------------- telling


def _told(
    table: Table,
    names: Mapping[str, str],
    rules: Events,
    found: _Found,
    log: Interactions,
    n_smaller: int,
    left_out: Mapping[str, int],
) -> str:
    """The warning that says what became of the events."""
    counts = np.bincount(log.decision, minlength=len(DECISIONS))
    named = ", ".join(f"{counts[place]:,} {DECISIONS[place]}" for place in reversed(range(len(DECISIONS))))
    read, made = _listed({"events": len(table.rows)}), _listed({"recommendations": len(log)})
    line = f"{table.file}: {read} {'makes' if len(table.rows) == 1 else 'make'} {made} ({named})."
    if not found.has_impressions:
        line += (
            " No event is an impression, so each pair of a person and a job is one recommendation. Nothing follows "
            "from jobs that are not in the log, because nobody knows whether they were shown. If a word says that a "
            "job was shown, say `decisions={'shown': 'impression'}`."
        )
    elif log.shown_ids is not None:
        line += f" Shown together were {log.sizes.mean():.1f} jobs in the mean, and at most {log.sizes.max():,}."
    elif rules.sets:
        together = "under one id or at one time" if "set" in names else "at one time; a column `set` may say more"
        line += f" What was shown together is not known: nobody was shown two jobs {together}."
    if n_smaller:
        sets = "set of 1 recommendation is" if n_smaller == 1 else f"sets of {n_smaller:,} recommendations are"
        line += f" The candidate {sets} smaller, without the jobs that the market lacks."
        line += WITHOUT_PROPENSITIES if "propensity" in names else ""
    if rules.window is not None and (latest := np.abs(found.time).max()) >= _NO_SECONDS:
        line += f" `window` is in the unit of `time`, which is hardly seconds: times go up to {latest:,.0f}."
    if _are_days(found.time):
        line += (
            f" Times such as {found.time[0]:.0f} are read as mere numbers: say `date_format='%Y%m%d'` if they are days."
        )
    if "time" not in names:
        line += " There is no column 'time', so the events are taken in the order of the file."
    if listed := _listed(left_out):
        line += f" Left out: {listed}."
    if unread := [column for column in table.header if column not in names.values()]:
        line += f" Not read: {', '.join(map(repr, unread[:10]))}{', ...' if len(unread) > 10 else ''}."
    return line


def _are_days(times: NDArray[np.float64]) -> bool:
    """Whether all times are numbers that are written like days of the years 1900 to 2200, such as 20260101."""
    parts = ((times // 10_000, 1900, 2200), (times // 100 % 100, 1, 12), (times % 100, 1, 31))
    return all(bool(((part >= first) & (part <= last) & (part % 1 == 0)).all()) for part, first, last in parts)


def _listed(left_out: Mapping[str, int]) -> str:
    """The counts with what they count, which begins with a noun in the plural."""
    named = {what if n > 1 else _PLURAL.sub(r"\1", what, count=1): n for what, n in left_out.items() if n}
    return ", ".join(f"{n:,} {what}" for what, n in named.items())
