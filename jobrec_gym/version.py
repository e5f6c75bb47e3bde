"""The release of this package, for files to name their writer."""

from __future__ import annotations

from importlib import metadata

__all__ = ["written_by"]


def written_by() -> str:
    """Name and version of this package. Files that the package writes name their writer by this text."""
    try:
        return f"jobrec-gym {metadata.version('jobrec-gym')}"
    except metadata.PackageNotFoundError:  # the package runs from a folder of sources
        return "jobrec-gym"
