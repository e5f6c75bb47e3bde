"""Visitors: what is read from a form or a résumé, and a log of answers that loses nothing if the server is killed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from experiments.runs.folders import RunError, of_the_system, write_text
from jobrec_gym import LabourMarket
from jobrec_gym.loaders.resumes import read_resume
from jobrec_gym.shown_text import MOST_LETTERS
from jobrec_gym.simulators.base import DECISIONS

__all__ = [
    "MOST_SKILLS",
    "Answer",
    "Person",
    "VisitError",
    "VisitorFiles",
    "checked_decision",
    "person_of_resume",
    "skills_in_text",
]

MOST_SKILLS = 60
"""The largest number of skills of one visitor. Further skills are left out."""

T = TypeVar("T")

_END = b"\n"
_WORD = re.compile(r"[^\W_]+")
_COOKIE = re.compile(r"jobrec_visit_[0-9a-f]{16}")
_SPAN = 7  # how many digits in a row are private, if a phone number has them
_NO_WORDS = ("at", "dot", "http", "https", "www")  # a mail address or a link can be written with or without these


class VisitError(ValueError):
    """A visitor's input cannot be used. The message is shown to the visitor."""


@dataclass(frozen=True, slots=True)
class Person:
    """All that is known and kept about a visitor.

    Attributes:
        title: The occupation, as the visitor names it.
        hard: Hard skills.
        soft: Soft skills.
        level: 1 (entry) to 5 (lead); 0 if not given.
    """

    title: str
    hard: tuple[str, ...]
    soft: tuple[str, ...]
    level: int = 0

    @classmethod
    def checked(cls, title: str, skills: Sequence[str], market: LabourMarket, level: int = 0) -> Person:
        """A person from a visitor's input, shortened to allowed lengths.

        A skill that the market lists among its soft skills is soft; all others are hard.

        Raises:
            VisitError: If there is no skill, or the level is out of range.
        """
        if level not in range(6):
            raise VisitError(f"The level must be 1 to 5, or 0 for not said, and was {level}.")
        soft_words = {word.casefold() for word in market.vocabulary.soft_skills}
        words = dict.fromkeys(" ".join(skill.split())[:MOST_LETTERS] for skill in skills)
        listed = [word for word in words if _WORD.search(word)][:MOST_SKILLS]
        if not listed:
            raise VisitError("There must be at least one skill: tick some, or write your own.")
        soft = tuple(word for word in listed if word.casefold() in soft_words)
        hard = tuple(word for word in listed if word.casefold() not in soft_words)
        return cls(" ".join(title.split())[:MOST_LETTERS], hard, soft, level)

    def as_row(self, key: str) -> dict[str, Any]:
        """The person as a row for ``market.with_applicants`` and ``load_market``."""
        level = {"seniority": self.level} if self.level else {}
        return {"key": key, "title": self.title, "hard": list(self.hard), "soft": list(self.soft), **level}


@dataclass(frozen=True, slots=True)
class Answer:
    """A visitor's answer to one job.

    Attributes:
        job: The key of the job.
        decision: One of :data:`~jobrec_gym.simulators.base.DECISIONS`.
        shown: Keys of all jobs on the page, including this one.
    """

    job: str
    decision: str
    shown: tuple[str, ...]


def skills_in_text(text: str) -> list[str]:
    """The skills in a text, which commas, semicolons or line breaks separate."""
    return [part.strip() for part in re.split(r"[,;\n]", text) if part.strip()]


def person_of_resume(content: bytes, market: LabourMarket) -> Person:
    """Occupation title and skills of a JSON Resume. Nothing else from it is kept.

    A title or skill is left out if it contains a name, mail address, phone number, address or link of the résumé. Words
    are compared without the signs between them. Of a phone number seven digits in a row are compared, of a link host
    and path, and of an address also each street without its number, if need be abbreviated.

    Raises:
        VisitError: If the file is not a JSON Resume, or lists no skills.
    """
    try:
        resume = json.loads(content)
        row = read_resume(resume)
        private = list(_private_texts(resume.get("basics")))
    except (ValueError, RecursionError):
        raise VisitError("The file is no JSON Resume: see https://jsonresume.org/schema.") from None
    # One pattern for all words, because a file of thousands of names and skills would take minutes word by word.
    patterns = {pattern for name, text in private for pattern in _patterns(name, text)}
    said = re.compile(rf"(?<!\S)(?:{'|'.join(patterns)})(?!\S)") if patterns else None
    digits = {span for _, text in private for span in _spans(text)}

    def is_private(text: str) -> bool:
        alike = _alike(text)
        has_words = said is not None and said.search(" ".join(_words(alike))) is not None
        return "@" in alike or "://" in alike or has_words or not digits.isdisjoint(_spans(alike))

    skills = [skill for skill in (*row["hard"], *row["soft"]) if not is_private(skill)]
    if not skills:
        raise VisitError("The résumé lists no skills (its section skills): pick an occupation instead.")
    return Person.checked("" if is_private(row["title"]) else row["title"], skills, market)


