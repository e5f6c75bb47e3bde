"""How a pair is put to a language model: versioned templates, personas, and texts that cannot break out of them."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from jobrec_gym.market import BLOCKS, SENIORITY_LEVELS, ContextValue, Profile
from jobrec_gym.paths import place_of
from jobrec_gym.pieces import first_sentences

__all__ = [
    "MAX_DESCRIPTION",
    "PERSONAS",
    "PROTECTED",
    "Prompt",
    "applicant_document",
    "clean_text",
    "encode_document",
    "job_document",
    "load_prompt",
    "prompt_place",
]

PERSONAS: Mapping[str, str] = {
    "neutral": "The applicant weighs fit and effort as most people do.",
    "selective": "The applicant is in a good job, busy and selective, and moves for a very good fit only.",
    "eager": "The applicant is out of work and eager, and tries whatever could reasonably fit.",
}
"""Temperaments by name; :class:`~jobrec_gym.simulators.llm.LLMSimulator` takes any other text as well."""

PROTECTED = ("name", "age", "sex", "gender", "pronouns", "nationality", "photo", "address")
"""Attributes of a person. A document of a profile has no entries with these names."""

MAX_DESCRIPTION = 4_000
"""The most characters of a description that a model is shown; a longer one is cut at the end of a sentence."""

_MAX_TEXT = 1_200
_MAX_ENTRY = 120
_MAX_ENTRIES = 24
_SEPARATOR = "--- user\n"
_OF_SYSTEM, _OF_USER = ("persona", "decisions"), ("applicant", "job")
# Removed: control, format (zero-width, bidirectional, tags), surrogate, private-use and unassigned characters.
_REMOVED = {"Cc", "Cf", "Cs", "Co", "Cn"}
_JOINERS = "\u200c\u200d"
_JOINER = re.compile(f"[{_JOINERS}]+")
# Letters without upper and lower case, and marks: a joiner between two of them is a part of the spelling.
_JOINED = {"Lo", "Lm", "Mn", "Mc"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A template in two parts, and its version, which is part of every cache key.

    Attributes:
        version: The file's name without the ending ``.txt``, e.g. ``probability-v1``.
        system: The system message, with the placeholder ``$persona`` and, if decisions are listed, ``$decisions``.
        user: The user's message, with the placeholders ``$applicant`` and ``$job`` in this order: a server computes
            the applicant's part once, because it is a prefix that the questions about many jobs share.
    """

    version: str
    system: str
    user: str

    def messages(self, applicant: str, job: str, *, persona: str, decisions: Sequence[str]) -> list[dict[str, str]]:
        """The chat messages that put a pair of encoded documents to a model."""
        words = ", ".join(f'"{decision}"' for decision in decisions)
        system = Template(self.system).substitute(persona=persona, decisions=words)
        user = Template(self.user).substitute(applicant=applicant, job=job)
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def load_prompt(name: str) -> Prompt:
    """A shipped template by its version, or your own by the path of its file.

    A file has the system part, a line ``--- user`` and the user's part. Its version is its name, without the folder and
    without the ending ``.txt``: give a changed text a new name. A dollar sign that begins no placeholder is written
    ``$$``.

    Raises:
        ValueError: For a template that does not exist, is no text, lacks a placeholder or has an unknown one, and for a
            file that has the name of a shipped template and another text.
    """
    shipped, version = _shipped(), Path(name).name.removesuffix(".txt")
    if name in shipped:
        text = _text_of(name)
    elif (file := place_of(name)).is_file():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"`elicitation.prompt` {name!r} is not UTF-8: save it as UTF-8.") from error
        if version in shipped and text != _text_of(version):
            raise ValueError(
                f"`elicitation.prompt` {name!r} has the name of a shipped template and another text, and answers are "
                "kept under the name: give the file another name."
            )
    else:
        raise ValueError(f"`elicitation.prompt` must be one of {shipped} or the path of a template, got {name!r}.")
    system, separator, user = text.partition(_SEPARATOR)
    missing = [f"${word}" for word in _OF_USER if word not in Template(user).get_identifiers()]
    if not separator or missing:
        raise ValueError(
            f"`elicitation.prompt` {name!r} must have a line '--- user', with $applicant and $job after it; "
            f"it lacks {missing or ['--- user']}."
        )
    for part, where, known in ((system, "before", _OF_SYSTEM), (user, "after", _OF_USER)):
        template = Template(part)
        unknown = [f"${word}" for word in template.get_identifiers() if word not in known]
        if unknown or not template.is_valid():
            raise ValueError(
                f"`elicitation.prompt` {name!r} may have the placeholders {' and '.join(f'${word}' for word in known)} "
                f"{where} the line '--- user', and no others: check {unknown or ['$']}, and write `$$` for a dollar "
                "sign."
            )
    return Prompt(version, system.strip(), user.strip())


