"""One person's recommender: what it expects of nearby jobs, which job it asks about, and what answers change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym import LabourMarket, Recommendation, recommend
from jobrec_gym.interactions import ObservationForm
from jobrec_gym.market.context import folded
from jobrec_gym.simulators.base import decision_rewards

__all__ = ["Change", "Learner", "Moved", "Recommender"]

Values = NDArray[np.float64]
Ids = NDArray[np.int64]

_REWARDS = decision_rewards(None)
_EXPLAINED = 5  # how many jobs a change names, those whose expected rewards moved most


class Learner(Protocol):
    """An agent that learns from single answers: ``DynaQ`` or a bandit."""

    def predict(self, observation: Mapping[str, Any], deterministic: bool = False) -> tuple[Any, Any]:
        """Index of the chosen candidate; the choice explores unless ``deterministic``."""

    def q_values(self, observation: Mapping[str, Any]) -> NDArray[np.floating]:
        """Expected rewards of the candidates, (1, k)."""

    def observe(self, observation: Mapping[str, Any], action: Any, reward: Any) -> None:
        """Learns from one answer."""


@dataclass(frozen=True, slots=True)
class Moved:
    """How an answer to one job moved the expected reward of another.

    Attributes:
        job_id: Id of the other job.
        before: Its expected reward before the answer.
        after: Its expected reward after the answer.
        shared: Skills that both jobs ask for.
        cosine: Cosine of both jobs' vectors, in [-1, 1].
    """

    job_id: int
    before: float
    after: float
    shared: tuple[str, ...]
    cosine: float


@dataclass(frozen=True, slots=True)
class Change:
    """What an answer changed.

    Attributes:
        job_id: Id of the job that was answered.
        decision: The answer.
        expected: Expected reward of the job before the answer, and its standard deviation.
        moved: The jobs whose expected rewards moved most, the largest move first.
    """

    job_id: int
    decision: str
    expected: tuple[float, float]
    moved: tuple[Moved, ...]


class Recommender:
    """One person's own copy of a learner, and the jobs of the catalogue that are nearest to the person.

    Args:
        learner: The person's own copy of an agent. It learns from the answers.
        market: The market that has the person among its applicants.
        applicant_id: Row of the person.
        n_nearest: How many jobs are considered, the nearest by cosine.

    Attributes:
        near: The k nearest jobs, with what the person shares with each, the nearest first.
        jobs: int64 (k,), rows of the jobs of :attr:`near` in the market. A *place* is a position in this array.
        answered: The answers so far, by place, in their order.
        mean: float64 (k,), expected reward of each job.
        spread: float64 (k,), standard deviations of ``mean``; zeros if the learner gives none.
        mean_before: float64 (k,), ``mean`` before the last answer; ``None`` before the first.
    """

    def __init__(self, learner: Any, market: LabourMarket, applicant_id: int = 0, n_nearest: int = 200):
        self.market = market
        self.applicant_id = applicant_id
        self.near: list[Recommendation] = recommend(None, market, applicant_id, n=n_nearest)
        self.jobs = np.array([job.job_id for job in self.near], dtype=np.int64)
        self.answered: dict[int, str] = {}
        self._learner = learner
        self._seen = ObservationForm.read_by(learner)(market, np.array([applicant_id]), self.jobs[None])
        self.mean, self.spread = self._beliefs()
        self.mean_before: Values | None = None

    @property
    def left(self) -> Ids:
        """Places (m,) of the jobs without an answer, the nearest first."""
        return np.array([place for place in range(len(self.jobs)) if place not in self.answered], dtype=np.int64)

    def asks(self) -> int | None:
        """Place of the job that the learner asks about next; ``None`` if all are answered."""
        left = self.left
        if not len(left):
            return None
        action, _ = self._learner.predict(self._of(left), deterministic=False)
        return int(left[int(np.asarray(action).reshape(-1)[0])])

    def best(self, n: int | None = None, without: int | None = None) -> list[int]:
        """Places of the jobs with the highest expected rewards, the best first. Answered jobs are left out.

        Args:
            n: How many jobs; ``None`` for all.
            without: Place of one more job that is left out.
        """
        return self._ranked(self.mean, without)[:n]

    def best_before(self, without: int | None = None) -> list[int]:
        """The jobs of :meth:`best`, ranked as before the last answer. Before any answer: the present ranking."""
        return self._ranked(self.mean if self.mean_before is None else self.mean_before, without)

    def _ranked(self, values: Values, without: int | None) -> list[int]:
        left = self.left[self.left != without] if without is not None else self.left
        return left[np.argsort(-values[left], kind="stable")].tolist()

    def nearest(self, n: int) -> list[int]:
        """Places of the ``n`` jobs that cosine ranks first, answered ones left out."""
        return self.left[:n].tolist()

    def answer(self, place: int, decision: str) -> Change:
        """Learns from an answer.

        Args:
            place: Place of the job in :attr:`jobs`.
            decision: One of :data:`~jobrec_gym.simulators.base.DECISIONS`.

        Returns:
            What the answer changed among the jobs without an answer.
        """
        mean, spread = self.mean, self.spread
        self.mean_before = mean
        self.learn(place, decision)
        self.refresh()
        left = self.left
        most = left[np.argsort(-np.abs(self.mean - mean)[left], kind="stable")[:_EXPLAINED]]
        job_id = int(self.jobs[place])
        moved = tuple(self._moved(job_id, int(other), mean) for other in most)
        return Change(job_id, decision, (float(mean[place]), float(spread[place])), moved)

    def replay(self, answers: Sequence[tuple[int, str]]) -> Change | None:
        """Learns from answers that were given before; returns what the last one changed."""
        for place, decision in answers[:-1]:
            self.learn(place, decision)
        if not answers:
            return None
        self.refresh()
        return self.answer(*answers[-1])

    def learn(self, place: int, decision: str) -> None:
        """Learns from an answer. :attr:`mean` and :attr:`spread` stay unchanged until :meth:`refresh`."""
        self._learner.observe(self._of(np.array([place])), np.array([0]), np.array([_REWARDS[decision]]))
        self.answered[place] = decision

    def refresh(self) -> None:
        """Updates :attr:`mean` and :attr:`spread` from the learner."""
        self.mean, self.spread = self._beliefs()

    def _of(self, places: Ids) -> dict[str, NDArray[Any]]:
        """The observation whose candidates are the jobs at some places."""
        return {name: values if name == "applicant" else values[:, places] for name, values in self._seen.items()}

    def _beliefs(self) -> tuple[Values, Values]:
        if hasattr(self._learner, "predict_reward"):
            mean, spread = self._learner.predict_reward(self._seen), self._learner.reward_spread(self._seen)
        else:
            mean = self._learner.q_values(self._seen)
            spread = np.zeros_like(mean)
        return mean[0].astype(np.float64), spread[0].astype(np.float64)

    def _moved(self, job_id: int, place: int, before: Values) -> Moved:
        other = int(self.jobs[place])
        asked, answered = self.market.job(other), self.market.job(job_id)
        had = {folded(skill) for skill in (*answered.hard_skills, *answered.soft_skills)}
        shared = tuple(skill for skill in (*asked.hard_skills, *asked.soft_skills) if folded(skill) in had)
        vectors = self.market.jobs.vectors[[job_id, other]].astype(np.float64)
        return Moved(other, float(before[place]), float(self.mean[place]), shared, float(vectors[0] @ vectors[1]))
