"""``python -m experiments.studies.quadrants runs=FOLDER``: saved learners on known and new applicants and jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.runs.command import command
from experiments.runs.folders import Run, RunError, write_json
from experiments.runs.progress import tracked
from experiments.runs.tables import format_table

__all__ = ["QUADRANTS", "quadrant_scores"]

QUADRANTS = {
    "known applicants, known jobs": {"split": "train", "job_split": "train"},
    "new applicants, known jobs": {"split": "test", "job_split": "train"},
    "known applicants, new jobs": {"split": "train", "job_split": "test"},
    "new applicants, new jobs": {"split": "test", "job_split": "test"},
}
"""Splits of each quadrant. Applicants and jobs of the training splits count as known, met or not."""


@command(config_path="../../conf", config_name="quadrants")
def main(cfg: DictConfig) -> None:
    """Evaluates each run four times, prints the IQM over seeds, and writes ``quadrants.json``."""
    # Not at the top: `--help` is answered without torch.
    import torch

    from experiments.runs.intervals import interval, interval_cell
    from experiments.studies.relearning import learners_of

    torch.set_num_threads(cfg.threads)
    scores: dict[str, dict[str, list[float]]] = {}
    try:
        chosen = [(learner, run) for learner, runs in learners_of(cfg.runs, cfg.only) for run in runs]
        for learner, run in tracked(chosen, "quadrants", "run"):
            by_quadrant = scores.setdefault(learner, {name: [] for name in QUADRANTS})
            for name, score in quadrant_scores(run, cfg.n_pairs, cfg.trust).items():
                by_quadrant[name].append(score)
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    rows = [
        [
            learner,
            *(interval_cell(interval(np.array(values), cfg.reps), len(values)) for values in by_quadrant.values()),
        ]
        for learner, by_quadrant in scores.items()
    ]
    print(format_table(["IQM of the score", *QUADRANTS], rows))
    path = Path(cfg.runs) / "quadrants.json"
    write_json(path, {"n_pairs": cfg.n_pairs, "scores": scores})
    print(f"\nnumbers  {path}")


def quadrant_scores(run: Run, n_pairs: int | None, trust: bool = False) -> dict[str, float]:
    """Normalised score of a run's agent in each of :data:`QUADRANTS`.

    Raises:
        RunError: As in :func:`~experiments.runs.saved.load_run`.
    """
    from experiments.runs.saved import load_run

    scores = {}
    for name, splits in QUADRANTS.items():
        changes: dict[str, Any] = {**splits, "n_pairs": n_pairs, "n_episodes": 0}
        setup, model = load_run(run, changes, trust)
        score = setup.evaluation(model)["score"]
        scores[name] = float("nan") if score is None else score
    return scores


if __name__ == "__main__":
    main()
