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
