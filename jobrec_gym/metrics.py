"""Measures of recommendations: ranking, regret, coverage and exposure. Pure functions of arrays."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Ties",
    "auc",
    "congestion",
    "coverage",
    "cumulative_regret",
    "discounted_return",
    "gini",
    "hit_rate_at_k",
    "lorenz",
    "mrr",
    "ndcg_at_k",
    "normalised_score",
]


Ties = Literal["position", "mean"]
"""How equal scores are ranked. ``"position"`` keeps the order of the set. ``"mean"`` gives the mean of the measure over
all orders of the candidates with equal scores."""


def auc(scores: ArrayLike, hits: ArrayLike) -> NDArray[np.float64]:
    """Probability that a hit has a higher score than a non-hit; a tie counts one half (Mann and Whitney, 1947).

    Args:
        scores: (n, m).
        hits: bool (n, m).

    Returns:
        float64 (n,) in [0, 1]; NaN where all candidates are hits or none is.

    Raises:
        ValueError: For other shapes, or NaN in an argument, here and in the three functions below.

    Example:
        >>> auc([[3.0, 2.0, 2.0]], [[False, True, False]])
        array([0.25])
    """
    scores, hits = _pair(scores, hits, 1, "hits")
    places = _places(scores)
    found, others = (_sums(places, counted) for counted in (hits > 0, ~(hits > 0)))
    below = np.cumsum(others, axis=1) - others
    n = found.sum(axis=1) * others.sum(axis=1)
    above = (found * (below + 0.5 * others)).sum(axis=1)
    return np.divide(above, n, out=np.full(len(n), np.nan), where=n > 0)


def ndcg_at_k(scores: ArrayLike, gains: ArrayLike, k: int, ties: Ties = "position") -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of rankings (Järvelin and Kekäläinen, 2002).

    Args:
        scores: (n, m), the scores by which the agent ranks m candidates, highest first.
        gains: (n, m), the true worth of the candidates; negative values count as 0.
        k: Cut-off, at least 1.
        ties: See :data:`Ties`.

    Returns:
        float64 (n,) in [0, 1]; NaN where no candidate has a positive gain.
    """
    scores, gains = _pair(scores, gains, k, "gains")
    gains = np.maximum(gains, 0.0)
    if _by_mean(ties):
        ideal_gains, gains = gains, _mean_of_ties(scores, gains)
    else:
        ideal_gains = gains
    discounts = 1.0 / np.log2(np.arange(2, min(k, gains.shape[1]) + 2))
    ranked = np.take_along_axis(gains, _order(scores), axis=1)[:, : len(discounts)] @ discounts
    ideal = -np.sort(-ideal_gains, axis=1)[:, : len(discounts)] @ discounts
    return np.divide(ranked, ideal, out=np.full(len(ideal), np.nan), where=ideal > 0)


def hit_rate_at_k(scores: ArrayLike, hits: ArrayLike, k: int, ties: Ties = "position") -> NDArray[np.float64]:
    """Whether one of the first k candidates is a hit.

    Args:
        scores: (n, m), the scores by which the agent ranks m candidates, highest first.
        hits: bool (n, m).
        k: Cut-off, at least 1.
        ties: See :data:`Ties`.

    Returns:
        float64 (n,): 0 or 1, or with ``ties="mean"`` the share of the orders with a hit among the first k. NaN
        where no candidate is a hit.
    """
    scores, hits = _pair(scores, hits, k, "hits")
    if _by_mean(ties):
        return np.array(
            [_expected_hit(*row, k) if (row[1] > 0).any() else np.nan for row in zip(scores, hits, strict=True)]
        )
    found = np.take_along_axis(hits > 0, _order(scores), axis=1)[:, :k].any(axis=1)
    return np.where((hits > 0).any(axis=1), found.astype(np.float64), np.nan)


