"""The package's bandits in runs: what they begin as, what they learn, what is saved of them."""

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.runs.build import build


def test_with_the_prior_it_begins_as_cosine_and_without_knows_nothing(run, small):
    summary = run("algo=linear_prior", "total_timesteps=0")
    assert summary["held_out"]["score"] == pytest.approx(summary["references"]["cosine"]["score"], abs=0.05)

    setup = build(small("algo=linucb"))
    assert not setup.algorithm.make(setup.env).q_values(setup.env.reset(seed=0)[0]).any()


@pytest.mark.parametrize("algo", ["linucb", "lints", "linear_prior", "linear_blocks", "gp"])
def test_it_learns_and_a_saved_one_acts_alike(run, small, tmp_path, algo):
    summary = run(f"algo={algo}", "total_timesteps=300", "market.n_applicants=200", "evaluation.interval=300")
    setup = build(small(f"algo={algo}", "market.n_applicants=200"))
    again = setup.algorithm.load(tmp_path / "run" / "model.zip", setup.env)

    assert summary["held_out"]["score"] > 0.1
    assert setup.evaluation(again)["score"] == summary["held_out"]["score"]


def test_with_blocks_it_begins_as_the_gaussian_process_does(small):
    scores = []
    for algo in ("linear_blocks", "gp"):
        setup = build(small(f"algo={algo}"))
        obs, _ = setup.env.reset(seed=0)
        scores.append(setup.algorithm.make(setup.env).q_values(obs))

    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


def test_pairs_that_the_environment_shows_are_learned_from(small):
    shown = "env.pair_features=[hard_coverage,soft_coverage,seniority]"
    for algo in ("linear_blocks", "gp"):
        scores = []
        for overrides in ((), (shown,)):
            setup = build(small(f"algo={algo}", "market.n_applicants=200", *overrides))
            model = setup.algorithm.make(setup.env).learn(300)
            scores.append(setup.evaluation(model)["score"])
        assert scores[1] > scores[0] + 0.03, algo
