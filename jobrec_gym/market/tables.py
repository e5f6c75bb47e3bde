"""The tables of a market: profiles, lists of skills, vocabulary, and one population for each side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.shown_text import without_commands

__all__ = [
    "BLOCKS",
    "DESCRIPTION_KEYS",
    "ROW_TABLES",
    "SENIORITY_LEVELS",
    "TABLE_KEYS",
    "MarketError",
    "Population",
    "Profile",
    "SkillLists",
    "Split",
    "Texts",
    "Vocabulary",
    "read_only",
    "view",
]

Split = Literal["train", "test", "all"]

BLOCKS = ("hard", "soft")
SENIORITY_LEVELS = ("entry", "junior", "professional", "senior", "lead")
"""Names of seniority 1 to 5."""

ROW_TABLES = ("keys", "title_ids", "experience_ids", "occupation_ids", "seniority", "held_out")
"""Tables of a :class:`Population` with one entry for each row."""

TABLE_KEYS = (*ROW_TABLES, *(f"{block}_{part}" for block in BLOCKS for part in ("offsets", "ids")))
"""All tables of a :class:`Population` except the vectors, by their names in :meth:`Population.tables`."""

DESCRIPTION_KEYS = ("description_offsets", "description_bytes")
"""Two more tables of a population that has descriptions."""


class MarketError(ValueError):
    """A market could not be built. The message names file, row and column, if there are any.

    Characters that a terminal obeys, as in the name of a foreign file, are spelt out in the message.
    """

    def __init__(self, message: str):
        super().__init__(without_commands(message))


@dataclass(frozen=True, slots=True)
class Profile:
    """The words of one applicant or one job.

    Attributes:
        key: The source's own identifier.
        title: Current or offered job title; may be empty.
        hard_skills: Skills that one is trained in.
        soft_skills: Skills of character and of working with others.
        seniority: 1 (entry) to 5 (lead), see :data:`SENIORITY_LEVELS`; 0 if the source does not say.
        experience: The experience that the applicant has or the job asks for, as a phrase; may be empty.
        occupation: The occupation's name, ``None`` if the source has none.
        family: The occupation's family, ``None`` if the source has none.
        description: The source's description in whole sentences; may be empty. Language models read it; no vector is
            made of it.
        context: Known values of the market's shown context fields, by field, such as ``{"place": "Berlin"}``; see
            :class:`~jobrec_gym.market.context.ContextField`.
        id: The row in the market's tables, which ``info`` and ``reset(options=...)`` also use; -1 for a profile that is
            not in a market. Profiles that differ only in ``id`` are equal.
    """

    key: str
    title: str
    hard_skills: tuple[str, ...]
    soft_skills: tuple[str, ...]
    seniority: int
    experience: str
    occupation: str | None
    family: str | None
    description: str = field(default="", kw_only=True)
    context: Mapping[str, str | float | bool | tuple[str, ...]] = field(default_factory=dict, hash=False, kw_only=True)
    id: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class SkillLists:
    """One list of skill ids for each row, stored end to end.

    Attributes:
        offsets: int64 (n + 1,), where each row's list begins.
        ids: int32 (total,), indices into the vocabulary, sorted and distinct within a row.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]

    @classmethod
    def from_rows(cls, rows: Iterable[Iterable[int]]) -> SkillLists:
        """Packs an iterable of rows, each an iterable of ids."""
        lists = [sorted(set(row)) for row in rows]
        offsets = np.concatenate(([0], np.cumsum([len(ids) for ids in lists]))).astype(np.int64)
        return cls(offsets, np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=offsets[-1]))

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_], ids: NDArray[np.integer]) -> SkillLists:
        """Packs the entries of a padded (n, width) table of ids where ``mask`` holds, each id once in a row."""
        order = np.argsort(np.where(mask, ids, np.iinfo(np.int32).max), axis=1, kind="stable")
        ids, kept = np.take_along_axis(ids, order, axis=1), np.take_along_axis(mask, order, axis=1)
        kept[:, 1:] &= ids[:, 1:] != ids[:, :-1]
        offsets = np.concatenate(([0], np.cumsum(kept.sum(axis=1), dtype=np.int64)))
        return cls(offsets, ids[kept].astype(np.int32))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """How many skills each of the rows lists."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def flat(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The lists of several rows, end to end.

        Returns:
            For each listed skill, the place in ``rows`` of the row that lists it, and the skill's id; both (total,).
        """
        lengths = self.lengths(rows)
        owner = np.repeat(np.arange(len(rows)), lengths)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return owner, self.ids[self.offsets[rows][owner] + within]

    def take(self, rows: NDArray[np.integer]) -> SkillLists:
        """The lists of some rows, in the order of ``rows``."""
        offsets = np.concatenate(([0], np.cumsum(self.lengths(rows)))).astype(np.int64)
        return SkillLists(offsets, self.flat(rows)[1])


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """One text for each row, stored end to end, so that the texts of a million rows can be memory-mapped.

    Attributes:
        offsets: int64 (n + 1,), where each row's text begins.
        data: uint8 (total,), UTF-8.
    """

    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]

    @classmethod
    def from_rows(cls, rows: Iterable[str]) -> Texts:
        """Packs an iterable of texts."""
        encoded = [row.encode() for row in rows]
        offsets = np.concatenate(([0], np.cumsum([len(text) for text in encoded]))).astype(np.int64)
        return cls(offsets, np.frombuffer(b"".join(encoded), dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def take(self, rows: NDArray[np.integer]) -> Texts:
        """The texts of some rows, in the order of ``rows``."""
        return Texts.from_rows(self[row] for row in rows.tolist())


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that tables refer to by id.

    Attributes:
        titles: Job titles.
        experiences: Phrases on experience.
        hard_skills: Names of hard skills (a free text counts as one skill).
        soft_skills: Names of soft skills.
        occupations: Names of occupations.
        families: Names of families of occupations.
        occupation_families: For each occupation the id of its family, -1 where unknown.
    """

    titles: tuple[str, ...]
    experiences: tuple[str, ...]
    hard_skills: tuple[str, ...]
    soft_skills: tuple[str, ...]
    occupations: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    occupation_families: tuple[int, ...] = ()

    def as_lists(self) -> dict[str, list[Any]]:
        """The vocabulary in plain JSON."""
        return {field.name: list(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """One side of a market, applicants or jobs; row ``i`` of every table is the same applicant or job.

    Attributes:
        keys: (n,) texts, the source's own identifiers, distinct.
        vectors: float (n, 2 * block_dim), ``hard | soft``, unit length.
        title_ids: int32 (n,).
        experience_ids: int32 (n,).
        occupation_ids: int32 (n,), -1 where unknown.
        seniority: int8 (n,), 1 to 5, 0 where unknown.
        hard_skills: Hard skills of each row.
        soft_skills: Soft skills of each row.
        held_out: bool (n,), True for the test split.
        descriptions: The source's description of each row, in whole sentences; ``None`` if the source describes no row.
    """

    keys: NDArray[np.str_]
    vectors: NDArray[np.floating]
    title_ids: NDArray[np.int32]
    experience_ids: NDArray[np.int32]
    occupation_ids: NDArray[np.int32]
    seniority: NDArray[np.int8]
    hard_skills: SkillLists
    soft_skills: SkillLists
    held_out: NDArray[np.bool_]
    descriptions: Texts | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, split: Split = "all") -> NDArray[np.int64]:
        """Ids of a split, ascending."""
        if split not in get_args(Split):
            raise ValueError(f"`split` must be one of {get_args(Split)}, got {split!r}.")
        if split == "all":
            return np.arange(len(self))
        return np.flatnonzero(self.held_out == (split == "test"))

    def take(self, rows: NDArray[np.integer], held_out: NDArray[np.bool_] | None = None) -> Population:
        """Some of the rows, in the order of ``rows``.

        Args:
            rows: Integers (m,), distinct.
            held_out: bool (m,), a split that replaces the rows' own.
        """
        taken = {key: getattr(self, key)[rows] for key in ROW_TABLES}
        if held_out is not None:
            taken["held_out"] = held_out
        hard, soft = self.hard_skills.take(rows), self.soft_skills.take(rows)
        texts = None if self.descriptions is None else self.descriptions.take(rows)
        return Population(vectors=self.vectors[rows], hard_skills=hard, soft_skills=soft, descriptions=texts, **taken)

    def tables(self) -> dict[str, NDArray[Any]]:
        """All arrays but the vectors, by name: :data:`TABLE_KEYS`, with descriptions also :data:`DESCRIPTION_KEYS`."""
        tables = {key: getattr(self, key) for key in ROW_TABLES}
        for block in BLOCKS:
            skills: SkillLists = getattr(self, f"{block}_skills")
            tables |= {f"{block}_offsets": skills.offsets, f"{block}_ids": skills.ids}
        if self.descriptions is not None:
            tables |= dict(zip(DESCRIPTION_KEYS, (self.descriptions.offsets, self.descriptions.data), strict=True))
        return tables

    @classmethod
    def from_tables(cls, vectors: NDArray[np.floating], tables: dict[str, NDArray[Any]]) -> Population:
        """The population that :meth:`tables` and the vectors describe."""
        hard, soft = (SkillLists(tables[f"{block}_offsets"], tables[f"{block}_ids"]) for block in BLOCKS)
        rows = {key: tables[key] for key in ROW_TABLES}
        texts = Texts(*(tables[key] for key in DESCRIPTION_KEYS)) if DESCRIPTION_KEYS[0] in tables else None
        return cls(vectors=vectors, hard_skills=hard, soft_skills=soft, descriptions=texts, **rows)


def read_only(population: Population) -> Population:
    """The population over read-only views of its arrays; nothing is copied."""
    tables = {key: view(table) for key, table in population.tables().items()}
    return Population.from_tables(view(population.vectors), tables)


def view(table: NDArray[Any]) -> NDArray[Any]:
    """A read-only view."""
    view = table.view()
    view.flags.writeable = False
    return view
