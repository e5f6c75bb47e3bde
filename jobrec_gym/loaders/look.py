"""Looks at a file: what it holds, which column is which field, and the call of ``load_market`` that reads it."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import tempfile
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.loaders.cells import CellReader, CellRules, has_column, is_nothing, normal_form, plain_name
from jobrec_gym.loaders.esco import load_esco
from jobrec_gym.loaders.headings import MARKET_HEADINGS, proposed_columns
from jobrec_gym.loaders.onet import load_onet
from jobrec_gym.loaders.reading import Reading, Table, json_rows, kind_of, read_sides, read_table
from jobrec_gym.loaders.release import no_such_column
from jobrec_gym.loaders.tables import FIELDS, ROLE_VALUES, by_role, columns_of_side, encoding_of_side, load_table
from jobrec_gym.market import LabourMarket, MarketError, load_market
from jobrec_gym.market.dates import DATE_FIELDS, DateFormat
from jobrec_gym.market.folder import is_saved_market
from jobrec_gym.market.sources import named_sources
from jobrec_gym.market.summary import summarise
from jobrec_gym.paths import place_of, what_came

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
_DATES: Mapping[str, tuple[str, ...]] = {
    "posted": (
        *("posted", "date_posted", "posted_date", "posted_at", "posted_on", "job_posted_date", "posting_date"),
        *("published", "date_published", "published_at", "publication_date", "listed_time"),
    ),
    "expires": (
        *("expires", "expires_at", "expires_on", "expiry", "expiry_date", "date_expires", "expiration_date"),
        *("valid_through", "valid_until", "apply_by", "application_deadline", "deadline", "closing_date", "close_date"),
        *("closes_at", "post_until"),
    ),
}
_UNITS = (
    *("salary_frequency", "pay_period", "salary_period", "salary_unit", "pay_frequency", "salary_type", "pay_unit"),
    *("wage_unit", "pay_type", "salary_interval", "unit_of_pay"),
)
"""Usual names of the column that says what a salary is paid for: an hour, a month, a year."""
_YEARLY = ("annual_salary", "normalized_salary")
_SEPARATORS = (";", ",", "|", "\n", "•", "、", "；")  # noqa: RUF001
_SAMPLE = 500
_SIDES = ("jobs", "applicants")
_LONGEST = 8  # words of a skill; a longer part of a cell is part of a sentence
_EXAMPLE = 50
_LOADERS = __name__.rpartition(".")[0]
"""The logger under which all loaders log."""


@dataclass(slots=True)
class _Side:
    """The findings on the file of one side."""

    kind: str
    path: str
    reading: Reading
    table: Table
    columns: dict[str, str | list[str]] = field(default_factory=dict)
    context: dict[str, str] = field(default_factory=dict)
    is_text: bool = False
    separators: dict[str, str] = field(default_factory=dict)  # by column of skills
    n_empty: int = 0
    notes: list[str] = field(default_factory=list)
    prefix: str = ""  # of a field in `--columns`, if there are two sides: "jobs." or "applicants."
    role_column: str | None = None  # says of which side a row is, if one table has both sides
    is_in_file_of_jobs: bool = False  # whether these are people, and the file of the jobs has them

    @property
    def source(self) -> str:
        """The source in the form that ``load_market`` takes."""
        return f"{self.kind}:{self.path}"

    def names(self, *fields: str) -> list[str]:
        """The columns of some fields."""
        found = [self.columns[name] for name in fields if name in self.columns]
        return [name for names in found for name in ([names] if isinstance(names, str) else names)]

    def taken(self) -> set[str]:
        """The columns that have a use."""
        return {*self.names(*self.columns), *self.context.values(), *filter(None, [self.role_column])}


class _Held(logging.Handler):
    """Keeps log records in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one record."""
        self.records.append(record)


class _NoEncoder:
    """Gives every text the same vector, because a look at words needs no vectors."""

    name = "none"
    dim = 2

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (n, 2)."""
        return np.tile(np.array([[1, 0]], dtype=np.float32), (len(texts), 1))


