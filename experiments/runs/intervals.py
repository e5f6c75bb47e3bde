"""Means over the runs of several seeds, and how certain they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rliable import metrics
from scipy.stats import trim_mean

__all__ = [
    "FEWEST",
    "interval",
    "interval_cell",
    "mean_interval",
    "paired_difference",
    "probability_of_improvement",
    "resamples",
]

FEWEST = 3
"""With fewer values tables have no interval: that of one value has no width, that of two contains the mean half of the
time."""

_AT_ONCE = 1_000_000


def resamples(n: int, reps: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Rows of ``reps`` bootstrap resamples of n values, (some, n) at a time.

    Memory does not grow with the number of resamples, and how many come at a time does not change them.
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // n)
    for first in range(0, reps, at_once):
        yield rng.integers(n, size=(min(at_once, reps - first), n))


def mean_interval(values: NDArray[np.float64], reps: int, seed: int = 0) -> NDArray[np.float64]:
    """Mean over seeds and its 95 % bootstrap interval: values (n_seeds, ...) -> mean, low and high (3, ...)."""
    means = np.concatenate([values[rows].mean(axis=1) for rows in resamples(len(values), reps, seed)])
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return np.stack([values.mean(axis=0), low, high])


def paired_difference(
    values: NDArray[np.float64], reference: NDArray[np.float64], reps: int, seed: int = 0
) -> NDArray[np.float64]:
    """:func:`mean_interval` of values less those of a reference, both (n_seeds, ...) with the same seeds in order.

    The difficulty of a seed, which both share, cancels out. The more alike the two fare over the seeds, the narrower
    the interval.
    """
    return mean_interval(values - reference, reps, seed)


def interval(values: NDArray[np.float64], reps: int, seed: int = 0) -> tuple[float, float, float]:
    """Interquartile mean of values (n,), and its 95 % bootstrap interval."""
    means = [trim_mean(values[rows], 0.25, axis=1) for rows in resamples(len(values), reps, seed)]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(metrics.aggregate_iqm(values[:, None])), float(low), float(high)


def probability_of_improvement(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Share of the seeds for which our value is above theirs, (n,) each in the same order; a tie counts one half.

    Seeds take the place of the tasks in Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
    Precipice", NeurIPS 2021, because each seed has a truth and candidate sets of its own. Our value
    and theirs are compared seed by seed.
    """
    return float(metrics.probability_of_improvement(ours[None], theirs[None]))


def interval_cell(estimate: Sequence[float] | NDArray[np.float64], n_values: int, form: str = ".2f") -> str:
    """The cell of a table for a mean of ``n_values`` values and its interval; the mean alone below :data:`FEWEST`."""
    middle, low, high = (format(float(value), form) for value in estimate)
    return middle if n_values < FEWEST else f"{middle} [{low}, {high}]"
