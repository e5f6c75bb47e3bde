"""The data of a report: finished runs, read once for all sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.runs.careers import is_career
from experiments.runs.folders import Run
from experiments.runs.grouping import mark_of
from experiments.runs.references import mean_references
from experiments.runs.tables import Spread, mean_and_spread

__all__ = ["REFERENCES", "ReportData", "has_values", "is_learner", "last_value", "outcomes_of"]

REFERENCES = ("random", "cosine", "oracle")
"""Policies that learn nothing, and are scored together with each agent."""

_OPPONENTS = ("experiments.learners.opponents.", "experiments.opponents.")  # the latter in runs of an earlier version


@dataclass(frozen=True)
class ReportData:
    """Finished runs that can be compared, by group, with their tables.

    Attributes:
        groups: Runs that differ only by their seeds, by label; at least one group. All are scored on the same held-out
            pairs under the same truth. If each seed has a truth of its own, the groups share these truths.
        metrics: The learning curves of each group's runs, one row for each point.
        progress: The algorithms' own logs of each group's runs; an empty table if a run has none.
        folder: Where figures are written.
        study: What :func:`experiments.pages.sections.study.read_study` found beside the runs; empty if nothing.
    """

    groups: Mapping[str, Sequence[Run]]
    metrics: Mapping[str, Sequence[pd.DataFrame]]
    progress: Mapping[str, Sequence[pd.DataFrame]]
    folder: Path
    study: Mapping[str, Any]

    @classmethod
    def of(
        cls, groups: Mapping[str, Sequence[Run]], folder: Path, study: Mapping[str, Any] | None = None
    ) -> ReportData:
        """Reads the tables of runs, and makes the folder.

        Raises:
            RunError: If a run lacks its learning curve.
        """
        metrics = {label: [run.metrics for run in members] for label, members in groups.items()}
        progress = {label: [run.progress for run in members] for label, members in groups.items()}
        folder.mkdir(parents=True, exist_ok=True)
        return cls(groups, metrics, progress, folder, study or {})

    @property
    def runs(self) -> list[Run]:
        """All runs, group by group."""
        return [run for members in self.groups.values() for run in members]

    @property
    def first(self) -> Run:
        """The first run of the first group."""
        return next(iter(self.groups.values()))[0]

    @property
    def is_career(self) -> bool:
        """Whether answers change the applicants of these runs, so that agents are scored by episodes."""
        return is_career(self.first.config)

    @cached_property
    def truths(self) -> dict[str, list[Run]]:
        """Runs by the pairs and truth of their scores: several entries if seeds have pairs or truths of their own."""
        truths: dict[str, list[Run]] = {}
        for run in self.runs:
            truths.setdefault(mark_of(run.summary["references"]), []).append(run)
        return truths

    @cached_property
    def references(self) -> dict[str, dict[str, float | None]]:
        """Held-out metrics of :data:`REFERENCES` and other policies of these runs, as means over :attr:`truths`."""
        beside = mean_references(run.summary["references"] for run in self.runs)
        order = [*REFERENCES, *(who for who in beside if who not in REFERENCES)]
        return {who: beside[who] for who in order}

    @cached_property
    def held_out(self) -> dict[str, dict[str, Spread | None]]:
        """Held-out metrics of each group, over its seeds."""
        return {
            label: mean_and_spread([run.summary["held_out"] for run in members])
            for label, members in self.groups.items()
        }

    @cached_property
    def learners(self) -> dict[str, float]:
        """Mean score of each group that learns and is scored, the highest first."""
        scores = {
            label: entry[0]
            for label, members in self.groups.items()
            if is_learner(members[0]) and (entry := self.held_out[label].get("score")) is not None
        }
        return dict(sorted(scores.items(), key=lambda item: -item[1]))


def is_learner(run: Run) -> bool:
    """Whether the agent of a run counts as a learner. Random, cosine, oracle and popularity do not."""
    target: str = run.config["algo"]["_target_"]
    return not target.startswith(_OPPONENTS)


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
    """The outcomes of a run's agent (exposure, families, careers); empty in a run of an earlier version."""
    outcomes: Mapping[str, Any] = (run.summary.get("outcomes") or {}).get("agent", {})
    return outcomes
