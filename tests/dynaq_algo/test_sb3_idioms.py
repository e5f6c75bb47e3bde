"""What users of Stable-Baselines3 do with any of its algorithms, after its own test suite."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from toy import make_toy

from dynaq_algo import DynaQ


def agent(env, **kwargs):
    kwargs = {"seed": 0, "policy_kwargs": {"net_arch": [32]}, "device": "cpu", **kwargs}
    return DynaQ("CandidatePolicy", env, **kwargs)


class Identity(gym.Env):
    """SB3's `IdentityEnv` with candidates: the one equal to the state earns 1, in an order that changes each step."""

    def __init__(self, dim=4):
        self.dim = dim
        vectors = spaces.Box(0, 1, (dim, dim), np.float32)
        self.observation_space = spaces.Dict({"candidates": vectors, "state": spaces.Discrete(dim)})
        self.action_space = spaces.Discrete(dim)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._draw(), {}

    def step(self, action):
        reward = float(self.order[action] == self.state)
        self.steps += 1
        return self._draw(), reward, False, self.steps == 20, {}

    def _draw(self):
        self.state = int(self.np_random.integers(self.dim))
        self.order = self.np_random.permutation(self.dim)
        return {"candidates": np.eye(self.dim, dtype=np.float32)[self.order], "state": self.state}


class Walk(gym.Env):
    """A foreign environment: moves on a grid of 4 x 4, offered as vectors in any order, until the far corner.

    The state changes with the action, and is of another size than the moves.
    """

    MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)

    def __init__(self):
        self.observation_space = spaces.Dict(
            {
                "candidates": spaces.Box(-1, 1, (4, 2), np.float32),
                "column": spaces.Discrete(4),
                "row": spaces.Discrete(4),
            }
        )
        self.action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(2, int)
        return self._obs(), {}

    def step(self, action):
        self.place = np.clip(self.place + self.moves[action], 0, 3).astype(int)
        return self._obs(), -1.0, bool((self.place == 3).all()), False, {}

    def _obs(self):
        self.moves = self.np_random.permutation(self.MOVES)
        return {"candidates": self.moves, "column": int(self.place[0]), "row": int(self.place[1])}


class Mixed(gym.ObservationWrapper):
    """Adds entries of every kind to the toy's observation."""

    EXTRA = spaces.Dict(
        {
            "flags": spaces.MultiBinary(3),
            "kinds": spaces.MultiDiscrete([2, 3]),
            "matrix": spaces.Box(-1, 1, (2, 2), np.float32),
            "number": spaces.Discrete(3),
        }
    )

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Dict({**env.observation_space.spaces, **self.EXTRA.spaces})
        self.EXTRA.seed(0)

    def observation(self, observation):
        return {**observation, **self.EXTRA.sample()}


# ---------------------------------------------------------------------- learning


@pytest.mark.parametrize("bootstrap", ["same_action", "max", "double"])
def test_the_identity_environment_is_solved(bootstrap):
    # SB3's tests ask for 90 of 100; a random choice earns 5 of 20.
    model = agent(Identity(), bootstrap=bootstrap, gamma=0.0, learning_rate=3e-3, planning_steps=1)
    model.learn(200)
    mean, _ = evaluate_policy(model, Monitor(Identity()), n_eval_episodes=10)
    assert mean > 18


def test_a_foreign_environment_of_several_steps_is_learned():
    env = gym.wrappers.TimeLimit(Walk(), 50)
    model = agent(env, bootstrap="double", gamma=0.95, learning_rate=2e-3, planning_steps=2, target_update_interval=50)
    model.learn(500)
    mean, spread = evaluate_policy(model, Monitor(gym.wrappers.TimeLimit(Walk(), 50)), n_eval_episodes=10)
    assert (mean, spread) == (-6, 0)  # the shortest way; by chance some 40 steps


