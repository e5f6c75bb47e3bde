"""Vectors of profiles: composes blocks, gathers and multiplies rows. Results are the same to the bit in every batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market.tables import SkillLists

__all__ = ["compose_block", "compose_vectors", "gathered", "row_products"]

_COMPOSE_CHUNK = 1024


def compose_block(skill_vectors: NDArray[np.floating], skills: SkillLists) -> NDArray[np.float32]:
    """One block of a profile's vector: the unit-scaled mean of its skills' unit vectors.

    Args:
        skill_vectors: float (n_skills, d), unit rows.
        skills: The rows' lists.

    Returns:
        float32 (n, d): unit rows, zero for an empty list.
    """
    skill_vectors = skill_vectors.astype(np.float32, copy=False)
    block = np.empty((len(skills), skill_vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(skills), _COMPOSE_CHUNK):
        rows = np.arange(start, min(start + _COMPOSE_CHUNK, len(skills)))
        lengths = skills.lengths(rows)
        # The longest lists come first. So the rows that have a skill at a given place are always the first ones.
        rows = rows[np.argsort(-lengths, kind="stable")]
        sums = np.zeros((len(rows), block.shape[1]), dtype=np.float32)
        # Adds every row's first skill, then every row's second, ...: the same order for a row in any chunk.
        for place in range(int(lengths.max())):
            n_longer = np.count_nonzero(lengths > place)
            sums[:n_longer] += gathered(skill_vectors, skills.ids[skills.offsets[rows[:n_longer]] + place])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        norms[norms == 0] = 1
        sums /= norms
        block[rows] = sums
    return block


def compose_vectors(hard: NDArray[np.float32], soft: NDArray[np.float32]) -> NDArray[np.float32]:
    """Joins two (n, d) blocks to (n, 2 d) and scales each row to unit length; a row of two zero blocks stays zero."""
    joined = np.concatenate([hard, soft], axis=1)
    norms = np.linalg.norm(joined, axis=1, keepdims=True)
    norms[norms == 0] = 1
    joined /= norms
    return joined


def gathered(
    table: NDArray[np.floating], ids: NDArray[np.integer], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Rows (..., d) float32 of a table (n, d) by valid ids (...), in a new array, or in ``out`` if it is given."""
    # `take` copies whole rows; indexing with an array is half as fast. Without `mode="clip"`, `take` would check the
    # ids and buffer `out`.
    if out is None:
        return np.take(np.asarray(table), ids, axis=0).astype(np.float32, copy=False)
    if table.dtype == out.dtype:
        return np.take(np.asarray(table), ids, axis=0, out=out, mode="clip")
    out[...] = table[ids]
    return out


def row_products(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products (...) of vectors (..., d), broadcast; each product is the same to the bit in every batch."""
    return np.einsum("...j,...j->...", left, right)
