"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["place_of", "what_came"]


def place_of(path: str | os.PathLike[str]) -> Path:
    """The path that a user means: a leading ``~`` stands for the home folder."""
    # Unlike `Path.expanduser`, this leaves a name such as "~jobs.csv" unchanged.
    return Path(os.path.expanduser(path))  # noqa: PTH111


def what_came(value: object) -> str:
    """How an error about an argument that must be a path names what came instead; a data frame gets its way out."""
    if hasattr(value, "iterrows") or hasattr(value, "to_pandas"):
        return (
            f"a {type(value).__name__}: write it to a file, in pandas by `frame.to_parquet('rows.parquet')`, and give "
            "the path of this file"
        )
    return f"{value!r:.80}"
