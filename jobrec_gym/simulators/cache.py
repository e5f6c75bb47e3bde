"""What a language model answered, kept by content: what all caches do, and the one that is an SQLite file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import sqlite3
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jobrec_gym.extras import install_command
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import whole_file

__all__ = [
    "KEPT_STATUSES",
    "Account",
    "AnswerCache",
    "AnswerStore",
    "CacheUnusable",
    "CachedAnswer",
    "CapReached",
    "KeyMaker",
    "ShortAnswer",
    "answer_of",
    "cache_key",
    "file_system_of",
]

KEPT_STATUSES = ("ok", "refusal", "truncated", "bad_json", "wrong_schema", "foreign_word", "no_logprobs")
"""Of answers that are kept: what a model said, not whether it could be reached."""

_VERSION = 1
_EXPORT_FORMAT = "jobrec-answers/1"
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
_KEYED = ("model", "api_base", "mode", "prompt", "persona", "sampling", "applicant", "job")
_GROUPED = ("model", "api_base", "mode", "prompt", "persona")
_DOCUMENTS_KEPT = 8_192
_PATIENCE = 30.0
"""Seconds that one process waits for another's write."""
_BATCH = 500  # SQLite allows 999 placeholders in old builds
_MOST_TOKENS = 1 << 40
_MOST_USD = 1e15
_NETWORK = {"afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "smb3", "smbfs"}
"""Kinds of file systems on which SQLite's write-ahead log, which is shared memory, does not hold across machines."""

_log = logging.getLogger(__name__)
_warned_of: set[str] = set()


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """One answer of a model, and all that it depends on.

    Attributes:
        key: :func:`cache_key` of the next eight.
        model: Who was asked.
        api_base: Where; "" for the provider's own address.
        mode: ``decision`` or ``probability``.
        prompt: The template's version.
        persona: The temperament's text.
        sampling: Temperature, seed and the like, as canonical JSON.
        applicant: The applicant's document as it was sent.
        job: The job's document as it was sent.
        status: ``ok``, or what was wrong with the answer's content.
        decision: What was decided, "" where nothing was.
        probability: Of an application, NaN where unknown.
        reason: In the model's words.
        tokens: Tokens that the answer took.
        cost_usd: Dollars that it cost.
    """

    key: str
    model: str
    api_base: str
    mode: str
    prompt: str
    persona: str
    sampling: str
    applicant: str
    job: str
    status: str
    decision: str
    probability: float
    reason: str
    tokens: int
    cost_usd: float


class ShortAnswer(NamedTuple):
    """Of a :class:`CachedAnswer` what was said, without all that it depends on."""

    status: str
    decision: str
    probability: float
    reason: str


_COLUMNS = tuple(field.name for field in fields(CachedAnswer))


class CacheUnusable(OSError):
    """A cache that cannot be opened, read or written; the message says which, why, and what to do."""


class Account(NamedTuple):
    """What was spent under the name of a budget, or is reserved.

    Attributes:
        calls: How many.
        tokens: In and out.
        cost_usd: Dollars.
    """

    calls: int
    tokens: int
    cost_usd: float


class CapReached(NamedTuple):
    """Why a call was not reserved.

    Attributes:
        limit: ``calls``, ``tokens`` or ``usd``.
        spent: Until now, open calls at their upper bounds.
        pending: Whether it may yet fit, when calls that are under way turn out below their bounds.
    """

    limit: str
    spent: Account
    pending: bool


def cache_key(
    *, model: str, api_base: str, mode: str, prompt: str, persona: str, sampling: str, applicant: str, job: str
) -> str:
    """SHA-256, as hex, of everything that an answer depends on."""
    content = [model, api_base, mode, prompt, persona, sampling, applicant, job]
    return hashlib.sha256(_json(content)).hexdigest()


class KeyMaker:
    """:func:`cache_key` of many pairs that are asked in one way; what pairs share is encoded and hashed once.

    Args:
        model: See :class:`CachedAnswer`, like all that follow.
        api_base: Where.
        mode: How.
        prompt: The template's version.
        persona: The temperament's text.
        sampling: As canonical JSON.
    """

    def __init__(self, *, model: str, api_base: str, mode: str, prompt: str, persona: str, sampling: str):
        head = _json([model, api_base, mode, prompt, persona, sampling]).removesuffix(b"]")
        keep = lru_cache(maxsize=_DOCUMENTS_KEPT)
        self._begun = keep(lambda applicant: hashlib.sha256(head + b", " + _json(applicant)))
        self._end = keep(lambda job: b", " + _json(job) + b"]")

    def __call__(self, applicant: str, job: str) -> str:
        """The key of two documents."""
        return self.of([(applicant, job)])[0]

    def of(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """The keys of n pairs of documents."""
        begun, end, keys = self._begun, self._end, []
        for applicant, job in pairs:
            digest = begun(applicant).copy()
            digest.update(end(job))
            keys.append(digest.hexdigest())
        return keys


class AnswerStore(ABC):
    """A cache of answers and the ledger beside it, shared by all processes that name it.

    Answers by their key, the first of a key stays; claims, by which a question is asked once; and calls, reserved at
    an upper bound before they are sent, so that no cap is passed. Safe for many threads and processes, and for a kill
    at any moment. This class has what is not storage.

    Attributes:
        path: Which one.
    """

    path: str

    @abstractmethod
    def get(self, keys: Sequence[str]) -> dict[str, CachedAnswer]:
        """The answers that are known, by key; a damaged one is not."""

    @abstractmethod
    def columns_in_short(self, keys: Sequence[str]) -> tuple[tuple[Any, ...], ...] | None:
        """Status, decision, probability (or ``None``) and reason, (n,) each, of n >= 1 keys.

        Returns:
            ``None`` if a key is not known.
        """

    @abstractmethod
    def in_short(self, keys: Sequence[str]) -> dict[str, ShortAnswer]:
        """The answers that are known, by key, without what they depend on, which :meth:`get` reads too."""

    @abstractmethod
    def answers(self) -> Iterator[CachedAnswer]:
        """All answers, ordered by key, but for damaged ones."""

    @abstractmethod
    def put_all(self, answers: Sequence[CachedAnswer]) -> int:
        """Keeps answers, all or none, but for those that are there already; returns how many were new."""

    @abstractmethod
    def claim(self, keys: Sequence[str], owner: str, seconds: float) -> set[str]:
        """Takes on the asking of those keys that are neither answered nor claimed by another, for some seconds.

        Args:
            keys: What is to be asked.
            owner: Who asks; an owner's own claim is renewed.
            seconds: How long the claim holds if nothing comes of it.

        Returns:
            The keys that are the owner's to ask.
        """

    @abstractmethod
    def release(self, keys: Sequence[str], owner: str) -> None:
        """Gives claims back, so that others may ask."""

    @abstractmethod
    def spent(self, budget: str) -> Account:
        """What was spent under a budget's name, open reservations at their bounds included."""

    @abstractmethod
    def reserve(
        self, budget: str, caps: Mapping[str, float | None], *, tokens: int, cost_usd: float, seconds: float
    ) -> Any:
        """Reserves one call.

        Args:
            budget: Whose caps they are.
            caps: Most ``calls``, ``tokens`` and ``usd``; ``None`` for no cap.
            tokens: Upper bound.
            cost_usd: Upper bound.
            seconds: How long the call may be under way; a reservation that is open for longer counts on for good.

        Returns:
            A reservation for :meth:`settle` or :meth:`cancel`, or :class:`CapReached`.
        """

    @abstractmethod
    def settle(self, reservation: Any, *, tokens: int, cost_usd: float) -> bool:
        """Puts real figures in place of reserved ones; false if the reservation is not open."""

    @abstractmethod
    def cancel(self, reservation: Any) -> bool:
        """Takes a reservation back; false if it is not open."""

    @abstractmethod
    def close(self) -> None:
        """Closes what this thread has open; the next use opens it again."""

    def put(self, answer: CachedAnswer) -> None:
        """Keeps an answer; one that is there already stays. At return it survives a kill of the process."""
        self.put_all([answer])

    def summary(self) -> list[dict[str, Any]]:
        """For each model and way of asking: ``answers``, ``by_status``, ``tokens``, ``mean_tokens``, ``cost_usd``."""
        groups: dict[tuple[str, ...], dict[str, Any]] = {}
        for *group, status, n, tokens, cost in self._groups():
            empty = {"answers": 0, "by_status": {}, "tokens": 0, "cost_usd": 0.0}
            entry = groups.setdefault(tuple(group), dict(zip(_GROUPED, group, strict=True)) | empty)
            entry["answers"] += n
            entry["by_status"][status] = entry["by_status"].get(status, 0) + n
            entry["tokens"] += tokens
            entry["cost_usd"] += cost
        return [entry | {"mean_tokens": entry["tokens"] / entry["answers"]} for entry in groups.values()]

    def _groups(self) -> Iterable[Sequence[Any]]:
        """Model and way of asking, status, how many, their tokens and dollars; in order, and in any number of rows."""
        rows = (
            [*(getattr(each, name) for name in _GROUPED), each.status, 1, each.tokens, each.cost_usd]
            for each in self.answers()
        )
        return sorted(rows, key=lambda row: row[: len(_GROUPED) + 1])

    def export(self, path: str | os.PathLike[str]) -> int:
        """Writes all answers, ordered by key, to a ``.jsonl`` or ``.parquet`` file; returns how many.

        The file appears whole or not at all. It says what wrote it, JSON lines in their first one.

        Raises:
            ValueError: For another ending.
            ImportError: For parquet without the extra ``data``.
            OSError: If it cannot be written, with the path.
        """
        ending = _ending(path)
        rows = [asdict(answer) for answer in self.answers()]
        for row in rows:
            row["probability"] = _or_none(row["probability"])
        about = {"format": _EXPORT_FORMAT, "written_by": written_by()}
        with whole_file(path) as scratch:
            if ending == ".parquet":
                arrow, parquet = _parquet()
                schema = _parquet_schema(arrow).with_metadata(about)
                parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), scratch)
            else:
                with scratch.open("w", encoding="utf-8") as file:
                    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in (about, *rows))
        return len(rows)

    def import_(self, path: str | os.PathLike[str]) -> int:
        """Adds the answers of a file of :meth:`export`, all or, if one row is wrong, none.

        Returns:
            How many were new.

        Raises:
            ValueError: For a row that is no answer, or whose key is not that of its content, and for a file of a later
                version.
        """
        if _ending(path) == ".parquet":
            table = _parquet()[1].read_table(path)
            about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            _check_export(about, path)
            rows = table.to_pylist()
        else:
            # What is no UTF-8 is then no JSON, or no word of its content's key.
            with Path(path).open(encoding="utf-8", errors="replace") as file:
                rows = [_json_row(line, number, path) for number, line in enumerate(file, start=1)]
        return self.put_all(
            [
                _checked(row, number, path)
                for number, row in enumerate(rows, start=1)
                if not _says_what_wrote_it(row, path)
            ]
        )

    def __reduce__(self) -> tuple[type[AnswerStore], tuple[str]]:
        return type(self), (self.path,)


