import csv
import gzip
import json
import logging
import os
import pickle
import re
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobrec_gym.encoders import HashingEncoder
from jobrec_gym.loaders.release import no_such_column
from jobrec_gym.loaders.tables import load_csv, load_jsonl, load_parquet
from jobrec_gym.market import MarketError, load_market

SHARED = Path(os.environ.get("JOBREC_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
POSTINGS = SHARED / "postings" / "nyc_open_data_jobs.csv.gz"

JOBS = [
    {"key": "j1", "title": "Welder", "hard": "arc welding;TIG", "soft": "patience", "seniority": "2"},
    {"key": "j2", "title": "Nurse", "hard": "wound care", "soft": "empathy;calm", "seniority": ""},
    {"key": "j3", "title": "Cook", "hard": '["knife, skills", "baking"]', "soft": "", "seniority": "5"},
]
PEOPLE = [
    {"key": "p1", "title": "", "hard": "TIG", "soft": "calm", "experience": "3 to 5 years"},
    {"key": "p2", "title": "Baker", "hard": "baking", "soft": "", "experience": ""},
]


def write_csv(path, rows, **options):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def people(tmp_path):
    return write_csv(tmp_path / "people.csv", PEOPLE)


@pytest.fixture
def load(tmp_path, people):
    """Loads rows of jobs, written as CSV, with the two people above."""

    def load(rows, **options):
        path = write_csv(tmp_path / "jobs.csv", rows)
        return load_csv(path, **{"applicants": people, "encoder": "hashing", **options})

    return load


def test_two_csv_files_make_a_market(load):
    market = load(JOBS)
    assert market.name == "csv:jobs.csv"
    assert [market.job(i).key for i in range(3)] == ["j1", "j2", "j3"]
    assert market.job(0).hard_skills == ("TIG", "arc welding")
    assert market.job(2).hard_skills == ("baking", "knife, skills")
    assert market.job(2).soft_skills == ()
    assert [market.job(i).seniority for i in range(3)] == [2, 0, 5]
    assert market.applicant(0).experience == "3 to 5 years"
    assert market.block_dim == 384


def test_the_scheme_finds_the_loader_and_records_how(tmp_path, people):
    jobs = write_csv(tmp_path / "jobs.csv", JOBS)
    market = load_market(f"csv:{jobs}", applicants=str(people), encoder="hashing")
    assert load_market(market.to_spec()) is market
    json.dumps(market.to_spec())


def test_an_encoder_object_is_allowed_and_leaves_no_spec(tmp_path, people):
    jobs = write_csv(tmp_path / "jobs.csv", JOBS)
    market = load_market(f"csv:{jobs}", applicants=str(people), encoder=HashingEncoder(16))
    assert market.block_dim == 16
    with pytest.raises(ValueError, match="save it first"):
        market.to_spec()


def test_one_file_with_a_role_column_makes_a_market(tmp_path):
    rows = [{**row, "experience": "", "role": "job"} for row in JOBS]
    rows += [{**row, "seniority": "", "role": "applicant"} for row in PEOPLE]
    market = load_csv(write_csv(tmp_path / "all.csv", rows), role_column="role", encoder="hashing")
    assert (len(market.jobs), len(market.applicants)) == (3, 2)
    assert market.applicant(1).title == "Baker"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_role_values_are_compared_in_normal_form(tmp_path, form):
    job, person = "m\u00e9tier", "candidat"
    rows = f"role,key,hard\n{unicodedata.normalize('NFD', job)},1,SQL\n{person},2,SQL\n"
    (tmp_path / "all.csv").write_text(rows)
    values = {"jobs": unicodedata.normalize(form, job), "applicants": person}
    market = load_csv(tmp_path / "all.csv", role_column="role", role_values=values, encoder="hashing", cache_dir=False)
    assert market.jobs.keys.tolist() == ["1"]


def test_role_values_are_a_choice(tmp_path):
    rows = [{"key": "1", "hard": "a", "kind": "posting"}, {"key": "2", "hard": "b", "kind": "candidate"}]
    market = load_csv(
        write_csv(tmp_path / "all.csv", rows),
        role_column="kind",
        role_values={"jobs": "posting", "applicants": "candidate"},
        encoder="hashing",
    )
    assert market.job(0).key == "1"


def test_columns_are_mapped_and_joined(load):
    rows = [{"id": "a", "must": "x;y", "nice": "z", "wants": "tact", "ignored": "1"}]
    market = load(rows, columns={"jobs": {"key": "id", "hard": ["must", "nice"], "soft": "wants"}})
    assert market.job(0).hard_skills == ("x", "y", "z")
    assert market.job(0).soft_skills == ("tact",)
    assert market.applicant(0).key == "p1", "the other side keeps its default names"


def test_free_text_may_stand_on_one_side(load):
    text = "Weld things; be nice."
    market = load([{"key": "1", "hard": text}], text_columns={"jobs": ["hard"]})
    assert market.job(0).hard_skills == (text,)
    assert market.text_blocks == {"hard"}
    assert market.applicant(0).hard_skills == ("TIG",)


def test_without_a_key_column_a_row_is_known_by_its_number(load):
    market = load([{"hard": "a"}, {"hard": "b"}])
    assert [market.job(i).key for i in range(2)] == ["1", "2"]


def test_another_separator_and_delimiter_are_a_choice(tmp_path):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("key;hard\n1;a, b|c\n", encoding="utf-8")
    people = tmp_path / "people.csv"
    people.write_text("key;hard\n1;a\n", encoding="utf-8")
    market = load_csv(jobs, applicants=people, delimiter=";", skill_separator="|", encoder="hashing")
    assert market.job(0).hard_skills == ("a, b", "c")


def test_a_byte_order_mark_blank_lines_and_gzip_are_read(tmp_path, people):
    path = tmp_path / "jobs.csv.gz"
    path.write_bytes(gzip.compress("\ufeffkey,hard\n1,a\n\n2,b\n".encode()))
    assert len(load_csv(path, applicants=people, encoder="hashing").jobs) == 2


def test_jsonl_and_parquet_take_real_lists(tmp_path):
    jobs = [{"key": 1, "hard": ["a;b", "c"], "soft": None, "seniority": 3}, {"key": 2, "hard": ["d"], "soft": ["e"]}]
    people = [{"key": "x", "hard": ["a;b"], "soft": []}]
    market = load_jsonl(
        write_jsonl(tmp_path / "jobs.jsonl", jobs),
        applicants=write_jsonl(tmp_path / "people.jsonl", people),
        encoder="hashing",
    )
    assert market.job(0).hard_skills == ("a;b", "c")
    assert (market.job(0).key, market.job(0).seniority, market.job(1).seniority) == ("1", 3, 0)

    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    for name, rows in (("jobs", jobs), ("people", people)):
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    same = load_parquet(tmp_path / "jobs.parquet", applicants=tmp_path / "people.parquet", encoder="hashing")
    assert same.fingerprint() == market.fingerprint()


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "jobs.parquet").touch()
    with pytest.raises(ImportError, match=r'pip install -e ".+\[data\]"'):
        load_parquet(tmp_path / "jobs.parquet", n_applicants=3)


def test_a_file_that_is_no_parquet_is_named(tmp_path, people):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    with pytest.raises(MarketError, match=r"people\.csv cannot be read as Parquet"):
        load_parquet(people, n_applicants=3, encoder="hashing")


def test_what_is_read_and_what_is_not_is_logged(load, caplog):
    with caplog.at_level(logging.INFO):
        load([{"key": "1", "hard": "a", "wage": "3"}])
    assert "columns not used: wage" in caplog.text


# ---- people sampled from the jobs' occupations

OCCUPIED = [
    {
        "key": f"j{i}",
        "title": f"T{i}",
        "hard": f"h{i};h{i % 3}",
        "soft": "s1;s2",
        "occupation": f"o{i % 3}",
        "family": "f",
    }
    for i in range(12)
]


def test_people_are_sampled_from_the_jobs_occupations(tmp_path):
    path = write_csv(tmp_path / "jobs.csv", OCCUPIED)
    market = load_csv(path, n_applicants=50, encoder="hashing", seed=1)
    assert len(market.applicants) == 50
    wanted = {f"o{o}": {f"h{i}" for i in range(12) if i % 3 == o} for o in range(3)}
    for i in range(50):
        person = market.applicant(i)
        assert set(person.hard_skills) & wanted[person.occupation]
        assert person.family == "f"
        assert person.seniority == 0, "the source says nothing on seniority"
    again = load_csv(path, n_applicants=50, encoder="hashing", seed=1)
    assert again.fingerprint() == market.fingerprint()


def test_jobs_alone_need_an_occupation_column(load):
    with pytest.raises(MarketError, match=r"jobs\.csv, row 1 has no occupation: .* give the file of the applicants"):
        load(JOBS, applicants=None, n_applicants=5)


def test_people_are_not_sampled_from_free_text(load):
    with pytest.raises(MarketError, match="free text has none; give the file of the applicants"):
        load(OCCUPIED, applicants=None, n_applicants=5, text_columns=["hard"])


@pytest.mark.parametrize(("name", "value"), [("n_applicants", "5"), ("n_applicants", 2.5), ("seed", 1.5)])
def test_sampling_takes_whole_numbers(load, name, value):
    with pytest.raises(MarketError, match=f"`{name}` must be a whole number, got {value!r}"):
        load(OCCUPIED, **{"applicants": None, "n_applicants": 5, name: value})


def test_n_applicants_is_in_range(load):
    with pytest.raises(MarketError, match="`n_applicants` must be at least 1, got 0"):
        load(OCCUPIED, applicants=None, n_applicants=0)
    with pytest.raises(MarketError, match="`n_applicants` must be at most 2,147,483,647, got 1,000,000"):
        load(OCCUPIED, applicants=None, n_applicants=10**30)


@pytest.mark.parametrize(
    ("options", "got"), [({"applicants": None}, "none"), ({"n_applicants": 3}, r"\['applicants', 'n_applicants'\]")]
)
def test_applicants_come_from_exactly_one_place(load, options, got):
    with pytest.raises(MarketError, match=f"exactly one of `applicants`.*`role_column`.*`n_applicants`.*got {got}"):
        load(JOBS, **options)


# ---- bad input: file, row and column


def test_a_missing_column_is_named_with_the_nearest(load):
    with pytest.raises(
        MarketError, match=r"jobs\.csv has no column 'Titel'\. Did you mean 'title'\? It has 'key', 'title'"
    ):
        load(JOBS, columns={"title": "Titel"})


@pytest.mark.parametrize("name", ["Hard", "HARD", " hard", "hard ", "hard_"])
def test_a_column_that_is_nearly_a_field_is_refused_with_the_way_out(load, name):
    rows = [{"key": "1", name: "arc welding", "soft": "patience"}]
    with pytest.raises(MarketError, match=rf"jobs\.csv: column '{name}' .* say `columns=\{{'hard': '{name}'\}}`"):
        load(rows)
    assert load(rows, columns={"jobs": {"hard": name}}).job(0).hard_skills == ("arc welding",)


def test_a_column_that_is_nearly_a_field_may_stand_beside_it_or_say_the_role(load, tmp_path):
    assert load([{"key": "1", "hard": "a", "Hard": "b"}]).job(0).hard_skills == ("a",)
    rows = [{"key": "1", "hard": "a", "Family": "job"}, {"key": "2", "hard": "a", "Family": "applicant"}]
    path = write_csv(tmp_path / "all.csv", rows)
    assert load_csv(path, role_column="Family", encoder="hashing").job(0).family is None


def test_a_json_object_with_nearly_a_field_is_refused_by_its_row(tmp_path):
    rows = [{"key": 1, "hard": ["a"], "soft": ["b"]}, {"key": 2, "Hard": ["a"], "soft": ["b"]}]
    path = write_jsonl(tmp_path / "jobs.jsonl", rows)
    with pytest.raises(MarketError, match=r"jobs\.jsonl, row 2: column 'Hard' would not be read"):
        load_jsonl(path, applicants=path, encoder="hashing")


def test_a_file_without_skill_columns_says_how_to_map_them(load):
    with pytest.raises(MarketError, match=r"jobs\.csv has no column 'hard'.*'Hard Skills'.*`columns=\{'hard'"):
        load([{"key": "1", "Hard Skills": "a"}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"TITLE": "title"}}, r"`columns` may name 'key'.*got 'TITLE'\. Did you mean 'title'\?"),
        ({"columns": {"titel": "title"}}, r"`columns` may name 'key'.*got 'titel'\. Did you mean 'title'\?"),
        (
            {"columns": {"jobs": {}, "applicant": {}}},
            r"`columns` may name .* got 'applicant'\. Did you mean 'applicants'",
        ),
        ({"columns": {"title": ["key", "title"]}}, r"`columns\['title'\]` must be one column name"),
        ({"text_columns": ["title"]}, "`text_columns` may name 'hard', 'soft', got 'title'"),
        ({"text_columns": {"job": ["hard"]}}, "`text_columns` may name 'jobs', 'applicants', got 'job'"),
        ({"skill_separator": ""}, "`skill_separator` must be a text that is not empty"),
        ({"role_values": {"jobs": "j"}}, "`role_values` has no meaning without `role_column`"),
        (
            {"columns": {"hard": None}},
            r"`columns\['hard'\]` must be a column name or a list.*got None; leave 'hard' out",
        ),
        ({"columns": {"hard": ["hard", 1]}}, r"`columns\['hard'\]` must be a column name or a list of them"),
        ({"columns": ["hard"]}, r"`columns` must map fields to columns, `\{'hard': 'skills'\}`, got \['hard'\]"),
        ({"columns": {"jobs": "hard"}}, r"`columns\['jobs'\]` must map fields to columns, got 'hard'"),
        ({"text_columns": None}, "`text_columns` must list 'hard', 'soft' or both, got None"),
        ({"skill_separator": 1}, "`skill_separator` must be a text that is not empty, got 1"),
        ({"delimiter": ";;"}, "`delimiter` must be one character, .*got ';;'"),
        ({"delimiter": '"'}, "`delimiter` must be one character, no quotation mark"),
        ({"delimiter": 1}, "`delimiter` must be one character, .*got 1"),
        ({"encoding": "latin-17"}, "`encoding` must be the name of an encoding such as 'cp1252', got 'latin-17'"),
        ({"max_bytes": 0}, "`max_bytes` must be a whole number of at least 1, got 0"),
        ({"null_values": "none"}, "`null_values` must list texts"),
        ({"seniority_values": {"a": 9}}, r"`seniority_values\['a'\]` must be 1 \(entry\) to 5"),
        ({"on_empty": "drop"}, "`on_empty` must be 'raise' or 'skip', got 'drop'"),
        ({"test_fraction": "0.3"}, r"`test_fraction` must be a number in \[0, 1\), got '0\.3'"),
        ({"seed": 1.5}, r"`seed` must be a whole number, got 1\.5"),
        ({"seed": None}, "`seed` must be a whole number, got None"),
    ],
)
def test_options_are_checked(load, options, message):
    with pytest.raises(MarketError, match=message):
        load(JOBS, **options)


