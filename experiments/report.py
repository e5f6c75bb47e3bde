"""``python -m experiments.report runs=FOLDER``: makes one self-contained HTML page of runs, and its plots as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import RunError, find_runs, unfinished_runs, write_json
from experiments.runs.grouping import group_runs, like_with_like, newest
from experiments.runs.tables import format_table
from jobrec_gym.paths import place_of


@command(config_path="../conf", config_name="report")
def main(cfg: DictConfig) -> None:
    """Writes the report of some runs, and prints its path.

    If agents were scored by several signals, ``scores.json`` beside the page has these scores, also those of each seed.
    """
    # Not at the top: `--help` is answered without torch.
    from experiments.pages.page import write_report
    from experiments.pages.screenshots import take_screenshots
    from experiments.pages.sections.held_out import scores_by_seed, truths_table
    from experiments.pages.sections.study import read_study

    paths: Any = OmegaConf.to_container(cfg.runs) if OmegaConf.is_list(cfg.runs) else cfg.runs
    try:
        runs = find_runs(paths, "runs")
        if told := [run.folder for run in runs if "held_out" not in run.summary]:
            raise RunError(
                f"{told[0]} has learned from a log, so it has no scores: python -m experiments.off_policy says what it "
                "would have earned on another log."
            )
        unfinished = unfinished_runs(paths, len(runs))
        first = place_of(paths if isinstance(paths, str) else paths[0])
        folder = first / "report" if cfg.output is None else place_of(cfg.output)
        study = read_study(first) if isinstance(paths, str) else None
        page = write_report(runs, folder, cfg.title, unfinished, study)
        pictures = take_screenshots(page, Path(cfg.screenshots)) if cfg.screenshots else []
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    counted = newest(runs)[0]
    tables: list[dict[str, Any]] = []
    scores: dict[str, Any] = {}
    for comparison in like_with_like(group_runs(counted)):
        header, rows = truths_table(comparison.groups)
        if rows:
            print(*filter(None, [comparison.name, format_table(header, rows)]), "", sep="\n")
            tables.append({"name": comparison.name, "header": header, "rows": rows})
            scores |= scores_by_seed(comparison.groups)
    if unfinished:
        print(unfinished)
    print(f"report  {page}")
    if tables:
        commits = sorted({str(run.summary["commit"]) for run in counted})
        write_json(folder / "scores.json", {"commits": commits, "tables": tables, "by_seed": scores})
        print(f"scores  {folder / 'scores.json'}")
    for picture in pictures:
        print(f"picture {picture}")


if __name__ == "__main__":
    main()
