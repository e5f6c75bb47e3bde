"""Events of a site, joined to a log with one row for each recommendation."""

import csv
import datetime
import json
import logging
import re

import numpy as np
import pytest

from jobrec_gym.interactions import Interactions, LogError
from jobrec_gym.loaders import events as events_module
from jobrec_gym.loaders.events import Events
from jobrec_gym.loaders.interactions import load_interactions
from jobrec_gym.market import MarketError, load_market
from jobrec_gym.simulators.base import DECISIONS

HEADER = ["time", "applicant", "job", "event"]


@pytest.fixture
def shop(tmp_path):
    """The people p0 to p3 and the jobs j0 to j4."""
    for name, side in (("jobs", "j"), ("people", "p")):
        rows = "".join(f"{side}{row},skill {row}\n" for row in range(5 if side == "j" else 4))
        (tmp_path / f"{name}.csv").write_text(f"key,hard\n{rows}")
    return load_market(tmp_path / "jobs.csv", applicants=tmp_path / "people.csv", encoder="hashing", cache_dir=False)


@pytest.fixture
def joined(shop, tmp_path, caplog):
    """Writes events, ``joined("1 p0 j0 impression", ...)``, and reads the log; ``joined.line`` is what was said."""

    def read(*rows, header=HEADER, events=True, **options):
        with (tmp_path / "events.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *(row.split(" ") if isinstance(row, str) else row for row in rows)])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            log = load_interactions(tmp_path / "events.csv", shop, events=events, **options)
        (line,) = [record.getMessage() for record in caplog.records]
        read.line = line.replace(f"{tmp_path}/", "")
        return log

    return read


def answers(log):
    """The rows of a log as texts: ``"p0 j0 apply"``."""
    people, jobs = log.market.applicants.keys[log.applicant_ids], log.market.jobs.keys[log.job_ids]
    return [f"{who} {job} {DECISIONS[what]}" for who, job, what in zip(people, jobs, log.decision, strict=True)]


def shown(log):
    """The sets of a log as texts: ``"j0 j1"``."""
    return [" ".join(sorted(log.market.jobs.keys[log.shown(row)])) for row in range(len(log))]


# -------------------------------------------------------------------------------------------------------------- answers


def test_an_impression_opens_a_recommendation_and_the_strongest_event_answers_it(joined):
    log = joined(
        "1 p0 j0 impression",
        "1 p0 j1 impression",
        "2 p0 j0 click",
        "3 p0 j0 apply",
        "4 p0 j0 click",
        "5 p1 j0 impression",
        "6 p1 j0 dismiss",
        "7 p1 j0 save",
    )

    assert answers(log) == ["p0 j0 apply", "p0 j1 ignore", "p1 j0 save"]
    assert log.reward.tolist() == [1.0, -0.1, 0.5]
    assert log.time.tolist() == [1, 1, 5]
    assert joined.line == (
        "events.csv: 8 events make 3 recommendations (1 apply, 1 save, 0 click, 1 ignore). Shown together were 1.7 "
        "jobs in the mean, and at most 2."
    )


def test_an_event_counts_for_the_latest_impression_before_it(joined):
    log = joined("1 p0 j0 impression", "2 p0 j0 click", "5 p0 j0 impression", "6 p0 j0 apply", "9 p0 j0 impression")

    assert answers(log) == ["p0 j0 click", "p0 j0 apply", "p0 j0 ignore"]
    assert log.time.tolist() == [1, 5, 9]


def test_the_order_of_the_file_does_not_matter(joined):
    rows = ["1 p0 j0 impression", "2 p0 j0 click", "5 p0 j0 impression", "6 p0 j0 apply", "3 p1 j2 impression"]
    log = joined(*rows)
    for seed in range(5):
        other = joined(*np.random.default_rng(seed).permutation(rows).tolist())
        assert answers(other) == answers(log) == ["p0 j0 click", "p1 j2 ignore", "p0 j0 apply"]
        assert other.time.tolist() == [1, 3, 5]


def test_at_equal_times_the_impression_comes_first(joined):
    assert answers(joined("1 p0 j0 apply", "1 p0 j0 impression")) == ["p0 j0 apply"]
    log = joined("1 p0 j0 impression", "2 p0 j0 click", "2 p0 j0 impression")
    assert answers(log) == ["p0 j0 ignore", "p0 j0 click"], "the latest impression at or before the click"


def test_an_event_before_the_impression_says_nothing_about_it(joined):
    log = joined("1 p0 j0 apply", "2 p0 j0 impression", "1 p1 j0 click")

    assert answers(log) == ["p0 j0 ignore"]
    assert "Left out: 2 events without an earlier impression." in joined.line


def test_an_event_of_another_person_or_job_says_nothing(joined):
    assert answers(joined("1 p0 j0 impression", "2 p1 j0 apply", "2 p0 j1 apply")) == ["p0 j0 ignore"]


def test_events_that_came_twice_count_once(joined):
    log = joined("1 p0 j0 impression", "1 p0 j0 impression", "2 p0 j0 click", "2 p0 j0 click", "3 p0 j0 click")

    assert answers(log) == ["p0 j0 click"]
    assert "Left out: 2 events that came twice." in joined.line


@pytest.mark.parametrize(
    ("window", "expected"), [(None, "apply"), (10, "apply"), (9.5, "click"), (1, "click"), (0, "ignore")]
)
def test_events_count_within_the_window(joined, window, expected):
    log = joined("1 p0 j0 impression", "2 p0 j0 click", "11 p0 j0 apply", events={"window": window})

    assert answers(log) == [f"p0 j0 {expected}"]
    left_out = {"apply": [], "click": ["1 event"], "ignore": ["2 events"]}[expected]
    assert re.findall("Left out: (.*) later than `window` after the impression", joined.line) == left_out


def test_a_window_of_dates_is_in_seconds(joined):
    day = 86_400
    rows = ["2026-05-04T08:00 p0 j0 impression", "2026-05-05T08:00 p0 j0 apply"]
    assert answers(joined(*rows, events={"window": day})) == ["p0 j0 apply"]
    assert answers(joined(*rows, events={"window": day - 1})) == ["p0 j0 ignore"]


@pytest.mark.parametrize(("unit", "is_told"), [(1, False), (1000, True)])
def test_a_window_for_times_that_are_hardly_seconds_is_told(joined, unit, is_told):
    at = 1_764_500_000 * unit
    joined(f"{at} p0 j0 impression", f"{at + 5000} p0 j0 click", events={"window": 7 * 86_400})

    told = "`window` is in the unit of `time`, which is hardly seconds: times go up to 1,764,500,005,000."
    assert (told in joined.line) == is_told
    joined(f"{at} p0 j0 impression")
    assert "hardly seconds" not in joined.line


def test_days_of_digits_are_no_seconds(joined):
    rows = ["20260101 p0 j0 impression", "20261231 p0 j0 apply"]
    way_out = "say `date_format='%Y%m%d'`"
    with pytest.raises(LogError, match=f"times such as 20260101 seem to be days: {way_out}"):
        joined(*rows, events={"window": 7 * 86_400})
    assert answers(joined(*rows)) == ["p0 j0 apply"]
    assert f"Times such as 20260101 are read as mere numbers: {way_out} if they are days." in joined.line
    assert answers(joined(*rows, events={"window": 7 * 86_400}, date_format="%Y%m%d")) == ["p0 j0 ignore"]
    for other in ("20261301", "20260100", "20260101.5", "5"):
        joined(f"{other} p0 j1 impression", *rows, events={"window": 7 * 86_400})
        assert "mere numbers" not in joined.line


def test_yes_may_be_an_event(joined):
    log = joined("1 p0 j0 false", "2 p0 j0 TRUE", decisions={False: "impression", True: "apply"})

    assert answers(log) == ["p0 j0 apply"]


def test_own_words_and_own_rewards(joined):
    words = {"seen": "impression", "opened": "click", "sent": "apply", "no": "ignore", "search": None}
    rows = [
        "1 p0 j0 seen",
        "2 p0 j0 opened",
        "3 p0 j0 sent",
        "4 nobody nothing search",
        "5 p1 j0 seen",
        "6 p1 j0 no",
        "7 p1 j1 seen",
    ]
    log = joined(*rows, decisions=words, rewards={"apply": 5.0})

    assert answers(log) == ["p0 j0 apply", "p1 j0 ignore", "p1 j1 ignore"]
    assert log.reward.tolist() == [5.0, -0.1, -0.1]
    assert "Left out: 1 event that `decisions` maps to nothing." in joined.line


def test_a_word_may_mean_dismiss(joined):
    assert answers(joined("1 p0 j0 impression", "2 p0 j0 hide", decisions={"hide": "dismiss"})) == ["p0 j0 ignore"]


def test_an_empty_event_is_named_as_it_can_be_mapped(joined):
    with pytest.raises(LogError, match=r"unknown event: 1, row 2 \(''\).* `decisions=\{'': \.\.\.\}`"):
        joined("1 p0 j0 impression", "2 p0 j0 ")
    assert answers(joined("1 p0 j0 impression", "2 p0 j0 ", decisions={"": None})) == ["p0 j0 ignore"]


def test_numbers_may_be_words(joined):
    log = joined("1 p0 j0 0", "2 p0 j0 1.0", decisions={"0": "impression", 1: "click"})

    assert answers(log) == ["p0 j0 click"]


def test_a_word_for_bots_in_another_language_is_refused_with_the_words_to_write(joined):
    with pytest.raises(LogError, match=r"bot that is neither yes nor no: 1, row 1 .*\. A row of a bot says yes"):
        joined("1 p0 j0 impression nie", header=[*HEADER, "bot"])


def test_times_of_events_are_read_as_they_are_said_to_be_written(joined):
    rows = [["01.05.2026 08:00", "p0", "j0", "impression", "0,5"], ["01.05.2026 08:01", "p0", "j0", "apply", ""]]
    header = [*HEADER, "propensity"]
    log = joined(*rows, header=header, date_format="%d.%m.%Y %H:%M", decimal=",", events={"window": 60})
    assert (answers(log), log.propensity.tolist()) == (["p0 j0 apply"], [0.5])
    with pytest.raises(LogError, match=r"no time: 2, .* Say `date_format='%d.%m.%Y %H:%M'`, which fits all"):
        joined(*rows, header=header, decimal=",")
    with pytest.raises(LogError, match=r"propensity outside of \(0, 1\]: 1, row 1 \('0,5'\).* say `decimal=','`"):
        joined(*rows, header=header, date_format="%d.%m.%Y %H:%M")


def test_bots_are_left_out_with_all_that_they_did(joined):
    rows = ["1 p0 j0 impression nein", "2 p0 j0 apply True", "1 p9 j9 rubbish ja", "2 p0 j0 save 1.0", "2 p0 j0 click "]
    log = joined(*rows, header=[*HEADER, "bot"])

    assert answers(log) == ["p0 j0 click"]
    assert "Left out: 3 events of bots." in joined.line


def test_without_times_the_order_of_the_file_counts(joined):
    log = joined("p0 j0 apply", "p0 j0 impression", "p0 j0 click", header=HEADER[1:])

    assert answers(log) == ["p0 j0 click"]
    assert (log.time, log.shown_ids) == (None, None)
    assert "no column 'time', so the events are taken in the order of the file" in joined.line
    with pytest.raises(LogError, match="no column 'time', from which `events.window` is counted"):
        joined("p0 j0 impression", header=HEADER[1:], events={"window": 5})


# ---------------------------------------------------------------------------------------------------------------- times


def test_times_of_several_zones_are_put_in_order(joined):
    rows = [
        "2026-05-04T10:00+02:00 p0 j0 impression",
        "2026-05-04T08:30Z p0 j0 click",
        "2026-05-04T03:59-04:00 p0 j0 apply",
    ]
    log = joined(*rows)

    assert answers(log) == ["p0 j0 click"], "the application was a minute earlier, at 07:59 in UTC"
    assert log.time.tolist() == [datetime.datetime(2026, 5, 4, 8, tzinfo=datetime.UTC).timestamp()]


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        (["2026-05-04T08:00Z", "2026-05-04T09:00"], "time without a zone among times with one: 1, row 2 ("),
        (["2026-05-04T08:00", "2026-05-04T09:00Z"], "time with a zone among times without one: 1, row 2 ("),
        (["2026-05-04", "5"], "number among dates: 1, row 2 ('5')"),
        (["5", "2026-05-04"], "date among numbers: 1, row 2 ('2026-05-04')"),
        (["5", "soon"], "no time: 1, row 2 ('soon')"),
        (["5", ""], "no time: 1, row 2 ('')"),
    ],
)
def test_times_that_cannot_be_put_in_order_are_wrong(joined, times, kind):
    rows = [[times[0], "p0", "j0", "impression"], [times[1], "p0", "j0", "apply"]]
    with pytest.raises(LogError) as caught:
        joined(*rows)
    assert f"1 of 2 events are impossible: {kind}" in str(caught.value)
    assert answers(joined(*rows, on_bad="skip")) == ["p0 j0 ignore"]
    assert f"1 impossible event ({kind}" in joined.line


