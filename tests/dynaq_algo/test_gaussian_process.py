"""The Bayesian world model, against the textbook's formula, and DynaQ with it."""

import numpy as np
import pytest
import torch as th
from toy import D_ACTION, D_STATE, action_table, make_toy

from dynaq_algo import DynaQ
from dynaq_algo.features import BlockwiseFeatures, InteractionFeatures
from dynaq_algo.gaussian_process import DEFAULT_SCALES, GaussianProcess

PRIOR = [0.3, -0.2]
SCALES = {"trust": 0.7, "similarity": 0.1}
BAYESIAN = {"world_model": "gaussian_process", "planning_source": "crossed", "exploration_bonus": 0.5}


def pairs(n, seed=0):
    """Features, and inputs (n, output_dim) of random pairs of 6 + 6 entries."""
    features = BlockwiseFeatures(6, 6, n_blocks=2)
    rng = np.random.default_rng(seed)
    features.fit(rng.normal(size=(50, 6)))
    state, action = (th.as_tensor(rng.normal(size=(n, 6)), dtype=th.float32) for _ in range(2))
    return features, features(state, action)


def by_hand(features, known, reward, asked, noise):
    """Posterior mean and deviation by Rasmussen and Williams (2.25) and (2.26), written out once more."""

    def kernel(left, right):
        unit = []
        for inputs in (left, right):
            vectors = [np.asarray(features.centred(part)) for part in (inputs[:, :6], inputs[:, 6:12])]
            unit.append([v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors])
        s, a = unit[0][0] @ unit[1][0].T, unit[0][1] @ unit[1][1].T
        f = np.asarray(left[:, -2:]) @ np.asarray(right[:, -2:]).T
        v = {part: scale**2 for part, scale in {**DEFAULT_SCALES, **SCALES}.items()}
        means = [np.asarray(inputs[:, -2:]) @ PRIOR for inputs in (left, right)]
        k = v["constant"] + v["similarity"] * f + v["trust"] * np.outer(*means) + v["action"] * a + v["state"] * s
        k = k + v["bilinear"] * s * a + v["quadratic"] * (s * a) ** 2
        ds, da = np.isclose(s, 1, atol=1e-6), np.isclose(a, 1, atol=1e-6)
        return k + v["same_state"] * ds + v["same_action"] * da + v["same_pair"] * (ds & da)

    inverse = np.linalg.inv(kernel(known, known) + noise**2 * np.eye(len(known)))
    cross = kernel(asked, known)
    mean = np.asarray(asked[:, -2:]) @ PRIOR + cross @ inverse @ (reward - np.asarray(known[:, -2:]) @ PRIOR)
    return mean, np.sqrt(np.diag(kernel(asked, asked) - cross @ inverse @ cross.T))


def test_the_posterior_is_the_textbooks_and_repeats_are_further_rewards():
    features, inputs = pairs(20)
    known = th.cat([inputs[:12], inputs[:5], inputs[:1]])
    reward = th.as_tensor(np.random.default_rng(1).normal(size=len(known)), dtype=th.float32)
    model = GaussianProcess(features, prior=PRIOR, scales=SCALES, noise=0.4)

    model.observe(known[:7], reward[:7])
    model.observe(known[7:], reward[7:])
    mean, spread = model(inputs)

    wanted_mean, wanted_spread = by_hand(features, known, reward.numpy(), inputs, 0.4)
    assert model.n_pairs == 12
    np.testing.assert_allclose(mean, wanted_mean, atol=1e-4)
    np.testing.assert_allclose(spread, wanted_spread, atol=1e-4)
    np.testing.assert_array_equal(model(inputs, with_spread=False)[0], mean)


def test_before_any_reward_it_is_the_prior_and_knows_nothing_of_any_pair():
    features, inputs = pairs(5)
    mean, spread = GaussianProcess(features, prior=PRIOR)(inputs)

    np.testing.assert_allclose(mean, inputs[:, -2:] @ th.tensor(PRIOR), atol=1e-6)
    assert (spread > 0.15).all()


def test_what_was_tried_is_known_best_and_the_latest_pairs_are_kept():
    features, inputs = pairs(30)
    model = GaussianProcess(features, max_pairs=10)
    model.observe(inputs[:20], th.zeros(20))
    spread = model(inputs)[1]

    assert model.n_pairs == 10
    assert spread[10:20].max() < spread[20:].min()
    np.testing.assert_array_equal(model._known[2], inputs[10:20, -2:])


