"""`reset(options=...)`: who applies and what is shown can be chosen, of one environment and of many, to the bit."""

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.wrappers import EmbeddingAction, FeedbackReward, VectorFeedbackReward

K, N = 6, 3
MARKET = {"source": "default", "n_jobs": 60, "n_applicants": 40}
SMALL = {"market": MARKET, "num_candidates": K}
CHOSEN = {
    "applicant_id": np.array([3, 17, 39]),
    "candidate_ids": np.array([[5, 4, 3, 2, 1, 0], [0, 59, 1, 58, 2, 57], [10, 11, 12, 13, 14, 15]]),
}


@pytest.fixture
def env():
    return gym.make("JobRec-v0", **SMALL)


def test_an_applicant_is_chosen_by_row_or_by_key(env, market):
    _, by_id = env.reset(seed=0, options={"applicant_id": np.int64(7)})
    obs, by_key = env.reset(seed=0, options={"applicant_key": str(market.applicants.keys[7])})

    assert by_id["applicant_id"] == by_key["applicant_id"] == 7
    assert (by_id["candidate_ids"] == by_key["candidate_ids"]).all()
    assert (obs["applicant"] == market.applicants.vectors[7]).all()
    assert env.step(0)[4]["applicant_id"] == 7


def test_a_key_that_looks_like_a_number_is_no_row(env):
    with pytest.raises(ValueError, match="there is no applicant with the key '7'"):
        env.reset(options={"applicant_key": "7"})
    with pytest.raises(ValueError, match=r"`options\['applicant_id'\]` must be an integer, got '7'"):
        env.reset(options={"applicant_id": "7"})


def test_candidates_are_shown_in_the_order_in_which_they_are_given(env):
    shown = [30, 2, 59, 0, 7, 8]

    obs, info = env.reset(seed=0, options={"candidate_ids": shown})

    market = env.unwrapped.market
    assert info["candidate_ids"].tolist() == shown and (obs["candidates"] == market.jobs.vectors[shown]).all()
    assert env.step(2)[4]["job_id"] == 59


def test_what_is_not_chosen_is_drawn_as_usual(env):
    _, drawn = env.reset(seed=4)
    _, chosen = env.reset(seed=4, options={"candidate_ids": list(range(K))})
    _, other = env.reset(seed=4, options={"applicant_id": (drawn["applicant_id"] + 1) % 40})

    assert chosen["applicant_id"] == drawn["applicant_id"]
    assert (other["candidate_ids"] == drawn["candidate_ids"]).all()


def test_retrieval_shows_what_is_near_to_the_chosen_applicant():
    env = gym.make("JobRec-v0", candidate_sampler="retrieval", job_split="all", **SMALL)
    market = env.unwrapped.market

    _, info = env.reset(seed=0, options={"applicant_id": 11})

    best = np.argsort(-(market.jobs.vectors @ market.applicants.vectors[11]), kind="stable")[:K]
    assert set(info["candidate_ids"]) == set(best)


def test_episodes_after_a_chosen_one_are_drawn_as_if_nothing_had_been_chosen(env):
    env.reset(seed=4)
    usual = [env.reset()[1] for _ in range(3)]
    env.reset(seed=4, options={"applicant_id": 7, "candidate_ids": list(range(K))})

    for expected in usual:
        info = env.reset()[1]
        assert info.keys() == expected.keys() and info["applicant_id"] == expected["applicant_id"]
        assert (info["candidate_ids"] == expected["candidate_ids"]).all()


def test_the_info_says_whether_what_was_chosen_is_of_the_splits(env):
    market = env.unwrapped.market
    warm, cold = market.applicants.rows("train")[0], market.applicants.rows("test")[0]
    jobs = [*market.jobs.rows("test")[:2], *market.jobs.rows("train")[:4]]

    assert env.reset(options={"applicant_id": warm})[1]["applicant_in_split"] is True
    assert env.reset(options={"applicant_id": cold})[1]["applicant_in_split"] is False
    info = env.reset(options={"candidate_ids": jobs})[1]
    assert info["candidates_in_split"].tolist() == [False, False, True, True, True, True]
    assert "applicant_in_split" not in info and not env.reset()[1].keys() & {
        "applicant_in_split",
        "candidates_in_split",
    }


