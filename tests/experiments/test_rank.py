"""Everybody's best jobs in a file: the same as one by one, by the file's own ending, and again after a kill."""

import csv
import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.runs import ranking, training
from experiments.runs.folders import RunError, find_runs
from experiments.runs.ranking import COLUMNS, Ranking, rank_people, ranking_of_run
from experiments.runs.saved import load_run
from jobrec_gym import LabourMarket, ObservationForm, load_market, recommend
from jobrec_gym.market import MarketError

ROOT = Path(__file__).parents[2]
JOBS = [
    {"key": f"j{number}", "title": title, "hard": skills, "soft": "teamwork"}
    for number, (title, skills) in enumerate(
        [
            ("data analyst", ["SQL", "statistics"]),
            ("nurse", ["wound care", "hygiene"]),
            ("cook", ["knife skills", "hygiene"]),
            ("developer", ["SQL", "Rust; unsafe"]),
        ]
    )
]
PEOPLE = [
    {"key": "p1", "hard": ["SQL", "Python"], "soft": ["teamwork"]},
    {"key": "7", "hard": ["hygiene"], "soft": ["calm"]},
    {"key": "p3", "hard": ["Rust; unsafe"], "soft": []},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        writer.writerows(
            [json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()] for row in rows
        )
    return path


def write_parquet(path, rows):
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pylist(rows), path)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def read(path):
    """Rows of a ranked file, lists as tuples."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        rows = parquet.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        with path.open(newline="") as file:
            rows = [{key: cell_of(key, cell) for key, cell in row.items()} for row in csv.DictReader(file)]
    return [{key: tuple(cell) if isinstance(cell, list) else cell for key, cell in row.items()} for row in rows]


def cell_of(column, cell):
    if column in ("shared", "missing"):
        return json.loads(cell) if cell.startswith("[") else [skill for skill in cell.split(";") if skill]
    return {"rank": int, "job_id": int, "score": float, "cosine": float}.get(column, str)(cell)


def one_by_one(agent, market, people, n, observation=None):
    """The rows of a ranked file, by `recommend`."""
    rows = []
    for key in people:
        for one in recommend(agent, market, key, n, observation=observation):
            job = [one.rank, one.job_id, one.key, one.title, one.score, one.cosine, one.shared, one.missing]
            rows.append(dict(zip(COLUMNS, [key, *job], strict=True)))
    return rows


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    jobs, others = write_jsonl(folder / "jobs.jsonl", JOBS), write_jsonl(folder / "others.jsonl", PEOPLE[:1])
    return load_market(f"jsonl:{jobs}", applicants=str(others), encoder="hashing")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("out", WRITERS)
def test_each_file_is_of_its_own_ending_whatever_the_jobs_are_in(market, tmp_path, kind, out):
    people = WRITERS[kind](tmp_path / f"people.{kind}", PEOPLE)
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")

    assert rank_people(Ranking(market), tmp_path / f"ranked.{out}", applicants=people, n=3) == 3

    new = market.with_applicants(PEOPLE)
    assert read(tmp_path / f"ranked.{out}") == one_by_one(None, new, ["p1", "7", "p3"], 3)
    assert {path.name for path in tmp_path.iterdir()} == {people.name, f"ranked.{out}"}


def test_other_endings_and_wrong_files_are_named(market, tmp_path):
    people = write_csv(tmp_path / "people.csv", PEOPLE)
    with pytest.raises(RunError, match=r"`out` must end in .csv, .jsonl, .parquet, got .*ranked.xlsx"):
        rank_people(Ranking(market), tmp_path / "ranked.xlsx", applicants=people)
    people.rename(tmp_path / "people.xls")
    with pytest.raises(MarketError, match="people.xls must end in .csv"):
        rank_people(Ranking(market), tmp_path / "ranked.csv", applicants=tmp_path / "people.xls")
    twice = write_csv(tmp_path / "people.csv", PEOPLE + PEOPLE[:1])
    with pytest.raises(MarketError, match="key 'p1' of applicants appears twice: in .*row 1 and in .*row 4"):
        rank_people(Ranking(market), tmp_path / "ranked.csv", applicants=twice)
    assert not (tmp_path / "ranked.csv").exists()


def test_the_agent_of_a_run_ranks_as_it_recommends(run, tmp_path):
    run("algo=dynaq_plus", "env.pair_features=all", "reward=feedback")

    who = ranking_of_run(tmp_path / "run")
    rank_people(who, tmp_path / "ranked.jsonl", n=4, split="test")

    keys = who.market.applicants.keys[who.market.applicants.rows("test")].tolist()
    expected = one_by_one(who.agent, who.market, keys, 4, who.observation)
    found = read(tmp_path / "ranked.jsonl")
    assert [(row["applicant_key"], row["job_key"]) for row in found] == [
        (row["applicant_key"], row["job_key"]) for row in expected
    ]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    by_cosine = ranking_of_run(tmp_path / "run", agent="cosine")
    assert by_cosine.agent is None and by_cosine.market is who.market


def test_an_agent_with_sources_of_a_prior_ranks_as_it_recommends(run, tmp_path):
    sources = "env.prior_sources={text: cosine, said: {values: {type: rules}, less_job_mean: true}}"
    run("algo=dynaq_plus", "env.pair_features=[seniority]", sources, "+algo.prior_sources=[text]")

    who = ranking_of_run(tmp_path / "run")
    rank_people(who, tmp_path / "ranked.jsonl", n=4, split="test")

    rows = who.market.applicants.rows("test")
    (found,) = find_runs(tmp_path / "run", "run")
    setup, agent = load_run(found, {})
    jobs = np.arange(len(who.market.jobs))
    values = agent.q_values(ObservationForm.of(setup.env)(who.market, rows, np.tile(jobs, (len(rows), 1))))
    best = np.sort(values, axis=1)[:, ::-1][:, :4]
    assert [row["score"] for row in read(tmp_path / "ranked.jsonl")] == pytest.approx(best.ravel(), abs=1e-5)
    with pytest.raises(RunError, match="`applicants`: the agent reads `said` minus each job's mean"):
        people = write_csv(tmp_path / "people.csv", PEOPLE)
        rank_people(who, tmp_path / "ranked.jsonl", applicants=people)


def test_a_live_model_is_not_asked_about_a_catalogue(run, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_MOST_FAILURES", 1.0)  # here no pair is in the cache
    model = f"{{type: llm, model: openai/none, cache: {tmp_path / 'answers.sqlite'}, cache_mode: replay}}"
    run("algo=linear_prior", f"env.prior_sources={{said: {model}}}", "evaluation.n_episodes=0")

    with pytest.raises(RunError, match=r"a live language model says of each pair \(`env\.prior_sources`\)"):
        ranking_of_run(tmp_path / "run")
    assert ranking_of_run(tmp_path / "run", agent="cosine").agent is None


def test_what_cannot_rank_is_refused(run, tmp_path):
    run("algo=dqn", "env.observation=features", folder="runs/dqn")
    run("algo=random", folder="runs/random")
    with pytest.raises(RunError, match="FlatDQN, chooses from a set and gives jobs no values"):
        ranking_of_run(tmp_path / "runs" / "dqn", trust=True)
    with pytest.raises(RunError, match=r"holds 2 runs; say which: .*dqn, .*random"):
        ranking_of_run(tmp_path / "runs")
    with pytest.raises(RunError, match=r"`agent` must be one of \('cosine',\) or null .*, got 'kosine'"):
        ranking_of_run(None, agent="kosine")


def test_the_jobs_of_a_run_may_be_others_where_its_agent_knows_them(run, tmp_path):
    run("algo=dynaq_plus")
    small = {"_target_": "jobrec_gym.load_market", "source": "default", "n_applicants": 40}

    grown = ranking_of_run(tmp_path / "run", {**small, "n_jobs": 61})

    assert len(grown.market.jobs) == 61 and recommend(grown.agent, grown.market, 0, n=61)[60].rank == 61
    with pytest.raises(ValueError, match="must begin with the 60 rows of the table that the agent was trained with"):
        ranking_of_run(tmp_path / "run", {**small, "n_jobs": 61, "seed": 1})


class Stopped(Exception):
    """In place of a kill."""


def stopping_at(n):
    """An agent by cosine that is stopped when it is asked for the n-th time, and whom it was asked about."""
    asked = []

    def agent(seen):
        asked.append(seen["applicant"].tobytes())
        if len(asked) == n:
            raise Stopped
        return seen["candidates"] @ seen["applicant"]

    return agent, asked


@pytest.mark.parametrize("damage", ["torn", "changed", "of another version"])
def test_a_ranking_goes_on_where_it_was_stopped(tmp_path, monkeypatch, damage):
    market = load_market("default", n_jobs=60, n_applicants=40)
    monkeypatch.setattr(ranking, "_WRITTEN", 3)
    monkeypatch.setattr(ranking, "_PEOPLE", 11)
    rank_people(Ranking(market), tmp_path / "whole.csv")
    agent, asked = stopping_at(20)
    who = Ranking(market, agent, "features", "agent")
    with pytest.raises(Stopped):
        rank_people(who, tmp_path / "ranked.csv")
    part = tmp_path / "ranked.csv.part"
    assert part.exists() and not (tmp_path / "ranked.csv").exists()
    n_kept = len(part.read_text().splitlines()) - 1
    head, *lines = part.read_text().splitlines(keepends=True)
    assert json.loads(head)["written_by"].startswith("jobrec-gym")
    if damage == "torn":  # as by a kill
        lines.append('12345678 ["A00000')
    elif damage == "changed":
        lines[4] = lines[4].replace("0.", "1.", 1)
    else:
        head = head.replace("jobrec-ranked/1", "jobrec-ranked/0")
    part.write_text("".join([head, *lines]))
    asked.clear()
    asked.extend([b""] * 20)
    rank_people(who, tmp_path / "ranked.csv")

    n_right = {"torn": n_kept, "changed": 4, "of another version": 0}[damage]
    assert 10 < n_kept < 20 and len(asked) - 20 == 40 - n_right, "who was ranked is not ranked again"
    assert not part.exists()
    keys = [[row["applicant_key"], row["job_key"]] for row in read(tmp_path / "ranked.csv")]
    assert keys == [[row["applicant_key"], row["job_key"]] for row in read(tmp_path / "whole.csv")]


@pytest.mark.parametrize(
    "changes", [{"n": 3}, {"exclude": [1]}, {"distinct": True}, {"resume": False}, {"who": "another"}], ids=str
)
def test_another_ranking_does_not_go_on_from_it(tmp_path, monkeypatch, changes):
    market = load_market("default", n_jobs=60, n_applicants=40)
    monkeypatch.setattr(ranking, "_WRITTEN", 3)
    stop = [True]
    asked = []

    def agent(seen):
        asked.append(seen)
        if stop[0] and len(asked) == 20:
            raise Stopped
        return np.zeros(len(seen["candidates"]))

    with pytest.raises(Stopped):
        rank_people(Ranking(market, agent, "ids", "agent"), tmp_path / "ranked.csv")
    asked.clear()
    stop[0] = False
    options = {key: value for key, value in changes.items() if key != "who"}
    rank_people(Ranking(market, agent, "ids", changes.get("who", "agent")), tmp_path / "ranked.csv", **options)

    assert len(asked) == 40
    assert len(read(tmp_path / "ranked.csv")) == 40 * options.get("n", 10)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
    ("jobs", "people"),
    [
        (JOBS, [{**PEOPLE[0], "hard": ["hygiene"]}, *PEOPLE[1:]]),
        (JOBS, [{**PEOPLE[0], "key": "another"}, *PEOPLE[1:]]),
        ([{**JOBS[0], "key": "another"}, *JOBS[1:]], PEOPLE),
        ([{**JOBS[0], "title": "another"}, *JOBS[1:]], PEOPLE),
    ],
    ids=["skills of people", "keys of people", "keys of jobs", "titles of jobs"],
)
def test_a_ranking_of_other_people_or_jobs_does_not_go_on_from_it(tmp_path, monkeypatch, saved, jobs, people):
    def load(name, jobs, people):
        (tmp_path / name).mkdir()
        files = write_jsonl(tmp_path / name / "jobs.jsonl", jobs), write_jsonl(tmp_path / name / "them.jsonl", people)
        market = load_market(f"jsonl:{files[0]}", applicants=str(files[1]), encoder="hashing")
        return market.save(tmp_path / name / "market") if saved else market

    def stop(*args):
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(ranking, "_write_csv", stop)
        rank_people(Ranking(load("before", JOBS, PEOPLE)), tmp_path / "ranked.csv")
    rank_people(Ranking(load("after", jobs, people)), tmp_path / "ranked.csv")
    rank_people(Ranking(load("anew", jobs, people)), tmp_path / "anew.csv")

    assert (tmp_path / "ranked.csv").read_text() == (tmp_path / "anew.csv").read_text()


@pytest.mark.parametrize("moved", ["jobs", "people", "a field that is not shown", "skills"])
def test_a_ranking_on_a_market_whose_context_or_skills_changed_does_not_go_on(tmp_path, monkeypatch, moved):
    def load(change):
        jobs = [{**job, "place": "Bonn" if number % 2 else "Kiel"} for number, job in enumerate(JOBS)]
        people = [{**person, "place": "Bonn"} for person in PEOPLE]
        for row in {"jobs": jobs, "people": people}.get(moved if change else "", []):
            row["place"] = {"Bonn": "Kiel", "Kiel": "Bonn"}[row["place"]]
        files = write_jsonl(tmp_path / "jobs.jsonl", jobs), write_jsonl(tmp_path / "them.jsonl", people)
        found = load_market(
            f"jsonl:{files[0]}", applicants=str(files[1]), encoder="hashing", context={"place": "category"}
        )
        jobs, context = found.jobs, dict(found.context)
        if moved == "a field that is not shown":
            values = context["place"].jobs[::-1] if change else context["place"].jobs
            context["place"] = dataclasses.replace(context["place"], jobs=values, shown=False)
        if moved == "skills" and change:  # the vectors stay
            jobs = dataclasses.replace(jobs, hard_skills=jobs.hard_skills.take(np.arange(len(jobs))[::-1]))
        return LabourMarket(found.name, found.applicants, jobs, found.vocabulary, context=context)

    def rank(market, out):
        feature = "hard_coverage" if moved == "skills" else "place"
        shown = {"observation": "ids", "pair_features": (feature,)}
        return rank_people(Ranking(market, lambda seen: seen["pairs"][..., 0], shown, "agent"), tmp_path / out)

    def stop(*args):
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(ranking, "_write_csv", stop)
        rank(load(False), "ranked.csv")
    rank(load(True), "ranked.csv")
    rank(load(True), "anew.csv")
    rank(load(False), "before.csv")

    assert (tmp_path / "ranked.csv").read_text() == (tmp_path / "anew.csv").read_text()
    assert (tmp_path / "before.csv").read_text() != (tmp_path / "anew.csv").read_text()


def test_what_people_have_applied_for_is_left_out_of_their_lists(market, tmp_path):
    people = write_csv(tmp_path / "people.csv", PEOPLE)
    ranked = {"n": 4, "applicants": people}
    rank_people(Ranking(market), tmp_path / "before.csv", **ranked)
    applied = write_jsonl(tmp_path / "applied.jsonl", [{"user": "7", "item": "j1"}, {"user": "7", "item": "j3"}])

    options = {"applied": applied, "reading_applied": {"columns": {"applicant": "user", "job": "item"}}}
    rank_people(Ranking(market), tmp_path / "after.csv", **ranked, **options, exclude=["j0"])

    pairs = [(row["applicant_key"], row["job_key"]) for row in read(tmp_path / "before.csv")]
    kept = [(who, job) for who, job in pairs if job != "j0" and (who, job) not in {("7", "j1"), ("7", "j3")}]
    assert [(row["applicant_key"], row["job_key"]) for row in read(tmp_path / "after.csv")] == kept
    assert [row["rank"] for row in read(tmp_path / "after.csv")] == [1, 2, 3, 1, 1, 2, 3]
    rank_people(Ranking(market), tmp_path / "again.csv", **ranked, applied=tmp_path / "after.csv")
    assert {row["job_key"] for row in read(tmp_path / "again.csv")} == {"j0", "j1", "j3"}, "what was sent is not sent"
    both = [tmp_path / "after.csv", str(tmp_path / "again.csv")]
    rank_people(Ranking(market), tmp_path / "last.csv", **ranked, applied=both)
    assert read(tmp_path / "last.csv") == [], "every job has been sent"


def test_errors_about_a_file_of_people_name_the_options_as_the_command_has_them(market, tmp_path):
    people = write_csv(tmp_path / "people.csv", [{"key": "p1", "hard": "SQL"}, {"key": "p2", "hard": ""}])
    with pytest.raises(ValueError, match="`on_empty='skip'`.*before their name, as in `reading.on_empty=skip`"):
        rank_people(Ranking(market), tmp_path / "ranked.csv", applicants=people)
    with pytest.raises(ValueError, match="does not exist") as error:
        rank_people(Ranking(market), tmp_path / "ranked.csv", applicants=tmp_path / "other.csv")
    assert "reading." not in str(error.value)


def test_those_who_are_not_ranked_are_refused_or_told_once(market, tmp_path, caplog, monkeypatch):
    people = write_csv(tmp_path / "people.csv", PEOPLE)
    monkeypatch.setattr(ranking, "_PEOPLE", 1)
    applied = write_jsonl(tmp_path / "applied.jsonl", [{"applicant": who, "job": "j0"} for who in ("p1", "p8", "p9")])
    with pytest.raises(ValueError, match=r"2 of 3 rows name .* unknown person: 2, row 2 \('p8'\), row 3 \('p9'\)"):
        rank_people(Ranking(market), tmp_path / "ranked.csv", applicants=people, applied=applied)
    assert {path.name for path in tmp_path.iterdir()} == {"people.csv", "applied.jsonl"}
    with pytest.raises(ValueError, match="no column 'applicant'.*`reading_applied.` before their name"):
        odd = write_jsonl(tmp_path / "odd.jsonl", [{"user": "p1", "item": "j0"}])
        rank_people(Ranking(market), tmp_path / "ranked.csv", applicants=people, applied=odd)

    skip = {"applied": applied, "reading_applied": {"on_unknown": "skip"}}
    rank_people(Ranking(market), tmp_path / "ranked.csv", applicants=people, **skip, n=9)
    assert len(read(tmp_path / "ranked.csv")) == 3 * 4 - 1
    (record,) = caplog.records
    assert "2 of 3 rows" in record.message
    # Somebody of the market who is not in the split is no stranger.
    strangers = {"applied": write_jsonl(tmp_path / "other.jsonl", [{"applicant": "A0000001", "job": "J0000001"}])}
    whole = load_market("default", n_jobs=60, n_applicants=40)
    assert rank_people(Ranking(whole), tmp_path / "split.csv", split="test", **strangers) == len(
        whole.applicants.rows("test")
    )
    for out in (applied, people):
        with pytest.raises(RunError, match="`out` is the file of p(eople|airs), .*: give it another name"):
            rank_people(Ranking(market), out, applicants=people, applied=applied)


def test_expired_jobs_and_copies_are_left_out_by_an_agent_in_batches(tmp_path):
    jobs = [{**job, "expires": "2026-11-30" if number == 1 else None} for number, job in enumerate(JOBS)]
    jobs += [{**job, "key": f"again-{job['key']}"} for job in jobs[2:]]
    files = write_jsonl(tmp_path / "jobs.jsonl", jobs), write_jsonl(tmp_path / "them.jsonl", PEOPLE)
    market = load_market(f"jsonl:{files[0]}", applicants=str(files[1]), encoder="hashing")

    class Agent:
        def q_values(self, seen):
            assert np.ndim(seen["candidates"]) == 2, "all three together"
            return np.array(seen["candidates"], dtype=float)

    who = Ranking(market, Agent(), "ids", "agent")
    applied = write_csv(tmp_path / "applied.csv", [{"applicant": "7", "job": "again-j3"}])
    rank_people(who, tmp_path / "ranked.csv", open_at="2026-12-01", distinct=True, applied=applied)

    found = {}
    for row in read(tmp_path / "ranked.csv"):
        found.setdefault(row["applicant_key"], []).append(row["job_key"])
    others = ["again-j3", "again-j2", "j0"]
    assert found == {"p1": others, "7": ["again-j2", "j0"], "p3": others}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"open_at": "soon"}, "`open_at` must be a date such as '2026-11-30'"),
        ({"open_at": "2026-11-30"}, "`open_at` needs the dates of jobs, and market .* has none"),
        ({"n": 0}, "`n` must be .* got 0"),
        ({"distinct": "yes"}, "`distinct` must be True or False, got 'yes'"),
        ({"exclude": [999]}, "`exclude`: `job` must be a row in .* got 999"),
        ({"exclude": ["k9"]}, "`exclude`: there is no job with the key 'k9'"),
        ({"exclude": "j1"}, "`exclude` must list jobs by row or by key, .* got 'j1'"),
        ({"exclude": 5}, "`exclude` must list jobs by row or by key, .* got 5"),
        ({"applied": "nobody.csv"}, "nobody.csv does not exist"),
        ({"applied": {"p1": ["j1"]}}, "`applied` must name a file of pairs or list such files, .* got {'p1'"),
        ({"applied": [None]}, "`applied` must name a file of pairs or list such files, .* got \\[None\\]"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(market, tmp_path, options, message):
    with pytest.raises((ValueError, RunError), match=message):
        rank_people(Ranking(market), tmp_path / "ranked.csv", **options)
    assert not list(tmp_path.iterdir())


def test_a_catalogue_without_open_jobs_is_told(tmp_path, caplog):
    jobs = write_jsonl(tmp_path / "jobs.jsonl", [{**job, "expires": "2026-11-30"} for job in JOBS])
    people = write_jsonl(tmp_path / "people.jsonl", PEOPLE)
    market = load_market(f"jsonl:{jobs}", applicants=str(people), encoder="hashing")
    rank_people(Ranking(market), tmp_path / "ranked.csv", open_at="2026-11-30")
    assert not caplog.records
    rank_people(Ranking(market), tmp_path / "ranked.csv", open_at="2026-12-01")
    assert "is open at 2026-12-01, so all lists are empty." in caplog.text
    assert read(tmp_path / "ranked.csv") == []


@pytest.mark.parametrize("changed", ["pairs", "moment", "dates", "nothing"])
def test_a_ranking_goes_on_only_with_the_same_pairs_and_dates(tmp_path, monkeypatch, changed):
    def load(until):
        jobs = [{**job, "expires": until} for job in JOBS]
        files = write_jsonl(tmp_path / "jobs.jsonl", jobs), write_jsonl(tmp_path / "them.jsonl", PEOPLE)
        return load_market(f"jsonl:{files[0]}", applicants=str(files[1]), encoder="hashing")

    def agent(seen):
        asked.append(len(seen["candidates"]))
        if len(asked) == 3:
            raise Stopped
        return np.zeros(len(seen["candidates"]))

    asked = []
    applied = write_csv(tmp_path / "applied.csv", [{"applicant": "p1", "job": "j0"}])
    options = {"applied": applied, "open_at": "2026-11-30"}
    monkeypatch.setattr(ranking, "_WRITTEN", 1)
    with pytest.raises(Stopped):
        rank_people(Ranking(load("2026-12-01"), agent, "ids", "agent"), tmp_path / "ranked.csv", **options)
    if changed == "pairs":
        write_csv(applied, [{"applicant": "p1", "job": "j1"}])
    if changed == "moment":
        options["open_at"] = "2026-12-01"
    market = load("2026-12-02" if changed == "dates" else "2026-12-01")
    rank_people(Ranking(market, agent, "ids", "agent"), tmp_path / "ranked.csv", **options)

    assert len(asked) - 3 == (1 if changed == "nothing" else 3)


def test_the_file_of_people_is_not_written_over(market, tmp_path):
    people = write_csv(tmp_path / "people.csv", PEOPLE)
    before = people.read_text()

    for applicants in (people, f"csv:{tmp_path / '.' / 'people.csv'}"):
        with pytest.raises(RunError, match=r"`out` is the file of people, .*people.csv: give it another name"):
            rank_people(Ranking(market), people, applicants=applicants)
    assert people.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"people.csv"}


def test_people_are_read_from_home_and_from_a_folder_of_resumes(market, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_csv(tmp_path / "people.csv", PEOPLE)
    assert rank_people(Ranking(market), tmp_path / "ranked.csv", applicants="csv:~/people.csv") == len(PEOPLE)
    with pytest.raises(RunError, match="`out` is the file of people"):
        rank_people(Ranking(market), tmp_path / "people.csv", applicants="~/people.csv")

    (tmp_path / "people").mkdir()
    for name in ("anna", "bert"):
        resume = {"basics": {"label": "cook"}, "skills": [{"name": "hygiene"}, {"name": name}]}
        (tmp_path / "people" / f"{name}.json").write_text(json.dumps(resume))
    rank_people(Ranking(market), tmp_path / "resumes.jsonl", applicants=f"json-resume:{tmp_path / 'people'}", n=1)
    rows = [json.loads(line) for line in (tmp_path / "resumes.jsonl").read_text().splitlines()]
    assert [row["applicant_key"] for row in rows] == ["anna", "bert"]


def test_a_ranking_goes_on_also_if_it_lies_among_the_resumes_that_it_ranks(market, tmp_path, monkeypatch):
    for name in ("anna", "bert", "cora"):
        resume = {"basics": {"label": "cook"}, "skills": [{"name": "hygiene"}, {"name": name}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(resume))
    monkeypatch.setattr(ranking, "_WRITTEN", 1)
    agent, asked = stopping_at(3)
    who, source = Ranking(market, agent, "features", "agent"), f"json-resume:{tmp_path}"
    with pytest.raises(Stopped):
        rank_people(who, tmp_path / "ranked.csv", applicants=source, n=1)
    rank_people(who, tmp_path / "ranked.csv", applicants=source, n=1)
    assert len(asked) == 4 and asked[3] == asked[2], "only the third is asked about again"
    assert [row["applicant_key"] for row in read(tmp_path / "ranked.csv")] == ["anna", "bert", "cora"]


def test_a_folder_and_an_empty_split_are_refused_before_anybody_is_ranked(market, tmp_path):
    (tmp_path / "ranked.csv").mkdir()
    with pytest.raises(RunError, match=r"ranked.csv is a folder; name a file in it"):
        rank_people(Ranking(market), tmp_path / "ranked.csv")
    with pytest.raises(RunError, match=r"has no applicants of split=test; take split=all"):
        rank_people(Ranking(market), tmp_path / "other.csv", split="test")
    assert {path.name for path in tmp_path.iterdir()} == {"ranked.csv"}


def test_a_skill_that_looks_like_a_list_is_read_back(tmp_path):
    jobs = [{**JOBS[0], "hard": ["[C]", "SQL"]}, *JOBS[1:]]
    files = write_jsonl(tmp_path / "jobs.jsonl", jobs), write_jsonl(tmp_path / "them.jsonl", PEOPLE)
    rank_people(
        Ranking(load_market(f"jsonl:{files[0]}", applicants=str(files[1]), encoder="hashing")), tmp_path / "ranked.csv"
    )

    row = next(row for row in read(tmp_path / "ranked.csv") if row["job_key"] == "j0")
    assert (row["shared"], row["missing"]) == (("SQL", "teamwork"), ("[C]",))


def test_two_processes_do_not_write_one_file(tmp_path):
    market = load_market("default", n_jobs=60, n_applicants=40)
    refused = []

    def agent(seen):
        if not refused:
            with pytest.raises(RunError, match="another process writes .*ranked.csv.part"):
                rank_people(Ranking(market), tmp_path / "ranked.csv")
            refused.append(True)
        return np.zeros(60)

    rank_people(Ranking(market, agent), tmp_path / "ranked.csv")
    assert refused


BOARD = ["market=default", "market.n_jobs=500"]


KILLED = """
import os, runpy, signal, sys
from experiments.runs import ranking
add, kept = ranking._Part.add, []
def dying(self, people):
    add(self, people)
    kept.append(people)
    if len(kept) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
