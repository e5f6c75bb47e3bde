"""What a market knows beside skills: kept, compared, shown and rewarded."""

import json
import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym.loaders.generated import load_default
from jobrec_gym.market import ContextTable, LabourMarket, MarketError, SkillLists, load_market
from jobrec_gym.market.context import RESERVED_NAMES
from jobrec_gym.pair_features import PAIR_FEATURES, PairValues, context_fit
from jobrec_gym.rendering import context_in_words, headline
from jobrec_gym.simulators import rules
from jobrec_gym.simulators.prompts import PROTECTED, applicant_document, encode_document, job_document
from jobrec_gym.simulators.rules import DEFAULT_WEIGHTS, RuleSimulator
from jobrec_gym.vector import JobRecVectorEnv
from jobrec_gym.wrappers import FeedbackReward, VectorFeedbackReward

APPLICANTS = {
    "place": ("category", ["berlin", None, "Paris"]),
    "salary": ("number", [50.0, 70.0, None]),
    "remote": ("flag", [True, False, None]),
    "languages": ("set", [("en", "de"), ("fr",), None]),
    "years": ("at_least", [5.0, 2.0, None]),
    "wish": ("at_most", [50.0, 60.0, 70.0]),
}
JOBS = {
    "place": ["Berlin ", "Paris", None],
    "salary": [50.0, 60.0, 70.0],
    "remote": [True, None, False],
    "languages": [("EN", "fr"), (), ("fr", "de", "en")],
    "years": [5.0, 3.0, None],
    "wish": [50.0, None, 65.0],
}
N = 3


def with_context(market, context, n_applicants=N, n_jobs=N):
    """The first rows of a market, with this context."""
    rows = np.arange(n_applicants), np.arange(n_jobs)
    return LabourMarket(
        "small", market.applicants.take(rows[0]), market.jobs.take(rows[1]), market.vocabulary, context=context
    )


@pytest.fixture(scope="module")
def small(market):
    return with_context(
        market, {name: ContextTable.of(kind, values, JOBS[name]) for name, (kind, values) in APPLICANTS.items()}
    )


@pytest.fixture(scope="module")
def shown():
    """The small market of other tests, whose context is shown."""
    return load_market("default", n_jobs=60, n_applicants=40, context="all")


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("place", [[1, 0, 0.5], [0.5, 0.5, 0.5], [0, 1, 0.5]]),
        ("salary", [*np.exp(-np.array([[0, 10, 20], [20, 10, 0]]) / np.std([50, 60, 70])).tolist(), [0.5] * 3]),
        ("remote", [[1, 0.5, 0], [0, 0.5, 1], [0.5, 0.5, 0.5]]),
        ("languages", [[0.5, 0.5, 2 / 3], [0.5, 0.5, 1 / 3], [0.5, 0.5, 0.5]]),
        ("years", [[1, 1, 0.5], [0, 0, 0.5], [0.5, 0.5, 0.5]]),
        ("wish", [[1, 0.5, 1], [0, 0.5, 1], [0, 0.5, 0]]),
    ],
)
def test_each_kind_is_compared_in_its_own_way(small, name, fit):
    applicants, jobs = (ids.ravel() for ids in np.indices((N, N)))

    assert context_fit(small, name, applicants, jobs).reshape(N, N).tolist() == fit
    np.testing.assert_allclose(PairValues(small, [name])(applicants, jobs)[:, 0].reshape(N, N), fit, rtol=1e-7)


def test_numbers_that_are_equal_for_all_jobs_fit_or_do_not(market):
    equal = with_context(market, {"salary": ContextTable.of("number", [50, 51, None], [50, 50, None])})

    assert context_fit(equal, "salary", np.arange(3), np.zeros(3, int)).tolist() == [1, 0, 0.5]


def test_a_pair_fits_the_same_to_the_bit_in_whatever_batch(shown):
    names = ("place", "pay")
    whole = PairValues(shown, names)(np.arange(40)[:, None], np.arange(60))

    for applicant, job in ((0, 0), (7, 59), (39, 31)):
        np.testing.assert_array_equal(
            PairValues(shown, names)(np.array([applicant]), np.array([job]))[0], whole[applicant, job]
        )


def test_a_value_is_told_as_it_was_given(small):
    assert small.applicant(0).context == {
        "place": "Berlin",  # the first of the spellings, in their order
        "salary": 50.0,
        "remote": True,
        "languages": ("EN", "de"),
        "years": 5.0,
        "wish": 50.0,
    }
    assert small.job(1).context == {"place": "Paris", "salary": 60.0, "years": 3.0}
    assert small.context["place"].value("applicants", 1) is None


def test_a_saved_market_keeps_its_context_memory_mapped(small, tmp_path):
    saved = small.save(tmp_path / "market")

    assert saved.fingerprint() == small.fingerprint()
    assert [saved.applicant(row) for row in range(N)] == [small.applicant(row) for row in range(N)]
    assert [saved.job(row) for row in range(N)] == [small.job(row) for row in range(N)]
    for name, table in saved.context.items():
        assert (table.kind, table.words, table.shown) == (small.context[name].kind, small.context[name].words, True)
        base = table.jobs.ids if isinstance(table.jobs, SkillLists) else table.jobs
        while base.base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap) or not base.size
    assert pickle.loads(pickle.dumps(small)).fingerprint() == small.fingerprint()


