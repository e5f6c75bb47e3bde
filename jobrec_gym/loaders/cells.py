"""Reads the value of a cell: lists of skills in any notation, texts, levels, and words for an empty cell."""

from __future__ import annotations

import ast
import contextlib
import csv
import datetime
import math
import numbers
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.entities import name2codepoint
from typing import Any, Literal, NamedTuple

from jobrec_gym.loaders.amounts import (
    Amount,
    RangeInDoubt,
    amount_in,
    is_net,
    may_be_thousands,
    number_in_text,
    signs_of,
    unit_differs,
)
from jobrec_gym.loaders.assembly import check_text
from jobrec_gym.loaders.documents import BREAKING_TAG, html_text
from jobrec_gym.loaders.reading import parse_json
from jobrec_gym.market import MarketError
from jobrec_gym.market.dates import DateFormat, date_formats, reason_against, seconds_of, way_to_format
from jobrec_gym.near_miss import did_you_mean

__all__ = [
    "NULL_WORDS",
    "SENIORITY_WORDS",
    "CellReader",
    "CellRules",
    "End",
    "Unit",
    "has_column",
    "is_nothing",
    "list_in_text",
    "normal_form",
    "plain_name",
    "way_to_decimal",
    "without_markup",
    "yes_or_no",
]

End = Literal["low", "middle", "high"]
"""Which number of a range is taken."""

NULL_WORDS = frozenset(
    ("nan", "na", "n/a", "n.a.", "#n/a", "<na>", "nat", "null", "none", "nil", "-", "--", "\u2013", "\u2014", "\\n")
)
"""Words that mean an empty cell, in lower case. ``\\n`` is a backslash and a letter, as databases write it."""

SENIORITY_WORDS = {
    **dict.fromkeys(("intern", "internship", "trainee", "apprentice", "apprenticeship", "student"), 1),
    **dict.fromkeys(("entry", "beginner", "graduate", "graduate entry"), 1),
    **dict.fromkeys(("junior", "jr", "jr.", "associate"), 2),
    **dict.fromkeys(("mid", "middle", "medior", "intermediate", "experienced", "professional"), 3),
    **dict.fromkeys(("senior", "sr", "sr.", "mid senior"), 4),
    **dict.fromkeys(("lead", "principal", "staff", "manager", "head", "director", "executive", "chief", "c"), 5),
    **dict.fromkeys(("not applicable", "not specified", "unspecified", "unknown", "any"), 0),
}
"""Levels of the usual English words, in lower case, without hyphens and without ``level`` at the end; 0 is unknown."""

_SEPARATOR = ";"
_BULLETS = "•·▪●◦‣"
_FULL_WIDTH = "\uff5c\uff1b\u3001\uff0c"  # bar, semicolon, enumeration comma, comma
_ARABIC = "\u061b\u060c"  # semicolon, comma
_OTHER_SEPARATORS = (*_BULLETS, "|", "\n", *_FULL_WIDTH, *_ARABIC, "\t", " / ", ",")
_BULLET = re.compile(rf"(?:[{_BULLETS}]|[-*\u2013\u2014](?=\s))\s*")
_ITEM = re.compile(
    r"""\s*(?:np\.\w+(\())?(?:('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+\.?\d*(?![\w.]))|nan|None)(?(1)\))\s*,?""",
    re.DOTALL | re.ASCII,
)
"""An entry of a list as Python or numpy prints it: ``'SQL'``, ``np.str_('SQL')``, ``5``, ``np.int64(5)``, ``None``."""
_ARRAY = re.compile(r"(?:np\.|numpy\.)?array\(\s*(\[.*\])\s*(?:,\s*dtype=[^()]*)?\)", re.DOTALL)
"""An array as numpy spells it, such as ``array(['SQL', 'R'], dtype=object)``."""
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_DATABASE_QUOTES = {"{": '"', "[": "'"}
"""The quotation marks in arrays of databases, by the bracket that opens the array."""
_IN_NO_ARRAY = {"{": re.compile(r"[{}:\n]"), "[": re.compile(r"""[][{}:\n";|]|\w\(|\.\.\.|'\s+[^,\s]|''""")}
"""What shows that a text in such brackets is no array of a database, or an array that was cut."""
_MARKUP = re.compile(
    r"</?(?:a|b|br|div|em|font|h[1-6]|hr|i|li|ol|p|span|strong|table|td|th|tr|u|ul)\b[^<>]*>"
    rf"|&(?:#\d+|#x[\da-f]+|amp|lt|gt|quot|apos|(?-i:{'|'.join(name2codepoint)}));",
    re.IGNORECASE,
)
"""Tags and entities of HTML that do not appear in a text by chance; ``R&D;`` is not one of them."""
_FLAGS = {
    **dict.fromkeys(("true", "yes", "y", "t", "on", "1", "1.0", "x"), True),
    **dict.fromkeys(("ja", "j", "wahr", "oui", "vrai", "si", "s\u00ed", "verdadero"), True),
    **dict.fromkeys(("false", "no", "n", "f", "off", "0", "0.0"), False),
    **dict.fromkeys(("nein", "falsch", "non", "faux", "falso"), False),
}
_MANY = 0.25
_WORDS_OF_A_SKILL = 6