class AnswerCache(AnswerStore):
    """The cache that is one SQLite file, for the processes of one machine.

    A file that cannot be written can be read.

    Args:
        path: The file; made, with its folder, where it is not there.

    Raises:
        ValueError: If the file is something else, or was written by another version.
        CacheUnusable: If it can be neither read nor made.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = str(Path(path).absolute())
        self._connections = threading.local()
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.path, error) from error
        _warn_of_network(self.path)
        # Files of earlier releases lack one or both; to make them there would keep all others from writing meanwhile.
        schema = dict(self._select("SELECT name, sql FROM sqlite_master"))
        self._has_crc = "crc INTEGER" in (schema.get("answers") or "")
        # By itself SQLite would take the table, a page of text for each row.
        index = "INDEXED BY answers_in_short" if "answers_in_short" in schema else ""
        crc = "crc" if self._has_crc else "NULL"
        self._select_in_short = f"SELECT key, status, decision, probability, reason, {crc} FROM answers {index}"
        self._select_whole = f"SELECT {', '.join(_COLUMNS)}, {crc} FROM answers"

    def get(self, keys: Sequence[str]) -> dict[str, CachedAnswer]:
        """See :meth:`AnswerStore.get`."""
        return {row[0]: _answer(row[:-1]) for row in self._rows(self._select_whole, keys) if _is_whole(row)}

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
                yield _answer(row[:-1])
            else:
                damaged += 1
        if damaged:
            _log.warning("%s has %d damaged answers, which are left out.", self.path, damaged)

    def put_all(self, answers: Sequence[CachedAnswer]) -> int:
        """See :meth:`AnswerStore.put_all`; a damaged answer gives way."""
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

    def reserve(
        self, budget: str, caps: Mapping[str, float | None], *, tokens: int, cost_usd: float, seconds: float
    ) -> int | CapReached:
        """See :meth:`AnswerStore.reserve`."""
        with self.transaction() as connection:
            spent = self.spent(budget)
            open_ = self._calls("budget = ? AND settled = 0 AND until > ?", budget, time.time())
            after = {"calls": spent.calls + 1, "tokens": spent.tokens + tokens, "usd": spent.cost_usd + cost_usd}
            open_bounds = {"calls": 0, "tokens": open_.tokens, "usd": open_.cost_usd}
            for limit, cap in caps.items():
                if cap is not None and after[limit] > cap:
                    return CapReached(limit, spent, after[limit] - open_bounds[limit] <= cap)
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
        """A block that writes all or nothing, alone among all processes that use the file."""
        connection = self._connection()
        try:
            with _transaction(connection):
                yield connection
        except sqlite3.DatabaseError as error:
            raise _unusable(self.path, error) from error

    def _groups(self) -> Iterable[Sequence[Any]]:
        names = ", ".join(_GROUPED)
        return self._select(
            f"SELECT {names}, status, COUNT(*), SUM(tokens), SUM(cost_usd) FROM answers "
            f"GROUP BY {names}, status ORDER BY {names}, status"
        )

    def _calls(self, where: str, *values: Any) -> Account:
        columns = "COUNT(*), COALESCE(SUM(tokens), 0), COALESCE(SUM(cost_usd), 0.0)"
        return Account(*self._select(f"SELECT {columns} FROM calls WHERE {where}", values)[0])

    def _insert(self, connection: sqlite3.Connection, otherwise: str, answer: CachedAnswer) -> int:
        values: dict[str, Any] = {name: getattr(answer, name) for name in _COLUMNS} | {"created": time.time()}
        values["probability"] = _or_none(answer.probability)
        if self._has_crc:
            values["crc"] = _crc(*(values[name] for name in ("key", *ShortAnswer._fields)))
        places = ",".join("?" * len(values))
        return connection.execute(
            f"INSERT OR {otherwise} INTO answers ({', '.join(values)}) VALUES ({places})", list(values.values())
        ).rowcount

    def _mend(self, connection: sqlite3.Connection, answer: CachedAnswer) -> None:
        """Puts an answer in the place of a damaged one, or, where only the index is damaged, has that made anew."""
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


def _connect(path: str) -> sqlite3.Connection:
    """A connection to a cache's file, which is made where it is not there.

    Raises:
        ValueError: If the file is something else, or was written by another version.
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
        raise ValueError(f"{path} is not a cache of answers ({error}): choose another file.") from error
    if version not in (0, _VERSION):
        writer = _writer(connection)
        connection.close()
        raise ValueError(
            f"{path} was written by another version of the cache ({version}{writer}; this one is {_VERSION}, "
            f"{written_by()}): export it with the release that wrote it and import the export here, or choose another "
            "file."
        )
    return connection


