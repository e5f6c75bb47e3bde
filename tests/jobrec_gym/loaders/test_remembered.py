"""A saved market remembers how its files were read."""

import json
import pickle
from types import MappingProxyType

import numpy as np
import pytest

from jobrec_gym.encoders import HashingEncoder
from jobrec_gym.loaders.tables import load_csv
from jobrec_gym.market import LabourMarket, MarketError, load_market

OPTIONS = {
    "columns": {
        "jobs": {"key": "Nr", "title": "Stelle", "hard": "Kenntnisse", "seniority": "Stufe", "soft": []},
        "applicants": {"key": "Nr", "hard": "Kenntnisse", "seniority": "Stufe", "soft": "Ueber mich"},
    },
    "text_columns": {"applicants": ["soft"]},
    "skill_separator": "+",
    "null_values": ["keine Angabe"],
    "seniority_values": {"Fachkraft": 3, "Leitung": 5},
    "decimal": ",",
    "date_format": ["%d.%m.%Y", "ISO8601"],
    "context": {"ort": ("category", "Wunschort", "Ort"), "lohn": ("at_most", "Lohnwunsch", "Lohn")},
    "encoder": "hashing",
}
JOBS = """Nr,Stelle,Kenntnisse,Stufe,Ort,Lohn
j1,Koch,Messer+Hygiene,Fachkraft,Bonn,2.500
j2,Arzt,Wunden,Leitung,Ulm,5.000
"""
PEOPLE = """Nr,Kenntnisse,Stufe,Ueber mich,Wunschort,Lohnwunsch
p1,Messer+keine Angabe,Fachkraft,"Ich koche, immer.",Bonn,"2.400,5"
"""
NEW = {
    "Nr": "n",
    "Kenntnisse": "Wunden+Messer",
    "Stufe": "leitung",
    "Ueber mich": "Ruhig + freundlich",
    "Wunschort": "keine Angabe",
    "Lohnwunsch": "3.000",
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "jobs.csv").write_text(JOBS)
    (tmp_path / "people.csv").write_text(PEOPLE)
    return tmp_path


@pytest.fixture
def market(files):
    return load_market(files / "jobs.csv", applicants=files / "people.csv", cache_dir=False, **OPTIONS)


def header_of(folder):
    return json.loads((folder / "market.json").read_text())


def assert_reads_alike(one, other):
    new, expected = (market.with_applicants([NEW]) for market in (one, other))
    assert new.applicant("n") == expected.applicant("n")
    np.testing.assert_array_equal(new.applicants.vectors, expected.applicants.vectors)


def test_new_people_of_a_saved_market_are_read_as_its_own_were(market, files):
    market.save(files / "saved")
    saved = load_market(files / "saved")
    person = saved.with_applicants([NEW]).applicant("n")

    assert (person.hard_skills, person.soft_skills) == (("Messer", "Wunden"), ("Ruhig + freundlich",))
    assert (person.seniority, person.context) == (5, {"lohn": 3000.0})
    assert_reads_alike(saved, market)
    read = saved.with_applicants(files / "people.csv")
    assert read.applicant("p1") == market.applicant("p1")
    np.testing.assert_array_equal(read.applicants.vectors, market.applicants.vectors)


def test_new_people_in_another_form_are_told_why_it_is_another_one(market, files):
    saved = market.save(files / "saved")
    plain = {"key": "n", "hard": ["Wunden"]}
    with pytest.raises(MarketError, match=r"has no column 'Nr'\. .* like the market's own, with .* `columns=\{\}`"):
        saved.with_applicants([plain])
    assert saved.with_applicants([plain], columns={}).applicant("n").hard_skills == ("Wunden",)
    with pytest.raises(MarketError, match=r"has no column 'Nummer'\. It has 'key', 'hard'\.$"):
        saved.with_applicants([plain], columns={"key": "Nummer"})


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"Stufe": "has no column"}, {}, r"column 'Stufe': .*got 'has no column'"),
        ({}, {"context": {"ort": ("category", "Wunsch", "Ort")}}, "has no column 'Wunsch'.*`context` compares 'ort'"),
    ],
)
def test_another_error_about_new_people_says_nothing_of_columns(market, changed, options, message):
    with pytest.raises(MarketError, match=message) as told:
        market.with_applicants([NEW | changed], **options)
    assert "`columns=" not in str(told.value)


