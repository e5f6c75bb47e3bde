"""Time until the environment is ready in a fresh process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from experiments.benchmarks.rows import Row

__all__ = ["startup_rows"]

_OURS = "import gymnasium, jobrec_gym; gymnasium.make('JobRec-v0').reset(seed=0)"
_CARTPOLE = "import gymnasium; gymnasium.make('CartPole-v1').reset(seed=0)"
_IMPORT = "import gymnasium, jobrec_gym"
_GYMNASIUM = "import gymnasium"


def startup_rows(rounds: int) -> Iterator[Row]:
    """Times whole processes by turns, with all modules compiled as in an installed package; the median counts."""
    with tempfile.TemporaryDirectory() as bytecode:
        ratios, ours, theirs = _in_turn(_OURS, _CARTPOLE, rounds, bytecode)
        _, own_imports, imports = _in_turn(_IMPORT, _GYMNASIUM, rounds, bytecode)
    yield Row(
        'gym.make("JobRec-v0") and reset, fresh process',
        statistics.median(ratios),
        "x",
        "CartPole-v1's",
        1.5,
        "at most",
        {"seconds": min(ours), "seconds_of_cartpole": min(theirs)},
    )
    more = statistics.median(mine - other for mine, other in zip(own_imports, imports, strict=True))
    details = {"seconds": min(imports)}
    yield Row("import jobrec_gym adds", 1e3 * more, "ms", "import gymnasium", 50.0, "at most", details)


def _in_turn(left: str, right: str, rounds: int, bytecode: str) -> tuple[list[float], list[float], list[float]]:
    for code in (left, right):  # each runs once before, to compile modules that are not compiled yet
        _seconds(code, bytecode)
    pairs = [(_seconds(left, bytecode), _seconds(right, bytecode)) for _ in range(rounds)]
    return [a / b for a, b in pairs], [a for a, _ in pairs], [b for _, b in pairs]


def _seconds(code: str, bytecode: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return time.perf_counter() - begin
