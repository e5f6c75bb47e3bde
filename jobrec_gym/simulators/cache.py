"""The cache of a language model's answers, kept under a hash of the question: the part that all stores share."""

from __future__ import annotations

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jobrec_gym.extras import install_command
from jobrec_gym.paths import place_of
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import whole_file

__all__ = [
    "BUDGETED",
    "COLUMNS",
    "GROUPED",
    "KEPT_STATUSES",
    "KEYED",
    "Account",
    "AnswerStore",
    "CacheUnusable",
    "CachedAnswer",
    "CapReached",
    "KeyMaker",
    "ShortAnswer",
    "answer_of",
    "answer_of_row",
    "cache_key",
    "fault_of",
    "or_none",
]

KEPT_STATUSES = ("ok", "refusal", "truncated", "bad_json", "wrong_schema", "foreign_word", "no_logprobs")
"""Statuses of answers that are kept. They concern what a model said, not whether it could be reached."""

KEYED = ("model", "api_base", "mode", "prompt", "persona", "sampling", "applicant", "job")
"""The fields that an answer depends on; its key is their hash."""
GROUPED = ("model", "api_base", "mode", "prompt", "persona")
"""The fields by which a summary groups answers."""
BUDGETED = ("budget", "calls", "tokens", "cost_usd", "open_calls")
"""The entries of :meth:`AnswerStore.budgets`."""

