import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from test_vector import assert_same

from jobrec_gym.env import JobRecEnv
from jobrec_gym.market import LabourMarket, Population, SkillLists, load_market
from jobrec_gym.pair_features import PAIR_FEATURES, PairValues, hard_coverage
from jobrec_gym.recommendations import recommend
from jobrec_gym.simulators.rules import DEFAULT_WEIGHTS, RuleSimulator
from jobrec_gym.vector import JobRecVectorEnv
from jobrec_gym.wrappers import EmbeddingAction

NAMES = ("hard_coverage", "soft_coverage", "seniority")
PARTS = dict(zip(NAMES, ("hard_skills", "soft_skills", "seniority"), strict=True))
SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 5}
ALL_PAIRS = np.arange(40)[:, None], np.arange(60)


def make(**kwargs):
    return gym.make("JobRec-v0", **{**SMALL, "pair_features": NAMES, **kwargs})


def changed(market, side, **tables):
    """The market with other tables on one side."""
    populations = {name: getattr(market, name) for name in ("applicants", "jobs")}
    own = populations[side]
    populations[side] = Population(**{key: tables.get(key, getattr(own, key)) for key in Population.__slots__})
    return LabourMarket("changed", vocabulary=market.vocabulary, **populations)


def with_texts(market, *blocks):
    return LabourMarket("texts", market.applicants, market.jobs, market.vocabulary, text_blocks=blocks)


