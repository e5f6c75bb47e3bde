"""A log as simulator and as sampler of candidates."""

import json
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import FeedbackReward, Interactions, LoggedCandidates, LoggedSimulator, load_market, make_simulator
from jobrec_gym.counter_rng import hash64
from jobrec_gym.interactions import LogError

KEYS = hash64(9, np.arange(400))


@pytest.fixture
def log(market):
    return Interactions.of(
        market,
        [0, 0, 5, 7],
        [3, 4, 3, 2],
        [1.0, -0.1, 0.5, np.nan],
        decision=[3, 0, -1, -1],
        shown=[[3, 4, 5], [6, 4, 7], [9, 3, 1], [1, 2, 3]],
    )


def ask(simulator, pairs, keys=None):
    applicants, jobs = np.array(pairs).T
    return simulator.feedback(applicants, jobs, keys)


def test_logged_pairs_are_answered_and_others_are_not_recorded(log, market):
    answers = ask(LoggedSimulator(log).bind(market), [(0, 3), (0, 4), (5, 3), (5, 4), (7, 2), (39, 59)])

    assert answers.status.tolist() == ["ok", "ok", "ok", *["not_recorded"] * 3]
    assert answers.decision.tolist() == ["apply", "ignore", "", "", "", ""]
    assert answers.reward.tolist() == [1.0, -0.1, 0.5, 0.0, 0.0, 0.0]
    assert answers.valid.tolist() == [True, True, True, False, False, False]


def test_what_is_not_recorded_is_no_valid_transition(log, market):
    env = gym.make("JobRec-v0", market=market, split="all", job_split="all", candidate_sampler="all")
    env = FeedbackReward(env, LoggedSimulator(log))
    _, info = env.reset(seed=0)
    while info["applicant_id"] != 0:
        _, info = env.reset()

    _, reward, *_, info = env.step(3)
    assert (reward, info["transition_valid"], info["feedback/status"]) == (1.0, True, "ok")
    _, reward, *_, info = env.step(5)
    assert (reward, info["transition_valid"], info["feedback/status"]) == (0.0, False, "not_recorded")


def test_of_several_answers_one_is_drawn_for_each_interaction(market):
    log = Interactions.of(market, [0, 1, 0, 0, 0], [3, 3, 3, 3, 3], [1.0, 9.0, 0.0, 0.0, 0.0], time=range(5))
    simulator = LoggedSimulator(log).bind(market)

    drawn = ask(simulator, [(0, 3)] * 400, KEYS).reward
    assert simulator.draws
    assert 0.17 < drawn.mean() < 0.33
    assert (ask(simulator, [(0, 3)] * 400, KEYS).reward == drawn).all()
    assert ask(simulator, [(0, 3), (1, 3)]).reward.tolist() == [1.0, 9.0], "the first one without keys"
    assert not LoggedSimulator(log.take([0, 1])).bind(market).draws


def test_a_log_in_which_nothing_was_answered_says_so(log, market):
    with pytest.raises(LogError, match="none of the 1 rows of the log has an answer"):
        LoggedSimulator(log.take([3])).bind(market)


def test_a_saved_log_makes_a_spec_of_plain_json(log, market, tmp_path):
    simulator = LoggedSimulator(log.save(tmp_path / "log"))
    spec = simulator.to_spec()

    again = make_simulator(json.loads(json.dumps(spec)))
    assert spec == {"type": "logged", "interactions": str(tmp_path / "log")} == again.to_spec()
    assert ask(again.bind(market), [(0, 3)]).reward.tolist() == [1.0]
    market_spec = market.to_spec()
    env = FeedbackReward(gym.make("JobRec-v0", market=market_spec, num_candidates=3), simulator)
    assert "LoggedSimulator" not in env.spec.to_json()
    assert gym.make(env.spec).reset(seed=0)[1]["applicant_id"] == env.reset(seed=0)[1]["applicant_id"]


def test_a_log_in_memory_works_and_says_why_it_cannot_be_written_down(log, market):
    simulator = LoggedSimulator(log)
    assert make_simulator(simulator.to_spec()).interactions is log
    env = FeedbackReward(gym.make("JobRec-v0", market=market, num_candidates=3), simulator)
    with pytest.raises(ValueError, match="cannot be written down as JSON"):
        env.spec.to_json()


def test_a_bound_simulator_pickles(log, market):
    again = pickle.loads(pickle.dumps(LoggedSimulator(log).bind(market)))
    assert ask(again, [(0, 3), (1, 3)]).status.tolist() == ["ok", "not_recorded"]


# ------------------------------------------------------------------------------------------------------- candidate sets


def test_what_was_shown_is_shown(log, market):
    sampler = LoggedCandidates(log).bind(market, market.jobs.rows(), 3)

    sets = sampler.sample(np.zeros(400, np.int64), KEYS)
    assert {tuple(row) for row in sets.tolist()} == {(3, 4, 5), (6, 4, 7)}
    assert 0.4 < (sets[:, 0] == 3).mean() < 0.6
    assert (sampler.sample(np.zeros(1, np.int64), KEYS[7:8]) == sets[7]).all()
    assert sampler.sample(np.array([5]), KEYS[:1]).tolist() == [[9, 3, 1]]


