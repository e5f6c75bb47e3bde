"""``python -m experiments.studies.coverage``: how often intervals of off-policy estimates contain the exact value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from experiments.runs.command import command
from experiments.runs.folders import RunError, commit_of_checkout, commits_by, read_json, write_json
from experiments.runs.numbers import require_known
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table
from jobrec_gym import Interactions, LabourMarket, RuleSimulator, load_market
from jobrec_gym.counter_rng import hash64, permute
from jobrec_gym.off_policy import METHODS, RELIABLE_FROM, estimate_all, pair_numbers

__all__ = ["GOAL", "Overlap", "PlantedLogs", "coverage_table", "run_cell"]

Floats = NDArray[np.float64]
Overlap = Literal["good", "poor"]

GOAL = (0.93, 0.97)
"""Goal for the coverage of 95 % intervals of SNIPS and DR, at an effective sample size of 200 or more."""

_N_JOBS, _N_CANDIDATES, _N_DECISIONS, _NOISE = 200, 10, 5, 0.5
_SETS, _ANSWERS = 1, 2
_SAVED_EVERY = 25


@command(config_path="../../conf", config_name="coverage")
def main(cfg: DictConfig) -> None:
    """Estimates a policy's value on many planted logs, prints how often intervals contain it, and writes the JSON."""
    require_known("overlaps", cfg.overlaps, get_args(Overlap), "the kinds of logs")
    for size in cfg.sizes:
        if size < 2 * _N_DECISIONS or size % _N_DECISIONS:
            raise RunError(
                f"`sizes` must be at least {2 * _N_DECISIONS} and multiples of {_N_DECISIONS}, because each person has "
                f"{_N_DECISIONS} decisions, got {size}."
            )
    folder = Path(cfg.folder)
    planted = PlantedLogs(cfg.n_people, cfg.seed)
    cells: dict[tuple[str, int], dict[str, Any]] = {}
    with Progress(len(cfg.overlaps) * len(cfg.sizes) * cfg.n_logs, "coverage", "log") as progress:
        for overlap in cfg.overlaps:
            for size in cfg.sizes:
                file = folder / "cells" / f"{overlap}-{size}.json"
                cells[overlap, size] = run_cell(planted, overlap, size, cfg.n_logs, cfg.n_resamples, file, progress)
    header, rows = coverage_table(cells)
    print(format_table([header[0], *header[1:]], rows))
    about = {
        "n_logs": cfg.n_logs,
        "n_resamples": cfg.n_resamples,
        "n_people": cfg.n_people,
        "seed": cfg.seed,
        "commit": commit_of_checkout(),
        "commits": commits_by(
            (_named(*which), log.get("commit")) for which, cell in cells.items() for log in cell["logs"]
        ),
    }
    path = folder / "coverage.json"
    write_json(path, {**about, "tables": [{"header": header, "rows": rows}]})
    print(f"\nnumbers  {path}")


