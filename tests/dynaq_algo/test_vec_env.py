"""The adapter from Gymnasium's vector environments to SB3's."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3 import DQN
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from toy import ToyVectorEnv, action_table, make_toy, pair_table

from dynaq_algo import DynaQ, GymnasiumVecEnv, LinearBandit, make_sb3_vec_env


def sync(n=3, mode=AutoresetMode.SAME_STEP, **kwargs):
    return SyncVectorEnv([lambda: make_toy(**kwargs)] * n, autoreset_mode=mode)


def assert_same(left, right):
    assert type(left) is type(right) or np.isscalar(left) or isinstance(left, np.generic)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            if key != "t":  # seconds
                assert_same(left[key], right[key])
    else:
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("make", [sync, ToyVectorEnv])
@pytest.mark.parametrize("end", [{"terminate_at": 3}, {"max_episode_steps": 4}])
def test_it_behaves_as_dummy_vec_env_of_the_same_environments(make, end):
    kwargs = {"components": True, "mask": True, **end}
    adapter = GymnasiumVecEnv(make(3, **kwargs))
    dummy = DummyVecEnv([lambda: Monitor(make_toy(**kwargs))] * 3)
    assert adapter.observation_space == dummy.observation_space
    assert adapter.action_space == dummy.action_space
    assert list(adapter.seed(5)) == list(dummy.seed(5))
    observations = adapter.reset(), dummy.reset()
    ended = 0
    for _ in range(15):
        assert_same(dict(observations[0]), dict(observations[1]))
        assert [dict(info) for info in adapter.reset_infos] == [dict(info) for info in dummy.reset_infos]
        actions = observations[0]["action_mask"].argmax(axis=1)
        results = adapter.step(actions), dummy.step(actions)
        observations = tuple(result[0] for result in results)
        for left, right in zip(results[0][1:3], results[1][1:3], strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        for left, right in zip(results[0][3], results[1][3], strict=True):
            assert_same(left, right)
            ended += "terminal_observation" in left
            assert left["TimeLimit.truncated"] == ("max_episode_steps" in end and "terminal_observation" in left)
    assert ended >= 9


def test_other_autoreset_modes_and_other_objects_are_refused():
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
        with pytest.raises(ValueError, match=r"Make it with `autoreset_mode=AutoresetMode.SAME_STEP`"):
            GymnasiumVecEnv(sync(mode=mode))
    with pytest.raises(TypeError, match="SB3 takes a single environment as it is"):
        GymnasiumVecEnv(make_toy())


def test_the_mode_may_be_named_by_a_string():
    env = ToyVectorEnv(2)
    env.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP.value}
    assert GymnasiumVecEnv(env).num_envs == 2


def test_attributes_and_methods_reach_the_layer_that_has_them():
    native = GymnasiumVecEnv(ToyVectorEnv(2))
    native.seed(0)
    native.reset()
    tables = native.get_attr("action_features")
    assert len(tables) == 2 and all(table is native.vector_env.action_features for table in tables)
    np.testing.assert_array_equal(native.env_method("action_masks", indices=1), native.vector_env.action_masks()[1:])
    native.set_attr("flavour", "sweet")
    assert native.get_attr("flavour", indices=[0]) == ["sweet"]
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        native.get_attr("nothing_of_that_name")
    with pytest.raises(ValueError, match="one value for all"):
        native.set_attr("flavour", "sour", indices=[0])
    assert not native.has_attr("nothing_of_that_name")

    within = GymnasiumVecEnv(sync(ids=True))
    np.testing.assert_array_equal(within.get_attr("action_features", indices=0)[0], action_table())
    within.reset()
    assert within.get_attr("steps") == [0, 0, 0]
    assert within.env_method("get_wrapper_attr", "steps") == [0, 0, 0]


@pytest.mark.waits
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_a_method_of_the_environments_is_returned_and_not_called(kind):
    env = GymnasiumVecEnv(kind([lambda: make_toy(ids=True, pairs=True)] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    try:
        assert env.has_attr("pair_features") and not env.has_attr("nothing_of_that_name")
        for method in env.get_attr("pair_features"):
            np.testing.assert_array_equal(method([3, 4], [5, 6]), pair_table()[[3, 4], [5, 6]])
        model = DynaQ("CandidatePolicy", env, planning_source="crossed", gamma=0.0, policy_kwargs={"net_arch": [8]})
        model.learn(70)
        assert model.replay_buffer.pair_features is not None and model._n_planning_updates
    finally:
        env.close()


class Reusing(ToyVectorEnv):
    """Writes each observation into the same arrays."""

    def _stack(self, observations):
        new = ToyVectorEnv._stack(observations)
        self.shown = getattr(self, "shown", new)
        for key, values in new.items():
            self.shown[key][:] = values
        return self.shown


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reusing(2, new_candidates=True),
        lambda: SyncVectorEnv(
            [lambda: make_toy(new_candidates=True)] * 2, copy=False, autoreset_mode=AutoresetMode.SAME_STEP
        ),
    ],
    ids=["native", "sync"],
)
def test_what_an_environment_writes_into_again_is_copied(make):
    model = DynaQ("CandidatePolicy", make(), seed=0, learning_starts=100, policy_kwargs={"net_arch": [8]}).learn(40)
    replay = model.replay_buffer
    stored = replay[np.arange(len(replay))]
    shown = (replay.state_rows(stored.state_id) * replay.candidate_rows(stored.candidate_id)).mean(axis=1)
    np.testing.assert_allclose(shown, stored.reward, atol=1e-6)
    bandit = LinearBandit(make(), alpha=0.0, seed=0).learn(300)
    for seed in range(20):
        obs, _ = make_toy().reset(seed=seed)
        rewards = (obs["user"] * obs["candidates"]).mean(axis=1)
        assert rewards[bandit.predict(obs, deterministic=True)[0]] > rewards.max() - 0.1


def test_new_arrays_are_passed_on_as_they_are():
    given = []

    class Noting(ToyVectorEnv):
        def step(self, actions):
            given.append(super().step(actions))
            return given[-1]

    env = GymnasiumVecEnv(Noting(2))
    env.reset()
    shown = [env.step(np.zeros(2, int))[0] for _ in range(3)]
    assert [obs is step[0] for obs, step in zip(shown, given, strict=True)] == [False, True, True]


def test_a_method_of_a_vector_wrapper_is_called_once():
    class Counting(gym.vector.VectorWrapper):
        calls = 0

        def set_total_steps(self, n):
            self.calls += n

    wrapped = Counting(ToyVectorEnv(3))
    assert GymnasiumVecEnv(wrapped).env_method("set_total_steps", 7) == [None] * 3
    assert wrapped.calls == 7
    assert GymnasiumVecEnv(wrapped).env_is_wrapped(Counting) == [True] * 3


@pytest.mark.parametrize("n_people", [2, 3, 4])
def test_an_answer_to_arguments_is_not_split_whatever_its_length(n_people):
    env = GymnasiumVecEnv(ToyVectorEnv(3, ids=True, pairs=True))
    people, jobs = np.arange(n_people)[:, None], np.arange(8)

    answers = env.env_method("pair_features", people, jobs)
    (first,) = env.env_method("pair_features", people, job_ids=jobs, indices=0)

    assert len(answers) == 3
    for answer in (*answers, first):
        np.testing.assert_array_equal(answer, pair_table()[people, jobs])


def test_episodes_are_reported_only_if_monitored_and_evaluation_relies_on_it():
    for monitor in (True, False):
        env = GymnasiumVecEnv(sync(2, max_episode_steps=2), monitor=monitor)
        env.reset()
        env.step(np.zeros(2, int))
        *_, infos = env.step(np.zeros(2, int))
        assert ["episode" in info for info in infos] == [monitor] * 2
        assert env.env_is_wrapped(Monitor) == [monitor] * 2
    env = GymnasiumVecEnv(sync(2))
    model = DynaQ("CandidatePolicy", env, seed=0, policy_kwargs={"net_arch": [8]})
    assert np.isfinite(evaluate_policy(model, env, n_eval_episodes=4)[0])


def test_seeding_with_none_uses_no_global_generator():
    before = str(np.random.get_state())  # noqa: NPY002 - the state that must not change
    env = GymnasiumVecEnv(ToyVectorEnv(2))
    assert list(env.seed(None)) == [None, None]
    env.reset()
    assert str(np.random.get_state()) == before  # noqa: NPY002
    env.seed(0)
    first = env.reset()["user"]
    env.seed(0)
    np.testing.assert_array_equal(env.reset()["user"], first)


def test_a_seed_may_be_of_numpys_type():
    same = [make_sb3_vec_env("CartPole-v1", 2, seed=seed).reset() for seed in (3, np.int64(3))]
    np.testing.assert_array_equal(*same)


def test_reset_options_are_passed_on_once():
    class Recorder(ToyVectorEnv):
        def reset(self, *, seed=None, options=None):
            self.options = options
            return super().reset(seed=seed)

    env = GymnasiumVecEnv(Recorder(2))
    env.set_options({"level": 3})
    env.reset()
    assert env.vector_env.options == {"level": 3}
    env.reset()
    assert env.vector_env.options is None


@pytest.mark.parametrize(("one", "other"), [(3, 4), ([3, 5], [4, 6]), ("a", "b")], ids=str)
def test_reset_options_of_each_environment_become_one_array(one, other):
    class Recorder(ToyVectorEnv):
        def reset(self, *, seed=None, options=None):
            self.options = options
            return super().reset(seed=seed)

    env = GymnasiumVecEnv(Recorder(2))
    env.set_options([{"level": one}, {"level": other}])
    env.reset()
    assert env.vector_env.options["level"].tolist() == [one, other]
    env.reset()
    assert env.vector_env.options is None


@pytest.mark.parametrize(
    ("each", "complaint"),
    [
        ([{"level": 3}], "one dict or a list of 2, one for each environment, got 1"),
        ([{"level": 3}, {}], r"the same options in every environment, got \['level'\] in one and \[\] in another"),
        ([{"level": 3}, {"level": [3, 4]}], r"`options\['level'\]` must have the same shape"),
    ],
)
def test_reset_options_that_cannot_be_joined_are_refused_and_not_kept(each, complaint):
    env = GymnasiumVecEnv(ToyVectorEnv(2))
    with pytest.raises(ValueError, match=complaint):
        env.set_options(each)
    env.reset()


def test_environments_that_get_the_same_options_take_equal_ones_only():
    class Recorder(SyncVectorEnv):
        def reset(self, *, seed=None, options=None):
            self.options = options
            return super().reset(seed=seed)

    env = GymnasiumVecEnv(Recorder([make_toy] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    env.set_options([{"level": np.arange(3), "of": {"a": 1}} for _ in range(2)])
    env.reset()
    assert env.vector_env.options["level"].tolist() == [0, 1, 2]
    env.set_options({"level": np.arange(3)})
    env.reset()
    assert env.vector_env.options["level"].tolist() == [0, 1, 2]
    env.set_options([{"groups": [[1], [2, 3]]} for _ in range(2)])
    for other in (np.arange(3) + 1, np.arange(2)):
        with pytest.raises(ValueError, match="must be equal for all environments of .*Make a DummyVecEnv"):
            env.set_options([{"level": np.arange(3)}, {"level": other}])


def test_any_sb3_algorithm_trains_on_it():
    env = GymnasiumVecEnv(sync(2))
    with th.random.fork_rng():
        model = DQN("MultiInputPolicy", env, learning_starts=4, buffer_size=50)
        model.learn(20)
    assert len(model.ep_info_buffer) == 4


@pytest.fixture
def registered_toy():
    for name, entry in (("Toy-v0", ToyVectorEnv), ("LoopedToy-v0", None)):
        gym.register(id=name, entry_point=make_toy, vector_entry_point=entry, max_episode_steps=None)
    yield
    for name in ("Toy-v0", "LoopedToy-v0"):
        gym.registry.pop(name)


class ModalToyVectorEnv(ToyVectorEnv):
    def __init__(self, num_envs, autoreset_mode, **kwargs):
        assert autoreset_mode == AutoresetMode.SAME_STEP.value
        super().__init__(num_envs, **kwargs)


def test_an_id_becomes_a_vec_env_natively_where_it_can_and_by_a_loop_where_not(registered_toy):
    gym.register(id="ModalToy-v0", entry_point=make_toy, vector_entry_point=ModalToyVectorEnv)
    try:
        native = make_sb3_vec_env("ModalToy-v0", 3, seed=4, components=True)
        assert isinstance(native.vector_env.unwrapped, ModalToyVectorEnv)
    finally:
        gym.registry.pop("ModalToy-v0")
    # A vector environment of one mode only cannot be told to reset in the same step.
    looped = [make_sb3_vec_env(name, 3, seed=4, components=True) for name in ("Toy-v0", "LoopedToy-v0")]
    assert all(isinstance(envs.vector_env.unwrapped, SyncVectorEnv) for envs in looped)
    for envs in looped:
        assert_same(dict(native.reset()), dict(envs.reset()))
        native.seed(4)
    for _ in range(6):
        results = [envs.step(np.zeros(3, int)) for envs in (native, *looped)]
        for other in results[1:]:
            assert_same(dict(results[0][0]), dict(other[0]))
            np.testing.assert_array_equal(results[0][1], other[1])


def test_an_id_that_nobody_registered_is_refused_and_its_wrapper_is_put_on():
    with pytest.raises(gym.error.NameNotFound, match="Cartpol"):
        make_sb3_vec_env("Cartpol-v1", 2)
    envs = make_sb3_vec_env("CartPole-v1", 2, seed=0, wrapper=lambda e: gym.wrappers.vector.ClipReward(e, 0, 0.5))
    envs.reset()
    assert envs.step(np.zeros(2, int))[1].tolist() == [0.5, 0.5]


def test_an_id_may_lack_its_version_or_be_a_specification(registered_toy):
    for name in ("Toy", gym.spec("Toy-v0")):
        envs = make_sb3_vec_env(name, 2, seed=0, components=True)
        assert envs.num_envs == 2
        assert envs.vector_env.spec.id == "Toy-v0"


def test_what_is_settled_is_no_argument():
    with pytest.raises(ValueError, match=r"\['autoreset_mode'\] are not arguments here.*GymnasiumVecEnv"):
        make_sb3_vec_env("CartPole-v1", 2, autoreset_mode="NextStep")
