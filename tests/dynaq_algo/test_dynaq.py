"""The parts of Dyna-Q, one by one: a learning curve could not tell it from Q-learning."""

import random
from collections import Counter
from unittest.mock import DEFAULT, Mock

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from toy import N_ACTIONS, N_CANDIDATES, ToyEnv, ToyVectorEnv, action_table, make_toy

from dynaq_algo import CandidatePolicy, DynaQ, GymnasiumVecEnv, LinearBandit
from dynaq_algo.networks import PairNetwork
from dynaq_algo.validity import NothingLearned


def agent(env=None, **kwargs):
    kwargs = {"seed": 0, "policy_kwargs": {"net_arch": [16, 16]}, "device": "cpu", **kwargs}
    return DynaQ("CandidatePolicy", make_toy() if env is None else env, **kwargs)


def vec(n, **kwargs):
    return DummyVecEnv([lambda: make_toy(**kwargs) for _ in range(n)])


def count(monkeypatch, owner, name):
    """Count the calls of a method without changing them."""
    calls, method = [], getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(args)
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


def parameters(module):
    return th.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()


# ---------------------------------------------------------------------- defaults


def test_defaults_are_those_of_the_design():
    model = DynaQ("CandidatePolicy", make_toy())
    assert (model.learning_rate, model.gamma, model.batch_size, model.buffer_size) == (1e-3, 0.9, 64, 10_000)
    assert (model.learning_starts, model.train_freq.frequency, model.gradient_steps) == (64, 1, 1)
    assert (model.target_update_interval, model.planning_steps, model.bootstrap, model.tau) == (
        100,
        5,
        "same_action",
        1,
    )
    assert (model.exploration_initial_eps, model.exploration_final_eps, model.exploration_fraction) == (1.0, 0.05, 0.3)
    assert model.max_grad_norm == float("inf")
    for network in (model.q_net, model.world_model.members[0]):
        shapes = [module.weight.shape for module in network.modules() if isinstance(module, th.nn.Linear)]
        assert shapes == [(256, 6), (256, 256), (1, 256)]
        assert not any(isinstance(module, th.nn.Dropout) for module in network.modules())
    for optimizer in (model.policy.optimizer, model.world_model.optimizer):
        assert type(optimizer) is th.optim.Adam
        assert optimizer.param_groups[0]["lr"] == 1e-3
    assert DynaQ("CandidatePolicy", vec(2)).gradient_steps == -1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gamma": 1.0}, r'below 1 for `bootstrap="same_action"`.*got 1.0'),
        ({"bootstrap": "duoble"}, "did you mean 'double'"),
        ({"planning_source": "visit"}, "did you mean 'visited'"),
        ({"planning_steps": -1}, "`planning_steps` must be 0 or more, got -1"),
        ({"planning_steps": 1.5}, "`planning_steps` must be a whole number of 0 or more, got 1.5"),
        ({"planning_steps": True}, "`planning_steps` must be a whole number of 0 or more, got True"),
        ({"batch_size": "abc"}, "`batch_size` must be a whole number of 1 or more, got 'abc'"),
        ({"gamma": "abc"}, "`gamma` must be a finite number, got 'abc'"),
        ({"exploration_bonus": "abc"}, "`exploration_bonus` must be a finite number of 0 or more, got abc"),
        ({"n_steps": 3}, "compact replay of its own and one-step targets"),
        ({"buffer_size": 0}, "`buffer_size` must be n_envs=1 or more"),
        ({"learning_rate": "fast"}, "`learning_rate` must be a finite number, got 'fast'"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a finite number, got nan"),
        ({"buffer_size": "big"}, "`buffer_size` must be n_envs=1 or more, .* got 'big'"),
        ({"buffer_size": 10**12}, "`buffer_size` of 1,000,000,000,000 takes more memory than there is .*: lower it"),
        ({"learning_starts": "x"}, "`learning_starts` must be a whole number of 0 or more, got 'x'"),
        ({"gradient_steps": "x"}, "`gradient_steps` must be a whole number of -1 or more, got 'x'"),
        ({"train_freq": 0}, "`train_freq` must be 1 or more, got 0"),
        (
            {"train_freq": (4, "years")},
            r"`train_freq` must be a number, or a tuple such as \(4, \"step\"\), got \(4, 'years'\)",
        ),
        ({"max_grad_norm": -1.0}, "`max_grad_norm` must be above 0, got -1.0. To clip no gradient leave it out"),
        ({"max_grad_norm": float("nan")}, "`max_grad_norm` must be above 0, got nan"),
        ({"exploration_fraction": "x"}, "`exploration_fraction` must be a finite number, got 'x'"),
        ({"exploration_fraction": -1}, "`exploration_fraction` must be 0 or more, got -1"),
        ({"exploration_initial_eps": float("nan")}, "`exploration_initial_eps` must be a finite number, got nan"),
        ({"exploration_final_eps": 7}, r"`exploration_final_eps` must be in \[0, 1\], got 7"),
        ({"device": "nowhere"}, "`device` must be auto, or a device of torch such as cpu or cuda:0, got 'nowhere'"),
        ({"world_model_kwargs": {"n_members": 0}}, "`n_members` must be 1 or more, got 0"),
        ({"policy_kwargs": {"net_arch": []}}, "at least one hidden layer"),
    ],
)
def test_arguments_out_of_range_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        agent(**kwargs)


def test_gamma_of_one_is_allowed_with_a_maximum():
    assert agent(gamma=1.0, bootstrap="max").gamma == 1.0


