"""Pair features: numbers in [0, 1] that a job board knows of (applicant, job) pairs and that vectors do not show."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import hash64, normal, text_key
from jobrec_gym.market import BLOCKS, LabourMarket, SkillLists
from jobrec_gym.market.context import folded
from jobrec_gym.market.dates import compared_fields
from jobrec_gym.near_miss import best_match

__all__ = ["PAIR_FEATURES", "PairValues", "context_fit", "hard_coverage", "seniority", "soft_coverage"]

Ids = NDArray[np.int64]

_NOISE = text_key("pair_noise")
_CHUNK = 1 << 15
"""How many pairs are computed together; this bounds the memory when the whole catalogue is shown to many."""
_TABLE_BYTES = 1 << 24
"""Up to this many bytes, a table of applicants by skills is kept."""


def hard_coverage(market: LabourMarket, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
    """Share of the job's hard skills that the applicant has, ignoring case; 0 for a job that asks for none.

    If the market's hard block is a free text, the value is the cosine of the two sides' blocks, at least 0.

    Args:
        market: The market of the applicants and jobs.
        applicant_ids: (n,), valid.
        job_ids: (n,), valid.

    Returns:
        float64 (n,) in [0, 1]; a cosine may exceed 1 by a rounding error.
    """
    return _coverage(market, "hard", applicant_ids, job_ids)


def soft_coverage(market: LabourMarket, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
    """As :func:`hard_coverage`, for soft skills."""
    return _coverage(market, "soft", applicant_ids, job_ids)


def seniority(market: LabourMarket, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
    """``1 - |level_i - level_j| / 4`` of the levels 1 to 5, 0.5 where a level is unknown.

    Shapes are those of :func:`hard_coverage`.
    """
    applicants, jobs = market.applicants, market.jobs
    levels = applicants.seniority[applicant_ids].astype(np.float64), jobs.seniority[job_ids].astype(np.float64)
    known = (levels[0] > 0) & (levels[1] > 0)
    return np.where(known, 1 - np.abs(levels[0] - levels[1]) / 4, 0.5)


def context_fit(market: LabourMarket, name: str, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
    """How well a field of the market's context fits, see :class:`~jobrec_gym.market.context.ContextField`.

    Args:
        market: The market with the field.
        name: Name of the field.
        applicant_ids: (n,), valid.
        job_ids: (n,), valid.

    Returns:
        float64 (n,) in [0, 1], 0.5 where the field is unknown on one side.
    """
    table = market.context[name]
    if table.kind == "set":
        lists = table.lists()
        known = (lists[0].lengths(applicant_ids) > 0) & (lists[1].lengths(job_ids) > 0)
        return np.where(known, _context_shares(market, name)(applicant_ids, job_ids), 0.5)
    columns = table.columns()
    had, asked = columns[0][applicant_ids], columns[1][job_ids]
    if table.kind in ("category", "flag"):
        return np.where((had >= 0) & (asked >= 0), had == asked, 0.5)
    if table.kind == "number":
        distance, spread = np.abs(had - asked), _spread(market, name)
        fit = np.exp(-distance / spread) if spread else (distance == 0).astype(np.float64)
    else:
        fit = (had >= asked if table.kind == "at_least" else had <= asked).astype(np.float64)
    return np.where(np.isnan(had) | np.isnan(asked), 0.5, fit)


PAIR_FEATURES: Mapping[str, Callable[[LabourMarket, Ids, Ids], NDArray[np.float64]]] = {
    "hard_coverage": hard_coverage,
    "soft_coverage": soft_coverage,
    "seniority": seniority,
}
"""The features that every market has, by name. A market's context fields are further features."""


