"""Planning at decision time: Q is the world model's reward plus gamma times a future that the Q-network learns."""

import copy
import functools

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.evaluation import evaluate_policy
from test_dynaq import count, parameters
from test_saving import KINDS, StopAt, everything
from toy import ToyEnv, action_table, make_toy

from dynaq_algo import DynaQ
from dynaq_algo.arguments import BOOTSTRAPS

BLOCKWISE = {"features": "blockwise", "features_kwargs": {"n_blocks": 1}, "net_arch": [16]}
MODELS = {
    "gaussian_process": {"world_model": "gaussian_process", "policy_kwargs": BLOCKWISE},
    "network": {"world_model": "network", "policy_kwargs": {"net_arch": [16]}},
    "ensemble": {"world_model": "network", "world_model_kwargs": {"n_members": 3}, "policy_kwargs": {"net_arch": [16]}},
}


def agent(env=None, model="gaussian_process", **kwargs):
    kwargs = {"seed": 0, "device": "cpu", "learning_starts": 16, "batch_size": 16, **MODELS[model], **kwargs}
    return DynaQ("CandidatePolicy", make_toy() if env is None else env, planning="decision_time", **kwargs)


def known_toy():
    """One user for ever, and each of 4 actions shown at each step."""
    return make_toy(None, table=action_table(4))


def shown_and_rewards(model):
    """The only observation of `known_toy`, and the rewards of its candidates, (4,)."""
    env = model.env.envs[0].unwrapped
    return env._obs(), (env.user * env.table[env.members]).mean(axis=1)


# ---------------------------------------------------------------------- without a future


@pytest.mark.parametrize("model", MODELS)
def test_at_gamma_zero_q_is_the_models_reward_and_the_q_network_never_changes(model, monkeypatch):
    learner = agent(model=model, gamma=0.0)
    before = parameters(learner.q_net), parameters(learner.q_net_target)
    updates = count(monkeypatch, learner, "_q_update")
    learner.learn(60)
    assert learner.plan(16) == [] == updates
    assert th.equal(before[0], parameters(learner.q_net))
    assert th.equal(before[1], parameters(learner.q_net_target))
    obs, _ = make_toy().reset(seed=5)
    np.testing.assert_array_equal(learner.q_values(obs), learner.predict_reward(obs))
    assert learner.predict(obs, deterministic=True)[0] == learner.predict_reward(obs).argmax()


@pytest.mark.parametrize("model", ["gaussian_process", "network"])
def test_the_last_reward_is_in_the_next_decision(model):
    learner = agent(model=model, gamma=0.0, learning_starts=0, learning_rate=0.05)
    obs, _ = make_toy().reset(seed=5)
    before = learner.q_values(obs)[0, 2]
    learner.observe(obs, 2, 3.0)
    assert learner.q_values(obs)[0, 2] > before + 0.05


# ---------------------------------------------------------------------- with a future


@pytest.mark.parametrize("model", ["gaussian_process", "network"])
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_the_future_is_learned(model, bootstrap):
    gamma = 0.5
    source = "candidates" if bootstrap == "same_action" else "visited"
    kwargs = {"planning_source": source, "bootstrap": bootstrap, "gamma": gamma, "exploration_final_eps": 1.0}
    learner = agent(known_toy(), model, learning_rate=0.01, target_update_interval=10, planning_steps=2, **kwargs)
    learner.learn(200)
    obs, rewards = shown_and_rewards(learner)
    following = rewards if bootstrap == "same_action" else rewards.max()
    np.testing.assert_allclose(learner.predict_reward(obs)[0], rewards, atol=0.1)
    np.testing.assert_allclose(learner.q_values(obs)[0], rewards + gamma * following / (1 - gamma), atol=0.15)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_q_and_its_targets_are_the_models_reward_plus_gamma_times_a_network(model, bootstrap):
    learner = agent(make_toy(mask=True, new_candidates=True), model, gamma=0.7, bootstrap=bootstrap)
    learner.learn(60)
    learner.q_net_target.first.bias.data += 1.0  # so that it is another network

    def values(network, obs):
        decisions = learner.policy.layout.read(obs)
        state, candidates = th.as_tensor(decisions.state), th.as_tensor(decisions.candidates)
        with th.no_grad():
            reward = learner.world_model.score(state, candidates)[0]
            return (reward + 0.7 * network.score(state, candidates)).numpy()

    obs, _ = make_toy(mask=True).reset(seed=5)
    np.testing.assert_allclose(learner.q_values(obs), values(learner.q_net, obs), atol=1e-6)

    replay = learner.replay_buffer
    transitions = replay[np.arange(20)]
    batch = learner._batch(transitions)
    found = learner._targets(batch, None, learner._target_values(transitions, batch)).numpy()
    for i in range(20):
        at = np.array([i])
        ids, mask = replay.candidate_sets(at, following=True)
        if bootstrap == "same_action":
            ids, mask = transitions.candidate_id[at][None], np.ones((1, 1), bool)
        user, candidates = replay.state_rows(transitions.next_state_id[at])[0], replay.candidate_rows(ids[0])
        following = {"user": user, "candidates": candidates, "action_mask": mask[0]}
        of_target = values(learner.q_net_target, following)[0]
        judged = values(learner.q_net, following)[0] if bootstrap == "double" else of_target
        assert found[i] == pytest.approx(of_target[np.where(mask[0], judged, -np.inf).argmax()], abs=1e-5)


