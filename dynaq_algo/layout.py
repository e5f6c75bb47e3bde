"""Reads an observation: the state, the candidates, the mask of allowed ones, and numbers of each pair."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
from gymnasium import spaces

__all__ = [
    "CANDIDATES",
    "PAIRS",
    "PROGRESS",
    "CandidateLayout",
    "DecisionBatch",
    "allowed",
    "check_mask",
    "pieces_of",
    "refuse_nan",
]

CANDIDATES, ACTION_MASK, PAIRS, APPLICANT = "candidates", "action_mask", "pairs", "applicant"
PROGRESS = "progress"


class DecisionBatch(NamedTuple):
    """n decisions, each between k candidates.

    Attributes:
        state: (n, d_s) float32.
        candidates: (n, k, d_a) float32 features, or (n, k) int64 ids into a table of actions.
        mask: (n, k) bool, True where a candidate may be chosen; None if all may.
        pairs: (n, k, p) float32, numbers of each (state, candidate) pair; None if observations have none.
    """

    state: np.ndarray
    candidates: np.ndarray
    mask: np.ndarray | None
    pairs: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> DecisionBatch:
        """The decisions of some rows, by index or by mask."""
        return DecisionBatch(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]

    def replaced(self, others: Mapping[int, DecisionBatch]) -> DecisionBatch:
        """A copy in which the decisions of some rows are replaced by others, each a batch of one."""
        changed = DecisionBatch(*(None if part is None else part.copy() for part in self))  # type: ignore[arg-type]
        for row, other in others.items():
            for part, new in zip(changed, other, strict=True):
                if part is not None and new is not None:
                    part[row] = new[0]
        return changed

    def any_action(self, rng: np.random.Generator) -> np.ndarray:
        """A uniformly random candidate of those that the mask allows, (n,).

        Raises:
            ValueError: If a row allows no candidate.
        """
        check_mask(self.mask)
        draws = rng.random(self.candidates.shape[:2])
        return (draws if self.mask is None else np.where(self.mask, draws, -1.0)).argmax(axis=1)


class CandidateLayout:
    """Reads Dict observations with a `candidates` entry.

    The state is all entries but `candidates`, `pairs` and `action_mask`. They are flattened in the space's key order as
    :func:`gymnasium.spaces.flatten` does (one-hot for discrete entries). The entry `pairs` holds numbers of each
    (state, candidate) pair. A batch may have another number of candidates than the space. An observation may have an
    `action_mask` although the space has none.

    Attributes:
        n_candidates: k of the space.
        largest_id: Where candidates are ids, the largest that the space allows; -1 for features.
        n_pairs: p, how many numbers a pair has; 0 without an entry `pairs`.
        compared: The columns of the state that are compared with a candidate: those of the entry `applicant`, or all
            columns if there is no such entry. The others are context.
        progress: The columns of the state that answers change: those of the entry `progress`; None without it.
        progress_bounds: Smallest and largest values of these columns, (m,) each; None without the entry.

    Args:
        observation_space: A Dict with `candidates`: a Box (k, d_a) of features or an integer Box (k,) of ids; and
            optionally `pairs`, a Box (k, p), and `action_mask` (k,).
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
                "If a candidate has only one number, give the numbers as features of shape (k, 1)."
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

        pairs = observation_space.spaces.get(PAIRS)
        if pairs is not None and (
            not isinstance(pairs, spaces.Box) or len(pairs.shape) != 2 or pairs.shape[0] != n_candidates
        ):
            raise ValueError(
                f"`pairs` must be a Box (k={n_candidates}, p), numbers of each (state, candidate) pair, got {pairs}. "
                "If this entry means something else, give it another name."
            )

        self.uses_ids = len(candidates.shape) == 1
        self.has_mask = mask is not None
        self.n_candidates = int(n_candidates)
        self.n_pairs = 0 if pairs is None else int(pairs.shape[1])
        self.action_dim = None if self.uses_ids else int(candidates.shape[1])
        self.largest_id = int(candidates.high.max()) if self.uses_ids else -1
        self._candidates_shape = candidates.shape
        self._state_spaces = {
            key: space for key, space in observation_space.spaces.items() if key not in (CANDIDATES, PAIRS, ACTION_MASK)
        }
        for key, space in self._state_spaces.items():
            if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
                raise ValueError(
                    f"Entry `{key}` of the observation must be Box, Discrete, MultiDiscrete or MultiBinary, "
                    f"got {space}. Encode it as numbers in an observation wrapper."
                )
        dims = {key: spaces.flatdim(space) for key, space in self._state_spaces.items()}
        self.state_dim = sum(dims.values())
        self.compared = slice(0, self.state_dim)
        if APPLICANT in dims:
            before = list(dims)[: list(dims).index(APPLICANT)]
            start = sum(dims[key] for key in before)
            self.compared = slice(start, start + dims[APPLICANT])
        self.progress: slice | None = None
        self.progress_bounds: tuple[np.ndarray, np.ndarray] | None = None
        moving = self._state_spaces.get(PROGRESS)
        if isinstance(moving, spaces.Box):
            start = sum(dims[key] for key in list(dims)[: list(dims).index(PROGRESS)])
            self.progress = slice(start, start + dims[PROGRESS])
            self.progress_bounds = moving.low.reshape(-1), moving.high.reshape(-1)

    def is_batch(self, obs: Mapping[str, Any]) -> bool:
        """Whether `obs` holds n observations, rather than one.

        Raises:
            ValueError: If `obs` is not a mapping, an entry is missing, or the shape of `candidates` differs from the
                space's in more than the number of candidates.
        """
        if not isinstance(obs, Mapping):
            raise ValueError(
                f"An observation must be a dict with the entries {self._keys}, got {type(obs).__name__}. "
                "Gymnasium's `env.reset()` returns `(obs, info)`: pass the first."
            )
        if missing := [key for key in self._keys if key not in obs]:
            raise ValueError(f"The observation lacks {missing}; it must have the entries {self._keys}.")
        shape = np.shape(obs[CANDIDATES])
        behind, n_axes = self._candidates_shape[1:], len(self._candidates_shape)
        if (
            len(shape) in (n_axes, n_axes + 1)
            and shape[len(shape) - n_axes + 1 :] == behind
            and 0 not in shape[-n_axes:]
        ):
            return len(shape) > n_axes
        wanted = ("k", *map(str, behind))
        raise ValueError(
            f"`candidates` must have shape ({', '.join(wanted)}{',' if not behind else ''}), or "
            f"({', '.join(('n', *wanted))}) for a batch, with any k of 1 or more, got {shape}. "
            + ("Pass ids, whole numbers." if self.uses_ids else "Pass features of as many numbers as in training.")
        )

    def read(self, obs: Mapping[str, Any], finite: bool = True) -> DecisionBatch:
        """State, candidates, mask and pairs of one observation (n = 1) or of a batch; may share memory with `obs`.

        Args:
            obs: One observation or a batch.
            finite: Whether numbers that are not finite are refused. No choice between such numbers has a meaning.

        Raises:
            ValueError: As for :meth:`is_batch`; or if another entry has a wrong shape, if the mask or `pairs` have
                another number of candidates, if the mask holds texts or NaN, if an entry holds a number that is not
                finite, if an id or a value of a discrete entry is not a whole number, or if a value of a discrete entry
                is out of its range.
        """
        batch = self.is_batch(obs)
        if self.uses_ids:
            candidates = _whole(CANDIDATES, np.asarray(obs[CANDIDATES]))
        else:
            candidates = np.asarray(obs[CANDIDATES], np.float32)
        candidates = candidates if batch else candidates[None]
        n, k = candidates.shape[:2]
        parts = [_flatten_batch(key, space, obs[key], n) for key, space in self._state_spaces.items()]
        if len(parts) == 1:
            state = parts[0]
        else:
            state = np.concatenate(parts, axis=1) if parts else np.zeros((n, 0), np.float32)
        # A mask counts also if training had none: who passes a mask does not want the hidden candidates to be chosen.
        shows_mask = self.has_mask or ACTION_MASK in obs
        mask = allowed(_of_each(obs, ACTION_MASK, (n, k))) if shows_mask else None
        pairs = _of_each(obs, PAIRS, (n, k, self.n_pairs)).astype(np.float32, copy=False) if self.n_pairs else None
        if finite and not all(
            part is None or part.dtype.kind != "f" or np.isfinite(part).all() for part in (state, candidates, pairs)
        ):
            self._name_not_finite(obs, n)
        return DecisionBatch(_forward(state), _forward(candidates), mask, None if pairs is None else _forward(pairs))

    def _name_not_finite(self, obs: Mapping[str, Any], n: int) -> NoReturn:
        for key in self._keys:
            rows = np.asarray(obs[key]).reshape(n, -1)
            if rows.dtype.kind == "f" and not np.isfinite(rows).all():
                row = int(np.argwhere(~np.isfinite(rows))[0][0])
                raise ValueError(
                    f"`{key}` of the observation must hold finite numbers, "
                    f"{'it' if n == 1 else f'row {row}'} does not. Give unknown values a number, such as 0."
                )
        raise ValueError("The observation must hold numbers that are finite in float32, got larger ones.")

    @property
    def _keys(self) -> list[str]:
        optional = {PAIRS: self.n_pairs > 0, ACTION_MASK: self.has_mask}
        return [*self._state_spaces, CANDIDATES, *(key for key, is_there in optional.items() if is_there)]


