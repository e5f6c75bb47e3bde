"""Each person's best jobs in a file. It is made in parts, so that a kill loses little, and appears whole."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from experiments.runs.build import Task
from experiments.runs.folders import MODEL, RunError, find_runs, lock_file
from experiments.runs.progress import Progress
from experiments.runs.saved import load_run
from experiments.runs.trust import require_trust
from jobrec_gym import LabourMarket, Recommendation, load_market, recommend_each
from jobrec_gym.extras import install_command
from jobrec_gym.loaders.newcomers import newcomers_of
from jobrec_gym.market import Split
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import whole_file

__all__ = ["COLUMNS", "Ranking", "rank_people", "ranking_of_run"]

COLUMNS = ("applicant_key", "rank", "job_id", "job_key", "title", "score", "cosine", "shared", "missing")
"""Of a ranked file, one row a recommendation; ``shared`` and ``missing`` are lists of skills."""

_PEOPLE = 2_000
"""People who are encoded together."""
_PAIRS = 16_384
"""Pairs of applicant and job that an agent is asked about at once."""
_WRITTEN = 100
"""People whose lists are written together: a kill loses no more."""
_HASHED = 1 << 16
"""Rows of a table that are hashed at once."""
_PART_FORMAT = "jobrec-ranked/1"
_SHOWN = ("observation", "job_fields", "pair_features", "pair_noise")


@dataclass(frozen=True, slots=True)
class Ranking:
    """Who ranks which jobs.

    Attributes:
        market: Has the jobs.
        agent: Scores them; ``None`` is the cosine.
        observation: What the agent reads, see :func:`jobrec_gym.recommend`.
        made_by: What the agent is known by, for a ranking that goes on.
    """

    market: LabourMarket
    agent: Any = None
    observation: Mapping[str, Any] | None = None
    made_by: str = "cosine"


def ranking_of_run(
    folder: str | os.PathLike[str] | None,
    market: Mapping[str, Any] | None = None,
    agent: str | None = None,
    trust: bool = False,
) -> Ranking:
    """The agent of a finished run, on the run's market.

    Args:
        folder: Of the run; ``None`` for the cosine.
        market: An entry ``market`` of a config, in place of the run's: a catalogue that has grown, say. Without it and
            without a run, it is the default market.
        agent: ``"cosine"`` takes the market of the run alone.
        trust: As in :func:`~experiments.runs.saved.load_run`.

    Raises:
        RunError: If it is not trusted, there is not one run, or its agent scores nothing.
        ValueError: If its agent reads other jobs than the market's.
    """
    if agent not in (None, "cosine"):
        raise RunError(f"`agent` must be null, which is the run's, or cosine, got {agent!r}.")
    if folder is None:
        return Ranking(load_market("default") if market is None else Task({"market": dict(market)}).market)
    runs = find_runs(folder, "run")
    if len(runs) != 1:
        raise RunError(
            f"`run`: {folder} holds {len(runs)} runs; say which: {', '.join(str(run.folder) for run in runs)}."
        )
    (run,) = runs
    require_trust(run.config, run.folder, trust)
    if market is not None:
        run = dataclasses.replace(run, config={**run.config, "market": dict(market)})
    setup, model = load_run(run, {}, trust=True)
    if agent == "cosine":
        return Ranking(setup.market)
    if setup.is_career:
        raise RunError(
            f"`run`: the agent of {run.folder} needs to know how far an applicant has come (`progress`), which a list "
            "of people does not say: take a run of another setting, or agent=cosine."
        )
    # A flattened observation has so many candidates and no more.
    if not hasattr(model, "q_values") or isinstance(getattr(model, "observation_space", None), spaces.Box):
        raise RunError(
            f"`run`: the agent of {run.folder}, {setup.algorithm.name}, chooses from a set and gives jobs no values: "
            "take a run of algo=dynaq_plus, say, or agent=cosine."
        )
    shown = {key: setup.env_options[key] for key in _SHOWN if key in setup.env_options}
    made_by = hashlib.sha256(run.file(MODEL).read_bytes()).hexdigest()
    return Ranking(setup.market, model, shown, made_by)


def rank_people(
    ranking: Ranking,
    out: str | os.PathLike[str],
    *,
    applicants: str | os.PathLike[str] | None = None,
    reading: Mapping[str, Any] | None = None,
    split: Split = "all",
    n: int = 10,
    exclude: Sequence[int | str] = (),
    resume: bool = True,
) -> int:
    """Writes the ``n`` best jobs of each of many people.

    The lists are kept beside ``out`` as they are made, in ``OUT.part``, and ``out`` is there whole or not at all: the
    same call goes on where it was stopped.

    Args:
        ranking: Who ranks which jobs.
        out: A ``.csv``, ``.jsonl`` or ``.parquet`` file with the columns :data:`COLUMNS`.
        applicants: A file of people, by its own ending; ``None`` for the market's own applicants.
        reading: How that file is read, see :meth:`~jobrec_gym.market.LabourMarket.with_applicants`.
        split: Which of the market's own.
        n: How many jobs for each.
        exclude: Jobs to leave out for all, by row or by key.
        resume: Whether to go on.

    Returns:
        How many people are in the file.

    Raises:
        RunError: For another ending, if there is nobody in the split, if ``out`` is the file of people itself or a
            folder, or if another process writes the same file.
        ValueError: For a file of people that is wrong, and as :func:`jobrec_gym.recommend`.
    """
    out = Path(out)
    write = _writer(out)
    market = ranking.market
    if applicants is None:
        rows = market.applicants.rows(split)
        if not len(rows):
            raise RunError(f"`split`: market {market.name!r} has no applicants of split={split}; take split=all.")
        n_people, people_of = len(rows), lambda start, stop: (market, rows[start:stop])
        source: tuple[str, str] = _digest([market.applicants.keys, market.applicants.vectors]), split
    else:
        if out.exists() and out.samefile(_file_of(applicants)):
            raise RunError(f"`out` is the file of people, {out}: give it another name.")
        newcomers = newcomers_of(market, applicants, **(reading or {}))
        n_people = len(newcomers)

        def people_of(start: int, stop: int) -> tuple[LabourMarket, Any]:
            new = newcomers.on_market(slice(start, stop))
            return new, np.arange(len(new.applicants))

        source = _sha256(applicants), repr(newcomers.records[0])
    jobs = _digest_of_jobs(market)
    task = [ranking.made_by, ranking.observation, jobs, source, n, list(exclude), dict(reading or {})]
    batch_size = max(1, _PAIRS // len(market.jobs))
    with (
        _Part(out, task, resume) as part,
        Progress(n_people, "ranking", "person", done=part.n_done) as progress,
    ):
        while part.n_done < n_people:
            here, ids = people_of(part.n_done, part.n_done + _PEOPLE)
            lists = recommend_each(ranking.agent, here, ids, n, exclude, ranking.observation, batch_size)
            for start in range(0, len(ids), _WRITTEN):
                some = ids[start : start + _WRITTEN]
                part.add([[str(here.applicants.keys[one]), _plain(next(lists))] for one in some.tolist()])
                progress.update(len(some))
        write(out, _rows(part.read()))
        part.remove()
    return n_people


class _Part:
    """What is ranked so far: a first line that says of what and what wrote it, then a line for each person.

    A line begins with the checksum of the rest. From the first one on that is torn or was changed, all is made again.
    """

    def __init__(self, out: Path, task: Any, resume: bool):
        self.path = out.with_name(f"{out.name}.part")
        self.n_done = 0
        digest = hashlib.sha256(json.dumps(task, sort_keys=True, default=str).encode()).hexdigest()
        self._head = json.dumps({"format": _PART_FORMAT, "written_by": written_by(), "task": digest}) + "\n"
        self._resume = resume
        self._file: TextIO

    def __enter__(self) -> _Part:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+", encoding="utf-8", newline="\n")
        lock_file(self._file, f"another process writes {self.path}: wait for it, or choose another `out`.")
        self._file.seek(0)
        keeps = self._resume and self._file.readline() == self._head
        end = len(self._head) if keeps else 0
        if keeps:
            with self.path.open("rb") as lines:
                lines.seek(end)
                for line in lines:
                    if not _is_whole(line):
                        break
                    self.n_done += 1
                    end += len(line)
        self._file.truncate(end)
        self._file.seek(end)
        if not keeps:
            self._append(self._head)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, people: Iterable[Any]) -> None:
        """Keeps some people's lists: behind a kill they are there."""
        lines = [_checked(json.dumps(person, ensure_ascii=False)) for person in people]
        self._append("".join(lines))
        self.n_done += len(lines)

    def read(self) -> Iterator[Any]:
        """All that was kept, in order."""
        with self.path.open(encoding="utf-8", newline="\n") as lines:
            next(lines)
            for line in lines:
                yield json.loads(line.partition(" ")[2])

    def remove(self) -> None:
        """Removes the notes for continuing, because the file is complete."""
        self.path.unlink()

    def _append(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        os.fsync(self._file.fileno())


def _checked(text: str) -> str:
    """A line of a text behind its checksum."""
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _is_whole(line: bytes) -> bool:
    """Whether a line is as :func:`_checked` made it."""
    code, _, text = line.partition(b" ")
    return line.endswith(b"\n") and code == b"%08x" % zlib.crc32(text[:-1])


def _plain(found: Sequence[Recommendation]) -> list[list[Any]]:
    return [[one.rank, one.job_id, one.key, one.title, one.score, one.cosine, one.shared, one.missing] for one in found]


def _rows(people: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Rows of the file, by :data:`COLUMNS`."""
    for key, found in people:
        for values in found:
            yield dict(zip(COLUMNS, [key, *values], strict=True))


def _writer(out: Path) -> Callable[[Path, Iterator[dict[str, Any]]], None]:
    """What writes a file of this ending."""
    writers = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if out.suffix not in writers:
        raise RunError(f"`out` must end in {', '.join(writers)}, got {str(out)!r}.")
    if out.is_dir():
        raise RunError(f"`out`: {out} is a folder; name a file in it.")
    if out.suffix == ".parquet":
        _parquet()
    return writers[out.suffix]


def _write_csv(out: Path, rows: Iterator[dict[str, Any]]) -> None:
    with whole_file(out) as scratch, scratch.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "shared": _cell(row["shared"]), "missing": _cell(row["missing"])})


def _cell(skills: Sequence[str]) -> str:
    """A list of skills as a file of people has it, read back by ``load_csv``."""
    is_ambiguous = any(";" in skill or skill.startswith("[") for skill in skills)
    return json.dumps(skills, ensure_ascii=False) if is_ambiguous else ";".join(skills)


def _write_jsonl(out: Path, rows: Iterator[dict[str, Any]]) -> None:
    with whole_file(out) as scratch, scratch.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(out: Path, rows: Iterator[dict[str, Any]]) -> None:
    pyarrow, parquet = _parquet()
    kinds = [pyarrow.string(), pyarrow.int32(), pyarrow.int64(), pyarrow.string(), pyarrow.string()]
    kinds += [pyarrow.float64()] * 2 + [pyarrow.list_(pyarrow.string())] * 2
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    with whole_file(out) as scratch, parquet.ParquetWriter(scratch, schema) as writer:
        some: list[dict[str, Any]] = []
        for row in rows:
            some.append(row)
            if len(some) == _PAIRS:
                writer.write_table(pyarrow.Table.from_pylist(some, schema))
                some = []
        writer.write_table(pyarrow.Table.from_pylist(some, schema))


def _parquet() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f"a .parquet file needs pyarrow: {install_command('data')}.") from error


def _file_of(source: str | os.PathLike[str]) -> Path:
    """A file, its scheme left out."""
    text = os.fspath(source)
    return Path(text) if Path(text).exists() else Path(text.partition(":")[2])


def _sha256(source: str | os.PathLike[str]) -> str:
    """Of a file's content."""
    with _file_of(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_jobs(market: LabourMarket) -> str:
    """Of all that a list says of jobs: a saved market knows that of their vectors, whose skills are theirs."""
    jobs, words = market.jobs, market.vocabulary
    arrays = [jobs.keys, jobs.title_ids, jobs.occupation_ids]
    known = market.job_vectors_sha256
    return _digest(arrays if known else [*arrays, jobs.vectors], known, words.titles, words.occupations)


def _digest(arrays: Iterable[NDArray[Any]], *words: Any) -> str:
    digest = hashlib.sha256(json.dumps(words).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        for start in range(0, len(array), _HASHED):  # a part of a memory-mapped table at a time
            digest.update(np.ascontiguousarray(array[start : start + _HASHED]).tobytes())
    return digest.hexdigest()
