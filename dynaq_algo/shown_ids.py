"""Ids of candidates that an agent sees as features, so that it can ask about them by id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["ShownIds", "whole_ids"]

_UNKNOWN = -1
_SEVERAL = -2


class ShownIds:
    """Remembers under which id each vector of features was shown.

    A vector that was shown under several ids has none, because nobody can tell which of them is meant. Vectors are told
    apart by a hash of 64 bits, so an id takes the same memory whatever the size of a vector. No id is forgotten, so
    memory grows with the number of distinct candidates that were ever shown.
    """

    def __init__(self) -> None:
        self._id: dict[int, int] = {}

    def learn(self, candidates: np.ndarray, ids: np.ndarray) -> None:
        """Note candidates (n, d_a) float32 and their ids (n,) int64, below 0 where one is not known."""
        for key, shown in zip(_keys(candidates), ids.tolist(), strict=True):
            if shown >= 0 and self._id.setdefault(key, shown) != shown:
                self._id[key] = _SEVERAL

    def of(self, candidates: np.ndarray) -> np.ndarray:
        """Ids (...) int64 of candidates (..., d_a); below 0 where none is known."""
        rows = candidates.reshape(-1, candidates.shape[-1])
        found = np.fromiter((self._id.get(key, _UNKNOWN) for key in _keys(rows)), np.int64, len(rows))
        return found.reshape(candidates.shape[:-1])

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is known, as two arrays (m,) int64."""
        return {
            "shown_id:key": np.array(list(self._id), np.int64),
            "shown_id:id": np.array(list(self._id.values()), np.int64),
        }

    def restore(self, keys: np.ndarray, ids: np.ndarray) -> None:
        """Put back what :meth:`arrays` gave."""
        self._id = dict(zip(keys.tolist(), ids.tolist(), strict=True))


def whole_ids(values: Iterable[Any]) -> np.ndarray:
    """Ids (n,) int64 of n values of any type; -1 where a value is not a whole number of 0 or more, such as a text."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "i":
        return np.maximum(values, _UNKNOWN).astype(np.int64)
    return np.array([_whole_id(np.asarray(value)) for value in values], np.int64)


def _whole_id(value: np.ndarray) -> int:
    if value.size != 1 or value.dtype.kind not in "iuf" or not 0 <= value.item() < 2**63:
        return _UNKNOWN
    return int(value.item()) if value.item() == int(value.item()) else _UNKNOWN


def _keys(rows: np.ndarray) -> list[int]:
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in np.ascontiguousarray(rows, np.float32))
    return [int.from_bytes(digest, "little", signed=True) for digest in digests]
