"""``python -m experiments.app``: a page in your browser on which you are the applicant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import RunError
from experiments.runs.tables import format_table

__all__: list[str] = []


@command(config_path="../conf", config_name="app", kept="what visitors answered, in {folder}")
def main(cfg: DictConfig) -> None:
    """Serves the page until it is stopped, or does what ``load``, ``sessions`` or ``pictures`` ask for."""
    # Not at the top: `--help` is answered without torch.
    import torch

    from experiments.web.load import measured
    from experiments.web.pictures import pictured
    from experiments.web.serving import bound, locked, pages_of, serve, session_table
    from jobrec_gym.encoders import EncoderError

    torch.set_num_threads(cfg.threads)
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    try:
        if options["sessions"]:
            table, said = session_table(options)
            print(f"{format_table(*table)}\n\n{said}")
        elif options["load"]:
            print(format_table(*measured(options["load"], options["seconds"])))
        elif options["pictures"]:
            for picture in pictured(Path(options["pictures"]), Path(options["folder"])):
                print(f"picture  {picture}, {picture.stat().st_size // 1000:,} kB")
        else:
            with bound(options["host"], options["port"]) as listener, locked(options, listener):
                serve(pages_of(options), options["host"], listener)
    except (RunError, EncoderError, ValueError, TypeError, ImportError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
