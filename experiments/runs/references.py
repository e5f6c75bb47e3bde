"""Policies that learn nothing (random, highest cosine, oracle), over runs with pairs and truths of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from experiments.runs.grouping import References, mark_of

__all__ = ["mean_references"]

_DIGITS = 9


def mean_references(scored: Iterable[References]) -> dict[str, dict[str, float | None]]:
    """Means of the references' metrics over distinct pairs and truths, each of which counts once.

    Each seed of a sweep can have held-out pairs and a truth of its own. The references of one run then say nothing of
    the other runs.

    Args:
        scored: The references' metrics of each run, at least one.

    Returns:
        Metrics by policy. A metric is ``None`` if a run lacks it, or if runs on the same pairs differ in it, for
        instance a return with each agent's own gamma.
    """
    by_truth: dict[str, list[References]] = {}
    for each in scored:
        by_truth.setdefault(mark_of(each), []).append(each)
    first = next(iter(by_truth.values()))[0]
    return {
        who: {
            key: _mean([_common([each.get(who, {}).get(key) for each in alike]) for alike in by_truth.values()])
            for key in metrics
        }
        for who, metrics in first.items()
    }


def _common(values: Sequence[float | None]) -> float | None:
    """The value if all are equal; ``None`` if they differ."""
    rounded = {None if value is None else round(value, _DIGITS) for value in values}
    return values[0] if len(rounded) == 1 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
