import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.pages.page import write_report
from experiments.runs import build, folders, sweeps, training
from experiments.runs.folders import RunError, clear_if_only, find_runs, lock_run, unfinished_runs
from experiments.runs.recording import rows_until

ROOT = Path(build.__file__).parents[2]
CLOCKS = ["seconds", "cpu_seconds"]
MAKE = build.Algorithm.make


def without_wall_clock(summary):
    """Without digests of tables, which hold times, and without the commit: somebody may commit between two runs."""
    return {key: value for key, value in summary.items() if key not in ("wall_clock", "files", "commit")}


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(build.Algorithm, "make", refuse)


def test_a_run_leaves_its_folder_and_nothing_else(run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    run()

    events, *others = sorted(files(tmp_path / "run"), key=lambda name: "tensorboard" not in name)
    assert events.startswith("tensorboard")
    names = ["before.json", "config.yaml", "metrics.csv", "model.zip", "progress.csv", "summary.json"]
    assert sorted(others) == [".lock", *names]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "run"]
    assert files(elsewhere) == []


def test_a_run_twice_gives_the_same_summary_but_for_the_clock(run, tmp_path):
    overrides = ("experiment=hybrid_offline", "pretrain.epochs=1", "total_timesteps=40", "simulator.noise=0.5")

    first, second = run(*overrides, folder="a"), run(*overrides, folder="b")

    assert without_wall_clock(first) == without_wall_clock(second)
    columns = [pd.read_csv(tmp_path / name / "metrics.csv").drop(columns=CLOCKS) for name in "ab"]
    pd.testing.assert_frame_equal(*columns)


def test_another_seed_learns_something_else_on_the_same_pairs(run):
    first, second = run("seed=0", folder="a"), run("seed=1", folder="b")

    assert first["held_out"] != second["held_out"]
    assert first["references"] == second["references"]
    assert first["online"] != second["online"]


def test_the_curve_starts_before_the_first_interaction(run, tmp_path):
    run()
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")

    assert metrics["interactions"].tolist() == [0, 10, 20, 30]
    assert metrics["held_out/score"].notna().all()
    assert metrics["online/cumulative_reward"][0] == 0
    assert pd.isna(metrics["online/mean_reward"][0])


def test_the_last_point_of_the_curve_is_the_summary(run, tmp_path):
    summary = run()
    last = pd.read_csv(tmp_path / "run" / "metrics.csv").iloc[-1]

    assert last["held_out/score"] == pytest.approx(summary["held_out"]["score"])
    assert last["online/cumulative_regret"] == pytest.approx(summary["online"]["cumulative_regret"])


def test_the_oracle_has_no_regret_and_the_others_have(run):
    assert run("algo=oracle", folder="a")["online"]["cumulative_regret"] == pytest.approx(0.0)
    assert run("algo=random", folder="b")["online"]["cumulative_regret"] > 0


def test_the_cosine_is_known_beside_every_agent_and_a_ranking_before_and_after(run, tmp_path):
    online, example = (run("algo=cosine")[key] for key in ("online", "example"))
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")

    assert online["cumulative_regret"] == pytest.approx(online["cumulative_cosine_regret"])
    assert online["cumulative_regret"] > 0
    assert table["online/apply_rate"].equals(table["online/cosine_apply_rate"])
    assert example["before"] == example["after"] == example["cosine"] != example["oracle"]
    cosines = [job["cosine"] for job in example["after"]]
    assert len(cosines) == 5 and cosines == sorted(cosines, reverse=True)


def test_regret_counts_only_candidates_that_were_allowed(run):
    summary = run("algo=oracle", "env.repeats=false", "env.resample=episode", "env.max_episode_steps=5")

    assert summary["online"]["cumulative_regret"] == pytest.approx(0.0)


def test_evaluations_change_nothing_in_what_is_learned(run):
    often, seldom = run("evaluation.at=[0,5,10,15]", folder="a"), run("evaluation.at=[]", folder="b")

    assert often["held_out"] == seldom["held_out"]
    assert often["online"] == pytest.approx(seldom["online"])


def test_a_finished_run_is_not_run_again(run, no_training, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build.Algorithm, "make", MAKE)
        first = run()

    assert run() == first


def test_how_a_run_is_run_does_not_make_it_another(run, no_training, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build.Algorithm, "make", MAKE)
        first = run("progress_bar=false")

    assert run("progress_bar=null", "checkpoint_interval=10", "threads=2") == first


