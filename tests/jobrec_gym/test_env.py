import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import jobrec_gym
from jobrec_gym.candidates import make_sampler
from jobrec_gym.env import JobRecEnv
from jobrec_gym.market import LabourMarket, MarketError, load_market

SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 7}
VARIANTS = [
    {},
    {"observation": "ids"},
    {"mask_in_observation": True},
    {"repeats": False, "observation": "ids"},
    {"repeats": False, "resample": "step"},
    {"candidate_sampler": "retrieval", "split": "test"},
    {"candidate_sampler": "mixed", "job_split": "test"},
    {"candidate_sampler": "all", "split": "all", "job_split": "all", "resample": "step"},
    {"job_fields": ["title", "experience"]},
]


def make(**kwargs):
    return gym.make("JobRec-v0", **{**SMALL, **kwargs})


def play(env, actions, seed=0):
    """Everything that an episode of the given actions shows."""
    seen = [env.reset(seed=seed)]
    for action in actions:
        seen.append(env.step(action))
        if seen[-1][2] or seen[-1][3]:
            break
    return seen


def assert_same(left, right):
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, tuple | list):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert type(left) is type(right)
        assert np.array_equal(left, right)


class ForgivingEnv(JobRecEnv):
    """Checkers know no masks and play any action: the next allowed one stands in for a masked one."""

    def step(self, action):
        mask = self.action_masks()
        return super().step((np.roll(mask, -int(action)).argmax() + action) % len(mask) if mask.any() else action)


def make_checked(**kwargs):
    kind = JobRecEnv if kwargs.get("repeats", True) else ForgivingEnv
    return kind(**{**SMALL, **kwargs})


@pytest.mark.parametrize("kwargs", [{}, *VARIANTS], ids=str)
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
        warnings.filterwarnings("ignore", message="Your observation candidates has an unconventional shape")
        checker.check_env(make_checked(**kwargs), skip_render_check=True)


