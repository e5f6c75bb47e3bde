"""Measures a job board's catalogue: a million jobs served from disk, and the cost and recall of their index.

``python -m experiments.benchmarks.catalogue MARKET EXACT_UP_TO`` is the serving process that is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import jobrec_gym  # noqa: F401  # registers the environment
from experiments.benchmarks.rows import Row, seconds_per_call
from experiments.runs.folders import read_json, write_json
from jobrec_gym.candidates import RetrievalCandidates
from jobrec_gym.counter_rng import hash64
from jobrec_gym.job_index import EXACT_UP_TO, forget_indexes, index_file, open_index
from jobrec_gym.market import LabourMarket, load_market

__all__ = ["catalogue_rows", "serve"]

NUM_CANDIDATES = 100
TOLERANCE = 1e-3
"""A retrieved job is a hit if its similarity is at most this much below that of the hundredth nearest job."""

_N_APPLICANTS = 200
_N_RESETS = 2_000
_CHUNK = 16_384


def catalogue_rows(folder: Path, n_jobs: int, n_applicants: int, exact_up_to: int = EXACT_UP_TO) -> Iterator[Row]:
    """Memory, latency, recall and building time of a catalogue that is served from disk.

    Args:
        folder: Where market and index are kept. A missing one is made.
        n_jobs: How many jobs.
        n_applicants: How many applicants.
        exact_up_to: See :class:`~jobrec_gym.candidates.RetrievalCandidates`; a lower number allows a trial with few
            jobs.
    """
    market = load_market(
        "default",
        n_jobs=n_jobs,
        n_applicants=n_applicants,
        dtype="float16",
        folder=str(folder / f"market-{n_jobs}-{n_applicants}"),
    )
    table = f"{n_jobs:,} jobs"
    yield _opening(table, market)
    building = _build_index(market)
    yield Row(
        f"{table}: the index is built",
        building["seconds"] / 60,
        "min",
        f"none; on {building['cores']} cores that others may use too",
        15.0,
        "at most",
        building,
    )
    shown = _serving_process(market, exact_up_to)
    yield Row(
        f"{table}: memory of a serving process that touched both tables",
        shown["rss_bytes"] / market.jobs.vectors.nbytes,
        "x",
        f"the jobs' float16 table, {market.jobs.vectors.nbytes / 1e9:.3f} GB",
        1.2,
        "at most",
        shown,
    )
    recall, exact_ms = _recall(market, exact_up_to)
    yield Row(
        f"{table}: a reset with {NUM_CANDIDATES} retrieved candidates, median",
        shown["reset_ms"],
        "ms",
        f"comparing one applicant with all jobs: {exact_ms:.0f} ms (mean of many done together)",
        2.0,
        "at most",
        {key: value for key, value in shown.items() if key.startswith("reset")} | {"exact_ms": exact_ms},
    )
    yield Row(
        f"{table}: recall at {NUM_CANDIDATES}",
        float(np.mean(recall)),
        "",
        f"exact search, hits within {TOLERANCE} of the similarity of the exact {NUM_CANDIDATES}th",
        0.95,
        "at least",
        {"applicants": len(recall), "least": float(np.min(recall)), "10th percentile": float(np.quantile(recall, 0.1))},
    )


def _opening(table: str, market: LabourMarket) -> Row:
    """The time to open a saved market again; its details say how long it takes without checks and with digests."""
    assert market.folder is not None, "the market was saved"
    folder = market.folder
    begin = time.perf_counter()
    LabourMarket.load(folder, verify=True)
    digests = time.perf_counter() - begin
    return Row(
        f"{table}: a saved market opens again",
        seconds_per_call(lambda: LabourMarket.load(folder)),
        "s",
        "0.1 s, the time of versions that did not check types, offsets and ranges",
        0.4,
        "at most",
        {"unverified": seconds_per_call(lambda: LabourMarket.load(folder, verify=False)), "with digests": digests},
    )


def serve(market: str, exact_up_to: int) -> dict[str, Any]:
    """Memory of a process that has touched all vectors of a saved market, and its times of a reset."""
    ids_ms, ids_cpu_ms = _reset_ms(_env(market, exact_up_to, "ids"))
    env = _env(market, exact_up_to, "features")
    reset_ms, cpu_ms = _reset_ms(env)
    # A process that runs for long will have read every page.
    tables = env.get_wrapper_attr("market")
    for vectors in (tables.jobs.vectors, tables.applicants.vectors):
        pages = np.asarray(vectors).reshape(-1).view(np.uint8)[::4096]
        for start in range(0, len(pages), 1 << 16):
            pages[start : start + (1 << 16)].max()
    return {
        **_memory(),
        "reset_ms": statistics.median(reset_ms),
        "reset_ms_90": float(np.quantile(reset_ms, 0.9)),
        "reset_cpu_ms": statistics.median(cpu_ms),
        "reset_ms_ids": statistics.median(ids_ms),
        "reset_cpu_ms_ids": statistics.median(ids_cpu_ms),
        "resets": len(reset_ms),
        "loaded": sorted({"torch", "sentence_transformers", "litellm"} & set(sys.modules)),
    }


def _env(market: str, exact_up_to: int, observation: str) -> gym.Env[Any, Any]:
    return gym.make(
        "JobRec-v0",
        market=market,
        split="all",
        job_split="all",
        candidate_sampler=RetrievalCandidates(exact_up_to),
        num_candidates=NUM_CANDIDATES,
        observation=observation,
    )


def _reset_ms(env: gym.Env[Any, Any]) -> tuple[list[float], list[float]]:
    """Time and processor time of resets, in milliseconds, nearly all with an applicant who was not seen before."""
    spent, cpu = [], []
    env.reset(seed=0)
    for _ in range(_N_RESETS):
        begin, cpu_begin = time.perf_counter(), time.thread_time()
        env.reset()
        cpu.append(1_000 * (time.thread_time() - cpu_begin))
        spent.append(1_000 * (time.perf_counter() - begin))
    return spent, cpu


def _memory() -> dict[str, int]:
    """Resident memory of this process, in bytes (Linux)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"rss_bytes": "VmRSS", "anonymous_bytes": "RssAnon", "file_bytes": "RssFile", "peak_bytes": "VmHWM"}
    return {name: int(lines[key].split()[0]) * 1024 for name, key in names.items()}


