"""`kill -9` at random moments: of runs, sweeps, recordings, rankings, and of whatever writes files.

A process is killed, begun again, killed again, and at last let finish; what it leaves then is what a process leaves
that nobody killed. Processes are forked from one that has imported everything, so that kills come while it works.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import fake_llm
import numpy as np
from robustness.trying import Wrong

from jobrec_gym import Interactions, LabourMarket, load_market
from jobrec_gym.encoders import CachedEncoder, HashingEncoder
from jobrec_gym.simulators.base import DECISIONS

ROOT = Path(__file__).parents[2]
KILLS_A_DRILL = 10
_LONGEST = 900.0  # seconds that a whole one may take, however busy the machine is
_SMALL = (
    *("market.n_jobs=60", "market.n_applicants=40", "env.num_candidates=5", "env.resample=step"),
    *("evaluation.n_pairs=16", "evaluation.n_episodes=4", "evaluation.at=[0]", "algo.policy_kwargs.net_arch=[8]"),
    *("algo.learning_starts=8", "algo.batch_size=8", "progress_bar=false"),
)


# ---------------------------------------------------------------------------------------------- processes to be killed


class Nursery:
    """A process that has imported what takes long, and forks those that are killed."""

    def __init__(self, modules: list[str], environment: dict[str, str]):
        code = "import sys; sys.path[:0] = sys.argv[1:4]; from robustness.kills import nurse; nurse(sys.argv[4:])"
        places = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "dynaq_algo")]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *places, *modules],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL},
            text=True,
            env=environment,
            process_group=0,
        )
        self._read()  # it is ready

    def begin(self, function: str, words: list[str], folder: Path) -> int:
        """Forks a process that runs a module, or its function, ``module:name``, in a folder; returns its id."""
        assert self._process.stdin is not None
        print(json.dumps([function, words, str(folder)]), file=self._process.stdin, flush=True)
        return int(self._read())

    def ended(self) -> int:
        """Waits for the process that was begun last; its exit status, negative for a signal."""
        return int(self._read())

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the nursery ended with {self._process.wait()}")
        return json.loads(line)


def nurse(modules: list[str]) -> None:
    """What runs in the process of a :class:`Nursery`."""
    for module in modules:
        import_module(module)
    print("0", flush=True)
    for line in sys.stdin:
        function, words, folder = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be(function, words, folder)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _be(function: str, words: list[str], folder: str) -> None:
    code = 1
    try:
        os.setsid()  # so that its children are killed with it
        os.chdir(folder)
        with Path("said.txt").open("ab") as said:
            for descriptor in (1, 2):
                os.dup2(said.fileno(), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        module, _, name = function.partition(":")
        sys.argv = [module, *words]
        if name:
            getattr(import_module(module), name)()
        else:  # as by `python -m`
            del sys.modules[module]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        print(error.code or "", flush=True)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


# -------------------------------------------------------------------------------------------------------------- drills


class Drill(ABC):
    """What is killed, and what must be there afterwards.

    Attributes:
        function: The module that is run, or ``module:name``, what is called.
        modules: What the nursery imports.
        ends: Whether it comes to an end by itself; otherwise it writes again and again until it is killed.
    """

    function: ClassVar[str] = "robustness.kills:write"
    modules: ClassVar[tuple[str, ...]] = ()
    ends: ClassVar[bool] = True

    def __init__(self, folder: Path):
        self.folder = folder
        self.kills = 0

    @abstractmethod
    def words(self, folder: Path) -> list[str]:
        """What it is told, to work in a folder."""

    @abstractmethod
    def left(self, folder: Path) -> Any:
        """What is there, to be compared.

        Raises:
            Wrong: If what is there cannot be.
        """

    def after_a_kill(self, folder: Path) -> None:
        """Looks at what a kill left.

        Raises:
            Wrong: If it cannot be.
        """
        return

    def close(self) -> None:
        """Ends what it started."""
        return


class _Commands(Drill):
    """A command of `experiments`."""

    def runs(self, folder: Path) -> list[Any]:
        """Of each run, by its seed: what it came to, and its learning curve; but for the time that it took."""
        unequal = {"wall_clock", "commit", "overrides", "feedback", "files", "sha256"}  # digests are of times, too

        def lasting(row: dict[str, str]) -> dict[str, str]:
            return {
                key: value for key, value in row.items() if "seconds" not in key and not key.startswith("feedback/")
            }

        found = []
        for file in folder.rglob("summary.json"):
            summary = json.loads(file.read_text())
            with (file.parent / "metrics.csv").open(newline="") as rows:
                curve = [lasting(row) for row in csv.DictReader(rows)]
            found.append(({key: value for key, value in summary.items() if key not in unequal}, curve))
        return sorted(found, key=lambda run: run[0]["seed"])


class Train(_Commands):
    """A run with checkpoints goes on to the bit: its curve, its summary, its networks."""

    function = "experiments.train"
    modules = ("experiments.train", "experiments.runs.training")

    def words(self, folder: Path) -> list[str]:
        run = ["total_timesteps=300", "checkpoint_interval=25", "evaluation.interval=50", f"hydra.run.dir={folder}/run"]
        return [*_SMALL, *run]

    def left(self, folder: Path) -> Any:
        import torch

        with zipfile.ZipFile(folder / "run" / "model.zip") as archive:
            weights = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
        numbers = {name: value.numpy().tobytes() for name, value in weights.items() if hasattr(value, "numpy")}
        return self.runs(folder), numbers


class _Asking(_Commands):
    """A command that asks a server: nothing that was paid is lost, nothing asked again but what was in flight."""

    at_a_time: ClassVar[int] = 2
    modules = ("experiments.train", "experiments.runs.training", "experiments.llm.record", "litellm")

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._serving = fake_llm.serving(self.reply)
        self.server = self._serving.__enter__()
        self._before = 0

    def reply(self, body: dict[str, Any], number: int) -> fake_llm.Reply:
        """The answer to a question, always the same."""
        text = body["messages"][1]["content"]
        return fake_llm.sleeps(0.005, fake_llm.decides(DECISIONS[len(text) % 4]))

    def require_paid_once(self) -> None:
        """Compares what was asked since the last time with the questions that there were."""
        asked = Counter(self.server.asked()[self._before :])
        self._before = len(self.server.asked())
        again = sum(asked.values()) - len(asked)
        if again > self.kills * self.at_a_time:
            raise Wrong(f"asked again: {again} questions after {self.kills} kills, {self.at_a_time} at a time")
        self.kills = 0

    def close(self) -> None:
        self._serving.__exit__(None, None, None)


class Sweep(_Asking):
    """Two runs whose feedback is a language model's."""

    function = "experiments.train"

    def words(self, folder: Path) -> list[str]:
        model = ["simulator=llm", "simulator.model=openai/fake", f"simulator.api_base={self.server.api_base}"]
        calls = [f"simulator.cache={folder}/answers.sqlite", f"simulator.calls.concurrency={self.at_a_time}"]
        sweep = ["-m", "seed=0,1", "reward=llm", "total_timesteps=60", "evaluation.interval=60"]
        return [*sweep, *_SMALL, *model, *calls, f"hydra.sweep.dir={folder}/sweep"]

    def left(self, folder: Path) -> Any:
        self.require_paid_once()
        return self.runs(folder)