def test_parquet_and_json_are_read_as_csv_is(shop, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    time = [datetime.datetime(2026, 5, 4, 8, tzinfo=datetime.UTC) + datetime.timedelta(hours=hour) for hour in range(3)]
    rows = {"applicant": ["p0"] * 3, "job": ["j0", "j1", "j0"], "event": ["impression", "impression", "click"]}
    pq.write_table(pa.table({**rows, "time": time, "set": [1.0, 1.0, None]}), tmp_path / "events.parquet")
    plain = [dict(zip(rows, cells, strict=True)) for cells in zip(*rows.values(), strict=True)]
    told = [{**row, "time": at.isoformat(), "set": of} for row, at, of in zip(plain, time, (1, 1.0, "1"), strict=True)]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, told)))

    for name in ("events.parquet", "events.jsonl"):
        log = load_interactions(tmp_path / name, shop, events=True)
        assert (answers(log), shown(log)) == (["p0 j0 click", "p0 j1 ignore"], ["j0 j1", "j0 j1"])


# ----------------------------------------------------------------------------------------------------------------- sets


def test_what_was_shown_at_one_time_was_shown_together(joined):
    log = joined("1 p0 j0 impression", "1 p0 j1 impression", "1 p1 j2 impression", "2 p0 j2 impression")

    assert shown(log) == ["j0 j1", "j0 j1", "j2", "j2"]
    assert log.chosen.tolist() == [0, 1, 0, 0]


