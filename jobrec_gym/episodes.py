"""Which episodes a vector environment plays next, and which jobs they show."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from jobrec_gym.problem import RecommendationProblem

__all__ = ["UpcomingEpisodes"]

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BLOCK = 64
_AHEAD = 8
_STEPS_AHEAD = 8
_PREPARED_IDS = 1 << 18
"""Up to this many candidates (2 MiB), several episodes of each environment are prepared together."""


_Mark = tuple[list[np.random.Generator | None], list[int | None], list[dict[str, Any] | None], NDArray[np.integer]]
"""The generators, their seeds, their states before the present blocks, and how much of the blocks is used."""


class UpcomingEpisodes:
    """Draws each environment's episode numbers from its own generator, in blocks, so that a step needs no loop.

    Candidates that are cheap to draw are drawn for several episodes ahead, because one operation on many numbers is
    faster than many operations on few. If each step shows other candidates, candidates are drawn for several steps
    ahead: the next steps of the running episodes, and the first steps of the episodes that follow. An episode does not
    depend on when it is prepared.

    Args:
        problem: The problem that the episodes belong to.
        num_envs: How many environments.
    """

    def __init__(self, problem: RecommendationProblem, num_envs: int):
        self.generators: list[np.random.Generator | None] = [None] * num_envs
        self.seeds: list[int | None] = [None] * num_envs
        self._problem = problem
        self._block = np.zeros((num_envs, _BLOCK), dtype=np.uint64)
        self._keys = np.zeros((num_envs, _BLOCK), dtype=np.uint64)
        self._used = np.full(num_envs, _BLOCK)
        self._before_block: list[dict[str, Any] | None] = [None] * num_envs
        n_ids = num_envs * problem.num_candidates
        self._ahead = _AHEAD if problem.draws_ahead and _AHEAD * n_ids <= _PREPARED_IDS else 1
        # A block has parts of `_ahead` episodes each. `_part` is the prepared part of each environment, -1 for none.
        self._part = np.full(num_envs, -1)
        self._steps_ahead: _StepsAhead | None = None
        # The environments' own arrays, from the last call of :meth:`show`: applicants, episodes, steps so far.
        self._running: tuple[Ids, NDArray[np.uint64], Ids] | None = None
        if problem.resample == "step" and problem.draws_ahead and 2 * _STEPS_AHEAD * n_ids <= _PREPARED_IDS:
            self._steps_ahead = _StepsAhead(problem, num_envs)
        n_kept = self._ahead if self._ahead > 1 and self._steps_ahead is None else 0
        self._applicant_ids = np.zeros((num_envs, n_kept), dtype=np.int64)
        self._candidate_ids = np.zeros((num_envs, n_kept, problem.num_candidates), dtype=np.int64)

    def seed(self, seed: int | Sequence[int | None] | None, rows: Mask) -> None:
        """Seeds the marked environments: environment ``i`` with ``seed + i``, or with the i-th seed of a list.

        An environment whose seed is ``None`` keeps its generator.

        Raises:
            ValueError: For a wrong number of seeds, or for a negative seed.
            TypeError: If a seed is not a whole number.
        """
        n = len(self.generators)
        seeds: list[int | None]
        try:
            if seed is None:
                seeds = [None] * n
            elif isinstance(seed, (Sequence, np.ndarray)):
                seeds = [None if entry is None else operator.index(entry) for entry in seed]
            else:
                seeds = [operator.index(seed) + row for row in range(n)]
        except TypeError:
            raise TypeError(
                f"`seed` must be a whole number, or a list of {n} entries (whole numbers or None), got {seed!r:.80}."
            ) from None
        if len(seeds) != n:
            raise ValueError(f"`seed` must be one number or {n} of them, got {len(seeds)}.")
        if any(entry is not None and entry < 0 for entry in seeds):
            raise ValueError(f"`seed` must not be negative, got {seed}.")
        for row in np.flatnonzero(rows).tolist():
            if seeds[row] is not None or self.generators[row] is None:
                self.generators[row], self.seeds[row] = seeding.np_random(seeds[row])
                self._used[row] = _BLOCK
                if self._steps_ahead is not None:
                    self._steps_ahead.forget_next(row)

    @property
    def draws_noise(self) -> bool:
        """Whether the noise of answers is drawn ahead, together with the candidates."""
        return self._steps_ahead is not None and self._problem.noise_of is not None

    def next(
        self, rows: Mask, noise: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], Ids, Ids]:
        """The next episodes of the m marked environments.

        Args:
            rows: bool (n,).
            noise: (n,), an array that the noise of the first answers is written into, if noise is drawn ahead.

        Returns:
            Numbers of the episodes (m,), their keys (m,), applicants (m,), and first candidates (m, k).
        """
        places = rows.nonzero()[0]
        used = self._used[places]
        if np.count_nonzero(used == _BLOCK):
            self._draw(places[used == _BLOCK])
            used = self._used[places]
        numbers, keys = self._block[places, used], self._keys[places, used]
        if self._steps_ahead is not None:
            if self._steps_ahead.lacks_next(rows):
                if self._running is None:
                    self._steps_ahead.prepare_next(self._following())
                else:  # the unmarked environments are prepared too: one large draw is faster than two small ones
                    applicant_ids, episodes, steps = self._running
                    # The present candidates of the unmarked are known, so only candidates of later steps are drawn.
                    self._steps_ahead.prepare(~rows, applicant_ids, episodes, steps + 1, self._following())
            applicant_ids, candidate_ids = self._steps_ahead.begin(places, noise)
        elif self._ahead == 1:
            applicant_ids, candidate_ids = self._begin(numbers)
        else:
            part, place = np.divmod(self._used, self._ahead)
            self._prepare(rows & (self._part != part), part)
            place = place[rows]
            applicant_ids, candidate_ids = self._applicant_ids[rows, place], self._candidate_ids[rows, place]
        self._used[places] += 1
        return numbers, keys, applicant_ids, candidate_ids

    def show(
        self,
        rows: Mask,
        applicant_ids: Ids,
        episodes: NDArray[np.uint64],
        steps: NDArray[np.int64],
        out: Ids,
        noise: NDArray[np.float64] | None,
    ) -> None:
        """Writes the present candidates of all environments into ``out`` (n, k).

        Args:
            rows: bool (n,), which environments made a step and need other candidates after it. The unmarked have
                just begun an episode from :meth:`next`, and show its first candidates already.
            applicant_ids: (n,). This and all arguments below are the environments' own arrays.
            episodes: (n,).
            steps: (n,), steps so far.
            out: (n, k), the candidates that were shown before.
            noise: (n,), an array that the noise of the next answers is written into, if noise is drawn ahead.
        """
        if self._steps_ahead is None:
            out[rows] = self._problem.candidates(applicant_ids[rows], episodes[rows], steps[rows])
            return
        self._running = applicant_ids, episodes, steps
        if self._steps_ahead.lacks(steps):
            self._steps_ahead.prepare(rows, applicant_ids, episodes, steps, self._following())
        self._steps_ahead.show(steps, out, noise)

    def forget(self, rows: Mask) -> None:
        """Drops what was prepared for some rows, because their running episodes did not come from :meth:`next`."""
        if self._steps_ahead is not None:
            self._steps_ahead.forget(rows)

    def get_state(self) -> dict[str, Any]:
        """The state that says which episodes come next; everything else is computed from it."""
        return {"generators": list(self._before_block), "used": self._used.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues where :meth:`get_state` was called."""
        n = len(self.generators)
        generators: list[np.random.Generator | None] = [seeding.np_random(0)[0] for _ in range(n)]
        self.return_to((generators, [None] * n, list(state["generators"]), np.array(state["used"])))

    def mark(self) -> _Mark:
        """Marks the present place, for :meth:`return_to`."""
        return list(self.generators), list(self.seeds), list(self._before_block), self._used.copy()

    def return_to(self, mark: _Mark) -> None:
        """Returns to a marked place, once; everything else is then computed anew."""
        self.generators, self.seeds, self._before_block, used = mark
        for generator, state in zip(self.generators, self._before_block, strict=True):
            if generator is not None and state is not None:
                generator.bit_generator.state = state
        self._running = None
        self._draw(np.array([state is not None for state in self._before_block]).nonzero()[0])
        self._used = used
        if self._steps_ahead is not None:
            self._steps_ahead.forget(np.ones(len(used), dtype=bool))
            self._steps_ahead.forget_next(np.ones(len(used), dtype=bool))

    def _following(self) -> NDArray[np.uint64]:
        """Numbers (n,) of the episodes that the next call of :meth:`next` gives."""
        self._draw((self._used == _BLOCK).nonzero()[0])
        return self._block[np.arange(len(self._used)), self._used]

    def _draw(self, places: Ids) -> None:
        for row in places.tolist():
            generator: np.random.Generator = self.generators[row]  # seeded at the first reset
            self._before_block[row] = dict(generator.bit_generator.state)
            self._block[row] = generator.integers(0, 2**64 - 1, _BLOCK, dtype=np.uint64, endpoint=True)
            self._keys[row] = self._problem.episode_keys(self._block[row])
            self._used[row] = 0
            self._part[row] = -1

    def _prepare(self, rows: Mask, part: NDArray[np.int64]) -> None:
        if not rows.any():
            return
        numbers = self._block.reshape(len(rows), -1, self._ahead)[rows, part[rows]].ravel()
        applicant_ids, candidate_ids = self._begin(numbers)
        self._applicant_ids[rows] = applicant_ids.reshape(-1, self._ahead)
        self._candidate_ids[rows] = candidate_ids.reshape(-1, *self._candidate_ids.shape[1:])
        self._part[rows] = part[rows]

    def _begin(self, numbers: NDArray[np.uint64]) -> tuple[Ids, Ids]:
        """Applicants (m,) and first candidates (m, k) of the episodes with the numbers ``numbers`` (m,)."""
        applicant_ids = self._problem.applicants(numbers)
        return applicant_ids, self._problem.candidates(applicant_ids, numbers, np.zeros(len(numbers), dtype=np.int64))


