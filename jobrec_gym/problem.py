"""The decision problem as pure functions of (episode number, step), shared by the single and the vector environment."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from numpy.typing import NDArray

from jobrec_gym.candidates import CandidateSampler, check_sampler, make_sampler
from jobrec_gym.counter_rng import bounded, hash64, rehash64
from jobrec_gym.market import LabourMarket, MarketError, MarketSpec, Split, gathered, load_market
from jobrec_gym.pair_features import PairValues
from jobrec_gym.prior_sources import LiveSource, SourcedPairValues
from jobrec_gym.rewards import Cosines
from jobrec_gym.simulators.base import Feedback

__all__ = [
    "JobRecSpec",
    "Observation",
    "Payer",
    "RecommendationProblem",
    "Recommendations",
    "Resample",
    "UndoneOnError",
    "require_count",
    "require_flag",
]

Observation = Literal["features", "ids"]
Resample = Literal["episode", "step"]
Ids = NDArray[np.int64]

_APPLICANT, _CANDIDATES, _INTERACTION, _SAMPLE = 1, 2, 3, 4

_FORESEEN = 64
"""Up to this many candidates, rewarding all of them at the start of an episode is faster than rewarding some singly."""

_LIVE = "live_sources"
"""The entry in an environment's state for the live models among its prior sources."""

# Size of a sample of pair features.
_SAMPLED_EPISODES, _SAMPLED_PAIRS = 1_000, 20_000


def require_count(name: str, value: Any, otherwise: str = "") -> None:
    """Refuses everything but a whole number of at least 1; True is refused too.

    Args:
        name: Name of the argument, for the message.
        value: The value that was given.
        otherwise: What else is allowed, in words, for the message.

    Raises:
        ValueError: If the value is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be at least 1{otherwise}, a whole number, got {value!r:.80}.")


def require_flag(name: str, value: Any) -> bool:
    """True or False, also of NumPy's type. Anything else is refused: a text such as "no" would count as True.

    Args:
        name: Name of the argument, for the message.
        value: The value that was given.

    Raises:
        ValueError: If the value is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False, got {value!r:.80}.")
    return bool(value)


class Recommendations:
    """The recommendations of the last step, for reward wrappers; each array is (n,), n = 1 in a single environment.

    Attributes:
        applicant_ids: The applicants.
        job_ids: The recommended jobs.
        interaction_keys: uint64, the keys that reward noise is drawn from.
        made: bool; False for a row that was reset in this step instead.
        cosine: Cosine of applicant and job; without meaning where ``made`` is False.
        own: Answers and paid rewards, if the environment asks its own simulator; else ``None``.
    """

    __slots__ = ("_interaction_keys", "applicant_ids", "cosine", "job_ids", "made", "own")

    def __init__(
        self,
        applicant_ids: Ids,
        job_ids: Ids,
        interaction_keys: NDArray[np.uint64] | Callable[[], NDArray[np.uint64]],
        made: NDArray[np.bool_],
        cosine: Cosines,
        own: Feedback | None = None,
    ):
        self.own = own
        self.applicant_ids = applicant_ids
        self.job_ids = job_ids
        self.made = made
        self.cosine = cosine
        self._interaction_keys = interaction_keys

    @property
    def interaction_keys(self) -> NDArray[np.uint64]:
        """The keys, which are hashed when they are first asked for."""
        if callable(self._interaction_keys):
            self._interaction_keys = self._interaction_keys()
        return self._interaction_keys

    def take(self, rows: NDArray[np.bool_]) -> Recommendations:
        """The recommendations of the marked rows, a mask (n,)."""
        ids = self.applicant_ids[rows], self.job_ids[rows]
        own = None if self.own is None else self.own.take(rows)
        keys = lambda: self.interaction_keys[rows]  # noqa: E731 - hashed when they are asked for
        return Recommendations(*ids, keys, self.made[rows], self.cosine.take(rows), own)


