"""Groups of runs that differ only by their seeds, names for the groups, and which groups can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.runs.folders import HOW_KEYS, WHERE_KEYS, Run, flat_config

__all__ = [
    "Comparison",
    "group_runs",
    "is_of_the_task",
    "like_with_like",
    "mark_of",
    "name_of",
    "newest",
    "repeats_in_words",
]

References = Mapping[str, Mapping[str, float | None]]

_DIGITS = 9
_TASK = ("env", "market", "simulator", "setting", "evaluation", "experiment")
_MOST_ENTRIES = 3
_OF_THE_AGENT = ("discounted_return",)
"""Metrics of the references that depend on the agent's own gamma."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Groups of runs that are scored on the same held-out pairs, under the same truth.

    Attributes:
        name: What distinguishes it from other comparisons; empty if there is only one.
        groups: Its runs, by label.
    """

    name: str
    groups: Mapping[str, Sequence[Run]]


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Groups runs whose names, overrides and configs differ at most by seeds.

    Every entry named ``seed`` counts as a seed. Runs that differ only by seeds are one group. If a seed occurs twice in
    a group, the group is divided by the commits of its runs.

    Returns:
        Runs by label, in the given order. A label is the name that the run was given (``name=``), or else the overrides
        that not all groups share.

    Example:
        >>> list(group_runs(find_runs("runs/sweeps/algo.planning_steps-0-5", "runs")))  # doctest: +SKIP
        ['algo.planning_steps=0', 'algo.planning_steps=5']
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps([name_of(run), _overrides(run), _without_seeds(run.config)], sort_keys=True, default=str)
        groups.setdefault(key, []).append(run)
    parts = [part for members in groups.values() for part in _by_commit(members)]
    overrides = [set(_overrides(members[0])) for members, _ in parts]
    common = set.intersection(*overrides) if len(overrides) > 1 else set()
    names = [name_of(members[0]) for members, _ in parts]
    labelled: dict[str, list[Run]] = {}
    for own, name, (members, commit) in zip(overrides, names, parts, strict=True):
        what = ", ".join(sorted(own - common))
        if name:  # a whole sweep may have one name
            what = f"{name}: {what}" if names.count(name) > 1 and what else name
        plain = label = f"{what or 'default'}{commit}"
        number = 2
        while label in labelled:
            # The overrides are equal, but files in conf/ have changed between the runs.
            label = f"{plain} ({number})"
            number += 1
        labelled[label] = members
    return labelled


def like_with_like(
    groups: Mapping[str, Sequence[Run]],
    references_of: Callable[[Run], References] = lambda run: run.summary["references"],
) -> list[Comparison]:
    """Divides groups into those that can be compared, because they share held-out pairs and truth.

    Two groups share them if a run of one has the same references as a run of the other. The metrics of a random choice,
    of the highest cosine and of the oracle are the same only on the same pairs under the same truth.

    Args:
        groups: Runs by label.
        references_of: Function from a run to the metrics of random, cosine and oracle on its pairs.
    """
    parts: list[tuple[set[str], dict[str, Sequence[Run]]]] = []
    for label, members in groups.items():
        marks = {mark_of(references_of(run)) for run in members}
        touched = [part for part in parts if part[0] & marks]
        merged: dict[str, Sequence[Run]] = {}
        for part in touched:
            marks |= part[0]
            merged |= part[1]
            parts.remove(part)
        parts.append((marks, {**merged, label: members}))
    order = list(groups)
    found = [dict(sorted(part.items(), key=lambda item: order.index(item[0]))) for _, part in parts]
    found.sort(key=lambda part: order.index(next(iter(part))))
    if len(found) == 1:
        return [Comparison("", found[0])]
    names = [f"Task {number}{name and f': {name}'}" for number, name in enumerate(_tasks(found), start=1)]
    return [Comparison(name, part) for name, part in zip(names, found, strict=True)]


def mark_of(references: References) -> str:
    """A text that is equal for equal held-out pairs and truth: the references' metrics, to nine digits."""
    return json.dumps(
        {
            who: {
                key: None if value is None else round(value, _DIGITS)
                for key, value in metrics.items()
                if key not in _OF_THE_AGENT
            }
            for who, metrics in references.items()
        },
        sort_keys=True,
    )


