"""New people on a market that is there."""

import dataclasses
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym.encoders import HashingEncoder
from jobrec_gym.job_index import index_file
from jobrec_gym.loaders import newcomers
from jobrec_gym.loaders.tables import FIELDS, load_csv
from jobrec_gym.market import MarketError, labour_market, load_market

PEOPLE = [
    {
        "key": "p1",
        "title": "analyst",
        "hard": "SQL;Python",
        "soft": "curiosity",
        "seniority": 2,
        "experience": "5 years",
    },
    {"key": "p2", "title": "nurse", "hard": "wound care", "soft": "empathy;calm", "seniority": 3, "experience": ""},
    {"key": "7", "title": "cook", "hard": "food safety;Rust", "soft": "", "seniority": "", "experience": "5 years"},
]


def write_csv(path, rows):
    lines = [",".join(rows[0]), *(",".join(str(cell) for cell in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def files(tmp_path):
    jobs = [
        {"key": "j1", "title": "data analyst", "hard": "SQL;hygiene", "soft": "calm;teamwork", "experience": "2 years"},
        {"key": "j2", "title": "nurse", "hard": "wound care;hygiene", "soft": "empathy", "experience": ""},
    ]
    write_csv(tmp_path / "jobs.csv", jobs)
    write_csv(tmp_path / "people.csv", PEOPLE)
    write_csv(tmp_path / "others.csv", [{"key": "x", "hard": "hygiene;baking"}])
    return tmp_path


@pytest.fixture
def market(files):
    return load_market(f"csv:{files / 'jobs.csv'}", applicants=str(files / "others.csv"), encoder="hashing")


def test_new_people_bring_their_descriptions_and_jobs_keep_theirs(files):
    write_csv(files / "described.csv", [{"key": "j", "hard": "SQL", "description": "We query."}])
    market = load_market(f"csv:{files / 'described.csv'}", applicants=str(files / "others.csv"), encoder="hashing")
    new = market.with_applicants(
        [{"key": "p", "hard": ["SQL"], "description": "I query."}, {"key": "q", "hard": ["R"]}]
    )
    assert [new.applicant(row).description for row in (0, 1)] == ["I query.", ""]
    assert new.job(0).description == market.job(0).description == "We query."


def test_new_people_have_the_vectors_that_loading_them_from_a_file_gives(market, files):
    loaded = load_csv(files / "jobs.csv", applicants=files / "people.csv", encoder="hashing")

    for rows in (PEOPLE, [dict(row, hard=row["hard"].split(";")) for row in PEOPLE], files / "people.csv"):
        new = market.with_applicants(rows)
        assert np.array_equal(new.applicants.vectors, loaded.applicants.vectors)
        assert [words(new.applicant(row)) for row in range(3)] == [words(loaded.applicant(row)) for row in range(3)]
        for kind in ("title", "experience"):
            tables = [getattr(one, f"{kind}_vectors")[getattr(one.applicants, f"{kind}_ids")] for one in (new, loaded)]
            assert np.array_equal(*tables)


def words(profile):
    """A profile with its skills as sets. Their order is that of the vocabulary, to whose end newcomers add words."""
    return dataclasses.replace(profile, hard_skills=set(profile.hard_skills), soft_skills=set(profile.soft_skills))


def test_jobs_stay_as_they_are(market):
    new = market.with_applicants(PEOPLE)

    assert np.shares_memory(new.jobs.vectors, market.jobs.vectors)
    assert [new.job(key) for key in ("j1", "j2")] == [market.job(key) for key in ("j1", "j2")]
    assert new.applicant("7").id == 2 and len(market.applicants) == 1
    assert (new.action_features(["title"]) == market.action_features(["title"])).all()


def test_people_are_encoded_by_the_columns_that_the_market_was_loaded_by(files):
    write_csv(files / "named.csv", [{"key": "x", "skills": "SQL|baking"}])
    rename = (files / "jobs.csv").read_text().replace("hard", "skills").replace(";", "|")
    (files / "jobs.csv").write_text(rename)
    options = {"columns": {"hard": "skills"}, "skill_separator": "|", "encoder": "hashing"}
    market = load_market(f"csv:{files / 'jobs.csv'}", applicants=str(files / "named.csv"), **options)

    assert np.array_equal(
        market.with_applicants([{"key": "y", "skills": "SQL|baking"}]).applicants.vectors, market.applicants.vectors
    )
    other = market.with_applicants([{"key": "y", "hard": "SQL;baking"}], columns={}, skill_separator=";")
    assert np.array_equal(other.applicants.vectors, market.applicants.vectors)


def test_another_encoder_than_that_of_the_jobs_is_refused(market, tmp_path):
    saved = market.save(tmp_path / "saved")

    with pytest.raises(MarketError, match="`encoder` is not the one that market .* Give the encoder of the jobs"):
        saved.with_applicants(PEOPLE, encoder=Reversed())
    with pytest.raises(MarketError, match="a vector of 32 numbers. The market has one of 768 numbers for them. Give"):
        saved.with_applicants(PEOPLE, encoder=HashingEncoder(16))
    new = saved.with_applicants(PEOPLE, encoder="hashing")
    assert np.array_equal(new.applicants.vectors, market.with_applicants(PEOPLE).applicants.vectors)
    assert index_file(new) == index_file(saved) is not None


class Reversed(HashingEncoder):
    name = "reversed"

    def encode(self, texts):
        return super().encode(texts)[:, ::-1]


def test_an_encoder_is_loaded_once_for_all_that_come(market, monkeypatch):
    newcomers._kept_encoder.cache_clear()
    made = []
    monkeypatch.setattr(newcomers, "make_encoder", lambda *args: made.append(args) or HashingEncoder())
    for row in PEOPLE:
        market.with_applicants([row])
    assert len(made) == 1
    newcomers._kept_encoder.cache_clear()


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "there is nobody"),
        ({"key": "p", "hard": ["SQL"]}, "must be a sequence of mappings, got one mapping"),
        ([{"key": "p", "hard": ["SQL"]}, ["SQL"]], "`rows`, row 2: must be a mapping"),
        ([{"key": "p", "hard": [3]}], "`rows`, row 1, column 'hard': must list texts"),
        ([{"key": "p", "hard": []}], "row 1 .key 'p'. has neither hard nor soft skills"),
        ([{"key": "p", "hard": "a"}, {"key": "p", "hard": "b"}], "key 'p' of applicants appears twice"),
        ([{"key": "p", "skils": "a"}], "column 'hard'"),
        ([{"hard": "a", 3: "b"}], "`rows`, row 1: must name its entries by texts, such as 'hard', got 3"),
    ],
)
def test_what_is_wrong_is_named(market, rows, complaint):
    with pytest.raises(MarketError, match=complaint):
        market.with_applicants(rows)


