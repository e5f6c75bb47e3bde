"""Approximate nearest jobs, for catalogues of too many jobs to compare each: a FAISS index in the market's folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.extras import install_command
from jobrec_gym.market import LabourMarket
from jobrec_gym.market.verified import is_remembered, remember
from jobrec_gym.progress import steps
from jobrec_gym.sharing import Identity
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import whole_file

__all__ = ["EXACT_UP_TO", "JobIndex", "JobSubset", "forget_indexes", "index_file", "open_index"]

logger = logging.getLogger(__name__)

Ids = NDArray[np.int64]

EXACT_UP_TO = 50_000
"""Up to this many jobs are compared one by one, which takes about 20 ms of one core and needs no index and no FAISS."""

_FORMAT = "jobrec-index/2"
_MAX_TRAILER = 1_000
"""The last line of a file is searched for in this many bytes at its end."""
_TRAINED_PER_LIST = 64
_MAX_SUB_DIM = 8
_MIN_CODES = 32
_PROBED_LISTS = 16
_RANKED_AT_LEAST, _RANKED_FOR_ONE = 300, 3
_CHUNK = 16_384
_DIGESTED_AT_ONCE = 1 << 20
_KEPT_ROWS = 2_048


@dataclass(frozen=True, slots=True, eq=False)
class JobSubset:
    """Some of a catalogue's jobs, as one bit for each job.

    Attributes:
        bits: uint8 (ceil(n / 8),), the first job in the lowest bit.
        n_jobs: How many jobs the subset has.
    """

    bits: NDArray[np.uint8]
    n_jobs: int

    @classmethod
    def of(cls, job_ids: Ids, n: int) -> JobSubset:
        """The subset of the distinct jobs ``job_ids`` (m,) in a catalogue of ``n`` jobs."""
        member = np.zeros(n, dtype=bool)
        member[job_ids] = True
        return cls(np.packbits(member, bitorder="little"), len(job_ids))

    def ids(self) -> Ids:
        """Ids of the jobs of the subset, ascending."""
        return np.flatnonzero(np.unpackbits(self.bits, bitorder="little"))


class JobIndex:
    """An index of a market's jobs for nearest neighbours: first coarse, by codes, then exact, by the market's vectors.

    Jobs lie in about ``sqrt(n_jobs)`` lists by nearest centroid. A list holds a code for each of its jobs. The
    code has 4 bits for each 8 dimensions (48 bytes at 768 dimensions, while the float16 vector has 1,536). Codes are
    compared 32 at once in registers (product quantisation, Jégou et al., 2011; André et al., 2015;
    ``IVF1024,PQ96x4fs`` in FAISS' words). A search reads the codes of the lists nearest to the applicant, takes 300
    jobs and 3 more for each wanted job, and ranks these by cosine.

    Args:
        market: The market of the jobs.
        codes: The trained and filled FAISS index.
    """

    def __init__(self, market: LabourMarket, codes: Any):
        self._vectors = np.asarray(market.jobs.vectors)
        self._scratch = _Scratch()
        self._codes = codes
        self._faiss = _library("faiss", len(market.jobs))

    @classmethod
    def build(cls, market: LabourMarket, progress: bool | None = None) -> JobIndex:
        """Trains on evenly spaced jobs and adds all jobs; uses every core that FAISS is allowed.

        Args:
            market: The market of the jobs.
            progress: As in :func:`~jobrec_gym.progress.steps`.
        """
        vectors = market.jobs.vectors
        n_jobs, dim = vectors.shape
        n_lists = 2 ** round(math.log2(math.sqrt(n_jobs)))
        sub_dim = max(1, min(_MAX_SUB_DIM, dim // _MIN_CODES))
        n_codes = -(-dim // sub_dim)
        faiss = _library("faiss", n_jobs)
        codes = faiss.index_factory(n_codes * sub_dim, f"IVF{n_lists},PQ{n_codes}x4fs", faiss.METRIC_INNER_PRODUCT)
        for start in steps(n_jobs, _CHUNK, f"indexing the jobs of {market.name}", "job", progress=progress):
            if not codes.is_trained:  # trained within the first step, so that progress is shown from the start
                rows = np.linspace(0, n_jobs - 1, min(n_jobs, _TRAINED_PER_LIST * n_lists)).astype(np.int64)
                codes.train(_padded(vectors[rows], codes.d))
            codes.add(_padded(vectors[start : start + _CHUNK], codes.d))
        return cls(market, codes)

    @classmethod
    def read(cls, market: LabourMarket, file: Path) -> JobIndex:
        """Opens an index that :meth:`write` wrote.

        The file's digest is compared once, and again only if its size, time or inode changes.

        Raises:
            ValueError: If the file is not a whole index of as many jobs as the market has, was changed, or is of
                another version.
        """
        _require_whole(file)
        try:
            codes = _library("faiss", len(market.jobs)).read_index(str(file))
        except RuntimeError as error:
            raise ValueError(f"{file} is not a whole index: {error}") from error
        if codes.ntotal != len(market.jobs):
            raise ValueError(f"{file} holds {codes.ntotal} jobs, the market {len(market.jobs)}.")
        return cls(market, codes)

    def write(self, file: Path) -> None:
        """Writes the index, whole or not at all. A line of JSON after FAISS' own bytes names the release."""
        with whole_file(file) as scratch:
            self._faiss.write_index(self._codes, str(scratch))
            said = {"format": _FORMAT, "written_by": written_by(), "sha256": _digest(scratch, scratch.stat().st_size)}
            with scratch.open("ab") as out:
                out.write(b"\n" + json.dumps(said).encode())

    def nearest(self, applicant: NDArray[np.float32], n: int, subset: JobSubset | None = None) -> Ids:
        """The jobs of highest cosine, nearest first, as far as the index finds them.

        Args:
            applicant: (dim,), unit length.
            n: How many jobs, at most the number that may be found.
            subset: The jobs that may be found; ``None`` is all.

        Returns:
            Distinct job ids (n,). They do not depend on other searches.
        """
        faiss, codes = self._faiss, self._codes
        wanted = min(_RANKED_AT_LEAST + _RANKED_FOR_ONE * n, len(self._vectors) if subset is None else subset.n_jobs)
        query = _padded(applicant[None], codes.d)
        n_probe = _PROBED_LISTS
        with _one_thread(faiss):
            while True:
                selector = {} if subset is None else {"sel": faiss.IDSelectorBitmap(subset.bits)}
                options = faiss.SearchParametersIVF(nprobe=min(n_probe, codes.nlist), **selector)
                found = codes.search(query, wanted, params=options)[1][0]
                found = found[found >= 0]
                if len(found) == wanted or n_probe >= codes.nlist:
                    break
                n_probe *= 4  # the nearest lists hold too few jobs of the subset
            # FAISS never returns a job whose code has the lowest score that a code can have, so even a search of all
            # lists may find fewer than `n`. Then all jobs that may be found are ranked.
            if len(found) < n:
                found = np.arange(len(self._vectors)) if subset is None else subset.ids()
            return self._ranked(applicant, np.sort(found), n)

    def _ranked(self, applicant: NDArray[np.float32], job_ids: Ids, n: int) -> Ids:
        """The ``n`` jobs of highest cosine among some jobs, by their exact vectors."""
        rows, exact = self._scratch.hold(self._vectors, len(job_ids), self._faiss)
        self._vectors.take(job_ids, axis=0, out=rows, mode="clip")
        if rows.dtype == np.float16:
            exact.add_sa_codes(rows.view(np.uint8))
        else:
            exact.add(rows.astype(np.float32, copy=False))
        return job_ids[exact.search(applicant[None], n)[1][0]]


class _Scratch(threading.local):
    """Memory that a thread's searches reuse, because allocating a megabyte takes longer than the search itself."""

    rows: NDArray[np.floating] | None = None
    exact: Any = None

    def hold(self, vectors: NDArray[np.floating], n: int, faiss: Any) -> tuple[NDArray[np.floating], Any]:
        """Room for ``n`` rows like those of ``vectors``, and an empty FAISS index that compares rows one by one."""
        if n > _KEPT_ROWS:
            return np.empty((n, vectors.shape[1]), vectors.dtype), _one_by_one(vectors, faiss)
        if self.rows is None:
            self.rows = np.empty((_KEPT_ROWS, vectors.shape[1]), vectors.dtype)
            self.exact = _one_by_one(vectors, faiss)
        self.exact.reset()
        return self.rows[:n], self.exact


def _one_by_one(vectors: NDArray[np.floating], faiss: Any) -> Any:
    if vectors.dtype == np.float16:
        # FAISS reads float16 with the processor's own instruction; numpy's conversion takes ten times as long.
        return faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexFlatIP(vectors.shape[1])


def index_file(market: LabourMarket) -> Path | None:
    """The path of a saved market's index; its name depends on the vectors and on how the index is built.

    An index of other vectors has another name, so a stale one is never read. ``None`` for a market in memory.
    """
    if market.folder is None or market.job_vectors_sha256 is None:
        return None
    made = f"{market.job_vectors_sha256} {_FORMAT}"
    return market.folder / f"jobs-{hashlib.sha256(made.encode()).hexdigest()[:16]}.faiss"


def open_index(market: LabourMarket, progress: bool | None = None) -> JobIndex:
    """The index of a market's jobs: read from the market's folder, or built and kept there.

    Processes that need the index at the same time wait for the one that builds it. A market in memory has its index in
    memory. Markets with the same jobs for other people, see :meth:`LabourMarket.with_applicants`, share one index.

    Args:
        market: The market of the jobs.
        progress: As in :func:`~jobrec_gym.progress.steps`.

    Raises:
        ImportError: If FAISS is not installed.
    """
    return _opened(Identity(market.jobs, market), progress)


def forget_indexes() -> None:
    """Drops the open indexes of this process; the next use opens them again."""
    _opened.cache_clear()


@lru_cache(maxsize=4)
def _opened(jobs: Identity, progress: bool | None) -> JobIndex:
    market: LabourMarket = jobs.beside
    file = index_file(market)
    if file is None:
        logger.info("the index of market %r is kept in memory only: save the market to keep it.", market.name)
        return JobIndex.build(market, progress)
    lock = _library("filelock", len(market.jobs)).FileLock(file.with_name("index.lock"))
    index = _found(market, file)
    if index is not None:
        return index
    try:
        lock.acquire()
    except OSError as error:
        logger.warning("the index of market %r is not kept, %s cannot be written: %s", market.name, file.parent, error)
        return JobIndex.build(market, progress)
    try:
        # Another process may have built it meanwhile.
        return _found(market, file, is_built_next=True) or _built(market, file, progress)
    finally:
        lock.release()


def _built(market: LabourMarket, file: Path, progress: bool | None) -> JobIndex:
    index = JobIndex.build(market, progress)
    try:
        index.write(file)
    except (OSError, RuntimeError) as error:  # FAISS has no error class for a full disk
        logger.warning("The index is not kept, %s cannot be written: %s. It is built again next time.", file, error)
        return index
    for stale in file.parent.glob("jobs-*.faiss"):
        if stale != file:
            stale.unlink(missing_ok=True)
    return index


def _found(market: LabourMarket, file: Path, is_built_next: bool = False) -> JobIndex | None:
    if not file.is_file():
        return None
    try:
        return JobIndex.read(market, file)
    except ValueError as error:
        if is_built_next:
            logger.warning("%s It is built again.", error)
        return None


def _require_whole(file: Path) -> None:
    """Compares an index with the version and digest in its last line.

    Raises:
        ValueError: If the file has no such line, was changed, or is of another version.
    """
    if is_remembered(file, [file]):
        return
    size = file.stat().st_size
    with file.open("rb") as opened:
        opened.seek(max(0, size - _MAX_TRAILER))
        line = opened.read().rpartition(b"\n")[2]
    try:
        said = json.loads(line)
        found, digest = said["format"], said["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a whole index: its last line does not say what wrote it.") from error
    if found != _FORMAT:
        raise ValueError(
            f"{file} has the format {found!r:.40}, written by {said.get('written_by')!s:.40}, and this version "
            f"({written_by()}) reads {_FORMAT!r}."
        )
    if digest != _digest(file, size - len(line) - 1):
        raise ValueError(f"{file} is not a whole index: its content does not match the digest in its last line.")
    remember(file, [file])


def _digest(file: Path, size: int) -> str:
    """SHA-256 of the first bytes of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while size > 0 and (part := opened.read(min(size, _DIGESTED_AT_ONCE))):
            digest.update(part)
            size -= len(part)
    return digest.hexdigest()


def _library(name: str, n_jobs: int) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"nearest jobs among {n_jobs:,} are found by an index, which needs {name}: "
            f"{install_command('index')}. Up to {EXACT_UP_TO:,} jobs are compared one by one, without an index; "
            "an environment moves that limit by `candidate_sampler=RetrievalCandidates(exact_up_to=...)`."
        ) from error


@contextlib.contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """Searches in one thread: a search of 0.3 ms gains nothing by more, and OpenMP's threads do not survive a fork."""
    n_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(n_threads)


def _padded(vectors: NDArray[np.floating], dim: int) -> NDArray[np.float32]:
    """Rows (n, d) as float32 (n, dim), padded with zeros."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    return rows if rows.shape[1] == dim else np.pad(rows, ((0, 0), (0, dim - rows.shape[1])))