ranking._Part.add = dying
sys.argv[0] = "rank"
runpy.run_module("experiments.rank", run_name="__main__", alter_sys=True)
"""


@pytest.mark.waits
def test_nothing_is_lost_and_nothing_twice_after_a_kill(tmp_path):
    out = tmp_path / "ranked.csv"
    overrides = [*BOARD, "market.n_applicants=600", f"out={out}"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *overrides], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    part = tmp_path / "ranked.csv.part"
    assert part.read_bytes().count(b"\n") - 1 == 300 and not out.exists()
    with part.open("ab") as file:
        file.write(b'["P0000300", [[1, 2')  # as a kill in the middle of a line leaves it

    done = run_command("rank", *overrides)

    assert done.stdout == f"{out}: 600 people, up to 10 of 500 jobs each\n" and not done.stderr
    rows = read(out)
    market = load_market("default", n_jobs=500, n_applicants=600)
    assert [row["applicant_key"] for row in rows] == np.repeat(market.applicants.keys, 10).tolist()
    assert [row["rank"] for row in rows] == [*range(1, 11)] * 600


def test_the_command_ends_in_one_line_where_something_is_wrong(tmp_path):
    done = run_command("rank", *BOARD, "applicants=nobody.csv", f"out={tmp_path / 'ranked.csv'}")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"error: nobody.csv does not exist (looked in {ROOT}).\n"
