"""Counts the invalid transitions of a learning phase, and warns about them at its end."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["NothingLearned", "Validity"]


class NothingLearned(RuntimeError):
    """No transition of a whole learning phase was valid, so nothing was learned."""


class Validity:
    """Counts the transitions whose `info["transition_valid"]` is False. Agents do not learn from their rewards."""

    def __init__(self) -> None:
        self.n = self.n_invalid = 0

    def count(self, infos: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Count one step of n environments; returns which of its transitions are valid, bool (n,)."""
        valid = np.array([info.get("transition_valid", True) for info in infos], dtype=bool)
        self.n += len(valid)
        self.n_invalid += int((~valid).sum())
        return valid

    def report(self) -> None:
        """Warn if some transitions were not valid; called at the end of a learning phase.

        Raises:
            NothingLearned: If no transition was valid.
        """
        if not self.n_invalid:
            return
        why = (
            "If a language model gave the feedback, the entry `feedback/status` of a step's info says why. Other "
            "environments may have an entry of their own."
        )
        if self.n_invalid == self.n:
            raise NothingLearned(
                f'None of the {self.n:,} transitions was valid (`info["transition_valid"]`): nothing was learned. {why}'
            )
        warnings.warn(
            f'{self.n_invalid:,} of {self.n:,} transitions were not valid (`info["transition_valid"]`) and were left '
            f"out. {why}",
            stacklevel=3,
        )
