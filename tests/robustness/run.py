"""`make test-robustness`: everything that could break it, in one table, and docs/results/robustness.md.

    python tests/robustness/run.py --inputs 20000 --kills 200 --answers 100000

What is done is kept in a folder of the commit and the seed, so that the same command goes on where it was stopped. A
failure is printed with the smallest input of which it comes, as a row for `FOUND` in test_robustness.py.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "dynaq_algo")]

from robustness.trying import BAD, SECONDS, WAITING, Kind, shrunk, tried  # noqa: E402 - found by the line above

PAGE = ROOT / "docs" / "results" / "robustness.md"
TEXT = Path(__file__).with_name("page.md")
"""Of the page, with places for what was tried."""
SHARES: dict[str, tuple[str, int]] = {
    "loaders": ("files.Loaders", 3_000),
    "markets": ("files.Markets", 2_000),
    "environments": ("playing.Environments", 2_600),
    "wrappers": ("playing.Wrappers", 1_600),
    "answers": ("answers.Answers", 2_000),
    "caches": ("answers.Caches", 2_000),
    "vectors": ("files.Vectors", 600),
    "checkpoints": ("agents.Checkpoints", 1_000),
    "replays": ("agents.Replays", 1_600),
    "agents": ("agents.Agents", 1_400),
    "overrides": ("overrides.Overrides", 800),
    "logs": ("files.Logs", 1_400),
}
"""Kinds of inputs, where they are, and how many of 20,000 are of each."""
CHUNK = 100
_LATE = 1.5 * WAITING * SECONDS
"""Beyond this nothing in the process helps, and it is killed: a library is in a loop of its own."""
_MEMORY = 6 << 30


def kind_of(name: str, folder: Path) -> Kind:
    """A kind by its name, in an empty folder."""
    module, _, cls = SHARES[name][0].partition(".")
    kind: Kind = getattr(import_module(f"robustness.{module}"), cls)(folder)
    return kind


# ------------------------------------------------------------------------------------------------------------- a worker


def work(name: str, seed: int, start: int, stop: int) -> None:
    """Tries inputs of a kind in this process; says what it tries and what came of it, a line of JSON each."""
    import logging

    said = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="jobrec-robustness-") as scratch:
        os.environ |= {"XDG_CACHE_HOME": f"{scratch}/cache", "TMPDIR": scratch}
        (Path(scratch) / "work").mkdir()
        os.chdir(scratch)
        kind = kind_of(name, Path(scratch) / "work")
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        try:
            for number in range(start, stop):
                print(json.dumps({"at": number}), file=said)
                edits = kind.input_of(seed, number)
                result = tried(kind, edits)
                if result.verdict in BAD:
                    edits, result = shrunk(kind, edits, result)
                print(
                    json.dumps({"number": number, **vars(result), "edits": edits if result.verdict in BAD else None}),
                    file=said,
                )
        finally:
            kind.close()


def one_chunk(name: str, seed: int, start: int, stop: int) -> list[dict[str, Any]]:
    """What came of some inputs, tried by a worker; one that dies or hangs costs the input that it was at."""
    results: list[dict[str, Any]] = []
    while start < stop:
        words = [sys.executable, __file__, "--work", name, str(seed), str(start), str(stop)]
        # In a group of its own, so that an interrupt of the whole is none of what is tried.
        worker = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=_environment(), process_group=0
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_into, args=(worker, lines), daemon=True)
        reader.start()
        at, verdict = start, "foreign"
        while True:
            try:
                line = lines.get(timeout=_LATE + 60)  # of which a minute may be spent on making one smaller
            except queue.Empty:
                verdict = "hang"
                worker.kill()
                break
            if not line:
                break
            told = json.loads(line)
            at = told.get("at", at)
            if "verdict" in told:
                results.append(told)
        code = worker.wait()
        reader.join()
        assert worker.stdout is not None
        worker.stdout.close()
        tried_last = results[-1]["number"] if results else start - 1
        if tried_last < stop - 1:  # it did not come to its end
            said = f"the process ended with {code}"
            results.append({"number": at, "verdict": verdict, "said": said, "where": f"exit {code}", "edits": None})
            tried_last = at
        start = tried_last + 1
    return results


def _read_into(worker: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        lines.put(line)
    lines.put("")


def _environment() -> dict[str, str]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **one, "HF_HUB_OFFLINE": "1"}


# ------------------------------------------------------------------------------------------------------------ the whole


def parts(n_inputs: int, n_kills: int, n_answers: int, only: Sequence[str]) -> list[tuple[str, int, int]]:
    """What there is to do, in parts: the name, the first number, and the number after the last."""
    total = sum(share for _, share in SHARES.values())
    found = []
    for name, (_, share) in SHARES.items():
        n = round(n_inputs * share / total)
        found += [(name, start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
    from robustness.kills import DRILLS, sizes

    for name, counts in sizes(n_kills).items():
        found += [(f"kills of {name}", number, number + count) for number, count in counts]
    if n_answers:
        found += [("processes on SQLite", 0, 8), ("processes on Redis", 0, 8), ("threads", 0, n_answers)]
    assert {name.removeprefix("kills of ") for name, *_ in found if name.startswith("kills")} <= set(DRILLS)
    return [part for part in found if not only or any(part[0].startswith(each) for each in only)]


def done_part(part: tuple[str, int, int], seed: int) -> list[dict[str, Any]]:
    """The results of a part."""
    name, start, stop = part
    if name in SHARES:
        return one_chunk(name, seed, start, stop)
    from robustness import kills, together

    with tempfile.TemporaryDirectory(prefix="jobrec-robustness-") as scratch:
        folder = Path(scratch)
        if name.startswith("kills of "):
            return kills.drill(name.removeprefix("kills of "), folder, seed, start, stop - start, _environment())
        return together.done(name, folder, seed, stop - start)


def commit() -> str:
    """The commit that is tried; where files were changed since, with a digest of the changes behind it."""
    head, changes = (
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        for words in (("rev-parse", "--short=10", "HEAD"), ("diff", "HEAD"))
    )
    return f"{head}+{zlib.crc32(changes.encode()):08x}" if changes else head or "no checkout"


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Rows of a Markdown table: tried, read rightly, own errors, and what must not be."""
    head = ["kind", "tried", "read rightly", "own errors", "foreign errors", "hangs", "wrong", "not run"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    sums: Counter[str] = Counter()
    for name, found in results.items():
        count = Counter[str]()
        for each in found:
            count[each["verdict"]] += each.get("weight", 1)
        sums += count
        rows.append([name, *_cells(count)])
    rows.append(["**all**", *_cells(sums)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(count: Counter[str]) -> list[str]:
    tried_ = sum(n for verdict, n in count.items() if verdict != "skipped")
    return [f"{n:,}" for n in (tried_, *(count[verdict] for verdict in ("read", "own", *BAD, "skipped")))]


def failures(results: dict[str, list[dict[str, Any]]], seed: int) -> list[str]:
    """Each failure as a row for ``FOUND``, those that come from one place once."""
    told: dict[tuple[str, str, str], list[str]] = {}
    for name, found in results.items():
        for each in found:
            if each["verdict"] in BAD:
                edits, said = json.dumps(each["edits"]), each["said"][:160]
                row = f'    ("{name}", {edits!r}),  # seed {seed}, {each["number"]}: {said}'
                told.setdefault((name, each["verdict"], each["where"]), []).append(row)
    return [
        f"{verdict} in {name}, {len(rows)} times, {where}\n{rows[0]}" for (name, verdict, where), rows in told.items()
    ]


def main() -> None:
    """Does what is left, prints the table and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="inputs of all kinds together")
    parser.add_argument("--kills", type=int, default=200, help="kills of all commands together")
    parser.add_argument("--answers", type=int, default=100_000, help="answers by 16 threads; 0: no processes either")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="parts at a time")
    parser.add_argument("--only", action="append", default=[], help="rows that begin so; the page is then not written")
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    arguments = parser.parse_args()
    tried_commit = commit()
    state = ROOT / "runs" / "robustness" / f"{tried_commit}-seed{arguments.seed}.jsonl"
    if arguments.fresh:
        state.unlink(missing_ok=True)
    state.parent.mkdir(parents=True, exist_ok=True)
    kept = [json.loads(line) for line in state.read_text().splitlines()] if state.exists() else []
    results = {tuple(each["part"]): each["results"] for each in kept}
    spent = {tuple(each["part"]): each["cpu"] for each in kept}
    wanted = parts(arguments.inputs, arguments.kills, arguments.answers, arguments.only)
    left = [part for part in wanted if part not in results]
    begun = time.monotonic()
    lock, counted = threading.Lock(), [0.0]

    def do(part: tuple[str, int, int]) -> None:
        found = done_part(part, arguments.seed)
        with lock:
            results[part] = found
            # Of all children that have ended: what others that ended meanwhile took stands with this part.
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent[part] = used.ru_utime + used.ru_stime - counted[0]
            counted[0] += spent[part]
            with state.open("a") as file:
                file.write(json.dumps({"part": part, "results": found, "cpu": spent[part]}) + "\n")
            bad = [each for each in found if each["verdict"] in BAD]
            n = sum(each in results for each in wanted)
            print(
                f"{n:,} of {len(wanted):,} parts, {time.monotonic() - begun:,.0f} s: {part[0]} {part[1]:,}", flush=True
            )
            for line in failures({part[0]: bad}, arguments.seed):
                print(line, flush=True)

    pool = ThreadPoolExecutor(arguments.jobs)
    try:
        for future in [pool.submit(do, part) for part in left]:
            future.result()
    finally:  # an interrupt lets those end that have begun
        pool.shutdown(cancel_futures=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    for part in wanted:
        rows.setdefault(part[0], []).extend(results[part])
    told = failures(rows, arguments.seed)
    print(table(rows))
    print("\n".join(told))
    if not arguments.only:
        text = "No failure.\n" if not told else "Failures:\n\n```text\n" + "\n".join(told) + "\n```\n"
        PAGE.write_text(
            TEXT.read_text().format(
                commit=tried_commit,
                seed=arguments.seed,
                inputs=sum(len(found) for name, found in rows.items() if name in SHARES),
                kills=sum(len(found) for name, found in rows.items() if name.startswith("kills")),
                answers=sum(each.get("weight", 0) for each in rows.get("threads", ())),
                when=time.strftime("%d %B %Y").lstrip("0"),
                python=".".join(map(str, sys.version_info[:3])),
                minutes=round(sum(spent[part] for part in wanted) / 60),
                table=table(rows),
                failures=text,
            )
        )
    raise SystemExit(1 if told else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], *map(int, sys.argv[3:6]))
    else:
        main()
