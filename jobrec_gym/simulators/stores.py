"""Finds the cache that a name stands for: a file or a server."""

from __future__ import annotations

import os

from jobrec_gym.paths import place_of
from jobrec_gym.simulators.cache import AnswerStore
from jobrec_gym.simulators.redis_cache import RedisAnswerCache, redis_place
from jobrec_gym.simulators.sqlite_cache import AnswerCache

__all__ = ["cache_place", "is_server", "open_cache"]


def is_server(where: str | os.PathLike[str]) -> bool:
    """Whether a cache's name is the address of a server."""
    return "://" in os.fspath(where)


def cache_place(where: str | os.PathLike[str]) -> str:
    """A cache's name in its complete form: an absolute path, or an address with port and number of the database.

    Raises:
        ValueError: For an address of anything but a Redis server.
    """
    return redis_place(os.fspath(where)) if is_server(where) else str(place_of(where).absolute())


def open_cache(where: str | os.PathLike[str] | AnswerStore) -> AnswerStore:
    """The cache of a name; an open cache comes back as it is.

    Args:
        where: Path of an SQLite file, which is made if it does not exist, or ``redis://HOST:6379/0``.

    Raises:
        ValueError: If the file is no cache, or the address is not that of a Redis server.
        CacheUnusable: If the cache cannot be used.
        ImportError: For a server without the extra ``redis``.
    """
    if isinstance(where, AnswerStore):
        return where
    return RedisAnswerCache(os.fspath(where)) if is_server(where) else AnswerCache(where)
