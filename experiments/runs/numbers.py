"""Whole numbers that a config may hold: checked where they enter, before anything else is done."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.folders import RunError

__all__ = ["MOST", "require_common", "require_whole"]

MOST = 2**53
"""Counts beyond are not exact in a table of results."""

_COMMON = (
    ("seed", 0, 2**32 - 1),
    ("n_seeds", 1, MOST),
    ("interactions", 0, MOST),
    ("threads", 1, 4096),
    ("n_jobs", 1, MOST),
    ("reps", 1, 10**7),
)
"""Entries that mean the same in every command which has them, with the smallest and the largest number."""


def require_common(cfg: DictConfig) -> None:
    """Checks those entries of a command's config that many commands have; one that is null is left to the command.

    Raises:
        RunError: For the first one that is not as it must be.
    """
    for name, least, most in _COMMON:
        if name in cfg and not OmegaConf.is_missing(cfg, name) and cfg[name] is not None:
            require_whole(name, cfg[name], least, most)
    seeds = cfg.get("seeds")
    if seeds is None:
        return
    if not OmegaConf.is_list(seeds):
        raise RunError(f"`seeds` must be a list, such as seeds=[0,1,2], got {seeds!r:.80}.")
    for seed in seeds:
        require_whole("seeds", seed, 0, 2**32 - 1)


def require_whole(name: str, value: Any, least: int, most: int, optional: bool = False) -> None:
    """Checks a whole number; a float such as 3.0 is one.

    Args:
        name: Of the entry.
        value: What it holds.
        least: The smallest number that is allowed.
        most: The largest.
        optional: Whether nothing, ``None``, is allowed too.

    Raises:
        RunError: If it is no number, not whole, or out of range.
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