def prompt_place(name: str | os.PathLike[str]) -> str:
    """A template's name in its complete form, which is found from every folder: a version, or an absolute path.

    A name that is neither a version nor a file comes back unchanged, so that an error can show it.
    """
    place = place_of(name)
    return str(place.absolute()) if name not in _shipped() and place.is_file() else os.fspath(name)


@cache
def _shipped() -> tuple[str, ...]:
    """The versions of the shipped templates."""
    files = [entry.name for entry in resources.files(__name__).iterdir()]
    return tuple(sorted(name.removesuffix(".txt") for name in files if name.endswith(".txt")))


def _text_of(version: str) -> str:
    return resources.files(__name__).joinpath(f"{version}.txt").read_text(encoding="utf-8")


def applicant_document(profile: Profile) -> dict[str, Any]:
    """What a model is told about an applicant: work only, without the source's key or any :data:`PROTECTED` entry.

    In a document of an applicant or of a job, the shown fields of the market's context come after the skills.
    """
    return _document(profile, {"occupation": profile.title, "experience": profile.experience})


def job_document(profile: Profile) -> dict[str, Any]:
    """What a model is told about a job: its requirements and its description.

    A description is cut to :data:`MAX_DESCRIPTION` characters, at the end of a sentence. A profile may lack a
    description but have a block of skills that is one free text of more than 120 characters. Then that text is the
    description.
    """
    return _document(profile, {"title": profile.title})


def encode_document(document: Mapping[str, Any]) -> str:
    """A document as one line of JSON that cannot close a tag: ``<``, ``>`` and ``&`` are escaped.

    Texts are cleaned by :func:`clean_text`; a list keeps its first 24 entries, each cut to 120 characters, and
    ``description`` its first :data:`MAX_DESCRIPTION` characters, up to the end of a sentence.
    """
    clean: dict[str, Any] = {}
    for key, value in document.items():
        if key == "description" and isinstance(value, str):
            clean[key] = clean_text(first_sentences(value, MAX_DESCRIPTION), MAX_DESCRIPTION)
        elif isinstance(value, (list, tuple)):
            clean[key] = [clean_text(str(entry), _MAX_ENTRY) for entry in value[:_MAX_ENTRIES]]
        else:
            clean[key] = clean_text(value, _MAX_TEXT) if isinstance(value, str) else value
    text = json.dumps(clean, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def clean_text(text: str, max_length: int = _MAX_TEXT) -> str:
    r"""A text on one line without control and invisible characters, cut to ``max_length`` characters.

    Joiners and non-joiners (U+200C, U+200D) stay within words of scripts that spell with them, such as Persian and
    Hindi.

    Example:
        >>> clean_text("chef\u200b\n  de partie")
        'chef de partie'
    """
    # The text is cut before the loop too, so that a text of megabytes costs no time.
    visible = unicodedata.normalize("NFC", text[: 4 * max_length])
    if not visible.isprintable():  # many times faster than a loop over characters
        visible = "".join(
            " " if character.isspace() else character
            for character in visible
            if character.isspace() or character in _JOINERS or unicodedata.category(character) not in _REMOVED
        )
        visible = _JOINER.sub(_joiner_within_a_word, visible)
    return " ".join(visible.split())[:max_length].rstrip(f" {_JOINERS}")


def _joiner_within_a_word(joiner: re.Match[str]) -> str:
    """One joiner, if letters or marks of a script that spells with joiners stand on both sides; else nothing."""
    text, (begin, end) = joiner.string, joiner.span()
    sides = text[max(0, begin - 1) : begin], text[end : end + 1]
    return text[begin] if all(side and unicodedata.category(side) in _JOINED for side in sides) else ""


def _document(profile: Profile, head: Mapping[str, str]) -> dict[str, Any]:
    blocks: dict[str, list[str]] = {block: list(getattr(profile, f"{block}_skills")) for block in BLOCKS}
    texts = [block for block, skills in blocks.items() if len(skills) == 1 and len(skills[0]) > _MAX_ENTRY]
    description = profile.description or "\n".join(blocks[block][0] for block in texts)
    for block in texts:
        if blocks[block][0] in description:  # the description holds the whole text, so its beginning is not repeated
            del blocks[block]
    document: dict[str, Any] = {
        **head,
        "seniority": SENIORITY_LEVELS[profile.seniority - 1] if profile.seniority else "",
        **{f"{block}_skills": skills for block, skills in blocks.items()},
        "description": description,
    }
    context = {name: _plain(value) for name, value in profile.context.items() if name.casefold() not in PROTECTED}
    return {key: value for key, value in document.items() if value} | context


def _plain(value: ContextValue) -> Any:
    """The value in JSON; a whole number without its ``.0``."""
    if isinstance(value, tuple):
        return list(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
