"""The cache of a language model's answers on a Redis server, for processes of many machines."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from jobrec_gym.credentials import mask
from jobrec_gym.extras import install_command
from jobrec_gym.simulators.cache import (
    BUDGETED,
    Account,
    AnswerStore,
    CachedAnswer,
    CacheUnusable,
    CapReached,
    ShortAnswer,
    answer_of,
)
from jobrec_gym.version import written_by

__all__ = ["RedisAnswerCache", "redis_place"]

T = TypeVar("T")

_VERSION = "1"
_STAMP = f'{{"version": "{_VERSION}", '
"""The beginning of a kept answer."""
_PATIENCE = 60.0
"""Seconds that a process waits for a server that restarts."""
_PAUSE = (0.05, 1.0)
_BATCH = 500
_NANO = 1_000_000_000
_REMEMBERED_SECONDS = 3_600
"""How long the server remembers a closed reservation, for a client that lost the reply and repeats its request."""
_LIMITS = ("calls", "tokens", "usd")

# The scripts run on the server, one at a time and by its clock. All KEYS are in one hash slot, as a cluster requires.

_PUT = """
local new = 0
for i = 1, #ARGV, 2 do
    new = new + redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call('DEL', KEYS[2] .. ARGV[i])
end
return new
"""
_MEND = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
"""
_CLAIM = """
local mine = {}
for i = 3, #ARGV do
    if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 then
        local claim = KEYS[2] .. ARGV[i]
        local owner = redis.call('GET', claim)
        if not owner or owner == ARGV[1] then
            if tonumber(ARGV[2]) > 0 then
                redis.call('SET', claim, ARGV[1], 'PX', ARGV[2])
            else
                redis.call('DEL', claim)
            end
            mine[#mine + 1] = ARGV[i]
        end
    end
end
return mine
"""
_RELEASE = """
for i = 2, #ARGV do
    if redis.call('GET', KEYS[2] .. ARGV[i]) == ARGV[1] then redis.call('DEL', KEYS[2] .. ARGV[i]) end
end
"""
# KEYS: totals, open reservations, their ends. A reservation is "tokens nano-dollars".
_RESERVE = """
local id, tokens, nano = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('HEXISTS', KEYS[2], id) == 1 then return {'ok'} end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local totals = redis.call('HMGET', KEYS[1], 'calls', 'tokens', 'nano')
local spent = {tonumber(totals[1] or 0), tonumber(totals[2] or 0), tonumber(totals[3] or 0)}
local after = {spent[1] + 1, spent[2] + tokens, spent[3] + nano}
for i = 1, 3 do
    local cap = tonumber(ARGV[4 + i])
    if cap and after[i] > cap then
        local open = {0, 0, 0}
        for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. now, '+inf')) do
            local bounds = redis.call('HGET', KEYS[2], other)
            local t, n = string.match(bounds, '(%d+) (%d+)')
            open[2], open[3] = open[2] + tonumber(t), open[3] + tonumber(n)
        end
        local pending = after[i] - open[i] <= cap and 1 or 0
        local function whole(n) return string.format('%.0f', n) end
        return {'cap', i, whole(spent[1]), whole(spent[2]), whole(spent[3]), pending}
    end
end
redis.call('HINCRBY', KEYS[1], 'calls', 1)
redis.call('HINCRBY', KEYS[1], 'tokens', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'nano', ARGV[3])
redis.call('HSET', KEYS[2], id, ARGV[2] .. ' ' .. ARGV[3])
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), id)
return {'ok'}
"""
# ARGV: id of the reservation; calls, tokens, nano-dollars; id of this request; seconds to remember this request.
_CLOSE = """
local done = KEYS[4] .. ARGV[1]
local bounds = redis.call('HGET', KEYS[2], ARGV[1])
if not bounds then return redis.call('GET', done) == ARGV[5] and 1 or 0 end
local t, n = string.match(bounds, '(%d+) (%d+)')
redis.call('HINCRBY', KEYS[1], 'calls', ARGV[2] - 1)
redis.call('HINCRBY', KEYS[1], 'tokens', string.format('%.0f', ARGV[3] - t))
redis.call('HINCRBY', KEYS[1], 'nano', string.format('%.0f', ARGV[4] - n))
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('SET', done, ARGV[5], 'EX', ARGV[6])
return 1
"""

