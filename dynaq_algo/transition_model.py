"""A world model of whole transitions: the applicant's next progress, whether they leave, and the reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional as F

from dynaq_algo.arguments import require_number, require_whole
from dynaq_algo.context_values import ContextValues, Predictions
from dynaq_algo.features import BlockwiseFeatures, DistinctPairs, prior_weights
from dynaq_algo.outcome_inputs import SAME, OutcomeInputs, Rewards, appended
from dynaq_algo.tensor_file import fitting_state

__all__ = ["Foreseen", "Steps", "TransitionModel"]

_Parts = tuple[th.Tensor, th.Tensor, th.Tensor]
"""Parts of the logits: from codes and numbers (..., n_kinds); the action's effect and the bilinear form, (...) each."""
_PRODUCT_SCALE = 0.1
"""Prior standard deviation of the weight of a combination of two values. For one value, or a number, it is 1."""
_DIRECTION_SCALE = 0.5
"""Prior standard deviation of the direction of interest around its mean."""
_KINDS = 2
"""Each outcome has two kinds: the reward was at most what a regression predicts for this outcome, or above."""
_START = 0.3
"""Initial standard deviation of the bilinear form's two factors. If both were 0, neither would have a gradient."""
_SLOWER_FROM = 500
"""After n transitions Adam's learning rate is divided by sqrt(1 + n / 500)."""
_TRUSTS = th.cartesian_prod(th.linspace(0, 1, 5), th.linspace(0, 1, 5))
"""Grid of values of `trust`: how far an action's effect, and the bilinear form, may be trusted."""
_MEMORY = 0.999
"""Each new transition multiplies the weight of all earlier ones in `trust` by this."""
_ROOM = 2_048
"""Actions for which there is room at first."""
_LEARNED = ("codes", "numbers", "actions", "state", "kind")
"""The columns of the told transitions that a step of Adam reads."""
_PRIOR_COUNT = 30
"""The prior mean of the rewards counts as much as this many transitions."""


class Steps(NamedTuple):
    """n complete transitions, as a model of transitions learns from them.

    Attributes:
        state: (n, d_s).
        candidates: (n, k, d_a), features of the candidates.
        pairs: (n, k, p), the entry `pairs`; None if observations have none.
        allowed: (n, k) bool, which candidates could be chosen.
        candidate_id: (n, k) int64, ids by which `ask` in :meth:`TransitionModel.plan` knows the candidates; below 0
            where an id is not known.
        applicant_id: (n,) int64, -1 where it is not known.
        action: (n,) int64, index of the chosen candidate.
        reward: (n,).
        next_state: (n, d_s).
        terminated: (n,) bool.
    """

    state: th.Tensor
    candidates: th.Tensor
    pairs: th.Tensor | None
    allowed: np.ndarray
    candidate_id: np.ndarray
    applicant_id: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_state: th.Tensor
    terminated: np.ndarray


class Foreseen(NamedTuple):
    """A model's predictions of n transitions, made before it learned from them.

    Attributes:
        reward: (n,), the predicted mean.
        chances: (n, n_outcomes), predicted probabilities; n_outcomes may be 0 at first.
        outcome: (n,), what happened: an index into the outcomes that are known afterwards.
        ended: (n,) bool, whether the episode ended.
        chance_of_end: (n,), predicted probability that it would end.
    """

    reward: np.ndarray
    chances: np.ndarray
    outcome: np.ndarray
    ended: np.ndarray
    chance_of_end: np.ndarray