def _writer(connection: sqlite3.Connection) -> str:
    """Which release made a file, behind a comma; files of earlier ones do not say."""
    try:
        found = connection.execute("SELECT value FROM about WHERE name = 'written_by'").fetchone()
    except sqlite3.DatabaseError:
        return ""
    return f", {found[0]!s:.40}" if found else ""


def _prepare(connection: sqlite3.Connection) -> int:
    """Makes what a new file lacks; returns the version that it had."""
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version == 0:
        with _transaction(connection):
            # Another process may have made it meanwhile.
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
    """A connection that only reads, to a whole file in a place where SQLite cannot make the files that it needs beside.

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
                f"the cache {path} cannot be read where it cannot be written: {wal.name} beside it has answers that "
                "are not in the file yet. Open it once in a place where it can be written (python -m "
                "experiments.llm.cache path=FILE), then copy it."
            )
        connection = sqlite3.connect(f"file:{quote(path)}?immutable=1", uri=True, isolation_level=None)
        return connection, int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise _unusable(path, error) from reason


def _unusable(path: str, error: Exception) -> CacheUnusable:
    """What an error of SQLite or of the file system means to whoever named the place."""
    said = str(error)
    if "full" in said or "No space" in said:
        way_out = "make room and start again; what was answered is kept"
    elif _has_no_handle_left():
        way_out = "too many files are open: allow more, `ulimit -n 4096`, say"
    elif "disk I/O" in said:
        way_out = "make room where there is little, or name a place by `cache` that can be read and written"
    elif "malformed" in said or "corrupt" in said:
        way_out = "it is damaged: take a copy, or export what can be read and import it into a new file"
    elif "locked" in said or "busy" in said:
        way_out = (
            "another process holds it for too long; on several machines take a cache on a server (docs/cluster.md)"
        )
    else:
        way_out = "name a place by `cache` that can be read and written"
    return CacheUnusable(f"the cache {path} cannot be used ({said}): {way_out}.")


def _has_no_handle_left() -> bool:
    """Whether this process may open no more files, of which SQLite says only that it cannot open one."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def _warn_of_network(path: str) -> None:
    """Says once that a file is where other machines may write it, which SQLite does not bear."""
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
    """The kind of file system that a path is on, by the text of Linux's ``mountinfo``; "" if it does not say."""
    found, longest = "", -1
    for line in mounts.splitlines():
        fields_, _, more = line.partition(" - ")
        place = fields_.split(" ")[4].encode().decode("unicode_escape")
        inside = place == "/" or path == place or path.startswith(f"{place}/")
        if inside and len(place) >= longest:  # of two at one place the later one lies above
            found, longest = more.split(" ")[0], len(place)
    return found


