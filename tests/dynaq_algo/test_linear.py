"""The linear layer by oneDNN, held against torch's own."""

import copy

import pytest
import torch as th
from test_dynaq import agent, parameters
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional as F

from dynaq_algo import linear as module
from dynaq_algo.features import ConcatFeatures, PairNetwork
from dynaq_algo.linear import Linear, linear


@pytest.fixture
def products(monkeypatch):
    """Inputs and weights that oneDNN was given."""
    operation, given = module._onednn(), []
    if operation is None:
        pytest.skip("this build of torch lacks oneDNN's operation")
    monkeypatch.setattr(module, "_onednn", lambda: lambda *args: given.append(args[:2]) or operation(*args))
    return given


def data(*shape, seed=0):
    return th.randn(*shape, generator=th.Generator().manual_seed(seed))


def by_both(function, *tensors):
    """Value and gradients of a function that takes the linear one, with ours and with torch's."""
    results = []
    for own in (linear, F.linear):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        value = function(own, *leaves)
        weights = data(*value.shape, seed=9)  # a slope that differs from entry to entry
        results.append([value, *th.autograd.grad((value * weights).sum(), leaves)])
    return results


def assert_close(found, wanted):
    th.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rows", [(64,), (16, 20), (2, 3, 40)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(products, rows, bias):
    tensors = data(*rows, 512), data(256, 512, seed=1), *([data(256, seed=2)] if bias else [])
    found, wanted = by_both(lambda own, *args: own(*args), *tensors)
    assert_close(found, wanted)
    assert len(products) == 3
    with th.no_grad():
        assert_close(linear(*tensors), F.linear(*tensors))
    assert len(products) == 4


def test_halves_of_a_weight_reach_onednn_in_one_piece(products):
    def halves(own, state, action, weight):
        by_state, by_action = weight.split([256, 512], dim=1)
        return own(state, by_state) + own(action, by_action)

    found, wanted = by_both(halves, data(64, 256), data(64, 512, seed=1), data(256, 768, seed=2))
    assert_close(found, wanted)
    assert len(products) == 6
    for inputs, weight in products:
        assert inputs.is_contiguous()
        assert weight.is_contiguous() or weight.t().is_contiguous()


def test_rows_that_are_not_in_one_piece(products):
    found, wanted = by_both(
        lambda own, x, w: own(x.t(), w) + own(x.t()[::2].repeat(2, 1), w), data(512, 64), data(256, 512)
    )
    assert_close(found, wanted)
    assert products


@pytest.mark.parametrize(
    ("inputs", "weight"),
    [
        (data(64, 8), data(6, 8)),  # too small
        (data(1, 1536), data(256, 1536)),
        (data(1536), data(256, 1536)),
        (data(8192, 256), data(1, 256)),
        (data(20, 768), data(256, 1536)[:, :768]),  # a copy of the weight costs more than it saves
        (data(64, 512).double(), data(256, 512).double()),
        (data(64, 512).bfloat16(), data(256, 512).bfloat16()),
        (data(0, 512), data(256, 512)),
    ],
)
def test_anything_else_is_torchs_own_to_the_bit(products, inputs, weight):
    assert th.equal(linear(inputs, weight), F.linear(inputs, weight))
    assert not products


def test_switched_off_or_traced_it_is_torchs_own(products):
    layer = Linear(512, 256)
    with th.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        layer(data(64, 512))
    assert not products
    traced = th.jit.trace(layer, data(64, 512), check_trace=False)
    assert not products
    assert_close(traced(data(64, 512)), layer(data(64, 512)))
    assert products


def test_a_build_without_the_operation_has_torchs_own(monkeypatch):
    monkeypatch.setattr(module, "_onednn", lambda: None)
    inputs, weight = data(64, 512), data(256, 512)
    assert th.equal(linear(inputs, weight), F.linear(inputs, weight))


def test_shapes_that_do_not_fit_have_torchs_error():
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        linear(data(64, 511), data(256, 512))


def test_only_what_is_wanted_has_a_gradient(products):
    layer = Linear(512, 256)
    layer.bias.requires_grad_(False)
    layer(data(64, 512)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.bias.grad is None
    assert len(products) == 2  # forward, and the gradient of the weight


def test_what_is_not_a_number_is_not_lost():
    inputs = data(64, 512)
    inputs[3, 5] = th.nan
    weight = data(256, 512).requires_grad_()
    values = linear(inputs, weight)
    values.sum().backward()
    assert values[3].isnan().all()
    assert not values[:3].isnan().any()
    assert weight.grad[:, 5].isnan().all()
    assert not weight.grad[:, :5].isnan().any()


def test_second_derivatives_and_transforms(products):
    inputs, weight = data(64, 512), data(256, 512, seed=1)

    def loss(own):
        return lambda weight, inputs: own(inputs, weight).square().mean().sqrt()

    def curvature(own):
        leaf = weight.clone().requires_grad_()
        (slope,) = th.autograd.grad(loss(own)(leaf, inputs), leaf, create_graph=True)
        return th.autograd.grad(slope.square().sum(), leaf)[0]

    weights = th.stack([weight, 2 * weight, -weight])
    th.testing.assert_close(curvature(linear), curvature(F.linear), rtol=1e-4, atol=1e-6)
    n_products = len(products)
    assert n_products > 3
    for function in (
        lambda own: grad(loss(own))(weight, inputs),
        lambda own: vmap(grad(loss(own)), (0, None))(weights, inputs),
    ):
        th.testing.assert_close(function(linear), function(F.linear), rtol=1e-4, atol=1e-6)
    assert len(products) == n_products  # transforms have torch's own


def test_a_layer_is_torchs_layer_but_for_its_products(products):
    layer = Linear(512, 256)
    theirs = nn.Linear(512, 256)
    theirs.load_state_dict(layer.state_dict())
    assert isinstance(layer, nn.Linear)
    for own in (layer, copy.deepcopy(layer)):
        assert_close(own(data(64, 512)), theirs(data(64, 512)))
    assert len(products) == 2


def test_networks_learn_the_same_without_it(products):
    def learnt(enabled):
        th.manual_seed(0)
        network = PairNetwork(ConcatFeatures(300, 212), [64, 64])
        optimizer = th.optim.SGD(network.parameters(), lr=0.01)
        with th.backends.mkldnn.flags(enabled=enabled, allow_tf32=None):
            for step in range(20):
                optimizer.zero_grad()
                F.mse_loss(network(data(64, 512, seed=step)), data(64, seed=100 + step)).backward()
                optimizer.step()
        return parameters(network)

    found, wanted = learnt(True), learnt(False)
    assert products
    th.testing.assert_close(found, wanted)


def test_an_agent_of_small_networks_does_not_use_it(products):
    agent(learning_starts=10).learn(20)
    assert not products