class _Weights(NamedTuple):
    """The logistic regression at one time, see :class:`TransitionModel`."""

    codes: th.Tensor
    numbers: th.Tensor
    constant: th.Tensor
    direction: th.Tensor
    effects: th.Tensor
    likes: th.Tensor
    liked: th.Tensor
    trust: tuple[float, float]
    n_kinds: int

    def copied(self) -> _Weights:
        """A copy that does not learn."""
        values: list[Any] = [one.detach().clone() if isinstance(one, th.Tensor) else one for one in self]
        return _Weights(*values)

    def probabilities(self, parts: _Parts) -> th.Tensor:
        """Probabilities (..., n_kinds) of the kinds of outcomes, from parts of the logits."""
        return self.logits(parts).softmax(dim=-1)

    def logits(self, parts: _Parts, trusted: bool = False) -> th.Tensor:
        """Logits (..., n_kinds), from their parts. With `trusted`, effect and bilinear form count in full."""
        base, effect, taste = parts
        interest = effect + taste if trusted else self.trust[0] * effect + self.trust[1] * taste
        return (base + interest.unsqueeze(-1) * self.direction)[..., : self.n_kinds]


class TransitionModel(nn.Module):
    """Predicts the change of the entry `progress` and the reward, as a distribution over outcomes.

    An *outcome* is a difference of `progress` that was seen (one level up, one patience less, ...), or the end of the
    episode. Each outcome has two *kinds*: its reward was above what a regression on `progress` and `pairs` predicts for
    this outcome, or it was not. So the model can tell an application from a click even if both change `progress` in
    the same way. A multinomial logistic regression predicts the kind, and a linear regression for each kind predicts
    the reward. The model thus learns what an applicant likes from the answers at all levels together, and what a level
    pays from the few answers there.

    The logistic regression's logits are linear in

    * each value of those columns of `progress` and `pairs` that have at most 12 values, and each combination of a value
      of `progress` with a value of `pairs`;
    * the block similarities of state and action, the columns of `pairs` that have more than 12 values, and the squares
      and products of all these;
    * an effect of the action, and a bilinear form of state and action. The bilinear form is the scalar product of
      `rank` *tastes* of the state with `rank` tastes of the action. Each taste is linear in the first principal
      components. The effect and the bilinear form shift the logits of all kinds along one learned direction, which
      stands for interest. Effect and bilinear form are each trusted only as far as they improved the predictions of
      new transitions.

    The weights, except the constants, have normal priors. Weights and constants are learned by Adam from batches of all
    transitions. The rewards' regressions are exact.

    The value of the next state is a table over the values of `progress`, see
    :class:`~dynaq_algo.context_values.ContextValues`.

    Args:
        features: `"blockwise"`; shared with the Q-network.
        progress: Columns of the state that answers change.
        low: (m,) smallest values of `progress`.
        high: (m,) largest values of `progress`.
        prior: Prior mean of the weight that each similarity, and optionally each number of `pairs`, has in the reward.
            It counts as much as 30 transitions.
        gamma: Discount of the next state's value.
        bonus: Factor of a bonus that is added to the value of seldom visited rows of `progress` (a row is one
            combination of its numbers), see
            :class:`~dynaq_algo.context_values.ContextValues`.
        max_outcomes: How many different outcomes are told apart, the end among them; each further one counts as the
            nearest of these.
        components: Principal components of states and actions; 0 leaves the bilinear form out.
        rank: Number of tastes.
        action_scale: Prior standard deviation of an action's effect; 0 leaves it out.
        taste_scale: Factor of the bilinear form; 0 leaves it out.
        learning_rate: Adam's learning rate at first.
        batch_size: Transitions in each step of Adam.
        steps: Steps of Adam after each transition.
        planning_sets: How many candidate sets an imagined step is averaged over.
        planning_contexts: How many rows of `progress` a planning step imagines sets at.

    Raises:
        ValueError: If the features are not blockwise, or a number is out of range.
    """

    trust: tuple[float, float]
    """How far an action's effect, and the bilinear form, are trusted, each 0 to 1."""
    optimizer: th.optim.Optimizer | None = None
    knows_transitions = True
    prior: th.Tensor

    def __init__(
        self,
        features: BlockwiseFeatures,
        progress: slice,
        low: np.ndarray,
        high: np.ndarray,
        prior: Sequence[float] | None = None,
        gamma: float = 0.97,
        bonus: float = 1.0,
        max_outcomes: int = 16,
        components: int = 64,
        rank: int = 8,
        action_scale: float = 0.1,
        taste_scale: float = 0.05,
        learning_rate: float = 0.03,
        batch_size: int = 256,
        steps: int = 2,
        planning_sets: int = 8,
        planning_contexts: int = 4,
    ):
        super().__init__()
        if not isinstance(features, BlockwiseFeatures):
            raise ValueError(f'`features` must be "blockwise" for this world model, got {type(features).__name__}.')
        for name, value, least in (
            ("max_outcomes", max_outcomes, 2),
            ("components", components, 0),
            ("rank", rank, 1),
            ("batch_size", batch_size, 1),
            ("steps", steps, 1),
            ("planning_sets", planning_sets, 1),
            ("planning_contexts", planning_contexts, 1),
        ):
            require_whole(name, value, least)
        scales = {"learning_rate": learning_rate, "action_scale": action_scale, "taste_scale": taste_scale}
        for name, scale in scales.items():
            require_number(name, scale)
        if not (learning_rate > 0 and action_scale >= 0 and taste_scale >= 0):
            raise ValueError(
                "`learning_rate` must be above 0, `action_scale` and `taste_scale` 0 or more, got "
                f"{learning_rate}, {action_scale} and {taste_scale}."
            )
        if not (isinstance(bonus, int | float | np.number) and 0 <= bonus < math.inf):
            raise ValueError(f"`bonus` must be a finite number of 0 or more, got {bonus!r:.80}.")
        self.features = features
        self.progress = progress
        self.gamma = gamma
        self.max_outcomes, self.batch_size, self.steps = max_outcomes, batch_size, steps
        self.action_scale, self.taste_scale = action_scale, taste_scale
        self.planning_sets, self.planning_contexts = planning_sets, planning_contexts
        weights = [0.0] * features.n_similarities if prior is None else prior
        self.register_buffer("prior", prior_weights(weights, features), persistent=False)
        m = progress.stop - progress.start
        n_kinds = _KINDS * max_outcomes
        self.inputs = OutcomeInputs(features, m, components)
        self.components = components = self.inputs.components
        self.means = Rewards(m, features.n_pairs, max_outcomes)
        self.rewards = Rewards(m, features.n_pairs, n_kinds)
        self.values = ContextValues(low, high, bonus)
        self.codes = nn.Parameter(th.zeros(self.inputs.n_codes, n_kinds))
        self.numbers = nn.Parameter(th.zeros(self.inputs.n_numbers, n_kinds))
        self.constant = nn.Parameter(th.zeros(n_kinds))
        self.direction = nn.Parameter(th.zeros(n_kinds))
        # `effects` is no nn.Parameter: it grows with the actions that were seen, and is saved in the extra state.
        self.effects = th.zeros(_ROOM, requires_grad=True)
        self.likes = nn.Parameter(_START * th.randn(components, rank))
        self.liked = nn.Parameter(_START * th.randn(components, rank))
        self._learning_rate = learning_rate
        self._adam: th.optim.Adam | None = None
        self.outcomes: list[tuple[int, ...] | None] = []
        self._scores = th.zeros(len(_TRUSTS))
        self.trust = _trust_of(self._scores)
        self._judge: _Weights | None = None
        self._judge_until = 0
        self._told: dict[str, np.ndarray] = {}
        self._scaled_by = features.version
        self.n_told = 0

    # ------------------------------------------------------------------ prediction

    def score(
        self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None = None, with_spread: bool = True
    ) -> tuple[th.Tensor, th.Tensor]:
        """States (n, d_s), candidates (n, k, d_a), pairs (n, k, p) -> mean rewards and spreads of 0, (n, k) each."""
        reward, _ = self._look(state, candidates, pairs, ahead=False)
        return reward, th.zeros_like(reward)

    def look_ahead(self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None = None) -> th.Tensor:
        """Mean rewards plus `gamma` times the expected value of the next state, (n, k), from one pass."""
        reward, future = self._look(state, candidates, pairs, ahead=True)
        return reward + self.gamma * future

    @th.no_grad()
    def chances(
        self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None = None
    ) -> tuple[np.ndarray, list[tuple[int, ...] | None]]:
        """Probabilities (n, k, n_outcomes) of outcomes, and the outcomes in units of the grid; None for the end."""
        seen = self.inputs.read(state, self._progress_of(state), candidates, pairs)
        return _merged(self._weights.probabilities(self._parts(*seen))).numpy(), list(self.outcomes)

    @th.no_grad()
    def _look(
        self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None, ahead: bool
    ) -> tuple[th.Tensor, th.Tensor]:
        progress = self._progress_of(state)
        similarities = self.features.similarities(state.unsqueeze(1), candidates)
        seen = self.inputs.read(state, progress, candidates, pairs, similarities)
        reward, chances = self._foresee(self._parts(*seen), progress, similarities, pairs)
        if not ahead or not self.outcomes:
            return reward, th.zeros_like(reward)
        following = self.values.following(progress, self.outcomes)  # (n, n_outcomes)
        return reward, (chances * th.as_tensor(following, dtype=chances.dtype)[:, None]).sum(dim=-1)

    def _foresee(
        self, parts: _Parts, progress: np.ndarray, similarities: th.Tensor, pairs: th.Tensor | None
    ) -> tuple[th.Tensor, th.Tensor]:
        """Mean rewards (n, k) and probabilities (n, k, n_outcomes), from parts of the logits."""
        scaled = similarities[..., :0] if pairs is None else self.features.scaled(pairs)
        expected = th.cat([similarities, scaled], dim=-1) @ self.prior
        reward = expected * (_PRIOR_COUNT / (_PRIOR_COUNT + self.n_told))
        chances = self._weights.probabilities(parts)
        if self.outcomes:
            shown = None if pairs is None else pairs.cpu().numpy()
            earned = self.rewards.of(progress[:, None], shown, self._n_kinds)
            reward = reward + (chances * th.as_tensor(earned, dtype=chances.dtype)).sum(dim=-1)
        return reward, _merged(chances)

    def of_pairs(self, pairs: DistinctPairs) -> th.Tensor:
        """Mean reward of pairs, (n,) or (n, k)."""
        state_row = pairs.state_row.reshape(len(pairs.action_row), -1)[:, 0]
        flat = pairs.action_row.ndim == 1
        action = pairs.action[pairs.action_row]
        numbers = pairs.pairs
        if flat:
            action, numbers = action.unsqueeze(1), None if numbers is None else numbers.unsqueeze(1)
        reward, _ = self.score(pairs.state[state_row], action, numbers, with_spread=False)
        return reward.squeeze(1) if flat else reward

    @property
    def _weights(self) -> _Weights:
        """The logistic regression as it is now."""
        of_inputs = (self.codes, self.numbers, self.constant, self.direction, self.effects, self.likes, self.liked)
        return _Weights(*of_inputs, self.trust, self._n_kinds)

    def _parts(
        self,
        codes: np.ndarray,
        numbers: th.Tensor,
        actions: np.ndarray,
        state: th.Tensor,
        weights: _Weights | None = None,
    ) -> _Parts:
        """Parts of the logits, from what :meth:`OutcomeInputs.read` gives; by the present weights if none are given."""
        w = self._weights if weights is None else weights
        base = _SumOfRows.apply(w.codes, th.as_tensor(codes)) + numbers @ w.numbers + w.constant
        rows = th.as_tensor(actions)
        effect = w.effects[rows] * self.action_scale
        liked = F.embedding(rows, self.inputs.in_components) @ w.liked
        taste = ((state @ w.likes) * liked).sum(dim=-1) * self.taste_scale
        return base, effect, taste

    def _progress_of(self, state: th.Tensor) -> np.ndarray:
        return state[:, self.progress].cpu().numpy()

    # ------------------------------------------------------------------ learning

    @th.no_grad()
    def observe(self, steps: Steps) -> Foreseen:
        """Store n new transitions, from which :meth:`fit` learns; returns what the model predicted for them."""
        n = len(steps.action)
        rows = np.arange(n)
        progress, moved = self._progress_of(steps.state), self._progress_of(steps.next_state)
        chosen = steps.candidates[rows, steps.action].unsqueeze(1)
        pairs = None if steps.pairs is None else steps.pairs[rows, steps.action].unsqueeze(1)
        changed = self.inputs.learn(steps.state, progress, steps.candidates, pairs)
        self._grow_effects()
        similarities = self.features.similarities(steps.state.unsqueeze(1), steps.candidates)
        of_chosen = similarities[rows, steps.action].unsqueeze(1)
        of_candidates = self.inputs.actions_of(steps.candidates)
        read = self.inputs.read(
            steps.state, progress, chosen, pairs, of_chosen, of_candidates[rows, steps.action][:, None]
        )
        parts = self._parts(*read)
        reward, chances = (said[:, 0].numpy() for said in self._foresee(parts, progress, of_chosen, pairs))
        end = self.outcomes.index(None) if None in self.outcomes else None
        codes, numbers, actions, state = read
        outcome = np.array(
            [
                self._outcome(None if ended else self.values.difference(before, after))
                for before, after, ended in zip(progress, moved, steps.terminated, strict=True)
            ]
        )
        shown = np.zeros((n, 0), np.float32) if pairs is None else pairs[:, 0].cpu().numpy()
        usual = self.means.of(progress, shown, len(self.outcomes))[rows, outcome]
        kind = _KINDS * outcome + (steps.reward > usual)
        self._doubt(parts, kind, _KINDS * chances.shape[-1])
        self.means.add(progress, shown, outcome, steps.reward)
        self.rewards.add(progress, shown, kind, steps.reward)
        self.values.visit(progress)
        told = {
            "codes": codes[:, 0],
            "numbers": numbers[:, 0].numpy(),
            "actions": actions[:, 0],
            "state": state[:, 0].numpy(),
            "kind": kind,
            "progress": progress,
            "pairs": shown,
        }
        for name, values in told.items():
            self._told[name] = appended(self._told.get(name), values, self.n_told)
        self.n_told += n
        # A column has become a number, or numbers have another scale: earlier transitions are read again.
        if changed or self._scaled_by != self.features.version:
            self._scaled_by = self.features.version
            earlier = {name: values[: self.n_told] for name, values in self._told.items()}
            similarities_told = th.as_tensor(earlier["numbers"][:, : self.features.n_cosines].copy())
            earlier["codes"][:] = self.inputs.codes_of(earlier["progress"], earlier["pairs"])
            earlier["numbers"][:] = self.inputs.numbers_of(similarities_told, earlier["progress"], earlier["pairs"])
        self.values.remember(steps, state[:, 0].numpy(), similarities.cpu().numpy(), of_candidates)
        leaving = np.zeros(n, chances.dtype) if end is None else chances[:, end]
        return Foreseen(reward, chances, outcome, steps.terminated, leaving)

    def _doubt(self, parts: _Parts, kind: np.ndarray, n_known: int) -> None:
        """Update `trust` by how well an action's effect and the bilinear form predicted the new transitions."""
        known = np.flatnonzero(kind < n_known)
        if not len(known):
            return
        base, effect, taste = (part[:, 0] for part in parts)
        interest = effect[:, None] * _TRUSTS[:, 0] + taste[:, None] * _TRUSTS[:, 1]  # (n, g)
        logits = base[:, None] + interest.unsqueeze(-1) * self.direction
        said = logits[..., :n_known].log_softmax(dim=-1)[known, :, kind[known]]
        self._scores = self._scores * _MEMORY ** len(known) + said.sum(dim=0)
        self.trust = _trust_of(self._scores)

    def fit(self, rng: np.random.Generator) -> th.Tensor:
        """Make `steps` steps of Adam on batches of all transitions; returns the mean loss."""
        if self._adam is None:
            self._adam = self._make_adam()
        losses, interest = [], self._interest()
        for _ in range(self.steps):
            rows = rng.integers(self.n_told, size=min(self.n_told, self.batch_size))
            told = {name: self._told[name][rows] for name in _LEARNED}
            parts = self._parts(
                told["codes"], th.as_tensor(told["numbers"]), told["actions"], th.as_tensor(told["state"])
            )
            logits = self._weights.logits(parts, trusted=True)
            loss = F.cross_entropy(logits, th.as_tensor(told["kind"]))
            for group in self._adam.param_groups:
                group["lr"] = self._learning_rate / (1.0 + self.n_told / _SLOWER_FROM) ** 0.5
            self._adam.zero_grad()
            loss.backward()
            self._add_gradient_of_prior(interest)
            self._adam.step()
            with th.no_grad():
                self.codes[0] = 0.0  # a value that was never seen contributes nothing
            losses.append(loss.detach())
        return th.stack(losses).mean()

    @th.no_grad()
    def _add_gradient_of_prior(self, interest: th.Tensor) -> None:
        """Add the gradient of minus the logarithm of the weights' prior, divided by the number of transitions.

        It is written out, because autograd takes ten times as long for these few sums of squares.
        """
        known, first = slice(self._n_kinds), self.inputs.first_product
        share = th.tensor(1.0) / self.n_told
        everything = slice(None)
        with_variances: list[tuple[th.Tensor, Any, float]] = [
            (self.codes, (slice(first), known), 1.0),
            (self.codes, (slice(first, None), known), _PRODUCT_SCALE**2),
            (self.numbers, (everything, known), 1.0),
        ]
        if self.action_scale:
            with_variances.append((self.effects, everything, 1.0))
        if self.components and self.taste_scale:
            with_variances += [(self.likes, everything, 1.0), (self.liked, everything, 1.0)]
        for weights, where, variance in with_variances:
            assert weights.grad is not None
            weights.grad[where] += weights[where] * (share / variance)
        assert self.direction.grad is not None
        self.direction.grad[known] += (self.direction[known] - interest) * (share / _DIRECTION_SCALE**2)

    def _interest(self) -> th.Tensor:
        """Prior mean of the direction of interest: the standardised mean reward of each kind."""
        means = self.rewards.means(self._n_kinds)
        spread = means.std() or 1.0
        return th.as_tensor((means - means.mean()) / spread, dtype=th.float32)

    @property
    def _n_kinds(self) -> int:
        """Kinds of the outcomes that were seen."""
        return _KINDS * len(self.outcomes)

    def _outcome(self, difference: tuple[int, ...] | None) -> int:
        if difference in self.outcomes:
            return self.outcomes.index(difference)
        known: list[tuple[int, int, int]] = []
        if difference is not None:
            moves = (
                (np.abs(np.subtract(one, difference)), i) for i, one in enumerate(self.outcomes) if one is not None
            )
            known = [(int(apart.max(initial=0)), int(apart.sum()), i) for apart, i in moves]
        alike = [i for largest, _, i in known if largest <= SAME]
        if alike:
            return alike[0]
        # One place is kept free for the end of the episode, because no other outcome is near to it.
        if difference is None or len(self.outcomes) < self.max_outcomes - (None not in self.outcomes):
            self.outcomes.append(difference)
            return len(self.outcomes) - 1
        return min(known, key=lambda one: one[1:])[2]

    def _grow_effects(self) -> None:
        n = self.inputs.n_actions
        if n > len(self.effects):
            more = max(len(self.effects), n - len(self.effects))
            state = None if self._adam is None else self._adam.state_dict()
            self.effects, self._adam = F.pad(self.effects.detach(), (0, more)).requires_grad_(), None
            if self._judge is not None:
                self._judge = self._judge._replace(effects=F.pad(self._judge.effects, (0, more)))
            if state is not None:  # Adam goes on, with moments of 0 for the new actions
                of_effects = state["state"].get(state["param_groups"][0]["params"][-1], {})  # the last parameter
                of_effects |= {name: F.pad(values, (0, more)) for name, values in of_effects.items() if values.ndim}
                self._adam = self._make_adam()
                self._adam.load_state_dict(fitting_state(self._adam, state))

    def _make_adam(self) -> th.optim.Adam:
        return th.optim.Adam([*self.parameters(), self.effects], lr=self._learning_rate, fused=True)

    # ------------------------------------------------------------------ planning

    @th.no_grad()
    def plan(
        self,
        n_steps: int,
        horizon: int,
        ask: Callable[..., np.ndarray] | None,
        rng: np.random.Generator,
        lag: int | None = None,
    ) -> float:
        """Make planning steps: imagine candidate sets at some rows of `progress`, then sweep over the table of values.

        The model does not change within the steps, so one forward pass serves them all.

        Args:
            n_steps: How many steps.
            horizon: Sweeps in each step. With every sweep the values look one step further ahead.
            ask: Gives `pairs` (n, k, p) of applicants (n, 1) with candidates (n, k) at an imagined progress (n, 1, m).
                It is asked about sets whose applicant and candidates have ids. If `ask` is None, or no set has ids, a
                row of `progress` takes sets that were shown at this row, with their `pairs`. A row at which no set was
                shown takes sets that were shown at any row, with their `pairs`.
            rng: Generator of the draws.
            lag: If given, a copy of the logistic regression judges the candidates that the present one chooses, as the
                target network does in double DQN (van Hasselt et al., 2016). A new copy is made after this many
                transitions. A loaded copy that would stay longer, because its `lag` was larger, is replaced at once.

        Returns:
            Mean absolute change of a value in a sweep.
        """
        if lag is None:
            self._judge = None
        elif self._judge is None or not self.n_told < self._judge_until <= self.n_told + lag:
            self._judge, self._judge_until = self._weights.copied(), self.n_told + lag
        contexts = self.values.draw(n_steps * self.planning_contexts, rng)
        self.values.imagine(contexts, self._imagine(contexts, ask, rng), self.outcomes)
        return float(np.mean([self.values.sweep(self.gamma) for _ in range(n_steps * horizon)]))

    def _imagine(
        self, contexts: np.ndarray, ask: Callable[..., np.ndarray] | None, rng: np.random.Generator
    ) -> list[Predictions]:
        """Predictions of the present model, and of its copy if there is one, for sets at rows (b, m) of `progress`.

        The rewards are those of the outcomes, without the prior mean, which fades after some 30 transitions.
        """
        sets = self.values.sets(contexts, self.planning_sets, ask, rng)
        b, s, k = sets.actions.shape
        progress = np.repeat(contexts, s, axis=0)
        pairs = None if sets.pairs is None else sets.pairs.reshape(b * s, k, -1)
        codes = self.inputs.codes_of(progress[:, None], pairs, k)
        numbers = self.inputs.numbers_of(th.as_tensor(sets.similarities.reshape(b * s, k, -1)), progress, pairs)
        state, actions = th.as_tensor(sets.state.reshape(b * s, 1, -1)), sets.actions.reshape(b * s, k)
        earned = self.rewards.of(progress[:, None], pairs, self._n_kinds)
        found = []
        for weights in (self._weights, self._judge):
            if weights is None:
                continue
            chances = weights.probabilities(self._parts(codes, numbers, actions, state, weights))
            # A copy gives no probability to outcomes that were seen after it was made.
            chances = F.pad(chances, (0, self._n_kinds - weights.n_kinds))
            reward = np.where(sets.allowed, (chances.numpy() * earned).sum(axis=-1).reshape(b, s, k), -np.inf)
            found.append(Predictions(reward, _merged(chances).numpy().reshape(b, s, k, -1)))
        return found

    # ------------------------------------------------------------------ saving

    def get_extra_state(self) -> dict[str, Any]:
        """The observed transitions and all that was learned from them, for `state_dict`."""
        width = self.progress.stop - self.progress.start
        outcomes = [[0] * width if one is None else list(one) for one in self.outcomes]
        return {
            "outcomes": th.tensor(outcomes, dtype=th.int64).reshape(len(outcomes), width),
            "ends": th.tensor([one is None for one in self.outcomes], dtype=th.bool),
            "told": {name: th.as_tensor(values[: self.n_told].copy()) for name, values in self._told.items()},
            "inputs": self.inputs.get_state(),
            "means": self.means.get_state(),
            "rewards": self.rewards.get_state(),
            "values": self.values.get_state(),
            "scores": self._scores.clone(),
            "scaled_by": th.tensor(self._scaled_by),
            "effects": self.effects.detach().clone(),
            "adam": {} if self._adam is None else self._adam.state_dict(),
            "judge": {} if self._judge is None else {**self._judge._asdict(), "until": self._judge_until},
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`get_extra_state` gave."""
        pairs = zip(state["outcomes"].tolist(), state["ends"].tolist(), strict=True)
        self.outcomes = [None if ended else tuple(one) for one, ended in pairs]
        self._told = {name: values.numpy().copy() for name, values in state["told"].items()}
        self.n_told = len(self._told["kind"]) if self._told else 0
        self.inputs.set_state(state["inputs"])
        self.means.set_state(state["means"])
        self.rewards.set_state(state["rewards"])
        self.values.set_state(state["values"])
        self._scores, self._scaled_by = state["scores"].clone(), int(state["scaled_by"])
        self.trust = _trust_of(self._scores)
        self.effects, self._adam = state["effects"].clone().requires_grad_(), None
        if state["adam"]:
            self._adam = self._make_adam()
            self._adam.load_state_dict(fitting_state(self._adam, state["adam"]))
        self._judge = None
        if judge := dict(state.get("judge", {})):
            self._judge_until = judge.pop("until")
            self._judge = _Weights(**judge)


class _SumOfRows(th.autograd.Function):
    """Rows of weights (n, d), chosen by codes (..., c) and summed over the last axis of codes: (..., d).

    It equals `weights[codes].sum(dim=-2)`, without an array of all rows that are summed.
    """

    @staticmethod
    def forward(ctx: Any, weights: th.Tensor, codes: th.Tensor) -> th.Tensor:
        """Sums (..., d)."""
        flat = codes.flatten(end_dim=-2)
        ctx.save_for_backward(flat)
        ctx.n_rows = len(weights)
        # Rows are added in groups of 16, and then the sums of the groups, as `Tensor.sum` does it. At 16 outcomes, the
        # default, the result is that of `sum` to the bit, so agents learn what they learned in versions that used it.
        first, *others = (F.embedding_bag(part, weights, mode="sum") for part in flat.split(16, dim=-1))
        return sum(others, first).unflatten(0, codes.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: th.Tensor) -> tuple[th.Tensor, None]:
        """The gradient (n, d) of the weights; codes have none."""
        (flat,) = ctx.saved_tensors
        of_sums = gradients[0].reshape(len(flat), -1)
        gradient = of_sums.new_zeros(ctx.n_rows, of_sums.shape[-1])
        return gradient.index_add_(0, flat.flatten(), of_sums.repeat_interleave(flat.shape[1], dim=0)), None


def _trust_of(scores: th.Tensor) -> tuple[float, float]:
    """Mean over the grid of trusts, weighted by how well each predicted transitions; `scores` are log likelihoods."""
    effect, taste = (scores.softmax(dim=0)[:, None] * _TRUSTS).sum(dim=0).tolist()
    return effect, taste


def _merged(chances: th.Tensor) -> th.Tensor:
    """Probabilities of kinds (..., n_kinds) -> of outcomes (..., n_outcomes)."""
    return chances.unflatten(-1, (-1, _KINDS)).sum(dim=-1) if chances.shape[-1] else chances
