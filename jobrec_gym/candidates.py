"""Which jobs an applicant is shown: candidate sets as pure functions of (applicant, random key)."""

from __future__ import annotations

import numbers
import warnings
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import bounded, hash64, permute
from jobrec_gym.interactions import Interactions, LogError
from jobrec_gym.job_index import EXACT_UP_TO, JobSubset, open_index
from jobrec_gym.market import LabourMarket
from jobrec_gym.near_miss import best_match

__all__ = [
    "SAMPLERS",
    "AllCandidates",
    "BoundSampler",
    "CandidateSampler",
    "LoggedCandidates",
    "MixedCandidates",
    "RetrievalCandidates",
    "UniformCandidates",
    "check_sampler",
    "first_repeated",
    "make_sampler",
]

Ids = NDArray[np.int64]
_DRAW, _SHUFFLE, _LOGGED = 1, 2, 3
_MAX_CACHED_IDS = 1 << 21


class BoundSampler(Protocol):
    """A sampler that knows its market.

    If its attribute ``is_cheap`` is true, the sets of several episodes are drawn ahead of time. Some of these episodes
    may never begin.
    """

    num_candidates: int

    def sample(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> Ids:
        """Draws one candidate set for each row.

        Args:
            applicant_ids: (n,).
            keys: (n,), the only source of randomness: equal keys and applicants give equal sets.

        Returns:
            Job ids (n, num_candidates), distinct within a row; row ``i`` depends on the ``i``-th arguments only.
        """


class CandidateSampler(Protocol):
    """An object for the environment's argument ``candidate_sampler``, in place of a name.

    If its attribute ``has_own_size`` is true, the environment's ``num_candidates`` does not matter, and may exceed the
    number of jobs.
    """

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """Prepares for a market.

        Args:
            market: Where applicants and jobs come from.
            job_ids: (m,), the jobs that may be shown, ascending.
            num_candidates: How many to show, at most ``m``.
        """


class UniformCandidates:
    """Jobs drawn without replacement, each with the same probability.

    If there are few jobs to draw from, some pairs of jobs come together in a set more often than other pairs, see
    :func:`~jobrec_gym.counter_rng.permute`.
    """

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """See :class:`CandidateSampler`."""
        return _BoundUniform(job_ids, num_candidates)


class RetrievalCandidates:
    """The applicant's nearest jobs by cosine, in random order, so a position says next to nothing about nearness.

    Args:
        exact_up_to: If ``job_split`` has at most this many jobs, all are compared one by one. If it has more, an
            approximate index finds the nearest jobs, see :mod:`jobrec_gym.job_index`. The index is built when an
            environment first needs it, and kept in the folder of a saved market.
    """

    def __init__(self, exact_up_to: int = EXACT_UP_TO):
        self.exact_up_to = exact_up_to

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """See :class:`CandidateSampler`."""
        return _BoundRetrieval(market, job_ids, num_candidates, self.exact_up_to)


class MixedCandidates:
    """The nearest jobs by cosine (half of the set, rounded up) and uniformly drawn other jobs, in random order.

    Args:
        exact_up_to: As in :class:`RetrievalCandidates`.
    """

    def __init__(self, exact_up_to: int = EXACT_UP_TO):
        self.exact_up_to = exact_up_to

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """See :class:`CandidateSampler`."""
        return _BoundMixed(market, job_ids, num_candidates, self.exact_up_to)


class AllCandidates:
    """All jobs of the split in ascending order of their ids, so action ``i`` is always the same job.

    ``num_candidates`` has no effect.
    """

    has_own_size = True

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """See :class:`CandidateSampler`."""
        return _BoundAll(job_ids)


class LoggedCandidates:
    """Candidate sets of a log. A set that the person was shown is drawn uniformly; its jobs keep the log's order.

    A set that is larger than ``num_candidates`` is cut: it keeps the recommended job and as many other jobs as fit,
    from the first on. With ``n_drawn``, one job that was recommended to the person is shown among ``n_drawn`` jobs that
    are drawn at random. An applicant who is not in the log is shown jobs drawn at random, for which a
    :class:`~jobrec_gym.simulators.logged.LoggedSimulator` has no answer.

    Args:
        interactions: The log.
        n_drawn: How many drawn jobs are shown beside one recommended job; ``num_candidates`` then has no effect.
            ``None`` shows the logged sets.

    Raises:
        ValueError: If ``n_drawn`` is no whole number of at least 1.
        LogError: When bound, if the log has no rows. Without ``n_drawn`` also if the log does not say what was shown,
            or if a set is smaller than ``num_candidates`` or holds a job that may not be shown. With ``n_drawn`` also
            if a recommended job may not be shown, or if ``n_drawn`` is too large.

    Warns:
        UserWarning: With ``n_drawn``, because nobody was shown the drawn jobs.
    """

    def __init__(self, interactions: Interactions, n_drawn: int | None = None):
        if n_drawn is not None:
            if not isinstance(n_drawn, numbers.Integral) or n_drawn < 1:
                raise ValueError(f"`n_drawn` must be at least 1, a whole number, got {n_drawn!r}.")
            warnings.warn(
                f"{n_drawn} of {n_drawn + 1} candidates are drawn at random. Nobody was shown them, so the "
                "lack of an answer says nothing about them: figures from these sets are no measure of recommendations.",
                stacklevel=2,
            )
        self.interactions = interactions
        self.n_drawn = n_drawn

    @property
    def has_own_size(self) -> bool:
        """See :class:`CandidateSampler`: true with ``n_drawn``."""
        return self.n_drawn is not None

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> BoundSampler:
        """See :class:`CandidateSampler`."""
        log = self.interactions.on(market)
        if self.n_drawn is not None:
            if self.n_drawn >= len(job_ids):
                raise LogError(
                    f"`n_drawn` must be below the {len(job_ids)} jobs that may be shown, got {self.n_drawn}."
                )
            _check_may_be_shown(log, log.job_ids, job_ids, "recommended")
            return _BoundDrawn(log, job_ids, self.n_drawn)
        if log.shown_ids is None:
            raise LogError(
                "the log does not say what was shown: give its column `shown`, or show one recommended job among jobs "
                "drawn at random, `LoggedCandidates(log, n_drawn=9)`."
            )
        _check_may_be_shown(log, log.shown_ids, job_ids, "shown")
        smallest = int(log.sizes.min())
        if smallest < num_candidates:
            raise LogError(
                f"`num_candidates` must be at most {smallest}, the size of the log's smallest set, got "
                f"{num_candidates}: nothing is added to what was shown. Show fewer, or take the rows of large sets, "
                f"`log.take(log.sizes >= {num_candidates})`."
            )
        return _BoundLogged(log, job_ids, num_candidates)


SAMPLERS: dict[str, type[CandidateSampler]] = {
    "uniform": UniformCandidates,
    "retrieval": RetrievalCandidates,
    "mixed": MixedCandidates,
    "all": AllCandidates,
}


def make_sampler(sampler: str | CandidateSampler) -> CandidateSampler:
    """The sampler that a name stands for; an object is returned unchanged.

    Raises:
        ValueError: For an unknown name, an object without ``bind``, or a class in place of an object.
    """
    if isinstance(sampler, str):
        if sampler not in SAMPLERS:
            near = best_match(sampler, SAMPLERS)
            hint = f' Did you mean "{near}"?' if near else ""
            raise ValueError(
                f"`candidate_sampler` must be one of {tuple(SAMPLERS)} or an object, got {sampler!r}.{hint}"
            )
        return SAMPLERS[sampler]()
    if isinstance(sampler, type) or not hasattr(sampler, "bind"):
        raise ValueError(
            f"`candidate_sampler` must be one of {tuple(SAMPLERS)} or have `bind(market, job_ids, num_candidates)`, "
            f"got {sampler!r}."
        )
    return sampler


def check_sampler(sampler: BoundSampler, applicant_ids: Ids, job_ids: Ids) -> None:
    """Draws a set for each of n applicants, and refuses sets of a wrong form.

    Args:
        sampler: The sampler, tied to its market.
        applicant_ids: (n,), n at least 2: with one, a set (k,) would pass for sets (1, k).
        job_ids: (m,), the jobs that may be shown, ascending.

    Raises:
        ValueError: If the sets are not integers (n, k), or hold a job twice or one that may not be shown.
    """
    wanted = len(applicant_ids), int(sampler.num_candidates)
    given = sampler.sample(applicant_ids, hash64(np.arange(len(applicant_ids))))
    shown = np.asarray(given)
    if shown.shape != wanted or shown.dtype.kind not in "iu":
        raise ValueError(
            f"`candidate_sampler` must draw integers of shape {wanted} for {wanted[0]} applicants, got {shown.dtype} "
            f"of shape {shown.shape}."
        )
    if not np.isin(shown, job_ids).all():
        raise ValueError(f"`candidate_sampler` must draw from `job_ids`, got {np.setdiff1d(shown, job_ids)[0]} too.")
    if (repeated := first_repeated(shown)) is not None:
        raise ValueError(f"`candidate_sampler` must draw distinct jobs, got {repeated} twice.")


def first_repeated(sets: NDArray[np.integer]) -> int | None:
    """A number that a row of (n, k) holds twice; ``None`` if there is none."""
    ordered = np.sort(sets, axis=1)
    repeated = ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]]
    return int(repeated[0]) if repeated.size else None


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
        # Drawn jobs that are also retrieved go to the end. `num_candidates` were drawn, so enough new jobs come first.
        repeated = (drawn[:, :, None] == nearest[:, None, :]).any(axis=2)
        others = np.take_along_axis(drawn, np.argsort(repeated, axis=1, kind="stable"), axis=1)
        return _shuffled(np.concatenate([nearest, others[:, : self.num_candidates - nearest.shape[1]]], axis=1), keys)


