"""Groups of arguments of an :class:`~jobrec_gym.simulators.llm.LLMSimulator`.

Each may be given as an object or as a plain mapping: ``retries=Retries(attempts=5)`` or ``retries={"attempts": 5}``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike

from jobrec_gym.credentials import refuse_credentials
from jobrec_gym.near_miss import best_match
from jobrec_gym.paths import place_of
from jobrec_gym.simulators.base import DECISIONS, is_finite_number
from jobrec_gym.simulators.prompts import prompt_place

__all__ = [
    "AskingMode",
    "Budget",
    "CacheMode",
    "Calls",
    "Elicitation",
    "OnFailure",
    "OnReached",
    "Retries",
    "Sampling",
    "check_choice",
    "given",
    "most_dollars",
    "plain",
    "rising_shares",
    "thresholds",
    "unknown_argument",
]

AskingMode = Literal["decision", "probability"]
CacheMode = Literal["record", "replay", "replay_strict"]
OnReached = Literal["raise", "cosine", "stop"]
OnFailure = Literal["raise", "cosine", "skip"]

Value = TypeVar("Value")

_MOST_SECONDS = 100_000_000

_OF_THE_CALL = {
    "best_of",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "n_predict",
    "n_probs",
    "response_format",
    "seed",
    "stream",
    "temperature",
    "top_logprobs",
}


@dataclass(frozen=True, slots=True)
class Elicitation:
    """How the model is asked for a decision.

    Attributes:
        prompt: Version of a template of this package, or the path of your own template; ``None`` for the mode's
            default.
        decisions: The four decisions, in the order in which the prompt lists them.
        calibration: The thresholds that turn probabilities into decisions; mode ``"probability"`` only. ``"auto"``: at
            the first use the model is asked about 100 pairs, which a fixed seed draws from the market. The thresholds
            are the :data:`~jobrec_gym.simulators.llm.QUANTILES` of their probabilities. Other values: the path of a
            :class:`~jobrec_gym.simulators.llm.Calibration`, or three rising numbers.

    Paths are made absolute.

    Raises:
        ValueError: For other decisions than :data:`~jobrec_gym.simulators.base.DECISIONS`, thresholds that fall or are
            not finite, or a ``prompt`` that is no text.
    """

    prompt: str | None = None
    decisions: Sequence[str] = DECISIONS
    calibration: str | os.PathLike[str] | Sequence[float] = "auto"

    def __post_init__(self) -> None:
        is_list = isinstance(self.decisions, Iterable) and not isinstance(self.decisions, str)
        decisions = tuple(self.decisions) if is_list else ()
        if sorted(map(str, decisions)) != sorted(DECISIONS):
            raise ValueError(
                f"`elicitation.decisions` must be {DECISIONS} in any order, got {decisions or self.decisions!r}."
            )
        _put(self, "decisions", decisions)
        # Places are made absolute, so that they are found in another working folder too.
        if self.prompt is not None:
            if not isinstance(self.prompt, (str, os.PathLike)):
                raise ValueError(
                    f"`elicitation.prompt` must be a version, the path of a template, or None, got {self.prompt!r:.80}."
                )
            _put(self, "prompt", prompt_place(self.prompt))
        cut = self.calibration
        if not isinstance(cut, (str, os.PathLike)):
            _put(self, "calibration", thresholds(cut))
        elif cut != "auto":
            _put(self, "calibration", str(place_of(cut).absolute()))


@dataclass(frozen=True, slots=True)
class Sampling:
    """Entries of a request besides its messages; all of them are part of the key under which an answer is kept.

    Attributes:
        temperature: ``None`` for the provider's default. If the model takes no temperature, it is left out, with a
            warning.
        seed: Likewise.
        max_tokens: The most tokens of an answer; ``None`` for the mode's default.
        extra_body: Further entries of each request, e.g. ``{"cache_prompt": False}``.
        repeat: Another number asks the same questions again; the new answers are kept beside the first ones.
        max_completion_tokens: The same as ``max_tokens``, under the name that some deployments require.

    Raises:
        ValueError: For a value that is not a number, a length that is below 1 or given twice, or an extra entry that
            would evade a cap, or would write an API key into a file.
    """

    temperature: float | None = 0.0
    seed: int | None = 0
    max_tokens: int | None = None
    extra_body: Mapping[str, Any] | None = None
    repeat: int = 0
    max_completion_tokens: int | None = None

    def __post_init__(self) -> None:
        # One form for each number: the written form is part of an answer's key, where 0 and 0.0 must be the same.
        if self.temperature is not None:
            _put(self, "temperature", _number("sampling.temperature", self.temperature) + 0.0)
        if self.seed is not None:
            _put(self, "seed", _whole("sampling.seed", self.seed))
        _put(self, "repeat", _whole("sampling.repeat", self.repeat))
        for name in ("max_tokens", "max_completion_tokens"):
            if getattr(self, name) is not None:
                _put(self, name, _whole(f"sampling.{name}", getattr(self, name), 1))
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError(
                "`sampling.max_tokens` and `sampling.max_completion_tokens` are two names of one length: give one, "
                f"got {self.max_tokens} and {self.max_completion_tokens}."
            )
        names = {str(name).lower() for name in self.extra_body or ()}
        if taken := sorted(names & _OF_THE_CALL):
            raise ValueError(f"`sampling.extra_body` must not set {taken}, which the simulator sets itself.")
        refuse_credentials(self.extra_body, "sampling.extra_body", "give `api_key`", sent=True)


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard caps on calls and tokens.

    They hold for the total of all processes and runs that share a cache and use the same ``name``. The cap on dollars
    counts in the same way. It is an argument of the simulator itself, ``max_usd``.

    Attributes:
        max_calls: Most calls, retries included; ``None`` for no cap.
        max_tokens: Most tokens, in and out; ``None`` for no cap.
        prices: Dollars per token in and out, from which the cost for ``max_usd`` is computed; ``None`` takes litellm's
            list.
        name: Name of the record of what was spent. Runs with the same name and cache share one record.
        on_reached: ``"raise"`` raises :class:`~jobrec_gym.simulators.llm.FeedbackError`. ``"cosine"`` pays the
            cosine, rescaled to the mean and spread of feedback (``"matched"``), with status ``cosine:budget``.
            ``"stop"`` raises :class:`~jobrec_gym.simulators.budget.BudgetReached`, which ends a run of ``experiments``
            without an error.

    Raises:
        ValueError: For a negative cap or price, or an unknown ``on_reached``.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    prices: Sequence[float] | None = None
    name: str = "default"
    on_reached: OnReached = "raise"

    def __post_init__(self) -> None:
        for name in ("max_calls", "max_tokens"):
            cap = getattr(self, name)
            if cap is not None:
                _put(self, name, _whole(f"budget.{name}", cap, 0))
        if self.prices is not None:
            prices = tuple(self.prices) if isinstance(self.prices, Iterable) else ()
            if len(prices) != 2 or not all(is_finite_number(price) and price >= 0 for price in prices):
                raise ValueError(
                    "`budget.prices` must be two finite numbers of at least 0, dollars per token in and out, or None "
                    f"for litellm's list, got {self.prices!r}."
                )
            _put(self, "prices", tuple(map(float, prices)))
        check_choice("budget.on_reached", self.on_reached, get_args(OnReached))


@dataclass(frozen=True, slots=True)
class Calls:
    """How calls are made.

    Attributes:
        concurrency: Calls at a time.
        timeout: Seconds for one call.
        batch_timeout: Seconds for a batch, retries and waits included. Questions without an answer by then have failed.

    Raises:
        ValueError: If a number is not above 0, or if a time is longer than 100,000,000 seconds.
    """

    concurrency: int = 8
    timeout: float = 60.0
    batch_timeout: float = 600.0

    def __post_init__(self) -> None:
        _put(self, "concurrency", _whole("calls.concurrency", self.concurrency, 1))
        for name in ("timeout", "batch_timeout"):
            seconds = getattr(self, name)
            if not is_finite_number(seconds) or not 0 < seconds <= _MOST_SECONDS:
                raise ValueError(
                    f"`calls.{name}` must be seconds, a number above 0 and at most {_MOST_SECONDS:,} (86400 is a day), "
                    f"got {seconds!r}."
                )
            _put(self, name, float(seconds))


@dataclass(frozen=True, slots=True)
class Retries:
    """How a failed call is handled.

    Attributes:
        attempts: Further tries after HTTP status 429 or 5xx and after time-outs; other failures are not tried again.
        wait: Seconds before the first further try, doubled each time. If the server asks for a longer wait, the longer
            one is used.
        on_failure: How a recommendation without an answer is handled. ``"raise"`` raises
            :class:`~jobrec_gym.simulators.llm.FeedbackError`; ``"cosine"`` pays the cosine, rescaled to the mean and
            spread of feedback (``"matched"``); ``"skip"`` pays 0.0 and marks the transition invalid.

    Raises:
        ValueError: For a negative number, or an unknown ``on_failure``.
    """

    attempts: int = 3
    wait: float = 1.0
    on_failure: OnFailure = "skip"

    def __post_init__(self) -> None:
        _put(self, "attempts", _whole("retries.attempts", self.attempts, 0))
        if not _number("retries.wait", self.wait) >= 0:
            raise ValueError(f"`retries.wait` must be at least 0, got {self.wait}.")
        check_choice("retries.on_failure", self.on_failure, get_args(OnFailure))


def given(argument: str, kind: type[Value], value: Value | Mapping[str, Any], arguments: Sequence[str]) -> Value:
    """The object of an argument that was given as an object or as a plain mapping.

    Args:
        argument: Name of the argument.
        kind: Its class.
        value: The object or the mapping.
        arguments: All names that a misspelt one may mean; fields of objects as ``argument.field``.

    Raises:
        ValueError: If the value is neither, or if the mapping has an entry that is not a field.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"`{argument}` must be {kind.__name__}(...) or its fields as a mapping, got {value!r}.")
    for name in value:
        if f"{argument}.{name}" not in arguments:
            raise unknown_argument(f"{argument}.{name}", arguments)
    return kind(**value)


