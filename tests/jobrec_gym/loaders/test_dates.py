"""Dates of jobs: read from any file, kept with the market, and no part of what agents see."""

import datetime
import json
import logging

import numpy as np
import pytest

from jobrec_gym import LabourMarket, RuleSimulator, load_market, recommend
from jobrec_gym.loaders.reading import Table
from jobrec_gym.loaders.tables import load_csv, load_jsonl, load_parquet, records_of
from jobrec_gym.market import MarketError
from jobrec_gym.market.dates import date_formats, open_jobs, seconds_of, usual_formats, way_to_format
from jobrec_gym.pair_features import PairValues
from jobrec_gym.prior_sources import SourcedPairValues

HASHING = {"encoder": "hashing", "cache_dir": False, "test_fraction": 0.0}
JOBS = """key,hard,Online Since,Apply By
j1,SQL,2026-11-01,2026-11-30
j2,SQL,2026-12-01,
j3,SQL,2026-11-01T08:00Z,2026-11-30T12:00+01:00
j4,SQL,N/A,20261129
"""
COLUMNS = {"jobs": {"posted": "Online Since", "expires": "Apply By"}}


@pytest.fixture
def load(tmp_path):
    def load(jobs=JOBS, people="key,hard\np1,SQL\n", **options):
        (tmp_path / "jobs.csv").write_text(jobs)
        (tmp_path / "people.csv").write_text(people)
        return load_csv(tmp_path / "jobs.csv", applicants=str(tmp_path / "people.csv"), **HASHING, **options)

    return load


def open_at(market, at):
    return market.jobs.keys[open_jobs(market, at)].tolist()


@pytest.mark.parametrize(
    ("at", "keys"),
    [
        ("2026-11-01", ["j1", "j4"]),
        ("2026-11-01T08:00", ["j1", "j3", "j4"]),
        ("2026-11-29T23:59:59", ["j1", "j3", "j4"]),
        ("2026-11-30", ["j1", "j3"]),
        ("2026-11-30T10:59:59Z", ["j1", "j3"]),
        ("2026-11-30T11:00", ["j1"]),
        ("2026-12-01", ["j2"]),
        ("2030-01-01", ["j2"]),
    ],
)
def test_a_day_is_a_whole_day_and_a_time_is_that_time(load, at, keys):
    assert open_at(load(columns=COLUMNS), at) == keys


def test_columns_with_the_names_of_dates_are_read(load):
    market = load(JOBS.replace("Online Since", "posted").replace("Apply By", "expires"))
    assert open_at(market, "2026-11-30") == ["j1", "j3"]
    only = load("key,hard,expires\nj1,SQL,2026-01-01\nj2,SQL,\n")
    assert open_at(only, "2026-01-02") == ["j2"]


@pytest.mark.parametrize("names", ["posted,Expires", "POSTED,expires_", "Posted,EXPIRES"])
def test_the_names_of_dates_may_be_in_any_case(load, names):
    market = load(JOBS.replace("Online Since,Apply By", names))
    assert open_at(market, "2026-11-30") == ["j1", "j3"]
    mapped = load(JOBS.replace("Online Since,Apply By", "online,Expires"), columns={"jobs": {"posted": "Expires"}})
    assert list(mapped.context) == ["posted"], "a column that is said to be something else is no other date"


def test_a_saved_market_keeps_the_dates_and_new_people_change_nothing(load, tmp_path):
    saved = load(columns=COLUMNS).save(tmp_path / "market")
    assert open_at(saved, "2026-11-30") == ["j1", "j3"]
    # A column of the people that has the name of a date is none of theirs.
    new = saved.with_applicants([{"key": "p9", "hard": ["SQL"], "posted": "soon"}], encoder="hashing")
    assert [one.key for one in recommend(None, new, "p9", open_at="2026-11-30")] == ["j1", "j3"]
    with pytest.raises(MarketError, match=r"`context` must name fields that the jobs .* have, \(\), got \['posted'\]"):
        saved.with_applicants([{"key": "p9", "hard": ["SQL"]}], encoder="hashing", context={"posted": "number"})


def test_dates_are_no_part_of_what_agents_see_or_know_a_catalogue_by(load):
    dated, plain = load(columns=COLUMNS), load()
    assert dated.fingerprint() == plain.fingerprint()
    assert dated.job("j1") == plain.job("j1") and dated.summary() == plain.summary()
    assert PairValues(dated, "all").names == PairValues(plain, "all").names
    with pytest.raises(ValueError, match="posted") as refused:
        PairValues(dated, ["posted"])
    assert "expires" not in str(refused.value)
    with pytest.raises(ValueError, match=r"the context of market 'csv:jobs.csv', \(\); got \['expires'\]"):
        RuleSimulator(weights={"expires": 1.0}).bind(dated)
    assert SourcedPairValues(dated, [], 0.0, {"posted": "cosine"}).names == ("posted",)