def test_observations_of_every_kind_train_save_and_load(tmp_path):
    model = agent(Mixed(make_toy(mask=True)))
    model.learn(80)
    model.save(tmp_path / "agent")
    loaded = DynaQ.load(tmp_path / "agent", Mixed(make_toy(mask=True)), device="cpu")
    obs, _ = Mixed(make_toy(mask=True)).reset(seed=0)
    assert model.policy.layout.state_dim == 3 + 3 + 5 + 4 + 3
    np.testing.assert_array_equal(model.q_values(obs), loaded.q_values(obs))


class Photo(gym.ObservationWrapper):
    """Adds an entry that SB3 takes for an image, whose last axis has the colours."""

    def __init__(self, env):
        super().__init__(env)
        photo = spaces.Box(0, 255, (8, 9, 3), np.uint8)
        self.observation_space = spaces.Dict({**env.observation_space.spaces, "photo": photo})

    def observation(self, observation):
        return {**observation, "photo": np.arange(216, dtype=np.uint8).reshape(8, 9, 3)}


@pytest.mark.parametrize("within", [lambda env: env, lambda env: DummyVecEnv([lambda: env])])
def test_an_entry_like_an_image_is_read_as_the_environment_shows_it(tmp_path, within):
    model = agent(within(Photo(make_toy()))).learn(20)
    obs, _ = Photo(make_toy()).reset(seed=0)
    assert model.q_values(obs).shape == (1, 4)
    assert model.reads["entries"]["photo"] == [8, 9, 3]
    state = model.replay_buffer.states.rows[0]
    assert any(np.array_equal(state[i : i + 216], np.arange(216)) for i in range(len(state) - 215))
    model.save(tmp_path / "agent")
    DynaQ.load(tmp_path / "agent", within(Photo(make_toy())), device="cpu").learn(5)
    model.set_env(within(Photo(make_toy())))
    model.learn(5)


@pytest.mark.parametrize("interval", [0, -1, 2.5, "4"])
def test_a_log_interval_that_is_no_number_of_episodes_is_refused(interval):
    with pytest.raises(ValueError, match="`log_interval` must be a whole number of episodes, 1 or more, or None"):
        agent(make_toy()).learn(30, log_interval=interval)
    assert agent(make_toy()).learn(5, None, np.int64(2)).num_timesteps == 5
    assert agent(make_toy()).learn(5, log_interval=None).num_timesteps == 5


def test_the_same_seed_gives_the_same_rewards():
    rewards = []
    for _ in range(2):
        model = agent(Monitor(Identity()))
        model.learn(150)
        rewards.append([episode["r"] for episode in model.ep_info_buffer])
    assert rewards[0] == rewards[1]


# ---------------------------------------------------------------------- callbacks


def test_callbacks_evaluate_save_and_stop(tmp_path):
    evaluation = EvalCallback(
        Monitor(make_toy()),
        callback_on_new_best=StopTrainingOnRewardThreshold(1e9),
        callback_after_eval=StopTrainingOnNoModelImprovement(max_no_improvement_evals=100),
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "log"),
        eval_freq=40,
        n_eval_episodes=2,
        verbose=0,
    )
    checkpoints = CheckpointCallback(
        30, str(tmp_path / "checkpoints"), name_prefix="agent", save_replay_buffer=True, verbose=0
    )
    every = EveryNTimesteps(50, CheckpointCallback(1, str(tmp_path / "every"), verbose=0))
    model = agent(make_toy())
    model.learn(100, callback=[evaluation, checkpoints, every])

    assert np.load(tmp_path / "log" / "evaluations.npz")["timesteps"].tolist() == [40, 80]
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert {"agent_30_steps.zip", "agent_90_steps.zip"} <= names
    assert len(names) == 6  # a replay beside each
    assert len(list((tmp_path / "every").iterdir())) == 2
    obs, _ = make_toy().reset(seed=0)
    last = DynaQ.load(tmp_path / "checkpoints" / "agent_90_steps", device="cpu")
    best = DynaQ.load(tmp_path / "best" / "best_model", device="cpu")
    assert {last.num_timesteps} == {90}
    assert best.num_timesteps in (40, 80)
    assert last.predict(obs, deterministic=True)[0] in range(4)


