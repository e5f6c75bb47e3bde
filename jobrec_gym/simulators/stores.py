"""Which cache a name means: a file, or a server."""

from __future__ import annotations

import os
from pathlib import Path

from jobrec_gym.simulators.cache import AnswerStore
from jobrec_gym.simulators.redis_cache import RedisAnswerCache, redis_place
from jobrec_gym.simulators.sqlite_cache import AnswerCache

__all__ = ["cache_place", "is_server", "open_cache"]


def is_server(where: str | os.PathLike[str]) -> bool:
    """Whether a cache's name is the address of a server."""
    return "://" in os.fspath(where)


def cache_place(where: str | os.PathLike[str]) -> str:
    """A cache's name in the form in which it is written down: an absolute path, or an address with port and number.

    Raises:
        ValueError: For an address that is not that of a Redis server.
    """
    return redis_place(os.fspath(where)) if is_server(where) else str(Path(where).absolute())


def open_cache(where: str | os.PathLike[str] | AnswerStore) -> AnswerStore:
    """The cache of a name; one that is open comes back as it is.

    Args:
        where: Path of an SQLite file, which is made where it is not there, or ``redis://HOST:6379/0``.

    Raises:
        ValueError: If it is something else.
        CacheUnusable: If it cannot be used.
        ImportError: For a server without the extra ``redis``.
    """
    if isinstance(where, AnswerStore):
        return where
    return RedisAnswerCache(os.fspath(where)) if is_server(where) else AnswerCache(where)
