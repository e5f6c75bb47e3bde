"""The exact values of ``JobRecCareer-v0``: on paper, against simulated episodes, and what cannot be solved."""

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import (
    CareerDynamics,
    CosineReward,
    Feedback,
    HybridReward,
    JobRecCareerEnv,
    JobRecCareerVectorEnv,
    RuleSimulator,
    StaticDynamics,
)
from jobrec_gym.loaders.assembly import Record, assemble_market
from jobrec_gym.oracle import CareerOracle

SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 5, "observation": "ids"}
POLICIES = ["best", "myopic", "cosine", "random"]
# Every answer has nothing to do with the pair: ignored with 0.6, else of interest and worth 1.
COIN = RuleSimulator(seed=0, corruption=1.0, rewards={"apply": 1.0, "save": 1.0, "click": 1.0, "ignore": 0.0})


@pytest.fixture(scope="module")
def two_jobs():
    """A market of two jobs, one of level 1 and one of level 2, and of two people."""
    people = [Record("ann", hard=("SQL",), seniority=1), Record("bob", hard=("Python",), seniority=2)]
    jobs = [Record("low", "Clerk", ("SQL",), seniority=1), Record("high", "Analyst", ("Python",), seniority=2)]
    return assemble_market("two jobs", people, jobs, encoder="hashing", test_fraction=0.0)


class Ladder:
    """Three states that earn 1, 2, 20: job 0 is paid, job 1 lifts who is interested in it and pays nothing."""

    names, pair_names, shown_in_pairs = ("rung",), (), ()

    def __repr__(self):  # the name of a test, which every process of xdist must find
        return "Ladder()"

    def bind(self, market):
        return self

    def start(self, applicant_ids):
        return np.zeros((len(applicant_ids), 1), dtype=np.int64)

    def progress(self, states):
        return (states / 2).astype(np.float32)

    def levels(self, states):
        return None

    def pay(self, states, job_ids):
        return np.where(job_ids == 0, np.array([1.0, 2.0, 20.0])[states[:, 0]], 0.0)

    def advance(self, states, job_ids, decisions):
        lifted = (job_ids == 1) & (decisions > 0)
        return np.minimum(states + lifted[:, None], 2)

    def leaves(self, states):
        return np.zeros(len(states), dtype=bool)

    def in_words(self, state):
        return f"rung {state[0]}"


class Silent:
    """A simulator whose applicants ignore everything."""

    def __repr__(self):
        return "Silent()"

    def bind(self, market):
        return self

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        return Feedback.of(["ignore"] * len(job_ids), np.zeros(len(job_ids)))


class Ages(Ladder):
    """Applicants who grow older without end, and are paid their age."""

    def progress(self, states):
        return (1 - 1 / (1 + states)).astype(np.float32)

    def pay(self, states, job_ids):
        return states[:, 0].astype(float)

    def advance(self, states, job_ids, decisions):
        return states + 1


def shows_all(market, **options):
    return JobRecCareerEnv(market, num_candidates=2, candidate_sampler="all", simulator=COIN, **options)


def values(env, policy, horizon, **options):
    value, error = CareerOracle(env, policy, n_sets=4, horizon=horizon, **options).values([0])
    assert error[0] < 1e-12, "all candidates are shown: nothing is sampled"
    return value[0]


def test_three_states_on_a_ladder_are_worth_what_paper_says(two_jobs):
    env = shows_all(two_jobs, dynamics=Ladder())
    # An answer is of interest with 0.4, and then worth 1. From the end, for the states 0, 1, 2:
    #   1 step:  earn 0.4, 0.8, 8
    #   2 steps: 0.8; climb 0.4 * 8 + 0.6 * 0.8 = 3.68; 16
    #   3 steps: climb 0.4 * 3.68 + 0.6 * 0.8 = 1.952; climb 0.4 * 16 + 0.6 * 3.68 = 8.608; 24
    #   4 steps: climb 0.4 * 8.608 + 0.6 * 1.952 = 4.6144
    for horizon, best in ((1, 0.4), (2, 0.8), (3, 1.952), (4, 4.6144)):
        assert values(env, "best", horizon) == pytest.approx(best)
        assert values(env, "myopic", horizon) == pytest.approx(0.4 * horizon)
    # Half of the time either: 1 step 0.2, 0.4, 4; then for state 0: 0.2 + 0.8 * 0.2 + 0.2 * 0.4 = 0.44.
    assert values(env, "random", 2) == pytest.approx(0.44)
    # With a discount of 1/2 the ladder is not worth it in two steps, from state 1: 0.8 + 0.4 > 0.5 * 3.68.
    assert values(env, "best", 2, gamma=0.5) == pytest.approx(0.6)


