"""``JobRecCareer-v0``: single and vector, wrapped and bare, what ends an episode, and what its arguments may be."""

import copy
import inspect
import json
import pickle
import re
import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from test_vector import MODES, assert_same, play_together

from jobrec_gym import (
    CareerDynamics,
    CosineReward,
    FeedbackReward,
    HybridReward,
    JobRecCareerEnv,
    JobRecCareerVectorEnv,
    JobRecVectorEnv,
    RuleSimulator,
    StaticDynamics,
    VectorCosineReward,
    VectorFeedbackReward,
    VectorHybridReward,
)
from jobrec_gym.career import EPISODE_STEPS
from jobrec_gym.dynamics import BoundCareerDynamics
from jobrec_gym.env import JobRecEnv
from jobrec_gym.loaders.assembly import Record, assemble_market
from jobrec_gym.market import MarketError
from jobrec_gym.simulators.base import Feedback

SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 5}
VARIANTS = [
    {},
    {"observation": "ids"},
    {"pair_features": ("hard_coverage", "seniority")},
    {"repeats": False},
    {"resample": "episode", "mask_in_observation": True},
    {"hidden": ("patience",)},
    {"hidden": ("experience", "patience"), "show_steps_left": True},
    {"show_steps_left": 7, "observation": "ids"},
    {"dynamics": StaticDynamics()},
    {"dynamics": {"type": "static"}, "pair_features": "all", "show_steps_left": True},
    {"dynamics": CareerDynamics("own", patience=2, ignored=2)},
    {"levels": "ignore", "start": "own"},
]
HALF = {"steps": 1, "start": 0.5, "end": 0.5}
WRAPPERS = {
    "bare": None,
    "cosine": (CosineReward, VectorCosineReward),
    "hybrid": (
        lambda env: HybridReward(env, None, HALF),
        lambda env: VectorHybridReward(env, None, HALF),
    ),
    "hybrid that ends": (
        lambda env: HybridReward(env, None, HALF, terminate_on=("apply", "save")),
        lambda env: VectorHybridReward(env, None, HALF, terminate_on=("apply", "save")),
    ),
}


class Uncertain:
    """Answers by the rules, but every third question fails; draws nothing."""

    draws = False

    def __repr__(self):  # the name of a test, which every process of xdist must find
        return "Uncertain()"

    def bind(self, market):
        self._rules = RuleSimulator(seed=2).bind(market)
        return self

    def feedback(self, applicant_ids, job_ids, interaction_keys=None, levels=None):
        said = self._rules.feedback(applicant_ids, job_ids, levels=levels)
        lost = (applicant_ids + job_ids) % 3 == 0
        return Feedback.of(
            np.where(lost, "", said.decision),
            np.where(lost, 0.0, said.reward),
            status=np.where(lost, "timeout", "ok"),
            reason=np.where(lost, "it took too long", ""),
        )


class Forgiving(JobRecCareerEnv):
    """Checkers know no masks and play any action: the next allowed one stands in for a masked one."""

    def step(self, action):
        mask = self.action_masks()
        return super().step((np.roll(mask, -int(action)).argmax() + action) % len(mask) if mask.any() else action)


def make_checked(**kwargs):
    kind = JobRecCareerEnv if kwargs.get("repeats", True) else Forgiving
    return kind(**{**SMALL, **kwargs})


def pair(n, mode, kind="bare", **kwargs):
    """The native vector environment, and Gymnasium's loop over single ones."""
    native = gym.make_vec("JobRecCareer-v0", n, autoreset_mode=mode, **SMALL, **kwargs)
    n_steps = native.unwrapped.max_episode_steps
    kwargs.pop("max_episode_steps", None)
    wrapper = WRAPPERS[kind]

    def single():
        env = gym.make("JobRecCareer-v0", max_episode_steps=n_steps, **SMALL, **kwargs)
        return env if wrapper is None else wrapper[0](env)

    loop = gym.vector.SyncVectorEnv([single] * n, autoreset_mode=mode)
    return (native if wrapper is None else wrapper[1](native)), loop


class Passing(Uncertain):
    """Takes ``levels`` and whatever else there is, and passes all of it on."""

    def feedback(self, *args, **kwargs):
        return self._rules.feedback(*args, **kwargs)


