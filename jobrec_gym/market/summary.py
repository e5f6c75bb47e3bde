"""What was understood of a market's source, in five lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from jobrec_gym.market.tables import BLOCKS, SENIORITY_LEVELS, Population, Profile, Vocabulary

__all__ = ["Summarised", "summarise"]

_SKILLS_SHOWN = 5
_WIDTH = 60
_SAMPLE = 1_000  # rows of free texts whose lengths are counted


class Summarised(Protocol):
    """The parts of a market that a summary needs; a :class:`~jobrec_gym.market.LabourMarket` has them all."""

    name: str
    applicants: Population
    jobs: Population
    vocabulary: Vocabulary
    text_blocks: frozenset[str]
    left_out: tuple[str, ...]
    cut: tuple[str, ...]

    def job(self, job: int) -> Profile:
        """The words of a job."""
        ...

    def applicant(self, applicant: int) -> Profile:
        """The words of an applicant."""
        ...


def summarise(market: Summarised, sides: Sequence[str] = ("jobs", "applicants"), name: str | None = None) -> str:
    """Five lines: rows, skills per row, what was left out, what was cut, and the first row.

    Args:
        market: Any market.
        sides: Which sides are described.
        name: Name of the source; by default the market's name.
    """
    populations = {side: getattr(market, side) for side in sides}
    first = market.job(0) if sides[0] == "jobs" else market.applicant(0)
    return "\n".join(
        (
            f"{name or market.name}: {_joined(_rows(side, rows) for side, rows in populations.items())}",
            f"skills a row: {_joined(_skills(market, side, rows) for side, rows in populations.items())}",
            f"left out: {_joined(market.left_out) or 'nothing'}",
            f"cut: {_joined(market.cut) or 'nothing'}",
            f"first of the {sides[0]}: {_first(first)}",
        )
    )


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(parts)


def _rows(side: str, population: Population) -> str:
    n_test = int(np.count_nonzero(population.held_out))
    return f"{len(population):,} {side} ({len(population) - n_test:,} train, {n_test:,} test)"


def _skills(market: Summarised, side: str, population: Population) -> str:
    parts = []
    for block in BLOCKS:
        lists = getattr(population, f"{block}_skills")
        lengths = np.diff(lists.offsets)
        n = int(lengths.sum())
        if not n:
            parts.append(f"no {block}")
        elif block in market.text_blocks and lengths.max() == 1:
            words = getattr(market.vocabulary, f"{block}_skills")
            letters = np.mean([len(words[skill]) for skill in lists.ids[:_SAMPLE].tolist()])
            parts.append(f"{block} one free text of about {letters:,.0f} characters")
        else:
            parts.append(f"{n / len(population):.1f} {block} ({lengths.min()} to {lengths.max()})")
    return f"{side} {' and '.join(parts)}"


def _first(profile: Profile) -> str:
    parts = [f"{_shown(profile.key)!r}"]
    if profile.title:
        parts.append(_shown(profile.title))
    if profile.seniority:
        parts.append(SENIORITY_LEVELS[profile.seniority - 1])
    for block in BLOCKS:
        skills = getattr(profile, f"{block}_skills")
        if skills:
            more = f" and {len(skills) - _SKILLS_SHOWN} more" if len(skills) > _SKILLS_SHOWN else ""
            parts.append(f"{block}: {', '.join(map(_shown, skills[:_SKILLS_SHOWN]))}{more}")
    if profile.description:
        parts.append(f"described in {len(profile.description):,} characters")
    parts += [f"{name} {_shown(str(value))}" for name, value in profile.context.items()]
    return "; ".join(parts)


def _shown(text: str) -> str:
    """A text on one line, short, and without characters that a terminal would obey."""
    visible = "".join(character if character.isprintable() else " " for character in text[: 4 * _WIDTH])
    line = " ".join(visible.split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
