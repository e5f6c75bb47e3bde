"""Ctrl-C and SIGTERM: what is kept, what is said, and that nothing goes on behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import begin_command
from fake_llm import decides, serving, waits

import experiments
from experiments.runs.command import _in_two_lines
from experiments.runs.folders import lock_run
from experiments.runs.interrupts import Interrupted, held, interruptible
from experiments.runs.recording import InteractionRecorder, LearningCurve

pytestmark = pytest.mark.waits

ROOT = Path(experiments.__file__).parents[1]
SMALL = [
    "market.n_jobs=60",
    "market.n_applicants=40",
    "env.num_candidates=5",
    "evaluation.n_pairs=16",
    "evaluation.n_episodes=4",
    "algo.policy_kwargs.net_arch=[8]",
]
ENDLESS = "total_timesteps=100000000"


def begun(folder, command, *arguments):
    """A command in a folder of the test."""
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return begin_command(command, *arguments, cwd=folder, environment=environment)


def begun_alone(folder, command, *arguments):
    """A command in a process of its own, which starts further ones as it does for a user."""
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{command}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stopped_once(process, there, number, whole_group=False):
    """Waits until something is there, however long it takes, stops the process, and returns the two lines that it says.

    Joblib's helper process, which ends after the command, may warn behind them of files that are already gone.
    """
    while process.poll() is None and not there():
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, errors = process.communicate()
    assert "Traceback" not in errors, errors
    lines = errors.splitlines()
    (said,) = (place for place, line in enumerate(lines) if line.startswith("stopped by "))
    return lines[said : said + 2]


def rows(folder, depth="*/*/*"):
    """Tables of runs with a row behind the one of no interactions: until then there is nothing to keep."""
    return [file for file in folder.glob(f"{depth}/metrics.csv") if file.read_text().count("\n") > 2]


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_run_that_is_stopped_keeps_a_checkpoint_and_says_how_to_go_on(tmp_path, number, name):
    process = begun(tmp_path, "train", *SMALL, ENDLESS, "resume=false")

    kept, how = stopped_once(process, lambda: rows(tmp_path), number)

    (run,) = (tmp_path / "runs" / "train").iterdir()
    assert process.returncode == 128 + number
    assert kept.startswith(f"stopped by {name}; kept: a checkpoint after ")
    assert kept.endswith(f" interactions, in {run}") or " 0 interactions" in kept
    assert (run / "checkpoint" / "state.json").is_file()
    words = how.removeprefix("go on: ")
    assert words.startswith("python -m experiments.train market.n_jobs=60 ") and "resume" not in words
    assert words.endswith(f"hydra.run.dir={run.relative_to(tmp_path)}")


def test_an_agent_without_checkpoints_says_that_nothing_is_kept(tmp_path):
    process = begun(tmp_path, "train", *SMALL[:-1], "algo=random", ENDLESS)

    kept, how = stopped_once(process, lambda: rows(tmp_path), signal.SIGTERM)

    assert kept == "stopped by SIGTERM; kept: nothing" and how.startswith("again: python -m experiments.train ")


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_sweep_side_by_side_ends_its_children_when_they_have_kept_theirs(tmp_path, number, whole_group):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs hydra-joblib-launcher")
    process = begun_alone(tmp_path, "train", "-m", "seed=0,1", "launcher=joblib", *SMALL, ENDLESS)

    kept, how = stopped_once(process, lambda: len(rows(tmp_path, "runs/*/*/*")) == 2, number, whole_group)

    assert process.returncode == 128 + number
    assert kept.endswith("; kept: the runs that are finished, and a checkpoint of each run that was learning")
    assert how.startswith("go on: python -m experiments.train -m seed=0,1 ") and "hydra.run.dir" not in how
    for file in rows(tmp_path, "runs/*/*/*"):
        assert (file.parent / "checkpoint" / "state.json").is_file()
        with lock_run(file.parent):  # nobody is in it
            pass


def test_a_study_ends_its_processes_when_they_have_kept_theirs(tmp_path):
    common = ",".join(f'"{item}"' for item in [*SMALL[:2], *SMALL[3:5], "env.num_candidates=5"])
    arguments = ["learners=[dynaq]", "seeds=[0,1]", "interactions=1000000", f"common=[{common}]"]
    process = begun_alone(tmp_path, "coldstart", *arguments)

    kept, how = stopped_once(process, lambda: len(rows(tmp_path, "runs/*/*/*/*/*")) == 2, signal.SIGTERM)

    assert process.returncode == 143
    assert kept.endswith("a checkpoint of each run that was learning, in runs/coldstart/compare")
    assert how.startswith("go on: python -m experiments.coldstart 'learners=[dynaq]' ")
    for file in rows(tmp_path, "runs/*/*/*/*/*"):
        assert (file.parent / "checkpoint" / "state.json").is_file()
        with lock_run(file.parent):
            pass


def test_a_ranking_says_where_the_people_are_that_it_has_ranked(tmp_path):
    part = tmp_path / "ranked.csv.part"
    process = begun(tmp_path, "rank", "market=default", "market.n_jobs=500", "market.n_applicants=60000")

    kept, how = stopped_once(process, lambda: part.exists() and part.stat().st_size > 10_000, signal.SIGINT)

    assert process.returncode == 130
    assert kept == "stopped by Ctrl-C; kept: the people ranked so far, in ranked.csv.part"
    assert how.startswith("go on: python -m experiments.rank market=default")


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("", "the runs that are finished, and a checkpoint of each run that was learning"),
        ("a file", "the runs that are finished, and a file"),
        ("the runs that are finished, in runs/career/quick", "the runs that are finished, in runs/career/quick"),
    ],
)
def test_a_sweep_says_once_that_finished_runs_are_kept(kept, said):
    first, second = _in_two_lines(Interrupted(signal.SIGINT, kept), ["-m", "seed=0,1"]).splitlines()
    assert first == f"stopped by Ctrl-C; kept: {said}"
    assert second.startswith("go on: python -m ") and second.endswith(" -m seed=0,1")


def test_a_check_says_where_the_answers_are_that_were_paid_for(tmp_path):
    stopped = threading.Event()
    with serving(lambda body, number: decides("apply") if number <= 8 else waits(stopped, decides("apply"))) as fake:
        process = begun(
            tmp_path,
            "llm.check",
            "simulator=llm",
            "simulator.model=openai/fake",
            f"simulator.api_base={fake.api_base}",
            "simulator.cache=answers.sqlite",
            "simulator.calls.concurrency=1",
            "simulator.calls.timeout=2",
            "simulator.retries.wait=60",
        )
        kept, how = stopped_once(process, lambda: fake.calls > 8, signal.SIGTERM)
        stopped.set()
        assert fake.calls == 9, "what was under way is not tried again"

    assert process.returncode == 143
    assert kept == "stopped by SIGTERM; kept: every answer so far, in answers.sqlite"
    assert how.startswith("go on: python -m experiments.llm.check simulator=llm ")


def test_a_career_study_says_where_its_runs_are(tmp_path):
    process = begun(tmp_path, "career", "learners=[cosine,dynaq_plus]", "at=[0,1000000]", "n_applicants=4", "n_sets=5")

    kept, how = stopped_once(process, lambda: any(tmp_path.glob("runs/career/**/seed_*.json")), signal.SIGINT)

    assert process.returncode == 130
    assert kept == "stopped by Ctrl-C; kept: the runs that are finished, in runs/career/quick"
    assert how.startswith("go on: python -m experiments.career 'learners=[cosine,dynaq_plus]' ")


def test_a_data_set_that_is_stopped_leaves_nothing_and_says_so(tmp_path):
    (tmp_path / "waiting_lab.py").write_text(
        "import pathlib, time\ndef market():\n    pathlib.Path('begun').touch()\n    time.sleep(3600)\n"
    )
    process = begun(tmp_path, "make_dataset", "market=custom", "market._target_=waiting_lab.market")

    kept, how = stopped_once(process, (tmp_path / "begun").exists, signal.SIGTERM)

    assert process.returncode == 143
    assert kept == "stopped by SIGTERM; kept: nothing"
    assert how == "again: python -m experiments.make_dataset market=custom market._target_=waiting_lab.market"
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"begun", "waiting_lab.py"}


def test_a_run_stopped_between_two_rows_goes_on_to_the_bit(run, tmp_path, monkeypatch):
    overrides = ("total_timesteps=40", "env.resample=step", "evaluation.at=[0,10]", "evaluation.interval=20")
    whole = run(*overrides, folder="whole")
    step = LearningCurve._on_step

    def signalled(self):
        if self.model.num_timesteps == 17:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    with monkeypatch.context() as patch, interruptible():
        patch.setattr(LearningCurve, "_on_step", signalled)
        with pytest.raises(Interrupted) as caught:
            run(*overrides, folder="cut")
    assert caught.value.kept == f"a checkpoint after 17 interactions, in {tmp_path / 'cut'}"
    assert caught.value.exit_code == 130
    resumed = run(*overrides, folder="cut")

    def lasting(summary):
        return {key: value for key, value in summary.items() if key not in ("wall_clock", "commit", "files")}

    assert lasting(resumed) == lasting(whole)
    clocks = ["seconds", "cpu_seconds"]
    cut, uncut = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("cut", "whole"))
    pd.testing.assert_frame_equal(cut.drop(columns=clocks), uncut.drop(columns=clocks))
    assert (cut[clocks].diff().iloc[1:] >= 0).all().all()


def test_a_signal_at_the_end_of_learning_lets_the_run_finish(run, tmp_path, monkeypatch):
    def signalled(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    monkeypatch.setattr("experiments.runs.training._under_other_truths", signalled)
    with interruptible(), pytest.raises(Interrupted) as caught:
        run("algo=random")
    assert caught.value.kept == f"the run, which is finished, in {tmp_path / 'run'}"
    monkeypatch.setattr("experiments.runs.training._run", lambda *args: pytest.fail("made again"))
    assert run("algo=random")["interactions"] == 30


def test_a_second_signal_does_not_wait():
    done = []
    with interruptible(), pytest.raises(Interrupted), held() as waiting:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append(waiting.number)
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("not reached")
    assert done == [signal.SIGTERM]


def test_what_nobody_took_is_in_a_checkpoint(small):
    from experiments.runs.build import build

    env = build(small("algo=random")).make_env()
    env.reset(seed=0)
    env.step(env.action_space.sample() * 0)
    again = InteractionRecorder(env.env)
    again.set_state(env.get_state())

    for first, second in zip(env.take(), again.take(), strict=True):
        assert (first == second).all()
    assert env.take_components() == again.take_components() != {}
    assert env.get_state()["rows"] is None


CHILD = """
import multiprocessing, os, signal, sys, time
from experiments.runs.processes import end_with_parent


def work(ready):
    end_with_parent()
    ready.set()
    time.sleep(600)


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    context.Process(target=work, args=(ready,), daemon=True).start()
    ready.wait()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "program.py").write_text(CHILD)
    command = [sys.executable, str(tmp_path / "program.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    # The child has the same standard output, so reading to its end waits for the child.
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=120, check=False)

    assert done.returncode == -signal.SIGKILL