def test_a_mapped_column_must_hold_dates(load):
    for cell in ("30/11/2026", "soon", "1701010800000", "1701010800", "2026113017", "20261130.0", "2026-13-01"):
        with pytest.raises(MarketError, match=rf"jobs.csv, row 1, column 'Apply By': must be a date .* got '{cell}'"):
            load(JOBS.replace("2026-11-30\n", f"{cell}\n"), columns=COLUMNS)
    with pytest.raises(MarketError, match=r"say so by `null_values=\['open end', ...\]`"):
        load(JOBS.replace("20261129", "open end"), columns=COLUMNS)
    endless = load(JOBS.replace("20261129", "open end"), columns=COLUMNS, null_values=["open end", "N/A"])
    assert open_at(endless, "2026-12-01") == ["j2", "j4"]
    with pytest.raises(MarketError, match="has no column 'Apply Bye'.*'Apply By'"):
        load(columns={"jobs": {"expires": "Apply Bye"}})
    with pytest.raises(MarketError, match=r"`columns\['expires'\]` must be one column name, got \['Apply By'\]"):
        load(columns={"jobs": {"expires": ["Apply By"]}})
    with pytest.raises(MarketError, match="`columns` may name .*'expires', got 'expire'. Did you mean 'expires'"):
        load(columns={"jobs": {"expire": "Apply By"}})
    with pytest.raises(MarketError, match="`columns` may name .*'description', got 'expires'"):
        load(columns={"applicants": {"expires": "hard"}})


def test_what_is_no_date_in_a_column_that_is_not_mapped_is_counted(load, caplog):
    market = load(JOBS.replace("Apply By", "expires").replace("20261129", "tomorrow"))
    assert market.left_out == ("1 unreadable dates in column 'expires' of jobs",)
    assert "left out 1 unreadable dates in column 'expires' of jobs" in caplog.text
    assert open_at(market, "2026-12-01") == ["j2", "j4"]


def test_a_column_without_any_date_is_told_where_jobs_have_the_other_date(load, caplog):
    """Else lists would hold expired jobs, and nothing would say why."""
    market = load("key,hard,posted,expires\nj1,SQL,2026-01-01,31.01.2026\nj2,SQL,2026-01-01,28.02.2026\n")
    assert open_at(market, "2026-11-30") == ["j1", "j2"]
    assert "left out 2 unreadable dates in column 'expires' of jobs" in caplog.text


@pytest.mark.parametrize("ends", [("2026-11-30T00:00", "2026-12-01 00:00:00.000"), ("2026-11-30T00:00", "")])
def test_days_that_were_written_as_midnight_are_told(load, caplog, ends):
    load("key,hard,expires\nj1,SQL,{}\nj2,SQL,{}\n".format(*ends))
    assert "all times in column 'expires' are midnight, the beginning of a day." in caplog.text


@pytest.mark.parametrize(
    "ends", [("2026-11-30T00:00", "2026-12-01"), ("2026-11-30T00:00", "2026-12-01T12:00"), ("", "")]
)
def test_a_midnight_among_other_dates_is_meant(load, caplog, ends):
    load("key,hard,expires\nj1,SQL,{}\nj2,SQL,{}\n".format(*ends))
    assert not caplog.records


GERMAN = """key,hard,posted,expires
j1,SQL,01.11.2026,30.11.2026
j2,SQL,1.12.2026,
j3,SQL,01.11.2026 08:00,30.11.2026 11:00
j4,SQL,,29.11.2026
"""
FORMATS = ["%d.%m.%Y", "%d.%m.%Y %H:%M"]


