import re

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.report import write_report
from experiments.runs import find_runs
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
