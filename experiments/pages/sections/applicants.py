"""Outcomes by the applicant's family of occupations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.pages.data import REFERENCES, ReportData, outcomes_of
from experiments.pages.plots import families
from experiments.pages.section import Content, Section, Table
from experiments.runs.tables import Spread, about_spread, format_number, mean_and_spread
from jobrec_gym.shown_text import as_text

__all__ = ["SECTION"]

_FEW_PAIRS = 20  # a family with fewer held-out pairs is too small to be called best or worst served


def _draw(data: ReportData, by_agent: Mapping[str, Sequence[Mapping[str, Any]]]) -> Content:
    references = data.first.summary["outcomes"]
    sizes = {family: int(part["n_pairs"]) for family, part in references["oracle"]["by_family"].items()}
    names = sorted(sizes, key=lambda family: -sizes[family])
    rewards = {label: _spread(parts, names, "mean_reward") for label, parts in by_agent.items()}
    scores = {label: _spread(parts, names, "score") for label, parts in by_agent.items()}
    tables = []
    if served := _served(scores, sizes):
        tables.append(
            Table(
                ["agent", "worst served", "best served", "worst score", "best score", "gap"],
                served,
                f"Score within a family (0: a random choice, 1: the best one), mean over seeds. Only families with at "
                f"least {_FEW_PAIRS} held-out pairs are compared.",
                n_words=3,
            )
        )
    rows = [
        [
            as_text(family),
            f"{sizes[family]:,}",
            *(format_number(rewards[label][family]) for label in by_agent),
            *(format_number(references[who]["by_family"][family]["mean_reward"]) for who in REFERENCES),
        ]
        for family in names
    ]
    note = f"Mean expected reward of the greedy choice. Agents: {about_spread(rows)[0].lower()}{about_spread(rows)[1:]}"
    tables.append(Table(["family", "pairs", *by_agent, *REFERENCES], rows, note))
    figure = families(
        data.folder,
        "families",
        "Mean reward by family",
        "Grey bars go from the reward of a random choice to that of the best choice; the upright stroke is the highest "
        "cosine, markers are agents, means over seeds. Families with the most held-out pairs stand on top.",
        {
            family: tuple(references[who]["by_family"][family]["mean_reward"] for who in ("random", "oracle"))
            for family in names
        },
        rewards,
        {family: references["cosine"]["by_family"][family]["mean_reward"] for family in names},
        list(data.groups),
    )
    return Content(
        "Outcomes on the held-out pairs by the applicant's family of occupations. Families differ in how good their "
        "candidates are. So compare an agent with the two ends of the family's bar."
        + (" Random, cosine and oracle are those of the first seed's truth." if len(data.truths) > 1 else ""),
        tables,
        [figure],
    )


def _by_agent(data: ReportData) -> dict[str, list[Mapping[str, Any]]]:
    """Outcomes by family of each run that kept them, by group; none if the references have no outcomes."""
    if not data.first.summary.get("outcomes"):
        return {}
    kept = {
        label: [part for run in members if (part := outcomes_of(run).get("by_family"))]
        for label, members in data.groups.items()
    }
    return {label: parts for label, parts in kept.items() if parts}


def _spread(parts: Sequence[Mapping[str, Any]], names: Sequence[str], key: str) -> dict[str, Spread | None]:
    return mean_and_spread([{family: part.get(family, {}).get(key) for family in names} for part in parts])


def _served(scores: Mapping[str, Mapping[str, Spread | None]], sizes: Mapping[str, int]) -> list[list[str]]:
    """The worst and the best served family of each agent, if at least two families are large enough."""
    rows = []
    for label, by_family in scores.items():
        means = {f: entry[0] for f, entry in by_family.items() if entry and sizes[f] >= _FEW_PAIRS}
        if len(means) > 1:
            worst, best = min(means, key=lambda f: means[f]), max(means, key=lambda f: means[f])
            cells = [f"{value:.3f}" for value in (means[worst], means[best], means[best] - means[worst])]
            rows.append([label, worst, best, *cells])
    return rows


SECTION = Section(
    "applicants",
    "Who is served how well",
    90,
    needs=_by_agent,
    draw=_draw,
    without="Runs of an earlier version kept no outcomes by family.",
    of_pairs=True,
)
