"""From an environment to a log and back: what an agent learns is the same to the bit."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'algo'")

from dynaq_algo import DynaQ, LinearBandit
from jobrec_gym import (
    FeedbackReward,
    LoggedSimulator,
    ObservationForm,
    RuleSimulator,
    load_interactions,
    load_market,
    record_interactions,
)

SEED = 5


@pytest.fixture(scope="module")
def market():
    return load_market("default", n_jobs=60, n_applicants=40)


def world(market, simulator, **options):
    options = {"num_candidates": 4, "observation": "ids", "pair_features": "all", **options}
    return FeedbackReward(gym.make("JobRec-v0", market=market, **options), simulator)


class EachInTurn:
    """Recommends each candidate of an episode in turn, so that every pair of it is logged."""

    def __init__(self):
        self.n = 0

    def __call__(self, obs):
        self.n += 1
        return np.eye(4)[[(self.n - 1) % 10 % 4]]


AGENTS = {
    "linear bandit": lambda env: LinearBandit(env, alpha=0.3, seed=SEED),
    "linear bandit, Thompson": lambda env: LinearBandit(env, "thompson", seed=SEED),
    "dynaq": lambda env: DynaQ(
        "CandidatePolicy",
        env,
        learning_starts=8,
        batch_size=8,
        planning_steps=2,
        policy_kwargs={"net_arch": [8]},
        seed=SEED,
        device="cpu",
    ),
    "dynaq_plus": lambda env: DynaQ.plus(env, seed=SEED, device="cpu"),
}


def read_back(log, tmp_path, form):
    if form == "csv":
        log.write_csv(tmp_path / "log.csv")
        return load_interactions(f"csv:{tmp_path / 'log.csv'}", log.market)
    log.save(tmp_path / "log")
    return load_interactions(tmp_path / "log", log.market)


@pytest.mark.parametrize("form", ["csv", "folder"])
@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_that_learns_from_a_logged_simulator_is_the_one_that_learned_from_the_environment(
    market, tmp_path, name, form
):
    env = world(market, RuleSimulator(seed=0))
    log = read_back(record_interactions(env, EachInTurn(), n=60, seed=SEED), tmp_path, form)

    from_environment = AGENTS[name](world(market, RuleSimulator(seed=0))).learn(60)
    from_log = AGENTS[name](world(market, LoggedSimulator(log))).learn(60)

    obs, _ = env.reset(seed=99)
    untaught = AGENTS[name](world(market, RuleSimulator(seed=0)))
    np.testing.assert_array_equal(from_log.q_values(obs), from_environment.q_values(obs))
    assert not np.array_equal(untaught.q_values(obs), from_log.q_values(obs))


@pytest.mark.parametrize("options", [{}, {"observation": "features", "resample": "step"}], ids=str)
@pytest.mark.parametrize("name", ["linear bandit", "dynaq_plus"])
def test_an_agent_that_is_told_a_log_is_the_one_that_was_told_by_the_environment(market, tmp_path, name, options):
    env = world(market, RuleSimulator(seed=0, noise=0.5), **options)
    log = read_back(record_interactions(env, n=60, seed=SEED), tmp_path, "csv")

    told, by_log = AGENTS[name](env), AGENTS[name](env)
    obs, _ = env.reset(seed=SEED)
    for action in log.chosen.tolist():
        next_obs, reward, terminated, truncated, _ = env.step(action)
        told.observe(obs, action, np.float32(reward))
        obs = env.reset()[0] if terminated or truncated else next_obs
    for seen, action, reward in log.answers(ObservationForm.of(env)):
        by_log.observe(seen, action, reward)

    np.testing.assert_array_equal(by_log.q_values(obs), told.q_values(obs))


def test_pretraining_on_a_log_takes_what_it_gives(market):
    env = world(market, RuleSimulator(seed=0))
    log = record_interactions(env, n=60)
    agent = AGENTS["dynaq"](env)
    before = agent.q_values(env.reset(seed=1)[0])

    losses = agent.pretrain(log.to_pretrain(ObservationForm.of(env)), epochs=1)

    assert np.isfinite(losses["loss"])
    assert not np.array_equal(before, agent.q_values(env.reset(seed=1)[0]))
