"""How an answer changes an applicant: the protocol of dynamics, careers (the default), and people who never change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market import SENIORITY_LEVELS, LabourMarket, MarketError
from jobrec_gym.near_miss import did_you_mean
from jobrec_gym.simulators.base import DECISIONS, UNKNOWN_LEVEL, class_with_bind, made_of_spec

__all__ = [
    "BoundCareerDynamics",
    "BoundDynamics",
    "BoundStaticDynamics",
    "CareerDynamics",
    "CareerStart",
    "Dynamics",
    "DynamicsSpec",
    "StaticDynamics",
    "check_dynamics",
    "make_dynamics",
]

Ids = NDArray[np.int64]
States = NDArray[np.int64]
DynamicsSpec = Mapping[str, Any]
CareerStart = Literal["entry", "own"]

_N_LEVELS = len(SENIORITY_LEVELS)
_MOST = 1_000_000_000
"""The largest number that an argument may be. States are 64-bit integers; their sums stay far from an overflow."""
_IGNORE, _CLICK, _SAVE = (DECISIONS.index(word) for word in ("ignore", "click", "save"))


@runtime_checkable
class BoundDynamics(Protocol):
    """Dynamics that know their market. A state is a row of m whole numbers; n applicants have states (n, m).

    Attributes:
        names: Names of the m numbers.
        pair_names: Names of the q columns of :meth:`pairs`. Without names the method is not needed.
        shown_in_pairs: Those of ``names`` that :meth:`pairs` reveals, and that therefore cannot be hidden.
    """

    names: tuple[str, ...]
    pair_names: tuple[str, ...]
    shown_in_pairs: tuple[str, ...]

    def start(self, applicant_ids: Ids) -> States:
        """States (n, m) in which applicants (n,) begin an episode."""

    def progress(self, states: States) -> NDArray[np.float32]:
        """The observed form of states (n, m): (n, m) in [0, 1], one column for each name."""

    def pairs(self, progress: NDArray[np.floating], job_ids: Ids) -> NDArray[np.float32]:
        """Observed numbers of applicants and jobs together, (..., q) in [-1, 1].

        Args:
            progress: (..., m), from :meth:`progress` or imagined.
            job_ids: (...), of a shape that broadcasts with the leading axes of ``progress``.
        """

    def levels(self, states: States) -> Ids | None:
        """Present levels (n,), which the simulator is told; ``None`` if these dynamics have no levels."""

    def pay(self, states: States, job_ids: Ids) -> NDArray[np.float64]:
        """Factors (n,) of the worth of the answers when applicants in ``states`` are recommended jobs (n,)."""

    def advance(self, states: States, job_ids: Ids, decisions: NDArray[np.integer]) -> States:
        """States (n, m) after the answers.

        Args:
            states: (n, m), not changed in place.
            job_ids: (n,), the recommended jobs.
            decisions: (n,), places in :data:`~jobrec_gym.simulators.base.DECISIONS`, -1 where there is no answer.
        """

    def leaves(self, states: States) -> NDArray[np.bool_]:
        """Which applicants (n,) have left: their episodes are terminated."""

    def in_words(self, state: States) -> str:
        """One state (m,) in words, on one line."""


@runtime_checkable
class Dynamics(Protocol):
    """How applicants change, not yet tied to a market.

    Dynamics that are to be part of an environment's spec also have ``to_spec() -> dict``. The dict's entry ``"type"``
    is ``"career"``, ``"static"`` or ``"module:Class"``; its other entries are the keywords of the constructor.
    """

    def bind(self, market: LabourMarket) -> BoundDynamics:
        """Ties the dynamics to a market; the environment calls this method once."""


class CareerDynamics:
    """Applicants who climb from level to level, and who leave when they have lost patience.

    * **Level**, 1 to 5. Three interested answers (click, save, apply) to jobs that are exactly one level up lift the
      level by one. The number of these answers since the last promotion is the **experience**. At level 5 no
      experience is gained.
    * **Patience**: an ignored job costs one, a save or an application gives one back, a click does not change it. At 0
      the applicant leaves.
    * **Pay**: an answer's worth is multiplied by the pay of the present level or of the job's level, whichever is
      *lower*. A job above the present level pays what the applicant earns now, until they are promoted.

    How much less an applicant likes a job above their level is up to the simulator:
    :class:`~jobrec_gym.simulators.rules.RuleSimulator` has the argument ``reach=`` for it.

    Args:
        start: The level at which an applicant begins: ``"entry"`` is level 1, ``"own"`` is their own level, or 3 if it
            is unknown.
        pay: The pay of the five levels.
        experience: How many interested answers lift the level.
        patience: The patience that an applicant begins with, which is also the most they can have.
        ignored: Patience that an ignored job costs.
        pleased: Patience that a save or an application gives back.

    Raises:
        ValueError: For an unknown ``start``, for ``pay`` that is not five finite numbers, or for a number below its
            minimum or above 1,000,000,000. The minimum is 1 for ``experience`` and ``patience``, and 0 for ``ignored``
            and ``pleased``.

    Example:
        >>> dynamics = CareerDynamics().bind(load_market("default"))
        >>> dynamics.progress(dynamics.start(np.array([3])))
        array([[0., 0., 1.]], dtype=float32)
    """

    def __init__(
        self,
        start: CareerStart = "entry",
        pay: Sequence[float] = (0.5, 1.0, 2.5, 5.0, 10.0),
        experience: int = 3,
        patience: int = 6,
        ignored: int = 1,
        pleased: int = 1,
    ):
        if start not in get_args(CareerStart):
            raise ValueError(f"`start` must be one of {get_args(CareerStart)}, got {start!r}.")
        for name, value, least in (
            ("experience", experience, 1),
            ("patience", patience, 1),
            ("ignored", ignored, 0),
            ("pleased", pleased, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= _MOST:
                raise ValueError(
                    f"`{name}` must be a whole number of at least {least} and at most {_MOST:,}, got {value!r:.80}."
                )
        self.pay = _checked_pay(pay)
        self.start = start
        self.experience = int(experience)
        self.patience = int(patience)
        self.ignored = int(ignored)
        self.pleased = int(pleased)

    def bind(self, market: LabourMarket) -> BoundCareerDynamics:
        """Ties the dynamics to a market.

        Raises:
            MarketError: If no job has a level, or, with ``start="own"``, no applicant has.
        """
        return BoundCareerDynamics(market, self)

    def to_spec(self) -> dict[str, Any]:
        """The dynamics in plain JSON."""
        return {"type": "career", **vars(self), "pay": list(self.pay)}

    @classmethod
    def from_spec(cls, spec: DynamicsSpec) -> CareerDynamics:
        """The dynamics that :meth:`to_spec` described."""
        return cls(**{key: value for key, value in spec.items() if key != "type"})

    def __repr__(self) -> str:
        return f"CareerDynamics({', '.join(f'{key}={value!r}' for key, value in vars(self).items())})"


class BoundCareerDynamics:
    """Careers on one market; made by :meth:`CareerDynamics.bind`. States are level, experience, patience.

    Attributes:
        dynamics: The dynamics that were bound.
        job_levels: int64 (n_jobs,), 1 to 5; 3 where a level is unknown.
    """

    names: tuple[str, ...] = ("level", "experience", "patience")
    pair_names: tuple[str, ...] = ("levels_above", "job_level")
    shown_in_pairs: tuple[str, ...] = ("level",)

    def __init__(self, market: LabourMarket, dynamics: CareerDynamics):
        for side, needed in (("jobs", True), ("applicants", dynamics.start == "own")):
            if needed and not getattr(market, side).seniority.any():
                raise MarketError(
                    f"market {market.name!r} has no {side[:-1]} whose level is known: nobody can climb in it. Give a "
                    f"column `seniority` to its {side}, or "
                    + ("begin by `start='entry'`." if side == "applicants" else "use JobRec-v0.")
                )
        self.dynamics = dynamics
        self.job_levels = _known(market.jobs.seniority)
        self._shown_levels = ((self.job_levels - 1) / (_N_LEVELS - 1)).astype(np.float32)
        self._own_levels = _known(market.applicants.seniority)
        self._pay = np.array([0.0, *dynamics.pay])
        # The arrays are indexed by decision. The decision -1, no answer, indexes the last entry.
        self._patience = np.zeros(len(DECISIONS) + 1, dtype=np.int64)
        self._patience[_IGNORE], self._patience[_SAVE : len(DECISIONS)] = -dynamics.ignored, dynamics.pleased
        most = (_N_LEVELS - 1, dynamics.experience, dynamics.patience)
        self._least, self._span = np.array([1, 0, 0]), np.array(most, dtype=np.float64)

    def start(self, applicant_ids: Ids) -> States:
        """As in :class:`BoundDynamics`."""
        states = np.empty((len(applicant_ids), 3), dtype=np.int64)
        states[:, 0] = 1 if self.dynamics.start == "entry" else self._own_levels[applicant_ids]
        states[:, 1], states[:, 2] = 0, self.dynamics.patience
        return states

    def progress(self, states: States) -> NDArray[np.float32]:
        """``(level - 1) / 4``, experience and patience, each in [0, 1].

        Experience is divided by the number that a promotion takes, patience by the number at the start.
        """
        return ((states - self._least) / self._span).astype(np.float32)

    def pairs(self, progress: NDArray[np.floating], job_ids: Ids) -> NDArray[np.float32]:
        """``(job's level - present level) / 4``, and ``(job's level - 1) / 4``."""
        jobs = self._shown_levels[job_ids]
        above = np.asarray(jobs - progress[..., 0])
        values = np.empty((*above.shape, 2), dtype=np.float32)
        values[..., 0], values[..., 1] = above, jobs
        return values

    def levels(self, states: States) -> Ids:
        """As in :class:`BoundDynamics`."""
        return states[:, 0]

    def pay(self, states: States, job_ids: Ids) -> NDArray[np.float64]:
        """As in :class:`BoundDynamics`."""
        return self._pay[np.minimum(states[:, 0], self.job_levels[job_ids])]

    def advance(self, states: States, job_ids: Ids, decisions: NDArray[np.integer]) -> States:
        """As in :class:`BoundDynamics`."""
        dynamics = self.dynamics
        moved = states.copy()
        level, experience, patience = moved.T
        experience += (decisions >= _CLICK) & (self.job_levels[job_ids] == level + 1)
        promoted = experience >= dynamics.experience
        level += promoted
        experience[promoted] = 0
        patience += self._patience[decisions]
        np.minimum(patience, dynamics.patience, out=patience)
        np.maximum(patience, 0, out=patience)
        return moved

    def leaves(self, states: States) -> NDArray[np.bool_]:
        """As in :class:`BoundDynamics`."""
        return states[:, 2] <= 0

    def in_words(self, state: States) -> str:
        """As in :class:`BoundDynamics`."""
        level, experience, patience = state.tolist()
        gained = "" if level == _N_LEVELS else f"experience {experience} of {self.dynamics.experience}, "
        return (
            f"level {level} of {_N_LEVELS} ({SENIORITY_LEVELS[level - 1]}), {gained}"
            f"patience {patience} of {self.dynamics.patience}, pay {self._pay[level]:g}"
        )


class StaticDynamics:
    """Applicants who never change, as in ``JobRec-v0``; the rewards are the simulator's answers.

    Example:
        >>> StaticDynamics().to_spec()
        {'type': 'static'}
    """

    def bind(self, market: LabourMarket) -> BoundStaticDynamics:
        """As in :class:`Dynamics`; the market is not used."""
        return BoundStaticDynamics()

    def to_spec(self) -> dict[str, Any]:
        """The dynamics in plain JSON."""
        return {"type": "static"}

    def __repr__(self) -> str:
        return "StaticDynamics()"


class BoundStaticDynamics:
    """Applicants never change; made by :meth:`StaticDynamics.bind`. A state has no numbers."""

    names: tuple[str, ...] = ()
    pair_names: tuple[str, ...] = ()
    shown_in_pairs: tuple[str, ...] = ()

    def start(self, applicant_ids: Ids) -> States:
        """As in :class:`BoundDynamics`."""
        return np.zeros((len(applicant_ids), 0), dtype=np.int64)

    def progress(self, states: States) -> NDArray[np.float32]:
        """As in :class:`BoundDynamics`."""
        return states.astype(np.float32)

    def pairs(self, progress: NDArray[np.floating], job_ids: Ids) -> NDArray[np.float32]:
        """As in :class:`BoundDynamics`."""
        shape = np.broadcast_shapes(progress.shape[:-1], np.shape(job_ids))
        return np.zeros((*shape, 0), dtype=np.float32)

    def levels(self, states: States) -> None:
        """As in :class:`BoundDynamics`."""
        return None

    def pay(self, states: States, job_ids: Ids) -> NDArray[np.float64]:
        """As in :class:`BoundDynamics`."""
        return np.ones(len(job_ids))

    def advance(self, states: States, job_ids: Ids, decisions: NDArray[np.integer]) -> States:
        """As in :class:`BoundDynamics`."""
        return states

    def leaves(self, states: States) -> NDArray[np.bool_]:
        """As in :class:`BoundDynamics`."""
        return np.zeros(len(states), dtype=bool)

    def in_words(self, state: States) -> str:
        """As in :class:`BoundDynamics`."""
        return ""


_DYNAMICS = {
    "career": "jobrec_gym.dynamics:CareerDynamics",
    "static": "jobrec_gym.dynamics:StaticDynamics",
}


def make_dynamics(dynamics: Dynamics | DynamicsSpec | None) -> Dynamics:
    """The dynamics of a spec; an object is returned unchanged, ``None`` is :class:`CareerDynamics`.

    Args:
        dynamics: An object with ``bind``, or ``{"type": NAME, keyword: value, ...}`` where ``NAME`` is ``"career"``,
            ``"static"`` or ``"module:Class"``. A module is imported; its class is called only if it has ``bind``.

    Raises:
        ValueError: If ``dynamics`` is neither an object with ``bind`` nor such a dictionary, or for a keyword that the
            class does not have.
    """
    if dynamics is None:
        return CareerDynamics()
    if isinstance(dynamics, Mapping):
        name = dynamics.get("type")
        entry_point = _DYNAMICS.get(name, name) if isinstance(name, str) else None
        if entry_point is None or ":" not in entry_point:
            raise ValueError(
                f"`dynamics['type']` must be one of {tuple(_DYNAMICS)} or 'module:Class', got {name!r}."
                f"{did_you_mean(name, _DYNAMICS)}"
            )
        made: Dynamics = made_of_spec("dynamics", class_with_bind("dynamics['type']", entry_point), dynamics)
        return made
    if isinstance(dynamics, type) or not isinstance(dynamics, Dynamics):
        raise ValueError(
            f"`dynamics` must have `bind(market)` (see Dynamics) or be a dictionary with 'type', got {dynamics!r:.80}."
        )
    return dynamics


def check_dynamics(dynamics: BoundDynamics, applicant_ids: Ids, job_ids: Ids) -> None:
    """Tries bound dynamics on n applicants who are recommended n jobs, and refuses results of a wrong form.

    Args:
        dynamics: The dynamics.
        applicant_ids: (n,), n at least 1.
        job_ids: (n,).

    Raises:
        ValueError: If a part of :class:`BoundDynamics` is missing, or gives another shape, other types or numbers that
            the observation cannot hold. Also if a part changes the states that it is given.
    """
    wanted = ["names", "pair_names", "shown_in_pairs", "start", "progress", "levels", "pay", "advance", "leaves"]
    wanted += ["in_words", *(["pairs"] if getattr(dynamics, "pair_names", ()) else [])]
    if missing := [name for name in wanted if not hasattr(dynamics, name)]:
        raise ValueError(
            f"`dynamics` must have everything that BoundDynamics names, and {type(dynamics).__name__} has no "
            f"`{missing[0]}`. The page on careers has an example."
        )
    n, m, q = len(applicant_ids), len(dynamics.names), len(dynamics.pair_names)

    def check(name: str, given: Any, shape: tuple[int, ...], kinds: str, low: float, high: float) -> None:
        values = np.asarray(given)
        if values.shape != shape or values.dtype.kind not in kinds:
            what = "bools" if kinds == "b" else "whole numbers" if kinds == "iu" else "numbers"
            raise ValueError(
                f"`dynamics` must give {what} of shape {shape} from `{name}` for {n} applicants and {m} names, got "
                f"{values.dtype} of shape {values.shape}."
            )
        if values.size and not (values.min() >= low and values.max() <= high and np.isfinite(values).all()):
            within = f"numbers in [{low:g}, {high:g}]" if math.isfinite(high) else "finite numbers"
            raise ValueError(f"`dynamics` must give {within} from `{name}`, got {values.reshape(-1)[:6]}.")
        if not np.array_equal(states, kept):
            raise ValueError(
                f"`dynamics` must not change `states` in place, and `{name}` does: let it begin with "
                "`states = states.copy()`."
            )

    states = dynamics.start(applicant_ids)
    kept = np.array(states)
    check("start", states, (n, m), "iu", -math.inf, math.inf)
    progress = dynamics.progress(states)
    check("progress", progress, (n, m), "fiu", 0.0, 1.0)
    if q:
        check("pairs", dynamics.pairs(np.asarray(progress)[:, None], job_ids[:, None]), (n, 1, q), "fiu", -1.0, 1.0)
    if (levels := dynamics.levels(states)) is not None:
        check("levels", levels, (n,), "iu", -math.inf, math.inf)
    check("pay", dynamics.pay(states, job_ids), (n,), "fiu", -math.inf, math.inf)
    for decision in range(-1, len(DECISIONS)):
        moved = dynamics.advance(states, job_ids, np.full(n, decision))
        check("advance", moved, (n, m), "iu", -math.inf, math.inf)
        check("leaves", dynamics.leaves(moved), (n,), "b", 0, 1)


def _checked_pay(pay: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = () if isinstance(pay, str) else tuple(float(value) for value in pay)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != _N_LEVELS or not all(map(math.isfinite, numbers)):
        raise ValueError(f"`pay` must be {_N_LEVELS} finite numbers, one for each level, got {pay!r:.80}.")
    return numbers


def _known(levels: NDArray[np.integer]) -> Ids:
    """Levels as whole numbers; an unknown level becomes the middle level, 3."""
    return np.where(levels == 0, UNKNOWN_LEVEL, levels).astype(np.int64)
