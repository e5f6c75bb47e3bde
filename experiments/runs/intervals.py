"""Means over the runs of several seeds, and how certain they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rliable import metrics
from scipy.stats import trim_mean

__all__ = ["interval", "interval_cell", "mean_interval", "paired_difference", "probability_of_improvement"]


def mean_interval(values: NDArray[np.float64], reps: int, seed: int = 0) -> NDArray[np.float64]:
    """Mean over seeds and its 95 % bootstrap interval: values (n_seeds, ...) -> mean, low and high (3, ...)."""
    samples = values[np.random.default_rng(seed).integers(len(values), size=(reps, len(values)))]
    low, high = np.quantile(samples.mean(axis=1), (0.025, 0.975), axis=0)
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
    samples = values[np.random.default_rng(seed).integers(len(values), size=(reps, len(values)))]
    low, high = np.quantile(trim_mean(samples, 0.25, axis=1), (0.025, 0.975))
    return float(metrics.aggregate_iqm(values[:, None])), float(low), float(high)


def probability_of_improvement(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Share of the seeds for which our value is above theirs, (n,) each in the same order; a tie counts one half.

    Seeds take the place of the tasks in Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
    Precipice", NeurIPS 2021, because each seed has a truth and candidate sets of its own. Our value
    and theirs are compared seed by seed.
    """
    return float(metrics.probability_of_improvement(ours[None], theirs[None]))


def interval_cell(estimate: Sequence[float] | NDArray[np.float64], form: str = ".2f") -> str:
    """The cell of a table for a mean (or median) and its interval."""
    middle, low, high = (format(float(value), form) for value in estimate)
    return f"{middle} [{low}, {high}]"
