"""Finds the row of an applicant or a job that a user names, for instance by the source's own key."""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market.tables import Profile
from jobrec_gym.near_miss import best_match

__all__ = ["find_row", "find_rows", "named_rows", "near_key", "padded_key"]

_COMPARED = 2_000
"""At most this many keys are compared with an unknown key, to suggest a similar key. They are the keys that have the
most letters in the same places as the unknown key; capitals do not matter. A comparison with a million keys would take
minutes."""

_CASE = np.uint32(32)
"""The bit in which most small letters differ from their capitals: Latin, Greek and Cyrillic ones."""

_NUMBER = re.compile(r"\d+")


def find_row(side: str, keys: NDArray[np.str_], which: int | str | Profile) -> int:
    """The row that a user names.

    Args:
        side: ``"applicant"`` or ``"job"``, for messages.
        keys: (n,), the keys of that side.
        which: A row (any integer), a key (any text, ``"5"`` too), or a profile, whose key must be that of its row.

    Raises:
        ValueError: For a row that does not exist, an unknown key, or a key of several rows.
        TypeError: For anything else.
    """
    if isinstance(which, str):
        return int(find_rows(side, keys, [which])[0])
    if isinstance(which, Profile):
        if not 0 <= which.id < len(keys) or str(keys[which.id]) != which.key:
            raise ValueError(
                f"`{side}` {which.key!r} is of another market: row {which.id} of this market is not that {side}."
            )
        return which.id
    try:
        row = operator.index(which)
    except TypeError:
        row = None
    if row is None or isinstance(which, bool):
        raise TypeError(f"`{side}` must be a row (an integer) or a key (a text), got {which!r}.")
    if not 0 <= row < len(keys):
        raise ValueError(
            f"`{side}` must be a row in [0, {len(keys)}), got {row}; a key is a text, e.g. {str(keys[0])!r:.80}."
        )
    return row


def find_rows(side: str, keys: NDArray[np.str_], asked: Iterable[str]) -> NDArray[np.int64]:
    """The rows of many keys at once.

    Args:
        side: As in :func:`find_row`.
        keys: (n,), the keys of that side.
        asked: The keys to find; they may repeat.

    Returns:
        int64, one row for each of ``asked``.

    Raises:
        ValueError: For an unknown key (the message suggests a similar one), or for a key of several rows (the message
            names the first two).
    """
    # Loaders bring keys to Unicode's normal form C; a typed key may have another form.
    asked = [str(key) for key in asked]
    wanted = {key: (key, unicodedata.normalize("NFC", key)) for key in asked}
    found: dict[str, list[int]] = {}
    forms = [form for some in wanted.values() for form in some]
    for row in np.flatnonzero(np.isin(keys, np.asarray(forms, dtype=np.str_))).tolist():
        found.setdefault(str(keys[row]), []).append(row)
    for key, (written, normal) in wanted.items():
        rows = found.get(written, found.get(normal))
        if rows is None:
            near = near_key(keys, key)
            like = f"Keys are texts such as {str(keys[0])!r:.80}; a row is an integer."
            hint = f"Did you mean {near!r:.80}?" if near else like
            raise ValueError(f"there is no {side} with the key {key!r:.80}. {hint}")
        found[key] = rows
        if len(rows) > 1:
            raise ValueError(
                f"the key {key!r:.80} is that of {len(rows)} {side}s, rows {rows[0]} and {rows[1]}: say the row, "
                f"e.g. {rows[0]}."
            )
    return np.array([found[key][0] for key in asked], dtype=np.int64)


def named_rows(side: str, keys: NDArray[np.str_], named: Iterable[int | str | Profile]) -> NDArray[np.int64]:
    """The rows that a user names, each by row, by key or by profile; arguments and errors as of :func:`find_row`.

    Returns:
        int64, one row for each of ``named``.
    """
    if isinstance(named, np.ndarray) and named.ndim == 1 and named.dtype.kind in "iu":
        for row in named[(named < 0) | (named >= len(keys))].tolist():
            find_row(side, keys, row)  # raises
        return named.astype(np.int64)
    listed = list(named)
    texts = [place for place, which in enumerate(listed) if isinstance(which, str)]
    found = np.empty(len(listed), dtype=np.int64)
    if texts:
        found[texts] = find_rows(side, keys, [listed[place] for place in texts])  # type: ignore[misc]
    for place, which in enumerate(listed):
        if not isinstance(which, str):
            found[place] = find_row(side, keys, which)
    return found


def near_key(keys: NDArray[np.str_], key: str) -> str | None:
    """The key that is most like an unknown one; ``None`` if no key is similar.

    A key of :func:`padded_key` is the most similar. A key that differs from the unknown one only in its numbers does
    not count as similar. Many keys may differ from ``2128`` in this way, for example ``2129``, and nothing says which
    one is meant.
    """
    if (padded := padded_key(keys, key)) is not None:
        return padded
    likest: Any = keys
    if len(keys) > _COMPARED:
        letters = np.ascontiguousarray(keys).view(np.uint32).reshape(len(keys), -1)
        differences = letters ^ np.array([key], dtype=keys.dtype).view(np.uint32)
        same = (differences & ~_CASE == 0).sum(axis=1)
        likest = keys[np.argpartition(-same, _COMPARED)[:_COMPARED]]
    form, numbers = _without_numbers(key)
    alike = ((other, _without_numbers(other)) for other in likest.tolist())
    return best_match(key, (other for other, found in alike if found[0] != form or found[1] == numbers))


def _without_numbers(key: str) -> tuple[str, list[str]]:
    """The key with a 0 in place of each number, without regard to case, and its numbers without zeros before them."""
    return _NUMBER.sub("0", key.casefold()), [number.lstrip("0") for number in _NUMBER.findall(key)]


def padded_key(keys: NDArray[np.str_], number: str) -> str | None:
    """The first key that differs from an unknown number only by the zeros before it: a spreadsheet drops such zeros.

    ``None`` if there is no such key, or if ``number`` is not written in digits alone.
    """
    if not number.isdecimal():
        return None
    padded = keys[np.char.lstrip(keys, "0") == number.lstrip("0")]
    return str(padded[0]) if len(padded) else None
