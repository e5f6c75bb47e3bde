"""Where imagined (state, action) pairs come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from dynaq_algo.arguments import suggestion
from dynaq_algo.replay import CandidateReplay, Transitions

__all__ = [
    "N_COMPARED",
    "PLANNING_SOURCES",
    "CandidatePairs",
    "CrossedPairs",
    "PlanningSource",
    "VisitedPairs",
    "difference_from_shown",
    "make_planning_source",
    "refuse_unknown_pairs",
]

N_COMPARED = 100
"""In so many of the first transitions of an environment, answers of `pair_features` are compared with what is shown."""
_CLOSE = 1e-4


class PlanningSource(Protocol):
    """Draws the pairs that planning imagines an outcome for (Sutton, 1990, Dyna)."""

    def sample(self, replay: CandidateReplay, n: int, rng: np.random.Generator) -> Transitions:
        """Draw n transitions whose `action` and `candidate_id` are the imagined ones; their reward is not used.

        If observations have `pairs`, the transitions have the numbers of the imagined pairs: as they were shown
        (`replay.pair_sets`) or, if they were not shown, as `replay.ask_pairs` gives them.

        `position` and `serial` are those of the stored transitions from which the imagined ones were made.
        """
        ...


class VisitedPairs:
    """Pairs that were chosen: their end (`terminated`) and their next state are known."""

    def sample(self, replay: CandidateReplay, n: int, rng: np.random.Generator) -> Transitions:
        """Draw n stored transitions as they are."""
        return replay.sample(n, rng)


class CandidatePairs:
    """Candidates that were shown and allowed but not chosen.

    The next state after an action that was never chosen is unknown. The stored next state takes its place, as if the
    dynamics did not depend on the action. This also assumes that such an action does not end the episode, which is
    certain only if no action does.
    """

    def sample(self, replay: CandidateReplay, n: int, rng: np.random.Generator) -> Transitions:
        """Draw n stored transitions with another candidate, or with the chosen one if it was the only choice.

        Raises:
            ValueError: If the replay holds terminated transitions.
        """
        _refuse_terminated(replay, "candidates")
        transitions = replay.sample(n, rng)
        candidate_id, allowed = replay.candidate_sets(transitions.position)
        rows = np.arange(n)
        allowed[rows, transitions.action] = False
        draws = rng.random(allowed.shape)
        draws[~allowed] = -1.0
        draws[rows, transitions.action] = -0.5
        action = draws.argmax(axis=1)
        shown = replay.pair_sets(transitions.position)
        pairs = None if shown is None else shown[rows, action]
        return transitions._replace(action=action, candidate_id=candidate_id[rows, action], pairs=pairs)


class CrossedPairs:
    """By default, half of the pairs are of the next decision; half combine any visited state with any shown candidate.

    The share `coming` of the pairs are the candidates of the next decision. What the model learned from the last reward
    then reaches Q before it is needed (trajectory sampling; Sutton and Barto, 2018, section 8.6). The others combine
    the state of one stored transition with a candidate of another, so that jobs shown to one applicant are imagined for
    others. As in :class:`CandidatePairs` the next state is unknown; here the pair's own state takes its place.

    If observations have the entry `pairs`, its numbers are known for candidates of the next decision. Those of the
    other combinations were never shown, and come from :meth:`~dynaq_algo.replay.CandidateReplay.ask_pairs`.

    Args:
        coming: Share of the pairs that are of the next decision, 0 to 1.

    Raises:
        ValueError: If the share is out of range.
    """

    def __init__(self, coming: float = 0.5):
        if not 0 <= coming <= 1:
            raise ValueError(f"`coming` must be from 0 to 1, got {coming}.")
        self.coming = coming

    def sample(self, replay: CandidateReplay, n: int, rng: np.random.Generator) -> Transitions:
        """Draw n pairs; both kinds are mixed at random.

        Raises:
            ValueError: If the replay holds terminated transitions, or pairs cannot be asked for.
        """
        _refuse_terminated(replay, "crossed")
        transitions = replay.sample(n, rng)
        newest = np.array([(replay.n_added - 1) % replay.capacity])
        comes = (rng.random(n) < self.coming) & replay.usable(newest)[0]
        state_id = np.where(comes, replay[newest].next_state_id, transitions.state_id)
        position = np.where(comes, newest, replay.sample(n, rng).position)
        candidate_id, allowed = replay.candidate_sets(position)
        coming_id, coming_allowed = replay.candidate_sets(newest, following=True)
        candidate_id = np.where(comes[:, None], coming_id, candidate_id)
        allowed = np.where(comes[:, None], coming_allowed, allowed)
        action = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1)
        crossed = transitions._replace(
            state_id=state_id,
            next_state_id=state_id,
            action=action,
            candidate_id=candidate_id[np.arange(n), action],
        )
        coming_pairs = replay.pair_sets(newest, following=True)
        if coming_pairs is None:
            return crossed
        pairs = coming_pairs[0, action]
        others = np.flatnonzero(~comes)
        if len(others):
            pairs[others] = replay.ask_pairs(transitions.position[others], crossed.candidate_id[others])
        # The position says from which stored transition the `pairs` of the next state are read. For a candidate of the
        # coming decision only the newest transition has the right ones; any other has those of another state.
        return crossed._replace(
            position=np.where(comes, newest, transitions.position),
            serial=np.where(comes, replay.serials(newest), transitions.serial),
            pairs=pairs,
        )


PLANNING_SOURCES: dict[str, type[PlanningSource]] = {
    "visited": VisitedPairs,
    "candidates": CandidatePairs,
    "crossed": CrossedPairs,
}


def make_planning_source(source: str | PlanningSource) -> PlanningSource:
    """A source by name (a key of :data:`PLANNING_SOURCES`), or the object itself.

    Raises:
        ValueError: If there is no such name, or the object has no method `sample`.
    """
    if not isinstance(source, str) and callable(getattr(source, "sample", None)):
        return source
    if not isinstance(source, str) or source not in PLANNING_SOURCES:
        guess = suggestion(source, PLANNING_SOURCES) if isinstance(source, str) else "."
        raise ValueError(
            f"`planning_source` must be one of {sorted(PLANNING_SOURCES)} or an object with `sample`, got "
            f"{source!r:.80}{guess}"
        )
    return PLANNING_SOURCES[source]()


def refuse_unknown_pairs(source: PlanningSource, replay: CandidateReplay) -> None:
    """Refuse crossed pairs where observations have `pairs` and nothing gives the `pairs` of other combinations.

    Raises:
        ValueError: If nothing gives them.
    """
    if not isinstance(source, CrossedPairs) or not replay.n_pairs:
        return
    if replay.pair_features is None or replay.candidates is not None:
        lacking = "nothing computes them here" if replay.candidates is None else "candidates are features here"
        raise ValueError(
            '`planning_source="crossed"` imagines pairs that nobody was shown. Where observations have `pairs`, '
            f"the numbers of such a pair are computed from its ids, but {lacking}. Use observations of ids, and an "
            "environment with a method `pair_features(applicant_ids, job_ids) -> (n, p)` or "
            '`DynaQ(pair_features=function)`. Otherwise use `planning_source="visited"` or "candidates".'
        )


def difference_from_shown(transitions: Transitions, replay: CandidateReplay, progress: slice | None) -> str | None:
    """How the answers of `replay.pair_features` differ from the `pairs` that were shown.

    Decisions whose applicant or candidates have no id are left out.

    Args:
        transitions: n stored transitions.
        replay: Where they are stored.
        progress: The columns of the state that planning passes on as `progress`; all candidates are then compared. None
            if planning asks without `progress`; the chosen candidates are then compared.

    Returns:
        The difference in words; None if no number differs by more than 1 / 10,000, or that share of a number above 1.

    Raises:
        ValueError: If planning asks without `progress`, and the answer has another shape.
    """
    candidate_id = replay.candidate_sets(transitions.position)[0]
    known = (replay.applicants(transitions.position) >= 0) & (replay.ids_to_ask(candidate_id) >= 0).all(axis=1)
    of_known = transitions.take(known)
    shown = of_known.pairs if progress is None else replay.pair_sets(of_known.position)
    ask: Callable[..., np.ndarray] | None = replay.pair_features
    if not len(of_known.position) or shown is None or ask is None:
        return None
    if progress is None:
        answer = replay.ask_pairs(of_known.position, of_known.candidate_id)
    else:
        applicants = replay.applicants(of_known.position)[:, None]
        at = replay.state_rows(of_known.state_id)[:, None, progress]
        try:
            answer = np.asarray(ask(applicants, replay.ids_to_ask(candidate_id[known]), at), np.float32)
        except ValueError as error:
            return f"it refuses what was shown ({error})"
    if answer.shape != shown.shape:
        return f"it gives numbers of the shape {answer.shape}, and {shown.shape} were shown"
    apart = ~(np.abs(answer - shown) <= _CLOSE * np.maximum(np.abs(shown), 1.0))
    if not apart.any():
        return None
    place = tuple(np.argwhere(apart)[0])
    return f"it gives {answer[place]:.4g} in column {place[-1]}, and {shown[place]:.4g} was shown"


def _refuse_terminated(replay: CandidateReplay, source: str) -> None:
    if replay.has_terminated:
        raise ValueError(
            f'`planning_source="{source}"` needs an environment whose episodes never terminate (only truncate), '
            "but the replay holds terminated transitions: whether an action that was never chosen would end the "
            'episode is not known. Use `planning_source="visited"`.'
        )