def _private_texts(value: Any, name: str = "basics") -> Iterator[tuple[str, str]]:
    """Entries of the section ``basics`` that identify a person or their address: names and texts, in one spelling."""
    if isinstance(value, Mapping):
        for inner_name, inner in value.items():
            # "GitHub" is a network and also a skill; "IT" is Italy and also a skill. Neither identifies a person.
            if inner_name not in ("label", "summary", "image", "network", "countryCode"):
                yield from _private_texts(inner, inner_name)
    elif isinstance(value, list):
        for inner in value:
            yield from _private_texts(inner, name)
    elif isinstance(value, str | int):  # a phone number can be a number
        yield name, _alike(str(value))


def _patterns(name: str, text: str) -> Iterator[str]:
    """Regular expressions for an entry of ``basics``. They are searched in words with one space between them."""
    words = _words(text)
    if words:
        yield " ".join(words)
    if name == "name":
        yield from (word for word in words if len(word) > 2)
    elif name == "address":
        for part in re.split(r"[,;\n]", text):
            if street := [word for word in _words(part) if word.isalpha()]:
                yield _street(street)
    elif "/" in text and (link := _words(re.split("[?#]", text)[0])):
        yield " ".join(link)


def _street(words: Sequence[str]) -> str:
    """A regular expression for the words of a street. Its last word may lack letters: "Elm St", "Hauptstr"."""
    *first, last = words
    if not first:
        return f"{last.removesuffix('asse')}(?:asse)?"
    return " ".join([*first, last[0] + "".join(f"{letter}?" for letter in last[1:])])


def _spans(text: str) -> Iterator[str]:
    """All runs of as many digits as identify a phone number, whatever signs are between the digits."""
    for digits in re.findall(rf"\d{{{_SPAN},}}", re.sub(r"[\W_]", "", text)):
        yield from (digits[start : start + _SPAN] for start in range(len(digits) - _SPAN + 1))


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text) if word not in _NO_WORDS]


def _alike(text: str) -> str:
    """A text in lower case and in one spelling: an accent can be a letter's part or a sign of its own."""
    spelt = unicodedata.normalize("NFKC", text).casefold()
    letters = (str(int(letter)) if letter.isdecimal() else letter for letter in spelt)  # digits of other scripts
    return "".join(letter for letter in letters if unicodedata.category(letter) != "Cf")  # Cf: invisible signs


