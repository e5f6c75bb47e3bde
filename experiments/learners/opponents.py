"""Simple opponents with the methods of an SB3 algorithm: random, popularity, cosine and the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dynaq_algo.bandits import Bandit
from jobrec_gym import LabourMarket, UserSimulator, make_simulator
from jobrec_gym.simulators.base import simulator_spec

__all__ = [
    "CosineRecommender",
    "OracleRecommender",
    "PopularityRecommender",
    "RandomRecommender",
    "Recommender",
]

Obs = Mapping[str, NDArray[Any]]


class Recommender(Bandit):
    """A bandit that knows its market: the jobs behind the ids, and the vectors of both sides.

    Args:
        env: A ``JobRecVectorEnv``, wrapped or not, with any observation, that resets in the same step.
        gamma: Used only for the discounted return of an evaluation.
        seed: Seed of the environments and of the bandit's own draws.
        **arguments: The subclass's own arguments, which are saved.
    """

    def __init__(self, env: VectorEnv, gamma: float = 0.9, seed: int = 0, **arguments: Any):
        super().__init__(env, gamma, seed, **arguments)
        self._market: LabourMarket = self.env.get_attr("market", indices=0)[0]

    def _job_vectors(self, obs: Obs) -> NDArray[np.floating]:
        """Vectors ``hard | soft`` (n, k, d) of the candidates, given as ids or as features."""
        decisions = self.layout.read(obs)
        if self.layout.uses_ids:
            return self._market.jobs.vectors[decisions.candidates]
        return decisions.candidates[..., : self._market.jobs.vectors.shape[1]]

    def _applicants(self, obs: Obs) -> NDArray[np.float32]:
        """The applicants' vectors (n, d)."""
        return np.reshape(obs["applicant"], (-1, self._market.applicants.vectors.shape[1]))

    def _job_ids(self, obs: Obs) -> NDArray[np.int64]:
        """Ids of the candidates (n, k)."""
        return self.layout.read(obs).candidates

    def _cosine_spread(self) -> tuple[float, float]:
        """Mean and standard deviation of the cosine over a fixed sample of pairs."""
        rng = np.random.default_rng(0)
        applicants, jobs = self._market.applicants, self._market.jobs
        cosine = self._market.cosine(rng.integers(len(applicants), size=2_000), rng.integers(len(jobs), size=2_000))
        return float(cosine.mean()), float(cosine.std()) or 1.0


class RandomRecommender(Recommender):
    """Recommends a uniformly random candidate."""

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Random scores that depend on the seed alone, so that a loaded recommender is evaluated like the saved one."""
        return np.random.default_rng(self.seed).random(self.layout.read(obs).candidates.shape[:2])

    def explore(self, obs: Obs) -> NDArray[np.float64]:
        """New random scores at each call."""
        return self.rng.random(self.layout.read(obs).candidates.shape[:2])


class CosineRecommender(Recommender):
    """Recommends the candidate with the highest cosine to the applicant."""

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Cosines."""
        vectors = self._job_vectors(obs).astype(np.float64)
        return np.einsum("nd,nkd->nk", self._applicants(obs).astype(np.float64), vectors)