def test_a_larger_set_is_cut_and_keeps_the_recommended_job(log, market):
    sampler = LoggedCandidates(log).bind(market, market.jobs.rows(), 1)
    assert sampler.sample(np.array([5, 7]), KEYS[:2]).tolist() == [[3], [2]]


def test_who_is_not_in_the_log_is_shown_drawn_jobs(log, market):
    sets = LoggedCandidates(log).bind(market, market.jobs.rows(), 3).sample(np.arange(10, 20), KEYS[:10])
    assert all(len(set(row)) == 3 for row in sets.tolist())
    assert len(np.unique(sets)) > 10


def test_drawn_candidates_hold_one_that_was_recommended_and_one_warning(log, market):
    with pytest.warns(UserWarning, match="4 of 5 candidates are drawn at random. Nobody was shown them") as caught:
        sampler = LoggedCandidates(log, n_drawn=4)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bound = sampler.bind(market, market.jobs.rows(), 20)
        sets = bound.sample(np.zeros(400, np.int64), KEYS)

    assert bound.num_candidates == sets.shape[1] == 5
    assert np.isin(sets, [3, 4]).any(axis=1).all()
    assert all(len(set(row)) == 5 for row in sets.tolist())
    places = (sets == 3).argmax(axis=1)[(sets == 3).any(axis=1)]
    assert len(set(places.tolist())) == 5, "its place tells nothing"


@pytest.mark.filterwarnings("ignore:2 of 3 candidates")
def test_drawn_candidates_have_their_own_number_where_there_are_few_jobs(market):
    """The default of `num_candidates`, 20, is more than the test split has; the sampler does not read it."""
    held_out = market.jobs.rows("test")
    log = Interactions.of(market, [0, 1], held_out[:2], [1.0, 1.0])
    assert len(held_out) < 20

    sampler = LoggedCandidates(log, n_drawn=2)
    env = gym.make("JobRec-v0", market=market, job_split="test", candidate_sampler=sampler)
    assert env.action_space.n == 3


@pytest.mark.parametrize(
    ("num_candidates", "job_split", "message"),
    [
        (4, "all", r"`num_candidates` must be at most 3.*log.take\(log.sizes >= 4\)"),
        (3, "train", "`job_split` leaves out .* use job_split='all'"),
    ],
)
def test_sets_that_cannot_be_shown_are_refused(log, market, num_candidates, job_split, message):
    everything = np.unique(np.concatenate([market.jobs.rows("test")[:3], [3]]))
    log = Interactions.of(market, [0], [3], [1.0], shown=[everything]) if job_split == "train" else log
    with pytest.raises(LogError, match=message):
        LoggedCandidates(log).bind(market, market.jobs.rows(job_split), num_candidates)


def test_a_log_that_does_not_say_what_was_shown_names_the_other_way(market):
    log = Interactions.of(market, [0], [3], [1.0])
    with pytest.raises(LogError, match=r"LoggedCandidates\(log, n_drawn=9\)"):
        LoggedCandidates(log).bind(market, market.jobs.rows(), 3)
    with pytest.raises(ValueError, match="`n_drawn` must be at least 1"):
        LoggedCandidates(log, n_drawn=0)
    with pytest.raises(ValueError, match="`n_drawn` must be at least 1, a whole number, got 2.5"):
        LoggedCandidates(log, n_drawn=2.5)


@pytest.mark.filterwarnings("ignore:2 of 3 candidates")
@pytest.mark.parametrize("n_drawn", [None, 2])
def test_a_log_without_rows_shows_nothing(log, market, n_drawn):
    with pytest.raises(LogError, match="the log has no rows"):
        LoggedCandidates(log.take([]), n_drawn).bind(market, market.jobs.rows(), 2)


@pytest.mark.filterwarnings("ignore:2 of 3 candidates")
def test_a_recommended_job_that_may_not_be_shown_is_refused_beside_drawn_ones_too(market):
    held_out = market.jobs.rows("test")[:2]
    log = Interactions.of(market, [0, 1, 2], [*held_out, market.jobs.rows("train")[0]], [1.0, 1.0, 1.0])
    sampler = LoggedCandidates(log, n_drawn=2)
    with pytest.raises(LogError, match="`job_split` leaves out 2 of the jobs that were recommended, such as"):
        sampler.bind(market, market.jobs.rows("train"), 3)
    sampler.bind(market, market.jobs.rows("all"), 3)


def test_an_environment_plays_a_log(log, market):
    env = gym.make(
        "JobRec-v0",
        market=market,
        split="all",
        job_split="all",
        num_candidates=3,
        candidate_sampler=LoggedCandidates(log),
    )
    env = FeedbackReward(env, LoggedSimulator(log))
    found = {}
    for seed in range(600):
        _, info = env.reset(seed=seed)
        shown, person = tuple(info["candidate_ids"].tolist()), info["applicant_id"]
        if person in (0, 5):
            found[person, shown] = [env.step(action)[1] for action in range(3)]

    assert found == {
        (0, (3, 4, 5)): [1.0, -0.1, 0.0],
        (0, (6, 4, 7)): [0.0, -0.1, 0.0],
        (5, (9, 3, 1)): [0.0, 0.5, 0.0],
    }


def test_a_log_of_another_market_is_refused(log):
    other = load_market("recorded")
    with pytest.raises(LogError, match="lacks"):
        LoggedSimulator(log).bind(other)
