"""Progress of long work: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self, TextIO, TypeVar

from tqdm import tqdm

__all__ = ["Progress", "progress_bars", "tracked"]

T = TypeVar("T")

LOG_EVERY_SECONDS = 30.0

_WANTED: ContextVar[bool | None] = ContextVar("progress_bar", default=None)


@contextmanager
def progress_bars(wanted: Any) -> Iterator[None]:
    """Sets whether the work within the block shows its progress.

    Args:
        wanted: The entry ``progress_bar`` of a command: ``None`` for a bar on a terminal and lines in a log, ``True``
            for a bar, ``False`` for nothing.

    Raises:
        ValueError: If it is anything else.
    """
    if not any(wanted is value for value in (None, True, False)):
        raise ValueError(f"`progress_bar` must be true, false or null, got {wanted!r:.80}.")
    before = _WANTED.set(wanted)
    try:
        yield
    finally:
        _WANTED.reset(before)


class Progress:
    """Shows how much is done, how fast, and how long the rest will take.

    On a terminal it is a bar. Elsewhere it is a line at most every 30 seconds, and no line for work that takes less
    than that.

    Args:
        total: How much there is to do.
        what: The name of the work.
        unit: The name of one unit of the work, in the singular.
        done: How much was done before. It counts as done, but not for the speed.
        bar: Whether to draw a bar. ``None`` follows :func:`progress_bars`, which by default draws one on a terminal.
        stream: Where the display is written; ``None`` for standard error.
        write: Function that takes a line if no bar is drawn; ``None`` writes lines to ``stream``.

    Example:
        >>> with Progress(100, "recording", "pair") as progress:  # doctest: +SKIP
        ...     progress.update(40)
    """

    def __init__(
        self,
        total: int,
        what: str,
        unit: str,
        *,
        done: int = 0,
        bar: bool | None = None,
        stream: TextIO | None = None,
        write: Callable[[str], None] | None = None,
    ):
        self.total = total
        self.what = what
        self.unit = unit
        self.done = done
        self._stream = sys.stderr if stream is None else stream
        self._write = write or self._print
        self._begun = self._said = time.monotonic()
        self._done_before = done
        self._bar: tqdm | None = None
        wanted = _WANTED.get()
        self._silent = bar is None and wanted is False
        bar = wanted if bar is None else bar
        if self._stream.isatty() if bar is None else bar:
            self._bar = tqdm(total=total, desc=what, unit=unit, initial=done, file=self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Adds n units to the work that is done."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
        elif not self._silent and time.monotonic() - self._said >= LOG_EVERY_SECONDS:
            self._say()

    def reach(self, done: int) -> None:
        """Sets how much is done in all. A smaller number than before changes nothing."""
        if done > self.done:
            self.update(done - self.done)

    def close(self) -> None:
        """Ends the display, after a last update."""
        if self._bar is not None:
            self._bar.close()
        elif self._said > self._begun:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        gone = self._said - self._begun
        words = f"{self.what}: {self.done:,} of {self.total:,} {self.unit}s, {tqdm.format_interval(gone)} gone"
        made = self.done - self._done_before
        if made:
            left = tqdm.format_interval((self.total - self.done) * gone / made)
            rate = f"{made / gone:.1f} a second" if made >= gone else f"{gone / made:.1f} s each"
            words += f", {left} to go, {rate}"
        self._write(words)

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def tracked(items: Iterable[T], what: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Yields items, and shows how many of them are done.

    Args:
        items: The items to work on.
        what: See :class:`Progress`.
        unit: See :class:`Progress`.
        total: Number of items; ``None`` for ``len(items)``.
    """
    if total is None:
        assert isinstance(items, Sized), "say `total`"
        total = len(items)
    with Progress(total, what, unit) as progress:
        for item in items:
            yield item
            progress.update()
