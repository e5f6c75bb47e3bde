"""The tests that wait, again and again beside busy processes: ``make test-waits``.

Each round runs ``pytest -m waits`` while some processes compute. At the end it says how often each test failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


def compute() -> None:
    """Never ends."""
    while True:
        sum(range(10_000))


@contextmanager
def busy(n_processes: int) -> Iterator[None]:
    """Processes that compute while the block runs."""
    processes = [multiprocessing.Process(target=compute, daemon=True) for _ in range(n_processes)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def failed_of(report: Path) -> list[str]:
    """The tests that failed, by a report in JUnit's XML."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


def one_round(report: Path, tests: Sequence[str]) -> list[str]:
    """The tests that failed in a round, in a process of its own."""
    line = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "waits", f"--junitxml={report}"]
    done = subprocess.run([sys.executable, *line, f"--basetemp={report.with_suffix('')}", *tests], cwd=ROOT)
    failed = failed_of(report) if report.is_file() else []
    return failed or ([f"pytest ended with {done.returncode}"] if done.returncode else [])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rounds; returns 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--busy", type=int, default=8, help="how many processes compute meanwhile")
    parser.add_argument("--at-once", type=int, default=1, help="rounds that run at once, each beside the others, too")
    parser.add_argument("tests", nargs="*", help="what pytest is to run; all, where nothing is said")
    options = parser.parse_args(arguments)
    failures: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, busy(options.busy), ThreadPoolExecutor(options.at_once) as pool:
        reports = [Path(folder) / f"{number}.xml" for number in range(1, options.rounds + 1)]
        rounds = pool.map(lambda report: one_round(report, options.tests), reports)
        for number, failed in enumerate(rounds, 1):
            failures.update(failed)
            print(f"round {number} of {options.rounds}: {len(failed)} failed", flush=True)
    for test, n in failures.most_common():
        print(f"{n} of {options.rounds}: {test}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
