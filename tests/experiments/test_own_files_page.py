"""The page "Bring your own" can be typed block by block: Python in one session, and lines of a shell between."""

import csv
import re
from pathlib import Path

import pytest

pytest.importorskip("dynaq_algo.dynaq", reason="needs the extra 'algo'")
pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_shell

import experiments

ROOT = Path(experiments.__file__).parents[1]
PAGE = ROOT / "docs" / "own_files.md"
BLOCKS = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_page_leads_from_two_files_to_a_list(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    session, printed = {"__name__": "example"}, []
    for language, code in BLOCKS.findall(PAGE.read_text()):
        if language == "sh":
            done = run_shell(code, tmp_path)
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
        else:
            exec(compile(code, str(PAGE), "exec"), session)
            printed.append(capsys.readouterr().out)
    _, looked, in_german, summary, doubt, texts, split, _, for_ann, for_gil, ranked, *other_language = printed

    market = session["market"]
    assert '"salary": ("number", "Expected Salary", "Salary")' in looked
    assert "title                 Köchin" in in_german and 'encoding="cp1252"' in in_german
    said = {"load_market": lambda *files, **options: session["load_market"](*files, encoder="hashing", **options)}
    copied = eval(looked[looked.index("load_market(") :], said)
    assert copied.job(0) == market.job(0), "the printed call loads what the page loads"
    assert summary.startswith("csv:jobs.csv: 6 jobs (4 train, 2 test); 6 applicants (4 train, 2 test)\n")
    assert "`skill_separator=','`" in doubt
    assert "jobs hard one free text of about" in texts
    assert split == "4 2\n"
    assert [line[:1] for line in for_ann.splitlines()] == ["1", "2", "3"]
    assert for_gil.count("'") == 6
    assert ranked.count("\n") == 5, "what was ranked, the header, three jobs"
    with (tmp_path / "ranked.csv").open(newline="") as file:
        assert {row["applicant_key"] for row in csv.DictReader(file)} == {"ann", "bob", "cem", "dee", "eve", "fay"}

    _, looked, contexts, ranked = other_language
    assert "  ! " not in looked, "nothing is in doubt"
    told, german = eval(looked[looked.index("load_market(") :], said), session["german"]
    assert [told.job(row) for row in (0, 1, 3)] == [german.job(row) for row in (0, 1, 3)]
    assert told.job(2).context["salary"] == 52_000, "the middle of the range"
    assert [told.applicant(row) for row in range(3)] == [german.applicant(row) for row in range(3)]
    assert [job["remote"] for job in eval(contexts)] == [False, False, True, True]
    assert [job.get("salary") for job in eval(contexts)] == [32_000, 31_500.5, 56_000, None], "the upper end"
    assert "has learned from 3 answers of 3 people" in ranked
    with (tmp_path / "liste.csv").open(newline="") as file:
        listed = {row["job_key"] for row in csv.DictReader(file)}
    assert "2" not in listed and listed <= {"1", "3", "4"}, "the second job has expired"
