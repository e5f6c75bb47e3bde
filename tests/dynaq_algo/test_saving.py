"""Zips and checkpoint folders."""

import json
import os
import re
import shutil
import warnings
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize
from test_replay import read_all
from toy import ToyEnv, ToyVectorEnv, action_table, make_toy

from dynaq_algo import DynaQ, DynaQCheckpoint, GymnasiumVecEnv, LinearBandit
from dynaq_algo.checkpoint import read_env_state
from dynaq_algo.policies import CandidatePolicy

SAME_STEP = gym.vector.AutoresetMode.SAME_STEP


def agent(env, **kwargs):
    kwargs = {"seed": 0, "policy_kwargs": {"net_arch": [16, 16]}, "device": "cpu", **kwargs}
    return DynaQ("CandidatePolicy", env, **kwargs)


def first_obs(**kwargs):
    return make_toy(**kwargs).reset(seed=9)[0]


# ---------------------------------------------------------------------- zips


@pytest.mark.parametrize("ids", [False, True])
def test_a_loaded_agent_is_the_saved_one(tmp_path, ids):
    model = agent(make_toy(ids=ids), planning_steps=2, bootstrap="double", world_model_kwargs={"n_members": 2})
    model.learn(80)
    model.save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", make_toy(ids=ids), device="cpu")
    assert (loaded.planning_steps, loaded.bootstrap, loaded.gamma) == (2, "double", 0.9)
    assert len(loaded.world_model.members) == 2
    obs = first_obs(ids=ids)
    np.testing.assert_array_equal(model.q_values(obs), loaded.q_values(obs))
    np.testing.assert_array_equal(model.predict_reward(obs), loaded.predict_reward(obs))
    for module in ("policy", "world_model"):
        old, new = (getattr(m, module).optimizer.state_dict() for m in (model, loaded))
        assert str(old) == str(new)
    loaded.learn(70)
    loaded.set_env(make_toy(ids=ids))


def test_a_loaded_agent_may_train_on_more_environments(tmp_path):
    agent(make_toy()).save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", DummyVecEnv([make_toy] * 3), device="cpu")
    assert loaded.gradient_steps == -1
    loaded.learn(80)
    assert loaded._n_updates == 81 - 63


FILES = {
    "agent.zip": lambda model, path: model.save(path),
    "replay": lambda model, path: model.save_replay_buffer(path),
    "policy.pt": lambda model, path: model.policy.save(path),
    "bandit.zip": lambda _, path: LinearBandit(make_toy()).save(path),
    "checkpoint": lambda model, path: model.save_checkpoint(path),
}


@pytest.mark.skipif(os.name != "posix", reason="rights and links are those of POSIX")
@pytest.mark.parametrize("name", FILES)
def test_files_have_the_rights_that_new_files_get_and_keep_those_they_had(tmp_path, name):
    model, place = agent(make_toy()), tmp_path / name
    for mask, mode in ((0o077, 0o700), (0o002, 0o775)):
        before = os.umask(mask)
        try:
            FILES[name](model, tmp_path / str(mask) / name)
            FILES[name](model, place)
        finally:
            os.umask(before)
        for path in (tmp_path / str(mask)).rglob("*"):
            assert path.stat().st_mode & 0o777 == mode & (0o777 if path.is_dir() else 0o666)
    assert place.stat().st_mode & 0o077 == 0  # the first was for its owner alone


@pytest.mark.skipif(os.name != "posix", reason="rights and links are those of POSIX")
@pytest.mark.parametrize("name", FILES)
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path, name):
    model, real, link = agent(make_toy()), tmp_path / "large" / name, tmp_path / name
    FILES[name](model, real)
    link.symlink_to(Path("large") / name)
    before = real.stat().st_ino
    FILES[name](model, link)
    assert link.is_symlink() and real.stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert [path.name for path in real.parent.iterdir()] == [name]


def test_an_agent_for_features_needs_no_environment(tmp_path):
    model = agent(make_toy())
    model.save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", device="cpu")
    np.testing.assert_array_equal(model.q_values(first_obs()), loaded.q_values(first_obs()))


