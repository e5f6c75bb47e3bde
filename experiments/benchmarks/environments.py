"""Speed of the environment, compared with a loop over single ones and with copying its observations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.utils.performance import benchmark_init, benchmark_step
from gymnasium.vector import VectorEnv

from experiments.benchmarks.rows import Row, ratio_of
from jobrec_gym import (
    FeedbackReward,
    JobRecCareerVectorEnv,
    JobRecVectorEnv,
    RecordedSimulator,
    RuleSimulator,
    VectorCosineReward,
    VectorFeedbackReward,
    VectorHybridReward,
)
from jobrec_gym.env import JobRecEnv

__all__ = ["environment_rows"]

_ACTIONS = 64
_MEETINGS = 3_000
"""After this many steps of 64 environments the planted truth has computed nearly every applicant's utilities."""


def environment_rows(seconds: float, rounds: int) -> Iterator[Row]:
    """Measures steps of the vector environment and of the single one.

    Args:
        seconds: Time for each measurement of a round.
        rounds: Number of rounds, whose median counts. The comparison with a copy of the observations has three times as
            many.
    """
    timing: dict[str, Any] = {"seconds": seconds, "rounds": rounds}
    for observation, n, goal in (("features", 64, 10.0), ("ids", 256, 15.0)):
        native, looped = (_stepper(make(n, observation)) for make in (_native, _looped))
        ratio, loop_seconds, own_seconds = ratio_of(looped, native, **timing)
        yield Row(
            f"vector environment, {n} envs, {observation}",
            ratio,
            "x",
            "SyncVectorEnv of the same environment",
            goal,
            details={"steps_per_second": n / own_seconds, "steps_per_second_of_the_loop": n / loop_seconds},
        )
    envs = _native(64, "features")
    observation_batch, _ = envs.reset(seed=0)
    ratio, copy_seconds, _ = ratio_of(
        lambda: {key: values.copy() for key, values in observation_batch.items()},
        _stepper(envs),
        seconds=seconds,
        rounds=3 * rounds,
    )
    yield Row(
        "the same 64 envs, features",
        ratio,
        "x",
        "a fresh copy of the same bytes (memcpy)",
        0.4,
        details={"bytes": sum(v.nbytes for v in observation_batch.values()), "seconds_of_a_copy": copy_seconds},
    )
    ratio, own_seconds, other_seconds = ratio_of(
        _single("JobRec-v0", observation="ids"), _single("CartPole-v1"), **timing
    )
    yield Row(
        "JobRecEnv.step, ids",
        ratio,
        "x",
        "CartPole-v1's step",
        12.0,
        "at most",
        {"steps_per_second": 1 / own_seconds, "steps_per_second_of_cartpole": 1 / other_seconds},
    )
    rewarded = _stepper(VectorFeedbackReward(_native(64, "ids"), RuleSimulator(seed=0)))
    looped = _stepper(_looped(64, "ids", lambda env: FeedbackReward(env, RuleSimulator(seed=0))))
    ratio, _, own_seconds = ratio_of(looped, rewarded, **timing)
    name, limit = "VectorFeedbackReward, 64 envs, ids", "SyncVectorEnv of FeedbackReward"
    yield Row(name, ratio, "x", limit, details={"steps_per_second": 64 / own_seconds})
    yield from _reward_rows(timing)
    yield _career_row(timing)
    yield from _by_gymnasium(4 * seconds)


def _reward_rows(timing: dict[str, Any]) -> Iterator[Row]:
    """Speed with rewards relative to the bare environment, once all applicants have been met."""
    planted = _stepper(VectorFeedbackReward(_native(64, "ids"), RuleSimulator(seed=0)))
    for _ in range(_MEETINGS):
        planted()
    half = {"steps": 1, "start": 0.5, "end": 0.5}  # each step has both parts of the reward
    bare = _stepper(_native(64, "ids"))
    on_recorded = [_native(64, "ids", market="recorded", split="all", job_split="all") for _ in range(2)]
    for name, rewarded, without in (
        ("planted feedback", planted, bare),
        ("cosine reward", _stepper(VectorCosineReward(_native(64, "ids"))), bare),
        ("hybrid reward", _stepper(VectorHybridReward(_native(64, "ids"), RuleSimulator(seed=0), half)), bare),
        (
            "recorded feedback",
            _stepper(VectorFeedbackReward(on_recorded[0], RecordedSimulator())),
            _stepper(on_recorded[1]),
        ),
    ):
        ratio, _, seconds = ratio_of(without, rewarded, **timing)
        details = {"steps_per_second": 64 / seconds}
        yield Row(f"steps a second with {name}, 64 envs, ids", ratio, "x", "without", 0.6, details=details)
    one = JobRecEnv(observation="ids"), FeedbackReward(JobRecEnv(observation="ids"), RuleSimulator(seed=0))
    ratio, _, seconds = ratio_of(*map(_with_resets, one), **timing)
    details = {"steps_per_second": 1 / seconds}
    yield Row("steps a second with planted feedback, one env, ids", ratio, "x", "without", 0.5, details=details)


