"""Replay of transitions between candidate sets. Each distinct vector and each distinct set is stored once."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple, NoReturn

import numpy as np

from dynaq_algo.agent_file import AgentFileError, reading, whole_file, written_by
from dynaq_algo.arguments import is_whole
from dynaq_algo.array_file import MAX_ARRAY_BYTES, read_arrays
from dynaq_algo.layout import DecisionBatch
from dynaq_algo.shown_ids import ShownIds, whole_ids

__all__ = ["UNKNOWN", "CandidateReplay", "InternedRows", "Transitions"]

COMPONENT = "component:"
UNKNOWN = ""
"""Stands for the id of a replay that an earlier version saved, without an id."""
FORMAT = "dynaq-replay/1"
_MOST_TRANSITIONS = 2**40


class Transitions(NamedTuple):
    """n transitions as ids and numbers; vectors are gathered on demand.

    Attributes:
        position: (n,) places in the store.
        serial: (n,) int64 numbers in the order of storing; never reused.
        state_id: (n,) rows of the state table.
        action: (n,) indices into the candidates.
        candidate_id: (n,) ids of the chosen candidates.
        reward: (n,) float32.
        terminated: (n,) bool; a truncated transition is not terminated.
        next_state_id: (n,) rows of the state table; `state_id` again where terminated.
        pairs: (n, p) float32, the entry `pairs` of the chosen candidate; None if observations have no `pairs`.
    """

    position: np.ndarray
    serial: np.ndarray
    state_id: np.ndarray
    action: np.ndarray
    candidate_id: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    next_state_id: np.ndarray
    pairs: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Transitions:
        """Some of the transitions, by index or by mask."""
        return Transitions(*(None if column is None else column[rows] for column in self))  # type: ignore[arg-type]


class CandidateReplay:
    """A ring of transitions that stores no candidate matrix per transition.

    State vectors, candidate vectors and candidate sets are interned by content in tables with reference counts. A
    repeated vector or set costs only an id, and one that no transition refers to any more is freed. For id observations
    a candidate is stored as its id. Next states and next candidates are kept by reference too, and so are the `pairs`
    of a decision: the numbers that an observation has for each (state, candidate) pair. The applicant of a decision,
    from `info["applicant_id"]`, is stored with the `pairs`. :meth:`ask_pairs` can then ask for the `pairs` of the same
    applicant with other candidates.

    A transition with `info["transition_valid"]` False is left out, because its reward is not to be learned from.
    Components of the reward in `info["reward_components"]` (name -> number) are kept with the reward, NaN where a
    transition lacks one.

    If `weights` are set, rewards are recomputed as they are read: the sum of weight times component. A transition
    that lacks a component whose weight is not 0 is then never drawn.

    Attributes:
        weights: Weight of each component by its name, or None for rewards as they were earned.
        n_loaded: How often the content was replaced by that of a file.
        ends: By random id, oldest first: each replay to which these transitions were added, with the number of all
            transitions when its last one was added. A replay that was loaded has a new id from then on, because several
            may go on from one file.
        pair_features: A function that gives `pairs` of pairs that were never shown, (n,) applicant ids, (n,) candidate
            ids -> (n, p); None if there is none.

    Args:
        capacity: Number of transitions.
        state_dim: d_s, the size of a state.
        n_candidates: k, the number of candidates.
        action_dim: d_a, the size of a candidate's features; None for id observations.
        n_envs: Environments that add at once; `capacity` must hold a step of all.
        n_pairs: p, how many numbers an observation has for each pair.

    Raises:
        ValueError: If `capacity` is below `n_envs`.
    """

    def __init__(
        self,
        capacity: int,
        state_dim: int,
        n_candidates: int,
        action_dim: int | None = None,
        n_envs: int = 1,
        n_pairs: int = 0,
    ):
        if not is_whole(capacity) or not max(n_envs, 1) <= capacity <= _MOST_TRANSITIONS:
            raise ValueError(
                f"`buffer_size` must be n_envs={n_envs} or more, and at most {_MOST_TRANSITIONS:,}, got "
                f"{capacity!r:.80}."
            )
        self.capacity = capacity
        self.n_candidates = n_candidates
        self.n_pairs = n_pairs
        self.n_added = 0
        self.states = InternedRows(state_dim, np.float32)
        self.candidates = None if action_dim is None else InternedRows(action_dim, np.float32)
        # Each set is one row: k candidate ids, then the mask's bits.
        self._n_mask_words = -(-n_candidates // 32)
        self.sets = InternedRows(n_candidates + self._n_mask_words, np.int32)
        self._state_id = np.zeros(capacity, np.int32)
        self._set_id = np.zeros(capacity, np.int32)
        self._action = np.zeros(capacity, np.uint16 if n_candidates <= 2**16 else np.int32)
        self._reward = np.zeros(capacity, np.float32)
        self._terminated = np.zeros(capacity, bool)
        self._next_state_id = np.zeros(capacity, np.int32)
        self._next_set_id = np.zeros(capacity, np.int32)
        self._pairs = ShownPairs(capacity, n_candidates, n_pairs, n_envs) if n_pairs else None
        self._shown_ids: ShownIds | None = None
        self.pair_features: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
        self._components: dict[str, np.ndarray] = {}
        self.weights: Mapping[str, float] | None = None
        self.n_loaded = 0
        self.ends: dict[str, int] = {}
        self._id = uuid.uuid4().hex
        self._states_seen = _LastSeen(n_envs)
        self._sets_seen = _LastSeen(n_envs)

    def keep_shown_ids(self) -> None:
        """Note from now on the ids of candidates that are features, for :meth:`ids_to_ask`. Each id costs a hash."""
        if self.n_pairs and self.candidates is not None:
            self._shown_ids = ShownIds()

    def __len__(self) -> int:
        """Number of transitions held."""
        return min(self.n_added, self.capacity)

    @property
    def has_terminated(self) -> bool:
        """Whether any held transition terminated its episode."""
        return bool(self._terminated[: len(self)].any())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, including the tables and each environment's last observation."""
        arrays = sum(array.nbytes for array in (*self._rings().values(), *self._components.values()))
        tables = sum(table.nbytes for table in self._tables().values())
        seen = self._states_seen.nbytes + self._sets_seen.nbytes
        return arrays + tables + seen + (0 if self._pairs is None else self._pairs.seen.nbytes)

    def add(
        self,
        obs: DecisionBatch,
        next_obs: DecisionBatch,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        infos: Sequence[Mapping[str, Any]] | None = None,
    ) -> np.ndarray:
        """Store one step of all environments.

        Args:
            obs: n_envs decisions.
            next_obs: The next decisions of the same episodes. After the last step of an episode it is the final
                observation, not the one after the reset.
            action: (n_envs,) chosen indices.
            reward: (n_envs,).
            terminated: (n_envs,) bool.
            infos: One per environment, read for `transition_valid`, `reward_components`, `applicant_id` and, where
                candidates are features and :meth:`keep_shown_ids` was called, `candidate_ids` (k,): the ids of the
                candidates of `next_obs`. An id that is not a whole number of 0 or more counts as not known.

        Returns:
            Positions of the transitions that were stored. Invalid ones are not stored.

        Raises:
            ValueError: If the reward of a valid transition is not finite. Nothing is stored then.
        """
        infos = [{}] * len(action) if infos is None else infos
        envs = np.array([i for i, info in enumerate(infos) if info.get("transition_valid", True)], np.int64)
        earned = np.asarray(reward, np.float32)[envs]
        if not (finite := np.isfinite(earned)).all():
            env = envs[finite.argmin()]
            raise ValueError(
                f"`reward` must be finite, that of environment {env} is {np.asarray(reward)[env]}. Let the environment "
                'give a number. For a step without an answer let it give 0, and set `info["transition_valid"]` to '
                "False: that step is then left out."
            )
        index = (self.n_added + np.arange(len(envs))) % self.capacity
        overwritten = index[self.n_added + np.arange(len(envs)) >= self.capacity]
        action, terminated = np.asarray(action).reshape(-1), np.asarray(terminated, bool)

        # The order matters. The first lookup adds references of the transition itself. After that the second lookup may
        # drop the references that the environment's last observation holds: the rows are not freed.
        self._release(overwritten)
        obs = _take(obs, envs)
        state_id, set_id = self._look_up(obs, envs)
        next_state_id, next_set_id = state_id.copy(), set_id.copy()
        goes_on = np.flatnonzero(~terminated[envs])
        # A terminated transition's next observation is never read: its ids repeat the current ones.
        next_obs = _take(next_obs, envs[goes_on])
        next_state_id[goes_on], next_set_id[goes_on] = self._look_up(next_obs, envs[goes_on])
        ended = np.flatnonzero(terminated[envs])
        self.states.acquire(next_state_id[ended])
        self.sets.acquire(next_set_id[ended])
        if self._pairs is not None:
            applicant_id = whole_ids([infos[i].get("applicant_id") for i in envs])
            self._pairs.add(index, envs, obs.pairs, goes_on, next_obs.pairs, applicant_id)
        if self._shown_ids is not None:
            for shown, info in zip(next_obs.candidates, (infos[i] for i in envs[goes_on]), strict=True):
                if np.shape(info.get("candidate_ids")) == shown.shape[:1]:
                    self._shown_ids.learn(shown, whole_ids(info["candidate_ids"]))

        self._state_id[index], self._set_id[index] = state_id, set_id
        self._next_state_id[index], self._next_set_id[index] = next_state_id, next_set_id
        self._action[index] = action[envs]
        self._reward[index] = earned
        self._terminated[index] = terminated[envs]
        self._store_components(index, [infos[i].get("reward_components", {}) for i in envs])
        self.n_added += len(envs)
        if len(envs):
            self.ends[self._id] = self.n_added
        return index

    def sample(self, n: int, rng: np.random.Generator) -> Transitions:
        """Draw n transitions with replacement.

        Raises:
            ValueError: If the store is empty, or no transition has the components that `weights` need.
        """
        usable = None if self.weights is None else np.flatnonzero(self.usable(np.arange(len(self))))
        n_usable = len(self) if usable is None else len(usable)
        if not n_usable:
            raise ValueError("The replay is empty: nothing can be drawn before a valid transition is added.")
        drawn = rng.integers(n_usable, size=n)
        return self[drawn if usable is None else usable[drawn]]

    @property
    def n_usable(self) -> int:
        """Number of transitions that can be drawn."""
        return len(self) if self.weights is None else int(self.usable(np.arange(len(self))).sum())

    def usable(self, index: np.ndarray) -> np.ndarray:
        """Whether the reward of transitions at positions (n,) is known under `weights`, bool (n,)."""
        return np.isfinite(self._rewards(index))

    def __getitem__(self, index: np.ndarray) -> Transitions:
        """Transitions at positions (n,)."""
        state_id, action = self._state_id[index], self._action[index].astype(np.int64)
        return Transitions(
            position=index,
            serial=self.serials(index),
            state_id=state_id,
            action=action,
            candidate_id=self.sets.rows[self._set_id[index], action],
            reward=self._rewards(index),
            terminated=self._terminated[index],
            next_state_id=self._next_state_id[index],
            pairs=None if self._pairs is None else self._pairs.rows(index)[np.arange(len(index)), action],
        )

    def newest(self, n: int) -> Transitions:
        """Those of the last n stored transitions that can be drawn."""
        index = np.arange(self.n_added - n, self.n_added) % self.capacity
        return self[index[self.usable(index)]]

    def n_known(self, told: Mapping[str, int]) -> int:
        """How many transitions, counted from the first, are among those that somebody was told.

        Args:
            told: How many of each replay, counted in the same way, by the ids of :attr:`ends`.
        """
        known = 0
        for replay, end in self.ends.items():
            known = max(known, min(told.get(replay, 0), end))
            if known < end:
                break
        return known

    def serials(self, index: np.ndarray) -> np.ndarray:
        """Numbers (n,) of the transitions at positions (n,), in the order of storing."""
        newest = (self.n_added - 1) % self.capacity
        return self.n_added - 1 - (newest - index) % self.capacity

    def as_stored(self, transitions: Transitions, same_candidate: bool = True) -> np.ndarray:
        """Whether transitions still have the same next value as the stored ones at their positions, bool (n,).

        They have the same value if `next_state_id` and `terminated` are the same; with `same_candidate` the candidate
        and its `pairs` must be the same too.
        """
        index = transitions.position
        as_stored = self._next_state_id[index] == transitions.next_state_id
        as_stored &= self._terminated[index] == transitions.terminated
        if same_candidate:
            as_stored &= self.sets.rows[self._set_id[index], self._action[index]] == transitions.candidate_id
            if self._pairs is not None:
                shown = self._pairs.rows(index)[np.arange(len(index)), self._action[index]]
                as_stored &= (shown == transitions.pairs).all(axis=1)
        return as_stored

    def state_rows(self, state_id: np.ndarray) -> np.ndarray:
        """States (n, d_s) of ids (n,)."""
        return self.states.rows[state_id]

    def candidate_rows(self, candidate_id: np.ndarray) -> np.ndarray:
        """The candidates of stored ids (...), as an observation gives them: features (..., d_a) or ids (...)."""
        return candidate_id.astype(np.int64) if self.candidates is None else self.candidates.rows[candidate_id]

    def ids_to_ask(self, candidate_id: np.ndarray) -> np.ndarray:
        """The ids (...) by which :attr:`pair_features` knows the candidates of stored ids (...), int64.

        An id is below 0 where it is not known. Where candidates are features, an id is known if it stood in the
        `candidate_ids` of an `info` after :meth:`keep_shown_ids` was called.
        """
        if self.candidates is None:
            return candidate_id.astype(np.int64)
        if self._shown_ids is None:
            return np.full(candidate_id.shape, -1, np.int64)
        return self._shown_ids.of(self.candidates.rows[candidate_id])

    def candidate_sets(self, index: np.ndarray, following: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The candidate sets of the decisions at positions (n,), or of the next decisions if `following`.

        Returns:
            Candidate ids (n, k) and the mask (n, k) of allowed candidates.
        """
        rows = self.sets.rows[(self._next_set_id if following else self._set_id)[index]]
        bits = np.ascontiguousarray(rows[:, self.n_candidates :]).view(np.uint8)
        mask = np.unpackbits(bits, axis=1, count=self.n_candidates, bitorder="little").astype(bool)
        return rows[:, : self.n_candidates], mask

    def pair_sets(self, index: np.ndarray, following: bool = False) -> np.ndarray | None:
        """The `pairs` (n, k, p) of :meth:`candidate_sets`; None if observations have none."""
        return None if self._pairs is None else self._pairs.rows(index, following)

    def applicants(self, index: np.ndarray) -> np.ndarray:
        """Applicant ids (n,) of the transitions at positions (n,); -1 if unknown, or if observations lack `pairs`."""
        return np.full(len(index), -1) if self._pairs is None else self._pairs.applicant_id[index]

    def ask_pairs(self, index: np.ndarray, candidate_id: np.ndarray) -> np.ndarray:
        """Ask :attr:`pair_features` for the `pairs` of the applicants of n transitions with other candidates (n,).

        Returns:
            (n, p) float32.

        Raises:
            ValueError: If there is no `pair_features`, an applicant or a candidate has no id, or the answer has another
                shape.
        """
        if self._pairs is None or self.pair_features is None or self.candidates is not None:
            raise ValueError(
                "The numbers of a pair that was not shown are known only where observations have ids and an entry "
                "`pairs`, and something computes `pair_features(applicant_ids, job_ids) -> (n, p)`: give the "
                'environment such a method, or pass `DynaQ(pair_features=function)`. `planning_source="visited"` '
                'and "candidates" work without such a method or function.'
            )
        applicant_id = self._pairs.applicant_id[index]
        if (applicant_id < 0).any():
            raise ValueError(
                'The numbers of a pair depend on the applicant, so each step must have `info["applicant_id"]` (a whole '
                f"number of 0 or more), and {np.count_nonzero(applicant_id < 0)} of {len(index)} transitions have "
                'none. Let the environment give it, or use `planning_source="visited"` or "candidates".'
            )
        answer = np.asarray(self.pair_features(applicant_id, self.candidate_rows(candidate_id)), np.float32)
        if answer.shape != (len(index), self.n_pairs):
            raise ValueError(
                f"`pair_features` must answer {len(index)} pairs with {(len(index), self.n_pairs)} numbers: for each "
                f"pair as many as the entry `pairs` has. It gave {answer.shape}."
            )
        return answer

    def components(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Components (n,) of the rewards at positions (n,), by name; NaN where a transition lacks one."""
        return {name: values[index] for name, values in self._components.items()}

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to an .npz file, without pickle. The file appears whole or not at all.

        Raises:
            OSError: If it cannot be written; the message names the path.
        """
        # The environments' last observations are dropped: they only save hashing, and are no part of the content.
        self._forget()
        size = len(self)
        arrays = {name: array[:size] for name, array in self._rings().items()}
        arrays |= {COMPONENT + name: values[:size] for name, values in self._components.items()}
        for name, table in self._tables().items():
            arrays |= {f"{name}:rows": table.rows[: table.n_used], f"{name}:counts": table.counts[: table.n_used]}
            arrays[f"{name}:free"] = table.free_places()
        if self._shown_ids is not None:
            arrays |= self._shown_ids.arrays()
        arrays["n_added"] = np.array(self.n_added)
        arrays |= {"ends:id": np.array(list(self.ends), np.str_), "ends:n": np.array([*self.ends.values()], np.int64)}
        arrays["format"], arrays["written_by"] = np.array(FORMAT), np.array(written_by())
        # The file is opened here, because `np.savez` appends ".npz" to a name without that suffix.
        with whole_file(path) if isinstance(path, (str, PathLike)) else contextlib.nullcontext(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def load(self, path: str | PathLike[str], max_bytes: int = MAX_ARRAY_BYTES, n_actions: int | None = None) -> None:
        """Read what :meth:`save` wrote. The whole file is checked first; a file that is refused changes nothing.

        Args:
            path: The file.
            max_bytes: Its largest uncompressed size.
            n_actions: For id observations, how many actions the ids can name; None if that is not known.

        Raises:
            FileNotFoundError: If there is no such file.
            AgentFileError: If it is not a replay, is not whole, was changed, or holds numbers that are not finite.
            ValueError: If the file is of another layout, or holds more than `capacity` transitions.
        """
        shown = str(path)
        arrays = read_arrays(path, shown, "replay", max_bytes)
        with reading(shown, "replay"):
            self._check(shown, arrays, n_actions)
        size = len(arrays["reward"])
        self._forget()
        for name, ring in self._rings().items():
            ring[:size] = arrays[name]
        self._components = {}
        for name, found in arrays.items():
            if name.startswith(COMPONENT):
                values = self._components[name.removeprefix(COMPONENT)] = np.full(self.capacity, np.nan, np.float32)
                values[:size] = found
        for name, table in self._tables().items():
            table.restore(arrays[f"{name}:rows"], arrays[f"{name}:counts"], arrays.get(f"{name}:free"))
        if self._shown_ids is not None:
            self._shown_ids.restore(arrays["shown_id:key"], arrays["shown_id:id"])
        self.n_added = int(arrays["n_added"])
        self.ends = {UNKNOWN: self.n_added}
        if "ends:id" in arrays:
            self.ends = dict(zip(arrays["ends:id"].tolist(), arrays["ends:n"].tolist(), strict=True))
        self._id = uuid.uuid4().hex
        self.n_loaded += 1

    def _check(self, shown: str, arrays: Mapping[str, np.ndarray], n_actions: int | None) -> None:
        """Refuse arrays that :meth:`save` cannot have written for a replay like this one."""
        if (found_format := str(arrays.get("format", FORMAT))) != FORMAT:
            raise AgentFileError(f"{shown} has the format {found_format!r:.40}, this version reads {FORMAT!r}.")
        tables, rings = self._tables(), self._rings()
        found = {name.removesuffix(":rows"): arrays[name].shape[1] for name in arrays if name.endswith(":rows")}
        wanted = {name: table.rows.shape[1] for name, table in tables.items()}
        size = len(arrays["reward"])
        # A ring that has gone round must keep its length: positions are counted modulo the capacity.
        n_added = int(arrays["n_added"])
        fits = size == self.capacity <= n_added or size == n_added < self.capacity
        if found != wanted or not fits:
            raise AgentFileError(
                f"{shown} holds {size} transitions of row sizes {found}, this replay takes {self.capacity} of "
                f"{wanted}. "
                "Build it with the `buffer_size` and the spaces of the run that saved it."
            )
        components = {name: np.zeros(0, np.float32) for name in arrays if name.startswith(COMPONENT)}
        for name, ring in {**rings, **components}.items():
            if arrays[name].shape != (size,) or arrays[name].dtype != ring.dtype:
                _refuse(shown, name, f"must be {size} values of {ring.dtype}")
        for name, table in tables.items():
            _check_table(shown, name, table.rows.dtype, arrays)
        if self._shown_ids is not None:
            n_known = len(arrays["shown_id:key"])
            for name in self._shown_ids.arrays():
                if arrays[name].shape != (n_known,) or arrays[name].dtype != np.int64:
                    _refuse(shown, name, f"must be {n_known} values of int64")
        if "ends:id" in arrays:
            ids, ends = arrays["ends:id"], arrays["ends:n"]
            if ids.ndim != 1 or ids.dtype.kind != "U" or len(set(ids.tolist())) != len(ids):
                _refuse(shown, "ends:id", "must be different texts")
            rise = ends.shape == ids.shape and ends.dtype == np.int64 and np.diff(ends, prepend=0).min(initial=0) >= 0
            if not rise or ends[-1:].sum() != n_added:
                _refuse(shown, "ends:n", f"must be numbers that rise to {n_added}, one for each of `ends:id`")
        if not np.isfinite(arrays["reward"]).all():
            _refuse(shown, "reward", "must be finite")
        if size and int(arrays["action"].max()) >= self.n_candidates:
            _refuse(shown, "action", f"must be below {self.n_candidates}, the number of candidates")
        if size and int(arrays["action"].min()) < 0:
            _refuse(shown, "action", "must be 0 or more")
        referred = {"states": ("state_id", "next_state_id"), "sets": ("set_id", "next_set_id")}
        if self._pairs is not None:
            referred["pairs"] = ("pairs_id", "next_pairs_id")
        for name, columns in referred.items():
            _check_references(shown, name, np.concatenate([arrays[column] for column in columns]), arrays)
        members = arrays["sets:rows"][arrays["sets:counts"] > 0, : self.n_candidates].reshape(-1)
        if self.candidates is not None:
            _check_references(shown, "candidates", members, arrays)
        elif len(members) and not 0 <= members.min() <= members.max() < (n_actions or np.inf):
            _refuse(shown, "sets:rows", f"must name actions in [0, {n_actions or 'n_actions'}), the rows of the table")

    def _look_up(self, obs: DecisionBatch, envs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """State and set ids (n,), one reference added to each. Arrays that have not changed are not hashed again."""
        changed = self._states_seen.changed(envs, obs.state)
        if changed.any():
            ids = self.states.intern(obs.state[changed])
            self.states.release(self._states_seen.replace(envs[changed], ids, obs.state[changed]))
        state_id = self._states_seen.ids[envs]
        self.states.acquire(state_id)

        # One decision may have a mask where another has none.
        parts = (obs.candidates, np.ones(obs.candidates.shape[:2], bool) if obs.mask is None else obs.mask)
        changed = self._sets_seen.changed(envs, *parts)
        if changed.any():
            ids = self._intern_sets(obs.take(changed))
            self._release_sets(self._sets_seen.replace(envs[changed], ids, *(part[changed] for part in parts)))
        set_id = self._sets_seen.ids[envs]
        self.sets.acquire(set_id)
        return state_id, set_id

    def _intern_sets(self, obs: DecisionBatch) -> np.ndarray:
        n, k = obs.candidates.shape[:2]
        if self.candidates is None:
            members = obs.candidates
        else:
            members = self.candidates.intern(obs.candidates.reshape(n * k, -1)).reshape(n, k)
        rows = np.zeros((n, k + self._n_mask_words), np.int32)
        rows[:, :k] = members
        mask = np.ones((n, k), bool) if obs.mask is None else obs.mask
        bits = np.packbits(mask, axis=1, bitorder="little")
        rows[:, k:].view(np.uint8)[:, : bits.shape[1]] = bits
        before = self.sets.n_interned
        ids = np.empty(n, np.int32)
        for i in range(n):
            ids[i] = self.sets.intern(rows[i : i + 1])[0]
            if self.candidates is not None and self.sets.n_interned == before:
                self.candidates.release(members[i])  # a known set holds references to its members already
            before = self.sets.n_interned
        return ids

    def _release_sets(self, set_ids: np.ndarray) -> None:
        freed = self.sets.release(set_ids)
        if self.candidates is not None and len(freed):
            self.candidates.release(self.sets.rows[freed, : self.n_candidates].reshape(-1))

    def _release(self, index: np.ndarray) -> None:
        """Drop the references of the transitions at some positions."""
        if len(index):
            self.states.release(np.concatenate([self._state_id[index], self._next_state_id[index]]))
            self._release_sets(np.concatenate([self._set_id[index], self._next_set_id[index]]))
            if self._pairs is not None:
                self._pairs.release(index)

    def _forget(self) -> None:
        self.states.release(self._states_seen.clear())
        self._release_sets(self._sets_seen.clear())
        if self._pairs is not None:
            self._pairs.table.release(self._pairs.seen.clear())

    def _store_components(self, index: np.ndarray, components: list[Mapping[str, float]]) -> None:
        for name in {name: None for row in components for name in row}:
            if name not in self._components:
                self._components[name] = np.full(self.capacity, np.nan, np.float32)
        for name, values in self._components.items():
            values[index] = [row.get(name, np.nan) for row in components]

    def _rewards(self, index: np.ndarray) -> np.ndarray:
        """Rewards (n,) as they were earned, or at the current `weights`; NaN where a component is missing."""
        if self.weights is None:
            return self._reward[index]
        reward = np.zeros(len(index))
        for name, weight in self.weights.items():
            if weight != 0:
                reward += weight * (self._components[name][index] if name in self._components else np.nan)
        return reward.astype(np.float32)

    def _rings(self) -> dict[str, np.ndarray]:
        rings = {
            "state_id": self._state_id,
            "set_id": self._set_id,
            "action": self._action,
            "reward": self._reward,
            "terminated": self._terminated,
            "next_state_id": self._next_state_id,
            "next_set_id": self._next_set_id,
        }
        return rings if self._pairs is None else {**rings, **self._pairs.rings()}

    def _tables(self) -> dict[str, InternedRows]:
        pairs = None if self._pairs is None else self._pairs.table
        tables = {"states": self.states, "candidates": self.candidates, "sets": self.sets, "pairs": pairs}
        return {name: table for name, table in tables.items() if table is not None}


class ShownPairs:
    """The `pairs` of each transition's decision and of the next one, with the applicant's id.

    Each distinct matrix of `pairs` is stored once.

    Args:
        capacity: Number of transitions.
        n_candidates: k, the number of candidates.
        n_pairs: p, how many numbers a pair has.
        n_envs: Environments that add at once.
    """

    def __init__(self, capacity: int, n_candidates: int, n_pairs: int, n_envs: int):
        self._shape = (n_candidates, n_pairs)
        self.table = InternedRows(n_candidates * n_pairs, np.float32)
        self.seen = _LastSeen(n_envs)
        self.applicant_id = np.full(capacity, -1, np.int64)
        self._id = np.zeros(capacity, np.int32)
        self._next_id = np.zeros(capacity, np.int32)

    def rows(self, index: np.ndarray, following: bool = False) -> np.ndarray:
        """The `pairs` (n, k, p) of the decisions at positions (n,), or of the next decisions if `following`."""
        return self.table.rows[(self._next_id if following else self._id)[index]].reshape(-1, *self._shape)

    def add(
        self,
        index: np.ndarray,
        envs: np.ndarray,
        pairs: np.ndarray | None,
        goes_on: np.ndarray,
        next_pairs: np.ndarray | None,
        applicant_id: np.ndarray,
    ) -> None:
        """Store the `pairs` of n transitions.

        Args:
            index: (n,) positions of the transitions.
            envs: (n,) indices of their environments.
            pairs: (n, k, p) of their decisions.
            goes_on: (m,) which of the n have not terminated; the others have no next decision.
            next_pairs: (m, k, p) of the next decisions.
            applicant_id: (n,), -1 where it is not known.
        """
        assert pairs is not None and next_pairs is not None  # the observation space has `pairs`
        ids = self._look_up(envs, pairs)
        next_ids = ids.copy()
        next_ids[goes_on] = self._look_up(envs[goes_on], next_pairs)
        self.table.acquire(np.delete(next_ids, goes_on))
        self._id[index], self._next_id[index], self.applicant_id[index] = ids, next_ids, applicant_id

    def release(self, index: np.ndarray) -> None:
        """Drop the references of the transitions at some positions."""
        self.table.release(np.concatenate([self._id[index], self._next_id[index]]))

    def rings(self) -> dict[str, np.ndarray]:
        """The arrays that have one entry per transition, by name."""
        return {"pairs_id": self._id, "next_pairs_id": self._next_id, "applicant_id": self.applicant_id}

    def _look_up(self, envs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Ids (n,), one reference added to each. Arrays that have not changed are not hashed again."""
        changed = self.seen.changed(envs, pairs)
        if changed.any():
            ids = self.table.intern(pairs[changed].reshape(-1, self.table.rows.shape[1]))
            self.table.release(self.seen.replace(envs[changed], ids, pairs[changed]))
        ids = self.seen.ids[envs]
        self.table.acquire(ids)
        return ids


class InternedRows:
    """A table that stores equal rows once, counts references, and reuses the place of a row that has none.

    Rows are found by a 64-bit hash in chained buckets and then compared by content (bitwise, so NaN equals itself).

    Args:
        dim: Size of a row.
        dtype: A type of four bytes.

    Attributes:
        rows: (places, dim); a place whose count is 0 holds nothing.
        counts: (places,) int32 references.
        n_used: Places that were ever used.
        n_interned: How many rows had to be stored so far.
    """

    def __init__(self, dim: int, dtype: Any):
        self.rows = np.zeros((64, dim), dtype)
        self.counts = np.zeros(64, np.int32)
        self.n_used = 0
        self.n_interned = 0
        self._hashes = np.zeros(64, np.uint64)
        # `_chain` holds for a live row the next row of its bucket, and for a free place the next free place.
        self._chain = np.full(64, -1, np.int32)
        self._buckets = np.full(64, -1, np.int32)
        self._free = -1
        # Any odd numbers will do: a collision only costs one more comparison.
        self._factors = np.random.Generator(np.random.PCG64(0)).integers(2**63, size=dim, dtype=np.uint64) * 2 + 1

    def __len__(self) -> int:
        """Number of distinct rows held."""
        return int(np.count_nonzero(self.counts))

    @property
    def nbytes(self) -> int:
        """Bytes of the table and its index."""
        return sum(a.nbytes for a in (self.rows, self.counts, self._hashes, self._chain, self._buckets))

    def intern(self, rows: np.ndarray) -> np.ndarray:
        """Ids (n,) int32 of rows (n, dim), each with one reference added."""
        rows = np.ascontiguousarray(rows, self.rows.dtype)
        hashes = _mix(rows.view(np.uint32).astype(np.uint64) @ self._factors)
        ids = np.empty(len(rows), np.int32)
        for i, row in enumerate(rows):
            place = self._find(row, int(hashes[i]))
            ids[i] = self._insert(row, hashes[i]) if place < 0 else place
            self.counts[ids[i]] += 1
        return ids

    def acquire(self, ids: np.ndarray) -> None:
        """Add one reference to each id (n,)."""
        np.add.at(self.counts, ids, 1)

    def release(self, ids: np.ndarray) -> np.ndarray:
        """Drop one reference of each id (n,).

        Returns:
            Ids that have no references left. Their rows can be read until the next :meth:`intern`.
        """
        np.subtract.at(self.counts, ids, 1)
        freed = np.unique(ids[self.counts[ids] == 0])
        for place in freed.tolist():
            self._unlink(place)
            self._chain[place], self._free = self._free, place
        return freed

    def free_places(self) -> np.ndarray:
        """Free places (n,), in the order in which they are taken."""
        places, place = [], self._free
        while place >= 0:
            places.append(place)
            place = int(self._chain[place])
        return np.array(places, np.int32)

    def restore(self, rows: np.ndarray, counts: np.ndarray, free: np.ndarray | None = None) -> None:
        """Replace the content by the used part of a saved table and its :meth:`free_places`, in the saved order."""
        size = max(64, 1 << (len(rows) - 1).bit_length())
        self.rows = np.zeros((size, rows.shape[1]), self.rows.dtype)
        self.counts = np.zeros(size, np.int32)
        self.rows[: len(rows)], self.counts[: len(rows)] = rows, counts
        self.n_used = len(rows)
        self._hashes = _mix(self.rows.view(np.uint32).astype(np.uint64) @ self._factors)
        self._chain = np.full(size, -1, np.int32)
        self._free = -1
        free = np.flatnonzero(self.counts[: self.n_used] == 0) if free is None else free
        for place in free[::-1].tolist():
            self._chain[place], self._free = self._free, place
        self._index_all()

    def _find(self, row: np.ndarray, row_hash: int) -> int:
        place = int(self._buckets[row_hash & (len(self._buckets) - 1)])
        content = row.tobytes()
        while place >= 0:
            if int(self._hashes[place]) == row_hash and self.rows[place].tobytes() == content:
                return place
            place = int(self._chain[place])
        return -1

    def _insert(self, row: np.ndarray, row_hash: np.uint64) -> int:
        if self._free >= 0:
            place, self._free = self._free, int(self._chain[self._free])
        else:
            if self.n_used == len(self.rows):
                self._grow()
            place = self.n_used
            self.n_used += 1
        bucket = int(row_hash) & (len(self._buckets) - 1)
        self.rows[place], self._hashes[place] = row, row_hash
        self._chain[place], self._buckets[bucket] = self._buckets[bucket], place
        self.n_interned += 1
        return place

    def _unlink(self, place: int) -> None:
        bucket = int(self._hashes[place]) & (len(self._buckets) - 1)
        before = int(self._buckets[bucket])
        if before == place:
            self._buckets[bucket] = self._chain[place]
            return
        while int(self._chain[before]) != place:
            before = int(self._chain[before])
        self._chain[before] = self._chain[place]

    def _grow(self) -> None:
        """Double the places; called only when all are in use."""
        size = 2 * len(self.rows)
        for name in ("rows", "counts", "_hashes", "_chain"):
            old = getattr(self, name)
            new = np.zeros((size, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
        self._index_all()

    def _index_all(self) -> None:
        """Chain all live rows anew, in as many buckets as there are places."""
        self._buckets = np.full(len(self.rows), -1, np.int32)
        live = np.flatnonzero(self.counts[: self.n_used])
        bucket = (self._hashes[live] & np.uint64(len(self._buckets) - 1)).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        bucket, live = bucket[order], live[order]
        same = bucket[1:] == bucket[:-1]
        self._chain[live] = -1
        self._chain[live[:-1][same]] = live[1:][same]
        first = np.concatenate([[True], ~same])[: len(live)]
        self._buckets[bucket[first]] = live[first]


class _LastSeen:
    """The last arrays of each environment with their ids, so that unchanged arrays need no hashing."""

    def __init__(self, n_envs: int):
        self.ids = np.full(n_envs, -1, np.int32)
        self._arrays: tuple[np.ndarray, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.ids.nbytes + sum(array.nbytes for array in self._arrays or ())

    def changed(self, envs: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
        """Whether an environment's arrays differ from last time, (n,) bool."""
        changed = self.ids[envs] < 0
        if self._arrays is not None:
            for old, new in zip(self._arrays, arrays, strict=True):
                old = old if len(envs) == len(old) else old[envs]
                changed |= (old != new).any(axis=tuple(range(1, new.ndim)))
        return changed

    def replace(self, envs: np.ndarray, ids: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
        """Remember new arrays and ids; returns the old ids, whose references the caller must drop."""
        if self._arrays is None:
            self._arrays = tuple(np.zeros((len(self.ids), *array.shape[1:]), array.dtype) for array in arrays)
        for old, new in zip(self._arrays, arrays, strict=True):
            old[envs] = new
        dropped = self.ids[envs]
        self.ids[envs] = ids
        return dropped[dropped >= 0]

    def clear(self) -> np.ndarray:
        """Forget everything; returns the ids that were held."""
        held = self.ids[self.ids >= 0]
        self.ids[:] = -1
        return held


def _check_table(shown: str, name: str, dtype: np.dtype[Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Check the rows of a saved table, their reference counts, and the free places."""
    rows, counts = arrays[f"{name}:rows"], arrays[f"{name}:counts"]
    if rows.ndim != 2 or rows.dtype != dtype:
        _refuse(shown, f"{name}:rows", f"must be rows of {dtype}")
    if counts.shape != rows.shape[:1] or counts.dtype != np.int32 or (counts < 0).any():
        _refuse(shown, f"{name}:counts", f"must be {len(rows)} numbers of 0 or more")
    free = arrays.get(f"{name}:free")
    # Each free place must occur once, because free places are chained in this order, and a chain must have an end.
    if free is not None and not np.array_equal(np.sort(free), np.flatnonzero(counts == 0)):
        _refuse(shown, f"{name}:free", "must be the places that nobody refers to")
    if rows.dtype.kind == "f" and not np.isfinite(rows[counts > 0]).all():
        row = int(np.flatnonzero((counts > 0) & ~np.isfinite(rows).all(axis=1))[0])
        _refuse(shown, f"{name}:rows", f"must be finite, row {row} is not")


def _check_references(shown: str, name: str, ids: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
    """Check that all rows that ids refer to exist, and that the table counts these references right."""
    counts = arrays[f"{name}:counts"]
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(counts):
        _refuse(shown, name, f"has {len(counts)} rows, but rows that do not exist are referred to")
    if not np.array_equal(np.bincount(ids, minlength=len(counts)), counts):
        _refuse(shown, f"{name}:counts", "must be how often each row is referred to")


def _refuse(shown: str, name: str, what: str) -> NoReturn:
    raise AgentFileError(f"{shown}: `{name}` {what}. The file was changed: use an unchanged copy, or begin without it.")


def _take(obs: DecisionBatch, rows: np.ndarray) -> DecisionBatch:
    """Some rows, in order; all of them without a copy."""
    return obs if len(rows) == len(obs.state) else obs.take(rows)


def _mix(hashes: np.ndarray) -> np.ndarray:
    """Spread the high bits of a product sum over the low ones that choose a bucket."""
    hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    return hashes ^ (hashes >> np.uint64(29))