def test_what_was_shown_under_one_id_was_shown_together(joined):
    header = [*HEADER, "session"]
    rows = ["1 p0 j0 impression a", "5 p0 j1 impression a", "5 p0 j2 impression b", "1 p1 j3 impression a"]
    log = joined(*rows, header=header, columns={"set": "session"})

    # An id belongs to a person, so the first two sets have one id and are two.
    assert dict(zip(answers(log), shown(log), strict=True)) == {
        "p0 j0 ignore": "j0 j1",
        "p1 j3 ignore": "j3",
        "p0 j1 ignore": "j0 j1",
        "p0 j2 ignore": "j2",
    }


def test_a_job_that_is_shown_again_in_its_set_is_the_same_recommendation(joined):
    rows = ["5 p0 j0 impression a", "1 p0 j0 impression a", "1 p0 j1 impression a", "6 p0 j0 click a"]
    log = joined(*rows, header=[*HEADER, "set"])

    assert (answers(log), log.time.tolist()) == (["p0 j0 click", "p0 j1 ignore"], [1, 1])
    assert "1 event of a job that was shown again in the same set" in joined.line


def test_an_event_counts_for_the_impression_of_its_own_set(joined):
    rows = ["1 p0 j0 impression a", "2 p0 j0 impression b", "3 p0 j0 click a", "4 p0 j0 save ", "5 p0 j0 apply c"]
    log = joined(*rows, header=[*HEADER, "set"])

    # An event without an id, or with that of a set in which the job was not shown, counts for the latest impression.
    assert answers(log) == ["p0 j0 click", "p0 j0 apply"]
    within = joined(*rows, header=[*HEADER, "set"], events={"window": 1.5})
    assert answers(within) == ["p0 j0 ignore", "p0 j0 ignore"], "too late for its own set, and not of the other one"
    assert "Left out: 3 events later than `window` after the impression" in joined.line


