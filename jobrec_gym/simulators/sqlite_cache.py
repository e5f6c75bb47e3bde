"""The cache of a language model's answers that is one SQLite file, for the processes of one machine."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jobrec_gym.paths import place_of
from jobrec_gym.simulators.cache import (
    BUDGETED,
    COLUMNS,
    GROUPED,
    KEYED,
    Account,
    AnswerStore,
    CachedAnswer,
    CacheUnusable,
    CapReached,
    ShortAnswer,
    answer_of_row,
    cache_key,
    fault_of,
    or_none,
)
from jobrec_gym.version import written_by

__all__ = ["AnswerCache", "file_system_of"]

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, api_base TEXT NOT NULL, mode TEXT NOT NULL, prompt TEXT NOT NULL,
    persona TEXT NOT NULL, sampling TEXT NOT NULL, applicant TEXT NOT NULL, job TEXT NOT NULL, status TEXT NOT NULL,
    decision TEXT NOT NULL, probability REAL, reason TEXT NOT NULL, tokens INTEGER NOT NULL, cost_usd REAL NOT NULL,
    created REAL NOT NULL, crc INTEGER
) WITHOUT ROWID;
CREATE INDEX answers_in_short ON answers (key, status, decision, probability, reason, crc);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, budget TEXT NOT NULL, tokens INTEGER NOT NULL, cost_usd REAL NOT NULL,
    settled INTEGER NOT NULL, until REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS calls_of_a_budget ON calls (budget);
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_EARLIER_LACK = re.compile(r",crc(INTEGER)?(?=\))")
"""The part of the tables that files of earlier releases do not have."""
_OF_ANALYZE = re.compile(r"CREATE TABLE sqlite_stat\d\([\w,]+\)")
_PATIENCE = 30.0
"""Seconds that one process waits for another's write."""
_BATCH = 500  # SQLite allows 999 placeholders in old builds
_NETWORK = {"afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "smb3", "smbfs"}
"""File systems on which several machines cannot share an SQLite file, because its write-ahead log is shared memory."""
_LIMITS = ("calls", "tokens", "usd")
"""The caps' names, in the order of an account."""
_SUMS = "COUNT(*), COALESCE(SUM(tokens), 0), COALESCE(SUM(cost_usd), 0.0)"
_CALL = "SELECT * FROM calls WHERE id = ?"

_log = logging.getLogger(__name__)
_warned_of: set[str] = set()


class _Known(NamedTuple):
    """What a process knows of a budget: its calls up to the last settled one.

    Attributes:
        last: Number of the last settled call, 0 for none.
        call: Its row, the only one in a tuple; an empty tuple for none.
        settled: The settled calls up to it.
        open_ids: Numbers of the open calls, as SQL.
    """

    last: int = 0
    call: tuple[tuple[Any, ...], ...] = ()
    settled: Account = Account(0, 0, 0.0)
    open_ids: str = "NULL"


class AnswerCache(AnswerStore):
    """The cache that is one SQLite file, for the processes of one machine.

    A file that cannot be written can still be read.

    Args:
        path: The file; it is made, with its folder, if it does not exist.

    Raises:
        ValueError: If the file is something else, has tables that no cache has, or was written by another version.
        CacheUnusable: If it can be neither read nor made.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = str(place_of(path).absolute())
        self._connections = threading.local()
        self._known: dict[str, _Known] = {}
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.path, error) from error
        _warn_of_network(self.path)
        # Files of earlier releases may lack the checksums and the index. Adding them would block all other writers.
        schema = dict(self._select("SELECT name, sql FROM sqlite_master"))
        self._has_crc = "crc INTEGER" in (schema.get("answers") or "")
        # Without the hint SQLite would read the table itself, with a page of text for each row.
        index = "INDEXED BY answers_in_short" if "answers_in_short" in schema else ""
        crc = "crc" if self._has_crc else "NULL"
        self._select_in_short = f"SELECT key, status, decision, probability, reason, {crc} FROM answers {index}"
        self._select_whole = f"SELECT {', '.join(COLUMNS)}, {crc} FROM answers"

    def get(self, keys: Sequence[str]) -> dict[str, CachedAnswer]:
        """See :meth:`AnswerStore.get`."""
        return {row[0]: answer_of_row(row[:-1]) for row in self._rows(self._select_whole, keys) if _is_whole(row)}

    def in_short(self, keys: Sequence[str]) -> dict[str, ShortAnswer]:
        """See :meth:`AnswerStore.in_short`."""
        return {
            key: ShortAnswer(status, decision, math.nan if probability is None else probability, reason)
            for key, status, decision, probability, reason, crc in self._rows(self._select_in_short, keys)
            if _is_sound(key, status, decision, probability, reason, crc)
        }

    def columns_in_short(self, keys: Sequence[str]) -> tuple[tuple[Any, ...], ...] | None:
        """See :meth:`AnswerStore.columns_in_short`."""
        found = {row[0]: row[1:5] for row in self._rows(self._select_in_short, keys) if _is_sound(*row)}
        try:
            return tuple(zip(*[found[key] for key in keys], strict=True))
        except KeyError:
            return None

    def answers(self) -> Iterator[CachedAnswer]:
        """See :meth:`AnswerStore.answers`."""
        damaged = 0
        for row in self._select(f"{self._select_whole} ORDER BY key"):
            if _is_whole(row):
                yield answer_of_row(row[:-1])
            else:
                damaged += 1
        if damaged:
            _log.warning("%s has %d damaged answers, which are left out.", self.path, damaged)

    def put_all(self, answers: Sequence[CachedAnswer]) -> int:
        """See :meth:`AnswerStore.put_all`; a damaged answer is replaced."""
        new = 0
        with self.transaction() as connection:
            for answer in answers:
                if self._insert(connection, "IGNORE", answer):
                    new += 1
                elif not self.in_short([answer.key]):
                    self._mend(connection, answer)
                connection.execute("DELETE FROM claims WHERE key = ?", (answer.key,))
        return new

    def claim(self, keys: Sequence[str], owner: str, seconds: float) -> set[str]:
        """See :meth:`AnswerStore.claim`; claims expire by this machine's clock."""
        now = time.time()
        mine = set()
        with self.transaction() as connection:
            known = self.in_short(keys)
            for key in dict.fromkeys(keys):
                if key in known:
                    continue
                taken = connection.execute(
                    "INSERT INTO claims VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, "
                    "until = excluded.until WHERE claims.owner = excluded.owner OR claims.until <= ?",
                    (key, owner, now + seconds, now),
                )
                if taken.rowcount:
                    mine.add(key)
        return mine

    def release(self, keys: Sequence[str], owner: str) -> None:
        """See :meth:`AnswerStore.release`."""
        with self.transaction() as connection:
            connection.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", [(key, owner) for key in keys])

    def spent(self, budget: str) -> Account:
        """See :meth:`AnswerStore.spent`."""
        return self._calls("budget = ?", budget)

    def budgets(self) -> list[dict[str, Any]]:
        """See :meth:`AnswerStore.budgets`."""
        columns = f"budget, {_SUMS}, COALESCE(SUM(settled = 0), 0)"
        rows = self._select(f"SELECT {columns} FROM calls GROUP BY budget ORDER BY budget")
        return [dict(zip(BUDGETED, row, strict=True)) for row in rows]

    def reserve(
        self, budget: str, caps: Mapping[str, float | None], *, tokens: int, cost_usd: float, seconds: float
    ) -> int | CapReached:
        """See :meth:`AnswerStore.reserve`."""
        given = {limit: cap for limit, cap in caps.items() if cap is not None}
        with self.transaction() as connection:
            if given and (reached := self._reached(budget, given, Account(1, tokens, cost_usd))):
                return reached
            done = connection.execute(
                "INSERT INTO calls (budget, tokens, cost_usd, settled, until) VALUES (?, ?, ?, 0, ?)",
                (budget, tokens, cost_usd, time.time() + seconds),
            )
            return int(done.lastrowid or 0)

    def settle(self, reservation: int, *, tokens: int, cost_usd: float) -> bool:
        """See :meth:`AnswerStore.settle`."""
        statement = "UPDATE calls SET tokens = ?, cost_usd = ?, settled = 1 WHERE id = ? AND settled = 0"
        with self.transaction() as connection:
            return bool(connection.execute(statement, (tokens, cost_usd, reservation)).rowcount)

    def cancel(self, reservation: int) -> bool:
        """See :meth:`AnswerStore.cancel`."""
        with self.transaction() as connection:
            return bool(connection.execute("DELETE FROM calls WHERE id = ? AND settled = 0", (reservation,)).rowcount)

    def close(self) -> None:
        """Closes this thread's connection; the next use opens one again."""
        held: _Held | None = getattr(self._connections, "held", None)
        if held is not None and held.process == os.getpid():
            held.connection.close()
        self._connections.held = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A block that writes all or nothing. No other process writes the file meanwhile."""
        connection = self._connection()
        try:
            with _transaction(connection):
                yield connection
        except sqlite3.DatabaseError as error:
            raise _unusable(self.path, error) from error

    def _groups(self) -> Iterable[Sequence[Any]]:
        names = ", ".join(GROUPED)
        # A sum over damaged rows may be NULL.
        sums = "COALESCE(SUM(tokens), 0), COALESCE(SUM(cost_usd), 0.0)"
        return self._select(
            f"SELECT {names}, status, COUNT(*), {sums} FROM answers GROUP BY {names}, status ORDER BY {names}, status"
        )

    def _calls(self, where: str, *values: Any) -> Account:
        return Account(*self._select(f"SELECT {_SUMS} FROM calls WHERE {where}", values)[0])

    def _reached(self, budget: str, caps: Mapping[str, float], call: Account) -> CapReached | None:
        """The cap that a further call would pass at its bounds; ``None`` if there is none."""
        if _passed(caps, self._spent_so_far(budget), call) is None:
            return None
        spent = self.spent(budget)
        limit = _passed(caps, spent, call)
        if limit is None:  # somebody has removed calls from the file
            del self._known[budget]
            return None
        open_ = self._calls("budget = ? AND settled = 0 AND until > ?", budget, time.time())._replace(calls=0)
        place = _LIMITS.index(limit)
        return CapReached(limit, spent, spent[place] + call[place] - open_[place] <= caps[limit])

    def _spent_so_far(self, budget: str) -> Account:
        """:meth:`spent`, within a transaction; adds up only the calls that were new or open when it was last called.

        A settled call never changes, and no later call has a lower number. Calls that were open may be settled or gone.
        """
        known = self._known.get(budget, _Known())
        if tuple(self._select(_CALL, [known.last])) != known.call:  # somebody has removed calls from the file
            known = _Known()
        others = (
            "(SELECT * FROM calls WHERE budget = ? AND id > ? UNION ALL "
            f"SELECT * FROM calls WHERE id <= ? AND id IN ({known.open_ids}))"
        )
        values = (budget, known.last, known.last)
        *more, last = self._select(f"SELECT {_SUMS}, MAX(id) FROM {others} WHERE settled", values)[0]
        *open_, open_ids = self._select(f"SELECT {_SUMS}, GROUP_CONCAT(id) FROM {others} WHERE NOT settled", values)[0]
        settled, last = _sum(known.settled, more), max(known.last, last or 0)
        self._known[budget] = _Known(last, tuple(self._select(_CALL, [last])), settled, open_ids or "NULL")
        return _sum(settled, open_)

    def _insert(self, connection: sqlite3.Connection, otherwise: str, answer: CachedAnswer) -> int:
        values: dict[str, Any] = {name: getattr(answer, name) for name in COLUMNS} | {"created": time.time()}
        values["probability"] = or_none(answer.probability)
        if self._has_crc:
            values["crc"] = _crc(*(values[name] for name in ("key", *ShortAnswer._fields)))
        places = ",".join("?" * len(values))
        return connection.execute(
            f"INSERT OR {otherwise} INTO answers ({', '.join(values)}) VALUES ({places})", list(values.values())
        ).rowcount

    def _mend(self, connection: sqlite3.Connection, answer: CachedAnswer) -> None:
        """Replaces a damaged answer; if only the index is damaged, rebuilds the index."""
        if "INDEXED" in self._select_in_short:
            connection.execute("REINDEX answers_in_short")
        if not self.in_short([answer.key]):
            self._insert(connection, "REPLACE", answer)

    def _rows(self, select: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        wanted, rows = list(dict.fromkeys(keys)), []
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            rows += self._select(f"{select} WHERE key IN ({','.join('?' * len(part))})", part)
        return rows

    def _select(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection().execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _unusable(self.path, error) from error

    def _connection(self) -> sqlite3.Connection:
        # A connection must not be carried through a fork.
        held: _Held | None = getattr(self._connections, "held", None)
        if held is None or held.process != os.getpid():
            held = self._connections.held = _Held(_connect(self.path), os.getpid())
        return held.connection


def _passed(caps: Mapping[str, float], spent: Account, call: Account) -> str | None:
    """The first cap that is below what was spent and a further call."""
    after = dict(zip(_LIMITS, _sum(spent, call), strict=True))
    return next((limit for limit, cap in caps.items() if after[limit] > cap), None)


def _sum(left: Sequence[Any], right: Sequence[Any]) -> Account:
    return Account(*(one + other for one, other in zip(left, right, strict=True)))


def _connect(path: str) -> sqlite3.Connection:
    """A connection to a cache's file, which is made if it does not exist.

    Raises:
        ValueError: If the file is something else, has tables that no cache has, or was written by another version.
        CacheUnusable: If it can be neither read nor made.
    """
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
        version = _prepare(connection)
    except sqlite3.OperationalError as error:
        if connection is not None:
            connection.close()
        connection, version = _connect_to_unwritable(path, error)
    except sqlite3.DatabaseError as error:
        if connection is not None:
            connection.close()
        raise ValueError(f"{path} is not a cache of answers ({_in_short(error)}): choose another file.") from error
    if version not in (0, _VERSION):
        writer = _writer(connection)
        connection.close()
        raise ValueError(
            f"{path} was written by another version of the cache ({version}{writer}; this one is {_VERSION}, "
            f"{written_by()}): export it with the release that wrote it and import the export here, or choose another "
            "file."
        )
    try:
        _require_plain(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_plain(connection: sqlite3.Connection, path: str) -> None:
    """Refuses a file with anything but the tables and indexes of a cache.

    A view, a trigger or a computed column is a program. Reading a view of a few letters may never end.

    Raises:
        ValueError: If there is something else.
        CacheUnusable: If the file is damaged.
    """
    known = {_plain(statement) for statement in _SCHEMA.split(";")}
    known |= {_EARLIER_LACK.sub("", statement) for statement in known}
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        for kind, name, statement in connection.execute("SELECT type, name, sql FROM sqlite_master"):
            # SQLite makes an index of its own for a primary key, without a statement, and tables for `ANALYZE`.
            if kind == "table" and _OF_ANALYZE.fullmatch(statement or ""):
                continue
            if kind not in ("table", "index") or (statement is not None and _plain(statement) not in known):
                raise ValueError(
                    f"{path} has the {kind:.20} {name!r:.40}, which no cache of answers has: use an unchanged copy, or "
                    "remove what was added."
                )
    except sqlite3.DatabaseError as error:
        raise _unusable(path, error) from error


def _plain(statement: str) -> str:
    """A statement that makes a table or an index, without spaces."""
    return re.sub(r"\s|IF NOT EXISTS", "", statement)


def _writer(connection: sqlite3.Connection) -> str:
    """The release that made a file, after a comma; empty for files of earlier releases, which do not name it."""
    try:
        found = connection.execute("SELECT value FROM about WHERE name = 'written_by'").fetchone()
    except sqlite3.DatabaseError:
        return ""
    return f", {found[0]!s:.40}" if found else ""


def _prepare(connection: sqlite3.Connection) -> int:
    """Makes the tables of a new file; returns the version that the file had."""
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version == 0:
        with _transaction(connection):
            # Another process may have made the tables meanwhile.
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                others = connection.execute("SELECT name FROM sqlite_master").fetchall()
                if others:
                    raise sqlite3.DatabaseError(f"it has tables of something else, {others[0][0]!r:.40}")
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO about VALUES ('written_by', ?)", [written_by()])
                connection.execute(f"PRAGMA user_version = {_VERSION}")
    return version


def _connect_to_unwritable(path: str, reason: sqlite3.OperationalError) -> tuple[sqlite3.Connection, int]:
    """A read-only connection to a whole file, in a place where SQLite cannot make the files that it needs beside it.

    Raises:
        CacheUnusable: If there is no such file.
    """
    wal = Path(f"{path}-wal")
    try:
        is_writable = os.access(path, os.W_OK) and os.access(Path(path).parent, os.W_OK)
        if is_writable or not Path(path).is_file():
            raise _unusable(path, reason)
        if wal.exists() and wal.stat().st_size:
            raise CacheUnusable(
                f"the cache {path} is in a place that cannot be written, and cannot be read there: {wal.name} beside "
                "it has answers that are not in the file yet. Open the cache once in a place that can be written "
                "(python -m experiments.llm.cache path=FILE), then copy the file."
            )
        connection = sqlite3.connect(f"file:{quote(path)}?immutable=1", uri=True, isolation_level=None)
        return connection, int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise _unusable(path, error) from reason


def _unusable(path: str, error: Exception) -> CacheUnusable:
    """The error that the user gets in place of one of SQLite or of the file system."""
    said = _in_short(error)
    if "full" in said or "No space" in said:
        way_out = "make room and start again; what was answered is kept"
    elif _has_no_handle_left():
        way_out = "too many files are open: allow more, for example `ulimit -n 4096`"
    elif "disk I/O" in said:
        way_out = "make room if the disk is full, or name a place by `cache` that can be read and written"
    elif "malformed" in said or "corrupt" in said:
        way_out = "it is damaged: use an unchanged copy, or export what can be read and import it into a new file"
    elif "locked" in said or "busy" in said:
        way_out = (
            "another process holds it for too long; on several machines take a cache on a server (docs/cluster.md)"
        )
    else:
        way_out = "name a place by `cache` that can be read and written"
    return CacheUnusable(f"the cache {path} cannot be used ({said}): {way_out}.")


def _in_short(error: Exception) -> str:
    """The text of an error on one line: SQLite may quote a broken file, line breaks included."""
    return " ".join(str(error).split())[:200]


def _has_no_handle_left() -> bool:
    """Whether this process may open no more files. SQLite then says only that it cannot open one."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def _warn_of_network(path: str) -> None:
    """Warns once if other machines may write to the file, which would damage it."""
    try:
        kind = file_system_of(path, Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    except OSError:
        return
    if kind.removeprefix("fuse.") in _NETWORK and path not in _warned_of:
        _warned_of.add(path)
        _log.warning(
            "the cache %s is on a network file system (%s). Used from several machines at once, an SQLite file there "
            "can be damaged: take a cache on a server, cache=redis://HOST:6379/0, see docs/cluster.md.",
            path,
            kind,
        )


def file_system_of(path: str, mounts: str) -> str:
    """The kind of file system that a path is on, from the text of Linux's ``mountinfo``; "" if it does not say."""
    found, longest = "", -1
    for line in mounts.splitlines():
        fields_, _, more = line.partition(" - ")
        place = fields_.split(" ")[4].encode().decode("unicode_escape")
        inside = place == "/" or path == place or path.startswith(f"{place}/")
        if inside and len(place) >= longest:  # of two mounts at one place, the later one counts
            found, longest = more.split(" ")[0], len(place)
    return found


_inherited: list[sqlite3.Connection] = []
"""The parent's connections in a forked process. Using or closing them there would break the parent's transactions."""


class _Held:
    """A connection of one thread, and the process that opened it."""

    def __init__(self, connection: sqlite3.Connection, process: int):
        self.connection, self.process = connection, process

    def __del__(self) -> None:
        if self.process != os.getpid():
            _inherited.append(self.connection)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Sets the journal's mode. It retries, because SQLite refuses all but one of several processes that make a file."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A block that writes all or nothing. No other process writes meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _crc(key: str, status: str, decision: str, probability: float | None, reason: str) -> int:
    """A checksum of an answer's content, by which a flipped bit of the file is found."""
    return zlib.crc32(f"{key}\n{status}\n{decision}\n{probability!r}\n{reason}".encode(errors="replace"))


def _is_sound(key: Any, status: Any, decision: Any, probability: Any, reason: Any, crc: Any) -> bool:
    """Whether a row is undamaged. A row of an earlier release has no checksum: it need only be an answer."""
    if crc is not None:
        return crc == _crc(key, status, decision, probability, reason)
    return isinstance(reason, str) and fault_of(status, decision, probability) is None


def _is_whole(row: Sequence[Any]) -> bool:
    """Whether a row is undamaged and its key fits the fields that the answer depends on."""
    values = dict(zip((*COLUMNS, "crc"), row, strict=True))
    sound = _is_sound(*(values[name] for name in ("key", *ShortAnswer._fields, "crc")))
    return sound and values["key"] == cache_key(**{name: values[name] for name in KEYED})