def test_an_unknown_policy_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'CandidatePolicy'"):
        DynaQ("CandidatesPolicy", make_toy())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"planing_steps": 3}, r"DynaQ has no argument 'planing_steps': did you mean 'planning_steps'\?"),
        ({"exploration_final_epsilon": 0.1}, r"DynaQ has no argument .*did you mean 'exploration_final_eps'\?"),
        ({"zzz": 1}, r"DynaQ has no argument 'zzz'\.$"),
        ({"n_step": 3}, r"DynaQ has no argument 'n_step'"),
        (
            {"policy_kwargs": {"net_arhc": [8]}},
            r"CandidatePolicy, which takes `policy_kwargs`, .*did you mean 'net_arch'\?",
        ),
        (
            {"world_model_kwargs": {"n_member": 2}},
            r"WorldModel, which takes `world_model_kwargs`, .*did you mean 'n_members'\?",
        ),
        (
            {"world_model": "gaussian_process", "world_model_kwargs": {"nose": 2}},
            r"GaussianProcess, which takes `world_model_kwargs`, has no argument 'nose': did you mean 'noise'\?",
        ),
    ],
)
def test_an_unknown_argument_is_refused_with_a_suggestion(kwargs, message):
    with pytest.raises(TypeError, match=message):
        agent(**kwargs)


def test_loading_and_learning_refuse_an_unknown_argument_with_a_suggestion(tmp_path):
    model = agent().learn(70)
    model.save(tmp_path / "agent.zip")
    model.save_checkpoint(tmp_path / "checkpoint")
    near = r"DynaQ.load has no argument 'planing_steps': did you mean 'planning_steps'\?"
    with pytest.raises(TypeError, match=near):
        DynaQ.load(tmp_path / "agent.zip", make_toy(), planing_steps=3)
    with pytest.raises(TypeError, match=near):
        DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(), planing_steps=3)
    with pytest.raises(TypeError, match=r"DynaQ.load has no argument 'force_rest': did you mean 'force_reset'\?"):
        DynaQ.load(tmp_path / "agent.zip", make_toy(), force_rest=False)
    with pytest.raises(TypeError, match=r"DynaQ.learn has no argument 'progres_bar': did you mean 'progress_bar'\?"):
        model.learn(10, progres_bar=True)
    of_sb3 = {"custom_objects": {"gamma": 0.5}, "print_system_info": False, "force_reset": False, "device": "cpu"}
    known = DynaQ.load(tmp_path / "agent.zip", make_toy(), planning_steps=3, tau=0.5, verbose=0, **of_sb3)
    assert (known.planning_steps, known.tau, known.gamma) == (3, 0.5, 0.5)
    assert DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(), planning_steps=3).planning_steps == 3


def test_a_policy_of_ones_own_may_take_other_arguments():
    class Mine(CandidatePolicy):
        def __init__(self, *args, colour, **kwargs):
            super().__init__(*args, **kwargs)
            self.colour = colour

    model = DynaQ(Mine, make_toy(), policy_kwargs={"colour": "red", "net_arch": [8]})
    assert (model.policy.colour, model.policy.net_arch) == ("red", [8])


def test_an_environment_without_candidates_is_refused():
    with pytest.raises(ValueError, match="must be `Dict"):
        DynaQ("CandidatePolicy", "CartPole-v1")


# ---------------------------------------------------------------------- updates


@pytest.mark.parametrize(("n_envs", "planning_steps"), [(1, 5), (1, 0), (3, 2)])
def test_n_planning_steps_are_n_optimiser_steps(monkeypatch, n_envs, planning_steps):
    model = agent(vec(n_envs), planning_steps=planning_steps, learning_starts=9)
    q_steps = count(monkeypatch, model.policy.optimizer, "step")
    model_steps = count(monkeypatch, model.world_model.optimizer, "step")
    model.learn(30)
    # Training begins after the first step beyond `learning_starts`.
    updates = 30 - 9
    assert len(model_steps) == updates
    assert len(q_steps) == updates * (1 + planning_steps)
    assert model._n_updates == updates
    assert model._n_planning_updates == updates * planning_steps


def test_a_planning_step_is_not_one_update_scaled_by_n():
    one, five = (agent(learning_starts=20, seed=3) for _ in range(2))
    for model in (one, five):
        model.learn(20)
    one.planning_steps, five.planning_steps = 1, 5
    before = parameters(one.q_net)
    one.train(1), five.train(1)
    assert one.policy.optimizer.state[one.q_net.first.weight]["step"] == 2
    assert five.policy.optimizer.state[five.q_net.first.weight]["step"] == 6
    assert th.dist(parameters(five.q_net), before) > 1.5 * th.dist(parameters(one.q_net), before)


def test_updates_come_in_the_order_direct_model_planning(monkeypatch):
    model = agent(learning_starts=8, planning_steps=2)
    model.learn(8)
    calls = []
    for optimizer, name in ((model.policy.optimizer, "q"), (model.world_model.optimizer, "model")):
        step = optimizer.step
        monkeypatch.setattr(optimizer, "step", lambda *a, s=step, n=name, **k: (calls.append(n), s(*a, **k))[1])
    model.train(2)
    assert calls == ["q", "model", "q", "q"] * 2


def test_planning_alone_teaches_q():
    model = agent(learning_starts=200, planning_steps=0, learning_rate=3e-3, gamma=0.5)
    model.learn(200)
    # A world model that knows the reward, and no direct update: Q must come to r / (1 - gamma).
    model.planning_steps = 1
    transitions = model.replay_buffer[np.arange(200)]
    inputs, reward = model._batch(transitions).inputs, th.as_tensor(transitions.reward)
    for _ in range(400):
        model.world_model.update(inputs, reward, np.arange(200))
    before = parameters(model.q_net)
    for i in range(800):
        model.plan(64)
        if i % 25 == 0:
            model._sync_target()
    assert not th.equal(before, parameters(model.q_net))
    with th.no_grad():
        q_values = model.q_net(inputs)
    assert np.corrcoef(q_values, reward)[0, 1] > 0.95
    assert float(q_values.std()) == pytest.approx(2 * float(reward.std()), rel=0.15)


def test_the_model_sees_the_features_of_the_chosen_action(monkeypatch):
    env = make_toy(new_candidates=True)
    model = agent(env, learning_starts=40)
    seen, update = [], model.world_model.update
    monkeypatch.setattr(
        model.world_model, "update", lambda x, r, s: (seen.append((x.clone(), r.clone())), update(x, r, s))[1]
    )
    model.learn(50)
    assert len(seen) == 10
    for inputs, reward in seen:
        # The toy's reward is the mean product of user and chosen action: of no other candidate.
        np.testing.assert_allclose((inputs[:, :3] * inputs[:, 3:]).mean(dim=1), reward, atol=1e-6)