_EXPORT_FORMAT = "jobrec-answers/1"
_MOST_BYTES = 1 << 32
"""The most bytes of texts that an export may unpack to, by default."""
_BATCH_ROWS = 1_000
_DOCUMENTS_KEPT = 8_192
_MOST_TOKENS = 1 << 40
_MOST_USD = 1e15


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """One answer of a model, and all that it depends on.

    Attributes:
        key: :func:`cache_key` of the next eight fields.
        model: Name of the model.
        api_base: Address of the server; "" for the provider's own.
        mode: ``decision`` or ``probability``.
        prompt: The template's version.
        persona: Text of the persona, the temperament that the model plays.
        sampling: Temperature, seed and the like, as canonical JSON.
        applicant: The applicant's document as it was sent.
        job: The job's document as it was sent.
        status: ``ok``, or what was wrong with the answer's content.
        decision: The decision, "" if there is none.
        probability: Probability of an application, NaN if unknown.
        reason: The reason, in the model's words.
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
    """The content of a :class:`CachedAnswer`, without the fields that it depends on."""

    status: str
    decision: str
    probability: float
    reason: str


COLUMNS = tuple(field.name for field in fields(CachedAnswer))
"""The columns of an answer as a row of a table."""


class CacheUnusable(OSError):
    """A cache cannot be opened, read or written; the message says which one, why, and what to do."""


class Account(NamedTuple):
    """What was spent or is reserved under the name of a budget.

    Attributes:
        calls: Number of calls.
        tokens: Tokens in and out.
        cost_usd: Dollars.
    """

    calls: int
    tokens: int
    cost_usd: float


class CapReached(NamedTuple):
    """Why a call was not reserved.

    Attributes:
        limit: ``calls``, ``tokens`` or ``usd``.
        spent: What was spent so far; running calls count at their upper bounds.
        pending: Whether the call may still fit, because running calls may cost less than their bounds.
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
    """:func:`cache_key` of many pairs that share the other fields, which are encoded and hashed only once.

    Args:
        model: See :class:`CachedAnswer`, like all arguments below.
        api_base: Address of the server.
        mode: How the model is asked.
        prompt: The template's version.
        persona: Text of the persona.
        sampling: Temperature, seed and the like, as canonical JSON.
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

    A store holds three things: answers by their key, where the first answer for a key stays; claims, which ensure that
    a question is asked once; and calls, which are reserved at an upper bound before they are sent, so that no cap is
    exceeded. It is safe for many threads and processes, and for a kill at any moment. This base class has everything
    but the storage.

    Attributes:
        path: The path or address of the cache.
    """

    path: str

    @abstractmethod
    def get(self, keys: Sequence[str]) -> dict[str, CachedAnswer]:
        """The known answers by key; a damaged answer counts as unknown."""

    @abstractmethod
    def columns_in_short(self, keys: Sequence[str]) -> tuple[tuple[Any, ...], ...] | None:
        """Status, decision, probability (or ``None``) and reason, (n,) each, of n >= 1 keys.

        Returns:
            ``None`` if a key is not known.
        """

    @abstractmethod
    def in_short(self, keys: Sequence[str]) -> dict[str, ShortAnswer]:
        """The known answers by key, without the fields that they depend on; faster than :meth:`get`."""

    @abstractmethod
    def answers(self) -> Iterator[CachedAnswer]:
        """All answers that are not damaged, ordered by key."""

    @abstractmethod
    def put_all(self, answers: Sequence[CachedAnswer]) -> int:
        """Keeps answers, all or none; returns how many were new. Answers that are there already stay as they are."""

    @abstractmethod
    def claim(self, keys: Sequence[str], owner: str, seconds: float) -> set[str]:
        """Claims, for some seconds, those keys that are neither answered nor claimed by another owner.

        Args:
            keys: Keys of the questions.
            owner: Name of the asker; an owner's own claim is renewed.
            seconds: How long the claim holds if no answer is kept.

        Returns:
            The keys that the owner is to ask about.
        """

    @abstractmethod
    def release(self, keys: Sequence[str], owner: str) -> None:
        """Gives claims back, so that others may ask."""

    @abstractmethod
    def spent(self, budget: str) -> Account:
        """What was spent under a budget's name; open reservations count at their bounds."""

    @abstractmethod
    def budgets(self) -> list[dict[str, Any]]:
        """What was spent under each budget's name: ``budget``, ``calls``, ``tokens``, ``cost_usd``, ``open_calls``.

        The entries are ordered by name. ``open_calls`` counts the open reservations, whose bills have not come. They
        are in the other figures too, at their bounds.
        """

    @abstractmethod
    def reserve(
        self, budget: str, caps: Mapping[str, float | None], *, tokens: int, cost_usd: float, seconds: float
    ) -> Any:
        """Reserves one call.

        Args:
            budget: Name of the budget.
            caps: Most ``calls``, ``tokens`` and ``usd``; ``None`` for no cap.
            tokens: Upper bound of tokens.
            cost_usd: Upper bound of dollars.
            seconds: How long the call may take. A reservation that is open for longer keeps counting for good.

        Returns:
            A reservation for :meth:`settle` or :meth:`cancel`, or :class:`CapReached`.
        """

    @abstractmethod
    def settle(self, reservation: Any, *, tokens: int, cost_usd: float) -> bool:
        """Puts real figures in place of the reserved ones; returns False if the reservation is not open."""

    @abstractmethod
    def cancel(self, reservation: Any) -> bool:
        """Cancels a reservation; returns False if it is not open."""

    @abstractmethod
    def close(self) -> None:
        """Closes what this thread has open; the next use opens it again."""

    def put(self, answer: CachedAnswer) -> None:
        """Keeps an answer if its key has none yet. After the return the answer survives a kill of the process."""
        self.put_all([answer])

    def summary(self) -> list[dict[str, Any]]:
        """For each model and way of asking: ``answers``, ``by_status``, ``tokens``, ``mean_tokens``, ``cost_usd``."""
        groups: dict[tuple[str, ...], dict[str, Any]] = {}
        for *group, status, n, tokens, cost in self._groups():
            empty = {"answers": 0, "by_status": {}, "tokens": 0, "cost_usd": 0.0}
            entry = groups.setdefault(tuple(group), dict(zip(GROUPED, group, strict=True)) | empty)
            entry["answers"] += n
            entry["by_status"][status] = entry["by_status"].get(status, 0) + n
            entry["tokens"] += tokens
            entry["cost_usd"] += cost
        return [entry | {"mean_tokens": entry["tokens"] / entry["answers"]} for entry in groups.values()]

    def _groups(self) -> Iterable[Sequence[Any]]:
        """Sorted rows of model and way of asking, status, count, tokens and dollars; a group may have several rows."""
        rows = (
            [*(getattr(each, name) for name in GROUPED), each.status, 1, each.tokens, each.cost_usd]
            for each in self.answers()
        )
        return sorted(rows, key=lambda row: row[: len(GROUPED) + 1])

    def export(self, path: str | os.PathLike[str]) -> int:
        """Writes all answers, ordered by key, to a ``.jsonl`` or ``.parquet`` file; returns how many.

        The file appears whole or not at all. It names the release that wrote it, a ``.jsonl`` file in its first line.

        Raises:
            ValueError: For another ending.
            ImportError: For parquet without the extra ``data``.
            OSError: If it cannot be written, with the path.
        """
        ending = _ending(path)
        rows = [asdict(answer) for answer in self.answers()]
        for row in rows:
            row["probability"] = or_none(row["probability"])
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

    def import_(self, path: str | os.PathLike[str], max_bytes: int = _MOST_BYTES) -> int:
        """Adds the answers of a file of :meth:`export`: all, or none if one row is wrong.

        Args:
            path: The file.
            max_bytes: The most bytes of texts that all rows together may have.

        Returns:
            How many were new.

        Raises:
            ValueError: For a row that is not an answer or whose key does not fit its content, for a file of a later
                version, and for a file with more than ``max_bytes``.
        """
        rows = _parquet_rows(path, max_bytes) if _ending(path) == ".parquet" else _json_rows(path, max_bytes)
        answers: dict[str, CachedAnswer] = {}
        shared: dict[str, str] = {}  # a file of a few bytes may hold one text many times
        n_bytes = 0
        for number, row in enumerate(rows, start=1):
            if _says_what_wrote_it(row, path):
                continue
            answer = _checked(row, number, path)
            said = {name: text for name, text in asdict(answer).items() if isinstance(text, str)}
            n_bytes += sum(len(text.encode(errors="surrogatepass")) for text in said.values())
            if n_bytes > max_bytes:
                raise _too_large(path, max_bytes)
            texts: dict[str, Any] = {name: shared.setdefault(text, text) for name, text in said.items()}
            answers.setdefault(answer.key, replace(answer, **texts))
        return self.put_all(list(answers.values()))

    def __reduce__(self) -> tuple[type[AnswerStore], tuple[str]]:
        return type(self), (self.path,)


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def answer_of_row(row: Sequence[Any]) -> CachedAnswer:
    """The answer with these values of :data:`COLUMNS`; a missing probability becomes NaN."""
    values = dict(zip(COLUMNS, row, strict=True))
    if values["probability"] is None:
        values["probability"] = math.nan
    return CachedAnswer(**values)


