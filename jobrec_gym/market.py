"""The labour market: frozen tables of applicants and jobs, and where they come from."""

from __future__ import annotations

import contextlib
import copy
import difflib
import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCKS",
    "SENIORITY_LEVELS",
    "LabourMarket",
    "MarketError",
    "MarketSpec",
    "Population",
    "Profile",
    "SkillLists",
    "Split",
    "Vocabulary",
    "compose_block",
    "compose_vectors",
    "gathered",
    "is_empty",
    "load_market",
    "market_folder",
    "read_header",
    "register_market_source",
    "row_products",
    "write_vectors",
]

Split = Literal["train", "test", "all"]
MarketSpec = str | dict[str, Any]

BLOCKS = ("hard", "soft")
SENIORITY_LEVELS = ("entry", "junior", "professional", "senior", "lead")
"""Names of seniority 1 to 5."""

_FORMAT = "jobrec-market/2"
_COMPOSE_CHUNK = 1024
_WRITE_CHUNK = 16_384
_CHECKED_BYTES = 1 << 26
_LENGTH_TOLERANCE = 2e-3  # float16 rounds a unit vector to within 5e-4


class MarketError(ValueError):
    """A market could not be built: the message names file, row and column where there is one."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The words of one applicant or one job.

    Attributes:
        key: The source's own identifier.
        title: Current or offered job title; may be empty.
        hard_skills: Skills that one is trained in.
        soft_skills: Skills of character and of working with others.
        seniority: 1 (entry) to 5 (lead), see :data:`SENIORITY_LEVELS`; 0 where the source does not say.
        experience: Experience had or asked for, as a phrase; may be empty.
        occupation: The occupation's name, ``None`` where the source has none.
        family: The occupation's family, ``None`` where the source has none.
    """

    key: str
    title: str
    hard_skills: tuple[str, ...]
    soft_skills: tuple[str, ...]
    seniority: int
    experience: str
    occupation: str | None
    family: str | None


@dataclass(frozen=True, slots=True, eq=False)
class SkillLists:
    """One list of skill ids a row, stored end to end.

    Attributes:
        offsets: int64 (n + 1,), where each row's list begins.
        ids: int32 (total,), indices into the vocabulary, sorted and distinct within a row.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]

    @classmethod
    def from_rows(cls, rows: Iterable[Iterable[int]]) -> SkillLists:
        """Packs an iterable of rows, each an iterable of ids."""
        lists = [sorted(set(row)) for row in rows]
        offsets = np.concatenate(([0], np.cumsum([len(ids) for ids in lists]))).astype(np.int64)
        return cls(offsets, np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=offsets[-1]))

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_], ids: NDArray[np.integer]) -> SkillLists:
        """Packs the entries of a padded (n, width) id table where ``mask`` holds, each id once a row."""
        order = np.argsort(np.where(mask, ids, np.iinfo(np.int32).max), axis=1, kind="stable")
        ids, kept = np.take_along_axis(ids, order, axis=1), np.take_along_axis(mask, order, axis=1)
        kept[:, 1:] &= ids[:, 1:] != ids[:, :-1]
        offsets = np.concatenate(([0], np.cumsum(kept.sum(axis=1), dtype=np.int64)))
        return cls(offsets, ids[kept].astype(np.int32))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """How many skills each of the rows lists."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def flat(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The lists of several rows, end to end.

        Returns:
            For each listed skill the position in ``rows`` that lists it, and the skill's id; both (total,).
        """
        lengths = self.lengths(rows)
        owner = np.repeat(np.arange(len(rows)), lengths)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return owner, self.ids[self.offsets[rows][owner] + within]

    def take(self, rows: NDArray[np.integer]) -> SkillLists:
        """The lists of some rows, in the order of ``rows``."""
        offsets = np.concatenate(([0], np.cumsum(self.lengths(rows)))).astype(np.int64)
        return SkillLists(offsets, self.flat(rows)[1])


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that tables refer to by id.

    Attributes:
        titles: Job titles.
        experiences: Phrases on experience.
        hard_skills: Names of hard skills (a free text counts as one skill).
        soft_skills: Names of soft skills.
        occupations: Names of occupations.
        families: Names of families of occupations.
        occupation_families: For each occupation the id of its family, -1 where unknown.
    """

    titles: tuple[str, ...]
    experiences: tuple[str, ...]
    hard_skills: tuple[str, ...]
    soft_skills: tuple[str, ...]
    occupations: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    occupation_families: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """One side of a market, applicants or jobs; row ``i`` of every table is the same one.

    Attributes:
        keys: (n,) texts, the source's own identifiers, distinct.
        vectors: float (n, 2 * block_dim), ``hard | soft``, unit length.
        title_ids: int32 (n,).
        experience_ids: int32 (n,).
        occupation_ids: int32 (n,), -1 where unknown.
        seniority: int8 (n,), 1 to 5, 0 where unknown.
        hard_skills: Hard skills of each row.
        soft_skills: Soft skills of each row.
        held_out: bool (n,), True for the test split.
    """

    keys: NDArray[np.str_]
    vectors: NDArray[np.floating]
    title_ids: NDArray[np.int32]
    experience_ids: NDArray[np.int32]
    occupation_ids: NDArray[np.int32]
    seniority: NDArray[np.int8]
    hard_skills: SkillLists
    soft_skills: SkillLists
    held_out: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, split: Split = "all") -> NDArray[np.int64]:
        """Ids of a split, ascending."""
        if split not in get_args(Split):
            raise ValueError(f"`split` must be one of {get_args(Split)}, got {split!r}.")
        if split == "all":
            return np.arange(len(self))
        return np.flatnonzero(self.held_out == (split == "test"))

    def take(self, rows: NDArray[np.integer], held_out: NDArray[np.bool_] | None = None) -> Population:
        """Some of the rows, in the order of ``rows``.

        Args:
            rows: Integers (m,), distinct.
            held_out: bool (m,), a split in place of the rows' own.
        """
        taken = {key: getattr(self, key)[rows] for key in _ROW_TABLES}
        if held_out is not None:
            taken["held_out"] = held_out
        hard, soft = self.hard_skills.take(rows), self.soft_skills.take(rows)
        return Population(vectors=self.vectors[rows], hard_skills=hard, soft_skills=soft, **taken)


