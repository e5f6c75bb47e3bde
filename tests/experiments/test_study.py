import json
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from scipy.stats import trim_mean

from experiments.runs import intervals
from experiments.runs.folders import RunError
from experiments.runs.intervals import (
    interval,
    interval_cell,
    mean_interval,
    paired_difference,
    probability_of_improvement,
    resamples,
)
from experiments.studies.study import IN_WORDS, Study


def study(**scores):
    """Learners on seeds 5, 6, ...; `name=(n_seeds, 3)`, after 0, 20 and 100 interactions."""
    n_seeds = len(next(iter(scores.values())))
    return Study(
        range(5, 5 + n_seeds),
        [0, 20, 100],
        scores,
        {name: np.full(n_seeds, 10.0) for name in scores},
        {name: np.full(n_seeds, 0.5) for name in scores},
        reps=50,
    )


def test_the_interval_is_of_the_interquartile_mean():
    values = np.random.default_rng(0).normal(1.0, 0.1, 12)

    middle, low, high = interval(values, reps=500)

    assert middle == pytest.approx(trim_mean(values, 0.25))
    assert low < middle < high
    assert high - low < 0.2
    assert interval(values, reps=500) == (middle, low, high)


def test_resamples_of_many_values_take_little_memory():
    """All resamples at once would take 2 GB here."""
    values = np.random.default_rng(0).random((20_000, 4))
    tracemalloc.start()
    try:
        mean, low, high = mean_interval(values, reps=2_000)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert (low < mean).all() and (mean < high).all() and (high - low < 0.01).all()


def test_how_many_resamples_come_at_a_time_does_not_change_them(monkeypatch):
    values = np.random.default_rng(0).random((7, 2))
    at_once = np.random.default_rng(3).integers(7, size=(50, 7))
    before = mean_interval(values, 50, seed=3), interval(values[:, 0], 50, seed=3)
    monkeypatch.setattr(intervals, "_AT_ONCE", 3 * 7)
    parts = list(resamples(7, 50, seed=3))
    assert len(parts) == 17 and (np.concatenate(parts) == at_once).all()
    assert (before[0] == mean_interval(values, 50, seed=3)).all()
    assert before[1] == interval(values[:, 0], 50, seed=3)
    assert (before[0][1:] == np.quantile(values[at_once].mean(axis=1), (0.025, 0.975), axis=0)).all()


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval(n_seeds):
    few = study(one=[[0.1, 0.2, 0.3], [0.2, 0.2, 0.3]][:n_seeds], other=[[0.4, 0.4, 0.4]] * n_seeds)
    tables = few.table(), few.iqm_table(), few.difference_table("one")
    assert not any("[" in cell for _, rows in tables for row in rows for cell in row)
    assert tables[2][1][0][-1] == "+0"
    assert "with fewer than three seeds there are none" in IN_WORDS
    assert interval_cell((0.5, 0.4, 0.6), 3) == "0.50 [0.40, 0.60]"


def test_the_probability_of_improvement_compares_seed_by_seed_and_counts_ties_half():
    assert probability_of_improvement(np.array([1.0, 2.0, 0.1]), np.array([1.0, 0.0, 0.2])) == pytest.approx(0.5)
    assert probability_of_improvement(np.array([0.1, 0.6]), np.array([0.0, 0.5])) == 1.0


def test_a_paired_difference_of_three_seeds_is_as_by_hand():
    ours, theirs = np.array([0.9, 0.2, 0.5]), np.array([0.8, 0.0, 0.5])

    mean, low, high = paired_difference(ours, theirs, reps=20_000)

    # Differences .1, .2, 0. All three draws are the smallest in 1 of 27 resamples, and the largest in another one.
    assert mean == pytest.approx(0.1)
    assert (low, high) == (pytest.approx(0.0), pytest.approx(0.2))
    # Unpaired the seeds' own differences would widen it.
    assert high - low < np.subtract(*mean_interval(ours, reps=20_000)[[2, 1]])


def test_differences_are_told_from_the_reference_at_each_point_and_of_the_regret():
    told = study(one=[[0.4, 0.4, 0.4]] * 3, other=[[0.4, 0.5, 0.3]] * 3)
    told.regret["other"] = np.full(3, 7.0)

    header, rows = told.difference_table("one")

    assert header == ["less one, score after", "0", "20", "100", "regret"]
    assert rows == [
        ["other", "+0.000 [+0.000, +0.000]", "+0.100 [+0.100, +0.100]", "-0.100 [-0.100, -0.100]", "-3 [-3, -3]"]
    ]


def test_the_worst_seed_is_the_lowest_of_any_seed_from_20_on_beside_its_own_start():
    worst = study(one=[[0.1, 0.4, 0.5], [0.45, 0.42, 0.2], [0.4, 0.3, 0.6]]).worst_seed("one")

    assert worst == (0.2, 0.45, 6, 100)


def test_a_table_gives_means_worst_seed_regret_and_cpu_time():
    header, rows = study(one=[[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]]).table()

    assert header == ["mean score after", "0", "20", "100", "worst seed", "regret", "CPU ms"]
    assert rows == [["one", "0.200", "0.300", "0.400", "0.20 from 0.10", "10", "5.0"]]


def test_the_second_table_gives_interquartile_means():
    _, rows = study(one=[[0.0, 0.5, 0.5], [0.4, 0.5, 0.5], [0.4, 0.5, 0.5], [0.9, 0.5, 0.5]]).iqm_table()

    assert [cell.partition(" ")[0] for cell in rows[0]] == ["one", "0.40", "0.50", "0.50"]


def test_a_study_survives_its_json():
    first = study(one=[[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]], other=[[0.4, 0.4, 0.4]] * 2)

    again = Study.from_json(json.loads(json.dumps(first.to_json())), 50)

    assert again.table() == first.table()
    assert again.difference_table("one") == first.difference_table("one")
    assert len(list(again.rows())) == 2 * 2 * 3


def test_a_run_is_read_with_its_cpu_time_and_a_missing_one_is_named(tmp_path, run):
    run("algo=random", "total_timesteps=10", "evaluation.at=[0,10]", folder="random/seed-0")
    folders = {"random": tmp_path / "random"}

    with pytest.raises(RunError, match="seed-1"):
        Study.read(folders, [0, 1], [0, 10], 10)
    with pytest.raises(RunError, match=r"after \[20\] interactions"):
        Study.read(folders, [0], [0, 20], 10)
    read = Study.read(folders, [0], [0, 10], 10)
    assert read.scores["random"].shape == (1, 2)
    assert read.cpu_ms("random") > 0
