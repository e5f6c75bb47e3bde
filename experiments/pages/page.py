"""The report: one self-contained HTML page, and its pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from experiments.pages.data import ReportData
from experiments.pages.sections import all_sections
from experiments.pages.wording import agent_in_words, command_of, task_in_words
from experiments.runs.folders import Run, flat_config
from jobrec_gym.shown_text import without_commands

__all__ = ["write_report"]

Groups = Mapping[str, Sequence[Run]]

_OPPONENTS = ("experiments.learners.opponents.", "experiments.opponents.")  # the latter in runs of an earlier version

_EXPLAINED = {
    "score": "0 is a random choice, 1 the best one under the truth",
    "mean reward": "Mean expected reward of the greedy choice",
    "apply rate": "Share of greedy choices that the applicant would apply to, without noise",
    "nDCG@10": "Quality of the whole ranking, gain = expected reward, negative counts as 0",
    "MRR": "Mean of 1 / rank of the first job that the applicant would apply to, over the sets that hold one",
    "hit@1": "Share of sets whose best-ranked job the applicant would apply to, over the sets that hold one",
    "hit@5": "Such a job among the best 5",
    "hit@10": "Such a job among the best 10",
    "return": "Discounted sum of expected rewards over a greedy episode, at the agent's gamma",
    "regret": "Expected reward of the best choice less that of the agent's, for each recommendation",
    "cosine": "Mean cosine reward of the greedy choice, in [0, 1]",
    "coverage": "Share of the jobs that are recommended at all",
    "Gini": "How unevenly jobs are recommended: 0 equally, near 1 always the same",
    "congestion": "Chance that two recommendations are of the same job",
}


def write_report(
    runs: Sequence[Run],
    folder: Path,
    title: str | None = None,
    unfinished: str = "",
    study: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``report.html``, and each figure as SVG and PNG, into a folder.

    The page has the sections of :mod:`experiments.pages.sections` that have something to draw.

    Args:
        runs: Finished runs, at least one.
        folder: Made if it is not there.
        title: Of the page.
        unfinished: What to say of runs that are not in it.
        study: What :func:`experiments.pages.sections.study.read_study` found beside these runs.

    Returns:
        The page.

    Raises:
        RunError: If a run lacks its learning curve.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = ReportData.of(runs, folder, study)
    groups = data.groups
    sections, without = [], []
    for section in all_sections():
        content = section.content(data)
        if content is not None:
            sections.append((section, content))
        elif section.without:
            without.append(section.without)
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_as_text).from_string(
        (files("experiments.pages") / "templates" / "report.html.j2").read_text()
    )
    page = folder / "report.html"
    page.write_text(
        template.render(
            title=title
            or "Job recommendation: " + (", ".join(groups) if len(groups) <= 3 else f"{len(groups)} agents"),
            headline=_headline(groups, runs[0]),
            unfinished=unfinished,
            tasks=list(dict.fromkeys(task_in_words(run.config, run.summary["market"]) for run in runs)),
            facts=_facts(runs),
            how_to_read=_band(groups),
            without=without,
            agents=[
                {
                    "label": label,
                    "words": agent_in_words(members[0].config),
                    "seeds": ", ".join(str(run.summary["seed"]) for run in members),
                    "command": command_of(members),
                    "folders": [str(run.folder) for run in members],
                    "config": yaml.safe_dump(members[0].config, sort_keys=False, allow_unicode=True),
                }
                for label, members in groups.items()
            ],
            explained=_EXPLAINED,
            sections=sections,
            differences=_differences(groups),
        )
    )
    return page


def _as_text(value: Any) -> Any:
    """What a name or a config says, with nothing in it that a browser obeys; what the template itself makes stays."""
    return without_commands(value) if type(value) is str else value


def _headline(groups: Groups, first: Run) -> str:
    """The best learner against cosine; empty where none learns, or nothing can be scored."""
    scores = {
        label: [run.summary["held_out"]["score"] for run in members if run.summary["held_out"]["score"] is not None]
        for label, members in groups.items()
        if not members[0].config["algo"]["_target_"].startswith(_OPPONENTS)
    }
    means = {label: float(np.mean(values)) for label, values in scores.items() if values}
    cosine = first.summary["references"]["cosine"]["score"]
    if not means or cosine is None:
        return ""
    best = max(means, key=lambda label: means[label])
    who = f"The best agent ({best})" if len(means) > 1 else "The agent"
    side = "above" if means[best] > cosine else "below"
    if f"{means[best]:.2f}" == f"{cosine:.2f}":
        side = "equal to"
    return (
        f"{who} scores {means[best]:.2f} on held-out applicants, {side} the job of highest cosine ({cosine:.2f}); "
        "0 is a random choice, 1 the best possible one."
    )


def _facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    def values(read: Any) -> str:
        found = list(dict.fromkeys(str(read(run)) for run in runs))
        return ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")

    stopped = sum(run.summary.get("stopped") is not None for run in runs)
    seconds = sum(run.summary["wall_clock"]["seconds"] for run in runs)
    return [
        ("runs", str(len(runs))),
        ("interactions", values(lambda run: f"{run.summary['interactions']:,}") + " in each run"),
        ("commit", values(lambda run: run.summary.get("commit") or "not known")),
        (
            "versions",
            values(lambda run: ", ".join(f"{key} {item}" for key, item in run.summary["versions"].items() if item)),
        ),
        ("time", f"{seconds / 60:.1f} minutes in all"),
    ] + ([("stopped early", f"{stopped} of {len(runs)} runs, by a budget")] if stopped else [])


def _band(groups: Groups) -> str:
    """What lines and bands are."""
    sizes = sorted({len(members) for members in groups.values()})
    if sizes[-1] == 1:
        return "One seed each, so there are no intervals."
    n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    few = ": so few seeds say little" if sizes[0] < 5 else ""
    return f"Lines are interquartile means over {n} seeds, bands their 95 % bootstrap intervals (rliable){few}."


def _differences(groups: Groups) -> list[list[str]]:
    """Entries of the config that are not the same in all groups: name, then a value for each."""
    flat = [flat_config(members[0].config) for members in groups.values()]
    keys = sorted({key for config in flat for key in config})
    return [
        [key, *(str(config.get(key, "-")) for config in flat)]
        for key in keys
        if len({str(config.get(key, "-")) for config in flat}) > 1 and key.rpartition(".")[2] != "seed"
    ]