def test_a_simulator_may_take_levels_among_other_keywords():
    envs = [JobRecCareerEnv(**SMALL, simulator=simulator) for simulator in (Passing(), RuleSimulator(seed=2))]
    for env in envs:
        env.reset(seed=1)
    for action in (0, 3, 2, 4, 1):
        left, right = (env.step(action) for env in envs)
        assert left[1] == right[1] and left[4]["feedback/decision"] == right[4]["feedback/decision"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda said: Feedback.of(said.decision, said.reward[:, None]), r"must be an array \(n,\)"),
        (lambda said: Feedback.of([*said.decision, "apply"], [*said.reward, 1.0]), "got 4 answers to 3"),
        (lambda said: said.reward, "must return a Feedback"),
    ],
)
def test_answers_of_a_simulator_of_ones_own_are_checked(answer, message):
    class Wrong(Uncertain):
        def feedback(self, applicant_ids, job_ids, interaction_keys=None, levels=None):
            return answer(self._rules.feedback(applicant_ids, job_ids, levels=levels))

    envs = gym.make_vec("JobRecCareer-v0", 3, **SMALL, simulator=Wrong())
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        envs.step(np.zeros(3, int))


@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
def test_gymnasiums_checker_is_content(kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make_checked(**kwargs), skip_render_check=True)


