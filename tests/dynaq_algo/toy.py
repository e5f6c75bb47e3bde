"""Toy environments with a `candidates` entry, for tests of DynaQ without any other package of this project."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

D_STATE, D_ACTION, N_CANDIDATES, N_ACTIONS = 3, 3, 4, 12
N_APPLICANTS, N_PAIRS = 200, 2


def action_table(n_actions: int = N_ACTIONS) -> np.ndarray:
    """The same (n_actions, d_a) float32 table every time."""
    return np.random.default_rng(7).normal(size=(n_actions, D_ACTION)).astype(np.float32)


def applicant_table() -> np.ndarray:
    """The same (n_applicants, d_s) float32 users every time."""
    return np.random.default_rng(8).normal(size=(N_APPLICANTS, D_STATE)).astype(np.float32)


def pair_table() -> np.ndarray:
    """The same (n_applicants, n_actions, p) float32 numbers of pairs every time, which no vector tells."""
    return np.random.default_rng(9).uniform(size=(N_APPLICANTS, N_ACTIONS, N_PAIRS)).astype(np.float32)


class ToyEnv(gym.Env):
    """A user (3,) and 4 of 12 actions; the reward is the mean of the chosen action's product with the user.

    Args:
        ids: Observe candidate ids instead of features.
        mask: Observe an `action_mask` that hides one random candidate.
        terminate_at: End the episode for good after so many steps.
        new_candidates: Draw new candidates at each step, not only at a reset.
        components: Report `reward_components`.
        invalid: Mark each second transition as not valid.
        pairs: Observe `pairs` (4, 2), two numbers of each candidate for one of 200 users. The first is then the reward.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own attribute

    def __init__(
        self,
        ids: bool = False,
        mask: bool = False,
        terminate_at: int | None = None,
        new_candidates: bool = False,
        components: bool = False,
        invalid: bool = False,
        pairs: bool = False,
        table: np.ndarray | None = None,
    ):
        self.ids, self.mask, self.terminate_at = ids, mask, terminate_at
        self.new_candidates, self.components, self.invalid = new_candidates, components, invalid
        self.pairs, self.applicant_id = pairs, -1
        self.table = action_table() if table is None else table
        if ids:
            self.action_features = self.table
        candidates = (
            spaces.Box(0, len(self.table) - 1, (N_CANDIDATES,), np.int64)
            if ids
            else spaces.Box(-np.inf, np.inf, (N_CANDIDATES, D_ACTION), np.float32)
        )
        entries: dict[str, spaces.Space] = {"candidates": candidates}
        entries["user"] = spaces.Box(-np.inf, np.inf, (D_STATE,), np.float32)
        if pairs:
            entries["pairs"] = spaces.Box(0, 1, (N_CANDIDATES, N_PAIRS), np.float32)
        if mask:
            entries["action_mask"] = spaces.Box(0, 1, (N_CANDIDATES,), np.int8)
        self.observation_space = spaces.Dict(entries)
        self.action_space = spaces.Discrete(N_CANDIDATES)
        self.chosen: list[tuple[np.ndarray, int]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        if self.pairs:
            self.applicant_id = int(self.np_random.integers(N_APPLICANTS))
            self.user = applicant_table()[self.applicant_id]
        else:
            self.user = self.np_random.normal(size=D_STATE).astype(np.float32)
        self._draw()
        return self._obs(), {"start": True}

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.mask:
            assert self.allowed[action], "a masked action was chosen"
        reward = float((self.user * self.table[self.members[action]]).mean())
        info: dict[str, Any] = {"steps": self.steps}
        if self.pairs:
            reward = float(pair_table()[self.applicant_id, self.members[action], 0])
            info["applicant_id"] = self.applicant_id
        if self.components:
            info["reward_components"] = {"dot": reward, "constant": 1.0}
        if self.invalid:
            info["transition_valid"] = self.steps % 2 == 0
        if self.new_candidates:
            self._draw()
        return self._obs(), reward, self.steps == self.terminate_at, False, info

    def pair_features(self, applicant_ids: np.ndarray, job_ids: np.ndarray) -> np.ndarray:
        return pair_table()[applicant_ids, job_ids]

    def get_state(self) -> dict[str, Any]:
        names = ("steps", "user", "applicant_id", "members", "allowed")
        return {"rng": self.np_random.bit_generator.state, **{name: getattr(self, name) for name in names}}

    def set_state(self, state: dict[str, Any]) -> None:
        self.np_random.bit_generator.state = state["rng"]
        for name in ("steps", "user", "applicant_id", "members", "allowed"):
            setattr(self, name, state[name])

    def _draw(self) -> None:
        self.members = self.np_random.choice(len(self.table), N_CANDIDATES, replace=False)
        self.allowed = np.ones(N_CANDIDATES, bool)
        self.allowed[self.np_random.integers(N_CANDIDATES)] = not self.mask

    def _obs(self) -> dict[str, np.ndarray]:
        obs = {"candidates": self.members.copy() if self.ids else self.table[self.members], "user": self.user.copy()}
        if self.pairs:
            obs["pairs"] = pair_table()[self.applicant_id, self.members]
        if self.mask:
            obs["action_mask"] = self.allowed.astype(np.int8)
        return obs


def make_toy(max_episode_steps: int | None = 5, **kwargs: Any) -> gym.Env:
    """A toy environment that truncates after `max_episode_steps`."""
    env: gym.Env = ToyEnv(**kwargs)
    return env if max_episode_steps is None else gym.wrappers.TimeLimit(env, max_episode_steps)


class ToyVectorEnv(gym.vector.VectorEnv):
    """n toys behind one native vector environment, with its own `action_features` and `get_state`."""

    def __init__(self, num_envs: int, max_episode_steps: int = 5, **kwargs: Any):
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
        self.envs_within = [make_toy(max_episode_steps, **kwargs) for _ in range(num_envs)]
        self.single_observation_space = self.envs_within[0].observation_space
        self.single_action_space = self.envs_within[0].action_space
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.action_features = action_table()
        self.pair_features = self.envs_within[0].unwrapped.pair_features

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        results = [env.reset(seed=None if seed is None else seed + i) for i, env in enumerate(self.envs_within)]
        infos: dict[str, Any] = {}
        for i, (_, info) in enumerate(results):
            infos = self._add_info(infos, info, i)
        return self._stack([obs for obs, _ in results]), infos

    def step(self, actions: np.ndarray) -> Any:
        infos: dict[str, Any] = {}
        columns = []
        for i, env in enumerate(self.envs_within):
            obs, reward, terminated, truncated, info = env.step(int(actions[i]))
            if terminated or truncated:
                infos = self._add_info(infos, {"final_obs": obs, "final_info": info}, i)
                obs, info = env.reset()
            infos = self._add_info(infos, info, i)
            columns.append((obs, reward, terminated, truncated))
        observations, *rest = zip(*columns, strict=True)
        return self._stack(observations), *(np.array(column) for column in rest), infos

    def action_masks(self) -> np.ndarray:
        return np.array([env.unwrapped.allowed for env in self.envs_within])

    def get_state(self) -> dict[str, Any]:
        return {str(i): [e.unwrapped.get_state(), e._elapsed_steps] for i, e in enumerate(self.envs_within)}

    def set_state(self, state: dict[str, Any]) -> None:
        for i, env in enumerate(self.envs_within):
            inner, env._elapsed_steps = state[str(i)]
            env.unwrapped.set_state(inner)

    @staticmethod
    def _stack(observations: Any) -> dict[str, np.ndarray]:
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
