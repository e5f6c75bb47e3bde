"""Reward wrappers with their vector twins, and an action wrapper for continuous job vectors."""

from __future__ import annotations

import abc
import copy
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from jobrec_gym.env import JobRecEnv
from jobrec_gym.market import LabourMarket
from jobrec_gym.problem import Recommendations, require_count
from jobrec_gym.rewards import (
    CosineRewardModel,
    CosineScale,
    FeedbackRewardModel,
    HybridRewardModel,
    RewardBatch,
    RewardModel,
    filled,
)
from jobrec_gym.schedules import AnnealSchedule, make_schedule
from jobrec_gym.simulators.base import (
    DECISIONS,
    Feedback,
    SimulatorSpec,
    UserSimulator,
    bound_simulator,
    make_simulator,
    simulator_spec,
)
from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.vector import JobRecVectorEnv, scattered

__all__ = [
    "CosineReward",
    "EmbeddingAction",
    "FeedbackReward",
    "HybridReward",
    "LLMReward",
    "VectorCosineReward",
    "VectorFeedbackReward",
    "VectorHybridReward",
    "VectorLLMReward",
]

Obs = dict[str, NDArray[Any]]

_Step = tuple[Any, Any, Any, Any, dict[str, Any]]

_SUMMED = ("cosine", "feedback")
"""The parts of rewards that an episode's last ``info`` has sums of."""


