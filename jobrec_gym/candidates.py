"""Which jobs an applicant is shown: candidate sets as pure functions of (applicant, key)."""

from __future__ import annotations

import difflib
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import hash64, permute
from jobrec_gym.job_index import EXACT_UP_TO, JobSubset, open_index
from jobrec_gym.market import LabourMarket

__all__ = [
    "SAMPLERS",
    "AllCandidates",
    "BoundSampler",
    "CandidateSampler",
    "MixedCandidates",
    "RetrievalCandidates",
    "UniformCandidates",
    "make_sampler",
]

Ids = NDArray[np.int64]
_DRAW, _SHUFFLE = 1, 2
_MAX_CACHED_IDS = 1 << 21


class BoundSampler(Protocol):
    """A sampler that knows its market.

    One whose attribute ``is_cheap`` is true is also asked for episodes that may never begin, many at once.
    """

    num_candidates: int

    def sample(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> Ids:
        """Draws a candidate set a row.

        Args:
            applicant_ids: (n,).
            keys: (n,), the only source of randomness: equal keys and applicants give equal sets.

        Returns:
            Job ids (n, num_candidates), distinct within a row; row ``i`` depends on the ``i``-th arguments only.
        """


class CandidateSampler(Protocol):
    """What the environment's ``candidate_sampler`` takes beside a name."""

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """Prepares for a market.

        Args:
            market: Where applicants and jobs come from.
            job_ids: (m,), the jobs that may be shown, ascending.
            num_candidates: How many to show, at most ``m``.
        """


class UniformCandidates:
    """Jobs drawn uniformly without replacement."""

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """See :class:`CandidateSampler`."""
        return _BoundUniform(job_ids, num_candidates)


class RetrievalCandidates:
    """The applicant's nearest jobs by cosine, in random order: a position tells nothing of a job's rank.

    Args:
        exact_up_to: Up to so many jobs are compared one by one. Beyond, an approximate index finds them, see
            :mod:`jobrec_gym.job_index`: it is built when first needed and kept beside a saved market.
    """

    def __init__(self, exact_up_to: int = EXACT_UP_TO):
        self.exact_up_to = exact_up_to

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """See :class:`CandidateSampler`."""
        return _BoundRetrieval(market, job_ids, num_candidates, self.exact_up_to)


class MixedCandidates:
    """Half nearest jobs by cosine (rounded up), half uniform over the others, in random order.

    Args:
        exact_up_to: As of :class:`RetrievalCandidates`.
    """

    def __init__(self, exact_up_to: int = EXACT_UP_TO):
        self.exact_up_to = exact_up_to

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """See :class:`CandidateSampler`."""
        return _BoundMixed(market, job_ids, num_candidates, self.exact_up_to)


class AllCandidates:
    """The whole catalogue in the order of its ids, whatever ``num_candidates``: action ``i`` is always the same job."""

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """See :class:`CandidateSampler`."""
        return _BoundAll(job_ids)


SAMPLERS: dict[str, type[CandidateSampler]] = {
    "uniform": UniformCandidates,
    "retrieval": RetrievalCandidates,
    "mixed": MixedCandidates,
    "all": AllCandidates,
}


def make_sampler(sampler: str | CandidateSampler) -> CandidateSampler:
    """The sampler of a name; an object comes back as it is.

    Raises:
        ValueError: For an unknown name, or an object without ``bind``.
    """
    if isinstance(sampler, str):
        if sampler not in SAMPLERS:
            near = difflib.get_close_matches(sampler, SAMPLERS, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise ValueError(
                f"`candidate_sampler` must be one of {tuple(SAMPLERS)} or an object, got {sampler!r}.{hint}"
            )
        return SAMPLERS[sampler]()
    if not hasattr(sampler, "bind"):
        raise ValueError(
            f"`candidate_sampler` must be one of {tuple(SAMPLERS)} or have `bind(market, job_ids, num_candidates)`, "
            f"got {sampler!r}."
        )
    return sampler


class _BoundAll:
    def __init__(self, job_ids: Ids):
        self.num_candidates = len(job_ids)
        self._job_ids = job_ids

    def sample(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> Ids:
        return np.tile(self._job_ids, (len(applicant_ids), 1))


class _BoundUniform:
    is_cheap = True

    def __init__(self, job_ids: Ids, num_candidates: int):
        self.num_candidates = num_candidates
        self._job_ids = job_ids

    def sample(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> Ids:
        positions = np.arange(self.num_candidates)
        return self._job_ids[permute(hash64(keys, _DRAW)[:, None], positions, len(self._job_ids))]


class _BoundRetrieval:
    def __init__(self, market: LabourMarket, job_ids: Ids, num_candidates: int, exact_up_to: int):
        self.num_candidates = num_candidates
        self._nearest = _NearestJobs(market, job_ids, num_candidates, exact_up_to)

    def sample(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> Ids:
        return _shuffled(self._nearest(applicant_ids), keys)


class _BoundMixed:
    def __init__(self, market: LabourMarket, job_ids: Ids, num_candidates: int, exact_up_to: int):
        self.num_candidates = num_candidates
        self._nearest = _NearestJobs(market, job_ids, -(-num_candidates // 2), exact_up_to)
        self._uniform = _BoundUniform(job_ids, num_candidates)

    def sample(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> Ids:
        nearest = self._nearest(applicant_ids)
        drawn = self._uniform.sample(applicant_ids, keys)
        # Drawn jobs that are also retrieved go to the end; enough others stay in front, as `num_candidates` were drawn.
        repeated = (drawn[:, :, None] == nearest[:, None, :]).any(axis=2)
        others = np.take_along_axis(drawn, np.argsort(repeated, axis=1, kind="stable"), axis=1)
        return _shuffled(np.concatenate([nearest, others[:, : self.num_candidates - nearest.shape[1]]], axis=1), keys)


class _NearestJobs:
    """Nearest jobs of applicants, each searched once; one applicant at a time, so that batches change no bit."""

    def __init__(self, market: LabourMarket, job_ids: Ids, n_nearest: int, exact_up_to: int):
        self._market = market
        self._job_ids = job_ids
        self._n_nearest = n_nearest
        self._cache: dict[int, Ids] = {}
        self._is_exact = len(job_ids) <= exact_up_to
        n_jobs = len(market.jobs)
        self._subset = None if len(job_ids) == n_jobs else JobSubset.of(job_ids, n_jobs)
        if not self._is_exact:
            open_index(market)  # built now and not in the first reset; no part of the sampler, which is copied

    def __call__(self, applicant_ids: Ids) -> Ids:
        found = [self._nearest(int(applicant)) for applicant in applicant_ids]
        return np.array(found, dtype=np.int64).reshape(len(found), self._n_nearest)

    def _nearest(self, applicant_id: int) -> Ids:
        if applicant_id not in self._cache:
            if (len(self._cache) + 1) * self._n_nearest > _MAX_CACHED_IDS:
                self._cache.clear()
            applicant = self._market.applicants.vectors[applicant_id].astype(np.float32, copy=False)
            self._cache[applicant_id] = self._search(applicant)
        return self._cache[applicant_id]

    def _search(self, applicant: NDArray[np.float32]) -> Ids:
        if not self._is_exact:
            return open_index(self._market).nearest(applicant, self._n_nearest, self._subset)
        scores = _job_vectors(self._market, self._job_ids.tobytes()) @ applicant
        return self._job_ids[np.argsort(-scores, kind="stable")[: self._n_nearest]]


@lru_cache(maxsize=4)
def _job_vectors(market: LabourMarket, job_ids: bytes) -> NDArray[np.float32]:
    """Vectors of some jobs; shared by all environments on a market, and no part of any of them."""
    return market.jobs.vectors[np.frombuffer(job_ids, dtype=np.int64)].astype(np.float32, copy=False)


def _shuffled(jobs: Ids, keys: NDArray[np.uint64]) -> Ids:
    order = permute(hash64(keys, _SHUFFLE)[:, None], np.arange(jobs.shape[1]), jobs.shape[1])
    return np.take_along_axis(jobs, order, axis=1)
