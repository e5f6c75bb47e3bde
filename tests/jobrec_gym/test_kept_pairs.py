import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import pair_features
from jobrec_gym.kept_pairs import MAX_BYTES, KeptRows, PreparedPairs, kept_pairs
from jobrec_gym.market import load_market
from jobrec_gym.pair_features import hard_coverage, soft_coverage
from jobrec_gym.simulators import rules
from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.vector import JobRecVectorEnv
from jobrec_gym.wrappers import FeedbackReward, VectorFeedbackReward

N_APPLICANTS, N_JOBS = 40, 60


def pairs(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, N_APPLICANTS, n), rng.integers(0, N_JOBS, n)


class Counted:
    """A function of pairs that knows for how many it was computed."""

    n_pairs = 0

    def __call__(self, applicant_ids, job_ids):
        self.n_pairs += len(job_ids)
        return np.sqrt(applicant_ids * 1_000.0 + job_ids)


def computed(simulator, applicant_ids, job_ids):
    """Utilities without anything that is kept."""
    total = np.zeros(len(job_ids))
    for term in simulator.terms(applicant_ids, job_ids).values():
        total += term
    return total


@pytest.fixture
def kept_up_to(monkeypatch):
    """Simulators that are bound after this keep up to so many bytes of rows."""

    def choose(max_bytes):
        rules._bind.cache_clear()
        monkeypatch.setattr(rules, "kept_pairs", partial(kept_pairs, max_bytes=max_bytes))

    yield choose
    rules._bind.cache_clear()


def test_a_row_is_computed_when_its_applicant_is_met_again_and_never_after():
    compute = Counted()
    kept = kept_pairs(compute, N_APPLICANTS, N_JOBS)
    for n_pairs in (1, 1 + 1 + N_JOBS, 1 + 1 + N_JOBS):
        np.testing.assert_array_equal(kept(np.array([3]), np.array([7])), np.sqrt([3_007.0]))
        assert compute.n_pairs == n_pairs
    everyone = np.full(N_JOBS, 3), np.arange(N_JOBS)
    np.testing.assert_array_equal(kept(*everyone), Counted()(*everyone))
    assert compute.n_pairs == 2 + N_JOBS


def test_a_row_of_some_thousand_jobs_is_known_once_its_applicant_was_met_again():
    compute = Counted()
    kept = kept_pairs(compute, N_APPLICANTS, 4_000)
    everyone = np.arange(N_APPLICANTS), np.full(N_APPLICANTS, 9)
    kept(*everyone)
    for number in range(N_APPLICANTS):  # a row in a call: one step of many environments may meet them all again
        before = compute.n_pairs
        np.testing.assert_array_equal(kept(*everyone), Counted()(*everyone))
        assert compute.n_pairs - before == N_APPLICANTS - number + 4_000
    everything = np.repeat(np.arange(N_APPLICANTS), 4_000), np.tile(np.arange(4_000), N_APPLICANTS)
    before = compute.n_pairs
    np.testing.assert_array_equal(kept(*everything), Counted()(*everything))
    assert compute.n_pairs == before


def test_a_call_computes_little_beside_what_it_misses():
    """However many jobs there are, and however many applicants are met."""
    compute = Counted()
    kept = kept_pairs(compute, 4, 100_000)
    for _ in range(3):
        before = compute.n_pairs
        kept(np.arange(4), np.full(4, 99_999))
        assert compute.n_pairs - before <= 4 + 256 + 4 * 4
    before = compute.n_pairs
    kept(np.arange(4), np.zeros(4, int))
    assert compute.n_pairs - before < 4 + 256 + 4 * 4, "some of the rows have begun"


def test_a_row_in_parts_has_the_values_of_the_function():
    kept = kept_pairs(Counted(), 3, 5_000)
    rng = np.random.default_rng(0)
    for _ in range(80):
        asked = rng.integers(0, 3, 16), rng.integers(0, 5_000, 16)
        np.testing.assert_array_equal(kept(*asked), Counted()(*asked))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("max_bytes", [MAX_BYTES, 0], ids=["rows", "prepared"])
def test_kept_and_computed_utilities_are_equal_to_the_bit(market, kept_up_to, max_bytes, seed):
    kept_up_to(max_bytes)
    simulator = RuleSimulator(seed).bind(market)
    assert isinstance(simulator._kept, KeptRows if max_bytes else PreparedPairs)
    every = np.repeat(np.arange(N_APPLICANTS), N_JOBS), np.tile(np.arange(N_JOBS), N_APPLICANTS)
    expected = computed(simulator, *every)
    if simulator.prepare is not None:
        simulator.prepare(np.arange(N_APPLICANTS), np.tile(np.arange(0, N_JOBS, 2), (N_APPLICANTS, 1)))
    for n in (1, 1, 7, 64, 500) * 20:
        asked = pairs(n, n)
        np.testing.assert_array_equal(simulator.utility(*asked), computed(simulator, *asked))
    np.testing.assert_array_equal(simulator.utility(*every), expected)
    np.testing.assert_array_equal(simulator.utility(*every), expected)


def test_a_large_market_prepares_the_candidates_and_pays_the_same(kept_up_to):
    """A market of 9.9 million pairs: 79 MB."""
    market = load_market("default", n_jobs=9_900, n_applicants=1_000)
    simulator = RuleSimulator(seed=0, noise=0.5)
    large = simulator.bind(market)
    assert isinstance(large._kept, PreparedPairs)
    assert RuleSimulator(seed=0).bind(load_market("default")).prepare is None
    kept_up_to(1 << 30)
    small = simulator.bind(market)
    assert isinstance(small._kept, KeptRows)
    wrapped = [VectorFeedbackReward(JobRecVectorEnv(5, 4, market=market), simulator) for _ in range(2)]
    wrapped[0].reward_model.simulator = large
    wrapped[0].reward_model.prepare = large.prepare
    for env in wrapped:
        env.reset(seed=0)
    for step in range(23):
        actions = np.full(5, step % 3)
        (_, reward, *_, infos), (_, other, *_, other_infos) = (env.step(actions) for env in wrapped)
        np.testing.assert_array_equal(reward, other, strict=True)
        np.testing.assert_equal(infos, other_infos)