def test_an_unknown_option_is_refused_with_a_near_miss(env):
    envs = gym.make_vec("JobRec-v0", N, **SMALL)
    with pytest.raises(ValueError, match="`options` of `reset` must be among .*, got 'aplicant_id'. Did you mean 'ap"):
        env.reset(options={"aplicant_id": 5})
    with pytest.raises(ValueError, match="got 'reset_mask'"):
        env.reset(options={"reset_mask": np.ones(1, bool)})
    with pytest.raises(ValueError, match="got 'candidates_ids'. Did you mean 'candidate_ids'"):
        envs.reset(options={"candidates_ids": CHOSEN["candidate_ids"]})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"applicant_id": 40}, r"rows of the market, in \[0, 40\), got 40"),
        ({"applicant_id": -1}, "got -1"),
        ({"applicant_id": True}, "must be an integer, got True"),
        ({"applicant_id": 1.0}, "must be an integer, got 1.0"),
        ({"applicant_id": 1, "applicant_key": "A0000001"}, "must name the applicant once"),
        ({"applicant_key": 5}, "must be a text, got 5"),
        ({"applicant_key": "a0000001"}, "Did you mean 'A0000001'"),
        ({"candidate_ids": [0, 1, 2]}, r"integers of shape \(6,\), got int64 of shape \(3,\)"),
        ({"candidate_ids": [0, 1, 2, 3, 4, 60]}, r"in \[0, 60\), got 60"),
        ({"candidate_ids": [0, 1, 2, 3, 4, 0]}, "must be 6 distinct jobs, got 0 twice"),
        ({"candidate_ids": ["J1"] * 6}, "must be integers"),
    ],
)
def test_a_wrong_choice_is_refused_and_changes_nothing(env, options, complaint):
    env.reset(seed=0)
    before = env.unwrapped.get_state()

    with pytest.raises(ValueError, match=complaint):
        env.reset(seed=9, options=options)

    assert env.unwrapped.get_state() == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"applicant_id": 3}, r"integers of shape \(3,\), got 3"),
        ({"applicant_id": [3, 4]}, r"shape \(3,\), got int64 of shape \(2,\)"),
        ({"applicant_key": "A0000001"}, "must be 3 texts, one for each environment"),
        ({"applicant_key": ["A0000001", None, "A0000002"]}, "must be 3 texts, one for each environment"),
        ({"candidate_ids": CHOSEN["candidate_ids"][0]}, r"shape \(3, 6\)"),
        ({"candidate_ids": [[1], [2, 3], [4]]}, r"shape \(3, 6\)"),
    ],
)
def test_many_environments_want_a_choice_for_each(options, complaint):
    envs = gym.make_vec("JobRec-v0", N, **SMALL)
    with pytest.raises(ValueError, match=complaint):
        envs.reset(options=options)


def test_keys_may_be_objects_and_those_of_other_rows_are_not_read():
    envs = gym.make_vec("JobRec-v0", N, **SMALL)
    _, infos = envs.reset(seed=0, options={"applicant_key": np.array(["A0000001", "A0000002", "A0000003"], object)})
    assert infos["applicant_id"].tolist() == [1, 2, 3]
    options = {"applicant_key": ["A0000004", None, 7], "reset_mask": np.array([True, False, False])}
    _, infos = envs.reset(options=options)
    assert infos["applicant_id"][0] == 4


@pytest.mark.parametrize("names", [("applicant_id",), ("candidate_ids",), ("applicant_id", "candidate_ids")], ids=str)
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("kwargs", [{"observation": "ids"}, {"resample": "step", "repeats": False}], ids=str)
def test_single_and_vector_are_equal_to_the_bit_and_so_are_the_episodes_behind(names, mode, kwargs):
    kwargs = {**SMALL, **kwargs, "pair_features": "all"}
    envs = gym.make_vec("JobRec-v0", N, autoreset_mode=mode, max_episode_steps=3, **kwargs)
    envs = VectorFeedbackReward(envs, RuleSimulator(seed=0, noise=0.5))
    singles = [
        FeedbackReward(gym.make("JobRec-v0", max_episode_steps=3, **kwargs), RuleSimulator(seed=0, noise=0.5))
        for _ in range(N)
    ]
    obs, infos = envs.reset(seed=5, options={name: CHOSEN[name] for name in names})
    begun = [env.reset(seed=5 + i, options={name: CHOSEN[name][i] for name in names}) for i, env in enumerate(singles)]
    assert_rows(obs, infos, begun)
    for step in range(9):
        actions = np.array([np.flatnonzero(mask)[-1] for mask in infos["action_mask"]])
        if mode == "NextStep" and step % 4 == 3:  # this step starts the next episodes
            obs, rewards, _, _, infos = envs.step(actions)
            played = [env.reset() for env in singles]
        else:
            obs, rewards, _, truncated, infos = envs.step(actions)
            steps = [env.step(action) for env, action in zip(singles, actions, strict=True)]
            assert rewards.tolist() == [one[1] for one in steps]
            played = [(one[0], one[4]) for one in steps]
            if mode == "SameStep" and truncated.all():
                played = [env.reset() for env in singles]
        assert_rows(obs, infos, played)


