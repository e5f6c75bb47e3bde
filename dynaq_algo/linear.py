"""A linear layer whose matrix products are oneDNN's where that is sooner."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch as th
from torch import nn
from torch.nn import functional as F

__all__ = ["Linear", "linear"]

# Below these oneDNN's preparations of a call (some 10 microseconds) cost more than its products save.
_LEAST_SIZE = 16
_LEAST_WORK = 2**20
# From so many rows on it is worth to copy a weight that does not lie in one piece, as a slice does not.
_ROWS_FOR_A_COPY = 64

# Whether `torch.func` looks at the call, `vmap` for instance: it knows torch's own functions only.
_in_a_transform = getattr(th._C, "_are_functorch_transforms_active", bool)


class Linear(nn.Linear):
    """:class:`torch.nn.Linear` by :func:`linear`: the same parameters, and the same numbers but for the last bits.

    Example:
        >>> Linear(1536, 256)(th.zeros(64, 1536)).shape
        torch.Size([64, 256])
    """

    def forward(self, input: th.Tensor) -> th.Tensor:
        """Inputs (..., in_features) -> (..., out_features)."""
        return linear(input, self.weight, self.bias)


def linear(input: th.Tensor, weight: th.Tensor, bias: th.Tensor | None = None) -> th.Tensor:
    """:func:`torch.nn.functional.linear`, on a CPU by oneDNN where the products are large; its gradients, too.

    Torch's own products of float32 are MKL's, which on processors of other makers than Intel does without AVX-512: on
    those that have it oneDNN takes half the time. Torch brings both libraries, but calls oneDNN by itself for lower
    precision only. `torch.backends.mkldnn.enabled = False` turns it off here, too; without it, on another device,
    for other types and for small products this is torch's own function.

    Args:
        input: (..., d).
        weight: (m, d).
        bias: (m,).

    Returns:
        (..., m).
    """
    if not _is_sooner(input, weight, bias):
        return F.linear(input, weight, bias)
    return _Linear.apply(input, weight, bias) if th.is_grad_enabled() else _product(input, weight, bias)


class _Linear(th.autograd.Function):
    """oneDNN's product with the gradients of a linear layer, which torch has only for its own."""

    @staticmethod
    def forward(ctx: Any, input: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
        ctx.save_for_backward(input, weight)
        return _product(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: th.Tensor) -> tuple[th.Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            linear(gradient, weight.t()) if of_input else None,
            linear(rows.t(), input.flatten(0, -2).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _is_sooner(input: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> bool:
    if th.jit.is_tracing() or _in_a_transform() or input.ndim < 2 or input.shape[-1] != weight.shape[1]:
        return False
    n_rows = input.numel() // max(weight.shape[1], 1)
    return (
        n_rows * weight.numel() >= _LEAST_WORK
        and min(n_rows, *weight.shape) >= _LEAST_SIZE
        and (n_rows >= _ROWS_FOR_A_COPY or _in_one_piece(weight))
        and input.device.type == weight.device.type == "cpu"
        and input.dtype == weight.dtype == th.float32
        and (bias is None or bias.dtype == th.float32)
        and bool(th.backends.mkldnn.enabled)
        and _onednn() is not None
    )


def _product(input: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    if not _in_one_piece(weight):  # oneDNN would take a thousand times as long
        weight = weight.contiguous()
    return _onednn()(input.contiguous(), weight, bias, "none", [], "")


def _in_one_piece(weight: th.Tensor) -> bool:
    return weight.is_contiguous() or weight.t().is_contiguous()


@lru_cache(maxsize=1)
def _onednn() -> Any:
    """Torch's operation for what `torch.compile` makes of a linear layer, or None where this build lacks it."""
    if not th.backends.mkldnn.is_available():
        return None
    try:
        operation = th.ops.mkldnn._linear_pointwise
        with th.no_grad():
            input, weight = th.ones(2, 3), th.ones(4, 3)
            found = operation(input, weight, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return None
    return operation if th.equal(found, F.linear(input, weight)) else None
