"""The study of intervals: small, resumed, and counted rightly."""

import json

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.runs.folders import read_json
from experiments.studies import coverage
from experiments.studies.coverage import PlantedLogs, coverage_table, run_cell


@pytest.fixture(scope="module")
def planted():
    return PlantedLogs(300)


@pytest.mark.parametrize("overlap", ["good", "poor"])
def test_logs_are_drawn_from_the_population_that_the_exact_value_is_of(planted, overlap):
    log, chances = planted.log(overlap, 20_000, 0)
    behaviour = planted.chances[overlap][0]

    of_behaviour = float((behaviour * planted.expected).sum(axis=1).mean())
    assert log.reward.mean() == pytest.approx(of_behaviour, abs=0.02)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    weights = chances[np.arange(20_000), log.chosen] / log.propensity
    assert (weights @ log.reward) / weights.sum() == pytest.approx(planted.value(overlap), abs=0.08)
    again, _ = planted.log(overlap, 20_000, 0)
    assert again.reward.tolist() == log.reward.tolist()


def test_finished_logs_are_not_made_again_unless_something_changed(planted, tmp_path, monkeypatch):
    file = tmp_path / "good-500.json"
    whole = run_cell(planted, "good", 500, 4, 50, tmp_path / "other.json")
    run_cell(planted, "good", 500, 2, 50, file)
    made = []
    monkeypatch.setattr(
        PlantedLogs, "log", lambda self, *what, make=PlantedLogs.log: made.append(what[-1]) or make(self, *what)
    )

    assert run_cell(planted, "good", 500, 4, 50, file) == whole
    assert made == [2, 3]
    assert read_json(file, "") == whole
    made.clear()
    run_cell(planted, "good", 500, 4, 60, file)
    assert made == [0, 1, 2, 3]


def test_each_log_names_the_commit_that_made_it(planted, tmp_path, monkeypatch):
    file = tmp_path / "good-500.json"
    for commit, n_logs in (("abc", 1), ("def", 2)):
        monkeypatch.setattr(coverage, "commit_of_checkout", lambda commit=commit: commit)
        logs = run_cell(planted, "good", 500, n_logs, 50, file)["logs"]
    assert [log["commit"] for log in logs] == ["abc", "def"]


def test_the_study_names_the_commits_of_its_logs(tmp_path):
    options = ["overlaps=[good]", "sizes=[10]", "n_logs=1", "n_resamples=10", "n_people=300", f"folder={tmp_path}"]
    file = tmp_path / "cells" / "good-10.json"
    assert run_command("studies.coverage", *options).returncode == 0
    made, cell = read_json(tmp_path / "coverage.json", ""), read_json(file, "")
    assert made["commits"] == {"good, 10": made["commit"] or "unknown"}

    assert cell["logs"][0].pop("commit") == made["commit"]
    file.write_text(json.dumps(cell))
    assert run_command("studies.coverage", *options).returncode == 0
    assert read_json(tmp_path / "coverage.json", "") == {**made, "commits": {"good, 10": "unknown"}}


def test_coverage_counts_intervals_that_hold_the_value():
    log = {"ips": [0, 0.1, 0.2], "snips": [0, 0.2, 0.4], "dm": [0, 0.31, 0.4], "dr": [0, 0.3, 0.5]}
    cell = {"exact": 0.3, "logs": [{"size": 100.0, **log}, {"size": 300.0, **log, "ips": [0, 0.2, 0.5]}]}
    header, (row,) = coverage_table({("good", 5000): cell})

    assert dict(zip(header, row, strict=True)) == {
        "overlap, size": "good, 5,000",
        "logs": "2",
        "effective size": "200",
        "size 200 or more": "0.50",
        **{"ips": "0.500", "snips": "1.000", "dm": "0.000", "dr": "1.000"},
        **{"ips width": "0.2000", "snips width": "0.2000", "dm width": "0.0900", "dr width": "0.2000"},
    }
