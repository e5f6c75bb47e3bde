"""Weights & Biases, MLflow and Optuna as docs/tracking.md has them: the real packages, offline."""

import json
import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.ecosystem

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tracking.md").read_text()
SMALL = [
    "market.n_jobs=60",
    "market.n_applicants=40",
    "env.num_candidates=5",
    "env.max_episode_steps=2",
    "evaluation.n_pairs=64",
    "evaluation.n_episodes=16",
    "evaluation.at=[0,20]",
    "evaluation.interval=20",
    "total_timesteps=40",
    "algo.policy_kwargs.net_arch=[8]",
    "algo.learning_starts=8",
    "algo.batch_size=8",
]


def line_of(words):
    """The command of the page that has some words, as arguments; it is made small by the test."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith("python -m experiments.train") and words in line)
    return shlex.split(line, comments=True)[1:]


def called(words, folder, *more):
    module, *overrides = line_of(words)[1:]
    given = [*overrides, *SMALL, *more]
    flags, entries = [item for item in given if item == "-m"], [item for item in given if item != "-m"]
    arguments = [sys.executable, "-m", module, *flags, *entries]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)


def ran(words, folder, *more):
    done = called(words, folder, *more)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not in this environment")


@needs("mlflow")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, about what MLflow does
def test_mlflow_has_config_name_and_learning_curve_of_a_run(tmp_path):
    import mlflow

    ran("tracker=mlflow", tmp_path)

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("jobrec")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "a first try"
    assert run.data.params["algo.planning_steps"] == "5" and run.data.params["seed"] == "0"
    curve = client.get_metric_history(run.info.run_id, "held_out/score")
    assert [point.step for point in curve] == [0, 20, 40]
    (summary,) = tmp_path.rglob("summary.json")
    assert curve[-1].value == pytest.approx(json.loads(summary.read_text())["held_out"]["score"])
    assert {"held_out/ndcg_at_10", "train/loss", "online/apply_rate"} <= set(run.data.metrics)


@needs("mlflow")
def test_runs_at_the_same_time_may_make_the_database_of_mlflow(tmp_path):
    ran("tracker=mlflow", tmp_path, "-m", "seed=0,1", "algo.planning_steps=0", "launcher=joblib")

    assert len(list(tmp_path.rglob("summary.json"))) == 2


@needs("wandb")
def test_wandb_without_a_key_says_what_to_do_and_leaves_the_finished_run(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ran("tracker=wandb", tmp_path, "hydra.run.dir=run")
    again = ["hydra.run.dir=run", "resume=false", "tracker.mode=online"]
    done = called("tracker=wandb", tmp_path, *again)

    assert done.returncode == 1 and "error: tracker=wandb: " in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()


@needs("wandb")
def test_wandb_keeps_a_run_offline(tmp_path):
    ran("tracker=wandb", tmp_path)

    (folder,) = (tmp_path / "runs" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    kept = file.read_bytes()
    for words in (b"held_out/score", b"train/loss", b"a first try", b"algo.planning_steps"):
        assert words in kept, words
    assert (tmp_path / "runs" / "train").is_dir()


@needs("wandb")
def test_runs_of_a_sweep_are_runs_of_their_own(tmp_path):
    ran("tracker=wandb", tmp_path, "-m", "seed=0,1", "algo.planning_steps=0")

    assert len(list((tmp_path / "runs" / "wandb").glob("offline-run-*"))) == 2


@needs("optuna")
def test_optuna_looks_for_the_highest_score(tmp_path):
    said = ran("sweeper=optuna", tmp_path, "hydra.sweeper.n_trials=3")

    (best,) = tmp_path.rglob("optimization_results.yaml")
    found = best.read_text()
    scores = [json.loads(file.read_text())["held_out"]["score"] for file in tmp_path.rglob("summary.json")]
    assert len(scores) == 3
    value = float(next(line for line in found.splitlines() if line.startswith("best_value")).split(":")[1])
    assert value == pytest.approx(max(scores))
    assert "algo.learning_rate" in found and "held-out applicants" in said


@needs("optuna")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, about what Optuna does
def test_a_search_goes_on_with_other_values(tmp_path):
    import optuna

    storage = "sqlite:///runs/optuna.db"
    for _ in range(2):
        ran("sweeper=optuna", tmp_path, "hydra.sweeper.n_trials=2", f"hydra.sweeper.storage={storage}", "name=a search")

    study = optuna.load_study("a search", f"sqlite:///{tmp_path}/runs/optuna.db")
    assert len({str(trial.params) for trial in study.trials}) == len(study.trials) == 4


@needs("optuna")
def test_a_run_that_fails_does_not_end_a_search(tmp_path):
    ran("sweeper=optuna", tmp_path, "hydra.sweeper.n_trials=4", "algo.gamma=choice(-1,0.5)")

    assert list(tmp_path.rglob("summary.json")) and list(tmp_path.rglob("optimization_results.yaml"))


@needs("optuna")
def test_runs_of_a_search_with_the_same_values_may_be_made_at_the_same_time(tmp_path):
    twins = ["algo.learning_rate=choice(0.001)", "algo.planning_steps=choice(0)"]
    ran("sweeper=optuna", tmp_path, "launcher=joblib", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=2", *twins)

    assert len(list(tmp_path.rglob("summary.json"))) == 1
