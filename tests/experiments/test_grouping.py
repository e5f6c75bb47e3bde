"""Which runs are repetitions, which can be compared, and what a sweep says of them at its end."""

import json

import pytest
import yaml

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from omegaconf import OmegaConf

from experiments import evaluate
from experiments.runs import saved
from experiments.runs.folders import Run, find_runs
from experiments.runs.grouping import group_runs, like_with_like, newest
from experiments.runs.sweeps import NoteSweep, in_words, tell_sweep


def references(cosine):
    return {who: {"score": score, "discounted_return": 1.0} for who, score in (("random", 0.0), ("cosine", cosine))}


def made(tmp_path, folder, *overrides, name=None, seed=0, score=0.5, cosine=0.4, commit="c1", finished="1"):
    """A finished run, as far as comparisons read it."""
    place = tmp_path / folder
    place.mkdir(parents=True)
    config = {"name": name, "seed": seed, "algo": {"gamma": 0.9, "of": "".join(overrides)}}
    summary = {
        "overrides": [*overrides, f"seed={seed}"],
        "seed": seed,
        "commit": commit,
        "held_out": {"score": score},
        "references": references(cosine),
        "wall_clock": {"finished": finished},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    (place / "summary.json").write_text(json.dumps(summary))
    return Run(place, config, summary)


def test_a_run_is_called_by_the_name_that_it_was_given(tmp_path):
    runs = [made(tmp_path, f"{algo}{seed}", f"algo={algo}", seed=seed) for algo in ("a", "b") for seed in (0, 1)]
    runs += [made(tmp_path, "c", "algo=c", name="the best one")]

    assert {label: len(members) for label, members in group_runs(runs).items()} == {
        "algo=a": 2,
        "algo=b": 2,
        "the best one": 1,
    }


def test_one_name_for_a_whole_sweep_keeps_what_sets_its_runs_apart(tmp_path):
    runs = [made(tmp_path, algo, f"algo={algo}", name="mine") for algo in ("a", "b")]

    assert list(group_runs(runs)) == ["mine: algo=a", "mine: algo=b"]


def test_a_task_is_named_by_its_own_entries_also_if_the_other_task_has_more(tmp_path):
    runs = [made(tmp_path, name, f"algo={name}", cosine=cosine) for name, cosine in (("a", 0.4), ("b", 0.3))]
    more = {f"dynamics_{number}": number for number in range(4)}
    runs[0].config["env"] = {"id": "JobRecCareer-v0", "steps": 40, **more}
    runs[1].config["env"] = {"repeats": True, "steps": 10}

    assert [task.name for task in like_with_like(group_runs(runs))] == [
        "Task 1: env.dynamics_0=0, env.dynamics_1=1, env.dynamics_2=2, ...",
        "Task 2: env.repeats=True, env.steps=10",
    ]


def test_a_seed_that_was_run_by_two_commits_is_no_repetition(tmp_path):
    runs = [made(tmp_path, commit, "algo=a", commit=commit) for commit in ("c1", "c2")]

    assert list(group_runs(runs)) == ["default at c1", "default at c2"]
    assert list(group_runs([runs[0], made(tmp_path, "other", "algo=a", seed=1, commit="c2")])) == ["algo=a"]


def test_of_a_run_that_was_made_twice_the_newest_counts(tmp_path):
    runs = [made(tmp_path, name, "algo=a", finished=name) for name in ("2026-02", "2026-03", "2026-01")]
    runs.append(made(tmp_path, "seed", "algo=a", seed=1))

    kept, repeats = newest(runs)

    assert [run.folder.name for run in kept] == ["2026-03", "seed"]
    assert sorted(run.folder.name for run in repeats) == ["2026-01", "2026-02"]


def test_runs_of_unlike_pairs_are_in_comparisons_of_their_own(tmp_path):
    runs = [
        made(tmp_path, f"{market}{algo}", f"algo={algo}", f"market={market}", "env.k=5", cosine=cosine)
        for market, cosine in (("big", 0.4), ("small", 0.1))
        for algo in ("a", "b")
    ]

    found = like_with_like(group_runs(runs))

    assert [comparison.name for comparison in found] == ["Task 1: market=big", "Task 2: market=small"]
    assert [list(comparison.groups) for comparison in found] == [
        ["algo=a, market=big", "algo=b, market=big"],
        ["algo=a, market=small", "algo=b, market=small"],
    ]


def test_groups_that_share_one_of_their_truths_are_compared(tmp_path):
    # In a study each seed has a truth of its own, and a run of one may be missing.
    runs = [made(tmp_path, f"a{seed}", "algo=a", seed=seed, cosine=0.1 * seed) for seed in (1, 2)]
    runs.append(made(tmp_path, "b2", "algo=b", seed=2, cosine=0.2))

    (found,) = like_with_like(group_runs(runs))

    assert found.name == "" and list(found.groups) == ["algo=a", "algo=b"]


def test_another_gamma_makes_no_other_pairs(tmp_path):
    runs = [made(tmp_path, algo, f"algo={algo}") for algo in ("a", "b")]
    runs[1].summary["references"]["cosine"]["discounted_return"] = 7.0

    assert len(like_with_like(group_runs(runs))) == 1


def test_a_sweep_ends_with_a_table_over_its_runs_and_its_report(tmp_path, capsys):
    for algo, score in (("a", 0.6), ("b", 0.3)):
        for seed in (0, 1):
            made(tmp_path, f"my sweep/{algo}{seed}", f"algo={algo}", seed=seed, score=score + 0.1 * seed)
    broken = tmp_path / "my sweep" / "broken"
    broken.mkdir()
    (broken / "config.yaml").touch()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "my sweep")}}})
    NoteSweep().on_multirun_start(config)

    tell_sweep()

    said = capsys.readouterr().out
    rows = {line.split("  ")[0]: line for line in said.splitlines()}
    assert "algo=a, 2 runs" in rows and "0.650 ± 0.071" in said and "0.350 ± 0.071" in said
    assert {"random", "cosine"} <= set(rows)
    assert f"1 of 5 runs unfinished: {broken}" in said
    assert said.rstrip().endswith(f"""python -m experiments.report 'runs="{tmp_path}/my sweep"'""")
    tell_sweep()
    assert capsys.readouterr().out == ""


