import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobrec_gym.candidates import make_sampler
from jobrec_gym.schedules import AnnealSchedule
from jobrec_gym.simulators.base import Feedback
from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.vector import JobRecVectorEnv
from jobrec_gym.wrappers import (
    CosineReward,
    FeedbackReward,
    HybridReward,
    VectorCosineReward,
    VectorFeedbackReward,
    VectorHybridReward,
)

SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 5}
MODES = list(AutoresetMode)


def assert_same(left, right, where=""):
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), f"{where}: {left.keys() ^ right.keys()}"
        for key in left:
            assert_same(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, tuple):
        assert len(left) == len(right), where
        for number, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{where}/{number}")
    elif isinstance(left, np.ndarray) and left.dtype == object:
        for a, b in zip(left, right, strict=True):
            assert_same(a, b, where)
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype and left.shape == right.shape, f"{where}: {left.dtype} {right.dtype}"
        assert np.array_equal(left, right, equal_nan=left.dtype.kind == "f"), where
    else:
        assert left == right, where


def pair(n, mode, wrapper=None, **kwargs):
    """The native vector environment, and Gymnasium's loop over single ones."""
    native = gym.make_vec("JobRec-v0", n, autoreset_mode=mode, **SMALL, **kwargs)
    kwargs.pop("max_episode_steps", None)

    def single():
        env = gym.make("JobRec-v0", max_episode_steps=native.unwrapped.max_episode_steps, **SMALL, **kwargs)
        return env if wrapper is None else wrapper[0](env)

    loop = gym.vector.SyncVectorEnv([single] * n, autoreset_mode=mode)
    return (native if wrapper is None else wrapper[1](native)), loop


def play_together(native, loop, n_steps, seed):
    rng = np.random.default_rng(seed)
    assert_same(native.reset(seed=seed), loop.reset(seed=seed), "reset")
    masks = native.unwrapped.action_masks()
    for number in range(n_steps):
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        left, right = native.step(actions.copy()), loop.step(actions.copy())
        assert_same(left, right, f"step {number}")
        done = left[2] | left[3]
        if native.metadata["autoreset_mode"] is AutoresetMode.DISABLED and done.any():
            both = (env.reset(options={"reset_mask": done.copy()}) for env in (native, loop))
            assert_same(*both, f"reset after {number}")
        masks = native.unwrapped.action_masks()
        masks[~masks.any(axis=1)] = True  # ended rows take no action


def test_make_vec_uses_the_native_environment():
    envs = gym.make_vec("JobRec-v0", num_envs=3)
    assert isinstance(envs, JobRecVectorEnv)
    assert envs.max_episode_steps == 10
    assert envs.observation_space["candidates"].shape == (3, 20, 768)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    mode=st.sampled_from(MODES),
    n=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    max_episode_steps=st.integers(1, 7),
    kwargs=st.fixed_dictionaries(
        {
            "observation": st.sampled_from(["features", "ids"]),
            "resample": st.sampled_from(["episode", "step"]),
            "repeats": st.booleans(),
            "mask_in_observation": st.booleans(),
            "pair_features": st.sampled_from([(), ("hard_coverage", "seniority")]),
            "candidate_sampler": st.sampled_from(["uniform", "retrieval", "mixed", "all"]),
            "split": st.sampled_from(["train", "test", "all"]),
            "job_split": st.sampled_from(["train", "test", "all"]),
        }
    ),
)
def test_native_and_loop_are_equal_step_for_step(mode, n, seed, max_episode_steps, kwargs):
    play_together(*pair(n, mode, max_episode_steps=max_episode_steps, **kwargs), n_steps=12, seed=seed)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("terminate_on", [(), ("click", "save", "apply")])
