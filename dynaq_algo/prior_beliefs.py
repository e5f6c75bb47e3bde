"""What rewards say about the factors of a prior mean, and about the weights of `pairs`, whose scale is not known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynaq_algo.prior_trust import FactorPrior, SourceTrust

__all__ = [
    "MULTIPLES",
    "PROBABILITIES",
    "Beliefs",
    "Coefficients",
    "GivenScale",
    "about_factor",
    "about_sources",
    "combined",
    "given_scales",
]

Floats = NDArray[np.float64]

MULTIPLES = (0.15, 0.5, 1.5)
"""The scale is one of these multiples of the given one: `pairs` say next to nothing, something, or much."""

PROBABILITIES = (0.4, 0.4, 0.2)
"""Prior probability of each of :data:`MULTIPLES`."""


class GivenScale(NamedTuple):
    """What rewards say about S factors and p weights, for each of m scales of the weights.

    Attributes:
        log_weight: (m,), log prior probability of the scale plus log evidence for it if all factors are 0.
        by_reward: (m, S). With the weights integrated out, the likelihood of the factors f is proportional to
            `exp(by_reward . f - f . by_factor f / 2)`.
        by_factor: (m, S, S).
        weights: (m, p), posterior mean of the weights if all factors are 0.
        slopes: (m, p, S), by how much this mean falls when a factor rises by 1.
        covariance: (m, p, p), of the weights for any given factors.
    """

    log_weight: Floats
    by_reward: Floats
    by_factor: Floats
    weights: Floats
    slopes: Floats
    covariance: Floats


class Coefficients(NamedTuple):
    """Posterior of S factors and p weights.

    Attributes:
        mean: (S + p,).
        covariance: (S + p, S + p).
    """

    mean: Floats
    covariance: Floats


def given_scales(by_reward: Floats, by_term: Floats, n_factors: int, scale: float) -> GivenScale:
    """Integrates out the weights, which are independent and Gaussian with mean 0, for each possible scale of them.

    Args:
        by_reward: (S + p,). The likelihood of the coefficients c, the factors followed by the weights, is proportional
            to `exp(by_reward . c - c . by_term c / 2)`.
        by_term: (S + p, S + p), symmetric, no eigenvalue below 0.
        n_factors: S.
        scale: Standard deviation of the weights for a multiple of 1. If p is 0, there is a single scale.
    """
    n_weights = len(by_reward) - n_factors
    possible, probabilities = (MULTIPLES, PROBABILITIES) if n_weights else ((1.0,), (1.0,))
    variance = np.square(scale * np.array(possible))[:, None, None]
    of_factors, of_weights = by_term[:n_factors, :n_factors], by_term[n_factors:, n_factors:]
    between = by_term[n_factors:, :n_factors]
    # `covariance` is (1 / variance + of_weights)^-1, written so that a scale of 0 gives 0.
    inflated = np.eye(n_weights) + variance * of_weights
    covariance = np.linalg.solve(inflated, variance * np.eye(n_weights)).astype(np.float64, copy=False)
    weights, slopes = covariance @ by_reward[n_factors:], covariance @ between
    log_evidence = 0.5 * (weights @ by_reward[n_factors:] - np.linalg.slogdet(inflated)[1])
    return GivenScale(
        np.log(probabilities) + log_evidence,
        by_reward[:n_factors] - weights @ between,
        of_factors - between.T @ slopes,
        weights,
        slopes,
        covariance,
    )


def combined(given: GivenScale, share: Floats, factors: Floats, doubts: Floats) -> Coefficients:
    """Posterior of all coefficients, a mixture over the scales.

    Args:
        given: What rewards say for each of m scales.
        share: (m,), probability of each scale after the rewards.
        factors: (m, S), posterior mean of the factors for each scale.
        doubts: (m, S, S), their covariance.
    """
    n_factors = factors.shape[1]
    means = np.concatenate([factors, given.weights - np.einsum("mps,ms->mp", given.slopes, factors)], axis=1)
    mean = share @ means
    # The coefficients move with the factors along these directions.
    along = np.concatenate([np.broadcast_to(np.eye(n_factors), doubts.shape), -given.slopes], axis=1)
    spread = along @ doubts @ along.transpose(0, 2, 1)
    spread[:, n_factors:, n_factors:] += given.covariance
    apart = means - mean
    covariance = np.einsum("m,mij->ij", share, spread) + np.einsum("m,mi,mj->ij", share, apart, apart)
    return Coefficients(mean, covariance)


class Beliefs(NamedTuple):
    """What rewards say about the coefficients: S factors of the prior mean, then p weights of `pairs`.

    Attributes:
        given: What the rewards say if the scale of the weights is known, for each of m scales.
        coefficients: Posterior of all coefficients.
        grid: (n,), possible values of the one factor; empty with sources.
        on_grid: (m, n), joint probabilities of scale and factor, see :func:`about_factor`; empty with sources.
        trust: Posterior of the sources' factors; None without sources.
    """

    given: GivenScale
    coefficients: Coefficients
    grid: Floats = np.empty(0)
    on_grid: Floats = np.empty((0, 0))
    trust: SourceTrust | None = None

    def quantile(self, level: float) -> float:
        """Quantile of the one factor."""
        return float(self.grid[(self.on_grid.sum(axis=0).cumsum()[:-1] < level).sum()])

    def given_factor(self, factor: float) -> Floats:
        """Expected coefficients (1 + p,) if this value on the grid is the one factor."""
        share = self.on_grid[:, np.abs(self.grid - factor).argmin()]
        weights = self.given.weights - factor * self.given.slopes[..., 0]
        return np.append(factor, share / share.sum() @ weights)


def about_factor(given: GivenScale, grid: Floats, log_prior: Floats, power: float) -> Beliefs:
    """Beliefs where the whole prior mean has one factor.

    The probability of a scale of the weights and a factor of the prior mean is proportional to a product of three
    terms. The first is their prior probability. The second is the evidence of the rewards for the scale, computed with
    the factor at 0. The third is the likelihood of the factor divided by that of the factor 0, raised to `power`. With
    a power of 1 the probabilities of scale and factor are their exact posterior on the grid. With a smaller power they
    follow a rule, in which rewards count more for the scale than for the factor.

    Args:
        given: What rewards say for each of m scales.
        grid: (n,), possible values of the factor.
        log_prior: (n,), log prior probabilities of these values.
        power: Exponent of the factor's likelihood; below 1 rewards count less.
    """
    log_likelihood = grid * given.by_reward - 0.5 * np.square(grid) * given.by_factor[:, 0]
    log_weight = given.log_weight[:, None] + log_prior + power * log_likelihood
    on_grid = np.exp(log_weight - log_weight.max())
    on_grid /= on_grid.sum()
    share = on_grid.sum(axis=1)
    mean = on_grid @ grid / share
    doubt = (on_grid * np.square(grid - mean[:, None])).sum(axis=1) / share
    return Beliefs(given, combined(given, share, mean[:, None], doubt[:, None, None]), grid, on_grid)


def about_sources(given: GivenScale, prior: FactorPrior, power: float) -> Beliefs:
    """Beliefs where each source of the prior mean has a factor of its own.

    As in :func:`about_factor`, only the likelihood of the factors relative to that of 0 is raised to `power`.

    Args:
        given: What rewards say for each of m scales.
        prior: Prior distribution of the factors.
        power: Exponent of the factors' likelihood.
    """
    trusts = [prior.posterior(*moments, power) for moments in zip(given.by_reward, given.by_factor, strict=True)]
    log_weight = given.log_weight + [trust.log_evidence for trust in trusts]
    log_evidence = float(np.logaddexp.reduce(log_weight))
    share = np.exp(log_weight - log_evidence)
    mean, doubts, kept, dropped = (np.array(part) for part in zip(*(trust[:4] for trust in trusts), strict=True))
    coefficients = combined(given, share, mean, doubts)
    n = prior.n_sources
    spread = coefficients.covariance[:n, :n]
    trust = SourceTrust(coefficients.mean[:n], spread, share @ kept, share @ dropped, log_evidence)
    return Beliefs(given, coefficients, trust=trust)
