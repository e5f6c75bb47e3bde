"""``python -m experiments``: every command with one line; ``python -m experiments NAME ...`` runs it."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from jobrec_gym.near_miss import best_match
from jobrec_gym.terminal import output_may_fail

__all__ = ["GROUPS", "main", "purpose_of"]

GROUPS = {
    "Learn and compare, also from a log": (
        *("demo", "app", "train", "evaluate", "coldstart", "career", "rank", "report", "frame"),
        *("learn", "replay", "off_policy"),
    ),
    "Examine a study": (
        "studies.goals",
        "studies.learnable",
        "studies.quadrants",
        "studies.new_applicants",
        "studies.calibration",
        "studies.coverage",
        "studies.judges",
        "studies.career_goals",
        "studies.career_models",
        "studies.career_values",
        "studies.leaderboard",
    ),
    "Simulate applicants with a language model": (
        "llm.demo",
        "llm.check",
        "llm.prior",
        "llm.record",
        "llm.cache",
        "llm.serve",
        "llm.weights",
    ),
    "Make data, and measure speed and memory": (
        "look",
        "make_dataset",
        "make_vectors",
        "benchmark",
        "benchmarks.indexes",
    ),
}
"""Commands by purpose; each is a module of this package."""

_FOLDER = Path(__file__).parent


def main(arguments: Sequence[str]) -> None:
    """Lists the commands, or runs one with the arguments after its name.

    Raises:
        SystemExit: If there is no such command.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        with output_may_fail():
            print(_overview())
        return
    name, *rest = arguments
    known = [command for commands in GROUPS.values() for command in commands]
    if name not in known:
        near = best_match(name, known)
        hint = f" Did you mean {near}?" if near else ""
        raise SystemExit(f"error: there is no command {name!r}.{hint} python -m experiments lists them.")
    sys.argv = [str(_file_of(name)), *rest]
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)


def purpose_of(name: str) -> str:
    """What a command is for: the part after the colon in its module's first line. The module is not imported."""
    documentation = ast.get_docstring(ast.parse(_file_of(name).read_bytes())) or ""
    return documentation.partition("\n")[0].partition(": ")[2].rstrip(".").replace("``", "")


def _file_of(name: str) -> Path:
    return _FOLDER.joinpath(*name.split(".")).with_suffix(".py")


def _overview() -> str:
    width = 2 + max(len(command) for commands in GROUPS.values() for command in commands)
    lines = ["python -m experiments NAME ...   (NAME --help lists its options)"]
    for group, commands in GROUPS.items():
        lines += [group, *(f"  {command:{width}}{purpose_of(command)}" for command in commands)]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
