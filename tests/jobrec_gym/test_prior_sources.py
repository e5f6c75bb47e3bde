"""What others say of pairs, as columns of an observation: looked up, or asked of what is shown and nothing else."""

import copy
import dataclasses
import json
import pickle
import tracemalloc
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from noting import Noting

from jobrec_gym import (
    JobRecEnv,
    JobRecVectorEnv,
    LLMSimulator,
    RecordedSimulator,
    RuleSimulator,
    load_market,
)
from jobrec_gym.counter_rng import uniform
from jobrec_gym.prior_sources import SourcedPairValues
from jobrec_gym.recommendations import recommend
from jobrec_gym.simulators.base import Feedback
from jobrec_gym.wrappers import EmbeddingAction

ALL = np.arange(40)[:, None], np.arange(60)
SIDES = ("applicants", "jobs")


@pytest.fixture(scope="module")
def table(market):
    values = np.random.default_rng(0).normal(size=(len(market.applicants), len(market.jobs)))
    values[3, 5] = np.nan
    return values


class Live(Noting):
    """A simulator that says nothing about odd jobs."""

    def answers(self, job_ids):
        is_odd = job_ids % 2 == 1
        status, probability = np.where(is_odd, "cosine:budget", "ok"), np.where(is_odd, np.nan, 0.9)
        return Feedback.of(["ignore"] * len(job_ids), np.zeros(len(job_ids)), status=status, probability=probability)


def function(applicant_ids, job_ids):
    return (applicant_ids + job_ids) / 200


def test_sources_stand_behind_the_features_in_the_order_in_which_they_are_named(market, table):
    sources = {"said": table, "f": function, "cosine": "cosine"}
    env = JobRecEnv(market, pair_features=("seniority",), prior_sources=sources, split="all")
    obs, info = env.reset(seed=0)
    person, jobs = info["applicant_id"], info["candidate_ids"]

    assert env.pair_feature_names == ("seniority", "said", "f", "cosine")
    assert obs["pairs"].shape == (20, 4)
    np.testing.assert_allclose(obs["pairs"][:, 2], (person + jobs) / 200, rtol=1e-6)
    np.testing.assert_allclose(obs["pairs"][:, 3], (1 + market.cosine(np.repeat(person, 20), jobs)) / 2, rtol=1e-6)
    assert env.prior_sources["cosine"] == "cosine" and "function" in env.prior_sources["f"]
    assert env.observation_sample["pairs"].shape[2] == 4


def test_a_table_is_brought_to_the_unit_interval_and_says_its_middle_where_it_says_nothing(market, table):
    said = SourcedPairValues(market, (), 0.0, {"said": table})(*ALL)[..., 0]
    known = ~np.isnan(table)

    assert said.min() == 0 and said.max() == 1
    np.testing.assert_allclose(np.corrcoef(said[known], table[known])[0, 1], 1, atol=1e-6)
    assert said[3, 5] == pytest.approx(said[known].mean(), abs=1e-6)


def test_less_the_mean_of_the_job_all_jobs_are_liked_alike(market, table):
    liked = table + 5 * np.arange(len(market.jobs))
    plain, less = (
        SourcedPairValues(market, (), 0.0, {"said": source})(*ALL)[..., 0]
        for source in (liked, {"values": liked, "less_job_mean": True})
    )
    assert plain.mean(axis=0).std() > 0.2
    assert np.delete(less, 3, axis=0).mean(axis=0).std() < 0.02

    means = np.linspace(0, 0.5, len(market.jobs))
    asked = SourcedPairValues(market, (), 0.0, {"f": {"values": function, "less_job_mean": means}})(*ALL)[..., 0]
    np.testing.assert_allclose(asked, 0.5 + (function(*ALL) - means) / 2, atol=1e-6)


