"""``python -m experiments.evaluate run=FOLDER``: saved agents on held-out applicants, mean and spread over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import EVALUATION, RunError, find_runs, unfinished_runs, write_json
from experiments.runs.grouping import group_runs
from experiments.runs.progress import tracked
from experiments.runs.tables import format_table, held_out_table, mean_and_spread


@command(config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluates each run, writes ``evaluation.json`` into its folder and that of the runs, and prints the table."""
    # Not at the top: `--help` is answered without torch.
    import torch

    from experiments.runs.saved import evaluate_run

    torch.set_num_threads(cfg.threads)
    changes: dict[str, Any] = OmegaConf.to_container(cfg.evaluation, resolve=True)  # type: ignore[assignment]
    paths: Any = OmegaConf.to_container(cfg.run) if OmegaConf.is_list(cfg.run) else cfg.run
    try:
        runs = find_runs(paths, "run")
        results = [evaluate_run(run, changes, cfg.trust) for run in tracked(runs, "evaluation", "run")]
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


if __name__ == "__main__":
    main()
