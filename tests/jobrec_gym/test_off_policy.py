"""What a policy would have earned on a log: by hand on three rows, and beside the exact value of a planted market."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import FeedbackReward, Interactions, ObservationForm, RuleSimulator, recommend, record_interactions
from jobrec_gym.counter_rng import hash64
from jobrec_gym.interactions import LogError
from jobrec_gym.off_policy import (
    METHODS,
    RELIABLE_FROM,
    RELIABLE_PEOPLE,
    RidgeRewards,
    action_probabilities,
    estimate,
    estimate_all,
    pair_numbers,
)


class Says:
    """An agent that says the same, whatever it is shown."""

    def __init__(self, values):
        self.values = values

    def q_values(self, observation):
        return self.values


JOBS = [[3, 4], [3, 4], [5, 3]]
POLICY = np.array([[0.9, 0.1], [0.4, 0.6], [0.0, 1.0]])
MODEL = {3: 0.5, 4: 0.25, 5: -1.0}


def model(applicant_ids, job_ids):
    return np.vectorize(MODEL.get)(job_ids) + 0.0 * applicant_ids


@pytest.fixture
def three(market):
    """Recommended 3, 4, 3 with chances .5, .25, .8; worth 1, .5, -.1; the policy's chances are .9, .6, 1."""
    return Interactions.of(market, [0, 1, 2], [3, 4, 3], [1.0, 0.5, -0.1], shown=JOBS, propensity=[0.5, 0.25, 0.8])


WEIGHTS = np.array([0.9 / 0.5, 0.6 / 0.25, 1.0 / 0.8])
REWARDS = np.array([1.0, 0.5, -0.1])
EXPECTED = np.array([0.9 * 0.5 + 0.1 * 0.25, 0.4 * 0.5 + 0.6 * 0.25, 0.5])
FITTED = np.array([0.5, 0.25, 0.5])
BY_HAND = {
    "ips": (1.8 * 1.0 + 2.4 * 0.5 + 1.25 * -0.1) / 3,
    "snips": (1.8 * 1.0 + 2.4 * 0.5 + 1.25 * -0.1) / (1.8 + 2.4 + 1.25),
    "dm": (0.475 + 0.35 + 0.5) / 3,
    "dr": (0.475 + 1.8 * 0.5 + 0.35 + 2.4 * 0.25 + 0.5 + 1.25 * -0.6) / 3,
}


@pytest.mark.parametrize("method", METHODS)
def test_three_rows_by_hand(three, method):
    found = estimate(POLICY, three, method, reward_model=model)

    assert found.value == pytest.approx(BY_HAND[method], abs=1e-12)
    assert (found.method, found.n, found.n_people) == (method, 3, 3)
    assert found.effective_sample_size == pytest.approx((1.8 + 2.4 + 1.25) ** 2 / (1.8**2 + 2.4**2 + 1.25**2))
    assert found.largest_weight == pytest.approx(2.4)
    assert found.mean_weight == pytest.approx((1.8 + 2.4 + 1.25) / 3)
    assert found.effective_people == found.effective_sample_size, "a row for each person"
    assert not found.reliable


@pytest.mark.parametrize("method", METHODS)
def test_three_rows_by_hand_clipped(three, method):
    clipped = np.minimum(WEIGHTS, 1.5)
    by_hand = {
        "ips": (clipped @ REWARDS) / 3,
        "snips": (clipped @ REWARDS) / clipped.sum(),
        "dm": EXPECTED.mean(),
        "dr": (EXPECTED + clipped * (REWARDS - FITTED)).mean(),
    }
    found = estimate(POLICY, three, method, reward_model=model, clip=1.5)

    assert found.value == pytest.approx(by_hand[method], abs=1e-12)
    assert found.clipped == pytest.approx(2 / 3)
    assert found.mean_weight == pytest.approx((1.8 + 2.4 + 1.25) / 3), "before clipping"
    assert found.effective_sample_size == pytest.approx(clipped.sum() ** 2 / (clipped @ clipped))