@pytest.mark.parametrize("blocks", [(), ("hard",), ("hard", "soft")], ids=str)
@pytest.mark.parametrize("size", [{}, {"n_jobs": 60, "n_applicants": 40}], ids=["default", "small"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:On market .* many pairs have the same utility")
def test_what_is_shown_is_what_the_planted_rules_reward(name, size, blocks):
    market = with_texts(load_market("default", **size), *blocks)
    part = PARTS[name]
    rules = RuleSimulator(weights={**dict.fromkeys(DEFAULT_WEIGHTS, 0.0), part: 1.0}).bind(market)
    envs = JobRecVectorEnv(num_envs=30, market=market, pair_features=[name], split="all")
    obs, infos = envs.reset(seed=4)
    applicants, jobs = np.broadcast_arrays(infos["applicant_id"][:, None], infos["candidate_ids"])

    mean, spread = rules._scale[part]
    standardised = (obs["pairs"][..., 0].ravel().astype(np.float64) - mean) / spread
    np.testing.assert_allclose(standardised, rules.utility(applicants.ravel(), jobs.ravel()), rtol=0, atol=1e-6)
    assert len(np.unique(obs["pairs"])) > 3
    # Before they are rounded to float32 they are equal to the bit.
    values = PAIR_FEATURES[name](market, applicants.ravel(), jobs.ravel())
    assert (values.astype(np.float32) == obs["pairs"].ravel()).all()
    assert ((values - mean) / spread == rules.utility(applicants.ravel(), jobs.ravel())).all()


def test_coverage_is_the_share_of_the_jobs_skills(market):
    values = PairValues(market, ["soft_coverage", "hard_coverage"])(*ALL_PAIRS)

    for column, block in enumerate(("soft_skills", "hard_skills")):
        had, asked = getattr(market.applicants, block), getattr(market.jobs, block)
        for applicant, job in ((0, 0), (7, 3), (39, 59)):
            share = np.isin(asked[job], had[applicant]).mean()
            assert values[applicant, job, column] == pytest.approx(share)


def test_a_job_that_asks_for_nothing_is_covered_by_nobody(market):
    skills = [list(market.jobs.hard_skills[job]) for job in range(60)]
    skills[8] = []
    modest = changed(market, "jobs", hard_skills=SkillLists.from_rows(skills))

    assert (hard_coverage(modest, np.arange(40), np.full(40, 8)) == 0).all()


@pytest.mark.parametrize("side", ["applicants", "jobs"])
def test_an_unknown_level_fits_by_half(market, side):
    levels = getattr(market, side).seniority.copy()
    levels[2] = 0
    values = PairValues(changed(market, side, seniority=levels), ["seniority"])(*ALL_PAIRS)[..., 0]

    unknown, known = (values[2], values[3]) if side == "applicants" else (values[:, 2], values[:, 3])
    assert (unknown == 0.5).all()
    assert {0.25, 1.0} <= set(known)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("observation", ["features", "ids"])
@pytest.mark.parametrize("kwargs", [{}, {"resample": "step"}, {"repeats": False}], ids=str)
def test_single_and_vector_see_the_same_to_the_bit(kwargs, observation, mode, noise):
    kwargs = {**kwargs, "observation": observation, "pair_noise": noise, "pair_features": NAMES}
    native = gym.make_vec("JobRec-v0", 3, autoreset_mode=mode, max_episode_steps=2, **SMALL, **kwargs)
    singles = [lambda: gym.make("JobRec-v0", max_episode_steps=2, **SMALL, **kwargs)] * 3
    loop = gym.vector.SyncVectorEnv(singles, autoreset_mode=mode)
    seen = 0

    def compare(left, right):
        nonlocal seen
        (obs, *_, infos), (other, *_, other_infos) = left, right
        np.testing.assert_array_equal(obs["pairs"], other["pairs"], strict=True)
        asked = native.unwrapped.pair_features(infos["applicant_id"][:, None], infos["candidate_ids"])
        np.testing.assert_array_equal(obs["pairs"], asked, strict=True)
        finals = zip(infos.get("final_obs", ()), other_infos.get("final_obs", ()), strict=True)
        for final, other_final in finals:
            if final is not None:
                np.testing.assert_array_equal(final["pairs"], other_final["pairs"], strict=True)
                seen += 1

    compare(native.reset(seed=9), loop.reset(seed=9))
    for number in range(7):
        actions = np.full(3, number % 5)
        left, right = native.step(actions), loop.step(actions)
        if mode is not AutoresetMode.DISABLED or not (left[3]).any():
            compare(left, right)
        else:
            np.testing.assert_array_equal(left[0]["pairs"], right[0]["pairs"], strict=True)
            compare(*(envs.reset(options={"reset_mask": left[3].copy()}) for envs in (native, loop)))
    assert seen == (9 if mode is AutoresetMode.SAME_STEP else 0)


@pytest.mark.parametrize("kwargs", [{}, {"observation": "ids", "resample": "step"}], ids=str)
def test_the_method_answers_as_the_observation_shows(kwargs):
    env = make(pair_noise=0.3, **kwargs)
    obs, info = env.reset(seed=0)
    for action in range(3):
        ask = env.get_wrapper_attr("pair_features")
        asked = ask(info["applicant_id"], info["candidate_ids"])
        np.testing.assert_array_equal(asked, obs["pairs"], strict=True)
        obs, _, _, _, info = env.step(action)


def test_the_method_takes_ids_of_shapes_that_broadcast():
    env = make().unwrapped
    table = env.pair_features(*ALL_PAIRS)

    assert table.shape == (40, 60, 3) and table.dtype == np.float32
    assert (env.pair_features(7, 3) == table[7, 3]).all()
    assert (env.pair_features([7, 9], [3, 4]) == table[[7, 9], [3, 4]]).all()
    assert env.pair_features([], []).shape == (0, 3)


def test_pairs_are_the_same_in_whatever_chunk_they_stand(monkeypatch, market):
    for blocks in ((), ("hard", "soft")):
        values = PairValues(with_texts(market, *blocks), NAMES, 0.2)
        whole = values(*ALL_PAIRS)
        monkeypatch.setattr("jobrec_gym.pair_features._CHUNK", 7)
        np.testing.assert_array_equal(values(*ALL_PAIRS), whole)
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("kwargs", "n", "k"),
    [
        ({"market": "default", "num_candidates": 20}, 1_000, 20),
        ({"market": "default", "num_candidates": 500, "observation": "features"}, 40, 500),
        ({"num_candidates": 1, "repeats": False}, 1_000, 1),
    ],
)
def test_a_sample_of_observations_shows_their_scale_and_plays_nothing(kwargs, n, k):
    env, twin = make(**kwargs), make(**kwargs)
    for one in (env, twin):
        one.reset(seed=3)
    sample = env.unwrapped.observation_sample
    assert sample["pairs"].shape == (n, k, 3)
    space = gym.vector.utils.batch_space(env.observation_space, n)
    assert sample in space
    np.testing.assert_array_equal(env.step(0)[0]["pairs"], twin.step(0)[0]["pairs"])
    assert_same(env.unwrapped.observation_sample, sample)
    envs = gym.make_vec(
        "JobRec-v0",
        num_envs=2,
        vectorization_mode="vector_entry_point",
        **{**SMALL, "pair_features": NAMES, **kwargs},
    )
    assert_same(envs.unwrapped.observation_sample, sample)

    if k > 1:
        rng, market = np.random.default_rng(0), env.unwrapped.market
        rows = (rng.choice(side.rows("train"), 20_000) for side in (market.applicants, market.jobs))
        every = env.unwrapped.pair_features(*rows)
        flat = sample["pairs"].reshape(-1, 3)
        np.testing.assert_allclose(flat.mean(axis=0), every.mean(axis=0), rtol=0.15)
        np.testing.assert_allclose(flat.std(axis=0), every.std(axis=0), rtol=0.15)


def test_the_pairs_of_a_sample_are_those_of_its_applicants_and_candidates():
    env = make(num_candidates=7, observation="ids", split="all", job_split="all")
    sample, market = env.unwrapped.observation_sample, env.unwrapped.market
    people = (sample["applicant"][:, None] == market.applicants.vectors).all(axis=2).argmax(axis=1)
    asked = env.unwrapped.pair_features(people[:, None], sample["candidates"])
    np.testing.assert_array_equal(asked, sample["pairs"])


def test_a_sample_is_of_what_the_sampler_shows_and_has_no_pairs_without_pair_features():
    near, uniform = (
        make(candidate_sampler=name).unwrapped.observation_sample["pairs"] for name in ("retrieval", "uniform")
    )
    assert near[..., 0].mean() > 2 * uniform[..., 0].mean()
    assert set(gym.make("JobRec-v0").unwrapped.observation_sample) == {"applicant", "candidates"}


def test_an_algorithm_finds_the_method_through_sb3():
    DummyVecEnv = pytest.importorskip("stable_baselines3.common.vec_env", reason="needs the extra 'algo'").DummyVecEnv
    env = DummyVecEnv([make])

    ask = env.get_attr("pair_features")[0]
    assert ask(np.array([1, 2]), np.array([3, 4])).shape == (2, 3)
    assert env.get_attr("pair_feature_names") == [NAMES]


def test_noise_blurs_a_pair_the_same_way_each_time_and_stays_in_range(market):
    blurred, again = (PairValues(market, NAMES, 0.3)(*ALL_PAIRS) for _ in range(2))

    np.testing.assert_array_equal(blurred, again)
    assert blurred.min() == 0 and blurred.max() == 1
    assert (blurred != PairValues(market, NAMES)(*ALL_PAIRS)).mean() > 0.5


def test_noise_has_the_deviation_that_was_asked_for_anew_for_each_feature_and_pair():
    market = load_market("default")
    applicants, jobs = np.arange(500)[:, None], np.arange(100)
    clear, blurred = (PairValues(market, NAMES, noise)(applicants, jobs) for noise in (0.0, 0.05))
    error = np.where((clear > 0.2) & (clear < 0.8), blurred - clear, np.nan)  # where nothing is clipped

    assert np.nanstd(error) == pytest.approx(0.05, rel=0.02) and abs(np.nanmean(error)) < 0.002
    shifted = {
        "feature": (error[..., :-1], error[..., 1:]),
        "applicant": (error[:-1], error[1:]),
        "job": (error[:, :-1], error[:, 1:]),
    }
    for name, (left, right) in shifted.items():
        both = ~np.isnan(left) & ~np.isnan(right)
        assert both.sum() > 1_000
        assert abs(np.corrcoef(left[both], right[both])[0, 1]) < 4 / both.sum() ** 0.5, name


def test_what_is_shown_beside_a_feature_changes_nothing_in_it(market):
    every = PairValues(market, NAMES, 0.3)(*ALL_PAIRS)
    alone = PairValues(market, ["seniority"], 0.3)(*ALL_PAIRS)

    np.testing.assert_array_equal(alone[..., 0], every[..., 2])


def test_episodes_of_other_seeds_show_a_pair_alike():
    shown = {}
    for seed in range(60):
        obs, info = make(pair_noise=0.3, num_candidates=30).reset(seed=seed)
        for job, values in zip(info["candidate_ids"], obs["pairs"], strict=True):
            pair = info["applicant_id"], int(job)
            assert shown.setdefault(pair, tuple(values)) == tuple(values)
    assert len(shown) < 60 * 30, "no pair was shown twice"


def test_without_pair_features_nothing_changes():
    for resample in ("episode", "step"):
        bare, with_pairs = make(pair_features=(), resample=resample), make(pair_noise=0.3, resample=resample)
        assert "pairs" not in bare.observation_space.spaces
        assert bare.observation_space == JobRecEnv(**SMALL).observation_space
        left, right = bare.reset(seed=3), with_pairs.reset(seed=3)
        for action in range(4):
            assert right[0].pop("pairs").shape == (5, 3)
            assert left[0].keys() == right[0].keys() and left[-1].keys() == right[-1].keys()
            for key in left[0]:
                np.testing.assert_array_equal(left[0][key], right[0][key])
            assert left[1:-1] == right[1:-1]
            left, right = bare.step(action), with_pairs.step(action)


@pytest.mark.parametrize("names", [NAMES, ("seniority",)], ids=len)
@pytest.mark.parametrize("observation", ["features", "ids"])
def test_the_space_names_the_entry(observation, names):
    env = make(observation=observation, pair_features=names)
    space = env.observation_space["pairs"]

    assert space == gym.spaces.Box(0.0, 1.0, (5, len(names)), np.float32)
    assert env.unwrapped.pair_feature_names == names
    assert (
        env.observation_space["candidates"]
        == make(observation=observation, pair_features=()).observation_space["candidates"]
    )
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space


def test_a_cosine_that_rounding_lifts_above_1_stays_in_the_space(market):
    twins = changed(market, "jobs", vectors=market.applicants.vectors[np.arange(60) % 40])
    texts = with_texts(twins, "hard", "soft")
    rows = np.arange(40)
    assert hard_coverage(texts, rows, rows).max() > 1

    assert PairValues(texts, NAMES)(rows, rows).max() == 1


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"observation": "ids"}, {"pair_noise": 0.3, "resample": "step"}, {"mask_in_observation": True}],
    ids=str,
)
def test_checkers_are_content(kwargs):
    env = JobRecEnv(**SMALL, pair_features="all", **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="needs the extra 'algo'")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # It warns of any 2-D Box, whatever the reader of the observation is.
        warnings.filterwarnings("ignore", message="Your observation (candidates|pairs) has an unconventional shape")
        checker.check_env(env, skip_render_check=True)