@pytest.mark.parametrize("kwargs", [{}, {"repeats": False, "resample": "step", "observation": "ids"}], ids=str)
def test_wrapped_native_and_loop_are_equal_step_for_step(mode, terminate_on, kwargs):
    simulator = RuleSimulator(seed=1, noise=0.5)
    wrapper = (
        lambda env: FeedbackReward(env, simulator, terminate_on),
        lambda env: VectorFeedbackReward(env, simulator, terminate_on),
    )
    play_together(*pair(4, mode, wrapper, max_episode_steps=5, **kwargs), n_steps=15, seed=0)


@pytest.mark.parametrize("mode", MODES)
def test_cosine_twins_are_equal_step_for_step(mode):
    wrapper = (lambda env: CosineReward(env, "raw"), lambda env: VectorCosineReward(env, "raw"))
    play_together(*pair(70, mode, wrapper, max_episode_steps=2, observation="ids"), n_steps=6, seed=0)


def test_seeds_are_those_of_a_loop():
    native, loop = pair(3, AutoresetMode.NEXT_STEP)
    for seed in (5, [7, 1, 2], np.array([4, 5, 6])):
        native.reset(seed=seed)
        loop.reset(seed=seed if isinstance(seed, int) else [int(entry) for entry in seed])
        assert native.np_random_seed == loop.np_random_seed
    with pytest.raises(ValueError, match="`seed` must not be negative"):
        native.reset(seed=[0, -1, 3])
    assert native.np_random_seed == (4, 5, 6)


@pytest.mark.parametrize("mode", MODES)
def test_more_episodes_than_one_block_of_numbers(mode):
    play_together(*pair(2, mode, max_episode_steps=1, observation="ids"), n_steps=140, seed=4)


def test_ending_from_outside_ends_each_row_once():
    for mode in MODES:
        envs = VectorFeedbackReward(
            gym.make_vec("JobRec-v0", 6, autoreset_mode=mode, max_episode_steps=3, **SMALL),
            RuleSimulator(seed=1),
            terminate_on=("ignore", "click", "save", "apply"),
        )
        envs.reset(seed=0)
        _, rewards, terminated, truncated, _ = envs.step(np.zeros(6, int))
        assert terminated.all() and not truncated.any()
        if mode is AutoresetMode.DISABLED:
            with pytest.raises(RuntimeError, match=r"environments \[0, 1, 2, 3, 4, 5\] have ended"):
                envs.step(np.zeros(6, int))
            envs.reset(options={"reset_mask": terminated})
        _, rewards, terminated, _, _ = envs.step(np.zeros(6, int))
        assert terminated.all() == (mode is not AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.NEXT_STEP:
            assert (rewards == 0).all()


def test_no_feedback_is_asked_for_rows_that_start_anew():
    asked = []

    class Counting:
        def bind(self, market):
            bound = RuleSimulator().bind(market)

            class Bound:
                def feedback(self, applicant_ids, job_ids, interaction_keys=None):
                    asked.append(len(applicant_ids))
                    return bound.feedback(applicant_ids, job_ids, interaction_keys)

            return Bound()

    envs = VectorFeedbackReward(gym.make_vec("JobRec-v0", 3, max_episode_steps=2, **SMALL), Counting())
    envs.reset(seed=0)
    for _ in range(6):
        envs.step(np.zeros(3, int))
    assert asked == [3, 3, 3, 3], "and not called where all rows start anew"


def test_the_mode_is_taken_as_a_string_and_round_trips():
    for text, mode in (("SameStep", AutoresetMode.SAME_STEP), ("DISABLED", AutoresetMode.DISABLED)):
        envs = gym.make_vec("JobRec-v0", 2, autoreset_mode=text, **SMALL)
        assert envs.metadata["autoreset_mode"] is mode
        assert JobRecVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        spec = gym.envs.registration.EnvSpec.from_json(envs.spec.to_json())
        again = gym.make_vec(spec, num_envs=2)
        assert_same(envs.reset(seed=1), again.reset(seed=1))
    with pytest.raises(ValueError, match="`autoreset_mode` must be an AutoresetMode or one of"):
        JobRecVectorEnv(2, autoreset_mode="sometimes")


def test_a_state_continues_to_the_bit():
    for kwargs in ({}, {"repeats": False, "resample": "step"}):
        env, other = (gym.make_vec("JobRec-v0", 3, max_episode_steps=3, **SMALL, **kwargs).unwrapped for _ in range(2))
        env.reset(seed=5)

        def walk(envs, n_steps):
            seen = []
            for _ in range(n_steps):
                masks = envs.action_masks()
                seen.append(envs.step(np.where(masks.any(1), masks.argmax(1), 0)))
            return tuple(seen)

        walk(env, 7)
        state = env.get_state()
        left = walk(env, 300)
        other.set_state(state)
        assert_same(left, walk(other, 300))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, 5]), r"must be in \[0, 5\), got 5 in environment 1"),
        (np.array([0.0, 1.0]), r"integers of shape \(2,\), got float64"),
        (np.array([0]), r"integers of shape \(2,\), got int64 of shape \(1,\)"),
    ],
)
def test_impossible_actions_are_refused(action, message):
    envs = gym.make_vec("JobRec-v0", 2, **SMALL)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        envs.step(action)