def test_an_interval_resamples_people_and_not_rows(market):
    """Two people with one answer each, many times: resampling rows would find next to no spread."""
    people = np.repeat([0, 1], 50)
    log = Interactions.of(market, people, [3] * 100, people * 1.0, shown=[[3, 4]] * 100, propensity=[0.5] * 100)
    found = estimate(None, log, "snips")

    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_a_policy_that_never_agrees_with_the_log_has_no_value_by_snips(three):
    never = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    found = estimate_all(never, three, reward_model=model, clip=2.0)

    snips = found["snips"]
    assert np.isnan([snips.value, snips.low, snips.high]).all() and snips.never_agreed and not snips.reliable
    assert str(snips) == (
        "snips: nan [nan, nan] (effective sample size 0 of 3, effective people 0.0 of 3); not reliable: "
        "never agrees with the log (the answers say nothing about the policy: estimate another one)"
    )
    assert (found["ips"].value, found["ips"].low, found["ips"].high) == (0, 0, 0)
    assert found["dr"].value == found["dm"].value == pytest.approx((0.25 + 0.5 - 1.0) / 3)


def test_resamples_in_which_a_policy_never_agrees_are_left_out_of_the_interval(market):
    """Five people, of whom one got what the policy recommends: a third of the resamples do without this person."""
    chances = np.array([[1.0, 0.0], *[[0.0, 1.0]] * 4])
    log = Interactions.of(market, range(5), [3] * 5, [0.5] * 5, shown=[[3, 4]] * 5, propensity=[0.5] * 5)
    found = estimate(chances, log, "snips")
    assert (found.value, found.low, found.high, found.never_agreed) == (0.5, 0.5, 0.5, False)
    (seed,) = [seed for seed in range(9) if estimate(chances, log, "snips", n_resamples=1, seed=seed).low != 0.5][:1]
    assert np.isnan(estimate(chances, log, "snips", n_resamples=1, seed=seed).high)


def test_the_interval_is_that_of_the_resamples(three):
    found = estimate(POLICY, three, "ips", level=0.9, n_resamples=4000)
    rng = np.random.default_rng(7)
    values = (WEIGHTS * REWARDS)[rng.integers(3, size=(4000, 3))].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(np.quantile(values, [0.05, 0.95]), abs=0.06)
    again = estimate(POLICY, three, "ips", level=0.9, n_resamples=4000)
    assert (again.low, again.high) == (found.low, found.high), "the same seed"


def test_an_unanswered_row_is_left_out(market, three):
    more = Interactions.of(
        market,
        [*three.applicant_ids, 3],
        [*three.job_ids, 4],
        [*three.reward, np.nan],
        shown=[*JOBS, [4, 3]],
        propensity=[*three.propensity, 0.01],
    )
    chances = np.concatenate([POLICY, [[1.0, 0.0]]])
    for method in METHODS:
        assert estimate(chances, more, method, reward_model=model).value == pytest.approx(BY_HAND[method])


def test_sets_of_several_sizes_are_scored_each_in_its_own(market):
    log = Interactions.of(
        market, [0, 1, 2], [3, 4, 3], [1.0, 0.5, 0.0], shown=[[3, 4], [3, 4, 5, 6], [5, 3]], propensity=[0.5, 0.5, 0.5]
    )
    found = estimate(lambda obs: np.full(obs["candidates"].shape[:2], 1 / obs["candidates"].shape[1]), log, "ips")

    assert found.value == pytest.approx((1.0 * 1.0 + 0.5 * 0.5 + 0.0) / 3)
    assert estimate(None, log, "ips").value == found.value
    with pytest.raises(ValueError, match="sets of one size"):
        estimate(POLICY, log, "ips")


# ------------------------------------------------------------------------------------------------------------- policies