def test_flattening_works():
    env = gym.wrappers.FlattenObservation(make())
    obs, _ = env.reset(seed=0)
    plain, _ = make().reset(seed=0)

    assert obs.shape == (768 + 5 * 768 + 5 * 3,) and obs.dtype == np.float32
    assert (obs[-15:] == plain["pairs"].ravel()).all()


def test_a_continuous_action_takes_no_notice():
    env = EmbeddingAction(make())
    obs, _ = env.reset(seed=0)
    after, _, _, _, info = env.step(obs["candidates"][2])

    assert info["job_id"] == info["candidate_ids"][2]
    assert after in env.observation_space


@pytest.mark.parametrize("names", [NAMES, ["seniority"], "all"], ids=str)
def test_specs_round_trip_through_json(names):
    kwargs = {**SMALL, "pair_features": names, "pair_noise": 0.25}
    for env, build in (
        (gym.make("JobRec-v0", **kwargs), gym.make),
        (gym.make_vec("JobRec-v0", 2, **kwargs), lambda spec: gym.make_vec(spec, num_envs=2)),
    ):
        spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
        again = build(spec)
        assert spec == env.spec
        np.testing.assert_array_equal(again.reset(seed=1)[0]["pairs"], env.reset(seed=1)[0]["pairs"], strict=True)
        assert again.unwrapped.pair_feature_names == (NAMES if names == "all" else tuple(names))


