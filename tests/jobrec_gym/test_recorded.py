import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import MarketError, load_market
from jobrec_gym.loaders import recorded


def test_the_recorded_market_has_the_size_and_split_of_its_card():
    market = load_market("recorded")
    assert (len(market.applicants), len(market.jobs)) == (120, 40)
    assert market.applicants.held_out.sum() == 36 and not market.jobs.held_out.any()


def test_each_applicant_finds_two_jobs_of_the_own_occupation_and_two_of_a_neighbour():
    market = load_market("recorded")
    rows = np.arange(120)
    own = market.applicants.occupation_ids[:, None] == market.jobs.occupation_ids
    family = market.family_id(market.applicants, rows)[:, None] == market.family_id(market.jobs, np.arange(40))
    assert (own.sum(axis=1) == 2).all() and (family.sum(axis=1) == 4).all()


def test_its_rows_are_those_of_the_default_market():
    market, default = load_market("recorded"), load_market("default")
    for side in ("applicants", "jobs"):
        part, whole = getattr(market, side), getattr(default, side)
        row = int(np.flatnonzero(whole.keys == part.keys[7])[0])
        np.testing.assert_array_equal(part.vectors[7], whole.vectors[row])
        profile = market.applicant if side == "applicants" else market.job
        assert profile(7) == (default.applicant if side == "applicants" else default.job)(row)


def test_other_texts_than_the_recorded_ones_are_refused(monkeypatch):
    monkeypatch.setattr(recorded, "_TEXTS_SHA256", "0" * 64)
    with pytest.raises(MarketError, match="no longer fit"):
        recorded.load_recorded()


def test_the_environment_makes_it_by_name_and_from_its_spec():
    env = gym.make("JobRec-v0", market="recorded", num_candidates=10)
    obs, _ = env.reset(seed=0)
    again, _ = gym.make(env.spec).reset(seed=0)
    np.testing.assert_array_equal(obs["candidates"], again["candidates"])
