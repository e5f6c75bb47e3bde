from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.learners.opponents import CosineRecommender, OracleRecommender, RandomRecommender
from experiments.runs.build import build
from experiments.runs.evaluation import (
    HeldOutEvaluation,
    HeldOutPairs,
    choice_metrics,
    draw_pairs,
    exposure,
    outcomes_by_family,
    prediction_quality,
    random_metrics,
    ranking_metrics,
)

# Two applicants with three candidates each; job 9 could have been shown too.
PAIRS = HeldOutPairs(
    obs={},
    applicant_ids=np.array([7, 3]),
    candidate_ids=np.array([[0, 1, 2], [1, 2, 3]]),
    expected=np.array([[1.0, 0.0, 0.5], [-0.1, 0.5, 0.0]]),
    applies=np.array([[True, False, False], [False, False, False]]),
    cosine=np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]),
    n_jobs=4,
    families=np.array(["care", "trades"]),
)


@pytest.fixture
def world(small):
    return build(small("algo=random"))


def test_metrics_of_a_case_done_by_hand():
    metrics = ranking_metrics(PAIRS, np.array([[1, 3, 2], [1, 3, 2]]))  # chooses jobs 1 and 2

    assert metrics["mean_reward"] == pytest.approx((0.0 + 0.5) / 2)
    assert metrics["regret"] == pytest.approx((1.0 + 0.0) / 2)
    random, oracle = (1.5 / 3 + 0.4 / 3) / 2, (1.0 + 0.5) / 2
    assert metrics["score"] == pytest.approx((0.25 - random) / (oracle - random))
    assert metrics["apply_rate"] == 0.0
    assert metrics["cosine"] == pytest.approx((0.8 + 0.5) / 2)
    # The second applicant would apply nowhere and does not count; the first one's job stands last.
    assert metrics["mrr"] == pytest.approx(1 / 3)
    assert [metrics[f"hit_rate@{k}"] for k in (1, 5, 10)] == [0.0, 1.0, 1.0]
    log3 = np.log2(3)
    first, second = (0.5 / log3 + 1.0 / 2) / (1.0 + 0.5 / log3), 1.0
    assert metrics["ndcg@10"] == pytest.approx((first + second) / 2)
    assert metrics["coverage"] == 0.5
    assert metrics["gini"] == pytest.approx(0.5)


def test_values_of_a_diverged_agent_rank_last_with_a_warning(caplog):
    nan = float("nan")
    found = ranking_metrics(PAIRS, np.array([[1.0, nan, 2.0], [nan, nan, nan]]))

    assert found == ranking_metrics(PAIRS, np.array([[1.0, -9.0, 2.0], [0.0, 0.0, 0.0]]))
    assert [record.getMessage() for record in caplog.records] == [
        "67 % of the agent's values are NaN, so it has diverged; they rank last"
    ]


def test_outcomes_of_a_diverged_agent_are_those_of_the_choices_that_are_scored(world):
    class Diverged:
        def q_values(self, obs):
            values = np.tile(np.arange(5.0), (len(obs["candidates"]), 1))
            values[:, 2] = np.nan
            return values

    evaluation = world.evaluation
    parts = evaluation.outcomes(Diverged())["by_family"].values()
    mean = sum(part["n_pairs"] * part["mean_reward"] for part in parts) / len(evaluation.pairs)
    assert mean == pytest.approx(evaluation(Diverged())["mean_reward"])


def test_outcomes_of_families_are_those_of_their_applicants():
    outcomes = outcomes_by_family(PAIRS, np.array([1, 1]))

    assert list(outcomes) == ["care", "trades"]
    assert outcomes["care"] == {
        "n_pairs": 1,
        "score": pytest.approx(-1.0),
        "mean_reward": 0.0,
        "regret": 1.0,
        "apply_rate": 0.0,
    }
    assert outcomes["trades"]["mean_reward"] == 0.5 and outcomes["trades"]["score"] == pytest.approx(1.0)


