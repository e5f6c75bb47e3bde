"""The network that estimates the value of a (state, action) pair, and how it learns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch as th
from torch import nn
from torch.nn import functional as F

from dynaq_algo.arguments import require_number, require_sizes
from dynaq_algo.features import DistinctPairs, PairFeatures, prior_weights

__all__ = ["PairNetwork", "denormals_flushed", "make_optimizer", "squared_error_step"]

# Pairs per forward pass. With this few pairs the outputs of hidden layers stay in the processor's cache.
PIECE = 1_024


class PairNetwork(nn.Module):
    """An MLP from the features of a pair to one number.

    There is no dropout and no normalisation: training and evaluation mode give the same numbers.

    Args:
        features: How an input is made of a state and an action, and its size.
        net_arch: Sizes of the hidden layers.
        activation_fn: Class of the activation after each hidden layer.
        prior: Initial weights of the similarities. Weights of the numbers of `pairs` may follow; they are 0 if left
            out. The output is then the weighted sum of similarities and numbers plus the output of the layers, which is
            0 at first. The weights are learned like all others. None for a network without such a sum.

    Raises:
        ValueError: If there is no hidden layer, or `prior` is none that :func:`~dynaq_algo.features.prior_weights`
            takes.

    Example:
        >>> network = PairNetwork(ConcatFeatures(3, 2), [8])
        >>> network(th.zeros(4, 5)).shape, network.score(th.zeros(4, 3), th.zeros(4, 6, 2)).shape
        (torch.Size([4]), torch.Size([4, 6]))
    """

    def __init__(
        self,
        features: PairFeatures,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        prior: Sequence[float] | None = None,
    ):
        super().__init__()
        net_arch = require_sizes("net_arch", net_arch)
        self.features = features
        self.first = nn.Linear(features.output_dim, net_arch[0])
        layers: list[nn.Module] = [activation_fn()]
        for size_in, size_out in zip(net_arch, [*net_arch[1:], 1], strict=True):
            layers += [nn.Linear(size_in, size_out), activation_fn()]
        self.rest = nn.Sequential(*layers[:-1])
        self.prior = None if prior is None else nn.Parameter(prior_weights(prior, features))
        if prior is not None:
            self._silence_layers()

    def begin_at_zero(self) -> None:
        """Make the output 0 for every pair until the network learns. The prior's weights become 0 too."""
        self._silence_layers()
        if self.prior is not None:
            nn.init.zeros_(self.prior)

    def _silence_layers(self) -> None:
        for parameter in self.rest[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        """Inputs (n, output_dim) of pairs -> (n,)."""
        return self._with_prior(self.rest(self.first(inputs)).squeeze(-1), inputs)

    def of_pairs(self, pairs: DistinctPairs) -> th.Tensor:
        """Values of pairs, (n,), or (n, k) if there are k actions for each state.

        With :attr:`PairFeatures.separable` features the first layer sees each state and each action once, however many
        pairs they are in.
        """
        evaluate = self._of_pairs
        if self.features.separable:
            by_state, by_pair = self._halves()
            # The layer's products take the place of the vectors.
            by_states = F.linear(pairs.state, by_state, self.first.bias)
            by_actions = F.linear(pairs.action, by_pair[:, : self.features.pair_dim])
            pairs, evaluate = pairs._replace(state=by_states, action=by_actions), self._of_products
        n = max(len(pairs.action_row), 1)
        in_pieces = pairs.action.device.type == "cpu" and not th.is_grad_enabled()
        size = max(1, PIECE * n // max(pairs.action_row.numel(), 1)) if in_pieces else n
        if n <= size:
            return evaluate(pairs)
        return th.cat([evaluate(pairs.take(slice(start, start + size))) for start in range(0, n, size)])

    def _of_products(self, pairs: DistinctPairs) -> th.Tensor:
        hidden = _rows_of(pairs.action, pairs.action_row)
        hidden += _rows_of(pairs.state, pairs.state_row)
        if pairs.pairs is not None:
            hidden += self.features.scaled(pairs.pairs) @ self._halves()[1][:, self.features.pair_dim :].T
        return self.rest(hidden).squeeze(-1)

    def _of_pairs(self, pairs: DistinctPairs) -> th.Tensor:
        if pairs.action_row.ndim == 1:
            return self(self.features.of_pairs(pairs))
        return self.score(pairs.state[pairs.state_row[:, 0]], pairs.action[pairs.action_row], pairs.pairs)

    def score(self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None = None) -> th.Tensor:
        """States (n, d_s), candidates (n, k, d_a) and their pairs (n, k, p) -> values (n, k).

        The first layer's weight is applied in two halves. The state's half is computed once per state, not once per
        candidate.
        """
        by_state, by_pair = self._halves()
        pair = self.features.of_action(state.unsqueeze(1).expand(-1, candidates.shape[1], -1), candidates, pairs)
        hidden = F.linear(pair, by_pair) + F.linear(state, by_state, self.first.bias).unsqueeze(1)
        return self._with_prior(self.rest(hidden).squeeze(-1), pair)

    def _halves(self) -> tuple[th.Tensor, th.Tensor]:
        """The first layer's weight for the state and for what depends on the action."""
        state_dim = self.features.state_dim
        return self.first.weight[:, :state_dim], self.first.weight[:, state_dim:]

    def _with_prior(self, values: th.Tensor, inputs: th.Tensor) -> th.Tensor:
        return values if self.prior is None else values + inputs[..., -len(self.prior) :] @ self.prior


def squared_error_step(
    network: nn.Module,
    optimizer: th.optim.Optimizer,
    inputs: th.Tensor,
    target: th.Tensor,
    weight: th.Tensor | None = None,
    max_grad_norm: float = float("inf"),
) -> tuple[th.Tensor, th.Tensor]:
    """One optimiser step of a network towards targets.

    Args:
        network: Inputs (n, d) -> values (n,).
        optimizer: Optimiser of the network's parameters.
        inputs: (n, d).
        target: (n,) targets of the values.
        weight: (n,) how much each error counts; None if all count alike.
        max_grad_norm: A gradient with a larger norm is clipped to this norm.

    Returns:
        The mean squared error and the values (n,), both from before the step.
    """
    values = network(inputs)
    loss = F.mse_loss(values, target) if weight is None else (weight * (values - target).square()).mean()
    optimizer.zero_grad()
    loss.backward()
    if math.isfinite(max_grad_norm):
        nn.utils.clip_grad_norm_(network.parameters(), max_grad_norm)
    optimizer.step()
    return loss.detach(), values.detach()


def make_optimizer(
    parameters: Any,
    learning_rate: float,
    optimizer_class: type[th.optim.Optimizer],
    optimizer_kwargs: dict[str, Any] | None,
) -> th.optim.Optimizer:
    """Make an optimiser. Adam is fused where the device supports that, which is a third faster on one thread.

    Raises:
        ValueError: If the learning rate is negative or not a finite number.
    """
    if require_number("learning_rate", learning_rate) < 0:
        raise ValueError(f"`learning_rate` must be 0 or more, got {learning_rate}.")
    kwargs = dict(optimizer_kwargs or {})
    parameters = list(parameters)
    if optimizer_class in (th.optim.Adam, th.optim.AdamW) and not {"fused", "foreach"} & kwargs.keys():
        try:
            return optimizer_class(parameters, lr=learning_rate, fused=True, **kwargs)
        except RuntimeError:  # this device has no fused kernel
            pass
    return optimizer_class(parameters, lr=learning_rate, **kwargs)  # type: ignore[call-arg]


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Treat numbers below 1e-38 (denormals) as 0 within the block.

    Adam's moments of weights without a gradient decay into such numbers, and a CPU computes with them many times
    slower.
    """
    were_kept = bool((th.full((1,), 1e-38) * 0.1).item())
    th.set_flush_denormal(True)
    try:
        yield
    finally:
        th.set_flush_denormal(not were_kept)


def _rows_of(table: th.Tensor, rows: th.Tensor) -> th.Tensor:
    """`table[rows]` for rows (...), but faster."""
    return table.index_select(0, rows.reshape(-1)).view(*rows.shape, table.shape[-1])
