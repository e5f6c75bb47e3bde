"""Looks at a file: what it holds, which column is which field, and the call of ``load_market`` that reads it."""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.loaders.cells import is_nothing
from jobrec_gym.loaders.esco import load_esco
from jobrec_gym.loaders.onet import load_onet
from jobrec_gym.loaders.reading import Reading, Table, json_rows, kind_of, read_table
from jobrec_gym.loaders.tables import load_table
from jobrec_gym.market import LabourMarket, MarketError, load_market
from jobrec_gym.market.folder import is_saved_market
from jobrec_gym.market.sources import named_sources
from jobrec_gym.market.summary import summarise
from jobrec_gym.paths import place_of

__all__ = ["USUAL_NAMES", "find_columns", "look"]

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "key": (
        *("key", "id", "job_id", "job_posting_id", "posting_id", "vacancy_id", "requisition_id", "req_id", "offer_id"),
        *("applicant_id", "candidate_id", "person_id", "user_id", "resume_id", "employee_id", "uri", "uuid", "code"),
        *("soc_code", "soc"),
    ),
    "title": (
        *("title", "job_title", "position", "position_title", "business_title", "posting_title", "job_name", "job"),
        *("current_title", "desired_title", "designation", "headline", "role", "job_role", "label", "name_of_job"),
    ),
    "hard": (
        *("hard", "hard_skills", "skills", "skill", "required_skills", "skills_required", "technical_skills"),
        *("tech_skills", "key_skills", "skill_set", "skillset", "competencies", "competences", "technologies"),
        *("tech_stack", "tools", "expertise", "skill_list", "job_skills", "skills_desc", "skill_names"),
        *("preferred_skills", "tags", "keywords"),
    ),
    "soft": (
        *("soft", "soft_skills", "personal_skills", "social_skills", "interpersonal_skills", "transversal_skills"),
        *("behavioral_skills", "behavioural_skills", "soft_competencies", "personal_qualities"),
    ),
    "seniority": (
        *("seniority", "seniority_level", "experience_level", "formatted_experience_level", "career_level"),
        *("job_level", "level", "job_zone"),
    ),
    "experience": (
        *("experience", "years_of_experience", "experience_years", "years_experience", "work_experience"),
        *("experience_required", "required_experience", "min_experience", "experience_requirements"),
    ),
    "occupation": ("occupation", "occupation_name", "occupation_title", "soc_title", "esco_occupation", "isco_title"),
    "family": ("family", "job_family", "occupation_group", "major_group"),
    "description": (
        *("description", "job_description", "posting_description", "full_description", "job_summary", "summary"),
        *("details", "job_details", "responsibilities", "about", "bio", "profile", "resume", "resume_text", "cv"),
        *("text", "body", "content"),
    ),
    "split": ("split",),
}
"""Usual names of columns, by field, the likeliest name first; case, spaces and signs are ignored."""

_TEXT_INSTEAD = (
    *("requirements", "job_requirements", "qualifications", "minimum_qualifications", "minimum_qual_requirements"),
    *("required_qualifications", "requirement"),
)
"""Columns of free text that may replace skills if no column lists any."""

_CONTEXT: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "place": (
        "category",
        (
            *("place", "location", "city", "town", "job_location", "work_location", "locality", "place_of_work"),
            *("desired_location", "preferred_location"),
        ),
    ),
    "country": ("category", ("country", "country_code", "job_country")),
    "salary": (
        "number",
        (
            *("salary", "annual_salary", "pay", "wage", "compensation", "normalized_salary", "med_salary"),
            *("salary_from", "salary_range_from", "min_salary", "salary_min"),
            *("expected_salary", "desired_salary", "wanted_salary"),
        ),
    ),
    "remote": ("flag", ("remote", "is_remote", "remote_allowed", "work_from_home", "remote_work", "telework")),
    "languages": ("set", ("languages", "language", "spoken_languages", "required_languages")),
}
_UNITS = (
    *("salary_frequency", "pay_period", "salary_period", "salary_unit", "pay_frequency", "salary_type", "pay_unit"),
    *("wage_unit", "pay_type", "salary_interval", "unit_of_pay"),
)
"""Usual names of the column that says what a salary is paid for: an hour, a month, a year."""
_YEARLY = ("annual_salary", "normalized_salary")
_SEPARATORS = (";", ",", "|", "\n", "•", "、", "；")  # noqa: RUF001
_SAMPLE = 500
_LONGEST = 8  # words of a skill; a longer part of a cell is part of a sentence
_EXAMPLE = 50


