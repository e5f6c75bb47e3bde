"""The runs of ``experiments.career``: a learner on ``JobRecCareer-v0``, evaluated on others as it learns."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
import torch as th
from hydra.utils import get_object
from numpy.typing import NDArray

from experiments.runs.folders import RunError, read_json, write_figure, write_json
from experiments.runs.progress import Progress
from experiments.runs.tables import Table
from experiments.studies.career_values import evenly_spread
from jobrec_gym import RuleSimulator
from jobrec_gym.career import EPISODE_STEPS
from jobrec_gym.oracle import CareerOracle

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["evaluated", "figure_of", "plan_of", "run_plan", "table_of"]

Options = Mapping[str, Any]

_COSINE = "cosine"
_EPISODES_SEED = 4_000_000
_PAIRS = ("pairs", "progress")
_VARIED = "dynaq_plus"


def plan_of(options: Options) -> list[dict[str, Any]]:
    """The runs that a config asks for, each in plain JSON, equal for equal work.

    Raises:
        RunError: For a learner that nobody defines, points that do not ascend from 0, or no policy to compare with.
    """
    at = list(options["at"])
    if not at or at[0] < 0 or at != sorted(set(at)):
        raise RunError(f"`at` must be ascending numbers of interactions of 0 or more, got {at}.")
    define = dict(options["define"])
    names = list(options["learners"])
    for argument, values in options["one_by_one"].items():
        for value in values:
            name = f"{_VARIED}, {argument} {value}"
            define[name] = {**define[_VARIED], argument: value}
            names.append(name)
    if not options["oracles"]:
        raise RunError("`oracles` must name at least one policy to compare with, such as oracles=[best], got none.")
    for name in names:
        if name != _COSINE and name not in define:
            raise RunError(f"`learners` must be {_COSINE!r} or names of `define`, {sorted(define)}, got {name!r}.")
    shared = {key: options[key] for key in ("env", "noise", "n_applicants")}
    plan = [
        {"oracle": policy, "seed": seed, "n_sets": options["n_sets"], **shared}
        for policy in options["oracles"]
        for seed in options["seeds"]
    ]
    for name in names:
        learner = {} if name == _COSINE else define[name]
        points = [0] if name == _COSINE else at
        plan += [{"name": name, "learner": learner, "seed": seed, "at": points, **shared} for seed in options["seeds"]]
    return plan


def run_plan(plan: list[dict[str, Any]], folder: Path, n_jobs: int) -> dict[str, Any]:
    """Does what is missing in a folder, and returns all results, in plain JSON.

    A run is kept when it is done, with what it was asked for; one that was asked for in other words is done anew.

    Args:
        plan: As of :func:`plan_of`.
        folder: Where results are kept.
        n_jobs: How many processes.
    """
    results: dict[int, dict[str, Any]] = {}
    missing = []
    for number, asked in enumerate(plan):
        path = _path(folder, asked)
        kept = read_json(path, "Remove it, and it is made again.") if path.is_file() else None
        if kept is not None and kept.get("asked") == asked:
            results[number] = kept
        else:
            missing.append(number)
    with Progress(len(plan), "careers", "run", done=len(results)) as progress:

        def keep(number: int, found: dict[str, Any]) -> None:
            results[number] = {"asked": plan[number], **found}
            write_json(_path(folder, plan[number]), results[number])
            progress.update()

        if n_jobs == 1:
            for number in missing:
                keep(number, _done(plan[number]))
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(n_jobs, mp_context=context) as pool:
                waiting = {pool.submit(_done, plan[number]): number for number in missing}
                for one in as_completed(waiting):
                    keep(waiting[one], one.result())
    return {"runs": [results[number] for number in range(len(plan))]}


def evaluated(model: Any, asked: Options) -> dict[str, Any]:
    """What an agent's greedy policy earns with held-out applicants, an episode each; the same ones for all agents.

    Args:
        model: With ``predict``; ``None`` for the most similar job.
        asked: An entry of a plan.

    Returns:
        ``return``, the mean sum of rewards; ``levels``, the share of applicants that reached each level at most;
        ``left``, the share that left; ``steps``, the mean length.
    """
    shows = asked.get("learner", {}).get("shows", "ids")
    envs, people = _held_out(asked)
    n = len(people)
    obs, _ = envs.reset(seed=_EPISODES_SEED, options={"applicant_id": people})
    table = envs.unwrapped.action_features
    earned, done, left, steps = np.zeros(n), np.zeros(n, bool), np.zeros(n, bool), np.zeros(n)
    level = np.ones(n, np.int64)
    for _ in range(EPISODE_STEPS):
        if model is None:
            vectors = table[obs["candidates"]][..., : obs["applicant"].shape[1]]
            action = np.einsum("nd,nkd->nk", obs["applicant"], vectors).argmax(axis=1)
        else:
            shown = {key: obs[key] for key in _PAIRS} if shows == "pairs" else obs
            action, _ = model.predict(shown, deterministic=True)
        obs, reward, terminated, truncated, infos = envs.step(np.asarray(action))
        earned += np.where(done, 0.0, reward)
        steps += ~done
        level = np.where(done, level, np.maximum(level, infos["progress/level"]))
        left |= terminated & ~done
        done |= terminated | truncated
    shares = [float((level == one).mean()) for one in range(1, 6)]
    return {"return": float(earned.mean()), "levels": shares, "left": float(left.mean()), "steps": float(steps.mean())}


def table_of(study: Mapping[str, Any]) -> Table:
    """A row a learner: the mean share of the best policy's return, and the worst seed's, at each point."""
    shares = _shares(study)
    points = sorted({point for by_point in shares.values() for point in by_point})
    rows = []
    for name, by_point in shares.items():
        cells = []
        for point in points:
            found = by_point.get(point)
            cells.append("" if found is None else f"{np.mean(found):.3f} ({np.min(found):.3f})")
        cpu = [run["cpu_ms"] for run in study["runs"] if run["asked"].get("name") == name and run.get("cpu_ms")]
        rows.append([name, *cells, f"{np.mean(cpu):.1f}" if cpu else ""])
    header = ["share of the best, mean (worst seed), after", *(f"{point:,}" for point in points), "CPU ms a step"]
    return header, rows


def figure_of(study: Mapping[str, Any], path: Path) -> None:
    """Shares of the best policy's return over interactions; a band from the worst to the best seed."""
    figure, axis = plt.subplots(figsize=(7.0, 4.0), layout="constrained")
    for name, by_point in _shares(study).items():
        points = sorted(by_point)
        means = [float(np.mean(by_point[point])) for point in points]
        if len(points) == 1:
            axis.axhline(means[0], linestyle="--", linewidth=1, color="grey")
            below = "top" if means[0] < 0.2 else "bottom"
            axis.annotate(name, (0.3, means[0]), xycoords=("axes fraction", "data"), va=below, fontsize=9)
            continue
        line = axis.plot(points, means, marker="o", markersize=3, label=name)[0]
        low, high = ([end(by_point[point]) for point in points] for end in (np.min, np.max))
        axis.fill_between(points, low, high, color=line.get_color(), alpha=0.15)
    axis.set_xlabel("interactions")
    axis.set_ylabel("share of the best policy's return")
    axis.set_xscale("symlog", linthresh=100)
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, 0.9))
    write_figure(path, figure, dpi=150, metadata={"Software": None})
    plt.close(figure)