def test_a_live_model_is_asked_of_what_is_shown_and_of_nothing_else(market):
    live = Live()
    env = gym.make("JobRec-v0", market=market, prior_sources={"model": live}, num_candidates=6)
    sample = env.unwrapped.observation_sample
    assert (sample["pairs"].shape, sample["applicant"].shape) == ((0, 6, 1), (0, 768)) and not live.asked

    obs, info = env.reset(seed=0)
    shown = [(info["applicant_id"], job) for job in info["candidate_ids"].tolist()]
    assert live.asked == shown
    env.step(0)
    assert live.asked == shown, "the same jobs are shown in the whole episode"
    # Where the budget is reached it says what it says on average: here 0.9, and one half before anything was said.
    is_odd = info["candidate_ids"] % 2 == 1
    assert obs["pairs"][~is_odd, 0] == pytest.approx(0.9)
    assert obs["pairs"][is_odd, 0] == pytest.approx(0.5)
    again, _ = env.reset()
    n_told = int((~is_odd).sum())
    middle = (0.5 + 0.9 * n_told) / (1 + n_told)
    assert sorted(set(again["pairs"].ravel().tolist())) == pytest.approx([middle, 0.9])


class Silent(Live):
    """A live model that answers about even jobs only: 0.9 if the applicant's id is even, else 0.7."""

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        said = super().feedback(applicant_ids, job_ids)
        return dataclasses.replace(said, probability=said.probability - (applicant_ids % 2) / 5)


def test_a_pair_without_an_answer_says_nothing_about_its_job_also_less_the_mean(market):
    means = np.linspace(0, 1, len(market.jobs))
    ask = SourcedPairValues(market, (), 0.0, {"model": {"values": Silent(), "less_job_mean": means}})
    jobs, even = np.array([1, 21, 41, 59]), np.array([0, 20])
    assert set(ask(np.zeros(4, int), jobs).ravel().tolist()) == {0.5}
    told = ask(np.zeros(2, int), even).ravel()
    np.testing.assert_allclose(told, 0.5 + (0.9 - means[even]) / 2, rtol=1e-6)
    np.testing.assert_allclose(ask(np.zeros(4, int), jobs).ravel(), (0.5 + told.sum()) / 3, rtol=1e-6)


class Noisy(Live):
    """A live model whose probabilities are noise."""

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        said = super().feedback(applicant_ids, 2 * job_ids)
        return dataclasses.replace(said, probability=uniform(interaction_keys))


def test_the_noise_of_a_live_model_is_that_of_the_pair(market):
    ask = SourcedPairValues(market, (), 0.0, {"model": Noisy()})
    values = ask(*ALL)[..., 0]
    assert len(np.unique(values)) > 0.99 * values.size
    np.testing.assert_array_equal(ask(*ALL)[..., 0], values)


def test_a_copy_shares_the_table_of_a_source(market, table):
    values = SourcedPairValues(market, (), 0.0, {"said": table})
    before, again = (len(pickle.dumps(each)) for each in (values, copy.deepcopy(values)))
    assert before == again
    tracemalloc.start()
    copy.deepcopy(values)
    assert tracemalloc.get_traced_memory()[1] < table.nbytes
    tracemalloc.stop()


class Erratic(Live):
    """A live model that answers by the pair, and about some jobs not at all."""

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        said = super().feedback(applicant_ids, job_ids)
        return dataclasses.replace(said, probability=said.probability - (applicant_ids + job_ids) % 7 / 10)


@pytest.mark.parametrize("less", [False, True], ids=["plain", "less_job_mean"])
@pytest.mark.parametrize("resample", ["episode", "step"])
@pytest.mark.parametrize(
    ("make", "action", "some"),
    [
        (JobRecEnv, 1, None),
        # Rows that begin at different times have seen different means.
        (partial(JobRecVectorEnv, 3), np.array([1, 0, 1]), {"reset_mask": np.array([True, False, True])}),
    ],
    ids=["single", "vector"],
)
def test_a_run_with_a_live_model_continues_from_its_state(market, make, action, some, resample, less):
    means = np.linspace(0, 0.5, len(market.jobs))

    made = []

    def new():
        made.append(Erratic())
        source = {"values": made[-1], "less_job_mean": means} if less else made[-1]
        return make(market=market, num_candidates=5, resample=resample, prior_sources={"model": source})

    env, other = new(), new()
    env.reset(seed=0)
    for _ in range(3):
        env.step(action)
        env.reset(options=some)
    state = env.get_state() if some else json.loads(json.dumps(env.get_state()))
    other.reset(seed=1)
    n_asked = len(made[1].asked)
    other.set_state(state)

    assert len(made[1].asked) == n_asked > 0, "the state knows what was answered, and questions cost money"
    assert same(env.get_state(), other.get_state())
    for _ in range(4):
        for here, there in (
            (env.step(action), other.step(action)),
            (env.reset(options=some), other.reset(options=some)),
        ):
            np.testing.assert_array_equal(here[0]["pairs"], there[0]["pairs"])