class PairValues:
    """Some pair features of a market, as an observation shows them.

    Args:
        market: The market of the applicants and jobs.
        pair_features: Distinct names, in the order of the columns: entries of :data:`PAIR_FEATURES` and fields of the
            market's context. ``"all"`` is all entries and the fields that are ``shown``, see
            :class:`~jobrec_gym.market.context.ContextTable`.
        pair_noise: Standard deviation of normally distributed noise that is added to each value. The sum is clipped to
            [0, 1]. The noise is a hash of feature, applicant and job, so a pair has the same error each time.

    Attributes:
        names: The features' names, a tuple.
        noise: The given ``pair_noise``.

    Raises:
        ValueError: For an unknown or repeated name, a noise that is negative or not finite, or noise without features.

    Example:
        >>> values = PairValues(load_market("default"), ("hard_coverage", "seniority"))
        >>> values(np.array([[0], [1]]), np.arange(20)).shape  # two applicants, 20 jobs
        (2, 20, 2)
    """

    def __init__(self, market: LabourMarket, pair_features: Sequence[str], pair_noise: float = 0.0):
        self.market = market
        self.names = _checked_names(pair_features, market)
        if isinstance(pair_noise, bool) or not (isinstance(pair_noise, numbers.Real) and 0 <= pair_noise < math.inf):
            raise ValueError(f"`pair_noise` must be a finite number of at least 0, got {pair_noise!r:.80}.")
        if pair_noise and not self.names:
            raise ValueError(
                f"`pair_noise` is {pair_noise}, but no pair features get it: name features by `pair_features=`, one "
                f"or more of {_known_names(market)}."
            )
        self.noise: float = float(pair_noise)

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float32]:
        """Values of pairs.

        Args:
            applicant_ids: Valid ids of any shape.
            job_ids: Valid ids of a shape that broadcasts with that of ``applicant_ids``, e.g. (n, k) with (n, 1).

        Returns:
            float32 (..., p) in [0, 1], one column for each name. A value is the same to the bit in every batch.
        """
        applicant_ids, job_ids = np.broadcast_arrays(applicant_ids, job_ids)
        shape, applicant_ids, job_ids = job_ids.shape, applicant_ids.ravel(), job_ids.ravel()
        values = np.empty((len(job_ids), len(self.names)), dtype=np.float32)
        for start in range(0, len(job_ids), _CHUNK):
            part = slice(start, start + _CHUNK)
            for column, name in enumerate(self.names):
                values[part, column] = self._shown(name, applicant_ids[part], job_ids[part])
        return values.reshape(*shape, len(self.names))

    def ask(self, applicant_ids: NDArray[np.integer], job_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Values of pairs for ids that a user gives, which are checked.

        Raises:
            ValueError: If there are no features, or if ids are not integers, name no row, or do not broadcast.
        """
        if not self.names:
            raise ValueError(
                "`pair_features` of this environment is empty, so it has no numbers of pairs: make it with "
                f'`pair_features=`, one or more of {_known_names(self.market)}, or "all".'
            )
        return self(*self.checked(applicant_ids, job_ids))

    def checked(self, applicant_ids: NDArray[np.integer], job_ids: NDArray[np.integer]) -> tuple[Ids, Ids]:
        """Ids that a user gives, as int64.

        Raises:
            ValueError: If they are not integers, name no row, or do not broadcast.
        """
        applicants = _checked_ids("applicant_ids", applicant_ids, len(self.market.applicants))
        jobs = _checked_ids("job_ids", job_ids, len(self.market.jobs))
        try:
            np.broadcast_shapes(applicants.shape, jobs.shape)
        except ValueError:
            raise ValueError(
                "`applicant_ids` and `job_ids` must have shapes that broadcast, e.g. (n, 1) and (n, k), got "
                f"{applicants.shape} and {jobs.shape}."
            ) from None
        return applicants, jobs

    def _shown(self, name: str, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
        if name in PAIR_FEATURES:
            values = PAIR_FEATURES[name](self.market, applicant_ids, job_ids)
        else:
            values = context_fit(self.market, name, applicant_ids, job_ids)
        if self.noise:
            # The hash takes the name, not the column: noise does not depend on which other features are shown.
            values = values + self.noise * normal(hash64(_NOISE, text_key(name), applicant_ids, job_ids))
        return np.clip(values, 0.0, 1.0)


def _known_names(market: LabourMarket) -> tuple[str, ...]:
    return (*PAIR_FEATURES, *compared_fields(market))


def _checked_names(names: Sequence[str], market: LabourMarket) -> tuple[str, ...]:
    known = _known_names(market)
    if isinstance(names, str) and names == "all":
        return tuple(name for name in known if name in PAIR_FEATURES or market.context[name].shown)
    if isinstance(names, str) or not isinstance(names, Sequence):
        near = best_match(names, [*known, "all"]) if isinstance(names, str) else None
        example = near if near in known else known[0]
        hint = ' Did you mean "all"?' if near == "all" else ""
        raise ValueError(
            f'`pair_features` must be a sequence of names, e.g. [{example!r}], or "all", got {names!r:.80}.{hint}'
        )
    for name in names:
        if name not in known:
            near = best_match(str(name), known)
            hint = f' Did you mean "{near}"?' if near else ""
            raise ValueError(f"`pair_features` must be names of {known}, got {name!r}.{hint}")
    if len(set(names)) < len(names):
        raise ValueError(f"`pair_features` must name each feature once, got {list(names)}.")
    return tuple(names)


def _checked_ids(argument: str, ids: NDArray[np.integer], n_rows: int) -> Ids:
    ids = np.asarray(ids)
    if ids.dtype.kind not in "iu" and ids.size:
        raise ValueError(f"`{argument}` must be integers, got {ids.dtype}.")
    wrong = ids[(ids < 0) | (ids >= n_rows)]
    if wrong.size:
        raise ValueError(f"`{argument}` must be rows of the market, in [0, {n_rows}), got {wrong.flat[0]}.")
    return ids.astype(np.int64, copy=False)


def _coverage(market: LabourMarket, block: str, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
    if block in market.text_blocks:
        return _block_cosine(market, block, applicant_ids, job_ids)
    return _skill_shares(market, block)(applicant_ids, job_ids)


def _block_cosine(market: LabourMarket, block: str, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
    number = BLOCKS.index(block)
    columns = slice(number * market.block_dim, (number + 1) * market.block_dim)
    applicants = market.applicants.vectors[applicant_ids, columns].astype(np.float32, copy=False)
    jobs = market.jobs.vectors[job_ids, columns].astype(np.float32, copy=False)
    lengths = np.linalg.norm(applicants, axis=1) * np.linalg.norm(jobs, axis=1)
    dots = np.einsum("ij,ij->i", applicants, jobs)
    return np.maximum(dots / np.where(lengths == 0, 1, lengths), 0).astype(np.float64)


@lru_cache(maxsize=16)
def _skill_shares(market: LabourMarket, block: str) -> _SkillShares:
    """The shares of skills on a market. Kept for the market, so that no environment holds, copies or pickles them."""
    ids = _ids_of_spellings(getattr(market.vocabulary, f"{block}_skills"))
    lists = [getattr(side, f"{block}_skills") for side in (market.applicants, market.jobs)]
    if ids is not None:
        lists = [_with_ids(skills, ids) for skills in lists]
    return _SkillShares(*lists)


def _with_ids(skills: SkillLists, ids: NDArray[np.int32]) -> SkillLists:
    """The lists with ``ids[old]`` in place of each id ``old``; a row has each new id once."""
    n, width = len(skills), len(ids)
    codes = np.repeat(np.arange(n), np.diff(skills.offsets)) * width + ids[skills.ids]
    codes.sort(kind="stable")  # almost sorted, so this is fast
    rows, kept = np.divmod(codes[np.diff(codes, prepend=-1) > 0], width)
    return SkillLists(np.searchsorted(rows, np.arange(n + 1)).astype(np.int64), kept.astype(np.int32))


@lru_cache(maxsize=4)
def _ids_of_spellings(words: tuple[str, ...]) -> NDArray[np.int32] | None:
    """For each skill the id of its first spelling (``SQL``, ``sql``); ``None`` if each has one spelling."""
    first: dict[str, int] = {}
    ids = np.array([first.setdefault(folded(word), place) for place, word in enumerate(words)], dtype=np.int32)
    return None if len(first) == len(words) else ids


@lru_cache(maxsize=16)
def _context_shares(market: LabourMarket, name: str) -> _SkillShares:
    """As :func:`_skill_shares`, for a field of the context that is a set."""
    return _SkillShares(*market.context[name].lists())


@lru_cache(maxsize=16)
def _spread(market: LabourMarket, name: str) -> float:
    """Standard deviation of the jobs' known numbers; 0 where there are none."""
    _, jobs = market.context[name].columns()
    known = jobs[~np.isnan(jobs)]
    return float(known.std()) if len(known) else 0.0


class _SkillShares:
    """Counts how many of a job's skills an applicant has, for many pairs at once.

    Small markets have a table of applicants by skills, and the jobs' lists padded to one length. In larger markets the
    applicants' skills are searched for those of the job.
    """

    def __init__(self, had: SkillLists, asked: SkillLists):
        self._asked = asked
        self._n_asked = asked.lengths(np.arange(len(asked)))
        self._width = int(max(had.ids.max(initial=-1), asked.ids.max(initial=-1))) + 2  # nobody has the last id
        rows = np.repeat(np.arange(len(had)), np.diff(had.offsets))
        codes = rows * self._width + had.ids
        n_places = int(self._n_asked.max())
        self._is_had: NDArray[np.uint8] | None = None
        if max(len(had) * self._width, n_places * len(asked) * np.dtype(np.int32).itemsize) <= _TABLE_BYTES:
            self._is_had = np.zeros(len(had) * self._width, dtype=np.uint8)
            self._is_had[codes] = 1
            places = np.arange(n_places)[:, None] < self._n_asked
            self._places = np.full(places.shape, self._width - 1, dtype=np.int32)
            self._places.T[places.T] = asked.ids
        else:
            # Rows ascend and ids ascend within a row, so the codes are sorted; the added one is the largest.
            self._codes = np.append(codes, np.iinfo(np.int64).max)

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
        if self._is_had is None:
            owner, skills = self._asked.flat(job_ids)
            codes = applicant_ids[owner] * self._width + skills
            met = np.bincount(owner[self._codes[np.searchsorted(self._codes, codes)] == codes], minlength=len(job_ids))
        else:
            places = self._places.take(job_ids, axis=1) + applicant_ids.astype(np.int64) * self._width
            met = np.add.reduce(self._is_had.take(places), axis=0, dtype=np.int64)
        return met / np.maximum(self._n_asked[job_ids], 1)
