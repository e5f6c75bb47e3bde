"""Stable-Baselines3's unchanged DQN on the flattened observation, to compare with agents that read candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from dynaq_algo.vec_env import GymnasiumVecEnv

__all__ = ["FlatDQN"]

Obs = Mapping[str, NDArray[Any]]


class FlatDQN(DQN):
    """SB3's ``DQN`` on a vector environment whose Dict observation is flattened.

    An action is only a place in the candidate set: the network has one output for each place, whichever job stands
    there. The arguments are those of :class:`stable_baselines3.DQN`. Observations must be features.
    """

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, VectorEnv):
            env = _Flattened(GymnasiumVecEnv(env))
        return DQN._wrap_env(env, verbose, monitor_wrapper)

    def predict(
        self,
        observation: Obs | NDArray[Any],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], Any]:
        """The choice for flattened observations, or for the Dict observations of the environment."""
        return super().predict(_flat(observation), state, episode_start, deterministic)

    def q_values(self, obs: Obs) -> NDArray[np.float32]:
        """Q-values (n, k) of a batch."""
        with th.no_grad():
            return self.q_net(th.as_tensor(_flat(obs), device=self.device)).cpu().numpy()


class _Flattened(VecEnvWrapper):
    """Flattens Dict observations into one vector each. Gymnasium's own wrapper refuses same-step autoreset."""

    def __init__(self, venv: VecEnv):
        assert isinstance(venv.observation_space, spaces.Dict)
        size = sum(int(np.prod(space.shape or ())) for space in venv.observation_space.values())
        super().__init__(venv, observation_space=spaces.Box(-np.inf, np.inf, (size,), np.float32))

    def reset(self) -> NDArray[Any]:
        return _flat(self.venv.reset())  # type: ignore[arg-type]

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = _flat(info["terminal_observation"])
        return _flat(obs), rewards, dones, infos  # type: ignore[arg-type]


def _flat(obs: Obs | NDArray[Any]) -> NDArray[Any]:
    """Flattens one observation to (d,), or a batch to (n, d), with the entries in key order."""
    if not isinstance(obs, Mapping):
        return obs
    batched = obs["applicant"].ndim == 2
    rows = [values.reshape(len(values) if batched else 1, -1) for _, values in sorted(obs.items())]
    flat = np.concatenate(rows, axis=1).astype(np.float32)
    return flat if batched else flat[0]
