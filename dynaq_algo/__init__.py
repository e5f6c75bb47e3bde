"""DynaQ: Dyna-Q over candidate actions for Stable-Baselines3."""

from dynaq_algo.bandits import Bandit, GaussianProcessBandit, LinearBandit
from dynaq_algo.checkpoint import DynaQCheckpoint
from dynaq_algo.dynaq import DynaQ
from dynaq_algo.features import BlockwiseFeatures, ConcatFeatures, InteractionFeatures, PairFeatures
from dynaq_algo.gaussian_process import GaussianProcess
from dynaq_algo.planning import CandidatePairs, CrossedPairs, PlanningSource, VisitedPairs
from dynaq_algo.policies import CandidatePolicy
from dynaq_algo.replay import CandidateReplay
from dynaq_algo.validity import NothingLearned
from dynaq_algo.vec_env import GymnasiumVecEnv, make_sb3_vec_env
from dynaq_algo.world_model import WorldModel

__all__ = [
    "Bandit",
    "BlockwiseFeatures",
    "CandidatePairs",
    "CandidatePolicy",
    "CandidateReplay",
    "ConcatFeatures",
    "CrossedPairs",
    "DynaQ",
    "DynaQCheckpoint",
    "GaussianProcess",
    "GaussianProcessBandit",
    "GymnasiumVecEnv",
    "InteractionFeatures",
    "LinearBandit",
    "NothingLearned",
    "PairFeatures",
    "PlanningSource",
    "VisitedPairs",
    "WorldModel",
    "make_sb3_vec_env",
]
