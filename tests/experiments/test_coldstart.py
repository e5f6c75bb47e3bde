import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command
from hydra import compose, initialize_config_dir

from experiments.runs import build, training
from experiments.studies import comparison
from experiments.studies.comparison import UNRESOLVED, Comparison, plan_of
from experiments.studies.runs import define_learner, read_learner

ROOT = Path(build.__file__).parents[2]
SIZES = ["market.n_jobs=60", "market.n_applicants=40", "env.num_candidates=5", "evaluation.n_pairs=32"]

LAB = '''
from dynaq_algo import Bandit


class Last(Bandit):
    """Plays the candidate of the highest number, or of the lowest one."""

    def __init__(self, env, gamma=0.9, seed=0, sign=1.0, words=()):
        super().__init__(env, gamma, seed, sign=sign, words=list(words))
        self.sign = sign
        assert list(words) == ["any, thing"], "the study hands on what it was given"

    def q_values(self, observation):
        return self.sign * observation["candidates"].reshape(-1, 5)


class OnlyOnBoards(Last):
    """Refuses to play."""

    def __init__(self, env, **arguments):
        raise ValueError("`env` must have a board.")
'''


def study(*options, folder, spawned=False, **environment):
    """The command, small: one process, two seeds, 20 interactions."""
    small = ["seeds=[0,1]", "interactions=20", "n_jobs=1", "reps=20", f"common={json.dumps(SIZES)}", f"folder={folder}"]
    given = {option.partition("=")[0] for option in options}
    arguments = [*options, *(option for option in small if option.partition("=")[0] not in given)]
    if not spawned:
        return run_command("coldstart", *arguments)
    command = [sys.executable, "-m", "experiments.coldstart", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})


def test_the_command_runs_what_is_missing_and_prints_the_tables(tmp_path, config):
    options = ("learners=[cosine,linucb]", "settings=[vectors,misled]")
    first = study(*options, folder=tmp_path / "study")
    again = study(*options, folder=tmp_path / "study")

    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "8 of 8 runs are finished already" in again.stderr
    assert first.stdout == again.stdout
    heads = [line.partition("  ")[0] for line in first.stdout.splitlines() if line.startswith(("vectors", "misled"))]
    assert heads == [
        f"{setting}: {what}"
        for setting in ("vectors", "misled")
        for what in ("mean score after", "IQM of the score after", "less cosine, score after")
    ]
    for setting in ("vectors", "misled"):
        numbers = json.loads((tmp_path / "study" / setting / "coldstart.json").read_text())
        assert (numbers["seeds"], numbers["points"]) == ([0, 1], [0, 20])
        typed = shlex.split(numbers["command"])
        assert typed[:3] == ["python", "-m", "experiments.coldstart"] and set(options) <= set(typed)
        made = json.loads((tmp_path / "study" / setting / "linucb" / "seed-0" / "summary.json").read_text())
        assert numbers["commits"] == dict.fromkeys(("cosine", "linucb"), made["commit"] or "unknown")
        assert numbers["scores"]["cosine"][0][0] == numbers["scores"]["cosine"][0][1]
        assert np.array(numbers["scores"]["linucb"]).shape == (2, 2)
        assert (tmp_path / "study" / setting / "coldstart.png").stat().st_size > 1_000
    assert len(pd.read_csv(tmp_path / "study" / "coldstart.csv")) == 2 * 2 * 2 * 2

    # A run of a study is a run of experiments.train, and follows another one in its process unharmed.
    folder = tmp_path / "study" / "vectors" / "linucb" / "seed-1"
    assert {"config.yaml", "metrics.csv", "model.zip", "train.log"} < {path.name for path in folder.iterdir()}
    summary = json.loads((folder / "summary.json").read_text())
    alone = training.run_training(build.build(config("train", *summary["overrides"])), tmp_path / "alone")
    assert alone["held_out"] == summary["held_out"]
    assert alone["online"] == summary["online"]

    assert run_command("report", f"runs={tmp_path / 'study'}").returncode == 0
    assert "The cold start: compare" in (tmp_path / "study" / "report" / "report.html").read_text()
    done = run_command("studies.quadrants", f"runs={tmp_path / 'study' / 'vectors'}", "n_pairs=16")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "study" / "vectors" / "quadrants.json").read_text())["scores"]
    assert {len(values) for values in scores["linucb"].values()} == {2}
    assert len({values[0] for values in scores["linucb"].values()}) == 4


def test_finished_runs_are_made_again_if_they_are_not_to_be_kept(tmp_path):
    for keep, said in ((True, ""), (True, "2 of 2 runs are finished already"), (False, "")):
        common = json.dumps([*SIZES, f"resume={str(keep).lower()}"])
        before = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("summary.json"))]
        done = study("learners=[cosine]", f"common={common}", folder=tmp_path)
        after = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("summary.json"))]
        assert done.returncode == 0, done.stderr
        assert ("finished already" in done.stderr) == bool(said) and said in done.stderr
        assert (before == after) == bool(said) and len(after) == 2


