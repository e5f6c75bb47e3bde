import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra 'experiments'")

from sklearn.ensemble import HistGradientBoostingRegressor

from dynaq_algo.gaussian_process import DEFAULT_SCALES
from experiments.studies.supervised import SUPERVISED, BoostedTrees, GaussianProcessRegression, ShownPairs, Vectors
from jobrec_gym import load_market


@pytest.fixture(scope="module")
def vectors():
    market = load_market("default", n_jobs=60, n_applicants=40)
    return Vectors(market, market.jobs.rows("train"))


def drawn(n, seed, p=2):
    rng = np.random.default_rng(seed)
    return ShownPairs(rng.integers(40, size=n), rng.integers(60, size=n), rng.random((n, p)))


def test_the_gaussian_process_is_the_exact_posterior(vectors):
    known, asked = drawn(80, 0), drawn(30, 1)
    rewards = np.random.default_rng(2).normal(size=80)
    same = (np.array([0, 0, 3]), np.array([5, 5, 5]))  # a pair that is known twice, and its job with another applicant
    for number, ids in enumerate((known.applicant_ids, known.job_ids)):
        ids[:3] = same[number]

    found = GaussianProcessRegression(vectors, tolerance=1e-8).fit(known, rewards).predict(asked)

    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    shown = [np.concatenate([vectors.similarities(pairs), pairs.numbers], axis=1) for pairs in (known, asked)]
    centre, spread = shown[0].mean(axis=0), shown[0].std(axis=0)
    f, g = ((columns - centre) / spread for columns in shown)
    variance = {part: scale**2 for part, scale in DEFAULT_SCALES.items()}
    linear = np.diag([variance["similarity"]] * 2 + [variance["pairs"]] * 2)

    def covariance(left, right, left_shown, right_shown):
        s = unit(vectors.applicants)[left.applicant_ids] @ unit(vectors.applicants)[right.applicant_ids].T
        a = unit(vectors.jobs)[left.job_ids] @ unit(vectors.jobs)[right.job_ids].T
        same_s = left.applicant_ids[:, None] == right.applicant_ids
        same_a = left.job_ids[:, None] == right.job_ids
        return (
            variance["constant"]
            + left_shown @ linear @ right_shown.T
            + variance["action"] * a
            + variance["state"] * s
            + variance["bilinear"] * s * a
            + variance["quadratic"] * (s * a) ** 2
            + variance["same_state"] * same_s
            + variance["same_action"] * same_a
            + variance["same_pair"] * same_s * same_a
        )

    solved = np.linalg.solve(covariance(known, known, f, f) + 0.09 * np.eye(80), rewards - rewards.mean())
    np.testing.assert_allclose(found, rewards.mean() + covariance(asked, known, g, f) @ solved, atol=1e-4)


@pytest.mark.parametrize("name", SUPERVISED)
def test_every_learner_finds_what_a_pair_feature_and_a_job_are_worth(vectors, name):
    known, asked = drawn(3_000, 0), drawn(500, 1)
    worth = np.random.default_rng(3).normal(size=60)

    def reward(pairs):
        return pairs.numbers[:, 0] + 0.5 * worth[pairs.job_ids]

    noise = np.random.default_rng(4).normal(0, 0.3, size=3_000)
    learner = SUPERVISED[name](vectors).fit(known, reward(known) + noise)

    assert np.corrcoef(learner.predict(asked), reward(asked))[0, 1] > 0.9


def test_trees_are_not_told_a_pairs_own_reward_by_its_jobs_mean(vectors, monkeypatch):
    once = ShownPairs(np.arange(60) % 20, np.arange(60), np.zeros((60, 0)))
    rewards = np.random.default_rng(0).normal(size=60)

    told = []
    monkeypatch.setattr(HistGradientBoostingRegressor, "fit", lambda self, columns, rewards: told.append(columns))
    BoostedTrees(vectors).fit(once, rewards)

    assert (told[0][:, -1] == 0).all()  # each job was met once
