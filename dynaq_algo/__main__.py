"""``python -m dynaq_algo convert OLD.zip NEW.zip`` rewrites an agent of an earlier version in today's format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dynaq_algo.agent_file import convert_agent

__all__ = ["command_line", "main"]


def command_line() -> argparse.ArgumentParser:
    """The parser of ``python -m dynaq_algo``."""
    parser = argparse.ArgumentParser(prog="python -m dynaq_algo", description="What can be done with saved agents.")
    convert = parser.add_subparsers(dest="what", required=True).add_parser(
        "convert",
        help="rewrite an agent of an earlier version as JSON and tensors",
        description="Rewrite an agent of an earlier version as JSON and tensors. Its arguments are pickled Python, and "
        "this command runs what is in them. Use it only for a file of your own, or where nothing else is at stake.",
    )
    convert.add_argument("old", help="the zip")
    convert.add_argument("new", help="where to")
    convert.add_argument(
        "--exclude", nargs="*", default=[], help="arguments that are code; `load` takes them as custom_objects"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the file, and print one line about it."""
    given = command_line().parse_args(arguments)
    try:
        convert_agent(given.old, given.new, given.exclude)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    sys.stdout.write(f"{given.new}: what {given.old} holds, as JSON and tensors\n")


if __name__ == "__main__":
    main()