def _career_row(timing: dict[str, Any]) -> Row:
    """Speed of ``JobRecCareer-v0``, where answers move applicants, relative to ``JobRec-v0`` and the same simulator."""
    simulator = RuleSimulator(seed=0, noise=0.5)
    moving = _stepper(JobRecCareerVectorEnv(64, observation="ids", simulator=simulator))
    still = _stepper(VectorFeedbackReward(_native(64, "ids"), simulator))
    for step in (moving, still):
        for _ in range(_MEETINGS):
            step()
    ratio, _, seconds = ratio_of(still, moving, **timing)
    details = {"steps_per_second": 64 / seconds}
    name, limit = "steps a second of JobRecCareer-v0, 64 envs, ids", "JobRec-v0 with planted feedback"
    return Row(name, ratio, "x", limit, 0.4, details=details)


def _by_gymnasium(target: Any) -> Iterator[Row]:
    """Gymnasium's own benchmarks, ``target`` seconds each. Gymnasium annotates an int, but takes any number."""
    own, other = (benchmark_step(gym.make(name), target, seed=0) for name in ("JobRec-v0", "CartPole-v1"))
    details = {"steps_per_second": own, "steps_per_second_of_cartpole": other}
    yield Row("gymnasium.utils.performance.benchmark_step", own / other, "x", "CartPole-v1's", details=details)
    own, other = (benchmark_init(make, target, seed=0) for make in (JobRecEnv, CartPoleEnv))
    details = {"per_second": own, "per_second_of_cartpole": other}
    yield Row("gymnasium.utils.performance.benchmark_init", own / other, "x", "CartPole-v1's", details=details)


def _native(n: int, observation: str, **kwargs: Any) -> VectorEnv:
    return JobRecVectorEnv(n, observation=observation, **kwargs)  # type: ignore[arg-type]


def _looped(n: int, observation: str, *wrappers: Callable[..., gym.Wrapper[Any, Any, Any, Any]]) -> VectorEnv:
    return gym.make_vec("JobRec-v0", n, vectorization_mode="sync", wrappers=wrappers, observation=observation)


def _stepper(envs: VectorEnv) -> Callable[[], Any]:
    """A function that makes one step, with actions that were drawn beforehand."""
    envs.reset(seed=0)
    n_actions = int(envs.single_action_space.n)  # type: ignore[attr-defined]
    actions = np.random.default_rng(0).integers(n_actions, size=(_ACTIONS, envs.num_envs))
    number = 0

    def step() -> None:
        nonlocal number
        number += 1
        envs.step(actions[number % _ACTIONS])

    return step


def _single(env_id: str, **kwargs: Any) -> Callable[[], Any]:
    """A function that makes one step of the environment itself, without wrappers and resets."""
    env = gym.make(env_id, **kwargs).unwrapped
    env.reset(seed=0)
    if env_id == "CartPole-v1":

        def step() -> None:
            env.state = (0.0, 0.0, 0.0, 0.0)  # type: ignore[attr-defined]  # never ends
            env.step(0)

        return step
    return lambda: env.step(0)


def _with_resets(env: gym.Env[Any, Any]) -> Callable[[], Any]:
    """A function that makes one step, and resets the environment at every tenth."""
    env.reset(seed=0)
    number = 0

    def step() -> None:
        nonlocal number
        number += 1
        env.step(number % 10)
        if number % 10 == 0:
            env.reset()

    return step