@dataclass(frozen=True, slots=True)
class CellRules:
    """How cells are read.

    Attributes:
        skill_separator: The text that separates skills. ``None`` is ``;``, with a warning if another text is likely.
        null_values: Words that stand for nothing, whatever their case; ``None`` is :data:`NULL_WORDS`.
        seniority_values: Mapping of the source's words to levels, 1 to 5; ``None`` or 0 is an unknown level. These
            words have precedence over :data:`SENIORITY_WORDS`.
        decimal: ``"."`` or ``","``, the decimal sign of numbers in texts; the other sign and spaces then separate
            thousands. With ``None`` the numbers of each column show it: if all of them are plain numbers, a point is
            the decimal sign, and a warning comes if it may separate thousands. If some are not plain, such as
            ``45.000 €``, a number that may mean 45 or 45,000 is refused; it is accepted if other numbers of the column
            show that its sign separates thousands.
        date_format: How dates are written, see :data:`~jobrec_gym.market.dates.DateFormat`; ``None`` is ISO 8601.
        is_taken_over: Whether the rules were not given for this table, but are those of another table. A warning then
            comes if the ``skill_separator`` is not ``;``, hardly any cell has this separator, and another separator is
            likely.

    Raises:
        MarketError: For a value that is not allowed.
    """

    skill_separator: str | None = None
    null_values: Collection[str] | None = None
    seniority_values: Mapping[str, int | None] | None = None
    decimal: str | None = None
    date_format: DateFormat | None = None
    is_taken_over: bool = False

    def __post_init__(self) -> None:
        if self.skill_separator is not None and (not isinstance(self.skill_separator, str) or not self.skill_separator):
            raise MarketError(f"`skill_separator` must be a text that is not empty, got {self.skill_separator!r}.")
        words = self.null_values
        if words is not None and (
            isinstance(words, str)
            or not isinstance(words, Collection)
            or not all(isinstance(word, str) for word in words)
        ):
            raise MarketError(f"`null_values` must list texts, such as ['N/A', '-'], got {words!r}.")
        if self.seniority_values is not None and not isinstance(self.seniority_values, Mapping):
            raise MarketError(
                f"`seniority_values` must map words to levels, {{'Director': 5}}, got {self.seniority_values!r}."
            )
        date_formats(self.date_format)
        if self.decimal not in (None, ".", ","):
            raise MarketError(f"`decimal` must be '.', ',' or None, got {self.decimal!r}.")
        for word, level in (self.seniority_values or {}).items():
            if level is not None and (isinstance(level, bool) or level not in range(6)):
                raise MarketError(
                    f"`seniority_values[{word!r}]` must be 1 (entry) to 5 (lead), or 0 for unknown, got {level!r}."
                )


