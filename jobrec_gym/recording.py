"""Writes a log of a policy in ``JobRec-v0``: recommendations, their propensities, and the answers."""

from __future__ import annotations

import logging
import numbers
from typing import Any

import gymnasium as gym
import numpy as np

from jobrec_gym.env import JobRecEnv
from jobrec_gym.interactions import Interactions, LogError, check_catalogue
from jobrec_gym.off_policy import Policy, action_probabilities
from jobrec_gym.simulators.base import DECISIONS

__all__ = ["record_interactions"]

logger = logging.getLogger(__name__)


def record_interactions(
    env: gym.Env[Any, Any], policy: Policy = None, n: int = 1_000, *, epsilon: float = 0.1, seed: int = 0
) -> Interactions:
    """Runs a policy and records the shown jobs, the recommendations, their propensities and the answers.

    The environment is reset with ``seed`` once, and continues from there. A row's time is its step, from 0. If a
    transition is not valid, the row has no answer. A log of a ``JobRecCareer-v0`` is marked as one whose applicants
    change; estimators of one-step values refuse such a log.

    Args:
        env: A ``JobRec-v0`` or ``JobRecCareer-v0``, with or without a reward wrapper.
        policy: An agent with ``q_values``, a function of a batch of observations that returns probabilities (n, k), or
            ``None`` for a uniform choice.
        n: How many recommendations.
        epsilon: Probability with which an agent chooses uniformly, so that every candidate can be chosen.
        seed: Seed of the environment and of the choices.

    Returns:
        The log; ``save`` and ``write_csv`` keep it.

    Raises:
        ValueError: For another environment, ``n`` below 1, a ``seed`` below 0, an object that is not a policy, or an
            agent whose ids name other jobs than those of the environment's market.
        LogError: If there was no answer at all.

    Example:
        >>> env = FeedbackReward(gym.make("JobRec-v0"), RuleSimulator(seed=0))
        >>> log = record_interactions(env, n=20)
        >>> len(log), log.propensity[0]
        (20, np.float64(0.05))
    """
    base = env.unwrapped
    if not isinstance(base, JobRecEnv):
        raise ValueError(f"`env` must be a JobRec-v0 or JobRecCareer-v0, wrapped or not, got {base}.")
    for name, value, least in (("n", n, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"`{name}` must be at least {least} and a whole number, got {value!r:.40}.")
    entries: Any = base.observation_space
    if len(entries["candidates"].shape) == 1:
        check_catalogue(policy, base.market, base.job_fields, "policy")
    n, seed = int(n), int(seed)  # Gymnasium takes no numbers of numpy
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {
        name: [] for name in ("applicant_ids", "job_ids", "reward", "decision", "propensity", "shown")
    }
    obs, info = env.reset(seed=seed)
    for _ in range(n):
        allowed = info["action_mask"].astype(bool)
        chances = action_probabilities(
            policy,
            {**{key: values[None] for key, values in obs.items()}, "action_mask": info["action_mask"][None]},
            epsilon if hasattr(policy, "q_values") else 0.0,
        )[0]
        action = int(rng.choice(len(chances), p=chances / chances.sum()))
        shown = info["candidate_ids"]
        rows["propensity"].append(float(chances[action]))
        rows["shown"].append(shown[allowed])
        obs, reward, terminated, truncated, info = env.step(action)
        decision = info.get("feedback/decision") if info["transition_valid"] else None
        rows["applicant_ids"].append(info["applicant_id"])
        rows["job_ids"].append(info["job_id"])
        rows["reward"].append(float(reward) if info["transition_valid"] else np.nan)
        rows["decision"].append(DECISIONS.index(decision) if decision in DECISIONS else -1)
        if terminated or truncated:
            obs, info = env.reset()
    dynamics = getattr(base, "dynamics", None)
    moving = dynamics is not None and bool(dynamics.names)
    log = Interactions.of(base.market, time=np.arange(n, dtype=np.float64), moving=moving, **rows)
    n_answered = int(log.answered.sum())
    if not n_answered:
        raise LogError(
            f'none of the {n:,} recommendations was answered (`info["transition_valid"]` is False): there is nothing '
            'to log. `info["feedback/status"]` of a step says why.'
        )
    if n_answered < n:
        logger.warning("%d of %d recommendations were not answered; the log keeps them.", n - n_answered, n)
    return log