def check_mask(mask: np.ndarray | None) -> None:
    """Refuse a mask that allows no candidate.

    Raises:
        ValueError: If a row of the mask (n, k) allows nothing.
    """
    if mask is not None and not mask.any(axis=1).all():
        row = int(np.flatnonzero(~mask.any(axis=1))[0])
        raise ValueError(
            f"`action_mask` must allow at least one candidate, row {row} allows none. "
            "End the episode (terminated=True) when nothing is left to choose."
        )


def pieces_of(n: int, k: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Cuts n decisions between k candidates into pieces of at most `most` pairs, row by row.

    Returns:
        The rows and the columns of each piece. A piece has all columns, or a single row.
    """
    size = max(1, most // k)
    for row in range(0, max(n, 1), size):
        for column in range(0, k, most):
            yield slice(row, row + size), slice(column, column + most)


def refuse_nan(values: Any) -> None:
    """Refuse values of candidates, an array or tensor, if one is NaN: the largest of them would be any.

    Raises:
        ValueError: If a value is NaN.
    """
    if bool((values != values).any()):  # NaN alone is not equal to itself
        raise ValueError(
            "the values of the candidates have NaN among them, so none is the largest. Numbers of observations or "
            "rewards were too large, or the learning rate was: scale them to a size of about 1, take a smaller "
            "`learning_rate`, and train a new agent."
        )


def _flatten_batch(key: str, space: spaces.Space, values: Any, n: int) -> np.ndarray:
    """Flatten n values of an entry at once, as `gymnasium.spaces.flatten` does: (n, flatdim) float32."""
    values, one = np.asarray(values), space.shape or ()
    if values.shape != (n, *one) and not (n == 1 and values.shape == one):
        raise ValueError(
            f"`{key}` must have shape {one}, or {(n, *one)} where `candidates` are of {n} observations, got "
            f"{values.shape}."
        )
    if isinstance(space, spaces.Discrete):
        size = int(space.n)
        return np.eye(size, dtype=np.float32)[_classes(key, values.reshape(n), space.start, size)]
    if isinstance(space, spaces.MultiDiscrete):
        sizes, start = space.nvec.reshape(-1), np.asarray(space.start).reshape(-1)
        digits = _classes(key, values.reshape(n, len(sizes)), start, sizes)
        return np.concatenate([np.eye(int(s), dtype=np.float32)[digits[:, i]] for i, s in enumerate(sizes)], axis=1)
    return values.astype(np.float32, copy=False).reshape(n, math.prod(one))


def _classes(key: str, values: np.ndarray, start: Any, size: Any) -> np.ndarray:
    """Values of a discrete entry, counted from 0."""
    classes = _whole(key, values) - start
    if ((classes < 0) | (classes >= size)).any():
        raise ValueError(
            f"`{key}` must be at least {start} and below {start + size}, as in the observation space, got "
            f"{values.min()} to {values.max()}."
        )
    return classes


def _forward(values: np.ndarray) -> np.ndarray:
    """The array, copied if it runs backwards through its memory (`x[::-1]`), which torch does not take."""
    return values.copy() if min(values.strides, default=0) < 0 else values


def _whole(key: str, values: np.ndarray) -> np.ndarray:
    """Values as int64."""
    if values.dtype.kind == "f" and not (good := np.isfinite(values) & (values == np.rint(values))).all():
        raise ValueError(f"`{key}` must hold whole numbers, got {values[~good].flat[0]}.")
    return values.astype(np.int64, copy=False)


def allowed(mask: np.ndarray) -> np.ndarray:
    """An action mask as bool.

    Raises:
        ValueError: If it holds NaN or texts: a text such as "False" would count as True.
    """
    if mask.dtype.kind not in "biuf" or np.isnan(mask).any():
        found = "NaN" if mask.dtype.kind == "f" else f"values of the type {mask.dtype}"
        raise ValueError(f"`action_mask` must hold True and False (or 1 and 0), got {found}.")
    return mask.astype(bool)


def _of_each(obs: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """An entry with one row per candidate, in the shape of a batch; one observation may lack the leading axis."""
    values = np.asarray(obs[key])
    if values.shape not in ((shape,) if shape[0] != 1 else (shape, shape[1:])):
        raise ValueError(
            f"`{key}` must have shape {shape} where there are {shape[0]} observations of {shape[1]} candidates, got "
            f"{values.shape}. Give one row for each of `candidates`."
        )
    return values.reshape(shape)