class LabourMarket:
    """Applicants and jobs with their words, vectors and splits; frozen, shared by every environment that uses it.

    Deep copies return the market itself. A market loaded from a path pickles as that path. Tables are not copied: the
    market sees them read-only, and who made them should leave them alone.

    Args:
        name: A short name.
        applicants: Those who are recommended something.
        jobs: What can be recommended.
        vocabulary: The words that the tables refer to.
        title_vectors: float (n_titles, block_dim), unit rows; ``None`` if titles are not encoded.
        experience_vectors: float (n_experiences, block_dim), unit rows; ``None`` if not encoded.
        text_blocks: Which of ``("hard", "soft")`` hold free texts instead of lists of skills.
        spec: How :func:`load_market` finds this market again; ``None`` for one made in memory.

    Attributes:
        folder: Where a saved market lies; ``None`` for one in memory.
        job_vectors_sha256: SHA-256 of a saved market's job vectors, taken when they were written: what was computed
            from them (an index) is known to be of these.

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
        spec: MarketSpec | None = None,
    ):
        for side, population in (("applicants", applicants), ("jobs", jobs)):
            _check_population(side, population)
        if applicants.vectors.shape[1] != jobs.vectors.shape[1]:
            raise MarketError(
                f"`applicants` and `jobs` must have vectors of one size, got {applicants.vectors.shape[1]} and "
                f"{jobs.vectors.shape[1]}: encode both with the same encoder."
            )
        fields = {
            "name": name,
            "applicants": _read_only(applicants),
            "jobs": _read_only(jobs),
            "vocabulary": vocabulary,
            "title_vectors": None if title_vectors is None else _view(title_vectors),
            "experience_vectors": None if experience_vectors is None else _view(experience_vectors),
            "text_blocks": frozenset(text_blocks),
            "folder": None,
            "job_vectors_sha256": None,
            "_spec": spec,
            "_action_features": {},
        }
        for key, value in fields.items():
            object.__setattr__(self, key, value)
        _check_words(self)

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError(f"a LabourMarket is frozen, `{key}` cannot be set; build a new one.")

    def __deepcopy__(self, memo: dict[int, object]) -> LabourMarket:
        return self

    def __copy__(self) -> LabourMarket:
        return self

    def __reduce__(self) -> tuple[Callable[..., LabourMarket], tuple[Any, ...]]:
        if self._spec is not None:
            return load_market, (self._spec,)
        return _rebuild, tuple(getattr(self, key) for key in _REBUILD_FIELDS)

    def __repr__(self) -> str:
        return (
            f"LabourMarket({self.name!r}, applicants={len(self.applicants):,}, jobs={len(self.jobs):,}, "
            f"block_dim={self.block_dim})"
        )

    _spec: MarketSpec | None
    _action_features: dict[tuple[str, ...], NDArray[np.floating]]

    @property
    def block_dim(self) -> int:
        """Size of one block of a vector (384 for all-MiniLM-L6-v2)."""
        return self.applicants.vectors.shape[1] // 2

    def applicant(self, applicant_id: int) -> Profile:
        """The words of an applicant."""
        return self._profile(self.applicants, int(applicant_id))

    def job(self, job_id: int) -> Profile:
        """The words of a job."""
        return self._profile(self.jobs, int(job_id))

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
        """SHA-256 of everything in the market, as hex: equal for equal words and vectors."""
        digest = hashlib.sha256(json.dumps(_vocabulary_dict(self.vocabulary)).encode())
        for array in _arrays(self):
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
        return copy.deepcopy(self._spec)  # the caller's to change; this one is what pickles go by

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
        with market_folder(path) as new:
            sums = {}
            for side in ("applicants", "jobs"):
                vectors = getattr(self, side).vectors
                chunks = (vectors[start : start + _WRITE_CHUNK] for start in range(0, len(vectors), _WRITE_CHUNK))
                sums[side] = write_vectors(new / f"{side}.npy", chunks, vectors.shape, dtype or vectors.dtype)
            self.write_tables(new, sums["jobs"])
        return self.load(path)

    def write_tables(self, folder: Path, job_vectors_sha256: str, made_from: Mapping[str, Any] | None = None) -> None:
        """Writes all but the vectors of applicants and jobs into a folder where these lie already.

        Args:
            folder: From :func:`market_folder`.
            job_vectors_sha256: What :func:`write_vectors` returned for ``jobs.npy``.
            made_from: What the market was made from, plain JSON, for a maker that wants to know it again.
        """
        header = {
            "format": _FORMAT,
            "name": self.name,
            "text_blocks": sorted(self.text_blocks),
            "job_vectors_sha256": job_vectors_sha256,
            "made_from": made_from,
            "vocabulary": _vocabulary_dict(self.vocabulary),
        }
        (folder / _TABLES).mkdir()
        for side in ("applicants", "jobs"):
            for key, table in _population_tables(getattr(self, side)).items():
                np.save(folder / _TABLES / f"{side}-{key}.npy", table, allow_pickle=False)
        for field in ("title_vectors", "experience_vectors"):
            if getattr(self, field) is not None:
                np.save(folder / f"{field}.npy", getattr(self, field))
        (folder / _HEADER).write_text(json.dumps(header, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LabourMarket:
        """Opens a saved market; its tables are memory-mapped, and a million jobs open in a moment.

        Raises:
            MarketError: If the folder holds no market of this format.
        """
        folder = Path(path).absolute()
        header = read_header(folder)
        try:
            applicants, jobs = (
                _population_from_tables(
                    _memory_mapped(folder / f"{side}.npy"),
                    {
                        # Plain views: an entry of a `np.memmap` costs three times that of an array.
                        key: _memory_mapped(folder / _TABLES / f"{side}-{key}.npy").view(np.ndarray)
                        for key in _TABLE_KEYS
                    },
                )
                for side in ("applicants", "jobs")
            )
            vectors = {
                field: _memory_mapped(path_of)
                for field in ("title_vectors", "experience_vectors")
                if (path_of := folder / f"{field}.npy").is_file()
            }
            market = cls(
                header["name"],
                applicants,
                jobs,
                Vocabulary(**{key: tuple(values) for key, values in header["vocabulary"].items()}),
                title_vectors=vectors.get("title_vectors"),
                experience_vectors=vectors.get("experience_vectors"),
                text_blocks=header["text_blocks"],
                spec=_absolute(os.fspath(path)),
            )
            object.__setattr__(market, "folder", folder)
            object.__setattr__(market, "job_vectors_sha256", header["job_vectors_sha256"])
            return market
        except (OSError, EOFError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise MarketError(f"{folder} is not a whole market: {error!r}; save it again.") from error

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
        )


# -------------------------------------------------------------------------------------------------------------- folders

_HEADER = "market.json"
_TABLES = "tables"


@contextlib.contextmanager
def market_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to write a market into; when the block ends well, it takes the place of ``path``.

    ``path`` appears whole or not at all; an existing market there is replaced.

    Raises:
        MarketError: If ``path`` exists and is neither a saved market nor an empty folder, or is a mount point.
    """
    folder = Path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not (folder / _HEADER).is_file() and not is_empty(folder):
        raise MarketError(f"{folder} exists and is not a saved market; choose another path.")
    if folder.is_mount():
        raise MarketError(f"{folder} is where a file system is mounted, which cannot be replaced; choose a path in it.")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new, old = Path(scratch) / "market", Path(scratch) / "old"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise


