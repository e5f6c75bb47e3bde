"""Paths that begin with `~`."""

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
