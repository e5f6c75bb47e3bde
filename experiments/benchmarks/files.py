"""Speed of reading files of rows, compared with pyarrow's readers, and the memory that it takes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.benchmarks.rows import Row, ratio_of
from jobrec_gym.loaders.reading import Block, Reading, csv_blocks, json_rows

__all__ = ["file_rows", "write_files"]

_STREAM = """
import sys
from pathlib import Path
from jobrec_gym.loaders.reading import Reading, csv_blocks, json_rows
import pyarrow.csv
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
before = peak()
file = Path(sys.argv[1])
for _ in (csv_blocks if file.suffix == ".csv" else json_rows)(file, Reading()): pass
print(peak() - before)
"""


def write_files(folder: Path, n_rows: int) -> tuple[Path, Path]:
    """Writes the same jobs as CSV and as JSON lines. Row numbers determine their content.

    Args:
        folder: Where ``jobs-N.csv`` and ``jobs-N.jsonl`` are written. Existing files are kept.
        n_rows: N, how many jobs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, lines = folder / f"jobs-{n_rows}.csv", folder / f"jobs-{n_rows}.jsonl"
    if not table.exists() or not lines.exists():
        with table.open("w", newline="", encoding="utf-8") as one, lines.open("w", encoding="utf-8") as other:
            writer = csv.writer(one)
            writer.writerow(["key", "title", "hard", "soft", "seniority", "occupation"])
            for row in range(n_rows):
                hard = [f"skill number {(row * step) % 2003}" for step in (7, 11, 13, 17)]
                soft = [f"attitude {(row * step) % 53}" for step in (3, 5)]
                title, level, occupation = f"title, of {row % 5003}", 1 + row % 5, f"occupation {row % 307}"
                writer.writerow([f"j{row}", title, ";".join(hard), ";".join(soft), level, occupation])
                cells = {"key": f"j{row}", "title": title, "hard": hard, "soft": soft}
                other.write(json.dumps({**cells, "seniority": level, "occupation": occupation}) + "\n")
    return table, lines


def file_rows(folder: Path, n_rows: int, rounds: int) -> Iterator[Row]:
    """Measures the reading of whole files, by turns with pyarrow. Our readers hold a few rows at a time, pyarrow all.

    Args:
        folder: Where the files are.
        n_rows: Rows of each file.
        rounds: Number of rounds; their median counts.
    """
    import pyarrow.csv
    import pyarrow.json

    table, lines = write_files(folder, n_rows)

    def as_blocks() -> None:
        for _ in csv_blocks(table, Reading()):
            pass

    def as_texts() -> None:
        for block in csv_blocks(table, Reading()):
            _texts(block)

    def by_line() -> None:
        for _ in json_rows(lines, Reading()):
            pass

    def pyarrow_texts() -> None:
        for column in pyarrow.csv.read_csv(table).columns:
            column.to_pylist()

    pairs: list[tuple[str, Callable[[], object], str, Callable[[], object]]] = [
        ("rows of csv", as_blocks, "pyarrow.csv", lambda: pyarrow.csv.read_csv(table)),
        ("rows of csv, as Python's texts", as_texts, "pyarrow.csv and to_pylist", pyarrow_texts),
        ("rows of jsonl, as Python's objects", by_line, "pyarrow.json", lambda: pyarrow.json.read_json(lines)),
    ]
    for name, ours, against, theirs in pairs:
        ratio, mine, other = ratio_of(ours, theirs, rounds=rounds, seconds=0.0001)
        details = {"seconds": mine, "seconds_of_pyarrow": other}
        yield Row(f"{n_rows:,} {name}, speed", 1 / ratio, "x", against, 0.5, details=details)
    for file in (table, lines):
        command = [sys.executable, "-c", _STREAM, str(file)]
        grown = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size = file.stat().st_size / (1 << 20)
        yield Row(f"{file.suffix[1:]} of {size:,.0f} MiB, memory", grown, "MiB", "of the stream", 200.0, "at most")


def _texts(block: Block) -> list[list[str]]:
    return [column if isinstance(column, list) else column.to_pylist() for column in block.columns]