def test_a_market_that_was_saved_without_context_still_loads(market, tmp_path):
    saved = market.save(tmp_path / "market")
    header = json.loads((tmp_path / "market" / "market.json").read_text())
    for name in ("context", "files", "sha256"):  # which came later
        del header[name]
    (tmp_path / "market" / "market.json").write_text(json.dumps(header))
    for file in (tmp_path / "market" / "tables").glob("context-*"):
        file.unlink()
    earlier = LabourMarket.load(tmp_path / "market")

    assert not earlier.context and saved.context
    assert earlier.fingerprint() == market.fingerprint()


def test_the_context_of_a_market_is_frozen(shown):
    with pytest.raises(TypeError):
        shown.context["place"] = None
    with pytest.raises(ValueError, match="read-only"):
        shown.context["pay"].jobs[0] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"jobs": np.zeros(2, np.int32)},
            r"`context\['place'\].jobs` must have one entry for each of the 60 jobs, got 2",
        ),
        ({"jobs": np.full(60, 6, np.int32)}, r"`context\['place'\].jobs` must be integers in \[-1, 6\)"),
        ({"applicants": np.zeros(40)}, r"`context\['place'\].applicants` must be integers"),
        ({"kind": "set"}, r"`context\['place'\].applicants` must be lists"),
        ({"kind": "number"}, "must be finite floats, NaN where unknown, got int32"),
        ({"kind": "town"}, r"`context\['place'\]` must be one of the kinds \('category', .*got 'town'"),
    ],
)
def test_a_table_that_is_not_whole_is_refused(market, change, message):
    with pytest.raises(MarketError, match=message):
        with_context(market, {"place": replace(market.context["place"], **change)}, 40, 60)


@pytest.mark.parametrize("name", ["seniority", "taste", "title", "all", "", 3])
def test_a_name_that_is_taken_is_refused(market, name):
    with pytest.raises(MarketError, match=r"`context` must (not name a field|name its fields by texts)"):
        with_context(market, {name: market.context["place"]}, 40, 60)


def test_what_is_reserved_is_what_is_there():
    assert {*PAIR_FEATURES, *DEFAULT_WEIGHTS} <= RESERVED_NAMES


# ------------------------------------------------------------------------------------------------- the generated market


def test_what_is_not_shown_is_outside_of_all_but_what_asks_for_it_by_name(market, shown):
    bare = LabourMarket(
        "default",
        market.applicants,
        market.jobs,
        market.vocabulary,
        title_vectors=market.title_vectors,
        experience_vectors=market.experience_vectors,
    )

    assert market.fingerprint() == bare.fingerprint() != shown.fingerprint()
    assert PairValues(market, "all").names == PairValues(bare, "all").names == tuple(PAIR_FEATURES)
    assert PairValues(shown, "all").names == (*PAIR_FEATURES, "place", "pay")
    assert PairValues(market, ["place"]).names == ("place",)
    assert market.job(3) == bare.job(3) and market.job(3).context == {}
    assert set(shown.job(3).context) == {"place", "pay"}


def test_places_and_pay_are_drawn_row_by_row_and_pay_goes_with_the_level(market):
    larger = load_market("default", n_jobs=2000, n_applicants=1000)
    other = load_market("default", n_jobs=60, n_applicants=40, seed=1)
    for name in ("place", "pay"):
        assert (larger.context[name].jobs[:60] == market.context[name].jobs).all()
        assert (other.context[name].jobs != market.context[name].jobs).any()
        assert (larger.context[name].applicants[:40] == market.context[name].applicants).all()
    shares = np.bincount(larger.context["place"].jobs) / 2000
    assert np.abs(shares - [0.3, 0.2, 0.15, 0.15, 0.1, 0.1]).max() < 0.03
    pay, level = larger.context["pay"].jobs, larger.jobs.seniority
    assert (np.diff([pay[level == number].mean() for number in range(1, 6)]) > 5).all()
    same = (larger.context["place"].jobs == larger.context["place"].jobs[:, None]).mean()
    assert abs(same - np.square(shares).sum()) < 1e-9


def test_a_default_market_in_a_folder_has_the_same_context(shown, tmp_path):
    kept = load_default(60, 40, folder=tmp_path / "market", context=["pay", "place"])

    assert kept.fingerprint() == shown.fingerprint()
    assert load_default(60, 40, folder=tmp_path / "market", context="all").fingerprint() == shown.fingerprint()
    with pytest.raises(MarketError, match="holds another market than is asked for"):
        load_default(60, 40, folder=tmp_path / "market")
    with pytest.raises(MarketError, match=r"`context` must list names of \('place', 'pay'\), .*got \['town'\]"):
        load_default(60, 40, context=["town"])


