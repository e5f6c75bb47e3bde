"""Long texts in pieces: windows that begin and end between sentences, and first sentences up to a length."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

__all__ = ["first_sentences", "windows"]

# A sentence ends at a full stop, a question mark or an exclamation mark that white space follows, at such a mark of
# another script (wide forms, danda, Arabic, Urdu, Armenian, Ethiopic, Burmese, Khmer), and at the end of a line.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？।॥؟۔։።။។])|\n\s*")  # noqa: RUF001
_WORD_END = re.compile(r"\s+")

TokenCount = Callable[[Sequence[str]], Sequence[int]]


def windows(text: str, count_tokens: TokenCount, max_tokens: int) -> list[str]:
    """Cuts a text into few windows of about equal length.

    Cuts lie between sentences. A sentence longer than a window is cut between words, and a word longer than a window is
    cut in halves.

    Args:
        text: Any text.
        count_tokens: A function of texts that gives their numbers of tokens.
        max_tokens: The most tokens of a window, at least 1.

    Returns:
        The windows, in order and without white space around them; ``[text]`` if the text fits into one.

    Example:
        >>> windows("One two. Three four. Five six.", lambda texts: [len(text.split()) for text in texts], 4)
        ['One two. Three four.', 'Five six.']
    """
    if count_tokens([text])[0] <= max_tokens:
        return [text]
    parts = _fitting(_split(text, _SENTENCE_END), count_tokens, max_tokens)
    if not parts:  # nothing but white space, which some encoders count
        return [""]
    total = sum(size for _, size in parts)
    aim = total / -(-total // max_tokens)
    found: list[str] = []
    window, held = "", 0
    for part, size in parts:
        # A window is closed if the next part does not fit. The window is also closed if its length is nearer to the
        # aim without the next part than with it.
        if held and (held + size > max_tokens or held + size / 2 > aim):
            found.append(window.strip())
            window, held = "", 0
        window, held = window + part, held + size
    return [*found, window.strip()]


def first_sentences(text: str, max_length: int) -> str:
    """The beginning of a text, at most ``max_length`` characters, cut at the end of a sentence.

    If the last sentence that fits ends before half of that length, the text is cut after a word. If the last word that
    fits ends before half of that length too, the text is cut within a word.

    Example:
        >>> first_sentences("We bake. We sell what we bake.", 15)
        'We bake.'
    """
    if len(text) <= max_length:
        return text
    for end in (_SENTENCE_END, _WORD_END):
        starts = (found.start() for found in end.finditer(text, 0, max_length + 1))
        cut = max((start for start in starts if start <= max_length), default=0)
        first = text[:cut].rstrip()
        if 2 * len(first) >= max_length:
            return first
    return text[:max_length].rstrip()


def _split(text: str, end: re.Pattern[str]) -> list[str]:
    """The parts of a text. Joined, they are the text; no part is only white space."""
    cuts = [0, *(found.end() for found in end.finditer(text)), len(text)]
    return [part for start, stop in itertools.pairwise(cuts) if (part := text[start:stop]).strip()]


def _fitting(parts: Sequence[str], count_tokens: TokenCount, max_tokens: int) -> list[tuple[str, int]]:
    """Parts with their sizes. A part that is too long is split into words, a word that is too long into halves."""
    found: list[tuple[str, int]] = []
    for part, size in zip(parts, count_tokens(parts), strict=True):
        if size <= max_tokens or len(part) == 1:
            found.append((part, size))
            continue
        words = _split(part, _WORD_END)
        smaller = words if len(words) > 1 else [part[: len(part) // 2], part[len(part) // 2 :]]
        found += _fitting(smaller, count_tokens, max_tokens)
    return found
