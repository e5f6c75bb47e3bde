"""What threads, forked processes and pickles have in common."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

__all__ = ["Shared"]

_alive: weakref.WeakSet[Shared] = weakref.WeakSet()


class Shared:
    """A base of objects that many threads use, that are forked and pickled.

    Each object has a lock. In a forked process it is open, whatever another thread did with it at the moment of the
    fork, so what is kept under it must be written in an order that another thread may interrupt anywhere. A pickle
    holds no lock; its copy has one of its own.

    Attributes:
        lock: Held while the object changes.
    """

    lock: threading.Lock

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Makes the lock before anything else, for a copy that is unpickled too."""
        made = super().__new__(cls)
        made.lock = threading.Lock()
        _alive.add(made)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lock"}


def _open_locks() -> None:
    for each in list(_alive):
        each.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_locks)
