"""The agents that every visitor starts with. They are made once, kept in two files, and copied for each person."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dynaq_algo import DynaQ, LinearBandit
from dynaq_algo.agent_file import AgentFileError
from experiments.runs.folders import RunError, read_json, write_json
from experiments.runs.progress import tracked
from jobrec_gym import FeedbackReward, LabourMarket, RuleSimulator, load_market, record_interactions
from jobrec_gym.interactions import ObservationForm

__all__ = ["PAIRS", "StartingAgents", "market_of"]

PAIRS = ("hard_coverage", "soft_coverage", "seniority")
"""Pair features of an applicant and a job that agents read in addition to both vectors."""

_log = logging.getLogger(__name__)


def market_of(source: str) -> LabourMarket:
    """The market of the page.

    Args:
        source: ``"default"`` for the default market, with places and pay, or the folder of a saved market.

    Raises:
        RunError: If there is no such market.
    """
    if source == "default":
        return load_market("default", context=["place", "pay"])
    if not (Path(source) / "market.json").is_file():
        raise RunError(f"`source` must be 'default' or the folder of a saved market, got {source!r}.")
    return LabourMarket.load(source)


class StartingAgents:
    """``dynaq_plus`` and a linear bandit that learned from the same few answers of simulated people.

    The answers come from applicants of the train split, by a planted truth of their own. No visitor is among them.

    Args:
        folder: Where the files are, or are written.
        market: The market whose jobs are recommended.
        interactions: How many answers the agents learn from; 0 for agents that know nothing but their prior.
        truth: Arguments of :class:`~jobrec_gym.RuleSimulator`, by which these people answer.

    Raises:
        RunError: If the files were made with another market or other answers, or cannot be read.
    """

    def __init__(self, folder: Path, market: LabourMarket, interactions: int, truth: Mapping[str, Any]):
        asked = {"market": market.fingerprint(), "interactions": interactions, "truth": dict(truth)}
        env = gym.make("JobRec-v0", market=market, observation="ids", pair_features=PAIRS)
        self._env = FeedbackReward(env, RuleSimulator(**truth))
        self._files = {name: folder / f"{name}.zip" for name in ("dynaq_plus", "linear")}
        made = folder / "agents.json"
        if not made.is_file():
            _log.info("the starting agents learn from %d answers of simulated people", interactions)
            self._make(folder, interactions)
            write_json(made, {"asked": asked})
        elif (kept := read_json(made, "Remove its folder, and it is made again.")["asked"]) != asked:
            changed = sorted(name for name in asked if asked[name] != kept.get(name))
            raise RunError(
                f"{folder} has agents that were made with another {', '.join(changed)}: name another `folder`, since "
                "visitors go on with the agent that they began with."
            )
        try:
            self.dynaq_plus(), self.linear()
        except AgentFileError as error:
            raise RunError(
                f"{error} Or remove {folder}: the agents are then made anew, and new copies learn what "
                "visitors answered."
            ) from error

    def dynaq_plus(self) -> DynaQ:
        """A copy of ``dynaq_plus`` as it starts."""
        return DynaQ.load(self._files["dynaq_plus"], env=self._env, device="cpu")

    def linear(self) -> LinearBandit:
        """A copy of the linear bandit as it starts."""
        return LinearBandit.load(self._files["linear"], self._env)

    def _make(self, folder: Path, interactions: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        agents: dict[str, Any] = {
            "dynaq_plus": DynaQ.plus(self._env, seed=0, device="cpu"),
            "linear": LinearBandit(
                self._env, alpha=0.3, noise=0.3, prior_std=0.03, cosine_prior=0.1, similarities="blocks", seed=0
            ),
        }
        if interactions:
            log = record_interactions(self._env, agents["dynaq_plus"], n=interactions, epsilon=0.2)
            form = ObservationForm.of(self._env)
            answers = tracked(log.answers(form), "starting agents", "answer", total=int(log.answered.sum()))
            for obs, action, reward in answers:
                for agent in agents.values():
                    agent.observe(obs, np.asarray(action), np.asarray(reward))
        for name, agent in agents.items():
            agent.save(self._files[name])
