"""Logs: read, refused, saved, and handed to others."""

import copy
import csv
import datetime
import decimal
import errno
import json
import logging
import pickle
import re
import signal
import subprocess
import sys
import tracemalloc

import gymnasium as gym
import numpy as np
import pytest

import jobrec_gym  # noqa: F401  # registers the environment
from jobrec_gym import interactions
from jobrec_gym.interactions import Interactions, LogError, ObservationForm
from jobrec_gym.loaders.interactions import load_interactions
from jobrec_gym.loaders.reading import read_table
from jobrec_gym.market import MarketError, load_market

HEADER = ["applicant", "job", "decision", "reward", "time", "posted", "shown", "propensity", "split"]
GOOD = ["p1", "1", "apply", "1.0", "2026-03-01", "2026-02-01", "1;5;7", "0.5", "train"]
COLUMNS = ("applicant_ids", "job_ids", "reward", "decision", "held_out", "time", "propensity", "shown_ids")
SKILLS = ("sql", "python", "welding", "baking", "nursing", "law")


def write(path, rows, header=None):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header or HEADER, *rows])
    return path


@pytest.fixture
def shop(tmp_path):
    """Three people p1, p2, 1 and the jobs 7, 5, 3, 1, x: keys that look like numbers, and are no row numbers."""
    jobs = [[key, f"{SKILLS[i]};{SKILLS[i + 1]}"] for i, key in enumerate(("7", "5", "3", "1", "x"))]
    people = [[key, f"{SKILLS[i]};{SKILLS[i + 2]}"] for i, key in enumerate(("p1", "p2", "1"))]
    write(tmp_path / "jobs.csv", jobs, ["key", "hard"])
    write(tmp_path / "people.csv", people, ["key", "hard"])
    options = {"encoder": "hashing", "cache_dir": False}
    return load_market(f"csv:{tmp_path / 'jobs.csv'}", applicants=str(tmp_path / "people.csv"), **options)


@pytest.fixture
def log(market):
    return Interactions.of(
        market,
        [0, 0, 5],
        [3, 4, 3],
        [1.0, -0.1, np.nan],
        decision=[3, 0, -1],
        time=[0.0, 1.0, 2.5],
        propensity=[0.5, 0.2, 1 / 3],
        shown=[[3, 4, 5], [3, 4, 5], [9, 3]],
    )


def assert_same(one, other):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


# ------------------------------------------------------------------------------------------------------------- reading


def test_a_row_is_read_with_all_that_it_says(shop, tmp_path):
    log = load_interactions(f"csv:{write(tmp_path / 'log.csv', [GOOD])}", shop)

    assert log.applicant_ids.tolist() == [0]
    assert log.job_ids.tolist() == [3]
    assert log.reward.tolist() == [1.0]
    assert log.decision.tolist() == [3]
    assert log.time.tolist() == [datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC).timestamp()]
    assert log.shown(0).tolist() == [3, 1, 0]
    assert log.chosen.tolist() == [0]
    assert log.propensity.tolist() == [0.5]
    assert log.held_out.tolist() == [False]


@pytest.mark.parametrize(("cell", "row"), [("1", 2), ("p2", 1), (1, 2), (1.0, 2), ("1.0", 2)])
def test_a_number_is_the_key_of_that_name_whatever_row_it_is(shop, tmp_path, cell, row):
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps({"applicant": cell, "job": 7, "reward": 1}))

    log = load_interactions(file, shop)

    assert (log.applicant_ids.tolist(), log.job_ids.tolist()) == ([row], [0])


def test_keys_are_read_as_the_market_reads_them(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    days = [datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)]
    numbers = [decimal.Decimal("5"), decimal.Decimal("6")]
    for keys in (days, numbers, ["R&amp;D", "<b>sales</b>"]):
        jobs = pyarrow.table({"key": pyarrow.array(keys), "hard": SKILLS[:2]})
        parquet.write_table(jobs, tmp_path / "jobs.parquet")
        write(tmp_path / "people.csv", [["p", "sql"]], ["key", "hard"])
        market = load_market(f"{tmp_path / 'jobs.parquet'}", applicants=str(tmp_path / "people.csv"), encoder="hashing")
        log = pyarrow.table({"applicant": ["p", "p"], "job": pyarrow.array(keys), "reward": [1.0, 0.0]})
        parquet.write_table(log, tmp_path / "log.parquet")
        assert load_interactions(tmp_path / "log.parquet", market).job_ids.tolist() == [0, 1]


def test_row_numbers_are_read_where_the_log_is_said_to_hold_them(shop, tmp_path):
    file = write(tmp_path / "log.csv", [["1", "3", "1", "3;4"]], ["applicant", "job", "reward", "shown"])

    log = load_interactions(file, shop, ids="row")

    assert (log.applicant_ids.tolist(), log.job_ids.tolist(), log.shown(0).tolist()) == ([1], [3], [3, 4])


def test_a_data_frame_in_place_of_a_file_is_told_the_way(shop):
    pandas = pytest.importorskip("pandas", reason="needs the extra 'experiments'")
    with pytest.raises(LogError, match=r"`source` must be a file .*got a DataFrame: write it .*`frame.to_parquet\("):
        load_interactions(pandas.DataFrame({"applicant": ["p1"], "job": ["j1"]}), shop)


def test_own_columns_own_words_and_own_rewards(shop, tmp_path):
    file = write(tmp_path / "log.csv", [["p1", "x", "applied"], ["p2", "x", "seen"]], ["user", "item", "what"])

    log = load_interactions(
        file,
        shop,
        {"applicant": "user", "job": "item", "decision": "what"},
        decisions={"applied": "apply", "seen": "ignore"},
        rewards={"ignore": -1.0},
    )

    assert log.reward.tolist() == [1.0, -1.0]