@pytest.mark.parametrize("change", ["resume=false", "algo.gamma=0.5", "simulator.noise=0.1"])
def test_another_config_or_the_wish_runs_again(run, no_training, monkeypatch, change):
    with monkeypatch.context() as patch:
        patch.setattr(build.Algorithm, "make", MAKE)
        run("algo=random")

    with pytest.raises(AssertionError, match="trained again"):
        run("algo=random", change)


def test_a_run_without_a_summary_begins_anew_and_mixes_nothing(run, tmp_path):
    first = run("algo=random")
    (tmp_path / "run" / "summary.json").unlink()

    second = run("algo=random")

    assert without_wall_clock(first) == without_wall_clock(second)
    assert len(pd.read_csv(tmp_path / "run" / "metrics.csv")) == 4


def test_an_interrupted_run_goes_on_from_its_checkpoint_to_the_same_end(run, cut, tmp_path, monkeypatch):
    overrides = ("checkpoint_interval=10", "total_timesteps=40", "env.resample=step", "pretrain.epochs=1")
    whole = run(*overrides, folder="whole")
    cut(30, *overrides)
    assert not (tmp_path / "cut" / "summary.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(build.Algorithm, "make", None)
        resumed = run(*overrides, folder="cut")

    assert without_wall_clock(resumed) == without_wall_clock(whole)
    columns = [pd.read_csv(tmp_path / name / "metrics.csv").drop(columns=CLOCKS) for name in ("cut", "whole")]
    pd.testing.assert_frame_equal(*columns)
    assert not (tmp_path / "cut" / "checkpoint").exists()


def test_a_run_cut_before_its_first_log_row_goes_on(run, cut, tmp_path):
    overrides = ("checkpoint_interval=10", "total_timesteps=30")
    whole = run(*overrides, folder="whole")
    cut(20, *overrides)
    assert (tmp_path / "cut" / "progress.csv").read_text() == ""

    assert without_wall_clock(run(*overrides, folder="cut")) == without_wall_clock(whole)


def test_rows_that_a_kill_cut_short_are_skipped(tmp_path):
    table = tmp_path / "progress.csv"
    table.write_text("a,time/total_timesteps\n1,10\n2\n3,20\n4,30\n5,1")

    assert rows_until(table, "time/total_timesteps", 20) == [["a", "time/total_timesteps"], ["1", "10"], ["3", "20"]]
    table.write_text("a,time/total_ti")
    assert rows_until(table, "time/total_timesteps", 20) == []


@pytest.mark.parametrize(
    "broken", ["algo.planning_steps=-1", "pretrain.dataset=nowhere.npz", "evaluation.n_pairs=0", "market.n_jobs=2"]
)
def test_a_config_that_cannot_be_built_leaves_the_finished_run(run, tmp_path, broken):
    run()
    (tmp_path / "run" / "evaluation.json").write_text("{}")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in files(tmp_path / "run")}

    with pytest.raises(Exception, match=r"planning_steps|nowhere|n_pairs|n_jobs"):
        run("pretrain.epochs=1", broken)

    assert {name: (tmp_path / "run" / name).read_bytes() for name in files(tmp_path / "run")} == before


@pytest.mark.waits
def test_a_folder_in_use_is_left_alone_until_its_process_ends(run, tmp_path):
    folder = tmp_path / "run"
    held = "import pathlib, sys; from experiments.runs.folders import lock_run\n"
    held += "with lock_run(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", held, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(RunError, match="another process is in this folder"):
            run("algo=random")
        assert files(folder) == [".lock"]
        other.kill()

    assert run("algo=random")["interactions"] == 30
    with lock_run(folder):
        assert run("algo=random")["interactions"] == 30  # finished: read, not written


def test_what_an_algorithm_cannot_do_is_refused(run):
    with pytest.raises(RunError, match="checkpoint_interval"):
        run("algo=random", "checkpoint_interval=10")


