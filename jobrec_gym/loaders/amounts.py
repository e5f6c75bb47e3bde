"""Reads amounts as people write them: with a currency, as a range, in thousands, for an hour or a year."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["TIMES_A_YEAR", "Amount", "amount_in", "decimal_signs", "number_in_text", "period_of"]

TIMES_A_YEAR = {"hour": 2080, "day": 260, "week": 52, "month": 12, "year": 1}
"""How often a salary is paid in a year, by the period that it is for."""

_PERIODS = {
    word: period
    for period, words in (
        ("hour", ("HOUR", "HOURS", "HR", "H", "HUR", "STUNDE", "STD", "HEURE", "HORA")),
        ("day", ("DAY", "DAYS", "TAG", "JOUR", "DÍA", "DIA")),
        ("week", ("WEEK", "WEEKS", "WK", "WEE", "WOCHE", "SEMAINE", "SEMANA")),
        ("month", ("MONTH", "MONTHS", "MTH", "MO", "MON", "MONAT", "MOIS", "MES")),
        ("year", ("YEAR", "YEARS", "YR", "ANNUM", "ANN", "JAHR", "AN", "ANNÉE", "AÑO")),
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
        ("month", ("MONTHLY", "MONATLICH", "MTL")),
        ("year", ("YEARLY", "ANNUAL", "ANNUALLY", "PA", "JÄHRLICH")),
    )
    for word in words
}
"""Words that name a period without ``per`` before them."""
_PER = re.compile(r"^(?:(?:PER|PRO|JE|IM|PAR|POR|AL|AN?)\b|/)\s*")

_SIGNS = {
    **{"€": "EUR", "euro": "EUR", "euros": "EUR", "£": "GBP", "us$": "USD", "fr.": "CHF"},
    **{"₹": "INR", "zł": "PLN", "kč": "CZK", "$": "$", "¥": "¥", "kr": "kr"},
}
"""Currencies by their signs and names. ``$``, ``¥`` and ``kr`` may be several ones and stand for themselves."""
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
        rf"(?:\s*(?P<k_{name}>(?:k|tsd)(?![^\W\d_])\.?|t(?=€|eur\b)))?(?:\s*(?P<after_{name}>{_CURRENCY}))?"
    )


_AMOUNT = re.compile(
    r"(?:(?:ab|von|from|bis zu|bis|up to|ca|mind|mindestens|min|max|maximal)\b\.?\s+)?"
    rf"{_end('low')}(?:\s*(?:[-\u2013\u2014]|\b(?:bis|to)\b)\s*{_end('high')})?\s*(?P<period>[^\d]*)",
    re.ASCII | re.IGNORECASE,
)
_GROUPS = {
    sign: re.compile(rf"[+-]?\d{{1,3}}(?:[{_SPACES}{other}]\d{{3}})+(?:\{sign}\d+)?", re.ASCII)
    for sign, other in (".,", ",.")
}


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
    word = text.upper().replace(".", "").strip()
    known = _PERIODS | _PERIODS_ALONE
    return known.get(word) or known.get(_PER.sub("", word))


def amount_in(text: str, decimal: str) -> Amount | None:
    """The amount that a text says; ``None`` for anything else.

    Args:
        text: Such as ``"45.000 €"``, ``"45-52k"``, ``"ab 45.000 EUR pro Jahr"`` or ``"$15 / hour"``. ``ab 45.000``
            and ``bis 45.000`` are read as 45,000, the only end that they name.
        decimal: The decimal sign. The other sign, blanks and apostrophes separate thousands.
    """
    found = _AMOUNT.fullmatch(_plain(text))
    if found is None:
        return None
    low = number_in_text(found["low"], decimal)
    high = low if found["high"] is None else number_in_text(found["high"], decimal)
    thousands = found["k_low"] is not None
    if found["high"] is not None:
        # In "45-52k" both ends are thousands, and in "45.000-52k" only the upper one.
        thousands |= found["k_high"] is not None and low < 1000
        high *= 1000 if found["k_high"] else 1
    low *= 1000 if thousands else 1
    high = low if found["high"] is None else high
    named = {
        _SIGNS.get(word.casefold(), word.upper())
        for end in ("low", "high")
        for place in ("before", "after")
        if (word := found[f"{place}_{end}"])
    }
    period = _period_after(found["period"].strip())
    if not low <= high < math.inf or len(named) > 1 or period is None:
        return None
    return Amount(low, high, next(iter(named), ""), period)


def _period_after(text: str) -> str | None:
    """The period behind an amount, empty if nothing stands there. ``5 Jahre`` and ``5 year`` are no pay for a year."""
    word = text.upper().replace(".", "").strip()
    if not word:
        return ""
    return _PERIODS_ALONE.get(word) or (_PERIODS.get(_PER.sub("", word)) if _PER.match(word) else None)


def number_in_text(text: str, decimal: str) -> float:
    """The number in a text, in which thousands may be separated; NaN if it is none.

    Args:
        text: A number without words.
        decimal: The decimal sign. The other sign, blanks and apostrophes separate thousands.
    """
    text = _plain(text)
    other = "," if decimal == "." else "."
    if _GROUPS[decimal].fullmatch(text):
        text = re.sub(rf"[{_SPACES}{other}]", "", text)
    elif other in text:
        return math.nan
    try:
        return float(text.replace(decimal, "."))
    except ValueError:
        return math.nan


def decimal_signs(text: str) -> tuple[set[str], bool]:
    """What a text reveals of the decimal sign of its numbers.

    Returns:
        The signs that must be decimal signs in it: ``{","}`` for ``"1.234,5"``, ``"1,5"`` and ``"1.234.567"``. And
        whether it has a number such as ``45.000``, which is 45 or 45,000.
    """
    found = _AMOUNT.fullmatch(_plain(text))
    signs: set[str] = set()
    is_ambiguous = False
    for name in ("low", "high") if found else ():
        if found is None or found[name] is None:
            continue
        number = found[name]
        used = [sign for sign in number if sign in ".,"]
        head, _, tail = number.rpartition(used[-1]) if used else ("", "", "")
        if found[f"dash_{name}"]:
            signs.add(found[f"dash_{name}"][0])
        elif len(set(used)) == 2:
            signs.add(used[-1])
        elif len(used) > 1:
            signs.add("," if used[0] == "." else ".")
        elif used and (len(tail) != 3 or len(head) > 3 or head.startswith("0")):
            signs.add(used[0])
        elif used:
            is_ambiguous = True
    return signs, is_ambiguous


def _plain(text: str) -> str:
    """The text without blanks around it; every kind of blank is a plain one."""
    return " ".join(text.split())
