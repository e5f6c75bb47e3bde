"""Speed of DynaQ's learning and choosing, compared with bare updates, the plain loop, and SB3's DQN."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm

import jobrec_gym  # noqa: F401  # registers the environment
from dynaq_algo import DynaQ
from dynaq_algo.networks import denormals_flushed
from experiments.benchmarks.plain import PlainDynaQ, bare_update, make_network
from experiments.benchmarks.rows import Row, ratio_of

__all__ = ["learning_rows"]

PLANNING_STEPS, BATCH = 5, 64

_PLANNING_GOAL = 1.6


def learning_rows(
    seconds: float, rounds: int, n_steps: int = 20, replays: Sequence[int] = (300, 10_000)
) -> Iterator[Row]:
    """Measures updates, whole steps of learning, and choices, with batches of 64 and hidden layers of 256 and 256.

    Args:
        seconds: Time for each measurement of a round. Planning is instead timed from one copy of the target network to
            the next.
        rounds: Number of rounds, whose median counts. The comparison with SB3's DQN has twice as many.
        n_steps: Steps of learning that are timed together.
        replays: Transitions in replay when planning is timed: few (of few applicants), as at a cold start, and many.
    """
    th.manual_seed(0)
    timing: dict[str, Any] = {"seconds": seconds, "rounds": rounds}
    input_dim = _agent("ids", 0).policy.features.output_dim
    bare = bare_update(input_dim)
    with denormals_flushed():
        for n, observation in product(replays, ("features", "ids")):
            agent = _agent(observation, PLANNING_STEPS, learning_starts=n)
            agent.learn(n)
            agent.policy.set_training_mode(True)
            ratio, own, other = _planning_cost(agent, bare, rounds)
            details = {"milliseconds": 1e3 * own / PLANNING_STEPS, "milliseconds_bare": 1e3 * other / PLANNING_STEPS}
            details["distinct_states"] = len(agent.replay_buffer.states)
            yield Row(
                f"planning update, {observation}, N = {PLANNING_STEPS}, {n:,} transitions",
                ratio,
                "x",
                "a bare update of Q",
                _PLANNING_GOAL,
                "at most",
                details,
            )
        plain = PlainDynaQ(gym.make("JobRec-v0"), PLANNING_STEPS, BATCH)
        plain.learn(2 * BATCH)
        ratio, _, _ = ratio_of(plain.planning_update, bare, **timing)
        yield Row("planning update of the plain loop", ratio, "x", "a bare update of Q")
        ratio, _, _ = ratio_of(bare, _products(input_dim), **timing)
        yield Row("bare update of Q", ratio, "x", "its matrix products alone (torch's GEMM)")
        own_update = partial(_agent("ids", 0)._q_update, th.randn(BATCH, input_dim), th.randn(BATCH))
        ratio, _, _ = ratio_of(own_update, bare, **timing)
        yield Row("update of DynaQ's Q-network", ratio, "x", "a bare update of Q")
        own_agent = _steps(_agent("features", PLANNING_STEPS), n_steps)
        ratio, other, own = ratio_of(partial(plain.learn, n_steps), own_agent, **timing)
        details = {"steps_per_second": n_steps / own, "steps_per_second_of_the_plain_loop": n_steps / other}
        name = f"DynaQ.learn, features, N = {PLANNING_STEPS}"
        yield Row(name, ratio, "x", "the plain loop: interact, update, model, plan", details=details)
    yield from _against_dqn(max(n_steps // 2, 1), {**timing, "rounds": 2 * rounds})
    yield from _choices(timing)


def _planning_cost(agent: DynaQ, bare: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Times planning and as many bare updates by turns, from one copy of the target network to the next.

    The result has the form of :func:`ratio_of`. Target values are kept from one copy to the next. A round begins with a
    copy, so each round computes them anew. Before each step the value of one transition is dropped, because one
    transition is new in each step of learning.
    """
    n_steps, kept, times = agent.target_update_interval, agent._kept_values, []
    for number in range(rounds + 1):
        own = other = 0.0
        for step in range(n_steps):
            begin = time.perf_counter()
            if step == 0:
                agent.q_net_target.load_state_dict(agent.q_net.state_dict())
            kept._serial[step % len(agent.replay_buffer)] = -1
            agent.plan(BATCH)
            between = time.perf_counter()
            for _ in range(agent.planning_steps):
                bare()
            own, other = own + between - begin, other + time.perf_counter() - between
        if number:  # the first round is not counted
            times.append((own / n_steps, other / n_steps))
    ratio = statistics.median(own / other for own, other in times)
    return ratio, min(own for own, _ in times), min(other for _, other in times)


