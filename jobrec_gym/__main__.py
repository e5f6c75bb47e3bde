"""The command ``jobrec``: shows what is installed, what a file holds, and the best jobs for somebody by cosine.

If the script is not on the path, ``python -m jobrec_gym`` is the same command.
"""

import argparse
import platform
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym

from jobrec_gym.encoders import EncoderError
from jobrec_gym.extras import install_command, what_works
from jobrec_gym.loaders.look import look
from jobrec_gym.market import LabourMarket, load_market
from jobrec_gym.market.dates import DATE_FIELDS
from jobrec_gym.recommendations import recommend
from jobrec_gym.shown_text import as_text
from jobrec_gym.terminal import LineParser, output_may_fail

__all__ = ["command_line", "extras_found", "main", "ranking", "requirements_by_extra", "summary"]

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<extras>[^]]*)\])?.*;.*\bextra\s*==\s*[\"'](?P<extra>[\w-]+)[\"']")
_DISTRIBUTION = "jobrec-gym"
_MANY = 6  # up to this many packages are named in a line
_SIDES = ("jobs", "applicants")


def requirements_by_extra(requires: Iterable[str]) -> dict[str, list[str]]:
    """For each extra, the names of the distributions that it needs.

    An extra can include other extras; what these need is listed too.

    Args:
        requires: Lines of ``Requires-Dist``, such as ``"torch<3,>=2.8; extra == 'algo'"``.
    """
    direct: dict[str, list[str]] = {}
    folded: dict[str, list[str]] = {}
    for line in requires:
        found = _REQUIREMENT.match(line)
        if found is None:  # the package needs it even without an extra
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
    """For each extra, what is installed (``"torch 2.13.0"``) and what is missing (``"litellm"``).

    Args:
        requires: Lines of ``Requires-Dist``.
        version: A function that gives the version of a distribution, or ``None`` if it is not installed.
    """
    found = {}
    for extra, names in requirements_by_extra(requires).items():
        versions = {name: version(name) for name in names}
        there = [f"{name} {number}" for name, number in versions.items() if number is not None]
        found[extra] = there, [name for name, number in versions.items() if number is None]
    return found


