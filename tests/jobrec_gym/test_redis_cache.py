import json
import math
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis_server

if not redis_server.is_there():
    pytest.skip(redis_server.REASON, allow_module_level=True)
import redis

from jobrec_gym.simulators import redis_cache
from jobrec_gym.simulators.arguments import Budget
from jobrec_gym.simulators.budget import BudgetReached, Ledger, Spending
from jobrec_gym.simulators.cache import CachedAnswer, CacheUnusable, cache_key
from jobrec_gym.simulators.llm import LLMSimulator
from jobrec_gym.simulators.redis_cache import RedisAnswerCache, redis_place
from jobrec_gym.simulators.sqlite_cache import AnswerCache
from jobrec_gym.simulators.stores import cache_place, open_cache

pytestmark = pytest.mark.waits

ROOT = Path(__file__).parents[2]


def answer(job="cook", **changes):
    names = ("model", "api_base", "mode", "prompt", "persona", "sampling", "applicant")
    content = dict.fromkeys(names, "") | {"model": "openai/a", "mode": "decision", "job": job}
    rest = {"status": "ok", "decision": "save", "probability": 0.25, "reason": "é", "tokens": 300, "cost_usd": 0.5}
    return CachedAnswer(cache_key(**content), **content, **(rest | changes))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server.serving_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def address(server):
    redis.Redis.from_url(server.address).flushall()
    return server.address


@pytest.fixture(params=["file", "server"])
def where(request, tmp_path):
    """Either cache: what follows holds of both."""
    return str(tmp_path / "a.sqlite") if request.param == "file" else request.getfixturevalue("address")


@pytest.fixture
def store(where):
    store = open_cache(where)
    yield store
    store.close()


# What holds of both.


def test_answers_come_back_as_they_were_put_and_the_first_stays(store):
    first, second = answer(), answer("nurse", probability=math.nan, status="refusal", decision="")
    store.put(first)
    store.put(replace(first, decision="ignore"))
    assert store.put_all([first, second]) == 1
    found = store.get([second.key, "unknown", first.key, first.key])
    assert found.keys() == {first.key, second.key} and found[first.key] == first
    assert math.isnan(found[second.key].probability)
    assert store.in_short([first.key])[first.key] == ("ok", "save", 0.25, "é")
    columns = store.columns_in_short([second.key, first.key, second.key])
    assert columns == (("refusal", "ok", "refusal"), ("", "save", ""), (None, 0.25, None), ("é",) * 3)
    assert store.columns_in_short([first.key, "unknown"]) is None
    assert [each.key for each in store.answers()] == sorted([first.key, second.key])


def test_a_key_is_claimed_once_until_it_is_answered_released_or_lapsed(store):
    first = answer()
    assert store.claim([first.key, first.key], "a", 600) == {first.key}
    assert store.claim([first.key], "a", 600) == {first.key}
    assert store.claim([first.key], "b", 600) == set()
    store.release([first.key], "b")
    assert store.claim([first.key], "b", 600) == set()
    store.release([first.key], "a")
    assert store.claim([first.key], "b", 0) == {first.key}
    assert store.claim([first.key], "c", 600) == {first.key}
    store.put(first)
    assert store.claim([first.key], "c", 600) == set()


def test_a_cap_holds_and_an_open_reservation_counts_at_its_bound(where):
    ledger = Ledger(where, Budget(max_tokens=100), max_usd=0.3)
    first = ledger.reserve(tokens=60, cost_usd=0.1)
    with pytest.raises(BudgetReached, match="1 calls, 60 tokens") as caught:
        ledger.reserve(tokens=60, cost_usd=0.1)
    assert caught.value.pending and caught.value.limit == "tokens"
    ledger.settle(first, tokens=10, cost_usd=0.05)
    second = ledger.reserve(tokens=90, cost_usd=0.25)  # a cap may be met exactly
    assert ledger.spent == Spending(2, 100, pytest.approx(0.3, abs=1e-12))
    ledger.cancel(second)
    assert ledger.spent == Spending(1, 10, 0.05)
    for verb in (lambda: ledger.settle(first, tokens=9, cost_usd=0.0), lambda: ledger.cancel(second)):
        with pytest.raises(ValueError, match="is not open"):
            verb()
    assert Ledger(where, Budget(name="other")).spent == Spending()


