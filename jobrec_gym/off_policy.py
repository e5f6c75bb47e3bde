"""Off-policy evaluation: the reward that a policy would have had on a log, by IPS, SNIPS, DM and DR.

IPS is inverse propensity scoring, SNIPS its self-normalised form, DM the direct method, and DR the doubly robust
method. The intervals resample people. The value is that of one step: a person is shown one of the candidate sets that
the log has for this person, and the policy recommends a job. The estimators are those of Dudík et al., "Doubly robust
policy evaluation and learning", ICML 2011; self-normalised weights are those of Swaminathan and Joachims, NeurIPS 2015.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobrec_gym.counter_rng import hash64
from jobrec_gym.interactions import Interactions, LogError, ObservationForm, check_catalogue
from jobrec_gym.market import BLOCKS, LabourMarket, gathered, row_products
from jobrec_gym.pair_features import PAIR_FEATURES, PairValues
from jobrec_gym.prediction_powered import powered_mean, t_quantile
from jobrec_gym.simulators.base import (
    BoundSimulator,
    SimulatorSpec,
    UserSimulator,
    bound_simulator,
    checked_answers,
    make_simulator,
)

__all__ = [
    "METHODS",
    "RELIABLE_FROM",
    "RELIABLE_PEOPLE",
    "Agent",
    "Difference",
    "Doubt",
    "Estimate",
    "Judge",
    "Method",
    "NeverRecommended",
    "Policy",
    "PolicyFunction",
    "RidgeRewards",
    "action_probabilities",
    "estimate",
    "estimate_all",
    "pair_numbers",
    "require_options",
]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
Method = Literal["ips", "snips", "dm", "dr"]
_Bounds = tuple[float, float, float]  # a value and the ends of its interval
RewardModel = Callable[[Ids, Ids], NDArray[np.floating]]
PolicyFunction = Callable[[dict[str, NDArray[Any]]], ArrayLike]
Judge = RewardModel | NDArray[np.floating] | UserSimulator | BoundSimulator | SimulatorSpec
"""Predictions of rewards by somebody else, such as a language model: an array (n_applicants, n_jobs), a function like
the argument ``reward_model``, or a simulator or its spec, which is asked about each shown pair once. NaN means that a
pair was not judged; a pair without an answer of the simulator (a status other than ``"ok"``) was not judged either."""

METHODS: tuple[Method, ...] = get_args(Method)

RELIABLE_FROM = 200
"""An estimate is called reliable from this effective sample size on."""

RELIABLE_PEOPLE = 30
"""An estimate is called reliable from this effective number of people on."""

_FOLD, _JUDGED = 1, 2
_RESAMPLED = 1 << 22  # people drawn at once in a bootstrap
_PAIRS = 1 << 14  # pairs whose vectors are looked up at once
_NAMED = 10
_ROUNDING = 1e-5  # relative size of rounding errors
_MEAN_WEIGHT_LEVEL = 0.999
_ROUNDED = 0.02  # how far propensities with few digits may move the mean weight from 1
_MOST_DEGREES = 1_000  # with more degrees of freedom, Student's t hardly changes and its quantile takes long


@runtime_checkable
class Agent(Protocol):
    """An agent with a value for each candidate: ``DynaQ``, a bandit, or any other."""

    def q_values(self, observation: Any) -> NDArray[np.floating]:
        """Values (n, k) of a batch of n observations."""


Policy = Agent | PolicyFunction | None
"""An agent; a function of a batch of n observations that gives probabilities (n, k); or ``None``, a uniform choice."""


@dataclass(frozen=True, slots=True)
class NeverRecommended:
    """A job that the policy recommends but of which the log has no answered recommendation.

    So no answer says anything about its reward.

    Attributes:
        job_id: The job's row.
        key: The job's key in the market.
        title: The job's title.
        share: The job's share of the policy's recommendations on the log.
    """

    job_id: int
    key: str
    title: str
    share: float


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason why an estimate is not reliable.

    Attributes:
        what: The reason in a few words.
        advice: What it means, or where it comes from, and the way out.
    """

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what} ({self.advice})"