def look(
    path: str | os.PathLike[str],
    applicants: str | os.PathLike[str] | None = None,
    *,
    columns: Mapping[str, Any] | None = None,
    encoding: str | Mapping[str, str | None] | None = None,
    delimiter: str | None = None,
    null_values: Collection[str] | None = None,
    seniority_values: Mapping[str, int | None] | None = None,
    decimal: str | None = None,
    date_format: DateFormat | None = None,
) -> str:
    """A text that says what a file of jobs contains and how to load it; nothing is encoded.

    Columns are found by their :data:`USUAL_NAMES`. The cells themselves show whether skills are lists or free text. A
    column whose cells are all ``job`` or ``applicant`` is taken as the ``role_column``.

    Args:
        path: A file or folder, with or without its scheme: a table, JSON Resume, JobPosting, O*NET, ESCO, or a saved
            market; or the name of a market, ``"default"``. A table may hold both sides.
        applicants: The file of the applicants, likewise.
        columns: Which column holds which field, where names are not usual, ``{"hard": "Kenntnisse"}``. This and the
            arguments below are as in :func:`~jobrec_gym.loaders.tables.load_table`, and are part of the printed call.
            Here ``columns`` may also name ``place``, ``country``, ``salary``, ``remote`` and ``languages``, which are
            part of the ``context`` in the printed call.
        encoding: Encoding of the files.
        delimiter: The character that separates the cells of CSV.
        null_values: Words that mean an empty cell.
        seniority_values: Levels by the file's words.
        decimal: The decimal sign of numbers.
        date_format: How dates are written.

    Returns:
        Lines: the kind of file, its columns and the fields that they are read as, the market's summary, and the call of
        :func:`~jobrec_gym.market.load_market`.

    Raises:
        MarketError: For a file that cannot be read, a table in which nothing looks like skills, or an argument that is
            wrong or has no meaning for the source.
    """
    readings = [Reading(delimiter, encoding_of_side(encoding, side)) for side in _SIDES]
    kind, file = _kind(path, readings[0])
    if applicants is None and _has_sides(encoding):
        raise MarketError(f"`encoding` names `jobs` or `applicants`, and {file} is one file: leave these names out.")
    cells = {"null_values": null_values, "seniority_values": seniority_values}
    cells |= {"decimal": decimal, "date_format": date_format}
    CellRules(**cells)  # type: ignore[arg-type]  # refuses a wrong value before files are read
    arguments = {"columns": columns, "encoding": encoding, "delimiter": delimiter, **cells}
    if kind in ("market", "onet", "esco") and (given := [name for name, value in arguments.items() if value]):
        raise MarketError(
            f"{' and '.join(f'`{name}`' for name in given)} cannot be given for {file}, which is not a table: leave "
            "them out."
        )
    if kind == "market":
        return f"{load_market(file).summary()}\n\nload_market({_typed(file)})"
    if kind in ("onet", "esco"):
        return _look_at_release(kind, file)
    with _said_once() as said:
        if applicants is None:
            jobs, people = _sides_in(kind, file, readings[0])
        else:
            jobs = _Side(kind, file, readings[0], read_table(file, readings[0], kind=kind, side="jobs"))
            people = _applicants(*_kind(applicants, readings[1]), readings[1])
        if people:
            jobs.prefix, people.prefix = (f"{side}." for side in _SIDES)
        elif _has_sides(columns):
            raise MarketError(
                f"`columns` names `jobs` or `applicants`, and {file} is one file of one side: leave these names out."
            )
        are_of_both = people is not None and not _has_sides(columns)
        _find(jobs, *_told_of("jobs", columns), are_of_both)
        if not _is_people(jobs):
            _find_dates(jobs)
        if people:
            theirs, context = _told_of("applicants", columns)
            theirs = {name: column for name, column in theirs.items() if name in FIELDS}  # only jobs have dates
            _find(people, theirs, context, are_of_both)
        jobs.notes += _doubt_of_separators([jobs, people] if people else [jobs])
        for one in (jobs, people) if people else (jobs,):
            one.notes += _foreign_headings(one)
        market, options = _loaded(jobs, people, {name: value for name, value in cells.items() if value}, said)
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


