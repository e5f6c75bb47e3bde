"""Prints a table of the runs of a sweep when the sweep ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from experiments.runs.arguments import as_typed
from experiments.runs.folders import RunError, find_runs, unfinished_runs
from experiments.runs.grouping import group_runs, like_with_like
from experiments.runs.references import mean_references
from experiments.runs.tables import columns_of, format_table, held_out_table, mean_and_spread

__all__ = ["NoteSweep", "in_words", "tell_sweep"]

_under_way: list[Path] = []
"""The folder of this process's sweep; empty after its table was printed."""


class NoteSweep(Callback):
    """Notes the folder of a sweep when it begins, for :func:`tell_sweep`. It works with every launcher."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Called by Hydra before a sweep."""
        _under_way[:] = [Path(config.hydra.sweep.dir)]


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
