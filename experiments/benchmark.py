"""``python -m experiments.benchmark``: measures speed and memory, and compares them with this project's goals."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from experiments.benchmarks.rows import Row
from experiments.runs.command import command, typed_command
from experiments.runs.folders import RunError, commit_of_checkout, write_json, write_text
from experiments.runs.numbers import MOST, is_number, require_known, require_list, require_once, require_whole
from experiments.runs.progress import tracked
from experiments.runs.tables import format_table, markdown_table

__all__ = ["machine", "table"]

_PACKAGES = ("gymnasium", "numpy", "torch", "stable-baselines3")
_GROUPS = ("environments", "learning", "memory", "startup", "answers", "scaling", "catalogue", "files")
_NUM_ENVS = 64
"""For how many environments a measured replay stores transitions."""

_COUNTS = (
    ("transitions", _NUM_ENVS),
    ("catalogue.n_jobs", 1_000),
    ("catalogue.n_applicants", 20),
    ("files.n_rows", 1),
)
"""Entries that are whole numbers, each with its smallest allowed value."""

_SIZES = (("replays", 1, 1), ("scaling.jobs", 100, 2), ("scaling.transitions", _NUM_ENVS, 2))
"""Entries that are lists of whole numbers, each with the smallest allowed number and the least length of the list."""

_VERDICTS = {True: "holds", False: "fails", None: ""}


@command(config_path="../conf/benchmark", config_name="benchmark")
def main(cfg: DictConfig) -> None:
    """Measures, prints the table, and writes ``benchmark.json``, ``.md`` and, for growth, ``scaling.png``."""
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    _check(options)
    # Not at the top: `--help` and wrong arguments are answered without torch.
    import torch

    folder = Path(cfg.folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = ("seconds", "rounds", "replays", "transitions", "scaling", "catalogue", "files")
    groups = _groups(folder, **{name: options[name] for name in names})
    torch.set_num_threads(1)
    rows: list[Row] = []
    with threadpool_limits(1):
        for name in tracked(cfg.groups, "benchmark", "group"):
            for row in groups[name]():
                if cfg.progress_bar is not False:
                    tqdm.write("  ".join(_cells(row)), file=sys.stderr)
                rows.append(row)
    in_words = _in_words(machine())
    print(f"{format_table(*table(rows), left=1)}\n\n{in_words}")
    command = typed_command("experiments.benchmark")
    commit = commit_of_checkout()
    measured = {"command": command, "commit": commit, "machine": machine(), "rows": [row.to_json() for row in rows]}
    write_json(folder / "benchmark.json", measured)
    page = f"`{command}`, commit `{commit}`. {in_words}\n\n{markdown_table(*table(rows))}\n"
    write_text(folder / "benchmark.md", page)
    print(f"numbers  {folder / 'benchmark.json'}, {folder / 'benchmark.md'}")


def _check(options: Mapping[str, Any]) -> None:
    """Refuses a wrong entry before anything is measured or written.

    Raises:
        RunError: For the first wrong entry.
    """
    require_known("groups", options["groups"], _GROUPS, "the benchmark")
    seconds = options["seconds"]
    if not is_number(seconds) or seconds <= 0:
        raise RunError(f"`seconds` must be a number above 0, got {seconds!r}.")
    entries = dict(options)
    for section in ("scaling", "catalogue", "files"):
        if not isinstance(options[section], Mapping):
            raise RunError(f"`{section}` must be a section, {section}.ENTRY=..., got {options[section]!r:.80}.")
        entries |= {f"{section}.{name}": value for name, value in options[section].items()}
    for name, least in _COUNTS:
        require_whole(name, entries[name], least, MOST)
    for name, least, how_many in _SIZES:
        sizes = entries[name]
        require_list(name, sizes, least)
        if len(sizes) < how_many:
            raise RunError(f"`{name}` must list at least {how_many}, got {list(sizes)}.")
        require_once(name, sizes)
    for name in ("catalogue.folder", "files.folder"):
        if not str(entries[name] or "").strip():
            raise RunError(f"`{name}` must be a folder, such as {name}=runs/benchmark/kept, got none.")


def _groups(
    folder: Path,
    seconds: float,
    rounds: int,
    replays: Sequence[int],
    transitions: int,
    scaling: Mapping[str, Sequence[int]],
    catalogue: Mapping[str, Any],
    files: Mapping[str, Any],
) -> dict[str, Callable[[], Iterator[Row]]]:
    """The groups of measurements, by name."""
    from experiments.benchmarks.answers import answer_rows
    from experiments.benchmarks.catalogue import catalogue_rows
    from experiments.benchmarks.environments import environment_rows
    from experiments.benchmarks.files import file_rows
    from experiments.benchmarks.learning import learning_rows
    from experiments.benchmarks.memory import memory_rows
    from experiments.benchmarks.scaling import measure_scaling, plot_scaling, scaling_rows
    from experiments.benchmarks.startup import startup_rows

    markets = Path(catalogue["folder"])

    def growth() -> Iterator[Row]:
        curves = measure_scaling(scaling["jobs"], scaling["transitions"], seconds=seconds, folder=markets)
        plot_scaling(curves, folder / "scaling.png")
        yield from scaling_rows(curves)

    return {
        "environments": lambda: environment_rows(seconds, rounds),
        "learning": lambda: learning_rows(seconds, rounds, replays=replays),
        "memory": lambda: memory_rows(transitions),
        "startup": lambda: startup_rows(rounds),
        "answers": lambda: answer_rows(seconds),
        "scaling": growth,
        "catalogue": lambda: catalogue_rows(markets, catalogue["n_jobs"], catalogue["n_applicants"]),
        "files": lambda: file_rows(Path(files["folder"]), files["n_rows"], rounds),
    }


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of rows."""
    return ["what", "measured", "against", "goal", ""], [_cells(row) for row in rows]


def machine() -> dict[str, Any]:
    """The machine and the library versions with which figures are measured."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def _cells(row: Row) -> list[str]:
    form = ",.0f" if row.measured >= 1_000 else ".3g"
    goal = "" if row.goal is None else f"{row.sense} {row.goal:,g}"
    return [row.name, f"{row.measured:{form}} {row.unit}", row.limit, goal, _VERDICTS[row.holds]]


def _cpu() -> str:
    """The processor's name, if the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _in_words(facts: dict[str, Any]) -> str:
    packages = ", ".join(f"{package} {facts[package]}" for package in _PACKAGES)
    return f"One thread of {facts['cpu']} ({facts['cores']} cores); Python {facts['python']}, {packages}."


if __name__ == "__main__":
    main()
