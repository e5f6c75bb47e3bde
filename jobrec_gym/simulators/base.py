"""The interface of simulated applicants: the answer (:class:`Feedback`) and the two protocols."""

from __future__ import annotations

import importlib
import inspect
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobrec_gym.market import LabourMarket
from jobrec_gym.near_miss import best_match

__all__ = [
    "COSINE_INSTEAD",
    "DECISIONS",
    "DEFAULT_REWARDS",
    "UNKNOWN_LEVEL",
    "BoundSimulator",
    "CertainFeedback",
    "Feedback",
    "SimulatorSpec",
    "UserSimulator",
    "bound_simulator",
    "checked_answers",
    "class_with_bind",
    "decision_rewards",
    "is_finite_number",
    "made_of_spec",
    "make_simulator",
    "register_simulator",
    "simulator_spec",
]

SimulatorSpec = dict[str, Any]
Ids = NDArray[np.int64]

COSINE_INSTEAD = "cosine:"
"""The beginning of a status that says that a cosine was paid in place of an answer."""

DECISIONS = ("ignore", "click", "save", "apply")
"""What an applicant can do with a recommendation, from the least to the most interested."""

DEFAULT_REWARDS: Mapping[str, float] = {"apply": 1.0, "save": 0.5, "click": 0.0, "ignore": -0.1}

UNKNOWN_LEVEL = 3
"""The level of jobs and applicants whose own level is unknown, where applicants move."""

