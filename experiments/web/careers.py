"""The second tab: one applicant's career in ``JobRecCareer-v0`` under cosine, a bandit, DynaQ and the best policy."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dynaq_algo import DynaQ, LinearBandit
from dynaq_algo.agent_file import AgentFileError
from experiments.runs.careers import evenly_spread
from experiments.runs.folders import RunError, read_json, write_json
from experiments.web.agents import PAIRS, market_of
from jobrec_gym import LabourMarket, RuleSimulator
from jobrec_gym.oracle import CareerOracle

__all__ = ["BANDIT", "BEST", "COSINE", "Career", "CareerStep", "Careers", "planner"]

COSINE, BANDIT, BEST = "cosine", "linear bandit", "best policy"

_log = logging.getLogger(__name__)

_SETS = 60
_EPISODE = 27_000
_PEOPLE = 12


@dataclass(frozen=True, slots=True)
class CareerStep:
    """One recommendation of a career.

    Attributes:
        job_id: What was recommended.
        decision: The answer.
        level: The applicant's after it.
        reward: What it paid.
    """

    job_id: int
    decision: str
    level: int
    reward: float


@dataclass(frozen=True, slots=True)
class Career:
    """One applicant's episode.

    Attributes:
        steps: From the first on.
        left: Whether they lost patience and left.
    """

    steps: tuple[CareerStep, ...]
    left: bool

    @property
    def earned(self) -> float:
        """The sum of rewards."""
        return sum(step.reward for step in self.steps)

    def levels(self) -> list[int]:
        """At first and after each step."""
        return [1, *(step.level for step in self.steps)]


def planner(gamma: float) -> str:
    """What DynaQ with a discount is called."""
    return f"DynaQ, gamma {gamma:g}"


class Careers:
    """Agents that learned careers, and the careers of some held-out applicants under each.

    The agents learn in a process of their own, once; their files stay. Everybody is asked the same questions: equal
    candidates and draws, whoever recommends.

    Args:
        folder: Where agents are, or are made.
        source: The market, as of :func:`~experiments.web.agents.market_of`.
        market: The same, loaded.
        gammas: Discounts of the agents that plan; 0 is one that does not look ahead.
        interactions: What each learns from.
        truth: Arguments of :class:`~jobrec_gym.RuleSimulator`, by which people answer.
        learns: Whether agents that are not there learn when the server starts.

    Raises:
        RunError: For no discount, one outside of [0, 1), or agents that learn from nothing.

    Attributes:
        people: Rows of the applicants who can be chosen.
    """

    def __init__(
        self,
        folder: Path,
        source: str,
        market: LabourMarket,
        gammas: Sequence[float],
        interactions: int,
        truth: Mapping[str, Any],
        learns: bool = True,
    ):
        if not gammas or not all(0 <= gamma < 1 for gamma in gammas):
            raise RunError(f"`career.gammas` must be discounts in [0, 1), at least one, got {list(gammas)}.")
        if interactions < 1:
            raise RunError(f"`career.interactions` must be at least 1, got {interactions}.")
        self.gammas = tuple(gammas)
        self.interactions = interactions
        self._folder = folder
        self._source = source
        self._market = market
        self._truth = dict(truth)
        self._learns = learns
        self._env = _env(market, truth, "test")
        held_out = self._env.unwrapped.problem.applicant_ids  # type: ignore[attr-defined]
        some = evenly_spread(held_out, "people", min(_PEOPLE, len(held_out)))
        self.people: tuple[int, ...] = tuple(some.tolist())
        self._lock = threading.Lock()
        self._careers: dict[tuple[int, str], Career] = {}
        self._agents: dict[str, Any] = {}
        self._learning: multiprocessing.process.BaseProcess | None = None

    @property
    def agents(self) -> dict[str, float | None]:
        """Who has to learn, by name: the discount, ``None`` for the bandit."""
        return {BANDIT: None, **{planner(gamma): gamma for gamma in self.gammas}}

    def start(self) -> None:
        """Lets those learn who have not, in a process in the background."""
        if self._learns and self._missing():
            context = multiprocessing.get_context("spawn")
            arguments = (self._folder, self._source, self.gammas, self.interactions, self._truth)
            self._learning = context.Process(target=_learn_aside, args=arguments, daemon=True)
            self._learning.start()

    def learn(self, say: Callable[[str], object]) -> None:
        """Lets those learn who have not, one after the other; each is written with what it was made from.

        Args:
            say: Is told of each what it is called, before.
        """
        env = _env(self._market, self._truth, "train")
        for name in self._missing():
            say(name)
            gamma = self.agents[name]
            agent = LinearBandit(env, alpha=0.3) if gamma is None else DynaQ.plus(env, gamma=gamma, device="cpu")
            agent.learn(self.interactions, log_interval=None)
            self._folder.mkdir(parents=True, exist_ok=True)
            agent.save(self._file(name))
            write_json(self._file(name).with_suffix(".json"), {"asked": self._asked(name)})

    def stop(self) -> None:
        """Ends what still learns; it begins again with the next start."""
        if self._learning is not None:
            self._learning.terminate()
            self._learning.join()

    def progress(self) -> tuple[int, int]:
        """How many agents have learned, and of how many.

        Raises:
            RunError: If one could not.
        """
        n_made = sum(map(self._is_made, self.agents))
        if n_made < len(self.agents) and self._learning is not None and self._learning.exitcode:
            raise RunError(f"careers could not be learned: a process ended with {self._learning.exitcode}.")
        return n_made, len(self.agents)

    def career(self, applicant_id: int, name: str) -> Career:
        """The career of somebody in :attr:`people` under cosine, the best policy or an agent that has learned.

        Raises:
            RunError: If the agent's file cannot be read: another version has written it, say.
        """
        asked = applicant_id, name
        if asked not in self._careers:
            with self._lock:  # the environment is one; who asks for a career that was played does not wait
                if asked not in self._careers:
                    self._careers[asked] = self._play(*asked)
        return self._careers[asked]

    def _play(self, applicant_id: int, name: str) -> Career:
        obs, info = self._env.reset(seed=_EPISODE, options={"applicant_id": applicant_id})
        agent, state = self._agent(name), None
        steps: list[CareerStep] = []
        while True:
            start = np.array([not steps])
            action, state = agent.predict(obs, state=state, episode_start=start, deterministic=True)
            obs, reward, terminated, truncated, info = self._env.step(action)
            decision, level = str(info["feedback/decision"]), int(info["progress/level"])
            steps.append(CareerStep(int(info["job_id"]), decision, level, float(reward)))
            if terminated or truncated:
                return Career(tuple(steps), bool(terminated))

    def _agent(self, name: str) -> Any:
        if name not in self._agents:
            self._agents[name] = self._loaded(name)
        return self._agents[name]

    def _loaded(self, name: str) -> Any:
        if name in (COSINE, BEST):
            return CareerOracle(self._env, "best" if name == BEST else "cosine", n_sets=_SETS)
        try:
            if name == BANDIT:
                return LinearBandit.load(self._file(name), self._env)
            return DynaQ.load(self._file(name), env=self._env, device="cpu")
        except AgentFileError as error:
            raise RunError(f"Remove {self._folder}, and agents learn careers again: {error}") from error

    def _missing(self) -> list[str]:
        return [name for name in self.agents if not self._is_made(name)]

    def _asked(self, name: str) -> dict[str, Any]:
        """What an agent is made from; one that was made from other things is made again."""
        return {
            "market": self._source,
            "truth": self._truth,
            "gamma": self.agents[name],
            "interactions": self.interactions,
        }

    def _file(self, name: str) -> Path:
        return self._folder / f"{name.replace(', ', '_').replace(' ', '_')}.zip"

    def _is_made(self, name: str) -> bool:
        made = self._file(name).with_suffix(".json")
        return made.is_file() and read_json(made, "Remove it, and it is made again.")["asked"] == self._asked(name)


def _learn_aside(
    folder: Path, source: str, gammas: Sequence[float], interactions: int, truth: Mapping[str, Any]
) -> None:
    """A process in which agents learn, while those who wait for a page come first."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends it
    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(10)
    Careers(folder, source, market_of(source), gammas, interactions, truth).learn(_log.info)


def _env(market: LabourMarket, truth: Mapping[str, Any], split: str) -> gym.Env[Any, Any]:
    return gym.make(
        "JobRecCareer-v0",
        market=market,
        observation="ids",
        pair_features=PAIRS,
        split=split,
        simulator=RuleSimulator(**truth),
    )