class Prefers:
    """Likes jobs by a number; knows what it reads."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.reads = {"observation": "ids"}

    def q_values(self, obs):
        return self.values[obs["candidates"]]


def test_an_agent_is_played_greedily_or_with_epsilon(three):
    agent = Prefers([0, 0, 0, 1, 2, 3])
    obs = next(three.observations(ObservationForm("ids")))[1]

    assert action_probabilities(agent, obs).tolist() == [[0, 1], [0, 1], [1, 0]]
    np.testing.assert_allclose(action_probabilities(agent, obs, 0.2), [[0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])
    assert estimate(agent, three, "ips").value == pytest.approx(0.5 / 0.25 / 3)


def test_what_is_masked_has_no_chance():
    obs = {"candidates": np.array([[3, 4, 5]]), "action_mask": np.array([[1, 0, 1]], np.int8)}
    assert action_probabilities(None, obs).tolist() == [[0.5, 0.0, 0.5]]
    assert action_probabilities(Prefers([0, 0, 0, 1, 9, 2]), obs, 0.5).tolist() == [[0.25, 0.0, 0.75]]


def test_an_agent_that_says_what_it_reads_is_shown_a_mask(three):
    shown = []

    class Wary(Prefers):
        def q_values(self, obs):
            shown.append(obs["action_mask"].tolist())
            return super().q_values(obs)

    estimate(Wary([0, 0, 0, 1, 2, 3]), three, "ips")
    assert shown == [[[1, 1]] * 3]


def test_what_the_policy_favours_and_nobody_was_recommended_is_named(market, three):
    found = estimate(Prefers([0, 0, 0, 1, 2, 3]), three, "ips")

    (job,) = found.never_recommended
    assert (job.job_id, job.key, job.title) == (5, market.jobs.keys[5], market.job(5).title)
    assert job.share == pytest.approx(1 / 3) == found.never_recommended_share
    assert estimate(Prefers([0, 0, 0, 3, 2, 1]), three, "ips").never_recommended == ()


def test_a_job_whose_recommendations_were_not_answered_is_named_too(market):
    shown, reward = [[3, 4]] * 4, [1.0, 0.0, np.nan, np.nan]
    log = Interactions.of(market, range(4), [3, 3, 4, 4], reward, shown=shown, propensity=[0.5] * 4)
    found = estimate(Prefers([0, 0, 0, 1, 2]), log, "ips")

    assert [job.job_id for job in found.never_recommended] == [4]
    assert found.never_recommended_share == 1


# ------------------------------------------------------------------------------------------------------ what is doubted


def logged(market, n_people, n_each, propensity, *, always_first=False, k=3):
    """A log in which a site chose among k jobs; for the rewards, see below."""
    rng = np.random.default_rng(3)
    people = np.repeat(np.arange(n_people), n_each)
    sets = np.stack([rng.permutation(60)[:k] for _ in people])
    place = np.zeros(len(people), int) if always_first else rng.integers(k, size=len(people))
    # Some people like everything better than others do, and the first job is worth more.
    reward = 0.4 * rng.normal(size=n_people)[people] + 0.2 * (place == 0) + 0.1 * rng.normal(size=len(people))
    jobs = sets[np.arange(len(people)), place]
    return Interactions.of(market, people, jobs, reward, shown=sets, propensity=np.full(len(people), propensity))


@pytest.mark.parametrize(
    ("propensity", "always_first", "mean"),
    [(1.0, True, "0.33"), (1 / 60, False, "20.00")],
    ids=["the site never chooses most jobs", "propensities of a choice among all jobs"],
)
def test_a_mean_weight_that_is_not_1_is_doubted(market, propensity, always_first, mean):
    found = estimate(None, logged(market, 40, 10, propensity, always_first=always_first), "snips")

    assert found.effective_sample_size > RELIABLE_FROM and found.effective_people > RELIABLE_PEOPLE
    assert not found.reliable
    (doubt,) = found.doubts
    assert doubt.what == f"mean weight {mean}, not 1"
    assert "log the probability of the recommended job among all jobs in `shown`" in doubt.advice
    assert str(doubt) in str(found)


def test_chance_and_rounded_propensities_explain_a_mean_weight_near_1(market):
    log = logged(market, 40, 10, 0.33)
    uniform, other = estimate(None, log, "ips"), estimate(np.tile([0.6, 0.2, 0.2], (400, 1)), log, "ips")

    assert uniform.mean_weight == pytest.approx(1.01, abs=1e-3) and uniform.reliable
    assert other.mean_weight != pytest.approx(1, abs=0.02) and other.reliable


def test_recommendations_without_an_answer_count_for_the_mean_weight(market):
    log = logged(market, 40, 10, 1 / 3)
    # Only recommendations that the policy likes were answered.
    reward = np.where(log.chosen == 0, log.reward, np.nan)
    some = Interactions.of(
        market, log.applicant_ids, log.job_ids, reward, shown=log.sets(np.arange(400)), propensity=log.propensity
    )
    policy = np.tile([0.6, 0.2, 0.2], (400, 1))
    assert estimate(policy, some, "ips").mean_weight == estimate(policy, log, "ips").mean_weight


def test_many_rows_of_few_people_are_not_reliable(market):
    few, many = estimate(None, logged(market, 4, 100, 1 / 3), "dr"), estimate(None, logged(market, 40, 10, 1 / 3), "dr")

    assert few.effective_sample_size == many.effective_sample_size == pytest.approx(400)
    assert (few.effective_people, many.effective_people) == pytest.approx((4, 40))
    assert many.reliable and many.doubts == ()
    assert [doubt.what for doubt in few.doubts] == ["fewer than 30 effective people"] and not few.reliable
    assert "effective people 4.0 of 4); not reliable: fewer than 30 effective people (log answers of" in str(few)


def test_people_count_by_the_sums_of_their_weights(market):
    """Two rows of person 0, one of person 1: the weights are 1, 3 and 2."""
    log = Interactions.of(
        market, [0, 0, 1], [3, 4, 3], [1.0, 0.5, 0.0], shown=[[3, 4]] * 3, propensity=[0.5, 0.25, 0.25]
    )
    found = estimate(np.array([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]]), log, "ips")
    assert found.effective_people == pytest.approx((4 + 2) ** 2 / (4**2 + 2**2))


def test_an_estimate_by_a_model_alone_is_never_called_reliable(market):
    log = logged(market, 40, 10, 1 / 3)
    found = estimate(None, log, "dm")

    assert not found.reliable
    assert "(400 answers of 40 people); not reliable: relies on its model alone" in str(found)
    assert "effective" not in str(found)


# ----------------------------------------------------------------------------------------------------------- a baseline


@pytest.mark.parametrize("method", METHODS)
def test_the_difference_from_a_baseline_is_paired(market, method):
    log = logged(market, 40, 20, 1 / 3)
    policy, other = np.tile([0.8, 0.1, 0.1], (800, 1)), np.tile([0.1, 0.8, 0.1], (800, 1))
    found, baseline = estimate(policy, log, method, baseline=other), estimate(other, log, method)

    less = found.difference
    assert less.value == pytest.approx(found.value - baseline.value, abs=1e-12)
    assert less.low < less.value < less.high
    share = 0.6 if method != "dm" else 1
    assert less.high - less.low < share * (found.high - found.low), "people differ more than policies do"
    assert less.reliable == (method != "dm")
    assert f", less the baseline {less.value:+.4f} [{less.low:+.4f}, {less.high:+.4f}] (" in str(found)
    alone = estimate(policy, log, method)
    assert alone.difference is None
    assert (found.value, found.low, found.high) == (alone.value, alone.low, alone.high)


def test_the_interval_of_a_difference_is_that_of_the_resamples(market):
    """Three people; a resample of one person's rows alone has the difference of this person."""
    log = Interactions.of(market, [0, 1, 2], [3, 4, 3], [1.0, 0.5, -0.1], shown=JOBS, propensity=[0.5, 0.25, 0.8])
    weights = 0.5 / log.propensity
    less = estimate(POLICY, log, "ips", baseline="uniform", n_resamples=4000).difference

    each = (WEIGHTS - weights) * REWARDS
    drawn = each[np.random.default_rng(7).integers(3, size=(4000, 3))].mean(axis=1)
    assert less.value == pytest.approx(each.mean())
    assert (less.low, less.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.06)


