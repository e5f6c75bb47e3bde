"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["place_of"]


def place_of(path: str | os.PathLike[str]) -> Path:
    """The path that a user means: a leading ``~`` stands for the home folder."""
    # Unlike `Path.expanduser`, this leaves a name such as "~jobs.csv" unchanged.
    return Path(os.path.expanduser(path))  # noqa: PTH111