@pytest.mark.parametrize("env_id", ["JobRec-v0", "JobRecCareer-v0"])
def test_what_single_environments_offer_is_called_as_in_a_loop(env_id):
    options = {**SMALL, "pair_features": ("seniority",)}
    native = gym.make_vec(env_id, 3, repeats=False, **options)
    loop = gym.make_vec(env_id, 3, vectorization_mode="sync", repeats=False, **options)
    for envs in (native, loop):
        envs.reset(seed=5)
        envs.step(np.array([0, 1, 2]))
    names = ["action_masks", "action_features", "job_fields", "market", "np_random_seed", "observation_sample"]
    names += ["pair_feature_names", "prior_sources"]
    names += ["progress_names"] if env_id == "JobRecCareer-v0" else []

    for name in names:
        assert_same(native.call(name), loop.call(name), name)
        assert_same(native.get_attr(name), loop.get_attr(name), name)
    people, jobs = np.array([[3], [5], [7]]), np.arange(8)
    assert_same(native.call("pair_features", people, job_ids=jobs), loop.call("pair_features", people, job_ids=jobs))


def test_reward_wrappers_pass_calls_on_and_answer_what_they_have_themselves():
    def single():
        return HybridReward(gym.make("JobRec-v0", **SMALL), RuleSimulator(seed=0), AnnealSchedule(steps=8), num_envs=2)

    native = gym.make_vec("JobRec-v0", 2, **SMALL)
    native = VectorHybridReward(
        gym.wrappers.vector.RecordEpisodeStatistics(native), RuleSimulator(seed=0), AnnealSchedule(steps=8)
    )
    loop = gym.vector.SyncVectorEnv([single] * 2)
    for envs in (native, loop):
        envs.reset(seed=0)
        assert envs.call("set_total_steps", 2) == (None, None)
        assert envs.get_attr("cosine_weight") == (0.75, 0.75)
    assert_same(native.call("action_masks"), loop.call("action_masks"))


def test_a_call_of_what_is_not_offered_says_what_is():
    envs = VectorFeedbackReward(gym.make_vec("JobRec-v0", 2, **SMALL), RuleSimulator(seed=0))
    for name in ("action_mask", "cosine_weight"):
        with pytest.raises(AttributeError, match=rf"`name` must be one of action_features, .*, got '{name}'"):
            envs.get_attr(name)
    with pytest.raises(AttributeError, match="Did you mean 'action_masks'"):
        envs.call("action_mask")


