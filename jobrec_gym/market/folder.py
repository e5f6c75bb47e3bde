"""A market in a folder: ``market.json`` and one ``.npy`` file for each table, which is memory-mapped; no pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.array_files import mapped_array
from jobrec_gym.market.checks import check_lengths
from jobrec_gym.market.context import ContextTable, Side
from jobrec_gym.market.remembered import remembered
from jobrec_gym.market.tables import DESCRIPTION_KEYS, TABLE_KEYS, MarketError, Population, Vocabulary
from jobrec_gym.market.verified import array_digest, remember
from jobrec_gym.paths import place_of
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import read_whole, whole_folder, write_array

__all__ = [
    "HEADER",
    "MarketTables",
    "check_digests",
    "is_saved_market",
    "market_files",
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
    """The parts of a market that are written; a :class:`~jobrec_gym.market.LabourMarket` has them all."""

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

    @property
    def origin(self) -> Any:
        """How the files of the market were read."""


@contextlib.contextmanager
def market_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to write a market into. It takes the place of ``path`` if the ``with`` block raises no error.

    ``path`` appears whole or not at all; an existing market there is replaced. After a kill, the next reader of
    ``path`` finds the old market or the new one, see :func:`is_saved_market`.

    Raises:
        MarketError: If ``path`` exists and is neither a saved market nor an empty folder, or is a mount point.
    """
    folder = place_of(path)
    with whole_folder(folder, is_saved_market, "market", MarketError) as new:
        yield new
        # The writer need not read the market again to know that it is whole.
        if (new / HEADER).is_file():
            remember(folder, market_files(new, read_header(new)))


def write_market(market: MarketTables, path: str | os.PathLike[str], dtype: str | None = None) -> None:
    """Writes a market to a folder, whole or not at all, see :meth:`~jobrec_gym.market.LabourMarket.save`."""
    with market_folder(path) as new:
        sums = {}
        for side in _SIDES:
            vectors = getattr(market, side).vectors
            chunks = (vectors[start : start + _WRITE_CHUNK] for start in range(0, len(vectors), _WRITE_CHUNK))
            sums[side] = write_vectors(new / f"{side}.npy", chunks, vectors.shape, dtype or vectors.dtype)
        write_tables(market, new, sums["jobs"], applicant_vectors_sha256=sums["applicants"])


def write_vectors(
    file: Path, chunks: Iterable[NDArray[np.floating]], shape: tuple[int, ...], dtype: np.typing.DTypeLike
) -> str:
    """Writes a table of unit rows chunk by chunk, with at most one chunk in memory.

    Args:
        file: The ``.npy`` file.
        chunks: Consecutive rows; each chunk is (any, dim).
        shape: Shape of the whole table, (n, dim).
        dtype: Type in which the rows are kept.

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
    market: MarketTables,
    folder: Path,
    job_vectors_sha256: str,
    made_from: Mapping[str, Any] | None = None,
    applicant_vectors_sha256: str | None = None,
) -> None:
    """Writes everything but the vectors of both sides, see :meth:`~jobrec_gym.market.LabourMarket.write_tables`."""
    applicants = applicant_vectors_sha256 or array_digest(mapped_array(folder / "applicants.npy"))
    files = {"applicants.npy": applicants, "jobs.npy": job_vectors_sha256}

    def write(file: Path, table: NDArray[Any]) -> None:
        write_array(file, table)
        files[file.relative_to(folder).as_posix()] = array_digest(table)

    (folder / _TABLES).mkdir()
    for side in _SIDES:
        for key, table in getattr(market, side).tables().items():
            write(folder / _TABLES / f"{side}-{key}.npy", table)
        for number, context in enumerate(market.context.values()):
            for key, table in context.arrays(side).items():
                write(_context_file(folder, number, side, key), table)
    for field in _WORD_VECTORS:
        if getattr(market, field) is not None:
            write(folder / f"{field}.npy", getattr(market, field))
    described = [side for side in _SIDES if getattr(market, side).descriptions is not None]
    header = {
        "format": _FORMAT,
        "written_by": written_by(),
        "files": files,
        "name": market.name,
        "text_blocks": sorted(market.text_blocks),
        "job_vectors_sha256": job_vectors_sha256,
        "made_from": made_from,
        "vocabulary": market.vocabulary.as_lists(),
        **{name: value for name in _NOTES if (value := getattr(market, name))},
        **({"described": described} if described else {}),
        **({"read_with": read_with} if (read_with := remembered(market.origin)) else {}),
        "context": [
            {"name": name, "kind": table.kind, "words": table.words, "shown": table.shown}
            for name, table in market.context.items()
        ],
    }
    text = json.dumps(header, ensure_ascii=False).encode()
    # The digest comes first in the file. So it can be checked against the rest without writing JSON again.
    (folder / HEADER).write_bytes(_digest_of(text) + text[1:])


def read_tables(folder: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`MarketTables`, by name, memory-mapped from a folder with this header.

    Raises:
        OSError, EOFError, KeyError, TypeError, AttributeError, ValueError: If the folder is not whole.
    """
    tables: dict[str, Any] = {
        side: Population.from_tables(
            mapped_array(folder / f"{side}.npy"),
            {
                # Plain views: reading an entry of a `np.memmap` takes three times as long as one of an array.
                key: mapped_array(folder / _TABLES / f"{side}-{key}.npy").view(np.ndarray)
                for key in (*TABLE_KEYS, *DESCRIPTION_KEYS)
                if key in TABLE_KEYS or side in header.get("described", ())
            },
        )
        for side in _SIDES
    }
    listed = header.get("files")  # markets of earlier releases have no digests
    for field in _WORD_VECTORS:
        file = folder / f"{field}.npy"
        is_there = file.is_file() if listed is None else file.name in listed
        tables[field] = mapped_array(file) if is_there else None
    if strange := [key for key, values in header["vocabulary"].items() if not isinstance(values, list)]:
        raise ValueError(f"`vocabulary.{strange[0]:.80}` must be a list")
    words = {key: tuple(values) for key, values in header["vocabulary"].items()}
    return tables | {
        "name": header["name"],
        "vocabulary": Vocabulary(**words),
        "text_blocks": frozenset(header["text_blocks"]),
        "context": _read_context(folder, header.get("context", ())),  # earlier releases wrote none
        **{name: header.get(name, ()) for name in _NOTES},
    }


