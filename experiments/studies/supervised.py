"""Supervised learners of rewards. They show how much there is to learn from the numbers that a recommender sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import LinearOperator, cg
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from dynaq_algo.gaussian_process import DEFAULT_SCALES
from jobrec_gym import LabourMarket
from jobrec_gym.market import BLOCKS

__all__ = [
    "SUPERVISED",
    "BoostedTrees",
    "GaussianProcessRegression",
    "JobEffectRidge",
    "ShownPairs",
    "SupervisedLearner",
    "Vectors",
]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ShownPairs:
    """n pairs, with what a learner may know of them.

    Attributes:
        applicant_ids: (n,), rows of the applicants' vectors.
        job_ids: (n,), rows of the jobs' vectors.
        numbers: float64 (n, p), the pair features that the observation shows; p may be 0.
    """

    applicant_ids: Ids
    job_ids: Ids
    numbers: Floats

    def __len__(self) -> int:
        return len(self.job_ids)

    def take(self, rows: slice) -> ShownPairs:
        """Some of the pairs, in order."""
        return ShownPairs(self.applicant_ids[rows], self.job_ids[rows], self.numbers[rows])


class Vectors:
    """The vectors of a market, minus the mean job. What all texts have in common says nothing about which jobs fit.

    Args:
        market: The market.
        job_ids: The jobs that may be recommended, over which the mean is taken.

    Attributes:
        applicants: float32 (n_applicants, d).
        jobs: float32 (n_jobs, d).
        job_ids: The given job ids.
    """

    def __init__(self, market: LabourMarket, job_ids: Ids):
        jobs = np.asarray(market.jobs.vectors, np.float32)
        centre = jobs[job_ids].mean(axis=0)
        self.applicants = np.asarray(market.applicants.vectors, np.float32) - centre
        self.jobs = jobs - centre
        self.job_ids = job_ids
        size = market.block_dim
        self._blocks = [
            (_unit(self.applicants[:, start : start + size]), _unit(self.jobs[:, start : start + size]))
            for start in range(0, size * len(BLOCKS), size)
        ]

    def similarities(self, pairs: ShownPairs) -> Floats:
        """Cosine of the hard and of the soft blocks of pairs, (n, 2)."""
        columns = [_row_products(own, other, pairs.applicant_ids, pairs.job_ids) for own, other in self._blocks]
        return np.stack(columns, axis=1).astype(np.float64)


class SupervisedLearner(Protocol):
    """Learns rewards of pairs."""

    def fit(self, pairs: ShownPairs, rewards: Floats) -> Self:
        """Learns noisy rewards (n,) of pairs."""

    def predict(self, pairs: ShownPairs) -> Floats:
        """Predicted rewards (n,)."""


class JobEffectRidge:
    """Ridge regression with an effect of each job.

    Its columns are block similarities and pair features, each of standard deviation 1; principal components of both
    sides, scaled so that the first has standard deviation 1; products of the leading components; and an indicator of
    each job that was met.

    Args:
        vectors: Vectors of the market.
        n_components: Number of principal components of each side.
        n_crossed: How many leading components of one side are multiplied with as many of the other.
        shown_penalty: Penalty of the weights of similarities and pair features.
        component_penalty: Penalty of the weights of components and products.
        job_penalty: Penalty of the effects of jobs.
    """

    def __init__(
        self,
        vectors: Vectors,
        n_components: int = 48,
        n_crossed: int = 32,
        shown_penalty: float = 10.0,
        component_penalty: float = 1_000.0,
        job_penalty: float = 30.0,
    ):
        self._vectors = vectors
        self._n_components, self._n_crossed = n_components, n_crossed
        self._penalties = shown_penalty, component_penalty, component_penalty, component_penalty, job_penalty
        self._ridge = Ridge(alpha=1.0, solver="cholesky")

    def fit(self, pairs: ShownPairs, rewards: Floats) -> Self:
        """See :class:`SupervisedLearner`."""
        self._sides = _Components(self._vectors, pairs, self._n_components)
        self._shown = _Standardised(self._vectors, pairs)
        self._met = np.unique(pairs.job_ids)
        self._ridge.fit(self._design(pairs), rewards)
        return self

    def predict(self, pairs: ShownPairs) -> Floats:
        """See :class:`SupervisedLearner`."""
        parts = [slice(start, start + _PIECE) for start in range(0, len(pairs), _PIECE)]
        return np.concatenate([self._ridge.predict(self._design(pairs.take(part))) for part in parts])

    def _design(self, pairs: ShownPairs) -> Floats:
        s, a = self._sides(pairs)
        crossed = s[:, : self._n_crossed, None] * a[:, None, : self._n_crossed]
        columns = self._shown(pairs), s, a, crossed.reshape(len(pairs), -1), pairs.job_ids[:, None] == self._met
        # A column divided by the root of its penalty has the penalty 1.
        return np.concatenate([part / penalty**0.5 for part, penalty in zip(columns, self._penalties, strict=True)], 1)


class BoostedTrees:
    """Gradient boosting on a few columns: block similarities, pair features, principal components, the job's mean.

    The mean reward of a rarely met job is shrunk towards the mean of all jobs. In training this mean leaves out
    the pair itself, which would reveal the pair's reward.

    Args:
        vectors: Vectors of the market.
        n_components: Number of principal components of each side.
        n_trees: Number of trees.
        learning_rate: Factor of each tree's output.
        max_leaf_nodes: Most leaves of a tree.
        seed: Seed of the binning.
    """

    _PRIOR_COUNT = 5.0

    def __init__(
        self,
        vectors: Vectors,
        n_components: int = 12,
        n_trees: int = 100,
        learning_rate: float = 0.05,
        max_leaf_nodes: int = 4,
        seed: int = 0,
    ):
        self._vectors = vectors
        self._n_components = n_components
        self._trees = HistGradientBoostingRegressor(
            max_iter=n_trees,
            learning_rate=learning_rate,
            max_leaf_nodes=max_leaf_nodes,
            early_stopping=False,
            random_state=seed,
        )

    def fit(self, pairs: ShownPairs, rewards: Floats) -> Self:
        """See :class:`SupervisedLearner`."""
        self._sides = _Components(self._vectors, pairs, self._n_components)
        n_jobs = len(self._vectors.jobs)
        surprise = rewards - rewards.mean()
        self._totals = np.bincount(pairs.job_ids, surprise, n_jobs).astype(np.float64)
        self._counts = np.bincount(pairs.job_ids, minlength=n_jobs)
        totals, counts = self._totals[pairs.job_ids] - surprise, self._counts[pairs.job_ids] - 1
        self._trees.fit(self._columns(pairs, totals, counts), rewards)
        return self

    def predict(self, pairs: ShownPairs) -> Floats:
        """See :class:`SupervisedLearner`."""
        return self._trees.predict(self._columns(pairs, self._totals[pairs.job_ids], self._counts[pairs.job_ids]))

    def _columns(self, pairs: ShownPairs, totals: Floats, counts: NDArray[np.integer]) -> Floats:
        s, a = self._sides(pairs)
        of_job = totals / (counts + self._PRIOR_COUNT)
        return np.concatenate([self._vectors.similarities(pairs), pairs.numbers, s, a, of_job[:, None]], axis=1)


class GaussianProcessRegression:
    """The Gaussian process of :class:`dynaq_algo.GaussianProcess` without its prior mean, exact for many pairs.

    The covariance of two pairs is a sum of products. In each product one factor depends only on the two applicants, and
    the other only on the two jobs. The covariance matrix can therefore be multiplied with a vector without being
    stored, and conjugate gradients find the posterior mean.

    Args:
        vectors: Vectors of the market.
        scales: Prior standard deviation of each part, by the names of
            :data:`dynaq_algo.gaussian_process.DEFAULT_SCALES`.
        noise: Standard deviation of a reward around its mean.
        tolerance: Largest residual relative to the rewards.
    """

    def __init__(
        self,
        vectors: Vectors,
        scales: Mapping[str, float] = DEFAULT_SCALES,
        noise: float = 0.3,
        tolerance: float = 1e-3,
    ):
        self._vectors = vectors
        self._applicants, self._jobs = _unit(vectors.applicants), _unit(vectors.jobs)
        self._variance = {part: float(scale) ** 2 for part, scale in scales.items()}
        self._noise, self._tolerance = noise, tolerance

    def fit(self, pairs: ShownPairs, rewards: Floats) -> Self:
        """See :class:`SupervisedLearner`."""
        n = len(pairs)
        self._seen_applicants, rows = np.unique(pairs.applicant_ids, return_inverse=True)
        self._seen_jobs, columns = np.unique(pairs.job_ids, return_inverse=True)
        self._rows, self._columns = rows, columns
        self._mean = rewards.mean()
        self._shown = _Standardised(self._vectors, pairs)
        self._known = self._shown(pairs)
        names = ["similarity"] * len(BLOCKS) + ["pairs"] * pairs.numbers.shape[1]
        self._shown_variance = np.array([self._variance[name] for name in names])
        covariance = self._covariance(pairs)
        noisy = LinearOperator((n, n), lambda vector: covariance(vector) + self._noise**2 * vector, dtype=np.float64)
        self._alpha, failed = cg(noisy, rewards - self._mean, rtol=self._tolerance, maxiter=n)
        if failed:
            raise RuntimeError(f"The posterior of {n:,} pairs was not found in {n:,} steps: raise `tolerance`.")
        return self

    def predict(self, pairs: ShownPairs) -> Floats:
        """See :class:`SupervisedLearner`."""
        return self._mean + self._covariance(pairs)(self._alpha)

    def _covariance(self, pairs: ShownPairs) -> Callable[[Floats], Floats]:
        """A function that multiplies the covariance (n, n_seen) of pairs and seen pairs with a vector (n_seen,)."""
        of, shown = self._variance, self._shown(pairs)
        applicants, i = np.unique(pairs.applicant_ids, return_inverse=True)
        jobs, j = np.unique(pairs.job_ids, return_inverse=True)
        states = self._applicants[applicants] @ self._applicants[self._seen_applicants].T
        actions = self._jobs[self._seen_jobs] @ self._jobs[jobs].T
        same_states, same_actions = (products > _SAME for products in (states, actions))
        # Each line has a factor of the applicants (1, whether they are equal, their product, or its square), and the
        # factor of the jobs that belongs to it.
        by_applicant = (
            (np.ones_like(states), of["constant"] + of["action"] * actions + of["same_action"] * same_actions),
            (same_states.astype(np.float32), of["same_state"] + of["same_pair"] * same_actions),
            (states, of["state"] + of["bilinear"] * actions),
            (states**2, of["quadratic"] * actions**2),
        )
        factors = [(left, right.astype(np.float32)) for left, right in by_applicant]

        def times(vector: Floats) -> Floats:
            shape = len(self._seen_applicants), len(self._seen_jobs)
            grid = csr_array(coo_array((vector.astype(np.float32), (self._rows, self._columns)), shape))
            result = shown @ (self._shown_variance * (self._known.T @ vector))
            for left, right in factors:
                result += _row_products(left, np.ascontiguousarray((grid @ right).T), i, j)
            return result

        return times


SUPERVISED: Mapping[str, Callable[[Vectors], SupervisedLearner]] = {
    "ridge with job effects": JobEffectRidge,
    "gradient boosting": BoostedTrees,
    "Gaussian process": GaussianProcessRegression,
}
"""Learners by their names on a card."""

_SAME = 1 - 1e-5
"""Two vectors are the same if their cosine is above this."""

_PIECE = 4_096


class _Standardised:
    """Block similarities and pair features with mean 0 and standard deviation 1 over the pairs that were met."""

    def __init__(self, vectors: Vectors, pairs: ShownPairs):
        self._vectors = vectors
        columns = self._columns(pairs)
        self._mean, spread = columns.mean(axis=0), columns.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)

    def __call__(self, pairs: ShownPairs) -> Floats:
        return (self._columns(pairs) - self._mean) / self._spread

    def _columns(self, pairs: ShownPairs) -> Floats:
        return np.concatenate([self._vectors.similarities(pairs), pairs.numbers], axis=1)


class _Components:
    """Principal components of both sides: of the applicants that were met, and of all jobs."""

    def __init__(self, vectors: Vectors, pairs: ShownPairs, n_components: int):
        sides = (
            (vectors.applicants, np.unique(pairs.applicant_ids)),
            (vectors.jobs, vectors.job_ids),
        )
        self._tables = []
        for table, rows in sides:
            components = PCA(min(n_components, *table[rows].shape), random_state=0).fit(table[rows])
            found = components.transform(table).astype(np.float64)
            # The first component gets standard deviation 1, and the others keep their size relative to it.
            self._tables.append(found / (found[rows, 0].std() or 1.0))

    def __call__(self, pairs: ShownPairs) -> tuple[Floats, Floats]:
        applicants, jobs = self._tables
        return applicants[pairs.applicant_ids], jobs[pairs.job_ids]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors at unit length. A zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32, copy=False)


def _row_products(left: NDArray[Any], right: NDArray[Any], left_rows: Ids, right_rows: Ids) -> NDArray[Any]:
    """Dot products of rows of two tables, (n,), in pieces of bounded size."""
    parts = [slice(start, start + _PIECE) for start in range(0, len(left_rows), _PIECE)]
    return np.concatenate([np.einsum("ij,ij->i", left[left_rows[part]], right[right_rows[part]]) for part in parts])