def test_a_tilde_is_the_home_folder_in_writing_and_reading(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    model = agent(make_toy()).learn(5, DynaQCheckpoint("~/by_callback", 5))
    model.save("~/agents/agent")
    model.save_replay_buffer("~/replay.npz")
    model.save_checkpoint("~/checkpoint")
    bandit = LinearBandit(make_toy(), seed=0).learn(5)
    bandit.save("~/bandit.zip")
    model.policy.save("~/policy.pt")
    np.save(home / "table.npy", action_table())
    assert not list(here.iterdir())
    written = {"agents", "replay.npz", "checkpoint", "by_callback", "bandit.zip", "policy.pt", "table.npy"}
    assert {place.name for place in home.iterdir()} == written and (home / "agents" / "agent.zip").is_file()
    DynaQ.load("~/agents/agent", make_toy()).load_replay_buffer("~/replay.npz")
    for folder in ("~/checkpoint", "~/by_callback"):
        assert len(DynaQ.load_checkpoint(folder, make_toy()).replay_buffer) == 5
    LinearBandit.load("~/bandit.zip", make_toy())
    CandidatePolicy.load("~/policy.pt")
    for made in (agent, LinearBandit):
        table = made(make_toy(ids=True), action_features="~/table.npy").action_table
        assert table.path == str(home / "table.npy")
    model.save("~nobody_of_this_name.zip")  # a name, and no home folder
    assert [place.name for place in here.iterdir()] == ["~nobody_of_this_name.zip"]


NUMPYS = {
    **{"gamma": np.float32(0.5), "learning_rate": np.float32(1e-3), "max_grad_norm": np.float32(10)},
    **{"batch_size": np.int64(8), "buffer_size": np.int64(100), "learning_starts": np.int64(4), "seed": np.int64(3)},
    **{"train_freq": (np.int64(2), "step"), "gradient_steps": np.int64(2), "target_update_interval": np.int64(5)},
    **{"planning_steps": np.int64(1), "exploration_bonus": np.float32(0.5), "exploration_fraction": np.float64(0.3)},
    **{
        "weight_pull": np.float32(0.1),
        "tau": np.float32(1),
        "stats_window_size": np.int64(9),
        "relabel": np.bool_(False),
    },
}


@pytest.mark.parametrize("world_model", ["network", "gaussian_process"])
def test_an_agent_with_arguments_of_numpys_types_is_saved_and_loaded(tmp_path, world_model):
    blockwise = {"features": "blockwise", "features_kwargs": {"n_blocks": np.int64(1)}, "prior": np.float32([0.1])}
    of_network = {"n_members": np.int64(2), "optimizer_kwargs": {"weight_decay": np.float32(0.1)}}
    of_process = {"noise": np.float32(0.3), "scales": {"state": np.float64(0.1), "constant": np.float32(1)}}
    model = agent(
        make_toy(ids=True),
        policy_kwargs={"net_arch": (np.int64(8),), "optimizer_kwargs": {"eps": np.float64(1e-8)}, **blockwise},
        world_model=world_model,
        world_model_kwargs=of_network if world_model == "network" else of_process,
        **NUMPYS,
    ).learn(np.int64(20))
    model.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(ids=True), device="cpu")
    obs = first_obs(ids=True)
    np.testing.assert_array_equal(resumed.q_values(obs), model.q_values(obs))
    model.save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", make_toy(ids=True), device="cpu", batch_size=np.int64(4))
    loaded.learn(10).save(tmp_path / "again.zip")
    assert DynaQ.load(tmp_path / "again.zip", make_toy(ids=True), device="cpu").batch_size == 4


def test_a_file_with_attributes_of_numpys_types_is_loaded(tmp_path):
    model = agent(make_toy())
    model.gamma, model.num_timesteps = np.float32(0.5), np.int64(7)
    model.save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", device="cpu")
    assert (loaded.gamma, loaded.num_timesteps, type(loaded.num_timesteps)) == (0.5, 7, int)


def test_a_zip_holds_no_values_of_the_table(tmp_path):
    table = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    model = agent(make_toy(ids=True, table=table))
    model.learn(70)
    model.save(tmp_path / "agent.zip")
    assert (tmp_path / "agent.zip").stat().st_size < table.nbytes / 2
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert not any(table[row].tobytes() in content for row in range(0, 20_000, 500))
    assert model.action_table.sha256.encode() in content