def newest(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Runs without repeats, and the repeats. Of runs with equal config, seed and commit, the last finished is kept."""
    kept: dict[str, Run] = {}
    repeats = []
    for run in runs:
        config = {key: value for key, value in run.config.items() if key not in HOW_KEYS}
        key = json.dumps([name_of(run), run.summary.get("commit"), config], sort_keys=True, default=str)
        first = kept.get(key)
        if first is not None and _finished(first) > _finished(run):
            repeats.append(run)
            continue
        if first is not None:
            repeats.append(first)
        kept[key] = run
    return [run for run in runs if run in kept.values()], repeats


def repeats_in_words(repeats: Sequence[Run]) -> str:
    """A sentence about the repeats that :func:`newest` found; empty if there are none."""
    if not repeats:
        return ""
    folders = ", ".join(str(run.folder) for run in repeats)
    what = "1 older run" if len(repeats) == 1 else f"{len(repeats)} older runs"
    verb = "is" if len(repeats) == 1 else "are"
    return f"{what} of equal config, seed and commit {verb} left out: {folders}"


def name_of(run: Run) -> str:
    """The name that a run was given by ``name=``; empty if none."""
    return str(run.config.get("name") or "")


def _tasks(parts: Sequence[Mapping[str, Sequence[Run]]]) -> list[str]:
    """What distinguishes each task: its overrides if each task has some, or else entries of its config."""
    overrides = [
        set.intersection(*({item for item in _overrides(run) if is_of_the_task(item)} for run in _firsts(part)))
        for part in parts
    ]
    common = set.intersection(*overrides)
    if all(each - common for each in overrides):
        return [", ".join(sorted(each - common)) for each in overrides]
    flat = [flat_config(_without_seeds(_firsts(part)[0].config)) for part in parts]
    differ = sorted(
        key
        for key in {key for config in flat for key in config}
        if is_of_the_task(key) and len({repr(config.get(key)) for config in flat}) > 1
    )
    entries = [[f"{key}={config[key]}" for key in differ if key in config] for config in flat]
    return [", ".join(own[:_MOST_ENTRIES]) + (", ..." if len(own) > _MOST_ENTRIES else "") for own in entries]


def _firsts(part: Mapping[str, Sequence[Run]]) -> list[Run]:
    return [members[0] for members in part.values()]


def is_of_the_task(entry: str) -> bool:
    """Whether an override or a dotted key belongs to the task, not to the agent."""
    return re.split(r"[.=@]", entry.lstrip("+~"), maxsplit=1)[0] in _TASK


def _by_commit(members: list[Run]) -> list[tuple[list[Run], str]]:
    """The group, divided by commit if a seed occurs twice in it. Each part comes with an addition to its label."""
    seeds = [_seeds(run.config) for run in members]
    commits = list(dict.fromkeys(run.summary.get("commit") for run in members))
    if len(commits) == 1 or all(seeds.count(seed) == 1 for seed in seeds):
        return [(members, "")]
    return [
        ([run for run in members if run.summary.get("commit") == commit], f" at {commit or 'an unknown commit'}")
        for commit in commits
    ]


def _finished(run: Run) -> str:
    return str(run.summary.get("wall_clock", {}).get("finished", ""))


def _overrides(run: Run) -> list[str]:
    kept = []
    for item in run.summary.get("overrides", []):
        key = item.partition("=")[0].lstrip("+~")
        if key.rpartition(".")[2] != "seed" and key.partition(".")[0] not in WHERE_KEYS:
            kept.append(item)
    return sorted(kept)


def _seeds(config: Any) -> str:
    """All entries named ``seed`` of a config."""
    if isinstance(config, Mapping):
        return json.dumps(
            {key: value if key == "seed" else _seeds(value) for key, value in config.items()}, default=str
        )
    return ""


def _without_seeds(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {key: _without_seeds(value) for key, value in config.items() if key not in ("seed", *HOW_KEYS)}
    return config
