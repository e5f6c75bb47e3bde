"""Off-policy evaluation: the reward that a policy would have had on a log, by IPS, SNIPS, DM and DR.

IPS is inverse propensity scoring, SNIPS its self-normalised form, DM the direct method, and DR the doubly robust
method. The intervals resample people. The value is that of one step: a person is shown one of the candidate sets that
the log has for this person, and the policy recommends a job. The estimators are those of Dudík et al., "Doubly robust
policy evaluation and learning", ICML 2011; self-normalised weights are those of Swaminathan and Joachims, NeurIPS 2015.
"""

from __future__ import annotations

import dataclasses
import numbers
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobrec_gym.counter_rng import hash64
from jobrec_gym.interactions import Interactions, LogError, ObservationForm, check_catalogue
from jobrec_gym.market import BLOCKS, LabourMarket, gathered, row_products
from jobrec_gym.pair_features import PAIR_FEATURES, PairValues
from jobrec_gym.prediction_powered import powered_mean

__all__ = [
    "METHODS",
    "RELIABLE_FROM",
    "Agent",
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
RewardModel = Callable[[Ids, Ids], NDArray[np.floating]]
PolicyFunction = Callable[[dict[str, NDArray[Any]]], ArrayLike]
Judge = RewardModel | NDArray[np.floating]
"""Predictions of rewards by somebody else, such as a language model: an array (n_applicants, n_jobs), or a function
like the argument ``reward_model``, for instance a recording's ``expected_reward``."""

METHODS: tuple[Method, ...] = get_args(Method)

RELIABLE_FROM = 200
"""An estimate is called reliable from this effective sample size on."""

_FOLD = 1
_RESAMPLED = 1 << 22  # people drawn at once in a bootstrap
_PAIRS = 1 << 14  # pairs whose vectors are looked up at once
_NAMED = 10
_ROUNDING = 1e-5  # relative size of rounding errors


@runtime_checkable
class Agent(Protocol):
    """An agent with a value for each candidate: ``DynaQ``, a bandit, or any other."""

    def q_values(self, observation: Any) -> NDArray[np.floating]:
        """Values (n, k) of a batch of n observations."""


Policy = Agent | PolicyFunction | None
"""An agent; a function of a batch of n observations that gives probabilities (n, k); or ``None``, a uniform choice."""


@dataclass(frozen=True, slots=True)
class NeverRecommended:
    """A job that the policy recommends but the log never did, so nothing is known about its reward.

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
        reliable: Whether the effective sample size is 200 or more; with less the interval may be too narrow. False
            without propensities, because the size is then unknown.
        largest_weight: Largest weight of a recommendation, before clipping; NaN without propensities.
        clipped: Share of the recommendations whose weight was clipped.
        never_recommended_share: Share of the policy's recommendations whose jobs the log never recommended.
        never_recommended: The ten jobs that the policy recommends most among those that the log never recommended.
        judge_weight: Weight of the judge, 0 to (n - 1) / (n + 5) for n people with an answer; NaN without a judge.
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

    @property
    def never_agreed(self) -> bool:
        """Whether the policy makes none of the log's answered recommendations, so that these say nothing about it."""
        return self.effective_sample_size == 0

    def __str__(self) -> str:
        size = f"effective sample size {self.effective_sample_size:,.0f} of {self.n:,}"
        note = "" if self.reliable else ", not reliable"
        note += ": the policy never agrees with the log" if self.never_agreed else ""
        return f"{self.method}: {self.value:.4f} [{self.low:.4f}, {self.high:.4f}] ({size}{note})"


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
        epsilon: Share of an agent's choices that are uniform.
        form: The form of the policy's observations; by default the form that the agent says it reads.
        clip: Largest weight; ``None`` clips no weight. Clipping narrows the interval. It biases the value of ``ips``
            towards 0, the value of ``snips`` towards the log's own value, and the value of ``dr`` towards that of
            ``dm``.
        reward_model: A function of applicant ids (n, 1) and job ids (n, k) that gives expected rewards (n, k). It
            replaces the default model, a ridge regression.
        reward_features: A function of the same ids that gives the inputs (n, k, p) of the ridge regression;
            :func:`pair_numbers` by default.
        judge: Predicts the rewards of the shown jobs in every row of the log, for logs in which few rows have an
            answer. The estimate is then prediction-powered. The method must be ``dr``. The judge takes the place of the
            reward model, and its weight depends on how well it predicts the answers. The interval is Student's t over
            people, see :func:`~jobrec_gym.prediction_powered.powered_mean`. A judge that knows nothing changes little.
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
            name other jobs than those of the log's market, and for a judge with another method than ``dr`` or with
            answers of fewer than three people.
    """
    require_options(
        methods, epsilon=epsilon, clip=clip, n_folds=n_folds, level=level, n_resamples=n_resamples, seed=seed
    )
    if judge is not None:
        _check_judge(methods, reward_model, reward_features)
        reward_model = _as_model(judge, interactions.market)
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
    chances = _chances(policy, interactions, epsilon, form)  # checks that the log says what was shown
    answered = np.flatnonzero(interactions.answered)
    if not len(answered):
        raise LogError(f"none of the {len(interactions):,} rows of the log has an answer: nothing can be estimated.")
    people, person = np.unique(interactions.applicant_ids[answered], return_inverse=True)
    if len(people) < 2:
        raise LogError("the log has only one person: an interval resamples people, and needs two or more.")
    reward = interactions.reward[answered]
    weights, largest, clipped, size = None, float("nan"), 0.0, float("nan")
    if interactions.propensity is not None:
        raw = chances.of_chosen[answered] / interactions.propensity[answered]
        weights = raw if clip is None else np.minimum(raw, clip)
        largest, clipped = float(raw.max()), float((raw > weights).mean())
        squares = float(weights @ weights)
        size = float(weights.sum()) ** 2 / squares if squares else 0.0
    if set(methods) & {"dm", "dr"}:
        named = "reward_model" if judge is None else "judge"
        of_all, fitted = _modelled(interactions, chances, reward_model, reward_features, n_folds, seed, named)
        expected, fitted = of_all[answered], fitted[answered]
    never = _never_recommended(interactions, chances)
    result: dict[Method, Estimate] = {}
    if judge is not None:
        assert weights is not None  # `dr` is refused without propensities
        rows = interactions.applicant_ids
        powered = powered_mean(weights * reward, weights * fitted, rows[answered], of_all, rows, level, seed)
        if len(reward) == len(interactions) and np.array_equal(weights * fitted, of_all):
            warnings.warn(
                "`judge` changes nothing here, because every recommendation that it judged was answered: keep "
                "recommendations without an answer in the log, with NaN as their reward.",
                stacklevel=3,
            )
        value, low, high, weight = powered
        reliable = size >= RELIABLE_FROM
        sizes = len(reward), len(people)
        found = Estimate("dr", value, low, high, *sizes, size, reliable, largest, clipped, *never, judge_weight=weight)
        return {"dr": found}
    resampled = _Resampled(person, len(people), n_resamples, seed)
    for method in methods:
        over = np.ones(len(reward))
        if method == "dm":
            terms = expected
        else:
            assert weights is not None  # refused above
            terms = weights * reward
            if method == "snips":
                over = weights
            elif method == "dr":
                terms = expected + weights * (reward - fitted)
        value, values = resampled.ratio(terms, over)
        known = values[~np.isnan(values)]
        low, high = np.quantile(known, ((1 - level) / 2, (1 + level) / 2)) if len(known) else (np.nan, np.nan)
        result[method] = Estimate(
            method,
            value,
            float(low),
            float(high),
            len(reward),
            len(people),
            size,
            size >= RELIABLE_FROM,
            largest,
            clipped,
            *never,
        )
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


def _check_judge(methods: Sequence[Method], *models: RewardModel | None) -> None:
    """Refuses arguments that a judge replaces."""
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


def _as_model(judge: Judge, market: LabourMarket) -> RewardModel:
    if callable(judge):
        return judge
    table, shape = np.asarray(judge, np.float64), (len(market.applicants), len(market.jobs))
    if table.shape != shape:
        raise ValueError(
            "`judge` must be a function of applicant_ids (n, 1) and job_ids (n, k), or an array "
            f"(n_applicants, n_jobs) = {shape}, got {table.shape}."
        )
    return lambda applicant_ids, job_ids: table[applicant_ids, job_ids]


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
    n, k = observation["candidates"].shape[:2]
    allowed = np.ones((n, k)) if "action_mask" not in observation else observation["action_mask"].astype(np.float64)
    uniform = allowed / allowed.sum(axis=1, keepdims=True)
    if policy is None:
        return uniform
    if isinstance(policy, Agent):
        values = np.asarray(policy.q_values(observation), np.float64)
        if values.shape != (n, k) and not (n == 1 and values.shape == (k,)):
            raise ValueError(f"`policy` must give values {(n, k)}, a row for each decision, got {values.shape}.")
        values = values.reshape(n, k)
        if not np.isfinite(values[allowed > 0]).all():
            raise ValueError("`policy` must give finite values, got some that are not: has its learning diverged?")
        greedy = np.zeros((n, k))
        greedy[np.arange(n), np.where(allowed > 0, values, -np.inf).argmax(axis=1)] = 1.0
        return (1 - epsilon) * greedy + epsilon * uniform
    if not callable(policy):
        raise ValueError(f"`policy` must have `q_values`, be a function of observations, or None, got {policy!r}.")
    if epsilon:
        raise ValueError("`epsilon` is only for agents with `q_values`; a function returns the probabilities itself.")
    return _checked(np.asarray(policy(observation), np.float64), (n, k))


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
    """The policy's probabilities on a log: of all shown jobs, end to end (total,), and of the recommended ones (n,)."""

    flat: Floats
    of_chosen: Floats
    owner: Ids


def _chances(
    policy: Policy | NDArray[np.floating], log: Interactions, epsilon: float, form: ObservationForm | None
) -> _Chances:
    sizes, chosen = log.sizes, log.chosen
    offsets = log.shown_offsets
    assert offsets is not None  # the log has sizes
    flat = np.empty(int(offsets[-1]))
    if isinstance(policy, np.ndarray):
        if epsilon:
            raise ValueError("`epsilon` is only for agents with `q_values`; an array holds the probabilities itself.")
        if len(set(sizes.tolist())) != 1:
            raise ValueError("`policy` as an array needs sets of one size; give a function of observations.")
        flat[:] = _checked(policy.astype(np.float64), (len(log), int(sizes[0]))).ravel()
    else:
        if form is None:
            # An agent that says what it reads may need a mask; an agent that does not read masks ignores the entry.
            is_told = bool(getattr(policy, "reads", None))
            form = dataclasses.replace(ObservationForm.read_by(policy), mask_in_observation=is_told)
        if form.observation == "ids":
            check_catalogue(policy, log.market, form.job_fields, "policy")
        for rows, observation in log.observations(form):
            chances = action_probabilities(policy, observation, epsilon)
            flat[offsets[rows][:, None] + np.arange(chances.shape[1])] = chances
    return _Chances(flat, flat[offsets[:-1] + chosen], np.repeat(np.arange(len(log)), sizes))


def _checked(chances: Floats, shape: tuple[int, int]) -> Floats:
    if chances.shape != shape:
        raise ValueError(f"`policy` must give probabilities {shape}, a row for each decision, got {chances.shape}.")
    bad = ~((chances >= 0).all(axis=1) & (np.abs(chances.sum(axis=1) - 1) < 1e-6))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"`policy` must give rows of probabilities that sum to 1, row {row} is {chances[row][:20]}.")
    return chances


