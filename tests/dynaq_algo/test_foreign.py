"""`DynaQ.plus` where nobody has tuned it: feature observations, with utilities and rewards of their own."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from foreign import KINDS, Library, cosine

from dynaq_algo import DynaQ

POINTS = (0, 20, 50, 100, 200)
SEEDS = range(200, 204)


@functools.cache
def curves(kind):
    """Scores (n_seeds, n_points) of the agent, and the mean of cosine."""
    ours, cosines = [], []
    for seed in SEEDS:
        env = Library(KINDS[kind], seed)
        model, points = DynaQ.plus(env, seed=seed), []
        for n, before in zip(POINTS, (0, *POINTS), strict=False):
            if n:
                model.learn(n - before, reset_num_timesteps=False)
            points.append(env.score(model.q_values))
        ours.append(points)
        cosines.append(env.score(cosine))
    return np.array(ours), np.mean(cosines)


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
