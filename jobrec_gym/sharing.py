"""Objects that threads share and that survive forks and pickles, and objects as keys of a cache."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass
from typing import Any

__all__ = ["Identity", "Shared"]

_alive: weakref.WeakSet[Shared] = weakref.WeakSet()


class Shared:
    """A base class of objects that many threads use and that may be forked or pickled.

    Each object has a lock. In a forked process the lock is open, even if another thread held it at the moment of the
    fork. So the data under the lock must be written in an order that may be interrupted anywhere. A pickle holds no
    lock; an unpickled copy has a lock of its own.

    Attributes:
        lock: Held while the object changes.
    """

    lock: threading.Lock

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Makes the lock before anything else, also for an unpickled copy."""
        made = super().__new__(cls)
        made.lock = threading.Lock()
        _alive.add(made)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lock"}


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """An object as the key of a cache. Two keys are equal only if they hold the very same object.

    Attributes:
        held: The object.
        beside: What else the cached function needs; it does not tell keys apart.
    """

    held: Any
    beside: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


def _open_locks() -> None:
    for each in list(_alive):
        each.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_locks)
