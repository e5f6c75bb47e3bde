"""``python -m experiments.evaluate run=FOLDER``: scores saved agents on held-out applicants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import EVALUATION, RunError, find_runs, unfinished_runs, write_json
from experiments.runs.grouping import group_runs, like_with_like
from experiments.runs.progress import tracked
from experiments.runs.tables import format_table, held_out_table, mean_and_spread


@command(config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluates each run, prints the table, and writes ``evaluation.json``: for each run, and for a folder of runs."""
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
    agents = {
        label: mean_and_spread([by_folder[run.folder]["held_out"] for run in members])
        for label, members in groups.items()
    }
    # Runs that cannot be compared (other pairs, or another planted truth) are put into separate tables.
    tables = []
    for comparison in like_with_like(groups, lambda run: by_folder[run.folder]["references"]):
        first = next(iter(comparison.groups.values()))[0]
        rows: dict[str, Any] = {label: agents[label] for label in comparison.groups}
        table = format_table(*held_out_table({**rows, **by_folder[first.folder]["references"]}))
        tables.append(f"{comparison.name}\n{table}" if comparison.name else table)
    print("\n\n".join(tables))
    sizes = {label: len(members) for label, members in groups.items()}
    print(
        "\n"
        + "; ".join(f"{label}: {n} run{'s' if n > 1 else ''}" for label, n in sizes.items())
        + ("; ± is one standard deviation." if any("±" in table for table in tables) else ".")
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
