"""The release of this package, for files to name their writer."""

from __future__ import annotations

from importlib import metadata

__all__ = ["written_by"]


def written_by() -> str:
    """Name and version of this package. Every file that it writes names its writer by this text."""
    try:
        return f"jobrec-gym {metadata.version('jobrec-gym')}"
    except metadata.PackageNotFoundError:  # from a folder of sources
        return "jobrec-gym"
