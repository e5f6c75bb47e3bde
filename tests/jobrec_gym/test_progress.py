import logging
import sys

import pytest

from jobrec_gym import progress
from jobrec_gym.progress import steps


@pytest.fixture(autouse=True)
def impatient(monkeypatch, caplog):
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    caplog.set_level(logging.INFO)


def test_a_log_says_how_much_is_done_how_fast_and_what_is_left(caplog):
    assert list(steps(25, 10, "indexing", "job")) == [0, 10, 20]
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "indexing: 10 of 25",
        "indexing: 20 of 25",
        "indexing: 25 of 25",
    ]
    assert all(" jobs a second, " in record.message for record in caplog.records)
    assert caplog.records[-1].message.endswith(" 0 s left")


def test_a_terminal_shows_a_bar_with_rate_and_time_left(monkeypatch, capsys, caplog):
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(steps(25, 10, "indexing", "job")) == [0, 10, 20]
    shown = capsys.readouterr().err
    assert "indexing" in shown and "25/25" in shown and "job/s" in shown and "<" in shown
    assert not caplog.records


@pytest.mark.parametrize(("total", "shows"), [(5, None), (25, False), (0, True)])
def test_short_work_and_silent_work_show_nothing(total, shows, caplog, capsys):
    list(steps(total, 10, "indexing", "job", progress=shows))
    assert not caplog.records and capsys.readouterr().err == ""