@pytest.mark.parametrize("cell", ["6", "0", "2.5", "senior?", "nan?"])
def test_seniority_names_row_and_column(load, cell):
    rows = [dict(row) for row in JOBS]
    rows[1]["seniority"] = cell
    with pytest.raises(
        MarketError, match=rf"jobs\.csv, row 2, column 'seniority': .* 1 \(entry\) to 5 .* got '{cell[:3]}"
    ):
        load(rows)


def test_an_empty_key_names_row_and_column(load):
    with pytest.raises(MarketError, match=r"jobs\.csv, row 2, column 'id': is empty"):
        load([{"id": "1", "hard": "a"}, {"id": " ", "hard": "b"}], columns={"jobs": {"key": "id"}})


def test_repeated_keys_name_both_rows(load):
    with pytest.raises(
        MarketError, match=r"'j1' of jobs appears twice: in .*jobs\.csv, row 1 and in .*jobs\.csv, row 4"
    ):
        load([*JOBS, JOBS[0]])


def test_a_row_without_skills_is_named(load):
    with pytest.raises(MarketError, match=r"jobs\.csv, row 2 \(key 'b'\) has neither hard nor soft skills"):
        load([{"key": "a", "hard": "x"}, {"key": "b", "hard": " ; "}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"jobs\.csv has no rows"),
        ("key,hard\n", r"jobs\.csv has no rows"),
        ("key,hard\n1,a\n2\n", r"jobs\.csv, row 2: 1 cells, expected 2"),
        ("key,hard\n1,a,b\n", r"jobs\.csv, row 1: 3 cells, expected 2"),
        ("key,hard,hard\n1,a,b\n", r"column 'hard' appears twice in the header"),
        ('key,hard\n1,"a\n', r"jobs\.csv, line \d: unexpected end of data"),
        ("key,hard\n1,[a\n", r"jobs\.csv, row 1, column 'hard': begins like a JSON array"),
        ("key,hard\n1,[1]\n", r"jobs\.csv, row 1, column 'hard': must list texts, got 1"),
        ("key,hard\n1," + "[" * 100_000 + "\n", r"jobs\.csv, row 1, column 'hard': .*too deep to read"),
        ('key,hard\n1,["\\ud800"]\n', r"jobs\.csv, row 1, column 'hard': holds half a character"),
    ],
)
def test_a_malformed_csv_names_the_place(tmp_path, people, text, message):
    path = tmp_path / "jobs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MarketError, match=message):
        load_csv(path, applicants=people, encoder="hashing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"jobs\.jsonl has no rows"),
        ('{"key": 1, "hard": ["a"]}\nno', r"jobs\.jsonl, row 2: no JSON"),
        ("[1]", r"jobs\.jsonl, row 1: must be a JSON object, got int"),
        ('{"key": 1, "hard": {"a": 1}}', r"jobs\.jsonl, row 1, column 'hard': must be a list of skills"),
        ('{"key": [1], "hard": ["a"]}', r"jobs\.jsonl, row 1, column 'key': must be a text or a number"),
        ('{"key": 1, "hard": [null]}', r"jobs\.jsonl, row 1 \(key '1'\) has neither hard nor soft skills"),
        ('{"key": 1, "hard": ["a"], "seniority": true}', r"row 1, column 'seniority': must be a whole number"),
        ('{"key": 1, "hard": ["a"], "seniority": 1' + "0" * 400 + "}", r"row 1, column 'seniority': must be a whole"),
        ('{"key": 1, "hard": ["a"], "seniority": 1' + "0" * 5000 + "}", r"jobs\.jsonl, row 1: no JSON: .*limit"),
        ('{"key": "\\ud800", "hard": ["a"]}', r"jobs\.jsonl, row 1, column 'key': holds half a character.*'\\ud800'"),
        ('{"key": 1, "hard": ["\\ud800"]}', r"jobs\.jsonl, row 1, column 'hard': holds half a character"),
        ('{"key": 1, "hard": "\\ud800"}', r"jobs\.jsonl, row 1, column 'hard': holds half a character"),
        ("[" * 100_000, r"jobs\.jsonl, row 1: .*too deep to read"),
        ('{"key": 1, "hard": ["a"], "hard": ["b"]}', r"jobs\.jsonl, row 1: 'hard' appears twice in one JSON object"),
    ],
)
def test_a_malformed_jsonl_names_the_place(tmp_path, text, message):
    path = tmp_path / "jobs.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MarketError, match=message):
        load_jsonl(path, applicants=path, encoder="hashing")


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path, people):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = pyarrow.Table.from_arrays([pyarrow.array([["a"]])] * 2, names=["hard", "hard"])
    parquet.write_table(table, tmp_path / "jobs.parquet")
    with pytest.raises(MarketError, match=r"jobs\.parquet: column 'hard' appears twice"):
        load_parquet(tmp_path / "jobs.parquet", applicants=tmp_path / "jobs.parquet", encoder="hashing")