_DECISIONS = np.array(DECISIONS)
_DECISION_OBJECTS = _DECISIONS.astype(object)
_MOST_KEPT = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Feedback:
    """Answers to a batch of n recommendations; each field is an array (n,).

    Attributes:
        decision: Entries of :data:`DECISIONS`, ``""`` where there is no decision.
        reward: float64, what the decision is worth.
        status: ``"ok"``, or the reason why there is no answer. The status begins with ``"cosine:"`` if a cosine is paid
            in place of the answer.
        probability: float64, the probability of an application, if the simulator gives one; else NaN.
        reason: The reason for the decision, in the simulator's words; may be empty.
        tokens: int64, tokens spent.
        cost_usd: float64, dollars spent.
        cached: bool, whether the answer was known before.

    Raises:
        ValueError: For a field that is not (n,), a reward that is not finite, or an unknown decision.
    """

    decision: NDArray[np.str_]
    reward: NDArray[np.float64]
    status: NDArray[np.str_]
    probability: NDArray[np.float64]
    reason: NDArray[np.object_]
    tokens: NDArray[np.int64]
    cost_usd: NDArray[np.float64]
    cached: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        decision: Sequence[str] | NDArray[np.str_],
        reward: ArrayLike,
        *,
        status: ArrayLike | None = None,
        probability: ArrayLike | None = None,
        reason: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        cost_usd: ArrayLike | None = None,
        cached: ArrayLike | None = None,
    ) -> Feedback:
        """A batch from decisions and rewards. Fields that are not given are "ok", NaN, "", 0 and False.

        Example:
            >>> Feedback.of(["apply", "ignore"], [1.0, -0.1]).status
            array(['ok', 'ok'], dtype='<U2')
        """
        n = np.size(decision)

        def filled(values: ArrayLike | None, default: object, dtype: type | None) -> NDArray[Any]:
            return np.full(n, default, dtype) if values is None else np.asarray(values, dtype)

        return cls(
            decision=np.asarray(decision, dtype=str),
            reward=np.asarray(reward, dtype=np.float64),
            status=filled(status, "ok", str if status is not None else None),
            probability=filled(probability, np.nan, np.float64),
            reason=filled(reason, "", object),
            tokens=filled(tokens, 0, np.int64),
            cost_usd=filled(cost_usd, 0.0, np.float64),
            cached=filled(cached, False, np.bool_),
        )

    def __post_init__(self) -> None:
        shapes = {name: np.shape(getattr(self, name)) for name in Feedback.__slots__}
        if len(set(shapes.values())) > 1 or len(shapes["reward"]) != 1:
            raise ValueError(
                f"each field of Feedback must be an array (n,), with one entry for each recommendation, got {shapes}."
            )
        if not np.isfinite(self.reward).all():
            raise ValueError("`reward` must be finite; where there is no answer give 0.0 and say so in `status`.")
        unknown = sorted(set(self.decision.tolist()) - {*DECISIONS, ""})
        if unknown:
            raise ValueError(f"`decision` must be one of {DECISIONS} or '', got {unknown}.")

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def number(self) -> NDArray[np.integer]:
        """Integers (n,), the decisions' places in :data:`DECISIONS`; -1 where there is no decision."""
        number = np.full(len(self), -1, dtype=np.int64)
        for place, word in enumerate(DECISIONS):
            number[self.decision == word] = place
        return number

    def take(self, rows: NDArray[Any]) -> Feedback:
        """The answers of some rows, given as row numbers (m,) or as bool (n,)."""
        return Feedback(**{name: getattr(self, name)[rows] for name in Feedback.__slots__})

    def spread(self, rows: NDArray[np.bool_]) -> Feedback:
        """A batch of n rows, with the answers in the rows that ``rows`` (n,) marks; other rows have no decision."""
        nothing = Feedback.of([""] * len(rows), np.zeros(len(rows)))
        columns = {}
        for name in Feedback.__slots__:
            values, others = getattr(self, name), getattr(nothing, name)
            columns[name] = others.astype(np.result_type(values, others))
            columns[name][rows] = values
        return Feedback(**columns)

    def paid(self, reward: NDArray[np.float64]) -> Feedback:
        """The same answers with other rewards (n,)."""
        return Feedback(**{**{name: getattr(self, name) for name in Feedback.__slots__}, "reward": reward})

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Bool (n,), whether the reward means something: the status is ``ok`` or begins with ``cosine:``."""
        valid = self.status == "ok"
        return valid if valid.all() else valid | np.char.startswith(self.status, COSINE_INSTEAD)

    @property
    def details(self) -> dict[str, NDArray[Any]]:
        """Entries for ``info`` beside the reward, by their key in ``info``: new arrays of objects (n,)."""
        return {
            "feedback/decision": self.decision.astype(object),
            "feedback/status": self.status.astype(object),
            "feedback/reason": self.reason.copy(),
        }


class CertainFeedback(Feedback):
    """Answers that cannot fail, given as numbers. They are not checked, which makes the environment faster.

    Fields that are not given are read-only arrays, shared by all such answers. A copy is a plain :class:`Feedback`.

    Args:
        number: Integers (n,) in [0, 4), places in :data:`DECISIONS`.
        rewards: float64 (4,), finite, what each decision is worth.
        probability: float64 (n,), see :class:`Feedback`; NaN if not given.
        cached: Whether the answers were known before.
    """

    __slots__ = ("_number",)
    _number: NDArray[np.integer]

    def __init__(
        self,
        number: NDArray[np.integer],
        rewards: NDArray[np.float64],
        probability: NDArray[np.float64] | None = None,
        cached: bool = False,
    ):
        untold = _untold(len(number))
        put = object.__setattr__
        put(self, "decision", _DECISIONS[number])
        put(self, "reward", rewards[number])
        put(self, "status", untold.status)
        put(self, "probability", untold.probability if probability is None else probability)
        put(self, "reason", untold.reason)
        put(self, "tokens", untold.tokens)
        put(self, "cost_usd", untold.cost_usd)
        put(self, "cached", untold.yes if cached else untold.no)
        put(self, "_number", number)

    def __reduce__(self) -> tuple[Any, ...]:
        return Feedback, tuple(getattr(self, name) for name in Feedback.__slots__)

    @property
    def number(self) -> NDArray[np.integer]:
        """As in :class:`Feedback`."""
        return self._number

    def paid(self, reward: NDArray[np.float64]) -> CertainFeedback:
        """As in :class:`Feedback`; ``reward`` must be finite."""
        made = object.__new__(CertainFeedback)
        for name in (*Feedback.__slots__, *CertainFeedback.__slots__):
            object.__setattr__(made, name, reward if name == "reward" else getattr(self, name))
        return made

    @property
    def valid(self) -> NDArray[np.bool_]:
        """True in each row."""
        return _untold(len(self)).yes

    @property
    def details(self) -> dict[str, NDArray[Any]]:
        """As in :class:`Feedback`."""
        untold = _untold(len(self))
        return {
            "feedback/decision": _DECISION_OBJECTS[self._number],
            "feedback/status": untold.status_objects.copy(),
            "feedback/reason": untold.reason.copy(),
        }


class _Untold(NamedTuple):
    status: NDArray[np.str_]
    status_objects: NDArray[np.object_]
    probability: NDArray[np.float64]
    reason: NDArray[np.object_]
    tokens: NDArray[np.int64]
    cost_usd: NDArray[np.float64]
    no: NDArray[np.bool_]
    yes: NDArray[np.bool_]


def _untold(n: int) -> _Untold:
    """Read-only arrays (n,) of the fields that a :class:`CertainFeedback` is not given. Small ones are kept."""
    return _kept_untold(n) if n <= _MOST_KEPT else _new_untold(n)


def _new_untold(n: int) -> _Untold:
    untold = _Untold(
        status=np.full(n, "ok"),
        status_objects=np.full(n, "ok", object),
        probability=np.full(n, np.nan),
        reason=np.full(n, "", object),
        tokens=np.zeros(n, np.int64),
        cost_usd=np.zeros(n),
        no=np.zeros(n, bool),
        yes=np.ones(n, bool),
    )
    for values in untold:
        values.flags.writeable = False
    return untold


_kept_untold = lru_cache(maxsize=64)(_new_untold)


@runtime_checkable
class BoundSimulator(Protocol):
    """A simulator that knows its market.

    It may have four further attributes, for speed:

    * ``draws = False`` says that no answer depends on ``interaction_keys``, which are then not computed.
    * ``prepare(applicant_ids, job_ids)`` is called after the first step of episodes, with (m,) applicants and the
      (m, k) jobs that each of them is shown. It may compute their answers ahead. ``prepare = None`` is the same
      as no such method.
    * ``is_free = True`` says that an answer costs nothing and does not depend on the other questions. An environment
      may then ask about rows that it does not need, if leaving them out would take longer.
    * ``noise_of(interaction_keys)`` gives noise, (n,) float64. A simulator with this method uses the keys for nothing
      else. An environment that knows its interactions ahead then draws the noise of many together, and passes it to
      ``feedback`` as ``noise=``, (n,), in place of the keys. ``noise_of = None`` is the same as no such method.
    """

    def feedback(
        self, applicant_ids: Ids, job_ids: Ids, interaction_keys: NDArray[np.uint64] | None = None
    ) -> Feedback:
        """Answers a batch of recommendations.

        If answers depend on the applicant's present level, the method has a further argument ``levels=None``.
        ``JobRecCareer-v0`` passes the levels in it: (n,) integers, 1 to 5.

        Args:
            applicant_ids: (n,).
            job_ids: (n,).
            interaction_keys: (n,), one for each interaction. A noisy simulator draws its noise from them, so they must
                be spread evenly over all numbers of 64 bits, as hashes are: ``rng.integers(2**64, size=n,
                dtype=np.uint64)``, not ``np.arange(n)``. ``None`` if an answer depends on the pair only.
        """


@runtime_checkable
class UserSimulator(Protocol):
    """A simulated population of applicants, not yet tied to a market.

    If it is to be part of an environment's spec, it also has ``to_spec() -> dict``. The dict's entry ``"type"`` is a
    registered name or ``"module:Class"``; its other entries are the keywords of the constructor.
    """

    def bind(self, market: LabourMarket) -> BoundSimulator:
        """Ties it to a market; the reward wrappers call this once.

        It must not change the simulator, because the same simulator may be bound to another market too.
        """


_SIMULATORS: dict[str, str] = {
    "rules": "jobrec_gym.simulators.rules:RuleSimulator",
    "llm": "jobrec_gym.simulators.llm:LLMSimulator",
    "recorded": "jobrec_gym.simulators.recorded:RecordedSimulator",
    "logged": "jobrec_gym.simulators.logged:LoggedSimulator",
}


def register_simulator(name: str, entry_point: str) -> None:
    """Adds a ``"type"`` to :func:`make_simulator`; ``entry_point`` is ``"module:Class"``, imported when first used."""
    _SIMULATORS[name] = entry_point


def make_simulator(simulator: UserSimulator | SimulatorSpec) -> UserSimulator:
    """The simulator of a spec; an object comes back as it is.

    Args:
        simulator: An object with ``bind``, or ``{"type": NAME, keyword: value, ...}`` where ``NAME`` is a registered
            name or ``"module:Class"``. The module is imported; its class is called only if it has ``bind``.

    Raises:
        ValueError: If it is neither, or for a keyword that the class does not have.
    """
    if isinstance(simulator, Mapping):
        name = simulator.get("type")
        entry_point = _SIMULATORS.get(name, name) if isinstance(name, str) else None
        if entry_point is None or ":" not in entry_point:
            raise ValueError(
                f"`simulator['type']` must be one of {tuple(_SIMULATORS)} or 'module:Class', got {name!r}."
            )
        made: UserSimulator = made_of_spec("simulator", class_with_bind("simulator['type']", entry_point), simulator)
        return made
    if isinstance(simulator, type) or not isinstance(simulator, UserSimulator):
        raise ValueError(
            "`simulator` must have `bind(market)` (see UserSimulator) or be a dictionary with 'type', "
            f"got {simulator!r}."
        )
    return simulator


def bound_simulator(simulator: UserSimulator, market: LabourMarket) -> BoundSimulator:
    """The simulator tied to a market.

    Raises:
        ValueError: If its ``bind`` returns something without ``feedback``.
    """
    bound = simulator.bind(market)
    if not callable(getattr(bound, "feedback", None)):
        raise ValueError(
            f"`simulator` must return from `bind(market)` an object with `feedback`, see BoundSimulator; "
            f"{simulator!r:.80} returned {bound!r:.80}."
        )
    return bound


def checked_answers(feedback: Feedback, n: int) -> Feedback:
    """The answers of a simulator to n recommendations.

    Raises:
        ValueError: If it is no :class:`Feedback`, or does not have n answers.
    """
    if not isinstance(feedback, Feedback):
        raise ValueError(
            f"`simulator` must return a Feedback from `feedback`, got {type(feedback).__name__}: "
            "`Feedback.of(decisions, rewards)` makes one."
        )
    if len(feedback) != n:
        raise ValueError(f"`simulator` must answer each recommendation once, got {len(feedback)} answers to {n}.")
    return feedback


def class_with_bind(argument: str, entry_point: str) -> Any:
    """Imports and checks the class ``"module:Class"``, without calling it: a spec may come from somebody else.

    Args:
        argument: Name of the argument that has this value, for the message.
        entry_point: ``"module:Class"``, from a spec.

    Raises:
        ValueError: If it cannot be imported or is not a class with ``bind``.
    """
    module, _, attribute = entry_point.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"`{argument}`: {entry_point!r} cannot be imported: {error}.") from error
    if not isinstance(kind, type) or not callable(getattr(kind, "bind", None)):
        raise ValueError(
            f"`{argument}` must be a class with `bind(market)`, got {entry_point!r}, which is "
            f"{'a class without it' if isinstance(kind, type) else 'no class'} and is not called."
        )
    return kind


def made_of_spec(argument: str, kind: Any, spec: Mapping[str, Any]) -> Any:
    """Makes an object from a spec.

    Args:
        argument: Name of the argument that has this value, for the message.
        kind: The class of the spec's entry ``"type"``.
        spec: The spec. Its other entries are keywords of the constructor, or what the class's ``from_spec`` reads.

    Raises:
        ValueError: For a keyword that the class does not have, a missing keyword, or a value of a wrong type.
    """
    options = {name: value for name, value in spec.items() if name != "type"}
    try:
        return kind.from_spec(spec) if hasattr(kind, "from_spec") else kind(**options)
    except TypeError as error:
        known = tuple(inspect.signature(kind).parameters)
        for option in options:
            is_unknown = f"unexpected keyword argument {option!r}" in str(error)
            if near := best_match(str(option), known) if is_unknown else None:
                raise ValueError(
                    f"`{argument}` of type {spec['type']!r} has no {option!r}. Did you mean {near!r}?"
                ) from error
        raise ValueError(
            f"`{argument}` of type {spec['type']!r} cannot be made of {sorted(map(str, options))}: {error}."
        ) from error


def simulator_spec(simulator: UserSimulator | SimulatorSpec) -> UserSimulator | SimulatorSpec:
    """The simulator in plain JSON if it has such a form, else the simulator itself.

    Raises:
        ValueError: If it is neither a simulator nor a spec.
    """
    if not isinstance(simulator, Mapping):
        make_simulator(simulator)
    to_spec = getattr(simulator, "to_spec", None)
    return simulator if to_spec is None else to_spec()


def decision_rewards(rewards: Mapping[str, float] | None) -> dict[str, float]:
    """The reward of each decision: the given ones, and the defaults for all others.

    Raises:
        ValueError: For an unknown decision, or a reward that is not a finite number.
    """
    if not isinstance(rewards, Mapping | None):
        raise ValueError(f"`rewards` must map decisions of {DECISIONS} to numbers, got {rewards!r:.80}.")
    unknown = set(rewards or ()) - set(DECISIONS)
    if unknown:
        raise ValueError(f"`rewards` must map decisions of {DECISIONS}, got {sorted(map(str, unknown))}.")
    merged = {**DEFAULT_REWARDS, **(rewards or {})}
    for decision, reward in merged.items():
        if not is_finite_number(reward):
            raise ValueError(f"`rewards` must be finite numbers, got {decision}={reward!r:.80}.")
    return {decision: float(merged[decision]) for decision in DECISIONS}


def is_finite_number(value: Any) -> bool:
    """Whether a value is a finite number, and no truth value."""
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False
