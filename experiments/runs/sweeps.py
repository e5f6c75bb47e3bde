"""Finds the folders of a sweep's earlier runs when it begins, and prints a table of its runs when it ends."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from experiments.runs.arguments import as_typed
from experiments.runs.folders import (
    HYDRAS,
    WHERE_KEYS,
    RunError,
    file_of_sqlite,
    find_runs,
    folder_name,
    lock_run,
    unfinished_runs,
)
from experiments.runs.grouping import group_runs, like_with_like
from experiments.runs.references import mean_references
from experiments.runs.tables import columns_of, format_table, held_out_table, mean_and_spread

__all__ = ["NoteSweep", "in_words", "move_earlier", "tell_sweep"]

_EARLIER_RULE = "${run_folder:${hydra.job.override_dirname}}"
_CHECKSUM = re.compile(r"-[0-9a-f]{8}")  # at the end of every name that the earlier rule made otherwise

_under_way: list[Path] = []
"""The folder of this process's sweep; empty after its table was printed."""


class NoteSweep(Callback):
    """When a sweep begins, notes its folder for :func:`tell_sweep`, and moves runs (:func:`move_earlier`).

    It also makes the folder of a sweeper's database. It works with every launcher.
    """

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Called by Hydra before a sweep."""
        folder = Path(config.hydra.sweep.dir)
        _under_way[:] = [folder]
        move_earlier(folder)
        database = file_of_sqlite(OmegaConf.select(config, "hydra.sweeper.storage"))
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)


def move_earlier(sweep: Path) -> None:
    """Moves runs into the folders in which this version looks for them, and prints a line about each.

    Earlier versions divided values such as ``name="wide, lr=1"`` at the comma, so the folder of the run had ``lr=1`` in
    its name. A run stays where it is if another run is in its new folder, or if a process is in its own folder.
    """
    for file in sorted(sweep.glob(f"*/{HYDRAS}/hydra.yaml")):
        folder = file.parents[1]
        try:
            if not _CHECKSUM.fullmatch(folder.name[-9:]) or _EARLIER_RULE not in file.read_text(encoding="utf-8"):
                continue
            overrides = yaml.safe_load(file.with_name("overrides.yaml").read_text(encoding="utf-8"))
            place = sweep / folder_name(overrides, exclude=WHERE_KEYS)
            if not place.exists():
                with lock_run(folder):
                    folder.rename(place)
                print(f"{folder} is now {place}: names of runs have no part in names of folders.", file=sys.stderr)
        except (AttributeError, OSError, RunError, TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
            print(f"{folder} stays where it is, so this sweep makes its run again: {error}", file=sys.stderr)


def tell_sweep() -> None:
    """Prints the table of this process's sweep, if there was one, even if some of its runs failed."""
    while _under_way:
        folder = _under_way.pop()
        print(f"\n{in_words(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)}")


def in_words(folder: Path) -> str:
    """Tables of the finished runs of a sweep with random, cosine and the oracle, and the command for their report.

    Runs of different tasks are in separate tables. If each seed has pairs or a truth of its own, the figures of random,
    cosine and the oracle are means over the seeds.
    """
    try:
        runs = [run for run in find_runs(folder, "runs") if "held_out" in run.summary]
    except RunError:
        return f"no run of {folder} is finished"
    parts = []
    for comparison in like_with_like(group_runs(runs)):
        agents: dict[str, Any] = {}
        for label, members in comparison.groups.items():
            n = len(members)
            agents[f"{label}, {n} run{'s' if n > 1 else ''}"] = mean_and_spread(
                [run.summary["held_out"] for run in members]
            )
        compared = [run.summary for members in comparison.groups.values() for run in members]
        references = mean_references(summary["references"] for summary in compared)
        columns = columns_of(compared[0]["held_out"], main=True)
        table = format_table(*held_out_table(agents, references, columns))
        parts.append(f"{comparison.name}\n{table}" if comparison.name else table)
    told = [unfinished_runs(folder, len(runs)), f"report  python -m experiments.report {as_typed('runs', folder)}"]
    return "\n\n".join([*parts, "\n".join(filter(None, told))])
