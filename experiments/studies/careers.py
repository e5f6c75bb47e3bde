"""The runs of ``experiments.career``: learners on ``JobRecCareer-v0``, evaluated on held-out applicants."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from hydra.utils import get_object
from numpy.typing import NDArray

from experiments.pages.plots import BEST_POLICY, Figure, level_paths
from experiments.runs.careers import Careers, Predict, cosine_choice, evenly_spread, play
from experiments.runs.folders import RunError, as_written, commit_of_checkout, read_json, write_json
from experiments.runs.processes import in_processes
from experiments.runs.progress import Progress
from experiments.runs.recording import AtInteractions
from experiments.runs.sb3_arguments import as_sb3_wants
from experiments.runs.tables import Table
from experiments.studies.career_plan import Options
from experiments.studies.figure import plot_shares
from jobrec_gym import make_simulator
from jobrec_gym.market import SENIORITY_LEVELS
from jobrec_gym.near_miss import best_match
from jobrec_gym.oracle import CareerOracle
from jobrec_gym.simulators.base import UserSimulator

__all__ = [
    "careers_table",
    "evaluated",
    "figure_of",
    "held_out",
    "hours_of",
    "name_of",
    "one_career",
    "run_plan",
    "shares_of",
    "table_of",
    "training_env",
    "without_share",
]

_EPISODES_SEED = 4_000_000
_PAIRS = ("pairs", "progress")


def run_plan(plan: list[dict[str, Any]], folder: Path, n_jobs: int) -> dict[str, Any]:
    """Makes the runs that a folder lacks, and returns all results, in plain JSON.

    A finished run is kept with its entry of the plan, and with the commit that made it. If the entry has changed, the
    run is made again.

    Args:
        plan: See :func:`~experiments.studies.career_plan.plan_of`.
        folder: Where results are kept.
        n_jobs: How many processes.

    Raises:
        RunError: If a learner cannot be made, before the first run.
    """
    results: dict[Path, dict[str, Any]] = {}
    missing = []
    for asked in plan:
        path = _path(folder, asked)
        kept = read_json(path, "Remove it, and it is made again.") if path.is_file() else None
        if kept is not None and kept.get("asked") == as_written(asked):
            results[path] = kept
        else:
            missing.append(asked)
    _require_makable(missing)
    commit = commit_of_checkout()
    with Progress(len(plan), "careers", "run", done=len(results)) as progress:
        one_by_one = ((asked, _done(asked)) for asked in missing)
        for asked, found in one_by_one if n_jobs == 1 else in_processes(_done, missing, n_jobs):
            path = _path(folder, asked)
            results[path] = {"asked": asked, "commit": commit, **found}
            write_json(path, results[path])
            progress.update()
    return {"runs": [results[_path(folder, asked)] for asked in plan]}


def _require_makable(runs: Sequence[dict[str, Any]]) -> None:
    """Makes each kind of learner once, and drops it, so that a wrong argument is found before the first run."""
    if runs:
        _people(training_env(runs[0], split="test"), runs[0]["n_applicants"])
    made: list[Any] = []
    for asked in runs:
        learner = asked.get("learner")
        if not learner or learner in made:
            continue
        target, wrong = learner["_target_"], f"learner {asked['name']!r} cannot be made"
        try:
            make = resolve_name(target)
        except (ImportError, AttributeError, ValueError) as error:
            raise RunError(f"{wrong}: there is no {target} to be imported: {error}.") from error
        try:
            _new_learner(asked)
        except (ValueError, TypeError, LookupError, AssertionError) as error:
            raise RunError(f"{wrong}: {_in_words(error, make)}") from error
        made.append(learner)


def _in_words(error: Exception, make: Callable[..., Any]) -> str:
    """An error of a learner's arguments as a sentence. For an unknown argument it has the one that may be meant."""
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    unknown = re.search(r"unexpected keyword argument '(\w+)'", said)
    near = best_match(unknown[1], inspect.signature(make).parameters) if unknown else ""
    return f"{said}: did you mean {near!r}?" if near else said if said.endswith("?") else f"{said}."