@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
def test_stable_baselines3s_checker_is_content(kwargs):
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="needs the extra 'algo'")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # It warns of any 2-D Box, whatever the reader of the observation is.
        warnings.filterwarnings("ignore", message="Your observation (candidates|pairs) has an unconventional shape")
        checker.check_env(make_checked(**kwargs), skip_render_check=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kwargs", [*VARIANTS, {"simulator": Uncertain()}], ids=str)
def test_native_and_loop_are_equal_step_for_step(mode, kwargs):
    play_together(*pair(4, mode, max_episode_steps=7, **kwargs), n_steps=12, seed=3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["cosine", "hybrid", "hybrid that ends"])
@pytest.mark.parametrize(
    "kwargs",
    [{"start": "own"}, {"repeats": False, "resample": "episode", "observation": "ids"}, {"simulator": Uncertain()}],
    ids=str,
)
def test_wrapped_native_and_loop_are_equal_step_for_step(mode, kind, kwargs):
    play_together(*pair(4, mode, kind, max_episode_steps=6, **kwargs), n_steps=12, seed=1)


def test_the_example_of_the_docstring_runs():
    (example,) = re.findall(r"^```python\n(.*?)^```", inspect.getdoc(JobRecCareerEnv), re.MULTILINE | re.DOTALL)
    named = {}
    exec(compile(example, "JobRecCareerEnv.__doc__", "exec"), named)
    assert isinstance(named["env"].unwrapped, JobRecCareerEnv)
    assert named["env"].unwrapped.dynamics.dynamics.start == "own"


def test_forty_steps_are_registered():
    assert EPISODE_STEPS == gym.spec("JobRecCareer-v0").max_episode_steps == 40
    assert gym.make_vec("JobRecCareer-v0", 2, **SMALL).unwrapped.max_episode_steps == EPISODE_STEPS
    assert isinstance(gym.make_vec("JobRecCareer-v0", 2, **SMALL), JobRecCareerVectorEnv)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_drawn_ahead_is_what_is_shown(monkeypatch, mode):
    ahead = JobRecCareerVectorEnv(3, 11, mode, **SMALL)
    monkeypatch.setattr("jobrec_gym.episodes._PREPARED_IDS", 0)
    later = JobRecCareerVectorEnv(3, 11, mode, **SMALL)
    assert ahead._upcoming._steps_ahead is not None and later._upcoming._steps_ahead is None
    assert_same(ahead.reset(seed=2), later.reset(seed=2))
    assert ahead._noise is not None and later._noise is None
    rng = np.random.default_rng(0)
    for number in range(250):  # more episodes than one block of numbers
        actions = rng.integers(5, size=3)
        left, right = ahead.step(actions), later.step(actions)
        assert_same(left, right)
        done = left[2] | left[3]
        if number % 40 == 39:  # in the middle of what is drawn, one environment begins another sequence
            assert_same(ahead.reset(seed=[None, number, None]), later.reset(seed=[None, number, None]))
        elif number % 40 == 20:
            chosen = {"applicant_id": np.arange(3), "candidate_ids": np.tile(np.arange(5), (3, 1))}
            assert_same(ahead.reset(options=chosen), later.reset(options=chosen))
        elif number % 40 == 30:  # one begins anew while the others are on their way
            alone = {"reset_mask": np.array([True, False, False])}
            assert_same(*(envs.reset(options=alone) for envs in (ahead, later)))
        if mode is AutoresetMode.DISABLED and done.any():
            assert_same(*(envs.reset(options={"reset_mask": done.copy()}) for envs in (ahead, later)))
        if number % 13 == 12:
            for one in (ahead, later):
                one.set_state(one.get_state())


@pytest.mark.parametrize("n", [None, 3])
@pytest.mark.parametrize("kwargs", [{}, {"repeats": False, "show_steps_left": True}, {"resample": "episode"}], ids=str)
def test_a_state_continues_to_the_bit(n, kwargs):
    if n is None:
        env, other = (JobRecCareerEnv(**SMALL, **kwargs) for _ in range(2))
    else:
        env, other = (JobRecCareerVectorEnv(n, **SMALL, **kwargs) for _ in range(2))
    env.reset(seed=5)
    other.reset(seed=8)

    def walk(envs, n_steps):
        seen = []
        for _ in range(n_steps):
            seen.append(envs.step(envs.action_masks().argmax(axis=-1)))
            if n is None and seen[-1][2]:
                seen[-1] = (*seen[-1], *envs.reset())
        return tuple(seen)

    walk(env, 4)
    state = env.get_state()
    if n is None:
        state = json.loads(json.dumps(state))
    left = walk(env, 30)
    other.set_state(state)
    assert_same(left, walk(other, 30))


@pytest.mark.parametrize("n", [None, 2])
@pytest.mark.parametrize("saved_earlier", [False, True])
def test_a_state_of_other_dynamics_is_refused_and_changes_nothing(n, saved_earlier):
    def made(dynamics):
        make = JobRecCareerEnv if n is None else partial(JobRecCareerVectorEnv, n)
        env = make(**SMALL, dynamics=dynamics)
        env.reset(seed=5)
        env.step(env.action_masks().argmax(axis=-1))
        return env

    careers, static, short = made(None), made({"type": "static"}), made(CareerDynamics(patience=2))
    for source, target, message in (
        (careers, static, r"with the numbers \(\), got .*make the environment with the `dynamics` of the saved one"),
        (static, careers, r"with the numbers \('level', 'experience', 'patience'\), got "),
        (careers, short, r"of equal dynamics, but .* are \[1, \d, [56]\], which have no `progress` in \[0, 1\] here"),
    ):
        state, before = source.get_state(), target.get_state()
        if saved_earlier:
            del state["state_names"]
        with pytest.raises(ValueError, match=message):
            target.set_state(state)
        assert_same((target.get_state(),), (before,))


@pytest.mark.parametrize("n", [None, 2])
def test_a_state_without_numbers_and_one_whose_names_are_a_list_are_taken(n):
    class Listed(BoundCareerDynamics):
        names = ["level", "experience", "patience"]  # noqa: RUF012  (as a user may write it)

    class Careers(CareerDynamics):
        def bind(self, market):
            return Listed(market, self)

    for dynamics in ({"type": "static"}, Careers()):
        env = (JobRecCareerEnv if n is None else partial(JobRecCareerVectorEnv, n))(**SMALL, dynamics=dynamics)
        env.reset(seed=5)
        state = env.get_state()
        env.set_state(state)
        assert_same((env.get_state(),), (state,))


def test_a_state_of_dynamics_with_other_names_is_refused():
    class Others(BoundCareerDynamics):
        names = ("level", "experience", "trust")

    class Trusted(CareerDynamics):
        def bind(self, market):
            return Others(market, self)

    env, other = JobRecCareerEnv(**SMALL), JobRecCareerEnv(**SMALL, dynamics=Trusted())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"numbers \('level', 'experience', 'trust'\), got .*'patience'\)"):
        other.set_state(env.get_state())


def test_a_restored_episode_shows_what_it_showed():
    env = JobRecCareerEnv(**SMALL, render_mode="ansi", pair_features=("seniority",))
    env.reset(seed=5)
    for _ in range(3):
        obs = env.step(0)[0]
    other = JobRecCareerEnv(**SMALL, render_mode="ansi", pair_features=("seniority",))
    other.set_state(env.get_state())
    assert_same(other._observe(), obs)
    assert other.render().splitlines()[3] == env.render().splitlines()[3]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kwargs", [{"resample": "step"}, {"repeats": False}], ids=str)
