"""Gradients that are written out, held against autograd's."""

import copy
import pickle

import pytest
import torch as th
from test_dynaq import agent, parameters
from torch import nn
from torch.nn import functional as F

from dynaq_algo.features import BlockwiseFeatures, ConcatFeatures, PairNetwork
from dynaq_algo.gradients import SquaredError
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


def optimizer_of(net):
    return th.optim.SGD(net.parameters(), lr=0.1)


def assert_equal_to_autograd(net, inputs, target, squared_error=None):
    loss, values, gradients = by_autograd(net, inputs, target)
    found_loss, found_values = (squared_error or SquaredError())(net, optimizer_of(net), inputs, target)
    th.testing.assert_close(found_loss, loss)
    th.testing.assert_close(found_values, values)
    assert not (found_loss.requires_grad or found_values.requires_grad)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        th.testing.assert_close(parameter.grad, gradient)


@pytest.fixture
def written_out(monkeypatch):
    """How often gradients were written out."""
    calls, call = [], SquaredError._written_out
    monkeypatch.setattr(SquaredError, "_written_out", lambda self, *args: calls.append(1) or call(self, *args))
    return calls


@pytest.mark.parametrize("net_arch", [[8], [8, 6], [4, 9, 7]])
def test_gradients_equal_autograds_again_and_again_and_for_any_batch_size(net_arch, written_out):
    net, squared_error = network(net_arch), SquaredError()
    for n in (7, 7, 1, 64, 7):
        assert_equal_to_autograd(net, *data(n, seed=n), squared_error)
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
    SquaredError()(net, optimizer_of(net), inputs, target)
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


def replace_a_layers_forward(net):
    forward = net.rest[1].forward
    net.rest[1].forward = lambda inputs: 2 * forward(inputs)


def hook_into_what_is_accumulated(net):
    def double(parameter):
        parameter.grad.mul_(2)

    net.first.weight.register_post_accumulate_grad_hook(double)


def append_a_layer(net):
    net.rest.append(nn.Softplus())


class Residual(nn.Sequential):
    def forward(self, inputs):
        return super().forward(inputs) + inputs.sum(dim=1, keepdim=True)


def replace_the_rest(net):
    net.rest = Residual(*net.rest)


def tie(net):
    net.rest[1] = nn.Linear(8, 8)
    net.rest = nn.Sequential(*list(net.rest)[:3], nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    net.rest[3].weight = net.rest[1].weight


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
        replace_a_layers_forward,
        hook_into_what_is_accumulated,
        append_a_layer,
        replace_the_rest,
        tie,
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
    found, _ = SquaredError()(net, optimizer_of(net), inputs, target)
    th.testing.assert_close(found, loss.detach())
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            th.testing.assert_close(parameter.grad, gradient)
    assert not written_out


def test_a_replaced_layer_learns(written_out):
    net = network()
    SquaredError()(net, optimizer_of(net), *data(7))
    net.rest[1] = nn.Linear(8, 4)
    net.rest[3] = nn.Linear(4, 1)
    assert_equal_to_autograd(net, *data(7))
    assert len(written_out) == 2


def test_what_comes_before_the_network_learns_too(written_out):
    net, before = network(), nn.Linear(5, 5)
    optimizer = th.optim.SGD([*net.parameters(), *before.parameters()], lr=0.1)
    inputs, target = data(7)
    for _ in range(2):
        SquaredError()(net, optimizer, before(inputs), target)
    found = before.weight.grad.clone()
    expected = th.autograd.grad(F.mse_loss(net(before(inputs)), target), before.weight)[0]
    th.testing.assert_close(found, expected)
    assert not written_out


def test_numbers_of_another_type_have_autograds_gradients(written_out):
    net, (inputs, target) = network(), data(7)
    assert_equal_to_autograd(net, inputs, target.double())
    assert not written_out


def test_a_network_of_ones_own_needs_no_more_than_forward(written_out):
    net, (inputs, target) = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)), data(7)
    assert_equal_to_autograd(net, inputs, target)
    assert not written_out


def test_a_copy_carries_no_memory():
    net, squared_error = network(), SquaredError()
    squared_error(net, optimizer_of(net), *data(7))
    for copied in (copy.deepcopy(squared_error), pickle.loads(pickle.dumps(squared_error))):
        assert not copied._hidden


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
            monkeypatch.setattr("dynaq_algo.gradients._plain_layers", lambda net, optimizer: None)
        for step in range(20):
            models[-1].update(*data(16, seed=step), th.arange(16).numpy())
    assert len(written_out) == 20
    th.testing.assert_close(parameters(models[0]), parameters(models[1]))


@pytest.mark.parametrize("max_grad_norm", [float("inf"), 0.01])
def test_an_agent_learns_the_same(monkeypatch, written_out, max_grad_norm):
    settings = {"learning_starts": 10, "planning_steps": 2, "max_grad_norm": max_grad_norm}
    written = agent(**settings).learn(60)
    assert len(written_out) == 50 * (1 + 1 + 2)
    monkeypatch.setattr("dynaq_algo.gradients._plain_layers", lambda net, optimizer: None)
    plain = agent(**settings).learn(60)
    assert len(written_out) == 50 * (1 + 1 + 2)
    th.testing.assert_close(parameters(written.policy), parameters(plain.policy), rtol=1e-4, atol=1e-5)
