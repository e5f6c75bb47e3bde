"""The agents' recommendations to one applicant, before and after learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.pages.data import ReportData
from experiments.pages.section import Content, Section, Table
from jobrec_gym.shown_text import as_text

__all__ = ["SECTION"]

_SKILLS = 12
_LETTERS = 60

Job = Mapping[str, Any]


def _examples(data: ReportData) -> dict[str, Mapping[str, Any]]:
    """The example of the first run of each group that kept its rankings; only learners if there are any."""
    if data.is_career:
        return {}  # careers have a section of their own
    kept = {
        label: example
        for label, members in data.groups.items()
        if (example := members[0].summary.get("example")) and example["before"] and example["after"]
    }
    learners = {label: kept[label] for label in data.learners if label in kept}
    return learners or kept


def _draw(data: ReportData, examples: Mapping[str, Mapping[str, Any]]) -> Content:
    best = next(iter(examples))
    shown = examples[best]
    person = shown["applicant"]
    skills = [as_text(skill) for skill in person["skills"]]
    more = f" and {len(skills) - _SKILLS} more" if len(skills) > _SKILLS else ""
    tables = [
        Table(
            ["place", f"{best}, before learning", "after learning", "highest cosine", "best under the truth"],
            [
                [str(place + 1), *(_job(shown[key], place) for key in ("before", "after", "cosine", "oracle"))]
                for place in range(max(len(shown[key]) for key in ("before", "after")))
            ],
            "The number behind each job is its expected reward under the truth. One applicant is an example, not "
            "evidence: the sections below are about all held-out pairs.",
            n_words=5,
        )
    ]
    firsts = [
        [label, _job(example["before"], 0), _job(example["after"], 0)]
        for label, example in examples.items()
        if example["applicant"] == person  # if each seed has a market of its own, applicants may differ
    ]
    if len(firsts) > 1:
        tables.append(Table(["agent", "first place before learning", "first place after learning"], firsts, n_words=3))
    title = as_text(str(person["title"])) or "an applicant"
    return Content(
        f"{title[:1].upper()}{title[1:]}, who has {', '.join(skills[:_SKILLS])}{more}. The agents never met this "
        f"applicant. They rank {person['n_candidates']:,} jobs, before the first interaction and after the last one "
        "(first seed of each).",
        tables,
    )


def _job(ranking: Sequence[Job], place: int) -> str:
    if place >= len(ranking):
        return "-"
    job = ranking[place]
    return f"{as_text(str(job['title']), _LETTERS) or as_text(str(job['key']))} ({job['expected']:.2f})"


SECTION = Section(
    "example",
    "A recommendation, before and after learning",
    5,
    needs=_examples,
    draw=_draw,
    without="Runs of an earlier version kept no recommendations from before and after learning. experiments.train "
    "resume=false trains them again.",
    of_pairs=True,
)