def test_a_parquet_file_is_read_as_the_csv_is(shop, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    import pyarrow.parquet as pq

    day = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    rows = {"applicant": ["p1"], "job": [1], "reward": [1.0], "time": [day], "shown": [[1, 5]], "propensity": [0.5]}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    other = write(tmp_path / "log.csv", [["p1", "1", "1", "2026-03-01T00:00:00Z", "1;5", ".5"]], list(rows))

    assert_same(load_interactions(tmp_path / "log.parquet", shop), load_interactions(other, shop))


def test_a_row_without_an_answer_is_kept_as_that_and_counted(shop, tmp_path, caplog):
    file = write(tmp_path / "log.csv", [["p1", "x", "apply"], ["p2", "x", ""]], ["applicant", "job", "decision"])

    with caplog.at_level(logging.WARNING):
        log = load_interactions(file, shop)

    assert log.answered.tolist() == [True, False]
    assert "1 of 2 rows have no answer" in caplog.text


def test_a_log_in_which_nothing_was_answered_says_so(shop, tmp_path):
    file = write(tmp_path / "log.csv", [["p1", "x", ""], ["p2", "x", ""]], ["applicant", "job", "decision"])

    with pytest.raises(LogError, match="none of the 2 rows has an answer"):
        load_interactions(file, shop, on_bad="skip")


def test_the_market_splits_a_log_unless_it_splits_itself_or_time_does(shop, tmp_path):
    rows = [["p1", "x", "1", "3", "test"], ["p2", "x", "1", "2", "train"], ["1", "x", "1", "1", "train"]]
    header = ["applicant", "job", "reward", "time", "split"]
    file = write(tmp_path / "log.csv", rows, header)
    bare = write(tmp_path / "bare.csv", [row[:4] for row in rows], header[:4])

    assert load_interactions(file, shop).held_out.tolist() == [True, False, False]
    assert load_interactions(bare, shop).held_out.tolist() == shop.applicants.held_out.tolist()
    by_time = load_interactions(bare, shop, split_by="time", test_fraction=0.3)
    assert by_time.held_out.tolist() == [True, False, False]
    assert by_time.split("test").applicant_ids.tolist() == [0]
    with pytest.raises(ValueError, match="`split` must be one of"):
        by_time.split("tset")


# ----------------------------------------------------------------------------------------------------------- bad rows


def changed(**cells):
    return [cells.get(name, cell) for name, cell in zip(HEADER, GOOD, strict=True)]


BAD_ROWS = [
    *(("unknown person", {"applicant": cell}) for cell in ("", "p9", "0", "P1", "1.5", "p1;p2", "nan")),
    *(("unknown job", {"job": cell}) for cell in ("", "2", "0", "-1", "1.5", "1e0", "X")),
    *(("unknown decision", {"decision": cell}) for cell in ("applied", "APPLY", "1", "apply;save", "true")),
    *(("reward that is no finite number", {"reward": cell}) for cell in ("inf", "-inf", "1,5", "yes", "1e999")),
    *(("no time", {"time": cell}) for cell in ("", "yesterday", "inf", "2026-13-01", "01.03.2026", "2026-02-30")),
    *(("posting time that cannot be read", {"posted": cell}) for cell in ("soon", "-inf", "2026-00-01")),
    *(("time before the posting", {"time": cell}) for cell in ("2026-01-31", "2026-01-31T23:59:59")),
    ("time with a zone among times without one", {"time": "2026-03-01T08:00Z"}),
    ("number among dates", {"time": "0"}),
    *(
        ("propensity outside of (0, 1]", {"propensity": cell})
        for cell in ("", "0", "-0.5", "1.0000001", "50%", "inf", "0,5", "2")
    ),
    *(("nothing shown", {"shown": cell}) for cell in ("", "n/a")),
    *(("unknown job among those shown", {"shown": cell}) for cell in ("1;5;6", "1,5,7", "1|5")),
    *(("shown job that is no key", {"shown": cell}) for cell in ("[1, null]", "[1, [5]]")),
    *(("the same job shown twice", {"shown": cell}) for cell in ("1;5;1", "[1, 1.0]", "1;5;5")),
    *(("recommended job not among those shown", {"shown": cell}) for cell in ("5;7", "[]", ";", '["x"]')),
    *(("list of shown jobs that cannot be read", {"shown": cell}) for cell in ("[1, 5", "[1; 5]")),
    *(("split that is neither train nor test", {"split": cell}) for cell in ("", "validation", "Train")),
]


SETS = (
    ["p1", "7", "apply", "7;gone;5"],
    ["p1", "7", "apply", "7;lost;5"],  # the row before it, with another set
    ["p2", "5", "ignore", "gone;5;lost;away;far"],
    ["p2", "gone", "click", "gone;7"],
    ["1", "x", "click", "x;3"],
)


def test_a_set_keeps_its_known_jobs_if_it_is_asked_to(shop, tmp_path, caplog):
    file = write(tmp_path / "log.csv", SETS, ["applicant", "job", "decision", "shown"])
    log = load_interactions(file, shop, on_bad="skip", on_unknown_shown="skip")

    assert [shop.jobs.keys[log.shown(row)].tolist() for row in range(len(log))] == [["7", "5"]] * 2 + [
        ["5"],
        ["x", "3"],
    ]
    assert "1 of 5 rows are impossible: unknown job: 1, row 4 ('gone'). They were left out." in caplog.text
    said = "3 of 4 candidate sets are without the jobs that the market lacks: 4 jobs, 'gone', 'lost', 'away', ..."
    assert caplog.text.rstrip().endswith(f"log.csv: {said}."), "there are no propensities to tell of"
    whole = load_interactions(file, shop, on_bad="skip")
    assert whole.job_ids.tolist() == [4]


def test_a_row_whose_own_job_is_unknown_is_wrong_however_its_set_is_read(shop, tmp_path):
    file = write(tmp_path / "log.csv", SETS, ["applicant", "job", "decision", "shown"])
    with pytest.raises(LogError, match=r"1 of 5 rows are impossible: unknown job: 1, row 4"):
        load_interactions(file, shop, on_unknown_shown="skip")
    with pytest.raises(LogError, match=r"unknown job among those shown: 3,.*`on_unknown_shown='skip'` takes the known"):
        load_interactions(file, shop)
    with pytest.raises(LogError, match=r"`on_unknown_shown` must be one of \('bad', 'skip'\), got 'raise'"):
        load_interactions(file, shop, on_unknown_shown="raise")


@pytest.mark.parametrize("entry", ["2.5", "-1", "x"])
def test_what_is_no_row_number_is_no_unknown_job(shop, tmp_path, entry):
    header = ["applicant", "job", "decision", "shown"]
    file = write(tmp_path / "log.csv", [["0", "1", "click", f"1;{entry}"], ["1", "1", "click", "1;99"]], header)
    options = {"ids": "row", "on_unknown_shown": "skip"}

    with pytest.raises(
        LogError, match=rf"1 of 2 rows are impossible: shown job that is no row number: 1, row 1 \('{entry}"
    ):
        load_interactions(file, shop, **options)
    log = load_interactions(file, shop, **options, on_bad="skip")
    assert (log.applicant_ids.tolist(), log.shown(0).tolist()) == ([1], [1]), "99 is a row number, of an unknown job"


def test_one_set_that_lacks_one_job_is_told_in_the_singular(shop, tmp_path, caplog):
    file = write(tmp_path / "log.csv", [["p1", "7", "apply", "7;gone"]], ["applicant", "job", "decision", "shown"])
    load_interactions(file, shop, on_unknown_shown="skip")
    assert "1 of 1 candidate sets is without the jobs that the market lacks: 1 job, 'gone'." in caplog.text


def test_a_log_whose_sets_lack_jobs_has_no_propensities(shop, tmp_path, caplog):
    rows = [[*row, ".5"] for row in SETS]
    options = {"on_bad": "skip", "on_unknown_shown": "skip"}
    header = ["applicant", "job", "decision", "shown", "propensity"]

    assert load_interactions(write(tmp_path / "log.csv", rows, header), shop, **options).propensity is None
    assert "So the log gets no propensities" in caplog.text
    whole = load_interactions(write(tmp_path / "whole.csv", rows[4:], header), shop, **options)
    assert whole.propensity.tolist() == [0.5], "no set lacks a job"


def test_there_are_fifty_kinds_of_bad_rows():
    assert len({json.dumps(cells) for _, cells in BAD_ROWS}) == len(BAD_ROWS) >= 50


@pytest.mark.parametrize(("cell", "moving"), [("yes", True), (" True", True), ("0", False), ("no", False)])
def test_one_row_of_applicants_who_moved_makes_a_log_of_them(shop, tmp_path, cell, moving):
    rows = [["p1", "1", "1", "no"], ["p2", "1", "1", cell]]
    file = write(tmp_path / "log.csv", rows, ["applicant", "job", "reward", "moving"])
    assert load_interactions(file, shop).moving is moving
    bad = write(tmp_path / "bad.csv", [*rows, ["p1", "5", "1", "perhaps"]], ["applicant", "job", "reward", "moving"])
    with pytest.raises(LogError, match=r"moving that is neither yes nor no: 1, row 3 \('perhaps'\)"):
        load_interactions(bad, shop)


@pytest.mark.parametrize(("kind", "cells"), BAD_ROWS, ids=lambda value: str(value))
def test_a_row_that_cannot_be_is_counted_named_and_left_out_on_demand(shop, tmp_path, caplog, kind, cells):
    other = changed(applicant="p2")
    file = write(tmp_path / "log.csv", [GOOD, changed(**cells), other])

    with pytest.raises(LogError) as caught:
        load_interactions(file, shop)
    message = str(caught.value)
    assert f"log.csv: 1 of 3 rows are impossible: {kind}: 1, row 2 (" in message
    assert "`on_bad='skip'` leaves them out" in message

    with caplog.at_level(logging.WARNING):
        log = load_interactions(file, shop, on_bad="skip")
    assert log.applicant_ids.tolist() == [0, 1]
    assert f"{kind}: 1" in caplog.text


@pytest.mark.parametrize(("word", "cell"), [("none", "none"), ("-", " - "), ("", ""), ("0", "0"), ("0", "0.0")])
def test_a_word_that_else_says_nothing_is_a_decision_where_the_user_says_so(shop, tmp_path, word, cell):
    file = write(tmp_path / "log.csv", [["p1", "x", "1"], ["p2", "x", cell]], ["applicant", "job", "decision"])

    log = load_interactions(file, shop, decisions={"1": "click", word: "ignore"})

    assert log.reward.tolist() == [0.0, -0.1]


def test_the_way_out_of_an_unknown_decision_is_to_say_what_it_means(shop, tmp_path):
    file = write(tmp_path / "log.csv", [["p1", "x", "APPLY"], ["p2", "x", "save"]], ["applicant", "job", "decision"])

    with pytest.raises(LogError, match=r"say what other words mean, `decisions=\{'APPLY': 'apply'\}`") as caught:
        load_interactions(file, shop)
    assert "looked up by the market's keys" not in str(caught.value)
    rows = [["p1", "x", word] for word in ("impression", "clicked", "impression", "bookmark")]
    with pytest.raises(LogError) as caught:
        load_interactions(write(file, rows, ["applicant", "job", "decision"]), shop)
    assert "`decisions={'impression': ..., 'clicked': 'click', 'bookmark': ...}`" in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "way_out"),
    [
        ({"reward": "true"}, "words are decisions, `columns={'decision': ...}, decisions={'yes': 'click'"),
        ({"time": "01.03.2026 08:00"}, "A time is a number, or a date such as 2026-06-01T08:00"),
        ({"propensity": "12.5"}, "A propensity is a share"),
        ({"shown": "1;5;9"}, "The market must have all jobs that were shown, also expired ones"),
        ({"job": "0005"}, "The market has '5', not '0005': a spreadsheet may have dropped zeros"),
    ],
    ids=str,
)
def test_the_way_out_of_a_bad_cell_is_told(shop, tmp_path, cells, way_out):
    with pytest.raises(LogError, match=re.escape(way_out)):
        load_interactions(write(tmp_path / "log.csv", [GOOD, changed(**cells)]), shop)


