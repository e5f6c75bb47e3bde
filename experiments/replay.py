"""``python -m experiments.replay log=FILE``: compares learners on a log, scored on people whom they never met."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command, in_one_line
from experiments.runs.folders import RunError, commit_of_checkout, write_json
from experiments.runs.logs import log_on
from experiments.runs.numbers import is_number, require_known
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table
from jobrec_gym.near_miss import best_match
from jobrec_gym.paths import place_of

if TYPE_CHECKING:
    from jobrec_gym import Interactions

__all__ = ["apart_tables", "known_adapters", "mean_scores", "read_log", "tables_of", "worst_table"]

Scores = Mapping[str, Mapping[int, list[float]]]
"""Metric -> person -> one value for each point, that is after each number of answers."""

_BASELINE = "cosine"


@command(config_path="../conf", config_name="replay")
def main(cfg: DictConfig) -> None:
    """Replays each learner, prints a table for each metric, and writes ``replay.json``."""
    # Not at the top: `--help` is answered without torch.
    import torch
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from experiments.learners.lexical import LEXICAL
    from experiments.runs.build import build, plain
    from experiments.runs.intervals import FEWEST
    from experiments.runs.training import new_agent
    from experiments.studies.replaying import LogSets, compose_on_log, form_of, pairs_of, replay_learner, replay_scores
    from experiments.studies.runs import known_learners
    from jobrec_gym import ObservationForm

    torch.set_num_threads(cfg.threads)
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    points = sorted(set(options["points"]))
    found: dict[str, list[Scores]] = {}
    try:
        if not points or points[0] < 0:
            raise RunError(f"`points` must be numbers of answers, such as [0,50,200], got {options['points']}.")
        hit = options["hit_above"]
        if not is_number(hit):
            raise RunError(f"`hit_above` must be a finite number, a reward, got {hit!r}.")
        require_known("learners", options["learners"], known_learners(), "conf/learner")
        require_known("rankings", options["rankings"], list(LEXICAL), "experiments.learners.lexical")
        log = read_log(options)
        form = ObservationForm("ids", pair_features=pairs_of(options["pair_features"]))
        seeds = range(cfg.seed, cfg.seed + options["repeats"])
        drawn = {
            seed: LogSets.of(log, cfg.n_candidates, cfg.n_sets, form, cfg.k, cfg.hit_above, seed) for seed in seeds
        }
        for name in options["rankings"]:
            scores = LEXICAL[name](log.market)
            found[name] = [replay_scores(scores, sets, len(points)) for sets in drawn.values()]
        with Progress(len(options["learners"]) * len(seeds) * cfg.n_folds, "replay", "fold") as progress:
            for name in options["learners"]:
                shared = (name, options["pair_features"], "experiment=coldstart", "progress_bar=false")
                shown = form_of(plain(compose_on_log(*shared))["env"])
                found[name] = []
                for seed, of_all in drawn.items():
                    sets = replace(of_all, form=shown)

                    def make(env: Any, fold: int, shared: Any = shared, seed: int = seed) -> Any:
                        return new_agent(build(compose_on_log(*shared, f"seed={seed * cfg.n_folds + fold}")), env)[0]

                    scored = replay_learner(make, log, sets, points, cfg.n_folds, seed, lambda: progress.update(1))
                    found[name].append(scored)
    except (RunError, ValueError, ImportError, HydraException, OmegaConfBaseException) as error:
        raise SystemExit(f"error: {in_one_line(error)}") from error
    means = {name: mean_scores(scores) for name, scores in found.items()}
    tables = tables_of(means, points, cfg.reps)
    if _BASELINE in found:
        tables += apart_tables(means, points, cfg.reps)
        if len(seeds) > 1:
            tables.append(worst_table(found, points))
    for header, rows in tables:
        print(format_table(header, rows), end="\n\n")
    n_people = {metric: len(scores) for metric, scores in next(iter(means.values())).items()}
    print(
        f"{len(np.unique(drawn[cfg.seed].people)):,} people, {cfg.n_sets} sets of {cfg.n_candidates} answered jobs "
        f"each; cross-validated over people in {cfg.n_folds} folds, {len(seeds)} times.\n"
        "Scored are sets with a hit, for AUC also with another job: "
        f"{', '.join(f'{metric} is over {n:,} people' for metric, n in n_people.items())}.\n"
        f"In brackets: 95 % bootstrap intervals over people; below {FEWEST} people there are none."
    )
    path = Path(cfg.folder) / "replay.json"
    made_by = {"options": options, "commit": commit_of_checkout()}
    content = {**made_by, "points": points, "n_people": n_people, "scores": found}
    write_json(path, {**content, "tables": [{"header": header, "rows": rows} for header, rows in tables]})
    print(f"\nnumbers  {path}")


def read_log(options: Mapping[str, Any]) -> Interactions:
    """The log that a command names: by an adapter and the folder of its data set, or by a file or folder and a market.

    Args:
        options: ``log``, ``path``, ``encoder``, ``source``, and how the log is read, as in ``conf/replay.yaml``.

    Raises:
        RunError: If an option is missing, or names no log.
        ValueError: If the log or the market cannot be read.
    """
    from jobrec_gym import load_market

    log, adapters = options["log"], known_adapters()
    if log is None:
        raise RunError(
            f"`log` must be given: log=FILE (csv, jsonl, parquet) or a saved folder, with source=...; or the name of "
            f"an adapter ({', '.join(adapters)}), with path=FOLDER."
        )
    if log in adapters:
        if options["path"] is None:
            raise RunError(f"`path` must be given with log={log}: path=FOLDER, where your copy of the data set is.")
        return importlib.import_module(f"experiments.adapters.{log}").read(Path(options["path"]), options["encoder"])
    if not any(place_of(path).exists() for path in (log, str(log).partition(":")[2] or log)):
        near = best_match(str(log), adapters)
        hint = f" Did you mean log={near}?" if near else ""
        raise RunError(f"`log`: there is no file or folder {log!r}, and no adapter of that name.{hint}")
    return log_on(load_market(options["source"]), options)


def known_adapters() -> list[str]:
    """Names of the modules of ``experiments.adapters``."""
    import experiments.adapters

    return sorted(module.name for module in pkgutil.iter_modules(experiments.adapters.__path__))


def mean_scores(repeats: Sequence[Scores]) -> Scores:
    """The mean score of each person over the repeats in which they were scored."""
    found: dict[str, dict[int, list[float]]] = {}
    for metric in repeats[0]:
        people = sorted({person for scores in repeats for person in scores[metric]})
        found[metric] = {
            person: np.mean([scores[metric][person] for scores in repeats if person in scores[metric]], axis=0).tolist()
            for person in people
        }
    return found


def worst_table(found: Mapping[str, Sequence[Scores]], points: list[int]) -> Table:
    """The difference between each learner and cosine in the first metric, in the repeat where it is lowest."""
    metric = next(iter(found[_BASELINE][0]))

    def means(name: str) -> np.ndarray:
        return np.array([np.mean(list(scores[metric].values()), axis=0) for scores in found[name]])

    rows = [
        [name, *(f"{worst:+.4f}" for worst in (means(name) - means(_BASELINE)).min(axis=0))]
        for name in found
        if name != _BASELINE
    ]
    header = f"{metric} less {_BASELINE}'s in the worst repeat, after"
    return [header, *(f"{point:,} answers" for point in points)], rows


def apart_tables(found: Mapping[str, Scores], points: list[int], reps: int) -> list[Table]:
    """A table for each metric with the mean difference between each learner or ranking and cosine, and its interval.

    Differences are paired by person. How hard a person's sets are, which both share, cancels out.
    """
    from experiments.runs.intervals import interval_cell, paired_difference

    tables = []
    for metric, baseline in found[_BASELINE].items():
        rows = []
        for name, scores in found.items():
            if name != _BASELINE:
                ours, theirs = (_by_person(of) for of in (scores[metric], baseline))
                apart = paired_difference(ours, theirs, reps)
                rows.append([name, *(interval_cell(column, len(ours), "+.4f") for column in apart.T)])
        tables.append(([f"{metric} less {_BASELINE}'s after", *(f"{point:,} answers" for point in points)], rows))
    return tables


def tables_of(found: Mapping[str, Scores], points: list[int], reps: int) -> list[Table]:
    """A table for each metric with the mean over people and its interval.

    Each learner or ranking has a row, and each point a column.
    """
    from experiments.runs.intervals import interval_cell, mean_interval

    tables = []
    for metric in next(iter(found.values())):
        rows = []
        for name, scores in found.items():
            values = _by_person(scores[metric])
            cells = (interval_cell(column, len(values), ".3f") for column in mean_interval(values, reps).T)
            rows.append([name, *cells])
        tables.append(([f"{metric} after", *(f"{point:,} answers" for point in points)], rows))
    return tables


def _by_person(scores: Mapping[int, list[float]]) -> NDArray[np.float64]:
    """Scores (n_people, n_points), in the order of people."""
    return np.array([scores[person] for person in sorted(scores)])


if __name__ == "__main__":
    main()
