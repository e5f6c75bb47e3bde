"""Ctrl-C and SIGTERM: what can be kept is kept first, and no child outlives its command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["Interrupted", "Waiting", "as_child", "end_child", "held", "interruptible"]

_ASKED = (signal.SIGINT, signal.SIGTERM)
_IN_WORDS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_TO_CHILDREN = signal.SIGUSR1
"""A parent asks its children so to keep what they can, and to rest then: one that ended would have the others killed by
the pool that they are of."""

_PATIENCE_SECONDS = 60.0
"""Until a child that does not rest is killed."""


class Interrupted(KeyboardInterrupt):
    """A signal has asked the command to end.

    Args:
        number: Of the signal.
        kept: What was kept for it, and where; empty for nothing.

    Attributes:
        goes_on: What the command that goes on must say beside what this one said.
    """

    def __init__(self, number: int, kept: str = ""):
        self.signal = signal.Signals(number)
        self.kept = kept
        self.goes_on: Sequence[str] = ()
        super().__init__(f"stopped by {_IN_WORDS.get(self.signal, self.signal.name)}")

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal has ended: 130 or 143."""
        return 128 + self.signal


class Waiting:
    """A signal that waits for a good moment.

    Attributes:
        number: Of the signal; ``None`` while there is none.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def end(self, kept: str = "") -> None:
        """Ends the command if a signal waits: now is a good moment.

        Args:
            kept: What was kept, and where.

        Raises:
            Interrupted: If one does.
        """
        if self.number is not None:
            number, self.number = self.number, None
            raise Interrupted(number, kept)


_held: list[Waiting] = []
_ending = False


@contextmanager
def held() -> Iterator[Waiting]:
    """Around work whose results must be complete: a first signal waits until :meth:`Waiting.end`, a second does not.

    Without :func:`interruptible` around it, it changes nothing about signals.

    Raises:
        Interrupted: At the end, if a signal still waits.
    """
    waiting = Waiting()
    _held.append(waiting)
    try:
        yield waiting
    finally:
        _held.remove(waiting)
    waiting.end()


@contextmanager
def interruptible() -> Iterator[None]:
    """In here Ctrl-C and SIGTERM end the children of this process and raise :class:`Interrupted`.

    Outside of the main thread, which alone is told of signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _ASKED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def as_child() -> None:
    """In a process of a pool: its parent says when to end; a SIGTERM from elsewhere ends it, too.

    Ctrl-C in a terminal reaches parent and children: it is the parent's to handle.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop_child)
    signal.signal(_TO_CHILDREN, _stop_child)


def end_child(interrupt: Interrupted) -> None:
    """Ends a process of a pool, or lets it rest until its parent does."""
    if interrupt.signal == _TO_CHILDREN:
        os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(interrupt.exit_code)


def _stop(number: int, frame: FrameType | None) -> None:
    if _held and _held[-1].number is None:
        _held[-1].number = number
        return
    _end_children()
    raise Interrupted(number)


def _stop_child(number: int, frame: FrameType | None) -> None:
    if not _held:
        end_child(Interrupted(number))
    if _held[-1].number is None:
        _held[-1].number = number


def _end_children() -> None:
    """Lets children keep what they can, and kills them then; at once if it is asked for again."""
    global _ending  # a signal may come while this very function runs
    children, patient = multiprocessing.active_children(), not _ending
    _ending = True
    try:
        pids = [child.pid for child in children if child.pid is not None]
        if patient:
            _send(_TO_CHILDREN, pids)
            until = time.monotonic() + _PATIENCE_SECONDS
            while time.monotonic() < until and not all(map(_rests, pids)):
                time.sleep(0.01)
        _send(signal.SIGKILL, pids)  # joblib's processes have no method for it
        for child in children:
            child.join()
    finally:
        _ending = False


def _send(number: int, pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _rests(pid: int) -> bool:
    """Whether a child has ended or stands still; it is left to whoever reaps it."""
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
