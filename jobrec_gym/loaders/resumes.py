"""Reads JSON Resume (https://jsonresume.org/schema), one file or a folder of them, as a table of people."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobrec_gym.loaders.documents import describe_instead, files_of
from jobrec_gym.loaders.reading import Reading, Table, json_rows, stem_of
from jobrec_gym.loaders.tables import load_table
from jobrec_gym.market import LabourMarket, MarketError
from jobrec_gym.paths import place_of

__all__ = ["RESUME_COLUMNS", "load_json_resume", "read_resume", "read_resumes"]

RESUME_COLUMNS = (
    *("key", "title", "hard", "soft", "experience", "description"),
    *("place", "region", "country", "languages", "degrees", "years", "updated"),
)
"""Columns of a résumé's row: fields of a market, and columns for its context."""

_ENDINGS = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz")
_SECTIONS = ("basics", "work", "skills", "education", "projects", "volunteer", "languages")
# Names that people and their tools give to a group of soft skills.
_SOFT = re.compile(r"\b(soft|personal|interpersonal|social|people|transferable)\b|^communication$", re.IGNORECASE)
_DATE = re.compile(r"^(\d{4})(?:-(\d{2}))?")
_GOES_ON = re.compile(r"(?:to |until |till )?(?:present|current|currently|now|today|date|ongoing)\.?", re.IGNORECASE)
"""What people write in place of the date at which work ended."""


def load_json_resume(
    path: str | os.PathLike[str], *, jobs: str | os.PathLike[str] | None = None, **options: Any
) -> LabourMarket:
    """A market of people from JSON Resume and jobs from another file. :func:`read_resumes` says what is read.

    Args:
        path: File or folder of the people.
        jobs: The file of the jobs, read by its own ending or scheme. Without it, these people take the place of jobs:
            they are recommended to the rows of ``applicants``.
        **options: As in :func:`~jobrec_gym.loaders.tables.load_table`, such as ``context={"place": "category"}``.

    Raises:
        MarketError: As :func:`read_resumes` and :func:`~jobrec_gym.loaders.tables.load_table`.

    Example:
        >>> load_json_resume("people/", jobs="job-posting:jobs/")  # doctest: +SKIP
    """
    if jobs is None:
        return load_table(path, kind="json-resume", **options)
    if "applicants" in options:
        raise MarketError(f"{path}: with `jobs`, these people are the applicants: leave `applicants` out.")
    return load_table(jobs, applicants=f"json-resume:{os.fspath(path)}", **options)


def read_resumes(path: str | os.PathLike[str], reading: Reading | None = None) -> Table:
    """The people of a file of JSON Resume, or of a folder of such files.

    * ``key``: the file's name without its ending, and the number of the résumé if a file has several. Names, addresses
      and e-mails are not read.
    * ``title``: ``basics.label``, else the latest position. ``hard``: the names and keywords of ``skills``; those of a
      group called soft, personal, social or the like are ``soft``. If somebody lists no skills, the description takes
      their place as one free text. A log line says for how many people this was done.
    * ``description``: the summary, then each position with its summary and highlights, and projects.
    * ``experience`` and ``years``: the total length of all work. Work that goes on (without ``endDate``, or with a word
      such as ``Present`` in it) ends with the latest date in the résumé. Work whose dates cannot be read does not
      count.
    * For the context: ``place``, ``region`` and ``country`` of ``basics.location``, ``languages``, ``degrees``, and
      ``updated``, the date of ``meta.lastModified``.

    Args:
        path: A JSON file of one résumé or a list of them, JSON lines, or a folder of such files. Other JSON files in a
            folder are skipped.
        reading: How files are read.

    Raises:
        MarketError: For a file that cannot be read or holds no résumé, and a folder without any.
    """
    place = place_of(path)
    files = files_of(place, _ENDINGS)
    rows: list[tuple[int, dict[str, Any]]] = []
    for file in files:
        found = [value for _, value in json_rows(file, reading or Reading())]
        if len(found) == 1 and isinstance(found[0], list):
            found = found[0]
        resumes = [value for value in found if _is_resume(value)]
        if len(files) == 1 and len(resumes) < len(found):
            raise MarketError(
                f"{file}: holds something that is no résumé of JSON Resume; such a résumé has some of "
                f"{', '.join(map(repr, _SECTIONS))}, see https://jsonresume.org/schema."
            )
        stem = stem_of(file)
        for number, resume in enumerate(resumes, start=1):
            key = stem if len(resumes) == 1 else f"{stem}-{number}"
            rows.append((len(rows) + 1, {"key": key, **_row(resume)}))
    if not rows:
        raise MarketError(f"{place} has no file of JSON Resume (they end in {', '.join(_ENDINGS)}).")
    describe_instead(place, [row for _, row in rows])
    return Table(str(place), list(RESUME_COLUMNS), rows)