def summary() -> str:
    """The page that ``jobrec info`` prints."""
    lines = [
        f"{_DISTRIBUTION} {_own_version()}, {Path(__file__).parent}",
        f"Python {platform.python_version()}, {platform.platform()}",
        f"gymnasium {_version('gymnasium')}, numpy {_version('numpy')}",
        what_works(),
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


def _own_version() -> str:
    return _version(_DISTRIBUTION) or "(not installed, run from source)"


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


def ranking(source: str, applicant: str | None, n: int, **options: str) -> str:
    """The page that ``jobrec recommend`` prints: the best jobs of a market for one applicant, by cosine.

    Args:
        source: A source that :func:`~jobrec_gym.load_market` opens.
        applicant: The key of an applicant, or the number of a row. A number that is also a key counts as the key.
            ``None`` is the first applicant.
        n: How many jobs, at least 1.
        **options: Keywords of the source, ``applicants`` and ``encoder``.

    Raises:
        ValueError: For an unknown applicant or market, an option that the market does not take, or an ``n`` below 1.
        EncoderError: If the encoder cannot be loaded.
        ImportError: If the source needs an extra that is not installed.
        OSError: If a file cannot be read.
    """
    if source == "":
        raise ValueError("`--market` must not be empty: give a name, a file or a folder, or leave it out.")
    try:
        market = load_market(source, **options)
    except TypeError as error:
        given = " and ".join(f"--{name}" for name in options)
        raise ValueError(
            f"a file of jobs can take {given}, but the market {source!r} is no file: leave out {given}."
        ) from error
    person = market.applicant(_which(market, applicant))
    lines = [f"{as_text(person.key)}  {as_text(person.title or person.occupation or '')}".rstrip()]
    lines += [*_list_of_skills("has", (*person.hard_skills, *person.soft_skills)), ""]
    for job in recommend(None, market, person, n):
        lines.append(f"{job.rank:>3}  cosine {job.score:.2f}  {as_text(job.key)}  {as_text(job.title)}".rstrip())
        lines += [*_list_of_skills("shared", job.shared), *_list_of_skills("missing", job.missing)]
    return "\n".join(lines)


def _which(market: LabourMarket, applicant: str | None) -> int | str:
    """The applicant that was typed: a key, or the number of a row. A number that is also a key counts as the key."""
    if applicant is None:
        return 0
    is_row = applicant.isdecimal() and applicant not in market.applicants.keys.tolist()
    return int(applicant) if is_row else applicant


def _list_of_skills(word: str, skills: Sequence[str]) -> list[str]:
    """Lines with a word and some skills after it; no lines if there are no skills."""
    named = ", ".join(as_text(skill) for skill in skills)
    return textwrap.wrap(named, 100, initial_indent=f"     {word:<9}", subsequent_indent=" " * 14)


_EXAMPLES = """examples:
  jobrec recommend A0000005 -n 3
  jobrec recommend --market recorded
  jobrec look default
  jobrec look stellen.csv leute.csv --columns hard=Kenntnisse --encoding cp1252

Training, sweeps and reports: `python -m experiments`, in a checkout.
"""


def command_line() -> LineParser:
    """The arguments of ``jobrec``."""
    parser = LineParser(
        prog="jobrec",
        description="Shows what is installed, what a file contains, and the best jobs for somebody by cosine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{_DISTRIBUTION} {_own_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("info", help="what is installed, and how to install what is missing (default)")
    looking = commands.add_parser(
        "look",
        help="what a file of jobs or people contains, and the call that loads it",
        usage="jobrec look [-h] path [applicants] [--columns FIELD=COLUMN ...] [--encoding NAME] [--delimiter SIGN]\n"
        "                   [--date-format FORMAT ...] [--decimal SIGN] [--null-values WORD ...]\n"
        "                   [--seniority-values WORD=LEVEL ...]",
    )
    looking.add_argument(
        "path",
        help='a table, JSON Resume, JobPosting, O*NET, ESCO, the folder of a saved market, or a name such as "default"',
    )
    looking.add_argument("applicants", nargs="?", help="the file of the applicants, if the first file has the jobs")
    looking.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        metavar="FIELD=COLUMN",
        help="fields whose columns have unusual names: hard=Kenntnisse title=Stelle place=Ort; for one of two files: "
        "jobs.hard=Kenntnisse applicants.hard=Können; write this option after the files",
    )
    looking.add_argument(
        "--encoding",
        nargs="+",
        help="encoding of the files, such as cp1252; for one of two files: jobs=cp1252; default: UTF-8",
    )
    looking.add_argument("--delimiter", help="the character that separates the cells of CSV; default: it is detected")
    looking.add_argument(
        "--date-format",
        nargs="+",
        metavar="FORMAT",
        help='how dates are written, such as "%%d.%%m.%%Y" for 31.12.2026; several formats can be given, and a date '
        "that two of them read as different days or times is an error; ISO8601, which is the default, may be one of "
        "them",
    )
    looking.add_argument(
        "--decimal", metavar="SIGN", help='the decimal sign of numbers, "," or "."; default: detected if possible'
    )
    looking.add_argument("--null-values", nargs="+", metavar="WORD", help="words that mean an empty cell")
    looking.add_argument(
        "--seniority-values", nargs="+", metavar="WORD=LEVEL", help="levels 1 to 5 by words: Fachkraft=3 Leitung=5"
    )
    ranked = commands.add_parser("recommend", help="the best jobs of a market for one applicant, by cosine")
    ranked.add_argument("applicant", nargs="?", help="a key, such as A0000005, or a row, such as 5; default: the first")
    ranked.add_argument(
        "--market", default="default", help='a name, a file or the folder of a saved market; default: "default"'
    )
    ranked.add_argument("--applicants", help="the file of the applicants, if the market is a file of jobs")
    ranked.add_argument("--encoder", help='the encoder of texts; "hashing" needs no extra, but knows only spelling')
    ranked.add_argument("-n", type=int, default=10, help="how many jobs; default: 10")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what is installed, what a file of jobs or people holds, or the best jobs for somebody.

    Raises:
        SystemExit: With a message of one line, for a source that cannot be read, an unknown applicant, or a missing
            extra.
    """
    with output_may_fail():
        given = command_line().parse_args(arguments)
        try:
            page = _page(given)
        except (EncoderError, ImportError, OSError, ValueError) as error:
            raise SystemExit(f"error: {error}") from error
        print(page)  # noqa: T201


def _page(given: argparse.Namespace) -> str:
    if given.command == "look":
        formats = given.date_format
        return look(
            given.path,
            given.applicants,
            columns=_columns(given.columns),
            encoding=_encoding(given.encoding),
            delimiter=given.delimiter,
            null_values=given.null_values,
            seniority_values=_levels(given.seniority_values),
            decimal=given.decimal,
            date_format=formats[0] if formats and len(formats) == 1 else formats,
        )
    if given.command == "recommend":
        options = {name: value for name in ("applicants", "encoder") if (value := getattr(given, name)) is not None}
        return ranking(given.market, given.applicant, given.n, **options)
    return summary()


def _columns(typed: Sequence[str] | None) -> dict[str, Any] | None:
    """The argument ``columns`` of :func:`~jobrec_gym.loaders.look.look` as typed: ``hard=A jobs.title=B``."""
    sides: dict[str, dict[str, Any]] = {side: {} for side in _SIDES}
    is_flat = True
    for entry in typed or ():
        name, _, column = entry.partition("=")
        if not name or not column:
            raise ValueError(
                f"`--columns` must be FIELD=COLUMN, such as hard=Kenntnisse, got {entry!r:.80}. On the "
                "command line the files come before this option."
            )
        side, _, field = name.rpartition(".")
        is_flat &= not side
        if side and side not in _SIDES:
            raise ValueError(f"`--columns` may name a field of {' or '.join(_SIDES)}, got {name!r:.80}.")
        meant = ("jobs",) if field in DATE_FIELDS else _SIDES  # only jobs have dates
        for one in (side,) if side else meant:
            known = sides[one].get(field)
            # Several columns of skills are joined. Another field with two columns is refused when the file is read.
            sides[one][field] = column if known is None else [*([known] if isinstance(known, str) else known), column]
    if typed is None:
        return None
    return sides["jobs"] if is_flat else sides


def _levels(typed: Sequence[str] | None) -> dict[str, int] | None:
    """The argument ``seniority_values`` of :func:`~jobrec_gym.loaders.look.look` as typed: ``Leitung=5``."""
    if typed is None:
        return None
    pairs = [entry.rpartition("=") for entry in typed]
    for entry, (word, _, level) in zip(typed, pairs, strict=True):
        if not word or level not in tuple("012345"):
            raise ValueError(
                "`--seniority-values` must be WORD=LEVEL, such as Fachkraft=3, with a level from 1 (entry) to 5 "
                f"(lead), or 0 for unknown, got {entry!r:.80}. On the "
                "command line the files come before this option."
            )
    return {word: int(level) for word, _, level in pairs}


def _encoding(typed: Sequence[str] | None) -> str | dict[str, str | None] | None:
    """The argument ``encoding`` of :func:`~jobrec_gym.loaders.look.look` as typed: ``cp1252``, or ``jobs=cp1252``."""
    if typed is None:
        return None
    if len(typed) == 1 and "=" not in typed[0]:
        return typed[0]
    pairs = [entry.partition("=") for entry in typed]
    if wrong := [entry for entry, (side, _, name) in zip(typed, pairs, strict=True) if side not in _SIDES or not name]:
        raise ValueError(
            f"`--encoding` must be one encoding, or jobs=... and applicants=..., got {wrong[0]!r:.80}; write "
            "the files first."
        )
    return {side: name for side, _, name in pairs}


if __name__ == "__main__":
    main()