def _kind(source: str | os.PathLike[str], reading: Reading) -> tuple[str, str]:
    """The kind of a source, and its path without a scheme."""
    if not isinstance(source, str | os.PathLike):
        raise MarketError(f"a file or folder must be given by its path, got {what_came(source)}.")
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
            return _kind(files[0], reading) if len(files) == 1 else (_kind_of_documents(place, reading), text)
    if place.name.lower().endswith((".html", ".htm", ".xhtml", ".jsonld")):
        return "job-posting", text
    kind, table_file = kind_of(text)
    if kind in ("json", "jsonl") and not (colon and scheme == kind):
        kind = _kind_of_json(table_file, reading) or kind
    return kind, str(table_file)


def _names(place: Path) -> set[str]:
    if place.is_dir():
        return {file.name.casefold() for file in place.rglob("*")}
    with zipfile.ZipFile(place) as archive:
        return {PurePath(name).name.casefold() for name in archive.namelist()}


def _kind_of_documents(place: Path, reading: Reading) -> str:
    """The kind of a folder's documents, by the first document."""
    for file in sorted(place.iterdir()):
        if file.name.lower().endswith((".html", ".htm", ".xhtml", ".jsonld")):
            return "job-posting"
        if file.name.lower().endswith((".json", ".jsonl")) and (kind := _kind_of_json(file, reading)):
            return kind
    raise MarketError(
        f"{place} is a folder and holds neither a release of O*NET or ESCO, nor a saved market, nor documents of JSON "
        "Resume or JobPosting. Give a file of it."
    )


def _kind_of_json(file: Path, reading: Reading) -> str | None:
    first: Any = next((value for _, value in json_rows(file, reading)), None)
    while isinstance(first, list) and first:
        first = first[0]
    if not isinstance(first, Mapping):
        return None
    if "@type" in first or "@graph" in first or "@context" in first:
        return "job-posting"
    is_resume = isinstance(first.get("basics"), Mapping) or isinstance(first.get("work"), list)
    return "json-resume" if is_resume else None


# -------------------------------------------------------------------------------------------------------------- columns


def _has_sides(argument: Any) -> bool:
    """Whether an argument says something of each side, ``{"jobs": ..., "applicants": ...}``."""
    return isinstance(argument, Mapping) and bool(set(argument) & set(_SIDES))