@pytest.mark.parametrize("cells", [{"reward": "0.5"}, {"propensity": "0.25"}], ids=str)
def test_a_decimal_sign_that_was_given_is_not_proposed(shop, tmp_path, cells):
    good = {"reward": "1", "propensity": "1"}
    file = write(tmp_path / "log.csv", [changed(**good), changed(applicant="p2", **good | cells)])
    with pytest.raises(LogError, match=r"`decimal=','` makes '\.' a mere .* say `decimal='\.'`\.") as caught:
        load_interactions(file, shop, decimal=",")
    assert "say `decimal=','`" not in str(caught.value)
    assert len(load_interactions(file, shop, decimal=".")) == 2

    commas = {name: cell.replace(".", ",") for name, cell in cells.items()}
    write(file, [changed(**good), changed(applicant="p2", **good | commas)])
    with pytest.raises(LogError, match=r"If a comma is the decimal sign, say `decimal=','`\."):
        load_interactions(file, shop)
    with pytest.raises(LogError, match=r"`decimal='\.'` makes ',' a mere .* sign, say `decimal=','`\."):
        load_interactions(file, shop, decimal=".")


def test_a_time_that_two_formats_read_differently_is_named_with_both(shop, tmp_path):
    rows = [["p1", "1", "click", "13/02/2026"], ["p2", "1", "click", "01/02/2026"]]
    file = write(tmp_path / "log.csv", rows, ["applicant", "job", "decision", "time"])
    with pytest.raises(LogError, match=r"It is 2026-02-01 by '%d/%m/%Y' and 2026-01-02 by '%m/%d/%Y': give one of"):
        load_interactions(file, shop, date_format=["%d/%m/%Y", "%m/%d/%Y"])


def test_a_log_of_events_is_told_that_a_row_is_one_recommendation(shop, tmp_path, caplog):
    rows = [["p1", "x", "shown", "2026-05-04"], ["p1", "x", "apply", "2026-05-04"]]
    file = write(tmp_path / "log.csv", rows, ["applicant", "job", "decision", "time"])

    load_interactions(file, shop, decisions={"shown": "ignore"}, on_bad="skip")
    way_out = "If rows are events (shown, clicked, applied), say `events=True`"
    assert way_out in caplog.text
    with pytest.raises(LogError, match=re.escape(f"`decisions={{'shown': ...}}`. {way_out}")):
        load_interactions(file, shop)
    with pytest.raises(LogError, match=re.escape(f"`columns={{'reward': 'clicked'}}`. {way_out}")):
        load_interactions(write(tmp_path / "log.csv", [["p1", "x", "shown"]], ["applicant", "job", "event"]), shop)


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        (["2026-03-01", "20260302"], "number among dates: 1, row 2 ('20260302')"),
        (["1772323200", "2026-03-02"], "date among numbers: 1, row 2 ('2026-03-02')"),
        (["2026-03-01T08:00Z", "2026-03-02"], "time without a zone among times with one: 1, row 2 ('2026-03-02')"),
        (["2026-03-01", "2026-03-02T23:00-08:00"], "time with a zone among times without one: 1, row 2 ("),
    ],
)
def test_dates_and_numbers_are_not_compared(shop, tmp_path, times, kind):
    rows = [[who, "x", "1", time] for who, time in zip(("p1", "p2"), times, strict=True)]
    with pytest.raises(LogError) as caught:
        load_interactions(write(tmp_path / "log.csv", rows, ["applicant", "job", "reward", "time"]), shop)
    assert kind in str(caught.value)


@pytest.mark.parametrize(
    ("time", "posted", "kind"),
    [
        ("2026-06-01", "1748768400", "number among dates"),
        ("1780300000", "2026-06-01", "date among numbers"),
        ("2026-06-01", "2026-06-01T09:00", None),
        ("2026-06-01", "2026-06-02", "time before the posting"),
        ("2026-06-01T08:00", "2026-06-01T09:00", "time before the posting"),
        ("2026-06-01T08:00Z", "2026-06-01", None),
    ],
)
def test_a_time_and_a_posting_are_compared_as_they_are_written(shop, tmp_path, time, posted, kind):
    header = ["applicant", "job", "reward", "time", "posted"]
    file = write(tmp_path / "log.csv", [["p1", "x", "1", time, posted]], header)

    if kind is None:
        assert len(load_interactions(file, shop)) == 1
    else:
        with pytest.raises(LogError, match=f"{kind}: 1, row 1"):
            load_interactions(file, shop)


