import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from scipy.stats import trim_mean

from experiments import build
from experiments.coldstart import Study, interval, probability_of_improvement
from experiments.runs import RunError

ROOT = Path(build.__file__).parents[1]


def test_the_interval_is_of_the_interquartile_mean():
    values = np.random.default_rng(0).normal(1.0, 0.1, 12)

    middle, low, high = interval(values, reps=500)

    assert middle == pytest.approx(trim_mean(values, 0.25))
    assert low < middle < high
    assert high - low < 0.2
    assert interval(values, reps=500) == (middle, low, high)


def test_the_probability_of_improvement_counts_ties_half():
    assert probability_of_improvement(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(0.875)


def test_a_study_of_known_scores_is_told_as_it_is(tmp_path):
    scores = {"one": np.full((4, 2), 0.5), "other": np.tile([0.1, 0.9], (4, 1))}
    study = Study(scores, {"one": np.full(4, 10.0), "other": np.full(4, 20.0)}, [0, 100], reps=50)

    header, rows = study.table()

    assert header == ["IQM of the score after", "0", "100", "regret"]
    assert rows == [
        ["one", "0.50 [0.50, 0.50]", "0.50 [0.50, 0.50]", "10 [10, 10]"],
        ["other", "0.10 [0.10, 0.10]", "0.90 [0.90, 0.90]", "20 [20, 20]"],
    ]
    study.plot(tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 1_000
    assert study.to_json()["scores"]["other"][0] == [0.1, 0.9]


def test_a_missing_run_is_named(tmp_path, run):
    run("algo=random", "total_timesteps=10", "evaluation.at=[0,10]", folder="random")

    with pytest.raises(RunError, match="seeds \\[1\\]"):
        Study.read({"random": tmp_path / "random"}, [0, 1], [0, 10], 10)
    with pytest.raises(RunError, match="points at \\[20\\]"):
        Study.read({"random": tmp_path / "random"}, [0], [0, 20], 10)
    assert Study.read({"random": tmp_path / "random"}, [0], [0, 10], 10).scores["random"].shape == (1, 2)


def test_the_command_runs_what_is_missing_and_prints_the_table(tmp_path):
    sizes = ("market.n_jobs=60", "market.n_applicants=40", "env.num_candidates=5", "evaluation.n_pairs=32")
    common = f"common={json.dumps(sizes)}"
    command = [
        *(sys.executable, "-m", "experiments.coldstart", "preset=quick", "only=[cosine,linucb]", "seeds=[0,1]"),
        *("interactions=20", "n_jobs=1", "reps=20", f"folder={tmp_path}", common),
    ]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert first.stdout == again.stdout
    assert [line.split()[0] for line in first.stdout.splitlines()[2:4]] == ["cosine", "linucb"]
    numbers = json.loads((tmp_path / "coldstart.json").read_text())
    assert np.array(numbers["scores"]["cosine"]).shape == (2, 2)
    assert len(set(np.array(numbers["scores"]["cosine"])[0])) == 1
    assert "finished" in again.stderr


def test_an_unknown_learner_is_named():
    command = [sys.executable, "-m", "experiments.coldstart", "only=[dynak]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode != 0
    assert "`only`" in done.stderr
