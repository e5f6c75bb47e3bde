"""Many ``JobRec-v0`` at once: one batch of arrays instead of a loop over environments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from jobrec_gym.beginnings import Beginning, read_options
from jobrec_gym.candidates import CandidateSampler
from jobrec_gym.episodes import UpcomingEpisodes
from jobrec_gym.market import LabourMarket, MarketSpec, Split, row_products
from jobrec_gym.near_miss import did_you_mean, with_known_keywords
from jobrec_gym.prior_sources import LiveSource
from jobrec_gym.problem import (
    JobRecSpec,
    Observation,
    Payer,
    RecommendationProblem,
    Recommendations,
    Resample,
    UndoneOnError,
    require_count,
)
from jobrec_gym.rewards import Cosines, scaled_cosine

__all__ = ["JobRecVectorEnv", "add_info", "scattered"]

Batch = dict[str, NDArray[Any]]
Mask = NDArray[np.bool_]

_KEPT_NUMBERS = 1 << 25
"""Candidates' vectors of up to this many numbers (128 MiB) are kept between steps; more are gathered at each step."""
_PAID_AHEAD = 4
"""An episode computes the cosines of all kept candidates when it begins, if k is at most this many times its steps."""


class JobRecVectorEnv(VectorEnv[Batch, NDArray[np.int64], NDArray[Any]]):
    """``num_envs`` copies of :class:`~jobrec_gym.env.JobRecEnv`, equal to them step for step and to the bit.

    Environment ``i`` of ``reset(seed=s)`` is ``JobRecEnv`` with ``reset(seed=s + i)``. ``gym.make_vec("JobRec-v0",
    num_envs=n)`` makes this class.

    Args:
        num_envs: Number of environments.
        max_episode_steps: Truncate after this many steps; ``None`` for never.
        autoreset_mode: ``gymnasium.vector.AutoresetMode`` or its value as a string: ``"NextStep"``, ``"SameStep"``,
            ``"Disabled"``.
        market: As in :class:`~jobrec_gym.env.JobRecEnv`, like all arguments below.
        split: Which applicants.
        job_split: Which jobs.
        num_candidates: How many candidates are shown.
        candidate_sampler: How candidates are chosen.
        resample: When candidates are drawn: for each ``"episode"`` or each ``"step"``.
        repeats: Whether a job may be recommended twice in an episode.
        observation: ``"features"`` or ``"ids"``.
        mask_in_observation: Put the mask into the observation.
        job_fields: Further blocks of the jobs' vectors.
        pair_features: Columns of the entry ``pairs``.
        pair_noise: Standard deviation of the noise that is added to the columns of ``pair_features``.
        prior_sources: Further columns of ``pairs``.
        render_mode: Must be ``None``; to render, make a single environment.

    Raises:
        ValueError: If an argument has a value that is not allowed; the message names it.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - typed as in gymnasium
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    # Arrays that a step or a reset changes in place. It gathers vectors anew, so these are not among them.
    _changed_in_place: tuple[str, ...] = (
        *("_episodes", "_episode_keys", "_steps", "_ended", "_applicant_ids", "_candidate_ids", "_noise", "_masks"),
        *("_recommended", "_pairs", "_progress", "_beginnings"),
    )
    # What `call` and `get_attr` know: what each environment has for itself, and what all have in common.
    _of_each: tuple[str, ...] = ("action_masks", "np_random", "np_random_seed")
    _of_all: tuple[str, ...] = (
        *("action_features", "job_fields", "market", "observation_sample", "pair_feature_names", "pair_features"),
        "prior_sources",
    )

    @with_known_keywords
    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 10,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        market: MarketSpec | os.PathLike[str] | LabourMarket = "default",
        split: Split = "train",
        job_split: Split = "train",
        num_candidates: int = 20,
        candidate_sampler: str | CandidateSampler = "uniform",
        resample: Resample = "episode",
        repeats: bool = True,
        observation: Observation = "features",
        mask_in_observation: bool = False,
        job_fields: Sequence[str] = (),
        pair_features: Sequence[str] = (),
        pair_noise: float = 0.0,
        prior_sources: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ):
        problem = RecommendationProblem(
            market,
            split,
            job_split,
            num_candidates,
            candidate_sampler,
            resample,
            repeats,
            observation,
            mask_in_observation,
            job_fields,
            pair_features,
            pair_noise,
            prior_sources,
        )
        self._pose(problem, num_envs, max_episode_steps, autoreset_mode, render_mode)

    def _pose(
        self,
        problem: RecommendationProblem,
        num_envs: int,
        max_episode_steps: int | None,
        autoreset_mode: AutoresetMode | str,
        render_mode: str | None,
    ) -> None:
        """Sets up what every vector environment of a problem has."""
        require_count("num_envs", num_envs)
        if max_episode_steps is not None:
            require_count("max_episode_steps", max_episode_steps, " or None")
        if render_mode is not None:
            raise ValueError(
                f"`render_mode` must be None in a vector environment, got {render_mode!r}: render a single one."
            )
        self._problem = problem
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        # The metadata is set on the instance, because all instances share that of the class.
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self._problem.observation_space()
        self.single_action_space = self._problem.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._k = self._problem.num_candidates
        self._upcoming = UpcomingEpisodes(self._problem, num_envs)
        self._recommendations: Recommendations | None
        self._ready = False
        self._episodes: NDArray[np.uint64]
        self._episode_keys: NDArray[np.uint64]
        self._steps: NDArray[np.int64]
        self._ended: Mask
        self._applicant_ids: NDArray[np.int64]
        self._candidate_ids: NDArray[np.int64]
        # Random numbers of the next answers, if they are drawn ahead together with the candidates.
        self._noise: NDArray[np.float64] | None
        self._masks: NDArray[np.int8]
        # The beginnings that were chosen, by environment; all other running episodes were drawn.
        self._beginnings: dict[int, Beginning] = {}
        # With `repeats=False`: one bit for each job, set if the running episode has recommended it.
        self._recommended: NDArray[np.uint8]
        # In same-step mode: the rows that were reset in the last step, and whether there are any.
        self._reset_rows: Mask
        self._any_reset: bool
        # The last recommendations: applicants, jobs, keys of the episodes, numbers of the steps, which rows made one,
        # and cosines.
        self._last: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64], Mask, Cosines]
        # Whether each row made a recommendation in the last step, and no row was reset in that step.
        self._is_whole: bool
        # Vectors that are observed now. A step gathers only the rows that show something new.
        self._applicant_vectors: NDArray[np.float32]
        self._candidate_vectors: NDArray[np.float32] | None
        self._pairs: NDArray[np.float32] | None
        self._progress: NDArray[np.float32] | None  # (n, m), where applicants move
        # The cosine of each kept candidate, if it is computed ahead.
        self._cosines: NDArray[np.float32] | None
        # Set by a reward wrapper while it makes a step.
        self.payer: Payer | None = None
        # Whether a step can fail after it was paid. Only then all that it changes is copied first. That takes a fifth
        # of the time of a step.
        self._may_fail = self._problem.asks_others

    @property
    def market(self) -> LabourMarket:
        """The market that the environments play on."""
        return self._problem.market

    @property
    def action_features(self) -> NDArray[np.floating]:
        """Table of job vectors (n_jobs, d_a), read-only; ids in the observation are its rows."""
        return self._problem.action_features

    @property
    def job_fields(self) -> tuple[str, ...]:
        """Names of the blocks that follow hard and soft skills in a job's vector; empty if there are none."""
        return self._problem.job_fields

    @property
    def pair_feature_names(self) -> tuple[str, ...]:
        """Names of the columns of the entry ``pairs``, (p,); empty if there is no such entry."""
        return self._problem.pair_values.names

    @property
    def prior_sources(self) -> dict[str, str]:
        """The columns of ``pairs`` that are sources of a prior: name and description; empty if there are none."""
        return self._problem.prior_sources

    @property
    def source_settings(self) -> dict[str, str]:
        """For each live language model in ``prior_sources``: its address, sampling and order of decisions."""
        return self._problem.source_settings

    @property
    def live_sources(self) -> list[LiveSource]:
        """The live models in ``prior_sources``; their ``usage`` says what they were asked and what it cost."""
        return self._problem.live_sources

    def pair_features(self, applicant_ids: NDArray[np.integer], job_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Pair features of any pairs, shown or not; the entry ``pairs`` has only those of the shown pairs.

        Args:
            applicant_ids: Rows of the market's applicants, integers of any shape, e.g. (n, 1).
            job_ids: Rows of the market's jobs, of a shape that broadcasts with that of ``applicant_ids``, e.g. (n, k).

        Returns:
            float32 (..., p) in [0, 1], one column for each name of :attr:`pair_feature_names`, with the same
            ``pair_noise`` as in the observation.

        Raises:
            ValueError: If the environment was made with neither ``pair_features=`` nor ``prior_sources=``, or if ids
                are not integers, name no row, or do not broadcast.
        """
        return self._problem.pair_values.ask(applicant_ids, job_ids)

    @property
    def observation_sample(self) -> dict[str, NDArray[Any]]:
        """A batch of n observations that shows the scale of their numbers to an algorithm before it learns.

        The observations are the first ones of at most 1,000 fixed episodes, with at most 20,000 candidates in all. No
        episode is played for the sample, and it is the same for every seed. n is 0 if one of ``prior_sources`` is a
        live model, because such a model is asked only about pairs that are shown.
        """
        return self._problem.observation_sample()

    @property
    def recommendations(self) -> Recommendations:
        """The last step's recommendations, a row for each environment. After a reset ``made`` is False in each row."""
        self._check_ready()
        if self._recommendations is None:  # keys are hashed only when they are asked for
            applicant_ids, job_ids, episode_keys, steps, made, cosine = self._last
            keys = partial(self._problem.keys_of_steps, episode_keys, steps)
            self._recommendations = Recommendations(applicant_ids, job_ids, keys, made, cosine)
        return self._recommendations

    def begun(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Applicants (m,) and candidates (m, k) of episodes that have made exactly one step, for reward wrappers.

        ``None`` if there is no such episode. Also ``None`` if candidates change at each step, or are too many to
        compute all their rewards ahead.
        """
        if not self._problem.is_foreseeable or not self._ready:
            return None
        rows = self._steps == 1
        rows &= ~self._ended
        return (self._applicant_ids[rows], self._candidate_ids[rows]) if rows.any() else None

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        """The environments' seeds; ``None`` before the first reset, and after :meth:`set_state`."""
        return tuple(self._upcoming.seeds)

    @property  # type: ignore[misc]  # generators are seeded by reset, not set
    def np_random(self) -> tuple[np.random.Generator | None, ...]:  # type: ignore[override]
        """The environments' generators; each draws the numbers of a block of episodes at once."""
        return tuple(self._upcoming.generators)

    def action_masks(self) -> Mask:
        """Which actions are allowed now, (num_envs, k)."""
        self._check_ready()
        return self._masks.astype(bool)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method of the single environments, or gives an attribute, as Gymnasium's ``SyncVectorEnv.call``.

        Args:
            name: A method or an attribute that single environments have too, such as ``"action_masks"``.
            *args: Arguments of the method.
            **kwargs: Keywords of the method.

        Returns:
            ``num_envs`` results, one for each environment.

        Raises:
            AttributeError: For any other name. The message says which names there are.
        """
        if name not in (*self._of_each, *self._of_all):
            known = sorted({*self._of_each, *self._of_all})
            raise AttributeError(
                f"`name` must be one of {', '.join(known)}, got {name!r:.80}.{did_you_mean(name, known)} Single "
                'environments, `gym.make_vec(..., vectorization_mode="sync")`, have others.'
            )
        value = getattr(self, name)
        result = value(*args, **kwargs) if callable(value) else value
        return tuple(result) if name in self._of_each else (result,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute of each environment. As in Gymnasium, a method is called; see :meth:`call`."""
        return self.call(name)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Batch, dict[str, Any]]:
        """Starts episodes.

        After an exception, such as one of a live prior source, the environments are as before.

        Args:
            seed: Environment ``i`` is seeded with ``seed + i``, or with the i-th of a list.
            options: ``{"reset_mask": bool (num_envs,)}`` resets the marked environments only. ``applicant_id`` and
                ``applicant_key`` (num_envs,) and ``candidate_ids`` (num_envs, k) choose what would otherwise be drawn,
                as in :class:`~jobrec_gym.env.JobRecEnv`. Entries of environments that are not reset are ignored. Later
                episodes are drawn as usual.

        Raises:
            ValueError: For a mask of another shape or type, or a mask that marks nothing, and whenever
                :meth:`~jobrec_gym.env.JobRecEnv.reset` raises one.
        """
        rows = np.ones(self.num_envs, dtype=bool)
        if isinstance(options, Mapping) and "reset_mask" in options:
            rows = self._reset_mask(options["reset_mask"])
        beginning = read_options(self._problem, options, rows)
        with self._undone_on_error():
            self._upcoming.seed(seed, rows)
            if not self._ready:
                self._allocate()
            self._start(rows, beginning)
            self._nothing_recommended()
        infos: dict[str, Any] = {}
        self._add_state_infos(infos, rows)
        for key, values in () if beginning is None else beginning.infos(self._problem):
            every = np.zeros((self.num_envs, *values.shape[1:]), dtype=bool)
            every[rows] = values
            add_info(infos, key, every, rows)
        return self._observe(), infos

    def step(self, actions: NDArray[np.int64]) -> tuple[Batch, NDArray[np.float64], Mask, Mask, dict[str, Any]]:
        """Recommends candidate ``actions[i]`` in environment ``i``.

        After an exception, such as one of a simulator, the environments are as before.

        Raises:
            ValueError: If a candidate does not exist or is masked.
            RuntimeError: Before the first reset, or if an ended episode was not reset (``autoreset_mode="Disabled"``).
        """
        self._check_ready()
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise RuntimeError(
                f"environments {np.flatnonzero(self._ended).tolist()} have ended: call "
                '`reset(options={"reset_mask": terminated | truncated})` first.'
            )
        made = ~self._ended
        actions = self._check_actions(np.asarray(actions), made)
        with self._undone_on_error() if self._may_fail else UndoneOnError(self, self._problem):
            return self._recommend(actions, made)

    def _recommend(
        self, actions: NDArray[np.int64], made: Mask
    ) -> tuple[Batch, NDArray[np.float64], Mask, Mask, dict[str, Any]]:
        """Makes a step. In next-step mode rows that are not in ``made`` (num_envs,) start anew and take no action."""
        resting = self._ended.nonzero()[0]
        job_ids = self._candidate_ids[self._rows, actions]
        job_ids[resting] = 0
        self._recommendations = None
        raw = self._cosine(actions, job_ids)
        cosine = scaled_cosine(raw, "unit")
        cosines = Cosines(raw, cosine.copy())
        self._last = self._applicant_ids.copy(), job_ids, self._episode_keys.copy(), self._steps.copy(), made, cosines
        reward, entries = self._answer(made, job_ids, cosine)
        told_to_end: Any = False
        if self.payer is not None and len(resting) < len(made):
            _, told_to_end = self.payer(self.recommendations, entries)
        if len(resting):
            reward[resting] = 0.0
            self._start(~made, seen=not self._sees_anew)
        self._advance(made, job_ids)
        if self._sees_anew:
            self._see(self._every)

        terminated = self._left(made) | told_to_end
        if not self._problem.repeats:
            terminated |= made & ~self._masks.any(axis=1)
        truncated = np.zeros(self.num_envs, bool)
        if self.max_episode_steps is not None:
            truncated = made & (self._steps >= self.max_episode_steps)
        ended = terminated | truncated
        self._ended = ended.copy()

        infos: dict[str, Any] = {}
        observations = self._settle(infos, ended)
        self._is_whole = not len(resting) and not self._any_reset
        self.add_step_infos(infos, {"job_id": job_ids.copy(), **entries})
        return observations, reward, terminated, truncated, infos

    def _answer(
        self, made: Mask, job_ids: NDArray[np.int64], cosine: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Rewards of recommendations with unit cosines (n,), and the entries of the infos that explain them."""
        entries: dict[str, Any] = {"reward/cosine": cosine.copy(), "reward_components": {"cosine": cosine.copy()}}
        return cosine, {**entries, "transition_valid": made.copy()}

    def _left(self, made: Mask) -> Mask:
        """Which environments' applicants left in this step."""
        return np.zeros(self.num_envs, dtype=bool)

    def _enter(self, rows: NDArray[np.int64]) -> None:
        """Puts applicants of rows (m,) into the states that episodes begin with; does nothing where nobody moves."""

    def _state_entries(self) -> dict[str, NDArray[Any]]:
        """Entries of the infos that describe the state of all environments; the arrays belong to the caller."""
        ids = {"applicant_id": self._applicant_ids.copy(), "candidate_ids": self._candidate_ids.copy()}
        return {**ids, "action_mask": self._masks.copy()}

    def add_step_info(self, infos: dict[str, Any], key: str, values: Any, rows: Mask) -> None:
        """Adds an entry to the infos of the last step, in Gymnasium's form.

        For rows that were reset in the same step, the entry goes into ``infos["final_info"]``.

        Args:
            infos: Changed in place.
            key: Name of the entry.
            values: Array (num_envs,) or a dictionary of such arrays.
            rows: bool (num_envs,), which rows have the entry.
        """
        final = self._reset_rows & rows
        if not final.any():
            if rows.any():
                add_info(infos, key, values, rows)
            return
        add_info(infos["final_info"], key, values, final)
        if (rows & ~final).any():
            add_info(infos, key, values, rows & ~final)

    def add_step_infos(self, infos: dict[str, Any], entries: dict[str, Any]) -> None:
        """Adds several entries, by name, as :meth:`add_step_info` does: for all rows that recommended something.

        The infos keep the arrays, of numbers or objects, without a copy: do not change or reuse the arrays.
        """
        made = self._last[4]
        if self._is_whole:
            _add_full(infos, entries, made)
        elif not self._any_reset:
            if np.count_nonzero(made):
                _blank(entries, (~made).nonzero()[0])
                _add_full(infos, entries, made)
        else:
            for key, values in entries.items():
                self.add_step_info(infos, key, values, made)

    def get_state(self) -> dict[str, Any]:
        """The state of the environments; :meth:`set_state` continues from it, equal to the bit."""
        self._check_ready()
        return {
            "numbers": self._upcoming.get_state(),
            "episodes": self._episodes.copy(),
            "steps": self._steps.copy(),
            "ended": self._ended.copy(),
            "recommended": [
                np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist() for bits in self._recommended
            ],
            "beginnings": {str(row): beginning.to_state() for row, beginning in self._beginnings.items()},
            **self._problem.state_of_sources(self._pairs),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a state of :meth:`get_state`.

        Raises:
            ValueError: If the state was saved with another number of environments. Also if it was saved with live
                models in ``prior_sources`` whose names are not those of the live models here. These environments are
                then unchanged.
        """
        if len(state["episodes"]) != self.num_envs:
            raise ValueError(
                f"`state` must be that of {self.num_envs} environments, got that of {len(state['episodes'])}: make as "
                "many environments as the state has."
            )
        pairs = self._problem.stored_pairs(state)
        self._upcoming.set_state(state["numbers"])
        self._allocate()
        self._episodes = np.asarray(state["episodes"], dtype=np.uint64).copy()
        self._steps = np.asarray(state["steps"], dtype=np.int64).copy()
        self._ended = np.asarray(state["ended"], dtype=bool).copy()
        for row, job_ids in enumerate(state["recommended"]):
            for job_id in job_ids:
                self._remember(np.array([row]), np.array([job_id]))
        self._applicant_ids = self._problem.applicants(self._episodes)
        self._candidate_ids = self._problem.candidates(self._applicant_ids, self._episodes, self._steps)
        for name, chosen in state.get("beginnings", {}).items():  # older checkpoints lack the entry
            row, beginning = int(name), Beginning.from_state(chosen)
            here = slice(row, row + 1)
            begun = beginning.begin(self._problem, self._episodes[here], self._steps[here])
            self._applicant_ids[here], self._candidate_ids[here] = begun
            self._beginnings[row] = beginning
        self._episode_keys = self._problem.episode_keys(self._episodes)
        if self._noise is not None and self._problem.noise_of is not None:
            self._noise = self._problem.noise_of(self._problem.keys_of_steps(self._episode_keys, self._steps))
        self._masks = self._unrecommended(self._every)
        self._enter(self._rows)
        self._gather(self._rows)
        if pairs is None:
            self._see(self._every)
        else:
            self._pairs = pairs
        self._problem.restore_sources(state)
        self._nothing_recommended()

    @property
    def spec(self) -> EnvSpec | None:
        """How ``gym.make_vec`` makes this environment again."""
        return self.__dict__.get("_spec")

    @spec.setter
    def spec(self, value: EnvSpec | None) -> None:
        self.__dict__["_spec"] = None if value is None else JobRecSpec.of(value)

    # ------------------------------------------------------------------------------------------------------------ parts

    @contextlib.contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """An exception within leaves no trace."""
        changed = self._changed_in_place if self._ready else ()
        kept = {name: values.copy() for name in changed if (values := vars(self)[name]) is not None}
        upcoming = self._upcoming.mark()
        try:
            with UndoneOnError(self, self._problem):
                yield
        except BaseException:
            vars(self).update(kept)
            self._upcoming.return_to(upcoming)
            if self._ready:
                self._gather(self._rows)
            raise

    def _check_ready(self) -> None:
        if not self._ready:
            raise RuntimeError("the environments have no episodes yet: call `reset` first.")

    def _allocate(self) -> None:
        n, k = self.num_envs, self._k
        self._beginnings = {}
        self._episodes = np.zeros(n, dtype=np.uint64)
        self._episode_keys = np.zeros(n, dtype=np.uint64)
        self._steps = np.zeros(n, dtype=np.int64)
        self._ended = np.zeros(n, dtype=bool)
        self._applicant_ids = np.zeros(n, dtype=np.int64)
        self._candidate_ids = np.zeros((n, k), dtype=np.int64)
        self._noise = np.zeros(n) if self._upcoming.draws_noise else None
        self._masks = np.ones((n, k), dtype=np.int8)
        n_jobs = 0 if self._problem.repeats else len(self.market.jobs)
        self._recommended = np.zeros((n, -(-n_jobs // 8)), dtype=np.uint8)
        self._reset_rows, self._any_reset = np.zeros(n, dtype=bool), False
        self._rows = np.arange(n)
        self._every = np.ones(n, dtype=bool)
        problem = self._problem
        self._applicant_vectors = np.zeros((n, self.market.applicants.vectors.shape[1]), dtype=np.float32)
        self._candidate_vectors = None
        shape = n, k, problem.action_features.shape[1]
        if problem.observation == "features" and problem.resample == "episode" and np.prod(shape) <= _KEPT_NUMBERS:
            self._candidate_vectors = np.zeros(shape, dtype=np.float32)
        names = self.pair_feature_names
        self._pairs = np.zeros((n, k, len(names)), dtype=np.float32) if names else None
        self._progress = None
        self._cosines = None
        n_steps = np.inf if self.max_episode_steps is None else self.max_episode_steps
        if self._candidate_vectors is not None and k <= _PAID_AHEAD * n_steps:
            self._cosines = np.zeros((n, k), dtype=np.float32)
        self._ready = True

    @property
    def _sees_anew(self) -> bool:
        """Whether what is observed of applicants and shown jobs changes with each step."""
        return self._problem.resample == "step"

    def _start(self, rows: Mask, beginning: Beginning | None = None, seen: bool = True) -> None:
        """Begins episodes in some rows. With ``seen=False`` the caller updates what is observed of them."""
        episodes, keys, applicant_ids, candidate_ids = self._upcoming.next(rows, self._noise)
        places = rows.nonzero()[0]  # places of few rows are many times faster than a mask
        if beginning is not None or self._beginnings:
            for row in places.tolist():
                self._beginnings.pop(row, None)
        if beginning is not None:
            steps = np.zeros(len(episodes), dtype=np.int64)
            applicant_ids, candidate_ids = beginning.begin(self._problem, episodes, steps)
            self._upcoming.forget(rows)
            self._beginnings |= {row: beginning.take(place) for place, row in enumerate(places.tolist())}
        self._applicant_ids[places], self._candidate_ids[places] = applicant_ids, candidate_ids
        self._episodes[places], self._episode_keys[places] = episodes, keys
        self._steps[places] = 0
        self._ended[places] = False
        if not self._problem.repeats:
            self._masks[places], self._recommended[places] = 1, 0
        self._enter(places)
        self._gather(places)
        if seen:
            self._see(rows)

    def _nothing_recommended(self) -> None:
        nothing = np.zeros(self.num_envs, dtype=np.int64)
        cosines = Cosines(nothing.astype(np.float32), nothing.astype(np.float64))
        self._recommendations = Recommendations(nothing, nothing, self._episodes.copy(), nothing.astype(bool), cosines)

    def _gather(self, rows: NDArray[np.int64]) -> None:
        """Updates the kept vectors of some distinct rows (m,)."""
        problem, kept = self._problem, self._candidate_vectors
        candidates: NDArray[np.float32] | None = None
        if len(rows) == self.num_envs:  # written straight into the kept arrays
            applicants = problem.applicant_vectors(self._applicant_ids, out=self._applicant_vectors)
            if kept is not None:
                candidates = problem.candidate_vectors(self._candidate_ids, out=kept)
        else:
            applicants = self._applicant_vectors[rows] = problem.applicant_vectors(self._applicant_ids[rows])
            if kept is not None:
                candidates = kept[rows] = problem.candidate_vectors(self._candidate_ids[rows])
        if self._cosines is not None and candidates is not None:
            # The cosine is of hard and soft skills only: the blocks of `job_fields` come after these.
            jobs = candidates[..., : applicants.shape[-1]]
            self._cosines[rows] = row_products(applicants[:, None], jobs)

    def _see(self, rows: Mask) -> None:
        """Updates what is observed of applicants and shown jobs together, in some rows."""
        if self._pairs is not None:
            self._pairs[rows] = self._problem.pairs(self._applicant_ids[rows], self._candidate_ids[rows])

    def _cosine(self, actions: NDArray[np.int64], job_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Cosines of recommendations (n,); they are equal to the bit, whether they were computed ahead or not."""
        if self._cosines is not None:
            return self._cosines[self._rows, actions]
        return self.market.cosine_of(self._applicant_vectors, job_ids)

    def _advance(self, rows: Mask, job_ids: NDArray[np.int64]) -> None:
        if not self._problem.repeats:
            self._remember(np.flatnonzero(rows), job_ids[rows])
        self._steps += rows
        if self._problem.resample == "step":
            self._upcoming.show(
                rows, self._applicant_ids, self._episodes, self._steps, self._candidate_ids, self._noise
            )
        if not self._problem.repeats:
            if self._problem.resample == "step":
                self._masks[rows] = self._unrecommended(rows)
            else:  # the same jobs are shown again: only the recommended job has to be masked
                self._masks[rows] &= self._candidate_ids[rows] != job_ids[rows, None]

    def _remember(self, rows: NDArray[np.int64], job_ids: NDArray[np.int64]) -> None:
        """Sets the bits of one job in each of some distinct rows."""
        self._recommended[rows, job_ids >> 3] |= np.left_shift(1, job_ids & 7).astype(np.uint8)

    def _unrecommended(self, rows: Mask) -> NDArray[np.int8]:
        if self._problem.repeats:
            return np.ones_like(self._masks[rows])
        shown = self._candidate_ids[rows]
        bits = self._recommended[np.flatnonzero(rows)[:, None], shown >> 3] >> (shown & 7)
        return (1 - (bits & 1)).astype(np.int8)

    def _settle(self, infos: dict[str, Any], ended: Mask) -> Batch:
        """Observations after a step; in same-step mode ended rows are reset first."""
        if self._any_reset:
            self._reset_rows, self._any_reset = np.zeros(self.num_envs, dtype=bool), False
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            self._add_final(infos, ended)
            self._add_state_infos(infos["final_info"], ended)
            self._start(ended)
        _add_full(infos, self._state_entries(), self._every)
        return self._observe()

    def _add_final(self, infos: dict[str, Any], rows: Mask) -> None:
        final = infos.setdefault("final_obs", np.full(self.num_envs, None, dtype=object))
        observations = self._observe(rows)
        for place, row in enumerate(np.flatnonzero(rows)):
            # The values are copied: a view would keep the observations of all rows in memory.
            final[row] = {key: values[place].copy() for key, values in observations.items()}
        infos.setdefault("final_info", {})
        for key in ("_final_obs", "_final_info"):
            infos[key] = infos.get(key, np.zeros(self.num_envs, dtype=bool)) | rows
        self._reset_rows, self._any_reset = self._reset_rows | rows, True
        self._is_whole = False

    def _add_state_infos(self, infos: dict[str, Any], rows: Mask) -> None:
        for key, values in self._state_entries().items():
            add_info(infos, key, values, rows)

    def _observe(self, rows: Mask | None = None) -> Batch:
        """Observations of all environments or of some rows; the arrays belong to the caller."""

        def copied(values: NDArray[Any]) -> NDArray[Any]:
            return values.copy() if rows is None else values[rows]

        observation: Batch = {"applicant": copied(self._applicant_vectors)}
        if self._candidate_vectors is not None:
            observation["candidates"] = copied(self._candidate_vectors)
        else:
            observation["candidates"] = copied(self._candidate_ids)
            if self._problem.observation == "features":
                observation["candidates"] = self._problem.candidate_vectors(observation["candidates"])
        if self._pairs is not None:
            observation["pairs"] = copied(self._pairs)
        if self._progress is not None:
            observation["progress"] = copied(self._progress)
        if self._problem.mask_in_observation:
            observation["action_mask"] = copied(self._masks)
        return observation

    def _check_actions(self, actions: NDArray[Any], made: Mask) -> NDArray[np.int64]:
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(
                f"`actions` must be integers of shape ({self.num_envs},), got {actions.dtype} of shape {actions.shape}."
            )
        actions = actions.astype(np.int64, copy=False)
        if actions.view(np.uint64).max() >= self._k:  # as unsigned numbers, negative ones are the largest
            wrong = np.flatnonzero((actions < 0) | (actions >= self._k))
            raise ValueError(f"`actions` must be in [0, {self._k}), got {actions[wrong[0]]} in environment {wrong[0]}.")
        # Candidates are masked only with `repeats=False`.
        refused = made & (self._masks[self._rows, actions] == 0) if not self._problem.repeats else None
        if refused is not None and refused.any():
            masked = np.flatnonzero(refused)
            row = masked[0]
            raise ValueError(
                f"`actions`: {actions[row]} is masked in environment {row}: job "
                f"{self._candidate_ids[row, actions[row]]} was recommended before in this episode "
                '(repeats=False); choose where `infos["action_mask"]` is 1.'
            )
        return actions

    def _reset_mask(self, mask: Any) -> Mask:
        if (
            not isinstance(mask, np.ndarray)
            or mask.shape != (self.num_envs,)
            or mask.dtype != np.bool_
            or not mask.any()
        ):
            raise ValueError(
                f"`options['reset_mask']` must be a bool array of shape ({self.num_envs},) that marks at least one "
                f"environment, got {mask!r}."
            )
        if not self._ready and not mask.all():
            raise ValueError("`options['reset_mask']` must mark every environment at the first reset.")
        return mask


def add_info(infos: dict[str, Any], key: str, values: Any, rows: Mask) -> None:
    """Adds an entry for some rows in the form of ``VectorEnv._add_info``: an array, and a mask under ``_key``.

    Args:
        infos: Changed in place.
        key: Name of the entry.
        values: Array (num_envs, ...), or a dictionary of such arrays, which becomes a nested dictionary.
        rows: bool (num_envs,), the rows to write. Other rows keep what they have; in a new entry they get 0 or
            ``None``.
    """
    if isinstance(values, dict):
        nested = infos.setdefault(key, {})
        for name, entry in values.items():
            add_info(nested, name, entry, rows)
    else:
        if key not in infos:
            dtype = object if values.dtype.kind in "OU" else values.dtype
            infos[key] = np.full(values.shape, None if dtype is object else 0, dtype=dtype)
        infos[key][rows] = values[rows]
    infos[f"_{key}"] = infos.get(f"_{key}", np.zeros(len(rows), dtype=bool)) | rows


def scattered(values: NDArray[Any], rows: Mask) -> NDArray[Any]:
    """Puts values (m, ...) into the m marked rows of an array (n, ...); other rows are 0, False or ``None``."""
    dtype = object if values.dtype.kind in "OU" else values.dtype
    full = np.full((len(rows), *values.shape[1:]), None if dtype is object else 0, dtype=dtype)
    full[rows] = values
    return full


def _add_full(infos: dict[str, Any], entries: dict[str, Any], every: Mask) -> None:
    """Adds several entries that every row has; the infos keep the arrays without a copy."""
    for key, values in entries.items():
        if isinstance(values, dict):
            _add_full(infos.setdefault(key, {}), values, every)
        else:
            infos[key] = values
        infos["_" + key] = every.copy()


def _blank(entries: dict[str, Any], places: NDArray[np.int64]) -> None:
    """Sets entries to 0 or ``None``, as Gymnasium does, in rows (m,) that do not have these entries."""
    for values in entries.values():
        if isinstance(values, dict):
            _blank(values, places)
        else:
            values[places] = None if values.dtype.hasobject else 0


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    by_name = {name: member for member in AutoresetMode for name in (member.value, member.name)}
    if isinstance(mode, AutoresetMode):
        return mode
    if mode not in by_name:
        raise ValueError(f"`autoreset_mode` must be an AutoresetMode or one of {tuple(by_name)}, got {mode!r}.")
    return by_name[mode]