class Record(_Asking):
    """A recording of all pairs of a small market."""

    function = "experiments.llm.record"

    def reply(self, body: dict[str, Any], number: int) -> fake_llm.Reply:
        return fake_llm.sleeps(0.005, fake_llm.leans(0.05 + len(body["messages"][1]["content"]) % 90 / 100))

    def words(self, folder: Path) -> list[str]:
        market = ["market=default", "market.n_jobs=12", "market.n_applicants=10"]
        model = ["simulator.model=openai/fake", f"simulator.api_base={self.server.api_base}"]
        calls = [f"simulator.cache={folder}/answers.sqlite", f"simulator.calls.concurrency={self.at_a_time}"]
        return [*market, *model, *calls, f"output={folder}/recording.npz", f"hydra.run.dir={folder}/record"]

    def left(self, folder: Path) -> Any:
        self.require_paid_once()
        with np.load(folder / "recording.npz") as recording:
            return {
                name: recording[name].tolist() for name in ("probability", "thresholds", "applicant_keys", "job_keys")
            }


class Rank(_Commands):
    """Everybody's best jobs in a file."""

    function = "experiments.rank"
    modules = ("experiments.rank", "experiments.runs.ranking")

    def words(self, folder: Path) -> list[str]:
        market = ["market=default", "market.n_jobs=300", "market.n_applicants=4000"]
        return [*market, f"out={folder}/ranked.csv", "progress_bar=false"]

    def left(self, folder: Path) -> Any:
        if (folder / "ranked.csv.part").exists():
            raise Wrong("left over: ranked.csv.part")
        return (folder / "ranked.csv").read_bytes()


def write() -> None:
    """Calls a writer of this module again and again: ``write NAME FOLDER``."""
    writer, place = WRITERS[sys.argv[1]], Path(sys.argv[2])
    for turn in range(10**9):
        writer(place, turn)


class _Writers(Drill):
    """Something that writes the first or the second of two, in turns; after a kill either is there, whole."""

    ends = False
    name: ClassVar[str]

    def words(self, folder: Path) -> list[str]:
        return [self.name, str(folder)]

    def left(self, folder: Path) -> Any:
        return None  # each kill is looked at by itself


