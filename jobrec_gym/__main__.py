"""What is installed, and what a file holds: ``python -m jobrec_gym``, and ``python -m jobrec_gym look FILE``."""

import argparse
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

import gymnasium as gym

from jobrec_gym.extras import install_command
from jobrec_gym.loaders.look import look

__all__ = ["command_line", "extras_found", "main", "requirements_by_extra", "summary"]

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<extras>[^]]*)\])?.*;.*\bextra\s*==\s*[\"'](?P<extra>[\w-]+)[\"']")
_DISTRIBUTION = "jobrec-gym"
_MANY = 6  # packages in a line


def requirements_by_extra(requires: Iterable[str]) -> dict[str, list[str]]:
    """Names of the distributions that each extra needs, extras of this package unfolded.

    Args:
        requires: Lines of ``Requires-Dist``, such as ``"torch<3,>=2.8; extra == 'algo'"``.
    """
    direct: dict[str, list[str]] = {}
    folded: dict[str, list[str]] = {}
    for line in requires:
        found = _REQUIREMENT.match(line)
        if found is None:  # needed without any extra
            continue
        direct.setdefault(found["extra"], [])
        if found["name"] == _DISTRIBUTION:
            folded.setdefault(found["extra"], []).extend(re.findall(r"[\w-]+", found["extras"] or ""))
        else:
            direct[found["extra"]].append(found["name"])

    def unfold(extra: str) -> set[str]:
        return set(direct.get(extra, [])).union(*(unfold(inner) for inner in folded.get(extra, [])))

    return {extra: sorted(unfold(extra), key=str.lower) for extra in sorted(direct)}


def extras_found(
    requires: Iterable[str], version: Callable[[str], str | None]
) -> dict[str, tuple[list[str], list[str]]]:
    """For each extra what is there (``"torch 2.13.0"``) and what is missing (``"litellm"``).

    Args:
        requires: Lines of ``Requires-Dist``.
        version: Answers the name of a distribution with its version, or ``None`` if it is not installed.
    """
    found = {}
    for extra, names in requirements_by_extra(requires).items():
        versions = {name: version(name) for name in names}
        there = [f"{name} {number}" for name, number in versions.items() if number is not None]
        found[extra] = there, [name for name, number in versions.items() if number is None]
    return found


def summary() -> str:
    """The page that ``python -m jobrec_gym`` prints."""
    own = _version(_DISTRIBUTION) or "(not installed, run from source)"
    lines = [
        f"{_DISTRIBUTION} {own}, {Path(__file__).parent}",
        f"Python {platform.python_version()}, {platform.platform()}",
        f"gymnasium {_version('gymnasium')}, numpy {_version('numpy')}",
        "",
        "environments",
    ]
    for name, spec in sorted(gym.registry.items()):
        if str(spec.entry_point).startswith("jobrec_gym."):
            lines.append(f"  {name}  {spec.entry_point}, vector {spec.vector_entry_point}")
    lines += ["", "extras"]
    for extra, (there, missing) in extras_found(_requires(), _version).items():
        if missing:
            named = ", ".join(missing if len(missing) <= _MANY else [*missing[:3], f"{len(missing) - 3} more"])
            lines.append(f"  {extra:<12} no   lacks {named}: {install_command(extra)}")
        else:
            lines.append(f"  {extra:<12} yes  {', '.join(there) if len(there) <= _MANY else f'{len(there)} packages'}")
    return "\n".join(lines)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _requires() -> list[str]:
    try:
        return metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []


def command_line() -> argparse.ArgumentParser:
    """The arguments of ``python -m jobrec_gym``."""
    parser = argparse.ArgumentParser(prog="python -m jobrec_gym", description="What is installed; what a file holds.")
    commands = parser.add_subparsers(dest="command")
    looking = commands.add_parser("look", help="what a file of jobs or people holds, and the call that loads it")
    looking.add_argument("path", help="a table, JSON Resume, JobPosting, O*NET, ESCO or a saved market")
    looking.add_argument("applicants", nargs="?", help="the file of the applicants, where the first has the jobs")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what is installed, or what a file of jobs or people holds.

    Raises:
        SystemExit: For a file that cannot be read.
    """
    given = command_line().parse_args(arguments)
    if given.command is None:
        print(summary())  # noqa: T201
        return
    try:
        print(look(given.path, given.applicants))  # noqa: T201
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