def held_out(asked: Options) -> tuple[gym.vector.VectorEnv, NDArray[np.int64]]:
    """Environments for an entry of a plan, one for each held-out applicant, and the applicants' rows.

    The applicants are the same for all learners.
    """
    people = _people(training_env(asked, split="test"), asked["n_applicants"])
    arguments = {**asked["env"], "observation": "ids", "split": "test", "simulator": _truth(asked)}
    return gym.make_vec("JobRecCareer-v0", num_envs=len(people), **arguments), people


def evaluated(model: Any, asked: Options, envs: gym.vector.VectorEnv, people: NDArray[np.int64]) -> dict[str, Any]:
    """Results of an agent's greedy policy in an episode with each held-out applicant, the same at each call.

    Args:
        model: An agent with ``predict``; ``None`` for the most similar job.
        asked: An entry of a plan.
        envs: See :func:`held_out`.
        people: The rows of the applicants in ``envs``.

    Returns:
        ``return``, the mean sum of rewards; ``levels``, the shares of applicants whose highest level was 1 to 5;
        ``left``, the share that left; ``left_by``, the share that had left after some numbers of steps; ``steps``, the
        mean length; ``one``, the career of one applicant, see :meth:`~experiments.runs.careers.Careers.one`.
    """
    predict = cosine_choice(envs.unwrapped.action_features) if model is None else model.predict
    if model is not None and asked["learner"].get("shows") == "pairs":
        predict = _of_pairs(predict)
    return _told(play(envs, people, _EPISODES_SEED, predict))


