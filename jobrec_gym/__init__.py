"""A Gymnasium laboratory for job recommendation: ``gym.make("JobRec-v0")``.

Importing this package registers ``JobRec-v0`` and ``JobRecCareer-v0``. ``gym.make("jobrec_gym:JobRec-v0")`` imports
this package first.
"""

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium as gym

if TYPE_CHECKING:
    from jobrec_gym.candidates import LoggedCandidates
    from jobrec_gym.career import JobRecCareerEnv, JobRecCareerVectorEnv
    from jobrec_gym.dynamics import CareerDynamics, Dynamics, StaticDynamics
    from jobrec_gym.env import JobRecEnv
    from jobrec_gym.interactions import Interactions, ObservationForm
    from jobrec_gym.loaders.interactions import load_interactions
    from jobrec_gym.market import (
        ContextField,
        LabourMarket,
        MarketError,
        Population,
        Profile,
        load_market,
        register_market_source,
    )
    from jobrec_gym.recommendations import Recommendation, recommend, recommend_each
    from jobrec_gym.recording import record_interactions
    from jobrec_gym.rewards import CosineRewardModel, FeedbackRewardModel, HybridRewardModel, RewardBatch, RewardModel
    from jobrec_gym.schedules import AnnealSchedule
    from jobrec_gym.simulators.base import Feedback, UserSimulator, make_simulator, register_simulator
    from jobrec_gym.simulators.llm import BudgetReached, LLMSimulator
    from jobrec_gym.simulators.logged import LoggedSimulator
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
    "CareerDynamics",
    "ContextField",
    "CosineReward",
    "CosineRewardModel",
    "Dynamics",
    "EmbeddingAction",
    "Feedback",
    "FeedbackReward",
    "FeedbackRewardModel",
    "HybridReward",
    "HybridRewardModel",
    "Interactions",
    "JobRecCareerEnv",
    "JobRecCareerVectorEnv",
    "JobRecEnv",
    "JobRecVectorEnv",
    "LLMReward",
    "LLMSimulator",
    "LabourMarket",
    "LoggedCandidates",
    "LoggedSimulator",
    "MarketError",
    "ObservationForm",
    "Population",
    "Profile",
    "Recommendation",
    "RecordedSimulator",
    "RewardBatch",
    "RewardModel",
    "RuleSimulator",
    "StaticDynamics",
    "UserSimulator",
    "VectorCosineReward",
    "VectorFeedbackReward",
    "VectorHybridReward",
    "VectorLLMReward",
    "load_interactions",
    "load_market",
    "make_simulator",
    "recommend",
    "recommend_each",
    "record_interactions",
    "register_market_source",
    "register_simulator",
]

# Modules are loaded only when a name is first used, so importing this package takes hardly longer than importing
# gymnasium. The modules are searched for the name in this order: the module that loads fastest comes first.
_MODULES = (
    "market",
    "schedules",
    "simulators.base",
    "rewards",
    "env",
    "vector",
    "simulators.rules",
    "wrappers",
    "interactions",
    "recommendations",
    "loaders.interactions",
    "candidates",
    "simulators.logged",
    "recording",
    "simulators.recorded",
    "simulators.llm",
    "dynamics",
    "career",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            loaded = importlib.import_module(f"jobrec_gym.{module}")
            if name in loaded.__all__:
                globals()[name] = getattr(loaded, name)
                return globals()[name]
    raise AttributeError(f"module 'jobrec_gym' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "JobRec-v0" not in gym.registry:
    gym.register(
        id="JobRec-v0",
        entry_point="jobrec_gym.env:JobRecEnv",
        vector_entry_point="jobrec_gym.vector:JobRecVectorEnv",
        max_episode_steps=10,
    )
if "JobRecCareer-v0" not in gym.registry:
    gym.register(
        id="JobRecCareer-v0",
        entry_point="jobrec_gym.career:JobRecCareerEnv",
        vector_entry_point="jobrec_gym.career:JobRecCareerVectorEnv",
        max_episode_steps=40,
    )
