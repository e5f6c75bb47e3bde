import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from jobrec_gym.simulators.arguments import Budget
from jobrec_gym.simulators.budget import BudgetReached, Ledger, Spending

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
