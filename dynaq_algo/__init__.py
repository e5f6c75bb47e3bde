"""DynaQ: Dyna-Q over candidate actions for Stable-Baselines3."""

from dynaq_algo.checkpoint import DynaQCheckpoint
from dynaq_algo.dynaq import DynaQ
from dynaq_algo.features import ConcatFeatures, InteractionFeatures, PairFeatures
from dynaq_algo.planning import CandidatePairs, PlanningSource, VisitedPairs
from dynaq_algo.policies import CandidatePolicy
from dynaq_algo.replay import CandidateReplay
from dynaq_algo.vec_env import GymnasiumVecEnv
from dynaq_algo.world_model import WorldModel

__all__ = [
    "CandidatePairs",
    "CandidatePolicy",
    "CandidateReplay",
    "ConcatFeatures",
    "DynaQ",
    "DynaQCheckpoint",
    "GymnasiumVecEnv",
    "InteractionFeatures",
    "PairFeatures",
    "PlanningSource",
    "VisitedPairs",
    "WorldModel",
]
