"""Reward wrappers with their vector twins, and an action wrapper for continuous job vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from jobrec_gym.env import JobRecEnv
from jobrec_gym.market import LabourMarket
from jobrec_gym.problem import Recommendations
from jobrec_gym.rewards import CosineRewardModel, CosineScale, FeedbackRewardModel, RewardModel
from jobrec_gym.simulators.base import DECISIONS, SimulatorSpec, UserSimulator, make_simulator, simulator_spec
from jobrec_gym.vector import JobRecVectorEnv

__all__ = ["CosineReward", "EmbeddingAction", "FeedbackReward", "VectorCosineReward", "VectorFeedbackReward"]

Obs = dict[str, NDArray[Any]]


class _RewardWrapper(gym.Wrapper[Obs, int, Obs, int]):
    """Replaces the reward by that of a reward model and writes down how it came about."""

    def __init__(self, env: gym.Env[Obs, int], model: RewardModel, terminate_on: Sequence[str] = ()):
        super().__init__(env)
        _refuse_second(env)
        self._model = model
        self._terminate_on = _decisions(terminate_on)
        self._sums: dict[str, float] = {}

    @property
    def reward_model(self) -> RewardModel:
        """What pays."""
        return self._model

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Starts an episode and its sums."""
        self._sums = {}
        return self.env.reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Recommends, and pays what the reward model says."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        made: Recommendations = self.unwrapped.recommendations  # type: ignore[attr-defined]
        if not made.made[0]:  # a wrapper beneath started a new episode instead
            self._sums = {}
            return obs, float(reward), terminated, truncated, info
        batch = self._model(made.applicant_ids, made.job_ids, made.interaction_keys)
        components = {name: float(values[0]) for name, values in batch.components.items()}
        info.update({f"reward/{name}": value for name, value in components.items()})
        info.update(
            {key: values[0].item() if values.dtype.kind == "U" else values[0] for key, values in batch.details.items()}
        )
        info["reward_components"] = components
        info["transition_valid"] = bool(info["transition_valid"] and batch.valid[0])
        for name, value in components.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if self._terminate_on and batch.decision is not None:
            terminated = terminated or batch.decision[0] in self._terminate_on
        if terminated or truncated:
            info.update({f"episode_sum/{name}": value for name, value in self._sums.items()})
        return obs, float(batch.reward[0]), terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """This wrapper's own part of where the environment stands, in plain JSON."""
        return {"sums": dict(self._sums)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts this wrapper where :meth:`get_state` was called."""
        self._sums = dict(state["sums"])


class CosineReward(_RewardWrapper, RecordConstructorArgs):
    """Pays the cosine similarity of applicant and job, in [0, 1] or raw.

    ``info["reward/cosine"]`` has it, and the last ``info`` of an episode its sum, ``episode_sum/cosine``.

    Args:
        env: A ``JobRec-v0``, wrapped or not.
        scale: ``"unit"``: ``(1 + c) / 2``; ``"raw"``: ``c``.

    Example:
        >>> env = CosineReward(gym.make("JobRec-v0"), scale="raw")
        >>> obs, info = env.reset(seed=0)
        >>> reward = env.step(0)[1]
    """

    def __init__(self, env: gym.Env[Obs, int], scale: CosineScale = "unit"):
        RecordConstructorArgs.__init__(self, scale=scale)
        _RewardWrapper.__init__(self, env, CosineRewardModel(_market(env), scale))


class FeedbackReward(_RewardWrapper, RecordConstructorArgs):
    """Pays what a simulated applicant's decision is worth.

    ``info`` has ``reward/feedback``, ``feedback/decision``, ``feedback/status``, ``feedback/reason``, and still
    ``reward/cosine``; the last ``info`` of an episode has the sums ``episode_sum/feedback`` and ``episode_sum/cosine``.

    Args:
        env: A ``JobRec-v0``, wrapped or not.
        simulator: Who decides: a ``UserSimulator`` or its spec.
        terminate_on: Decisions that end the episode, e.g. ``("apply",)``. Ending on success lowers the return at gamma
            > 0: an agent then learns to put success off.

    Raises:
        ValueError: For an object that is no simulator, or an unknown decision.

    Example:
        >>> env = FeedbackReward(gym.make("JobRec-v0"), RuleSimulator(seed=0))
        >>> obs, info = env.reset(seed=0)
        >>> env.step(0)[4]["feedback/decision"]
        'ignore'
    """

    def __init__(
        self, env: gym.Env[Obs, int], simulator: UserSimulator | SimulatorSpec, terminate_on: Sequence[str] = ()
    ):
        RecordConstructorArgs.__init__(
            self, simulator=simulator_spec(simulator), terminate_on=list(_decisions(terminate_on))
        )
        market = _market(env)
        model = FeedbackRewardModel(make_simulator(simulator).bind(market), market)
        _RewardWrapper.__init__(self, env, model, terminate_on)


class _VectorRewardWrapper(gym.vector.VectorWrapper):
    """The vector twin of :class:`_RewardWrapper`: asks the reward model once for all environments."""

    def __init__(self, env: gym.vector.VectorEnv, model: RewardModel, terminate_on: Sequence[str] = ()):
        super().__init__(env)
        _refuse_second(env)
        self._base: JobRecVectorEnv = env.unwrapped
        self._resets_at_once = self._base.autoreset_mode is AutoresetMode.SAME_STEP
        if terminate_on and self._resets_at_once and env.observation_space is not self._base.observation_space:
            raise ValueError(
                "`terminate_on` in same-step mode starts episodes whose observations no wrapper beneath has seen: put "
                "observation wrappers outside of this one, or use another `autoreset_mode`."
            )
        self._model = model
        self._terminate_on = _decisions(terminate_on)
        self._sums: dict[str, NDArray[np.float64]] = {}

    @property
    def reward_model(self) -> RewardModel:
        """What pays."""
        return self._model

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes and their sums."""
        rows = slice(None) if options is None or "reset_mask" not in options else options["reset_mask"]
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # a list is allowed
        for values in self._sums.values():
            values[rows] = 0.0
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Recommends, and pays what the reward model says."""
        obs, _, terminated, truncated, infos = self.env.step(actions)
        made = self._base.recommendations
        rows = made.made
        batch = self._model(made.applicant_ids[rows], made.job_ids[rows], made.interaction_keys[rows])
        components = {name: self._scatter(values, rows) for name, values in batch.components.items()}
        for name, values in components.items():
            self._base.add_step_info(infos, f"reward/{name}", values, rows)
        for key, entry in batch.details.items():
            self._base.add_step_info(infos, key, self._scatter(entry, rows), rows)
        self._base.add_step_info(infos, "reward_components", components, rows)
        valid = self._scatter(batch.valid, rows)
        self._base.add_step_info(infos, "transition_valid", valid, rows)
        self._add_up(components, rows)
        if self._terminate_on and batch.decision is not None:
            success = self._scatter(np.isin(batch.decision, self._terminate_on), rows)
            if success.any():
                begun = self._base.end_episodes(success, infos)
                obs = begun if self._resets_at_once else obs
                terminated = terminated | success
        ended = terminated | truncated
        for name, sums in self._sums.items():
            if ended.any():
                self._base.add_step_info(infos, f"episode_sum/{name}", sums, ended)
                sums[ended] = 0.0
        return obs, self._scatter(batch.reward, rows), terminated, truncated, infos

    def get_state(self) -> dict[str, Any]:
        """This wrapper's own part of where the environments stand."""
        return {"sums": {name: values.copy() for name, values in self._sums.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts this wrapper where :meth:`get_state` was called."""
        self._sums = {name: np.array(values, dtype=np.float64) for name, values in state["sums"].items()}

    def _scatter(self, values: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
        """Spreads the entries of the marked rows over all rows; others are 0, False or ``None``."""
        if rows.all():
            return values
        dtype = object if values.dtype.kind in "OU" else values.dtype
        full = np.full(self.num_envs, None if dtype is object else 0, dtype=dtype)
        full[rows] = values
        return full

    def _add_up(self, components: dict[str, NDArray[np.float64]], rows: NDArray[np.bool_]) -> None:
        for name, values in components.items():
            self._sums.setdefault(name, np.zeros(self.num_envs))[rows] += values[rows]


class VectorCosineReward(_VectorRewardWrapper, RecordConstructorArgs):
    """Pays the cosine similarity in a vector environment; the twin of :class:`CosineReward`.

    Args:
        env: A ``JobRecVectorEnv``, wrapped or not.
        scale: ``"unit"`` or ``"raw"``.
    """

    def __init__(self, env: gym.vector.VectorEnv, scale: CosineScale = "unit"):
        RecordConstructorArgs.__init__(self, scale=scale)
        _VectorRewardWrapper.__init__(self, env, CosineRewardModel(_vector_market(env), scale))


class VectorFeedbackReward(_VectorRewardWrapper, RecordConstructorArgs):
    """Pays simulated decisions in a vector environment, asked once a step for all; the twin of :class:`FeedbackReward`.

    Args:
        env: A ``JobRecVectorEnv``, wrapped or not.
        simulator: Who decides: a ``UserSimulator`` or its spec.
        terminate_on: Decisions that end the episode.
    """

    def __init__(
        self, env: gym.vector.VectorEnv, simulator: UserSimulator | SimulatorSpec, terminate_on: Sequence[str] = ()
    ):
        RecordConstructorArgs.__init__(
            self, simulator=simulator_spec(simulator), terminate_on=list(_decisions(terminate_on))
        )
        market = _vector_market(env)
        model = FeedbackRewardModel(make_simulator(simulator).bind(market), market)
        _VectorRewardWrapper.__init__(self, env, model, terminate_on)


class EmbeddingAction(gym.ActionWrapper[Obs, NDArray[np.float32], int], RecordConstructorArgs):
    """Takes a continuous job vector and recommends the nearest candidate by cosine.

    For algorithms with continuous actions (SAC, TD3). Masked candidates are never chosen.

    Args:
        env: A ``JobRec-v0``, wrapped or not.

    Example:
        >>> env = EmbeddingAction(gym.make("JobRec-v0"))
        >>> env.action_space
        Box(-1.0, 1.0, (768,), float32)
    """

    def __init__(self, env: gym.Env[Obs, int]):
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._jobs = _market(env).jobs.vectors
        self.action_space = spaces.Box(-1.0, 1.0, (self._jobs.shape[1],), np.float32)

    def action(self, action: NDArray[np.float32]) -> int:
        """Index of the candidate nearest to a job vector (768,)."""
        base: JobRecEnv = self.unwrapped  # type: ignore[assignment]
        scores = self._jobs[base.candidate_ids] @ np.asarray(action)
        return int(np.where(base.action_masks(), scores, -np.inf).argmax())


def _market(env: gym.Env[Any, Any]) -> LabourMarket:
    if not isinstance(env.unwrapped, JobRecEnv):
        raise ValueError(f"`env` must be a JobRec-v0, wrapped or not, got {env.unwrapped}.")
    return env.unwrapped.market


def _vector_market(env: gym.vector.VectorEnv) -> LabourMarket:
    if not isinstance(env.unwrapped, JobRecVectorEnv):
        raise ValueError(
            f"`env` must be a JobRecVectorEnv, wrapped or not, got {env.unwrapped}; for a SyncVectorEnv or "
            "AsyncVectorEnv wrap the single environments."
        )
    return env.unwrapped.market


def _refuse_second(env: gym.Env[Any, Any] | gym.vector.VectorEnv) -> None:
    layer: Any = env
    while layer is not layer.unwrapped:
        if isinstance(layer, (_RewardWrapper, _VectorRewardWrapper)):
            raise ValueError(
                f"`env` has a reward wrapper already, {type(layer).__name__}: wrap the environment beneath it, "
                "or `info` would explain two rewards as one."
            )
        layer = layer.env


def _decisions(terminate_on: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(terminate_on, (tuple, list)) or not set(terminate_on) <= set(DECISIONS):
        raise ValueError(f"`terminate_on` must be a tuple of decisions of {DECISIONS}, got {terminate_on!r}.")
    return tuple(terminate_on)
