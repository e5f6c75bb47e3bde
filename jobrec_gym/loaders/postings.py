"""Reads JobPosting of schema.org (https://schema.org/JobPosting) as a table, from JSON-LD files or HTML pages."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from jobrec_gym.loaders.amounts import TIMES_A_YEAR, period_of
from jobrec_gym.loaders.documents import describe_instead, files_of, html_text
from jobrec_gym.loaders.files import decoding, open_text
from jobrec_gym.loaders.reading import Reading, Table, json_rows, stem_of
from jobrec_gym.loaders.tables import load_table
from jobrec_gym.market import LabourMarket, MarketError
from jobrec_gym.paths import place_of

__all__ = ["POSTING_COLUMNS", "load_job_posting", "read_postings"]

POSTING_COLUMNS = (
    *("key", "title", "hard", "experience", "occupation", "description"),
    *("place", "region", "country", "remote", "salary", "currency", "company", "employment_type", "industry"),
    *("posted", "valid_through", "expires", "url"),
)
"""Columns of a posting's row: fields of a market, and columns for its context."""

_JSON_ENDINGS = (".json", ".jsonld", ".jsonl", ".ndjson", ".json.gz", ".jsonld.gz", ".jsonl.gz")
_PAGE_ENDINGS = (".html", ".htm", ".xhtml", ".html.gz")
_VOCABULARY = re.compile(r"^(?:https?://schema\.org/|schema:)")
_SEPARATORS = ("\n", ";", "•", "·", "|", ",")
_MAX_SKILL = 6  # words; a longer part of a text is a sentence, not a skill
_DEEPEST = 4  # how many references to references are followed
_TOO_DEEP = "holds brackets in brackets too deep to read"
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")
"""A number whose commas separate thousands, also as in India: ``1,50,000``. A comma is no decimal sign in JSON-LD."""


def load_job_posting(path: str | os.PathLike[str], **options: Any) -> LabourMarket:
    """A market of jobs from schema.org's JobPosting. :func:`read_postings` says what is read.

    Args:
        path: File or folder of the jobs.
        **options: As in :func:`~jobrec_gym.loaders.tables.load_table`: ``applicants`` or ``n_applicants``, and others
            such as ``context={"place": "category", "salary": ("number", "wanted_salary", "salary")}``.

    Raises:
        MarketError: As :func:`read_postings` and :func:`~jobrec_gym.loaders.tables.load_table`.

    Example:
        >>> load_job_posting("jobs/", applicants="json-resume:people/")  # doctest: +SKIP
    """
    return load_table(path, kind="job-posting", **options)


def read_postings(path: str | os.PathLike[str], reading: Reading | None = None) -> Table:
    """The jobs of a JSON-LD file, of an HTML page with JSON-LD, or of a folder of both.

    * Postings are found alone, in lists, in ``@graph``, in an ``ItemList``, and in the scripts ``application/ld+json``
      of a page. References by ``@id`` are looked up in the same file.
    * ``key``: the first of ``identifier``, ``@id`` and ``url`` that tells all postings apart; else the file's name and
      a number. Then ``title``, ``occupation`` (``relevantOccupation`` or ``occupationalCategory``) and ``experience``.
    * ``hard``: ``skills``, a list or a text. A text is split at its separators if all parts are short (at most 6
      words). If a posting has no skills, its description takes their place as one free text. A log line says for how
      many postings this was done.
    * ``description``: as text, without its HTML. Responsibilities and qualifications are appended unless it already
      contains them.
    * For the context: ``place``, ``region``, ``country``, ``remote``, ``salary`` (per year: the middle of the range,
      with 2,080 hours in a year; a salary without a unit counts as one per year; empty if the unit is an unknown word,
      or if the salary is not a plain number: ``15,50`` is not one), ``currency``, ``company``, ``employment_type``,
      ``industry``, ``posted``, ``valid_through`` and ``url``.
    * The dates of a job are ``posted`` (the day of ``datePosted``) and ``expires`` (``validThrough``, with its time of
      day if it has one).

    Args:
        path: A file or a folder.
        reading: How files are read.

    Raises:
        MarketError: For a file that cannot be read, and a file or folder without any posting.
    """
    place = place_of(path)
    reading = reading or Reading()
    found: list[tuple[str, dict[str, Any]]] = []
    for file in files_of(place, (*_JSON_ENDINGS, *_PAGE_ENDINGS)):
        nodes = list(_postings(file, reading))
        stem = stem_of(file)
        found += [(stem if len(nodes) == 1 else f"{stem}-{number}", node) for number, node in enumerate(nodes, start=1)]
    if not found:
        raise MarketError(
            f'{place} has no JobPosting of schema.org: neither JSON-LD with "@type": "JobPosting" nor a page with '
            "such a script. Microdata and RDFa are not read."
        )
    keys = _keys(found)
    rows = [
        (number, {"key": key, **_row(node)}) for number, (key, (_, node)) in enumerate(zip(keys, found, strict=True), 1)
    ]
    describe_instead(place, [row for _, row in rows])
    return Table(str(place), list(POSTING_COLUMNS), rows)


