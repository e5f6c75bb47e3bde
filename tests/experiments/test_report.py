import re

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.grouping import group_runs
from experiments.report import _mean_line, truths_table, write_report
from experiments.runs import RunError, find_runs
from experiments.train import run_training


@pytest.fixture(scope="module")
def report(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for algo in ("dynaq", "random"):
        for seed in (0, 1):
            overrides = [f"algo={algo}", f"seed={seed}", "env.max_episode_steps=2"]
            run_training(small(*overrides), folder / f"{algo}{seed}", overrides)
    return write_report(find_runs(folder, "runs"), folder / "report")


def test_the_page_needs_nothing_but_itself(report):
    page = report.read_text()

    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]+", "", page)
    assert "viewport" in page


def test_the_page_shows_groups_references_and_what_was_run(report):
    page = report.read_text()

    for text in ("algo=dynaq", "algo=random", "oracle", "cosine", "±", "seeds 0, 1", "planning_steps", "nDCG@10"):
        assert text in page, text


def test_pictures_lie_beside_the_page(report):
    pictures = {path.name for path in report.parent.glob("*.png")}

    assert {"held_out_score.png", "online_regret.png", "model_r2.png", "model_loss.png", "td_loss.png"} <= pictures
    assert report.read_text().count("data:image/png") == len(pictures)


def test_names_of_runs_cannot_write_into_the_page(run, tmp_path):
    run("algo=random", "+note='<script>'", folder="a")

    page = write_report(find_runs(tmp_path, "runs"), tmp_path / "report").read_text()

    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_curves_of_runs_that_log_at_other_steps_meet_on_their_common_range():
    first = pd.DataFrame({"x": [0, 10, 20], "y": [0.0, 10.0, 20.0]})
    second = pd.DataFrame({"x": [5, 15, 25], "y": [7.0, 17.0, 27.0]})

    at, mean, spread = _mean_line([first, second], "x", "y")

    np.testing.assert_allclose(at, [5, 10, 15, 20])
    np.testing.assert_allclose(mean, at + 1)
    np.testing.assert_allclose(spread, np.sqrt(2))
    assert _mean_line([first, second.assign(x=[30, 40, 50])], "x", "y") is None


def test_the_headline_is_of_learners(run, tmp_path):
    run("algo=oracle", folder="runs/oracle")
    oracle = find_runs(tmp_path / "runs", "runs")
    assert "scores" not in write_report(oracle, tmp_path / "report").read_text()

    run(folder="runs/dynaq")
    page = write_report(find_runs(tmp_path / "runs", "runs"), tmp_path / "report").read_text()

    assert re.search(r"The agent scores -?\d", page)


def test_equal_numbers_are_called_equal(run, tmp_path):
    run()
    (found,) = find_runs(tmp_path, "runs")
    found.summary["held_out"]["score"] = found.summary["references"]["cosine"]["score"] - 1e-6

    assert "equal to the job of highest cosine" in write_report([found], tmp_path / "report").read_text()


def test_runs_that_are_left_out_are_on_the_page(run, tmp_path):
    run("algo=random")

    page = write_report(find_runs(tmp_path, "runs"), tmp_path / "report", unfinished="1 of 2 runs unfinished: there")

    assert "1 of 2 runs unfinished: there" in page.read_text()


def test_a_curve_that_is_gone_is_named(run, tmp_path):
    run("algo=random")
    (tmp_path / "run" / "metrics.csv").unlink()

    with pytest.raises(RunError, match=r"no metrics\.csv: run it again"):
        write_report(find_runs(tmp_path, "runs"), tmp_path / "report")


def test_agents_are_scored_by_every_signal(small, tmp_path):
    for reward in ("cosine", "feedback"):
        overrides = ["experiment=strategies", f"reward={reward}", "total_timesteps=10"]
        run_training(small(*overrides), tmp_path / reward, overrides)
    runs = find_runs(tmp_path, "runs")

    header, rows = truths_table(group_runs(runs))

    assert header == ["score by", "planted", "cosine"]
    table = {row[0]: row[1:] for row in rows}
    summaries = {run.folder.name: run.summary for run in runs}
    for reward, summary in summaries.items():
        scores = [summary["held_out"]["score"], summary["also"]["cosine"]["held_out"]["score"]]
        assert table[f"reward={reward}"] == [f"{score:.3f}" for score in scores]
        assert summary["also"]["planted"]["held_out"] == summary["held_out"]
    assert table["highest cosine, market default"][1] == "1.000"
    page = write_report(runs, tmp_path / "report").read_text()
    assert "Scored by every signal" in page
    assert "Feedback of a language model" not in page


def test_runs_without_a_second_signal_have_no_such_table(run, tmp_path):
    run("algo=random")

    assert truths_table(group_runs(find_runs(tmp_path, "runs"))) == ([], [])


def test_what_was_asked_of_a_model_is_on_the_page(run, tmp_path):
    run("market=recorded", "reward=llm", "simulator=recorded")
    runs = find_runs(tmp_path, "runs")

    assert runs[0].summary["feedback"] == {
        "decisions": 30,
        "calls": 0,
        "cache_hits": 30,
        "tokens": 0,
        "cost_usd": 0.0,
        "failures": 0,
    }
    page = write_report(runs, tmp_path / "report").read_text()

    assert "Feedback of a language model" in page
    assert (tmp_path / "report" / "reward_by_decision.png").is_file()
    assert (tmp_path / "report" / "score_by_decision.png").is_file()
