"""Cells of the kinds that people's files have, and what they mean."""

import math
import unicodedata
import warnings

import numpy as np
import pytest

from jobrec_gym.loaders.cells import CellReader, CellRules, has_column, is_nothing, normal_form
from jobrec_gym.market import SENIORITY_LEVELS, MarketError


def reader(*header, **rules):
    return CellReader("jobs.csv", CellRules(**rules), header or ("hard", "skills"))


def skills(cell, **rules):
    return list(reader(**rules).skills(cell, "row 1", "hard"))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("SQL; Python ;;R", ["SQL", "Python", "R"]),
        ('["SQL", "R"]', ["SQL", "R"]),
        ("['SQL', 'R']", ["SQL", "R"]),
        ("('SQL', 'R')", ["SQL", "R"]),
        ("('SQL',)", ["SQL"]),
        ("{'SQL', 'R'}", ["SQL", "R"]),
        ("""["it's", 'a "b"']""", ["it's", 'a "b"']),
        (r"['it\'s', 'a\\b', 'caf\xe9']", ["it's", "a\\b", "café"]),
        ("['SQL' 'R']", ["SQL", "R"]),  # numpy
        ("['SQL'\n 'R']", ["SQL", "R"]),
        ("array(['SQL', 'R'], dtype=object)", ["SQL", "R"]),
        ("array(['SQL',\n       'R (array)'], dtype='<U9')", ["SQL", "R (array)"]),
        ("np.array(['SQL'])", ["SQL"]),
        ("array([], dtype=object)", []),
        ("array (a data structure)", ["array (a data structure)"]),
        ("['SQL', nan, None]", ["SQL"]),
        ("[]", []),
        ("[ ]", []),
        ("{}", []),
        ('{SQL,"Power BI",NULL}', ["SQL", "Power BI"]),  # a database
        ("[np.str_('SQL'), np.str_(\"it's\"), None]", ["SQL", "it's"]),  # numpy 2
        ("[SQL, C++ (basic), NULL]", ["SQL", "C++ (basic)"]),  # DuckDB
        (r"[SQL, 'a, b', 'it\'s']", ["SQL", "a, b", "it's"]),
        ("(2024)", ["(2024)"]),
        ("{1, 2}", ["1", "2"]),
        ("{a}", ["a"]),
        ("(advanced) SQL", ["(advanced) SQL"]),
        ("(a, b)", ["(a, b)"]),
        ("{{name}}", ["{{name}}"]),
        (["SQL", " R "], ["SQL", "R"]),
    ],
)
def test_a_list_of_skills_is_read_in_whatever_form(cell, expected):
    assert skills(cell) == expected


@pytest.mark.parametrize("cell", ["[SQL; R]", "['SQL' R]", '["SQL", R]', "[SQL, {R}]", "[1 2 ... 9]", "[SQL, R"])
def test_a_list_that_is_cut_or_mixed_is_refused(cell):
    with pytest.raises(MarketError, match="begins like a JSON array but is not one"):
        skills(cell)


def test_a_list_as_python_writes_it_runs_nothing():
    with pytest.raises(MarketError, match="begins like a JSON array but is not one"):
        skills("[__import__('os').getcwd()]")


@pytest.mark.parametrize(
    "cell", [None, math.nan, "", " ", "NaN", "N/A", "n/a", "NULL", "None", "-", "—", "\\N", "<NA>"]
)
def test_words_for_nothing_are_nothing(cell):
    assert skills(cell) == []
    assert reader().text(cell, "row 1", "title") == ""
    assert reader().free_text(cell, "row 1", "hard") == ""
    assert reader().seniority(cell, "row 1", "seniority") == 0
    assert is_nothing(cell)


def test_words_for_nothing_are_left_out_of_lists_and_counted():
    cells = reader()
    assert list(cells.skills(["SQL", None, "N/A", math.nan, ""], "row 1", "hard")) == ["SQL"]
    assert cells.counts == {"nulls in lists": 3}
    assert skills("SQL; n/a; R") == ["SQL", "R"]


def test_words_for_nothing_are_a_choice():
    assert skills("none", null_values=["Keine Angabe"]) == ["none"]
    assert skills("keine angabe ", null_values=["Keine Angabe"]) == []
    assert skills("-", null_values=()) == ["-"]
    assert skills(" ", null_values=()) == []


def test_a_key_may_be_any_word():
    assert reader().key("NA", "row 1", "key") == "NA"
    assert reader().key(None, "row 1", "key") == reader().key(" ", "row 1", "key") == ""