# ---------------------------------------------------------------------------------------------------------------- files


def _postings(file: Path, reading: Reading) -> Iterator[dict[str, Any]]:
    """The postings of a file, with references by ``@id`` resolved."""
    if file.name.lower().endswith(_PAGE_ENDINGS):
        values = list(_scripts(file, reading))
    else:
        values = [value for _, value in json_rows(file, reading)]
    try:
        nodes = [_plain(value) for value in values]
        known = {node["@id"]: node for node in _objects(nodes) if isinstance(node.get("@id"), str) and len(node) > 1}
        references = _References(known)
        for node in _objects(nodes):
            if _is_posting(node):
                yield {name: references.resolved(value) for name, value in node.items()}
    except RecursionError:
        raise MarketError(f"{file}: {_TOO_DEEP}.") from None


def _scripts(file: Path, reading: Reading) -> Iterator[Any]:
    page = _Scripts()
    with (
        decoding(file, reading.encoding, reading.max_bytes),
        open_text(file, reading.encoding, reading.max_bytes) as stream,
    ):
        page.feed(stream.read())
    page.close()
    for number, script in enumerate(page.scripts, start=1):
        text = script.strip().removeprefix("<!--").removesuffix("-->").strip()
        text = text.removeprefix("//<![CDATA[").removesuffix("//]]>").strip().rstrip(";")
        if not text:
            continue
        try:
            # Sites write line breaks into texts, which strict JSON does not allow.
            yield json.loads(text, strict=False)
        except ValueError as error:
            raise MarketError(f"{file}, script {number} of application/ld+json: no JSON: {error}.") from None
        except RecursionError:
            raise MarketError(f"{file}, script {number} of application/ld+json: {_TOO_DEEP}.") from None


class _Scripts(HTMLParser):
    """Collects the scripts of JSON-LD of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.scripts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kind = (dict(attrs).get("type") or "").partition(";")[0].strip().lower()
        if tag == "script" and kind == "application/ld+json":
            self._inside = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


# ---------------------------------------------------------------------------------------------------------------- nodes


def _plain(value: Any) -> Any:
    """A value in which schema.org's names have no address before them, and ``{"@value": x}`` is x."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        if "@value" in value:
            return value["@value"]
        return {_VOCABULARY.sub("", str(name)): _plain(entry) for name, entry in value.items()}
    return value


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a value, at any depth, in the order of the file."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            value = list(value.values())
        if isinstance(value, list):
            waiting += reversed(value)


def _is_posting(node: Mapping[str, Any]) -> bool:
    kinds = node.get("@type")
    return any(
        _VOCABULARY.sub("", str(kind)) == "JobPosting" for kind in (kinds if isinstance(kinds, list) else [kinds])
    )


class _References:
    """Puts objects in the place of references to them.

    Args:
        known: The objects by ``@id``.
    """

    def __init__(self, known: Mapping[str, Any]):
        self._known = known
        # Each object is resolved once for each depth. Without this, objects that refer to one another would be
        # resolved anew for each path.
        self._found: dict[tuple[str, int], Any] = {}

    def resolved(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, list):
            return [self.resolved(entry, depth) for entry in value]
        if isinstance(value, dict):
            name = value.get("@id")
            # The depth is bounded, so that a ring of references ends.
            if depth < _DEEPEST and len(value) == 1 and isinstance(name, str) and name in self._known:
                if (name, depth) not in self._found:
                    self._found[name, depth] = self.resolved(self._known[name], depth + 1)
                return self._found[name, depth]
            return {field: self.resolved(entry, depth) for field, entry in value.items()}
        return value


# ----------------------------------------------------------------------------------------------------------------- rows


