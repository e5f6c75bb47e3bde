"""``python -m experiments.llm.cache``: the answers of a cache, and what all calls cost; export and import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.runs.command import command
from experiments.runs.folders import RunError
from experiments.runs.numbers import MOST, require_whole
from experiments.runs.tables import format_table
from jobrec_gym.simulators.cache import BUDGETED
from jobrec_gym.simulators.stores import is_server, open_cache

__all__: list[str] = []

_COLUMNS = ("model", "mode", "prompt", "persona", "answers", "ok", "tokens", "cost_usd")

_ABOUT_CALLS = """\
What all calls cost, by `budget.name`. Calls whose answers were not kept count too, and imported answers do not.
An open call still runs, or its process died. Its tokens and dollars count at their upper bounds."""


@command(config_path="../../conf", config_name="cache")
def main(cfg: DictConfig) -> None:
    """Prints the answers by model and way of asking, and what was spent. Before that, it imports or exports answers."""
    if cfg.path is None:
        raise SystemExit(
            "error: say which cache: python -m experiments.llm.cache path=FILE.sqlite or redis://HOST:6379/0"
        )
    if not isinstance(cfg.path, str):
        raise SystemExit(f"error: `path` must be a file or redis://HOST:6379/0, got {cfg.path!r}.")
    if cfg.import_from is None and not is_server(cfg.path) and not Path(cfg.path).is_file():
        raise SystemExit(f"error: `path` must be a cache that exists, got {cfg.path!r}.")
    try:
        require_whole("max_bytes", cfg.max_bytes, 1, MOST, optional=True)
        cache = open_cache(cfg.path)
        if cfg.import_from is not None:
            limit = {} if cfg.max_bytes is None else {"max_bytes": int(cfg.max_bytes)}
            print(f"{cache.import_(cfg.import_from, **limit):,} new answers from {cfg.import_from}")
        if cfg.export_to is not None:
            print(f"{cache.export(cfg.export_to):,} answers to {cfg.export_to}")
        summary, budgets = cache.summary(), cache.budgets()
    except (ImportError, OSError, RunError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(_table(summary, _COLUMNS) if summary else "no answers yet")
    print(f"\n{_ABOUT_CALLS}\n\n{_table(budgets, BUDGETED)}" if budgets else "\nno calls yet")


def _table(entries: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    return format_table(columns, [[_cell(entry, column) for column in columns] for entry in entries])


def _cell(entry: dict[str, Any], column: str) -> str:
    if column == "ok":
        return f"{entry['by_status'].get('ok', 0):,}"
    value = entry[column]
    if column == "cost_usd":
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
