"""``python -m experiments.studies.new_applicants runs=FOLDER``: how fast a trained learner adapts to somebody new."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from experiments.runs.command import command
from experiments.runs.evaluation import draw_pairs
from experiments.runs.folders import RunError, write_json
from experiments.runs.progress import tracked
from experiments.runs.tables import format_table
from jobrec_gym import JobRecVectorEnv

if TYPE_CHECKING:
    from experiments.studies.relearning import Relearned

__all__ = ["OneApplicantEnv", "adaptation"]

_SEED = 3_000_000


class OneApplicantEnv(JobRecVectorEnv):
    """A ``JobRecVectorEnv`` whose applicant is always the same.

    Args:
        applicant_id: Row of the applicant.
        own_seed: Seed of every reset, in place of the given one; ``None`` for the given one.
        **kwargs: Arguments of ``JobRecVectorEnv``.
    """

    def __init__(self, applicant_id: int, own_seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self._problem.applicant_ids = np.array([applicant_id])
        self._own_seed = own_seed

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts episodes. With ``own_seed`` they are the same for every learner."""
        return super().reset(seed=seed if self._own_seed is None else self._own_seed, options=options)


@command(config_path="../../conf", config_name="new_applicants")
def main(cfg: DictConfig) -> None:
    """Trains each learner on other applicants, lets it meet new ones, prints the IQM over seeds, writes the JSON."""
    # Not at the top: `--help` is answered without torch.
    from experiments.runs.intervals import interval, interval_cell
    from experiments.studies.relearning import relearn, runs_of

    points = list(cfg.points)
    scores: dict[str, list[list[float]]] = {}
    try:
        for learner, run in tracked(runs_of(cfg.runs, cfg.only, cfg.seeds), "new applicants", "run"):
            values = adaptation(relearn(run, cfg.interactions, cfg.trust), cfg.n_applicants, points, cfg.n_pairs)
            scores.setdefault(learner, []).append(values.tolist())
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    rows = [
        [learner, *(interval_cell(interval(column, cfg.reps), len(column)) for column in np.array(values).T)]
        for learner, values in scores.items()
    ]
    print(
        format_table(
            [f"after {cfg.interactions:,} answers of others, then", *(f"{point} own answers" for point in points)], rows
        )
    )
    path = Path(cfg.runs) / "new_applicants.json"
    about = {"interactions": cfg.interactions, "n_applicants": cfg.n_applicants, "n_pairs": cfg.n_pairs}
    write_json(path, {**about, "points": points, "seeds": list(cfg.seeds), "scores": scores})
    print(f"\nnumbers  {path}")


def adaptation(trained: Relearned, n_applicants: int, points: list[int], n_pairs: int) -> NDArray[np.float64]:
    """Normalised score with new applicants, after some numbers of interactions with each of them.

    Every new applicant gets a copy of the agent, with its replay, that has met no other new applicant. It is scored on
    candidate sets of this applicant from which it does not learn.

    Args:
        trained: The agent.
        n_applicants: How many applicants of the test split, drawn by a fixed seed.
        points: Numbers of interactions with the applicant, ascending.
        n_pairs: Number of candidate sets for an applicant's score.

    Returns:
        Scores (n_points,) over all applicants.
    """
    from experiments.runs.recording import AtInteractions

    setup, market = trained.setup, trained.setup.market
    new = np.random.default_rng(_SEED).permutation(market.applicants.rows("test"))[:n_applicants]
    gained, possible = np.zeros(len(points)), 0.0
    for number, applicant in enumerate(new.tolist()):
        make = functools.partial(OneApplicantEnv, applicant)
        options = {**setup.env_options, "split": "all"}
        pairs = draw_pairs(market, setup.truth, options, n_pairs, _SEED + number * n_pairs, make)
        mean = pairs.expected.mean(axis=1)
        possible += float((pairs.expected.max(axis=1) - mean).sum())
        old_env = trained.model.get_env()
        model = copy.deepcopy(trained.model, {id(old_env): old_env})
        model.set_env(setup.make_env(functools.partial(make, own_seed=number)))

        def score(now: int, model: Any = model, pairs: Any = pairs, mean: Any = mean) -> None:
            chosen = model.predict(pairs.obs, deterministic=True)[0]
            gain = pairs.expected[np.arange(len(pairs)), chosen] - mean
            gained[points.index(now)] += float(gain.sum())

        model.learn(max(points), callback=AtInteractions(points, score), reset_num_timesteps=False)
    return gained / possible


if __name__ == "__main__":
    main()