def test_a_sweep_of_which_no_run_is_finished_says_so(tmp_path):
    assert in_words(tmp_path) == f"no run of {tmp_path} is finished"


def test_runs_of_a_sweep_over_unlike_tasks_are_in_tables_of_their_own(tmp_path):
    for k, cosine in ((5, 0.4), (9, 0.1)):
        made(tmp_path, f"{k}", f"env.k={k}", cosine=cosine)

    said = in_words(tmp_path)

    assert said.count("held-out applicants") == 2 and "Task 1: env.k=5" in said and "Task 2: env.k=9" in said
    assert len(find_runs(tmp_path, "runs")) == 2


@pytest.mark.parametrize("command", ["sweep", "evaluate"])
def test_choices_that_learn_nothing_are_means_over_the_truths_of_all_seeds(
    command, config, tmp_path, monkeypatch, capsys
):
    # An agent that is the highest cosine; a truth that two agents share counts once.
    for seed, cosine in ((0, 0.2), (1, 0.4), (2, 0.9)):
        made(tmp_path, f"a{seed}", "algo=a", seed=seed, score=cosine, cosine=cosine)
    made(tmp_path, "b0", "algo=b", seed=0, score=0.2, cosine=0.2)
    if command == "sweep":
        said = in_words(tmp_path)
    else:
        monkeypatch.setattr(saved, "evaluate_run", lambda run, *_: {**run.summary, "evaluation": {"split": "test"}})
        evaluate.main(config("evaluate", f"run={tmp_path}"))
        said = capsys.readouterr().out
        kept = json.loads((tmp_path / "evaluation.json").read_text())
        assert kept["references"]["cosine"]["score"] == pytest.approx(0.5) and "tasks" not in kept
        assert kept["agents"]["algo=a"]["held_out"]["score"]["mean"] == pytest.approx(0.5)

    rows = [line.split() for line in said.splitlines()]
    assert ["cosine", "0.500"] in [row[:2] for row in rows]
    assert any(row[0].startswith("algo=a") and "0.500" in row for row in rows if row)


def test_evaluations_on_unlike_pairs_are_in_tables_of_their_own(config, tmp_path, monkeypatch, capsys):
    for k, cosine in ((5, 0.4), (9, 0.1)):
        made(tmp_path, f"{k}", f"env.k={k}", cosine=cosine)
    monkeypatch.setattr(saved, "evaluate_run", lambda run, *_: {**run.summary, "evaluation": {"split": "test"}})

    evaluate.main(config("evaluate", f"run={tmp_path}"))

    said = capsys.readouterr().out
    first, second = said.partition("Task 2: env.k=9")[::2]
    assert "Task 1: env.k=5" in first and "0.400" in first and "0.100" not in first and "0.100" in second
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert "references" not in kept
    assert [(task["name"], task["agents"], task["references"]["cosine"]["score"]) for task in kept["tasks"]] == [
        ("Task 1: env.k=5", ["env.k=5"], 0.4),
        ("Task 2: env.k=9", ["env.k=9"], 0.1),
    ]
