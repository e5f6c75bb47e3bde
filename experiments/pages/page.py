"""Writes the report: one self-contained HTML page, and its pictures as files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml
from markupsafe import Markup

from experiments.pages.data import ReportData
from experiments.pages.section import Content, Section, Table
from experiments.pages.sections import all_sections
from experiments.pages.verdicts import headline_of
from experiments.pages.wording import agent_in_words, command_of, over_seeds, task_in_words
from experiments.runs.folders import HOW_KEYS, Run, flat_config, write_text
from experiments.runs.grouping import group_runs, like_with_like, newest, repeats_in_words
from jobrec_gym.shown_text import without_commands

__all__ = ["write_report"]

Groups = Mapping[str, Sequence[Run]]

_MOST_COLUMNS = 12
"""The largest number of columns of a table, so that the table is not wider than the page."""

_ENDS = re.compile(r"(?<=[=_])(?=.)|(?<=[,./])(?=[^\W\d])")
"""Places at which a line can end in a name, such as those in ``algo.buffer_size=10,total_timesteps=20``."""

_EXPLAINED = {
    "score": "0 is a random choice, 1 the best one under the truth",
    "mean reward": "Mean expected reward of the greedy choice",
    "apply rate": "Share of greedy choices that the applicant would apply to, without noise",
    "nDCG@10": "Quality of the first ten places of the ranking, gain = expected reward, a negative one counts as 0",
    "MRR": "Mean of 1 / rank of the first job that the applicant would apply to, over the sets that hold such a job",
    "hit@1": "Of the sets with a job that the applicant would apply to: the share in which the best-ranked job is one",
    "hit@5": "Of the sets with a job that the applicant would apply to: the share with one among the five ranked best",
    "hit@10": "Of the sets with a job that the applicant would apply to: the share with one among the ten ranked best",
    "return": "Sum of the expected rewards over a greedy episode, discounted at the agent's gamma. Where "
    "answers move the applicant: sum of the rewards that were paid",
    "regret": "Expected reward of the best choice minus that of the agent's choice, mean over recommendations",
    "cosine": "Mean cosine reward of the greedy choice, in [0, 1]",
    "coverage": "Share of the jobs that are recommended at all",
    "Gini": "How unevenly jobs are recommended: 0 if all equally often, near 1 if always the same",
    "congestion": "Chance that two recommendations are of the same job",
    "share of best": "Earnings of an episode, as a share of what the best policy earns with the same applicants",
    "left": "Share of applicants who left before the episode's end",
    "left after": "Mean number of steps before an applicant left, over those who left",
    "steps": "Mean length of an episode",
}


class _Part(NamedTuple):
    """Runs that can be compared, and their part of the page."""

    name: str
    anchor: str
    folder: str
    headline: str
    side: str
    sections: Sequence[tuple[Section[Any], Content]]


def write_report(
    runs: Sequence[Run],
    folder: Path,
    title: str | None = None,
    unfinished: str = "",
    study: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``report.html``, and each figure as SVG and PNG, into a folder.

    The page has the sections of :mod:`experiments.pages.sections` that have something to draw. If runs are scored on
    different held-out pairs or truths, the page repeats the sections for each set of runs that can be compared, with
    figures in folders ``task-1`` and so on. If a run was made twice, the newest counts.

    Args:
        runs: Finished runs, at least one.
        folder: Folder of the page. It is made if it does not exist.
        title: Title of the page.
        unfinished: Words about runs that are not finished, and so not on the page.
        study: What :func:`experiments.pages.sections.study.read_study` found beside these runs.

    Returns:
        Path of the page.

    Raises:
        RunError: If a run lacks its learning curve.
    """
    runs, repeats = newest(runs)
    groups = {label: sorted(members, key=_seed) for label, members in group_runs(runs).items()}
    comparisons = like_with_like(groups)
    all_of_them = all_sections()
    parts: list[_Part] = []
    first: ReportData | None = None
    for number, comparison in enumerate(comparisons, start=1):
        place = f"task-{number}" if comparison.name else ""
        data = ReportData.of(comparison.groups, folder / place, study)
        first = first or data
        parts.append(
            _Part(
                name=comparison.name,
                anchor=f"{place}-" if place else "",
                folder=f"{place}/" if place else "",
                **headline_of(data)._asdict(),
                sections=_drawn(data, [section for section in all_of_them if not section.once]),
            )
        )
    assert first is not None, "find_runs finds at least one run or raises"
    of_all = _drawn(first, [section for section in all_of_them if section.once])
    there = {section.name for section, _ in [*of_all, *(each for part in parts for each in part.sections)]}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_as_text)
    environment.filters["breakable"] = _breakable
    environment.filters["of_the_page"] = lambda part: part._replace(anchor="", folder="")
    template = environment.from_string((files("experiments.pages") / "templates" / "report.html.j2").read_text())
    page = folder / "report.html"
    write_text(
        page,
        template.render(
            title=title
            or "Job recommendation: " + (", ".join(groups) if len(groups) <= 3 else f"{len(groups)} agents"),
            left_out=[words for words in (unfinished, repeats_in_words(repeats)) if words],
            tasks=list(
                dict.fromkeys(
                    task_in_words(over_seeds(members), members[0].summary["market"]) for members in groups.values()
                )
            ),
            facts=_facts(runs),
            how_to_read=_band(groups),
            without=[
                section.without
                for section in all_of_them
                if section.without and section.name not in there and not (section.of_pairs and first.is_career)
            ],
            agents=[
                {
                    "label": label,
                    "words": agent_in_words(over_seeds(members), members[0].summary.get("pretrain")),
                    "seeds": ", ".join(str(run.summary["seed"]) for run in members),
                    "command": command_of(members),
                    "folders": [str(run.folder) for run in members],
                    "config": yaml.safe_dump(members[0].config, sort_keys=False, allow_unicode=True),
                }
                for label, members in groups.items()
            ],
            explained=_EXPLAINED,
            of_all=of_all,
            parts=parts,
            fitting=lambda table: table.parts(_MOST_COLUMNS),
            differences=Table(["entry", *groups], _differences(groups)),
        ),
    )
    return page


