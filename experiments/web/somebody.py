"""A simulated applicant, whose expected rewards are known, answers the recommendations of three learners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.runs.progress import tracked
from experiments.web.agents import StartingAgents
from experiments.web.recommending import Recommender
from jobrec_gym import LabourMarket, RuleSimulator
from jobrec_gym.counter_rng import hash64

__all__ = ["LEARNERS", "MOST_STEPS", "Session", "Somebody", "Step", "honest_sessions"]

LEARNERS = ("dynaq_plus", "linear", "cosine")
"""The learners that recommend. Each chooses its own jobs."""

MOST_STEPS = 100
_ANSWERS = 0x5013B0D
_TOP = 10


@dataclass(frozen=True, slots=True)
class Step:
    """One recommendation of one learner.

    Attributes:
        place: Position of the job among the jobs near the applicant.
        decision: The applicant's answer.
        worth: The expected reward of the job, by the truth.
    """

    place: int
    decision: str
    worth: float


@dataclass(frozen=True, slots=True)
class Session:
    """The mean expected rewards of three lists of ten jobs, after a session of a simulated visitor.

    Attributes:
        applicant: The visitor's key.
        agent: Mean expected reward of the list of ``dynaq_plus``.
        cosine: Mean expected reward of cosine's list.
        best: Mean expected reward of the ten best jobs near the visitor, answered ones left out.
    """

    applicant: str
    agent: float
    cosine: float
    best: float


class Somebody:
    """A simulated applicant, and what each of :data:`LEARNERS` recommended to them.

    All learners choose from the same jobs, the nearest by cosine, and recommend no job twice. A job gets the same
    answer whichever learner recommends it. Regret is relative to an oracle that recommends the best of these jobs
    first, then the second best, and so on.

    Args:
        agents: The agents whose copies the learners begin with.
        market: The market that has the applicant.
        applicant_id: Row of the applicant.
        truth: Arguments of :class:`~jobrec_gym.RuleSimulator`, by which the applicant answers.
        n_nearest: How many jobs near the applicant are considered.

    Attributes:
        steps: The recommendations of each learner.
    """

    def __init__(
        self,
        agents: StartingAgents,
        market: LabourMarket,
        applicant_id: int,
        truth: Mapping[str, Any],
        n_nearest: int = 200,
    ):
        self.applicant_id = applicant_id
        self._market = market
        self._truth = RuleSimulator(**truth).bind(market)
        self._learning = {
            "dynaq_plus": Recommender(agents.dynaq_plus(), market, applicant_id, n_nearest),
            "linear": Recommender(agents.linear(), market, applicant_id, n_nearest),
        }
        self.near = self._learning["dynaq_plus"].near
        self._jobs = self._learning["dynaq_plus"].jobs
        self._worth = self._truth.expected_reward(np.full(len(self._jobs), applicant_id), self._jobs)
        self.steps: dict[str, list[Step]] = {name: [] for name in LEARNERS}

    def __len__(self) -> int:
        return len(self.steps[LEARNERS[0]])

    def length_after(self, n: int) -> int:
        """How many jobs each learner will have recommended after :meth:`play`."""
        return min(len(self) + n, MOST_STEPS, len(self._jobs))

    def play(self, n: int) -> None:
        """Lets every learner recommend ``n`` more jobs, while there are any; :data:`MOST_STEPS` jobs in all at most."""
        for _ in range(len(self), self.length_after(n)):
            for name in LEARNERS:
                recommender = self._learning.get(name)
                place = len(self.steps[name]) if recommender is None else recommender.asks()
                assert place is not None  # there are jobs left
                decision = self._decision(place)
                if recommender is not None:
                    recommender.learn(place, decision)
                self.steps[name].append(Step(place, decision, float(self._worth[place])))

    def regret(self) -> dict[str, NDArray[np.float64]]:
        """Cumulative expected regret (n + 1,) of each learner after 0 to n steps."""
        best = np.sort(self._worth)[::-1][: len(self)].cumsum()
        return {
            name: np.append(0.0, best - np.cumsum([step.worth for step in steps])) for name, steps in self.steps.items()
        }

    def lists(self) -> Session:
        """The lists that ``dynaq_plus`` and cosine would show now, without the jobs that ``dynaq_plus`` asked about."""
        recommender = self._learning["dynaq_plus"]
        recommender.refresh()
        lists = recommender.best(_TOP), recommender.nearest(_TOP)
        agent, cosine = (float(self._worth[places].mean()) for places in lists)
        best = float(np.sort(self._worth[recommender.left])[-_TOP:].mean())
        return Session(str(self._market.applicant(self.applicant_id).key), agent, cosine, best)

    def _decision(self, place: int) -> str:
        job = self._jobs[place : place + 1]
        key = hash64(_ANSWERS, self.applicant_id, job)
        return str(self._truth.feedback(np.array([self.applicant_id]), job, key).decision[0])


def honest_sessions(
    agents: StartingAgents, market: LabourMarket, applicant_ids: Sequence[int], seed: int, noise: float, n_answers: int
) -> list[Session]:
    """Sessions of simulated visitors who answer what ``dynaq_plus`` asks, each by a planted truth of their own.

    Answered jobs are left out of the lists.

    Args:
        agents: The agents whose copies each session begins with.
        market: The market that has the visitors.
        applicant_ids: Rows of the visitors.
        seed: Seed of the first visitor's truth; each next visitor has the next seed.
        noise: Noise of the truths.
        n_answers: How many jobs each visitor answers.
    """
    sessions = []
    for number, applicant_id in enumerate(tracked(applicant_ids, "sessions", "session")):
        somebody = Somebody(agents, market, applicant_id, {"seed": seed + number, "noise": noise})
        somebody.play(n_answers)
        sessions.append(somebody.lists())
    return sessions