def _told_of(side: str, columns: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """What the argument ``columns`` says of one side: the columns of fields, and those of the context."""
    if not isinstance(columns, Mapping):
        return columns_of_side(side, columns), {}
    has_sides = _has_sides(columns)
    of_side = columns.get(side) if has_sides else columns
    if not isinstance(of_side, Mapping):
        return columns_of_side(side, columns), {}
    context = {name: column for name, column in of_side.items() if name in _CONTEXT}
    fields = {name: column for name, column in of_side.items() if name not in context}
    return columns_of_side(side, {**columns, side: fields} if has_sides else fields), context


def _sides_in(kind: str, path: str, reading: Reading) -> tuple[_Side, _Side | None]:
    """The rows of one file: of one side, or the jobs and the people."""
    tables, role_column = read_sides(path, reading, kind=kind), None
    if len(tables) == 1:
        (table,) = tables.values()
        role_column = _role_column(table)
        tables = {"jobs": table} if role_column is None else by_role(table, role_column, None)
    jobs = _Side(kind, path, reading, tables["jobs"], role_column=role_column)
    if len(tables) == 1:
        return jobs, None
    people = _Side(kind, path, reading, tables["applicants"], role_column=role_column, is_in_file_of_jobs=True)
    return jobs, people


def _role_column(table: Table) -> str | None:
    """The column whose cells are all ``job`` or ``applicant``, and which has both."""
    roles = set(ROLE_VALUES.values())
    for name in table.header:
        cells = [row.get(name) for _, row in islice(table.filled(), _SAMPLE)]
        may_be = all(isinstance(cell, str) and cell.strip() in roles for cell in cells)
        if may_be and {str(row.get(name)).strip() for _, row in table.filled()} == roles:
            return name
    return None


def _applicants(kind: str, path: str, reading: Reading) -> _Side:
    """The rows of the file of the people."""
    if kind in ("market", "onet", "esco"):
        raise MarketError(f"{path} is a market of its own, not a file of applicants.")
    return _Side(kind, path, reading, read_table(path, reading, kind=kind, side="applicants"))


def _find(side: _Side, told: Mapping[str, Any], context: Mapping[str, Any], told_of_both: bool) -> None:
    """Finds the columns of a side.

    Args:
        side: The rows, of which nothing else is known.
        told: The columns of fields that the user named.
        context: The columns of the context that the user named.
        told_of_both: Whether the user named columns without saying of which side.
    """
    table = side.table
    if not table.rows:
        raise MarketError(f"{table.file} has no rows.")
    side.columns = _told_columns(table, told, told_of_both)
    side.context = {name: str(column) for name, column in _told_columns(table, context, told_of_both).items()}
    free = [name for name in table.header if name not in side.taken()]
    has_both_sides = side.role_column is not None
    filled = [name for name in free if not (has_both_sides and all(map(is_nothing, table.column(name))))]
    # A column of the other side is empty here. If its name is that of a field, it must be mapped all the same.
    others = [name for name in free if name not in filled and plain_name(name) in FIELDS]
    found = find_columns(others) | find_columns(filled)
    # A description may also be read as skills.
    may_describe = [*filled, *side.names("hard", "soft")]
    found |= find_columns(may_describe, {"description": USUAL_NAMES["description"]})
    side.columns |= {name: column for name, column in found.items() if name not in told}
    contexts = {name: usual for name, (_, usual) in _CONTEXT.items() if name not in side.context}
    taken = side.taken()
    side.context |= {name: column for name, column in find_columns(filled, contexts).items() if column not in taken}
    if side.kind in ("json-resume", "job-posting"):
        return
    side.notes += _doubt_of_units(side, table)
    if "family" in side.columns and "occupation" not in side.columns:
        side.columns["occupation"] = side.columns.pop("family")
    _find_skills(side, table, told)


def _told_columns(table: Table, told: Mapping[str, Any], of_both: bool) -> dict[str, str | list[str]]:
    """The columns that a user named.

    Raises:
        MarketError: For a column that the file does not have, or several columns for a field that takes one.
    """
    found: dict[str, str | list[str]] = {}
    for name, columns in told.items():
        listed = [columns] if isinstance(columns, str) else columns
        is_list = isinstance(listed, Collection) and all(isinstance(column, str) for column in listed)
        if not is_list or (name not in ("hard", "soft") and len(listed) != 1):
            raise MarketError(f"`columns[{name!r}]` must be the name of a column, got {columns!r:.80}.")
        for column in listed:
            if not has_column(table.header, normal_form(column)):
                way_out = (
                    f" If only one of the two sides has the column, put the side before the field: "
                    f"`--columns jobs.{name}=... "
                    f"applicants.{name}=...`, in Python `columns={{'jobs': {{{name!r}: ...}}}}`."
                )
                raise MarketError(f"{no_such_column(table.file, column, table.header)}{way_out if of_both else ''}")
        names = [normal_form(column) for column in listed]
        found[name] = names[0] if len(names) == 1 else names
    return found


def _doubt_of_units(side: _Side, table: Table) -> list[str]:
    """The note on a column of salaries if another column says that not all of them are paid for the same time."""
    salary, unit = side.context.get("salary"), find_columns(table.header, {"unit": _UNITS}).get("unit")
    if salary is None or unit is None or _plain(salary) in _YEARLY:
        return []
    cells = [str(row.get(unit)).strip() for _, row in table.rows if not is_nothing(row.get(unit))]
    found = {cell.casefold(): cell for cell in reversed(cells)}  # the first spelling of each unit
    if len(found) < 2:
        return []
    named = f"{', '.join(map(repr, sorted(found.values())[:4]))}{', ...' if len(found) > 4 else ''}"
    return [
        f"{salary!r} is not paid for the same time in all rows, {unit!r} says {named}: turn the salaries into yearly "
        "pay first"
    ]


def _find_skills(side: _Side, table: Table, told: Mapping[str, Any]) -> None:
    """Finds the columns of skills, whether those of hard skills are free text, and each column's separator of skills.

    Columns that the user has ``told`` are kept, however empty they are.
    """
    if "hard" not in side.columns and "soft" not in side.columns:
        column = _text_column(side, table)
        if column is None:
            raise MarketError(
                f"{table.file}: no column looks like skills or like a description. It has "
                f"{', '.join(map(repr, table.header))}. Say which column it is: `load_market('{side.source}', "
                "columns={'hard': ...})`, with `text_columns=['hard']` if it is free text; "
                f"`jobrec look {side.path} --columns hard=...` looks again. Give your other files and options "
                "again; for one of two files say `jobs.hard=...` or `applicants.hard=...`."
                f"{''.join(f' Of {side.path}, {note}.' for note in _foreign_headings(side))}"
            )
        side.columns["hard"] = column
        side.is_text = True
    for block in ("hard", "soft"):
        if block == "hard" and side.is_text:
            continue
        for column in side.names(block):
            cells = _cells(table, column, _SAMPLE)
            separator, is_text = _separator([cell for cell in cells if isinstance(cell, str) and not is_nothing(cell)])
            if separator:
                side.separators[column] = separator
            if block == "hard":
                side.is_text |= is_text
    skills = side.names("hard", "soft")
    side.n_empty = _n_empty(table, skills)
    instead = None if "hard" in told else _text_column(side, table)
    if 2 * side.n_empty > len(table.rows) and instead and (n_empty := _n_empty(table, [instead])) < side.n_empty / 2:
        named = " and ".join(map(repr, skills))
        n = f"{side.n_empty:,} of {len(table.rows):,}"
        side.notes.append(f"{named}: empty in {n} rows; the free text {instead!r} is taken")
        if not _is_read_by_name(side, "soft", str(side.columns.get("soft"))):
            side.columns.pop("soft", None)
        side.columns["hard"], side.is_text, side.separators = instead, True, {}
        side.n_empty = n_empty
    if side.n_empty:
        side.notes.append(f"{side.n_empty:,} of {len(table.rows):,} rows have no skills")


def _foreign_headings(side: _Side) -> list[str]:
    """The note on columns that are not used, but have headings that are usual in another language."""
    known = side.columns.keys() | side.context.keys()
    if side.prefix == "applicants.":  # only jobs have dates
        known |= set(DATE_FIELDS)
    free = [name for name in MARKET_HEADINGS if name not in known]
    taken = side.taken()
    perhaps = proposed_columns([name for name in side.table.header if name not in taken], free, MARKET_HEADINGS)
    if not perhaps:
        return []
    typed = shlex.join(f"{side.prefix}{name}={column}" for name, column in perhaps.items())
    return [f"some columns are not read, but their names are usual in another language: `--columns {typed}` reads them"]


def _find_dates(jobs: _Side) -> None:
    """Finds the columns of the dates that jobs may have, among the columns that have no other use."""
    taken = jobs.taken()
    found = find_columns([name for name in jobs.table.header if name not in taken], _DATES)
    jobs.columns |= {name: column for name, column in found.items() if name not in jobs.columns}


def _text_column(side: _Side, table: Table) -> str | None:
    """A column of free text that can replace skills."""
    described = next(iter(side.names("description")), None)
    return find_columns(table.header, {"hard": _TEXT_INSTEAD}).get("hard") or described


def _n_empty(table: Table, columns: Sequence[str]) -> int:
    return sum(all(map(_is_empty, cells)) for cells in zip(*(_cells(table, column) for column in columns), strict=True))


def _cells(table: Table, column: str, n: int | None = None) -> list[Any]:
    """The first ``n`` cells of a column, or all of them; for ``skills.name`` the entries ``name`` in ``skills``."""
    reader = CellReader(table.file, CellRules(), table.header)
    rows = table.rows if n is None else table.rows[:n]
    return [reader.cell(row, column, f"{table.file}, row {number}") for number, row in rows]


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, list):
        return all(map(is_nothing, cell))
    return is_nothing(cell) or (isinstance(cell, str) and cell.strip() in ("[]", "{}"))