def mrr(scores: ArrayLike, hits: ArrayLike) -> NDArray[np.float64]:
    """Reciprocal rank of the first hit; shapes as in :func:`hit_rate_at_k`; NaN where no candidate is a hit."""
    scores, hits = _pair(scores, hits, 1, "hits")
    ranked = np.take_along_axis(hits > 0, _order(scores), axis=1)
    return np.where(ranked.any(axis=1), 1.0 / (ranked.argmax(axis=1) + 1), np.nan)


def normalised_score(chosen: ArrayLike, random: ArrayLike, oracle: ArrayLike) -> float:
    """The score: the mean expected reward of the choices, scaled so that random is 0 and the oracle is 1.

    Args:
        chosen: (n,), expected reward of the agent's choices.
        random: (n,), expected reward of a uniform choice from the same sets.
        oracle: (n,), highest expected reward in the same sets.

    Raises:
        ValueError: If lengths differ or a reward is NaN. Also if the oracle is not better than random, because the
            score then has no meaning.
    """
    middle, low, high = (float(row.mean()) for row in _rewards(chosen=chosen, random=random, oracle=oracle))
    if not high > low:
        raise ValueError(f"`oracle` must be better than `random` on average, got {high:.6g} and {low:.6g}.")
    return (middle - low) / (high - low)


def discounted_return(rewards: ArrayLike, gamma: float) -> float:
    """Sum of ``gamma**t * r_t`` over an episode's rewards (T,)."""
    rewards = np.asarray(rewards, dtype=np.float64)
    return float(rewards @ gamma ** np.arange(len(rewards)))


def cumulative_regret(chosen: ArrayLike, oracle: ArrayLike) -> NDArray[np.float64]:
    """Running sum of the regret: the best expected reward minus that of the choice.

    Args:
        chosen: (T,), expected reward of the choices.
        oracle: (T,), highest expected reward among the candidates.

    Returns:
        float64 (T,).

    Raises:
        ValueError: If lengths differ or a reward is NaN.
    """
    earned, best = _rewards(chosen=chosen, oracle=oracle)
    return np.cumsum(best - earned)


def coverage(job_ids: ArrayLike, n_jobs: int) -> float:
    """Share of ``n_jobs`` jobs that were recommended at least once."""
    return len(np.unique(job_ids)) / n_jobs


def gini(counts: ArrayLike) -> float:
    """Gini coefficient of the counts (n_jobs,) of recommendations: 0 if all jobs are equal, near 1 if one has all."""
    counts = np.sort(np.asarray(counts, dtype=np.float64))
    total = counts.sum()
    if total == 0:
        return 0.0
    ranks = np.arange(1, len(counts) + 1)
    return float((2 * ranks - len(counts) - 1) @ counts / (len(counts) * total))


def lorenz(counts: ArrayLike, points: int = 21) -> NDArray[np.float64]:
    """Lorenz curve: the share of all recommendations that the least recommended jobs get (Lorenz, 1905).

    Args:
        counts: (n_jobs,), how often each job was recommended.
        points: At how many shares of jobs, evenly spaced from 0 to 1, the curve is computed; at least 2.

    Returns:
        float64 (points,), rising from 0 to 1. It is a straight line if all jobs are recommended equally often, or no
        job is. The area between the curve and the straight line is half of :func:`gini`.
    """
    counts = np.sort(np.asarray(counts, dtype=np.float64))
    total = counts.sum()
    at = np.linspace(0.0, 1.0, points)
    if total == 0:
        return at
    shares = np.concatenate(([0.0], np.cumsum(counts) / total))
    return np.interp(at, np.linspace(0.0, 1.0, len(shares)), shares)