def test_a_role_that_is_a_list_is_named(tmp_path):
    path = write_jsonl(tmp_path / "all.jsonl", [{"key": 1, "hard": ["a"], "role": ["job"]}])
    with pytest.raises(MarketError, match=r"all\.jsonl, row 1, column 'role': must be .* got \['job'\]"):
        load_jsonl(path, role_column="role", encoder="hashing")


def test_other_encodings_and_broken_archives_are_named(tmp_path, people):
    latin = tmp_path / "latin.csv"
    latin.write_bytes("key,hard\n1,Schweißen\n".encode("latin-1"))
    with pytest.raises(MarketError, match=r"latin\.csv, near line 2: not UTF-8"):
        load_csv(latin, applicants=people, encoder="hashing")
    broken = tmp_path / "jobs.csv.gz"
    broken.write_bytes(gzip.compress(b"key,hard\n1,a\n")[:-9])
    with pytest.raises(MarketError, match=r"jobs\.csv\.gz cannot be read"):
        load_csv(broken, applicants=people, encoder="hashing")


def test_a_file_that_does_not_exist_is_named(tmp_path, people):
    with pytest.raises(MarketError, match=r"nowhere\.csv does not exist"):
        load_csv(tmp_path / "nowhere.csv", applicants=people, encoder="hashing")
    with pytest.raises(MarketError, match=r"nobody\.csv does not exist"):
        load_csv(people, applicants=tmp_path / "nobody.csv", encoder="hashing")


