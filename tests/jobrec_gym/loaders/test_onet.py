import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jobrec_gym.loaders.onet import load_onet, read_onet
from jobrec_gym.market import MarketError, load_market

SHARED = Path(os.environ.get("JOBREC_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
RELEASE = SHARED / "onet" / "db_29_3_text.zip"

RATED = ["O*NET-SOC Code", "Element ID", "Element Name", "Scale ID", "Data Value", "Recommend Suppress"]
A, B, C = "11-1011.00", "29-1141.00", "55-1011.00"


def tables():
    """A small release: two occupations with ratings, one without."""
    return {
        "Occupation Data.txt": [
            ["O*NET-SOC Code", "Title", "Description"],
            [A, "Chief Executives", 'Say "yes" and "no'],
            [B, "Registered Nurses", "Nurse."],
            [C, "Air Crew Officers", "Fly."],
        ],
        "Knowledge.txt": [
            [*RATED],
            [A, "2.C.1.a", "Administration and Management", "IM", "4.78", "N"],
            [A, "2.C.1.a", "Administration and Management", "LV", "6.5", "N"],
            [B, "2.C.1.a", "Administration and Management", "IM", "2.99", "N"],
            [B, "2.C.5.a", "Medicine and Dentistry", "IM", "3", "N"],
        ],
        "Skills.txt": [
            [*RATED],
            [A, "2.A.1.a", "Reading Comprehension", "IM", "4.12", "N"],
            [A, "2.A.1.e", "Mathematics", "IM", "3.5", "N"],
            [A, "2.B.4.g", "Systems Analysis", "IM", "3.2", "N"],
            [A, "2.B.5.d", "Management of Personnel Resources", "IM", "4.1", "N"],
            [B, "2.B.1.f", "Service Orientation", "IM", "4", "N"],
            [B, "2.B.3.k", "Troubleshooting", "IM", "4", "Y"],
        ],
        "Work Styles.txt": [
            [*RATED],
            [A, "1.C.2.b", "Leadership", "IM", "4.9", "N"],
            [B, "1.C.3.b", "Concern for Others", "IM", "3.5", "N"],
            [B, "1.C.2.b", "Leadership", "IM", "3.49", "N"],
        ],
        "Technology Skills.txt": [
            ["O*NET-SOC Code", "Example", "Commodity Code", "Commodity Title", "Hot Technology", "In Demand"],
            [A, "Adobe Acrobat", "1", "Document management software", "Y", "N"],
            [A, "Microsoft Excel", "2", "Spreadsheet software", "Y", "Y"],
            [A, "AdSense Tracker", "3", "Data base user interface and query software", "N", "N"],
            [C, "Flight", "4", "Navigation software", "Y", "N"],
        ],
        "Related Occupations.txt": [
            ["O*NET-SOC Code", "Related O*NET-SOC Code", "Relatedness Tier", "Index"],
            [A, B, "Primary-Short", "2"],
            [A, "99-9999.00", "Primary-Short", "1"],
        ],
        "Job Zones.txt": [["O*NET-SOC Code", "Job Zone", "Date"], [A, "5", "x"], [B, "4", "x"]],
        "Sample of Reported Titles.txt": [
            ["O*NET-SOC Code", "Reported Job Title", "Shown in My Next Move"],
            [A, "CEO (Chief Executive Officer)", "Y"],
        ],
    }


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in content.items():
        (folder / file).write_text("\n".join("\t".join(row) for row in rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "db", tables())


def test_occupations_are_read_by_the_documented_rules(folder):
    chief, nurse = read_onet(folder)
    assert (chief.name, chief.seniority, chief.family) == ("Chief Executives", 5, "Management")
    assert chief.hard == (
        "Administration and Management",
        "Mathematics",
        "Systems Analysis",
        "Microsoft Excel",
        "Adobe Acrobat",
        "Data base user interface and query software",
    )
    assert chief.soft == ("Management of Personnel Resources", "Reading Comprehension", "Leadership")
    assert chief.titles == ("CEO (Chief Executive Officer)",)
    assert chief.related == ("99-9999.00", B)
    assert nurse.family == "Healthcare Practitioners and Technical"
    assert nurse.hard == ("Medicine and Dentistry",), "suppressed ratings and those below 3 are left out"
    assert nurse.soft == ("Service Orientation", "Concern for Others")


def test_a_zip_and_its_folder_are_alike(folder, tmp_path):
    archive = tmp_path / "db.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, f"db_29_3_text/{path.name}")
    assert read_onet(archive) == read_onet(folder)


def test_columns_are_read_by_name(folder):
    content = tables()
    content["Skills.txt"] = [[*reversed(row), "extra"] for row in content["Skills.txt"]]
    before = read_onet(folder)
    assert read_onet(write(folder, content)) == before


def as_of_30_3(content):
    """The same release as O*NET has written it since 30.3."""
    content = dict(content)
    skills = content.pop("Skills.txt")
    for name, group in (("Essential Skills.txt", "2.A"), ("Transferable Skills.txt", "2.B")):
        content[name] = [skills[0], *(row for row in skills[1:] if row[1].startswith(group))]
    header, *rows = content.pop("Technology Skills.txt")
    renamed = {"Example": "Workplace Example", "Commodity Code": "Element ID", "Commodity Title": "Element Name"}
    content["Software Skills.txt"] = [[renamed.get(name, name) for name in header], *rows]
    content["Work Styles.txt"] = [row[:-1] for row in content["Work Styles.txt"]]
    return content


def test_a_release_of_30_3_gives_the_occupations_of_an_earlier_one(folder, tmp_path):
    assert read_onet(write(tmp_path / "db_30_3", as_of_30_3(tables()))) == read_onet(folder)


def test_work_styles_that_are_rated_by_impact_are_left_out_and_it_is_said(tmp_path, caplog):
    content = as_of_30_3(tables())
    header, *rows = content["Work Styles.txt"]
    content["Work Styles.txt"] = [header, *([*row[:3], "WI", *row[4:]] for row in rows)]
    caplog.set_level("INFO")
    chief, nurse = read_onet(write(tmp_path / "db_30_3", content))
    assert (chief.soft, nurse.soft) == (
        ("Management of Personnel Resources", "Reading Comprehension"),
        ("Service Orientation",),
    )
    assert "Work Styles.txt rates nothing by importance" in caplog.text


def test_a_table_that_is_in_no_shape_there_is_named_in_both_shapes(folder, tmp_path):
    (folder / "Skills.txt").unlink()
    with pytest.raises(MarketError, match=r"lacks the file 'Skills\.txt'; from O\*NET 30\.3 on it is called 'Essen"):
        read_onet(folder)
    newer = write(tmp_path / "db_30_3", as_of_30_3(tables()))
    (newer / "Transferable Skills.txt").unlink()
    with pytest.raises(MarketError, match=r"lacks the file 'Transferable Skills\.txt'"):
        read_onet(newer)


def test_files_of_two_releases_in_one_folder_are_refused(folder):
    write(folder, as_of_30_3(tables()))
    with pytest.raises(MarketError, match=r"has 'Skills\.txt' and 'Essential Skills\.txt', which are of two releases"):
        read_onet(folder)


def test_occupations_are_jobs_and_people_are_sampled(folder):
    market = load_onet(folder, n_applicants=30, encoder="hashing")
    assert [market.job(i).key for i in range(2)] == [A, B]
    assert market.job(0).experience == "more than 10 years in Management"
    titles = {market.applicant(i).title for i in range(30)}
    assert titles == {"Chief Executives", "CEO (Chief Executive Officer)", "Registered Nurses"}
    for i in range(30):
        person = market.applicant(i)
        assert person.hard_skills and person.soft_skills and 1 <= person.seniority <= 5
        assert person.experience.endswith(person.family)
    assert load_onet(folder, n_applicants=30, encoder="hashing").fingerprint() == market.fingerprint()
    assert load_onet(folder, n_applicants=30, encoder="hashing", seed=1).fingerprint() != market.fingerprint()
    with pytest.raises(MarketError, match="`n_applicants` must be at most 2,147,483,647, got 1,000,000"):
        load_onet(folder, n_applicants=10**30, encoder="hashing")


def test_a_choice_of_occupations_is_the_same_each_time(folder):
    assert len(read_onet(folder, max_occupations=1)) == 1
    assert read_onet(folder, max_occupations=1) == read_onet(folder, max_occupations=1)
    with pytest.raises(MarketError, match="`max_occupations` must be at least 1 or None, got 0"):
        read_onet(folder, max_occupations=0)
    with pytest.raises(MarketError, match=r"`max_occupations` must be a whole number, got 1\.5"):
        read_onet(folder, max_occupations=1.5)


@pytest.mark.parametrize(
    ("file", "row", "column", "cell", "message"),
    [
        ("Skills.txt", 2, 4, "much", r"Skills\.txt, row 2, column 'Data Value': must be a number, got 'much'"),
        ("Skills.txt", 2, 4, "nan", r"Skills\.txt, row 2, column 'Data Value': must be a number, got 'nan'"),
        ("Job Zones.txt", 1, 1, "7", r"Job Zones\.txt, row 1, column 'Job Zone': must be 1 to 5, got '7'"),
        ("Skills.txt", 0, 2, "Element", r"Skills\.txt has no column 'Element Name'\. Did you mean 'Element"),
        ("Related Occupations.txt", 1, 3, "", r"Related Occupations\.txt, row 1, column 'Index': must be a number"),
    ],
)
def test_a_bad_cell_names_file_row_and_column(folder, file, row, column, cell, message):
    content = tables()
    content[file][row][column] = cell
    with pytest.raises(MarketError, match=message):
        read_onet(write(folder, content))


def test_an_unknown_major_group_is_named(folder):
    content = tables()
    for rows in content.values():
        for row in rows:
            row[0] = row[0].replace(A, "10-1011.00")
    with pytest.raises(MarketError, match=r"Occupation Data\.txt, row 1, .* '10-1011\.00' is of no SOC major group"):
        read_onet(write(folder, content))


def test_a_missing_file_is_named_with_the_nearest(folder):
    (folder / "Skills.txt").rename(folder / "Skill.txt")
    with pytest.raises(MarketError, match=r"lacks the file 'Skills\.txt' \(there is 'Skill\.txt'\)"):
        read_onet(folder)


def test_an_empty_table_and_a_short_row_are_named(folder):
    (folder / "Job Zones.txt").write_text("O*NET-SOC Code\tJob Zone\n")
    with pytest.raises(MarketError, match=r"Job Zones\.txt has no rows"):
        read_onet(folder)
    (folder / "Job Zones.txt").write_text("O*NET-SOC Code\tJob Zone\nx\n")
    with pytest.raises(MarketError, match=r"Job Zones\.txt, row 1: 1 cells, expected 2"):
        read_onet(folder)


def test_what_is_no_release_is_named(tmp_path):
    with pytest.raises(MarketError, match=r"nowhere\.zip does not exist; give the zip archive"):
        load_market(f"onet:{tmp_path}/nowhere.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(MarketError, match=r"text\.zip is neither a zip archive nor a folder"):
        read_onet(tmp_path / "text.zip")


@pytest.mark.skipif(not RELEASE.is_file(), reason=f"{RELEASE} is not here (JOBREC_SHARED_DATA names the folder)")
def test_the_real_release_gives_more_than_850_occupations():
    market = load_market(f"onet:{RELEASE}", encoder="hashing", n_applicants=200)
    assert len(market.jobs) > 850
    everything = np.arange(len(market.jobs))
    assert market.jobs.hard_skills.lengths(everything).min() >= 1
    assert market.jobs.soft_skills.lengths(everything).min() >= 1
    assert market.jobs.hard_skills.lengths(everything).max() <= 80
    assert market.jobs.soft_skills.lengths(everything).max() <= 12
    assert set(market.jobs.seniority) == {1, 2, 3, 4, 5}
    assert len(market.vocabulary.families) == 22
    assert "Mathematics" not in market.vocabulary.soft_skills
    assert market.jobs.held_out.sum() == round(0.3 * len(market.jobs))
    assert load_market(market.to_spec()) is market
    nurse = next(market.job(i) for i in everything if market.job(i).title == "Registered Nurses")
    assert "Medicine and Dentistry" in nurse.hard_skills
    assert "Concern for Others" in nurse.soft_skills
