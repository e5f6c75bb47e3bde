"""Values that are kept equal values computed anew, whatever happened in between."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.utils import polyak_update
from test_dynaq import agent, vec
from toy import make_toy

from dynaq_algo import DynaQ
from dynaq_algo.bootstrap import next_values
from dynaq_algo.planning import VisitedPairs
from dynaq_algo.target_values import TargetValues

SHARED = {"buffer_size": 26, "learning_starts": 11, "target_update_interval": 15, "batch_size": 16, "planning_steps": 3}

BLOCKWISE = {"net_arch": [8], "features": "blockwise", "features_kwargs": {"n_blocks": 1}}


@pytest.fixture
def checked(monkeypatch):
    """Compares all values with values computed anew; counts those that were asked for and those evaluated."""
    counts, of = {"asked": 0, "evaluated": 0}, TargetValues.of

    def compared(self, transitions, replay, network, kind, evaluate, imagined):
        def counted(some):
            counts["evaluated"] += len(some.position)
            return evaluate(some)

        values = of(self, transitions, replay, network, kind, counted, imagined)
        th.testing.assert_close(values, evaluate(transitions), rtol=1e-5, atol=1e-6)
        counts["asked"] += len(values)
        return values

    monkeypatch.setattr(TargetValues, "of", compared)
    return counts


@pytest.mark.parametrize("bootstrap", ["same_action", "max"])
@pytest.mark.parametrize("source", ["visited", "candidates", "crossed"])
def test_kept_values_equal_values_computed_anew(checked, bootstrap, source):
    """In a ring that goes round four times, with a target network that is copied six times."""
    env = make_toy(mask=True, new_candidates=True, ids=True)
    agent(env, bootstrap=bootstrap, planning_source=source, **SHARED).learn(101)
    assert checked["asked"] == 90 * (1 + 3) * 16
    # Each once in a life of the target, but for imagined candidates, which are not kept.
    imagined = {"visited": 0.2, "candidates": 0.9 if bootstrap == "same_action" else 0.2, "crossed": 0.9}[source]
    assert checked["evaluated"] < imagined * checked["asked"]


@pytest.mark.parametrize(
    "settings",
    [
        {"env": lambda: vec(3, terminate_at=3, new_candidates=True)},
        pytest.param(
            {"env": lambda: make_toy(terminate_at=2, invalid=True), "bootstrap": "max"},
            # Every second transition is invalid on purpose.
            marks=pytest.mark.filterwarnings("ignore:.* transitions were not valid"),
        ),
        {"tau": 0.1, "target_update_interval": 1},
        {"policy_kwargs": {"net_arch": [8], "features": "interaction"}, "train_freq": 4, "gradient_steps": 2},
        {"policy_kwargs": {**BLOCKWISE, "prior": [1.0]}},
        {"policy_kwargs": BLOCKWISE, "world_model": "gaussian_process", "bootstrap": "max"},
        {"env": lambda: make_toy(pairs=True, new_candidates=True), "policy_kwargs": BLOCKWISE},
        {"env": lambda: make_toy(pairs=True, ids=True), "planning_source": "crossed", "bootstrap": "max"},
    ],
    ids=["environments", "terminated", "polyak", "interaction", "prior", "gaussian_process", "scale", "pairs"],
)
def test_kept_values_are_right_in_other_settings(checked, settings):
    settings = {**SHARED, "env": make_toy, **settings}
    agent(settings.pop("env")(), **settings).learn(101)
    assert checked["asked"] > 1_000


class Ending(VisitedPairs):
    """Imagines that every other transition ends its episode."""

    def sample(self, replay, n, rng):
        transitions = super().sample(replay, n, rng)
        return transitions._replace(terminated=transitions.position % 2 == 0)


@pytest.mark.parametrize("bootstrap", ["same_action", "max"])
@pytest.mark.parametrize("how", ["class", "object"])
def test_a_source_may_imagine_the_end(checked, bootstrap, how):
    source = Ending()
    if how == "object":
        source = VisitedPairs()
        source.sample = Ending().sample
    agent(bootstrap=bootstrap, planning_source=source, **SHARED).learn(101)
    assert checked["evaluated"] > 90 * 3 * 16 / 4


def values_of(model):
    """Values of 20 stored transitions: kept ones, or computed if need be."""
    transitions = model.replay_buffer[np.arange(20)]
    return model._target_values(transitions, model._batch(transitions))


def computed_anew(model):
    transitions = model.replay_buffer[np.arange(20)]
    with th.no_grad():
        return next_values(transitions, model.replay_buffer, model.policy, model.bootstrap)


CHANGES = {
    "polyak": lambda net, other: polyak_update(other.parameters(), net.parameters(), 0.01),
    "in_place": lambda net, other: net.rest[-1].weight.add_(1),
    "last_bias_by_data": lambda net, other: net.rest[-1].bias.data.add_(1),
    "loaded": lambda net, other: net.load_state_dict(other.state_dict()),
    "assigned": lambda net, other: net.load_state_dict(other.state_dict(), assign=True),
    "vector": lambda net, other: th.nn.utils.vector_to_parameters(
        th.nn.utils.parameters_to_vector(other.parameters()), net.parameters()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_target_network_is_noticed_however_it_was_changed(change):
    model, other = agent(learning_starts=20, seed=0).learn(20), agent(seed=1)
    before = values_of(model)
    with th.no_grad():
        CHANGES[change](model.q_net_target, other.q_net)
    assert not th.allclose(values_of(model), before)
    th.testing.assert_close(values_of(model), computed_anew(model))


def test_a_copy_of_the_target_is_noticed_where_only_the_last_layer_learns(checked):
    model = agent(**SHARED)
    model.q_net.first.requires_grad_(False)
    model.learn(101)


def test_another_bootstrap_asks_anew(tmp_path):
    model = agent(learning_starts=20, bootstrap="same_action").learn(20)
    before = values_of(model)
    model.save_checkpoint(tmp_path / "checkpoint")
    model.bootstrap = "max"
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(), bootstrap="max", buffer_size=20_000)
    for changed in (model, resumed):
        assert (values_of(changed) >= before - 1e-6).all() and not th.allclose(values_of(changed), before)
        th.testing.assert_close(values_of(changed), computed_anew(changed))


@pytest.mark.parametrize("how", ["loaded", "loaded_by_itself", "replaced"])
def test_another_replay_is_noticed(tmp_path, how):
    model = agent(learning_starts=20, seed=0).learn(20)
    other = agent(learning_starts=20, seed=1, buffer_size=20_000 if how == "replaced" else 10_000).learn(20)
    before = values_of(model)
    other.save_replay_buffer(tmp_path / "replay.npz")
    if how == "loaded":
        model.load_replay_buffer(tmp_path / "replay.npz")
    elif how == "loaded_by_itself":
        model.replay_buffer.load(tmp_path / "replay.npz")
    else:
        model.replay_buffer = other.replay_buffer
    assert not th.allclose(values_of(model), before)
    th.testing.assert_close(values_of(model), computed_anew(model))


def test_a_resumed_agent_knows_what_the_stopped_one_knew(tmp_path):
    model = agent(**SHARED | {"buffer_size": 51}).learn(100)
    model.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy())
    stopped, goes_on = (
        either._kept_values.state(either.q_net_target, either.replay_buffer, either.bootstrap)
        for either in (model, resumed)
    )
    assert (stopped["serial"] >= 0).sum() > 40
    np.testing.assert_equal(goes_on, stopped)
