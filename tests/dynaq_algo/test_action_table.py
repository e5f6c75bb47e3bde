"""The table that ids name."""

import numpy as np
import pytest

from dynaq_algo.action_table import ActionTable


def test_table_keeps_to_the_disk_and_gives_float32(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float16)
    np.save(tmp_path / "table.npy", values)
    table = ActionTable(tmp_path / "table.npy")
    assert isinstance(table.values, np.memmap)
    assert table.path == str(tmp_path / "table.npy")
    assert ActionTable(np.asarray(table.values)).path == table.path
    assert table.sha256 == ActionTable(values).sha256 != ActionTable(values.astype(np.float32)).sha256
    rows = table.rows(np.array([[5, 0], [1, 1]]))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, values[[[5, 0], [1, 1]]].astype(np.float32))


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(n_actions, d_a\).*got float64 \(3,\)"):
        ActionTable(np.zeros(3))
    for other in (np.zeros((3, 2), complex), np.zeros((3, 2), "m8[s]"), np.zeros((3, 2), bool)):
        with pytest.raises(ValueError, match=r"must be an array \(n_actions, d_a\) of numbers"):
            ActionTable(other)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 an npz"], ids=["empty", "text", "zip"])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    (tmp_path / "table.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"table.npy is not a whole .npy file of `action_features`"):
        ActionTable(tmp_path / "table.npy")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_a_table_with_a_number_that_is_not_finite_is_refused(bad):
    values = np.zeros((20_000, 2))
    values[12_345, 1] = bad
    with pytest.raises(ValueError, match=r"`action_features` must hold finite numbers \(in float32\), row 12345 does"):
        ActionTable(values)
    assert len(ActionTable(np.zeros((3, 2), np.int64))) == 3
