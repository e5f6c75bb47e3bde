"""How often each decision is made where numbers of pairs are cut at quantiles, and whether ties move that too far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobrec_gym.simulators.base import DECISIONS

__all__ = ["in_words", "shares_are_off", "shares_below"]

Shares = NDArray[np.float64]

_ROUNDING = 1e-9


def shares_below(values: ArrayLike, thresholds: ArrayLike) -> Shares:
    """Shares of values (n,) that lie below each of the thresholds of click, save and apply, (3,).

    Example:
        >>> shares_below([0.1, 0.2, 0.2, 0.9], [0.2, 0.5, 0.9])
        array([0.25, 0.75, 0.75])
    """
    return np.mean(np.asarray(values)[:, None] < np.asarray(thresholds), axis=0)


def shares_are_off(below: ArrayLike, quantiles: Sequence[float], n_pairs: int) -> bool:
    """Whether the share of a decision differs from the promised one by more than half of the latter.

    A difference of one pair is allowed too: with few pairs, no thresholds come nearer.

    Args:
        below: Shares that lie below the thresholds, (3,), see :func:`shares_below`.
        quantiles: The promised ones, (3,).
        n_pairs: Number of pairs.

    Example:
        >>> shares_are_off([0.01, 0.85, 0.95], (0.6, 0.85, 0.95), 100)
        True
    """
    promised = _shares(quantiles)
    allowed = np.maximum(promised / 2, 1 / n_pairs) + _ROUNDING
    return bool((np.abs(_shares(below) - promised) > allowed).any())


def in_words(below: ArrayLike) -> str:
    """The share of each decision.

    Example:
        >>> in_words([0.6, 0.85, 0.95])
        '60 % ignore, 25 % click, 10 % save and 5 % apply'
    """
    *most, last = (f"{100 * share:.3g} % {decision}" for share, decision in zip(_shares(below), DECISIONS, strict=True))
    return f"{', '.join(most)} and {last}"


def _shares(below: ArrayLike) -> Shares:
    """The shares of the four decisions, (4,)."""
    return np.diff(np.concatenate([[0.0], np.asarray(below), [1.0]]))
