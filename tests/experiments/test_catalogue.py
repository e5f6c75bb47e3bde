import itertools

import pytest

from experiments.benchmarks.catalogue import catalogue_rows

pytest.importorskip("faiss", reason="needs the extra 'index'")


def test_a_small_catalogue_is_measured_in_a_process_of_its_own(tmp_path):
    rows = list(catalogue_rows(tmp_path, n_jobs=3_000, n_applicants=250, exact_up_to=500))
    opening, built, memory, reset, recall = rows
    assert [row.unit for row in rows] == ["s", "min", "x", "ms", ""]
    assert set(opening.details) == {"unverified", "with digests"} and opening.measured > 0
    assert all(row.name.startswith("3,000 jobs") and row.holds is not None for row in rows)
    assert 0 < built.measured < 15
    # Interpreter and libraries weigh many times 3,000 vectors; both tables are in it.
    assert memory.details["file_bytes"] > 3_250 * 768 * 2
    assert memory.measured * 3_000 * 768 * 2 == pytest.approx(memory.details["rss_bytes"])
    assert memory.details["loaded"] == []
    assert 0 < reset.measured <= reset.details["reset_ms_90"]
    assert recall.measured >= 0.95


def test_what_lies_there_is_not_built_again(tmp_path, monkeypatch):
    _, first, *_ = catalogue_rows(tmp_path, n_jobs=1_000, n_applicants=20, exact_up_to=500)
    monkeypatch.setattr("experiments.benchmarks.catalogue.open_index", lambda _: pytest.fail("built again"))
    rows = catalogue_rows(tmp_path, n_jobs=1_000, n_applicants=20, exact_up_to=500)
    assert list(itertools.islice(rows, 2))[1] == first
