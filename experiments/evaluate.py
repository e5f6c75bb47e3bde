"""``python -m experiments.evaluate run=FOLDER``: scores saved agents on held-out applicants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import EVALUATION, RunError, find_runs, unfinished_runs, write_json
from experiments.runs.grouping import group_runs, like_with_like, newest, repeats_in_words
from experiments.runs.progress import tracked
from experiments.runs.references import mean_references
from experiments.runs.tables import format_table, held_out_table, mean_and_spread


@command(config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluates each run, prints the table, and writes ``evaluation.json`` into each run and a folder of runs.

    The file in a folder of runs has ``references`` (random, highest cosine, oracle) beside the agents. If not all runs
    can be compared, it has ``tasks`` in place of ``references``. Each task names agents that can be compared, and has
    the references for them. ``evaluation`` says what was evaluated. If a run was made twice, only the newest counts.
    """
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
    counted, repeats = newest(runs)  # a run that was made twice counts once, as one seed
    groups = group_runs(counted)
    by_folder = {run.folder: result for run, result in zip(runs, results, strict=True)}
    agents = {
        label: mean_and_spread([by_folder[run.folder]["held_out"] for run in members])
        for label, members in groups.items()
    }
    # Runs with unlike pairs or planted truths cannot be compared, so they are put into separate tables.
    tables, tasks = [], []
    for comparison in like_with_like(groups, lambda run: by_folder[run.folder]["references"]):
        compared = [by_folder[run.folder] for members in comparison.groups.values() for run in members]
        references = mean_references(result["references"] for result in compared)
        tasks.append({"name": comparison.name, "agents": list(comparison.groups), "references": references})
        rows: dict[str, Any] = {label: agents[label] for label in comparison.groups}
        table = format_table(*held_out_table(rows, references, who=_who(compared)))
        tables.append(f"{comparison.name}\n{table}" if comparison.name else table)
    print("\n\n".join(tables))
    sizes = {label: len(members) for label, members in groups.items()}
    print(
        "\n"
        + "; ".join(f"{label}: {n} run{'s' if n > 1 else ''}" for label, n in sizes.items())
        + ("; ± is one standard deviation." if any("±" in table for table in tables) else ".")
    )
    for words in filter(None, (repeats_in_words(repeats), unfinished_runs(paths, len(runs)))):
        print(words)
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
        beside = {"references": tasks[0]["references"]} if len(tasks) == 1 else {"tasks": tasks}
        write_json(Path(paths) / EVALUATION, {"agents": whole, "evaluation": _shared(results), **beside})


def _shared(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of the evaluations; "unlike" where runs differ."""
    each = [result["evaluation"] for result in results]
    names = dict.fromkeys(name for settings in each for name in settings)
    return {
        name: each[0].get(name) if all(settings.get(name) == each[0].get(name) for settings in each) else "unlike"
        for name in names
    }


def _who(results: Sequence[Mapping[str, Any]]) -> str:
    """The applicants that were scored, in words."""
    split = _shared(results).get("split", "test")
    return {"test": "held-out applicants", "train": "training applicants", "all": "all applicants"}.get(
        split, "applicants"
    )


if __name__ == "__main__":
    main()
