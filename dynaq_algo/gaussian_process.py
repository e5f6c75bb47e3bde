"""A Bayesian world model: an exact Gaussian process over (state, action) pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional as F

from dynaq_algo.features import BlockwiseFeatures, best_match, prior_weights

__all__ = ["DEFAULT_SCALES", "GaussianProcess"]

DEFAULT_SCALES: Mapping[str, float] = {
    "constant": 0.05,
    "similarity": 0.03,
    "trust": 2.0,
    "action": 0.03,
    "state": 0.04,
    "bilinear": 0.1,
    "quadratic": 0.1,
    "same_state": 0.07,
    "same_action": 0.11,
    "same_pair": 0.15,
}
"""Prior standard deviation of each part of a reward, see :class:`GaussianProcess`."""

_SAME = 1 - 1e-5
"""Cosine from which two vectors are the same one."""


class GaussianProcess(nn.Module):
    """Predicts the reward of an action with a spread that knows what was tried and what is only similar to it.

    A reward is the sum of independent parts, each Gaussian with a prior standard deviation of its own (`scales`):

    * `constant`; `similarity`: linear in the similarities of state and action, its mean given by `prior`;
    * `trust`: that mean times an unknown number, so that 1 doubts the whole prior, its sign included;
    * `action`, `state`: linear in the action, in the state (kernels a.a' and s.s');
    * `bilinear`: a matrix between state and action, whatever its rank: tastes (kernel (s.s')(a.a'));
    * `quadratic`: the same of their squares (kernel ((s.s')(a.a'))^2);
    * `same_state`, `same_action`, `same_pair`: what is peculiar to this state, action, pair.

    Here s and a are the entries that both share, less the mean action, at unit length. Earned rewards are their sum
    with noise of standard deviation `noise`. The posterior is exact (Rasmussen and Williams, 2006, algorithm 2.1) and
    costs O(n^3) for n distinct pairs, of which the latest `max_pairs` are kept; rewards of one pair are averaged.

    It has no optimiser: a transition is learned when :meth:`observe` has seen it once.

    Args:
        features: `"blockwise"`; shared with the Q-network.
        prior: Prior mean of the weight of each similarity; None for 0.
        scales: In place of those in :data:`DEFAULT_SCALES`; 0 leaves a part out.
        noise: Standard deviation of a reward around its mean, above 0.
        max_pairs: Distinct pairs that are kept.

    Raises:
        ValueError: If a number is out of range, a part unknown, or the features are others.

    Example:
        >>> from dynaq_algo.features import BlockwiseFeatures
        >>> model = GaussianProcess(BlockwiseFeatures(4, 4), prior=[0.1, 0.1])
        >>> model.observe(th.rand(3, 14), th.ones(3))
        >>> mean, spread = model(th.rand(32, 14))
        >>> mean.shape, spread.shape
        (torch.Size([32]), torch.Size([32]))
    """

    optimizer: th.optim.Optimizer | None = None
    prior: th.Tensor
    _states: th.Tensor
    _actions: th.Tensor
    _similarities: th.Tensor
    _totals: th.Tensor
    _counts: th.Tensor
    _covariance: th.Tensor
    _cholesky: th.Tensor
    _alpha: th.Tensor

    def __init__(
        self,
        features: BlockwiseFeatures,
        prior: Sequence[float] | None = None,
        scales: Mapping[str, float] | None = None,
        noise: float = 0.3,
        max_pairs: int = 2_000,
    ):
        super().__init__()
        if not isinstance(features, BlockwiseFeatures):
            raise ValueError(f'`features` must be "blockwise" for a Gaussian process, got {type(features).__name__}.')
        if unknown := sorted(set(scales or ()) - set(DEFAULT_SCALES)):
            raise ValueError(
                f"`scales` must name parts of {tuple(DEFAULT_SCALES)}, got {unknown}"
                f"{best_match(unknown[0], DEFAULT_SCALES)}."
            )
        self.scales = {**DEFAULT_SCALES, **(scales or {})}
        if not all(0 <= scale < np.inf for scale in self.scales.values()):
            raise ValueError(f"`scales` must be finite numbers of 0 or more, got {self.scales}.")
        if not 0 < noise < np.inf or max_pairs < 1:
            raise ValueError(f"`noise` must be above 0 and `max_pairs` 1 or more, got {noise} and {max_pairs}.")
        self.features = features
        self.noise = noise
        self.max_pairs = max_pairs
        weights = [0.0] * features.n_similarities if prior is None else prior
        self.register_buffer("prior", prior_weights(weights, features), persistent=False)
        self._forget()

    @property
    def n_pairs(self) -> int:
        """Distinct pairs that it knows."""
        return len(self._totals)

    def forward(self, inputs: th.Tensor, with_spread: bool = True) -> tuple[th.Tensor, th.Tensor]:
        """Inputs (n, output_dim) of pairs -> posterior mean and standard deviation of the expected reward, (n,) each.

        Without `with_spread` the second is 0, and not computed.
        """
        parts = self._parts(inputs)
        mean = parts[2] @ self.prior
        variance = th.zeros_like(mean)
        if with_spread:
            states, actions, similarities = (part.square().sum(dim=1) for part in parts)
            variance = self._sum(states, actions, similarities, mean.square())
        if self.n_pairs:
            cross = self._kernel(parts, self._known)
            mean = mean + cross @ self._alpha
            if with_spread:
                solved = th.linalg.solve_triangular(self._cholesky, cross.T.double(), upper=False)
                variance = variance - solved.square().sum(dim=0).float()
        return mean, variance.clamp_min(0.0).sqrt()

    def score(self, state: th.Tensor, candidates: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """States (n, d_s), candidates (n, k, d_a) -> mean and standard deviation of the rewards, (n, k) each."""
        n, k = candidates.shape[:2]
        inputs = self.features(state.unsqueeze(1).expand(-1, k, -1), candidates).flatten(0, 1)
        mean, spread = self(inputs)
        return mean.view(n, k), spread.view(n, k)

    def observe(self, inputs: th.Tensor, reward: th.Tensor) -> None:
        """Bring transitions into the posterior, each once.

        Args:
            inputs: (n, output_dim) of the chosen pairs.
            reward: (n,) that was earned.
        """
        parts = self._parts(inputs)
        for i, value in enumerate(reward.tolist()):
            self._add(tuple(part[i : i + 1] for part in parts), value, 1.0)
        if len(reward):
            self._solve()

    def update(self, inputs: th.Tensor, reward: th.Tensor, serial: np.ndarray) -> th.Tensor:
        """Mean squared error on transitions (n, output_dim) and (n,): nothing is learned from seeing them again."""
        with th.no_grad():
            return (self(inputs, with_spread=False)[0] - reward).square().mean()

    # ------------------------------------------------------------------ kernel

    def _parts(self, inputs: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Unit states and actions (n, shared_dim) and similarities (n, m) of inputs."""
        features = self.features
        state, action = inputs[:, : features.state_dim], inputs[:, features.state_dim :][:, : features.action_dim]
        unit = [F.normalize(features.centred(vectors), dim=1) for vectors in (state, action)]
        return unit[0], unit[1], inputs[:, -features.n_similarities :]

    def _kernel(self, left: tuple[th.Tensor, ...], right: tuple[th.Tensor, ...]) -> th.Tensor:
        """Prior covariance (n, m) of pairs given as :meth:`_parts`."""
        (s, a, f), (t, b, g) = left, right
        return self._sum(s @ t.T, a @ b.T, f @ g.T, th.outer(f @ self.prior, g @ self.prior))

    def _sum(self, states: th.Tensor, actions: th.Tensor, similarities: th.Tensor, prior_means: th.Tensor) -> th.Tensor:
        """Prior covariance from the products of states, actions, similarities and prior means, all of one shape."""
        variance = {part: scale**2 for part, scale in self.scales.items()}
        product = states * actions
        same_state, same_action = states > _SAME, actions > _SAME
        return (
            variance["constant"]
            + variance["similarity"] * similarities
            + variance["trust"] * prior_means
            + variance["action"] * actions
            + variance["state"] * states
            + product * (variance["bilinear"] + variance["quadratic"] * product)
            + variance["same_state"] * same_state
            + variance["same_action"] * same_action
            + variance["same_pair"] * (same_state & same_action)
        )

    # ------------------------------------------------------------------ data

    def _add(self, parts: tuple[th.Tensor, ...], total: float, count: float) -> None:
        """`count` rewards of one pair, as :meth:`_parts` (1, ...), that sum up to `total`."""
        row = self._kernel(parts, self._known).double()
        same = ((parts[0] @ self._known[0].T > _SAME) & (parts[1] @ self._known[1].T > _SAME)).flatten().nonzero()
        if len(same):
            self._totals[same[0]] += total
            self._counts[same[0]] += count
            return
        if self.n_pairs == self.max_pairs:
            self._states, self._actions, self._similarities = (part[1:] for part in self._known)
            self._totals, self._counts, row = self._totals[1:], self._counts[1:], row[:, 1:]
            self._covariance = self._covariance[1:, 1:]
        self._covariance = th.cat(
            [th.cat([self._covariance, row.T], dim=1), th.cat([row, self._kernel(parts, parts).double()], dim=1)]
        )
        self._states, self._actions, self._similarities = (
            th.cat([old, new]) for old, new in zip(self._known, parts, strict=True)
        )
        self._totals = th.cat([self._totals, self._totals.new_tensor([total])])
        self._counts = th.cat([self._counts, self._counts.new_tensor([count])])

    def _solve(self) -> None:
        """The posterior of what is known."""
        self._cholesky = th.linalg.cholesky(self._covariance + th.diag(self.noise**2 / self._counts))
        surprise = self._totals / self._counts - (self._known[2] @ self.prior).double()
        self._alpha = th.cholesky_solve(surprise.unsqueeze(1), self._cholesky).squeeze(1).float()

    @property
    def _known(self) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """The pairs that were told, as :meth:`_parts`."""
        return self._states, self._actions, self._similarities

    def _forget(self) -> None:
        features, device = self.features, self.prior.device
        for name, size in (
            ("_states", (0, features.shared_dim)),
            ("_actions", (0, features.shared_dim)),
            ("_similarities", (0, features.n_similarities)),
        ):
            self.register_buffer(name, th.empty(size, device=device), persistent=False)
        for name, shape in (("_totals", (0,)), ("_counts", (0,)), ("_covariance", (0, 0)), ("_cholesky", (0, 0))):
            empty = th.empty(shape, dtype=th.float64, device=device)
            self.register_buffer(name, empty, persistent=False)
        self.register_buffer("_alpha", th.empty(0, device=device), persistent=False)

    def get_extra_state(self) -> dict[str, Any]:
        """What it was told, for `state_dict`."""
        names = ("state", "action", "similarity")
        return {**dict(zip(names, self._known, strict=True)), "total": self._totals, "count": self._counts}

    def set_extra_state(self, state: dict[str, th.Tensor]) -> None:
        """Learns it all again, pair by pair as it was told, so that the posterior is equal to the bit."""
        self._forget()
        parts = [state[name].to(self.prior.device) for name in ("state", "action", "similarity")]
        for i, (total, count) in enumerate(zip(state["total"].tolist(), state["count"].tolist(), strict=True)):
            self._add(tuple(part[i : i + 1] for part in parts), total, count)
        if self.n_pairs:
            self._solve()