_Part = tuple[Ids, Ids, Ids, NDArray[np.uint64], Ids]
"""Candidate sets to draw: environments, lanes, applicants, episodes and steps; each (m,)."""


class _StepsAhead:
    """Candidates of the next steps. When one environment lacks them, they are drawn for all environments together.

    Each environment has two lanes of several steps. One is a ring buffer for the running episode; the other has the
    first steps of the episode that follows.
    """

    def __init__(self, problem: RecommendationProblem, num_envs: int):
        self._problem = problem
        self._lane = np.zeros(num_envs, dtype=np.int64)  # the lane of the running episode
        # The first step that is not in the running episode's lane, and whether the other lane is filled.
        self._until = np.zeros(num_envs, dtype=np.int64)
        self._has_next = np.zeros(num_envs, dtype=bool)
        self._sets = np.zeros((num_envs, 2, _STEPS_AHEAD, problem.num_candidates), dtype=np.int64)
        self._noise = np.zeros((num_envs, 2, _STEPS_AHEAD)) if problem.noise_of is not None else None
        self._first_lanes = np.arange(0, 2 * num_envs, 2)
        self._next_applicants = np.zeros(num_envs, dtype=np.int64)

    def forget(self, rows: Mask) -> None:
        """Forgets the next steps of the running episodes of some rows."""
        self._until[rows] = 0

    def forget_next(self, rows: Mask | int) -> None:
        """Forgets the episodes that follow in some rows."""
        self._has_next[rows] = False

    def lacks_next(self, rows: Mask) -> bool:
        """Whether a marked row lacks the episode that follows."""
        return bool(np.count_nonzero(rows > self._has_next))

    def lacks(self, steps: NDArray[np.int64]) -> bool:
        """Whether a row lacks the candidates that it shows after ``steps`` (n,) steps."""
        return bool(np.count_nonzero(steps >= self._until))

    def prepare_next(self, numbers: NDArray[np.uint64]) -> None:
        """Draws the missing first steps of the episodes that follow, whose numbers are ``numbers`` (n,)."""
        self._fill(self._following(numbers))

    def prepare(
        self,
        rows: Mask,
        applicant_ids: Ids,
        episodes: NDArray[np.uint64],
        steps: NDArray[np.int64],
        numbers: NDArray[np.uint64],
    ) -> None:
        """Draws missing steps: the next ones of marked running episodes, the first ones of all episodes that follow."""
        places = rows.nonzero()[0]
        now = steps[places]
        wanted = np.maximum(self._until[places], now)[:, None] + np.arange(_STEPS_AHEAD)
        owners, columns = np.nonzero(wanted < now[:, None] + _STEPS_AHEAD)
        who, at = places[owners], wanted[owners, columns]
        self._until[places] = now + _STEPS_AHEAD
        self._fill((who, self._lane[who], applicant_ids[who], episodes[who], at), self._following(numbers))

    def begin(self, places: Ids, noise: NDArray[np.float64] | None) -> tuple[Ids, Ids]:
        """Begins the episodes that follow in m rows: returns their applicants (m,) and first candidates (m, k)."""
        lanes = self._lane[places] = 1 - self._lane[places]
        self._until[places], self._has_next[places] = _STEPS_AHEAD, False
        if noise is not None and self._noise is not None:
            noise[places] = self._noise[places, lanes, 0]
        return self._next_applicants[places], self._sets[places, lanes, 0]

    def show(self, steps: NDArray[np.int64], out: Ids, noise: NDArray[np.float64] | None) -> None:
        """Writes the candidates (n, k) of all rows after ``steps`` (n,) steps, and the noise (n,) of next answers."""
        places = self._first_lanes + self._lane
        places *= _STEPS_AHEAD
        places += steps % _STEPS_AHEAD
        # The mode "clip" checks no places; in the default mode `take` would buffer `out`.
        np.take(self._sets.reshape(-1, out.shape[1]), places, axis=0, out=out, mode="clip")
        if noise is not None and self._noise is not None:
            np.take(self._noise.reshape(-1), places, out=noise, mode="clip")

    def _following(self, numbers: NDArray[np.uint64]) -> _Part:
        places = (~self._has_next).nonzero()[0]
        self._next_applicants[places] = self._problem.applicants(numbers[places])
        self._has_next[places] = True
        at = np.broadcast_to(np.arange(_STEPS_AHEAD), (len(places), _STEPS_AHEAD)).reshape(-1)
        places = np.repeat(places, _STEPS_AHEAD)
        return places, 1 - self._lane[places], self._next_applicants[places], numbers[places], at

    def _fill(self, *parts: _Part) -> None:
        places, lanes, applicant_ids, episodes, at = (np.concatenate(values) for values in zip(*parts, strict=True))
        slots = places, lanes, at % _STEPS_AHEAD
        self._sets[slots] = self._problem.candidates(applicant_ids, episodes, at)
        if self._noise is not None and self._problem.noise_of is not None:
            self._noise[slots] = self._problem.noise_of(self._problem.interaction_keys(episodes, at))
