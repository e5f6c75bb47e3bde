"""Contextual bandits on any Dict environment with candidates."""

import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    CallbackList,
    EvalCallback,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from toy import N_ACTIONS, N_CANDIDATES, N_PAIRS, ToyEnv, ToyVectorEnv, action_table, make_toy

from dynaq_algo import Bandit, DynaQ, GaussianProcessBandit, LinearBandit, bandits, gaussian_process
from dynaq_algo.features import PairResiduals, SeenActions, SeenPairs
from dynaq_algo.validity import NothingLearned

CLASSES = {
    "linear": (LinearBandit, {}),
    "linear_blocks": (LinearBandit, {"similarities": "blocks", "n_blocks": 3}),
    "linear_ts": (LinearBandit, {"exploration": "thompson", "alpha": 0.3}),
    "gp": (GaussianProcessBandit, {"n_blocks": 1, "prior": [0.0]}),
    "gp_ts": (GaussianProcessBandit, {"n_blocks": 1, "prior": None, "exploration": "thompson", "alpha": 0.3}),
    "gp_all": (GaussianProcessBandit, {"n_blocks": 3, "prior": [0.1] * 3, "spike_slab": True, "fit_scales": True}),
}
each = pytest.mark.parametrize("name", CLASSES)
both = pytest.mark.parametrize("name", ["linear", "gp"])


def make(name, env, **arguments):
    bandit_class, its_own = CLASSES[name]
    return bandit_class(env, **{"seed": 0, **its_own, **arguments})


def shown(n=100, **toy):
    """n first observations of episodes, as one batch, and what each candidate would earn."""
    env = ToyEnv(ids=True, **toy)
    batch, earned = [], []
    for seed in range(n):
        obs, _ = env.reset(seed=5_000 + seed)
        batch.append(obs)
        env.allowed[:] = True
        earned.append([env.step(i)[1] for i in range(N_CANDIDATES)])
    return {key: np.stack([obs[key] for obs in batch]) for key in batch[0]}, np.array(earned)


def as_features(obs):
    return {**obs, "candidates": action_table()[obs["candidates"]]}


def score(bandit, obs, earned):
    """1 for the best choices, 0 for random ones."""
    chosen = earned[np.arange(len(earned)), bandit.predict(obs, deterministic=True)[0]]
    return (chosen - earned.mean(axis=1)).sum() / (earned.max(axis=1) - earned.mean(axis=1)).sum()


# ---------------------------------------------------------------------- the posterior


def regression(features, rewards, prior_mean, prior_std, noise):
    precision = np.diag(1 / prior_std**2) + features.T @ features / noise**2
    mean = np.linalg.solve(precision, prior_mean / prior_std**2 + features.T @ rewards / noise**2)
    return mean, np.linalg.inv(precision)


@pytest.mark.parametrize("residual_pairs", [True, False])
@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("similarities", ["cosine", "blocks"])
def test_the_posterior_is_that_of_bayesian_regression(similarities, ids, residual_pairs):
    bandit = LinearBandit(
        make_toy(ids=ids, pairs=True),
        noise=0.5,
        prior_std=0.2,
        constant_std=0.7,
        pairs_std=0.4,
        cosine_prior=0.3,
        pairs_prior=[0.0, -0.1],
        residual_pairs=residual_pairs,
        similarities=similarities,
        n_blocks=3,
    )
    obs, earned = shown(60, pairs=True)
    obs = obs if ids else as_features(obs)
    actions = np.random.default_rng(0).integers(N_CANDIDATES, size=60)
    rewards = earned[np.arange(60), actions]
    for start in range(0, 60, 7):  # the scale of features changes on the way
        rows = slice(start, start + 7)
        bandit.observe({key: values[rows] for key, values in obs.items()}, actions[rows], rewards[rows])
    version = bandit.features.version
    scores = bandit.q_values(obs)

    features = bandit.linear_features(obs)
    n_weighed = (1 if similarities == "cosine" else 3) + N_PAIRS
    assert features.shape == (60, N_CANDIDATES, 1 + 3 + 3 + n_weighed)
    prior_mean, prior_std = np.zeros(features.shape[2]), np.full(features.shape[2], 0.2)
    prior_mean[-n_weighed:], prior_mean[-2:] = 0.3, [0.0, -0.1]
    prior_std[0], prior_std[-2:] = 0.7, 0.4
    mean, covariance = regression(features[np.arange(60), actions], rewards, prior_mean, prior_std, 0.5)
    assert version >= 4
    np.testing.assert_allclose(bandit._mean, mean, atol=1e-8)
    np.testing.assert_allclose(bandit._covariance, covariance, atol=1e-8)
    np.testing.assert_allclose(scores, features @ mean, atol=1e-8)


@pytest.mark.parametrize("similarities", ["cosine", "blocks"])
def test_residuals_stand_for_the_numbers_whose_weight_has_no_prior_mean(similarities):
    obs, earned = shown(40, pairs=True)
    n_blocks = 1 if similarities == "cosine" else 3
    own = {"similarities": similarities, "n_blocks": 3}

    def inputs(**arguments):
        bandit = LinearBandit(make_toy(ids=True, pairs=True), **own, **arguments)
        bandit.observe(obs, np.zeros(40, int), earned[:, 0])
        return bandit.linear_features(obs)[..., -n_blocks - N_PAIRS :].reshape(-1, n_blocks + N_PAIRS)

    raw = inputs()
    np.testing.assert_array_equal(inputs(residual_pairs=True, pairs_prior=[0.1, 0.2]), raw)
    for prior, is_left in ((None, [True, True]), ([0.1, 0.0], [False, True])):
        found = inputs(residual_pairs=True, pairs_prior=prior)
        for number, (left, column) in enumerate(zip(is_left, range(n_blocks, n_blocks + N_PAIRS), strict=True)):
            assert np.array_equal(found[:, column], raw[:, column]) != left, number
    likeness, left = found[:, :n_blocks], found[:, -1]
    np.testing.assert_allclose((likeness - likeness.mean(axis=0)).T @ left / len(left), 0, atol=0.03)
    assert left.std() == pytest.approx(1, abs=1e-3)