def _keys(found: list[tuple[str, dict[str, Any]]]) -> list[str]:
    by_field = (
        [_text(node.get("identifier"), "value", "@id", "name") for _, node in found],
        [_text(node.get("@id")) for _, node in found],
        [_text(node.get("url")) for _, node in found],
    )
    for keys in by_field:
        if all(keys) and len(set(keys)) == len(keys):
            return keys
    # Two files of one name may differ by their ending.
    names: dict[str, int] = {}
    keys = []
    for name, _ in found:
        names[name] = names.get(name, 0) + 1
        keys.append(name if names[name] == 1 else f"{name} ({names[name]})")
    return keys


def _row(node: Mapping[str, Any]) -> dict[str, Any]:
    address = _address(node.get("jobLocation"))
    salary, currency = _salary(node.get("baseSalary") or node.get("estimatedSalary"), node.get("salaryCurrency"))
    occupation = _text(node.get("relevantOccupation"), "name") or _text(node.get("occupationalCategory"), "name")
    kinds = [kind.upper() for kind in _texts(node.get("jobLocationType"))]
    return {
        "title": html_text(_text(node.get("title")) or _text(node.get("name"))),
        "hard": _skills(node.get("skills")),
        "experience": _experience(node.get("experienceRequirements")),
        "occupation": occupation,
        "description": _description(node),
        "place": _text(address.get("addressLocality")),
        "region": _text(address.get("addressRegion"), "name"),
        "country": _text(address.get("addressCountry"), "name"),
        "remote": True if "TELECOMMUTE" in kinds else False if node.get("jobLocation") else None,
        "salary": salary,
        "currency": currency,
        "company": _text(node.get("hiringOrganization"), "name"),
        "employment_type": _texts(node.get("employmentType")),
        "industry": _text(node.get("industry"), "name"),
        "posted": _text(node.get("datePosted"))[:10],
        "valid_through": _text(node.get("validThrough"))[:10],
        "expires": _text(node.get("validThrough")),
        "url": _text(node.get("url")),
    }


def _skills(value: Any) -> list[str]:
    found: dict[str, None] = {}
    for text in _texts(value, "name", "termCode"):
        text = html_text(text)
        parts = [text]
        for separator in _SEPARATORS:
            some = [part.strip(" \t-*•·") for part in text.split(separator)]
            if len(some) > 1 and all(len(part.split()) <= _MAX_SKILL for part in some):
                parts = some
                break
        found.update(dict.fromkeys(part for part in parts if part))
    return list(found)


def _description(node: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for name in ("description", "responsibilities", "qualifications"):
        for text in map(html_text, _texts(node.get(name), "name", "description")):
            if text and not any(text in part for part in parts):
                parts.append(text)
    return "\n".join(parts)


def _experience(value: Any) -> str:
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        months = _number(value.get("monthsOfExperience"))
        if months is not None:
            years, rest = divmod(int(months), 12)
            return f"{years} years" if years > 1 and not rest else "1 year" if months == 12 else f"{int(months)} months"
    return html_text(_text(value, "name", "description"))


def _address(value: Any) -> Mapping[str, Any]:
    """The address of the first place. An address may be a text, which is then the locality."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        address = value.get("address", value)
        if isinstance(address, list):
            address = address[0] if address else {}
        return address if isinstance(address, dict) else {"addressLocality": address}
    return {"addressLocality": value}


def _salary(value: Any, currency: Any) -> tuple[float | None, str]:
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return _number(value), _text(currency)
    currency = _text(value.get("currency")) or _text(currency)
    amount = value.get("value", value)
    if not isinstance(amount, dict):
        amount = {"value": amount}
    ends = [end for name in ("minValue", "maxValue") if (end := _number(amount.get(name))) is not None]
    middle = _number(amount.get("value"))
    if middle is None and ends:
        middle = sum(ends) / len(ends)
    if middle is None:
        return None, currency
    units = [unit for node in (amount, value) for name in ("unitText", "unitCode") if (unit := _text(node.get(name)))]
    periods = [period for unit in units if (period := period_of(unit))]
    if units and not periods:
        return None, currency
    return middle * (TIMES_A_YEAR[periods[0]] if periods else 1), currency


def _number(value: Any) -> float | None:
    if isinstance(value, str) and _GROUPED.fullmatch(value.strip()):
        value = value.replace(",", "")
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def _texts(value: Any, *fields: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for entry in values if (text := _text(entry, *fields))]


def _text(value: Any, *fields: str) -> str:
    """A text or number as a text; for an object, its first field that has one; empty for anything else."""
    if isinstance(value, list):
        value = value[0] if value else ""
    if isinstance(value, dict):
        return next((text for field in fields if (text := _text(value.get(field)))), "")
    if isinstance(value, bool) or value is None:
        return ""
    return str(value).strip() if isinstance(value, (str, int, float)) else ""
