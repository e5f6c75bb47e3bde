"""The planted truth: a seeded, documented utility with an exact oracle. It is a set of rules, not a language model."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import bounded, hash64, normal, normal_cdf, uniform
from jobrec_gym.kept_pairs import PreparedPairs, kept_pairs
from jobrec_gym.market import SENIORITY_LEVELS, LabourMarket, Population
from jobrec_gym.market.dates import compared_fields
from jobrec_gym.near_miss import did_you_mean
from jobrec_gym.pair_features import context_fit, hard_coverage, seniority, soft_coverage
from jobrec_gym.simulators.base import (
    DECISIONS,
    DEFAULT_REWARDS,
    UNKNOWN_LEVEL,
    CertainFeedback,
    Feedback,
    SimulatorSpec,
    decision_rewards,
    is_finite_number,
)
from jobrec_gym.simulators.shares import in_words, shares_are_off, shares_below

__all__ = ["DEFAULT_WEIGHTS", "QUANTILES", "BoundRuleSimulator", "RuleSimulator"]

Ids = NDArray[np.int64]

DEFAULT_WEIGHTS: Mapping[str, float] = {
    "hard_skills": 1.0,
    "soft_skills": 0.4,
    "seniority": 0.4,
    "taste": 0.8,
    "popularity": 0.4,
}
"""Weights of the utility's parts, each part scaled to mean 0 and standard deviation 1 over random pairs."""

QUANTILES = (0.60, 0.85, 0.95)
"""Where the utility's distribution is cut into ignore (60 %), click (25 %), save (10 %) and apply (5 %)."""

_REACH = 0.5
_TASTE_RANK = 4
_SAMPLE_SIZE = 100_000
_SAMPLE, _TASTE, _POPULARITY, _CORRUPTION = 1, 2, 3, 4
_CHUNK = 16_384