@pytest.mark.parametrize(("at", "keys"), [("2026-11-29T23:59", ["j1", "j3", "j4"]), ("2026-11-30T12:00", ["j1"])])
def test_dates_are_read_as_their_format_says(load, at, keys):
    assert open_at(load(GERMAN, date_format=FORMATS), at) == keys
    columns = {"jobs": {"posted": "Since", "expires": "Until"}}
    mapped = GERMAN.replace("posted,expires", "Since,Until")
    assert open_at(load(mapped, columns=columns, date_format=FORMATS), at) == keys


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_date_that_two_formats_read_differently_is_refused(load, is_mapped):
    jobs = "key,hard,expires\nj1,SQL,31/01/2026\nj2,SQL,01/31/2026\nj3,SQL,2026-03-01\nj4,SQL,01/01/2026\n"
    formats = ["%d/%m/%Y", "%m/%d/%Y", "ISO8601"]
    columns = {"jobs": {"expires": "expires"}} if is_mapped else None
    assert open_at(load(jobs, date_format=formats, columns=columns), "2026-01-03") == ["j1", "j2", "j3"]
    said = (
        r"row 4, .* got '02/01/2026'\. It is 2026-01-02 by '%d/%m/%Y' and 2026-02-01 by '%m/%d/%Y': give one of these "
        "formats, or write such dates in ISO 8601"
    )
    with pytest.raises(MarketError, match=said):
        load(jobs.replace("01/01/2026", "02/01/2026"), date_format=formats, columns=columns)


@pytest.mark.parametrize(
    ("cell", "date_format"),
    [
        *((1122026, "%d%m%Y"), ("1122026", "%d%m%Y"), (11126, "%d%m%y"), (202611, "%Y%m%d"), (2026111.0, "%Y%m%d")),
        *(("12026301", "%m%Y%d"), ("01120999", "%d%m%Y"), ("01013026", "%d%m%Y")),
        *(("1122026 08:00", "%d%m%Y %H:%M"), ("1126", "%d%m%y")),
    ],
)
def test_digits_that_lost_a_zero_are_no_date(cell, date_format, load):
    with pytest.raises(ValueError, match="no date"):
        seconds_of(cell, formats=(date_format,))
    with pytest.raises(
        MarketError, match=r"A day of digits alone must have all its zeros, .* from 1900 to 2200\. If a"
    ):
        load(f"key,hard,expires\nj1,SQL,{cell}\n".replace(".0\n", "\n"), date_format=date_format)


@pytest.mark.parametrize(
    ("cell", "date_format", "day"),
    [
        *((11122026, "%d%m%Y", "2026-12-11"), ("01122026", "%d%m%Y", "2026-12-01")),
        *(("20261231 8:05", "%Y%m%d %H:%M", "2026-12-31T08:05"), ("1850-01-01", "%Y-%m-%d", "1850-01-01")),
        *((111226, "%d%m%y", "2026-12-11"), ("26001", "%y%j", "2026-01-01"), ("1.1.2026", "%d.%m.%Y", "2026-01-01")),
        *(("20261231235959", "%Y%m%d%H%M%S", "2026-12-31T23:59:59"), (20261231, "%Y%m%d", "2026-12-31")),
    ],
)
def test_digits_with_all_their_zeros_are_a_date(cell, date_format, day):
    assert seconds_of(cell, formats=(date_format,)) == seconds_of(day)


class _Counted(Table):
    """A table that counts how often a whole column of it is asked for."""

    n_asked = 0

    def column(self, name):
        type(self).n_asked += 1
        return super().column(name)


@pytest.mark.parametrize("date", ["31.12.2026", "31.12.2026 25:00", "since 5"])
def test_a_column_is_searched_for_a_format_once_however_many_dates_are_bad(date):
    def n_asked(n):
        _Counted.n_asked = 0
        rows = [(row, {"key": f"j{row}", "hard": "SQL", "posted": date}) for row in range(1, n + 1)]
        records = records_of(_Counted("jobs.csv", ["key", "hard", "posted"], rows), "jobs")
        assert [record.posted for record in records] == [None] * n
        return _Counted.n_asked

    assert 1 <= n_asked(3) == n_asked(60)


