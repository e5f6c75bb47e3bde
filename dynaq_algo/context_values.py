"""A table of the value of future states, by their `progress`, and the candidate sets that planning imagines."""

from __future__ import annotations

import bisect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th

from dynaq_algo.outcome_inputs import GRID, SAME, on_grid

__all__ = ["ContextValues", "ImaginedSets", "Predictions"]

_MOST_CONTEXTS = 5_000
_MOST_SETS = 2_000
_FARTHEST = 2**62  # in place of a bound that is infinite
_LIKELY = 1e-3
"""An imagined outcome of at least this probability adds its value of `progress` to the table."""


class ImaginedSets(NamedTuple):
    """Candidate sets at b values of `progress`, s sets for each value.

    Attributes:
        state: (b, s, r), the states' principal components.
        similarities: (b, s, k, n_cosines).
        actions: (b, s, k), indices of the candidates, see :meth:`OutcomeInputs.actions_of
            <dynaq_algo.outcome_inputs.OutcomeInputs.actions_of>`.
        allowed: (b, s, k) bool.
        pairs: (b, s, k, p); None if observations have none.
    """

    state: np.ndarray
    similarities: np.ndarray
    actions: np.ndarray
    allowed: np.ndarray
    pairs: np.ndarray | None


class Predictions(NamedTuple):
    """What a model predicts for imagined candidate sets at b rows of `progress`, s sets for each.

    Attributes:
        reward: (b, s, k), -inf where a candidate may not be chosen.
        chances: (b, s, k, n_outcomes) probabilities.
    """

    reward: np.ndarray
    chances: np.ndarray

    def returns(self, rows: np.ndarray | slice, following: np.ndarray, gamma: float) -> np.ndarray:
        """Rewards plus `gamma` times the expected value of the next state, (c, s, k), at c rows.

        `following` (c, n_outcomes) holds the values of the rows that outcomes lead to.
        """
        found = np.einsum("cskn,cn->csk", self.chances[rows], following)
        found *= gamma
        found += self.reward[rows]
        return found

    def resized(self, shape: tuple[int, int, int, int], keeps: bool) -> Predictions:
        """Predictions of another shape (b, s, k, n_outcomes): the present ones if `keeps` is True, and 0 elsewhere."""
        larger = Predictions(np.zeros(shape[:3], np.float32), np.zeros(shape, np.float32))
        if keeps:
            rows, known = self.chances.shape[0], self.chances.shape[3]
            larger.reward[:rows], larger.chances[:rows, :, :, :known] = self.reward, self.chances
        return larger


class _KeptDecisions:
    """The latest decisions, which planning imagines again. Ring arrays let many be taken at once."""

    def __init__(self) -> None:
        self._rings: dict[str, np.ndarray] = {}
        self._n_added = 0

    def __len__(self) -> int:
        return min(self._n_added, _MOST_SETS)

    @property
    def has_pairs(self) -> bool:
        """Whether an observation has `pairs`."""
        return "pairs" in self._rings

    def add(self, decisions: Mapping[str, np.ndarray]) -> None:
        """Keep n more decisions, given by name as arrays (n, ...), in place of the oldest."""
        n = len(decisions["actions"])
        if any(self._rings[name].shape[1:] != values.shape[1:] for name, values in decisions.items() if self._rings):
            # The number of candidates has changed. Sets of different sizes cannot be imagined together.
            self._rings, self._n_added = {}, 0
        rows = (self._n_added + np.arange(n)[-_MOST_SETS:]) % _MOST_SETS
        for name, values in decisions.items():
            if name not in self._rings:  # zeros take no memory before they are written
                self._rings[name] = np.zeros((_MOST_SETS, *values.shape[1:]), values.dtype)
            self._rings[name][rows] = values[-_MOST_SETS:]
        self._n_added += n

    def at(self, context: Sequence[int]) -> np.ndarray:
        """Places (m,) of the kept decisions at a value of `progress`."""
        return np.flatnonzero((self.take("context", np.arange(len(self))) == np.array(context)).all(axis=1))

    def askable(self) -> np.ndarray:
        """Places (m,) of the kept decisions whose applicant and candidates have ids."""
        return np.flatnonzero(self.take("can_ask", np.arange(len(self))))

    def take(self, name: str, places: np.ndarray) -> np.ndarray:
        """The entry `name` of the decisions at places (...), which are counted from the oldest decision."""
        taken: np.ndarray = self._rings[name][(self._n_added - len(self) + places) % _MOST_SETS]
        return taken

    def get_state(self) -> dict[str, th.Tensor]:
        """All kept decisions, the oldest first."""
        return {name: th.as_tensor(self.take(name, np.arange(len(self)))) for name in self._rings}


