"""Ends a command cleanly on Ctrl-C and SIGTERM: it keeps what it can, and no child outlives it."""

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
"""By this signal a parent asks its children to keep what they can and then to pause. A child that ended instead would
make its pool kill the others."""

_PATIENCE_SECONDS = 60.0
"""A child that has not paused after this time is killed."""


class Interrupted(KeyboardInterrupt):
    """A signal has asked the command to end.

    Args:
        number: Number of the signal.
        kept: What was kept, and where; empty for nothing.

    Attributes:
        goes_on: Further arguments that the command needs to continue.
    """

    def __init__(self, number: int, kept: str = ""):
        self.signal = signal.Signals(number)
        self.kept = kept
        self.goes_on: Sequence[str] = ()
        super().__init__(f"stopped by {_IN_WORDS.get(self.signal, self.signal.name)}")

    @property
    def exit_code(self) -> int:
        """The exit code that shells expect of a process that a signal has ended: 130 or 143."""
        return 128 + self.signal


class Waiting:
    """A signal that waits for a good moment.

    Attributes:
        number: Number of the signal; ``None`` while there is none.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def end(self, kept: str = "") -> None:
        """Ends the command if a signal waits. It is called at good moments.

        Args:
            kept: What was kept, and where.

        Raises:
            Interrupted: If a signal waits.
        """
        if self.number is not None:
            number, self.number = self.number, None
            raise Interrupted(number, kept)


_held: list[Waiting] = []
_ending = False


@contextmanager
def held() -> Iterator[Waiting]:
    """Protects work whose results must be complete: a first signal waits until :meth:`Waiting.end`, a second does not.

    It has an effect within :func:`interruptible`, and in a process that has called :func:`as_child`; nowhere else. In
    a process that has called :func:`as_child` a second signal is ignored.

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
    """Within the block Ctrl-C and SIGTERM end the children of this process and raise :class:`Interrupted`.

    It has no effect outside of the main thread, because only the main thread receives signals.
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
    """Prepares a process of a pool to end when its parent asks, or at a SIGTERM.

    It ignores Ctrl-C, which a terminal sends to parent and children, because the parent handles it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop_child)
    signal.signal(_TO_CHILDREN, _stop_child)


def end_child(interrupt: Interrupted) -> None:
    """Ends a process of a pool, or pauses it until its parent ends it."""
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
    """Lets children keep what they can, and then kills them. A second signal kills them at once."""
    global _ending  # a second signal may come while this function runs
    children, patient = multiprocessing.active_children(), not _ending
    _ending = True
    try:
        pids = [child.pid for child in children if child.pid is not None]
        if patient:
            _send(_TO_CHILDREN, pids)
            until = time.monotonic() + _PATIENCE_SECONDS
            while time.monotonic() < until and not all(map(_rests, pids)):
                time.sleep(0.01)
        _send(signal.SIGKILL, pids)  # joblib's processes have no method `kill`
        for child in children:
            child.join()
    finally:
        _ending = False


def _send(number: int, pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _rests(pid: int) -> bool:
    """Whether a child has ended or is stopped. An ended child is not reaped here."""
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