class Frame:
    """As far as a loader looks at a data frame."""

    def iterrows(self):
        raise AssertionError("a frame that is refused is not read")


def test_a_data_frame_in_place_of_a_file_is_told_the_way(people):
    for argument, load in {
        "path": lambda: load_csv(Frame(), applicants=people),
        "applicants": lambda: load_market(people, applicants=Frame()),
        "market": lambda: load_market(Frame()),
    }.items():
        with pytest.raises(MarketError, match=rf"`{argument}` must be .*, got a Frame: .* `frame\.to_parquet\("):
            load()
    with pytest.raises(MarketError, match="`applicants` must be a file, got 5"):
        load_csv(people, applicants=5)


@pytest.mark.parametrize(
    ("roles", "options", "message"),
    [
        (
            ["job", "aplicant"],
            {},
            r"all\.csv, row 2, column 'role': must be .* got 'aplicant'\. Did you mean 'applicant'",
        ),
        (["job", "APPLICANT"], {}, r"row 2, column 'role': must be .* got 'APPLICANT'\. Did you mean 'applicant'"),
        (["job", "job"], {}, r"all\.csv has no applicants: no row has 'applicant' in column 'role'"),
        (["job", "job"], {"role_column": "rolle"}, r"all\.csv has no column 'rolle'\. Did you mean 'role'"),
        (["job", "job"], {"role_column": 3}, "`role_column` must be the name of a column, got 3"),
        (
            ["job", "job"],
            {"role_values": {"jobs": "job"}},
            r"`role_values` must give \('jobs', 'applicants'\) a value each",
        ),
        (["job", "job"], {"role_values": ["job"]}, "`role_values` must give .* a value each, got"),
    ],
)
def test_roles_are_checked(tmp_path, roles, options, message):
    rows = [{"key": str(i), "hard": "a", "role": role} for i, role in enumerate(roles)]
    path = write_csv(tmp_path / "all.csv", rows)
    with pytest.raises(MarketError, match=message):
        load_csv(path, **{"role_column": "role", "encoder": "hashing", **options})