_inherited: list[sqlite3.Connection] = []
"""The parent's connections in a forked process, which must neither use nor close them: its transactions would break."""


class _Held:
    """A connection of one thread, and the process that opened it."""

    def __init__(self, connection: sqlite3.Connection, process: int):
        self.connection, self.process = connection, process

    def __del__(self) -> None:
        if self.process != os.getpid():
            _inherited.append(self.connection)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Sets the journal's mode, which of processes that make a file at once SQLite refuses to all but one, at once."""
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
    """A block that writes all or nothing, alone among all processes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def _answer(row: Sequence[Any]) -> CachedAnswer:
    values = dict(zip(_COLUMNS, row, strict=True))
    if values["probability"] is None:
        values["probability"] = math.nan
    return CachedAnswer(**values)


def _or_none(probability: float) -> float | None:
    return None if math.isnan(probability) else float(probability)


def _crc(key: str, status: str, decision: str, probability: float | None, reason: str) -> int:
    """A checksum of what was said, so that a flipped bit of a file is found."""
    return zlib.crc32(f"{key}\n{status}\n{decision}\n{probability!r}\n{reason}".encode(errors="replace"))


def _is_sound(key: Any, status: Any, decision: Any, probability: Any, reason: Any, crc: Any) -> bool:
    """Whether a row is what was written; of earlier releases, which wrote no checksum, whether it is an answer."""
    if crc is not None:
        return crc == _crc(key, status, decision, probability, reason)
    return isinstance(reason, str) and _fault(status, decision, probability) is None


def _is_whole(row: Sequence[Any]) -> bool:
    """The same of a row with all that an answer depends on."""
    values = dict(zip((*_COLUMNS, "crc"), row, strict=True))
    sound = _is_sound(*(values[name] for name in ("key", *ShortAnswer._fields, "crc")))
    return sound and values["key"] == cache_key(**{name: values[name] for name in _KEYED})


def answer_of(text: str, key: str) -> CachedAnswer | None:
    """The answer that is written as a JSON object; ``None`` if it is none, or not the one of that key."""
    try:
        row = json.loads(text)
        return _checked(row, 1, key) if row["key"] == key else None
    except (ValueError, KeyError, TypeError):
        return None


def _fault(status: Any, decision: Any, probability: Any) -> tuple[str, str] | None:
    """Which column of an answer is wrong, and what it must be."""
    if status not in KEPT_STATUSES:
        return "status", f"must be one of {KEPT_STATUSES}"
    has_probability = probability is not None and not isinstance(probability, str) and probability == probability
    if isinstance(probability, str) or (has_probability and not 0 <= probability <= 1):
        return "probability", "must be in [0, 1], or nothing"
    if decision not in (*DECISIONS, ""):
        return "decision", f"must be one of {DECISIONS}, or ''"
    if status == "ok" and not decision and not has_probability:
        return "decision", f"must be one of {DECISIONS} where there is no probability"
    return None


def _json_row(line: str, number: int, path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{os.fspath(path)} row {number} is not JSON: {error}.") from error


def _says_what_wrote_it(row: Any, path: str | os.PathLike[str]) -> bool:
    """Whether a row of an export is no answer, but the one that says what wrote it; joined files have several.

    Raises:
        ValueError: If it was written by a later version.
    """
    if not isinstance(row, dict) or "format" not in row:
        return False
    _check_export(row, path)
    return True


def _check_export(about: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuses an export of a later version; earlier ones say nothing."""
    found = about.get("format", _EXPORT_FORMAT)
    if found != _EXPORT_FORMAT:
        raise ValueError(
            f"{os.fspath(path)} has the format {found!r:.40}, written by {about.get('written_by')!s:.40}; this version "
            f"({written_by()}) reads {_EXPORT_FORMAT!r}: update it, or export again by this one."
        )