def test_a_file_is_read_by_its_own_ending_whatever_the_jobs_are(market, tmp_path):
    with (tmp_path / "people.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in PEOPLE)
    expected = market.with_applicants(PEOPLE).applicants.vectors
    assert np.array_equal(market.with_applicants(tmp_path / "people.jsonl").applicants.vectors, expected)
    (tmp_path / "people.jsonl").rename(tmp_path / "people.txt")
    with pytest.raises(
        MarketError, match=r"people.txt must end in .csv, .tsv, .jsonl, .ndjson, .json, .parquet .or one of them and"
    ):
        market.with_applicants(tmp_path / "people.txt")
    assert np.array_equal(market.with_applicants(f"jsonl:{tmp_path / 'people.txt'}").applicants.vectors, expected)
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'data'")
    import pyarrow

    columns = {name: [row[name] or None for row in PEOPLE] for name in FIELDS if name in PEOPLE[0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "people.parquet")
    assert np.array_equal(market.with_applicants(tmp_path / "people.parquet").applicants.vectors, expected)


def test_the_environment_plays_on_new_people(market):
    env = gym.make("JobRec-v0", market=market.with_applicants(PEOPLE), job_split="all", num_candidates=2)

    _, info = env.reset(seed=0, options={"applicant_key": "p2"})

    assert info["applicant_id"] == 1 and info["applicant_in_split"] is True


def test_newcomers_have_no_split_even_where_the_market_was_loaded_with_one(tmp_path):
    (tmp_path / "jobs.csv").write_text("key,hard,fold\nj1,SQL,test\nj2,baking,train\n")
    (tmp_path / "people.csv").write_text("key,hard,fold\np1,SQL,test\np2,baking,test\n")
    people = str(tmp_path / "people.csv")
    market = load_market(
        f"csv:{tmp_path / 'jobs.csv'}", applicants=people, columns={"split": "fold"}, encoder="hashing"
    )

    for rows in ([{"key": "p9", "hard": "SQL"}], [{"key": "p9", "hard": "SQL", "split": "cohort 3"}], people):
        assert not market.with_applicants(rows).applicants.held_out.any()
    assert market.applicants.held_out.all()


def test_a_data_frame_comes_as_its_rows(market):
    pandas = pytest.importorskip("pandas", reason="needs the extra 'experiments'")
    frame = pandas.DataFrame(
        [{"key": "p8", "hard": "SQL", "seniority": None}, {"key": "p9", "hard": None, "soft": "calm"}]
    )

    with pytest.raises(MarketError, match=r"got a DataFrame: give `frame.to_dict\('records'\)`"):
        market.with_applicants(frame)
    assert market.with_applicants(frame.to_dict("records")).applicants.keys.tolist() == ["p8", "p9"]


def test_a_date_that_a_data_frame_lacks_is_unknown(files):
    pandas = pytest.importorskip("pandas", reason="needs the extra 'experiments'")
    write_csv(files / "jobs.csv", [{"key": "j", "hard": "SQL", "start": "2026-01-02"}])
    write_csv(files / "others.csv", [{"key": "x", "hard": "SQL", "start": ""}])
    market = load_market(
        files / "jobs.csv", applicants=files / "others.csv", encoder="hashing", context={"start": "category"}
    )
    frame = pandas.DataFrame({"hard": ["SQL", "R"], "start": pandas.to_datetime(["2026-01-02", None])})
    rows = [*frame.to_dict("records"), {"hard": "R", "start": pandas.NA}, {"hard": "R", "start": np.datetime64("NaT")}]
    new = market.with_applicants(rows)
    assert [set(new.applicant(row).context) for row in range(4)] == [{"start"}, set(), set(), set()]


ROLES = [
    {"Family": "job", "id": "j1", "hard": "SQL"},
    {"Family": "job", "id": "j2", "hard": "R"},
    {"Family": "applicant", "id": "p1", "hard": "SQL"},
    {"Family": "applicant", "id": "p2", "hard": "R"},
]
BY_ROLE = {"role_column": "Family", "columns": {"key": "id"}, "encoder": "hashing"}


@pytest.mark.parametrize("is_saved", [False, True])
def test_the_jobs_of_a_file_of_both_sides_are_not_read_as_people(files, is_saved):
    market = load_market(write_csv(files / "all.csv", ROLES), **BY_ROLE)
    if is_saved:
        market = market.save(files / "saved")
    assert market.with_applicants(files / "all.csv").applicants.keys.tolist() == ["p1", "p2"]
    assert market.with_applicants(ROLES[1:3]).applicants.keys.tolist() == ["p1"]
    assert market.with_applicants([{"id": "n", "hard": "R"}]).applicants.keys.tolist() == ["n"], "people only"


def test_roles_of_other_words_are_remembered(files):
    words = {"jobs": "Stelle", "applicants": "Mensch"}
    rows = [{**row, "Family": words["jobs" if row["Family"] == "job" else "applicants"]} for row in ROLES]
    market = load_market(write_csv(files / "all.csv", rows), role_values=words, **BY_ROLE).save(files / "saved")
    assert market.with_applicants(files / "all.csv").applicants.keys.tolist() == ["p1", "p2"]


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("job", "`rows` has no applicants: no row has 'applicant' in column 'Family'"),
        ("nurse", "must be 'job' or 'applicant', got 'nurse'"),
    ],
)
def test_new_people_who_seem_to_be_none_are_told_of_the_column(files, role, message):
    market = load_market(write_csv(files / "all.csv", ROLES), **BY_ROLE)
    with pytest.raises(MarketError, match=rf"{message}.*loaded with `role_column='Family'`.*leave the column out or"):
        market.with_applicants([{"Family": role, "id": "n", "hard": "R"}])


