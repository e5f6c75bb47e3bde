"""A Bayesian world model: an exact Gaussian process over (state, action) pairs, updated one answer at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from dynaq_algo.arguments import require_flag, require_number, require_whole, suggestion
from dynaq_algo.features import BlockwiseFeatures, DistinctPairs, prior_weights
from dynaq_algo.layout import pieces_of
from dynaq_algo.prior_beliefs import Beliefs, about_factor, about_sources, given_scales
from dynaq_algo.prior_trust import FactorPrior, SourceTrust, source_weights, sources_of
from dynaq_algo.updated_matrix import UpdatedMatrix

__all__ = ["DEFAULT_SCALES", "SCALES_WITH_SOURCES", "GaussianProcess"]

DEFAULT_SCALES: Mapping[str, float] = {
    "constant": 0.05,
    "similarity": 0.03,
    "pairs": 0.08,
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

SCALES_WITH_SOURCES: Mapping[str, float] = {"trust": 0.0, "similarity": 0.1}
"""The scales that have another default with `prior_sources`."""

_SAME = 1 - 1e-5
"""Two vectors are the same if their cosine is above this."""

_NEARLY_SAME = 1 - 1.1e-5
"""If the cosine of a new pair's vector and a known pair's vector is above this, the new pair takes the known vector. So
there are no near copies among the known vectors: two that are the same as a third are the same as each other. The
kernel needs this to be a covariance. This limit is below `_SAME` by more than the error of a cosine in single
precision, so both precisions find the same vectors to be the same."""

_NEAR = 1 - 6e-5
"""If two vectors each have a cosine above `_NEARLY_SAME` with a third, their own cosine is above this, also in single
precision."""

_PIECE = 4_096
"""Pairs that are predicted at a time. This bounds the memory of their covariances with the known pairs."""

_SMALL_NOISE = 0.1
"""Below this noise predictions are computed in double precision, and the posterior anew now and then. A prediction is a
sum of large terms that nearly cancel, the larger the smaller the noise, so rounding errors would show in it."""

_MANY = 512
"""With at least this many candidates the mean rewards of all states are computed together, see
:meth:`GaussianProcess._means_of_all`. With fewer there is little to gain."""

_MOST_FITTED = 400
"""Scales are fitted to this many of the latest pairs. A fit costs the third power of their number."""

_SOLVED_EVERY = 100
"""With a noise below `_SMALL_NOISE` the posterior is computed anew after so many calls of `observe`."""

_SCALE_DOUBT = 10
"""When the trust in sources is computed, the belief that the scales are right counts as much as this many pairs."""

_GOLDEN = (5**0.5 - 1) / 2
"""The multiples of this number, modulo 1, fill the interval from 0 to 1 evenly, however many are taken."""

_FIT_SPREAD = 0.5
"""Prior standard deviation of the logarithm of a scale when scales are fitted."""

_LEAST_NOISE = 1 / 15
"""The fitted noise is at least this share of the given one. Many rewards that are all equal would else bring the
fitted noise near 0, and predictions would then be rounding errors."""


class _Parts(NamedTuple):
    """The parts of n pairs that the kernel compares.

    Attributes:
        state: (n, shared_dim), centred, at unit length; or (n / k, shared_dim), one state for each k pairs in a row.
        action: (n, shared_dim), actions in the same form.
        similarities: (n, n_cosines), in standard deviations.
        pairs: (n, p), standardised, or residuals; without those that are sources of the prior mean.
        prior: (n,), prior mean of the reward; with S sources (n, S), the term of each source.
    """

    state: th.Tensor
    action: th.Tensor
    similarities: th.Tensor
    pairs: th.Tensor
    prior: th.Tensor

    def to(self, dtype: th.dtype) -> _Parts:
        """The same parts in another precision."""
        return _Parts(*(part.to(dtype) for part in self))

    def one_by_one(self) -> _Parts:
        """The same parts with a state for each pair."""
        return self._replace(state=_for_each(self.state, len(self.action)))

    def take(self, rows: slice | th.Tensor) -> _Parts:
        """The parts of some pairs; each pair must have its own state."""
        return _Parts(*(part[rows] for part in self))


class GaussianProcess(nn.Module):
    """Predicts the reward of an action and the spread of the prediction, which is smaller near pairs that were tried.

    A reward is the sum of independent parts, each Gaussian with a prior standard deviation of its own (`scales`):

    * `constant`: one number for all pairs;
    * `similarity`: linear in the similarities of state and action, with prior mean `prior`;
    * `pairs`: linear in the numbers `pairs` of an observation, with prior mean `prior`;
    * `trust`: the prior mean times an unknown number. With a standard deviation of 1 the whole prior is doubted,
      including its sign;
    * `action`, `state`: linear in the action, in the state (kernels a.a' and s.s');
    * `bilinear`: tastes, a matrix of any rank between state and action (kernel (s.s')(a.a'));
    * `quadratic`: like `bilinear`, for products of two entries of the state and two of the action (kernel
      ((s.s')(a.a'))^2);
    * `same_state`, `same_action`, `same_pair`: an effect of this single state, action or pair.

    Here s and a are the entries that state and action share, after the mean action is subtracted, scaled to unit
    length. A vector whose cosine with a vector of a known pair is above 0.99999 (0.999989 where a pair is learned)
    counts as that vector. Earned rewards are the sum of all parts and of noise with standard deviation `noise`. The
    posterior is exact (Rasmussen and Williams, 2006, section 2.2). It is kept as the inverse of the covariance of n
    distinct pairs, so a reward costs O(n^2). An update of rank one adds a new pair, adds a reward to a known pair (the
    rewards of a pair are averaged), or forgets a pair. Of more than `max_pairs` pairs those are forgotten that were
    first seen longest ago, however often they were answered since. The inverse is computed from scratch only if the
    scale of the features changes, if `fit_scales` changes the scales of the parts, and now and then where `noise` is
    below 0.1.

    With `spike_slab` the whole prior mean is multiplied by a factor that is learned. The factor's own prior is a spike
    and two uniform slabs (Mitchell and Beauchamp, 1988). The spike is at 1, where the prior mean is right. One slab is
    from 0 to 2. The other is from -1.5 to 0, where the opposite of the prior mean is true. The factor's posterior is
    exact on a grid. The likelihood is raised to the power of one half, so that a few unlucky answers do not reverse the
    factor. If rewards vary more than `noise` says, the power is smaller: `noise` squared over twice the variance of the
    rewards. The factor's variance is part of the spread. Exploration acts on a factor that is drawn from its posterior,
    see :meth:`explore`.

    With `learn_pair_scale` the scale of the weights of `pairs` is learned. It is one of three multiples of
    `scales["pairs"]` (:data:`~dynaq_algo.prior_beliefs.MULTIPLES`), the same for all columns. The probability of a
    scale and a factor of the prior mean is proportional to a product of three terms. The first is their prior
    probability. The second is the evidence of the rewards for the scale, computed with the factor at 0. The third is
    the likelihood of the factor divided by that of the factor 0, raised to the same power as with `spike_slab`. A power
    of 1 would give scale and factor their exact joint posterior. With a smaller power their probabilities are not
    exact: they follow a rule, in which rewards count more for the scale than for the factor. For a given scale and
    factor the weights have their exact posterior. The first answers thus move the weights little, and numbers that say
    much can have large weights later.

    With `residual_pairs` the part `pairs` is linear in the residuals of the numbers: in what a regression on the
    similarities leaves of them, see :meth:`~dynaq_algo.features.BlockwiseFeatures.residuals`. `prior` says what a
    similarity is worth as long as nothing else is known. It does not say what a similarity is worth beside numbers that
    tell the same more exactly. With residuals a similarity counts less as soon as a number that correlates with it
    gains weight. Without residuals the model counts twice what similarities and numbers share. A number that has a
    weight other than 0 in `prior` is not replaced by its residual, because `prior` then says what the number is worth
    beside the similarities. Sources of the prior that are columns of `pairs` do not take part in the regression.

    With `prior_sources` the prior mean is a sum of sources. Each source has a factor of its own, see
    :class:`~dynaq_algo.prior_trust.FactorPrior`, which is learned from rewards too. A wrong source can thus be dropped
    while a right one is kept. If sources and `pairs` explain the answers well, the answers count more for the factors.
    The measure is the part of the answers that sources and `pairs` leave unexplained: the smaller it is, compared with
    what scales and noise expect, the more the answers count. With `prior_sources`, `prior` and `spike_slab` are not
    used, and two scales have other defaults. `trust` is 0, because each source has its own doubt. `similarity` is 0.1,
    because no `prior` says how much similarities count. If this scale were small, a source that is only partly right
    would get the credit for what the similarities explain. A column of `pairs` that is a source is used in the prior
    mean only, not in the part `pairs`.

    There is no optimiser: one call of :meth:`observe` learns a transition.

    Args:
        features: `"blockwise"`; shared with the Q-network.
        prior: Prior mean of the weight of each similarity, and optionally of each number of `pairs`; None for 0.
        scales: Scales that replace those in :data:`DEFAULT_SCALES` and, with `prior_sources`, in
            :data:`SCALES_WITH_SOURCES`; 0 leaves a part out.
        noise: Standard deviation of a reward around its mean, above 0.
        max_pairs: How many distinct pairs are kept.
        spike_slab: Whether the factor of the prior mean is learned. Use it with `trust` 0, because `trust` is another
            doubt of the prior.
        spike: Prior probability that the factor is 1. It must be above 0.
        contrary: Prior probability that the factor is below 0. It must be above 0, and its sum with `spike` below 1.
        draw_factor: Whether exploration acts on a drawn factor; False for the expected one.
        learn_pair_scale: Whether the scale of `pairs` is learned.
        residual_pairs: Whether the part `pairs` is linear in residuals, in place of the numbers themselves.
        fit_scales: Whether scales and noise are fitted to the rewards: at 20 pairs, and each time the number of
            pairs has doubled. Scales and noise are set to the maximum of their posterior, with a log-normal prior
            around the given scales. A scale of 0 stays 0, and the noise is at least a fifteenth of the given one.
        prior_sources: Terms whose sum is the prior mean: `"blocks"`, and columns of `pairs` by name, with the weight of
            each in rewards per standard deviation. A sequence of names gives each the weight 0.2. With None, `prior` is
            used.
        pair_names: Names of the columns of `pairs`, (p,). They are needed if a column is a source.

    Raises:
        ValueError: If a number is out of range, a part is unknown, or the features are not blockwise.

    Example:
        >>> from dynaq_algo.features import BlockwiseFeatures
        >>> model = GaussianProcess(BlockwiseFeatures(4, 4), prior=[0.1, 0.1])
        >>> model.observe(th.rand(3, 4), th.rand(3, 4), None, th.ones(3))
        >>> mean, spread = model.score(th.rand(32, 4), th.rand(32, 20, 4))
        >>> mean.shape, spread.shape
        (torch.Size([32, 20]), torch.Size([32, 20]))
    """

    optimizer: th.optim.Optimizer | None = None
    knows_transitions = False
    prior: th.Tensor
    _slots: dict[bytes, int]  # the place of each known pair, in the order in which they were first seen
    _raw: th.Tensor
    _known: _Parts
    _known_single: _Parts
    _totals: th.Tensor
    _counts: th.Tensor
    _alpha: th.Tensor  # (n, 1 + t): the inverse times mean rewards, and times each of t terms
    _inverse: UpdatedMatrix
    _n_told: int  # calls of `observe` so far
    _beliefs: Beliefs | None  # None: not computed since the last reward
    _fit_due: int
    _features_version: int  # the version of the features with which the known pairs were computed
    _has_near: bool  # whether the states or actions of two known pairs are near to each other, and not equal

    def __init__(
        self,
        features: BlockwiseFeatures,
        prior: Sequence[float] | None = None,
        scales: Mapping[str, float] | None = None,
        noise: float = 0.3,
        max_pairs: int = 2_000,
        spike_slab: bool = False,
        spike: float = 0.3,
        contrary: float = 0.07,
        draw_factor: bool = True,
        learn_pair_scale: bool = False,
        residual_pairs: bool = False,
        fit_scales: bool = False,
        prior_sources: Sequence[str] | Mapping[str, float] | None = None,
        pair_names: Sequence[str] | int | None = None,
    ):
        super().__init__()
        if not isinstance(features, BlockwiseFeatures):
            raise ValueError(f'`features` must be "blockwise" for a Gaussian process, got {type(features).__name__}.')
        if not (scales is None or isinstance(scales, Mapping)):
            raise ValueError(f"`scales` must be a dictionary of parts of {tuple(DEFAULT_SCALES)}, got {scales!r:.80}.")
        if unknown := sorted(set(scales or ()) - set(DEFAULT_SCALES)):
            raise ValueError(
                f"`scales` must name parts of {tuple(DEFAULT_SCALES)}, got {unknown}"
                f"{suggestion(unknown[0], DEFAULT_SCALES)}"
            )
        with_sources = {} if prior_sources is None else SCALES_WITH_SOURCES
        every = {**DEFAULT_SCALES, **with_sources, **(scales or {})}
        self.scales = {part: require_number(f"scales[{part!r}]", scale) for part, scale in every.items()}
        if min(self.scales.values()) < 0:
            raise ValueError(f"`scales` must be finite numbers of 0 or more, got {self.scales}.")
        if require_number("noise", noise) <= 0:
            raise ValueError(f"`noise` must be above 0 and finite, got {noise}.")
        for name, probability in (("spike", spike), ("contrary", contrary)):
            require_number(name, probability)
        if not (spike > 0 and contrary > 0 and spike + contrary < 1):
            raise ValueError(
                "`spike` and `contrary` must be probabilities above 0 whose sum is less than 1, "
                f"got {spike} and {contrary}."
            )
        self.features = features
        self.noise = float(noise)
        self.max_pairs = require_whole("max_pairs", max_pairs, 1)
        self.spike_slab = require_flag("spike_slab", spike_slab)
        self.draw_factor = require_flag("draw_factor", draw_factor)
        self.learn_pair_scale = require_flag("learn_pair_scale", learn_pair_scale)
        self.residual_pairs = require_flag("residual_pairs", residual_pairs)
        self.fit_scales = require_flag("fit_scales", fit_scales)
        if self.fit_scales and not any(self._variances().values()):
            raise ValueError(
                "`scales` must leave a part above 0 where `fit_scales` is True, since a scale of 0 is not fitted, and "
                f"neither is that of `pairs` with `learn_pair_scale`, got {self.scales}. Give another part a scale, or "
                "say `fit_scales=False`."
            )
        self._expected = dict(self.scales), self.noise
        self.sources = None if prior_sources is None else tuple(sources_of(prior_sources))
        self._compared: th.Tensor | None = None  # the columns of `pairs` that the kernel compares; None for all
        if prior_sources is None:
            weights = prior_weights([0.0] * features.n_similarities if prior is None else prior, features)
        else:
            given, is_source = source_weights(
                sources_of(prior_sources), features.n_blocks, features.n_cosines, features.n_pairs, pair_names
            )
            weights = th.as_tensor(given, dtype=th.float32)
            self._compared = th.as_tensor(np.flatnonzero(~is_source))
            self._factor_prior = FactorPrior(len(given.T))
        self.register_buffer("prior", weights, persistent=False)
        features.uses_residuals |= self.residual_pairs
        of_pairs = weights[features.n_cosines :]
        self._has_prior = (
            of_pairs != 0 if of_pairs.ndim == 1 else of_pairs.any(dim=1)
        )  # of each number of `pairs`, (p,)
        grid = np.arange(-30, 41) / 20 if spike_slab else np.ones(1)  # -1.5 to 2
        below = grid < 0
        slabs = np.where(below, contrary / max(1, below.sum()), (1 - spike - contrary) / (~below).sum())
        self._factors = grid, np.log(slabs + spike * (grid == 1))
        self._forget_all()

    @property
    def n_pairs(self) -> int:
        """How many distinct pairs the model knows."""
        return len(self._slots)

    def trust(self) -> SourceTrust:
        """Posterior of the factors of the sources, in the order of :attr:`sources`.

        Raises:
            ValueError: If there are no `prior_sources`; use :meth:`factor` then.
        """
        trust = self._believed().trust
        if trust is None:
            raise ValueError(
                "`trust()` needs `prior_sources`; without them `factor()` gives the factor of the one prior."
            )
        return trust

    def factor(self) -> tuple[float, float]:
        """Posterior mean and standard deviation of the factor of the prior mean; 1 and 0 without `spike_slab`."""
        if not self.spike_slab:
            return 1.0, 0.0
        coefficients = self._believed().coefficients
        return float(coefficients.mean[0]), float(coefficients.covariance[0, 0] ** 0.5)

    def drawn_factor(self) -> float:
        """A factor of the prior mean, drawn from its posterior; another one after each call of :meth:`observe`.

        The factor is the posterior's quantile at a level that moves by the golden ratio, modulo 1, with each call. The
        draws are thus spread as evenly as possible, however many rewards a call has, and are the same when a run
        continues from a checkpoint. Without `draw_factor` it is the posterior mean, and without `spike_slab` it is 1.
        """
        if not self._draws:
            return self.factor()[0]
        level = _GOLDEN * (self._n_told + 1) % 1.0
        return self._believed().quantile(level)

    @property
    def _draws(self) -> bool:
        """Whether exploration acts on a drawn factor; the factors of sources are not drawn."""
        return self.spike_slab and self.draw_factor and self.sources is None

    def _believed(self) -> Beliefs:
        """What the rewards say about factors and weights."""
        if self._beliefs is None:
            known = self._counts[: self._n_used] > 0
            rewards = (self._totals[: self._n_used] / self._counts[: self._n_used])[known]
            terms = self._terms(self._known.prior, self._known.pairs)[: self._n_used] * known.unsqueeze(1)
            moments = (terms.T @ self._alpha[: self._n_used]).cpu().numpy()
            by_reward, by_term = moments[:, 0], (moments[:, 1:] + moments[:, 1:].T) / 2
            n_factors = 1 if self.sources is None else len(self.sources)
            given = given_scales(by_reward, by_term, n_factors, self.scales["pairs"])
            if self.sources is None:
                # Without `spike_slab` the factor is known to be 1, so its likelihood needs no smaller power.
                power = self._tempered(rewards) if self.spike_slab else 1.0
                self._beliefs = about_factor(given, *self._factors, power)
            else:
                squares = float(rewards @ self._alpha[: self._n_used, 0][known])
                power = self._sharpened(len(rewards), squares, by_reward, by_term)
                self._beliefs = about_sources(given, self._factor_prior, power)
        return self._beliefs

    def _tempered(self, rewards: th.Tensor) -> float:
        """The exponent of the factor's likelihood, from the mean rewards (n,) of the known pairs."""
        if len(rewards) < 2:
            return 0.5
        return 0.5 * min(1.0, self.noise**2 / max(float(rewards.var()), 1e-12))

    @staticmethod
    def _sharpened(n_pairs: int, squares: float, by_reward: NDArray[np.float64], by_term: NDArray[np.float64]) -> float:
        """The exponent of the likelihood of the sources' factors.

        Args:
            n_pairs: How many pairs are known.
            squares: Squared norm of their mean rewards, in units of the covariance.
            by_reward: (t,), the moments of all terms with the rewards, in the same units.
            by_term: (t, t), the terms' moments with each other.
        """
        # The part of `squares` that the best-fitting coefficients do not explain.
        left = squares - float(by_reward @ np.linalg.solve(by_term + np.eye(len(by_term)), by_reward))
        return (n_pairs + _SCALE_DOUBT) / (left + _SCALE_DOUBT)

    # ------------------------------------------------------------------ prediction

    def forward(self, inputs: th.Tensor, with_spread: bool = True) -> tuple[th.Tensor, th.Tensor]:
        """Inputs (..., output_dim) of pairs -> posterior mean and standard deviation of the reward, (...) each.

        Without `with_spread` the standard deviation is not computed, and 0 is returned for it.
        """
        self._refresh()
        pieces = inputs.reshape(-1, inputs.shape[-1]).split(_PIECE)
        found = [self._posterior(self._parts_of_inputs(rows), with_spread) for rows in pieces]
        mean, spread = (th.cat(part) for part in zip(*found, strict=True))
        return mean.view(inputs.shape[:-1]), spread.view(inputs.shape[:-1])

    def score(
        self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None = None, with_spread: bool = True
    ) -> tuple[th.Tensor, th.Tensor]:
        """States (n, d_s), candidates (n, k, d_a), pairs (n, k, p) -> mean and spread of the rewards, (n, k) each."""
        return self._scored(state, candidates, pairs, with_spread, None)

    def explore(
        self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None = None, bonus: float = 1.0
    ) -> th.Tensor:
        """Values (n, k) of candidates for exploration: mean rewards plus `bonus` times their spreads.

        With `spike_slab` and `draw_factor` the mean is computed with a drawn factor (:meth:`drawn_factor`). The agent
        thus acts on the reversed prior as often as a negative factor is likely (Thompson, "On the likelihood that one
        unknown probability exceeds another", Biometrika 1933). With the expected factor the agent would never act on
        the reversed prior while the expected factor is above 0. It would choose only candidates with a high prior mean,
        and learn little about the other candidates.

        Args:
            state: (n, d_s).
            candidates: (n, k, d_a).
            pairs: (n, k, p); None if observations have none.
            bonus: Multiple of the spread; 0 for expected rewards.
        """
        drawn = self.drawn_factor() if self._draws and bonus else None
        mean, spread = self._scored(state, candidates, pairs, bonus > 0, drawn)
        return mean + bonus * spread if bonus else mean

    def _scored(
        self,
        state: th.Tensor,
        candidates: th.Tensor,
        pairs: th.Tensor | None,
        with_spread: bool,
        factor: float | None,
    ) -> tuple[th.Tensor, th.Tensor]:
        """Like :meth:`score`, but with this factor of the prior mean; None for the expected one."""
        self._refresh()
        n, k = candidates.shape[:2]
        if factor is None and not with_spread and k >= _MANY and (n == 1 or candidates.stride(0) == 0):
            precision = th.float64 if self.noise < _SMALL_NOISE else state.dtype
            numbers = None if pairs is None else pairs.to(precision)
            mean = self._means_of_all(state.to(precision), candidates[0].to(precision), numbers).to(state.dtype)
            return mean, th.zeros_like(mean)
        found = []
        for rows, columns in pieces_of(n, k, _PIECE):
            numbers = None if pairs is None else pairs[rows, columns]
            parts = self._parts(state[rows], candidates[rows, columns], numbers)
            found.append(self._posterior(parts, with_spread, factor))
        mean, spread = (th.cat(part).view(n, k) for part in zip(*found, strict=True))
        return mean, spread

    def _means_of_all(self, state: th.Tensor, action: th.Tensor, pairs: th.Tensor | None) -> th.Tensor:
        """Mean rewards (n, k) of the same actions (k, d_a) in states (n, d_s), with numbers (n, k, p) of pairs.

        A covariance with a known pair is linear in the scalar product of the two actions, in its square, and in whether
        the actions are the same. These three are computed once for all states, and :meth:`_kernel` is not needed.
        """
        features, variance = self.features, self._variances()
        known, alpha = self._used(state.dtype), self._alpha[: self._n_used].to(state.dtype)
        s, a = features.shared(state, action)
        similarities = features.of_all(s, a)
        scaled = similarities[..., :0] if pairs is None else features.scaled(pairs)
        prior = th.cat([similarities, scaled], dim=-1) @ self.prior.to(state.dtype)
        own = self._own(similarities, scaled)
        theirs = [
            variance["similarity"] * known.similarities,
            variance["pairs"] * known.pairs,
            variance["trust"] * self._columns(known.prior),
        ]
        found = th.cat([similarities, own, self._columns(prior)], dim=-1) @ (th.cat(theirs, dim=1).T @ alpha)

        unit_s, unit_a = self._units(s, a)
        states = unit_s @ known.state.T
        same_state = (states > _SAME).to(states.dtype)
        of_state = variance["constant"] + variance["same_state"] * same_state + variance["state"] * states
        found += (of_state @ alpha).unsqueeze(1)

        def weights(of_states: th.Tensor) -> th.Tensor:
            """Factors (n, m) of n states and m known pairs -> (m, n (1 + t)), to be multiplied by (k, m) of actions."""
            return (of_states.T.unsqueeze(-1) * alpha.unsqueeze(1)).flatten(1)

        by_product = weights(variance["action"] + variance["bilinear"] * states)
        by_square = weights(variance["quadratic"] * states.square())
        by_same = weights(variance["same_action"] + variance["same_pair"] * same_state)
        for rows in (slice(start, start + _PIECE) for start in range(0, len(unit_a), _PIECE)):
            products = unit_a[rows] @ known.action.T
            total = (products > _SAME).to(products.dtype) @ by_same
            total.addmm_(products, by_product).addmm_(products.square_(), by_square)
            found[:, rows] += total.unflatten(1, (-1, alpha.shape[1])).transpose(0, 1)
        return self._corrected(self._terms(prior, own), found)[0]

    def of_pairs(self, pairs: DistinctPairs) -> th.Tensor:
        """Mean reward of pairs, (n,) or (n, k)."""
        return self(self.features.of_pairs(pairs), with_spread=False)[0]

    def joint(
        self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None = None
    ) -> tuple[th.Tensor, th.Tensor]:
        """Posterior mean (k,) and covariance (k, k), float64, of one decision: (d_s,), (k, d_a), (k, p)."""
        self._refresh()
        numbers = None if pairs is None else pairs.unsqueeze(0)
        parts = self._parts(state.unsqueeze(0), candidates.unsqueeze(0), numbers).to(th.float64)
        known = self._kernel(parts, self._used(th.float64))
        mean, left = self._mean(parts, known)
        explained = self._inverse.times(known) @ known.T
        covariance = self._kernel(parts, parts.one_by_one()) - explained
        doubts = th.as_tensor(self._believed().coefficients.covariance, device=left.device)
        return mean, covariance + left @ doubts @ left.T

    def _posterior(self, parts: _Parts, with_spread: bool, factor: float | None = None) -> tuple[th.Tensor, th.Tensor]:
        """Mean and standard deviation (n,) of the expected reward of pairs. `factor` is that of the prior mean."""
        precision = parts.prior.dtype
        if self.noise < _SMALL_NOISE:
            parts = parts.to(th.float64)
        cross = self._kernel(parts, self._used(parts.prior.dtype))
        mean, left = self._mean(parts, cross)
        if factor is not None:
            beliefs = self._believed()
            moved = beliefs.given_factor(factor) - beliefs.coefficients.mean
            mean = mean + left @ th.as_tensor(moved, dtype=left.dtype, device=left.device)
        mean = mean.to(precision)
        if not with_spread:
            return mean, th.zeros_like(mean)
        variance = self._variance(parts)
        if self.n_pairs:
            variance = variance - self._inverse.quadratic(cross.double()).to(variance.dtype)
        doubts = th.as_tensor(self._believed().coefficients.covariance, dtype=left.dtype, device=left.device)
        variance = variance + ((left @ doubts) * left).sum(dim=1)
        return mean, variance.clamp_min(0.0).sqrt().to(precision)

    def _mean(self, parts: _Parts, cross: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Mean reward (n,) of pairs, and its derivatives by the coefficients of the terms, (n, t).

        `cross` (n, m) are the covariances of the pairs with the known ones. A derivative is the term minus the part of
        it that is already known.
        """
        terms = self._terms(parts.prior, parts.pairs)
        return self._corrected(terms, cross @ self._alpha[: self._n_used].to(cross.dtype))

    def _corrected(self, terms: th.Tensor, found: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Like :meth:`_mean`, from terms (..., t), and covariances times `alpha` (..., 1 + t)."""
        left = terms - found[..., 1:]
        expected = self._believed().coefficients.mean
        return found[..., 0] + left @ th.as_tensor(expected, dtype=left.dtype, device=left.device), left

    def _variances(self) -> dict[str, float]:
        """Prior variance of each part of the kernel. If `pairs` are terms, they are no part of the kernel."""
        variances = {part: scale**2 for part, scale in self.scales.items()}
        return variances | {"pairs": 0.0} if self.learn_pair_scale else variances

    def _terms(self, prior: th.Tensor, pairs: th.Tensor) -> th.Tensor:
        """The terms (..., t) whose coefficients are learned beside the kernel: prior means, and perhaps `pairs`."""
        columns = self._columns(prior)
        return th.cat([columns, pairs], dim=-1) if self.learn_pair_scale else columns

    def _columns(self, prior: th.Tensor) -> th.Tensor:
        """Prior means as columns (..., S); one column without sources."""
        return prior.unsqueeze(-1) if self.sources is None else prior

    def _own(self, similarities: th.Tensor, scaled: th.Tensor) -> th.Tensor:
        """What the kernel compares of numbers (..., p), given the similarities (..., n_cosines) of the same pairs."""
        if self.residual_pairs and scaled.shape[-1]:
            scaled = self.features.residuals(similarities, scaled, self._has_prior)
        return scaled if self._compared is None else scaled[..., self._compared.to(scaled.device)]

    # ------------------------------------------------------------------ learning

    def observe(self, state: th.Tensor, action: th.Tensor, pairs: th.Tensor | None, reward: th.Tensor) -> None:
        """Update the posterior by n transitions. Each transition must be given only once.

        Args:
            state: (n, d_s).
            action: (n, d_a), the chosen actions.
            pairs: (n, p) of the chosen pairs; None if observations have none.
            reward: (n,), the earned rewards.
        """
        self._refresh()
        self._n_told += 1
        for i, value in enumerate(reward.tolist()):
            self._learn(state[i], action[i], None if pairs is None else pairs[i], value)
        if self.noise < _SMALL_NOISE and self._n_told % _SOLVED_EVERY == 0:
            self._solve()
        if self.fit_scales and self.n_pairs >= self._fit_due:
            self._fit_due = 2 * self.n_pairs
            self._fit()

    def update(
        self, inputs: th.Tensor, reward: th.Tensor, serial: np.ndarray, weight: th.Tensor | None = None
    ) -> th.Tensor:
        """Mean squared error on inputs (n, output_dim) and rewards (n,). Only :meth:`observe` learns."""
        with th.no_grad():
            return (self(inputs, with_spread=False)[0] - reward).square().mean()

    def _learn(self, state: th.Tensor, action: th.Tensor, pairs: th.Tensor | None, reward: float) -> None:
        raw = th.cat([*self.features.shared(state, action), *([] if pairs is None else [pairs])]).float()
        key = raw.cpu().numpy().tobytes()
        self._beliefs = None
        slot = self._slots.get(key)
        if slot is not None:  # another reward of a known pair makes the mean of its rewards more certain
            total, count = self._totals[slot].item() + reward, self._counts[slot].item() + 1
            moved = total / count - self._totals[slot].item() / self._counts[slot].item()
            steadier = self.noise**2 * (1 / count - 1 / self._counts[slot].item())
            self._totals[slot], self._counts[slot] = total, count
            column = self._inverse.column(slot)
            self._alpha[: self._n_used, 0] += column * moved
            self._move(column, -steadier / (1 + steadier * column[slot]), self._alpha[slot])
            return
        if len(self._slots) == self.max_pairs:
            slot = self._forget()
        else:
            slot = self._n_used
            self._grow()
        self._slots[key] = slot
        self._raw[slot] = raw
        self._put(slot, self._n_used)
        parts = self._known.take(slice(slot, slot + 1))
        covariance = self._kernel(parts, self._used(th.float64))[0]
        # The pair's own place adds nothing, because the inverse is 0 there.
        column = self._inverse.times(covariance)
        left = float(self._variance(parts)) + self.noise**2 - covariance @ column
        column[slot] = -1.0
        new = th.cat([self._totals.new_tensor([reward]), self._terms(parts.prior, parts.pairs)[0]])
        self._totals[slot], self._counts[slot] = reward, 1.0
        self._move(column, 1 / left, covariance @ self._alpha[: self._n_used] - new)

    def _move(self, column: th.Tensor, size: th.Tensor, step: th.Tensor) -> None:
        """Make an update of rank one: add `size` times the column's outer product to the inverse, and adapt `alpha`."""
        self._alpha[: self._n_used] += th.outer(column, size * step)
        self._inverse.add(column, size)

    def _forget(self) -> int:
        """Forget the pair that was seen first; returns its place."""
        key = next(iter(self._slots))
        slot = self._slots.pop(key)
        column = self._inverse.column(slot)
        self._move(column, -1 / column[slot], self._alpha[slot].clone())
        # The pair's row and column are set to exactly 0, so that rounding leaves nothing of the pair.
        self._inverse.clear(slot)
        self._alpha[slot] = self._counts[slot] = self._totals[slot] = 0.0
        return slot

    def _refresh(self) -> None:
        """Follow `prior` to another device, and compute the posterior again if the features have another scale."""
        if self._totals.device != self.prior.device:
            self.set_extra_state(self.get_extra_state())
        if self._features_version != self.features.version:
            self._features_version = self.features.version
            self._put_all()
            self._solve()

    def _solve(self) -> None:
        """Compute the posterior from all known pairs, not from the previous posterior."""
        self._beliefs = None
        rows = th.as_tensor(sorted(self._slots.values()), dtype=th.int64, device=self.prior.device)
        self._alpha.zero_()
        if not len(rows):
            self._inverse.put(rows, self._totals.new_zeros(0, 0))
            return
        parts = self._known.take(rows)
        covariance = self._kernel(parts, parts) + th.diag(self.noise**2 / self._counts[rows])
        inverse = th.cholesky_inverse(th.linalg.cholesky(covariance))
        self._inverse.put(rows, inverse)
        values = th.cat(
            [(self._totals[rows] / self._counts[rows]).unsqueeze(1), self._terms(parts.prior, parts.pairs)], dim=1
        )
        self._alpha[rows] = inverse @ values

    def _fit(self) -> None:
        """Set scales and noise to their posterior maximum, given the latest pairs and the factor of the prior."""
        rows = th.as_tensor(list(self._slots.values())[-_MOST_FITTED:], device=self.prior.device)
        parts = self._known.take(rows)
        kernels = {name: kernel for name, kernel in self._kernels(parts, parts).items() if self._variances()[name]}
        counts = self._counts[rows]
        coefficients = th.as_tensor(self._believed().coefficients.mean, device=parts.prior.device)
        expected_reward = self._terms(parts.prior, parts.pairs) @ coefficients
        surprise = self._totals[rows] / counts - expected_reward
        expected, noise = self._expected
        centre = th.tensor(
            [*(expected[name] for name in kernels), noise], dtype=th.float64, device=surprise.device
        ).log()
        offset = th.zeros_like(centre, requires_grad=True)
        stacked = th.stack(list(kernels.values()))
        least = _LEAST_NOISE * noise

        def density() -> th.Tensor:
            variances = (2 * (centre + offset)).exp()
            # At a trial point scales can be so large that rounding would hide the noise.
            of_noise = th.maximum(variances[-1].clamp_min(least**2), 1e-9 * variances.sum())
            covariance = th.einsum("i,inm->nm", variances[:-1], stacked) + th.diag(of_noise / counts)
            cholesky = th.linalg.cholesky(covariance)
            solved = th.linalg.solve_triangular(cholesky, surprise.unsqueeze(1), upper=False)
            loss = 0.5 * solved.square().sum() + cholesky.diagonal().log().sum()
            return loss + 0.5 * (offset / _FIT_SPREAD).square().sum()

        _minimise(density, offset)
        *scales, fitted = (centre + offset).detach().exp().tolist()
        self.noise = max(fitted, least)
        self.scales |= dict(zip(kernels, scales, strict=True))
        self._solve()

    # ------------------------------------------------------------------ kernel

    def _parts(self, state: th.Tensor, action: th.Tensor, pairs: th.Tensor | None) -> _Parts:
        """Parts of n decisions: states (n, d_s), candidates (n, k, d_a) and numbers (n, k, p)."""
        features = self.features
        s, a = features.shared(state, action)
        unit = self._units(s, a)
        similarities = features.of_blocks(s.unsqueeze(1), a).flatten(0, 1)
        scaled = similarities[:, :0] if pairs is None else features.scaled(pairs).flatten(0, 1)
        prior = th.cat([similarities, scaled], dim=1) @ self.prior
        return _Parts(unit[0], unit[1].flatten(0, 1), similarities, self._own(similarities, scaled), prior)

    def _parts_of_inputs(self, inputs: th.Tensor) -> _Parts:
        """Parts of pairs, from inputs (n, output_dim)."""
        features = self.features
        state, action = inputs[:, : features.state_dim], inputs[:, features.state_dim :][:, : features.action_dim]
        unit = self._units(*features.shared(state, action))
        linear = inputs[:, -features.n_similarities :]
        similarities, scaled = linear.split([features.n_cosines, features.n_pairs], dim=1)
        return _Parts(unit[0], unit[1], similarities, self._own(similarities, scaled), linear @ self.prior)

    def _units(self, state: th.Tensor, action: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """States and actions (..., shared_dim) at unit length. Known pairs' vectors replace nearly equal ones."""
        units = (F.normalize(self.features.centred(vectors), dim=-1) for vectors in (state, action))
        if not self._has_near:
            return next(units), next(units)
        known = self._used(state.dtype)
        return _nearest(next(units), known.state), _nearest(next(units), known.action)

    def _kernels(self, left: _Parts, right: _Parts) -> dict[str, th.Tensor]:
        """Prior covariance (n, m) of each part of a reward by its name, for a scale of 1."""
        states, actions = _for_each(left.state @ right.state.T, len(left.action)), left.action @ right.action.T
        product = states * actions
        same_state, same_action = states > _SAME, actions > _SAME
        return {
            "constant": th.ones_like(product),
            "similarity": left.similarities @ right.similarities.T,
            "pairs": left.pairs @ right.pairs.T,
            "trust": self._columns(left.prior) @ self._columns(right.prior).T,
            "action": actions,
            "state": states,
            "bilinear": product,
            "quadratic": product.square(),
            "same_state": same_state.to(product.dtype),
            "same_action": same_action.to(product.dtype),
            "same_pair": (same_state & same_action).to(product.dtype),
        }

    def _kernel(self, left: _Parts, right: _Parts) -> th.Tensor:
        """Prior covariance (n, m) of pairs: the sum of :meth:`_kernels`, in fewer steps."""
        variance = self._variances()
        states, actions = _for_each(left.state @ right.state.T, len(left.action)), left.action @ right.action.T
        linear = [
            (variance["similarity"], left.similarities, right.similarities),
            (variance["pairs"], left.pairs, right.pairs),
            (variance["trust"], self._columns(left.prior), self._columns(right.prior)),
        ]
        ours = th.cat([size * part for size, part, _ in linear], dim=1)
        total = th.addmm(
            th.full((), variance["constant"], dtype=ours.dtype, device=ours.device),
            ours,
            th.cat([part for _, _, part in linear], dim=1).T,
        )
        same_state, same_action = states > _SAME, actions > _SAME
        if variance["same_state"]:
            total.add_(same_state, alpha=variance["same_state"])
        if variance["same_action"]:
            total.add_(same_action, alpha=variance["same_action"])
        if variance["same_pair"]:
            total.add_(same_state & same_action, alpha=variance["same_pair"])
        total.add_(states, alpha=variance["state"]).add_(actions, alpha=variance["action"])
        product = states.mul_(actions)
        return total.addcmul_(product, variance["bilinear"] + variance["quadratic"] * product)

    def _variance(self, parts: _Parts) -> th.Tensor:
        """Prior variance (n,) of pairs: the diagonal of :meth:`_kernel`."""
        variance = self._variances()
        actions = parts.action.square().sum(dim=1)
        states = _for_each(parts.state.square().sum(dim=1), len(actions))
        product = states * actions
        same_state, same_action = states > _SAME, actions > _SAME
        return (
            variance["constant"]
            + variance["similarity"] * parts.similarities.square().sum(dim=1)
            + variance["pairs"] * parts.pairs.square().sum(dim=1)
            + variance["trust"] * self._columns(parts.prior).square().sum(dim=1)
            + variance["action"] * actions
            + variance["state"] * states
            + product * (variance["bilinear"] + variance["quadratic"] * product)
            + variance["same_state"] * same_state.to(states.dtype)
            + variance["same_action"] * same_action.to(states.dtype)
            + variance["same_pair"] * (same_state & same_action).to(states.dtype)
        )

    # ------------------------------------------------------------------ what is known

    def _used(self, dtype: th.dtype) -> _Parts:
        """The known pairs, each in its place. Places of forgotten pairs have no effect."""
        known = self._known if dtype == th.float64 else self._known_single
        return known.take(slice(0, self._n_used))

    def _put_all(self) -> None:
        """Compute the parts of all pairs with the present features."""
        self._has_near = False
        for slot in range(self._n_used):
            self._put(slot, slot)

    def _put(self, slot: int, n_others: int) -> None:
        """Compute the parts of the pair at `slot`, after its vectors are compared with those of the first `n_others`.

        Pairs are computed one at a time, so that results are always the same to the bit.
        """
        raw, shared_dim = self._raw[slot].double(), self.features.shared_dim
        state, action, pairs = raw.split([shared_dim, shared_dim, self.features.n_pairs])
        unit = [F.normalize(self.features.centred(vector), dim=0) for vector in (state, action)]
        for which, (units, single) in enumerate(zip(self._known[:2], self._known_single[:2], strict=True)):
            near = single[:n_others] @ unit[which].float()
            near[slot : slot + 1] = -1.0
            if not len(near) or near[nearest := int(near.argmax())] <= _NEAR:
                continue
            # If a known vector equals this one, it was compared with the others when it was stored. So this one need
            # not be.
            if th.equal(units[nearest], unit[which]):
                continue
            self._has_near = True
            found = units[:n_others][near > _NEAR]
            cosines = found @ unit[which]
            if cosines.max() > _NEARLY_SAME:
                unit[which] = found[cosines.argmax()]
        similarities = self.features.of_blocks(state, action)
        scaled = self.features.scaled(pairs)
        prior = th.cat([similarities, scaled]) @ self.prior.double()
        for known in (self._known, self._known_single):
            for part, value in zip(known, (*unit, similarities, self._own(similarities, scaled), prior), strict=True):
                part[slot] = value

    def _grow(self) -> None:
        """Make room for one more pair."""
        self._n_used += 1
        self._inverse.grow()
        room = len(self._counts)
        if self._n_used <= room:
            return
        room = max(64, 2 * room)
        self._raw = _extended(self._raw, room)
        self._known = _Parts(*(_extended(part, room) for part in self._known))
        self._known_single = _Parts(*(_extended(part, room) for part in self._known_single))
        self._totals, self._counts = _extended(self._totals, room), _extended(self._counts, room)
        self._alpha = _extended(self._alpha, room)

    def _forget_all(self) -> None:
        features, device = self.features, self.prior.device
        self._slots = {}
        self._n_used = self._n_told = 0
        self._features_version = features.version
        self._beliefs = None
        self._fit_due = 20
        self._has_near = False

        def empty(*shape: int, dtype: th.dtype = th.float64) -> th.Tensor:
            return th.empty(0, *shape, dtype=dtype, device=device)

        n_compared = features.n_pairs if self._compared is None else len(self._compared)
        n_terms = (1 if self.sources is None else len(self.sources)) + self.learn_pair_scale * n_compared
        sizes = (features.shared_dim, features.shared_dim, features.n_cosines, n_compared)
        shapes = (*((size,) for size in sizes), () if self.sources is None else (len(self.sources),))
        self._raw = empty(2 * features.shared_dim + features.n_pairs, dtype=th.float32)
        self._known = _Parts(*(empty(*shape) for shape in shapes))
        self._known_single = _Parts(*(empty(*shape, dtype=th.float32) for shape in shapes))
        self._totals, self._counts, self._alpha = empty(), empty(), empty(1 + n_terms)
        self._inverse = UpdatedMatrix(device)

    def get_extra_state(self) -> dict[str, Any]:
        """The learned transitions and the posterior, for `state_dict`."""
        n = self._n_used
        units = {}
        if self._has_near:  # the pair from which another one has taken a vector may be forgotten by now
            units = {"unit_state": self._known.state[:n].clone(), "unit_action": self._known.action[:n].clone()}
        return {
            **units,
            "raw": self._raw[:n].clone(),
            "order": th.tensor(list(self._slots.values()), dtype=th.int64),
            "total": self._totals[:n].clone(),
            "count": self._counts[:n].clone(),
            **self._inverse.get_state(),
            "alpha": self._alpha[:n].clone(),
            "version": th.tensor(self._features_version),
            "fit_due": th.tensor(self._fit_due),
            "n_told": th.tensor(self._n_told),
            "scales": {**self.scales, "noise": self.noise},
            "given": self._given,
            "residual_pairs": th.tensor(self.residual_pairs),
            "prior": self.prior.clone(),
        }

    @property
    def _given(self) -> dict[str, float]:
        """Scales and noise as they were given, before any fit."""
        scales, noise = self._expected
        return {**scales, "noise": noise}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`get_extra_state` gave. The posterior is then the same to the bit.

        If this model was given another prior, other scales, another noise or another `residual_pairs`, this model keeps
        its own, and the posterior is computed anew from the same rewards. If this model keeps fewer pairs, the latest
        are kept.
        """
        self._forget_all()
        prior = state.get("prior", self.prior).to(self.prior.device)  # earlier versions did not save the prior
        same = state.get("given", self._given) == self._given and th.equal(prior, self.prior)
        same = same and state["alpha"].shape[1:] == self._alpha.shape[1:]
        same = same and bool(state.get("residual_pairs", False)) == self.residual_pairs
        if same:
            self.scales = dict(state["scales"])
            self.noise = self.scales.pop("noise")
        if len(order := state["order"]) > self.max_pairs:
            same, kept = False, order[-self.max_pairs :]
            state = state | {name: state[name][kept] for name in ("raw", "total", "count")}
            state["order"] = th.arange(self.max_pairs)
        self._fit_due, version = int(state["fit_due"]), int(state["version"])
        self._n_told = int(state["n_told"])
        for _ in range(len(state["count"])):
            self._grow()
        n = self._n_used
        self._raw[:n], self._totals[:n], self._counts[:n] = state["raw"], state["total"], state["count"]
        if same:
            self._inverse.set_state(state)
            self._alpha[:n] = state["alpha"]
        keys = self._raw[:n].cpu().numpy()
        self._slots = {keys[slot].tobytes(): slot for slot in state["order"].tolist()}
        self._put_all()
        if same and "unit_state" in state:
            self._has_near = True
            for known in (self._known, self._known_single):
                known.state[:n], known.action[:n] = state["unit_state"], state["unit_action"]
        elif self._has_near:
            # An earlier version wrote the state. Its posterior may be that of a kernel which is no covariance.
            same = False
        self._features_version = version
        if not same:
            self._solve()


def _nearest(vectors: th.Tensor, known: th.Tensor) -> th.Tensor:
    """Vectors (..., d) of unit length, each replaced by the nearest known one (n, d) if both are nearly the same."""
    found = []
    for part in vectors.flatten(end_dim=-2).split(_PIECE):
        cosines, places = (part @ known.T).max(dim=1)
        found.append(th.where((cosines > _NEARLY_SAME).unsqueeze(1), known[places], part))
    return th.cat(found).view_as(vectors)


def _for_each(of_states: th.Tensor, n: int) -> th.Tensor:
    """Rows of states, each repeated for its pairs, n rows in all."""
    return of_states if len(of_states) == n else of_states.repeat_interleave(n // len(of_states), dim=0)


def _extended(rows: th.Tensor, n: int) -> th.Tensor:
    """Rows (m, ...), filled up with zeros to n rows."""
    longer = rows.new_zeros(n, *rows.shape[1:])
    longer[: len(rows)] = rows
    return longer


def _minimise(loss: Callable[[], th.Tensor], parameter: th.Tensor) -> None:
    """Minimise the loss by L-BFGS, from the present value of the parameter."""
    optimizer = th.optim.LBFGS([parameter], max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> th.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with th.enable_grad():
        optimizer.step(closure)
