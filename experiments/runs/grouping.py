"""Which runs are the same but for their seeds, and what tells the others apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.runs.folders import HOW_KEYS, Run

__all__ = ["group_runs"]


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Groups runs of equal overrides and equal configs but for seeds.

    Any entry named ``seed`` counts as one: what differs by nothing else is a repetition.

    Returns:
        Runs by label, in the order in which they came; a label has the overrides that not all groups share.

    Example:
        >>> list(group_runs(find_runs("runs/sweeps/algo.planning_steps-0-5", "runs")))  # doctest: +SKIP
        ['algo.planning_steps=0', 'algo.planning_steps=5']
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps([_overrides(run), _without_seeds(run.config)], sort_keys=True, default=str)
        groups.setdefault(key, []).append(run)
    overrides = [set(_overrides(members[0])) for members in groups.values()]
    common = set.intersection(*overrides) if len(overrides) > 1 else set()
    labelled: dict[str, list[Run]] = {}
    for own, members in zip(overrides, groups.values(), strict=True):
        label = ", ".join(sorted(own - common)) or "default"
        number = 2
        while label in labelled:
            # Equal overrides, but the files in conf/ have changed in between.
            label = f"{label.partition(' (')[0]} ({number})"
            number += 1
        labelled[label] = members
    return labelled


def _overrides(run: Run) -> list[str]:
    kept = []
    for item in run.summary.get("overrides", []):
        key = item.partition("=")[0].lstrip("+~")
        if key.rpartition(".")[2] != "seed" and key not in (*HOW_KEYS, "launcher"):
            kept.append(item)
    return sorted(kept)


def _without_seeds(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {key: _without_seeds(value) for key, value in config.items() if key not in ("seed", *HOW_KEYS)}
    return config
