"""Compares learners in some settings: the plan, the missing runs, and the tables."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from tqdm import tqdm

from experiments.runs.folders import (
    COLDSTART,
    COLDSTART_FIGURE,
    COLDSTART_TABLE,
    RUN_FORMAT,
    SUMMARY,
    RunError,
    commit_of_checkout,
    commits_by,
    read_json,
    write_json,
    write_text,
)
from experiments.runs.grouping import is_of_the_task, mark_of
from experiments.runs.intervals import interval_cell, mean_interval
from experiments.runs.numbers import require_known
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table
from experiments.studies.figure import MOST_DRAWN, plot_levels, plot_settings
from experiments.studies.runs import (
    Learner,
    StudyRun,
    compose_runs,
    define_learner,
    known_learners,
    known_settings,
    read_learner,
    run_all,
)
from experiments.studies.study import IN_WORDS, Study

__all__ = ["UNRESOLVED", "Comparison", "Plan", "level_table", "plan_of", "run_missing", "tell"]

UNRESOLVED = ("define", "variants")
"""Options whose interpolations refer to ``conf/train.yaml``."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The options of a comparison: entries of ``conf/coldstart.yaml``, which explains them."""

    name: str
    learners: list[str]
    define: dict[str, Any]
    settings: list[Any]
    variants: dict[str, list[str]]
    only_in: dict[str, list[str]]
    seeds: list[int]
    interactions: int | None
    common: list[str]
    path: str | None
    reference: str | None
    draw: list[str] | None
    axis: str | None
    folder: str
    n_jobs: int
    reps: int


class Plan(NamedTuple):
    """The plan of a comparison.

    Attributes:
        learners: Learners by name, in the order of the tables.
        settings: Overrides of each setting, by name.
        runs: Runs by setting and learner, one for each seed.
        points: Interactions after which learners are scored, by setting.
    """

    learners: dict[str, Learner]
    settings: dict[str, list[str]]
    runs: dict[tuple[str, str], list[StudyRun]]
    points: dict[str, list[int]]


def plan_of(asked: Comparison) -> Plan:
    """Plans which learners are compared in which settings. A learner that cannot run is left out, and a line says so.

    Raises:
        RunError: If a name is unknown, or nothing is left.
    """
    if asked.name is None or not str(asked.name).strip():
        raise RunError("`name` must be a text, such as name=compare: it names the study's folder.")
    learners = _learners(asked)
    if taken := sorted(set(asked.variants) & set(known_settings())):
        raise RunError(f"`variants` must have other names than the settings in conf/setting, got {taken[0]!r}.")
    known = [*known_settings(), *asked.variants]
    names = [str(name) for name in asked.settings]  # YAML reads a name such as 0.5 as a number
    require_known("settings", names, known, "conf/setting")
    settings = {name: asked.variants.get(name, [f"setting={name}"]) for name in names}
    require_known("only_in", asked.only_in, known, "conf/setting")
    for names in asked.only_in.values():
        require_known("only_in", names, [*known_learners(), *learners], "conf/learner")
    drawn = asked.draw or []
    for argument, names in (("reference", [asked.reference] if asked.reference else []), ("draw", drawn)):
        require_known(argument, names, list(learners), "`learners`")
    if len(drawn) > MOST_DRAWN:
        raise RunError(f"`draw` must name at most {MOST_DRAWN} learners, got {len(drawn)}.")
    length = [] if asked.interactions is None else [f"total_timesteps={asked.interactions}"]
    runs: dict[tuple[str, str], list[StudyRun]] = {}
    points: dict[str, list[int]] = {}
    for setting, overrides in settings.items():
        made: dict[str, list[StudyRun]] = {}
        # Learners with the same error are reported in one line. If every learner has an error, the setting is wrong.
        errors: dict[str, list[str]] = {}
        for name in (name for name in learners if name in asked.only_in.get(setting, learners)):
            every = [*overrides, *length, *asked.common]
            try:
                made[name] = compose_runs(learners[name], setting, every, asked.seeds, Path(asked.folder), asked.path)
            except RunError as error:
                errors.setdefault(str(error), []).append(name)
        if made:
            of_each = {name: tuple(of_learner[0].points) for name, of_learner in made.items()}
            points[setting] = list(_most_common(of_each, learners, asked.reference))
        for name, of_learner in made.items():
            if of_learner[0].points == points[setting]:
                runs[setting, name] = of_learner
                continue
            own, others = (", ".join(f"{n:,}" for n in each) for each in (of_learner[0].points, points[setting]))
            message = (
                f"it is scored after {own} interactions, and the others after {others}: leave `total_timesteps` and "
                "`evaluation.at` to `interactions` and the setting."
            )
            errors.setdefault(message, []).append(name)
        for message, names in errors.items():
            whom = ", ".join(names) if setting in points else "every learner"
            tqdm.write(f"{setting}: {whom} left out: {message}", file=sys.stderr)
    if not runs:
        raise RunError("there is nothing to compare: every learner is left out of every setting, see above.")
    return Plan(learners, settings, runs, points)


