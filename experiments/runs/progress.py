"""How far long work is: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self, TextIO, TypeVar

from tqdm import tqdm

__all__ = ["Progress", "tracked"]

T = TypeVar("T")

LOG_EVERY_SECONDS = 30.0


class Progress:
    """Shows how much is done, how fast, and how long the rest will take.

    On a terminal it is a bar. Elsewhere it is a line at most every 30 seconds, and none at all for work that takes
    less.

    Args:
        total: How much there is to do.
        what: The name of the work.
        unit: Of the work, one of them.
        done: How much was done before: it counts as done, not as fast.
        bar: Whether to draw a bar; ``None``: where ``stream`` is a terminal.
        stream: Where to; standard error if ``None``.
        write: Takes a line where no bar is drawn; ``None`` writes it to ``stream``.

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
        if self._stream.isatty() if bar is None else bar:
            self._bar = tqdm(total=total, desc=what, unit=unit, initial=done, file=self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """So much more is done."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
        elif time.monotonic() - self._said >= LOG_EVERY_SECONDS:
            self._say()

    def reach(self, done: int) -> None:
        """So much is done in all; less than before changes nothing."""
        if done > self.done:
            self.update(done - self.done)

    def close(self) -> None:
        """No more is to be shown; what was shown is brought up to date."""
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


def tracked(items: Sequence[T], what: str, unit: str) -> Iterator[T]:
    """Passes items on, and shows how many of them were worked on."""
    with Progress(len(items), what, unit) as progress:
        for item in items:
            yield item
            progress.update()