def _separator(cells: Sequence[str]) -> tuple[str | None, bool]:
    """The separator of skills in cells (``None`` if there is none), and whether the cells are free text."""
    cells = [cell for cell in cells if not cell.lstrip().startswith(("[", "{", "array(["))]
    if not cells:
        return None, False
    lengths = {separator: [_parts(cell, separator) for cell in cells if separator in cell] for separator in _SEPARATORS}
    # A cell is a list if all its parts are short; in prose some parts are long.
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
    rows = side.table.rows
    lines = [f"{side.path}: {side.kind}, {len(rows):,} {name}, {len(side.table.header)} columns"]
    example = rows[0][1]
    header = side.table.header
    of = {side.role_column: "role_column"} if side.role_column else {}
    of |= {column: name for name, column in side.context.items()} | {
        column if column in header else column.partition(".")[0]: name
        for name in side.columns
        for column in side.names(name)
    }
    width = max(map(len, side.table.header))
    for column in side.table.header:
        what = of.get(column, "")
        if what == "hard" and side.is_text:
            what = "hard, free text"
        elif column in side.context.values():
            what = f"context: {what}"
        also = " and description" if column in side.names("description") and "description" not in what else ""
        lines.append(f"  {_shown(column):{width}}  {what + also:20}  {_shown(str(example.get(column, '')))}".rstrip())
    return [*lines, *(f"  ! {note}" for note in side.notes)]