def read_resume(resume: Any) -> dict[str, Any]:
    """The row of one résumé that is in memory, as :func:`read_resumes` would read it. It logs nothing.

    Args:
        resume: The parsed JSON.

    Returns:
        The entries of :data:`RESUME_COLUMNS` except ``key``. Without listed skills ``hard`` and ``soft`` are empty.

    Raises:
        MarketError: If it is not a résumé.

    Example:
        >>> row = read_resume({"basics": {"label": "Nurse"}, "skills": [{"name": "wound care"}]})
        >>> row["title"], row["hard"]
        ('Nurse', ['wound care'])
    """
    if not _is_resume(resume):
        raise MarketError(
            f"`resume` must be a JSON object with some of {', '.join(map(repr, _SECTIONS))}, got {resume!r:.80}: see "
            "https://jsonresume.org/schema."
        )
    return _row(resume)


def _is_resume(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(value.get(name), (list, Mapping)) for name in _SECTIONS)


def _row(resume: Mapping[str, Any]) -> dict[str, Any]:
    basics = _object(resume.get("basics"))
    location = _object(basics.get("location"))
    work = sorted(_objects(resume.get("work")), key=_ends, reverse=True)
    hard, soft = _skills(_objects(resume.get("skills")))
    months = _months(work, _latest(resume))
    positions = [_text(job.get("position")) for job in work]
    return {
        "title": _text(basics.get("label")) or next(filter(None, positions), ""),
        "hard": hard,
        "soft": soft,
        "experience": "" if months is None else _phrase(months),
        "description": _description(basics, work, _objects(resume.get("projects"))),
        "place": _text(location.get("city")),
        "region": _text(location.get("region")),
        "country": _text(location.get("countryCode")),
        "languages": _named(resume.get("languages"), "language"),
        "degrees": _named(resume.get("education"), "studyType"),
        "years": None if months is None else round(months / 12, 1),
        "updated": _text(_object(resume.get("meta")).get("lastModified"))[:10],
    }


def _skills(groups: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Hard and soft skills, each once, in the order of the résumé."""
    hard: dict[str, None] = {}
    soft: dict[str, None] = {}
    for group in groups:
        name, keywords = _text(group.get("name")), [_text(word) for word in _list(group.get("keywords"))]
        is_soft = bool(_SOFT.search(name))
        # "Soft skills" is only the heading of a list; "Web development" is a skill too.
        named = [] if is_soft and keywords else [name]
        (soft if is_soft else hard).update(dict.fromkeys(word for word in (*named, *keywords) if word))
    return list(hard), list(soft)


def _description(
    basics: Mapping[str, Any], work: Sequence[Mapping[str, Any]], projects: Sequence[Mapping[str, Any]]
) -> str:
    parts = [_text(basics.get("summary"))]
    for job in work:
        parts.append(_sentence(job.get("position")))
        parts += [_text(job.get("summary")), *map(_text, _list(job.get("highlights")))]
    for project in projects:
        parts.append(_sentence(project.get("name")))
        parts += [_text(project.get("description")), *map(_text, _list(project.get("highlights")))]
    return "\n".join(part for part in parts if part)


def _sentence(value: Any) -> str:
    text = _text(value)
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _months(work: Sequence[Mapping[str, Any]], latest: int | None) -> int | None:
    """How many months the spans of work cover together; ``None`` if no date is known."""
    spans: list[tuple[int, int]] = []
    for job in work:
        start, end = _month(job.get("startDate")), _month(job.get("endDate"))
        if _goes_on(job):
            end = latest
        if start is not None and end is not None:
            spans.append((start, end))
    months, until = 0, -1
    for start, end in sorted(spans):
        months += max(0, end - max(start, until))
        until = max(until, end)
    return months or None


def _latest(resume: Mapping[str, Any]) -> int | None:
    return max((month for text in _dates(resume) if (month := _month(text)) is not None), default=None)


def _dates(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in ("startDate", "endDate", "date", "releaseDate", "lastModified"):
                yield inner
            else:
                yield from _dates(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _dates(inner)


def _month(value: Any) -> int | None:
    """A date, ``2020-03-01``, ``2020-03`` or ``2020``, as a count of months."""
    found = _DATE.match(_text(value))
    return int(found[1]) * 12 + int(found[2] or 1) - 1 if found else None


def _ends(job: Mapping[str, Any]) -> tuple[int, int]:
    """A key for sorting. Work that goes on counts as the latest; work whose end cannot be read ends as it starts."""
    start, end = _month(job.get("startDate")) or 0, _month(job.get("endDate"))
    return 10**6 if _goes_on(job) else start if end is None else end, start


def _goes_on(job: Mapping[str, Any]) -> bool:
    end = job.get("endDate")
    return not end or (isinstance(end, str) and (not end.strip() or _GOES_ON.fullmatch(end.strip()) is not None))


def _phrase(months: int) -> str:
    years = months // 12
    return "less than 1 year" if years == 0 else "1 year" if years == 1 else f"{years} years"


def _named(values: Any, field: str) -> list[str]:
    return list(dict.fromkeys(text for value in _objects(values) if (text := _text(value.get(field)))))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list. Some exporters write a text instead, which becomes an object with that name."""
    return [entry if isinstance(entry, Mapping) else {"name": entry, "language": entry} for entry in _list(value)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