@pytest.mark.parametrize("spelling", ["true", "True", "TRUE", " true "])
def test_yes_and_no_may_be_decisions(shop, tmp_path, spelling):
    rows = [["p1", "x", spelling], ["p2", "x", "false"]]
    file = write(tmp_path / "log.csv", rows, ["applicant", "job", "decision"])

    assert load_interactions(file, shop, decisions={True: "apply", False: "ignore"}).decision.tolist() == [3, 0]


def test_a_word_is_found_however_its_letters_are_typed(shop, tmp_path):
    composed, apart = "\u00fcbersprungen", "u\u0308bersprungen"
    file = write(tmp_path / "log.csv", [["p1", "x", apart], ["p2", "x", composed]], ["applicant", "job", "decision"])

    for word in (composed, apart):
        assert load_interactions(file, shop, decisions={word: "save"}).decision.tolist() == [2, 2]


@pytest.mark.parametrize("shown", ["[1 5]", "[np.int64(1), np.int64(5)]", "[1, 5]", "array([1, 5])"])
def test_shown_jobs_may_be_an_array_of_numbers(shop, tmp_path, shown):
    file = write(tmp_path / "log.csv", [["p1", "1", "click", shown]], ["applicant", "job", "decision", "shown"])

    assert shop.jobs.keys[load_interactions(file, shop).shown(0)].tolist() == ["1", "5"]


@pytest.mark.parametrize(
    ("shown", "ids", "way_out"),
    [
        ("1, 5", "key", "Say `separator=','` if ',' separates the jobs that were shown."),
        ("1|5", "key", "Say `separator='|'` if '|' separates the jobs that were shown."),
        ("1,4", "row", "Say `separator=','` if ',' separates the jobs that were shown."),
        ("1 - 5", "key", None),
        ("1, gone", "key", None),
        ("[1; 5]", "key", """Write jobs that were shown as "j1;j2" (`separator` may be another sign), or as a JSON"""),
    ],
)
def test_shown_jobs_that_are_cut_wrongly_name_the_way_out(shop, tmp_path, shown, ids, way_out):
    file = write(tmp_path / "log.csv", [["1", "1", "click", shown]], ["applicant", "job", "decision", "shown"])

    with pytest.raises(LogError) as caught:
        load_interactions(file, shop, ids=ids)
    assert way_out in str(caught.value) if way_out else "separator=" not in str(caught.value)


def test_shown_jobs_that_lost_their_zeros_are_told(tmp_path):
    (tmp_path / "jobs.csv").write_text("key,hard\n001,law\n002,cooking\n")
    (tmp_path / "people.csv").write_text("key,hard\np1,law\n")
    market = load_market(tmp_path / "jobs.csv", applicants=tmp_path / "people.csv", encoder="hashing", cache_dir=False)
    file = write(tmp_path / "log.csv", [["p1", "001", "1", "[1, 2]"]], ["applicant", "job", "reward", "shown"])

    with pytest.raises(LogError, match="The market has '001', not '1': a spreadsheet may have dropped zeros"):
        load_interactions(file, market)


def test_a_job_called_none_may_be_all_that_was_shown(tmp_path):
    (tmp_path / "jobs.csv").write_text("key,hard\nnone,law\n1,cooking\n")
    (tmp_path / "people.csv").write_text("key,hard\nnan,law\n")
    market = load_market(f"csv:{tmp_path / 'jobs.csv'}", applicants=str(tmp_path / "people.csv"), encoder="hashing")
    file = write(tmp_path / "log.csv", [["nan", "none", "1", "none"]], ["applicant", "job", "reward", "shown"])

    assert load_interactions(file, market).shown(0).tolist() == [0]


@pytest.mark.parametrize(("n", "test_fraction", "n_test"), [(3, 0.01, 1), (3, 0.99, 2), (4, 0.5, 2)])
def test_time_leaves_a_row_on_each_side(shop, tmp_path, n, test_fraction, n_test):
    rows = [["p1", "x", "1", str(time)] for time in range(n)]
    file = write(tmp_path / "log.csv", rows, ["applicant", "job", "reward", "time"])

    held_out = load_interactions(file, shop, split_by="time", test_fraction=test_fraction).held_out

    assert held_out.tolist() == [False] * (n - n_test) + [True] * n_test


@pytest.mark.parametrize("without_time", [False, True])
def test_what_stands_there_twice_is_counted(shop, tmp_path, without_time):
    drop = HEADER.index("time")
    rows = [GOOD, GOOD, changed(applicant="p2"), GOOD]
    header = HEADER
    if without_time:
        rows = [[cell for place, cell in enumerate(row) if place != drop] for row in rows]
        header = [name for name in HEADER if name != "time"]
    file = write(tmp_path / "log.csv", rows, header)

    with pytest.raises(LogError, match=r"2 of 4 rows are impossible: twice the same: 2, row 2 \('p1, 1'\), row 4"):
        load_interactions(file, shop)


@pytest.mark.parametrize("posted", ["posted", "online"])
def test_rows_without_times_that_differ_in_the_posting_alone_are_two(shop, tmp_path, posted):
    header = ["applicant", "job", "reward", posted]
    file = write(tmp_path / "log.csv", [["p1", "x", "1", "2026-01-01"], ["p1", "x", "1", "2026-02-01"]], header)

    assert len(load_interactions(file, shop, {"posted": posted})) == 2


def test_times_and_numbers_are_read_as_they_are_said_to_be_written(shop, tmp_path):
    header = ["applicant", "job", "reward", "time", "posted", "propensity"]
    file = write(tmp_path / "log.csv", [["p1", "1", "0,5", "01.03.2026 08:00", "28.02.2026", "0,25"]], header)
    log = load_interactions(file, shop, decimal=",", date_format=["%d.%m.%Y %H:%M", "%d.%m.%Y"])
    plain = write(tmp_path / "plain.csv", [["p1", "1", "0.5", "2026-03-01T08:00", "2026-02-28", "0.25"]], header)
    assert_same(log, load_interactions(plain, shop))

    file = write(tmp_path / "log.csv", [["p1", "1", "1.000,5", "20260301", "", "1"]], header)
    log = load_interactions(file, shop, decimal=",", date_format="%Y%m%d")
    assert (log.reward.tolist(), log.time.tolist()) == (
        [1000.5],
        [datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC).timestamp()],
    )
    assert load_interactions(file, shop, decimal=",").time.tolist() == [20260301]
    with pytest.raises(
        LogError, match=r"no time: 1, .*A time is written as `date_format=\['%d.%m.%Y'\]` says. No single"
    ):
        load_interactions(file, shop, decimal=",", date_format="%d.%m.%Y")
    with pytest.raises(LogError, match=r"`decimal` must be '\.', ',' or None, got ';'"):
        load_interactions(file, shop, decimal=";")
    with pytest.raises(MarketError, match="`date_format` must name day, month and year"):
        load_interactions(file, shop, date_format="%d.%m.")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["31.03.2026 08:00", "01.04.2026 09:30"], "Say `date_format='%d.%m.%Y %H:%M'`, which fits all dates"),
        (["01/03/2026", "01/04/2026"], "ambiguous: `date_format='%d/%m/%Y'` and `date_format='%m/%d/%Y'` fit all"),
        (["2026-03-31", "01.04.2026"], "Say `date_format=['%d.%m.%Y', 'ISO8601']`"),
        (["5", "01.04.2026"], "No single usual form fits all dates of the column: say how they are written"),
    ],
)
def test_times_in_another_form_are_refused_with_the_format_that_fits(shop, tmp_path, times, message):
    rows = [["p1", "1", "click", time, ""] for time in times]
    for field in ("time", "posted"):
        file = write(tmp_path / "log.csv", rows, ["applicant", "job", "decision", field, "other"])
        with pytest.raises(LogError, match=re.escape(message)):
            load_interactions(file, shop)


