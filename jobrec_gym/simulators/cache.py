"""What a language model answered, kept by content in one SQLite file that many processes share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["AnswerCache", "CachedAnswer", "KeyMaker", "ShortAnswer", "cache_key"]

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, api_base TEXT NOT NULL, mode TEXT NOT NULL, prompt TEXT NOT NULL,
    persona TEXT NOT NULL, sampling TEXT NOT NULL, applicant TEXT NOT NULL, job TEXT NOT NULL, status TEXT NOT NULL,
    decision TEXT NOT NULL, probability REAL, reason TEXT NOT NULL, tokens INTEGER NOT NULL, cost_usd REAL NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX answers_in_short ON answers (key, status, decision, probability, reason);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, budget TEXT NOT NULL, tokens INTEGER NOT NULL, cost_usd REAL NOT NULL,
    settled INTEGER NOT NULL, until REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS calls_of_a_budget ON calls (budget);
"""
_KEYED = ("model", "api_base", "mode", "prompt", "persona", "sampling", "applicant", "job")
_DOCUMENTS_KEPT = 8_192
_PATIENCE = 30.0
"""Seconds that one process waits for another's write."""
_BATCH = 500  # SQLite allows 999 placeholders in old builds


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


class AnswerCache:
    """Answers by their key; safe for many threads and processes, and for a kill in the middle of a write.

    Args:
        path: The SQLite file; made, with its folder, where it is not there.

    Raises:
        ValueError: If the file is something else, or was written by another version.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = str(Path(path).absolute())
        self._connections = threading.local()
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        # Files of earlier releases lack it; to make it there would keep all others from writing meanwhile.
        known = self._connection().execute("SELECT 1 FROM sqlite_master WHERE name = 'answers_in_short'").fetchone()
        # By itself SQLite would take the table, a page of text for each row.
        index = "" if known is None else "INDEXED BY answers_in_short"
        self._select_in_short = f"SELECT key, status, decision, probability, reason FROM answers {index}"

    def get(self, keys: Sequence[str]) -> dict[str, CachedAnswer]:
        """The answers that are known, by key."""
        return {row[0]: _answer(row) for row in self._rows(f"SELECT {', '.join(_COLUMNS)} FROM answers", keys)}

    def in_short(self, keys: Sequence[str]) -> dict[str, ShortAnswer]:
        """The answers that are known, by key, without what they depend on, which :meth:`get` reads too."""
        return {
            key: ShortAnswer(status, decision, math.nan if probability is None else probability, reason)
            for key, status, decision, probability, reason in self._rows(self._select_in_short, keys)
        }

    def columns_in_short(self, keys: Sequence[str]) -> tuple[tuple[Any, ...], ...] | None:
        """Status, decision, probability (or ``None``) and reason, (n,) each, of n >= 1 keys.

        Returns:
            ``None`` if a key is not known.
        """
        found = {row[0]: row for row in self._rows(self._select_in_short, keys)}
        try:
            _, *columns = zip(*[found[key] for key in keys], strict=True)
        except KeyError:
            return None
        return tuple(columns)

    def put(self, answer: CachedAnswer) -> None:
        """Keeps an answer; one that is there already stays. At return it survives a kill of the process."""
        with self.transaction() as connection:
            _insert(connection, answer)
            connection.execute("DELETE FROM claims WHERE key = ?", (answer.key,))

    def claim(self, keys: Sequence[str], owner: str, seconds: float) -> set[str]:
        """Takes on the asking of those keys that are neither answered nor claimed by another, for some seconds.

        Args:
            keys: What is to be asked.
            owner: Who asks; an owner's own claim is renewed.
            seconds: How long the claim holds if nothing comes of it.

        Returns:
            The keys that are the owner's to ask.
        """
        now = time.time()
        mine = set()
        with self.transaction() as connection:
            for key in dict.fromkeys(keys):
                if connection.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone():
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
        """Gives claims back, so that others may ask."""
        with self.transaction() as connection:
            connection.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", [(key, owner) for key in keys])

    def summary(self) -> list[dict[str, Any]]:
        """For each model and way of asking: ``answers``, ``by_status``, ``tokens``, ``mean_tokens``, ``cost_usd``."""
        groups: dict[tuple[str, ...], dict[str, Any]] = {}
        names = ("model", "api_base", "mode", "prompt", "persona")
        for *group, status, n, tokens, cost in self._connection().execute(
            f"SELECT {', '.join(names)}, status, COUNT(*), SUM(tokens), SUM(cost_usd) FROM answers "
            f"GROUP BY {', '.join(names)}, status ORDER BY {', '.join(names)}, status"
        ):
            empty = {"answers": 0, "by_status": {}, "tokens": 0, "cost_usd": 0.0}
            entry = groups.setdefault(tuple(group), dict(zip(names, group, strict=True)) | empty)
            entry["answers"] += n
            entry["by_status"][status] = n
            entry["tokens"] += tokens
            entry["cost_usd"] += cost
        return [entry | {"mean_tokens": entry["tokens"] / entry["answers"]} for entry in groups.values()]

    def export(self, path: str | os.PathLike[str]) -> int:
        """Writes all answers, ordered by key, to a ``.jsonl`` or ``.parquet`` file; returns how many.

        Raises:
            ValueError: For another ending.
            ImportError: For parquet without the extra ``data``.
        """
        rows = [
            asdict(_answer(row))
            for row in self._connection().execute(f"SELECT {', '.join(_COLUMNS)} FROM answers ORDER BY key")
        ]
        for row in rows:
            row["probability"] = None if math.isnan(row["probability"]) else row["probability"]
        if _ending(path) == ".parquet":
            arrow, parquet = _parquet()
            parquet.write_table(arrow.Table.from_pylist(rows, schema=_parquet_schema(arrow)), path)
        else:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            Path(path).write_text("".join(lines), encoding="utf-8")
        return len(rows)

    def import_(self, path: str | os.PathLike[str]) -> int:
        """Adds the answers of a file of :meth:`export`, all or, if one row is wrong, none.

        Returns:
            How many were new.

        Raises:
            ValueError: For a row that is no answer, or whose key is not that of its content.
        """
        if _ending(path) == ".parquet":
            rows = _parquet()[1].read_table(path).to_pylist()
        else:
            with Path(path).open(encoding="utf-8") as file:
                rows = [_json_row(line, number, path) for number, line in enumerate(file, start=1)]
        answers = [_checked(row, number, path) for number, row in enumerate(rows, start=1)]
        with self.transaction() as connection:
            return sum(_insert(connection, answer) for answer in answers)

    def close(self) -> None:
        """Closes this thread's connection; the next use opens one again."""
        held: _Held | None = getattr(self._connections, "held", None)
        if held is not None and held.process == os.getpid():
            held.connection.close()
        self._connections.held = None

    def __reduce__(self) -> tuple[type[AnswerCache], tuple[str]]:
        return type(self), (self.path,)

    def _rows(self, select: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        wanted, rows = list(dict.fromkeys(keys)), []
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            places = ",".join("?" * len(part))
            rows += self._connection().execute(f"{select} WHERE key IN ({places})", part).fetchall()
        return rows

    def _connection(self) -> sqlite3.Connection:
        held: _Held | None = getattr(self._connections, "held", None)
        if held is None or held.process != os.getpid():
            held = self._connections.held = _Held(_connect(self.path), os.getpid())
        return held.connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A block that writes all or nothing, alone among all processes that use the file."""
        with _transaction(self._connection()) as connection:
            yield connection


def _connect(path: str) -> sqlite3.Connection:
    """A connection to a cache's file, which is made where it is not there.

    Raises:
        ValueError: If the file is something else, or was written by another version.
    """
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        with _transaction(connection) if version == 0 else contextlib.nullcontext():
            # Another process may have made it meanwhile.
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise ValueError(f"{path} is not a cache of answers ({error}): choose another file.") from error
    if version not in (0, _VERSION):
        connection.close()
        raise ValueError(
            f"{path} was written by another version of the cache ({version}, this one is {_VERSION}): export it with "
            "the release that wrote it and import the export here, or choose another file."
        )
    return connection


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


def _insert(connection: sqlite3.Connection, answer: CachedAnswer) -> int:
    values = [getattr(answer, name) for name in _COLUMNS]  # SQLite keeps NaN as NULL
    places = ",".join("?" * (len(_COLUMNS) + 1))
    done = connection.execute(
        f"INSERT OR IGNORE INTO answers ({', '.join(_COLUMNS)}, created) VALUES ({places})", [*values, time.time()]
    )
    return done.rowcount


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def _answer(row: Sequence[Any]) -> CachedAnswer:
    values = dict(zip(_COLUMNS, row, strict=True))
    if values["probability"] is None:
        values["probability"] = math.nan
    return CachedAnswer(**values)


def _json_row(line: str, number: int, path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{os.fspath(path)} row {number} is not JSON: {error}.") from error


def _checked(row: Any, number: int, path: str | os.PathLike[str]) -> CachedAnswer:
    where = f"{os.fspath(path)} row {number}"
    if not isinstance(row, dict) or set(row) != set(_COLUMNS):
        raise ValueError(
            f"{where} must have the entries {_COLUMNS}, got {sorted(row) if isinstance(row, dict) else row!r}."
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
    if row["key"] != cache_key(**{name: row[name] for name in _KEYED}):
        raise ValueError(f"{where} has a key that is not that of its content: the file was changed.")
    return _answer([row[name] for name in _COLUMNS])


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
        raise ImportError('parquet needs an extra: pip install "jobrec-gym[data]"; or choose .jsonl.') from error
    return pyarrow, pyarrow.parquet


def _parquet_schema(arrow: Any) -> Any:
    kinds = {"probability": arrow.float64(), "tokens": arrow.int64(), "cost_usd": arrow.float64()}
    return arrow.schema([(name, kinds.get(name, arrow.string())) for name in _COLUMNS])