def or_none(probability: float) -> float | None:
    """A probability in written form: ``None`` for NaN."""
    return None if math.isnan(probability) else float(probability)


def answer_of(text: str, key: str) -> CachedAnswer | None:
    """The answer in a text, a JSON object; ``None`` if it is not an answer, or not the one of that key."""
    try:
        row = json.loads(text)
        return _checked(row, 1, key) if row["key"] == key else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def fault_of(status: Any, decision: Any, probability: Any) -> tuple[str, str] | None:
    """A wrong column of an answer, and what its value must be; ``None`` if all columns are right."""
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


def _json_rows(path: str | os.PathLike[str], max_bytes: int) -> Iterator[Any]:
    """The rows of a JSON Lines file, one after the other.

    Raises:
        ValueError: For a line that is not JSON, and for a file with more than ``max_bytes``.
    """
    # Text that is not UTF-8 fails as JSON, or does not fit its key.
    with place_of(path).open(encoding="utf-8", errors="replace") as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise _too_large(path, max_bytes)
        for number, line in enumerate(file, start=1):
            yield _json_row(line, number, path)


def _parquet_rows(path: str | os.PathLike[str], max_bytes: int) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, one after the other. A text that many rows share is in memory once.

    Raises:
        ValueError: For columns of other types, a file of a later version, and a text of more than ``max_bytes``.
    """
    arrow, parquet = _parquet()
    place, types = place_of(path), arrow.types
    schema = parquet.read_schema(place)
    _check_export({key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}, path)
    texts, wrong = [], []
    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if types.is_string(kind) or types.is_large_string(kind):
            texts.append(field.name)
        elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind)):
            wrong.append(field.name)
    if wrong:
        raise ValueError(f"{os.fspath(path)} has columns of a wrong type: {wrong!r:.200}.")
    with parquet.ParquetFile(place, read_dictionary=texts) as file:
        for batch in file.iter_batches(_BATCH_ROWS):
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            if any(columns[name].dictionary.nbytes > max_bytes for name in texts):
                raise _too_large(path, max_bytes)
            for number in range(batch.num_rows):
                yield {name: column[number].as_py() for name, column in columns.items()}


def _too_large(path: str | os.PathLike[str], max_bytes: int) -> ValueError:
    return ValueError(
        f"{os.fspath(path)} has texts of more than {max_bytes:,} bytes together: give a larger `max_bytes` if you know "
        "where the file comes from."
    )


def _json_row(line: str, number: int, path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # also a number of too many digits, or lists nested too deep
        raise ValueError(f"{os.fspath(path)} row {number} is not JSON: {error}.") from error


def _says_what_wrote_it(row: Any, path: str | os.PathLike[str]) -> bool:
    """Whether a row of an export is not an answer but names the release that wrote it.

    A file that was joined from several exports has several such rows.

    Raises:
        ValueError: If it was written by a later version.
    """
    if not isinstance(row, dict) or "format" not in row:
        return False
    _check_export(row, path)
    return True


def _check_export(about: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuses an export of a later version; exports of earlier versions name no version."""
    found = about.get("format", _EXPORT_FORMAT)
    if found != _EXPORT_FORMAT:
        raise ValueError(
            f"{os.fspath(path)} has the format {found!r:.40}, written by {about.get('written_by')!s:.40}; this version "
            f"({written_by()}) reads {_EXPORT_FORMAT!r}: update this package, or export again with this version."
        )


def _checked(row: Any, number: int, path: str | os.PathLike[str]) -> CachedAnswer:
    where = f"{os.fspath(path)} row {number}"
    if not isinstance(row, dict) or set(row) != set(COLUMNS):
        raise ValueError(
            f"{where} must have the entries {COLUMNS}, got {sorted(row) if isinstance(row, dict) else row!r:.200}."
        )
    numbers = {"probability": row["probability"], "tokens": row["tokens"], "cost_usd": row["cost_usd"]}
    words = set(COLUMNS) - set(numbers)
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
    if fault := fault_of(row["status"], row["decision"], row["probability"]):
        raise ValueError(f"{where}, column `{fault[0]}`, {fault[1]}, got {row[fault[0]]!r:.80}.")
    if row["key"] != cache_key(**{name: row[name] for name in KEYED}):
        raise ValueError(f"{where} has a key that is not that of its content: the file was changed.")
    return answer_of_row([float(row[name]) if name == "cost_usd" else row[name] for name in COLUMNS])


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
    return arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
