"""A labour market: applicants and jobs, their vectors and splits, and :func:`load_market`, which opens a market."""

from __future__ import annotations

import copy
import errno
import hashlib
import importlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.array_files import give_back
from jobrec_gym.market.checks import (
    check_content,
    check_context,
    check_population,
    check_saved,
    check_saved_context,
    check_saved_words,
    check_word_vectors,
    check_words,
)
from jobrec_gym.market.context import ContextTable, ContextValue, Side
from jobrec_gym.market.folder import (
    check_digests,
    market_files,
    read_header,
    read_tables,
    write_market,
    write_tables,
)
from jobrec_gym.market.keys import find_row
from jobrec_gym.market.remembered import remembered
from jobrec_gym.market.sources import MarketSpec, absolute, file_states, find_loader, plain_option
from jobrec_gym.market.summary import summarise
from jobrec_gym.market.tables import MarketError, Population, Profile, Vocabulary, read_only, view
from jobrec_gym.market.vectors import gathered, row_products
from jobrec_gym.market.verified import is_remembered, remember
from jobrec_gym.paths import place_of, what_came
from jobrec_gym.whole_files import read_whole

__all__ = ["LabourMarket", "load_market"]

_WAYS_OUT = {
    errno.EMFILE: "allow more open files, for example `ulimit -n 4096`; a market keeps a file open for each table",
    errno.ENFILE: "let other programs close files, or allow more open files",
    errno.EACCES: "change its rights, or use a copy that you may read",
    errno.EPERM: "change its rights, or use a copy that you may read",
}
"""What to do if the system refuses to open a file of a market. The market itself may be whole."""

_MOST_SHARED = 8
_shared: OrderedDict[tuple[str, str], tuple[dict[str, tuple[int, int]], LabourMarket]] = OrderedDict()
"""The markets that were opened or asked for last, by source and options, with the states of their files."""
_shared_lock = threading.Lock()