def test_static_dynamics_give_the_episodes_of_jobrec_v0_and_the_rewards_of_feedback(mode, kwargs):
    kwargs = {"resample": "step", **kwargs, **SMALL, "pair_features": ("seniority",)}
    still = JobRecCareerVectorEnv(3, 6, mode, dynamics={"type": "static"}, **kwargs)
    paid = VectorFeedbackReward(JobRecVectorEnv(3, 6, mode, **kwargs), RuleSimulator(seed=0, noise=0.5))
    assert still.single_observation_space == paid.single_observation_space
    assert_same(still.reset(seed=4), paid.reset(seed=4))
    for _ in range(15):
        masks = paid.unwrapped.action_masks()
        actions = np.where(masks.any(axis=1), masks.argmax(axis=1), 0)
        left, right = still.step(actions), paid.step(actions)
        for infos in (left[4], right[4], *(each[4].get("final_info", {}) for each in (left, right))):
            for key in [key for key in infos if key.lstrip("_").startswith(("episode_sum", "reward/pay"))]:
                del infos[key]
        assert_same(left, right)
        if mode is AutoresetMode.DISABLED and (ended := left[2] | left[3]).any():
            assert_same(*(envs.reset(options={"reset_mask": ended.copy()}) for envs in (still, paid)))


def test_a_leaving_applicant_is_terminated_and_the_horizon_is_truncated():
    impatient = gym.make("JobRecCareer-v0", **SMALL, dynamics=CareerDynamics(patience=1, pleased=0), simulator=NoWay())
    impatient.reset(seed=0)
    _, reward, terminated, truncated, info = impatient.step(0)
    assert (terminated, truncated, info["progress/patience"]) == (True, False, 0)
    assert reward == pytest.approx(-0.1 * 0.5)
    with_patience = gym.make("JobRecCareer-v0", **SMALL, dynamics=CareerDynamics(ignored=0), simulator=NoWay())
    with_patience.reset(seed=0)
    ends = [with_patience.step(0)[2:4] for _ in range(EPISODE_STEPS)]
    assert ends == [(False, False)] * (EPISODE_STEPS - 1) + [(False, True)]
    envs = JobRecCareerVectorEnv(2, **SMALL, dynamics=CareerDynamics(patience=3), simulator=NoWay())
    envs.reset(seed=0)
    assert [envs.step(np.zeros(2, int))[2].tolist() for _ in range(4)] == [[False] * 2] * 2 + [[True] * 2, [False] * 2]
    assert envs.get_state()["progress"].tolist() == [[1, 0, 3]] * 2


@pytest.mark.parametrize(("is_free", "asked"), [(False, [3, 3]), (True, [3, 3, 3])])
def test_rows_that_start_anew_are_asked_in_vain_only_where_that_costs_nothing(is_free, asked):
    class Counted(NoWay):
        def __init__(self):
            self.n, self.is_free = [], is_free

        def feedback(self, applicant_ids, job_ids, interaction_keys=None, levels=None):
            assert len(job_ids), "nobody is asked about"
            self.n.append(len(job_ids))
            return super().feedback(applicant_ids, job_ids)

    simulator = Counted()
    envs = JobRecCareerVectorEnv(3, **SMALL, dynamics=CareerDynamics(patience=1), simulator=simulator)
    envs.reset(seed=0)
    steps = [envs.step(np.zeros(3, int)) for _ in range(3)]
    assert simulator.n == asked
    assert steps[1][1].tolist() == [0.0] * 3, "they begin, and are paid nothing"
    assert "feedback/decision" not in steps[1][4] and steps[2][4]["feedback/decision"].tolist() == ["ignore"] * 3


class NoWay:
    """Ignores everything, whatever the level."""

    draws = False

    def bind(self, market):
        return self

    def feedback(self, applicant_ids, job_ids, interaction_keys=None, levels=None):
        n = len(job_ids)
        return Feedback.of(["ignore"] * n, np.full(n, -0.1))

    def to_spec(self):
        return {"type": f"{__name__}:NoWay"}