def test_states_without_end_are_followed_as_far_as_the_horizon(two_jobs):
    env = shows_all(two_jobs, dynamics=Ages(), levels="ignore")
    assert len(CareerOracle(env, "best", n_sets=4, horizon=3).states) == 4
    assert values(env, "best", 3) == pytest.approx(0.4 * (0 + 1 + 2))


def test_states_that_look_alike_have_values_and_no_plays(two_jobs):
    class Unseen(Ladder):
        def progress(self, states):
            return np.zeros(states.shape, dtype=np.float32)

    env = shows_all(two_jobs, dynamics=Unseen())
    assert values(env, "best", 3) == pytest.approx(1.952)
    obs, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match="`progress` of the dynamics must differ from state to state"):
        CareerOracle(env, "best", n_sets=4, horizon=3).predict(obs)
    assert CareerOracle(env, "cosine", n_sets=4, horizon=3).predict(obs)[0] in (0, 1)


def test_a_career_of_two_levels_is_worth_what_paper_says(two_jobs):
    dynamics = CareerDynamics(pay=(1, 5, 5, 5, 5), experience=1, patience=1, ignored=1)
    env = shows_all(two_jobs, dynamics=dynamics)
    # Three states: level 1, level 2, left; an ignored job ends it. At level 1 both jobs pay 1, the high one lifts.
    #   1 step:  0.4; 2
    #   2 steps: 0.4 + 0.4 * 2 = 1.2; 2 + 0.4 * 2 = 2.8
    #   3 steps: 0.4 + 0.4 * 2.8 = 1.52
    for horizon, best in ((1, 0.4), (2, 1.2), (3, 1.52)):
        assert values(env, "best", horizon) == pytest.approx(best)
    # Who looks at the moment alone takes the first of two equal jobs, and stays at the bottom.
    assert values(env, "myopic", 3) == pytest.approx(0.4 + 0.4 * 0.4 + 0.4**2 * 0.4)
    assert CareerOracle(env, horizon=3).states.tolist() == [[1, 0, 1], [2, 0, 1]]
    assert values(shows_all(two_jobs, dynamics=StaticDynamics()), "best", 7) == pytest.approx(7 * 0.4)


def test_at_gamma_0_the_best_policy_is_the_myopic_one():
    env = JobRecCareerEnv(**SMALL)
    best, myopic = (CareerOracle(env, policy, n_sets=4, horizon=9, gamma=0.0) for policy in ("best", "myopic"))
    people = env.problem.applicant_ids[:5]
    np.testing.assert_array_equal(best.values(people)[0], myopic.values(people)[0])
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        assert best.predict(obs)[0] == myopic.predict(obs)[0]
        obs = env.step(0)[0]
        assert best.predict(obs)[0] == myopic.predict(obs)[0]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_value_is_what_simulated_episodes_earn(policy):
    n, horizon = 2_500, 8
    dynamics = CareerDynamics(experience=1, patience=3)
    # The nearest are shown first: "random" must not be the first place.
    sampler = "retrieval" if policy == "random" else "uniform"
    envs = JobRecCareerVectorEnv(
        n, horizon, "Disabled", **SMALL, dynamics=dynamics, split="all", candidate_sampler=sampler
    )
    oracle = CareerOracle(envs, policy, n_sets=400)
    person = int(np.flatnonzero(envs.market.applicants.seniority == 2)[0])
    value, error = oracle.values([person])
    chosen = {"applicant_id": np.full(n, person)}
    obs, _ = envs.reset(seed=1, options=chosen)
    earned, going, begun, state = np.zeros(n), np.ones(n, dtype=bool), np.ones(n, dtype=bool), None
    for _ in range(horizon):
        actions, state = oracle.predict(obs, state, begun)
        obs, rewards, terminated, truncated, _ = envs.step(actions)
        earned += rewards * going
        begun = terminated | truncated
        going &= ~begun  # those who begin again are not counted
        if begun.any():
            obs, _ = envs.reset(options={"reset_mask": begun, **chosen})
    simulated, spread = earned.mean(), earned.std() / np.sqrt(n)
    assert abs(simulated - value[0]) < 4 * np.hypot(error[0], spread)
    assert spread < 0.1 * abs(value[0]) + 0.02, "the test can tell something"


