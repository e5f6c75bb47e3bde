"""Which attributes a file of an agent may set, and of what kind they must be."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise

from dynaq_algo.agent_file import AgentFileError
from dynaq_algo.arguments import is_whole
from dynaq_algo.forecasts import TransitionForecasts
from dynaq_algo.policies import CandidatePolicy
from dynaq_algo.world_model import RewardForecasts

__all__ = ["check_attributes"]

# No file of an agent may set these. From `env`, for instance, SB3 would make the environment that the file names.
NEVER_SAVED = {"env", "policy", "device", "replay_buffer"}
# Types of the attributes without which no agent can be built. The constructor checks ranges.
KINDS: dict[Any, tuple[str, ...]] = {
    spaces.Space: ("observation_space", "action_space"),
    dict: ("policy_kwargs", "replay_buffer_kwargs"),
    int: ("verbose", "n_envs", "num_timesteps", "buffer_size", "batch_size", "learning_starts", "gradient_steps"),
    int | float: ("gamma", "tau", "exploration_initial_eps", "exploration_final_eps", "exploration_fraction"),
}
# Types of attributes that a file may lack. If a file has one, learning continues from its value.
KINDS_OF_STATE: dict[Any, tuple[str, ...]] = {
    int: (
        *("_total_timesteps", "_num_timesteps_at_start", "_episode_num", "_n_updates", "_n_calls"),
        *("_stats_window_size", "target_update_interval", "planning_steps", "_n_transitions", "_n_planning_updates"),
        *("_n_scored", "_rollout_steps", "_rollout_episodes", "sde_sample_freq", "n_steps"),
    ),
    int | float: (
        *("start_time", "_current_progress_remaining", "exploration_rate", "exploration_bonus", "weight_pull"),
        "max_grad_norm",
    ),
    int | None: ("seed",),
    bool: ("relabel", "use_sde", "use_sde_at_warmup", "_gradient_steps_by_default", "_is_anchored"),
    str: ("planning", "bootstrap", "world_model_name"),
    dict: ("world_model_kwargs", "_component_windows", "_told"),
    list: ("save_without",),
    dict | None: ("reads",),
    deque | None: ("ep_info_buffer", "ep_success_buffer"),
    np.ndarray | dict | None: ("_last_obs", "_last_original_obs", "_last_episode_starts"),
    ActionNoise | None: ("action_noise",),
    RewardForecasts: ("forecasts",),
    TransitionForecasts: ("transition_forecasts",),
}


def check_attributes(shown: Any, data: Mapping[str, Any], agent_class: type) -> None:
    """Refuse attributes that do not belong to the state of an agent, or are of another type.

    Args:
        shown: How errors name the file.
        data: The attributes that the file sets, by name.
        agent_class: The agent's class. A file may not set a name that the class itself defines.

    Raises:
        AgentFileError: If there is such an attribute.
    """
    if wrong := [name for name in data if hasattr(agent_class, name) or name in NEVER_SAVED]:
        raise AgentFileError(f"{shown} sets `{wrong[0]}`, which is no argument of an agent. Save the agent again.")
    policy = data.get("policy_class")
    if not (isinstance(policy, type) and issubclass(policy, CandidatePolicy)):
        raise AgentFileError(f"{shown}: `policy_class` must be a CandidatePolicy, got {policy!r:.80}.")
    wanted = [(name, kind) for kind, names in KINDS.items() for name in names]
    wanted += [(name, kind) for kind, names in KINDS_OF_STATE.items() for name in names if name in data]
    for name, kind in wanted:
        if not isinstance(data.get(name), kind) or (isinstance(data[name], bool) and kind is not bool):
            raise AgentFileError(f"{shown}: `{name}` must be {kind}, got {data.get(name)!r:.80}. Save the agent again.")
    if not all(is_whole(n) for n in data.get("_told", {}).values()):
        raise AgentFileError(f"{shown}: `_told` must hold whole numbers. Save the agent again.")
    if not all(isinstance(name, str) for name in data.get("save_without", [])):
        raise AgentFileError(f"{shown}: `save_without` must hold names. Save the agent again.")
