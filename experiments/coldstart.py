"""``python -m experiments.coldstart``: every learner on the same cold starts, with intervals over seeds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import matplotlib
import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from rliable import metrics
from scipy.stats import trim_mean

from experiments.runs import RunError, find_runs, write_json
from experiments.tables import format_table

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["Study", "interval", "probability_of_improvement", "run_learners"]

SCORE = "held_out/score"
REGRET = "online/cumulative_regret"


class Study:
    """What learners scored, seed by seed.

    Args:
        scores: For each learner its normalised scores, float64 (n_seeds, n_points); all learners have the same seeds
            in the same order.
        regret: For each learner its cumulative expected regret at the end, float64 (n_seeds,).
        points: Interactions behind which the scores were taken, (n_points,).
        reps: Bootstrap samples.
    """

    def __init__(
        self,
        scores: Mapping[str, NDArray[np.float64]],
        regret: Mapping[str, NDArray[np.float64]],
        points: Sequence[int],
        reps: int = 2_000,
    ):
        self.scores = dict(scores)
        self.regret = dict(regret)
        self.points = list(points)
        self.reps = reps

    @classmethod
    def read(cls, folders: Mapping[str, Path], seeds: Sequence[int], points: Sequence[int], reps: int) -> Study:
        """The finished runs of each learner.

        Raises:
            RunError: If a seed or a point of a learner is missing.
        """
        scores, regret = {}, {}
        for learner, folder in folders.items():
            runs = {run.summary["seed"]: run for run in find_runs(str(folder), "runs")}
            if missing := sorted(set(seeds) - set(runs)):
                raise RunError(f"learner {learner!r} has no finished run of seeds {missing} in {folder}.")
            tables = [runs[seed].metrics.set_index("interactions") for seed in seeds]
            if missing := sorted(set(points) - set(tables[0].index)):
                raise RunError(f"learner {learner!r} has no points at {missing} interactions in {folder}.")
            scores[learner] = np.array([table.loc[list(points), SCORE].to_numpy(np.float64) for table in tables])
            regret[learner] = np.array([table[REGRET].iloc[-1] for table in tables], dtype=np.float64)
        return cls(scores, regret, points, reps)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows: the IQM of each learner's score at each point with its 95 % interval, and of its regret."""
        header = ["IQM of the score after", *(f"{point:,}" for point in self.points), "regret"]
        rows = []
        for learner, scores in self.scores.items():
            cells = [_cell(interval(scores[:, column], self.reps)) for column in range(len(self.points))]
            rows.append([learner, *cells, _cell(interval(self.regret[learner], self.reps), ".0f")])
        return header, rows

    def to_json(self) -> dict[str, Any]:
        """All numbers, seed by seed."""
        return {
            "points": self.points,
            "scores": {learner: scores.tolist() for learner, scores in self.scores.items()},
            "regret": {learner: values.tolist() for learner, values in self.regret.items()},
        }

    def plot(self, path: Path) -> None:
        """The IQM over interactions, bands its 95 % intervals."""
        figure, axes = plt.subplots(figsize=(8.0, 5.0), layout="constrained")
        for number, (learner, scores) in enumerate(self.scores.items()):
            bounds = np.array([interval(scores[:, column], self.reps) for column in range(len(self.points))])
            style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}
            at = np.arange(len(self.points))
            axes.plot(at, bounds[:, 0], marker="o", markersize=3, label=learner, **style)  # type: ignore[arg-type]
            axes.fill_between(at, bounds[:, 1], bounds[:, 2], color=style["color"], alpha=0.15, linewidth=0)
        axes.set_xticks(range(len(self.points)), [f"{point:,}" for point in self.points])
        axes.set_xlabel("interactions")
        axes.set_ylabel("score on held-out applicants (0 random, 1 oracle)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.legend(fontsize=8, frameon=False, ncols=2)
        figure.savefig(path, dpi=140, metadata={"Software": None})
        plt.close(figure)


@hydra.main(version_base="1.3", config_path="../conf", config_name="coldstart")
def main(cfg: DictConfig) -> None:
    """Runs what is missing, prints the table, and writes ``coldstart.json`` and ``coldstart.png``."""
    learners: dict[str, list[str]] = OmegaConf.to_container(cfg.learners)  # type: ignore[assignment]
    if cfg.only is not None:
        if unknown := sorted(set(cfg.only) - set(learners)):
            raise SystemExit(f"error: `only` must name learners of {list(learners)}, got {unknown}.")
        learners = {name: learners[name] for name in cfg.only}
    common = [f"total_timesteps={cfg.interactions}", *cfg.common]
    folder = Path(cfg.folder)
    folders = run_learners(learners, list(cfg.seeds), common, folder, cfg.n_jobs)
    at: Any = OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[1] / "conf/experiment/coldstart.yaml"))
    points = [point for point in at["evaluation"]["at"] if point <= cfg.interactions]
    try:
        study = Study.read(folders, list(cfg.seeds), points, cfg.reps)
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    print(format_table(*study.table()))
    print(f"\nIQM over {len(cfg.seeds)} seeds, in brackets its 95 % bootstrap interval; 0 is random, 1 the oracle.")
    write_json(folder / "coldstart.json", study.to_json())
    study.plot(folder / "coldstart.png")
    print(f"numbers  {folder / 'coldstart.json'}\nfigure   {folder / 'coldstart.png'}")


def run_learners(
    learners: Mapping[str, Sequence[str]], seeds: Sequence[int], common: Sequence[str], folder: Path, n_jobs: int
) -> dict[str, Path]:
    """Trains every learner on every seed, each a sweep of its own that skips what is finished.

    Args:
        learners: Overrides of ``experiments.train`` by the learner's name.
        seeds: Of the runs.
        common: Overrides of all.
        folder: Receives a folder a learner.
        n_jobs: Runs side by side.

    Returns:
        The folder of each learner.
    """
    folders = {}
    for learner, overrides in learners.items():
        folders[learner] = folder / learner
        sweep = [
            "launcher=joblib",
            f"hydra.launcher.n_jobs={n_jobs}",
            "experiment=coldstart",
            f"seed={','.join(map(str, seeds))}",
            f"hydra.sweep.dir={folder / learner}",
            "hydra.sweep.subdir=seed-${seed}",
        ]
        command = [sys.executable, "-m", "experiments.train", "-m", *sweep, *common, *overrides]
        print(f"{learner}: {len(seeds)} runs", file=sys.stderr, flush=True)
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        if done.returncode:
            print(f"{learner}: a run failed, see above", file=sys.stderr)
    return folders


def interval(values: NDArray[np.float64], reps: int, seed: int = 0) -> tuple[float, float, float]:
    """Interquartile mean of values (n,), and its 95 % bootstrap interval."""
    samples = values[np.random.default_rng(seed).integers(len(values), size=(reps, len(values)))]
    low, high = np.quantile(trim_mean(samples, 0.25, axis=1), (0.025, 0.975))
    return float(metrics.aggregate_iqm(values[:, None])), float(low), float(high)


def probability_of_improvement(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Chance that one of our values (n,) lies above one of theirs (m,), ties counted half."""
    return float(metrics.probability_of_improvement(ours[:, None], theirs[:, None]))


def _cell(estimate: tuple[float, float, float], form: str = ".2f") -> str:
    middle, low, high = (format(value, form) for value in estimate)
    return f"{middle} [{low}, {high}]"


if __name__ == "__main__":
    main()
