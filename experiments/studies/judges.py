"""``python -m experiments.studies.judges``: how much a judge narrows an estimate from few real answers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import commit_of_checkout, commits_by, read_json, write_json
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table
from jobrec_gym import Interactions, RecordedSimulator, RuleSimulator, load_market
from jobrec_gym.off_policy import estimate
from jobrec_gym.prediction_powered import powered_mean, t_quantile

__all__ = ["JUDGES", "PlantedPolicy", "judges_table", "run_judge", "run_weighted"]

Floats = NDArray[np.float64]

JUDGES = ("planted truth", "planted truth, 30 % shuffled", "recorded model", "all shuffled")
"""The judges, from one that knows the mean reward of each pair to one that knows nothing."""

_N_CANDIDATES = 10


@command(config_path="../../conf", config_name="judges", kept="every judge that is finished, in {folder}")
def main(cfg: DictConfig) -> None:
    """Estimates a policy's value from many small samples, prints how often intervals contain it, writes the JSON."""
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(cfg.folder)
    if min(options["sizes"]) < 3 or cfg.n_judged < max(options["sizes"]):
        raise SystemExit(
            f"error: `sizes` must be from 3 to `n_judged` = {cfg.n_judged}, because answered recommendations "
            f"are judged too, got {options['sizes']}."
        )
    planted = PlantedPolicy(cfg.seed, cfg.noise)
    about = {name: options[name] for name in ("sizes", "n_judged", "n_draws", "seed", "noise")}
    weighted = {**options["weighted"], **{name: options[name] for name in ("n_draws", "seed", "noise")}}
    cells: dict[str, Any] = {}
    of_logs: dict[str, Any] = {}
    commit = commit_of_checkout()
    commits: list[tuple[str, str | None]] = []
    with Progress(len(JUDGES), "judges", "judge") as progress:
        for number, judge in enumerate(JUDGES):
            file = folder / "cells" / f"{number}.json"
            there = read_json(file, "remove the file") if file.is_file() else {}
            if there.get("about") != {**about, "weighted": weighted}:
                found = run_judge(planted, judge, **about), run_weighted(planted, judge, **weighted)
                there = {"about": {**about, "weighted": weighted}, "commit": commit, "found": found}
                write_json(file, there)
            cells[judge], of_logs[judge] = there["found"]
            commits.append((judge, there.get("commit")))
            progress.update(1)
    shown = [judges_table(cells, "answers"), judges_table(of_logs, "people x answers of each")]
    print("\n\n".join(format_table(*table) for table in shown))
    path = folder / "judges.json"
    tables = [{"header": header, "rows": rows} for header, rows in shown]
    told = {**about, "weighted": weighted, "exact": planted.value}
    write_json(path, {**told, "commit": commit, "commits": commits_by(commits), "tables": tables})
    print(f"\nnumbers  {path}")


