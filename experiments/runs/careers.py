"""Scores of agents on ``JobRecCareer-v0``: an episode with each held-out applicant, against the exact best policy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.runs.evaluation import Metrics
from experiments.runs.folders import RunError
from jobrec_gym import JobRecCareerVectorEnv
from jobrec_gym.market import SENIORITY_LEVELS
from jobrec_gym.oracle import CareerOracle, OraclePolicy

__all__ = [
    "CAREER",
    "POLICIES",
    "CareerEvaluation",
    "Careers",
    "Predict",
    "cosine_choice",
    "evenly_spread",
    "is_career",
    "play",
]

Ids = NDArray[np.int64]
Obs = Mapping[str, NDArray[Any]]
Predict = Callable[..., tuple[Any, Any]]
"""SB3's ``predict(observation, state, episode_start, deterministic)``."""

CAREER = "JobRecCareer-v0"
"""``env.id`` of runs in which answers change the applicant. Other runs need no ``env.id``."""

POLICIES: Mapping[str, OraclePolicy] = {
    "random": "random",
    "cosine": "cosine",
    "myopic": "myopic",
    "oracle": "best",
}
"""Reference policies, with their names in :class:`~jobrec_gym.oracle.CareerOracle`. ``myopic`` is the best
policy that a bandit can learn."""

_LEVEL = "progress/level"
_LEFT_BY = (10, 20, 30)
_FEWEST_SETS = 4

_log = logging.getLogger(__name__)


def is_career(config: Mapping[str, Any]) -> bool:
    """Whether answers change the applicants in the run of this config, which is in plain dictionaries."""
    return config.get("env", {}).get("id") == CAREER


@dataclass(frozen=True, slots=True, eq=False)
class Careers:
    """An episode with each of n applicants, of at most T steps.

    Attributes:
        returns: float64 (n,), sums of rewards.
        steps: int64 (n,), numbers of steps.
        left: bool (n,), whether the applicant left before the horizon.
        levels: int64 (T + 1, n), the applicants' levels at first and after each step. After the end of an episode the
            last level is repeated. ``None`` if the dynamics have no levels.
    """

    returns: NDArray[np.float64]
    steps: Ids
    left: NDArray[np.bool_]
    levels: Ids | None

    def figures(self) -> Metrics:
        """Means over the applicants, by name.

        ``return``; ``reached_2`` to ``reached_5``, the share that reached this level or a higher one; ``left``, the
        share that left; ``left_after``, the mean number of steps of those who left; ``steps``, that of all applicants.
        """
        highest = None if self.levels is None else self.levels.max(axis=0)
        reached: Metrics = {
            f"reached_{level}": None if highest is None else float((highest >= level).mean())
            for level in range(2, len(SENIORITY_LEVELS) + 1)
        }
        return {
            "return": float(self.returns.mean()),
            **reached,
            "left": float(self.left.mean()),
            "left_after": float(self.steps[self.left].mean()) if self.left.any() else None,
            "steps": float(self.steps.mean()),
        }

    def shares(self) -> dict[str, Any]:
        """The levels that applicants reached, in plain JSON.

        Returns:
            ``levels``, the shares of applicants whose highest level was 1 to 5, or ``None``; ``left_by``, the share
            that had left after 10, 20 and 30 steps and at the end.
        """
        levels = None
        if self.levels is not None:
            highest = self.levels.max(axis=0)
            levels = [float((highest == level).mean()) for level in range(1, len(SENIORITY_LEVELS) + 1)]
        by = {str(steps): float((self.left & (self.steps <= steps)).mean()) for steps in _LEFT_BY}
        return {"levels": levels, "left_by": {**by, "end": float(self.left.mean())}}

    def one(self, place: int) -> dict[str, Any]:
        """The career of one applicant, in plain JSON: ``levels`` at first and after each step, ``left``, ``return``."""
        end = int(self.steps[place]) + 1
        levels = None if self.levels is None else self.levels[:end, place].tolist()
        return {"levels": levels, "left": bool(self.left[place]), "return": float(self.returns[place])}