def normal_form(text: str) -> str:
    """The text in Unicode's normal form C: ``é`` is one character, however it was typed."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def plain_name(column: str) -> str:
    """The name of a column without regard to case and to what surrounds it."""
    return column.casefold().strip(" \t_\ufeff\xa0")


def without_markup(text: str) -> str:
    """The text of a cell without HTML, and without white space around it."""
    return (html_text(text) if _MARKUP.search(text) else text).strip()


def is_nothing(cell: Any, words: Collection[str] = NULL_WORDS) -> bool:
    """Whether a cell says nothing: it is empty, NaN, NaT, or one of the words (lower case, in normal form)."""
    if isinstance(cell, str):
        stripped = cell.strip()
        return not stripped or normal_form(stripped).casefold() in words
    # pandas' NA refuses to be compared. NaN, NaT and their like are not equal to themselves.
    return cell is None or type(cell).__name__ == "NAType" or (isinstance(cell, Hashable) and bool(cell != cell))


def yes_or_no(cell: Any) -> bool | None:
    """Whether a cell says yes or no, by a number or by a usual word of English and some other languages.

    Returns:
        ``None`` for anything else, such as an empty cell.
    """
    return _FLAGS.get(normal_form(str(cell).strip()).casefold())


def has_column(header: Collection[str], column: str) -> bool:
    """Whether a header has a column; ``skills.name`` may also be the entry ``name`` in a column of objects."""
    return column in header or _split(header, column) is not None


@dataclass(slots=True)
class _Seen:
    """Counts of a column of skills: cells that are texts, their separators, parts and words."""

    n: int = 0
    separated: int = 0
    n_words: int = 0
    n_parts: int = 0
    other: Counter[str] = field(default_factory=Counter)
    other_parts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _SeenTexts:
    """Counts of a column.

    Attributes:
        n: Cells with characters beyond ASCII.
        broken: Cells with characters beyond ASCII that seem to be decoded wrongly.
        example: The first cell that seems to be decoded wrongly.
        n_numbers: Cells that are read as numbers.
        with_point: Cells that are read as numbers and have a point.
        grouped: Cells that are read as numbers and in which a point may separate thousands, such as ``50.000``.
        first_grouped: The place and the text of the first of these.
    """

    n: int = 0
    broken: int = 0
    example: str = ""
    n_numbers: int = 0
    with_point: int = 0
    grouped: int = 0
    first_grouped: str = ""


@dataclass(slots=True)
class _SeenNumbers:
    """What the numbers of a column show.

    Attributes:
        is_plain: Whether all of them are plain numbers.
        signs: The signs that some of them show to be decimal signs, see
            :func:`~jobrec_gym.loaders.amounts.signs_of`; empty if all are plain numbers. Numbers such as ``3.5k`` do
            not count, because ``3.5k`` and ``3.500`` may stand in one column.
    """

    is_plain: bool
    signs: frozenset[str]


class Unit(NamedTuple):
    """What the numbers of a column are in.

    Attributes:
        currency: The currency that they name; empty if they name none.
        period: The period that they name; empty if they name none.
        decimal: The decimal sign that they show, ``"?"`` if they show none, and ``",."`` if some show one sign and some
            the other. Empty if all are plain numbers, or if the user said the sign.
        in_doubt: The place and the text of the first plain number such as ``50.000`` that is read as 50, although the
            point may separate thousands; empty if there is none.
    """

    currency: str = ""
    period: str = ""
    decimal: str = ""
    in_doubt: str = ""


class CellReader:
    """Reads the cells of one table.

    Args:
        file: Name of the file in messages.
        rules: How its cells are read.
        header: Names of its columns.
        columns: A function that gives all cells of a column of the header. A cell that may mean two things is compared
            with the others of its column. Without this function the cell itself must show what it means.

    Attributes:
        counts: How many cells or entries were left out, by kind.
    """

    def __init__(
        self,
        file: str,
        rules: CellRules,
        header: Collection[str] = (),
        columns: Callable[[str], Iterable[Any]] | None = None,
    ):
        self.counts: Counter[str] = Counter()
        self._file, self._rules, self._header = file, rules, frozenset(header)
        self._columns = columns
        self._formats = date_formats(rules.date_format)
        self._numbers: dict[str, _SeenNumbers] = {}
        # For each column the currencies and the periods that its cells name, each with the first cell that names it.
        self._units: dict[str, dict[str, dict[str, str]]] = {}
        words = rules.null_values
        self._nothing = (
            NULL_WORDS if words is None else frozenset(normal_form(word.strip()).casefold() for word in words)
        )
        self._levels = {
            **SENIORITY_WORDS,
            **{_level_word(str(word)): int(level or 0) for word, level in (rules.seniority_values or {}).items()},
        }
        self._separator = rules.skill_separator or _SEPARATOR
        self._others = [sign for sign in (_SEPARATOR, *_OTHER_SEPARATORS) if sign != self._separator]
        self._seen: dict[str, _Seen] = {}
        self._texts: dict[str, _SeenTexts] = {}
        self._paths: dict[str, tuple[str, list[str]] | None] = {}
        self._entries: dict[str, Counter[str]] = {}
        self._found: set[str] = set()

    def cell(self, row: Mapping[str, Any], column: str, where: str) -> Any:
        """A row's cell in a column, or its entry ``skills.name`` in a column of objects. Lists of lists are joined.

        Raises:
            MarketError: If the column of an entry holds something other than objects.
        """
        if column in self._header or column in row:
            return row.get(column)
        if column not in self._paths:
            self._paths[column] = _split(self._header, column)
        path = self._paths[column]
        if path is None:
            return None
        return self._entry(row.get(path[0]), path[1], where, column)

    def is_nothing(self, cell: Any) -> bool:
        """Whether a cell says nothing."""
        return is_nothing(cell, self._nothing)

    def key(self, cell: Any, where: str, column: str) -> str:
        """A row's key: any word, even one that stands for nothing in other columns."""
        return "" if is_nothing(cell, ()) else self._text(cell, where, column)

    def text(self, cell: Any, where: str, column: str) -> str:
        """One text, empty if the cell says nothing; :class:`MarketError` for a list or an object."""
        return "" if self.is_nothing(cell) else self._text(cell, where, column)

    def free_text(self, cell: Any, where: str, column: str) -> str:
        """One text; the entries of a list are on lines of their own."""
        if isinstance(cell, list):
            return "\n".join(self._listed(cell, where, column))
        return self.text(cell, where, column)

    def skills(self, cell: Any, where: str, column: str) -> Iterator[str]:
        """The skills of a cell: a list, the text of a list (JSON, Python, a database), or a text to split.

        Raises:
            MarketError: For anything else, and for a text that begins like a JSON array but is not one.
        """
        if self.is_nothing(cell):
            return
        if isinstance(cell, str):
            cell = list_in_text(cell.strip(), where, column)
        if isinstance(cell, str):
            yield from self._cut(cell, where, column)
        elif isinstance(cell, list):
            yield from self._listed(cell, where, column)
        else:
            raise MarketError(
                f"{where}, column {column!r}: must be a list of skills, got {cell!r:.80}{_way_to_skills(cell, column)}."
            )

    def seniority(self, cell: Any, where: str, column: str) -> int:
        """A level from 1 to 5, or 0 for an empty cell or a word such as ``unknown``; else :class:`MarketError`."""
        if self.is_nothing(cell):
            return 0
        word = str(cell)
        try:
            if isinstance(cell, bool):
                raise ValueError
            value = float(cell)  # an integer column with gaps has 3.0
            word = str(int(value)) if value.is_integer() else word
            known = self._levels.get(_level_word(word))
            if known is None and (not value.is_integer() or not 1 <= value <= 5):
                raise ValueError
            return int(value) if known is None else known
        except (TypeError, ValueError, OverflowError):  # OverflowError for an integer beyond any float
            if isinstance(cell, str) and (known := self._levels.get(_level_word(cell))) is not None:
                return known
            raise MarketError(
                f"{where}, column {column!r}: must be a whole number from 1 (entry) to 5 (lead), or empty; got "
                f"{cell!r:.80}.{did_you_mean(_level_word(word), self._levels)} Say what other words mean, e.g. "
                f"`seniority_values={{{word[:40]!r}: 3}}`."
            ) from None

    def flag(self, cell: Any, where: str, column: str) -> bool | None:
        """Yes or no, or ``None`` for an empty cell; :class:`MarketError` for anything else."""
        if self.is_nothing(cell):
            return None
        found = yes_or_no(cell)
        if found is None:
            raise MarketError(
                f"{where}, column {column!r}: must be one of {', '.join(_FLAGS)}, or empty; got {cell!r:.80}. A column "
                "with more than two values is a 'category'."
            )
        return found

    def number(self, cell: Any, where: str, column: str, end: End = "middle") -> float | None:
        """A finite number, or ``None`` for an empty cell; :class:`MarketError` for anything else.

        A text may say a currency, a period and a range, see :func:`~jobrec_gym.loaders.amounts.amount_in`. ``end`` says
        which number of a range is taken.

        Raises:
            MarketError: For a cell that is no number, that may mean two numbers, or that names another currency or
                period than an earlier cell of the column.
        """
        if self.is_nothing(cell):
            return None
        if isinstance(cell, str):
            amount = self._amount(cell.strip(), where, column)
        else:
            try:
                value = math.nan if isinstance(cell, bool) else float(cell)
            except (TypeError, ValueError, OverflowError):
                value = math.nan
            amount = Amount(value, value) if math.isfinite(value) else None
        if amount is None:
            if isinstance(cell, str) and is_net(cell):
                raise MarketError(
                    f"{where}, column {column!r}: {cell!r:.80} is net pay, which cannot be compared with "
                    "gross pay: write gross pay in its place. If all pay is net on both sides, leave the word out."
                )
            decimal = self._rules.decimal
            raise MarketError(
                f"{where}, column {column!r}: must be a number such as 45000, '45000 EUR' or '45-52k', or empty; got "
                f"{cell!r:.80}.{f' It must fit `decimal={decimal!r}`.' if decimal else ''}{_way_to_nothing(cell)}"
            )
        self._check_units(amount, cell, where, column)
        if amount.low == amount.high:
            return amount.low
        return {"low": amount.low, "high": amount.high, "middle": (amount.low + amount.high) / 2}[end]

    def units(self, column: str) -> Unit | None:
        """What the numbers of a column are in, after they were read; ``None`` if it has no number."""
        units, texts, seen = self._units.get(column), self._texts.get(column), self._numbers.get(column)
        if units is None:
            return None
        return Unit(
            next(filter(None, units["currency"]), ""),
            next(filter(None, units["period"]), ""),
            "" if seen is None or seen.is_plain else "".join(sorted(seen.signs)) or "?",
            "" if texts is None else texts.first_grouped,
        )

    def seconds(self, cell: Any, *, through: bool = False) -> float | None:
        """Seconds since 1970 of a date, or ``None`` for an empty cell; :class:`ValueError` for anything else.

        ``through`` is as in :func:`~jobrec_gym.market.dates.seconds_of`.
        """
        return None if self.is_nothing(cell) else seconds_of(cell, through=through, formats=self._formats)

    def date(self, cell: Any, where: str, column: str, *, through: bool = False) -> float | None:
        """As :meth:`seconds`, but for anything else a :class:`MarketError` that names the format of the column.

        Each error searches the whole column for a format. Where many cells may be wrong, use :meth:`seconds`.
        """
        try:
            return self.seconds(cell, through=through)
        except ValueError:
            form = "be a date such as 2026-11-30 or 2026-11-30T17:00+01:00 (ISO 8601)"
            if self._formats:
                form = f"fit `date_format={self._rules.date_format!r}`"
            reason = reason_against(cell, self._formats) or _way_to_nothing(cell) or way_to_format(self.column(column))
            raise MarketError(f"{where}, column {column!r}: must {form}, or empty; got {cell!r:.80}.{reason}") from None

    def column(self, column: str) -> Iterator[Any]:
        """The cells of a column that say something; nothing if the reader was made without ``columns``."""
        place = (column, []) if column in self._header else _split(self._header, column)
        if self._columns is None or place is None:
            return
        for cell in self._columns(place[0]):
            with contextlib.suppress(MarketError):  # a cell that holds no objects is refused with its row
                found = self._entry(cell, place[1], self._file, column) if place[1] else cell
                if not self.is_nothing(found):
                    yield found

    def _amount(self, text: str, where: str, column: str) -> Amount | None:
        """The amount that a text says, ``None`` for anything else; :class:`MarketError` if it may say two amounts."""
        decimal = self._rules.decimal
        try:
            if decimal is not None:
                return _amount_in(text, decimal)
            seen = self._seen_numbers(column, text)
            if seen.is_plain:
                return self._plain_amount(text, where, column)
            own = signs_of(text)
            signs = own.decimal or seen.signs
            # Other numbers may show that a sign separates thousands. They cannot show that 45.000 is 45.
            if not own.in_doubt or (len(signs) == 1 and not signs & own.in_doubt):
                return _amount_in(text, next(iter(signs)) if len(signs) == 1 else ".")
            if [_amount_in(text, sign) for sign in ".,"] == [None, None]:
                return None
        except RangeInDoubt as error:
            raise MarketError(f"{where}, column {column!r}: {text!r:.80} {error}.") from None
        raise MarketError(
            f"{where}, column {column!r}: {text!r:.80} may be thousands or a number with decimals, and the other "
            f"numbers of the column {'show both decimal signs' if len(signs) > 1 else 'do not show which'}: "
            f"{way_to_decimal(min(own.in_doubt))}."
        )

    def _plain_amount(self, text: str, where: str, column: str) -> Amount | None:
        """A plain number; counts numbers in which a point may separate thousands."""
        seen = self._texts.setdefault(column, _SeenTexts())
        seen.n_numbers += 1
        seen.with_point += "." in text
        if may_be_thousands(text):
            seen.grouped += 1
            seen.first_grouped = seen.first_grouped or f"{where} ({text!r:.40})"
        value = float(text)
        return Amount(value, value) if math.isfinite(value) else None

    def _seen_numbers(self, column: str, text: str) -> _SeenNumbers:
        """What the numbers of a column show, of which the text is one."""
        if column not in self._numbers or self._columns is None:
            texts = {text, *(cell.strip() for cell in self.column(column) if isinstance(cell, str))}
            is_plain = all(map(_is_plain_number, texts))
            notations = () if is_plain else map(signs_of, texts)
            signs = {sign for one in notations if not one.is_in_thousands for sign in one.decimal}
            self._numbers[column] = _SeenNumbers(is_plain, frozenset(signs))
        return self._numbers[column]

    def _check_units(self, amount: Amount, cell: Any, where: str, column: str) -> None:
        """Raises for a currency or a period other than those of earlier cells of the column."""
        units = self._units.setdefault(column, {"currency": {}, "period": {}})
        for what, said in (("currency", amount.currency), ("period", amount.period)):
            known = units[what]
            if said in known and len(known) == 1:
                continue
            known.setdefault(said, f"{where} ({cell!r:.40})")
            others = [one for one in known if unit_differs(what, one, said)]
            if others:
                raise MarketError(
                    f"{where}, column {column!r}: {cell!r:.80} is {_in_unit(what, said)}, and {known[others[0]]} is "
                    f"{_in_unit(what, others[0])}. Numbers of one column are compared, so they must have one {what}: "
                    "convert them in the file, or leave the column out of `context`."
                )

    def finish(self) -> None:
        """Call this after the last row.

        Raises:
            MarketError: For an entry ``skills.name`` that no object had.

        Warns:
            UserWarning: If another separator, free text, another encoding or another decimal sign is likely.
        """
        for column, entries in self._entries.items():
            if column not in self._found and entries:
                last = column.rpartition(".")[2]
                raise MarketError(
                    f"{self._file}: no object has the entry that column {column!r} names."
                    f"{did_you_mean(last, entries)} They have {', '.join(map(repr, entries))}."
                )
        for column, texts in self._texts.items():
            for complaint in filter(None, (_doubt_of_letters(column, texts), _doubt_of_numbers(column, texts))):
                warnings.warn(f"{self._file}: {complaint}", UserWarning, stacklevel=2)
        is_told = self._rules.skill_separator is not None
        # A user who gives `;` knows that other signs are parts of skills.
        if not is_told or (self._rules.is_taken_over and self._separator != _SEPARATOR):
            for column, seen in self._seen.items():
                if doubt := _doubt(column, seen, self._separator, may_be_text=not is_told):
                    warnings.warn(f"{self._file}: {doubt}", UserWarning, stacklevel=2)

    def _text(self, cell: Any, where: str, column: str) -> str:
        if isinstance(cell, str):
            return without_markup(self._normal(cell, where, column))
        if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
            return str(int(cell))  # an integer column with gaps has floats
        if isinstance(cell, numbers.Number) and not isinstance(cell, bool):
            return str(cell)
        if isinstance(cell, datetime.date):
            return cell.isoformat()
        raise MarketError(
            f"{where}, column {column!r}: must be a text or a number, got {cell!r:.80}{_way_to_entry(cell, column)}."
        )

    def _normal(self, cell: str, where: str, column: str) -> str:
        """The text in normal form; counts texts that may have been decoded wrongly."""
        if cell.isascii():
            return cell
        check_text(cell, f"{where}, column {column!r}")
        seen = self._texts.setdefault(column, _SeenTexts())
        seen.n += 1
        if _is_broken(cell):
            seen.broken += 1
            seen.example = seen.example or cell
        return normal_form(cell)

    def _cut(self, cell: str, where: str, column: str) -> Iterator[str]:
        text = self._normal(cell, where, column)
        lines = [text]
        if _MARKUP.search(text) and not _MARKUP.search(self._separator):
            is_list = BREAKING_TAG.search(text) is not None
            text = html_text(text)
            lines = text.split("\n") if is_list else [text]
            text = self._separator.join(lines)
        parts = [part.strip() for line in lines for part in line.split(self._separator)]
        if self._separator == "\n":
            parts = [_BULLET.sub("", part, count=1) if _BULLET.match(part) else part for part in parts]
        found = [part for part in parts if part and part.casefold() not in self._nothing]
        seen = self._seen.setdefault(column, _Seen())
        seen.n += 1
        seen.separated += self._separator in text
        seen.n_words += len(text.split())
        seen.n_parts += len(found)
        for other in self._others:
            if other in text:
                seen.other[other] += 1
                seen.other_parts[other] += text.count(other)
        yield from found

    def _listed(self, cell: Sequence[Any], where: str, column: str) -> list[str]:
        found = []
        for skill in cell:
            if self.is_nothing(skill):
                self.counts["nulls in lists"] += not isinstance(skill, str) or bool(skill.strip())
                continue
            if not isinstance(skill, str):
                raise MarketError(
                    f"{where}, column {column!r}: must list texts, got {skill!r:.80} among them"
                    f"{_way_to_skills(skill, column)}."
                )
            found.append(without_markup(self._normal(skill, where, column)))
        return found

    def _entry(self, value: Any, path: Sequence[str], where: str, column: str) -> Any:
        if not path or self.is_nothing(value):
            return None if self.is_nothing(value) else value
        if isinstance(value, str):
            value = _objects_in_text(value.strip())
        if isinstance(value, list):
            found: list[Any] = []
            for one in value:
                entry = self._entry(one, path, where, column)
                found += entry if isinstance(entry, list) else [entry]
            return found
        if not isinstance(value, Mapping):
            raise MarketError(f"{where}, column {column!r}: must hold objects with {path[0]!r}, got {value!r:.80}.")
        self._entries.setdefault(column, Counter()).update(map(str, value))
        if path[0] in value:
            self._found.add(column)
        return self._entry(value.get(path[0]), path[1:], where, column)


