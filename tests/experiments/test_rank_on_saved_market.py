"""Ranks people on a saved market, which remembers how people are read."""

import csv

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.runs import ranking
from experiments.runs.ranking import Ranking, rank_people
from jobrec_gym.loaders.tables import load_csv
from jobrec_gym.market import load_market

COLUMNS = {"key": "Nr", "hard": "Kenntnisse", "seniority": "Stufe"}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "jobs.csv").write_text("Nr,Kenntnisse,Stufe\nkoch,Messer+Hygiene,Fachkraft\narzt,Wunden,Leitung\n")
    (tmp_path / "people.csv").write_text("Nr,Kenntnisse,Stufe\np1,Messer,Fachkraft\np2,Wunden+Hygiene,Leitung\n")
    return tmp_path


def read(path):
    with path.open(newline="") as file:
        return [(row["applicant_key"], row["job_key"], row["shared"]) for row in csv.DictReader(file)]


def test_a_file_of_people_is_read_as_the_market_was_without_saying_it_again(files):
    market = load_market(
        files / "jobs.csv",
        applicants=files / "people.csv",
        columns=COLUMNS,
        skill_separator="+",
        seniority_values={"Fachkraft": 3, "Leitung": 5},
        encoder="hashing",
    )
    market.save(files / "saved")
    typed = ["market=saved", "market.path=saved", "applicants=people.csv", "n=1", "out=ranked.csv"]
    done = run_command("rank", *typed, cwd=files)

    assert done.returncode == 0, done.stderr
    assert read(files / "ranked.csv") == [("p1", "koch", "Messer"), ("p2", "arzt", "Wunden")]


def test_files_are_ranked_with_their_dates_as_the_command_says_they_are_written(files):
    (files / "jobs.csv").write_text("key,hard,expires\nkoch,Messer,31.12.2026\narzt,Messer,30.11.2026\n")
    (files / "people.csv").write_text("key,hard\np1,Messer\n")
    typed = ["market=csv", "market.path=jobs.csv", "market.applicants=people.csv", "market.encoder=hashing"]
    typed += ["market.date_format=%d.%m.%Y", "open_at=2026-12-24", "out=ranked.csv"]
    done = run_command("rank", *typed, cwd=files)

    assert done.returncode == 0, done.stderr
    assert read(files / "ranked.csv") == [("p1", "koch", "Messer")]


def test_a_ranking_of_people_who_are_read_otherwise_does_not_go_on(files, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(*args):
        raise Stopped

    # The first of the people is read alike with both separators.
    load = {"applicants": files / "people.csv", "columns": {**COLUMNS, "seniority": "Level"}, "encoder": "hashing"}
    for name in ("jobs", "people"):
        file = files / f"{name}.csv"
        file.write_text(file.read_text().replace("Stufe", "Level").replace("Fachkraft", "3").replace("Leitung", "5"))
    market = load_csv(files / "jobs.csv", **load, skill_separator="+")
    for separator, out in (("-", "before"), ("+", "after")):
        told = {"columns": load["columns"], "encoder": "hashing", "skill_separator": separator}
        market.read_with(told).save(files / out)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(ranking, "_write_csv", stop)
        rank_people(Ranking(load_market(files / "before")), files / "ranked.csv", applicants=files / "people.csv", n=1)
    rank_people(Ranking(load_market(files / "after")), files / "ranked.csv", applicants=files / "people.csv", n=1)

    assert read(files / "ranked.csv")[1] == ("p2", "arzt", "Wunden")
