"""Few real answers beside a judge of everything: the mean by hand, its interval, and a judge who knows nothing."""

import numpy as np
import pytest
from noting import Noting

from jobrec_gym import Feedback, Interactions, RecordedSimulator, RuleSimulator, load_market
from jobrec_gym.off_policy import estimate, estimate_all
from jobrec_gym.prediction_powered import powered_mean, t_quantile


def drawn(rng, n, n_judged, error):
    """Answers of n people, what a judge says of them and of all, and the exact mean."""
    truth = rng.normal(0.5, 1.0, n_judged)
    judged = truth + error * rng.normal(size=n_judged)
    answers = truth[:n] + 0.2 * rng.normal(size=n)
    return answers, judged[:n], np.arange(n), judged, np.arange(n_judged)


def test_students_t_has_the_quantiles_of_the_tables():
    wanted = {1: 12.706, 2: 4.303, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 1_000: 1.962}
    for degrees, quantile in wanted.items():
        assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=6e-4)


def test_a_judge_who_is_right_narrows_the_interval_and_one_who_knows_nothing_does_not():
    rng = np.random.default_rng(0)
    alone = powered_mean(*drawn(rng, 50, 2_000, error=100.0))
    right = powered_mean(*drawn(rng, 50, 2_000, error=0.1))

    assert alone.weight < 0.05 and 0.8 < right.weight < 49 / 55, "as if six more people had found it worthless"
    assert right.high - right.low < 0.5 * (alone.high - alone.low)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [powered_mean(*drawn(rng, 20, 500, error=0.5), level=0.8) for _ in range(400)]

    assert 0.75 < np.mean([one.low <= 0.5 <= one.high for one in found]) < 0.86


def test_a_judge_of_the_answered_alone_leaves_their_mean_as_it_is():
    rng = np.random.default_rng(2)
    answers, judged, person, _, _ = drawn(rng, 30, 30, error=0.1)
    found = powered_mean(answers, judged, person, judged, person)

    assert found.value == pytest.approx(answers.mean(), abs=1e-12)
    half = t_quantile(0.975, 29) * answers.std(ddof=1) / np.sqrt(30)
    assert found.high - found.value == pytest.approx(half, rel=1e-9)


def test_the_answers_of_one_person_are_not_counted_as_those_of_many():
    rng = np.random.default_rng(3)
    answers, judged, person, predicted, owner = drawn(rng, 40, 400, error=100.0)
    once = powered_mean(answers, judged, person, predicted, owner)
    again = powered_mean(np.tile(answers, 4), np.tile(judged, 4), np.tile(person, 4), predicted, owner)

    assert (again.high - again.low) == pytest.approx(once.high - once.low, rel=0.05)


@pytest.fixture
def log(market):
    """60 people with two decisions, a third of them answered; recommended by chance between two jobs."""
    rng = np.random.default_rng(4)
    people, shown = np.repeat(np.arange(40), 3), rng.random((120, 60)).argsort(axis=1)[:, :2]
    reward = np.where(np.arange(120) % 3 == 0, shown[:, 0] / 60 + 0.05 * rng.normal(size=120), np.nan)
    return Interactions.of(market, people, shown[:, 0], reward, shown=shown, propensity=np.full(120, 0.5))


def test_an_estimate_with_a_judge_is_the_powered_mean_of_weighted_rewards(market, log):
    table = np.tile(np.arange(60) / 60, (40, 1))
    policy = np.tile([0.8, 0.2], (120, 1))
    found = estimate(policy, log, judge=table)
    by_function = estimate(policy, log, judge=lambda applicant_ids, job_ids: table[applicant_ids, job_ids])

    answered, weights = log.answered, 0.8 / 0.5
    said = table[log.applicant_ids[:, None], log.sets(np.arange(120))]
    wanted = powered_mean(
        weights * log.reward[answered],
        weights * said[answered, 0],
        log.applicant_ids[answered],
        (policy * said).sum(axis=1),
        log.applicant_ids,
    )
    assert (found.value, found.low, found.high, found.judge_weight) == wanted
    assert by_function == found
    assert found.n == 40 and found.judge_weight > 0.8
    alone = estimate(policy, log, "ips")
    assert found.high - found.low < 0.5 * (alone.high - alone.low)
    assert np.isnan(alone.judge_weight)


def test_a_difference_with_a_judge_is_the_powered_mean_of_differences(market, log):
    table = np.tile(np.arange(60) / 60, (40, 1))
    policy = np.tile([0.8, 0.2], (120, 1))
    less = estimate(policy, log, judge=table, baseline="uniform").difference

    answered, weights = log.answered, (0.8 - 0.5) / 0.5
    said = table[log.applicant_ids[:, None], log.sets(np.arange(120))]
    wanted = powered_mean(
        weights * log.reward[answered],
        weights * said[answered, 0],
        log.applicant_ids[answered],
        ((policy - 0.5) * said).sum(axis=1),
        log.applicant_ids,
    )
    assert (less.value, less.low, less.high) == pytest.approx(wanted[:3], abs=1e-12)