def test_the_table_comes_back_from_environment_argument_or_path(tmp_path):
    np.save(tmp_path / "table.npy", action_table())
    model = agent(make_toy(ids=True), action_features=tmp_path / "table.npy")
    model.save(tmp_path / "agent.zip")
    obs = first_obs(ids=True)
    for kwargs in ({}, {"env": make_toy(ids=True)}, {"action_features": action_table()}):
        loaded = DynaQ.load(tmp_path / "agent.zip", device="cpu", **kwargs)
        np.testing.assert_array_equal(model.q_values(obs), loaded.q_values(obs))
    assert isinstance(DynaQ.load(tmp_path / "agent.zip", device="cpu").action_table.values, np.memmap)


def test_the_path_of_an_environments_memory_map_is_kept(tmp_path):
    np.save(tmp_path / "table.npy", action_table())
    env = make_toy(ids=True, table=np.load(tmp_path / "table.npy", mmap_mode="r"))
    agent(env).save(tmp_path / "agent.zip")
    assert DynaQ.load(tmp_path / "agent.zip", device="cpu").action_table.path == str(tmp_path / "table.npy")


def test_without_any_table_loading_says_how_to_give_one(tmp_path):
    agent(make_toy(ids=True)).save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=r"Pass `action_features=` .* or `env=`"):
        DynaQ.load(tmp_path / "agent.zip")
    np.save(tmp_path / "table.npy", action_table())
    agent(make_toy(ids=True), action_features=tmp_path / "table.npy").save(tmp_path / "agent.zip")
    (tmp_path / "table.npy").unlink()
    with pytest.raises(ValueError, match=r"table.npy, which is not there"):
        DynaQ.load(tmp_path / "agent.zip")


def test_another_table_is_refused(tmp_path):
    model = agent(make_toy(ids=True))
    model.save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match="that does not, so its ids name other actions"):
        DynaQ.load(tmp_path / "agent.zip", make_toy(ids=True, table=2 * action_table()))
    with pytest.raises(ValueError, match="that does not, so its ids name other actions"):
        model.set_env(make_toy(ids=True, table=2 * action_table()))


def test_save_and_load_and_evaluate_under_a_monitor(tmp_path):
    env = Monitor(make_toy(), str(tmp_path / "log"))
    model = agent(env)
    model.learn(70)
    model.save(tmp_path / "agent")
    loaded = DynaQ.load(tmp_path / "agent", Monitor(make_toy()), device="cpu")
    returns = [evaluate_policy(m, Monitor(make_toy()), 1)[0] for m in (loaded, loaded)]
    assert np.isfinite(returns).all()
    env.close()


def test_the_replay_is_saved_without_pickle(tmp_path):
    model = agent(make_toy())
    model.learn(70)
    model.save_replay_buffer(tmp_path / "replay.npz")
    other = agent(make_toy())
    other.load_replay_buffer(tmp_path / "replay.npz")
    for name, values in read_all(model.replay_buffer).items():
        np.testing.assert_array_equal(values, read_all(other.replay_buffer)[name])


def test_gradient_steps_given_in_loading_are_taken(tmp_path):
    agent(make_toy()).save(tmp_path / "agent.zip")
    assert DynaQ.load(tmp_path / "agent.zip", make_toy()).gradient_steps == 1
    three = DynaQ.load(tmp_path / "agent.zip", make_toy(), gradient_steps=3)
    objects = DynaQ.load(tmp_path / "agent.zip", make_toy(), custom_objects={"gradient_steps": 3})
    three.save(tmp_path / "three.zip")
    assert [three.gradient_steps, objects.gradient_steps] == [3, 3]
    assert DynaQ.load(tmp_path / "three.zip", make_toy()).gradient_steps == 3
    several = DynaQ.load(tmp_path / "three.zip", DummyVecEnv([make_toy] * 2), gradient_steps=None)
    assert several.gradient_steps == -1


def test_another_world_model_is_refused_in_loading(tmp_path):
    agent(make_toy()).save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=r"`world_model` must be left out: the saved agent keeps its own"):
        DynaQ.load(tmp_path / "agent.zip", make_toy(), world_model="gaussian_process")


