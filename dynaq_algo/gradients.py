"""The gradients of an update, written out where the network is a plain one."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th
from torch import nn
from torch.nn import functional as F

from dynaq_algo.features import PairNetwork
from dynaq_algo.linear import USUAL_STEP, linear, torchs_linear

__all__ = ["SquaredError", "drop_gradients"]

_MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class SquaredError:
    """Mean squared error of a network's values, and its gradients.

    Those of a :class:`PairNetwork` of linear layers with ReLUs between them are written out (Rumelhart et al., 1986):
    autograd's numbers without its graph, and with the memory of the last time (but for the products of
    :func:`~dynaq_algo.linear.linear`), which on a small network spares a tenth of an update. Any other has autograd's:
    one with a prior, another activation, frozen or tied parameters, layers or a `forward` of one's own, hooks on a
    module or a parameter, or an optimiser that has further parameters.

    Example:
        >>> from dynaq_algo.features import ConcatFeatures
        >>> network = PairNetwork(ConcatFeatures(3, 2), [8])
        >>> optimizer = th.optim.Adam(network.parameters())
        >>> loss, values = SquaredError()(network, optimizer, th.zeros(4, 5), th.ones(4))
        >>> values.shape, network.first.weight.grad.shape
        (torch.Size([4]), torch.Size([8, 5]))
    """

    def __init__(self) -> None:
        self._hidden: list[th.Tensor] = []
        self._slopes: list[th.Tensor] = []

    def __reduce__(self) -> tuple[type[SquaredError], tuple[()]]:
        return type(self), ()  # a copy has memory of its own

    def __call__(
        self,
        network: nn.Module,
        optimizer: th.optim.Optimizer,
        inputs: th.Tensor,
        target: th.Tensor,
        weight: th.Tensor | None = None,
    ) -> tuple[th.Tensor, th.Tensor]:
        """Gradients take the place of the former ones, mostly in the same tensors where they are written out.

        Args:
            network: Inputs -> (n,).
            optimizer: Of its parameters.
            inputs: (n, d).
            target: (n,) what the values are to be.
            weight: (n,) how much each error counts; None for 1.

        Returns:
            The error and the values (n,), detached, both of before the step that the optimiser is to make.
        """
        layers = _plain_layers(network, optimizer)
        if layers is not None and weight is None and _is_plain_batch(inputs, target, layers):
            return self._written_out(layers, inputs, target)
        values = network(inputs)
        loss = F.mse_loss(values, target) if weight is None else (weight * (values - target).square()).mean()
        drop_gradients(optimizer)
        loss.backward()
        return loss.detach(), values.detach()

    @th.no_grad()
    def _written_out(
        self, layers: Sequence[nn.Linear], inputs: th.Tensor, target: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        self._make_room(inputs, layers)
        # An odd batch, such as the last of an epoch, is not worth kernels of its own.
        product = torchs_linear if len(inputs) % USUAL_STEP else linear
        into = [inputs]  # what each layer sees
        for layer, hidden in zip(layers, self._hidden, strict=False):
            into.append(product(into[-1], layer.weight, layer.bias, out=hidden).relu_())
        values = F.linear(into[-1], layers[-1].weight, layers[-1].bias).squeeze(1)
        error = values - target
        slope = (error * (2 / len(error))).unsqueeze(1)  # of the loss in a layer's output
        for number in range(len(layers) - 1, -1, -1):
            layer = layers[number]
            layer.weight.grad = product(slope.t(), into[number].t(), out=layer.weight.grad)
            th.sum(slope, 0, out=layer.bias.grad)
            if number:
                slope = product(slope, layer.weight.t(), out=self._slopes[number - 1])
                th.ops.aten.threshold_backward.grad_input(slope, into[number], 0, grad_input=slope)  # where a ReLU is 0
        return error.dot(error) / len(error), values

    def _make_room(self, inputs: th.Tensor, layers: Sequence[nn.Linear]) -> None:
        """Memory for what is between the layers and for gradients, where there is none of that size."""
        for layer in layers:
            for parameter in (layer.weight, layer.bias):
                if parameter.grad is None or parameter.grad.dtype != parameter.dtype:
                    parameter.grad = th.empty_like(parameter)
        wanted = [((len(inputs), layer.out_features), inputs.dtype, inputs.device) for layer in layers[:-1]]
        if [(hidden.shape, hidden.dtype, hidden.device) for hidden in self._hidden] != wanted:
            self._hidden, self._slopes = ([inputs.new_empty(shape) for shape, *_ in wanted] for _ in range(2))


def drop_gradients(optimizer: th.optim.Optimizer) -> None:
    """`optimizer.zero_grad()` without its hooks, which take as long as ten operations on a small network."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def _plain_layers(network: nn.Module, optimizer: th.optim.Optimizer) -> list[nn.Linear] | None:
    """The linear layers of a network that is nothing else but they and ReLUs; None of any other."""
    if getattr(network.forward, "__func__", None) is not PairNetwork.forward:
        return None
    if network.prior is not None or type(network.rest) is not nn.Sequential:
        return None
    chain = [network.first, *network.rest]
    if any(type(module) is not (nn.ReLU if number % 2 else nn.Linear) for number, module in enumerate(chain)):
        return None
    layers: list[nn.Linear] = chain[::2]
    parameters = [parameter for layer in layers for parameter in layer._parameters.values()]
    learned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    is_plain = (
        len(chain) % 2 == 1
        and layers[-1].out_features == 1
        and not any(map(_is_changed, (network, network.rest, *chain)))
        and all(parameter is not None and parameter.requires_grad for parameter in parameters)
        and not any(parameter._backward_hooks or parameter._post_accumulate_grad_hooks for parameter in parameters)
        and len(set(map(id, parameters))) == len(parameters) == len(learned)
    )
    return layers if is_plain else None


def _is_changed(module: nn.Module) -> bool:
    """Whether a call of a module is more than its class's `forward`."""
    hooked = any(getattr(module, hooks) for hooks in _MODULE_HOOKS)
    return hooked or "forward" in vars(module) or module._compiled_call_impl is not None


def _is_plain_batch(inputs: th.Tensor, target: th.Tensor, layers: Sequence[nn.Linear]) -> bool:
    return (
        inputs.dtype == target.dtype == layers[0].weight.dtype
        and len(inputs) > 0
        and not (inputs.requires_grad or target.requires_grad)
    )
