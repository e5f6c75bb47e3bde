"""Keeps values of (applicant, job) pairs that take long to compute, in at most 64 MB.

A kept value equals the computed one to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.sharing import Shared

__all__ = ["MAX_BYTES", "KeptRows", "PreparedPairs", "kept_pairs"]

Ids = NDArray[np.int64]
Values = NDArray[np.float64]
Compute = Callable[[Ids, Ids], Values]

MAX_BYTES = 1 << 26
"""The most bytes that are kept for one market under one simulator."""

_VALUE_BYTES, _NOTE_BYTES = 8, 9
"""Bytes of a kept pair, and further bytes of a row."""
_LEAST_PART, _PART_OF_A_MISS = 256, 4
"""How many further pairs a call computes to fill rows: a fixed number, and some for each missing pair. They are few, so
that a call stays fast."""
_WHOLE_ROW = 4_096
"""A row of up to this many jobs is computed at once, in a third of a millisecond; parts would add the cost of calls."""
_SLOT_BITS = 16
_FIBONACCI = np.uint64(0x9E3779B97F4A7C15)


def kept_pairs(
    compute: Compute, n_applicants: int, n_jobs: int, max_bytes: int = MAX_BYTES
) -> KeptRows | PreparedPairs:
    """Keeps the values of a function of pairs, in the way that suits the market's size.

    Args:
        compute: A function of applicant ids (n,) and job ids (n,) that returns float64 (n,). A pair's value must be the
            same, to the bit, in every batch.
        n_applicants: Number of applicants.
        n_jobs: Number of jobs.
        max_bytes: The most bytes that kept rows may take.

    Returns:
        :class:`KeptRows` if all pairs fit, else :class:`PreparedPairs`.
    """
    if n_applicants * (_VALUE_BYTES * n_jobs + _NOTE_BYTES) <= max_bytes:
        return KeptRows(compute, n_applicants, n_jobs)
    return PreparedPairs(compute, n_jobs)


class _Kept(Shared):
    """A shared store: a deep copy is the object itself, and a pickle holds no values."""

    def __init__(self, *arguments: Any):
        self._arguments = arguments

    def __deepcopy__(self, memo: dict[int, object]) -> _Kept:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments


class KeptRows(_Kept):
    """Keeps rows: an applicant's values for all jobs, computed when the applicant comes up a second time.

    A call computes one row, or a few short ones. A long row is computed in parts: each call that lacks values of the
    row adds one part. So no call is slow, even if one step of many environments has many applicants.

    Arguments are those of :func:`kept_pairs`.
    """

    def __init__(self, compute: Compute, n_applicants: int, n_jobs: int):
        super().__init__(compute, n_applicants, n_jobs)
        self._compute = compute
        # Zeros take no memory before they are written.
        self._rows = np.zeros((n_applicants, n_jobs))
        # How many values at the beginning of each row are known; unsigned, so that no negative id is below the number.
        self._n_known = np.zeros(n_applicants, dtype=np.uint64)
        self._is_met = np.zeros(n_applicants, dtype=np.bool_)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept once all applicants have come up."""
        return self._rows.nbytes + self._n_known.nbytes + self._is_met.nbytes

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> Values:
        """Values (n,) of pairs."""
        known = job_ids.astype(np.uint64) < self._n_known[applicant_ids]
        if np.count_nonzero(known) == len(known):  # many times as fast as `known.all()`
            return self._rows[applicant_ids, job_ids]
        missed = ~known
        values = np.empty(len(job_ids))
        values[known] = self._rows[applicant_ids[known], job_ids[known]]
        applicant_ids, job_ids = applicant_ids[missed], job_ids[missed]
        again = applicant_ids[self._is_met[applicant_ids]]
        values[missed] = self._computed_with_rows(applicant_ids, job_ids, again)
        self._is_met[applicant_ids] = True
        return values

    def _computed_with_rows(self, applicant_ids: Ids, job_ids: Ids, again: Ids) -> Values:
        """Values (n,) of pairs. The same call of ``compute`` also fills a part of the rows of applicants ``again``."""
        if not len(again):
            return self._compute(applicant_ids, job_ids)
        n, n_jobs = len(job_ids), self._rows.shape[1]
        part = max(_LEAST_PART + _PART_OF_A_MISS * len(again), n_jobs if n_jobs <= _WHOLE_ROW else 0)
        owners = np.unique(again)[: max(1, part // n_jobs)]
        with self.lock:
            begin = self._n_known[owners].astype(np.int64)
            columns = begin[:, None] + np.arange(min(n_jobs, part))
            inside = columns < n_jobs
            rows, columns = np.broadcast_to(owners[:, None], columns.shape)[inside], columns[inside]
            values = self._compute(np.concatenate([applicant_ids, rows]), np.concatenate([job_ids, columns]))
            self._rows[rows, columns] = values[n:]
            self._n_known[owners] = begin + inside.sum(axis=1)  # last, because other threads read it unlocked
        return values[:n]


class PreparedPairs(_Kept):
    """Keeps prepared pairs, which are the candidates of an episode that has begun; other pairs are computed.

    Each pair has its slot in a table of 1 MB, where a later pair may replace it.

    Args:
        compute: As in :func:`kept_pairs`.
        n_jobs: Number of jobs.
    """

    def __init__(self, compute: Compute, n_jobs: int):
        super().__init__(compute, n_jobs)
        self._compute = compute
        self._n_jobs = n_jobs
        self._keys = np.zeros(1 << _SLOT_BITS, dtype=np.uint64)
        self._values = np.zeros(1 << _SLOT_BITS)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self._keys.nbytes + self._values.nbytes

    def prepare(self, applicant_ids: Ids, job_ids: Ids) -> None:
        """Computes the pairs of applicants (m,) with jobs (m, k), for calls that follow soon."""
        owners, job_ids = np.repeat(applicant_ids, job_ids.shape[1]), job_ids.ravel()
        values = self._compute(owners, job_ids)
        keys, slots = self._places(owners, job_ids)
        with self.lock:
            self._keys[slots], self._values[slots] = keys, values

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> Values:
        """Values (n,) of pairs."""
        keys, slots = self._places(applicant_ids, job_ids)
        with self.lock:
            missed, values = self._keys[slots] != keys, self._values[slots]
        if missed.any():
            values[missed] = self._compute(applicant_ids[missed], job_ids[missed])
        return values

    def _places(self, applicant_ids: Ids, job_ids: Ids) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """A number for each pair, never 0, and the pair's slot."""
        keys = (applicant_ids.astype(np.int64) * self._n_jobs + job_ids).astype(np.uint64) + np.uint64(1)
        return keys, (keys * _FIBONACCI) >> np.uint64(64 - _SLOT_BITS)