def test_dates_of_other_kinds_of_cells_are_read_too(tmp_path):
    (tmp_path / "people.csv").write_text("key,hard\np1,SQL\n")
    rows = [{"key": "j1", "hard": "SQL", "expires": 20261130}, {"key": "j2", "hard": "SQL", "expires": 20261129.0}]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"applicants": str(tmp_path / "people.csv"), **HASHING}
    assert open_at(load_jsonl(tmp_path / "jobs.jsonl", date_format="%Y%m%d", **options), "2026-11-30") == ["j1"]
    assert seconds_of(datetime.date(1970, 1, 2), formats=("%d.%m.%Y",)) == 86_400
    for cell in (True, 1.5, None, ["01.02.2026"]):
        with pytest.raises(ValueError, match="no date"):
            seconds_of(cell, formats=("%Y%m%d",))


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (
            ["31.12.2026", "01.02.2026"],
            r"\(ISO 8601\), or empty; got '31.12.2026'\. Say `date_format='%d\.%m\.%Y'`, which f",
        ),
        (["01/02/2026", ""], r"ambiguous: `date_format='%d/%m/%Y'` and `date_format='%m/%d/%Y'` fit all"),
        (["01/02/2026", "01/13/2026"], r"Say `date_format='%m/%d/%Y'`, which fits all"),
        (["2026-12-31", "31.12.26"], r"row 2, .* Say `date_format=\['%d\.%m\.%y', 'ISO8601'\]`, which fits all"),
        (["31.12.2026", "open"], r"got '31.12.2026'. Say `date_format='%d\.%m\.%Y'`"),
        (["open", "31.12.2026"], r"got 'open'\. If this means that nothing is known, say so by `null_values=\['open'"),
        (["31.12.2026", "31/12/2026"], "No single usual form fits all dates of the column: say how"),
    ],
)
def test_dates_in_another_form_are_refused_with_the_format_that_fits(load, dates, message):
    rows = "".join(f"j{row},SQL,{date}\n" for row, date in enumerate(dates))
    with pytest.raises(MarketError, match=message):
        load(f"key,hard,until\n{rows}", columns={"jobs": {"expires": "until"}})


def test_dates_that_do_not_fit_the_given_format_are_refused(load):
    for columns in (None, {"jobs": {"expires": "expires"}}):
        with pytest.raises(
            MarketError, match=r"row 4, column 'expires': must fit `date_format=\['%d.%m.%Y', .* got '29.1"
        ):
            load(GERMAN.replace("29.11.2026", "29.11.26"), columns=columns, date_format=FORMATS)
    with pytest.raises(
        MarketError, match=r"got '2026-11-29'\. Say `date_format=\['%d.%m.%Y', '%d.%m.%Y %H:%M', 'ISO8601'\]"
    ):
        load(GERMAN.replace("29.11.2026", "2026-11-29"), date_format=FORMATS)


@pytest.mark.parametrize("other", ["2026-01-01", "05.01.2026"])
def test_dates_in_another_form_are_told_where_their_column_is_not_mapped(load, caplog, other):
    market = load(f"key,hard,expires\nj1,SQL,31.01.2026\nj2,SQL,{other}\nj3,SQL,open\n")
    assert "column 'expires' has dates that are not in ISO 8601, and they count as unknown. Say `date_f" in caplog.text
    (said,) = market.left_out
    assert said == f"{2 if other[0] == '2' else 3} unreadable dates in column 'expires' of jobs"


@pytest.mark.parametrize(
    "date_format",
    [
        *("%d.%m.", "%H:%M", "%d.%m.%Y %I:%M", "%d.%m.%Y %M", "%Q %d.%m.%Y", "%d %d.%m.%Y", "100%", ""),
        *("%d.%m.%Y %Z", "%x", "%d.%m.%Y %X", "%c", [], 5, ["%d.%m.%Y", None], {"expires": "%d.%m.%Y"}, "iso"),
    ],
)
def test_a_format_that_is_none_of_dates_is_refused(load, date_format):
    with pytest.raises(MarketError, match="`date_format` must"):
        load(date_format=date_format)


@pytest.mark.parametrize("directive", "xXc")
def test_a_format_that_depends_on_the_locale_is_refused_with_the_reason(directive):
    with pytest.raises(MarketError, match=f"must not have %{directive}, got .*: it depends on the locale\\. Write"):
        date_formats(f"%d.%m.%Y %{directive}")
    assert date_formats(f"%d.%m.%Y %%{directive}")


def test_a_given_format_that_does_not_fit_is_not_proposed(load):
    jobs = "key,hard,expires\nj1,SQL,31.12.2026 23:00\nj2,SQL,31.12.2026 24:00\n"
    with pytest.raises(MarketError, match=r"got '31.12.2026 24:00'\. No single usual form fits"):
        load(jobs, date_format="%d.%m.%Y %H:%M")


@pytest.mark.parametrize(("cell", "is_told"), [("15. M\u00e4rz 2026", True), ("31.13.2026 08:00 Uhr", False)])
def test_names_of_months_that_cannot_be_read_are_told_to_be_those_of_the_locale(load, cell, is_told):
    for date_format in (None, "%d. %B %Y"):
        with pytest.raises(MarketError) as caught:
            load(f"key,hard,until\nj1,SQL,{cell}\n", columns={"jobs": {"expires": "until"}}, date_format=date_format)
        told = "Names of months are read in the language of the locale, which is English unless"
        assert (told in str(caught.value)) is is_told