def _most_common(
    of_each: Mapping[str, tuple[Any, ...]], learners: Mapping[str, Learner], reference: str | None
) -> tuple[Any, ...]:
    """The value that most learners have.

    Of several such values it is the reference's, or else that of the learner with the fewest overrides of the task.
    """
    counts = Counter(of_each.values())
    most = [name for name, value in of_each.items() if counts[value] == max(counts.values())]
    return of_each[reference if reference in most else min(most, key=lambda name: _n_of_the_task(learners[name]))]


def _n_of_the_task(learner: Learner) -> int:
    """How many of a learner's overrides concern what is learned, and not how."""
    return sum(is_of_the_task(entry) or entry.startswith("total_timesteps=") for entry in learner.overrides)


def _learners(asked: Comparison) -> dict[str, Learner]:
    """The chosen learners by name, with all that the user defines."""
    definitions = asked.define
    names = dict.fromkeys([*asked.learners, *definitions])
    require_known("learners", names, [*known_learners(), *definitions], "conf/learner")
    return {
        name: define_learner(name, definitions[name]) if name in definitions else read_learner(name) for name in names
    }


def run_missing(plan: Plan, n_jobs: int) -> int:
    """Makes unfinished runs, and removes learners with a failed run from the plan; returns how many runs failed."""
    owners = {run.folder: key for key, runs in plan.runs.items() for run in runs}
    missing = [run for runs in plan.runs.values() for run in runs if not run.finished]
    if len(missing) < len(owners):
        tqdm.write(f"{len(owners) - len(missing)} of {len(owners)} runs are finished already", file=sys.stderr)
    n_failed = 0
    with Progress(len(owners), "study", "run", done=len(owners) - len(missing)) as progress:

        def done(run: StudyRun, error: str | None) -> None:
            nonlocal n_failed
            progress.update()
            if error is not None:
                n_failed += 1
                # Only the learner's first failure is reported, because other seeds fail for the same reason.
                if plan.runs.pop(owners[run.folder], None) is not None:
                    setting, name = owners[run.folder]
                    tqdm.write(f"{setting}: {name} left out: {error}", file=sys.stderr)

        run_all(missing, n_jobs, done)
    if not plan.runs:
        raise RunError("no learner finished its runs, see above.")
    return n_failed


