"""Careers: one applicant's career before and after learning, and the levels that all held-out applicants reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.pages.data import ReportData, outcomes_of
from experiments.pages.plots import level_paths
from experiments.pages.section import Content, Section, Table
from experiments.runs.tables import with_references
from jobrec_gym.shown_text import as_text

__all__ = ["SECTION"]

_MOST_AGENTS = 4
_BEFORE = "before learning"
_REFERENCES = ("cosine", "oracle")

Example = Mapping[str, Any]


def _careers(data: ReportData) -> dict[str, Example]:
    """The example career of the first run of each group; none if answers do not change applicants."""
    return {
        label: example
        for label, members in data.groups.items()
        if data.is_career and (example := members[0].summary.get("example"))
    }


def _draw(data: ReportData, careers: Mapping[str, Example]) -> Content:
    first = next(iter(careers))
    person = careers[first]["applicant"]
    title = as_text(str(person["title"])) or "an applicant"
    alike = [label for label in careers if careers[label]["applicant"] == person][:_MOST_AGENTS]
    paths = {_BEFORE: careers[first]["before"], **{label: careers[label]["after"] for label in alike}}
    paths |= {who: careers[first][who] for who in _REFERENCES if who not in paths}  # an agent may be called cosine
    drawn = {
        label: (path["levels"], path["left"]) for label, path in paths.items() if path and path["levels"] is not None
    }
    figure = level_paths(
        data.folder,
        "career",
        "One applicant's level over time",
        f"{title[:1].upper()}{title[1:]}, whom the agents never met. A cross is where the applicant leaves. Every "
        f"agent is that of its first seed. The line “{_BEFORE}” shows {first}. One episode is an example, not "
        "evidence.",
        drawn,
        behind=(_BEFORE,),
        groups=list(data.groups),
    )
    rows = _rows(data)
    header = ["highest level", *(str(level) for level in range(1, 6)), *_left_header(data)]
    table = Table(
        header,
        rows,
        "Shares of the held-out applicants, means over seeds. Columns 1 to 5: applicants with this highest level. "
        "Columns “left by”: applicants who had left after this number of steps. The rows of choices that learn nothing "
        "are of the first seed.",
        n_agents=len(data.groups),
    )
    return Content(
        "Answers move the applicant. By default three interested answers to jobs one level up lift the level, and a "
        "higher level pays more. An applicant who ignores too many jobs leaves. So what counts is how far an agent "
        "brings an applicant.",
        [table] if rows else [],
        [figure],
    )


def _rows(data: ReportData) -> list[list[str]]:
    kept: dict[str, list[Mapping[str, Any]]] = {
        label: [part for run in members if (part := outcomes_of(run).get("careers"))]
        for label, members in data.groups.items()
    }
    beside = data.first.summary.get("outcomes") or {}
    known = {who: [part["careers"]] for who, part in beside.items() if who != "agent" and "careers" in part}
    rows, others = (
        [
            [label, *_cells([part["levels"] or [None] * 5 for part in parts]), *_cells([_gone(part) for part in parts])]
            for label, parts in kind.items()
            if parts
        ]
        for kind in (kept, known)
    )
    return with_references(rows, others)


def _left_header(data: ReportData) -> list[str]:
    return [f"left by {steps}" for steps in outcomes_of(data.first).get("careers", {}).get("left_by", {})]


def _gone(part: Mapping[str, Any]) -> list[float]:
    return list(part["left_by"].values())


def _cells(rows: list[list[Any]]) -> list[str]:
    """Means of columns over rows as texts; "-" for unknown ones."""
    if rows[0][0] is None:
        return ["-"] * len(rows[0])
    return [f"{value:.1%}" for value in np.mean(rows, axis=0)]


SECTION = Section(
    "careers",
    "Careers",
    6,
    needs=_careers,
    draw=_draw,
)