def test_a_role_column_that_no_market_writes_is_not_obeyed(files):
    market = load_market(write_csv(files / "all.csv", ROLES), **BY_ROLE).save(files / "saved")
    header = json.loads((market.folder / "market.json").read_text())
    header["read_with"]["role_column"] = ["Family"]
    del header["sha256"]
    (market.folder / "market.json").write_text(json.dumps(header))
    assert load_market(market.folder).with_applicants([{"id": "n", "hard": "R"}]).applicants.keys.tolist() == ["n"]


def test_of_a_file_that_lists_jobs_and_people_the_people_are_read(files):
    sides = {"jobs": [{"key": "j", "hard": ["SQL"]}], "applicants": [{"key": "p", "hard": ["SQL"]}]}
    (files / "both.json").write_text(json.dumps(sides))
    market = load_market(files / "both.json", encoder="hashing")
    assert market.with_applicants(files / "both.json").applicants.keys.tolist() == ["p"]


def test_jobs_in_lists_take_new_people_in_free_text(files):
    write_csv(files / "told.csv", [{"key": "x", "hard": "I keep things clean and bake."}])
    texts = {"applicants": ["hard"]}
    options = {"encoder": "hashing", "text_columns": texts}
    market = load_market(f"csv:{files / 'jobs.csv'}", applicants=str(files / "told.csv"), **options)
    new = market.with_applicants([{"key": "y", "hard": "I keep things clean and bake."}])
    assert np.array_equal(new.applicants.vectors, market.applicants.vectors)


