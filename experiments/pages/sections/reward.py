"""What the reward is made of: its components, and the weight of the cosine over time."""

from __future__ import annotations

from experiments.pages.data import ReportData, has_values
from experiments.pages.plots import curves
from experiments.pages.section import Content, Section

__all__ = ["SECTION"]

_CURVES = (
    ("online_reward", "mean_reward", "Reward while learning", "reward", "What agents were paid."),
    (
        "online_cosine",
        "cosine",
        "Component: cosine reward",
        "cosine reward",
        "Of the same recommendations, on the scale of each agent's reward (unit: in [0, 1]; matched: on that of "
        "feedback). Known whether or not it is paid.",
    ),
    (
        "online_feedback",
        "feedback",
        "Component: feedback reward",
        "feedback reward",
        "What the decisions were worth, where somebody was asked.",
    ),
    ("cosine_weight", "cosine_weight", "Weight of the cosine", "weight", "1: cosine alone; 0: feedback alone."),
)


def _known(data: ReportData) -> list[tuple[str, str, str, str, str]]:
    """The curves that there are values for."""
    return [curve for curve in _CURVES if has_values(data.metrics, f"online/{curve[1]}")]


def _draw(data: ReportData, known: list[tuple[str, str, str, str, str]]) -> Content:
    annealed = any(column == "cosine_weight" for _, column, *_ in known)
    return Content(
        "Means since the point before, exploration included."
        + ("" if annealed else " No reward here is annealed, so there is no weight over time."),
        figures=[
            curves(data.folder, name, title, caption, data.metrics, "interactions", f"online/{column}", y_label=label)
            for name, column, title, label, caption in known
        ],
    )


SECTION = Section(
    "reward",
    "What the reward is made of",
    40,
    needs=_known,
    draw=_draw,
)
