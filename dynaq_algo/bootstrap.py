"""The target network's value of the next step, which a target adds to the reward, for each kind of bootstrap."""

from __future__ import annotations

import warnings
from functools import partial

import torch as th

from dynaq_algo.batches import Batch, NextPairs, gather, gather_next
from dynaq_algo.layout import CandidateLayout
from dynaq_algo.policies import CandidatePolicy, masked
from dynaq_algo.replay import CandidateReplay, Transitions
from dynaq_algo.target_values import TargetValues

__all__ = ["chosen_values", "gather_for", "next_values", "values_ahead", "warn_of_progress"]

_SAME_ACTION = (
    '`bootstrap="same_action"` values what follows as if the same job were recommended again, but the observation has '
    'an entry `progress`: answers move the applicant, and other jobs are shown next. Use `bootstrap="max"` or '
    '"double", or `DynaQ.plus(env)`, which plans ahead.'
)


def warn_of_progress(bootstrap: str, layout: CandidateLayout) -> None:
    """Warn if answers change the state, because the same action cannot then follow in the same state."""
    if bootstrap == "same_action" and layout.progress is not None:
        warnings.warn(_SAME_ACTION, stacklevel=5)


def gather_for(bootstrap: str, transitions: Transitions, replay: CandidateReplay, policy: CandidatePolicy) -> Batch:
    """Transitions as tensors, with the next candidates for `"double"`, which chooses among them at the update."""
    batch = gather(transitions, replay, policy)
    if bootstrap != "double":
        return batch
    return batch._replace(following=gather_next(transitions, replay, policy, same_action=False))


def values_ahead(
    transitions: Transitions,
    batch: Batch,
    replay: CandidateReplay,
    policy: CandidatePolicy,
    bootstrap: str,
    kept: TargetValues,
    imagined: bool,
) -> th.Tensor:
    """The target network's value of the next step, computed as rarely as possible.

    Args:
        transitions: n transitions.
        batch: The same transitions from :func:`gather_for`.
        replay: The store of these transitions, or of those from which planning made them.
        policy: The policy that has the target network.
        bootstrap: The kind of bootstrap.
        kept: Values that were computed earlier and are still valid.
        imagined: Whether planning may have changed transitions, so that they differ from those stored.

    Returns:
        The values (n,), 0 where terminated, or where nothing is left to choose. For `"double"` the values (n, k) of
        all next candidates, from which :func:`chosen_values` chooses.
    """
    if batch.following is not None:
        return masked(policy.values_of_pairs(policy.q_net_target, batch.following.pairs), batch.following.mask)
    if policy.plans_at_decision_time:  # every reward changes the model's part of Q, so no value stays valid
        return next_values(transitions, replay, policy, bootstrap)
    evaluate = partial(next_values, replay=replay, policy=policy, bootstrap=bootstrap)
    return kept.of(transitions, replay, policy.q_net_target, bootstrap, evaluate, imagined)


def next_values(
    transitions: Transitions, replay: CandidateReplay, policy: CandidatePolicy, bootstrap: str
) -> th.Tensor:
    """Q_target (n,) of the same action, or of the best allowed next candidate; 0 where nothing follows."""
    following = gather_next(transitions, replay, policy, bootstrap == "same_action")
    values = masked(policy.values_of_pairs(policy.q_net_target, following.pairs), following.mask)
    return _of_what_goes_on(values if values.ndim == 1 else values.amax(dim=1), following.terminated)


def chosen_values(following: NextPairs, values: th.Tensor, policy: CandidatePolicy) -> th.Tensor:
    """Values (n,) of the next candidates that the online network chooses (van Hasselt et al., 2016).

    They are 0 where nothing follows.
    """
    online = masked(policy.values_of_pairs(policy.q_net, following.pairs), following.mask)
    return _of_what_goes_on(values.gather(1, online.argmax(1, keepdim=True)).squeeze(1), following.terminated)


def _of_what_goes_on(values: th.Tensor, terminated: th.Tensor) -> th.Tensor:
    """Values (n,) of the next step, 0 where terminated, or where nothing is left to choose."""
    return values.masked_fill(terminated | (values == -th.inf), 0.0)