@dataclass(frozen=True, slots=True)
class Difference:
    """The value of a policy less that of a baseline on the same log.

    Attributes:
        value: The difference.
        low: Lower end of its interval. Both policies are valued in the same resamples of people, so the interval is
            that of the paired difference.
        high: Upper end of the interval.
        reliable: Whether both estimates are reliable.
    """

    value: float
    low: float
    high: float
    reliable: bool

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclass(frozen=True, slots=True)
class Estimate:
    """The one-step value of a policy on a log.

    Attributes:
        method: The method of estimation.
        value: Mean reward of a recommendation. With ``snips``, the value and both ends of the interval are NaN if
            ``never_agreed``.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of answered recommendations in the estimate.
        n_people: Number of people in the estimate.
        effective_sample_size: The number of equally weighted recommendations that would be worth as much as the
            weighted ones (Kish, 1965); NaN if the log has no propensities.
        reliable: Whether nothing is known that speaks against the estimate. ``doubts`` are then empty. The interval may
            be too narrow if the effective sample size is below 200 or the effective number of people is below 30. The
            value may be wrong too if the mean weight is not 1. An estimate by ``dm`` is never called reliable, because
            it relies on its model alone.
        largest_weight: Largest weight of a recommendation, before clipping; NaN without propensities.
        clipped: Share of the recommendations whose weight was clipped.
        never_recommended_share: Share of the policy's recommendations whose jobs have no answered recommendation in the
            log.
        never_recommended: The ten jobs that the policy recommends most among those without an answered recommendation.
        judge_weight: Weight of the judge, 0 to (n - 1) / (n + 5) for n people with an answer; NaN without a judge.
        effective_people: The number of people with equal sums of weights that would be worth as much as the people of
            the log, whose sums differ; NaN without propensities.
        mean_weight: Mean weight of all recommendations of the log, answered or not, before clipping; NaN without
            propensities. Its expectation is 1. It is another number if the log's policy never chooses some jobs that
            the policy chooses, or if the propensities are not those of a choice among the shown jobs.
        doubts: Why the estimate is not reliable.
        difference: The value less that of the argument ``baseline``; ``None`` without it.
    """

    method: Method
    value: float
    low: float
    high: float
    n: int
    n_people: int
    effective_sample_size: float
    reliable: bool
    largest_weight: float
    clipped: float
    never_recommended_share: float
    never_recommended: tuple[NeverRecommended, ...]
    judge_weight: float = float("nan")
    effective_people: float = float("nan")
    mean_weight: float = float("nan")
    doubts: tuple[Doubt, ...] = ()
    difference: Difference | None = None

    @property
    def never_agreed(self) -> bool:
        """Whether the policy makes none of the log's answered recommendations, so that these say nothing about it."""
        return self.effective_sample_size == 0

    def __str__(self) -> str:
        if self.method == "dm":
            size = f"{self.n:,} answers of {self.n_people:,} people"
        else:
            size = f"effective sample size {self.effective_sample_size:,.0f} of {self.n:,}"
            size += f", effective people {self.effective_people:,.1f} of {self.n_people:,}"
        less = "" if self.difference is None else f", less the baseline {self.difference}"
        note = f"; not reliable: {'; '.join(map(str, self.doubts))}" if self.doubts else ""
        return f"{self.method}: {self.value:.4f} [{self.low:.4f}, {self.high:.4f}]{less} ({size}){note}"


def estimate(
    policy: Policy | NDArray[np.floating], interactions: Interactions, method: Method = "dr", **options: Any
) -> Estimate:
    """The reward that a policy would have had on a log, by one method; arguments and errors as :func:`estimate_all`.

    Example:
        >>> market = load_market("default")
        >>> log = Interactions.of(market, [0, 1], [3, 4], [1.0, 0.0], shown=[[3, 4]] * 2, propensity=[0.5, 0.5])
        >>> estimate(lambda obs: [[1.0, 0.0]] * 2, log, "ips").value
        1.0
    """
    return estimate_all(policy, interactions, (method,), **options)[method]


