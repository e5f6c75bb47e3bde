"""`python -m experiments.career`: small runs, kept and compared."""

import json
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from commands import run_command

from dynaq_algo import LinearBandit
from experiments.runs.folders import RunError
from experiments.studies import career_plan, careers
from experiments.studies.career_plan import left_out, plan_of
from experiments.studies.careers import (
    careers_table,
    evaluated,
    figure_of,
    held_out,
    one_career,
    run_plan,
    table_of,
)
from jobrec_gym import RuleSimulator

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
    kept = json.loads((folder / "cosine" / "seed_0.json").read_text())
    assert kept | changed["runs"][-1] == kept


def test_a_run_of_a_learner_with_an_endless_number_is_kept_too(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(careers, "_require_makable", lambda runs: None)
    monkeypatch.setattr(careers, "_done", lambda asked: made.append(asked) or {"points": []})
    ppo = {"_target_": "stable_baselines3.PPO", "max_grad_norm": float("inf")}
    for norm, n_made in ((float("inf"), 1), (float("inf"), 1), (0.5, 2)):
        ppo = {**ppo, "max_grad_norm": norm}
        run_plan([{"name": "ppo", "learner": ppo, "seed": 0, "at": [0]}], tmp_path, 1)
        assert len(made) == n_made


def test_a_run_that_is_kept_keeps_its_commit_and_of_an_earlier_version_it_is_unknown(study, tmp_path):
    options = ["learners=[cosine]", "oracles=[best]", "at=[0]", "n_applicants=2", "n_sets=4", f"folder={tmp_path}"]
    assert run_command("career", *options).returncode == 0
    files = [tmp_path / "exact best" / "seed_0.json", tmp_path / "cosine" / "seed_0.json"]
    made = json.loads((tmp_path / "career.json").read_text())
    assert made["commits"] == dict.fromkeys(("best policy, exact", "cosine"), made["commit"] or "unknown")
    for file, commit in zip(files, ({}, {"commit": "abc"}), strict=True):
        run = {key: value for key, value in json.loads(file.read_text()).items() if key not in ("commit", "sha256")}
        file.write_text(json.dumps({**run, **commit}))
    before = [file.read_text() for file in files]

    assert run_command("career", *options).returncode == 0
    again = json.loads((tmp_path / "career.json").read_text())
    assert again["commits"] == {"best policy, exact": "unknown", "cosine": "abc"}
    assert again["commit"] == made["commit"] and again["tables"] == made["tables"]
    assert [file.read_text() for file in files] == before, "they are not made again"


def test_shares_are_of_the_best_policy_s_return_wherever_it_stands(study):
    _, result = study
    exact, others = result["runs"][:2], result["runs"][2:]
    assert table_of({"runs": [*exact[::-1], *others]})[1][1] == table_of(result)[1][0]
    assert careers.shares_of({"runs": [*exact[::-1], *others]}) == careers.shares_of(result)


def test_a_best_return_that_is_not_above_0_gives_no_shares_and_is_drawn_all_the_same(study, tmp_path):
    runs = [{**run, "value": -1.0} if run["asked"].get("oracle") == "best" else run for run in study[1]["runs"]]
    assert careers.without_share({"runs": runs}) == [0] and careers.without_share(study[1]) == []
    header, rows = table_of({"runs": runs})
    assert header[1:] == ["0", "30", "CPU ms a step"] and [row[1:3] for row in rows] == [["", ""]] * len(rows)
    figure_of({"runs": runs}, ["dynaq_plus"], tmp_path / "career.png")
    assert (tmp_path / "career.png").is_file()
    other = [{**run, "asked": {**run["asked"], "seed": 1}} for run in study[1]["runs"]]
    assert table_of({"runs": [*runs, *other]})[1][1][1] == table_of(study[1])[1][1][1], "the mean over the other seeds"


def test_further_arguments_of_the_planted_truth_are_used_and_part_of_a_run():
    plan = plan_of({**OPTIONS, "simulator": {"reach": 0.25}})
    for made in (careers.training_env(plan[0], "train"), held_out(plan[0])[0]):
        assert made.spec.kwargs["simulator"] == RuleSimulator(seed=0, noise=0.5, reach=0.25).to_spec()
    assert plan_of({**OPTIONS, "simulator": {}}) == plan_of(OPTIONS), "runs of earlier versions are kept"


def test_an_argument_is_varied_beside_its_own_value():
    plan = plan_of({**OPTIONS, "one_by_one": {"planning_steps": [0, 20]}})
    varied = {run["name"]: run["learner"] for run in plan if "," in run.get("name", "")}
    assert [learner["planning_steps"] for learner in varied.values()] == [0, 20]


def test_every_agent_meets_the_same_applicants_and_the_shares_of_levels_are_whole():
    asked = plan_of(OPTIONS)[2]
    envs, people = held_out(asked)
    first, second = (evaluated(None, asked, envs, people) for _ in range(2))
    assert first == second == evaluated(None, asked, *held_out(asked))
    assert np.isclose(sum(first["levels"]), 1) and 0 <= first["left"] <= 1 and first["steps"] <= 40
    by = list(first["left_by"].values())
    assert by == sorted(by) and by[-1] == first["left"]


def test_how_far_applicants_come_is_told_of_exact_policies_and_learners(study):
    header, rows = careers_table(study[1])
    assert [*header[1:6], header[-2:]] == ["1", "2", "3", "4", "5", ["left by end", "steps"]]
    assert [row[0] for row in rows] == ["best policy, exact", "myopic policy, exact", "cosine", "dynaq_plus"]
    for row in rows:
        assert sum(map(float, row[1:6])) == pytest.approx(1, abs=0.01)
    # What an earlier version kept has no more than levels.
    old = json.loads(json.dumps(study[1]))
    for run in old["runs"]:
        run.pop("played", None)
        for point in run.get("points", []):
            for name in ("left_by", "one"):
                point.pop(name)
    header, rows = careers_table(old)
    assert [row[0] for row in rows] == ["cosine", "dynaq_plus"] and header[-1] == "steps"


def test_one_applicant_s_career_is_drawn_under_learners_and_the_best_policy(study, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(careers, "level_paths", lambda folder, name, title, caption, paths: drawn.update(paths))
    one_career(study[1], ["dynaq_plus", "cosine"], tmp_path)
    assert list(drawn) == ["dynaq_plus", "cosine", "best policy"]
    assert all(levels[0] == 1 and len(levels) <= 41 for levels, _ in drawn.values())


def test_an_opponent_whose_package_is_missing_is_left_out_with_the_way_to_install_it(monkeypatch):
    options = {**OPTIONS, "learners": ["cosine", "qrdqn"], "define": {"qrdqn": {"_target_": "sb3_contrib.QRDQN"}}}
    options["define"]["dynaq_plus"] = OPTIONS["define"]["dynaq_plus"]
    monkeypatch.setattr(career_plan, "find_spec", lambda name: None)
    assert left_out(options) == {"qrdqn": "it needs sb3-contrib>=2.9,<3: pip install 'sb3-contrib>=2.9,<3'"}
    assert {run.get("name") for run in plan_of(options)} == {None, "cosine"}
    monkeypatch.setattr(career_plan, "find_spec", lambda name: name)
    assert left_out(options) == {} and plan_of(options)[-1]["name"] == "qrdqn"


def test_some_learners_play_fewer_seeds():
    plan = plan_of({**OPTIONS, "seeds": [4, 5, 6], "only_first": {"dynaq_plus": 2}})
    assert [run["seed"] for run in plan if run.get("name") == "dynaq_plus"] == [4, 5]
    assert [run["seed"] for run in plan if run.get("name") == "cosine"] == [4, 5, 6]


def test_a_learner_learns_in_one_go_and_is_evaluated_on_the_way(monkeypatch):
    class Schedule(LinearBandit):
        """Notes how often it learned, and after how many interactions it was evaluated."""

        calls: ClassVar[list[int]] = []
        seen: ClassVar[list[int]] = []

        def learn(self, total_timesteps, **others):
            self.calls.append(total_timesteps)
            return super().learn(total_timesteps, **others)

    def evaluated(model, asked, envs, people):
        Schedule.seen.append(model.num_timesteps)
        return {"return": 0.0}

    monkeypatch.setattr(careers, "get_object", lambda name: Schedule)
    monkeypatch.setattr(careers, "evaluated", evaluated)
    asked = {**plan_of({**OPTIONS, "at": [0, 7, 30]})[-1]}
    found = careers._done(asked)
    assert Schedule.calls == [30] and Schedule.seen == [0, 7, 30]
    assert [point["after"] for point in found["points"]] == [0, 7, 30]
    assert 0 < found["points"][1]["cpu_seconds"] < found["points"][2]["cpu_seconds"] <= found["cpu_seconds"]
    assert careers.hours_of({"runs": [found, found]}) == pytest.approx(found["cpu_seconds"] / 1_800)
    assert careers.hours_of({"runs": [found, {"points": []}]}) is None, "a run of an earlier version"


def test_ppo_is_evaluated_after_the_points_that_were_asked_for_though_it_learns_after_many_steps():
    ppo = {"_target_": "stable_baselines3.PPO", "policy": "MultiInputPolicy", "n_steps": 8, "batch_size": 8}
    options = {**OPTIONS, "at": [0, 5, 20], "learners": ["ppo"], "define": {"ppo": {**ppo, "shows": "pairs"}}}
    options["define"]["dynaq_plus"] = OPTIONS["define"]["dynaq_plus"]
    found = careers._done(plan_of(options)[-1])["points"]
    assert [point["after"] for point in found] == [0, 5, 20]
    assert found[0]["return"] == found[1]["return"], "it has not learned yet"


def test_the_figure_is_of_the_learners_that_are_asked_for_beside_the_exact_policies(study, tmp_path, monkeypatch):
    figure_of(study[1], ["dynaq_plus"], tmp_path / "career.png")
    assert (tmp_path / "career.png").read_bytes()[:4] == b"\x89PNG"
    drawn = []
    monkeypatch.setattr(careers, "plot_shares", lambda *arguments: drawn.append(arguments))
    figure_of(study[1], ["dynaq_plus"], tmp_path / "career.png")
    figure_of(study[1], ["cosine"], tmp_path / "career.png")
    exact = ["best policy, exact", "myopic policy, exact"]
    assert [(points, list(shares), list(levels)) for points, shares, levels, *_ in drawn] == [
        ([0, 30], ["dynaq_plus"], exact),
        ([0, 30], [], [*exact, "cosine"]),
    ]
    assert drawn[0][1]["dynaq_plus"].shape == (1, 2)


@pytest.mark.parametrize(
    ("at", "points", "curves", "levels"),
    [
        ([100, 500], [100, 500], ["dynaq_plus"], ["best policy, exact", "cosine"]),
        ([100], [], [], ["best policy, exact", "cosine", "dynaq_plus"]),
    ],
)
def test_a_study_whose_points_do_not_begin_with_0_is_drawn(at, points, curves, levels, tmp_path, monkeypatch):
    runs = [
        {"asked": {"oracle": "best", "seed": 0}, "value": 4.0},
        {"asked": {"name": "cosine", "seed": 0}, "points": [{"after": 0, "return": 1.0}]},
        {"asked": {"name": "dynaq_plus", "seed": 0}, "points": [{"after": n, "return": 2.0} for n in at]},
    ]
    drawn = []
    plot = careers.plot_shares
    monkeypatch.setattr(careers, "plot_shares", lambda *arguments: (drawn.append(arguments), plot(*arguments)))
    figure_of({"runs": runs}, ["cosine", "dynaq_plus"], tmp_path / "career.png")
    assert (drawn[0][0], list(drawn[0][1]), list(drawn[0][2])) == (points, curves, levels)
    assert drawn[0][2]["cosine"] == 0.25 and (tmp_path / "career.png").is_file()


def test_stable_baselines3_s_learner_is_made_with_a_list_of_a_config():
    dqn = {
        "_target_": "stable_baselines3.DQN",
        "policy": "MultiInputPolicy",
        "shows": "pairs",
        "train_freq": [4, "step"],
    }
    define = {**OPTIONS["define"], "dqn": {**dqn, "buffer_size": 10}}
    model = careers._new_learner(plan_of({**OPTIONS, "learners": ["dqn"], "define": define})[-1])
    assert (model.train_freq.frequency, model.train_freq.unit.value) == (4, "step")


def test_a_wrong_value_of_one_by_one_is_told_by_its_own_place():
    define = {"dynaq_plus": {"_target_": "stable_baselines3.DQN", "gamma": 0.9}}
    with pytest.raises(RunError, match=r"^`one_by_one.gamma` must be a number in \[0, 1\], got 2"):
        plan_of({**OPTIONS, "define": define, "one_by_one": {"gamma": [0.5, 2]}})
    define["dynaq_plus"]["tau"] = 7
    options = {**OPTIONS, "learners": ["cosine"], "define": define, "one_by_one": {"gamma": [0.5]}}
    with pytest.raises(RunError, match=r"^`define.dynaq_plus.tau` must be"):
        plan_of(options)


def test_missing_packages_are_looked_for_once(monkeypatch):
    calls = []
    monkeypatch.setattr(career_plan, "left_out", lambda options: calls.append(options) or {})
    plan_of(OPTIONS)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"at": [30, 0]}, "`at` must be ascending"),
        ({"only_first": {"dynaq_pus": 2}}, "`only_first`: 'dynaq_pus' is not in `define`: did you mean 'dynaq_plus'"),
        ({"only_first": {"dynaq_plus": 0}}, "`only_first.dynaq_plus` must be 1 or more or null, got 0"),
        ({"learners": ["dynaqplus"]}, "`learners`: 'dynaqplus' is not in `define`: did you mean 'dynaq_plus'"),
        ({"learners": []}, r"`learners` must name at least one, such as learners=\[dynaq_plus\], got none"),
        ({"draw": ["xx"]}, "`draw`: 'xx' is not in `define`: there are cosine, dynaq_plus"),
        ({"oracles": ["bst"]}, "`oracles`: 'bst' is not in the exact policies: did you mean 'best'"),
        ({"oracles": ["myopic"]}, r"`oracles` must contain best, .* oracles=\[best\], got \['myopic'\]"),
        ({"one_by_one": 5}, r"`one_by_one` must be entries with values, one_by_one=\{ENTRY: VALUE\}, got 5"),
        ({"one_by_one": {"gamma": 0}}, r"`one_by_one.gamma` must be a list .* \+one_by_one.gamma=\[0\], got 0"),
        ({"one_by_one": {"gamma": []}}, r"`one_by_one.gamma` must be a list of one value or more"),
        ({"one_by_one": {"gamma": [0, 0.0]}}, "`one_by_one.gamma` must name each once, got 0.0 twice"),
        ({"env": {"simulator": {}}}, r"`env.simulator` cannot be given, .* noise= changes, as .simulator.reach= does"),
        ({"env": {"split": "test"}}, "`env.split` cannot be given, because the command sets it: learners are trained"),
        ({"simulator": {"seed": 1}}, r"`simulator.seed` cannot be given, .*one of seeds=\[...\]"),
        ({"define": {"mine": 5}}, r"`define.mine` must be \{_target_: package.Class, ...\}, got 5"),
        ({"define": {"mine": {"_target_": "lab.Mine", "shows": "pair"}}}, "`define.mine.shows`: .* mean 'pairs'"),
        (
            {"learners": ["ppo"], "define": {"ppo": {"_target_": "stable_baselines3.PPO", "gamma": 2}}},
            r"`define.ppo.gamma` must be a number in \[0, 1\], got 2",
        ),
    ],
)
def test_what_cannot_be_is_named(given, message):
    with pytest.raises(RunError, match=message):
        plan_of({**OPTIONS, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"one_by_one": {"planning_step": [0]}}, "'dynaq_plus, planning_step 0' cannot be made: .* 'planning_steps'"),
        ({"define": {"dynaq_plus": {"_target_": "dynaq_algo.DynaQ.pls"}}}, "there is no dynaq_algo.DynaQ.pls to be"),
        ({"define": {"dynaq_plus": {"_target_": "dynaq_algo.DynaQ.plus", "gamma": 3}}}, "`gamma` must be in"),
        (
            {"define": {"dynaq_plus": {"_target_": "dynaq_algo.LinearBandit", "alpa": 3}}},
            "cannot be made: LinearBandit has no argument 'alpa': did you mean 'alpha'",
        ),
        ({"n_applicants": 5_000}, "`n_applicants` must be null or in"),
    ],
)
def test_a_learner_that_cannot_be_made_ends_the_study_before_its_first_run(given, message, tmp_path, monkeypatch):
    monkeypatch.setattr(careers, "_done", lambda asked: pytest.fail("a run began"))
    with pytest.raises(RunError, match=message):
        run_plan(plan_of({**OPTIONS, **given}), tmp_path, 1)


def test_what_is_wrong_with_a_study_is_told_without_torch():
    wrong = "import sys; from experiments.studies.career_plan import plan_of; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", wrong], check=True)
