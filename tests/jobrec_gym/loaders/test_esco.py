import csv
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jobrec_gym.loaders import release
from jobrec_gym.loaders.esco import load_esco, read_esco
from jobrec_gym.market import MarketError, load_market

SHARED = Path(os.environ.get("JOBREC_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
RELEASE = SHARED / "esco" / "esco_1.1.1_classification_en_csv.zip"


def tables():
    """A small release: three occupations with skills, one of them with soft ones, and one without any."""
    return {
        "occupations_en.csv": [
            ["conceptType", "conceptUri", "iscoGroup", "preferredLabel", "altLabels"],
            ["Occupation", "o/1", "2221", "nurse", "ward nurse\nstaff nurse"],
            ["Occupation", "o/2", "2221", "midwife, senior", ""],
            ["Occupation", "o/3", "1120", "director", "head"],
            ["Occupation", "o/4", "9999", "dreamer", ""],
        ],
        "skills_en.csv": [
            ["conceptUri", "preferredLabel", "reuseLevel", "description"],
            ["s/1", "wound care", "sector-specific", "with\nlines"],
            ["s/2", "births", "occupation-specific", ""],
            ["s/3", "lead others", "cross-sector", ""],
            ["s/4", "think quickly", "transversal", ""],
            ["s/5", "budgets", "cross-sector", ""],
            ["s/6", "manage staff", "cross-sector", ""],
        ],
        "transversalSkillsCollection_en.csv": [["conceptUri", "preferredLabel"], ["s/3", "lead others"]],
        "occupationSkillRelations_en.csv": [
            ["occupationUri", "relationType", "skillType", "skillUri"],
            ["o/1", "essential", "x", "s/1"],
            ["o/1", "optional", "x", "s/4"],
            ["o/2", "essential", "x", "s/2"],
            ["o/2", "optional", "x", "s/1"],
            ["o/3", "essential", "x", "s/3"],
            ["o/3", "essential", "x", "s/5"],
            ["o/3", "essential", "x", "s/6"],
        ],
    }


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in content.items():
        with (folder / file).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "esco", tables())


def test_transversal_skills_are_soft_and_the_others_hard(folder):
    nurse, midwife, director = read_esco(folder)
    assert (nurse.name, nurse.hard, nurse.soft) == ("nurse", ("wound care",), ())
    assert (director.hard, director.soft) == (("budgets", "manage staff"), ("lead others",))
    assert (nurse.seniority, nurse.family) == (4, "Professionals")
    assert (director.seniority, director.family) == (5, "Managers")
    assert nurse.titles == ("ward nurse", "staff nurse")
    assert (nurse.related, midwife.related, director.related) == (("o/2",), ("o/1",), ())


def test_a_release_in_another_language_names_the_argument_that_reads_it(tmp_path):
    german = {file.replace("_en", "_de"): rows for file, rows in tables().items()}
    folder = write(tmp_path / "esco_de", german)
    with pytest.raises(
        MarketError, match=r"lacks the file 'skills_en\.csv' .*; the files that are there are read by `language=\"de\"`"
    ):
        read_esco(folder)
    assert [row.name for row in read_esco(folder, language="de")] == ["nurse", "midwife, senior", "director"]
    write(folder, {file.replace("_en", "_fr"): rows for file, rows in tables().items()})
    with pytest.raises(MarketError, match=r'`language="de"` or `language="fr"`'):
        read_esco(folder)


def test_esco_1_2_is_read_like_earlier_releases(folder, tmp_path):
    """It has labels beside URIs in the relations, NACE codes of occupations, and a folder for each language."""
    content = tables()
    content["occupations_en.csv"] = [
        [*row, "naceCode" if n == 0 else "86.1"] for n, row in enumerate(tables()["occupations_en.csv"])
    ]
    content["occupationSkillRelations_en.csv"] = [
        ["occupationUri", "occupationLabel", "relationType", "skillType", "skillUri", "skillLabel"],
        *([row[0], "a name", *row[1:], "another"] for row in tables()["occupationSkillRelations_en.csv"][1:]),
    ]
    release = tmp_path / "esco_1_2"
    write(release / "ESCO dataset - v1.2.0 - classification - en - csv", content)
    write(release / "ESCO dataset - v1.2.0 - classification - bg - csv", {"occupations_bg.csv": [["conceptUri"]]})
    assert read_esco(release) == read_esco(folder)


def test_optional_relations_are_a_choice(folder):
    nurse, midwife, _ = read_esco(folder, relations=("essential", "optional"))
    assert nurse.soft == ("think quickly",), "by its reuse level"
    assert midwife.hard == ("births", "wound care")
    assert [row.name for row in read_esco(folder, relations=["optional"])] == ["nurse", "midwife, senior"]


def test_one_relation_or_skill_may_stand_alone(folder):
    assert read_esco(folder, relations="optional") == read_esco(folder, relations=["optional"])
    assert read_esco(folder, soft_skills="manage staff") == read_esco(folder, soft_skills=["manage staff"])


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_two_files_of_one_name_are_refused_when_wanted(folder, kind):
    write(folder / "older", {"Skills_en.csv": tables()["skills_en.csv"], "notes.txt": []})
    write(folder / "skills_en.csv.d" / "notes", {"notes.txt": []})
    path = folder
    if kind == "zip":
        path = folder.parent / "release.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder).as_posix())
    with pytest.raises(
        MarketError, match=r"has 2 files 'skills_en\.csv', .*older/Skills_en\.csv' and '.*skills_en\.csv'"
    ):
        read_esco(path)
    (folder / "older" / "Skills_en.csv").unlink()
    assert len(read_esco(folder)) == 3, "other names may repeat"


def test_more_skills_can_be_called_soft(folder):
    assert read_esco(folder, soft_skills=["manage staff"])[2].soft == ("lead others", "manage staff")
    for misspelt in ("manage staf", "MANAGE STAFF"):
        with pytest.raises(MarketError, match=rf"`soft_skills` names '{misspelt}', .* Did you mean 'manage staff'\?"):
            read_esco(folder, soft_skills=[misspelt])


def test_occupations_without_skills_are_left_out_and_counted(folder, caplog):
    caplog.set_level("INFO")
    assert len(read_esco(folder)) == 3
    assert "3 occupations, 1 of them with soft skills; 1 without any skill are left out" in caplog.text


def test_where_soft_skills_are_rare_people_have_those_of_their_own_occupation_only(folder):
    market = load_esco(folder, n_applicants=60, encoder="hashing")
    soft = {market.applicant(i).occupation: market.applicant(i).soft_skills for i in range(60)}
    assert soft == {"nurse": (), "midwife, senior": (), "director": ("lead others",)}
    both_empty = market.cosine(np.arange(60), np.zeros(60, dtype=int))
    assert both_empty.max() == pytest.approx(1, abs=1e-5)


def test_more_people_than_can_be_numbered_are_refused(folder):
    with pytest.raises(MarketError, match="`n_applicants` must be at most 2,147,483,647, got 1,000,000"):
        load_esco(folder, n_applicants=10**30, encoder="hashing")


def test_a_source_without_any_soft_skill_makes_a_market(folder):
    content = tables()
    content["occupationSkillRelations_en.csv"] = content["occupationSkillRelations_en.csv"][:4]
    market = load_esco(write(folder, content), n_applicants=10, encoder="hashing")
    assert market.vocabulary.soft_skills == ()
    assert not market.applicants.vectors[:, 384:].any()


def test_a_zip_and_its_folder_are_alike(folder, tmp_path):
    archive = tmp_path / "esco.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, path.name)
    assert read_esco(archive) == read_esco(folder)


def test_another_language_is_another_set_of_files(folder):
    with pytest.raises(MarketError, match=r"lacks the file 'skills_de\.csv' \(there is 'skills_en\.csv'\)"):
        read_esco(folder, language="de")


@pytest.mark.parametrize(
    ("file", "row", "column", "cell", "message"),
    [
        ("occupationSkillRelations_en.csv", 1, 3, "s/9", r"row 1, column 'skillUri': 's/9' is not in skills_en\.csv"),
        ("occupations_en.csv", 1, 2, "x", r"occupations_en\.csv, row 1, column 'iscoGroup': 'x' is no ISCO-08 group"),
        ("occupations_en.csv", 0, 2, "isco", r"occupations_en\.csv has no column 'iscoGroup'"),
    ],
)
def test_a_bad_cell_names_file_row_and_column(folder, file, row, column, cell, message):
    content = tables()
    content[file][row][column] = cell
    with pytest.raises(MarketError, match=message):
        read_esco(write(folder, content))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relations": ("vital",)}, r"`relations` must be some of \('essential', 'optional'\), got \('vital',\)"),
        ({"relations": ()}, "`relations` must be some of"),
        ({"relations": "esential"}, r"`relations` must be some of .* got \('esential',\)"),
        ({"relations": 3}, "`relations` must be some of .* got 3"),
        ({"relations": [["optional"]]}, "`relations` must be some of"),
        ({"soft_skills": None}, "`soft_skills` must list preferred labels, got None"),
        ({"max_occupations": "3"}, "`max_occupations` must be a whole number, got '3'"),
        ({"max_occupations": 0}, "`max_occupations` must be at least 1"),
    ],
)
def test_options_are_checked(folder, options, message):
    with pytest.raises(MarketError, match=message):
        read_esco(folder, **options)


