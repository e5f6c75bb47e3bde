"""`DynaQ.plus` on environments that are no markets, with feature observations, utilities and rewards of their own.

Settings were chosen on these environments too, on other seeds. The limits for means and seeds are wider than the
project's goals (.02 for a mean, .06 for a seed). The last three tests say where these goals are missed.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from foreign import KINDS, Library, cosine

from dynaq_algo import DynaQ

POINTS = (0, 20, 50, 100, 200)
SEEDS = range(200, 204)


@functools.cache
def curve(kind, seed):
    """Scores (n_points,) of the agent."""
    env = Library(KINDS[kind], seed)
    model, points = DynaQ.plus(env, seed=seed), []
    for n, before in zip(POINTS, (0, *POINTS), strict=False):
        if n:
            model.learn(n - before, reset_num_timesteps=False)
        points.append(env.score(model.q_values))
    return np.array(points)


def curves(kind):
    """Scores (n_seeds, n_points) of the agent, and the mean of cosine."""
    cosines = [Library(KINDS[kind], seed).score(cosine) for seed in SEEDS]
    return np.array([curve(kind, seed) for seed in SEEDS]), np.mean(cosines)


@pytest.mark.parametrize("kind", KINDS)
def test_its_mean_is_never_far_below_cosine_or_its_start(kind):
    ours, of_cosine = curves(kind)
    means = ours.mean(axis=0)
    assert (means >= means[0] - 0.03).all()
    assert (means >= of_cosine - 0.03).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_seed_is_lost(kind):
    ours, _ = curves(kind)
    assert (ours - ours[:, :1]).min() >= -0.1


@pytest.mark.parametrize(("kind", "gain"), [("half", 0.15), ("rare", 0.1), ("contrary", 0.7)])
def test_it_learns_what_cosine_does_not_say(kind, gain):
    ours, _ = curves(kind)
    assert ours[:, -1].mean() >= ours[:, 0].mean() + gain


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="a few unlucky answers make the agent doubt a right prior, and in this seed it falls below a random choice",
)
def test_seed_705_of_rare_falls_by_no_more_than_the_goal_allows():
    points = curve("rare", 705)
    assert points[0] - points.min() <= 0.06


def test_seed_705_of_rare_falls_as_the_page_of_results_says():
    assert curve("rare", 705) == pytest.approx([0.248, 0.144, 0.123, -0.098, 0.379], abs=0.01)


LEADS = {"clicks": -0.015, "half": -0.015, "rare": -0.025, "taste": -0.004, "ratings": -0.012, "contrary": 0.006}


@pytest.mark.parametrize(("kind", "lead"), list(LEADS.items()))
def test_it_begins_below_cosine_in_five_of_six_kinds(kind, lead):
    """In the mean over seeds 700 to 739; the goal is not below cosine."""
    envs = {seed: Library(KINDS[kind], seed) for seed in range(700, 740)}
    leads = [env.score(DynaQ.plus(env, seed=seed).q_values) - env.score(cosine) for seed, env in envs.items()]
    assert np.mean(leads) == pytest.approx(lead, abs=0.001)
