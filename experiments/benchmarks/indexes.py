"""``python -m experiments.benchmarks.indexes``: compares libraries for nearest jobs, by size, time and recall.

Measures those that are installed: ``pip install -e ".[index]" usearch hnswlib``.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.runs.command import command
from experiments.runs.progress import tracked
from experiments.runs.tables import format_table
from jobrec_gym.job_index import JobIndex
from jobrec_gym.market import LabourMarket, load_market

__all__: list[str] = []

Rows = NDArray[np.float32]
Search = Callable[[Rows], NDArray[np.int64]]

NUM_NEAREST = 100
TOLERANCE = 1e-3
_CHUNK = 16_384
_CONNECTIVITY, _EFFORT, _EFFORT_SEARCH = 16, 100, 200


class Opponent(NamedTuple):
    """A library's index.

    Attributes:
        name: Library and kind of index, in words.
        package: Package that must be installed.
        build: Function of a market and a file to write to. It returns the search by one applicant's vector (dim,).
    """

    name: str
    package: str
    build: Callable[[LabourMarket, Path], Search]


@command(config_path="../../conf", config_name="indexes")
def main(cfg: DictConfig) -> None:
    """Builds each index over the default market, and prints a row for each."""
    if cfg.n_jobs < NUM_NEAREST:
        raise SystemExit(
            f"error: `n_jobs` must be {NUM_NEAREST} or more, since the {NUM_NEAREST} nearest are looked for, "
            f"got {cfg.n_jobs}."
        )
    market = load_market("default", n_jobs=cfg.n_jobs, n_applicants=cfg.n_queries, dtype="float16")
    queries = market.applicants.vectors.astype(np.float32)
    least = _exact(market, queries)
    rows = []
    for opponent in tracked(_OPPONENTS, "indexes", "kind"):
        if importlib.util.find_spec(opponent.package) is None:
            tqdm.write(f"{opponent.name}: left out, {opponent.package} is not installed")
            continue
        rows.append(_measured(opponent, market, queries, least))
        tqdm.write(f"{opponent.name}: done")
    print(f"\n{cfg.n_jobs:,} jobs of 768 dimensions, {cfg.n_queries} applicants one by one, {NUM_NEAREST} nearest")
    print(format_table(("index", "build, CPU s", "bytes a job", "search, CPU ms", "recall"), rows))


def _measured(opponent: Opponent, market: LabourMarket, queries: Rows, least: Rows) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "index"
        begin = time.process_time()
        search = opponent.build(market, file)
        built = time.process_time() - begin
        size = file.stat().st_size / len(market.jobs)
        spent, hits = [], []
        for query, threshold in zip(queries, least, strict=True):
            begin = time.process_time()
            found = search(query)
            spent.append(time.process_time() - begin)
            hits.append((market.jobs.vectors[found].astype(np.float32) @ query >= threshold - TOLERANCE).sum())
    recall = float(np.mean(hits)) / NUM_NEAREST
    return [opponent.name, f"{built:.0f}", f"{size:,.0f}", f"{1_000 * statistics.median(spent):.2f}", f"{recall:.3f}"]


def _exact(market: LabourMarket, queries: Rows) -> Rows:
    """Similarity (n,) of the hundredth nearest job of each query, by exact search."""
    cosine = np.concatenate([queries @ chunk.T for chunk in _chunks(market)], axis=1)
    return np.partition(cosine, -NUM_NEAREST, axis=1)[:, -NUM_NEAREST]


def _chunks(market: LabourMarket) -> list[Rows]:
    vectors = market.jobs.vectors
    return [vectors[start : start + _CHUNK].astype(np.float32) for start in range(0, len(vectors), _CHUNK)]


# ------------------------------------------------------------------------------------------------------------ libraries


def _ours(market: LabourMarket, file: Path) -> Search:
    index = JobIndex.build(market, progress=False)
    index.write(file)
    return lambda query: index.nearest(query, NUM_NEAREST)


def _faiss(factory: str) -> Callable[[LabourMarket, Path], Search]:
    """FAISS' own result, not ranked again by the table of vectors."""

    def build(market: LabourMarket, file: Path) -> Search:
        faiss: Any = importlib.import_module("faiss")
        index = faiss.index_factory(market.jobs.vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        chunks = _chunks(market)
        index.train(np.concatenate(chunks[:2]))
        for chunk in chunks:
            index.add(chunk)
        faiss.write_index(index, str(file))
        if hasattr(index, "nprobe"):
            index.nprobe = 16
        faiss.omp_set_num_threads(1)
        return lambda query: index.search(query[None], NUM_NEAREST)[1][0]

    return build


def _usearch(dtype: str) -> Callable[[LabourMarket, Path], Search]:
    def build(market: LabourMarket, file: Path) -> Search:
        usearch: Any = importlib.import_module("usearch.index")
        dim = market.jobs.vectors.shape[1]
        index = usearch.Index(
            ndim=dim,
            metric="cos",
            dtype=dtype,
            connectivity=_CONNECTIVITY,
            expansion_add=_EFFORT,
            expansion_search=_EFFORT_SEARCH,
        )
        for number, chunk in enumerate(_chunks(market)):
            index.add(np.arange(len(chunk)) + number * _CHUNK, chunk)
        index.save(str(file))
        return lambda query: index.search(query, NUM_NEAREST).keys.astype(np.int64)

    return build


def _hnswlib(market: LabourMarket, file: Path) -> Search:
    hnswlib: Any = importlib.import_module("hnswlib")
    index = hnswlib.Index(space="ip", dim=market.jobs.vectors.shape[1])
    index.init_index(max_elements=len(market.jobs), M=_CONNECTIVITY, ef_construction=_EFFORT)
    for number, chunk in enumerate(_chunks(market)):
        index.add_items(chunk, np.arange(len(chunk)) + number * _CHUNK)
    index.save_index(str(file))
    index.set_ef(_EFFORT_SEARCH)
    index.set_num_threads(1)
    return lambda query: index.knn_query(query[None], NUM_NEAREST)[0][0].astype(np.int64)


_OPPONENTS = (
    Opponent("FAISS, lists of 4-bit codes, ranked by the table (used)", "faiss", _ours),
    Opponent("FAISS, lists of 4-bit codes alone", "faiss", _faiss("IVF256,PQ96x4fs")),
    Opponent("FAISS, lists of 8-bit numbers", "faiss", _faiss("IVF256,SQ8")),
    Opponent("usearch, graph over float16", "usearch", _usearch("f16")),
    Opponent("usearch, graph over 8-bit numbers", "usearch", _usearch("i8")),
    Opponent("hnswlib, graph over float32", "hnswlib", _hnswlib),
)


if __name__ == "__main__":
    main()