def _against_dqn(n_steps: int, timing: dict[str, Any]) -> Iterator[Row]:
    dqn = DQN(
        "MultiInputPolicy",
        gym.make("JobRec-v0"),
        batch_size=BATCH,
        train_freq=1,
        learning_starts=64,
        buffer_size=2_000,
        policy_kwargs={"net_arch": [256, 256]},
        seed=0,
    )
    theirs = _steps(dqn, n_steps)
    for planning_steps, goal in ((0, 6.0), (PLANNING_STEPS, 1.5)):
        for observation in ("features", "ids"):
            # DynaQ makes more steps at a time than DQN, so that both are timed for about as long.
            own_steps = n_steps * (6 if planning_steps == 0 else 2)
            ratio, other, own = ratio_of(theirs, _steps(_agent(observation, planning_steps), own_steps), **timing)
            details = {"steps_per_second": own_steps / own, "steps_per_second_of_dqn": n_steps / other}
            yield Row(
                f"DynaQ.learn, {observation}, N = {planning_steps}",
                ratio * own_steps / n_steps,
                "x",
                "SB3's DQN on the Dict observation",
                goal,
                details=details,
            )


def _choices(timing: dict[str, Any]) -> Iterator[Row]:
    for observation in ("features", "ids"):
        agent = _agent(observation, 0)
        envs = gym.make_vec("JobRec-v0", 64, observation=observation)
        obs, _ = envs.reset(seed=0)
        features = agent.policy.features
        rows = th.randn(64 * 20, features.output_dim)
        sets = th.randn(64, features.state_dim), th.randn(64, 20, features.action_dim)
        limits = {
            "a forward pass of 64 x 20 rows": th.no_grad()(partial(make_network(features.output_dim), rows)),
            "the same, first layer in halves": th.no_grad()(partial(agent.q_net.score, *sets)),
        }
        for limit, call in limits.items():
            ratio, _, _ = ratio_of(partial(agent.predict, obs, deterministic=True), call, **timing)
            yield Row(f"greedy predict, 64 envs, {observation}", ratio, "x", limit, 3.0, "at most")


def _agent(observation: str, planning_steps: int, **kwargs: Any) -> DynaQ:
    env = gym.make("JobRec-v0", observation=observation)
    return DynaQ("CandidatePolicy", env, planning_steps=planning_steps, batch_size=BATCH, seed=0, **kwargs)


def _steps(model: BaseAlgorithm, n_steps: int) -> Callable[[], Any]:
    """A function that makes steps of learning with their updates, by a model that has passed its first updates."""
    model.learn(70)
    return lambda: model.learn(n_steps, reset_num_timesteps=False)


def _products(input_dim: int) -> Callable[[], Any]:
    """A function that computes only the matrix products of a forward and a backward pass, which every update needs."""
    network = make_network(input_dim)
    weights = [layer.weight.detach() for layer in network if isinstance(layer, th.nn.Linear)]
    inputs = [th.randn(BATCH, weight.shape[1]) for weight in weights]
    outputs = [th.randn(BATCH, weight.shape[0]) for weight in weights]

    def products() -> None:
        for number, (weight, x, y) in enumerate(zip(weights, inputs, outputs, strict=True)):
            x @ weight.T
            y.T @ x
            if number:  # the first layer's inputs need no gradient
                y @ weight

    return products
