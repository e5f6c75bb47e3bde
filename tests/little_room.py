"""A disk that is full, a process that may open few files, a user who owns nothing: real limits of the system."""

from __future__ import annotations

import os
import resource
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def room_for(n_bytes: int) -> Iterator[None]:
    """No file grows beyond this; a write that would fails as on a full disk, by the number EFBIG."""
    with _limit(resource.RLIMIT_FSIZE, n_bytes):
        yield


@contextmanager
def files_left(n: int) -> Iterator[None]:
    """So many more files can be opened."""
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(n + 1)]
    for handle in opened:
        os.close(handle)
    # It is a bound of their numbers, of which the lowest free ones come first.
    with _limit(resource.RLIMIT_NOFILE, opened[-1]):
        yield


def as_nobody(work: Callable[[], object]) -> bool:
    """Whether work returned something true in a forked process that owns nothing."""
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65_534)
            os._exit(0 if work() else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


@contextmanager
def _limit(which: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))