class PopularityRecommender(Recommender):
    """Recommends the candidate with the highest mean reward so far, over all applicants.

    Args:
        env: A ``JobRecVectorEnv`` with its reward wrapper.
        shrinkage: Each job begins as if it had earned the overall mean reward this many times.
        epsilon: Share of random choices while learning.
        gamma: See :class:`Recommender`.
        seed: See :class:`Recommender`.

    Raises:
        ValueError: If observations are not ids.
    """

    def __init__(self, env: VectorEnv, shrinkage: float = 2.0, epsilon: float = 0.1, gamma: float = 0.9, seed: int = 0):
        super().__init__(env, gamma, seed, shrinkage=shrinkage, epsilon=epsilon)
        if not self.layout.uses_ids:
            raise ValueError("`env` must be made with `observation='ids'` for popularity.")
        self._shrinkage = shrinkage
        self._epsilon = epsilon
        self._sums = np.zeros(len(self._market.jobs))
        self._counts = np.zeros(len(self._market.jobs))

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Mean rewards of the jobs, shrunk towards the mean of all jobs."""
        overall = self._sums.sum() / max(self._counts.sum(), 1.0)
        means = (self._sums + self._shrinkage * overall) / (self._counts + self._shrinkage)
        return means[self._job_ids(obs)]

    def explore(self, obs: Obs) -> NDArray[np.float64]:
        """Mean rewards with ties broken by chance, or random scores with probability ``epsilon``."""
        means = self.q_values(obs)
        scores = means + 1e-6 * self.rng.random(means.shape)
        explores = self.rng.random(len(scores)) < self._epsilon
        return np.where(explores[:, None], self.rng.random(scores.shape), scores)

    def observe(self, obs: Obs, action: NDArray[np.int64] | int, reward: NDArray[np.floating] | float) -> None:
        """Counts rewards, see :meth:`~dynaq_algo.bandits.Bandit.observe`."""
        shown, action = self._job_ids(obs), np.reshape(action, -1)
        jobs = shown[np.arange(len(shown)), action]
        np.add.at(self._sums, jobs, np.reshape(reward, -1))
        np.add.at(self._counts, jobs, 1.0)

    def get_learned(self) -> dict[str, NDArray[Any]]:
        """The sum and the number of rewards of each job."""
        return {"sums": self._sums, "counts": self._counts}

    def set_learned(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Puts back what :meth:`get_learned` gave."""
        self._sums, self._counts = arrays["sums"], arrays["counts"]


class OracleRecommender(Recommender):
    """Recommends the candidate with the highest expected reward.

    It knows the true expected rewards, and recognises the applicant by the vector.

    Args:
        env: A ``JobRecVectorEnv`` whose observations are ids.
        simulator: The simulator whose expected reward is the truth.
        gamma: See :class:`Recommender`.
        seed: See :class:`Recommender`.

    Raises:
        ValueError: If observations are not ids, two applicants have equal vectors, or answers change the applicant.
    """

    def __init__(self, env: VectorEnv, simulator: UserSimulator | dict[str, Any], gamma: float = 0.9, seed: int = 0):
        made = make_simulator(simulator)
        super().__init__(env, gamma, seed, simulator=simulator_spec(made))
        if not self.layout.uses_ids:
            raise ValueError("`env` must be made with `observation='ids'` for the oracle.")
        if self.layout.progress is not None:
            raise ValueError(
                "`env` changes its applicants, and this oracle knows only the next reward. Any other run in this "
                "environment reports the exact best policy and the best myopic one: see jobrec_gym.oracle.CareerOracle."
            )
        self._truth: Any = made.bind(self._market)
        self._applicant_ids = {_key(vector): row for row, vector in enumerate(self._market.applicants.vectors)}
        if len(self._applicant_ids) < len(self._market.applicants):
            raise ValueError(
                f"market {self._market.name!r} has applicants of equal vectors, whom the oracle cannot tell apart; "
                "the oracle of the evaluation knows them by id: see the references of any other run."
            )

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Expected rewards.

        Raises:
            ValueError: For an applicant whom the market of the environment does not have.
        """
        keys = [_key(vector) for vector in self._applicants(obs)]
        if not self._applicant_ids.keys() >= set(keys):
            raise ValueError(
                f"`obs` shows an applicant whom market {self._market.name!r} of the environment does not have, and the "
                "oracle knows the truth of its own applicants alone: where people are held out of the market, as in "
                "experiments.replay, leave the oracle out."
            )
        applicants = np.array([self._applicant_ids[key] for key in keys])
        return self._truth.expected_reward(applicants[:, None], self._job_ids(obs))


def _key(vector: NDArray[Any]) -> bytes:
    return np.asarray(vector, dtype=np.float32).tobytes()
