"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["place_of"]


def place_of(path: str | os.PathLike[str]) -> Path:
    """A path as it is written and read: a leading ``~`` stands for the home folder."""
    # Unlike `Path.expanduser`, this leaves a name such as "~jobs.csv" as it is.
    return Path(os.path.expanduser(path))  # noqa: PTH111
