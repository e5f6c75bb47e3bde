"""Gradients of a small network's squared error, written out."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th
from torch import nn
from torch.nn import functional as F

__all__ = ["ChainGradients", "is_hooked", "is_plain_chain"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class ChainGradients:
    """Mean squared error of linear layers with ReLUs between them, and its gradients (Rumelhart et al., 1986).

    The same numbers as autograd's, without its graph and with the memory of the last time: on a small network that is a
    tenth of an update.

    Example:
        >>> chain = [nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)]
        >>> loss, values = ChainGradients()(chain, th.zeros(4, 3), th.ones(4))
        >>> values.shape, chain[0].weight.grad.shape
        (torch.Size([4]), torch.Size([8, 3]))
    """

    def __init__(self) -> None:
        self._hidden: list[th.Tensor] = []
        self._slopes: list[th.Tensor] = []

    @th.no_grad()
    def __call__(self, chain: Sequence[nn.Module], inputs: th.Tensor, target: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """The loss and the values; gradients take the place of the parameters' former ones.

        Args:
            chain: What :func:`is_plain_chain` says yes to.
            inputs: (n, d).
            target: (n,).

        Returns:
            The loss and the chain's values (n,).
        """
        layers: list[nn.Linear] = chain[::2]  # type: ignore[assignment]
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


def is_plain_chain(chain: Sequence[nn.Module]) -> bool:
    """Whether modules are Linear, ReLU, Linear, ..., the last with one output, and all their parameters learn."""
    return (
        len(chain) % 2 == 1
        and all(type(module) is (nn.ReLU if number % 2 else nn.Linear) for number, module in enumerate(chain))
        and bool(chain[-1].out_features == 1)
        and all(
            parameter is not None and parameter.requires_grad and not parameter._backward_hooks
            for module in chain
            for parameter in module._parameters.values()
        )
    )


def is_hooked(*modules: nn.Module) -> bool:
    """Whether somebody wants to be told of what goes through one of some modules."""
    return any(getattr(module, hooks) for module in modules for hooks in _HOOKS)