def test_a_world_model_is_told_each_loaded_transition_once(tmp_path):
    def make():
        return make_toy(new_candidates=True)

    kwargs = {"policy_kwargs": {"prior": [0.1], "features_kwargs": {"n_blocks": 1}}, "device": "cpu"}
    model = DynaQ.plus(make(), **kwargs)
    model.learn(40, callback=CheckpointCallback(20, str(tmp_path), save_replay_buffer=True))
    model.save(tmp_path / "end")
    for n_steps, before in ((20, 19), (40, 39)):  # SB3's callback saves a step before it is learned from
        for n_saved in (1, 2):  # an agent that is only loaded and saved again still knows what its model was told
            loaded = DynaQ.load(tmp_path / f"rl_model_{n_steps}_steps", make(), device="cpu")
            if n_saved == 2:
                loaded.save(tmp_path / "again")
                loaded = DynaQ.load(tmp_path / "again", make(), device="cpu")
            assert n_told(loaded) == before
            loaded.load_replay_buffer(tmp_path / f"rl_model_replay_buffer_{n_steps}_steps.pkl")
            loaded.learn(1, reset_num_timesteps=False)
            assert n_told(loaded) == len(loaded.replay_buffer) == n_steps + 1
    loaded = DynaQ.load(tmp_path / "end", make(), device="cpu")
    loaded.load_replay_buffer(tmp_path / "rl_model_replay_buffer_40_steps.pkl")
    loaded.learn(1, reset_num_timesteps=False)
    assert n_told(loaded) == 41
    new = DynaQ.plus(make(), **kwargs)
    new.load_replay_buffer(tmp_path / "rl_model_replay_buffer_40_steps.pkl")
    new.set_logger(configure(None, []))
    new.train(1, 8)
    assert n_told(new) == 40


def gaussian_process(seed, **kwargs):
    """An agent that learns each answer once, of environments in which no pair comes twice."""
    policy_kwargs = {"prior": [0.1], "features_kwargs": {"n_blocks": 1}}
    return DynaQ.plus(make_toy(new_candidates=True), seed, policy_kwargs=policy_kwargs, device="cpu", **kwargs)


def n_told(model):
    return int(model.world_model._counts.sum())


def loaded_from(path):
    model = DynaQ.load(path, make_toy(new_candidates=True), device="cpu")
    model.set_logger(configure(None, []))
    return model


@pytest.mark.parametrize("n_before", [10, 40, 60])
def test_a_world_model_is_told_all_of_another_runs_replay_and_each_transition_once(tmp_path, n_before):
    gaussian_process(1).learn(40).save_replay_buffer(tmp_path / "other.npz")
    model = gaussian_process(2).learn(n_before)
    model.save_replay_buffer(tmp_path / "own.npz")
    model.load_replay_buffer(tmp_path / "other.npz")
    model.learn(5, reset_num_timesteps=False)
    assert n_told(model) == n_before + 40 + 5
    model.save(tmp_path / "agent")
    for known in (model, loaded_from(tmp_path / "agent")):
        for name in ("own.npz", "other.npz"):
            known.load_replay_buffer(tmp_path / name)
            known.train(1, 8)
        assert n_told(known) == n_before + 40 + 5


def test_two_runs_that_go_on_from_one_file_are_told_of_what_the_other_learned(tmp_path):
    gaussian_process(1).learn(20).save_checkpoint(tmp_path / "checkpoint")
    make = make_toy(new_candidates=True)
    one, other = (DynaQ.load_checkpoint(tmp_path / "checkpoint", make, device="cpu") for _ in range(2))
    one.learn(30, reset_num_timesteps=False).save_replay_buffer(tmp_path / "one.npz")
    other.learn(10, reset_num_timesteps=False)
    other.load_replay_buffer(tmp_path / "one.npz")
    other.train(1, 8)
    assert n_told(other) == 20 + 10 + 30


def test_files_without_ids_of_replays_are_counted(tmp_path):
    """As an earlier version wrote them."""
    model = gaussian_process(1).learn(40, callback=CheckpointCallback(30, str(tmp_path), "agent", True))
    model.save_replay_buffer(tmp_path / "replay.npz")
    with np.load(tmp_path / "replay.npz") as arrays:
        np.savez(tmp_path / "replay.npz", **{name: arrays[name] for name in arrays if not name.startswith("ends:")})
    with zipfile.ZipFile(tmp_path / "agent_30_steps.zip") as new, zipfile.ZipFile(tmp_path / "old.zip", "w") as old:
        for name in new.namelist():
            data = json.loads(new.read(name)) if name == "data" else None
            assert data is None or (data.pop("_told"), data["_n_scored"])[1] == 29  # saved before the 30th was learned
            old.writestr(name, new.read(name) if data is None else json.dumps(data))
    old = loaded_from(tmp_path / "old.zip")
    for _ in range(2):
        old.load_replay_buffer(tmp_path / "replay.npz")
        old.train(1, 8)
        assert n_told(old) == 40
    old.save(tmp_path / "again.zip")
    again = loaded_from(tmp_path / "again.zip")
    again.load_replay_buffer(tmp_path / "replay.npz")
    again.learn(5, reset_num_timesteps=False)
    assert n_told(again) == 45


