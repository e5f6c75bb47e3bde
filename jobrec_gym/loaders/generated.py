"""The default market: people and postings generated from a seed over the embedded taxonomy of occupations.

Nobody in it is real. Row ``i`` depends on the seed and on ``i`` only, so a larger market begins with the smaller one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import bounded, hash64, normal, uniform
from jobrec_gym.market import (
    ContextTable,
    LabourMarket,
    MarketError,
    Population,
    SkillLists,
    Vocabulary,
    compose_block,
    compose_vectors,
    market_folder,
    read_header,
    write_vectors,
)
from jobrec_gym.market.folder import is_saved_market
from jobrec_gym.near_miss import with_known_keywords
from jobrec_gym.paths import place_of
from jobrec_gym.progress import steps
from jobrec_gym.whole_files import is_empty, read_whole

__all__ = [
    "CONTEXT",
    "VECTORS_FILE",
    "OccupationTable",
    "SampledRows",
    "Taxonomy",
    "check_n_rows",
    "experience_phrases",
    "load_default",
    "load_taxonomy",
    "sample_applicants",
    "sample_jobs",
]

SplitBy = Literal["row", "occupation"]
Precision = Literal["float32", "float16"]

VECTORS_FILE = "vectors.npz"
"""Name of the shipped vectors in ``jobrec_gym/data``; ``python -m experiments.make_vectors`` writes it."""

TEST_FRACTION = 0.3

# Every random number of a generated market is hash64(seed, one of the tags below, row, ...).
_MOST_ROWS = 2**31 - 1  # a row id has at most 31 bits, and a draw has 53, so that rows are drawn about equally often
_APPLICANT, _JOB, _OCCUPATION, _CONTEXT = 1, 2, 3, 4
_PICK, _SENIORITY, _TITLE, _SECOND, _SECOND_PICK, _HARD, _SOFT, _EXTRA_SOFT, _HARD_COUNT, _SOFT_COUNT, _SPLIT = range(
    11
)

# People have most skills of their own occupation and some of a former one; some are omitted.
_KEEP_OWN, _KEEP_FORMER, _KEEP_SOFT, _CAREER_CHANGE = 0.65, 0.4, 0.6, 0.45
_EXTRA_SOFT_SKILLS = 2
# Postings ask for a part of the skills that the occupation needs.
_HARD_ASKED, _SOFT_ASKED = (4, 8), (2, 4)
# Seniority is the occupation's typical level, or one level above or below.
_SENIORITY_STEPS = np.array([-1, -1, 0, 0, 0, 0, 0, 0, 1, 1])

CONTEXT = ("place", "pay")
"""Fields of a generated market's context: one of six places, and the wished or offered pay in thousands a year."""

_PLACES = ("Gdansk", "Hamburg", "Leeds", "Lyon", "Porto", "Turin")
_PLACE_SHARES = (0.3, 0.2, 0.15, 0.15, 0.1, 0.1)
# Pay depends on level, family and row.
_PLACE, _PAY, _FAMILY_PAY = range(3)
_LEAST_PAY, _PAY_PER_LEVEL, _PAY_OF_FAMILIES, _PAY_SPREAD = 22.0, 1.3, (0.8, 1.3), 0.12

_YEARS = ("less than 1 year", "1 to 2 years", "3 to 5 years", "6 to 10 years", "more than 10 years")
_CHUNK = 16_384
_COMPOSED = 128  # rows at a time, whose vectors stay in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class OccupationTable:
    """Occupations from which a market's rows are sampled; ids refer to a :class:`~jobrec_gym.market.Vocabulary`.

    Attributes:
        titles: Ids of each occupation's titles, at least one for each.
        family_ids: int (n,), each in [0, n_families).
        seniority: int (n,), typical level 1 to 5.
        hard: Hard skills.
        soft: Soft skills.
        related: Ids of the occupations that people come from or go to.
    """

    titles: SkillLists
    family_ids: NDArray[np.integer]
    seniority: NDArray[np.integer]
    hard: SkillLists
    soft: SkillLists
    related: SkillLists

    def __len__(self) -> int:
        return len(self.titles)


@dataclass(frozen=True, slots=True, eq=False)
class SampledRows:
    """Sampled applicants or jobs; the fields of :class:`~jobrec_gym.market.Population` without keys and vectors."""

    occupation_ids: NDArray[np.int32]
    title_ids: NDArray[np.int32]
    experience_ids: NDArray[np.int32]
    seniority: NDArray[np.int8]
    hard_skills: SkillLists
    soft_skills: SkillLists
    held_out: NDArray[np.bool_]

    def to_population(self, keys: Sequence[str] | NDArray[np.str_], vectors: NDArray[np.floating]) -> Population:
        """Adds the keys (n,) and vectors (n, 2 * block_dim)."""
        return Population(
            keys=np.asarray(keys), vectors=vectors, **{field: getattr(self, field) for field in self.__slots__}
        )