_log = logging.getLogger(__name__)
_warned_of: set[str] = set()


def redis_place(where: str) -> str:
    """The address of a Redis server, completed by its port and the number of its database.

    Raises:
        ValueError: For another address, or one with a user, a password or options in it.

    Example:
        >>> redis_place("redis://cache.example")
        'redis://cache.example:6379/0'
    """
    rule = "must be a file, or redis://HOST:6379/0 or rediss://HOST:6379/0"
    parts = urlsplit(where)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            f"`cache` {rule}. The address must have no user, password or options, since it is written down: set the "
            "environment variables JOBREC_REDIS_PASSWORD and, if need be, JOBREC_REDIS_USERNAME."
        )
    try:
        number, port = int(parts.path.strip("/") or 0), parts.port or 6379
    except ValueError:
        number = port = -1
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or number < 0:
        raise ValueError(f"`cache` {rule}, got {where!r}.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}/{number}"


class RedisAnswerCache(AnswerStore):
    """The cache that is a Redis server: one for all machines of a sweep.

    It gives the same guarantees as an SQLite file. A question is asked once over all machines, except for calls that
    were running at a crash. No cap is exceeded. The reservation of a dead process keeps counting with its upper bound.
    Claims expire by the server's clock. If the server is restarted, the cache waits for it.

    These guarantees need a server that keeps what it has acknowledged. With ``appendonly yes`` and ``appendfsync
    always`` it always does. With weaker settings a crash of the server may lose entries, and a warning says so. A
    server that may throw entries away (another ``maxmemory-policy`` than ``noeviction``) is refused.

    The password is taken from the environment variable ``JOBREC_REDIS_PASSWORD``, a user's name from
    ``JOBREC_REDIS_USERNAME``.

    Args:
        where: ``redis://HOST:6379/0``, or ``rediss://`` for TLS.

    Raises:
        ValueError: For another address, a server that throws entries away, or entries of another version.
        CacheUnusable: If the server cannot be reached or used.
        ImportError: Without the extra ``redis``.
    """

    def __init__(self, where: str):
        self.path = redis_place(where)
        self._redis = _import_redis()
        self._client = self._redis.Redis.from_url(
            self.path,
            username=os.environ.get("JOBREC_REDIS_USERNAME"),
            password=os.environ.get("JOBREC_REDIS_PASSWORD"),
            decode_responses=True,
            socket_timeout=_PATIENCE / 4,
            socket_connect_timeout=_PATIENCE / 4,
            retry=None,
            health_check_interval=0,
        )
        self._scripts: dict[str, Any] = {
            source: self._client.register_script(source) for source in (_PUT, _MEND, _CLAIM, _RELEASE, _RESERVE, _CLOSE)
        }
        is_new = self._told(lambda: self._client.setnx(_name("version"), _VERSION))
        if is_new:
            self._told(lambda: self._client.set(_name("written_by"), written_by()))
        version, writer = self._told(lambda: self._client.mget(_name("version"), _name("written_by")))
        if version != _VERSION:
            by = f", {writer:.40}" if writer else ""
            raise ValueError(
                f"{self.path} was written by another version of the cache ({version:.40}{by}; this one is {_VERSION}, "
                f"{written_by()}): export it with the release that wrote it and import the export here, or choose "
                "another data base."
            )
        self._check_settings()

    def get(self, keys: Sequence[str]) -> dict[str, CachedAnswer]:
        """See :meth:`AnswerStore.get`."""
        wanted, found = list(dict.fromkeys(keys)), {}
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            for key, text in zip(part, self._told(partial(self._client.hmget, _ANSWERS, part)), strict=True):
                answer = None if text is None else self._answer_of(text, key)
                if answer is not None:
                    found[key] = answer
        return found

    def in_short(self, keys: Sequence[str]) -> dict[str, ShortAnswer]:
        """See :meth:`AnswerStore.in_short`."""
        return {
            key: ShortAnswer(answer.status, answer.decision, answer.probability, answer.reason)
            for key, answer in self.get(keys).items()
        }

    def columns_in_short(self, keys: Sequence[str]) -> tuple[tuple[Any, ...], ...] | None:
        """See :meth:`AnswerStore.columns_in_short`."""
        found = self.in_short(keys)
        if not found.keys() >= set(keys):
            return None
        rows = [found[key] for key in keys]
        return tuple(zip(*[(s, d, None if math.isnan(p) else p, r) for s, d, p, r in rows], strict=True))

    def answers(self) -> Iterator[CachedAnswer]:
        """See :meth:`AnswerStore.answers`."""
        keys = sorted(self._told(lambda: self._client.hkeys(_ANSWERS)))
        for start in range(0, len(keys), _BATCH):
            part = keys[start : start + _BATCH]
            found = self.get(part)
            yield from (found[key] for key in part if key in found)

    def put_all(self, answers: Sequence[CachedAnswer]) -> int:
        """See :meth:`AnswerStore.put_all`; more than 500 answers are kept in several steps."""
        texts = {}
        for answer in answers:
            probability = None if math.isnan(answer.probability) else answer.probability
            text = json.dumps(asdict(answer) | {"probability": probability}, sort_keys=True)
            texts[answer.key] = f"{_STAMP}{text[1:]}"
        new, rows = 0, list(texts.items())
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            self._remove_damaged([key for key, _ in part])
            new += self._run(_PUT, [_ANSWERS, _CLAIMS], [each for row in part for each in row])
        return new

    def claim(self, keys: Sequence[str], owner: str, seconds: float) -> set[str]:
        """See :meth:`AnswerStore.claim`; claims expire by the server's clock."""
        wanted = list(dict.fromkeys(keys))
        self._remove_damaged(wanted)
        return set(self._run(_CLAIM, [_ANSWERS, _CLAIMS], [owner, math.ceil(1_000 * seconds), *wanted]))

    def release(self, keys: Sequence[str], owner: str) -> None:
        """See :meth:`AnswerStore.release`."""
        self._run(_RELEASE, [_ANSWERS, _CLAIMS], [owner, *keys])

    def spent(self, budget: str) -> Account:
        """See :meth:`AnswerStore.spent`."""
        totals = self._told(lambda: self._client.hmget(_ledger(budget)[0], ["calls", "tokens", "nano"]))
        return _account(totals)

    def budgets(self) -> list[dict[str, Any]]:
        """See :meth:`AnswerStore.budgets`."""
        begin = _ledger("")[0]
        found = self._told(lambda: {key.removeprefix(begin) for key in self._client.scan_iter(f"{begin}*", _BATCH)})
        entries = []
        for budget in sorted(found):
            # A budget whose calls were all cancelled has a record, but nothing was spent.
            if (spent := self.spent(budget)).calls:
                n_open = self._told(partial(self._client.hlen, _ledger(budget)[1]))
                entries.append(dict(zip(BUDGETED, (budget, *spent, n_open), strict=True)))
        return entries

    def reserve(
        self, budget: str, caps: Mapping[str, float | None], *, tokens: int, cost_usd: float, seconds: float
    ) -> str | CapReached:
        """See :meth:`AnswerStore.reserve`."""
        reservation = f"{budget}/{uuid.uuid4().hex}"
        bounds = [_whole(caps.get("calls")), _whole(caps.get("tokens")), _whole(caps.get("usd"), _NANO)]
        values = [reservation, tokens, _nano(cost_usd), math.ceil(1_000 * seconds), *bounds]
        said, *cap = self._run(_RESERVE, _ledger(budget), values)
        if said == "ok":
            return reservation
        limit, *spent, pending = cap
        return CapReached(_LIMITS[limit - 1], _account(spent), bool(pending))

    def settle(self, reservation: str, *, tokens: int, cost_usd: float) -> bool:
        """See :meth:`AnswerStore.settle`."""
        return self._close(reservation, 1, tokens, cost_usd)

    def cancel(self, reservation: str) -> bool:
        """See :meth:`AnswerStore.cancel`."""
        return self._close(reservation, 0, 0, 0.0)

    def close(self) -> None:
        """Closes this process' connections; the next use opens one again."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def _close(self, reservation: str, calls: int, tokens: int, cost_usd: float) -> bool:
        budget = reservation.rpartition("/")[0]
        values = [reservation, calls, tokens, _nano(cost_usd), uuid.uuid4().hex, _REMEMBERED_SECONDS]
        return bool(self._run(_CLOSE, [*_ledger(budget), _name("closed:")], values))

    def _remove_damaged(self, keys: Sequence[str]) -> None:
        """Removes damaged entries, so that their questions are asked again."""
        for key, text in zip(keys, self._told(lambda: self._client.hmget(_ANSWERS, list(keys))), strict=True):
            if text is not None and self._answer_of(text, key) is None:
                self._run(_MEND, [_ANSWERS], [key, text])

    def _answer_of(self, text: str, key: str) -> CachedAnswer | None:
        """The answer that an entry holds; ``None`` for a damaged one. Entries of earlier releases name no version.

        Raises:
            ValueError: If another version wrote it.
        """
        if text.startswith(_STAMP):
            return answer_of(f"{{{text[len(_STAMP) :]}", key)
        other = re.match(r'{"version": "(\d{1,9})", ', text)
        if other is not None:
            raise ValueError(
                f"{self.path} holds an answer of version {other[1]} of the cache, this one ({written_by()}) reads "
                f"{_VERSION}: export it with the release that wrote it and import the export here."
            )
        return answer_of(text, key)

    def _run(self, source: str, keys: Sequence[str], values: Sequence[Any]) -> Any:
        """A script's result. Scripts may run twice: after a lost reply nobody knows whether the script has run."""
        return self._told(lambda: self._scripts[source](keys=keys, args=list(values)))

    def _told(self, ask: Callable[[], T]) -> T:
        """The server's reply; waits while the server is not there.

        Raises:
            CacheUnusable: If the server is not there for too long, or refuses the request.
        """
        known, pause = self._redis.exceptions, _PAUSE[0]
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return ask()
            except known.AuthenticationError as error:
                raise self._unusable(error, "set JOBREC_REDIS_PASSWORD to its password") from None
            except (known.ConnectionError, known.TimeoutError, known.ReadOnlyError) as error:
                if time.monotonic() + pause > deadline:
                    raise self._unusable(error, "start it, or name another cache") from None
            except known.ResponseError as error:
                full = "maxmemory" in str(error)
                way_out = "give it more memory" if full else "ask the people who run the server"
                raise self._unusable(error, way_out) from None
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE[1])

    def _unusable(self, error: Exception, way_out: str) -> CacheUnusable:
        return CacheUnusable(f"the cache {self.path} cannot be used ({mask(str(error))}): {way_out}.")

    def _check_settings(self) -> None:
        """Refuses a server that throws answers away, and warns once of a server that may lose them in a crash.

        Raises:
            ValueError: For another ``maxmemory-policy`` than ``noeviction``.
        """
        info = self._told(lambda: self._client.info("memory"))
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ValueError(
                f"the cache {self.path} may discard answers and reservations (maxmemory-policy {policy}): answers "
                "would be paid for again, and caps exceeded. Set `maxmemory-policy noeviction` on the server."
            )
        kept = self._told(lambda: self._client.info("persistence"))
        how = "no append-only file" if not kept.get("aof_enabled") else self._how_often_written()
        if how != "always" and self.path not in _warned_of:
            _warned_of.add(self.path)
            _log.warning(
                "the cache %s may lose its last answers and reservations when the server crashes (%s): they would be "
                "paid for again, and a cap could be exceeded. `appendonly yes` and `appendfsync always` prevent it.",
                self.path,
                how,
            )

    def _how_often_written(self) -> str:
        try:
            return str(self._client.config_get("appendfsync")["appendfsync"])
        except (KeyError, self._redis.exceptions.ResponseError):
            return "it does not say how often it writes"


def _name(part: str) -> str:
    """A key on the server. The part in braces decides the slot, so all keys are in one slot."""
    return f"{{jobrec}}:{part}"


_ANSWERS, _CLAIMS = _name("answers"), _name("claim:")


def _ledger(budget: str) -> list[str]:
    return [_name(f"{part}:{budget}") for part in ("spent", "open", "ends")]


def _nano(dollars: float) -> int:
    """Dollars in billionths, rounded up. Sums of these whole numbers are exact."""
    return math.ceil(round(dollars * _NANO, 3))


def _whole(cap: float | None, times: int = 1) -> str:
    return "" if cap is None else str(math.floor(round(cap * times, 3)))


def _account(totals: Sequence[Any]) -> Account:
    calls, tokens, nano = (int(each or 0) for each in totals)
    return Account(calls, tokens, nano / _NANO)


def _import_redis() -> Any:
    try:
        import redis
    except ImportError as error:
        raise ImportError(f"a cache on a server needs an extra: {install_command('redis')}") from error
    return redis