def test_cosine_features_are_a_constant_the_action_the_product_and_the_standardised_cosine():
    bandit = LinearBandit(make_toy(ids=True))
    obs, _ = shown(20)
    features = bandit.linear_features(obs)

    table, user = action_table().astype(float), obs["user"][:, None].astype(float)
    centred = table - table.mean(axis=0)
    action = (centred / np.linalg.norm(centred, axis=1).mean())[obs["candidates"]]
    product = user * table[obs["candidates"]] * 3**0.5 / 2
    np.testing.assert_array_equal(features[..., 0], 1.0)
    np.testing.assert_allclose(features[..., 1:4], action, atol=1e-6)
    np.testing.assert_allclose(features[..., 4:7], product, atol=1e-6)
    cosine = product.sum(axis=2) / np.linalg.norm(user, axis=2) / np.linalg.norm(table[obs["candidates"]], axis=2)
    assert np.corrcoef(features[..., 7].ravel(), cosine.ravel())[0, 1] == pytest.approx(1.0, abs=1e-6)


def test_ucb_adds_deviations_and_thompson_draws_them_jointly():
    ucb, lints = (LinearBandit(make_toy(ids=True), exploration=kind, alpha=2.0, seed=0) for kind in ("ucb", "thompson"))
    obs, earned = shown(20)
    for bandit in (ucb, lints):
        bandit.observe(obs, np.zeros(20, int), earned[:, 0])
    features = ucb.linear_features(obs)
    joint = 4.0 * np.einsum("nkd,de,nle->nkl", features, ucb._covariance, features)
    deviation = np.sqrt(np.einsum("nkk->nk", joint))

    np.testing.assert_allclose(ucb.explore(obs), ucb.q_values(obs) + deviation, atol=1e-10)
    draws = np.stack([lints.explore(obs) for _ in range(2_000)])
    np.testing.assert_allclose(draws.mean(axis=0), lints.q_values(obs), atol=0.1 * deviation.max())
    np.testing.assert_allclose(draws.std(axis=0), deviation, rtol=0.1)
    np.testing.assert_allclose(np.cov(draws[:, 0].T), joint[0], atol=0.1 * joint[0].max())


def test_with_more_candidates_than_weights_thompson_draws_weights():
    lints = LinearBandit(make_toy(ids=True), exploration="thompson", alpha=2.0, seed=0)
    obs, earned = shown(4)
    lints.observe(obs, np.zeros(4, int), earned[:, 0])
    many = {**obs, "candidates": np.tile(obs["candidates"], 3)}
    features = lints.linear_features(many)
    assert features.shape[1] > features.shape[2]
    joint = 4.0 * np.einsum("nkd,de,nle->nkl", features, lints._covariance, features)
    draws = np.stack([lints.explore(many) for _ in range(2_000)])
    np.testing.assert_allclose(draws.mean(axis=0), lints.q_values(many), atol=0.1 * joint.max() ** 0.5)
    for row in range(4):  # the draws of one decision say nothing of another's
        np.testing.assert_allclose(np.cov(draws[:, row].T), joint[row], atol=0.12 * joint.max())
    assert abs(np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1]) < 0.1


@pytest.mark.parametrize("name", ["linear", "linear_ts", "gp"])
def test_scores_do_not_depend_on_how_candidates_are_cut(name, monkeypatch):
    obs, earned = shown(6)
    many = {**obs, "candidates": np.tile(obs["candidates"], 10)}

    def scores():
        bandit = make(name, make_toy(ids=True), alpha=0.5)
        bandit.observe(obs, np.zeros(6, int), earned[:, 0])
        return bandit.q_values(many), bandit.explore(many)

    at_once = scores()
    for module in (bandits, gaussian_process):
        monkeypatch.setattr(module, "_SCORED" if module is bandits else "_PIECE", 7)
    for whole, cut in zip(at_once, scores(), strict=True):
        np.testing.assert_allclose(cut, whole, atol=1e-6)


def test_an_empty_batch_has_no_scores():
    obs, _ = shown(2)
    for name in CLASSES:
        empty = {key: values[:0] for key, values in obs.items()}
        assert make(name, make_toy(ids=True)).predict(empty)[0].shape == (0,)


def test_an_answer_whose_products_overflow_is_refused_and_changes_nothing():
    obs, earned = shown(3)
    bandit = make("linear", make_toy())
    obs = as_features(obs)
    bandit.observe(obs, np.zeros(3, int), earned[:, 0])
    before = bandit.q_values(obs)
    huge = {key: values * np.float32(1e25) if values.dtype.kind == "f" else values for key, values in obs.items()}
    with pytest.raises(ValueError, match="`observation` has numbers so large"):
        bandit.observe(huge, np.zeros(3, int), earned[:, 0])
    np.testing.assert_array_equal(bandit.q_values(obs), before)
    with pytest.raises(ValueError, match="have NaN among them"):
        bandit.predict(huge)


