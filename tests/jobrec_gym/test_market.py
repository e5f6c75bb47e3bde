import copy
import dataclasses
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import jobrec_gym.market
from jobrec_gym.encoders import HashingEncoder
from jobrec_gym.market import (
    LabourMarket,
    MarketError,
    SkillLists,
    checks,
    compose_block,
    compose_vectors,
    load_market,
    register_market_source,
    sources,
    write_vectors,
)
from jobrec_gym.market import keys as keys_module
from jobrec_gym.market import vectors as vectors_module
from jobrec_gym.market.keys import find_rows
from jobrec_gym.market.sources import file_states


def replaced(market, side, **changes):
    """The market with one side changed, made in memory."""
    sides = {name: getattr(market, name) for name in ("applicants", "jobs")}
    sides[side] = dataclasses.replace(sides[side], **changes)
    return LabourMarket("changed", sides["applicants"], sides["jobs"], market.vocabulary)


def test_a_market_is_frozen(market):
    with pytest.raises(AttributeError, match="frozen"):
        market.name = "other"
    with pytest.raises(ValueError, match="read-only"):
        market.jobs.vectors[0, 0] = 1.0


def test_copies_are_the_market_itself(market):
    assert copy.deepcopy(market) is market
    assert copy.copy(market) is market


def test_a_profile_has_words(market):
    job = market.job(0)
    assert job.title in market.vocabulary.titles
    assert job.hard_skills and job.soft_skills
    assert 1 <= job.seniority <= 5
    assert job.family in job.experience


def test_vectors_are_composed_as_documented(market):
    hard = compose_block(np.eye(3), SkillLists.from_rows([[0, 1], [], [2]]))
    assert hard == pytest.approx(np.array([[0.5**0.5, 0.5**0.5, 0], [0, 0, 0], [0, 0, 1]]))
    joined = compose_vectors(hard, np.ones((3, 1), np.float32) * [[1], [1], [0]])
    assert np.linalg.norm(joined, axis=1) == pytest.approx([1, 1, 1])
    assert joined[1] == pytest.approx([0, 0, 0, 1])
    assert np.linalg.norm(market.jobs.vectors, axis=1) == pytest.approx(np.ones(60), abs=1e-5)


def test_composing_in_chunks_changes_no_bit(monkeypatch):
    rng = np.random.default_rng(0)
    skills = SkillLists.from_rows(rng.choice(50, size=rng.integers(0, 6), replace=False) for _ in range(100))
    vectors = rng.normal(size=(50, 8)).astype(np.float32)
    whole = compose_block(vectors, skills)
    monkeypatch.setattr(vectors_module, "_COMPOSE_CHUNK", 7)
    assert (compose_block(vectors, skills) == whole).all()


def test_a_saved_market_comes_back_memory_mapped(market, tmp_path):
    saved = market.save(tmp_path / "market")
    assert saved.fingerprint() == market.fingerprint()
    assert isinstance(saved.jobs.vectors, np.memmap)
    assert saved.job(3) == market.job(3)
    assert saved.to_spec() == str(tmp_path / "market")
    assert load_market(tmp_path / "market").fingerprint() == market.fingerprint()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["market"]


def test_a_market_is_saved_in_half_precision(market, tmp_path):
    saved = market.save(tmp_path / "market", dtype="float16")
    assert (saved.jobs.vectors == market.jobs.vectors.astype(np.float16)).all()
    assert saved.job(3) == market.job(3)
    whole = market.save(tmp_path / "whole")
    assert whole.jobs.vectors.dtype == np.float32
    sums = {loaded.job_vectors_sha256 for loaded in (saved, whole, load_market(tmp_path / "whole"))}
    assert len(sums) == 2 and market.job_vectors_sha256 is None
    assert saved.folder == tmp_path / "market" and market.folder is None