def test_the_model_learns_from_real_rewards_only():
    model = agent(learning_starts=30, planning_steps=0)
    model.learn(30)
    planning = agent(learning_starts=30, planning_steps=7)
    planning.learn(30)
    for _ in range(5):
        model.train(1), planning.train(1)
    assert th.equal(parameters(model.world_model), parameters(planning.world_model))
    assert not th.equal(parameters(model.q_net), parameters(planning.q_net))


def test_targets_come_from_the_target_network():
    model = agent(learning_starts=20)
    model.learn(20)
    transitions = model.replay_buffer[np.arange(20)]
    batch = model._batch(transitions)
    values = model._target_values(transitions, batch)
    with th.no_grad():
        for parameter in model.q_net.parameters():
            parameter.add_(1.0)
        assert th.equal(model._target_values(transitions, batch), values)
        for parameter in model.q_net_target.parameters():
            parameter.add_(1.0)
        assert not th.equal(model._target_values(transitions, batch), values)
    assert not any(parameter.requires_grad for parameter in model.q_net_target.parameters())


@pytest.mark.parametrize("n_envs", [1, 3])
def test_target_network_is_copied_every_so_many_transitions(n_envs):
    copied = []

    class Watch(BaseCallback):
        def _on_step(self):
            if th.equal(parameters(self.model.q_net), parameters(self.model.q_net_target)):
                copied.append(self.num_timesteps)
            return True

    model = agent(vec(n_envs), learning_starts=1, target_update_interval=10, planning_steps=0)
    with th.no_grad():
        model.q_net.first.bias.add_(0.5)
    model.learn(60, callback=Watch())
    assert copied == ([10, 20, 30, 40, 50, 60] if n_envs == 1 else [12, 21, 30, 42, 51, 60])


@pytest.mark.parametrize("bootstrap", ["same_action", "max", "double"])
@pytest.mark.parametrize(
    ("source", "features"), [("visited", "concat"), ("candidates", "concat"), ("candidates", "interaction")]
)
def test_batched_planning_equals_the_plain_loop(bootstrap, source, features):
    """Models and targets are evaluated once for all planning steps; the plain loop does it step by step."""
    make = lambda: agent(  # noqa: E731
        make_toy(mask=True, new_candidates=True),
        bootstrap=bootstrap,
        planning_source=source,
        learning_starts=60,
        planning_steps=4,
        policy_kwargs={"net_arch": [16, 16], "features": features},
    )
    fast, plain = make(), make()
    for model in (fast, plain):
        model.learn(80)
    fast.plan(8)

    pairs = plain._planner.sample(plain.replay_buffer, 32, plain._rngs["planning"])
    replay, policy = plain.replay_buffer, plain.policy
    for step in range(4):
        rows = slice(8 * step, 8 * step + 8)
        state = th.as_tensor(replay.state_rows(pairs.state_id[rows]))
        following = th.as_tensor(replay.state_rows(pairs.next_state_id[rows]))
        action = th.as_tensor(replay.candidate_rows(pairs.candidate_id[rows]))
        with th.no_grad():
            imagined = plain.world_model(policy.features(state, action))[0]
            if bootstrap == "same_action":
                value = plain.q_net_target(policy.features(following, action))
            else:
                members, mask = replay.candidate_sets(pairs.position[rows], following=True)
                value = th.empty(8)
                for i in range(8):
                    rows_of_set = th.as_tensor(replay.candidate_rows(members[i][mask[i]]))
                    inputs = policy.features(following[i].expand(len(rows_of_set), -1), rows_of_set)
                    judge = plain.q_net if bootstrap == "double" else plain.q_net_target
                    value[i] = plain.q_net_target(inputs)[judge(inputs).argmax()]
        loss = (plain.q_net(policy.features(state, action)) - (imagined + plain.gamma * value)).square().mean()
        policy.optimizer.zero_grad()
        loss.backward()
        policy.optimizer.step()

    th.testing.assert_close(parameters(fast.q_net), parameters(plain.q_net), rtol=1e-5, atol=1e-6)
    assert fast._rngs["planning"].random() == plain._rngs["planning"].random()


# ---------------------------------------------------------------------- targets by hand


class Chain(gym.Env):
    """Two steps: state 0, then state 1; rewards 1 and 2; ends as told. Candidate a is the number a + 1."""

    def __init__(self, end):
        self.end = end
        box = gym.spaces.Box(-9, 9, (3, 1), np.float32)
        mask = gym.spaces.Box(0, 1, (3,), np.int8)
        state = gym.spaces.Box(-9, 9, (1,), np.float32)
        self.observation_space = gym.spaces.Dict(candidates=box, action_mask=mask, s=state)
        self.action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.s = 0
        return self._obs(), {}

    def step(self, action):
        self.s += 1
        done = self.s == 2
        return self._obs(), float(self.s), done and self.end == "terminated", done and self.end == "truncated", {}

    def _obs(self):
        candidates = np.arange(1, 4, dtype=np.float32)[:, None]
        # After the first step the best candidate is hidden.
        return {
            "candidates": candidates,
            "action_mask": np.array([1, 1, self.s == 0], np.int8),
            "s": np.array([self.s]),
        }


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize("bootstrap", ["same_action", "max", "double"])
def test_targets_equal_numbers_computed_by_hand(monkeypatch, end, bootstrap):
    model = agent(Chain(end), bootstrap=bootstrap, learning_starts=40, gamma=0.5)
    model.learn(40)
    # Q_target(s, a) = 10 s + a; the online network prefers the smallest action.
    monkeypatch.setattr(model.q_net_target, "forward", lambda x: 10 * x[:, 0] + x[:, 1])
    action = lambda pairs: pairs.action[pairs.action_row, 0]  # noqa: E731
    monkeypatch.setattr(model.q_net_target, "of_pairs", lambda p: 10 * p.state[p.state_row, 0] + action(p))
    monkeypatch.setattr(model.q_net, "of_pairs", lambda p: -action(p))
    transitions = model.replay_buffer[np.arange(40)]
    batch = model._batch(transitions)
    targets = model._targets(batch, th.as_tensor(transitions.reward), model._target_values(transitions, batch))

    first = np.arange(40) % 2 == 0
    chosen = transitions.action + 1
    following = {"same_action": chosen, "max": np.full(40, 2), "double": np.full(40, 1)}[bootstrap]
    after_second = 0 if end == "terminated" else 0.5 * (20 + following)
    np.testing.assert_allclose(targets, np.where(first, 1 + 0.5 * (10 + following), 2 + after_second), rtol=1e-6)
    np.testing.assert_array_equal(transitions.terminated, ~first & (end == "terminated"))