def test_a_failed_answer_moves_nobody_and_its_transition_is_not_valid():
    env = JobRecCareerEnv(**SMALL, simulator=Uncertain(), candidate_sampler="all", split="all", job_split="all")
    env.reset(seed=0)
    lost = next(job for job in range(60) if (env.step(0)[4]["applicant_id"] + job) % 3 == 0)
    _, before = env.reset(seed=0)
    _, reward, terminated, _, info = env.step(lost)
    assert (reward, terminated, info["transition_valid"]) == (0.0, False, False)
    assert (info["feedback/status"], info["feedback/decision"]) == ("timeout", "")
    assert [before[f"progress/{name}"] for name in env.dynamics.names] == [1, 0, 6]
    assert [info[f"progress/{name}"] for name in env.dynamics.names] == [1, 0, 6]
    assert not CosineReward(env).step(lost)[4]["transition_valid"]


def test_the_reward_is_the_answers_worth_times_the_pay_of_the_lower_level():
    env = JobRecCareerEnv(**SMALL, start="own", simulator=RuleSimulator(seed=1, noise=0.5, reach=0.0))
    worth = {"apply": 1.0, "save": 0.5, "click": 0.0, "ignore": -0.1}
    pay = [0.5, 1.0, 2.5, 5.0, 10.0]
    seen = set()
    for seed in range(12):
        _, before = env.reset(seed=seed)
        for _ in range(6):
            _, reward, terminated, _, info = env.step(0)
            lower = min(before["progress/level"], int(env.dynamics.job_levels[info["job_id"]]))
            assert info["reward/pay"] == pay[lower - 1]
            assert reward == info["reward/feedback"] == worth[info["feedback/decision"]] * pay[lower - 1]
            seen |= {lower, info["feedback/decision"]}
            before = info
            if terminated:
                break
    assert seen >= {1, 2, 3, 4, "ignore", "click", "save", "apply"}


def test_the_answer_is_drawn_from_episode_and_step_as_a_feedback_wrapper_draws_it():
    truth = RuleSimulator(seed=0, noise=0.5)
    env = JobRecCareerEnv(**SMALL)
    bound = truth.bind(env.market)
    _, before = env.reset(seed=9)
    for _ in range(8):
        _, _, terminated, _, info = env.step(2)
        made = env.recommendations
        levels = np.array([before["progress/level"]])
        answer = bound.feedback(made.applicant_ids, made.job_ids, made.interaction_keys, levels)
        assert answer.decision[0] == info["feedback/decision"]
        before = info
        if terminated:
            break


@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
def test_pair_features_of_what_is_shown_equal_the_observed_pairs(kwargs):
    envs = JobRecCareerVectorEnv(3, 9, **{**SMALL, "pair_features": ("soft_coverage",), "pair_noise": 0.1, **kwargs})
    obs, infos = envs.reset(seed=2)
    for _ in range(9):
        progress = obs["progress"][:, None] if "progress" in obs else None
        asked = envs.pair_features(infos["applicant_id"][:, None], infos["candidate_ids"], progress)
        assert_same(asked, obs["pairs"])
        obs, _, _, _, infos = envs.step(envs.action_masks().argmax(axis=1))


def test_pair_features_without_progress_are_those_of_who_begins():
    env = JobRecCareerEnv(**SMALL, start="own", pair_features=("seniority",))
    assert env.pair_feature_names == ("levels_above", "job_level", "seniority")
    obs, info = env.reset(seed=0)
    assert_same(env.pair_features(np.array(info["applicant_id"]), info["candidate_ids"]), obs["pairs"])
    sample = env.observation_sample
    assert sample in gym.vector.utils.batch_space(env.observation_space, len(sample["applicant"]))
    begun = [env.reset(seed=seed)[0]["progress"].tolist() for seed in range(30)]
    assert all(row in sample["progress"].tolist() for row in begun)
    imagined = env.pair_features(np.array([[0]]), np.arange(60), np.array([[[1.0, 0.0, 0.5]]]))
    np.testing.assert_allclose(imagined[0, :, 0], (env.dynamics.job_levels - 5) / 4)
    assert (imagined[0, :, 0] <= 0).all() and env.observation_space["pairs"].low.min(axis=0).tolist() == [-1, -1, 0]
    with pytest.raises(ValueError, match=r"`progress` must be numbers \(..., 3\)"):
        env.pair_features(np.array([0]), np.array([1]), np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"leading axes that broadcast with the ids, \(2,\), got \(3, 3\)"):
        env.pair_features(np.array([0, 1]), np.array([1, 2]), np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"`job_ids` must be rows of the market, in \[0, 60\), got 60"):
        env.pair_features(np.array([0]), np.array([60]))


