"""Builds a market from records of any source: gives ids to words, vectors to texts, and splits to rows."""

from __future__ import annotations

import logging
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import hash64, text_key
from jobrec_gym.encoders import DEFAULT_ENCODER, Encoder, check_unit_rows, encode_texts, make_encoder, pieces_of_long
from jobrec_gym.market import (
    ContextTable,
    ContextValue,
    LabourMarket,
    MarketError,
    Population,
    SkillLists,
    Texts,
    Vocabulary,
    compose_block,
    compose_vectors,
)
from jobrec_gym.market.context import ContextKind, folded
from jobrec_gym.market.dates import DATE_FIELDS

__all__ = [
    "SPLITS",
    "BlockVectors",
    "Record",
    "SplitBy",
    "assemble_market",
    "check_records",
    "check_text",
    "whole_number",
]

logger = logging.getLogger(__name__)

SplitBy = Literal["row", "occupation"]
SPLITS = ("train", "test")
"""The values of a source's own split."""

_TEXT_FIELDS = ("key", "title", "hard", "soft", "experience", "occupation", "family", "description")
_SIDES = ("applicants", "jobs")
_JOINED_ROWS = 256  # rows whose vectors are made at once
_SPLIT_TAGS = {"applicants": 1, "jobs": 2, "occupations": 3}


@dataclass(frozen=True, slots=True)
class Record:
    """One applicant or one job as its source describes it.

    Attributes:
        key: The source's own identifier, distinct on its side.
        title: Current or offered job title.
        hard: Hard skills, or one free text (a ``str``), which counts as one skill.
        soft: Soft skills, or one free text.
        seniority: 1 to 5, 0 if the source does not say.
        experience: A phrase or a text on experience.
        occupation: The occupation's name.
        family: The occupation's family; it is ignored without an occupation.
        description: The source's description in whole sentences, for language models to read; no vector is made of it.
        where: Place of the record, for messages: ``"jobs.csv, row 3"``.
        split: One of :data:`SPLITS`, if the source has a split of its own.
        context: Values of further fields, by name; ``None`` for unknown ones.
        posted: When a job was posted, in seconds since 1970; ``None`` if the source does not say.
        expires: Until when a job is open, likewise.
    """

    key: str
    title: str = ""
    hard: Sequence[str] | str = ()
    soft: Sequence[str] | str = ()
    seniority: int = 0
    experience: str = ""
    occupation: str | None = None
    family: str | None = None
    where: str = ""
    split: str | None = None
    description: str = ""
    context: Mapping[str, ContextValue | None] = field(default_factory=dict)
    posted: float | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BlockVectors:
    """Vectors of one side that come with the source; a zero row is an empty block.

    Attributes:
        hard: float (n, block_dim), rows of any norm.
        soft: float (n, block_dim), rows of any norm.
    """

    hard: NDArray[np.floating]
    soft: NDArray[np.floating]