def test_a_planned_pair_keeps_its_transitions_terminated_flag(monkeypatch):
    model = agent(Chain("terminated"), learning_starts=40, planning_steps=1, gamma=0.5)
    model.learn(40)
    planned, targets = [], model._targets
    monkeypatch.setattr(model, "_targets", lambda b, r, v: (planned.append((b, r, v)), targets(b, r, v))[1])
    model.plan(64)
    [(batch, imagined, values)] = planned
    ended = batch.inputs[:, 0] == 1
    assert 0 < ended.sum() < 64
    assert th.equal(values[ended], th.zeros(int(ended.sum()))) and (values[~ended] != 0).all()
    with th.no_grad():
        th.testing.assert_close(imagined, model.world_model(batch.inputs)[0])


def test_planning_on_candidates_is_refused_where_episodes_terminate():
    model = agent(make_toy(terminate_at=3), planning_source="candidates", learning_starts=10)
    with pytest.raises(ValueError, match="never terminate"):
        model.learn(20)


# ---------------------------------------------------------------------- acting


@pytest.mark.parametrize("kind", ["features", "ids"])
def test_greedy_and_exploring_choices_respect_the_mask(kind):
    env = make_toy(mask=True, ids=kind == "ids")
    model = agent(env, learning_starts=5)
    model.learn(40)  # the toy fails on a masked action
    obs, _ = env.reset(seed=5)
    batch = {key: np.stack([value] * 3) for key, value in obs.items()}
    batch["action_mask"] = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 1, 1, 1]], np.int8)
    allowed = [np.flatnonzero(row) for row in batch["action_mask"]]
    q_values = model.q_values(batch)
    greedy, _ = model.predict(batch, deterministic=True)
    assert [int(a) for a in greedy] == [int(ok[q_values[i][ok].argmax()]) for i, ok in enumerate(allowed)]
    model.exploration_rate = 1.0
    drawn = np.array([model.predict(batch)[0] for _ in range(300)])
    for i, ok in enumerate(allowed):
        shares = Counter(drawn[:, i].tolist())
        assert sorted(shares) == list(ok)
        assert min(shares.values()) > 300 / len(ok) * 0.7


def test_a_mask_counts_although_there_was_none_in_training():
    model = agent(make_toy(), learning_starts=5).learn(40)
    obs, _ = make_toy().reset(seed=5)
    best, _ = model.predict(obs, deterministic=True)
    obs["action_mask"] = (np.arange(len(obs["candidates"])) != best).astype(np.int8)
    model.exploration_rate = 0.5
    assert best not in [int(model.predict(obs, deterministic=i == 0)[0]) for i in range(50)]
    with pytest.raises(ValueError, match=rf"a candidate that `action_mask` allows, row 0 is {best}"):
        model.observe(obs, best, 1.0, next_obs=obs)


def test_a_decision_without_a_choice_is_refused():
    model = agent(make_toy(mask=True))
    obs, _ = make_toy(mask=True).reset(seed=0)
    obs["action_mask"][:] = 0
    for deterministic in (True, False):
        with pytest.raises(ValueError, match="End the episode"):
            model.predict(obs, deterministic=deterministic)


def test_predict_takes_one_observation_or_a_batch():
    model = agent()
    obs, _ = make_toy().reset(seed=1)
    one, state = model.predict(obs, deterministic=True)
    assert (np.shape(one), state) == ((), None)
    several, _ = model.predict({key: np.stack([value] * 2) for key, value in obs.items()}, deterministic=True)
    assert several.tolist() == [one, one]
    assert model.policy.predict(obs)[0] == one
    assert model.q_values(obs).shape == model.predict_reward(obs).shape == (1, N_CANDIDATES)
    assert model.q_values(obs).argmax() == one


def test_exploration_falls_linearly_and_is_used():
    model = agent(learning_starts=0)
    model.learn(100)
    assert model.exploration_rate == pytest.approx(0.05)
    model.exploration_rate = 0.5
    obs, _ = make_toy().reset(seed=1)
    best = int(model.predict(obs, deterministic=True)[0])
    share = np.mean([int(model.predict(obs)[0]) == best for _ in range(600)])
    assert share == pytest.approx(0.5 + 0.5 / N_CANDIDATES, abs=0.08)


class FirstChoice(BaseCallback):
    def _on_step(self):
        self.action = int(self.locals["actions"][0])
        return False


def test_choices_are_random_before_the_first_step_of_learning():
    model = agent(learning_starts=0, exploration_initial_eps=1.0, exploration_final_eps=0.5)
    assert model.exploration_rate == 0.5
    obs, _ = make_toy().reset(seed=1)
    best = int(model.predict(obs, deterministic=True)[0])
    others = 0
    for _ in range(200):
        others += int(model.predict(obs)[0]) != best
        model.observe(obs, best, 0.0, next_obs=obs)
        best = int(model.predict(obs, deterministic=True)[0])
    assert others / 200 == pytest.approx(0.5 * (1 - 1 / N_CANDIDATES), abs=0.1)
    first, shown = FirstChoice(), make_toy()
    drawn = []
    for seed in range(12):
        model = agent(shown, seed=seed, learning_starts=0, exploration_initial_eps=1.0)
        greedy = int(model.predict(shown.reset(seed=seed)[0], deterministic=True)[0])
        drawn.append(model.learn(1, first) and first.action == greedy)
    assert 0 < sum(drawn) < 12


