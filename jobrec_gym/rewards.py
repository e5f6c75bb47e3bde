"""Reward models: the reward of each recommendation, as pure functions of batches of (applicant, job)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import bounded, hash64
from jobrec_gym.market import LabourMarket
from jobrec_gym.simulators.base import BoundSimulator, Feedback, checked_answers

__all__ = [
    "MATCHED",
    "CosineRewardModel",
    "CosineScale",
    "Cosines",
    "FeedbackRewardModel",
    "HybridRewardModel",
    "RewardBatch",
    "RewardModel",
    "filled",
    "matched_cosine",
    "scaled_cosine",
    "unit_cosine",
]

CosineScale = Literal["unit", "raw", "matched"]
Ids = NDArray[np.int64]
Prepare = Callable[[Ids, Ids], None]

MATCHED = (0.04, 0.28)
"""Mean and standard deviation of feedback on random pairs of the default market. The scale ``"matched"`` gives this
mean and this standard deviation to cosines."""

_SAMPLE_SIZE = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class RewardBatch:
    """Rewards of n recommendations and how they came about; each array is (n,).

    Attributes:
        reward: float64, the rewards that the agent gets.
        components: The parts of the reward by name (``cosine``, ``feedback``, ...), float64 each.
        valid: bool; False if there is no valid reward, so that the transition should not be learned from.
        details: Further entries for ``info``, by key; new arrays of numbers or objects.
        decision: The decisions; ``None`` if nobody was asked.
        weights: The weight of each component by name, if the reward is a sum whose weights change; else ``None``.
    """

    reward: NDArray[np.float64]
    components: Mapping[str, NDArray[np.float64]]
    valid: NDArray[np.bool_]
    details: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    decision: NDArray[np.str_] | None = None
    weights: Mapping[str, float] | None = None


class Cosines(NamedTuple):
    """Cosines of n recommendations, where they are known already.

    Attributes:
        raw: float32 (n,), as the market computes them.
        unit: float64 (n,), on the scale ``"unit"``.
    """

    raw: NDArray[np.float32]
    unit: NDArray[np.float64]

    def take(self, rows: NDArray[np.bool_]) -> Cosines:
        """The cosines of the marked rows, a mask (n,)."""
        return Cosines(self.raw[rows], self.unit[rows])


class RewardModel(Protocol):
    """Computes rewards of recommendations; it knows nothing about environments."""

    @property
    def draws(self) -> bool:
        """Whether anything is drawn from ``interaction_keys``."""

    @property
    def prepare(self) -> Prepare | None:
        """The simulator's ``prepare``, see :class:`~jobrec_gym.simulators.base.BoundSimulator`, or ``None``."""

    def __call__(
        self,
        applicant_ids: Ids,
        job_ids: Ids,
        interaction_keys: NDArray[np.uint64] | None,
        cosine: Cosines | None = None,
    ) -> RewardBatch:
        """Rewards a batch.

        Args:
            applicant_ids: (n,).
            job_ids: (n,).
            interaction_keys: (n,), the keys that noise is drawn from; may be ``None`` if nothing is drawn.
            cosine: Cosines of the pairs, if the caller knows them already.
        """


class CosineRewardModel:
    """Cosine similarity of applicant and job.

    Args:
        market: The market with the vectors.
        scale: ``"unit"``: ``(1 + c) / 2`` in [0, 1]; ``"raw"``: ``c`` in [-1, 1]; ``"matched"``: ``c`` rescaled to the
            mean and standard deviation of the feedback.
        matched: Mean and standard deviation of the feedback, for the scale ``"matched"``.

    Raises:
        ValueError: For an unknown scale, or a standard deviation that is not above 0.
    """

    def __init__(self, market: LabourMarket, scale: CosineScale = "unit", matched: tuple[float, float] = MATCHED):
        if scale not in get_args(CosineScale):
            raise ValueError(f"`scale` must be one of {get_args(CosineScale)}, got {scale!r}.")
        mean, spread = matched
        if not (np.isfinite(mean) and np.isfinite(spread) and spread > 0):
            raise ValueError(f"`matched` must be a mean and a spread above 0, both finite, got {matched}.")
        self.market = market
        self.scale = scale
        self.matched = (float(mean), float(spread))
        self._source = _cosine_spread(market) if scale == "matched" else (0.0, 1.0)
        self.draws = False
        self.prepare = None

    def reward(self, applicant_ids: Ids, job_ids: Ids, cosine: Cosines | None = None) -> NDArray[np.float64]:
        """Rewards of pairs (n,), float64 (n,); ``cosine`` as in :class:`RewardModel`."""
        if cosine is not None and self.scale == "unit":
            return cosine.unit
        raw = self.market.cosine(applicant_ids, job_ids) if cosine is None else cosine.raw
        if self.scale == "matched":
            return matched_cosine(raw, self._source, self.matched)
        return scaled_cosine(raw, self.scale)

    def __call__(
        self,
        applicant_ids: Ids,
        job_ids: Ids,
        interaction_keys: NDArray[np.uint64] | None,
        cosine: Cosines | None = None,
    ) -> RewardBatch:
        """See :class:`RewardModel`."""
        reward = self.reward(applicant_ids, job_ids, cosine)
        return RewardBatch(reward, {"cosine": reward}, np.ones(len(reward), dtype=bool))