@both
def test_a_path_without_a_suffix_gets_one_as_in_sb3(name, tmp_path):
    bandit = make(name, make_toy(ids=True))
    bandit.save(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.zip"]
    for path in ("mine", "mine.zip"):
        assert isinstance(type(bandit).load(tmp_path / path, make_toy(ids=True)), type(bandit))
    with pytest.raises(FileNotFoundError, match="There is no agent at"):
        type(bandit).load(tmp_path / "other", make_toy(ids=True))


@both
def test_sb3s_callbacks_that_write_logs_run(name, capsys):
    bandit = make(name, make_toy(ids=True))
    bandit.set_logger(configure(None, ["stdout"]))
    bandit.learn(20, callback=LogEveryNTimesteps(10))
    assert "total_timesteps | 20" in " ".join(capsys.readouterr().out.split())
    assert (bandit.n_envs, bandit.action_space) == (1, bandit.env.action_space)
    assert bandit.observation_space == bandit.env.observation_space


def test_the_gaussian_process_adds_deviations_and_draws_them_jointly():
    ucb, lints = (make(name, make_toy(ids=True), alpha=2.0) for name in ("gp", "gp_ts"))
    obs, earned = shown(20)
    for bandit in (ucb, lints):
        bandit.observe(obs, np.zeros(20, int), earned[:, 0])
    asked = {key: values[:2] for key, values in obs.items()}
    state, candidates = th.as_tensor(asked["user"]), th.as_tensor(action_table()[asked["candidates"]])
    mean, spread = ucb.model.score(state, candidates)

    np.testing.assert_array_equal(ucb.q_values(asked), mean)
    np.testing.assert_allclose(ucb.explore(asked), mean + 2.0 * spread, atol=1e-6)
    draws = np.stack([lints.explore(asked) for _ in range(2_000)])
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.1 * float(2 * spread.max()))
    np.testing.assert_allclose(draws.std(axis=0), 2.0 * spread, rtol=0.1)
    for i in range(2):
        joint = 4.0 * np.asarray(ucb.model.joint(state[i], candidates[i])[1])
        np.testing.assert_allclose(np.cov(draws[:, i].T), joint, atol=0.1 * joint.max())


@each
def test_without_alpha_it_is_greedy(name):
    bandit = make(name, make_toy(ids=True), alpha=0.0).learn(30)
    obs, _ = shown(20)
    np.testing.assert_allclose(bandit.explore(obs), bandit.q_values(obs), atol=1e-6)


@pytest.mark.parametrize("exploration", ["ucb", "thompson"])
def test_a_prior_of_pairs_ranks_by_them_at_first(exploration):
    obs, _ = shown(20, pairs=True)
    for name, arguments in (("linear", {"pairs_prior": [0.0, 0.5]}), ("gp", {"prior": [0.0, 0.0, 0.5]})):
        bandit = make(name, make_toy(ids=True, pairs=True), exploration=exploration, **arguments)
        np.testing.assert_array_equal(bandit.q_values(obs).argmax(axis=1), obs["pairs"][..., 1].argmax(axis=1))


# ---------------------------------------------------------------------- learning


@pytest.fixture
def registered():
    """The id of the toy environment with ids."""
    gym.register("Toy-v0", ToyEnv, max_episode_steps=5, kwargs={"ids": True})
    yield "Toy-v0"
    gym.registry.pop("Toy-v0")


