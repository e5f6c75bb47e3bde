"""The dates of jobs, when they were posted and when they expire, and which jobs are open at a moment."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market.context import ContextTable
from jobrec_gym.market.tables import MarketError, Population

__all__ = [
    "DATE_FIELDS",
    "DAY",
    "ISO_FORMAT",
    "DateFormat",
    "Dated",
    "compared_fields",
    "date_formats",
    "is_date",
    "moment_of",
    "open_jobs",
    "reason_against",
    "seconds_of",
    "usual_formats",
    "way_to_format",
]

DATE_FIELDS = ("posted", "expires")
"""Names of the dates. A market keeps them among its context, as numbers that are not shown: they are no part of the
fingerprint, of ``"all"`` pair features, or of what a language model reads."""

DAY = 86_400.0
"""Seconds of a day."""
_DATE = re.compile(r"(\d{4}-?\d{2}-?\d{2}|\d{4}-?W\d{2}-?\d)(?:([T ].+)|(Z|[+-]\d{2}:\d{2}))?", re.ASCII)
"""A day, and either a time or, as XML writes it, a time zone: ``2026-11-30+01:00``. Python alone would read that zone
as a time of day, and the number 1701010800 as a day in 1701."""

DateFormat = str | Sequence[str]
"""How dates are written: a format of :meth:`datetime.datetime.strptime`, or :data:`ISO_FORMAT`; or several of them. A
date must fit one of them, and may fit several if they all read the same moment."""

ISO_FORMAT = "ISO8601"
"""The name of ISO 8601 among date formats, as in pandas."""
_TIME_DIRECTIVES = frozenset("HIMSfp")
_REFUSED = {
    "Z": "the offset of a named time zone is not known. Write offsets into the file, +01:00, and say %z.",
    **dict.fromkeys("cxX", "it depends on the locale. Write the parts one by one, %d.%m.%Y %H:%M:%S."),
}
"""Directives that are refused, with the reason and the way out."""
_DAY_OF_DIGITS = re.compile(r"\d{5,}|\d+\Z")
"""A day without signs between day, month and year, at the begin of a text."""
_YEARS = range(1900, 2201)
"""The years that a day of digits alone may have."""
_SAMPLE = datetime.datetime(2027, 10, 29, 13, 45, 56, tzinfo=datetime.UTC)
"""A moment whose day, month, year and hour are different numbers."""
_PARTS = re.compile(
    r"(?P<day>(?P<first>\d{1,4})(?P<sign>[./-])\d{1,2}(?P=sign)(?P<last>\d{4}|\d{1,2}))(?!\d)(?P<time>.*)",
    re.ASCII | re.DOTALL,
)
"""A day that is written in numbers, and the text after it."""
_NAMED = re.compile(
    r"(?P<day>(?:[0-9]{1,2}\.?[ -])?[^\W\d_]{3,}[ -](?:[0-9]{1,2},? )?[0-9]{2,4})(?![0-9])(?P<time>.*)", re.DOTALL
)
"""A day with the name of its month, such as ``15 Mar 2026`` or ``March 15, 2026``, and the text after it."""
_NAMED_DAYS = (
    "%d {0} %Y",
    "%d {0} %y",
    "%d. {0} %Y",
    "%d. {0} %y",
    "%d-{0}-%Y",
    "%d-{0}-%y",
    "{0} %d, %Y",
    "{0} %d %Y",
)
"""The usual formats of such days, with a place for the directive of the month."""
_NAME_BEFORE_DIGIT = re.compile(r"[^\W\d_]{3,}\W*[0-9]")
_TIMES = {
    "": "",
    **{f"{gap}0:0": f"{gap}%H:%M" for gap in (" ", ", ", "T")},
    **{f"{gap}0:0:0": f"{gap}%H:%M:%S" for gap in (" ", ", ", "T")},
    **{f" 0:0 {half}": " %I:%M %p" for half in ("AM", "PM")},
    **{f" 0:0:0 {half}": " %I:%M:%S %p" for half in ("AM", "PM")},
    **{f"{gap}0:0 UHR": f"{gap}%H:%M Uhr" for gap in (" ", ", ")},
}
"""The usual times of day behind a day. A key is the text of the time in capitals, with ``0`` in place of each number;
its value is the format."""


class Dated(Protocol):
    """The parts of a market that hold dates; a :class:`~jobrec_gym.market.LabourMarket` has them all."""

    name: str
    jobs: Population
    context: Mapping[str, ContextTable]


def date_formats(date_format: DateFormat | None) -> tuple[str, ...]:
    """The formats that the argument ``date_format`` of a loader names, in their order; empty for ``None``.

    Raises:
        MarketError: For a format without day, month or year. For a time of day without an hour, or with an hour of a
            12-hour clock (``%I``) but no AM or PM (``%p``). For the name of a time zone (``%Z``), because Python reads
            such names without their offset. For ``%c``, ``%x`` and ``%X``, because what they stand for depends on the
            locale.
    """
    if date_format is None:
        return ()
    formats = (date_format,) if isinstance(date_format, str) else date_format
    if not isinstance(formats, Sequence) or not formats or not all(isinstance(one, str) for one in formats):
        raise MarketError(
            "`date_format` must be a format such as '%d.%m.%Y', a list of formats, or None for ISO 8601, got "
            f"{date_format!r:.80}."
        )
    for one in formats:
        _check_format(one)
    return tuple(formats)


def _check_format(written: str) -> None:
    if written == ISO_FORMAT:
        return
    for directive in _directives(written):
        if directive in _REFUSED:
            raise MarketError(f"`date_format` must not have %{directive}, got {written!r:.80}: {_REFUSED[directive]}")
    try:
        read = datetime.datetime.strptime(_SAMPLE.strftime(written), written)
    except (ValueError, re.error):  # an unknown or repeated directive, or text that cannot be read back
        read = datetime.datetime.min
    if read.date() != _SAMPLE.date() or (_has_time(written) and read.hour != _SAMPLE.hour):
        raise MarketError(
            "`date_format` must name day, month and year as `strptime` of Python does, such as '%d.%m.%Y' for "
            "31.12.2026; a time of day needs %H, or %I and %p, such as '%d.%m.%Y %H:%M'. It may also be "
            f"{ISO_FORMAT!r}. Got {written!r:.80}."
        )


def _directives(written: str) -> list[str]:
    return re.findall(r"%(.)", written.replace("%%", ""))


@lru_cache(maxsize=64)
def _has_time(written: str) -> bool:
    """Whether a format has a time of day."""
    return not _TIME_DIRECTIVES.isdisjoint(_directives(written))


def seconds_of(date: Any, *, through: bool = False, formats: Sequence[str] = ()) -> float:
    """A date as seconds since 1970; a date that names no time zone is in UTC.

    Args:
        date: A text in ISO 8601, such as ``"2026-11-30"`` or ``"2026-11-30T17:00+01:00"``; a day of a time zone,
            ``"2026-11-30+01:00"``; or a date or time of :mod:`datetime`. A number is refused, because nothing says
            whether it is seconds, milliseconds or days.
        through: Whether a date without a time of day stands for the end of that day. If not, it stands for
            the beginning.
        formats: The formats of :func:`date_formats`. If there are any, a text or a whole number, ``20261130``, must fit
            one of them. A day of digits alone must have all its zeros, and a year from 1900 to 2200.

    Raises:
        ValueError: For anything else, and for a date that two formats read as different moments.
    """
    moment, is_day = moment_of(date, formats)
    begun = (moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)).timestamp()
    return begun + DAY if is_day and through else begun


def moment_of(date: Any, formats: Sequence[str] = ()) -> tuple[datetime.datetime, bool]:
    """The moment that a date of :func:`seconds_of` names, or the beginning of its day; and whether it is a day.

    Raises:
        ValueError: For anything else, and for a date that two formats read as different moments.
    """
    if isinstance(date, datetime.datetime):
        return date, False
    if isinstance(date, datetime.date):
        return datetime.datetime(date.year, date.month, date.day), True
    if not formats:
        return _in_iso(date)
    readings = _readings(date, formats)
    if len(set(readings.values())) != 1:
        raise ValueError(f"no date, or several, in {list(formats)}: {date!r:.80}")
    return next(iter(readings.values()))


def _readings(date: Any, formats: Sequence[str]) -> dict[str, tuple[datetime.datetime, bool]]:
    """What a text or a whole number is by each of the formats that it fits, as in :func:`moment_of`."""
    text = _as_text(date)
    found = {}
    for written in formats:
        with contextlib.suppress(ValueError):
            found[written] = _in_iso(text) if written == ISO_FORMAT else _in_format(text, written)
    return found


def _as_text(date: Any) -> str:
    """A text without blanks around it, or the digits of a whole number; empty for anything else."""
    if isinstance(date, str):
        return date.strip()
    # JSON and Parquet may hold 20261130 as a number. If the column has gaps, the number may be a float.
    is_whole = not isinstance(date, bool) and (isinstance(date, int) or (isinstance(date, float) and date % 1 == 0))
    return str(int(date)) if is_whole else ""


def _in_format(text: str, written: str) -> tuple[datetime.datetime, bool]:
    moment = datetime.datetime.strptime(text, written)
    digits = _DAY_OF_DIGITS.match(text)
    if digits is not None:
        # `strptime` also reads 1122026, which has lost a zero, by %d%m%Y: as 11 February in place of 1 December.
        expected = _DAY_OF_DIGITS.match(moment.strftime(written))
        if moment.year not in _YEARS or expected is None or expected[0] != digits[0]:
            raise ValueError(f"digits that are not written as {written!r} says: {text!r:.80}")
    return moment, not _has_time(written)


def reason_against(date: Any, formats: Sequence[str]) -> str:
    """Why given formats do not read a date, and the way out; empty if the only reason is that none of them fits.

    Args:
        date: A cell that :func:`moment_of` refuses.
        formats: The formats of :func:`date_formats`.

    Returns:
        Sentences with a blank before them; empty if nothing is to be said.

    Example:
        >>> reason_against("01/02/2026", ["%d/%m/%Y", "%m/%d/%Y"])
        " It is 2026-02-01 by '%d/%m/%Y' and 2026-01-02 by '%m/%d/%Y': give one of these formats, or write such dates \
in ISO 8601."
    """
    readings = _readings(date, formats)
    said = [f"{moment.date() if is_day else moment} by {written!r}" for written, (moment, is_day) in readings.items()]
    if said:
        return f" It is {' and '.join(said)}: give one of these formats, or write such dates in ISO 8601."
    if _DAY_OF_DIGITS.match(_as_text(date)) and any(_fits(_as_text(date), one) for one in formats):
        return (
            " A day of digits alone must have all its zeros, such as 01122026 by '%d%m%Y', and a year from "
            f"{_YEARS[0]} to {_YEARS[-1]}. If a spreadsheet dropped zeros, write the column as text."
        )
    return ""


def _in_iso(date: Any) -> tuple[datetime.datetime, bool]:
    found = _DATE.fullmatch(date.strip().upper()) if isinstance(date, str) else None
    if found is None:
        raise ValueError(f"no date: {date!r:.80}")
    day, time, zone = found.groups()
    return datetime.datetime.fromisoformat(day + (time or f"T00:00{zone or ''}")), time is None


def way_to_format(cells: Iterable[Any]) -> str:
    """What to say about a column with dates that cannot be read: the ``date_format`` that fits them all.

    Args:
        cells: The cells of the column, as in :func:`usual_formats`.

    Returns:
        A sentence with a blank before it. It names the usual formats that fit, more than one if the dates are
        ambiguous, or says that no single one fits.

    Example:
        >>> way_to_format(["31.12.2026", "01.02.2027"])
        " Say `date_format='%d.%m.%Y'`, which fits all dates of the column."
    """
    texts = [cell for cell in cells if isinstance(cell, str)]
    fitting = usual_formats(texts)
    said = [f"`date_format={one!r}`" for one in fitting]
    if len(fitting) == 1:
        return f" Say {said[0]}, which fits all dates of the column."
    if fitting:
        return (
            f" The order of day, month and year is ambiguous: {', '.join(said[:-1])} and {said[-1]} fit all dates of "
            "the column; say the one that is meant."
        )
    way = (
        " No single usual form fits all dates of the column: say how they are written, for example "
        "`date_format='%d.%m.%Y'` for 31.12.2026, or several forms, `date_format=['%d.%m.%Y', 'ISO8601']`."
    )
    if any(map(_NAME_BEFORE_DIGIT.search, texts)):
        way += (
            " Names of months are read in the language of the locale, which is English unless your program sets "
            "another. Months in numbers, 15.03.2026, are read with any locale."
        )
    return way


def usual_formats(cells: Iterable[Any]) -> list[str | list[str]]:
    """The usual date formats that fit all cells. There is none if all dates are in ISO 8601 already.

    Args:
        cells: The cells of a column. Texts without a digit, and cells that are no texts, are ignored.

    Returns:
        Values of ``date_format``: one, or more if the dates are ambiguous, or none. A value is a list if some dates
        have a time of day and some have none, or if some are in ISO 8601. If points separate the numbers, the day is
        read first. Months may have names, in full (``%B``) or three letters of them (``%b``).
    """
    texts = {cell.strip() for cell in cells if isinstance(cell, str) and any(map(str.isdigit, cell))}
    days: dict[str, re.Match[str]] = {}  # the parts of each distinct day
    times: dict[str, str] = {}  # the format of each distinct time of day
    has_iso = False
    for text in texts:
        try:
            _in_iso(text)
            has_iso = True
        except ValueError:
            found = _PARTS.fullmatch(text) or _NAMED.fullmatch(text)
            time = None if found is None else _TIMES.get(re.sub(r"\d{1,2}", "0", found["time"]).upper())
            if found is None or time is None:
                return []
            days[found["day"]] = found
            times[found["time"]] = time
    if not days or not all(_fits(text, time) for text, time in times.items()):
        return []
    common = set.intersection(*map(_usual_days, days.values()))
    # "May" is a whole name and three letters of it.
    common -= {one.replace("%b", "%B") for one in common if "%b" in one}
    ends = [ISO_FORMAT] if has_iso else []
    listed = [[*(day + time for time in sorted(set(times.values()))), *ends] for day in sorted(common)]
    return [one[0] if len(one) == 1 else one for one in listed]


def _usual_days(parts: re.Match[str]) -> set[str]:
    """The usual formats that fit a day, from its match of ``_PARTS`` or ``_NAMED``."""
    day = parts["day"]
    if parts.re is _NAMED:
        named = {order.format(month) for order in _NAMED_DAYS for month in ("%b", "%B")}
        return {one for one in named if _fits(day, one)}
    first, sign, last = parts["first"], parts["sign"], parts["last"]
    if len(first) == 4:
        orders = ["%Y{0}%m{0}%d"]
    else:
        year = "%Y" if len(last) == 4 else "%y"
        orders = ["%d{0}%m{0}" + year]
        if sign != ".":
            orders += ["%m{0}%d{0}" + year, *(["%y{0}%m{0}%d"] if year == "%y" else [])]
    formats = {order.format(sign) for order in orders}
    return {one for one in formats if _fits(day, one)}


def _fits(text: str, written: str) -> bool:
    try:
        datetime.datetime.strptime(text, written)
    except ValueError:
        return False
    return True


def is_date(name: str, table: ContextTable) -> bool:
    """Whether a field of the context is one of the :data:`DATE_FIELDS`, and not a user's own field of that name."""
    return name in DATE_FIELDS and table.kind == "number" and not table.shown