class _Rewards(RecordConstructorArgs, abc.ABC):
    """A reward wrapper around one environment or many: its reward model, and the decisions that end an episode.

    It computes the pay when the environment beneath has checked an action but has not changed yet. So a step whose pay
    fails changes nothing, and a picture of a step shows the pay.
    """

    def _begin(self, env: Any, model: RewardModel, **arguments: Any) -> None:
        """Does the work of a constructor; ``arguments`` are those of the public class, in plain JSON."""
        RecordConstructorArgs.__init__(self, **arguments)
        self._wrap(env)
        self._base: Any = env.unwrapped
        self._model = model
        self._terminate_on: Sequence[str] = arguments.get("terminate_on", ())
        self._sums: dict[str, Any] = {}
        # Rewards and their parts in this step; ``None`` if nobody has been paid.
        self._paid: tuple[Any, dict[str, Any]] | None = None

    @abc.abstractmethod
    def _wrap(self, env: Any) -> None:
        """Calls the constructor of Gymnasium's wrapper."""

    @property
    def reward_model(self) -> RewardModel:
        """The reward model that this wrapper pays by."""
        return self._model

    def get_state(self) -> dict[str, Any]:
        """This wrapper's own state in plain JSON; in a vector environment, with arrays."""
        return {"sums": {name: copy.copy(values) for name, values in self._sums.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a state of :meth:`get_state`."""
        self._sums = {name: copy.copy(values) for name, values in state["sums"].items()}

    def _prepare(self) -> None:
        """Before a step, a simulator that computes ahead prepares for the episodes that have made exactly one step."""
        prepare = self._model.prepare
        begun = None if prepare is None else self._base.begun()
        if prepare is not None and begun is not None:
            prepare(*begun)

    def _paid_by_this(self, step: Callable[[Any], _Step], action: Any) -> _Step:
        """Makes a step of the environment beneath, which asks this wrapper for the pay."""
        self._paid = None
        self._base.payer = self._pay
        try:
            return step(action)
        finally:
            self._base.payer = None

    @abc.abstractmethod
    def _pay(self, made: Recommendations, entries: dict[str, Any]) -> tuple[Any, Any]:
        """Pays what is recommended, see :data:`~jobrec_gym.problem.Payer`."""

    def _rewards(self, made: Recommendations) -> RewardBatch:
        """What the reward model says."""
        keys = made.interaction_keys if self._model.draws else None
        return self._model(made.applicant_ids, made.job_ids, keys, made.cosine)

    def _ends(self, batch: RewardBatch, made: Recommendations) -> NDArray[np.bool_]:
        """Which of the n decisions end an episode; an environment's own answers count, whatever they are paid."""
        decision = batch.decision if made.own is None else made.own.decision
        ends = np.zeros(len(batch.reward), dtype=bool)
        for one in () if decision is None else self._terminate_on:
            ends |= decision == one
        return ends

    def _count(self, n: int) -> None:
        """Counts n recommendations, after the step."""


class _CosineRewards(_Rewards):
    def __init__(self, env: Any, scale: CosineScale = "unit"):
        market = _market(self, env)
        _refuse_second(env)
        self._begin(env, CosineRewardModel(market, scale), scale=scale)


class _FeedbackRewards(_Rewards):
    def __init__(self, env: Any, simulator: UserSimulator | SimulatorSpec, terminate_on: Sequence[str] = ()):
        spec, decisions = simulator_spec(simulator), _decisions(terminate_on)
        market = _market(self, env)
        _refuse_second(env)
        _refuse_own_answers(
            env,
            "use CosineReward to replace its reward, or HybridReward(env, None, schedule) to mix it with the cosine",
        )
        model = FeedbackRewardModel(bound_simulator(make_simulator(simulator), market), market)
        self._begin(env, model, simulator=spec, terminate_on=decisions)


class _LLMRewards(_FeedbackRewards):
    def __init__(self, env: Any, simulator: UserSimulator | SimulatorSpec, terminate_on: Sequence[str] = ()):
        _refuse_rules(simulator)
        super().__init__(env, simulator, terminate_on)


class _HybridRewards(_Rewards):
    def _begin_hybrid(
        self,
        env: Any,
        simulator: UserSimulator | SimulatorSpec | None,
        schedule: AnnealSchedule | dict[str, Any],
        cosine_scale: CosineScale,
        terminate_on: Sequence[str],
        n_counted: int,
        **arguments: Any,
    ) -> None:
        """A recommendation of this wrapper counts as ``n_counted`` agent steps."""
        schedule = make_schedule(schedule)
        spec = None if simulator is None else simulator_spec(simulator)
        decisions = _decisions(terminate_on)
        market = _market(self, env)
        _refuse_second(env)
        self._answers = _OwnAnswers() if simulator is None and _answers_itself(env) else None
        if self._answers is None:
            _refuse_own_answers(env, "give `simulator=None` to mix the cosine with its reward")
            if simulator is None:
                raise ValueError(
                    f"`simulator` must be given for {env.unwrapped}, which pays the cosine itself; None stands for the "
                    "answers of an environment that asks its applicants itself, as JobRecCareer-v0 does."
                )
            bound = bound_simulator(make_simulator(simulator), market)
        else:
            bound = self._answers
        self._hybrid = HybridRewardModel(bound, market, cosine_scale=cosine_scale)
        self._annealing = _Annealing(schedule, n_counted)
        arguments |= {"schedule": schedule.to_spec(), "cosine_scale": cosine_scale, "terminate_on": decisions}
        self._begin(env, self._hybrid, simulator=spec, **arguments)

    @property
    def cosine_weight(self) -> float:
        """Weight of the cosine reward in the next step."""
        return self._annealing.weight

    def set_total_steps(self, total_steps: int) -> None:
        """Sets the number of agent steps over all environments; from then on the wrapper does not count steps."""
        self._annealing.tell(total_steps)

    def freeze(self, weight: float | None = None) -> None:
        """Holds the weight, for evaluation: at ``weight``, or at its present value. Steps are still counted."""
        self._annealing.freeze(weight)

    def unfreeze(self) -> None:
        """Returns to the schedule."""
        self._annealing.frozen = None

    def get_state(self) -> dict[str, Any]:
        """This wrapper's own state in plain JSON; in a vector environment, with arrays."""
        return {**super().get_state(), "annealing": self._annealing.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a state of :meth:`get_state`."""
        super().set_state(state)
        self._annealing.set_state(state["annealing"])

    def _rewards(self, made: Recommendations) -> RewardBatch:
        self._hybrid.weight = self._annealing.weight
        if self._answers is not None:
            self._answers.last = made.own
        return super()._rewards(made)

    def _count(self, n: int) -> None:
        self._annealing.advance(n)


class _OwnAnswers:
    """Stands in for a simulator where the environment has already asked its own.

    Attributes:
        last: The answers to the recommendations that are paid next.
    """

    draws = False

    def __init__(self) -> None:
        self.last: Feedback | None = None

    def feedback(
        self, applicant_ids: NDArray[np.int64], job_ids: NDArray[np.int64], interaction_keys: Any = None
    ) -> Feedback:
        """See :class:`~jobrec_gym.simulators.base.BoundSimulator`."""
        assert self.last is not None, "nothing was recommended"
        return self.last


class _Annealing:
    """The weight of a hybrid reward: a schedule, the agent steps so far, and who counts them."""

    def __init__(self, schedule: AnnealSchedule, n_counted: int):
        self.schedule = schedule
        self.n_counted = n_counted
        self.total_steps = 0
        self.told = False
        self.frozen: float | None = None

    @property
    def weight(self) -> float:
        return self.schedule(self.total_steps) if self.frozen is None else self.frozen

    def advance(self, n_recommendations: int) -> None:
        if not self.told:
            self.total_steps += n_recommendations * self.n_counted

    def tell(self, total_steps: int) -> None:
        if isinstance(total_steps, bool) or not isinstance(total_steps, numbers.Integral) or total_steps < 0:
            raise ValueError(f"`total_steps` must be a whole number of at least 0, got {total_steps!r:.80}.")
        self.total_steps, self.told = int(total_steps), True

    def freeze(self, weight: float | None) -> None:
        if weight is not None and not (isinstance(weight, numbers.Real) and 0 <= weight <= 1):
            raise ValueError(f"`weight` must be a number in [0, 1] or None, got {weight!r:.80}.")
        self.frozen = self.weight if weight is None else float(weight)

    def get_state(self) -> dict[str, Any]:
        return {"total_steps": self.total_steps, "told": self.told, "frozen": self.frozen}

    def set_state(self, state: dict[str, Any]) -> None:
        self.total_steps, self.told, self.frozen = state["total_steps"], state["told"], state["frozen"]


class _RewardWrapper(_Rewards, gym.Wrapper[Obs, int, Obs, int]):
    """Replaces the reward by that of a reward model, and writes into ``info`` how the reward came about."""

    def _wrap(self, env: gym.Env[Obs, int]) -> None:
        gym.Wrapper.__init__(self, env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Starts an episode and its sums."""
        result = self.env.reset(seed=seed, options=options)
        self._sums = {}  # set last, so that a refused reset changes nothing
        return result

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Recommends, and pays what the reward model says."""
        self._prepare()
        obs, reward, terminated, truncated, info = self._paid_by_this(self.env.step, action)
        if self._paid is None:  # a wrapper beneath started a new episode instead
            self._sums = {}
            return obs, float(reward), terminated, truncated, info
        reward, components = self._paid
        self._count(1)
        for name, value in components.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if terminated or truncated:
            info.update({f"episode_sum/{name}": self._sums.get(name, np.nan) for name in _SUMMED})
        return obs, reward, terminated, truncated, info

    def _pay(self, made: Recommendations, entries: dict[str, Any]) -> tuple[float, bool]:
        batch = self._rewards(made)
        components: dict[str, float] = {name: values.item() for name, values in batch.components.items()}
        entries |= {f"reward/{name}": value for name, value in components.items()}
        entries |= {key: values.item() for key, values in batch.details.items()}
        entries["reward_components"] |= components
        entries["transition_valid"] &= bool(batch.valid[0])
        if batch.weights is not None:
            entries["reward_weights"] = dict(batch.weights)
        self._paid = batch.reward.item(), entries["reward_components"]
        return self._paid[0], bool(self._terminate_on) and bool(self._ends(batch, made)[0])


class _VectorRewardWrapper(_Rewards, gym.vector.VectorWrapper):
    """The vector twin of :class:`_RewardWrapper`: asks the reward model once for all environments."""

    # What `call` and `get_attr` know of the wrapper itself.
    _of_all: tuple[str, ...] = ()

    def _wrap(self, env: gym.vector.VectorEnv) -> None:
        gym.vector.VectorWrapper.__init__(self, env)

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """When ended episodes begin anew; libraries such as TorchRL ask the outermost layer for it."""
        mode: AutoresetMode = self._base.autoreset_mode
        return mode

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As :meth:`~jobrec_gym.vector.JobRecVectorEnv.call`; it knows what this wrapper has, too."""
        if name not in self._of_all:
            results: tuple[Any, ...] = self._base.call(name, *args, **kwargs)
            return results
        value = getattr(self, name)
        return (value(*args, **kwargs) if callable(value) else value,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """As :meth:`~jobrec_gym.vector.JobRecVectorEnv.get_attr`."""
        return self.call(name)

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes and their sums."""
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # a list is allowed
        # The sums come after the reset, because the reset refuses wrong options.
        rows = slice(None) if options is None or "reset_mask" not in options else options["reset_mask"]
        for values in self._sums.values():
            values[rows] = np.nan
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Recommends, and pays what the reward model says."""
        self._prepare()
        obs, _, terminated, truncated, infos = self._paid_by_this(self.env.step, actions)
        if self._paid is None:  # next-step mode, and all rows start anew
            return obs, np.zeros(self.num_envs), terminated, truncated, infos
        rewards, components = self._paid
        rows = self._base.recommendations.made
        self._count(int(np.count_nonzero(rows)))
        for name, values in components.items():
            # A sum is NaN where the episode has not been paid this part of a reward yet.
            sums = self._sums.get(name, np.nan)
            self._sums[name] = np.where(rows, np.where(np.isnan(sums), 0.0, sums) + values, sums)
        ended = terminated | truncated
        if np.count_nonzero(ended):
            for name in _SUMMED:
                values = self._sums.setdefault(name, filled(self.num_envs, np.nan))
                self._base.add_step_info(infos, f"episode_sum/{name}", values, ended)
                values[ended] = np.nan
        return obs, rewards, terminated, truncated, infos

    def _pay(self, made: Recommendations, entries: dict[str, Any]) -> tuple[NDArray[np.float64], Any]:
        rows = made.made
        batch = self._rewards(made) if rows.all() else _over_all(self._rewards(made.take(rows)), rows)
        # The unit cosine is among the entries already.
        new = {name: values for name, values in batch.components.items() if values is not made.cosine.unit}
        entries |= {f"reward/{name}": values.copy() for name, values in new.items()}
        entries |= batch.details
        entries["reward_components"] |= {name: values.copy() for name, values in new.items()}
        entries["transition_valid"] &= batch.valid
        if batch.weights is not None:
            entries["reward_weights"] = {name: filled(self.num_envs, weight) for name, weight in batch.weights.items()}
        # The rewards are copied, because they may be an array of the environment.
        self._paid = batch.reward.copy(), entries["reward_components"]
        return self._paid[0], self._ends(batch, made) if self._terminate_on else False

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a state of :meth:`get_state`."""
        super().set_state(state)
        self._sums = {name: np.array(values, dtype=np.float64) for name, values in self._sums.items()}


class CosineReward(_CosineRewards, _RewardWrapper):
    """Pays the cosine similarity of applicant and job, in [0, 1], raw, or rescaled to feedback.

    ``info["reward/cosine"]`` is this reward. The last ``info`` of an episode has its sum, ``episode_sum/cosine``, and
    ``episode_sum/feedback``, which is NaN around an environment that asks nobody.

    Args:
        env: A ``JobRec-v0`` or ``JobRecCareer-v0``, wrapped or not.
        scale: ``"unit"``: ``(1 + c) / 2``; ``"raw"``: ``c``; ``"matched"``: ``c`` rescaled to a mean of 0.04 and a
            standard deviation of 0.28, those of feedback on random pairs of the default market.

    Example:
        >>> env = CosineReward(gym.make("JobRec-v0"), scale="raw")
        >>> obs, info = env.reset(seed=0)
        >>> reward = env.step(0)[1]
    """


class VectorCosineReward(_CosineRewards, _VectorRewardWrapper):
    """Pays the cosine similarity in a vector environment; the twin of :class:`CosineReward`.

    Args:
        env: A ``JobRecVectorEnv``, wrapped or not.
        scale: ``"unit"``, ``"raw"`` or ``"matched"``.
    """


class FeedbackReward(_FeedbackRewards, _RewardWrapper):
    """Pays what a simulated applicant's decision is worth.

    ``info`` has ``reward/feedback``, ``feedback/decision``, ``feedback/status``, ``feedback/reason``, and still
    ``reward/cosine``. The last ``info`` of an episode has the sums ``episode_sum/feedback`` and ``episode_sum/cosine``.

    Args:
        env: A ``JobRec-v0``, wrapped or not.
        simulator: The simulated applicants: a ``UserSimulator`` or its spec.
        terminate_on: Decisions that end the episode, e.g. ``("apply",)``. Ending on success lowers the return at gamma
            > 0: an agent then learns to delay success.

    Raises:
        ValueError: For an object that is not a simulator, an unknown decision, or a ``JobRecCareer-v0``, which asks its
            own simulator.

    Example:
        >>> env = FeedbackReward(gym.make("JobRec-v0"), RuleSimulator(seed=0))
        >>> obs, info = env.reset(seed=0)
        >>> env.step(0)[4]["feedback/decision"]
        'ignore'
    """


class VectorFeedbackReward(_FeedbackRewards, _VectorRewardWrapper):
    """Pays simulated decisions in a vector environment, all asked for at once; the twin of :class:`FeedbackReward`.

    Args:
        env: A ``JobRecVectorEnv``, wrapped or not, but no ``JobRecCareerVectorEnv``.
        simulator: The simulated applicants: a ``UserSimulator`` or its spec.
        terminate_on: Decisions that end the episode.
    """


class LLMReward(_LLMRewards, FeedbackReward):
    """:class:`FeedbackReward` by a language model; refuses a ``RuleSimulator``, which is not a language model.

    Args:
        env: A ``JobRec-v0``, wrapped or not.
        simulator: The simulated applicants: a ``UserSimulator`` or its spec.
        terminate_on: Decisions that end the episode.

    Raises:
        ValueError: For a :class:`~jobrec_gym.simulators.rules.RuleSimulator`, and as :class:`FeedbackReward`.
    """


class VectorLLMReward(_LLMRewards, VectorFeedbackReward):
    """The twin of :class:`LLMReward`.

    Args:
        env: A ``JobRecVectorEnv``, wrapped or not, but no ``JobRecCareerVectorEnv``.
        simulator: The simulated applicants: a ``UserSimulator`` or its spec, but no ``RuleSimulator``.
        terminate_on: Decisions that end the episode.
    """


class HybridReward(_HybridRewards, _RewardWrapper):
    """Pays ``w * cosine + (1 - w) * feedback``, with ``w`` on a schedule.

    The schedule counts agent steps over all environments: this wrapper's own steps times ``num_envs``, until a trainer
    sets the number by ``env_method("set_total_steps", n)``. At ``w = 1`` the simulator is not asked.

    ``info`` has ``reward/cosine``, ``reward/feedback`` if the simulator was asked, ``reward/cosine_weight``,
    ``reward_components`` and ``reward_weights``, so that the reward can be recomputed under another weight. The last
    ``info`` of an episode has the sums ``episode_sum/cosine`` and ``episode_sum/feedback``; the latter is NaN if nobody
    was asked.

    Args:
        env: A ``JobRec-v0`` or ``JobRecCareer-v0``, wrapped or not.
        simulator: The simulated applicants: a ``UserSimulator`` or its spec. It must be ``None`` around an environment
            that asks its applicants itself, as ``JobRecCareer-v0`` does: the feedback is then that environment's
            reward. It must not be ``None`` around a ``JobRec-v0``.
        schedule: An ``AnnealSchedule`` or its spec.
        cosine_scale: ``"unit"``, as in the note; ``"raw"``; or ``"matched"``: rescaled to a mean of 0.04 and a
            standard deviation of 0.28, so that annealing does not shift the level of the reward. These are the figures
            of feedback on random pairs of the default market.
        terminate_on: Decisions that end the episode. Answers that the environment itself got count at every weight.
        num_envs: How many such environments step together, in a ``SyncVectorEnv`` for instance.

    Example:
        >>> env = HybridReward(gym.make("JobRec-v0"), RuleSimulator(seed=0), AnnealSchedule(steps=20_000))
        >>> obs, info = env.reset(seed=0)
        >>> env.step(0)[4]["reward/cosine_weight"]
        1.0
    """

    def __init__(
        self,
        env: gym.Env[Obs, int],
        simulator: UserSimulator | SimulatorSpec | None,
        schedule: AnnealSchedule | dict[str, Any],
        cosine_scale: CosineScale = "unit",
        terminate_on: Sequence[str] = (),
        num_envs: int = 1,
    ):
        require_count("num_envs", num_envs)
        self._begin_hybrid(env, simulator, schedule, cosine_scale, terminate_on, num_envs, num_envs=num_envs)


class VectorHybridReward(_HybridRewards, _VectorRewardWrapper):
    """Pays cosine and feedback, annealed, in a vector environment; the twin of :class:`HybridReward`.

    All rows of a vector step have the same weight. A vector step counts one agent step for each row that recommends a
    job. A row that starts anew instead, as in next-step mode after an episode's end, counts none.

    Args:
        env: A ``JobRecVectorEnv``, wrapped or not.
        simulator: The simulated applicants, or ``None``, as in :class:`HybridReward`.
        schedule: An ``AnnealSchedule`` or its spec.
        cosine_scale: ``"unit"``, ``"raw"`` or ``"matched"``.
        terminate_on: Decisions that end the episode.
    """

    _of_all = ("cosine_weight", "freeze", "set_total_steps", "unfreeze")

    def __init__(
        self,
        env: gym.vector.VectorEnv,
        simulator: UserSimulator | SimulatorSpec | None,
        schedule: AnnealSchedule | dict[str, Any],
        cosine_scale: CosineScale = "unit",
        terminate_on: Sequence[str] = (),
    ):
        self._begin_hybrid(env, simulator, schedule, cosine_scale, terminate_on, n_counted=1)


class EmbeddingAction(gym.ActionWrapper[Obs, NDArray[np.float32], int], RecordConstructorArgs):
    """Takes a continuous job vector and recommends the nearest candidate by cosine.

    For algorithms with continuous actions (SAC, TD3). Masked candidates are never chosen.

    Args:
        env: A ``JobRec-v0`` or ``JobRecCareer-v0``, wrapped or not.

    Example:
        >>> env = EmbeddingAction(gym.make("JobRec-v0"))
        >>> env.action_space
        Box(-1.0, 1.0, (768,), float32)
    """

    def __init__(self, env: gym.Env[Obs, int]):
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.action_space = spaces.Box(-1.0, 1.0, _single_market(env).jobs.vectors.shape[1:], np.float32)

    def action(self, action: NDArray[np.float32]) -> int:
        """Index of the candidate nearest to a job vector (768,).

        Raises:
            ValueError: For another shape, or for numbers that are not finite, such as those of a network that diverged.
        """
        base: JobRecEnv = self.unwrapped  # type: ignore[assignment]
        jobs = base.market.jobs.vectors  # the market holds them, so a copy or a pickle of the wrapper stays small
        wanted, shape = np.asarray(action), jobs.shape[1:]
        if wanted.shape != shape or wanted.dtype.kind not in "fiu" or not np.isfinite(wanted).all():
            raise ValueError(
                f"`action` must be a job vector, finite numbers of shape {shape}, got {wanted.dtype} of shape "
                f"{wanted.shape}: {wanted.reshape(-1)[:3]}."
            )
        scores = jobs[base.candidate_ids] @ wanted
        return int(np.where(base.action_masks(), scores, -np.inf).argmax())


def _market(wrapper: _Rewards, env: Any) -> LabourMarket:
    """The market of the environment beneath; refuses an environment of a kind that the wrapper cannot wrap."""
    return _vector_market(env) if isinstance(wrapper, gym.vector.VectorEnv) else _single_market(env)


def _single_market(env: gym.Env[Any, Any]) -> LabourMarket:
    if not isinstance(env.unwrapped, JobRecEnv):
        raise ValueError(f"`env` must be a JobRec-v0 or JobRecCareer-v0, wrapped or not, got {env.unwrapped}.")
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
        if isinstance(layer, _Rewards):
            raise ValueError(
                f"`env` has a reward wrapper already, {type(layer).__name__}: wrap the environment beneath it, "
                "because `info` can explain only one reward."
            )
        layer = layer.env


def _answers_itself(env: Any) -> bool:
    """Whether an environment has a simulator of its own."""
    return getattr(env.unwrapped, "simulator", None) is not None


def _refuse_own_answers(env: Any, instead: str) -> None:
    if _answers_itself(env):
        raise ValueError(
            f"`env` asks its applicants itself, {env.unwrapped}: answers of a second simulator would change nobody. "
            f"Give your simulator to the environment when it is made, by `simulator=`; or {instead}."
        )


def _refuse_rules(simulator: UserSimulator | SimulatorSpec) -> None:
    made = make_simulator(simulator)
    if isinstance(made, RuleSimulator):
        raise ValueError(
            "`simulator` is a RuleSimulator, which is no language model: use FeedbackReward for it, or give an "
            "LLMSimulator."
        )


def _decisions(terminate_on: Sequence[str]) -> list[str]:
    is_row = isinstance(terminate_on, Sequence) and not isinstance(terminate_on, str)
    if not is_row or not all(one in DECISIONS for one in terminate_on):
        raise ValueError(f"`terminate_on` must be a sequence of decisions of {DECISIONS}, got {terminate_on!r:.80}.")
    return list(terminate_on)


def _over_all(batch: RewardBatch, rows: NDArray[np.bool_]) -> RewardBatch:
    """Puts the rewards of the marked rows into arrays for all rows; the values of the other rows mean nothing."""
    return RewardBatch(
        reward=scattered(batch.reward, rows),
        components={name: scattered(values, rows) for name, values in batch.components.items()},
        valid=scattered(batch.valid, rows),
        details={key: scattered(values, rows) for key, values in batch.details.items()},
        decision=None if batch.decision is None else scattered(batch.decision, rows),
        weights=batch.weights,
    )