@dataclass(slots=True)
class _Side:
    """The findings on the file of one side."""

    kind: str
    path: str
    table: Table | None = None
    columns: dict[str, str] = field(default_factory=dict)
    context: dict[str, str] = field(default_factory=dict)
    is_text: bool = False
    separators: dict[str, str] = field(default_factory=dict)  # by column of skills
    n_empty: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The source in the form that ``load_market`` takes."""
        return f"{self.kind}:{self.path}"


class _NoEncoder:
    """Gives every text the same vector, because a look at words needs no vectors."""

    name = "none"
    dim = 2

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (n, 2)."""
        return np.tile(np.array([[1, 0]], dtype=np.float32), (len(texts), 1))


def look(path: str | os.PathLike[str], applicants: str | os.PathLike[str] | None = None) -> str:
    """A text that says what a file of jobs contains and how to load it; nothing is encoded.

    Columns are found by their :data:`USUAL_NAMES`. The cells themselves show whether skills are lists or free text.

    Args:
        path: A file or folder, with or without its scheme: a table, JSON Resume, JobPosting, O*NET, ESCO, or a saved
            market; or the name of a market, ``"default"``.
        applicants: The file of the applicants, likewise.

    Returns:
        Lines: the kind of file, its columns and the fields that they are read as, the market's summary, and the call of
        :func:`~jobrec_gym.market.load_market`.

    Raises:
        MarketError: For a file that cannot be read, or a table in which nothing looks like skills.
    """
    kind, file = _kind(path)
    if kind == "market":
        return f"{load_market(file).summary()}\n\nload_market({_typed(file)})"
    if kind in ("onet", "esco"):
        return _look_at_release(kind, file)
    jobs = _side(kind, file)
    people = None if applicants is None else _side(*_kind(applicants))
    jobs.notes += _doubt_of_separators([jobs, people] if people else [jobs])
    market, options = _loaded(jobs, people)
    lines = _told("jobs" if people else "rows", jobs) + (_told("applicants", people) if people else [])
    if people:
        told = summarise(market)
    else:  # the market may be named after a made-up job, so the summary gets the name of the one real file
        side = "applicants" if _is_people(jobs) else "jobs"
        told = summarise(market, (side,), name=f"{jobs.kind}:{Path(file).name}")
    return "\n".join([*lines, "", told, "", _call(jobs, people, options)])


def find_columns(header: Sequence[str], names: Mapping[str, Sequence[str]] = USUAL_NAMES) -> dict[str, str]:
    """The column of each field, found by the field's usual names; the likeliest name wins.

    Args:
        header: Names of the columns.
        names: The usual names of each field.

    Example:
        >>> find_columns(["Job Title", "Required-Skills", "Location"])
        {'title': 'Job Title', 'hard': 'Required-Skills'}
    """
    plain: dict[str, str] = {}
    for written in header:
        plain.setdefault(_plain(written), written)
    found: dict[str, str] = {}
    for name, usual in names.items():
        column = next((plain[called] for called in usual if called in plain), None)
        if column is not None and column not in found.values():
            found[name] = column
    return found


def _plain(column: str) -> str:
    """``JobTitle``, ``job-title`` and ``Job title`` as ``job_title``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column)
    return re.sub(r"\W+|_+", "_", words.casefold()).strip("_")


# ---------------------------------------------------------------------------------------------------------------- kinds


def _kind(source: str | os.PathLike[str]) -> tuple[str, str]:
    """The kind of a source, and its path without a scheme."""
    text = os.fspath(source)
    if not text:
        raise MarketError("the path is empty: give a file, a folder or the name of a market.")
    if text in named_sources():
        return "market", text
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("onet", "esco"):
        return scheme, rest
    place = place_of(text)
    if is_saved_market(place):
        return "market", text
    if place.is_dir() or (place.is_file() and zipfile.is_zipfile(place)):
        names = _names(place)
        if "occupation data.txt" in names:
            return "onet", text
        if any(re.fullmatch(r"skills_[a-z-]+\.csv", name) for name in names):
            return "esco", text
        if place.is_dir():
            files = [file for file in place.iterdir() if file.is_file() and not file.name.startswith(".")]
            return _kind(files[0]) if len(files) == 1 else (_kind_of_documents(place), text)
    if place.name.lower().endswith((".html", ".htm", ".xhtml", ".jsonld")):
        return "job-posting", text
    kind, table_file = kind_of(text)
    if kind in ("json", "jsonl") and not (colon and scheme == kind):
        kind = _kind_of_json(table_file) or kind
    return kind, str(table_file)


def _names(place: Path) -> set[str]:
    if place.is_dir():
        return {file.name.casefold() for file in place.rglob("*")}
    with zipfile.ZipFile(place) as archive:
        return {PurePath(name).name.casefold() for name in archive.namelist()}


def _kind_of_documents(place: Path) -> str:
    """The kind of a folder's documents, by the first of them."""
    for file in sorted(place.iterdir()):
        if file.name.lower().endswith((".html", ".htm", ".xhtml", ".jsonld")):
            return "job-posting"
        if file.name.lower().endswith((".json", ".jsonl")) and (kind := _kind_of_json(file)):
            return kind
    raise MarketError(
        f"{place} is a folder and holds neither a release of O*NET or ESCO, nor a saved market, nor documents of JSON "
        "Resume or JobPosting. Give a file of it."
    )


