"""The inputs of a model of transitions (values of columns, numbers, actions), and the rewards of outcomes and kinds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch as th

from dynaq_algo.features import BlockwiseFeatures

__all__ = ["GRID", "SAME", "OutcomeInputs", "Rewards", "appended", "on_grid"]

GRID = 720_720
"""Numbers are kept as multiples of 1 / 720,720. Among these multiples are 1/2, 1/3, ... 1/16."""

SAME = GRID // 10_000
"""Two numbers count as equal if they differ by at most this many multiples, that is by 1 / 10,000. Numbers that are
no such multiples, for example 1/17, are rounded. With this tolerance they stay equal when they are computed in
different ways."""

_MOST_VALUES = 12
"""A column with at most this many values is categorical; a column with more is a number."""
_APART = 2**48
"""A value's key is the value plus this times its column's number. Keys of different columns are never equal."""
_FEW = 2_048
"""Up to this many numbers, all products are computed at once."""
_COMPONENTS_FROM = 256
"""Principal components are computed once this many distinct actions were seen."""
_KEY_BYTES = 16
"""An action is known by a hash of this many bytes. Two actions have the same hash with a chance of 1 / 2**128."""


class OutcomeInputs:
    """Reads states, candidates and pairs as codes of values, numbers, and principal components.

    A *column* is one of the m of `progress`, or one of the p of `pairs`. While a column has at most 12 different
    values, each value has a code. Each combination of a value of `progress` with a value of `pairs` has a code too. The
    code 0 stands for a value that was never seen, and contributes nothing.

    The *numbers* are the block similarities of state and action, and the columns of `pairs` that have more than 12
    values, in the scale of the features. The squares and products of these follow.

    Args:
        features: The agent's features.
        m: How many columns `progress` has.
        components: How many principal components states and actions have.

    Attributes:
        first_product: The first code of a combination of two values.
        n_codes: One more than the largest code.
        n_numbers: How many numbers a pair has.
    """

    def __init__(self, features: BlockwiseFeatures, m: int, components: int = 16):
        self.features = features
        self.m, self.p = m, features.n_pairs
        self.components = min(components, features.shared_dim)
        self.values: list[list[int]] = [[] for _ in range(m + self.p)]
        self._tell_apart()
        self.first_product = 1 + (m + self.p) * _MOST_VALUES
        self.n_codes = self.first_product + m * self.p * _MOST_VALUES**2
        n = features.n_cosines + self.p
        self.n_numbers = 2 * n + n * (n - 1) // 2
        self._actions: dict[bytes, int] = {}  # indices by the hash of the vector
        # The actions' vectors, until the principal components are computed from them.
        self._vectors = np.zeros((0, features.shared_dim), np.float32)
        self._basis: th.Tensor | None = None
        self._in_components = np.zeros((1, self.components), np.float32)

    @property
    def n_actions(self) -> int:
        """How many distinct actions were seen, plus one: action 0 stands for all that were never seen."""
        return 1 + len(self._actions)

    @property
    def in_components(self) -> th.Tensor:
        """Principal components (n_actions, r) of all actions, scaled so that an action's squares sum to 1 on average.

        The first row, for actions that were never seen, is 0. All rows are 0 before there are components.
        """
        return th.as_tensor(self._in_components[: self.n_actions])

    def learn(self, state: th.Tensor, progress: np.ndarray, candidates: th.Tensor, pairs: th.Tensor | None) -> bool:
        """Note the columns' values and the actions of n decisions; returns whether a column became a number."""
        columns = [progress] if pairs is None else [progress, pairs.reshape(len(progress), -1).cpu().numpy()]
        changed = grown = False
        for place, column in enumerate(np.concatenate(columns, axis=1).T):
            known = self.values[place]
            if len(known) > _MOST_VALUES:
                continue
            for value in sorted(set(on_grid(column).tolist()).difference(known)):
                if all(abs(value - other) > SAME for other in known):
                    known.append(value)
                    grown = True
            changed = changed or len(known) > _MOST_VALUES
        if grown:
            self._tell_apart()
        self._meet(candidates)
        return changed

    def _meet(self, candidates: th.Tensor) -> None:
        n_before = self.n_actions
        new = []
        for row in self._vectors_of(candidates):
            key = _key_of(row)
            if key not in self._actions:
                self._actions[key] = self.n_actions
                new.append(row)
        if not new:
            return
        fresh = np.array(new)
        if self._basis is None:
            placed = np.zeros((len(fresh), self.components), np.float32)
        else:
            placed = self._projected(th.as_tensor(fresh)).numpy()
        self._in_components = appended(self._in_components, placed, n_before)
        if self._basis is None and self.components:
            self._vectors = np.concatenate([self._vectors, fresh])
            if len(self._vectors) >= _COMPONENTS_FROM:
                self._find_components()

    def _find_components(self) -> None:
        n = len(self._vectors)
        centred = self._vectors.astype(np.float64) - self._vectors.mean(axis=0, dtype=np.float64)
        _, spread, axes = np.linalg.svd(centred, full_matrices=False)
        scale = np.sqrt(np.square(spread[: self.components]).sum() / n) or 1.0
        self._basis = th.as_tensor((axes[: self.components] / scale).T, dtype=th.float32)
        self._in_components[1 : self.n_actions] = self._projected(th.as_tensor(self._vectors)).numpy()
        self._vectors = self._vectors[:0]

    def _vectors_of(self, candidates: th.Tensor) -> np.ndarray:
        """The compared entries (n, shared_dim) of all candidates (..., d_a)."""
        _, shared = self.features.shared(candidates[..., :0], candidates)
        return np.ascontiguousarray(shared.reshape(-1, shared.shape[-1]).cpu().numpy())

    def read(
        self,
        state: th.Tensor,
        progress: np.ndarray,
        candidates: th.Tensor,
        pairs: th.Tensor | None,
        similarities: th.Tensor | None = None,
        actions: np.ndarray | None = None,
    ) -> tuple[np.ndarray, th.Tensor, np.ndarray, th.Tensor]:
        """Read n decisions as the model needs them. Similarities and actions are computed if they are not given.

        Returns:
            Codes (n, k, c), numbers (n, k, u), indices (n, k) of the actions, and the state's components (n, 1, r).
        """
        k = candidates.shape[1]
        shown = None if pairs is None else pairs.cpu().numpy()
        if similarities is None:
            similarities = self.features.similarities(state.unsqueeze(1), candidates)
        codes = self.codes_of(progress[:, None], shown, k)
        numbers = self.numbers_of(similarities, progress, shown)
        if actions is None:
            actions = self.actions_of(candidates)
        return codes, numbers, actions, self.state_of(state).unsqueeze(1)

    def codes_of(self, progress: np.ndarray, pairs: np.ndarray | None, k: int | None = None) -> np.ndarray:
        """Codes (..., c) of `progress` (..., m), which broadcasts with `pairs` (..., p)."""
        if pairs is None:
            shape = progress.shape[:-1] if k is None else (*progress.shape[:-2], k)
            # A copy, because torch warns of read-only arrays.
            return np.broadcast_to(self._codes(self._places(progress, 0), 0), (*shape, self.m)).copy()
        m, p = self.m, self.p
        codes = np.empty((*pairs.shape[:-1], m + p + m * p), np.int64)
        own, shown = self._places(progress, 0), self._places(pairs, m)
        codes[..., :m], codes[..., m : m + p] = self._codes(own, 0), self._codes(shown, m)
        all_known = bool((own >= 0).all() and (shown >= 0).all())
        # One column of `progress` at a time: in most decisions its value is the same for all candidates.
        for column in range(m):
            left = own[..., column, None]
            starts = self.first_product + np.arange(column * p, (column + 1) * p) * _MOST_VALUES**2
            both = codes[..., m + (1 + column) * p : m + (2 + column) * p]
            np.add(starts + left * _MOST_VALUES, shown, out=both)
            if not all_known:
                both[np.broadcast_to((left < 0) | (shown < 0), both.shape)] = 0
        return codes

    @staticmethod
    def _codes(places: np.ndarray, first: int) -> np.ndarray:
        """Codes (..., c) of the places (..., c) of values in the columns from `first` on."""
        starts = 1 + (first + np.arange(places.shape[-1])) * _MOST_VALUES
        return np.where(places < 0, 0, starts + places)

    def numbers_of(self, similarities: th.Tensor, progress: np.ndarray, pairs: np.ndarray | None) -> th.Tensor:
        """Numbers (..., u) of similarities (..., n_cosines) and `pairs` (..., p)."""
        n, n_cosines = self.features.n_cosines + self.p, self.features.n_cosines
        # Each number is a row over all pairs, because products of whole rows are many times faster.
        numbers = np.empty((self.n_numbers, *similarities.shape[:-1]), np.float32)
        linear = numbers[:n]
        linear[:n_cosines] = np.moveaxis(similarities.cpu().numpy(), -1, 0)
        if self.p:
            scaled = self.features.scaled(th.as_tensor(pairs)).cpu().numpy()
            linear[n_cosines:] = np.moveaxis(scaled * self._is_number[self.m :].astype(np.float32), -1, 0)
        np.square(linear, out=numbers[n : 2 * n])
        one, other = _columns_to_multiply(n, 1)
        np.multiply(linear[one], linear[other], out=numbers[2 * n :])
        return th.as_tensor(np.moveaxis(numbers, 0, -1))

    def actions_of(self, candidates: th.Tensor) -> np.ndarray:
        """Indices (...) of actions (..., d_a), from 1 on; 0 for one that was never seen."""
        rows = self._vectors_of(candidates)
        found = np.fromiter((self._actions.get(_key_of(row), 0) for row in rows), np.int64, len(rows))
        return found.reshape(candidates.shape[:-1])

    def state_of(self, state: th.Tensor) -> th.Tensor:
        """States (n, d_s) projected on the actions' principal components, (n, r); 0 before these are known."""
        if self._basis is None:
            return th.zeros(len(state), self.components)
        shared, _ = self.features.shared(state, state[..., : self.features.shared_dim])
        return self._projected(shared)

    def _projected(self, vectors: th.Tensor) -> th.Tensor:
        assert self._basis is not None
        return self.features.centred(vectors) @ self._basis

    def _places(self, numbers: np.ndarray, first: int) -> np.ndarray:
        """The places (..., c) of numbers (..., c) among the known values of the columns from `first` on.

        A place is -1 for a new value, or if the column is a number.
        """
        ascending, places = self._index
        found = np.full(numbers.shape, -1)
        columns = np.flatnonzero(~self._is_number[first : first + numbers.shape[-1]])
        if len(ascending) and len(columns):
            keys = on_grid(numbers[..., columns]) + (first + columns) * _APART
            at = np.minimum(np.searchsorted(ascending, keys - SAME), len(ascending) - 1)
            found[..., columns] = np.where(np.abs(ascending[at] - keys) <= SAME, places[at], -1)
        return found

    def _tell_apart(self) -> None:
        """Sort the keys of all columns' values into one row, with their places.

        A column with too many values is left out: it is a number.
        """
        self._is_number = np.array([len(known) > _MOST_VALUES for known in self.values], bool)
        told_apart = [(column, known) for column, known in enumerate(self.values) if len(known) <= _MOST_VALUES]
        keys = np.array([value + column * _APART for column, known in told_apart for value in known], np.int64)
        places = np.array([place for _, known in told_apart for place in range(len(known))], np.int64)
        order = np.argsort(keys)
        self._index = keys[order], places[order]

    def get_state(self) -> dict[str, Any]:
        """The values and actions that were seen, and the principal components."""
        lengths = th.tensor([len(one) for one in self.values])
        flat = th.tensor([value for one in self.values for value in one], dtype=th.int64)
        basis = th.zeros(0, 0) if self._basis is None else self._basis
        keys = np.frombuffer(b"".join(self._actions), np.uint8).reshape(-1, _KEY_BYTES)
        return {
            "lengths": lengths,
            "values": flat,
            "keys": th.as_tensor(keys.copy()),
            "vectors": th.as_tensor(self._vectors.copy()),
            "basis": basis,
            "in_components": self.in_components.clone(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`get_state` gave."""
        ends = np.cumsum(state["lengths"].numpy())
        flat = state["values"].tolist()
        self.values = [flat[end - n : end] for end, n in zip(ends.tolist(), state["lengths"].tolist(), strict=True)]
        self._tell_apart()
        self._basis = state["basis"] if state["basis"].numel() else None
        vectors = state["vectors"].numpy()
        # Files of earlier versions have no keys, but the vectors of all actions.
        keys = [row.tobytes() for row in state["keys"].numpy()] if "keys" in state else map(_key_of, vectors)
        self._actions = {key: 1 + place for place, key in enumerate(keys)}
        self._vectors = vectors.copy() if self._basis is None and self.components else vectors[:0]
        # Components are not computed anew: a product of all actions at once rounds differently, and the mean action may
        # have changed since.
        self._in_components = state["in_components"].numpy().copy()


class Rewards:
    """Predicts the reward of each class of transitions by a ridge regression, exact after each answer.

    The classes are the outcomes of a :class:`~dynaq_algo.transition_model.TransitionModel`, or the kinds of these
    outcomes. The names of arguments say `outcome` in both cases. There is one regression for each class, on `progress`
    and `pairs`. It is linear in the columns of `progress`, in the negative and positive parts of `pairs`, and in the
    squares and products of these. It can therefore predict the reward at a level that no applicant has reached yet, and
    learns that reward quickly once an applicant has reached the level.

    Args:
        m: How many columns `progress` has.
        p: How many columns `pairs` has.
        n_outcomes: Largest number of classes.
    """

    def __init__(self, m: int, p: int, n_outcomes: int):
        n = m + 2 * p
        n_products = n * (n + 1) // 2
        self._n = 1 + n + n_products
        penalty = np.concatenate([[0.1], np.full(n, 0.1), np.full(n_products, 0.3)])
        # Each class's posterior covariance, divided by the noise variance; kept by updates of rank one.
        self._covariance = np.tile(np.diag(1 / penalty), (n_outcomes, 1, 1))
        self._sums = np.zeros((n_outcomes, 2))
        self._weights = np.zeros((n_outcomes, self._n))

    def add(self, progress: np.ndarray, pairs: np.ndarray, outcome: np.ndarray, reward: np.ndarray) -> None:
        """Learn from n transitions: `progress` (n, m), `pairs` (n, p), classes (n,) and rewards (n,)."""
        inputs = self._inputs(progress, pairs)
        for row, one, earned in zip(inputs, outcome.tolist(), np.asarray(reward, np.float64).tolist(), strict=True):
            # As in Sherman and Morrison, 1950. BLAS is not used: its threads cost more than so small a product.
            column = np.einsum("ij,j->i", self._covariance[one], row)
            size = 1.0 + np.einsum("i,i->", column, row)
            self._weights[one] += column * ((earned - np.einsum("i,i->", self._weights[one], row)) / size)
            self._covariance[one] -= np.outer(column, column / size)
            self._sums[one] += earned, 1.0

    def of(self, progress: np.ndarray, pairs: np.ndarray | None, n_outcomes: int) -> np.ndarray:
        """Mean rewards (..., n_outcomes) of `progress` (..., m), which broadcasts with `pairs` (..., p)."""
        inputs = self._inputs(progress, progress[..., :0] if pairs is None else pairs)
        return (th.as_tensor(inputs) @ th.as_tensor(self._weights[:n_outcomes]).T).numpy()

    def means(self, n_outcomes: int) -> np.ndarray:
        """Mean rewards (n_outcomes,) that the classes earned."""
        return self._sums[:n_outcomes, 0] / np.maximum(self._sums[:n_outcomes, 1], 1.0)

    def _inputs(self, progress: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        m, p = progress.shape[-1], pairs.shape[-1]
        n = m + 2 * p
        inputs = np.empty((*np.broadcast_shapes(progress.shape[:-1], pairs.shape[:-1]), self._n))
        inputs[..., 0] = 1.0
        linear = inputs[..., 1 : 1 + n]
        linear[..., :m] = progress
        linear[..., m : m + p], linear[..., m + p :] = np.minimum(pairs, 0.0), np.maximum(pairs, 0.0)
        products = inputs[..., 1 + n :]
        if linear.size <= _FEW:
            one, other = _columns_to_multiply(n, 0)
            np.multiply(linear[..., one], linear[..., other], out=products)
            return inputs
        begin = 0
        # Each column times itself and all later ones. To gather both factors first would take six times as long.
        for column in range(n):
            end = begin + n - column
            np.multiply(linear[..., column, None], linear[..., column:], out=products[..., begin:end])
            begin = end
        return inputs

    def get_state(self) -> dict[str, Any]:
        """The regressions as they were learned."""
        return {
            "covariance": th.as_tensor(self._covariance.copy()),
            "sums": th.as_tensor(self._sums.copy()),
            "weights": th.as_tensor(self._weights.copy()),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`get_state` gave."""
        self._covariance = state["covariance"].numpy().copy()
        self._sums, self._weights = state["sums"].numpy().copy(), state["weights"].numpy().copy()


@lru_cache(maxsize=16)
def _columns_to_multiply(n: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """The two columns of each product: each of n columns with those at least `offset` places behind it."""
    return np.triu_indices(n, k=offset)


def on_grid(numbers: np.ndarray) -> np.ndarray:
    """Numbers (...) in units of 1 / :data:`GRID`, rounded, int64."""
    return np.rint(np.asarray(numbers, np.float64) * GRID).astype(np.int64)


def appended(kept: np.ndarray | None, values: np.ndarray, n: int) -> np.ndarray:
    """Put rows behind the first n kept ones, in an array that doubles its length when it is full."""
    if kept is None or n + len(values) > len(kept):
        larger = np.zeros((max(256, 2 * n, n + len(values)), *values.shape[1:]), values.dtype)
        if kept is not None:
            larger[:n] = kept[:n]
        kept = larger
    kept[n : n + len(values)] = values
    return kept


def _key_of(vector: np.ndarray) -> bytes:
    return hashlib.blake2b(vector.tobytes(), digest_size=_KEY_BYTES).digest()
