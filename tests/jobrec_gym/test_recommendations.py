"""The best jobs of a whole catalogue, by cosine or by a function; what agents say is in tests/experiments."""

import dataclasses
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import LabourMarket, ObservationForm, recommend, recommend_each, recommendations
from jobrec_gym.job_index import index_file

WHO = 5


def cosines(market, applicant=WHO):
    n = len(market.jobs)
    return market.cosine(np.full(n, applicant), np.arange(n))


def with_words(market, **changes):
    """The market with free texts, or other job keys."""
    jobs = dataclasses.replace(market.jobs, **{"keys": changes.pop("keys", market.jobs.keys)})
    return LabourMarket("changed", market.applicants, jobs, market.vocabulary, **changes)


def test_without_an_agent_the_nearest_jobs_are_recommended(market):
    found = recommend(None, market, WHO, n=7)

    expected = np.argsort(-cosines(market), kind="stable")[:7]
    assert [one.job_id for one in found] == expected.tolist()
    assert [one.rank for one in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.score for one in found] == [one.cosine for one in found] == cosines(market)[expected].tolist()
    assert [(one.key, one.title) for one in found] == [(market.job(i).key, market.job(i).title) for i in expected]


def test_skills_are_shared_or_missing_by_their_kind(market):
    person = market.applicant(WHO)
    for one in recommend(None, market, WHO, n=60):
        job = market.job(one.job_id)
        hard = [skill for skill in job.hard_skills if skill in person.hard_skills]
        soft = [skill for skill in job.soft_skills if skill in person.soft_skills]
        assert one.shared == (*hard, *soft)
        assert sorted(one.shared + one.missing) == sorted(job.hard_skills + job.soft_skills)


def test_free_texts_are_no_skills(market):
    (one,) = recommend(None, with_words(market, text_blocks=["hard"]), WHO, n=1)

    job = market.job(one.job_id)
    assert set(one.shared + one.missing) == set(job.soft_skills)


def test_an_applicant_is_named_by_row_key_or_profile(market):
    key = str(market.applicants.keys[WHO])
    assert (
        recommend(None, market, WHO) == recommend(None, market, key) == recommend(None, market, market.applicant(key))
    )
    with pytest.raises(ValueError, match="there is no applicant with the key '5'"):
        recommend(None, market, "5")


def test_excluded_jobs_are_named_by_rows_and_keys(market):
    first = recommend(None, market, WHO, n=4)

    left = recommend(None, market, WHO, n=2, exclude=[first[0].job_id, first[2].key, np.int64(first[0].job_id)])

    assert [one.key for one in left] == [first[1].key, first[3].key] and [one.rank for one in left] == [1, 2]
    numbered = with_words(market, keys=np.array([str(59 - row) for row in range(60)]))
    best = recommend(None, numbered, WHO, n=1)[0].job_id
    assert best in [one.job_id for one in recommend(None, numbered, WHO, exclude=[str(best)])], "a key, no row"
    assert best not in [one.job_id for one in recommend(None, numbered, WHO, exclude=[str(59 - best)])]
    with pytest.raises(ValueError, match="there is no job with the key"):
        recommend(None, market, WHO, exclude=["J000000x"])
    with pytest.raises(TypeError, match="`exclude` must be a sequence of rows or keys, got the text 'J0000001'"):
        recommend(None, market, WHO, exclude="J0000001")
    with pytest.raises(TypeError, match=r"`exclude` must be a sequence of rows or keys, \(\) for none, got None"):
        recommend(None, market, WHO, exclude=None)


def test_there_are_no_more_than_the_catalogue_has(market):
    assert len(recommend(None, market, WHO, n=1_000)) == 60
    assert recommend(None, market, WHO, exclude=range(60)) == []
    assert recommend(lambda seen: np.zeros(len(seen["candidates"])), market, WHO, exclude=range(60)) == []
    for n in (0, -1, 2.5, True, "3"):
        with pytest.raises(ValueError, match="`n` must be a whole number of at least 1"):
            recommend(None, market, WHO, n=n)


def test_a_function_of_an_observation_recommends(market):
    def fewest_numbers(seen):
        assert seen["applicant"].tolist() == market.applicants.vectors[WHO].tolist()
        return -np.abs(seen["candidates"] - 17.2)

    found = recommend(fewest_numbers, market, WHO, n=3, observation="ids")

    assert [one.job_id for one in found] == [17, 18, 16]


def test_equal_scores_stand_in_the_order_of_rows(market):
    found = recommend(lambda seen: seen["candidates"] % 2, market, WHO, n=4, observation="ids")
    assert [one.job_id for one in found] == [1, 3, 5, 7]


