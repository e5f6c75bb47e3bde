import copy
import gc
import multiprocessing
import os
import pickle
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import jobrec_gym
from jobrec_gym.interactions import Interactions
from jobrec_gym.kept_pairs import KeptRows
from jobrec_gym.market import load_market
from jobrec_gym.sharing import Shared
from jobrec_gym.simulators import sqlite_cache
from jobrec_gym.simulators.asking import Outcome
from jobrec_gym.simulators.base import DECISIONS, Feedback
from jobrec_gym.simulators.cache import CachedAnswer, ShortAnswer, cache_key
from jobrec_gym.simulators.llm import LLMSimulator
from jobrec_gym.simulators.logged import LoggedSimulator
from jobrec_gym.simulators.memory import FeedbackMemory
from jobrec_gym.simulators.recorded import RecordedSimulator
from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.simulators.sqlite_cache import AnswerCache

pytestmark = pytest.mark.waits


class ByText(LLMSimulator):
    """Answers each pair by its own texts, and says them as the reason."""

    def __init__(self, model="openai/none", **options):
        super().__init__(model, **options)

    def ask(self, questions):
        said = []
        for applicant, job in questions:
            decision = DECISIONS[zlib.crc32(f"{applicant}|{job}".encode()) % 4]
            said.append(Outcome("ok", ShortAnswer("ok", decision, np.nan, f"{applicant}|{job}")))
        return said


@pytest.fixture
def restless():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def pairs_of(market, n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(len(market.applicants), size=n), rng.integers(len(market.jobs), size=n)


def in_threads(n, work):
    """What n threads return that begin at once."""
    barrier = threading.Barrier(n)

    def run(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))


def in_fork(work):
    """Whether work, in a forked process, returned something true and did not wait for ever."""
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(0 if work() else 1))
    process.start()
    process.join(3_600)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode == 0


# Threads.


def test_sixteen_threads_of_one_bound_simulator_each_get_their_own_pairs_answers(market, restless):
    n_jobs = len(market.jobs)
    everything = np.divmod(np.arange(len(market.applicants) * n_jobs), n_jobs)
    truth = ByText().bind(market).feedback(*everything).reason
    shared = ByText().bind(market)

    def ask(thread):
        wrong = 0
        for turn in range(15):
            applicants, jobs = pairs_of(market, 10, 100 * thread + turn)
            said = shared.feedback(applicants, jobs)
            wrong += int((said.reason != truth[applicants * n_jobs + jobs]).sum())
        return wrong

    assert sum(in_threads(16, ask)) == 0
    assert shared.usage.decisions == 16 * 15 * 10


@pytest.mark.parametrize("n_jobs", [2_000, 2_000_000], ids=["table", "dictionary"])
def test_sixteen_threads_of_one_memory_find_what_belongs_to_the_pair(n_jobs, restless):
    memory = FeedbackMemory(50, n_jobs)

    def remember(thread):
        rng, wrong = np.random.default_rng(thread), 0
        for _ in range(60):
            applicants, jobs = rng.integers(50, size=10), rng.integers(40, size=10)
            memory.add(applicants, jobs, Feedback.of(["save"] * 10, applicants * 1_000.0 + jobs))
            places = memory.find(applicants, jobs)
            wrong += int((memory.take(places).reward != applicants * 1_000.0 + jobs).sum())
        return wrong

    assert sum(in_threads(16, remember)) == 0
    everything = np.arange(50).repeat(40), np.tile(np.arange(40), 50)
    places = memory.find(*everything)
    assert len(memory) == (places >= 0).sum() == len(np.unique(places[places >= 0]))


def test_two_threads_calibrate_once(market):
    asked = []

    class Leaning(ByText):
        def ask(self, questions):
            asked.append(len(questions))
            leaning = [zlib.crc32(repr(each).encode()) / 2**32 for each in questions]
            return [Outcome("ok", ShortAnswer("ok", "", each, "")) for each in leaning]

    bound = Leaning(mode="probability").bind(market)
    cuts = in_threads(4, lambda thread: bound.thresholds)
    assert len(set(cuts)) == 1 and asked == [100]