@pytest.mark.parametrize("dtype", ["float8", "int8", "float64", 3.5])
def test_a_precision_that_cannot_be_is_refused_before_anything_is_written(market, tmp_path, dtype):
    with pytest.raises(MarketError, match='`dtype` must be "float16", "float32" or None, got'):
        market.save(tmp_path / "market", dtype=dtype)
    assert not any(tmp_path.iterdir())


def test_opening_a_large_market_reads_none_of_its_tables(market, tmp_path, monkeypatch):
    market.save(tmp_path / "market")
    monkeypatch.setattr(checks, "_CHECKED_BYTES", 0)
    monkeypatch.setattr(np, "unique", lambda *_, **__: pytest.fail("keys were read"))
    monkeypatch.setattr(checks, "check_lengths", lambda *_: pytest.fail("vectors were read"))
    assert len(LabourMarket.load(tmp_path / "market").jobs) == 60


def test_a_wrong_vector_is_named_by_its_row_in_any_piece(market, monkeypatch):
    monkeypatch.setattr(checks, "_CHECKED_ROWS", 7)
    vectors = market.jobs.vectors.copy()
    vectors[25] *= 2
    key = market.jobs.keys[25]
    with pytest.raises(MarketError, match=rf"`jobs` row 25 \(key '{key}'\) has a vector that is of length 2"):
        replaced(market, "jobs", vectors=vectors)


def test_a_row_is_checked_while_it_is_written(tmp_path):
    chunks = [np.eye(4, 6), np.eye(4, 6) * [[1], [1], [2], [1]]]
    with pytest.raises(MarketError, match="`jobs` row 6 has a vector that is of length 2"):
        write_vectors(tmp_path / "jobs.npy", chunks, (8, 6), "float16")
    with pytest.raises(MarketError, match="must have the 9 rows of `shape`, got 8"):
        write_vectors(tmp_path / "jobs.npy", [np.eye(8)], (9, 8), "float16")


def test_a_market_from_a_path_pickles_as_the_path(market, tmp_path):
    saved = market.save(tmp_path / "market")
    pickled = pickle.dumps(saved)
    assert len(pickled) < 1_000
    assert pickle.loads(pickled).fingerprint() == market.fingerprint()


def test_a_market_made_in_memory_pickles_whole_and_has_no_spec(market):
    memory = replaced(market, "jobs")
    assert pickle.loads(pickle.dumps(memory)).fingerprint() == memory.fingerprint()
    with pytest.raises(ValueError, match=r"save it first.*market.save\(path\)"):
        memory.to_spec()


def test_a_spec_is_plain_json_and_finds_the_market(market):
    spec = json.loads(json.dumps(market.to_spec()))
    found = LabourMarket.from_spec(spec)
    assert found.fingerprint() == market.fingerprint()
    assert LabourMarket.from_spec(spec) is found


