"""``python -m experiments.evaluate run=FOLDER``: saved agents on held-out applicants, mean and spread over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from experiments.build import build_env, build_market, build_truth, load_algorithm
from experiments.grouping import group_runs
from experiments.progress import tracked
from experiments.runs import EVALUATION, MODEL, Run, RunError, find_runs, unfinished_runs, write_json
from experiments.tables import format_table, held_out_table, mean_and_spread
from experiments.train import build_evaluation
from jobrec_gym import LabourMarket

__all__ = ["evaluate_run", "load_run"]


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluates each run, writes ``evaluation.json`` into its folder and that of the runs, and prints the table."""
    torch.set_num_threads(cfg.threads)
    changes: dict[str, Any] = OmegaConf.to_container(cfg.evaluation, resolve=True)  # type: ignore[assignment]
    paths: Any = OmegaConf.to_container(cfg.run) if OmegaConf.is_list(cfg.run) else cfg.run
    try:
        runs = find_runs(paths, "run")
        results = [evaluate_run(run, changes) for run in tracked(runs, "evaluation", "run")]
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    groups = group_runs(runs)
    by_folder = {run.folder: result for run, result in zip(runs, results, strict=True)}
    agents: dict[str, Any] = {}
    for label, members in groups.items():
        agents[label] = mean_and_spread([by_folder[run.folder]["held_out"] for run in members])
    # Runs may differ in market or truth; the references of the first one stand for all that share its pairs.
    agents |= results[0]["references"]
    print(format_table(*held_out_table(agents)))
    shared = all(result["references"] == results[0]["references"] for result in results)
    if not shared:
        print(
            "\nThe runs were evaluated on different pairs or truths: random, cosine and oracle are those of the first."
        )
    sizes = {label: len(members) for label, members in groups.items()}
    print(
        "\n"
        + "; ".join(f"{label}: {n} run{'s' if n > 1 else ''}" for label, n in sizes.items())
        + "; ± is one standard deviation."
    )
    if unfinished := unfinished_runs(paths, len(runs)):
        print(unfinished)
    if isinstance(paths, str) and len(runs) > 1:
        whole = {
            label: {
                "runs": [str(run.folder) for run in members],
                "held_out": {
                    key: None if value is None else dict(zip(("mean", "std", "n"), value, strict=True))
                    for key, value in agents[label].items()
                },
            }
            for label, members in groups.items()
        }
        write_json(Path(paths) / EVALUATION, {"agents": whole, "references": results[0]["references"]})


def evaluate_run(run: Run, changes: dict[str, Any]) -> dict[str, Any]:
    """Loads the agent of a run, evaluates it, and writes ``evaluation.json`` beside it.

    Args:
        run: A finished run.
        changes: Entries of its config's ``evaluation`` to replace; ``None`` keeps one.

    Returns:
        What was written: ``evaluation`` (the settings), ``held_out``, ``references`` and ``outcomes``.

    Raises:
        RunError: If there is no saved agent.
    """
    cfg, market, model = load_run(run, changes)
    evaluation = build_evaluation(cfg, market, build_truth(cfg, market))
    settings: Any = OmegaConf.to_container(cfg.evaluation)
    result = {
        "evaluation": {key: settings[key] for key in changes},
        "held_out": evaluation.with_return(model),
        "references": evaluation.references(),
        "outcomes": {"agent": evaluation.outcomes(model), **evaluation.reference_outcomes()},
    }
    write_json(run.folder / EVALUATION, result)
    return result


def load_run(run: Run, changes: dict[str, Any]) -> tuple[DictConfig, LabourMarket, Any]:
    """The config of a run with some entries of ``evaluation`` replaced (``None`` keeps one), its market, its agent.

    Raises:
        RunError: If there is no saved agent.
    """
    saved = run.file(MODEL)
    cfg = OmegaConf.create(run.config)
    kept = {key: value for key, value in changes.items() if value is not None}
    cfg.evaluation = OmegaConf.merge(cfg.evaluation, kept)
    market = build_market(cfg)
    return cfg, market, load_algorithm(cfg, saved, build_env(cfg, market))


if __name__ == "__main__":
    main()
