import dataclasses
import json
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrec_gym.encoders import EncoderError, HashingEncoder
from jobrec_gym.loaders.assembly import BlockVectors, Record, assemble_market
from jobrec_gym.market import LabourMarket, MarketError, compose_vectors


def people(n=10, **changes):
    rows = [
        {
            "key": f"p{i}",
            "hard": (f"tool {i % 4}", "welding"),
            "soft": ("patience",),
            "where": f"people.csv, row {i + 1}",
        }
        for i in range(n)
    ]
    return [Record(**{**row, **changes}) for row in rows]


def postings(n=20, **changes):
    rows = [
        {
            "key": f"j{i}",
            "title": f"Job {i % 5}",
            "hard": (f"tool {i % 4}",),
            "soft": ("patience", "tact"),
            "seniority": i % 6,
            "experience": "3 to 5 years",
            "occupation": f"occupation {i % 7}",
            "family": f"family {i % 7 % 3}",
            "where": f"jobs.csv, row {i + 1}",
        }
        for i in range(n)
    ]
    return [Record(**{**row, **changes}) for row in rows]


def assemble(applicants=None, jobs=None, **kwargs):
    return assemble_market("test", applicants or people(), jobs or postings(), **{"encoder": "hashing", **kwargs})


def test_words_arrive_in_the_profiles():
    market = assemble(people(1, hard=(" welding ", "", "arc", "welding"), soft=()))
    assert market.applicant(0).hard_skills == ("arc", "welding")
    assert market.applicant(0).soft_skills == ()
    assert market.applicant(0).occupation is None
    assert market.applicant(0).family is None
    job = market.job(8)
    assert (job.key, job.title, job.seniority, job.experience) == ("j8", "Job 3", 2, "3 to 5 years")
    assert (job.occupation, job.family) == ("occupation 1", "family 1")


def test_descriptions_are_kept_row_by_row_and_no_vector_is_made_of_them():
    plain = assemble()
    texts = {"description": " We weld.\n\nNaïve? 溶接. "}
    described = assemble(jobs=[postings()[0], *(dataclasses.replace(job, **texts) for job in postings()[1:])])
    assert described.job(0).description == ""
    assert described.job(1).description == described.job(19).description == "We weld.\n\nNaïve? 溶接."
    assert described.applicants.descriptions is None
    np.testing.assert_array_equal(described.jobs.vectors, plain.jobs.vectors)
    assert described.fingerprint() != plain.fingerprint()
    assert described.jobs.take(np.array([3, 0])).descriptions[1] == ""


def test_a_market_without_descriptions_has_the_fingerprint_and_the_files_that_it_always_had(tmp_path):
    plain = assemble(postings(3), postings(3))
    assert plain.fingerprint() == assemble(postings(3, description=" "), postings(3)).fingerprint()
    saved = plain.save(tmp_path / "market")
    assert not list(saved.folder.rglob("*description*"))
    assert "described" not in json.loads((saved.folder / "market.json").read_text())


def test_descriptions_are_saved_and_loaded(tmp_path):
    market = assemble(people(3, description="I weld."), postings(4))
    saved = market.save(tmp_path / "market")
    assert saved.fingerprint() == market.fingerprint()
    assert [saved.applicant(row).description for row in range(3)] == ["I weld."] * 3
    assert saved.job(0).description == ""
    offsets = saved.folder / "tables" / "applicants-description_offsets.npy"
    np.save(offsets, np.array([0, 7, 6, 21]))
    with pytest.raises(MarketError, match="`applicants.description_offsets` must ascend from 0 to the 21 bytes"):
        LabourMarket.load(saved.folder)


def test_a_block_is_the_unit_mean_of_its_skills():
    market = assemble(people(1, hard=("welding", "arc"), soft=("patience",)))
    welding, arc, patience = HashingEncoder().encode(["welding", "arc", "patience"])
    hard = (welding + arc) / np.linalg.norm(welding + arc)
    expected = np.concatenate([hard, patience]) / np.sqrt(2)
    np.testing.assert_allclose(market.applicants.vectors[0], expected, atol=1e-6)


def test_one_empty_block_is_zero_and_the_row_still_has_unit_length():
    market = assemble(people(3, soft=()))
    assert not market.applicants.vectors[:, 384:].any()
    np.testing.assert_allclose(np.linalg.norm(market.applicants.vectors, axis=1), 1, atol=1e-6)


def test_spellings_of_one_skill_count_once():
    people = [Record("1", hard=["SQL", "sql", "R", " Sql ", "power  bi", "Power BI"]), Record("2", hard=["SQL", "R"])]
    market = assemble_market("m", people, [Record("j", hard=["SQL"])], encoder="hashing", cache_dir=False)
    assert market.applicant(0).hard_skills == ("R", "SQL", "power  bi")
    people[0] = Record("1", hard=["SQL", "sql", "R"])
    market = assemble_market("m", people, [Record("j", hard=["SQL"])], encoder="hashing", cache_dir=False)
    np.testing.assert_array_equal(*market.applicants.vectors)


