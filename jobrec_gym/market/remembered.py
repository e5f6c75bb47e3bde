"""What a saved market remembers of how its files were read: plain data, without paths."""

from __future__ import annotations

import contextlib
import json
import ntpath
import posixpath
from collections.abc import Collection, Mapping, Set
from typing import Any

import numpy as np

__all__ = ["REMEMBERED", "remembered"]

REMEMBERED = (
    *("columns", "text_columns", "skill_separator", "null_values", "seniority_values", "decimal", "date_format"),
    *("role_column", "role_values", "context", "encoder", "units"),
)
"""The keywords of a loader that say how its rows were read, and by which encoder. ``units`` is one more entry: it holds
the currency, the period and the decimal sign of each numeric context field of the jobs, as the field's cells show them.
"""


def remembered(origin: Any) -> dict[str, Any]:
    """The part of a market's origin that is kept with it: the :data:`REMEMBERED` keywords with a value, as plain JSON.

    An encoder is kept by its name. An encoder that is an object or a folder is not kept: a path may be private, and
    means nothing on another machine.

    Args:
        origin: The arguments by which a market was read, by name. For anything else the result is empty.
    """
    found = {}
    for name in REMEMBERED:
        value = origin.get(name) if isinstance(origin, Mapping) else None
        if value is None or (name == "encoder" and not _is_name(value)):
            continue
        # These errors mean that JSON cannot hold the value: it is no plain data, has a NaN, or contains itself.
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            found[name] = json.loads(json.dumps(value, default=_plain, allow_nan=False))
    return found


def _is_name(encoder: Any) -> bool:
    """Whether an encoder is given by a name, and not as an object or a path."""
    if not isinstance(encoder, str):
        return False
    is_absolute = posixpath.isabs(encoder) or ntpath.splitdrive(encoder)[0]
    return not is_absolute and not encoder.startswith(("~", "."))


def _plain(value: Any) -> Any:
    """Turns a value that JSON cannot hold into one that it can hold; TypeError if the value is no plain data."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return sorted(value, key=repr)  # an order that is always the same
    if isinstance(value, Collection) and not isinstance(value, bytes):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no plain data")