def _told(careers: Careers) -> dict[str, Any]:
    figures = {name: careers.figures()[name] for name in ("return", "left", "steps")}
    return {**figures, **careers.shares(), "one": careers.one(len(careers.steps) // 2)}


def _of_pairs(predict: Predict) -> Predict:
    """A policy that is shown only ``pairs`` and ``progress``."""
    return lambda observation, **others: predict({key: observation[key] for key in _PAIRS}, **others)


def table_of(study: Mapping[str, Any]) -> Table:
    """A row for each learner: its mean share of the best policy's return, and the worst seed's, at each point."""
    shares = shares_of(study)
    points = sorted({point for run in study["runs"] for point in _returns(run)})
    rows = []
    for name, by_point in shares.items():
        cells = []
        for point in points:
            found = list(by_point.get(point, {}).values())
            cells.append("" if not found else f"{np.mean(found):.3f} ({np.min(found):.3f})")
        cpu = [run["cpu_ms"] for run in study["runs"] if run["asked"].get("name") == name and run.get("cpu_ms")]
        rows.append([name, *cells, f"{np.mean(cpu):.1f}" if cpu else ""])
    header = ["share of the best, mean (worst seed), after", *(f"{point:,}" for point in points), "CPU ms a step"]
    return header, rows


def careers_table(study: Mapping[str, Any]) -> Table:
    """A row for each exact policy and learner: shares of applicants by highest level, and shares that left.

    Learners are taken after their last interaction. Results of an earlier version have levels only.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in study["runs"]:
        told = run.get("played") if "oracle" in run["asked"] else run["points"][-1]
        if told is not None:
            found.setdefault(name_of(run["asked"]), []).append(told)
    kept = [told["left_by"] for parts in found.values() for told in parts if "left_by" in told]
    by = list(kept[0]) if kept else []
    rows = []
    for name, parts in found.items():
        known = [told["levels"] for told in parts if told["levels"]]  # a user's dynamics may have no levels
        levels = np.transpose(known).tolist() if known else [[]] * len(SENIORITY_LEVELS)
        left = [[told["left_by"][steps] for told in parts if "left_by" in told] for steps in by]
        cells = [f"{np.mean(shares):.3f}" if shares else "" for shares in (*levels, *left)]
        rows.append([name, *cells, f"{np.mean([told['steps'] for told in parts]):.1f}"])
    header = ["share of applicants, by highest level", *map(str, range(1, 6))]
    return [*header, *(f"left by {steps}" for steps in by), "steps"], rows


def one_career(study: Mapping[str, Any], names: Sequence[str], folder: Path) -> Figure | None:
    """Draws one applicant's level over time under the best policy and some learners, for the first seed.

    Args:
        study: See :func:`run_plan`.
        names: Names of the learners, in the order of the legend.
        folder: Receives ``one_career.png`` and ``one_career.svg``.
    """
    first = study["runs"][0]["asked"]["seed"]
    told: dict[str, Mapping[str, Any]] = {}
    for run in study["runs"]:
        asked = run["asked"]
        if asked["seed"] == first and (asked.get("oracle") == "best" or asked.get("name") in names):
            last = run.get("played", {}) if "oracle" in asked else run["points"][-1]
            told[BEST_POLICY if "oracle" in asked else asked["name"]] = last.get("one") or {}
    order = [name for name in (*names, BEST_POLICY) if told.get(name, {}).get("levels")]
    paths = {name: (told[name]["levels"], told[name]["left"]) for name in order}
    title = "One applicant's level over time"
    return level_paths(folder, "one_career", title, "A cross: the applicant leaves. First seed.", paths)


def figure_of(study: Mapping[str, Any], names: Sequence[str], path: Path) -> None:
    """Draws shares of the best policy's return over interactions, with a band from the worst to the best seed.

    Args:
        study: See :func:`run_plan`.
        names: Names of the learners to draw. The exact policies are always drawn.
        path: Path of the PNG.
    """
    found = shares_of(study)
    # Exact policies and cosine have one point, 0, which the learners may lack. One point makes no curve.
    points = sorted({point for by_point in found.values() if len(by_point) > 1 for point in by_point})
    shares: dict[str, NDArray[np.float64]] = {}
    levels: dict[str, float] = {}
    exact = {name_of(run["asked"]) for run in study["runs"] if "oracle" in run["asked"]}
    found = {name: by_point for name, by_point in found.items() if by_point}
    for name, by_point in found.items():
        if name in names and len(by_point) == len(points) > 1:
            shares[name] = np.array([list(by_point[point].values()) for point in points]).T
        elif name in names or name in exact:
            levels[name] = float(np.mean(list(next(iter(by_point.values())).values())))
    plot_shares(points, shares, levels, "share of the best policy's return", path)


def shares_of(study: Mapping[str, Any]) -> dict[str, dict[int, dict[int, float]]]:
    """Shares of the best policy's exact return.

    Returns:
        Name -> number of interactions -> seed -> share. Exact policies and cosine have only the number 0. Seeds of
        :func:`without_share` are left out.
    """
    runs = study["runs"]
    best, without = _best(study), without_share(study)
    shares: dict[str, dict[int, dict[int, float]]] = {}
    for run in runs:
        asked, seed = run["asked"], run["asked"]["seed"]
        by_point = shares.setdefault(name_of(asked), {})
        if seed not in without:
            for point, value in _returns(run).items():
                by_point.setdefault(point, {})[seed] = value / best[seed]
    return shares


def without_share(study: Mapping[str, Any]) -> list[int]:
    """Seeds for which the best policy's return is not above 0, so that no share of it says who earned more."""
    return [seed for seed, value in _best(study).items() if value <= 0]


def _best(study: Mapping[str, Any]) -> dict[int, float]:
    """The best policy's exact return for each seed."""
    return {run["asked"]["seed"]: run["value"] for run in study["runs"] if run["asked"].get("oracle") == "best"}


def _returns(run: Mapping[str, Any]) -> dict[int, float]:
    """The return of a run after each number of interactions; that of an exact policy after 0."""
    return {0: run["value"]} if "oracle" in run["asked"] else {p["after"]: p["return"] for p in run["points"]}


def name_of(asked: Options) -> str:
    """The name of a run's learner or exact policy."""
    return f"{asked['oracle']} policy, exact" if "oracle" in asked else asked["name"]


def hours_of(study: Mapping[str, Any]) -> float | None:
    """Hours of one core that all runs of a study took together, evaluations and exact values included.

    ``None`` if a run does not say how long it took, as runs of an earlier version do not.
    """
    seconds = [run.get("cpu_seconds") for run in study["runs"]]
    return None if None in seconds else sum(seconds) / 3_600


def _done(asked: dict[str, Any]) -> dict[str, Any]:
    """Makes the run of one entry of a plan; returns its results, and how long the processor worked on it."""
    th.set_num_threads(1)
    began = time.process_time()
    found = _results_of(asked)
    return {**found, "cpu_seconds": time.process_time() - began}


def _results_of(asked: dict[str, Any]) -> dict[str, Any]:
    if "oracle" in asked:
        env = training_env(asked, split="test")
        oracle = CareerOracle(env, asked["oracle"], n_sets=asked["n_sets"])
        envs, people = held_out(asked)
        played = _told(play(envs, people, _EPISODES_SEED, oracle.predict))
        values, errors = oracle.values(people)
        error = float(np.sqrt((errors**2).sum()) / len(errors))
        return {"value": float(values.mean()), "error": error, "played": played}
    if not asked["learner"]:
        return {"points": [{"after": 0, **evaluated(None, asked, *held_out(asked))}]}
    model = _new_learner(asked)
    points: list[dict[str, Any]] = []
    envs, people = held_out(asked)
    began, evaluating = time.process_time(), 0.0

    def evaluate(after: int) -> None:
        nonlocal evaluating
        now = time.process_time()
        learning = now - began - evaluating
        points.append({"after": after, "cpu_seconds": learning, **evaluated(model, asked, envs, people)})
        evaluating += time.process_time() - now

    # All in one call of `learn`, because schedules, such as that of epsilon, are over the whole call.
    n = asked["at"][-1]
    model.learn(n, callback=AtInteractions(asked["at"], evaluate), log_interval=None)
    return {"points": points, "cpu_ms": 1_000 * points[-1]["cpu_seconds"] / max(n, 1)}


def _new_learner(asked: Options) -> Any:
    """The learner of an entry of a plan, which has not learned yet."""
    learner = dict(asked["learner"])
    make = get_object(learner.pop("_target_"))
    shows = learner.pop("shows", "ids")
    env = training_env(asked, split="train")
    if shows == "pairs":
        env = gym.wrappers.FilterObservation(env, _PAIRS)
    return make(env=env, seed=asked["seed"], **{**learner, **as_sb3_wants(asked["learner"])})


def training_env(asked: Options, split: str) -> gym.Env[Any, Any]:
    """A ``JobRecCareer-v0`` of ids for the ``env``, ``noise``, ``seed`` and ``simulator`` of an entry of a plan."""
    return gym.make("JobRecCareer-v0", **asked["env"], observation="ids", split=split, simulator=_truth(asked))


def _truth(asked: Options) -> UserSimulator:
    arguments = {"seed": asked["seed"], "noise": asked["noise"], **asked.get("simulator", {})}
    return make_simulator({"type": "rules", **arguments})


def _people(env: gym.Env[Any, Any], n: int | None) -> NDArray[np.int64]:
    return evenly_spread(env.unwrapped.problem.applicant_ids, "n_applicants", n)  # type: ignore[attr-defined]


def _path(folder: Path, asked: Options) -> Path:
    name = f"exact {asked['oracle']}" if "oracle" in asked else asked["name"]
    return folder / name.replace("/", " ") / f"seed_{asked['seed']}.json"