def assemble_market(
    name: str,
    applicants: Iterable[Record],
    jobs: Iterable[Record],
    *,
    encoder: str | os.PathLike[str] | Encoder = DEFAULT_ENCODER,
    cache_dir: str | os.PathLike[str] | bool | None = None,
    batch_size: int = 64,
    device: str | Sequence[str] | None = None,
    progress: bool | None = None,
    test_fraction: float = 0.3,
    split_by: SplitBy = "row",
    seed: int = 0,
    applicant_vectors: BlockVectors | None = None,
    job_vectors: BlockVectors | None = None,
    title_vectors: Mapping[str, NDArray[np.floating]] | None = None,
    experience_vectors: Mapping[str, NDArray[np.floating]] | None = None,
    left_out: Sequence[str] = (),
    context: Mapping[str, ContextKind] | None = None,
) -> LabourMarket:
    """Builds a market.

    A block is the unit-scaled mean of its skills' vectors. ``hard | soft`` is scaled to unit length as a whole; a block
    without skills is zero. Distinct texts are encoded once, long ones in pieces (see
    :func:`~jobrec_gym.encoders.encode_texts`). An empty title or experience has a zero row in its table; a
    table without any text is left out.

    Args:
        name: The market's name, also for messages.
        applicants: The people who receive recommendations. Skills are stripped; empty and repeated ones are left out.
            ``SQL`` and ``sql`` are the same skill, of which the first spelling is kept.
        jobs: The jobs that can be recommended.
        encoder: As in :func:`~jobrec_gym.encoders.make_encoder`, like the next four arguments.
        cache_dir: Folder that keeps vectors between runs; ``False`` keeps none.
        batch_size: How many texts are encoded at once.
        device: A torch device, or several.
        progress: Whether to show progress.
        test_fraction: Share of the rows of each side that is held out, in [0, 1). It is rounded to whole rows. If it is
            above 0 and there are two or more rows, at least one is held out and at least one is not. The choice depends
            on the seed and on all keys, not on their order. If records have a ``split`` of their own, that split
            decides instead.
        split_by: ``"row"``, or ``"occupation"``: whole occupations are held out, the same on both sides.
        seed: Seed of the choice of held-out rows.
        applicant_vectors: Vectors of the applicants, if they come with the source; the applicants' skills are then not
            encoded.
        job_vectors: Vectors of the jobs, likewise. If both sides come with vectors, nothing is encoded.
        title_vectors: Known vectors of titles, by text. If given, no title is encoded, and a title that is not
            among them has a zero row.
        experience_vectors: Known vectors of experience, likewise.
        left_out: Parts of the source that are not among the records, one phrase each, for the market's summary.
        context: Kinds of the records' :attr:`Record.context`, by name.

    Raises:
        MarketError: For an empty side, a repeated or empty key, a row without any skill, a seniority outside 0 to 5,
            vectors that are not finite or of another shape, or a text with half a character (a lone surrogate). Also
            for a missing occupation with ``split_by="occupation"``, for a ``split`` that only some rows of a side have
            or that comes together with ``split_by="occupation"``, and for a ``test_fraction`` or ``seed`` that is not a
            number. The message names the place.
        EncoderError: If the encoder is not available or returns wrong vectors.
    """
    if isinstance(test_fraction, bool) or not isinstance(test_fraction, numbers.Real) or not 0 <= test_fraction < 1:
        raise MarketError(f"`test_fraction` must be a number in [0, 1), got {test_fraction!r}.")
    seed = whole_number("seed", seed)
    if split_by not in ("row", "occupation"):
        raise MarketError(f"`split_by` must be 'row' or 'occupation', got {split_by!r}.")
    sides = {"applicants": list(applicants), "jobs": list(jobs)}
    given = {"applicants": applicant_vectors, "jobs": job_vectors}
    for side, records in sides.items():
        check_records(name, side, records)

    skills = {
        block: {side: [_skills(getattr(record, block)) for record in records] for side, records in sides.items()}
        for block in ("hard", "soft")
    }
    for side in sides:
        if given[side] is None:
            _check_not_empty(sides[side], skills["hard"][side], skills["soft"][side])
    everyone = sides["applicants"] + sides["jobs"]
    words = {block: _sorted_words(lists for side in sides for lists in skills[block][side]) for block in skills}
    titles = _sorted_words([record.title.strip() for record in everyone])
    experiences = _sorted_words([record.experience.strip() for record in everyone])
    occupations, families, occupation_families = _occupations(everyone)
    ids = {block: _places(words[block]) for block in words}
    lists = {
        block: {
            side: SkillLists.from_rows([[ids[block][s] for s in row] for row in rows]) for side, rows in by_side.items()
        }
        for block, by_side in skills.items()
    }

    blocks = {side: vectors for side, vectors in given.items() if vectors is not None}
    to_encode = [side for side in sides if given[side] is None]
    texts: dict[str, list[str]] = {
        block: [words[block][i] for i in np.unique(np.concatenate([lists[block][side].ids for side in to_encode]))]
        if to_encode
        else []
        for block in words
    }
    if title_vectors is None and to_encode:
        texts["title"] = [title for title in titles if title]
    if experience_vectors is None and to_encode:
        texts["experience"] = [experience for experience in experiences if experience]
    if any(texts.values()):
        known, cut = _encode(texts, make_encoder(encoder, cache_dir, batch_size, device, progress))
        block_dim = len(next(iter(known.values())))
        tables = {block: _table(words[block], known, block_dim) for block in words}
        for side in to_encode:
            blocks[side] = BlockVectors(
                *(compose_block(tables[block], lists[block][side]) for block in ("hard", "soft"))
            )
    else:
        known, cut = {}, ()
        block_dim = blocks["jobs"].hard.shape[1]
    held_out = _held_out(sides, test_fraction, split_by, seed)
    title_ids, experience_ids = _places(titles), _places(experiences)
    occupation_ids = _places(occupations)

    populations = {}
    for side, records in sides.items():
        populations[side] = Population(
            keys=np.asarray([record.key for record in records], dtype=np.str_),
            vectors=_join_blocks(side, records, blocks.pop(side)),
            title_ids=np.asarray([title_ids[record.title.strip()] for record in records], dtype=np.int32),
            experience_ids=np.asarray(
                [experience_ids[record.experience.strip()] for record in records], dtype=np.int32
            ),
            occupation_ids=np.asarray(
                [occupation_ids.get((record.occupation or "").strip(), -1) for record in records], dtype=np.int32
            ),
            seniority=np.asarray([record.seniority for record in records], dtype=np.int8),
            hard_skills=lists["hard"][side],
            soft_skills=lists["soft"][side],
            held_out=held_out[side],
            descriptions=_descriptions(records),
        )
    logger.info(
        "%s: %d applicants, %d jobs, %d hard and %d soft skills",
        *(name, len(sides["applicants"]), len(sides["jobs"]), len(words["hard"]), len(words["soft"])),
    )
    return LabourMarket(
        name,
        populations["applicants"],
        populations["jobs"],
        Vocabulary(
            titles=tuple(titles),
            experiences=tuple(experiences),
            hard_skills=tuple(words["hard"]),
            soft_skills=tuple(words["soft"]),
            occupations=tuple(occupations),
            families=tuple(families),
            occupation_families=tuple(occupation_families),
        ),
        title_vectors=_text_table(titles, known if title_vectors is None else title_vectors, block_dim),
        experience_vectors=_text_table(
            experiences, known if experience_vectors is None else experience_vectors, block_dim
        ),
        context={
            name: ContextTable.of(kind, *([record.context.get(name) for record in sides[side]] for side in _SIDES))
            for name, kind in (context or {}).items()
        }
        | _dates(name, sides["jobs"], len(sides["applicants"])),
        left_out=left_out,
        cut=cut,
        text_blocks=[
            block for block in ("hard", "soft") if any(isinstance(getattr(record, block), str) for record in everyone)
        ],
    )