def _shown(text: str) -> str:
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * _EXAMPLE]).split())
    return line if len(line) <= _EXAMPLE else f"{line[: _EXAMPLE - 1]}…"


def _options(jobs: _Side, people: _Side | None, cells: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords by which the files are read; ``cells`` are those that the user gave for cells."""
    options: dict[str, Any] = {"role_column": jobs.role_column} if jobs.role_column else {}
    sides = {"jobs": jobs} | ({"applicants": people} if people else {})
    columns = {name: _mapped(side) for name, side in sides.items()}
    if any(columns.values()):
        options["columns"] = columns if people else columns["jobs"]
    texts = {name: ["hard"] for name, side in sides.items() if side.is_text}
    if texts:
        options["text_columns"] = texts if people else ["hard"]
    separators = {separator for side in sides.values() for separator in side.separators.values()}
    if len(separators) == 1 and separators != {";"}:  # the default needs no argument
        options["skill_separator"] = separators.pop()
    encodings = {name: side.reading.encoding for name, side in sides.items() if side.reading.encoding}
    if encodings:
        same = len(encodings) == len(sides) and len(set(encodings.values())) == 1
        options["encoding"] = next(iter(encodings.values())) if same else encodings
    if jobs.reading.delimiter:
        options["delimiter"] = jobs.reading.delimiter
    options |= cells
    if any(side.n_empty for side in sides.values()):
        options["on_empty"] = "skip"
    if people:
        shared = [name for name in _CONTEXT if name in jobs.context and name in people.context]
        if shared:
            options["context"] = {name: _compared(name, people.context[name], jobs.context[name]) for name in shared}
    return options


def _mapped(side: _Side) -> dict[str, str | list[str]]:
    return {name: column for name, column in side.columns.items() if name != column}


def _compared(name: str, of_people: str, of_jobs: str) -> str | tuple[str, str, str]:
    kind = _CONTEXT[name][0]
    return kind if of_people == of_jobs == name else (kind, of_people, of_jobs)


def _loaded(
    jobs: _Side, people: _Side | None, cells: Mapping[str, Any], said: list[logging.LogRecord]
) -> tuple[LabourMarket, dict[str, Any]]:
    """The market without vectors, and the keywords by which it was loaded; unreadable columns are left out.

    What the loaders ``said`` of a call that failed, because of such a column, is forgotten.
    """
    said_before = len(said)
    while True:
        options = _options(jobs, people, cells)
        try:
            return _without_vectors(jobs, people, options), options
        except MarketError as error:
            if not any(_let_go(side, str(error)) for side in (jobs, people) if side):
                raise MarketError(f"{error} What was tried: {_call(jobs, people, options)}") from error
            del said[said_before:]


@contextmanager
def _said_once() -> Iterator[list[logging.LogRecord]]:
    """Holds the log lines of the loaders back until the block ends.

    Repeated lines are dropped, because a file may be read several times.
    """
    loaders = logging.getLogger(_LOADERS)
    held = _Held()
    passes_on, loaders.propagate = loaders.propagate, False
    loaders.addHandler(held)
    try:
        yield held.records
    finally:
        loaders.removeHandler(held)
        loaders.propagate = passes_on
        if passes_on and loaders.parent:
            for record in {record.getMessage(): record for record in held.records}.values():
                loaders.parent.handle(record)


def _is_people(side: _Side) -> bool:
    """Whether the rows of a single file are people. The kind of the file tells."""
    return side.kind == "json-resume"


def _without_vectors(jobs: _Side, people: _Side | None, options: Mapping[str, Any]) -> LabourMarket:
    options = {**options, "encoder": _NoEncoder(), "cache_dir": False}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        nobody = Path(scratch) / "nobody.jsonl"
        # Either both sides say their split, or neither does.
        row = {"hard": ["nothing"]} | ({"split": "train"} if "split" in jobs.columns else {})
        nobody.write_text(json.dumps(row), encoding="utf-8")
        if not people:  # these options are for the user's file, and not for `nobody.jsonl`
            side = "applicants" if _is_people(jobs) else "jobs"
            per_side = [name for name in ("columns", "text_columns", "encoding") if name in options]
            options |= {name: {side: options[name]} for name in per_side}
        alone = f"jsonl:{nobody}"
        if people and people.is_in_file_of_jobs:
            market = load_table(jobs.source, **options)
        elif people:
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
        Whether the side's file has such a column, and ``load_table`` does not read it by its name.
    """
    for name in side.context:
        if complaint.startswith(f"the context field {name!r} "):  # both sides are right, but not beside one another
            del side.context[name]
            side.notes.append(f"{name} is not compared: {complaint}")
            return True
    # The other side's file may have a column of the same name, and that column may be right.
    if not complaint.startswith(f"{side.table.file}, ") and f"in {side.table.file}, row" not in complaint:
        return False
    # One table may have both sides. The complaint is then of the side that has the row.
    row = re.search(rf"{re.escape(side.table.file)}, row (\d+)", complaint)
    if side.role_column and row and int(row[1]) not in {number for number, _ in side.table.rows}:
        return False
    repeated = complaint.startswith("key ") and "appears twice" in complaint
    is_torn = complaint.startswith("occupation ") and "is of family" in complaint
    for name in ("seniority", "key", "split", "occupation", "family", *_DATES):
        column = side.columns.get(name)
        is_meant = f"column {column!r}" in complaint or (repeated and name == "key") or (is_torn and name == "family")
        if column is not None and is_meant and not _is_read_by_name(side, name, str(column)):
            del side.columns[name]
            side.notes.append(f"{column!r} is not taken as {name}: {complaint}")
            return True
    for name, column in side.context.items():
        if f"column {column!r}" in complaint:
            del side.context[name]
            side.notes.append(f"{column!r} is not compared as {name}: {complaint}")
            return True
    return False


def _is_read_by_name(side: _Side, name: str, column: str) -> bool:
    """Whether a column of a field cannot be left out by not mapping it.

    Without a mapping the loader reads a column that is called like a field, and refuses one that is nearly called so.
    Only the columns of dates are read leniently.
    """
    if name in DATE_FIELDS:
        return False
    return plain_name(column) in FIELDS or any(plain_name(other) == name for other in side.table.header)


def _call(jobs: _Side, people: _Side | None, options: Mapping[str, Any]) -> str:
    """The text of the call of ``load_market``."""
    given = {name: value for name, value in options.items() if name not in ("encoder", "cache_dir")}
    arguments = [_typed(jobs.source)]
    if people:
        arguments += [] if people.is_in_file_of_jobs else [f"applicants={_typed(people.source)}"]
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