def test_a_policy_saved_by_itself_predicts_the_same(tmp_path):
    model = agent(make_toy())
    model.policy.save(tmp_path / "policy.pt")
    loaded = type(model.policy).load(tmp_path / "policy.pt", device="cpu")
    assert loaded.predict(first_obs())[0] == model.policy.predict(first_obs())[0]


def test_a_policy_of_ids_is_loaded_with_its_table(tmp_path):
    np.save(tmp_path / "table.npy", action_table())
    in_memory, on_disk = (
        agent(make_toy(ids=True), action_features=source).policy for source in (action_table(), tmp_path / "table.npy")
    )
    obs = make_toy(ids=True).reset(seed=3)[0]
    longer = np.concatenate([action_table(), np.ones((1, action_table().shape[1]), np.float32)])
    in_memory.save(tmp_path / "policy.pt")
    with pytest.raises(ValueError, match="`action_features` must be given where `candidates` are ids"):
        CandidatePolicy.load(tmp_path / "policy.pt")
    with pytest.raises(ValueError, match="`action_features` must begin with the 12 rows"):
        CandidatePolicy.load(tmp_path / "policy.pt", action_features=-longer)
    for table in (action_table(), longer, tmp_path / "table.npy"):
        loaded = CandidatePolicy.load(tmp_path / "policy.pt", device="cpu", action_features=table)
        assert loaded.predict(obs)[0] == in_memory.predict(obs)[0]
    on_disk.save(tmp_path / "policy.pt")
    assert CandidatePolicy.load(tmp_path / "policy.pt", device="cpu").predict(obs)[0] == on_disk.predict(obs)[0]
    (tmp_path / "table.npy").unlink()
    with pytest.raises(ValueError, match="`action_features` must be given .* trained with .*table.npy, which is not"):
        CandidatePolicy.load(tmp_path / "policy.pt")


# ---------------------------------------------------------------------- checkpoints

KINDS = {
    "one": lambda: make_toy(mask=True, new_candidates=True, components=True),
    "registered": lambda: gym.wrappers.OrderEnforcing(gym.wrappers.PassiveEnvChecker(make_toy(ids=True, mask=True))),
    "three": lambda: DummyVecEnv([lambda: Monitor(make_toy(terminate_at=4, ids=True))] * 3),
    "normalized": lambda: VecNormalize(VecMonitor(DummyVecEnv([make_toy] * 2)), norm_obs=False),
    "sync": lambda: GymnasiumVecEnv(
        gym.vector.SyncVectorEnv([lambda: make_toy(mask=True)] * 3, autoreset_mode=SAME_STEP)
    ),
    "native": lambda: GymnasiumVecEnv(ToyVectorEnv(3, ids=True)),
}


class StopAt(BaseCallback):
    def __init__(self, n):
        super().__init__()
        self.n = n

    def _on_step(self):
        return self.num_timesteps < self.n


def everything(model):
    """All that decides how a run goes on."""
    found = {name: values for name, values in read_all(model.replay_buffer).items()}
    for name in ("policy", "world_model"):
        module = getattr(model, name)
        state = module.state_dict()
        # Beside the weights: the scale of the features, of the policy, and what a Gaussian process was told.
        state |= state.pop("_extra_state", {})
        state |= state.pop("scales", {})
        found |= {f"{name}.{key}": np.asarray(value) for key, value in state.items()}
        for i, slot in (module.optimizer.state_dict()["state"] if module.optimizer else {}).items():
            found |= {f"{name}.optimizer.{i}.{key}": value.numpy() for key, value in slot.items()}
    found |= {f"obs.{key}": value for key, value in model._last_obs.items()}
    for name in ("num_timesteps", "exploration_rate", "_n_updates", "_n_planning_updates", "_n_transitions"):
        found[name] = np.array(getattr(model, name))
    found["_episode_num"] = np.array(model._episode_num)
    found["returns"] = np.array([episode["r"] for episode in model.ep_info_buffer])
    found["window"] = np.array([model.forecasts.earned, model.forecasts.predicted])
    found |= {f"rng.{name}": np.array(str(rng.bit_generator.state)) for name, rng in model._rngs.items()}
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train_freq", [1, 4])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(tmp_path, kind, train_freq):
    kwargs = {"learning_starts": 12, "buffer_size": 28, "target_update_interval": 18, "train_freq": train_freq}
    kwargs |= {"planning_steps": 1, "batch_size": 8}
    total, stop = 60, 42  # neither at the end of an episode nor of a rollout; after the ring went round
    whole = agent(KINDS[kind](), **kwargs)
    whole.learn(total)

    first = agent(KINDS[kind](), **kwargs)
    first.learn(total, callback=StopAt(stop))
    assert first.num_timesteps == stop
    first.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", KINDS[kind](), device="cpu")
    resumed.learn(total - stop, reset_num_timesteps=False)

    wanted, found = everything(whole), everything(resumed)
    assert wanted.keys() == found.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(values, found[name], err_msg=name)