def test_a_prior_that_rewards_contradict_is_let_go():
    features, inputs = pairs(300)
    assured, doubting = (GaussianProcess(features, [-0.1, -0.1], {"trust": trust}) for trust in (0.0, 3.0))
    for model in (assured, doubting):
        model.observe(inputs[:40], inputs[:40, -2:].sum(dim=1) * 0.1)

    def likeness(model):
        return np.corrcoef(model(inputs[250:])[0], inputs[250:, -2:].sum(dim=1))[0, 1]

    assert likeness(assured) < 0 < 0.8 < likeness(doubting)


def test_its_state_restores_it_to_the_bit():
    features, inputs = pairs(20)
    model, other = (GaussianProcess(features, prior=PRIOR) for _ in range(2))
    for row in inputs[:15]:
        model.observe(row[None], row[:1])
    model.observe(inputs[:4], inputs[:4, 1])
    other.observe(inputs[15:], inputs[15:, 0])
    other.load_state_dict(model.state_dict())

    for before, after in zip(model(inputs), other(inputs), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scales": {"simlarity": 1.0}}, "did you mean 'similarity'"),
        ({"scales": {"state": -1.0}}, "0 or more"),
        ({"noise": 0.0}, "`noise` must be above 0"),
        ({"prior": [1.0]}, "each of the 2 similarities"),
    ],
)
def test_numbers_out_of_range_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GaussianProcess(pairs(1)[0], **kwargs)


def test_other_features_are_refused():
    with pytest.raises(ValueError, match='must be "blockwise"'):
        GaussianProcess(InteractionFeatures(2, 2))


# ---------------------------------------------------------------------- DynaQ with it


def agent(env, **kwargs):
    policy = {"net_arch": [16], "features": "blockwise", "features_kwargs": {"n_blocks": 1}, "prior": [0.1]}
    arguments = {"seed": 0, "gamma": 0.0, "device": "cpu", "learning_starts": 0, "planning_steps": 2, **BAYESIAN}
    return DynaQ("CandidatePolicy", env, **{**arguments, "policy_kwargs": policy, **kwargs})


def test_it_begins_as_its_prior_and_chooses_by_similarity():
    env = make_toy(ids=True)
    model = agent(env)
    obs, _ = env.reset(seed=3)
    features = model.policy.features
    user, shown = th.as_tensor(obs["user"]).expand(4, -1), th.as_tensor(action_table()[obs["candidates"]])

    np.testing.assert_allclose(model.q_values(obs)[0], 0.1 * features.similarities(user, shown)[:, 0], atol=1e-6)
    np.testing.assert_allclose(model.predict_reward(obs), model.q_values(obs), atol=1e-6)


def test_every_transition_is_learned_once_and_q_follows_the_model():
    model = agent(make_toy(ids=True), planning_steps=8, learning_rate=3e-3).learn(300)

    assert model.world_model._counts.sum() == 300
    env = make_toy(ids=True)
    q, imagined = [], []
    for seed in range(50):
        obs, _ = env.reset(seed=1_000 + seed)
        q.append(model.q_values(obs)[0])
        imagined.append(model.predict_reward(obs)[0])
    assert np.corrcoef(np.ravel(q), np.ravel(imagined))[0, 1] > 0.9


def test_the_bonus_is_added_while_exploring_only():
    env = make_toy(ids=True)
    model = agent(env, exploration_bonus=100.0, exploration_initial_eps=0.0, exploration_final_eps=0.0).learn(40)
    obs, _ = env.reset(seed=5)
    state = th.as_tensor(obs["user"])[None]
    with th.no_grad():
        spread = model.world_model.score(state, th.as_tensor(action_table()[obs["candidates"]])[None])[1]

    np.testing.assert_array_equal(model.reward_spread(obs), spread)
    assert model.predict(obs)[0] == int(spread.argmax())
    assert model.predict(obs, deterministic=True)[0] == model.q_values(obs).argmax()


def test_a_checkpoint_resumes_to_the_bit_and_a_zip_keeps_the_model(tmp_path):
    first = agent(make_toy(ids=True)).learn(60)
    obs, _ = make_toy(ids=True).reset(seed=9)

    first.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(ids=True), device="cpu")
    for model in (first, resumed):
        model.learn(30, reset_num_timesteps=False)
    np.testing.assert_array_equal(first.q_values(obs), resumed.q_values(obs))
    np.testing.assert_array_equal(first.predict_reward(obs), resumed.predict_reward(obs))

    first.save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", make_toy(ids=True), device="cpu")
    np.testing.assert_array_equal(first.predict_reward(obs), loaded.predict_reward(obs))
    assert first.policy.features.state_dim == D_STATE == D_ACTION


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"world_model": "gaussian"}, "did you mean 'gaussian_process'"),
        ({"exploration_bonus": -1.0}, "`exploration_bonus` must be a finite number"),
        ({"relabel": True}, "`relabel`"),
    ],
)
def test_arguments_that_cannot_be_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        agent(make_toy(ids=True), **kwargs)