def test_misuse_is_named():
    envs = gym.make_vec("JobRec-v0", 2, repeats=False, **SMALL)
    for call in (lambda: envs.step(np.zeros(2, int)), envs.unwrapped.action_masks, envs.unwrapped.get_state):
        with pytest.raises(RuntimeError, match="call `reset` first"):
            call()
    with pytest.raises(ValueError, match="must mark every environment at the first reset"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0)
    envs.step(np.array([1, 2]))
    with pytest.raises(ValueError, match="2 is masked in environment 1: job"):
        envs.step(np.array([0, 2]))
    with pytest.raises(ValueError, match="marks at least one"):
        envs.reset(options={"reset_mask": np.zeros(2, bool)})
    with pytest.raises(ValueError, match="`seed` must be one number or 2 of them, got 3"):
        envs.reset(seed=[1, 2, 3])
    for kwargs, message in (
        ({"num_envs": 0}, "`num_envs` must be at least 1"),
        ({"max_episode_steps": 0}, "`max_episode_steps` must be at least 1 or None"),
        ({"max_episode_steps": 2.5}, "`max_episode_steps` must be at least 1 or None, a whole number, got 2.5"),
        ({"num_envs": True}, "`num_envs` must be at least 1, a whole number, got True"),
        ({"num_envs": "x"}, "`num_envs` must be at least 1, a whole number, got 'x'"),
        ({"render_mode": "ansi"}, "render a single one"),
    ):
        with pytest.raises(ValueError, match=message):
            JobRecVectorEnv(**kwargs)
    with pytest.raises(ValueError, match="must be a JobRecVectorEnv"):
        VectorCosineReward(gym.make_vec("CartPole-v1", 2))


def test_a_state_that_was_put_back_has_recommended_nothing_yet():
    env, other = (JobRecVectorEnv(3, **SMALL) for _ in range(2))
    env.reset(seed=5)
    env.step(np.zeros(3, int))
    other.set_state(env.get_state())
    assert not other.recommendations.made.any()
    env.set_state(env.get_state())
    assert not env.recommendations.made.any()


def test_a_state_of_another_number_of_environments_changes_nothing():
    env, other = JobRecVectorEnv(3, **SMALL), JobRecVectorEnv(4, **SMALL)
    for envs in (env, other):
        envs.reset(seed=5)
    before = env.get_state()
    with pytest.raises(ValueError, match="that of 3 environments, got that of 4"):
        env.set_state(other.get_state())
    assert before["numbers"]["generators"] == env.get_state()["numbers"]["generators"]


def test_what_the_caller_writes_reaches_no_environment():
    for kwargs in ({}, {"observation": "ids"}, {"resample": "step"}, {"repeats": False}):
        envs, twin = (JobRecVectorEnv(2, 3, AutoresetMode.SAME_STEP, **SMALL, **kwargs) for _ in range(2))
        given = [*envs.reset(seed=1)]
        twin.reset(seed=1)
        for _ in range(7):
            for part in given:
                for values in part.values() if isinstance(part, dict) else [part]:
                    if isinstance(values, np.ndarray) and values.dtype != object:
                        values[...] = 1
            masks = twin.action_masks()
            given = list(envs.step(masks.argmax(axis=1)))
            assert_same(tuple(given), twin.step(masks.argmax(axis=1)))


@pytest.mark.parametrize("name", ["vector._PAID_AHEAD", "episodes._PREPARED_IDS"])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_computed_ahead_is_the_same(monkeypatch, name, mode):
    ahead = JobRecVectorEnv(3, 2, mode, **SMALL)
    begun = ahead.reset(seed=2)
    monkeypatch.setattr(f"jobrec_gym.{name}", 0)
    later = JobRecVectorEnv(3, 2, mode, **SMALL)
    assert_same(begun, later.reset(seed=2))
    if name == "vector._PAID_AHEAD":
        assert ahead._cosines is not None and later._cosines is None
    else:
        assert (ahead._upcoming._ahead, later._upcoming._ahead) == (8, 1)
    rng = np.random.default_rng(0)
    for number in range(150):
        actions = rng.integers(5, size=3)
        left, right = ahead.step(actions), later.step(actions)
        assert_same(left, right)
        done = left[2] | left[3]
        if number % 40 == 39:  # in the middle of what is prepared, one environment begins another sequence
            assert_same(ahead.reset(seed=[None, number, None]), later.reset(seed=[None, number, None]))
        elif mode is AutoresetMode.DISABLED and done.any():
            done[number % 3] |= True
            assert_same(*(envs.reset(options={"reset_mask": done.copy()}) for envs in (ahead, later)))


