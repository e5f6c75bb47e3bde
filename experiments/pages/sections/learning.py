"""Learning curves on applicants that an agent never meets while learning."""

from __future__ import annotations

from experiments.pages.data import ReportData, has_values
from experiments.pages.plots import curves
from experiments.pages.section import Content, Section

__all__ = ["SECTION"]

_SHARE = ("held_out_score", "score", "share of best", "Earnings of the greedy agent, as a share of the best policy's.")
_CURVES = (
    ("held_out_score", "score", "score", "Where the greedy choice stands between random (0) and the oracle (1)."),
    ("held_out_ndcg", "ndcg@10", "nDCG@10", "How good the first ten places of the agent's ranking are."),
    ("held_out_apply_rate", "apply_rate", "apply rate", "Share of greedy choices that the applicant would apply to."),
)


def _known(data: ReportData) -> list[tuple[str, str, str, str]]:
    """The curves that have values."""
    wanted = (_SHARE,) if data.is_career else _CURVES
    return [curve for curve in wanted if has_values(data.metrics, f"held_out/{curve[1]}")]


def _draw(data: ReportData, known: list[tuple[str, str, str, str]]) -> Content:
    return Content(
        "How good the greedy agent is on applicants that it never meets while learning, by the number of "
        "recommendations that it has learned from. The axes fit the curves and the highest cosine. A reference beyond "
        "them is written as a number.",
        figures=[
            curves(
                data.folder,
                name,
                f"Held out: {title}",
                caption,
                data.metrics,
                "interactions",
                f"held_out/{key}",
                y_label=title,
                references={who: metrics.get(key) for who, metrics in data.references.items()},
            )
            for name, key, title, caption in known
        ],
    )


SECTION = Section(
    "learning",
    "Learning curves",
    10,
    needs=_known,
    draw=_draw,
)
