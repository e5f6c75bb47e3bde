"""The default arguments of `DynaQ.plus`; docs/dynaq_plus.md says what each is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from dynaq_algo.layout import PAIRS, PROGRESS
from dynaq_algo.prior_trust import sources_of
from dynaq_algo.vec_env import what_is_read

__all__ = ["arguments_for", "plus_arguments"]


def arguments_for(
    env: VecEnv, prior_sources: Sequence[str] | Mapping[str, float] | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of :class:`~dynaq_algo.dynaq.DynaQ` that fit these environments' observations.

    :func:`plus_arguments` chooses them.

    Args:
        env: The environments.
        prior_sources: As for :meth:`DynaQ.plus <dynaq_algo.dynaq.DynaQ.plus>`.
        overrides: Arguments that replace defaults; dictionaries are merged entry by entry.

    Raises:
        ValueError: If sources are given and the world model is not a Gaussian process.
    """
    shown = env.observation_space.spaces if isinstance(env.observation_space, spaces.Dict) else {}
    sources = None if prior_sources is None else sources_of(prior_sources)
    names = what_is_read(env).get("pairs")
    has_pairs = PAIRS in shown and (not isinstance(names, list) or bool(set(names) - set(sources or ())))
    return plus_arguments(has_pairs, PROGRESS in shown, overrides, sources)


def plus_arguments(
    has_pairs: bool, has_progress: bool, overrides: Mapping[str, Any], sources: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Arguments of :class:`~dynaq_algo.dynaq.DynaQ`.

    Args:
        has_pairs: Whether the observation has columns of `pairs` that are not sources of the prior.
        has_progress: Whether the observation has `progress`, which answers change.
        overrides: Arguments that replace defaults; dictionaries are merged entry by entry.
        sources: Sources of the prior with the weight of each; None for the block similarities alone.

    Raises:
        ValueError: If sources are given and the world model is not a Gaussian process.
    """
    scales = {
        "constant": 1.0,
        "pairs": 0.06,
        "trust": 0.0,
        "state": 0.15,
        "same_state": 0.2,
        # `pairs` explain a part of what would otherwise be peculiar to a job or to a pair.
        "same_action": 0.11 if has_pairs else 0.15,
        "same_pair": 0.15 if has_pairs else 0.2,
    }
    arguments: dict[str, Any] = {
        "policy": "CandidatePolicy",
        "planning": "decision_time",
        "gamma": 0.0,  # a recommendation changes neither the applicant nor what is shown next
        "learning_starts": 0,  # the prior acts from the first interaction on
        "exploration_initial_eps": 0.0,
        "exploration_final_eps": 0.0,
        "exploration_bonus": 0.5 if has_pairs else 1.0,
        "world_model": "gaussian_process",
        "world_model_kwargs": {
            "noise": 0.3,
            "spike_slab": True,
            "learn_pair_scale": True,
            "residual_pairs": True,
            "scales": scales,
        },
        "policy_kwargs": {"features": "blockwise", "prior": [0.1, 0.1], "net_arch": [128, 128]},
    }
    if has_progress:
        arguments |= {
            "gamma": 0.97,
            "exploration_initial_eps": 0.03,
            "exploration_final_eps": 0.03,
            "exploration_bonus": 0.0,
            "bootstrap": "max",
            "world_model": "transitions",
            "world_model_kwargs": {},
            "planning_steps": 2,
            "buffer_size": 100_000,
        }
        if overrides.get("world_model", "transitions") == "transitions":
            arguments["planning_source"] = "candidates"  # no other world model can use it where episodes terminate
    elif overrides.get("world_model", "gaussian_process") != "gaussian_process":
        del arguments["world_model_kwargs"]  # these defaults are for a Gaussian process
        if overrides["world_model"] == "transitions":
            del arguments["exploration_bonus"]
    if sources is not None:
        model = overrides.get("world_model", arguments["world_model"])
        if model != "gaussian_process":
            raise ValueError(
                f'`prior_sources` need `world_model="gaussian_process"`, got {model!r}, which learns no trust in a '
                "source. Leave them out: their columns of `pairs` are then numbers like any others."
            )
        arguments["world_model_kwargs"]["prior_sources"] = dict(sources)
    return _merged(arguments, overrides)


def _merged(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults with overrides in their place; dictionaries are merged entry by entry."""
    both = {
        name: _merged(defaults[name], value)
        for name, value in overrides.items()
        if isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping)
    }
    return {**defaults, **overrides, **both}