def _drawn(data: ReportData, sections: Sequence[Section[Any]]) -> list[tuple[Section[Any], Content]]:
    """The sections that have something to draw, with their content."""
    found = [(section, section.content(data)) for section in sections]
    return [(section, content) for section, content in found if content is not None]


def _seed(run: Run) -> int:
    seed: int = run.summary["seed"]
    return seed


def _breakable(cell: str) -> Markup:
    """Lets a line of a table's cell end after a sign within a name, but not between ± and its number."""
    parts = _ENDS.split(without_commands(cell).replace("± ", "±\u00a0"))
    return Markup("<wbr>").join(parts)


def _as_text(value: Any) -> Any:
    """A text from a run, with its control characters spelt out. The template's own markup is unchanged."""
    return without_commands(value) if type(value) is str else value


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
    """A sentence about the meaning of lines and bands."""
    sizes = sorted({len(members) for members in groups.values()})
    if sizes[-1] == 1:
        return "One seed each, so there are no intervals."
    n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    few = ": so few seeds say little" if sizes[0] < 5 else ""
    return f"Lines are interquartile means over {n} seeds, bands their 95 % bootstrap intervals (rliable){few}."


def _differences(groups: Groups) -> list[list[str]]:
    """Entries of the config that differ between groups and affect results: the name, and a value for each group."""
    flat = [
        {key: value for key, value in flat_config(members[0].config).items() if key.partition(".")[0] not in HOW_KEYS}
        for members in groups.values()
    ]
    keys = sorted({key for config in flat for key in config})
    return [
        [key, *(str(config.get(key, "-")) for config in flat)]
        for key in keys
        if len({str(config.get(key, "-")) for config in flat}) > 1 and key.rpartition(".")[2] != "seed"
    ]
