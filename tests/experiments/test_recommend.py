"""What agents recommend out of a whole catalogue: the best of their own values, whatever they read."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("dynaq_algo.dynaq", reason="needs the extra 'algo'")
pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from dynaq_algo import DynaQ, GaussianProcessBandit, GymnasiumVecEnv, LinearBandit
from experiments.learners.opponents import CosineRecommender, PopularityRecommender
from experiments.runs.recording import InteractionRecorder
from jobrec_gym import LabourMarket, RuleSimulator, VectorFeedbackReward, load_market, recommend, recommend_each

ALL_PAIRS = ("hard_coverage", "soft_coverage", "seniority")


@pytest.fixture(scope="module")
def market():
    return load_market("default", n_jobs=60, n_applicants=40)


def envs_on(market, **kwargs):
    kwargs = {"observation": "ids", "num_candidates": 5, **kwargs}
    envs = gym.make_vec("JobRec-v0", 4, autoreset_mode="SameStep", market=market, **kwargs)
    return VectorFeedbackReward(envs, RuleSimulator(seed=0))


def plain(env):
    return DynaQ("CandidatePolicy", env, seed=0, learning_starts=8, policy_kwargs={"net_arch": [8]})


AGENTS = {
    "dynaq": plain,
    "dynaq_plus": lambda env: DynaQ.plus(env, seed=0),
    "gp": lambda env: GaussianProcessBandit(env, seed=0),
    "linucb": lambda env: LinearBandit(env, seed=0),
    "cosine": lambda env: CosineRecommender(env),
    "popularity": lambda env: PopularityRecommender(env),
}
SHOWN = {
    "ids": {},
    "features": {"observation": "features"},
    "pairs": {"pair_features": ALL_PAIRS},
    "fields": {"observation": "features", "job_fields": ("title",)},
    "mask": {"repeats": False},
}


def all_shown(market, applicant, **kwargs):
    """What an environment shows that shows the whole catalogue."""
    kwargs = {"split": "all", "job_split": "all", **kwargs}
    env = gym.make("JobRec-v0", market=market, candidate_sampler="all", **kwargs)
    return env.reset(options={"applicant_id": applicant})[0]


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("shown", SHOWN)
def test_what_is_recommended_is_the_argsort_of_the_agents_values(market, name, shown):
    kwargs = {"observation": "ids", **SHOWN[shown]}
    if name == "popularity" and kwargs["observation"] == "features":
        pytest.skip("popularity knows jobs by their ids")
    agent = AGENTS[name](envs_on(market, **kwargs)).learn(40)

    found = recommend(agent, market, 7, n=12)

    values = agent.q_values(all_shown(market, 7, **kwargs))[0]
    expected = np.argsort(-values, kind="stable")[:12]
    assert [one.job_id for one in found] == expected.tolist()
    assert [one.score for one in found] == pytest.approx(values[expected].tolist(), abs=1e-6)
    assert [one.cosine for one in found] == market.cosine(np.full(12, 7), expected).tolist()


def test_what_an_agent_reads_comes_from_its_file(market, tmp_path):
    env = envs_on(market, pair_features=ALL_PAIRS)
    agent = DynaQ.plus(env, seed=0).learn(20)
    agent.save(tmp_path / "agent.zip")

    loaded = DynaQ.load(tmp_path / "agent.zip", action_features=market.jobs.vectors)

    assert recommend(loaded, market, 3) == recommend(agent, market, 3)


def test_many_at_once_are_recommended_what_each_is_alone(market):
    agent = DynaQ.plus(envs_on(market, pair_features=ALL_PAIRS), seed=0).learn(40)
    people = np.array([5, 0, 39, 7, 7])

    together = list(recommend_each(agent, market, people, n=4, batch_size=2))

    assert len(together) == 5
    for person, found in zip(people, together, strict=True):
        alone = recommend(agent, market, person, n=4)
        assert [one.key for one in found] == [one.key for one in alone]
        assert [one.score for one in found] == pytest.approx([one.score for one in alone], abs=1e-5)


def grown(market):
    """The market with one more job at its end, which is all that applicant 3 could wish for."""
    jobs = market.jobs.take(np.append(np.arange(len(market.jobs)), 0))
    vectors = np.concatenate([market.jobs.vectors, market.applicants.vectors[3:4]])
    jobs = dataclasses.replace(jobs, keys=np.append(market.jobs.keys, "new"), vectors=vectors)
    return LabourMarket("grown", market.applicants, jobs, market.vocabulary)


def test_a_market_that_has_grown_by_a_job_has_it_among_the_recommended(market, tmp_path):
    agent = DynaQ.plus(envs_on(market), seed=0).learn(20)
    agent.save(tmp_path / "agent.zip")
    larger = grown(market)

    with pytest.raises(ValueError, match="a table of 60 jobs, but this market has another one, of 61 jobs: give"):
        recommend(agent, larger, 3)
    loaded = DynaQ.load(tmp_path / "agent.zip", env=envs_on(larger))
    found = recommend(loaded, larger, 3)

    assert found[0].key == "new" and found[0].job_id == 60
    assert [one.key for one in recommend(loaded, larger, 3, exclude=["new"])] == [
        one.key for one in recommend(agent, market, 3)
    ]
    # One that reads features needs no table.
    seeing = DynaQ.plus(envs_on(market, observation="features"), seed=0).learn(20)
    assert "new" in [one.key for one in recommend(seeing, larger, 3)]


def test_an_agent_of_another_catalogue_of_equal_size_is_refused(market):
    agent = DynaQ.plus(envs_on(market), seed=0)
    other = load_market("default", n_jobs=60, n_applicants=40, seed=1)

    with pytest.raises(ValueError, match="but this market has another one"):
        recommend(agent, other, 3)
    assert recommend(agent, load_market(market.to_spec()), 3)


def test_new_people_are_recommended_something_by_the_same_agent(market):
    agent = DynaQ.plus(envs_on(market), seed=0).learn(20)
    copy = dataclasses.replace(market.applicants.take(np.array([7])), keys=np.array(["somebody new"]))
    new = market.replaced_applicants(copy, market.vocabulary)

    assert recommend(agent, new, "somebody new") == recommend(agent, market, 7)


def test_the_recorder_and_sb3_hand_options_on(market):
    recorder = InteractionRecorder(envs_on(market))
    chosen = {"applicant_id": np.array([4, 3, 2, 1])}
    _, infos = recorder.reset(seed=0, options=chosen)
    recorder.step(np.zeros(4, int))
    interactions = recorder.take()
    assert interactions.applicant_ids.tolist() == infos["applicant_id"].tolist() == [4, 3, 2, 1]

    vec_env = GymnasiumVecEnv(recorder)
    for options in (chosen, [{"applicant_id": one} for one in (4, 3, 2, 1)]):
        vec_env.set_options(options)
        vec_env.reset()
        assert [info["applicant_id"] for info in vec_env.reset_infos] == [4, 3, 2, 1]
    assert all(info["applicant_in_split"] in (True, False) for info in vec_env.reset_infos)
