"""Samples people with careers as applicants, for sources that have only occupations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobrec_gym.loaders.assembly import Record, whole_number
from jobrec_gym.loaders.generated import OccupationTable, check_n_rows, experience_phrases, sample_applicants
from jobrec_gym.market import MarketError, SkillLists

__all__ = ["Occupation", "applicants_of", "jobs_of"]

_TYPICAL_SENIORITY = 3


@dataclass(frozen=True, slots=True)
class Occupation:
    """One occupation of a source.

    Attributes:
        key: The source's own code.
        name: Preferred title.
        hard: Hard skills.
        soft: Soft skills.
        titles: Other titles of people in this occupation.
        seniority: Typical level 1 to 5, 0 if the source does not say.
        family: Name of its family; may be empty.
        related: Keys of occupations that people come from; unknown ones are left out.
        where: Its place in the source, for messages.
    """

    key: str
    name: str
    hard: tuple[str, ...] = ()
    soft: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    seniority: int = 0
    family: str = ""
    related: tuple[str, ...] = ()
    where: str = ""


def jobs_of(occupations: Sequence[Occupation]) -> list[Record]:
    """One job for each occupation, which asks for all skills that the occupation needs."""
    return [
        Record(
            key=occupation.key,
            title=occupation.name,
            hard=occupation.hard,
            soft=occupation.soft,
            seniority=occupation.seniority,
            experience=_experience(occupation.family, occupation.seniority),
            occupation=occupation.name,
            family=occupation.family or None,
            where=occupation.where,
        )
        for occupation in occupations
    ]


def applicants_of(occupations: Sequence[Occupation], n: int, seed: int) -> list[Record]:
    """Samples people as :func:`~jobrec_gym.loaders.generated.sample_applicants` does; nobody among them is real.

    If most occupations list no soft skills, a person has only the soft skills of their own occupation: soft skills that
    no job asks for would only shorten the hard half of the vector.

    Args:
        occupations: The occupations of the people.
        n: How many people.
        seed: Seed of the people. Row ``i`` depends only on the seed and ``i``.

    Returns:
        (n,) records with keys ``A0000000``, ...; seniority 0 and no experience if the occupation's level is unknown.

    Raises:
        MarketError: For a number of people or a seed that is not allowed.
    """
    n, seed = whole_number("n_applicants", n), whole_number("seed", seed)
    if n < 1:
        raise MarketError(f"`n_applicants` must be at least 1, got {n}.")
    check_n_rows("n_applicants", n)
    titles = _Words()
    hard = _Words()
    soft = _Words()
    families = _Words()
    places = {occupation.key: place for place, occupation in enumerate(occupations)}
    table = OccupationTable(
        titles=SkillLists.from_rows([titles.ids((row.name, *row.titles)) for row in occupations]),
        family_ids=np.asarray([families.ids((row.family,))[0] for row in occupations], dtype=np.int64),
        seniority=np.asarray([row.seniority or _TYPICAL_SENIORITY for row in occupations], dtype=np.int64),
        hard=SkillLists.from_rows([hard.ids(row.hard) for row in occupations]),
        soft=SkillLists.from_rows([soft.ids(row.soft) for row in occupations]),
        related=SkillLists.from_rows([[places[k] for k in row.related if k in places] for row in occupations]),
    )
    rows = sample_applicants(table, n, seed)
    soft_is_rare = 2 * sum(bool(row.soft) for row in occupations) < len(occupations)
    records = []
    for i in range(n):
        occupation = occupations[int(rows.occupation_ids[i])]
        soft_ids = rows.soft_skills[i]
        if soft_is_rare:
            soft_ids = np.intersect1d(soft_ids, table.soft[int(rows.occupation_ids[i])])
        seniority = int(rows.seniority[i]) if occupation.seniority else 0
        records.append(
            Record(
                key=f"A{i:07d}",
                title=titles.words[int(rows.title_ids[i])],
                hard=tuple(hard.words[int(skill)] for skill in rows.hard_skills[i]),
                soft=tuple(soft.words[int(skill)] for skill in soft_ids),
                seniority=seniority,
                experience=_experience(occupation.family, seniority),
                occupation=occupation.name,
                family=occupation.family or None,
                where=f"sampled applicant {i}",
            )
        )
    return records


class _Words:
    """Gives each new word the next number."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._ids: dict[str, int] = {}

    def ids(self, words: Sequence[str]) -> list[int]:
        for word in words:
            if word not in self._ids:
                self._ids[word] = len(self.words)
                self.words.append(word)
        return [self._ids[word] for word in words]


def _experience(family: str, seniority: int) -> str:
    return experience_phrases([family])[seniority - 1] if family and seniority else ""