def test_a_future_ends_where_an_episode_does():
    learner = agent(make_toy(terminate_at=1), gamma=0.9, learning_rate=0.01, target_update_interval=10).learn(150)
    obs, _ = make_toy().reset(seed=5)
    np.testing.assert_allclose(learner.q_values(obs), learner.predict_reward(obs), atol=0.05)


def test_pretraining_teaches_the_future_and_a_model_that_is_a_network():
    rng = np.random.default_rng(0)
    data = {"state": rng.normal(size=(300, 3)), "action": rng.normal(size=(300, 3)), "reward": np.full(300, 0.4)}
    learner = agent(model="network", gamma=0.5, target_update_interval=20)
    assert learner.pretrain(data, epochs=20).keys() == {"loss", "model_loss"}
    obs, _ = make_toy().reset(seed=5)
    np.testing.assert_allclose(learner.predict_reward(obs), 0.4, atol=0.1)
    np.testing.assert_allclose(learner.q_values(obs), 0.8, atol=0.2)


def test_without_any_network_there_is_nothing_to_pretrain():
    data = {"state": np.ones((3, 3)), "action": np.ones((3, 3)), "reward": np.ones(3)}
    with pytest.raises(ValueError, match=r"no network to train .* by `observe`"):
        agent(gamma=0.0).pretrain(data)
    assert agent(gamma=0.5).pretrain(data, epochs=1)["loss"] >= 0


# ---------------------------------------------------------------------- acting


@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_the_bonus_is_added_while_exploring_only(gamma):
    learner = agent(gamma=gamma, exploration_bonus=100.0, exploration_initial_eps=0.0, exploration_final_eps=0.0)
    learner.learn(40)
    turned = 0
    for seed in range(20):
        obs, _ = make_toy().reset(seed=seed)
        q_values, spread = learner.q_values(obs)[0], learner.reward_spread(obs)[0]
        assert learner.predict(obs, deterministic=True)[0] == q_values.argmax()
        assert learner.policy.predict(obs)[0] == q_values.argmax()
        assert learner.predict(obs)[0] == (q_values + 100 * spread).argmax()
        turned += q_values.argmax() != spread.argmax()
    assert turned > 0


def test_features_and_ids_are_the_same_problem_at_decision_time():
    learners = [agent(make_toy(ids=ids), "network", gamma=0.9).learn(60) for ids in (False, True)]
    observations = [make_toy(ids=ids).reset(seed=5)[0] for ids in (False, True)]
    np.testing.assert_allclose(*(m.q_values(o) for m, o in zip(learners, observations, strict=True)), rtol=1e-5)


@pytest.mark.parametrize("n_candidates", [1, 3, 12])
@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_any_number_of_candidates_is_judged_each_as_it_is(n_candidates, gamma):
    learner = agent(make_toy(mask=True), gamma=gamma, exploration_initial_eps=1.0).learn(30)
    user = make_toy().reset(seed=5)[0]["user"]
    many = {"user": user, "candidates": action_table(), "action_mask": np.ones(12, bool)}
    some = {**many, "candidates": action_table()[:n_candidates], "action_mask": np.ones(n_candidates, bool)}
    some["action_mask"][0] = n_candidates == 1
    np.testing.assert_allclose(learner.q_values(some), learner.q_values(many)[:, :n_candidates], atol=1e-5)
    allowed = range(n_candidates != 1, n_candidates)
    assert learner.predict(some, deterministic=True)[0] in allowed
    assert {int(learner.predict(some)[0]) for _ in range(50)} <= set(allowed)


