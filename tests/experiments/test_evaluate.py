import json

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.pages.page import write_report
from experiments.runs.folders import (
    RunError,
    find_runs,
    folder_name,
    is_finished,
    read_json,
    read_run,
    unfinished_runs,
    write_json,
)
from experiments.runs.grouping import group_runs
from experiments.runs.saved import evaluate_run


@pytest.mark.parametrize("algo", ["dynaq", "random", "cosine", "oracle"])
def test_a_saved_agent_is_evaluated_as_it_was_when_it_was_trained(run, tmp_path, algo):
    summary = run(f"algo={algo}")

    (found,) = find_runs(tmp_path, "run")
    result = evaluate_run(found, {"n_pairs": None, "seed": None})

    assert result["held_out"] == summary["held_out"]
    assert result["references"] == summary["references"]
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["held_out"] == result["held_out"]


def test_a_run_that_is_called_like_a_reference_keeps_its_row(run, tmp_path):
    summaries = [run("algo=linear_prior", "name=oracle", f"seed={seed}", folder=f"run-{seed}") for seed in (0, 1)]
    done = run_command("evaluate", f"run={tmp_path}")
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("oracle ")]
    own = np.mean([summary["held_out"]["mean_reward"] for summary in summaries])
    assert [row[1] for row in rows[1:]] == ["1.000"] and rows[0][4] == f"{own:.3f}", done.stdout
    page = write_report(find_runs(tmp_path, "runs"), tmp_path / "report").read_text()
    assert page.count('<tr role="row" class="reference"><td role="cell" class="words" data-label="agent">oracle<') == 2
    assert page.count('<tr role="row"><td role="cell" class="words" data-label="agent">oracle<') >= 3


def test_a_run_that_was_made_twice_is_no_further_seed(run, tmp_path):
    for folder, seed in (("first", 0), ("again", 0), ("other", 1)):
        run("algo=linear_prior", f"seed={seed}", folder=folder)

    done = run_command("evaluate", f"run={tmp_path}")

    scores = [read_run(tmp_path / folder).summary["held_out"]["score"] for folder in ("again", "other")]
    (entry,) = read_json(tmp_path / "evaluation.json", "")["agents"].values()
    assert entry["held_out"]["score"] == {
        "mean": pytest.approx(np.mean(scores)),
        "std": pytest.approx(np.std(scores, ddof=1)),
        "n": 2,
    }
    assert len(entry["runs"]) == 2 and "algo=linear_prior: 2 runs" in done.stdout
    assert "1 older run of equal config, seed and commit is left out: " in done.stdout
    assert all((tmp_path / folder / "evaluation.json").is_file() for folder in ("first", "again", "other"))
    assert done.stdout.startswith("held-out applicants ")

    done = run_command("evaluate", f"run={tmp_path}", "evaluation.split=train", "evaluation.n_pairs=16")
    assert done.stdout.startswith("training applicants "), done.stderr
    said = read_json(tmp_path / "evaluation.json", "")["evaluation"]
    assert (said["split"], said["n_pairs"]) == ("train", 16)


def test_other_pairs_can_be_asked_for(run, tmp_path):
    run("algo=cosine")

    (found,) = find_runs(tmp_path, "run")
    result = evaluate_run(found, {"n_pairs": 32, "seed": None, "split": "train"})

    assert result["evaluation"]["n_pairs"] == 32
    assert result["evaluation"]["split"] == "train"
    assert result["references"] != found.summary["references"]


def test_an_agent_that_is_gone_is_named(run, tmp_path):
    run("algo=cosine")
    (tmp_path / "run" / "model.zip").unlink()

    (found,) = find_runs(tmp_path, "run")
    with pytest.raises(RunError, match=r"no model\.zip: run it again with resume=false"):
        evaluate_run(found, {"n_pairs": None})


def test_unfinished_runs_are_counted(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").touch()
        (tmp_path / name / "config.yaml").touch()
    for name in ("a", "b"):
        (tmp_path / name / "summary.json").touch()

    assert unfinished_runs(tmp_path, 2) == f"1 of 3 runs unfinished: {tmp_path / 'c'}"
    assert unfinished_runs([tmp_path / "a", str(tmp_path / "b")], 2) == ""


def test_hidden_folders_are_not_searched_for_runs(tmp_path):
    for name in (".venv/a", ".hydra", "run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
        (tmp_path / name / "summary.json").touch()
    (tmp_path / "run" / "summary.json").unlink()

    with pytest.raises(RunError, match=r"no summary\.json in it or below"):
        find_runs(tmp_path / "run", "runs")
    (tmp_path / ".hydra" / "summary.json").unlink()
    with pytest.raises(RunError, match=r"no summary\.json in it or below"):
        find_runs(tmp_path, "runs")
    with pytest.raises(RunError, match=r"\.venv/a/summary\.json"):  # which is asked for by its name
        find_runs(tmp_path / ".venv", "runs")


def test_runs_that_differ_by_seeds_alone_are_one_group(run, tmp_path):
    for number, overrides in enumerate((("seed=0",), ("seed=1", "simulator.seed=1"), ("seed=0", "env.resample=step"))):
        run("algo=random", *overrides, folder=f"{number}")

    groups = group_runs(find_runs(tmp_path, "runs"))

    assert {label: len(runs) for label, runs in groups.items()} == {"default": 2, "env.resample=step": 1}


def test_runs_of_equal_overrides_and_other_files_are_two_groups(run, tmp_path):
    run("algo=random", folder="a")
    run("algo=random", folder="b")
    config = (tmp_path / "b" / "config.yaml").read_text()
    (tmp_path / "b" / "config.yaml").write_text(config.replace("gamma: 0.9", "gamma: 0.8"))

    assert list(group_runs(find_runs(tmp_path, "runs"))) == ["default", "default (2)"]


def test_a_path_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(RunError, match=r"`run`: there is no folder .*nowhere"):
        find_runs(tmp_path / "nowhere", "run")
    with pytest.raises(RunError, match=r"`runs`: .* holds no finished run"):
        find_runs(tmp_path, "runs")
    with pytest.raises(RunError, match="run=FOLDER"):
        find_runs(None, "run")
    with pytest.raises(RunError, match="`runs` must name at least one folder, got none"):
        find_runs([], "runs")


def test_a_broken_summary_is_named(tmp_path):
    (tmp_path / "summary.json").write_text("{")

    with pytest.raises(RunError, match="no finished run"):
        find_runs(tmp_path, "run")
    assert not is_finished(tmp_path, {})


def test_json_is_plain_and_leaves_nothing_beside_it(tmp_path):
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": [float("inf"), 1.5]})

    assert read_json(tmp_path / "a.json", "") == {"x": None, "y": [None, 1.5]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=0,1", "algo.planning_steps=0,5"], "algo.planning_steps-0-5+seed-0-1"),
        (["algo.planning_steps=0,5", "seed=0,1"], "algo.planning_steps-0-5+seed-0-1"),
        ([], "default"),
    ],
)
def test_a_folder_has_a_name_that_can_be_typed(overrides, name):
    assert folder_name(overrides) == name


def test_what_cannot_be_written_in_a_name_is_told_apart():
    names = {folder_name([f"algo.net_arch={value}"]) for value in ("[8]", "[8,8]", "{8,8}")}

    assert len(names) == 3
    assert not set("".join(names)) & set("[]{}=, /")
    assert len(folder_name([f"market.path={'x' * 300}"])) < 200
