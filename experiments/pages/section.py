"""What a section of the report is: its place, what it needs and what it draws."""

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
        header: Names of the columns; the first one is of words.
        rows: Cells, as they are written.
        note: Below it.
        n_agents: The number of rows that are agents; the rows below them are references. ``None``: all rows are agents.
        n_words: The number of first columns that hold words; they are aligned left.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    n_agents: int | None = None
    n_words: int = 1

    def parts(self, most_columns: int) -> list[Table]:
        """Tables of at most ``most_columns`` columns; each has the columns of words, and the last one the note."""
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
        alt: What it shows, in words.
        png: base64 of the PNG file.
    """

    alt: str
    png: str


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a section.

    Attributes:
        words: What there is to know before one looks.
        tables: Shown first.
        figures: Shown behind; ``None`` where a figure has no data.
        heading: In place of the section's title, which stays in the navigation.
        poster: Above all else.
    """

    words: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure | None] = ()
    heading: str = ""
    poster: Poster | None = None

    @property
    def pictures(self) -> list[Figure]:
        """The figures that there is data for."""
        return [figure for figure in self.figures if figure is not None]


@dataclass(frozen=True, slots=True)
class Section(Generic[Found]):
    """A part of the page. A file of :mod:`experiments.pages.sections` declares one under the name ``SECTION``.

    Attributes:
        name: Of its anchor.
        title: Its heading, and what the navigation calls it.
        order: Sections stand by rising order. The project's own sections have multiples of ten, so there is room
            between them.
        needs: Finds what is to be drawn. Where that is nothing (None, False, or empty), the section is in neither page
            nor navigation.
        draw: Makes what stands in it, given what ``needs`` found, and writes its figures into the folder of the data.
        without: A sentence under "What was run" that says why the section is missing; empty says nothing.
        once: Whether it appears once on the page, instead of once for each comparison of runs that are scored on the
            same pairs.
        of_pairs: Whether it is about single recommendations. If so, ``without`` is not written for runs that are scored
            by episodes because answers move the applicant.

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
        """What stands in it; ``None`` where there is nothing to draw. What it needs is found once."""
        found = self.needs(data)
        return self.draw(data, found) if found else None
