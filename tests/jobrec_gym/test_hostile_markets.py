"""Saved markets of others: checked as they are opened, verified at their first opening, whole after a kill."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from jobrec_gym import MarketError, load_market, whole_files
from jobrec_gym.market import LabourMarket, verified
from jobrec_gym.market.folder import HEADER, is_saved_market, market_folder, read_header, read_tables, write_market
from jobrec_gym.whole_files import read_whole


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    verified.forget()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "market"
    load_market("default", n_jobs=30, n_applicants=20, context="all").save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "market")


def edit(folder, name, change):
    """Changes a table, and its digest, as somebody would who wants it to be believed."""
    file = folder / name
    np.save(file, change(np.load(file)))
    header = json.loads((folder / "market.json").read_text())
    header.pop("sha256")
    header["files"][name] = verified.array_digest(np.load(file))
    (folder / "market.json").write_text(json.dumps(header))


def rewrite(folder, **changes):
    header = json.loads((folder / "market.json").read_text())
    header.pop("sha256")
    (folder / "market.json").write_text(json.dumps({**header, **changes}))


def at(place, value):
    def change(table):
        table[place] = value
        return table

    return change


TABLES = {
    "offsets reversed": ("tables/jobs-hard_offsets.npy", lambda table: table[::-1]),
    "a huge offset": ("tables/jobs-hard_offsets.npy", at(-1, 10**12)),
    "a negative offset": ("tables/jobs-soft_offsets.npy", at(1, -5)),
    "offsets that begin late": ("tables/applicants-hard_offsets.npy", at(0, 1)),
    "offsets that turn back": ("tables/applicants-hard_offsets.npy", at(2, 10**4)),
    "offsets of floats": ("tables/jobs-hard_offsets.npy", lambda table: table.astype(float)),
    "too few offsets": ("tables/jobs-hard_offsets.npy", lambda table: table[:-1]),
    "ids of floats": ("tables/jobs-hard_ids.npy", lambda table: table.astype(np.float32)),
    "an id beyond the words": ("tables/jobs-hard_ids.npy", at(0, 10**6)),
    "a negative id": ("tables/jobs-soft_ids.npy", at(0, -1)),
    "a title that is not there": ("tables/jobs-title_ids.npy", at(0, 10**6)),
    "titles of floats": ("tables/jobs-title_ids.npy", lambda table: table.astype(float)),
    "titles in a square": ("tables/jobs-title_ids.npy", lambda table: table.reshape(5, 6)),
    "an experience that is not there": ("tables/applicants-experience_ids.npy", at(0, -2)),
    "an occupation that is not there": ("tables/applicants-occupation_ids.npy", at(0, 10**6)),
    "a level of 9": ("tables/jobs-seniority.npy", at(0, 9)),
    "levels of texts": ("tables/jobs-seniority.npy", lambda table: table.astype("U2")),
    "splits of integers": ("tables/jobs-held_out.npy", lambda table: table.astype(int)),
    "keys of numbers": ("tables/jobs-keys.npy", lambda table: np.arange(len(table))),
    "keys that repeat": ("tables/jobs-keys.npy", at(1, "J0000000")),
    "fewer keys": ("tables/jobs-keys.npy", lambda table: table[:-1]),
    "vectors of integers": ("jobs.npy", lambda table: np.ones(table.shape, int)),
    "a vector that is no number": ("jobs.npy", at((0, 0), np.nan)),
    "a vector of length 2": ("jobs.npy", lambda table: at(0, 2 * table[0])(table)),
    "vectors of another size": ("applicants.npy", lambda table: table[:, :10]),
    "titles of another size": ("title_vectors.npy", lambda table: table[1:]),
    "a place that is not there": ("tables/context-0-jobs-values.npy", at(0, 10**6)),
    "places of floats": ("tables/context-0-jobs-values.npy", lambda table: table.astype(float)),
    "an infinite pay": ("tables/context-1-jobs-values.npy", at(0, np.inf)),
}


@pytest.mark.parametrize("how", TABLES)
def test_a_table_that_cannot_be_is_refused_whatever_its_digest_says(folder, how):
    edit(folder, *TABLES[how])
    for verify in (None, False):
        with pytest.raises(MarketError, match=re.escape(str(folder))) as refused:
            LabourMarket.load(folder, verify=verify)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("how", [name for name in TABLES if "size" not in name and "fewer" not in name])
def test_large_markets_are_checked_as_small_ones(folder, how, monkeypatch):
    monkeypatch.setattr("jobrec_gym.market.checks._CHECKED_BYTES", 0)
    LabourMarket.load(folder)
    edit(folder, *TABLES[how])
    with pytest.raises(MarketError):
        LabourMarket.load(folder)


HEADERS = {
    "families out of range": {"families": []},
    "words that are numbers": {"titles": [1]},
    "fewer words": {"hard_skills": ["one"]},
    "a word that is no list": {"soft_skills": 3},
    "a family of a text": {"occupation_families": ["x"]},
    "fewer families": {"occupation_families": [0]},
    "unknown words": {"more": []},
}


@pytest.mark.parametrize("how", HEADERS)
def test_words_that_cannot_be_are_refused(folder, how):
    rewrite(folder, vocabulary={**read_header(folder)["vocabulary"], **HEADERS[how]})
    with pytest.raises(MarketError, match=re.escape(str(folder))):
        LabourMarket.load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"../other.npy": "0"}},
        {"files": {"/etc/passwd": "0"}},
        {"files": 3},
        {"name": None},
        {"text_blocks": 3},
        {"context": [{}]},
        {"context": 3},
        {"job_vectors_sha256": None, "vocabulary": None},
        {"format": "jobrec-market/9"},
        {"format": ["x"]},
    ],
)
def test_a_header_that_cannot_be_is_refused(folder, changes):
    rewrite(folder, **changes)
    with pytest.raises(MarketError, match=re.escape(str(folder))):
        LabourMarket.load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_header_that_is_no_json_is_named(folder, content):
    (folder / "market.json").write_bytes(content)
    with pytest.raises(MarketError, match="holds no saved market"):
        LabourMarket.load(folder)


def test_nothing_in_a_market_is_unpickled(folder, tmp_path):
    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    for name in ("jobs.npy", "tables/jobs-keys.npy"):
        (folder / name).write_bytes(pickle.dumps(Canary()))
        with pytest.raises(MarketError, match="not a whole market"):
            LabourMarket.load(folder)
        np.save(folder / name, np.array([Canary()], dtype=object), allow_pickle=True)
        with pytest.raises(MarketError, match="not a whole market"):
            LabourMarket.load(folder)
    assert not (tmp_path / "canary").exists()


# ---------------------------------------------------------------------- digests


def changed_bit(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))


def test_every_changed_byte_is_found_at_the_first_opening(folder):
    LabourMarket.load(folder)
    for file in sorted(folder.rglob("*.npy")):
        before = file.read_bytes()
        if len(before) == 128:
            continue  # a table of nothing
        changed_bit(file, -1)
        with pytest.raises(MarketError, match=re.escape(str(folder))):
            LabourMarket.load(folder)
        file.write_bytes(before)
    file = folder / "market.json"
    file.write_bytes(file.read_bytes().replace(b'"name": "default"', b'"name": "defaulu"'))
    with pytest.raises(MarketError, match=r"market\.json was changed after it was written"):
        LabourMarket.load(folder)


def test_a_market_is_verified_once_and_again_when_it_changed_or_on_demand(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "jobrec_gym.market.folder.array_digest", lambda array: asked.append(1) or verified.array_digest(array)
    )
    LabourMarket.load(folder)
    n_files = len(read_header(folder)["files"])
    assert len(asked) == n_files
    LabourMarket.load(folder)
    verified.forget()  # as another process
    load_market(folder)
    assert len(asked) == n_files
    LabourMarket.load(folder, verify=True)
    assert len(asked) == 2 * n_files
    changed_bit(folder / "tables" / "jobs-held_out.npy", -1)
    LabourMarket.load(folder, verify=False)
    load_market(folder, verify=False)
    with pytest.raises(MarketError, match=r"jobs-held_out\.npy was changed after it was written.*verify=False"):
        LabourMarket.load(folder)


def test_a_market_that_this_process_saved_is_not_read_again_to_be_verified(tmp_path, monkeypatch):
    market = load_market("default", n_jobs=30, n_applicants=20)
    monkeypatch.setattr("jobrec_gym.market.labour_market.check_digests", lambda *_: 1 / 0)
    again = market.save(tmp_path / "market")
    assert again.fingerprint() == market.fingerprint()
    LabourMarket.load(tmp_path / "market")


def test_where_nothing_can_be_kept_a_market_opens_all_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    LabourMarket.load(folder)
    LabourMarket.load(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    verified.forget()
    for content in ("", "[]", '{"format": "jobrec-verified/1", "markets": 3}', "\x00"):
        (tmp_path / "cache" / "jobrec_gym").mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / "jobrec_gym" / "verified.json").write_text(content)
        verified.forget()
        LabourMarket.load(folder)


def test_a_market_of_an_earlier_version_opens_and_cannot_be_verified(folder):
    header = json.loads((folder / "market.json").read_text())
    for name in ("sha256", "files", "written_by"):
        assert header.pop(name)
    (folder / "market.json").write_text(json.dumps(header))
    assert len(LabourMarket.load(folder).jobs) == 30
    with pytest.raises(MarketError, match="saved before markets had digests"):
        LabourMarket.load(folder, verify=True)


# ---------------------------------------------------------------------- kills

DYING = """
import os, signal, sys
from pathlib import Path
from jobrec_gym import load_market
rename, renames = Path.rename, []
def dying(self, target):
    if Path(sys.argv[1]).name in (self.name, Path(target).name):
        if len(renames) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        renames.append(self)
    return rename(self, target)
