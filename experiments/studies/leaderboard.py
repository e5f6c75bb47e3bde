"""``python -m experiments.studies.leaderboard``: puts scores from files of results into one table and its page."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.runs.command import command
from experiments.runs.folders import RunError, read_json, write_text
from experiments.runs.tables import markdown_table

__all__ = ["COLUMNS", "Row", "page_of", "read_rows", "rows_of", "table_of", "update"]

_PLAIN = re.compile(r"[\w%+,./:=@\[\]-]+", re.ASCII)
"""An argument that needs no quotation marks in a shell. Brackets count as harmless: a shell replaces them only if the
name of a file matches, and most arguments contain them."""
_OF_A_SETTING = re.compile(r"[+~]*(env|market|simulator|setting|reward|evaluation\.(job_)?split)\b")
"""Overrides that make another setting of one."""
_TABLE = re.compile(r"(<!-- leaderboard -->\n).*?(<!-- /leaderboard -->)", re.DOTALL)
_REGRET = re.compile(r"(-?[\d,]+) \[(-?[\d,]+), (-?[\d,]+)\]")
_SEEDS = re.compile(r"\d{1,10}(-\d{1,10})?( \d{1,10}(-\d{1,10})?)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Row:
    """The result of a learner in a setting.

    Attributes:
        setting: A name in ``conf/setting``, or a variant that the command defines.
        learner: A name in ``conf/learner``, or a name of your own.
        score: Score on held-out applicants at the end, mean over seeds: 0 is a random choice, 1 the oracle.
        regret: Cumulative expected regret while learning, mean over seeds.
        regret_low: Lower end of its 95 % interval.
        regret_high: Upper end of its 95 % interval.
        interactions: Number of the learner's interactions.
        seeds: A text such as ``200-209``, or ``0 1 5``.
        commit: Commit of the code, at least 7 hexadecimal digits.
        command: The command that makes the row.
    """

    setting: str
    learner: str
    score: float
    regret: float
    regret_low: float
    regret_high: float
    interactions: int
    seeds: str
    commit: str
    command: str

    @property
    def key(self) -> tuple[str, str]:
        """Setting and learner, which no two rows share."""
        return self.setting, self.learner


COLUMNS = tuple(field.name for field in fields(Row))
"""Columns of the file, in this order."""

_NUMBERS: dict[str, type[int] | type[float]] = {
    **dict.fromkeys(("score", "regret", "regret_low", "regret_high"), float),
    "interactions": int,
}
"""Columns of numbers."""


@command(config_path="../../conf", config_name="leaderboard")
def main(cfg: DictConfig) -> None:
    """Adds the rows of the results to the file, in place of older ones, and writes the tables into the page."""
    out, page = Path(cfg.out), Path(cfg.page)
    try:
        n_rows, n_made = update([Path(file) for file in cfg.results], out, page)
    except (RunError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"leaderboard  {out}, {n_rows} rows, {n_made} of them from the results; {page}")


def update(results: Sequence[Path], out: Path, page: Path) -> tuple[int, int]:
    """Writes the file and the page again. Rows of other settings and learners are kept.

    Args:
        results: Files that ``experiments.coldstart`` wrote.
        out: The file, which need not exist yet.
        page: The page with the two marks between which the tables stand.

    Returns:
        The number of rows, and the number of rows that come from the results.

    Raises:
        RunError: If a result, the file or the page is wrong. Nothing is written then.
        OSError: If a file cannot be read or written.
    """
    kept = {row.key: row for row in read_rows(out)} if out.is_file() else {}
    found = {file: read_json(file, "Give a file that experiments.coldstart wrote.") for file in results}
    made = {row.key: row for file, result in found.items() for row in rows_of(result, str(file))}
    rows = sorted((kept | made).values(), key=lambda row: (row.setting, -row.score, row.learner))
    text = page_of(page.read_text(encoding="utf-8"), rows)
    for path, content in ((out, table_of(rows)), (page, text)):
        write_text(path, content)
    return len(rows), len(made)


def rows_of(result: Mapping[str, Any], file: str) -> Iterator[Row]:
    """The rows of each learner in each setting of a file of ``experiments.coldstart``, in the order of its tables.

    Args:
        result: The file's content.
        file: Its name, for errors.

    Raises:
        RunError: If the file has no table of mean scores, a wrong cell, or settings that were changed for all learners.
    """
    if changed := [override for override in result.get("common", ()) if _OF_A_SETTING.match(override)]:
        raise RunError(
            f"`results`: {file} was made with common={changed}, so its settings are not those of their names. Leave "
            "these out (a preset may set them), or give the changed setting a name of its own: "
            "+variants.NAME=[setting=vectors,...]."
        )
    try:
        tables = [table for table in result.get("tables", ()) if table["header"][0].endswith(": mean score after")]
        if not tables:
            raise RunError(
                f"`results`: {file} has no table of mean scores: give a file that experiments.coldstart wrote"
                + (f", which for this study is {_whole_of(file)}." if "scores" in result else ".")
            )
        for table in tables:
            setting = table["header"][0].removesuffix(": mean score after")
            for cells in table["rows"]:
                said = dict(zip(table["header"], cells, strict=True))
                last = [name for name in said if name.replace(",", "").isdigit()][-1]
                where = f"`results`: {file}, {setting}, {cells[0]}"
                found = _REGRET.fullmatch(said["regret"])
                if found is None:
                    raise RunError(
                        f"{where}: {said['regret']!r} is no regret [low, high]. A result of fewer than three seeds "
                        "has no interval: run at least three."
                    )
                row = {
                    "setting": setting,
                    "learner": cells[0],
                    "score": said[last],
                    **dict(zip(("regret", "regret_low", "regret_high"), found.groups(), strict=True)),
                    "interactions": last,
                    "seeds": _in_short(result["seeds"]),
                    "commit": str(result["commits"].get(cells[0])),
                    "command": _command_of(result["command"], setting, cells[0]),
                }
                without_commas = {name: row[name].replace(",", "") for name in _NUMBERS}
                yield _checked({**row, **without_commas}, where)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"`results`: {file} is not as experiments.coldstart writes it ({error!r:.80}): make it again."
        ) from error


def _whole_of(file: str) -> Path:
    """The file of a whole study, from that of one of its settings."""
    return Path(file).parent.parent / Path(file).name


def read_rows(path: Path) -> list[Row]:
    """The rows of the file.

    Raises:
        RunError: For the first wrong cell, with its line, for two rows of one learner in one setting, and for a file
            that is not a table in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark before UTF-8
    except UnicodeDecodeError as error:
        raise RunError(f"{path} must be in UTF-8: save it as CSV UTF-8. {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: dict[tuple[str, str], Row] = {}
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise RunError(f"{path}, line 1: the columns must be {','.join(COLUMNS)}, got {reader.fieldnames}.")
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if None in cells or None in cells.values():
                raise RunError(
                    f"{where}: must have {len(COLUMNS)} cells; one that holds a comma needs quotation marks."
                )
            row = _checked(cells, where)
            if row.key in rows:
                raise RunError(f"{where}: {row.learner} has a row in {row.setting} already: keep one of them.")
            rows[row.key] = row
    except csv.Error as error:
        raise RunError(
            f"{path}, line {reader.line_num + 1}: {error}. A quotation mark needs a second one at the end of its cell."
        ) from error
    return list(rows.values())


def _checked(cells: Mapping[str, str], where: str) -> Row:
    """The row of some cells.

    Raises:
        RunError: For the first wrong cell, which the error names after the place ``where``.
    """
    numbers = {name: _number(name, cells[name], kind, where) for name, kind in _NUMBERS.items()}
    values: dict[str, Any] = {**cells, **numbers}
    row = Row(**values)
    _check(row, where)
    return row


def _number(name: str, cell: str, kind: type[int] | type[float], where: str) -> float:
    with contextlib.suppress(ValueError, OverflowError):
        number = kind(cell)
        if math.isfinite(number):
            return number
    what = "whole number" if kind is int else "number"
    raise RunError(f"{where}: `{name}` must be a {what}, got {cell!r:.80}.")


def _check(row: Row, where: str) -> None:
    wrong = {
        "setting": (re.fullmatch(r"\w+", row.setting), "be letters, digits and underscores"),
        "learner": (re.fullmatch(r"[\w.-]+", row.learner), "be letters, digits, dots, hyphens and underscores"),
        "score": (row.score <= 1, "be at most 1, the oracle"),
        "regret": (
            0 <= row.regret_low <= row.regret <= row.regret_high,
            "lie between `regret_low`, at least 0, and `regret_high`",
        ),
        "interactions": (row.interactions > 0, "be above 0"),
        "seeds": (_are_seeds(row.seeds), "be such as 200-209 or 0 1 5"),
        "commit": (
            re.fullmatch(r"[0-9a-f]{7,40}", row.commit),
            "be 7 to 40 hexadecimal digits, of a checkout without changes",
        ),
        "command": (row.command.startswith("python -m "), "begin with `python -m `"),
    }
    for name, (is_right, must) in wrong.items():
        if not is_right:
            raise RunError(f"{where}: `{name}` must {must}, got {getattr(row, name)!r}.")


def _are_seeds(text: str) -> bool:
    ends = [part.split("-") for part in text.split(" ")]
    return _SEEDS.fullmatch(text) is not None and all(int(each[0]) <= int(each[-1]) for each in ends)


def table_of(rows: Sequence[Row]) -> str:
    """The content of the file: rows as comma-separated values."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        # All digits, so that a row of somebody's stays as it was.
        writer.writerow([repr(cell).removesuffix(".0") if isinstance(cell, float) else cell for cell in astuple(row)])
    return stream.getvalue()


def page_of(text: str, rows: Sequence[Row]) -> str:
    """The text of a page with the tables between its two marks: one for each setting, the best score first.

    Raises:
        RunError: If the page lacks its marks.
    """
    if _TABLE.search(text) is None:
        raise RunError("`page` must have a line `<!-- leaderboard -->`, and `<!-- /leaderboard -->` below it.")
    parts = []
    for setting, found in groupby(sorted(rows, key=lambda row: row.setting), key=lambda row: row.setting):
        best = sorted(found, key=lambda row: (-row.score, row.regret, row.learner))
        header = ["learner", "score", "regret", "answers", "seeds", "commit"]
        lines = [
            [
                f"`{row.learner}`",
                f"{row.score:.3f}",
                f"{_in_page(row.regret)} [{_in_page(row.regret_low)}, {_in_page(row.regret_high)}]",
                f"{row.interactions:,}",
                row.seeds,
                f"`{row.commit[:7]}`",
            ]
            for row in best
        ]
        parts.append(f"## {setting}\n\n{markdown_table(header, lines)}\n\n")
    return _TABLE.sub(lambda marks: f"{marks[1]}\n{''.join(parts)}{marks[2]}", text)


def _in_page(regret: float) -> str:
    return f"{regret:,.1f}".removesuffix(".0")


def _command_of(whole: str, setting: str, learner: str) -> str:
    """The command for one learner in one setting, from a command for many."""
    of_many = ("learners=", "settings=", "only_in.", "+only_in.", "draw=", "folder=", "n_jobs=", "progress_bar=")
    own = f"only_in.{setting}="  # this option may admit a learner that the preset leaves out
    words = [
        f"{own}[{learner}]" if word.startswith(own) else word
        for word in _words_of(whole)
        if word.startswith(own) or not word.startswith(of_many)
    ]
    if setting != "onet":  # this is the only setting whose market is not shipped
        words = [word for word in words if not word.startswith("path=")]
    typed = [word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in words]
    return " ".join([*typed, f"learners=[{learner}]", f"settings=[{setting}]"])


def _words_of(command: str) -> list[str]:
    """The arguments of a command.

    Older results have the arguments without the quotation marks of a shell. In these an argument may have spaces within
    brackets, as in ``learners=[a, b]``.
    """
    with contextlib.suppress(ValueError):  # a quotation mark without its pair
        typed = shlex.split(command)
        if shlex.join(typed) == command:
            return typed
    words: list[str] = []
    for part in command.split():
        if words and sum(map(words[-1].count, "[{(")) > sum(map(words[-1].count, "]})")):
            words[-1] += f" {part}"
        else:
            words.append(part)
    return words


def _in_short(seeds: Sequence[int]) -> str:
    """Seeds as a short text such as ``200-209``."""
    whole = list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 and list(seeds) == whole else " ".join(map(str, seeds))


if __name__ == "__main__":
    main()
