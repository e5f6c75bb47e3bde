import json
import math
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from little_room import as_nobody, files_left, room_for

from jobrec_gym.simulators import cache as cache_module
from jobrec_gym.simulators import sqlite_cache
from jobrec_gym.simulators.budget import Ledger
from jobrec_gym.simulators.cache import CachedAnswer, CacheUnusable, KeyMaker, cache_key
from jobrec_gym.simulators.llm import LLMSimulator
from jobrec_gym.simulators.sqlite_cache import AnswerCache, file_system_of

ROOT = Path(__file__).parents[2]
CONTENT = {
    "model": "openai/a",
    "api_base": "",
    "mode": "decision",
    "prompt": "decision-v1",
    "persona": "busy",
    "sampling": '{"seed":0,"temperature":0}',
    "applicant": '{"title":"nurse"}',
    "job": '{"title":"cook"}',
}


def answer(**changes):
    content = CONTENT | {key: value for key, value in changes.items() if key in CONTENT}
    rest = {"status": "ok", "decision": "save", "probability": 0.25, "reason": "é", "tokens": 300, "cost_usd": 0.5}
    return CachedAnswer(cache_key(**content), **content, **(rest | {k: v for k, v in changes.items() if k in rest}))


@pytest.fixture
def cache(tmp_path):
    cache = AnswerCache(tmp_path / "deep" / "answers.sqlite")
    yield cache
    cache.close()


