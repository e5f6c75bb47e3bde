"""The leaderboard: one file, which says what the results say, and a page, which says what the file says."""

import json
import shlex
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

import experiments
from experiments.runs.folders import RunError
from experiments.studies.leaderboard import COLUMNS, _command_of, page_of, read_rows, rows_of, update

ROOT = Path(experiments.__file__).parents[1]
FILE, PAGE = ROOT / "docs" / "results" / "leaderboard.csv", ROOT / "docs" / "leaderboard.md"
RESULTS = [ROOT / "docs" / "results" / name for name in ("coldstart.json", "profile.json", "other_settings.json")]

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="figures of results stay in the repository")

MINE = "profile,mine,0.9,100,90.5,110,400,0 1 5,0123abc,python -m experiments.coldstart +define.mine=x"


def test_the_page_says_what_the_file_says():
    page = PAGE.read_text()

    assert page_of(page, read_rows(FILE)) == page, "python -m experiments.studies.leaderboard makes it anew"


def test_the_file_says_what_the_results_say():
    rows = set(read_rows(FILE))
    said = {row for file in RESULTS for row in rows_of(json.loads(file.read_text()), file.name)}

    assert len(said) > 50 and said <= rows


def test_a_row_says_which_command_makes_it_alone():
    rows = {row.key: row.command for row in read_rows(FILE)}

    assert rows["profile", "gp"] == "python -m experiments.coldstart preset=full learners=[gp] settings=[profile]"
    assert "path=db_29_3_text.zip" in rows["onet", "gp"]


def test_the_command_of_a_row_leaves_out_other_settings_and_how_it_was_run():
    whole = (
        "python -m experiments.coldstart preset=full only_in.board=[a,b] +only_in.profile=[a] learners=[a,b] n_jobs=2"
    )

    assert _command_of(whole, "board", "b") == (
        "python -m experiments.coldstart preset=full only_in.board=[b] learners=[b] settings=[board]"
    )
    assert _command_of(whole, "profile", "a") == (
        "python -m experiments.coldstart preset=full learners=[a] settings=[profile]"
    )


def test_the_command_of_a_row_may_have_lists_with_spaces():
    whole = (
        "python -m experiments.coldstart learners=[a, b] seeds=[0, 1] n_jobs=2 +define.b={_target_: lab.B, n: [1, 2]}"
    )

    assert _command_of(whole, "board", "b") == (
        "python -m experiments.coldstart 'seeds=[0, 1]' '+define.b={_target_: lab.B, n: [1, 2]}' "
        "learners=[b] settings=[board]"
    )


@pytest.mark.parametrize("as_written", [shlex.join, " ".join], ids=["written now", "written by earlier versions"])
def test_the_command_of_a_row_can_be_typed_in_a_shell(as_written):
    words = ["python", "-m", "experiments.coldstart", 'common=["env.x=1"]', "learners=[a, b]", "folder=it's"]
    assert (
        _command_of(as_written(words), "board", "b")
        == "python -m experiments.coldstart 'common=[\"env.x=1\"]' learners=[b] settings=[board]"
    )


@pytest.fixture
def board(tmp_path):
    """A file with a row of somebody's, and a page."""
    out, page = tmp_path / "leaderboard.csv", tmp_path / "leaderboard.md"
    out.write_text(f"{','.join(COLUMNS)}\n{MINE}\n")
    page.write_text("Above.\n\n<!-- leaderboard -->\nold\n<!-- /leaderboard -->\n\nBelow.\n")
    return out, page


def test_a_row_of_somebody_stays_when_the_file_is_made_anew(board):
    out, page = board
    n_rows, n_made = update(RESULTS, out, page)
    text, before = page.read_text(), out.read_text()

    assert n_rows == n_made + 1 and MINE in before
    assert text.startswith("Above.") and text.endswith("Below.\n") and "old" not in text
    profile = text[text.index("## profile") :].split("\n")
    assert profile[4] == "| `mine` | 0.900 | 100 [90.5, 110] | 400 | 0 1 5 | `0123abc` |", "the best score first"
    assert update(RESULTS, out, page) == (n_rows, n_made)
    assert (text, before) == (page.read_text(), out.read_text()), "made twice it is the same"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (",0.9,", ",1.2,", "line 2: `score` must be at most 1, the oracle, got 1.2"),
        (",0.9,", ",good,", "line 2: `score` must be a number, got 'good'"),
        (",0.9,", ",nan,", "line 2: `score` must be a number, got 'nan'"),
        (",0.9,", ",-inf,", "line 2: `score` must be a number, got '-inf'"),
        (",110,", ",inf,", "line 2: `regret_high` must be a number, got 'inf'"),
        (",400,", ",400.7,", "line 2: `interactions` must be a whole number, got '400.7'"),
        (",400,", ",inf,", "line 2: `interactions` must be a whole number, got 'inf'"),
        (",400,", f",{'9' * 400},", "line 2: `interactions` must be a whole number, got '999"),
        ("0 1 5", "9-0", "line 2: `seeds` must be such as 200-209 or 0 1 5, got '9-0'"),
        (MINE, f'{MINE}\n"open', "line 3: unexpected end of data. A quotation mark needs a second one"),
        (",90.5,", ",105,", "line 2: `regret` must lie between `regret_low`, at least 0, and `regret_high`, got 100"),
        (",400,", ",0,", "line 2: `interactions` must be above 0"),
        ("0 1 5", "some", "line 2: `seeds` must be such as 200-209 or 0 1 5, got 'some'"),
        ("0123abc", "0123abc-dirty", "of a checkout without changes, got '0123abc-dirty'"),
        ("python -m ", "rm ", "`command` must begin with `python -m `"),
        ("profile,", "", "line 2: must have 10 cells"),
        (".mine=x", ".mine=x,y", "one that holds a comma needs quotation marks"),
        ("setting,", "", "line 1: the columns must be setting,learner"),
        (MINE, f"{MINE}\n{MINE}", "line 3: mine has a row in profile already"),
    ],
)
def test_a_row_that_is_not_as_it_must_be_is_named(board, old, new, told):
    out, page = board
    out.write_text(out.read_text().replace(old, new, 1))
    before = page.read_text()
    with pytest.raises(RunError) as error:
        update(RESULTS, out, page)

    assert told in str(error.value)
    assert page.read_text() == before