def plain(value: Any) -> Any:
    """An argument, object or not, in plain JSON."""
    if isinstance(value, (Elicitation, Sampling, Budget, Calls, Retries)):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def unknown_argument(name: str, arguments: Sequence[str]) -> ValueError:
    """The error for an unknown name; it suggests arguments whose last part is similar."""
    parts: dict[str, list[str]] = {}
    for argument in arguments:
        parts.setdefault(argument.rpartition(".")[2], []).append(f"`{argument}`")
    whose, _, part = name.rpartition(".")
    near = best_match(part, parts)
    hint = f" did you mean {' or '.join(parts[near])}?" if near else ""
    beside = [argument for argument in arguments if argument.rpartition(".")[0] == whose]
    return ValueError(f"`{name}` is no argument of LLMSimulator:{hint} There are {', '.join(beside)}.")


def thresholds(values: ArrayLike) -> tuple[float, float, float]:
    """Checks three rising probabilities, those from which a click, a save and an application begin; equal ones pass.

    Raises:
        ValueError: If there are not three, or if one is below the one before.
    """
    try:
        cuts = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        cuts = np.zeros(0)
    if cuts.shape != (len(DECISIONS) - 1,) or not np.isfinite(cuts).all() or not (np.diff(cuts) >= 0).all():
        raise ValueError(
            f'`elicitation.calibration` must be "auto", a path, or {len(DECISIONS) - 1} rising probabilities, got '
            f"{values!r}."
        )
    return float(cuts[0]), float(cuts[1]), float(cuts[2])


