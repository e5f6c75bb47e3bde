"""Writes each person's best jobs to a file that appears whole. Lists are made in parts, so that a kill loses little."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import hashlib
import importlib
import json
import logging
import os
import re
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
from jobrec_gym.interactions import LogError
from jobrec_gym.loaders.newcomers import newcomers_of
from jobrec_gym.loaders.pairs import read_pairs
from jobrec_gym.loaders.reading import kind_of
from jobrec_gym.market import MarketError, Population, Split
from jobrec_gym.market.context import Side
from jobrec_gym.market.dates import open_jobs
from jobrec_gym.market.keys import named_rows
from jobrec_gym.market.remembered import remembered
from jobrec_gym.market.verified import array_digest
from jobrec_gym.prior_sources import LESS_JOB_MEAN, SourcedPairValues, less_own_means
from jobrec_gym.problem import require_count, require_flag
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import whole_file

__all__ = ["COLUMNS", "Ranking", "rank_people", "ranking_of_run"]

logger = logging.getLogger(__name__)

COLUMNS = ("applicant_key", "rank", "job_id", "job_key", "title", "score", "cosine", "shared", "missing")
"""Columns of a ranked file, which has one row for each recommendation. ``shared`` and ``missing`` are lists of
skills."""

_PEOPLE = 2_000
"""People who are encoded together."""
_PAIRS = 16_384
"""Pairs of applicant and job that an agent scores at once."""
_WRITTEN = 100
"""People whose lists are written together. A kill loses the lists of at most this many."""
_PART = ".part"
_PART_FORMAT = "jobrec-ranked/1"
_SHOWN = ("observation", "job_fields", "pair_noise", "prior_sources")


@dataclass(frozen=True, slots=True)
class Ranking:
    """An agent, and the jobs that it ranks.

    Attributes:
        market: The market with the jobs.
        agent: The agent that scores them; ``None`` for the cosine.
        observation: What the agent reads, see :func:`jobrec_gym.recommend`.
        made_by: A text by which a ranking that continues recognises the agent.
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
        folder: The folder of the run; ``None`` for the cosine.
        market: An entry ``market`` of a config that replaces the run's market, for instance a catalogue that has grown.
            Without this entry and without a run, the default market is taken.
        agent: ``"cosine"`` takes only the market of the run, and ranks by the cosine.
        trust: See :func:`~experiments.runs.saved.load_run`.

    Raises:
        RunError: If ``agent`` is unknown, if the run is not trusted, if there is not exactly one run, or if its agent
            gives jobs no scores, reads the applicant's progress, or reads the answers of a live language model.
        ValueError: If the agent reads other fields of jobs than the market has.
    """
    if agent not in (None, "cosine"):
        raise RunError(f"`agent` must be one of ('cosine',) or null (the run's own agent), got {agent!r:.80}.")
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
    # An agent with a flattened observation can only score as many candidates as in training.
    if not hasattr(model, "q_values") or isinstance(getattr(model, "observation_space", None), spaces.Box):
        raise RunError(
            f"`run`: the agent of {run.folder}, {setup.algorithm.name}, chooses from a set and gives jobs no values: "
            "take a run of algo=dynaq_plus, say, or agent=cosine."
        )
    shown = {key: setup.env_options[key] for key in _SHOWN if key in setup.env_options}
    shown["pair_features"] = list(setup.env.unwrapped.pair_feature_names)  # these include those of `prior_sources`
    if SourcedPairValues(setup.market, (), 0.0, shown.get("prior_sources") or {}).is_live:
        raise RunError(
            f"`run`: the agent of {run.folder} reads what a live language model says of each pair "
            "(`env.prior_sources`), and would ask it about every job for every person: take a run whose source is a "
            "recording, or agent=cosine."
        )
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
    applied: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    reading_applied: Mapping[str, Any] | None = None,
    open_at: str | datetime.date | None = None,
    distinct: bool = False,
    resume: bool = True,
) -> int:
    """Writes the ``n`` best jobs of each of many people.

    The lists are written to ``OUT.part`` as they are made, and ``out`` appears whole or not at all. The same call
    continues where it was stopped.

    Args:
        ranking: The agent, and the jobs that it ranks.
        out: A ``.csv``, ``.jsonl`` or ``.parquet`` file with the columns :data:`COLUMNS`.
        applicants: A file of people, read by its scheme or ending, or ``"json-resume:FOLDER"``; ``None`` for the
            market's own applicants.
        reading: How that file is read, see :meth:`~jobrec_gym.market.LabourMarket.with_applicants`.
        split: Which of the market's own applicants.
        n: How many jobs for each person.
        exclude: Jobs to leave out for all people, by row or by key.
        applied: A file of pairs, a person's key and a job's key: nobody gets a job that stands beside their key. Or
            several such files.
        reading_applied: How these files are read, see :func:`~jobrec_gym.loaders.pairs.read_pairs`.
        open_at: When the jobs must be open, as in :func:`jobrec_gym.recommend`.
        distinct: Whether only one of equal postings is listed, as in :func:`jobrec_gym.recommend`.
        resume: Whether to continue from ``OUT.part``.

    Returns:
        How many people are in the file.

    Raises:
        RunError: If the ending is unknown, the split is empty, ``out`` is a folder or one of the files that are read,
            or another process writes the same file. Also if ``applicants`` is a file of other people, and the agent
            reads numbers from which each job's mean over the people of the market is subtracted
            (``less_job_mean: true``).
        ValueError: If the file of people or of pairs is wrong, and as in :func:`jobrec_gym.recommend`.
    """
    out = Path(out)
    write = _writer(out)
    market = ranking.market
    require_count("n", n)
    require_flag("distinct", distinct)
    if isinstance(exclude, str | Mapping) or not isinstance(exclude, Iterable):
        raise RunError(f"`exclude` must list jobs by row or by key, [] for none, got {exclude!r:.80}.")
    files = _files_of_pairs(applied)
    try:
        for_all = np.unique(named_rows("job", market.jobs.keys, exclude))
    except (TypeError, ValueError) as error:
        raise RunError(f"`exclude`: {error}") from error
    if open_at is not None and not open_jobs(market, open_at).any():  # a wrong time is refused before writing
        logger.warning("No job of market %r is open at %s, so all lists are empty.", market.name, open_at)
    if applicants is None:
        people = _own_people(market, split)
    else:
        _refuse_means_over_people(ranking)
        _refuse_to_write_over(out, kind_of(applicants)[1], "people")
        people = _people_in_file(market, applicants, reading or {})
    pairs: dict[str, NDArray[np.int64]] = {}
    for file in files:
        _refuse_to_write_over(out, kind_of(file)[1], "pairs")
        try:
            listed = read_pairs(file, people.keys, market.jobs.keys, **(reading_applied or {}))
        except LogError as error:
            raise LogError(f"{error} {_how_named('applied', 'reading_applied.on_unknown=skip')}") from error
        for key, done in listed.items():
            pairs[key] = np.union1d(pairs.get(key, done), done)
    task = [
        *(ranking.made_by, ranking.observation, _digest_of(market, "jobs"), people.source, n, for_all.tolist()),
        *(dict(reading or {}), {key: done.tolist() for key, done in pairs.items()}, open_at, distinct),
    ]
    batch_size = max(1, _PAIRS // len(market.jobs))
    with (
        _Part(out, task, resume) as part,
        Progress(people.n, "ranking", "person", done=part.n_done) as progress,
    ):
        while part.n_done < people.n:
            here, ids = people.some(part.n_done, part.n_done + _PEOPLE)
            keys = [str(key) for key in here.applicants.keys[ids]]
            left_out: dict[Any, Any] = {None: for_all}
            left_out |= {row: pairs[key] for row, key in zip(ids.tolist(), keys, strict=True) if key in pairs}
            lists = recommend_each(
                ranking.agent,
                here,
                ids,
                n,
                left_out,
                ranking.observation,
                batch_size,
                open_at=open_at,
                distinct=distinct,
            )
            for start in range(0, len(keys), _WRITTEN):
                some = keys[start : start + _WRITTEN]
                part.add([[key, _plain(next(lists))] for key in some])
                progress.update(len(some))
        write(out, _rows(part.read()))
        part.remove()
    return people.n


@dataclass(frozen=True, slots=True)
class _People:
    """The people who get lists.

    Attributes:
        n: How many they are.
        keys: The keys that a file of pairs may name. People of the market who are not in the split are among them.
        some: A function of two places, `first` and `end`. It returns a market, and the rows in it of the people at
            places `first` to `end - 1`.
        source: What a ranking that continues recognises them by.
    """

    n: int
    keys: NDArray[np.str_]
    some: Callable[[int, int], tuple[LabourMarket, NDArray[np.int64]]]
    source: tuple[str, str]


def _own_people(market: LabourMarket, split: Split) -> _People:
    """The market's own applicants of a split."""
    rows = market.applicants.rows(split)
    if not len(rows):
        raise RunError(f"`split`: market {market.name!r} has no applicants of split={split}; take split=all.")
    source = _digest_of(market, "applicants"), split
    return _People(len(rows), market.applicants.keys, lambda start, stop: (market, rows[start:stop]), source)