def test_a_stopped_run_that_goes_on_without_loading_equals_the_uninterrupted_one():
    whole, stopped = agent(make_toy(), train_freq=3), agent(make_toy(), train_freq=3)
    whole.learn(120)
    stopped.learn(120, callback=StopAt(80))
    stopped.learn(40, reset_num_timesteps=False)
    for name, values in everything(whole).items():
        np.testing.assert_array_equal(values, everything(stopped)[name], err_msg=name)


@pytest.mark.parametrize("moment", ["step", "rollout_end"])
def test_a_checkpoint_written_inside_a_callback_resumes_to_the_bit(tmp_path, moment):
    class AtRolloutEnd(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            if self.num_timesteps == 84:
                self.model.save_checkpoint(tmp_path / "checkpoint")

    whole = agent(make_toy(), train_freq=2)
    whole.learn(120, callback=DynaQCheckpoint(tmp_path / "checkpoint", 84) if moment == "step" else AtRolloutEnd())
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(), device="cpu")
    assert resumed.num_timesteps == 84
    resumed.learn(36, reset_num_timesteps=False)
    for name, values in everything(whole).items():
        np.testing.assert_array_equal(values, everything(resumed)[name], err_msg=name)


def test_a_checkpoint_before_learning_equals_a_fresh_start(tmp_path):
    model = agent(make_toy())
    model.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(), device="cpu")
    model.learn(70), resumed.learn(70)
    for name, values in everything(model).items():
        if not name.startswith("rng"):
            np.testing.assert_array_equal(values, everything(resumed)[name], err_msg=name)


def test_an_environment_without_state_begins_new_episodes_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.delattr(ToyEnv, "get_state")
    model = agent(make_toy())
    model.learn(70)
    users = model.replay_buffer.states.rows.tolist()
    model.save_checkpoint(tmp_path / "checkpoint")
    with pytest.warns(UserWarning, match="new episodes begin"):
        resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(), device="cpu")
    resumed.learn(20, reset_num_timesteps=False)
    assert resumed.num_timesteps == 90
    assert resumed._last_obs["user"][0].tolist() not in users  # and not the first episodes again


def test_environments_wrapped_otherwise_are_refused(tmp_path):
    model = agent(make_toy())
    model.learn(10)
    model.save_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="must be wrapped as in the saved run"):
        DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(max_episode_steps=None), device="cpu")
    with pytest.raises(ValueError, match="must hold 1 environments"):
        DynaQ.load_checkpoint(tmp_path / "checkpoint", DummyVecEnv([make_toy] * 2), device="cpu")


