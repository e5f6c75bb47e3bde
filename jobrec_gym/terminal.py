"""What all commands share: one-line errors with a suggestion, and the handling of an output that is closed or full."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

from jobrec_gym.near_miss import best_match

__all__ = ["LineParser", "output_may_fail"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class LineParser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong with an argument, and suggests what may have been meant.

    Options of argument groups are not suggested.
    """

    def __init__(self, *arguments: Any, **kwargs: Any):
        self._known: list[str] = []
        super().__init__(*arguments, **kwargs)

    def add_argument(self, *arguments: Any, **kwargs: Any) -> argparse.Action:
        """As in :class:`argparse.ArgumentParser`; the names of options are noted for suggestions."""
        action = super().add_argument(*arguments, **kwargs)
        self._known += action.option_strings
        return action

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line about a wrong argument.

        Raises:
            SystemExit: Always.
        """
        wrong = re.search(r"^argument (.+): invalid choice: '(.*)' \(choose from (.+)\)", message)
        lacking = re.search(r"^the following arguments are required: (.+)$", message)
        if wrong:
            known = re.findall(r"[^\s,']+", wrong[3])
            self._end(f"there is no {wrong[1].lower()} {wrong[2]!r:.80}", wrong[2], known, f"There are {wrong[3]}.")
        elif lacking:
            usage = " ".join(self.format_usage().split())
            self._end(f"{lacking[1]} must be given, {usage}")
        self._end(message)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As in :class:`argparse.ArgumentParser`, but an unknown argument is refused, with a suggestion.

        The parser of a subcommand reads its arguments by this method too, so an option of the subcommand is suggested.
        """
        given, others = super().parse_known_args(args, namespace)
        if others:
            flag = others[0].partition("=")[0]
            if flag.startswith("-"):
                self._end(f"there is no option {flag!r:.80}", flag, self._known)
            self._end(f"{others[0]!r:.80} is one argument too many")
        return given, others

    def _end(self, what: str, name: str = "", known: Sequence[str] = (), otherwise: str = "") -> NoReturn:
        near = best_match(name, known)
        hint = f"Did you mean {near}?" if near else otherwise
        parts = [f"error: {what.rstrip('.')}.", hint, f"`{self.prog} --help` says what can be given."]
        raise SystemExit(" ".join(filter(None, parts)))


@contextmanager
def output_may_fail(goes_on: bool = False) -> Iterator[None]:
    """Ends a program whose output fails.

    The program ends silently if the reader is gone (``... | head``). It ends with one line of error if the output
    cannot be written for another reason, such as a full disk.

    Letters that the standard output cannot encode are written as backslash escapes. On Windows, for instance, a pipe
    cannot encode all letters.

    Args:
        goes_on: Whether the program has more to do than to print, and goes on if the reader is gone. What it prints
            from then on is lost.

    Raises:
        SystemExit: If the standard output cannot be written to.
        BrokenPipeError: If the reader is gone before the block has ended, and ``goes_on`` is true.
    """
    # With "surrogateescape", which Python sets if the locale is C, such letters raise an error just as with "strict".
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        # `reconfigure` first sets `errors`, and then raises an OSError if the output was a file and is now a pipe.
        with suppress(OSError):
            sys.stdout.reconfigure(errors="backslashreplace")
    has_ended = False
    ending: SystemExit | None = None
    try:
        try:
            yield
        except SystemExit as error:
            ending = error
            _flush()
            raise
        has_ended = True
        _flush()
    except OSError as error:
        if not _is_of_output(error):
            raise
        # Python flushes stdout once more when it ends: https://docs.python.org/3/library/signal.html
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        if isinstance(error, BrokenPipeError) and goes_on:
            if _has_no_reader(sys.stderr):  # `2>&1 | head`
                os.dup2(nowhere, sys.stderr.fileno())
            if has_ended:
                return
            raise (ending or error) from None
        if isinstance(error, BrokenPipeError):
            raise SystemExit(1) from None
        raise SystemExit(f"error: the output cannot be written: {error.strerror}. Write it to another place.") from None


def _flush() -> None:
    if sys.stdout is not None:  # it is None if a shell's `>&-` has closed the output
        sys.stdout.flush()


def _is_of_output(error: OSError) -> bool:
    """Whether an error comes from writing to the standard output, not to another pipe or file."""
    if sys.stdout is None or error.filename is not None:
        return False
    if isinstance(error, BrokenPipeError):
        return _has_no_reader(sys.stdout)
    if error.errno not in _FULL or sys.stdout.isatty():
        return False
    try:
        # The error does not say which file is full. If the output is, writing to it fails again.
        os.write(sys.stdout.fileno(), b"\n")
    except OSError:
        return True
    return False


def _has_no_reader(output: TextIO) -> bool:
    """Whether an output is a pipe whose reader is gone."""
    polled = select.poll()
    polled.register(output.fileno(), 0)
    return any(event & select.POLLERR for _, event in polled.poll(0))