def assert_rows(obs, infos, singles):
    for row, (one, info) in enumerate(singles):
        for key, values in one.items():
            assert np.array_equal(obs[key][row], values), key
        for key in ("applicant_id", "candidate_ids", "action_mask", "applicant_in_split", "candidates_in_split"):
            assert (key in info) == (key in infos and bool(infos[f"_{key}"][row])), key
            assert key not in info or np.array_equal(infos[key][row], info[key]), key


def test_of_many_only_those_that_are_reset_are_read():
    envs = gym.make_vec("JobRec-v0", N, autoreset_mode="Disabled", **SMALL)
    _, before = envs.reset(seed=0)
    mask = np.array([False, True, False])

    _, infos = envs.reset(options={"reset_mask": mask, "applicant_id": np.array([-1, 8, 99])})

    assert infos["applicant_id"].tolist() == [0, 8, 0] and infos["_applicant_in_split"].tolist() == mask.tolist()
    after = envs.step(np.zeros(N, int))[4]["applicant_id"]
    assert after.tolist() == [before["applicant_id"][0], 8, before["applicant_id"][2]]


@pytest.mark.parametrize("people", [CHOSEN["applicant_id"].tolist(), [17, 3, 17], [5, 5, 5]], ids=str)
def test_many_are_chosen_by_keys(market, people):
    envs = gym.make_vec("JobRec-v0", N, **SMALL)

    _, infos = envs.reset(seed=0, options={"applicant_key": market.applicants.keys[people].tolist()})

    assert infos["applicant_id"].tolist() == people


@pytest.mark.parametrize("resample", ["episode", "step"])
def test_a_state_of_a_chosen_episode_continues_to_the_bit(resample):
    kwargs = {**SMALL, "resample": resample}
    single, other = (gym.make("JobRec-v0", **kwargs).unwrapped for _ in range(2))
    single.reset(seed=1, options={"applicant_id": 7, "candidate_ids": list(range(K))})
    other.set_state(single.get_state())
    for _ in range(2):
        left, right = single.step(2), other.step(2)
        assert left[1] == right[1] and (left[4]["candidate_ids"] == right[4]["candidate_ids"]).all()
        assert left[4]["applicant_id"] == right[4]["applicant_id"] == 7
        other.set_state(single.get_state())
    envs, others = (gym.make_vec("JobRec-v0", N, **kwargs) for _ in range(2))
    envs.reset(seed=1, options=CHOSEN)
    others.set_state(envs.get_state())
    left, right = envs.step(np.full(N, 2)), others.step(np.full(N, 2))
    assert left[1].tolist() == right[1].tolist()
    assert right[4]["applicant_id"].tolist() == CHOSEN["applicant_id"].tolist()
    assert (left[4]["candidate_ids"] == right[4]["candidate_ids"]).all()


def test_wrappers_hand_options_on():
    env = EmbeddingAction(FeedbackReward(gym.make("JobRec-v0", **SMALL), RuleSimulator(seed=0)))
    wrapped = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.FlattenObservation(env))
    assert wrapped.reset(options={"applicant_id": 9})[1]["applicant_id"] == 9
    envs = VectorFeedbackReward(gym.make_vec("JobRec-v0", N, **SMALL), RuleSimulator(seed=0))
    assert envs.reset(options=CHOSEN)[1]["applicant_id"].tolist() == CHOSEN["applicant_id"].tolist()