def _people_in_file(market: LabourMarket, file: str | os.PathLike[str], reading: Mapping[str, Any]) -> _People:
    """The people in a file, who are encoded when their turn comes."""
    try:
        newcomers = newcomers_of(market, file, **reading)
    except MarketError as error:
        if not re.search(r"`\w+=", str(error)):  # it names no option
            raise
        raise MarketError(f"{error} {_how_named('applicants', 'reading.on_empty=skip')}") from error

    def some(start: int, stop: int) -> tuple[LabourMarket, NDArray[np.int64]]:
        new = newcomers.on_market(slice(start, stop))
        return new, np.arange(len(new.applicants))

    keys = np.array([record.key for record in newcomers.records])
    source = _sha256(kind_of(file)[1]), repr([newcomers.records[0], remembered(market.origin)])
    return _People(len(newcomers), keys, some, source)


def _how_named(argument: str, example: str) -> str:
    """How the command calls an option that an error about a file names as an argument."""
    return f"Options of `{argument}` have `{example.partition('.')[0]}.` before their name, as in `{example}`."


def _files_of_pairs(applied: Any) -> Sequence[str | os.PathLike[str]]:
    """The files that the argument ``applied`` names."""
    if applied is None:
        return []
    files = [applied] if isinstance(applied, str | os.PathLike) else applied
    if not isinstance(files, Sequence) or not all(isinstance(file, str | os.PathLike) for file in files):
        raise RunError(f"`applied` must name a file of pairs or list such files, null for none, got {applied!r:.80}.")
    return files


