"""What reward wrappers put into `info`, key by key, and that it belongs to the caller."""

import copy
import inspect
import pickle

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import wrappers
from jobrec_gym.market import load_market
from jobrec_gym.rewards import CosineRewardModel, FeedbackRewardModel, HybridRewardModel
from jobrec_gym.schedules import AnnealSchedule
from jobrec_gym.simulators.base import CertainFeedback, Feedback
from jobrec_gym.simulators.recorded import RecordedSimulator
from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.vector import JobRecVectorEnv

SCHEDULE = {"steps": 100, "start": 0.75}
ARGUMENTS = {
    "cosine": ("CosineReward", ()),
    "raw": ("CosineReward", ("raw",)),
    "matched": ("CosineReward", ("matched",)),
    "planted": ("FeedbackReward", (RuleSimulator(seed=0),)),
    "noisy": ("FeedbackReward", (RuleSimulator(seed=0, noise=0.5, corruption=0.1),)),
    "recorded": ("FeedbackReward", (RecordedSimulator(),)),
    "hybrid": ("HybridReward", (RuleSimulator(seed=0), SCHEDULE)),
    "hybrid, matched": ("HybridReward", (RuleSimulator(seed=0), SCHEDULE, "matched")),
}
STATE = {"applicant_id": int, "candidate_ids": "int64", "action_mask": "int8"}
STEP = {**STATE, "job_id": int, "reward/cosine": float, "transition_valid": bool, "reward_components": dict}
FEEDBACK = {"reward/feedback": float, "feedback/decision": str, "feedback/status": str, "feedback/reason": str}
HYBRID = {**FEEDBACK, "reward/cosine_weight": float, "reward_weights": dict}
VECTOR_TYPES = {int: "int64", float: "float64", bool: "bool", str: "object"}


def expected(kind):
    more = {"cosine": {}, "raw": {}, "matched": {}}.get(kind, HYBRID if kind.startswith("hybrid") else FEEDBACK)
    return {**STEP, **more}


def components(kind):
    return {"cosine"} if kind in ("cosine", "raw", "matched") else {"cosine", "feedback"}


def options(kind):
    market = load_market("recorded") if kind == "recorded" else load_market("default", n_jobs=60, n_applicants=40)
    return {"market": market, "split": "all", "job_split": "all", "num_candidates": 7}


def single(kind, **kwargs):
    name, arguments = ARGUMENTS[kind]
    env = gym.make("JobRec-v0", disable_env_checker=True, max_episode_steps=4, **options(kind), **kwargs)
    return getattr(wrappers, name)(env, *arguments)


def vector(kind, n=3, mode="NextStep", **kwargs):
    name, arguments = ARGUMENTS[kind]
    return getattr(wrappers, f"Vector{name}")(JobRecVectorEnv(n, 4, mode, **options(kind), **kwargs), *arguments)


