"""People as JSON Resume writes them."""

import gzip
import json
import tracemalloc

import pytest

from jobrec_gym.loaders.resumes import RESUME_COLUMNS, read_resumes
from jobrec_gym.market import MarketError, load_market

ANNA = {
    "$schema": "https://raw.githubusercontent.com/jsonresume/resume-schema/v1.0.0/schema.json",
    "basics": {
        "name": "Anna Kowalska",
        "label": "Data analyst",
        "email": "anna@example.org",
        "phone": "123",
        "summary": "Eight years with numbers.",
        "location": {"address": "Long Street 1", "city": "Gdansk", "countryCode": "PL", "region": "Pomerania"},
    },
    "work": [
        {
            "name": "Old Shop",
            "position": "Clerk",
            "startDate": "2015-01-01",
            "endDate": "2016-01-01",
            "summary": "Kept the books.",
        },
        {
            "name": "Bank",
            "position": "Analyst",
            "startDate": "2019-03",
            "summary": "Reports.",
            "highlights": ["Cut costs by 5 %.", "Led a team."],
        },
    ],
    "skills": [
        {"name": "Web Development", "level": "Master", "keywords": ["HTML", "CSS"]},
        {"name": "SQL"},
        {"name": "Soft skills", "keywords": ["patience", "teamwork"]},
    ],
    "languages": [{"language": "Polish", "fluency": "Native speaker"}, {"language": "English"}],
    "education": [{"institution": "UG", "area": "Maths", "studyType": "Bachelor"}],
    "projects": [{"name": "Dashboard", "description": "Shows sales."}],
    "meta": {"lastModified": "2024-03-01T10:00:00"},
}
BEN = {"basics": {"name": "Ben"}, "skills": ["Welding", {"name": "Communication"}]}


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def rows(path):
    table = read_resumes(path)
    assert table.header == list(RESUME_COLUMNS)
    assert all(list(row) == table.header for _, row in table.rows)
    return [row for _, row in table.rows]


def test_a_resume_is_read_by_the_documented_rules(tmp_path):
    (anna,) = rows(write(tmp_path / "anna.json", ANNA))
    assert anna == {
        "key": "anna",
        "title": "Data analyst",
        "hard": ["Web Development", "HTML", "CSS", "SQL"],
        "soft": ["patience", "teamwork"],
        "experience": "6 years",
        "description": (
            "Eight years with numbers.\nAnalyst.\nReports.\nCut costs by 5 %.\nLed a team.\nClerk.\nKept the books.\n"
            "Dashboard.\nShows sales."
        ),
        "place": "Gdansk",
        "region": "Pomerania",
        "country": "PL",
        "languages": ["Polish", "English"],
        "degrees": ["Bachelor"],
        "years": 6.0,
        "updated": "2024-03-01",
    }


def test_neither_a_name_nor_an_address_is_read(tmp_path):
    text = json.dumps(rows(write(tmp_path / "p1.json", ANNA)))
    assert not [word for word in ("Kowalska", "example.org", "123", "Long Street") if word in text]


def test_years_of_work_at_the_same_time_count_once(tmp_path):
    work = [{"position": "a", "startDate": "2010", "endDate": "2012"}, {"startDate": "2011", "endDate": "2013-01"}]
    (row,) = rows(write(tmp_path / "a.json", {"work": work, "skills": BEN["skills"]}))
    assert (row["years"], row["experience"]) == (3.0, "3 years")
    (undated,) = rows(write(tmp_path / "b.json", BEN))
    assert (undated["years"], undated["experience"]) == (None, "")


@pytest.mark.parametrize("end", ["Present", "present.", "until now", "", " ", None])
def test_work_may_go_on_in_words(tmp_path, end):
    work = [
        {"position": "old", "startDate": "2010", "endDate": "2012"},
        {"position": "new", "startDate": "2015-01", "endDate": end},
    ]
    resume = {"work": work, "skills": BEN["skills"], "meta": {"lastModified": "2020-01-31"}}
    (row,) = rows(write(tmp_path / "a.json", resume))
    assert (row["title"], row["years"]) == ("new", 7.0)