# Forks.


def test_a_lock_that_another_thread_holds_is_open_in_a_forked_process():
    shared = Shared()
    with shared.lock:
        assert in_fork(lambda: shared.lock.acquire(timeout=0))
        assert not shared.lock.acquire(timeout=0)


def test_a_forked_process_goes_on_with_what_another_thread_was_changing(market):
    bound = ByText().bind(market)
    kept = KeptRows(lambda applicants, jobs: applicants * 1.0 + jobs, 4, 4)
    ids = np.array([1, 2]), np.array([3, 0])
    kept(*ids)
    with bound.lock, bound._memory.lock, bound.simulator._asker.lock, kept.lock:
        assert in_fork(lambda: bound.feedback(*ids).decision.all() and (kept(*ids) == [4, 2]).all())


def test_a_forked_process_leaves_the_answers_of_its_parent(market):
    held = [ByText()]
    held[0].cache.put(answer())
    place = Path(held[0].cache.path)
    child = os.fork()
    if child == 0:
        held.clear()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert place.is_file()
    held.clear()
    assert not place.parent.exists()


def answer():
    content = dict.fromkeys(("model", "api_base", "mode", "prompt", "persona", "sampling", "applicant", "job"), "")
    rest = {"status": "ok", "decision": "save", "probability": 0.5, "reason": "", "tokens": 1, "cost_usd": 0.0}
    return CachedAnswer(cache_key(**content), **content, **rest)


def test_a_fork_in_the_middle_of_another_threads_write_breaks_nothing(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    writes, forked = threading.Event(), threading.Event()

    def write():
        with cache.transaction() as connection:
            connection.execute("INSERT INTO claims VALUES ('a', 'b', 0.0)")
            writes.set()
            forked.wait(3_600)
        cache.close()

    thread = threading.Thread(target=write)
    thread.start()
    writes.wait(3_600)
    # What the other thread had open is neither used there nor closed, which would roll its transaction back.
    assert in_fork(lambda: cache.get([answer().key]) == {} and gc.collect() >= 0 and sqlite_cache._inherited)
    forked.set()
    thread.join()
    assert in_fork(lambda: cache.put(answer()) is None)
    assert cache.get([answer().key])
    assert cache._connection().execute("SELECT owner FROM claims WHERE key = 'a'").fetchall() == [("b",)]
    assert cache._connection().execute("PRAGMA integrity_check").fetchone() == ("ok",)
    cache.close()


def test_forked_processes_do_not_read_each_others_answers(market):
    pytest.importorskip("litellm", reason='needs the extra "llm"')
    from fake_llm import decides, serving

    def by_text(body, number):
        return decides("save", body["messages"][1]["content"][-60:])

    with serving(by_text) as fake:
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, calls={"concurrency": 1})

        def ask(name):
            said = simulator.judge([{"occupation": name}], [{"title": name}])
            return name in said.reason[0]

        assert ask("parent")
        context = multiprocessing.get_context("fork")
        begin = context.Barrier(4)

        def work(number):
            begin.wait()
            os._exit(0 if all(ask(f"child-{number}-{turn}") for turn in range(10)) else 1)

        children = [context.Process(target=work, args=(number,)) for number in range(3)]
        for child in children:
            child.start()
        begin.wait()
        assert all(ask(f"parent-{turn}") for turn in range(10))
        for child in children:
            child.join(3_600)
        assert [child.exitcode for child in children] == [0, 0, 0]
        assert len(set(fake.asked())) == fake.calls == 41


# Pickles.


def simulators(market):
    log = Interactions.of(market, [0, 0, 1], [3, 4, 5], [1.0, -0.1, 0.5])
    return [RuleSimulator(), RecordedSimulator(), LoggedSimulator(log), ByText()]


IDS = np.array([0, 0, 1, 0]), np.array([3, 4, 5, 3])