def test_columns_of_usual_names_are_proposed(shop, tmp_path):
    file = write(tmp_path / "log.csv", [["p1", "1", "x", "5"]], ["Bewerber-ID", "Stelle", "Aktion", "Zeitpunkt"])
    said = "{'applicant': 'Bewerber-ID', 'job': 'Stelle', 'decision': 'Aktion', 'time': 'Zeitpunkt'}"
    with pytest.raises(LogError, match=re.escape(f"Say which it is, perhaps `columns={said}`.")):
        load_interactions(file, shop)
    with pytest.raises(
        LogError, match=re.escape("e.g. `columns={'applicant': 'Bewerber-ID', 'job': 'Stelle', 'decision'")
    ):
        load_interactions(file, shop, {"applicant": "Bewerber-ID", "job": "Stelle"})
    with pytest.raises(
        LogError, match=r"perhaps `columns=\{'job': 'Stelle', 'applicant': 'Bewerber-ID', 'event': 'Aktion'"
    ):
        load_interactions(file, shop, {"job": "Stelle"}, events=True)
    other = write(tmp_path / "other.csv", [["p1", "1", "x"]], ["who", "Stelle", "x"])
    with pytest.raises(LogError, match=r"Say which it is: `columns=\{'applicant': \.\.\.\}`\."):
        load_interactions(other, shop)


@pytest.mark.parametrize("word", ["ja", "Oui", "sí", "WAHR", "x", "1", "yes"])
def test_a_log_of_answers_that_moved_people_may_say_so_in_several_languages(shop, tmp_path, word):
    header = ["applicant", "job", "decision", "moving"]
    rows = [["p1", "1", "click", "nein"], ["p2", "1", "click", "non"]]
    assert not load_interactions(write(tmp_path / "log.csv", rows, header), shop).moving
    assert load_interactions(write(tmp_path / "log.csv", [*rows, ["p1", "5", "click", word]], header), shop).moving
    with pytest.raises(LogError, match=r"moving that is neither yes nor no: 1, row 3 \(''\)"):
        load_interactions(write(tmp_path / "log.csv", [*rows, ["p1", "5", "click", ""]], header), shop)


def test_a_job_may_be_recommended_at_the_moment_of_its_posting(shop, tmp_path):
    file = write(tmp_path / "log.csv", [["p1", "x", "1", "5", "5"]], ["applicant", "job", "reward", "time", "posted"])

    assert load_interactions(file, shop).time.tolist() == [5]


def test_the_zone_of_a_day_is_no_time_of_day(shop, tmp_path):
    file = write(tmp_path / "log.csv", [["p1", "x", "1", "1970-01-02+02:00"]], ["applicant", "job", "reward", "time"])

    assert load_interactions(file, shop).time.tolist() == [86_400 - 7_200]


def test_two_answers_at_one_time_are_twice_the_same_and_at_two_times_are_not(shop, tmp_path):
    header = ["applicant", "job", "reward", "time"]
    later = write(tmp_path / "later.csv", [["p1", "x", "1", "1"], ["p1", "x", "0", "2"]], header)
    at_once = write(tmp_path / "at_once.csv", [["p1", "x", "1", "1"], ["p1", "x", "0", "1"]], header)

    assert load_interactions(later, shop).reward.tolist() == [1.0, 0.0]
    with pytest.raises(LogError, match="twice the same: 1, row 2"):
        load_interactions(at_once, shop)


@pytest.mark.parametrize("field", ["time", "reward"])
def test_zero_of_either_sign_is_twice_the_same(shop, tmp_path, field):
    header = ["applicant", "job", "decision", field]
    file = write(tmp_path / "log.csv", [["p1", "x", "click", zero] for zero in ("0", "-0", "0.0", "1")], header)

    log = load_interactions(file, shop, on_bad="skip")
    assert (log.time if field == "time" else log.reward).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("field", ["time", "posted"])
def test_a_row_takes_little_more_memory_than_its_text(market, tmp_path, field):
    jobs, n = market.jobs.keys.tolist(), 2_000
    shown = [";".join(jobs[row % 40 : row % 40 + 10]) for row in range(n)]
    rows = [[market.applicants.keys[row % 9], jobs[row % 40], row, row, shown[row]] for row in range(n)]
    file = write(tmp_path / "log.csv", rows, ["applicant", "job", "reward", field, "shown"])
    load_interactions(file, market)  # loads what is loaded once
    tracemalloc.start()
    table = read_table(file)
    text = tracemalloc.get_traced_memory()[0]
    del table
    tracemalloc.reset_peak()
    load_interactions(file, market)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (peak - text) / n < 600


def test_kinds_are_counted_apart_and_only_the_first_rows_are_named(shop, tmp_path):
    rows = [*(changed(job=str(100 + i)) for i in range(5)), changed(propensity="2"), GOOD]
    with pytest.raises(LogError) as caught:
        load_interactions(write(tmp_path / "log.csv", rows), shop)

    assert (
        "6 of 7 rows are impossible: unknown job: 5, row 1 ('100'), row 2 ('101'), row 3 ('102'), ...; propensity "
        "outside of (0, 1]: 1, row 6 ('2')."
    ) in str(caught.value)
    assert "say `ids='row'`" in str(caught.value)


def test_no_row_that_can_be_is_an_error_even_where_bad_ones_are_skipped(shop, tmp_path):
    file = write(tmp_path / "log.csv", [changed(job="9")])
    with pytest.raises(LogError, match=r"1 of 1 rows are impossible.*No row is left"):
        load_interactions(file, shop, on_bad="skip")
    with pytest.raises(LogError, match="has no rows"):
        load_interactions(write(tmp_path / "empty.csv", []), shop)