@pytest.mark.skipif(not RELEASE.is_file(), reason=f"{RELEASE} is not here (JOBREC_SHARED_DATA names the folder)")
def test_the_real_release_loads():
    market = load_market(f"esco:{RELEASE}", encoder="hashing", n_applicants=100, max_occupations=400)
    assert len(market.jobs) == 400
    assert market.jobs.hard_skills.lengths(np.arange(400)).min() >= 1
    assert set(market.vocabulary.families) >= {"Managers", "Professionals", "Elementary occupations"}
    occupations = read_esco(RELEASE, relations=("essential", "optional"))
    assert len(occupations) >= 3000
    assert sum(bool(row.soft) for row in occupations) == 6, "as the docstring says of 1.1.1"


def test_a_release_is_read_like_any_file_in_one_normal_form_its_encoding_and_bound(tmp_path, monkeypatch):
    content = tables()
    content["skills_en.csv"][1][1] = "premi\u00e8re"
    plain = read_esco(write(tmp_path / "plain", content))
    content["skills_en.csv"][1][1] = "premie\u0300re"
    folder = write(tmp_path / "other", content)
    assert read_esco(folder) == plain
    skills = folder / "skills_en.csv"
    skills.write_bytes(skills.read_text(encoding="utf-8").encode("utf-16"))
    assert read_esco(folder) == plain
    with zipfile.ZipFile(tmp_path / "esco.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"in/{file.name}")
    assert read_esco(tmp_path / "esco.zip") == plain
    monkeypatch.setattr(release, "DEFAULT_MAX_BYTES", 50)
    with pytest.raises(MarketError, match=r"esco\.zip, skills_en\.csv unpacks to more than"):
        read_esco(tmp_path / "esco.zip")