def _market(turn: int) -> LabourMarket:
    return load_market("default", n_jobs=60 + turn % 2, n_applicants=40)


class Save(_Writers):
    """A market over another one."""

    name = "save"

    def after_a_kill(self, folder: Path) -> None:
        if not any(folder.glob("*market*")) and not any(folder.glob(".market*")):
            return  # it was killed before it wrote anything
        try:
            found = load_market(folder / "market").fingerprint()
        except FileNotFoundError:
            found = None
        except ValueError as error:
            if (folder / "first-is-there").exists():
                raise Wrong(f"a broken market: {error}") from error
            found = None
        if found is None and (folder / "first-is-there").exists():
            raise Wrong("a lost market: neither the old nor the new one is there")
        if found is not None and found not in (_market(0).fingerprint(), _market(1).fingerprint()):
            raise Wrong("another market: neither the old nor the new one")
        for path in folder.glob(".market-*"):
            os.utime(path, (0, 0))  # what a kill left without a lock is let lie for a minute
        _market(0).save(folder / "market")
        left = [path.name for path in folder.glob(".*market*")]
        if left:
            raise Wrong(f"left over: {left}")


def _save(folder: Path, turn: int) -> None:
    _market(turn).save(folder / "market")
    (folder / "first-is-there").touch()


def _log(turn: int) -> Interactions:
    rng = np.random.default_rng(turn % 2)
    return Interactions.of(_market(0), rng.integers(40, size=500), rng.integers(60, size=500), rng.random(500))


class Log(_Writers):
    """A log over another one."""

    name = "log"

    def after_a_kill(self, folder: Path) -> None:
        if not (folder / "first-is-there").exists():
            return
        found = Interactions.load(folder / "log", _market(0)).reward.tolist()
        if found not in (_log(0).reward.tolist(), _log(1).reward.tolist()):
            raise Wrong("another log: neither the old nor the new one")


def _save_log(folder: Path, turn: int) -> None:
    _log(turn).save(folder / "log")
    (folder / "first-is-there").touch()


_TEXTS = [f"skill number {number}" for number in range(400)]


class Vectors(_Writers):
    """The cache of an encoder."""

    name = "vectors"

    def after_a_kill(self, folder: Path) -> None:
        right = HashingEncoder(16).encode(_TEXTS)
        if not np.allclose(CachedEncoder(HashingEncoder(16), folder, batch_size=1).encode(_TEXTS), right, atol=1e-6):
            raise Wrong("other vectors: they are not those of the encoder")


def _encode(folder: Path, turn: int) -> None:
    new = [f"{text} of turn {turn}" for text in _TEXTS[:40]]
    CachedEncoder(HashingEncoder(16), folder, batch_size=1).encode([*_TEXTS[: 40 * (turn % 10 + 1)], *new])


class Index(_Writers):
    """The index of a market's jobs."""

    name = "index"
    modules = ("faiss", "jobrec_gym.job_index")

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._right: list[int] | None = None

    def after_a_kill(self, folder: Path) -> None:
        from jobrec_gym.job_index import forget_indexes, open_index

        market = _indexed(folder)
        query = np.asarray(market.applicants.vectors[0], dtype=np.float32)
        found = open_index(market).nearest(query, 10).tolist()
        forget_indexes()
        right = np.argsort(-(np.asarray(market.jobs.vectors) @ query), kind="stable")[:10].tolist()
        if len(set(found) & set(right)) < 8:
            raise Wrong(f"another index: it finds {found}, where {right} are nearest")
        left = [path.name for path in (folder / "market").glob("*.tmp")]
        if len(left) > self.kills:
            raise Wrong(f"left over: {left}")


def _indexed(folder: Path) -> LabourMarket:
    if not (folder / "market" / "market.json").exists():
        load_market("default", n_jobs=2_000, n_applicants=5).save(folder / "market")
    return load_market(folder / "market")


def _index(folder: Path, turn: int) -> None:
    from jobrec_gym.job_index import forget_indexes, index_file, open_index

    market = _indexed(folder)
    file = index_file(market)
    assert file is not None
    open_index(market)
    forget_indexes()
    file.unlink(missing_ok=True)
    open_index(market)
    forget_indexes()


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "save": _save,
    "log": _save_log,
    "vectors": _encode,
    "index": _index,
}
DRILLS: dict[str, tuple[type[Drill], int]] = {
    "train": (Train, 30),
    "sweep": (Sweep, 20),
    "record": (Record, 30),
    "rank": (Rank, 30),
    "save": (Save, 30),
    "log": (Log, 20),
    "vectors": (Vectors, 20),
    "index": (Index, 20),
}
"""What is killed, and how many of 200 kills are of each."""


