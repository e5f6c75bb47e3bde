"""Shared parts of readers of documents: a folder's files, the text of HTML, and a text in place of missing skills."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

__all__ = ["BREAKING_TAG", "describe_instead", "files_of", "html_text"]

logger = logging.getLogger(__name__)

_BLOCKS = {"p", "br", "li", "ul", "ol", "div", "tr", "table", "section", "article", "header", "dd", "dt", "hr"} | {
    f"h{level}" for level in range(1, 7)
}
BREAKING_TAG = re.compile(r"<(?:p|br|li|div|h[1-6])\b", re.IGNORECASE)
"""A tag that begins a new line."""
_COMMENT_BEGUN = re.compile("<!--[^<>]*(?:<(?!/)[^<>]*)*")
_COMMENT_END = re.compile(r"--\s*>")
_LEFT_OUT = {"script", "style"}


def files_of(place: Path, endings: Sequence[str]) -> list[Path]:
    """The file itself, or the files of a folder with these endings, sorted by name; subfolders are skipped."""
    if not place.is_dir():
        return [place]
    return sorted(file for file in place.iterdir() if file.name.lower().endswith(tuple(endings)) and file.is_file())


def describe_instead(place: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Gives rows without skills their description as one free text in place of skills; logs how many rows they are."""
    without = [row for row in rows if not row["hard"] and not row.get("soft") and row["description"]]
    for row in without:
        row["hard"] = [row["description"]]
    if without:
        logger.warning(
            "%s: %d of %d list no skills; their description is used instead, as one free text.",
            *(place, len(without), len(rows)),
        )


def html_text(text: str) -> str:
    r"""The text of a piece of HTML, without tags: one line for each paragraph or list entry.

    Text without tags keeps its words and lines; several blanks become one, and empty lines are left out.

    Example:
        >>> html_text("<p>We bake &amp; sell.</p><ul><li>bread<li>cakes</ul>")
        'We bake & sell.\nbread\ncakes'
    """
    if "<" not in text and "&lt;" in text:  # escaped twice, as on many sites
        text = html.unescape(text)
    # If tags break lines, line breaks in the source mean nothing.
    source = " ".join(text.split()) if BREAKING_TAG.search(text) else text
    if "<![CDATA[" in source:  # a section of an XML feed; HTML would read its first words as a comment
        source = source.replace("<![CDATA[", "").replace("]]>", "")
    # A "<" after the last ">" begins no tag. Python's parser would search for the end of each such "<" anew.
    end = source.rfind(">") + 1
    # In HTML, "<![" begins a comment that ends at the next ">", as "<!" does. Python's parser fails at a word
    # after "<![" that it does not know.
    tags, rest = source[:end].replace("<![", "<!"), source[end:].replace("<", "&lt;")
    # A "<!--" after the last end of a comment begins no comment, and the parser would search for the end of each one
    # anew. Such a "<!--" is read as text, and so is what follows, up to the next ">" or end tag. The text stops there,
    # so that a "</script>" behind it still ends its script.
    ends = [found.start() for found in _COMMENT_END.finditer(tags)]
    last = max(ends[-1] - len("<!--") + 1, 0) if ends else 0
    tags = tags[:last] + _COMMENT_BEGUN.sub(lambda found: found[0].replace("<", "&lt;"), tags[last:])
    parser = _Text()
    parser.feed(tags + rest)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line)


class _Text(HTMLParser):
    """Collects the text of HTML, with a line break at each block."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._left_out = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._left_out += tag in _LEFT_OUT
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._left_out -= tag in _LEFT_OUT and self._left_out > 0
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._left_out:
            self.parts.append(data)