Payer = Callable[[Recommendations, dict[str, Any]], tuple[Any, Any]]
"""A reward wrapper's part in a step: an environment calls it with what it recommends, before it changes anything.

It takes the recommendations and the entries of ``info`` that explain the environment's own reward, and adds those that
explain its own. It returns the rewards, and whether a decision ends the episode: two numbers in a single environment,
arrays (n,) in a vector environment."""


class RecommendationProblem:
    """Draws applicants and candidates and makes observations; holds tables, never the state of an episode.

    Arguments are those of :class:`~jobrec_gym.env.JobRecEnv`.

    Attributes:
        noise_of: A function of interaction keys (n,) that gives the noise of the answers, float64 (n,). ``None`` if the
            noise cannot be computed ahead or nobody is asked.
    """

    noise_of: Callable[[NDArray[np.uint64]], NDArray[np.float64]] | None = None

    def __init__(
        self,
        market: MarketSpec | os.PathLike[str] | LabourMarket,
        split: Split,
        job_split: Split,
        num_candidates: int,
        candidate_sampler: str | CandidateSampler,
        resample: Resample,
        repeats: bool,
        observation: Observation,
        mask_in_observation: bool,
        job_fields: Sequence[str],
        pair_features: Sequence[str] = (),
        pair_noise: float = 0.0,
        prior_sources: Mapping[str, Any] | None = None,
    ):
        for name, value, allowed in (
            ("resample", resample, get_args(Resample)),
            ("observation", observation, get_args(Observation)),
        ):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {value!r}.")
        self.market = load_market(market)
        self.applicant_ids = _split_rows(self.market, "split", "applicants", split)
        self.job_ids = _split_rows(self.market, "job_split", "jobs", job_split)
        sampler = make_sampler(candidate_sampler)
        n_jobs = len(self.job_ids)
        if isinstance(num_candidates, bool) or not isinstance(num_candidates, (int, np.integer)):
            raise ValueError(f"`num_candidates` must be an integer, got {num_candidates!r}.")
        if not getattr(sampler, "has_own_size", False) and not 1 <= num_candidates <= n_jobs:
            raise ValueError(
                f"`num_candidates` must be in [1, n_jobs={n_jobs}], got {num_candidates}; n_jobs counts the jobs of "
                f"`job_split={job_split!r}`: {_sizes(self.market.jobs.held_out)}. Show at most "
                f"`num_candidates={n_jobs}`, or choose from all jobs by `job_split='all'`."
            )
        self.sampler = sampler.bind(self.market, self.job_ids, int(num_candidates))
        self.num_candidates = int(self.sampler.num_candidates)
        check_sampler(self.sampler, np.resize(self.applicant_ids[:2], 2), self.job_ids)
        self.resample = resample
        self.repeats = require_flag("repeats", repeats)
        self.observation = observation
        self.mask_in_observation = require_flag("mask_in_observation", mask_in_observation) or not self.repeats
        if isinstance(job_fields, str) or not isinstance(job_fields, Sequence):
            example = job_fields if isinstance(job_fields, str) else "title"
            raise ValueError(f"`job_fields` must be a sequence of fields, e.g. [{example!r}], got {job_fields!r:.80}.")
        self.job_fields = tuple(job_fields)
        self.market.action_features(self.job_fields)  # checks the fields
        self.pair_values = PairValues(self.market, pair_features, pair_noise)
        # An empty mapping means the same as None: no sources. Any other value is checked by `SourcedPairValues`.
        if not (prior_sources is None or (isinstance(prior_sources, Mapping) and not prior_sources)):
            self.pair_values = SourcedPairValues(self.market, pair_features, pair_noise, prior_sources)

    @property
    def action_features(self) -> NDArray[np.floating]:
        """Table of job vectors (n_jobs, d_a). The market holds it, so copies and pickles of a problem stay small."""
        return self.market.action_features(self.job_fields)

    @property
    def prior_sources(self) -> dict[str, str]:
        """Columns of the pair values that are sources of a prior: name and description."""
        return self.pair_values.described if isinstance(self.pair_values, SourcedPairValues) else {}

    @property
    def source_settings(self) -> dict[str, str]:
        """What the answers of live language models among ``prior_sources`` depend on beside their descriptions."""
        return {} if self._live is None else self._live.settings

    @property
    def live_sources(self) -> list[LiveSource]:
        """The live models among ``prior_sources``."""
        return [] if self._live is None else self._live.live

    @property
    def _live(self) -> SourcedPairValues | None:
        """The pair values, if one of their sources is a live model."""
        values = self.pair_values
        return values if isinstance(values, SourcedPairValues) and values.is_live else None

    @property
    def asks_others(self) -> bool:
        """Whether a part that is not of this package may be asked, and fail, while an environment changes."""
        parts = (self.sampler, *self._own_parts())
        is_foreign = not all(type(part).__module__.startswith("jobrec_gym.") for part in parts)
        return is_foreign or isinstance(self.pair_values, SourcedPairValues)

    def _own_parts(self) -> tuple[Any, ...]:
        """Parts, beside the sampler, that an environment asks while it changes."""
        return ()

    @property
    def draws_ahead(self) -> bool:
        """Whether candidates are cheap enough to be drawn for episodes that may never begin."""
        return getattr(self.sampler, "is_cheap", False)

    @property
    def is_foreseeable(self) -> bool:
        """Whether an episode's candidates are known when it begins, and few enough to reward all of them ahead."""
        return self.resample == "episode" and self.num_candidates <= _FORESEEN

    def observation_space(self) -> spaces.Dict:
        """The space of one observation."""
        state_dim, action_dim = self.market.applicants.vectors.shape[1], self.action_features.shape[1]
        k = self.num_candidates
        entries: dict[str, spaces.Space[Any]] = {"applicant": spaces.Box(-1.0, 1.0, (state_dim,), np.float32)}
        if self.observation == "features":
            entries["candidates"] = spaces.Box(-1.0, 1.0, (k, action_dim), np.float32)
        else:
            entries["candidates"] = spaces.Box(0, len(self.market.jobs) - 1, (k,), np.int64)
        if self.pair_values.names:
            entries["pairs"] = spaces.Box(0.0, 1.0, (k, len(self.pair_values.names)), np.float32)
        if self.mask_in_observation:
            entries["action_mask"] = spaces.Box(0, 1, (k,), np.int8)
        return spaces.Dict(entries)

    def action_space(self) -> spaces.Discrete:
        """The space of actions: which candidate."""
        return spaces.Discrete(self.num_candidates)

    def applicants(self, episodes: NDArray[np.uint64]) -> Ids:
        """Ids (n,) of the applicants of the episodes (n,)."""
        return self.applicant_ids[bounded(hash64(episodes, _APPLICANT), len(self.applicant_ids))]

    def candidates(self, applicant_ids: Ids, episodes: NDArray[np.uint64], steps: NDArray[np.int64]) -> Ids:
        """Job ids (n, k) that the applicants (n,) are shown after ``steps`` (n,) steps of the episodes (n,)."""
        if self.resample == "episode":
            steps = np.zeros_like(steps)
        candidate_ids = self.sampler.sample(applicant_ids, hash64(episodes, _CANDIDATES, steps))
        return np.asarray(candidate_ids, np.int64)

    def interaction_keys(
        self, episodes: NDArray[np.uint64] | int, steps: NDArray[np.int64] | int
    ) -> NDArray[np.uint64]:
        """Keys (n,) that the reward noise of steps ``steps`` (n,) is drawn from; steps are counted from 0."""
        return hash64(episodes, _INTERACTION, steps)

    def episode_keys(self, episodes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Keys (n,) of the episodes (n,), from which :meth:`keys_of_steps` computes interaction keys."""
        return hash64(episodes, _INTERACTION)

    def keys_of_steps(self, episode_keys: NDArray[np.uint64], steps: NDArray[np.int64]) -> NDArray[np.uint64]:
        """:meth:`interaction_keys` from the keys of the episodes (n,), where these are known already."""
        return rehash64(episode_keys, steps)

    def applicant_vectors(self, applicant_ids: Ids, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Vectors (..., 2 * block_dim) of applicants (...)."""
        return gathered(self.market.applicants.vectors, applicant_ids, out)

    def candidate_vectors(self, candidate_ids: Ids, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Vectors (..., d_a) of jobs (...)."""
        return gathered(self.action_features, candidate_ids, out)

    def pairs(self, applicant_ids: Ids, candidate_ids: Ids) -> NDArray[np.float32] | None:
        """Pair features (n, k, p) of applicants (n,) who are shown jobs (n, k); ``None`` where none are observed."""
        return self.pair_values(applicant_ids[:, None], candidate_ids) if self.pair_values.names else None

    def state_of_sources(self, pairs: NDArray[np.float32] | None) -> dict[str, Any]:
        """What live models among ``prior_sources`` add to the state of an environment that observes these ``pairs``.

        An entry in plain JSON, or nothing if no source is live.
        """
        if self._live is None or pairs is None:
            return {}
        return {_LIVE: {"asked": self.asked, "pairs": pairs.tolist()}}

    def stored_pairs(self, state: Mapping[str, Any]) -> NDArray[np.float32] | None:
        """The pair features (n, k, p) in an environment's state, so that live models need not be asked again.

        Nothing is changed.

        Returns:
            ``None`` if the state has none: no source is live, or the state is of an older version.

        Raises:
            ValueError: If the state was saved with live sources whose names are not those of the live sources here.
        """
        if _LIVE not in state:
            return None
        theirs = sorted(state[_LIVE]["asked"])
        ours = sorted(self.asked)
        if theirs != ours:
            raise ValueError(
                f"`state` is of the live prior sources {theirs}, and those here are {ours}: give the environment the "
                "`prior_sources` that it had."
            )
        return np.array(state[_LIVE]["pairs"], dtype=np.float32)

    @property
    def asked(self) -> dict[str, Any]:
        """What changes as live models among ``prior_sources`` are asked; empty if no source is live."""
        return {} if self._live is None else self._live.get_state()

    @asked.setter
    def asked(self, asked: Mapping[str, Any]) -> None:
        if self._live is not None:
            self._live.set_state(asked)

    def restore_sources(self, state: Mapping[str, Any]) -> None:
        """Restores live models from a state that :meth:`stored_pairs` takes."""
        if _LIVE in state:
            self.asked = state[_LIVE]["asked"]

    def begun(
        self, applicant_ids: Ids, candidate_ids: Ids
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Observed progress (n, m) and pair features (n, k, p) where an episode begins with jobs (n, k).

        ``None`` stands for what is not observed.
        """
        return None, self.pairs(applicant_ids, candidate_ids)

    def observation_sample(self) -> dict[str, NDArray[Any]]:
        """The first observations (n, ...) of at most 1,000 fixed episodes, with at most 20,000 candidates in all.

        n is 0 if one of ``prior_sources`` is a live model.
        """
        n = max(1, min(_SAMPLED_EPISODES, _SAMPLED_PAIRS // self.num_candidates))
        if self._live is not None:
            n = 0  # a live model is asked only about pairs that are shown
        episodes = hash64(_SAMPLE, np.arange(n))
        applicant_ids = self.applicants(episodes)
        candidate_ids = self.candidates(applicant_ids, episodes, np.zeros(n, np.int64))[:, :_SAMPLED_PAIRS]
        progress, pairs = self.begun(applicant_ids, candidate_ids)
        observation = self.observe(self.applicant_vectors(applicant_ids), candidate_ids, pairs)
        if progress is not None:
            observation["progress"] = progress
        if self.mask_in_observation:
            observation["action_mask"] = np.ones(candidate_ids.shape, np.int8)
        return observation

    def observe(
        self, applicant_vectors: NDArray[np.float32], candidate_ids: Ids, pairs: NDArray[np.float32] | None
    ) -> dict[str, NDArray[Any]]:
        """An observation without its mask, of applicants with vectors (..., 2 * block_dim) who are shown jobs (..., k).

        ``pairs`` (..., k, p) are the features from :meth:`pairs`. The arrays belong to the caller; the tables are
        shared by all environments.
        """
        shown = self.candidate_vectors(candidate_ids) if self.observation == "features" else candidate_ids.copy()
        observation: dict[str, NDArray[Any]] = {"applicant": applicant_vectors.copy(), "candidates": shown}
        if pairs is not None:
            observation["pairs"] = pairs.copy()
        return observation


@dataclass(eq=False)
class UndoneOnError:
    """A block after whose exception an environment has its earlier attributes, and live models their earlier states.

    It does not undo changes within an array.

    Args:
        env: The environment.
        problem: Its problem.
    """

    __slots__ = ("_asked", "_attributes", "_env", "_problem")

    def __init__(self, env: object, problem: RecommendationProblem):
        self._env, self._problem = env, problem

    def __enter__(self) -> None:
        self._attributes, self._asked = dict(vars(self._env)), self._problem.asked

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._env.__dict__ = self._attributes
            self._problem.asked = self._asked


class JobRecSpec(EnvSpec):
    """An ``EnvSpec`` whose arguments are plain JSON where possible: a market is written as its name or path."""

    @classmethod
    def of(cls, spec: EnvSpec) -> JobRecSpec:
        """The same spec with plain arguments."""
        values = {item.name: getattr(spec, item.name) for item in dataclasses.fields(EnvSpec) if item.init}
        values["kwargs"] = _plain(spec.kwargs)
        return cls(**values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EnvSpec):
            return NotImplemented
        return all(_same(getattr(self, item.name), getattr(other, item.name)) for item in dataclasses.fields(EnvSpec))

    __hash__ = None  # type: ignore[assignment]  # as EnvSpec's

    def to_json(self) -> str:
        """The spec as JSON.

        Raises:
            ValueError: If an argument has no JSON form, such as a market made in memory: save it first.
        """
        parts = {f"`{key}`": value for key, value in self.kwargs.items()}
        for wrapper in self.additional_wrappers:
            parts |= {f"`{key}` of {wrapper.name}": value for key, value in (wrapper.kwargs or {}).items()}
        for name, value in parts.items():
            if isinstance(value, LabourMarket):
                value.to_spec()
            try:
                json.dumps(value)
            except TypeError as error:
                raise ValueError(
                    f"{name} cannot be written down as JSON: {value!r}. Pass its plain form (a name, a path or a "
                    "spec), or give its class `to_spec()`."
                ) from error
        return super().to_json()


def _plain(value: Any) -> Any:
    """Arguments in plain JSON, as far as they have such a form."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, np.generic):
        return value.item()
    if callable(getattr(value, "to_spec", None)) and not isinstance(value, type):
        with contextlib.suppress(ValueError):
            return _plain(value.to_spec())
    return value


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments are equal, arrays in them included: for these ``==`` gives an array."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        if type(one) is not type(other):
            return False
        return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, WrapperSpec) and isinstance(other, WrapperSpec):
        return _same(vars(one), vars(other))
    if isinstance(one, (list, tuple)) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _sizes(held_out: NDArray[np.bool_]) -> str:
    """How many rows each split has, in words."""
    n_test = int(np.count_nonzero(held_out))
    return f"there are {len(held_out) - n_test:,} of train, {n_test:,} of test, {len(held_out):,} in all"


def _split_rows(market: LabourMarket, name: str, side: str, split: Split) -> Ids:
    try:
        rows = getattr(market, side).rows(split)
    except ValueError as error:
        raise ValueError(str(error).replace("`split`", f"`{name}`")) from None
    if len(rows) == 0:
        raise MarketError(
            f"market {market.name!r} has no {side} in `{name}={split!r}`; use another split, e.g. `{name}='all'`."
        )
    return rows