def test_a_free_text_counts_as_one_skill():
    market = assemble(jobs=postings(hard="We look for a welder; tools are ours."))
    assert market.job(0).hard_skills == ("We look for a welder; tools are ours.",)
    assert market.text_blocks == {"hard"}
    text = HashingEncoder().encode(["We look for a welder; tools are ours."])[0]
    np.testing.assert_allclose(market.jobs.vectors[0, :384] * np.sqrt(2), text, atol=1e-6)
    assert assemble().text_blocks == frozenset()


def test_titles_and_experience_have_vectors_and_an_empty_text_is_zero():
    market = assemble()
    title = HashingEncoder().encode(["Job 3"])[0]
    np.testing.assert_allclose(market.action_features(("title",))[8, 768:], title, atol=1e-6)
    assert market.action_features(("experience",)).shape == (20, 3 * 384)
    assert not market.title_vectors[market.applicants.title_ids].any()


def test_a_market_without_titles_has_no_title_vectors():
    market = assemble(jobs=postings(title=""))
    assert market.title_vectors is None


def test_an_occupation_without_a_family_is_of_no_family():
    market = assemble(jobs=postings(family=None))
    assert market.job(0).occupation == "occupation 0"
    assert market.job(0).family is None
    assert (market.family_id(market.jobs, np.arange(20)) == -1).all()


def test_an_applicant_without_a_family_takes_that_of_the_occupation():
    market = assemble(people(occupation="occupation 2"))
    assert market.applicant(0).family == "family 2"


def test_a_spread_of_families_over_one_occupation_is_refused():
    jobs = postings()
    jobs[7] = Record(key="x", hard=("a",), occupation="occupation 0", family="other", where="jobs.csv, row 8")
    with pytest.raises(MarketError, match=r"'occupation 0' is of family 'family 0' .* 'other' in jobs\.csv, row 8"):
        assemble(jobs=jobs)


@pytest.mark.parametrize(("n", "held"), [(10, 3), (2, 1), (1, 0), (3, 1), (101, 30), (15, 5)])
def test_the_split_is_exact(n, held):
    market = assemble(people(n), postings(n))
    assert market.applicants.held_out.sum() == held
    assert market.jobs.held_out.sum() == held


@pytest.mark.parametrize(("fraction", "held"), [(0.0, 0), (0.001, 1), (0.5, 5), (0.999, 9)])
def test_the_share_held_out_is_a_choice(fraction, held):
    assert assemble(test_fraction=fraction).applicants.held_out.sum() == held


def test_the_seed_chooses_who_is_held_out():
    same, other = assemble(seed=0), assemble(seed=1)
    np.testing.assert_array_equal(same.jobs.held_out, assemble().jobs.held_out)
    assert (same.jobs.held_out != other.jobs.held_out).any()


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_changes_nothing(shuffler):
    jobs = postings()
    shuffler.shuffle(jobs)
    ordered, shuffled = assemble(), assemble(jobs=jobs)
    by_key = {str(key): row for row, key in enumerate(ordered.jobs.keys)}
    rows = [by_key[str(key)] for key in shuffled.jobs.keys]
    np.testing.assert_array_equal(shuffled.jobs.held_out, ordered.jobs.held_out[rows])
    np.testing.assert_array_equal(shuffled.jobs.vectors, ordered.jobs.vectors[rows])
    assert shuffled.vocabulary == ordered.vocabulary


def test_whole_occupations_are_held_out_on_both_sides():
    applicants = [Record(key=f"p{i}", hard=("a",), occupation=f"occupation {i % 7}") for i in range(30)]
    market = assemble(applicants, split_by="occupation")
    held = {
        side: {bool(out): set(population.occupation_ids[population.held_out == out]) for out in (False, True)}
        for side, population in (("applicants", market.applicants), ("jobs", market.jobs))
    }
    assert held["applicants"] == held["jobs"]
    assert not held["jobs"][True] & held["jobs"][False]
    assert len(held["jobs"][True]) == 2, "30 % of 7"


def test_a_split_by_occupation_names_rows_without_one():
    with pytest.raises(MarketError, match=r"10 of 10 applicants lack it: people\.csv, row 1, people\.csv, row 2"):
        assemble(split_by="occupation")


def test_a_split_by_occupation_needs_two():
    with pytest.raises(MarketError, match="at least two occupations, got"):
        assemble(people(occupation="a"), postings(occupation="a", family=None), split_by="occupation")


# ---- bad input


