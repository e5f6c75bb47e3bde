"""DynaQ: Q-learning over candidate actions, with a learned world model of the reward and planning with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch as th
from gymnasium.vector import VectorEnv
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from dynaq_algo.algorithm import CandidateAlgorithm
from dynaq_algo.arguments import check_learning, python_numbers, refuse_unknown_kwargs, require_planning_gamma
from dynaq_algo.batches import Batch
from dynaq_algo.bootstrap import chosen_values, gather_for, values_ahead, warn_of_progress
from dynaq_algo.forecasts import TransitionForecasts
from dynaq_algo.networks import denormals_flushed, squared_error_step
from dynaq_algo.offline import OfflineBatch, offline_update
from dynaq_algo.planning import (
    N_COMPARED,
    CrossedPairs,
    PlanningSource,
    difference_from_shown,
    make_planning_source,
    refuse_unknown_pairs,
)
from dynaq_algo.plus import arguments_for
from dynaq_algo.policies import CandidatePolicy
from dynaq_algo.replay import Transitions
from dynaq_algo.target_values import TargetValues
from dynaq_algo.telling import tell
from dynaq_algo.transition_model import Foreseen, TransitionModel
from dynaq_algo.vec_env import as_vec_env
from dynaq_algo.world_model import RewardForecasts, check_world_model, make_world_model

__all__ = ["DynaQ"]

WINDOW = 1_000  # transitions over which `train/model_r2` is computed


class DynaQ(CandidateAlgorithm):
    """Dyna-Q with function approximation, on environments that offer a set of candidate actions.

    Each transition is followed by one update of the Q-network on real rewards, one update of the world model M(s, a) on
    the same transitions, and `planning_steps` updates of the Q-network on rewards that the model imagines (Sutton,
    1990). Deep Q-learning with replay and target network follows Mnih et al. (2015). Targets are

    * `bootstrap="same_action"`: r + gamma * Q_target(s', a), the same action, for gamma < 1;
    * `bootstrap="max"`: r + gamma * max Q_target(s', a') over the next candidates that the mask allows;
    * `bootstrap="double"`: r + gamma * Q_target(s', a*), where a* is the allowed next candidate with the largest Q (van
      Hasselt et al., 2016).

    The updates on imagined rewards are planning in the background. With `planning="decision_time"` (Sutton and Barto,
    2018, section 8.8) a Q-value is the world model's reward of a candidate plus gamma times the value of the next
    state. The next decision therefore uses all that the model has learned from the last reward. The Q-network learns
    only the value of the next state: its updates are the same, but their targets lack the reward. At `gamma=0` Q is the
    model's reward: planning is exact, and the Q-network is not updated. The Q-network is not updated with
    `world_model="transitions"` either, because that model has a table of the values of next states.

    The target of a terminated transition is its reward alone; the target of a truncated one includes the value of the
    next step. With n environments, each vector step is followed by n direct, n model and n * `planning_steps` planning
    updates.

    All randomness (exploration, replay, planning, initial weights) comes from generators owned by the object. The
    global states of Python, numpy and torch do not change: torch's is seeded from such a generator only while initial
    weights are drawn, and then put back. `predict(..., deterministic=False)` explores.

    The log has SB3's own entries and these: `train/loss` (TD loss of the direct updates), `train/planning_loss`,
    `train/model_loss`, `train/model_r2` (R2 over the last 1,000 transitions, each predicted before the model was
    trained on it), `train/q_mean` (mean Q of the batch), `train/n_updates` (direct updates), `train/planning_updates`,
    `rollout/exploration_rate`, and `reward/<name>` (the mean of one entry of `info["reward_components"]` over the last
    1,000 transitions). `world_model="transitions"` adds `train/planning_change` (mean absolute change of a value in a
    sweep, see :meth:`TransitionModel.plan <dynaq_algo.transition_model.TransitionModel.plan>`) and
    `world_model/<name>`: errors over the last 1,000 transitions, each predicted before the model learned from it, see
    :class:`~dynaq_algo.forecasts.TransitionForecasts`.

    Args:
        policy: `"CandidatePolicy"` or a subclass of it.
        env: Gymnasium environment, its id, SB3 VecEnv, or Gymnasium VectorEnv (in SAME_STEP autoreset mode), with a
            Dict observation, see :class:`~dynaq_algo.policies.CandidatePolicy`.
        learning_rate: Learning rate of both networks; a number or a function of the progress remaining (1 to 0).
        planning: `"background"`, or `"decision_time"`.
        planning_steps: Planning updates after each direct update.
        planning_horizon: How many steps ahead a planning step looks; only for `world_model="transitions"`.
        bootstrap: `"same_action"`, `"max"` or `"double"`. A world model of transitions always takes the best candidate,
            as `"max"` does, so the default, `"same_action"`, has no effect with it. With `"double"` a copy of that
            model judges the candidate that the model takes. A new copy is made every `target_update_interval`
            transitions.
        planning_source: `"visited"`, `"candidates"`, `"crossed"` or an object, see :mod:`dynaq_algo.planning`. With
            `world_model="transitions"` it is `"visited"` or `"candidates"`. Where observations have no `pairs`, both
            imagine any candidate set that was shown. Where observations have `pairs`, `"visited"` imagines, at a value
            of `progress`, the sets that were shown at this value, or at any value if none was shown at this one.
            `"candidates"` imagines any set whose applicant and candidates have ids, with the `pairs` that
            `pair_features` computes for the set at this value. Without ids or `pair_features`, `"candidates"` does what
            `"visited"` does.
        relabel: Whether rewards in replay are recomputed at the weights of the latest step. It is for a reward that is
            a weighted sum whose weights change. `info["reward_components"]` and `info["reward_weights"]`, both name ->
            number, hold its components and weights. A transition that lacks a component whose weight is not 0 is left
            out.
        action_features: For id observations: (n_actions, d_a), or the path of an .npy file. By default it is the
            environment's attribute `action_features`. A saved agent holds the path and a checksum, never the values.
        pair_features: A function that gives the entry `pairs` of pairs that nobody was shown. Applicant ids are those
            of `info["applicant_id"]`. For `planning_source="crossed"` it takes (n,) applicant ids and (n,) candidate
            ids, and returns (n, p). For `world_model="transitions"` it takes applicant ids (n, 1), candidate ids (n, k)
            and an imagined `progress` (n, 1, m), and returns (n, k, p). By default it is the environment's method
            `pair_features`. It is not saved with the agent. In the first 100 transitions its answers are compared with
            the `pairs` that were shown. If they differ, a function that you gave is refused. In place of the
            environment's method, a model of transitions then takes the `pairs` that were shown, with a warning.
        world_model: `"network"` (one, or an ensemble), `"gaussian_process"` (exact Bayesian regression), or
            `"transitions"`, which also learns how the entry `progress` changes and when an applicant leaves.
        world_model_kwargs: Arguments of the world model. For networks `n_members`, `net_arch` (the policy's by
            default), ..., see :class:`~dynaq_algo.world_model.WorldModel`. For a Gaussian process `noise`, `scales`,
            ..., and `prior` (the policy's by default), see :class:`~dynaq_algo.gaussian_process.GaussianProcess`. For
            transitions `bonus`, `action_scale`, ..., see :class:`~dynaq_algo.transition_model.TransitionModel`.
        exploration_bonus: While learning, this many times the standard deviation of the world model's reward is added
            to Q, as Dyna-Q+ favours what it has not tried lately. Epsilon-greedy exploration is independent of it. Not
            for `world_model="transitions"`, whose rewards have no standard deviation.
        gamma: Discount, below 1 for `same_action`.
        batch_size: Transitions in each update.
        buffer_size: Transitions in replay.
        learning_starts: Transitions with random actions before the first update.
        train_freq: Vector steps (or `(n, "episode")`) between trainings.
        gradient_steps: Direct updates in each training; -1 for one update per transition since the last training. None
            is 1 for one environment, and -1 for several.
        target_update_interval: Transitions between copies of the Q-network to its target; with
            `world_model="transitions"` and `bootstrap="double"`, between new copies of that model, see `bootstrap`.
        exploration_fraction: Share of training over which epsilon falls.
        max_grad_norm: Gradient clipping; none by default.
        weight_pull: A share, 0 to 1. After each update every weight of the Q-network, and of the world model if it is a
            network, moves that share back to where it was when online learning began (L2 Init; Kumar et al., 2023). The
            agent then does not forget within a few interactions what pre-training taught. Pre-training itself is not
            pulled. The default, 0, pulls nothing. Not for `world_model="transitions"`.
        policy_kwargs: `features`, `net_arch`, ..., see :class:`~dynaq_algo.policies.CandidatePolicy`.
        seed: Any number of 0 or more; None for fresh entropy.
        **kwargs: Further arguments of :class:`stable_baselines3.DQN` (`tau`, `exploration_initial_eps`,
            `exploration_final_eps`, `tensorboard_log`, `verbose`, `device`, `stats_window_size`). With
            `world_model="transitions"` the device is always the CPU, because its arrays are small.

    Raises:
        ValueError: If an argument is out of range, or the environment is of another kind.

    Example:
        >>> model = DynaQ("CandidatePolicy", env, policy_kwargs={"features": "interaction"}, seed=0)  # doctest: +SKIP
        >>> model.learn(20_000, progress_bar=True).save("agent.zip")  # doctest: +SKIP
    """

    def __init__(
        self,
        policy: str | type[CandidatePolicy],
        env: GymEnv | VectorEnv | str,
        learning_rate: float | Schedule = 1e-3,
        *,
        planning: str = "background",
        planning_steps: int = 5,
        planning_horizon: int = 1,
        bootstrap: str = "same_action",
        planning_source: str | PlanningSource = "visited",
        relabel: bool = False,
        action_features: np.ndarray | str | PathLike[str] | None = None,
        pair_features: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        world_model: str = "network",
        world_model_kwargs: dict[str, Any] | None = None,
        exploration_bonus: float = 0.0,
        gamma: float = 0.9,
        batch_size: int = 64,
        buffer_size: int = 10_000,
        learning_starts: int = 64,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int | None = None,
        target_update_interval: int = 100,
        exploration_fraction: float = 0.3,
        max_grad_norm: float = float("inf"),
        weight_pull: float = 0.0,
        policy_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ):
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            relabel=relabel,
            action_features=action_features,
            pair_features=pair_features,
            gamma=gamma,
            batch_size=batch_size,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            target_update_interval=target_update_interval,
            exploration_fraction=exploration_fraction,
            max_grad_norm=max_grad_norm,
            weight_pull=weight_pull,
            policy_kwargs=policy_kwargs,
            seed=seed,
            **kwargs,
        )
        self.planning = planning
        self.planning_steps = python_numbers(planning_steps)
        self.planning_horizon = python_numbers(planning_horizon)
        self.bootstrap = bootstrap
        self.planning_source = planning_source
        self.world_model_name = world_model
        self.world_model_kwargs = python_numbers(dict(world_model_kwargs or {}))
        self.exploration_bonus = python_numbers(exploration_bonus)
        self._n_planning_updates = 0
        self.forecasts = RewardForecasts(WINDOW)
        self.transition_forecasts = TransitionForecasts(WINDOW)
        if _init_setup_model:
            self._setup_model()

    @classmethod
    def plus(
        cls,
        env: GymEnv | VectorEnv | str,
        seed: int | None = 0,
        *,
        prior_sources: Sequence[str] | Mapping[str, float] | None = None,
        **overrides: Any,
    ) -> DynaQ:
        """The best configuration that this project knows; docs/dynaq_plus.md says what each part is for.

        It begins with a prior: jobs that are more similar to the applicant, block by block, earn more. A Gaussian
        process learns rewards and how far to trust the prior, and plans at decision time. If the observation has
        `pairs`, the agent expects them to say more than similarities do, and explores less. If the observation has
        `progress`, answers move the applicant. A :class:`~dynaq_algo.transition_model.TransitionModel` then takes the
        place of the Gaussian process: it learns rewards and how `progress` changes, and the agent plans ahead.

        Args:
            env: As for the class.
            seed: As for the class.
            prior_sources: Terms whose sum is the prior, in place of the block similarities alone: `"blocks"`, and names
                of columns of the entry `pairs`, such as a language model's judgement. A mapping also gives the weight
                of each, in rewards per standard deviation. The agent learns from answers how far to trust each, see
                :class:`~dynaq_algo.gaussian_process.GaussianProcess`.
            **overrides: Other arguments of the class. `policy_kwargs` and `world_model_kwargs` are merged with the
                defaults entry by entry, and so are the `scales` in `world_model_kwargs`.

        Example:
            >>> DynaQ.plus(env, policy_kwargs={"prior": [0.0, 0.0]}).learn(1_500)  # doctest: +SKIP
        """
        env = as_vec_env(env)
        return cls(env=env, seed=seed, **arguments_for(env, prior_sources, overrides))

    # ------------------------------------------------------------------ build

    def _setup_model(self) -> None:
        check_world_model(self.world_model_name, self.world_model_kwargs, self.relabel, self.planning)
        refuse_unknown_kwargs("policy_kwargs", self.policy_class, self.policy_kwargs)
        check_learning(vars(self))
        self._planner = make_planning_source(self.planning_source)
        if self.world_model_name == "transitions":
            self.device = th.device("cpu")
        super()._setup_model()
        if self.world_model_name == "transitions":
            self.replay_buffer.keep_shown_ids()
        with self._drawing_weights():
            self.policy = self._make_policy()
            rate, given, names = self.lr_schedule(1), self.world_model_kwargs, self.reads.get("pairs")
            world_model = make_world_model(self.world_model_name, self.policy, rate, self.gamma, given, names)
            self.world_model = world_model.to(self.device)
        self._create_aliases()  # q_net, q_net_target
        draws = self.target_update_interval * (1 + self.planning_steps) * self.batch_size
        self._kept_values = TargetValues(self.buffer_size, self.device, draws)
        self.policy.plan_with(self.world_model, self.gamma if self.planning == "decision_time" else None)
        if self._learns_values and self.gamma > 0:
            warn_of_progress(self.bootstrap, self.policy.layout)
        self._make_anchors()

    def _find_pair_features(self) -> None:
        super()._find_pair_features()
        if self.env is not None and self.planning_steps:
            refuse_unknown_pairs(self._planner, self.replay_buffer)

    # ------------------------------------------------------------------ act

    def predict(  # type: ignore[override]
        self,
        observation: Mapping[str, Any],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Epsilon-greedy choice, or greedy if `deterministic`.

        Args:
            observation: One observation or a batch of n, as the environment gives it.
            state: Passed through; the policy has none.
            episode_start: Not used.
            deterministic: Never explore.

        Returns:
            Index of the candidate, () for one observation, (n,) for a batch; and `state`.
        """
        decisions = self.policy.layout.read(observation)
        explore = np.zeros(len(decisions.state), bool)
        if not deterministic:
            explore = self._rngs["exploration"].random(len(explore)) < self.exploration_rate
        action = np.empty(len(explore), np.int64)
        if explore.any():
            action[explore] = decisions.take(explore).any_action(self._rngs["exploration"])
        if not explore.all():
            others = decisions.take(~explore) if explore.any() else decisions
            action[~explore] = self.policy.greedy(others, 0.0 if deterministic else self.exploration_bonus)
        return (action if self.policy.layout.is_batch(observation) else action[0]), state

    def q_values(self, observation: Mapping[str, Any]) -> np.ndarray:
        """Q-values (n, k) of one observation (n = 1) or a batch, masked candidates included."""
        with th.no_grad():
            return self.policy.q_values(self.policy.layout.read(observation)).cpu().numpy()

    def predict_reward(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The world model's rewards (n, k) of one observation (n = 1) or a batch, masked candidates included."""
        return self._imagine(observation)[0].cpu().numpy()

    def reward_spread(self, observation: Mapping[str, Any]) -> np.ndarray:
        """Standard deviation (n, k) of :meth:`predict_reward`: the world model's uncertainty; 0 if it gives none."""
        return self._imagine(observation)[1].cpu().numpy()

    @th.no_grad()
    def _imagine(self, observation: Mapping[str, Any]) -> tuple[th.Tensor, th.Tensor]:
        """Mean and spread of the world model's rewards, (n, k) each."""
        return self.world_model.score(*self.policy.tensors(self.policy.layout.read(observation)))

    # ------------------------------------------------------------------ train

    @denormals_flushed()
    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Make `gradient_steps` direct updates, each followed by a model update and `planning_steps` planning updates.

        The world model learns from real transitions only. Nothing happens before the first valid transition.
        """
        if not self.replay_buffer.n_usable or gradient_steps < 1:
            return
        self._score_new_transitions()
        if (r2 := self.forecasts.r2()) is not None:
            self.logger.record("train/model_r2", r2)
        if isinstance(self.world_model, TransitionModel):
            self._learn_ahead(self.world_model, gradient_steps)
            return
        if not self._optimizers:
            return  # there is no network to train: the model has learned already
        self._drop_anchor()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers)

        losses, model_losses, planning_losses, q_means = [], [], [], []
        for _ in range(gradient_steps):
            transitions = self.replay_buffer.sample(batch_size, self._rngs["replay"])
            batch, reward = self._batch(transitions), self.policy.tensor(self._normalised(transitions.reward))

            if self._learns_values:
                earned = reward if self.planning == "background" else None
                values = self._target_values(transitions, batch, imagined=False)
                loss, q_values = self._q_update(batch.inputs, self._targets(batch, earned, values))
                losses.append(loss)
                q_means.append(q_values.mean())

            model_losses.append(self.world_model.update(batch.inputs, reward, transitions.serial))
            self._pull_back("world_model")

            planning_losses += self.plan(batch_size)

        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/planning_updates", self._n_planning_updates, exclude="tensorboard")
        means = {"loss": losses, "q_mean": q_means, "model_loss": model_losses, "planning_loss": planning_losses}
        for name, found in means.items():
            if found:
                self.logger.record(f"train/{name}", float(th.stack(found).mean()))

    def _learn_ahead(self, model: TransitionModel, gradient_steps: int) -> None:
        """Train the model of transitions `gradient_steps` times, each followed by `planning_steps` planning steps."""
        model.gamma = require_planning_gamma(self.gamma)  # as in SB3, each update takes the present one
        ask = self.replay_buffer.pair_features if self._plans_by_asking else None
        rng, lag = self._rngs["planning"], self.target_update_interval if self.bootstrap == "double" else None
        for _ in range(gradient_steps):
            model_loss = model.fit(self._rngs["replay"])
            if self.planning_steps:
                moved = model.plan(self.planning_steps, self.planning_horizon, ask, rng, lag)
                self.logger.record("train/planning_change", moved)
        self._n_updates += gradient_steps
        self._n_planning_updates += gradient_steps * self.planning_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/planning_updates", self._n_planning_updates, exclude="tensorboard")
        self.logger.record("train/model_loss", float(model_loss))
        for name, error in self.transition_forecasts.errors().items():
            self.logger.record(f"world_model/{name}", error)

    # ------------------------------------------------------------------ plan

    @denormals_flushed()
    def plan(self, batch_size: int) -> list[th.Tensor]:
        """Make `planning_steps` optimiser steps on imagined pairs; returns their losses, [] if Q learns no values."""
        if self.planning_steps == 0 or not self._learns_values:
            return []
        self._drop_anchor()
        n = self.planning_steps * batch_size
        transitions = self._planner.sample(self.replay_buffer, n, self._rngs["planning"])
        batch = self._batch(transitions)
        # Neither the world model nor the target network changes within the planning steps: one pass of each serves all.
        imagined: Any = [None] * self.planning_steps
        if self.planning == "background":
            with th.no_grad():
                imagined = self.world_model.of_pairs(batch.pairs).split(batch_size)
        target_values = self._target_values(transitions, batch).split(batch_size)
        losses = []
        for step, reward, values in zip(batch.split(batch_size), imagined, target_values, strict=True):
            losses.append(self._q_update(step.inputs, self._targets(step, reward, values))[0])
        self._n_planning_updates += self.planning_steps
        return losses

    # ------------------------------------------------------------------ targets and updates

    def _batch(self, transitions: Transitions) -> Batch:
        """Transitions as tensors, with the next candidates if the Q-network chooses among them at the update."""
        return gather_for(self.bootstrap, transitions, self.replay_buffer, self.policy)

    @th.no_grad()
    def _targets(self, batch: Batch, reward: th.Tensor | None, target_values: th.Tensor) -> th.Tensor:
        """`reward + gamma * next value`, (n,).

        Args:
            batch: n transitions.
            reward: (n,) earned or imagined; None if the Q-network learns only the value of the next state.
            target_values: Of the same transitions, see :meth:`_target_values`.
        """
        if batch.following is not None:
            target_values = chosen_values(batch.following, target_values, self.policy)
        return target_values if reward is None else reward + self.gamma * target_values

    @th.no_grad()
    def _target_values(self, transitions: Transitions, batch: Batch, imagined: bool = True) -> th.Tensor:
        """The target network's values of the next step, (n,).

        See :func:`~dynaq_algo.bootstrap.values_ahead`.
        """
        return values_ahead(
            transitions, batch, self.replay_buffer, self.policy, self.bootstrap, self._kept_values, imagined
        )

    @property
    def _learns_values(self) -> bool:
        """Whether the Q-network learns; with planning at decision time only the value of the next state."""
        return self.planning == "background" or (self.gamma > 0 and not self.world_model.knows_transitions)

    @property
    def _optimizers(self) -> list[th.optim.Optimizer]:
        of_values = self.policy.optimizer if self._learns_values else None
        return [optimizer for optimizer in (of_values, self.world_model.optimizer) if optimizer is not None]

    def _q_update(self, inputs: th.Tensor, target: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """One optimiser step of the Q-network towards targets (n,), then its pull; returns loss and values (n,)."""
        optimizer = self.policy.optimizer
        found = squared_error_step(self.q_net, optimizer, inputs, target, max_grad_norm=self.max_grad_norm)
        self._pull_back("q_net")
        return found

    @denormals_flushed()
    def _score_new_transitions(self) -> None:
        # A network learns from replay. New transitions only score its predictions, so the newest are enough.
        most = None if self.world_model.optimizer is None else WINDOW
        if (new := self._new_transitions(most)) is not None:
            self._compare_pairs(new)
            reward = self._normalised(new.reward)
            earned, said = tell(self.world_model, new, reward, self.replay_buffer, self.policy)
            if isinstance(said, Foreseen):
                self.transition_forecasts.add(earned, said)
                said = said.reward
            self.forecasts.add(earned.tolist(), said.tolist())

    @property
    def _plans_by_asking(self) -> bool:
        """Whether planning asks `pair_features` about pairs that nobody was shown."""
        replay = self.replay_buffer
        if not self.planning_steps or not replay.n_pairs or replay.pair_features is None:
            return False
        if self.world_model.knows_transitions:
            return self.planning_source == "candidates" and self._asks_pairs
        return self._learns_values and isinstance(self._planner, CrossedPairs)

    def _compare_pairs(self, new: Transitions) -> None:
        """Compare what planning would be told of pairs with what is shown, in the first transitions of an environment.

        Raises:
            ValueError: If they differ, and the user gave the function, or planning needs it.
        """
        early = (new.serial >= self._compares_from) & (new.serial < self._compares_from + N_COMPARED)
        if not (self._plans_by_asking and early.any()):
            return
        progress = self.policy.layout.progress if self.world_model.knows_transitions else None
        difference = difference_from_shown(new.take(early), self.replay_buffer, progress)
        if difference is None:
            return
        if self.pair_features is not None or progress is None:
            raise ValueError(
                f"`pair_features` must give the `pairs` that observations show, but {difference}. Pass a function that "
                'computes what the environment shows with all its wrappers, or use `planning_source="visited"`.'
            )
        self._asks_pairs = False
        warnings.warn(
            f"The environment's `pair_features` does not give the `pairs` that are shown: {difference}. An observation "
            "wrapper may have changed `pairs` or `progress`. Planning imagines sets with the `pairs` that were shown, "
            'as with `planning_source="visited"`. For pairs at other values of `progress` pass '
            "`DynaQ(pair_features=function)`, a function that computes what the wrapper shows.",
            stacklevel=2,
        )

    def _offline_update(self, batch: OfflineBatch) -> dict[str, th.Tensor]:
        assert not isinstance(self.world_model, TransitionModel)  # `pretrain` refuses it: it has no network to train
        policy, model = self.policy, self.world_model
        return offline_update(batch, policy, model, self.gamma, self.max_grad_norm, self._learns_values)