def test_a_costly_sampler_is_asked_for_episodes_that_begin_only():
    asked = []

    class Counting:
        num_candidates = 5

        def bind(self, market, job_ids, num_candidates):
            self.job_ids = job_ids[:5]
            return self

        def sample(self, applicant_ids, keys):
            asked.append(len(keys))
            return np.tile(self.job_ids, (len(keys), 1))

    envs = JobRecVectorEnv(3, 2, AutoresetMode.SAME_STEP, **{**SMALL, "candidate_sampler": Counting()})
    asked.clear()  # a sampler is tried once when it is given
    envs.reset(seed=0)
    for _ in range(4):
        envs.step(np.zeros(3, int))
    assert asked == [3, 3, 3]
    Counting.is_cheap = True
    envs = JobRecVectorEnv(3, 2, AutoresetMode.SAME_STEP, **{**SMALL, "candidate_sampler": Counting()})
    asked.clear()
    envs.reset(seed=0)
    assert asked == [24]


def test_vectors_too_many_to_keep_are_gathered_and_the_same(monkeypatch):
    kept, gathered = JobRecVectorEnv(4, 3, **SMALL), JobRecVectorEnv(4, 3, **SMALL)
    begun = kept.reset(seed=2)
    monkeypatch.setattr("jobrec_gym.vector._KEPT_NUMBERS", 0)
    assert_same(begun, gathered.reset(seed=2))
    for _ in range(8):
        assert_same(kept.step(np.ones(4, int)), gathered.step(np.ones(4, int)))
    assert gathered._candidate_vectors is None and kept._candidate_vectors is not None


class Cut(BaseException):
    """Stands for whatever ends a step early: a budget that is reached, or Ctrl-C while a model is waited for."""


class Line:
    """A line to models, which is cut after some answers."""

    answers_left = math.inf

    def use(self):
        if not self.answers_left:
            raise Cut
        self.answers_left -= 1


class Model:
    """Likes jobs by their row, and does not answer about every third job. A simulator, or a source of a prior."""

    draws = False

    def __init__(self, line):
        self.line = line

    def bind(self, market):
        return self

    def feedback(self, applicant_ids, job_ids, interaction_keys=None, levels=None):
        self.line.use()
        decision, status = np.where(job_ids % 5, "ignore", "save"), np.where(job_ids % 3, "ok", "timeout")
        return Feedback.of(decision, job_ids / 100, status=status)


class Sampler:
    num_candidates = 5

    def __init__(self, line, is_cheap):
        self.line, self.is_cheap = line, is_cheap

    def bind(self, market, job_ids, num_candidates):
        self.bound = make_sampler("uniform").bind(market, job_ids, 5)
        return self

    def sample(self, applicant_ids, keys):
        self.line.use()
        return self.bound.sample(applicant_ids, keys)


def state_of(env):
    try:
        return env.unwrapped.get_state(), env.get_state()
    except RuntimeError as error:  # before the first reset
        return str(error)


def insisted(env, line, call):
    """The result of a call whose n-th try ends at the n-th question, until there are no more questions."""
    before = state_of(env)
    for line.answers_left in itertools.count():
        try:
            result = call()
        except Cut:
            assert_same(state_of(env), before, "after the exception")
        else:
            line.answers_left = math.inf
            return result


