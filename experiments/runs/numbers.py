"""Checks numbers, switches, lists and names of a config where they enter, before anything else is done."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.folders import RunError
from jobrec_gym.near_miss import best_match

__all__ = [
    "MOST",
    "is_number",
    "require_common",
    "require_known",
    "require_list",
    "require_once",
    "require_switch",
    "require_whole",
]

MOST = 2**53
"""Largest count. Larger ones would not be exact in a table of results."""

_COMMON = (
    ("seed", 0, 2**32 - 1),
    ("n_seeds", 1, MOST),
    ("interactions", 0, MOST),
    ("threads", 1, 4096),
    ("n_jobs", 1, MOST),
    ("reps", 1, 10**7),
    ("n_logs", 1, MOST),
    ("n_people", 1, MOST),
    ("n_resamples", 1, 10**7),
    ("n_pairs", 0, MOST),
    ("n_interactions", 0, MOST),
    *((name, 1, MOST) for name in ("n_episodes", "n_applicants", "n_judged", "n_draws", "window")),
    *((name, 1, MOST) for name in ("variant_applicants", "variant_sets")),
    ("n_queries", 1, MOST),
    *((name, 0, MOST) for name in ("n_matches", "n_sample", "n_repeats", "n_attacked", "n_swaps")),
    ("rounds", 1, MOST),
    ("chunk", 1, MOST),
    ("repeats", 1, MOST),
    ("n_sets", 1, MOST),
    ("n_candidates", 2, MOST),
    ("n_folds", 2, MOST),
    ("k", 1, MOST),
    ("port", 0, 65_535),
    *((name, 0, MOST) for name in ("sessions", "load", "total_timesteps")),
    *((name, 1, MOST) for name in ("n_nearest", "most_visitors", "most_visits", "steps", "num_candidates")),
)
"""Entries that mean the same in all commands that have them, with the smallest and the largest number."""

_NEVER_NULL = ("seed", "n_seeds", "threads", "n_jobs", "reps", "n_resamples", "n_folds", "k", "repeats", "port")
"""Common entries that must not be null. In other common entries null has a meaning of its own."""

_COMMON_SWITCHES = ("trust", "resume", "vectors")
"""Common entries that are true or false."""

_COMMON_CHOICES = {
    **dict.fromkeys(("split", "job_split"), ("train", "test", "all")),
    "ids": ("key", "row"),
    "on_bad": ("raise", "skip"),
}
"""Common entries that are one of some words."""

_COMMON_LISTS = (("seeds", 0, 2**32 - 1), ("points", 0, MOST), ("at", 0, MOST), ("sizes", 1, MOST))
"""Common entries that are lists of whole numbers, with the smallest and the largest number."""

_COMMON_NAMES = (
    *("draw", "groups", "learners", "methods", "only", "oracles", "overlaps", "policies", "rankings", "results"),
    *("settings", "starts"),
)
"""Common entries that are lists of names."""

_SOME = (
    *("at", "groups", "methods", "overlaps", "points", "policies", "results", "seeds", "settings", "sizes", "starts"),
)
"""Lists that must not be empty."""


def require_common(cfg: DictConfig, least_of: Mapping[str, int] | None = None) -> None:
    """Checks those entries of a command's config that many commands have.

    An entry that is null or missing, or of another kind in this command, is left to the command. A whole number that is
    written as a float, such as 1e3, becomes an int, because libraries take no float for a count.

    Args:
        cfg: The command's config.
        least_of: Smallest numbers of entries that must be larger in this command than in others, and never null.

    Raises:
        RunError: For the first wrong entry.
    """
    larger = least_of or {}
    if OmegaConf.is_dict(cfg.get("sizes")) and "size" in cfg:
        require_known("size", [cfg.size], list(cfg.sizes), "`sizes`")  # other entries take their values from `sizes`
    given: Any = OmegaConf.to_container(cfg, resolve=False)
    for name, value in given.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise RunError(f"`{name}` must not be empty text: give a value, or leave {name}= out.")
    for name, common_least, most in _COMMON:
        least = larger.get(name, common_least)
        if name in cfg and cfg.get(name) is None and name in (*_NEVER_NULL, *larger):
            raise RunError(f"`{name}` must be {least} or more, got null.")
        if cfg.get(name) is not None and not OmegaConf.is_list(cfg[name]):
            require_whole(name, cfg[name], least, most)
            if isinstance(cfg[name], float):
                cfg[name] = int(cfg[name])
    for name in _COMMON_SWITCHES:
        if name in cfg:
            require_switch(name, cfg[name])
    for name, known in _COMMON_CHOICES.items():
        if cfg.get(name) is not None and cfg[name] not in known:
            raise RunError(f"`{name}` must be one of {known}, got {cfg[name]!r:.80}.")
    for name, least, most in _COMMON_LISTS:
        if name in cfg and not OmegaConf.is_dict(cfg[name]):
            require_list(name, cfg[name], least, most)
            if any(isinstance(value, float) for value in cfg[name]):
                cfg[name] = [int(value) for value in cfg[name]]
    for name in _COMMON_NAMES:
        if cfg.get(name) is not None and not OmegaConf.is_list(cfg[name]):
            raise RunError(f"`{name}` must be a list, such as {name}=[{cfg[name]!s:.40}], got {cfg[name]!r:.80}.")
    for name in _SOME:
        if OmegaConf.is_list(cfg.get(name)) and not cfg[name]:
            raise RunError(f"`{name}` must name at least one, got none.")
    for name in (*(name for name, _, _ in _COMMON_LISTS), *_COMMON_NAMES):
        if OmegaConf.is_list(cfg.get(name)):
            require_once(name, cfg[name])


def require_known(argument: str, names: Iterable[Any], known: Sequence[str], where: str) -> None:
    """Refuses unknown names.

    Args:
        argument: The argument that gave the names, for the message.
        names: The names to check.
        known: All known names.
        where: The place that lists known names, for the message.

    Raises:
        RunError: For the first unknown name, with the known name that may have been meant.
    """
    for name in names:
        if name not in known:
            near = best_match(str(name), known)
            guess = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}."
            raise RunError(f"`{argument}`: {name!r:.80} is not in {where}: {guess}")


def require_once(name: str, values: Sequence[Any]) -> None:
    """Refuses a list that names something twice: the second would take the place of the first.

    Raises:
        RunError: For the first entry that was there before.
    """
    found = list(values)
    for place, value in enumerate(found):
        if value in found[:place]:
            raise RunError(f"`{name}` must name each once, got {value!r:.80} twice.")


def require_list(name: str, values: Any, least: int, most: int = MOST) -> None:
    """Checks a list of whole numbers.

    Raises:
        RunError: If it is not a list, or :func:`require_whole` refuses an entry.
    """
    if not OmegaConf.is_list(values) and not isinstance(values, list | tuple):
        example = f"{name}=[{least + 1},{least + 2}]"
        raise RunError(f"`{name}` must be a list of whole numbers, such as {example}, got {values!r:.80}.")
    for value in values:
        require_whole(name, value, least, most)


def require_switch(name: str, value: Any, optional: bool = False) -> None:
    """Checks an entry that is true or false. Hydra reads words such as `no` as text, which would count as true.

    Args:
        name: Name of the entry.
        value: Value of the entry.
        optional: Whether ``None`` is allowed too.

    Raises:
        RunError: If the value is something else.
    """
    if value is None and optional:
        return
    if not isinstance(value, bool):
        words = "true, false or null" if optional else "true or false"
        raise RunError(f"`{name}` must be {words}, got {value!r:.80}.")


def is_number(value: Any) -> bool:
    """Whether an entry is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def require_whole(name: str, value: Any, least: int, most: int, optional: bool = False) -> None:
    """Checks a whole number. A float such as 3.0 counts as one.

    Args:
        name: Name of the entry.
        value: Value of the entry.
        least: The smallest allowed number.
        most: The largest allowed number.
        optional: Whether ``None`` is allowed too.

    Raises:
        RunError: If the value is not a number, not whole, or out of range.
    """
    if optional and value is None:
        return
    must_be = f"`{name}` must be {least} or more{' or null' if optional else ''}"
    if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
        raise RunError(f"{must_be}, got {value!r:.80}.")
    if not math.isfinite(value) or value != int(value):
        raise RunError(f"{must_be}, a whole number, got {value!r}.")
    if value > most:
        raise RunError(f"`{name}` must be at most {most:,}, got {int(value):,}.")