def sizes(n_kills: int) -> dict[str, list[tuple[int, int]]]:
    """The parts of each drill: the number of a part's first kill, and how many kills the part has."""
    total = sum(share for _, share in DRILLS.values())
    found = {}
    for name, (_, share) in DRILLS.items():
        n = round(n_kills * share / total)
        found[name] = [(start, min(KILLS_A_DRILL, n - start)) for start in range(0, n, KILLS_A_DRILL)]
    return found


@contextmanager
def _nursery(cls: type[Drill], environment: dict[str, str]) -> Iterator[Nursery]:
    nursery = Nursery(["robustness.kills", *cls.modules], environment)
    try:
        yield nursery
    finally:
        nursery.close()


def drill(
    name: str, folder: Path, seed: int, start: int, n_kills: int, environment: dict[str, str]
) -> list[dict[str, Any]]:
    """Some kills of one kind, one after another, and what came of each."""
    cls = DRILLS[name][0]
    environment = {**environment, "XDG_CACHE_HOME": str(folder / "cache"), "NO_COLOR": "1"}
    moments = random.Random(f"{seed} {name} {start}")
    results = []
    made = cls(folder)
    try:
        with _nursery(cls, environment) as nursery:
            right, seconds = None, 3.0
            if cls.ends:
                begun = time.monotonic()
                _whole(made, nursery, _new(folder, "right"))
                right, seconds = made.left(folder / "right"), time.monotonic() - begun
            number, attempt = start, 0
            while number < start + n_kills:
                attempt += 1
                if attempt > 20:
                    raise Wrong("no kill: it always ends before")
                place = _new(folder, f"killed-{attempt}")
                number = _killed(made, nursery, place, moments, seconds, number, start + n_kills, results)
                n_of_it = made.kills
                if cls.ends and n_of_it:
                    _whole(made, nursery, place)
                # Compared even if it ended before its first kill. Otherwise its questions would count for the next one.
                if cls.ends and (unlike := difference(right, made.left(place))):
                    raise Wrong(f"another result after {n_of_it} kills: {unlike}")
                made.kills = 0
    except (Wrong, OSError, ValueError, RuntimeError) as error:
        said = f"{type(error).__name__}: {error}"
        verdict = "wrong" if isinstance(error, Wrong) else "foreign"
        results = results[: n_kills - 1]
        results.append({"number": start, "verdict": verdict, "said": said, "where": str(error)[:60], "edits": None})
    finally:
        made.close()
    return results


def difference(right: Any, found: Any, where: str = "") -> str:
    """Where two results differ first; empty where they do not."""
    if isinstance(right, dict) and isinstance(found, dict) and right.keys() == found.keys():
        parts = [(f"{where}.{key}", right[key], found[key]) for key in right]
    elif isinstance(right, list | tuple) and isinstance(found, list | tuple) and len(right) == len(found):
        parts = [(f"{where}[{number}]", *pair) for number, pair in enumerate(zip(right, found, strict=True))]
    else:
        return "" if right == found or right != right != found else f"{where} is {found!r:.80} and not {right!r:.80}"
    return next(filter(None, (difference(one, other, place) for place, one, other in parts)), "")


def _new(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir()
    return place


def _whole(made: Drill, nursery: Nursery, place: Path) -> None:
    """Lets one run to its end."""
    pid = nursery.begin(made.function, made.words(place), place)
    timer = _killer(pid, _LONGEST)
    code = nursery.ended()
    timer.cancel()
    if code:
        lines = (place / "said.txt").read_text(errors="replace").strip().splitlines()
        raise Wrong(f"no end: it exits with {code}, {lines[-1][:200] if lines else ''}")


def _killed(
    made: Drill, nursery: Nursery, place: Path, moments: random.Random, seconds: float, number: int, stop: int,
    results: list[dict[str, Any]],
) -> int:  # fmt: skip
    """Kills one again and again; returns the number of the next kill."""
    while number < stop:
        pid = nursery.begin(made.function, made.words(place), place)
        timer = _killer(pid, moments.uniform(0.02, 0.7) * seconds)
        code = nursery.ended()
        timer.cancel()
        if code != -signal.SIGKILL:
            if code or not made.ends:
                lines = (place / "said.txt").read_text(errors="replace").strip().splitlines()
                raise Wrong(f"no end: it exits with {code}, {lines[-1][:200] if lines else ''}")
            break  # it was done before
        made.kills += 1
        made.after_a_kill(place)
        results.append({"number": number, "verdict": "read", "said": "", "where": "", "edits": None})
        number += 1
    return number


def _killer(pid: int, seconds: float) -> threading.Timer:
    def kill() -> None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet, or is gone
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    timer = threading.Timer(seconds, kill)
    timer.start()
    return timer
