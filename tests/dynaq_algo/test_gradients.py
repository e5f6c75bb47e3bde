"""Gradients that are written out, held against autograd's."""

import copy

import pytest
import torch as th
from test_dynaq import agent, parameters
from torch import nn
from torch.nn import functional as F

from dynaq_algo.features import BlockwiseFeatures, ConcatFeatures, PairNetwork
from dynaq_algo.gradients import ChainGradients
from dynaq_algo.world_model import WorldModel


def network(net_arch=(8, 6), **kwargs):
    th.manual_seed(0)
    return PairNetwork(ConcatFeatures(3, 2), net_arch, **kwargs)


def data(n, dim=5, seed=1):
    generator = th.Generator().manual_seed(seed)
    return th.randn(n, dim, generator=generator), th.randn(n, generator=generator)


def by_autograd(net, inputs, target):
    net = copy.deepcopy(net)
    values = net(inputs)
    loss = F.mse_loss(values, target)
    gradients = th.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    return loss.detach(), values.detach(), gradients


def assert_equal_to_autograd(net, inputs, target):
    loss, values, gradients = by_autograd(net, inputs, target)
    found_loss, found_values = net.regress(inputs, target)
    th.testing.assert_close(found_loss, loss)
    th.testing.assert_close(found_values, values)
    assert not (found_loss.requires_grad or found_values.requires_grad)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        th.testing.assert_close(parameter.grad, gradient)


@pytest.fixture
def written_out(monkeypatch):
    """How often gradients were written out."""
    calls, call = [], ChainGradients.__call__
    monkeypatch.setattr(ChainGradients, "__call__", lambda self, *args: calls.append(1) or call(self, *args))
    return calls


@pytest.mark.parametrize("net_arch", [[8], [8, 6], [4, 9, 7]])
def test_gradients_equal_autograds_again_and_again_and_for_any_batch_size(net_arch, written_out):
    net = network(net_arch)
    for n in (7, 7, 1, 64, 7):
        assert_equal_to_autograd(net, *data(n, seed=n))
    assert len(written_out) == 5


def test_gradients_in_double_precision_and_of_a_copy(written_out):
    net = network()
    assert_equal_to_autograd(net, *data(7))
    copied = copy.deepcopy(net).double()
    inputs, target = data(7)
    assert_equal_to_autograd(copied, inputs.double(), target.double())
    assert len(written_out) == 2
    assert all(parameter.grad.dtype == th.float32 for parameter in net.parameters())


def test_what_is_not_a_number_reaches_the_gradients():
    net, (inputs, target) = network(), data(7)
    inputs[2, 1] = th.nan
    _, _, gradients = by_autograd(net, inputs, target)
    net.regress(inputs, target)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert th.equal(parameter.grad.isnan(), gradient.isnan())


def freeze(net):
    net.first.requires_grad_(False)


def hook_into_a_layer(net):
    net.rest[1].register_forward_hook(lambda module, args, output: 2 * output)


def hook_into_a_parameter(net):
    net.first.weight.register_hook(lambda gradient: 2 * gradient)


def hook_into_the_network(net):
    net.register_forward_hook(lambda module, args, output: 2 * output)


def hook_into_the_rest(net):
    net.rest.register_full_backward_hook(lambda module, given, taken: (2 * given[0],))


def replace_forward(net):
    forward = net.forward
    net.forward = lambda inputs: 2 * forward(inputs)


def append_a_layer(net):
    net.rest.append(nn.Softplus())


def parametrize(net):
    nn.utils.parametrizations.weight_norm(net.first)


@pytest.mark.parametrize(
    "change",
    [
        freeze,
        hook_into_a_layer,
        hook_into_a_parameter,
        hook_into_the_network,
        hook_into_the_rest,
        replace_forward,
        append_a_layer,
        parametrize,
    ],
)
def test_a_changed_network_has_autograds_gradients(change, written_out):
    net, (inputs, target) = network(), data(7)
    change(net)
    loss = F.mse_loss(net(inputs), target)
    net.zero_grad()
    loss.backward()
    gradients = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    found, _ = net.regress(inputs, target)
    th.testing.assert_close(found, loss.detach())
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            th.testing.assert_close(parameter.grad, gradient)
    assert not written_out


def test_a_replaced_layer_learns(written_out):
    net = network()
    net.regress(*data(7))
    net.rest[1] = nn.Linear(8, 4)
    net.rest[3] = nn.Linear(4, 1)
    assert_equal_to_autograd(net, *data(7))
    assert len(written_out) == 2


class Doubled(PairNetwork):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


@pytest.mark.parametrize(
    "net",
    [
        lambda: network(activation_fn=nn.Tanh),
        lambda: PairNetwork(BlockwiseFeatures(2, 2, n_blocks=1), [8], prior=[1.0]),
        lambda: Doubled(ConcatFeatures(3, 2), [8]),
    ],
    ids=["tanh", "prior", "subclass"],
)
def test_another_network_has_autograds_gradients(net, written_out):
    net = net()
    inputs, target = data(7, net.features.output_dim)
    for _ in range(2):
        assert_equal_to_autograd(net, inputs, target)
    assert not written_out


def test_the_world_model_learns_the_same(monkeypatch, written_out):
    models = []
    for applies in (True, False):
        th.manual_seed(0)
        models.append(WorldModel(ConcatFeatures(3, 2), [8]))
        if not applies:
            monkeypatch.setattr("dynaq_algo.features.is_plain_chain", lambda chain: False)
        for step in range(20):
            models[-1].update(*data(16, seed=step), th.arange(16).numpy())
    assert len(written_out) == 20
    th.testing.assert_close(parameters(models[0]), parameters(models[1]))


@pytest.mark.parametrize("max_grad_norm", [float("inf"), 0.01])
def test_an_agent_learns_the_same(monkeypatch, written_out, max_grad_norm):
    settings = {"learning_starts": 10, "planning_steps": 2, "max_grad_norm": max_grad_norm}
    written = agent(**settings).learn(60)
    assert len(written_out) == 50 * (1 + 1 + 2)
    monkeypatch.setattr("dynaq_algo.features.is_plain_chain", lambda chain: False)
    plain = agent(**settings).learn(60)
    assert len(written_out) == 50 * (1 + 1 + 2)
    th.testing.assert_close(parameters(written.policy), parameters(plain.policy), rtol=1e-4, atol=1e-5)
