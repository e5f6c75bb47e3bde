"""Matrix products of linear layers without gradients, by the sooner of the two libraries that torch brings."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch as th
from torch.nn import functional as F

__all__ = ["USUAL_STEP", "linear", "linear_of_any_rows", "torchs_linear"]

# oneDNN keeps a kernel of up to 2 MB for each number of rows: only multiples of this have one.
USUAL_STEP = 32

# Below these oneDNN's preparations of a call cost more than its products save.
_LEAST_SIZE = 32
_LEAST_WORK = 2**21
# Rows of a piece, and the least work of one, since it may be filled up and is put together with others again.
_PIECE = 256
_LEAST_WORK_OF_A_PIECE = 2**22
# From so many rows on it is worth to copy a weight that does not lie in one piece, as a slice does not.
_ROWS_FOR_A_COPY = 64

# Whether `torch.func` looks at the call, `vmap` for instance: it knows torch's own functions only.
_in_a_transform = getattr(th._C, "_are_functorch_transforms_active", bool)


def linear(
    input: th.Tensor, weight: th.Tensor, bias: th.Tensor | None = None, out: th.Tensor | None = None
) -> th.Tensor:
    """:func:`torch.nn.functional.linear` of a number of rows that comes again and again, such as a batch's.

    Torch's own products of float32 are MKL's, which on an AMD processor with AVX-512 take twice as long as oneDNN's.
    Torch has both, but calls oneDNN by itself for lower precision only. Where there is no such processor (on Intel's
    MKL uses AVX-512, too), with gradients, on another device, for other types and for small products this is torch's
    own function; with `torch.backends.mkldnn.enabled = False`, too. The numbers differ in their last bits.

    Args:
        input: (n, d).
        weight: (m, d).
        bias: (m,).
        out: (n, m), memory that may be used.

    Returns:
        (n, m), in `out` or elsewhere.
    """
    # A memory of another order, as that of a transposed weight's gradient, is to be filled, not replaced.
    if (out is None or out.is_contiguous()) and _is_sooner(input, weight, bias, _LEAST_WORK):
        return _onednns(input.contiguous(), _in_one_piece(weight), bias)
    return torchs_linear(input, weight, bias, out)


def torchs_linear(
    input: th.Tensor, weight: th.Tensor, bias: th.Tensor | None = None, out: th.Tensor | None = None
) -> th.Tensor:
    """:func:`torch.nn.functional.linear`, see :func:`linear`; into `out` where it is given."""
    if out is None:
        return F.linear(input, weight, bias)
    return th.mm(input, weight.t(), out=out) if bias is None else th.addmm(bias, input, weight.t(), out=out)


def linear_of_any_rows(input: th.Tensor, weight: th.Tensor, bias: th.Tensor | None = None) -> th.Tensor:
    """As :func:`linear`, of inputs (..., n, d) whose number of rows is another each time."""
    if not _is_sooner(input, weight, bias, _LEAST_WORK_OF_A_PIECE, _PIECE):
        return F.linear(input, weight, bias)
    weight = _in_one_piece(weight)
    pieces = []
    for piece in input.flatten(0, -2).split(_PIECE):
        missing = -len(piece) % USUAL_STEP
        filled = F.pad(piece, (0, 0, 0, missing)) if missing else piece.contiguous()
        pieces.append(_onednns(filled, weight, bias)[: len(piece)])
    values = pieces[0] if len(pieces) == 1 else th.cat(pieces)
    return values.view(*input.shape[:-1], len(weight))


def _is_sooner(
    input: th.Tensor, weight: th.Tensor, bias: th.Tensor | None, least_work: int, rows_at_once: int | None = None
) -> bool:
    if th.compiler.is_compiling() or th.jit.is_tracing() or _in_a_transform():
        return False
    n = input.shape[:-1].numel()
    return (
        min(n, rows_at_once or n) * weight.numel() >= least_work
        and min(n, *weight.shape) >= _LEAST_SIZE
        and input.shape[-1] == weight.shape[1]
        and (n >= _ROWS_FOR_A_COPY or _is_in_one_piece(weight))
        and input.dtype == weight.dtype == th.float32
        and input.device.type == weight.device.type == "cpu"
        and (bias is None or (bias.dtype == th.float32 and bias.shape == weight.shape[:1] and bias.is_contiguous()))
        and not (th.is_grad_enabled() or th.is_autocast_enabled("cpu"))
        and bool(th.backends.mkldnn.enabled)
        and _operation() is not None
    )


def _onednns(input: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    return _operation()(input, weight, bias, "none", [], "")


def _is_in_one_piece(weight: th.Tensor) -> bool:
    return weight.is_contiguous() or weight.t().is_contiguous()


def _in_one_piece(weight: th.Tensor) -> th.Tensor:
    """The weight or a copy: with gaps between its rows oneDNN would take a thousand times as long."""
    return weight if _is_in_one_piece(weight) else weight.contiguous()


@lru_cache(maxsize=1)
def _operation() -> Any:
    """What `torch.compile` makes of a linear layer; None where this torch lacks it, or this processor gains nothing."""
    gains = th.backends.cpu.get_cpu_capability() == "AVX512" and th.backends.mkl.is_available()
    if not gains or "AuthenticAMD" not in _processor():
        return None
    try:
        operation = th.ops.mkldnn._linear_pointwise
        input, weight = (th.ones(shape, dtype=th.float32, device="cpu") for shape in ((2, 3), (4, 3)))
        found = operation(input, weight, None, "none", [], "")
        return operation if found.tolist() == [[3.0] * 4] * 2 else None
    except (AttributeError, RuntimeError, NotImplementedError):
        return None


def _processor() -> str:
    """Who made it, among other words."""
    try:
        return Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
    except OSError:  # another system than Linux
        return platform.processor()
