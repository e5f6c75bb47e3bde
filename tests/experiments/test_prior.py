"""The study of a model's word as a prior: what is planted is so, finished runs are kept, the table is as promised."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")
pytest.importorskip("dynaq_algo.dynaq", reason="needs the extra 'algo'")

from commands import run_command

from experiments.llm import prior
from experiments.llm.prior import (
    CHECKPOINTS,
    Cell,
    PlantedAnswers,
    alignment_of,
    corrupted,
    cost_table,
    goals_of,
    table_rows,
)
from experiments.studies.judges import JUDGES, PlantedPolicy, judges_table, run_judge


@pytest.mark.parametrize("alignment", [1.0, 0.6, 0.0, -0.4, -1.0])
def test_a_share_of_the_answers_is_wrong_so_that_the_alignment_is_as_said(alignment):
    answers = np.random.default_rng(0).normal(size=(200, 200))
    wrong = corrupted(answers, alignment, seed=1)

    assert np.corrcoef(answers.ravel(), wrong.ravel())[0, 1] == pytest.approx(alignment, abs=0.02)
    assert wrong.std() == pytest.approx(answers.std(), rel=1e-6) or alignment not in (1, 0, -1)
    if alignment >= 0:
        assert sorted(wrong.ravel()) == sorted(answers.ravel()), "shuffled, and not made up"


def test_the_alignment_of_shares_is_that_of_the_answers():
    assert alignment_of(shuffled=0.3) == pytest.approx(0.7)
    assert alignment_of(negated=0.5) == 0 and alignment_of(negated=1.0) == -1
    with pytest.raises(ValueError, match=r"in \[-1, 1\], got 2"):
        corrupted(np.zeros((1, 1)), 2, seed=0)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_the_expected_reward_is_the_mean_of_many_answers(noise):
    truth = PlantedAnswers(np.random.default_rng(0).normal(size=(4, 5)), noise)
    people, jobs = np.divmod(np.tile(np.arange(20), 4_000), 5)
    answers = truth.feedback(people, jobs, np.arange(len(jobs)).astype(np.uint64)).reward.reshape(4_000, 20)

    np.testing.assert_allclose(answers.mean(axis=0), truth.expected_reward(people[:20], jobs[:20]), atol=0.03)


def of_seeds(noise=0.5, seeds=(0, 1)):
    """Runs whose scores and regrets are known; the model at alignment 1 halves the regret, at 0 it adds a tenth."""
    factors = {("none", 0.0): 1.0, ("cosine", 0.0): 0.8}
    factors |= {("model", 1.0): 0.5, ("both", 1.0): 0.4, ("model", 0.0): 1.1, ("both", 0.0): 0.88}
    runs = {}
    for (name, alignment), factor in factors.items():
        for seed in seeds:
            at = [str(checkpoint) for checkpoint in CHECKPOINTS]
            trust = {} if name in ("none", "cosine") else {"model": [alignment + seed / 10, 0.5, 0.5]}
            runs[Cell(seed, noise, name, alignment)] = {
                "score": dict(zip(at, (0.0, 0.1, 0.2, 0.3, 1 - factor / 2), strict=True)),
                "regret": {key: factor * float(key) for key in at},
                "trust": dict.fromkeys(at, trust),
            }
    return runs


def test_the_table_has_the_promised_columns_and_each_prior_beside_each_alignment():
    rows = table_rows(of_seeds(), [1.0, 0.0])
    assert rows[:4] == [
        ["1", "0.5", "none", "0.5000", "200.000"],
        ["1", "0.5", "cosine", "0.6000", "160.000"],
        ["1", "0.5", "model", "0.7500", "100.000"],
        ["1", "0.5", "both", "0.8000", "80.000"],
    ]
    assert rows[4][:3] == ["0", "0.5", "none"] and len(rows) == 8


def test_goals_are_costs_and_savings_beside_the_same_prior_without_the_model():
    goals = goals_of(of_seeds(), [1.0, 0.0], [0.5])
    assert goals["saved"] == {"model, noise 0.5": pytest.approx(0.5), "both, noise 0.5": pytest.approx(0.5)}
    cost = goals["cost"]["both, noise 0.5, alignment 0"]
    assert cost["regret"] == pytest.approx(0.1) and cost["score"]["200"] == pytest.approx(0.04)
    assert goals["told"]["model, noise 0.5"] == {"20": 1.0, "50": 1.0}


def test_the_costs_are_means_over_noises_with_the_error_of_seeds():
    runs = of_seeds() | of_seeds(noise=1.0)
    runs[Cell(1, 1.0, "model", 0.0)]["score"]["50"] = 0.0
    ((header, rows),) = cost_table(runs, [1.0, 0.0], [0.5, 1.0])

    assert [row[0] for row in rows] == [f"{name}, alignment {a}" for name in ("model", "both") for a in (1, 0)]
    none, both = (dict(zip(header, rows[place], strict=True)) for place in (1, 3))
    assert none["score lost 50"] == "0.050 +- 0.050", "one of four lost .2"
    assert none["more regret 50 to 200"] == "0.10 +- 0.00" and none["regret saved 100"] == "-0.10 +- 0.00"
    assert both["score lost 200"] == "0.040 +- 0.000"
    short = {cell: {**run, "score": {"0": 0.0}} for cell, run in runs.items()}
    assert cost_table(short, [1.0, 0.0], [0.5, 1.0]) == []


def test_the_command_goes_on_where_it_was_and_prints_its_table_last(tmp_path, monkeypatch):
    folder, made = tmp_path / "run", []
    monkeypatch.setattr(prior, "play", lambda cell, n: made.append(cell) or {"score": {}, "regret": {}, "trust": {}})
    cells = [Cell(0, 0.5, "none"), Cell(0, 0.5, "model", 1.0)]
    prior.run_cells(cells[:1], folder, 200)
    assert prior.run_cells(cells, folder, 200).keys() == set(cells)
    assert made == cells, "the first is not made again"
    prior.run_cells(cells, folder, 20)
    assert made == cells * 2, "another length is another run"
    with pytest.raises(ValueError, match="`n_jobs` must be at least 1"):
        prior.run_cells(cells, folder, 200, n_jobs=0)


def test_a_small_study_writes_table_figure_and_numbers(tmp_path):
    short = ("seeds=[0]", "noises=[0.5]", "alignments=[1.0]", "n_interactions=0", "n_jobs=1", f"folder={tmp_path}/out")
    done = run_command("llm.prior", *short)
    assert done.returncode == 0, done.stderr

    last = done.stdout.splitlines()[-1]
    assert last == f"{tmp_path}/out/table.csv"
    with Path(last).open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["alignment", "noise", "prior", "score", "regret"]
    scores = {row["prior"]: float(row["score"]) for row in rows}
    assert scores["model"] == 1.0, "before any answer the truth itself ranks as the best"
    assert scores["none"] < 0.2 < scores["cosine"] < scores["both"]
    numbers = json.loads((tmp_path / "out" / "prior.json").read_text())
    assert [table["header"][0] for table in numbers["tables"]] == [
        "noise 0.5: prior",
        "planted truth, noise 0.5: prior",
    ]
    assert (tmp_path / "out" / "prior.png").stat().st_size > 1_000


# What a judge of everything adds to few answers.


def test_the_exact_value_is_the_mean_over_all_applicants_and_sets():
    planted = PlantedPolicy(seed=3)
    people, jobs = planted.recommendations(40_000, np.random.default_rng(0))
    sample = planted.expected[people, jobs]
    assert sample.mean() == pytest.approx(planted.value, abs=4 * sample.std() / 200)


def test_a_judge_who_knows_the_truth_narrows_the_interval():
    found = run_judge(PlantedPolicy(), JUDGES[0], [30], n_judged=300, n_draws=20, seed=1, noise=0.5)
    alone, powered, wide, narrow, weight = found["30"]
    assert narrow < 0.7 * wide and weight > 0.9 and min(alone, powered) >= 0.7
    header, ((*row,),) = judges_table({JUDGES[0]: found})
    assert header[0] == "judge, answers" and row[0] == "planted truth, 30" and row[5] == f"{narrow / wide:.2f}"
