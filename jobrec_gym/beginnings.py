"""Beginnings of episodes that ``reset(options=...)`` chooses: the applicant, and the jobs that are shown first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.candidates import first_repeated
from jobrec_gym.market.keys import find_rows
from jobrec_gym.near_miss import did_you_mean
from jobrec_gym.problem import RecommendationProblem

__all__ = ["OPTIONS", "Beginning", "read_options"]

Ids = NDArray[np.int64]

OPTIONS = ("applicant_id", "applicant_key", "candidate_ids")
"""Options that every environment takes; a vector environment also takes ``reset_mask``."""


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """Chosen beginnings of m episodes. ``None`` in place of an array means that its values are drawn.

    Attributes:
        applicant_ids: (m,), the applicants.
        candidate_ids: (m, k), the jobs that are shown first.
    """

    applicant_ids: Ids | None = None
    candidate_ids: Ids | None = None

    def infos(self, problem: RecommendationProblem) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Entries of the reset's ``info``: whether chosen rows are in the environment's splits, (m,) or (m, k)."""
        if self.applicant_ids is not None:
            yield "applicant_in_split", np.isin(self.applicant_ids, problem.applicant_ids)
        if self.candidate_ids is not None:
            yield "candidates_in_split", np.isin(self.candidate_ids, problem.job_ids)

    def begin(
        self, problem: RecommendationProblem, episodes: NDArray[np.uint64], steps: NDArray[np.int64]
    ) -> tuple[Ids, Ids]:
        """Applicants (m,) of ``episodes`` (m,), and the jobs (m, k) that they are shown after ``steps`` (m,) steps."""
        applicant_ids = problem.applicants(episodes) if self.applicant_ids is None else self.applicant_ids
        if self.candidate_ids is None:
            return applicant_ids, problem.candidates(applicant_ids, episodes, steps)
        if problem.resample == "episode" or not steps.any():
            return applicant_ids, self.candidate_ids
        drawn = problem.candidates(applicant_ids, episodes, steps)
        return applicant_ids, np.where(steps[:, None] == 0, self.candidate_ids, drawn)

    def take(self, row: int) -> Beginning:
        """The beginning of one of the m episodes."""
        return Beginning(
            *(None if ids is None else ids[row : row + 1] for ids in (self.applicant_ids, self.candidate_ids))
        )

    def to_state(self) -> dict[str, Any]:
        """The chosen values in plain JSON."""
        parts = {"applicant_ids": self.applicant_ids, "candidate_ids": self.candidate_ids}
        return {name: ids.tolist() for name, ids in parts.items() if ids is not None}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Beginning:
        """The beginning that :meth:`to_state` described."""
        return cls(**{name: np.array(ids, dtype=np.int64) for name, ids in state.items()})


def read_options(
    problem: RecommendationProblem, options: Mapping[str, Any] | None, rows: NDArray[np.bool_] | None = None
) -> Beginning | None:
    """Reads and checks a reset's options.

    Args:
        problem: The problem that the episodes belong to.
        options: The options as a user gives them.
        rows: bool (n,), which rows of a vector environment are reset; each option then has n entries, of which only
            those of the reset rows are read. ``None`` for a single environment.

    Returns:
        The beginnings of the m episodes that start; ``None`` if nothing was chosen.

    Raises:
        ValueError: For an unknown option, an unknown applicant or job, or candidates that are not ``k`` distinct jobs.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"`options` of `reset` must be a mapping of {OPTIONS} or None, got {options!r:.80}.")
    given = {} if options is None else dict(options)
    _refuse_unknown(given, OPTIONS if rows is None else (*OPTIONS, "reset_mask"))
    if given.get("applicant_id") is not None and given.get("applicant_key") is not None:
        raise ValueError("`options` must name the applicant once, by 'applicant_id' or by 'applicant_key', got both.")
    market, k = problem.market, problem.num_candidates
    applicant_ids: Ids | None = None
    if (value := given.get("applicant_id")) is not None:
        applicant_ids = _ids("applicant_id", value, len(market.applicants), (), rows)
    elif (value := given.get("applicant_key")) is not None:
        keys = _keys(value, rows)
        try:
            applicant_ids = find_rows("applicant", market.applicants.keys, keys)
        except ValueError as error:
            raise ValueError(f"`options['applicant_key']`: {error}") from None
    candidate_ids: Ids | None = None
    if (value := given.get("candidate_ids")) is not None:
        candidate_ids = _ids("candidate_ids", value, len(market.jobs), (k,), rows)
        if (repeated := first_repeated(candidate_ids)) is not None:
            raise ValueError(f"`options['candidate_ids']` must be {k} distinct jobs, got {repeated} twice.")
    return None if applicant_ids is None and candidate_ids is None else Beginning(applicant_ids, candidate_ids)


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"`options` of `reset` must be among {known}, got {name!r}.{did_you_mean(name, known)}")


def _ids(option: str, value: Any, n_rows: int, shape: tuple[int, ...], rows: NDArray[np.bool_] | None) -> Ids:
    """Checked ids (m, *shape) of the m episodes that start."""
    wanted = shape if rows is None else (len(rows), *shape)
    ids = _as_array(value)
    if ids is None or ids.dtype.kind not in "iu" or ids.shape != wanted:
        what = f"integers of shape {wanted}" if wanted else "an integer"
        got = repr(value) if ids is None or not ids.ndim else f"{ids.dtype} of shape {ids.shape}"
        raise ValueError(f"`options[{option!r}]` must be {what}, got {got}.")
    ids = ids[None] if rows is None else ids[rows]
    wrong = ids[(ids < 0) | (ids >= n_rows)]
    if wrong.size:
        raise ValueError(f"`options[{option!r}]` must name rows of the market, in [0, {n_rows}), got {wrong[0]}.")
    return ids.astype(np.int64)


def _keys(value: Any, rows: NDArray[np.bool_] | None) -> list[str]:
    """The keys of the m episodes that start."""
    if rows is None:
        if not isinstance(value, str):
            raise ValueError(f"`options['applicant_key']` must be a text, got {value!r}.")
        return [value]
    keys = _as_array(value)
    chosen: list[Any] = [None] if keys is None or keys.shape != (len(rows),) else keys[rows].tolist()
    if not all(isinstance(key, str) for key in chosen):
        raise ValueError(
            f"`options['applicant_key']` must be {len(rows)} texts, one for each environment, got {value!r}."
        )
    return chosen


def _as_array(value: Any) -> NDArray[Any] | None:
    try:
        return np.asarray(value)
    except ValueError:  # rows of unlike lengths
        return None
