"""A Gymnasium VectorEnv as an SB3 VecEnv."""

from __future__ import annotations

import copy
import importlib
import inspect
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, load_env_creator, parse_env_id
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from dynaq_algo.arguments import require_whole
from dynaq_algo.layout import CANDIDATES, PROGRESS, CandidateLayout, DecisionBatch

__all__ = [
    "GymnasiumVecEnv",
    "as_vec_env",
    "attribute_of",
    "infos_of_each",
    "make_sb3_vec_env",
    "observation_sample_of",
    "refuse_normalised_observations",
    "refuse_other_observations",
    "table_of",
    "what_is_read",
]


class GymnasiumVecEnv(VecEnv):
    """Lets any SB3 algorithm train on a vectorised Gymnasium environment.

    As in SB3, `infos[i]["terminal_observation"]` is the last observation of an ended episode, and
    `infos[i]["TimeLimit.truncated"]` says whether only time ended it. After the last step of an
    episode `infos[i]` is the info of that step, and `reset_infos[i]` is the info of the reset.

    Args:
        vector_env: Gymnasium VectorEnv in SAME_STEP autoreset mode.
        monitor: Report each episode as `infos[i]["episode"]` with its return `r`, length `l` and time `t` in seconds.

    Raises:
        TypeError: If it is not a Gymnasium VectorEnv.
        ValueError: If it has another autoreset mode.

    Example:
        >>> from stable_baselines3 import DQN
        >>> envs = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync",
        ...     vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP})
        >>> model = DQN("MlpPolicy", GymnasiumVecEnv(envs))
    """

    def __init__(self, vector_env: VectorEnv, monitor: bool = True):
        if not isinstance(vector_env, VectorEnv):
            raise TypeError(
                f"`vector_env` must be a gymnasium.vector.VectorEnv, got {type(vector_env).__name__}. "
                "SB3 takes a single environment as it is."
            )
        mode = vector_env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.SAME_STEP.value):
            raise ValueError(
                f"`vector_env` must reset in SAME_STEP autoreset mode, as SB3 does, got {mode}. Make it with "
                '`autoreset_mode=AutoresetMode.SAME_STEP` (`gym.make_vec(..., vectorization_mode="sync", '
                'vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP})`).'
            )
        self.vector_env = vector_env
        self.monitor = monitor
        self.episode_returns = np.zeros(vector_env.num_envs)
        self.episode_lengths = np.zeros(vector_env.num_envs, np.int64)
        self._t_start = time.time()
        self._actions: np.ndarray | None = None
        # The observation of the last step, as `vector_env` gave it; None after a reset.
        self._given: Any = None
        super().__init__(vector_env.num_envs, vector_env.single_observation_space, vector_env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset all environments, with the seeds and options that were set."""
        first = self._seeds[0]
        seed: Any = None
        if first is not None:
            consecutive = self._seeds == [first + i for i in range(self.num_envs)]
            seed = first if consecutive else list(self._seeds)
        obs, infos = self.vector_env.reset(seed=seed, options=self._options[0] or None)
        self.reset_infos = _split_infos(infos, self.num_envs)
        self.episode_returns[:] = 0
        self.episode_lengths[:] = 0
        self._reset_seeds()
        self._reset_options()
        self._given = None
        return copy.deepcopy(obs)

    def set_options(self, options: list[dict] | dict | None = None) -> None:
        """Set the options of the next reset.

        Args:
            options: One dict, as `reset` of the vector environment takes it, or a list of one dict for each
                environment. Each option of a list becomes an array with a row for each environment. `SyncVectorEnv`
                and `AsyncVectorEnv` give all environments the same dict, so there the dicts of a list must be equal.

        Raises:
            ValueError: If the dicts of a list cannot be joined. The options that were set before then stay.
        """
        super().set_options(self._joined(options) if isinstance(options, (list, tuple)) else options)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments. Those that end are reset in the same step."""
        obs, rewards, terminations, truncations, infos = self.vector_env.step(self._actions)
        dones = np.logical_or(terminations, truncations)
        rewards = np.asarray(rewards, np.float32)
        result, finals = _of_step_and_reset(infos, self.num_envs)
        for i in np.flatnonzero(dones).tolist():
            self.reset_infos[i], result[i] = result[i], finals[i]
            result[i]["terminal_observation"] = _row(infos.get("final_obs"), i)
        for info, limit in zip(result, np.logical_and(truncations, ~np.asarray(terminations)).tolist(), strict=True):
            info["TimeLimit.truncated"] = limit
        if self.monitor:
            self._report_episodes(rewards, dones, result)
        return self._not_written_again(obs), rewards, dones, result

    def close(self) -> None:
        """Close the vector environment."""
        self.vector_env.close()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset: environment i gets seed + i. None gives fresh entropy, not from the global generator.

        Raises:
            ValueError: If the seed is not a whole number of 0 or more.
        """
        if seed is None:
            self._reset_seeds()
        else:
            first = require_whole("seed", seed, 0)
            self._seeds = [first + i for i in range(self.num_envs)]
        return self._seeds

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture of each environment."""
        frames: Any = self.vector_env.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of the outermost vector layer that has it, repeated. Without one, that of each environment.

        Raises:
            AttributeError: If no layer and no environment has it.
        """
        rows = list(self._get_indices(indices))
        for layer in self._layers():
            if _has(layer, attr_name):
                return [getattr(layer, attr_name)] * len(rows)
        base: Any = self.vector_env.unwrapped
        if isinstance(base, (SyncVectorEnv, AsyncVectorEnv)):
            # The `get_attr` of these two classes would call a method, not return it.
            values = base.call("get_wrapper_attr", attr_name)
        elif hasattr(base, "get_attr"):
            values = base.get_attr(attr_name)
        else:
            raise AttributeError(f"Neither {self.vector_env} nor a layer within has an attribute {attr_name!r}.")
        return [values[i] for i in rows]

    def has_attr(self, attr_name: str) -> bool:
        """Whether :meth:`get_attr` finds the attribute."""
        base: Any = self.vector_env.unwrapped
        if isinstance(base, (SyncVectorEnv, AsyncVectorEnv)) and not any(
            _has(layer, attr_name) for layer in self._layers()
        ):
            # An environment in another process ends if it is asked for an attribute that it lacks.
            return all(base.call("has_wrapper_attr", attr_name))
        return super().has_attr(attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute where :meth:`get_attr` finds it.

        Raises:
            ValueError: If `indices` names only some environments, because a vector layer has one value for all.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError("`indices` must be None: a vector environment has one value for all its environments.")
        base: Any = self.vector_env.unwrapped
        for layer in self._layers():
            if _has(layer, attr_name):
                setattr(layer, attr_name, value)
                return
        if hasattr(base, "set_attr"):
            base.set_attr(attr_name, value)
        else:
            setattr(base, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call the method once on the outermost vector layer that has it; else on each single environment.

        A result of a vector layer with one entry per environment (an array, list or tuple) is split; any other is
        repeated. If there are arguments the result is always repeated, because it then answers the arguments: its
        length says nothing about the environments.

        Raises:
            AttributeError: If no layer and no environment has it.
        """
        rows = list(self._get_indices(indices))
        base: Any = self.vector_env.unwrapped
        for layer in self._layers():
            if _has(layer, method_name):
                result = getattr(layer, method_name)(*method_args, **method_kwargs)
                is_row = isinstance(result, (np.ndarray, list, tuple)) and len(result) == self.num_envs
                split = is_row and not (method_args or method_kwargs)
                return [result[i] if split else result for i in rows]
        if hasattr(base, "call"):
            results = base.call(method_name, *method_args, **method_kwargs)
            return [results[i] for i in rows]
        raise AttributeError(f"Neither {self.vector_env} nor a layer within has a method {method_name!r}.")

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """Whether a vector layer is of this class. With `monitor=True`, SB3's Monitor counts as a layer."""
        wrapped = any(isinstance(layer, wrapper_class) for layer in self._layers())
        wrapped = wrapped or (self.monitor and issubclass(Monitor, wrapper_class))
        return [wrapped for _ in self._get_indices(indices)]

    def _not_written_again(self, obs: Any) -> Any:
        """The observation of a step. It is copied if `vector_env` may give the next step in the same arrays.

        An agent stores an observation after the next step, when an environment that reuses its arrays
        (`SyncVectorEnv(copy=False)`) has already overwritten them.
        """
        last, self._given = self._given, obs
        earlier = list(_arrays(last))
        is_new = last is not None and not any(np.may_share_memory(a, b) for a in _arrays(obs) for b in earlier)
        return obs if is_new else copy.deepcopy(obs)

    def _joined(self, each: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Options of each environment as the one dict that `vector_env` takes."""
        if len(each) != self.num_envs:
            raise ValueError(
                f"`options` must be one dict or a list of {self.num_envs}, one for each environment, got {len(each)}."
            )
        first = each[0]
        if isinstance(self.vector_env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)):
            if all(_same(first, other) for other in each):
                return first
            raise ValueError(
                f"`options` must be equal for all environments of {self.vector_env}, which gives each of them the same "
                "dict. Make a DummyVecEnv or SubprocVecEnv to choose options for each."
            )
        for other in each:
            if other.keys() != first.keys():
                raise ValueError(
                    "`options` must set the same options in every environment, got "
                    f"{sorted(first)!r:.80} in one and {sorted(other)!r:.80} in another."
                )
        return {name: _stacked(name, [options[name] for options in each]) for name in first}

    def _layers(self) -> Iterator[VectorEnv]:
        layer: Any = self.vector_env
        while layer is not None:
            yield layer
            layer = vars(layer).get("env")

    def _report_episodes(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        self.episode_returns += rewards
        self.episode_lengths += 1
        for i in np.flatnonzero(dones).tolist():
            infos[i]["episode"] = {
                "r": round(float(self.episode_returns[i]), 6),
                "l": int(self.episode_lengths[i]),
                "t": round(time.time() - self._t_start, 6),
            }
        self.episode_returns[dones] = 0
        self.episode_lengths[dones] = 0


def make_sb3_vec_env(
    env_id: str | EnvSpec,
    n_envs: int = 1,
    seed: int | None = None,
    *,
    wrapper: Callable[[VectorEnv], VectorEnv] | None = None,
    monitor: bool = True,
    **kwargs: Any,
) -> GymnasiumVecEnv:
    """Make several environments of one id as an SB3 `VecEnv`, with the id's own vector environment if it has one.

    If the id has none, or one that cannot reset in the same step, the result is a loop over single environments.

    This function takes the place of :func:`stable_baselines3.common.env_util.make_vec_env`, which always loops over
    single environments.

    Args:
        env_id: A registered id, or its specification. The module may stand before an id (`"jobrec_gym:JobRec-v0"`). An
            id without a version means the latest one.
        n_envs: Number of environments.
        seed: Seed of the first reset: environment i gets seed + i.
        wrapper: Wrapper around the vector environment, such as the vector form of a reward wrapper.
        monitor: See :class:`GymnasiumVecEnv`.
        **kwargs: Arguments of the environment.

    Raises:
        gymnasium.error.NameNotFound: If no such id is registered.
        ValueError: If an argument of `gym.make_vec` is given that this function sets itself.

    Example:
        >>> envs = make_sb3_vec_env("CartPole-v1", 4, seed=0)
        >>> envs.reset().shape
        (4, 4)
    """
    if refused := sorted({"autoreset_mode", "vectorization_mode", "vector_kwargs", "wrappers"} & kwargs.keys()):
        raise ValueError(
            f"{refused} are not arguments here: SB3 needs environments that reset in the same step, and this function "
            "sees to that. To set them yourself use `gym.make_vec`, and wrap the result in `GymnasiumVecEnv`."
        )
    spec = env_id if isinstance(env_id, EnvSpec) else _spec_of(env_id)
    if _can_reset_at_once(spec):
        envs = gym.make_vec(spec, n_envs, autoreset_mode=AutoresetMode.SAME_STEP.value, **kwargs)
    else:
        sync = {"autoreset_mode": AutoresetMode.SAME_STEP}
        envs = gym.make_vec(spec, n_envs, vectorization_mode="sync", vector_kwargs=sync, **kwargs)
    vec_env = GymnasiumVecEnv(envs if wrapper is None else wrapper(envs), monitor)
    vec_env.seed(seed)
    return vec_env


def as_vec_env(env: gym.Env | VectorEnv | VecEnv | str, monitor: bool = True) -> VecEnv:
    """Any kind of environment as an SB3 `VecEnv`.

    Args:
        env: Single environment, its id, VectorEnv (in SAME_STEP autoreset mode), or VecEnv, which is returned as it is.
        monitor: Report each episode in the `info` of its last step, as SB3's `Monitor` does.

    Raises:
        TypeError: For anything else.
    """
    if isinstance(env, VecEnv):
        return env
    if isinstance(env, str):
        return make_sb3_vec_env(env, monitor=monitor)
    if isinstance(env, VectorEnv):
        return GymnasiumVecEnv(env, monitor)
    if isinstance(env, gym.Env):
        return DummyVecEnv([lambda: Monitor(env) if monitor and not is_wrapped(env, Monitor) else env])
    raise TypeError(
        f"`env` must be a Gymnasium environment or its id, a Gymnasium VectorEnv or an SB3 VecEnv, got "
        f"{type(env).__name__}."
    )


def infos_of_each(info: Any, n: int) -> list[Mapping[str, Any]]:
    """The infos of n steps.

    Args:
        info: One info for each step; one info for all; the `infos` of a Gymnasium VectorEnv, whose entries are columns
            with masks `_key`; or None. If an environment was reset in the same step, the info of the step is returned,
            not that of the reset. As in SB3, it then has the last observation of the episode,
            `terminal_observation`.
        n: How many steps.

    Raises:
        ValueError: If `info` is none of these.
    """
    masks = [f"_{key}" for key in info if f"_{key}" in info] if isinstance(info, Mapping) else []
    if masks:
        if (n_rows := len(info[masks[0]])) != n:
            raise ValueError(f"`info` must have {n} rows, as `observation` has, got {n_rows}.")
        rows, finals = _of_step_and_reset(info, n)
        ended = info.get("_final_info", np.zeros(n, bool))
        for i in np.flatnonzero(info.get("_final_obs", False)).tolist():
            finals[i]["terminal_observation"] = rows[i]["terminal_observation"] = _row(info["final_obs"], i)
        return [final if is_end else row for row, final, is_end in zip(rows, finals, ended, strict=True)]
    each = [info] * n if info is None or isinstance(info, Mapping) else list(info)
    for one in each:
        if one is not None and not isinstance(one, Mapping):
            raise ValueError(
                "`info` must be a dict for each answer, one dict for all, or the `infos` of a Gymnasium VectorEnv, got "
                f"{type(one).__name__} among them. Leave it out where there is none."
            )
    return [{} if one is None else one for one in each]


def table_of(env: VecEnv) -> np.ndarray | None:
    """The environments' attribute `action_features`; None if they have none."""
    return attribute_of(env, "action_features")


def observation_sample_of(env: VecEnv, layout: CandidateLayout) -> DecisionBatch | None:
    """The environments' attribute `observation_sample`: n decisions that show the scale of an observation's numbers.

    None if they have no such attribute, or if it is empty. None, too, if an observation wrapper may change
    observations, because the sample does not pass through wrappers. None with a warning if the sample does not have the
    entries and shapes of their observations.
    """
    if _may_change_observations(env):
        return None
    sample = attribute_of(env, "observation_sample")
    if sample is None or (isinstance(sample, Mapping) and not len(sample.get(CANDIDATES, [0]))):
        return None
    try:
        if layout.is_batch(sample):
            return layout.read(sample)
        problem = "It must be a batch, entries with n rows, and is one observation."
    except ValueError as error:
        problem = str(error)
    warnings.warn(f"`observation_sample` of the environments is not used. {problem}", stacklevel=2)
    return None


def _may_change_observations(env: VecEnv) -> bool:
    """Whether an observation wrapper of Gymnasium is, or may be, around the first environment."""
    if isinstance(env.unwrapped, GymnasiumVecEnv):
        # Gymnasium's own observation wrappers of vectors do not take the autoreset mode that is needed here.
        within = env.unwrapped.vector_env.unwrapped
        if isinstance(within, AsyncVectorEnv):
            return True  # environments in other processes do not tell their wrappers
        return isinstance(within, SyncVectorEnv) and is_wrapped(within.envs[0], gym.ObservationWrapper)
    return any(env.env_is_wrapped(gym.ObservationWrapper, indices=0))


def attribute_of(env: VecEnv, name: str) -> Any:
    """An attribute of the first environment, which stands for all; None if there is no such attribute."""
    base = env.unwrapped
    within = base.vector_env.unwrapped if isinstance(base, GymnasiumVecEnv) else base
    if isinstance(within, (SubprocVecEnv, AsyncVectorEnv)):
        # `has_attr` first: an environment in another process ends if it is asked for an attribute that it lacks.
        return env.get_attr(name, indices=0)[0] if env.has_attr(name) else None
    try:  # `has_attr` would compute the attribute of every environment
        return env.get_attr(name, indices=0)[0]
    except AttributeError:
        return None


def what_is_read(env: VecEnv) -> dict[str, Any]:
    """The parts of an observation that an agent on these environments reads, in plain JSON.

    Returns:
        A dictionary with these entries:

        * `observation`: `"ids"` or `"features"`;
        * `candidate_dim`: how many numbers a candidate has; None for ids;
        * `entries`: all other entries by name, with the shape of a Box, or a description of another space;
        * `pairs`: the names of the columns of `pairs` if the environments give them (`pair_feature_names`), else their
          number; None if there are none;
        * `progress`: the names of the columns of the entry `progress`, if the environments give them
          (`progress_names`). Agents that were saved by earlier versions lack this entry, and then it is not compared;
        * `job_fields`: if the environments have this attribute;
        * `prior_sources`: if the environments name sources of a prior among the columns of `pairs`, a description of
          each by name;
        * `source_settings`: if there are language models among these sources and the environments say how they ask
          them. Agents that were saved by earlier versions lack this entry, and then it is not compared.

        The numbers of candidates and of actions are left out, because they may change.
    """
    space = env.observation_space
    if not isinstance(space, spaces.Dict) or "candidates" not in space.spaces:
        return {}
    candidates, pairs = space["candidates"], space.spaces.get("pairs")
    _, *behind = candidates.shape or ()
    others = {"candidates", "pairs", "action_mask"}
    read: dict[str, Any] = {
        "observation": "features" if behind else "ids",
        "candidate_dim": behind[0] if behind else None,
        "entries": {key: _kind_of(part) for key, part in space.spaces.items() if key not in others},
        "pairs": None,
    }
    if pairs is not None:
        names = attribute_of(env, "pair_feature_names")
        read["pairs"] = list(names) if names else (pairs.shape or (0, 0))[1]
    if (progress := space.spaces.get(PROGRESS)) is not None and (names := attribute_of(env, "progress_names")):
        # Names of another number of columns are those beneath a wrapper that changes `progress`.
        read |= {"progress": list(names)} if progress.shape == (len(names),) else {}
    fields = attribute_of(env, "job_fields")
    if fields is not None:
        read["job_fields"] = list(fields)
    if sources := attribute_of(env, "prior_sources"):
        read["prior_sources"] = dict(sources)
    if settings := attribute_of(env, "source_settings"):
        read["source_settings"] = dict(settings)
    return read


def refuse_other_observations(reads: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Refuse an environment that does not show what an agent reads.

    `reads` and `shown` have the form that :func:`what_is_read` returns.

    Raises:
        ValueError: If an entry differs, or the entries of the observation have another order.
    """
    for name in reads:
        if shown.get(name) != reads[name]:
            raise ValueError(
                f"`env` must show what the agent was trained to read: `{name:.80}` was {reads[name]!r:.200}, and is "
                f"{shown.get(name)!r:.200} here. Make the environment with the arguments of training, or train a new "
                "agent."
            )
    # The state is the entries one after another, so in another order the same columns would mean something else.
    before, now = (list(read.get("entries", ())) for read in (reads, shown))
    if "entries" in reads and before != now:
        raise ValueError(
            f"`env` must show the entries of the observation in the order of training, {before!r:.200}, got "
            f"{now!r:.200}. Give its space that order, `Dict([(name, space), ...])`: a plain dictionary is sorted."
        )


def refuse_normalised_observations(env: VecEnv) -> None:
    """Refuse a `VecNormalize` that changes observations.

    Raises:
        ValueError: If `env` has such a wrapper.
    """
    normalize = unwrap_vec_normalize(env)
    if normalize is not None and normalize.norm_obs:
        raise ValueError(
            "VecNormalize must be made with `norm_obs=False` here, got True: vectors are stored once by content, so "
            "they must not change with running statistics. Normalise the environment's own vectors, or rewards only."
        )


def _kind_of(space: spaces.Space) -> list[int] | str:
    """The shape of a Box, whose bounds no agent reads, or the full description of any other space."""
    return list(space.shape) if isinstance(space, spaces.Box) else str(space)


def _spec_of(env_id: str) -> EnvSpec:
    """The specification registered under an id. An id without a version means the highest one, as in `gym.make`."""
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    namespace, base, version = parse_env_id(name)
    if version is None and (version := find_highest_version(namespace, base)) is not None:
        name = get_env_id(namespace, base, version)
    return gym.spec(name)


def _can_reset_at_once(spec: EnvSpec) -> bool:
    """Whether the id's own vector environment takes `autoreset_mode`. Many can only reset in the next step."""
    entry_point: Any = spec.vector_entry_point
    if entry_point is None:
        return False
    make = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return "autoreset_mode" in inspect.signature(make).parameters


def _same(one: Any, other: Any) -> bool:
    """Whether two options are equal, arrays in them included."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):  # rows need not be of equal length
        return len(one) == len(other) and all(map(_same, one, other))
    return one is other or np.array_equal(one, other)


def _stacked(name: str, values: Sequence[Any]) -> np.ndarray:
    """An option's values in n environments as the rows of one array."""
    shapes = {np.shape(value) for value in values}
    if len(shapes) > 1:
        raise ValueError(f"`options[{name!r}]` must have the same shape in every environment, got {sorted(shapes)}.")
    return np.stack(values)


def _has(layer: Any, name: str) -> bool:
    """Whether the layer itself has an attribute. One that a wrapper passes on from within does not count."""
    return name in vars(layer) or hasattr(type(layer), name)


def _arrays(obs: Any) -> Iterator[np.ndarray]:
    """The arrays of an observation, which may be nested."""
    if isinstance(obs, np.ndarray):
        yield obs
    elif isinstance(obs, (Mapping, tuple, list)):
        for part in obs.values() if isinstance(obs, Mapping) else obs:
            yield from _arrays(part)


def _row(obs: Any, i: int) -> Any:
    """Observation i of an object array of observations, or of a dict of arrays."""
    return {key: value[i] for key, value in obs.items()} if isinstance(obs, Mapping) else obs[i]


def _of_step_and_reset(infos: Mapping[str, Any], n: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Gymnasium's infos of a step, one dict per environment in each of two lists.

    The first list has the infos that came with the step. For an ended episode they are those of the reset, and the
    second list has the info of the episode's last step. The other dicts of the second list are empty.
    """
    others = {key: values for key, values in infos.items() if key.removeprefix("_") not in ("final_obs", "final_info")}
    return _split_infos(others, n), _split_infos(infos.get("final_info") or {}, n)


def _split_infos(infos: Mapping[str, Any], n: int) -> list[dict[str, Any]]:
    """Gymnasium's infos, which are columns with masks `_key`, as one dict per environment. Nested dicts too."""
    rows: list[dict[str, Any]] = [{} for _ in range(n)]
    for key, values in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        mask = infos.get(f"_{key}")
        present: Iterable[int] = range(n) if mask is None else np.flatnonzero(mask).tolist()
        column: Any
        if isinstance(values, Mapping):
            column = _split_infos(values, n)
        elif isinstance(values, np.ndarray) and values.ndim == 1:
            column = values.tolist()
        elif isinstance(values, (np.ndarray, list, tuple)) and len(values) == n:
            # A copy, because the environment may write into its array again.
            column = values.copy() if isinstance(values, np.ndarray) else values
        else:
            column = [values] * n
        for i in present:
            rows[i][key] = column[i]
    return rows
