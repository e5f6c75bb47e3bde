"""How cost grows with environments, steps, candidates, transitions and jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np

from experiments.benchmarks.memory import filled_replay
from experiments.benchmarks.rows import Row, seconds_per_call
from experiments.runs.folders import write_figure
from jobrec_gym import JobRecVectorEnv, load_market

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["Curve", "growth", "measure_scaling", "plot_scaling", "scaling_rows"]

Curve = Mapping[int, float]
"""Seconds by size."""

_SIZES = (20, 80, 320, 1280)
LINEAR = 1.1
"""Growth counts as linear up to this exponent in seconds ~ size ** exponent."""


def measure_scaling(
    jobs: Sequence[int], transitions: Sequence[int], *, seconds: float, folder: Path
) -> dict[str, Curve]:
    """Seconds by size for each quantity that can grow; all else is as in ``JobRec-v0``.

    Args:
        jobs: Sizes of catalogues.
        transitions: Sizes of replays.
        seconds: Time for each measurement.
        folder: Where catalogues are kept, all in float16 and memory-mapped. Missing ones are made.
    """
    return {
        "environments: one vector step": _curve(
            (16, 64, 256, 1024), seconds, lambda n: _stepper(JobRecVectorEnv(n, observation="ids"))
        ),
        "candidates: one vector step of 64": _curve(
            _SIZES, seconds, lambda k: _stepper(JobRecVectorEnv(64, num_candidates=k))
        ),
        "steps: an episode without repeats": _curve(_SIZES, seconds, _episode),
        "steps: the same, new candidates at each": _curve(_SIZES, seconds, lambda n: _episode(n, "step")),
        "transitions: filling a replay": {n: _filling(n) for n in transitions},
        "jobs: a reset of 64, uniform candidates": _curve(jobs, seconds, lambda n: _reset(n, folder)),
    }


def scaling_rows(curves: Mapping[str, Curve]) -> Iterator[Row]:
    """A row with the exponent of each curve's growth; 1 is linear, 0 is no growth."""
    for name, curve in curves.items():
        sizes = f"{min(curve):,} to {max(curve):,}"
        details = {"seconds": {str(size): value for size, value in curve.items()}}
        yield Row(f"{name}, {sizes}", growth(curve), "exponent", "linear growth: 1", LINEAR, "at most", details)


def growth(curve: Curve) -> float:
    """Exponent of seconds ~ size ** exponent between the two largest sizes, where fixed costs weigh least."""
    (small, before), (large, after) = sorted(curve.items())[-2:]
    return float(np.log(after / before) / np.log(large / small))


def plot_scaling(curves: Mapping[str, Curve], path: Path) -> None:
    """Plots every curve on logarithmic axes, with a line of linear growth."""
    figure, axes = plt.subplots(figsize=(8.0, 5.0), layout="constrained")
    for name, curve in curves.items():
        sizes = sorted(curve)
        axes.plot(sizes, [1e3 * curve[size] for size in sizes], marker="o", markersize=4, label=name)
    low, high = axes.get_xlim()
    at = np.geomspace(max(low, 10), high, 2)
    axes.plot(at, 0.02 * at / at[0], color="#999999", linestyle=":", label="linear growth")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("how many")
    axes.set_ylabel("milliseconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=2)
    write_figure(path, figure, dpi=140, metadata={"Software": None})
    plt.close(figure)


def _curve(sizes: Sequence[int], seconds: float, make: Callable[[int], Callable[[], Any]]) -> Curve:
    calls = {size: make(size) for size in sizes}
    # The smallest of three times, measured by turns, so that other processes do not look like growth.
    rounds = [{size: seconds_per_call(call, seconds=seconds / 3) for size, call in calls.items()} for _ in range(3)]
    return {size: min(measured[size] for measured in rounds) for size in sizes}


def _stepper(envs: JobRecVectorEnv) -> Callable[[], Any]:
    envs.reset(seed=0)
    actions = np.zeros(envs.num_envs, dtype=np.int64)
    return lambda: envs.step(actions)


def _episode(n_steps: int, resample: Literal["episode", "step"] = "episode") -> Callable[[], Any]:
    envs = JobRecVectorEnv(1, None, num_candidates=1280, observation="ids", repeats=False, resample=resample)

    def play() -> None:
        envs.reset()
        for _ in range(n_steps - 1):
            envs.step(envs.action_masks().argmax(axis=1))

    return play


def _filling(n: int) -> float:
    begin = time.perf_counter()
    filled_replay(n, "ids")
    return time.perf_counter() - begin


def _reset(n_jobs: int, folder: Path) -> Callable[[], Any]:
    n_applicants = max(1_000, n_jobs // 10)
    kept = folder / f"market-{n_jobs}-{n_applicants}"
    market = load_market("default", n_jobs=n_jobs, n_applicants=n_applicants, dtype="float16", folder=str(kept))
    envs = JobRecVectorEnv(64, market=market)
    envs.reset(seed=0)
    return envs.reset