def test_numbers_of_somebody_stay_as_they_were_written(board):
    out, page = board
    mine = "profile,mine,0.71834567,1234567.5,1234000.25,1235000.75,1500,200-209,0123abc,python -m mine"
    out.write_text(f"{','.join(COLUMNS)}\n{mine}\n")

    update(RESULTS, out, page)

    assert mine in out.read_text().splitlines()
    assert "| `mine` | 0.718 | 1,234,567.5 [1,234,000.2, 1,235,000.8] | 1,500 |" in page.read_text()


def test_a_file_that_a_spreadsheet_saved_is_read_if_it_is_utf_8(board):
    out, page = board
    before = read_rows(out)
    text = out.read_text()
    out.write_text(text, encoding="utf-8-sig")
    assert read_rows(out) == before
    out.write_text(text, encoding="utf-16")
    with pytest.raises(RunError, match=r"leaderboard.csv must be in UTF-8: save it as CSV UTF-8"):
        update(RESULTS, out, page)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: table["header"].__setitem__(table["header"].index("regret"), "loss"), "KeyError"),
        (lambda table: table["rows"][0].pop(), "ValueError"),
        (lambda table: table["header"].clear(), "IndexError"),
    ],
)
def test_a_result_of_another_form_is_named(change, told):
    result = json.loads(RESULTS[0].read_text())
    change(next(table for table in result["tables"] if table["header"][0].endswith(": mean score after")))
    with pytest.raises(RunError, match=rf"`results`: mine.json is not as experiments.coldstart writes it \({told}"):
        list(rows_of(result, "mine.json"))


def test_a_score_of_a_result_that_is_no_number_is_named():
    result = json.loads(RESULTS[0].read_text())
    table = next(table for table in result["tables"] if table["header"][0].endswith(": mean score after"))
    last = [place for place, name in enumerate(table["header"]) if name.replace(",", "").isdigit()][-1]
    table["rows"][0][last] = "-"
    with pytest.raises(RunError, match=r"`results`: mine.json, \w+, \w+: `score` must be a number, got '-'"):
        list(rows_of(result, "mine.json"))


def test_a_result_without_scores_and_a_page_without_marks_are_refused(board, tmp_path):
    out, page = board
    goals = ROOT / "docs" / "results" / "goals.json"
    with pytest.raises(RunError, match="has no table of mean scores: give a file that experiments.coldstart wrote"):
        update([goals], out, page)
    page.write_text("no marks")
    with pytest.raises(RunError, match="`page` must have a line `<!-- leaderboard -->`"):
        update(RESULTS, out, page)


def test_a_result_of_settings_that_were_changed_makes_no_row():
    result = json.loads(RESULTS[0].read_text())
    with pytest.raises(RunError, match=r"mine.json was made with common=\['env.num_candidates=5'\], .*variants.NAME="):
        list(rows_of({**result, "common": ["threads=2", "env.num_candidates=5"]}, "mine.json"))
    assert list(rows_of({**result, "common": ["evaluation.n_pairs=512", "tracker=mlflow"]}, "mine.json"))


def test_the_file_of_one_setting_names_that_of_the_study():
    with pytest.raises(RunError, match=r"which for this study is a/coldstart.json"):
        list(rows_of({"scores": {}}, "a/vectors/coldstart.json"))


def test_a_result_of_changed_code_makes_no_row():
    result = json.loads(RESULTS[0].read_text())
    commits = result["commits"]
    with pytest.raises(RunError, match=r"mine.json, vectors, \w+: `commit` must be .* of a checkout without changes"):
        list(rows_of({**result, "commits": {name: f"{commit}-dirty" for name, commit in commits.items()}}, "mine.json"))
