"""``python -m experiments.coldstart``: every learner on the same cold starts, with intervals over seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import matplotlib
import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from rliable import metrics
from scipy.stats import trim_mean
from tqdm import tqdm

from experiments.progress import Progress
from experiments.runs import (
    COLDSTART,
    COLDSTART_FIGURE,
    COLDSTART_TABLE,
    SUMMARY,
    RunError,
    commit_of_checkout,
    find_runs,
    write_json,
)
from experiments.tables import format_table

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["Study", "Verdict", "interval", "interval_cell", "judge", "probability_of_improvement", "run_learners"]

OURS, WITHOUT_PLANNING = "dynaq_plus", "dynaq_plus_noplan"
NO_PRIOR, MISLED = "dynaq_plus_no_prior", "dynaq_plus_misled"
OPPONENTS = (
    "random",
    "popularity",
    "cosine",
    "linucb",
    "lints",
    "linear_prior",
    "linear_blocks",
    "vw",
    "reward_model",
    "dqn",
    "dynaq_noplan",
    "dynaq",
)
POINTS = (0, 20, 50, 100, 200, 400, 800, 1500)
IMPROVEMENT_POINTS = (50, 100, 200, 400, 800, 1500)
ELSEWHERE = ("generator", "onet")
HOLDS, FAILS, NOT_JUDGED = "holds", "fails", "not judged"
SCORE = "held_out/score"
REGRET = "online/cumulative_regret"
_WATCH_SECONDS = 1.0
_BY_LEARNER = ("scores", "regret", "seconds")


class Study:
    """What learners scored, seed by seed.

    Args:
        scores: For each learner its normalised scores, float64 (n_seeds, n_points); all learners have the same seeds
            in the same order.
        regret: For each learner its cumulative expected regret at the end, float64 (n_seeds,).
        seconds: For each learner its time of learning, float64 (n_seeds,).
        points: Interactions behind which the scores were taken, (n_points,).
        reps: Bootstrap samples.
    """

    def __init__(
        self,
        scores: Mapping[str, NDArray[np.float64]],
        regret: Mapping[str, NDArray[np.float64]],
        seconds: Mapping[str, NDArray[np.float64]],
        points: Sequence[int],
        reps: int = 2_000,
    ):
        self.scores = dict(scores)
        self.regret = dict(regret)
        self.seconds = dict(seconds)
        self.points = list(points)
        self.reps = reps

    @classmethod
    def read(cls, folders: Mapping[str, Path], seeds: Sequence[int], points: Sequence[int], reps: int) -> Study:
        """The finished runs of each learner.

        Raises:
            RunError: If a seed or a point of a learner is missing.
        """
        scores, regret, seconds = {}, {}, {}
        for learner, folder in folders.items():
            runs = {run.summary["seed"]: run for run in find_runs(str(folder), "runs")}
            if missing := sorted(set(seeds) - set(runs)):
                raise RunError(f"learner {learner!r} has no finished run of seeds {missing} in {folder}.")
            tables = [runs[seed].metrics.set_index("interactions") for seed in seeds]
            if missing := sorted(set(points) - set(tables[0].index)):
                raise RunError(f"learner {learner!r} has no points at {missing} interactions in {folder}.")
            scores[learner] = np.array([table.loc[list(points), SCORE].to_numpy(np.float64) for table in tables])
            regret[learner] = np.array([table[REGRET].iloc[-1] for table in tables], dtype=np.float64)
            seconds[learner] = np.array([table["seconds"].iloc[-1] for table in tables], dtype=np.float64)
        return cls(scores, regret, seconds, points, reps)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], reps: int) -> Study:
        """What :meth:`to_json` gave."""
        scores, regret, seconds = (
            {name: np.array(values) for name, values in content[key].items()} for key in _BY_LEARNER
        )
        return cls(scores, regret, seconds, content["points"], reps)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows: the IQM of each learner's score at each point with its 95 % interval, and of its regret.

        Seconds are the median time of learning.
        """
        header = ["IQM of the score after", *(f"{point:,}" for point in self.points), "regret", "seconds"]
        rows = []
        for learner, scores in self.scores.items():
            cells = [interval_cell(interval(scores[:, column], self.reps)) for column in range(len(self.points))]
            regret = interval_cell(interval(self.regret[learner], self.reps), ".0f")
            rows.append([learner, *cells, regret, f"{np.median(self.seconds[learner]):.0f}"])
        return header, rows

    def iqm(self, learner: str, point: int) -> float:
        """IQM of a learner's score after so many interactions."""
        return interval(self.scores[learner][:, self.points.index(point)], 1)[0]

    def improvement(self, learner: str, over: str, point: int) -> float:
        """:func:`probability_of_improvement` of a learner's score after so many interactions."""
        column = self.points.index(point)
        return probability_of_improvement(self.scores[learner][:, column], self.scores[over][:, column])

    def improvements(self, learner: str, points: Sequence[int]) -> tuple[list[str], list[list[str]]]:
        """Header and rows: in what share of the worlds a learner is better than each other one."""
        points = [point for point in points if point in self.points]
        header = [f"{learner} better than", *(f"after {point:,}" for point in points)]
        others = [other for other in self.scores if other != learner]
        return header, [[o, *(f"{self.improvement(learner, o, point):.2f}" for point in points)] for o in others]

    def to_json(self) -> dict[str, Any]:
        """All numbers, seed by seed."""
        by_learner: dict[str, Mapping[str, NDArray[np.float64]]] = {key: getattr(self, key) for key in _BY_LEARNER}
        return {
            "points": self.points,
            **{key: {name: array.tolist() for name, array in arrays.items()} for key, arrays in by_learner.items()},
        }

    def rows(self, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
        """A row a learner, seed and point, for a table that any tool reads; regret is that of the whole run."""
        for learner, scores in self.scores.items():
            for row, seed in enumerate(seeds):
                for point, score in zip(self.points, scores[row], strict=True):
                    regret, seconds = self.regret[learner][row], self.seconds[learner][row]
                    yield {
                        "learner": learner,
                        "seed": seed,
                        "interactions": point,
                        "score": score,
                        "regret": regret,
                        "seconds": seconds,
                    }

    def plot(self, path: Path, against_seconds: bool = False) -> None:
        """The IQM over interactions, bands its 95 % intervals; and profiles: what share of worlds passes a score.

        With `against_seconds`, in place of profiles the last score and its interval over the median time of learning.
        """
        figure, (curves, profiles) = plt.subplots(1, 2, figsize=(13.0, 5.6), layout="constrained", width_ratios=(3, 2))
        taus = np.linspace(-0.1, 1.0, 111)
        for number, (learner, scores) in enumerate(self.scores.items()):
            bounds = np.array([interval(scores[:, column], self.reps) for column in range(len(self.points))])
            style: dict[str, Any] = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}
            style["linewidth"] = 1.3
            if learner == OURS:
                style = {"color": "black", "linestyle": "-", "linewidth": 2.6, "zorder": 3}
            at = np.arange(len(self.points))
            marker = "osD"[number // 10 % 3]
            curves.plot(at, bounds[:, 0], marker=marker, markersize=4, label=learner, **style)
            if against_seconds:
                seconds, (middle, low, high) = float(np.median(self.seconds[learner])), bounds[-1]
                bars = [[middle - low], [high - middle]]
                profiles.errorbar(seconds, middle, bars, fmt=marker, color=style["color"])
            else:
                curves.fill_between(at, bounds[:, 1], bounds[:, 2], color=style["color"], alpha=0.12, linewidth=0)
                profiles.plot(taus, (scores[:, -1:] > taus).mean(axis=0), **style)
        curves.set_xticks(range(len(self.points)), [f"{point:,}" for point in self.points])
        curves.set_xlabel("interactions")
        curves.set_ylabel("score on held-out applicants (0 random, 1 oracle)")
        last = f"score after {self.points[-1]:,} interactions"
        profiles.set_xlabel("seconds of learning" if against_seconds else last)
        profiles.set_ylabel(last if against_seconds else "share of worlds above it")
        for axes in (curves, profiles):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        if against_seconds:
            profiles.legend(loc="center right", fontsize=7, frameon=False)
        figure.legend(
            *curves.get_legend_handles_labels(), loc="outside lower center", fontsize=8, frameon=False, ncols=8
        )
        figure.savefig(path, dpi=140, metadata={"Software": None})
        plt.close(figure)


@hydra.main(version_base="1.3", config_path="../conf", config_name="coldstart")
def main(cfg: DictConfig) -> None:
    """Runs what is missing, prints the table, and writes ``coldstart.json``, ``.csv`` and ``.png``."""
    learners: dict[str, list[str]] = OmegaConf.to_container(cfg.learners)  # type: ignore[assignment]
    if "path" in cfg and cfg.path is None:
        raise SystemExit(f"error: `path` must be given with preset={cfg.name}: the file of the official release.")
    if cfg.only is not None:
        if unknown := sorted(set(cfg.only) - set(learners)):
            raise SystemExit(f"error: `only` must name learners of {list(learners)}, got {unknown}.")
        learners = {name: learners[name] for name in cfg.only}
    common = [f"experiment={cfg.experiment}", f"total_timesteps={cfg.interactions}", *cfg.common]
    folder = Path(cfg.folder)
    made_by = {
        "command": " ".join(["python -m experiments.coldstart", *HydraConfig.get().overrides.task]),
        "commit": commit_of_checkout(),
        "name": cfg.name,
        "seeds": list(cfg.seeds),
        "common": common,
        "learners": learners,
    }
    experiment = Path(__file__).parents[1] / f"conf/experiment/{cfg.experiment}.yaml"
    at: Any = OmegaConf.to_container(OmegaConf.load(experiment))
    points = [point for point in at["evaluation"]["at"] if point <= cfg.interactions]
    levels: dict[str, list[str]] = OmegaConf.to_container(cfg.levels or OmegaConf.create({"": []}))  # type: ignore[assignment]
    studies = {}
    places = [
        folder / level / learner / f"seed-{seed}" for level in levels for learner in learners for seed in cfg.seeds
    ]

    def finished() -> int:
        return sum((place / SUMMARY).is_file() for place in places)

    try:
        with Progress(len(places), "cold start", "run", done=finished()) as progress:
            for level, overrides in levels.items():
                folders = run_learners(
                    learners,
                    list(cfg.seeds),
                    [*common, *overrides],
                    folder / level,
                    cfg.n_jobs,
                    watch=lambda: progress.reach(finished()),
                )
                studies[level] = Study.read(folders, list(cfg.seeds), points, cfg.reps)
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    in_words = f"IQM over {len(cfg.seeds)} seeds, in brackets its 95 % bootstrap interval; 0 is random, 1 the oracle."
    if cfg.levels:
        tables = [level_table(studies, cfg.level_name)]
        print(f"{format_table(*tables[0])}\n\n{in_words}")
        plot_levels(studies, cfg.level_name, folder / COLDSTART_FIGURE)
        numbers: dict[str, Any] = {
            "levels": {level: {"overrides": levels[level], **study.to_json()} for level, study in studies.items()}
        }
    else:
        tables, numbers = _tables(studies[""], *_other_studies(cfg)), studies[""].to_json()
        compared = [format_table(*table) for table in tables[1:-1]]
        print("\n\n".join([format_table(*tables[0]), in_words, *compared, format_table(*tables[-1], left=3)]))
        studies[""].plot(folder / COLDSTART_FIGURE, cfg.against_seconds)
    shown = [{"header": header, "rows": rows} for header, rows in tables]
    content = {**made_by, "in_words": in_words, "tables": shown, **numbers}
    write_json(folder / COLDSTART, content)
    table = [{"level": level, **row} for level, study in studies.items() for row in study.rows(list(cfg.seeds))]
    pd.DataFrame(table).to_csv(folder / COLDSTART_TABLE, index=False)
    print(f"numbers  {folder / COLDSTART}, {folder / COLDSTART_TABLE}\nfigure   {folder / COLDSTART_FIGURE}")


def _other_studies(cfg: DictConfig) -> tuple[Study | None, dict[str, Study]]:
    """Of priors, and on other markets by their names, as far as they are done: goals 5 and 6 are judged by them."""

    def read(folder: str) -> Study | None:
        file = Path(folder) / COLDSTART
        return Study.from_json(json.loads(file.read_text()), cfg.reps) if file.is_file() else None

    prior = None if cfg.prior is None else read(cfg.prior)
    found = {Path(folder).name: read(folder) for folder in cfg.elsewhere}
    return prior, {name: study for name, study in found.items() if study is not None}


def _tables(
    study: Study, prior: Study | None, elsewhere: Mapping[str, Study]
) -> list[tuple[list[str], list[list[str]]]]:
    """Scores; in what share of the worlds ours is better; what became of the goals."""
    tables = [study.table()]
    if OURS in study.scores:
        tables.append(study.improvements(OURS, IMPROVEMENT_POINTS))
    return [*tables, (["goal", "verdict", "figures"], [list(verdict) for verdict in judge(study, prior, elsewhere)])]


def level_table(studies: Mapping[str, Study], name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each learner's score at the end and its regret, by level."""
    some = next(iter(studies.values()))
    header = [f"score after {some.points[-1]:,}; {name}", *studies, *(f"regret, {level}" for level in studies)]
    rows = []
    for learner in some.scores:
        scores = [interval(study.scores[learner][:, -1], study.reps) for study in studies.values()]
        regrets = [interval(study.regret[learner], study.reps) for study in studies.values()]
        rows.append([learner, *map(interval_cell, scores), *(interval_cell(regret, ".0f") for regret in regrets)])
    return header, rows


def plot_levels(studies: Mapping[str, Study], name: str, path: Path) -> None:
    """The IQM at the end over levels, bands its 95 % intervals."""
    figure, axes = plt.subplots(figsize=(8.0, 5.0), layout="constrained")
    at = np.arange(len(studies))
    for learner in next(iter(studies.values())).scores:
        bounds = np.array([interval(study.scores[learner][:, -1], study.reps) for study in studies.values()])
        (line,) = axes.plot(at, bounds[:, 0], marker="o", markersize=3, label=learner)
        axes.fill_between(at, bounds[:, 1], bounds[:, 2], color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set_xticks(at, list(studies))
    axes.set_xlabel(name)
    axes.set_ylabel("score on held-out applicants (0 random, 1 oracle)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=140, metadata={"Software": None})
    plt.close(figure)


def run_learners(
    learners: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    common: Sequence[str],
    folder: Path,
    n_jobs: int,
    watch: Callable[[], None] = lambda: None,
) -> dict[str, Path]:
    """Trains every learner on every seed, each a sweep of its own that skips what is finished.

    Args:
        learners: Overrides of ``experiments.train`` by the learner's name.
        seeds: Of the runs.
        common: Overrides of all.
        folder: Receives a folder a learner.
        n_jobs: Runs side by side.
        watch: Called every second while runs are going on.

    Returns:
        The folder of each learner.
    """
    folders = {}
    for learner, overrides in learners.items():
        folders[learner] = folder / learner
        sweep = [
            "launcher=joblib",
            f"hydra.launcher.n_jobs={n_jobs}",
            f"seed={','.join(map(str, seeds))}",
            f"hydra.sweep.dir={folder / learner}",
            "hydra.sweep.subdir=seed-${seed}",
            "progress_bar=false",  # bars of runs side by side would write over each other
        ]
        command = [sys.executable, "-m", "experiments.train", "-m", *sweep, *common, *overrides]
        tqdm.write(f"{learner}: {len(seeds)} runs", file=sys.stderr)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_WATCH_SECONDS)
                watch()
        if process.returncode:
            tqdm.write(f"{learner}: a run failed, see above", file=sys.stderr)
    return folders


class Verdict(NamedTuple):
    """What became of a goal: `holds`, `fails`, or `not judged` where figures that it needs are not in the study."""

    goal: str
    verdict: str
    figures: str


def judge(study: Study, prior: Study | None = None, elsewhere: Mapping[str, Study] | None = None) -> list[Verdict]:
    """The goals of the cold start, by the learners and points that a study has.

    Args:
        study: The main one.
        prior: Of a misleading prior; the main one if ``None``.
        elsewhere: On other markets, by name: all of :data:`ELSEWHERE`, for the last goal to be judged.
    """
    return [
        _no_false_start(study),
        _best_learner(study),
        _least_regret(study),
        _planning_pays(study),
        _misled(study if prior is None else prior),
        _elsewhere(elsewhere or {}),
    ]


def _no_false_start(study: Study) -> Verdict:
    goal = "1 never 0.02 below cosine"
    if not {OURS, "cosine"} <= set(study.scores):
        return Verdict(goal, NOT_JUDGED, "")
    gaps = [study.iqm(OURS, point) - study.iqm("cosine", point) for point in study.points]
    worst = int(np.argmin(gaps))
    return _verdict(
        goal, min(gaps) >= -0.02, POINTS, study, f"least lead {gaps[worst]:+.3f}, after {study.points[worst]:,}"
    )


def _best_learner(study: Study, required: Sequence[str] = OPPONENTS) -> Verdict:
    goal = "2 best learner from 50 on"
    opponents = _opponents(study)
    points = [point for point in study.points if point >= 50]
    if OURS not in study.scores or not opponents or not points:
        return Verdict(goal, NOT_JUDGED, "")
    best = {point: max(opponents, key=lambda learner: study.iqm(learner, point)) for point in points}
    leads = {point: study.iqm(OURS, point) - study.iqm(best[point], point) for point in points}
    shares = {point: study.improvement(OURS, best[point], point) for point in (400, 1500) if point in points}
    holds = min(leads.values()) >= 0 and all(share >= 0.75 for share in shares.values())
    worst = min(points, key=lambda point: leads[point])
    figures = f"least lead {leads[worst]:+.3f}, after {worst:,} over {best[worst]}" + "".join(
        f"; better in {share:.0%} of worlds after {point:,}" for point, share in shares.items()
    )
    return _verdict(goal, holds, POINTS, study, figures, set(required) <= set(opponents))


def _least_regret(study: Study) -> Verdict:
    goal = "3 regret at most 0.90 of the best opponent's"
    regret = {learner: interval(values, 1)[0] for learner, values in study.regret.items()}
    opponents = _opponents(study)
    if OURS not in regret or not opponents:
        return Verdict(goal, NOT_JUDGED, "")
    best = min(opponents, key=lambda learner: regret[learner])
    ratio = regret[OURS] / regret[best]
    figures = f"{ratio:.2f} of {best}'s after {study.points[-1]:,}"
    return _verdict(goal, ratio <= 0.9, POINTS, study, figures, set(OPPONENTS) <= set(opponents))


def _planning_pays(study: Study) -> Verdict:
    goal = "4 planning pays from 50 to 400"
    points = [point for point in study.points if 50 <= point <= 400]
    if not {OURS, WITHOUT_PLANNING} <= set(study.scores) or not points:
        return Verdict(goal, NOT_JUDGED, "")
    shares = [study.improvement(OURS, WITHOUT_PLANNING, point) for point in points]
    figures = "better in " + ", ".join(
        f"{share:.0%} after {point:,}" for share, point in zip(shares, points, strict=True)
    )
    return _verdict(goal, min(shares) >= 0.75, (50, 100, 200, 400), study, figures)


def _misled(study: Study) -> Verdict:
    goal = "5 a misleading prior is let go"
    if not {MISLED, NO_PRIOR} <= set(study.scores):
        return Verdict(goal, NOT_JUDGED, "")
    point = max(point for point in study.points if point <= 800)
    misled, free = study.iqm(MISLED, point), study.iqm(NO_PRIOR, point)
    return _verdict(goal, misled > 0.8 * free, (800,), study, f"{misled:.3f} against {free:.3f} after {point:,}")


def _elsewhere(studies: Mapping[str, Study]) -> Verdict:
    verdicts = {
        name: [
            _no_false_start(study),
            _best_learner(study, required=("cosine", "linucb", "linear_prior", "linear_blocks")),
        ]
        for name, study in studies.items()
    }
    figures = "; ".join(
        f"{name}: {verdict.goal[0]} {verdict.verdict} ({verdict.figures})"
        for name, both in verdicts.items()
        for verdict in both
    )
    outcomes = {verdict.verdict for both in verdicts.values() for verdict in both}
    judged = set(ELSEWHERE) <= set(studies) and NOT_JUDGED not in outcomes
    return Verdict(
        "6 goals 1 and 2 on other markets", (FAILS if FAILS in outcomes else HOLDS) if judged else NOT_JUDGED, figures
    )


def _verdict(
    goal: str, holds: bool, points: Sequence[int], study: Study, figures: str, all_opponents: bool = True
) -> Verdict:
    """Not judged where points or opponents are missing; the figures so far are told all the same."""
    complete = set(points) <= set(study.points) and all_opponents
    return Verdict(goal, (HOLDS if holds else FAILS) if complete else NOT_JUDGED, figures)


def _opponents(study: Study) -> list[str]:
    return [learner for learner in study.scores if learner in OPPONENTS]


def interval(values: NDArray[np.float64], reps: int, seed: int = 0) -> tuple[float, float, float]:
    """Interquartile mean of values (n,), and its 95 % bootstrap interval."""
    samples = values[np.random.default_rng(seed).integers(len(values), size=(reps, len(values)))]
    low, high = np.quantile(trim_mean(samples, 0.25, axis=1), (0.025, 0.975))
    return float(metrics.aggregate_iqm(values[:, None])), float(low), float(high)


def probability_of_improvement(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Share of the worlds in which our value lies above theirs, (n,) each in the same order, ties counted half.

    A seed is a world of its own, with a truth and candidate sets of its own, so seeds are the tasks of Agarwal et al.,
    "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021, and are compared pair by pair.
    """
    return float(metrics.probability_of_improvement(ours[None], theirs[None]))


def interval_cell(estimate: tuple[float, float, float], form: str = ".2f") -> str:
    """An :func:`interval` in a table."""
    middle, low, high = (format(value, form) for value in estimate)
    return f"{middle} [{low}, {high}]"


if __name__ == "__main__":
    main()