def test_the_recorded_market_has_the_rows_of_the_default_one():
    default, recorded = load_market("default"), load_market("recorded")
    rows = [default.applicant_id(str(key)) for key in recorded.applicants.keys]

    assert (recorded.context["place"].applicants == default.context["place"].applicants[rows]).all()
    assert recorded.applicant(0).context == {}


# ------------------------------------------------------------------------------------------------------ environments


def test_single_and_vector_show_and_reward_context_to_the_bit(shown):
    kwargs = {"market": shown, "num_candidates": 5, "pair_features": "all", "resample": "step"}
    simulator = RuleSimulator(seed=2, noise=0.3, weights={"place": 1.0, "pay": 0.5})
    native = VectorFeedbackReward(JobRecVectorEnv(3, 4, autoreset_mode="SameStep", **kwargs), simulator)
    loop = gym.vector.SyncVectorEnv(
        [lambda: FeedbackReward(gym.make("JobRec-v0", max_episode_steps=4, **kwargs), simulator)] * 3,
        autoreset_mode="SameStep",
    )
    (obs, _), (other, _) = native.reset(seed=3), loop.reset(seed=3)
    assert obs["pairs"].shape == (3, 5, 5)
    for step in range(9):
        np.testing.assert_array_equal(obs["pairs"], other["pairs"], strict=True)
        actions = np.full(3, step % 5)
        (obs, reward, *_), (other, other_reward, *_) = native.step(actions), loop.step(actions)
        np.testing.assert_array_equal(reward, other_reward)


def test_a_weight_of_place_adds_how_well_it_fits(market):
    ids = tuple(ids.ravel() for ids in np.indices((40, 60)))
    plain, placed = (RuleSimulator(seed=1, weights=weights).bind(market) for weights in (None, {"place": 0.7}))
    mean, spread = placed._scale["place"]
    fit = context_fit(market, "place", *ids)

    assert list(placed.terms(*ids)) == [*DEFAULT_WEIGHTS, "place"]
    added = placed.utility(*ids) - plain.utility(*ids)
    np.testing.assert_allclose(added, 0.7 * (fit - mean) / spread, atol=1e-12)
    assert list(RuleSimulator(weights={"place": 0.0}).bind(market).terms(*ids)) == list(DEFAULT_WEIGHTS)


def test_kept_rows_have_the_context(market, monkeypatch):
    rules._bind.cache_clear()
    ids = tuple(ids.ravel() for ids in np.indices((40, 60)))
    bound = RuleSimulator(weights={"place": 1.0}).bind(market)
    terms = bound.terms(*ids)
    for _ in range(30):  # rows are kept part by part
        bound.utility(*ids)
    monkeypatch.setattr(bound._kept, "_compute", lambda *_: pytest.fail("a kept pair was computed"))

    total = np.zeros(len(ids[0]))
    for term in terms.values():
        total += term
    assert (bound.utility(*ids) == total).all()


def test_specs_know_the_context():
    spec = json.loads(json.dumps(RuleSimulator(weights={"place": 1.0}).to_spec()))
    assert RuleSimulator.from_spec(spec).weights == {**DEFAULT_WEIGHTS, "place": 1.0}
    env = gym.make("JobRec-v0", market={"source": "default", "context": ["place"]}, pair_features=["place"])
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.market.fingerprint() == env.unwrapped.market.fingerprint()


# ------------------------------------------------------------------------------------------------- pictures, documents


def test_texts_show_the_context(small, shown):
    assert context_in_words(small.applicant(0)) == (
        "place: Berlin, salary: 50, remote: yes, languages: EN / de, years: 5, wish: 50"
    )
    assert headline(shown.job(3)).endswith(context_in_words(shown.job(3)))
    env = gym.make("JobRec-v0", market=shown, num_candidates=5, render_mode="ansi")
    env.reset(seed=0)
    env.step(1)
    # The applicant, the recommended job and five candidates.
    assert env.render().count("place: ") == 7


def test_pictures_show_the_context(market, shown):
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    pictures = []
    for labour_market in (market, shown):
        env = gym.make("JobRec-v0", market=labour_market, num_candidates=5, render_mode="rgb_array")
        env.reset(seed=0)
        pictures.append(env.render())
    changed = (pictures[0] != pictures[1]).any(axis=-1)
    assert changed[:, :386].any() and not changed[:, 386:].any()


def test_language_models_see_the_context_that_is_shown_and_nothing_protected(market, small, shown):
    assert json.loads(encode_document(job_document(small.job(0))))["languages"] == ["EN", "fr"]
    assert job_document(small.job(0)) | {"salary": 50, "remote": True} == job_document(small.job(0))
    assert applicant_document(small.applicant(1))["remote"] is False
    assert "place" in job_document(shown.job(0)) and "place" not in job_document(market.job(0))
    secret = {name: ContextTable.of("category", ["x"] * N, ["x"] * N) for name in (*PROTECTED, "Age")}
    document = applicant_document(with_context(market, secret).applicant(0))
    assert not {name.casefold() for name in document} & {*PROTECTED}