def test_an_exploration_rate_is_loaded_as_it_was_saved(tmp_path):
    model = agent(learning_starts=5).learn(100)
    model.save(tmp_path / "agent")
    assert DynaQ.load(tmp_path / "agent", make_toy()).exploration_rate == model.exploration_rate == 0.05


def test_features_and_ids_are_the_same_problem():
    models = [agent(make_toy(ids=ids, mask=True)) for ids in (False, True)]
    observations = [make_toy(ids=ids, mask=True).reset(seed=3)[0] for ids in (False, True)]
    for model in models:
        model.learn(90)
    results = [model.q_values(obs) for model, obs in zip(models, observations, strict=True)]
    np.testing.assert_array_equal(*results)


def test_q_values_and_rewards_have_no_dropout_noise():
    model = agent()
    model.learn(80)
    obs, _ = make_toy().reset(seed=1)
    for read in (model.q_values, model.predict_reward):
        model.policy.set_training_mode(True)
        model.world_model.train()
        noisy = read(obs)
        model.policy.set_training_mode(False)
        model.world_model.eval()
        np.testing.assert_array_equal(noisy, read(obs))


def test_an_ensemble_gives_a_mean_and_a_spread():
    model = agent(world_model_kwargs={"n_members": 3, "net_arch": [8]})
    model.learn(90)
    obs, _ = make_toy().reset(seed=1)
    decisions = model.policy.layout.read(obs)
    candidates = model.policy.action_features(decisions.candidates)
    with th.no_grad():
        mean, spread = model.world_model.score(th.as_tensor(decisions.state), candidates)
    assert (spread > 0).all()
    np.testing.assert_array_equal(model.predict_reward(obs), mean)
    members = [member.score(th.as_tensor(decisions.state), candidates) for member in model.world_model.members]
    th.testing.assert_close(th.stack(members).mean(dim=0), mean)


# ---------------------------------------------------------------------- randomness


def global_states():
    numpy_state = [str(part) for part in np.random.get_state()]  # noqa: NPY002 - the state that must not change
    return random.getstate(), numpy_state, th.get_rng_state().tolist()


@pytest.mark.parametrize("seed", [None, 0])
def test_no_global_random_state_is_seeded_or_used(seed):
    before = global_states()
    env = make_toy(mask=True)
    model = agent(env, seed=seed, learning_starts=10)
    model.learn(40)
    obs, _ = env.reset()
    model.predict(obs)
    model.pretrain(dataset(20), epochs=1)
    assert global_states() == before


def test_seed_zero_repeats_a_run_and_another_seed_does_not():
    runs = [agent(seed=seed) for seed in (0, 0, 1)]
    for model in runs:
        model.learn(90)
    same, again, other = (parameters(model.policy) for model in runs)
    assert th.equal(same, again)
    assert not th.equal(same, other)


def test_global_seeds_do_not_change_a_run():
    results = []
    for global_seed in (1, 2):
        state = th.get_rng_state()
        th.manual_seed(global_seed)
        model = agent()
        model.learn(70)
        th.set_rng_state(state)
        results.append(parameters(model.policy))
    assert th.equal(*results)


# ---------------------------------------------------------------------- replay and environments


def test_invalid_transitions_are_left_out_of_replay():
    model = agent(make_toy(invalid=True), learning_starts=10)
    with pytest.warns(UserWarning, match="12 of 20 transitions were not valid"):
        model.learn(20)
    assert len(model.replay_buffer) == 8  # steps 2 and 4 of each of 4 episodes
    # Nothing valid: no update, and it says so.
    empty = agent(make_toy(invalid=True, max_episode_steps=1), learning_starts=2)
    with pytest.raises(NothingLearned, match="None of the 10 transitions was valid"):
        empty.learn(10)
    assert (len(empty.replay_buffer), empty._n_updates) == (0, 0)


class Failing(gym.Wrapper):
    """Each third reward is `value`; with `marked` such a step is said to be no answer."""

    def __init__(self, env, value=np.nan, marked=False):
        super().__init__(env)
        self.value, self.marked, self.n = value, marked, 0

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.n += 1
        if self.n % 3 == 0:
            reward, info = self.value, {**info, "transition_valid": not self.marked}
        return obs, reward, terminated, truncated, info


class FailingVector(gym.vector.VectorWrapper):
    """The second environment's rewards are NaN."""

    def step(self, actions):
        obs, reward, *rest = self.env.step(actions)
        return obs, np.array([reward[0], np.nan, *reward[2:]]), *rest