def test_the_csv_limit_of_the_process_is_put_back(load):
    before = csv.field_size_limit()
    market = load([{"key": "1", "hard": "x" * 200_000}])
    assert len(market.job(0).hard_skills[0]) == 200_000
    assert csv.field_size_limit() == before


# ---- round trips

# U+FFFD stands for a lost letter, and is doubted; other normal forms are brought to C.
letters = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffd")
printable = st.text(letters, max_size=15).map(lambda text: unicodedata.normalize("NFC", text))
skill = printable.map(str.strip).filter(bool)
# With as few as 32 numbers, the vectors of two words can cancel. "-" is then a word like others.
EVERY_WORD = {"encoder": HashingEncoder(16_384), "null_values": ()}
rows = st.lists(
    st.fixed_dictionaries(
        {
            "key": skill,
            "title": printable,
            "hard": st.lists(skill, min_size=1, max_size=4),
            "soft": st.lists(skill, max_size=3),
            "seniority": st.integers(1, 5) | st.none(),
        }
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row["key"],
)


def assert_told(market, expected):
    for i, row in enumerate(expected):
        job = market.job(i)
        assert (job.key, job.title, job.seniority) == (row["key"], row["title"].strip(), row["seniority"] or 0)
        assert (job.hard_skills, job.soft_skills) == (tuple(sorted(set(row["hard"]))), tuple(sorted(set(row["soft"]))))
    np.testing.assert_allclose(np.linalg.norm(market.jobs.vectors, axis=1), 1, atol=1e-5)


# What an example holds may look like letters that were decoded wrongly. It is said, and read as it stands.
doubted = pytest.mark.filterwarnings("ignore:.*seem to be decoded wrongly")
# The folder is written anew by each example.
fresh = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@doubted
@fresh
@given(rows)
def test_csv_round_trips(tmp_path, people, expected):
    written = [
        {
            **row,
            "hard": json.dumps(row["hard"]),
            "soft": json.dumps(row["soft"]),
            "seniority": "" if row["seniority"] is None else row["seniority"],
        }
        for row in expected
    ]
    path = write_csv(tmp_path / "jobs.csv", written)
    assert_told(load_csv(path, applicants=people, **EVERY_WORD), expected)


@doubted
@fresh
@given(rows)
def test_jsonl_round_trips(tmp_path, expected):
    path = write_jsonl(tmp_path / "jobs.jsonl", expected)
    assert_told(load_jsonl(path, applicants=path, **EVERY_WORD), expected)


# ---- real postings


@pytest.mark.skipif(not POSTINGS.is_file(), reason=f"{POSTINGS} is not here (JOBREC_SHARED_DATA names the folder)")
def test_real_postings_load_as_free_text(people):
    columns = {
        "key": "job_id",
        "hard": ["description", "requirements"],
        "soft": "preferred_skills",
        "experience": "requirements",
        "occupation": "civil_service_title",
    }
    market = load_csv(
        POSTINGS,
        applicants=people,
        columns={"jobs": columns},
        text_columns={"jobs": ["hard", "soft"]},
        encoder="hashing",
    )
    assert len(market.jobs) == 1589
    assert market.text_blocks == {"hard", "soft"}
    assert market.job(3).title == "Temporary Painter"
    assert market.job(3).hard_skills[0].startswith("Responsibilities of selected candidates")
    assert market.jobs.held_out.sum() == round(0.3 * 1589)


def with_split(rows, *split):
    return [{**row, "split": name} for row, name in zip(rows, split, strict=True)]


def test_a_column_split_says_which_rows_are_held_out(tmp_path):
    jobs, people = with_split(JOBS, "test", "train", " test "), with_split(PEOPLE, "train", "train")
    files = [
        (load_csv, *(write_csv(tmp_path / f"{side}.csv", rows) for side, rows in (("jobs", jobs), ("people", people)))),
        (
            load_jsonl,
            *(write_jsonl(tmp_path / f"{side}.jsonl", rows) for side, rows in (("jobs", jobs), ("people", people))),
        ),
    ]
    for load, jobs_file, people_file in files:
        market = load(jobs_file, applicants=people_file, encoder="hashing", test_fraction=0.9, seed=7)

        assert market.jobs.held_out.tolist() == [True, False, True]
        assert market.applicants.held_out.tolist() == [False, False]


def test_the_split_of_a_parquet_file_may_have_a_name_of_its_own(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = []
    for name, rows in (
        ("jobs", with_split(JOBS, "test", "train", "train")),
        ("people", with_split(PEOPLE, "test", "train")),
    ):
        plain = {field: [row[field] for row in rows] for field in ("key", "hard")}
        files.append(tmp_path / f"{name}.parquet")
        pq.write_table(pa.table({**plain, "fold": [row["split"] for row in rows]}), files[-1])

    market = load_parquet(files[0], applicants=files[1], columns={"split": "fold"}, encoder="hashing")

    assert market.jobs.held_out.tolist() == [True, False, False]
    assert market.applicants.held_out.tolist() == [True, False]


def test_the_people_sampled_for_jobs_with_a_split_are_held_out_by_chance(load):
    jobs = [{**row, "occupation": "cook"} for row in with_split(JOBS, "train", "train", "train")]
    market = load(jobs, applicants=None, n_applicants=10, test_fraction=0.5)

    assert not market.jobs.held_out.any()
    assert market.applicants.held_out.sum() == 5


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("Train", r"jobs\.csv, row 2, column 'split': must be 'train' or 'test', got 'Train'\. Did you mean 'train'\?"),
        ("testing", r"got 'testing'\. Did you mean 'test'\?"),
        ("validation", r"got 'validation'\. A column that says something else needs another name"),
        ("", r"row 2, column 'split': must be 'train' or 'test', got ''"),
    ],
)
def test_another_word_for_a_split_is_refused(load, split, message):
    with pytest.raises(MarketError, match=message):
        load(with_split(JOBS, "train", split, "test"))


