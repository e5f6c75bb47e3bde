"""Crowds: eight processes on one cache of answers, sixteen threads on one bound simulator."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_llm
import numpy as np
import redis_server

from jobrec_gym import LLMSimulator, load_market
from jobrec_gym.simulators.asking import Outcome
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.simulators.cache import ShortAnswer

ROOT = Path(__file__).parents[2]
N_PEOPLE, N_JOBS, CAP = 12, 30, 100
_MANY = 10_000  # for more answers than this the market has ten times as many applicants
_BUDGET = {"max_calls": CAP, "name": "capped", "on_reached": "cosine"}


def done(name: str, folder: Path, seed: int, n: int) -> list[dict[str, Any]]:
    """Runs one of them in a process of its own, which is then forked or threaded."""
    if name == "processes on Redis" and not redis_server.is_there():
        return [{"number": 0, "verdict": "skipped", "said": redis_server.REASON, "where": "", "edits": None}]
    code = "import sys; sys.path[:0] = sys.argv[1:3]; from robustness.together import tell; tell(*sys.argv[3:])"
    words = [str(ROOT), str(ROOT / "tests"), name, str(folder), str(seed), str(n)]
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, process_group=0)
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or ["no words"])[-1]
        return [{"number": 0, "verdict": "foreign", "said": said, "where": said[:60], "edits": None}]
    found: list[dict[str, Any]] = json.loads(ended.stdout.splitlines()[-1])
    return found


def tell(name: str, folder: str, seed: str, n: str) -> None:
    """What runs in that process: prints results."""
    if name == "threads":
        counts = threads(int(n), int(seed))
        faults = ["another pair's answer"] * counts["wrong"]
        results = [{"verdict": "read", "weight": counts["right"], "said": "", "where": ""}]
        results += (
            [{"verdict": "wrong", "weight": len(faults), "said": faults[0], "where": "threads"}] if faults else []
        )
    else:
        with _cache(name, Path(folder)) as cache:
            faults = processes(int(n), cache, int(seed))
        results = [{"verdict": "wrong", "said": fault, "where": fault[:30]} for fault in faults]
        results += [{"verdict": "read", "said": "", "where": ""}] * (int(n) - len(faults))
    print(json.dumps([{"number": number, "edits": None, **each} for number, each in enumerate(results)]))


@contextlib.contextmanager
def _cache(name: str, folder: Path) -> Iterator[str]:
    if name == "processes on Redis":
        with redis_server.serving_redis(folder) as server:
            yield server.address
    else:
        yield str(folder / "answers.sqlite")


def word_of(text: str) -> str:
    """What is decided on a question, always the same."""
    return DECISIONS[zlib.crc32(text.encode()) % 4]


def processes(n: int, cache: str, seed: int) -> list[str]:
    """Lets n processes ask all pairs of a market at once, then others under a cap; says what is not as it should be."""
    market = load_market("default", n_jobs=N_JOBS, n_applicants=N_PEOPLE)
    everything = np.divmod(np.arange(N_PEOPLE * N_JOBS), N_JOBS)
    context = multiprocessing.get_context("fork")
    faults = []

    def reply(body: dict[str, Any], number: int) -> fake_llm.Reply:
        return fake_llm.decides(word_of(body["messages"][1]["content"]), body["messages"][1]["content"][-40:])

    with fake_llm.serving(reply) as server:

        def simulator(**more: Any) -> LLMSimulator:
            calls = {"concurrency": 4, "timeout": 3_600.0, "batch_timeout": 36_000.0}
            return LLMSimulator("openai/fake", api_base=server.api_base, cache=cache, calls=calls, **more)

        def ask(number: int, queue: Any, **more: Any) -> None:
            said: dict[int, tuple[str, str]] = {}
            try:
                order = np.random.default_rng([seed, number]).permutation(len(everything[0]))
                bound = simulator(**more).bind(market)
                for start in range(0, len(order), 20):
                    rows = order[start : start + 20]
                    feedback = bound.feedback(everything[0][rows], everything[1][rows])
                    words = zip(feedback.decision.tolist(), feedback.status.tolist(), strict=True)
                    said |= dict(zip(rows.tolist(), words, strict=True))
            finally:
                queue.put(said)

        simulator().judge([{"occupation": "cook"}], [{"title": "chef"}])  # imports what takes long, once
        for stage, more in (("all", {}), ("a cap", {"persona": "busy", "budget": _BUDGET})):
            before = server.calls
            queue = context.Queue()
            children = [context.Process(target=ask, args=(number, queue), kwargs=more) for number in range(n)]
            for child in children:
                child.start()
            told = [queue.get(timeout=3_600) for _ in children]
            for child in children:
                child.join()
            asked = Counter(server.asked()[before:])
            faults += _faults(stage, told, asked, [child.exitcode for child in children])
    return faults


def _faults(stage: str, told: Sequence[dict[int, Any]], asked: Counter[str], codes: Sequence[int | None]) -> list[str]:
    faults = []
    if any(codes):
        faults.append(f"{stage}: processes end with {codes}")
    if max(asked.values(), default=0) > 1:
        faults.append(f"{stage}: {sum(asked.values()) - len(asked)} questions are asked again")
    answered = [{row: decision for row, (decision, status) in each.items() if status == "ok"} for each in told]
    known = {row: decision for each in answered for row, decision in each.items()}
    if any(each[row] != known[row] for each in answered for row in each):
        faults.append(f"{stage}: two processes are told unlike answers to one question")
    if Counter(known.values()) != Counter(map(word_of, asked)):
        faults.append(f"{stage}: what is told is not what the server said")
    wanted = CAP if stage == "a cap" else N_PEOPLE * N_JOBS
    if len(asked) != wanted or len(known) != wanted:
        faults.append(f"{stage}: {len(asked)} questions asked and {len(known)} answered, expected {wanted}")
    return faults


class ByText(LLMSimulator):
    """Answers each pair by its own texts, without a server."""

    def ask(self, questions: Any) -> list[Outcome]:
        """What a server would say."""
        return [
            Outcome("ok", ShortAnswer("ok", word_of(f"{applicant}|{job}"), np.nan, f"{applicant}|{job}"))
            for applicant, job in questions
        ]


def threads(n: int, seed: int) -> dict[str, int]:
    """Lets 16 threads ask one bound simulator for n answers in all; counts those that are of the pair."""
    sys.setswitchinterval(1e-5)
    size = 10 if n > _MANY else 1
    market = load_market("default", n_jobs=N_JOBS, n_applicants=N_PEOPLE * size)
    n_jobs = len(market.jobs)
    everything = np.divmod(np.arange(len(market.applicants) * n_jobs), n_jobs)
    truth = ByText("openai/none").bind(market).feedback(*everything).reason
    shared = ByText("openai/none").bind(market)

    def ask(thread: int) -> tuple[int, int]:
        rng, right, wrong = np.random.default_rng([seed, thread]), 0, 0
        while right + wrong < n // 16:
            left = min(10, n // 16 - right - wrong)
            applicants, jobs = rng.integers(len(market.applicants), size=left), rng.integers(n_jobs, size=left)
            same = shared.feedback(applicants, jobs).reason == truth[applicants * n_jobs + jobs]
            right, wrong = right + int(same.sum()), wrong + int((~same).sum())
        return right, wrong

    with ThreadPoolExecutor(16) as pool:
        counts = list(pool.map(ask, range(16)))
    return {"right": sum(right for right, _ in counts), "wrong": sum(wrong for _, wrong in counts)}