def test_exposure_names_the_jobs_that_are_recommended_most(world):
    market = world.market

    shown = exposure(PAIRS, np.array([1, 0]), market)  # job 1 twice

    assert shown["most_recommended"] == [{"key": market.job(1).key, "title": market.job(1).title, "share": 1.0}]
    assert shown["lorenz"][0] == 0 and shown["lorenz"][15] == pytest.approx(0.0) and shown["lorenz"][-1] == 1


def test_predictions_are_judged_by_their_error_and_by_their_order():
    expected = np.array([[0.0, 1.0], [2.0, 3.0]])

    assert prediction_quality(expected, expected) == {"r2": 1.0, "correlation": pytest.approx(1.0)}
    assert prediction_quality(10 - expected, expected)["correlation"] == pytest.approx(-1.0)
    assert prediction_quality(np.full((2, 2), 1.5), expected) == {"r2": 0.0, "correlation": None}
    assert prediction_quality(expected, np.ones((2, 2))) == {"r2": None, "correlation": None}


def test_a_run_keeps_who_gets_what(run):
    outcomes = run()["outcomes"]

    assert set(outcomes) == {"agent", "random", "cosine", "oracle"}
    for part in outcomes.values():
        assert sum(family["n_pairs"] for family in part["by_family"].values()) == 64
        assert len(part["exposure"]["lorenz"]) == 21
    assert set(outcomes["agent"]["world_model"]) == {"r2", "correlation"}
    assert all(family["regret"] == 0 for family in outcomes["oracle"]["by_family"].values())


def test_a_choice_without_a_ranking_has_no_ranking_metrics():
    metrics = choice_metrics(PAIRS, np.array([0, 1]))

    assert metrics["score"] == pytest.approx(1.0)
    assert metrics["hit_rate@1"] == 1.0
    assert metrics["ndcg@10"] is metrics["mrr"] is metrics["hit_rate@5"] is None


def test_nothing_is_scored_where_no_candidate_is_better_than_another():
    flat = replace(PAIRS, expected=np.zeros((2, 3)), applies=np.zeros((2, 3), bool))

    metrics = ranking_metrics(flat, np.zeros((2, 3)))

    assert metrics["score"] is metrics["mrr"] is metrics["ndcg@10"] is None
    assert random_metrics(flat)["score"] is random_metrics(flat)["mrr"] is None


def test_an_example_is_the_ranking_of_one_held_out_applicant(world):
    evaluation, pairs = world.evaluation, world.evaluation.pairs
    row = int(pairs.applies.any(axis=1).argmax())
    person = world.market.applicant(int(pairs.applicant_ids[row]))

    shown, best = evaluation.example_applicant(), evaluation.example("oracle")
    backwards = evaluation.example(SimpleNamespace(q_values=lambda obs: -np.arange(5.0)[None]))
    chosen = evaluation.example(SimpleNamespace(predict=lambda obs, deterministic: (np.array([3]), None)))

    assert pairs.applies[row].any() and not pairs.applies[:row].any()
    assert shown["key"] == person.key and shown["n_candidates"] == 5 and set(person.hard_skills) <= set(shown["skills"])
    assert [job["expected"] for job in best] == sorted(pairs.expected[row], reverse=True)
    assert [job["expected"] for job in backwards] == pairs.expected[row].tolist()
    assert [job["key"] for job in chosen] == [world.market.job(int(pairs.candidate_ids[row, 3])).key]


def test_what_random_gets_is_the_mean_over_random_rankings(world):
    pairs = world.evaluation.pairs
    rng = np.random.default_rng(0)
    draws = [ranking_metrics(pairs, rng.random(pairs.expected.shape)) for _ in range(1000)]

    for key, value in random_metrics(pairs).items():
        if value is not None:
            assert np.mean([draw[key] for draw in draws]) == pytest.approx(value, abs=0.01), key


def test_the_oracle_scores_one_and_random_none(world):
    evaluation, env = world.evaluation, world.env

    oracle = evaluation.with_return(OracleRecommender(env, {"type": "rules"}))
    cosine = evaluation.with_return(CosineRecommender(env))
    references = evaluation.references()

    assert oracle["score"] == pytest.approx(1.0)
    assert oracle["regret"] == pytest.approx(0.0)
    assert oracle["ndcg@10"] == pytest.approx(1.0)
    assert oracle == pytest.approx(references["oracle"])
    assert cosine == pytest.approx(references["cosine"])
    assert references["random"]["score"] == 0.0