def test_work_whose_end_cannot_be_read_is_not_the_latest(tmp_path):
    work = [
        {"position": "old", "startDate": "2010-01", "endDate": "05/2012"},
        {"position": "new", "startDate": "2015-01", "endDate": "2019-01"},
    ]
    (row,) = rows(write(tmp_path / "a.json", {"work": work, "skills": BEN["skills"]}))
    assert (row["title"], row["years"]) == ("new", 4.0)


def test_work_of_ten_thousand_years_takes_no_more_room_than_work_of_one(tmp_path):
    file = write(tmp_path / "a.json", {"work": [{"startDate": "0001", "endDate": "9999"}], "skills": BEN["skills"]})
    tracemalloc.start()
    try:
        (row,) = rows(file)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert row["years"] == 9998.0


def test_a_title_is_the_label_or_the_latest_position(tmp_path):
    unlabelled = {**ANNA, "basics": {}}
    assert rows(write(tmp_path / "a.json", unlabelled))[0]["title"] == "Analyst", "the work that goes on"


def test_skills_that_are_texts_are_skills(tmp_path):
    (ben,) = rows(write(tmp_path / "ben.json", BEN))
    assert (ben["hard"], ben["soft"]) == (["Welding"], ["Communication"])


def test_a_folder_a_list_and_lines_hold_several(tmp_path):
    folder = tmp_path / "people"
    folder.mkdir()
    write(folder / "anna.json", ANNA)
    write(folder / "ben.resume.json", BEN)
    write(folder / "package.json", {"name": "not a person"})
    (folder / "notes.txt").write_text("nothing")
    assert [row["key"] for row in rows(folder)] == ["anna", "ben.resume"]
    assert [row["key"] for row in rows(write(tmp_path / "all.json", [ANNA, BEN]))] == ["all-1", "all-2"]
    lines = tmp_path / "all.jsonl"
    lines.write_text("\n".join(map(json.dumps, (ANNA, BEN))))
    assert [row["title"] for row in rows(lines)] == ["Data analyst", ""]


def test_a_key_is_the_name_of_the_file_without_its_ending_alone(tmp_path):
    for name in ("john.doe.json", "john.smith.json", "john.x.JSON"):
        write(tmp_path / name, BEN)
    (tmp_path / "john.z.json.gz").write_bytes(gzip.compress(json.dumps(BEN).encode()))
    write(tmp_path / "two.of.them.json", [BEN, BEN])
    keys = ["john.doe", "john.smith", "john.x", "john.z", "two.of.them-1", "two.of.them-2"]
    assert [row["key"] for row in rows(tmp_path)] == keys
    people = f"json-resume:{tmp_path}"
    assert load_market(people, applicants=people, encoder="hashing").jobs.keys.tolist() == keys


def test_somebody_who_lists_no_skills_has_the_description_as_one_free_text(tmp_path, caplog):
    write(tmp_path / "a.json", {**ANNA, "skills": []})
    write(tmp_path / "b.json", BEN)
    first, second = rows(tmp_path)
    assert first["hard"] == [first["description"]]
    assert second["hard"] == ["Welding"]
    assert "1 of 2 list no skills; their description is used instead" in caplog.text


def test_what_is_no_resume_is_refused_by_name(tmp_path):
    with pytest.raises(MarketError, match=r"a\.json: holds something that is no résumé .* has some of 'basics'"):
        read_resumes(write(tmp_path / "a.json", {"title": "a job"}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MarketError, match=r"empty has no file of JSON Resume"):
        read_resumes(tmp_path / "empty")
    with pytest.raises(MarketError, match="does not exist"):
        read_resumes(tmp_path / "nobody.json")