def test_what_is_observed_and_told_of_an_applicants_progress():
    env = JobRecCareerEnv(**SMALL, show_steps_left=10)
    assert env.progress_names == ("level", "experience", "patience", "steps_left")
    obs, info = env.reset(seed=0)
    assert obs["progress"].tolist() == [0.0, 0.0, 1.0, 1.0]
    for step in range(1, 6):
        obs, _, _, _, info = env.step(0)
        level, experience, patience = (info[f"progress/{name}"] for name in ("level", "experience", "patience"))
        expected = [(level - 1) / 4, experience / 3, patience / 6, 1 - step / 10]
        np.testing.assert_allclose(obs["progress"], expected, atol=1e-6)
    for flag, names in ((np.True_, env.progress_names), (np.False_, env.progress_names[:3])):
        assert JobRecCareerEnv(**SMALL, show_steps_left=flag).progress_names == names
    hidden = JobRecCareerEnv(**SMALL, hidden=("patience",))
    assert hidden.observation_space["progress"].shape == (2,)
    assert hidden.progress_names == ("level", "experience")
    assert hidden.reset(seed=0)[1]["progress/patience"] == 6, "told, not observed"


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"dynamics": CareerDynamics("own", experience=2), "simulator": RuleSimulator(seed=3, reach=0.2)},
        {"dynamics": {"type": "career", "patience": 4}, "simulator": {"type": "rules", "noise": 0.1}},
        {"hidden": ["patience"], "show_steps_left": 12, "levels": "ignore"},
        {"dynamics": StaticDynamics()},
    ],
    ids=str,
)
def test_a_spec_makes_the_environment_again(kwargs):
    env = gym.make("JobRecCareer-v0", **SMALL, **kwargs)
    envs = gym.make_vec("JobRecCareer-v0", 2, **SMALL, **kwargs)

    def played(one, actions):
        return (one.reset(seed=3), *(one.step(actions) for _ in range(3)))

    first, first_of_many = played(env, 1), played(envs, np.array([1, 1]))
    for spec in (env.spec, EnvSpec.from_json(env.spec.to_json())):
        assert_same(first, played(gym.make(spec), 1))
    for spec in (envs.spec, EnvSpec.from_json(envs.spec.to_json())):
        assert_same(first_of_many, played(gym.make_vec(spec, num_envs=2), np.array([1, 1])))


@pytest.mark.parametrize("how", [pickle.dumps, copy.deepcopy])
def test_an_environment_pickles_and_copies_where_it_stands(how):
    for env, action in ((JobRecCareerEnv(**SMALL), 0), (JobRecCareerVectorEnv(2, **SMALL), np.zeros(2, int))):
        env.reset(seed=1)
        env.step(action)
        other = pickle.loads(how(env)) if how is pickle.dumps else how(env)
        for _ in range(10):
            assert_same(env.step(action), other.step(action))
        if how is pickle.dumps:
            assert len(how(env)) < 600_000, "tables stay behind"


def test_reset_options_choose_who_begins_and_what_is_shown_first():
    env = JobRecCareerEnv(**SMALL, start="own")
    senior = int(env.market.applicants.seniority.argmax())
    obs, info = env.reset(seed=0, options={"applicant_id": senior, "candidate_ids": [5, 4, 3, 2, 1]})
    assert info["progress/level"] == env.market.applicants.seniority[senior]
    np.testing.assert_allclose(obs["pairs"][:, 1], (env.dynamics.job_levels[[5, 4, 3, 2, 1]] - 1) / 4)


def test_text_and_picture_show_how_the_applicant_stands():
    env = JobRecCareerEnv(**SMALL, render_mode="ansi")
    env.reset(seed=0)
    assert "  now: level 1 of 5 (entry), experience 0 of 3, patience 6 of 6, pay 0.5" in env.render()
    info = env.step(0)[4]
    text = env.render()
    assert f"experience {info['progress/experience']} of 3, patience {info['progress/patience']} of 6" in text
    assert f"pay {info['reward/pay']:g}" in text.replace("pay 0.500", "pay 0.5")
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    still = JobRecEnv(**SMALL, resample="step", render_mode="rgb_array")
    moving = JobRecCareerEnv(**SMALL, render_mode="rgb_array")
    pictures = []
    for one in (still, moving):
        one.reset(seed=0)
        pictures.append(one.render())
    assert pictures[0].shape == pictures[1].shape and not np.array_equal(*pictures)