def test_formats_of_dates_are_those_of_strptime():
    assert date_formats("%d. %B %Y") == ("%d. %B %Y",) and date_formats(None) == ()
    assert seconds_of("2. January 1970", formats=("%d. %B %Y",), through=True) == 2 * 86_400
    assert seconds_of("02.01.70 01:00 PM", formats=("%d.%m.%y %I:%M %p",), through=True) == 86_400 + 13 * 3_600
    assert seconds_of("02.01.1970 00:00 +0200", formats=("%d.%m.%Y %H:%M %z",)) == 86_400 - 7_200
    assert seconds_of("02.01.1970 +0200", formats=("%d.%m.%Y %z",), through=True) == 2 * 86_400 - 7_200


@pytest.mark.parametrize(
    ("cells", "formats"),
    [
        (["31.12.2026 14:05", "1.1.2027 08:00"], ["%d.%m.%Y %H:%M"]),
        (["31.12.2026, 14:05:30 Uhr", "1.1.2027"], []),
        (["31.12.2026 14:05 Uhr", "1.1.2027"], [["%d.%m.%Y", "%d.%m.%Y %H:%M Uhr"]]),
        (["12/31/2026 2:05 pm"], ["%m/%d/%Y %I:%M %p"]),
        (["2026/12/31T14:05:06"], ["%Y/%m/%dT%H:%M:%S"]),
        (["01-02-2026", "01-02-26"], []),
        (["01-02-26"], ["%d-%m-%y", "%m-%d-%y", "%y-%m-%d"]),
        (["26/11/30"], ["%d/%m/%y", "%y/%m/%d"]),
        (["26.11.30"], ["%d.%m.%y"]),
        (["15 Mar 2026", "3 Sep 2026"], ["%d %b %Y"]),
        (["30-NOV-26", "1-Dec-26"], ["%d-%b-%y"]),
        (["March 15, 2026", "May 3, 2026"], ["%B %d, %Y"]),
        (["15 May 2026"], ["%d %b %Y"]),
        (["3. May 2026 08:00", "15. June 2026", "2026-06-01"], [["%d. %B %Y", "%d. %B %Y %H:%M", "ISO8601"]]),
        (["15. M\u00e4rz 2026"], []),
        (["15 Mar 2026", "15.03.2026"], []),
        (["2026-12-31", "20261231", "soon", None, 5], []),
        (["31.13.2026"], []),
        (["31.12.2026 23:00", "31.12.2026 24:00"], []),
        (["31.12.2026 11:60:00"], []),
        (["12/31/2026 13:05 pm"], []),
        (["31.12.20265"], []),
        (["1.2.2026 5 o'clock"], []),
    ],
)
def test_the_usual_formats_are_found_by_all_cells_of_a_column(cells, formats):
    assert usual_formats(cells) == formats
    for one in formats:
        for cell in cells:
            seconds_of(cell, formats=date_formats(one))
    assert f"`date_format={formats[0] if formats else '%d.%m.%Y'!r}`" in way_to_format(cells)


def test_midnights_are_told_in_every_form(load, caplog):
    load("key,hard,expires\nj1,SQL,30.11.2026 00:00\nj2,SQL,\n", date_format="%d.%m.%Y %H:%M")
    assert "all times in column 'expires' are midnight" in caplog.text


def test_a_column_without_any_date_is_none_of_dates(load, caplog):
    market = load("key,hard,posted\nj1,SQL,3 days ago\nj2,SQL,today\n")
    assert market.left_out == () and not caplog.records and not market.context
    with pytest.raises(ValueError, match="market 'csv:jobs.csv' has none"):
        open_jobs(market, "2026-11-30")


def test_a_field_of_the_context_keeps_its_name(load):
    jobs, people = "key,hard,posted\nj1,SQL,2026-01-01\n", "key,hard,posted\np1,SQL,2026-01-01\n"
    market = load(jobs, people, context={"posted": "category"})
    assert market.job(0).context == {"posted": "2026-01-01"}
    with pytest.raises(ValueError, match="has none"):
        open_jobs(market, "2026-11-30")
    with pytest.raises(MarketError, match="`context` must not name a field 'posted' if `columns` says where that date"):
        load(jobs, people, context={"posted": "category"}, columns={"jobs": {"posted": "posted"}})


