"""Which episodes the environments of a vector play next: their numbers, applicants and first candidates."""

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
_PREPARED_IDS = 1 << 18
"""Candidates (2 MiB) up to which several episodes of each environment are prepared together."""


class UpcomingEpisodes:
    """Draws each environment's episode numbers from its own generator, in blocks: a step loops over no environment.

    Where candidates are cheap to draw, those of some episodes ahead are drawn together: many small steps of arithmetic
    on few numbers cost the more the fewer the numbers are. An episode is the same, whenever it is prepared.

    Args:
        problem: What episodes are of.
        num_envs: How many environments.
    """

    def __init__(self, problem: RecommendationProblem, num_envs: int):
        self.generators: list[np.random.Generator | None] = [None] * num_envs
        self.seeds: list[int | None] = [None] * num_envs
        self._problem = problem
        self._block = np.zeros((num_envs, _BLOCK), dtype=np.uint64)
        self._used = np.full(num_envs, _BLOCK)
        self._before_block: list[dict[str, Any] | None] = [None] * num_envs
        n_ids = num_envs * problem.num_candidates
        self._ahead = _AHEAD if problem.draws_ahead and _AHEAD * n_ids <= _PREPARED_IDS else 1
        # A block has parts of `_ahead` episodes each; of every environment one part is prepared, -1 for none.
        self._part = np.full(num_envs, -1)
        n_kept = self._ahead if self._ahead > 1 else 0
        self._applicant_ids = np.zeros((num_envs, n_kept), dtype=np.int64)
        self._candidate_ids = np.zeros((num_envs, n_kept, problem.num_candidates), dtype=np.int64)

    def seed(self, seed: int | Sequence[int | None] | None, rows: Mask) -> None:
        """Seeds the marked environments: ``i`` with ``seed + i`` or the i-th seed; ``None`` keeps a generator.

        Raises:
            ValueError: For another number of seeds, or a negative one.
        """
        n = len(self.generators)
        seeds: list[int | None]
        if seed is None:
            seeds = [None] * n
        elif isinstance(seed, (Sequence, np.ndarray)):
            seeds = [None if entry is None else operator.index(entry) for entry in seed]
        else:
            seeds = [operator.index(seed) + row for row in range(n)]
        if len(seeds) != n:
            raise ValueError(f"`seed` must be one number or {n} of them, got {len(seeds)}.")
        if any(entry is not None and entry < 0 for entry in seeds):
            raise ValueError(f"`seed` must not be negative, got {seed}.")
        for row in np.flatnonzero(rows).tolist():
            if seeds[row] is not None or self.generators[row] is None:
                self.generators[row], self.seeds[row] = seeding.np_random(seeds[row])
                self._used[row] = _BLOCK

    def next(self, rows: Mask) -> tuple[NDArray[np.uint64], Ids, Ids]:
        """The next episodes of the m marked environments: numbers (m,), applicants (m,), first candidates (m, k)."""
        self._draw(rows & (self._used == _BLOCK))
        numbers = self._block[rows, self._used[rows]]
        if self._ahead == 1:
            applicant_ids, candidate_ids = self._begin(numbers)
        else:
            part, place = np.divmod(self._used, self._ahead)
            self._prepare(rows & (self._part != part), part)
            place = place[rows]
            applicant_ids, candidate_ids = self._applicant_ids[rows, place], self._candidate_ids[rows, place]
        self._used[rows] += 1
        return numbers, applicant_ids, candidate_ids

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
        self._draw(np.ones(len(self.generators), dtype=bool))
        self._used = np.asarray(state["used"]).copy()

    def _draw(self, rows: Mask) -> None:
        for row in np.flatnonzero(rows).tolist():
            generator: np.random.Generator = self.generators[row]  # type: ignore[assignment]  # seeded at the first reset
            self._before_block[row] = dict(generator.bit_generator.state)
            self._block[row] = generator.integers(0, 2**64 - 1, _BLOCK, dtype=np.uint64, endpoint=True)
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