Path.rename = dying
load_market("default", n_jobs=31, n_applicants=20).save(sys.argv[1])
if int(sys.argv[2]) == len(renames):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.waits
@pytest.mark.parametrize("n_renames", [0, 1, 2])
def test_a_kill_between_the_renames_leaves_the_old_market_or_the_new_one(folder, n_renames):
    done = subprocess.run([sys.executable, "-c", DYING, str(folder), str(n_renames)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert folder.exists() == (n_renames != 1)
    assert len(load_market(folder).jobs) == (31 if n_renames == 2 else 30)
    # The next writer removes what the dead one left.
    load_market("default", n_jobs=32, n_applicants=20).save(folder)
    assert [path.name for path in folder.parent.iterdir() if path.name != "cache"] == ["market"]
    assert len(LabourMarket.load(folder).jobs) == 32


@pytest.mark.waits
def test_what_a_living_process_writes_is_left_alone(folder, tmp_path):
    writing = (
        "import sys, time\nfrom jobrec_gym.market.folder import market_folder\n"
        "with market_folder(sys.argv[1]) as new:\n    (new / 'begun').touch(); print('ready', flush=True)\n"
        "    sys.stdin.read(); raise SystemExit\n"
    )
    other = folder.with_name("market-2")
    for target in (folder, other):
        process = subprocess.Popen(
            [sys.executable, "-c", writing, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        load_market("default", n_jobs=30, n_applicants=20).save(folder)
        assert list(tmp_path.glob(f".{target.name}-*/new/begun"))
        process.communicate("")
        assert not list(tmp_path.glob(".market-*"))


@pytest.mark.waits
def test_a_dead_writers_market_goes_to_no_other_name(folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(shutil.copytree(folder, tmp_path / "market-2")), "1"], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL
    shutil.rmtree(folder)
    with pytest.raises(MarketError):
        load_market(folder)
    assert len(load_market(tmp_path / "market-2").jobs) == 30


def test_what_a_kill_left_without_a_lock_goes_after_a_while_and_nobody_elses_folder_does(folder, tmp_path):
    left, young, own, other = (tmp_path / f".market-{name}" for name in ("ab3_d6g8", "hj3kl6n8", "backups1", "notes"))
    for place, inside in ((left, "old"), (young, "new"), (own, "pictures"), (other, "old")):
        (place / inside).mkdir(parents=True)
        if place is not young:
            os.utime(place, (0, 0))
    load_market("default", n_jobs=30, n_applicants=20).save(folder)
    assert [place.exists() for place in (left, young, own, other)] == [False, True, True, True]


def test_a_market_folder_that_fails_leaves_nothing(folder, tmp_path):
    with pytest.raises(OSError, match="disk full"), market_folder(folder):
        raise OSError("disk full")
    assert len(LabourMarket.load(folder).jobs) == 30
    assert not list(tmp_path.glob(".market-*"))


# ---------------------------------------------------------------------- several processes at once


@pytest.fixture
def between_the_renames(monkeypatch):
    """A function that takes what to do, once, when a writer has moved the old market away."""
    doing = []
    rename = Path.rename

    def renamed(self, target):
        if self.name == "new" and doing:
            doing.pop()()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    return doing.append


def test_a_reader_waits_for_a_writer_that_is_between_its_renames(folder, monkeypatch, between_the_renames):
    waits, sleep = threading.Event(), time.sleep
    monkeypatch.setattr("jobrec_gym.whole_files.time.sleep", lambda seconds: (waits.set(), sleep(seconds)))
    with ThreadPoolExecutor() as pool:
        reading = []

        def read():
            reading.append(pool.submit(load_market, folder))
            assert waits.wait(60)

        between_the_renames(read)
        load_market("default", n_jobs=31, n_applicants=20).save(folder)
        assert len(reading[0].result().jobs) == 31


def test_a_market_that_is_replaced_while_it_is_read_is_read_again(folder, monkeypatch):
    other = load_market("default", n_jobs=31, n_applicants=20)
    replaced = []

    def replaced_before(*arguments):
        if not replaced:
            replaced.append(True)
            other.save(folder)
        return read_tables(*arguments)

    monkeypatch.setattr("jobrec_gym.market.labour_market.read_tables", replaced_before)
    assert LabourMarket.load(folder, verify=True).fingerprint() == other.fingerprint()
    assert replaced


def test_a_folder_that_is_away_for_a_moment_is_not_said_to_be_missing(folder, monkeypatch):
    calls, opened = [], whole_files._opened

    def away_at_first(place):
        if place == folder and not calls:
            calls.append(place)
            folder.rename(folder.with_name("elsewhere"))
        return opened(place)

    def there():
        found = (folder / HEADER).is_file()
        if not found:
            folder.with_name("elsewhere").rename(folder)
        return found

    monkeypatch.setattr(whole_files, "_opened", away_at_first)
    assert read_whole(folder, there, MarketError) and calls


def test_a_folder_that_is_always_replaced_is_said_to_be(folder, monkeypatch):
    monkeypatch.setattr("jobrec_gym.whole_files._MOST_TURNS", 3)
    market = load_market("default", n_jobs=30, n_applicants=20)
    with pytest.raises(MarketError, match=r"market is replaced by another process again and again; read it when"):
        read_whole(folder, lambda: write_market(market, folder), MarketError)


def test_two_writers_of_one_market_replace_it_one_after_the_other(folder, tmp_path, between_the_renames):
    first, second = (load_market("default", n_jobs=n, n_applicants=20) for n in (31, 32))
    with ThreadPoolExecutor() as pool:
        writing = []

        def write():
            writing.append(pool.submit(second.save, folder))
            wait(writing, timeout=0.5)  # it is not done before the first one is

        between_the_renames(write)
        assert len(first.save(folder).jobs) in (31, 32)
        assert len(writing[0].result().jobs) == 32
    assert len(load_market(folder).jobs) == 32
    assert not list(tmp_path.glob(".market-*"))


def test_a_pipe_that_is_no_market_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "a\0b"):
        assert not is_saved_market(path)