def test_what_is_shown_is_said_by_a_name_a_mapping_or_a_form(market):
    seen = []

    def score(observation):
        seen.append({key: values.shape for key, values in observation.items()})
        return np.arange(len(observation["candidates"]))

    mapping = {"observation": "ids", "pair_features": ["seniority"], "mask_in_observation": True}
    for observation in (None, "ids", {"job_fields": ["title"]}, mapping, ObservationForm("ids")):
        recommend(score, market, WHO, observation=observation)

    applicant, ids = {"applicant": (768,)}, {"candidates": (60,)}
    assert seen[0] == {**applicant, "candidates": (60, 768)}
    assert seen[1] == seen[4] == {**applicant, **ids}
    assert seen[2] == {**applicant, "candidates": (60, 1152)}
    assert seen[3] == {**applicant, **ids, "pairs": (60, 1), "action_mask": (60,)}
    with pytest.raises(ValueError, match="`observation` may say .*, got 'pair_feature'. Did you mean 'pair_features'"):
        recommend(score, market, WHO, observation={"pair_feature": "all"})


def test_a_form_of_an_environment_is_refused_on_a_market_of_other_people(market):
    """Its numbers of pairs are those of the environment's own people, in whose rows others stand here."""
    env = gym.make("JobRec-v0", market=market, num_candidates=4, pair_features=["hard_coverage"])
    form, person = ObservationForm.of(env), market.applicant(WHO)
    new = market.with_applicants([{"key": "new", "hard": list(market.applicant(WHO + 1).hard_skills)}])

    def coverage(seen):
        return seen["pairs"][:, 0]

    assert recommend(coverage, market, person, observation=form)
    with pytest.raises(ValueError, match="rows of another market, .* `ObservationForm.pair_features"):
        recommend(coverage, new, "new", observation=form)
    # Without numbers of pairs there is nothing of the environment's own people in it.
    ids = ObservationForm.of(gym.make("JobRec-v0", market=market, num_candidates=4, observation="ids"))
    assert recommend(lambda seen: seen["candidates"], new, "new", observation=ids)


def test_means_over_other_people_are_refused(market):
    """Somebody alone in a market is their own mean: every job would get the same number."""
    person = market.applicant(WHO)
    new = market.with_applicants([{"key": "new", "hard": list(person.hard_skills), "soft": list(person.soft_skills)}])
    less = {"said": {"values": "cosine", "less_job_mean": True}}

    class Agent:
        def __init__(self, sources):
            env = gym.make("JobRec-v0", market=market, num_candidates=4, prior_sources=sources).unwrapped
            self.reads = {"observation": "features", "pairs": ["said"], "prior_sources": env.prior_sources}
            self.env = SimpleNamespace(get_attr=lambda name: [getattr(env, name)])

        def q_values(self, observation):
            return observation["pairs"][:, 0]

    def ranked(sources, market, who):
        found = recommend(Agent(sources), market, who, n=3, observation={"prior_sources": sources})
        return [one.job_id for one in found]

    assert len(ranked(less, market, WHO)) == 3
    with pytest.raises(ValueError, match=r"`prior_sources\['said'\]` is less the mean of the job over all applicants"):
        ranked(less, new, "new")
    # What depends on the pair alone, or on means that were given, is the same for anybody.
    cosine = {"said": "cosine"}
    assert ranked(cosine, new, "new") == ranked(cosine, market, WHO)
    given = {"said": {"values": "cosine", "less_job_mean": np.linspace(0.0, 1.0, 60)}}
    assert ranked(given, new, "new") == ranked(given, market, WHO)


@pytest.mark.parametrize("features", ["all", ["hard_coverage", "soft_coverage", "seniority"]], ids=str)
def test_arguments_of_an_environment_with_sources_are_taken_as_they_were_given_to_it(market, features):
    said = {"prior_sources": {"said": "cosine"}, "pair_features": features}
    env = gym.make("JobRec-v0", market=market, num_candidates=4, **said).unwrapped

    class Agent:
        reads = {"pairs": list(env.pair_feature_names), "prior_sources": env.prior_sources}  # noqa: RUF012

        def q_values(self, observation):
            return observation["pairs"] @ np.array([1.0, 2.0, 3.0, 4.0])

    found = recommend(Agent(), market, WHO, n=3, observation=said)
    assert found == recommend(Agent(), market, WHO, n=3, observation={"prior_sources": said["prior_sources"]})
    with pytest.raises(ValueError, match="`prior_sources` must be those of training"):
        recommend(Agent(), market, WHO, observation={**said, "pair_features": ["seniority"]})