def tell(plan: Plan, asked: Comparison, command: str) -> None:
    """Prints the tables, and writes numbers and figures of the whole study and of each setting.

    A learner whose runs had other problems than those of the others is left out, and a line says so.

    Args:
        plan: The plan, whose runs are finished.
        asked: The options from which the plan was made.
        command: The command that was typed.
    """
    folder = Path(asked.folder)
    made_by = {
        "command": command,
        "commit": commit_of_checkout(),
        "commits": commits_by(
            (name, _summary_of(run)["commit"]) for (_, name), runs in plan.runs.items() for run in runs
        ),
        "name": asked.name,
        "learners": {name: list(learner.overrides) for name, learner in plan.learners.items()},
        "common": asked.common,
        "in_words": IN_WORDS,
    }
    studies: dict[str, Study] = {}
    for setting, points in plan.points.items():
        if names := _alike(plan, setting, asked.reference):
            folders = {name: folder / setting / name for name in names}
            studies[setting] = Study.read(folders, asked.seeds, points, asked.reps)
    tables = {setting: _tables(study, asked.reference) for setting, study in studies.items()}
    present = [name for name in plan.learners if any(name in study.scores for study in studies.values())]
    drawn = list(asked.draw or present[:MOST_DRAWN])
    for setting, study in studies.items():
        write_json(
            folder / setting / COLDSTART,
            {**made_by, "setting": setting, "overrides": plan.settings[setting], **study.to_json()},
        )
        plot_settings({setting: study}, drawn, folder / setting / COLDSTART_FIGURE)
    if asked.axis is None:
        plot_settings(studies, drawn, folder / COLDSTART_FIGURE)
        shown = [(_named(setting, header), rows) for setting in tables for header, rows in tables[setting]]
    else:
        plot_levels(studies, asked.axis, drawn, folder / COLDSTART_FIGURE)
        shown = [level_table(studies, asked.axis)]
    print("\n\n".join([*(format_table(*table) for table in shown), IN_WORDS]))
    write_json(
        folder / COLDSTART,
        {
            **made_by,
            "settings": list(studies),
            "seeds": asked.seeds,
            "tables": [{"header": header, "rows": rows} for header, rows in shown],
        },
    )
    rows = [{"setting": setting, **row} for setting, study in studies.items() for row in study.rows()]
    write_text(folder / COLDSTART_TABLE, pd.DataFrame(rows).to_csv(index=False))
    print(f"\nnumbers  {folder / COLDSTART_TABLE}, {folder}/SETTING/{COLDSTART}\nfigure   {folder / COLDSTART_FIGURE}")


def _alike(plan: Plan, setting: str, reference: str | None) -> list[str]:
    """The learners whose runs in a setting had the same problems, seed by seed. Others are named in a line each."""
    marks = {
        name: tuple(mark_of(_summary_of(run)["references"]) for run in plan.runs[setting, name])
        for name in plan.learners
        if (setting, name) in plan.runs
    }
    most = _most_common(marks, plan.learners, reference) if marks else ()
    alike = [name for name, mark in marks.items() if mark == most]
    for name in (name for name in marks if name not in alike):
        tqdm.write(
            f"{setting}: {name} left out: it had other candidates or another truth than {alike[0]}, so the two cannot "
            "be compared. Overrides of the market, the environment or the truth are for a setting: "
            f"+variants.NAME=[setting={setting},...].",
            file=sys.stderr,
        )
    return alike


def _summary_of(run: StudyRun) -> dict[str, Any]:
    return read_json(run.folder / SUMMARY, "Run it again with resume=false.", RUN_FORMAT)


def _tables(study: Study, reference: str | None) -> list[Table]:
    """Tables of means, of interquartile means, and of differences to the reference, or to the first learner."""
    names = list(study.scores)
    tables = [study.table(), study.iqm_table()]
    if len(names) > 1:
        tables.append(study.difference_table(reference if reference in names else names[0]))
    return tables


def _named(setting: str, header: Sequence[str]) -> list[str]:
    return [f"{setting}: {header[0]}", *header[1:]]


def level_table(studies: Mapping[str, Study], axis: str) -> Table:
    """A table of each learner's mean score at the end and its regret, by level.

    Args:
        studies: The study of each level.
        axis: The quantity that has these levels.
    """
    some = next(iter(studies.values()))
    header = [f"mean score after {some.points[-1]:,}; {axis}", *studies, *(f"regret, {level}" for level in studies)]
    rows = []
    for learner in some.scores:
        of_levels = [study for study in studies.values() if learner in study.scores]
        scores = [
            interval_cell(mean_interval(study.scores[learner][:, -1], study.reps), len(study.seeds))
            for study in of_levels
        ]
        regrets = [
            interval_cell(mean_interval(study.regret[learner], study.reps), len(study.seeds), ".0f")
            for study in of_levels
        ]
        if len(of_levels) == len(studies):
            rows.append([learner, *scores, *regrets])
    return header, rows
