import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")
pytest.importorskip("vowpalwabbit", reason="needs the extra 'opponents'")

from experiments.runs.build import build


def test_it_learns_and_a_saved_one_acts_alike(run, small, tmp_path):
    overrides = ("algo=vw", "market.n_applicants=200", "total_timesteps=800", "evaluation.interval=800")
    summary = run(*overrides)
    setup = build(small(*overrides))
    again = setup.algorithm.load(tmp_path / "run" / "model.zip", setup.env)

    assert summary["held_out"]["score"] > 0.05
    assert setup.evaluation(again)["score"] == summary["held_out"]["score"]


def test_it_plays_allowed_candidates_only_and_gives_probabilities(run, small):
    setup = build(small("algo=vw", "env.repeats=false", "env.max_episode_steps=5"))
    model = setup.algorithm.make(setup.env)
    obs = model.env.reset()

    np.testing.assert_allclose(model.q_values(obs).sum(axis=1), 1.0, atol=1e-5)
    summary = run("algo=vw", "env.repeats=false", "env.max_episode_steps=5")
    assert summary["interactions"] == 30


def test_what_is_observed_teaches_the_same_whatever_was_drawn_before(small):
    """Of a batch in which some transitions mean nothing, the others are learned as they are."""
    setup = build(small("algo=vw", "env.n_envs=4"))
    both = [setup.algorithm.make(setup.make_env()) for _ in range(2)]
    obs = both[0].env.reset()
    valid = np.array([False, True, False, True])
    part = {key: values[valid] for key, values in obs.items()}
    actions = np.array([0, 1, 2, 3])[valid]

    both[0].explore(obs)  # what was drawn is not what was answered
    for model in both:
        for _ in range(5):
            model.observe(part, actions, np.array([1.0, -1.0]))
    np.testing.assert_array_equal(both[0].q_values(obs), both[1].q_values(obs))
    both[1].observe(part, actions, np.array([-1.0, 1.0]))
    assert (both[0].q_values(obs) != both[1].q_values(obs)).any()


def test_it_learns_from_pair_features(small):
    """Candidates that differ in nothing else: the one whose numbers earned a reward becomes the likeliest."""
    setup = build(small("algo=vw", "env.pair_features=all"))
    model = setup.algorithm.make(setup.env)
    obs = dict(model.env.reset())
    obs["candidates"] = np.broadcast_to(obs["candidates"][:, :1], obs["candidates"].shape)
    obs["pairs"] = np.zeros_like(obs["pairs"])
    obs["pairs"][:, 3, 0] = 1.0

    for _ in range(20):
        model.observe(obs, np.full(len(obs["pairs"]), 3), np.ones(len(obs["pairs"])))
        model.observe(obs, np.full(len(obs["pairs"]), 4), -np.ones(len(obs["pairs"])))
    assert (model.q_values(obs).argmax(axis=1) == 3).all()
