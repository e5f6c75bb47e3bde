"""Markets and logs on a full disk, in places that cannot be written, with few file handles, and without a home."""

import os
import pwd

import numpy as np
import pytest
from little_room import as_nobody, files_left, room_for

from jobrec_gym import Interactions, LabourMarket, load_market
from jobrec_gym.encoders import HashingEncoder, SentenceTransformerEncoder, make_encoder
from jobrec_gym.market import MarketError


@pytest.fixture(scope="module")
def log(market):
    rows = np.arange(200)
    return Interactions.of(market, rows % 40, rows % 60, rows % 3, shown=[[row % 60, 59 - row % 60] for row in rows])


WRITTEN = {
    "market": lambda log, path: log.market.save(path),
    "log": lambda log, path: log.save(path),
    "log.csv": lambda log, path: log.write_csv(path),
}
READ = {
    "market": lambda log, path: LabourMarket.load(path),
    "log": lambda log, path: Interactions.load(path, log.market),
    "log.csv": lambda log, path: path.read_text(),
}


@pytest.mark.parametrize("n_bytes", [0, 300, 1_200])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_full_disk_is_said_with_the_place_and_costs_nothing(log, tmp_path, name, n_bytes):
    path = tmp_path / name
    for is_there in (False, True):
        with room_for(n_bytes), pytest.raises(OSError, match="File too large") as told:
            WRITTEN[name](log, path)
        assert told.value.filename == str(path)
        assert [left.name for left in tmp_path.iterdir()] == [name] * is_there
        if not is_there:
            WRITTEN[name](log, path)
        READ[name](log, path)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_place_that_cannot_be_written_is_named(log, name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/deep'"):
        WRITTEN[name](log, tmp_path / "file" / "deep" / name)

    def work():
        with pytest.raises(PermissionError) as told:
            WRITTEN[name](log, f"/{name}")
        return told.value.filename == f"/{name}"

    assert as_nobody(work)


@pytest.mark.parametrize("n", range(0, 40, 3))
def test_too_few_file_handles_are_no_broken_market(market, tmp_path, n):
    market.save(tmp_path / "market")
    try:
        with files_left(n):
            LabourMarket.load(tmp_path / "market")
        assert n > 10
    except MarketError as error:
        assert n < 39 and "Too many open files" in str(error) and "save it again" not in str(error)
    assert len(LabourMarket.load(tmp_path / "market").jobs) == 60


def test_a_market_that_may_not_be_read_is_no_broken_market(market, tmp_path):
    (market.save(tmp_path / "market").folder / "jobs.npy").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):  # pytest's own are its user's alone
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)

    def work():
        with pytest.raises(MarketError, match=r"market cannot be read \(Permission denied\): change its rights"):
            LabourMarket.load(tmp_path / "market")
        return True

    assert as_nobody(work)


@pytest.fixture
def homeless(monkeypatch):
    """A user whom the system does not know, in an environment that says nothing."""

    def unknown(*_):
        raise KeyError("no such user")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert os.path.expanduser("~") == "~"  # noqa: PTH111


def test_without_a_home_texts_are_encoded_and_kept_nowhere(homeless, caplog):
    assert isinstance(make_encoder("all-MiniLM-L6-v2"), SentenceTransformerEncoder)
    assert isinstance(make_encoder(HashingEncoder(), cache_dir=True), HashingEncoder)
    assert caplog.text.count("Set HOME or XDG_CACHE_HOME, or name a folder by `cache_dir`") == 2


def test_without_a_home_a_market_is_saved_and_verified(homeless, market, tmp_path):
    market.save(tmp_path / "market")
    assert len(load_market(tmp_path / "market", verify=True).jobs) == 60
