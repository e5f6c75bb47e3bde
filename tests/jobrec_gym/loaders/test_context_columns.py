"""Columns of one's own that both sides have: read, named, and found again."""

import json

import numpy as np
import pytest

from jobrec_gym.loaders.tables import FIELDS, load_csv, load_jsonl
from jobrec_gym.market import ContextField, LabourMarket, MarketError, load_market
from jobrec_gym.market.context import RESERVED_NAMES
from jobrec_gym.pair_features import PairValues

HASHING = {"encoder": "hashing", "cache_dir": False, "test_fraction": 0.0}
JOBS = """key,hard,place,salary,remote,languages,years
j1,SQL,Berlin,50000,yes,en;de,2
j2,Python,Paris,60000.5,no,fr,
j3,R,,,,,0
"""
PEOPLE = """key,hard,wanted_place,salary,remote,languages,years
p1,SQL,berlin,50000,TRUE,de,3
p2,R,Paris,70000,0,,1
"""
CONTEXT = {
    "place": ("wanted_place", "place"),
    "salary": "number",
    "remote": "flag",
    "languages": "set",
    "years": "at_least",
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "jobs.csv").write_text(JOBS)
    (tmp_path / "people.csv").write_text(PEOPLE)
    return tmp_path / "jobs.csv", {"applicants": str(tmp_path / "people.csv"), **HASHING}


def test_columns_of_both_sides_become_the_context(files):
    path, options = files
    market = load_csv(path, context=CONTEXT, **options)

    assert market.applicant("p1").context == {
        "place": "Berlin",
        "salary": 50_000,
        "remote": True,
        "languages": ("de",),
        "years": 3,
    }
    assert market.job("j3").context == {"years": 0}
    fits = PairValues(market, tuple(CONTEXT))(np.arange(2)[:, None], np.arange(3))
    spread = np.std([50_000, 60_000.5])
    np.testing.assert_allclose(
        fits[0], [[1, 1, 1, 0.5, 1], [0, np.exp(-10_000.5 / spread), 0, 0, 0.5], [0.5, 0.5, 0.5, 0.5, 1]], rtol=1e-6
    )
    assert fits[1, 1].tolist()[:3] == [1, pytest.approx(np.exp(-9_999.5 / spread)), 1]


@pytest.mark.parametrize(
    "place",
    [
        ("wanted_place", "place"),
        ["category", "wanted_place", "place"],
        ContextField("category", "wanted_place"),
        ("category", "wanted_place", None),
    ],
    ids=str,
)
def test_every_form_of_two_columns_says_the_same_and_is_found_again(files, place):
    path, options = files
    market = load_market(f"csv:{path}", context={"place": place}, **options)
    plain = load_csv(path, context={"place": ("wanted_place", "place")}, **options)

    assert market.fingerprint() == plain.fingerprint()
    spec = json.loads(json.dumps(market.to_spec()))
    assert LabourMarket.from_spec(spec).fingerprint() == market.fingerprint()


def test_json_lines_have_values_of_their_own_kinds(tmp_path):
    rows = [
        {"key": "a", "hard": ["SQL"], "place": "Rome", "pay": 3, "remote": True, "languages": ["en", "it"]},
        {"key": "b", "hard": ["R"], "pay": None, "remote": False, "languages": []},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    context = {"place": "category", "pay": "number", "remote": "flag", "languages": "set"}
    market = load_jsonl(tmp_path / "x.jsonl", applicants=tmp_path / "x.jsonl", context=context, **HASHING)

    assert market.job("a").context == {"place": "Rome", "pay": 3, "remote": True, "languages": ("en", "it")}
    assert market.job("b").context == {"remote": False}


def test_context_changes_no_vector_and_the_fingerprint(files):
    path, options = files
    plain, told = load_csv(path, **options), load_csv(path, context={"salary": "number"}, **options)

    assert (plain.jobs.vectors == told.jobs.vectors).all()
    assert plain.fingerprint() != told.fingerprint()
    (path.parent / "jobs.csv").write_text(JOBS.replace("50000", "50001"))
    assert load_csv(path, context={"salary": "number"}, **options).fingerprint() != told.fingerprint()
    assert load_csv(path, **options).fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            {"place": "category"},
            r"people.csv has no column 'place'.*`context` compares 'place' of both sides: say .*'of a",
        ),
        (
            {"salary": "nummber"},
            r"`context\['salary'\]` must be one of \('category', .*got 'nummber'. Did you mean 'number'\?",
        ),
        ({"salary": ("number", "salary")}, r"Two texts are read as the .* write \('number', 'salary', 'salary'\)"),
        ({"salary": ("number", "a", "b", "c")}, r"`context\['salary'\]` must be one of"),
        ({"salary": 3}, r"`context\['salary'\]` must be one of .*got 3"),
        ({"seniority": "number"}, "must not name a field 'seniority', which is something else already"),
        (["place"], r"`context` must map names to kinds, .*got \['place'\]"),
        (
            {"place": ("number", "wanted_place", "place")},
            r"jobs.csv, row 1, column 'place': must be a number .*got 'Berlin'",
        ),
        ({"salary": "flag"}, r"row 1, column 'salary': must be one of true, yes, .*got '50000'"),
    ],
)
def test_what_is_wrong_is_named(files, context, message):
    path, options = files
    with pytest.raises(MarketError, match=message):
        load_csv(path, context=context, **options)


