"""Reads amounts as people write them: with a currency, as a range, in thousands, for an hour or a year."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import NamedTuple

__all__ = [
    "TIMES_A_YEAR",
    "Amount",
    "NumberSigns",
    "RangeInDoubt",
    "amount_in",
    "is_net",
    "may_be_thousands",
    "number_in_text",
    "period_of",
    "signs_of",
    "unit_differs",
]

TIMES_A_YEAR = {"hour": 2080, "day": 260, "week": 52, "month": 12, "year": 1}
"""How often a salary is paid in a year, by the period that it is for."""

_PERIODS = {
    word: period
    for period, words in (
        ("hour", ("HOUR", "HOURS", "HR", "H", "HUR", "STUNDE", "STD", "HEURE", "HORA", "ORA")),
        ("day", ("DAY", "DAYS", "TAG", "JOUR", "DÍA", "DIA", "GIORNO")),
        ("week", ("WEEK", "WEEKS", "WK", "WEE", "WOCHE", "SEMAINE", "SEMANA", "SETTIMANA")),
        ("month", ("MONTH", "MONTHS", "MTH", "MO", "MON", "MONAT", "MOIS", "MES", "MESE")),
        ("year", ("YEAR", "YEARS", "YR", "ANNUM", "ANN", "JAHR", "AN", "ANNÉE", "AÑO", "ANNO")),
    )
    for word in words
}
"""Units of a salary as sites write them, with the codes of UN/CEFACT: ``HUR``, ``DAY``, ``WEE``, ``MON``, ``ANN``."""
_PERIODS_ALONE = {
    word: period
    for period, words in (
        ("hour", ("HOURLY", "STÜNDLICH")),
        ("day", ("DAILY", "TÄGLICH")),
        ("week", ("WEEKLY", "WÖCHENTLICH")),
        ("month", ("MONTHLY", "MONATLICH", "MTL", "PM", "P M")),
        ("month", ("MENSUEL", "MENSUELS", "MENSUAL", "MENSUALES", "MENSILE", "MENSILI")),
        ("year", ("YEARLY", "ANNUAL", "ANNUALLY", "PA", "P A", "JÄHRLICH")),
        ("year", ("ANNUEL", "ANNUELS", "ANUAL", "ANUALES", "ANNUO", "ANNUI")),
    )
    for word in words
}
"""Words that name a period without ``per`` before them."""
_GROSS_WORD = r"(?:GROSS|BRUT(?:TO|[OAE])?S?|LORD[OAIE])"
_GROSS = re.compile(rf"^{_GROSS_WORD}\b|\b{_GROSS_WORD}$")
_NET = re.compile(r"\bNET(?:S|T[OAIE]|[OA]S?)?\b")
_PER = re.compile(r"^(?:(?:PER|PRO|JE|IM|PAR|POR|AL|AN?)\b|/)\s*")

_SIGNS = {
    **{"€": "EUR", "euro": "EUR", "euros": "EUR", "£": "GBP", "us$": "USD", "fr.": "CHF"},
    **{"₹": "INR", "zł": "PLN", "kč": "CZK", "$": "$", "¥": "¥", "kr": "kr"},
}
"""Currencies by their signs and names. Each of ``$``, ``¥`` and ``kr`` may mean several, so it stands for itself."""
_CODES = frozenset(
    (
        *("EUR", "USD", "GBP", "CHF", "JPY", "CNY", "INR", "AUD", "CAD", "NZD", "SEK", "NOK", "DKK", "PLN", "CZK"),
        *("HUF", "RON", "BGN", "TRY", "UAH", "ILS", "AED", "ZAR", "BRL", "MXN", "SGD", "HKD", "KRW", "THB"),
    )
)
"""Codes of currencies in ISO 4217 that are read."""
_CURRENCY = "|".join(
    rf"{re.escape(word)}(?![^\W\d_])" if word[-1].isalpha() else re.escape(word)
    for word in sorted((*_SIGNS, *_CODES), key=len, reverse=True)
)
_SPACES = " '\u2019"
"""Characters beside ``.`` and ``,`` that separate thousands; every kind of blank is read as a plain one."""
_NUMBER = rf"(?:\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,]\d+)*)"


def _end(name: str) -> str:
    """The pattern of one end of a range: a number with its currency, and perhaps ``k`` or ``,-`` after it."""
    return (
        rf"(?:(?P<before_{name}>{_CURRENCY})\s*)?(?P<{name}>{_NUMBER})(?P<dash_{name}>[.,](?:--?|[\u2013\u2014])(?!\d))?"
        rf"(?:\s*(?P<k_{name}>(?:k|tsd)(?![^\W\d_])\.?|[tk](?=€|eur\b)))?(?:\s*(?P<after_{name}>{_CURRENCY}))?"
    )


_AMOUNT = re.compile(
    r"(?:(?:ab|von|from|between|de|da|bis zu|bis|up to|ca|mind|mindestens|min|max|maximal)\b\.?\s+)?"
    rf"{_end('low')}(?:\s*(?:[-\u2010-\u2014\u2212]|\b(?:bis|to|a|and)\b|[àÀ])\s*{_end('high')}|\s*\+)?"
    r"\s*(?P<period>[^\d]*)",
    re.ASCII | re.IGNORECASE,
)
_GROUPS = {
    sign: re.compile(rf"[+-]?\d{{1,3}}([{_SPACES}{other}])\d{{3}}(?:\1\d{{3}})*(?:\{sign}\d+)?", re.ASCII)
    for sign, other in (".,", ",.")
}
"""For each decimal sign: the pattern of a number whose thousands are all separated by the same character."""
_OTHER = {".": ",", ",": "."}
_ONE_GROUP = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}", re.ASCII)
_SHORT = 1000
"""A lower end below this may be short for thousands."""
_WIDE = 100
"""If the upper end of a range is at least this many times the lower end, the lower end may be short for thousands."""


class RangeInDoubt(ValueError):
    """An end of a range may mean something else than is written: in ``45-52.000`` the 45 may mean 45,000."""


class Amount(NamedTuple):
    """An amount of money.

    Attributes:
        low: The lower end of a range. For a single number both ends are equal.
        high: The upper end.
        currency: A code of ISO 4217, or a sign of several currencies, such as ``$``; empty if none is named.
        period: What it is paid for, a key of :data:`TIMES_A_YEAR`; empty if none is named.
    """

    low: float
    high: float
    currency: str = ""
    period: str = ""


def period_of(text: str) -> str | None:
    """The period that a text names: ``"month"`` for ``"Per month"``, ``"/Monat"``, ``"mtl."`` and ``"MON"``.

    Returns:
        A key of :data:`TIMES_A_YEAR`; ``None`` for anything else.
    """
    word = _plain(text).upper().replace(".", "").strip()
    known = _PERIODS | _PERIODS_ALONE
    return known.get(word) or known.get(_PER.sub("", word))


def amount_in(text: str, decimal: str) -> Amount | None:
    """The amount that a text says; ``None`` for anything else.

    Args:
        text: Such as ``"45.000 €"``, ``"45-52k"``, ``"ab 45.000 EUR pro Jahr"`` or ``"$15 / hour"``. ``ab 45.000``,
            ``bis 45.000`` and ``45.000+`` are read as 45,000, the only end that they name.
        decimal: The decimal sign. The other sign, blanks and apostrophes separate thousands.

    Raises:
        RangeInDoubt: For a range such as ``45-52.000`` or ``10-2026``; the message says how to write it.
    """
    found = _AMOUNT.fullmatch(_plain(text))
    if found is None:
        return None
    ends = ("low", "high") if found["high"] else ("low",)
    # The dash in "45.000,-" stands for the decimals, so the number before it has none.
    if any(found[f"dash_{end}"] and decimal in found[end] for end in ends):
        return None
    numbers = [number_in_text(found[end], decimal) for end in ends]
    low, high = numbers[0], numbers[-1]
    in_thousands = [found[f"k_{end}"] is not None for end in ends]
    # In "45-52k" both ends are thousands, and in "45.000-52k" only the upper one.
    low *= 1000 if in_thousands[0] or (in_thousands[-1] and low < _SHORT) else 1
    high *= 1000 if in_thousands[-1] else 1
    named = {
        _SIGNS.get(word.casefold(), word.upper())
        for end in ends
        for place in ("before", "after")
        if (word := found[f"{place}_{end}"])
    }
    period = _period_after(found["period"].strip())
    if not low <= high < math.inf or len(named) > 1 or period is None:
        return None
    if found["high"] and not any(in_thousands):
        _check_ends(low, high, is_bare=(found["low"] + found["high"]).isdecimal() and not (named or found["period"]))
    return Amount(low, high, next(iter(named), ""), period)


def _check_ends(low: float, high: float, *, is_bare: bool) -> None:
    """Raises :class:`RangeInDoubt` for a range that may be short for thousands, or may be no range.

    Args:
        low: The lower end, as it is written.
        high: The upper end.
        is_bare: Whether both ends are whole numbers, and nothing says that they are money.
    """
    spelling = "write both ends in full, such as `45.000-52.000`, or in thousands, such as `45-52k`"
    if is_bare and low < _SHORT:
        raise RangeInDoubt(
            f"may be a range, a date or short for thousands: {spelling}, or say what they are in, such as `12-15 €/h`. "
            "If this is not pay, write one number, not a range"
        )
    if 0 < low < _SHORT <= high and high >= _WIDE * low:
        raise RangeInDoubt(f"is a range whose lower end may be short for thousands: {spelling}")


def _period_after(text: str) -> str | None:
    """The period behind an amount, empty if none is named. ``5 Jahre`` and ``5 year`` are no pay for a year."""
    word = _GROSS.sub("", re.sub(r"[.()]", "", text.upper()).strip()).strip()
    if not word:
        return ""
    return _PERIODS_ALONE.get(word) or (_PERIODS.get(_PER.sub("", word)) if _PER.match(word) else None)


def is_net(text: str) -> bool:
    """Whether a text about pay names net pay, in English, German, French, Spanish or Italian."""
    return _NET.search(text.upper()) is not None


def number_in_text(text: str, decimal: str) -> float:
    """The number in a text, in which thousands may be separated; NaN if it is none.

    Args:
        text: A number without words.
        decimal: The decimal sign. The other sign, a blank or an apostrophe separates thousands; a number may use only
            one of these.
    """
    text = _plain(text)
    if found := _GROUPS[decimal].fullmatch(text):
        text = text.replace(found[1], "")
    elif _OTHER[decimal] in text:
        return math.nan
    try:
        return float(text.replace(decimal, "."))
    except ValueError:
        return math.nan


def may_be_thousands(number: str) -> bool:
    """Whether a number is like ``45.000``, which is 45 or 45,000; ``0.500`` and ``1234.500`` can only have decimals."""
    return _ONE_GROUP.fullmatch(number) is not None


class NumberSigns(NamedTuple):
    """What a text reveals of the way in which its numbers are written.

    Attributes:
        decimal: The signs that must be decimal signs in it: ``{","}`` for ``"1.234,5"``, ``"1,5"``, ``"45.000,-"`` and
            ``"1.234.567"``.
        in_doubt: The signs of numbers such as ``45.000``, in which the sign may also separate thousands.
        is_in_thousands: Whether a ``k``, ``Tsd.`` or ``T€`` says that a number counts thousands.
    """

    decimal: frozenset[str]
    in_doubt: frozenset[str]
    is_in_thousands: bool


def signs_of(text: str) -> NumberSigns:
    """What a text reveals of the decimal sign of its numbers; nothing if it is no amount and no negative number."""
    found = _AMOUNT.fullmatch(_plain(text).lstrip("+-"))
    decimal: set[str] = set()
    in_doubt: set[str] = set()
    ends = [(found[end], found[f"dash_{end}"], found[f"k_{end}"]) for end in ("low", "high")] if found else []
    ends = [end for end in ends if end[0]]
    for number, dash, _ in ends:
        used = [sign for sign in number if sign in ".,"]
        if dash and (used or dash[0] == ","):
            # The number has no decimals, so its signs separate thousands. In Switzerland ".-" goes with either sign, so
            # "5000.-" shows none.
            decimal.add(_OTHER[used[0]] if used else ",")
        elif len(set(used)) == 2:
            decimal.add(used[-1])
        elif len(used) > 1:
            decimal.add(_OTHER[used[0]])
        elif may_be_thousands(number):
            in_doubt.add(used[0])
        else:
            decimal.update(used)
    return NumberSigns(frozenset(decimal), frozenset(in_doubt), any(thousands for *_, thousands in ends))


def unit_differs(what: str, one: str, other: str) -> bool:
    """Whether two numbers cannot be compared because their units differ.

    Args:
        what: ``"currency"`` or ``"period"``.
        one: What the first number names, empty if it names none. Without a currency it may be in any, and without a
            period it counts as one for a year.
        other: What the second number names.
    """
    if what == "currency":
        return bool(one and other and one != other)
    return (one or "year") != (other or "year")


def _plain(text: str) -> str:
    """The text in normal form without blanks around it; every kind of blank is a plain one."""
    return " ".join(unicodedata.normalize("NFC", text).split())
