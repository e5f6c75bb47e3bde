"""A row of the benchmark: a figure, what it is compared with, and whether a goal is reached."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Row", "ratio_of", "seconds_per_call"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        name: What was measured, in words.
        measured: The figure. It is a ratio of times from the same run wherever that makes sense.
        unit: Unit of the figure, ``"x"`` for a ratio.
        limit: What the figure is compared with, in words: an opponent, or the limit of the machine.
        goal: The bound; ``None`` if the figure is only reported.
        sense: Whether the figure should be at least or at most the goal.
        details: Absolute numbers behind the figure, for the JSON file.
    """

    name: str
    measured: float
    unit: str
    limit: str
    goal: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    details: dict[str, Any] | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; ``None`` if there is none."""
        if self.goal is None:
            return None
        return self.measured >= self.goal if self.sense == "at least" else self.measured <= self.goal

    def to_json(self) -> dict[str, Any]:
        """All entries, with the verdict."""
        return {**asdict(self), "holds": self.holds}


def seconds_per_call(call: Callable[[], Any], *, seconds: float = 0.3) -> float:
    """Mean time of a call in seconds, over calls for about ``seconds``, after one call that is not counted."""
    call()
    n, spent = 0, 0.0
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        while spent < seconds:
            call()
            n += 1
            spent = time.perf_counter() - begin
    finally:
        gc.enable()
    return spent / n


def ratio_of(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, rounds: int = 5, seconds: float = 0.3
) -> tuple[float, float, float]:
    """Time of ``ours`` divided by that of ``theirs``. They are measured by turns, so that a busy machine slows both.

    Returns:
        The median of the rounds' ratios, and the smallest time of a call of ours and of theirs, in seconds.
    """
    pairs = [
        (seconds_per_call(ours, seconds=seconds), seconds_per_call(theirs, seconds=seconds)) for _ in range(rounds)
    ]
    ratio = statistics.median(mine / other for mine, other in pairs)
    return ratio, min(mine for mine, _ in pairs), min(other for _, other in pairs)