ENVIRONMENTS = {
    "single": lambda: make_toy(ids=True),
    "features": lambda: make_toy(),
    "pairs": lambda: make_toy(ids=True, pairs=True),
    "DummyVecEnv": lambda: DummyVecEnv([lambda: make_toy(ids=True)] * 3),
    "VectorEnv": lambda: ToyVectorEnv(3, ids=True),
    "VectorEnv of features": lambda: ToyVectorEnv(3, mask=True),
    "SyncVectorEnv": lambda: gym.vector.SyncVectorEnv(
        [lambda: make_toy(ids=True)] * 3, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP
    ),
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
@each
def test_it_learns_on_any_environment(name, kind):
    bandit = make(name, ENVIRONMENTS[kind]())
    obs, earned = shown(pairs=kind == "pairs", mask="features" in kind and "VectorEnv" in kind)
    obs = as_features(obs) if "features" in kind else obs

    assert bandit.learn(150) is bandit
    assert bandit.num_timesteps == 150
    if bandit.layout.has_mask:
        obs["action_mask"][:] = 1  # that of the last step hides one
    assert score(bandit, obs, earned) > 0.7


@both
def test_it_learns_on_an_id(name, registered):
    obs, earned = shown()
    assert score(make(name, registered).learn(150), obs, earned) > 0.7


@both
def test_masked_candidates_are_never_chosen_and_a_decision_without_a_choice_is_refused(name):
    bandit = make(name, make_toy(ids=True, mask=True)).learn(60)  # the toy asserts it
    obs, _ = shown(50, mask=True)
    best = bandit.q_values(obs).argmax(axis=1)
    obs["action_mask"] = 1 - np.eye(N_CANDIDATES, dtype=np.int8)[best]
    for deterministic in (True, False):
        assert (bandit.predict(obs, deterministic=deterministic)[0] != best).all()
    obs["action_mask"][3] = 0
    with pytest.raises(ValueError, match="must allow at least one candidate, row 3 allows none"):
        bandit.predict(obs)


@each
def test_a_mask_counts_although_there_was_none_in_training(name):
    bandit = make(name, make_toy(ids=True)).learn(20)
    obs, _ = shown(50)
    best = bandit.q_values(obs).argmax(axis=1)
    obs["action_mask"] = 1 - np.eye(N_CANDIDATES, dtype=np.int8)[best]
    for deterministic in (True, False):
        assert (bandit.predict(obs, deterministic=deterministic)[0] != best).all()


@pytest.mark.parametrize("name", ["linear", "linear_blocks"])
def test_a_linear_bandit_learns_the_same_from_batches_and_one_by_one(name, monkeypatch):
    monkeypatch.setattr("dynaq_algo.bandits._TOGETHER", 32)
    obs, earned = shown(n=70)
    actions, rewards = np.arange(70) % N_CANDIDATES, earned[np.arange(70), np.arange(70) % N_CANDIDATES]
    together, alone = (make(name, make_toy(ids=True)) for _ in range(2))
    together.observe(obs, actions, rewards)
    for row in range(70):
        alone.observe({key: values[row] for key, values in obs.items()}, actions[row], rewards[row])

    learned, expected = together.get_learned(), alone.get_learned()
    assert np.abs(expected["mean"]).max() > 0.05
    for entry in ("mean", "covariance"):
        np.testing.assert_allclose(learned[entry], expected[entry], rtol=0, atol=1e-12)


def test_a_linear_bandit_with_next_to_no_noise_learns_from_equal_answers():
    obs, earned = shown(n=1)
    many = {key: np.repeat(values, 40, axis=0) for key, values in obs.items()}
    bandit = make("linear", make_toy(ids=True), noise=1e-6, prior_std=100)
    bandit.observe(many, np.zeros(40, int), np.full(40, earned[0, 0]))

    assert bandit.q_values(obs)[0, 0] == pytest.approx(earned[0, 0], abs=1e-6)


@each
def test_predict_answers_one_observation_and_a_batch(name):
    bandit = make(name, make_toy(ids=True)).learn(20)
    obs, _ = shown(7)
    one = {key: values[2] for key, values in obs.items()}

    actions, state = bandit.predict(obs, deterministic=True)
    action, passed = bandit.predict(one, state=("kept",), deterministic=True)
    assert actions.shape == (7,) and action.shape == () and action == actions[2]
    assert (state, passed) == (None, ("kept",))
    assert bandit.q_values(obs).shape == bandit.explore(obs).shape == (7, N_CANDIDATES)
    np.testing.assert_allclose(bandit.q_values(one), bandit.q_values(obs)[2:3], atol=1e-6)
    assert bandit.q_values({key: values[:0] for key, values in obs.items()}).shape == (0, N_CANDIDATES)


@each
@pytest.mark.parametrize("k", [1, 3, N_ACTIONS])
def test_it_answers_for_another_number_of_candidates_than_in_training(name, k):
    bandit = make(name, make_toy(ids=True, pairs=True)).learn(60)
    obs, _ = shown(6, pairs=True)
    other = {**obs, "candidates": np.tile(np.arange(k), (6, 1)), "pairs": np.full((6, k, N_PAIRS), 0.5, np.float32)}

    assert bandit.q_values(other).shape == bandit.explore(other).shape == (6, k)
    assert (bandit.predict(other)[0] < k).all()
    bandit.observe(other, np.full(6, k - 1), np.ones(6))
    with pytest.raises(ValueError, match=rf"`pairs` must have shape \(6, {k}, {N_PAIRS}\)"):
        bandit.predict({**other, "pairs": np.zeros((6, k + 1, N_PAIRS), np.float32)})


@pytest.mark.parametrize("ids", [True, False])
@each
def test_what_is_observed_outside_of_learn_teaches_the_same(name, ids):
    within = make(name, make_toy(ids=ids, pairs=True)).learn(60)

    env = make_toy(ids=ids, pairs=True)
    outside = make(name, env)
    obs, _ = env.reset(seed=0)
    for _ in range(60):
        action, _ = outside.predict(obs)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        outside.observe(obs, action, np.float32(reward))  # a VecEnv's rewards are of that precision
        obs = env.reset()[0] if terminated or truncated else next_obs

    assert within.features.version > 3
    asked, _ = shown(20, pairs=True)
    asked = asked if ids else as_features(asked)
    np.testing.assert_array_equal(within.q_values(asked), outside.q_values(asked))
    np.testing.assert_array_equal(within.explore(asked), outside.explore(asked))


@both
def test_prediction_teaches_nothing(name):
    bandit = make(name, make_toy(pairs=True))
    obs, _ = shown(20, pairs=True)
    obs = as_features(obs)
    before = bandit.q_values(obs)
    for _ in range(3):
        bandit.predict(obs)
    np.testing.assert_array_equal(bandit.q_values(obs), before)
    assert bandit.features.version == 0


@both
@pytest.mark.parametrize("n_envs", [1, 2])
def test_invalid_transitions_are_left_out(name, n_envs, monkeypatch):
    bandit = make(name, DummyVecEnv([lambda: make_toy(ids=True, invalid=True)] * n_envs))
    bandit.env.reset()
    bandit.env.step(np.zeros(n_envs, int))
    if n_envs == 2:  # every second one means something, of another environment each time
        bandit.env.envs[0].reset()
    seen = []
    observe = bandit.observe
    monkeypatch.setattr(bandit, "observe", lambda obs, *rest: (seen.append((obs, *rest)), observe(obs, *rest)))
    monkeypatch.setattr(bandit.env, "seed", lambda seed: None)
    bandit._last_obs = {
        key: np.stack([env.unwrapped._obs()[key] for env in bandit.env.envs]) for key in ("candidates", "user")
    }
    before = {key: values.copy() for key, values in bandit._last_obs.items()}
    with pytest.warns(UserWarning, match="2 of 4 transitions were not valid"):
        bandit.learn(4, reset_num_timesteps=False)

    if n_envs == 1:  # steps 2 and 4 of the episode
        assert [len(np.atleast_1d(reward)) for _, _, reward in seen] == [1, 1]
    else:
        assert [len(reward) for _, _, reward in seen] == [1, 1]
        np.testing.assert_array_equal(seen[0][0]["candidates"], before["candidates"][1:])
        np.testing.assert_array_equal(seen[1][0]["candidates"], before["candidates"][:1])


@both
def test_a_learning_phase_in_which_nothing_was_valid_is_refused(name):
    bandit = make(name, make_toy(ids=True, invalid=True, max_episode_steps=1))
    with pytest.raises(NothingLearned, match="None of the 5 transitions was valid"):
        bandit.learn(5)


@both
def test_callbacks_stop_it_and_those_of_sb3_run(name, tmp_path):
    bandit = make(name, make_toy(ids=True))
    assert bandit.learn(50, callback=lambda local, _: local["self"].num_timesteps < 7).num_timesteps == 7
    assert bandit.learn(500, callback=StopTrainingOnMaxEpisodes(max_episodes=3)).num_timesteps == 15
    evaluation = EvalCallback(
        VecNormalize(
            DummyVecEnv([lambda: Monitor(make_toy(ids=True))]), norm_obs=False, norm_reward=False, training=False
        ),
        eval_freq=10,
        n_eval_episodes=2,
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    with pytest.warns(UserWarning, match="not of the same type"):
        bandit.learn(20, callback=CallbackList([evaluation]))
    assert isinstance(type(bandit).load(tmp_path / "best_model", make_toy(ids=True)), type(bandit))
    assert len(evaluate_policy(bandit, make_toy(ids=True), 2, return_episode_rewards=True, warn=False)[0]) == 2


@both
def test_learning_goes_on_in_the_environment_and_never_plays_the_same_again(name):
    bandit = make(name, make_toy(ids=True))
    users = []

    def note(local, _):
        users.append(local["obs"]["user"].tobytes())
        return True

    bandit.learn(10, callback=note)
    bandit.learn(10, callback=note)  # SB3 seeds environments once, too
    assert (bandit.num_timesteps, len(set(users))) == (10, 4)
    bandit.learn(3, callback=note, reset_num_timesteps=False)
    bandit.learn(2, callback=note, reset_num_timesteps=False)
    assert (bandit.num_timesteps, len(set(users))) == (15, 5)

    again = []
    make(name, make_toy(ids=True)).learn(
        10, callback=lambda local, _: (again.append(local["obs"]["user"].tobytes()), True)[1]
    )
    assert again == users[:10]


# ---------------------------------------------------------------------- save and load


@pytest.mark.parametrize("ids", [True, False])
@each
def test_a_saved_one_acts_and_goes_on_learning_equally_to_the_bit(name, ids, tmp_path):
    env = make_toy(ids=ids, pairs=True)
    first = make(name, env).learn(70)
    first.save(tmp_path / "bandit.zip")
    second = type(first).load(tmp_path / "bandit.zip", make_toy(ids=ids, pairs=True))
    obs, earned = shown(90, pairs=True)
    obs = obs if ids else as_features(obs)

    assert second.num_timesteps == 70
    for start in range(0, 90, 9):  # the scale of features changes on the way
        part = {key: values[start : start + 9] for key, values in obs.items()}
        np.testing.assert_array_equal(first.q_values(part), second.q_values(part))
        actions = first.predict(part)[0]
        np.testing.assert_array_equal(actions, second.predict(part)[0])
        for bandit in (first, second):
            bandit.observe(part, actions, earned[start : start + 9][np.arange(9), actions])
    np.testing.assert_array_equal(first.explore(obs), second.explore(obs))
    assert first.features.version == second.features.version


@both
@pytest.mark.parametrize("ids", [True, False])
def test_what_was_learned_is_a_copy(name, ids):
    # With ids nothing but the posterior changes, with features their scale does, too.
    first, second = (make(name, make_toy(ids=ids, pairs=not ids)) for _ in range(2))
    obs, earned = shown(30, pairs=not ids)
    obs = obs if ids else as_features(obs)
    first.observe(obs, np.zeros(30, int), earned[:, 0])
    learned = first.get_learned()
    kept = {key: values.copy() for key, values in learned.items()}
    second.set_learned(learned)
    for bandit in (first, second):
        bandit.observe(obs, np.ones(30, int), earned[:, 1])
        for key, values in kept.items():
            np.testing.assert_array_equal(learned[key], values)
    np.testing.assert_array_equal(first.q_values(obs), second.q_values(obs))


def test_an_observation_that_the_caller_writes_into_changes_nothing():
    bandit, other = (LinearBandit(make_toy()) for _ in range(2))
    obs, earned = shown(30)
    obs = as_features(obs)
    buffer = {key: values.copy() for key, values in obs.items()}
    bandit.observe(buffer, np.zeros(30, int), earned[:, 0])
    other.observe(obs, np.zeros(30, int), earned[:, 0])
    for values in buffer.values():
        values[:] = 9.0
    more = {**obs, "candidates": 3 + np.random.default_rng(0).random(obs["candidates"].shape, np.float32)}
    for one in (bandit, other):
        one.observe(more, np.zeros(30, int), earned[:, 0])
    assert other.features.version == 2
    np.testing.assert_array_equal(bandit.q_values(obs), other.q_values(obs))


def test_it_forgets_what_it_learned_from_once_its_features_are_settled(monkeypatch):
    monkeypatch.setattr(SeenActions, "LOOKED_AT", 10 * N_CANDIDATES)
    for counted in (SeenPairs, PairResiduals):
        monkeypatch.setattr(counted, "CAPACITY", 20 * N_CANDIDATES)
    bandit = make("linear", make_toy(pairs=True), residual_pairs=True).learn(19)
    assert len(bandit._rewards) == 19
    bandit.learn(1, reset_num_timesteps=False)
    assert not bandit._rewards and not [key for key in bandit.get_learned() if key.startswith("seen:")]


def test_a_settled_bandit_that_an_earlier_version_saved_keeps_what_it_learned(monkeypatch):
    monkeypatch.setattr(SeenActions, "LOOKED_AT", 10 * N_CANDIDATES)
    monkeypatch.setattr(SeenPairs, "CAPACITY", 10 * N_CANDIDATES)
    saved, loaded = (make("linear", make_toy(pairs=True), residual_pairs=True) for _ in range(2))
    saved.learn(30)
    learned = saved.get_learned()
    loaded.set_learned({name: values for name, values in learned.items() if "residuals" not in name})
    obs, earned = shown(1, pairs=True)
    obs = as_features(obs)
    before = loaded._mean.clone()
    loaded.observe(obs, [0], earned[:, 0])
    assert 0 < (loaded._mean - before).abs().max() < 0.5 * before.abs().max()


@both
def test_another_class_other_observations_or_another_file_are_refused(name, tmp_path):
    bandit = make(name, make_toy(ids=True))
    bandit.save(tmp_path / "bandit.zip")
    other = {"linear": GaussianProcessBandit, "gp": LinearBandit}[name]
    with pytest.raises(ValueError, match=f"holds a {type(bandit).__name__}: load it by {type(bandit).__name__}.load"):
        other.load(tmp_path / "bandit.zip", make_toy(ids=True))
    with pytest.raises(
        ValueError, match=r"`env` must show .*`observation` was 'ids', and is 'features' here.*training"
    ):
        type(bandit).load(tmp_path / "bandit.zip", make_toy())
    with pytest.raises(ValueError, match=r"`env` must show .*`observation` was 'ids', and is 'features' here"):
        bandit.set_env(make_toy())
    assert bandit.reads["observation"] == "ids"
    bandit.set_env(make_toy(ids=True))
    DynaQ("CandidatePolicy", make_toy(ids=True), device="cpu").save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match="holds no bandit"):
        type(bandit).load(tmp_path / "agent.zip", make_toy(ids=True))


def test_loading_takes_other_arguments_and_a_seed_gives_new_draws(tmp_path):
    bandit = make("linear_ts", make_toy(ids=True), seed=np.int64(3), noise=np.float32(0.2)).learn(10)
    bandit.save(tmp_path / "bandit")
    obs, _ = shown(5)
    greedy, reseeded, alike = (
        LinearBandit.load(tmp_path / "bandit", make_toy(ids=True), **arguments)
        for arguments in ({"alpha": 0.0}, {"seed": 4}, {})
    )
    np.testing.assert_array_equal(greedy.explore(obs), bandit.q_values(obs))
    draws = bandit.explore(obs)
    np.testing.assert_array_equal(alike.explore(obs), draws)
    assert (reseeded.explore(obs) != draws).any()
    with zipfile.ZipFile(tmp_path / "bandit.zip") as archive:
        assert sorted(archive.namelist()) == ["arguments.json", "learned.npz"]


def test_a_loaded_process_takes_another_prior_for_the_same_rewards(tmp_path):
    env = make_toy(ids=True, new_candidates=True)
    given = {"prior": [0.3], "n_blocks": 1, "seed": 0}
    GaussianProcessBandit(env, **given).learn(40).save(tmp_path / "bandit")
    for changed in ({"prior": [-0.3]}, {"noise": 0.9}, {"scales": {"action": 0.5}}, {"max_pairs": 10}):
        loaded = GaussianProcessBandit.load(tmp_path / "bandit", env, **changed)
        found = loaded.q_values(shown(5)[0])
        loaded.model._solve()
        np.testing.assert_allclose(found, loaded.q_values(shown(5)[0]), atol=1e-6)
    assert loaded.model.n_pairs == 10
    assert GaussianProcessBandit.load(tmp_path / "bandit", env, noise=0.9).model.noise == 0.9
    assert GaussianProcessBandit.load(tmp_path / "bandit", env, scales={"action": 0.5}).model.scales["action"] == 0.5
    agent = DynaQ.plus(env, policy_kwargs={"prior": [0.3], "features_kwargs": {"n_blocks": 1}}, device="cpu").learn(30)
    agent.save(tmp_path / "agent.zip")
    changed = {**agent.world_model_kwargs, "noise": 0.9, "max_pairs": 10}
    model = DynaQ.load(tmp_path / "agent.zip", env, world_model_kwargs=changed).world_model
    assert (model.noise, model.n_pairs) == (0.9, 10)


def test_what_a_linear_bandit_learned_under_is_not_replaced(tmp_path):
    bandit = LinearBandit(make_toy(ids=True), noise=0.2, seed=0).learn(20)
    bandit.save(tmp_path / "bandit")
    for changed in ({"noise": 0.3}, {"prior_std": 0.1}, {"cosine_prior": 0.5}, {"pairs_prior": []}, {"n_blocks": 1}):
        with pytest.raises(ValueError, match=f"`{next(iter(changed))}` must be left out, or be that of the saved ba"):
            LinearBandit.load(tmp_path / "bandit", make_toy(ids=True), **changed)
    loaded = LinearBandit.load(tmp_path / "bandit", make_toy(ids=True), noise=0.2, alpha=0.5)
    np.testing.assert_array_equal(loaded.q_values(shown(5)[0]), bandit.q_values(shown(5)[0]))


@both
def test_ids_need_a_table_of_the_environment_or_given(name, tmp_path):
    class Bare(ToyEnv):
        def __init__(self):
            super().__init__(ids=True)
            del self.action_features

    with pytest.raises(ValueError, match="`action_features` must be given where `candidates` are ids"):
        make(name, Bare())
    np.save(tmp_path / "table.npy", action_table())
    given, own = make(name, Bare(), action_features=tmp_path / "table.npy"), make(name, make_toy(ids=True))
    obs, earned = shown(20)
    for bandit in (given, own):
        bandit.observe(obs, np.zeros(20, int), earned[:, 0])
    np.testing.assert_array_equal(given.q_values(obs), own.q_values(obs))
    given.save(tmp_path / "bandit.zip")
    loaded = type(given).load(tmp_path / "bandit.zip", Bare(), action_features=action_table())
    np.testing.assert_array_equal(given.q_values(obs), loaded.q_values(obs))


# ---------------------------------------------------------------------- what is refused


@both
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"action": [0, 1]}, "`action` must have 3 rows, as `observation` has, got 2"),
        ({"reward": 1.0}, "`reward` must have 3 rows, as `observation` has, got 1"),
        (
            {"action": [0, 1, N_CANDIDATES]},
            rf"`action` must be in \[0, {N_CANDIDATES}\), the candidates shown, row 2 is {N_CANDIDATES}",
        ),
        ({"action": [0, -1, 1]}, rf"`action` must be in \[0, {N_CANDIDATES}\), the candidates shown, row 1 is -1"),
        ({"action": [0.0, 1.0, 1.0]}, "`action` must be integers, indices of candidates, got float64"),
        ({"reward": [0.0, np.nan, 1.0]}, "`reward` must be finite, row 1 is nan.*Leave out"),
        ({"user": np.full((3, 3), np.nan, np.float32)}, "`observation` must hold finite numbers, row 0.*in its state"),
        (
            {"pairs": np.full((3, 4, N_PAIRS), np.inf, np.float32)},
            "`observation` must hold finite numbers, row 0.*in its pairs",
        ),
        ({"candidates": np.full((3, N_CANDIDATES), -1)}, r"Ids must be in \[0, 12\)"),
    ],
)
def test_what_is_no_answer_is_refused_and_teaches_nothing(name, changed, message):
    bandit = make(name, make_toy(ids=True, pairs=True))
    obs, _ = shown(3, pairs=True)
    before = bandit.q_values(obs)
    answer = {"action": np.zeros(3, int), "reward": np.ones(3), **changed}
    observed = {**obs, **{key: value for key, value in changed.items() if key in obs}}
    with pytest.raises(ValueError, match=message):
        bandit.observe(observed, answer["action"], answer["reward"])
    np.testing.assert_array_equal(bandit.q_values(obs), before)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("linear", {"similarities": "block"}, "`similarities` must be one of .*did you mean 'blocks'"),
        ("linear", {"exploration": "tompson"}, "`exploration` must be one of .*did you mean 'thompson'"),
        ("linear", {"alpha": -1.0}, "`alpha` must be a finite number"),
        ("linear", {"alpha": np.nan}, "`alpha` must be a finite number"),
        ("linear", {"noise": 0.0}, "`noise` must be a finite number"),
        ("linear", {"prior_std": 0.0}, "`prior_std` must be a finite number"),
        ("linear", {"pairs_std": np.inf}, "`pairs_std` must be a finite number"),
        ("linear", {"cosine_prior": np.nan}, "`cosine_prior` and `pairs_prior` must be finite"),
        ("linear", {"pairs_prior": [1.0]}, r"`pairs_prior` must hold a weight for each of the 2 numbers .*got \[1.0\]"),
        ("linear", {"alpha": "1"}, "`alpha` must be a finite number, got '1'"),
        ("linear", {"seed": 1.5}, "`seed` must be a whole number of 0 or more, got 1.5"),
        ("linear", {"gamma": "x"}, "`gamma` must be a finite number, got 'x'"),
        ("linear", {"pairs_prior": 0.1}, "`pairs_prior` must be numbers in a row"),
        ("gp", {"alpha": "1"}, "`alpha` must be a finite number, got '1'"),
        ("gp", {"prior": 0.1}, "`prior` must be numbers in a row"),
        ("gp", {"seed": -1}, "`seed` must be 0 or more, got -1"),
        ("linear_blocks", {"n_blocks": 2}, "`n_blocks` must be 1 or more and divide the 3"),
        ("gp", {"exploration": "greedy"}, "`exploration` must be one of"),
        ("gp", {"alpha": np.inf}, "`alpha` must be a finite number"),
        ("gp", {"noise": 0.0}, "`noise` must be above 0"),
        ("gp", {"prior": [0.1, 0.2]}, "each of the 1 similarities.*each of the 2 numbers of `pairs`"),
        ("gp", {"n_blocks": 2}, "`n_blocks` must be 1 or more and divide the 3"),
    ],
)
def test_a_wrong_argument_is_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(name, make_toy(ids=True, pairs=True), **arguments)