@pytest.mark.parametrize("policy", ["best", "myopic", "cosine"])
def test_the_registered_environment_pays_what_the_values_say_in_ten_thousand_episodes(policy):
    n = 10_000
    envs = JobRecCareerVectorEnv(n, 40, "Disabled", observation="ids", split="test")
    people = envs.problem.applicant_ids[:320:16]
    oracle = CareerOracle(envs, policy, n_sets=1_000)
    value, errors = oracle.values(people)
    obs, _ = envs.reset(seed=1, options={"applicant_id": np.resize(people, n)})
    earned, going, state = np.zeros(n), np.ones(n, dtype=bool), None
    while going.any():
        actions, state = oracle.predict(obs, state)
        obs, rewards, terminated, truncated, _ = envs.step(actions)
        earned += rewards * going
        going &= ~(terminated | truncated)
        if (over := terminated | truncated).any():
            obs, _ = envs.reset(options={"reset_mask": over})
    error = np.hypot(np.sqrt((errors**2).sum()) / len(people), earned.std() / np.sqrt(n))
    assert abs(earned.mean() - value.mean()) < 4 * error < 0.2 * value.mean()


def test_few_candidate_sets_leave_no_bias_beyond_the_error():
    env = gym.make("JobRecCareer-v0", observation="ids", split="test")
    people = env.unwrapped.problem.applicant_ids[::3]
    (few, error), (many, _) = (CareerOracle(env, "myopic", n_sets).values(people) for n_sets in (60, 1_000))
    assert abs(few.mean() - many.mean()) < 3 * np.sqrt((error**2).sum()) / len(people) < 0.05 * many.mean()


def test_it_plays_single_environments_and_features_as_it_plays_batches_of_ids():
    for policy in POLICIES:
        choices = []
        for observation in ("ids", "features"):
            env = gym.make("JobRecCareer-v0", **{**SMALL, "observation": observation}, mask_in_observation=True)
            oracle = CareerOracle(env, policy, n_sets=4)
            assert oracle.horizon == 40
            obs, _ = env.reset(seed=1)
            state, start, chosen = None, np.array([True]), []
            for _ in range(4):
                action, state = oracle.predict(obs, state, start)
                chosen.append(int(action))
                obs, *_ = env.step(action)
                start = np.array([False])
            assert state[0].tolist() == [4]
            obs["action_mask"][:4] = 0
            chosen.append(int(oracle.predict(obs, state, start)[0]))
            choices.append(chosen)
        assert choices[0] == choices[1] and choices[0][-1] == 4


def test_on_the_default_market_the_best_policy_earns_twice_what_the_myopic_one_does():
    env = gym.make("JobRecCareer-v0", observation="ids")
    best, myopic = (CareerOracle(env, name, n_sets=4).values([0, 1])[0].sum() for name in ("best", "myopic"))
    assert best > 2 * myopic > 0


