"""The dates of jobs, when they were posted and when they expire, and which jobs are open at a moment."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market.context import ContextTable
from jobrec_gym.market.tables import Population

__all__ = ["DATE_FIELDS", "DAY", "Dated", "compared_fields", "is_date", "moment_of", "open_jobs", "seconds_of"]

DATE_FIELDS = ("posted", "expires")
"""Names of the dates. A market keeps them among its context, as numbers that are not shown: they are no part of the
fingerprint, of ``"all"`` pair features, or of what a language model reads."""

DAY = 86_400.0
"""Seconds of a day."""
_DATE = re.compile(r"(\d{4}-?\d{2}-?\d{2}|\d{4}-?W\d{2}-?\d)(?:([T ].+)|(Z|[+-]\d{2}:\d{2}))?", re.ASCII)
"""A day, and either a time or, as XML writes it, a time zone: ``2026-11-30+01:00``. Python alone would read that zone
as a time of day, and the number 1701010800 as a day in 1701."""


class Dated(Protocol):
    """The parts of a market that hold dates; a :class:`~jobrec_gym.market.LabourMarket` has them all."""

    name: str
    jobs: Population
    context: Mapping[str, ContextTable]


def seconds_of(date: Any, *, through: bool = False) -> float:
    """A date as seconds since 1970; a date that names no time zone is in UTC.

    Args:
        date: A text in ISO 8601, such as ``"2026-11-30"`` or ``"2026-11-30T17:00+01:00"``; a day of a time zone,
            ``"2026-11-30+01:00"``; or a date or time of :mod:`datetime`. A number is refused, because nothing says
            whether it is seconds, milliseconds or days.
        through: Whether a date without a time of day stands for the end of that day. If not, it stands for
            the beginning.

    Raises:
        ValueError: For anything else.
    """
    moment, is_day = moment_of(date)
    begun = (moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)).timestamp()
    return begun + DAY if is_day and through else begun


def moment_of(date: Any) -> tuple[datetime.datetime, bool]:
    """The moment that a date of :func:`seconds_of` names, or the beginning of its day; and whether it is a day.

    Raises:
        ValueError: For anything else.
    """
    if isinstance(date, datetime.datetime):
        return date, False
    if isinstance(date, datetime.date):
        return datetime.datetime(date.year, date.month, date.day), True
    found = _DATE.fullmatch(date.strip().upper()) if isinstance(date, str) else None
    if found is None:
        raise ValueError(f"no date: {date!r:.80}")
    day, time, zone = found.groups()
    return datetime.datetime.fromisoformat(day + (time or f"T00:00{zone or ''}")), time is None


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
            "that is empty, or holds no dates in ISO 8601, does not count."
        )
    # A comparison with NaN, an unknown date, is False.
    is_open = np.ones(len(market.jobs), dtype=bool)
    if "posted" in dates:
        is_open &= ~(dates["posted"] > moment)
    if "expires" in dates:
        is_open &= ~(dates["expires"] <= moment)
    return is_open
