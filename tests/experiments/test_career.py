"""`python -m experiments.career`: small runs, kept and compared."""

import json

import numpy as np
import pytest

from experiments.runs.folders import RunError
from experiments.studies.careers import evaluated, figure_of, plan_of, run_plan, table_of

OPTIONS = {
    "seeds": [0],
    "at": [0, 30],
    "n_applicants": 4,
    "n_sets": 4,
    "learners": ["cosine", "dynaq_plus"],
    "oracles": ["best", "myopic"],
    "define": {"dynaq_plus": {"_target_": "dynaq_algo.DynaQ.plus"}},
    "one_by_one": {},
    "env": {"market": "default", "pair_features": ["hard_coverage"]},
    "noise": 0.5,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("career")
    return folder, run_plan(plan_of(OPTIONS), folder, 1)


def test_returns_are_shares_of_the_exact_best_policy_s(study):
    _, result = study
    header, rows = table_of(result)
    assert header[1:] == ["0", "30", "CPU ms a step"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["best policy, exact"][0] == "1.000 (1.000)"
    assert 0.1 < float(by_name["myopic policy, exact"][0].split()[0]) < 0.6
    assert by_name["cosine"][1] == "" and by_name["dynaq_plus"][1] != ""


def test_what_is_done_is_kept_and_what_is_asked_otherwise_is_done_anew(study):
    folder, result = study
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    again = run_plan(plan_of(OPTIONS), folder, 1)
    assert again == result
    assert {path: path.stat().st_mtime_ns for path in files} == files
    changed = run_plan(plan_of({**OPTIONS, "n_applicants": 3, "learners": ["cosine"]}), folder, 1)
    assert json.loads((folder / "cosine" / "seed_0.json").read_text()) == changed["runs"][-1]


def test_an_argument_is_varied_beside_its_own_value():
    plan = plan_of({**OPTIONS, "one_by_one": {"planning_steps": [0, 20]}})
    varied = {run["name"]: run["learner"] for run in plan if "," in run.get("name", "")}
    assert [learner["planning_steps"] for learner in varied.values()] == [0, 20]


def test_every_agent_meets_the_same_applicants_and_the_shares_of_levels_are_whole():
    asked = plan_of(OPTIONS)[2]
    first, second = evaluated(None, asked), evaluated(None, asked)
    assert first == second
    assert np.isclose(sum(first["levels"]), 1) and 0 <= first["left"] <= 1 and first["steps"] <= 40


def test_the_figure_is_drawn(study, tmp_path):
    figure_of(study[1], tmp_path / "career.png")
    assert (tmp_path / "career.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"at": [30, 0]}, "`at` must be ascending"),
        ({"learners": ["dynaq_pus"]}, "`learners` must be 'cosine' or names of `define`"),
    ],
)
def test_what_cannot_be_is_named(given, message):
    with pytest.raises(RunError, match=message):
        plan_of({**OPTIONS, **given})
