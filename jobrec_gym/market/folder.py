"""A market in a folder: ``market.json`` and one ``.npy`` a table, so that each is memory-mapped; no pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market.checks import check_lengths
from jobrec_gym.market.context import ContextTable, Side
from jobrec_gym.market.tables import DESCRIPTION_KEYS, TABLE_KEYS, MarketError, Population, Vocabulary

__all__ = [
    "HEADER",
    "MarketTables",
    "is_empty",
    "is_saved_market",
    "market_folder",
    "read_header",
    "read_tables",
    "write_market",
    "write_tables",
    "write_vectors",
]

_FORMAT = "jobrec-market/2"
HEADER = "market.json"
_TABLES = "tables"
_WRITE_CHUNK = 16_384
_SIDES: tuple[Side, ...] = ("applicants", "jobs")
_WORD_VECTORS = ("title_vectors", "experience_vectors")
_NOTES = ("left_out", "cut")


class MarketTables(Protocol):
    """What is written of a market; a :class:`~jobrec_gym.market.LabourMarket` has it all."""

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


@contextlib.contextmanager
def market_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to write a market into; when the block ends well, it takes the place of ``path``.

    ``path`` appears whole or not at all; an existing market there is replaced.

    Raises:
        MarketError: If ``path`` exists and is neither a saved market nor an empty folder, or is a mount point.
    """
    folder = Path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not is_saved_market(folder) and not is_empty(folder):
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


def write_market(market: MarketTables, path: str | os.PathLike[str], dtype: str | None = None) -> None:
    """Writes a market to a folder, whole or not at all, as :meth:`~jobrec_gym.market.LabourMarket.save` has it."""
    with market_folder(path) as new:
        sums = {}
        for side in _SIDES:
            vectors = getattr(market, side).vectors
            chunks = (vectors[start : start + _WRITE_CHUNK] for start in range(0, len(vectors), _WRITE_CHUNK))
            sums[side] = write_vectors(new / f"{side}.npy", chunks, vectors.shape, dtype or vectors.dtype)
        write_tables(market, new, sums["jobs"])


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
            check_lengths(file.stem, rows, written)
            out.write(rows.data)
            digest.update(rows.data)
            written += len(rows)
    if written != shape[0]:
        raise MarketError(f"`chunks` must have the {shape[0]} rows of `shape`, got {written}.")
    return digest.hexdigest()


def write_tables(
    market: MarketTables, folder: Path, job_vectors_sha256: str, made_from: Mapping[str, Any] | None = None
) -> None:
    """Writes all but the vectors of both sides, see :meth:`~jobrec_gym.market.LabourMarket.write_tables`."""
    described = [side for side in _SIDES if getattr(market, side).descriptions is not None]
    header = {
        "format": _FORMAT,
        "name": market.name,
        "text_blocks": sorted(market.text_blocks),
        "job_vectors_sha256": job_vectors_sha256,
        "made_from": made_from,
        "vocabulary": market.vocabulary.as_lists(),
        **{name: value for name in _NOTES if (value := getattr(market, name))},
        **({"described": described} if described else {}),
        "context": [
            {"name": name, "kind": table.kind, "words": table.words, "shown": table.shown}
            for name, table in market.context.items()
        ],
    }
    (folder / _TABLES).mkdir()
    for side in _SIDES:
        for key, table in getattr(market, side).tables().items():
            np.save(folder / _TABLES / f"{side}-{key}.npy", table, allow_pickle=False)
        for number, context in enumerate(market.context.values()):
            for key, table in context.arrays(side).items():
                np.save(_context_file(folder, number, side, key), table, allow_pickle=False)
    for field in _WORD_VECTORS:
        if getattr(market, field) is not None:
            np.save(folder / f"{field}.npy", getattr(market, field))
    (folder / HEADER).write_text(json.dumps(header, ensure_ascii=False), encoding="utf-8")


def read_tables(folder: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`MarketTables`, by name, memory-mapped from a folder with this header.

    Raises:
        OSError, EOFError, KeyError, TypeError, AttributeError, ValueError: If the folder is not whole.
    """
    tables: dict[str, Any] = {
        side: Population.from_tables(
            _memory_mapped(folder / f"{side}.npy"),
            {
                # Plain views: an entry of a `np.memmap` costs three times that of an array.
                key: _memory_mapped(folder / _TABLES / f"{side}-{key}.npy").view(np.ndarray)
                for key in (*TABLE_KEYS, *DESCRIPTION_KEYS)
                if key in TABLE_KEYS or side in header.get("described", ())
            },
        )
        for side in _SIDES
    }
    for field in _WORD_VECTORS:
        file = folder / f"{field}.npy"
        tables[field] = _memory_mapped(file) if file.is_file() else None
    words = {key: tuple(values) for key, values in header["vocabulary"].items()}
    return tables | {
        "name": header["name"],
        "vocabulary": Vocabulary(**words),
        "text_blocks": frozenset(header["text_blocks"]),
        "context": _read_context(folder, header.get("context", ())),  # earlier markets have none
        **{name: header.get(name, ()) for name in _NOTES},
    }


def read_header(folder: Path) -> dict[str, Any]:
    """What ``market.json`` of a saved market says.

    Raises:
        MarketError: If the folder holds no market of this format.
    """
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        found = header["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MarketError(f"{folder} holds no saved market: {error!r}.") from error
    if found != _FORMAT:
        raise MarketError(f"{folder / HEADER} has format {found!r}, expected {_FORMAT!r}; save the market again.")
    return header


def is_saved_market(path: str | os.PathLike[str]) -> bool:
    """Whether a folder says that it holds a market."""
    return (Path(path) / HEADER).is_file()


def is_empty(folder: Path) -> bool:
    """Whether a folder is there and holds nothing."""
    return folder.is_dir() and not any(folder.iterdir())


def _read_context(folder: Path, fields: Sequence[Mapping[str, Any]]) -> dict[str, ContextTable]:
    found = {}
    for number, field in enumerate(fields):
        sides = {
            side: ContextTable.from_arrays(
                {
                    key: _memory_mapped(_context_file(folder, number, side, key)).view(np.ndarray)
                    for key in ContextTable.array_names(field["kind"])
                }
            )
            for side in _SIDES
        }
        found[field["name"]] = ContextTable(field["kind"], **sides, words=tuple(field["words"]), shown=field["shown"])
    return found


def _context_file(folder: Path, number: int, side: str, key: str) -> Path:
    """By its number: a field's name may hold what no file name may."""
    return folder / _TABLES / f"context-{number}-{side}-{key}.npy"


def _memory_mapped(file: Path) -> NDArray[Any]:
    return np.load(file, mmap_mode="r", allow_pickle=False)