# Markets and levels.


def market_of_levels(applicants, jobs, name="levels"):
    people = [
        Record(f"p{n}", hard=("SQL", "Python")[: 1 + n % 2], seniority=level) for n, level in enumerate(applicants)
    ]
    offers = [Record(f"j{n}", "Job", ("SQL", f"skill {n}"), seniority=level) for n, level in enumerate(jobs)]
    return assemble_market(name, people, offers, encoder="hashing", test_fraction=0.0)


def test_unknown_levels_count_as_three_and_a_market_without_any_is_refused():
    market = market_of_levels([0, 5, 1], [0, 1, 4, 0])
    env = JobRecCareerEnv(market, num_candidates=4, candidate_sampler="all", start="own")
    assert env.dynamics.job_levels.tolist() == [3, 1, 4, 3]
    assert env.dynamics.start(np.arange(3))[:, 0].tolist() == [3, 5, 1]
    without = market_of_levels([1, 2], [0, 0])
    with pytest.raises(MarketError, match=r"market 'levels' has no job whose level is known.*`seniority`.*JobRec-v0"):
        JobRecCareerEnv(without, num_candidates=2)
    unknown = market_of_levels([0, 0], [1, 2])
    JobRecCareerEnv(unknown, num_candidates=2)
    with pytest.raises(MarketError, match="has no applicant whose level is known.*begin by `start='entry'`"):
        JobRecCareerEnv(unknown, num_candidates=2, start="own")


class KnowsNoLevels:
    def bind(self, market):
        return self

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        return Feedback.of(["click"] * len(job_ids), np.zeros(len(job_ids)))


def test_a_simulator_that_knows_no_levels_is_refused_unless_they_are_ignored():
    with pytest.raises(ValueError, match=r'`simulator` must take `levels`.*KnowsNoLevels.*`levels="ignore"`'):
        JobRecCareerEnv(**SMALL, simulator=KnowsNoLevels())
    env = JobRecCareerEnv(**SMALL, simulator=KnowsNoLevels(), levels="ignore")
    env.reset(seed=0)
    assert env.step(0)[4]["feedback/decision"] == "click"
    JobRecCareerEnv(**SMALL, simulator=KnowsNoLevels(), dynamics=StaticDynamics()).reset(seed=0)


def test_ignored_levels_are_not_told():
    told = JobRecCareerEnv(**SMALL, split="all")
    untold = JobRecCareerEnv(**SMALL, split="all", levels="ignore")
    decisions = [[], []]
    for seed in range(30):
        for env, seen in zip((told, untold), decisions, strict=True):
            env.reset(seed=seed)
            info = env.step(0)[4]
            seen.append(info["feedback/decision"])
        made = untold.recommendations
        answer = untold.simulator.feedback(made.applicant_ids, made.job_ids, made.interaction_keys)
        assert answer.decision[0] == decisions[1][-1]
    assert decisions[0] != decisions[1]


# Refusals.


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden": ("patiense",)}, r"`hidden` must be names of .*got 'patiense'. Did you mean 'patience'\?"),
        ({"hidden": "patience"}, r"`hidden` must be a sequence of names, e.g. \['patience'\], got 'patience'"),
        ({"hidden": ("level",)}, "`hidden` must not name 'level': the entry `pairs` shows it"),
        ({"levels": "told"}, r"`levels` must be one of \('ask', 'ignore'\), got 'told'"),
        ({"show_steps_left": 0}, "`show_steps_left` must be at least 1 or a bool, a whole number, got 0"),
        ({"show_steps_left": 2.5}, "`show_steps_left` must be at least 1 or a bool, a whole number, got 2.5"),
        ({"start": "junior"}, r"`start` must be one of \('entry', 'own'\), got 'junior'"),
        ({"start": "own", "dynamics": StaticDynamics()}, "`start` and `dynamics` must not both be given"),
        ({"dynamics": "career"}, r"`dynamics` must have `bind\(market\)`.*got 'career'"),
        (
            {"dynamics": {"type": "carer"}},
            r"`dynamics\['type'\]` must be one of .*got 'carer'. Did you mean 'career'\?",
        ),
        ({"dynamics": {"type": "career", "patiense": 3}}, "has no 'patiense'. Did you mean 'patience'"),
        ({"dynamics": {"type": "career", "zeal": 3}}, r"cannot be made of \['zeal'\]"),
        ({"simulator": {"type": "rulez"}}, r"`simulator\['type'\]` must be one of"),
        ({"simulator": 3}, r"`simulator` must have `bind\(market\)`"),
    ],
    ids=str,
)
def test_misuse_is_named(kwargs, message):
    for make in (JobRecCareerEnv, lambda **options: JobRecCareerVectorEnv(2, **options)):
        with pytest.raises(ValueError, match=message):
            make(**SMALL, **kwargs)