def test_a_saved_market_with_jobs_in_free_text_reads_new_people_in_lists(files):
    write_csv(files / "told.csv", [{"key": "j", "hard": "We bake bread."}])
    options = {"encoder": "hashing", "text_columns": {"jobs": ["hard"]}}
    market = load_market(f"csv:{files / 'told.csv'}", applicants=str(files / "others.csv"), **options)
    saved = market.save(files / "saved")
    new = saved.with_applicants([{"key": "y", "hard": ["hygiene", "baking"]}], encoder="hashing")
    assert new.applicant(0).hard_skills == ("baking", "hygiene")
    assert np.array_equal(new.applicants.vectors, market.applicants.vectors)
    once = saved.with_applicants([{"key": "x", "hard": ["SQL"]}], encoder="hashing")
    twice = once.with_applicants([{"key": "y", "hard": ["hygiene", "baking"]}], encoder="hashing")
    assert np.array_equal(twice.applicants.vectors, new.applicants.vectors)


def test_new_people_may_be_replaced_by_newer_ones_without_saying_again_how_they_are_read(files):
    write_csv(files / "plus.csv", [{"key": "x", "skills": "hygiene+baking"}])
    columns = {"applicants": {"hard": "skills"}, "jobs": {}}
    options = {"encoder": "hashing", "columns": columns, "skill_separator": "+"}
    market = load_market(f"csv:{files / 'jobs.csv'}", applicants=str(files / "plus.csv"), **options)
    once = market.with_applicants([{"key": "y", "skills": "SQL"}])
    assert once.spec is None
    for again in (once, pickle.loads(pickle.dumps(once))):
        twice = again.with_applicants([{"key": "x", "skills": "hygiene+baking"}])
        assert np.array_equal(twice.applicants.vectors, market.applicants.vectors)


def test_a_pickled_market_of_new_people_still_finds_the_index_of_its_jobs(market, files):
    new = market.save(files / "saved").with_applicants([{"key": "y", "hard": "SQL"}], encoder="hashing")
    assert index_file(pickle.loads(pickle.dumps(new))) == index_file(new) is not None


