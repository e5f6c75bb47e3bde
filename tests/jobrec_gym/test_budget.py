import pickle
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from jobrec_gym.simulators.arguments import Budget
from jobrec_gym.simulators.budget import BudgetReached, Ledger, Spending
from jobrec_gym.simulators.cache import CapReached
from jobrec_gym.simulators.sqlite_cache import AnswerCache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


def test_without_caps_it_only_counts(path):
    ledger = Ledger(path)
    for _ in range(3):
        ledger.settle(ledger.reserve(tokens=500, cost_usd=1.0), tokens=100, cost_usd=0.25)
    assert ledger.spent == Spending(3, 300, 0.75)


@pytest.mark.parametrize(
    ("caps", "limit", "argument"),
    [
        ({"budget": Budget(max_calls=2)}, "calls", "budget.max_calls"),
        ({"budget": Budget(max_tokens=299)}, "tokens", "budget.max_tokens"),
        ({"max_usd": 0.29}, "usd", "max_usd"),
    ],
)
def test_a_call_that_could_pass_a_cap_is_not_reserved(path, caps, limit, argument):
    ledger = Ledger(path, **caps)
    for _ in range(2):
        ledger.settle(ledger.reserve(tokens=100, cost_usd=0.1), tokens=100, cost_usd=0.1)
    with pytest.raises(
        BudgetReached, match=rf"budget of .* {limit} is reached: 2 calls, 200 tokens.*`{argument}`"
    ) as caught:
        ledger.reserve(tokens=100, cost_usd=0.1)
    assert (caught.value.limit, caught.value.spent.calls) == (limit, 2)
    assert ledger.spent.calls == 2


def test_a_cap_may_be_met_exactly(path):
    ledger = Ledger(path, Budget(max_tokens=100))
    ledger.reserve(tokens=100, cost_usd=0.0)


def test_a_cache_says_what_was_spent_under_each_name(path):
    assert AnswerCache(path).budgets() == []
    for name in ("b", "a"):
        ledger = Ledger(path, Budget(name=name))
        ledger.settle(ledger.reserve(tokens=80, cost_usd=1.0), tokens=30, cost_usd=0.25)
    for cost in (0.5, 1.0):
        Ledger(path, Budget(name="a")).reserve(tokens=80, cost_usd=cost)
    other = Ledger(path, Budget(name="nothing"))
    other.cancel(other.reserve(tokens=80, cost_usd=1.0))
    assert AnswerCache(path).budgets() == [
        {"budget": "a", "calls": 3, "tokens": 190, "cost_usd": 1.75, "open_calls": 2},
        {"budget": "b", "calls": 1, "tokens": 30, "cost_usd": 0.25, "open_calls": 0},
    ]


def test_an_open_reservation_counts_at_its_bound_and_a_cancelled_one_not(path):
    ledger = Ledger(path, Budget(max_tokens=100))
    first = ledger.reserve(tokens=80, cost_usd=0.0)
    with pytest.raises(BudgetReached):
        Ledger(path, Budget(max_tokens=100)).reserve(tokens=30, cost_usd=0.0)
    ledger.cancel(first)
    assert ledger.spent == Spending()
    ledger.reserve(tokens=30, cost_usd=0.0)


def test_a_reservation_is_settled_once(path):
    ledger = Ledger(path)
    first = ledger.reserve(tokens=1, cost_usd=0.0)
    ledger.settle(first, tokens=1, cost_usd=0.0)
    for verb in (lambda: ledger.settle(first, tokens=9, cost_usd=0.0), lambda: ledger.cancel(first)):
        with pytest.raises(ValueError, match="`reservation` 1 is not open"):
            verb()
    assert ledger.spent.tokens == 1


def test_ledgers_of_other_names_do_not_count_together(path):
    Ledger(path, Budget(name="a")).reserve(tokens=1, cost_usd=0.0)
    assert Ledger(path, Budget(name="b")).spent == Spending()


def require_exact_caps(cache, name):
    """Checks that each cap lets through what just fits, and nothing more."""
    spent = cache.spent(name)
    for limit, used, bound in zip(("calls", "tokens", "usd"), spent, (1, 10, 0.25), strict=True):
        refused = cache.reserve(name, {limit: used + bound - 0.125}, tokens=10, cost_usd=0.25, seconds=60)
        assert isinstance(refused, CapReached) and (refused.limit, refused.spent) == (limit, spent)
        made = cache.reserve(name, {limit: used + bound}, tokens=10, cost_usd=0.25, seconds=60)
        assert cache.cancel(made)