def test_jobs_that_expire_before_they_are_posted_are_told(load, caplog):
    with caplog.at_level(logging.WARNING):
        load("key,hard,posted,expires\nj1,SQL,2026-01-02,2026-01-02\nj2,SQL,2026-01-02,2026-01-01\n")
    assert "1 of the jobs expire before they are posted, so they are never open: " in caplog.text
    assert "jobs.csv, row 2 is the first" in caplog.text


def test_json_and_parquet_are_read_alike(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    from pyarrow import parquet

    people = tmp_path / "people.jsonl"
    people.write_text(json.dumps({"key": "p1", "hard": ["SQL"]}))
    rows = [{"key": "j1", "hard": ["SQL"], "expires": "2026-11-30"}, {"key": "j2", "hard": ["SQL"], "expires": None}]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind in (("day", datetime.date), ("moment", datetime.datetime)):
        rows[0]["expires"] = kind(2026, 11, 30)
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")

    options = {"applicants": str(people), **HASHING}
    for market in (load_jsonl(tmp_path / "jobs.jsonl", **options), load_parquet(tmp_path / "day.parquet", **options)):
        assert open_at(market, "2026-11-30T23:00") == ["j1", "j2"]
        assert open_at(market, "2026-12-01") == ["j2"]
    assert open_at(load_parquet(tmp_path / "moment.parquet", **options), "2026-11-30") == ["j2"]
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"key": "j1", "hard": ["SQL"], "until": 1764460800}))
    with pytest.raises(MarketError, match="row 1, column 'until': must be a date .* got 1764460800"):
        load_jsonl(tmp_path / "jobs.jsonl", columns={"expires": "until"}, **options)


def test_one_file_of_both_sides_has_dates_of_its_jobs(tmp_path):
    (tmp_path / "all.csv").write_text(
        "role,key,hard,until\njob,j1,SQL,2026-01-01\njob,j2,SQL,\napplicant,p1,SQL,never\n"
    )
    market = load_csv(tmp_path / "all.csv", role_column="role", columns={"expires": "until"}, **HASHING)
    assert open_at(market, "2026-01-02") == ["j2"]


def test_a_posting_of_the_web_is_open_until_its_valid_through(tmp_path):
    posting = {"@type": "JobPosting", "skills": "SQL", "datePosted": "2026-11-01T10:00", "url": "https://a.org/1"}
    ends = {"day": "2026-11-30", "noon": "2026-11-30T12:00:00+00:00", "none": None, "words": "until filled"}
    for name, end in ends.items():
        job = {**posting, "identifier": name, "validThrough": end}
        (tmp_path / f"{name}.json").write_text(json.dumps(job))
    (tmp_path / "people.csv").write_text("key,hard\np1,SQL\n")
    market = load_market(f"job-posting:{tmp_path}", applicants=f"csv:{tmp_path / 'people.csv'}", **HASHING)

    assert open_at(market, "2026-10-31") == []
    assert open_at(market, "2026-11-30T11:00") == ["day", "none", "noon", "words"]
    assert open_at(market, "2026-11-30T13:00") == ["day", "none", "words"]
    assert open_at(market, "2026-12-01") == ["none", "words"]
    assert market.left_out == ("1 unreadable dates in column 'expires' of jobs",)


def test_a_date_without_a_time_zone_is_in_utc():
    assert (
        seconds_of(" 1970-01-02 ") == seconds_of("1970-01-02T00:00") == seconds_of("1970-01-02T02:00+02:00") == 86_400
    )
    assert seconds_of("1970-01-01", through=True) == 86_400 and seconds_of("1970-01-01T01:00", through=True) == 3_600
    # A day of a time zone, as XML writes it; its zone is no time of day.
    assert seconds_of("1970-01-02+02:00") == seconds_of("1970-01-02T00:00+02:00") == 86_400 - 7_200
    assert seconds_of("1970-01-01-05:00", through=True) == 86_400 + 18_000
    assert seconds_of("1970-01-01Z", through=True) == seconds_of("1970-01-02t00:00z") == 86_400
    pandas = pytest.importorskip("pandas", reason="a Parquet file may hold its NaT")
    with pytest.raises(ValueError, match="NaT"):
        seconds_of(pandas.NaT)
    assert np.isfinite(seconds_of("9999-12-31", through=True))


def test_a_market_made_before_there_were_dates_has_none(load):
    plain = load()
    market = LabourMarket("old", plain.applicants, plain.jobs, plain.vocabulary)
    assert [one.key for one in recommend(None, market, 0)] == ["j1", "j2", "j3", "j4"]
