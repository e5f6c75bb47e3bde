"""Trains learners again for a number of interactions, because a saved agent has no replay."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.logger import Logger

from experiments.runs.build import Setup, build
from experiments.runs.folders import Run, RunError, find_runs
from experiments.runs.numbers import require_known
from experiments.runs.recording import AtInteractions, Interactions
from experiments.runs.trust import require_trust

__all__ = ["Relearned", "learners_of", "relearn", "runs_of"]


class Relearned(NamedTuple):
    """An agent that was trained in this process.

    Attributes:
        setup: Its run, with the market and the truth.
        model: The agent with its replay.
        interactions: The interactions that it learned from; ``None`` if there are none.
    """

    setup: Setup
    model: Any
    interactions: Interactions | None


def relearn(run: Run, interactions: int, trust: bool = False) -> Relearned:
    """Trains the agent of a finished run again. The same seed gives the same agent.

    Args:
        run: A finished run.
        interactions: How many interactions.
        trust: See :func:`~experiments.runs.saved.load_run`.

    Raises:
        RunError: If the run was pre-trained, which is not supported here, or its config could run code of others and is
            not trusted.
    """
    require_trust(run.config, run.folder, trust, loads_agent=False)
    setup = build(run.config)
    if setup.pretraining.epochs:
        raise RunError(f"{run.folder} was pre-trained: choose runs without `pretrain.epochs`.")
    torch.set_num_threads(setup.threads)
    model = setup.algorithm.make(setup.env)
    model.set_logger(Logger(None, []))
    model.learn(interactions, callback=AtInteractions([], lambda now: None))
    return Relearned(setup, model, setup.env.take())


def learners_of(folder: str | None, only: Iterable[str] | None) -> Iterator[tuple[str, list[Run]]]:
    """The finished runs of each learner in a folder that ``experiments.coldstart`` left.

    Raises:
        RunError: If there is no such folder, no learner in it, or a learner has no runs.
    """
    if folder is None:
        raise RunError(
            "`runs` must be given: the folder of a setting that experiments.coldstart left, e.g. "
            "runs=runs/coldstart/full/vectors."
        )
    if not Path(folder).is_dir():
        raise RunError(f"`runs`: there is no folder {folder}.")
    there = sorted(path.name for path in Path(folder).glob("*/"))
    names = there if only is None else list(only)
    if there:
        require_known("only", names, there, folder)
    if not names:
        raise RunError(
            f"`runs`: {folder} holds no learner: give the folder of a setting, which has a folder for each learner."
        )
    for name in names:
        yield name, find_runs(str(Path(folder) / name), "runs")


def runs_of(folder: str | None, only: Iterable[str] | None, seeds: Collection[int]) -> list[tuple[str, Run]]:
    """The finished runs of some seeds, each with the name of its learner; see :func:`learners_of`.

    Raises:
        RunError: As :func:`learners_of`, or if a learner has no run of any of the seeds.
    """
    found = []
    for name, runs in learners_of(folder, only):
        of_seeds = [(name, run) for run in runs if run.summary["seed"] in seeds]
        if not of_seeds:
            there = sorted(run.summary["seed"] for run in runs)
            raise RunError(f"`seeds`: learner {name!r} has no finished run of seeds {list(seeds)}, but of {there}.")
        found += of_seeds
    return found
