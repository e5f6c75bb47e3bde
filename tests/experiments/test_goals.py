import json
import shlex
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command
from omegaconf import OmegaConf

from experiments.runs import build
from experiments.runs.folders import RunError
from experiments.studies.goals import BEFORE, EVERYWHERE, GOALS, PRIOR_MISLEADS, SPARSE, judge, read_studies
from experiments.studies.runs import known_learners
from experiments.studies.study import Study

ROOT = Path(build.__file__).parents[2]
POINTS = (0, 20, 50, 100, 200, 400, 800, 1500)
SEEDS = [200, 201, 202, 203]


def curve(*values):
    """Values at the points, the last of them from there on."""
    return [*values, *[values[-1]] * (len(POINTS) - len(values))]


def study(points=POINTS, **learners):
    """Learners with equal scores in all seeds; `name=(scores, regret)`."""
    return Study(
        SEEDS,
        points,
        {name: np.tile(np.asarray(scores, float), (len(SEEDS), 1)) for name, (scores, _) in learners.items()},
        {name: np.full(len(SEEDS), float(regret)) for name, (_, regret) in learners.items()},
        {name: np.full(len(SEEDS), 6.0) for name in learners},
        reps=20,
    )


@pytest.fixture
def reached():
    """Studies in which every goal is reached."""
    rising = curve(0.45, 0.55, 0.6, 0.64, 0.67, 0.76)
    everyone = {
        "dynaq_plus": (rising, 35),
        "dynaq_plus_features": (rising, 35),
        "dynaq_plus_no_prior": (curve(0.0, 0.3), 60),
        "dynaq_plus_pair_prior": (curve(0.7), 180),
        "pair_prior": (curve(0.69), 190),
        "cosine": (curve(0.44), 100),
        "linear_blocks": (curve(0.44), 90),
        "gp": (curve(0.45), 40),
        "gp_ts": (curve(0.40), 80),
        "dynaq_tuned": (curve(0.44, 0.43, 0.45), 95),
    }
    studies = {setting: study(**everyone) for setting in (*EVERYWHERE, *PRIOR_MISLEADS, *SPARSE)}
    return {**studies, BEFORE: study(dynaq_plus=(curve(0.4), 39))}


def verdicts(studies, name, what=""):
    return [judge(goal, studies).verdict for goal in GOALS if goal.name == name and what in goal.what]


def test_each_goal_holds_where_it_is_reached(reached):
    assert {judge(goal, reached) for goal in GOALS if judge(goal, reached).verdict != "holds"} == set()


@pytest.mark.parametrize(
    ("name", "what", "setting", "changed"),
    [
        ("1 anywhere: board", "mean", "board", {"dynaq_plus": (curve(0.45, 0.42, 0.6), 35)}),
        ("1 anywhere: misled", "mean", "misled", {"dynaq_plus": (curve(-0.1, -0.13, 0.6), 35)}),
        ("1 anywhere: profile", "features", "profile", {"dynaq_plus_features": (curve(0.45, 0.51), 35)}),
        ("1 anywhere: vectors", "features", "vectors", {"dynaq_plus_features": (curve(0.43, 0.55), 35)}),
        ("2 vectors", "b433fb5", "vectors", {"dynaq_plus": (curve(0.45), 36)}),
        ("2 vectors", "best gp", "vectors", {"gp_ts": (curve(0.1), 33)}),
        ("2 vectors", "its regret", "vectors", {"gp": (curve(0.45, 0.57), 40)}),
        ("3 profile", "without a prior", "profile", {"dynaq_plus": (curve(0.6, 0.65), 35)}),
        ("3 profile", "with a prior", "profile", {"dynaq_plus_pair_prior": (curve(0.7), 191)}),
        ("4 misled", "without a prior", "misled", {"dynaq_plus": (curve(-0.1, 0, 0, 0.3, 0.26), 35)}),
        ("4 misled", "right prior", "vectors", {"dynaq_plus": (curve(0.45, 0.434, 0.5), 35)}),
        ("5 sparse", "mean at most", "sparse", {"dynaq_plus": (curve(0.45, 0.439, 0.5), 35)}),
        ("5 sparse_zero", "above", "sparse_zero", {"linear_blocks": (curve(0.4, 0.56), 35)}),
        ("6 recorded", "", "recorded", {"dynaq_plus": (curve(0.76), 37)}),
        ("6 onet", "", "onet", {"linear_blocks": (curve(0.44), 34)}),
        ("6 board", "", "board", {"dynaq_plus": (curve(0.45, 0.52), 35)}),
        ("7 dynaq_tuned: vectors", "never", "vectors", {"dynaq_tuned": (curve(0.44, 0.40), 35)}),
        ("7 dynaq_tuned: profile", "above", "profile", {"dynaq_tuned": (curve(0.44), 35)}),
    ],
)
def test_a_goal_fails_where_it_is_not_reached(reached, name, what, setting, changed):
    there = reached[setting]
    fallen = study(**changed)
    for learner in changed:
        there.scores[learner], there.regret[learner] = fallen.scores[learner], fallen.regret[learner]

    assert verdicts(reached, name, what) == ["fails"]