WITHOUT_REWARD = {
    "one": (lambda: Failing(make_toy()), 0),
    "ids": (lambda: Failing(make_toy(ids=True), -np.inf), 0),
    "too large for 32 bits": (lambda: Failing(make_toy(), 1e39), 0),
    "several": (lambda: DummyVecEnv([make_toy, make_toy, lambda: Failing(make_toy())]), 2),
    "vector": (lambda: FailingVector(ToyVectorEnv(3)), 1),
    "normalised": (lambda: VecNormalize(DummyVecEnv([make_toy, lambda: Failing(make_toy())]), norm_obs=False), 1),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("kind", WITHOUT_REWARD)
@pytest.mark.parametrize("plus", [False, True])
def test_a_reward_that_is_no_finite_number_is_refused_before_it_teaches_anything(kind, plus):
    make, number = WITHOUT_REWARD[kind]
    one_block = {"prior": [0.0], "features_kwargs": {"n_blocks": 1}}
    model = DynaQ.plus(make(), policy_kwargs=one_block) if plus else agent(make(), learning_starts=1)
    with pytest.raises(ValueError, match=f"`reward` must be finite, that of environment {number} is .*valid"):
        model.learn(40)
    assert np.isfinite(model.replay_buffer[np.arange(len(model.replay_buffer))].reward).all()
    obs, _ = make_toy(ids=kind == "ids").reset(seed=1)
    for values in (model.q_values(obs), model.predict_reward(obs), model.reward_spread(obs)):
        assert np.isfinite(values).all()


def test_a_step_that_is_marked_as_no_answer_may_have_any_reward():
    model = agent(Failing(make_toy(), marked=True), learning_starts=1)
    with pytest.warns(UserWarning, match="13 of 40 transitions were not valid"):
        model.learn(40)
    assert len(model.replay_buffer) == 27 and parameters(model.policy).isfinite().all()


def test_what_follows_a_truncated_step_is_not_the_next_episode():
    model = agent(make_toy(new_candidates=True, max_episode_steps=2), learning_starts=50)
    model.learn(20)
    found = model.replay_buffer[np.arange(20)]
    assert not found.terminated.any()
    # A user stays the same within an episode, the last step included.
    np.testing.assert_array_equal(found.state_id, found.next_state_id)
    assert len(set(found.state_id)) == 10


@pytest.mark.waits
@pytest.mark.parametrize("kind", ["dummy", "subproc", "vector", "native"])
def test_several_environments_of_any_kind_train_alike(kind):
    make = [lambda: make_toy(ids=True) for _ in range(2)]
    env = {
        "dummy": lambda: DummyVecEnv(make),
        "subproc": lambda: SubprocVecEnv(make, start_method="fork"),
        "vector": lambda: gym.vector.SyncVectorEnv(make, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP),
        "native": lambda: GymnasiumVecEnv(ToyVectorEnv(2, ids=True)),
    }
    models = [agent(env[name](), learning_starts=10) for name in ("dummy", kind)]
    for model in models:
        model.learn(60)
        model.env.close()
    assert th.equal(parameters(models[0].policy), parameters(models[1].policy))


def test_reward_normalisation_reaches_q_and_model_but_not_replay():
    env = VecNormalize(vec(2), norm_obs=False, norm_reward=True)
    model = agent(env, learning_starts=10)
    model.learn(60)
    transitions, learned = model.replay_buffer[np.arange(40)], {"q": [], "model": []}
    model.replay_buffer.sample = lambda n, rng: transitions
    model._targets = lambda batch, reward, values: learned["q"].append(reward) or reward
    model.world_model.update = lambda inputs, reward, serial: learned["model"].append(reward) or reward.mean()
    model.train(1, 40)
    for rewards in learned.values():
        np.testing.assert_allclose(rewards[0], env.normalize_reward(transitions.reward), rtol=1e-5)
        assert not np.allclose(rewards[0], transitions.reward)
    inputs = model._batch(transitions).inputs
    np.testing.assert_allclose(transitions.reward, (inputs[:, :3] * inputs[:, 3:]).mean(dim=1), atol=1e-6)


def test_normalised_observations_are_refused():
    with pytest.raises(ValueError, match="norm_obs=False"):
        agent(VecNormalize(vec(2), norm_obs=True))


def test_a_gpu_or_cpu_is_chosen_by_itself():
    model = agent(device="auto")
    model.learn(70)
    assert model.q_net.first.weight.device.type == ("cuda" if th.cuda.is_available() else "cpu")


# ---------------------------------------------------------------------- logging


def test_log_has_every_figure_that_the_docs_name(tmp_path):
    from stable_baselines3.common.logger import configure

    model = agent(vec(2, components=True), learning_starts=10)
    model.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    model.learn(100, log_interval=2)
    model.logger.close()
    rows = (tmp_path / "progress.csv").read_text().splitlines()
    header = set(rows[0].split(","))
    assert header >= {
        "train/loss",
        "train/planning_loss",
        "train/model_loss",
        "train/model_r2",
        "train/q_mean",
        "train/n_updates",
        "train/planning_updates",
        "train/learning_rate",
        "rollout/exploration_rate",
        "reward/dot",
        "reward/constant",
        "time/total_timesteps",
    }
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert float(last["reward/constant"]) == 1.0
    rewards = model.replay_buffer[np.arange(len(model.replay_buffer))].reward
    assert float(last["reward/dot"]) == pytest.approx(rewards[: int(last["time/total_timesteps"])].mean(), abs=1e-6)
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_the_mean_of_a_component_is_that_of_the_latest_transitions_although_some_lack_it(monkeypatch):
    model = agent(learning_starts=2_000)
    logged = {}
    obs, _ = make_toy().reset(seed=0)
    for step in range(1_000):
        components = {"dot": 3.0, "rare": 5.0} if step in (0, 500) else {"dot": 1.0}
        model.observe(obs, 0, 1.0, obs, info={"reward_components": components})
    monkeypatch.setattr(model.logger, "record", lambda key, value, **kwargs: logged.update({key: value}))
    model.dump_logs()
    assert (logged["reward/dot"], logged["reward/rare"]) == (pytest.approx(1.004), 5.0)
    for _ in range(1_000):
        model.observe(obs, 0, 1.0, obs, info={"reward_components": {"dot": 1.0}})
    logged.clear()
    model.dump_logs()
    assert (logged["reward/dot"], "reward/rare" in logged) == (1.0, False)


# SB3's own progress bar is tqdm.rich, which calls itself experimental.
@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_episodes_are_logged_under_a_monitor(tmp_path, monkeypatch):
    model = agent(make_toy(components=True), tensorboard_log=str(tmp_path))
    model.learn(80, progress_bar=True)
    recorded, record = [], model.logger.record
    monkeypatch.setattr(model.logger, "record", lambda key, *args, **kwargs: (recorded.append(key), record(key, *args)))
    assert len(model.ep_info_buffer) == 16
    model.dump_logs()
    assert "rollout/ep_rew_mean" in recorded
    model.logger.close()
    assert list(tmp_path.glob("DynaQ_1/events*"))


def test_r2_is_of_predictions_made_before_training_on_the_reward(monkeypatch):
    model = agent(learning_starts=30)
    trained = []
    update = model.world_model.update
    monkeypatch.setattr(model.world_model, "update", lambda *args: (trained.append(1), update(*args))[1])
    batches = []
    score = model._score_new_transitions
    monkeypatch.setattr(model, "_score_new_transitions", lambda: (batches.append(len(trained)), score())[1])
    model.learn(60)
    # Scored before each update, every transition once.
    assert batches == list(range(30))
    assert len(model.forecasts.earned) == len(model.forecasts.predicted) == 60
    rewards = model.replay_buffer[np.arange(60)].reward
    np.testing.assert_array_equal(np.array(model.forecasts.earned, np.float32), rewards)
    earned, predicted = np.array(model.forecasts.earned), np.array(model.forecasts.predicted)
    r2 = 1 - ((earned - predicted) ** 2).sum() / ((earned - earned.mean()) ** 2).sum()
    assert model.forecasts.r2() == pytest.approx(r2)


def test_callbacks_see_steps_and_may_stop():
    class Stop(BaseCallback):
        def _on_step(self):
            assert len(self.model.replay_buffer) == self.num_timesteps
            assert {"infos", "dones", "rewards", "actions", "new_obs"} <= set(self.locals)
            return self.num_timesteps < 33

    model = agent()
    model.learn(100, callback=[Stop()])
    assert model.num_timesteps == 33


# ---------------------------------------------------------------------- pretraining


def dataset(n=400, seed=0):
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(n, 3)).astype(np.float32)
    action = action_table()[rng.integers(12, size=n)]
    return {"state": state, "action": action, "reward": (state * action).mean(axis=1)}


