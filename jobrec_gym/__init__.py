"""A Gymnasium laboratory for job recommendation: ``gym.make("JobRec-v0")``.

Importing this package registers the environment; ``gym.make("jobrec_gym:JobRec-v0")`` does both.
"""

import gymnasium as gym

from jobrec_gym.env import JobRecEnv
from jobrec_gym.market import LabourMarket, MarketError, Population, Profile, load_market, register_market_source
from jobrec_gym.rewards import CosineRewardModel, FeedbackRewardModel, HybridRewardModel, RewardBatch, RewardModel
from jobrec_gym.schedules import AnnealSchedule
from jobrec_gym.simulators.base import Feedback, UserSimulator, make_simulator, register_simulator
from jobrec_gym.simulators.llm import BudgetReached, LLMSimulator
from jobrec_gym.simulators.recorded import RecordedSimulator
from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.vector import JobRecVectorEnv
from jobrec_gym.wrappers import (
    CosineReward,
    EmbeddingAction,
    FeedbackReward,
    HybridReward,
    LLMReward,
    VectorCosineReward,
    VectorFeedbackReward,
    VectorHybridReward,
    VectorLLMReward,
)

__all__ = [
    "AnnealSchedule",
    "BudgetReached",
    "CosineReward",
    "CosineRewardModel",
    "EmbeddingAction",
    "Feedback",
    "FeedbackReward",
    "FeedbackRewardModel",
    "HybridReward",
    "HybridRewardModel",
    "JobRecEnv",
    "JobRecVectorEnv",
    "LLMReward",
    "LLMSimulator",
    "LabourMarket",
    "MarketError",
    "Population",
    "Profile",
    "RecordedSimulator",
    "RewardBatch",
    "RewardModel",
    "RuleSimulator",
    "UserSimulator",
    "VectorCosineReward",
    "VectorFeedbackReward",
    "VectorHybridReward",
    "VectorLLMReward",
    "load_market",
    "make_simulator",
    "register_market_source",
    "register_simulator",
]

if "JobRec-v0" not in gym.registry:
    gym.register(
        id="JobRec-v0",
        entry_point="jobrec_gym.env:JobRecEnv",
        vector_entry_point="jobrec_gym.vector:JobRecVectorEnv",
        max_episode_steps=10,
    )
