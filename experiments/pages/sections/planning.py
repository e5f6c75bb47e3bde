"""Planning: each agent that plans, compared with one that is equal but does not plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.pages.data import ReportData, last_value
from experiments.pages.plots import curves
from experiments.pages.section import Content, Section, Table
from experiments.pages.verdicts import against
from experiments.runs.folders import HOW_KEYS, Run, flat_config
from experiments.runs.tables import format_number, mean_and_spread

__all__ = ["SECTION"]

_HEADER = (
    "agent",
    "planning steps",
    "direct updates",
    "planning updates",
    "score",
    "without planning",
    "difference",
)
_CURVES = (
    ("td_loss", "Q-network: direct updates", "On rewards that were paid.", "train/loss"),
    (
        "planning_loss",
        "Q-network: planning updates",
        "On rewards that the world model imagined.",
        "train/planning_loss",
    ),
)


def _planners(data: ReportData) -> dict[str, Sequence[Run]]:
    """The groups whose configs have planning steps."""
    return {label: members for label, members in data.groups.items() if _planning_steps(members)}


def _draw(data: ReportData, planners: Mapping[str, Sequence[Run]]) -> Content:
    twins = {label: _without_planning(data, members) for label, members in planners.items()}
    words = (
        "Each row compares an agent with one that is equal but does not plan, seed by seed."
        if any(twins.values())
        else "No agent here has a twin without planning, so these runs cannot show the effect of planning. Add "
        "algo.planning_steps=0,5 to the sweep, or algo=dynaq,dynaq_noplan at equal numbers of updates."
    )
    rows = [_row(data, label, twin) for label in planners for twin in twins[label] or [""]]
    return Content(
        words,
        [Table(_HEADER, rows)],
        [
            curves(
                data.folder,
                name,
                title,
                caption,
                data.progress,
                "time/total_timesteps",
                column,
                y_label="squared TD error",
                log=True,
            )
            for name, title, caption, column in _CURVES
        ],
    )


def _row(data: ReportData, label: str, twin: str) -> list[str]:
    """The row of an agent that plans, and of its twin that does not; ``twin`` is ``""`` if there is none."""
    members = data.groups[label]
    updates = [
        mean_and_spread([{"value": last_value(table, column)} for table in data.progress[label]])["value"]
        for column in ("train/n_updates", "train/planning_updates")
    ]
    difference = against(members, data.groups[twin] if twin else [])
    return [
        label,
        str(_planning_steps(members)),
        *("-" if entry is None else f"{entry[0]:,.0f}" for entry in updates),
        format_number(data.held_out[label]["score"]),
        twin or "-",
        f"{difference.mean:+.3f}" if difference.n_seeds else "-",
    ]


def _planning_steps(members: Sequence[Run]) -> int:
    """Planning steps in the config of a group; 0 if it has no such entry, as for dynaq_plus, which plans without it."""
    return members[0].config["algo"].get("planning_steps") or 0


def _without_planning(data: ReportData, members: Sequence[Run]) -> list[str]:
    """Labels of the groups that are equal to this one but do not plan; they may have other ``gradient_steps``."""
    differ = ("algo.planning_steps", "algo.gradient_steps")

    def rest(run: Run) -> dict[str, Any]:
        return {
            key: value
            for key, value in flat_config(run.config).items()
            if key not in differ and key.rpartition(".")[2] != "seed" and key.partition(".")[0] not in HOW_KEYS
        }

    return [
        label
        for label, others in data.groups.items()
        if others[0].config["algo"].get("planning_steps") == 0 and rest(others[0]) == rest(members[0])
    ]


SECTION = Section(
    "planning",
    "Planning",
    60,
    needs=_planners,
    draw=_draw,
    without="No agent here has algo.planning_steps above 0 in its config, so no effect of planning steps can be shown. "
    "dynaq_plus plans without this entry.",
)
