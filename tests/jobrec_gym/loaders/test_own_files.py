"""Markets of files of the kinds that people have: each is read, or doubted, or refused with the way out."""

import datetime
import gzip
import json
import logging
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import pytest

import jobrec_gym  # noqa: F401  # registers the environment
from jobrec_gym.interactions import LogError
from jobrec_gym.loaders.interactions import load_interactions
from jobrec_gym.market import MarketError, load_market

PEOPLE = "key,hard\np1,SQL;R\np2,nursing\n"


@pytest.fixture
def load(tmp_path):
    """Writes jobs and people and loads them."""

    def load(jobs, name="jobs.csv", people=PEOPLE, people_name="people.csv", **options):
        for file, text in ((name, jobs), (people_name, people)):
            if text is not None:
                text = text if isinstance(text, str | bytes) else json.dumps(text)
                (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        if people is not None:
            options = {"applicants": str(tmp_path / people_name), **options}
        scheme = options.pop("scheme", "csv" if ".csv" in name else "json")
        return load_market(f"{scheme}:{tmp_path / name}", encoder="hashing", cache_dir=False, **options)

    return load


def skills(market):
    return [market.job(row).hard_skills for row in range(len(market.jobs))]


# ---- separators and lists


def test_commas_between_skills_are_doubted_and_said(load):
    jobs = 'key,hard\na,"SQL, Python, R"\nb,"SQL, nursing"\nc,R\n'
    with pytest.warns(UserWarning, match=r"jobs\.csv: 2 of 3 cells in column 'hard' have ','.*`skill_separator=','`"):
        assert skills(load(jobs))[0] == ("SQL, Python, R",)
    people = "key,hard\np1,SQL\n"
    market = load(jobs, people=people, skill_separator=",")
    assert skills(market) == [("Python", "R", "SQL"), ("SQL", "nursing"), ("R",)]
    assert skills(load(jobs, people=people, skill_separator=";"))[2] == ("R",), "who says so is believed"


def test_lists_as_pandas_and_databases_write_them_are_lists(load):
    jobs = "key,hard\na,\"['SQL', 'R']\"\nb,\"{SQL,R}\"\nc,\"('SQL', 'R')\"\n"
    assert skills(load(jobs)) == [("R", "SQL")] * 3


def test_a_file_in_another_language_of_spreadsheets_is_the_same_market(load):
    plain = load("key,hard,title\na,SQL;R,cook\nb,R,\n")
    for text in (
        'sep=;\r\nkey;hard;title\r\na;"SQL;R";cook\r\nb;R;\r\n',
        "key\thard\ttitle\na\tSQL;R\tcook\nb\tR\t\n",
        "\ufefftitle|key|hard\ncook|a|SQL;R\n|b|R\n",
        gzip.compress(b"key,hard,title\na,SQL;R,cook\nb,R,\n"),
        "key,hard,title\na,SQL;R,cook\nb,R,N/A\n".encode("utf-16"),
    ):
        assert load(text).fingerprint() == plain.fingerprint()


def test_accents_are_one_character_however_they_were_typed(load):
    market = load("key,hard\na,caf\u00e9\nb,cafe\u0301\n")
    assert skills(market) == [("caf\u00e9",)] * 2


# ---- JSON and objects

OBJECTS = [
    {"key": "a", "skills": [{"name": "SQL", "level": 3}, {"name": None}], "at": {"title": "analyst"}},
    {"key": "b", "skills": [{"name": "R"}], "at": None},
]
COLUMNS = {"jobs": {"hard": "skills.name", "title": "at.title"}}


def test_objects_are_columns_and_nulls_in_lists_are_counted(load, caplog):
    with caplog.at_level(logging.WARNING):
        market = load(OBJECTS, "jobs.json", columns=COLUMNS)
    assert skills(market) == [("SQL",), ("R",)]
    assert (market.job(0).title, market.job(1).title) == ("analyst", "")
    assert "jobs.json: left out 1 nulls in lists of jobs" in caplog.text
    assert market.left_out == ("1 nulls in lists of jobs",)


def test_objects_of_parquet_are_those_of_json(load, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'data'")
    parquet.write_table(pyarrow.Table.from_pylist(OBJECTS), tmp_path / "x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    market = load(data, "jobs.parquet", scheme="parquet", columns=COLUMNS)
    assert market.fingerprint() == load(OBJECTS, "jobs.json", columns=COLUMNS).fingerprint()


def test_an_entry_that_is_no_column_is_named(load):
    with pytest.raises(MarketError, match=r"no object has the entry .*'skills\.nmae' names\. Did you mean 'name'"):
        load(OBJECTS, "jobs.json", columns={"jobs": {"hard": "skills.nmae"}})
    with pytest.raises(MarketError, match=r"has no column 'skill\.name'"):
        load(OBJECTS, "jobs.json", columns={"jobs": {"hard": "skill.name"}})


def test_one_object_with_both_sides_is_a_market(load, tmp_path):
    jobs = [{"key": "a", "hard": ["SQL"]}, {"key": "b", "hard": ["R"]}]
    people = [{"key": "p", "hard": ["SQL"]}]
    both = {"jobs": jobs, "applicants": people}
    market = load(both, "all.json", people=None)
    assert (len(market.jobs), len(market.applicants)) == (2, 1)
    apart = load(jobs, "jobs.json", people=people, people_name="people.json")
    assert apart.fingerprint() == market.fingerprint()
    same = load({"jobs": jobs}, "jobs.json", applicants=str(tmp_path / "all.json"))
    assert same.fingerprint() == market.fingerprint()
    with pytest.raises(MarketError, match="give exactly one of `applicants`"):
        load({"jobs": jobs}, "jobs.json", people=None)


def test_each_file_is_read_by_its_own_scheme_or_ending(load, tmp_path):
    jobs = '{"key": "a", "hard": ["SQL"]}\n{"key": "b", "hard": ["R"]}\n'
    market = load(jobs, "jobs.jsonl")
    assert len(market.applicants) == 2
    by_scheme = load(jobs, "jobs.jsonl", people_name="people.txt", applicants=f"csv:{tmp_path / 'people.txt'}")
    assert by_scheme.fingerprint() == market.fingerprint()


# ---- seniority, nothing, empty rows


def test_words_of_seniority_are_levels_and_others_are_told(load):
    jobs = "key,hard,seniority\na,SQL,Entry level\nb,R,Mid-Senior level\nc,R,Fachkraft\n"
    with pytest.raises(MarketError, match=r"row 3, column 'seniority'.*`seniority_values=\{'Fachkraft': 3\}`"):
        load(jobs)
    market = load(jobs, seniority_values={"Fachkraft": 3, "mid-senior level": 5})
    assert [market.job(row).seniority for row in range(3)] == [1, 5, 3]
    assert market.with_applicants([{"hard": "SQL", "seniority": "Fachkraft"}]).applicant(0).seniority == 3


def test_words_for_nothing_are_nothing_unless_they_are_something(load):
    jobs = "key,title,hard\nNA,None,SQL\nb,-,n/a;R\n"
    market = load(jobs)
    assert [(market.job(row).key, market.job(row).title) for row in range(2)] == [("NA", ""), ("b", "")]
    assert skills(market) == [("SQL",), ("R",)]
    assert load(jobs, null_values=["-"]).job("NA").title == "None"


def test_rows_without_skills_are_one_error_or_are_left_out_and_counted(load, caplog):
    jobs = "key,hard\n" + "".join(f"j{row},{'SQL' if row in (5, 50) else 'NaN'}\n" for row in range(100))
    with pytest.raises(MarketError, match=r"row 1 \(key 'j0'\).*like 98 of 100 jobs.*`on_empty='skip'`"):
        load(jobs)
    with caplog.at_level(logging.WARNING):
        market = load(jobs, on_empty="skip")
    assert market.jobs.keys.tolist() == ["j5", "j50"]
    assert "left out 98 of 100 jobs, which have no skills" in caplog.text
    assert market.left_out == ("98 of 100 jobs, which have no skills",)


def test_nobody_is_left_out_of_a_side_that_has_no_skills_at_all(load):
    with pytest.raises(MarketError, match=r"nor has any of the 2 jobs: are the skills in another column"):
        load("key,hard\na,\nb,-\n", on_empty="skip")


# ---- paths


def test_a_relative_path_is_found_again_from_another_folder(load, tmp_path, monkeypatch):
    load("key,hard\na,SQL\nb,R\n").save(tmp_path / "mk")
    monkeypatch.chdir(tmp_path)
    env = gym.make("JobRec-v0", market="mk", split="all", job_split="all", num_candidates=2)
    market = load_market("csv:jobs.csv", applicants="people.csv", encoder="hashing", cache_dir=False)
    assert market.to_spec()["applicants"] == str(tmp_path / "people.csv")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert gym.make(env.spec).unwrapped.market.fingerprint() == env.unwrapped.market.fingerprint()
    assert load_market(market.to_spec()).fingerprint() == market.fingerprint()
    code = f"import pickle; print(pickle.loads({pickle.dumps(load_market('mk'))!r}).name)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == market.name


def test_a_market_that_is_nowhere_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MarketError, match=rf'unknown market "km".*\(looked in {tmp_path}\)'):
        load_market("km")


def test_the_home_folder_is_found_in_every_path(load, tmp_path, monkeypatch):
    market = load("key,hard\na,SQL\nb,R\n")
    market.save(tmp_path / "mk")
    monkeypatch.setenv("HOME", str(tmp_path))
    same = load_market("csv:~/jobs.csv", applicants="~/people.csv", encoder="hashing", cache_dir=False)
    assert same.fingerprint() == load_market("~/mk").fingerprint() == market.fingerprint()
    assert same.to_spec()["source"] == f"csv:{tmp_path / 'jobs.csv'}"


# ---- splits too small


def test_a_split_too_small_says_how_large_each_is_and_how_to_show_fewer(load):
    market = load("key,hard\na,SQL\nb,R\nc,R;SQL\n")
    with pytest.raises(ValueError, match=r"2 of train, 1 of test, 3 in all.*`num_candidates=2`.*`job_split='all'`"):
        gym.make("JobRec-v0", market=market)


# ---- logs


@pytest.mark.parametrize(
    "text",
    [
        "applicant;job;decision\np1;a;apply\np2;b;\n",
        "sep=\t\napplicant\tjob\tdecision\np1\ta\tapply\np2\tb\tN/A\n".encode("utf-16"),
        gzip.compress(b"applicant,job,decision\np1,a,apply\np2,b,<NA>\n"),
    ],
    ids=["semicolons", "UTF-16 with tabs", "gzip"],
)
def test_a_log_is_read_like_any_other_table(load, tmp_path, text):
    market = load("key,hard\na,SQL\nb,R\n")
    (tmp_path / "log.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    log = load_interactions(f"csv:{tmp_path / 'log.csv'}", market)
    assert (log.applicant_ids.tolist(), log.job_ids.tolist(), log.decision.tolist()) == ([0, 1], [0, 1], [3, -1])


def test_a_log_takes_lists_as_python_writes_them_and_json_arrays(load, tmp_path):
    market = load("key,hard\na,SQL\nb,R\n")
    rows = [{"applicant": "p1", "job": "a", "decision": "apply", "shown": "['a', 'b']"}]
    (tmp_path / "log.json").write_text(json.dumps(rows, indent=1))
    assert load_interactions(tmp_path / "log.json", market).shown(0).tolist() == [0, 1]
    rows[0]["shown"] = "['a' b]"
    (tmp_path / "log.json").write_text(json.dumps(rows))
    with pytest.raises(LogError, match="list of shown jobs that cannot be read"):
        load_interactions(tmp_path / "log.json", market)


# ---- names


def test_a_file_needs_no_scheme_where_its_ending_says_what_it_is(load, tmp_path, monkeypatch):
    market = load("key,hard\na,SQL\nb,R\n")
    monkeypatch.chdir(tmp_path)
    plain = load_market("jobs.csv", applicants="people.csv", encoder="hashing", cache_dir=False)
    assert plain.fingerprint() == market.fingerprint()
    assert pickle.loads(pickle.dumps(plain)) is plain
    (tmp_path / "jobs.txt").write_text("key,hard\na,SQL\n")
    with pytest.raises(MarketError, match=r"jobs\.txt must end in \.csv.*e\.g\. 'csv:.*jobs\.txt'\.$"):
        load_market("jobs.txt")
    (tmp_path / "jobs.html").write_text("<p>")
    with pytest.raises(MarketError, match=r"'csv:.*jobs\.html'; `jobrec look .*jobs\.html` tells what it is\.$"):
        load_market("jobs.html")


def test_a_key_is_found_however_its_accents_are_typed(load):
    market = load("key,hard\ncaf\u00e9,SQL\nb,R\n")
    assert market.job("cafe\u0301").id == market.job("caf\u00e9").id == 0


# ---- what spreadsheets, web pages and databases leave in files


def test_what_a_spreadsheet_leaves_empty_is_nothing(load):
    plain = load("key,hard\na,SQL\nb,R\n").fingerprint()
    for text in ("key,hard,,\na,SQL,,\nb,R,,\n", "key,hard\na,SQL,,\nb,R\n", "key,hard\na,SQL\n,\nb,R\n,\n,\n"):
        assert load(text).fingerprint() == plain
    with pytest.raises(MarketError, match=r"row 1: 3 cells, expected 2 as in the header: a cell that holds ','"):
        load("key,hard,\na,SQL,Python\nb,R,\n")
    with pytest.raises(MarketError, match=r"jobs\.csv has no rows"):
        load("key,hard\n,\n")


def test_html_in_cells_is_text(load):
    text = 'key,title,hard,description\na,R&amp;D,"<ul><li>SQL</li><li>R &amp; S</li></ul>",<p>We <b>bake</b>.</p>\n'
    job = load(f"{text}b,Profit&Loss;x < y,R&D;AT&T,\n").job(0)
    assert (job.title, job.hard_skills, job.description) == ("R&D", ("R & S", "SQL"), "We bake.")
    market = load("key,title,hard\na,Profit&Loss;x < y,R&D;SQL\nb,,R<br>SQL\n")
    assert market.job(0).title == "Profit&Loss;x < y"
    assert skills(market) == [("R&D", "SQL"), ("R", "SQL")]
    said = "key,hard\na,R<br>SQL\nb,R\n"
    assert skills(load(said, people=said, skill_separator="<br>"))[0] == ("R", "SQL")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("key,hard\na,caf\u00e9\nb,R\n".encode(), {"encoding": "cp1252"}),
        ("key,hard\na,C\u2019s\nb,R\n".encode("cp1252"), {"encoding": "latin-1"}),
        ("key,hard\na,caf\ufffd\nb,R\n".encode(), {}),
    ],
)
def test_letters_that_were_decoded_wrongly_are_doubted(load, text, options):
    with pytest.warns(UserWarning, match=r"jobs\.csv: 1 cells of column 'hard' seem to be decoded wrongly.*`encoding`"):
        load(text, **options)
    assert load("key,hard\na,caf\u00e9 \u2013 \u00c9\u00a0!\nb,R\n")


def test_a_point_that_may_separate_thousands_is_doubted_and_said(load):
    jobs = "key;hard;salary\na;SQL;50.000\nb;R;45.500\n"
    people = "key;hard;salary\np1;SQL;48000\n"
    context = {"salary": "number"}

    def salaries(jobs, **options):
        table = load(jobs, people=people, context=context, **options).context["salary"]
        return [table.value("jobs", row) for row in range(2)]

    with pytest.warns(UserWarning, match=r"2 of 2 numbers in column 'salary' .*`decimal=','`"):
        assert salaries(jobs) == [50, 45.5]
    assert salaries(jobs, decimal=",") == [50_000, 45_500]
    assert salaries(jobs, decimal=".") == [50, 45.5]
    assert salaries("key;hard;salary\na;SQL;1.234,5\nb;R;1 000\n", decimal=",") == [1234.5, 1000]
    assert salaries('key;hard;salary\na;SQL;"1,234.5"\nb;R;-2e3\n', decimal=".") == [1234.5, -2000]
    for cell in ("1,5", "12,34", "$1,5"):
        with pytest.raises(MarketError, match=r"must be a number .* got '.*'\. It must fit `decimal='\.'`"):
            salaries(f'key;hard;salary\na;SQL;"{cell}"\nb;R;1\n', decimal=".")
    with pytest.raises(MarketError, match=r"`decimal` must be '\.', ',' or None, got ';'"):
        load(jobs, decimal=";")


@pytest.fixture
def pay(load):
    """The salaries of the jobs and of one person, from cells: ``pay(["45.000 €"], wish="40k")``."""

    def pay(cells, wish="", kind="number", **options):
        jobs = [{"key": f"j{row}", "hard": ["SQL"], "pay": cell} for row, cell in enumerate(cells)]
        people = [{"key": "p", "hard": ["SQL"], "pay": wish}]
        market = load(jobs, "jobs.json", people=people, people_name="people.json", context={"pay": kind}, **options)
        table = market.context["pay"]
        return [table.value("jobs", row) for row in range(len(cells))], table.value("applicants", 0)

    return pay


def test_pay_is_read_with_currency_period_thousands_and_range(pay):
    cells = ["45.000,00 €", "45.000 EUR/Jahr", "ab 48.000", "52k", 47_000, "45.000-52.000", "", "n/a", "45 000"]
    expected = [45_000, 45_000, 48_000, 52_000, 47_000, 48_500, None, None, 45_000]
    assert pay(cells, wish="50,5k €") == (expected, 50_500)
    assert pay(["EUR 45,000.00 per year", "45,500"]) == ([45_000, 45_500], None)
    assert pay(["1.234,5", "45.000"]) == ([1234.5, 45_000], None), "plain numbers are read like the others"


def test_pay_in_objects_shows_what_it_means_too(load):
    jobs = [{"key": "a", "hard": "SQL", "pay": {"from": "45.000"}}, {"key": "b", "hard": "R", "pay": {"from": "1,5"}}]
    people = [{"key": "p", "hard": "SQL", "wish": ""}]
    read = {"people": people, "people_name": "people.json", "context": {"pay": ("number", "wish", "pay.from")}}
    assert load(jobs, "jobs.json", **read).job("a").context == {"pay": 45_000}
    jobs[1]["pay"] = "much"
    with pytest.raises(MarketError, match=r"row 1, column 'pay.from': '45.000 €' may be thousands"):
        load([{**jobs[0], "pay": {"from": "45.000 €"}}, jobs[1]], "jobs.json", **read)
    with pytest.raises(MarketError, match=r"row 2, column 'pay.from': must hold objects with 'from', got 'much'"):
        load([{**jobs[0], "pay": {"from": "45k"}}, jobs[1]], "jobs.json", **read)


@pytest.mark.parametrize(
    ("kind", "offered", "wished"),
    [("number", 48_000, 38_000), ("at_most", 52_000, 36_000), ("at_least", 44_000, 40_000)],
)
def test_the_end_of_a_range_is_the_one_that_fits_more(pay, kind, offered, wished):
    assert pay(["44000-52000"], wish="36-40k", kind=kind) == ([offered], wished)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["50", "45.000 €"], r"row 2, column 'pay': '45.000 €' may be .* do not show which: say `decimal=','` if '\.'"),
        (["45,000"], r"row 1, column 'pay': '45,000' may be thousands or a number with decimals"),
        (["45.000", "48k"], r"row 1, column 'pay': '45.000' may be thousands"),
        (["45.000 €", "48.5k"], r"row 1, column 'pay': '45.000 €' may be thousands"),
        (["1.234,5", "1,234.5", "45.000"], r"row 3, column 'pay': '45.000' .* show both decimal signs: say `decimal"),
        *(
            (
                [*some, "45.000 €"],
                rf"row {len(some) + 1}, column 'pay': '45.000 €' may be .*do not show which: say `decimal",
            )
            for some in (["38500.50"], ["12.50"], ["45000.00"], ["4.5 T€"], ["4,5 TEUR"], ["4,5 kEUR"], ["5000.-"])
        ),
        (["2,5", "45,000"], r"row 2, column 'pay': '45,000' may .*: say `decimal='\.'` if ',' separates thousands"),
        (["45-52.000 €"], r"row 1, column 'pay': '45-52.000 €' is a range .* `45\.000-52\.000`, .* `45-52k`\.$"),
        (["50000", "10-2026"], r"row 2, column 'pay': '10-2026' may be a range, a date or short for thousands"),
        (["-45.000", "52k"], r"row 1, column 'pay': '-45.000' may be thousands"),
        (["45.000 Mio"], r"row 1, column 'pay': must be a number .* got '45.000 Mio'\.$"),
        (["n. V."], r"row 1, column 'pay': must be a number .* got 'n. V.'. If .* say so by `null_values=\['n. V.', "),
        (
            ["45 km"],
            r"row 1, column 'pay': must be a number such as 45000, '45000 EUR' or '45-52k', or empty; got '45 k",
        ),
        ([True], "row 1, column 'pay': must be a number .* got True"),
    ],
)
def test_pay_that_may_mean_two_things_is_refused_with_the_way_out(pay, cells, message):
    with pytest.raises(MarketError, match=message):
        pay(cells)


