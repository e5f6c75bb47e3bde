"""``python -m experiments.demo``: trains the best agent, cosine and the note's plain algorithm, and compares them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command, typed_command
from experiments.runs.folders import COLDSTART, Run, RunError, read_run, write_json
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table

if TYPE_CHECKING:
    import pandas as pd

    from experiments.studies.runs import StudyRun

__all__ = ["LEARNERS", "in_a_sentence"]

LEARNERS = ("dynaq_plus", "cosine", "dynaq")
"""The learners that are compared. The run of each is in a folder of the same name."""

_SETTING = "profile"
_EARLY = [0, 20, 50]
_INTERVAL = 100
_IN_TABLE = (*_EARLY, 100, 400)
_FIGURE = "learning.png"
_SCORE = "held_out/score"


@command(
    config_path="../conf",
    config_name="demo",
    kept="the runs that are finished, and a checkpoint of each run that was learning, in {folder}",
    least_of={"interactions": 1},
)
def main(cfg: DictConfig) -> None:
    """Makes the missing runs, writes the figure and the report, and prints the result in a sentence."""
    # Not at the top: `--help` is answered without torch.
    from experiments.pages.page import write_report
    from experiments.pages.sections.study import read_study
    from experiments.studies.figure import plot_learning

    folder, common = Path(cfg.folder), OmegaConf.to_container(cfg.common, resolve=True)
    try:
        _train(_runs(folder, cfg.interactions, cfg.seed, common), cfg.n_jobs)
        runs = {name: read_run(folder / name) for name in LEARNERS}
        scores = {name: run.metrics.set_index("interactions")[_SCORE] for name, run in runs.items()}
        table, sentence, caption = _table(runs, scores), in_a_sentence(scores), _caption(runs["cosine"])
        plot_learning(scores, caption, folder / _FIGURE)
        header, rows = table
        write_json(
            folder / COLDSTART,
            {
                "name": "demo",
                "command": typed_command("experiments.demo"),
                "in_words": f"{sentence} {caption}",
                "tables": [{"header": header, "rows": rows}],
                "figure": _FIGURE,
            },
        )
        page = write_report(list(runs.values()), folder / "report", _title(), study=read_study(folder))
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"figure  {folder / _FIGURE}\nreport  {page}\n\n{format_table(*table)}\n\n{sentence}")


def in_a_sentence(scores: Mapping[str, pd.Series]) -> str:
    """A sentence with the result of each learner.

    Args:
        scores: Scores of each of :data:`LEARNERS`, indexed by interactions, from 0 to the last one.

    Example:
        >>> import pandas as pd
        >>> ends = {"dynaq_plus": [0.47, 0.69], "cosine": [0.43, 0.43], "dynaq": [0.0, 0.36]}
        >>> print(in_a_sentence({name: pd.Series(values, [0, 1_000]) for name, values in ends.items()}))
        dynaq_plus rises from 0.47 to 0.69 in 1,000 interactions and ends above cosine, which stays at 0.43; dynaq rises
        from 0.00 to 0.36.
    """
    best, cosine, plain = LEARNERS
    # Rounded as they are printed, so that two scores that look equal are called equal.
    ours, its = (round(float(scores[name].iloc[-1]), 2) for name in (best, cosine))
    side = "above" if ours > its else "below" if ours < its else "level with"
    return (
        f"{_moves(best, scores[best])} in {scores[best].index[-1]:,} interactions and ends {side} {cosine}, which "
        f"stays at {its:.2f}; {_moves(plain, scores[plain])}."
    )


def _moves(name: str, scores: pd.Series) -> str:
    start, end = (round(float(scores.iloc[place]), 2) for place in (0, -1))
    if start == end:
        return f"{name} stays at {end:.2f}"
    return f"{name} {'rises' if end > start else 'falls'} from {start:.2f} to {end:.2f}"


def _runs(folder: Path, interactions: int, seed: int, common: Any) -> list[StudyRun]:
    """The run of each learner.

    Raises:
        RunError: If ``common`` does not compose.
    """
    from experiments.studies.runs import compose_runs, read_learner

    overrides = [
        f"setting={_SETTING}",
        f"total_timesteps={interactions}",
        f"evaluation.at={_EARLY}",
        f"evaluation.interval={_INTERVAL}",
        *common,
    ]
    runs = []
    for name in LEARNERS:
        (run,) = compose_runs(read_learner(name), _SETTING, overrides, [seed], folder, path=None)
        runs.append(replace(run, folder=folder / name))
    return runs


def _train(runs: list[StudyRun], n_jobs: int) -> None:
    """Trains the runs that are not finished.

    Raises:
        RunError: If one of them fails.
    """
    from experiments.studies.runs import run_all

    missing = [run for run in runs if not run.finished]
    if not missing:
        print("all runs are finished already: nothing to train", file=sys.stderr)
        return
    interactions = f"{missing[0].setup.total_timesteps:,} interactions each"
    print(f"training {', '.join(run.folder.name for run in missing)}: {interactions}", file=sys.stderr)
    failed = []
    with Progress(len(runs), "demo", "run", done=len(runs) - len(missing)) as progress:

        def done(run: StudyRun, error: str | None) -> None:
            progress.update()
            if error is not None:
                failed.append(f"{run.folder.name} failed: {error}")

        # The last run takes the longest, so it begins first.
        run_all(missing[::-1], n_jobs, done)
    if failed:
        raise RunError("; ".join(failed))


def _table(runs: Mapping[str, Run], scores: Mapping[str, pd.Series]) -> Table:
    """Score of each learner after some interactions and at the end, and its cumulative regret."""
    end = scores[LEARNERS[0]].index[-1]
    points = [*(point for point in _IN_TABLE if point < end), end]
    rows = []
    for name, run in runs.items():
        regret = run.summary["online"]["cumulative_regret"]
        rows.append([name, *(f"{scores[name][point]:.2f}" for point in points), f"{regret:.0f}"])
    return ["score after", *(f"{point:,}" for point in points), "regret"], rows


def _caption(run: Run) -> str:
    """Explains the score. The mean rewards of random and oracle are the same for every run."""
    random, oracle = (run.summary["references"][who]["mean_reward"] for who in ("random", "oracle"))
    return (
        f"One run each, setting={_SETTING}, seed {run.summary['seed']}. The score is that of the greedy choice on "
        f"applicants from whom no agent learns: 0 is a random choice (mean reward {random:.2f}), 1 is the oracle "
        f"({oracle:.2f})."
    )


def _title() -> str:
    best, *others = LEARNERS
    return f"Demo: {best} beside {' and '.join(others)}"


if __name__ == "__main__":
    main()
