import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments import build
from experiments.bandits import LinearBandit
from experiments.train import build_evaluation


@pytest.fixture(scope="module")
def env(small):
    cfg = small("algo=linucb")
    return build.build_env(cfg, build.build_market(cfg))


def observed(bandit, n=40):
    rng = np.random.default_rng(0)
    obs, _ = bandit.env.reset(seed=0)
    rows = bandit.features(obs).reshape(-1, len(bandit._mean))
    features = rows[rng.integers(len(rows), size=n)] + 0.1 * rng.standard_normal((n, rows.shape[1]))
    return features, rng.standard_normal(n)


def test_the_posterior_is_that_of_bayesian_regression(env):
    bandit = LinearBandit(env, noise=0.5, prior_std=0.2, cosine_prior=0.3)
    features, rewards = observed(bandit)
    for x, reward in zip(features, rewards, strict=True):
        bandit.update(x[None], np.array([reward]))

    prior = np.zeros(features.shape[1])
    prior[-1] = 0.3
    precision = np.eye(len(prior)) / 0.2**2 + features.T @ features / 0.5**2
    mean = np.linalg.solve(precision, prior / 0.2**2 + features.T @ rewards / 0.5**2)
    np.testing.assert_allclose(bandit._mean, mean, atol=1e-8)
    np.testing.assert_allclose(bandit._covariance, np.linalg.inv(precision), atol=1e-8)


def test_ucb_adds_deviations_and_thompson_draws_them(env):
    obs, _ = env.reset(seed=1)
    ucb, lints = (LinearBandit(env, exploration=kind, alpha=2.0) for kind in ("ucb", "thompson"))
    features = ucb.features(obs)
    deviation = np.sqrt(np.einsum("nkd,de,nke->nk", features, ucb._covariance, features))

    np.testing.assert_allclose(ucb._optimistic(features), 2.0 * deviation)
    draws = np.stack([lints._optimistic(features) for _ in range(4_000)])
    np.testing.assert_allclose(draws.std(axis=0), 2.0 * deviation, rtol=0.1)
    joint = 4.0 * np.einsum("kd,de,le->kl", features[0], ucb._covariance, features[0])
    np.testing.assert_allclose(np.cov(draws[:, 0].T), joint, atol=0.1 * joint.max())


def test_with_the_prior_it_begins_as_cosine_and_without_knows_nothing(env, run):
    summary = run("algo=linear_prior", "total_timesteps=0")

    assert summary["held_out"]["score"] == pytest.approx(summary["references"]["cosine"]["score"], abs=0.05)
    assert not LinearBandit(env)._mean.any()


@pytest.mark.parametrize("algo", ["linucb", "lints", "linear_prior", "linear_blocks"])
def test_it_learns_and_a_saved_one_acts_alike(run, small, tmp_path, algo):
    summary = run(f"algo={algo}", "total_timesteps=300", "market.n_applicants=200", "evaluation.interval=300")
    cfg = small(f"algo={algo}", "market.n_applicants=200")
    market = build.build_market(cfg)
    again = build.load_algorithm(cfg, tmp_path / "run" / "model.zip", build.build_env(cfg, market))

    assert summary["held_out"]["score"] > 0.1
    assert build_evaluation(cfg, market, build.build_truth(cfg, market))(again)["score"] == summary["held_out"]["score"]


def test_with_blocks_it_begins_as_dynaq_plus_does(small):
    scores = []
    for algo in ("linear_blocks", "dynaq_plus"):
        cfg = small(f"algo={algo}")
        env = build.build_env(cfg, build.build_market(cfg))
        obs, _ = env.reset(seed=0)
        scores.append(build.build_algorithm(cfg, env).q_values(obs))

    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"similarities": "block"}, {"exploration": "greedy"}, {"alpha": -1.0}, {"noise": 0.0}, {"prior_std": 0.0}],
)
def test_a_wrong_argument_is_named(env, options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        LinearBandit(env, **options)