def same(one, other):
    """Whether two states of environments are equal; arrays are compared entry by entry."""
    return json.dumps(one, default=np.ndarray.tolist) == json.dumps(other, default=np.ndarray.tolist)


@pytest.mark.parametrize("make", [JobRecEnv, partial(JobRecVectorEnv, 2)], ids=["single", "vector"])
@pytest.mark.parametrize(
    ("sources", "here"),
    [({"other": Live()}, r"\['other'\]"), ({"model": "cosine"}, r"\[\]"), (None, r"\[\]")],
    ids=["other", "looked up", "none"],
)
def test_the_state_of_other_live_models_is_refused_and_changes_nothing(market, make, sources, here):
    env, other = (make(market=market, prior_sources=given) for given in ({"model": Live()}, sources))
    env.reset(seed=0)
    other.reset(seed=5)
    before = other.get_state()
    with pytest.raises(ValueError, match=rf"of the live prior sources \['model'\], and those here are {here}: give"):
        other.set_state(env.get_state())
    assert same(other.get_state(), before)


def test_a_state_without_live_models_is_taken_by_an_environment_with_one(market):
    env, bare = JobRecEnv(market, prior_sources={"model": Live()}), JobRecEnv(market, prior_sources={"model": "cosine"})
    bare.reset(seed=0)
    state = bare.get_state()
    assert not any("live" in name for name in state)
    env.set_state(state)  # a checkpoint of an earlier version is such a state
    assert set(np.round(env.step(0)[0]["pairs"].ravel(), 6).tolist()) <= {0.5, np.float32(0.9)}


def test_a_planted_truth_says_how_probable_an_application_is(market):
    rules = RuleSimulator(seed=0, noise=0.5)
    truth = rules.bind(market)
    expected = truth.probabilities(*ALL)[..., 3]

    said = SourcedPairValues(market, (), 0.0, {"said": rules})(*ALL)[..., 0]
    np.testing.assert_allclose(said, expected, atol=1e-6)

    less = SourcedPairValues(market, (), 0.0, {"said": {"values": rules, "less_job_mean": True}})(*ALL)[..., 0]
    np.testing.assert_allclose(np.ptp(less.mean(axis=0)), 0, atol=1e-6)
    assert np.corrcoef(less[:, 7], expected[:, 7])[0, 1] > 0.999


def test_vector_environments_show_what_single_ones_show(market, table):
    options = {"market": market, "prior_sources": {"said": table}, "num_candidates": 5, "observation": "ids"}
    envs = JobRecVectorEnv(3, **options)
    obs, _ = envs.reset(seed=7)
    for row in range(3):
        single, _ = JobRecEnv(**options).reset(seed=7 + row)
        np.testing.assert_array_equal(obs["pairs"][row], single["pairs"])
    assert envs.prior_sources == JobRecEnv(**options).prior_sources