def estimate_all(
    policy: Policy | NDArray[np.floating],
    interactions: Interactions,
    methods: Sequence[Method] = METHODS,
    *,
    baseline: Policy | NDArray[np.floating] | Literal["uniform"] = None,
    epsilon: float = 0.0,
    form: ObservationForm | None = None,
    clip: float | None = None,
    reward_model: RewardModel | None = None,
    reward_features: RewardModel | None = None,
    judge: Judge | None = None,
    n_folds: int = 5,
    level: float = 0.95,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> dict[Method, Estimate]:
    """The reward that a policy would have had on a log, by several methods.

    Rows without an answer are left out. ``ips`` is the mean of the rewards, each weighted by the policy's probability
    of the recommendation divided by the log's probability of it. ``snips`` divides the sum of the weighted rewards by
    the sum of the weights, not by the number of rows. If the sum of the weights is 0, because the policy makes none of
    the log's recommendations, the value is NaN. Resamples with a sum of 0 are left out of the interval of ``snips``.
    ``dm`` is the mean of the rewards that a model predicts for the policy. ``dr`` adds to ``dm`` the mean of the
    model's weighted errors.

    Args:
        policy: An agent, which plays greedily by its ``q_values``; a function of a batch of observations that returns
            probabilities (n, k); an array of such probabilities, if all candidate sets have one size; or ``None``
            for a uniform choice.
        interactions: The log. It must say what was shown and, for all methods but ``"dm"``, the propensities.
        methods: Which of :data:`METHODS`.
        baseline: Another policy, or ``"uniform"`` for a uniform choice. Each estimate then has the ``difference`` of
            the two values. Its interval is narrower than the two intervals suggest, because both policies meet the same
            people. ``None`` compares with nothing.
        epsilon: Share of an agent's choices that are uniform, also of those of an agent as ``baseline``; 0 for a
            function or array as ``policy``.
        form: The form of the policies' observations; by default the form that each agent says it reads.
        clip: Largest weight; ``None`` clips no weight. Clipping narrows the interval. It biases the value of ``ips``
            towards 0, the value of ``snips`` towards the log's own value, and the value of ``dr`` towards that of
            ``dm``. It is refused beside a judge.
        reward_model: A function of applicant ids (n, 1) and job ids (n, k) that gives expected rewards (n, k). It
            replaces the default model, a ridge regression.
        reward_features: A function of the same ids that gives the inputs (n, k, p) of the ridge regression;
            :func:`pair_numbers` by default.
        judge: Predicts the rewards of the shown jobs in every row of the log, for logs in which few rows have an
            answer. The estimate is then prediction-powered. The method must be ``dr``. The judge takes the place of the
            reward model, and its weight depends on how well it predicts the answers. The interval is Student's t over
            people, see :func:`~jobrec_gym.prediction_powered.powered_mean`. A judge that knows nothing changes little.
            Its weight and this interval are also those of the difference from a baseline. A shown pair that it did not
            judge counts as the mean of the pairs that it judged, with a warning that counts such pairs.
        n_folds: Number of folds of people. A person's rewards are predicted by a model that was fitted to the other
            folds.
        level: Confidence level of the interval.
        n_resamples: How often people are resampled.
        seed: Seed of folds and resamples.

    Returns:
        Estimates by method.

    Raises:
        LogError: If the log has no shown jobs, no answer, or only one person. If it has no propensities and a method
            other than ``"dm"`` is asked for. If its applicants change, because a one-step value says nothing about a
            career.
        ValueError: For an argument that is not allowed, for probabilities that do not sum to 1, for an agent whose ids
            name other jobs than those of the log's market, and for a judge that judged no pair, or with another method
            than ``dr``, with ``clip``, or with answers of fewer than three people.
    """
    require_options(
        methods, epsilon=epsilon, clip=clip, n_folds=n_folds, level=level, n_resamples=n_resamples, seed=seed
    )
    if isinstance(baseline, str) and baseline != "uniform":
        raise ValueError(f'`baseline` must be a policy, "uniform" for a uniform choice, or None, got {baseline!r:.80}.')
    if judge is not None:
        _check_judge(methods, clip, reward_model, reward_features)
    if interactions.moving:
        raise LogError(
            "the log is of applicants who change with their answers, as in JobRecCareer-v0: a one-step value says "
            "nothing about a career, in which a recommendation is also worth what it leads to. Play episodes in the "
            "environment, or compute the exact value by `jobrec_gym.oracle`."
        )
    weighted = set(methods) - {"dm"}
    if interactions.propensity is None and weighted:
        raise LogError(
            f"{sorted(weighted)} need the propensity of each recommendation, the probability with which the log's "
            "policy chose it, and the log has none: without them it is unknown what other jobs would have earned. Log "
            'them, or use method="dm" (`methods=["dm"]` in `estimate_all`), which relies on its model alone.'
        )
    chances = _chances(policy, interactions, epsilon, form, "policy")  # checks that the log says what was shown
    answered = np.flatnonzero(interactions.answered)
    if not len(answered):
        raise LogError(f"none of the {len(interactions):,} rows of the log has an answer: nothing can be estimated.")
    people, person = np.unique(interactions.applicant_ids[answered], return_inverse=True)
    if len(people) < 2:
        raise LogError("the log has only one person: an interval resamples people, and needs two or more.")
    of_pairs = None
    if judge is not None:
        of_pairs = _judged(judge, interactions)
    elif set(methods) & {"dm", "dr"}:
        of_pairs = _modelled(interactions, reward_model, reward_features, n_folds, seed)
    own = _Valued.of(chances, interactions, of_pairs, clip)
    other = None
    if baseline is not None:
        other_policy = None if isinstance(baseline, str) else baseline
        share = epsilon if isinstance(other_policy, Agent) else 0.0
        other = _Valued.of(_chances(other_policy, interactions, share, form, "baseline"), interactions, of_pairs, clip)
    never = _never_recommended(interactions, chances)

    def told(method: Method, bounds: _Bounds, less: _Bounds | None, judge_weight: float = math.nan) -> Estimate:
        """The estimate with all that is told about it; ``less`` is the difference from the baseline."""
        doubts = own.doubts(method)
        difference = None
        if less is not None and other is not None:
            difference = Difference(*less, reliable=not doubts and not other.doubts(method))
        return Estimate(
            method,
            *bounds,
            len(answered),
            len(people),
            own.size,
            not doubts,
            own.largest,
            own.clipped,
            *never,
            judge_weight=judge_weight,
            effective_people=own.people,
            mean_weight=own.mean_weight,
            doubts=doubts,
            difference=difference,
        )

    if judge is not None:
        rows = interactions.applicant_ids

        def powered(weights: Floats, expected: Floats) -> tuple[_Bounds, float]:
            answers, judged = weights * own.reward, weights * own.fitted
            found = powered_mean(answers, judged, rows[answered], expected, rows, level, seed)
            return (found.value, found.low, found.high), found.weight

        if len(answered) == len(interactions) and np.array_equal(own.weights * own.fitted, own.expected):
            warnings.warn(
                "`judge` changes nothing here, because every recommendation that it judged was answered: keep "
                "recommendations without an answer in the log, with NaN as their reward.",
                stacklevel=3,
            )
        bounds, weight = powered(own.weights, own.expected)
        less = None
        if other is not None:
            less, _ = powered(own.weights - other.weights, own.expected - other.expected)
        return {"dr": told("dr", bounds, less, weight)}
    resampled = _Resampled(person, len(people), n_resamples, seed)
    result: dict[Method, Estimate] = {}
    for method in methods:
        value, values = resampled.ratio(*own.terms(method))
        less = None
        if other is not None:
            other_value, other_values = resampled.ratio(*other.terms(method))
            less = _bounds(value - other_value, values - other_values, level)
        result[method] = told(method, _bounds(value, values, level), less)
    return result


def require_options(
    methods: Sequence[Method],
    *,
    epsilon: float = 0.0,
    clip: float | None = None,
    n_folds: int = 5,
    level: float = 0.95,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> None:
    """Checks the arguments of :func:`estimate_all` that need no log.

    Raises:
        ValueError: For the first argument that is not allowed.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ValueError(f"`method` must be one of {METHODS}, got {unknown[0]!r}.")
    if not _is_number(epsilon) or not 0 <= epsilon <= 1:
        raise ValueError(f"`epsilon` must be in [0, 1], got {epsilon!r:.80}.")
    if not _is_number(level) or not 0 < level < 1:
        raise ValueError(f"`level` must be in (0, 1), such as 0.95, got {level!r:.80}.")
    if clip is not None and (not _is_number(clip) or not clip > 0):
        raise ValueError(f"`clip` must be above 0 or None, got {clip!r:.80}.")
    for name, count, least in (("n_folds", n_folds, 2), ("n_resamples", n_resamples, 1), ("seed", seed, 0)):
        if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < least:
            raise ValueError(f"`{name}` must be at least {least} and a whole number, got {count!r:.80}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _check_judge(methods: Sequence[Method], clip: float | None, *models: RewardModel | None) -> None:
    """Refuses arguments that a judge replaces, or that would bias the estimate."""
    if tuple(methods) != ("dr",):
        raise ValueError(
            f'`judge` takes the place of the reward model of `method="dr"`, got {tuple(methods)}: estimate by "dr" '
            "alone, or by other methods without a judge."
        )
    if any(model is not None for model in models):
        raise ValueError(
            "`judge` takes the place of `reward_model` and `reward_features`, got one or both of these beside it: give "
            "the judge alone, which is not fitted to the answers, or leave the judge out."
        )
    if clip is not None:
        raise ValueError(
            f"`clip` must be None beside `judge`, got {clip!r:.80}: with clipped weights the answers no longer correct "
            "the judge, and the value sinks towards 0. Leave out `clip`, or the judge."
        )


def _judged(judge: Judge, log: Interactions) -> Floats:
    """The judge's rewards of all shown pairs, end to end (total,).

    Raises:
        ValueError: If the judge has another form, or judged no pair.
    """
    assert log.shown_ids is not None  # the log has probabilities
    if isinstance(judge, Mapping | UserSimulator | BoundSimulator):
        of_pairs = _asked_once(judge, log)
    elif callable(judge):
        of_pairs = _rewards_by(judge, log, "judge")
    else:
        market = log.market
        table, shape = _as_numbers(judge), (len(market.applicants), len(market.jobs))
        if table.shape != shape:
            raise ValueError(
                f"`judge` must be an array (n_applicants, n_jobs) = {shape}, a function of applicant_ids (n, 1) and "
                f"job_ids (n, k), or a simulator, got {type(judge).__name__} {table.shape or ''}."
            )
        of_pairs = table[np.repeat(log.applicant_ids, log.sizes), log.shown_ids]
    missing = np.isnan(of_pairs)
    if np.isinf(of_pairs).any() or missing.all():
        raise ValueError(
            "`judge` must give finite rewards of the shown pairs, and NaN where it did not judge one; "
            f"{'it judged none' if missing.all() else 'some are infinite'}."
        )
    if n_missing := np.count_nonzero(missing):
        warnings.warn(
            f"`judge` did not judge {n_missing:,} of {len(of_pairs):,} shown pairs: each of them counts as the mean of "
            "the others, which says nothing about it. Let it judge them too, or leave out their recommendations.",
            stacklevel=4,
        )
        of_pairs = np.where(missing, of_pairs[~missing].mean(), of_pairs)
    return of_pairs


def _asked_once(judge: UserSimulator | BoundSimulator | SimulatorSpec, log: Interactions) -> Floats:
    """A simulator's rewards of all shown pairs, end to end, NaN without an answer; equal pairs are asked once."""
    assert log.shown_ids is not None  # the log has probabilities
    n_jobs = len(log.market.jobs)
    pairs, place = np.unique(np.repeat(log.applicant_ids, log.sizes) * n_jobs + log.shown_ids, return_inverse=True)
    applicants, jobs = np.divmod(pairs, n_jobs)
    bound: Any = judge if isinstance(judge, BoundSimulator) else bound_simulator(make_simulator(judge), log.market)
    market = getattr(bound, "market", log.market)
    if not all(
        np.array_equal(one.keys, other.keys)
        for one, other in zip((market.applicants, market.jobs), (log.market.applicants, log.market.jobs), strict=True)
    ):
        raise ValueError(
            f"`judge` is bound to market {market.name!r}, whose people or jobs are others than those of the log: give "
            "the simulator itself."
        )
    if hasattr(bound, "expected_reward") and getattr(bound, "draws", True):
        rewards: Floats = bound.expected_reward(applicants, jobs)
    else:
        feedback = checked_answers(bound.feedback(applicants, jobs, hash64(_JUDGED, applicants, jobs)), len(jobs))
        rewards = np.where(feedback.status == "ok", feedback.reward, np.nan)
    return rewards[place]


def _as_numbers(values: Any) -> Floats:
    """An array of numbers; one without axes, which has no allowed shape, if the values are no numbers."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return np.zeros(())


def action_probabilities(policy: Policy, observation: dict[str, NDArray[Any]], epsilon: float = 0.0) -> Floats:
    """The probability with which a policy recommends each candidate.

    Args:
        policy: An agent, a function, or ``None``.
        observation: A batch of n decisions with k candidates each.
        epsilon: Share of an agent's choices that are uniform; 0 for a function.

    Returns:
        float64 (n, k), whose rows sum to 1. With an agent or ``None``, a masked candidate has probability 0. The
        probabilities of a function are returned unchanged, without regard to ``action_mask``.

    Raises:
        ValueError: For an object that is no policy, an ``epsilon`` outside of [0, 1], an ``epsilon`` above 0 with a
            function, or numbers that are not probabilities.
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"`epsilon` must be in [0, 1], got {epsilon}.")
    return _probabilities(policy, observation, epsilon, "policy")


def _probabilities(policy: Policy, observation: dict[str, NDArray[Any]], epsilon: float, named: str) -> Floats:
    """What :func:`action_probabilities` returns; error messages call the policy ``named``."""
    n, k = observation["candidates"].shape[:2]
    allowed = np.ones((n, k)) if "action_mask" not in observation else observation["action_mask"].astype(np.float64)
    uniform = allowed / allowed.sum(axis=1, keepdims=True)
    if policy is None:
        return uniform
    if isinstance(policy, Agent):
        values = np.asarray(policy.q_values(observation), np.float64)
        if values.shape != (n, k) and not (n == 1 and values.shape == (k,)):
            raise ValueError(f"`{named}` must give values {(n, k)}, a row for each decision, got {values.shape}.")
        values = values.reshape(n, k)
        if not np.isfinite(values[allowed > 0]).all():
            raise ValueError(f"`{named}` must give finite values, got some that are not: has its learning diverged?")
        greedy = np.zeros((n, k))
        greedy[np.arange(n), np.where(allowed > 0, values, -np.inf).argmax(axis=1)] = 1.0
        return (1 - epsilon) * greedy + epsilon * uniform
    if not callable(policy):
        raise ValueError(f"`{named}` must have `q_values`, be a function of observations, or None, got {policy!r}.")
    if epsilon:
        raise ValueError("`epsilon` is only for agents with `q_values`; a function returns the probabilities itself.")
    return _checked(np.asarray(policy(observation), np.float64), (n, k), named)


def pair_numbers(market: LabourMarket, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float32]:
    """The inputs of the ridge regression of rewards: inner products of the blocks, and the three ``PAIR_FEATURES``.

    Args:
        market: The market; ids are rows of its tables.
        applicant_ids: Ids of any shape.
        job_ids: Ids of a shape that broadcasts with that of ``applicant_ids``.

    Returns:
        float32 (..., 2 + 3).
    """
    applicants, jobs = np.broadcast_arrays(applicant_ids, job_ids)
    shape, applicants, jobs = jobs.shape, applicants.ravel(), jobs.ravel()
    values = np.empty((len(jobs), len(BLOCKS) + len(PAIR_FEATURES)), np.float32)
    values[:, len(BLOCKS) :] = PairValues(market, tuple(PAIR_FEATURES))(applicants, jobs)
    for start in range(0, len(jobs), _PAIRS):
        part = slice(start, start + _PAIRS)
        left = gathered(market.applicants.vectors, applicants[part]).reshape(-1, len(BLOCKS), market.block_dim)
        right = gathered(market.jobs.vectors, jobs[part]).reshape(-1, len(BLOCKS), market.block_dim)
        values[part, : len(BLOCKS)] = row_products(left, right)
    return values.reshape(*shape, -1)


class RidgeRewards:
    """Ridge regression of rewards on numbers of pairs, their squares and products.

    Args:
        numbers: float (n, p).
        reward: float (n,).
        penalty: Ridge penalty on each standardised weight.
    """

    def __init__(self, numbers: NDArray[np.floating], reward: Floats, penalty: float = 1.0):
        wide: Floats = np.asarray(numbers, np.float64)
        self._mean = wide.mean(axis=0)
        spread = wide.std(axis=0)
        # A column that varies only by rounding of float32 counts as constant: scaled up, it would be noise.
        self._spread = np.where(spread > _ROUNDING * np.abs(wide).max(axis=0), spread, 1.0)
        columns = self._columns(wide)
        self._centre = columns.mean(axis=0)
        columns -= self._centre
        gram = columns.T @ columns + penalty * np.eye(columns.shape[1])
        self._constant = float(reward.mean())
        self._weights = np.linalg.solve(gram, columns.T @ (reward - self._constant))

    def __call__(self, numbers: NDArray[np.floating]) -> Floats:
        """Expected rewards (n,) of pairs with numbers (n, p)."""
        return self._constant + (self._columns(np.asarray(numbers, np.float64)) - self._centre) @ self._weights

    def _columns(self, numbers: Floats) -> Floats:
        standard = (numbers - self._mean) / self._spread
        left, right = np.triu_indices(standard.shape[1])
        return np.concatenate([standard, standard[:, left] * standard[:, right]], axis=1)


# ------------------------------------------------------------------------------------------------------------ behind it


@dataclass(frozen=True, slots=True, eq=False)
class _Chances:
    """A policy's probabilities on a log: of all shown jobs, end to end (total,), and of the recommended ones (n,)."""

    flat: Floats
    of_chosen: Floats


def _chances(
    policy: Policy | NDArray[np.floating], log: Interactions, epsilon: float, form: ObservationForm | None, named: str
) -> _Chances:
    """The policy's probabilities; error messages call the policy ``named``."""
    sizes, chosen = log.sizes, log.chosen
    offsets = log.shown_offsets
    assert offsets is not None  # the log has sizes
    flat = np.empty(int(offsets[-1]))
    if isinstance(policy, np.ndarray):
        if epsilon:
            raise ValueError("`epsilon` is only for agents with `q_values`; an array holds the probabilities itself.")
        if len(set(sizes.tolist())) != 1:
            raise ValueError(f"`{named}` as an array needs sets of one size; give a function of observations.")
        flat[:] = _checked(policy.astype(np.float64), (len(log), int(sizes[0])), named).ravel()
    else:
        if form is None:
            # An agent that says what it reads may need a mask; an agent that does not read masks ignores the entry.
            is_told = bool(getattr(policy, "reads", None))
            form = dataclasses.replace(ObservationForm.read_by(policy), mask_in_observation=is_told)
        if form.observation == "ids":
            check_catalogue(policy, log.market, form.job_fields, named)
        for rows, observation in log.observations(form):
            chances = _probabilities(policy, observation, epsilon, named)
            flat[offsets[rows][:, None] + np.arange(chances.shape[1])] = chances
    return _Chances(flat, flat[offsets[:-1] + chosen])


@dataclass(frozen=True, slots=True, eq=False)
class _Valued:
    """What the estimates of one policy are made of.

    Attributes:
        reward: (n,), of the answered recommendations.
        weights: (n,), of the answered recommendations, clipped; NaN without propensities.
        expected: (N,), the reward that the model predicts for the policy in each row of the log; empty without a model.
        fitted: (n,), the reward that the model predicts for each answered recommendation; empty without a model.
        answered: (n,), rows with an answer.
        size: Effective sample size.
        people: Effective number of people.
        largest: Largest weight before clipping.
        clipped: Share of clipped weights.
        mean_weight: Mean weight of all rows, before clipping.
        is_off: Whether chance does not explain that the mean weight differs from 1.
    """

    reward: Floats
    weights: Floats
    expected: Floats
    fitted: Floats
    answered: Ids
    size: float = math.nan
    people: float = math.nan
    largest: float = math.nan
    clipped: float = 0.0
    mean_weight: float = math.nan
    is_off: bool = False

    @classmethod
    def of(cls, chances: _Chances, log: Interactions, of_pairs: Floats | None, clip: float | None) -> _Valued:
        """Values a policy by the predictions of all shown pairs, end to end (total,), if there are any."""
        assert log.shown_offsets is not None  # the log has probabilities
        answered = np.flatnonzero(log.answered)
        expected = fitted = np.empty(0)
        if of_pairs is not None:
            owner = np.repeat(np.arange(len(log)), log.sizes)
            expected = np.bincount(owner, weights=chances.flat * of_pairs, minlength=len(log)).astype(float)
            fitted = of_pairs[log.shown_offsets[:-1] + log.chosen][answered]
        if log.propensity is None:
            return cls(log.reward[answered], np.full(len(answered), np.nan), expected, fitted, answered)
        of_all = chances.of_chosen / log.propensity
        raw = of_all[answered]
        weights = raw if clip is None else np.minimum(raw, clip)
        mean, half = _mean_of_weights(of_all, log.applicant_ids)
        return cls(
            log.reward[answered],
            weights,
            expected,
            fitted,
            answered,
            size=_effective(weights),
            people=_effective(_sums(weights, log.applicant_ids[answered])),
            largest=float(raw.max()),
            clipped=float((raw > weights).mean()),
            mean_weight=mean,
            is_off=not abs(mean - 1) <= half + _ROUNDED,
        )

    def terms(self, method: Method) -> tuple[Floats, Floats]:
        """Two arrays (n,); the estimate is the sum of the first one divided by the sum of the second one."""
        ones = np.ones(len(self.reward))
        if method == "dm":
            return self.expected[self.answered], ones
        if method == "dr":
            return self.expected[self.answered] + self.weights * (self.reward - self.fitted), ones
        return self.weights * self.reward, self.weights if method == "snips" else ones

    def doubts(self, method: Method) -> tuple[Doubt, ...]:
        """Why an estimate is not reliable."""
        if method == "dm":
            advice = "its interval leaves out the model's error: compare it with `dr`, which needs propensities"
            return (Doubt("relies on its model alone", advice),)
        if self.size == 0:
            return (
                Doubt("never agrees with the log", "the answers say nothing about the policy: estimate another one"),
            )
        found = []
        if self.is_off:
            advice = (
                "the log's policy never or hardly ever chooses some jobs that this policy chooses, or the propensities "
                "are not those of a choice among `shown`: log the probability of the recommended job among all jobs in "
                "`shown`, and estimate only policies whose choices the log's policy makes too"
            )
            found.append(Doubt(f"mean weight {self.mean_weight:.2f}, not 1", advice))
        if not self.size >= RELIABLE_FROM:
            advice = "log more answers, or estimate a policy whose choices are more like those of the log's policy"
            found.append(Doubt(f"effective sample size below {RELIABLE_FROM}", advice))
        if not self.people >= RELIABLE_PEOPLE:
            found.append(Doubt(f"fewer than {RELIABLE_PEOPLE} effective people", "log answers of more people"))
        return tuple(found)


def _sums(values: Floats, person: Ids) -> Floats:
    """The sum of each person's values."""
    people, rows = np.unique(person, return_inverse=True)
    sums: Floats = np.bincount(rows, weights=values, minlength=len(people)).astype(np.float64)
    return sums


def _effective(weights: Floats) -> float:
    """How many equal weights would be worth as much (Kish, 1965)."""
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def _mean_of_weights(weights: Floats, person: Ids) -> tuple[float, float]:
    """The mean weight, and half of its 99.9 % interval, which is Student's t over people."""
    mean = float(weights.mean())
    moved = _sums(weights - mean, person) / len(weights)
    degrees = len(moved) - 1
    error = math.sqrt((degrees + 1) / degrees * float(moved @ moved))
    return mean, t_quantile((1 + _MEAN_WEIGHT_LEVEL) / 2, min(degrees, _MOST_DEGREES)) * error


def _bounds(value: float, values: Floats, level: float) -> _Bounds:
    """A value with the middle part of its resampled values, of those that are not NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return value, math.nan, math.nan
    low, high = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return value, float(low), float(high)


def _checked(chances: Floats, shape: tuple[int, int], named: str) -> Floats:
    if chances.shape != shape:
        raise ValueError(f"`{named}` must give probabilities {shape}, a row for each decision, got {chances.shape}.")
    bad = ~((chances >= 0).all(axis=1) & (np.abs(chances.sum(axis=1) - 1) < 1e-6))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"`{named}` must give rows of probabilities that sum to 1, row {row} is {chances[row][:20]}.")
    return chances


def _modelled(
    log: Interactions,
    reward_model: RewardModel | None,
    reward_features: RewardModel | None,
    n_folds: int,
    seed: int,
) -> Floats:
    """Expected rewards of all shown pairs, end to end (total,)."""
    assert log.shown_offsets is not None and log.shown_ids is not None  # the log has probabilities
    if reward_model is not None:
        of_pairs = _rewards_by(reward_model, log, "reward_model")
        if not np.isfinite(of_pairs).all():
            raise ValueError("`reward_model` must give finite rewards, got some that are not.")
    else:
        of_pairs = np.empty(len(log.shown_ids))
        applicants, at = np.repeat(log.applicant_ids, log.sizes), log.shown_offsets[:-1] + log.chosen
        people = log.people
        fold_of = np.empty(len(people), np.int64)
        # Folds get equal shares of people in a hashed order, so that even two people are in different folds.
        fold_of[np.argsort(hash64(seed, _FOLD, people), kind="stable")] = np.arange(len(people)) % n_folds
        folds = fold_of[np.searchsorted(people, log.applicant_ids)]
        if reward_features is None:
            numbers: NDArray[np.floating] = pair_numbers(log.market, applicants, log.shown_ids)
        else:
            numbers = _numbers_of(reward_features, log)
        for fold in np.unique(folds):
            others = np.flatnonzero((folds != fold) & log.answered)
            own = np.repeat(folds == fold, log.sizes)
            if not len(others):
                raise LogError("all answers are from one person: there are no others to fit a model on.")
            of_pairs[own] = RidgeRewards(numbers[at[others]], log.reward[others])(numbers[own])
    return of_pairs


def _rewards_by(function: RewardModel, log: Interactions, named: str) -> Floats:
    """Rewards (total,) of all shown pairs, end to end, by a user's function, which error messages call ``named``."""
    assert log.shown_ids is not None  # the log has probabilities
    of_pairs = np.empty(len(log.shown_ids))
    for places, values in _asked_by_size(function, log):
        if values.shape != places.shape:
            raise ValueError(
                f"`{named}` must give finite rewards {places.shape}, got {values.shape or 'no array of numbers'}."
            )
        of_pairs[places] = values
    return of_pairs


def _numbers_of(reward_features: RewardModel, log: Interactions) -> Floats:
    """Numbers (total, p) of all shown pairs, end to end, by a user's function, checked."""
    assert log.shown_ids is not None  # the log has probabilities
    numbers: Floats | None = None
    for places, values in _asked_by_size(reward_features, log):
        shape = (*places.shape, *(values.shape[-1:] if numbers is None else numbers.shape[1:]))
        if values.shape != shape or not np.isfinite(values).all():
            n, k = places.shape
            raise ValueError(
                f"`reward_features` must give finite numbers of each pair, ({n}, {k}, p), with the same p in each set, "
                f"got {values.shape}."
            )
        if numbers is None:
            numbers = np.empty((len(log.shown_ids), shape[-1]))
        numbers[places] = values
    assert numbers is not None  # the log has rows
    return numbers


def _asked_by_size(function: RewardModel, log: Interactions) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """For each size k of sets: places (n, k) of their pairs, end to end, and what a user's function gives for these."""
    assert log.shown_offsets is not None  # the log has probabilities
    for size in np.unique(log.sizes):
        rows = np.flatnonzero(log.sizes == size)
        values = _as_numbers(function(log.applicant_ids[rows, None], log.sets(rows)))
        yield log.shown_offsets[rows][:, None] + np.arange(size), values


def _never_recommended(log: Interactions, chances: _Chances) -> tuple[float, tuple[NeverRecommended, ...]]:
    assert log.shown_ids is not None
    shares = np.bincount(log.shown_ids, weights=chances.flat, minlength=len(log.market.jobs)) / len(log)
    shares[log.job_ids[log.answered]] = 0.0
    best = np.argsort(-shares, kind="stable")[:_NAMED]
    named = []
    for row in best[shares[best] > 0].tolist():
        job = log.market.job(row)
        named.append(NeverRecommended(row, job.key, job.title, float(shares[row])))
    return float(shares.sum()), tuple(named)


class _Resampled:
    """Bootstrap over people: a resample says how many times each person counts."""

    def __init__(self, person: Ids, n_people: int, n_resamples: int, seed: int):
        self._person = person
        self._n_people = n_people
        rng = np.random.default_rng(seed)
        at_once = max(1, _RESAMPLED // n_people)
        times = np.empty((n_resamples, n_people), np.uint8 if n_people < 1 << 20 else np.uint16)
        for start in range(0, n_resamples, at_once):
            n = min(at_once, n_resamples - start)
            drawn = rng.integers(n_people, size=(n, n_people)) + np.arange(n)[:, None] * n_people
            times[start : start + n] = np.bincount(drawn.ravel(), minlength=n * n_people).reshape(n, n_people)
        self._times = times

    def ratio(self, terms: Floats, over: Floats) -> tuple[float, Floats]:
        """``sum(terms) / sum(over)`` of rows (n,), and of each resample (n_resamples,); NaN if ``sum(over)`` is 0."""
        sums = np.stack([self._by_person(terms), self._by_person(over)], axis=1)
        whole = sums.sum(axis=0)
        resampled = np.concatenate(
            [part.astype(np.float64) @ sums for part in np.array_split(self._times, max(1, self._times.size >> 23))]
        )
        unknown = np.full(len(resampled), np.nan)
        values = np.divide(resampled[:, 0], resampled[:, 1], out=unknown, where=resampled[:, 1] != 0)
        return (float(whole[0] / whole[1]) if whole[1] else float("nan")), values

    def _by_person(self, values: Floats) -> Floats:
        sums: Floats = np.bincount(self._person, weights=values, minlength=self._n_people).astype(np.float64)
        return sums
