"""Which jobs are recommended: coverage, exposure and congestion."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from experiments.pages.data import REFERENCES, ReportData, outcomes_of
from experiments.pages.plots import lorenz_curves
from experiments.pages.section import Content, Section, Table
from experiments.runs.tables import COLUMNS, format_number, with_references
from jobrec_gym.shown_text import as_text

__all__ = ["SECTION"]

_EXPOSURE = ("coverage", "gini", "congestion")
_SHOWN_JOBS, _JOB_ROWS = 5, 20  # largest numbers of jobs: of one agent, and of all agents together


class _Found(NamedTuple):
    rows: list[list[str]]  # the name and the metrics of each agent, then of each reference, as texts
    exposures: dict[str, list[dict[str, Any]]]  # for each group the exposure of jobs by each run that kept it


def _found(data: ReportData) -> _Found | None:
    """Metrics and exposures; ``None`` if neither says which jobs any agent recommends."""
    exposures = {
        label: [part for run in members if (part := outcomes_of(run).get("exposure"))]
        for label, members in data.groups.items()
    }
    exposures = {label: parts for label, parts in exposures.items() if parts}
    rows, beside = (
        [[label, *(format_number(entry.get(key)) for key in _EXPOSURE)] for label, entry in kind.items()]
        for kind in (data.held_out, data.references)
    )
    if not exposures and all(cell == "-" for row in rows for cell in row[1:]):
        return None
    return _Found(with_references(rows, beside), exposures)


def _draw(data: ReportData, found: _Found) -> Content:
    exposures = found.exposures
    tables = [
        Table(
            ["agent", *(COLUMNS[key] for key in _EXPOSURE)],
            found.rows,
            "Coverage: share of the jobs that are recommended at all. Gini: 0 where all jobs are recommended equally "
            "often, near 1 where always the same job is. Congestion: the chance that two recommendations are of the "
            "same job, which makes two applicants rivals. The row of the random choice shows how uneven chance alone "
            "is.",
            n_agents=len(data.groups),
        )
    ]
    n_jobs = min(_SHOWN_JOBS, max(1, _JOB_ROWS // len(data.groups)))
    most = [
        [label, str(place), as_text(str(job["title"])), as_text(str(job["key"])), f"{job['share']:.1%}"]
        for label, parts in exposures.items()
        for place, job in enumerate(parts[0]["most_recommended"][:n_jobs], start=1)
    ]
    if most:
        note = "The jobs that the first seed of each agent recommends most often."
        tables.append(Table(["agent", "place", "job", "key", "share of recommendations"], most, note, n_words=4))
    shares = {label: np.mean([part["lorenz"] for part in parts], axis=0) for label, parts in exposures.items()}
    for who in [who for who in REFERENCES if who not in shares] if shares else ():
        if curves := _lorenz_of_reference(data, who):
            shares[who] = np.mean(curves, axis=0)
    figure = lorenz_curves(
        data.folder,
        "exposure",
        "Exposure of jobs",
        "Lorenz curves: the share of all recommendations that the least recommended jobs get. The further below the "
        "straight line, the fewer jobs get most of them. Mean over seeds.",
        shares,
        list(data.groups),
    )
    words = "How often each job is the greedy choice on the held-out pairs."
    if not shares:
        words += " Runs of an earlier version kept no exposure. experiments.train resume=false trains them again."
    return Content(words, tables, [figure])


def _lorenz_of_reference(data: ReportData, who: str) -> list[list[float]]:
    """The Lorenz curves of a policy that learns nothing: one of each truth, from a run that kept it."""
    found = []
    for runs in data.truths.values():
        kept = [part for run in runs if (part := (run.summary.get("outcomes") or {}).get(who))]
        found += [part["exposure"]["lorenz"] for part in kept[:1]]
    return found


SECTION = Section(
    "jobs",
    "Which jobs are recommended",
    80,
    needs=_found,
    draw=_draw,
)