def test_who_learns_nothing_is_not_pretrained_and_says_so(run, caplog):
    with caplog.at_level("INFO", logger="experiments.runs.training"):
        summary = run("experiment=hybrid_offline", "algo=random", "total_timesteps=30")

    assert summary["pretrain"] is None
    assert "RandomRecommender learns nothing" in caplog.text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("total_timesteps=-1", "`total_timesteps` must be 0 or more, got -1"),
        ("pretrain.epochs=-1", "`pretrain.epochs` must be 0 or more, got -1"),
        ("evaluation.at=5", "`evaluation.at` must be a list .* got 5"),
        ("evaluation.interval=0", "`evaluation.interval` must be 1 or more, got 0"),
        ("checkpoint_interval=0", "`checkpoint_interval` must be 1 or more or null, got 0"),
        ("total_timesteps=inf", "`total_timesteps` must be 0 or more, a whole number, got inf"),
        ("total_timesteps=100.5", "`total_timesteps` must be 0 or more, a whole number, got 100.5"),
        ("total_timesteps=true", "`total_timesteps` must be 0 or more, got True"),
        ("total_timesteps=1e30", "`total_timesteps` must be at most 9,007,199,254,740,992, got 1,0"),
        ("seed=abc", "`seed` must be 0 or more, got 'abc'"),
        ("seed=-1", "`seed` must be 0 or more, got -1"),
        ("seed=4294967296", "`seed` must be at most 4,294,967,295, got 4,294,967,296"),
        ("evaluation.n_pairs=nan", "`evaluation.n_pairs` must be 1 or more, a whole number, got nan"),
        ("env.n_envs=x", "`env.n_envs` must be 1 or more, got 'x'"),
        ("threads=0", "`threads` must be 1 or more, got 0"),
        ("name=true", "`name` must be a text or null, got True. A word such as true is a text in quotation marks"),
        ("name=[a]", r"`name` must be a text or null, got \['a'\]"),
        ("resume=maybe", "`resume` must be true or false, got 'maybe'"),
    ],
)
def test_a_number_that_cannot_be_is_named(run, tmp_path, override, message):
    with pytest.raises(RunError, match=message):
        run(override)
    assert not (tmp_path / "run").exists()


@pytest.mark.waits
def test_a_run_that_another_process_finishes_on_the_way_to_the_lock_is_not_made_again(run, monkeypatch):
    @contextmanager
    def late(folder, waits):
        monkeypatch.setattr(training, "lock_run", lock_run)
        run("algo=random")
        monkeypatch.setattr(training, "_run", lambda *args: pytest.fail("made again"))
        with lock_run(folder, waits):
            yield False

    monkeypatch.setattr(training, "lock_run", late)

    assert run("algo=random")["interactions"] == 30


def test_a_run_of_a_sweep_waits_for_its_twin_and_has_nothing_to_do(small, tmp_path, monkeypatch, capsys):
    waiting = threading.Event()
    monkeypatch.setattr(folders, "print", lambda *words, **options: waiting.set(), raising=False)
    setups = [build.build(small("algo=random")) for _ in range(2)]
    with ThreadPoolExecutor(1) as other:
        with lock_run(tmp_path / "run"):
            twin = other.submit(training.run_training, setups[0], tmp_path / "run", waits=True)
            assert waiting.wait(60)
            training._run(setups[1], tmp_path / "run", [])
            monkeypatch.setattr(training, "_run", lambda *args: pytest.fail("made again"))
        assert twin.result()["interactions"] == 30
    assert "run is finished: nothing to do" in capsys.readouterr().err


def test_a_run_of_a_sweep_does_not_replace_what_it_has_waited_for(small, tmp_path, monkeypatch):
    waiting = threading.Event()
    monkeypatch.setattr(folders, "print", lambda *words, **options: waiting.set(), raising=False)
    setups = [build.build(small("algo=random", f"seed={seed}")) for seed in range(2)]
    with ThreadPoolExecutor(1) as other:
        with lock_run(tmp_path / "run"):
            twin = other.submit(training.run_training, setups[0], tmp_path / "run", waits=True)
            assert waiting.wait(60)
            training._run(setups[1], tmp_path / "run", [])
        with pytest.raises(RunError, match="has a run of another config now, with other .*seed"):
            twin.result()


def test_a_run_of_a_sweep_replaces_what_was_there_before_it_waited(small, tmp_path, monkeypatch):
    waiting = threading.Event()
    monkeypatch.setattr(folders, "print", lambda *words, **options: waiting.set(), raising=False)
    setups = [build.build(small("algo=random", f"seed={seed}")) for seed in range(2)]
    training.run_training(setups[1], tmp_path / "run")
    with ThreadPoolExecutor(1) as other:
        with lock_run(tmp_path / "run"):  # of a process that changes nothing
            twin = other.submit(training.run_training, setups[0], tmp_path / "run", waits=True)
            assert waiting.wait(60)
        twin.result()
    assert folders.read_run(tmp_path / "run").config["seed"] == 0