def _kind_of_json(file: Path) -> str | None:
    first: Any = next((value for _, value in json_rows(file, Reading())), None)
    while isinstance(first, list) and first:
        first = first[0]
    if not isinstance(first, Mapping):
        return None
    if "@type" in first or "@graph" in first or "@context" in first:
        return "job-posting"
    is_resume = isinstance(first.get("basics"), Mapping) or isinstance(first.get("work"), list)
    return "json-resume" if is_resume else None


# -------------------------------------------------------------------------------------------------------------- columns


def _side(kind: str, path: str) -> _Side:
    side = _Side(kind, path)
    if kind in ("market", "onet", "esco"):
        raise MarketError(f"{path} is a market of its own, not a file of applicants.")
    side.table = table = read_table(path, kind=kind, side="jobs")
    if not table.rows:
        raise MarketError(f"{table.file} has no rows.")
    side.columns = find_columns(table.header)
    taken = set(side.columns.values())
    contexts = {name: usual for name, (_, usual) in _CONTEXT.items()}
    side.context = {
        name: column for name, column in find_columns(table.header, contexts).items() if column not in taken
    }
    if kind in ("json-resume", "job-posting"):
        return side
    side.notes += _doubt_of_units(side, table)
    if "family" in side.columns and "occupation" not in side.columns:
        side.columns["occupation"] = side.columns.pop("family")
    _find_skills(side, table)
    return side


def _doubt_of_units(side: _Side, table: Table) -> list[str]:
    """The note on a column of salaries if another column says that not all are for the same time."""
    salary, unit = side.context.get("salary"), find_columns(table.header, {"unit": _UNITS}).get("unit")
    if salary is None or unit is None or _plain(salary) in _YEARLY:
        return []
    cells = [str(row.get(unit)).strip() for _, row in table.rows if not is_nothing(row.get(unit))]
    found = {cell.casefold(): cell for cell in reversed(cells)}  # the first spelling of each
    if len(found) < 2:
        return []
    named = f"{', '.join(map(repr, sorted(found.values())[:4]))}{', ...' if len(found) > 4 else ''}"
    return [f"{salary!r} is not for the same time in all rows, {unit!r} says {named}: turn it into yearly pay first"]


def _find_skills(side: _Side, table: Table) -> None:
    """Finds the columns of skills, whether the hard ones are free text, and the separator of skills of each column."""
    rows = [row for _, row in table.rows[:_SAMPLE]]
    if "hard" not in side.columns and "soft" not in side.columns:
        column = _text_column(side, table)
        if column is None:
            raise MarketError(
                f"{table.file}: no column looks like skills or like a description. It has "
                f"{', '.join(map(repr, table.header))}. Say which it is: `load_market('{side.source}', "
                "columns={'hard': ...})`, with `text_columns=['hard']` if it is free text."
            )
        side.columns["hard"] = column
        side.is_text = True
    for block in ("hard", "soft"):
        column = side.columns.get(block)
        if column is None or (block == "hard" and side.is_text):
            continue
        cells = [row.get(column) for row in rows]
        separator, is_text = _separator([cell for cell in cells if isinstance(cell, str) and not is_nothing(cell)])
        if separator:
            side.separators[column] = separator
        if block == "hard":
            side.is_text = is_text
    skills = [column for block in ("hard", "soft") if (column := side.columns.get(block))]
    side.n_empty = _n_empty(table, skills)
    instead = _text_column(side, table)
    if 2 * side.n_empty > len(table.rows) and instead and _n_empty(table, [instead]) < side.n_empty / 2:
        named = " and ".join(map(repr, skills))
        n = f"{side.n_empty:,} of {len(table.rows):,}"
        side.notes.append(f"{named}: empty in {n} rows; the free text {instead!r} is taken")
        side.columns.pop("soft", None)
        side.columns["hard"], side.is_text, side.separators = instead, True, {}
        side.n_empty = _n_empty(table, [instead])
    if side.n_empty:
        side.notes.append(f"{side.n_empty:,} of {len(table.rows):,} rows have no skills")