def test_a_pickle_of_a_saved_market_with_new_people_holds_the_path_of_the_jobs_and_what_is_new(files):
    context = {"place": "category", "tools": "set"}
    write_csv(files / "placed.csv", [{"key": "j", "hard": "SQL", "title": "t", "place": "Rome", "tools": "saw"}])
    write_csv(files / "here.csv", [{"key": "x", "hard": "baking", "title": "t", "place": "Bonn", "tools": "saw"}])
    options = {"applicants": str(files / "here.csv"), "encoder": "hashing", "context": context}
    saved = load_market(f"csv:{files / 'placed.csv'}", **options).save(files / "saved")
    known = {"key": "y", "hard": ["SQL"], "place": "Rome", "tools": ["saw"], "description": "I query."}
    new = saved.with_applicants([known], encoder="hashing")
    newer = new.with_applicants([{**known, "hard": ["Rust", "SQL"], "title": "z", "place": "Oslo"}], encoder="hashing")
    for market in (new, newer):
        again = pickle.loads(pickle.dumps(market))
        assert again.jobs is load_market(files / "saved").jobs
        assert (again.fingerprint(), again.name, again.origin) == (market.fingerprint(), market.name, market.origin)
        assert again.applicant("y") == market.applicant("y") and again.job("j") == market.job("j")
        assert again.vocabulary == market.vocabulary
        assert pickle.loads(pickle.dumps(again)).fingerprint() == market.fingerprint()
        assert (again.folder, again.spec, index_file(again)) == (market.folder, None, index_file(market))


def test_the_size_of_such_a_pickle_does_not_depend_on_the_number_of_jobs(tmp_path):
    sizes = []
    for n_jobs in (300, 600):
        market = load_market("default", n_jobs=n_jobs, n_applicants=5).save(tmp_path / str(n_jobs))
        new = market.replaced_applicants(
            market.applicants.take(np.array([0])),
            market.vocabulary,
            title_vectors=market.title_vectors,
            experience_vectors=market.experience_vectors,
            context={name: table.take(np.array([0]), np.arange(n_jobs)) for name, table in market.context.items()},
        )
        sizes.append(len(pickle.dumps(new)))
    assert max(sizes) < 10_000 and abs(sizes[1] - sizes[0]) < 200


def test_a_pickle_of_new_people_is_refused_if_the_market_was_saved_again(market, files):
    saved = market.save(files / "saved")
    pickled = pickle.dumps(saved.with_applicants([{"key": "y", "hard": "SQL"}], encoder="hashing"))
    write_csv(files / "jobs.csv", [{"key": "j3", "hard": "wound care;hygiene;SQL", "soft": "calm"}])
    load_market(f"csv:{files / 'jobs.csv'}", applicants=str(files / "others.csv"), encoder="hashing").save(saved.folder)
    with pytest.raises(MarketError, match="saved was saved again after these applicants were read: read them again"):
        pickle.loads(pickled)


def test_jobs_are_not_checked_again_for_new_people(market, monkeypatch):
    checked = []
    check = labour_market.check_population
    monkeypatch.setattr(labour_market, "check_population", lambda side, rows: checked.append(side) or check(side, rows))
    new = market.replaced_applicants(market.applicants, market.vocabulary)
    assert checked == ["applicants"] and new.jobs is market.jobs
    for changes, message in (
        ({"seniority": np.full(1, 9)}, "seniority 9"),
        ({"title_ids": np.full(1, 99)}, "`applicants.title_ids` must be in"),
        ({"vectors": np.eye(1, 10)}, "vectors of one size, got 10 and 768"),
    ):
        with pytest.raises(MarketError, match=message):
            market.replaced_applicants(dataclasses.replace(market.applicants, **changes), market.vocabulary)


def test_numbers_of_numpy_are_read_like_those_of_a_file(market):
    row = {"key": np.float32(3), "hard": ["SQL", np.float32("nan")], "seniority": np.int64(2)}
    new = market.with_applicants([{**row, "experience": np.float32("nan"), "title": np.float32("nan")}])
    person = new.applicant(0)
    assert (person.key, person.hard_skills, person.seniority) == ("3", ("SQL",), 2)
    assert (person.experience, person.title) == ("", "")


