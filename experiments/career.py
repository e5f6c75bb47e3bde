"""``python -m experiments.career``: compares learners on JobRecCareer-v0 with the exact best policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import RunError, commit_of_checkout, commits_by, write_json
from experiments.runs.tables import format_table

__all__: list[str] = []


@command(config_path="../conf", config_name="career", kept="the runs that are finished, in {folder}")
def main(cfg: DictConfig) -> None:
    """Makes the missing runs, prints shares of the best policy's return, and writes table, figure and numbers."""
    from experiments.studies.career_plan import left_out, plan_of

    options: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(cfg.folder)
    try:
        plan = plan_of(options)
        for name, why in left_out(options).items():
            print(f"{name} is left out: {why}", file=sys.stderr)
        # Not at the top: `--help` and a wrong plan are answered without torch.
        from experiments.studies.careers import (
            careers_table,
            figure_of,
            hours_of,
            name_of,
            one_career,
            run_plan,
            table_of,
            without_share,
        )

        study = run_plan(plan, folder, cfg.n_jobs)
    except (RunError, ValueError, TypeError) as error:
        raise SystemExit(f"error: {error}") from error
    tables = [table_of(study), careers_table(study)]
    print("\n\n".join(format_table(*table) for table in tables))
    if seeds := without_share(study):
        print(
            f"\nWith seeds {seeds} the best policy's return is not above 0, so there is no share of it. All returns "
            "are in career.json."
        )
    as_json = [{"header": header, "rows": rows} for header, rows in tables]
    made_by = {
        "commit": commit_of_checkout(),
        "commits": commits_by((name_of(run["asked"]), run.get("commit")) for run in study["runs"]),
    }
    write_json(folder / "career.json", {**made_by, "tables": as_json, **study})
    figure_of(study, options["draw"], folder / "career.png")
    figures = [str(folder / "career.png")]
    if one_career(study, options["draw"], folder) is not None:
        figures.append(str(folder / "one_career.png"))
    if (hours := hours_of(study)) is not None:
        print(f"\n{hours:.1f} hours of one core in all")
    print(f"\nnumbers  {folder / 'career.json'}\nfigures  {', '.join(figures)}")


if __name__ == "__main__":
    main()