# ------------------------------------------------------------------------------------------------------- lists in texts


def list_in_text(text: str, where: str, column: str) -> Any:
    """The list in a cell, if its text has the notation of a list in JSON, Python or a database; else the text.

    Raises:
        MarketError: For a text that begins like a JSON array but is not one; the message names the place.
    """
    text = _list_of_array(text)
    if text[0] not in _BRACKETS:
        return text
    listed: Any = None
    if text[0] != "[":
        listed = _python_list(text)
        if listed is None and text[0] == "{":
            listed = _database_list(text)
            listed = _objects_in_text(text) if listed is None else listed
        return text if listed is None else listed
    try:
        return parse_json(text, f"{where}, column {column!r}", "begins like a JSON array but is not one")
    except MarketError:
        listed = _python_list(text)
        listed = _objects_in_text(text) if listed is None else listed
        listed = _database_list(text) if isinstance(listed, str) else listed
        if listed is None:
            raise
        return listed


def _list_of_array(text: str) -> str:
    """The list in the text of an array of numpy; any other text as it is."""
    array = _ARRAY.fullmatch(text)
    return array[1] if array else text


def _python_list(text: str) -> list[Any] | None:
    """A list, tuple, set or array as Python or numpy prints it; ``None`` for anything else.

    Its entries are texts or nothing. Those of a list or an array, ``[1 2]``, may be numbers too.
    """
    if text[-1] != _BRACKETS[text[0]]:
        return None
    place, end = 1, len(text[:-1].rstrip())
    found: list[Any] = []
    while place < end:
        item = _ITEM.match(text, place, end)
        if item is None:
            return None
        try:
            found.append(None if item[2] is None else ast.literal_eval(item[2]))
        except (ValueError, SyntaxError):
            return None
        place = item.end()
    is_list = text[0] == "[" or all(one is None or isinstance(one, str) for one in found)
    return found if is_list else None