def test_a_split_of_one_side_alone_is_refused(load):
    with pytest.raises(
        MarketError, match=r"jobs\.csv says the split of the jobs, and .*people\.csv has no column 'split'"
    ):
        load(with_split(JOBS, "train", "train", "test"))


def test_two_ways_to_hold_rows_out_are_refused(load, people):
    write_csv(people, with_split(PEOPLE, "train", "test"))
    jobs = [{**row, "occupation": "cook"} for row in with_split(JOBS, "train", "train", "test")]

    with pytest.raises(MarketError, match=r"split_by='occupation'`, and the `split` that applicants and jobs have"):
        load(jobs, split_by="occupation")


def test_a_file_of_many_columns_makes_no_long_message():
    said = no_such_column("a.csv", "skils", ["skills", *(f"column {number} {'x' * 90}" for number in range(1_000))])
    assert said.startswith("a.csv has no column 'skils'. Did you mean 'skills'? It has 'skills', 'column 0 xxx")
    assert said.endswith(" and 961 more.") and len(said) < 5_000


def test_a_name_of_a_file_is_shown_without_what_a_terminal_obeys(tmp_path):
    file = tmp_path / "jobs\x1b[2J\u202e.csv"
    file.write_text("title\nNurse\n")
    with pytest.raises(MarketError, match=re.escape("jobs\\x1b[2J\\u202e.csv")) as refused:
        load_csv(file, role_column="role")
    assert "\x1b" not in str(refused.value)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


