"""The features of (state, action) pairs, the input of a network or a Gaussian process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch.nn import functional as F

from dynaq_algo.action_table import ActionTable
from dynaq_algo.arguments import is_whole, require_flag, require_row, suggestion
from dynaq_algo.layout import CandidateLayout

__all__ = [
    "FEATURES",
    "BlockwiseFeatures",
    "ConcatFeatures",
    "DistinctPairs",
    "InteractionFeatures",
    "PairFeatures",
    "PairResiduals",
    "SeenActions",
    "SeenPairs",
    "candidates_of_ids",
    "make_features",
    "prior_weights",
]

NO_SPREAD = 1e-6
"""Numbers whose standard deviation is at most this count as equal: so small a deviation is only rounding."""


class DistinctPairs(NamedTuple):
    """Pairs of states and actions, where each distinct vector is stored once.

    Attributes:
        state: (m, d_s).
        state_row: int64, row of each pair's state; (n,), or (n, 1) for n decisions.
        action: (l, d_a).
        action_row: int64, row of each pair's action; (n,), or (n, k).
        pairs: Numbers of each pair, (n, p), or (n, k, p); None if observations have none.
    """

    state: th.Tensor
    state_row: th.Tensor
    action: th.Tensor
    action_row: th.Tensor
    pairs: th.Tensor | None = None

    def take(self, rows: slice) -> DistinctPairs:
        """Some of the n pairs, in order, with all the vectors."""
        pairs = None if self.pairs is None else self.pairs[rows]
        return self._replace(state_row=self.state_row[rows], action_row=self.action_row[rows], pairs=pairs)


class PairFeatures:
    """A (state, action) pair as one network input `[state, pair(state, action), pairs]`.

    A subclass sets `pair_dim` and defines :meth:`pair`. Features have no parameters, so that the Q-network, its target
    and the world model share one input. The observation's entry `pairs` stands at the end of the input.

    Args:
        state_dim: d_s, the size of a state.
        action_dim: d_a, the size of an action.
        n_pairs: p, how many numbers an observation has for each pair.
        compared: The columns of the state that are compared with an action; None for all.

    Attributes:
        n_similarities: How many entries at the end of the input can have a prior weight: similarities of state and
            action, then `pairs`.
        version: Increases when the input of a state and an action changes, see :meth:`see`.
    """

    pair_dim: int
    n_similarities = 0

    def __init__(self, state_dim: int, action_dim: int, n_pairs: int = 0, compared: slice | None = None):
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.n_pairs = n_pairs
        self.compared = slice(0, state_dim) if compared is None else compared
        self.pair_dim = action_dim
        self.version = 0

    @property
    def separable(self) -> bool:
        """Whether :meth:`pair` is the action itself.

        A layer's product with the action is then the same for every state.
        """
        return type(self).pair is ConcatFeatures.pair

    @property
    def settled(self) -> bool:
        """Whether :meth:`see` changes nothing any more; by default, whether the class has no `see` of its own."""
        return type(self).see is PairFeatures.see and type(self).fit_sample is PairFeatures.fit_sample

    @property
    def output_dim(self) -> int:
        """Size of one network input."""
        return self.state_dim + self.pair_dim + self.n_pairs

    def fit(self, actions: np.ndarray) -> None:
        """Learn the scale of inputs from actions (n, d_a), before any interaction; nothing by default."""

    def fit_sample(self, state: np.ndarray, candidates: np.ndarray, pairs: np.ndarray | None) -> None:
        """Learn the scale of inputs from a sample of decisions, before any interaction; nothing by default.

        Arguments are those of :meth:`see`.
        """

    def see(self, state: np.ndarray, candidates: np.ndarray, pairs: np.ndarray | None) -> None:
        """Learn the scale of inputs from the decisions at hand; nothing by default.

        It is called while an agent learns, and never while the agent only predicts.

        Args:
            state: (n, d_s) float32.
            candidates: Features of actions, (n, k, d_a) float32.
            pairs: (n, k, p) float32; None if observations have none.
        """

    def scaled(self, pairs: th.Tensor) -> th.Tensor:
        """Numbers (..., p) of pairs in the scale of the input; unchanged by default."""
        return pairs

    def pair(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The part that depends on the action: (..., d_s), (..., d_a) -> (..., pair_dim)."""
        raise NotImplementedError

    def of_action(self, state: th.Tensor, action: th.Tensor, pairs: th.Tensor | None) -> th.Tensor:
        """The input without the state: (..., d_s), (..., d_a), (..., p) -> (..., output_dim - state_dim)."""
        pair = self.pair(state, action)
        return pair if pairs is None else th.cat([pair, self.scaled(pairs)], dim=-1)

    def __call__(self, state: th.Tensor, action: th.Tensor, pairs: th.Tensor | None = None) -> th.Tensor:
        """The whole input: (n, d_s), (n, d_a), (n, p) -> (n, output_dim)."""
        return th.cat([state, self.of_action(state, action, pairs)], dim=-1)

    def of_pairs(self, pairs: DistinctPairs) -> th.Tensor:
        """The whole inputs of pairs: (n, output_dim), or (n, k, output_dim) if there are k actions for each state."""
        # Each vector is gathered straight into its place.
        if self.separable and pairs.pairs is None and pairs.action_row.ndim == 1:
            inputs = pairs.state.new_empty(len(pairs.state_row), self.output_dim)
            th.index_select(pairs.state, 0, pairs.state_row, out=inputs[:, : self.state_dim])
            th.index_select(pairs.action, 0, pairs.action_row, out=inputs[:, self.state_dim :])
            return inputs
        state_row = pairs.state_row.expand_as(pairs.action_row)
        return self(pairs.state[state_row], pairs.action[pairs.action_row], pairs.pairs)

    def get_state(self) -> dict[str, th.Tensor]:
        """What :meth:`see` has learned, for a saved agent."""
        return {}

    def set_state(self, state: Mapping[str, th.Tensor]) -> None:
        """Put back what :meth:`get_state` gave."""