def script(code, *arguments):
    known = "".join(f"from jobrec_gym.simulators.{name} import *\n" for name in ("cache", "sqlite_cache"))
    command = [sys.executable, "-c", f"import sys\n{known}{code}"]
    return subprocess.Popen([*command, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("part", CONTENT)
def test_the_key_changes_with_each_part_of_the_content(part):
    assert cache_key(**CONTENT | {part: CONTENT[part] + "x"}) != cache_key(**CONTENT)


def test_words_that_move_from_one_part_to_the_next_change_the_key():
    assert cache_key(**CONTENT | {"mode": "ab", "prompt": "c"}) != cache_key(**CONTENT | {"mode": "a", "prompt": "bc"})


@given(st.text(), st.text(), st.text())
def test_keys_of_many_pairs_are_those_of_each(persona, applicant, job):
    way = {key: value for key, value in CONTENT.items() if key not in ("applicant", "job")} | {"persona": persona}
    key_of = KeyMaker(**way)
    for pair in ((applicant, job), (job, applicant), (applicant, job)):
        assert key_of(*pair) == cache_key(**way, applicant=pair[0], job=pair[1])


def test_an_answer_comes_back_as_it_was_put(cache):
    first = answer()
    cache.put(first)
    assert cache.get([first.key, "unknown", first.key]) == {first.key: first}


def test_an_unknown_probability_comes_back_unknown(cache):
    first = answer(probability=math.nan)
    cache.put(first)
    assert math.isnan(cache.get([first.key])[first.key].probability)


def test_what_was_said_comes_back_without_what_it_depends_on(cache):
    known = [answer(), answer(job="x", status="refusal", decision="", probability=math.nan)]
    for each in known:
        cache.put(each)
    found = cache.in_short([*(each.key for each in known), "unknown"])
    assert found.keys() == cache.get([each.key for each in known]).keys()
    for each in known:
        said = found[each.key]
        assert (said.status, said.decision, said.reason) == (each.status, each.decision, each.reason)
        assert said.probability == pytest.approx(each.probability, abs=0, nan_ok=True)


def test_columns_come_in_the_order_of_the_keys_or_not_at_all(cache):
    first, second = answer(), answer(job="x", decision="apply", probability=math.nan)
    cache.put(first)
    cache.put(second)
    keys = [second.key, first.key, second.key]
    status, decision, probability, reason = cache.columns_in_short(keys)
    assert (status, decision) == (("ok",) * 3, ("apply", first.decision, "apply"))
    assert probability == (None, first.probability, None)
    assert reason == (second.reason, first.reason, second.reason)
    assert cache.columns_in_short([*keys, "unknown"]) is None


def test_a_file_of_before_the_index_is_read_and_left_as_it_is(cache):
    cache.put(answer())
    with sqlite3.connect(cache.path) as connection:
        connection.execute("DROP INDEX answers_in_short")
    connection.close()
    old = AnswerCache(cache.path)
    assert old.in_short([answer().key])[answer().key].decision == "save"
    with sqlite3.connect(cache.path) as connection:
        assert not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name LIKE '%short'"
        ).fetchall()
    connection.close()


def test_opening_a_file_again_writes_nothing(cache):
    cache.put(answer())
    wal = Path(f"{cache.path}-wal")
    before = wal.stat().st_size
    assert AnswerCache(cache.path).in_short([answer().key]) and wal.stat().st_size == before


def test_the_first_answer_stays(cache):
    first = answer()
    cache.put(first)
    cache.put(replace(first, decision="ignore"))
    assert cache.get([first.key])[first.key].decision == "save"


def test_more_keys_than_a_statement_takes_are_found(cache):
    answers = [answer(job=str(number)) for number in range(1_201)]
    for each in answers:
        cache.put(each)
    assert len(cache.get([each.key for each in answers])) == 1_201


def test_the_file_is_in_wal_mode_and_has_no_pickle(cache):
    cache.put(answer())
    with sqlite3.connect(cache.path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        types = {row[2] for row in connection.execute("PRAGMA table_info(answers)")}
    connection.close()
    assert "BLOB" not in types


def test_a_key_is_claimed_once_until_it_is_answered_released_or_lapsed(cache):
    first = answer()
    assert cache.claim([first.key, first.key], "a", 60) == {first.key}
    assert cache.claim([first.key], "a", 60) == {first.key}
    assert cache.claim([first.key], "b", 60) == set()
    cache.release([first.key], "b")
    assert cache.claim([first.key], "b", 60) == set()
    cache.release([first.key], "a")
    assert cache.claim([first.key], "b", 0) == {first.key}
    assert cache.claim([first.key], "c", 60) == {first.key}
    cache.put(first)
    assert cache.claim([first.key], "c", 60) == set()


def test_eight_processes_share_the_work_and_lose_nothing(tmp_path):
    path = tmp_path / "answers.sqlite"
    code = """
cache, owner = AnswerCache(sys.argv[1]), sys.argv[2]
content = dict(model="m", api_base="", mode="d", prompt="p", persona="", sampling="", applicant="")
claimed = 0
for number in range(40):
    key = cache_key(**content, job=str(number))
    if cache.claim([key], owner, 60):
        claimed += 1
        cache.put(CachedAnswer(key, **content, job=str(number), status="ok", decision="save", probability=0.5,
                               reason=owner, tokens=1, cost_usd=0.0))
print(claimed)
"""
    processes = [script(code, path, owner) for owner in range(8)]
    claimed = [int(process.communicate()[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    cache = AnswerCache(path)
    assert sum(claimed) == 40 == cache.summary()[0]["answers"] == cache.summary()[0]["tokens"]
    cache.close()


@pytest.mark.waits
def test_a_kill_in_the_middle_of_writing_loses_nothing_that_was_put(tmp_path):
    path = tmp_path / "answers.sqlite"
    code = """
cache = AnswerCache(sys.argv[1])
content = dict(model="m", api_base="", mode="d", prompt="p", persona="", sampling="", applicant="")
for number in range(10**6):
    key = cache_key(**content, job=str(number))
    cache.put(CachedAnswer(key, **content, job=str(number), status="ok", decision="", probability=0.5, reason="x" * 999,
                           tokens=1, cost_usd=0.0))
    print(key, flush=True)
"""
    process = script(code, path)
    put = [process.stdout.readline().strip() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    put += process.communicate()[0].split("\n")[:-1]
    cache = AnswerCache(path)
    assert set(cache.get(put)) == set(put)
    cache.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_answers_travel_in_a_file(cache, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    first, second = answer(), answer(job="other", probability=math.nan, status="refusal", decision="")
    cache.put(first)
    cache.put(second)
    assert cache.export(tmp_path / f"answers.{ending}") == 2
    other = AnswerCache(tmp_path / "other.sqlite")
    other.put(first)
    assert other.import_(tmp_path / f"answers.{ending}") == 1
    assert other.get([first.key])[first.key] == first
    assert other.get([second.key])[second.key].status == "refusal"
    assert math.isnan(other.get([second.key])[second.key].probability)
    other.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda row: row | {"job": "forged"}, r"row 2 has a key that is not that of its content"),
        (lambda row: {key: row[key] for key in row if key != "reason"}, "row 2 must have the entries"),
        (lambda row: row | {"tokens": "many"}, r"row 2 has entries of a wrong type: \['tokens'\]"),
        (lambda row: row | {"decision": "apply2"}, r"row 2, column `decision`, must be one of .*, got 'apply2'"),
        (lambda row: row | {"decision": "", "probability": None}, r"row 2, column `decision`, .* no probability"),
        (lambda row: row | {"probability": -5.5}, r"row 2, column `probability`, must be in \[0, 1\].* got -5.5"),
        (lambda row: row | {"status": "great"}, r"row 2, column `status`, must be one of .*'great'"),
        (lambda row: row | {"cost_usd": -1}, r"row 2, column `cost_usd`, must be a number of at least 0, got -1"),
        (lambda row: row | {"cost_usd": math.inf}, r"row 2, column `cost_usd`"),
        (lambda row: row | {"tokens": 10**30}, r"row 2, column `tokens`"),
        (lambda row: row | {"tokens": 0.5}, r"row 2, column `tokens`"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_imported(cache, tmp_path, damage, message):
    cache.put(answer())
    cache.put(answer(job="other"))
    path = tmp_path / "answers.jsonl"
    cache.export(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps(row) for row in (rows[0], damage(rows[1]))))
    other = AnswerCache(tmp_path / "other.sqlite")
    with pytest.raises(ValueError, match=message):
        other.import_(path)
    assert other.summary() == []
    other.close()


def test_a_line_that_is_not_json_and_an_unknown_ending_are_named(cache, tmp_path):
    for text in ("no json", "[" * 100_000, "1" * 5_000):
        (tmp_path / "a.jsonl").write_text(f"{text}\n")
        with pytest.raises(ValueError, match=r"a\.jsonl row 1 is not JSON"):
            cache.import_(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match=r"`path` must end in \.jsonl or \.parquet"):
        cache.export(tmp_path / "a.csv")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_export_that_unpacks_to_too_much_is_refused_and_nothing_is_imported(cache, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    for number in range(2):
        cache.put(answer(applicant=str(number), job="x" * 1_000))
    path = tmp_path / f"answers.{ending}"
    cache.export(path)
    other = AnswerCache(tmp_path / "other.sqlite")
    for max_bytes in (100, 1_500):
        with pytest.raises(ValueError, match=rf"{ending} has texts of more than {max_bytes:,} bytes together: give "):
            other.import_(path, max_bytes=max_bytes)
    assert other.summary() == []
    assert other.import_(path, max_bytes=10_000) == 2
    other.close()


def test_a_text_that_many_rows_of_an_export_share_is_in_memory_once(cache, tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'data'")
    n_rows, n_letters = 2_000, 50_000
    cache.put(answer(job="x" * n_letters))
    cache.export(tmp_path / "one.parquet")
    table = parquet.read_table(tmp_path / "one.parquet").combine_chunks()
    columns = [arrow.DictionaryArray.from_arrays(np.zeros(n_rows, np.int32), each.chunk(0)) for each in table.columns]
    path = tmp_path / "many.parquet"
    parquet.write_table(arrow.table(columns, names=table.column_names).cast(table.schema), path, compression="zstd")
    assert path.stat().st_size < n_letters
    tracemalloc.start()
    assert AnswerCache(tmp_path / "other.sqlite").import_(path) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_rows * n_letters / 10


@pytest.mark.parametrize("kind", ["binary", "list_"])
def test_a_parquet_file_with_columns_of_another_type_is_refused_before_it_is_read(cache, tmp_path, kind):
    arrow = pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'data'")
    kind = arrow.binary() if kind == "binary" else arrow.list_(arrow.string())
    parquet.write_table(arrow.table({"job": arrow.nulls(2, kind)}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has columns of a wrong type: \['job'\]"):
        cache.import_(tmp_path / "a.parquet")


def test_an_import_keeps_the_types_of_equal_numbers(cache, tmp_path):
    cache.put(answer(tokens=1, cost_usd=1.0, probability=1.0))
    cache.export(tmp_path / "a.jsonl")
    other = AnswerCache(tmp_path / "other.sqlite")
    other.import_(tmp_path / "a.jsonl")
    (found,) = other.answers()
    assert [type(value) for value in (found.tokens, found.cost_usd, found.probability)] == [int, float, float]
    other.close()


ADDED = {
    "a view in place of the answers": """DROP TABLE answers; CREATE VIEW answers AS
        WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n AS key, n AS model FROM c""",
    "a view beside them": "CREATE VIEW more AS SELECT 1",
    "a trigger": "CREATE TRIGGER t AFTER DELETE ON claims BEGIN DELETE FROM answers; END",
    "a computed column": "ALTER TABLE calls ADD COLUMN more TEXT AS (hex(zeroblob(100000000)))",
    "an index over a computation": "CREATE INDEX more ON claims (hex(zeroblob(100000000)))",
    "another table": "CREATE TABLE more (text TEXT)",
    "a virtual table": "DROP TABLE about; CREATE VIRTUAL TABLE about USING fts5(name, value)",
}


@pytest.mark.parametrize("how", ADDED)
@pytest.mark.parametrize("is_writable", [True, False])
def test_a_file_with_more_than_the_tables_of_a_cache_is_refused(how, is_writable, readable):
    path = readable / "answers.sqlite"
    cache = AnswerCache(path)
    cache.put(answer())
    cache.close()
    connection = sqlite3.connect(path)
    try:
        connection.executescript(f"{ADDED[how]}; PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        pytest.skip(f"this SQLite has no such thing: {error}")
    finally:
        connection.close()
    message = r"answers\.sqlite has the (view|trigger|table|index) '\w+', which no cache of answers has: use an un"

    def refuses():
        with pytest.raises(ValueError, match=message):
            AnswerCache(path)
        return True

    if is_writable:
        assert refuses()
    else:
        path.chmod(0o444)
        readable.chmod(0o555)
        assert as_nobody(refuses)


def test_a_file_that_sqlite_has_analysed_is_opened(tmp_path):
    path = tmp_path / "answers.sqlite"
    AnswerCache(path).put(answer())
    connection = sqlite3.connect(path)
    connection.execute("ANALYZE")
    connection.close()
    assert AnswerCache(path).get([answer().key])


def flip(path, before, after):
    """Replaces bytes of a closed file wherever they stand; returns how often they stood there."""
    data = Path(path).read_bytes()
    Path(path).write_bytes(data.replace(before, after))
    return data.count(before)


@pytest.mark.parametrize(
    ("column", "before", "after"),
    [("decision", b"apply", b"appdy"), ("reason", b"fits well", b"fits welm"), ("status", b"refusal", b"refusam")],
)
@pytest.mark.parametrize("where", ["everywhere", "index", "table"])
def test_a_flipped_bit_is_a_miss_and_the_next_answer_mends_it(tmp_path, column, before, after, where):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    status, decision = ("refusal", "") if column == "status" else ("ok", "apply")
    first, other = answer(status=status, decision=decision, reason="fits well"), answer(job="x", reason="other")
    cache.put(first)
    cache.put(other)
    cache._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cache.close()
    if where == "everywhere":
        assert flip(cache.path, before, after) == 2
    else:
        data = Path(cache.path).read_bytes()
        # In the table's row the persona and the documents stand before it; the index has none of them.
        at = (
            data.rfind(before)
            if (b"busy" in data[data.rfind(before) - 200 : data.rfind(before)]) == (where == "table")
            else data.find(before)
        )
        Path(cache.path).write_bytes(data[:at] + after + data[at + len(before) :])
    assert cache.get([other.key])[other.key] == other
    assert first.key not in cache.get([first.key]) or first.key not in cache.in_short([first.key])
    if where != "table":
        assert cache.in_short([first.key]) == {} and cache.columns_in_short([other.key, first.key]) is None
        assert cache.claim([first.key, other.key], "me", 60) == {first.key}
    cache.put(first)
    assert cache.in_short([first.key])[first.key].decision == decision
    if where != "table":  # where what was said is whole, it stays
        assert cache.get([first.key]) == {first.key: first}
        assert cache._connection().execute("PRAGMA integrity_check").fetchone() == ("ok",)
    cache.close()


def test_a_damaged_answer_is_not_exported(tmp_path, caplog):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    cache.put(answer(decision="apply"))
    cache.put(answer(job="x"))
    with cache.transaction() as connection:
        connection.execute("UPDATE answers SET decision = 'appdy' WHERE decision = 'apply'")
    assert cache.export(tmp_path / "a.jsonl") == 1
    assert "1 damaged answers" in caplog.text
    cache.close()


def test_a_file_of_before_the_checksum_is_read_and_a_row_that_is_no_decision_is_a_miss(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    with cache.transaction() as connection:
        connection.execute("DROP INDEX answers_in_short")
        connection.execute("ALTER TABLE answers DROP COLUMN crc")
        connection.execute("CREATE INDEX answers_in_short ON answers (key, status, decision, probability, reason)")
    cache.close()
    old = AnswerCache(cache.path)
    first, second = answer(), answer(job="x", decision="apply")
    old.put(first)
    old.put(second)
    assert old.get([first.key, second.key]) == {first.key: first, second.key: second}
    with old.transaction() as connection:
        connection.execute("UPDATE answers SET decision = 'appdy' WHERE decision = 'apply'")
    assert old.in_short([first.key, second.key]).keys() == {first.key}
    old.put(second)
    assert old.in_short([second.key])[second.key].decision == "apply"
    old.close()


@pytest.fixture
def readable():
    """A folder that everybody can read and only its owner can write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def refused(verb, message):
    with pytest.raises(CacheUnusable, match=message):
        verb()
    return True


@pytest.mark.parametrize("folder_too", [False, True])
def test_a_file_that_cannot_be_written_is_read_and_says_so_when_it_is_written(readable, folder_too):
    cache = AnswerCache(readable / "answers.sqlite")
    cache.put(answer())
    cache.close()
    Path(cache.path).chmod(0o444)
    readable.chmod(0o555 if folder_too else 0o777)

    def work():
        other = AnswerCache(cache.path)
        known = other.in_short([answer().key])[answer().key].decision == "save"
        return known and Ledger(other).spent.calls == 0 and refused(lambda: other.put(answer(job="x")), cache.path)

    assert as_nobody(work)


def test_a_simulator_replays_a_file_that_cannot_be_written(readable, market):
    made = LLMSimulator("openai/x", cache=readable / "answers.sqlite", api_base="http://127.0.0.1:9/v1")
    made.cache.put(answer())
    made.cache.close()
    readable.chmod(0o555)

    def work():
        replay = LLMSimulator("openai/x", cache=made.cache.path, cache_mode="replay", api_base="http://127.0.0.1:9/v1")
        said = replay.bind(market).feedback(np.array([0]), np.array([0]))
        return said.status[0] == "not_recorded" and replay.spent.calls == 0

    assert as_nobody(work)


def test_a_file_whose_log_is_not_written_back_is_not_read_without_it(readable):
    cache = AnswerCache(readable / "answers.sqlite")
    cache.put(answer())
    copy = readable / "copy" / "answers.sqlite"
    copy.parent.mkdir()
    for ending in ("", "-wal"):
        shutil.copy(f"{cache.path}{ending}", f"{copy}{ending}")
    copy.parent.chmod(0o555)
    assert as_nobody(lambda: refused(lambda: AnswerCache(copy), "answers.sqlite-wal beside it has answers"))
    copy.parent.chmod(0o755)
    cache.close()


def test_a_place_that_cannot_be_made_or_written_is_named(readable, tmp_path):
    (tmp_path / "file").write_text("")
    assert refused(lambda: AnswerCache(tmp_path / "file" / "answers.sqlite"), f"{tmp_path}/file/answers.sqlite cannot")
    assert refused(lambda: AnswerCache(tmp_path), f"{tmp_path} cannot be used .*`cache`")
    for place in (readable / "a.sqlite", readable / "deep" / "a.sqlite"):
        assert as_nobody(lambda place=place: refused(lambda: AnswerCache(place), f"{place} cannot be used .*`cache`"))


def test_a_file_cut_short_says_that_it_is_damaged(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    for number in range(50):
        cache.put(answer(job=f"{number}" * 200))
    cache._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cache.close()
    data = Path(cache.path).read_bytes()
    Path(cache.path).write_bytes(data[: len(data) // 2])
    with pytest.raises((CacheUnusable, ValueError), match=r"answers\.sqlite .*(damaged|not a cache)"):
        list(AnswerCache(cache.path).answers())


MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/me/fast\\040disk rw - xfs /dev/sdb rw
32 22 0:41 / /lustre rw shared:1 - lustre x rw
"""


def test_the_kind_of_file_system_is_that_of_the_mount_within(tmp_path, monkeypatch, caplog):
    for path, kind in {
        "/a": "ext4", "/home/me/a": "nfs4", "/home/me/fast disk/a": "xfs", "/homes/a": "ext4", "/lustre/a": "lustre"
    }.items():  # fmt: skip
        assert file_system_of(path, MOUNTS) == kind


def test_a_file_on_a_network_file_system_is_warned_of_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sqlite_cache, "file_system_of", lambda path, mounts: "nfs4")
    for _ in range(2):
        AnswerCache(tmp_path / "answers.sqlite").close()
    assert caplog.text.count("network file system (nfs4)") == 1 and "redis://" in caplog.text


def test_the_summary_tells_what_was_asked_and_what_it_cost(cache):
    cache.put(answer())
    cache.put(answer(job="b", status="refusal", tokens=100, cost_usd=0.25))
    cache.put(answer(model="z"))
    first, second = cache.summary()
    assert (first["answers"], first["by_status"], first["tokens"], first["mean_tokens"], first["cost_usd"]) == (
        2,
        {"ok": 1, "refusal": 1},
        400,
        200,
        0.75,
    )
    assert second["model"] == "z"


def test_another_file_and_another_version_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database" * 100)
    with pytest.raises(ValueError, match=r"notes\.txt is not a cache"):
        AnswerCache(tmp_path / "notes.txt")
    connection = sqlite3.connect(tmp_path / "new.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ValueError, match=r"another version of the cache \(99; this one is 1, jobrec-gym"):
        AnswerCache(tmp_path / "new.sqlite")


def test_a_cache_says_what_made_it_and_one_of_a_later_version_who_that_was(cache):
    cache.put(answer())
    with cache.transaction() as connection:
        (found,) = connection.execute("SELECT value FROM about WHERE name = 'written_by'").fetchone()
        assert found.startswith("jobrec-gym")
        connection.execute("UPDATE about SET value = 'jobrec-gym 9'")
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match=r"another version of the cache \(99, jobrec-gym 9; this one") as refused:
        AnswerCache(cache.path)
    assert "\n" not in str(refused.value)


def test_a_cache_of_an_earlier_version_that_does_not_say_what_made_it_is_read_and_written(cache):
    cache.put(answer())
    with cache.transaction() as connection:
        connection.execute("DROP TABLE about")
    old = AnswerCache(cache.path)
    old.put(answer(job="x"))
    assert len(old.get([answer().key, answer(job="x").key])) == 2
    old.close()


def test_a_data_base_of_something_else_is_left_alone(tmp_path):
    connection = sqlite3.connect(tmp_path / "mine.sqlite")
    connection.execute("CREATE TABLE notes (text TEXT)")
    with pytest.raises(ValueError, match=r"mine\.sqlite is not a cache .*tables of something else, 'notes'"):
        AnswerCache(tmp_path / "mine.sqlite")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]
    connection.close()


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_export_says_what_wrote_it_and_one_of_a_later_version_is_refused_in_one_line(cache, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    cache.put(answer())
    for version, is_known in ((cache_module._EXPORT_FORMAT, True), ("jobrec-answers/2", False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache_module, "_EXPORT_FORMAT", version)
            patch.setattr(cache_module, "written_by", lambda: "jobrec-gym 9")
            cache.export(tmp_path / f"a.{ending}")
        if is_known:
            assert cache.import_(tmp_path / f"a.{ending}") == 0
        else:
            with pytest.raises(
                ValueError, match=rf"a\.{ending} has the format 'jobrec-answers/2', written by jobrec-gym 9;"
            ):
                cache.import_(tmp_path / f"a.{ending}")


def test_an_export_of_an_earlier_version_and_joined_ones_are_read(cache, tmp_path):
    cache.put(answer())
    cache.export(tmp_path / "a.jsonl")
    about, row = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(about) == {"format": "jobrec-answers/1", "written_by": cache_module.written_by()}
    for name, content in (("old", row), ("joined", about + row + about + row)):
        (tmp_path / f"{name}.jsonl").write_text(content)
        other = AnswerCache(tmp_path / f"{name}.sqlite")
        assert other.import_(tmp_path / f"{name}.jsonl") == 1 and list(other.answers()) == [answer()]
        other.close()


def test_a_full_disk_is_said_with_the_cache_and_costs_no_answer(cache, tmp_path):
    cache.put(answer())
    with room_for(0):
        for verb in (
            lambda: cache.put(answer(job="x" * 100_000)),
            lambda: cache.claim(["k"], "me", 60),
            lambda: cache.reserve("b", {}, tokens=1, cost_usd=0.0, seconds=9),
            lambda: AnswerCache(tmp_path / "new.sqlite"),
        ):
            assert refused(verb, r"(answers|new)\.sqlite cannot be used .*(make room|name a place)")
        with pytest.raises(OSError, match="File too large") as told:
            cache.export(tmp_path / "a.jsonl")
        assert told.value.filename == str(tmp_path / "a.jsonl") and not (tmp_path / "a.jsonl").exists()
        assert cache.get([answer().key]) == {answer().key: answer()}
    cache.put(answer(job="x"))
    assert len(list(cache.answers())) == 2
    AnswerCache(tmp_path / "new.sqlite").close()


def test_too_few_file_handles_are_said_as_such(cache, tmp_path):
    cache.put(answer())
    cache.close()
    with files_left(0):
        assert refused(
            lambda: cache.get([answer().key]), r"answers\.sqlite cannot be used .*too many files are open.*ulimit"
        )
    assert cache.get([answer().key])


@pytest.mark.waits
def test_a_copy_in_another_process_opens_its_own_connection(cache):
    first = answer()
    cache.put(first)
    again = pickle.loads(pickle.dumps(cache))
    assert again.get([first.key]) == {first.key: first}
    again.close()
    child = os.fork()
    if child == 0:
        os._exit(0 if cache.get([first.key]) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.waits
def test_many_may_make_the_file_at_once(tmp_path):
    def make(barrier, path):
        barrier.wait()
        AnswerCache(path).close()

    for number in range(40):
        barrier = threading.Barrier(6)
        with ThreadPoolExecutor(6) as pool:
            for made in [pool.submit(make, barrier, tmp_path / f"{number}.sqlite") for _ in range(6)]:
                made.result()