def test_impressions_without_an_id_are_sets_by_their_time(joined):
    rows = ["1 p0 j0 impression a", "2 p0 j1 impression a", "1 p0 j2 impression ", "1 p0 j3 impression "]
    log = joined(*rows, header=[*HEADER, "set"])

    assert sorted(shown(log)) == ["j0 j1", "j0 j1", "j2 j3", "j2 j3"]


@pytest.mark.parametrize(("more", "said"), [([], "a column `set` may say more"), (["a", "b"], "under one id or at")])
def test_ids_of_single_impressions_do_not_say_what_else_was_shown(joined, more, said):
    rows = [["1", "p0", "j0", "impression", *more[:1]], ["2", "p0", "j1", "impression", *more[1:]]]
    log = joined(*rows, header=[*HEADER, *(["set"] if more else [])])

    assert log.shown_ids is None
    assert "What was shown together is not known" in joined.line
    assert said in joined.line


def test_sets_may_be_left_out(joined):
    assert joined("1 p0 j0 impression", "1 p0 j1 impression", events={"sets": False}).shown_ids is None
    assert "together" not in joined.line


def test_a_set_that_lacks_a_job_is_left_out_unless_no_sets_are_wanted(joined):
    rows = ["1 p0 j0 impression", "1 p0 gone impression", "2 p0 j0 apply", "3 p0 j1 impression", "3 p0 j2 impression"]
    log = joined(*rows, on_bad="skip")

    assert answers(log) == ["p0 j1 ignore", "p0 j2 ignore"]
    assert "1 impossible event (unknown job: 1, row 2 ('gone'))" in joined.line
    assert "1 recommendation of a set with an impossible event" in joined.line
    without = joined(*rows, on_bad="skip", events={"sets": False})
    assert answers(without) == ["p0 j0 apply", "p0 j1 ignore", "p0 j2 ignore"]


