"""A log on a market (who was recommended which job, and what they did), and its forms for other libraries."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobrec_gym.array_files import mapped_array
from jobrec_gym.market import LabourMarket, Population, Split, gathered
from jobrec_gym.market.verified import array_digest
from jobrec_gym.pair_features import PairValues
from jobrec_gym.paths import place_of
from jobrec_gym.sharing import Identity
from jobrec_gym.shown_text import without_commands
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import read_whole, whole_file, whole_folder, write_array

__all__ = ["Interactions", "LogError", "ObservationForm", "check_catalogue", "is_saved_log", "of_its_env"]

Ids = NDArray[np.int64]

_FORMAT = "jobrec-interactions/1"
_HEADER = "interactions.json"
_ROWS = ("applicant_ids", "job_ids", "reward", "decision", "held_out", "time", "propensity")
_SHOWN = ("shown_offsets", "shown_ids")
_SIDES = ("applicants", "jobs")
_KINDS = {
    **dict.fromkeys(("reward", "time", "propensity"), "f"),
    **dict.fromkeys(("applicants_keys", "jobs_keys"), "U"),
    "held_out": "b",
}
"""numpy's names for the types of a saved log's columns; all other columns are whole numbers."""
_BATCH = 1024
_COMPARED = 16_384
"""How many jobs of two tables are compared at once."""


class LogError(ValueError):
    """A log cannot be read, or has too little data for the call. The message names rows and says what to do.

    Characters that a terminal obeys, as in the name of a foreign file, are spelt out in the message.
    """

    def __init__(self, message: str):
        super().__init__(without_commands(message))


@dataclass(frozen=True, slots=True)
class ObservationForm:
    """The form of an agent's observations. The first four attributes are also arguments of ``JobRec-v0``.

    Attributes:
        observation: ``"features"`` or ``"ids"``.
        job_fields: Further blocks of the jobs' vectors.
        pair_features: Columns of the entry ``pairs``, or ``"all"``; if empty, there is no such entry.
        mask_in_observation: Whether there is an entry ``action_mask``, which then allows every shown job.
        ask_pairs: A function that gives the pair features, such as an environment's method ``pair_features``; ``None``
            computes them without noise.
        market: The market to which ids belong: those that ``ask_pairs`` takes, and those that the agent reads. ``None``
            if ids of any market will do.

    Raises:
        ValueError: If ``observation`` is neither ``"features"`` nor ``"ids"``. A call of the form raises a
            ``ValueError`` for unknown fields or features. It also raises one if rows of the market that it is called
            with stand for other people or jobs than rows of the attribute ``market``, and the form reads rows: by
            ``observation="ids"`` or by ``ask_pairs``.
    """

    observation: str = "features"
    job_fields: tuple[str, ...] = ()
    pair_features: Sequence[str] = ()
    mask_in_observation: bool = False
    ask_pairs: Callable[[Ids, Ids], NDArray[np.float32]] | None = None
    market: LabourMarket | None = None

    def __post_init__(self) -> None:
        if self.observation not in ("features", "ids"):
            raise ValueError(f"`observation` must be 'features' or 'ids', got {self.observation!r}.")

    @classmethod
    def of(cls, env: Any) -> ObservationForm:
        """The form of the observations of a ``JobRec-v0``, single or vector, wrapped or not.

        Raises:
            ValueError: For an environment whose applicants move, because a log does not keep their progress.
        """
        base = env.unwrapped
        if getattr(base, "progress_names", ()):
            raise ValueError(
                f"`env` must be one whose applicants do not change, got {base}: a log does not keep their "
                "progress, so an agent's observations cannot be restored from it."
            )
        space = getattr(base, "single_observation_space", base.observation_space)
        names = tuple(base.pair_feature_names)
        return cls(
            "ids" if len(space["candidates"].shape) == 1 else "features",
            tuple(base.job_fields),
            names,
            "action_mask" in space.spaces,
            base.pair_features if names else None,
            base.market,
        )

    @classmethod
    def read_by(cls, agent: Any) -> ObservationForm:
        """The form that an agent was trained to read, if it has ``reads``, as ``DynaQ`` does; else the default.

        Raises:
            ValueError: If the agent reads pair features but does not know their names, or if the agent reads sources of
                a prior, because it does not have their values.
        """
        reads = getattr(agent, "reads", None) or {}
        pairs = reads.get("pairs") or ()
        if isinstance(pairs, int):
            raise ValueError(
                f"the agent reads {pairs} numbers of a pair and does not know their names: give the form, "
                "`form=ObservationForm.of(env)`."
            )
        if sources := reads.get("prior_sources"):
            raise ValueError(
                f"the agent reads the sources {sorted(sources)} of a prior, and does not have their values: give the "
                "form of an environment with them, `form=ObservationForm.of(env)`."
            )
        return cls(reads.get("observation", "features"), tuple(reads.get("job_fields") or ()), tuple(pairs))

    def __call__(self, market: LabourMarket, applicant_ids: Ids, job_ids: Ids) -> dict[str, NDArray[Any]]:
        """Observations of applicants (n,) who are shown jobs (n, k), equal to the environment's to the bit."""
        self._check_rows(market)
        seen: dict[str, NDArray[Any]] = {"applicant": gathered(market.applicants.vectors, applicant_ids)}
        is_ids = self.observation == "ids"
        seen["candidates"] = job_ids.copy() if is_ids else gathered(market.action_features(self.job_fields), job_ids)
        if self.pair_features:
            ask = PairValues(market, self.pair_features) if self.ask_pairs is None else self.ask_pairs
            seen["pairs"] = ask(applicant_ids[:, None], job_ids)
        if self.mask_in_observation:
            seen["action_mask"] = np.ones(job_ids.shape, np.int8)
        return seen

    def _check_rows(self, market: LabourMarket) -> None:
        """Refuses a market whose rows stand for other people or jobs than on the form's market, if that matters."""
        own = self.market
        if own is None or own is market:
            return
        is_ids = self.observation == "ids"
        jobs_differ = is_ids and not _is_same_table(*(_table(one, self.job_fields) for one in (own, market)))
        if jobs_differ or (self.ask_pairs is not None and not _is_same_market(own, market)):
            raise ValueError(
                f"the form is that of an environment on market {own.name!r}, and these are rows of another market, "
                f"{market.name!r}, where the rows stand for other people or jobs. Take a log to the environment's "
                "market, `log.on(env.unwrapped.market)`; for another market give a form of its own, such as "
                "`ObservationForm(pair_features=[...])`."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """A log of n recommendations on a market, in the order in which it was written; read-only.

    Made by :meth:`of`, by :func:`~jobrec_gym.loaders.interactions.load_interactions` or by
    :func:`~jobrec_gym.recording.record_interactions`. A deep copy is the object itself.

    Attributes:
        market: The market; ids are rows of its tables.
        applicant_ids: int64 (n,), the applicant of each recommendation.
        job_ids: int64 (n,), the recommended job.
        reward: float64 (n,), the reward of the recommendation; NaN where there is no answer.
        decision: int8 (n,), place in :data:`~jobrec_gym.simulators.base.DECISIONS`; -1 where only a reward is known,
            or where there is no answer.
        held_out: bool (n,), True for rows of the test split. By default these are the rows of applicants whom the
            market holds out.
        time: float64 (n,), the time in the log's own unit (dates in seconds since 1970); ``None`` if the log has none.
        propensity: float64 (n,), the probability with which the recommended job was chosen from the shown jobs;
            ``None`` if the log has no propensities.
        shown_offsets: int64 (n + 1,), where each row's jobs begin in ``shown_ids``; ``None`` if the log does not say
            what was shown.
        shown_ids: int64, the shown jobs of all rows, including the recommended jobs; ``None`` if ``shown_offsets`` is.
        moving: Whether answers changed the applicants, as in ``JobRecCareer-v0``. The reward of a recommendation is
            then not its whole value, so :mod:`~jobrec_gym.off_policy` refuses the log, and its other uses warn, see
            :meth:`warn_if_moving`.
        folder: The folder in which the log is saved; ``None`` for a log in memory.
    """

    market: LabourMarket
    applicant_ids: Ids
    job_ids: Ids
    reward: NDArray[np.float64]
    decision: NDArray[np.int8]
    held_out: NDArray[np.bool_]
    time: NDArray[np.float64] | None = None
    propensity: NDArray[np.float64] | None = None
    shown_offsets: Ids | None = None
    shown_ids: Ids | None = None
    folder: Path | None = None
    moving: bool = False

    @classmethod
    def of(
        cls,
        market: LabourMarket,
        applicant_ids: ArrayLike,
        job_ids: ArrayLike,
        reward: ArrayLike,
        *,
        decision: ArrayLike | None = None,
        held_out: ArrayLike | None = None,
        time: ArrayLike | None = None,
        propensity: ArrayLike | None = None,
        shown: ArrayLike | Sequence[ArrayLike] | None = None,
        moving: bool = False,
    ) -> Interactions:
        """A log from arrays (n,); ``shown`` is (n, k), or n arrays of any lengths.

        ``time`` may hold numpy's dates (``datetime64``), which become seconds since 1970.

        Raises:
            LogError: For arrays of other lengths or types, ids that name no row, a reward that is infinite, a decision
                without a reward, a propensity outside of (0, 1], or a recommended job that was not shown.

        Example:
            >>> market = load_market("default")
            >>> log = Interactions.of(market, [0, 0], [3, 4], [1.0, -0.1], shown=[[3, 4, 5]] * 2, propensity=[0.5, 0.2])
            >>> len(log), log.chosen
            (2, array([0, 1]))
        """
        applicants, jobs = _row_numbers("applicant_ids", applicant_ids), _row_numbers("job_ids", job_ids)
        n = len(applicants)
        _check_rows("applicant_ids", applicants, len(market.applicants))
        columns: dict[str, NDArray[Any] | None] = {
            "job_ids": jobs,
            "reward": _floats("reward", reward),
            "decision": np.full(n, -1, np.int8) if decision is None else _decisions(decision),
            "held_out": market.applicants.held_out[applicants] if held_out is None else _truths("held_out", held_out),
            "time": None if time is None else _times(time),
            "propensity": None if propensity is None else _floats("propensity", propensity),
        }
        for name, column in columns.items():
            if column is not None and column.shape != (n,):
                raise LogError(f"`{name}` must be ({n},), one for each of `applicant_ids`, got {column.shape}.")
        if shown is not None:
            sets = [_row_numbers("shown", jobs_shown) for jobs_shown in shown]  # type: ignore[union-attr]
            if len(sets) != n:
                raise LogError(f"`shown` must have {n} sets, one for each of `applicant_ids`, got {len(sets)}.")
            lengths = [len(jobs_shown) for jobs_shown in sets]
            columns["shown_offsets"] = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
            columns["shown_ids"] = np.concatenate(sets) if sets else np.zeros(0, np.int64)
        log = cls(market, applicants, **columns, moving=bool(moving))  # type: ignore[arg-type]
        _check(log)
        if (silent := ~log.answered & (log.decision >= 0)).any():
            raise LogError(
                f"`decision` must be -1 where there is no answer; row {int(silent.argmax())} has a decision and no "
                "reward: give its reward too, see `jobrec_gym.simulators.base.decision_rewards`."
            )
        return dataclasses.replace(log, decision=log.decision.astype(np.int8))

    def __post_init__(self) -> None:
        for name in (*_ROWS, *_SHOWN):
            column = getattr(self, name)
            if column is not None:
                column = column.view()
                column.flags.writeable = False
                object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.applicant_ids)

    def __deepcopy__(self, memo: dict[int, object]) -> Interactions:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickling calls the constructor, so that the arrays are read-only again.
        return Interactions, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def __repr__(self) -> str:
        known = [name for name in ("time", "propensity") if getattr(self, name) is not None]
        known += [] if self.shown_ids is None else ["shown"]
        known += ["moving"] if self.moving else []
        return f"Interactions(n={len(self):,}, people={len(self.people):,}, known={known}, market={self.market.name!r})"

    @property
    def answered(self) -> NDArray[np.bool_]:
        """(n,), whether there is an answer."""
        return ~np.isnan(self.reward)

    @property
    def people(self) -> Ids:
        """Ids of the applicants in the log, ascending."""
        return np.unique(self.applicant_ids)

    @property
    def sizes(self) -> Ids:
        """(n,), how many jobs were shown.

        Raises:
            LogError: If the log does not say what was shown.
        """
        return np.diff(self._offsets())

    @property
    def chosen(self) -> Ids:
        """(n,), the recommended job's place among those shown.

        Raises:
            LogError: If the log does not say what was shown.
        """
        offsets = self._offsets()
        assert self.shown_ids is not None  # with its offsets
        hits = np.flatnonzero(self.shown_ids == np.repeat(self.job_ids, np.diff(offsets)))
        return hits - offsets[:-1]

    def shown(self, row: int) -> Ids:
        """The jobs that were shown in one row; a negative number counts from the end.

        Raises:
            LogError: If the log does not say what was shown.
            IndexError: If there is no such row.
        """
        offsets = self._offsets()
        assert self.shown_ids is not None
        if not -len(self) <= row < len(self):
            raise IndexError(f"`row` must be in [{-len(self)}, {len(self)}), got {row}.")
        row %= len(self)
        return self.shown_ids[offsets[row] : offsets[row + 1]]

    def sets(self, rows: NDArray[np.integer]) -> Ids:
        """The jobs (m, k) that were shown in rows (m,), all of which showed k jobs; k is 0 for no rows.

        Raises:
            LogError: If the log does not say what was shown, or if the rows showed unlike numbers of jobs.
            IndexError: If there is no such row.
        """
        offsets = self._offsets()
        assert self.shown_ids is not None
        rows = _from_the_front(rows, len(self))
        sizes = offsets[rows + 1] - offsets[rows]
        k = int(sizes[0]) if len(sizes) else 0
        if (sizes != k).any():
            raise LogError(
                f"`rows` must have shown equally many jobs, got rows of {np.unique(sizes)[:5].tolist()} jobs: choose "
                "them by `log.sizes`, or take one row at a time, `log.shown(row)`."
            )
        return self.shown_ids[offsets[rows][:, None] + np.arange(k)]

    def warn_if_moving(self) -> None:
        """Warns about a log of applicants who change. Whatever learns from a log, or scores by it, calls this."""
        if self.moving:
            warnings.warn(
                "the log is of applicants who change with their answers, as in JobRecCareer-v0 (`moving`). It does not "
                "say in which state they answered, nor what an answer led to. So what is learned from it or scored by "
                "it is the next reward alone, averaged over states. Train and score agents in the environment instead.",
                stacklevel=1,  # always the same place, so that Python does not repeat it for each use of the log
            )

    def take(self, rows: NDArray[Any]) -> Interactions:
        """Some rows, by number or by mask, in the order of ``rows``; a negative number counts from the end.

        Raises:
            LogError: For a mask of another length, or numbers that are not whole.
            IndexError: If there is no such row.
        """
        mask = np.asarray(rows)
        if mask.dtype == bool and mask.shape != (len(self),):
            raise LogError(f"`rows` as a mask must be ({len(self)},), one for each row of the log, got {mask.shape}.")
        is_mask = mask.dtype == bool
        numbers = np.flatnonzero(mask) if is_mask else _from_the_front(mask, len(self))
        columns: dict[str, Any] = {name: _rows(getattr(self, name), numbers) for name in _ROWS}
        if self.shown_offsets is not None:
            sets = [self.shown(row) for row in numbers.tolist()]
            columns["shown_offsets"] = np.concatenate(([0], np.cumsum([len(jobs) for jobs in sets]))).astype(np.int64)
            columns["shown_ids"] = np.concatenate(sets) if sets else np.zeros(0, np.int64)
        return Interactions(self.market, **columns, moving=self.moving)

    def split(self, split: Split) -> Interactions:
        """The rows of a split: ``"train"``, ``"test"`` or ``"all"``."""
        if split not in get_args(Split):
            raise ValueError(f"`split` must be one of {get_args(Split)}, got {split!r}.")
        return self if split == "all" else self.take(self.held_out == (split == "test"))

    def on(self, market: LabourMarket) -> Interactions:
        """The same log on another market that has the same people and jobs by key, such as a market that has grown.

        Raises:
            LogError: If the market lacks a key of the log.
        """
        if market is self.market:
            return self
        found = {side: _rows_of(getattr(market, side), getattr(self.market, side).keys, side, self) for side in _SIDES}
        columns = {name: getattr(self, name) for name in (*_ROWS, *_SHOWN)}
        columns["applicant_ids"] = found["applicants"][self.applicant_ids]
        columns["job_ids"] = found["jobs"][self.job_ids]
        if self.shown_ids is not None:
            columns["shown_ids"] = found["jobs"][self.shown_ids]
        return Interactions(market, **columns, folder=self.folder, moving=self.moving)

    # ---------------------------------------------------------------------------------------------------------- forms

    def observations(
        self, form: ObservationForm = ObservationForm(), batch_size: int = _BATCH
    ) -> Iterator[tuple[Ids, dict[str, NDArray[Any]]]]:
        """The observation of every row, in batches. All observations of a batch have the same number of candidates.

        Args:
            form: The form of the observations.
            batch_size: The largest number of rows in a batch.

        Yields:
            Row numbers (m,) and m observations. Observations with equally many candidates come in the order of their
            rows.
        """
        self.warn_if_moving()
        sizes = self.sizes
        for size in np.unique(sizes):
            rows = np.flatnonzero(sizes == size)
            for start in range(0, len(rows), batch_size):
                some = rows[start : start + batch_size]
                yield some, form(self.market, self.applicant_ids[some], self.sets(some))

    def answers(
        self, form: ObservationForm = ObservationForm()
    ) -> Iterator[tuple[dict[str, NDArray[Any]], int, np.float32]]:
        """Every answered recommendation in the order of the log, in the form that an agent's ``observe`` takes.

        Yields:
            One observation, the recommended job's place in it, and the reward, float32 as SB3's environments give it.

        Example:
            >>> for obs, action, reward in log.answers(ObservationForm.of(env)):  # doctest: +SKIP
            ...     bandit.observe(obs, action, reward)
        """
        self.warn_if_moving()
        chosen = self.chosen
        for row in np.flatnonzero(self.answered).tolist():
            seen = form(self.market, self.applicant_ids[row : row + 1], self.shown(row)[None])
            yield {key: values[0] for key, values in seen.items()}, int(chosen[row]), np.float32(self.reward[row])

    def to_pretrain(self, form: ObservationForm = ObservationForm()) -> dict[str, NDArray[Any]]:
        """The answered pairs in the form that ``DynaQ.pretrain`` takes.

        Args:
            form: The form of the agent's observations.

        Returns:
            ``state`` (n, d_s), ``action`` (n, d_a) or ids (n,), ``reward`` (n,) float32, and ``pairs`` (n, p) if the
            form has them.
        """
        self.warn_if_moving()
        rows = np.flatnonzero(self.answered)
        seen = form(self.market, self.applicant_ids[rows], self.job_ids[rows, None])
        data = {"state": seen["applicant"], "action": seen["candidates"][:, 0]}
        data["reward"] = self.reward[rows].astype(np.float32)
        return data | ({"pairs": seen["pairs"][:, 0]} if "pairs" in seen else {})

    def to_obp(self) -> dict[str, Any]:
        """The answered rows as the Open Bandit Pipeline's ``bandit_feedback``; every job of the market is an action.

        Returns:
            ``n_rounds``, ``n_actions``, ``context`` (n, d) with the applicants' vectors, ``action_context`` (n_jobs,
            d), ``action`` (n,), ``reward`` (n,), and ``pscore`` (n,) or ``None``. ``position`` is ``None``, and so is
            ``expected_reward``, which is unknown in a log.
        """
        self.warn_if_moving()
        rows = np.flatnonzero(self.answered)
        return {
            "n_rounds": len(rows),
            "n_actions": len(self.market.jobs),
            "context": gathered(self.market.applicants.vectors, self.applicant_ids[rows]),
            "action_context": np.asarray(self.market.jobs.vectors, np.float32),
            "action": self.job_ids[rows].copy(),
            "position": None,
            "reward": self.reward[rows].copy(),
            "expected_reward": None,
            "pscore": None if self.propensity is None else self.propensity[rows].copy(),
        }

    # ---------------------------------------------------------------------------------------------------------- files

    def save(self, path: str | os.PathLike[str]) -> Interactions:
        """Writes a folder, whole or not at all: ``interactions.json`` and one ``.npy`` file for each column; no pickle.

        People and jobs are written by their keys, so that the log also fits a market that has grown. A log that
        is already there is replaced. If the process is killed, :meth:`load` finds either the old log or the new one.

        Returns:
            The same log, with its ``folder`` set.

        Raises:
            LogError: If ``path`` exists and is neither a saved log nor an empty folder, or is a mount point.
        """
        folder = place_of(path).absolute()
        columns = {name: getattr(self, name) for name in (*_ROWS, *_SHOWN) if getattr(self, name) is not None}
        jobs = self.job_ids if self.shown_ids is None else np.concatenate([self.job_ids, self.shown_ids])
        for side, ids in (("applicants", self.applicant_ids), ("jobs", jobs)):
            rows, places = np.unique(ids, return_inverse=True)
            columns[f"{side}_keys"] = getattr(self.market, side).keys[rows]
            if side == "applicants":
                columns["applicant_ids"] = places
            else:
                columns["job_ids"] = places[: len(self)]
                if self.shown_ids is not None:
                    columns["shown_ids"] = places[len(self) :]
        header = {
            "format": _FORMAT,
            "written_by": written_by(),
            "market": self.market.name,
            "n": len(self),
            **({"moving": True} if self.moving else {}),
            "columns": sorted(columns),
            "sha256": {name: array_digest(column) for name, column in columns.items()},
        }
        with whole_folder(folder, is_saved_log, "log", LogError) as new:
            for name, column in columns.items():
                write_array(new / f"{name}.npy", column)
            (new / _HEADER).write_text(json.dumps(header, ensure_ascii=False), encoding="utf-8")
        fields = {name: getattr(self, name) for name in (*_ROWS, *_SHOWN)}
        return Interactions(self.market, **fields, folder=folder, moving=self.moving)

    @classmethod
    def load(cls, path: str | os.PathLike[str], market: LabourMarket) -> Interactions:
        """Reads what :meth:`save` wrote.

        Args:
            path: The folder.
            market: The market that has the log's people and jobs, by their keys.

        Raises:
            LogError: If the folder holds no whole log, was changed after it was written or is of another version, or if
                the market lacks a person or a job of the log.
        """
        folder = place_of(path).absolute()
        return read_whole(folder, lambda: cls._read(folder, market), LogError)

    @classmethod
    def _read(cls, folder: Path, market: LabourMarket) -> Interactions:
        try:
            header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
            if header["format"] != _FORMAT:
                writer = str(header.get("written_by", "an earlier version"))
                raise ValueError(f"its format is {header['format']!r:.40}, by {writer:.40}, expected {_FORMAT!r}")
            unknown = sorted({*header["columns"]} - {*_ROWS, *_SHOWN, *(f"{side}_keys" for side in _SIDES)})
            if unknown:
                raise ValueError(f"it has columns that no log has, {unknown!r:.200}")
            # The files are mapped first, so that a file that claims a larger size than it has takes no memory.
            mapped = {name: mapped_array(folder / f"{name}.npy") for name in header["columns"]}
            columns = {name: np.array(column) for name, column in mapped.items()}
            moving = bool(header.get("moving", False))
            listed = header.get("sha256")  # earlier logs have no digests
            changed = (
                [] if listed is None else [name for name in columns if array_digest(columns[name]) != listed[name]]
            )
            if wrong := [name for name in columns if columns[name].dtype.kind not in _KINDS.get(name, "iu")]:
                raise ValueError(f"`{wrong[0]}` is of {columns[wrong[0]].dtype}")
            keys = {side: columns.pop(f"{side}_keys") for side in _SIDES}
            if any(columns[name].shape != (header["n"],) for name in columns.keys() - {*_SHOWN}):
                raise ValueError("its columns do not fit together")
            for name, side in (("applicant_ids", "applicants"), ("job_ids", "jobs"), ("shown_ids", "jobs")):
                if name in columns:
                    ids = columns[name]
                    if len(ids) and not (ids.min() >= 0 and ids.max() < len(keys[side])):
                        raise ValueError(f"`{name}` has ids for which there are no keys")
                    columns[name] = ids.astype(np.int64)
            if "shown_offsets" in columns:
                columns["shown_offsets"] = columns["shown_offsets"].astype(np.int64)  # its order is checked below
        except (OSError, EOFError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise LogError(f"{folder} holds no whole log: {error}; save it again.") from error
        try:
            for name, side in (("applicant_ids", "applicants"), ("job_ids", "jobs"), ("shown_ids", "jobs")):
                if name in columns:
                    rows = _rows_of(getattr(market, side), keys[side], side, None)
                    if (rows < 0).any():
                        _refuse_unknown(keys[side][rows < 0], side, market)
                    columns[name] = rows[columns[name]]
            log = cls(market, **columns, folder=folder, moving=moving)
            _check(log)
        except LogError as error:
            raise LogError(f"{folder}: {error}") from error
        if changed:
            raise LogError(
                f"{folder / changed[0]}.npy was changed after it was written; save the log again, or use an "
                "unchanged copy."
            )
        return log

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a CSV file from which :func:`~jobrec_gym.loaders.interactions.load_interactions` reads the same log.

        People and jobs are written as their keys, numbers with all their digits, and the split as a word. The file
        appears whole or not at all.

        ``load_interactions`` refuses a row that repeats another row. :meth:`save` and :meth:`load` keep such rows too.
        """
        applicants, jobs = self.market.applicants.keys, self.market.jobs.keys
        answered = self.answered
        header = ["applicant", "job", "decision", "reward", "split"]
        optional = ("time", "propensity")
        header += [name for name in optional if getattr(self, name) is not None]
        header += [] if self.shown_ids is None else ["shown"]
        header += ["moving"] if self.moving else []
        with whole_file(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for row in range(len(self)):
                cells = [
                    applicants[self.applicant_ids[row]],
                    jobs[self.job_ids[row]],
                    DECISIONS[self.decision[row]] if self.decision[row] >= 0 else "",
                    repr(float(self.reward[row])) if answered[row] else "",
                    "test" if self.held_out[row] else "train",
                ]
                cells += [repr(float(getattr(self, name)[row])) for name in optional if getattr(self, name) is not None]
                if self.shown_ids is not None:
                    cells.append(json.dumps(jobs[self.shown(row)].tolist(), ensure_ascii=False))
                cells += ["yes"] if self.moving else []
                writer.writerow(cells)

    def _offsets(self) -> Ids:
        if self.shown_offsets is None:
            raise LogError(
                "the log does not say what else was shown: give a column `shown`, the keys of the jobs that the person "
                "could have been recommended. To learn without it, take only the recommended job as shown, as "
                "`python -m experiments.learn` does: `Interactions.of(log.market, log.applicant_ids, log.job_ids, "
                "log.reward, held_out=log.held_out, shown=log.job_ids[:, None])`."
            )
        return self.shown_offsets


def check_catalogue(agent: Any, market: LabourMarket, job_fields: Sequence[str] = (), argument: str = "agent") -> None:
    """Checks that an id means the same job to an agent and in a market.

    The check passes if the market's table of jobs equals the agent's table, ``agent.action_table.values``. An agent
    without a table passes. The agent's table may also hold features of its own for the same jobs. So the check passes
    if the market's table equals that of the agent's environment. If the table of the environment is not known, the
    check passes if the agent has ``action_features``.

    Args:
        agent: An agent that reads ids.
        market: The market whose rows the ids are.
        job_fields: Further blocks of the jobs' vectors in the agent's table. Used only if ``agent.reads`` does not name
            them.
        argument: Name of the argument that is the agent, for the message.

    Raises:
        ValueError: If the check does not pass.
    """
    known = getattr(getattr(agent, "action_table", None), "values", None)
    if known is None:
        return
    own_fields = (getattr(agent, "reads", None) or {}).get("job_fields")
    table = _table(market, job_fields if own_fields is None else own_fields)
    if not _is_same_table(Identity(known), table) and not _has_own_features(agent, table):
        raise ValueError(
            f"`{argument}` looks up ids in a table of {len(known):,} jobs, but this market has another one, of "
            f"{len(table.held):,} jobs: give the market that the agent was trained on. Or, if this market has the "
            "same jobs in the same order and new jobs after them, load the agent on it: `DynaQ.load(path, "
            "env=gym.make('JobRec-v0', market=market, ...))`."
        )


def of_its_env(agent: Any, name: str) -> Any:
    """An attribute of an agent's environment; ``None`` if the agent has no environment, or a closed one."""
    try:
        return agent.env.get_attr(name)[0]
    # A closed environment raises one of the last three.
    except (AttributeError, OSError, EOFError, gym.error.ClosedEnvironmentError):
        return None


def _has_own_features(agent: Any, table: Identity) -> bool:
    """Whether an agent has features of its own for the jobs of a table, as far as is known."""
    shown = of_its_env(agent, "action_features")
    if shown is None:
        return getattr(agent, "action_features", None) is not None
    return isinstance(shown, np.ndarray) and _is_same_table(Identity(shown), table)


def _table(market: LabourMarket, job_fields: Sequence[str]) -> Identity:
    return Identity(market.action_features(tuple(job_fields)))


@lru_cache(maxsize=4)
def _is_same_table(left: Identity, right: Identity) -> bool:
    """Whether two tables hold the same numbers. The answer is kept, so that the tables are read once."""
    if left.held.shape != right.held.shape:
        return False
    if (left.held.ctypes.data, left.held.strides) == (right.held.ctypes.data, right.held.strides):
        return True  # both are views of the same memory
    starts = range(0, len(left.held), _COMPARED)
    return all(np.array_equal(left.held[at : at + _COMPARED], right.held[at : at + _COMPARED]) for at in starts)


@lru_cache(maxsize=4)
def _is_same_market(left: LabourMarket, right: LabourMarket) -> bool:
    """Whether two markets have the same content. The answer is kept, so that the markets are read once."""
    return left.fingerprint() == right.fingerprint()


def is_saved_log(path: str | os.PathLike[str]) -> bool:
    """Whether a folder says that it holds a log. A log that a killed process left beside it is put back first."""
    return read_whole(path, (place_of(path) / _HEADER).is_file, LogError)


def _rows(column: NDArray[Any] | None, rows: Ids) -> NDArray[Any] | None:
    return None if column is None else column[rows]


def _from_the_front(rows: ArrayLike, n: int) -> Ids:
    """Row numbers of a log of n rows. As in numpy, numbers below 0 count from the end."""
    numbers = _plain_array(rows)
    if numbers.size and numbers.dtype.kind not in "iu":
        raise LogError(f"`rows` must be whole numbers, or a mask in `take`, got {numbers.dtype}.")
    rows = numbers.astype(np.int64)
    outside = (rows < -n) | (rows >= n)
    if outside.any():
        raise IndexError(f"`rows` must be in [{-n}, {n}), got {rows[outside][0]}.")
    return np.where(rows < 0, rows + n, rows)


def _row_numbers(name: str, ids: ArrayLike) -> Ids:
    numbers = np.array(ids).reshape(-1)
    if len(numbers) and numbers.dtype.kind not in "iu":
        raise LogError(f"`{name}` must be rows of the market, whole numbers, got {numbers.dtype}.")
    return numbers.astype(np.int64)


def _plain_array(values: ArrayLike) -> NDArray[Any]:
    """An array; one of Python objects, such as a column of a data frame, gets the type of its entries."""
    array = np.asarray(values)
    return np.asarray(array.tolist()) if array.dtype == object else array


def _floats(name: str, values: ArrayLike, what: str = "numbers") -> NDArray[np.float64]:
    array = np.asarray(values)
    try:
        if array.dtype.kind in "mMc":
            raise TypeError
        return np.array(array, dtype=np.float64)
    except (TypeError, ValueError):
        raise LogError(f"`{name}` must be {what}, got {array.dtype}, such as {_first(array)}.") from None


def _times(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind != "M":
        return _floats("time", array, "numbers, or dates of numpy (datetime64)")
    seconds: NDArray[np.float64] = (array - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    return seconds


def _decisions(values: ArrayLike) -> Ids:
    array = _plain_array(values)
    # A column of whole numbers may have become one of floats.
    is_right = np.isin(array, range(-1, len(DECISIONS))) if array.dtype.kind == "f" else array.dtype.kind in "iu"
    wrong = array[~np.broadcast_to(is_right, array.shape)]
    if wrong.size:
        raise LogError(
            f"`decision` must be places in {DECISIONS}, or -1 for none, whole numbers, got {array.dtype}, such as "
            f"{_first(wrong)}."
        )
    return array.astype(np.int64)


def _truths(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    array = _plain_array(values)
    wrong = array[~np.isin(array, (0, 1))] if array.dtype.kind in "biuf" else array
    if wrong.size:
        raise LogError(f"`{name}` must be True or False for each row, got {array.dtype}, such as {_first(wrong)}.")
    return np.array(array, dtype=bool)


def _first(array: NDArray[Any]) -> str:
    return f"{array.flat[0]!r:.40}" if array.size else "nothing"


def _check_rows(name: str, ids: Ids, n: int) -> None:
    if len(ids) and not (ids.min() >= 0 and ids.max() < n):
        raise LogError(f"`{name}` must be rows of the market, in [0, {n}), got {ids.min()} to {ids.max()}.")


def _check(log: Interactions) -> None:
    for name, ids, n in (
        ("applicant_ids", log.applicant_ids, len(log.market.applicants)),
        ("job_ids", log.job_ids, len(log.market.jobs)),
        ("shown", log.shown_ids, len(log.market.jobs)),
    ):
        if ids is not None:
            _check_rows(name, ids, n)
    if np.isinf(log.reward).any():
        raise LogError(
            f"`reward` must be finite, or NaN for no answer; row {int(np.isinf(log.reward).argmax())} is not."
        )
    if ((log.decision < -1) | (log.decision >= len(DECISIONS))).any():
        raise LogError(
            f"`decision` must be a place in {DECISIONS}, or -1, got {log.decision.min()} to {log.decision.max()}."
        )
    if log.time is not None and not np.isfinite(log.time).all():
        raise LogError(f"`time` must be finite; row {int((~np.isfinite(log.time)).argmax())} is not.")
    if log.propensity is not None:
        bad = ~((log.propensity > 0) & (log.propensity <= 1))
        if bad.any():
            row = int(bad.argmax())
            raise LogError(f"`propensity` must be in (0, 1]; row {row} has {log.propensity[row]}.")
    if log.shown_offsets is not None:
        offsets = log.shown_offsets
        assert log.shown_ids is not None
        whole = len(offsets) == len(log) + 1 and offsets[0] == 0 and offsets[-1] == len(log.shown_ids)
        if not whole or (np.diff(offsets) < 0).any():
            raise LogError("`shown` is not whole: its offsets do not fit its ids.")
        owner = np.repeat(np.arange(len(log)), np.diff(offsets))
        found = np.bincount(owner[log.shown_ids == log.job_ids[owner]], minlength=len(log))
        if (found != 1).any():
            row = int((found != 1).argmax())
            raise LogError(
                f"`shown` must hold the recommended job once; row {row} recommends job {log.job_ids[row]} and was "
                f"shown {log.shown(row).tolist()[:20]}."
            )
        pairs = owner * len(log.market.jobs) + log.shown_ids
        pairs.sort()  # numpy's `unique` would put each of them into a hash table, which takes ten times as long
        if (pairs[1:] == pairs[:-1]).any():
            raise LogError("`shown` must hold distinct jobs in each row.")


def _rows_of(population: Population, keys: NDArray[np.str_], side: str, log: Interactions | None) -> Ids:
    """Row of each key (m,) in a population, -1 for a missing key. No key that ``log`` uses may be missing."""
    order = np.argsort(population.keys, kind="stable")
    places = np.searchsorted(population.keys, keys, sorter=order).clip(max=len(order) - 1)
    rows = np.where(population.keys[order[places]] == keys, order[places], -1).astype(np.int64)
    if log is not None:
        ids = log.applicant_ids if side == "applicants" else log.job_ids
        if side == "jobs" and log.shown_ids is not None:
            ids = np.concatenate([ids, log.shown_ids])
        missing = np.unique(ids[rows[ids] < 0])
        if len(missing):
            _refuse_unknown(keys[missing], side, None)
    return rows


def _refuse_unknown(keys: NDArray[np.str_], side: str, market: LabourMarket | None) -> None:
    of = "the market" if market is None else f"market {market.name!r}"
    raise LogError(
        f"{of} lacks {len(keys):,} of the log's {side}: {', '.join(map(repr, keys[:3].tolist()))}"
        f"{', ...' if len(keys) > 3 else ''}. Give the market that the log is of."
    )