def test_a_config_that_cannot_be_written_destroys_nothing(small, tmp_path, monkeypatch):
    setups = [build.build(small("algo=random", f"seed={seed}")) for seed in range(2)]
    training.run_training(setups[0], tmp_path / "run")
    monkeypatch.setattr(folders, "_MOST_OF_A_CONFIG", 100)
    with pytest.raises(RunError, match="must have at most 100 characters"):
        training.run_training(setups[1], tmp_path / "run")
    assert (tmp_path / "run" / "model.zip").is_file() and (tmp_path / "run" / "summary.json").is_file()


def test_a_folder_that_is_removed_before_its_lock_is_free_is_made_and_locked_again(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    first = (folder / ".lock").open("w")  # of a process that removes the folder and ends
    folders.lock_file(first, "it is free")

    def end(*words, **options):
        shutil.rmtree(folder)
        first.close()

    monkeypatch.setattr(folders, "print", end, raising=False)
    with lock_run(folder, waits=True) as has_waited:
        assert has_waited
        with pytest.raises(RunError, match="another process is in this folder"), lock_run(folder):
            pytest.fail("two processes are in the folder")


@pytest.mark.parametrize(("stop", "what"), [(20, "the checkpoint of an unfinished run"), (10, "an unfinished run")])
def test_an_unfinished_run_that_is_replaced_is_told_by_what(run, cut, caplog, stop, what):
    asked = ["checkpoint_interval=10", "total_timesteps=30"]
    cut(stop, *asked)
    run(*asked, "evaluation.n_episodes=8", folder="cut")

    assert f"replaces {what} of another config, which had other evaluation.n_episodes" in caplog.text


def test_a_sweep_goes_on_without_a_reader(tmp_path):
    small = "market.n_jobs=60 market.n_applicants=40 env.num_candidates=5 evaluation.n_pairs=64 total_timesteps=10"
    sweep = ["-m", "experiments.train", "-m", "algo=random,cosine", *small.split(), "hydra.sweep.dir=sweep"]
    with subprocess.Popen(
        [sys.executable, *sweep],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        command.stdout.close()
        said = command.stderr.read()

    assert command.returncode == 0
    assert "Traceback" not in said and "#1 : algo=cosine" in said  # what Hydra says goes where errors do
    assert len(find_runs(tmp_path / "sweep", "runs")) == 2


def test_a_finished_run_that_is_replaced_is_told_by_what(run, caplog):
    run("algo=random")
    assert "replaces" not in caplog.text

    run("algo=random", "total_timesteps=20", "evaluation.n_episodes=8")

    assert "had other evaluation.n_episodes, total_timesteps" in caplog.text


FAILING = """
from experiments.learners.opponents import RandomRecommender


class Learner(RandomRecommender):
    def __init__(self, env, gamma, seed, fails):
        super().__init__(env, gamma=gamma, seed=seed)
        self.fails = fails

    def learn(self, *args, **kwargs):
        assert not self.fails, "on purpose"
        return super().learn(*args, **kwargs)
"""


def test_a_run_that_fails_ends_no_sweep_and_is_counted_unless_it_could_not_be_built(tmp_path):
    small = "market.n_jobs=60 market.n_applicants=40 env.num_candidates=5 evaluation.n_pairs=64"
    (tmp_path / "failing_lab.py").write_text(FAILING)
    own = ["algo=custom", "algo._target_=failing_lab.Learner", "algo.fails=false,true"]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    sweep = ("train", "-m", *own, "total_timesteps=-1,20", *small.split())
    done = run_command(*sweep, cwd=tmp_path, environment={"PYTHONPATH": path})

    assert done.returncode != 0
    assert "error: `total_timesteps` must be 0 or more" in done.stderr
    (finished,) = find_runs(tmp_path / "runs", "runs")
    assert finished.summary["interactions"] == 20
    assert unfinished_runs(tmp_path / "runs", 1).startswith("1 of 2 runs unfinished: ")
    assert len(list((tmp_path / "runs").glob("sweeps/*/*/"))) == 2


@pytest.mark.waits
def test_a_folder_is_cleared_of_hydras_files_alone_and_only_while_nobody_is_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "train" / "now"
    for name in (".hydra/config.yaml", "train.log", "summary.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    hydras = (".hydra", "train.log")

    assert not clear_if_only(folder, hydras) and (folder / ".hydra" / "config.yaml").exists()
    (folder / "summary.json").unlink()
    with lock_run(folder):
        assert not clear_if_only(folder, hydras) and (folder / "train.log").exists()
    (tmp_path / "runs" / "other").mkdir()
    assert clear_if_only(folder, hydras)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]
    monkeypatch.chdir(tmp_path / "runs" / "other")
    assert not clear_if_only(tmp_path / "runs" / "other", hydras) and Path.cwd().exists()


def test_a_name_may_be_a_number(tmp_path):
    small = "algo=cosine market.n_jobs=60 market.n_applicants=40 env.num_candidates=5 total_timesteps=20"
    command = ("train", *small.split(), "evaluation.n_pairs=64", "hydra.run.dir=run", "name=2026")
    for _ in range(2):  # the second time it is finished
        done = run_command(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert any(line.startswith("2026  ") for line in done.stdout.splitlines())
    (found,) = find_runs(tmp_path, "runs")
    assert found.config["name"] == "2026"


def test_a_run_of_a_sweep_is_found_under_any_name_also_in_the_folder_of_an_earlier_version(tmp_path):
    small = "market.n_jobs=60 market.n_applicants=40 env.num_candidates=5 total_timesteps=20 evaluation.n_pairs=64"

    def sweep(name):
        command = ("train", "-m", "algo=cosine", "seed=0", *small.split(), "hydra.sweep.dir=sweep", f'name="{name}"')
        done = run_command(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (found,) = find_runs(tmp_path / "sweep", "runs")
        assert found.config["name"] == name
        return found.folder, done.stderr

    folder, _ = sweep("first, lr=1")
    assert "lr" not in folder.name
    assert sweep("second, {lr=2}")[1].count("nothing to do") == 1

    earlier = folder.rename(folder.with_name("-lr-2-+algo-cosine-0123abcd"))
    said = earlier / ".hydra" / "hydra.yaml"
    rule = said.read_text().replace("${run_folder:${hydra.overrides.task}}", sweeps._EARLIER_RULE)
    said.write_text(rule)
    there, told = sweep("third, lr=3")
    assert there == folder and "nothing to do" in told
    assert f"{earlier.name} is now " in told and not earlier.exists()


def test_a_folder_of_an_earlier_version_stays_if_it_cannot_be_moved(tmp_path, capsys):
    written = {"a": "[seed=0]", "b": "[seed=0]", "c": "{", "d": "", "o": "[seed=1]"}
    for name in ("a-0123abcd", "b-0123abcd", "own-name", "c-0123abcd", "d-0123abcd"):
        hydras = tmp_path / name / ".hydra"
        hydras.mkdir(parents=True)
        (hydras / "hydra.yaml").write_text(f"subdir: {sweeps._EARLIER_RULE}")
        (hydras / "overrides.yaml").write_text(written[name[0]])
    with lock_run(tmp_path / "a-0123abcd"):
        sweeps.move_earlier(tmp_path)
    sweeps.move_earlier(tmp_path)

    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["a-0123abcd", "c-0123abcd", "d-0123abcd", "own-name", "seed-0"]
    told = capsys.readouterr().err
    assert "a-0123abcd stays where it is, so this sweep makes its run again: another process is in" in told
    assert "c-0123abcd stays where it is" in told and "d-0123abcd stays where it is" in told


@pytest.mark.usefixtures("unpainted")
def test_a_sweep_resumes_and_becomes_one_report(tmp_path):
    small = "market.n_jobs=60 market.n_applicants=40 env.num_candidates=5 total_timesteps=20 evaluation.n_pairs=64"
    command = ("train", "-m", "algo=cosine,random", "seed=0,1", *small.split())
    run_command(*command, cwd=tmp_path).check_returncode()
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    runs = sorted(path.parent for path in sweep.rglob("summary.json"))
    assert len(runs) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    before = {path: (path / "summary.json").stat().st_mtime_ns for path in runs}
    (runs[0] / "summary.json").unlink()

    run_command(*command, cwd=tmp_path).check_returncode()

    again = [path for path in runs if (path / "summary.json").stat().st_mtime_ns != before[path]]
    assert again == runs[:1]
    assert json.loads((runs[0] / "summary.json").read_text())["seed"] == 0
    page = write_report(find_runs(sweep, "runs"), tmp_path / "report").read_text()
    assert "algo=cosine" in page
    assert "algo=random" in page


@pytest.mark.parametrize(
    ("module", "argument", "message"),
    [
        ("report", "runs=nowhere", "error: `runs`: there is no folder nowhere"),
        ("train", "algo.planning_steps=-1", "`planning_steps` must be 0 or more"),
    ],
)
def test_a_command_that_cannot_work_says_why_and_fails(tmp_path, module, argument, message):
    done = run_command(module, argument, cwd=tmp_path)

    assert done.returncode != 0
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
