"""Arrays in files of others: no size is believed, nothing is unpickled, what is broken is a ValueError."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from jobrec_gym import load_market
from jobrec_gym.array_files import mapped_array, read_arrays
from jobrec_gym.simulators.recorded import RecordedSimulator, Recording


def npy(header, data=b""):
    text = (header + " " * (118 - len(header)) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


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
        ValueError, match=r"`recording` '.*recording\.npz' is not a recording, or not a whole one: .*take a"
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
