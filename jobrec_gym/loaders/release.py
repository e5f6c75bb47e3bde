"""Tables of an official release, a zip archive or a folder: finds files and columns by name."""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path, PurePath
from typing import Any, ParamSpec, TypeVar

from jobrec_gym.loaders.files import DEFAULT_MAX_BYTES, encoding_of, files_in, open_bytes, open_member
from jobrec_gym.market import MarketError
from jobrec_gym.near_miss import best_match
from jobrec_gym.paths import place_of

__all__ = ["Release", "no_such_column", "of_a_release"]

_MOST_NAMED = 40  # the most columns that a message names

P = ParamSpec("P")
T = TypeVar("T")


class Release:
    """A release's files, wherever in the archive or folder they lie.

    If two files have the same name, neither can be read.

    Args:
        path: A zip archive or a folder.

    Raises:
        MarketError: If ``path`` is neither.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = place_of(path)
        if self.path.is_dir():
            found = [str(file) for file in sorted(self.path.rglob("*")) if file.is_file()]
        elif self.path.is_file():
            try:
                with zipfile.ZipFile(self.path) as archive:
                    found = files_in(archive)
            except (zipfile.BadZipFile, OSError) as error:
                raise MarketError(f"{self.path} is neither a zip archive nor a folder: {error}.") from error
        else:
            raise MarketError(
                f"{self.path} does not exist; give the zip archive of the release or its unpacked folder."
            )
        self._files: dict[str, list[str]] = {}
        for name in found:
            self._files.setdefault(PurePath(name).name.casefold(), []).append(name)

    def __contains__(self, file: str) -> bool:
        return file.casefold() in self._files

    def near(self, file: str) -> str:
        """The hint in a message on a missing file: ``(there is 'Skill.txt')``, or nothing if no name is similar."""
        # "Software Skills.txt" is not a misspelt "Skills.txt"; their similarity is .69.
        near = difflib.get_close_matches(file.casefold(), list(self._files), n=1, cutoff=0.8)
        return f" (there is {PurePath(self._files[near[0]][0]).name!r})" if near else ""

    def named(self, pattern: str) -> list[str]:
        """Sorted names of files, without folders, that a regular expression matches as a whole, ignoring case."""
        names = {PurePath(found[0]).name for found in self._files.values()}
        return sorted(name for name in names if re.fullmatch(pattern, name, re.IGNORECASE))

    def rows(
        self,
        file: str,
        columns: Sequence[str],
        *,
        also_called: Mapping[str, str] | None = None,
        optional: Sequence[str] = (),
        delimiter: str = ",",
        quoted: bool = True,
    ) -> list[dict[str, str]]:
        """Reads some columns of a table. The encoding is UTF-8, or that of a byte order mark.

        Texts are returned in Unicode's normal form C.

        Args:
            file: Name of the file, without folders.
            columns: Which columns to read; others are left out.
            also_called: Other names of some of ``columns``, which other releases use. They are tried if a name of
                ``columns`` is missing. The returned rows use the name of ``columns`` in each case.
            optional: Which of ``columns`` may be missing; their cells are then empty.
            delimiter: The text that separates cells.
            quoted: True if quotation marks enclose cells, False if they are text.

        Returns:
            One dictionary for each row, at least one.

        Raises:
            MarketError: For a file that is missing or exists twice, a missing column, an empty table, or a row that
                lacks cells; the message names file, row (1 is the first below the header) and column.
        """
        if file not in self:
            raise MarketError(f"{self.path} lacks the file {file!r}{self.near(file)}.")
        if len(same_name := self._files[file.casefold()]) > 1:
            raise MarketError(
                f"{self.path} has {len(same_name)} files {file!r}, which may be of two releases: "
                f"{' and '.join(map(repr, same_name))}. Keep one."
            )
        reader = csv.reader(
            io.StringIO(self._text(file), newline=""),
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        )
        try:
            header = next(reader, [])
            places = {}
            for column in columns:
                name = column if column in header else (also_called or {}).get(column, column)
                if name in header:
                    places[column] = header.index(name)
                elif column not in optional:
                    raise MarketError(no_such_column(file, column, header))
            last, missing = max(places.values(), default=-1), dict.fromkeys(columns, "")
            rows = []
            for number, cells in enumerate(reader, start=1):
                if not cells:
                    continue
                if len(cells) <= last:
                    raise MarketError(f"{file}, row {number}: {len(cells)} cells, expected {len(header)}.")
                rows.append({**missing, **{column: cells[place] for column, place in places.items()}})
        except csv.Error as error:
            raise MarketError(f"{file}, line {reader.line_num}: {error}.") from error
        if not rows:
            raise MarketError(f"{file} has no rows.")
        return rows

    def _text(self, file: str) -> str:
        (name,) = self._files[file.casefold()]
        with (
            open_bytes(Path(name)) if self.path.is_dir() else open_member(self.path, name, DEFAULT_MAX_BYTES) as stream
        ):
            data = stream.read()
        try:
            return unicodedata.normalize("NFC", data.decode(encoding_of(self.path / file, data[:4096], None)))
        except UnicodeDecodeError as error:
            raise MarketError(f"{self.path}, {file}: cannot be read: {error}.") from error


def of_a_release(read: Callable[P, T]) -> Callable[P, T]:
    """Adds the release to the errors of a function that reads it; the release is the first argument, ``path``.

    An error on another argument, whose message begins with that argument, stays as it is.
    """

    @wraps(read)
    def named(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except MarketError as error:
            path = str(args[0] if args else kwargs["path"])
            if path in str(error) or str(error).startswith("`"):
                raise
            raise MarketError(f"{path}: {error}") from error

    return named


def no_such_column(file: str, column: str, header: Iterable[Any]) -> str:
    """The message on a missing column, with the existing column of the most similar name."""
    names = [str(name) for name in header]
    near = best_match(column, names)
    hint = f" Did you mean {near!r:.80}?" if near else ""
    shown = ", ".join(f"{name!r:.80}" for name in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return f"{file} has no column {column!r:.80}.{hint} It has {shown or 'none'}{more}."
