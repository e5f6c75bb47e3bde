"""Checks arguments of Stable-Baselines3's classes, which raise no error for numbers that make no sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from experiments.runs.folders import RunError
from experiments.runs.numbers import is_number

__all__ = ["as_sb3_wants", "require_sb3_arguments"]

_SB3 = ("stable_baselines3.", "sb3_contrib.", "experiments.learners.flat_dqn.")
_AS_IN_SB3 = (*_SB3, "dynaq_algo.")
"""Packages of learners that take ``train_freq`` as Stable-Baselines3 does; ``dynaq_algo`` checks its own arguments."""

_COUNTS = {
    **dict.fromkeys(("buffer_size", "batch_size", "n_steps", "n_epochs", "target_update_interval"), 1),
    **dict.fromkeys(("n_critic_updates", "cg_max_steps", "sub_sampling_factor", "stats_window_size"), 1),
    **dict.fromkeys(("learning_starts", "verbose", "seed"), 0),
    **dict.fromkeys(("gradient_steps", "sde_sample_freq"), -1),
}
"""Whole numbers, each with its smallest allowed value. For ``gradient_steps``, -1 means as many as there are new steps.
For ``sde_sample_freq``, -1 means never within a rollout."""

_SHARES = ("gamma", "tau", "gae_lambda", "exploration_fraction", "exploration_initial_eps", "exploration_final_eps")
"""Numbers from 0 to 1."""

_ABOVE_0 = ("max_grad_norm", "clip_range", "clip_range_vf", "target_kl", "rms_prop_eps")
_NOT_BELOW_0 = ("learning_rate", "vf_coef", "ent_coef")
_ENDLESS = ("max_grad_norm",)
"""Numbers that may be infinite: gradients are then not clipped."""

_OPTIONAL = ("seed", "clip_range_vf", "target_kl")
_EVERY = ("step", "episode")


def require_sb3_arguments(place: str, entry: Mapping[str, Any]) -> None:
    """Checks that the arguments of a learner of Stable-Baselines3 are in the ranges that make sense.

    Learners of ``sb3_contrib`` and ``experiments.learners.flat_dqn`` are checked too. Other learners check their own
    arguments, so they are not looked at.

    The class is not imported. An argument that is itself an object to be made, such as a schedule, is left out.

    Args:
        place: Where the entry stands in the config, for the message.
        entry: The entry, with ``_target_`` and arguments.

    Raises:
        RunError: For the first wrong argument.
    """
    if not _is_of(_SB3, entry):
        return
    for name, value in entry.items():
        if isinstance(value, Mapping) or (value is None and name in _OPTIONAL):
            continue
        must = _must(name, value)
        if must:
            null = " or null" if name in _OPTIONAL else ""
            raise RunError(f"`{place}.{name}` must be {must}{null}, got {value!r:.80}.")


def as_sb3_wants(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that Stable-Baselines3 takes only as tuples, made from the lists of a config; empty if there are none.

    A config cannot hold tuples. Learners of ``sb3_contrib`` and of this project take these arguments likewise.

    Args:
        entry: The entry, with ``_target_`` and arguments.
    """
    several = entry.get("train_freq")
    return {"train_freq": tuple(several)} if _is_of(_AS_IN_SB3, entry) and isinstance(several, list) else {}


def _is_of(packages: tuple[str, ...], entry: Mapping[str, Any]) -> bool:
    return str(entry.get("_target_", "")).startswith(packages)


def _must(name: str, value: Any) -> str:
    """What an argument must be, in words; empty if it is that."""
    if name == "train_freq":
        several = isinstance(value, list | tuple) and len(value) == 2 and value[1] in _EVERY
        right = _is_count(value[0] if several else value, 1)
        return "" if right else "a whole number of 1 or more, or [NUMBER,step] or [NUMBER,episode]"
    if name in _COUNTS:
        least = _COUNTS[name]
        return "" if _is_count(value, least) else f"a whole number of {least} or more, written without a point"
    if name in _SHARES:
        return "" if is_number(value) and 0 <= value <= 1 else "a number in [0, 1]"
    if name in _ABOVE_0:
        is_endless = name in _ENDLESS and value == math.inf
        return "" if is_endless or (is_number(value) and value > 0) else "a number above 0"
    if name in _NOT_BELOW_0:
        return "" if is_number(value) and value >= 0 else "a number of 0 or more"
    return ""


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
