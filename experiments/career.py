"""``python -m experiments.career``: who plans a career on JobRecCareer-v0, beside bandits and the exact best policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import RunError, commit_of_checkout, write_json
from experiments.runs.tables import format_table

__all__: list[str] = []


@command(config_path="../conf", config_name="career")
def main(cfg: DictConfig) -> None:
    """Runs what is missing, prints shares of the best policy's return, and writes table, figure and numbers."""
    # Not at the top: `--help` is answered without torch.
    from experiments.studies.careers import figure_of, plan_of, run_plan, table_of

    options: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(cfg.folder)
    try:
        plan = plan_of(options)
        study = run_plan(plan, folder, cfg.n_jobs)
    except (RunError, ValueError, TypeError) as error:
        raise SystemExit(f"error: {error}") from error
    header, rows = table_of(study)
    print(format_table(header, rows))
    tables = [{"header": header, "rows": rows}]
    write_json(folder / "career.json", {"commit": commit_of_checkout(), "tables": tables, **study})
    figure_of(study, folder / "career.png")
    print(f"\nnumbers  {folder / 'career.json'}\nfigure   {folder / 'career.png'}")


if __name__ == "__main__":
    main()
