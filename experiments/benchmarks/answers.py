"""Speed of computing rewards from decisions that are known already."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from experiments.benchmarks.rows import Row, seconds_per_call
from jobrec_gym import FeedbackRewardModel, LLMSimulator, RecordedSimulator, load_market
from jobrec_gym.market import LabourMarket
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.simulators.cache import CachedAnswer
from jobrec_gym.simulators.prompts import applicant_document, encode_document, job_document
from jobrec_gym.simulators.sqlite_cache import AnswerCache

__all__ = ["answer_rows"]

BATCH = 256
FRESH = 5


def answer_rows(seconds: float) -> Iterator[Row]:
    """Measures rewards of the recorded market's pairs in batches of 256, from three sources of decisions.

    The sources are a cache file, decisions that the process has already read, and the shipped recording. The figure for
    the file is the median over some new simulators, each of which must also encode the documents of all applicants and
    jobs.
    """
    market = load_market("recorded")
    n_jobs = len(market.jobs)
    pairs = np.random.default_rng(0).permutation(len(market.applicants) * n_jobs)
    batches = [pairs[start : start + BATCH] for start in range(0, len(pairs) - BATCH + 1, BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "answers.sqlite"
        fresh = partial(LLMSimulator, "openai/known", cache=cache, cache_mode="replay_strict", api_key="none")
        _fill(fresh(), cache, market)
        times = []
        for _ in range(FRESH):
            model = FeedbackRewardModel(fresh().bind(market), market)
            begin = time.perf_counter()
            _pay(model, batches, n_jobs)
            times.append(time.perf_counter() - begin)
        first = len(batches) * BATCH / statistics.median(times)
        again = len(batches) * BATCH / seconds_per_call(partial(_pay, model, batches, n_jobs), seconds=seconds)
    recorded = FeedbackRewardModel(RecordedSimulator().bind(market), market)
    shipped = len(batches) * BATCH / seconds_per_call(partial(_pay, recorded, batches, n_jobs), seconds=seconds)
    limit = "answering every pair once, in batches of 256"
    yield Row("rewards from a cache file, each for the first time", first, "a second", limit, 100_000.0)
    yield Row("rewards of decisions that the process knows", again, "a second", limit, 100_000.0)
    yield Row("rewards of the shipped recording", shipped, "a second", limit)


def _pay(model: FeedbackRewardModel, batches: list[np.ndarray], n_jobs: int) -> None:
    for batch in batches:
        model(batch // n_jobs, batch % n_jobs, np.zeros(len(batch), np.uint64))


def _fill(simulator: LLMSimulator, path: Path, market: LabourMarket) -> None:
    """Fill a cache with an answer to every pair, as if a model had given it."""
    applicants = [applicant_document(market.applicant(row)) for row in range(len(market.applicants))]
    jobs = [job_document(market.job(row)) for row in range(len(market.jobs))]
    cache = AnswerCache(path)
    for number, (applicant, job) in enumerate(product(applicants, jobs)):
        cache.put(
            CachedAnswer(
                key=simulator.key(applicant, job),
                model=simulator.model,
                api_base="",
                mode=simulator.mode,
                prompt=simulator.prompt_version,
                persona=simulator.persona,
                sampling="",
                applicant=encode_document(applicant),
                job=encode_document(job),
                status="ok",
                decision=DECISIONS[number % len(DECISIONS)],
                probability=float("nan"),
                reason="",
                tokens=0,
                cost_usd=0.0,
            )
        )