def test_an_environment_with_a_recording_is_made_again_from_its_spec():
    source = {"model": {"values": RecordedSimulator(), "less_job_mean": True}}
    env = gym.make("JobRec-v0", market="recorded", num_candidates=5, prior_sources=source)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))

    assert again.unwrapped.prior_sources == env.unwrapped.prior_sources
    assert "qwen" in again.unwrapped.prior_sources["model"]
    np.testing.assert_array_equal(again.reset(seed=1)[0]["pairs"], env.reset(seed=1)[0]["pairs"])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"seniority": "cosine"}, "names of their own, got 'seniority'"),
        ({"blocks": "cosine"}, "names of their own"),
        ({"a": np.zeros((2, 2))}, r"\(n_applicants, n_jobs\) = \(40, 60\)"),
        ({"a": "cosin"}, r'must be "cosine", an array'),
        ({"a": np.full((40, 60), np.nan)}, "finite numbers, at least one, and NaN where it has no value"),
        ({"a": {"value": 1}}, "must have the entry 'values', may have 'less_job_mean', and no others: check 'value'"),
        ({"a": {"values": function, "less_job_mean": True}}, "the mean of a job over all applicants is unknown"),
        ({"a": {"values": function, "less_job_mean": [1.0]}}, r"\(60,\), got \(1,\)"),
        ({"a": {"values": "cosine", "less_job_mean": "yes"}}, r"must be True or finite means of all jobs, \(60,\)"),
        (["cosine"], "must map names to sources"),
        (np.zeros((40, 60)), "must map names to sources"),
        ([], "must map names to sources"),
        ("", "must map names to sources"),
    ],
)
def test_sources_that_cannot_be_are_refused(market, sources, message):
    with pytest.raises(ValueError, match=message):
        JobRecEnv(market, prior_sources=sources)


def test_a_function_that_says_no_probability_is_refused(market):
    env = JobRecEnv(market, prior_sources={"f": lambda applicant_ids, job_ids: 2.0 + job_ids})
    with pytest.raises(ValueError, match=r"`prior_sources\['f'\]` must return a number in \[0, 1\] of each of 20"):
        env.reset(seed=0)


def test_a_description_tells_one_source_from_another_in_every_process(market):
    def described(source):
        return SourcedPairValues(market, (), 0.0, {"a": source}).described["a"]

    assert described(Live()) == described(Live()) == "simulator Live"
    usual = RuleSimulator(seed=0)
    others = [
        RuleSimulator(weights={"taste": 5.0}),
        RuleSimulator(rewards={"click": 0.1}),
        RuleSimulator(corruption=0.2),
        RuleSimulator(reach=0.1),
    ]
    assert described(usual) == "RuleSimulator(seed=0, noise=0.0)"  # as in files of agents that were saved before
    assert len({described(each) for each in (usual, *others)}) == 5
    assert all(eval(repr(each)).to_spec() == each.to_spec() for each in others)
    model = LLMSimulator("openai/m")
    assert described(model) == "LLMSimulator('openai/m', mode='decision', prompt='decision-v1')"
    told = {described(each) for each in (model, model.changed(persona="eager"), model.changed(rewards={"click": 0.1}))}
    assert len(told) == 3


def test_settings_tell_apart_what_the_description_does_not_and_descriptions_stay_as_they_were(market):
    def opened(simulator):
        values = SourcedPairValues(market, (), 0.0, {"a": simulator})
        return values.described["a"], values.settings["a"]

    for mode in ("decision", "probability"):
        model = LLMSimulator("openai/m", api_base="http://127.0.0.1:1/v1", mode=mode)
        order = {"decisions": model.elicitation.decisions[::-1]}
        others = [
            model.changed(api_base="http://127.0.0.1:2/v1"),
            model.changed(sampling={"temperature": 1.5}),
            model.changed(elicitation=order),
        ]
        assert {opened(each)[0] for each in others} == {opened(model)[0]}
        # The order of decisions is no part of a question about Yes or No.
        assert len({opened(each)[1] for each in (model, *others)}) == (4 if mode == "decision" else 3)
        assert opened(model) == opened(LLMSimulator.from_spec(model.to_spec()))
    assert SourcedPairValues(market, (), 0.0, {"a": Live(), "b": "cosine"}).settings == {}