def _checked(row: Any, number: int, path: str | os.PathLike[str]) -> CachedAnswer:
    where = f"{os.fspath(path)} row {number}"
    if not isinstance(row, dict) or set(row) != set(_COLUMNS):
        raise ValueError(
            f"{where} must have the entries {_COLUMNS}, got {sorted(row) if isinstance(row, dict) else row!r:.200}."
        )
    numbers = {"probability": row["probability"], "tokens": row["tokens"], "cost_usd": row["cost_usd"]}
    words = set(_COLUMNS) - set(numbers)
    wrong = sorted(name for name in words if not isinstance(row[name], str))
    wrong += [
        name
        for name, value in numbers.items()
        if not (value is None and name == "probability")
        and (isinstance(value, bool) or not isinstance(value, int | float))
    ]
    if wrong:
        raise ValueError(f"{where} has entries of a wrong type: {wrong}.")
    for name, most in (("tokens", _MOST_TOKENS), ("cost_usd", _MOST_USD)):
        if not 0 <= row[name] <= most or not math.isfinite(row[name]) or (name == "tokens" and row[name] % 1):
            raise ValueError(f"{where}, column `{name}`, must be a number of at least 0, got {row[name]!r:.80}.")
    if fault := _fault(row["status"], row["decision"], row["probability"]):
        raise ValueError(f"{where}, column `{fault[0]}`, {fault[1]}, got {row[fault[0]]!r}.")
    if row["key"] != cache_key(**{name: row[name] for name in _KEYED}):
        raise ValueError(f"{where} has a key that is not that of its content: the file was changed.")
    return _answer([float(row[name]) if name == "cost_usd" else row[name] for name in _COLUMNS])


def _ending(path: str | os.PathLike[str]) -> str:
    ending = Path(path).suffix
    if ending not in (".jsonl", ".parquet"):
        raise ValueError(f"`path` must end in .jsonl or .parquet, got {os.fspath(path)!r}.")
    return ending


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"parquet needs an extra: {install_command('data')}; or choose .jsonl.") from error
    return pyarrow, pyarrow.parquet


def _parquet_schema(arrow: Any) -> Any:
    kinds = {"probability": arrow.float64(), "tokens": arrow.int64(), "cost_usd": arrow.float64()}
    return arrow.schema([(name, kinds.get(name, arrow.string())) for name in _COLUMNS])