def test_texts_are_of_one_normal_form():
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert normal_form(apart) == composed
    assert skills(apart) == skills([apart]) == skills(f"['{apart}']") == [composed]
    cells = reader()
    assert cells.text(apart, "row 1", "title") == cells.key(apart, "row 1", "key") == composed
    assert cells.free_text([apart, "b"], "row 1", "hard") == f"{composed}\nb"


@pytest.mark.parametrize("form", [normal_form, lambda text: unicodedata.normalize("NFD", text)])
def test_words_that_are_told_are_compared_in_normal_form(form):
    apart = unicodedata.normalize("NFD", "unbest\u00e4tigt")
    cells = reader(null_values=[form("Unbest\u00e4tigt")], seniority_values={form("F\u00fchrung"): 5})
    assert cells.text(apart, "row 1", "title") == "" and cells.is_nothing(normal_form(apart))
    assert cells.seniority(unicodedata.normalize("NFD", "f\u00fchrung"), "row 1", "seniority") == 5
    assert cells.flag(form("s\u00ed"), "row 1", "remote") is True


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("k&oslash;kken;b&aring;d", ["k\u00f8kken", "b\u00e5d"]),
        ("&AElig;ble; &scaron;koda; &#246;l; 5 &euro;", ["\u00c6ble", "\u0161koda", "\u00f6l", "5 \u20ac"]),
        ("R&D;AT&T;", ["R&D", "AT&T"]),
        ("a &Foo;b", ["a &Foo", "b"]),
    ],
)
def test_entities_of_html_are_read_in_their_own_case(cell, expected):
    assert skills(cell) == expected


@pytest.mark.parametrize("cell", ["2.500 \u20ac netto", "35k\u20ac net annuel", "netto 2.500"])
def test_net_pay_is_refused_with_the_reason(cell):
    with pytest.raises(
        MarketError, match=r"row 1, column 'pay': .* is net pay, which cannot be compared with gross pay"
    ):
        reader("pay").number(cell, "row 1", "pay")


def test_bullets_of_lines_are_left_out():
    assert skills("• SQL\n- Power BI\n* R\n-5 degrees", skill_separator="\n") == ["SQL", "Power BI", "R", "-5 degrees"]


# ---- seniority


@pytest.mark.parametrize(
    ("word", "level"),
    [
        *((name, level) for level, name in enumerate(SENIORITY_LEVELS, start=1)),
        ("Entry level", 1),
        ("ENTRY-LEVEL", 1),
        ("Internship", 1),
        ("Associate", 2),
        ("Mid_Level", 3),
        ("Mid-Senior level", 4),
        ("Director", 5),
        ("Executive", 5),
        ("Not Applicable", 0),
        ("3.0", 3),
        (4, 4),
        (2.0, 2),
    ],
)
def test_usual_words_of_seniority_are_levels(word, level):
    assert reader().seniority(word, "row 1", "seniority") == level


def test_other_words_of_seniority_are_told_and_come_first():
    values = {"Fachkraft": 3, "director": 4, "10": 5, "keine": None}
    cells = reader(seniority_values=values)
    expected = {"fachkraft": 3, "Director": 4, 10.0: 5, "10": 5, "Keine": 0, "senior": 4, 2: 2}
    assert {word: cells.seniority(word, "row 1", "seniority") for word in expected} == expected


@pytest.mark.parametrize("cell", ["Fachkraft", 6, "0", 2.5, True, 10**400, "9" * 5000])
def test_an_unknown_level_says_how_to_tell_it(cell):
    with pytest.raises(MarketError, match=r"from 1 \(entry\) to 5 \(lead\), or empty; got .*`seniority_values=\{"):
        reader().seniority(cell, "row 1", "seniority")


# ---- objects

ROW = {"skills": [{"name": "SQL", "level": {"id": 3}}, {"name": None}, {"level": {}}], "a.b": "whole", "at": {"x": "y"}}


def test_an_entry_of_objects_is_a_column():
    cells = reader("skills", "a.b", "at")
    assert cells.cell(ROW, "skills.name", "row 1") == ["SQL", None, None]
    assert cells.cell(ROW, "skills.level.id", "row 1") == [3, None, None]
    assert cells.cell(ROW, "at.x", "row 1") == "y"
    assert cells.cell(ROW, "a.b", "row 1") == "whole"
    assert cells.cell({}, "skills.name", "row 1") is None
    cells.finish()
    assert [has_column(["skills"], name) for name in ("skills", "skills.name", "skill.name")] == [True, True, False]


@pytest.mark.parametrize("text", ['[{"name": "SQL"}, {"name": "R"}]', "[{'name': 'SQL'}, {'name': 'R', 'x': None}]"])
def test_objects_in_a_text_are_objects(text):
    for cell in (text, f"array({text}, dtype=object)"):
        assert reader("skills").cell({"skills": cell}, "skills.name", "row 1") == ["SQL", "R"]


