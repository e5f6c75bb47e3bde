"""What a network sees of an observation: state, candidates, and the features of a (state, action) pair."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn
from torch.nn import functional as F

from dynaq_algo.linear import linear_of_any_rows

__all__ = [
    "FEATURES",
    "ActionTable",
    "BlockwiseFeatures",
    "CandidateLayout",
    "ConcatFeatures",
    "DecisionBatch",
    "DistinctPairs",
    "InteractionFeatures",
    "PairFeatures",
    "PairNetwork",
    "best_match",
    "make_features",
    "prior_weights",
]

CANDIDATES, ACTION_MASK = "candidates", "action_mask"

# Pairs that a network is asked about at a time: what lies between its layers then stays in the processor's cache.
PIECE = 1_024


class DecisionBatch(NamedTuple):
    """n decisions, each between k candidates.

    Attributes:
        state: (n, d_s) float32.
        candidates: (n, k, d_a) float32 features, or (n, k) int64 ids into an :class:`ActionTable`.
        mask: (n, k) bool, True where a candidate may be chosen; None if all may.
    """

    state: np.ndarray
    candidates: np.ndarray
    mask: np.ndarray | None

    def take(self, rows: np.ndarray) -> DecisionBatch:
        """The decisions of some rows, by index or by mask."""
        return DecisionBatch(self.state[rows], self.candidates[rows], None if self.mask is None else self.mask[rows])


class DistinctPairs(NamedTuple):
    """Pairs between few states and few actions, each vector once.

    Attributes:
        state: (m, d_s).
        state_row: int64, which state a pair has; (n,), or (n, 1) for n decisions.
        action: (l, d_a).
        action_row: int64, which action a pair has; (n,), or (n, k).
    """

    state: th.Tensor
    state_row: th.Tensor
    action: th.Tensor
    action_row: th.Tensor

    def take(self, rows: slice) -> DistinctPairs:
        """Some of the n, in order; the vectors are those of all."""
        return self._replace(state_row=self.state_row[rows], action_row=self.action_row[rows])


class CandidateLayout:
    """Reads Dict observations with a `candidates` entry.

    Every entry but `candidates` and `action_mask`, flattened in the space's key order as
    :func:`gymnasium.spaces.flatten` does (one-hot for discrete entries), is the state.

    Args:
        observation_space: A Dict with `candidates`: a Box (k, d_a) of features or an integer Box (k,) of ids.
        action_space: Discrete(k), the index of the chosen candidate.

    Raises:
        ValueError: If the spaces are of another kind, or do not agree on k.

    Example:
        >>> space = spaces.Dict(user=spaces.Box(-1, 1, (3,)), candidates=spaces.Box(-1, 1, (5, 2)))
        >>> layout = CandidateLayout(space, spaces.Discrete(5))
        >>> layout.state_dim, layout.n_candidates, layout.uses_ids
        (3, 5, False)
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space):
        wanted = "`Dict(..., candidates=Box(k, d_a))` of features or `Dict(..., candidates=integer Box(k,))` of ids"
        if not isinstance(observation_space, spaces.Dict):
            raise ValueError(
                f"The observation space must be {wanted}, got {observation_space}. "
                "Wrap the observation, discrete features included, into a Dict, e.g. "
                "`gym.wrappers.TransformObservation(env, lambda obs: {'state': obs, 'candidates': features}, "
                "Dict(state=..., candidates=Box(-1, 1, (k, d_a))))`."
            )
        if CANDIDATES not in observation_space.spaces:
            raise ValueError(
                f"The observation space must have an entry `candidates`, {wanted}, "
                f"got {sorted(observation_space.spaces)}. "
                "For a fixed set of discrete actions, add their one-hot features: `candidates=Box(0, 1, (k, k))`."
            )
        candidates = observation_space[CANDIDATES]
        integer = np.issubdtype(candidates.dtype or float, np.integer)
        if (
            not isinstance(candidates, spaces.Box)
            or len(candidates.shape) not in (1, 2)
            or (len(candidates.shape) == 1 and not integer)
        ):
            raise ValueError(
                f"`candidates` must be a Box (k, d_a) of features or an integer Box (k,) of ids, got {candidates}. "
                "Give one number per candidate as features of shape (k, 1)."
            )
        n_candidates = candidates.shape[0]
        if not isinstance(action_space, spaces.Discrete) or action_space.start != 0 or action_space.n != n_candidates:
            raise ValueError(
                f"The action space must be Discrete(k={n_candidates}), an index into `candidates` {candidates.shape}, "
                f"got {action_space}. Make `candidates` and the action space agree; hide actions with `action_mask`."
            )
        mask = observation_space.spaces.get(ACTION_MASK)
        if mask is not None and mask.shape != (n_candidates,):
            raise ValueError(f"`action_mask` must have shape (k={n_candidates},), got {mask}.")

        self.uses_ids = len(candidates.shape) == 1
        self.has_mask = mask is not None
        self.n_candidates = int(n_candidates)
        self.action_dim = None if self.uses_ids else int(candidates.shape[1])
        self._candidates_shape = candidates.shape
        self._state_spaces = {
            key: space for key, space in observation_space.spaces.items() if key not in (CANDIDATES, ACTION_MASK)
        }
        for key, space in self._state_spaces.items():
            if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
                raise ValueError(
                    f"Entry `{key}` of the observation must be Box, Discrete, MultiDiscrete or MultiBinary, "
                    f"got {space}. Encode it as numbers in an observation wrapper."
                )
        self.state_dim = sum(spaces.flatdim(space) for space in self._state_spaces.values())

    def is_batch(self, obs: Mapping[str, Any]) -> bool:
        """Whether `obs` holds n observations, rather than one.

        Raises:
            ValueError: If it is no mapping, an entry is missing, or `candidates` has another shape than the space.
        """
        if not isinstance(obs, Mapping):
            raise ValueError(
                f"An observation must be a dict with the entries {self._keys}, got {type(obs).__name__}. "
                "Gymnasium's `env.reset()` returns `(obs, info)`: pass the first."
            )
        if missing := [key for key in self._keys if key not in obs]:
            raise ValueError(f"The observation lacks {missing}; it must have the entries {self._keys}.")
        shape = np.shape(obs[CANDIDATES])
        if shape == self._candidates_shape:
            return False
        if shape[1:] == self._candidates_shape:
            return True
        raise ValueError(
            f"`candidates` must have shape {self._candidates_shape}, or (n, ...) for a batch, got {shape}. "
            "Make the environment with the number of candidates that the agent was built for."
        )

    def read(self, obs: Mapping[str, Any]) -> DecisionBatch:
        """State, candidates and mask of one observation (n = 1) or of a batch; may share memory with `obs`."""
        batch = self.is_batch(obs)
        n = len(obs[CANDIDATES]) if batch else 1
        parts = [_flatten_batch(space, obs[key], n) for key, space in self._state_spaces.items()]
        if len(parts) == 1:
            state = parts[0]
        else:
            state = np.concatenate(parts, axis=1) if parts else np.zeros((n, 0), np.float32)
        candidates = np.asarray(obs[CANDIDATES], np.int64 if self.uses_ids else np.float32)
        mask = np.asarray(obs[ACTION_MASK]).reshape(n, -1).astype(bool) if self.has_mask else None
        return DecisionBatch(state, candidates.reshape(n, *self._candidates_shape), mask)

    @property
    def _keys(self) -> list[str]:
        return [*self._state_spaces, CANDIDATES, *([ACTION_MASK] if self.has_mask else [])]


