"""Simple opponents with the verbs of an SB3 algorithm: random, popularity, cosine and the oracle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

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

_ARGUMENTS = "arguments.json"
_LEARNED = "learned.npz"


class Recommender:
    """Plays the candidate of the highest score; a subclass says what the scores are, and what it learns from rewards.

    Args:
        env: A ``JobRecVectorEnv``, wrapped or not, of any observation.
        gamma: Only for the discounted return of an evaluation.
        seed: Of the environments, and of its own draws.
    """

    def __init__(self, env: VectorEnv, gamma: float = 0.9, seed: int = 0):
        self.env = env
        self.gamma = gamma
        self.seed = seed
        self.num_timesteps = 0
        self.logger = Logger(None, [])
        self._market: LabourMarket = env.unwrapped.market
        self._rng = np.random.default_rng(seed)
        self._options: dict[str, Any] = {}  # a subclass's own arguments, as they are saved

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Scores (n, k) of a batch of n observations."""
        raise NotImplementedError

    def predict(
        self, obs: Obs, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[NDArray[np.int64], Any]:
        """The allowed candidate of the highest score, (n,) for a batch, () for one observation."""
        single = np.ndim(obs["applicant"]) == 1
        batch = {key: values[None] for key, values in obs.items()} if single else obs
        scores = self.q_values(batch) if deterministic else self._scores(batch)
        if "action_mask" in batch:
            scores = np.where(batch["action_mask"], scores, -np.inf)
        actions = scores.argmax(axis=1)
        return (actions[0] if single else actions), state

    def learn(
        self, total_timesteps: int, callback: BaseCallback, reset_num_timesteps: bool = True, **kwargs: Any
    ) -> Self:
        """Plays, so that what it earns can be compared with what a learner earns; SB3's other keywords do nothing."""
        self.num_timesteps = 0 if reset_num_timesteps else self.num_timesteps
        until = self.num_timesteps + total_timesteps
        callback.init_callback(self)  # type: ignore[arg-type]
        callback.on_training_start({"total_timesteps": total_timesteps}, {})
        obs, _ = self.env.reset(seed=self.seed)
        while self.num_timesteps < until:
            callback.on_rollout_start()
            actions = self._play(obs)
            seen, (obs, rewards, _, _, infos) = obs, self.env.step(actions)
            valid = np.asarray(infos.get("transition_valid", np.ones(len(actions))), dtype=bool)
            self._observe(seen, actions, np.asarray(rewards), np.flatnonzero(valid))
            self.num_timesteps += self.env.num_envs
            callback.on_step()
        callback.on_training_end()
        return self

    def set_logger(self, logger: Logger) -> None:
        """It has nothing to log."""
        self.logger = logger

    def set_env(self, env: VectorEnv) -> None:
        """Goes on in other environments, of the same market."""
        self.env = env

    def get_env(self) -> VectorEnv:
        """The environments."""
        return self.env

    def save(self, path: Path) -> None:
        """Writes down its arguments and what it learned."""
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(_ARGUMENTS, json.dumps(self._arguments()))
            with archive.open(_LEARNED, "w") as file:
                np.savez(file, **self._learned())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path, env: VectorEnv) -> Self:
        """What :meth:`save` wrote, on an environment."""
        with zipfile.ZipFile(path) as archive:
            recommender = cls(env, **json.loads(archive.read(_ARGUMENTS)))
            with archive.open(_LEARNED) as file, np.load(file, allow_pickle=False) as arrays:
                recommender._restore(dict(arrays))
        return recommender

    def _scores(self, obs: Obs) -> NDArray[np.float64]:
        """What is played while it is meant to explore."""
        return self.q_values(obs)

    def _play(self, obs: Obs) -> NDArray[np.int64]:
        """The choices (n,) that are made while it learns."""
        return self.predict(obs, deterministic=False)[0]

    def _observe(
        self, obs: Obs, actions: NDArray[np.int64], rewards: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> None:
        """Learns from what :meth:`_play` chose.

        Args:
            obs: n observations.
            actions: (n,).
            rewards: (n,).
            rows: Which of them mean something.
        """

    def _learned(self) -> dict[str, NDArray[Any]]:
        """What acts greedily, apart from the arguments."""
        return {}

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Puts back what :meth:`_learned` gave."""

    def _job_vectors(self, obs: Obs) -> NDArray[np.floating]:
        """Vectors ``hard | soft`` (n, k, d) of the candidates, given as ids or as features."""
        shown = obs["candidates"]
        return self._market.jobs.vectors[shown] if shown.ndim == 2 else shown[..., : obs["applicant"].shape[1]]

    def _cosine_spread(self) -> tuple[float, float]:
        """Mean and standard deviation of the cosine over a fixed sample of pairs."""
        rng = np.random.default_rng(0)
        applicants, jobs = self._market.applicants, self._market.jobs
        cosine = self._market.cosine(rng.integers(len(applicants), size=2_000), rng.integers(len(jobs), size=2_000))
        return float(cosine.mean()), float(cosine.std()) or 1.0

    def _arguments(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "seed": self.seed, **self._options}


class RandomRecommender(Recommender):
    """Any candidate, with equal chance."""

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """The same draws at each call, by the seed alone: a loaded one is evaluated as the saved one was."""
        return np.random.default_rng(self.seed).random(obs["candidates"].shape[:2])

    def _scores(self, obs: Obs) -> NDArray[np.float64]:
        return self._rng.random(obs["candidates"].shape[:2])


class CosineRecommender(Recommender):
    """The candidate nearest to the applicant by cosine."""

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Cosines."""
        vectors = self._job_vectors(obs).astype(np.float64)
        return np.einsum("nd,nkd->nk", obs["applicant"].astype(np.float64), vectors)


class PopularityRecommender(Recommender):
    """The candidate of the highest mean reward so far, whoever it was shown to.

    Args:
        env: A ``JobRecVectorEnv``, wrapped in its rewards.
        shrinkage: How many rewards of the overall mean a job begins with.
        epsilon: Share of choices made at random while learning.
        gamma: As for every opponent.
        seed: As for every opponent.

    Raises:
        ValueError: If observations are not ids.
    """

    def __init__(self, env: VectorEnv, shrinkage: float = 2.0, epsilon: float = 0.1, gamma: float = 0.9, seed: int = 0):
        super().__init__(env, gamma, seed)
        if env.single_observation_space["candidates"].dtype != np.int64:  # type: ignore[index]
            raise ValueError("`env` must be made with `observation='ids'` for popularity.")
        self._options = {"shrinkage": shrinkage, "epsilon": epsilon}
        self._shrinkage = shrinkage
        self._epsilon = epsilon
        self._sums = np.zeros(len(self._market.jobs))
        self._counts = np.zeros(len(self._market.jobs))

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Mean rewards, shrunk to the mean of all."""
        overall = self._sums.sum() / max(self._counts.sum(), 1.0)
        means = (self._sums + self._shrinkage * overall) / (self._counts + self._shrinkage)
        return means[obs["candidates"]]

    def _scores(self, obs: Obs) -> NDArray[np.float64]:
        scores = self.q_values(obs) + 1e-6 * self._rng.random(obs["candidates"].shape)  # ties by chance
        explores = self._rng.random(len(scores)) < self._epsilon
        return np.where(explores[:, None], self._rng.random(scores.shape), scores)

    def _observe(
        self, obs: Obs, actions: NDArray[np.int64], rewards: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> None:
        jobs = obs["candidates"][rows, actions[rows]]
        np.add.at(self._sums, jobs, rewards[rows])
        np.add.at(self._counts, jobs, 1.0)

    def _learned(self) -> dict[str, NDArray[Any]]:
        return {"sums": self._sums, "counts": self._counts}

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._sums, self._counts = arrays["sums"], arrays["counts"]


class OracleRecommender(Recommender):
    """The candidate of the highest expected reward. It knows the truth, and who the applicant is by the vector.

    Args:
        env: With observations of ids.
        simulator: Whose expected reward is the truth.
        gamma: As for every opponent.
        seed: As for every opponent.

    Raises:
        ValueError: If observations are not ids, or two applicants cannot be told apart.
    """

    def __init__(self, env: VectorEnv, simulator: UserSimulator | dict[str, Any], gamma: float = 0.9, seed: int = 0):
        super().__init__(env, gamma, seed)
        if env.single_observation_space["candidates"].dtype != np.int64:  # type: ignore[index]
            raise ValueError("`env` must be made with `observation='ids'` for the oracle.")
        self._simulator = make_simulator(simulator)
        self._truth: Any = self._simulator.bind(self._market)
        self._applicant_ids = {_key(vector): row for row, vector in enumerate(self._market.applicants.vectors)}
        if len(self._applicant_ids) < len(self._market.applicants):
            raise ValueError(
                f"market {self._market.name!r} has applicants of equal vectors, whom the oracle cannot tell apart; "
                "the oracle of the evaluation knows them by id: see the references of any other run."
            )

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Expected rewards."""
        applicants = np.array([self._applicant_ids[_key(vector)] for vector in obs["applicant"]])
        return self._truth.expected_reward(applicants[:, None], obs["candidates"])

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "simulator": simulator_spec(self._simulator)}


def _key(vector: NDArray[Any]) -> bytes:
    return np.asarray(vector, dtype=np.float32).tobytes()
