"""Which release of this package writes a file."""

from __future__ import annotations

from importlib import metadata

__all__ = ["written_by"]


def written_by() -> str:
    """This package and its version, as every file names its writer."""
    try:
        return f"jobrec-gym {metadata.version('jobrec-gym')}"
    except metadata.PackageNotFoundError:  # from a folder of sources
        return "jobrec-gym"
