"""The folder in which this package keeps results that it need not compute again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_cache_dir"]


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/jobrec_gym``, or ``~/.cache/jobrec_gym`` if the variable is not set.

    Raises:
        RuntimeError: If the variable is not set and the user has no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "jobrec_gym"