def test_an_old_checkpoint_survives_a_write_that_fails(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    model = agent(make_toy())
    model.learn(10)
    model.save_checkpoint(folder)
    model.learn(20)
    monkeypatch.setattr(model.replay_buffer, "save", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_checkpoint(folder)
    assert DynaQ.load_checkpoint(folder, make_toy(), device="cpu").num_timesteps == 10
    # Killed between the two renames.
    shutil.move(folder, tmp_path / ".checkpoint.old")
    assert DynaQ.load_checkpoint(folder, make_toy(), device="cpu").num_timesteps == 10
    monkeypatch.undo()
    model.save_checkpoint(folder)
    assert DynaQ.load_checkpoint(folder, make_toy(), device="cpu").num_timesteps == 20
    # The same behind a link.
    (tmp_path / "link").symlink_to("checkpoint")
    shutil.move(folder, tmp_path / ".checkpoint.old")
    assert DynaQ.load_checkpoint(tmp_path / "link", make_toy(), device="cpu").num_timesteps == 20
    (tmp_path / "link").unlink()
    # Killed after the renames, while the old checkpoint was being removed.
    shutil.copytree(folder, tmp_path / ".checkpoint.old")
    model.learn(30)
    model.save_checkpoint(folder)
    assert DynaQ.load_checkpoint(folder, make_toy(), device="cpu").num_timesteps == 30
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_folder_or_file_of_something_else_is_not_replaced_by_a_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").write_text("years of work")
    monkeypatch.chdir(tmp_path)
    model = agent(make_toy())
    for place in (tmp_path, tmp_path / "thesis.tex", ".", "within/.."):
        with pytest.raises(FileExistsError, match=f"{re.escape(tmp_path.name)}.* exists and holds no checkpoint"):
            model.save_checkpoint(place)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    model.save_checkpoint(tmp_path / "empty")
    assert DynaQ.load_checkpoint(tmp_path / "empty", make_toy(), device="cpu").num_timesteps == 0


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        DynaQ.load_checkpoint(tmp_path / "nowhere", make_toy())


def test_state_that_is_no_json_is_refused_by_its_place(tmp_path, monkeypatch):
    model = agent(make_toy())
    model.learn(5)
    monkeypatch.setattr(ToyEnv, "get_state", lambda self: {"thing": object()})
    with pytest.raises(ValueError, match=r"got object at state\.env.*thing"):
        model.save_checkpoint(tmp_path / "checkpoint")
    monkeypatch.setattr(ToyEnv, "get_state", lambda self: {"seen": {3: 1}})  # JSON would make it {"3": 1}
    with pytest.raises(ValueError, match=r"the keys of its dicts must be strings, got 3 at state\.env.*seen"):
        model.save_checkpoint(tmp_path / "checkpoint")


@pytest.mark.parametrize("save_freq", [0, 2.5, float("nan"), "5"])
def test_a_frequency_of_checkpoints_that_is_no_whole_number_is_refused(tmp_path, save_freq):
    with pytest.raises(ValueError, match=r"`save_freq` must be (a whole number of )?1 or more"):
        DynaQCheckpoint(tmp_path, save_freq)


def test_every_layer_is_asked_for_its_state():
    env = DummyVecEnv([lambda: Monitor(make_toy())])
    env.seed(0)
    env.reset()
    env.step(np.array([0]))
    states = read_env_state(env)
    assert list(states) == [
        "DummyVecEnv",
        "DummyVecEnv/0/Monitor",
        "DummyVecEnv/0/Monitor/TimeLimit",
        "DummyVecEnv/0/Monitor/TimeLimit/ToyEnv",
    ]
    assert states["DummyVecEnv/0/Monitor/TimeLimit"] == {"_elapsed_steps": 1}
    assert len(states["DummyVecEnv/0/Monitor"]["rewards"]) == 1


def test_loading_a_checkpoint_leaves_no_warning_and_no_seed(tmp_path):
    model = agent(make_toy())
    model.learn(70)
    model.save_checkpoint(tmp_path / "checkpoint")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(), device="cpu")
    # The seed belongs to the first reset of the run, not to the next one.
    assert resumed.env._seeds == [None]


def test_a_layer_that_keeps_an_unknown_state_is_named(tmp_path):
    model = agent(gym.wrappers.NormalizeReward(make_toy()))
    model.learn(30)
    model.save_checkpoint(tmp_path / "checkpoint")
    with pytest.warns(UserWarning, match="NormalizeReward.* keep no state that a checkpoint knows of"):
        DynaQ.load_checkpoint(tmp_path / "checkpoint", gym.wrappers.NormalizeReward(make_toy()), device="cpu")


def test_rollouts_counted_in_episodes_resume_to_the_bit(tmp_path):
    def make():
        return agent(make_toy(), train_freq=(2, "episode"), learning_starts=0)

    whole, stopped = make(), make()
    whole.learn(60)
    stopped.learn(60, callback=StopAt(27))  # one of two episodes is over
    stopped.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(), device="cpu")
    resumed.learn(60 - 27, reset_num_timesteps=False)
    assert resumed.num_timesteps == whole.num_timesteps
    for old, new in zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True):
        np.testing.assert_array_equal(old.detach().numpy(), new.detach().numpy())


def test_a_table_with_too_few_rows_is_refused():
    with pytest.raises(ValueError, match="must have a row for every id .* 0 to 11, got 10 rows"):
        agent(make_toy(ids=True), action_features=action_table(10))
