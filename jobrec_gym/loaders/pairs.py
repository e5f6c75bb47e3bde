"""Reads a file of pairs of a person and a job, such as who has applied for what."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.interactions import LogError
from jobrec_gym.loaders.log_cells import BadCell, BadRows, columns_of, find_of, found_row
from jobrec_gym.loaders.reading import Reading, read_table
from jobrec_gym.market.keys import near_key
from jobrec_gym.near_miss import with_known_keywords
from jobrec_gym.paths import what_came

__all__ = ["PAIR_FIELDS", "OnUnknown", "read_pairs"]

logger = logging.getLogger(__name__)

PAIR_FIELDS = ("applicant", "job")
"""The fields of a row. If a file has no column of that name, its column ``applicant_key`` or ``job_key`` is read, as in
the files that ``experiments.rank`` writes."""

OnUnknown = Literal["raise", "skip"]
_UNKNOWN = {"applicant": "unknown person", "job": "unknown job"}


@with_known_keywords
def read_pairs(
    source: str | os.PathLike[str],
    people: NDArray[np.str_],
    jobs: NDArray[np.str_],
    columns: Mapping[str, str] | None = None,
    *,
    on_unknown: OnUnknown = "raise",
    delimiter: str | None = None,
    encoding: str | None = None,
) -> dict[str, NDArray[np.int64]]:
    """The jobs that a file pairs with each person. A row is one pair; its other columns are ignored.

    Args:
        source: A file of CSV, JSON or Parquet, read by its scheme or ending.
        people: Keys of the people who may be named, (n_people,).
        jobs: Keys of the jobs that may be named, (n_jobs,).
        columns: Which column holds which of :data:`PAIR_FIELDS`; by default each is named like its field.
        on_unknown: Whether rows whose person or job is not among these keys raise an error, or are left out and counted
            in a log line.
        delimiter: The character that separates cells of CSV; by default it is found.
        encoding: Encoding of text; by default UTF-8, or the one of a byte order mark.

    Returns:
        For the key of each person in the file the rows of the jobs, ascending and distinct.

    Raises:
        LogError: For a missing column, or unknown people and jobs. The message counts rows and names the first ones.
        MarketError: For a file that cannot be read.
    """
    if on_unknown not in get_args(OnUnknown):
        raise LogError(f"`on_unknown` must be one of {get_args(OnUnknown)}, got {on_unknown!r:.80}.")
    if not isinstance(source, str | os.PathLike):
        raise LogError(f"`source` must be a file, got {what_came(source)}.")
    table = read_table(source, Reading(delimiter, encoding))
    as_ranked = {
        name: f"{name}_key" for name in PAIR_FIELDS if name not in table.header and f"{name}_key" in table.header
    }
    names = columns_of(table, as_ranked if columns is None else columns, PAIR_FIELDS, PAIR_FIELDS)
    keys = {"applicant": people, "job": jobs}
    places = {name: {key: row for row, key in enumerate(keys[name].tolist())} for name in PAIR_FIELDS}
    find = find_of("key")
    found: dict[int, set[int]] = {}
    bad, n_rows = BadRows(), 0
    for number, cells in table.filled():
        n_rows += 1
        try:
            person, job = (found_row(find, places[name], cells.get(names[name]), _UNKNOWN[name]) for name in names)
        except BadCell as error:
            bad.add(error.kind, number, error.cell)
            continue
        found.setdefault(person, set()).add(job)
    if bad.n:
        said = f"{table.file}: {sum(bad.n.values()):,} of {n_rows:,} rows name an unknown person or job: {bad.text()}."
        if on_unknown == "raise":
            first = {name: str(bad.cells[kind]).strip() for name, kind in _UNKNOWN.items() if kind in bad.n}
            near = {key: near_key(keys[name], key) for name, key in first.items()}
            hints = [f" For {key!r:.60}, did you mean {meant!r:.60}?" for key, meant in near.items() if meant]
            raise LogError(
                f"{said}{''.join(hints)} A file of what people did often names people and jobs that are gone. If that "
                "is the reason, `on_unknown='skip'` leaves such rows out and counts them."
            )
        logger.warning("%s They were left out%s.", said, "" if found else ", and no row remains")
    return {str(people[person]): np.array(sorted(of), dtype=np.int64) for person, of in found.items()}