def play(envs: Any, applicant_ids: Ids, seed: int, predict: Predict) -> Careers:
    """Plays an episode with each of n applicants. Equal seeds give equal candidates and draws for every policy.

    Args:
        envs: A :class:`~jobrec_gym.career.JobRecCareerVectorEnv` of n environments, wrapped or not, in next-step mode.
        applicant_ids: (n,), the applicants.
        seed: Seed of the episodes.
        predict: The policy. It is asked for its greedy choice.
    """
    n = len(applicant_ids)
    obs, infos = envs.reset(seed=seed, options={"applicant_id": applicant_ids})
    levels = [infos[_LEVEL].copy()] if _LEVEL in infos else None
    returns, steps = np.zeros(n), np.zeros(n, np.int64)
    left, running = np.zeros(n, bool), np.ones(n, bool)
    state, starts = None, np.ones(n, bool)
    while running.any():
        action, state = predict(obs, state=state, episode_start=starts, deterministic=True)
        starts = np.zeros(n, bool)
        action = np.where(running, action, infos["action_mask"].argmax(axis=1))
        following, reward, terminated, truncated, infos = envs.step(action)
        returns += np.where(running, reward, 0.0)
        steps += running
        left |= running & terminated
        if levels is not None:
            levels.append(np.where(running, infos[_LEVEL], levels[-1]))
        running &= ~(terminated | truncated)
        # In an ended environment the policy keeps being shown the last observation. The environment itself goes on with
        # another applicant, for whom the oracle would have to compute values.
        obs = {key: _of_the_running(running, values, obs[key]) for key, values in following.items()}
    return Careers(returns, steps, left, None if levels is None else np.stack(levels))


def cosine_choice(action_features: NDArray[np.floating]) -> Predict:
    """A policy that takes the most similar candidate.

    Args:
        action_features: (n_jobs, d_a), the environment's table of job vectors.
    """

    def predict(observation: Obs, state: Any = None, **_: Any) -> tuple[Ids, Any]:
        people, shown = observation["applicant"], observation["candidates"]
        vectors = action_features[shown] if shown.dtype.kind in "iu" else shown
        cosine = np.einsum("nd,nkd->nk", people, vectors[..., : people.shape[1]])
        return _allowed(cosine, observation).argmax(axis=1), state

    return predict


class _Played(NamedTuple):
    """The careers of one of :data:`POLICIES`, and its exact return if that is known."""

    careers: Careers
    value: float | None


