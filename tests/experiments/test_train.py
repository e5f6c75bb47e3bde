import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments import build, train
from experiments.recording import LearningCurve
from experiments.report import write_report
from experiments.runs import RunError, find_runs

ROOT = Path(build.__file__).parents[1]


def without_wall_clock(summary):
    return {key: value for key, value in summary.items() if key != "wall_clock"}


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(train, "build_algorithm", refuse)


def test_a_run_leaves_its_folder_and_nothing_else(run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    run()

    events, *others = sorted(files(tmp_path / "run"), key=lambda name: "tensorboard" not in name)
    assert events.startswith("tensorboard")
    assert sorted(others) == ["config.yaml", "metrics.csv", "model.zip", "progress.csv", "summary.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "run"]
    assert files(elsewhere) == []


def test_a_run_twice_gives_the_same_summary_but_for_the_clock(run, tmp_path):
    overrides = ("experiment=hybrid_offline", "pretrain.epochs=1", "total_timesteps=40", "simulator.noise=0.5")

    first, second = run(*overrides, folder="a"), run(*overrides, folder="b")

    assert without_wall_clock(first) == without_wall_clock(second)
    columns = [pd.read_csv(tmp_path / name / "metrics.csv").drop(columns="seconds") for name in "ab"]
    pd.testing.assert_frame_equal(*columns)


def test_another_seed_learns_something_else_on_the_same_pairs(run):
    first, second = run("seed=0", folder="a"), run("seed=1", folder="b")

    assert first["held_out"] != second["held_out"]
    assert first["references"] == second["references"]
    assert first["online"] != second["online"]


def test_the_curve_starts_before_the_first_interaction(run, tmp_path):
    run()
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")

    assert metrics["interactions"].tolist() == [0, 10, 20, 30]
    assert metrics["held_out/score"].notna().all()
    assert metrics["online/cumulative_reward"][0] == 0
    assert pd.isna(metrics["online/mean_reward"][0])


def test_the_last_point_of_the_curve_is_the_summary(run, tmp_path):
    summary = run()
    last = pd.read_csv(tmp_path / "run" / "metrics.csv").iloc[-1]

    assert last["held_out/score"] == pytest.approx(summary["held_out"]["score"])
    assert last["online/cumulative_regret"] == pytest.approx(summary["online"]["cumulative_regret"])


def test_the_oracle_has_no_regret_and_the_others_have(run):
    assert run("algo=oracle", folder="a")["online"]["cumulative_regret"] == pytest.approx(0.0)
    assert run("algo=random", folder="b")["online"]["cumulative_regret"] > 0


def test_regret_counts_only_candidates_that_were_allowed(run):
    summary = run("algo=oracle", "env.repeats=false", "env.resample=episode", "env.max_episode_steps=5")

    assert summary["online"]["cumulative_regret"] == pytest.approx(0.0)


def test_evaluations_change_nothing_in_what_is_learned(run):
    often, seldom = run("evaluation.at=[0,5,10,15]", folder="a"), run("evaluation.at=[]", folder="b")

    assert often["held_out"] == seldom["held_out"]
    assert often["online"] == pytest.approx(seldom["online"])


def test_a_finished_run_is_not_run_again(run, no_training, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train, "build_algorithm", build.build_algorithm)
        first = run()

    assert run() == first


def test_how_a_run_is_run_does_not_make_it_another(run, no_training, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train, "build_algorithm", build.build_algorithm)
        first = run("progress_bar=false")

    assert run("progress_bar=null", "checkpoint_interval=10", "threads=2") == first


@pytest.mark.parametrize("change", ["resume=false", "algo.gamma=0.5", "simulator.noise=0.1"])
def test_another_config_or_the_wish_runs_again(run, no_training, monkeypatch, change):
    with monkeypatch.context() as patch:
        patch.setattr(train, "build_algorithm", build.build_algorithm)
        run("algo=random")

    with pytest.raises(AssertionError, match="trained again"):
        run("algo=random", change)


def test_a_run_without_a_summary_begins_anew_and_mixes_nothing(run, tmp_path):
    first = run("algo=random")
    (tmp_path / "run" / "summary.json").unlink()

    second = run("algo=random")

    assert without_wall_clock(first) == without_wall_clock(second)
    assert len(pd.read_csv(tmp_path / "run" / "metrics.csv")) == 4


def test_an_interrupted_run_goes_on_from_its_checkpoint_to_the_same_end(run, tmp_path, monkeypatch):
    overrides = ("checkpoint_interval=10", "total_timesteps=40", "env.resample=step", "pretrain.epochs=1")
    whole = run(*overrides, folder="whole")
    written = LearningCurve._write

    def killed(self, now):
        if now == 30:
            raise KeyboardInterrupt
        written(self, now)

    with monkeypatch.context() as patch:
        patch.setattr(LearningCurve, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            run(*overrides, folder="cut")
    assert not (tmp_path / "cut" / "summary.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(train, "build_algorithm", None)
        resumed = run(*overrides, folder="cut")

    assert without_wall_clock(resumed) == without_wall_clock(whole)
    columns = [pd.read_csv(tmp_path / name / "metrics.csv").drop(columns="seconds") for name in ("cut", "whole")]
    pd.testing.assert_frame_equal(*columns)
    assert not (tmp_path / "cut" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("override", "named"),
    [("pretrain.epochs=1", "pretrain.epochs"), ("checkpoint_interval=10", "checkpoint_interval")],
)
def test_what_an_algorithm_cannot_do_is_refused(run, override, named):
    with pytest.raises(RunError, match=named):
        run("algo=random", override)


def test_a_sweep_resumes_and_becomes_one_report(tmp_path):
    small = "market.n_jobs=60 market.n_applicants=40 env.num_candidates=5 total_timesteps=20 evaluation.n_pairs=64"
    command = [sys.executable, "-m", "experiments.train", "-m", "algo=cosine,random", "seed=0,1", *small.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    runs = sorted(path.parent for path in sweep.rglob("summary.json"))
    assert len(runs) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    before = {path: (path / "summary.json").stat().st_mtime_ns for path in runs}
    (runs[0] / "summary.json").unlink()

    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

    again = [path for path in runs if (path / "summary.json").stat().st_mtime_ns != before[path]]
    assert again == runs[:1]
    assert json.loads((runs[0] / "summary.json").read_text())["seed"] == 0
    page = write_report(find_runs(sweep, "runs"), tmp_path / "report").read_text()
    assert "algo=cosine" in page
    assert "algo=random" in page


@pytest.mark.parametrize(
    ("module", "argument", "message"),
    [
        ("report", "runs=nowhere", "error: `runs`: there is no folder nowhere"),
        ("train", "algo.planning_steps=-1", "`planning_steps` must be 0 or more"),
    ],
)
def test_a_command_that_cannot_work_says_why_and_fails(tmp_path, module, argument, message):
    command = [sys.executable, "-m", f"experiments.{module}", argument]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )

    assert done.returncode != 0
    assert message in done.stderr
