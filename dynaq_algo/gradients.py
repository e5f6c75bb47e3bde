"""Gradients of a small network's squared error, written out."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th
from torch import nn
from torch.nn import functional as F

__all__ = ["ChainGradients"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class ChainGradients:
    """Mean squared error of linear layers with ReLUs between them, and its gradients (Rumelhart et al., 1986).

    The same numbers as autograd's, without its graph and with the memory of the last time: on a small network that is a
    tenth of an update.

    Args:
        chain: Linear, ReLU, Linear, ..., the last with one output; other modules are known by :attr:`applies`.

    Example:
        >>> chain = [nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)]
        >>> loss, values = ChainGradients(chain)(th.zeros(4, 3), th.ones(4))
        >>> values.shape, chain[0].weight.grad.shape
        (torch.Size([4]), torch.Size([8, 3]))
    """

    def __init__(self, chain: Sequence[nn.Module]):
        self._chain = list(chain)
        self._hidden: list[th.Tensor] = []
        self._slopes: list[th.Tensor] = []

    @property
    def applies(self) -> bool:
        """Whether the chain is of these layers alone, all of which learn, and nobody has hooked into them."""
        return all(
            type(module) is (nn.ReLU if number % 2 else nn.Linear)
            and not any(getattr(module, hooks) for hooks in _HOOKS)
            and all(p is not None and p.requires_grad and not p._backward_hooks for p in module._parameters.values())
            for number, module in enumerate(self._chain)
        )

    @th.no_grad()
    def __call__(self, inputs: th.Tensor, target: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Inputs (n, d), target (n,) -> the loss and the values (n,); gradients take the place of the former ones."""
        layers: list[nn.Linear] = self._chain[::2]  # type: ignore[assignment]
        self._make_room(inputs, layers)
        into = [inputs]  # what each layer sees
        for layer, hidden in zip(layers, self._hidden, strict=False):
            into.append(th.addmm(layer.bias, into[-1], layer.weight.t(), out=hidden).relu_())
        values = F.linear(into[-1], layers[-1].weight, layers[-1].bias).squeeze(1)
        error = values - target
        slope = (error * (2 / len(error))).unsqueeze(1)  # of the loss in a layer's output
        for number in range(len(layers) - 1, -1, -1):
            layer = layers[number]
            th.mm(slope.t(), into[number], out=layer.weight.grad)
            th.sum(slope, 0, out=layer.bias.grad)
            if number:
                slope = th.mm(slope, layer.weight, out=self._slopes[number - 1])
                th.ops.aten.threshold_backward.grad_input(slope, into[number], 0, grad_input=slope)  # where a ReLU is 0
        return error.dot(error) / len(error), values

    def _make_room(self, inputs: th.Tensor, layers: Sequence[nn.Linear]) -> None:
        """Memory for what is between the layers and for gradients, where there is none of that size."""
        for layer in layers:
            for parameter in (layer.weight, layer.bias):
                if parameter.grad is None:
                    parameter.grad = th.empty_like(parameter)
        wanted = [((len(inputs), layer.out_features), inputs.dtype, inputs.device) for layer in layers[:-1]]
        if [(hidden.shape, hidden.dtype, hidden.device) for hidden in self._hidden] != wanted:
            self._hidden, self._slopes = ([inputs.new_empty(shape) for shape, *_ in wanted] for _ in range(2))