def listed(value):
    """Nested arrays of objects as lists, which numpy compares."""
    if isinstance(value, dict):
        return {key: listed(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        return [listed(entry) for entry in value]
    return value


def check_entry(value, of_type):
    if isinstance(of_type, str):
        assert type(value) is np.ndarray
        assert value.dtype == of_type
    else:
        assert type(value) is of_type


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_a_single_info_is_a_plain_dict_of_the_same_keys_and_types(kind):
    env = single(kind)
    assert set(env.reset(seed=0)[1]) == set(STATE)
    for step in range(4):
        *_, truncated, info = env.step(step)
        sums = {f"episode_sum/{name}": float for name in ("cosine", "feedback")} if truncated else {}
        types = {**expected(kind), **sums}
        assert type(info) is dict
        assert set(info) == set(types)
        for key, of_type in types.items():
            check_entry(info[key], of_type)
        assert info["reward_components"] == {name: info[f"reward/{name}"] for name in components(kind)}
        if kind.startswith("hybrid"):
            weight = info["reward/cosine_weight"]
            assert info["reward_weights"] == {"cosine": weight, "feedback": 1 - weight}
    assert truncated
    assert {name for name in ("cosine", "feedback") if not np.isnan(info[f"episode_sum/{name}"])} == components(kind)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("kind", ARGUMENTS)
def test_a_vector_info_is_a_plain_dict_of_the_same_keys_and_types(kind, mode):
    envs = vector(kind, mode=mode)
    envs.reset(seed=0)
    types = {key: VECTOR_TYPES.get(of_type, of_type) for key, of_type in expected(kind).items()}
    for step in range(3):
        infos = envs.step(np.full(3, step))[-1]
        assert type(infos) is dict
        assert set(infos) == {*types, *(f"_{key}" for key in types)}
        for key, of_type in types.items():
            check_entry(infos[key], of_type)
            check_entry(infos[f"_{key}"], "bool")
            assert infos[f"_{key}"].all()
        for key in {"reward_components", "reward_weights"} & set(infos):
            names = components(kind)
            assert set(infos[key]) == {*names, *(f"_{name}" for name in names)}
            for name in names:
                check_entry(infos[key][name], "float64")
                check_entry(infos[key][f"_{name}"], "bool")
    ended = envs.step(np.full(3, 3))[-1]
    ended = ended["final_info"] if mode == "SameStep" else ended
    sums = {key: values for key, values in ended.items() if key.startswith("episode_sum")}
    assert sums.keys() == {"episode_sum/cosine", "episode_sum/feedback"}
    for name in ("cosine", "feedback"):
        assert ended[f"_episode_sum/{name}"].all()
        assert (np.isnan(sums[f"episode_sum/{name}"]) == (name not in components(kind))).all()


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_copies_of_an_info_are_equal_to_it(kind):
    env, envs = single(kind), vector(kind, mode="SameStep")
    for some, action in ((env, 1), (envs, np.ones(3, int))):
        some.reset(seed=1)
        for _ in range(4):
            info = some.step(action)[-1]
        for copied in (dict(info), copy.copy(info), copy.deepcopy(info), pickle.loads(pickle.dumps(info))):
            assert type(copied) is dict
            np.testing.assert_equal(listed(copied), listed(info))


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("kind", ARGUMENTS)
def test_what_a_step_returns_belongs_to_the_caller(kind, mode):
    """Whoever scales rewards in place, or wipes an info, changes nothing else: not the info, not the next step."""

    def wipe(value, seen):
        if isinstance(value, dict):
            for entry in value.values():
                wipe(entry, seen)
        elif isinstance(value, np.ndarray):
            assert value.flags.writeable
            assert not any(np.shares_memory(value, other) for other in seen), "an array is in two places"
            seen.append(value)
            value[...] = None if value.dtype == object else 77

    envs, others = vector(kind, mode=mode), vector(kind, mode=mode)
    for some in (envs, others):
        some.reset(seed=2)
    for step in range(13):
        if mode == "Disabled" and step and step % 4 == 0:
            for some in (envs, others):
                some.reset(options={"reset_mask": np.ones(3, bool)})
        results = [some.step(np.full(3, step % 4)) for some in (envs, others)]
        np.testing.assert_equal(listed(results[0]), listed(results[1]))
        paid = results[0][-1].get("reward/cosine")
        if paid is not None and components(kind) == {"cosine"}:
            np.testing.assert_array_equal(results[0][1], paid)
        made, before = (some.unwrapped.recommendations for some in (envs, others))
        wipe({"reward": results[0][1], **results[0][-1]}, [])
        for name in ("applicant_ids", "job_ids", "interaction_keys", "made", "cosine"):
            np.testing.assert_array_equal(getattr(made, name), getattr(before, name))


def test_what_a_step_returns_is_not_the_simulators_own():
    worth = np.array([0.25, -0.5])

    class Stubborn(Listener):
        def feedback(self, applicant_ids, job_ids, interaction_keys=None):
            return Feedback.of(["click", "ignore"], worth)

    for wrap in (wrappers.VectorFeedbackReward, lambda *args: wrappers.VectorHybridReward(*args, {"steps": 1})):
        envs = wrap(JobRecVectorEnv(2, **options("planted")), Stubborn())
        envs.reset(seed=0)
        for _ in range(3):
            _, reward, *_, infos = envs.step(np.zeros(2, int))
            infos["reward/feedback"] = infos.get("reward/feedback", reward)
            for values in (reward, infos["reward/feedback"], infos["reward_components"].get("feedback", reward)):
                values *= 2
            assert worth.tolist() == [0.25, -0.5]


@pytest.mark.parametrize("kind", ARGUMENTS)
@pytest.mark.parametrize("observation", ["ids", "features"])
def test_single_and_vector_pay_and_explain_alike(kind, observation):
    envs = vector(kind, 2, observation=observation)
    if kind.startswith("hybrid"):
        envs.freeze(0.3)
    envs.reset(seed=5)
    for row in range(2):
        env = single(kind, observation=observation)
        if kind.startswith("hybrid"):
            env.freeze(0.3)
        env.reset(seed=5 + row)
        envs.reset(seed=5)
        for step in range(4):
            _, reward, *_, info = env.step(step)
            _, rewards, *_, infos = envs.step(np.full(2, step))
            assert rewards[row] == reward
            for key in set(info) - {"reward_components", "reward_weights"}:
                np.testing.assert_array_equal(infos[key][row], info[key])
            for key in {"reward_components", "reward_weights"} & set(info):
                assert {name: infos[key][name][row] for name in components(kind)} == info[key]


@pytest.mark.parametrize("scale", ["unit", "raw", "matched"])
@pytest.mark.parametrize("observation", ["ids", "features"])
def test_a_cosine_that_the_environment_knows_is_the_markets_to_the_bit(scale, observation):
    market = options("cosine")["market"]
    simulator = RuleSimulator(seed=0).bind(market)
    models = [
        CosineRewardModel(market, scale),
        FeedbackRewardModel(simulator, market),
        HybridRewardModel(simulator, market, 0.4, scale),
    ]
    for base, action in (
        (JobRecVectorEnv(9, market=market, observation=observation), np.arange(9)),
        (gym.make("JobRec-v0", market=market, observation=observation).unwrapped, 3),
    ):
        base.reset(seed=0)
        for _ in range(3):
            reward = base.step(action)[1]
            reward *= 2  # a wrapper may do so in place
            made = base.recommendations
            np.testing.assert_array_equal(made.cosine.raw, market.cosine(made.applicant_ids, made.job_ids), strict=True)
            for model in models:
                ids = made.applicant_ids, made.job_ids, made.interaction_keys
                known, asked = model(*ids, made.cosine), model(*ids)
                np.testing.assert_array_equal(known.reward, asked.reward, strict=True)
                np.testing.assert_equal(known.components, asked.components)


class Listener:
    """Notes what it is told and asked."""

    def __init__(self, **attributes):
        self.keys = []
        self.__dict__.update(attributes)

    def bind(self, market):
        return self

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        self.keys.append(interaction_keys)
        return Feedback.of(["click"] * len(job_ids), np.zeros(len(job_ids)))


def test_keys_are_hashed_only_for_a_simulator_that_draws():
    for attributes, hashed in (({}, True), ({"draws": True}, True), ({"draws": False}, False)):
        single_one, many = Listener(**attributes), Listener(**attributes)
        env = wrappers.FeedbackReward(gym.make("JobRec-v0", **options("planted")), single_one)
        envs = wrappers.VectorFeedbackReward(JobRecVectorEnv(2, **options("planted")), many)
        env.reset(seed=4)
        envs.reset(seed=4)
        for _ in range(3):
            env.step(0)
            envs.step(np.zeros(2, int))
        for one, two in zip(single_one.keys, many.keys, strict=True):
            assert (one is not None) is (two is not None) is hashed
            if hashed:
                assert one == two[:1]
        assert env.unwrapped.recommendations.interaction_keys == envs.unwrapped.recommendations.interaction_keys[0]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_simulator_is_told_of_each_episode_that_goes_on(mode):
    told = []
    listener = Listener(prepare=lambda applicants, jobs: told.append((applicants.tolist(), jobs.tolist())))
    envs = wrappers.VectorFeedbackReward(JobRecVectorEnv(3, 4, mode, **options("planted")), listener)
    infos = envs.reset(seed=0)[1]
    for _ in range(2):
        begun = infos["applicant_id"].tolist(), infos["candidate_ids"].tolist()
        for n_told in (0, 1, 1, 1):
            infos = envs.step(np.zeros(3, int))[-1]
            assert told == [begun] * n_told
        told.clear()
        if mode == "NextStep":
            infos = envs.step(np.zeros(3, int))[-1]
        elif mode == "Disabled":
            infos = envs.reset(options={"reset_mask": np.ones(3, bool)})[1]
    many = {"market": load_market("default", n_jobs=70, n_applicants=40), "num_candidates": 65}
    for n_steps, kwargs in ((4, {"resample": "step"}), (4, many), (1, {})):
        envs = wrappers.VectorFeedbackReward(
            JobRecVectorEnv(3, n_steps, mode, **{**options("planted"), **kwargs}), listener
        )
        envs.reset(seed=0)
        for _ in range(4):
            ended = np.logical_or(*envs.step(np.zeros(3, int))[2:4])
            if mode == "Disabled" and ended.any():
                envs.reset(options={"reset_mask": ended})
        assert not told, "what is shown changes with each step, or is much, or no step follows"


def test_a_hybrid_reward_prepares_nothing_while_nobody_is_asked():
    told = []
    listener = Listener(prepare=lambda applicants, jobs: told.append(len(jobs)))
    env = wrappers.HybridReward(gym.make("JobRec-v0", **options("planted")), listener, AnnealSchedule(steps=100))
    for weight, expected_calls in ((1.0, []), (0.5, [1])):
        env.freeze(weight)
        for _ in range(2):  # the weight of the step before decides
            told.clear()
            env.reset(seed=0)
            for _ in range(4):
                env.step(0)
        assert told == expected_calls


def test_certain_answers_are_those_of_a_plain_feedback():
    rewards = np.array([-0.1, 0.0, 0.5, 1.0])
    number = np.array([3, 0, 0, 2, 1])
    probability = np.linspace(0, 1, 5)
    for kwargs in ({}, {"probability": probability, "cached": True}):
        certain = CertainFeedback(number, rewards, **kwargs)
        plain = Feedback.of(
            ["apply", "ignore", "ignore", "save", "click"],
            rewards[number],
            probability=kwargs.get("probability"),
            cached=[True] * 5 if kwargs else None,
        )
        copies = copy.deepcopy(certain), pickle.loads(pickle.dumps(certain))
        assert {type(copied) for copied in copies} == {Feedback}
        for one in (certain, *copies):
            assert len(one) == 5
            for name in (*Feedback.__slots__, "valid"):
                np.testing.assert_array_equal(getattr(one, name), getattr(plain, name), strict=True)
            np.testing.assert_equal(one.details, plain.details)
            assert {values.dtype for values in one.details.values()} == {np.dtype(object)}
    assert len(CertainFeedback(np.zeros(5_000, int), rewards)) == 5_000


@pytest.mark.parametrize("name", ["CosineReward", "FeedbackReward", "LLMReward"])
def test_twins_take_the_same_arguments(name):
    one, many = (inspect.signature(getattr(wrappers, twin)) for twin in (name, f"Vector{name}"))
    assert one == many
    assert next(iter(one.parameters)) == "env"