def test_a_wrapper_with_a_simulator_of_its_own_is_refused():
    env = gym.make("JobRecCareer-v0", **SMALL)
    envs = gym.make_vec("JobRecCareer-v0", 2, **SMALL)
    for wrapper, one in ((FeedbackReward, env), (VectorFeedbackReward, envs)):
        with pytest.raises(ValueError, match=r"asks its applicants itself.*`simulator=`.*HybridReward\(env, None, sch"):
            wrapper(one, RuleSimulator(seed=0))
    for wrapper, one in ((HybridReward, env), (VectorHybridReward, envs)):
        with pytest.raises(ValueError, match="give `simulator=None` to mix the cosine with its reward"):
            wrapper(one, RuleSimulator(seed=0), HALF)
    with pytest.raises(ValueError, match="`simulator` must be given for .*JobRec-v0.*, which pays the cosine itself"):
        HybridReward(gym.make("JobRec-v0", **SMALL), None, HALF)


def test_a_wrapper_around_it_pays_what_it_says_and_keeps_the_environments_own_answer():
    paid = {}
    for name, wrap in (
        ("bare", lambda env: env),
        ("cosine", CosineReward),
        ("half", lambda env: HybridReward(env, None, HALF)),
    ):
        env = wrap(gym.make("JobRecCareer-v0", **SMALL))
        env.reset(seed=6)
        paid[name] = [env.step(1) for _ in range(3)]
    for bare, cosine, half in zip(*paid.values(), strict=True):
        assert bare[4]["progress/patience"] == cosine[4]["progress/patience"] == half[4]["progress/patience"]
        assert cosine[1] == cosine[4]["reward/cosine"] == bare[4]["reward/cosine"]
        assert half[1] == 0.5 * cosine[1] + 0.5 * bare[1]
        assert cosine[4]["reward/feedback"] == half[4]["reward/feedback"] == bare[1]
        assert cosine[4]["reward_components"] == {"cosine": cosine[1], "feedback": bare[1]}


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("mode", MODES)
def test_an_answer_ends_the_episode_at_every_weight_and_is_summed(weight, mode):
    terms = None, {"steps": 1, "start": weight, "end": weight}, "unit", ("click", "save", "apply")
    env = HybridReward(gym.make("JobRecCareer-v0", **SMALL), *terms)
    envs = VectorHybridReward(gym.make_vec("JobRecCareer-v0", 2, autoreset_mode=mode, **SMALL), *terms)
    env.reset(seed=0), envs.reset(seed=0)
    earned, ended = 0.0, False
    while not ended:
        *_, ended, _, info = env.step(3)
        *_, terminated, _, infos = envs.step(np.array([3, 0]))
        assert ended == terminated[0] == (info["feedback/decision"] != "ignore")
        earned += info["reward/feedback"]
    told = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
    assert info["episode_sum/feedback"] == told["episode_sum/feedback"][0] == pytest.approx(earned)


def test_the_sum_of_feedback_is_whole_while_the_weight_changes_and_beside_a_cosine_reward():
    for wrap in (CosineReward, lambda env: HybridReward(env, None, {"kind": "two_phase", "switch_at": 5})):
        env = wrap(gym.make("JobRecCareer-v0", max_episode_steps=10, **SMALL))
        env.reset(seed=0)
        infos = [env.step(3)[4] for _ in range(10)]
        assert infos[-1]["episode_sum/feedback"] == pytest.approx(sum(info["reward/feedback"] for info in infos))


def test_a_wrapped_spec_round_trips_without_a_simulator():
    env = HybridReward(gym.make("JobRecCareer-v0", **SMALL), None, HALF)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    for one in (env, again):
        one.reset(seed=2)
    assert_same(env.step(0), again.step(0))
