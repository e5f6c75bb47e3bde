"""The questions to a language model, their cost, and the reward of a decision."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from experiments.pages.data import REFERENCES, ReportData
from experiments.pages.plots import curves
from experiments.pages.section import Content, Section, Table
from experiments.runs.tables import format_number, mean_and_spread

__all__ = ["SECTION"]

_HEADER = (
    "agent",
    "decisions",
    "calls",
    "known before",
    "no answer",
    "tokens",
    "dollars",
    "expected reward / decision",
)
_DECISIONS_ASKED = "decisions asked"
_EARNED, _SCORE = "online/cumulative_expected_reward", "held_out/score"
_MISSED, _COSINE_MISSED = "online/cumulative_regret", "online/cumulative_cosine_regret"
_CURVES = (
    (
        "reward_by_decision",
        _EARNED,
        "Expected reward by feedback asked",
        "expected reward, sum",
        "Sum of the expected reward while learning, by the number of decisions asked for. The slope is what one "
        "decision brings. Dashed: what the highest cosine would have earned.",
    ),
    (
        "score_by_decision",
        _SCORE,
        "Score by feedback asked",
        "score",
        "Held-out score by the number of decisions asked for. Decisions that were known before are included.",
    ),
)


def _draw(data: ReportData, rows: list[list[str]]) -> Content:
    asked = {label: [_with_asked(table) for table in tables] for label, tables in data.metrics.items()}
    scores = {who: data.references[who].get("score") for who in REFERENCES}
    nearest = [
        table.assign(**{_EARNED: table[_EARNED] + table[_MISSED] - table[_COSINE_MISSED]})
        for tables in asked.values()
        for table in tables
        if _COSINE_MISSED in table
    ]
    return Content(
        "How often a run asked the language model, mean over seeds. A decision that was known before costs nothing.",
        [Table(_HEADER, rows)],
        [
            curves(
                data.folder,
                name,
                title,
                caption,
                asked,
                _DECISIONS_ASKED,
                column,
                y_label=label,
                x_label=_DECISIONS_ASKED,
                references=scores if column == _SCORE else None,
                extra={"cosine": nearest} if column == _EARNED and nearest else None,
            )
            for name, column, title, label, caption in _CURVES
        ],
    )


def _rows(data: ReportData) -> list[list[str]]:
    """Rows of the agents for which a language model was asked."""
    rows = []
    for label, members in data.groups.items():
        if any(run.summary.get("feedback") is None for run in members):
            continue
        entry = mean_and_spread([_asked(run.summary["feedback"], run.summary["online"]) for run in members])
        if entry["decisions"] is None or not entry["decisions"][0]:
            continue
        whole = [
            f"{part[0]:,.0f}"
            for name in ("decisions", "calls", "cache_hits", "failures", "tokens")
            if (part := entry[name]) is not None
        ]
        rows.append([label, *whole, format_number(entry["cost_usd"]), format_number(entry["reward"])])
    return rows


def _asked(feedback: Mapping[str, float], online: Mapping[str, float]) -> dict[str, float | None]:
    earned = online.get("cumulative_expected_reward")  # not known if answers change the applicant
    return {**feedback, "reward": None if earned is None else earned / max(feedback["decisions"], 1)}


def _with_asked(table: pd.DataFrame) -> pd.DataFrame:
    """Adds a column with the number of decisions asked of a language model, if any were."""
    if "feedback/decisions" not in table or not table["feedback/decisions"].any():
        return table
    return table.assign(**{_DECISIONS_ASKED: table["feedback/decisions"]})


SECTION = Section(
    "language-model",
    "Feedback of a language model",
    70,
    needs=_rows,
    draw=_draw,
    without="No language model was asked: these runs cost no calls and no dollars.",
)