def _database_list(text: str) -> list[str | None] | None:
    """An array as a database prints it, ``{SQL,"Power BI",NULL}`` or ``[SQL, 'a, b']``; ``None`` for anything else."""
    inside, quote = text[1:-1], _DATABASE_QUOTES[text[0]]
    if text[-1] != _BRACKETS[text[0]] or _IN_NO_ARRAY[text[0]].search(inside):
        return None
    signs: dict[str, Any] = {"quotechar": quote, "escapechar": "\\", "doublequote": False, "skipinitialspace": True}
    try:
        (cells,) = csv.reader([inside], strict=True, **signs) if inside.strip() else ([],)
    except (csv.Error, ValueError):
        return None
    return [None if cell == "NULL" else cell for cell in cells]


def _objects_in_text(text: str) -> Any:
    """The objects in a text, in the notation of JSON or Python; else the text."""
    text = _list_of_array(text)
    if text[0] in "[{":
        try:
            return parse_json(text, "")
        except MarketError:
            try:
                return ast.literal_eval(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                pass
    return text


# -------------------------------------------------------------------------------------------------------------- helpers


def _split(header: Collection[str], column: str) -> tuple[str, list[str]] | None:
    """The column and the path of an entry ``skills.name``. The column's own name may contain dots."""
    parts = column.split(".")
    for n in range(len(parts) - 1, 0, -1):
        if (name := ".".join(parts[:n])) in header:
            return name, parts[n:]
    return None


def _way_to_entry(value: Any, column: str) -> str:
    if not isinstance(value, Mapping) or not value:
        return ""
    names = [str(name) for name in value]
    return f"; say which entry of the object is meant, e.g. `columns={{'hard': {f'{column}.{names[0]}'!r}}}`"


def _way_to_skills(value: Any, column: str) -> str:
    """The way from an object to skills: one of its entries, or its keys if no entry can hold skills."""
    if not isinstance(value, Mapping) or not value:
        return ""
    if any(isinstance(entry, str | list | Mapping) for entry in value.values()):
        return _way_to_entry(value, column)
    return f"; if its keys are the skills, write a list of them in its place, e.g. {[str(key) for key in value][:3]!r}"


def _level_word(word: str) -> str:
    text = " ".join(re.sub(r"[-_/]", " ", normal_form(word).casefold()).split())
    return text.removesuffix(" level")


def _is_broken(text: str) -> bool:
    """Whether a text seems to be UTF-8 that was decoded as something else, or has lost letters."""
    if "\ufffd" in text or any("\x80" <= letter <= "\x9f" for letter in text):
        return True
    try:
        text.replace("\xa0", " ").encode("cp1252").decode()
    except ValueError:
        return False
    return True


def _way_to_nothing(cell: Any) -> str:
    """What to do about a word in a column of numbers or dates; empty for a cell with a digit."""
    is_word = isinstance(cell, str) and not any(map(str.isdigit, cell))
    return f" If this means that nothing is known, say so by `null_values=[{cell!r:.80}, ...]`." if is_word else ""


def way_to_decimal(sign: str) -> str:
    """What to say about a sign, ``.`` or ``,``, that may separate thousands or be the decimal sign."""
    other = "," if sign == "." else "."
    return f"say `decimal={other!r}` if {sign!r} separates thousands, or `decimal={sign!r}` if it is the decimal sign"


def _amount_in(text: str, decimal: str) -> Amount | None:
    """The amount that a text says by a decimal sign; ``None`` for anything else."""
    value = number_in_text(text, decimal)
    return Amount(value, value) if math.isfinite(value) else amount_in(text, decimal)


def _is_plain_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _in_unit(what: str, unit: str) -> str:
    if what == "currency":
        return f"in {unit}"
    return f"for one {unit}" if unit else "without a period, which counts as for one year"


def _doubt_of_letters(column: str, seen: _SeenTexts) -> str | None:
    if not seen.broken or 2 * seen.broken < seen.n:
        return None
    return (
        f"{seen.broken:,} cells of column {column!r} seem to be decoded wrongly, such as {seen.example!r:.60}: say "
        "another `encoding`, or leave `encoding` out if you gave it; if only one of two files has another encoding, "
        "say `encoding={'jobs': 'cp1252'}`. If the file itself has these letters, save it anew."
    )


def _doubt_of_numbers(column: str, seen: _SeenTexts) -> str | None:
    if not seen.grouped or seen.grouped < seen.with_point or seen.grouped < _MANY * seen.n_numbers:
        return None
    return (
        f"{seen.grouped:,} of {seen.n_numbers:,} numbers in column {column!r} are written like '50.000' and are read "
        "as 50: say `decimal=','` if the point separates thousands, or `decimal='.'` if it is the decimal sign."
    )


def _doubt(column: str, seen: _Seen, separator: str, *, may_be_text: bool) -> str | None:
    """The warning on a column that may be misread, with the argument that settles it; ``None`` if all is well."""
    if not seen.n_parts:
        return None
    as_it_is = f"say `skill_separator={separator!r}` to split cells only at {separator!r}"
    other, n_other = max(seen.other.items(), key=lambda item: item[1], default=(",", 0))
    many = n_other >= _MANY * seen.n and seen.separated * 20 < n_other
    if may_be_text and seen.n_words / (seen.n_parts + (seen.other_parts[other] if many else 0)) > _WORDS_OF_A_SKILL:
        return (
            f"the cells of column {column!r} have {seen.n_words / seen.n:.0f} words each and look like free text: name "
            f"their field in `text_columns`, or {as_it_is}."
        )
    if many:
        return (
            f"{n_other:,} of {seen.n:,} cells in column {column!r} have {other!r}, and {seen.separated or 'none'} have "
            f"the separator {separator!r}: say `skill_separator={other!r}` if {other!r} separates skills; {as_it_is}."
        )
    return None
