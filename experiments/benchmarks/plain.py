"""Dyna-Q written down as the design says it, one batch after the other: what the fast loop is measured against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch as th
from torch import nn
from torch.nn import functional as F

__all__ = ["PlainDynaQ", "bare_update", "make_network"]


def make_network(input_dim: int, hidden: int = 256) -> nn.Sequential:
    """An MLP with two hidden layers and one number out."""
    return nn.Sequential(
        nn.Linear(input_dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    )


class PlainDynaQ:
    """Q-network, target and world model over rows ``[s, a]``; a replay of rows.

    Args:
        inputs: Replay, float32 (n, input_dim).
        reward: float32 (n,).
        batch_size: Rows in each update.
        gamma: Discount.
    """

    def __init__(self, inputs: th.Tensor, reward: th.Tensor, batch_size: int = 64, gamma: float = 0.9):
        self.inputs, self.reward, self.batch_size, self.gamma = inputs, reward, batch_size, gamma
        self.q_net, self.q_target, self.model = (make_network(inputs.shape[1]) for _ in range(3))
        self.q_target.load_state_dict(self.q_net.state_dict())
        self.optimizer = th.optim.Adam(self.q_net.parameters(), lr=1e-3, fused=True)
        self.generator = th.Generator().manual_seed(0)

    def planning_update(self) -> None:
        """Draw pairs, imagine their reward, and update Q towards it plus the target's value."""
        rows = th.randint(len(self.inputs), (self.batch_size,), generator=self.generator)
        inputs = self.inputs[rows]
        with th.no_grad():
            target = self.model(inputs).squeeze(1) + self.gamma * self.q_target(inputs).squeeze(1)
        loss = F.mse_loss(self.q_net(inputs).squeeze(1), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def bare_update(input_dim: int, batch_size: int = 64) -> Callable[[], Any]:
    """An update of a Q-network by fused Adam on one batch that is at hand, and nothing else."""
    network = make_network(input_dim)
    optimizer = th.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    inputs, target = th.randn(batch_size, input_dim), th.randn(batch_size)

    def update() -> None:
        loss = F.mse_loss(network(inputs).squeeze(1), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return update