class PlantedPolicy:
    """A policy whose exact value is known: it takes the job of highest cosine among ten of the recorded market's forty.

    Applicants answer by the planted truth.

    Args:
        seed: Seed of the truth.
        noise: Noise of the answers.

    Attributes:
        expected: Exact mean reward of each pair, (n_applicants, n_jobs).
        value: Exact mean reward of a recommendation, over applicants and all sets of ten.
    """

    def __init__(self, seed: int = 0, noise: float = 0.5):
        market = self._market = load_market("recorded")
        self._truth = RuleSimulator(seed=seed, noise=noise).bind(market)
        people, jobs = np.arange(len(market.applicants)), np.arange(len(market.jobs))
        self._cosine = market.cosine(np.repeat(people, len(jobs)), np.tile(jobs, len(people))).reshape(len(people), -1)
        self.expected: Floats = self._truth.expected_reward(people[:, None], jobs)
        said: Floats = RecordedSimulator().bind(market).expected_reward(people[:, None], jobs)
        self.judges = dict(zip(JUDGES, (self.expected, self._shuffled(0.3), said, self._shuffled(1.0)), strict=True))
        self.value = self.value_among(_N_CANDIDATES)

    def value_among(self, n_candidates: int) -> float:
        """Exact mean reward of the job of highest cosine, over applicants and all sets of so many jobs."""
        # The r-th best of m jobs is the best of a set of n if the other n - 1 are all worse than it.
        n_jobs = self.expected.shape[1]
        behind = [math.comb(n_jobs - 1 - place, n_candidates - 1) for place in range(n_jobs)]
        chances = np.array(behind) / math.comb(n_jobs, n_candidates)
        ranked = np.take_along_axis(self.expected, np.argsort(-self._cosine, axis=1, kind="stable"), axis=1)
        return float((ranked @ chances).mean())

    def _shuffled(self, share: float) -> Floats:
        flat, rng = self.expected.ravel().copy(), np.random.default_rng(0)
        wrong = rng.permutation(flat.size)[: round(share * flat.size)]
        flat[wrong] = flat[rng.permutation(wrong)]
        return flat.reshape(self.expected.shape)

    def recommendations(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Applicants (n,), and the job that the policy recommends to each (n,)."""
        people = rng.integers(len(self._cosine), size=n)
        sets = rng.random((n, self._cosine.shape[1])).argpartition(_N_CANDIDATES, axis=1)[:, :_N_CANDIDATES]
        best = self._cosine[people[:, None], sets].argmax(axis=1)
        return people, sets[np.arange(n), best]

    def answers(self, people: NDArray[np.int64], jobs: NDArray[np.int64], rng: np.random.Generator) -> Floats:
        """Noisy rewards of recommendations, (n,)."""
        keys = rng.integers(2**64, size=len(jobs), dtype=np.uint64)
        reward: Floats = self._truth.feedback(people, jobs, keys).reward
        return reward

    def log(
        self, n_people: int, n_each: int, n_shown: int, n_unanswered: int, rng: np.random.Generator
    ) -> tuple[Interactions, Floats]:
        """Some decisions, and this policy's choices in them, (n, n_shown).

        In each decision one of ``n_shown`` jobs was recommended by chance.

        Args:
            n_people: How many people answered.
            n_each: How many decisions each of them answered.
            n_shown: Jobs of each decision.
            n_unanswered: Further decisions, of anybody, without an answer.
            rng: Source of all draws.
        """
        n_applicants, n_jobs = self._cosine.shape
        answering = np.repeat(rng.choice(n_applicants, n_people, replace=False), n_each)
        people = np.concatenate([answering, rng.integers(n_applicants, size=n_unanswered)])
        rows = np.arange(len(people))
        shown = rng.random((len(people), n_jobs)).argpartition(n_shown, axis=1)[:, :n_shown]
        jobs = shown[rows, rng.integers(n_shown, size=len(people))]
        reward = np.full(len(people), np.nan)
        reward[: len(answering)] = self.answers(answering, jobs[: len(answering)], rng)
        propensity = np.full(len(people), 1 / n_shown)
        policy = np.zeros(shown.shape)
        policy[rows, self._cosine[people[:, None], shown].argmax(axis=1)] = 1.0
        return Interactions.of(self._market, people, jobs, reward, shown=shown, propensity=propensity), policy


def run_judge(
    planted: PlantedPolicy, judge: str, sizes: list[int], n_judged: int, n_draws: int, seed: int, noise: float
) -> dict[str, list[float]]:
    """Coverage and width of the intervals with one judge.

    Args:
        planted: The policy and its exact value.
        judge: One of :data:`JUDGES`.
        sizes: Numbers of real answers.
        n_judged: How many recommendations are judged, including the answered ones.
        n_draws: How many samples are drawn for each size.
        seed: Seed of the draws.
        noise: The noise of ``planted``; not used here.

    Returns:
        By size (a text): the coverage of the interval from the answers alone, and of the interval with the judge
        (prediction-powered inference); their mean widths; and the judge's mean weight.
    """
    table, each = planted.judges[judge], np.arange(n_judged)

    def once(size: int, draw: int) -> tuple[float, ...]:
        rng = np.random.default_rng((seed, size, draw))
        people, jobs = planted.recommendations(n_judged, rng)
        reward = planted.answers(people[:size], jobs[:size], rng)
        said = table[people, jobs]
        powered = powered_mean(reward, said[:size], each[:size], said, each, seed=draw)
        mean, half = reward.mean(), t_quantile(0.975, size - 1) * float(reward.std(ddof=1)) / math.sqrt(size)
        return mean - half, mean + half, powered.low, powered.high, powered.weight

    return {str(size): _summary((once(size, draw) for draw in range(n_draws)), planted.value) for size in sizes}


def run_weighted(
    planted: PlantedPolicy,
    judge: str,
    answers: list[list[int]],
    n_shown: int,
    n_unanswered: int,
    n_draws: int,
    seed: int,
    noise: float,
) -> dict[str, list[float]]:
    """The same as :func:`run_judge` for logs of a policy that recommended one of some jobs by chance.

    The estimates are those of :func:`~jobrec_gym.off_policy.estimate`. Answers alone are weighted by ``"ips"``.

    Args:
        planted: The policy. Its exact value here is that among ``n_shown`` jobs.
        judge: One of :data:`JUDGES`.
        answers: How many people answered, and how often each of them.
        n_shown: Jobs of each decision.
        n_unanswered: Decisions without an answer.
        n_draws: How many logs are drawn for each entry of ``answers``.
        seed: Seed of the draws.
        noise: The noise of ``planted``; not used here.
    """
    value = planted.value_among(n_shown)

    def once(n_people: int, n_each: int, draw: int) -> tuple[float, ...]:
        rng = np.random.default_rng((seed, n_people, n_each, draw))
        log, policy = planted.log(n_people, n_each, n_shown, n_unanswered, rng)
        alone = estimate(policy, log, "ips", n_resamples=500)
        judged = estimate(policy, log, judge=planted.judges[judge])
        return alone.low, alone.high, judged.low, judged.high, judged.judge_weight

    return {
        f"{n_people} x {n_each}": _summary((once(n_people, n_each, draw) for draw in range(n_draws)), value)
        for n_people, n_each in answers
    }


def _summary(draws: Iterable[tuple[float, ...]], value: float) -> list[float]:
    """What :func:`run_judge` returns for one size.

    Args:
        draws: For each draw the bounds of the interval from the answers alone, those of the interval with the judge,
            and the judge's weight.
        value: The exact value.
    """
    low, high, judged_low, judged_high, weight = np.array(list(draws)).T
    lows, highs = np.array([low, judged_low]), np.array([high, judged_high])
    coverage, width = ((lows <= value) & (value <= highs)).mean(axis=1), (highs - lows).mean(axis=1)
    return [*coverage.tolist(), *width.tolist(), float(weight.mean())]


def judges_table(cells: dict[str, dict[str, list[float]]], sizes: str) -> Table:
    """A row for each judge and number of answers, which the header calls ``sizes``."""
    header = [f"judge, {sizes}", "coverage, answers alone", "coverage, with judge", "width, answers alone"]
    header += ["width, with judge", "ratio", "judge's weight"]
    rows = []
    for judge, by_size in cells.items():
        for size, (alone, powered, wide, narrow, weight) in by_size.items():
            shown = [f"{alone:.3f}", f"{powered:.3f}", f"{wide:.3f}", f"{narrow:.3f}", f"{narrow / wide:.2f}"]
            rows.append([f"{judge}, {size}", *shown, f"{weight:.2f}"])
    return header, rows


if __name__ == "__main__":
    main()