class ActionTable:
    """The features of every action that an id can name; may stay on disk.

    Args:
        values: (n_actions, d_a), any float type, or the path of an `.npy` file, which is memory-mapped.

    Attributes:
        path: Where the table lies on disk (also of an `np.memmap`), or None.
        dim: d_a.

    Raises:
        ValueError: If it is no two-dimensional table of numbers.
    """

    def __init__(self, values: np.ndarray | str | PathLike[str]):
        if isinstance(values, (str, PathLike)):
            values = np.load(values, mmap_mode="r", allow_pickle=False)
        if not isinstance(values, np.ndarray) or values.ndim != 2 or not np.issubdtype(values.dtype, np.number):
            found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            raise ValueError(
                "`action_features` must be an array (n_actions, d_a) of numbers or the path of an .npy file, "
                f"got {found}."
            )
        self.values = values
        self.dim = int(values.shape[1])
        self.path = _memmap_path(values)
        self._sha256: str | None = None

    def __len__(self) -> int:
        """Number of actions."""
        return len(self.values)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Features (..., d_a) float32 of ids (...).

        Raises:
            ValueError: If an id names no row.
        """
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
            raise ValueError(
                f"Ids must be in [0, {len(self)}), the rows of `action_features`, got {ids.min()} to {ids.max()}. "
                "Pass the table that the environment's ids refer to."
            )
        return np.asarray(self.values[ids], np.float32)

    @property
    def sha256(self) -> str:
        """Checksum over type, shape and values; read once, in pieces."""
        if self._sha256 is None:
            digest = hashlib.sha256(f"{self.values.dtype.str} {self.values.shape}".encode())
            for start in range(0, len(self), 65_536):
                digest.update(np.ascontiguousarray(self.values[start : start + 65_536]).data)
            self._sha256 = digest.hexdigest()
        return self._sha256


class PairFeatures:
    """A (state, action) pair as one network input `[state, pair(state, action)]`.

    A subclass sets `pair_dim` and defines :meth:`pair`; it has no parameters, so that the Q-network, its target and the
    world model share one input.

    Args:
        state_dim: d_s.
        action_dim: d_a.

    Attributes:
        n_similarities: How many entries at the end of the input are similarities of state and action, which a prior
            can weigh.
    """

    pair_dim: int
    n_similarities = 0

    def __init__(self, state_dim: int, action_dim: int):
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.pair_dim = action_dim

    @property
    def separable(self) -> bool:
        """Whether :meth:`pair` is the action itself: a layer's product with it then is the same for every state."""
        return type(self).pair is ConcatFeatures.pair

    @property
    def output_dim(self) -> int:
        """Size of one network input."""
        return self.state_dim + self.pair_dim

    def fit(self, actions: np.ndarray) -> None:
        """Learn what can be learned from actions alone, (n, d_a), before any interaction; nothing by default."""

    def pair(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The part that depends on the action: (..., d_s), (..., d_a) -> (..., pair_dim)."""
        raise NotImplementedError

    def __call__(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The whole input: (n, d_s), (n, d_a) -> (n, output_dim)."""
        return th.cat([state, self.pair(state, action)], dim=-1)

    def of_pairs(self, pairs: DistinctPairs) -> th.Tensor:
        """The whole inputs (n, output_dim) of n pairs."""
        if self.separable:  # each vector goes to its place at once
            inputs = pairs.state.new_empty(len(pairs.state_row), self.output_dim)
            th.index_select(pairs.state, 0, pairs.state_row, out=inputs[:, : self.state_dim])
            th.index_select(pairs.action, 0, pairs.action_row, out=inputs[:, self.state_dim :])
            return inputs
        return self(pairs.state[pairs.state_row], pairs.action[pairs.action_row])


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
    """`[s, a, s * a]`, the product over the min(d_s, d_a) leading entries that both have.

    An MLP does not find a dot product by itself; given the product, it has only to sum.
    """

    def __init__(self, state_dim: int, action_dim: int):
        super().__init__(state_dim, action_dim)
        self.shared_dim = min(state_dim, action_dim)
        self.pair_dim = action_dim + self.shared_dim

    def pair(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The action and its product with the state."""
        return th.cat([action, state[..., : self.shared_dim] * action[..., : self.shared_dim]], dim=-1)


class BlockwiseFeatures(InteractionFeatures):
    """`[s, a, s * a, similarity of each block]`, the product being of centred vectors and scaled to their size.

    The leading entries that state and action share are cut into blocks of equal size (hard and soft skills, say). A
    similarity is the cosine of a state's and an action's block, both less the mean action, over the standard deviation
    of that cosine between actions. What all texts have in common says nothing about which fits: embeddings lie in a
    narrow cone, and to subtract the mean opens it (Mu and Viswanath, "All-but-the-Top", ICLR 2018).

    Mean and deviation come from the table of actions, so they need ids as observations; without a table the mean is 0
    and the deviation 1.

    Args:
        state_dim: d_s.
        action_dim: d_a.
        n_blocks: How many blocks.

    Raises:
        ValueError: If the shared entries cannot be cut into so many equal blocks.

    Example:
        >>> BlockwiseFeatures(4, 6, n_blocks=2)(th.ones(3, 4), th.ones(3, 6)).shape
        torch.Size([3, 16])
    """

    def __init__(self, state_dim: int, action_dim: int, n_blocks: int = 2):
        super().__init__(state_dim, action_dim)
        if n_blocks < 1 or self.shared_dim % n_blocks:
            raise ValueError(
                f"`n_blocks` must be 1 or more and divide the {self.shared_dim} leading entries that state and action "
                f"share, got {n_blocks}."
            )
        self.n_similarities = n_blocks
        self.pair_dim += n_blocks
        self._centre = th.zeros(self.shared_dim)
        self._deviation = th.ones(n_blocks)

    def fit(self, actions: np.ndarray) -> None:
        """Take the mean of actions (n, d_a), and the deviation of the cosines of 2,000 fixed random pairs of them."""
        shared = actions[:, : self.shared_dim]
        self._centre = th.as_tensor(np.asarray(shared.mean(axis=0, dtype=np.float64), np.float32))
        pairs = np.random.default_rng(0).integers(len(shared), size=(2, 2_000))
        left, right = (th.as_tensor(np.asarray(shared[rows], np.float32)) for rows in pairs)
        self._deviation = th.ones(self.n_similarities)
        deviation = self.similarities(left, right).std(dim=0)
        self._deviation = th.where(deviation > 0, deviation, 1.0)

    def centred(self, vectors: th.Tensor) -> th.Tensor:
        """The shared entries of states or actions (..., d) less the mean action, (..., shared_dim)."""
        return vectors[..., : self.shared_dim] - self._centre.to(vectors.device)

    def similarities(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """Of each block: (..., d_s), (..., d_a) -> (..., n_blocks)."""
        s, a = (self.centred(vectors).unflatten(-1, (self.n_similarities, -1)) for vectors in (state, action))
        return F.cosine_similarity(s, a, dim=-1) / self._deviation.to(state.device)

    def pair(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The action, the product of both, centred, and their similarities."""
        product = self.shared_dim**0.5 * self.centred(state) * self.centred(action)
        return th.cat([action, product, self.similarities(state, action)], dim=-1)


FEATURES: dict[str, type[PairFeatures]] = {
    "concat": ConcatFeatures,
    "interaction": InteractionFeatures,
    "blockwise": BlockwiseFeatures,
}


def make_features(features: str | type[PairFeatures], state_dim: int, action_dim: int, **kwargs: Any) -> PairFeatures:
    """Features by name (a key of :data:`FEATURES`) or by class; further arguments are the class's own.

    Raises:
        ValueError: If there is no such name.
    """
    if isinstance(features, str):
        if features not in FEATURES:
            raise ValueError(
                f"`features` must be one of {sorted(FEATURES)} or a subclass of PairFeatures, got {features!r}"
                f"{best_match(features, FEATURES)}."
            )
        features = FEATURES[features]
    return features(state_dim, action_dim, **kwargs)


class PairNetwork(nn.Module):
    """An MLP from the features of a pair to one number.

    There is no dropout and no normalisation: training and evaluation mode give the same numbers.

    Args:
        features: Size and make of the input.
        net_arch: Sizes of the hidden layers.
        activation_fn: Class of the activation between them.
        prior: (features.n_similarities,) weights of the similarities that the network begins with: its output is their
            weighted sum plus what the layers say, which is 0 at first. The weights are learned like all others. None
            for no such sum, and an ordinary start.

    Raises:
        ValueError: If there is no hidden layer, or not one weight for each similarity.

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
        if not net_arch or min(net_arch) < 1:
            raise ValueError(f"`net_arch` must name at least one hidden layer of size 1 or more, got {list(net_arch)}.")
        self.features = features
        self.first = nn.Linear(features.output_dim, net_arch[0])
        layers: list[nn.Module] = [activation_fn()]
        for size_in, size_out in zip(net_arch, [*net_arch[1:], 1], strict=True):
            layers += [nn.Linear(size_in, size_out), activation_fn()]
        self.rest = nn.Sequential(*layers[:-1])
        self.prior = None
        if prior is not None:
            self.prior = nn.Parameter(prior_weights(prior, features))
            for parameter in layers[-2].parameters():
                nn.init.zeros_(parameter)

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        """Inputs (n, output_dim) of pairs -> (n,)."""
        return self._with_prior(self.rest(self.first(inputs)).squeeze(-1), inputs)

    def of_pairs(self, pairs: DistinctPairs) -> th.Tensor:
        """Pairs -> (n,), or (n, k) where there are k actions a state.

        With :attr:`PairFeatures.separable` features the first layer sees each state and each action once, however many
        pairs they are in.
        """
        evaluate = self._of_pairs
        if self.features.separable:
            by_state, by_pair = self._halves()
            # The layer's products take the place of the vectors.
            by_states = linear_of_any_rows(pairs.state, by_state, self.first.bias)
            by_actions = linear_of_any_rows(pairs.action, by_pair)
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
        return self.rest(hidden).squeeze(-1)

    def _of_pairs(self, pairs: DistinctPairs) -> th.Tensor:
        if pairs.action_row.ndim == 1:
            return self(self.features.of_pairs(pairs))
        return self.score(pairs.state[pairs.state_row[:, 0]], pairs.action[pairs.action_row])

    def score(self, state: th.Tensor, candidates: th.Tensor) -> th.Tensor:
        """States (n, d_s) and candidates (n, k, d_a) -> (n, k).

        The first layer is one weight, applied in two halves: the state's half once per row, not once per candidate.
        """
        by_state, by_pair = self._halves()
        pair = self.features.pair(state.unsqueeze(1).expand(-1, candidates.shape[1], -1), candidates)
        hidden = linear_of_any_rows(pair, by_pair)
        hidden = hidden + linear_of_any_rows(state, by_state, self.first.bias).unsqueeze(1)
        return self._with_prior(self.rest(hidden).squeeze(-1), pair)

    def _halves(self) -> tuple[th.Tensor, th.Tensor]:
        """The first layer's weight for the state and for what depends on the action."""
        by_state, by_pair = self.first.weight.split([self.features.state_dim, self.features.pair_dim], dim=1)
        return by_state, by_pair

    def _with_prior(self, values: th.Tensor, inputs: th.Tensor) -> th.Tensor:
        return values if self.prior is None else values + inputs[..., -len(self.prior) :] @ self.prior


def _rows_of(table: th.Tensor, rows: th.Tensor) -> th.Tensor:
    """`table[rows]`, of rows (...), but sooner."""
    return table.index_select(0, rows.reshape(-1)).view(*rows.shape, table.shape[-1])


def prior_weights(prior: Sequence[float], features: PairFeatures) -> th.Tensor:
    """The weights of the similarities as a tensor, checked.

    Raises:
        ValueError: If there is not one for each similarity of the features, or none at all.
    """
    if not features.n_similarities or len(prior) != features.n_similarities:
        raise ValueError(
            f"`prior` must hold a weight for each of the {features.n_similarities} similarities of "
            f"{type(features).__name__}, got {list(prior)}. Features with similarities are 'blockwise' (one a block)."
        )
    return th.tensor([float(weight) for weight in prior])


def best_match(name: str, known: Any) -> str:
    """The end of an error message: a suggestion for a misspelt name, or nothing."""
    matches = difflib.get_close_matches(str(name), list(known), n=1)
    return f": did you mean {matches[0]!r}?" if matches else ""


def _flatten_batch(space: spaces.Space, values: Any, n: int) -> np.ndarray:
    """`gymnasium.spaces.flatten` of n values at once: (n, flatdim) float32."""
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(values).reshape(n) - space.start]
    if isinstance(space, spaces.MultiDiscrete):
        sizes, start = space.nvec.reshape(-1), np.asarray(space.start).reshape(-1)
        digits = np.asarray(values).reshape(n, -1) - start
        return np.concatenate([np.eye(int(s), dtype=np.float32)[digits[:, i]] for i, s in enumerate(sizes)], axis=1)
    return np.asarray(values, np.float32).reshape(n, -1)


def _memmap_path(values: np.ndarray) -> str | None:
    """The file beneath an array, also where a view has hidden the memory map."""
    base: Any = values
    while base is not None:
        if isinstance(base, np.memmap) and base.filename is not None:
            return str(Path(base.filename).resolve())
        base = getattr(base, "base", None)
    return None