def test_caps_count_what_others_reserve_settle_and_cancel_meanwhile(path):
    draw, caches, open_ = random.Random(0), [AnswerCache(path) for _ in range(3)], []
    for step in range(400):
        verb = draw.choice(["reserve", "reserve", "settle", "cancel"])
        cache = draw.choice(caches)
        if verb == "reserve" or not open_:
            # Some processes die: what they have reserved stays open, or another one settles it much later.
            seconds = draw.choice([-1, 600])
            open_.append(cache.reserve(draw.choice("ab"), {}, tokens=draw.randrange(99), cost_usd=0.5, seconds=seconds))
            continue
        # More often than not it is the latest reservation: its number is then free for another.
        reservation = open_.pop(draw.choice([-1, -1, draw.randrange(len(open_))]))
        done = cache.cancel(reservation) if verb == "cancel" else cache.settle(reservation, tokens=200, cost_usd=0.75)
        assert done
        if step % 3 == 0:
            require_exact_caps(draw.choice(caches), draw.choice("ab"))
    for cache in caches:
        for name in "ab":
            require_exact_caps(cache, name)


def change(path, statement, rows=((),)):
    """Changes a file of answers by hand, as no cache does."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(statement, rows)


def settled(cache, name, tokens):
    reservation = cache.reserve(name, {"calls": 10**6}, tokens=10, cost_usd=0.0, seconds=60)
    assert cache.settle(reservation, tokens=tokens, cost_usd=0.0)


@pytest.mark.parametrize("which", ["1", "id % 2", "id = (SELECT MAX(id) FROM calls)", "id = 1"])
def test_calls_that_were_removed_by_hand_no_longer_count(path, which):
    cache, other = AnswerCache(path), AnswerCache(path)
    for _ in range(8):
        settled(cache, "a", 5)
    require_exact_caps(cache, "a")
    change(path, f"DELETE FROM calls WHERE budget = 'a' AND {which}")
    require_exact_caps(cache, "a")
    for _ in range(8):  # they get the numbers of removed calls
        settled(other, "a", 7)
    require_exact_caps(cache, "a")


def test_the_numbers_of_removed_calls_may_go_to_dearer_ones(path):
    cache, other = AnswerCache(path), AnswerCache(path)
    for _ in range(8):
        settled(cache, "a", 5)
    require_exact_caps(cache, "a")
    change(path, "DELETE FROM calls")
    for _ in range(12):
        settled(other, "a", 500)
    require_exact_caps(cache, "a")


def test_calls_that_were_added_from_another_file_count(path):
    cache = AnswerCache(path)
    for name in "aab":
        settled(cache, name, 5)
    require_exact_caps(cache, "a")
    insert = "INSERT INTO calls (budget, tokens, cost_usd, settled, until) VALUES ('a', ?, 0.25, ?, 0)"
    change(path, insert, [(40, 1), (30, 0), (20, 1)])
    require_exact_caps(cache, "a")


def test_a_reservation_takes_as_many_steps_in_a_long_record_as_in_a_short_one(path):
    cache = AnswerCache(path)
    insert = "INSERT INTO calls (budget, tokens, cost_usd, settled, until) VALUES ('a', 5, 0.25, ?, 0)"

    def steps():
        settled(cache, "a", 5)
        counted = []
        with cache.transaction() as connection:
            connection.set_progress_handler(lambda: counted.append(1), 1)
        settled(cache, "a", 5)
        connection.set_progress_handler(None, 1)
        return len(counted)

    short = steps()
    change(path, insert, [(1,)] * 5_000)
    assert steps() < short + 50


@pytest.mark.waits
def test_a_cap_holds_across_two_processes(path):
    code = """
import sys
from jobrec_gym.simulators.arguments import Budget
from jobrec_gym.simulators.budget import BudgetReached, Ledger
ledger, made = Ledger(sys.argv[1], Budget(max_calls=25)), 0
try:
    while True:
        ledger.reserve(tokens=1, cost_usd=0.0)
        made += 1
except BudgetReached:
    print(made)
"""
    command = [sys.executable, "-c", code, str(path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sum(int(process.communicate()[0]) for process in processes) == 25


def test_a_negative_cap_is_refused(path):
    with pytest.raises(ValueError, match="`max_usd` must be a finite number of at least 0"):
        Ledger(path, max_usd=-1.0)


def test_the_error_reaches_another_process_whole():
    error = pickle.loads(pickle.dumps(BudgetReached("calls", 3, Spending(3, 5, 0.1))))
    assert (error.limit, error.cap, error.spent) == ("calls", 3, Spending(3, 5, 0.1))


def test_nothing_is_said_to_be_kept_that_ends_with_the_process(path):
    for is_kept, said in ((True, "is kept; raise `budget.max_calls`"), (False, "Give `cache` a file")):
        with pytest.raises(BudgetReached, match=said) as caught:
            Ledger(path, Budget(max_calls=0), is_kept=is_kept).reserve(tokens=1, cost_usd=0.0)
        again = pickle.loads(pickle.dumps(caught.value))
        assert str(again) == str(caught.value)
        assert is_kept == ("What was answered is kept" in str(again))