def test_render_modes_pass_the_checker():
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    for mode in ("ansi", "rgb_array"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # The checker makes the environment again for each mode, which needs a registered spec without wrappers.
            check_env(make(render_mode=mode).unwrapped)


def test_the_environment_can_be_made_without_importing_first():
    assert gym.make("jobrec_gym:JobRec-v0").observation_space["candidates"].shape == (20, 768)


def test_registering_twice_is_no_error():
    import importlib

    importlib.reload(jobrec_gym)


def test_equal_seeds_give_equal_episodes():
    for kwargs in VARIANTS:
        actions = range(7) if not kwargs.get("resample") else [0, 1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first, second = (play(make(**kwargs), actions, seed=0) for _ in range(2))
            assert_same(first, second)
    assert (
        play(make(), [], seed=0)[0][1]["candidate_ids"].tolist()
        != play(make(), [], seed=1)[0][1]["candidate_ids"].tolist()
    )


def test_nothing_draws_from_the_global_generators():
    import random

    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    play(make(resample="step"), range(5))
    assert random.getstate() == before[0]
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(after[1], before[1][1]) and after[2:] == before[1][2:]


def test_the_first_episode_is_what_it_was():
    """Part of ``JobRec-v0``: a change here asks for ``-v1``."""
    env = gym.make("JobRec-v0", observation="ids")
    obs, info = env.reset(seed=0)
    assert info["applicant_id"] == 776
    assert obs["candidates"][:4].tolist() == [1344, 1187, 474, 259]


def test_the_applicant_stays_and_the_candidates_follow_resample():
    for resample, changes in (("episode", False), ("step", True)):
        (obs, info), *steps = play(make(resample=resample), range(5))
        for next_obs, *_, next_info in steps:
            assert next_info["applicant_id"] == info["applicant_id"]
            assert (next_obs["applicant"] == obs["applicant"]).all()
            assert (next_info["candidate_ids"].tolist() != info["candidate_ids"].tolist()) == changes


def test_features_are_the_rows_that_ids_name():
    features, ids = (play(make(observation=mode), [2, 3]) for mode in ("features", "ids"))
    table = make().get_wrapper_attr("action_features")
    for (left, *_), (right, *_, info) in zip(features, ids, strict=True):
        assert (left["candidates"] == table[right["candidates"]]).all()
        assert (right["candidates"] == info["candidate_ids"]).all()


@pytest.mark.parametrize("job_fields", [(), ("title", "experience")])
def test_it_tells_what_a_jobs_vector_has_behind_the_skills(job_fields):
    single = gym.make("JobRec-v0", **SMALL, job_fields=list(job_fields))
    vector = gym.make_vec("JobRec-v0", 2, **SMALL, job_fields=list(job_fields))
    assert single.get_wrapper_attr("job_fields") == vector.unwrapped.job_fields == job_fields


def test_an_observation_belongs_to_the_caller(market):
    env = make(market=market)
    obs, info = env.reset(seed=0)
    before = market.fingerprint()
    for entry in (*obs.values(), info["candidate_ids"], info["action_mask"]):
        entry[...] = 0
    assert market.fingerprint() == before
    assert env.step(1)[4]["candidate_ids"].any()


def test_the_reward_is_the_scaled_cosine_of_the_recommended_job(market):
    env = make(market=market)
    obs, info = env.reset(seed=3)
    _, reward, _, _, after = env.step(4)
    cosine = float(obs["applicant"] @ obs["candidates"][4])
    assert reward == pytest.approx((1 + cosine) / 2, abs=1e-6)
    assert after["job_id"] == info["candidate_ids"][4]
    assert after["reward/cosine"] == reward == after["reward_components"]["cosine"]
    assert after["transition_valid"] is True


def test_episodes_end():
    steps = play(make(), [0] * 50)[1:]
    assert [step[3] for step in steps] == [False] * 9 + [True]
    assert not any(step[2] for step in steps)


def test_without_repeats_a_job_is_recommended_once_and_the_episode_terminates():
    env = make(repeats=False)
    env.reset(seed=0)
    mask = env.get_wrapper_attr("action_masks")()
    assert mask.all()
    for action in range(7):
        obs, _, terminated, _, info = env.step(action)
        assert (obs["action_mask"] == info["action_mask"]).all()
        assert info["action_mask"].sum() == 6 - action
        assert terminated == (action == 6)
    env.reset(seed=0)
    env.step(2)
    with pytest.raises(ValueError, match="`action` 2 is masked: job .* was recommended before"):
        env.step(2)


def test_without_repeats_a_job_shown_again_is_masked():
    env = make(repeats=False, resample="step", candidate_sampler="all", job_split="all")
    env.reset(seed=0)
    masks = [env.step(action)[4]["action_mask"] for action in (5, 9)]
    assert np.flatnonzero(masks[1] == 0).tolist() == [5, 9]


def test_the_four_quadrants_show_their_rows(market):
    for split in ("train", "test"):
        for job_split in ("train", "test"):
            env = make(market=market, split=split, job_split=job_split)
            for seed in range(10):
                _, info = env.reset(seed=seed)
                assert market.applicants.held_out[info["applicant_id"]] == (split == "test")
                assert (market.jobs.held_out[info["candidate_ids"]] == (job_split == "test")).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_candidates": 0}, r"`num_candidates` must be in \[1, n_jobs=\d+\], got 0"),
        ({"num_candidates": 61}, r"`num_candidates` must be in \[1, n_jobs=\d+\], got 61"),
        ({"num_candidates": 2.5}, "`num_candidates` must be an integer, got 2.5"),
        ({"split": "tset"}, "`split` must be one of .*'tset'"),
        ({"job_split": "x"}, "`job_split` must be one of .*'x'"),
        ({"resample": "never"}, "`resample` must be one of"),
        ({"observation": "pixels"}, "`observation` must be one of"),
        ({"candidate_sampler": "unifrom"}, 'Did you mean "uniform"'),
        ({"market": "defalt"}, 'did you mean "default"'),
        ({"job_fields": ["pay"]}, "`job_fields` must be distinct entries"),
        ({"job_fields": "title"}, "`job_fields` must be a sequence of fields"),
        ({"repeats": "no"}, "`repeats` must be True or False, got 'no'"),
        ({"mask_in_observation": 1}, "`mask_in_observation` must be True or False, got 1"),
        ({"market": 5}, "`market` must be a name, a path, a dictionary or a LabourMarket, got 5"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises((ValueError, MarketError), match=message):
        make(**kwargs)


def test_an_empty_split_says_so():
    lone = {"source": "default", "n_jobs": 60, "n_applicants": 1}
    empty = "train" if load_market(lone).applicants.held_out[0] else "test"
    with pytest.raises(MarketError, match=f"no applicants in `split='{empty}'`; use another split"):
        make(market=lone, split=empty)


def test_an_impossible_action_is_refused():
    env = make().unwrapped
    env.reset(seed=0)
    for action in (-1, 7):
        with pytest.raises(ValueError, match=r"`action` must be in \[0, 7\), got"):
            env.step(action)
    for action in (2.7, np.array([1, 2]), "one", None):
        with pytest.raises(ValueError, match=r"`action` must be one integer in \[0, 7\), got"):
            env.step(action)


def test_nothing_works_before_the_first_reset():
    env = make().unwrapped
    for call in (lambda: env.step(0), env.action_masks, env.get_state, lambda: env.recommendations):
        with pytest.raises(RuntimeError, match="call `reset` first"):
            call()


def test_a_spec_round_trips_through_json():
    env = make(observation="ids", candidate_sampler="mixed")
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert_same(play(env, [1, 2]), play(again, [1, 2]))


def test_a_spec_equals_itself_read_back():
    env = make(num_candidates=np.int64(5), market={"source": "default", "n_jobs": 60, "n_applicants": 40})
    again = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    assert again == env.spec and env.spec == again
    assert env.spec != make(observation="ids").spec
    assert gym.make("JobRec-v0").spec == gym.spec("JobRec-v0")


def test_what_cannot_be_written_down_is_named():
    class Mine:
        def bind(self, market, job_ids, num_candidates):
            return make_sampler("uniform").bind(market, job_ids, num_candidates)

    with pytest.raises(ValueError, match="`candidate_sampler` cannot be written down as JSON"):
        make(candidate_sampler=Mine()).spec.to_json()


def test_a_pickled_environment_holds_no_table(market, tmp_path):
    env = make(market=market.save(tmp_path / "market"), candidate_sampler="retrieval").unwrapped
    env.reset(seed=0)
    env.spec = None
    assert len(pickle.dumps(env)) < market.jobs.vectors.nbytes / 2  # bounds of the spaces, no table
    assert pickle.loads(pickle.dumps(env)).step(1)[1] == env.step(1)[1]


def test_a_market_with_a_spec_is_written_down_by_it(market, tmp_path):
    assert make(market=market).spec.kwargs["market"] == market.to_spec()
    saved = market.save(tmp_path / "market")
    assert make(market=saved).spec.kwargs["market"] == str(tmp_path / "market")
    assert make(market=tmp_path / "market").spec.kwargs["market"] == str(tmp_path / "market")


def test_a_market_made_in_memory_is_not_copied_and_must_be_saved_for_json(market):
    memory = LabourMarket("mine", market.applicants, market.jobs, market.vocabulary)
    env = make(market=memory)
    assert env.spec.kwargs["market"] is memory
    assert copy.deepcopy(env.spec).kwargs["market"] is memory
    assert gym.make(env.spec).get_wrapper_attr("market") is memory
    with pytest.raises(ValueError, match="save it first"):
        env.spec.to_json()


def test_a_state_continues_to_the_bit():
    for kwargs in ({}, {"repeats": False, "resample": "step"}):
        env, other = make(**kwargs).unwrapped, make(**kwargs).unwrapped
        env.reset(seed=5)
        env.step(3)
        state = env.get_state()
        left = [env.step(int(np.flatnonzero(env.action_masks())[0])) for _ in range(3)] + [env.reset()]
        other.reset(seed=99)
        other.set_state(state)
        right = [other.step(int(np.flatnonzero(other.action_masks())[0])) for _ in range(3)] + [other.reset()]
        assert_same(left, right)


def test_flattening_works():
    env = gym.wrappers.FlattenObservation(make())
    obs, _ = env.reset(seed=0)
    assert obs.shape == (768 + 7 * 768,) and obs.dtype == np.float32


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: JobRecEnv(num_candidats=5),
            r"JobRecEnv\(\) got an unexpected keyword argument 'num_candidats': did you mean 'num_candidates'\?",
        ),
        (lambda: gym.make("JobRec-v0", num_candidats=5), "did you mean 'num_candidates'"),
        (lambda: gym.make("JobRecCareer-v0", strat="own"), "did you mean 'start'"),
        (lambda: gym.make_vec("JobRec-v0", num_envs=2, job_splt="all"), "did you mean 'job_split'"),
        (lambda: gym.make_vec("JobRecCareer-v0", num_envs=2, hiden=()), "did you mean 'hidden'"),
        (lambda: load_market("default", n_jbs=3), r"load_default\(\) got .* argument 'n_jbs': did you mean 'n_jobs'"),
        (lambda: load_market("csv:jobs.csv", colums={}), "did you mean 'columns'"),
        (lambda: load_market("default", n_jbs=3, zzz=1, yyy=1, xxx=1), r"unexpected keyword argument 'n_jbs'"),
        (lambda: load_market("recorded", n_jobs=3), r"load_recorded\(\) got .* argument 'n_jobs': it has none\."),
    ],
)
def test_a_misspelt_keyword_is_refused_with_a_suggestion(call, said):
    with pytest.raises(TypeError, match=said):
        call()


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
@pytest.mark.parametrize("env_id", ["JobRec-v0", "JobRecCareer-v0"])
def test_an_unknown_keyword_is_refused_in_the_words_that_other_libraries_search_for(make, env_id):
    # TorchRL's `GymEnv` passes `frameskip` to every environment, and takes it back if it finds these words.
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        make(env_id, frameskip=1)