def play_in_spite_of_failures(make, is_vector):
    line = Line()
    env, twin = make(line), make(Line())
    assert_same(insisted(env, line, lambda: env.reset(seed=4)), twin.reset(seed=4))
    for number in range(12):
        masks = twin.unwrapped.action_masks()
        actions = masks.argmax(axis=-1) if is_vector else int(masks.argmax())
        left, right = insisted(env, line, lambda actions=actions: env.step(actions)), twin.step(actions)
        assert_same(left, right, f"step {number}")
        assert_same(state_of(env), state_of(twin))
        ended = np.logical_or(left[2], left[3])
        if not is_vector and ended:
            assert_same(insisted(env, line, env.reset), twin.reset())
        elif is_vector and ((env.autoreset_mode is AutoresetMode.DISABLED and ended.any()) or number == 7):
            mask = ended | (np.arange(len(ended)) == 1)
            some = [{"options": {"reset_mask": mask}, "seed": [None, 8, 9]} for _ in range(2)]
            assert_same(insisted(env, line, lambda some=some: env.reset(**some[0])), twin.reset(**some[1]))


RAISING = [
    {"resample": "step", "repeats": False},
    {"resample": "step", "observation": "ids"},
    {"resample": "episode", "repeats": False},
]


@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.parametrize("kwargs", RAISING, ids=str)
@pytest.mark.parametrize("is_cheap", [True, False])
def test_a_step_or_reset_that_raises_changes_nothing_and_can_be_made_again(mode, kwargs, is_cheap):
    def make(line):
        options = {
            "market": SMALL["market"],
            "candidate_sampler": Sampler(line, is_cheap),
            "prior_sources": {"one": Model(line), "other": Model(line)},
            "max_episode_steps": 4,
            **kwargs,
        }
        terms = Model(line), AnnealSchedule(steps=30), "unit", ("save",)
        if mode is None:
            return HybridReward(gym.make("JobRec-v0", disable_env_checker=True, **options), *terms)
        return VectorHybridReward(gym.make_vec("JobRec-v0", 3, autoreset_mode=mode, **options), *terms)

    play_in_spite_of_failures(make, is_vector=mode is not None)


@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.parametrize("is_cheap", [True, False])
def test_a_step_of_a_career_that_raises_changes_nothing_and_can_be_made_again(mode, is_cheap):
    def make(line):
        options = {"candidate_sampler": Sampler(line, is_cheap), "simulator": Model(line), "max_episode_steps": 4}
        options["market"] = SMALL["market"]
        if mode is None:
            return CosineReward(gym.make("JobRecCareer-v0", disable_env_checker=True, **options))
        return VectorCosineReward(gym.make_vec("JobRecCareer-v0", 3, autoreset_mode=mode, **options))

    play_in_spite_of_failures(make, is_vector=mode is not None)


class Halved(gym.vector.VectorWrapper):
    """Shows half of each applicant's vector; knows nothing of how episodes end."""

    def __init__(self, env):
        super().__init__(env)
        box = gym.spaces.Box(-0.5, 0.5, env.observation_space["applicant"].shape)
        self.observation_space = gym.spaces.Dict({**env.observation_space.spaces, "applicant": box})

    def reset(self, **kwargs):
        obs, infos = self.env.reset(**kwargs)
        return {**obs, "applicant": obs["applicant"] / 2}, infos

    def step(self, actions):
        obs, *rest = self.env.step(actions)
        return {**obs, "applicant": obs["applicant"] / 2}, *rest


@pytest.mark.parametrize("mode", MODES)
def test_wrappers_beneath_see_how_a_decision_ends_an_episode(mode):
    over, beneath = (gym.make_vec("JobRec-v0", 3, autoreset_mode=mode, **SMALL) for _ in range(2))
    over = Halved(VectorFeedbackReward(over, RuleSimulator(seed=1), ("ignore", "click")))
    beneath = VectorFeedbackReward(Halved(beneath), RuleSimulator(seed=1), ("ignore", "click"))
    assert_same(over.reset(seed=0), beneath.reset(seed=0))
    for _ in range(4):
        left, right = (envs.step(np.zeros(3, int)) for envs in (over, beneath))
        assert_same(left, right)
        if mode is AutoresetMode.DISABLED:
            assert_same(*(envs.reset(options={"reset_mask": np.ones(3, bool)}) for envs in (over, beneath)))
    assert left[2].any() or mode is AutoresetMode.NEXT_STEP
