"""Products by oneDNN, held against torch's own."""

import copy

import numpy as np
import pytest
import torch as th
from test_dynaq import parameters
from torch.func import vmap
from torch.nn import functional as F

from dynaq_algo import linear as module
from dynaq_algo.features import ConcatFeatures, DistinctPairs, PairNetwork
from dynaq_algo.gradients import SquaredError
from dynaq_algo.linear import linear, linear_of_any_rows

pytestmark = pytest.mark.usefixtures("no_gradients")
BOTH = pytest.mark.parametrize("function", [linear, linear_of_any_rows])


@pytest.fixture
def no_gradients():
    with th.no_grad():
        yield


@pytest.fixture
def products(monkeypatch):
    """Inputs and weights that oneDNN was given, on whatever processor this is."""
    if not th.backends.mkldnn.is_available():
        pytest.skip("this build of torch lacks oneDNN")
    operation, given = th.ops.mkldnn._linear_pointwise, []
    monkeypatch.setattr(module, "_operation", lambda: lambda *args: given.append(args[:2]) or operation(*args))
    return given


def data(*shape, seed=0):
    return th.randn(*shape, generator=th.Generator().manual_seed(seed))


def assert_close(found, wanted):
    th.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


WEIGHTS = {
    "a whole one": lambda: data(256, 512, seed=1),
    "a transposed one": lambda: data(512, 256, seed=1).t(),
    "the first half": lambda: data(256, 1024, seed=1)[:, :512],
    "the second half": lambda: data(256, 1024, seed=1)[:, 512:],
    "every other row": lambda: data(512, 512, seed=1)[::2],
    "one row again and again": lambda: data(1, 512, seed=1).expand(256, 512),
}
INPUTS = {
    "a whole one": lambda: data(100, 512),
    "a transposed one": lambda: data(512, 100).t(),
    "every other row": lambda: data(200, 512)[::2],
    "one row again and again": lambda: data(1, 512).expand(100, 512),
}


@BOTH
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS.keys())
@pytest.mark.parametrize("rows", INPUTS.values(), ids=INPUTS.keys())
def test_values_are_those_of_torch_and_nothing_with_gaps_reaches_onednn(products, function, rows, weight, bias):
    given = rows(), weight(), data(256, seed=2) if bias else None
    assert_close(function(*given), F.linear(*given))
    ((inputs, weight),) = products
    assert inputs.is_contiguous()
    assert weight.is_contiguous() or weight.t().is_contiguous()


@pytest.mark.parametrize("shape", [(20, 8, 512), (3, 2, 70, 512)])
def test_rows_of_several_dimensions(products, shape):
    given = data(*shape), data(256, 512, seed=1), data(256, seed=2)
    assert_close(linear_of_any_rows(*given), F.linear(*given))
    assert products


def test_however_many_rows_onednn_sees_few_numbers_of_them(products):
    weight = data(128, 512, seed=1)
    for n in range(1, 1_100, 5):
        rows = data(n, 512, seed=n)
        assert_close(linear_of_any_rows(rows, weight), F.linear(rows, weight))
    assert {len(rows) for rows, _ in products} == set(range(32, 257, 32))


SLICED = data(256, 1536)[:, :768]
CASES = {
    "too small": (data(64, 8), data(6, 8)),
    "one row": (data(1, 1536), data(256, 1536)),
    "one number each": (data(8192, 256), data(1, 256)),
    "a few rows of a sliced weight": (data(63, 768), SLICED),
    "double": (data(64, 512).double(), data(256, 512).double()),
    "bfloat16": (data(64, 512).bfloat16(), data(256, 512).bfloat16()),
    "no rows": (data(0, 512), data(256, 512)),
    "a bias with gaps": (data(64, 512), data(256, 512), data(512)[::2]),
    "a bias of one number": (data(64, 512), data(256, 512), data(1).expand(256)),
    "a bias that is broadcast": (data(64, 512), data(256, 512), data(1)),
    "a bias of rows": (data(64, 512), data(256, 512), data(64, 256)),
}


@BOTH
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_anything_else_is_torchs_own_to_the_bit(products, function, case):
    assert th.equal(function(*case), F.linear(*case))
    assert not products


@BOTH
def test_wherever_torch_needs_its_own_it_has_it(products, function):
    rows, weight = data(64, 512), data(256, 512, seed=1)

    def values(weight):
        return function(rows, weight)

    wanted = F.linear(rows, weight)
    with th.enable_grad():
        leaf = weight.clone().requires_grad_()
        values(leaf).sum().backward()
    assert leaf.grad is not None
    with th.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        assert th.equal(values(weight), wanted)
    with th.autocast("cpu", th.bfloat16):
        assert values(weight).dtype == th.bfloat16
    assert_close(vmap(values)(weight[None])[0], wanted)
    assert_close(th.jit.trace(values, weight, check_trace=False)(weight), wanted)
    assert_close(th.compile(values, backend="eager", fullgraph=True)(weight), wanted)
    assert not products