def test_saving_replaces_a_market_but_nothing_else(market, tmp_path):
    market.save(tmp_path / "market")
    market.save(tmp_path / "market")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(MarketError, match="is not a saved market"):
        market.save(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    market.save(tmp_path / "empty")
    assert LabourMarket.load(tmp_path / "empty").fingerprint() == market.fingerprint()


def test_a_broken_folder_says_what_is_wrong(market, tmp_path):
    market.save(tmp_path / "market")
    (tmp_path / "market" / "jobs.npy").unlink()
    with pytest.raises(MarketError, match="not a whole market"):
        LabourMarket.load(tmp_path / "market")
    (tmp_path / "market" / "market.json").write_text('{"format": "other"}')
    with pytest.raises(MarketError, match="'other', expected"):
        LabourMarket.load(tmp_path / "market")


@pytest.mark.parametrize("file", ["market.json", "tables/jobs-title_ids.npy", "jobs.npy", "title_vectors.npy"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": "jobrec-market/1"}', b"\xff\xfe\x00", None])
def test_any_broken_file_is_a_market_error(market, tmp_path, file, content):
    path = tmp_path / "market" / file
    market.save(tmp_path / "market")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    with pytest.raises(MarketError, match="market"):
        LabourMarket.load(tmp_path / "market")


def test_a_failed_save_keeps_the_old_market(market, tmp_path, monkeypatch):
    market.save(tmp_path / "market")
    real = Path.rename

    def fail(self, target):
        if self.name == "new" and Path(target) == tmp_path / "market":
            raise OSError("disk full")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="disk full"):
        replaced(market, "jobs").save(tmp_path / "market")
    monkeypatch.undo()
    assert LabourMarket.load(tmp_path / "market").fingerprint() == market.fingerprint()


def test_a_relative_path_is_found_from_another_folder(market, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(market.save("market"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(pickled).fingerprint() == market.fingerprint()


def test_relative_paths_among_the_keywords_are_found_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "people").mkdir()
    for name, skill in (("ann", "sql"), ("bob", "law")):
        (tmp_path / "people" / f"{name}.json").write_text(json.dumps({"skills": [{"name": skill}]}))
    (tmp_path / "jobs.csv").write_text("key,hard\nj1,sql\nj2,law\n")
    (tmp_path / "elsewhere" / "jobs.csv").write_text("key,hard\nother,welding\n")
    monkeypatch.chdir(tmp_path)
    for jobs in ("csv:jobs.csv", "jobs.csv"):
        market = load_market("json-resume:people/", jobs=jobs, encoder="hashing", cache_dir="vectors")
        kind = "csv:" if jobs.startswith("csv:") else ""
        assert market.to_spec() == {
            "source": f"json-resume:{tmp_path / 'people'}",
            "jobs": f"{kind}{tmp_path / 'jobs.csv'}",
            "encoder": "hashing",
            "cache_dir": str(tmp_path / "vectors"),
        }
        pickled = pickle.dumps(market)
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert pickle.loads(pickled).jobs.keys.tolist() == ["j1", "j2"]
        monkeypatch.chdir(tmp_path)
    board = load_market("default", n_jobs=5, n_applicants=5, folder="board").to_spec()
    assert board["folder"] == str(tmp_path / "board")


def test_an_encoders_folder_is_recorded_as_an_absolute_path_and_its_name_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model", "hashing", "all-MiniLM-L6-v2"):
        (tmp_path / name).mkdir()
    asked = []
    stand_in = HashingEncoder()
    monkeypatch.setattr("jobrec_gym.loaders.assembly.make_encoder", lambda name, *_: asked.append(name) or stand_in)
    (tmp_path / "jobs.csv").write_text("key,hard,occupation\nj1,sql,x\nj2,law,y\n")
    names = {
        "model": str(tmp_path / "model"),
        "./model": str(tmp_path / "model"),
        "hashing": "hashing",
        "all-MiniLM-L6-v2": "all-MiniLM-L6-v2",
        "sentence-transformers/all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    }
    for name, recorded in names.items():
        market = load_market("csv:jobs.csv", n_applicants=3, encoder=name)
        assert market.to_spec()["encoder"] == recorded
    assert set(asked) == set(names.values())


def test_a_misspelt_market_is_suggested():
    with pytest.raises(MarketError, match='unknown market "defalt": did you mean "default"'):
        load_market("defalt")
    with pytest.raises(MarketError, match='unknown market scheme "ontt:x": did you mean "onet:x"'):
        load_market("ontt:x")
    with pytest.raises(MarketError, match="lacks a path"):
        load_market("onet:")
    with pytest.raises(MarketError, match="market 'onet' lacks a path: write 'onet:PATH'"):
        load_market("onet")


def test_a_changed_file_is_read_again(tmp_path):
    jobs, people = tmp_path / "jobs.csv", tmp_path / "people.csv"
    jobs.write_text("key,hard\nj1,sql\nj2,law\n")
    people.write_text("key,hard\np1,sql\np2,law\n")

    def load():
        return load_market(f"csv:{jobs}", applicants=str(people), encoder="hashing", cache_dir=False)

    before = load()
    assert load() is before
    people.write_text("key,hard\np1,sql\np2,law\np3,art\n")
    os.utime(people, (1e9, 1e9))
    assert len(load().applicants) == 3


def test_a_changed_file_within_folders_of_a_release_is_read_again(tmp_path):
    inner = tmp_path / "release" / "inner"
    inner.mkdir(parents=True)
    (inner / "Skills.txt").write_text("old")
    before = file_states([f"onet:{tmp_path / 'release'}"])
    (inner / "Skills.txt").write_text("newer")
    assert file_states([f"onet:{tmp_path / 'release'}"]) != before


def test_a_link_to_nothing_hides_no_other_file_of_a_folder(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text("old")
        (tmp_path / f"{name}-link").symlink_to(tmp_path / "nothing")
    assert set(file_states([f"onet:{tmp_path}"])) == {str(tmp_path), *(str(tmp_path / name) for name in "abc")}


def test_equal_calls_share_one_market_though_the_first_has_made_the_files(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("made", "empty"):
        options = {"n_jobs": 5, "n_applicants": 5, "folder": str(tmp_path / folder)}
        first = load_market("default", **options)
        assert load_market("default", **options) is first
    (tmp_path / "jobs.csv").write_text("hard,occupation\nSQL,a\n")
    csv = {"n_applicants": 3, "encoder": "hashing", "cache_dir": str(tmp_path / "vectors")}
    first = load_market(f"csv:{tmp_path / 'jobs.csv'}", **csv)
    (tmp_path / "vectors").mkdir()
    assert load_market(f"csv:{tmp_path / 'jobs.csv'}", **csv) is first


def test_only_the_last_eight_markets_are_kept():
    markets = [load_market("default", n_jobs=5, n_applicants=5, seed=seed) for seed in range(9)]
    for seed in (8, 1):
        assert load_market("default", n_jobs=5, n_applicants=5, seed=seed) is markets[seed]
    assert load_market("default", n_jobs=5, n_applicants=5, seed=0) is not markets[0]


def test_a_source_can_be_registered(market, monkeypatch):
    monkeypatch.setattr(sources, "_SOURCES", dict(sources._SOURCES))
    monkeypatch.setattr(sources, "_WITHOUT_PATH", set(sources._WITHOUT_PATH))
    monkeypatch.setattr(jobrec_gym.market, "_made_here", lambda path="": replaced(market, "jobs"), raising=False)
    register_market_source("mine", "jobrec_gym.market:_made_here")
    assert load_market("mine:/somewhere").to_spec() == "mine:/somewhere"
    with pytest.raises(MarketError, match="market 'mine' lacks a path"):
        load_market("mine")
    register_market_source("ours", "jobrec_gym.market:_made_here", needs_path=False)
    assert load_market("ours").to_spec() == "ours"


def test_a_source_may_return_the_market_of_another_one_which_keeps_its_spec(market, monkeypatch):
    monkeypatch.setattr(sources, "_SOURCES", dict(sources._SOURCES))
    monkeypatch.setattr(sources, "_WITHOUT_PATH", set(sources._WITHOUT_PATH))
    spec = market.to_spec()
    monkeypatch.setattr(jobrec_gym.market, "_made_here", lambda: load_market(spec), raising=False)
    register_market_source("theirs", "jobrec_gym.market:_made_here", needs_path=False)
    theirs = load_market("theirs")
    assert (theirs.to_spec(), load_market(spec).to_spec()) == ("theirs", spec)
    assert theirs.jobs is load_market(spec).jobs


def test_a_source_may_return_a_market_of_its_own_class(market, monkeypatch):
    class Ours(LabourMarket):
        pass

    monkeypatch.setattr(sources, "_SOURCES", dict(sources._SOURCES))
    monkeypatch.setattr(sources, "_WITHOUT_PATH", set(sources._WITHOUT_PATH))
    made = Ours(market.name, market.applicants, market.jobs, market.vocabulary)
    monkeypatch.setattr(jobrec_gym.market, "_made_here", lambda: made, raising=False)
    register_market_source("own", "jobrec_gym.market:_made_here", needs_path=False)
    assert type(load_market("own")) is Ours


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": np.array(["a"] * 60)}, "keys must be distinct, got 'a' 60 times"),
        ({"seniority": np.ones(3, np.int8)}, "jobs.seniority` must have one entry for each of the 60 keys, got 3"),
        ({"vectors": np.full((60, 768), np.nan)}, "row 0 .* not finite"),
        ({"vectors": np.zeros((60, 768))}, "neither hard nor soft skills"),
        ({"vectors": np.eye(60, 100)}, "vectors of one size, got 768 and 100"),
        ({"vectors": np.eye(60, 61)}, r"\(n, 2 \* block_dim\)"),
        ({"keys": np.array([], str)}, "`jobs` is empty"),
        ({"keys": np.array(["a"] * 60, object)}, "must be an array of texts"),
        ({"seniority": np.full(60, 9, np.int8)}, "row 0 has seniority 9"),
        ({"title_ids": np.full(60, 10_000, np.int32)}, r"jobs.title_ids` must be in \[0, 681\)"),
    ],
)
def test_bad_tables_are_named(market, changes, message):
    with pytest.raises(MarketError, match=message):
        replaced(market, "jobs", **changes)


def test_word_vectors_are_checked(market):
    words = np.zeros((len(market.vocabulary.titles), 384))
    for vectors, message in (
        (words[:3], r"shape \(681, 384\), got \(3, 384\)"),
        (words * np.nan, "row 0 .* not finite"),
    ):
        with pytest.raises(MarketError, match=message):
            LabourMarket("x", market.applicants, market.jobs, market.vocabulary, title_vectors=vectors)


def test_the_callers_tables_stay_writable(market):
    vectors = market.jobs.vectors.copy()
    replaced(market, "jobs", vectors=vectors)
    vectors[0] = vectors[1]


def test_a_spec_is_the_callers_to_change(market):
    market.to_spec()["n_jobs"] = 3
    assert len(pickle.loads(pickle.dumps(market)).jobs) == 60


def test_splits_are_named(market):
    rows = [set(market.jobs.rows(split)) for split in ("train", "test", "all")]
    assert rows[0] | rows[1] == rows[2] and not rows[0] & rows[1]
    with pytest.raises(ValueError, match=r"'train', 'test', 'all'"):
        market.jobs.rows("trian")


def test_job_fields_append_unit_blocks(market):
    table = market.action_features(("title", "experience"))
    assert table.shape == (60, 768 + 2 * 384)
    assert (table[:, :768] == market.jobs.vectors).all()
    assert np.linalg.norm(table[:, 768:1152], axis=1) == pytest.approx(np.ones(60), abs=2e-3)
    assert market.action_features(("title", "experience")) is table
    with pytest.raises(ValueError, match="'title', 'experience'"):
        market.action_features(("salary",))
    with pytest.raises(ValueError, match="no title vectors"):
        replaced(market, "jobs").action_features(("title",))


def test_cosine_is_the_same_alone_and_in_a_batch(market):
    applicants, jobs = np.arange(40) % 40, np.arange(40)
    batch = market.cosine(applicants, jobs)
    alone = [market.cosine(applicants[i : i + 1], jobs[i : i + 1])[0] for i in range(40)]
    assert (batch == alone).all()
    assert batch == pytest.approx((market.applicants.vectors[applicants] * market.jobs.vectors[jobs]).sum(1), abs=1e-5)


# ----------------------------------------------------------------------------------------------------------------- keys


def with_keys(market, keys):
    """The market with other keys of its first jobs."""
    there = market.jobs.keys.astype("<U12")
    there[: len(keys)] = keys
    return replaced(market, "jobs", keys=there)


def test_an_integer_is_a_row_and_a_text_is_a_key(market):
    key = str(market.applicants.keys[3])
    assert market.applicant(3) == market.applicant(np.int32(3)) == market.applicant(key)
    assert market.applicant(key).id == market.applicant_id(key) == 3
    assert market.job(str(market.jobs.keys[7])).id == market.job_id(market.job(7)) == 7


def test_a_key_that_looks_like_a_number_is_a_key(market):
    numbered = with_keys(market, ["5", "0", "5.0"])
    assert [numbered.job(which).id for which in ("5", "0", "5.0", 5, 0)] == [0, 1, 2, 5, 0]
    with pytest.raises(ValueError, match="there is no job with the key '7'"):
        numbered.job("7")


def test_an_unknown_key_is_refused_with_a_near_miss(market):
    named = with_keys(market, ["nurse-berlin", "cook-hamburg"])
    with pytest.raises(ValueError, match="no job with the key 'nurse-berln'. Did you mean 'nurse-berlin'?"):
        named.job("nurse-berln")
    with pytest.raises(ValueError, match="no applicant with the key 'zzz'. Keys are texts such as 'A0000000'"):
        named.applicant("zzz")


@pytest.mark.parametrize("key", ["2128", "J0002128", "j-2128-b"])
def test_a_key_that_differs_only_in_a_number_is_not_suggested(market, key):
    numbered = with_keys(market, [key.replace("2128", other) for other in ("2129", "2182", "21280", "28")])
    with pytest.raises(ValueError, match=f"no job with the key '{key}'. Keys are texts such as"):
        numbered.job(key)


@pytest.mark.parametrize(("key", "near"), [("2128b", "2128"), ("K0002128", "J0002128"), ("j-8-b", "J-008-b")])
def test_a_key_with_another_letter_or_more_zeros_is_suggested(market, key, near):
    with pytest.raises(ValueError, match=f"no job with the key '{key}'. Did you mean '{near}'?"):
        with_keys(market, ["7128", near]).job(key)


def test_a_near_miss_among_many_keys_is_found_without_comparing_all(monkeypatch):
    keys = np.array([f"job-{number:06d}" for number in range(300)] + ["nurse-berlin"])
    monkeypatch.setattr(keys_module, "_COMPARED", 10)
    for misspelt in ("nurse-berlxn", "NURSE-BERLXN"):
        with pytest.raises(ValueError, match="Did you mean 'nurse-berlin'"):
            find_rows("job", keys, ["job-000007", misspelt])


def test_an_ambiguous_key_is_refused_with_both_rows(market, tmp_path, monkeypatch):
    market.save(tmp_path / "market")
    file = tmp_path / "market" / "tables" / "jobs-keys.npy"
    keys = np.load(file)
    keys[9] = keys[4]
    np.save(file, keys)
    monkeypatch.setattr(checks, "_CHECKED_BYTES", 0)  # nor are keys of a large market read without that
    opened = LabourMarket.load(tmp_path / "market", verify=False)
    with pytest.raises(ValueError, match=f"key '{keys[4]}' is that of 2 jobs, rows 4 and 9: say the row"):
        opened.job(str(keys[4]))
    assert opened.job(9).id == 9


def test_what_names_nobody_is_refused(market):
    for which in (40, -1):
        with pytest.raises(ValueError, match=rf"`applicant` must be a row in \[0, 40\), got {which}"):
            market.applicant(which)
    for which in (True, 2.0, None, ["A0000000"]):
        with pytest.raises(TypeError, match="`job` must be a row .an integer. or a key .a text."):
            market.job(which)
    with pytest.raises(ValueError, match="'x' is of another market: row 3"):
        market.applicant_id(dataclasses.replace(market.applicant(3), key="x"))