@both
def test_an_unknown_argument_is_refused_with_a_suggestion(name, tmp_path):
    bandit = make(name, make_toy(ids=True))
    kind = type(bandit).__name__
    with pytest.raises(TypeError, match=rf"{kind} has no argument 'nosie': did you mean 'noise'\?"):
        make(name, make_toy(ids=True), nosie=1)
    with pytest.raises(TypeError, match=rf"{kind} has no argument 'zzz'\.$"):
        make(name, make_toy(ids=True), zzz=1)
    bandit.save(tmp_path / "bandit.zip")
    for given, meant in (("nosie", "noise"), ("max_byte", "max_bytes")):
        with pytest.raises(TypeError, match=rf"{kind}.load has no argument '{given}': did you mean '{meant}'\?"):
            type(bandit).load(tmp_path / "bandit.zip", make_toy(ids=True), **{given: 1})


@both
def test_it_goes_on_in_a_grown_catalogue_and_refuses_another(name):
    bandit = make(name, make_toy(ids=True)).learn(40)
    obs, _ = make_toy(ids=True).reset(seed=3)
    before = bandit.q_values(obs)
    with pytest.raises(ValueError, match="must begin with the 12 rows"):
        bandit.set_env(make_toy(ids=True, table=2 * action_table()))
    assert len(bandit.action_table) == N_ACTIONS and bandit.env.get_attr("action_features")[0].shape[0] == N_ACTIONS
    bandit.set_env(make_toy(ids=True, table=action_table(40)))
    np.testing.assert_array_equal(bandit.q_values(obs), before)
    assert len(bandit.action_table) == 40
    bandit.learn(40, reset_num_timesteps=False)
    bandit.observe({**obs, "candidates": np.array([0, 20, 30, 39])}, 3, 1.0)


