"""A small environment whose applicants climb: what pays now is not what pays in the end."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

PAY = (0.1, 0.4, 1.0)
K, DIM, N_JOBS = 4, 6, 12


class Ladder(gym.Env):
    """Three levels. A job of training lifts the level with chance .8 and pays nothing; a job of work pays by the level.

    Half of the jobs are training. ``progress`` is the level by 2. With ``leaves`` an applicant at the top who is
    recommended training leaves.
    """

    def __init__(self, ids: bool = True, leaves: bool = False, horizon: int = 12):
        rng = np.random.default_rng(0)
        self.action_features = rng.normal(size=(N_JOBS, DIM)).astype(np.float32)
        self.people = rng.normal(size=(30, DIM)).astype(np.float32)
        self.ids, self.leaves, self.horizon = ids, leaves, horizon
        box = gym.spaces.Box
        candidates = box(0, N_JOBS - 1, (K,), np.int64) if ids else box(-np.inf, np.inf, (K, DIM), np.float32)
        self.observation_space = gym.spaces.Dict(
            applicant=box(-np.inf, np.inf, (DIM,), np.float32),
            candidates=candidates,
            pairs=box(0, 1, (K, 1), np.float32),
            progress=box(0, 1, (1,), np.float32),
        )
        self.action_space = gym.spaces.Discrete(K)

    def is_training(self, jobs: np.ndarray) -> np.ndarray:
        return jobs % 2 == 0

    def pair_features(self, applicant_ids: Any, job_ids: Any, progress: Any = None) -> np.ndarray:
        return self.is_training(np.broadcast_arrays(applicant_ids, job_ids)[1]).astype(np.float32)[..., None]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.who, self.level, self.steps = int(self.np_random.integers(30)), 0, 0
        return self._show(), {"applicant_id": self.who}

    def step(self, action: int):
        training = self.is_training(self.shown[action])
        reward = 0.0 if training else PAY[self.level]
        terminated = bool(self.leaves and training and self.level == 2)
        if training and self.np_random.random() < 0.8:
            self.level = min(self.level + 1, 2)
        self.steps += 1
        return self._show(), reward, terminated, self.steps >= self.horizon, {"applicant_id": self.who}

    def get_state(self) -> dict[str, Any]:
        names = ("who", "level", "steps")
        numbers = {name: getattr(self, name) for name in names} | {"shown": self.shown.tolist()}
        return {"rng": self.np_random.bit_generator.state, **numbers}

    def set_state(self, state: dict[str, Any]) -> None:
        self.np_random.bit_generator.state = state["rng"]
        self.who, self.level, self.steps = state["who"], state["level"], state["steps"]
        self.shown = np.array(state["shown"])

    def _show(self) -> dict[str, np.ndarray]:
        # Two of each kind, so that there is always a choice.
        both = [2 * self.np_random.choice(N_JOBS // 2, 2, replace=False) + odd for odd in (0, 1)]
        self.shown = self.np_random.permutation(np.concatenate(both))
        return {
            "applicant": self.people[self.who].copy(),
            "candidates": self.shown.copy() if self.ids else self.action_features[self.shown],
            "pairs": self.is_training(self.shown).astype(np.float32)[:, None],
            "progress": np.array([self.level / 2], np.float32),
        }
