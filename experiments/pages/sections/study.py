"""The cold start: results of the study that made these runs."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from experiments.pages.data import ReportData
from experiments.pages.section import Content, Poster, Section, Table
from experiments.runs.folders import COLDSTART, COLDSTART_FIGURE, RunError, read_json

__all__ = ["SECTION", "read_study"]


def read_study(folder: Path) -> dict[str, Any] | None:
    """The results that ``experiments.coldstart`` or ``experiments.demo`` wrote into a folder of runs.

    Returns:
        ``name``, ``in_words``, ``png`` (base64), and for a whole study ``tables``, each with ``header`` and ``rows``.
        ``None`` if neither command wrote any.

    Raises:
        RunError: If the file is not whole, or was changed.
    """
    file = folder / COLDSTART
    if not file.is_file():
        return None
    study = read_json(file, "Make it anew, or remove it and have the page without it.")
    figure = folder / str(study.get("figure", COLDSTART_FIGURE))
    if figure.parent != folder:
        raise RunError(f"{file}: `figure` must be the name of a file beside it, got {figure!s:.80}.")
    return {**study, "png": base64.b64encode(figure.read_bytes()).decode()} if figure.is_file() else None


def _tables(data: ReportData) -> list[dict[str, Any]]:
    """The tables of a whole study. The folder of a single setting has numbers, but no tables."""
    tables: list[dict[str, Any]] = data.study.get("tables", [])
    return tables


def _draw(data: ReportData, tables: list[dict[str, Any]]) -> Content:
    return Content(
        heading=f"The cold start: {data.study['name']}",
        poster=Poster("Scores of each learner", data.study["png"]),
        tables=[
            Table(table["header"], table["rows"], "" if number else data.study["in_words"])
            for number, table in enumerate(tables)
        ],
    )


SECTION = Section("study", "The cold start", 0, needs=_tables, draw=_draw, once=True)