def test_each_budget_is_listed_with_what_was_spent(where, store):
    assert store.budgets() == []
    for name in ("b", "a: *", ""):
        ledger = Ledger(where, Budget(name=name or "gone"))
        made = ledger.reserve(tokens=80, cost_usd=1.0)
        if name:
            ledger.settle(made, tokens=30, cost_usd=0.25)
        else:
            ledger.cancel(made)
    Ledger(where, Budget(name="b")).reserve(tokens=80, cost_usd=0.5)
    assert store.budgets() == [
        {"budget": "a: *", "calls": 1, "tokens": 30, "cost_usd": 0.25, "open_calls": 0},
        {"budget": "b", "calls": 2, "tokens": 110, "cost_usd": 0.75, "open_calls": 1},
    ]


def test_a_dead_reservation_counts_for_good_and_is_not_waited_for(where):
    ledger = Ledger(where, Budget(max_calls=2, max_tokens=100))
    ledger.reserve(tokens=80, cost_usd=0.0, seconds=0.001)
    time.sleep(0.05)  # longer than the reservation's time, however slow the machine
    with pytest.raises(BudgetReached) as caught:
        ledger.reserve(tokens=30, cost_usd=0.0)
    assert not caught.value.pending and caught.value.spent.tokens == 80


def test_a_cap_in_calls_is_used_up_exactly_by_threads(where):
    ledger = Ledger(where, Budget(max_calls=25))

    def spend(thread):
        made = 0
        while True:
            try:
                ledger.settle(ledger.reserve(tokens=1, cost_usd=0.0), tokens=1, cost_usd=0.0)
                made += 1
            except BudgetReached:
                return made

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) == 25
    assert ledger.spent.calls == 25


def test_the_summary_and_what_is_exported_are_the_same(store, tmp_path):
    store.put(answer())
    store.put(answer("b", status="refusal", decision="", tokens=100, cost_usd=0.25))
    (entry,) = store.summary()
    assert (entry["answers"], entry["by_status"], entry["tokens"], entry["cost_usd"]) == (
        2,
        {"ok": 1, "refusal": 1},
        400,
        0.75,
    )
    assert store.export(tmp_path / "a.jsonl") == 2
    other = AnswerCache(tmp_path / "other.sqlite")
    assert other.import_(tmp_path / "a.jsonl") == 2 and list(other.answers()) == list(store.answers())
    assert store.import_(tmp_path / "a.jsonl") == 0
    other.close()


def test_a_copy_and_a_forked_process_use_connections_of_their_own(store):
    store.put(answer())
    copy = pickle.loads(pickle.dumps(store))
    assert copy.get([answer().key]) == {answer().key: answer()}
    copy.close()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [
        context.Process(target=lambda n=n: queue.put(sum(len(store.get([answer().key])) for _ in range(50))))
        for n in range(3)
    ]
    for child in children:
        child.start()
    assert sum(len(store.get([answer().key])) for _ in range(50)) == 50
    assert [queue.get() for _ in children] == [50] * 3
    for child in children:
        child.join()


# Of the server only.


def test_a_damaged_entry_is_a_miss_and_is_asked_again(address):
    store = open_cache(address)
    store.put(answer())
    text = store._client.hget(redis_cache._ANSWERS, answer().key)
    for broken in (text.replace("save", "sawe"), text.replace("cook", "coot"), "no json", "[]"):
        store._client.hset(redis_cache._ANSWERS, answer().key, broken)
        assert store.get([answer().key]) == {} and store.columns_in_short([answer().key]) is None
        assert store.claim([answer().key], "me", 600) == {answer().key}
        store.put(answer())
        assert store.get([answer().key]) == {answer().key: answer()}


def test_claims_expire_by_the_servers_clock(address, monkeypatch):
    store = open_cache(address)
    assert store.claim([answer().key], "a", 600) == {answer().key}
    monkeypatch.setattr(time, "time", lambda: 1e12)  # this machine's clock is wrong by far
    assert store.claim([answer().key], "b", 600) == set()
    assert 0 < store._client.pttl(redis_cache._CLAIMS + answer().key) <= 600_000
    ledger = Ledger(address, Budget(max_tokens=10))
    ledger.reserve(tokens=10, cost_usd=0.0, seconds=600)
    with pytest.raises(BudgetReached) as caught:
        ledger.reserve(tokens=5, cost_usd=0.0)
    assert caught.value.pending


@pytest.mark.parametrize(
    "where",
    [
        "redis://host:6379/zero",
        "redis:///0",
        "http://host:6379/0",
        "redis://host:port/0",
        "redis://host:6379/0?password=x",
        "redis://:secret@host:6379/0",
        "redis://me@host:6379/0",
    ],
)
def test_another_address_is_refused_and_a_password_not_repeated(where):
    with pytest.raises(
        ValueError, match="`cache` must be a file, or redis://HOST:6379/0|JOBREC_REDIS_PASSWORD"
    ) as caught:
        cache_place(where)
    assert "secret" not in str(caught.value)