def rising_shares(values: ArrayLike, strictly: bool = False) -> tuple[float, float, float]:
    """Checks the shares of pairs whose probabilities lie below the thresholds of click, save and apply.

    Args:
        values: The shares.
        strictly: Whether each must be above the one before, and the first above 0.

    Raises:
        ValueError: If they are not three rising numbers in [0, 1].
    """
    try:
        shares = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        shares = np.zeros(0)
    if (
        shares.shape != (len(DECISIONS) - 1,)
        or not (np.diff([0.0, *shares, 1.0]) >= 0).all()
        or (strictly and not (np.diff([0.0, *shares]) > 0).all())
    ):
        bound = ", each above the one before and the first above 0" if strictly else ""
        raise ValueError(
            f"`quantiles` must be three rising shares in [0, 1]{bound}, such as [0.6, 0.85, 0.95], got {values!r:.80}."
        )
    return float(shares[0]), float(shares[1]), float(shares[2])


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises a ``ValueError`` that names the argument if its value is not one of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {allowed}, got {value!r}.")


def _put(value: object, name: str, entry: object) -> None:
    """Sets a field of a frozen object while the object is being made."""
    object.__setattr__(value, name, entry)


def most_dollars(value: Any) -> float | None:
    """The cap ``max_usd`` on dollars, checked; ``None`` for no cap.

    Raises:
        ValueError: If it is not a finite number of at least 0.
    """
    if value is None:
        return None
    if not is_finite_number(value) or value < 0:
        raise ValueError(f"`max_usd` must be a finite number of at least 0, or None for no cap, got {value!r}.")
    return float(value)


def _number(name: str, value: Any) -> float:
    if not is_finite_number(value):
        raise ValueError(f"`{name}` must be a finite number, got {value!r}.")
    return float(value)


def _whole(name: str, value: Any, least: int | None = None) -> int:
    """A whole number as an int, whatever its type.

    Raises:
        ValueError: If it is not a whole number, or below the least one.
    """
    if not is_finite_number(value) or value != int(value) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"`{name}` must be a whole number{bound}, got {value!r}.")
    return int(value)