def whole_number(argument: str, value: Any) -> int:
    """An argument's value as an integer; if it is not one, :class:`MarketError` names the argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise MarketError(f"`{argument}` must be a whole number, got {value!r}.")
    return int(value)


def check_text(text: str, place: str) -> None:
    """Raises :class:`MarketError` for half a character (a lone surrogate), which files and encoders cannot take."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MarketError(
            f"{place}: holds half a character, the lone surrogate {text[error.start]!r}, in {text!r:.80}; write the "
            "whole character or leave it out."
        ) from None


# --------------------------------------------------------------------------------------------------------------- checks


def check_records(name: str, side: str, records: Sequence[Record]) -> None:
    """Raises :class:`MarketError` if a side has no records, a repeated or empty key, or a broken text."""
    if not records:
        raise MarketError(f"{name}: there are no {side}; a market needs at least one row on each side.")
    first: dict[str, Record] = {}
    for record in records:
        place = _place(record)
        if not record.key:
            raise MarketError(f"{place} has an empty key; every row needs a key of its own.")
        # numpy's fixed-width texts drop trailing NULs.
        if record.key.endswith("\0"):
            raise MarketError(f"{place} has key {record.key!r:.80}, which ends in a NUL character.")
        for text_field in _TEXT_FIELDS:
            value = getattr(record, text_field) or ()
            for text in (value,) if isinstance(value, str) else value:
                check_text(text, f"{place}, {text_field!r}")
        if (other := first.setdefault(record.key, record)) is not record:
            raise MarketError(f"key {record.key!r:.80} of {side} appears twice: in {_place(other)} and in {place}.")
        if (
            isinstance(record.seniority, bool)
            or not isinstance(record.seniority, int)
            or not 0 <= record.seniority <= 5
        ):
            raise MarketError(
                f"{place} (key {record.key!r:.80}) has seniority {record.seniority!r:.80}; it must be 1 (entry) to 5 "
                "(lead), or 0 where unknown."
            )
        if record.split is not None and record.split not in SPLITS:
            raise MarketError(
                f"{place} (key {record.key!r:.80}) has split {record.split!r:.80}; it must be one of {SPLITS}."
            )


def _check_not_empty(records: Sequence[Record], hard: list[list[str]], soft: list[list[str]]) -> None:
    for record, hard_skills, soft_skills in zip(records, hard, soft, strict=True):
        if not hard_skills and not soft_skills:
            raise MarketError(
                f"{_place(record)} (key {record.key!r:.80}) has neither hard nor soft skills; give it a skill, or "
                "leave the row out."
            )


