"""Dyna-Q written step by step, without any optimisation, to compare the fast loop with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
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
    """Each step interacts, updates Q, updates the model, and plans N times.

    Targets are same-action, and the replay holds rows ``[s, a]``.

    Args:
        env: A ``JobRec-v0`` with features as observations.
        planning_steps: N.
        batch_size: Rows in each update.
        gamma: Discount.
        epsilon: Share of random choices.
        target_update_interval: Steps between copies of the Q-network to its target.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        planning_steps: int,
        batch_size: int = 64,
        gamma: float = 0.9,
        epsilon: float = 0.1,
        target_update_interval: int = 100,
    ):
        self.env, self.planning_steps, self.batch_size = env, planning_steps, batch_size
        self.gamma, self.epsilon, self.target_update_interval = gamma, epsilon, target_update_interval
        self.obs, _ = env.reset(seed=0)
        input_dim = len(self.obs["applicant"]) + self.obs["candidates"].shape[1]
        self.q_net, self.q_target, self.model = (make_network(input_dim) for _ in range(3))
        self.q_target.load_state_dict(self.q_net.state_dict())
        self.q_optimizer, self.model_optimizer = (
            th.optim.Adam(network.parameters(), lr=1e-3, fused=True) for network in (self.q_net, self.model)
        )
        self.rng = np.random.default_rng(0)
        self.replay: list[tuple[np.ndarray, float, bool]] = []
        self.n_steps = 0

    def learn(self, n_steps: int) -> None:
        """Makes steps. Each is followed by its updates once the replay has a batch."""
        for _ in range(n_steps):
            self.interact()
            if len(self.replay) >= self.batch_size:
                self.direct_update()
                self.model_update()
                for _ in range(self.planning_steps):
                    self.planning_update()

    def interact(self) -> None:
        """Makes one epsilon-greedy step and stores it; copies the target network when that is due."""
        candidates = self.obs["candidates"]
        rows = np.concatenate([np.tile(self.obs["applicant"], (len(candidates), 1)), candidates], axis=1)
        if self.rng.random() < self.epsilon:
            action = int(self.rng.integers(len(rows)))
        else:
            with th.no_grad():
                action = int(self.q_net(th.as_tensor(rows)).argmax())
        self.obs, reward, terminated, truncated, _ = self.env.step(action)
        self.replay.append((rows[action], float(reward), terminated))
        if terminated or truncated:
            self.obs, _ = self.env.reset()
        self.n_steps += 1
        if self.n_steps % self.target_update_interval == 0:
            self.q_target.load_state_dict(self.q_net.state_dict())

    def direct_update(self) -> None:
        """Trains Q towards the earned reward plus the target network's value of the same action."""
        self._q_update(*self._sample())

    def model_update(self) -> None:
        """Trains the model towards the earned reward."""
        inputs, reward, _ = self._sample()
        _step(self.model_optimizer, F.mse_loss(self.model(inputs).squeeze(1), reward))

    def planning_update(self) -> None:
        """Trains Q towards the reward that the model imagines plus the target network's value."""
        inputs, _, terminated = self._sample()
        with th.no_grad():
            imagined = self.model(inputs).squeeze(1)
        self._q_update(inputs, imagined, terminated)

    def _q_update(self, inputs: th.Tensor, reward: th.Tensor, terminated: th.Tensor) -> None:
        with th.no_grad():
            value = self.q_target(inputs).squeeze(1).masked_fill(terminated, 0.0)
        _step(self.q_optimizer, F.mse_loss(self.q_net(inputs).squeeze(1), reward + self.gamma * value))

    def _sample(self) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        drawn = [self.replay[i] for i in self.rng.integers(len(self.replay), size=self.batch_size)]
        inputs, reward, terminated = (np.array(column) for column in zip(*drawn, strict=True))
        return th.as_tensor(inputs), th.as_tensor(reward, dtype=th.float32), th.as_tensor(terminated)


def bare_update(input_dim: int, batch_size: int = 64) -> Callable[[], Any]:
    """A function that only updates a Q-network by fused Adam, always on the same batch."""
    network = make_network(input_dim)
    optimizer = th.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    inputs, target = th.randn(batch_size, input_dim), th.randn(batch_size)
    return lambda: _step(optimizer, F.mse_loss(network(inputs).squeeze(1), target))


def _step(optimizer: th.optim.Optimizer, loss: th.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
