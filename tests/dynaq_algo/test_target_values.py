"""Values that are kept equal values computed anew, whatever happened in between."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.utils import polyak_update
from test_dynaq import agent
from toy import make_toy

from dynaq_algo.target_values import TargetValues


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("bootstrap", ["same_action", "max"])
@pytest.mark.parametrize("source", ["visited", "candidates", "crossed"])
def test_kept_values_equal_values_computed_anew(monkeypatch, bootstrap, source, ids):
    """In a ring that goes round four times, with a target network that is copied six times."""
    asked = evaluated = 0
    of = TargetValues.of

    def checked(self, transitions, replay, network, evaluate, n_asked):
        nonlocal asked, evaluated

        def counted(some):
            nonlocal evaluated
            evaluated += len(some.position)
            return evaluate(some)

        values = of(self, transitions, replay, network, counted, n_asked)
        th.testing.assert_close(values, evaluate(transitions), rtol=1e-5, atol=1e-6)
        asked += len(values)
        return values

    monkeypatch.setattr(TargetValues, "of", checked)
    settings = {"buffer_size": 50, "learning_starts": 20, "target_update_interval": 30, "batch_size": 16}
    env = make_toy(mask=True, new_candidates=True, ids=ids)
    model = agent(env, bootstrap=bootstrap, planning_source=source, planning_steps=3, **settings)
    model.learn(200)
    assert asked == 180 * (1 + 3) * 16
    # Pairs that were never chosen are computed each time; what is drawn as it was stored, once in a life of the target.
    assert evaluated < asked * (0.2 if source == "visited" else 0.8)


def fill(model):
    """Values of 20 transitions, all of them kept now; and a function that asks for them again."""
    model.learn(20)
    transitions = model.replay_buffer[np.arange(20)]
    ask = lambda: model._target_values(transitions, model._batch(transitions))  # noqa: E731
    return ask(), ask


def computed_anew(model):
    transitions = model.replay_buffer[np.arange(20)]
    with th.no_grad():
        return model._same_action_values(transitions)


@pytest.mark.parametrize("change", ["polyak", "in_place", "loaded", "vector"])
def test_a_changed_target_network_is_noticed_however_it_was_changed(change):
    model, other = agent(learning_starts=20, seed=0), agent(seed=1)
    before, ask = fill(model)
    if change == "polyak":
        polyak_update(other.q_net.parameters(), model.q_net_target.parameters(), 0.01)
    elif change == "in_place":
        with th.no_grad():
            model.q_net_target.rest[-1].bias += 1
    elif change == "loaded":
        model.set_parameters(other.get_parameters())
    else:
        model.policy.load_from_vector(other.policy.parameters_to_vector())
    assert not th.allclose(ask(), before)
    th.testing.assert_close(ask(), computed_anew(model))


@pytest.mark.parametrize("how", ["loaded", "replaced"])
def test_another_replay_is_noticed(tmp_path, how):
    model, other = agent(learning_starts=20, seed=0), agent(learning_starts=20, seed=1).learn(20)
    before, _ = fill(model)
    if how == "loaded":
        other.save_replay_buffer(tmp_path / "replay.npz")
        model.load_replay_buffer(tmp_path / "replay.npz")
    else:
        model.replay_buffer = other.replay_buffer
    transitions = model.replay_buffer[np.arange(20)]
    values = model._target_values(transitions, model._batch(transitions))
    assert not th.allclose(values, before)
    th.testing.assert_close(values, computed_anew(model))