def _place(record: Record) -> str:
    return record.where or f"the row with key {record.key!r:.80}"


# ---------------------------------------------------------------------------------------------------------------- words


def _dates(name: str, jobs: Sequence[Record], n_applicants: int) -> dict[str, ContextTable]:
    """The dates that at least one job has, as fields of the context that are not shown."""
    found = {}
    for field_name in DATE_FIELDS:
        seconds: list[float | None] = [getattr(job, field_name) for job in jobs]
        if any(value is not None for value in seconds):
            found[field_name] = replace(ContextTable.of("number", [None] * n_applicants, seconds), shown=False)
    never = [job for job in jobs if job.posted is not None and job.expires is not None and job.expires <= job.posted]
    if never:
        logger.warning(
            "%s: %s of the jobs expire before they are posted, so they are never open: %s is the first.",
            *(name, f"{len(never):,}", _place(never[0])),
        )
    return found


def _descriptions(records: Sequence[Record]) -> Texts | None:
    texts = [record.description.strip() for record in records]
    return Texts.from_rows(texts) if any(texts) else None


def _skills(skills: Sequence[str] | str) -> list[str]:
    """The skills without empty and repeated ones. Of spellings that are compared as equal the first one is kept."""
    if isinstance(skills, str):
        skills = (skills,)
    found = [stripped for skill in skills if (stripped := skill.strip())]
    if len(found) < 2:  # perhaps a long text, which `folded` would keep
        return found
    spelt: dict[str, str] = {}
    for skill in found:
        spelt.setdefault(folded(skill), skill)
    return list(spelt.values())


def _sorted_words(rows: Iterable[Any]) -> list[str]:
    """The distinct texts of a nested or flat iterable, sorted, so that ids don't depend on the order of rows."""
    words: set[str] = set()
    for row in rows:
        words.update((row,) if isinstance(row, str) else row)
    return sorted(words)


def _places(words: Sequence[str]) -> dict[str, int]:
    return {word: place for place, word in enumerate(words)}


def _occupations(records: Sequence[Record]) -> tuple[list[str], list[str], list[int]]:
    """Names of occupations and families, and each occupation's family, -1 if no row gives it one."""
    family_of: dict[str, str] = {}
    for record in records:
        occupation, family = (record.occupation or "").strip(), (record.family or "").strip()
        if not occupation:
            continue
        known = family_of.setdefault(occupation, family)
        if family and not known:
            family_of[occupation] = family
        elif family and family != known:
            raise MarketError(
                f"occupation {occupation!r:.80} is of family {known!r:.80} in an earlier row and of family "
                f"{family!r:.80} in {_place(record)}; an occupation has one family."
            )
    families = sorted({family for family in family_of.values() if family})
    family_ids = _places(families)
    names = sorted(family_of)
    return names, families, [family_ids.get(family_of[name], -1) for name in names]


# -------------------------------------------------------------------------------------------------------------- vectors


def _encode(
    texts: Mapping[str, Sequence[str]], encoder: Encoder
) -> tuple[dict[str, NDArray[np.float32]], tuple[str, ...]]:
    """The vector of each distinct text, and phrases on long texts for the summary."""
    distinct = sorted({text for some in texts.values() for text in some})
    pieces = pieces_of_long(encoder, distinct)
    vectors = encode_texts(encoder, distinct, pieces)
    check_unit_rows(encoder.name, vectors, distinct)
    cut = (f"{len(pieces)} of {len(distinct)} texts, which are encoded in pieces",) if pieces else ()
    return dict(zip(distinct, vectors, strict=True)), cut


def _table(words: Sequence[str], known: Mapping[str, NDArray[np.floating]], dim: int) -> NDArray[np.float32]:
    """float32 (n_words, dim): known words' unit vectors, zero rows for the others."""
    table = np.zeros((len(words), dim), dtype=np.float32)
    for row, word in enumerate(words):
        if word in known:
            table[row] = known[word]
    return table


def _text_table(
    words: Sequence[str], known: Mapping[str, NDArray[np.floating]], dim: int
) -> NDArray[np.float32] | None:
    return _table(words, known, dim) if any(word and word in known for word in words) else None