def read_header(folder: Path) -> dict[str, Any]:
    """The content of a saved market's ``market.json``.

    Raises:
        MarketError: If the folder holds no market of this format, or the file was changed.
    """
    try:
        text = (folder / HEADER).read_bytes()
        header: dict[str, Any] = json.loads(text)
        found = header["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MarketError(f"{folder} holds no saved market: {error!r:.200}.") from error
    if found != _FORMAT:
        raise MarketError(
            f"{folder / HEADER} has format {found!r:.40}, expected {_FORMAT!r}: make and save the market again, or "
            f"open it with the version that wrote it ({header.get('written_by', 'not said')!s:.40})."
        )
    names = header.get("files", {})
    if not (isinstance(names, dict) and isinstance(header.get("name"), str)) or any(
        name.startswith(("/", "\\")) or ".." in name for name in names
    ):
        raise MarketError(
            f"{folder / HEADER} names files outside of its folder, or describes no market; save the market again."
        )
    beginning = len(_digest_of(b"{"))
    if "sha256" in header and text[:beginning] != _digest_of(b"{" + text[beginning:]):
        raise MarketError(
            f"{folder / HEADER} was changed after it was written; save the market again, or use an unchanged copy."
        )
    return header


def market_files(folder: Path, header: Mapping[str, Any]) -> list[Path]:
    """All files of a saved market, ``market.json`` first."""
    listed = header.get("files")
    if listed is None:
        names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.npy"))
    else:
        names = [str(name) for name in listed]
    return [folder / HEADER, *(folder / name for name in names)]


def check_digests(folder: Path, header: Mapping[str, Any]) -> None:
    """Checks that every array is the one that was written.

    Raises:
        MarketError: If an array differs, or if the market was written by a release without digests.
        OSError, ValueError: If an array cannot be read.
    """
    listed = header.get("files")
    if listed is None:
        raise MarketError(f"{folder} was saved before markets had digests, so it cannot be verified; save it again.")
    for name, sha256 in listed.items():
        if array_digest(mapped_array(folder / name)) != sha256:
            raise MarketError(
                f"{folder / name} was changed after it was written; save the market again, or use an unchanged copy. "
                "`LabourMarket.load(path, verify=False)` opens it all the same."
            )


def is_saved_market(path: str | os.PathLike[str]) -> bool:
    """Whether a folder says that it holds a market.

    If a process was killed while it replaced the market, the market that it left beside the folder is put back first.
    """
    return read_whole(path, (place_of(path) / HEADER).is_file, MarketError)


def _read_context(folder: Path, fields: Sequence[Mapping[str, Any]]) -> dict[str, ContextTable]:
    found = {}
    for number, field in enumerate(fields):
        sides = {
            side: ContextTable.from_arrays(
                {
                    key: mapped_array(_context_file(folder, number, side, key)).view(np.ndarray)
                    for key in ContextTable.array_names(field["kind"])
                }
            )
            for side in _SIDES
        }
        found[field["name"]] = ContextTable(field["kind"], **sides, words=tuple(field["words"]), shown=field["shown"])
    return found


def _context_file(folder: Path, number: int, side: str, key: str) -> Path:
    """File of a field of the context. It is named by number, because a field's name may not fit into a file name."""
    return folder / _TABLES / f"context-{number}-{side}-{key}.npy"


def _digest_of(text: bytes) -> bytes:
    """What replaces the opening bracket of a header: a bracket, and the digest of all text after the bracket."""
    return b'{"sha256": "' + hashlib.sha256(text[1:]).hexdigest().encode() + b'", '