def test_a_set_keeps_its_known_jobs_if_it_is_asked_to(joined):
    rows = [
        *("1 p0 j0 impression", "1 p0 gone impression", "1 p0 j3 impression", "1 p0 lost impression", "2 p0 j0 apply"),
        *("2 p0 gone apply", "3 p0 j1 impression", "3 p0 j2 impression", "3 p1 j1 impression", "3 p1 gone impression"),
    ]
    log = joined(*rows, on_bad="skip", on_unknown_shown="skip")

    assert answers(log) == ["p0 j0 apply", "p0 j3 ignore", "p0 j1 ignore", "p0 j2 ignore", "p1 j1 ignore"]
    assert shown(log) == ["j0 j3", "j0 j3", "j1 j2", "j1 j2", "j1"]
    assert "4 impossible events (unknown job: 4, row 2 ('gone')" in joined.line
    assert "The candidate sets of 3 recommendations are smaller, without the jobs that the market lacks." in joined.line
    assert "propensities" not in joined.line and "a set with an impossible event" not in joined.line
    assert answers(joined(*rows, on_bad="skip")) == ["p0 j1 ignore", "p0 j2 ignore"]
    assert "if the market lacks some jobs of a set, `on_unknown_shown='skip'` keeps the set" in joined.line


def test_sets_of_one_known_job_are_sets_if_unknown_jobs_were_shown_too(joined):
    log = joined("1 p0 j0 impression", "1 p0 gone impression", on_bad="skip", on_unknown_shown="skip")
    assert shown(log) == ["j0"]


def test_a_set_with_another_impossible_event_is_left_out_although_unknown_jobs_are_not(joined):
    header = [*HEADER, "set", "propensity"]
    rows = [
        *("1 p0 j0 impression a .5", "1 p0 gone impression a .5", "1 p0 j1 impression a 2"),
        *("1 p1 j0 impression a .5", "soon p1 gone impression a .5"),
        *("1 p2 j0 impression a .5", "1 p2 j2 impression a .25"),
    ]
    log = joined(*rows, header=header, on_bad="skip", on_unknown_shown="skip")

    assert answers(log) == ["p2 j0 ignore", "p2 j2 ignore"]
    assert log.propensity.tolist() == [0.5, 0.25], "no set that is left lacks a job"
    assert "of a set with an impossible event" in joined.line
    assert "on_unknown_shown" not in joined.line, "the argument was given"


def test_a_set_that_is_not_whole_for_another_reason_is_not_told_of_unknown_jobs(joined):
    rows = ["1 p0 j0 impression .5", "1 p0 j1 impression 2", "1 p1 j0 impression .5", "1 p1 j1 impression .5"]
    joined(*rows, header=[*HEADER, "propensity"], on_bad="skip")
    assert "1 recommendation of a set with an impossible event (`events={'sets': False}` keeps them, without sets)" in (
        joined.line
    )


@pytest.mark.parametrize("job", ["2.5", "-1", "j1"])
def test_a_set_with_what_is_no_row_number_is_not_whole(joined, job):
    rows = ["1 0 0 impression", f"1 0 {job} impression", "1 1 0 impression", "1 1 99 impression"]
    log = joined(*rows, ids="row", on_bad="skip", on_unknown_shown="skip")
    assert answers(log) == ["p1 j0 ignore"]
    assert f"job that is no row number: 1, row 2 ('{job}'); unknown job: 1, row 4 ('99')" in joined.line


def test_one_event_makes_one_recommendation(joined):
    joined("1 p0 j0 impression")
    assert "events.csv: 1 event makes 1 recommendation (" in joined.line


def test_events_whose_sets_lack_jobs_have_no_propensities(joined):
    header = [*HEADER, "propensity"]
    rows = ["1 p0 j0 impression .5", "1 p0 gone impression .5", "3 p1 j1 impression .25", "3 p1 j2 impression .25"]
    options = {"header": header, "on_bad": "skip", "on_unknown_shown": "skip"}

    assert joined(*rows, **options).propensity is None
    said = "set of 1 recommendation is smaller, without the jobs that the market lacks. So the log gets no propensities"
    assert said in joined.line
    assert joined(*rows, **options, events={"sets": False}).propensity.tolist() == [0.5, 0.25, 0.25]
    assert joined(*rows[2:], **options).propensity.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("wrong", ["soon p0 j1 impression a", "9 p0 gone impression a"])
def test_a_set_is_known_by_its_id_also_if_the_rest_of_a_row_is_wrong(joined, wrong):
    rows = ["1 p0 j0 impression a", wrong, "3 p0 j1 impression b", "3 p0 j2 impression b"]
    log = joined(*rows, header=[*HEADER, "set"], on_bad="skip")

    assert answers(log) == ["p0 j1 ignore", "p0 j2 ignore"]


def test_an_impossible_impression_of_a_job_that_the_set_has_takes_nothing_from_the_set(joined):
    rows = ["1 p0 j0 impression a .5", "1 p0 j1 impression a .5", "5 p0 j0 impression a 2"]
    log = joined(*rows, header=[*HEADER, "set", "propensity"], on_bad="skip")

    assert shown(log) == ["j0 j1", "j0 j1"]
    assert "shown again" not in joined.line, "it is already counted as impossible"


