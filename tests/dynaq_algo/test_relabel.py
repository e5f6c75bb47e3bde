import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'algo'")

from toy import ToyEnv, make_toy

from dynaq_algo import DynaQ
from dynaq_algo.replay import CandidateReplay


class Annealed(gym.Wrapper):
    """A reward of two components whose weight falls; the second is not known while the first has weight 1."""

    def __init__(self, env, n_steps, phase_one=0):
        super().__init__(env)
        self.n_steps, self.phase_one, self.t = n_steps, phase_one, 0

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        weight = 1.0 if self.t < self.phase_one else max(0.0, 1 - self.t / self.n_steps)
        components = {"easy": float(action)} | ({} if weight == 1 else {"true": -float(reward)})
        info |= {"reward_components": components, "reward_weights": {"easy": weight, "true": 1 - weight}}
        self.t += 1
        reward = sum(info["reward_weights"][name] * value for name, value in components.items())
        return obs, reward, terminated, truncated, info


def agent(env, **kwargs):
    policy = {"net_arch": [8]}
    return DynaQ("CandidatePolicy", env, policy_kwargs=policy, learning_starts=8, batch_size=8, seed=0, **kwargs)


def stored(replay):
    index = np.arange(len(replay))
    return replay.components(index), replay[index].reward


def test_rewards_are_recomputed_at_the_weights_of_the_latest_step():
    plain, relabelled = (agent(Annealed(ToyEnv(), 100), relabel=relabel).learn(50) for relabel in (False, True))

    weight = 1 - 49 / 100
    components, reward = stored(relabelled.replay_buffer)
    np.testing.assert_allclose(
        reward[1:], weight * components["easy"][1:] + (1 - weight) * components["true"][1:], rtol=1e-5
    )
    _, earned = stored(plain.replay_buffer)
    assert relabelled.replay_buffer.weights == pytest.approx({"easy": weight, "true": 1 - weight})
    assert not np.allclose(earned[1:], reward[1:])


def test_a_transition_that_lacks_what_it_needs_is_left_out():
    model = agent(Annealed(ToyEnv(), 100, phase_one=30), relabel=True).learn(40)
    replay = model.replay_buffer

    assert np.isnan(replay.components(np.arange(30))["true"]).all()
    assert replay.n_usable == 10 < len(replay) == 40
    drawn = replay.sample(500, np.random.default_rng(0))
    assert set(drawn.position) == set(range(30, 40))
    assert np.isfinite(drawn.reward).all()
    for parameter in (*model.q_net.parameters(), *model.world_model.parameters()):
        assert np.isfinite(parameter.detach().numpy()).all()


def test_nothing_is_trained_while_no_transition_can_be_used():
    model = agent(Annealed(ToyEnv(), 100), relabel=True).learn(20)
    before, replay = model._n_updates, model.replay_buffer
    replay.weights = {"easy": 0.5, "unheard": 0.5}

    model.train(3)

    assert (replay.n_usable, model._n_updates) == (0, before)
    with pytest.raises(ValueError, match="empty"):
        replay.sample(1, np.random.default_rng(0))


def test_at_constant_weights_relabelling_changes_nothing_but_rounding():
    plain, relabelled = (
        agent(Annealed(ToyEnv(), 1, phase_one=10**9), relabel=relabel).learn(60) for relabel in (False, True)
    )

    for one, other in zip(plain.q_net.parameters(), relabelled.q_net.parameters(), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), atol=1e-4)


def test_a_run_that_goes_on_from_a_checkpoint_is_the_unbroken_one(tmp_path):
    class Resumable(Annealed):
        def get_state(self):
            return {"t": self.t}

        def set_state(self, state):
            self.t = state["t"]

    whole = agent(Resumable(ToyEnv(), 100), relabel=True).learn(60)
    half = agent(Resumable(ToyEnv(), 100), relabel=True)
    half.learn(60, callback=lambda local, _: local["self"].num_timesteps < 30)
    half.save_checkpoint(tmp_path / "there")
    again = DynaQ.load_checkpoint(tmp_path / "there", Resumable(ToyEnv(), 100))
    assert again.replay_buffer.weights == half.replay_buffer.weights
    assert again.relabel
    again.learn(30, reset_num_timesteps=False)

    for one, other in zip(whole.q_net.parameters(), again.q_net.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())


def test_a_reward_without_weights_is_answered_with_the_way_out():
    with pytest.raises(ValueError, match=r"relabel.*reward_weights.*HybridReward"):
        agent(make_toy(), relabel=True).learn(20)


def test_without_weights_a_replay_gives_what_was_earned():
    replay = CandidateReplay(4, 2, 3)

    assert replay.weights is None
    assert replay.n_usable == 0