def test_columns_that_are_no_mapping_are_refused(shop, tmp_path):
    (tmp_path / "log.csv").write_text("applicant,job,reward\n")
    with pytest.raises(LogError, match=r"`columns` must map fields to columns, .*, got 3"):
        load_interactions(tmp_path / "log.csv", shop, 3)


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        (["applicnt", "job", "reward"], {}, r"has no column 'applicant'. Did you mean 'applicnt'\?"),
        (["applicant", "item", "reward"], {}, r"no column 'job'.*Say which it is, perhaps `columns=\{'job': 'item'\}`"),
        (["applicant", "job", "clicked"], {}, "A log needs 'decision', 'reward' or both"),
        (["applicant", "job", "reward"], {"jobs": "job"}, r"`columns` may name .*Did you mean 'job'\?"),
        (["applicant", "job", "reward"], {"time": "when"}, "has no column 'when'"),
        (["applicant", "job", "reward"], {"time": 3}, r"`columns\['time'\]` must be the name of one column, got 3"),
        (["applicant", "job", "reward", "Propensity"], {}, r"say `columns=\{'propensity': 'Propensity'\}` or rename"),
    ],
)
def test_a_column_that_is_missing_is_named_with_the_way_out(shop, tmp_path, header, columns, message):
    file = write(tmp_path / "log.csv", [["p1", "x", "1", "1"][: len(header)]], header)
    with pytest.raises(LogError, match=message):
        load_interactions(file, shop, columns)


def test_a_column_that_is_nearly_a_field_may_be_mapped_or_stand_beside_it(shop, tmp_path):
    header = ["applicant", "job", "reward", "Reward", "Time"]
    file = write(tmp_path / "log.csv", [["p1", "x", "1", "2", "3"]], header)

    assert load_interactions(file, shop, {"time": "Time"}).reward.tolist() == [1.0]
    assert load_interactions(file, shop, {"time": "Time", "reward": "Reward"}).reward.tolist() == [2.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"separator": ""}, "`separator` must be a text that is not empty"),
        ({"separator": None}, "`separator` must be a text that is not empty, such as ';', got None"),
        ({"test_fraction": "0.3"}, r"`test_fraction` must be in \(0, 1\), got '0\.3'"),
        ({"decisions": ["apply"]}, "`decisions` must map words to decisions"),
        ({"decisions": {"yes": ["apply"]}}, r"`decisions\['yes'\]` must be one of"),
        ({"on_bad": "ignore"}, "`on_bad` must be one of"),
        ({"ids": "keys"}, "`ids` must be one of"),
        ({"split_by": "row"}, "`split_by` must be 'time' or None"),
        ({"split_by": "time"}, "needs a column `time`"),
        ({"test_fraction": 1.0}, r"`test_fraction` must be in \(0, 1\)"),
        ({"decisions": {"yes": "applied"}}, r"`decisions\['yes'\]` must be one of"),
    ],
)
def test_an_argument_that_cannot_be_is_named(shop, tmp_path, arguments, message):
    file = write(tmp_path / "log.csv", [["p1", "x", "1"]], ["applicant", "job", "reward"])
    with pytest.raises(LogError, match=message):
        load_interactions(file, shop, **arguments)


def test_a_delimiter_is_one_character(shop, tmp_path):
    file = write(tmp_path / "log.csv", [["p1", "x", "1"]], ["applicant", "job", "reward"])
    with pytest.raises(ValueError, match="`delimiter` must be one character"):
        load_interactions(file, shop, delimiter=";;")


def test_a_file_that_is_not_there_or_of_no_kind_is_refused(shop, tmp_path):
    with pytest.raises(MarketError, match="does not exist"):
        load_interactions("csv:nowhere.csv", shop)
    with pytest.raises(LogError, match="is a folder and holds no saved log"):
        load_interactions(tmp_path, shop)
    (tmp_path / "log.xyz").write_text("a")
    with pytest.raises(MarketError, match="must end in"):
        load_interactions(tmp_path / "log.xyz", shop)


# --------------------------------------------------------------------------------------------------------- saved, given


def test_a_saved_log_is_the_same_and_knows_its_folder(log, market, tmp_path):
    saved = log.save(tmp_path / "log")

    assert saved.folder == tmp_path / "log"
    assert_same(load_interactions(tmp_path / "log", market), log)
    assert_same(Interactions.load(tmp_path / "log", market), saved)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rewards": {"click": 0.3}}, "`rewards`"),
        ({"columns": {"job": "item"}, "decisions": {"yes": "apply"}}, "`columns` and `decisions`"),
        ({"ids": "row"}, "`ids`"),
        ({"separator": ","}, "`separator`"),
        ({"on_unknown_shown": "skip"}, "`on_unknown_shown`"),
    ],
)
def test_how_a_file_is_read_cannot_be_said_of_a_saved_log(log, market, tmp_path, arguments, named):
    log.save(tmp_path / "log")
    with pytest.raises(LogError, match=f"{named} cannot be given for .*, which is a saved log"):
        load_interactions(tmp_path / "log", market, **arguments)
    assert_same(load_interactions(tmp_path / "log", market, {}, decisions=None, rewards={}, on_bad="skip"), log)


def test_a_written_csv_is_read_back_the_same(log, market, tmp_path):
    log.write_csv(tmp_path / "log.csv")
    assert_same(load_interactions(tmp_path / "log.csv", market), log)


def test_a_log_is_found_again_on_a_market_that_has_grown_by_a_job(shop, tmp_path):
    log = load_interactions(write(tmp_path / "log.csv", [GOOD]), shop).save(tmp_path / "log")
    jobs = (tmp_path / "jobs.csv").read_text().splitlines()
    (tmp_path / "more.csv").write_text("\n".join([jobs[0], "new,law", *jobs[1:]]))
    options = {"encoder": "hashing", "cache_dir": False}
    grown = load_market(f"csv:{tmp_path / 'more.csv'}", applicants=str(tmp_path / "people.csv"), **options)

    for moved in (Interactions.load(tmp_path / "log", grown), log.on(grown)):
        assert grown.jobs.keys[moved.job_ids].tolist() == ["1"]
        assert grown.jobs.keys[moved.shown(0)].tolist() == ["1", "5", "7"]


def test_a_log_of_another_market_is_refused_by_name(log, shop, tmp_path):
    log.save(tmp_path / "log")
    with pytest.raises(LogError, match=r"lacks 2 of the log's applicants"):
        Interactions.load(tmp_path / "log", shop)
    with pytest.raises(LogError, match=r"lacks 2 of the log's applicants"):
        log.on(shop)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("interactions.json", b"{"),
        ("interactions.json", b'{"format": "jobrec-interactions/0", "columns": []}'),
        ("job_ids.npy", b"junk"),
        ("job_ids.npy", None),
        ("applicants_keys.npy", None),
    ],
)
def test_a_broken_folder_is_named(log, market, tmp_path, name, content):
    log.save(tmp_path / "log")
    if content is None:
        (tmp_path / "log" / name).unlink()
    else:
        (tmp_path / "log" / name).write_bytes(content)
    with pytest.raises(LogError, match="holds no whole log"):
        Interactions.load(tmp_path / "log", market)


@pytest.mark.parametrize(
    ("name", "values"), [("job_ids", [0, 0, 7]), ("propensity", [0.5, 0.2, 2]), ("reward", [1, 1])]
)
def test_changed_columns_of_a_folder_are_refused(log, market, tmp_path, name, values):
    log.save(tmp_path / "log")
    np.save(tmp_path / "log" / f"{name}.npy", np.array(values))
    with pytest.raises(LogError):
        Interactions.load(tmp_path / "log", market)


def test_a_changed_number_that_is_still_possible_is_found_by_its_digest(log, market, tmp_path):
    folder = log.save(tmp_path / "log").folder
    np.save(folder / "reward.npy", log.reward + 1)
    with pytest.raises(LogError, match=r"log/reward\.npy was changed after it was written"):
        Interactions.load(folder, market)