def test_learning_stops_at_a_threshold_or_after_so_many_episodes():
    model = agent(make_toy())
    model.learn(1_000, callback=StopTrainingOnMaxEpisodes(max_episodes=7))
    assert model.num_timesteps == 35
    threshold = EvalCallback(
        Monitor(make_toy()), callback_on_new_best=StopTrainingOnRewardThreshold(-1e9), eval_freq=20, verbose=0
    )
    model.learn(1_000, callback=threshold)
    assert model.num_timesteps == 20


def test_normalised_rewards_reach_the_environment_of_an_evaluation(tmp_path):
    env, held_out = (VecNormalize(make_vec_env(make_toy, 2, seed=0), norm_obs=False, training=i == 0) for i in range(2))
    held_out.norm_reward = False
    model = agent(env)
    model.learn(120, callback=EvalCallback(held_out, eval_freq=20, n_eval_episodes=2, verbose=0))
    # Shared at the last evaluation, at step 120 of both environments.
    assert held_out.ret_rms.var == pytest.approx(env.ret_rms.var, rel=1e-9)
    env.save(tmp_path / "statistics.pkl")
    again = VecNormalize.load(tmp_path / "statistics.pkl", DummyVecEnv([make_toy] * 2))
    model.set_env(again)
    model.learn(20, reset_num_timesteps=False)
    assert model.get_vec_normalize_env() is again


# ---------------------------------------------------------------------- parameters and modes


def test_parameters_are_taken_out_and_put_back():
    source, target = agent(make_toy(), seed=0), agent(make_toy(), seed=1)
    source.learn(70)
    obs, _ = make_toy().reset(seed=0)
    assert not np.array_equal(source.q_values(obs), target.q_values(obs))
    parameters = source.get_parameters()
    assert set(parameters) == {"policy", "policy.optimizer", "world_model", "world_model.optimizer"}
    target.set_parameters(parameters)
    np.testing.assert_array_equal(source.q_values(obs), target.q_values(obs))
    np.testing.assert_array_equal(source.predict_reward(obs), target.predict_reward(obs))
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        target.set_parameters({"policy": parameters["policy"]}, exact_match=True)
    target.set_parameters({"policy": agent(make_toy(), seed=2).policy.state_dict()}, exact_match=False)
    assert not np.array_equal(source.q_values(obs), target.q_values(obs))


def test_a_policy_is_a_vector_and_back():
    model, other = agent(make_toy(), seed=0), agent(make_toy(), seed=1)
    vector = model.policy.parameters_to_vector()
    other.policy.load_from_vector(vector)
    np.testing.assert_array_equal(other.policy.parameters_to_vector(), vector)


def test_networks_train_while_training_and_evaluate_while_acting(monkeypatch):
    model = agent(make_toy(), learning_starts=10)
    modes = {"acting": set(), "training": set()}
    collect, update = model.policy.greedy, model._q_update

    def acting(*args, **kwargs):
        modes["acting"].add(model.policy.training)
        return collect(*args, **kwargs)

    def training(*args):
        modes["training"].add((model.policy.training, model.q_net.training, model.q_net_target.training))
        return update(*args)

    monkeypatch.setattr(model.policy, "greedy", acting)
    monkeypatch.setattr(model, "_q_update", training)
    model.learn(60)
    assert modes == {"acting": {False}, "training": {(True, True, False)}}


def test_the_device_may_be_named_when_loading(tmp_path):
    agent(make_toy()).save(tmp_path / "agent")
    model = DynaQ.load(tmp_path / "agent", device="cpu", custom_objects={"learning_rate": 0.5})
    assert model.device == th.device("cpu")
    assert model.learning_rate == 0.5
