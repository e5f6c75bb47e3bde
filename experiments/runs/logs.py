"""Reads the log of a command on a market, by the options that all commands with a log share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobrec_gym import Interactions, LabourMarket

__all__ = ["log_on"]

_HOW = (
    *("columns", "ids", "decisions", "rewards", "events", "separator", "delimiter", "encoding"),
    *("decimal", "date_format", "on_bad", "on_unknown_shown"),
)


def log_on(market: LabourMarket, options: Mapping[str, Any]) -> Interactions:
    """The log ``options["log"]``, read by :func:`~jobrec_gym.load_interactions` with the other options as arguments.

    Args:
        market: The market of the people and jobs.
        options: ``log``, and the arguments of :func:`~jobrec_gym.load_interactions` that are in ``conf/learn.yaml``.

    Raises:
        ValueError: If the log cannot be read.
    """
    # Not at the top: `--help` is answered without numpy.
    from jobrec_gym import load_interactions

    return load_interactions(options["log"], market, **{name: options[name] for name in _HOW})