class RuleSimulator:
    """Applicants who decide by a known formula, the planted truth. So the true worth of every recommendation is known.

    The utility of showing job ``j`` to applicant ``i`` is a weighted sum of five parts, each scaled to mean 0 and
    standard deviation 1 over a seeded sample of 100,000 pairs of the whole market (whatever the split):

    * ``hard_skills``: the share of the job's hard skills that the applicant has (cosine of the hard blocks, at least 0,
      where a block is a free text), see :func:`~jobrec_gym.pair_features.hard_coverage`;
    * ``soft_skills``: the same for soft skills;
    * ``seniority``: ``1 - |level_i - level_j| / 4``, 0.5 where a level is unknown;
    * ``taste``: ``(A s_i) . (B a_j)`` with hidden random matrices ``A`` and ``B`` of rank 4, centred; these are
      preferences that no similarity shows;
    * ``popularity``: a standard normal number of the job, the same for everyone.

    A field of the market's context, such as ``place``, is one more part if it has a weight, ``weights={"place": 1.0}``.
    Its value is :func:`~jobrec_gym.pair_features.context_fit`.

    The utility's 60 %, 85 % and 95 % quantiles over the same sample separate ignore, click, save and apply. If several
    pairs have the same utility as such a quantile, they get the lower decision: the threshold then lies halfway to the
    next higher utility. So with ``weights`` that give many pairs the same utility, decisions have other shares than
    60 %, 25 %, 10 % and 5 %.

    If applicants change, as in ``JobRecCareer-v0``, their answers depend on their present level: ``seniority`` is
    computed with the present level, and the utility of a job falls by ``reach`` for each level that the job is above
    it. The quantiles stay those of the market before anybody moves. A job whose level is unknown counts as one of level
    3.

    Args:
        seed: Determines the truth: taste, popularity and the sample.
        noise: Standard deviation of normally distributed noise that is added to the utility at each interaction, in
            units of the utility's standard deviation; 0 makes every answer certain.
        weights: Weights that replace those of :data:`DEFAULT_WEIGHTS`, and weights of fields of the market's context.
        rewards: Rewards in place of apply 1.0, save 0.5, click 0.0, ignore -0.1.
        corruption: Probability that an answer has nothing to do with the pair. Such an answer is ignore, click, save or
            apply with the probabilities that these have over random pairs: 60 %, 25 %, 10 % and 5 %, or the shares that
            come out where several pairs have the same utility as a quantile.
        reach: How much the utility falls for each level of the job above the applicant's present level, in the
            utility's own units. It has no effect if no present level is given.

    Raises:
        ValueError: For a negative noise or reach, a corruption outside of [0, 1], an unknown decision, or weights that
            are not finite or all 0. When it is bound: for a weight of a field that the market does not have, or for a
            market on which the utility varies so little that all pairs get the same decision.

    Warns:
        UserWarning: When it is bound: if so many pairs have the same utility that the share of a decision differs from
            the promised one by more than half of it.

    Example:
        >>> simulator = RuleSimulator(seed=0).bind(load_market("default"))
        >>> simulator.feedback(np.array([3]), np.array([7])).decision
        array(['save'], dtype='<U6')
    """

    def __init__(
        self,
        seed: int = 0,
        noise: float = 0.0,
        weights: Mapping[str, float] | None = None,
        rewards: Mapping[str, float] | None = None,
        corruption: float = 0.0,
        reach: float = _REACH,
    ):
        if not is_finite_number(corruption) or not 0 <= corruption <= 1:
            raise ValueError(f"`corruption` must be a chance, 0 to 1, got {corruption!r:.80}.")
        for name, value in (("noise", noise), ("reach", reach)):
            if not is_finite_number(value) or value < 0:
                raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r:.80}.")
        if not isinstance(weights, Mapping | None):
            raise ValueError(f"`weights` must be a dictionary of numbers, got {weights!r:.80}.")
        for part, weight in (weights or {}).items():
            if not is_finite_number(weight):
                raise ValueError(f"`weights` must be finite numbers, got {part}={weight!r:.80}.")
        if not _is_whole(seed):
            raise ValueError(f"`seed` must be a whole number, got {seed!r:.80}.")
        self.seed = int(seed)
        self.noise = float(noise)
        self.corruption = float(corruption)
        self.reach = float(reach)
        self.weights = {part: float(weight) for part, weight in {**DEFAULT_WEIGHTS, **(weights or {})}.items()}
        self.rewards = decision_rewards(rewards)
        if not any(self.weights.values()):
            raise ValueError(f"`weights` must be finite and not all 0, got {self.weights}.")

    def bind(self, market: LabourMarket) -> BoundRuleSimulator:
        """Ties the rules to a market. Equal rules on one market share their tables."""
        parts = tuple(self.weights.items()), tuple(self.rewards.items())
        return _bind(market, self.seed, self.noise, *parts, self.corruption, self.reach)

    def to_spec(self) -> SimulatorSpec:
        """The simulator in plain JSON."""
        return {
            "type": "rules",
            "seed": self.seed,
            "noise": self.noise,
            "weights": dict(self.weights),
            "rewards": dict(self.rewards),
            **({"corruption": self.corruption} if self.corruption else {}),
            **({"reach": self.reach} if self.reach != _REACH else {}),
        }

    @classmethod
    def from_spec(cls, spec: SimulatorSpec) -> RuleSimulator:
        """The simulator that :meth:`to_spec` described."""
        return cls(**{key: value for key, value in spec.items() if key != "type"})

    def __repr__(self) -> str:
        # All that is not the default is shown: agents tell the simulators of `prior_sources` apart by this text.
        shown: dict[str, Any] = {"seed": self.seed, "noise": self.noise}
        for name, usual in (("weights", DEFAULT_WEIGHTS), ("rewards", DEFAULT_REWARDS)):
            if changed := {part: value for part, value in getattr(self, name).items() if value != usual.get(part)}:
                shown[name] = changed
        if self.corruption:
            shown["corruption"] = self.corruption
        if self.reach != _REACH:
            shown["reach"] = self.reach
        return f"RuleSimulator({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class BoundRuleSimulator:
    """The rules on one market; made by :meth:`RuleSimulator.bind`. A deep copy is the object itself.

    Attributes:
        draws: Whether there is noise or corruption to draw.
        prepare: Computes the utilities of pairs before they are asked for, see
            :class:`~jobrec_gym.simulators.base.BoundSimulator`; ``None`` if the market is small enough that the
            utilities of all its pairs are kept.
        is_free: Whether an answer costs nothing.
        noise_of: The noise that is added to the utility, float64 (n,), computed from keys (n,) alone. ``None`` if
            there is no noise, or if corruption needs the keys too.
    """

    is_free = True

    def __init__(self, market: LabourMarket, simulator: RuleSimulator):
        seed = simulator.seed
        self.market = market
        self.noise = simulator.noise
        self.corruption = simulator.corruption
        self._weights = simulator.weights
        self._context = _weighted_context(market, simulator.weights)
        self._rewards = np.array([simulator.rewards[decision] for decision in DECISIONS])
        self.draws = bool(self.noise or self.corruption)
        self._kept = kept_pairs(self._utility, len(market.applicants), len(market.jobs))
        self.prepare = self._kept.prepare if isinstance(self._kept, PreparedPairs) else None
        self.noise_of = self._noise_of if self.noise and not self.corruption else None
        self._popularity = normal(hash64(seed, _POPULARITY, np.arange(len(market.jobs))))
        rows = np.arange(_SAMPLE_SIZE)
        applicants = bounded(hash64(seed, _SAMPLE, 0, rows), len(market.applicants))
        jobs = bounded(hash64(seed, _SAMPLE, 1, rows), len(market.jobs))
        tastes = [_project(population, seed, side) for side, population in enumerate((market.applicants, market.jobs))]
        self._applicant_taste = tastes[0] - tastes[0][applicants].mean(axis=0)
        self._job_taste = tastes[1] - tastes[1][jobs].mean(axis=0)

        self._scale = {}
        for part, values in self._parts(applicants, jobs).items():
            self._scale[part] = (values.mean(), values.std() or 1.0)
        utility = self._utility(applicants, jobs)
        pairs = applicants * len(market.jobs) + jobs
        quantiles = np.quantile(utility, QUANTILES)
        self.thresholds = _above_ties(quantiles, utility, pairs)
        below = shares_below(utility, self.thresholds)
        _check_shares(below, market, simulator)
        # Without ties the promised shares are drawn; those of the sample differ from them by the sample's own error.
        self._below = np.array(QUANTILES) if np.array_equal(quantiles, self.thresholds) else below
        self._shares = np.diff((0.0, *self._below, 1.0))
        self._noise_scale = self.noise * utility.std()
        self._job_levels = market.jobs.seniority.astype(np.int64)
        self._own_levels = market.applicants.seniority.astype(np.int64)
        self._moved = self._moved_utilities(simulator.reach)

    @property
    def worth(self) -> NDArray[np.float64]:
        """The reward of each decision, (4,), in the order of :data:`~jobrec_gym.simulators.base.DECISIONS`."""
        return self._rewards.copy()

    def utility(self, applicant_ids: Ids, job_ids: Ids, levels: Ids | None = None) -> NDArray[np.float64]:
        """True utility of pairs, without noise.

        Args:
            applicant_ids: (n,).
            job_ids: (n,).
            levels: (n,), the applicants' present levels, 1 to 5; ``None`` if applicants do not move.

        Returns:
            float64 (n,).
        """
        utility = self._kept(applicant_ids, job_ids)
        if levels is None:
            return utility
        return utility + self._moved[levels, self._own_levels[applicant_ids], self._job_levels[job_ids]]

    def terms(self, applicant_ids: Ids, job_ids: Ids) -> dict[str, NDArray[np.float64]]:
        """The parts whose sum is the utility, each scaled and weighted.

        Args:
            applicant_ids: (n,).
            job_ids: (n,).

        Returns:
            float64 (n,) by the name of the part: first those of :data:`DEFAULT_WEIGHTS`, then fields of the market's
            context.
        """
        terms = {}
        for part, values in self._parts(applicant_ids, job_ids).items():
            mean, spread = self._scale[part]
            terms[part] = self._weights[part] * ((values - mean) / spread)
        return terms

    def feedback(
        self,
        applicant_ids: Ids,
        job_ids: Ids,
        interaction_keys: NDArray[np.uint64] | None = None,
        levels: Ids | None = None,
        noise: NDArray[np.float64] | None = None,
    ) -> Feedback:
        """Decides, see :class:`~jobrec_gym.simulators.base.BoundSimulator`.

        Raises:
            ValueError: If answers have noise and ``interaction_keys`` are missing.
        """
        utility = self.utility(applicant_ids, job_ids, levels)
        if noise is not None:
            utility = utility + noise
        elif interaction_keys is None:
            if self.draws:
                raise ValueError(
                    "`interaction_keys` must be given where `noise` or `corruption` is above 0: both are drawn from "
                    "them."
                )
        elif self.noise:
            utility = utility + self._noise_of(interaction_keys)
        decision = self.thresholds.searchsorted(utility, side="right")
        if interaction_keys is not None and self.corruption:
            corrupted = uniform(hash64(_CORRUPTION, interaction_keys)) < self.corruption
            anything = self._below.searchsorted(uniform(hash64(_CORRUPTION, 1, interaction_keys)), side="right")
            decision = np.where(corrupted, anything, decision)
        return CertainFeedback(decision, self._rewards)

    def _noise_of(self, interaction_keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        return self._noise_scale * normal(interaction_keys)

    def expected_reward(self, applicant_ids: Ids, job_ids: Ids, levels: Ids | None = None) -> NDArray[np.float64]:
        """Mean reward of pairs over noise and corruption, exact.

        Args:
            applicant_ids: Integers of any shape.
            job_ids: Integers of a shape that broadcasts with that of ``applicant_ids``, e.g. (n, k) with (n, 1).
            levels: Present levels, 1 to 5, of a shape that broadcasts too; ``None`` if applicants do not move.

        Returns:
            float64 of the broadcast shape.
        """
        utility, shape = self._utilities(applicant_ids, job_ids, levels)
        if not self.noise:
            reward = self._rewards[np.searchsorted(self.thresholds, utility, side="right")]
        else:
            above = normal_cdf((utility[:, None] - self.thresholds) / self._noise_scale)
            # Term by term: a matrix product may round a pair differently in a batch than alone.
            reward = np.full(len(utility), self._rewards[0])
            for step, gain in enumerate(np.diff(self._rewards)):
                reward += gain * above[:, step]
        anything = float(self._shares @ self._rewards)
        reward = (1 - self.corruption) * reward + self.corruption * anything
        return reward.reshape(shape)

    def probabilities(self, applicant_ids: Ids, job_ids: Ids, levels: Ids | None = None) -> NDArray[np.float64]:
        """The probability of each decision over noise and corruption, exact.

        Args:
            applicant_ids: Integers of any shape.
            job_ids: As in :meth:`expected_reward`.
            levels: As in :meth:`expected_reward`.

        Returns:
            float64 of the broadcast shape with a last axis of 4, in the order of
            :data:`~jobrec_gym.simulators.base.DECISIONS`.
        """
        utility, shape = self._utilities(applicant_ids, job_ids, levels)
        if self.noise:
            above = normal_cdf((utility[:, None] - self.thresholds) / self._noise_scale)
        else:
            above = (utility[:, None] >= self.thresholds).astype(np.float64)
        edges = np.concatenate([np.ones((len(above), 1)), above, np.zeros((len(above), 1))], axis=1)
        chances = (1 - self.corruption) * -np.diff(edges, axis=1) + self.corruption * self._shares
        return chances.reshape(*shape, len(DECISIONS))

    def decisions(self, applicant_ids: Ids, job_ids: Ids, levels: Ids | None = None) -> NDArray[np.str_]:
        """The decisions without noise or corruption; shapes as in :meth:`expected_reward`."""
        utility, shape = self._utilities(applicant_ids, job_ids, levels)
        decision = np.searchsorted(self.thresholds, utility, side="right")
        return np.array(DECISIONS)[decision].reshape(shape)

    def _utilities(
        self, applicant_ids: Ids, job_ids: Ids, levels: Ids | None
    ) -> tuple[NDArray[np.float64], tuple[int, ...]]:
        """Utilities (n,) of pairs of any shape, and that shape."""
        if levels is None:
            applicant_ids, job_ids = np.broadcast_arrays(applicant_ids, job_ids)
            return self.utility(applicant_ids.ravel(), job_ids.ravel()), applicant_ids.shape
        applicant_ids, job_ids, levels = np.broadcast_arrays(applicant_ids, job_ids, levels)
        return self.utility(applicant_ids.ravel(), job_ids.ravel(), levels.ravel()), applicant_ids.shape

    def _moved_utilities(self, reach: float) -> NDArray[np.float64]:
        """Changes of the utility by present level, own level and job's level, (6, 6, 6); level 0 is unknown."""
        mean, spread = self._scale["seniority"]
        levels = np.arange(len(SENIORITY_LEVELS) + 1)
        present, own, job = np.meshgrid(levels, levels, levels, indexing="ij")
        known = np.where(job == 0, UNKNOWN_LEVEL, job)
        fits = [1 - np.abs(present - known) / 4, np.where((own > 0) & (job > 0), 1 - np.abs(own - job) / 4, 0.5)]
        now, before = (self._weights["seniority"] * ((fit - mean) / spread) for fit in fits)
        return now - before - reach * np.maximum(known - present, 0)

    def __deepcopy__(self, memo: dict[int, object]) -> BoundRuleSimulator:
        return self

    def _utility(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
        total = np.zeros(len(applicant_ids))
        for term in self.terms(applicant_ids, job_ids).values():
            total += term
        return total

    def _parts(self, applicant_ids: Ids, job_ids: Ids) -> dict[str, NDArray[np.float64]]:
        market = self.market
        return {
            "hard_skills": hard_coverage(market, applicant_ids, job_ids),
            "soft_skills": soft_coverage(market, applicant_ids, job_ids),
            "seniority": seniority(market, applicant_ids, job_ids),
            "taste": np.einsum("ij,ij->i", self._applicant_taste[applicant_ids], self._job_taste[job_ids]),
            "popularity": self._popularity[job_ids],
            **{name: context_fit(market, name, applicant_ids, job_ids) for name in self._context},
        }


@lru_cache(maxsize=16)
def _bind(
    market: LabourMarket,
    seed: int,
    noise: float,
    weights: tuple[tuple[str, float], ...],
    rewards: tuple[tuple[str, float], ...],
    corruption: float,
    reach: float,
) -> BoundRuleSimulator:
    return BoundRuleSimulator(market, RuleSimulator(seed, noise, dict(weights), dict(rewards), corruption, reach))


def _above_ties(
    quantiles: NDArray[np.float64], utility: NDArray[np.float64], pairs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Thresholds (3,): a quantile that several pairs tie with is raised, halfway to the next higher utility.

    If there is no higher one, the threshold is infinite. A pair that was drawn several times is no tie.

    Args:
        quantiles: Quantiles of the utility, (3,).
        utility: Utilities of drawn pairs, (n,).
        pairs: A number for each pair, (n,).
    """
    thresholds = quantiles.copy()
    for place, quantile in enumerate(quantiles):
        if len(np.unique(pairs[utility == quantile])) > 1:
            higher = utility[utility > quantile]
            thresholds[place] = (quantile + higher.min()) / 2 if len(higher) else np.inf
    return np.maximum.accumulate(thresholds)


def _check_shares(below: NDArray[np.float64], market: LabourMarket, simulator: RuleSimulator) -> None:
    """Refuses thresholds that leave one decision, and warns where shares are far from the promised ones.

    Args:
        below: Shares of pairs below the thresholds, (3,).
        market: The market.
        simulator: The rules.
    """
    if np.isin(below, (0, 1)).all():
        raise ValueError(
            f"`market` {market.name!r} gives all or most pairs the same utility under {simulator}, and so every pair "
            "the same decision: there is nothing to choose. Use more applicants or jobs, or other `weights`, such as a "
            "positive one for `taste` or `popularity`."
        )
    if shares_are_off(below, QUANTILES, len(market.applicants) * len(market.jobs)):
        warnings.warn(
            f"On market {market.name!r} many pairs have the same utility under {simulator}. So of random pairs "
            f"{in_words(below)}, where {in_words(QUANTILES)} are meant. A positive weight for `taste` or `popularity` "
            "sets such pairs apart.",
            stacklevel=5,
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral)


def _weighted_context(market: LabourMarket, weights: Mapping[str, float]) -> tuple[str, ...]:
    """The fields of the market's context that have a weight, in the market's order.

    Raises:
        ValueError: For a weight of a field that the market does not have.
    """
    fields = compared_fields(market)
    known = (*DEFAULT_WEIGHTS, *fields)
    unknown = sorted(set(weights) - set(known))
    if unknown:
        raise ValueError(
            f"`weights` must name parts of {tuple(DEFAULT_WEIGHTS)}, or of the context of market {market.name!r}, "
            f"{tuple(fields)}; got {unknown}.{did_you_mean(unknown[0], known)}"
        )
    return tuple(name for name in fields if weights.get(name))


def _project(population: Population, seed: int, side: int) -> NDArray[np.float64]:
    """Hidden tastes (n, rank) of one side: its vectors times a random matrix."""
    dim = population.vectors.shape[1]
    matrix = normal(hash64(seed, _TASTE, side, np.arange(dim * _TASTE_RANK))).reshape(dim, _TASTE_RANK)
    chunks = [
        population.vectors[start : start + _CHUNK].astype(np.float64) @ matrix
        for start in range(0, len(population), _CHUNK)
    ]
    return np.concatenate(chunks)