def _shares(study: Mapping[str, Any]) -> dict[str, dict[int, list[float]]]:
    """By name and point a share for each seed; exact policies and cosine have the point 0."""
    runs = study["runs"]
    best_name = next(run["asked"]["oracle"] for run in runs if "oracle" in run["asked"])
    best = {run["asked"]["seed"]: run["value"] for run in runs if run["asked"].get("oracle") == best_name}
    shares: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        asked = run["asked"]
        if "oracle" in asked:
            name = f"{asked['oracle']} policy, exact"
            shares.setdefault(name, {}).setdefault(0, []).append(run["value"] / best[asked["seed"]])
            continue
        for point in run["points"]:
            by_point = shares.setdefault(asked["name"], {}).setdefault(point["after"], [])
            by_point.append(point["return"] / best[asked["seed"]])
    return shares


def _done(asked: dict[str, Any]) -> dict[str, Any]:
    """One entry of a plan."""
    th.set_num_threads(1)
    if "oracle" in asked:
        env = _training_env({**asked, "learner": {}}, split="test")
        oracle = CareerOracle(env, asked["oracle"], n_sets=asked["n_sets"])
        values, errors = oracle.values(_people(env, asked["n_applicants"]))
        return {"value": float(values.mean()), "error": float(np.sqrt((errors**2).sum()) / len(errors))}
    if not asked["learner"]:
        return {"points": [{"after": 0, **evaluated(None, asked)}]}
    learner = dict(asked["learner"])
    make = get_object(learner.pop("_target_"))
    shows = learner.pop("shows", "ids")
    env = _training_env(asked, split="train")
    if shows == "pairs":
        env = gym.wrappers.FilterObservation(env, _PAIRS)
    model = make(env=env, seed=asked["seed"], **learner)
    points: list[dict[str, Any]] = []
    seconds, before = 0.0, 0
    for after in asked["at"]:
        if after > before:
            began = time.process_time()
            model.learn(after - before, reset_num_timesteps=before == 0, log_interval=None)
            seconds += time.process_time() - began
            before = after
        points.append({"after": after, **evaluated(model, asked)})
    return {"points": points, "cpu_ms": 1_000 * seconds / max(before, 1)}


def _training_env(asked: Options, split: str) -> gym.Env[Any, Any]:
    simulator = RuleSimulator(seed=asked["seed"], noise=asked["noise"])
    return gym.make("JobRecCareer-v0", **asked["env"], observation="ids", split=split, simulator=simulator)


def _held_out(asked: Options) -> tuple[gym.vector.VectorEnv, NDArray[np.int64]]:
    people = _people(_training_env(asked, split="test"), asked["n_applicants"])
    simulator = RuleSimulator(seed=asked["seed"], noise=asked["noise"])
    arguments = {**asked["env"], "observation": "ids", "split": "test", "simulator": simulator}
    return gym.make_vec("JobRecCareer-v0", num_envs=len(people), **arguments), people


def _people(env: gym.Env[Any, Any], n: int | None) -> NDArray[np.int64]:
    return evenly_spread(env.unwrapped.problem.applicant_ids, "n_applicants", n)  # type: ignore[attr-defined]


def _path(folder: Path, asked: Options) -> Path:
    name = f"exact {asked['oracle']}" if "oracle" in asked else asked["name"]
    return folder / name.replace("/", " ") / f"seed_{asked['seed']}.json"