def test_pretraining_teaches_q_and_model_the_reward():
    model = agent(policy_kwargs={"features": "interaction", "net_arch": [32, 32]}, gamma=0.5, target_update_interval=20)
    losses = model.pretrain(dataset(), epochs=60, batch_size=32)
    assert sorted(losses) == ["loss", "model_loss"]
    test = dataset(200, seed=1)
    inputs = model.policy.features(th.as_tensor(test["state"]), th.as_tensor(test["action"]))
    with th.no_grad():
        assert np.corrcoef(model.world_model(inputs)[0], test["reward"])[0, 1] > 0.97
        q_values = model.q_net(inputs)
    assert np.corrcoef(q_values, test["reward"])[0, 1] > 0.95
    assert float(q_values.std()) == pytest.approx(2 * float(test["reward"].std()), rel=0.15)
    assert th.equal(parameters(model.q_net), parameters(model.q_net_target))
    model.learn(70)
    model.pretrain(dataset(20), epochs=1, progress_bar=True)
    model.learn(5, reset_num_timesteps=False)
    assert model.num_timesteps == 75


@pytest.mark.parametrize("bootstrap", ["same_action", "max", "double"])
def test_pretraining_uses_same_action_targets_whatever_the_bootstrap(bootstrap):
    data = {**dataset(64), "terminated": np.arange(64) % 2 == 0}
    model = agent(bootstrap=bootstrap, gamma=0.5)
    inputs = model.policy.features(th.as_tensor(data["state"]), th.as_tensor(data["action"]))
    with th.no_grad():
        target = th.as_tensor(data["reward"]) + 0.5 * model.q_net_target(inputs) * ~th.as_tensor(data["terminated"])
        expected = (model.q_net(inputs) - target).square().mean()
    assert model.pretrain(data, epochs=1, batch_size=64)["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_pretraining_on_ids_equals_pretraining_on_their_features():
    table, data = action_table(), dataset(64)
    ids = np.array([int(np.flatnonzero((table == row).all(axis=1))[0]) for row in data["action"]])
    models = [agent(make_toy(ids=True)) for _ in range(2)]
    models[0].pretrain(data, epochs=2), models[1].pretrain({**data, "action": ids}, epochs=2)
    assert th.equal(parameters(models[0].q_net), parameters(models[1].q_net))


def nan_at_three():
    reward = np.zeros(10)
    reward[3] = np.nan
    return reward


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": None}, r"lacks \['action'\]"),
        ({"state": np.zeros((10, 2))}, r"`dataset\['state'\]` must have shape \(10, 3\).*got \(10, 2\)"),
        ({"action": np.zeros((9, 3))}, r"`dataset\['action'\]` must have shape \(10, 3\)"),
        ({"reward": nan_at_three()}, r"`dataset\['reward'\]` must be finite, row 3"),
        ({"terminated": np.zeros(4)}, r"`dataset\['terminated'\]` must have shape \(10,\)"),
    ],
)
def test_a_broken_data_set_is_refused_by_its_key(change, message):
    data = {key: value for key, value in {**dataset(10), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        agent().pretrain(data)


@pytest.mark.parametrize("n_members", [1, 3])
def test_a_weight_says_how_much_a_row_counts(n_members):
    data = dataset(60)
    models = [agent(gamma=0.5, world_model_kwargs={"n_members": n_members}) for _ in range(3)]
    ones, heavy = np.ones(60), np.where(np.arange(60) < 30, 1.0, 0.0)
    losses = [
        model.pretrain({**data, **extra}, epochs=3)
        for model, extra in zip(models, ({}, {"weight": 7 * ones}, {"weight": heavy}), strict=True)
    ]
    # It is in units of its mean, so that equal ones are none.
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] != pytest.approx(losses[0], rel=1e-2)
    np.testing.assert_allclose(parameters(models[1].q_net), parameters(models[0].q_net), atol=1e-4)


@pytest.mark.parametrize("n_members", [1, 3])
def test_rows_of_weight_zero_teach_nothing(n_members):
    data = dataset(60)
    other = {**data, "reward": np.where(np.arange(60) < 30, data["reward"], 100.0)}
    models = [agent(gamma=0.0, world_model_kwargs={"n_members": n_members}) for _ in range(2)]
    for model, rows in zip(models, (data, other), strict=True):
        model.pretrain({**rows, "weight": np.arange(60) < 30}, epochs=3)
    np.testing.assert_array_equal(parameters(models[0].q_net), parameters(models[1].q_net))
    np.testing.assert_array_equal(parameters(models[0].world_model), parameters(models[1].world_model))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"wieght": np.ones(400)}, r"got 'wieght' too: did you mean 'weight'\?"),
        ({5: np.ones(400)}, "got 5 too"),
        ({"pairs": np.ones((400, 2))}, r"may have the entries .*got 'pairs' too"),
        ({"weight": np.ones(399)}, r"\['weight'\]` must have shape \(400,\)"),
        ({"weight": np.ones((400, 1))}, r"\['weight'\]` must have shape \(400,\)"),
        ({"weight": np.r_[np.nan, np.ones(399)]}, r"\['weight'\]` must be finite, row 0"),
        ({"weight": np.r_[-1.0, np.ones(399)]}, "must hold numbers of 0 or more"),
        ({"weight": np.zeros(400)}, "not 0 alone"),
    ],
)
def test_what_a_data_set_must_not_have_is_refused_by_its_key(entries, message):
    model = agent()
    before = parameters(model.q_net)
    with pytest.raises(ValueError, match=message):
        model.pretrain({**dataset(), **entries})
    assert th.equal(before, parameters(model.q_net))