def _join_blocks(side: str, records: Sequence[Record], vectors: BlockVectors) -> NDArray[np.float32]:
    for block, table in (("hard", vectors.hard), ("soft", vectors.soft)):
        if table.ndim != 2 or len(table) != len(records):
            raise MarketError(f"`{block}` vectors of {side} must be ({len(records)}, block_dim), got {table.shape}.")
        finite = np.isfinite(table).all(axis=1)
        if not finite.all():
            record = records[int(np.argmin(finite))]
            raise MarketError(f"{_place(record)} (key {record.key!r:.80}) has a {block} vector that is not finite.")
    n, block_dim = vectors.hard.shape
    if vectors.soft.shape != (n, block_dim):
        raise MarketError(f"hard and soft vectors of {side} differ in size: {block_dim} and {vectors.soft.shape[1]}.")
    joined = np.empty((n, 2 * block_dim), dtype=np.float32)
    for start in range(0, n, _JOINED_ROWS):  # results between the blocks and the table are as large as both
        rows = slice(start, start + _JOINED_ROWS)
        joined[rows] = compose_vectors(_scaled(vectors.hard[rows]), _scaled(vectors.soft[rows]))
    empty = np.flatnonzero(~joined.any(axis=1))
    if len(empty):
        record = records[int(empty[0])]
        raise MarketError(
            f"{_place(record)} (key {record.key!r:.80}) has neither a hard nor a soft vector: both are zero."
        )
    return joined


def _scaled(block: NDArray[np.floating]) -> NDArray[np.float32]:
    """The rows (n, d) at unit length; zero rows stay zero."""
    norms = np.linalg.norm(block, axis=1, keepdims=True)
    return (block / np.where(norms == 0, 1, norms)).astype(np.float32, copy=False)


# --------------------------------------------------------------------------------------------------------------- splits


def _held_out(
    sides: Mapping[str, Sequence[Record]], test_fraction: float, split_by: SplitBy, seed: int
) -> dict[str, NDArray[np.bool_]]:
    own = {side: mask for side, records in sides.items() if (mask := _own_split(side, records)) is not None}
    if split_by == "row":
        return {
            side: own[side]
            if side in own
            else _last_ranks([record.key for record in records], test_fraction, seed, _SPLIT_TAGS[side])
            for side, records in sides.items()
        }
    if own:
        raise MarketError(
            f"two splits are given: `split_by={split_by!r}`, and the `split` that {' and '.join(own)} have of their "
            "own. Use only one of the two."
        )
    for side, records in sides.items():
        lacking = [record for record in records if not (record.occupation or "").strip()]
        if lacking:
            places = ", ".join(_place(record) for record in lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            raise MarketError(
                '`split_by="occupation"` needs the occupation of every row; '
                f"{len(lacking)} of {len(records)} {side} lack it: {places}."
            )
    names = sorted({(record.occupation or "").strip() for records in sides.values() for record in records})
    if len(names) < 2 and test_fraction > 0:
        raise MarketError(f'`split_by="occupation"` needs at least two occupations, got {names}.')
    held = _last_ranks(names, test_fraction, seed, _SPLIT_TAGS["occupations"])
    chosen = {name for name, out in zip(names, held, strict=True) if out}
    masks = {
        side: np.asarray([(record.occupation or "").strip() in chosen for record in records], dtype=np.bool_)
        for side, records in sides.items()
    }
    for side, mask in masks.items():
        if test_fraction > 0 and mask.all() == mask.any():
            logger.warning("all %d %s are in one split, because all their occupations are in it.", len(mask), side)
    return masks


def _own_split(side: str, records: Sequence[Record]) -> NDArray[np.bool_] | None:
    """Which rows the source itself holds out; ``None`` if it has no split for this side."""
    lacking = [record for record in records if record.split is None]
    if len(lacking) == len(records):
        return None
    if lacking:
        raise MarketError(f"{_place(lacking[0])} has no split, and other {side} have one; it must be one of {SPLITS}.")
    return np.asarray([record.split == "test" for record in records], dtype=np.bool_)


def _last_ranks(keys: Sequence[str], fraction: float, seed: int, tag: int) -> NDArray[np.bool_]:
    """An exact share of the keys: those that come last by their hash, whatever the order of the keys."""
    n = len(keys)
    count = int(n * fraction + 0.5)
    if fraction > 0 and n > 1:
        count = min(max(count, 1), n - 1)
    mask = np.zeros(n, dtype=np.bool_)
    if count:
        hashes = hash64(seed, tag, np.asarray([text_key(key) for key in keys], dtype=np.uint64))
        mask[np.lexsort((np.asarray(keys), hashes))[n - count :]] = True
    return mask