def test_new_people_with_another_separator_are_doubted(market, files):
    saved = market.save(files / "saved")
    other = {**NEW, "Kenntnisse": "Wunden; Messer"}
    message = r"1 of 1 cells in column '\w+' have ';', and none have the separator '\+': say `skill_separator=';'`"
    with pytest.warns(UserWarning, match=message):
        assert saved.with_applicants([other]).applicant("n").hard_skills == ("Wunden; Messer",)
    assert saved.with_applicants([other], skill_separator=";").applicant("n").hard_skills == ("Messer", "Wunden")
    assert len(saved.with_applicants([other], skill_separator="+").applicant("n").hard_skills) == 1


def test_every_way_to_a_market_is_remembered(market, files):
    sets = {**OPTIONS, "null_values": frozenset(OPTIONS["null_values"])}  # which JSON does not know
    ways = {
        "a set": load_market(files / "jobs.csv", applicants=files / "people.csv", cache_dir=False, **sets),
        "a loader": load_csv(files / "jobs.csv", applicants=files / "people.csv", cache_dir=False, **OPTIONS),
        "a pickle": pickle.loads(
            pickle.dumps(load_csv(files / "jobs.csv", applicants=files / "people.csv", **OPTIONS))
        ),
        "a saved one": market.save(files / "first"),
        "other people": market.save(files / "second").with_applicants([NEW]),
    }
    for name, way in ways.items():
        assert_reads_alike(way.save(files / name), market)
        assert header_of(files / name)["read_with"] == json.loads(json.dumps(OPTIONS)), name


@pytest.mark.parametrize(
    "told",
    [
        {
            "columns": MappingProxyType(
                {**OPTIONS["columns"], "applicants": MappingProxyType(OPTIONS["columns"]["applicants"])}
            )
        },
        {"seniority_values": {word: np.int64(level) for word, level in OPTIONS["seniority_values"].items()}},
        {"null_values": np.array(OPTIONS["null_values"])},
        {"null_values": dict.fromkeys(OPTIONS["null_values"]).keys()},
    ],
    ids=["mappings", "numbers of numpy", "an array", "keys"],
)
@pytest.mark.parametrize("load", [load_market, load_csv])
def test_what_json_does_not_know_is_remembered_all_the_same(market, files, load, told):
    way = load(files / "jobs.csv", applicants=files / "people.csv", cache_dir=False, **{**OPTIONS, **told})
    for known in (way, way.save(files / "saved")):
        assert_reads_alike(known, market)
    assert header_of(files / "saved")["read_with"] == json.loads(json.dumps(OPTIONS))


def test_an_encoder_that_is_an_object_or_a_folder_is_not_remembered(files, monkeypatch):
    (files / "models").mkdir()
    monkeypatch.chdir(files)
    monkeypatch.setattr("jobrec_gym.loaders.assembly.make_encoder", lambda *_: HashingEncoder())
    others = {name: value for name, value in OPTIONS.items() if name != "encoder"}
    for number, encoder in enumerate((HashingEncoder(), "models", files / "models", str(files / "models"))):
        for load in (load_market, load_csv):
            market = load("jobs.csv", applicants="people.csv", cache_dir=str(files / "kept"), **others, encoder=encoder)
            saved = market.save(files / f"saved {number}")
            assert set(header_of(saved.folder)["read_with"]) == set(others)
            assert str(files) not in (saved.folder / "market.json").read_text()
            assert saved.with_applicants([NEW], encoder="hashing").applicant("n").seniority == 5


def test_what_is_remembered_is_no_part_of_what_is_compared(files):
    known = load_csv(files / "jobs.csv", applicants=files / "people.csv", **OPTIONS)
    saved, unknown = known.save(files / "saved"), known.read_with({})
    plain = unknown.save(files / "plain")

    assert "read_with" not in header_of(plain.folder)
    assert saved.fingerprint() == plain.fingerprint() == known.fingerprint()
    assert saved.job_vectors_sha256 == plain.job_vectors_sha256
    headers = [header_of(one.folder) for one in (saved, plain)]
    assert {name for name in headers[0] if headers[0][name] != headers[1].get(name)} == {"sha256", "read_with"}


