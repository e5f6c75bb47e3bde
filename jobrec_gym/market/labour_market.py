"""A labour market: applicants and jobs, their vectors and splits, and :func:`load_market`, which finds one again."""

from __future__ import annotations

import copy
import errno
import hashlib
import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

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
    is_saved_market,
    market_files,
    read_header,
    read_tables,
    write_market,
    write_tables,
)
from jobrec_gym.market.keys import find_row
from jobrec_gym.market.sources import MarketSpec, absolute, file_states, find_loader, plain_option
from jobrec_gym.market.summary import summarise
from jobrec_gym.market.tables import MarketError, Population, Profile, Vocabulary, read_only, view
from jobrec_gym.market.vectors import gathered, row_products
from jobrec_gym.market.verified import is_remembered, remember

__all__ = ["LabourMarket", "load_market"]

_WAYS_OUT = {
    errno.EMFILE: "allow more open files, `ulimit -n 4096`, say; a market keeps one open for each of its tables",
    errno.ENFILE: "let other programs close files, or allow more",
    errno.EACCES: "change its rights, or take a copy",
    errno.EPERM: "change its rights, or take a copy",
}
"""What to do where the system does not let a market be read that may well be whole."""


class LabourMarket:
    """Applicants and jobs with their words, vectors and splits; frozen, shared by every environment that uses it.

    Deep copies return the market itself. A market loaded from a path pickles as that path. Tables are not copied: the
    market holds read-only views of them. Do not change them afterwards.

    Args:
        name: A short name.
        applicants: Those who receive recommendations.
        jobs: What can be recommended.
        vocabulary: The words that the tables refer to.
        title_vectors: float (n_titles, block_dim), unit rows; ``None`` if titles are not encoded.
        experience_vectors: float (n_experiences, block_dim), unit rows; ``None`` if not encoded.
        text_blocks: Which of ``("hard", "soft")`` hold free texts instead of lists of skills.
        left_out: Parts of the source that were left out, one phrase each, such as ``"3 of 9 jobs, which have no
            skills"``.
        cut: Parts of the source that were too long to be read whole, likewise.
        context: What is known of both sides beside these, by name, such as their places; see
            :class:`~jobrec_gym.market.context.ContextTable`. Each is a pair feature.
        spec: How :func:`load_market` finds this market again; ``None`` for one made in memory.

    Attributes:
        folder: Where a saved market lies; ``None`` for one in memory.
        job_vectors_sha256: SHA-256 of a saved market's job vectors, computed when they were written. It tells whether
            an index was made from these vectors.

    Raises:
        MarketError: For an empty side, repeated keys, ids without a word, or vectors that are not finite, not of unit
            length or of another size.
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
        if applicants.vectors.shape[1] != jobs.vectors.shape[1]:
            raise MarketError(
                f"`applicants` and `jobs` must have vectors of one size, got {applicants.vectors.shape[1]} and "
                f"{jobs.vectors.shape[1]}: encode both with the same encoder."
            )
        fields = {
            "name": name,
            "applicants": read_only(applicants),
            "jobs": read_only(jobs),
            "vocabulary": vocabulary,
            "title_vectors": None if title_vectors is None else view(title_vectors),
            "experience_vectors": None if experience_vectors is None else view(experience_vectors),
            "text_blocks": frozenset(text_blocks),
            "context": MappingProxyType({name: table.read_only() for name, table in (context or {}).items()}),
            "left_out": tuple(left_out),
            "cut": tuple(cut),
            "folder": None,
            "job_vectors_sha256": None,
            "_spec": spec,
            "_action_features": {},
        }
        for key, value in fields.items():
            object.__setattr__(self, key, value)
        for side, population in (("applicants", applicants), ("jobs", jobs)):
            check_words(side, population, vocabulary)
        check_word_vectors("title_vectors", title_vectors, vocabulary.titles, self.block_dim)
        check_word_vectors("experience_vectors", experience_vectors, vocabulary.experiences, self.block_dim)
        for field, table in self.context.items():
            check_context(field, table, applicants, jobs)

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError(f"a LabourMarket is frozen, `{key}` cannot be set; build a new one.")

    def __deepcopy__(self, memo: dict[int, object]) -> LabourMarket:
        return self

    def __copy__(self) -> LabourMarket:
        return self

    def __reduce__(self) -> tuple[Callable[..., LabourMarket], tuple[Any, ...]]:
        if self._spec is not None:
            return load_market, (self._spec,)
        made = partial(
            LabourMarket,
            title_vectors=self.title_vectors,
            experience_vectors=self.experience_vectors,
            text_blocks=self.text_blocks,
            context=dict(self.context),
            left_out=self.left_out,
            cut=self.cut,
        )
        return made, (self.name, self.applicants, self.jobs, self.vocabulary)

    def __repr__(self) -> str:
        return (
            f"LabourMarket({self.name!r}, applicants={len(self.applicants):,}, jobs={len(self.jobs):,}, "
            f"block_dim={self.block_dim})"
        )

    _spec: MarketSpec | None
    _action_features: dict[tuple[str, ...], NDArray[np.floating]]

    @property
    def spec(self) -> MarketSpec | None:
        """How :func:`load_market` finds this market again; ``None`` for one made in memory, see :meth:`to_spec`."""
        return copy.deepcopy(self._spec)  # the caller's to change; this one is what pickles go by

    @property
    def block_dim(self) -> int:
        """Size of one block of a vector (384 for all-MiniLM-L6-v2)."""
        return self.applicants.vectors.shape[1] // 2

    def applicant(self, applicant: int | str) -> Profile:
        """The words of an applicant, by row or by key.

        Args:
            applicant: An integer is a row, a text is a key, also one that looks like a number: ``"5"`` is not row 5.

        Returns:
            A frozen profile. Its ``id`` is the row; :func:`~jobrec_gym.recommendations.recommend` takes the profile
            itself.

        Raises:
            ValueError: For a row that is not there, an unknown key, or a key of several rows.
            TypeError: For anything but an integer and a text.

        Example:
            >>> market = load_market("default")
            >>> market.applicant(5).key, market.applicant("a6").id  # doctest: +SKIP
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
        context: Mapping[str, Any] | None = None,
        encoder: Any = None,
        cache_dir: str | bool | None = None,
    ) -> LabourMarket:
        """The same jobs for other people, without loading the market again: new people are encoded, jobs are not.

        Args:
            rows: Mappings like the rows of a file of applicants, ``{"key": "p1", "hard": ["SQL"], "seniority": 2}``,
                or such a file, read by its own ending. They take the place of the market's applicants, row 0 is the
                first; all are of the train split.
            columns: Which entry holds what, as in :func:`~jobrec_gym.loaders.tables.load_csv`, like the other
                arguments; ``None``, here and below, is as the market itself was loaded, where that is known.
            text_columns: Which of ``"hard", "soft"`` hold free text.
            skill_separator: What separates skills in a text.
            context: Which entries hold the market's context fields, as in :func:`~jobrec_gym.loaders.tables.load_csv`.
                A field that a row does not have is unknown.
            encoder: That of the jobs, which a saved market does not know: the default one unless given.
            cache_dir: Where vectors are kept between runs; ``False`` keeps none.

        Returns:
            A market in memory. Its applicants have the vectors that they would have had in the file.

        Raises:
            MarketError: For a row that is wrong, or an encoder that is not the one of the jobs.

        Example:
            >>> market = load_market("csv:jobs.csv", applicants="people.csv", encoder="hashing")  # doctest: +SKIP
            >>> market.with_applicants([{"key": "new", "hard": ["SQL", "Python"]}]).applicant("new")  # doctest: +SKIP
        """
        # By its name: what reads and encodes stands above a market.
        newcomers = importlib.import_module("jobrec_gym.loaders.newcomers")
        read = newcomers.newcomers_of(
            self,
            rows,
            columns=columns,
            text_columns=text_columns,
            skill_separator=skill_separator,
            context=context,
            encoder=encoder,
            cache_dir=cache_dir,
        )
        market: LabourMarket = read.on_market()
        return market

    def replaced_applicants(self, applicants: Population, vocabulary: Vocabulary, **tables: Any) -> LabourMarket:
        """The market with other applicants, in memory; the jobs and everything computed from them stay.

        Args:
            applicants: The applicants that replace this market's.
            vocabulary: This market's words, and new words after them.
            **tables: ``title_vectors``, ``experience_vectors`` and ``text_blocks`` of these words, and the ``context``
                of these applicants.
        """
        market = LabourMarket(self.name, applicants, self.jobs, vocabulary, **tables)
        # An index of these jobs is found where it lies.
        object.__setattr__(market, "folder", self.folder)
        object.__setattr__(market, "job_vectors_sha256", self.job_vectors_sha256)
        return market

    def summary(self) -> str:
        """What was understood of the source, in five lines: rows, skills a row, left out, cut, and the first job.

        Example:
            >>> print(load_market("default").summary())  # doctest: +SKIP
        """
        return summarise(self)

    def family_id(self, population: Population, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Family of each of the rows ``ids`` of a side, -1 where unknown; same shape as ``ids``."""
        families = np.append(np.asarray(self.vocabulary.occupation_families, dtype=np.int64), -1)
        return families[population.occupation_ids[ids]]

    def action_features(self, job_fields: Sequence[str] = ()) -> NDArray[np.floating]:
        """Table of job vectors, one row a job.

        Args:
            job_fields: Blocks to append behind ``hard | soft``: ``"title"``, ``"experience"``, in this order of the
                argument.

        Returns:
            float (n_jobs, (2 + len(job_fields)) * block_dim), read-only. The appended blocks have unit length each.

        Raises:
            ValueError: For an unknown field, or one that this market has no vectors of.
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
            float32 (n,); the same to the bit whether a pair is asked alone or in a batch.
        """
        return self.cosine_of(gathered(self.applicants.vectors, applicant_ids), job_ids)

    def cosine_of(self, vectors: NDArray[np.float32], job_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """:meth:`cosine` where the applicants' vectors are at hand already.

        Args:
            vectors: float32 (n, 2 * block_dim), of unit length.
            job_ids: Integers (n,).

        Returns:
            float32 (n,).
        """
        return row_products(vectors, gathered(self.jobs.vectors, job_ids))

    def fingerprint(self) -> str:
        """SHA-256 of everything in the market, as hex: equal for equal words, vectors and context that is shown."""
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
            ValueError: For a market made in memory, which has no place to be found at.
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
        """Writes the market to a folder: ``market.json`` and one ``.npy`` a table, so that each is memory-mapped.

        The folder appears whole or not at all; an existing market there is replaced. No pickle.

        Args:
            path: The folder.
            dtype: ``"float16"`` halves the vectors of applicants and jobs, ``"float32"``; ``None`` keeps theirs.

        Returns:
            The saved market, memory-mapped from the folder.
        """
        write_market(self, path, dtype)
        return self.load(path)

    def write_tables(self, folder: Path, job_vectors_sha256: str, made_from: Mapping[str, Any] | None = None) -> None:
        """Writes all but the vectors of applicants and jobs into a folder where these lie already.

        Args:
            folder: From :func:`~jobrec_gym.market.market_folder`.
            job_vectors_sha256: What :func:`~jobrec_gym.market.write_vectors` returned for ``jobs.npy``.
            made_from: What the market was made from, plain JSON, for a maker that wants to know it again.
        """
        write_tables(self, folder, job_vectors_sha256, made_from)

    @classmethod
    def load(cls, path: str | os.PathLike[str], verify: bool | None = None) -> LabourMarket:
        """Opens a saved market; its tables are memory-mapped, and a million jobs open in a moment.

        Types, offsets and ranges are checked each time. The first time that the files are seen, by their sizes, times
        and inodes, each array is also compared with its digest; that they are whole is then remembered in the cache.

        Args:
            path: The folder.
            verify: True compares digests now; False does not compare them; None compares them unless the cache
                remembers that they were equal.

        Raises:
            MarketError: If the folder holds no market of this format, is not whole, or was changed.
        """
        folder = Path(path).absolute()
        is_saved_market(folder)  # puts back what a kill left beside its place
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
                give_back(array)  # the checks have read what a process may never need
            object.__setattr__(market, "folder", folder)
            object.__setattr__(market, "job_vectors_sha256", header["job_vectors_sha256"])
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
        """Those of the context, too."""
        yield from self._arrays()
        for table in self.context.values():
            for side in ("applicants", "jobs"):
                yield from table.arrays(side).values()

    def _context_of(self, side: Side, row: int) -> dict[str, ContextValue]:
        """What is known and shown of a row beside its skills."""
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


def load_market(source: MarketSpec | os.PathLike[str] | LabourMarket, **kwargs: Any) -> LabourMarket:
    """Opens a market by name, by path or by scheme.

    Args:
        source: ``"default"`` (the generated market over the embedded taxonomy), ``"recorded"`` (a part of it; a
            language model was asked about every pair of it), the folder of a saved market, a file whose ending says
            what it is (``"jobs.csv"``), ``"SCHEME:PATH"`` with a scheme of ``onet, esco, csv, json, jsonl, parquet,
            json-resume, job-posting, dynaq-json``, a dictionary ``{"source": ..., keyword: ...}``, or a market, which
            comes back as it is.
        **kwargs: Keywords of the source, e.g. ``n_jobs=100_000`` or ``split_by="occupation"``; of a saved market
            ``verify``, see :meth:`LabourMarket.load`.

    Returns:
        The market. Equal calls share one object while it is among the last eight and the files that it came from have
        not changed. Paths are recorded as absolute ones.

    Raises:
        MarketError: If there is no such source, or what is there is not a market.
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
        raise MarketError(f"`market` must be a name, a path, a dictionary or a LabourMarket, got {source!r}.")
    text = absolute(os.fspath(source))
    kwargs = {key: plain_option(key, value) for key, value in kwargs.items()}
    try:
        options = json.dumps(kwargs, sort_keys=True)
    except TypeError:  # an object among the keywords, such as an encoder: nothing to find the market by again
        return _open(text, kwargs, recorded=False)
    return _load_cached(text, options, file_states([text, *kwargs.values()]))


@lru_cache(maxsize=8)
def _load_cached(source: str, options: str, files: tuple[Any, ...]) -> LabourMarket:
    return _open(source, json.loads(options), recorded=True)


def _open(source: str, kwargs: dict[str, Any], *, recorded: bool) -> LabourMarket:
    load = find_loader(source)
    if load is None:
        if others := kwargs.keys() - {"verify"}:
            raise MarketError(f"keywords {sorted(others)} have no meaning for the saved market {source!r}.")
        return LabourMarket.load(source, **kwargs)
    market: LabourMarket = load(**kwargs)
    if recorded:
        object.__setattr__(market, "_spec", {"source": source, **kwargs} if kwargs else source)
    return market
