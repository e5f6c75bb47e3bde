"""The study of a model's word as a prior: what is planted is so, finished runs are kept, the table is as promised."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")
pytest.importorskip("dynaq_algo.dynaq", reason="needs the extra 'algo'")

from commands import run_command

from experiments.llm import prior
from experiments.llm.prior import (
    CHECKPOINTS,
    PRIORS,
    Cell,
    PlantedAnswers,
    alignment_of,
    by_seed,
    corrupted,
    cost_table,
    figure_of,
    goals_of,
    goals_table,
    means_tables,
    table_rows,
)
from experiments.studies.judges import JUDGES, PlantedPolicy, judges_table, run_judge, run_weighted
from jobrec_gym import RecordedSimulator, load_market


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


def test_at_minus_a_half_the_right_quarter_is_two_fifths_of_the_highest_answers():
    """The recorded answers are skewed: the highest are far above the mean, and none is as far below it."""
    market = load_market("recorded")
    people, jobs = np.arange(len(market.applicants))[:, None], np.arange(len(market.jobs))
    answers = RecordedSimulator().bind(market).probabilities(people, jobs)
    right, high = [], []
    for seed in range(500, 510):
        told = corrupted(answers, -0.5, seed)
        top = np.argsort(-told.ravel())[: told.size // 20]
        right.append(np.isclose(told, answers).mean())
        high.append(np.isclose(told, answers).ravel()[top].mean())
    assert np.mean(right) == pytest.approx(0.25, abs=0.005)
    assert np.mean(high) == pytest.approx(0.42, abs=0.005)


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

    aligned = [f"{name}, alignment {a}" for name in ("model", "both", "both against model") for a in (1, 0)]
    assert [row[0] for row in rows] == [*aligned, "cosine"]
    none, both, beside, cosine = (dict(zip(header, rows[place], strict=True)) for place in (1, 3, 5, 6))
    assert none["score lost 50"] == "0.050 +- 0.050", "one of four lost .2"
    assert none["more regret 50 to 200"] == "0.10 +- 0.00" and none["regret saved 100"] == "-0.10 +- 0.00"
    assert both["score lost 200"] == "0.040 +- 0.000"
    assert beside["score lost 200"] == "-0.110 +- 0.000" and beside["regret saved 100"] == "0.20 +- 0.00"
    assert cosine["score lost 200"] == "-0.100 +- 0.000" and cosine["more regret 50 to 200"] == "-0.20 +- 0.00"
    short = {cell: {**run, "score": {"0": 0.0}} for cell, run in runs.items()}
    assert cost_table(short, [1.0, 0.0], [0.5, 1.0]) == []


def test_the_error_of_a_share_of_regret_is_that_of_a_ratio():
    """By hand: regrets of 1 and 3 with the model, of 2 and 4 without. The ratio R of the means is 2/3.

    The residuals 1 - 2R and 3 - 4R are -1/3 and 1/3, so their standard deviation is sqrt(2)/3, and the error of R is
    that by the mean 3 and by sqrt(2): 1/9. The differences are -1 for both seeds: with the denominator held fixed the
    error would be 0.
    """
    runs = of_seeds()
    for seed in (0, 1):
        for name, alignment, regret in (("none", 0.0, 2.0 + 2 * seed), ("model", 1.0, 1.0 + 2 * seed)):
            runs[Cell(seed, 0.5, name, alignment)]["regret"] |= {"50": 0.0, "100": regret, "200": regret}
    ((header, (row, *_)),) = cost_table(runs, [1.0, 0.0], [0.5])
    told = dict(zip(header, row, strict=True))
    assert told["regret saved 100"] == "0.33 +- 0.11" and told["more regret 50 to 200"] == "-0.33 +- 0.11"


def test_one_seed_has_no_error():
    ((header, (row, *_)),) = cost_table(of_seeds(seeds=(0,)), [1.0, 0.0], [0.5])
    assert dict(zip(header, row, strict=True))["regret saved 100"] == "0.50"


def on_the_planted_truth(noise=0.5):
    """Runs on the planted truth: the model costs .1 of score and a fifth of the regret, the cosine nothing."""
    costs = {"none": 0.0, "cosine": 0.0, "model": 0.1, "model less job's mean": -0.1, "cosine and model": 0.01}
    runs = {}
    for name, cost in costs.items():
        for seed in (0, 1):
            at = [str(checkpoint) for checkpoint in CHECKPOINTS]
            runs[Cell(seed, noise, name, 0.0, "rules")] = {
                "score": {key: 0.5 - cost + seed / 10 for key in at},
                "regret": {key: (1 + 2 * cost) * float(key) for key in at},
                "trust": dict.fromkeys(at, {"model": [0.5, 0.5, 0.5]} if "model" in name else {}),
            }
    return runs


def test_each_source_is_compared_with_leaving_it_out_also_on_the_planted_truth():
    runs = of_seeds() | on_the_planted_truth()
    ((header, rows),) = cost_table(runs, [1.0, 0.0], [0.5])
    lost = {row[0]: row[header.index("score lost 100")].split()[0] for row in rows}
    assert {name.partition(": ")[2]: cost for name, cost in lost.items() if name.startswith("planted")} == {
        "cosine": "0.000",
        "model": "0.100",
        "model less job's mean": "-0.100",
        "cosine and model": "0.010",
        "cosine and model against model": "-0.090",
    }
    cost = goals_of(runs, [1.0, 0.0], [0.5])["cost"]
    assert cost["planted truth: model, noise 0.5"]["score"]["50"] == pytest.approx(0.1)
    assert cost["planted truth: model, noise 0.5"]["regret"] == pytest.approx(0.2)
    assert cost["cosine, noise 0.5"]["regret"] == pytest.approx(-0.2)
    assert cost["both against model, noise 0.5, alignment 0"]["regret"] == pytest.approx(-0.2)


def test_goals_that_are_missed_are_counted_by_what_is_compared():
    goals = goals_of(of_seeds() | on_the_planted_truth(), [1.0, 0.0], [0.5])
    ((header, rows),) = goals_table(goals, [1.0, 0.0], [0.5])
    assert header == ["above the limits: prior", "in score", "in regret", "in either", "of"]
    counts = {name: list(map(int, numbers)) for name, *numbers in rows}
    assert counts["model"] == counts["both"] == [1, 1, 1, 2], "at an alignment of 0 more than .02 and 5 % are lost"
    assert counts["both against model"] == [0, 0, 0, 2] and counts["cosine"] == [0, 0, 0, 1]
    assert counts["planted truth: model"] == [1, 1, 1, 1] and counts["planted truth: cosine and model"] == [0, 0, 0, 1]
    assert counts["all"] == np.sum([numbers for name, numbers in counts.items() if name != "all"], axis=0).tolist()


def test_means_over_noises_have_the_error_of_seeds():
    runs = on_the_planted_truth() | on_the_planted_truth(1.0) | of_seeds() | of_seeds(1.0)
    runs[Cell(0, 1.0, "model", 0.0, "rules")]["score"]["20"] = 0.2  # .2 less than at the other noise
    (header, rows), (recorded, others) = means_tables(runs, [1.0, 0.0], [0.5, 1.0])

    assert header[0] == "planted truth, mean of noises: prior" and recorded[0] == "mean of noises: prior"
    told = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert told["none"]["score 50"] == "0.550 +- 0.050", ".5 and .6"
    assert told["model"]["score 20"] == "0.400 +- 0.100", ".3 and .5"
    assert told["model"]["regret 100"] == "120.0 +- 0.0"
    names = [f"{name}, alignment {a}" for name in ("model", "both") for a in (1, 0)]
    assert [row[0] for row in others] == ["none", "cosine", *names]


def test_the_figures_of_each_seed_are_kept():
    told = by_seed(of_seeds() | on_the_planted_truth())
    assert told["noise 0.5: model, alignment 1"]["model's trust 20"] == "1.0000 1.1000"
    assert told["noise 0.5: none"]["regret 100"] == "100.0000 100.0000"
    assert told["planted truth, noise 0.5: cosine and model"]["score 50"] == "0.4900 0.5900"
    assert "model's trust 20" not in told["noise 0.5: cosine"]


def test_the_figure_parts_mirrored_answers_from_shuffled_ones():
    runs = of_seeds() | {
        Cell(cell.seed, cell.noise, cell.prior, -1.0): run
        for cell, run in of_seeds().items()
        if cell.prior in ("model", "both") and cell.alignment == 1
    }
    for panel in figure_of(runs, [1.0, 0.0, -1.0], [0.5]).axes:
        assert {text.get_text() for text in panel.texts} == {"mirrored", "shuffled"}
        joined = [line.get_xdata() for line in panel.lines if line.get_marker() == "o"]
        assert joined and not any(min(x) < 0 <= max(x) for x in joined)
    for panel in figure_of(of_seeds(), [1.0, 0.0], [0.5]).axes:
        assert not panel.texts


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


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (Cell(0, 0.5, "model", 2.0), r"`alignments` must be in \[-1, 1\], got 2"),
        (Cell(0, -1.0, "none"), "`noises` must be finite numbers of 0 or more, got -1"),
        (Cell(0, math.nan, "none"), "`noises` must be finite numbers of 0 or more, got nan"),
    ],
)
def test_what_no_run_can_have_is_refused_before_the_first_run(tmp_path, monkeypatch, cell, said):
    monkeypatch.setattr(prior, "play", lambda cell, n: pytest.fail("nothing is run"))
    with pytest.raises(ValueError, match=said):
        prior.run_cells([Cell(0, 0.5, "none"), cell], tmp_path, 200)


def test_a_kept_run_keeps_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(prior, "play", lambda cell, n: {"score": {}, "regret": {}, "trust": {}})
    cells = [Cell(0, 0.5, "none"), Cell(0, 0.5, "cosine")]
    for commit, some in (("abc", cells[:1]), ("def", cells)):
        monkeypatch.setattr(prior, "commit_of_checkout", lambda commit=commit: commit)
        runs = prior.run_cells(some, tmp_path, 200)
    assert [runs[cell]["commit"] for cell in cells] == ["abc", "def"]


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
    assert numbers["by_seed"]["noise 0.5: model, alignment 1"]["score 0"] == "1.0000"
    assert set(numbers["commits"].values()) == {numbers["commit"] or "unknown"} and set(PRIORS) < {*numbers["commits"]}


# What a judge of everything adds to few answers.


def test_the_exact_value_is_the_mean_over_all_applicants_and_sets():
    planted = PlantedPolicy(seed=3)
    people, jobs = planted.recommendations(40_000, np.random.default_rng(0))
    sample = planted.expected[people, jobs]
    assert sample.mean() == pytest.approx(planted.value, abs=4 * sample.std() / 200)


def test_a_judge_who_knows_the_truth_narrows_the_interval():
    found = run_judge(PlantedPolicy(), JUDGES[0], [30], n_judged=300, n_draws=20, seed=1, noise=0.5)
    alone, powered, wide, narrow, weight = found["30"]
    assert narrow < 0.7 * wide and 0.75 < weight < 29 / 35 and min(alone, powered) >= 0.7
    header, ((*row,),) = judges_table({JUDGES[0]: found}, "answers")
    assert header[0] == "judge, answers" and row[0] == "planted truth, 30" and row[5] == f"{narrow / wide:.2f}"


def test_answers_are_those_of_the_planted_truth_in_the_mean():
    planted, rng = PlantedPolicy(), np.random.default_rng(0)
    people, jobs = planted.recommendations(40_000, rng)
    apart = planted.answers(people, jobs, rng) - planted.expected[people, jobs]
    assert apart.mean() == pytest.approx(0, abs=4 * apart.std() / 200)


def test_logs_of_another_policy_are_weighted_for_the_value_among_the_shown_jobs():
    planted = PlantedPolicy(seed=3)
    log, policy = planted.log(120, 50, 3, 10, np.random.default_rng(0))
    assert int(log.answered.sum()) == 6_000 and len(log) == 6_010
    np.testing.assert_array_equal(policy.sum(axis=1), 1)
    taken = policy[np.arange(6_010), (log.sets(np.arange(6_010)) == log.job_ids[:, None]).argmax(axis=1)]
    weighted = (3 * taken * log.reward)[log.answered]
    assert weighted.mean() == pytest.approx(planted.value_among(3), abs=4 * weighted.std() / np.sqrt(6_000))

    found = run_weighted(planted, JUDGES[0], [[30, 1]], 3, 200, n_draws=10, seed=1, noise=0.5)
    alone, powered, wide, narrow, weight = found["30 x 1"]
    assert narrow < 0.8 * wide and weight > 0.6 and min(alone, powered) >= 0.6


def test_the_study_names_the_commit_of_each_judge_also_of_one_that_is_kept(tmp_path):
    few = ["sizes=[3]", "n_judged=10", "n_draws=1", "weighted.answers=[[4,1]]", "weighted.n_unanswered=5"]
    assert run_command("studies.judges", *few, f"folder={tmp_path}").returncode == 0
    made = json.loads((tmp_path / "judges.json").read_text())
    assert made["commits"] == dict.fromkeys(JUDGES, made["commit"] or "unknown")
    for number, commit in ((0, {}), (1, {"commit": "abc"})):
        file = tmp_path / "cells" / f"{number}.json"
        cell = {key: value for key, value in json.loads(file.read_text()).items() if key not in ("commit", "sha256")}
        file.write_text(json.dumps({**cell, **commit}))
    assert run_command("studies.judges", *few, f"folder={tmp_path}").returncode == 0
    again = json.loads((tmp_path / "judges.json").read_text())
    assert again == {**made, "commits": again["commits"], "sha256": again["sha256"]}
    assert again["commits"] == {**made["commits"], JUDGES[0]: "unknown", JUDGES[1]: "abc"}


# The page, where no table holds a figure.

AFTER_50 = ("regret 200", "regret 50")


@pytest.fixture(scope="module")
def page_and_numbers():
    results = Path(__file__).parents[2] / "docs" / "results"
    return " ".join((results / "prior.md").read_text().split()), json.loads((results / "prior.json").read_text())


def test_the_page_counts_where_the_model_costs_more_and_says_what_it_saves(page_and_numbers):
    page, numbers = page_and_numbers
    goals = numbers["goals"]
    missed = [
        name.rpartition(" ")[2]
        for name, cost in goals["cost"].items()
        if name.startswith(("model, ", "both, ")) and (max(cost["score"].values()) > 0.02 or cost["regret"] > 0.05)
    ]
    counted = {alignment: missed.count(alignment) for alignment in ("-0.5", "0.25", "0")}
    assert sum(counted.values()) == len(missed)
    at = "{-0.5} of them are at an alignment of -0.5, {0.25} at 0.25 and {0} at 0."
    for alignment, count in counted.items():
        at = at.replace(f"{{{alignment}}}", str(count))
    assert f"the model costs more than the limits in {len(missed)} of 48" in page and at in page
    saved = goals["saved"].values()
    assert len(saved) == 6 and f"{min(saved):.2f} to {max(saved):.2f} are saved" in page


def test_the_page_says_what_two_seeds_do(page_and_numbers):
    page, numbers = page_and_numbers
    seeds, kept = numbers["seeds"], numbers["by_seed"]
    places = [seeds.index(501), seeds.index(504)]

    def late(name):
        """Regret from the 50th answer on, (n_noises, n_seeds)."""
        of_noises = [kept[f"noise {noise}: {name}"] for noise in ("0.25", "0.5", "1")]
        return np.array([np.subtract(*(np.array(one[at].split(), float) for at in AFTER_50)) for one in of_noises])

    more = []
    for prior_, without in (("model", "none"), ("both", "cosine")):
        trusts = {
            noise: kept[f"noise {noise}: {prior_}, alignment -0.5"]["model's trust 100"].split()
            for noise in ("0.25", "0.5", "1")
        }
        assert all(float(trust[places[0]]) > 0.95 for trust in trusts.values())
        assert all(float(trusts[noise][places[1]]) == pytest.approx(0.4, abs=0.05) for noise in ("0.25", "0.5"))
        found, base = (np.delete(late(name), places, axis=1) for name in (f"{prior_}, alignment -0.5", without))
        more.append(100 * (found.mean() / base.mean() - 1))
    assert "because of two seeds of thirty, 501 and 504." in page
    said = f"raises the regret by {more[0]:.1f} % alone, and by {more[1]:.0f} % beside the cosine"
    assert f"In the other 28 seeds the model at -0.5 {said}" in page
