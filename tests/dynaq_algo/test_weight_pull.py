"""`weight_pull`: after each update all weights move a share of the way back to where they began learning."""

import numpy as np
import pytest
import torch as th
from test_dynaq import agent, count, parameters
from test_pairs import BLOCKWISE, dataset
from test_saving import StopAt, everything
from toy import make_toy

from dynaq_algo import DynaQ
from dynaq_algo.weight_pull import Anchor

PRIOR = {**BLOCKWISE, "prior": [0.1]}


def weights(model):
    return {name: parameters(getattr(model, name)) for name in ("q_net", "world_model")}


class Unpulled(DynaQ):
    """As it was before there was a pull."""

    def _drop_anchor(self):
        pass

    def _pull_back(self, network):
        pass


@pytest.mark.parametrize("policy_kwargs", [{"net_arch": [16, 16]}, PRIOR], ids=["plain", "prior"])
def test_without_a_pull_an_agent_is_what_it_was_to_the_bit(policy_kwargs):
    kwargs = {"learning_starts": 20, "seed": 0, "device": "cpu", "policy_kwargs": policy_kwargs}
    was = Unpulled("CandidatePolicy", make_toy(), **kwargs).learn(60)
    now = DynaQ("CandidatePolicy", make_toy(), weight_pull=0.0, **kwargs).learn(60)
    for name, wanted in weights(was).items():
        assert th.equal(weights(now)[name], wanted)
    assert not th.equal(weights(now)["q_net"], weights(DynaQ("CandidatePolicy", make_toy(), **kwargs))["q_net"])


def test_a_pull_moves_every_weight_that_share_back_after_each_update(monkeypatch):
    """The last thing that happens to the weights: compared with the formula on those that the optimiser left."""
    model = agent(weight_pull=0.1, learning_starts=20, planning_steps=2, policy_kwargs=PRIOR)
    began = {name: values.clone() for name, values in weights(model).items()}
    checked = dict.fromkeys(began, 0)
    pull = model._pull_back

    def compared(name):
        before = parameters(getattr(model, name))
        pull(name)
        wanted = before - 0.1 * (before - began[name])
        th.testing.assert_close(parameters(getattr(model, name)), wanted, rtol=1e-6, atol=1e-7)
        checked[name] += 1

    monkeypatch.setattr(model, "_pull_back", compared)
    q_steps = count(monkeypatch, model.policy.optimizer, "step")
    model_steps = count(monkeypatch, model.world_model.optimizer, "step")
    model.learn(60)
    assert checked == {"q_net": len(q_steps), "world_model": len(model_steps)} == {"q_net": 3 * 40, "world_model": 40}


def test_the_whole_pull_leaves_everything_where_it_began():
    model = agent(weight_pull=1.0, learning_starts=20)
    began = weights(model)
    model.learn(60)
    for name, wanted in began.items():
        assert th.equal(weights(model)[name], wanted)


def test_pretraining_is_not_pulled_and_is_what_learning_is_pulled_to():
    model, free = (agent(make_toy(pairs=True, ids=True), weight_pull=pull, learning_starts=5) for pull in (1.0, 0.0))
    for pretrained in (model, free):
        pretrained.pretrain(dataset(300), epochs=1)
    taught = weights(free)
    for name, wanted in taught.items():
        assert th.equal(weights(model)[name], wanted)
    model.learn(20)
    for name, wanted in taught.items():
        assert th.equal(weights(model)[name], wanted)
    # Pre-trained again, it begins again from there.
    model.pretrain(dataset(300, seed=1), epochs=1)
    taught = weights(model)
    assert not th.equal(taught["q_net"], weights(free)["q_net"])
    model.learn(20, reset_num_timesteps=False)
    for name, wanted in taught.items():
        assert th.equal(weights(model)[name], wanted)


def test_learning_that_goes_on_is_pulled_to_where_the_first_began():
    model = agent(weight_pull=0.2, learning_starts=5).learn(30)
    anchor = parameters(model.anchors["q_net"])
    model.learn(30, reset_num_timesteps=False)
    model.learn(30)
    assert th.equal(parameters(model.anchors["q_net"]), anchor)


def test_planning_alone_is_pulled_too():
    model = agent(weight_pull=1.0, learning_starts=1_000).learn(20)
    began = weights(model)
    model.plan(16)
    assert th.equal(weights(model)["q_net"], began["q_net"])


def test_a_gaussian_process_has_no_weights_to_pull():
    model = agent(weight_pull=0.1, learning_starts=5, world_model="gaussian_process", policy_kwargs=BLOCKWISE).learn(20)
    assert list(model.anchors) == ["q_net"]


@pytest.mark.parametrize("pull", [-0.1, 1.5, float("nan")])
def test_a_pull_that_is_no_share_is_refused(pull):
    with pytest.raises(ValueError, match=r"`weight_pull` must be a share in \[0, 1\], got"):
        agent(weight_pull=pull)


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_resumed_run_is_pulled_to_the_same_weights_to_the_bit(tmp_path, pretrained):
    def make():
        model = agent(make_toy(pairs=True, ids=True), weight_pull=0.05, learning_starts=20)
        if pretrained:
            model.pretrain(dataset(100), epochs=1)
        return model

    whole, stopped = make().learn(80), make().learn(80, callback=StopAt(50))
    stopped.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(pairs=True, ids=True), device="cpu")
    resumed.learn(30, reset_num_timesteps=False)
    assert th.equal(parameters(resumed.anchors), parameters(whole.anchors))
    for name, values in everything(whole).items():
        np.testing.assert_array_equal(values, everything(resumed)[name], err_msg=name)


def test_a_saved_agent_keeps_where_it_began_or_that_it_has_not(tmp_path):
    model = agent(make_toy(pairs=True, ids=True), weight_pull=0.1, learning_starts=5)
    model.pretrain(dataset(100), epochs=1)  # so that it begins elsewhere than a new agent of its seed
    for n_steps in (0, 20):
        model.learn(n_steps)
        model.save(tmp_path / "agent.zip")
        loaded = DynaQ.load(tmp_path / "agent.zip", make_toy(pairs=True, ids=True), device="cpu")
        assert len(loaded.anchors) == (2 if n_steps else 0)
        assert th.equal(parameters(loaded.q_net), parameters(model.q_net))
    assert th.equal(parameters(loaded.anchors), parameters(model.anchors))
    # An agent without a pull may get one as it is loaded: it begins there.
    agent(learning_starts=5).learn(20).save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", make_toy(), device="cpu", weight_pull=1.0)
    began = weights(loaded)
    loaded.learn(20, reset_num_timesteps=False)
    assert th.equal(weights(loaded)["q_net"], began["q_net"])


def test_an_anchor_is_no_part_of_what_it_was_taken_from():
    network = th.nn.Linear(2, 1)
    anchor = Anchor(network)
    assert not any(weight.requires_grad for weight in anchor)
    began = parameters(network)
    with th.no_grad():
        for weight in network.parameters():
            weight.add_(1.0)
    anchor.pull(network, 0.25)
    th.testing.assert_close(parameters(network), began + 0.75)
    th.testing.assert_close(parameters(anchor), began)
