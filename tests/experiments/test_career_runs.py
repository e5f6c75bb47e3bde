"""Runs in `setting=career`: answers move the applicants, and agents are scored by episodes."""

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.pages.page import write_report
from experiments.runs import build
from experiments.runs.careers import Careers
from experiments.runs.folders import RunError, find_runs
from experiments.runs.ranking import ranking_of_run
from experiments.runs.saved import evaluate_run
from experiments.runs.sweeps import in_words
from jobrec_gym import JobRecCareerVectorEnv

CAREER = ("setting=career", "evaluation.n_applicants=3", "evaluation.n_sets=4", "evaluation.interval=100")
CHEAP = ("setting=career", "evaluation.n_applicants=2", "evaluation.n_sets=0", "evaluation.interval=100")


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("career")
    from experiments.runs.training import run_training

    overrides = [*CAREER, "algo=linear_blocks", "evaluation.at=[0,30]"]
    run_training(build.build(small(*overrides)), folder / "run", overrides)
    return folder


@pytest.fixture
def finished(folder):
    return find_runs(folder, "runs")[0]


def test_an_agent_is_scored_by_its_share_of_what_the_exact_best_policy_earns(finished):
    held_out, beside = finished.summary["held_out"], finished.summary["references"]
    assert list(beside) == ["random", "cosine", "myopic", "oracle"]
    assert beside["oracle"]["score"] == 1.0
    assert held_out["score"] == pytest.approx(held_out["return"] / beside["oracle"]["return"])
    assert beside["myopic"]["return"] <= beside["oracle"]["return"]
    assert finished.metrics["held_out/return"].tolist()[-1] == held_out["return"]
    levels = [held_out[f"reached_{level}"] for level in range(2, 6)]
    assert levels == sorted(levels, reverse=True)
    assert set(finished.summary["online"]) == {"cumulative_reward"}, "what others would have led to is not known"


@pytest.mark.usefixtures("unpainted")
def test_its_report_has_careers_and_nothing_that_careers_do_not_have(finished, tmp_path):
    page = write_report([finished], tmp_path).read_text()
    headings = [title for title in ("Careers", "Learning curves", "Regret while learning") if f"<h2>{title}" in page]
    assert 'id="careers"' in page and 'id="regret"' not in page, headings
    assert "share of best" in page and "whose answers change that applicant" in page and "earlier version" not in page
    assert (tmp_path / "career.png").exists() and not (tmp_path / "online_regret.png").exists()


def test_a_sweep_and_an_evaluation_tell_of_careers(folder, finished):
    told = in_words(folder)
    assert "share of best" in told and "reach level 5" in told and "nDCG" not in told
    again = evaluate_run(finished, {"n_applicants": None, "n_pairs": None})
    assert again["held_out"] == finished.summary["held_out"] and again["references"] == finished.summary["references"]
    fewer = evaluate_run(finished, {"n_applicants": 2, "n_sets": 0})
    assert fewer["evaluation"] == {"n_applicants": 2, "n_sets": 0}
    assert fewer["held_out"]["score"] is None and fewer["references"]["oracle"]["return"] is None
    with pytest.raises(RunError, match=r"`evaluation.n_pairs` does not apply to .*n_applicants"):
        evaluate_run(finished, {"n_pairs": 5})


def test_a_list_of_people_does_not_say_how_far_they_have_come(finished):
    with pytest.raises(RunError, match=r"needs to know how far an applicant has come .*agent=cosine"):
        ranking_of_run(finished.folder)


def test_a_career_that_was_cut_goes_on_to_the_same_end(run, cut):
    overrides = (*CHEAP, "algo=dynaq_plus", "checkpoint_interval=8", "total_timesteps=24", "evaluation.at=[]")
    whole = run(*overrides, folder="whole")
    cut(16, *overrides)
    resumed = run(*overrides, folder="cut")

    clocks = {"wall_clock": None, "files": None}  # a table of clocks is among the files
    assert resumed | clocks == whole | clocks


