"""The components of the reward, and the weight of the cosine over time."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.pages.data import ReportData, has_values
from experiments.pages.plots import curves
from experiments.pages.section import Content, Section
from experiments.pages.windows import equal_windows, window_length

__all__ = ["SECTION"]

_WEIGHT = "cosine_weight"
_CURVES = (
    ("online_reward", "mean_reward", "Reward while learning", "reward", "The reward that the agents were paid."),
    (
        "online_cosine",
        "cosine",
        "Component: cosine reward",
        "cosine reward",
        "The cosine reward of the same recommendations, on the scale of each agent's reward (unit: in [0, 1]; "
        "matched: on the scale of feedback). It is known even where it is not paid.",
    ),
    (
        "online_feedback",
        "feedback",
        "Component: feedback reward",
        "feedback reward",
        "The reward of the decisions, where a simulator was asked for one.",
    ),
    ("cosine_weight", _WEIGHT, "Weight of the cosine", "weight", "1: cosine alone; 0: feedback alone."),
)
_FEEDBACK_ALONE = ("FeedbackReward", "LLMReward")
_EXPECTED = "online/cumulative_expected_reward"
_MISSED, _COSINE_MISSED = "online/cumulative_regret", "online/cumulative_cosine_regret"
_EARNED = "cosine"


def _known(data: ReportData) -> list[tuple[str, str, str, str, str]]:
    """The curves that have values."""
    return [curve for curve in _CURVES if has_values(data.metrics, f"online/{curve[1]}")]


def _draw(data: ReportData, known: list[tuple[str, str, str, str, str]]) -> Content:
    length = window_length(data.metrics)
    annealed = any(column == _WEIGHT for _, column, *_ in known)
    figures = []
    for name, key, title, label, caption in known:
        column = f"online/{key}"
        tables = data.metrics if key == _WEIGHT else equal_windows(data.metrics, column, length)
        cosine = _of_the_cosine(data, key, length, column)
        if cosine:
            caption += " Dashed: the highest cosine's expected feedback on the same candidates."
        figures.append(
            curves(
                data.folder,
                name,
                title,
                caption,
                tables,
                "interactions",
                column,
                y_label=label,
                extra={"cosine": cosine} if cosine else None,
                references={"cosine": data.references["cosine"].get("cosine")} if _is_unit(data, key) else None,
            )
        )
    return Content(
        f"Means over windows of {length:,.0f} interactions each, drawn at their ends, exploration included."
        + ("" if annealed else " No reward here is annealed, so there is no weight over time."),
        figures=figures,
    )


def _of_the_cosine(data: ReportData, key: str, length: float, column: str) -> list[pd.DataFrame]:
    """The expected feedback on the job of highest cosine, if the curve shows only feedback by the truth; else none."""
    configs = [members[0].config for members in data.groups.values()]
    feedback_is_true = all(config["evaluation"]["simulator"] is None for config in configs)
    paid_alone = all(_reward(config).removeprefix("Vector") in _FEEDBACK_ALONE for config in configs)
    if not feedback_is_true or not (key == "feedback" or (key == "mean_reward" and paid_alone)):
        return []
    earned = {
        label: [
            table.assign(**{_EARNED: table[_EXPECTED] + table[_MISSED] - table[_COSINE_MISSED]})
            for table in tables
            if _COSINE_MISSED in table
        ]
        for label, tables in data.metrics.items()
    }
    windows = equal_windows(earned, _EARNED, length, sums=True)
    return [table.rename(columns={_EARNED: column}) for tables in windows.values() for table in tables]


def _is_unit(data: ReportData, key: str) -> bool:
    """Whether a curve shows cosines on the same scale as the held-out figures."""
    rewards: list[dict[str, Any]] = [members[0].config["reward"] for members in data.groups.values()]
    scales = {reward.get("scale", reward.get("cosine_scale")) for reward in rewards}
    return key == "cosine" and scales <= {None, "unit"}


def _reward(config: dict[str, Any]) -> str:
    target: str = config["reward"]["_target_"] or ""
    return target.rpartition(".")[2]


SECTION = Section(
    "reward",
    "What the reward is made of",
    40,
    needs=_known,
    draw=_draw,
)
