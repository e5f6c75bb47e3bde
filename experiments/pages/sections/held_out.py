"""The greedy agents on held-out applicants, compared with policies that learn nothing, and scored by every signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.pages.data import ReportData
from experiments.pages.section import Content, Section, Table
from experiments.pages.verdicts import against, against_cosine, budgets_of, mean_score, on_shared_seeds
from experiments.pages.wording import truth_in_a_word
from experiments.runs.folders import Run, flat_config
from experiments.runs.grouping import References, mark_of
from experiments.runs.references import mean_references
from experiments.runs.tables import Spread, about_spread, columns_of, format_number, held_out_table, mean_and_spread

__all__ = ["SECTION", "scores_by_seed", "truths_table"]

_RETURN = "discounted_return"
_OF_THE_JOBS = ("coverage", "gini", "congestion")


def truths_table(groups: Mapping[str, Sequence[Run]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the scores of each group by each signal: its own truth and those of ``evaluation.also``.

    The score of the highest cosine by a signal is a mean over all pairs and truths of these runs. There are no rows if
    every run was scored only by its own truth.
    """
    rows: dict[str, Mapping[str, float | Spread | None]] = {}
    beside: dict[str, dict[str, list[References]]] = {}
    for label, by_signal in _by_signal(groups).items():
        rows[label] = mean_and_spread(
            [{name: part["held_out"]["score"] for name, part in each.items()} for each in by_signal]
        )
        market = f"highest cosine, market {groups[label][0].summary['market']['name']}"
        for each in by_signal:
            for name, part in each.items():
                beside.setdefault(market, {}).setdefault(name, []).append(part["references"])
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(names) < 2:
        return [], []
    for market, scored in beside.items():
        rows[market] = {name: mean_references(every)["cosine"]["score"] for name, every in scored.items()}
    return (
        ["score by", *names],
        [[agent, *(format_number(row.get(name)) for name in names)] for agent, row in rows.items()],
    )


def scores_by_seed(groups: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """The scores of each group by each signal and seed, so that groups can be compared seed by seed.

    Returns:
        Scores by label, signal and seed. A seed is a text such as ``"520"``, and stands in ascending order. If runs of
        a group have the same seed, the text also has their other seeds, as in ``"520, simulator.seed=1"``.
    """
    groups = {label: sorted(members, key=lambda run: int(run.summary["seed"])) for label, members in groups.items()}
    told: dict[str, dict[str, dict[str, float | None]]] = {}
    for label, by_signal in _by_signal(groups).items():
        of_label = told.setdefault(label, {})
        for seed, each in zip(_seeds_in_words(groups[label]), by_signal, strict=True):
            for name, part in each.items():
                of_label.setdefault(name, {})[seed] = part["held_out"]["score"]
    return told


def _by_signal(groups: Mapping[str, Sequence[Run]]) -> dict[str, list[dict[str, Any]]]:
    """The results of each run of each group by each signal: its own truth, and those of ``also``.

    A run's own truth has the name that tables give it, such as ``"planted"``. If ``also`` has another truth of this
    name, the own truth is called ``"planted (own)"`` in all groups.
    """
    own = {label: truth_in_a_word(members[0].config) for label, members in groups.items()}
    also = {label: [run.summary.get("also") or {} for run in members] for label, members in groups.items()}
    clash = any(
        own[label] in beside and mark_of(beside[own[label]]["references"]) != mark_of(run.summary["references"])
        for label, members in groups.items()
        for run, beside in zip(members, also[label], strict=True)
    )
    return {
        label: [
            {f"{own[label]} (own)" if clash else own[label]: run.summary, **beside}
            for run, beside in zip(members, also[label], strict=True)
        ]
        for label, members in groups.items()
    }


def _seeds_in_words(runs: Sequence[Run]) -> list[str]:
    """A text for each run of a group: its seed, and other entries ``seed`` where that does not tell the runs apart."""
    seeds = [str(run.summary["seed"]) for run in runs]
    if len(set(seeds)) == len(seeds):
        return seeds
    flat = [flat_config(run.config) for run in runs]
    differ = [
        key
        for key in dict.fromkeys(key for config in flat for key in config)
        if key.endswith(".seed") and len({str(config.get(key)) for config in flat}) > 1
    ]
    return [
        ", ".join([seed, *(f"{key}={config.get(key)}" for key in differ)])
        for seed, config in zip(seeds, flat, strict=True)
    ]


def _known(data: ReportData) -> dict[str, str]:
    """The metrics of which some agent has a value, with their names."""
    columns = columns_of(data.first.summary["held_out"])
    known = {name for entry in data.held_out.values() for name in columns if entry.get(name) is not None}
    return {name: columns[name] for name in columns if name in known and name not in _OF_THE_JOBS}


def _draw(data: ReportData, known: dict[str, str]) -> Content:
    header, rows = held_out_table(data.held_out, data.references, known)
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
                f" Each seed has its own truth: random, cosine and oracle are means over {len(data.truths)} truths."
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
        "and the best myopic policy. The best myopic policy is the best that a bandit can learn. The returns of "
        "these choices are exact wherever they can be."
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
    """Whether the seeds tell the agents apart from the highest cosine, and from the best agent.

    The best agent has the highest mean on the seeds that all agents share. If they share none, no agent is the best.
    """
    scored = {label: members for label, members in data.groups.items() if data.held_out[label].get("score")}
    if not scored or data.references["cosine"]["score"] is None:
        return []
    shared = on_shared_seeds(scored)
    several = len(scored) > 1 and all(shared.values())
    best = max(shared, key=lambda label: mean_score(shared[label])) if several else ""
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
            "chance."
            + (
                f" The agents ran on unlike seeds: {best} has the highest mean on those that all share."
                if several and any(len(shared[label]) < len(scored[label]) for label in scored)
                else ""
            ),
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
