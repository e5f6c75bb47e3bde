"""Makes foreign texts safe to show: of bounded length, on one line, without characters that a screen obeys."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

__all__ = ["MOST_LETTERS", "as_text", "without_commands"]

MOST_LETTERS = 120
"""The most letters of one title, skill or key; a longer one ends in an ellipsis."""

_MOST_MARKS = 3
"""The most combining marks on one letter. Languages need two; hundreds of them run over the lines above."""

_BREAKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029")
_JOINERS = frozenset("\u200c\u200d")
"""Format letters that are harmless: Persian is written with them, and emoji are joined by them."""

_COMMANDS = frozenset({"Cc", "Cf", "Cs"})
"""Unicode categories: control letters (escape sequences begin with one), format letters (such as those that turn the
direction of writing), and halves of letters (surrogates), which no encoding writes."""


@lru_cache(maxsize=4096)
def as_text(text: str, most: int = MOST_LETTERS) -> str:
    r"""A text on one line, of at most ``most`` letters.

    Line breaks and tabs become spaces. Control characters that a terminal or a browser would obey are spelt out, and
    excess marks on one letter are left out.

    Args:
        text: Any text.
        most: The most letters, not counting combining marks; a longer text ends in ``...``.

    Example:
        >>> as_text("Clerk\r\n\x1b[2J\u202eApplicant p9: chosen")
        'Clerk \\x1b[2J\\u202eApplicant p9: chosen'
    """
    shown: list[str] = []
    n_letters = n_marks = 0
    for letter in text[: most * (_MOST_MARKS + 2)]:
        category = unicodedata.category(letter)
        if category in ("Mn", "Me") or letter in _JOINERS:
            n_marks += 1
            if n_marks <= _MOST_MARKS:
                shown.append(letter)
            continue
        n_marks = 0
        if letter in _BREAKS or category == "Zs":
            if shown and shown[-1] != " ":
                shown.append(" ")
                n_letters += 1
            continue
        if n_letters >= most:
            break
        shown.append(_spelt(letter) if category in _COMMANDS else letter)
        n_letters += 1
    else:
        if len(text) <= most * (_MOST_MARKS + 2):
            return "".join(shown).strip()
    return "".join(shown).rstrip() + "..."


def without_commands(text: str) -> str:
    """A text of several lines with its control characters spelt out, except its line breaks.

    Args:
        text: Of any length.
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(
        _spelt(letter)
        if letter not in "\n" and letter not in _JOINERS and unicodedata.category(letter) in _COMMANDS
        else letter
        for letter in text
    )


def _spelt(letter: str) -> str:
    """A letter as an escape of Python's source."""
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
