"""What a recommendation earns: reward models, pure functions of batches of (applicant, job)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market import LabourMarket
from jobrec_gym.simulators.base import BoundSimulator

__all__ = ["CosineRewardModel", "CosineScale", "FeedbackRewardModel", "RewardBatch", "RewardModel", "scaled_cosine"]

CosineScale = Literal["unit", "raw"]
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RewardBatch:
    """Rewards of n recommendations and how they came about; each array is (n,).

    Attributes:
        reward: float64, what the agent is paid.
        components: What the reward is made of, by name (``cosine``, ``feedback``, ...), float64 each.
        valid: bool; False where the number means nothing and the transition should not be learned from.
        details: Further entries for ``info``, by their key there.
        decision: Decisions, ``None`` where nobody was asked.
    """

    reward: NDArray[np.float64]
    components: Mapping[str, NDArray[np.float64]]
    valid: NDArray[np.bool_]
    details: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    decision: NDArray[np.str_] | None = None


class RewardModel(Protocol):
    """Pays for recommendations; knows nothing of environments."""

    def __call__(self, applicant_ids: Ids, job_ids: Ids, interaction_keys: NDArray[np.uint64]) -> RewardBatch:
        """Rewards a batch.

        Args:
            applicant_ids: (n,).
            job_ids: (n,).
            interaction_keys: (n,), what noise is drawn from.
        """


class CosineRewardModel:
    """Cosine similarity of applicant and job.

    Args:
        market: Where the vectors are.
        scale: ``"unit"``: ``(1 + c) / 2`` in [0, 1]; ``"raw"``: ``c`` in [-1, 1].

    Raises:
        ValueError: For an unknown scale.
    """

    def __init__(self, market: LabourMarket, scale: CosineScale = "unit"):
        if scale not in get_args(CosineScale):
            raise ValueError(f"`scale` must be one of {get_args(CosineScale)}, got {scale!r}.")
        self.market = market
        self.scale = scale

    def __call__(self, applicant_ids: Ids, job_ids: Ids, interaction_keys: NDArray[np.uint64]) -> RewardBatch:
        """See :class:`RewardModel`."""
        reward = scaled_cosine(self.market.cosine(applicant_ids, job_ids), self.scale)
        return RewardBatch(reward, {"cosine": reward}, np.ones(len(reward), dtype=bool))


class FeedbackRewardModel:
    """The worth of a simulated applicant's decision.

    Args:
        simulator: Who decides, bound to the market.
        market: Where the vectors are; cosine is reported beside the feedback.
    """

    def __init__(self, simulator: BoundSimulator, market: LabourMarket):
        self.simulator = simulator
        self.market = market

    def __call__(self, applicant_ids: Ids, job_ids: Ids, interaction_keys: NDArray[np.uint64]) -> RewardBatch:
        """See :class:`RewardModel`."""
        feedback = self.simulator.feedback(applicant_ids, job_ids, interaction_keys)
        if len(feedback) != len(applicant_ids):
            raise ValueError(
                "`simulator` must answer each recommendation once, "
                f"got {len(feedback)} answers to {len(applicant_ids)}."
            )
        cosine = scaled_cosine(self.market.cosine(applicant_ids, job_ids), "unit")
        details = {
            "feedback/decision": feedback.decision,
            "feedback/status": feedback.status,
            "feedback/reason": feedback.reason,
        }
        return RewardBatch(
            reward=feedback.reward,
            components={"cosine": cosine, "feedback": feedback.reward},
            valid=feedback.status == "ok",
            details=details,
            decision=feedback.decision,
        )


def scaled_cosine(cosine: NDArray[np.float32], scale: CosineScale) -> NDArray[np.float64]:
    """Cosines (n,) as rewards: clipped to [-1, 1] against rounding, then ``(1 + c) / 2`` for ``"unit"``."""
    clipped = np.clip(cosine.astype(np.float64), -1.0, 1.0)
    return clipped if scale == "raw" else (1.0 + clipped) / 2.0