# ---------------------------------------------------------------------- saving


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("gamma", "bootstrap"), [(0.0, "same_action"), (0.9, "same_action"), (0.9, "double")])
@pytest.mark.parametrize("kind", ["one", "native"])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(tmp_path, model, gamma, bootstrap, kind):
    # Both before and after the stop the target is copied and the ring goes round.
    kwargs = {"gamma": gamma, "bootstrap": bootstrap, "buffer_size": 20, "target_update_interval": 18}
    kwargs |= {"planning_steps": 1, "batch_size": 8, "exploration_bonus": 0.5, "learning_starts": 9}
    whole, first = (agent(KINDS[kind](), model, **kwargs) for _ in range(2))
    whole.learn(45)
    first.learn(45, callback=StopAt(30))
    first.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", KINDS[kind](), device="cpu")
    resumed.learn(15, reset_num_timesteps=False)
    wanted, found = everything(whole), everything(resumed)
    assert wanted.keys() == found.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(values, found[name], err_msg=name)


@functools.cache
def learned(gamma):
    """An agent that nobody changes."""
    return agent(gamma=gamma).learn(40)


@pytest.mark.parametrize("gamma", [0.0, 0.9])
@pytest.mark.parametrize("where", ["a path without its ending", "a path", "a file"])
@pytest.mark.parametrize("with_env", [False, True])
def test_a_loaded_agent_is_the_saved_one(tmp_path, gamma, where, with_env):
    learner = learned(gamma)
    learner.save(tmp_path / "agent")
    env = make_toy() if with_env else None
    obs, _ = make_toy().reset(seed=5)
    if where == "a file":
        with (tmp_path / "agent.zip").open("rb") as file:
            loaded = DynaQ.load(file, env, device="cpu")
    else:
        path = tmp_path / "agent.zip" if where == "a path" else str(tmp_path / "agent")
        loaded = DynaQ.load(path, env, device="cpu")
    assert (loaded.planning, loaded.gamma) == ("decision_time", gamma)
    np.testing.assert_array_equal(learner.q_values(obs), loaded.q_values(obs))
    np.testing.assert_array_equal(learner.reward_spread(obs), loaded.reward_spread(obs))
    assert learner.policy.predict(obs)[0] == loaded.policy.predict(obs)[0]
    if with_env:
        loaded.learn(20, reset_num_timesteps=False)
        assert loaded.num_timesteps == 60


def test_a_copy_learns_by_itself():
    learner = agent(gamma=0.5).learn(40)
    obs, _ = make_toy().reset(seed=5)
    before = learner.q_values(obs)
    twin = copy.deepcopy(learner)
    np.testing.assert_array_equal(twin.q_values(obs), before)
    twin.observe(obs, 1, 5.0, obs)
    assert (twin.q_values(obs) != before).any()
    np.testing.assert_array_equal(learner.q_values(obs), before)
    learner.observe(obs, 1, 5.0, obs)
    np.testing.assert_array_equal(learner.q_values(obs), twin.q_values(obs))


def test_sb3s_callback_and_evaluation_work(tmp_path):
    learner = agent(gamma=0.0)
    checkpoints = CheckpointCallback(20, str(tmp_path), name_prefix="agent", save_replay_buffer=True)
    learner.learn(40, callback=checkpoints)
    loaded = DynaQ.load(tmp_path / "agent_40_steps", device="cpu")
    assert loaded.num_timesteps == 40
    returns = [
        evaluate_policy(policy, gym.wrappers.TimeLimit(ToyEnv(), 5), 3, warn=False)
        for policy in (learner, loaded, learner.policy)
    ]
    assert np.isfinite(returns).all()
    loaded.load_replay_buffer(tmp_path / "agent_replay_buffer_40_steps.pkl")
    assert len(loaded.replay_buffer) == 40


def test_a_policy_that_plans_is_not_saved_without_its_model(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be saved by itself.*`model.save\(path\)`"):
        agent(gamma=0.0).policy.save(tmp_path / "policy.pt")


def test_a_way_of_planning_that_is_none_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match=r"`planning` must be one of .*did you mean 'decision_time'"):
        DynaQ("CandidatePolicy", make_toy(), planning="decisiontime")


def test_the_future_begins_at_zero_whatever_the_prior_says():
    learner = agent(gamma=0.9, policy_kwargs={**BLOCKWISE, "prior": [0.5]})
    obs, _ = make_toy().reset(seed=0)

    assert np.abs(learner.predict_reward(obs)).max() > 0
    np.testing.assert_array_equal(learner.q_values(obs), learner.predict_reward(obs))


def test_a_gaussian_process_hears_of_every_answer_that_came_before_the_first_training():
    # Of few different pairs: what it costs to hear of them rises with the square of their number.
    learner = agent(known_toy(), gamma=0.0, learning_starts=1_200).learn(1_201)

    assert learner.replay_buffer.n_added == 1_201
    assert float(learner.world_model.get_extra_state()["count"].sum()) == 1_201