@pytest.mark.parametrize("which", range(4), ids=["rules", "recorded", "logged", "llm"])
def test_a_bound_simulator_goes_through_a_pickle_and_a_copy(which):
    market = load_market("recorded")
    bound = simulators(market)[which].bind(market)
    before = bound.feedback(*IDS)
    for other in (pickle.loads(pickle.dumps(bound)), copy.deepcopy(bound)):
        after = other.feedback(*IDS)
        assert (after.decision == before.decision).all() and (after.reward == before.reward).all()
        assert (after.reason == before.reason).all()


@pytest.mark.parametrize("which", range(4), ids=["rules", "recorded", "logged", "llm"])
@pytest.mark.parametrize("vector", [False, True], ids=["single", "vector"])
def test_an_environment_with_a_simulator_goes_through_a_pickle(which, vector):
    market = load_market("recorded")
    simulator = simulators(market)[which]
    if vector:
        bare = gym.make_vec("JobRec-v0", num_envs=2, vectorization_mode="vector_entry_point", market=market)
        env, action = jobrec_gym.VectorFeedbackReward(bare, simulator), np.array([0, 1])
    else:
        env, action = jobrec_gym.FeedbackReward(gym.make("JobRec-v0", market=market), simulator), 0
    other = pickle.loads(pickle.dumps(env))
    for each in (env, other):
        each.reset(seed=3)
    assert np.array_equal(env.step(action)[1], other.step(action)[1])


@pytest.mark.parametrize("n_jobs", [100, 2_000_000], ids=["table", "dictionary"])
def test_a_pickled_memory_holds_what_is_known_and_no_more(n_jobs):
    memory = FeedbackMemory(50, n_jobs)
    memory.add(np.array([1, 2]), np.array([3, 4]), Feedback.of(["save", "apply"], [0.5, 1.0], reason=["a", "b"]))
    data = pickle.dumps(memory)
    assert len(data) < 2_000
    other = pickle.loads(data)
    said = other.take(other.find(np.array([2, 1]), np.array([4, 3])))
    assert said.decision.tolist() == ["apply", "save"] and said.reason.tolist() == ["b", "a"]
    assert other.find(np.array([1]), np.array([4])).tolist() == [-1] and len(other) == 2


def test_a_pickled_bound_simulator_has_no_key_and_asks_nothing_again(market, monkeypatch):
    bound = ByText(api_key="sk-secret-1234").bind(market)
    first = bound.feedback(*IDS)
    data = pickle.dumps(bound)
    assert b"sk-secret" not in data and b"sk-secret" not in pickle.dumps(bound.simulator)
    monkeypatch.setattr(ByText, "ask", lambda self, questions: pytest.fail("asked again"))
    other = pickle.loads(data)
    assert (other.feedback(*IDS).reason == first.reason).all()
    assert other.usage.decisions == 4 and bound.usage.decisions == 4


def test_a_copy_of_a_simulator_keeps_the_key():
    simulator = ByText(api_key="sk-secret-1234")
    assert copy.deepcopy(simulator)._api_key == "sk-secret-1234"


def test_subproc_vec_env_by_spawn_takes_an_environment_with_any_simulator():
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env", reason='needs the extra "algo"')
    market = load_market("recorded")
    log = Interactions.of(market, np.repeat(np.arange(120), 40), np.tile(np.arange(40), 120), np.ones(4_800))
    unreachable = LLMSimulator("openai/none", api_base="http://127.0.0.1:9/v1", cache_mode="replay")
    ones = [
        jobrec_gym.FeedbackReward(gym.make("JobRec-v0", market=market), simulator)
        for simulator in (RuleSimulator(), RecordedSimulator(), LoggedSimulator(log), unreachable)
    ]
    envs = vec_env.SubprocVecEnv([partial(gym.wrappers.TimeAwareObservation, one) for one in ones], "spawn")
    try:
        envs.seed(5)
        envs.reset()
        _, rewards, _, infos = envs.step(np.array([2, 2, 2, 2]))
    finally:
        envs.close()
    expected = []
    for number, one in enumerate(ones):
        one.reset(seed=5 + number)
        expected.append(one.step(2)[1])
    assert rewards.tolist() == pytest.approx(expected)
    assert [info["feedback/status"] for info in infos] == ["ok", "ok", "ok", "not_recorded"]