def test_a_class_of_ones_own_takes_part_and_who_cannot_is_left_out_in_a_line(tmp_path):
    (tmp_path / "lab.py").write_text(LAB)
    done = study(
        "learners=[random]",
        "+define.mine={_target_: lab.Last, sign: -1.0, words: ['any, thing']}",
        "+define.picky={_target_: lab.OnlyOnBoards}",
        folder=tmp_path / "study",
        spawned=True,  # so that its runs, in a process of their own, have to find the class
        PYTHONPATH=str(tmp_path),
    )

    told = [line for line in done.stderr.splitlines() if "left out" in line]
    assert len(told) == 1
    assert told[0].startswith("vectors: picky left out: ValueError: `env` must have a board.")
    assert "Traceback" not in done.stderr
    log = tmp_path / "study" / "vectors" / "picky" / "seed-0" / "train.log"
    assert "Traceback" in log.read_text()
    assert done.returncode == 1, "a script sees that runs failed"
    assert "2 runs failed" in done.stderr
    numbers = json.loads((tmp_path / "study" / "vectors" / "coldstart.json").read_text())
    assert list(numbers["scores"]) == ["random", "mine"]
    assert (tmp_path / "study" / "vectors" / "mine" / "seed-1" / "model.zip").is_file()


def test_who_plays_on_other_problems_or_for_another_time_is_left_out_in_a_line(tmp_path):
    done = study(
        "learners=[random,cosine]",
        "+define.easy=['algo=cosine','env.num_candidates=3']",
        "+define.short=['algo=cosine','total_timesteps=10']",
        folder=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "left out" in line]
    assert len(told) == 2
    assert told[0].startswith(
        "vectors: short left out: it is scored after 0, 10 interactions, and the others after 0, 20"
    )
    assert told[1].startswith("vectors: easy left out: it had other candidates or another truth than random")
    numbers = json.loads((tmp_path / "vectors" / "coldstart.json").read_text())
    assert list(numbers["scores"]) == ["random", "cosine"]
    assert json.loads((tmp_path / "coldstart.json").read_text())["common"] == SIZES


@pytest.mark.parametrize(
    ("own", "reference", "odd"),
    [
        ("env.num_candidates=3", None, "mine"),
        ("env.num_candidates=3", "mine", "cosine"),
        ("total_timesteps=10", None, "mine"),
    ],
)
def test_of_two_unlike_learners_the_one_with_overrides_of_the_task_is_the_odd_one(own, reference, odd):
    learners = {"mine": define_learner("mine", ["algo=cosine", own]), "cosine": read_learner("cosine")}
    of_each = {"mine": ("of mine",), "cosine": ("of cosine",)}
    assert comparison._most_common(of_each, learners, reference) != of_each[odd]


def test_who_takes_part_in_a_setting_may_be_said_once_for_several():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        plan = plan_of(
            build.picked(
                Comparison,
                compose("coldstart", ["preset=ablation", "seeds=[100]", "settings=[vectors,sparse,misled]"]),
                UNRESOLVED,
            )
        )

    in_sparse = {learner for setting, learner in plan.runs if setting == "sparse"}
    assert in_sparse == {learner for setting, learner in plan.runs if setting == "misled"}
    assert "dynaq_plus_trust" in in_sparse < {learner for setting, learner in plan.runs if setting == "vectors"}


def test_a_study_at_levels_tells_each(tmp_path):
    done = study("preset=noise", "learners=[cosine]", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert all(f"{share} %" in done.stdout.splitlines()[0] for share in (0, 10, 25, 50))
    levels = {share: json.loads((tmp_path / f"{share} %" / "coldstart.json").read_text()) for share in (0, 50)}
    assert levels[50]["overrides"] == ["setting=vectors", "simulator.corruption=0.5"]
    # Corruption changes what is answered, not what is best: cosine's choices are worth the same share of it.
    assert levels[50]["scores"]["cosine"] == pytest.approx(np.array(levels[0]["scores"]["cosine"]))
    assert (tmp_path / "coldstart.png").stat().st_size > 1_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["learners=[cosine,dynak]"], "`learners`: 'dynak' is not in conf/learner: did you mean 'dynaq'?"),
        (["settings=[vectos]"], "`settings`: 'vectos' is not in conf/setting: did you mean 'vectors'?"),
        (["learners=[cosine]", "reference=linucb"], "`reference`: 'linucb' is not in `learners`"),
        (["learners=[cosine]", "common=['no_such_option=1']"], "there is nothing to compare"),
        (["learners=[cosine]", "+variants.vectors=['setting=misled']"], "`variants` must have other names than"),
        (["learners=[cosine]", "seeds=[]"], "`seeds` must name at least one, got none"),
        (["learners=[cosine]", "seeds=[0,0]"], "`seeds` must name each once, got 0 twice"),
        (["learners=[cosine]", "name="], "`name` must"),
        (["learners=[cosine]", "name=null"], "`name` must be a text, such as name=compare"),
        (
            ["learners=[cosine]", "common=['env.n_envs=8']", "interactions=100"],
            "every learner left out: `env.n_envs` must be 10 or a divisor of it, because learners are scored after "
            "0, 20, 50, 100 interactions, and each step makes `env.n_envs` of them, got 8.",
        ),
        (["learners=[dqn]", "common=['algo.gamma=2']"], "`algo.gamma` must be a number in [0, 1], got 2"),
        (["learners=[cosine]", "n_jobs=0"], "`n_jobs` must be 1 or more, got 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_named_in_one_line(tmp_path, options, said):
    done = study(*options, folder=tmp_path / "study")

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "study").exists()
