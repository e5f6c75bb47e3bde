"""What a learner of these features could hope for: a supervised model of many noiseless rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from experiments.opponents import Recommender
from jobrec_gym import UserSimulator, make_simulator
from jobrec_gym.market import BLOCKS, Split
from jobrec_gym.simulators.base import simulator_spec

__all__ = ["CeilingRecommender"]

Obs = Mapping[str, NDArray[Any]]

_BATCH = 4_096


class CeilingRecommender(Recommender):
    """Ridge regression of the expected reward on ``[1, s, a, s x a, cos]``; it is told what no learner knows.

    It sees `n_pairs` random pairs of training applicants and jobs with their expected rewards, before the first
    interaction. s and a are principal components; ``s x a`` is every product of two of them.

    Args:
        env: A ``JobRecVectorEnv``, wrapped in its rewards.
        simulator: Whose expected reward is the truth.
        n_pairs: How many it is told.
        n_components: Principal components of each side.
        penalty: Of the ridge.
        split: Of the applicants that it is told of.
        job_split: Of the jobs.
        gamma: Only for the discounted return of an evaluation.
        seed: Of the pairs.
    """

    def __init__(
        self,
        env: VectorEnv,
        simulator: UserSimulator | dict[str, Any],
        n_pairs: int = 20_000,
        n_components: int = 48,
        penalty: float = 3.0,
        split: Split = "train",
        job_split: Split = "train",
        gamma: float = 0.9,
        seed: int = 0,
    ):
        super().__init__(env, gamma, seed)
        self._simulator = make_simulator(simulator)
        self._options = {
            "n_pairs": n_pairs,
            "n_components": n_components,
            "penalty": penalty,
            "split": split,
            "job_split": job_split,
        }
        market = self._market
        applicants, jobs = market.applicants.rows(split), market.jobs.rows(job_split)
        self._sides = [
            PCA(min(n_components, *population.vectors[rows].shape), random_state=0).fit(population.vectors[rows])
            for population, rows in ((market.applicants, applicants), (market.jobs, jobs))
        ]
        self._ridge = Ridge(alpha=penalty)
        rng = np.random.default_rng(seed)
        who, what = applicants[rng.integers(len(applicants), size=n_pairs)], jobs[rng.integers(len(jobs), size=n_pairs)]
        truth: Any = self._simulator.bind(market)
        features = self._features(market.applicants.vectors[who], market.jobs.vectors[what])
        self._ridge.fit(features, truth.expected_reward(who, what))

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Predicted rewards."""
        jobs = self._job_vectors(obs)
        n, k, dim = jobs.shape
        states = np.repeat(obs["applicant"], k, axis=0)
        rows = jobs.reshape(n * k, dim)
        parts = [slice(start, start + _BATCH) for start in range(0, n * k, _BATCH)]
        return np.concatenate(
            [self._ridge.predict(self._features(states[part], rows[part])) for part in parts]
        ).reshape(n, k)

    def _features(self, states: NDArray[Any], jobs: NDArray[Any]) -> NDArray[np.float64]:
        s, a = (side.transform(vectors) for side, vectors in zip(self._sides, (states, jobs), strict=True))
        products = (s[:, :, None] * a[:, None]).reshape(len(s), -1)
        blocks = (states * jobs).reshape(len(s), len(BLOCKS), -1).sum(axis=-1)
        return np.concatenate([s, a, products, blocks], axis=1, dtype=np.float64)

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "simulator": simulator_spec(self._simulator)}