@both
def test_normalised_observations_are_refused(name):
    def normalised(norm_obs):
        return VecNormalize(DummyVecEnv([make_toy]), norm_obs=norm_obs)

    with pytest.raises(ValueError, match="`norm_obs=False`"):
        make(name, normalised(True))
    bandit = make(name, normalised(False)).learn(10)
    with pytest.raises(ValueError, match="`norm_obs=False`"):
        bandit.set_env(normalised(True))


def test_pairs_without_an_entry_have_no_prior():
    with pytest.raises(ValueError, match="each of the 0 numbers that the observation's entry `pairs` has"):
        LinearBandit(make_toy(ids=True), pairs_prior=[0.1])


@both
def test_an_environment_of_another_kind_is_refused(name):
    with pytest.raises(ValueError, match="The observation space must be `Dict"):
        make(name, "CartPole-v1")
    with pytest.raises(TypeError, match="`env` must be a Gymnasium environment"):
        make(name, 3)


# ---------------------------------------------------------------------- traps


class Flat(gym.Env):
    """Every candidate is the same vector, of which one half is empty."""

    observation_space = spaces.Dict(applicant=spaces.Box(-1, 1, (4,)), candidates=spaces.Box(-1, 1, (3, 4)))
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.obs(), {}

    def step(self, action):
        return self.obs(), float(action == 2), False, False, {}

    def obs(self):
        return {"applicant": np.zeros(4, np.float32), "candidates": np.tile(np.float32([0.3, 0.7, 0, 0]), (3, 1))}


