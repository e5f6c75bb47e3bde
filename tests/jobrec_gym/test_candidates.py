import numpy as np
import pytest

from jobrec_gym import JobRecEnv, JobRecVectorEnv
from jobrec_gym.candidates import RetrievalCandidates, make_sampler
from jobrec_gym.counter_rng import hash64

KEYS = hash64(9, np.arange(30))
APPLICANTS = np.arange(30)


@pytest.mark.parametrize("name", ["uniform", "retrieval", "mixed", "all"])
def test_sets_are_distinct_and_inside_the_split(market, name):
    job_ids = market.jobs.rows("train")
    sampler = make_sampler(name).bind(market, job_ids, 7)
    sets = sampler.sample(APPLICANTS, KEYS)
    assert sets.shape == (30, sampler.num_candidates)
    assert np.isin(sets, job_ids).all()
    assert all(len(set(row)) == len(row) for row in sets)
    assert (sampler.sample(APPLICANTS, KEYS) == sets).all()
    assert (sampler.sample(APPLICANTS[3:4], KEYS[3:4]) == sets[3]).all()


def nearest(market, applicant, job_ids, n):
    cosines = market.jobs.vectors[job_ids] @ market.applicants.vectors[applicant]
    return set(job_ids[np.argsort(-cosines)[:n]])


def test_retrieval_shows_the_nearest_jobs_in_no_telling_order(market):
    job_ids = market.jobs.rows("all")
    sets = make_sampler("retrieval").bind(market, job_ids, 5).sample(np.repeat(2, 30), KEYS)
    assert all(set(row) == nearest(market, 2, job_ids, 5) for row in sets)
    assert len(set(sets[:, 0])) == 5


@pytest.mark.parametrize("k", [1, 4, 7, 60])
def test_mixed_is_half_retrieved(market, k):
    job_ids = market.jobs.rows("all")
    sets = make_sampler("mixed").bind(market, job_ids, k).sample(APPLICANTS, KEYS)
    for applicant, row in zip(APPLICANTS, sets, strict=True):
        assert len(set(row)) == k
        assert nearest(market, applicant, job_ids, -(-k // 2)) <= set(row)


def test_uniform_shows_every_job_equally_often(market):
    job_ids = market.jobs.rows("all")
    sets = make_sampler("uniform").bind(market, job_ids, 6).sample(np.zeros(20_000, int), hash64(1, np.arange(20_000)))
    counts = np.bincount(sets.ravel(), minlength=60)
    assert np.abs(counts - 2_000).max() < 5 * np.sqrt(2_000)


def test_all_is_the_catalogue_in_order(market):
    job_ids = market.jobs.rows("train")
    assert (make_sampler("all").bind(market, job_ids, 3).sample(APPLICANTS, KEYS) == job_ids).all()


def test_unknown_samplers_are_suggested():
    with pytest.raises(ValueError, match='Did you mean "uniform"'):
        make_sampler("unifrom")
    with pytest.raises(ValueError, match="have `bind"):
        make_sampler(3)
    with pytest.raises(ValueError, match="have `bind.*got <class .*RetrievalCandidates'>"):
        make_sampler(RetrievalCandidates)


class Drawn:
    """Shows everybody what a function makes of the first jobs."""

    def __init__(self, change):
        self.change = change

    def bind(self, market, job_ids, num_candidates):
        self.num_candidates, self.job_ids = num_candidates, job_ids
        return self

    def sample(self, applicant_ids, keys):
        return self.change(np.tile(self.job_ids[: self.num_candidates], (len(applicant_ids), 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sets: -1 - sets, "from `job_ids`, got -"),
        (lambda sets: 0 * sets + sets[0, 0], "distinct jobs, got [0-9]+ twice"),
        (lambda sets: sets.astype(float), r"integers of shape \(2, 5\) for 2 applicants, got float64"),
        (lambda sets: sets[:, :4], r"got int64 of shape \(2, 4\)"),
        (lambda sets: sets[0], r"got int64 of shape \(5,\)"),
    ],
)
def test_sets_of_a_sampler_of_ones_own_are_checked_when_it_is_made(market, change, message):
    with pytest.raises(ValueError, match=f"`candidate_sampler` must draw .*{message}"):
        JobRecEnv(market, num_candidates=5, candidate_sampler=Drawn(change))


@pytest.mark.parametrize("change", [lambda sets: sets.astype(np.int32), lambda sets: sets.tolist()])
def test_sets_are_int64_whatever_a_sampler_gives(market, change):
    kwargs = {"num_candidates": 5, "candidate_sampler": Drawn(change), "observation": "ids"}
    env, envs = JobRecEnv(market, **kwargs), JobRecVectorEnv(2, market=market, **kwargs)
    for obs in (env.reset(seed=0)[0], env.step(1)[0], envs.reset(seed=0)[0], envs.step(np.ones(2, int))[0]):
        assert obs["candidates"].dtype == np.int64