def test_a_judge_counts_by_how_well_it_agrees_if_some_recommendations_have_no_answer():
    """As on the page "Bring your model": one job is shown, and the judge was asked about nothing else."""
    recorded, rng = load_market("recorded"), np.random.default_rng(0)
    people, jobs = rng.integers(120, size=200), rng.integers(40, size=200)
    truth = RuleSimulator(seed=0, noise=0.5).bind(recorded)
    reward = truth.feedback(people, jobs, rng.integers(2**64, size=200, dtype=np.uint64)).reward
    some = np.where(np.arange(200) < 40, reward, np.nan)
    logs = [
        Interactions.of(recorded, people, jobs, r, shown=jobs[:, None], propensity=np.ones(200)) for r in (some, reward)
    ]
    said = {"truth": truth.expected_reward(people, jobs), "noise": rng.normal(size=200)}
    weights = {}
    for name, values in said.items():
        table = np.full((120, 40), np.nan)
        table[people, jobs] = values
        weights[name] = estimate(None, logs[0], judge=table).judge_weight
        with pytest.warns(UserWarning, match="every recommendation that it judged was answered"):
            assert estimate(None, logs[1], judge=table).judge_weight == 0
    assert weights["truth"] > 0.5 > 0.1 > weights["noise"]


class Answers(Noting):
    """A simulator that answers by the job, about no job above 30."""

    def answers(self, job_ids):
        status = np.where(job_ids > 30, "cosine:budget", "ok")
        return Feedback.of(["ignore"] * len(job_ids), job_ids / 60, status=status)


def test_a_pair_that_was_not_judged_counts_as_the_mean_of_the_others(log):
    table = np.tile(np.where(np.arange(60) > 30, np.nan, np.arange(60) / 60), (40, 1))
    shown = log.sets(np.arange(120)).ravel()
    filled = np.where(np.isnan(table), shown[shown <= 30].mean() / 60, table)
    n_missing = int((shown > 30).sum())
    wanted = estimate(None, log, judge=filled)
    for judge in (table, lambda applicant_ids, job_ids: table[applicant_ids, job_ids], Answers()):
        with pytest.warns(UserWarning, match=f"`judge` did not judge {n_missing} of 240 shown pairs"):
            found = estimate(None, log, judge=judge)
        assert (found.value, found.judge_weight) == pytest.approx((wanted.value, wanted.judge_weight), abs=1e-12)


def test_a_simulator_judges_each_shown_pair_once(market, log):
    asked, twice = Answers(), log.take(np.tile(np.arange(120), 2))
    with pytest.warns(UserWarning, match="did not judge"):
        estimate(None, twice, judge=asked)
    pairs = {(a, j) for a, jobs in zip(log.applicant_ids.tolist(), log.sets(np.arange(120)), strict=True) for j in jobs}
    assert len(asked.asked) == len(pairs) and set(asked.asked) == pairs


def test_simulators_and_their_specs_judge_by_the_rewards_that_they_expect(market, log):
    rules = RuleSimulator(seed=0, noise=0.5)
    wanted = estimate(None, log, judge=rules.bind(market).expected_reward)
    for judge in (rules, rules.to_spec(), rules.bind(market)):
        assert estimate(None, log, judge=judge) == wanted

    recorded, rng = load_market("recorded"), np.random.default_rng(0)
    people, jobs = np.arange(120), rng.integers(40, size=120)
    reward = np.where(np.arange(120) < 40, rng.normal(size=120), np.nan)
    few = Interactions.of(recorded, people, jobs, reward, shown=jobs[:, None], propensity=np.ones(120))
    wanted = estimate(None, few, judge=RecordedSimulator().bind(recorded).expected_reward)
    for judge in ({"type": "recorded"}, RecordedSimulator()):
        assert estimate(None, few, judge=judge) == wanted


def test_what_a_judge_stands_in_place_of_is_refused(log):
    table = np.zeros((40, 60))
    with pytest.raises(ValueError, match='reward model of `method="dr"`, got'):
        estimate_all(None, log, judge=table)
    with pytest.raises(ValueError, match="`reward_model` and `reward_features`, got one or both"):
        estimate(None, log, judge=table, reward_model=lambda applicant_ids, job_ids: job_ids + 0.0)
    with pytest.raises(ValueError, match=r"`clip` must be None beside `judge`, got 2.0: .* Leave out `clip`, or"):
        estimate(None, log, judge=table, clip=2.0)
    with pytest.raises(ValueError, match=r"an array \(n_applicants, n_jobs\) = \(40, 60\), .* got ndarray \(2, 2\)"):
        estimate(None, log, judge=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="`judge` must give finite rewards"):
        estimate(None, log, judge=np.full((40, 60), np.nan))
    with pytest.raises(ValueError, match="`judge` must give finite rewards .* some are infinite"):
        estimate(None, log, judge=np.full((40, 60), np.inf))
    with pytest.raises(ValueError, match=r"`judge` must be an array .* or a simulator, got object"):
        estimate(None, log, judge=object())
    with pytest.raises(ValueError, match=r"`judge` must give finite rewards \(120, 2\), got no array of numbers"):
        estimate(None, log, judge=lambda applicant_ids, job_ids: Feedback.of(["apply"], [1.0]))
    with pytest.raises(ValueError, match="must be one of .* or 'module:Class', got 'rule'"):
        estimate(None, log, judge={"type": "rule"})
    with pytest.raises(ValueError, match="`judge` is bound to market 'recorded', whose people or jobs are others"):
        estimate(None, log, judge=RuleSimulator(seed=0).bind(load_market("recorded")))


def test_a_judge_of_two_people_is_refused():
    with pytest.raises(ValueError, match="answers of 3 people or more, got 2"):
        powered_mean(np.ones(4), np.ones(4), np.array([0, 0, 1, 1]), np.ones(9), np.arange(9))