def test_other_numbers_of_a_column_may_prove_that_a_sign_separates_thousands(pay):
    assert pay(["45.000 €", "31.500,50"])[0] == [45_000, 31_500.5]
    assert pay(["45.000 €", "5.000.-"])[0] == [45_000, 5_000]
    assert pay(["45.000 €", "5000,-"])[0] == [45_000, 5_000]
    assert pay(["45,000 €", "38500.50", "4,5k"])[0] == [45_000, 38_500.5, 4_500]


def test_a_column_of_plain_numbers_has_a_decimal_point(pay):
    assert pay(["45.000", "38.5"])[0] == [45, 38.5]
    with pytest.warns(UserWarning, match="2 of 2 numbers in column 'pay' are written like '50.000' and are read as 50"):
        assert pay(["45.000", "-38.500"])[0] == [45, -38.5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pay(["0.500", "0.250"])[0] == [0.5, 0.25]


@pytest.mark.parametrize(
    "offers", [["31.500,50 €", "45.000 €"], ["1.234,5"], ["45k"], ["38500.50 €"], ["1.234,5", "1,234.5"]]
)
@pytest.mark.filterwarnings("ignore:.*written like '50.000'")
def test_both_sides_have_one_decimal_sign(load, tmp_path, offers):
    def read(jobs, people, **options):
        rows = [
            [{"key": f"{row}", "hard": ["SQL"], "pay": cell} for row, cell in enumerate(cells)]
            for cells in (jobs, people)
        ]
        return load(
            rows[0], "jobs.json", people=rows[1], people_name="people.json", context={"pay": "number"}, **options
        )

    doubt = r"field 'pay' has a number .*{}, row 2 \('45.000'\).* in .*{}, and some of .*say `decimal=','` if '\.'"
    with pytest.raises(MarketError, match=doubt.format(r"people\.json", r"jobs\.json")):
        read(offers, ["50", "45.000", "46.000"])
    with pytest.raises(MarketError, match=doubt.format(r"jobs\.json", r"people\.json")):
        read(["50", "45.000", "46.000"], offers)
    market = read(offers, ["45000"])
    for known in (market, market.save(tmp_path / "saved")):
        with pytest.raises(MarketError, match=r"has a number .*`rows`, row 1 \('45.000'\).* in market .* say `decimal"):
            known.with_applicants([{"hard": "SQL", "pay": "45.000"}])
        person = known.with_applicants([{"hard": "SQL", "pay": "45.000"}], decimal=",").applicant(0)
        assert person.context == {"pay": 45_000}


def test_a_given_decimal_sign_fits_both_sides(pay):
    assert pay(["31.500,50 €"], wish="45.000", decimal=",") == ([31_500.5], 45_000)


def test_a_given_decimal_sign_settles_what_pay_means(pay):
    assert pay(["45.000 €", "48.500"], decimal=",") == ([45_000, 48_500], None)
    assert pay(["45.000 €", "48.500"], decimal=".") == ([45, 48.5], None)
    assert pay(["45.000 €", "VB"], decimal=",", null_values=["vb"]) == ([45_000, None], None)


@pytest.mark.parametrize(
    ("cells", "wish", "message"),
    [
        (
            ["45k €", "45k $"],
            "",
            r"row 2, .*'45k \$' is in \$, and .*row 1 \('45k €'\) is in EUR.* must have one currency",
        ),
        (
            ["15 €/h", "45k €"],
            "",
            r"row 2, .*'45k €' is without a period, which counts as for one year, and .*one hour",
        ),
        ([45_000, "15 €/h"], "", r"row 2, .*'15 €/h' is for one hour, and .*row 1 \(45000\) is without a period"),
        (
            ["45k €"],
            "45k CHF",
            r"'pay' compares numbers in CHF for one year in .*people.json with numbers in EUR for one",
        ),
        (
            ["15 €/h"],
            "45k",
            r"'pay' compares numbers for one year in .*people.json with numbers in EUR for one hour in",
        ),
    ],
)
def test_pay_of_several_currencies_or_periods_is_not_compared(pay, cells, wish, message):
    with pytest.raises(MarketError, match=message):
        pay(cells, wish)


def test_pay_of_one_currency_and_period_is_compared(pay):
    assert pay(["45k €", "46k", "47k EUR p.a."], wish="45k €") == ([45_000, 46_000, 47_000], 45_000)
    assert pay(["15 €/h", "16 €/Stunde"], wish="15,5 € pro Stunde") == ([15, 16], 15.5)


def test_pay_of_new_people_is_compared_in_the_units_of_the_jobs(load, tmp_path):
    people = "key,hard,pay\np,SQL,\n"
    market = load("key,hard,pay\na,SQL,45k €\n", people=people, context={"pay": "number"})
    for known in (market, market.save(tmp_path / "saved")):
        assert known.with_applicants([{"hard": "SQL", "pay": "40k €"}]).applicant(0).context == {"pay": 40_000}
        with pytest.raises(
            MarketError, match=r"'pay' compares numbers in CHF for one year in `rows` with numbers in EUR"
        ):
            known.with_applicants([{"hard": "SQL", "pay": "40k CHF"}])
    plain = load("key,hard,pay\na,SQL,45000\n", people=people, context={"pay": "number"}).save(tmp_path / "plain")
    with pytest.raises(MarketError, match=r"in EUR for one hour in `rows` with numbers for one year in market"):
        plain.with_applicants([{"hard": "SQL", "pay": "15 €/h"}])


# ---- yes and no


def test_yes_and_no_are_known_in_some_languages(load):
    yes = ["ja", "JA", "J", "wahr", "oui", "vrai", "si", "sí", "verdadero", "x", "X", "yes", "true", "1", "on"]
    no = ["nein", "N", "falsch", "non", "faux", "no", "falso", "No", "0", "off", "false"]
    rows = [{"key": f"{row}", "hard": ["SQL"], "remote": cell} for row, cell in enumerate([*yes, *no, "", True])]
    market = load(rows, "jobs.json", people=rows, people_name="people.json", context={"remote": "flag"})
    flags = [market.job(row).context.get("remote") for row in range(len(rows))]
    assert flags == [True] * len(yes) + [False] * len(no) + [None, True]
    rows[0]["remote"] = "vielleicht"
    with pytest.raises(MarketError, match=r"row 1, column 'remote': must be one of true, .*; got 'vielleicht'"):
        load(rows, "jobs.json", people=rows, people_name="people.json", context={"remote": "flag"})


def test_words_for_yes_are_words_where_no_yes_or_no_is_read(load):
    market = load(
        "key,title,hard,grade\nx,ja,nein;x,x\n", people="key,hard,grade\np,x,x\n", context={"grade": "category"}
    )
    job = market.job("x")
    assert (job.title, job.hard_skills, job.context) == ("ja", ("nein", "x"), {"grade": "x"})


# ---- headings


def test_skills_under_a_heading_of_another_language_are_proposed(load):
    with pytest.raises(MarketError, match=r"e\.g\. `columns=\{'title': 'Titel', 'hard': 'FÄHIGKEITEN'\}`"):
        load("Titel;FÄHIGKEITEN\nKoch;Messer\n")
    with pytest.raises(MarketError, match=r"e\.g\. `columns=\{'title': 'Beruf', 'hard': 'Kenntnisse'\}`"):
        load("Beruf;Kenntnisse\nKoch;Messer\n", columns={"title": "Beruf"})
    with pytest.raises(MarketError, match=r"e\.g\. `columns=\{'hard': 'skills'\}`"):
        load("Titel;a\nKoch;Messer\n")


def test_keys_of_numbers_are_those_of_a_column_without_gaps(load):
    market = load([{"key": 5.0, "hard": ["SQL"]}, {"key": "06", "hard": ["R"]}], "jobs.json")
    assert market.jobs.keys.tolist() == ["5", "06"]


def test_dates_and_bytes_of_parquet_are_texts(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"key": [b"a", b"b"], "title": [datetime.date(2020, 1, 2)] * 2, "hard": [[b"SQL"], [b"caf\xc3\xa9"]]}
    parquet.write_table(pa.table(columns), tmp_path / "jobs.parquet")
    people = str(tmp_path / "jobs.parquet")
    market = load_market(f"parquet:{people}", applicants=people, encoder="hashing", cache_dir=False)
    assert (market.jobs.keys.tolist(), market.job(0).title) == (["a", "b"], "2020-01-02")
    assert skills(market) == [("SQL",), ("caf\u00e9",)]


def test_a_column_is_found_however_its_accents_are_typed(load):
    for written, said in (("F\u00e4higkeit", "Fa\u0308higkeit"), ("Fa\u0308higkeit", "F\u00e4higkeit")):
        text = f"key,{written}\na,SQL\nb,R\n"
        assert skills(load(text, people=text, columns={"hard": said})) == [("SQL",), ("R",)]
        rows = [{"key": "a", written: ["SQL"]}]
        assert skills(load(rows, "jobs.json", people=text, columns={"hard": said})) == [("SQL",)]