def test_a_row_without_skills_is_named():
    jobs = postings()
    jobs[4] = Record(key="j4", hard=(" ",), soft="", where="jobs.csv, row 5")
    with pytest.raises(MarketError, match=r"jobs\.csv, row 5 \(key 'j4'\) has neither hard nor soft skills"):
        assemble(jobs=jobs)


def test_repeated_keys_name_both_rows():
    jobs = postings()
    jobs[9] = Record(key="j2", hard=("a",), where="jobs.csv, row 10")
    with pytest.raises(
        MarketError, match=r"key 'j2' of jobs appears twice: in jobs\.csv, row 3 and in jobs\.csv, row 10"
    ):
        assemble(jobs=jobs)


LONG = "x" * 10_000


@pytest.mark.parametrize(
    "changes",
    [
        {"hard": (), "soft": ()},
        {"seniority": 7},
        {"seniority": LONG},
        {"split": LONG},
        {"key": LONG + "\0"},
        {"where": ""},  # its key is that of others, too
        {"occupation": LONG, "family": LONG[:-1]},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_long_text_in_a_file_makes_no_long_message(changes):
    like = {"key": LONG, "occupation": LONG, "family": LONG}
    jobs = [*postings(), Record(**{"hard": ("a",), "where": "jobs.csv, row 21", **like})]
    jobs += [Record(**{"hard": ("a",), "where": "jobs.csv, row 22", **like, "key": "k", **changes})]
    jobs += [] if "where" not in changes else [jobs[-2]]
    with pytest.raises(MarketError) as refused:
        assemble(jobs=jobs)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("side", ["applicants", "jobs"])
def test_an_empty_side_is_refused(side):
    sides = {"applicants": people(), "jobs": postings(), side: []}
    with pytest.raises(MarketError, match=f"test: there are no {side}"):
        assemble_market("test", sides["applicants"], sides["jobs"], encoder="hashing")


@pytest.mark.parametrize("key", ["", "a\0"])
def test_a_key_that_cannot_be_kept_is_refused(key):
    with pytest.raises(MarketError, match=r"people\.csv, row 1 has (an empty )?key"):
        assemble(people(1, key=key))


@pytest.mark.parametrize("seniority", [6, -1, 2.5, True])
def test_seniority_is_one_to_five_or_unknown(seniority):
    with pytest.raises(MarketError, match=r"people\.csv, row 1 .* has seniority .* 1 \(entry\) to 5 \(lead\)"):
        assemble(people(1, seniority=seniority))


@pytest.mark.parametrize(("argument", "value"), [("test_fraction", 1.0), ("test_fraction", -0.1), ("split_by", "rows")])
def test_split_arguments_are_checked(argument, value):
    with pytest.raises(MarketError, match=f"`{argument}` must be .* got"):
        assemble(**{argument: value})


def test_an_encoder_of_nan_is_refused():
    class Broken(HashingEncoder):
        def encode(self, texts):
            return super().encode(texts) * np.nan

    with pytest.raises(EncoderError, match="'hashing-384' must answer with unit vectors, got length nan"):
        assemble(encoder=Broken())


# ---- vectors that the source brings along


def blocks(n, dim=4, seed=0):
    generator = np.random.default_rng(seed)
    return BlockVectors(generator.normal(size=(n, dim)), generator.normal(size=(n, dim)))


def test_given_vectors_become_unit_blocks_and_nothing_is_encoded():
    class Never(HashingEncoder):
        def encode(self, texts):
            raise AssertionError("nothing to encode")

    given_blocks = blocks(20)
    market = assemble(encoder=Never(), applicant_vectors=blocks(10), job_vectors=given_blocks)
    assert market.block_dim == 4
    hard = given_blocks.hard[3] / np.linalg.norm(given_blocks.hard[3])
    np.testing.assert_allclose(market.jobs.vectors[3, :4], hard / np.sqrt(2), atol=1e-6)
    assert market.title_vectors is None


def test_vectors_are_joined_and_checked_in_pieces_which_change_no_bit():
    generator, rows = np.random.default_rng(0), postings(2_500)
    hard, soft = generator.normal(size=(2, 2_500, 512)).astype(np.float32)
    hard[5] = 0
    assemble(applicant_vectors=blocks(10, 512), job_vectors=blocks(20, 512))  # loads what is loaded once
    tracemalloc.start()
    market = assemble(jobs=rows, applicant_vectors=blocks(10, 512), job_vectors=BlockVectors(hard, soft))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * market.jobs.vectors.nbytes
    norms = np.linalg.norm(hard, axis=1, keepdims=True)
    norms[5] = 1
    whole = compose_vectors(hard / norms, soft / np.linalg.norm(soft, axis=1, keepdims=True))
    np.testing.assert_array_equal(market.jobs.vectors, whole)


def test_one_side_may_be_given_and_the_other_encoded():
    market = assemble(encoder=HashingEncoder(4), job_vectors=blocks(20))
    expected = HashingEncoder(4).encode(["patience"])[0]
    np.testing.assert_allclose(market.applicants.vectors[0, 4:] * np.sqrt(2), expected, atol=1e-6)


def test_a_row_with_vectors_needs_no_words():
    market = assemble(people(hard=(), soft=()), applicant_vectors=blocks(10), job_vectors=blocks(20))
    assert market.applicant(0).hard_skills == ()


def test_given_vectors_that_are_not_finite_name_the_row():
    bad = blocks(10)
    bad.soft[6, 1] = np.nan
    with pytest.raises(MarketError, match=r"people\.csv, row 7 \(key 'p6'\) has a soft vector that is not finite"):
        assemble(applicant_vectors=bad, job_vectors=blocks(20))


def test_given_vectors_that_are_zero_name_the_row():
    bad = blocks(10)
    bad.soft[6] = bad.hard[6] = 0
    with pytest.raises(MarketError, match=r"people\.csv, row 7 .* neither a hard nor a soft vector"):
        assemble(applicant_vectors=bad, job_vectors=blocks(20))


def test_given_vectors_have_one_row_a_record():
    with pytest.raises(MarketError, match=r"`hard` vectors of applicants must be \(10, block_dim\), got \(9, 4\)"):
        assemble(applicant_vectors=blocks(9), job_vectors=blocks(20))


def test_given_vectors_of_two_sizes_are_refused():
    with pytest.raises(MarketError, match="vectors of one size, got 8 and 10"):
        assemble(applicant_vectors=blocks(10), job_vectors=blocks(20, dim=5))


# ---- anything goes in, a market or a named error comes out

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
records = st.builds(
    Record,
    key=words,
    title=words,
    hard=st.one_of(st.lists(words, max_size=4), words),
    soft=st.one_of(st.lists(words, max_size=4), words),
    seniority=st.integers(0, 5),
    experience=words,
    occupation=st.none() | words,
)


class PositiveEncoder(HashingEncoder):
    """Has no vectors that cancel, as those of two single letters may: they would be an empty block."""

    def encode(self, texts):
        return np.abs(super().encode(texts))


@given(st.lists(records, max_size=6, unique_by=lambda record: record.key), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_any_records_make_a_whole_market_or_a_named_error(rows, seed):
    def is_empty(skills):
        return not any(skill.strip() for skill in ([skills] if isinstance(skills, str) else skills))

    good = [row for row in rows if row.key and not (is_empty(row.hard) and is_empty(row.soft))]
    if good != rows or not rows:
        with pytest.raises(MarketError):
            assemble_market("any", people(), rows, encoder=PositiveEncoder(32), seed=seed)
    if good:
        market = assemble_market("any", people(), good, encoder=PositiveEncoder(32), seed=seed)
        assert isinstance(market, LabourMarket)
        assert [market.job(i).key for i in range(len(good))] == [row.key for row in good]
        assert {market.job(i).title for i in range(len(good))} == {row.title.strip() for row in good}
        assert len(good) < 2 or 0 < market.jobs.held_out.sum() < len(good)


def test_no_global_random_state_is_used():
    random.seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002 - that it is left alone is the point
    assemble()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


@pytest.mark.parametrize("value", ["0.3", None, True, float("nan"), 1])
def test_test_fraction_is_a_number_below_one(value):
    with pytest.raises(MarketError, match=rf"`test_fraction` must be a number in \[0, 1\), got {value!r}"):
        assemble(test_fraction=value)


@pytest.mark.parametrize("value", ["1", None, True, 1.5])
def test_seed_is_a_whole_number(value):
    with pytest.raises(MarketError, match=f"`seed` must be a whole number, got {value!r}"):
        assemble(seed=value)


def test_a_seed_of_numpy_is_the_same_seed():
    assert (assemble(seed=np.int64(3)).jobs.held_out == assemble(seed=3).jobs.held_out).all()


@pytest.mark.parametrize("field", ["key", "title", "hard", "soft", "experience", "occupation", "family"])
def test_half_a_character_is_refused_where_it_stands(field):
    text = "a\ud800"
    rows = people(1, **{field: (text,) if field in ("hard", "soft") else text})
    with pytest.raises(MarketError, match=rf"people\.csv, row 1, '{field}': holds half a character.*'a\\ud800'"):
        assemble(rows)


def test_a_record_says_train_or_test_or_nothing():
    with pytest.raises(MarketError, match=r"has split 'dev'; it must be one of \('train', 'test'\)"):
        assemble(people(2, split="dev"))


def test_a_split_that_only_some_rows_have_is_refused():
    some = [*people(1, split="test"), *people(2)[1:]]
    with pytest.raises(MarketError, match=r"people\.csv, row 2 has no split, and other applicants have one"):
        assemble(some)