@pytest.mark.parametrize(
    ("bandit_class", "arguments"),
    [
        (LinearBandit, {}),
        (LinearBandit, {"similarities": "blocks", "cosine_prior": 0.1}),
        (LinearBandit, {"exploration": "thompson"}),
        (GaussianProcessBandit, {"spike_slab": True, "fit_scales": True}),
        (GaussianProcessBandit, {"exploration": "thompson"}),
    ],
)
def test_equal_and_empty_vectors_are_no_trap(bandit_class, arguments):
    env = Flat()
    bandit = bandit_class(env, seed=0, **arguments).learn(50)
    obs = {**env.obs(), "applicant": np.float32([0.5, 0.5, 0, 0])}
    assert np.isfinite(bandit.explore(obs)).all()
    values = bandit.q_values(obs)
    np.testing.assert_allclose(values, values[0, 0], atol=1e-6)


def test_collinear_candidates_do_not_blow_the_cosine_up():
    bandit = LinearBandit(Flat(), cosine_prior=0.3, alpha=0.0)
    scales = np.linspace(0.1, 1.7, 24, dtype=np.float32).reshape(8, 3, 1)
    obs = {"applicant": np.ones((8, 4), np.float32), "candidates": scales * np.float32([0.3, 0.7, 0.1, 0.2])}
    bandit.observe(obs, np.zeros(8, int), np.zeros(8))
    assert np.abs(bandit.linear_features(obs)).max() < 10


