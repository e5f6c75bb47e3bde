"""``python -m experiments.rank run=FOLDER applicants=people.csv out=ranked.csv``: each person's best jobs in a file."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import RunError


@command(config_path="../conf", config_name="rank", kept="the people ranked so far, in {out}.part")
def main(cfg: DictConfig) -> None:
    """Ranks, writes the file and prints how many people are in it."""
    # Not at the top: `--help` is answered without torch.
    import torch

    from experiments.runs.ranking import Ranking, rank_people, ranking_of_run
    from jobrec_gym.encoders import EncoderError

    torch.set_num_threads(cfg.threads)
    options: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    try:
        who: Ranking = ranking_of_run(options["run"], options.get("market"), options["agent"], options["trust"])
        n_people = rank_people(
            who,
            options["out"],
            applicants=options["applicants"],
            reading=options["reading"],
            split=options["split"],
            n=options["n"],
            exclude=options["exclude"] or [],
            applied=options["applied"],
            reading_applied=options["reading_applied"],
            open_at=options["open_at"],
            distinct=options["distinct"],
            resume=options["resume"],
        )
    except (RunError, EncoderError, ValueError, TypeError, LookupError, ImportError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{options['out']}: {n_people:,} people, up to {options['n']} of {len(who.market.jobs):,} jobs each")


if __name__ == "__main__":
    main()
