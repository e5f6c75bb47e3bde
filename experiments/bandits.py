"""Linear contextual bandits: the opponents that a learner of this problem has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch as th
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dynaq_algo.features import BlockwiseFeatures
from experiments.opponents import Recommender

__all__ = ["LinearBandit"]

Obs = Mapping[str, NDArray[Any]]
Exploration = Literal["ucb", "thompson"]
Similarities = Literal["cosine", "blocks"]


class LinearBandit(Recommender):
    """Bayesian linear regression of the reward on ``[1, a, s * a, similarity]``, with UCB or Thompson sampling on top.

    The posterior of the weights is exact: a Gaussian of covariance ``(I / prior_std^2 + sum x x^T / noise^2)^-1``, that
    is kept by rank-one updates. LinUCB after Li et al., "A contextual-bandit approach to personalized news
    article recommendation", WWW 2010; Thompson sampling after Agrawal and Goyal, ICML 2013.

    Args:
        env: A ``JobRecVectorEnv``, wrapped in its rewards.
        exploration: ``"ucb"`` adds ``alpha`` standard deviations; ``"thompson"`` draws the candidates' rewards jointly
            from the posterior, its deviations times ``alpha``.
        alpha: How much is explored; 0 is greedy.
        noise: Standard deviation of a reward around its mean.
        prior_std: Prior standard deviation of each weight; the features of each block have unit length in all.
        cosine_prior: Prior mean of the weight of the cosine, which is standardised over the market: 0 knows nothing of
            it, 0.28 (the spread of feedback) begins as the cosine recommender. With blocks, of each one's weight.
        similarities: ``"cosine"``, or ``"blocks"`` for those of ``dynaq_algo.features.BlockwiseFeatures``, hard and
            soft skills apart and centred: what ``algo=dynaq_plus`` sees, in a linear model.
        gamma: Only for the discounted return of an evaluation.
        seed: Of the environments, and of its own draws.

    Raises:
        ValueError: For another exploration, or numbers that are out of range.
    """

    def __init__(
        self,
        env: VectorEnv,
        exploration: Exploration = "ucb",
        alpha: float = 1.0,
        noise: float = 0.3,
        prior_std: float = 0.3,
        cosine_prior: float = 0.0,
        similarities: Similarities = "cosine",
        gamma: float = 0.9,
        seed: int = 0,
    ):
        if exploration not in get_args(Exploration):
            raise ValueError(f"`exploration` must be one of {get_args(Exploration)}, got {exploration!r}.")
        if similarities not in get_args(Similarities):
            raise ValueError(f"`similarities` must be one of {get_args(Similarities)}, got {similarities!r}.")
        for name, value, least in (("alpha", alpha, 0.0), ("noise", noise, 1e-6), ("prior_std", prior_std, 1e-6)):
            if not value >= least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")
        super().__init__(env, gamma, seed)
        self._options = {
            "exploration": exploration,
            "alpha": alpha,
            "noise": noise,
            "prior_std": prior_std,
            "cosine_prior": cosine_prior,
            "similarities": similarities,
        }
        self._thompson = exploration == "thompson"
        self._alpha = alpha
        self._noise = noise
        jobs = self._market.jobs
        self._cosine = self._cosine_spread()
        self._mean_job = jobs.vectors.mean(axis=0)
        # Job vectors have much in common: what is left of them is scaled to unit length on average.
        self._spread = float(np.linalg.norm(jobs.vectors - self._mean_job, axis=1).mean()) or 1.0
        dim = jobs.vectors.shape[1]
        self._blocks = BlockwiseFeatures(dim, dim) if similarities == "blocks" else None
        if self._blocks is not None:
            self._blocks.fit(jobs.vectors)
        n_similarities = self._blocks.n_similarities if self._blocks else 1
        dim = 1 + 2 * dim + n_similarities
        self._mean = np.zeros(dim)
        self._mean[-n_similarities:] = cosine_prior
        self._covariance = np.eye(dim) * prior_std**2

    def features(self, obs: Obs) -> NDArray[np.float64]:
        """Features (n, k, d) of a batch of n observations with k candidates."""
        state, jobs = obs["applicant"].astype(np.float64), self._job_vectors(obs).astype(np.float64)
        centred = (jobs - self._mean_job) / self._spread
        if self._blocks is not None:
            states = np.broadcast_to(state[:, None], jobs.shape).copy()
            pair = self._blocks.pair(th.from_numpy(states), th.from_numpy(jobs)).numpy()
            similar = pair[..., jobs.shape[-1] :]
        else:
            product = state[:, None] * jobs
            mean, spread = self._cosine
            cosine = (product.sum(axis=-1, keepdims=True) - mean) / spread
            # The sum of the products is the cosine; scaled so that their spread is of the other blocks' size.
            similar = np.concatenate([product * np.sqrt(product.shape[-1]) / 2, cosine], axis=-1)
        return np.concatenate([np.ones((*jobs.shape[:2], 1)), centred, similar], axis=-1)

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Expected rewards."""
        return self.features(obs) @ self._mean

    def update(self, features: NDArray[np.float64], rewards: NDArray[np.float64]) -> None:
        """Brings rewards into the posterior.

        Args:
            features: (n, d), of what was recommended.
            rewards: (n,).
        """
        for x, reward in zip(features, rewards, strict=True):
            direction = self._covariance @ x
            gain = direction / (self._noise**2 + x @ direction)
            self._mean += gain * (reward - x @ self._mean)
            self._covariance -= np.outer(gain, direction)

    def _scores(self, obs: Obs) -> NDArray[np.float64]:
        return self._optimistic(self.features(obs))

    def _observe(
        self, obs: Obs, actions: NDArray[np.int64], rewards: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> None:
        chosen = {"applicant": obs["applicant"][rows], "candidates": obs["candidates"][rows, actions[rows]][:, None]}
        self.update(self.features(chosen)[:, 0], rewards[rows])

    def _learned(self) -> dict[str, NDArray[Any]]:
        return {"mean": self._mean}

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """A loaded one acts greedily; its posterior's spread is not kept."""
        self._mean = arrays["mean"]

    def _optimistic(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (n, k) that explore."""
        expected = features @ self._mean
        if self._alpha == 0:
            return expected
        projected = features @ self._covariance
        if not self._thompson:
            return expected + self._alpha * np.sqrt(np.maximum((projected * features).sum(axis=-1), 0.0))
        # The candidates' rewards have a joint posterior of their own: no need to draw all weights.
        joint = projected @ features.swapaxes(-1, -2)
        values, vectors = np.linalg.eigh((joint + joint.swapaxes(-1, -2)) / 2)
        draws = self._rng.standard_normal(expected.shape) * np.sqrt(np.maximum(values, 0.0))
        return expected + self._alpha * (vectors @ draws[..., None])[..., 0]
