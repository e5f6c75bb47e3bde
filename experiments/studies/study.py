"""The scores of learners in a study, seed by seed, and their summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.runs.folders import RunError, read_run
from experiments.runs.intervals import interval, interval_cell, mean_interval, paired_difference
from experiments.runs.tables import Table

__all__ = ["IN_WORDS", "Study", "WorstSeed"]

WORST_FROM = 20
"""The worst seed is looked for from this many interactions on, because before that learners have hardly learned."""

IN_WORDS = (
    "The score is that of the greedy choice on held-out applicants: 0 is a random choice, 1 the oracle; means are over "
    f"seeds. Worst seed: the lowest score that any seed had from {WORST_FROM} interactions on, and where that seed "
    "began. Regret: cumulative expected regret while learning. CPU ms: milliseconds of CPU an interaction, evaluations "
    "not counted. In brackets: 95 % bootstrap intervals over seeds; with fewer than three seeds there are none, "
    "because so few do not tell how much seeds differ."
)

_SCORE, _REGRET, _CPU = "held_out/score", "online/cumulative_regret", "cpu_seconds"
_BY_LEARNER = ("scores", "regret", "cpu_seconds")


class WorstSeed(NamedTuple):
    """The lowest score of a learner.

    Attributes:
        score: The lowest score.
        start: The score of the same seed before any interaction.
        seed: The seed that had this score.
        interactions: The number of interactions after which the seed had this score.
    """

    score: float
    start: float
    seed: int
    interactions: int


class Study:
    """Compares learners on the same work.

    Args:
        seeds: Seeds of the runs, (n_seeds,); seed i gives every learner the same truth, candidate sets and noise.
        points: Interactions after which the scores were taken, (n_points,); the last one is the end.
        scores: For each learner its normalised scores, float64 (n_seeds, n_points).
        regret: For each learner its cumulative expected regret at the end, float64 (n_seeds,).
        cpu_seconds: For each learner the CPU time of learning, float64 (n_seeds,).
        reps: Bootstrap samples.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        points: Sequence[int],
        scores: Mapping[str, Any],
        regret: Mapping[str, Any],
        cpu_seconds: Mapping[str, Any],
        reps: int = 2_000,
    ):
        self.seeds = list(seeds)
        self.points = list(points)
        self.scores: dict[str, NDArray[np.float64]] = {name: np.asarray(values) for name, values in scores.items()}
        self.regret: dict[str, NDArray[np.float64]] = {name: np.asarray(values) for name, values in regret.items()}
        self.cpu_seconds: dict[str, NDArray[np.float64]] = {
            name: np.asarray(values) for name, values in cpu_seconds.items()
        }
        self.reps = reps

    @classmethod
    def read(cls, folders: Mapping[str, Path], seeds: Sequence[int], points: Sequence[int], reps: int) -> Study:
        """Reads the finished runs ``seed-N`` in the folder of each learner.

        Raises:
            RunError: If a run is missing, or a run lacks a point or its CPU time.
        """
        by_learner: dict[str, dict[str, Any]] = {key: {} for key in _BY_LEARNER}
        for learner, folder in folders.items():
            tables = []
            for seed in seeds:
                table = read_run(folder / f"seed-{seed}").metrics.set_index("interactions")
                if missing := sorted(set(points) - set(table.index)):
                    raise RunError(f"{folder}/seed-{seed} has no score after {missing} interactions.")
                if _CPU not in table:
                    raise RunError(f"{folder}/seed-{seed} has no {_CPU}: remove the folder, and it is run again.")
                tables.append(table)
            by_learner["scores"][learner] = [table.loc[list(points), _SCORE].to_numpy(np.float64) for table in tables]
            by_learner["regret"][learner] = [float(table[_REGRET].iloc[-1]) for table in tables]
            by_learner["cpu_seconds"][learner] = [float(table[_CPU].iloc[-1]) for table in tables]
        return cls.from_json({"seeds": seeds, "points": points, **by_learner}, reps)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], reps: int) -> Study:
        """The study from what :meth:`to_json` gave."""
        scores, regret, cpu_seconds = (content[key] for key in _BY_LEARNER)
        return cls(content["seeds"], content["points"], scores, regret, cpu_seconds, reps)

    def to_json(self) -> dict[str, Any]:
        """All numbers, seed by seed."""
        arrays: dict[str, dict[str, NDArray[np.float64]]] = {key: getattr(self, key) for key in _BY_LEARNER}
        return {
            "seeds": self.seeds,
            "points": self.points,
            **{key: {name: values.tolist() for name, values in found.items()} for key, found in arrays.items()},
        }

    def mean(self, learner: str, point: int) -> float:
        """Mean score at a point, a number of interactions."""
        return float(self.scores[learner][:, self.points.index(point)].mean())

    def worst_seed(self, learner: str) -> WorstSeed:
        """The lowest score of any seed at any point from :data:`WORST_FROM` on."""
        first = next(i for i, point in enumerate(self.points) if point >= min(WORST_FROM, self.points[-1]))
        later = self.scores[learner][:, first:]
        row, column = np.unravel_index(later.argmin(), later.shape)
        return WorstSeed(
            float(later[row, column]),
            float(self.scores[learner][row, 0]),
            self.seeds[row],
            self.points[first + int(column)],
        )

    def cpu_ms(self, learner: str) -> float:
        """CPU time of an interaction in milliseconds, mean over seeds; NaN if there were no interactions."""
        return 1e3 * float(self.cpu_seconds[learner].mean()) / self.points[-1] if self.points[-1] else float("nan")

    def table(self) -> Table:
        """Mean score at each point, worst seed, regret and CPU time of each learner."""
        header = ["mean score after", *(f"{point:,}" for point in self.points), "worst seed", "regret", "CPU ms"]
        rows = []
        for learner, scores in self.scores.items():
            worst = self.worst_seed(learner)
            rows.append(
                [
                    learner,
                    *(f"{mean:.3f}" for mean in scores.mean(axis=0)),
                    f"{worst.score:.2f} from {worst.start:.2f}",
                    interval_cell(mean_interval(self.regret[learner], self.reps), len(self.seeds), ".0f"),
                    f"{self.cpu_ms(learner):.1f}",
                ]
            )
        return header, rows

    def iqm_table(self) -> Table:
        """Interquartile mean of each learner's score at each point."""
        header = ["IQM of the score after", *(f"{point:,}" for point in self.points)]
        return header, [
            [learner, *(interval_cell(interval(column, self.reps), len(self.seeds)) for column in scores.T)]
            for learner, scores in self.scores.items()
        ]

    def difference_table(self, reference: str) -> Table:
        """Differences between each learner and the reference, paired by seed."""
        header = [f"less {reference}, score after", *(f"{point:,}" for point in self.points), "regret"]
        n_seeds, rows = len(self.seeds), []
        for learner in self.scores:
            if learner == reference:
                continue
            scores = paired_difference(self.scores[learner], self.scores[reference], self.reps)
            regret = paired_difference(self.regret[learner], self.regret[reference], self.reps)
            cells = [interval_cell(column, n_seeds, "+.3f") for column in scores.T]
            rows.append([learner, *cells, interval_cell(regret, n_seeds, "+.0f")])
        return header, rows

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each learner, seed and point, for any tool. Regret and CPU time are those of the whole run."""
        for learner, scores in self.scores.items():
            for row, seed in enumerate(self.seeds):
                for point, score in zip(self.points, scores[row], strict=True):
                    yield {
                        "learner": learner,
                        "seed": seed,
                        "interactions": point,
                        "score": score,
                        "regret": self.regret[learner][row],
                        "cpu_seconds": self.cpu_seconds[learner][row],
                    }