@pytest.mark.parametrize("without_impression", ["skip", "keep"])
def test_events_that_answer_an_impossible_impression_are_left_out_with_it(joined, without_impression):
    rows = ["1 p0 j0 impression .5", "5 p0 j0 impression 2", "6 p0 j0 click ", "5 p0 j1 impression .5"]
    more = ["7 p1 j0 impression ", "8 p1 j0 apply ", "9 p2 j0 impression .5", "9 p2 j1 impression .5"]
    how = {"on_bad": "skip", "events": {"without_impression": without_impression}, "header": [*HEADER, "propensity"]}
    log = joined(*rows, *more, **how)

    # The click is neither one for the first impression nor one without any; j1 was shown beside the impossible one.
    assert answers(log) == ["p0 j0 ignore", "p2 j0 ignore", "p2 j1 ignore"]
    assert log.propensity.tolist() == [0.5] * 3
    assert "2 events that would answer an impossible impression" in joined.line
    assert "1 recommendation of a set with an impossible event" in joined.line


def test_a_right_impression_counts_before_an_impossible_one_at_the_same_time(joined):
    rows = ["1 p0 j0 impression 2", "1 p0 j0 impression .5", "2 p0 j0 click "]
    log = joined(*rows, header=[*HEADER, "propensity"], on_bad="skip")

    assert (answers(log), log.propensity.tolist()) == (["p0 j0 click"], [0.5])
    assert "came twice" not in joined.line and "would answer" not in joined.line


def test_a_huge_set_is_refused_before_it_takes_memory(joined, monkeypatch):
    monkeypatch.setattr(events_module, "_MOST_SHOWN", 8)
    rows = [f"1 p0 j{job} impression" for job in range(3)]
    with pytest.raises(LogError, match="a set of 3 jobs was shown to one person, which is hardly one decision"):
        joined(*rows)
    assert joined(*rows[:2]).sizes.tolist() == [2, 2]


# ------------------------------------------------------------------------------------------ events without impressions


def test_events_without_an_impression_may_be_recommendations_of_their_own(joined):
    rows = [
        "1 p0 j0 click",
        "2 p0 j0 apply",
        "5 p0 j0 impression",
        "5 p0 j1 impression",
        "5 p0 j2 click",
        "5 p0 j3 click",
        "6 p0 j0 save",
        "99 p0 j0 click",
    ]
    log = joined(*rows, events={"without_impression": "keep", "window": 10})

    assert answers(log) == ["p0 j0 apply", "p0 j0 save", "p0 j1 ignore", "p0 j2 click", "p0 j3 click", "p0 j0 click"]
    assert log.time.tolist() == [1, 5, 5, 5, 5, 99]
    assert shown(log) == ["j0", "j0 j1", "j0 j1", "j2", "j3", "j0"]
    assert "Left out" not in joined.line
    assert answers(joined(*rows, events={"window": 10})) == ["p0 j0 save", "p0 j1 ignore"]


def test_a_log_without_impressions_has_one_row_for_each_pair(joined):
    log = joined("3 p0 j0 apply", "1 p0 j0 click", "2 p1 j0 save", "2 p0 j1 click", "2 p0 j1 click")

    assert answers(log) == ["p0 j0 apply", "p1 j0 save", "p0 j1 click"]
    assert (log.time.tolist(), log.shown_ids) == ([1, 2, 2], None)
    assert "Nothing follows from jobs that are not in the log" in joined.line
    assert "Left out: 1 event that came twice." in joined.line


def test_a_window_without_impressions_is_refused(joined):
    with pytest.raises(LogError, match="`events.window` is counted from impressions, and no event is an impression"):
        joined("1 p0 j0 click", events={"window": 5})


# ------------------------------------------------------------------------------------------------------ further columns


def test_propensities_are_those_of_the_impressions(joined):
    rows = ["1 p0 j0 impression 0.5", "2 p0 j0 click ", "3 p0 j1 impression 0.25", "4 p0 j2 apply "]
    log = joined(*rows, header=[*HEADER, "propensity"], events={"without_impression": "keep"})

    assert log.propensity.tolist() == [0.5, 0.25, 1.0]
    with pytest.raises(LogError, match=r"propensity outside of \(0, 1\]: 1, row 1 \(''\)"):
        joined("1 p0 j0 impression ", header=[*HEADER, "propensity"])


