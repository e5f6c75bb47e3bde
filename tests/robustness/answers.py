"""Kinds of inputs that are answers of a language model: over HTTP, in a cache's file, in a file to import."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import fake_llm
import numpy as np
from robustness import edits as changes
from robustness.edits import Edit, Files
from robustness.files import drawn_edits, one_of
from robustness.trying import FilesKind, Kind, Wrong, read_files

from jobrec_gym import LLMSimulator, load_market
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.simulators.cache import CachedAnswer, cache_key
from jobrec_gym.simulators.sqlite_cache import AnswerCache

KEY = "sk-robust-0123456789abcdef0123456789"
STATUSES = (
    *("ok", "refusal", "truncated", "bad_json", "wrong_schema", "foreign_word", "no_logprobs", "rate_limit"),
    *("server_error", "timeout", "connection", "rejected", "bad_response", "budget"),
)
_LONGEST_REASON = 400


class Answers(Kind):
    """What a server sends, changed: its status, its headers, its JSON, its bytes.

    An answer is the decision that was sent, or it has a status that says why there is none. A key that the server sends
    back is on no screen and in no file.
    """

    name = "answers"
    _codes = (200, 200, 200, 200, 400, 401, 404, 413, 429, 500, 503, 204, 302, 299, 600, 99)
    _headers = (
        *(["Retry-After", "0"], ["Retry-After", "nan"], ["Retry-After", "-5"], ["Retry-After", "1e30"]),
        *(
            ["Retry-After", "Wed, 21 Oct 2099 07:28:00 GMT"],
            ["Content-Type", "text/html"],
            ["Content-Encoding", "gzip"],
        ),
        *(["Content-Length", "3"], ["Transfer-Encoding", "chunked"], ["Location", "http://127.0.0.1:9/"], ["X", KEY]),
    )
    _contents = (
        *("Not APPLY", '{"reason": "", "decision": "Not APPLY"}', '```json\n{"reason": "", "decision": "save"}\n```'),
        *('{"reason": "", "decision": "save"} or {"reason": "", "decision": "apply"}', '{"decision": "save"}', "{"),
        *('{"reason": "", "decision": "save", "decision": "apply"}', '{"reason": 3, "decision": "save"}', "[]", "null"),
        *('{"reason": "' + "x" * 5_000 + '", "decision": "save"}', "\ud800", f"the key is {KEY}", "[" * 10_000),
        *('{"reason": "key ' + KEY + '", "decision": "save"}', '{"reason": "", "decision": " save"}', ""),
    )

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.market = load_market("default", n_jobs=30, n_applicants=20)
        self.reply = b""
        self._serving = fake_llm.serving(lambda body, number: fake_llm.sends_bytes(self.reply))
        self.server = self._serving.__enter__()
        self.try_([["ask", "decision", 1]])  # imports what takes longer than an input may

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        mode = "decision" if rng.random() < 0.6 else "probability"
        body = self._body(mode)

        def edit() -> Edit:
            how = rng.random()
            if how < 0.4:
                return changes.draw_json(rng, "body", body)
            if how < 0.6:
                content = one_of(rng, self._contents)
                return ["set", "body", ["choices", 0, "message", "content"], content]
            if how < 0.7:
                return ["status", int(one_of(rng, self._codes))]
            if how < 0.8:
                return ["header", *one_of(rng, self._headers)]
            if how < 0.9:
                return [
                    "text",
                    "body",
                    int(rng.integers(len(body))),
                    one_of(rng, [KEY, '"', "}", "\x00", "é", "NaN", "1"]),
                ]
            return changes.draw_bytes(rng, one_of(rng, ["body", "reply"]), body)

        return [["ask", mode, int(rng.integers(1, 4))], *drawn_edits(rng, edit)]

    @staticmethod
    def _body(mode: str) -> bytes:
        reply = fake_llm.decides("save", "because") if mode == "decision" else fake_llm.leans(0.7)
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        head = {"id": "fake", "object": "chat.completion", "created": 0, "model": "fake"}
        return json.dumps({**head, "choices": [reply["choice"]], "usage": usage}).encode()

    def try_(self, edits: Sequence[Edit]) -> None:
        if not edits or edits[0][0] != "ask":
            return
        (_, mode, n), *others = edits
        sent = self._sent(mode, others)
        cache = self.folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        simulator = LLMSimulator(
            "openai/fake",
            api_base=self.server.api_base,
            api_key=KEY,
            mode=mode,
            cache=cache / "answers.sqlite",
            calls={"timeout": 4.0, "batch_timeout": 8.0, "concurrency": 2},
            retries={"attempts": 1, "wait": 0.0},
            elicitation={"calibration": (0.2, 0.5, 0.9)} if mode == "probability" else {},
        )
        try:
            said = simulator.bind(self.market).feedback(np.arange(n), np.arange(n))
            self._check(simulator, said, mode, sent)
        except Exception as error:
            if KEY in f"{error} {error.__cause__} {error.__context__}":
                raise Wrong("a key: it is in an exception") from error
            raise
        finally:
            simulator.cache.close()
            self._check_files(cache)

    def _sent(self, mode: str, edits: Sequence[Edit]) -> bytes:
        """Puts the reply together; returns its body."""
        body = changes.applied(
            {"body": self._body(mode)}, [edit for edit in edits if edit[0] not in ("status", "header")]
        )
        status, headers = 200, {"Content-Type": "application/json", "Content-Length": str(len(body["body"]))}
        for edit in edits:
            if edit[0] == "status":
                status = edit[1]
            elif edit[0] == "header":
                headers[edit[1]] = edit[2]
        head = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        reply: Files = {"reply": "\r\n".join(head).encode() + body["body"]}
        self.reply = changes.applied(reply, [edit for edit in edits if edit[1:2] == ["reply"]])["reply"]
        return body["body"]

    def _check(self, simulator: LLMSimulator, said: Any, mode: str, sent: bytes) -> None:
        if not set(said.status.tolist()) <= set(STATUSES):
            raise Wrong(f"status: {said.status} is not among those that are told")
        for decision, status, reward in zip(said.decision, said.status, said.reward, strict=True):
            if (status == "ok") != (decision in DECISIONS) or (status != "ok" and reward != 0):
                raise Wrong(f"decision: {decision!r} with status {status!r} and reward {reward}")
            if status == "ok" and reward != simulator.rewards[decision]:
                raise Wrong(f"reward: {reward} is not that of {decision!r}")
            if (
                status == "ok"
                and mode == "decision"
                and f'"{decision}"' not in sent.decode(errors="replace").replace("\\", "")
            ):
                raise Wrong(f"decision: nobody said {decision!r}")
        if mode == "probability":
            known = said.probability[said.status == "ok"]
            if not ((known >= 0) & (known <= 1)).all():
                raise Wrong(f"probability: {known}")
        if (said.tokens < 0).any() or (said.cost_usd < 0).any() or simulator.spent.calls < 0:
            raise Wrong(f"a bill: {said.tokens}, {said.cost_usd}")
        told = " ".join(map(str, said.reason))
        if KEY in told:
            raise Wrong("a key: it is in a reason")
        if max(map(len, said.reason)) > _LONGEST_REASON or "\n" in told:
            raise Wrong(f"a reason: it has {max(map(len, said.reason))} letters, or lines")

    @staticmethod
    def _check_files(cache: Path) -> None:
        if any(KEY.encode() in file.read_bytes() for file in cache.glob("*")):
            raise Wrong("a key: it is in the cache's file")

    def close(self) -> None:
        self._serving.__exit__(None, None, None)


def _answers() -> list[CachedAnswer]:
    """Forty that are known."""
    found = []
    for number in range(40):
        content = dict.fromkeys(("model", "api_base", "mode", "prompt", "persona", "sampling"), "said")
        content |= {"applicant": f'{{"title": "person {number}"}}', "job": '{"title": "cook"}'}
        word = DECISIONS[number % 4]
        rest = {"status": "ok", "decision": word, "probability": number / 40, "reason": f"is {word} {number}"}
        found.append(CachedAnswer(cache_key(**content), **content, **rest, tokens=100 + number, cost_usd=0.25))
    return found


class Caches(FilesKind):
    """The SQLite file of answers, and exports of it: whole, cut, with bytes changed, with its log beside it.

    Every answer that is found is the one that was kept; others are misses. A file that can be written keeps new ones.
    """

    name = "caches"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.answers = {answer.key: answer for answer in _answers()}
        made = folder / "made" / "answers.sqlite"
        cache = AnswerCache(made)
        cache.put_all(list(self.answers.values())[:25])
        cache.reserve("b", {}, tokens=7, cost_usd=0.5, seconds=600)
        cache.close()
        with closing(sqlite3.connect(made)) as connection:  # so that what follows is in the log alone
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            plain = {f"plain/{name}": content for name, content in read_files(made.parent).items() if name == made.name}
            cache.put_all(list(self.answers.values())[25:])
            logged = {f"logged/{name}": content for name, content in read_files(made.parent).items()}
        cache.export(folder / "export.jsonl")
        cache.close()
        self.files = {**plain, **logged, "export.jsonl": (folder / "export.jsonl").read_bytes()}
        self.new = CachedAnswer(
            cache_key(**dict.fromkeys(_KEYED, "new")),
            **dict.fromkeys(_KEYED, "new"),
            **{"status": "ok", "decision": "apply", "probability": 0.5, "reason": "", "tokens": 1, "cost_usd": 0.0},
        )

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        where = one_of(rng, ["plain", "logged", "export.jsonl"])
        names = [name for name in self.files if name.startswith(where)]

        def edit() -> Edit:
            file = one_of(rng, names)
            content = self.files[file]
            if where == "export.jsonl":
                return self._of_row(rng, content)
            how = rng.random()
            if how < 0.1:
                return changes.draw_files(rng, names)
            if how < 0.3:  # the first bytes say what the file is
                return ["flip", file, int(rng.integers(100)), int(rng.integers(8))]
            return changes.draw_bytes(rng, file, content)

        return [["open", where], *drawn_edits(rng, edit, most=5)]

    @staticmethod
    def _of_row(rng: np.random.Generator, content: bytes) -> Edit:
        if rng.random() < 0.4:
            return changes.draw_bytes(rng, "export.jsonl", content)
        rows = content.splitlines()
        number = int(rng.integers(len(rows)))
        return ["row", number, changes.draw_json(rng, "row", rows[number])]

    def try_(self, edits: Sequence[Edit]) -> None:
        if not edits or edits[0][0] != "open":
            return
        (_, where), *others = edits
        self.written([edit for edit in others if edit[0] != "row"])
        if where == "export.jsonl":
            self._import([edit for edit in others if edit[0] == "row"])
        else:
            self._open(self.place / where / "answers.sqlite")

    def _open(self, path: Path) -> None:
        cache = AnswerCache(path)
        try:
            keys = list(self.answers)
            for found in (cache.get(keys), {answer.key: answer for answer in cache.answers()}):
                self._require_known(found)
            for key, short in cache.in_short(keys).items():
                whole = self.answers[key]
                if tuple(short) != (whole.status, whole.decision, whole.probability, whole.reason):
                    raise Wrong(f"another answer: {short}")
            columns = cache.columns_in_short(keys)
            if columns is not None and columns[1] != tuple(self.answers[key].decision for key in keys):
                raise Wrong("another answer: in columns")
            cache.summary()
            cache.spent("b")
            cache.put(self.new)
            if cache.get([self.new.key]) != {self.new.key: self.new}:
                raise Wrong("a lost answer: it was put and is not there")
            cache.claim(keys, "me", 60)
            reservation = cache.reserve("b", {"calls": 10}, tokens=1, cost_usd=0.0, seconds=60)
            if isinstance(reservation, int) and not cache.settle(reservation, tokens=1, cost_usd=0.0):
                raise Wrong("a lost reservation: it was made and is not open")
        finally:
            cache.close()

    def _require_known(self, found: dict[str, CachedAnswer]) -> None:
        for key, answer in found.items():
            right = self.answers.get(key)
            said = (answer.status, answer.decision, answer.probability, answer.reason, answer.applicant, answer.job)
            if right is None or said != (
                *(right.status, right.decision, right.probability, right.reason, right.applicant, right.job),
            ):
                raise Wrong(f"another answer: {answer}"[:300])

    def _import(self, edits: Sequence[Edit]) -> None:
        export = self.place / "export.jsonl"
        if edits:
            rows = export.read_bytes().splitlines()
            for _, number, edit in edits:
                number %= max(1, len(rows))
                rows[number] = changes.applied({"row": rows[number]}, [edit])["row"]
            export.write_bytes(b"".join(row + b"\n" for row in rows))
        cache = AnswerCache(self.place / "new.sqlite")
        try:
            n = None
            try:
                n = cache.import_(export)
            finally:
                found = cache.get(list(self.answers))
                if n is None and found:
                    raise Wrong("half taken: an import that was refused has brought answers")
            if len(list(cache.answers())) != n:
                raise Wrong("a lost answer: not as many as were imported")
            for answer in found.values():
                if answer.decision not in (*DECISIONS, "") or not (
                    0 <= answer.probability <= 1 or answer.probability != answer.probability
                ):
                    raise Wrong(f"no answer: {answer}"[:300])
        finally:
            cache.close()


_KEYED = ("model", "api_base", "mode", "prompt", "persona", "sampling", "applicant", "job")
KINDS = (Answers, Caches)