def test_a_policy_does_not_differ_from_itself(market, three):
    agent = Prefers([0, 0, 0, 1, 2, 3])
    for policy, baseline, epsilon in ((agent, agent, 0.2), (None, "uniform", 0.0), (POLICY, POLICY, 0.0)):
        less = estimate(policy, three, "ips", baseline=baseline, epsilon=epsilon).difference
        assert (less.value, less.low, less.high) == (0, 0, 0)


def test_a_difference_from_an_unreliable_estimate_is_unreliable(market):
    log = logged(market, 40, 10, 1 / 3)
    rare = np.where(np.arange(400)[:, None] < 20, [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    found = estimate(None, log, "ips", baseline=rare)
    assert found.reliable and not found.difference.reliable


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_a_log_without_propensities_is_refused_with_the_reason(market, method):
    log = Interactions.of(market, [0, 1], [3, 4], [1.0, 0.0], shown=[[3, 4]] * 2)
    with pytest.raises(LogError, match=r'need the propensity of each.*use method="dm" .*`methods=\["dm"\]`'):
        estimate(None, log, method)
    found = estimate(None, log, "dm", reward_model=model)
    assert found.value == pytest.approx(0.375)
    assert not found.reliable and np.isnan(found.effective_sample_size)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shown": None}, "does not say what else was shown"),
        ({"reward": [np.nan, np.nan]}, "none of the 2 rows of the log has an answer"),
        ({"people": [0, 0]}, "the log has only one person"),
    ],
)
def test_a_log_that_says_too_little_is_refused(market, changes, message):
    shown = changes.get("shown", [[3, 4]] * 2)
    reward = changes.get("reward", [1.0, 0.0])
    log = Interactions.of(market, changes.get("people", [0, 1]), [3, 4], reward, shown=shown, propensity=[0.5, 0.5])
    with pytest.raises(LogError, match=message):
        estimate(None, log, "ips")


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        (None, {"method": "dre"}, "`method` must be one of"),
        (None, {"clip": 0.0}, "`clip` must be above 0"),
        (None, {"level": 95}, r"`level` must be in \(0, 1\)"),
        (None, {"n_resamples": 0}, "`n_resamples` must be at least 1"),
        (None, {"method": "dr", "n_folds": 1}, "`n_folds` must be at least 2"),
        (None, {"method": "dr", "n_folds": 2.5}, "`n_folds` must be at least 2 and a whole number, got 2.5"),
        (None, {"n_resamples": True}, "`n_resamples` must be at least 1 and a whole number, got True"),
        (None, {"seed": 1.5}, "`seed` must be at least 0 and a whole number, got 1.5"),
        (None, {"seed": -1}, "`seed` must be at least 0 and a whole number, got -1"),
        (None, {"method": "dm", "reward_model": lambda a, j: np.zeros(3)}, "`reward_model` must give finite rewards"),
        (Prefers([0] * 9), {"epsilon": 2.0}, r"`epsilon` must be in \[0, 1\]"),
        (lambda obs: POLICY, {"epsilon": 0.1}, "`epsilon` is only for agents"),
        (POLICY, {"epsilon": 0.1}, "`epsilon` is only for agents .* an array holds the probabilities itself"),
        (lambda obs: POLICY[:, :1], {}, r"must give probabilities \(3, 2\)"),
        (lambda obs: POLICY * 2, {}, "sum to 1, row 0"),
        (lambda obs: POLICY - [[0.0, 1.0]], {}, "sum to 1, row 0"),
        ("cosine", {}, "`policy` must have `q_values`"),
        (Says(np.full((3, 2), np.nan)), {}, "`policy` must give finite values"),
        (Says(np.zeros(3)), {}, r"`policy` must give values \(3, 2\), a row for each decision, got \(3,\)"),
        (None, {"baseline": "unifrom"}, '`baseline` must be a policy, "uniform" for a uniform choice, or None'),
        (None, {"baseline": POLICY[:, :1]}, r"`baseline` must give probabilities \(3, 2\)"),
        (None, {"baseline": lambda obs: POLICY * 2}, "`baseline` must give rows of probabilities that sum to 1"),
        (None, {"baseline": Says(np.zeros(3))}, r"`baseline` must give values \(3, 2\)"),
        (None, {"baseline": 3}, "`baseline` must have `q_values`"),
    ],
)
def test_what_cannot_be_is_refused_by_name(three, policy, options, message):
    with pytest.raises(ValueError, match=message):
        estimate(policy, three, **{"method": "ips", **options})


