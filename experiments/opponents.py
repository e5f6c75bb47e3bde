"""Opponents that learn nothing, with the verbs of an SB3 algorithm: random, cosine and the oracle."""

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

__all__ = ["CosineRecommender", "OracleRecommender", "RandomRecommender", "Recommender"]

Obs = Mapping[str, NDArray[Any]]

_ARGUMENTS = "arguments.json"


class Recommender:
    """Plays the candidate of the highest score; a subclass says what the scores are.

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

    def learn(self, total_timesteps: int, callback: BaseCallback, **kwargs: Any) -> Self:
        """Plays, so that what it earns can be compared with what a learner earns; SB3's other keywords do nothing."""
        callback.init_callback(self)  # type: ignore[arg-type]
        callback.on_training_start({"total_timesteps": total_timesteps}, {})
        obs, _ = self.env.reset(seed=self.seed)
        while self.num_timesteps < total_timesteps:
            callback.on_rollout_start()
            obs = self.env.step(self.predict(obs, deterministic=False)[0])[0]
            self.num_timesteps += self.env.num_envs
            callback.on_step()
        callback.on_training_end()
        return self

    def set_logger(self, logger: Logger) -> None:
        """It has nothing to log."""
        self.logger = logger

    def get_env(self) -> VectorEnv:
        """The environments."""
        return self.env

    def save(self, path: Path) -> None:
        """Writes down the little that there is to it: its arguments."""
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(_ARGUMENTS, json.dumps(self._arguments()))

    @classmethod
    def load(cls, path: Path, env: VectorEnv) -> Self:
        """What :meth:`save` wrote, on an environment."""
        with zipfile.ZipFile(path) as file:
            return cls(env, **json.loads(file.read(_ARGUMENTS)))

    def _scores(self, obs: Obs) -> NDArray[np.float64]:
        """What is played while it is meant to explore."""
        return self.q_values(obs)

    def _arguments(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "seed": self.seed}


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
        candidates, applicants = obs["candidates"], obs["applicant"]
        dim = applicants.shape[1]
        vectors = self._market.jobs.vectors[candidates] if candidates.ndim == 2 else candidates[..., :dim]
        return np.einsum("nd,nkd->nk", applicants.astype(np.float64), vectors.astype(np.float64))


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
