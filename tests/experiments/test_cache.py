import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

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
    assert done.stdout.splitlines()[-1].split() == cells
    done = run_command("llm.cache", f"path={tmp_path}/b.sqlite", f"import_from={tmp_path}/a.jsonl")
    assert "1 new answers from" in done.stdout


def test_a_cache_that_is_not_there_is_not_made(tmp_path):
    done = run_command("llm.cache", f"path={tmp_path}/none.sqlite")
    assert done.returncode == 1 and "`path` must be a cache that exists" in done.stderr
    assert not (tmp_path / "none.sqlite").exists()
