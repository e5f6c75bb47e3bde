"""The JSON that the note's Dyna-Q notebook exports from MongoDB: texts and vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.loaders.assembly import BlockVectors, Record, SplitBy, assemble_market, check_text
from jobrec_gym.loaders.reading import Reading, json_rows
from jobrec_gym.market import LabourMarket, MarketError
from jobrec_gym.near_miss import with_known_keywords
from jobrec_gym.paths import place_of

__all__ = ["COLLECTIONS", "load_dynaq_json"]

COLLECTIONS = ("jobs_text", "job_embeddings", "candidates_text", "candidates_embeddings")
"""The four files: ``NAME.json`` or ``NAME.jsonl``, also with a database's name before it (``db.jobs_text.json``)."""

_SUFFIXES = (".json", ".jsonl", ".ndjson")
_JOB_REFERENCE, _CANDIDATE_REFERENCE = "original_job_id", "original_candidate_id"


@with_known_keywords
def load_dynaq_json(
    path: str | os.PathLike[str],
    *,
    files: Mapping[str, str] | None = None,
    test_fraction: float = 0.3,
    split_by: SplitBy = "row",
    seed: int = 0,
) -> LabourMarket:
    """A market from the export's four collections, each a JSON array or JSON lines; nothing is encoded.

    * A text and its vectors are joined by id: ``_id`` of the text and ``original_job_id`` or ``original_candidate_id``
      of the vectors. If a text has no ``_id``, its ``id`` is taken, or else its own ``original_job_id`` or
      ``original_candidate_id``. ``{"$oid": "..."}`` is read as the text in it.
    * A job has a title, technical skills (hard), soft skills (soft) and experience requirements. ``description`` has
      no vector and is left out.
    * An applicant has skills (hard), a bio (soft) and experience. The bio is a free text, because the export has no
      list of a candidate's soft skills.
    * A vector field may hold one vector, or a list of vectors, which is read as their unit-scaled mean. Blocks are
      scaled to unit length; an empty list or a zero vector is an empty block. Vectors of titles and experience are
      those of the jobs. The export has no vectors of applicants' experience; these are zero.

    Args:
        path: The folder that holds the files.
        files: Names of files in the folder, by collection, if they have other names.
        test_fraction: Share of the rows of each side that is held out.
        split_by: ``"row"``; the export has no occupations.
        seed: Seed of the choice of held-out rows.

    Raises:
        MarketError: For a missing file or field, a text without vectors or vectors without a text, a repeated id, or a
            vector that is not finite or of another size than the first. The message names file, row (1 is the first
            document) and field.
    """
    folder = place_of(path)
    if not folder.is_dir():
        raise MarketError(
            f"{folder} is no folder; give the one that holds {', '.join(f'{name}.json' for name in COLLECTIONS)}."
        )
    for name in files or {}:
        if name not in COLLECTIONS:
            raise MarketError(f"`files` may name {COLLECTIONS}, got {name!r}.")
    documents = {name: _read(_find(folder, name, (files or {}).get(name))) for name in COLLECTIONS}
    expected: list[tuple[int, str]] = []
    job_pairs = _join(documents["jobs_text"], documents["job_embeddings"], _JOB_REFERENCE)
    candidate_pairs = _join(documents["candidates_text"], documents["candidates_embeddings"], _CANDIDATE_REFERENCE)

    jobs: list[Record] = []
    titles: dict[str, NDArray[np.float32]] = {}
    experiences: dict[str, NDArray[np.float32]] = {}
    for key, text, vectors in job_pairs:
        record = Record(
            key=key,
            title=text.text("job_title"),
            hard=text.texts("technical_skills"),
            soft=text.texts("soft_skills"),
            experience="; ".join(text.texts("experience_requirements")),
            where=text.where,
        )
        jobs.append(record)
        for known, word, field in (
            (titles, record.title, "job_title_embeddings"),
            (experiences, record.experience, "experience_requirements_embeddings"),
        ):
            vector = vectors.vector(field, expected, required=False)
            if word and vector is not None and vector.any():
                known.setdefault(word, vector)
    applicants = [
        Record(
            key=key,
            hard=text.texts("skills"),
            soft=text.text("bio"),
            experience="; ".join(text.texts("experience")),
            where=text.where,
        )
        for key, text, _ in candidate_pairs
    ]
    return assemble_market(
        f"dynaq-json:{folder.name}",
        applicants,
        jobs,
        applicant_vectors=BlockVectors(
            _stack(candidate_pairs, "hard_skill_embeddings", expected),
            _stack(candidate_pairs, "soft_skill_embeddings", expected),
        ),
        job_vectors=BlockVectors(
            _stack(job_pairs, "tech_skills_vectors", expected), _stack(job_pairs, "soft_skills_embeddings", expected)
        ),
        title_vectors=titles,
        experience_vectors=experiences,
        test_fraction=test_fraction,
        split_by=split_by,
        seed=seed,
    )