def _text_column(side: _Side, table: Table) -> str | None:
    """A column of free text that can replace skills."""
    return find_columns(table.header, {"hard": _TEXT_INSTEAD}).get("hard") or side.columns.get("description")


def _n_empty(table: Table, columns: Sequence[str]) -> int:
    return sum(all(_is_empty(row.get(column)) for column in columns) for _, row in table.rows)


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, list):
        return all(map(is_nothing, cell))
    return is_nothing(cell) or (isinstance(cell, str) and cell.strip() in ("[]", "{}"))


def _separator(cells: Sequence[str]) -> tuple[str | None, bool]:
    """The separator of skills in cells (``None`` if there is none), and whether they are free text."""
    cells = [cell for cell in cells if not cell.lstrip().startswith(("[", "{", "array(["))]
    if not cells:
        return None, False
    lengths = {separator: [_parts(cell, separator) for cell in cells if separator in cell] for separator in _SEPARATORS}
    # A cell is a list if all its parts are short; in prose some are long.
    lists = {separator: sum(max(parts) <= _LONGEST for parts in some) for separator, some in lengths.items()}
    best = max(lists, key=lambda separator: lists[separator])
    long = sum(len(cell.split()) > _LONGEST for cell in cells)
    if 2 * lists[best] < max(long, 1):
        return None, 2 * long > len(cells)
    return best, False


def _parts(cell: str, separator: str) -> list[int]:
    """Numbers of words of the parts of a cell."""
    return [len(part.split()) for part in cell.split(separator)]


def _doubt_of_separators(sides: Sequence[_Side]) -> list[str]:
    """The note on columns whose skills are separated differently, since a call takes one separator for all."""
    found = [
        (separator, f"{separator!r} in {column!r} of {side.path}")
        for side in sides
        for column, separator in side.separators.items()
    ]
    if len({separator for separator, _ in found}) < 2:
        return []
    return [
        f"not all skills are separated alike ({', '.join(where for _, where in found)}), and a call takes one "
        "separator for all: write these columns with ';' before you load them by the call below"
    ]


# ------------------------------------------------------------------------------------------------------------- telling


def _told(name: str, side: _Side) -> list[str]:
    assert side.table is not None
    rows = side.table.rows
    lines = [f"{side.path}: {side.kind}, {len(rows):,} {name}, {len(side.table.header)} columns"]
    example = rows[0][1]
    of = {column: name for name, column in side.context.items()} | {
        column: name for name, column in side.columns.items()
    }
    width = max(map(len, side.table.header))
    for column in side.table.header:
        what = of.get(column, "")
        if what == "hard" and side.is_text:
            what = "hard, free text"
        elif column in side.context.values():
            what = f"context: {what}"
        also = " and description" if column == side.columns.get("description") and "description" not in what else ""
        lines.append(f"  {_shown(column):{width}}  {what + also:20}  {_shown(str(example.get(column, '')))}".rstrip())
    return [*lines, *(f"  ! {note}" for note in side.notes)]


def _shown(text: str) -> str:
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * _EXAMPLE]).split())
    return line if len(line) <= _EXAMPLE else f"{line[: _EXAMPLE - 1]}…"


def _options(jobs: _Side, people: _Side | None) -> dict[str, Any]:
    """The keywords by which the files are read."""
    options: dict[str, Any] = {}
    sides = {"jobs": jobs} | ({"applicants": people} if people else {})
    columns = {name: _mapped(side) for name, side in sides.items()}
    if any(columns.values()):
        options["columns"] = columns if people else columns["jobs"]
    texts = {name: ["hard"] for name, side in sides.items() if side.is_text}
    if texts:
        options["text_columns"] = texts if people else ["hard"]
    separators = {separator for side in sides.values() for separator in side.separators.values()}
    if len(separators) == 1 and separators != {";"}:  # which needs no saying
        options["skill_separator"] = separators.pop()
    if any(side.n_empty for side in sides.values()):
        options["on_empty"] = "skip"
    if people:
        shared = [name for name in _CONTEXT if name in jobs.context and name in people.context]
        if shared:
            options["context"] = {name: _compared(name, people.context[name], jobs.context[name]) for name in shared}
    return options