def test_a_market_that_was_saved_before_is_told_how_new_people_are_read(market, files):
    folder = market.save(files / "saved").folder
    header = header_of(folder)
    del header["read_with"], header["sha256"]
    (folder / "market.json").write_text(json.dumps(header))
    saved = LabourMarket.load(folder)

    with pytest.raises(MarketError, match="has no column 'hard'"):
        saved.with_applicants([NEW], encoder="hashing")
    of_people = {name: value for name, value in OPTIONS.items() if name != "date_format"}  # only jobs have dates
    told = saved.with_applicants([NEW], **{**of_people, "text_columns": ["soft"]})
    assert told.applicant("n") == market.with_applicants([NEW]).applicant("n")


@pytest.mark.parametrize(
    "strange",
    [[], "columns", {"encoder": "/home/me/model"}, {"encoder": "C:\\model"}, {"encoder": ["x"]}, {"path": "x"}],
)
def test_what_no_market_writes_is_not_obeyed(market, files, strange):
    folder = market.save(files / "saved").folder
    header = {**header_of(folder), "read_with": strange}
    del header["sha256"]
    (folder / "market.json").write_text(json.dumps(header))

    saved = LabourMarket.load(folder)
    assert saved.origin == saved.spec


@pytest.mark.parametrize(
    "units", [5, ["EUR"], {"lohn": "EUR"}, {"lohn": ["EUR"]}, {"lohn": [1, None, ""]}, {"ort": ["EUR", "", ""]}]
)
def test_units_that_no_market_writes_are_unknown(market, files, units):
    folder = market.save(files / "saved").folder
    header = header_of(folder)
    header["read_with"]["units"] = units
    del header["sha256"]
    (folder / "market.json").write_text(json.dumps(header))
    assert_reads_alike(LabourMarket.load(folder), market)


def test_the_units_of_pay_are_remembered(files):
    (files / "jobs.csv").write_text(JOBS.replace("2.500", "2.500 €/Monat").replace("5.000", "5.000 €/Monat"))
    (files / "people.csv").write_text(PEOPLE.replace("2.400,5", "2.400,5 € mtl."))
    market = load_csv(files / "jobs.csv", applicants=files / "people.csv", cache_dir=False, **OPTIONS)
    saved = market.save(files / "saved")
    assert header_of(saved.folder)["read_with"]["units"] == {"lohn": ["EUR", "month", ""]}
    wish = {**NEW, "Lohnwunsch": "3.000 € pro Monat"}
    assert saved.with_applicants([wish]).applicant("n").context == {"lohn": 3000.0}
    with pytest.raises(MarketError, match="numbers for one year in `rows` with numbers in EUR for one month in market"):
        saved.with_applicants([NEW])


MONTHLY = ("2.500 €/Monat", "5.000 €/Monat", "2.400 €/Monat")


@pytest.mark.parametrize("jobs", [MONTHLY[:2], ("", MONTHLY[1]), ("", "")])
@pytest.mark.parametrize("wish", [MONTHLY[2], ""])
def test_pay_that_nobody_states_has_no_unit(files, jobs, wish):
    """Neither an empty column nor a market whose jobs say no pay is compared with pay for a year."""
    (files / "jobs.csv").write_text(JOBS.replace("2.500", jobs[0]).replace("5.000", jobs[1]))
    (files / "people.csv").write_text(PEOPLE.replace('"2.400,5"', wish))
    market = load_csv(files / "jobs.csv", applicants=files / "people.csv", cache_dir=False, **OPTIONS)
    for known in (market, market.save(files / "saved")):
        for pay in ("", None, float("nan"), "keine Angabe"):
            assert known.with_applicants([{**NEW, "Lohnwunsch": pay}]).applicant("n").context == {}
        assert known.with_applicants([{**NEW, "Lohnwunsch": MONTHLY[2]}]).applicant("n").context == {"lohn": 2400.0}