def test_a_log_that_is_replaced_while_it_is_read_is_read_again(log, market, tmp_path, monkeypatch):
    folder = log.save(tmp_path / "log").folder
    mapped_array, replaced = interactions.mapped_array, []

    def replaced_before(file):
        if not replaced:
            replaced.append(True)
            log.take([0, 1]).save(folder)
        return mapped_array(file)

    monkeypatch.setattr(interactions, "mapped_array", replaced_before)
    assert len(Interactions.load(folder, market)) == 2
    assert replaced


def test_a_log_of_an_earlier_version_opens_and_one_of_a_later_is_refused_in_one_line(log, market, tmp_path):
    folder = log.save(tmp_path / "log").folder
    header = json.loads((folder / "interactions.json").read_text())
    assert header["written_by"].startswith("jobrec-gym")
    for later, message in (
        ({"format": "jobrec-interactions/2", "written_by": "jobrec-gym 9"}, "interactions/2', by jobrec-gym 9, exp"),
        ({"columns": ["../secret"]}, "columns that no log has"),
    ):
        (folder / "interactions.json").write_text(json.dumps(header | later))
        with pytest.raises(LogError, match=message) as error:
            Interactions.load(folder, market)
        assert "\n" not in str(error.value)
    for name in ("sha256", "written_by"):
        del header[name]
    (folder / "interactions.json").write_text(json.dumps(header))
    assert (Interactions.load(folder, market).job_ids == log.job_ids).all()


