"""Arrays in files of others: no size is believed, nothing is unpickled, what is broken is a ValueError."""

import io
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jobrec_gym import load_market
from jobrec_gym.array_files import give_back, mapped_array, read_arrays
from jobrec_gym.market import LabourMarket
from jobrec_gym.simulators.recorded import RecordedSimulator, Recording


def npy(header, data=b""):
    text = (header + " " * (118 - len(header)) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def kept_kib(folder):
    """Of files in a folder, how much of what this process has mapped of them is in memory."""
    maps = re.findall(
        rf"{re.escape(str(folder))}/.*\n(?:\w+: .*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text()
    )
    assert maps, "nothing of it is mapped"
    return sum(map(int, maps))


def saved(array):
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


NO_LETTER = np.array([0x110000], "<u4").view("<U1")
HALF = np.array([0xD800], ">u4").view(">U1")
BROKEN = {
    "nothing": b"",
    "half a header": saved(np.ones(3))[:60],
    "a header that is no Python": npy("{'descr': '<f8', 'shape': (2,"),
    "a size beyond memory": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([1])),
    "fewer numbers than it says": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", bytes(8)),
    "another format": b"\x93NUMPY\x09\x00" + bytes(100),
    "a letter that there is not": saved(NO_LETTER),
    "half a letter": saved(HALF),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_array_is_a_value_error(tmp_path, how):
    (tmp_path / "a.npy").write_bytes(BROKEN[how])
    with pytest.raises(ValueError):
        mapped_array(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", BROKEN[how])
    with pytest.raises(ValueError):
        read_arrays(tmp_path / "a.npz")


def test_whole_arrays_come_back(tmp_path):
    arrays = {"texts": np.array(["é", "x"]), "numbers": np.arange(6.0).reshape(2, 3), "nothing": np.zeros((0, 2), "U3")}
    np.savez(tmp_path / "a.npz", **arrays)
    found = read_arrays(tmp_path / "a.npz")
    for name, array in arrays.items():
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(mapped_array(tmp_path / "a.npy"), array)
        np.testing.assert_array_equal(found[name], array)


def test_an_archive_is_no_array_and_one_that_unpacks_to_more_than_the_bound_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", zeros=np.zeros(10_000))
    with pytest.raises(ValueError, match="is an archive"):
        mapped_array(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="unpacks to more than 1,000 bytes"):
        read_arrays(tmp_path / "a.npz", max_bytes=1_000)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "b.npz")


@pytest.fixture(scope="module")
def recording():
    market = load_market("default", n_jobs=3, n_applicants=2)
    return Recording.of(market, np.full((2, 3), 0.5), [0.2, 0.4, 0.6], model="m", prompt="p", persona="")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_recording_that_is_cut_is_named(recording, tmp_path, share):
    path = tmp_path / "recording.npz"
    recording.save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        ValueError,
        match=r"`recording` '.*recording\.npz' is not a recording, or not a whole one: .*use an unchanged copy",
    ):
        RecordedSimulator(path).load()


@pytest.mark.parametrize(
    "changes",
    [
        {"probability": np.full((2, 2), 0.5, np.float32)},
        {"probability": np.full((2, 3), 1.5, np.float32)},
        {"thresholds": np.array([0.5, 0.4, 0.6])},
        {"thresholds": np.array([0.5, 0.6, np.nan])},
        {"job_keys": np.arange(3)},
        {"job_sha256": np.array(["x"])},
        {"model": np.array(["a", "b"])},
    ],
)
def test_a_recording_whose_parts_do_not_fit_is_refused(recording, tmp_path, changes):
    path = tmp_path / "recording.npz"
    recording.save(path)
    with np.load(path) as file:
        np.savez(tmp_path / "other.npz", **{**file, **changes})
    Recording.load(path)
    with pytest.raises(ValueError, match=r"other\.npz' is not a recording, or not a whole one"):
        Recording.load(tmp_path / "other.npz")


needs_maps = pytest.mark.skipif(
    not Path("/proc/self/smaps").is_file(), reason="the system does not tell what is mapped"
)


@needs_maps
def test_memory_of_a_mapped_array_is_given_back_and_read_again(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(100_000))
    array = mapped_array(tmp_path / "a.npy")[:50_000].view(np.ndarray)
    assert int(array.sum()) == 1_249_975_000 and kept_kib(tmp_path) > 300
    give_back(array)
    assert kept_kib(tmp_path) == 0 and int(array.sum()) == 1_249_975_000
    give_back(np.arange(3))  # is not mapped


@needs_maps
@pytest.mark.parametrize("verify", [None, True, False])
def test_a_market_that_was_only_opened_takes_no_memory(tmp_path, verify):
    load_market("default", n_jobs=600, n_applicants=500, context=["place"]).save(tmp_path / "market")
    market = LabourMarket.load(tmp_path / "market", verify=verify)
    assert kept_kib(tmp_path) == 0
    market.fingerprint()
    assert kept_kib(tmp_path) > 1_000
