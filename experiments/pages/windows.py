"""Means over windows of equal length, because the rows of a learning curve are at unequal distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

__all__ = ["equal_windows", "window_length"]

_AT = "interactions"

Tables = Mapping[str, Sequence[pd.DataFrame]]


def window_length(tables: Tables) -> float:
    """The length of the windows of some learning curves, in interactions; 0 if no curve has two rows.

    It is the largest distance between neighbouring rows, stretched so that whole windows fill the shortest curve.
    """
    positions = [table[_AT].to_numpy(np.float64) for runs in tables.values() for table in runs if len(table) > 1]
    if not positions:
        return 0.0
    widest = max(np.diff(at).max() for at in positions)
    shortest = min(at[-1] - at[0] for at in positions)
    return float(shortest / max(1, int(shortest / widest)))


def equal_windows(tables: Tables, column: str, length: float, sums: bool = False) -> dict[str, list[pd.DataFrame]]:
    """Means of a column over windows of one length, at the windows' ends.

    A row holds the mean since the previous row. All interactions of a row count the same, so a window that ends between
    two rows takes its share of the second row. A window in which the column is not known at all is left out.

    Args:
        tables: Learning curves.
        column: The column that is averaged.
        length: Length of the windows, see :func:`window_length`.
        sums: Whether the column is a cumulative sum. The result is then its growth for each interaction.

    Returns:
        For each run a table of ``interactions`` and the column. It has no rows if the run lacks the column.
    """
    return {label: [_windows(table, column, length, sums) for table in runs] for label, runs in tables.items()}


def _windows(table: pd.DataFrame, column: str, length: float, sums: bool) -> pd.DataFrame:
    empty = pd.DataFrame({_AT: [], column: []}, dtype=np.float64)
    if column not in table or len(table) < 2 or length <= 0:
        return empty
    at = table[_AT].to_numpy(np.float64)
    values = table[column].to_numpy(np.float64)
    steps = np.diff(at)
    growth = np.diff(values) if sums else values[1:] * steps
    known = ~np.isnan(growth)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, growth, 0.0))])
    weight = np.concatenate([[0.0], np.cumsum(np.where(known, steps, 0.0))])
    # A length that does not divide the curve leaves a remainder at its end. Rounding must not cause one.
    n = int((at[-1] - at[0]) / length + 1e-9)
    ends = at[0] + length * np.arange(n + 1)
    earned, counted = np.diff(np.interp(ends, at, total)), np.diff(np.interp(ends, at, weight))
    rows = counted > 0
    return pd.DataFrame({_AT: ends[1:][rows], column: earned[rows] / counted[rows]})