# ---------------------------------------------------------------------- all together


def test_it_learns_the_toy_problem_far_better_than_chance():
    model = agent(policy_kwargs={"features": "interaction", "net_arch": [32, 32]}, gamma=0.5, learning_rate=3e-3)
    model.learn(200)
    rng = np.random.default_rng(5)
    users = rng.normal(size=(400, 3)).astype(np.float32)
    shown = action_table()[np.array([rng.choice(12, 4, replace=False) for _ in range(400)])]
    rewards = (users[:, None] * shown).mean(axis=2)
    greedy, _ = model.predict({"candidates": shown, "user": users}, deterministic=True)
    chosen, chance, best = rewards[np.arange(400), greedy].mean(), rewards.mean(), rewards.max(axis=1).mean()
    assert (chosen - chance) / (best - chance) > 0.8


def test_policy_and_network_are_the_documented_classes():
    model = agent()
    assert isinstance(model.policy, CandidatePolicy)
    assert isinstance(model.q_net, PairNetwork)
    assert isinstance(make_toy().unwrapped, ToyEnv)


def test_nothing_is_bootstrapped_where_nothing_is_left_to_choose():
    model = agent(make_toy(mask=True), bootstrap="max")
    model.learn(40)
    transitions = model.replay_buffer.sample(8, np.random.default_rng(0))
    batch = model._batch(transitions)
    assert (model._target_values(transitions, batch) != 0).all()
    model.replay_buffer.sets.rows[:, model.replay_buffer.n_candidates :] = 0
    model._kept_values.forget()
    assert (model._target_values(transitions, batch) == 0).all()


def test_the_first_transitions_are_chosen_at_random():
    env = make_toy()
    model = agent(env, learning_starts=200, exploration_initial_eps=0.0, exploration_final_eps=0.0)
    model._sample_action = Mock(wraps=model._sample_action)
    model.predict = Mock(wraps=model.predict)
    model.learn(201)
    assert model._sample_action.call_count == 201
    assert model.predict.call_count == 1


def test_numbers_too_small_for_speed_count_as_zero_while_training_only():
    def keeps_denormals():
        return bool((th.full((1,), 1e-38) * 0.1).item())

    seen = []
    model = agent(make_toy())
    model.world_model.update = Mock(
        wraps=model.world_model.update, side_effect=lambda *_: seen.append(keeps_denormals()) or DEFAULT
    )
    model.learn(80)
    assert seen and not any(seen)
    assert keeps_denormals()


@pytest.mark.parametrize(
    ("ids", "message"), [(np.full(4, -1), r"in \[0, 12\).*got -1 to -1"), (np.arange(9, 13), "got 9 to 12")]
)
def test_ids_that_name_nothing_are_refused(ids, message):
    model = agent(make_toy(ids=True))
    with pytest.raises(ValueError, match=message):
        model.q_values({"candidates": ids, "user": np.zeros(3, np.float32)})


def test_a_data_set_of_another_kind_is_refused():
    model = agent(make_toy())
    with pytest.raises(ValueError, match="`dataset` must be a mapping .* got NoneType"):
        model.pretrain(None)
    with pytest.raises(ValueError, match=r"dataset\['terminated'\]` must be True or False"):
        model.pretrain({**dataset(), "terminated": np.full(400, 0.3)})
    for name, value in (("epochs", 1.5), ("epochs", "2"), ("batch_size", 2.5)):
        with pytest.raises(ValueError, match=rf"`{name}` must be a whole number of 1 or more, got {value!r}"):
            model.pretrain(dataset(), **{name: value})


def test_an_id_that_names_no_action_is_refused_before_anything_is_learned():
    model = agent(make_toy(ids=True))
    before = parameters(model.q_net)
    ids = np.arange(400) % N_ACTIONS
    ids[399] = N_ACTIONS
    with pytest.raises(ValueError, match=r"Ids must be in \[0, 12\)"):
        model.pretrain({**dataset(), "action": ids}, batch_size=8)
    assert th.equal(before, parameters(model.q_net))


@settings(max_examples=30, deadline=None)
@given(
    initial=st.floats(0, 1),
    final=st.floats(0, 1),
    fraction=st.floats(0.01, 1),
    done=st.floats(0, 1),
    more=st.floats(0, 1),
)
def test_epsilon_stays_between_its_ends_and_never_turns(initial, final, fraction, done, more):
    schedule = agent(
        exploration_initial_eps=initial, exploration_final_eps=final, exploration_fraction=fraction
    ).exploration_schedule
    earlier, later = schedule(1 - min(done, more)), schedule(1 - max(done, more))
    low, high = sorted((initial, final))
    assert low - 1e-9 <= earlier <= high + 1e-9 and low - 1e-9 <= later <= high + 1e-9
    assert (later - earlier) * (final - initial) >= -1e-9
    assert schedule(1) == pytest.approx(initial) and schedule(0) == pytest.approx(final)


@pytest.mark.parametrize("total_timesteps", [float("inf"), float("nan"), 100.5, True, "10", -1])
def test_learning_takes_a_whole_number_of_steps(total_timesteps):
    for model in (DynaQ("CandidatePolicy", vec(1)), LinearBandit(vec(1))):
        with pytest.raises(ValueError, match="`total_timesteps` must be"):
            model.learn(total_timesteps)
