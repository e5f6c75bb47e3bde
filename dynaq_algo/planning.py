"""Where imagined (state, action) pairs come from."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dynaq_algo.features import best_match
from dynaq_algo.replay import CandidateReplay, Transitions

__all__ = ["PLANNING_SOURCES", "CandidatePairs", "PlanningSource", "VisitedPairs", "make_planning_source"]


class PlanningSource(Protocol):
    """Draws the pairs that planning imagines an outcome for (Sutton, 1990, Dyna)."""

    def sample(self, replay: CandidateReplay, n: int, rng: np.random.Generator) -> Transitions:
        """Draw n transitions whose `action` and `candidate_id` are the imagined ones; their reward is not used."""
        ...


class VisitedPairs:
    """Pairs that were chosen: their end (`terminated`) and their next state are known."""

    def sample(self, replay: CandidateReplay, n: int, rng: np.random.Generator) -> Transitions:
        """Draw n stored transitions as they are."""
        return replay.sample(n, rng)


class CandidatePairs:
    """Candidates that were shown and allowed but not chosen.

    What follows an action that was never chosen is unknown: the stored next state stands in for it, as if the dynamics
    did not depend on the action, and that it does not end the episode holds only where no episode ends by an action.
    """

    def sample(self, replay: CandidateReplay, n: int, rng: np.random.Generator) -> Transitions:
        """Draw n stored transitions with another candidate; the chosen one where it was the only choice.

        Raises:
            ValueError: If the replay holds terminated transitions.
        """
        if replay.has_terminated:
            raise ValueError(
                '`planning_source="candidates"` needs an environment whose episodes never terminate (only truncate), '
                "but the replay holds terminated transitions: whether an action that was never chosen would end the "
                'episode is not known. Use `planning_source="visited"`.'
            )
        transitions = replay.sample(n, rng)
        candidate_id, allowed = replay.candidate_sets(transitions.position)
        rows = np.arange(n)
        allowed[rows, transitions.action] = False
        draws = rng.random(allowed.shape)
        draws[~allowed] = -1.0
        draws[rows, transitions.action] = -0.5
        action = draws.argmax(axis=1)
        return transitions._replace(action=action, candidate_id=candidate_id[rows, action])


PLANNING_SOURCES: dict[str, type[PlanningSource]] = {"visited": VisitedPairs, "candidates": CandidatePairs}


def make_planning_source(source: str | PlanningSource) -> PlanningSource:
    """A source by name (a key of :data:`PLANNING_SOURCES`), or the object itself.

    Raises:
        ValueError: If there is no such name.
    """
    if not isinstance(source, str):
        return source
    if source not in PLANNING_SOURCES:
        raise ValueError(
            f"`planning_source` must be one of {sorted(PLANNING_SOURCES)} or an object with `sample`, got {source!r}"
            f"{best_match(source, PLANNING_SOURCES)}."
        )
    return PLANNING_SOURCES[source]()
