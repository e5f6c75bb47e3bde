"""``python -m experiments.look path=FILE``: what a file of jobs or people contains, and the call that loads it."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from jobrec_gym.loaders.look import look

__all__: list[str] = []


@command(config_path="../conf", config_name="look")
def main(cfg: DictConfig) -> None:
    """Prints what the file contains."""
    if cfg.path is None:
        raise SystemExit("error: say which file: python -m experiments.look path=FILE")
    try:
        how: Any = OmegaConf.to_container(cfg, resolve=True)
        print(look(how.pop("path"), how.pop("applicants"), **how))
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