@dataclass(frozen=True)
class PlantedLogs:
    """A population of decisions whose exact values are known, and logs that are drawn from it.

    Each person of the population has five candidate sets of ten jobs each, drawn from 200 jobs. A log draws people with
    replacement and has all their decisions. With good overlap, the log's policy is half uniform and half a softmax of
    the cosine, and the policy to be valued is a softmax of shared skills and seniority. With poor overlap, both
    policies are epsilon-greedy with epsilon .1: the log's by the cosine, the policy to be valued by shared skills and
    seniority.

    Args:
        n_people: Size of the population.
        seed: Seed of market, truth, sets and logs.
    """

    n_people: int
    seed: int = 0

    @cached_property
    def market(self) -> LabourMarket:
        """The market of the population."""
        return load_market("default", n_jobs=_N_JOBS, n_applicants=self.n_people, seed=self.seed)

    @cached_property
    def truth(self) -> Any:
        """The simulator that answers, bound to the market."""
        return RuleSimulator(seed=self.seed, noise=_NOISE).bind(self.market)

    @cached_property
    def people(self) -> NDArray[np.int64]:
        """The person of each decision, (n,)."""
        return np.repeat(np.arange(self.n_people), _N_DECISIONS)

    @cached_property
    def sets(self) -> NDArray[np.int64]:
        """Candidates of each decision, (n, 10)."""
        keys = hash64(self.seed, _SETS, np.arange(len(self.people)))
        return permute(keys[:, None], np.arange(_N_CANDIDATES), _N_JOBS)

    @cached_property
    def numbers(self) -> NDArray[np.float32]:
        """Inputs of the regressions of DM and DR for all pairs, (people, jobs, p), computed once for all logs."""
        return pair_numbers(self.market, np.arange(self.n_people)[:, None], np.arange(_N_JOBS))

    @cached_property
    def chances(self) -> dict[str, tuple[Floats, Floats]]:
        """Probabilities (n, 10) of the candidates by the log's policy, and by the policy to be valued, by overlap."""
        shown = self.numbers[self.people[:, None], self.sets].astype(np.float64)
        cosine, shared = _standard(shown[..., :2].sum(axis=-1)), _standard(shown[..., 2:].sum(axis=-1))
        return {
            "good": (0.5 / _N_CANDIDATES + 0.5 * _softmax(cosine), _softmax(shared)),
            "poor": (_greedy(cosine), _greedy(shared)),
        }

    @cached_property
    def expected(self) -> Floats:
        """Exact mean reward of each candidate of each decision, (n, 10)."""
        rewards: Floats = self.truth.expected_reward(self.people[:, None], self.sets)
        return rewards

    def value(self, overlap: str) -> float:
        """The exact value of the policy, over the population."""
        return float((self.chances[overlap][1] * self.expected).sum(axis=1).mean())

    def log(self, overlap: str, size: int, number: int) -> tuple[Interactions, Floats]:
        """A log of ``size`` recommendations, and the policy's probabilities on it (size, 10)."""
        rng = np.random.default_rng((self.seed, size, number))
        drawn = rng.integers(self.n_people, size=size // _N_DECISIONS)
        rows = (drawn[:, None] * _N_DECISIONS + np.arange(_N_DECISIONS)).ravel()
        behaviour, policy = (chances[rows] for chances in self.chances[overlap])
        chosen = (behaviour.cumsum(axis=1) > rng.random((size, 1))).argmax(axis=1)
        each = np.arange(size)
        people, sets = self.people[rows], self.sets[rows]
        jobs = sets[each, chosen]
        answers = self.truth.feedback(people, jobs, hash64(self.seed, _ANSWERS, number, each))
        log = Interactions.of(self.market, people, jobs, answers.reward, shown=sets, propensity=behaviour[each, chosen])
        return log, policy


def run_cell(
    planted: PlantedLogs,
    overlap: str,
    size: int,
    n_logs: int,
    n_resamples: int,
    file: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Makes estimates on logs of one kind. Those that the file already has are read from it.

    Args:
        planted: The population from which logs are drawn.
        overlap: ``"good"`` or ``"poor"``.
        size: Recommendations in a log.
        n_logs: How many logs.
        n_resamples: Resamples of each bootstrap.
        file: File that gets the results after every 25 logs.
        progress: Display that is updated for each log.

    Returns:
        ``exact``, the value that is estimated, and ``logs``. Each log has ``commit`` (of the code that made it, missing
        in files of earlier versions), ``size`` (the effective sample size) and, by method, value, low and high.
    """
    about = {"overlap": overlap, "size": size, "n_resamples": n_resamples, "people": planted.n_people}
    about |= {"seed": planted.seed, "exact": planted.value(overlap)}
    logs: list[dict[str, Any]] = []
    if file.is_file():
        there = read_json(file, "Remove it, and it is made again.")
        logs = there["logs"] if {key: there.get(key) for key in about} == about else []
    logs = logs[:n_logs]
    commit = commit_of_checkout()
    if progress is not None:
        progress.update(len(logs))
    for number in range(len(logs), n_logs):
        log, chances = planted.log(overlap, size, number)
        found = estimate_all(
            chances,
            log,
            reward_features=lambda people, jobs: planted.numbers[people, jobs],
            n_resamples=n_resamples,
            seed=number,
        )
        logs.append(
            {
                "commit": commit,
                "size": found["ips"].effective_sample_size,
                **{method: [one.value, one.low, one.high] for method, one in found.items()},
            }
        )
        if progress is not None:
            progress.update(1)
        if len(logs) % _SAVED_EVERY == 0 or len(logs) == n_logs:
            write_json(file, {**about, "logs": logs})
    return {**about, "logs": logs}


def coverage_table(cells: dict[tuple[str, int], dict[str, Any]]) -> Table:
    """A row for each kind of log, with its mean effective sample size, and each method's coverage and mean width."""
    header = [
        "overlap, size",
        "logs",
        "effective size",
        f"size {RELIABLE_FROM} or more",
        *METHODS,
        *(f"{method} width" for method in METHODS),
    ]
    rows = []
    for (overlap, size), cell in cells.items():
        logs, exact = cell["logs"], cell["exact"]
        sizes = np.array([log["size"] for log in logs])
        bounds = {method: np.array([log[method] for log in logs]) for method in METHODS}
        hits = {method: (found[:, 1] <= exact) & (exact <= found[:, 2]) for method, found in bounds.items()}
        rows.append(
            [
                _named(overlap, size),
                f"{len(logs):,}",
                f"{sizes.mean():,.0f}",
                f"{(sizes >= RELIABLE_FROM).mean():.2f}",
                *(f"{hits[method].mean():.3f}" for method in METHODS),
                *(f"{(bounds[method][:, 2] - bounds[method][:, 1]).mean():.4f}" for method in METHODS),
            ]
        )
    return header, rows


def _named(overlap: str, size: int) -> str:
    return f"{overlap}, {size:,}"


def _standard(values: Floats) -> Floats:
    return (values - values.mean()) / values.std()


def _softmax(scores: Floats) -> Floats:
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True)


def _greedy(scores: Floats, epsilon: float = 0.1) -> Floats:
    chances = np.full(scores.shape, epsilon / scores.shape[1])
    chances[np.arange(len(scores)), scores.argmax(axis=1)] += 1 - epsilon
    return chances


if __name__ == "__main__":
    main()
