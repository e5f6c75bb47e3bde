"""Recognises keys, tokens and passwords, refuses them where they would be written, and masks them in texts."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

__all__ = ["HIDDEN", "is_credential_name", "mask", "place_of_credential", "refuse_credentials"]

HIDDEN = "***"
"""The text that replaces a key."""

_SHORTEST = 6
"""Known keys of at least this length are searched for in texts; a shorter key may be a word such as "none"."""
_FRAGMENT = 8
"""Parts of a key with at least this many characters are masked too, because servers repeat its beginning or end."""
_LONGEST_TEXT = 20_000
_DECODINGS = 3

_NAMES = re.compile(
    r"("
    r"(api|app|access|account|admin|auth|client|consumer|deploy|encryption|function|license|master|private|project"
    r"|secret|server|service|session|shared|signing|storage|subscription|user|openai|azure|anthropic|claude|cohere"
    r"|gemini|google|groq|mistral|openrouter|together|hf|huggingface|aws|llm|model|provider)keys?"
    r"|passw(or)?d|passwd|passphrase|pwd|secret|credentials?|authori[sz]ation|authentication|bearer|cookies?|jwt"
    r"|(access|auth|api|bearer|id|refresh|session|security|hf|sas|oauth|user|github|personal)tokens?|signature"
    r"|^token|^sig|^auth|^pass"
    r")(id|header|value|base64|b64|json|pem|text|string)?$"
)
"""Finds the name of a credential at the end of a name that has only lower-case letters and digits."""
_BARE_NAMES = re.compile(r"keys?$|^key|token$|^pin$|^sas$")
"""Further names that mean a credential in data that is sent to a server, where nothing else has such a name."""

_SHAPES = re.compile(
    r"""
    \b(?:sk|pk|rk)[-_](?:[a-z]+[-_])*[A-Za-z0-9_-]{12,}     # OpenAI, Anthropic, OpenRouter, Stripe
    | \b(?:hf|gsk|r8|glpat|pplx|xai|nvapi|gh[opusr]|github_pat|tgp_v1|fw|csk|npm|pypi)[-_][A-Za-z0-9_-]{12,}
    | \bxox[abeoprs]-[A-Za-z0-9-]{10,}
    | \bAIza[A-Za-z0-9_-]{30,}
    | \bya29\.[A-Za-z0-9_-]{10,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?        # JWT
    | \b(?i:bearer)(?:\s|%20|\+)+(?=[^\s"',]*\d)[^\s"',]{8,}
    | \b(?i:bearer)(?:\s|%20|\+)+[A-Za-z0-9._~+/=-]{20,}
    | \b(?i:basic)(?:\s|%20|\+)+[A-Za-z0-9+/]{8,}={0,2}(?![A-Za-z0-9])(?<=[=0-9A-Z])
    | -----BEGIN[ A-Z]*PRIVATE[ ]KEY-----(?:(?!-----END).)*(?:-----END[ A-Z]*-----)?
    """,
    re.VERBOSE | re.DOTALL,
)
_USER_INFO = re.compile(r"(?<=://)[^/\s?#@\"']+@")
_NAMED = re.compile(
    r"""(?P<name>["']?[A-Za-z_$][\w.$%-]{0,60}["']?)(?P<sign>\s*[=:]\s*["']?)(?P<value>[^\s&"',;}\])]{3,})""",
)
_NOTHING = {"", "none", "null", "true", "false", "~"}


def is_credential_name(name: str, *, sent: bool = False) -> bool:
    """Whether a name is that of a key, a token or a password, in whatever spelling.

    Args:
        name: Name of an argument, an entry, a header, a part of an address or an environment variable.
        sent: Whether the name belongs to data that is sent to a server, where ``key`` and ``token`` alone count too.

    Example:
        >>> is_credential_name("X-Api-Key"), is_credential_name("max_tokens"), is_credential_name("job_key")
        (True, False, False)
    """
    bare = re.sub(r"[^a-z0-9]", "", _decoded(name).lower())
    return bool(_NAMES.search(bare) or (sent and _BARE_NAMES.search(bare)))


def place_of_credential(value: Any, place: str = "", *, sent: bool = False) -> str | None:
    """The place in plain data that holds something like a key; the key itself is not returned.

    The search covers names of entries at any depth, texts that look like well-known providers' keys, and addresses that
    contain a user, a password or a named key. It also covers the values of environment variables that hold keys.

    Args:
        value: Mappings, sequences, texts, numbers.
        place: Name of the value itself.
        sent: See :func:`is_credential_name`.

    Returns:
        The first place found, as a dotted name such as ``headers.x-api-key``, or ``None``.
    """
    return next(_places(value, place, sent, tuple(_kept_in_environment())), None)


def refuse_credentials(value: Any, place: str, way_out: str, *, sent: bool = False) -> None:
    """Refuses plain data that holds a key, before it is written to a file.

    Args:
        value: See :func:`place_of_credential`.
        place: Name of the value itself.
        way_out: Where a key belongs instead, as the end of a sentence.
        sent: See :func:`is_credential_name`.

    Raises:
        ValueError: If the data holds something like a key.
    """
    found = place_of_credential(value, place, sent=sent)
    if found is not None:
        raise ValueError(f"`{found}` looks like a key, a token or a password, and would be written down: {way_out}.")


def mask(text: str, *known: str | None) -> str:
    """A text from outside, in which everything that looks like a key is masked.

    Args:
        text: A text of any length; only its first 20,000 characters come back.
        *known: Further keys to mask, whatever they look like, if they have at least 6 characters. From 16 characters
            on, parts of a key are masked too. Keys in environment variables are masked in the same way if they have at
            least 8 characters and do not begin with ``/`` or ``~``, as paths do.

    Example:
        >>> mask("Incorrect API key provided: sk-proj-0123456789abcdef.")
        'Incorrect API key provided: ***.'
    """
    text = text[:_LONGEST_TEXT]
    for key in {each for each in (*known, *_kept_in_environment()) if each and len(each) >= _SHORTEST}:
        text = _without(text, key)
    text = _SHAPES.sub(HIDDEN, text)
    text = _USER_INFO.sub(f"{HIDDEN}@", text)
    return _NAMED.sub(_hide_value, text)


def _places(value: Any, place: str, sent: bool, known: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, entry in value.items():
            inner = f"{place}.{name}" if place else str(name)
            if _text_has_credential(str(name), False, known):
                yield f"{place}.{HIDDEN}" if place else HIDDEN
            elif is_credential_name(str(name), sent=sent) and entry not in (None, "", False):
                yield inner
            else:
                yield from _places(entry, inner, sent, known)
    elif isinstance(value, (bytes, bytearray)):
        yield from _places(value.decode("latin-1"), place, sent, known)
    elif isinstance(value, str):
        if _text_has_credential(value, sent, known):
            yield place
    elif isinstance(value, (list, tuple, set, frozenset)):
        pair = [each for each in value if isinstance(each, str)]
        if len(value) == 2 and len(pair) == 2 and is_credential_name(pair[0], sent=sent) and pair[1]:
            yield place  # a pair of name and value, such as a header
        for number, entry in enumerate(value):
            yield from _places(entry, f"{place}[{number}]", sent, known)


def _text_has_credential(text: str, sent: bool, known: tuple[str, ...]) -> bool:
    decoded = _decoded(text)
    for each in {text, decoded}:
        if _SHAPES.search(each) or _USER_INFO.search(each) or any(key in each for key in known):
            return True
        if any(
            is_credential_name(found["name"], sent=sent and "://" in each)
            and found["value"].lower() not in _NOTHING
            and (found["sign"].strip() == "=" or sent or found["name"][0] in "\"'")
            for found in _NAMED.finditer(each)
        ):
            return True
    if "://" in decoded:
        # In an address a name such as `key` means a credential, wherever the address goes.
        parts = urlsplit(decoded)
        named = re.split(r"[&;?]", f"{parts.query}&{parts.fragment}")
        return any(is_credential_name(each.partition("=")[0], sent=True) and each.partition("=")[2] for each in named)
    return False


def _hide_value(found: re.Match[str]) -> str:
    if not is_credential_name(found["name"], sent=True) or found["value"].lower() in _NOTHING:
        return found[0]
    return f"{found['name']}{found['sign']}{HIDDEN}"


def _kept_in_environment() -> Iterable[str]:
    return [
        value
        for name, value in os.environ.items()
        if len(value) >= _FRAGMENT and is_credential_name(name) and not value.startswith(("/", "~"))
    ]


def _decoded(text: str) -> str:
    for _ in range(_DECODINGS):
        text, before = unquote(text), text
        if text == before:
            break
    return text


def _without(text: str, key: str) -> str:
    """A text without a key, also in another case, encoded, broken into lines, or in parts."""
    raw = key.encode()
    for form in (key, quote(key, safe=""), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        text = re.sub(r"\s*".join(map(re.escape, form.rstrip("="))), HIDDEN, text, flags=re.IGNORECASE)
    if len(key) < 2 * _FRAGMENT:
        return text
    hidden = [False] * len(text)
    folded = text.lower()
    for start in range(len(key) - _FRAGMENT + 1):
        part = key[start : start + _FRAGMENT].lower()
        at = folded.find(part)
        while at >= 0:
            hidden[at : at + _FRAGMENT] = [True] * _FRAGMENT
            at = folded.find(part, at + 1)
    made = "".join(HIDDEN[0] if hide else letter for letter, hide in zip(text, hidden, strict=False))
    return re.sub(r"\*{4,}", HIDDEN, made)
