"""A file of pairs: who has applied for what, by the keys of a market."""

import json

import numpy as np
import pytest

from jobrec_gym.interactions import LogError
from jobrec_gym.loaders.pairs import read_pairs

PEOPLE, JOBS = np.array(["p1", "p2", "7"]), np.array(["j0", "j1", "j2", "j3"])


@pytest.fixture
def read(tmp_path):
    def read(text, name="applied.csv", **options):
        (tmp_path / name).write_text(text)
        found = read_pairs(tmp_path / name, PEOPLE, JOBS, **options)
        return {key: jobs.tolist() for key, jobs in found.items()}

    return read


def test_each_row_is_a_pair_whatever_else_it_says(read):
    text = "when,job,applicant\n2026-01-01,j2,p1\n2026-01-02,j0,p1\n2026-01-03,j2,p1\n,j3, 7 \n,,\n"
    assert read(text) == {"p1": [0, 2], "7": [3]}
    assert read("applicant,job\n") == {}, "nobody has applied yet"


def test_the_columns_may_have_other_names(read):
    assert read("user;item\np1;j1\n", columns={"applicant": "user", "job": "item"}) == {"p1": [1]}
    assert read("applicant_key,rank,job_id,job_key\np2,1,0,j3\n") == {"p2": [3]}, "as in a ranked file"
    assert read("applicant,job,applicant_key,job_key\np1,j1,p2,j2\n") == {"p1": [1]}
    with pytest.raises(
        LogError, match="has no column 'applicant'.* Say which it is, perhaps `columns={'applicant': 'user'}`"
    ):
        read("user,job\np1,j1\n")
    with pytest.raises(LogError, match="has no column 'job'.*Did you mean 'Job'"):
        read("applicant,Job\np1,j1\n")
    with pytest.raises(LogError, match="`columns` may name 'applicant', 'job', got 'jobs'. Did you mean 'job'"):
        read("applicant,job\n", columns={"jobs": "job"})


def test_json_lines_and_parquet_are_read_by_their_endings(read, tmp_path):
    rows = [{"applicant": 7, "job": "j1"}, {"applicant": "p1", "job": "j2"}]
    assert read("".join(json.dumps(row) + "\n" for row in rows), "applied.jsonl") == {"7": [1], "p1": [2]}
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    from pyarrow import parquet

    parquet.write_table(
        pyarrow.Table.from_pylist([{"applicant": "p2", "job": "j1"}, {"applicant": "p2", "job": "j0"}]),
        tmp_path / "applied.parquet",
    )
    assert read_pairs(tmp_path / "applied.parquet", PEOPLE, JOBS)["p2"].tolist() == [0, 1]


def test_unknown_people_and_jobs_are_counted_and_the_way_out_is_said(read, caplog):
    text = "applicant,job\np1,j1\nP2,j1\np1,J3\nsomebody,j2\n"
    with pytest.raises(LogError) as error:
        read(text)
    for part in (
        r"applied.csv: 3 of 4 rows name an unknown person or job: ",
        "unknown person: 2, row 2 ('P2'), row 4 ('somebody'); unknown job: 1, row 3 ('J3').",
        "For 'P2', did you mean 'p2'? For 'J3', did you mean 'j3'?",
        "`on_unknown='skip'` leaves such rows out",
    ):
        assert part in str(error.value)
    assert not caplog.records

    assert read(text, on_unknown="skip") == {"p1": [1]}
    (record,) = caplog.records
    assert "3 of 4 rows name an unknown person" in record.message and record.message.endswith("They were left out.")
    with pytest.raises(LogError, match=r"`on_unknown` must be one of \('raise', 'skip'\), got 'ignore'"):
        read(text, on_unknown="ignore")


def test_rows_that_are_all_left_out_and_lost_zeros_are_told(tmp_path, caplog):
    (tmp_path / "applied.csv").write_text("applicant,job\n7,j1\n")
    people = np.array(["123", "007"])
    with pytest.raises(LogError, match="For '7', did you mean '007'?"):
        read_pairs(tmp_path / "applied.csv", people, JOBS)
    assert read_pairs(tmp_path / "applied.csv", people, JOBS, on_unknown="skip") == {}
    assert "They were left out, and no row remains." in caplog.text


def test_what_is_no_file_is_named():
    with pytest.raises(LogError, match=r"`source` must be a file, got \[\('p1', 'j1'\)\]"):
        read_pairs([("p1", "j1")], PEOPLE, JOBS)


def test_a_misspelt_argument_is_named(read):
    with pytest.raises(TypeError, match=r"read_pairs\(\) got .* argument 'on_unknwn': did you mean 'on_unknown'"):
        read("applicant,job\n", on_unknwn="skip")
