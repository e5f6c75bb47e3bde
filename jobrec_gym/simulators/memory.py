"""Answers on a market's pairs that this process knows already. They are found by ids, without text, hash or file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.sharing import Shared
from jobrec_gym.simulators.base import Feedback

__all__ = ["FeedbackMemory", "merged"]

Ids = NDArray[np.int64]

_DENSE_PAIRS = 1 << 24
"""Up to this many pairs, answers are found in a table (at most 64 MiB); beyond it, in a dictionary."""


class FeedbackMemory(Shared):
    """Answers of a market's pairs, found by their ids; for answers that do not change.

    Threads may share a memory. A pickle holds only the pairs that have an answer.

    Args:
        n_applicants: Number of applicants of the market.
        n_jobs: Number of jobs of the market.
    """

    def __init__(self, n_applicants: int, n_jobs: int):
        self._n_applicants, self._n_jobs = n_applicants, n_jobs
        self._place: NDArray[np.int32] | dict[int, int]
        if n_applicants * n_jobs <= _DENSE_PAIRS:
            # The place plus 1, so that the 0 of a new table means that nothing is known.
            self._place = np.zeros(n_applicants * n_jobs, dtype=np.int32)
        else:
            self._place = {}
        self._answers = Feedback.of([], [])
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def find(self, applicant_ids: Ids, job_ids: Ids) -> Ids:
        """Places (n,) of the answers of pairs (n,); -1 where there is no answer."""
        pairs = np.asarray(applicant_ids, dtype=np.int64) * self._n_jobs + job_ids
        if isinstance(self._place, dict):
            return np.fromiter((self._place.get(pair, 0) for pair in pairs.tolist()), np.int64, len(pairs)) - 1
        return self._place[pairs].astype(np.int64) - 1

    def take(self, places: Ids) -> Feedback:
        """The answers at places (n,), marked as known before and free."""
        kept = self._answers  # read once: another thread may replace `_answers` by a longer table
        return Feedback.of(
            kept.decision[places],
            kept.reward[places],
            probability=kept.probability[places],
            reason=kept.reason[places],
            cached=np.ones(len(places), dtype=bool),
        )

    def add(self, applicant_ids: Ids, job_ids: Ids, feedback: Feedback) -> None:
        """Keeps the answers (n,) whose status is ``ok``. Other answers may change the next time."""
        pairs = np.asarray(applicant_ids, dtype=np.int64) * self._n_jobs + job_ids
        pairs, rows = np.unique(pairs, return_index=True)
        with self.lock:
            new = (feedback.status[rows] == "ok") & (self.find(pairs // self._n_jobs, pairs % self._n_jobs) < 0)
            self._append(pairs[new], rows[new], feedback)

    def _append(self, pairs: Ids, rows: Ids, feedback: Feedback) -> None:
        """Keeps rows (n,) of some feedback as the answers of n new pairs."""
        needed = self._size + len(pairs)
        if needed > len(self._answers):
            self._answers = _resized(self._answers, max(64, needed, 2 * self._size))
        for name in ("decision", "reward", "probability", "reason"):
            getattr(self._answers, name)[self._size : needed] = getattr(feedback, name)[rows]
        places = np.arange(self._size, needed)
        self._size = needed
        # The places are set last: other threads read them without the lock, and then need the answer at a place.
        if isinstance(self._place, dict):
            self._place.update(zip(pairs.tolist(), (places + 1).tolist(), strict=True))
        else:
            self._place[pairs] = places + 1

    def __getstate__(self) -> dict[str, Any]:
        with self.lock:
            if isinstance(self._place, dict):
                pairs = np.fromiter(self._place, np.int64, len(self._place))
            else:
                pairs = np.flatnonzero(self._place)
            applicants, jobs = pairs // self._n_jobs, pairs % self._n_jobs
            known = self.take(self.find(applicants, jobs))
        return {"sizes": (self._n_applicants, self._n_jobs), "known": (applicants, jobs, known)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(*state["sizes"])  # type: ignore[misc]
        self.add(*state["known"])


def merged(known: NDArray[np.bool_], remembered: Feedback, fresh: Feedback) -> Feedback:
    """One batch (n,): the remembered answers in the rows where ``known`` (n,) holds, the fresh ones in the others."""
    columns = {}
    for name in Feedback.__slots__:
        left, right = getattr(remembered, name), getattr(fresh, name)
        columns[name] = np.empty(len(known), np.result_type(left, right))
        columns[name][known], columns[name][~known] = left, right
    return Feedback(**columns)


def _resized(answers: Feedback, size: int) -> Feedback:
    """The answers in arrays of a larger size, whose further rows are free."""
    columns = {}
    for name in Feedback.__slots__:
        old = getattr(answers, name)
        columns[name] = np.full(size, "", dtype="U8") if name == "decision" else np.zeros(size, dtype=old.dtype)
        columns[name][: len(old)] = old
    return Feedback(**columns)
