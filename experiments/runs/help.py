"""The text that a command prints for ``--help``: its purpose, its groups of options, and its config with comments."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import yaml

__all__ = ["GROUPS", "asks_for_help", "help_of"]

GROUPS = {
    "env": "how many jobs are shown, and which",
    "market": "which jobs and which applicants",
    "reward": "what an agent is rewarded for",
    "simulator": "who answers the recommendations, and by which truth agents are scored",
    "algo": "who learns",
    "setting": "a market, a truth and what is shown of a pair, under one name",
    "experiment": "several options under one name",
    "preset": "a whole study under one name",
    "launcher": "where the runs of a sweep are made",
    "sweeper": "which runs a sweep makes",
    "tracker": "a tracker that also gets the run; none by default",
}
"""The purpose of each group of ``conf/``. A command has some of them."""

_WIDTH = 110


def asks_for_help(arguments: list[str]) -> bool:
    """Whether a command line asks for help."""
    return any(argument in ("-h", "--help") for argument in arguments)


def help_of(config: Path) -> str:
    """The text for ``--help``, from the command's config file: its top comment, its groups, and its entries.

    Args:
        config: The file.
    """
    lines = config.read_text(encoding="utf-8").splitlines()
    top = [line.removeprefix("#").removeprefix(" ") for line in lines[: _first(lines, r"[^#]")]]
    defaults = yaml.safe_load("\n".join(lines)).get("defaults", [])
    groups = [name for entry in defaults if isinstance(entry, dict) for name in entry if " " not in name]
    begin = _first(lines, r"defaults:") + 1
    begin += _first(lines[begin:], r"\S")  # entries begin after the list of defaults, which is indented
    entries = "\n".join(lines[begin : _first(lines, r"hydra:")]).strip()
    parts = ["\n".join(top)]
    if groups:
        parts.append("== Groups ==  group=option\n" + "\n".join(_group(config.parent, name) for name in groups))
    parts.append(f"== Config ==  entry=value\n{entries}")
    told = ["--cfg job prints the whole config, with what the groups add.", "debug=true shows the whole error."]
    if "sweeper" in groups:
        told.insert(0, "-m makes a run of each combination: -m seed=0,1,2 algo=dynaq,dynaq_plus.")
    return "\n\n".join([*parts, "\n".join(told)])


def _group(folder: Path, name: str) -> str:
    options = sorted(path.stem for path in (folder / name).glob("*.yaml"))
    said = f"{name:<11}{GROUPS[name]}"
    indent = " " * 13
    return f"  {said}\n{textwrap.fill(', '.join(options), _WIDTH, initial_indent=indent, subsequent_indent=indent)}"


def _first(lines: list[str], pattern: str) -> int:
    """Number of the first line that begins with a pattern, or the number of lines if none does."""
    return next((number for number, line in enumerate(lines) if re.match(pattern, line)), len(lines))