class _LoggedRows:
    """The rows of a log by applicant."""

    def __init__(self, log: Interactions):
        self._order = np.argsort(log.applicant_ids, kind="stable")
        self._people, self._first, self._n = np.unique(
            log.applicant_ids[self._order], return_index=True, return_counts=True
        )

    def draw(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> tuple[Ids, NDArray[np.bool_]]:
        """One row of the log for each applicant (n,), and whether the applicant has any."""
        places = np.searchsorted(self._people, applicant_ids).clip(max=len(self._people) - 1)
        rows = self._order[self._first[places] + bounded(hash64(keys, _LOGGED), self._n[places])]
        return rows, self._people[places] == applicant_ids


class _BoundLogged:
    def __init__(self, log: Interactions, job_ids: Ids, num_candidates: int):
        self.num_candidates = num_candidates
        self._rows = _LoggedRows(log)
        self._uniform = _BoundUniform(job_ids, num_candidates)
        self._sets = np.stack([_cut(log.shown(row), log.job_ids[row], num_candidates) for row in range(len(log))])

    def sample(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> Ids:
        rows, is_logged = self._rows.draw(applicant_ids, keys)
        return np.where(is_logged[:, None], self._sets[rows], self._uniform.sample(applicant_ids, keys))


class _BoundDrawn:
    def __init__(self, log: Interactions, job_ids: Ids, n_drawn: int):
        self.num_candidates = n_drawn + 1
        self._rows = _LoggedRows(log)
        self._job_ids = log.job_ids
        self._uniform = _BoundUniform(job_ids, self.num_candidates)

    def sample(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> Ids:
        rows, is_logged = self._rows.draw(applicant_ids, keys)
        drawn = self._uniform.sample(applicant_ids, keys)
        seen = np.where(is_logged, self._job_ids[rows], drawn[:, 0])
        # If the seen job was drawn too, it keeps its place; if not, it takes the place of the first drawn job.
        place = (drawn == seen[:, None]).argmax(axis=1)
        drawn[np.arange(len(drawn)), place] = seen
        return _shuffled(drawn, keys)


def _check_may_be_shown(log: Interactions, logged: Ids, job_ids: Ids, what: str) -> None:
    """Checks that a log has rows, and that all jobs ``logged`` are among ``job_ids``; ``what`` is for the message."""
    if not len(log):
        raise LogError("the log has no rows, so there is nothing to show: check what `take` or `split` left of it.")
    hidden = np.setdiff1d(logged, job_ids)
    if len(hidden):
        raise LogError(
            f"`job_split` leaves out {len(hidden)} of the jobs that were {what}, such as "
            f"{str(log.market.jobs.keys[hidden[0]])!r}: use job_split='all'."
        )


def _cut(shown: Ids, recommended: int, k: int) -> Ids:
    """The first k jobs of a set. If the recommended job is not among them, it takes the place of the last."""
    cut = shown[:k].copy()
    if recommended not in cut:
        cut[-1] = recommended
    return cut


class _NearestJobs:
    """Nearest jobs, kept once found. Each applicant has its own search, so others in a batch change no bit."""

    def __init__(self, market: LabourMarket, job_ids: Ids, n_nearest: int, exact_up_to: int):
        self._market = market
        self._job_ids = job_ids
        self._n_nearest = n_nearest
        self._cache: dict[int, Ids] = {}
        self._is_exact = len(job_ids) <= exact_up_to
        n_jobs = len(market.jobs)
        self._subset = None if len(job_ids) == n_jobs else JobSubset.of(job_ids, n_jobs)
        if not self._is_exact:
            # The index is built now, so that the first reset need not wait. The sampler does not hold the index,
            # because samplers are copied.
            open_index(market)

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
    """Vectors of some jobs. All environments on a market share them; no environment holds or copies them."""
    return market.jobs.vectors[np.frombuffer(job_ids, dtype=np.int64)].astype(np.float32, copy=False)


def _shuffled(jobs: Ids, keys: NDArray[np.uint64]) -> Ids:
    order = permute(hash64(keys, _SHUFFLE)[:, None], np.arange(jobs.shape[1]), jobs.shape[1])
    return np.take_along_axis(jobs, order, axis=1)
