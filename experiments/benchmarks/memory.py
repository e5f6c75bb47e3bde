"""Memory of the replay."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from gymnasium.vector import AutoresetMode

from dynaq_algo.layout import CandidateLayout
from dynaq_algo.replay import CandidateReplay
from dynaq_algo.target_values import TargetValues
from experiments.benchmarks.rows import Row
from jobrec_gym import JobRecVectorEnv

__all__ = ["filled_replay", "memory_rows"]

_SB3_BYTES = 2 * 4 * (20 * 768 + 768) + 8 + 4 + 1 + 1
"""Bytes of a transition in SB3's DictReplayBuffer at k = 20, d = 768: two observations, and four numbers."""


def memory_rows(n_transitions: int, num_envs: int = 64) -> Iterator[Row]:
    """Measures a replay of ``n_transitions`` transitions of the default market, k = 20, in both observation modes.

    The figure includes the target network's value of each transition, which DynaQ keeps too.

    The goal is for a million transitions. For fewer, the figure is only reported.
    """
    for observation in ("features", "ids"):
        replay = filled_replay(n_transitions, observation, num_envs)
        yield Row(
            f"replay of {n_transitions:,} transitions, {observation}",
            (replay.nbytes + TargetValues(n_transitions).nbytes) / 1e6,
            "MB",
            f"SB3's DictReplayBuffer: {n_transitions * _SB3_BYTES / 1e9:,.0f} GB",
            150.0 if n_transitions >= 1_000_000 else None,
            "at most",
            {"distinct_states": len(replay.states), "distinct_sets": len(replay.sets)},
        )


def filled_replay(n_transitions: int, observation: str, num_envs: int = 64) -> CandidateReplay:
    """A full replay of random choices."""
    envs = JobRecVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, observation=observation)  # type: ignore[arg-type]
    layout = CandidateLayout(envs.single_observation_space, envs.single_action_space)
    replay = CandidateReplay(n_transitions, layout.state_dim, layout.n_candidates, layout.action_dim, num_envs)
    rng = np.random.default_rng(0)
    obs, _ = envs.reset(seed=0)
    while len(replay) < n_transitions:
        action = rng.integers(layout.n_candidates, size=num_envs)
        next_obs, reward, terminated, _, infos = envs.step(action)
        following = {key: values.copy() for key, values in next_obs.items()}
        # The next observation of an episode's last step is the final one, not that of the reset.
        for row in np.flatnonzero(infos.get("_final_obs", np.zeros(num_envs, bool))):
            for key in following:
                following[key][row] = infos["final_obs"][row][key]
        components = [{"cosine": value} for value in reward.tolist()]
        replay.add(
            layout.read(obs),
            layout.read(following),
            action,
            reward,
            terminated,
            [{"reward_components": component} for component in components],
        )
        obs = next_obs
    return replay
