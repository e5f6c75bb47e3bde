"""Batches of questions to one language model: each pair asked once, within a budget, by a bounded number of threads."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from jobrec_gym.credentials import mask
from jobrec_gym.sharing import Shared
from jobrec_gym.shown_text import as_text
from jobrec_gym.simulators.arguments import AskingMode, CacheMode, Calls, Retries, Sampling
from jobrec_gym.simulators.budget import BudgetReached, Ledger
from jobrec_gym.simulators.cache import AnswerStore, CachedAnswer, KeyMaker, ShortAnswer
from jobrec_gym.simulators.completion import CallFailed, ChatModel, ModelUnusable
from jobrec_gym.simulators.prompts import Prompt

__all__ = ["Asker", "Outcome", "Question", "ReplayMiss", "Usage"]

Question = tuple[str, str]
"""The encoded documents of an applicant and of a job."""

_TOP_LOGPROBS = 10
_LEASE_SLACK = 5.0
_POLL_SECONDS = (0.02, 0.5)
_MOST_LOGGED = 400

_log = logging.getLogger(__name__)


class ReplayMiss(LookupError):
    """In strict replay, a pair is not in the cache."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of what one simulator did in this process.

    Attributes:
        calls: Requests that were sent, failed ones included.
        cache_hits: Questions that were answered without a request.
        tokens: Tokens in and out.
        cost_usd: Dollars.
        failures: Number of questions without an answer, by status.
        decisions: Recommendations that feedback was asked for; pairs of a calibration do not count.
    """

    calls: int
    cache_hits: int
    tokens: int
    cost_usd: float
    failures: Mapping[str, int]
    decisions: int = 0


class Outcome(NamedTuple):
    """The result of a question.

    Attributes:
        status: ``ok`` or what went wrong.
        answer: The answer; ``None`` if no completion came, or only one that is not kept (the server was at fault).
        cached: Whether the answer was known, or came with an equal question of the batch.
        reason: The reason of a failure without an answer, in words; :attr:`said` is the reason of any outcome.
        budget: The ``BudgetReached`` to raise, if a cap is the reason.
        tokens: Tokens that this question took; 0 if ``cached``.
        cost_usd: Dollars that this question cost; 0 if ``cached``.
    """

    status: str
    answer: ShortAnswer | None = None
    cached: bool = False
    reason: str = ""
    budget: Exception | None = None
    tokens: int = 0
    cost_usd: float = 0.0

    @property
    def said(self) -> str:
        """The reason in words: that of the answer if there is one, else that of the failure."""
        return self.reason if self.answer is None else self.answer.reason


class _Batch:
    """Questions that are asked together.

    Attributes:
        owner: The name under which the questions are claimed in the cache.
        deadline: When the caller waits no longer, on the monotonic clock.
        over: Set once the caller has stopped waiting. What is under way then ends without a further call.
        hopeless: The errors of questions that have shown that no call can succeed: none, one or a few.
    """

    def __init__(self, seconds: float):
        self.owner = uuid.uuid4().hex
        self.deadline = time.monotonic() + seconds
        self.over = threading.Event()
        self.hopeless: list[ModelUnusable] = []


class Asker(Shared):
    """Asks one model about pairs, with one template and one set of arguments.

    Args:
        model: litellm's name of the model.
        api_base: Address of a local server.
        api_key: The key; kept out of every file.
        mode: ``"decision"`` or ``"probability"``.
        prompt: The template.
        persona: Text of the persona, the temperament that the model plays.
        decisions: The allowed decisions, in the order in which the prompt lists them.
        sampling: The entries of a request beside its messages, the length of an answer included.
        prices: Dollars per token in and out, ``None`` for the model's list price.
        cache: The cache that keeps the answers.
        cache_mode: ``"record"`` asks about pairs that are not in the cache. ``"replay"`` never asks: a pair that is
            not in the cache has the status ``not_recorded``. ``"replay_strict"`` raises for such a pair.
        ledger: The caps, and the record of what was spent.
        calls: How many calls at a time, and how long each may take.
        retries: How often to try again.
    """

    def __init__(
        self,
        *,
        model: str,
        api_base: str | None,
        api_key: str | None,
        mode: AskingMode,
        prompt: Prompt,
        persona: str,
        decisions: Sequence[str],
        sampling: Sampling,
        prices: Sequence[float] | None,
        cache: AnswerStore,
        cache_mode: CacheMode,
        ledger: Ledger,
        calls: Calls,
        retries: Retries,
    ):
        self._prompt = prompt
        self._persona = persona
        self._decisions = tuple(decisions)
        self._cache = cache
        self._cache_mode = cache_mode
        self._ledger = ledger
        self._calls = calls
        self._retries = retries
        self._mode = mode
        self._api_key = api_key
        self._connect = {"model": model, "api_base": api_base, "api_key": api_key, "prices": prices}
        said = {key: getattr(sampling, key) for key in ("temperature", "seed", "max_tokens", "max_completion_tokens")}
        self._sampling = {key: value for key, value in said.items() if value is not None}
        self._extra_body = dict(sampling.extra_body or {})
        keyed = self._sampling | ({"decisions": list(self._decisions)} if mode == "decision" else {})
        keyed |= {"extra_body": self._extra_body} if self._extra_body else {}
        keyed |= {"repeat": sampling.repeat} if sampling.repeat else {}
        self._key_parts = {
            "model": model,
            "api_base": api_base or "",
            "mode": mode,
            "prompt": prompt.version,
            "persona": persona,
            "sampling": json.dumps(keyed, sort_keys=True),
        }
        self._key_of = KeyMaker(**self._key_parts)
        self._chat: ChatModel | None = None
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._cost_usd = 0.0

    @property
    def usage(self) -> Usage:
        """The counts so far."""
        with self.lock:
            counts = self._counts
            return Usage(counts["calls"], counts["hits"], counts["tokens"], self._cost_usd, dict(self._failures))

    def count_known(self, n: int) -> None:
        """Counts n questions, which were answered elsewhere, as cache hits."""
        self._count(n, ())

    def key(self, question: Question) -> str:
        """The cache's key of a question."""
        return self._key_of(*question)

    def recall(self, questions: Sequence[Question]) -> tuple[tuple[Any, ...], ...] | None:
        """Status, decision, probability (or ``None``) and reason of earlier answers, (n,) each, n >= 1.

        Returns:
            ``None`` if any answer is missing; then call :meth:`ask`.
        """
        columns = self._cache.columns_in_short(self._key_of.of(questions))
        if columns is not None:
            status, *_, reason = columns
            failed = [] if status.count("ok") == len(status) else zip(status, reason, strict=True)
            self._count(len(status), failed)
        return columns

    def ask(self, questions: Sequence[Question]) -> list[Outcome]:
        """Answers a batch, in its order.

        Raises:
            ReplayMiss: In strict replay, for a pair that is not in the cache.
            ModelUnusable: If no call can succeed.
        """
        keys = self._key_of.of(questions)
        known = self._cache.in_short(keys)
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
        if missing and self._cache_mode == "replay_strict":
            raise ReplayMiss(
                f"{len(missing)} of {len(questions)} pairs are not in {self._cache.path} for this model, prompt, "
                'persona and sampling: record them with cache_mode="record", or import a cache that has them.'
            )
        if self._cache_mode == "replay":
            fresh = {key: Outcome("not_recorded") for key in missing}
        else:
            fresh = self._ask_missing(missing) if missing else {}
        outcomes, seen = [], set()
        for key in keys:
            if key in known:
                outcome = Outcome(known[key].status, known[key], cached=True)
            else:
                again = key in seen and fresh[key].answer is not None
                outcome = fresh[key]._replace(cached=True, tokens=0, cost_usd=0.0) if again else fresh[key]
                seen.add(key)
            outcomes.append(outcome)
        self._count(sum(outcome.cached for outcome in outcomes), [(each.status, each.said) for each in outcomes])
        return outcomes

    def _count(self, hits: int, outcomes: Iterable[tuple[str, str]]) -> None:
        """Counts hits, and the failures among outcomes, which are pairs of status and reason."""
        with self.lock:
            self._counts["hits"] += hits
            for status, reason in outcomes:
                if status != "ok":
                    if not self._failures[status]:
                        shown = as_text(reason, _MOST_LOGGED)
                        _log.warning("the language model gave no decision: %s. %s", status, shown)
                    self._failures[status] += 1

    def _ask_missing(self, missing: Mapping[str, Question]) -> dict[str, Outcome]:
        chat = self._model()
        batch = _Batch(self._calls.batch_timeout)
        pool = ThreadPoolExecutor(min(self._calls.concurrency, len(missing)), thread_name_prefix="ask")
        try:
            futures = {
                key: pool.submit(self._ask_unless, chat, key, question, batch) for key, question in missing.items()
            }
            wait(futures.values(), timeout=self._calls.batch_timeout, return_when=FIRST_EXCEPTION)
            late = Outcome("timeout", reason=f"not answered in the batch's {self._calls.batch_timeout:g} seconds")
            for future in futures.values():
                if future.done() and (error := future.exception()) is not None:
                    raise error
            return {key: future.result() if future.done() else late for key, future in futures.items()}
        finally:
            # A running call goes on until its own time-out; its answer is kept. No other call begins.
            batch.over.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _model(self) -> ChatModel:
        with self.lock:
            if self._chat is None:
                from jobrec_gym.simulators.answers import response_format

                options: dict[str, Any] = dict(self._sampling)
                options["response_format"] = response_format(self._mode, self._decisions)
                if self._mode == "probability":
                    options |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
                if self._extra_body:
                    options["extra_body"] = self._extra_body
                chat = ChatModel(**self._connect, options=options)  # type: ignore[arg-type]
                listed = self._connect["prices"] is None
                if self._ledger.caps["usd"] is not None and listed and (chat.prices is None or not max(chat.prices)):
                    raise ValueError(
                        f"`max_usd` needs a price, and none is listed for model {chat.model!r}: give "
                        "`budget.prices`, the dollars per token in and out ((0, 0) for a free model), or cap "
                        "`budget.max_tokens` instead."
                    )
                self._chat = chat
            return self._chat

    def _ask_unless(self, chat: ChatModel, key: str, question: Question, batch: _Batch) -> Outcome:
        """Asks, in a thread. Raises if another question of the batch has shown that no call can succeed."""
        if batch.hopeless:
            raise batch.hopeless[0]
        try:
            return self._ask_one(chat, key, question, batch)
        except ModelUnusable as error:
            batch.hopeless.append(error)
            raise

    def _ask_one(self, chat: ChatModel, key: str, question: Question, batch: _Batch) -> Outcome:
        """Asks the model, or waits for the answer if another thread or process is asking."""
        pause, longest = _POLL_SECONDS
        while key not in self._cache.claim([key], batch.owner, self._calls.timeout + _LEASE_SLACK):
            found = self._cache.in_short([key])
            if found:
                return Outcome(found[key].status, found[key], cached=True)
            if time.monotonic() + pause > batch.deadline or batch.over.wait(pause):
                return Outcome("timeout", reason="another thread or process was asking, and no answer came in time")
            pause = min(1.5 * pause, longest)
        answered = False
        try:
            outcome = self._try(chat, key, question, batch)
            answered = outcome.answer is not None
            return outcome
        finally:
            if not answered:
                self._cache.release([key], batch.owner)

    def _try(self, chat: ChatModel, key: str, question: Question, batch: _Batch) -> Outcome:
        """Calls the model, with retries, and keeps the answer."""
        messages = self._prompt.messages(*question, persona=self._persona, decisions=self._decisions)
        most_tokens, most_cost = chat.bounds(messages)
        pause = self._retries.wait
        for left in range(self._retries.attempts, -1, -1):
            if batch.over.is_set():
                return Outcome("timeout", reason="nobody waited for the answer any more")
            reservation = self._reserve(key, batch, most_tokens, most_cost)
            if isinstance(reservation, BudgetReached):
                return Outcome("budget", reason=str(reservation), budget=reservation)
            tokens, cost = most_tokens, most_cost  # these count if no bill ever comes
            try:
                completion = chat.complete(messages, self._calls.timeout)
                if completion.tokens is not None:
                    tokens, cost = completion.tokens, completion.cost_usd
            except ModelUnusable:
                tokens, cost = 0, 0.0
                raise
            except CallFailed as failure:
                if not failure.billed:
                    tokens, cost = 0, 0.0
                if failure.status == "refusal":
                    return self._keep(key, question, _refusal(failure.reason), 0, 0.0)
                failed = Outcome(failure.status, reason=failure.reason)
                delay = max(pause, failure.wait)
                if not failure.again or not left or time.monotonic() + delay > batch.deadline:
                    return failed
            else:
                parsed = self._parse(completion.choice)
                if not parsed.kept:
                    return Outcome(parsed.status, reason=parsed.reason, tokens=tokens, cost_usd=cost)
                return self._keep(key, question, parsed, tokens, cost)
            finally:
                self._ledger.settle(reservation, tokens=tokens, cost_usd=cost)
                with self.lock:
                    self._counts["calls"] += 1
                    self._counts["tokens"] += tokens
                    self._cost_usd += cost
            self._cache.claim([key], batch.owner, delay + self._calls.timeout + _LEASE_SLACK)
            if batch.over.wait(delay):
                return failed
            pause *= 2
        raise AssertionError("the last try returns")

    def _reserve(self, key: str, batch: _Batch, tokens: int, cost: float) -> Any:
        """A reservation, or ``BudgetReached``; waits while running calls may turn out cheaper than their bounds."""
        while True:
            try:
                return self._ledger.reserve(tokens=tokens, cost_usd=cost, seconds=self._calls.timeout + _LEASE_SLACK)
            except BudgetReached as reached:
                if not reached.pending or time.monotonic() > batch.deadline or batch.over.wait(_POLL_SECONDS[0]):
                    return reached
            self._cache.claim([key], batch.owner, self._calls.timeout + _LEASE_SLACK)

    def _parse(self, choice: Mapping[str, Any]) -> Any:
        from jobrec_gym.simulators.answers import parse_decision, parse_probability

        length = "max_completion_tokens" if "max_completion_tokens" in self._sampling else "max_tokens"
        parsed = (parse_decision if self._mode == "decision" else parse_probability)(choice, length)
        return replace(parsed, reason=mask(parsed.reason, self._api_key))

    def _keep(self, key: str, question: Question, parsed: Any, tokens: int, cost: float) -> Outcome:
        answer = CachedAnswer(
            key=key,
            **self._key_parts,
            applicant=question[0],
            job=question[1],
            status=parsed.status,
            decision=parsed.decision,
            probability=parsed.probability,
            reason=parsed.reason,
            tokens=tokens,
            cost_usd=cost,
        )
        self._cache.put(answer)
        # The first answer that was kept counts, here and in every replay.
        kept = self._cache.get([key]).get(key, answer)
        said = ShortAnswer(kept.status, kept.decision, kept.probability, kept.reason)
        return Outcome(kept.status, said, tokens=kept.tokens, cost_usd=kept.cost_usd)


def _refusal(reason: str) -> Any:
    from jobrec_gym.simulators.answers import ParsedAnswer

    return ParsedAnswer("refusal", reason=reason[:200])
