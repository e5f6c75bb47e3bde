"""Feedback of real people from a log, for the pairs that were recommended to them."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import bounded, hash64
from jobrec_gym.interactions import Interactions, LogError
from jobrec_gym.market import LabourMarket
from jobrec_gym.paths import place_of
from jobrec_gym.simulators.base import DECISIONS, Feedback, SimulatorSpec

__all__ = ["NOT_RECORDED", "BoundLoggedSimulator", "LoggedSimulator"]

Ids = NDArray[np.int64]

NOT_RECORDED = "not_recorded"
"""The ``feedback/status`` of a pair without an answer in the log; its transition is not valid."""

_WHICH = 1
_WORDS = np.array([*DECISIONS, ""])  # the decision -1 takes the last word, ""


class LoggedSimulator:
    """Answers each logged pair as the person did. Other pairs are ``not_recorded``; agents do not learn from them.

    If a pair has several answers, one is drawn for each interaction, uniformly, so that the log's noise is kept.

    Args:
        interactions: The log, or the folder of a saved one.

    Raises:
        LogError: When bound, if the log has no answer, or if the market lacks a person or a job of the log.

    Example:
        >>> market = load_market("default")
        >>> log = Interactions.of(market, [0, 0], [3, 4], [1.0, -0.1])
        >>> LoggedSimulator(log).bind(market).feedback(np.array([0, 0]), np.array([3, 5])).status
        array(['ok', 'not_recorded'], dtype='<U12')
    """

    def __init__(self, interactions: Interactions | str | os.PathLike[str]):
        self.interactions: Interactions | str
        if isinstance(interactions, Interactions):
            self.interactions = interactions
        else:
            self.interactions = str(place_of(interactions).absolute())

    def bind(self, market: LabourMarket) -> BoundLoggedSimulator:
        """Ties the answers to a market that has the log's people and jobs, by their keys."""
        log = self.interactions
        return BoundLoggedSimulator(log.on(market) if isinstance(log, Interactions) else Interactions.load(log, market))

    def to_spec(self) -> SimulatorSpec:
        """The simulator in plain JSON, except that a log that was never saved is in it as an object."""
        log = self.interactions
        if isinstance(log, Interactions) and log.folder is not None:
            return {"type": "logged", "interactions": str(log.folder)}
        return {"type": "logged", "interactions": log}

    @classmethod
    def from_spec(cls, spec: SimulatorSpec) -> LoggedSimulator:
        """The simulator that :meth:`to_spec` described."""
        return cls(**{key: value for key, value in spec.items() if key != "type"})

    def __repr__(self) -> str:
        return f"LoggedSimulator({self.interactions!r})"


class BoundLoggedSimulator:
    """A log's answers on its market; made by :meth:`LoggedSimulator.bind`.

    Attributes:
        draws: Whether any pair has several answers, of which one is drawn.
    """

    def __init__(self, interactions: Interactions):
        answered = np.flatnonzero(interactions.answered)
        if not len(answered):
            raise LogError(f"none of the {len(interactions):,} rows of the log has an answer: nothing can be learned.")
        interactions.warn_if_moving()
        self.interactions = interactions
        self._n_jobs = len(interactions.market.jobs)
        pairs = interactions.applicant_ids[answered] * self._n_jobs + interactions.job_ids[answered]
        order = np.argsort(pairs, kind="stable")
        self._reward = interactions.reward[answered][order]
        self._decision = interactions.decision[answered][order]
        self._pairs, self._first, self._n = np.unique(pairs[order], return_index=True, return_counts=True)
        self.draws = bool((self._n > 1).any())

    def is_recorded(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.bool_]:
        """Whether the log has an answer, for ids of shapes that broadcast."""
        pairs = np.asarray(applicant_ids) * self._n_jobs + job_ids
        return self._pairs[self._places(pairs)] == pairs

    def feedback(
        self, applicant_ids: Ids, job_ids: Ids, interaction_keys: NDArray[np.uint64] | None = None
    ) -> Feedback:
        """Answers, see :class:`~jobrec_gym.simulators.base.BoundSimulator`. Without keys the first answer is taken."""
        pairs = applicant_ids * self._n_jobs + job_ids
        places = self._places(pairs)
        known = self._pairs[places] == pairs
        row = self._first[places]
        if interaction_keys is not None and self.draws:
            row = row + bounded(hash64(interaction_keys, _WHICH), self._n[places])
        return Feedback.of(
            np.where(known, _WORDS[self._decision[row]], ""),
            np.where(known, self._reward[row], 0.0),
            status=np.where(known, "ok", NOT_RECORDED),
            cached=np.ones(len(pairs), dtype=bool),
        )

    def _places(self, pairs: Ids) -> Ids:
        return np.searchsorted(self._pairs, pairs).clip(max=len(self._pairs) - 1)
