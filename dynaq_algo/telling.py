"""Tells a world model about new transitions, each once, after the model has predicted their rewards."""

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
    """Tell a world model about transitions that it has not been trained on.

    A Gaussian process and a :class:`~dynaq_algo.transition_model.TransitionModel` learn from them at once. A network
    learns in its updates.

    Args:
        world_model: A world model of any kind.
        transitions: n stored transitions.
        reward: (n,) their rewards, normalised as in training.
        replay: Where they are stored.
        policy: The policy whose features the model reads.

    Returns:
        The rewards (n,) that the model was told, and its earlier predictions for these transitions. The predictions are
        (n,) rewards. For a `TransitionModel`, whose rewards are not normalised, they are a
        :class:`~dynaq_algo.transition_model.Foreseen`.
    """
    if isinstance(world_model, TransitionModel):
        steps = gather_steps(transitions, replay, policy)
        return steps.reward, world_model.observe(steps)
    alone = gather_alone(transitions, replay, policy)
    predicted, _ = world_model(policy.features(*alone), with_spread=False)
    world_model.observe(*alone, policy.tensor(reward))
    return reward, predicted.cpu().numpy()