def test_a_pickled_environment_holds_no_table(market, tmp_path):
    env = make(market=market.save(tmp_path / "market"), pair_noise=0.3).unwrapped
    env.reset(seed=0)
    env.spec = None
    bare = make(market=market.save(tmp_path / "market"), pair_features=()).unwrapped
    bare.reset(seed=0)
    bare.spec = None

    assert len(pickle.dumps(env)) < len(pickle.dumps(bare)) + 2_000
    again = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(again.step(1)[0]["pairs"], env.step(1)[0]["pairs"])


@pytest.mark.parametrize("kwargs", [{}, {"resample": "step"}], ids=str)
def test_a_state_continues_to_the_bit(kwargs):
    pairs = (make(**kwargs).unwrapped for _ in range(2))
    vectors = (JobRecVectorEnv(3, 4, **SMALL, pair_features=NAMES, **kwargs) for _ in range(2))
    for (env, other), action in ((pairs, 1), (vectors, np.array([1, 2, 3]))):
        for number, envs in enumerate((env, other)):
            envs.reset(seed=number)
        env.step(action)
        other.set_state(env.get_state())
        for _ in range(6):
            np.testing.assert_array_equal(env.step(action)[0]["pairs"], other.step(action)[0]["pairs"])


def test_an_observation_belongs_to_the_caller():
    for env, action in ((make().unwrapped, 0), (JobRecVectorEnv(3, 9, **SMALL, pair_features=NAMES), np.zeros(3, int))):
        obs, _ = env.reset(seed=0)
        shown = obs["pairs"].copy()
        for _ in range(3):
            obs["pairs"][...] = 7
            obs, *_ = env.step(action)
            np.testing.assert_array_equal(obs["pairs"], shown)


