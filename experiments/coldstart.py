"""``python -m experiments.coldstart``: compares learners on the same cold starts, with intervals over seeds."""

from __future__ import annotations

from omegaconf import DictConfig

from experiments.runs.command import command, typed_command
from experiments.runs.folders import RunError


@command(
    config_path="../conf",
    config_name="coldstart",
    kept="the runs that are finished, and a checkpoint of each run that was learning, in {folder}",
)
def main(cfg: DictConfig) -> None:
    """Makes the missing runs, prints the tables, and writes ``coldstart.json``, ``.csv`` and ``.png``."""
    # Not at the top: `--help` is answered without torch.
    from experiments.runs.build import picked
    from experiments.studies.comparison import UNRESOLVED, Comparison, plan_of, run_missing, tell

    try:
        asked = picked(Comparison, cfg, unresolved=UNRESOLVED)
        plan = plan_of(asked)
        n_failed = run_missing(plan, asked.n_jobs)
        tell(plan, asked, typed_command("experiments.coldstart"))
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    if n_failed:
        raise SystemExit(f"error: {n_failed} runs failed, see above; the tables are of the other learners.")


if __name__ == "__main__":
    main()
