"""``python -m experiments.studies.calibration runs=FOLDER``: how well world models predict new and known pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from experiments.runs.command import command
from experiments.runs.folders import RunError, write_json
from experiments.runs.progress import tracked
from experiments.runs.tables import format_table
from jobrec_gym import ObservationForm

if TYPE_CHECKING:
    from experiments.studies.relearning import Relearned

__all__ = ["NOVELTY", "draw_by_novelty", "reward_calibration"]

NOVELTY = ("tried pair", "both met, not together", "met applicant, new job", "new applicant, met job", "both new")
"""Kinds of pairs. An applicant or a job was *met* if it took part in a recommendation that the agent learned from."""

METRICS = ("r2", "coverage", "spread")
_Z = 1.6448536269514722  # half width of the central 90 % interval, in standard deviations of a normal distribution


@command(config_path="../../conf", config_name="calibration")
def main(cfg: DictConfig) -> None:
    """Trains each learner again, prints a row for each kind of pair, and writes ``calibration.json``."""
    # Not at the top: `--help` is answered without torch.
    from experiments.runs.intervals import interval, interval_cell
    from experiments.studies.relearning import relearn, runs_of

    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    try:
        for learner, run in tracked(runs_of(cfg.runs, cfg.only, cfg.seeds), "calibration", "run"):
            trained = relearn(run, cfg.interactions, cfg.trust)
            if not hasattr(trained.model, "predict_reward"):
                raise RunError(f"learner {learner!r} has no world model: name others by `only`.")
            for kind, values in reward_calibration(trained, cfg.n_pairs).items():
                by_kind = results.setdefault(learner, {}).setdefault(kind, {name: [] for name in METRICS})
                for name in METRICS:
                    by_kind[name].append(values[name])
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    rows = [
        [
            f"{learner}: {kind}",
            *(interval_cell(interval(np.array(values[name]), cfg.reps), len(values[name])) for name in METRICS),
        ]
        for learner, kinds in results.items()
        for kind, values in kinds.items()
    ]
    print(format_table([f"after {cfg.interactions:,} interactions", "R2", "in the 90 % interval", "spread"], rows))
    path = Path(cfg.runs) / "calibration.json"
    about = {"interactions": cfg.interactions, "n_pairs": cfg.n_pairs, "seeds": list(cfg.seeds)}
    write_json(path, {**about, "learners": results})
    print(f"\nnumbers  {path}")


def reward_calibration(trained: Relearned, n_pairs: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """How well a world model predicts the expected rewards of pairs, by their novelty.

    Returns:
        For each kind of :data:`NOVELTY` that has pairs: ``r2`` of predictions against expected rewards; ``coverage``,
        the share of expected rewards within the central 90 % interval of the prediction; ``spread``, the mean standard
        deviation of a prediction.
    """
    result = {}
    for kind, (applicants, jobs) in draw_by_novelty(trained, n_pairs, np.random.default_rng(seed)).items():
        if not len(applicants):
            continue
        mean, spread = _predicted(trained, applicants, jobs)
        expected = trained.setup.truth.expected_reward(applicants, jobs)
        error = expected - mean
        varies = float(np.square(expected - expected.mean()).sum())
        result[kind] = {
            "r2": 1.0 - float(np.square(error).sum()) / varies if varies > 0 else float("nan"),
            "coverage": float((np.abs(error) <= _Z * spread).mean()),
            "spread": float(spread.mean()),
        }
    return result


def draw_by_novelty(
    trained: Relearned, n_pairs: int, rng: np.random.Generator
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Applicant and job ids of up to ``n_pairs`` pairs of each kind of :data:`NOVELTY`."""
    market, made = trained.setup.market, trained.interactions
    assert made is not None, "it learned from interactions"
    tried = np.unique(np.stack([made.applicant_ids, made.job_ids], axis=1), axis=0)
    met_applicants, met_jobs = np.unique(made.applicant_ids), np.unique(made.job_ids)
    new_applicants = np.setdiff1d(market.applicants.rows("test"), met_applicants)
    new_jobs = np.setdiff1d(market.jobs.rows("all"), met_jobs)
    known = {tuple(pair) for pair in tried.tolist()}

    def crossed(applicants: NDArray[np.int64], jobs: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        if not len(applicants) or not len(jobs):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        who, what = (ids[rng.integers(len(ids), size=n_pairs)] for ids in (applicants, jobs))
        fresh = np.array([pair not in known for pair in zip(who.tolist(), what.tolist(), strict=True)])
        return who[fresh], what[fresh]

    some = tried[rng.permutation(len(tried))[:n_pairs]]
    kinds = (
        (some[:, 0], some[:, 1]),
        crossed(met_applicants, met_jobs),
        crossed(met_applicants, new_jobs),
        crossed(new_applicants, met_jobs),
        crossed(new_applicants, new_jobs),
    )
    return dict(zip(NOVELTY, kinds, strict=True))


def _predicted(
    trained: Relearned, applicants: NDArray[np.int64], jobs: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and spread (n,) of the rewards of pairs. The agent is shown sets in which all k candidates are the job."""
    model, setup = trained.model, trained.setup
    shown = np.repeat(jobs[:, None], model.policy.layout.n_candidates, axis=1)
    obs = ObservationForm.of(setup.env)(setup.market, applicants, shown)
    return model.predict_reward(obs)[:, 0].astype(np.float64), model.reward_spread(obs)[:, 0].astype(np.float64)


if __name__ == "__main__":
    main()