def _serving_process(market: LabourMarket, exact_up_to: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.benchmarks.catalogue", str(market.folder), str(exact_up_to)]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    checkout = Path(__file__).parents[2]
    shown = subprocess.run(
        command, cwd=checkout, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    found: dict[str, Any] = json.loads(shown)
    if found["loaded"]:
        raise RuntimeError(f"a serving process must not load {found['loaded']}.")
    return found


def _build_index(market: LabourMarket) -> dict[str, Any]:
    """Builds the index if it, or the note on how long building took, does not exist yet. Returns the note."""
    file = index_file(market)
    assert file is not None, "the market was saved"
    note = file.with_suffix(".json")
    if not (file.is_file() and note.is_file()):
        file.unlink(missing_ok=True)
        forget_indexes()
        begin, cpu = time.perf_counter(), time.process_time()
        open_index(market)
        spent = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        write_json(note, {**spent, "cores": cores, "bytes": file.stat().st_size})
    return read_json(note, "Remove it, and the index is built and timed again.")


def _recall(market: LabourMarket, exact_up_to: int) -> tuple[np.ndarray, float]:
    """Share of hits for each of some applicants, and the time of an exact search for one applicant in milliseconds."""
    applicant_ids = np.linspace(0, len(market.applicants) - 1, _N_APPLICANTS).astype(np.int64)
    applicants = market.applicants.vectors[applicant_ids].astype(np.float32)
    begin = time.perf_counter()
    best = np.empty((len(applicants), 0), dtype=np.float32)
    for start in range(0, len(market.jobs), _CHUNK):
        cosine = applicants @ market.jobs.vectors[start : start + _CHUNK].astype(np.float32).T
        best = -np.partition(-np.concatenate([best, cosine], axis=1), NUM_CANDIDATES - 1, axis=1)[:, :NUM_CANDIDATES]
    exact_ms = 1_000 * (time.perf_counter() - begin) / len(applicants)
    sampler = RetrievalCandidates(exact_up_to).bind(market, market.jobs.rows("all"), NUM_CANDIDATES)
    found = sampler.sample(applicant_ids, hash64(0, applicant_ids))
    cosine = market.cosine(np.repeat(applicant_ids, NUM_CANDIDATES), found.ravel()).reshape(found.shape)
    return (cosine >= best.min(axis=1, keepdims=True) - TOLERANCE).mean(axis=1), exact_ms


if __name__ == "__main__":
    print(json.dumps(serve(sys.argv[1], int(sys.argv[2]))))
