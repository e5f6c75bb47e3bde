"""Verdicts on the goals for careers, from results of ``experiments.career``."""

import json
import shlex

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command, run_shell

from experiments.runs.folders import RunError
from experiments.studies.career_goals import read_shares, verdicts

PAIRS, VECTORS = {"pair_features": ["seniority"]}, {"pair_features": []}


def study(path, env, shares, best=100.0):
    """A file with a best policy of each seed, and of each learner a return for each seed and point."""
    seeds = sorted({seed for by_point in shares.values() for by_seed in by_point.values() for seed in by_seed})
    runs = [{"asked": {"oracle": "best", "seed": seed, "env": env}, "value": best} for seed in seeds]
    for name, by_point in shares.items():
        for seed in sorted({seed for by_seed in by_point.values() for seed in by_seed}):
            points = [{"after": at, "return": best * by_seed[seed]} for at, by_seed in by_point.items()]
            runs.append({"asked": {"name": name, "seed": seed, "env": env}, "points": points})
    path.write_text(json.dumps({"runs": runs}))
    return path


def told(shares):
    return {(name, what): (verdict, figures) for name, what, verdict, figures in verdicts(shares)}


def test_shares_of_several_files_are_joined_by_seed_and_the_first_file_counts(tmp_path):
    first = study(tmp_path / "a.json", PAIRS, {"dynaq_plus": {0: {1: 0.1}, 1_000: {1: 0.4}}})
    second = study(tmp_path / "b.json", PAIRS, {"dynaq_plus": {0: {1: 0.9, 2: 0.2}}}, best=50.0)
    other = study(tmp_path / "c.json", VECTORS, {"dynaq_plus": {1_000: {2: 0.11}}})
    shares = read_shares([first, second, other])
    assert shares["with pair features", "dynaq_plus", 0] == {1: 0.1, 2: pytest.approx(0.2)}
    verdict = told(shares)
    assert verdict["2 dynaq_plus, with pair features", "at least .30 after 1,000"] == (
        "holds",
        "0.400, worst seed 0.400; 1 seeds",
    )
    assert verdict["2 dynaq_plus, with vectors alone", "at least .12 after 1,000"][0] == "fails"
    assert verdict["2 dynaq_plus, with vectors alone", "at least .25 after 20,000"] == (
        "missing",
        "dynaq_plus after 20,000, with vectors alone",
    )


@pytest.mark.parametrize(("n_above", "verdict"), [(10, "holds"), (9, "holds"), (8, "fails")])
def test_nine_of_ten_seeds_must_have_the_multiple(tmp_path, n_above, verdict):
    ours = {seed: 0.4 if seed < n_above else 0.1 for seed in range(10)}
    myopic = dict.fromkeys(range(10), 0.2)
    file = study(tmp_path / "a.json", PAIRS, {"dynaq_plus": {5_000: ours}, "dynaq_plus_gamma_0": {5_000: myopic}})
    found = told(read_shares([file]))[
        "3 gamma", "1.5 times itself with gamma 0 after 5,000, in nine tenths of the seeds"
    ]
    mean = np.mean(list(ours.values()))
    assert found == (verdict, f"{mean:.3f} and 0.200, in {n_above}; 10 seeds")


def test_learners_are_compared_on_the_seeds_that_both_have(tmp_path):
    ours = {0: 0.9, 1: 0.1, 2: 0.1}
    file = study(tmp_path / "a.json", PAIRS, {"dynaq_plus": {1_000: ours}, "dqn": {1_000: {1: 0.2, 2: 0.2}}})
    found = told(read_shares([file]))["4 dqn", "above dqn after 1,000, on the same seeds"]
    assert found == ("fails", "0.100 and 0.200; 2 seeds")


def test_learners_without_a_common_seed_are_not_compared_and_a_tie_is_not_above(tmp_path):
    goal = "4 dqn", "above dqn after 1,000, on the same seeds"
    apart = study(tmp_path / "a.json", PAIRS, {"dynaq_plus": {1_000: {1: 0.5}}, "dqn": {1_000: {2: 0.2}}})
    assert told(read_shares([apart]))[goal] == ("missing", "a seed that all of them have")
    tie = study(tmp_path / "b.json", PAIRS, {"dynaq_plus": {1_000: {1: 0.5}}, "dqn": {1_000: {1: 0.5}}})
    assert told(read_shares([tie]))[goal][0] == "fails"


def test_files_of_different_tasks_are_not_joined(tmp_path):
    shares = {"dynaq_plus": {0: {1: 0.1}}}
    first = study(tmp_path / "a.json", PAIRS, shares)
    other = study(tmp_path / "b.json", {**PAIRS, "market": "onet:FOLDER"}, shares)
    with pytest.raises(RunError, match="has another market, truth or number of applicants"):
        read_shares([first, other])


def test_the_command_in_the_file_of_results_can_be_typed_in_a_shell(tmp_path):
    study(tmp_path / "a.json", PAIRS, {"dynaq_plus": {0: {1: 0.5}}})
    options = ['results=["a.json"]', "folder='my goals; $HOME'"]
    done = run_command("studies.career_goals", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = tmp_path / "my goals; $HOME" / "career_goals.json"
    command = json.loads(written.read_text())["command"]
    assert shlex.split(command) == ["python", "-m", "experiments.studies.career_goals", *options]

    written.unlink()
    typed = run_shell(command, tmp_path)
    assert typed.returncode == 0, typed.stderr
    assert json.loads(written.read_text())["command"] == command


def test_the_command_prints_and_writes_its_verdicts_and_names_a_wrong_file(tmp_path):
    file = study(tmp_path / "a.json", PAIRS, {"dynaq_plus": {0: {1: 0.5}}, "cosine": {0: {1: 0.4}}})
    done = run_command("studies.career_goals", f"results=[{file}]", f"folder={tmp_path}")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "career_goals.json").read_text())
    (table,) = content["tables"]
    assert ["5 beginning: the mean is not below cosine's after 0", "holds", "0.500 and 0.400, in 1; 1 seeds"] in table[
        "rows"
    ]
    assert "0.500 and 0.400, in 1; 1 seeds" in done.stdout

    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    with pytest.raises(RunError, match="is no file of experiments.career, KeyError"):
        read_shares([wrong])
    done = run_command("studies.career_goals", f"results=[{wrong}]", f"folder={tmp_path}")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
