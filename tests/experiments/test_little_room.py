"""Runs on a full disk, in a place that cannot be written, with few file handles, and without a home."""

import errno
import os
import pwd
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from little_room import as_nobody, files_left, room_for

import experiments
from dynaq_algo import DynaQ
from experiments.runs.build import build
from experiments.runs.command import _threads_in_short
from experiments.runs.folders import RunError
from experiments.runs.training import run_training

ROOT = Path(experiments.__file__).parents[1]

OVERRIDES = ("algo=dynaq", "checkpoint_interval=10", "env.resample=step")


def lasting(summary):
    return {key: value for key, value in summary.items() if key not in ("wall_clock", "commit", "files")}


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    return run_training(build(small(*OVERRIDES)), tmp_path_factory.mktemp("whole") / "run", OVERRIDES)


@pytest.mark.parametrize(("n_bytes", "file"), [(0, "config.yaml"), (20_000, "checkpoint")])
def test_a_run_on_a_full_disk_names_the_file_and_goes_on_once_there_is_room(run, tmp_path, whole, n_bytes, file):
    with room_for(n_bytes), pytest.raises(RunError) as told:
        run(*OVERRIDES)
    assert str(told.value) == (
        f"{tmp_path / 'run' / file}: File too large. Allow larger files, ulimit -f unlimited, say; the same command "
        "then goes on."
    )
    assert lasting(run(*OVERRIDES)) == lasting(whole)


def test_a_checkpoint_outlives_a_full_disk(run, tmp_path, whole, monkeypatch):
    state = (tmp_path / "run" / "checkpoint" / "state.json").read_bytes
    save, first = DynaQ.save_checkpoint, []

    def second_fails(self, folder, exclude=None):
        if not first:
            save(self, folder, exclude)
            first.append(state())
            return
        with room_for(20_000):
            save(self, folder, exclude)

    with monkeypatch.context() as patch:
        patch.setattr(DynaQ, "save_checkpoint", second_fails)
        with pytest.raises(RunError, match=r"run/checkpoint: File too large"):
            run(*OVERRIDES)
    assert [state()] == first
    assert lasting(run(*OVERRIDES)) == lasting(whole)


def test_a_place_that_cannot_be_written_is_named(run):
    def work():
        with pytest.raises(RunError, match=r"^/little-room: Permission denied\. Choose another place"):
            run("algo=random", folder="/little-room")
        return True

    assert as_nobody(work)


def test_too_few_file_handles_are_said_with_the_way_out(run, small, tmp_path):
    run("algo=random", folder="other")  # all modules are loaded
    setup, said = build(small("algo=random")), []
    for n in range(4):
        try:
            with files_left(n):
                run_training(setup, tmp_path / "run")
        except RunError as error:
            said.append(str(error))
    assert said and all("Too many open files. Allow more open files, ulimit -n 4096, say." in line for line in said)
    assert run_training(setup, tmp_path / "run")["interactions"] == 30


def test_a_run_needs_no_home(run, monkeypatch):
    def unknown(*_):
        raise KeyError("no such user")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert run("algo=random")["interactions"] == 30


def test_what_hydra_writes_is_named_too(tmp_path):
    with room_for(0):
        command = [sys.executable, "-m", "experiments.train", "hydra.run.dir=run"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/run/.hydra/config.yaml: File too large. Allow larger files"), line


def test_an_error_of_a_thread_is_told_once_and_in_one_line(capfd):
    def write():
        raise OSError(errno.ENOSPC, "No space left on device", "runs/tensorboard")

    def both_fail(told_by):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        raise told_by

    other = ValueError("another one")
    with pytest.raises(ValueError, match="another one"), _threads_in_short(in_debug=False):
        both_fail(other)
    assert capfd.readouterr().err == (
        "error: runs/tensorboard: No space left on device. Make room; the same command then goes on.\n"
    )

    kept = []
    thread = threading.Thread(target=write)
    with pytest.raises(RunError, match="no room"), _threads_in_short(in_debug=False):
        hook = threading.excepthook
        threading.excepthook = lambda failed: (kept.append(failed.exc_value), hook(failed))
        thread.start()
        thread.join()
        raise RunError("no room") from kept[0]
    assert capfd.readouterr().err == ""
