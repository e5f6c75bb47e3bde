"""``python -m experiments.studies.career_goals``: which of its goals for careers this project reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from experiments.runs.command import command, typed_command
from experiments.runs.folders import RunError, commit_of_checkout, read_json, write_json
from experiments.runs.tables import format_table
from experiments.studies.goals import FAILS, HOLDS, MISSING, Verdict, short

__all__ = ["Shares", "read_shares", "verdicts"]

OURS, MYOPIC, COSINE = "dynaq_plus", "myopic policy, exact", "cosine"
GAMMA_0 = "dynaq_plus_gamma_0"
WITHOUT_PLANNING = ("dynaq_plus_no_planning", "dynaq_noplan")
"""Learners without planning: ``dynaq_plus`` without planning steps, and networks with five updates on real transitions
after each transition."""
NETWORKS = ("dqn", "qrdqn", "ppo", "maskable_ppo")
PAIRS, VECTORS = "with pair features", "with vectors alone"

Shares = Mapping[tuple[str, str, int], Mapping[int, float]]
"""Kind of observation, learner and number of interactions -> seed -> the share of the best policy's return."""


@command(config_path="../../conf", config_name="career_goals")
def main(cfg: DictConfig) -> None:
    """Prints and writes a verdict with its figures for each goal."""
    try:
        found = verdicts(read_shares(map(Path, cfg.results)))
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    print(format_table(Verdict._fields, [list(verdict) for verdict in found], left=4))
    rows = [[f"{name}: {what}", verdict, figures] for name, what, verdict, figures in found]
    path = Path(cfg.folder) / "career_goals.json"
    made_by = {
        "command": typed_command("experiments.studies.career_goals"),
        "results": list(cfg.results),
        "commit": commit_of_checkout(),
    }
    write_json(path, {**made_by, "tables": [{"header": ["goal", "verdict", "figures"], "rows": rows}]})
    print(f"\nnumbers  {path}")


def read_shares(files: Iterable[Path]) -> dict[tuple[str, str, int], dict[int, float]]:
    """The shares in files of ``experiments.career``. Where two files have the same run, the first one counts.

    Raises:
        RunError: If a file is not there, is not of that command, or is of another task than the first file.
    """
    # Not at the top: `--help` is answered without torch.
    from experiments.studies.careers import shares_of

    shares: dict[tuple[str, str, int], dict[int, float]] = {}
    tasks: list[Any] = []
    for file in files:
        way_out = "Give `results` the paths of career.json files, as experiments.career writes them."
        study = read_json(file, way_out)
        try:
            asked = study["runs"][0]["asked"]
            others = {name: value for name, value in asked["env"].items() if name != "pair_features"}
            tasks.append((asked.get("noise"), asked.get("simulator"), asked.get("n_applicants"), others))
            kind = PAIRS if asked["env"]["pair_features"] else VECTORS
            for name, by_point in shares_of(study).items():
                for point, own in by_point.items():
                    shares[kind, name, point] = own | shares.get((kind, name, point), {})
        except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
            raise RunError(f"{file} is no file of experiments.career, {type(error).__name__}. {way_out}") from error
        if tasks[-1] != tasks[0]:
            raise RunError(f"{file} has another market, truth or number of applicants than the files before it.")
    return shares


def verdicts(shares: Shares) -> list[Verdict]:
    """The verdict on each goal."""
    return [
        _judged(shares, name, what, needs, judge)
        for name, what, needs, judge in (
            ("1 myopic", "the best myopic policy earns at most .45", [(PAIRS, MYOPIC, 0)], _at_most(0.45)),
            *(
                (
                    f"2 {OURS}, {kind}",
                    f"at least {short(least)} after {point:,}",
                    [(kind, OURS, point)],
                    _at_least(least),
                )
                for kind, point, least in (
                    (PAIRS, 1_000, 0.30),
                    (PAIRS, 5_000, 0.38),
                    (PAIRS, 20_000, 0.50),
                    (VECTORS, 1_000, 0.12),
                    (VECTORS, 20_000, 0.25),
                )
            ),
            *(
                (
                    "3 gamma",
                    f"{ratio:g} times itself with gamma 0 after {point:,}, in nine tenths of the seeds",
                    [(PAIRS, OURS, point), (PAIRS, GAMMA_0, point)],
                    _times(ratio, 0.9),
                )
                for point, ratio in ((5_000, 1.5), (20_000, 2.0))
            ),
            *(
                (
                    "4 planning",
                    f"the mean is 1.8 times that of {without} after {point:,}",
                    [(PAIRS, OURS, point), (PAIRS, without, point)],
                    _times(1.8, None),
                )
                for without in WITHOUT_PLANNING
                for point in (2_000, 5_000)
            ),
            *(
                (
                    f"4 {network}",
                    f"above {network} after {point:,}, on the same seeds",
                    [(PAIRS, OURS, point), (PAIRS, network, point)],
                    _above,
                )
                for network in NETWORKS
                for point in (1_000, 5_000)
            ),
            *(
                (
                    "5 beginning",
                    f"the mean is not below cosine's after {point}",
                    [(PAIRS, OURS, point), (PAIRS, COSINE, 0)],
                    _times(1.0, None),
                )
                for point in (0, 40, 100)
            ),
        )
    ]


Judge = Callable[..., tuple[bool, str]]


def _judged(shares: Shares, name: str, what: str, needs: list[tuple[str, str, int]], judge: Judge) -> Verdict:
    lacking = [
        f"{learner} after {point:,}, {kind}" for kind, learner, point in needs if (kind, learner, point) not in shares
    ]
    if lacking:
        return Verdict(name, what, MISSING, "; ".join(lacking))
    common = sorted(set.intersection(*(set(shares[need]) for need in needs)))
    if not common:
        return Verdict(name, what, MISSING, "a seed that all of them have")
    holds, figures = judge(*(np.array([shares[need][seed] for seed in common]) for need in needs))
    return Verdict(name, what, HOLDS if holds else FAILS, f"{figures}; {len(common)} seeds")


def _at_most(most: float) -> Judge:
    def judge(found: NDArray[np.float64]) -> tuple[bool, str]:
        return bool(found.mean() <= most), f"{found.mean():.3f}, at most {found.max():.3f}"

    return judge


def _at_least(least: float) -> Judge:
    def judge(found: NDArray[np.float64]) -> tuple[bool, str]:
        return bool(found.mean() >= least), f"{found.mean():.3f}, worst seed {found.min():.3f}"

    return judge


def _above(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[bool, str]:
    return bool(ours.mean() > theirs.mean()), f"{ours.mean():.3f} and {theirs.mean():.3f}"


def _times(ratio: float, share_of_seeds: float | None) -> Judge:
    """Whether the first learner earns at least ``ratio`` times what the second one earns.

    This must hold in a share of the seeds, or in the mean if ``share_of_seeds`` is ``None``.
    """

    def judge(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[bool, str]:
        means = f"{ours.mean():.3f} and {theirs.mean():.3f}"
        reached = ours >= ratio * theirs
        holds = ours.mean() >= ratio * theirs.mean() if share_of_seeds is None else reached.mean() >= share_of_seeds
        return bool(holds), f"{means}, in {int(reached.sum())}"

    return judge


if __name__ == "__main__":
    main()