def test_levels_that_the_simulator_is_not_told_change_no_value(two_jobs):
    told, untold = (JobRecCareerEnv(**SMALL, levels=levels) for levels in ("ask", "ignore"))
    one, other = (CareerOracle(env, "myopic", n_sets=4, horizon=2) for env in (told, untold))
    people = told.problem.applicant_ids[:4]
    assert (one.values(people)[0] != other.values(people)[0]).any()
    still = JobRecCareerEnv(**SMALL, dynamics=StaticDynamics())
    jobs = np.arange(5)
    obs, _ = untold.reset(seed=0, options={"applicant_id": int(people[0]), "candidate_ids": jobs})
    expected = still.simulator.expected_reward(people[0], jobs) * untold.dynamics.pay(np.array([[1, 0, 6]] * 5), jobs)
    assert other.predict(obs)[0] == expected.argmax()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"repeats": False}, "`env` cannot be solved exactly: `repeats=False`"),
        ({"resample": "episode"}, '`env` cannot be solved exactly: `resample="episode"`'),
        ({"hidden": ("patience",)}, r"`env` cannot be solved exactly: `hidden=\('patience',\)`"),
        ({"simulator": Silent(), "levels": "ignore"}, "cannot be solved exactly: its `simulator` is no RuleSimulator"),
    ],
    ids=str,
)
def test_what_cannot_be_solved_is_refused_with_the_reason(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CareerOracle(JobRecCareerEnv(**SMALL, **kwargs), horizon=3)


@pytest.mark.parametrize(
    "wrapper",
    [
        CosineReward,
        lambda env: HybridReward(env, None, {"steps": 1, "start": 0.5, "end": 0.5}),
        lambda env: gym.wrappers.TransformReward(env, lambda reward: reward / 2),
        lambda env: gym.wrappers.TimeAwareObservation(gym.wrappers.NormalizeReward(env), flatten=False),
    ],
)
def test_rewards_that_a_wrapper_changes_are_refused(wrapper):
    with pytest.raises(ValueError, match="cannot be solved exactly: .*Reward changes its rewards"):
        CareerOracle(wrapper(gym.make("JobRecCareer-v0", **SMALL)), n_sets=4)


def test_jobs_that_look_alike_are_not_guessed(two_jobs):
    jobs = [Record(f"job {i}", "Clerk", ("SQL",), seniority=1 + i) for i in range(2)]
    people = [Record("ann", hard=("SQL",), seniority=1), Record("bob", hard=("Python",), seniority=2)]
    market = assemble_market("alike", people, jobs, encoder="hashing", test_fraction=0.0)
    env = shows_all(market)
    oracle = CareerOracle(env, "best", n_sets=4, horizon=3)
    with pytest.raises(ValueError, match=r"the vector of several jobs .*`values` works nevertheless, or use `observ"):
        oracle.predict(env.reset(seed=0)[0])
    for policy in ("cosine", "random"):  # which need not tell them apart
        assert CareerOracle(env, policy, n_sets=4, horizon=3).predict(env.reset(seed=0)[0])[0] in (0, 1)
    by_id = shows_all(market, observation="ids")
    assert oracle.predict(by_id.reset(seed=0)[0])[0] in (0, 1)
    twins = [people[1], *(Record(name, hard=("SQL",), seniority=1) for name in ("ann", "eve"))]
    env = shows_all(assemble_market("twins", twins, jobs, encoder="hashing", test_fraction=0.0), observation="ids")
    with pytest.raises(ValueError, match="the vector of several applicants"):
        CareerOracle(env, "best", n_sets=4, horizon=3).predict(env.reset(seed=0)[0])


def test_a_shorter_horizon_reads_the_states_of_a_whole_episode():
    env = gym.make("JobRecCareer-v0", **SMALL)
    short, whole = (CareerOracle(env, "myopic", n_sets=4, horizon=horizon) for horizon in (2, None))
    assert np.array_equal(short.states, whole.states)


@pytest.mark.parametrize("ids", [[-1], [0.7], [10**6]])
def test_what_is_no_row_has_no_value(ids):
    with pytest.raises(ValueError, match="`applicant_ids` must be"):
        CareerOracle(JobRecCareerEnv(**SMALL), "cosine", n_sets=4, horizon=2).values(ids)


def test_misuse_is_named():
    env = JobRecCareerEnv(**SMALL)
    for kwargs, message in (
        ({"policy": "bests"}, r"`policy` must be one of \('best', 'myopic', 'cosine', 'random'\), got 'bests'"),
        ({"n_sets": 3}, "`n_sets` must be at least 4, so that the error can be estimated, got 3"),
        ({"n_sets": 0.5}, "`n_sets` must be at least 1, a whole number"),
        ({"gamma": 1.5}, r"`gamma` must be in \[0, 1\], got 1.5"),
        ({"horizon": 0}, "`horizon` must be at least 1"),
        ({}, "`horizon` must be given where the environment has no `max_episode_steps`"),
    ):
        with pytest.raises(ValueError, match=message):
            CareerOracle(env, **kwargs)

    with pytest.raises(ValueError, match="`env` must be a JobRecCareer-v0, wrapped or not"):
        CareerOracle(gym.make("JobRec-v0", **SMALL))
    oracle = CareerOracle(env, "cosine", horizon=3)
    obs, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match="has the vector of an applicant that is not in market"):
        oracle.predict({**obs, "applicant": -obs["applicant"]})


def test_the_horizon_is_that_of_the_environment_and_not_the_registered_one():
    def made(max_episode_steps):
        envs = gym.make_vec("JobRecCareer-v0", num_envs=2, max_episode_steps=max_episode_steps, **SMALL)
        return CareerOracle(envs, "cosine", n_sets=4)

    assert made(7).horizon == 7
    with pytest.raises(ValueError, match="`horizon` must be given where the environment has no `max_episode_steps`"):
        made(None)  # it never truncates


@pytest.mark.parametrize(
    ("registered", "limit", "horizon"), [({}, 100, 40), ({}, 10, 10), ({"max_episode_steps": 60}, 50, 50)]
)
def test_the_shortest_time_limit_is_the_horizon(registered, limit, horizon):
    env = gym.wrappers.TimeLimit(gym.make("JobRecCareer-v0", **SMALL, **registered), limit)
    assert CareerOracle(env, "cosine", n_sets=4).horizon == horizon