def test_what_was_prepared_is_not_computed_again(market, kept_up_to):
    kept_up_to(0)
    simulator = RuleSimulator(seed=0).bind(market)
    env = FeedbackReward(gym.make("JobRec-v0", market=market, num_candidates=7), RuleSimulator(seed=0))
    assert env.reward_model.simulator is simulator
    compute = simulator._kept._compute = Counted()
    env.reset(seed=0)
    for n_pairs in (1, 1 + 7, 1 + 7, 1 + 7):  # the others cost most, and are computed only if the episode goes on
        env.step(3)
        assert compute.n_pairs == n_pairs


def test_a_later_pair_may_take_the_slot_of_an_earlier_one():
    kept = PreparedPairs(Counted(), 1 << 20)
    rng = np.random.default_rng(0)
    jobs = rng.integers(0, 1 << 20, (2_000, 100))
    kept.prepare(np.arange(2_000), jobs)
    asked = np.repeat(np.arange(2_000), 100), jobs.ravel()
    np.testing.assert_array_equal(kept(*asked), Counted()(*asked))


@pytest.mark.parametrize(
    ("n_applicants", "n_jobs"), [(1, 1), (1_000, 2_000), (2_895, 2_895), (2_896, 2_896), (7_000_000, 1), (10**5, 10**6)]
)
def test_no_more_than_64_mb_is_kept(n_applicants, n_jobs):
    kept = kept_pairs(Counted(), n_applicants, n_jobs)
    assert kept.nbytes <= MAX_BYTES == 64 * 2**20
    assert isinstance(kept, KeptRows) is (n_applicants <= 2_895)


def test_environments_share_what_is_kept_and_carry_none_of_it(market):
    envs = [VectorFeedbackReward(JobRecVectorEnv(4, market=market), RuleSimulator(seed=5)) for _ in range(2)]
    kept = envs[0].reward_model.simulator._kept
    assert envs[1].reward_model.simulator._kept is kept
    envs[0].reset(seed=0)
    before = len(pickle.dumps(envs[0].reward_model))
    for _ in range(300):
        envs[0].step(np.zeros(4, int))
    assert kept._n_known.any()
    assert len(pickle.dumps(envs[0].reward_model)) == before
    model = gym.make("JobRec-v0", market=market).unwrapped
    assert FeedbackReward(model, RuleSimulator(seed=5)).reward_model.simulator._kept is kept
    other = pickle.loads(pickle.dumps(envs[0]))
    assert not other.reward_model.simulator._kept._n_known.any()
    for _ in range(5):
        np.testing.assert_array_equal(other.step(np.ones(4, int))[1], envs[0].step(np.ones(4, int))[1])


def test_a_copy_of_an_environment_shares_what_is_kept(market):
    env = FeedbackReward(gym.make("JobRec-v0", market=market), RuleSimulator(seed=6))
    env.reset(seed=0)
    other = copy.deepcopy(env)
    assert other.reward_model is not env.reward_model
    assert other.reward_model.simulator is env.reward_model.simulator
    assert other.step(2)[1] == env.step(2)[1]


@pytest.mark.waits
@pytest.mark.parametrize("max_bytes", [MAX_BYTES, 0], ids=["rows", "prepared"])
def test_threads_may_ask_at_once(max_bytes):
    kept = kept_pairs(Counted(), N_APPLICANTS, N_JOBS, max_bytes)

    def ask(seed):
        for n in range(1, 60):
            asked = pairs(n, 1_000 * seed + n)
            if isinstance(kept, PreparedPairs):
                kept.prepare(asked[0], np.tile(np.arange(seed, N_JOBS), (n, 1)))
            np.testing.assert_array_equal(kept(*asked), Counted()(*asked))
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(16)))


def test_an_impossible_job_is_no_kept_one(market):
    """A negative id means a row from the end, as ever, and one beyond the end raises."""
    simulator = RuleSimulator(seed=0).bind(market)
    for _ in range(3):
        np.testing.assert_array_equal(
            simulator.utility(np.array([2, -1]), np.array([-1, -3])),
            computed(simulator, np.array([2, N_APPLICANTS - 1]), np.array([N_JOBS - 1, N_JOBS - 3])),
        )
        with pytest.raises(IndexError):
            simulator.utility(np.array([2]), np.array([N_JOBS]))


@pytest.mark.parametrize("coverage", [hard_coverage, soft_coverage])
def test_shares_are_the_same_from_a_table_and_by_search(market, monkeypatch, coverage):
    every = np.repeat(np.arange(N_APPLICANTS), N_JOBS), np.tile(np.arange(N_JOBS), N_APPLICANTS)
    pair_features._skill_shares.cache_clear()
    from_table = coverage(market, *every)
    monkeypatch.setattr(pair_features, "_TABLE_BYTES", 0)
    pair_features._skill_shares.cache_clear()
    np.testing.assert_array_equal(coverage(market, *every), from_table, strict=True)
    pair_features._skill_shares.cache_clear()
    had, asked = (getattr(side, f"{coverage.__name__[:4]}_skills") for side in (market.applicants, market.jobs))
    assert from_table[61] == np.isin(asked[1], had[1]).mean()
    assert 0 < from_table.mean() < 1