# ------------------------------------------------------------------------------------------------------ the model of DM


def test_a_ridge_regression_finds_a_square():
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(500, 3))
    reward = 1 + numbers[:, 0] - numbers[:, 1] * numbers[:, 2] + 0.5 * numbers[:, 1] ** 2

    fitted = RidgeRewards(numbers, reward, penalty=1e-6)
    np.testing.assert_allclose(fitted(numbers[:7]), reward[:7], atol=1e-6)
    flat = RidgeRewards(np.ones((5, 2)), np.arange(5.0))
    assert flat(np.ones((1, 2))) == pytest.approx(2.0)


def test_what_differs_by_rounding_alone_says_nothing_of_other_pairs():
    """Two cosines that are equal but for float32: scaled to a standard deviation of 1, another would be a million."""
    numbers = np.array([[0.70710677, 1e-7], [0.70710695, 1e-7], [0.70710677, 3e-7]], np.float32)
    fitted = RidgeRewards(numbers, np.array([1.0, 0.0, 1.0]))

    assert fitted([[0.1, 1e-7]]) == pytest.approx(fitted([[0.7, 1e-7]]))
    assert fitted([[0.7, 3e-7]]) > fitted([[0.7, 1e-7]]), "small numbers count as any others"


def test_the_model_of_a_person_has_not_seen_them(market):
    """One person's answers are absurd: their own model, fitted on the others, knows nothing of it."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(10), 20)
    sets = np.stack([rng.permutation(60)[:4] for _ in people])
    reward = np.where(people == 3, 1e6, 0.0)
    log = Interactions.of(market, people, sets[:, 0], reward, shown=sets, propensity=[0.25] * 200)

    first = np.zeros((200, 4))
    first[:, 0] = 1.0
    seen = []

    def features(applicant_ids, job_ids):
        seen.append((applicant_ids.shape, job_ids.shape))
        return pair_numbers(market, applicant_ids, job_ids)

    found = estimate(first, log, "dm", reward_features=features, n_folds=10)
    assert seen == [((200, 1), (200, 4))]
    # In nine of ten folds the person's rewards lift the mean; in their own they do not.
    assert 0 < found.value < 1e6 * 0.1


def test_features_of_ones_own_are_asked_by_set_and_checked(market):
    """Two sizes of sets: each pair keeps its own numbers, whatever the order in which the sets are asked about."""
    rng = np.random.default_rng(2)
    people = np.repeat(np.arange(20), 5)
    sets = [rng.permutation(60)[: 2 + row % 2] for row in range(100)]
    reward = rng.normal(size=100)
    log = Interactions.of(market, people, [jobs[0] for jobs in sets], reward, shown=sets, propensity=[0.5] * 100)

    found = estimate(None, log, "dr", reward_features=lambda a, j: pair_numbers(market, a, j))
    assert found == estimate(None, log, "dr")

    sizes_differ = lambda a, j: np.zeros((*j.shape, j.shape[1]))  # noqa: E731
    for wrong in (lambda a, j: np.zeros(j.shape), lambda a, j: np.full((*j.shape, 2), np.nan), sizes_differ):
        with pytest.raises(ValueError, match="`reward_features` must give finite numbers of each pair"):
            estimate(None, log, "dm", reward_features=wrong)


def test_an_agent_of_another_catalogue_is_refused(market):
    """Its ids would be looked up in its own table, where they are other jobs."""
    sets = [[0, 1, 2]] * 4
    log = Interactions.of(market, range(4), [0, 1, 2, 0], [1.0, 0.0, 1.0, 0.0], shown=sets, propensity=[0.3] * 4)

    class Agent(Says):
        reads = {"observation": "ids"}  # noqa: RUF012
        action_table = SimpleNamespace(values=market.jobs.vectors.copy())

    agent = Agent(np.zeros((4, 3)))
    assert estimate(agent, log, "ips").n == 4
    agent.action_table.values = market.jobs.vectors[::-1].copy()
    with pytest.raises(ValueError, match="`policy` looks up ids in a table of 60 jobs, but this market has another"):
        estimate(agent, log, "ips")
    with pytest.raises(ValueError, match="`policy` looks up ids"):
        estimate(agent, log, "ips", form=ObservationForm("ids"))
    env = gym.make("JobRec-v0", market=market, observation="ids", num_candidates=3)
    with pytest.raises(ValueError, match="`policy` looks up ids"):
        record_interactions(env, agent, n=5)


def test_job_fields_do_not_matter_to_an_agent_that_reads_ids(market):
    """No observation of ids shows them: an agent was trained with the titles, or the environment has them."""
    sets = [[0, 1, 2]] * 4
    log = Interactions.of(market, range(4), [0, 1, 2, 0], [1.0, 0.0, 1.0, 0.0], shown=sets, propensity=[0.3] * 4)
    for own, others in (["title"], ()), ([], ("title",)):
        agent = Says(np.zeros((4, 3)))
        agent.reads = {"observation": "ids", "job_fields": own}
        agent.action_table = SimpleNamespace(values=market.action_features(own).copy())
        assert estimate(agent, log, "ips", form=ObservationForm("ids", others)).n == 4
        agent.values = np.zeros((1, 3))
        options = {"market": market, "observation": "ids", "num_candidates": 3}
        env = FeedbackReward(gym.make("JobRec-v0", **options, job_fields=others), RuleSimulator(seed=0))
        assert len(record_interactions(env, agent, n=3)) == 3


@pytest.mark.parametrize("knows", ["env", "argument", "closed"])
def test_an_agent_with_features_of_its_own_reads_the_ids_of_its_environment(market, knows):
    """`action_features=` of an agent: the ids are the environment's, their features are not."""

    def refused(name):
        raise gym.error.ClosedEnvironmentError

    sets = [[0, 1, 2]] * 4
    log = Interactions.of(market, range(4), [0, 1, 2, 0], [1.0, 0.0, 1.0, 0.0], shown=sets, propensity=[0.3] * 4)

    class Agent(Says):
        reads = {"observation": "ids"}  # noqa: RUF012
        action_table = SimpleNamespace(values=np.eye(60))
        env = {
            "env": SimpleNamespace(get_attr=lambda name: [market.action_features().copy()]),
            "closed": SimpleNamespace(get_attr=refused),
            "argument": None,
        }[knows]
        action_features = action_table.values

    agent = Agent(np.zeros((4, 3)))
    assert estimate(agent, log, "ips").n == 4
    scored = Agent(np.arange(60.0))
    assert [one.job_id for one in recommend(scored, market, 0, n=2)] == [59, 58]
    if knows == "env":
        Agent.env = SimpleNamespace(get_attr=lambda name: [market.action_features()[::-1]])
        with pytest.raises(ValueError, match="`policy` looks up ids"):
            estimate(agent, log, "ips")


