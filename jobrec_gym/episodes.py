"""Which episodes the environments of a vector play next, and what they show."""

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
"""Candidates (2 MiB) up to which several episodes of each environment are prepared together."""


class UpcomingEpisodes:
    """Draws each environment's episode numbers from its own generator, in blocks: a step loops over no environment.

    Where candidates are cheap to draw, those of some episodes ahead are drawn together: many small steps of arithmetic
    on few numbers cost the more the fewer the numbers are. Where each step shows others, those of some steps ahead are:
    of the running episodes, and the first ones of those that follow. An episode is the same, whenever it is prepared.

    Args:
        problem: What episodes are of.
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
        # A block has parts of `_ahead` episodes each; of every environment one part is prepared, -1 for none.
        self._part = np.full(num_envs, -1)
        self._steps_ahead: _StepsAhead | None = None
        # The environments' own arrays, as :meth:`show` is given them: applicants, episodes, steps so far.
        self._running: tuple[Ids, NDArray[np.uint64], Ids] | None = None
        if problem.resample == "step" and problem.draws_ahead and 2 * _STEPS_AHEAD * n_ids <= _PREPARED_IDS:
            self._steps_ahead = _StepsAhead(problem, num_envs)
        n_kept = self._ahead if self._ahead > 1 and self._steps_ahead is None else 0
        self._applicant_ids = np.zeros((num_envs, n_kept), dtype=np.int64)
        self._candidate_ids = np.zeros((num_envs, n_kept, problem.num_candidates), dtype=np.int64)

    def seed(self, seed: int | Sequence[int | None] | None, rows: Mask) -> None:
        """Seeds the marked environments: ``i`` with ``seed + i`` or the i-th seed; ``None`` keeps a generator.

        Raises:
            ValueError: For another number of seeds, or a negative one.
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
            raise TypeError(f"`seed` must be a whole number, or {n} of them or of None, got {seed!r:.80}.") from None
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
            noise: (n,), where what the first answers draw is written, if it is drawn ahead.

        Returns:
            Numbers (m,), what their interaction keys begin with (m,), applicants (m,), first candidates (m, k).
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
                else:  # all others on the way: one drawing of many is sooner done than two of few
                    applicant_ids, episodes, steps = self._running
                    # What these show now is at hand: they are drawn from the step that they are about to make.
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
        """Writes what all environments show now into ``out`` (n, k).

        Args:
            rows: bool (n,), which show something new; others have just begun an episode that :meth:`next` gave, and
                show its first candidates.
            applicant_ids: (n,), like all that follow the environments' own array.
            episodes: (n,).
            steps: (n,), so far.
            out: (n, k), what was shown before.
            noise: (n,), where what the coming answers draw is written, if it is drawn ahead.
        """
        if self._steps_ahead is None:
            out[rows] = self._problem.candidates(applicant_ids[rows], episodes[rows], steps[rows])
            return
        self._running = applicant_ids, episodes, steps
        if self._steps_ahead.lacks(steps):
            self._steps_ahead.prepare(rows, applicant_ids, episodes, steps, self._following())
        self._steps_ahead.show(steps, out, noise)

    def forget(self, rows: Mask) -> None:
        """The running episodes of some rows are not those that :meth:`next` gave: what was prepared does not hold."""
        if self._steps_ahead is not None:
            self._steps_ahead.forget(rows)

    def get_state(self) -> dict[str, Any]:
        """Which episodes come next; the rest is computed from it."""
        return {"generators": list(self._before_block), "used": self._used.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues where :meth:`get_state` was called."""
        for row, generator_state in enumerate(state["generators"]):
            generator = seeding.np_random(0)[0]
            generator.bit_generator.state = generator_state
            self.generators[row] = generator
            self.seeds[row] = None
        self._running = None
        self._draw(np.arange(len(self.generators)))
        self._used = np.asarray(state["used"]).copy()
        if self._steps_ahead is not None:
            self._steps_ahead.forget(np.ones(len(self.generators), dtype=bool))
            self._steps_ahead.forget_next(np.ones(len(self.generators), dtype=bool))

    def _following(self) -> NDArray[np.uint64]:
        """Numbers (n,) of the episodes that :meth:`next` gives next."""
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
        """Applicants (m,) and first candidates (m, k) of the episodes of some numbers (m,)."""
        applicant_ids = self._problem.applicants(numbers)
        return applicant_ids, self._problem.candidates(applicant_ids, numbers, np.zeros(len(numbers), dtype=np.int64))


_Part = tuple[Ids, Ids, Ids, NDArray[np.uint64], Ids]
"""Sets to draw: for which environments and lanes, whose, of which episodes, at which steps; each (m,)."""


class _StepsAhead:
    """What is shown in the next steps, drawn together for all environments when one of them lacks it.

    Each environment has two lanes of some steps: one of its running episode, a ring, and one of the episode that
    follows, from its first step on.
    """

    def __init__(self, problem: RecommendationProblem, num_envs: int):
        self._problem = problem
        self._lane = np.zeros(num_envs, dtype=np.int64)  # that of the running episode
        # The first step that the running episode's lane does not know, and whether the other one is known.
        self._until = np.zeros(num_envs, dtype=np.int64)
        self._has_next = np.zeros(num_envs, dtype=bool)
        self._sets = np.zeros((num_envs, 2, _STEPS_AHEAD, problem.num_candidates), dtype=np.int64)
        self._noise = np.zeros((num_envs, 2, _STEPS_AHEAD)) if problem.noise_of is not None else None
        self._first_lanes = np.arange(0, 2 * num_envs, 2)
        self._next_applicants = np.zeros(num_envs, dtype=np.int64)

    def forget(self, rows: Mask) -> None:
        """What the running episodes of some rows show is not known."""
        self._until[rows] = 0

    def forget_next(self, rows: Mask | int) -> None:
        """Which episodes follow in some rows is not known."""
        self._has_next[rows] = False

    def lacks_next(self, rows: Mask) -> bool:
        """Whether the episode that follows is not known in a marked row."""
        return bool(np.count_nonzero(rows > self._has_next))

    def lacks(self, steps: NDArray[np.int64]) -> bool:
        """Whether it is not known what a row shows after some steps (n,)."""
        return bool(np.count_nonzero(steps >= self._until))

    def prepare_next(self, numbers: NDArray[np.uint64]) -> None:
        """Draws the first steps of the episodes that follow, of some numbers (n,), wherever they are not known."""
        self._fill(self._following(numbers))

    def prepare(
        self,
        rows: Mask,
        applicant_ids: Ids,
        episodes: NDArray[np.uint64],
        steps: NDArray[np.int64],
        numbers: NDArray[np.uint64],
    ) -> None:
        """Draws the next steps of all running episodes, and of those that follow, all but what is known."""
        places = rows.nonzero()[0]
        now = steps[places]
        wanted = np.maximum(self._until[places], now)[:, None] + np.arange(_STEPS_AHEAD)
        owners, columns = np.nonzero(wanted < now[:, None] + _STEPS_AHEAD)
        who, at = places[owners], wanted[owners, columns]
        self._until[places] = now + _STEPS_AHEAD
        self._fill((who, self._lane[who], applicant_ids[who], episodes[who], at), self._following(numbers))

    def begin(self, places: Ids, noise: NDArray[np.float64] | None) -> tuple[Ids, Ids]:
        """Applicants (m,) and first candidates (m, k) of the episodes that follow in m rows, and run from now on."""
        lanes = self._lane[places] = 1 - self._lane[places]
        self._until[places], self._has_next[places] = _STEPS_AHEAD, False
        if noise is not None and self._noise is not None:
            noise[places] = self._noise[places, lanes, 0]
        return self._next_applicants[places], self._sets[places, lanes, 0]

    def show(self, steps: NDArray[np.int64], out: Ids, noise: NDArray[np.float64] | None) -> None:
        """Writes what is known of all rows after some steps (n,): what they show (n, k), and what answers draw (n,)."""
        places = self._first_lanes + self._lane
        places *= _STEPS_AHEAD
        places += steps % _STEPS_AHEAD
        # Were it to check places, `take` would buffer `out`.
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
