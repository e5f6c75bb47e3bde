"""How an extra of this package is installed, from a checkout and from a wheel: the one place that says it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

__all__ = ["install_command"]

_DISTRIBUTION = "jobrec-gym"


def install_command(extra: str) -> str:
    """The command that installs an extra, such as ``pip install -e ".[llm]"``.

    No package index holds this project. So the command names what is there: the checkout, or the file that the package
    was installed from.

    Args:
        extra: Its name, as in ``pyproject.toml``.
    """
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f'pip install -e "{_seen_from_here(checkout)}[{extra}]"'
    try:
        installed = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # a copy of the source, without the file that lists the extras
        return f'pip install -e ".[{extra}]" in a checkout of {_DISTRIBUTION}'
    # PEP 610: pip writes down which file or folder was installed, unless it found the file by the package's name.
    origin = json.loads(installed.read_text("direct_url.json") or "{}").get("url")
    if origin is not None:
        return f'pip install "{_DISTRIBUTION}[{extra}] @ {origin}"'
    wheel = f"{_DISTRIBUTION.replace('-', '_')}-{installed.version}-py3-none-any.whl"
    return f'pip install "{wheel}[{extra}]"'


def _seen_from_here(checkout: Path) -> str:
    return "." if checkout.resolve() == Path.cwd().resolve() else str(checkout)
