"""Sweeps of two runs at a time by every launcher, really killed and started again; ``make test-launchers`` has all."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

import redis_server
from commands import Begun, begin_command
from fake_llm import decides, lapse_claims, serving, waits

from experiments.runs import arguments, training
from experiments.runs.arguments import require_plugin
from experiments.runs.build import build
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.simulators.stores import open_cache

pytestmark = pytest.mark.waits

ROOT = Path(training.__file__).parents[2]
RUN = [
    "algo=random",
    "seed=0",
    "reward=llm",
    "simulator=llm",
    "simulator.model=openai/fake",
    "simulator.calls.concurrency=1",
    "simulator.calls.timeout=3600",
    "simulator.calls.batch_timeout=36000",
    "market.n_jobs=60",
    "market.n_applicants=40",
    "env.num_candidates=5",
    "env.resample=step",
    "evaluation.n_pairs=16",
    "evaluation.n_episodes=4",
    "evaluation.at=[]",
]
# The long run comes first: where the short one ends before it, two were under way at a time.
LONG, SHORT = 120, 8
AXIS = f"total_timesteps={LONG},{SHORT}"
PATIENCE = 3_600.0  # seconds, only for what hangs
QUESTIONS = int(os.environ.get("JOBREC_QUESTIONS", "400"))
"""Of four processes on two nodes of Ray; JOBREC_QUESTIONS=20000 is the goal of docs/cluster.md."""


def needs(extra):
    missing = find_spec(f"hydra_plugins.hydra_{extra}_launcher") is None
    return pytest.mark.skipif(missing, reason=f"the extra {extra} is not installed: make test-launchers")


needs_redis = pytest.mark.skipif(not redis_server.is_there(), reason=redis_server.REASON)


@pytest.fixture
def redis(tmp_path):
    """A server of the test's own, as durable as one can be."""
    with redis_server.serving_redis(tmp_path) as server:
        yield server


def decide_by_text(body, number):
    return decides(DECISIONS[len(body["messages"][1]["content"]) % 4])