def test_the_two_files_may_have_different_encodings(tmp_path):
    (tmp_path / "jobs.csv").write_bytes("key;title;hard\nj;Köchin;Brühe\n".encode("cp1252"))
    (tmp_path / "people.jsonl").write_text('{"key": "p", "title": "Bäcker", "hard": ["Brötchen"]}\n', encoding="utf-8")
    both = {"applicants": str(tmp_path / "people.jsonl"), "encoder": "hashing"}

    market = load_csv(tmp_path / "jobs.csv", encoding={"jobs": "cp1252"}, **both)
    assert (market.job(0).title, market.applicant(0).title) == ("Köchin", "Bäcker")
    with pytest.warns(UserWarning, match=r"`encoding=\{'jobs': 'cp1252'\}`"):
        load_csv(tmp_path / "jobs.csv", encoding="cp1252", **both)
    with pytest.raises(MarketError, match="`encoding` may name 'jobs', 'applicants', got 'job'. Did you mean 'jobs'?"):
        load_csv(tmp_path / "jobs.csv", encoding={"job": "cp1252"}, **both)
    with pytest.raises(MarketError, match="`encoding` must be the name of an encoding such as 'cp1252', got 'cp99999'"):
        load_csv(tmp_path / "jobs.csv", encoding={"jobs": "cp99999"}, **both)
    with pytest.raises(MarketError, match="`encoding` has an entry for each of two files, and .*jobs.csv is one file"):
        load_csv(tmp_path / "jobs.csv", encoding={"jobs": "cp1252"}, n_applicants=3, encoder="hashing")


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path):
    (tmp_path / "jobs.xlsx").write_bytes(b"PK")
    with pytest.raises(MarketError, match="it is a spreadsheet: save the sheet as CSV"):
        load_market(str(tmp_path / "jobs.xlsx"), applicants="people.csv")
