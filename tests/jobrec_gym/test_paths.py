"""Paths that begin with `~`, that are symbolic links, or that are not UTF-8."""

import os

import gymnasium as gym
import pytest

from jobrec_gym.array_files import read_arrays
from jobrec_gym.interactions import Interactions
from jobrec_gym.loaders.generated import load_default
from jobrec_gym.loaders.interactions import load_interactions
from jobrec_gym.market import LabourMarket, load_market
from jobrec_gym.paths import place_of
from jobrec_gym.simulators.prompts import load_prompt
from jobrec_gym.simulators.recorded import RecordedSimulator, Recording
from jobrec_gym.simulators.sqlite_cache import AnswerCache
from jobrec_gym.whole_files import whole_file


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.chdir(tmp_path)
    yield folder
    assert [entry.name for entry in tmp_path.iterdir()] == ["home"], "nothing is written to a folder named ~"


def test_a_name_that_only_begins_with_a_tilde_is_left_as_it_is(home):
    assert place_of("~/jobs.csv") == home / "jobs.csv"
    assert str(place_of("~jobs.csv")) == "~jobs.csv"


def test_markets_and_logs_are_saved_and_read_at_home(home, market):
    assert market.save("~/market").fingerprint() == LabourMarket.load("~/market").fingerprint() == market.fingerprint()
    assert load_market("~/market").spec == str(home / "market")
    assert gym.make("JobRec-v0", market="~/market", num_candidates=3).unwrapped.market.folder == home / "market"
    made = load_default(n_jobs=20, n_applicants=10, folder="~/generated")
    assert load_default(n_jobs=20, n_applicants=10, folder=home / "generated").fingerprint() == made.fingerprint()

    log = Interactions.of(market, [0, 5], [3, 4], [1.0, 0.5], decision=[3, 2])
    assert log.save("~/log").folder == home / "log"
    log.write_csv("~/log.csv")
    for found in (Interactions.load("~/log", market), load_interactions("~/log", market)):
        assert found.job_ids.tolist() == [3, 4]
    assert load_interactions("~/log.csv", market).reward.tolist() == [1.0, 0.5]


def test_what_simulators_write_and_read_is_at_home(home):
    recording = RecordedSimulator().load()
    recording.save("~/recording.npz")
    assert (
        Recording.load("~/recording.npz").model == RecordedSimulator("~/recording.npz").load().model == recording.model
    )
    assert "model" in read_arrays("~/recording.npz")
    (home / "mine.txt").write_text("Answer.\n--- user\n$applicant $job\n", encoding="utf-8")
    assert load_prompt("~/mine.txt").version == "mine"
    cache = AnswerCache("~/answers.sqlite")
    assert cache.export("~/answers.jsonl") == cache.import_("~/answers.jsonl") == 0
    cache.close()


def test_what_a_link_points_to_is_replaced_and_the_link_stays(market, tmp_path):
    (tmp_path / "large").mkdir()
    for link, target in (("link.csv", "large/real.csv"), ("link", "large/market")):
        (tmp_path / link).symlink_to(target)
    for text in ("the target is made", "the target is replaced"):
        with whole_file(tmp_path / "link.csv") as scratch:
            scratch.write_text(text)
        assert (tmp_path / "large" / "real.csv").read_text() == text
        market.save(tmp_path / "link")
        assert LabourMarket.load(tmp_path / "large" / "market").fingerprint() == market.fingerprint()
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "link").is_symlink()
    assert load_market(tmp_path / "link").fingerprint() == market.fingerprint()
    assert sorted(path.name for path in (tmp_path / "large").iterdir()) == ["market", "real.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "link", "link.csv"]


def test_a_folder_whose_name_is_not_utf8_is_written_and_read(market, tmp_path):
    log = Interactions.of(market, [0, 5], [3, 4], [1.0, 0.5])
    market_folder, log_folder = (tmp_path / os.fsdecode(name) for name in (b"m\xe9", b"l\xe9"))
    for _ in range(2):
        market.save(market_folder)
        log.save(log_folder)
        assert load_market(market_folder).fingerprint() == market.fingerprint()
        assert len(Interactions.load(log_folder, market)) == 2