def compared_fields(market: Dated) -> dict[str, ContextTable]:
    """The fields of a market's context that both sides have, by name: all but the dates of jobs."""
    return {name: table for name, table in market.context.items() if not is_date(name, table)}


def open_jobs(market: Dated, open_at: Any) -> NDArray[np.bool_]:
    """Which jobs are posted and not expired at a moment. An unknown date closes no job.

    Args:
        market: The market of the jobs.
        open_at: The moment, as in :func:`seconds_of`; a date without a time of day is the beginning of that day.

    Returns:
        bool (n_jobs,).

    Raises:
        ValueError: If ``open_at`` is no date, or if no job of the market has a date.
    """
    try:
        moment = seconds_of(open_at)
    except ValueError:
        raise ValueError(
            "`open_at` must be a date such as '2026-11-30' or '2026-11-30T17:00+01:00' (ISO 8601), or None, got "
            f"{open_at!r:.80}."
        ) from None
    dates = {name: table.columns()[1] for name, table in market.context.items() if is_date(name, table)}
    if not dates:
        raise ValueError(
            f"`open_at` needs the dates of jobs, and market {market.name!r} has none: load its files with "
            "`columns={'jobs': {'posted': 'their column', 'expires': 'their column'}}`, one of them or both. A column "
            "that is empty, or holds no dates, does not count. Dates that are not in ISO 8601 need `date_format`."
        )
    # A comparison with NaN, an unknown date, is False.
    is_open = np.ones(len(market.jobs), dtype=bool)
    if "posted" in dates:
        is_open &= ~(dates["posted"] > moment)
    if "expires" in dates:
        is_open &= ~(dates["expires"] <= moment)
    return is_open