def test_pair_numbers_are_cosines_of_blocks_and_pair_features(market):
    numbers = pair_numbers(market, np.array([[0], [1]]), np.array([[3, 4, 5]]))
    dim = market.block_dim
    hard = market.applicants.vectors[1, :dim] @ market.jobs.vectors[5, :dim]

    assert numbers.shape == (2, 3, 5)
    assert numbers[1, 2, 0] == pytest.approx(hard, abs=1e-6)
    assert numbers[..., :2].sum(axis=-1) == pytest.approx(
        market.applicants.vectors[:2] @ market.jobs.vectors[3:6].T, abs=1e-5
    )
    assert ((numbers[..., 2:] >= 0) & (numbers[..., 2:] <= 1)).all()


# ----------------------------------------------------------------------------------------------------- a planted market


@pytest.fixture(scope="module")
def planted(market):
    """A log of 8,000 by noisy cosine, and the exact value of a policy by what skills are shared."""
    truth = RuleSimulator(seed=0, noise=0.5).bind(market)
    rng = np.random.default_rng(1)
    people = np.arange(8_000) % 40
    sets = np.stack([rng.permutation(60)[:5] for _ in people])
    numbers = pair_numbers(market, people[:, None], sets)

    def softmax(scores):
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        return chances / chances.sum(axis=1, keepdims=True)

    behaviour, policy = softmax(numbers[..., 0]), softmax(2 * numbers[..., 2:].sum(axis=-1))
    chosen = (behaviour.cumsum(axis=1) > rng.random((8_000, 1))).argmax(axis=1)
    rows = np.arange(8_000)
    answers = truth.feedback(people, sets[rows, chosen], hash64(5, rows))
    log = Interactions.of(
        market, people, sets[rows, chosen], answers.reward, shown=sets, propensity=behaviour[rows, chosen]
    )
    return log, policy, float((policy * truth.expected_reward(people[:, None], sets)).sum(axis=1).mean()), truth