def test_an_agents_values_are_drawn_from_the_pairs_of_the_decision():
    asked = []
    env = make(render_mode="ansi", resample="step").unwrapped
    env.rank_by(lambda obs: asked.append(obs["pairs"]) or obs["pairs"][:, 0], "coverage")
    before, _ = env.reset(seed=0)
    after, *_ = env.step(1)
    env.render()

    np.testing.assert_array_equal(asked[-1], before["pairs"])
    assert not np.array_equal(before["pairs"], after["pairs"])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pair_features": ["hard_covrage"]}, "must be names of .*got 'hard_covrage'. Did you mean \"hard_coverage\"?"),
        ({"pair_features": ["sun", "seniority"]}, r"must be names of \('hard_coverage', .*'pay'\), got 'sun'\.$"),
        ({"pair_features": [3]}, "must be names of .*got 3"),
        (
            {"pair_features": "seniority"},
            r"must be a sequence of names, e.g. \['seniority'\], or \"all\", got 'seniority'",
        ),
        ({"pair_features": "al"}, r"e.g. \['hard_coverage'\], or \"all\", got 'al'. Did you mean \"all\"\?$"),
        ({"pair_features": None}, "must be a sequence of names, .*got None"),
        ({"pair_features": ["seniority", "seniority"]}, "must name each feature once"),
        ({"pair_features": "all", "pair_noise": -0.1}, "`pair_noise` must be a finite number of at least 0, got -0.1"),
        ({"pair_features": "all", "pair_noise": float("inf")}, "`pair_noise` must be a finite number"),
        ({"pair_features": "all", "pair_noise": float("nan")}, "`pair_noise` must be a finite number"),
        ({"pair_features": [], "pair_noise": 0.3}, "`pair_noise` is 0.3, but no pair features get it: name features"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    for build in (JobRecEnv, JobRecVectorEnv):
        with pytest.raises(ValueError, match=message):
            build(**SMALL, **kwargs)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (([0], [60]), r"`job_ids` must be rows of the market, in \[0, 60\), got 60"),
        (([-1], [0]), r"`applicant_ids` must be rows of the market, in \[0, 40\), got -1"),
        (([0.0], [0]), "`applicant_ids` must be integers, got float64"),
        (([0, 1], [0, 1, 2]), r"must have shapes that broadcast, .*got \(2,\) and \(3,\)"),
    ],
)
def test_impossible_pairs_are_named(ids, message):
    for env in (make().unwrapped, JobRecVectorEnv(2, **SMALL, pair_features="all")):
        with pytest.raises(ValueError, match=message):
            env.pair_features(*ids)


def test_an_environment_without_pair_features_says_how_to_get_them():
    for env in (make(pair_features=()).unwrapped, JobRecVectorEnv(2, **SMALL)):
        assert env.pair_feature_names == ()
        with pytest.raises(ValueError, match="so it has no numbers of pairs: make it with `pair_features=`"):
            env.pair_features([0], [0])


def test_a_skill_is_the_same_whatever_its_case(tmp_path):
    (tmp_path / "jobs.csv").write_text("key,hard,soft\nj1,SQL;sql;Power  BI;R,Calm\nj2,Rust;Go,Grit\n")
    (tmp_path / "people.csv").write_text("key,hard,soft\np,sql;power bi,calm\nq,SQL;Sql,go\n")
    market = load_market(
        f"csv:{tmp_path / 'jobs.csv'}", applicants=str(tmp_path / "people.csv"), encoder="hashing", cache_dir=False
    )
    values = PairValues(market, ("hard_coverage", "soft_coverage"))(np.array([[0], [1]]), np.array([[0, 1]]))
    np.testing.assert_allclose(values, [[[2 / 3, 1], [0, 0]], [[1 / 3, 0], [0, 0]]], rtol=1e-6)

    first, second = recommend(None, market, "p", n=2)
    assert (set(first.shared), first.missing) == ({"SQL", "Power  BI", "Calm"}, ("R",))
    assert (second.shared, set(second.missing)) == ((), {"Rust", "Go", "Grit"})