def is_empty(folder: Path) -> bool:
    """Whether a folder is there and holds nothing."""
    return folder.is_dir() and not any(folder.iterdir())


def write_vectors(
    file: Path, chunks: Iterable[NDArray[np.floating]], shape: tuple[int, ...], dtype: np.typing.DTypeLike
) -> str:
    """Writes a table of unit rows as it is made, chunk by chunk: no more than a chunk is in memory.

    Args:
        file: Where to, an ``.npy`` file.
        chunks: Consecutive rows, each chunk (any, dim).
        shape: Of the whole table, (n, dim).
        dtype: In which the rows are kept.

    Returns:
        SHA-256 of the table, as hex.

    Raises:
        MarketError: For a row that is not of unit length.
    """
    kind = np.dtype(dtype)
    digest = hashlib.sha256(f"{kind.str}{shape}".encode())
    with file.open("wb") as out:
        header = {"descr": kind.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        written = 0
        for chunk in chunks:
            rows = np.ascontiguousarray(chunk, dtype=kind)
            _check_lengths(file.stem, rows, written)
            out.write(rows.data)
            digest.update(rows.data)
            written += len(rows)
    if written != shape[0]:
        raise MarketError(f"`chunks` must have the {shape[0]} rows of `shape`, got {written}.")
    return digest.hexdigest()


def read_header(folder: Path) -> dict[str, Any]:
    """What ``market.json`` of a saved market says.

    Raises:
        MarketError: If the folder holds no market of this format.
    """
    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        found = header["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MarketError(f"{folder} holds no saved market: {error!r}.") from error
    if found != _FORMAT:
        raise MarketError(f"{folder / _HEADER} has format {found!r}, expected {_FORMAT!r}; save the market again.")
    return header


# -------------------------------------------------------------------------------------------------------------- sources

_SOURCES: dict[str, str] = {
    "default": "jobrec_gym.loaders.generated:load_default",
    "recorded": "jobrec_gym.loaders.recorded:load_recorded",
    "onet": "jobrec_gym.loaders.onet:load_onet",
    "esco": "jobrec_gym.loaders.esco:load_esco",
    "csv": "jobrec_gym.loaders.tables:load_csv",
    "jsonl": "jobrec_gym.loaders.tables:load_jsonl",
    "parquet": "jobrec_gym.loaders.tables:load_parquet",
    "dynaq-json": "jobrec_gym.loaders.dynaq_json:load_dynaq_json",
}
_WITHOUT_PATH = {"default", "recorded"}


def register_market_source(scheme: str, entry_point: str) -> None:
    """Adds a source to :func:`load_market`.

    Args:
        scheme: What stands before the colon in ``load_market("SCHEME:PATH")``, or the whole name for a source without a
            path.
        entry_point: ``"module:function"``, imported when first used. The function takes the path (if there is one) and
            the keywords of :func:`load_market`, and returns a :class:`LabourMarket`.
    """
    _SOURCES[scheme] = entry_point


def load_market(source: MarketSpec | os.PathLike[str] | LabourMarket, **kwargs: Any) -> LabourMarket:
    """Opens a market by name, by path or by scheme.

    Args:
        source: ``"default"`` (the generated market over the embedded taxonomy), ``"recorded"`` (the part of it whose
            every pair was put to a language model), the folder of a saved market,
            ``"SCHEME:PATH"`` with a scheme of ``onet, esco, csv, jsonl, parquet, dynaq-json``, a dictionary
            ``{"source": ..., keyword: ...}``, or a market, which comes back as it is.
        **kwargs: Keywords of the source, e.g. ``n_jobs=100_000`` or ``split_by="occupation"``.

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
    text = _absolute(os.fspath(source))
    kwargs = {key: _plain_option(value) for key, value in kwargs.items()}
    try:
        options = json.dumps(kwargs, sort_keys=True)
    except TypeError:  # an object among the keywords, such as an encoder: nothing to find the market by again
        return _open(text, kwargs, recorded=False)
    return _load_cached(text, options, _files([text, *kwargs.values()]))


@lru_cache(maxsize=8)
def _load_cached(source: str, options: str, files: tuple[Any, ...]) -> LabourMarket:
    return _open(source, json.loads(options), recorded=True)


def _open(source: str, kwargs: dict[str, Any], *, recorded: bool) -> LabourMarket:
    scheme, colon, path = source.partition(":")
    if scheme in _SOURCES and (colon or scheme in _WITHOUT_PATH):
        if colon and not path:
            raise MarketError(f"market {source!r} lacks a path: write '{scheme}:PATH'.")
        module, _, function = _SOURCES[scheme].partition(":")
        load: Callable[..., LabourMarket] = getattr(importlib.import_module(module), function)
        market = load(*([path] if colon else []), **kwargs)
        if recorded:
            object.__setattr__(market, "_spec", {"source": source, **kwargs} if kwargs else source)
        return market
    if (Path(source) / _HEADER).is_file():
        if kwargs:
            raise MarketError(f"keywords {sorted(kwargs)} have no meaning for the saved market {source!r}.")
        return LabourMarket.load(source)
    names = [name if name in _WITHOUT_PATH else f"{name}:PATH" for name in _SOURCES]
    near = difflib.get_close_matches(source if not colon else scheme, list(_SOURCES), n=1)
    hint = f' did you mean "{near[0]}{":" + path if colon else ""}"?' if near else ""
    what = "unknown market scheme" if colon else "unknown market"
    raise MarketError(f'{what} "{source}":{hint} It must be the folder of a saved market or one of {", ".join(names)}.')


def _absolute(source: str) -> str:
    """The source with its path made absolute, so that a worker in another folder finds it too."""
    scheme, colon, path = source.partition(":")
    if colon and scheme in _SOURCES:
        return f"{scheme}:{Path(path).absolute()}" if path else source
    return str(Path(source).absolute()) if Path(source).exists() and source not in _SOURCES else source


def _plain_option(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return str(Path(value).absolute())
    return value.item() if isinstance(value, np.generic) else value


def _files(options: Iterable[Any]) -> tuple[tuple[str, int, int], ...]:
    """State of the files that options name, and of those in the folders that they name: equal while nothing changes."""
    found = []
    for option in options:
        if isinstance(option, str):
            for text in filter(None, (option, option.partition(":")[2])):
                path = Path(text)
                with contextlib.suppress(OSError, ValueError):
                    # A saved market is written whole, so its header speaks for it; an index may join it at any time.
                    saved = (path / _HEADER).is_file()
                    for file in (path / _HEADER,) if saved else (path, *(path.iterdir() if path.is_dir() else ())):
                        state = file.stat()
                        found.append((str(file), state.st_mtime_ns, state.st_size))
    return tuple(sorted(found))


# ---------------------------------------------------------------------------------------------------------- composition


def compose_block(skill_vectors: NDArray[np.floating], skills: SkillLists) -> NDArray[np.float32]:
    """One block of a profile's vector: the unit-scaled mean of its skills' unit vectors.

    Args:
        skill_vectors: float (n_skills, d), unit rows.
        skills: The rows' lists.

    Returns:
        float32 (n, d): unit rows, zero for an empty list.
    """
    skill_vectors = skill_vectors.astype(np.float32, copy=False)
    block = np.empty((len(skills), skill_vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(skills), _COMPOSE_CHUNK):
        rows = np.arange(start, min(start + _COMPOSE_CHUNK, len(skills)))
        lengths = skills.lengths(rows)
        # The longest lists first: those that have another skill are then the first rows, without a search.
        rows = rows[np.argsort(-lengths, kind="stable")]
        sums = np.zeros((len(rows), block.shape[1]), dtype=np.float32)
        # Adds every row's first skill, then every row's second, ...: the same order for a row in any chunk.
        for place in range(int(lengths.max())):
            n_longer = np.count_nonzero(lengths > place)
            sums[:n_longer] += gathered(skill_vectors, skills.ids[skills.offsets[rows[:n_longer]] + place])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        norms[norms == 0] = 1
        sums /= norms
        block[rows] = sums
    return block


def gathered(
    table: NDArray[np.floating], ids: NDArray[np.integer], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Rows (..., d) float32 of a table (n, d) by valid ids (...), new ones or in ``out``."""
    # `take` copies whole rows; indexing with an array is half as fast. Were it to check ids, it would buffer `out`.
    if out is None:
        return np.take(np.asarray(table), ids, axis=0).astype(np.float32, copy=False)
    if table.dtype == out.dtype:
        return np.take(np.asarray(table), ids, axis=0, out=out, mode="clip")
    out[...] = table[ids]
    return out


def row_products(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products (...) of vectors (..., d), broadcast; each the same to the bit in whatever batch it stands."""
    return np.einsum("...j,...j->...", left, right)


def compose_vectors(hard: NDArray[np.float32], soft: NDArray[np.float32]) -> NDArray[np.float32]:
    """Joins two (n, d) blocks to (n, 2 d) and scales each row to unit length; a row of two zero blocks stays zero."""
    joined = np.concatenate([hard, soft], axis=1)
    norms = np.linalg.norm(joined, axis=1, keepdims=True)
    norms[norms == 0] = 1
    joined /= norms
    return joined


# --------------------------------------------------------------------------------------------------------------- tables

_REBUILD_FIELDS = (
    "name",
    "applicants",
    "jobs",
    "vocabulary",
    "title_vectors",
    "experience_vectors",
    "text_blocks",
)
_ROW_TABLES = ("keys", "title_ids", "experience_ids", "occupation_ids", "seniority", "held_out")
_TABLE_KEYS = (*_ROW_TABLES, *(f"{block}_{part}" for block in BLOCKS for part in ("offsets", "ids")))


def _rebuild(
    name: str,
    applicants: Population,
    jobs: Population,
    vocabulary: Vocabulary,
    title_vectors: NDArray[np.floating] | None,
    experience_vectors: NDArray[np.floating] | None,
    text_blocks: frozenset[str],
) -> LabourMarket:
    return LabourMarket(
        name,
        applicants,
        jobs,
        vocabulary,
        title_vectors=title_vectors,
        experience_vectors=experience_vectors,
        text_blocks=text_blocks,
    )


def _vocabulary_dict(vocabulary: Vocabulary) -> dict[str, list[Any]]:
    return {key: list(getattr(vocabulary, key)) for key in Vocabulary.__dataclass_fields__}


def _population_tables(population: Population) -> dict[str, NDArray[Any]]:
    tables = {key: getattr(population, key) for key in _ROW_TABLES}
    for block in BLOCKS:
        skills: SkillLists = getattr(population, f"{block}_skills")
        tables |= {f"{block}_offsets": skills.offsets, f"{block}_ids": skills.ids}
    return tables


def _population_from_tables(vectors: NDArray[np.floating], tables: dict[str, NDArray[Any]]) -> Population:
    hard, soft = (SkillLists(tables[f"{block}_offsets"], tables[f"{block}_ids"]) for block in BLOCKS)
    rows = {key: tables[key] for key in _ROW_TABLES}
    return Population(vectors=vectors, hard_skills=hard, soft_skills=soft, **rows)


def _arrays(market: LabourMarket) -> list[NDArray[Any]]:
    arrays = []
    for population in (market.applicants, market.jobs):
        arrays += [population.vectors, *_population_tables(population).values()]
    return arrays + [table for table in (market.title_vectors, market.experience_vectors) if table is not None]


def _view(table: NDArray[Any]) -> NDArray[Any]:
    view = table.view()
    view.flags.writeable = False
    return view


def _read_only(population: Population) -> Population:
    rows = {key: _view(getattr(population, key)) for key in _ROW_TABLES}
    hard, soft = (
        SkillLists(_view(lists.offsets), _view(lists.ids)) for lists in (population.hard_skills, population.soft_skills)
    )
    return Population(vectors=_view(population.vectors), hard_skills=hard, soft_skills=soft, **rows)


def _memory_mapped(file: Path) -> NDArray[Any]:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _check_population(side: str, population: Population) -> None:
    if not isinstance(population.keys, np.ndarray) or population.keys.dtype.kind != "U":
        raise MarketError(f"`{side}.keys` must be an array of texts, got {population.keys!r:.80}.")
    n = len(population)
    if n == 0:
        raise MarketError(f"`{side}` is empty; a market needs at least one row on each side.")
    if population.vectors.ndim != 2 or population.vectors.shape[1] % 2:
        raise MarketError(f"`{side}` vectors must be (n, 2 * block_dim), got shape {population.vectors.shape}.")
    for key, table in {"vectors": population.vectors, **_population_tables(population)}.items():
        if not key.endswith(("_offsets", "_ids")) or key in _ROW_TABLES:
            if len(table) != n:
                raise MarketError(f"`{side}.{key}` must have one entry for each of the {n} keys, got {len(table)}.")
        elif key.endswith("_offsets") and len(table) != n + 1:
            raise MarketError(f"`{side}.{key}` must have {n + 1} entries for {n} keys, got {len(table)}.")
    if _is_large_and_mapped(population):
        return  # checked when it was saved; reading large tables whole would load them
    keys, counts = np.unique(population.keys, return_counts=True)
    if len(keys) < n:
        raise MarketError(f"`{side}` keys must be distinct, got {str(keys[counts.argmax()])!r} {counts.max()} times.")
    if not ((population.seniority >= 0) & (population.seniority <= 5)).all():
        row = int(np.flatnonzero((population.seniority < 0) | (population.seniority > 5))[0])
        raise MarketError(
            f"`{side}` row {row} has seniority {population.seniority[row]}; it must be 1 to 5, 0 if unknown."
        )
    _check_lengths(side, population.vectors, 0, population.keys)


def _is_large_and_mapped(population: Population) -> bool:
    return isinstance(population.vectors, np.memmap) and population.vectors.nbytes > _CHECKED_BYTES


def _check_lengths(
    side: str, vectors: NDArray[np.floating], first_row: int, keys: NDArray[np.str_] | None = None
) -> None:
    """Each vector has unit length; ``first_row`` is the row of ``vectors[0]``."""
    norms = np.linalg.norm(vectors.astype(np.float32, copy=False), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) < _LENGTH_TOLERANCE))
    if len(bad):
        row = int(bad[0])
        cause = "not finite" if not np.isfinite(norms[row]) else f"of length {norms[row]:.4g}"
        key = "" if keys is None else f" (key {str(keys[row])!r})"
        raise MarketError(
            f"`{side}` row {first_row + row}{key} has a vector that is {cause}; each must have unit "
            "length. A length of 0 means that it has neither hard nor soft skills."
        )


def _check_words(market: LabourMarket) -> None:
    """Every id has a word, and every word that is to be encoded has a vector."""
    words = market.vocabulary
    for side in ("applicants", "jobs"):
        population: Population = getattr(market, side)
        if _is_large_and_mapped(population):
            continue  # as above
        for key, ids, least, names in (
            ("title_ids", population.title_ids, 0, words.titles),
            ("experience_ids", population.experience_ids, 0, words.experiences),
            ("occupation_ids", population.occupation_ids, -1, words.occupations),
            ("hard_skills.ids", population.hard_skills.ids, 0, words.hard_skills),
            ("soft_skills.ids", population.soft_skills.ids, 0, words.soft_skills),
        ):
            if len(ids) and not (least <= ids.min() and ids.max() < len(names)):
                raise MarketError(
                    f"`{side}.{key}` must be in [{least}, {len(names)}), which are the words that the vocabulary has, "
                    f"got {ids.min()} to {ids.max()}."
                )
    for field, names in (("title_vectors", words.titles), ("experience_vectors", words.experiences)):
        vectors = getattr(market, field)
        if vectors is not None:
            if vectors.shape != (len(names), market.block_dim):
                raise MarketError(f"`{field}` must have shape {(len(names), market.block_dim)}, got {vectors.shape}.")
            if not np.isfinite(vectors).all():
                row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
                raise MarketError(f"`{field}` row {row} ({names[row]!r}) is not finite.")
