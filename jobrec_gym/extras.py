"""The one place that says what works from a checkout and from a wheel, and how an extra is installed."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Literal

__all__ = ["install_command", "what_works"]

_DISTRIBUTION = "jobrec-gym"

_WORKS = {
    "checkout": (
        "From a checkout everything works: the packages `jobrec_gym` and `dynaq_algo`, and the command "
        "`jobrec`. `python -m experiments` and `make` work in the folder of the checkout."
    ),
    "wheel": (
        "From a wheel the packages `jobrec_gym` and `dynaq_algo` and the command `jobrec` work; "
        "`python -m experiments` and `make` need a checkout."
    ),
}


def what_works(origin: Literal["checkout", "wheel"] | None = None) -> str:
    """The sentence that says what an installation can do.

    Args:
        origin: What the package was installed from; ``None`` for this installation.
    """
    return _WORKS[origin or ("checkout" if _is_checkout(_checkout()) else "wheel")]


def install_command(extra: str) -> str:
    """The command that installs an extra, such as ``pip install -e ".[llm]"``.

    No package index holds this project. So the command names the checkout, or the file that the package was installed
    from.

    Args:
        extra: Name of the extra, as in ``pyproject.toml``.
    """
    checkout = _checkout()
    if _is_checkout(checkout):
        return f'pip install -e "{_seen_from_here(checkout)}[{extra}]"'
    try:
        installed = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # a copy of the source, without the file that lists the extras
        return f'pip install -e ".[{extra}]" in a checkout of {_DISTRIBUTION}'
    # PEP 610: pip records which file or folder was installed, unless it found the file by the package's name.
    origin = json.loads(installed.read_text("direct_url.json") or "{}").get("url")
    if origin is not None:
        return f'pip install "{_DISTRIBUTION}[{extra}] @ {origin}"'
    wheel = f"{_DISTRIBUTION.replace('-', '_')}-{installed.version}-py3-none-any.whl"
    return f'pip install "{wheel}[{extra}]"'


def _checkout() -> Path:
    """The folder that would be the root of a checkout."""
    return Path(__file__).parents[1]


def _is_checkout(folder: Path) -> bool:
    return (folder / "pyproject.toml").is_file()


def _seen_from_here(checkout: Path) -> str:
    return "." if checkout.resolve() == Path.cwd().resolve() else str(checkout)
