"""Logs that the environment writes."""

import logging
import warnings

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import (
    FeedbackReward,
    Interactions,
    LoggedSimulator,
    ObservationForm,
    RuleSimulator,
    record_interactions,
)
from jobrec_gym.interactions import LogError
from jobrec_gym.loaders.interactions import load_interactions
from jobrec_gym.off_policy import estimate_all


def planted(market, **options):
    env = gym.make("JobRec-v0", **{"market": market, "num_candidates": 4, "observation": "ids", **options})
    return FeedbackReward(env, RuleSimulator(seed=0))


class Lowest:
    """Likes the job of the lowest number."""

    def q_values(self, obs):
        return -obs["candidates"].astype(float)


def test_rows_say_what_was_shown_recommended_and_answered(market):
    log = record_interactions(planted(market), n=25, seed=3)
    truth = RuleSimulator(seed=0).bind(market)

    assert len(log) == 25
    assert log.time.tolist() == list(range(25))
    answers = truth.feedback(log.applicant_ids, log.job_ids)
    np.testing.assert_array_equal(log.reward, answers.reward)
    assert [("ignore", "click", "save", "apply")[row] for row in log.decision] == answers.decision.tolist()
    assert (log.sizes == 4).all() and (log.propensity == 0.25).all()
    env = planted(market)
    for start in (0, 10, 20):
        _, info = env.reset(seed=3 if start == 0 else None)
        assert log.applicant_ids[start] == info["applicant_id"]
        assert log.shown(start).tolist() == info["candidate_ids"].tolist()


def test_propensities_are_those_of_the_choices(market):
    log = record_interactions(planted(market), Lowest(), n=600, epsilon=0.4)

    greedy = log.job_ids == [log.shown(row).min() for row in range(600)]
    np.testing.assert_allclose(log.propensity, np.where(greedy, 0.7, 0.1))
    assert 0.64 < greedy.mean() < 0.76
    by_function = record_interactions(planted(market), lambda obs: [[0.0, 0.0, 1.0, 0.0]], n=12)
    assert (by_function.chosen == 2).all() and (by_function.propensity == 1).all()


def test_equal_seeds_write_equal_logs(market):
    one, same, other = (record_interactions(planted(market), n=30, seed=seed) for seed in (0, 0, 1))
    assert one.job_ids.tolist() == same.job_ids.tolist() != other.job_ids.tolist()


def test_what_is_masked_was_not_shown(market):
    log = record_interactions(planted(market, repeats=False), n=4)
    assert log.sizes.tolist() == [4, 3, 2, 1]
    np.testing.assert_allclose(log.propensity, [1 / 4, 1 / 3, 1 / 2, 1])


def test_a_run_in_which_nothing_was_answered_says_so_and_one_in_which_little_was_counts(market, caplog):
    env = gym.make("JobRec-v0", market=market, num_candidates=4)
    away = Interactions.of(market, [market.applicants.rows("test")[0]], [0], [1.0])
    with pytest.raises(LogError, match="none of the 20 recommendations was answered"):
        record_interactions(FeedbackReward(env, LoggedSimulator(away)), n=20)

    log = record_interactions(planted(market), n=20)
    env = gym.make("JobRec-v0", market=market, num_candidates=4)
    half = FeedbackReward(env, LoggedSimulator(log.take(np.arange(10))))
    with caplog.at_level(logging.WARNING):
        again = record_interactions(half, n=20)
    assert again.answered.tolist()[:10] == [True] * 10
    assert f"{(~again.answered).sum()} of 20 recommendations were not answered" in caplog.text


def test_a_log_of_applicants_who_move_says_so_wherever_it_goes_and_is_not_valued_by_one_step(market, tmp_path):
    options = {"market": market, "num_candidates": 4}
    log = record_interactions(gym.make("JobRecCareer-v0", **options), n=60)

    log.save(tmp_path / "log")
    log.write_csv(tmp_path / "log.csv")
    some = [log.take(np.arange(9)), log.split("train"), log.on(market)]
    loaded = [Interactions.load(tmp_path / "log", market), load_interactions(f"csv:{tmp_path / 'log.csv'}", market)]
    loaded.append(load_interactions(tmp_path / "log", market, split_by="time"))
    for one in (log, *some, *loaded):
        assert one.moving and "'moving'" in repr(one)
        for methods in (("dm",), ("ips", "dr")):
            with pytest.raises(LogError, match="applicants who change.*a one-step value says nothing about a career"):
                estimate_all(None, one, methods)

    still = record_interactions(gym.make("JobRecCareer-v0", **options, dynamics={"type": "static"}), n=60)
    still.write_csv(tmp_path / "still.csv")
    assert "moving" not in (tmp_path / "still.csv").read_text().splitlines()[0]
    assert not still.moving and not load_interactions(f"csv:{tmp_path / 'still.csv'}", market).moving
    assert set(estimate_all(None, still, ("ips",))) == {"ips"}


def test_whatever_learns_from_or_scores_by_a_log_of_applicants_who_move_warns(market):
    def made(dynamics):
        env = gym.make("JobRecCareer-v0", market=market, num_candidates=4, dynamics=dynamics)
        return record_interactions(env, n=30)

    log, still = made(None), made({"type": "static"})
    uses = (
        lambda log: next(log.observations()),
        lambda log: next(log.answers()),
        lambda log: log.to_pretrain(),
        lambda log: log.to_obp(),
        lambda log: LoggedSimulator(log).bind(market),
    )
    for use in uses:
        with pytest.warns(UserWarning, match="applicants who change with their answers.*Train and score agents in the"):
            use(log)
        use(still)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for use in uses:
            use(log)
    assert len(said) == 1, "a process says it once"


def test_what_an_agent_saw_of_moving_applicants_cannot_be_shown_again(market):
    with pytest.raises(ValueError, match="`env` must be one whose applicants do not change.*does not keep"):
        ObservationForm.of(gym.make("JobRecCareer-v0", market=market, num_candidates=4))
    ObservationForm.of(gym.make("JobRecCareer-v0", market=market, num_candidates=4, dynamics={"type": "static"}))


def test_another_environment_is_refused(market):
    with pytest.raises(ValueError, match="`env` must be a JobRec-v0"):
        record_interactions(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="`n` must be at least 1"):
        record_interactions(planted(market), n=0)
    for arguments in ({"n": 1.5}, {"n": True}, {"n": 3, "seed": -1}, {"n": 3, "seed": 1.5}):
        with pytest.raises(ValueError, match=r"`(n|seed)` must be at least [01] and a whole number"):
            record_interactions(planted(market), **arguments)
    one, same = (record_interactions(planted(market), n=np.int64(3), seed=seed) for seed in (np.int64(1), 1))
    assert one.job_ids.tolist() == same.job_ids.tolist() and one.reward.tolist() == same.reward.tolist()