def _refuse_to_write_over(out: Path, file: Path, what: str) -> None:
    if out.exists() and file.exists() and out.samefile(file):
        raise RunError(f"`out` is the file of {what}, {out}: give it another name.")


def _refuse_means_over_people(ranking: Ranking) -> None:
    shown = ranking.observation if isinstance(ranking.observation, Mapping) else {}
    for name in less_own_means(shown.get("prior_sources") or {}):
        raise RunError(
            f"`applicants`: the agent reads `{name}` minus each job's mean over the market's applicants "
            f"(`env.prior_sources`), and the people of a file have other means. Rank the market's own applicants "
            f"(leave out applicants=), or train an agent whose source has fixed means, one number for each job: "
            f"{LESS_JOB_MEAN}: [...]."
        )


class _Part:
    """The file of lists made so far: a first line about the task and the writer, then a line for each person.

    Each of these lines begins with the checksum of the rest. If a line is incomplete or was changed, it and all lines
    after it are made again.
    """

    def __init__(self, out: Path, task: Any, resume: bool):
        self.path = out.with_name(f"{out.name}{_PART}")
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
        """Writes some people's lists. They are on the disk when this returns."""
        lines = [_checked(json.dumps(person, ensure_ascii=False)) for person in people]
        self._append("".join(lines))
        self.n_done += len(lines)

    def read(self) -> Iterator[Any]:
        """All lists in the file, in order."""
        with self.path.open(encoding="utf-8", newline="\n") as lines:
            next(lines)
            for line in lines:
                yield json.loads(line.partition(" ")[2])

    def remove(self) -> None:
        """Removes this file, because ``out`` is complete."""
        self.path.unlink()

    def _append(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        os.fsync(self._file.fileno())


def _checked(text: str) -> str:
    """A line with the checksum of a text and the text."""
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _is_whole(line: bytes) -> bool:
    """Whether a line is complete and unchanged since :func:`_checked` made it."""
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
    """The function that writes a file with this ending."""
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
    """A list of skills as a cell of a CSV file, in the form that ``load_csv`` reads."""
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


def _sha256(place: Path) -> str:
    """SHA-256 of a file's content, or of the names and contents of the files in a folder.

    Subfolders of a folder are not read, nor is a file of lists made so far (``OUT.part``) that may lie in the folder.
    """
    if place.is_dir():
        files = sorted(path for path in place.iterdir() if path.is_file() and path.suffix != _PART)
        told = [[path.name, _sha256(path)] for path in files]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(market: LabourMarket, side: Side) -> str:
    """Digest of all that an agent may read and a list may say of one side.

    A saved market knows the digest of its job vectors.
    """
    population: Population = getattr(market, side)
    known = market.job_vectors_sha256 if side == "jobs" else None
    arrays: list[NDArray[Any] | None] = [*population.tables().values(), market.title_vectors, market.experience_vectors]
    if known is None:
        arrays.append(population.vectors)
    words: list[Any] = [known, market.vocabulary.as_lists(), sorted(market.text_blocks)]
    for name, table in sorted(market.context.items()):
        words.append([name, table.kind, table.words])
        arrays += table.arrays(side).values()
    told = [words, [None if array is None else array_digest(array) for array in arrays]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
