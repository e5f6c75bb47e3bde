"""``python -m experiments.llm.cache``: what a cache of answers holds and what they cost; export and import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.runs.command import command
from experiments.runs.tables import format_table
from jobrec_gym.simulators.stores import is_server, open_cache

__all__: list[str] = []

_COLUMNS = ("model", "mode", "prompt", "persona", "answers", "ok", "tokens", "cost_usd")


@command(config_path="../../conf", config_name="cache")
def main(cfg: DictConfig) -> None:
    """Prints a row for each model and way of asking. Before that, it imports or exports answers if asked to."""
    if cfg.path is None:
        raise SystemExit(
            "error: say which cache: python -m experiments.llm.cache path=FILE.sqlite or redis://HOST:6379/0"
        )
    if not isinstance(cfg.path, str):
        raise SystemExit(f"error: `path` must be a file or redis://HOST:6379/0, got {cfg.path!r}.")
    if cfg.import_from is None and not is_server(cfg.path) and not Path(cfg.path).is_file():
        raise SystemExit(f"error: `path` must be a cache that exists, got {cfg.path!r}.")
    try:
        cache = open_cache(cfg.path)
        if cfg.import_from is not None:
            print(f"{cache.import_(cfg.import_from):,} new answers from {cfg.import_from}")
        if cfg.export_to is not None:
            print(f"{cache.export(cfg.export_to):,} answers to {cfg.export_to}")
        summary = cache.summary()
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    rows = [[_cell(entry, column) for column in _COLUMNS] for entry in summary]
    print(format_table(_COLUMNS, rows) if rows else "no answers yet")


def _cell(entry: dict[str, Any], column: str) -> str:
    if column == "ok":
        return f"{entry['by_status'].get('ok', 0):,}"
    value = entry[column]
    if column == "cost_usd":
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