def test_a_random_recommender_scores_about_nothing(config):
    setup = build(config("train", "algo=random", "market.n_jobs=300", "market.n_applicants=200"))
    evaluation = setup.evaluation

    assert len(evaluation.pairs) >= 2000
    assert evaluation(RandomRecommender(setup.env, seed=3))["score"] == pytest.approx(0.0, abs=0.03)


def test_a_random_recommender_is_evaluated_by_its_seed_alone(world):
    evaluation = world.evaluation
    played = RandomRecommender(world.make_env(), seed=3)
    obs = evaluation.pairs.obs
    draws = [played.predict(obs, deterministic=False)[0] for _ in range(2)]

    assert (draws[0] != draws[1]).any()
    assert evaluation.with_return(played) == evaluation.with_return(RandomRecommender(world.make_env(), seed=3))


@pytest.mark.parametrize(("module", "name"), [("evaluation", "discounted_return"), ("recording", "cumulative_regret")])
def test_what_jobrec_gym_computes_is_not_computed_again(run, monkeypatch, module, name):
    def refuse(*args):
        raise AssertionError(name)

    monkeypatch.setattr(f"experiments.runs.{module}.{name}", refuse)
    with pytest.raises(AssertionError, match=name):
        run("algo=cosine")


def test_pairs_are_the_same_for_all_and_hold_no_applicant_of_training(world):
    market, truth = world.market, world.truth
    options = {"split": "test", "job_split": "train", "num_candidates": 5, "observation": "ids"}
    first, second = (draw_pairs(market, truth, options, 100, seed=7) for _ in range(2))

    np.testing.assert_array_equal(first.candidate_ids, second.candidate_ids)
    np.testing.assert_array_equal(first.obs["applicant"], second.obs["applicant"])
    held_out = {vector.tobytes() for vector in market.applicants.vectors[market.applicants.rows("test")]}
    assert {vector.tobytes() for vector in first.obs["applicant"]} <= held_out
    assert np.isin(first.candidate_ids, market.jobs.rows("train")).all()


def test_held_out_pairs_show_what_training_shows(small):
    setup = build(small("algo=random", "env.pair_features=[hard_coverage,seniority]", "env.pair_noise=0.3"))
    shown, _ = setup.env.reset(seed=0)
    pairs = setup.evaluation.pairs

    assert pairs.obs.keys() == shown.keys()
    assert pairs.obs["pairs"].shape == (*pairs.candidate_ids.shape, 2)
    assert pairs.obs["pairs"].std(axis=(0, 1)).min() > 0.1


def test_the_return_of_a_constant_choice_is_a_geometric_sum(world):
    oracle = world.evaluation.references()["oracle"]["discounted_return"]
    options = {"split": "test", "job_split": "train", "num_candidates": 5, "observation": "ids"}
    first = draw_pairs(world.market, world.truth, options, 16, seed=world.evaluation_options.seed)

    expected = first.expected.max(axis=1).mean() * (1 - 0.9**10) / (1 - 0.9)
    assert oracle == pytest.approx(expected)


def test_an_episode_that_ends_on_success_earns_no_more(world):
    market, truth = world.market, world.truth
    options = {"split": "test", "job_split": "train", "num_candidates": 5, "observation": "ids"}
    options |= {"repeats": True, "resample": "episode"}
    returns = [
        HeldOutEvaluation(market, truth, options, n_pairs=8, n_episodes=32, terminate_on=ends).references()["oracle"]
        for ends in ((), ("apply",), ("apply", "save", "click", "ignore"))
    ]

    whole, until_success, one_step = (metrics["discounted_return"] for metrics in returns)
    assert one_step < until_success < whole


def test_a_model_with_predict_alone_is_evaluated_by_its_choices(world):
    class First:
        def predict(self, obs, deterministic):
            return np.zeros(len(obs["candidates"]), dtype=int), None

    metrics = world.evaluation.with_return(First())

    assert metrics["mean_reward"] is not None
    assert metrics["ndcg@10"] is None
