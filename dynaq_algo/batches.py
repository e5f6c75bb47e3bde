"""Transitions of the replay as tensors. Each distinct vector is gathered once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch as th

from dynaq_algo.features import DistinctPairs
from dynaq_algo.policies import CandidatePolicy
from dynaq_algo.replay import CandidateReplay, Transitions
from dynaq_algo.transition_model import Steps

__all__ = ["Batch", "NextPairs", "gather", "gather_alone", "gather_next", "gather_steps"]


class NextPairs(NamedTuple):
    """The next states of n transitions, as the targets need them.

    Attributes:
        pairs: The next states with the same actions, (n,), or with all next candidates, (n, k).
        mask: (n, k) bool, which of the next candidates may be chosen; None for the same actions.
        terminated: (n,) bool, whether there is no next state.
    """

    pairs: DistinctPairs
    mask: th.Tensor | None
    terminated: th.Tensor

    def take(self, rows: slice) -> NextPairs:
        """The next states of some of the transitions."""
        return NextPairs(self.pairs.take(rows), None if self.mask is None else self.mask[rows], self.terminated[rows])


class Batch(NamedTuple):
    """n transitions as tensors.

    Attributes:
        pairs: The n pairs (s, a).
        inputs: (n, output_dim) features of the pairs.
        following: The next candidates, only for `bootstrap="double"`, which chooses among them at the update.
    """

    pairs: DistinctPairs
    inputs: th.Tensor
    following: NextPairs | None = None

    def split(self, size: int) -> list[Batch]:
        """Consecutive batches of `size` transitions, without a copy."""
        return [self._rows(slice(start, start + size)) for start in range(0, len(self.inputs), size)]

    def _rows(self, rows: slice) -> Batch:
        following = None if self.following is None else self.following.take(rows)
        return Batch(self.pairs.take(rows), self.inputs[rows], following)


def gather(transitions: Transitions, replay: CandidateReplay, policy: CandidatePolicy) -> Batch:
    """Stored or imagined transitions as tensors, without their next states."""
    pairs = _distinct(transitions.state_id, transitions.candidate_id, transitions.pairs, replay, policy)
    return Batch(pairs, policy.features.of_pairs(pairs))


def gather_alone(
    transitions: Transitions, replay: CandidateReplay, policy: CandidatePolicy
) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
    """States (n, d_s), chosen actions (n, d_a) and `pairs` (n, p) of a few transitions, one row for each."""
    state = policy.tensor(replay.state_rows(transitions.state_id))
    action = policy.action_features(replay.candidate_rows(transitions.candidate_id))
    return state, action, None if transitions.pairs is None else policy.tensor(transitions.pairs)


def gather_steps(transitions: Transitions, replay: CandidateReplay, policy: CandidatePolicy) -> Steps:
    """Whole transitions, with everything that was shown, for a model of transitions."""
    candidate_id, allowed = replay.candidate_sets(transitions.position)
    shown = replay.pair_sets(transitions.position)
    return Steps(
        policy.tensor(replay.state_rows(transitions.state_id)),
        policy.action_features(replay.candidate_rows(candidate_id)),
        None if shown is None else policy.tensor(shown),
        allowed,
        replay.ids_to_ask(candidate_id),
        replay.applicants(transitions.position),
        transitions.action,
        transitions.reward,
        policy.tensor(replay.state_rows(transitions.next_state_id)),
        transitions.terminated,
    )


def gather_next(
    transitions: Transitions, replay: CandidateReplay, policy: CandidatePolicy, same_action: bool
) -> NextPairs:
    """The next states of transitions, with the same action or with all next candidates."""
    terminated = policy.tensor(transitions.terminated)
    if same_action:
        # It is unknown how `pairs` would change with the state, so the next state keeps those of the chosen action.
        shown, candidate_id = transitions.pairs, transitions.candidate_id
        return NextPairs(_distinct(transitions.next_state_id, candidate_id, shown, replay, policy), None, terminated)
    candidate_id, mask = replay.candidate_sets(transitions.position, following=True)
    shown = replay.pair_sets(transitions.position, following=True)
    pairs = _distinct(transitions.next_state_id[:, None], candidate_id, shown, replay, policy)
    return NextPairs(pairs, policy.tensor(mask), terminated)


def _distinct(
    state_id: np.ndarray,
    candidate_id: np.ndarray,
    shown: np.ndarray | None,
    replay: CandidateReplay,
    policy: CandidatePolicy,
) -> DistinctPairs:
    """Pairs of states and candidates, given by their ids in replay, (n,) each, or (n, 1) and (n, k).

    Each distinct vector is gathered once. `shown`, the entry `pairs`, is (n, p) or (n, k, p).
    """
    (states, state_row), (actions, action_row) = (
        np.unique(ids, return_inverse=True) for ids in (state_id, candidate_id)
    )
    return DistinctPairs(
        policy.tensor(replay.state_rows(states)),
        policy.tensor(state_row.reshape(state_id.shape)),
        policy.action_features(replay.candidate_rows(actions)),
        policy.tensor(action_row.reshape(candidate_id.shape)),
        None if shown is None else policy.tensor(shown),
    )