def test_an_address_has_one_form():
    assert {redis_place(each) for each in ("redis://h", "redis://h/", "redis://h:6379", "redis://h:6379/0/")} == {
        "redis://h:6379/0"
    }
    assert cache_place("rediss://[::1]:1/2") == "rediss://[::1]:1/2"


def test_a_server_that_throws_entries_away_is_refused(tmp_path):
    forgets = ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    refused = pytest.raises(ValueError, match="allkeys-lru.*`maxmemory-policy noeviction`")
    with redis_server.serving_redis(tmp_path, *forgets) as server, refused:
        open_cache(server.address)


@pytest.mark.parametrize(
    ("options", "how"),
    [(["--appendfsync", "everysec"], "everysec"), (["--appendonly", "no"], "no append-only file")],
)
def test_less_than_full_durability_is_warned_of_once(tmp_path, caplog, options, how):
    with redis_server.serving_redis(tmp_path, *options) as server:
        for _ in range(2):
            open_cache(server.address).close()
    assert caplog.text.count("may lose its last answers") == 1 and how in caplog.text


def test_full_durability_is_not_warned_of(address, caplog):
    open_cache(address).close()
    assert caplog.text == ""


def test_a_full_server_says_so(tmp_path):
    with redis_server.serving_redis(tmp_path, "--maxmemory", "2mb") as server:
        store = open_cache(server.address)
        with pytest.raises(CacheUnusable, match="maxmemory.*give it more memory"):
            for number in range(1_000):
                store.put(answer(f"{number}" * 3_000))


def test_the_password_is_of_the_environment(tmp_path, monkeypatch, capfd):
    password = "q7Zp3Lw9Xk2Vt8Rb5Nc1"
    with redis_server.serving_redis(tmp_path, "--requirepass", password) as server:
        for wrong in (None, "another-password"):
            if wrong is not None:
                monkeypatch.setenv("JOBREC_REDIS_PASSWORD", wrong)
            with pytest.raises(CacheUnusable, match="set JOBREC_REDIS_PASSWORD"):
                open_cache(server.address)
        monkeypatch.setenv("JOBREC_REDIS_PASSWORD", password)
        made = LLMSimulator("openai/x", cache=server.address)
        made.cache.put(answer())
        told = (
            repr(made.cache.path) + json.dumps(made.to_spec()) + repr(pickle.dumps(made)) + "".join(capfd.readouterr())
        )
        assert password not in told
        assert pickle.loads(pickle.dumps(made)).cache.get([answer().key])


def test_another_version_is_refused_with_what_wrote_it(address):
    client = redis.Redis.from_url(address, decode_responses=True)
    open_cache(address).close()
    assert client.get(redis_cache._name("written_by")).startswith("jobrec-gym")
    client.mset({redis_cache._name("version"): "99", redis_cache._name("written_by"): "jobrec-gym 9"})
    with pytest.raises(ValueError, match=r"another version of the cache \(99, jobrec-gym 9; this one is 1, jobrec-gym"):
        open_cache(address)
    client.delete(redis_cache._name("written_by"))
    with pytest.raises(ValueError, match=r"another version of the cache \(99; this one is 1"):
        open_cache(address)


def test_an_answer_says_its_version_and_one_of_another_is_neither_taken_nor_thrown_away(address):
    store = open_cache(address)
    store.put(answer())
    text = store._client.hget(redis_cache._ANSWERS, answer().key)
    assert json.loads(text)["version"] == "1"
    newer = text.replace('"version": "1"', '"version": "2"')
    store._client.hset(redis_cache._ANSWERS, answer().key, newer)
    for use in (lambda: store.get([answer().key]), lambda: store.claim([answer().key], "me", 600)):
        with pytest.raises(ValueError, match=r"an answer of version 2 of the cache, this one .* export it"):
            use()
    assert store._client.hget(redis_cache._ANSWERS, answer().key) == newer


def test_an_answer_of_a_release_that_did_not_say_its_version_is_read(address):
    store = open_cache(address)
    store.put(answer())
    said = json.loads(store._client.hget(redis_cache._ANSWERS, answer().key))
    del said["version"]
    store._client.hset(redis_cache._ANSWERS, answer().key, json.dumps(said))
    assert store.get([answer().key]) == {answer().key: answer()}


