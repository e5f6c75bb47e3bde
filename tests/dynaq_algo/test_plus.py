"""`DynaQ.plus`: the settings that it is, what can be set otherwise, and the scale that it takes from what it sees."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from toy import ToyVectorEnv, action_table, make_toy

from dynaq_algo import BlockwiseFeatures, DynaQ, GaussianProcess, GaussianProcessBandit, LinearBandit, WorldModel

# Three numbers cannot be cut into two blocks.
ONE_BLOCK = {"features_kwargs": {"n_blocks": 1}, "prior": [0.1]}


def plus(env=None, **overrides):
    policy_kwargs = {**ONE_BLOCK, **overrides.pop("policy_kwargs", {})}
    return DynaQ.plus(make_toy() if env is None else env, policy_kwargs=policy_kwargs, **overrides)


def test_it_is_the_class_with_the_settings_that_its_page_names():
    model = plus()
    assert type(model) is DynaQ
    assert (model.planning, model.gamma, model.learning_starts, model.seed) == ("decision_time", 0.0, 0, 0)
    assert (model.exploration_initial_eps, model.exploration_final_eps) == (0.0, 0.0)
    assert isinstance(model.policy.features, BlockwiseFeatures)
    assert isinstance(model.world_model, GaussianProcess)
    assert model.world_model.spike_slab and model.world_model.learn_pair_scale and model.world_model.residual_pairs
    # Each number of the settings reaches the model, and the others keep their defaults.
    scales = {"constant": 1.0, "similarity": 0.03, "pairs": 0.06, "trust": 0.0, "state": 0.15, "same_state": 0.2}
    assert scales.items() <= model.world_model.scales.items()
    assert model.world_model.scales["bilinear"] == GaussianProcess(model.policy.features).scales["bilinear"]
    assert (model.world_model.noise, model.world_model.prior.tolist()) == (0.3, pytest.approx([0.1]))


def test_two_blocks_are_the_default():
    env = gym.wrappers.TransformObservation(make_toy(), lambda obs: obs, four_numbers(make_toy()))
    model = DynaQ.plus(env)
    assert (model.policy.features.n_blocks, model.world_model.prior.tolist()) == (2, pytest.approx([0.1, 0.1]))


def test_an_agent_that_expects_the_whole_to_count_begins_with_the_order_of_the_cosine():
    env = gym.wrappers.TransformObservation(make_toy(), lambda obs: obs, four_numbers(make_toy()))
    cut = {"features_kwargs": {"whole": True}, "prior": [0, 0, 0.1]}
    model = DynaQ.plus(env, policy_kwargs=cut)
    rng = np.random.default_rng(0)
    seen = {"user": rng.normal(size=(9, 4)).astype(np.float32), "candidates": rng.normal(size=(9, 4, 4)).astype("f4")}
    product = np.einsum("nd,nkd->nk", seen["user"], seen["candidates"])
    cosine = product / np.linalg.norm(seen["candidates"], axis=2)
    observation = {**{name: space.sample() for name, space in four_numbers(make_toy()).items()}, **seen}
    np.testing.assert_array_equal(model.q_values(observation).argsort(axis=1), cosine.argsort(axis=1))


def four_numbers(env):
    spaces = dict(env.observation_space.spaces)
    return gym.spaces.Dict({**spaces, "user": gym.spaces.Box(-9, 9, (4,)), "candidates": gym.spaces.Box(-9, 9, (4, 4))})


@pytest.mark.parametrize(("pairs", "bonus"), [(False, 1.0), (True, 0.5)])
def test_shown_numbers_of_pairs_lower_the_bonus(pairs, bonus):
    assert plus(make_toy(pairs=pairs)).exploration_bonus == bonus
    assert plus(make_toy(pairs=pairs), exploration_bonus=0.2).exploration_bonus == 0.2


@pytest.mark.parametrize(
    ("kwargs", "n_envs"),
    [
        ({"train_freq": 33}, 1),
        ({"train_freq": (17, "step")}, 2),
        ({"learning_starts": 30}, 1),
        ({"learning_starts": 30, "train_freq": (1, "episode")}, 2),
    ],
)
def test_a_small_replay_forgets_no_answer_before_the_model_is_told(kwargs, n_envs):
    env = DummyVecEnv([lambda: make_toy(new_candidates=True)] * n_envs)
    model = plus(env, buffer_size=20, **kwargs).learn(100)
    model.train(1, 8)
    assert model.world_model._counts.sum() == model.num_timesteps


@pytest.mark.parametrize("n_envs", [1, 3])
def test_long_episodes_are_told_before_the_replay_overwrites_them(n_envs):
    env = DummyVecEnv([lambda: make_toy(50, new_candidates=True)] * n_envs)
    model = plus(env, buffer_size=20, train_freq=(1, "episode")).learn(50 * n_envs)
    assert model.world_model._counts.sum() == 50 * n_envs


def test_answers_from_elsewhere_are_told_before_the_replay_overwrites_them(tmp_path):
    plus().save(tmp_path / "agent")
    model = DynaQ.load(tmp_path / "agent", device="cpu", buffer_size=20, learning_starts=100)
    obs, _ = make_toy().reset(seed=0)
    for _ in range(50):
        model.observe(obs, 0, 1.0)
    assert model.world_model._counts.sum() >= 30
    model.train(1, 8)
    assert model.world_model._counts.sum() == 50


def test_dictionaries_are_set_entry_by_entry():
    model = plus(
        seed=3,
        gamma=0.5,
        world_model_kwargs={"noise": 0.1, "scales": {"constant": 0.5}},
        policy_kwargs={"net_arch": [8]},
    )
    assert (model.seed, model.gamma) == (3, 0.5)
    assert (model.world_model.noise, model.world_model.spike_slab) == (0.1, True)
    assert (model.world_model.scales["constant"], model.world_model.scales["state"]) == (0.5, 0.15)
    assert (model.policy.net_arch, model.policy.features_name) == ([8], "blockwise")
    # What one agent was given is not the next one's.
    assert plus().world_model.scales["constant"] == 1.0


def test_another_world_model_does_not_get_the_settings_of_a_gaussian_process():
    model = plus(world_model="network", world_model_kwargs={"n_members": 2})
    assert isinstance(model.world_model, WorldModel)
    assert len(model.world_model.members) == 2
    assert plus(world_model="network").learn(20).num_timesteps == 20


@pytest.mark.parametrize(
    "make",
    [
        make_toy,
        lambda: Monitor(make_toy()),
        lambda: DummyVecEnv([make_toy] * 2),
        lambda: ToyVectorEnv(2),
    ],
    ids=["single", "under a Monitor", "VecEnv", "VectorEnv"],
)
def test_it_takes_every_kind_of_environment(make, tmp_path):
    model = plus(make()).learn(20)
    assert len(model.replay_buffer) == 20
    model.save(tmp_path / "agent")
    assert DynaQ.load(tmp_path / "agent", make(), device="cpu").learn(10).num_timesteps == 10


def test_a_monitor_is_not_put_around_a_monitor(tmp_path):
    model = plus(Monitor(make_toy())).learn(10)
    assert isinstance(model.env.envs[0], Monitor)
    assert not isinstance(model.env.envs[0].env, Monitor)
    # Else its layers would be others than those of a run that was not made by `plus`.
    model.save_checkpoint(tmp_path)
    assert DynaQ.load_checkpoint(tmp_path, Monitor(make_toy()), device="cpu").num_timesteps == 10


def test_an_unknown_argument_is_refused_with_a_suggestion():
    with pytest.raises(TypeError, match=r"DynaQ has no argument 'planing_steps': did you mean 'planning_steps'\?"):
        plus(planing_steps=3)


# ---------------------------------------------------------------------- the scale of what is seen


@pytest.mark.parametrize("n_envs", [1, 2])
def test_without_a_table_similarities_are_centred_on_the_candidates_seen(n_envs):
    actions = action_table(200) + 5  # in a narrow cone, as texts are
    model = plus(DummyVecEnv([lambda: make_toy(new_candidates=True, table=actions)] * n_envs)).learn(200)
    known, seen = BlockwiseFeatures(3, 3, n_blocks=1), model.policy.features
    known.fit(actions)
    np.testing.assert_allclose(seen._centre, known._centre, atol=0.2)
    np.testing.assert_allclose(seen._deviation, known._deviation, rtol=0.1)
    state, action = th.as_tensor(actions[:100]), th.as_tensor(actions[100:])
    similarities = [features.similarities(state, action).numpy().ravel() for features in (seen, known)]
    assert np.corrcoef(*similarities)[0, 1] > 0.98


@pytest.mark.parametrize(
    "features_of",
    [
        lambda env: plus(env).policy.features,
        lambda env: GaussianProcessBandit(env, n_blocks=1, prior=[0.1], residual_pairs=True).features,
        lambda env: LinearBandit(env, similarities="blocks", n_blocks=1, residual_pairs=True).features,
    ],
    ids=["plus", "Gaussian process", "linear"],
)
def test_the_scale_of_inputs_comes_from_the_environments_sample(features_of):
    rng = np.random.default_rng(0)
    space = make_toy(pairs=True).observation_space
    sample = {key: rng.normal(3.0, 2.0, size=(50, *entry.shape)).astype("f4") for key, entry in space.spaces.items()}

    def learned(offered):
        env = make_toy(pairs=True)
        env.unwrapped.observation_sample = offered
        return features_of(env)

    as_lists = {key: values.tolist() for key, values in sample.items()}
    for features in (learned(sample), learned(as_lists)):
        assert features.settled
        np.testing.assert_allclose(features._pairs.mean, sample["pairs"].mean(axis=(0, 1)), rtol=1e-5)
        np.testing.assert_allclose(features._centre, sample["candidates"].mean(axis=(0, 1)), rtol=1e-5)
        similarities, scaled = similar_and_scaled(features, sample)
        left = features.residuals(similarities, scaled)
        np.testing.assert_allclose(np.corrcoef(similarities[:, 0], left.T)[0, 1:], 0, atol=1e-2)
        np.testing.assert_allclose(left.std(dim=0), 1, atol=1e-2)
    for nothing in (None, {key: values[:0] for key, values in sample.items()}):
        assert learned(nothing)._pairs.is_empty
    for unfit, problem in (
        ({key: values[0] for key, values in sample.items()}, "It must be a batch"),
        (sample | {"pairs": sample["pairs"][..., :1]}, r"`pairs` must have shape \(50, 4, 2\)"),
        ({"pairs": sample["pairs"]}, r"The observation lacks \['user', 'candidates'\]|lacks"),
        (3.0, "must be a dict"),
    ):
        with pytest.warns(UserWarning, match=f"`observation_sample` of the environments is not used.*{problem}"):
            assert learned(unfit)._pairs.is_empty


def similar_and_scaled(features, sample):
    """Similarities and scaled numbers (n k, .) of the pairs of a sample whose state is `user`."""
    state, candidates, pairs = (th.as_tensor(sample[key]) for key in ("user", "candidates", "pairs"))
    similarities = features.of_blocks(state[:, None], candidates).flatten(0, 1)
    return similarities, features.scaled(pairs).flatten(0, 1)


class Doubled(gym.ObservationWrapper):
    def observation(self, observation):
        return observation | {"pairs": 2 * observation["pairs"]}


def offering(env):
    space = env.observation_space
    env.unwrapped.observation_sample = {key: np.ones((5, *entry.shape), "f4") for key, entry in space.spaces.items()}
    return env


@pytest.mark.parametrize("is_changed", [True, False])
@pytest.mark.parametrize(
    "around",
    [
        lambda make: make(),
        lambda make: DummyVecEnv([make]),
        lambda make: SubprocVecEnv([make]),
        lambda make: gym.vector.SyncVectorEnv([make], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP),
    ],
    ids=["single", "DummyVecEnv", "SubprocVecEnv", "SyncVectorEnv"],
)
def test_a_sample_is_not_used_where_a_wrapper_changes_observations(around, is_changed):
    def make():
        env = offering(make_toy(pairs=True))
        return Doubled(env) if is_changed else env

    env = around(make)
    assert plus(env).policy.features.settled != is_changed
    env.close()


def test_environments_in_other_processes_that_do_not_tell_their_wrappers_give_no_sample():
    env = gym.vector.AsyncVectorEnv(
        [lambda: offering(make_toy(pairs=True))], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP
    )
    assert not plus(env).policy.features.settled
    env.close()


def test_the_sample_of_one_environment_stands_for_all():
    asked = []

    class Asked(gym.Wrapper):
        @property
        def observation_sample(self):
            asked.append(self)
            return None

    plus(DummyVecEnv([lambda: Asked(make_toy(pairs=True))] * 3))
    assert len(set(map(id, asked))) == 1


def test_the_first_decision_is_centred_already():
    model = plus()
    assert model.policy.features.version == 0
    model.learn(1)
    np.testing.assert_allclose(model.policy.features._centre, model._last_obs["candidates"][0].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("pairs", [False, True])
def test_acting_and_evaluating_never_move_the_centre(pairs):
    model = plus(make_toy(pairs=pairs)).learn(6)
    before = {name: value.clone() for name, value in model.policy.features.get_state().items()}
    for seed in range(20):
        obs, _ = make_toy(pairs=pairs).reset(seed=seed)
        model.predict(obs), model.q_values(obs), model.predict_reward(obs), model.reward_spread(obs)
        model.policy.predict(obs)
    evaluate_policy(model, Monitor(make_toy(pairs=pairs)), 5)
    for name, value in model.policy.features.get_state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    model.learn(20)
    assert model.policy.features.version > int(before["version"])


def test_the_centre_is_in_the_file(tmp_path):
    model = plus().learn(30)
    model.save(tmp_path / "agent")
    loaded = DynaQ.load(tmp_path / "agent", device="cpu")
    obs, _ = make_toy().reset(seed=5)
    np.testing.assert_array_equal(model.q_values(obs), loaded.q_values(obs))
    assert model.policy.features._centre.abs().sum() > 0


@pytest.mark.parametrize("ids", [False, True])
def test_it_learns_the_toy(ids):
    model = plus(make_toy(ids=ids, new_candidates=True), policy_kwargs={"prior": [0.0]}).learn(300)
    chosen, best = [], []
    for seed in range(200, 300):
        obs, _ = make_toy(ids=ids).reset(seed=seed)
        rewards = (obs["user"] * (action_table()[obs["candidates"]] if ids else obs["candidates"])).mean(axis=1)
        chosen.append(rewards[model.predict(obs, deterministic=True)[0]])
        best.append(rewards.max())
    assert np.mean(chosen) > 0.9 * np.mean(best)
