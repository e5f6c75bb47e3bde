"""Errors of a model of transitions on the latest transitions, each predicted before the model was trained on it."""

from __future__ import annotations

import numpy as np

from dynaq_algo.arguments import require_whole
from dynaq_algo.transition_model import Foreseen

__all__ = ["TransitionForecasts"]

_LEAST_CHANCE = 1e-3
"""Smallest probability of an outcome in the log loss. An outcome that was never seen before had probability 0."""


class TransitionForecasts:
    """Errors of a model of transitions on the latest transitions, each predicted before the model learned it.

    This is a prequential error (Dawid, 1984), so no transitions need to be set aside. Each error is given with the
    error of the best constant prediction for the same transitions: the mean of the rewards, the shares of the outcomes,
    the share of the ends. The error of a model that has learned something is smaller.

    Args:
        size: Number of the latest transitions over which errors are computed.

    Raises:
        ValueError: If `size` is below 1.

    Example:
        >>> forecasts = TransitionForecasts(1_000)
        >>> chances = np.array([[0.5, 0.5], [0.25, 0.75]])
        >>> said = Foreseen(np.zeros(2), chances, np.array([0, 1]), np.array([False, True]), chances[:, 1])
        >>> forecasts.add(np.array([0.0, 1.0]), said)
        >>> forecasts.errors()["reward_mse"], forecasts.errors()["leaving_brier"]
        (0.5, 0.15625)
    """

    def __init__(self, size: int):
        # Columns: reward, its prediction, outcome, its predicted probability, whether it ended, probability of the end.
        self.rows = np.zeros((require_whole("size", size, 1), 6))
        self.n_added = 0

    def add(self, reward: np.ndarray, foreseen: Foreseen) -> None:
        """Add n transitions: their rewards (n,), and what the model predicted for them."""
        n = len(reward)
        chance = np.zeros(n)
        known = np.flatnonzero(foreseen.outcome < foreseen.chances.shape[1])
        chance[known] = foreseen.chances[known, foreseen.outcome[known]]
        columns = reward, foreseen.reward, foreseen.outcome, chance, foreseen.ended, foreseen.chance_of_end
        new = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)[-len(self.rows) :]
        self.rows[(self.n_added + np.arange(len(new))) % len(self.rows)] = new
        self.n_added += len(new)

    def check(self) -> None:
        """Check the rows after a file has set them.

        Raises:
            ValueError, TypeError, AttributeError: If their shape is wrong, or they hold impossible numbers.
        """
        if self.rows.ndim != 2 or self.rows.shape[1] != 6 or self.rows.dtype != np.float64 or not len(self.rows):
            raise ValueError(f"rows of the shape {self.rows.shape}, {self.rows.dtype}")
        require_whole("n_added", self.n_added, 0)
        known = self.rows[: self.n_added]
        if not np.isfinite(known).all() or (known[:, 2] < 0).any() or (known[:, 2] > 1e6).any():
            raise ValueError("rows that no transition makes")

    def errors(self) -> dict[str, float]:
        """Errors by name, each followed by that of the best constant; none before the first transition.

        `reward_mse` is the mean squared error of the reward. `outcome_log_loss` is the mean of -log(p), where p is the
        predicted probability of the actual outcome, at least 0.001. `leaving_brier` is the mean squared error of the
        predicted probability of the end.
        """
        rows = self.rows[: self.n_added]
        if not len(rows):
            return {}
        reward, mean, outcome, chance, ended, end = rows.T
        shares = np.bincount(outcome.astype(np.int64)) / len(rows)
        return {
            "reward_mse": float(np.square(reward - mean).mean()),
            "reward_mse_of_mean": float(reward.var()),
            "outcome_log_loss": float(-np.log(np.maximum(chance, _LEAST_CHANCE)).mean()),
            "outcome_log_loss_of_shares": float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()),
            "leaving_brier": float(np.square(ended - end).mean()),
            "leaving_brier_of_share": float(ended.var()),
        }
