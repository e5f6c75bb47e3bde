"""Checks of a market's tables, made before anything is built on them."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market.context import UNKNOWN, ContextKind, ContextTable, Side, check_context_name
from jobrec_gym.market.tables import ROW_TABLES, MarketError, Population, SkillLists, Texts, Vocabulary

__all__ = [
    "check_content",
    "check_context",
    "check_lengths",
    "check_population",
    "check_saved",
    "check_saved_context",
    "check_saved_words",
    "check_word_vectors",
    "check_words",
]

_CHECKED_BYTES = 1 << 26  # vectors up to this size are checked; larger ones were checked when they were written
_CHECKED_ROWS = 1_024  # rows that are checked at once, in a copy that fits into the processor's cache
_KINDS = {"keys": ("U", "texts"), "held_out": ("b", "booleans")}
_INTEGERS = ("i", "integers")  # other columns hold integers of any size
_LENGTH_TOLERANCE = 2e-3  # float16 rounds a unit vector to within 5e-4


def check_population(side: str, population: Population) -> None:
    """Checks that tables have a row for each key, that keys are distinct, levels 0 to 5, and vectors of unit length."""
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
        return  # the tables were checked when they were saved; a check would load them into memory
    _check_rows(side, population)
    _check_vectors(side, population)


def _check_rows(side: str, population: Population) -> None:
    """Checks for distinct keys, whole texts and known levels."""
    if population.descriptions is not None:
        _check_texts(side, population.descriptions)
    keys, counts = np.unique(population.keys, return_counts=True)
    if len(keys) < len(population):
        raise MarketError(
            f"`{side}` keys must be distinct, got {str(keys[counts.argmax()])!r:.80} {counts.max()} times."
        )
    if not ((population.seniority >= 0) & (population.seniority <= 5)).all():
        row = int(np.flatnonzero((population.seniority < 0) | (population.seniority > 5))[0])
        raise MarketError(
            f"`{side}` row {row} has seniority {population.seniority[row]}; it must be 1 to 5, 0 if unknown."
        )


def check_saved(side: str, population: Population, words: Vocabulary) -> None:
    """Checks types, offsets and ranges of a population that was read from files, even of a large one.

    This is done each time that a market is opened. It reads all tables except the vectors.
    """
    if population.vectors.dtype.kind != "f":
        raise MarketError(f"`{side}` vectors must be floats, got {population.vectors.dtype}.")
    for key, table in population.tables().items():
        kind, name = ("u", "bytes") if key == "description_bytes" else _KINDS.get(key, _INTEGERS)
        if table.ndim != 1 or table.dtype.kind != kind or (kind == "u" and table.itemsize != 1):
            raise MarketError(f"`{side}.{key}` must be one column of {name}, got {table.dtype} {table.shape}.")
    if len(population.seniority) and not 0 <= population.seniority.min() <= population.seniority.max() <= 5:
        raise MarketError(f"`{side}.seniority` must be 1 to 5, 0 if unknown, got other numbers.")
    _check_ids(side, population, words)
    for key, lists in (("hard_skills", population.hard_skills), ("soft_skills", population.soft_skills)):
        _check_lists(f"`{side}.{key}`", lists)


def _check_lists(place: str, lists: SkillLists) -> None:
    """Checks that lists lie end to end: their offsets never fall, and stay within the ids."""
    offsets, n = lists.offsets, len(lists.ids)
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != n or (offsets[1:] < offsets[:-1]).any():
        raise MarketError(f"{place}.offsets must ascend from 0 to {n}, the number of ids.")


def check_saved_context(name: str, table: ContextTable) -> None:
    """Checks types, offsets and ranges of a field of the context."""
    if wrong := {type(word) for word in table.words} - {str}:
        raise MarketError(f"`context[{name!r}]` must have texts for words, got {sorted(map(str, wrong))}.")
    for side in get_args(Side):
        place, entries = f"`context[{name!r}].{side}`", getattr(table, side)
        columns = (entries.offsets, entries.ids) if isinstance(entries, SkillLists) else (entries,)
        if any(column.ndim != 1 for column in columns):
            raise MarketError(f"{place} must be one column.")
        _check_entries(place, table, entries)
        if isinstance(entries, SkillLists):
            _check_lists(place, entries)


def check_saved_words(words: Vocabulary) -> None:
    """Checks that words are texts, and that each occupation has an existing family or none."""
    for key, values in words.as_lists().items():
        wanted = int if key == "occupation_families" else str
        if wrong := set(map(type, values)) - {wanted}:
            raise MarketError(f"`vocabulary.{key}` must hold {wanted.__name__}, got {sorted(map(str, wrong))}.")
    families = words.occupation_families
    n_valid = sum(-1 <= family < len(words.families) for family in families)
    if not len(families) == n_valid == len(words.occupations):
        raise MarketError(
            f"`vocabulary.occupation_families` must have a number in [-1, {len(words.families)}) for each of the "
            f"{len(words.occupations)} occupations, got {len(families)} numbers, {n_valid} of them in this range."
        )


def check_content(side: str, population: Population) -> None:
    """Checks what :func:`check_population` skips for large memory-mapped tables: keys, texts, and each vector."""
    if not _is_large_and_mapped(population):
        return
    _check_rows(side, population)
    _check_vectors(side, population)


def _check_vectors(side: str, population: Population) -> None:
    for start in range(0, len(population), _CHECKED_ROWS):
        stop = start + _CHECKED_ROWS
        check_lengths(side, population.vectors[start:stop], start, population.keys[start:stop])


def _check_texts(side: str, texts: Texts) -> None:
    offsets, n_bytes = texts.offsets, len(texts.data)
    if offsets[0] != 0 or offsets[-1] != n_bytes or (np.diff(offsets) < 0).any():
        raise MarketError(f"`{side}.description_offsets` must ascend from 0 to the {n_bytes} bytes of the texts.")
    try:
        bytes(texts.data).decode()
    except UnicodeDecodeError as error:
        raise MarketError(f"`{side}.description_bytes` must be UTF-8: {error}.") from None
    # A text must begin with a character, not within one.
    begins = offsets[:-1][offsets[:-1] < n_bytes]
    if (texts.data[begins] & 0xC0 == 0x80).any():
        raise MarketError(f"`{side}.description_offsets` must not cut a character.")


def _is_large_and_mapped(population: Population) -> bool:
    return isinstance(population.vectors, np.memmap) and population.vectors.nbytes > _CHECKED_BYTES


def check_lengths(
    side: str, vectors: NDArray[np.floating], first_row: int, keys: NDArray[np.str_] | None = None
) -> None:
    """Checks that each vector has unit length; ``first_row`` is the row number of ``vectors[0]``."""
    norms = np.linalg.norm(vectors.astype(np.float32, copy=False), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) < _LENGTH_TOLERANCE))
    if len(bad):
        row = int(bad[0])
        cause = "not finite" if not np.isfinite(norms[row]) else f"of length {norms[row]:.4g}"
        key = "" if keys is None else f" (key {str(keys[row])!r:.80})"
        raise MarketError(
            f"`{side}` row {first_row + row}{key} has a vector that is {cause}; each must have unit "
            "length. A length of 0 means that the row has neither hard nor soft skills."
        )


def check_words(side: str, population: Population, words: Vocabulary) -> None:
    """Checks that every id has a word."""
    if not _is_large_and_mapped(population):  # `check_saved` checks large tables when they are opened
        _check_ids(side, population, words)


def _check_ids(side: str, population: Population, words: Vocabulary) -> None:
    for key, ids, least, names in (
        ("title_ids", population.title_ids, 0, words.titles),
        ("experience_ids", population.experience_ids, 0, words.experiences),
        ("occupation_ids", population.occupation_ids, -1, words.occupations),
        ("hard_skills.ids", population.hard_skills.ids, 0, words.hard_skills),
        ("soft_skills.ids", population.soft_skills.ids, 0, words.soft_skills),
    ):
        if len(ids) and not (least <= ids.min() and ids.max() < len(names)):
            raise MarketError(
                f"`{side}.{key}` must be in [{least}, {len(names)}), since the vocabulary has {len(names)} such words; "
                f"got {ids.min()} to {ids.max()}."
            )


def check_context(name: str, table: ContextTable, applicants: Population, jobs: Population) -> None:
    """Checks that a field of the context has one entry for each row of both sides, of a type that its kind allows."""
    check_context_name(name)
    if table.kind not in get_args(ContextKind):
        raise MarketError(f"`context[{name!r}]` must be one of the kinds {get_args(ContextKind)}, got {table.kind!r}.")
    for side, population in (("applicants", applicants), ("jobs", jobs)):
        place, n, entries = f"`context[{name!r}].{side}`", len(population), getattr(table, side)
        if isinstance(entries, SkillLists) != (table.kind == "set"):
            raise MarketError(f"{place} must be {'lists' if table.kind == 'set' else 'an array'}, got {entries!r:.80}.")
        if len(entries) != n:
            raise MarketError(f"{place} must have one entry for each of the {n} {side}, got {len(entries)}.")
        if not _is_large_and_mapped(population):  # `check_saved_context` checks large tables
            _check_entries(place, table, entries)


def _check_entries(place: str, table: ContextTable, entries: NDArray[Any] | SkillLists) -> None:
    values = entries.ids if isinstance(entries, SkillLists) else entries
    if table.kind in ("number", "at_least", "at_most"):
        if values.dtype.kind != "f" or np.isinf(values).any():
            raise MarketError(f"{place} must be finite floats, NaN where unknown, got {values.dtype}.")
        return
    least = 0 if table.kind == "set" else UNKNOWN
    beyond = 2 if table.kind == "flag" else len(table.words)
    if values.dtype.kind != "i" or (len(values) and not least <= values.min() <= values.max() < beyond):
        raise MarketError(f"{place} must be integers in [{least}, {beyond}), got other values, of {values.dtype}.")


def check_word_vectors(
    field: str, vectors: NDArray[np.floating] | None, names: tuple[str, ...], block_dim: int
) -> None:
    """Checks that every word has a finite vector, if words are encoded at all."""
    if vectors is None:
        return
    if vectors.shape != (len(names), block_dim):
        raise MarketError(f"`{field}` must have shape {(len(names), block_dim)}, got {vectors.shape}.")
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise MarketError(f"`{field}` row {row} ({names[row]!r:.80}) is not finite.")
