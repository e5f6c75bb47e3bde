"""What a report is drawn from: finished runs, read once for all sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.runs.folders import Run
from experiments.runs.grouping import group_runs
from experiments.runs.tables import Spread, mean_and_spread

__all__ = ["REFERENCES", "ReportData", "has_values", "last_value", "outcomes_of"]

REFERENCES = ("random", "cosine", "oracle")
"""Who learns nothing and is scored beside each agent."""


@dataclass(frozen=True)
class ReportData:
    """Finished runs by group, with their tables.

    Attributes:
        groups: Runs that differ by their seeds alone, by label; at least one group.
        metrics: The learning curves of each group's runs, one row a point.
        progress: The algorithms' own logs of each group's runs; empty tables where none was written.
        folder: Where figures are written.
        study: What :func:`experiments.pages.sections.study.read_study` found beside the runs; empty if nothing.
    """

    groups: Mapping[str, Sequence[Run]]
    metrics: Mapping[str, Sequence[pd.DataFrame]]
    progress: Mapping[str, Sequence[pd.DataFrame]]
    folder: Path
    study: Mapping[str, Any]

    @classmethod
    def of(cls, runs: Sequence[Run], folder: Path, study: Mapping[str, Any] | None = None) -> ReportData:
        """Groups runs and reads their tables.

        Raises:
            RunError: If a run lacks its learning curve.
        """
        groups = group_runs(runs)
        metrics = {label: [run.metrics for run in members] for label, members in groups.items()}
        progress = {label: [run.progress for run in members] for label, members in groups.items()}
        return cls(groups, metrics, progress, folder, study or {})

    @property
    def runs(self) -> list[Run]:
        """All runs, group by group."""
        return [run for members in self.groups.values() for run in members]

    @property
    def first(self) -> Run:
        """The run whose references stand for those of all."""
        return next(iter(self.groups.values()))[0]

    @property
    def references(self) -> Mapping[str, Mapping[str, float | None]]:
        """Held-out metrics of :data:`REFERENCES`."""
        references: Mapping[str, Mapping[str, float | None]] = self.first.summary["references"]
        return references

    @cached_property
    def held_out(self) -> dict[str, dict[str, Spread | None]]:
        """Held-out metrics of each group, over its seeds."""
        return {
            label: mean_and_spread([run.summary["held_out"] for run in members])
            for label, members in self.groups.items()
        }


def has_values(tables: Mapping[str, Sequence[pd.DataFrame]], *columns: str) -> bool:
    """Whether any run has a value in any of some columns."""
    return any(
        column in table and table[column].notna().any()
        for runs in tables.values()
        for table in runs
        for column in columns
    )


def last_value(table: pd.DataFrame, column: str) -> float | None:
    """The last known value of a column."""
    known = table[column].dropna() if column in table else pd.Series(dtype=float)
    return float(known.iloc[-1]) if len(known) else None


def outcomes_of(run: Run) -> Mapping[str, Any]:
    """Who got what from the agent of a run; empty in a run of an earlier version."""
    outcomes: Mapping[str, Any] = (run.summary.get("outcomes") or {}).get("agent", {})
    return outcomes
