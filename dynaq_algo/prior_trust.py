"""Learns a factor for each of several sources of a prior mean. The factor says how far the source is trusted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynaq_algo.arguments import suggestion

__all__ = ["BLOCKS", "DEFAULT_WEIGHT", "MOST_SOURCES", "FactorPrior", "SourceTrust", "source_weights", "sources_of"]

Floats = NDArray[np.float64]

BLOCKS = "blocks"
"""The source that every observation has: the similarity of each block of state and action."""

DEFAULT_WEIGHT = 0.2
"""Weight of a source for which none is given, in rewards per standard deviation of the source."""

MOST_SOURCES = 4
"""Largest number of sources. S sources have 3^S combinations, see :class:`FactorPrior`."""


class SourceTrust(NamedTuple):
    """Posterior of the factors of S sources.

    Attributes:
        mean: (S,), means of the factors. A factor of 1 takes a source as it is, 0 ignores it, and below 0 reverses it.
        covariance: (S, S), of the factors.
        kept: (S,), probability that a factor is 1.
        dropped: (S,), probability that a factor is 0.
        log_evidence: Log of the likelihood's mean over the factors' prior distribution.
    """

    mean: Floats
    covariance: Floats
    kept: Floats
    dropped: Floats
    log_evidence: float


@dataclass(frozen=True)
class FactorPrior:
    """Prior distribution of the factors: each has, independently, a spike at 1, a spike at 0, and a slab.

    A source may be right (its factor is 1), may say nothing (0), or may have any other factor, also below 0 (the
    Gaussian slab). With S sources there are 3^S combinations. Within each combination the factors are Gaussian, so
    their posterior is exact.

    Args:
        n_sources: S, the number of sources.
        kept: Prior probability of the spike at 1.
        dropped: Prior probability of the spike at 0.
        centre: Mean of the slab.
        width: Standard deviation of the slab.

    Example:
        >>> FactorPrior(2).posterior(np.zeros(2), np.zeros((2, 2))).mean.round(3).tolist()
        [0.375, 0.375]
    """

    n_sources: int
    kept: float = 0.3
    dropped: float = 0.45
    centre: float = 0.3
    width: float = 0.7

    @cached_property
    def _combinations(self) -> tuple[Floats, Floats, Floats]:
        """For each combination: log probability (c,), and the factors' means and standard deviations, (c, S) each."""
        kinds = (
            (self.kept, 1.0, 0.0),
            (self.dropped, 0.0, 0.0),
            (1 - self.kept - self.dropped, self.centre, self.width),
        )
        chosen = np.array(list(itertools.product(kinds, repeat=self.n_sources)))
        return np.log(chosen[..., 0]).sum(axis=1), chosen[..., 1], chosen[..., 2]

    def posterior(self, by_reward: Floats, by_source: Floats, power: float = 1.0) -> SourceTrust:
        """Posterior of the factors f, given rewards whose likelihood is `exp(by_reward . f - f . by_source f / 2)`.

        Args:
            by_reward: (S,).
            by_source: (S, S), symmetric, no eigenvalue below 0.
            power: Exponent of the likelihood; below 1 the rewards count less.
        """
        log_weight, centre, width = self._combinations
        linear, square = power * by_reward, power * by_source
        slope = linear - centre @ square
        # f = centre + width u with u standard normal. This is exact even where a width is 0.
        pull = width * slope
        precision = np.eye(self.n_sources) + width[:, :, None] * square * width[:, None, :]
        covariance = np.linalg.inv(precision)
        mean = np.einsum("cij,cj->ci", covariance, pull)
        log_weight = log_weight + centre @ linear - 0.5 * np.einsum("ci,ij,cj->c", centre, square, centre)
        log_weight = log_weight + 0.5 * (pull * mean).sum(axis=1) - 0.5 * np.linalg.slogdet(precision)[1]
        log_evidence = float(np.logaddexp.reduce(log_weight))
        weight = np.exp(log_weight - log_evidence)
        factors = centre + width * mean
        overall = weight @ factors
        apart = factors - overall
        spread = np.einsum("c,cij->ij", weight, width[:, :, None] * covariance * width[:, None, :])
        spread += np.einsum("c,ci,cj->ij", weight, apart, apart)
        spike = width == 0
        kept = weight @ (spike & (centre == 1.0))
        return SourceTrust(overall, spread, kept, weight @ (spike & (centre == 0.0)), log_evidence)


def sources_of(prior_sources: Iterable[str] | Mapping[str, float]) -> dict[str, float]:
    """Names of sources with the weight of each, :data:`DEFAULT_WEIGHT` if none is given.

    Raises:
        ValueError: If there are no sources or too many, if one is named twice, or if a weight is 0 or not finite.
    """
    if isinstance(prior_sources, str):
        raise ValueError(f"`prior_sources` must be a sequence of names, e.g. [{prior_sources!r:.80}], got a text.")
    names = list(prior_sources)
    if not 1 <= len(names) <= MOST_SOURCES or len(set(names)) < len(names):
        raise ValueError(
            f"`prior_sources` must name 1 to {MOST_SOURCES} different sources, got {names}. For none leave it out."
        )
    given = prior_sources if isinstance(prior_sources, Mapping) else dict.fromkeys(names, DEFAULT_WEIGHT)
    weights = {name: float(weight) for name, weight in given.items()}
    if not all(np.isfinite(weight) and weight for weight in weights.values()):
        raise ValueError(
            f"`prior_sources` must give each source a finite weight other than 0, in rewards per standard deviation, "
            f"got {weights}. To ignore a source, leave it out."
        )
    return weights


def source_weights(
    sources: Mapping[str, float], n_blocks: int, n_cosines: int, n_pairs: int, pair_names: Sequence[str] | int | None
) -> tuple[Floats, NDArray[np.bool_]]:
    """The weights that define each source.

    Args:
        sources: Weight of each source by name, see :func:`sources_of`.
        n_blocks: How many similarities `"blocks"` has.
        n_cosines: How many similarities of vectors there are, those of the blocks first.
        n_pairs: p, how many columns the entry `pairs` has.
        pair_names: Names of these columns, (p,). If the environment names none: their number, or None.

    Returns:
        Weights (n_cosines + p, S), and which of the p columns are sources, bool (p,).

    Raises:
        ValueError: If a name is neither `"blocks"` nor the name of a column.
    """
    names = [] if pair_names is None or isinstance(pair_names, int) else list(pair_names)
    known = [BLOCKS, *names]
    weights = np.zeros((n_cosines + n_pairs, len(sources)))
    is_source = np.zeros(n_pairs, bool)
    for place, (name, weight) in enumerate(sources.items()):
        if name not in known:
            raise ValueError(
                f"`prior_sources` must name entries of {known}, got {name!r:.80}{suggestion(name, known)} "
                '"blocks" is always there. The others are columns of the observation\'s `pairs` that have a name. '
                'JobRec-v0 adds the columns that it is given, gym.make("JobRec-v0", prior_sources={name: ...}).'
            )
        if name == BLOCKS:
            weights[:n_blocks, place] = weight
        else:
            column = names.index(name)
            weights[n_cosines + column, place] = weight
            is_source[column] = True
    return weights, is_source