def test_without_impressions_there_are_no_propensities(joined):
    rows = ["1 p0 j0 click 0.2", "2 p0 j1 ignore 0.5"]
    log = joined(*rows, header=[*HEADER, "propensity"])

    assert (answers(log), log.propensity) == (["p0 j0 click", "p0 j1 ignore"], None)
    assert joined.line.endswith("Not read: 'propensity'.")


def test_yes_is_no_propensity_even_beside_a_one(shop, tmp_path):
    row = {"applicant": "p0", "job": "j0", "event": "impression"}
    (tmp_path / "events.jsonl").write_text("\n".join(json.dumps({**row, "propensity": one}) for one in (1, True)))
    with pytest.raises(LogError, match=r"propensity outside of \(0, 1\]: 1, row 2 \(True\)"):
        load_interactions(tmp_path / "events.jsonl", shop, events=True)


def test_the_split_is_that_of_the_impression_or_else_the_market_s(joined, shop):
    rows = ["1 p0 j0 impression test", "2 p0 j0 click train", "3 p1 j1 impression train"]
    assert joined(*rows, header=[*HEADER, "split"]).held_out.tolist() == [True, False]
    assert joined(*rows[:1], "2 p0 j0 click ", header=[*HEADER, "split"]).held_out.tolist() == [True]
    keep = {"without_impression": "keep"}
    alone = joined(*rows[:1], "2 p0 j1 click train", header=[*HEADER, "split"], events=keep)
    assert alone.held_out.tolist() == [True, False]
    for open_rows, events in ((["2 p0 j0 click "], True), ([*rows[:1], "2 p0 j1 click "], keep)):
        with pytest.raises(LogError, match="split that is neither train nor test: 1"):
            joined(*open_rows, header=[*HEADER, "split"], events=events)
    assert joined("1 p0 j0 impression", "1 p3 j0 impression").held_out.tolist() == [
        bool(shop.applicants.held_out[row]) for row in (0, 3)
    ]
    by_time = joined("1 p0 j0 impression", "2 p3 j0 impression", split_by="time")
    assert by_time.held_out.tolist() == [False, True]


def test_columns_that_are_not_read_are_named(joined):
    joined(["1", "p0", "j0", "impression", "3", "x"], header=[*HEADER, "position", "reward"])

    assert joined.line.endswith("Not read: 'position', 'reward'.")


def test_the_log_is_one_that_all_else_takes(joined, shop, tmp_path):
    rows = ["1 p0 j0 impression", "1 p0 j1 impression", "2 p0 j0 click", "3 p1 j0 impression", "4 p1 j2 apply"]
    log = joined(*rows, events={"without_impression": "keep"})
    told = {name: getattr(log, name) for name in ("reward", "decision", "held_out", "time", "propensity")}
    checked = Interactions.of(shop, log.applicant_ids, log.job_ids, shown=[log.shown(row) for row in range(4)], **told)

    log.save(tmp_path / "log")
    log.write_csv(tmp_path / "log.csv")
    for other in (checked, load_interactions(tmp_path / "log", shop), load_interactions(tmp_path / "log.csv", shop)):
        for name in (
            "applicant_ids",
            "job_ids",
            "reward",
            "decision",
            "held_out",
            "time",
            "shown_offsets",
            "shown_ids",
        ):
            np.testing.assert_array_equal(getattr(log, name), getattr(other, name), err_msg=name)


def test_many_events_are_joined_as_one_by_one(joined):
    rng = np.random.default_rng(0)
    words = ("impression", "click", "save", "apply", "dismiss")
    rows = [
        (
            int(rng.integers(60)),
            f"p{rng.integers(4)}",
            f"j{rng.integers(5)}",
            words[rng.choice(5, p=[0.5, *[0.125] * 4])],
        )
        for _ in range(400)
    ]
    log = joined(*rows, events={"window": 7})

    steps = ("dismiss", "impression", "click", "save", "apply")
    expected, latest = [], {}
    for time, who, job, word in sorted(set(rows), key=lambda row: (row[0], row[3] != "impression")):
        if word == "impression":
            latest[who, job] = entry = [time, who, job, 0]
            expected.append(entry)
        elif (who, job) in latest and time - latest[who, job][0] <= 7:
            latest[who, job][3] = max(latest[who, job][3], steps.index(word) - 1)
    found = [f"{time:g} {row}" for time, row in zip(log.time, answers(log), strict=True)]
    assert sorted(found) == sorted(f"{time} {who} {job} {DECISIONS[what]}" for time, who, job, what in expected)
    assert len(set(answers(log))) > 30


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("row", "kind", "way_out"),
    [
        ("1 p0 j0 clicked", "unknown event: 1, row 2 ('clicked')", "`decisions={'clicked': 'click'}`"),
        (
            "1 p0 j0 shown",
            "unknown event: 1, row 2 ('shown')",
            "Events are impression (a job was shown), ignore, click",
        ),
        ("1 p9 j0 click", "unknown person: 1, row 2 ('p9')", "looked up by the market's keys"),
        ("1 p0 j9 click", "unknown job: 1, row 2 ('j9')", "must have all jobs of the log, also expired ones"),
        ("01.03.2026 p0 j0 click", "no time: 1, row 2 ('01.03.2026')", "such as 2026-06-01T08:00 (ISO 8601)"),
    ],
)
def test_an_impossible_event_is_named_with_the_way_out(joined, row, kind, way_out):
    with pytest.raises(LogError) as caught:
        joined("1 p0 j0 impression", row)
    message = str(caught.value)
    assert f"1 of 2 events are impossible: {kind}" in message
    assert way_out in message
    assert message.endswith("`on_bad='skip'` leaves them out.")
    assert answers(joined("1 p0 j0 impression", row, on_bad="skip")) == ["p0 j0 ignore"]