def test_several_values_are_no_category(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"key": "a", "hard": ["SQL"], "place": ["Rome", "Bari"]}\n')
    with pytest.raises(
        MarketError, match=r"row 1, column 'place': lists several values, .*say `context=\{'place': \"set\"\}`"
    ):
        load_jsonl(tmp_path / "x.jsonl", applicants=tmp_path / "x.jsonl", context={"place": "category"}, **HASHING)


@pytest.mark.parametrize("number", ["inf", "1,50,000", "45 km", "1e999", "about right", "52-45k", "5 years"])
def test_what_is_no_number_is_refused(files, number):
    path, options = files
    path.write_text(JOBS.replace("60000.5", f'"{number}"'))
    with pytest.raises(MarketError, match="jobs.csv, row 2, column 'salary': must be a number"):
        load_csv(path, context={"salary": "number"}, **options)


def test_sampled_people_have_no_context(files):
    path, _ = files
    with pytest.raises(MarketError, match="`context` compares both sides, .*give the file of the applicants"):
        load_csv(path, n_applicants=5, context={"salary": "number"}, **HASHING)


def test_no_column_of_a_file_may_name_a_field_twice():
    assert set(FIELDS) <= RESERVED_NAMES


# ---------------------------------------------------------------------------------------------------------- newcomers


def test_newcomers_bring_their_context(files):
    path, options = files
    market = load_market(f"csv:{path}", context=CONTEXT, **options)
    rows = [
        {"key": "n1", "hard": ["SQL"], "wanted_place": "PARIS", "salary": 60_000.5, "languages": ["fr", "nl"]},
        {"key": "n2", "hard": ["SQL"], "wanted_place": "Oslo"},
    ]
    new = market.with_applicants(rows)

    assert new.applicant("n1").context == {"place": "Paris", "salary": 60_000.5, "languages": ("fr", "nl")}
    assert new.applicant("n2").context == {"place": "Oslo"}
    assert [new.job(row) for row in range(3)] == [market.job(row) for row in range(3)]
    fits = PairValues(new, ("place", "salary", "remote", "languages"))(np.arange(2)[:, None], np.arange(3))
    assert fits[0, 1].tolist() == [1, 1, 0.5, 1]
    assert fits[1, 1].tolist() == [0, 0.5, 0.5, 0.5]


def test_newcomers_are_like_those_of_the_file(files):
    path, options = files
    market = load_market(f"csv:{path}", context=CONTEXT, **options)
    again = market.with_applicants(options["applicants"])

    names = tuple(CONTEXT)
    ids = np.arange(2)[:, None], np.arange(3)
    np.testing.assert_array_equal(PairValues(again, names)(*ids), PairValues(market, names)(*ids))


def test_columns_of_newcomers_can_be_named(files, tmp_path):
    path, options = files
    saved = load_csv(path, context=CONTEXT, **options).save(tmp_path / "market")
    rows = [{"key": "n1", "hard": ["SQL"], "town": "Paris"}]
    how = {"encoder": "hashing", "cache_dir": False}

    assert saved.with_applicants(rows, **how).applicant(0).context == {}
    named = saved.with_applicants(rows, context={"place": ("town", "place")}, **how)
    assert named.applicant(0).context == {"place": "Paris"}
    with pytest.raises(MarketError, match="`rows` has no column 'city'"):
        saved.with_applicants(rows, context={"place": ("city", "place")}, **how)
    with pytest.raises(MarketError, match=r"`context` must name fields that the jobs of .*got \['mood'\]"):
        saved.with_applicants(rows, context={"mood": "number"}, **how)