class CareerEvaluation:
    """Evaluates any number of agents by their episodes with the same held-out applicants.

    The score of an agent is its share of the exact best policy's return over the same applicants. It is ``None`` if
    that policy cannot be computed.

    Args:
        make: Function that makes a :class:`~jobrec_gym.career.JobRecCareerVectorEnv` of a number of environments, in
            next-step mode, on the held-out applicants.
        n_applicants: How many of these applicants are played, evenly spread over them; ``None`` for all.
        n_sets: Number of candidate sets of each applicant, over which exact returns are means; 0 leaves exact returns
            out.
        seed: Seed of the episodes.

    Raises:
        RunError: If there are fewer than ``n_applicants`` applicants, or too few sets to estimate an error.
    """

    def __init__(
        self,
        make: Callable[[int], JobRecCareerVectorEnv],
        n_applicants: int | None = None,
        n_sets: int = 120,
        seed: int = 1_000_000,
    ):
        if 0 < n_sets < _FEWEST_SETS:
            raise RunError(f"`evaluation.n_sets` must be 0 or at least {_FEWEST_SETS}, got {n_sets}.")
        self.applicant_ids = evenly_spread(make(1).problem.applicant_ids, "evaluation.n_applicants", n_applicants)
        self._envs = make(len(self.applicant_ids))
        self._n_sets = n_sets
        self._seed = seed

    def __call__(self, model: Any) -> Metrics:
        """``score``, the share of the best policy's return, and the :meth:`~Careers.figures` of an agent's careers.

        Args:
            model: An agent with SB3's ``predict``.
        """
        return self._scored(self._play(model.predict).figures())

    def with_return(self, model: Any) -> Metrics:
        """The same as calling the object, because the return is among the figures."""
        return self(model)

    def references(self) -> dict[str, Metrics]:
        """The same metrics for :data:`POLICIES`. Their returns and scores are exact wherever these can be computed."""
        result: dict[str, Metrics] = {}
        for name, played in self._played.items():
            figures = played.careers.figures()
            result[name] = self._scored(figures if played.value is None else {**figures, "return": played.value})
        unknown = dict.fromkeys(next(iter(result.values())))
        return {name: result.get(name, unknown) for name in POLICIES}

    def outcomes(self, model: Any) -> dict[str, Any]:
        """The levels that applicants reach with an agent, see :meth:`Careers.shares`."""
        return {"careers": self._play(model.predict).shares()}

    def reference_outcomes(self) -> dict[str, dict[str, Any]]:
        """:meth:`outcomes` of each of :data:`POLICIES` that can be played."""
        return {name: {"careers": played.careers.shares()} for name, played in self._played.items()}

    def example(self, model: Any) -> dict[str, Any] | None:
        """The career of one held-out applicant, see :meth:`Careers.one`.

        Args:
            model: An agent, or a name of :data:`POLICIES`. The result is ``None`` for a policy that cannot be played.
        """
        if not isinstance(model, str):
            return self._play(model.predict).one(self._example_place)
        played = self._played.get(model)
        return None if played is None else played.careers.one(self._example_place)

    def example_applicant(self) -> dict[str, Any]:
        """The applicant of :meth:`example`: ``key``, ``title``, ``skills``, and ``n_candidates`` of each step."""
        person = self._envs.market.applicant(int(self.applicant_ids[self._example_place]))
        return {
            "key": str(person.key),
            "title": person.title or person.occupation or "",
            "skills": [*person.hard_skills, *person.soft_skills],
            "n_candidates": self._envs.problem.num_candidates,
        }

    @property
    def _example_place(self) -> int:
        return len(self.applicant_ids) // 2

    @cached_property
    def _played(self) -> dict[str, _Played]:
        if not self._n_sets:
            return self._without_oracle()
        played = {}
        for name, policy in POLICIES.items():
            try:
                oracle = CareerOracle(self._envs, policy, self._n_sets)
            except ValueError as error:
                _log.info("the best policy's return is not known, so agents get no score: %s", error)
                return self._without_oracle()
            careers = self._play(oracle.predict)
            values, _ = oracle.values(self.applicant_ids)
            played[name] = _Played(careers, float(values.mean()))
        return played

    def _without_oracle(self) -> dict[str, _Played]:
        """The careers of random and cosine, which need no exact solution."""
        rng = np.random.default_rng(self._seed)

        def anything(observation: Obs, state: Any = None, **_: Any) -> tuple[Ids, Any]:
            draws = rng.random(observation["candidates"].shape[:2])
            return _allowed(draws, observation).argmax(axis=1), state

        choices = {"random": anything, "cosine": cosine_choice(self._envs.action_features)}
        return {name: _Played(self._play(choice), None) for name, choice in choices.items()}

    def _scored(self, figures: Metrics) -> Metrics:
        best, earned = self._best, figures["return"]
        return {"score": None if best is None or earned is None else earned / best, **figures}

    @property
    def _best(self) -> float | None:
        """The best policy's exact return; ``None`` if it is not known, or not above 0."""
        oracle = self._played.get("oracle")
        return None if oracle is None or not oracle.value or oracle.value <= 0 else oracle.value

    def _play(self, predict: Predict) -> Careers:
        return play(self._envs, self.applicant_ids, self._seed, predict)


def evenly_spread(applicant_ids: Ids, name: str, n: int | None) -> Ids:
    """Takes n of some applicants, evenly spread over them.

    Args:
        applicant_ids: The applicants to choose from.
        name: The entry of a config that says how many, for the error message.
        n: How many; ``None`` for all.

    Raises:
        RunError: If there are fewer than n.
    """
    if n is None:
        return applicant_ids
    if not 1 <= n <= len(applicant_ids):
        raise RunError(f"`{name}` must be null or in [1, {len(applicant_ids)}], the size of the split, got {n}.")
    return applicant_ids[np.linspace(0, len(applicant_ids) - 1, n).astype(np.int64)]


def _allowed(scores: NDArray[np.floating], observation: Obs) -> NDArray[np.floating]:
    mask = observation.get("action_mask")
    return scores if mask is None else np.where(mask > 0, scores, -np.inf)


def _of_the_running(running: NDArray[np.bool_], now: NDArray[Any], before: NDArray[Any]) -> NDArray[Any]:
    return now if running.all() else np.where(running.reshape(-1, *[1] * (now.ndim - 1)), now, before)
