"""The third tab: one applicant's career in ``JobRecCareer-v0`` under cosine, a bandit, DynaQ and the best policy."""

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
from experiments.runs.processes import end_with_parent
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
        job_id: The recommended job.
        decision: The applicant's answer.
        level: The applicant's level after the answer.
        reward: The reward of the answer.
    """

    job_id: int
    decision: str
    level: int
    reward: float


@dataclass(frozen=True, slots=True)
class Career:
    """One applicant's episode.

    Attributes:
        steps: All recommendations, in order.
        left: Whether the applicant lost patience and left.
    """

    steps: tuple[CareerStep, ...]
    left: bool

    @property
    def earned(self) -> float:
        """The sum of rewards."""
        return sum(step.reward for step in self.steps)

    def levels(self) -> list[int]:
        """The applicant's level at first and after each step."""
        return [1, *(step.level for step in self.steps)]


def planner(gamma: float) -> str:
    """The name of DynaQ with this discount."""
    return f"DynaQ, gamma {gamma:g}"


class Careers:
    """Agents trained on ``JobRecCareer-v0``, and the careers of some held-out applicants under each of them.

    The agents are trained once, in a process of their own, and their files are kept. An agent whose record cannot be
    read is trained again. An applicant meets the same candidate sets and random draws under every agent.

    Args:
        folder: Where the agents' files are, or are written.
        source: The market, see :func:`~experiments.web.agents.market_of`.
        market: The same market, loaded.
        gammas: Discounts of the agents that plan. An agent with 0 does not look ahead.
        interactions: How many interactions each agent learns from.
        truth: Arguments of :class:`~jobrec_gym.RuleSimulator`, by which people answer.
        learns: Whether missing agents are trained when the server starts.

    Raises:
        RunError: If there is no discount, a discount is outside of [0, 1), or ``interactions`` is below 1.

    Attributes:
        people: Rows of the applicants who can be chosen.
        learns: Whether missing agents are trained when the server starts.
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
        self.learns = learns
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
        """The discount of each agent that learns, by name; ``None`` for the bandit."""
        return {BANDIT: None, **{planner(gamma): gamma for gamma in self.gammas}}

    def start(self) -> None:
        """Starts training the missing agents, in a process in the background."""
        if self.learns and self._missing():
            context = multiprocessing.get_context("spawn")
            arguments = (self._folder, self._source, self.gammas, self.interactions, self._truth)
            self._learning = context.Process(target=_learn_aside, args=arguments, daemon=True)
            self._learning.start()

    def learn(self, say: Callable[[str], object]) -> None:
        """Trains the missing agents one after the other. Each is written together with the options it was made from.

        Args:
            say: Function that is called with the name of each agent before it is trained.
        """
        env = _env(self._market, self._truth, "train")
        for name in self._missing():
            say(name)
            gamma = self.agents[name]
            if gamma is None:
                # Without a seed each folder would have another bandit. DynaQ.plus has a seed of its own.
                agent: Any = LinearBandit(env, alpha=0.3, seed=0)
            else:
                agent = DynaQ.plus(env, gamma=gamma, device="cpu")
            agent.learn(self.interactions, log_interval=None)
            self._folder.mkdir(parents=True, exist_ok=True)
            agent.save(self._file(name))
            write_json(self._file(name).with_suffix(".json"), {"asked": self._asked(name)})

    def stop(self) -> None:
        """Stops the training. The next start begins it again."""
        if self._learning is not None:
            self._learning.terminate()
            self._learning.join()

    def progress(self) -> tuple[int, int]:
        """The number of trained agents, and the number of all.

        Raises:
            RunError: If the training process has failed.
        """
        n_made = sum(map(self._is_made, self.agents))
        if n_made < len(self.agents) and self._learning is not None and self._learning.exitcode:
            raise RunError(f"careers could not be learned: a process ended with exit code {self._learning.exitcode}.")
        return n_made, len(self.agents)

    def career(self, applicant_id: int, name: str) -> Career:
        """The career of an applicant in :attr:`people` under cosine, the best policy or a trained agent.

        Raises:
            RunError: If the agent's file cannot be read, for instance because another version has written it.
        """
        asked = applicant_id, name
        if asked not in self._careers:
            with self._lock:  # there is one environment; careers that were played are given without waiting
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
        """The options that an agent is made from. An agent that was made from other options is made again."""
        return {
            "market": self._source,
            "truth": self._truth,
            "gamma": self.agents[name],
            "interactions": self.interactions,
        }

    def _file(self, name: str) -> Path:
        return self._folder / f"{name.replace(', ', '_').replace(' ', '_')}.zip"

    def _is_made(self, name: str) -> bool:
        try:
            made = read_json(self._file(name).with_suffix(".json"), "The agent is trained again.")
        except RunError:
            return False
        return made.get("asked") == self._asked(name)


def _learn_aside(
    folder: Path, source: str, gammas: Sequence[float], interactions: int, truth: Mapping[str, Any]
) -> None:
    """Trains agents in a process of low priority, so that the server's pages come first."""
    import torch

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too, but the server ends it
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