def test_an_agent_of_an_earlier_version_has_no_settings_that_could_differ(market):
    model = LLMSimulator("openai/m", api_base="http://127.0.0.1:1/v1")
    other = model.changed(api_base="http://127.0.0.1:2/v1")
    env = JobRecEnv(market, prior_sources={"model": model})

    class Agent:
        reads = {"pairs": ["model"], "prior_sources": env.prior_sources}  # noqa: RUF012

        def q_values(self, observation):
            return observation["pairs"][..., 0]

    class Answers(Live):
        """Answers as `other` without being asked, and describes itself as `other` does."""

        to_spec, __repr__ = other.to_spec, lambda self: repr(other)

    def rank():
        return recommend(Agent(), market, 1, observation={"prior_sources": {"model": Answers()}})

    assert rank()
    Agent.reads["source_settings"] = env.source_settings
    with pytest.raises(ValueError, match=r"must ask language models as in training, with .*:1/v1.*, got .*:2/v1"):
        rank()


def test_the_mean_of_the_job_may_be_asked_for_by_numpys_true(market, table):
    def shown(less):
        return SourcedPairValues(market, (), 0.0, {"a": {"values": table, "less_job_mean": less}})(*ALL)

    np.testing.assert_array_equal(shown(np.True_), shown(True))
    np.testing.assert_array_equal(shown(np.False_), shown(False))


@pytest.mark.parametrize("empty", [None, {}])
def test_no_source_is_none(market, empty):
    assert JobRecEnv(market, prior_sources=empty).prior_sources == {}


def test_a_spec_with_a_table_can_be_compared(market, table):
    env = gym.make("JobRec-v0", market=market, prior_sources={"said": table})
    other = gym.make("JobRec-v0", market=market, prior_sources={"said": -table})
    assert env.spec == gym.make(env.spec).spec
    assert env.spec != other.spec and env.spec != gym.make("JobRec-v0", market=market).spec
    words = gym.make("JobRec-v0", market=market, prior_sources={"said": "cosine"}).spec
    words.kwargs["prior_sources"]["said"] = table.astype(str)
    assert env.spec != words and words != env.spec

    def scaled(low):
        return gym.wrappers.RescaleAction(EmbeddingAction(env), np.full(768, low, np.float32), np.float32(1.0)).spec

    assert scaled(0.0) == scaled(0.0) != scaled(-1.0)


def test_a_catalogue_is_ranked_by_an_agent_that_reads_a_source(market, table):
    class Agent:
        reads = None

        def q_values(self, observation):
            return observation["pairs"][..., 0]

    agent = Agent()
    env = JobRecEnv(market, prior_sources={"said": table})
    agent.reads = {"observation": "features", "entries": {}, "pairs": ["said"], "prior_sources": env.prior_sources}

    best = recommend(agent, market, 1, n=1, observation={"prior_sources": {"said": table}})
    assert best[0].job_id == np.nanargmax(table[1])
    with pytest.raises(ValueError, match=r"reads the sources .*said"):
        recommend(agent, market, 1)
    with pytest.raises(ValueError, match="must be those of training"):
        recommend(agent, market, 1, observation={"prior_sources": {"said": -table}})


def test_the_recorded_market_has_a_recording_of_every_pair():
    market = load_market("recorded")
    said = SourcedPairValues(market, (), 0.0, {"model": RecordedSimulator()})
    assert not said.is_live and np.isfinite(said(np.arange(120)[:, None], np.arange(40))).all()


def test_a_recording_of_some_pairs_says_its_middle_about_the_others(tmp_path):
    default, recorded = load_market("default"), load_market("recorded")
    with pytest.warns(UserWarning, match=r"lacks 880 of 1,000 applicants and 1,960 of 2,000 jobs"):
        said = SourcedPairValues(default, (), 0.0, {"model": RecordedSimulator()})
    known = [np.flatnonzero(np.isin(getattr(default, side).keys, getattr(recorded, side).keys)) for side in SIDES]
    values = said(known[0][:, None], np.arange(2000))[..., 0]
    others = np.delete(values, known[1], axis=1)
    np.testing.assert_allclose(others, values[:, known[1]].mean(), atol=1e-6)