@dataclass(frozen=True, slots=True, eq=False)
class Taxonomy:
    """The embedded taxonomy: its words, and the skills that its occupations need."""

    vocabulary: Vocabulary
    occupations: OccupationTable


@with_known_keywords
def load_default(
    n_jobs: int = 2_000,
    n_applicants: int = 1_000,
    seed: int = 0,
    split_by: SplitBy = "row",
    dtype: Precision = "float32",
    folder: str | os.PathLike[str] | None = None,
    context: Sequence[str] = (),
) -> LabourMarket:
    """The default market: a generated market over the embedded taxonomy.

    Args:
        n_jobs: How many jobs.
        n_applicants: How many applicants.
        seed: Seed of the market.
        split_by: Hold out about 30 % of the rows, or all rows of about 30 % of the occupations.
        dtype: Type in which vectors are kept; ``"float16"`` halves their size. They are always composed in float32.
        folder: Folder that keeps the market, for markets larger than memory. The first call makes it there, chunk by
            chunk; later calls memory-map it. ``None`` makes the market in memory.
        context: Which of :data:`CONTEXT` are shown, see :class:`~jobrec_gym.market.context.ContextTable`, or ``"all"``.
            The others can still be named as pair features.

    Returns:
        A market with 384-dimensional blocks of all-MiniLM-L6-v2, and vectors of titles and experience.

    Raises:
        MarketError: For an impossible size, an unknown field of the context, or a ``folder`` that holds something other
            than this market.
    """
    for name, value, least in (("n_jobs", n_jobs, 1), ("n_applicants", n_applicants, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise MarketError(f"`{name}` must be an integer of at least {least}, got {value!r}.")
        if name != "seed":
            check_n_rows(name, value)
    if dtype not in get_args(Precision):
        raise MarketError(f"`dtype` must be one of {get_args(Precision)}, got {dtype!r}.")
    shown = _shown(context)
    taxonomy = load_taxonomy()
    words = _word_vectors()
    if folder is None:
        populations = {}
        for side, (keys, rows) in _sides(taxonomy, n_applicants, n_jobs, seed, split_by).items():
            vectors = np.empty((len(keys), _dim(words)), dtype=dtype)
            for start, chunk in _composed(words, rows):
                vectors[start : start + len(chunk)] = chunk
            populations[side] = rows.to_population(keys, vectors)
        return _market(taxonomy, words, populations, seed, shown)
    made_from: dict[str, Any] = {
        "n_jobs": n_jobs,
        "n_applicants": n_applicants,
        "seed": seed,
        "split_by": split_by,
        "dtype": dtype,
    }
    if shown:
        made_from["context"] = list(shown)
    place = place_of(folder)
    if not is_saved_market(place) and (not place.exists() or is_empty(place)):
        with market_folder(folder) as new:
            _write(new, taxonomy, words, made_from)
    found, market = read_whole(place, lambda: (read_header(place)["made_from"], LabourMarket.load(folder)), MarketError)
    if found != made_from or market.vocabulary != taxonomy.vocabulary:
        raise MarketError(
            f"`folder` {os.fspath(folder)!r} holds another market than is asked for. It was made from {found}, over "
            f"{'this' if market.vocabulary == taxonomy.vocabulary else 'another'} taxonomy. Asked for is {made_from}. "
            "Choose another folder, or delete this one."
        )
    return market


def check_n_rows(argument: str, n: int) -> None:
    """Raises :class:`MarketError`, which names the argument, for more rows than can be sampled."""
    if n > _MOST_ROWS:
        raise MarketError(f"`{argument}` must be at most {_MOST_ROWS:,}, got {n:,}.")


def load_taxonomy() -> Taxonomy:
    """Reads the embedded taxonomy, ``jobrec_gym/data/taxonomy.json``."""
    document = json.loads((resources.files("jobrec_gym") / "data" / "taxonomy.json").read_text(encoding="utf-8"))
    families = [family["name"] for family in document["families"]]
    rows = [(number, row) for number, family in enumerate(document["families"]) for row in family["occupations"]]
    words: dict[str, dict[str, int]] = {"titles": {}, "hard": {}, "soft": {}}
    for skill in document["soft_skills"]:
        words["soft"].setdefault(skill, len(words["soft"]))

    def ids(kind: str, names: list[str]) -> list[int]:
        return [words[kind].setdefault(name, len(words[kind])) for name in names]

    occupation_ids = {row["title"]: number for number, (_, row) in enumerate(rows)}
    occupations = OccupationTable(
        titles=SkillLists.from_rows(ids("titles", [row["title"], *row["titles"]]) for _, row in rows),
        family_ids=np.array([family for family, _ in rows]),
        seniority=np.array([row["seniority"] for _, row in rows]),
        hard=SkillLists.from_rows(ids("hard", row["hard"]) for _, row in rows),
        soft=SkillLists.from_rows(ids("soft", row["soft"]) for _, row in rows),
        related=SkillLists.from_rows([occupation_ids[title] for title in row["related"]] for _, row in rows),
    )
    vocabulary = Vocabulary(
        titles=tuple(words["titles"]),
        experiences=tuple(experience_phrases(families)),
        hard_skills=tuple(words["hard"]),
        soft_skills=tuple(words["soft"]),
        occupations=tuple(occupation_ids),
        families=tuple(families),
        occupation_families=tuple(family for family, _ in rows),
    )
    return Taxonomy(vocabulary, occupations)


def experience_phrases(families: Sequence[str]) -> list[str]:
    """All phrases on experience; that of a family and a seniority is entry ``5 * family_id + seniority - 1``."""
    return [f"{years} in {family}" for family in families for years in _YEARS]


def sample_applicants(occupations: OccupationTable, n: int, seed: int, split_by: SplitBy = "row") -> SampledRows:
    """People with careers: skills of one occupation or of two related ones, some of them left out.

    Args:
        occupations: The occupations of the people.
        n: How many people.
        seed: Seed of the people. Row ``i`` depends only on the seed and ``i``.
        split_by: Hold out rows or whole occupations.
    """
    return _sample(occupations, n, seed, split_by, _APPLICANT)


def sample_jobs(occupations: OccupationTable, n: int, seed: int, split_by: SplitBy = "row") -> SampledRows:
    """Postings, which ask for a part of their occupations' skills; arguments as in :func:`sample_applicants`."""
    return _sample(occupations, n, seed, split_by, _JOB)


def _write(
    new: Path, taxonomy: Taxonomy, words: Mapping[str, NDArray[np.float16]], made_from: Mapping[str, Any]
) -> None:
    """Writes the default market into an empty folder; no more than a chunk of its vectors is ever in memory."""
    sums, populations = {}, {}
    sizes = (made_from["n_applicants"], made_from["n_jobs"], made_from["seed"], made_from["split_by"])
    for side, (keys, rows) in _sides(taxonomy, *sizes).items():
        file, shape = new / f"{side}.npy", (len(keys), _dim(words))
        chunks = (chunk for _, chunk in _composed(words, rows, f"making {side}"))
        sums[side] = write_vectors(file, chunks, shape, made_from["dtype"])
        populations[side] = rows.to_population(keys, np.load(file, mmap_mode="r"))
    market = _market(taxonomy, words, populations, made_from["seed"], made_from.get("context", ()))
    market.write_tables(new, sums["jobs"], made_from)


def _sides(
    taxonomy: Taxonomy, n_applicants: int, n_jobs: int, seed: int, split_by: SplitBy
) -> dict[str, tuple[NDArray[np.str_], SampledRows]]:
    """Keys and sampled rows of both sides."""
    return {
        "applicants": (_keys("A", n_applicants), sample_applicants(taxonomy.occupations, n_applicants, seed, split_by)),
        "jobs": (_keys("J", n_jobs), sample_jobs(taxonomy.occupations, n_jobs, seed, split_by)),
    }


def _market(
    taxonomy: Taxonomy,
    words: Mapping[str, NDArray[np.float16]],
    populations: Mapping[str, Population],
    seed: int,
    shown: Sequence[str],
) -> LabourMarket:
    return LabourMarket(
        "default",
        populations["applicants"],
        populations["jobs"],
        taxonomy.vocabulary,
        title_vectors=words["titles"],
        experience_vectors=words["experiences"],
        context=_sample_context(taxonomy.occupations, populations, seed, shown),
    )


def _shown(context: Sequence[str]) -> tuple[str, ...]:
    """The fields that are shown, each once, in the order of :data:`CONTEXT`."""
    if isinstance(context, str) and context == "all":
        return CONTEXT
    if isinstance(context, str) or not isinstance(context, Sequence) or not set(context) <= set(CONTEXT):
        raise MarketError(f'`context` must list names of {CONTEXT}, or be "all", got {context!r}.')
    return tuple(name for name in CONTEXT if name in context)


def _sample_context(
    occupations: OccupationTable, populations: Mapping[str, Population], seed: int, shown: Sequence[str]
) -> dict[str, ContextTable]:
    """Place and pay of both sides. Row ``i`` depends on the seed, on ``i`` and on the row's occupation and level."""
    low, high = _PAY_OF_FAMILIES
    drawn = hash64(seed, _CONTEXT, _FAMILY_PAY, np.arange(int(occupations.family_ids.max()) + 1))
    of_family = low + (high - low) * uniform(drawn)
    places, pay = {}, {}
    for side, number in (("applicants", _APPLICANT), ("jobs", _JOB)):
        rows = populations[side]
        keys = hash64(seed, _CONTEXT, number, np.arange(len(rows)))
        chance = uniform(hash64(keys, _PLACE))
        places[side] = np.searchsorted(np.cumsum(_PLACE_SHARES)[:-1], chance, side="right").astype(np.int32)
        level = _LEAST_PAY * _PAY_PER_LEVEL ** rows.seniority.astype(np.float64)
        usual = level * of_family[occupations.family_ids[rows.occupation_ids]]
        pay[side] = np.round(usual * np.exp(_PAY_SPREAD * normal(hash64(keys, _PAY))))
    return {
        "place": ContextTable("category", **places, words=_PLACES, shown="place" in shown),
        "pay": ContextTable("number", **pay, shown="pay" in shown),
    }


def _keys(prefix: str, n: int) -> NDArray[np.str_]:
    width = max(7, len(str(n - 1)))
    return np.fromiter((f"{prefix}{row:07}" for row in range(n)), dtype=f"U{width + 1}", count=n)


def _word_vectors() -> dict[str, NDArray[np.float16]]:
    """The shipped vectors of the taxonomy's words: for each kind of words a table (n_words, block_dim)."""
    with (
        resources.as_file(resources.files("jobrec_gym") / "data" / VECTORS_FILE) as path,
        np.load(path, allow_pickle=False) as file,
    ):
        return {key: file[key] for key in file.files}


def _dim(words: Mapping[str, NDArray[np.float16]]) -> int:
    return words["hard_skills"].shape[1] + words["soft_skills"].shape[1]


def _composed(
    words: Mapping[str, NDArray[np.float16]], rows: SampledRows, what: str | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Vectors of sampled rows, chunk by chunk: the first row's number, and float32 (chunk, dim).

    Args:
        words: The tables of :func:`_word_vectors`.
        rows: The sampled rows.
        what: Name of the work in the progress; ``None`` shows none.
    """
    n = len(rows.seniority)
    hard_words, soft_words = (words[block].astype(np.float32) for block in ("hard_skills", "soft_skills"))
    for start in steps(n, _COMPOSED, what or "", "row", progress=False if what is None else None):
        chunk = np.arange(start, min(start + _COMPOSED, n))
        hard, soft = rows.hard_skills.take(chunk), rows.soft_skills.take(chunk)
        yield start, compose_vectors(compose_block(hard_words, hard), compose_block(soft_words, soft))


def _sample(occupations: OccupationTable, n: int, seed: int, split_by: SplitBy, side: int) -> SampledRows:
    if split_by not in ("row", "occupation"):
        raise MarketError(f"`split_by` must be 'row' or 'occupation', got {split_by!r}.")
    draw_skills = _applicant_skills if side == _APPLICANT else _job_skills
    n_soft = int(occupations.soft.ids.max(initial=0)) + 1
    chunks = []
    for start in range(0, n, _CHUNK):
        rows = hash64(seed, side, np.arange(start, min(start + _CHUNK, n)))
        occupation = bounded(hash64(rows, _PICK), len(occupations))
        step = _SENIORITY_STEPS[bounded(hash64(rows, _SENIORITY), len(_SENIORITY_STEPS))]
        seniority = np.clip(occupations.seniority[occupation] + step, 1, 5)
        hard, soft = draw_skills(occupations, rows, occupation, n_soft)
        split_keys = (
            hash64(rows, _SPLIT) if split_by == "row" else hash64(seed, _OCCUPATION, occupation.astype(np.uint64))
        )
        chunks.append(
            SampledRows(
                occupation_ids=occupation.astype(np.int32),
                title_ids=_pick_one(occupations.titles, occupation, hash64(rows, _TITLE)),
                experience_ids=(5 * occupations.family_ids[occupation] + seniority - 1).astype(np.int32),
                seniority=seniority.astype(np.int8),
                hard_skills=hard,
                soft_skills=soft,
                held_out=uniform(split_keys) < TEST_FRACTION,
            )
        )
    return _join(chunks)


def _applicant_skills(
    occupations: OccupationTable, rows: NDArray[np.uint64], occupation: NDArray[np.int64], n_soft: int
) -> tuple[SkillLists, SkillLists]:
    has_former = (uniform(hash64(rows, _SECOND)) < _CAREER_CHANGE) & (occupations.related.lengths(occupation) > 0)
    former = np.where(has_former, _pick_one(occupations.related, occupation, hash64(rows, _SECOND_PICK)), occupation)
    own_hard, own_hard_keys = _padded(occupations.hard, occupation, rows, _HARD)
    former_hard, former_hard_keys = _padded(occupations.hard, former, rows, _HARD)
    # There is one draw for each (row, skill), so a skill that both occupations need does not get two chances.
    own_kept = _kept(own_hard, own_hard_keys, _KEEP_OWN)
    former_kept = (uniform(former_hard_keys) < _KEEP_FORMER) & (former_hard >= 0) & has_former[:, None]
    soft, soft_keys = _padded(occupations.soft, occupation, rows, _SOFT)
    extra = bounded(hash64(rows[:, None], _EXTRA_SOFT, np.arange(_EXTRA_SOFT_SKILLS)), n_soft)
    return (
        _union([own_hard, former_hard], [own_kept, former_kept]),
        _union([soft, extra], [_kept(soft, soft_keys, _KEEP_SOFT), np.ones(extra.shape, dtype=bool)]),
    )


def _job_skills(
    occupations: OccupationTable, rows: NDArray[np.uint64], occupation: NDArray[np.int64], n_soft: int
) -> tuple[SkillLists, SkillLists]:
    asked = []
    for lists, tag, count_tag, (low, high) in (
        (occupations.hard, _HARD, _HARD_COUNT, _HARD_ASKED),
        (occupations.soft, _SOFT, _SOFT_COUNT, _SOFT_ASKED),
    ):
        pool, keys = _padded(lists, occupation, rows, tag)
        count = low + bounded(hash64(rows, count_tag), high - low + 1)
        rank = np.argsort(np.argsort(np.where(pool >= 0, uniform(keys), 2.0), axis=1), axis=1)
        asked.append(_union([pool], [(rank < count[:, None]) & (pool >= 0)]))
    return asked[0], asked[1]


def _padded(
    lists: SkillLists, occupation: NDArray[np.int64], rows: NDArray[np.uint64], tag: int
) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """Each row's pool, the skills of its occupation, padded with -1; and a random key for each (row, skill)."""
    lengths = lists.lengths(occupation)
    columns = np.arange(max(int(lengths.max()), 1))
    inside = columns < lengths[:, None]
    index = np.where(inside, lists.offsets[occupation][:, None] + columns, 0)
    pool = np.where(inside, np.append(lists.ids, -1)[index], -1).astype(np.int32)
    return pool, hash64(rows[:, None], tag, pool)


def _kept(pool: NDArray[np.int32], keys: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Which entries of the pool are kept: each with probability ``share``, and always the one with the lowest draw."""
    chances = np.where(pool >= 0, uniform(keys), 2.0)
    return (pool >= 0) & ((chances < share) | (chances == chances.min(axis=1, keepdims=True)))


def _union(pools: list[NDArray[np.integer]], kept: list[NDArray[np.bool_]]) -> SkillLists:
    return SkillLists.from_mask(np.concatenate(kept, axis=1), np.concatenate(pools, axis=1))


def _pick_one(lists: SkillLists, occupation: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int32]:
    """One entry of each row's list; for an empty list, an entry of a neighbouring list."""
    lengths = np.maximum(lists.lengths(occupation), 1)
    index = np.minimum(lists.offsets[occupation] + bounded(keys, lengths), max(len(lists.ids) - 1, 0))
    return np.append(lists.ids, -1)[index].astype(np.int32)


def _join(chunks: Sequence[SampledRows]) -> SampledRows:
    columns: dict[str, Any] = {}
    for field in SampledRows.__slots__:
        parts = [getattr(chunk, field) for chunk in chunks]
        columns[field] = _join_lists(parts) if isinstance(parts[0], SkillLists) else np.concatenate(parts)
    return SampledRows(**columns)


def _join_lists(parts: Sequence[SkillLists]) -> SkillLists:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return SkillLists(offsets, np.concatenate([part.ids for part in parts]))