class _Document:
    """One document of a collection, and its place for messages."""

    def __init__(self, where: str, fields: Mapping[str, Any]):
        self.where = where
        self.fields = fields

    def text(self, field: str) -> str:
        value = self.fields.get(field)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise MarketError(f"{self.where}, field {field!r}: must be a text, got {value!r:.80}.")
        check_text(value, f"{self.where}, field {field!r}")
        return value.strip()

    def texts(self, field: str) -> tuple[str, ...]:
        value = self.fields.get(field)
        if value is None:
            return ()
        found = [_as_text(entry) for entry in (value if isinstance(value, list) else [value])]
        if None in found:
            raise MarketError(f"{self.where}, field {field!r}: must list texts, got {value!r:.80}.")
        texts = tuple(text for text in found if text)
        for text in texts:
            check_text(text, f"{self.where}, field {field!r}")
        return texts

    def id(self, *names: str) -> str:
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, dict) and len(value) == 1:  # {"$oid": "..."} and similar ones
                value = next(iter(value.values()))
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
                check_text(str(value), f"{self.where}, field {name!r}")
                return str(value)
        raise MarketError(f"{self.where}: has no id in field {' or '.join(map(repr, names))}.")

    def vector(
        self, field: str, expected: list[tuple[int, str]], *, required: bool = True
    ) -> NDArray[np.float32] | None:
        """The field as one unit vector, zero if empty; the first vector that is read sets the expected size."""
        value = self.fields.get(field)
        place = f"{self.where}, field {field!r}"
        if value is None:
            if required:
                raise MarketError(f"{place}: is missing.")
            return None
        try:
            table = np.asarray(_numbers(value), dtype=np.float64)
        except (TypeError, ValueError, OverflowError, RecursionError):
            raise MarketError(
                f"{place}: must be a vector or a list of vectors of one size, got {value!r:.80}."
            ) from None
        if table.size == 0:
            return np.zeros(expected[0][0] if expected else 0, dtype=np.float32)
        if table.ndim not in (1, 2):
            raise MarketError(f"{place}: must be a vector or a list of vectors, got shape {table.shape}.")
        if not np.isfinite(table).all():
            raise MarketError(f"{place}: holds a number that is not finite.")
        if not expected:
            expected.append((table.shape[-1], place))
        if table.shape[-1] != expected[0][0]:
            raise MarketError(f"{place}: has {table.shape[-1]} dimensions, but {expected[0][1]} has {expected[0][0]}.")
        if table.ndim == 2:
            norms = np.linalg.norm(table, axis=1, keepdims=True)
            table = (table / np.where(norms == 0, 1, norms)).sum(axis=0)
        norm = np.linalg.norm(table)
        return (table / (norm if norm > 0 else 1)).astype(np.float32)


def _find(folder: Path, collection: str, name: str | None) -> Path:
    if name is not None:
        file = folder / name
        if not file.is_file():
            raise MarketError(f"{file} does not exist.")
        return file
    found = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix in _SUFFIXES and (file.stem == collection or file.stem.endswith(f".{collection}"))
    ]
    if len(found) != 1:
        raise MarketError(
            f"{folder} must hold one file {collection}.json, found {[file.name for file in found] or 'none'}; "
            f"or name it: `files={{{collection!r}: ...}}`."
        )
    return found[0]


def _read(file: Path) -> list[_Document]:
    rows = list(json_rows(file, Reading()))
    if not rows:
        raise MarketError(f"{file} has no rows.")
    for number, row in rows:
        if not isinstance(row, dict):
            raise MarketError(f"{file}, row {number}: must be a JSON object, got {type(row).__name__}.")
    return [_Document(f"{file}, row {number}", row) for number, row in rows]


def _join(
    texts: Sequence[_Document], vectors: Sequence[_Document], reference: str
) -> list[tuple[str, _Document, _Document]]:
    by_id: dict[str, _Document] = {}
    for document in vectors:
        key = document.id(reference)
        if (other := by_id.setdefault(key, document)) is not document:
            raise MarketError(f"{reference} {key!r:.80} appears twice: in {other.where} and in {document.where}.")
    pairs: dict[str, tuple[str, _Document, _Document]] = {}
    for document in texts:
        key = document.id("_id", "id", reference)
        if key in pairs:
            raise MarketError(f"id {key!r:.80} appears twice: in {pairs[key][1].where} and in {document.where}.")
        if key not in by_id:
            raise MarketError(f"{document.where}: no vectors have {reference} {key!r:.80}.")
        pairs[key] = (key, document, by_id[key])
    for key, document in by_id.items():
        if key not in pairs:
            raise MarketError(f"{document.where}, field {reference!r}: {key!r:.80} is the id of no text.")
    return list(pairs.values())


def _stack(
    pairs: Sequence[tuple[str, _Document, _Document]], field: str, expected: list[tuple[int, str]]
) -> NDArray[np.float32]:
    found = [document.vector(field, expected) for _, _, document in pairs]
    dim = expected[0][0] if expected else 0
    # An empty list that was read before the first vector became an array of size 0, since the size was not yet known.
    return np.stack([vector if vector is not None and vector.size else np.zeros(dim, np.float32) for vector in found])


def _as_text(entry: Any) -> str | None:
    if isinstance(entry, dict):  # e.g. {"title": ..., "company": ...}
        entry = ", ".join(str(value) for value in entry.values() if isinstance(value, str | int | float))
    return entry.strip() if isinstance(entry, str) else None


def _numbers(value: Any) -> Any:
    """Nested lists with the database's typed numbers, ``{"$numberDouble": "0.5"}``, as plain ones."""
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    if isinstance(value, dict) and len(value) == 1:
        return float(next(iter(value.values())))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return value