class FeedbackRewardModel:
    """The worth of a simulated applicant's decision.

    Args:
        simulator: The simulated applicants, bound to the market.
        market: The market with the vectors; the cosine is reported beside the feedback.
    """

    def __init__(self, simulator: BoundSimulator, market: LabourMarket):
        self.simulator = simulator
        self.market = market
        self.draws: bool = getattr(simulator, "draws", True)
        self.prepare: Prepare | None = getattr(simulator, "prepare", None)

    def __call__(
        self,
        applicant_ids: Ids,
        job_ids: Ids,
        interaction_keys: NDArray[np.uint64] | None,
        cosine: Cosines | None = None,
    ) -> RewardBatch:
        """See :class:`RewardModel`."""
        feedback = _ask(self.simulator, applicant_ids, job_ids, interaction_keys)
        unit = scaled_cosine(self.market.cosine(applicant_ids, job_ids), "unit") if cosine is None else cosine.unit
        return RewardBatch(
            reward=feedback.reward,
            components={"cosine": unit, "feedback": feedback.reward},
            valid=feedback.valid,
            details=feedback.details,
            decision=feedback.decision,
        )


class HybridRewardModel:
    """``weight * cosine + (1 - weight) * feedback``.

    At weight 1 the simulator is not asked, and ``feedback`` is not among the components. A row whose feedback failed
    earns 0.0 and is not valid.

    Args:
        simulator: The simulated applicants, bound to the market.
        market: The market with the vectors.
        weight: Weight of the cosine reward, in [0, 1]; the attribute may be set between calls.
        cosine_scale: See :class:`CosineRewardModel`. On the default market unit cosines are 0.72 +- 0.04 and feedback
            is 0.04 +- 0.28. So with ``"unit"`` annealing mostly shifts the level of the reward; with ``"matched"`` both
            parts have the same mean and standard deviation.
        matched: See :class:`CosineRewardModel`.
    """

    def __init__(
        self,
        simulator: BoundSimulator,
        market: LabourMarket,
        weight: float = 1.0,
        cosine_scale: CosineScale = "unit",
        matched: tuple[float, float] = MATCHED,
    ):
        self.simulator = simulator
        self.cosine = CosineRewardModel(market, cosine_scale, matched)
        self.weight = weight
        self.draws: bool = getattr(simulator, "draws", True)

    @property
    def prepare(self) -> Prepare | None:
        """See :class:`RewardModel`."""
        return None if self.weight == 1 else getattr(self.simulator, "prepare", None)

    def __call__(
        self,
        applicant_ids: Ids,
        job_ids: Ids,
        interaction_keys: NDArray[np.uint64] | None,
        cosine: Cosines | None = None,
    ) -> RewardBatch:
        """See :class:`RewardModel`.

        Raises:
            ValueError: For a weight outside of [0, 1].
        """
        weight = float(self.weight)
        if not 0 <= weight <= 1:
            raise ValueError(f"`weight` must be in [0, 1], got {weight}.")
        similarity = self.cosine.reward(applicant_ids, job_ids, cosine)
        weights = {"cosine": weight, "feedback": 1 - weight}
        details: dict[str, NDArray[Any]] = {"reward/cosine_weight": filled(len(similarity), weight)}
        if weight == 1:
            valid = np.ones(len(similarity), dtype=bool)
            return RewardBatch(similarity, {"cosine": similarity}, valid, details, weights=weights)
        feedback = _ask(self.simulator, applicant_ids, job_ids, interaction_keys)
        valid = feedback.valid
        reward = weight * similarity + (1 - weight) * feedback.reward
        return RewardBatch(
            reward=reward if np.count_nonzero(valid) == len(valid) else np.where(valid, reward, 0.0),
            components={"cosine": similarity, "feedback": feedback.reward},
            valid=valid,
            details=details | feedback.details,
            decision=feedback.decision,
            weights=weights,
        )


def filled(n: int, value: float) -> NDArray[np.float64]:
    """An array (n,) of one number; ``np.full`` takes three times as long."""
    values = np.empty(n)
    values.fill(value)
    return values


def scaled_cosine(cosine: NDArray[np.float32], scale: Literal["unit", "raw"]) -> NDArray[np.float64]:
    """Cosines (...) as rewards: clipped to [-1, 1] against rounding, then ``(1 + c) / 2`` for ``"unit"``."""
    clipped = np.minimum(np.maximum(cosine.astype(np.float64), -1.0), 1.0)  # np.clip takes twice as long
    return clipped if scale == "raw" else (1.0 + clipped) / 2.0


def unit_cosine(cosine: float) -> float:
    """One cosine on the scale ``"unit"``: the same number as from :func:`scaled_cosine`, many times faster."""
    return (1.0 + min(max(cosine, -1.0), 1.0)) / 2.0


def matched_cosine(
    cosine: NDArray[np.floating], source: tuple[float, float], target: tuple[float, float] = MATCHED
) -> NDArray[np.float64]:
    """Cosines (n,), rescaled from mean and standard deviation ``source`` to those of ``target``."""
    return target[0] + target[1] * (cosine.astype(np.float64) - source[0]) / max(source[1], 1e-12)


def _cosine_spread(market: LabourMarket) -> tuple[float, float]:
    """Mean and standard deviation of the cosine over a fixed sample of pairs of the whole market."""
    rows = np.arange(_SAMPLE_SIZE)
    applicants, jobs = (
        bounded(hash64(side, rows), len(population)) for side, population in enumerate((market.applicants, market.jobs))
    )
    cosine = market.cosine(applicants, jobs).astype(np.float64)
    return float(cosine.mean()), float(cosine.std())


def _ask(
    simulator: BoundSimulator, applicant_ids: Ids, job_ids: Ids, interaction_keys: NDArray[np.uint64] | None
) -> Feedback:
    return checked_answers(simulator.feedback(applicant_ids, job_ids, interaction_keys), len(applicant_ids))