def test_nothing_left_is_an_error(joined):
    with pytest.raises(LogError, match=r"unknown job: 1, row 1 \('j9'\)\..* No row is left"):
        joined("1 p0 j9 click", on_bad="skip")
    with pytest.raises(LogError, match="no event is left; left out were 1 event of bots"):
        joined("1 p0 j0 click yes", header=[*HEADER, "bot"])
    with pytest.raises(
        LogError, match="no recommendation is left; left out were .*, 1 event without an earlier impression"
    ):
        joined("1 p0 j0 click", "1 p0 j9 impression", on_bad="skip")
    with pytest.raises(LogError, match=r"events\.csv has no rows"):
        joined()


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (3, "`events` must be True, or say how events are joined"),
        ({"windw": 3}, "`events` may name 'window', 'without_impression', 'sets', got 'windw'. Did you mean 'window'?"),
        ({"window": -1}, "`events.window` must be a finite number of at least 0"),
        ({"window": "7d"}, r"\(seconds if times are dates, 7 \* 86_400 for a week\), or None, got '7d'"),
        ({"without_impression": "kepe"}, "must be one of .* got 'kepe'. Did you mean 'keep'?"),
        ({"sets": "no"}, "`events.sets` must be True or False, got 'no'"),
    ],
)
def test_a_wrong_rule_is_refused(joined, events, message):
    with pytest.raises(LogError, match=message.replace("?", r"\?")):
        joined("1 p0 j0 impression", events=events)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"decision": "event"}}, "`columns` may name 'applicant', 'job', 'event', "),
        ({"columns": {"event": "what"}}, r"events\.csv has no column 'what'"),
        ({"decisions": {"x": "impresion"}}, r"`decisions\['x'\]` must be one of .* Did you mean 'impression'\?"),
        ({"decisions": ["x"]}, "`decisions` must map words to events"),
        ({"separator": ","}, "`separator` has no meaning with `events`"),
        ({"events": False, "columns": {"event": "event"}}, r"names 'event', which only events .* say `events=True`\."),
        ({"events": False, "decisions": {"x": "impression"}}, r"If rows are events .*say `events=True`\."),
    ],
)
def test_arguments_that_have_no_meaning_are_refused(joined, options, message):
    with pytest.raises(LogError, match=message):
        joined("1 p0 j0 impression", **({"columns": {"decision": "event"}} if "events" in options else {}) | options)


def test_the_column_of_the_event_is_asked_for(joined):
    with pytest.raises(LogError, match=r"Did you mean 'events'\? .* `columns=\{'event': \.\.\.\}`"):
        joined("1 p0 j0 impression", header=["time", "applicant", "job", "events"])
    with pytest.raises(LogError, match="column 'Time' would not be read, since the field is called 'time'"):
        joined("1 p0 j0 impression", header=["Time", *HEADER[1:]])


def test_a_saved_log_is_not_joined_again(joined, shop, tmp_path):
    joined("1 p0 j0 impression").save(tmp_path / "log")
    with pytest.raises(LogError, match="`events` cannot be given for .* which is a saved log"):
        load_interactions(tmp_path / "log", shop, events=True)


def test_rules_may_be_an_object(joined):
    assert answers(joined("1 p0 j0 impression", events=Events(window=3))) == ["p0 j0 ignore"]


def test_rows_may_be_numbers_of_the_market(joined):
    assert answers(joined("1 0 4 impression", "2 0 4 click", ids="row")) == ["p0 j4 click"]


def test_a_broken_file_is_the_reader_s_error(shop, tmp_path):
    with pytest.raises(MarketError, match="2 cells, expected 4"):
        (tmp_path / "events.csv").write_text("time,applicant,job,event\n1,p0\n")
        load_interactions(tmp_path / "events.csv", shop, events=True)