def wait_until(condition, what, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {patience:g} seconds"
        time.sleep(0.05)


def summaries(folder):
    """By the number of interactions."""
    found = [json.loads(path.read_text()) for path in folder.glob("*/summary.json")]
    return {summary["interactions"]: summary for summary in found}


def run_folder(folder, steps):
    (found,) = (
        path for path in folder.glob("*/.hydra/overrides.yaml") if f"total_timesteps={steps}\n" in path.read_text()
    )
    return found.parents[1]


def is_free(folder):
    """Whether no process is in a run folder."""
    with (folder / ".lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def must_end_well(process, folder):
    """Waits for the end of a sweep, and shows what it said where it failed."""
    wait_until(lambda: process.poll() is not None, "end of the sweep")
    said = process.communicate() if isinstance(process, Begun) else (folder / "sweep.log").read_text()
    assert process.returncode == 0, said


def kill(process, launcher, folder):
    """Kills a sweep with all that it started; Slurm's jobs outlive who submitted them."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if launcher == "submitit":
        arrays = {path.name.partition("_")[0] for path in folder.glob(".submitit/[0-9]*")}
        subprocess.run(["scancel", "--signal=KILL", "--full", *arrays], check=True)


@pytest.fixture
def environment(tmp_path):
    """The environment variables of a sweep. Those for Ray keep it apart from any other Ray on this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex, "RAY_USAGE_STATS_ENABLED": "0"}
    return {**kept, **token, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def start(environment, tmp_path):
    """Starts a sweep in the test's folder, as the head of a process group that ends with the test."""
    with ExitStack() as started:

        def begin(*overrides):
            if "ray" in overrides[0]:  # Its driver has threads, and a fork of what the tests share may have none.
                log = started.enter_context((tmp_path / "sweep.log").open("a"))
                line = [sys.executable, "-m", "experiments.train", "-m", *overrides]
                process = subprocess.Popen(
                    line, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            else:
                process = begin_command("train", "-m", *overrides, cwd=tmp_path, environment=environment)
            started.callback(end, process)
            return process

        def end(process):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

        yield begin


@pytest.fixture
def ray_cluster(environment, tmp_path, request):
    """The address of a cluster of two nodes with a core each, or as many as it is told, in two other folders."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--num-cpus={getattr(request, 'param', 1)}"]
    with ExitStack() as nodes:
        for name, line in (
            ("head", [*ray, "--head", f"--port={port}", "--include-dashboard=false"]),
            ("second", [*ray, f"--address=127.0.0.1:{port}"]),
        ):
            (tmp_path / name).mkdir()
            log = nodes.enter_context((tmp_path / f"{name}.log").open("w"))
            node = subprocess.Popen(line, cwd=tmp_path / name, env=environment, stdout=log, stderr=log)
            nodes.callback(node.wait)
            nodes.callback(node.terminate)
            wait_until(lambda file=log: "Ray runtime started" in Path(file.name).read_text(), "node of Ray")
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    "launcher",
    [
        "joblib",
        pytest.param("submitit_local", marks=needs("submitit")),
        pytest.param(
            "submitit",
            marks=[needs("submitit"), pytest.mark.skipif(shutil.which("sbatch") is None, reason="no Slurm is here")],
        ),
        pytest.param("ray", marks=needs("ray")),
        pytest.param("ray_cluster", marks=needs("ray")),
        pytest.param("ray_cluster and a Redis server", marks=[needs("ray"), needs_redis]),
    ],
)
@pytest.mark.skipif(find_spec("litellm") is None, reason="the extra llm is not installed")
def test_a_killed_sweep_reruns_only_what_is_missing_and_asks_each_question_once(
    launcher, config, start, tmp_path, request
):
    place, cache = [], "answers.sqlite"
    launcher, _, server = launcher.partition(" and ")
    if server:
        cache = request.getfixturevalue("redis").address
    if launcher == "ray_cluster":
        place = [f"hydra.launcher.ray.init.address={request.getfixturevalue('ray_cluster')}"]
    killed = threading.Event()

    def script(body, number):
        # What the short run asks is among the first 20 questions; the long one cannot end before it is killed.
        answer = decide_by_text(body, number)
        return answer if number <= 20 or killed.is_set() else waits(killed, answer)

    with serving(script) as fake:
        asked = [f"simulator.api_base={fake.api_base}", f"simulator.cache={cache}"]
        sweep = [f"launcher={launcher}", AXIS, *RUN, *asked, "hydra.sweep.dir=sweep", *place]
        first = start(*sweep)
        wait_until(lambda: SHORT in summaries(tmp_path / "sweep") and fake.calls > 20, "end of the short run")
        kill(first, launcher, tmp_path / "sweep")
        wait_until(lambda: is_free(run_folder(tmp_path / "sweep", LONG)), "end of the long run")
        assert list(summaries(tmp_path / "sweep")) == [SHORT]
        assert fake.calls == len(set(fake.asked()))
        done = run_folder(tmp_path / "sweep", SHORT) / "summary.json"
        before = done.stat().st_mtime_ns

        killed.set()
        lapse_claims(cache if server else tmp_path / cache)
        killed_at = fake.calls
        must_end_well(start(*sweep), tmp_path)

        assert done.stat().st_mtime_ns == before
        assert fake.calls > killed_at
        # Only what was under way at the kill is asked again.
        assert fake.calls - len(set(fake.asked())) <= 1
        questions = set(fake.asked())
    resumed = summaries(tmp_path / "sweep")
    with serving(decide_by_text) as fake:
        here = [f"simulator.api_base={fake.api_base}", f"simulator.cache={tmp_path / 'whole.sqlite'}"]
        cfg = config("train", f"total_timesteps={LONG}", *RUN, *here)
        whole = training.run_training(build(cfg), tmp_path / "whole")
        # The short run wanted nothing that the long one did not, and both together asked for no more.
        assert questions == set(fake.asked())
    assert sorted(resumed) == [SHORT, LONG]
    for summary in resumed.values():
        assert summary["feedback"]["decisions"] == summary["interactions"]
        assert summary["feedback"]["failures"] == 0
    for key in ("held_out", "online"):
        assert resumed[LONG][key] == whole[key]


@needs("ray")
@needs_redis
@pytest.mark.skipif(find_spec("litellm") is None, reason="the extra llm is not installed")
@pytest.mark.parametrize("ray_cluster", [2], indirect=True)
def test_processes_of_two_nodes_ask_each_question_once_and_keep_a_cap_though_the_server_is_killed_twice(
    ray_cluster, redis, environment, tmp_path
):
    asked = tmp_path / "asked"
    asked.touch()

    def questions():
        return asked.read_text().splitlines()

    def four_processes(cap, kill_at):
        line = [sys.executable, str(ROOT / "tests" / "ray_questions.py"), ray_cluster, redis.address, str(asked)]
        with (tmp_path / "driver.log").open("w") as log:
            driver = subprocess.Popen(
                [*line, str(QUESTIONS), str(cap)], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
            try:
                wait_until(
                    lambda: len(questions()) >= kill_at or driver.poll() is not None, "question", PATIENCE + QUESTIONS
                )
                assert driver.poll() is None, (tmp_path / "driver.log").read_text()
                redis.kill()
                redis.start()
                said, _ = driver.communicate()
            finally:
                driver.kill()
        assert driver.returncode == 0, (tmp_path / "driver.log").read_text()
        said = json.loads(said)
        assert len({each["pid"] for each in said}) == 4 and len({each["node"] for each in said}) == 2
        return said

    cap = QUESTIONS * 9 // 10
    said = four_processes(cap, QUESTIONS // 3)
    assert all(each["capped"] for each in said)
    assert len(questions()) == len(set(questions())) == cap
    said = four_processes(QUESTIONS, cap + QUESTIONS // 20)
    assert [(each["answers"], each["capped"]) for each in said] == [(QUESTIONS, False)] * 4
    # No process died, so no call was under way at a crash that nobody waited for.
    assert len(questions()) == len(set(questions())) == QUESTIONS
    store = open_cache(redis.address)
    assert sum(entry["answers"] for entry in store.summary()) == store.spent("default").calls == QUESTIONS
    store.close()


@needs("submitit")
def test_a_run_that_is_preempted_goes_on_from_its_checkpoint(config, start, tmp_path):
    small = [
        "seed=0",
        "total_timesteps=600",
        "algo.planning_steps=1",
        "market.n_jobs=60",
        "market.n_applicants=40",
        "env.num_candidates=5",
        "algo.policy_kwargs.net_arch=[8]",
        "evaluation.n_pairs=16",
        "evaluation.n_episodes=4",
        "evaluation.at=[]",
        "evaluation.interval=200",
        "checkpoint_interval=200",
    ]
    sweep = tmp_path / "sweep"
    process = start("launcher=submitit_local", *small, "hydra.sweep.dir=sweep")
    wait_until(lambda: list(sweep.glob("*/checkpoint")), "checkpoint")
    (controller,) = (path.name for path in sweep.glob(".submitit/[0-9]*"))
    (task,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)  # what Slurm sends, by submitit's submission, before it takes the node away
    must_end_well(process, tmp_path)

    assert "Requeued job" in next(sweep.glob(".submitit/*/*.out")).read_text()
    folder = run_folder(sweep, 600)
    # A run that had started anew would have removed the first of the two.
    assert len(list((folder / "tensorboard").iterdir())) == 2
    whole = training.run_training(build(config("train", *small)), tmp_path / "whole")
    resumed = summaries(sweep)[600]
    for key in ("held_out", "online"):
        assert resumed[key] == whole[key]


@pytest.mark.parametrize("launcher", ["ray", "ray_cluster", "submitit", "submitit_local"])
def test_a_launcher_whose_plug_in_is_missing_says_how_to_get_it(monkeypatch, launcher):
    monkeypatch.setattr(arguments, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r'pip install -e ".+\[(ray|submitit)\]"'):
        require_plugin(["-m", f"launcher={launcher}", "seed=0,1"])
    require_plugin(["launcher=joblib", "seed=0"])


@pytest.mark.parametrize("asked", ["sweeper=optuna", "tracker=wandb", "tracker=mlflow"])
def test_a_sweeper_or_tracker_that_is_missing_says_how_to_get_it(monkeypatch, asked):
    monkeypatch.setattr(arguments, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=rf"error: {asked} needs an extra: pip install .*{asked.partition('=')[2]}"):
        require_plugin(["-m", asked, "seed=0,1"])
