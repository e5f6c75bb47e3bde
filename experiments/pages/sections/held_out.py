"""The greedy agents on held-out applicants, compared with policies that learn nothing, and scored by every signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.pages.data import ReportData
from experiments.pages.section import Content, Section, Table
from experiments.pages.verdicts import against, against_cosine, budgets_of
from experiments.pages.wording import truth_in_a_word
from experiments.runs.folders import Run
from experiments.runs.tables import Spread, about_spread, columns_of, format_number, held_out_table, mean_and_spread

__all__ = ["SECTION", "scores_by_seed", "truths_table"]

_RETURN = "discounted_return"
_OF_THE_JOBS = ("coverage", "gini", "congestion")


def truths_table(groups: Mapping[str, Sequence[Run]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the scores of each group by each signal: its own truth and those of ``evaluation.also``.

    There are no rows if every run was scored only by its own truth.
    """
    rows: dict[str, dict[str, Spread | None]] = {}
    cosine: dict[str, dict[str, Spread | None]] = {}
    for label, members in groups.items():
        truth = truth_in_a_word(members[0].config)
        by_truth = [_by_truth(run, truth) for run in members]
        rows[label] = mean_and_spread(
            [{name: part["held_out"]["score"] for name, part in each.items()} for each in by_truth]
        )
        market = f"highest cosine, market {members[0].summary['market']['name']}"
        known = cosine.setdefault(market, {})
        known |= mean_and_spread([{name: part["references"]["cosine"]["score"] for name, part in by_truth[0].items()}])
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(names) < 2:
        return [], []
    return (
        ["score by", *names],
        [[agent, *(format_number(row.get(name)) for name in names)] for agent, row in (rows | cosine).items()],
    )


def scores_by_seed(groups: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """The scores of each group by each signal and seed, so that groups can be compared seed by seed.

    Returns:
        Scores by label, signal and seed. A seed is a text such as ``"520"``, and stands in ascending order.
    """
    told: dict[str, dict[str, dict[str, float | None]]] = {}
    for label, members in groups.items():
        of_label = told.setdefault(label, {})
        truth = truth_in_a_word(members[0].config)
        for run in sorted(members, key=lambda run: int(run.summary["seed"])):
            for name, part in _by_truth(run, truth).items():
                of_label.setdefault(name, {})[str(run.summary["seed"])] = part["held_out"]["score"]
    return told


def _by_truth(run: Run, truth: str) -> dict[str, Any]:
    """The results of a run by each signal: those by its own truth, called ``truth``, and those of ``also``."""
    return {truth: run.summary, **(run.summary.get("also") or {})}


def _known(data: ReportData) -> dict[str, str]:
    """The metrics of which some agent has a value, with their names."""
    columns = columns_of(data.first.summary["held_out"])
    known = {name for entry in data.held_out.values() for name in columns if entry.get(name) is not None}
    return {name: columns[name] for name in columns if name in known and name not in _OF_THE_JOBS}


def _draw(data: ReportData, known: dict[str, str]) -> Content:
    header, rows = held_out_table({**data.held_out, **data.references}, known)
    shown = [column for column in range(len(header)) if column == 0 or any(row[column] != "-" for row in rows)]
    header, rows = ["agent", *(header[column] for column in shown[1:])], [[row[at] for at in shown] for row in rows]
    if len(budgets_of(data)) > 1:
        header, rows = _with_budgets(data, header, rows)
    tables = [
        Table(
            header,
            rows,
            about_spread(rows[: len(data.groups)])
            + (
                " The return is discounted at each agent's own gamma, so only returns of equal gamma can be compared."
                if _RETURN in known and data.references["oracle"].get(_RETURN) is None
                else ""
            )
            + (
                f" Each seed has its own truth: random, cosine and oracle are means over {len(data.truths)}."
                if len(data.truths) > 1
                else ""
            ),
            n_agents=len(data.groups),
        ),
        *_differences(data),
    ]
    truths_header, truths_rows = truths_table(data.groups)
    if truths_rows:
        tables.append(
            Table(
                ["agent", *(f"score by {name}" for name in truths_header[1:])],
                truths_rows,
                "Scored by every signal: the same greedy agents, with each signal in turn taken as the truth. A score "
                "by the signal that an agent was trained on proves little by itself.",
                n_agents=len(data.groups),
            )
        )
    beside = (
        "four choices that learn nothing: a random choice, the job of highest cosine, the oracle (the best policy) "
        "and the best myopic policy. The last one earns the most that any bandit can earn. Their returns are exact "
        "wherever they can be."
        if data.is_career
        else "three choices that learn nothing: a random choice, the job of highest cosine, and the oracle."
    )
    return Content(f"The greedy agents after training, beside {beside}", tables)


def _with_budgets(data: ReportData, header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The table with a column of the numbers of interactions that each agent learned from."""
    budgets = [
        ", ".join(f"{number:,}" for number in sorted({int(run.summary["interactions"]) for run in members}))
        for members in data.groups.values()
    ]
    budgets += ["-"] * (len(rows) - len(budgets))
    return (
        [header[0], "interactions", *header[1:]],
        [[row[0], budget, *row[1:]] for row, budget in zip(rows, budgets, strict=True)],
    )


def _differences(data: ReportData) -> list[Table]:
    """Whether the seeds tell the agents from the highest cosine, and from the best of them."""
    scored = {label: members for label, members in data.groups.items() if data.held_out[label].get("score")}
    if not scored or data.references["cosine"]["score"] is None:
        return []
    best = max(scored, key=lambda label: data.held_out[label]["score"] or ())
    several = len(scored) > 1
    rows = [
        [
            label,
            str(against_cosine(members)),
            *(["-" if label == best else str(against(members, data.groups[best]))] if several else []),
        ]
        for label, members in scored.items()
    ]
    return [
        Table(
            ["agent", "score against the highest cosine's", *([f"against that of {best}"] if several else [])],
            rows,
            "Differences of scores, seed by seed, with Student's 95 % intervals. Few seeds make wide intervals. Each "
            "difference is tested by itself: of twenty comparisons of equal agents, about one shows a difference by "
            "chance.",
            n_words=3,
        )
    ]


SECTION = Section(
    "held-out",
    "Held-out applicants",
    20,
    needs=_known,
    draw=_draw,
)
