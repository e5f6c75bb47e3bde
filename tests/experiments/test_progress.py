import io
import logging
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.runs import build, progress
from experiments.runs.progress import Progress, progress_bars, tracked
from experiments.runs.recording import LearningProgress

CONF = Path(build.__file__).parents[2] / "conf"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test winds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_terminal_gets_a_bar_with_rate_and_time_left():
    stream = Terminal()

    with Progress(40, "recording", "pair", stream=stream) as shown:
        shown.update(40)

    last = stream.getvalue().split("\r")[-1]
    assert last.startswith("recording: 100%|") and "40/40" in last and "pair/s" in last


def test_a_log_gets_a_line_every_half_minute_with_rate_and_time_left(clock):
    lines = []
    shown = Progress(100, "recording", "pair", stream=io.StringIO(), write=lines.append)

    for _ in range(7):
        clock[0] += 10.0
        shown.update(10)
    shown.close()

    assert lines == [
        "recording: 30 of 100 pairs, 00:30 gone, 01:10 to go, 1.0 a second",
        "recording: 60 of 100 pairs, 01:00 gone, 00:40 to go, 1.0 a second",
        "recording: 70 of 100 pairs, 01:10 gone, 00:30 to go, 1.0 a second",
    ]


def test_short_work_leaves_no_line_in_a_log(clock):
    stream = io.StringIO()

    with Progress(10, "recording", "pair", stream=stream) as shown:
        shown.update(10)

    assert stream.getvalue() == ""


def test_what_was_done_before_is_not_counted_as_fast(clock):
    lines = []
    shown = Progress(100, "learning", "interaction", done=80, stream=io.StringIO(), write=lines.append)
    clock[0] = 30.0
    shown.reach(90)
    shown.reach(85)

    assert lines == ["learning: 90 of 100 interactions, 00:30 gone, 00:30 to go, 3.0 s each"]


def test_items_pass_and_are_counted(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)

    assert list(tracked([3, 1, 2], "evaluation", "run")) == [3, 1, 2]
    assert "3/3" in stream.getvalue()


def test_a_command_may_want_a_bar_or_nothing_of_all_its_work(clock, capsys):
    with progress_bars(False):
        for _ in tracked([1, 2], "evaluation", "run"):
            clock[0] += 100.0
    assert capsys.readouterr().err == ""
    with progress_bars(True):
        list(tracked([1, 2], "evaluation", "run"))
    assert "2/2" in capsys.readouterr().err
    for _ in tracked((item for item in (1, 2)), "evaluation", "run", total=2):
        clock[0] += 100.0
    assert "evaluation: 1 of 2 runs" in capsys.readouterr().err


def test_what_a_bar_may_be_is_said():
    with pytest.raises(ValueError, match=r"`progress_bar` must be true, false or null, got 'no'"), progress_bars("no"):
        pass


def test_every_command_but_the_short_ones_has_a_progress_bar():
    configs = [*CONF.glob("*.yaml"), CONF / "benchmark" / "benchmark.yaml"]
    without = {path.stem for path in configs if "\nprogress_bar: null #" not in path.read_text()}

    assert without == {
        "cache",
        "career_goals",
        "goals",
        "leaderboard",
        "look",
        "report",
        "serve",
    }


@pytest.mark.parametrize("algo", ["dynaq", "random"])
def test_a_run_shows_a_bar_if_it_is_wanted(run, algo, capsys):
    run(f"algo={algo}", "progress_bar=true", folder="a")
    assert "30/30" in capsys.readouterr().err
    run(f"algo={algo}", "progress_bar=false", folder="b")
    assert "learning" not in capsys.readouterr().err


def test_a_run_writes_lines_into_its_log(run, monkeypatch, caplog):
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)

    with caplog.at_level(logging.INFO, logger="experiments.runs.training"):
        run("algo=random", "progress_bar=null")

    lines = [record.message for record in caplog.records if record.message.startswith("learning, seed 0: ")]
    assert len(lines) > 10 and "learning, seed 0: 30 of 30 interactions" in lines[-1]


def test_a_run_that_goes_on_shows_what_was_done_before(clock):
    lines = []
    callback = LearningProgress(50, bar=False, write=lines.append)
    callback.model = type("Model", (), {"num_timesteps": 20})()
    callback.on_training_start({}, {})
    clock[0] = 40.0
    callback.model.num_timesteps = 30
    callback._on_step()
    callback.on_training_end()

    assert lines[0].startswith("learning: 30 of 50 interactions, 00:40 gone, 01:20 to go, 4.0 s each")
