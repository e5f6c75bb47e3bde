"""``python -m dynaq_algo convert OLD.zip NEW.zip`` rewrites an agent of an earlier version in today's format."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from dynaq_algo.agent_file import DATA, convert_agent
from dynaq_algo.arguments import suggestion

__all__ = ["command_line", "main"]

_EXAMPLES = """example, for an agent that `model.save("old.zip")` wrote in an earlier version:
  python -m dynaq_algo convert old.zip new.zip
"""


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong with an argument, and suggests what may have been meant.

    It resembles the parser of the command `jobrec`. This package must work without jobrec_gym, so it
    cannot take that parser itself.
    """

    def error(self, message: str) -> NoReturn:
        """End with one line about a wrong argument."""
        wrong = re.search(r"^argument .+: invalid choice: '(.*)' \(choose from (.+)\)", message)
        lacking = re.search(r"^the following arguments are required: (.+)$", message)
        if wrong:
            known = re.findall(r"[^\s,']+", wrong[2])
            message = f"there is no command {wrong[1]!r:.80}{suggestion(wrong[1], known)} There is only {wrong[2]}."
        elif lacking:
            message = f"{lacking[1]} must be given, {' '.join(self.format_usage().split())}"
        end = "" if message[-1] in ".?" else "."
        raise SystemExit(f"error: {message}{end} `{self.prog} --help` says what can be given.")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse, and refuse what is unknown with a suggestion."""
        given, others = self.parse_known_args(args, namespace)
        if others:
            near = suggestion(others[0].partition("=")[0], ["--exclude", "--help"])
            self.error(f"{others[0]!r:.80} is unknown or one argument too many{near}")
        return given


def command_line() -> argparse.ArgumentParser:
    """The parser of ``python -m dynaq_algo``."""
    parser = _Parser(
        prog="python -m dynaq_algo",
        description="What can be done with saved agents.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert = parser.add_subparsers(dest="COMMAND", metavar="COMMAND", required=True).add_parser(
        "convert",
        help="rewrite an agent of an earlier version as JSON and tensors",
        description="Rewrite an agent of an earlier version as JSON and tensors. The old file holds pickled Python, "
        "and this command runs it. Convert only a file of your own, or work in a throw-away environment.",
    )
    convert.add_argument("old", help="the zip")
    convert.add_argument("new", help="where the new zip is written")
    convert.add_argument(
        "--exclude",
        nargs="*",
        default=[],
        help="arguments to leave out, which are code; `load` takes them as custom_objects",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the file, and print one line about it."""
    given = command_line().parse_args(arguments)
    try:
        convert_agent(_agent_at(given.old), given.new, given.exclude)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    if sys.stdout is None:  # `>&-` in a shell closes standard output
        return
    try:
        sys.stdout.write(f"{given.new}: what {given.old} holds, as JSON and tensors\n")
        sys.stdout.flush()
    except OSError:  # the agent is converted, but nobody reads the line about it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _agent_at(path: str) -> Path:
    """The file of an agent; as in SB3, `.zip` may be left out.

    Raises:
        ValueError: If there is no such file, or it holds no agent.
    """
    found = next((place for place in (Path(path), Path(f"{path}.zip")) if place.is_file()), None)
    if found is None:
        raise ValueError(f"there is no file {path}: OLD is an agent that `model.save(path)` wrote.")
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(found) as archive:
        if DATA in archive.namelist():
            return found
    raise ValueError(f"{found} holds no agent: OLD is a zip that `model.save(path)` wrote.")


if __name__ == "__main__":
    main()
