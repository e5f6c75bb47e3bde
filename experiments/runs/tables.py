"""Tables of numbers as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jobrec_gym.shown_text import as_text

__all__ = [
    "CAREER_COLUMNS",
    "COLUMNS",
    "Spread",
    "Table",
    "about_spread",
    "columns_of",
    "format_number",
    "format_table",
    "held_out_table",
    "markdown_table",
    "mean_and_spread",
    "with_references",
]

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""

Spread = tuple[float, float, int]
"""Mean, standard deviation over seeds, and how many seeds."""

COLUMNS = {
    "score": "score",
    "mean_reward": "mean reward",
    "apply_rate": "apply rate",
    "ndcg@10": "nDCG@10",
    "mrr": "MRR",
    "hit_rate@1": "hit@1",
    "hit_rate@5": "hit@5",
    "hit_rate@10": "hit@10",
    "discounted_return": "return",
    "regret": "regret",
    "cosine": "cosine",
    "coverage": "coverage",
    "gini": "Gini",
    "congestion": "congestion",
}
"""Metrics on held-out applicants, with their names in a table."""

CAREER_COLUMNS = {
    "score": "share of best",
    "return": "return",
    **{f"reached_{level}": f"reach level {level}" for level in range(2, 6)},
    "left": "left",
    "left_after": "left after",
    "steps": "steps",
}
"""Metrics of ``JobRecCareer-v0``, where agents are evaluated by episodes, with their names in a table."""

_WIDEST = 300

_MAIN_COLUMNS = ("score", "mean_reward", "apply_rate", "ndcg@10", "mrr", "hit_rate@1", "discounted_return")


def columns_of(metrics: Mapping[str, Any], main: bool = False) -> Mapping[str, str]:
    """Names of the columns of a table, by metric.

    Args:
        metrics: The metrics of one agent.
        main: Whether only the most important columns are wanted.
    """
    if "mean_reward" not in metrics:
        return CAREER_COLUMNS
    return {name: COLUMNS[name] for name in _MAIN_COLUMNS} if main else COLUMNS


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table as text. The first `left` columns are aligned left, the others right.

    Each cell is shown on one line, see :func:`jobrec_gym.shown_text.as_text`.
    """
    header, rows = (
        [as_text(cell, _WIDEST) for cell in header],
        [[as_text(cell, _WIDEST) for cell in line] for line in rows],
    )
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows])


def held_out_table(
    agents: Mapping[str, Mapping[str, float | Spread | None]],
    references: Mapping[str, Mapping[str, float | None]],
    columns: Mapping[str, str] | None = None,
    who: str = "held-out applicants",
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the metrics of some agents, and below them of policies that learn nothing.

    Args:
        agents: Metrics by the name of the agent, all of one kind; at least one agent.
        references: Metrics by the name of the policy. A policy with the same name as an agent has a row too, if the two
            rows differ.
        columns: Names of the columns by metric; by default those of :func:`columns_of`.
        who: Whose metrics they are, in words.
    """
    shown = columns_of(next(iter(agents.values()))) if columns is None else columns
    rows, beside = (
        [[name, *(format_number(metrics.get(key)) for key in shown)] for name, metrics in kind.items()]
        for kind in (agents, references)
    )
    return [who, *shown.values()], with_references(rows, beside)


def with_references(rows: list[list[str]], references: list[list[str]]) -> list[list[str]]:
    """Rows of agents, and below them those of policies that learn nothing, without rows that equal one of an agent."""
    return [*rows, *(row for row in references if row not in rows)]


def mean_and_spread(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, Spread | None]:
    """Mean and sample standard deviation of each metric over runs; ``None`` for a metric that a run lacks."""
    result: dict[str, Spread | None] = {}
    for key in metrics[0]:
        values = [run.get(key) for run in metrics]
        known = np.array([value for value in values if value is not None])
        spread = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        result[key] = (float(known.mean()), spread, len(known)) if len(known) == len(values) else None
    return result


def about_spread(rows: Sequence[Sequence[str]]) -> str:
    """A sentence about the numbers of :func:`format_number` in a table: that they are means, or of one seed each."""
    is_spread = any("±" in cell for row in rows for cell in row)
    return "Mean over seeds ± one standard deviation." if is_spread else "One seed each."


def format_number(value: float | Spread | None) -> str:
    """A number, or a mean and its standard deviation, to three places; "-" for ``None``."""
    if value is None:
        return "-"
    if isinstance(value, tuple):
        mean, spread, n = value
        return f"{mean:.3f}" if n < 2 else f"{mean:.3f} ± {spread:.3f}"
    return f"{value:.3f}"
