import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.runs import build
from experiments.runs.folders import RunError
from experiments.studies import card

ROOT = Path(build.__file__).parents[2]
SIZES = [
    "market.n_jobs=200",
    "market.n_applicants=200",
    "env.num_candidates=8",
    "evaluation.n_pairs=400",
    "total_timesteps=200",
    "n_seeds=1",
    "n_pairs=[50,3000]",
]


@pytest.fixture(scope="session")
def cfg_of(config):
    return lambda *overrides: config("learnable", *SIZES, *overrides)


@pytest.fixture(scope="session")
def world_of(cfg_of):
    return lambda *overrides: card.make_world(build.build(cfg_of(*overrides)), 3_000)


def made_card(cfg):
    return card.make_card(build.build_seeds(cfg, card.seeds_from(cfg.seed, cfg.n_seeds)), list(cfg.n_pairs))


def test_the_shares_of_the_parts_and_their_covariances_are_those_of_the_utility(world_of):
    world = world_of()
    ids = world.told.applicant_ids, world.told.job_ids

    shares = card.utility_variance(world)

    terms = np.array(list(world.truth.terms(*ids).values()))
    between = np.cov(terms, bias=True)
    total = world.truth.utility(*ids).var()
    assert list(shares["parts"].values()) == pytest.approx(np.diag(between) / total)
    assert shares["covariances"] == pytest.approx((between.sum() - np.trace(between)) / total)
    assert abs(shares["covariances"]) > 0.01
    assert shares["noise"] == 0.25


def test_the_variance_of_rewards_is_told_apart(world_of):
    without = card.reward_variance(world_of("simulator.noise=0"))
    of_jobs = card.reward_variance(
        world_of("simulator.weights={hard_skills:0,soft_skills:0,seniority:0,taste:0,popularity:1}")
    )

    assert without["noise"] == pytest.approx(0, abs=1e-12)
    assert sum(of_jobs.values()) == pytest.approx(1)
    assert of_jobs["job"] > 0.3
    assert of_jobs["applicant"] == pytest.approx(0, abs=1e-9)
    assert of_jobs["pair"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("noise", [0, 0.5])
def test_all_parts_together_rank_like_the_oracle(world_of, noise):
    parts = card.ranking_scores(world_of(f"simulator.noise={noise}"))["parts"]

    assert parts["popularity"]["together"] == pytest.approx(1.0)
    assert parts["hard_skills"]["together"] == parts["hard_skills"]["alone"]
    assert parts["taste"]["alone"] < 0.9


def test_pair_features_that_are_shown_exactly_rank_as_the_parts_that_they_are(world_of):
    exact, blurred = (
        card.ranking_scores(world_of(f"setting={name}", "simulator.noise=0.01"))
        for name in ("profile", "profile_noisy")
    )

    assert exact["pair features"] == pytest.approx(exact["parts"]["seniority"]["together"], abs=0.06)
    assert blurred["pair features"] < exact["pair features"] - 0.1
    assert "pair features" not in card.ranking_scores(world_of())


def test_supervised_scores_rise_with_pairs(world_of):
    scores = card.supervised_scores(world_of(), [50, 3_000])

    for name, (few, many) in scores.items():
        assert many > few + 0.05, name


def test_the_pairs_that_learners_are_told_are_of_training_applicants_as_the_environment_shows_them(cfg_of):
    setup = build.build(cfg_of("setting=profile", "env.job_split=train"))
    world = card.make_world(setup, 500)
    market = world.market

    assert set(world.told.applicant_ids) <= set(market.applicants.rows("train"))
    assert set(world.told.job_ids) <= set(market.jobs.rows("train"))
    assert set(world.shown.applicant_ids) <= set(market.applicants.rows("test"))
    surprise = world.rewards - world.truth.expected_reward(world.told.applicant_ids, world.told.job_ids)
    assert abs(surprise.mean()) < 0.05  # noise of its own for each
    env = setup.env.unwrapped
    for pairs in (world.told, world.shown):
        asked = env.pair_features(pairs.applicant_ids, pairs.job_ids)
        np.testing.assert_array_equal(pairs.numbers, asked)


def test_distinct_pairs_are_counted_of_what_was_recommended(cfg_of):
    met = card.interactions(build.build(cfg_of("total_timesteps=45")))

    # Ten steps with each applicant, among whom some may come twice; cosine chooses the same job in each.
    assert 2 <= met["cosine"]["applicants"] <= 5
    assert met["cosine"]["pairs"] <= 5 < met["random"]["pairs"] <= 45
    assert met["random"]["applicants"] == met["cosine"]["applicants"]


def test_the_card_of_a_planted_setting_has_its_rows(cfg_of):
    made = made_card(cfg_of("setting=profile_noisy", "n_seeds=2"))
    text = card.card_text({"setting": "profile_noisy", "command": "the command", "commit": "abc", **made})

    assert made == json.loads(json.dumps(made))
    assert "3 of the 5 terms of the planted utility, blurred by noise of standard deviation 0.3" in text
    assert "means over seeds 100, 101." in text
    for row in ("| hard_skills |", "| covariances of the parts |", "| cosine of", "| the pair features as shown"):
        assert row in text
    for name in ("ridge with job effects", "gradient boosting", "Gaussian process"):
        scores = np.mean([of["supervised"][name] for of in made["by_seed"]], axis=0)
        assert f"| {name} | {scores[0]:.2f} | {scores[1]:.2f} |" in text
    assert "## What 200 interactions are" in text


def test_a_pair_feature_of_a_term_s_own_name_is_counted_as_that_term(cfg_of):
    text = card.card_text(
        {"setting": "placed", "command": "the command", "commit": "abc", **made_card(cfg_of("setting=placed"))}
    )

    assert "`seniority`, `place` of each pair: 4 of the 6 terms of the planted utility" in text


def test_the_card_of_recorded_answers_says_that_nothing_was_planted(config):
    sizes = ("n_seeds=1", "n_pairs=[50,500]", "evaluation.n_pairs=100")
    made = made_card(config("learnable", "setting=recorded", *sizes))
    text = card.card_text({"setting": "recorded", "command": "the command", "commit": "abc", **made})

    assert "There is no planted utility" in text
    assert "hard_skills" not in text
    assert "| noise of the answer | 0.00 |" in text
    assert "## What 400 interactions are" in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["n_pairs=[]"], "`n_pairs` must be rising"),
        (["n_pairs=[500,100]"], "`n_pairs` must be rising"),
        (["n_seeds=0"], "`n_seeds` must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(cfg_of, overrides, message):
    with pytest.raises(RunError, match=message):
        made_card(cfg_of(*overrides))


def test_a_release_without_its_path_is_asked_for(config):
    with pytest.raises(RunError, match=r"`market\.path` must be given"):
        made_card(config("learnable", "setting=onet"))


def test_the_command_prints_and_writes_the_card_that_its_seed_gives(cfg_of, tmp_path):
    of_board = ["setting=board", *SIZES[1:]]
    done = run_command("studies.learnable", f"folder={tmp_path}", *of_board)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "board/learnable.md").read_text()
    numbers = json.loads((tmp_path / "board/learnable.json").read_text())

    assert numbers["by_seed"] == made_card(cfg_of("setting=board", "market.n_jobs=150"))["by_seed"]
    assert text in done.stdout
    assert "200 applicants, 150 jobs" in text
    assert done.stdout.splitlines()[-1] == f"numbers  {tmp_path / 'board/learnable.json'}"
