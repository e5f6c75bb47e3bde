"""What readers of documents share: the files of a folder, and a text in place of skills that nobody listed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["describe_instead", "files_of"]

logger = logging.getLogger(__name__)


def files_of(place: Path, endings: Sequence[str]) -> list[Path]:
    """The file itself, or those of a folder with these endings, by name; folders in it are passed over."""
    if not place.is_dir():
        return [place]
    return sorted(file for file in place.iterdir() if file.name.lower().endswith(tuple(endings)) and file.is_file())


def describe_instead(place: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Puts its description, as one free text, in place of the skills of each row that lists none, and says how many."""
    without = [row for row in rows if not row["hard"] and not row.get("soft") and row["description"]]
    for row in without:
        row["hard"] = [row["description"]]
    if without:
        logger.warning(
            "%s: %d of %d list no skills; the description stands in their place, as one free text.",
            *(place, len(without), len(rows)),
        )