@BOTH
def test_shapes_that_do_not_fit_have_torchs_error(products, function):
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        function(data(64, 511), data(256, 512))


@BOTH
def test_what_is_not_a_number_is_not_lost(products, function):
    rows = data(100, 512)
    rows[3, 5] = th.nan
    lost = function(rows, data(256, 512)).isnan()
    assert lost[3].all()
    assert lost.sum() == 256


def test_a_system_that_does_not_tell_its_processor(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(module.Path, "read_text", refuse)
    monkeypatch.setattr(module.platform, "processor", lambda: "")
    assert module._processor() == ""
    assert module._operation.__wrapped__() is None


@pytest.mark.parametrize("maker", ["GenuineIntel", "arm", ""])
def test_other_processors_have_torchs_own(monkeypatch, maker):
    monkeypatch.setattr(module, "_processor", lambda: maker)
    assert module._operation.__wrapped__() is None


@pytest.fixture
def gaining_processor(monkeypatch):
    monkeypatch.setattr(module, "_processor", lambda: "AuthenticAMD")
    monkeypatch.setattr(th.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.mark.usefixtures("gaining_processor")
def test_a_build_without_the_operation_has_torchs_own(monkeypatch):
    monkeypatch.setattr(th, "ops", object())
    assert module._operation.__wrapped__() is None


@pytest.mark.usefixtures("gaining_processor")
def test_the_first_call_may_come_anywhere():
    wanted = module._operation.__wrapped__()
    with th.device("meta"):
        assert module._operation.__wrapped__() is wanted
    th.set_default_dtype(th.float64)
    try:
        assert module._operation.__wrapped__() is wanted
    finally:
        th.set_default_dtype(th.float32)


def test_written_gradients_are_autograds(products):
    th.manual_seed(0)
    network = PairNetwork(ConcatFeatures(300, 212), [256, 192])
    inputs, target = data(64, 512), data(64, seed=1)
    with th.enable_grad():
        loss = F.mse_loss(network(inputs), target)
        wanted = th.autograd.grad(loss, list(network.parameters()))
    found, _ = SquaredError()(network, th.optim.SGD(network.parameters()), inputs, target)
    assert len(products) == 5  # two layers forwards, their weights, and what lies between
    th.testing.assert_close(found, loss.detach())
    for parameter, gradient in zip(network.parameters(), wanted, strict=True):
        th.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_odd_sizes_of_a_batch_leave_no_kernel_behind(products):
    network, squared_error = PairNetwork(ConcatFeatures(300, 212), [256, 192]), SquaredError()
    for n in range(60, 200):
        squared_error(network, th.optim.SGD(network.parameters()), data(n, 512), data(n))
    assert {inputs.shape[0] for inputs, _ in products} == {64, 96, 128, 160, 192, 256}


def learnt(enabled, n_steps, optimizer_class, change=lambda network: None, **kwargs):
    """Parameters after some steps of written gradients, with oneDNN or without."""
    th.manual_seed(0)
    network, squared_error = PairNetwork(ConcatFeatures(300, 212), [256, 64]), SquaredError()
    change(network)
    optimizer = optimizer_class(network.parameters(), **kwargs)
    with th.backends.mkldnn.flags(enabled=enabled, allow_tf32=None):
        for step in range(n_steps):
            squared_error(network, optimizer, data(64, 512, seed=step), data(64, seed=100 + step))
            optimizer.step()
    return parameters(network)


@pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.SGD])
def test_a_weight_of_another_order_is_learned_like_any(products, optimizer_class):
    def transpose(network):
        network.first.weight.data = network.first.weight.data.t().contiguous().t()

    found, wanted = (learnt(on, 3, optimizer_class, transpose, lr=0.001, fused=True) for on in (True, False))
    assert products
    th.testing.assert_close(found, wanted)


def test_networks_learn_the_same_without_it(products):
    found = learnt(True, 20, th.optim.SGD, lr=0.01)
    n_products = len(products)
    assert n_products >= 40
    th.testing.assert_close(found, learnt(False, 20, th.optim.SGD, lr=0.01))
    assert len(products) == n_products


def test_pairs_and_scores_are_those_without_it(products):
    th.manual_seed(0)
    network = PairNetwork(ConcatFeatures(300, 212), [256, 64])
    state_row, action_row = np.random.default_rng(0).integers(100, size=(2, 500))
    pairs = DistinctPairs(data(100, 300), th.as_tensor(state_row), data(100, 212, seed=1), th.as_tensor(action_row))
    candidates = data(50, 20, 212, seed=2)
    found = network.of_pairs(pairs), network.score(pairs.state[:50], candidates)
    assert len(products) >= 3
    with th.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        th.testing.assert_close(found, (network.of_pairs(pairs), network.score(pairs.state[:50], candidates)))
    with th.enable_grad():
        copied = copy.deepcopy(network)
        copied.of_pairs(pairs).sum().backward()
        assert copied.first.weight.grad is not None