class VisitorFiles:
    """The files of all visitors. Each visitor has a folder with ``person.jsonl``, ``log.jsonl`` and ``somebody.json``.

    Beside these folders ``cookie.txt`` has the name of the visitors' cookie.

    A folder's name is the visitor's id. The id is a digest of the secret in the visitor's cookie, so that nobody can
    take over a visit by reading its log.

    Args:
        folder: Where the folders are. It is made when the first visitor comes, if it does not exist.
        most: The largest number of visitors that are kept; ``None`` for any number.
    """

    def __init__(self, folder: Path, most: int | None = None):
        self._folder = folder
        self._most = most
        self._adding = threading.Lock()

    @staticmethod
    def id_of(secret: str) -> str:
        """The id of the visitor with this secret."""
        return hashlib.sha256(secret.encode()).hexdigest()[:20]

    def cookie(self) -> str:
        """The name of the cookie with a visitor's secret. It is chosen once, at random, and stays with the folder.

        Browsers send a cookie to all ports of a host. With one name two servers would replace each other's cookies.

        Raises:
            RunError: If the file with the name is not whole.
            OSError: If it cannot be written.
        """
        file = self._folder / "cookie.txt"
        if not file.exists():
            write_text(file, f"jobrec_visit_{secrets.token_hex(8)}")
        name = file.read_bytes().decode(errors="replace").strip()
        if not _COOKIE.fullmatch(name):
            raise RunError(
                f"{file} must have the name of the visitors' cookie, jobrec_visit_ and 16 hexadecimal digits, and has "
                f"{name!r:.40}. Put it right. If you remove it, a new name is chosen, and no earlier visit is found."
            )
        return name

    def add(self, visitor_id: str, person: Person) -> None:
        """Keeps a new visitor.

        Raises:
            VisitError: If there are too many visitors already.
            OSError: If the files cannot be written.
        """
        folder = self._folder / visitor_id
        with self._adding:  # two who come at once are counted one after the other
            n_kept = sum(one.is_dir() for one in self._folder.iterdir()) if self._folder.is_dir() else 0
            if self._most is not None and n_kept >= self._most:
                raise VisitError(
                    f"This page keeps at most {self._most:,} visitors, and has as many already. Nothing was kept."
                )
            try:
                write_text(folder / "person.jsonl", f"{json.dumps(person.as_row(visitor_id), ensure_ascii=False)}\n")
                _sync_folder(folder)
                _sync_folder(self._folder)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)  # an empty folder would count as a visitor
                raise

    def person(self, visitor_id: str) -> Person | None:
        """The person with this id; ``None`` if there is none.

        Raises:
            RunError: If the file is not whole.
        """

        def parse(row: Any) -> Person:
            return Person(row["title"], tuple(row["hard"]), tuple(row["soft"]), row.get("seniority", 0))

        return self._read(self._folder / visitor_id / "person.jsonl", parse)

    def append(self, visitor_id: str, answer: Answer) -> None:
        """Writes an answer to the log. It is on the disk when this returns.

        Raises:
            OSError: If the answer cannot be written, for instance on a full disk. No part of it is in the log then.
        """
        row = {"applicant": visitor_id, "job": answer.job, "decision": answer.decision, "shown": list(answer.shown)}
        file = self.log(visitor_id)
        before = file.stat().st_size if file.exists() else 0
        try:
            with file.open("ab") as log:
                log.write(json.dumps(row).encode() + _END)
                log.flush()
                os.fsync(log.fileno())
        except OSError:
            if file.exists():
                os.truncate(file, before)  # a full disk may have taken a part of the row
            raise
        if not before:
            _sync_folder(file.parent)

    def answers(self, visitor_id: str) -> list[Answer]:
        """All answers of a visitor. If a kill left an incomplete row at the end, it is removed from the file.

        Raises:
            RunError: If a row of the log is not an answer.
        """
        file = self.log(visitor_id)
        content = file.read_bytes() if file.is_file() else b""
        whole = content.rfind(_END) + 1
        if whole < len(content):
            os.truncate(file, whole)
        found = []
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                row = json.loads(line)
                found.append(Answer(row["job"], checked_decision(row["decision"]), tuple(row["shown"])))
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"{file}, row {number} is no answer: {error!r:.100}. Put it right, or remove it."
                ) from None
        return found

    def content(self, visitor_id: str, name: str) -> bytes | None:
        """A file of a visitor, ``log.jsonl`` or ``person.jsonl``; ``None`` if there is no such file."""
        file = self._folder / visitor_id / name
        return file.read_bytes() if file.is_file() else None

    def log(self, visitor_id: str) -> Path:
        """Path of a visitor's log, which ``load_interactions`` reads. The file exists after the first answer."""
        return self._folder / visitor_id / "log.jsonl"

    def write_somebody(self, visitor_id: str, content: Mapping[str, Any]) -> None:
        """Keeps which simulated applicant a visitor watches, and how many answers that applicant has given."""
        write_text(self._folder / visitor_id / "somebody.json", json.dumps(content))

    def somebody(self, visitor_id: str) -> dict[str, Any] | None:
        """What :meth:`write_somebody` kept; ``None`` if there is nothing yet.

        Raises:
            RunError: If the file is not whole.
        """

        def parse(row: Any) -> dict[str, Any]:
            return {"number": int(row["number"]), "steps": int(row["steps"])}

        return self._read(self._folder / visitor_id / "somebody.json", parse)

    def remove(self, visitor_id: str) -> None:
        """Removes all files of a visitor.

        Raises:
            RunError: If a file cannot be removed. The visitor is still known then, and can try again.
        """
        folder = self._folder / visitor_id
        try:
            # Without person.jsonl nobody finds the other files, so it is removed last.
            for name in ("log.jsonl", "somebody.json"):
                (folder / name).unlink(missing_ok=True)
            if folder.exists():
                shutil.rmtree(folder)
        except OSError as error:
            raise RunError(f"{of_the_system(error, folder)} Not everything of you is deleted: try again.") from error

    @staticmethod
    def _read(file: Path, parse: Callable[[Any], T]) -> T | None:
        """What a file holds; ``None`` if there is no such file."""
        if not file.is_file():
            return None
        try:
            return parse(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{file} is not whole, {error!r:.100}. Put it right, or remove its folder.") from None


def checked_decision(decision: str) -> str:
    """The decision, if it is a known one.

    Raises:
        VisitError: If it is not.
    """
    if decision not in DECISIONS:
        raise VisitError(f"An answer must be one of {', '.join(DECISIONS)}, and was {decision!r:.40}.")
    return decision


def _sync_folder(folder: Path) -> None:
    """Writes a folder's list of files to the disk, if the system can. Otherwise a crash could lose a new file."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