def test_a_column_that_claims_more_than_its_file_has_takes_no_memory(log, market, tmp_path):
    folder = log.save(tmp_path / "log").folder
    with (folder / "reward.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (1 << 45,)})
    with pytest.raises(LogError, match="holds no whole log"):
        Interactions.load(folder, market)


DYING = """
import os, signal, sys
from pathlib import Path
from jobrec_gym import Interactions, load_market
rename, renames = Path.rename, []
def dying(self, target):
    if Path(sys.argv[1]).name in (self.name, Path(target).name):
        if len(renames) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        renames.append(self)
    return rename(self, target)
Path.rename = dying
Interactions.of(load_market("default"), [0] * 5, [3] * 5, [1.0] * 5).save(sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.waits
@pytest.mark.parametrize(
    ("n_renames", "load"),
    [(0, Interactions.load), (1, Interactions.load), (1, load_interactions), (2, Interactions.load)],
)
def test_a_kill_between_the_renames_leaves_the_old_log_or_the_new_one(log, market, tmp_path, n_renames, load):
    folder = log.save(tmp_path / "log").folder
    done = subprocess.run([sys.executable, "-c", DYING, str(folder), str(n_renames)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert folder.exists() == (n_renames != 1)
    assert len(load(folder, market)) == (5 if n_renames == 2 else 3)
    # The next writer removes what the dead one left.
    log.save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_log_that_cannot_be_written_leaves_the_old_one(log, market, tmp_path, monkeypatch):
    folder = log.save(tmp_path / "log").folder

    def no_room(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", no_room)
        with pytest.raises(OSError, match="No space"):
            log.take(np.array([0])).save(folder)
    assert len(Interactions.load(folder, market)) == len(log)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_folder_of_something_else_is_not_overwritten(log, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LogError, match="is not a saved log"):
        log.save(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_shown_jobs_are_compared_by_sorting(market, monkeypatch):
    # On 4 million pairs, numpy's `unique` takes 20 times as long.
    monkeypatch.setattr(np, "unique", lambda *_, **__: pytest.fail("a hash table was filled"))
    assert len(Interactions.of(market, [0, 0], [4, 3], [1.0, 0.0], shown=[[5, 4, 3], [3, 4]])) == 2
    with pytest.raises(LogError, match="`shown` must hold distinct jobs in each row"):
        Interactions.of(market, [0, 0], [4, 3], [1.0, 0.0], shown=[[5, 4, 5], [3, 4]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"job_ids": [0, 1]}, "`job_ids` must be"),
        ({"job_ids": [0, 10**6, 0]}, "`job_ids` must be rows of the market"),
        ({"reward": [1, np.inf, 0]}, "`reward` must be finite"),
        ({"propensity": [1, 0, 0.5]}, r"`propensity` must be in \(0, 1\]; row 1 has 0.0"),
        ({"decision": [0, 1, 4]}, "`decision` must be a place"),
        ({"decision": [0, 1, 300]}, "`decision` must be a place"),
        ({"applicant_ids": [0, 0, 10**6]}, "`applicant_ids` must be rows of the market, in"),
        ({"job_ids": [3, 4, 3.5]}, "`job_ids` must be rows of the market, whole numbers, got float64"),
        ({"job_ids": ["3", "4", "3"]}, "`job_ids` must be rows of the market, whole numbers"),
        ({"decision": [0, 1, 2.5]}, r"`decision` must be places in .* whole numbers, got float64, .*\(2\.5\)"),
        ({"decision": [0, 1, np.inf]}, r"`decision` must be places in .* whole numbers, got float64, .*\(inf\)"),
        ({"decision": [0, 1, np.nan]}, "`decision` must be places in .* or -1 for none"),
        ({"decision": ["apply", "save", "save"]}, "`decision` must be places in .* such as np.str_\\('apply'\\)"),
        ({"decision": [3, 0, 0], "reward": [1, np.nan, 0]}, "row 1 has a decision and no reward"),
        ({"held_out": ["train", "test", "test"]}, "`held_out` must be True or False for each row, got <U5"),
        ({"held_out": [0, 1, 0.5]}, r"`held_out` must be True or False .*\(0\.5\)"),
        ({"held_out": [True, None, False]}, "`held_out` must be True or False"),
        ({"reward": ["a", "b", "c"]}, "`reward` must be numbers, got <U1, such as"),
        ({"reward": np.zeros(3, "M8[s]")}, "`reward` must be numbers, got datetime64"),
        ({"reward": [1, 0, 1j]}, "`reward` must be numbers, got complex128"),
        ({"time": [datetime.datetime(2026, 1, 1)] * 3}, r"`time` must be .* dates of numpy \(datetime64\), got"),
        ({"time": [0, 1, np.nan]}, "`time` must be finite; row 2"),
        ({"time": np.array(["2026-01-01", "NaT", "NaT"], "M8[D]")}, "`time` must be finite; row 1"),
        ({"shown": [[3, 4], [3, 4], [4, 5]]}, "row 2 recommends job 3 and was shown"),
        ({"shown": [[3, 4], [3, 4]]}, "`shown` must have 3 sets"),
        ({"shown": [[3, 4], [3, 4, 5, 5], [3]]}, "distinct jobs"),
    ],
)
def test_arrays_that_cannot_be_a_log_are_refused(market, changes, message):
    arguments = {"applicant_ids": [0, 0, 5], "job_ids": [3, 4, 3], "reward": [1, 0, 0], **changes}
    with pytest.raises(LogError, match=message):
        Interactions.of(market, **arguments)


@pytest.mark.parametrize("unit", ["D", "s", "ms", "ns"])
def test_dates_of_numpy_are_seconds_whatever_their_unit(market, unit):
    time = np.array(["1970-01-02", "2026-01-01"], f"M8[{unit}]")
    log = Interactions.of(market, [0, 0], [3, 4], [1.0, 0.0], time=time)
    assert log.time.tolist() == [86_400.0, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()]


def test_columns_that_have_become_floats_are_read(market):
    log = Interactions.of(market, [0, 0], [3, 4], [1.0, 0.0], decision=[3.0, -1.0], held_out=[0.0, 1.0])
    assert (log.decision.tolist(), log.held_out.tolist()) == ([3, -1], [False, True])


def test_columns_of_python_objects_are_read_by_what_they_hold(market):
    decision, held_out = np.array([3, -1], dtype=object), np.array([False, True], dtype=object)
    log = Interactions.of(market, [0, 0], [3, 4], [1.0, 0.0], decision=decision, held_out=held_out)
    assert (log.decision.tolist(), log.held_out.tolist()) == ([3, -1], [False, True])
    assert log.take(np.array([1], dtype=object)).job_ids.tolist() == [4]


def test_rows_that_are_no_whole_numbers_are_refused(log):
    for take in (log.take, log.sets):
        with pytest.raises(LogError, match="`rows` must be whole numbers, or a mask in `take`, got float64"):
            take(np.array([0.0, 1.7]))


def test_rows_are_taken_by_number_or_by_a_mask_of_the_logs_length(log):
    mask = np.arange(len(log)) == 1
    assert_same(log.take(mask), log.take([1]))
    with pytest.raises(LogError, match=rf"`rows` as a mask must be \({len(log)},\), one for each row"):
        log.take(mask[:2])


def test_negative_numbers_of_rows_count_from_the_end_and_others_are_refused(log):
    assert_same(log.take([-1, 0, -3]), log.take([2, 0, 0]))
    assert log.take(np.array([-1])).chosen.tolist() == [1]
    assert log.shown(-1).tolist() == log.shown(np.int64(2)).tolist() == [9, 3]
    assert log.sets(np.array([-2, 0])).tolist() == [[3, 4, 5], [3, 4, 5]]
    assert log.sets(np.array([2])).tolist() == [[9, 3]]
    assert log.sets(np.array([], dtype=np.int64)).shape == (0, 0)
    with pytest.raises(LogError, match=r"`rows` must have shown equally many jobs, got rows of \[2, 3\] jobs"):
        log.sets(np.arange(3))
    for row in (3, -4):
        for ask in (log.shown, lambda row: log.take([row]), lambda row: log.sets(np.array([row]))):
            with pytest.raises(IndexError, match=rf"must be in \[-3, 3\), got {row}"):
                ask(row)
    with pytest.raises(IndexError):
        log.take([]).shown(0)


def test_a_log_is_read_only(log):
    for one in (log, pickle.loads(pickle.dumps(log)), copy.copy(log)):
        assert_same(one, log)
        with pytest.raises(ValueError, match="read-only"):
            one.reward[0] = 0.0


def test_what_was_shown_is_asked_of_a_log_that_does_not_say_it(market):
    with pytest.raises(LogError, match="does not say what else was shown"):
        Interactions.of(market, [0], [1], [1.0]).chosen  # noqa: B018


# ---------------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"observation": "ids"},
        {"observation": "ids", "pair_features": "all", "pair_noise": 0.2},
        {"mask_in_observation": True, "job_fields": ["title"]},
    ],
    ids=str,
)
def test_a_logged_decision_is_shown_as_the_environment_shows_it_to_the_bit(market, options):
    env = gym.make("JobRec-v0", market=market, num_candidates=4, **options)
    obs, info = env.reset(seed=3)
    shown = info["candidate_ids"]
    log = Interactions.of(market, [info["applicant_id"]], shown[2:3], [0.5], shown=shown[None])

    ((seen, action, reward),) = log.answers(ObservationForm.of(env))

    assert (action, reward) == (2, np.float32(0.5))
    assert seen.keys() == obs.keys()
    for name, values in obs.items():
        assert seen[name].dtype == values.dtype
        np.testing.assert_array_equal(seen[name], values, err_msg=name)


@pytest.mark.parametrize("options", [{"observation": "ids"}, {"pair_features": ["hard_coverage"]}], ids=str)
def test_a_form_of_an_environment_on_another_market_is_refused(shop, tmp_path, options):
    """The same people and jobs in another order: row 0 is somebody else there, and another job."""
    write(tmp_path / "jobs2.csv", [[key, skill] for key, skill in zip("x1357", SKILLS, strict=False)], ["key", "hard"])
    write(tmp_path / "people2.csv", [["1", "law"], ["p2", "sql"], ["p1", "sql;baking"]], ["key", "hard"])
    people = str(tmp_path / "people2.csv")
    other = load_market(f"csv:{tmp_path / 'jobs2.csv'}", applicants=people, encoder="hashing", cache_dir=False)
    log = Interactions.of(shop, [0], [2], [0.5], shown=[[1, 2]])
    splits = {"split": "all", "job_split": "all", "num_candidates": 2}
    form = ObservationForm.of(gym.make("JobRec-v0", market=other, **splits, **options))

    for use in (lambda form: list(log.answers(form)), log.to_pretrain, lambda form: list(log.observations(form))):
        with pytest.raises(ValueError, match="on market .* rows of another market, .*`log.on"):
            use(form)
    assert list(log.on(other).answers(form))
    # Equal content, read again, is no other market.
    again = other.save(tmp_path / "again")
    assert again is not other
    assert list(log.on(again).answers(form))


def test_observations_come_in_batches_of_one_size(log):
    found = {tuple(rows.tolist()): obs["candidates"].shape for rows, obs in log.observations()}
    dim = log.market.jobs.vectors.shape[1]
    assert found == {(2,): (1, 2, dim), (0, 1): (2, 3, dim)}


def test_pretraining_takes_the_answered_pairs(log):
    data = log.to_pretrain(ObservationForm("ids", pair_features=("hard_coverage",)))

    assert {name: values.shape for name, values in data.items()} == {
        "state": (2, log.market.applicants.vectors.shape[1]),
        "action": (2,),
        "reward": (2,),
        "pairs": (2, 1),
    }
    assert data["action"].tolist() == [3, 4]
    assert data["reward"].tolist() == [1.0, np.float32(-0.1)]


def test_the_open_bandit_pipelines_form_has_its_entries(log):
    feedback = log.to_obp()

    assert feedback.keys() == {
        *("n_rounds", "n_actions", "context", "action_context", "action", "position", "reward", "expected_reward"),
        "pscore",
    }
    assert (feedback["n_rounds"], feedback["n_actions"]) == (2, len(log.market.jobs))
    assert feedback["context"].shape[0] == 2
    assert feedback["pscore"].tolist() == [0.5, 0.2]


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="`observation` must be 'features' or 'ids'"):
        ObservationForm("feature")


def test_the_form_that_an_agent_reads_is_taken_from_it():
    class Agent:
        reads = {"observation": "ids", "pairs": ["seniority"], "job_fields": ["title"]}  # noqa: RUF012

    assert ObservationForm.read_by(Agent()) == ObservationForm("ids", ("title",), ("seniority",))
    assert ObservationForm.read_by(object()) == ObservationForm()
    Agent.reads = {"observation": "ids", "pairs": 2}
    with pytest.raises(ValueError, match="does not know their names"):
        ObservationForm.read_by(Agent())
    Agent.reads = {"observation": "ids", "pairs": ["model"], "prior_sources": {"model": "array (40, 60)"}}
    with pytest.raises(ValueError, match=r"the sources \['model'\] of a prior, and does not have their values"):
        ObservationForm.read_by(Agent())