def test_a_server_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(redis_cache, "_PATIENCE", 0.2)
    with pytest.raises(CacheUnusable, match=r"redis://127\.0\.0\.1:1/0 cannot be used .*start it"):
        open_cache("redis://127.0.0.1:1")


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r'pip install -e ".+\[redis\]"'):
        open_cache("redis://127.0.0.1:1")


def test_a_request_that_is_said_again_counts_once(address):
    """A client that lost the reply cannot know whether its script ran."""
    store = RedisAnswerCache(address)

    def twice(source, keys, values, run=store._run):
        run(source, keys, values)
        return run(source, keys, values)

    store._run = twice
    ledger = Ledger(store)
    first = ledger.reserve(tokens=5, cost_usd=0.25)
    assert ledger.spent == Spending(1, 5, 0.25)
    ledger.settle(first, tokens=3, cost_usd=0.125)
    assert ledger.spent == Spending(1, 3, 0.125)
    ledger.cancel(ledger.reserve(tokens=5, cost_usd=0.25))
    assert ledger.spent == Spending(1, 3, 0.125)
    assert store.claim([answer().key], "a", 600) == {answer().key}


def test_a_server_killed_twice_loses_nothing_and_is_waited_for(tmp_path):
    with redis_server.serving_redis(tmp_path) as server:
        store, ledger = open_cache(server.address), Ledger(server.address, Budget(max_calls=300))

        def work(thread):
            put = []
            for number in range(75):
                key = answer(f"{thread}-{number}")
                assert store.claim([key.key], str(thread), 600)
                reservation = ledger.reserve(tokens=1, cost_usd=0.001)
                ledger.settle(reservation, tokens=1, cost_usd=0.001)
                store.put(key)
                put.append(key.key)
                progress.release()
            return put

        progress = threading.Semaphore(0)
        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(work, thread) for thread in range(4)]
            for _ in range(2):
                for _ in range(60):
                    progress.acquire()
                server.kill()
                server.start()
            put = [key for each in working for key in each.result()]
        assert len(put) == 300 and set(store.get(put)) == set(put)
        assert ledger.spent == Spending(300, 300, pytest.approx(0.3, abs=1e-9))
        with pytest.raises(BudgetReached):
            ledger.reserve(tokens=1, cost_usd=0.0)


def test_eight_processes_share_the_work_and_the_cap(address):
    code = """
import sys
from jobrec_gym.simulators.arguments import Budget
from jobrec_gym.simulators.budget import BudgetReached, Ledger
from jobrec_gym.simulators.cache import CachedAnswer, cache_key
from jobrec_gym.simulators.stores import open_cache
store, owner = open_cache(sys.argv[1]), sys.argv[2]
ledger = Ledger(store, Budget(max_calls=50))
content = dict(model="m", api_base="", mode="d", prompt="p", persona="", sampling="", applicant="")
claimed = 0
try:
    for number in range(60):
        key = cache_key(**content, job=str(number))
        if store.claim([key], owner, 600):
            ledger.settle(ledger.reserve(tokens=1, cost_usd=0.0), tokens=1, cost_usd=0.0)
            claimed += 1
            store.put(CachedAnswer(key, **content, job=str(number), status="ok", decision="save", probability=0.5,
                                   reason=owner, tokens=1, cost_usd=0.0))
except BudgetReached:
    pass
print(claimed)
"""
    command = [sys.executable, "-c", code, address]
    processes = [
        subprocess.Popen([*command, str(owner)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for owner in range(8)
    ]
    claimed = [int(process.communicate()[0]) for process in processes]
    store = open_cache(address)
    assert sum(claimed) == 50 == store.summary()[0]["answers"] == Ledger(store).spent.calls


def test_simulators_of_two_machines_ask_each_pair_once(address, market):
    pytest.importorskip("litellm", reason='needs the extra "llm"')
    from fake_llm import decides, serving

    ids = np.arange(12) % 4, np.arange(12) // 4
    with serving(decides("save")) as fake:
        options = {
            "api_base": fake.api_base,
            "cache": address,
            "calls": {"timeout": 3_600.0, "batch_timeout": 36_000.0},
        }
        one, two = (LLMSimulator("openai/fake", **options).bind(market) for _ in range(2))
        with ThreadPoolExecutor(2) as pool:
            said = list(pool.map(lambda each: each.feedback(*ids), (one, two)))
        assert all((each.decision == "save").all() for each in said)
        assert len(set(fake.asked())) == fake.calls == 12 == one.simulator.spent.calls
        strict = LLMSimulator("openai/fake", **options | {"cache_mode": "replay_strict"}).bind(market)
        assert (strict.feedback(*ids).decision == "save").all() and fake.calls == 12