@pytest.mark.parametrize(("setting", "gamma"), [("career", 0.97), ("vectors", 0.0)])
def test_dynaq_plus_looks_ahead_where_answers_move_the_applicant(config, setting, gamma):
    assert config("train", f"setting={setting}", "algo=dynaq_plus").algo.gamma == gamma
    assert config("train", f"setting={setting}", "algo=dynaq_plus", "algo.gamma=0.5").algo.gamma == 0.5


def test_one_and_many_environments_are_careers_that_their_simulator_answers_for(small):
    setup = build.build(small(*CHEAP, "algo=random", "simulator.seed=4", "env.dynamics.start=own"))
    assert isinstance(setup.env.unwrapped, JobRecCareerVectorEnv)
    single = setup.single_env()
    assert single.spec.id == "JobRecCareer-v0" and single.spec.max_episode_steps == 40
    for env in (setup.env.unwrapped, single.unwrapped):
        assert env.dynamics.dynamics.start == "own"
        assert list(env.pair_feature_names[2:]) == setup.env_options["pair_features"]
        assert env.simulator.draws
    hybrid = build.build(small(*CHEAP, "algo=random", "reward=hybrid", "reward.simulator=null"))
    assert hybrid.env.env.reward_model.simulator is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward=feedback"], "`reward` asks a simulator, but .* asks its applicants itself.*reward=own"),
        (["reward=hybrid"], "reward=hybrid reward.simulator=null"),
        (["env=mixed"], r"`evaluation.n_applicants` is only for JobRecCareer-v0, but `env.id` is JobRec-v0"),
        (["env.id=JobRecCarer-v0"], "`env.id` must be one of .*Did you mean 'JobRecCareer-v0'"),
        (["env.id=JOBRECCAREER-v0"], "`env.id` must be one of .*Did you mean 'JobRecCareer-v0'"),
        (["evaluation.n_applicants=0"], "`evaluation.n_applicants` must be 1 or more or null, got 0"),
        (["evaluation.n_sets=-1"], "`evaluation.n_sets` must be 0 or more, got -1"),
        (["reward._target_="], "`reward._target_` must be the dotted name of a class, got ''"),
    ],
)
def test_what_does_not_belong_to_a_career_is_named(small, overrides, message):
    with pytest.raises(RunError, match=message):
        build.build(small("setting=career", "algo=random", *overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.n_applicants=400"], r"`evaluation.n_applicants` must be null or in \[1, "),
        (["evaluation.n_sets=3"], "`evaluation.n_sets` must be 0 or at least 4, got 3"),
    ],
)
def test_an_evaluation_that_cannot_be_made_is_named(small, overrides, message):
    setup = build.build(small("setting=career", "algo=random", *overrides))
    with pytest.raises(RunError, match=message):
        _ = setup.evaluation


def test_pre_training_knows_no_progress(small):
    setup = build.build(small("setting=career", "algo=dynaq", "pretrain.epochs=2"))
    with pytest.raises(RunError, match=r"`pretrain.epochs` must be 0 in JobRecCareer-v0, got 2"):
        setup.require_verbs()


def test_careers_are_counted_by_the_highest_level_and_by_when_they_end():
    levels = np.array([[1, 1, 2], [2, 1, 2], [3, 1, 2], [3, 1, 2]])
    careers = Careers(np.array([4.0, -1.0, 3.0]), np.array([3, 2, 3]), np.array([False, True, False]), levels)
    figures = careers.figures()
    assert (figures["return"], figures["left"], figures["left_after"], figures["steps"]) == (2.0, 1 / 3, 2.0, 8 / 3)
    assert [figures[f"reached_{level}"] for level in range(2, 6)] == [2 / 3, 1 / 3, 0, 0]
    assert careers.shares()["levels"] == [1 / 3, 1 / 3, 1 / 3, 0, 0]
    assert careers.shares()["left_by"] == {"10": 1 / 3, "20": 1 / 3, "30": 1 / 3, "end": 1 / 3}
    assert careers.one(1) == {"levels": [1, 1, 1], "left": True, "return": -1.0}
