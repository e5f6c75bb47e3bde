"""Schedules of the weight of the cosine reward, which changes with the number of agent steps."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobrec_gym.near_miss import did_you_mean

__all__ = ["AnnealSchedule", "ScheduleKind", "make_schedule"]

ScheduleKind = Literal["linear", "exponential", "cosine", "step", "two_phase"]


class AnnealSchedule:
    """Weight of the cosine reward after ``t`` agent steps, counted over all environments.

    It is a pure function of ``t``: errors do not accumulate, and a resumed run has the same weights as an unbroken one.
    At ``t >= steps`` the weight is exactly ``end``. With ``x = t / steps``, the kinds are:

    * ``"linear"``: ``start + (end - start) * x``; over N steps from 1 to 0 that is ``1 - t / N``;
    * ``"exponential"``: ``start * (end / start) ** x``, in which a ``start`` or ``end`` of 0 counts as 0.001;
    * ``"cosine"``: half a cosine wave, ``end + (start - end) * (1 + cos(pi * x)) / 2``;
    * ``"step"``: ``n_stairs`` equal stairs, the first of them at ``start``;
    * ``"two_phase"``: ``start`` until ``switch_at``, then ``end``.

    Args:
        steps: Agent steps until ``end`` is reached; not for ``"two_phase"``, which has ``switch_at`` in its place.
        kind: How the weight goes from ``start`` to ``end``.
        start: Weight at step 0, in [0, 1].
        end: Weight from ``steps`` on, in [0, 1].
        switch_at: Agent step of the switch; ``"two_phase"`` only.
        n_stairs: How many stairs before ``end``; ``"step"`` only.

    Raises:
        ValueError: For an unknown kind, weights outside of [0, 1], or numbers of steps that the kind cannot have.

    Example:
        >>> AnnealSchedule(steps=1_000)(50)
        0.95
    """

    def __init__(
        self,
        steps: int | None = None,
        kind: ScheduleKind = "linear",
        start: float = 1.0,
        end: float = 0.0,
        switch_at: int | None = None,
        n_stairs: int = 4,
    ):
        if kind not in get_args(ScheduleKind):
            raise ValueError(f"`kind` must be one of {get_args(ScheduleKind)}, got {kind!r}.")
        for name, weight in (("start", start), ("end", end)):
            if not _is_number(weight) or not 0 <= weight <= 1:
                raise ValueError(f"`{name}` is a weight and must be in [0, 1], got {weight!r:.80}.")
        two_phase = kind == "two_phase"
        for name, number, needed in (("steps", steps, not two_phase), ("switch_at", switch_at, two_phase)):
            if needed and not _is_count(number):
                raise ValueError(
                    f"`{name}` must be a whole number of at least 1 with kind={kind!r}, got {number!r:.80}."
                )
            if not needed and number is not None:
                raise ValueError(f"`{name}` has no meaning with kind={kind!r}, got {number}: leave it out.")
        if not _is_count(n_stairs):
            raise ValueError(f"`n_stairs` must be a whole number of at least 1, got {n_stairs!r:.80}.")
        self.steps = None if steps is None else int(steps)
        self.kind = kind
        self.start = float(start)
        self.end = float(end)
        self.switch_at = None if switch_at is None else int(switch_at)
        self.n_stairs = int(n_stairs)

    def __call__(self, t: int) -> float:
        """The weight after ``t`` agent steps."""
        if t >= self._length:
            return self.end
        if self.kind == "linear" and t > 0:
            x = t / self._length
            weight = self.start * (1 - x) + self.end * x
            return float(min(max(weight, min(self.start, self.end)), max(self.start, self.end)))
        # `weights` gets an array of one number, because numpy rounds powers of a scalar differently.
        return float(self.weights([t])[0])

    def weights(self, t: ArrayLike) -> NDArray[np.float64]:
        """The weight for each entry of ``t``, a number of agent steps so far; float64 of the same shape.

        Raises:
            ValueError: For a number of steps that is negative or NaN.
        """
        t = np.asarray(t)
        if not (t >= 0).all():
            raise ValueError(f"`t` must be 0 or more, got {t.min()}.")
        x = np.minimum(t / self._length, 1.0)
        lowest, highest = sorted((self.start, self.end))
        between = np.clip(self._on_the_way(x, t), lowest, highest)
        # The ends are exact, whatever the rounding of `between`.
        return np.where(x < 1, np.where(x > 0, between, self.start), self.end)

    @property
    def _length(self) -> int:
        return self.steps or self.switch_at or 1

    def to_spec(self) -> dict[str, Any]:
        """The schedule in plain JSON."""
        return dict(vars(self))

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> AnnealSchedule:
        """The schedule that :meth:`to_spec` described."""
        return cls(**spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnnealSchedule) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"AnnealSchedule({', '.join(f'{key}={value!r}' for key, value in vars(self).items())})"

    def _on_the_way(self, x: NDArray[np.float64], t: NDArray[Any]) -> NDArray[np.float64]:
        fall = self.end - self.start
        if self.kind == "linear":
            # The formula start + fall * x would not give 1 - t / N exactly.
            return self.start * (1 - x) + self.end * x
        if self.kind == "exponential":
            first, last = max(self.start, _LEAST), max(self.end, _LEAST)
            return first * (last / first) ** x
        if self.kind == "cosine":
            return self.end - fall * (1 + np.cos(math.pi * x)) / 2
        if self.kind == "step":
            return self.start + fall * self._stairs(x, t) / self.n_stairs
        return np.full_like(x, self.start)

    def _stairs(self, x: NDArray[np.float64], t: NDArray[Any]) -> NDArray[np.float64]:
        """How many stairs have been taken."""
        if t.dtype.kind not in "iu":
            return np.floor(x * self.n_stairs)
        # Python's integers divide exactly: a rounded quotient may lie below the whole number at which a stair begins.
        return (t.astype(object) * self.n_stairs // self._length).astype(np.float64)


_LEAST = 1e-3


def make_schedule(schedule: AnnealSchedule | Mapping[str, Any]) -> AnnealSchedule:
    """The schedule of a spec; a schedule is returned unchanged.

    Raises:
        ValueError: If ``schedule`` is neither a schedule nor a spec, or for an entry that is no argument of
            :class:`AnnealSchedule`.
    """
    if isinstance(schedule, AnnealSchedule):
        return schedule
    if isinstance(schedule, Mapping):
        known = tuple(inspect.signature(AnnealSchedule).parameters)
        for name in schedule:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"`schedule` must have entries of {known}, got {name!r:.80}.{hint}")
        return AnnealSchedule.from_spec(schedule)
    raise ValueError(f"`schedule` must be an AnnealSchedule or its spec, a dictionary, got {schedule!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    """Whether a value is a whole number of at least 1."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1