class ConcatFeatures(PairFeatures):
    """`[s, a]`.

    Example:
        >>> ConcatFeatures(3, 2)(th.zeros(4, 3), th.ones(4, 2)).shape
        torch.Size([4, 5])
    """

    def pair(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The action itself."""
        return action


class InteractionFeatures(PairFeatures):
    """`[s, a, s * a]`; the product is over the leading entries that both a and the compared part of s have.

    An MLP hardly learns a dot product by itself; given the products, it only has to sum them.
    """

    def __init__(self, state_dim: int, action_dim: int, n_pairs: int = 0, compared: slice | None = None):
        super().__init__(state_dim, action_dim, n_pairs, compared)
        self.shared_dim = min(self.compared.stop - self.compared.start, action_dim)
        self.pair_dim = action_dim + self.shared_dim

    def shared(self, state: th.Tensor, action: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """The compared entries of states (..., d_s) and of actions (..., d_a), (..., shared_dim) each."""
        return state[..., self.compared][..., : self.shared_dim], action[..., : self.shared_dim]

    def pair(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The action and its product with the state."""
        s, a = self.shared(state, action)
        return th.cat([action, s * a], dim=-1)


class BlockwiseFeatures(InteractionFeatures):
    """`[s, a, s * a, similarity of each block, pairs]`; the product is that of centred vectors, times sqrt(m).

    m is the number of entries that state and action share. They are cut into blocks of equal size, such as hard and
    soft skills. A similarity is the cosine of a state's and an action's block, after the mean action is subtracted from
    both. With `whole` the cosine of all m entries stands behind those of the blocks. A similarity is divided by the
    standard deviation of such cosines between two random actions. The mean is subtracted because embeddings of texts
    lie in a narrow cone: what all texts have in common says nothing about which of them fit (Mu and Viswanath,
    "All-but-the-Top", ICLR 2018). The numbers `pairs` are standardised, and values far from the mean are compressed. A
    share of skills, for example, is 0 for most pairs, so a pair with a share of 1 lies ten standard deviations from the
    mean. Without compression one bad answer to such a pair could reverse the sign of the learned weight.

    Mean and deviation of actions come from the table of all actions, if there is one (:meth:`fit`). Otherwise they come
    from the distinct actions, up to 1,024, among the first 20,000 candidates seen (:meth:`see`). Mean and deviation of
    `pairs` come from the first 20,000 pairs seen. If an environment gives a sample of decisions, the sample takes the
    place of what is seen (:meth:`fit_sample`). What comes from actions or pairs that were seen is computed again each
    time their number has doubled. Before the first time, the mean action is 0, and the `pairs` of a decision are
    standardised among themselves.

    Args:
        state_dim: d_s.
        action_dim: d_a.
        n_pairs: p.
        compared: The columns of the state that are compared with an action; None for all.
        n_blocks: How many blocks.
        whole: Whether there is also the similarity of all shared entries at once; for two blocks and more. A `prior`
            has its weight behind those of the blocks, such as `[0.03, 0.03, 0.11]`.

    Attributes:
        n_cosines: How many similarities of vectors there are: one for each block and, with `whole`, one more.

    Raises:
        ValueError: If the shared entries cannot be cut into `n_blocks` equal blocks, if there are no shared entries, or
            if `whole` is True and the only block is the whole.

    Example:
        >>> BlockwiseFeatures(4, 6, n_blocks=2)(th.ones(3, 4), th.ones(3, 6)).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        n_pairs: int = 0,
        compared: slice | None = None,
        n_blocks: int = 2,
        whole: bool = False,
    ):
        super().__init__(state_dim, action_dim, n_pairs, compared)
        if not self.shared_dim:
            raise ValueError(
                "Blockwise features compare the state with each action, but the state has no entries: let the "
                'observation have one beside `candidates`, or take features="concat".'
            )
        if not is_whole(n_blocks) or n_blocks < 1 or self.shared_dim % n_blocks:
            raise ValueError(
                f"`n_blocks` must be 1 or more and divide the {self.shared_dim} leading entries that state and action "
                f"share, got {n_blocks!r:.80}. 1 compares all of them at once."
            )
        if require_flag("whole", whole) and n_blocks == 1:
            raise ValueError("`whole` must be False where `n_blocks` is 1: the only block is the whole.")
        self.n_blocks = n_blocks
        self.whole = whole
        self.n_cosines = n_blocks + whole
        self.n_similarities = self.n_cosines + n_pairs
        self.pair_dim += self.n_cosines
        self._centre = th.zeros(self.shared_dim)
        self._deviation = th.ones(self.n_cosines)
        self._has_table = False
        self._actions = SeenActions(self.shared_dim)
        self._pairs = SeenPairs(n_pairs)
        self._residuals = PairResiduals(self.n_cosines, n_pairs)
        self.uses_residuals = False

    @property
    def settled(self) -> bool:
        """Whether :meth:`see` changes nothing any more."""
        return (self._has_table or self._actions.is_full) and (
            not self.n_pairs or (self._pairs.is_full and self._residuals.is_full)
        )

    def fit(self, actions: np.ndarray) -> None:
        """Compute the mean of actions (n, d_a), and the spread of the cosines of 2,000 fixed random pairs of them."""
        self._has_table = True
        self._scale_to(actions[:, : self.shared_dim])

    def fit_sample(self, state: np.ndarray, candidates: np.ndarray, pairs: np.ndarray | None) -> None:
        """Compute means, deviations and the regression from a sample of decisions, instead of from those seen later."""
        if not self._has_table:
            self._actions.fit(self._rows_of(candidates))
            self._scale_to(self._actions.rows)
        if pairs is not None:
            self._pairs.fit(pairs.reshape(-1, self.n_pairs))
            self._residuals.fit(*self._regressed(state, candidates, pairs))

    def see(self, state: np.ndarray, candidates: np.ndarray, pairs: np.ndarray | None) -> None:
        """Compute means and deviations again if twice as much was seen as at the last computation."""
        is_new = False
        if not self._has_table and self._actions.add(self._rows_of(candidates)):
            self._scale_to(self._actions.rows)
            is_new = True
        if pairs is not None:
            is_new |= self._pairs.add(pairs.reshape(-1, self.n_pairs))
            if self.uses_residuals and not self._residuals.is_full:
                if is_new:
                    self._residuals.restart()
                is_new |= self._residuals.add(*self._regressed(state, candidates, pairs))
        self.version += is_new

    def _rows_of(self, candidates: np.ndarray) -> np.ndarray:
        """The compared entries of candidates, (n k, shared_dim)."""
        return np.asarray(candidates).reshape(-1, self.action_dim)[:, : self.shared_dim]

    def _regressed(self, state: np.ndarray, candidates: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Similarities (n k, n_cosines) and scaled numbers (n k, p) of pairs, float64."""
        s, a = self.shared(th.as_tensor(state), th.as_tensor(candidates))
        similarities = th.cat([self.of_blocks(s[row : row + 1, None], a[row : row + 1]) for row in range(len(s))])
        scaled = self.scaled(th.as_tensor(pairs))
        return similarities.flatten(0, 1).double().numpy(), scaled.flatten(0, 1).double().numpy()

    def scaled(self, pairs: th.Tensor) -> th.Tensor:
        """Standardised numbers (..., p) of pairs. `2 tanh(x / 2)` compresses values beyond one or two deviations.

        Before any numbers were seen, a decision's numbers, (n, k, p), are standardised among its own k candidates.
        """
        mean, deviation = self._pairs.mean.to(pairs.device), self._pairs.deviation.to(pairs.device)
        if self._pairs.is_empty and pairs.ndim > 2:
            mean = pairs.mean(dim=-2, keepdim=True)
            deviation = pairs.std(dim=-2, keepdim=True, correction=0)
            deviation = th.where(deviation > NO_SPREAD, deviation, 1.0)
        return 2 * th.tanh((pairs - mean) / deviation / 2)

    def residuals(self, similarities: th.Tensor, scaled: th.Tensor, kept: th.Tensor | None = None) -> th.Tensor:
        """What similarities (..., n_cosines) do not predict of numbers (..., p) in the scale of :meth:`scaled`.

        These are the residuals of a linear regression, see :class:`PairResiduals`, over the pairs of the sample or over
        pairs that were seen. The weight of a residual says what a number adds to the similarities. Before any pairs
        were seen, the numbers are returned as they are. A model that uses residuals sets `uses_residuals`. Numbers that
        are `kept`, (p,) bool, are not replaced.
        """
        left = self._residuals(similarities, scaled)
        return left if kept is None else th.where(kept.to(scaled.device), scaled, left)

    def centred(self, vectors: th.Tensor) -> th.Tensor:
        """Vectors (..., shared_dim), see :meth:`shared`, minus the mean action."""
        return vectors - self._centre.to(vectors.device)

    def similarities(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The similarities: (..., d_s), (..., d_a) -> (..., n_cosines)."""
        return self.of_blocks(*self.shared(state, action))

    def pair(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The action, the product of centred state and action, and their similarities."""
        s, a = self.shared(state, action)
        product = self.shared_dim**0.5 * self.centred(s) * self.centred(a)
        return th.cat([action, product, self.of_blocks(s, a)], dim=-1)

    def of_blocks(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """:meth:`similarities` of states and actions given by their compared entries only, (..., shared_dim) each."""
        cosines = []
        for n in self._cuts:
            s, a = (self.centred(vectors).unflatten(-1, (n, -1)) for vectors in (state, action))
            cosines.append(F.cosine_similarity(s, a, dim=-1))
        return th.cat(cosines, dim=-1) / self._deviation.to(state.device)

    def of_all(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """Similarities (n, k, n_cosines) of n states (n, shared_dim) with k actions (k, shared_dim), each with each."""
        cosines = []
        for n in self._cuts:
            s, a = (F.normalize(self.centred(vectors).unflatten(-1, (n, -1)), dim=-1) for vectors in (state, action))
            cosines.append(th.einsum("nbd,kbd->nkb", s, a))
        return th.cat(cosines, dim=-1) / self._deviation.to(state.device)

    def get_state(self) -> dict[str, th.Tensor]:
        """The actions and pairs that were seen, and the scale computed from them."""
        scale = {"centre": self._centre, "deviation": self._deviation, "version": th.tensor(self.version)}
        return {**scale, **self._actions.get_state(), **self._pairs.get_state(), **self._residuals.get_state()}

    def set_state(self, state: Mapping[str, th.Tensor]) -> None:
        """Put back what :meth:`get_state` gave."""
        self._centre, self._deviation = state["centre"].cpu(), state["deviation"].cpu()
        self.version = int(state["version"])
        self._actions.set_state(state)
        self._pairs.set_state(state)
        self._residuals.set_state(state)
        if self._pairs.is_full and not self._residuals.is_full and "residuals_counts" not in state:
            self._residuals.close()  # an earlier version saved the state: what is settled stays as it is

    @property
    def _cuts(self) -> tuple[int, ...]:
        """Into how many blocks the shared entries are cut, for each group of similarities."""
        return (self.n_blocks, 1) if self.whole else (self.n_blocks,)

    def _scale_to(self, actions: np.ndarray) -> None:
        """Compute mean and deviation from the compared entries of actions, (n, shared_dim)."""
        self._centre = th.as_tensor(np.asarray(actions.mean(axis=0, dtype=np.float64), np.float32))
        left, right = np.random.default_rng(0).integers(len(actions), size=(2, 2_000))
        self._deviation = th.ones(self.n_cosines)
        similarities = self.of_blocks(*(th.as_tensor(np.asarray(actions[rows], np.float32)) for rows in (left, right)))
        deviation = similarities.std(dim=0)
        self._deviation = th.where(deviation > NO_SPREAD, deviation, 1.0)


FEATURES: dict[str, type[PairFeatures]] = {
    "concat": ConcatFeatures,
    "interaction": InteractionFeatures,
    "blockwise": BlockwiseFeatures,
}


def make_features(
    features: str | type[PairFeatures], layout: CandidateLayout, table: ActionTable | None = None, **kwargs: Any
) -> PairFeatures:
    """Features by name (a key of :data:`FEATURES`) or by class, fitted to the table of actions if there is one.

    Args:
        features: Name or class.
        layout: Layout of the observations whose states, candidates and pairs they describe.
        table: Features of every action, for id observations.
        **kwargs: Further arguments of the class.

    Raises:
        ValueError: If there is no such name, or ids come without a table.
    """
    if isinstance(features, str):
        if features not in FEATURES:
            raise ValueError(
                f"`features` must be one of {sorted(FEATURES)} or a subclass of PairFeatures, got {features!r:.80}"
                f"{suggestion(features, FEATURES)}"
            )
        features = FEATURES[features]
    if not (isinstance(features, type) and issubclass(features, PairFeatures)):
        raise ValueError(
            f"`features` must be one of {sorted(FEATURES)} or a subclass of PairFeatures, got {features!r:.80}."
        )
    action_dim = layout.action_dim if table is None else table.dim
    if action_dim is None:
        raise ValueError("`action_table` must be given where `candidates` are ids: pass `action_features=` to DynaQ.")
    # These arguments are passed only if needed, so that a class of your own need not have them.
    if layout.n_pairs:
        kwargs["n_pairs"] = layout.n_pairs
    if layout.compared != slice(0, layout.state_dim):
        kwargs["compared"] = layout.compared
    made = features(layout.state_dim, action_dim, **kwargs)
    if table is not None:
        made.fit(table.values)
    return made


def candidates_of_ids(table: ActionTable, ids: np.ndarray) -> th.Tensor:
    """Features (n, k, d_a) of candidate ids (n, k). If all n rows are the same, they share their memory."""
    if len(ids) > 1 and (ids == ids[0]).all():
        return th.as_tensor(table.rows(ids[0])).expand(len(ids), -1, -1)
    return th.as_tensor(table.rows(ids))


def prior_weights(prior: Sequence[float], features: PairFeatures) -> th.Tensor:
    """The weights of the similarities as a tensor, checked. Weights of `pairs` that are left out are 0.

    Raises:
        ValueError: If there is neither one finite weight for each similarity, nor one for each similarity and each
            number of `pairs`; or if the features have no similarities.
    """
    prior = require_row("prior", prior)
    if not np.isfinite(prior).all():
        raise ValueError(f"`prior` must hold finite weights, got {prior}.")
    n, n_pairs = features.n_similarities, features.n_pairs
    if not n or len(prior) not in (n, n - n_pairs):
        also = f", and optionally one for each of the {n_pairs} numbers of `pairs`" if n_pairs else ""
        raise ValueError(
            f"`prior` must hold a weight for each of the {max(n - n_pairs, 0)} similarities of "
            f"{type(features).__name__}{also}, got {prior}. Features with similarities are 'blockwise': one for each "
            "block, and one more with `whole=True`."
        )
    return th.tensor(prior + [0.0] * (n - len(prior)))


class SeenActions:
    """The distinct actions, up to 1,024, among the first 20,000 that were shown.

    Args:
        dim: Size of an action.

    Attributes:
        rows: (n, dim) float32.
    """

    CAPACITY = 1_024
    LOOKED_AT = 20_000  # a limit for catalogues that have fewer distinct actions than CAPACITY

    def __init__(self, dim: int):
        self.rows = np.zeros((0, dim), np.float32)
        self._known: set[bytes] = set()
        self._count = 0
        self._due = 1

    @property
    def is_full(self) -> bool:
        """Whether nothing more is kept."""
        return len(self.rows) >= self.CAPACITY or self._count >= self.LOOKED_AT

    def add(self, rows: np.ndarray) -> bool:
        """Keep the rows (n, dim) that are new; returns whether twice as many are kept as when it last returned True."""
        if self.is_full:
            return False
        self._count += len(rows)
        new = {key: row for row in rows if (key := row.tobytes()) not in self._known}
        kept = list(new)[: self.CAPACITY - len(self.rows)]
        if kept:
            self._known.update(kept)
            self.rows = np.concatenate([self.rows, np.array([new[key] for key in kept], np.float32)])
        is_due = len(self.rows) >= self._due
        if is_due:
            self._due = min(2 * len(self.rows), self.CAPACITY)
        return is_due

    def fit(self, rows: np.ndarray) -> None:
        """Keep the distinct rows of a sample (n, dim); no rows are added after it."""
        self.add(rows)
        self._count = self.LOOKED_AT

    def get_state(self) -> dict[str, th.Tensor]:
        """The actions that were seen, and how many. Once nothing more is kept, the actions are not needed."""
        rows, count = (self.rows[:0], self.LOOKED_AT) if self.is_full else (self.rows, self._count)
        return {"actions": th.as_tensor(rows), "actions_counts": th.tensor([count, self._due])}

    def set_state(self, state: Mapping[str, th.Tensor]) -> None:
        """Put back what :meth:`get_state` gave."""
        self.rows = state["actions"].cpu().numpy()
        self._count, self._due = state["actions_counts"].tolist()
        self._known = {row.tobytes() for row in self.rows}


class SeenPairs:
    """Mean and standard deviation of the numbers of the first 20,000 pairs that were shown.

    Args:
        dim: p, how many numbers a pair has.

    Attributes:
        mean: (p,) float32; 0 before anything was seen.
        deviation: (p,) float32; 1 before anything was seen, and for a number that does not vary.
    """

    CAPACITY = 20_000

    def __init__(self, dim: int):
        self.mean, self.deviation = th.zeros(dim), th.ones(dim)
        self._sums = np.zeros((2, dim))
        self._count = 0
        self._due = 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted."""
        return self._count == 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more is counted."""
        return self._count >= self.CAPACITY

    def fit(self, pairs: np.ndarray) -> None:
        """Compute mean and deviation from a sample (n, p) with n of 1 or more; no pairs are counted after it."""
        self.add(pairs)
        self._count = self.CAPACITY

    def add(self, pairs: np.ndarray) -> bool:
        """Count pairs (n, p); returns whether mean and deviation were computed again.

        They are computed again each time the number of pairs has doubled.
        """
        if self.is_full:
            return False
        self._sums += np.stack([pairs.sum(axis=0, dtype=np.float64), np.square(pairs, dtype=np.float64).sum(axis=0)])
        self._count += len(pairs)
        if self._count < self._due:
            return False
        self._due = 2 * self._count
        mean, square = self._sums / self._count
        deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
        deviation[deviation <= NO_SPREAD] = 1.0
        self.mean, self.deviation = (th.as_tensor(values, dtype=th.float32) for values in (mean, deviation))
        return True

    def get_state(self) -> dict[str, th.Tensor]:
        """The sums over the pairs that were seen, and the scale computed from them."""
        counts = th.tensor([self._count, self._due])
        sums = th.tensor(self._sums)  # a copy, because `add` changes the sums in place
        return {"pairs_mean": self.mean, "pairs_deviation": self.deviation, "pairs_sums": sums, "pairs_counts": counts}

    def set_state(self, state: Mapping[str, th.Tensor]) -> None:
        """Put back what :meth:`get_state` gave."""
        self.mean, self.deviation = state["pairs_mean"].cpu(), state["pairs_deviation"].cpu()
        self._sums = state["pairs_sums"].cpu().numpy().copy()
        self._count, self._due = state["pairs_counts"].tolist()


class PairResiduals:
    """What similarities do not predict of the numbers of pairs, by a linear regression over up to 20,000 pairs.

    Similarities and numbers both have a standard deviation of about 1. A residual is divided by its standard deviation,
    but never by less than 0.2. If the similarities predict a number almost exactly, its residual is tiny. Without this
    limit it would be enlarged to a standard deviation of 1. The fewer pairs there are, the more the slopes are drawn to
    0 (ridge regression). With 20,000 pairs the regression is one of least squares.

    Args:
        n_similarities: b, how many similarities predict.
        dim: p, how many numbers a pair has.
    """

    CAPACITY = SeenPairs.CAPACITY
    # The ridge acts like this many invented pairs, in which numbers do not depend on similarities. It fades to 0 at
    # `CAPACITY` pairs.
    RIDGE = 10.0
    LEAST_DEVIATION = 0.2
    LEAST_VARIANCE = 1e-4  # directions of the similarities that vary less do not predict

    def __init__(self, n_similarities: int, dim: int):
        self.n_similarities = n_similarities
        self._dim = dim
        self._begin()

    def _begin(self) -> None:
        b, p = self.n_similarities, self._dim
        self._moments = np.zeros((1 + b + p,) * 2)  # sums of products of 1, similarities and numbers
        self._count = self._counted_before = 0
        self._due = 1
        self._intercept, self._slopes, self._deviation = th.zeros(p), th.zeros(b, p), th.ones(p)

    @property
    def is_full(self) -> bool:
        """Whether nothing more is counted."""
        return self._counted_before + self._count >= self.CAPACITY

    def close(self) -> None:
        """Count nothing more."""
        self._counted_before = self.CAPACITY

    def fit(self, similarities: np.ndarray, numbers: np.ndarray) -> None:
        """Regress the numbers of a sample, see :meth:`add`; no pairs are counted after it."""
        self.add(similarities, numbers)
        self.close()

    def restart(self) -> None:
        """Count anew, because similarities or numbers have another scale.

        The last regression stays until half as many pairs were counted as before.
        """
        self._counted_before += self._count
        self._moments[:] = 0.0
        self._count, self._due = 0, max(1, self._counted_before // 2)

    def add(self, similarities: np.ndarray, numbers: np.ndarray) -> bool:
        """Count pairs by similarities (n, b) and numbers (n, p); returns whether the regression was computed again.

        It is computed again each time the number of pairs has doubled.
        """
        if self.is_full:
            return False
        rows = np.concatenate([np.ones((len(numbers), 1)), similarities, numbers], axis=1)
        self._moments += rows.T @ rows
        self._count += len(rows)
        if self._count < self._due:
            return False
        self._due = 2 * self._count
        mean = self._moments[0, 1:] / self._count
        covariance = self._moments[1:, 1:] / self._count - np.outer(mean, mean)
        b = self.n_similarities
        own, between = covariance[:b, :b], covariance[:b, b:]
        ridge = self.RIDGE * max(0.0, 1 / self._count - 1 / self.CAPACITY)
        variances, directions = np.linalg.eigh(own)
        shares = np.where(variances > self.LEAST_VARIANCE, 1 / np.maximum(variances + ridge, self.LEAST_VARIANCE), 0.0)
        slopes = (directions * shares) @ directions.T @ between
        left = np.diag(covariance[b:, b:]) - np.einsum("bp,bp->p", slopes, 2 * between - own @ slopes)
        deviation = np.maximum(np.sqrt(np.maximum(left, 0.0)), self.LEAST_DEVIATION)
        found = mean[b:] - mean[:b] @ slopes, slopes, deviation
        self._intercept, self._slopes, self._deviation = (th.as_tensor(part, dtype=th.float32) for part in found)
        return True

    def __call__(self, similarities: th.Tensor, numbers: th.Tensor) -> th.Tensor:
        """Similarities (..., b), numbers (..., p) -> residuals (..., p) in standard deviations."""
        intercept, slopes, deviation = (part.to(numbers) for part in (self._intercept, self._slopes, self._deviation))
        return (numbers - intercept - similarities @ slopes) / deviation

    def get_state(self) -> dict[str, th.Tensor]:
        """The moments of the pairs that were seen, and the regression computed from them."""
        moments = th.tensor(self._moments)  # a copy, because `add` changes the moments in place
        counts = th.tensor([self._count, self._counted_before, self._due])
        regression = {"intercept": self._intercept, "slopes": self._slopes, "deviation": self._deviation}
        return {
            f"residuals_{name}": value for name, value in {**regression, "moments": moments, "counts": counts}.items()
        }

    def set_state(self, state: Mapping[str, th.Tensor]) -> None:
        """Put back what :meth:`get_state` gave; an agent that an earlier version saved has nothing of it."""
        if "residuals_counts" not in state:
            self._begin()
            return
        self._intercept, self._slopes, self._deviation = (
            state[f"residuals_{name}"].cpu() for name in ("intercept", "slopes", "deviation")
        )
        self._moments = state["residuals_moments"].cpu().numpy().copy()
        self._count, self._counted_before, self._due = state["residuals_counts"].tolist()