def test_a_bandit_of_ones_own_learns_by_two_methods(tmp_path):
    class Popular(Bandit):
        def __init__(self, env, gamma=0.0, seed=None, start=0.0):
            super().__init__(env, gamma, seed, start=start)
            self.sums, self.counts = np.full(N_ACTIONS, start), np.ones(N_ACTIONS)

        def q_values(self, observation):
            return (self.sums / self.counts)[self.layout.read(observation).candidates]

        def observe(self, observation, action, reward):
            decisions = self.layout.read(observation)
            ids = decisions.candidates[np.arange(len(decisions.state)), np.reshape(action, -1)]
            np.add.at(self.sums, ids, np.reshape(reward, -1))
            np.add.at(self.counts, ids, 1)

        def get_learned(self):
            return {"sums": self.sums, "counts": self.counts}

        def set_learned(self, arrays):
            self.sums, self.counts = arrays["sums"], arrays["counts"]

    bandit = Popular(make_toy(ids=True), seed=0, start=2.0).learn(40)
    assert bandit.counts.sum() == 40 + N_ACTIONS
    bandit.save(tmp_path / "popular.zip")
    obs, _ = shown(10)
    loaded = Popular.load(tmp_path / "popular.zip", make_toy(ids=True))
    np.testing.assert_array_equal(loaded.q_values(obs), bandit.q_values(obs))
    with pytest.raises(NotImplementedError):
        Bandit(make_toy(ids=True)).predict(obs)
