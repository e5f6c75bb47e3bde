"""The package's bandits in runs: what they begin as, what they learn, what is saved of them."""

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.runs import build
from experiments.runs.build import build_evaluation


def test_with_the_prior_it_begins_as_cosine_and_without_knows_nothing(run, small):
    summary = run("algo=linear_prior", "total_timesteps=0")
    assert summary["held_out"]["score"] == pytest.approx(summary["references"]["cosine"]["score"], abs=0.05)

    cfg = small("algo=linucb")
    env = build.build_env(cfg, build.build_market(cfg))
    assert not build.build_algorithm(cfg, env).q_values(env.reset(seed=0)[0]).any()


@pytest.mark.parametrize("algo", ["linucb", "lints", "linear_prior", "linear_blocks", "gp"])
def test_it_learns_and_a_saved_one_acts_alike(run, small, tmp_path, algo):
    summary = run(f"algo={algo}", "total_timesteps=300", "market.n_applicants=200", "evaluation.interval=300")
    cfg = small(f"algo={algo}", "market.n_applicants=200")
    market = build.build_market(cfg)
    again = build.load_algorithm(cfg, tmp_path / "run" / "model.zip", build.build_env(cfg, market))

    assert summary["held_out"]["score"] > 0.1
    assert build_evaluation(cfg, market, build.build_truth(cfg, market))(again)["score"] == summary["held_out"]["score"]


def test_with_blocks_it_begins_as_the_gaussian_process_does(small):
    scores = []
    for algo in ("linear_blocks", "gp"):
        cfg = small(f"algo={algo}")
        env = build.build_env(cfg, build.build_market(cfg))
        obs, _ = env.reset(seed=0)
        scores.append(build.build_algorithm(cfg, env).q_values(obs))

    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


def test_pairs_that_the_environment_shows_are_learned_from(small):
    shown = "env.pair_features=[hard_coverage,soft_coverage,seniority]"
    for algo in ("linear_blocks", "gp"):
        scores = []
        for overrides in ((), (shown,)):
            cfg = small(f"algo={algo}", "market.n_applicants=200", *overrides)
            market = build.build_market(cfg)
            model = build.build_algorithm(cfg, build.build_env(cfg, market)).learn(300)
            scores.append(build_evaluation(cfg, market, build.build_truth(cfg, market))(model)["score"])
        assert scores[1] > scores[0] + 0.03, algo
