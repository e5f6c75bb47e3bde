import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from jobrec_gym.simulators.arguments import Budget
from jobrec_gym.simulators.budget import Ledger
from jobrec_gym.simulators.cache import CachedAnswer, cache_key
from jobrec_gym.simulators.sqlite_cache import AnswerCache


def test_it_prints_what_is_in_a_cache_and_moves_answers(tmp_path):
    content = {"model": "openai/a", "api_base": "", "mode": "decision", "prompt": "decision-v1"}
    content |= {"persona": "busy", "sampling": "{}", "applicant": "{}", "job": "{}"}
    rest = {"status": "ok", "decision": "save", "probability": 0.5, "reason": "", "tokens": 321, "cost_usd": 0.125}
    cache = AnswerCache(tmp_path / "a.sqlite")
    cache.put(CachedAnswer(cache_key(**content), **content, **rest))
    cache.close()

    done = run_command("llm.cache", f"path={tmp_path}/a.sqlite", f"export_to={tmp_path}/a.jsonl")
    assert "1 answers to" in done.stdout
    cells = ["openai/a", "decision", "decision-v1", "busy", "1", "1", "321", "0.1250"]
    assert cells in [line.split() for line in done.stdout.splitlines()]
    assert done.stdout.endswith("\nno calls yet\n")
    done = run_command("llm.cache", f"path={tmp_path}/b.sqlite", f"import_from={tmp_path}/a.jsonl")
    assert "1 new answers from" in done.stdout
    done = run_command("llm.cache", f"path={tmp_path}/b.sqlite", f"import_from={tmp_path}/a.jsonl", "max_bytes=9")
    assert done.returncode == 1 and "texts of more than 9 bytes together: give a larger `max_bytes`" in done.stderr
    done = run_command("llm.cache", f"path={tmp_path}/b.sqlite", "max_bytes=0")
    assert "error: `max_bytes` must be 1 or more or null, got 0." in done.stderr


def test_it_prints_what_all_calls_cost_also_those_without_an_answer(tmp_path):
    path = tmp_path / "a.sqlite"
    for name, n_calls, n_open in (("default", 15, 0), ("night", 2, 1)):
        ledger = Ledger(path, Budget(name=name))
        for _ in range(n_calls):
            ledger.settle(ledger.reserve(tokens=5_000, cost_usd=9.0), tokens=310, cost_usd=0.31)
        for _ in range(n_open):
            ledger.reserve(tokens=5_000, cost_usd=9.0)

    lines = run_command("llm.cache", f"path={path}").stdout.splitlines()
    assert lines[0] == "no answers yet"
    assert [line.split() for line in lines[-4:]] == [
        ["budget", "calls", "tokens", "cost_usd", "open_calls"],
        ["-------", "-----", "------", "--------", "----------"],
        ["default", "15", "4,650", "4.6500", "0"],
        ["night", "3", "5,620", "9.6200", "1"],
    ]


def test_a_cache_that_is_not_there_is_not_made(tmp_path):
    done = run_command("llm.cache", f"path={tmp_path}/none.sqlite")
    assert done.returncode == 1 and "`path` must be a cache that exists" in done.stderr
    assert not (tmp_path / "none.sqlite").exists()
