"""A row of the benchmark: what was measured, against which limit, and whether a goal holds."""

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
        measured: The figure: a ratio within this run wherever one makes sense.
        unit: Of the figure, ``"x"`` for a ratio.
        limit: What the figure is measured against, in words: an opponent, or what the machine can do.
        goal: The bound, ``None`` where a figure is only reported.
        sense: Whether the figure is to be at least or at most the goal.
        details: Absolute numbers behind it, for the JSON file.
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
        """Whether the goal is reached, ``None`` without one."""
        if self.goal is None:
            return None
        return self.measured >= self.goal if self.sense == "at least" else self.measured <= self.goal

    def to_json(self) -> dict[str, Any]:
        """Everything, with the verdict."""
        return {**asdict(self), "holds": self.holds}


def seconds_per_call(call: Callable[[], Any], *, seconds: float = 0.3) -> float:
    """Mean time of a call, repeated for about ``seconds`` after one call that is not counted."""
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
    """Time of ``ours`` divided by that of ``theirs``, measured in turn, so that a busy machine slows both.

    Returns:
        The median of the rounds' ratios, and the least seconds a call of ours and of theirs.
    """
    pairs = [
        (seconds_per_call(ours, seconds=seconds), seconds_per_call(theirs, seconds=seconds)) for _ in range(rounds)
    ]
    ratio = statistics.median(mine / other for mine, other in pairs)
    return ratio, min(mine for mine, _ in pairs), min(other for _, other in pairs)
