"""Checks numbers and lists of a config where they enter, before anything else is done."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.folders import RunError

__all__ = ["MOST", "require_common", "require_list", "require_whole"]

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
)
"""Entries that mean the same in all commands that have them, with the smallest and the largest number."""

_COMMON_LISTS = (("seeds", 0, 2**32 - 1), ("points", 0, MOST), ("at", 0, MOST), ("sizes", 1, MOST))
"""Common entries that are lists of whole numbers, with the smallest and the largest number."""

_COMMON_NAMES = (
    *("groups", "learners", "methods", "oracles", "overlaps", "policies", "rankings", "results", "settings", "starts"),
)
"""Common entries that are lists of names."""

_SOME = ("groups", "methods", "overlaps", "policies", "results", "settings", "sizes", "starts")
"""Lists that must not be empty."""


def require_common(cfg: DictConfig) -> None:
    """Checks those entries of a command's config that many commands have.

    An entry that is null or missing, or of another kind in this command, is left to the command.

    Raises:
        RunError: For the first wrong entry.
    """
    for name, least, most in _COMMON:
        if cfg.get(name) is not None and not OmegaConf.is_list(cfg[name]):
            require_whole(name, cfg[name], least, most)
    for name, least, most in _COMMON_LISTS:
        if cfg.get(name) is not None and not OmegaConf.is_dict(cfg[name]):
            require_list(name, cfg[name], least, most)
    for name in _COMMON_NAMES:
        if cfg.get(name) is not None and not OmegaConf.is_list(cfg[name]):
            raise RunError(f"`{name}` must be a list, such as {name}=[{cfg[name]!s:.40}], got {cfg[name]!r:.80}.")
    for name in _SOME:
        if OmegaConf.is_list(cfg.get(name)) and not cfg[name]:
            raise RunError(f"`{name}` must name at least one, got none.")


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
