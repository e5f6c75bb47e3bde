"""``python -m experiments.studies.judges``: how much a judge narrows an estimate from few real answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import commit_of_checkout, read_json, write_json
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table
from jobrec_gym import RecordedSimulator, RuleSimulator, load_market
from jobrec_gym.prediction_powered import powered_mean, t_quantile

__all__ = ["JUDGES", "PlantedPolicy", "judges_table", "run_judge"]

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
    cells: dict[str, Any] = {}
    with Progress(len(JUDGES), "judges", "judge") as progress:
        for number, judge in enumerate(JUDGES):
            file = folder / "cells" / f"{number}.json"
            there = read_json(file, "remove the file") if file.is_file() else {}
            if there.get("about") != about:
                there = {"about": about, "found": run_judge(planted, judge, **about)}
                write_json(file, there)
            cells[judge] = there["found"]
            progress.update(1)
    header, rows = judges_table(cells)
    print(format_table(header, rows))
    path = folder / "judges.json"
    tables = [{"header": header, "rows": rows}]
    write_json(path, {**about, "exact": planted.value, "commit": commit_of_checkout(), "tables": tables})
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
        market = load_market("recorded")
        self._truth = RuleSimulator(seed=seed, noise=noise).bind(market)
        people, jobs = np.arange(len(market.applicants)), np.arange(len(market.jobs))
        self._cosine = market.cosine(np.repeat(people, len(jobs)), np.tile(jobs, len(people))).reshape(len(people), -1)
        self.expected: Floats = self._truth.expected_reward(people[:, None], jobs)
        said: Floats = RecordedSimulator().bind(market).expected_reward(people[:, None], jobs)
        self.judges = dict(zip(JUDGES, (self.expected, self._shuffled(0.3), said, self._shuffled(1.0)), strict=True))
        # The r-th best of m jobs is the best of a set of ten if the other nine are all worse than it.
        n_behind = len(jobs) - 1 - np.arange(len(jobs))
        chances = np.array([math.comb(n, _N_CANDIDATES - 1) for n in n_behind]) / math.comb(len(jobs), _N_CANDIDATES)
        ranked = np.take_along_axis(self.expected, np.argsort(-self._cosine, axis=1, kind="stable"), axis=1)
        self.value = float((ranked @ chances).mean())

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
    table = planted.judges[judge]
    found = {}
    for size in sizes:
        hits, widths, weights = np.zeros(2), np.zeros(2), 0.0
        for draw in range(n_draws):
            rng = np.random.default_rng((seed, size, draw))
            people, jobs = planted.recommendations(n_judged, rng)
            reward = planted.answers(people[:size], jobs[:size], rng)
            said, each = table[people, jobs], np.arange(n_judged)
            powered = powered_mean(reward, said[:size], each[:size], said, each, seed=draw)
            half = t_quantile(0.975, size - 1) * float(reward.std(ddof=1)) / math.sqrt(size)
            bounds = np.array([[reward.mean() - half, reward.mean() + half], [powered.low, powered.high]])
            hits += (bounds[:, 0] <= planted.value) & (planted.value <= bounds[:, 1])
            widths += bounds[:, 1] - bounds[:, 0]
            weights += powered.weight
        found[str(size)] = [*(hits / n_draws), *(widths / n_draws), weights / n_draws]
    return found


def judges_table(cells: dict[str, dict[str, list[float]]]) -> Table:
    """A row for each judge and number of answers."""
    header = ["judge, answers", "coverage, answers alone", "coverage, with judge", "width, answers alone"]
    header += ["width, with judge", "ratio", "judge's weight"]
    rows = []
    for judge, by_size in cells.items():
        for size, (alone, powered, wide, narrow, weight) in by_size.items():
            shown = [f"{alone:.3f}", f"{powered:.3f}", f"{wide:.3f}", f"{narrow:.3f}", f"{narrow / wide:.2f}"]
            rows.append([f"{judge}, {size}", *shown, f"{weight:.2f}"])
    return header, rows


if __name__ == "__main__":
    main()