class ContextValues:
    """What each row of `progress`, m numbers, is worth.

    Numbers count as equal if they differ by at most some 1 / 10,000. At most 5,000 rows are told apart. Each further
    row counts as the nearest of these.

    Planning imagines candidate sets at a row. In each set the best candidate has the largest sum of reward and
    discounted value of the next row. The value of the row is the mean of these largest sums. If a second model judges
    the candidates that the first has chosen, the value is the mean of the second model's sums for these candidates, as
    in double Q-learning (van Hasselt, 2010). Each planning step adds a bonus for seldom visited rows to this value, as
    in Dyna-Q+ (Sutton, 1990): `bonus` times the rewards' root mean square, divided by the square root of (number of
    visits + 1).

    Args:
        low: (m,) smallest values of `progress`.
        high: (m,) largest values of `progress`.
        bonus: Factor of the bonus; 0 for none.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, bonus: float = 1.0):
        self._low, self._high = (
            np.rint(np.clip(np.asarray(end, np.float64) * GRID, -_FARTHEST, _FARTHEST)).astype(np.int64)
            for end in (low, high)
        )
        self.bonus = bonus
        self._place: dict[tuple[int, ...], int] = {}
        self._rows: list[tuple[int, ...]] = []
        self._columns: list[list[int]] = [[] for _ in self._low]  # the values of each column, ascending
        self._full: np.ndarray | None = None  # all rows, once there is no room for more
        self._value = np.zeros(64)
        self._visits = np.zeros(64)
        self._imagined = np.zeros(64)
        # For each row: rewards and chances in its imagined sets, by one model or two, and where outcomes lead to.
        self._views = [Predictions(np.zeros((0, 0, 0), np.float32), np.zeros((0, 0, 0, 0), np.float32))]
        self._next = np.zeros((0, 0), np.int64)
        self._kept = _KeptDecisions()
        self._current: list[tuple[int, ...]] = []
        self._scale = np.zeros(2)

    def __len__(self) -> int:
        return len(self._rows)

    def difference(self, before: np.ndarray, after: np.ndarray) -> tuple[int, ...]:
        """The change of `progress` (m,), in units of 1 / :data:`~dynaq_algo.outcome_inputs.GRID`."""
        return tuple((on_grid(after) - on_grid(before)).tolist())

    def visit(self, progress: np.ndarray) -> None:
        """Count values (n, m) as visited."""
        places = [self._known(tuple(row)) for row in on_grid(progress).tolist()]
        for place in places:
            self._visits[place] += 1
        self._current = [self._rows[place] for place in places]

    def remember(self, steps: Any, state: np.ndarray, similarities: np.ndarray, actions: np.ndarray) -> None:
        """Keep the latest 2,000 decisions for planning, and update the rewards' root mean square.

        Args:
            steps: n transitions, see :class:`~dynaq_algo.transition_model.Steps`.
            state: (n, r), the states' principal components.
            similarities: (n, k, n_cosines).
            actions: (n, k), indices of the candidates, as in :class:`ImaginedSets`.
        """
        kept = {"state": state, "similarities": similarities, "actions": actions, "allowed": steps.allowed}
        kept |= {"candidate_id": steps.candidate_id, "applicant_id": np.asarray(steps.applicant_id, np.int64)}
        kept["can_ask"] = (kept["applicant_id"] >= 0) & (kept["candidate_id"] >= 0).all(axis=1)
        kept["context"] = np.array(self._current, np.int64)
        if steps.pairs is not None:
            kept["pairs"] = steps.pairs.cpu().numpy()
        self._kept.add(kept)
        self._scale += np.square(steps.reward).sum(), len(steps.reward)

    def following(self, progress: np.ndarray, outcomes: Sequence[tuple[int, ...] | None]) -> np.ndarray:
        """Values (n, n_outcomes) of the rows that outcomes lead to from `progress` (n, m); 0 for the episode's end."""
        found: dict[tuple[int, ...], list[float]] = {}
        rows = [tuple(row) for row in on_grid(progress).tolist()]
        for row in rows:
            if row not in found:
                here = self._found(row)
                otherwise = 0.0 if here is None else self._value[here]
                found[row] = [
                    0.0 if place is None else self._value[place] if place >= 0 else otherwise
                    for place in self._reached(np.array(row), outcomes)
                ]
        return np.array([found[row] for row in rows]).reshape(len(rows), len(outcomes))

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Rows (n, m) to imagine sets at: rows without a set yet, then a row just visited, then random rows."""
        new = np.flatnonzero(self._imagined[: len(self._rows)] == 0)[:n].tolist()
        now = self._current[int(rng.integers(len(self._current)))]
        drawn = rng.integers(len(self._rows), size=n).tolist()
        places = [*new, self._place[now], *drawn][:n]
        return np.array([self._rows[place] for place in places]) / GRID

    def sets(
        self, contexts: np.ndarray, n_sets: int, ask: Callable[..., np.ndarray] | None, rng: np.random.Generator
    ) -> ImaginedSets:
        """Sampled candidate sets at rows (b, m) of `progress`.

        :meth:`TransitionModel.plan <dynaq_algo.transition_model.TransitionModel.plan>` says what `ask` is.
        """
        kept = self._kept
        chosen = np.empty((len(contexts), n_sets), np.int64)
        askable = kept.askable() if kept.has_pairs and ask is not None else np.zeros(0, np.int64)
        if not len(askable):
            ask = None
        for row, key in enumerate(on_grid(contexts).tolist()):
            pool = kept.at(key) if ask is None and kept.has_pairs else askable
            drawn = rng.integers(len(pool) or len(kept), size=n_sets)
            chosen[row] = pool[drawn] if len(pool) else drawn
        pairs = kept.take("pairs", chosen) if kept.has_pairs and ask is None else None
        if kept.has_pairs and ask is not None:
            applicants = kept.take("applicant_id", chosen).reshape(-1, 1)
            candidates = kept.take("candidate_id", chosen).reshape(len(applicants), -1).astype(np.int64)
            progress = np.repeat(contexts, n_sets, axis=0)[:, None].astype(np.float32)
            pairs = np.asarray(ask(applicants, candidates, progress), np.float32)
            pairs = pairs.reshape(*chosen.shape, *pairs.shape[1:])
        state, similarities, actions, allowed = (
            kept.take(name, chosen) for name in ("state", "similarities", "actions", "allowed")
        )
        return ImaginedSets(state, similarities, actions, allowed, pairs)

    def imagine(
        self,
        contexts: np.ndarray,
        views: Sequence[Predictions],
        outcomes: Sequence[tuple[int, ...] | None],
    ) -> None:
        """Keep the predictions for imagined sets, in place of earlier ones at the same rows.

        Args:
            contexts: (b, m) rows of `progress`.
            views: The predictions of the model that chooses and, if there is one, of the model that judges.
            outcomes: The outcomes, n_outcomes changes of `progress`; None for the end of the episode.
        """
        shape = views[0].chances.shape[1:]
        self._make_room(shape, len(views))
        for row, context in enumerate(on_grid(contexts)):
            here = self._known(tuple(context.tolist()))
            makes = (views[0].chances[row].max(axis=(0, 1)) > _LIKELY).tolist()
            places = self._reached(context, outcomes, makes)
            self._make_room(shape, len(views))
            n = len(outcomes)
            for kept, view in zip(self._views, views, strict=True):
                kept.reward[here], kept.chances[here] = view.reward[row], 0.0
                kept.chances[here, :, :, :n] = view.chances[row]
            # The last place has value 0: it stands for applicants who have left.
            self._next[here] = -1
            self._next[here, :n] = [-1 if place is None else here if place < 0 else place for place in places]
            self._imagined[here] += 1

    def sweep(self, gamma: float) -> float:
        """One step of value iteration over all that is imagined; returns the mean absolute change."""
        n = len(self._rows)
        places = np.flatnonzero(self._imagined[:n])
        if not len(places):
            return 0.0
        # Nearly always every row has imagined sets. A slice then saves a copy.
        known = slice(0, n) if len(places) == n else places
        values = np.append(self._value[:n], 0.0)
        following = values[self._next[known]].astype(np.float32)  # (c, n_outcomes)
        chooses, *judges = (view.returns(known, following, gamma) for view in self._views)
        best = chooses.max(axis=2)
        for judged in judges:
            best = np.take_along_axis(judged, chooses.argmax(axis=2)[..., None], axis=2)[..., 0]
        best = best.mean(axis=1) + self._bonuses(known)
        change = np.abs(best - self._value[known]).mean()
        self._value[known] = best
        return float(change)

    def _make_room(self, shape: tuple[int, ...], n_views: int) -> None:
        """Make the arrays large enough for all rows and outcomes."""
        s, k, n = shape
        first = self._views[0]
        size, width = len(self._value), max(n, first.chances.shape[3])
        if first.chances.shape == (size, s, k, width) and len(self._views) == n_views:
            return
        same = first.chances.shape[1:3] == (s, k)
        # A model that judges from now on begins with what was kept of the model that chooses.
        self._views = [view.resized((size, s, k, width), same) for view in [*self._views, first][:n_views]]
        following = np.full((size, width), -1)
        if same:
            following[: len(self._next), : self._next.shape[1]] = self._next
        else:
            self._imagined[:] = 0
        self._next = following

    def of(self, progress: np.ndarray) -> np.ndarray:
        """Values (n,) of rows (n, m); 0 for unknown ones."""
        places = [self._found(tuple(row)) for row in on_grid(progress).tolist()]
        return np.array([0.0 if place is None else self._value[place] for place in places])

    def _bonuses(self, places: np.ndarray | slice) -> np.ndarray:
        deviation = np.sqrt(self._scale[0] / max(self._scale[1], 1.0))
        return self.bonus * deviation / np.sqrt(1.0 + self._visits[places])

    def _reached(
        self, context: np.ndarray, outcomes: Sequence[tuple[int, ...] | None], make: Sequence[bool] = ()
    ) -> list[int | None]:
        """Places of the rows that outcomes lead to; None for the end, -1 for an unknown row that is not added."""
        wanted = make or [False] * len(outcomes)
        moves = np.array([(0,) * len(context) if one is None else one for one in outcomes], np.int64)
        # All rows are clipped in one call, because clipping takes longer than all else here.
        rows = np.minimum(np.maximum(context + moves.reshape(-1, len(context)), self._low), self._high).tolist()
        places: list[int | None] = []
        for one, known, row in zip(outcomes, wanted, map(tuple, rows), strict=True):
            if one is None:
                places.append(None)
            else:
                place = self._known(row, context) if known else self._found(row)
                places.append(-1 if place is None else place)
        return places

    def _found(self, row: tuple[int, ...]) -> int | None:
        """The place of a row. For an unknown row it is None, or the nearest row's place if the table is full."""
        place = self._place.get(row)
        if place is None:
            place = self._place.get(self._rounded(row))
        if place is None and len(self._rows) >= _MOST_CONTEXTS:
            place = self._nearest(row)
        return place

    def _nearest(self, row: tuple[int, ...]) -> int:
        """The place of the known row that is nearest to a row for which there is no room."""
        if self._full is None:
            warnings.warn(
                f"`progress` has more than {_MOST_CONTEXTS:,} different rows. This world model keeps one number for "
                "each, so every further row counts as the nearest of these. To tell it which rows are alike, round "
                "`progress` in an observation wrapper.",
                stacklevel=2,
            )
            self._full = np.array(self._rows)
        return int(np.abs(self._full - np.array(row)).sum(axis=1).argmin())

    def _rounded(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """The row, with each number replaced by a known value of its column that counts as equal, if there is one."""
        rounded = []
        for value, known in zip(row, self._columns, strict=True):
            at = bisect.bisect_left(known, value)
            near = ((abs(other - value), other) for other in known[max(0, at - 1) : at + 1])
            apart, nearest = min(near, default=(0, value))
            rounded.append(nearest if apart <= SAME else value)
        return tuple(rounded)

    def _known(self, row: tuple[int, ...], beside: np.ndarray | None = None) -> int:
        """The place of a row. A new row begins at the value of the row from which it is reached."""
        found = self._found(row)
        if found is not None:
            return found
        place, row = len(self._rows), self._rounded(row)
        if place == len(self._value):
            self._value, self._visits, self._imagined = (
                np.concatenate([values, np.zeros(place)]) for values in (self._value, self._visits, self._imagined)
            )
        self._place[row] = place
        self._rows.append(row)
        for value, known in zip(row, self._columns, strict=True):
            at = bisect.bisect_left(known, value)
            if at == len(known) or known[at] != value:
                known.insert(at, value)
        origin = None if beside is None else self._found(tuple(beside.tolist()))
        self._value[place] = 0.0 if origin is None else self._value[origin]
        return place

    def get_state(self) -> dict[str, Any]:
        """The table, and the decisions that are kept."""
        n, width = len(self._rows), len(self._low)
        state: dict[str, Any] = {
            "grid": th.tensor(GRID),
            "rows": th.tensor(self._rows, dtype=th.int64).reshape(n, width),
            "value": th.as_tensor(self._value[:n].copy()),
            "visits": th.as_tensor(self._visits[:n].copy()),
            "imagined": th.as_tensor(self._imagined[:n].copy()),
            "next": th.as_tensor(self._next[:n].copy()),
            "scale": th.as_tensor(self._scale.copy()),
            "current": th.tensor(self._current, dtype=th.int64).reshape(len(self._current), width),
        }
        for view, before in zip(self._views, ("", "judged_"), strict=False):
            state |= {before + name: th.as_tensor(values[:n].copy()) for name, values in view._asdict().items()}
        if len(self._kept):
            state["kept"] = self._kept.get_state()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`get_state` gave.

        Raises:
            ValueError: If the numbers are multiples of another fraction than 1 /
                :data:`~dynaq_algo.outcome_inputs.GRID`.
        """
        if int(state["grid"]) != GRID:
            raise ValueError(
                f"the table of values must have multiples of 1 / {GRID:,}, got 1 / {int(state['grid']):,}."
            )
        self._full = None
        self._rows = [tuple(row) for row in state["rows"].tolist()]
        self._place = {row: place for place, row in enumerate(self._rows)}
        self._columns = [sorted(set(column)) for column in zip(*self._rows, strict=True)] or [[] for _ in self._low]
        spare = np.zeros(max(64, len(self._rows)))
        self._value, self._visits, self._imagined = (
            np.concatenate([state[name].numpy(), spare]) for name in ("value", "visits", "imagined")
        )
        size = len(self._value)
        self._views = [
            Predictions(*(_lengthened(state[before + name].numpy(), size) for name in Predictions._fields))
            for before in ("", "judged_")
            if f"{before}reward" in state
        ]
        self._next = _lengthened(state["next"].numpy(), size)
        self._scale = state["scale"].numpy().copy()
        self._current = [tuple(row) for row in state["current"].tolist()]
        self._kept = _KeptDecisions()
        if "kept" in state:
            self._kept.add({name: values.numpy() for name, values in state["kept"].items()})


def _lengthened(values: np.ndarray, n: int) -> np.ndarray:
    """The rows, filled up with zeros to n rows."""
    longer = np.zeros((n, *values.shape[1:]), values.dtype)
    longer[: len(values)] = values
    return longer