def test_numbers_of_pairs_are_blurred_as_the_environment_blurs_them(market):
    shown = []
    for noise in (0.0, 0.3):
        observation = {"pair_features": ["seniority"], "pair_noise": noise}
        recommend(lambda seen: shown.append(seen["pairs"]) or np.zeros(60), market, WHO, observation=observation)
    assert 0.05 < np.abs(shown[0] - shown[1]).mean() < 0.5


def test_more_jobs_than_are_asked_about_at_once_are_scored_in_parts(market, monkeypatch):
    monkeypatch.setattr(recommendations, "_ASKED", 7)
    monkeypatch.setattr(recommendations, "_CHUNK", 7)
    asked = []

    def score(seen):
        asked.append(len(seen["candidates"]))
        return seen["candidates"] @ seen["applicant"]

    found = recommend(score, market, WHO)

    assert sum(asked) == 60 and max(asked) == 7
    assert [one.job_id for one in found] == [one.job_id for one in recommend(None, market, WHO)]


@pytest.mark.parametrize(
    "scores", [np.zeros(3), np.full(60, np.nan), np.where(np.arange(60) == 7, np.inf, 0.0), np.zeros((60, 1)), None]
)
def test_scores_that_cannot_rank_are_refused(market, scores):
    with pytest.raises(ValueError, match="`agent` must give .1, 60. finite numbers, one a candidate, got shape"):
        recommend(lambda seen: scores, market, WHO)


class Reading:
    """Says what it reads, and nothing else."""

    def __init__(self, **reads):
        self.reads = reads

    def q_values(self, observation):
        return np.zeros((1, len(observation["candidates"])))


def test_what_a_catalogue_does_not_have_is_refused(market):
    with pytest.raises(TypeError, match="`agent` must have `q_values.observation.`, or be a function .* got 'cosine'"):
        recommend("cosine", market, WHO)
    with pytest.raises(
        ValueError, match=r"also reads \['weather'\] of an observation, which a catalogue does not have"
    ):
        recommend(Reading(entries={"applicant": [768], "weather": [3]}), market, WHO)
    with pytest.raises(ValueError, match="reads 2 numbers of a pair and does not know their names"):
        recommend(Reading(pairs=2), market, WHO)
    assert recommend(Reading(pairs=1), market, WHO, observation={"pair_features": ["seniority"]})


def test_each_of_many_gets_a_list_of_their_own(market):
    people = np.array([3, 0, 3])
    for agent in (None, lambda seen: seen["candidates"] @ seen["applicant"]):
        lists = list(recommend_each(agent, market, people, n=3, batch_size=2))
        assert lists == [recommend(agent, market, person, n=3) for person in people.tolist()]
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        recommend_each(None, market, people, batch_size=0)


def test_a_large_catalogue_goes_by_its_index(market, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="needs the extra 'index'")
    monkeypatch.setattr(recommendations, "EXACT_UP_TO", 10)
    monkeypatch.setattr(recommendations, "_RETRIEVED", 20)
    saved = market.save(tmp_path / "market")
    nearest = np.argsort(-cosines(market), kind="stable")
    asked = []

    def last(seen):
        asked.append(seen["candidates"])
        return -np.isin(seen["candidates"], nearest[:3]).astype(float) - seen["candidates"] / 1e3

    assert [one.job_id for one in recommend(None, saved, WHO, n=5)] == nearest[:5].tolist()
    assert [one.job_id for one in recommend(None, saved, WHO, n=2, exclude=nearest[:3])] == nearest[3:5].tolist()
    found = recommend(last, saved, WHO, n=20, exclude=nearest[4:6], observation="ids")

    assert sorted(asked[0]) == sorted({*nearest[:22].tolist()} - {*nearest[4:6].tolist()}) and len(asked[0]) == 20
    assert {one.job_id for one in found[-3:]} == set(nearest[:3].tolist())
    assert index_file(saved).is_file()


@pytest.mark.parametrize(
    ("applicants", "message"),
    [
        ([1.7], "whole numbers, got float64"),
        ([True, False], "whole numbers, got bool .* `np.flatnonzero` those of a mask"),
        (["A0000001"], "`market.applicant_id` finds the row of a key"),
        ([[1, 2]], r"rows \(m,\) of the market's applicants, .* \(1, 2\)"),
        ([0, -1], r"rows in \[0, \d+\), got -1"),
        ([0, 10**6], r"rows in \[0, \d+\), got 1000000"),
    ],
)
def test_what_names_no_rows_is_refused_before_anybody_gets_a_list(market, applicants, message):
    with pytest.raises(ValueError, match=message):
        recommend_each(None, market, np.array(applicants), n=1)
    assert list(recommend_each(None, market, np.array([]), n=1)) == []