def _modelled(
    log: Interactions,
    chances: _Chances,
    reward_model: RewardModel | None,
    reward_features: RewardModel | None,
    n_folds: int,
    seed: int,
    named: str,
) -> tuple[Floats, Floats]:
    """Expected rewards (n,) of the policy and of the recommended jobs; error messages call the model ``named``."""
    assert log.shown_offsets is not None and log.shown_ids is not None  # the log has probabilities
    of_pairs = np.empty(len(log.shown_ids))
    applicants, at = log.applicant_ids[chances.owner], log.shown_offsets[:-1] + log.chosen
    if reward_model is not None:
        for places, values in _asked_by_size(reward_model, log):
            if values.shape != places.shape or not np.isfinite(values).all():
                raise ValueError(f"`{named}` must give finite rewards {places.shape}, got {values.shape}.")
            of_pairs[places] = values
    else:
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
            own = folds[chances.owner] == fold
            if not len(others):
                raise LogError("all answers are from one person: there are no others to fit a model on.")
            of_pairs[own] = RidgeRewards(numbers[at[others]], log.reward[others])(numbers[own])
    expected: Floats = np.bincount(chances.owner, weights=chances.flat * of_pairs, minlength=len(log)).astype(float)
    return expected, of_pairs[at]


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
        values = np.asarray(function(log.applicant_ids[rows, None], log.sets(rows)), np.float64)
        yield log.shown_offsets[rows][:, None] + np.arange(size), values


def _never_recommended(log: Interactions, chances: _Chances) -> tuple[float, tuple[NeverRecommended, ...]]:
    assert log.shown_ids is not None
    shares = np.bincount(log.shown_ids, weights=chances.flat, minlength=len(log.market.jobs)) / len(log)
    shares[log.job_ids] = 0.0
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
