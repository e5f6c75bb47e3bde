"""A section of the report: its place, the data it needs, and the content it draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

from experiments.pages.data import ReportData
from experiments.pages.plots import Figure

__all__ = ["Content", "Poster", "Section", "Table"]

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page.

    Attributes:
        header: Names of the columns; the first column holds words.
        rows: Cells as texts.
        note: Text below the table.
        n_agents: The number of rows that are agents; the rows below them are references. ``None``: all rows are agents.
        n_words: How many of the first columns hold words; they are aligned left.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    n_agents: int | None = None
    n_words: int = 1

    def parts(self, most_columns: int) -> list[Table]:
        """The table as parts of at most ``most_columns`` columns.

        Each part has the columns of words. The last part has the note.
        """
        numbers = range(self.n_words, len(self.header))
        room = max(1, most_columns - self.n_words)
        if len(numbers) <= room:
            return [self]
        parts = []
        for start in range(0, len(numbers), room):
            columns = [*range(self.n_words), *numbers[start : start + room]]
            parts.append(
                replace(
                    self,
                    header=[self.header[column] for column in columns],
                    rows=[[row[column] for column in columns] for row in self.rows],
                    note="",
                )
            )
        parts[-1] = replace(parts[-1], note=self.note)
        return parts


class Poster(NamedTuple):
    """A picture as wide as the page.

    Attributes:
        alt: A description in words, for screen readers.
        png: base64 of the PNG file.
    """

    alt: str
    png: str


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a section.

    Attributes:
        words: An introduction.
        tables: The tables, which stand first.
        figures: The figures, which stand after the tables; ``None`` for a figure without data.
        heading: A heading that replaces the section's title, which stays in the navigation.
        poster: A picture above all else.
    """

    words: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure | None] = ()
    heading: str = ""
    poster: Poster | None = None

    @property
    def pictures(self) -> list[Figure]:
        """The figures that have data."""
        return [figure for figure in self.figures if figure is not None]


@dataclass(frozen=True, slots=True)
class Section(Generic[Found]):
    """A part of the page. A file of :mod:`experiments.pages.sections` declares one under the name ``SECTION``.

    Attributes:
        name: Name of its anchor.
        title: Its heading, and its name in the navigation.
        order: Sections stand in ascending order. The project's own sections leave room between their numbers.
        needs: Function that finds the data to draw. If it finds nothing (None, False, or empty), the section is left
            out of the page and of the navigation.
        draw: Function that makes the content from what ``needs`` found, and writes figures into the folder of the data.
        without: A sentence under "What was run" that says why the section is missing; empty for none.
        once: Whether it appears once on the page, instead of once for each comparison of runs that are scored on the
            same pairs.
        of_pairs: Whether it is about single recommendations. If so, ``without`` is not written for runs that are scored
            by episodes because answers change the applicant.

    Example:
        >>> from experiments.pages.data import has_values
        >>> def draw(data, found):
        ...     return Content("Seconds since the run began.", figures=[...])
        >>> section = Section("time", "Time", 15, lambda data: has_values(data.metrics, "seconds"), draw)
    """

    name: str
    title: str
    order: int
    needs: Callable[[ReportData], Found | None]
    draw: Callable[[ReportData, Found], Content]
    without: str = ""
    once: bool = False
    of_pairs: bool = False

    def content(self, data: ReportData) -> Content | None:
        """The content of the section; ``None`` if there is nothing to draw. ``needs`` is called once."""
        found = self.needs(data)
        return self.draw(data, found) if found else None