def _mapped(side: _Side) -> dict[str, str]:
    return {name: column for name, column in side.columns.items() if name != column}


def _compared(name: str, of_people: str, of_jobs: str) -> str | tuple[str, str, str]:
    kind = _CONTEXT[name][0]
    return kind if of_people == of_jobs == name else (kind, of_people, of_jobs)


def _loaded(jobs: _Side, people: _Side | None) -> tuple[LabourMarket, dict[str, Any]]:
    """The market without vectors, and the keywords by which it was loaded; unreadable columns are left out."""
    while True:
        options = _options(jobs, people)
        try:
            return _without_vectors(jobs, people, options), options
        except MarketError as error:
            if not any(_let_go(side, str(error)) for side in (jobs, people) if side):
                raise MarketError(f"{error} What was tried: {_call(jobs, people, options)}") from error


def _is_people(side: _Side) -> bool:
    """Whether the rows of a single file are people. The kind of the file tells."""
    return side.kind == "json-resume"


def _without_vectors(jobs: _Side, people: _Side | None, options: Mapping[str, Any]) -> LabourMarket:
    options = {**options, "encoder": _NoEncoder(), "cache_dir": False}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        nobody = Path(scratch) / "nobody.jsonl"
        nobody.write_text('{"hard": ["nothing"]}\n', encoding="utf-8")
        if not people:
            options |= {name: {"jobs": options[name]} for name in ("columns", "text_columns") if name in options}
        alone = f"jsonl:{nobody}"
        if people:
            market = load_table(jobs.source, applicants=people.source, **options)
        elif _is_people(jobs):
            market = load_table(alone, applicants=jobs.source, **options)
        else:
            market = load_table(jobs.source, applicants=alone, **options)
    jobs.notes += [str(doubt.message) for doubt in doubts]
    return market


def _let_go(side: _Side, complaint: str) -> bool:
    """Leaves out the column that an error message complains about, since it does not hold what its name says.

    Returns:
        Whether the side's file has such a column.
    """
    assert side.table is not None
    # The other side's file may have a column of the same name, which is as it should be.
    if not complaint.startswith(f"{side.table.file}, ") and f"in {side.table.file}, row" not in complaint:
        return False
    repeated = complaint.startswith("key ") and "appears twice" in complaint
    is_torn = complaint.startswith("occupation ") and "is of family" in complaint
    for name in ("seniority", "key", "split", "occupation", "family"):
        column = side.columns.get(name)
        is_meant = f"column {column!r}" in complaint or (repeated and name == "key") or (is_torn and name == "family")
        if column not in (None, name) and is_meant:
            del side.columns[name]
            side.notes.append(f"{column!r} is not taken as {name}: {complaint}")
            return True
    for name, column in side.context.items():
        if f"column {column!r}" in complaint:
            del side.context[name]
            side.notes.append(f"{column!r} is not compared as {name}: {complaint}")
            return True
    return False


def _call(jobs: _Side, people: _Side | None, options: Mapping[str, Any]) -> str:
    """The text of the call of ``load_market``."""
    given = {name: value for name, value in options.items() if name not in ("encoder", "cache_dir")}
    arguments = [_typed(jobs.source)]
    if people:
        arguments.append(f"applicants={_typed(people.source)}")
    elif _is_people(jobs):
        arguments.append('jobs="..."')
    elif "occupation" in jobs.columns and not jobs.is_text and jobs.kind not in ("json-resume", "job-posting"):
        arguments.append("n_applicants=1000")
    else:
        arguments.append('applicants="..."')
    arguments += [f"{name}={_typed(value)}" for name, value in given.items()]
    line = f"load_market({', '.join(arguments)})"
    if len(line) <= 100:
        return line
    return "load_market(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"


def _typed(value: Any) -> str:
    """A value as Python source, with double quotation marks."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_typed(key)}: {_typed(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_typed, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


def _look_at_release(kind: str, path: str) -> str:
    arguments = ""
    load = {"onet": load_onet, "esco": load_esco}[kind]
    options: dict[str, Any] = {}
    if kind == "esco":
        languages = _languages(place_of(path))
        if languages and "en" not in languages:
            options["language"] = languages[0]
            arguments = f", language={_typed(languages[0])}"
    market = load(path, encoder=_NoEncoder(), cache_dir=False, **options)
    return f"{summarise(market)}\n\nload_market({_typed(f'{kind}:{path}')}{arguments})"


def _languages(place: Path) -> list[str]:
    return sorted(found[1] for name in _names(place) if (found := re.fullmatch(r"skills_([a-z-]+)\.csv", name)))