@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_the_exact_value_of_a_planted_market_is_inside_the_interval(planted, method):
    log, policy, exact, _ = planted
    found = estimate(policy, log, method)

    assert found.reliable and found.effective_sample_size > RELIABLE_FROM
    assert found.low < exact < found.high
    assert found.value == pytest.approx(exact, abs=0.03)
    assert abs(exact - log.reward.mean()) > 0.05, "the log's own value is another"


def test_the_true_rewards_as_a_model_leave_no_error_to_dm_and_less_to_dr(planted):
    log, policy, exact, truth = planted
    found = estimate_all(policy, log, ("dm", "dr"), reward_model=truth.expected_reward)

    assert found["dm"].value == pytest.approx(exact, abs=1e-9)
    assert found["dr"].value == pytest.approx(exact, abs=0.015)


def test_an_estimate_is_a_line(planted):
    log, policy, *_ = planted
    assert str(estimate(policy, log, "snips")).startswith("snips: 0.")
    few = str(estimate(policy[:50], log.take(np.arange(50)), "snips"))
    assert "); not reliable: effective sample size below 200 (log more answers, or" in few and "\n" not in few


def test_a_seed_of_numpy_is_the_same_seed(market):
    rows = np.arange(12)
    shown = np.stack([rows, rows + 1], axis=1)
    log = Interactions.of(market, rows, rows, rows / 12, shown=shown, propensity=np.full(12, 0.5))
    judge = np.random.default_rng(0).normal(size=(len(market.applicants), len(market.jobs)))
    for options in ({"method": "dm"}, {"judge": judge}):
        assert estimate(None, log, seed=np.int64(3), **options) == estimate(None, log, seed=3, **options)