def test_new_people_may_be_read_otherwise_than_those_of_a_saved_market(market, files):
    market.save(files / "saved")
    saved = load_market(str(files / "saved"))
    rows = [
        {"id": "a", "can": ["SQL"], "level": "Fachkraft"},
        {"id": "b", "can": ["keine"], "level": ""},
        {"id": "c", "can": [], "level": ""},
    ]
    said = {"columns": {"key": "id", "hard": "can", "seniority": "level"}, "encoder": "hashing"}
    with pytest.raises(MarketError, match="seniority_values={'Fachkraft': 3}"):
        saved.with_applicants(rows, **said)
    said |= {"seniority_values": {"Fachkraft": 3}, "null_values": ["keine"]}
    with pytest.raises(MarketError, match="row 2 .key 'b'. has neither .*, like 2 of 3 applicants.*`on_empty='skip'`"):
        saved.with_applicants(rows, **said)
    new = saved.with_applicants(rows, on_empty="skip", **said)
    assert (new.applicants.keys.tolist(), new.applicant("a").seniority) == (["a"], 3)
    with pytest.raises(MarketError, match="`on_empty` must be 'raise' or 'skip'"):
        saved.with_applicants(rows, on_empty="drop", **said)


def test_a_file_of_new_people_may_have_another_encoding_and_delimiter(market, files):
    (files / "new.csv").write_bytes("key|title|hard\np|Köchin|Brühe, Soße;hygiene\n".encode("cp1252"))
    with pytest.raises(MarketError, match="encoding='cp1252'"):
        market.with_applicants(files / "new.csv")
    new = market.with_applicants(files / "new.csv", encoding="cp1252", delimiter="|")
    assert (new.applicant("p").title, new.applicant("p").hard_skills) == ("Köchin", ("hygiene", "Brühe, Soße"))


def test_a_file_of_new_people_without_the_context_of_the_jobs_is_told(files, caplog):
    write_csv(files / "placed.csv", [{"key": "j", "hard": "SQL", "place": "Leeds", "pay": 30}])
    write_csv(files / "there.csv", [{"key": "p", "hard": "SQL", "place": "Leeds", "pay": 20}])
    write_csv(files / "wanting.csv", [{"key": "q", "hard": "SQL", "wanted": "York", "pay": 20}])
    load_market(
        f"csv:{files / 'placed.csv'}",
        applicants=str(files / "there.csv"),
        context={"place": "category", "pay": "at_most"},
        encoder="hashing",
    ).save(files / "saved")
    saved = load_market(str(files / "saved"))

    assert saved.with_applicants(files / "wanting.csv", encoder="hashing").applicant("q").context == {"pay": 20.0}
    assert "wanting.csv has no column 'place', so the values of 'place' are unknown for all these people" in caplog.text
    way_out = {"place": ("category", "wanted", "place"), "pay": "at_most"}
    assert "`context={'place': ('category', 'their column', 'place')}`" in caplog.text
    caplog.clear()
    new = saved.with_applicants(files / "wanting.csv", context=way_out, encoder="hashing")
    assert new.applicant("q").context == {"place": "York", "pay": 20.0}
    assert "unknown" not in caplog.text


def test_a_column_of_the_context_that_is_missing_is_named(files, caplog):
    write_csv(files / "placed.csv", [{"key": "j", "hard": "SQL", "place": "Leeds"}])
    write_csv(files / "wanting.csv", [{"key": "q", "hard": "SQL", "wanted": "York"}])
    write_csv(files / "there.csv", [{"key": "p", "hard": "SQL", "place": "Leeds"}])
    context = {"place": ("category", "wanted", "place")}
    placed = {"applicants": str(files / "wanting.csv"), "context": context, "encoder": "hashing"}
    market = load_market(f"csv:{files / 'placed.csv'}", **placed)
    assert market.with_applicants(files / "there.csv").applicant("p").context == {}
    assert "there.csv has no column 'wanted', so the values of 'place' are unknown for all these people" in caplog.text


def test_one_person_without_skills_is_not_counted_among_others(market):
    with pytest.raises(
        MarketError, match=r"row 1 \(key 'p'\) has neither hard nor soft skills: are the skills in another"
    ):
        market.with_applicants([{"key": "p", "hard": []}])
