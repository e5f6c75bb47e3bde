"""What the tables of a market must hold, checked before anything is built on them."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market.context import UNKNOWN, ContextKind, ContextTable, check_context_name
from jobrec_gym.market.tables import ROW_TABLES, MarketError, Population, SkillLists, Texts, Vocabulary

__all__ = ["check_context", "check_lengths", "check_population", "check_word_vectors", "check_words"]

_CHECKED_BYTES = 1 << 26  # of vectors; larger ones were checked when they were written
_LENGTH_TOLERANCE = 2e-3  # float16 rounds a unit vector to within 5e-4


def check_population(side: str, population: Population) -> None:
    """A population has a row of each table for each key, distinct keys, known levels and unit vectors."""
    if not isinstance(population.keys, np.ndarray) or population.keys.dtype.kind != "U":
        raise MarketError(f"`{side}.keys` must be an array of texts, got {population.keys!r:.80}.")
    n = len(population)
    if n == 0:
        raise MarketError(f"`{side}` is empty; a market needs at least one row on each side.")
    if population.vectors.ndim != 2 or population.vectors.shape[1] % 2:
        raise MarketError(f"`{side}` vectors must be (n, 2 * block_dim), got shape {population.vectors.shape}.")
    for key, table in {"vectors": population.vectors, **population.tables()}.items():
        if not key.endswith(("_offsets", "_ids")) or key in ROW_TABLES:
            if len(table) != n and key != "description_bytes":
                raise MarketError(f"`{side}.{key}` must have one entry for each of the {n} keys, got {len(table)}.")
        elif key.endswith("_offsets") and len(table) != n + 1:
            raise MarketError(f"`{side}.{key}` must have {n + 1} entries for {n} keys, got {len(table)}.")
    if _is_large_and_mapped(population):
        return  # checked when it was saved; reading large tables whole would load them
    if population.descriptions is not None:
        _check_texts(side, population.descriptions)
    keys, counts = np.unique(population.keys, return_counts=True)
    if len(keys) < n:
        raise MarketError(f"`{side}` keys must be distinct, got {str(keys[counts.argmax()])!r} {counts.max()} times.")
    if not ((population.seniority >= 0) & (population.seniority <= 5)).all():
        row = int(np.flatnonzero((population.seniority < 0) | (population.seniority > 5))[0])
        raise MarketError(
            f"`{side}` row {row} has seniority {population.seniority[row]}; it must be 1 to 5, 0 if unknown."
        )
    check_lengths(side, population.vectors, 0, population.keys)


def _check_texts(side: str, texts: Texts) -> None:
    offsets, n_bytes = texts.offsets, len(texts.data)
    if offsets[0] != 0 or offsets[-1] != n_bytes or (np.diff(offsets) < 0).any():
        raise MarketError(f"`{side}.description_offsets` must ascend from 0 to the {n_bytes} bytes of the texts.")
    try:
        bytes(texts.data).decode()
    except UnicodeDecodeError as error:
        raise MarketError(f"`{side}.description_bytes` must be UTF-8: {error}.") from None
    # A text begins with a character, not within one.
    begins = offsets[:-1][offsets[:-1] < n_bytes]
    if (texts.data[begins] & 0xC0 == 0x80).any():
        raise MarketError(f"`{side}.description_offsets` must not cut a character.")


def _is_large_and_mapped(population: Population) -> bool:
    return isinstance(population.vectors, np.memmap) and population.vectors.nbytes > _CHECKED_BYTES


def check_lengths(
    side: str, vectors: NDArray[np.floating], first_row: int, keys: NDArray[np.str_] | None = None
) -> None:
    """Each vector has unit length; ``first_row`` is the row of ``vectors[0]``."""
    norms = np.linalg.norm(vectors.astype(np.float32, copy=False), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) < _LENGTH_TOLERANCE))
    if len(bad):
        row = int(bad[0])
        cause = "not finite" if not np.isfinite(norms[row]) else f"of length {norms[row]:.4g}"
        key = "" if keys is None else f" (key {str(keys[row])!r})"
        raise MarketError(
            f"`{side}` row {first_row + row}{key} has a vector that is {cause}; each must have unit "
            "length. A length of 0 means that it has neither hard nor soft skills."
        )


def check_words(side: str, population: Population, words: Vocabulary) -> None:
    """Every id has a word."""
    if _is_large_and_mapped(population):
        return  # as above
    for key, ids, least, names in (
        ("title_ids", population.title_ids, 0, words.titles),
        ("experience_ids", population.experience_ids, 0, words.experiences),
        ("occupation_ids", population.occupation_ids, -1, words.occupations),
        ("hard_skills.ids", population.hard_skills.ids, 0, words.hard_skills),
        ("soft_skills.ids", population.soft_skills.ids, 0, words.soft_skills),
    ):
        if len(ids) and not (least <= ids.min() and ids.max() < len(names)):
            raise MarketError(
                f"`{side}.{key}` must be in [{least}, {len(names)}), which are the words that the vocabulary has, "
                f"got {ids.min()} to {ids.max()}."
            )


def check_context(name: str, table: ContextTable, applicants: Population, jobs: Population) -> None:
    """A field of the context has an entry a row on both sides, and holds what its kind can."""
    check_context_name(name)
    if table.kind not in get_args(ContextKind):
        raise MarketError(f"`context[{name!r}]` must be of a kind of {get_args(ContextKind)}, got {table.kind!r}.")
    for side, population in (("applicants", applicants), ("jobs", jobs)):
        place, n, entries = f"`context[{name!r}].{side}`", len(population), getattr(table, side)
        if isinstance(entries, SkillLists) != (table.kind == "set"):
            raise MarketError(f"{place} must be {'lists' if table.kind == 'set' else 'an array'}, got {entries!r:.80}.")
        if len(entries) != n:
            raise MarketError(f"{place} must have one entry for each of the {n} {side}, got {len(entries)}.")
        if _is_large_and_mapped(population):
            continue  # as above
        values = entries.ids if isinstance(entries, SkillLists) else entries
        if table.kind in ("number", "at_least", "at_most"):
            if values.dtype.kind != "f" or np.isinf(values).any():
                raise MarketError(f"{place} must be finite floats, NaN where unknown, got {values.dtype}.")
            continue
        least = 0 if table.kind == "set" else UNKNOWN
        beyond = 2 if table.kind == "flag" else len(table.words)
        if values.dtype.kind != "i" or (len(values) and not least <= values.min() <= values.max() < beyond):
            raise MarketError(f"{place} must be integers in [{least}, {beyond}), got others, of {values.dtype}.")


def check_word_vectors(
    field: str, vectors: NDArray[np.floating] | None, names: tuple[str, ...], block_dim: int
) -> None:
    """Every word has a vector, where words are encoded at all."""
    if vectors is None:
        return
    if vectors.shape != (len(names), block_dim):
        raise MarketError(f"`{field}` must have shape {(len(names), block_dim)}, got {vectors.shape}.")
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise MarketError(f"`{field}` row {row} ({names[row]!r}) is not finite.")