def congestion(counts: ArrayLike) -> float:
    """How much recommendations concentrate: the chance that two of them, drawn at random, are of the same job.

    The formula is Simpson's (1949). Its expected value is 1 / n_jobs if all jobs are equally likely, whatever the
    number of recommendations. It is 1 if always the same job is recommended.

    Args:
        counts: (n_jobs,), how often each job was recommended.

    Returns:
        A number in [0, 1]; NaN for fewer than two recommendations.
    """
    counts = np.asarray(counts, dtype=np.float64)
    total = float(counts.sum())
    return float(counts @ (counts - 1)) / (total * (total - 1)) if total > 1 else float("nan")


def _by_mean(ties: Ties) -> bool:
    if ties not in get_args(Ties):
        raise ValueError(f"`ties` must be one of {get_args(Ties)}, got {ties!r}.")
    return ties == "mean"


def _mean_of_ties(scores: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replaces each value by the mean over equal scores in its row, which is the expected value at their places."""
    places = _places(scores)
    sums, n = _sums(places, values), _sums(places, np.ones_like(values))
    return np.take_along_axis(sums, places, axis=1) / np.take_along_axis(n, places, axis=1)


def _places(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places (n, m) of scores in their row, 0 for the lowest; equal scores have the same place.

    Scores are sorted, because a comparison of each with each takes gigabytes for the candidates of a catalogue.
    """
    order = np.argsort(scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    places = np.zeros(scores.shape, dtype=np.int64)
    # Scores are compared and not subtracted, since the difference of two infinite scores is NaN.
    np.put_along_axis(places, order[:, 1:], np.cumsum(ranked[:, 1:] != ranked[:, :-1], axis=1), axis=1)
    return places


def _sums(places: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.float64]:
    """Sums (n, m) of the values (n, m) at each place."""
    n, m = places.shape
    flat = places + m * np.arange(n)[:, None]
    sums: NDArray[np.float64] = np.bincount(flat.ravel(), weights=values.ravel(), minlength=n * m).astype(np.float64)
    return sums.reshape(n, m)


def _expected_hit(scores: NDArray[np.float64], hits: NDArray[np.float64], k: int) -> float:
    """Probability that a hit is among the first k of one set, over all orders of equal scores."""
    cut = -np.sort(-scores)[min(k, len(scores)) - 1]
    if (hits[scores > cut] > 0).any():
        return 1.0
    tied = hits[scores == cut] > 0
    places = min(k, len(scores)) - int((scores > cut).sum())
    return 1.0 - math.comb(int((~tied).sum()), places) / math.comb(len(tied), places)


def _order(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.argsort(-scores, axis=1, kind="stable")


def _rewards(**given: ArrayLike) -> list[NDArray[np.float64]]:
    """Arguments as rows of rewards of one length."""
    rows = {name: np.asarray(values, dtype=np.float64) for name, values in given.items()}
    shapes = [row.shape for row in rows.values()]
    names = ", ".join(f"`{name}`" for name in rows)
    if len(shapes[0]) != 1 or len(set(shapes)) > 1:
        raise ValueError(f"{names} must have one shape (n,), got {', '.join(map(str, shapes))}.")
    for name, row in rows.items():
        if np.isnan(row).any():
            at = int(np.isnan(row).argmax())
            raise ValueError(f"`{name}` must be numbers, entry {at} is NaN: leave this entry out of {names}.")
    return list(rows.values())


def _pair(scores: ArrayLike, values: ArrayLike, k: int, of: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and what they rank, the argument ``of``."""
    scores, values = np.asarray(scores, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if scores.ndim != 2 or scores.shape != values.shape:
        raise ValueError(f"both arguments must have one shape (n, m), got {scores.shape} and {values.shape}.")
    if np.isnan(scores).any():
        row = int(np.isnan(scores).any(axis=1).argmax())
        raise ValueError(f"`scores` must be numbers, row {row} has NaN, which has no rank: has a learner diverged?")
    if np.isnan(values).any():
        row = int(np.isnan(values).any(axis=1).argmax())
        raise ValueError(f"`{of}` must be known, row {row} has NaN: leave out candidates without an answer.")
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}.")
    return scores, values