def test_one_seed_that_falls_is_found_with_its_number(reached):
    reached["generator"].scores["dynaq_plus"][2, 1] = 0.38

    found = [judge(goal, reached) for goal in GOALS if goal.name == "1 anywhere: generator" and "seed" in goal.what]

    assert [verdict.verdict for verdict in found] == ["fails"]
    assert found[0].figures == "seed 202 at most +0.070 below its start, after 20"


def test_cpu_time_is_of_all_interactions(reached):
    assert verdicts(reached, "8 CPU") == ["holds"]
    reached["vectors"].cpu_seconds["dynaq_plus"] = np.full(4, 7.6)
    assert verdicts(reached, "8 CPU") == ["fails"]


def test_what_a_goal_lacks_is_said_in_place_of_a_verdict(reached):
    def lacks(name, what=""):
        (goal,) = (goal for goal in GOALS if goal.name == name and what in goal.what)
        return judge(goal, reached)

    del reached["onet"], reached[BEFORE]
    del reached["vectors"].scores["gp"]
    reached["board"] = study(POINTS[:4], dynaq_plus=([0.4, 0.4, 0.4, 0.6], 1))

    assert lacks("6 onet")[2:] == ("missing", "dynaq_plus, linear_blocks in onet")
    assert lacks("6 board")[2:] == ("missing", "1,500 interactions in board")
    assert lacks("2 vectors", "best gp")[2:] == ("missing", "gp in vectors")
    assert lacks("2 vectors", "b433fb5")[2:] == ("missing", "that commit's study on the same seeds")


def test_the_studies_of_a_folder_are_read_by_setting_and_an_old_one_beside_them(tmp_path, reached):
    content = reached["vectors"].to_json()
    (tmp_path / "full" / "vectors").mkdir(parents=True)
    (tmp_path / "full" / "vectors" / "coldstart.json").write_text(json.dumps(content))
    (tmp_path / "coldstart.json").write_text(json.dumps({key: content[key] for key in content if "cpu" not in key}))

    studies = read_studies(tmp_path / "full", tmp_path, reps=10)

    assert list(studies) == ["vectors", BEFORE]
    assert verdicts(studies, "2 vectors", "b433fb5") == ["fails"]  # equal, and not .92 of it
    with pytest.raises(RunError, match="preset=full"):
        read_studies(tmp_path / "nowhere", None, 10)
    with pytest.raises(RunError, match="`before`: there is no"):
        read_studies(tmp_path / "full", tmp_path / "nowhere", 10)


def test_the_command_prints_verdicts_and_the_command_that_makes_what_is_missing(tmp_path, reached):
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "coldstart.json").write_text(json.dumps(reached["profile"].to_json()))

    done = run_command("studies.goals", f"folder={tmp_path}")

    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("3 profile") and "without" in line)
    assert "holds" in line
    assert "0.640 after 100, 0.760 after 400, 0.760 after 1,500; regret 35" in line
    last = done.stdout.splitlines()[-1]
    assert last.startswith("missing: python -m experiments.coldstart preset=full settings=[vectors,")
    assert "profile," not in last.replace("profile_noisy,", "")
    (table,) = json.loads((tmp_path / "goals.json").read_text())["tables"]
    names = [row[0] for row in table["rows"]]
    assert table["header"] == ["goal", "verdict", "figures"] and len(set(names)) == len(names) == len(GOALS)
    (figures,) = (figures for name, _, figures in table["rows"] if name.startswith("3 profile: without"))
    assert figures in line


def test_the_file_has_the_command_with_the_older_study(tmp_path, reached):
    for folder, study_ in (("full/vectors", reached["vectors"]), ("older", reached[BEFORE])):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "coldstart.json").write_text(json.dumps(study_.to_json()))
    words = [f"folder={tmp_path / 'full'}", f"before={tmp_path / 'older'}"]

    done = run_command("studies.goals", *words)

    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "full" / "goals.json").read_text())
    assert shlex.split(content["command"]) == ["python", "-m", "experiments.studies.goals", *words]


def test_the_full_study_makes_what_goals_need_of_learners_that_there_are(config):
    cfg = OmegaConf.to_container(config("coldstart", "preset=full"), resolve=True)

    for goal in GOALS:
        for setting, learners in goal.needs.items():
            if setting != BEFORE:
                assert setting in cfg["settings"]
                there = set(cfg["learners"]) & set(cfg["only_in"].get(setting, cfg["learners"]))
                assert {*learners} & {*known_learners()} <= there, (goal.name, setting)