def test_an_entry_that_no_object_has_is_named_with_the_nearest():
    for misspelt in ("nmae", "NAME"):
        cells = reader("skills")
        assert cells.cell({"skills": [{"name": "SQL"}]}, f"skills.{misspelt}", "row 1") == [None]
        with pytest.raises(MarketError, match=rf"jobs\.csv: .*\.{misspelt}' names\. Did you mean 'name'\?"):
            cells.finish()


def test_a_column_of_texts_has_no_entries():
    with pytest.raises(MarketError, match=r"row 1, column 'skills\.name': must hold objects with 'name', got 'SQL'"):
        reader("skills").cell({"skills": ["SQL"]}, "skills.name", "row 1")


@pytest.mark.parametrize(
    "cell", [[{"name": "SQL"}], {"name": "SQL"}, '[{"name": "SQL"}]', "[{'name': 'SQL'}]", "{'name': 'SQL'}"]
)
def test_objects_in_place_of_skills_name_the_way_to_an_entry(cell):
    with pytest.raises(MarketError, match=r"column 'hard': must .*'hard': 'hard\.name'"):
        skills(cell)


@pytest.mark.parametrize("cell", [{"SQL": 3, "R": None}, '{"SQL": 3, "R": 1}', {"SQL": True, "R": 0.5}])
def test_an_object_whose_keys_are_the_skills_says_to_list_the_keys(cell):
    told = r"its keys are the skills, write a list of them in its place, e\.g\. \['SQL', 'R'\]\.$"
    with pytest.raises(MarketError, match=told):
        skills(cell)
    with pytest.raises(MarketError, match=told):
        skills([cell] if isinstance(cell, dict) else f"[{cell}]")


# ---- doubts


def doubts(cells, **rules):
    read = reader(**rules)
    for cell in cells:
        list(read.skills(cell, "row 1", "hard"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read.finish()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("separator", [",", "|", "\n", "•", "\uff1b", "\u3001", "\u061b", "\t", " / "])
def test_another_separator_is_doubted_and_named(separator):
    cells = [f"SQL{separator}Python{separator}R", f"SQL{separator}nursing", "R"]
    (message,) = doubts(cells)
    assert message.startswith("jobs.csv: 2 of 3 cells in column 'hard' have")
    assert f"say `skill_separator={separator!r}`" in message
    assert doubts(cells, skill_separator=separator) == []
    assert doubts(cells, skill_separator=";") == [], "who says so is believed"
    assert skills(cells[0], skill_separator=separator) == ["SQL", "Python", "R"]


def test_bullets_on_lines_are_doubted():
    (message,) = doubts(["• SQL\n• R"])
    assert "`skill_separator='•'`" in message
    assert skills("• SQL\n• R", skill_separator="•") == ["SQL", "R"]


def test_sentences_are_doubted_as_free_text():
    text = "You will plan, build and keep up the pipelines of our warehouse, together with a team of five people."
    (message,) = doubts([text, text])
    assert "words each and look like free text: name their field in `text_columns`" in message


@pytest.mark.parametrize(
    "cells",
    [
        ["SQL", "R"],
        ["SQL;R", "SQL, advanced"],
        ["SQL", "R", "Excel", "Word", "Python, advanced"],
        [["SQL, advanced"], '["SQL, advanced"]'],
        [],
    ],
)
def test_what_is_as_usual_is_not_doubted(cells):
    assert doubts(cells) == []


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"skill_separator": ""}, "`skill_separator` must be a text that is not empty, got"),
        ({"null_values": "none"}, r"`null_values` must list texts, such as \['N/A', '-'\], got 'none'"),
        ({"null_values": [None]}, "`null_values` must list texts"),
        ({"seniority_values": ["a"]}, "`seniority_values` must map words to levels"),
        ({"seniority_values": {"a": 6}}, r"`seniority_values\['a'\]` must be 1 \(entry\) to 5 \(lead\).*got 6"),
        ({"seniority_values": {"a": True}}, r"`seniority_values\['a'\]` must be 1"),
        ({"seniority_values": {"a": [1]}}, r"`seniority_values\['a'\]` must be 1"),
    ],
)
def test_rules_are_checked_where_they_enter(rules, message):
    with pytest.raises(MarketError, match=message):
        CellRules(**rules)


@pytest.mark.parametrize("level", [np.int64(5), np.float64(5), 5.0])
def test_a_level_may_be_a_number_of_another_type(level):
    found = reader(seniority_values={"Director": level}).seniority("director", "row 1", "seniority")
    assert found == 5 and type(found) is int