class LabourMarket:
    """Applicants and jobs with their words, vectors and splits; frozen, shared by every environment that uses it.

    Deep copies return the market itself. A market loaded from a path pickles as that path. If the applicants of a saved
    market were replaced, the result pickles as that market's path and what is new. The arrays that you pass are not
    copied: the market holds read-only views of them. Do not change these arrays afterwards.

    Args:
        name: A short name.
        applicants: The people who receive recommendations.
        jobs: The jobs that can be recommended.
        vocabulary: The words that the tables refer to.
        title_vectors: float (n_titles, block_dim), unit rows; ``None`` if titles are not encoded.
        experience_vectors: float (n_experiences, block_dim), unit rows; ``None`` if not encoded.
        text_blocks: Which of ``("hard", "soft")`` hold free texts instead of lists of skills.
        left_out: Parts of the source that were left out, one phrase each, such as ``"3 of 9 jobs, which have no
            skills"``.
        cut: Phrases on texts that are too long for the encoder. Nothing of such a text is dropped: it is encoded in
            pieces. An example is ``"1 of 4 texts, which are encoded in pieces"``.
        context: Further fields of both sides, by name, such as their places; see
            :class:`~jobrec_gym.market.context.ContextTable`. Each field except the dates of jobs is a pair feature.
        spec: How :func:`load_market` finds this market again; ``None`` for a market made in memory.

    Attributes:
        folder: The folder of a saved market; ``None`` for one in memory.
        job_vectors_sha256: SHA-256 of a saved market's job vectors, computed when they were written. It tells whether
            an index was made from these vectors.

    Raises:
        MarketError: For an empty side, repeated keys, ids without a word, vectors that are not finite or not of unit
            length, or vectors whose sizes do not fit together.
    """

    name: str
    applicants: Population
    jobs: Population
    vocabulary: Vocabulary
    title_vectors: NDArray[np.floating] | None
    experience_vectors: NDArray[np.floating] | None
    text_blocks: frozenset[str]
    context: Mapping[str, ContextTable]
    left_out: tuple[str, ...]
    cut: tuple[str, ...]
    folder: Path | None
    job_vectors_sha256: str | None

    def __init__(
        self,
        name: str,
        applicants: Population,
        jobs: Population,
        vocabulary: Vocabulary,
        *,
        title_vectors: NDArray[np.floating] | None = None,
        experience_vectors: NDArray[np.floating] | None = None,
        text_blocks: Iterable[str] = (),
        context: Mapping[str, ContextTable] | None = None,
        left_out: Iterable[str] = (),
        cut: Iterable[str] = (),
        spec: MarketSpec | None = None,
    ):
        for side, population in (("applicants", applicants), ("jobs", jobs)):
            check_population(side, population)
        fields = {
            "name": name,
            "applicants": read_only(applicants),
            "jobs": read_only(jobs),
            "vocabulary": vocabulary,
            **_further_tables(title_vectors, experience_vectors, text_blocks, context),
            "left_out": tuple(left_out),
            "cut": tuple(cut),
            "folder": None,
            "job_vectors_sha256": None,
            "_spec": spec,
            "_origin": None,
            "_base": None,
            "_sha256": None,
            "_action_features": {},
        }
        for key, value in fields.items():
            object.__setattr__(self, key, value)
        self._check_fit()

    def _check_fit(self) -> None:
        """Checks that the tables fit together. Each side itself was checked before."""
        sizes = self.applicants.vectors.shape[1], self.jobs.vectors.shape[1]
        if sizes[0] != sizes[1]:
            raise MarketError(
                f"`applicants` and `jobs` must have vectors of one size, got {sizes[0]} and {sizes[1]}: encode both "
                "with the same encoder."
            )
        words = self.vocabulary
        for side, population in (("applicants", self.applicants), ("jobs", self.jobs)):
            check_words(side, population, words)
        check_word_vectors("title_vectors", self.title_vectors, words.titles, self.block_dim)
        check_word_vectors("experience_vectors", self.experience_vectors, words.experiences, self.block_dim)
        for field, table in self.context.items():
            check_context(field, table, self.applicants, self.jobs)

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError(f"a LabourMarket is frozen, `{key}` cannot be set; build a new one.")

    def __deepcopy__(self, memo: dict[int, object]) -> LabourMarket:
        return self

    def __copy__(self) -> LabourMarket:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._spec is not None:
            return load_market, (self._spec,)
        if self._base is not None:
            return _with_new_tables, (
                self._base,
                self._base._sha256,
                self.applicants,
                _new_tables(self, self._base),
                self._origin,
            )
        made = partial(
            LabourMarket,
            title_vectors=self.title_vectors,
            experience_vectors=self.experience_vectors,
            text_blocks=self.text_blocks,
            context=dict(self.context),
            left_out=self.left_out,
            cut=self.cut,
        )
        # A market whose applicants were replaced keeps these attributes of the market that it was made from.
        kept = {key: getattr(self, key) for key in ("folder", "job_vectors_sha256", "_origin")}
        return made, (self.name, self.applicants, self.jobs, self.vocabulary), kept

    def __repr__(self) -> str:
        return (
            f"LabourMarket({self.name!r}, applicants={len(self.applicants):,}, jobs={len(self.jobs):,}, "
            f"block_dim={self.block_dim})"
        )

    _spec: MarketSpec | None
    _origin: MarketSpec | Mapping[str, Any] | None
    _base: LabourMarket | None  # the saved market whose applicants were replaced, directly or in several steps
    _sha256: str | None  # of a saved market's header, which has the digests of all files
    _action_features: dict[tuple[str, ...], NDArray[np.floating]]

    @property
    def spec(self) -> MarketSpec | None:
        """How :func:`load_market` finds this market again; ``None`` for one made in memory, see :meth:`to_spec`."""
        return copy.deepcopy(self._spec)  # a copy: the caller may change it, and pickles use the original

    @property
    def origin(self) -> MarketSpec | Mapping[str, Any] | None:
        """How this market's files were read: the arguments by name, as far as they are known; else the :attr:`spec`.

        A saved market remembers the arguments :data:`~jobrec_gym.market.remembered.REMEMBERED`. If the applicants were
        replaced, the arguments are still those by which the first market's applicants were read.
        """
        known = self._spec if self._origin is None or isinstance(self._spec, Mapping) else self._origin
        if isinstance(self._origin, Mapping) and isinstance(self._spec, Mapping):
            known = {**self._origin, **self._spec}
        return copy.deepcopy(known)

    @property
    def block_dim(self) -> int:
        """Size of one block of a vector (384 for all-MiniLM-L6-v2)."""
        return self.applicants.vectors.shape[1] // 2

    def applicant(self, applicant: int | str) -> Profile:
        """The words of an applicant, by row or by key.

        Args:
            applicant: An integer is a row. A text is a key, even if it looks like a number: ``"5"`` is not row 5.

        Returns:
            A frozen profile. Its ``id`` is the row; :func:`~jobrec_gym.recommendations.recommend` takes the profile
            itself.

        Raises:
            ValueError: For a row that does not exist, an unknown key, or a key of several rows.
            TypeError: For anything but an integer and a text.

        Example:
            >>> market = load_market("default")
            >>> market.applicant(5).key, market.applicant("A0000006").id  # doctest: +SKIP
        """
        return self._profile(self.applicants, self.applicant_id(applicant))

    def job(self, job: int | str) -> Profile:
        """The words of a job, by row or by key; as :meth:`applicant`."""
        return self._profile(self.jobs, self.job_id(job))

    def applicant_id(self, applicant: int | str | Profile) -> int:
        """The row of an applicant who is named by row, by key or by profile; errors as of :meth:`applicant`."""
        return find_row("applicant", self.applicants.keys, applicant)

    def job_id(self, job: int | str | Profile) -> int:
        """The row of a job that is named by row, by key or by profile; errors as of :meth:`applicant`."""
        return find_row("job", self.jobs.keys, job)

    def with_applicants(
        self,
        rows: Iterable[Mapping[str, Any]] | str | os.PathLike[str],
        *,
        columns: Mapping[str, Any] | None = None,
        text_columns: Sequence[str] | None = None,
        skill_separator: str | None = None,
        null_values: Collection[str] | None = None,
        seniority_values: Mapping[str, int | None] | None = None,
        decimal: str | None = None,
        context: Mapping[str, Any] | None = None,
        on_empty: Literal["raise", "skip"] = "raise",
        delimiter: str | None = None,
        encoding: str | None = None,
        encoder: Any = None,
        cache_dir: str | bool | None = None,
    ) -> LabourMarket:
        """The same jobs for other people, without loading the market again: only new people get new vectors.

        One job is encoded again, to check that the encoder is that of the jobs.

        Args:
            rows: Mappings like the rows of a file of applicants, ``{"key": "p1", "hard": ["SQL"], "seniority": 2}``,
                or such a file, read by its own ending. If the market was loaded with a ``role_column`` and the rows
                have it, only the rows of applicants are read. These people replace the market's applicants. The first
                of them is row 0, and all of them are in the train split.
            columns: Which entry holds which field. This and all arguments below are as in
                :func:`~jobrec_gym.loaders.tables.load_table`. Except for ``delimiter`` and ``encoding``, ``None`` takes
                the value with which the market itself was loaded, if that value is known. A saved market remembers it,
                except for ``cache_dir``; a market that an early release saved does not.
            text_columns: Which of ``"hard", "soft"`` hold free text.
            skill_separator: The text that separates skills.
            null_values: Words that mean an empty cell.
            seniority_values: Levels by the rows' own words.
            decimal: The decimal sign of numbers.
            context: Which entries hold the market's context fields, as in
                :func:`~jobrec_gym.loaders.tables.load_table`. If a row does not have a field, its value is unknown.
            on_empty: Whether people without skills are an error, or are left out and counted in a log line.
            delimiter: The character that separates the cells of a CSV file. ``None`` detects it, whatever the market
                was loaded with.
            encoding: Encoding of a file. ``None`` is UTF-8, or the encoding of a byte order mark, whatever the market
                was loaded with.
            encoder: The encoder of the jobs. If it was an object or a folder, a saved market does not know it, and
                ``None`` takes the default encoder.
            cache_dir: Folder that keeps vectors between runs; ``False`` keeps none.

        Returns:
            A market in memory. Its applicants have the vectors that they would have had in the file.

        Raises:
            MarketError: For a row that is wrong, or an encoder other than that of the jobs.

        Example:
            >>> market = load_market("csv:jobs.csv", applicants="people.csv", encoder="hashing")  # doctest: +SKIP
            >>> market.with_applicants([{"key": "new", "hard": ["SQL", "Python"]}]).applicant("new")  # doctest: +SKIP
        """
        # Imported by name: the loaders depend on markets, not the other way round.
        newcomers = importlib.import_module("jobrec_gym.loaders.newcomers")
        read = newcomers.newcomers_of(
            self,
            rows,
            columns=columns,
            text_columns=text_columns,
            skill_separator=skill_separator,
            null_values=null_values,
            seniority_values=seniority_values,
            decimal=decimal,
            context=context,
            on_empty=on_empty,
            delimiter=delimiter,
            encoding=encoding,
            encoder=encoder,
            cache_dir=cache_dir,
        )
        market: LabourMarket = read.on_market()
        return market

    def replaced_applicants(
        self,
        applicants: Population,
        vocabulary: Vocabulary,
        *,
        origin: Mapping[str, Any] | None = None,
        **tables: Any,
    ) -> LabourMarket:
        """The market with other applicants, in memory; the jobs and everything computed from them stay.

        Args:
            applicants: The applicants that replace this market's.
            vocabulary: This market's words, and new words after them.
            origin: The :attr:`origin` of the result; ``None`` takes this market's.
            **tables: ``title_vectors`` and ``experience_vectors`` of ``vocabulary``, ``text_blocks``, and the
                ``context`` with the new applicants.
        """
        check_population("applicants", applicants)
        # The jobs are the same object: they are not checked again, and an index of them still fits.
        market = object.__new__(type(self))
        market.__dict__.update(
            self.__dict__,
            applicants=read_only(applicants),
            vocabulary=vocabulary,
            **_further_tables(**tables),
            left_out=(),
            cut=(),
            _spec=None,
            _origin=self.origin if origin is None else origin,
            _base=self._base if self._sha256 is None else self,
            _sha256=None,
            _action_features={},
        )
        market._check_fit()
        return market

    def read_with(self, arguments: Mapping[str, Any]) -> LabourMarket:
        """The same market, which knows by which arguments of a loader its files were read, see :attr:`origin`.

        Arguments that :func:`load_market` has noted in the :attr:`spec` have precedence over ``arguments``.

        Args:
            arguments: Values by name. A value is kept if its name is one of
                :data:`~jobrec_gym.market.remembered.REMEMBERED` and if the value is plain data.
        """
        market = object.__new__(type(self))
        market.__dict__.update(self.__dict__, _origin=remembered(arguments))
        return market

    def summary(self) -> str:
        """What was understood of the source, in five lines: rows, skills per row, left out, cut, and the first job.

        Example:
            >>> print(load_market("default").summary())  # doctest: +SKIP
        """
        return summarise(self)

    def family_id(self, population: Population, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Families of the rows ``ids`` of one side, -1 where unknown; same shape as ``ids``."""
        families = np.append(np.asarray(self.vocabulary.occupation_families, dtype=np.int64), -1)
        return families[population.occupation_ids[ids]]

    def action_features(self, job_fields: Sequence[str] = ()) -> NDArray[np.floating]:
        """Table of job vectors, one row for each job.

        Args:
            job_fields: Blocks to append after ``hard | soft``, in this order: ``"title"``, ``"experience"``.

        Returns:
            float (n_jobs, (2 + len(job_fields)) * block_dim), read-only. Each appended block has unit length.

        Raises:
            ValueError: For an unknown field, or one without vectors in this market.
        """
        fields = tuple(job_fields)
        if not fields:
            return self.jobs.vectors
        if fields not in self._action_features:
            blocks = {
                "title": (self.title_vectors, self.jobs.title_ids),
                "experience": (self.experience_vectors, self.jobs.experience_ids),
            }
            parts = [self.jobs.vectors]
            for field in fields:
                if field not in blocks or fields.count(field) > 1:
                    raise ValueError(f"`job_fields` must be distinct entries of {tuple(blocks)}, got {fields}.")
                vectors, ids = blocks[field]
                if vectors is None:
                    raise ValueError(f"`job_fields` names {field!r}, but market {self.name!r} has no {field} vectors.")
                parts.append(vectors[ids])
            table = np.concatenate(parts, axis=1)
            table.flags.writeable = False
            self._action_features[fields] = table
        return self._action_features[fields]

    def cosine(self, applicant_ids: NDArray[np.integer], job_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Cosine similarity of pairs, in [-1, 1].

        Args:
            applicant_ids: Integers (n,).
            job_ids: Integers (n,).

        Returns:
            float32 (n,). The value of a pair is the same to the bit, alone or in a batch.
        """
        return self.cosine_of(gathered(self.applicants.vectors, applicant_ids), job_ids)

    def cosine_of(self, vectors: NDArray[np.float32], job_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """:meth:`cosine` from the applicants' vectors, if the caller has them already.

        Args:
            vectors: float32 (n, 2 * block_dim), of unit length.
            job_ids: Integers (n,).

        Returns:
            float32 (n,).
        """
        return row_products(vectors, gathered(self.jobs.vectors, job_ids))

    def fingerprint(self) -> str:
        """SHA-256 of the market's content, as hex: equal for equal words, vectors and shown context."""
        digest = hashlib.sha256(json.dumps(self.vocabulary.as_lists()).encode())
        for array in self._arrays():
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        for name, table in sorted(self.context.items()):
            if table.shown:
                digest.update(json.dumps([name, table.kind, table.words]).encode())
                for side in ("applicants", "jobs"):
                    for array in table.arrays(side).values():
                        digest.update(f"{array.dtype}{array.shape}".encode())
                        digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def to_spec(self) -> MarketSpec:
        """How :func:`load_market` finds this market again, in plain JSON.

        Raises:
            ValueError: For a market made in memory, which cannot be found again.
        """
        if self._spec is None:
            raise ValueError(
                f"market {self.name!r} was made in memory and cannot be written down: save it first, "
                "`market = market.save(path)`, and pass the market that `save` returns (or the path)."
            )
        return copy.deepcopy(self._spec)

    @classmethod
    def from_spec(cls, spec: MarketSpec) -> LabourMarket:
        """The market that :meth:`to_spec` described."""
        return load_market(spec)

    def save(self, path: str | os.PathLike[str], dtype: str | None = None) -> LabourMarket:
        """Writes the market to a folder: ``market.json`` and one ``.npy`` file for each table, which is memory-mapped.

        The folder also holds the arguments by which the market's files were read, as far as they are known and plain
        data. :meth:`with_applicants` needs them: columns, separators, words, context, and the name of the encoder.

        The folder appears whole or not at all; an existing market there is replaced. No pickle is written.

        Args:
            path: The folder.
            dtype: Type of the vectors of applicants and jobs, ``"float16"`` (half the size) or ``"float32"``. ``None``
                keeps their present type.

        Returns:
            The saved market, memory-mapped from the folder. If another process has saved a market there meanwhile, it
            is that market.

        Raises:
            MarketError: For another type, or if ``path`` exists and is neither a saved market nor an empty folder.
        """
        try:
            is_known = dtype is None or np.dtype(dtype) in (np.float16, np.float32)
        except TypeError:
            is_known = False
        if not is_known:
            raise MarketError(f'`dtype` must be "float16", "float32" or None, got {dtype!r:.40}.')
        write_market(self, path, dtype)
        return self.load(path)

    def write_tables(self, folder: Path, job_vectors_sha256: str, made_from: Mapping[str, Any] | None = None) -> None:
        """Writes everything but the vectors of applicants and jobs into a folder that holds these vectors already.

        Args:
            folder: A folder from :func:`~jobrec_gym.market.market_folder`.
            job_vectors_sha256: The result of :func:`~jobrec_gym.market.write_vectors` for ``jobs.npy``.
            made_from: The arguments that the market was made from, in plain JSON. The function that made the market
                compares them later, to see whether the folder holds the market that is asked for.
        """
        write_tables(self, folder, job_vectors_sha256, made_from)

    @classmethod
    def load(cls, path: str | os.PathLike[str], verify: bool | None = None) -> LabourMarket:
        """Opens a saved market; its tables are memory-mapped, and a million jobs open in a moment.

        Types, offsets and ranges are checked each time. Each array is also compared with its digest, unless the user's
        cache folder records that the same files were found whole before. The record knows files by their sizes, times
        and inodes. If another process replaces the market meanwhile, the old market or the new one is opened, whole.

        Args:
            path: The folder.
            verify: True compares digests now; False does not compare them; None compares them if the cache does
                not remember that they were equal.

        Raises:
            MarketError: If the folder holds no market of this format, or a market that is not whole or was changed.
        """
        folder = place_of(path).absolute()
        return read_whole(folder, lambda: cls._read(folder, path, verify), MarketError)

    @classmethod
    def _read(cls, folder: Path, path: str | os.PathLike[str], verify: bool | None) -> LabourMarket:
        header = read_header(folder)
        try:
            tables = read_tables(folder, header)
            check_saved_words(tables["vocabulary"])
            for side in ("applicants", "jobs"):
                check_saved(side, tables[side], tables["vocabulary"])
            for field, table in tables["context"].items():
                check_saved_context(field, table)
            market = cls(**tables, spec=absolute(os.fspath(path)))
            files = market_files(folder, header)
            if verify or (verify is None and not is_remembered(folder, files)):
                for side in ("applicants", "jobs"):
                    check_content(side, tables[side])
                if verify or "files" in header:
                    check_digests(folder, header)
                remember(folder, files)
            for array in market._all_arrays():
                give_back(array)  # the checks have read pages that this process may never need
            object.__setattr__(market, "folder", folder)
            object.__setattr__(market, "_origin", remembered(header.get("read_with")) or None)
            object.__setattr__(market, "job_vectors_sha256", header["job_vectors_sha256"])
            object.__setattr__(market, "_sha256", header.get("sha256"))  # earlier releases wrote none
            return market
        except MarketError as error:
            raise MarketError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from error
        except (OSError, EOFError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError) and cause.errno in _WAYS_OUT:
                raise MarketError(f"{folder} cannot be read ({cause.strerror}): {_WAYS_OUT[cause.errno]}.") from error
            raise MarketError(f"{folder} is not a whole market: {error!r:.200}; save it again.") from error

    def _arrays(self) -> list[NDArray[Any]]:
        arrays = []
        for population in (self.applicants, self.jobs):
            arrays += [population.vectors, *population.tables().values()]
        return arrays + [table for table in (self.title_vectors, self.experience_vectors) if table is not None]

    def _all_arrays(self) -> Iterator[NDArray[Any]]:
        """All arrays, those of the context included."""
        yield from self._arrays()
        for table in self.context.values():
            for side in ("applicants", "jobs"):
                yield from table.arrays(side).values()

    def _context_of(self, side: Side, row: int) -> dict[str, ContextValue]:
        """The known and shown fields of a row's context."""
        values = {name: table.value(side, row) for name, table in self.context.items() if table.shown}
        return {name: value for name, value in values.items() if value is not None}

    def _profile(self, population: Population, row: int) -> Profile:
        words = self.vocabulary
        occupation = int(population.occupation_ids[row])
        family = -1 if occupation < 0 else words.occupation_families[occupation]
        return Profile(
            key=str(population.keys[row]),
            title=words.titles[population.title_ids[row]],
            hard_skills=tuple(words.hard_skills[skill] for skill in population.hard_skills[row]),
            soft_skills=tuple(words.soft_skills[skill] for skill in population.soft_skills[row]),
            seniority=int(population.seniority[row]),
            experience=words.experiences[population.experience_ids[row]],
            occupation=None if occupation < 0 else words.occupations[occupation],
            family=None if family < 0 else words.families[family],
            description="" if population.descriptions is None else population.descriptions[row],
            context=self._context_of("applicants" if population is self.applicants else "jobs", row),
            id=row,
        )


def _further_tables(
    title_vectors: NDArray[np.floating] | None = None,
    experience_vectors: NDArray[np.floating] | None = None,
    text_blocks: Iterable[str] = (),
    context: Mapping[str, ContextTable] | None = None,
) -> dict[str, Any]:
    """The tables of a market besides both sides and their words, by attribute, over read-only views."""
    return {
        "title_vectors": None if title_vectors is None else view(title_vectors),
        "experience_vectors": None if experience_vectors is None else view(experience_vectors),
        "text_blocks": frozenset(text_blocks),
        "context": MappingProxyType({name: table.read_only() for name, table in (context or {}).items()}),
    }


def _new_tables(market: LabourMarket, base: LabourMarket) -> dict[str, Any]:
    """The tables of a market that ``base`` does not have, or has in part; words of ``base`` are left out."""
    words = {
        key: tuple(values[len(getattr(base.vocabulary, key)) :]) for key, values in market.vocabulary.as_lists().items()
    }
    vectors = {}
    for name in ("title_vectors", "experience_vectors"):
        old, table = getattr(base, name), getattr(market, name)
        vectors[name] = table if old is None or table is None else table[len(old) :]
    context = {name: (table.applicants, table.words) for name, table in market.context.items()}
    return {"words": words, "vectors": vectors, "context": context, "text_blocks": market.text_blocks}


def _with_new_tables(
    base: LabourMarket, sha256: str, applicants: Population, news: Mapping[str, Any], origin: Mapping[str, Any] | None
) -> LabourMarket:
    """The market that :func:`_new_tables` took apart.

    Raises:
        MarketError: If the saved market was replaced meanwhile, so that ids may stand for other words.
    """
    if base._sha256 != sha256:
        raise MarketError(
            f"{base.folder} was saved again after these applicants were read: read them again, "
            "`load_market(...).with_applicants(...)`."
        )
    words = {key: (*getattr(base.vocabulary, key), *new) for key, new in news["words"].items()}
    vectors = {}
    for name, new in news["vectors"].items():
        old = getattr(base, name)
        vectors[name] = new if old is None or new is None else np.concatenate([old, new]) if len(new) else old
    context = {
        name: replace(base.context[name], applicants=values, words=words_of_field)
        for name, (values, words_of_field) in news["context"].items()
    }
    return base.replaced_applicants(
        applicants, Vocabulary(**words), origin=origin, **vectors, text_blocks=news["text_blocks"], context=context
    )


def load_market(source: MarketSpec | os.PathLike[str] | LabourMarket, **kwargs: Any) -> LabourMarket:
    """Opens a market by name, by path or by scheme.

    Args:
        source: ``"default"`` (the generated market over the embedded taxonomy), ``"recorded"`` (a part of the default
            market; a language model was asked about all pairs of this part), the folder of a saved market, a file whose
            ending says what it is (``"jobs.csv"``), ``"SCHEME:PATH"`` with a scheme of ``onet, esco, csv, json, jsonl,
            parquet, json-resume, job-posting, dynaq-json``, a dictionary ``{"source": ..., keyword: ...}``, or a
            market, which is returned unchanged.
        **kwargs: Keywords of the source, e.g. ``n_jobs=100_000`` or ``split_by="occupation"``. A saved market has only
            the keyword ``verify``, see :meth:`LabourMarket.load`.

    Returns:
        The market. Equal calls share one object as long as it is among the eight markets that were asked for last, and
        its files have not changed. Its :attr:`~LabourMarket.spec` holds absolute paths.

    Raises:
        MarketError: If there is no such source, or if what it names is not a market.
    """
    if isinstance(source, LabourMarket):
        if kwargs:
            raise ValueError(f"keywords {sorted(kwargs)} have no meaning for a market that is already loaded.")
        return source
    if isinstance(source, Mapping):
        merged = {**source, **kwargs}
        if "source" not in merged:
            raise MarketError(f"a market given as a dictionary needs the entry 'source', got {sorted(merged)}.")
        return load_market(merged.pop("source"), **merged)
    if not isinstance(source, (str, os.PathLike)):
        raise MarketError(f"`market` must be a name, a path, a dictionary or a LabourMarket, got {what_came(source)}.")
    text = absolute(os.fspath(source))
    kwargs = {key: plain_option(key, value) for key, value in kwargs.items()}
    try:
        options = json.dumps(kwargs, sort_keys=True)
    except TypeError:  # an object among the keywords, such as an encoder: the market cannot be found again
        return _open(text, kwargs, recorded=False)
    # What `cache_dir` holds changes how long a market takes to load, and not the market.
    return _load_shared(text, options, [text, *(value for key, value in kwargs.items() if key != "cache_dir")])


def _load_shared(source: str, options: str, named: Sequence[Any]) -> LabourMarket:
    """The market that an equal call has made. It is made anew if files that the call names have changed since."""
    key, before = (source, options), file_states(named)
    with _shared_lock:
        known = _shared.get(key)
        if known is not None and known[0] == before:
            _shared.move_to_end(key)
            return known[1]
    market = _open(source, json.loads(options), recorded=True)
    # For files that the call itself has made, such as the market in `folder`, the state after the call counts.
    states = {**file_states(named), **before}
    with _shared_lock:
        _shared[key] = states, market
        _shared.move_to_end(key)
        while len(_shared) > _MOST_SHARED:
            _shared.popitem(last=False)
    return market


def _open(source: str, kwargs: dict[str, Any], *, recorded: bool) -> LabourMarket:
    load = find_loader(source)
    if load is None:
        if others := kwargs.keys() - {"verify"}:
            raise MarketError(f"keywords {sorted(others)} have no meaning for the saved market {source!r}.")
        return LabourMarket.load(source, **kwargs)
    market: LabourMarket = load(**kwargs)
    if not recorded:
        return market
    # A copy gets the spec: a loader may return the object of another source, which must keep its own spec.
    found = object.__new__(type(market))
    found.__dict__.update(market.__dict__, _spec={"source": source, **kwargs} if kwargs else source)
    return found
