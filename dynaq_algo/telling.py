"""A world model is told of new transitions, each once, after it has said what it expects of them."""

from __future__ import annotations

import numpy as np
import torch as th

from dynaq_algo.batches import gather_alone, gather_steps
from dynaq_algo.gaussian_process import GaussianProcess
from dynaq_algo.policies import CandidatePolicy
from dynaq_algo.replay import CandidateReplay, Transitions
from dynaq_algo.transition_model import Foreseen, TransitionModel
from dynaq_algo.world_model import WorldModel

__all__ = ["tell"]


@th.no_grad()
def tell(
    world_model: WorldModel | GaussianProcess | TransitionModel,
    transitions: Transitions,
    reward: np.ndarray,
    replay: CandidateReplay,
    policy: CandidatePolicy,
) -> tuple[np.ndarray, np.ndarray | Foreseen]:
    """Tell a world model of transitions that it has not been trained on.

    A Gaussian process and a :class:`~dynaq_algo.transition_model.TransitionModel` learn from them at once. A network
    learns in its updates.

    Args:
        world_model: Any.
        transitions: n stored ones.
        reward: (n,) what they earned, in the scale of learning.
        replay: Where they are stored.
        policy: Whose features are read.

    Returns:
        (n,) the rewards that the model was told, and what it had predicted for these transitions. That is (n,) rewards,
        or for a `TransitionModel`, whose rewards are not rescaled, a :class:`~dynaq_algo.transition_model.Foreseen`.
    """
    if isinstance(world_model, TransitionModel):
        steps = gather_steps(transitions, replay, policy)
        return steps.reward, world_model.observe(steps)
    alone = gather_alone(transitions, replay, policy)
    predicted, _ = world_model(policy.features(*alone), with_spread=False)
    world_model.observe(*alone, policy.tensor(reward))
    return reward, predicted.cpu().numpy()
