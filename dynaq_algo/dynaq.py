"""DynaQ: Q-learning over candidate actions, with a learned world model of the reward and planning with it."""

from __future__ import annotations

import inspect
import io
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3 import DQN
from stable_baselines3.common import utils
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutReturn, Schedule, TrainFreq
from stable_baselines3.common.utils import LinearSchedule, polyak_update, should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from dynaq_algo.checkpoint import read_checkpoint, write_checkpoint
from dynaq_algo.features import (
    PAIRS,
    ActionTable,
    CandidateLayout,
    DecisionBatch,
    DistinctPairs,
    PairNetwork,
    best_match,
)
from dynaq_algo.gaussian_process import GaussianProcess
from dynaq_algo.gradients import SquaredError
from dynaq_algo.planning import CrossedPairs, PlanningSource, make_planning_source
from dynaq_algo.policies import CandidatePolicy, check_mask, masked
from dynaq_algo.replay import CandidateReplay, Transitions
from dynaq_algo.target_values import TargetValues
from dynaq_algo.validity import Validity
from dynaq_algo.vec_env import GymnasiumVecEnv, as_vec_env, attribute_of, pair_sample_of, table_of, what_is_read
from dynaq_algo.weight_pull import Anchor
from dynaq_algo.world_model import WorldModel

__all__ = ["DynaQ"]

BOOTSTRAPS = ("same_action", "max", "double")
WORLD_MODELS = ("network", "gaussian_process")
PLANNING = ("background", "decision_time")
WINDOW = 1_000
# Arguments of SB3's DQN.
NOT_OURS = {"replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage", "n_steps"}


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Takes numbers below 1e-38 for 0 meanwhile.

    The moments that Adam keeps of weights without a gradient decay into such numbers, and a CPU computes with them many
    times slower.
    """
    were_kept = bool((th.full((1,), 1e-38) * 0.1).item())
    th.set_flush_denormal(True)
    try:
        yield
    finally:
        th.set_flush_denormal(not were_kept)


class NextCandidates(NamedTuple):
    """Between what the next decisions of n transitions are.

    Attributes:
        pairs: The next states, (n, 1), with the next candidates, (n, k).
        mask: (n, k) bool.
        terminated: (n,) bool, whether there is no next decision.
    """

    pairs: DistinctPairs
    mask: th.Tensor
    terminated: th.Tensor

    def take(self, rows: slice) -> NextCandidates:
        """Of some of the transitions."""
        return NextCandidates(self.pairs.take(rows), self.mask[rows], self.terminated[rows])

    def scores(self, values: Callable[[DistinctPairs], th.Tensor]) -> th.Tensor:
        """Values of them, (n, k), -inf where masked."""
        return masked(values(self.pairs), self.mask)


class Batch(NamedTuple):
    """n transitions as tensors.

    Attributes:
        pairs: The n pairs (s, a).
        inputs: (n, output_dim) their features.
        following: What may be chosen next, for `double`, which chooses as late as at the update.
    """

    pairs: DistinctPairs
    inputs: th.Tensor
    following: NextCandidates | None = None

    def split(self, size: int) -> list[Batch]:
        """Consecutive batches of `size` transitions, without a copy."""
        return [self._rows(slice(start, start + size)) for start in range(0, len(self.inputs), size)]

    def _rows(self, rows: slice) -> Batch:
        following = None if self.following is None else self.following.take(rows)
        return Batch(self.pairs.take(rows), self.inputs[rows], following)


class DynaQ(DQN):
    """Dyna-Q with function approximation, on environments that offer a set of candidate actions.

    After each transition: one update of the Q-network on real rewards, one of the world model M(s, a) on the same
    transitions, then `planning_steps` updates of the Q-network on rewards that the model imagines (Sutton, 1990; deep
    Q-learning with replay and target network after Mnih et al., 2015). Targets are

    * `bootstrap="same_action"`: r + gamma * Q_target(s', a), the same action, for gamma < 1;
    * `bootstrap="max"`: r + gamma * max Q_target(s', a') over the next candidates that the mask allows;
    * `bootstrap="double"`: the maximum's action chosen by the online network (van Hasselt et al., 2016).

    That is planning in the background. With `planning="decision_time"` (Sutton and Barto, 2018, section 8.8) a Q-value
    is the world model's reward of the candidate that is asked about plus gamma times a future: the Q-network learns the
    second alone, by the same updates, less the reward. What the model has learned from the last reward is in the next
    decision, and at `gamma=0`, where Q is the reward, that is planning carried to its end: nothing is left for the
    Q-network, and no update of it is made.

    A terminated transition does not bootstrap, a truncated one does. With n environments a vector step is followed by n
    direct, n model and n * `planning_steps` planning updates.

    All randomness (exploration, replay, planning, initial weights) comes from generators owned by the object; neither
    Python's, numpy's nor torch's global state is seeded or used. `predict(..., deterministic=False)` explores.

    Logged, beside SB3's own: `train/loss` (TD loss of the direct updates), `train/planning_loss`, `train/model_loss`,
    `train/model_r2` (of rewards predicted before the model was trained on them, over the last 1,000 transitions),
    `train/q_mean` (mean Q of the batch), `train/n_updates` (direct updates), `train/planning_updates`,
    `rollout/exploration_rate`, and `reward/<name>`: each of `info["reward_components"]`, mean of the last 1,000.

    Args:
        policy: `"CandidatePolicy"` or a subclass of it.
        env: Gymnasium environment, its id, SB3 VecEnv, or Gymnasium VectorEnv (in SAME_STEP autoreset mode), with a
            Dict observation, see :class:`~dynaq_algo.policies.CandidatePolicy`.
        learning_rate: Of both networks; a number or a function of the progress remaining (1 to 0).
        planning: `"background"`, or `"decision_time"`.
        planning_steps: Planning updates after each direct update.
        bootstrap: `"same_action"`, `"max"` or `"double"`.
        planning_source: `"visited"`, `"candidates"`, `"crossed"` or an object, see :mod:`dynaq_algo.planning`.
        relabel: Whether rewards in replay are recomputed at the weights of the latest step, where the reward is a
            weighted sum whose weights change: from `info["reward_components"]` and `info["reward_weights"]` (name ->
            number, both). A transition that lacks a component whose weight is not 0 is left out.
        action_features: For id observations: (n_actions, d_a) or the path of an .npy file; else the environment's
            attribute `action_features`. A saved agent holds the path and a checksum, never the values.
        pair_features: What observations with an entry `pairs` would say of pairs that nobody was shown, for
            `planning_source="crossed"`: (n,) applicant ids as in `info["applicant_id"]`, (n,) candidate ids -> (n, p);
            else the environment's method `pair_features`. It is not saved with the agent.
        world_model: `"network"`, one or several, or `"gaussian_process"`, Bayesian.
        world_model_kwargs: `n_members`, `net_arch` (the policy's by default), ..., see
            :class:`~dynaq_algo.world_model.WorldModel`; `noise`, `scales`, ..., and `prior` (the policy's by default),
            see :class:`~dynaq_algo.gaussian_process.GaussianProcess`.
        exploration_bonus: Where epsilon does not explore, the choice is the candidate of the highest Q-value plus so
            many times the spread of the world model's reward, as Dyna-Q+ favours what it has not tried lately.
        gamma: Discount, below 1 for `same_action`.
        batch_size: Transitions in each update.
        buffer_size: Transitions in replay.
        learning_starts: Transitions, chosen at random, before the first update.
        train_freq: Vector steps (or `(n, "episode")`) between trainings.
        gradient_steps: Direct updates in each training; -1 as many as transitions. None: 1, with several envs -1.
        target_update_interval: Transitions between copies of the Q-network to its target.
        exploration_fraction: Share of training over which epsilon falls.
        max_grad_norm: Gradient clipping; none by default.
        weight_pull: The share, 0 to 1, of the way back to where it began learning that every weight of the Q-network
            moves after each update, and of the world model if it is a network (L2 Init; Kumar et al., 2023). What
            pre-training taught is then not forgotten within a few interactions: it is where the weights begin, and it
            is not pulled itself. 0, the default, is none.
        policy_kwargs: `features`, `net_arch`, ..., see :class:`~dynaq_algo.policies.CandidatePolicy`.
        seed: Any number of 0 or more; None for fresh entropy.
        **kwargs: Further arguments of :class:`stable_baselines3.DQN` (`tau`, `exploration_initial_eps`,
            `exploration_final_eps`, `tensorboard_log`, `verbose`, `device`, `stats_window_size`).

    Raises:
        ValueError: If an argument is out of range, or the environment of another kind.

    Example:
        >>> model = DynaQ("CandidatePolicy", env, policy_kwargs={"features": "interaction"}, seed=0)  # doctest: +SKIP
        >>> model.learn(20_000, progress_bar=True).save("agent.zip")  # doctest: +SKIP
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CandidatePolicy": CandidatePolicy}
    policy: CandidatePolicy  # type: ignore[assignment]
    replay_buffer: CandidateReplay  # type: ignore[assignment]
    world_model: WorldModel | GaussianProcess
    q_net: PairNetwork  # type: ignore[assignment]
    q_net_target: PairNetwork  # type: ignore[assignment]
    _n_scored: int

    def __init__(
        self,
        policy: str | type[CandidatePolicy],
        env: GymEnv | VectorEnv | str,
        learning_rate: float | Schedule = 1e-3,
        *,
        planning: str = "background",
        planning_steps: int = 5,
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
        if refused := NOT_OURS & kwargs.keys():
            raise ValueError(
                f"{sorted(refused)} are not arguments of DynaQ: it has a compact replay of its own and one-step "
                "targets. Set `buffer_size`."
            )
        known = {*inspect.signature(DynaQ).parameters, *inspect.signature(DQN).parameters} - NOT_OURS - {"kwargs"}
        _refuse_unknown_arguments("DynaQ", kwargs, known)
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,  # type: ignore[arg-type]
            learning_rate,
            gamma=gamma,
            batch_size=batch_size,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            train_freq=train_freq,
            gradient_steps=1 if gradient_steps is None else gradient_steps,
            target_update_interval=target_update_interval,
            exploration_fraction=exploration_fraction,
            max_grad_norm=max_grad_norm,
            policy_kwargs=dict(policy_kwargs or {}),
            seed=seed,
            _init_setup_model=False,
            **kwargs,
        )
        self.planning = planning
        self.planning_steps = planning_steps
        self.bootstrap = bootstrap
        self.planning_source = planning_source
        self.relabel = relabel
        self.action_features = action_features
        self.pair_features = pair_features
        self.world_model_name = world_model
        self.exploration_bonus = exploration_bonus
        self.weight_pull = weight_pull
        self.world_model_kwargs = dict(world_model_kwargs or {})
        self.action_table: ActionTable | None = None
        self._gradient_steps_by_default = gradient_steps is None
        self._action_table_reference: dict[str, str | int | None] | None = None
        # What the environment shows, for a saved agent; see what_is_read.
        self.reads: dict[str, Any] = {}
        self._n_transitions = 0
        self._n_planning_updates = 0
        # Whether learning has begun from weights to which `weight_pull` leads back; a saved agent then holds them.
        self._is_anchored = False
        self._validity = Validity()
        self._component_windows: dict[str, deque[float]] = {}
        # Rewards, and what was predicted of them before the model was trained on them.
        self._earned: deque[float] = deque(maxlen=WINDOW)
        self._predicted: deque[float] = deque(maxlen=WINDOW)
        if _init_setup_model:
            self._setup_model()

    @classmethod
    def plus(cls, env: GymEnv | VectorEnv | str, seed: int | None = 0, **overrides: Any) -> DynaQ:
        """The best agent that this project knows; what each part is for stands in docs/dynaq_plus.md.

        It begins with a prior, the block similarities of state and action. A Gaussian process learns rewards, doubts
        the prior, and plans at decision time. Where the observation has `pairs`, it trusts the shown numbers to say
        more than similarities do, and explores less.

        Args:
            env: As for the class.
            seed: As for the class.
            **overrides: Other arguments of the class; `policy_kwargs` and `world_model_kwargs` entry by entry, and so
                the `scales` in the second.

        Example:
            >>> DynaQ.plus(env, policy_kwargs={"prior": [0.0, 0.0]}).learn(1_500)  # doctest: +SKIP
        """
        vec_env = as_vec_env(env)
        has_pairs = isinstance(vec_env.observation_space, spaces.Dict) and PAIRS in vec_env.observation_space.spaces
        scales = {
            "constant": 1.0,
            "similarity": 0.03,
            "pairs": 0.1,
            "trust": 0.0,
            "state": 0.15,
            "same_state": 0.2,
            # What the pairs' numbers say of a job and a pair is not peculiar to them.
            "same_action": 0.11 if has_pairs else 0.15,
            "same_pair": 0.15 if has_pairs else 0.2,
        }
        arguments: dict[str, Any] = {
            "policy": "CandidatePolicy",
            "planning": "decision_time",
            "gamma": 0.0,  # a recommendation changes neither the applicant nor what is shown next
            "learning_starts": 0,  # the prior acts from the first interaction on
            "exploration_initial_eps": 0.0,
            "exploration_final_eps": 0.0,
            "exploration_bonus": 0.5 if has_pairs else 1.0,
            "world_model": "gaussian_process",
            "world_model_kwargs": {"noise": 0.3, "spike_slab": True, "scales": scales},
            "policy_kwargs": {"features": "blockwise", "prior": [0.1, 0.1], "net_arch": [128, 128]},
        }
        if overrides.get("world_model", "gaussian_process") != "gaussian_process":
            del arguments["world_model_kwargs"]  # those of a Gaussian process
        return cls(env=vec_env, seed=seed, **_merged(arguments, overrides))

    # ------------------------------------------------------------------ learning

    @denormals_flushed()
    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """`gradient_steps` times: a direct update, a model update, `planning_steps` planning updates.

        The world model learns from real transitions only. Nothing happens before the first valid transition.
        """
        if not self.replay_buffer.n_usable or gradient_steps < 1:
            return
        self._score_new_transitions()
        if (r2 := self._model_r2()) is not None:
            self.logger.record("train/model_r2", r2)
        if not self._learns_values and self.world_model.optimizer is None:
            return  # what there was to learn is learned
        self._drop_anchor()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers)

        losses, model_losses, planning_losses, q_means = [], [], [], []
        for _ in range(gradient_steps):
            transitions = self.replay_buffer.sample(batch_size, self._rngs["replay"])
            batch, reward = self._batch(transitions), self._tensor(self._normalised(transitions.reward))

            if self._learns_values:
                target_values = self._target_values(transitions, batch, imagined=False)
                target = self._targets(batch, reward if self.planning == "background" else None, target_values)
                loss, q_values = self._q_update(batch.inputs, target)
                self._pull_back("q_net")
                losses.append(loss)
                q_means.append(q_values.mean())

            model_losses.append(self.world_model.update(batch.inputs, reward, transitions.serial))
            self._pull_back("world_model")

            if self._learns_values and self.planning_steps:
                planning_losses += self.plan(batch_size)

        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/planning_updates", self._n_planning_updates, exclude="tensorboard")
        means = {"loss": losses, "q_mean": q_means, "model_loss": model_losses, "planning_loss": planning_losses}
        for name, values in means.items():
            if values:
                self.logger.record(f"train/{name}", _mean(values))

    @denormals_flushed()
    def plan(self, batch_size: int) -> list[th.Tensor]:
        """`planning_steps` optimiser steps on imagined pairs; returns their losses, none where nothing is to learn."""
        if self.planning_steps == 0 or not self._learns_values:
            return []
        self._drop_anchor()
        pairs = self._planner.sample(self.replay_buffer, self.planning_steps * batch_size, self._rngs["planning"])
        planned = self._batch(pairs)
        # Neither the world model nor the target network changes within the planning steps: one pass of each serves all.
        imagined = self._imagined_rewards(planned.pairs) if self.planning == "background" else None
        target_values = self._target_values(pairs, planned)
        self._n_planning_updates += self.planning_steps
        if planned.following is None:
            targets: Iterable[th.Tensor] = self._targets(planned, imagined, target_values).split(batch_size)
        else:  # the Q-network of each step chooses what follows
            rewards = [None] * self.planning_steps if imagined is None else imagined.split(batch_size)
            parts = zip(planned.split(batch_size), rewards, target_values.split(batch_size), strict=True)
            targets = itertools.starmap(self._targets, parts)
        steps = zip(planned.inputs.split(batch_size), targets, strict=True)
        losses = []
        for inputs, target in steps:
            losses.append(self._q_update(inputs, target)[0])
            self._pull_back("q_net")
        return losses

    @property
    def _learns_values(self) -> bool:
        """Whether the Q-network has anything to learn."""
        return self.planning == "background" or self.gamma > 0

    @th.no_grad()
    def _imagined_rewards(self, pairs: DistinctPairs) -> th.Tensor:
        """What the world model says (n,) or (n, k) of pairs."""
        if isinstance(self.world_model, WorldModel) and self.policy.features.separable:
            return self.world_model.of_pairs(pairs)
        return self.world_model(self.policy.features.of_pairs(pairs), with_spread=False)[0]

    def _values(self, network: PairNetwork) -> Callable[[DistinctPairs], th.Tensor]:
        """Q by the Q-network or its target: of pairs, (n,) or (n, k)."""
        if self.planning == "background":
            return network.of_pairs
        return lambda pairs: self._imagined_rewards(pairs) + self.gamma * network.of_pairs(pairs)

    @th.no_grad()
    def _values_of_inputs(self, inputs: th.Tensor) -> th.Tensor:
        """Q by the target network, (n,), of inputs (n, output_dim)."""
        future = self.q_net_target(inputs)
        if self.planning == "background":
            return future
        return self.world_model(inputs, with_spread=False)[0] + self.gamma * future

    def _q_update(
        self, inputs: th.Tensor, target: th.Tensor, weight: th.Tensor | None = None
    ) -> tuple[th.Tensor, th.Tensor]:
        """One optimiser step of the Q-network.

        Args:
            inputs: (n, output_dim) of pairs.
            target: (n,) what their values are to be.
            weight: (n,) how much each counts; None for all alike.

        Returns:
            The mean squared TD error and the Q-values (n,), both of before the step.
        """
        loss, q_values = self._squared_error(self.q_net, self.policy.optimizer, inputs, target, weight)
        if np.isfinite(self.max_grad_norm):
            th.nn.utils.clip_grad_norm_(self.q_net.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return loss, q_values

    def _drop_anchor(self) -> None:
        """Keep where the weights are when learning begins."""
        if self.weight_pull and not self._is_anchored:
            self.anchors = self._make_anchors()
            self._is_anchored = True

    def _pull_back(self, network: str) -> None:
        """After an update of `q_net` or `world_model`: a share of the way back; a Gaussian process has no weights."""
        if self.weight_pull and network in self.anchors:
            self.anchors[network].pull(getattr(self, network), self.weight_pull)  # type: ignore[operator]

    def _make_anchors(self) -> th.nn.ModuleDict:
        networks = {"q_net": self.q_net, "world_model": self.world_model}
        return th.nn.ModuleDict({name: Anchor(net) for name, net in networks.items() if [*net.parameters()]})

    @th.no_grad()
    def _targets(self, batch: Batch, reward: th.Tensor | None, target_values: th.Tensor) -> th.Tensor:
        """`reward + gamma * next value`, (n,); the next value alone where the Q-network learns the future alone.

        Args:
            batch: n transitions.
            reward: (n,) earned or imagined; None for the next value alone.
            target_values: Of the same transitions, see :meth:`_target_values`.
        """
        if batch.following is not None:
            best = batch.following.scores(self._values(self.q_net)).argmax(dim=1, keepdim=True)
            target_values = _of_what_goes_on(target_values.gather(1, best).squeeze(1), batch.following.terminated)
        return target_values if reward is None else reward + self.gamma * target_values

    @th.no_grad()
    def _target_values(self, transitions: Transitions, batch: Batch, imagined: bool = True) -> th.Tensor:
        """What the target network says of the next step.

        Args:
            transitions: n of them.
            batch: The same.
            imagined: Whether they may be others than those stored.

        Returns:
            Its value (n,), 0 where terminated, or where nothing is left to choose; for `double`, which has yet to
            choose, the values (n, k) of all next candidates.
        """
        if batch.following is not None:
            return batch.following.scores(self._values(self.q_net_target))
        evaluate = self._same_action_values if self.bootstrap == "same_action" else self._highest_values
        if self.planning == "decision_time":  # the model's part changes with every reward: nothing to keep
            return evaluate(transitions)
        return self._kept_values.of(
            transitions, self.replay_buffer, self.q_net_target, self.bootstrap, evaluate, imagined
        )

    def _same_action_values(self, transitions: Transitions) -> th.Tensor:
        """Q_target(s', a), (n,), 0 where terminated."""
        # How `pairs` would move with the state is not known, so those of the same action stay as they are.
        pairs = self._distinct(transitions.next_state_id, transitions.candidate_id, transitions.pairs)
        values = self._values(self.q_net_target)(pairs)
        return _of_what_goes_on(values, self._tensor(transitions.terminated))

    def _highest_values(self, transitions: Transitions) -> th.Tensor:
        """The highest Q_target(s', a') that is allowed, (n,), 0 where terminated or where nothing is."""
        following = self._following(transitions)
        return _of_what_goes_on(following.scores(self._values(self.q_net_target)).amax(dim=1), following.terminated)

    def _batch(self, transitions: Transitions) -> Batch:
        """Vectors of some transitions, gathered from the tables."""
        pairs = self._distinct(transitions.state_id, transitions.candidate_id, transitions.pairs)
        inputs = self.policy.features.of_pairs(pairs)
        following = self._following(transitions) if self.bootstrap == "double" else None
        return Batch(pairs, inputs, following)

    def _normalised(self, reward: np.ndarray) -> np.ndarray:
        """Rewards (n,) in the scale of learning."""
        if self._vec_normalize_env is None:
            return reward
        return self._vec_normalize_env.normalize_reward(reward).astype(np.float32)

    def _following(self, transitions: Transitions) -> NextCandidates:
        candidate_id, mask = self.replay_buffer.candidate_sets(transitions.position, following=True)
        shown = self.replay_buffer.pair_sets(transitions.position, following=True)
        pairs = self._distinct(transitions.next_state_id[:, None], candidate_id, shown)
        return NextCandidates(pairs, self._tensor(mask), self._tensor(transitions.terminated))

    def _distinct(
        self, state_id: np.ndarray, candidate_id: np.ndarray, pairs: np.ndarray | None = None
    ) -> DistinctPairs:
        """Vectors of states and candidates by their ids in replay, (n,) each or (n, 1) and (n, k), each once.

        `pairs` are (n, p) or (n, k, p).
        """
        replay, policy = self.replay_buffer, self.policy
        (states, state_row), (actions, action_row) = (
            np.unique(ids, return_inverse=True) for ids in (state_id, candidate_id)
        )
        return DistinctPairs(
            self._tensor(replay.state_rows(states)),
            self._tensor(state_row.reshape(state_id.shape)),
            policy.action_features(replay.candidate_rows(actions)),
            self._tensor(action_row.reshape(candidate_id.shape)),
            policy.tensor(pairs),
        )

    def _score_new_transitions(self) -> None:
        """Let the world model predict rewards that it has not been trained on, then tell it."""
        replay = self.replay_buffer
        # A network learns the others by replay.
        most = len(replay) if self.world_model.optimizer is None else WINDOW
        n_new = min(replay.n_added - self._n_scored, len(replay), most)
        self._n_scored = replay.n_added
        if n_new > 0:
            newest = np.arange(replay.n_added - n_new, replay.n_added) % replay.capacity
            new = replay[newest[replay.usable(newest)]]
            state = self._tensor(replay.state_rows(new.state_id))
            action = self.policy.action_features(replay.candidate_rows(new.candidate_id))
            pairs, reward = self.policy.tensor(new.pairs), self._tensor(self._normalised(new.reward))
            with th.no_grad():
                predicted, _ = self.world_model(self.policy.features(state, action, pairs), with_spread=False)
                self.world_model.observe(state, action, pairs, reward)
            self._earned.extend(reward.tolist())
            self._predicted.extend(predicted.tolist())

    def _model_r2(self) -> float | None:
        earned, predicted = (np.fromiter(window, float, len(window)) for window in (self._earned, self._predicted))
        spread = float(np.square(earned - earned.mean()).sum()) if len(earned) else 0.0
        return 1.0 - float(np.square(earned - predicted).sum()) / spread if spread > 0 else None

    def _on_step(self) -> None:
        """After each vector step: copy the target network when its interval has passed, and lower epsilon."""
        self._count_transitions(self.n_envs)
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def _count_transitions(self, n: int) -> None:
        """Count n more, and copy the target network when its interval has passed."""
        copies_before = self._n_transitions // self.target_update_interval
        self._n_transitions += n
        if self._n_transitions // self.target_update_interval > copies_before:
            polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), self.tau)
            self._kept_values.network_changed()

    def learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> DynaQ:
        """Interact and train, as :meth:`stable_baselines3.DQN.learn`.

        A callback sees a step when it is complete (stored and counted), so one that returns False loses nothing: the
        training that is due comes first when learning goes on with `reset_num_timesteps=False`.

        Raises:
            NothingLearned: If no transition was valid; where some were not, one warning says how many.
        """
        names = ("callback", "log_interval", "tb_log_name", "reset_num_timesteps", "progress_bar")
        kwargs = {"tb_log_name": "DynaQ", **dict(zip(names, args, strict=False)), **kwargs}
        if kwargs.get("reset_num_timesteps", True):
            self._rollout_steps = self._rollout_episodes = 0
        self._validity = Validity()
        super().learn(total_timesteps, **kwargs)
        self._validity.report()
        return self

    def collect_rollouts(  # type: ignore[override]
        self,
        env: VecEnv,
        callback: Any,
        train_freq: TrainFreq,
        replay_buffer: CandidateReplay,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Interact until training is due, as SB3's, but callbacks see a step after it is stored, not before.

        A rollout that a callback stopped is taken up where it was left.
        """
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        continue_training = True
        while continue_training and should_collect_more_steps(train_freq, self._rollout_steps, self._rollout_episodes):
            self._see(self.policy.layout.read(self._last_obs))  # type: ignore[arg-type]
            actions, buffer_actions = self._sample_action(learning_starts, action_noise, env.num_envs)
            new_obs, rewards, dones, infos = env.step(actions)

            self.num_timesteps += env.num_envs
            self._rollout_steps += 1
            self._rollout_episodes += int(np.sum(dones))
            logged_episodes = self._episode_num
            self._episode_num += int(np.sum(dones))
            self._update_info_buffer(infos, dones)
            self._store_transition(replay_buffer, buffer_actions, new_obs, rewards, dones, infos)
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self._on_step()

            callback.update_locals(locals())
            continue_training = bool(callback.on_step())
            if log_interval is not None and self._episode_num // log_interval > logged_episodes // log_interval:
                self.dump_logs()
        result = RolloutReturn(self._rollout_steps * env.num_envs, self._rollout_episodes, continue_training)
        if continue_training:
            callback.on_rollout_end()
            self._rollout_steps = self._rollout_episodes = 0
        return result

    def _see(self, decisions: DecisionBatch) -> None:
        """Show the features what is about to be decided, so that they know the scale of their inputs."""
        candidates = None if self.policy.layout.uses_ids else decisions.candidates
        self.policy.features.see(candidates, decisions.pairs)

    def _store_transition(  # type: ignore[override]
        self,
        replay_buffer: CandidateReplay,
        buffer_action: np.ndarray,
        new_obs: Any,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one step; what follows a truncated step is its terminal observation, not the reset's."""
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos], bool) & dones
        layout = self.policy.layout
        next_obs = layout.read(new_obs)
        if truncated.any():
            next_obs = DecisionBatch(*(None if part is None else part.copy() for part in next_obs))  # type: ignore[arg-type]
            for i in np.flatnonzero(truncated):
                final = layout.read(infos[i]["terminal_observation"])
                for part, final_part in zip(next_obs, final, strict=True):
                    if part is not None and final_part is not None:
                        part[i] = final_part[0]
        if self._vec_normalize_env is not None:
            reward = self._vec_normalize_env.get_original_reward()
        assert self._last_obs is not None  # set by _setup_learn
        obs = layout.read(self._last_obs)  # type: ignore[arg-type]
        replay_buffer.add(obs, next_obs, buffer_action, reward, dones & ~truncated, infos)
        self._take_note(infos)
        self._last_obs = new_obs

    def _take_note(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Of one step of all environments: what is valid, the latest weights of the reward, and its components."""
        for info, is_valid in zip(infos, self._validity.count(infos), strict=True):
            if is_valid:
                if self.relabel:
                    self.replay_buffer.weights = _reward_weights(info)
                for name, value in info.get("reward_components", {}).items():
                    self._component_windows.setdefault(name, deque(maxlen=WINDOW)).append(float(value))

    def observe(
        self,
        observation: Mapping[str, Any],
        action: np.ndarray | int,
        reward: np.ndarray | float,
        next_obs: Mapping[str, Any] | None = None,
        terminated: np.ndarray | bool = False,
        info: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Learn from answers that were given outside of :meth:`learn`, one after the other.

        Each is stored, counts as an interaction, and is followed by the updates that `learn` would make with
        `train_freq=1`. Nothing is stored if one of a batch is refused. A set of another number of candidates than in
        training is stored with the chosen one first, then those that the mask allows: what is missing repeats the first
        one, what is too much is left out.

        Args:
            observation: One observation or a batch of n.
            action: Index of the recommended candidate, () or (n,).
            reward: What it earned, () or (n,).
            next_obs: What followed; may be left out where gamma is 0.
            terminated: Whether that ended the episode, () or (n,).
            info: Of each answer, as an environment gives it; `transition_valid` False leaves one out.

        Raises:
            ValueError: If numbers of rows differ, an action names no candidate, an id no action, a number is not
                finite, or `next_obs` is missing.
        """
        if next_obs is None and self.gamma > 0:
            raise ValueError(
                f"`next_obs` must be given where gamma is above 0 (it is {self.gamma}): the value of an action is also "
                "what may follow. Pass the observation after the answer; where `terminated` is True, any will do."
            )
        layout = self.policy.layout
        decisions = layout.read(observation)
        following = decisions if next_obs is None else layout.read(next_obs)
        n, k = decisions.candidates.shape[:2]
        actions, rewards = np.reshape(action, -1), np.reshape(np.asarray(reward, np.float64), -1)
        infos = [info or {}] * n if info is None or isinstance(info, Mapping) else list(info)
        ends = np.reshape(np.asarray(terminated, bool), -1)
        ends = np.repeat(ends, n) if len(ends) == 1 else ends
        sizes = {"action": len(actions), "reward": len(rewards), "next_obs": len(following.state)}
        for name, size in {**sizes, "terminated": len(ends), "info": len(infos)}.items():
            if size != n:
                raise ValueError(f"`{name}` must have {n} rows, as `observation` has, got {size}.")
        if not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"`action` must be integers, indices of candidates, got {actions.dtype}.")
        if (bad := (actions < 0) | (actions >= k)).any():
            row = bad.argmax()
            raise ValueError(f"`action` must be in [0, {k}), the candidates shown, row {row} is {actions[row]}.")
        if (bad := ~np.isfinite(rewards)).any():
            row = bad.argmax()
            raise ValueError(f"`reward` must be finite, row {row} is {rewards[row]}. Leave out answers without one.")
        self._refuse_unusable("observation", decisions)
        self._refuse_unusable("next_obs", following)
        if not hasattr(self, "_logger"):
            self._logger = utils.configure_logger(self.verbose, self.tensorboard_log, "DynaQ_observe")
        for i in range(n):
            row = np.array([i])
            obs, at = self._as_in_training(decisions.take(row), actions[i])
            then, _ = self._as_in_training(following.take(row), 0)
            self._take_note([infos[i]])
            self._see(obs)
            self.replay_buffer.add(obs, then, at, rewards[row], ends[row], [infos[i]])
            self.num_timesteps += 1
            self._count_transitions(1)
            if self.num_timesteps > self.learning_starts:
                self.train(self.gradient_steps if self.gradient_steps >= 0 else 1, self.batch_size)

    def _as_in_training(self, decision: DecisionBatch, action: int) -> tuple[DecisionBatch, np.ndarray]:
        """A decision (n = 1) between as many candidates as in training, and where the chosen one is then, (1,)."""
        k, wanted = decision.candidates.shape[1], self.policy.layout.n_candidates
        if k == wanted:
            return decision, np.array([action])
        allowed = np.ones(k, bool) if decision.mask is None else decision.mask[0]
        others = sorted((column for column in range(k) if column != action), key=lambda column: not allowed[column])
        columns = np.array([action, *others, *[action] * wanted][:wanted])
        parts = (None if part is None else part[:, columns] for part in decision[1:])
        return DecisionBatch(decision.state, *parts), np.array([0])  # type: ignore[arg-type]

    def _refuse_unusable(self, name: str, decisions: DecisionBatch) -> None:
        """Refuse decisions that nothing can be learned from: one bad number would spoil all that is known."""
        entries = {"state": decisions.state, "candidates": decisions.candidates, "pairs": decisions.pairs}
        for entry, values in entries.items():
            if values is not None and not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                raise ValueError(
                    f"`{name}` must hold finite numbers, row {row} does not (in its {entry}). Leave such answers out."
                )
        if self.action_table is not None:
            self.action_table.check(decisions.candidates)

    def dump_logs(self) -> None:
        """Write the log, with the mean of each reward component over the last 1,000 transitions."""
        for name, values in self._component_windows.items():
            if not np.isnan(values).all():
                self.logger.record(f"reward/{name.removeprefix('reward/')}", float(np.nanmean(values)))
        super().dump_logs()

    # ------------------------------------------------------------------ offline

    @denormals_flushed()
    def pretrain(
        self,
        dataset: Mapping[str, np.ndarray],
        epochs: int = 10,
        batch_size: int | None = None,
        progress_bar: bool = False,
    ) -> dict[str, float]:
        """Train the Q-network and the world model on a data set, before or between calls of :meth:`learn`.

        Targets are same-action, whatever `bootstrap` is, with s' = s: `r + gamma * Q_target(s, a)`, or r where
        terminated. The target network is copied every `target_update_interval` updates and at the end.

        Args:
            dataset: `state` (n, d_s), `action` (n, d_a), or (n,) ids where observations hold ids, `reward` (n,),
                `pairs` (n, p) where observations have them, and optionally `terminated` (n,) bool and `weight` (n,):
                how much each row counts, in units of their mean. Entries whose names begin with `info:` are left alone.
            epochs: Passes over the data, each in a new order.
            batch_size: Pairs in each update; that of learning by default.
            progress_bar: Show one, with SB3's extra dependencies.

        Returns:
            `loss` and `model_loss`, means over the last epoch, as far as there is a network of either; also logged by
            epoch under `pretrain/`.

        Raises:
            ValueError: If an entry is missing, unknown, of another shape, or holds a value that is not finite; or if
                there is no network that would learn from it.
        """
        if not self._learns_values and self.world_model.optimizer is None:
            raise ValueError(
                '`pretrain` has no network to train with `planning="decision_time"`, gamma 0 and a Gaussian process. '
                "Tell it answers by `observe`, or what is known beforehand by `policy_kwargs={'prior': [...]}`."
            )
        if self.gamma >= 1:
            raise ValueError(f"`gamma` must be below 1 to pretrain with same-action targets, got {self.gamma}.")
        batch_size = self.batch_size if batch_size is None else batch_size
        if epochs < 1 or batch_size < 1:
            raise ValueError(f"`epochs` and `batch_size` must be 1 or more, got {epochs} and {batch_size}.")
        data = _check_dataset(dataset, self.policy)
        n = len(data["reward"])
        if not hasattr(self, "_logger"):
            self._logger = utils.configure_logger(self.verbose, self.tensorboard_log, "DynaQ_pretrain")
        rate = self.lr_schedule(self._current_progress_remaining)
        for optimizer in self._optimizers:
            utils.update_learning_rate(optimizer, rate)

        self._see_dataset(data)
        result: dict[str, float] = {}
        n_updates = 0
        self.policy.set_training_mode(True)
        for epoch in _progress(range(1, epochs + 1), progress_bar):
            order = self._rngs["pretrain"].permutation(n)
            losses, model_losses = [], []
            for rows in np.split(order, range(batch_size, n, batch_size)):
                state = self._tensor(np.asarray(data["state"][rows], np.float32))
                shown = self._tensor(np.asarray(data["pairs"][rows], np.float32)) if "pairs" in data else None
                inputs = self.policy.features(state, self._dataset_actions(data["action"][rows]), shown)
                reward = self._tensor(data["reward"][rows])
                terminated = self._tensor(data["terminated"][rows])
                weight = self._tensor(data["weight"][rows]) if "weight" in data else None
                if self._learns_values:
                    values = _of_what_goes_on(self._values_of_inputs(inputs), terminated)
                    target = values if self.planning == "decision_time" else reward + self.gamma * values
                    losses.append(self._q_update(inputs, target, weight)[0])
                model_losses.append(self.world_model.update(inputs, reward, rows, weight))
                n_updates += 1
                if n_updates % self.target_update_interval == 0:
                    self._sync_target()
            means = {"loss": losses, "model_loss": model_losses}
            result = {name: _mean(values) for name, values in means.items() if values}
            for name, value in {"epoch": epoch, **result}.items():
                self.logger.record(f"pretrain/{name}", value)
            self.logger.dump(step=n_updates)
        self._sync_target()
        self._is_anchored = False  # learning begins anew, from here
        return result

    def _see_dataset(self, data: Mapping[str, np.ndarray]) -> None:
        """Show the features 20,000 rows of a data set, evenly spread."""
        n, layout = len(data["reward"]), self.policy.layout
        for rows in np.array_split(np.linspace(0, n - 1, min(n, 20_000), dtype=np.int64), 20):
            if len(rows):
                actions = None if layout.uses_ids else np.asarray(data["action"][rows, None], np.float32)
                pairs = np.asarray(data["pairs"][rows, None], np.float32) if layout.n_pairs else None
                self.policy.features.see(actions, pairs)

    def _dataset_actions(self, actions: np.ndarray) -> th.Tensor:
        """Features (n, d_a) of a data set's actions: features (n, d_a) or ids (n,)."""
        return self.policy.action_features(actions) if actions.ndim == 1 else self._tensor(actions.astype(np.float32))

    # ------------------------------------------------------------------ acting

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
        layout = self.policy.layout
        decisions = layout.read(observation)
        explore = np.zeros(len(decisions.state), bool)
        if not deterministic:
            explore = self._rngs["exploration"].random(len(explore)) < self.exploration_rate
        action = np.empty(len(explore), np.int64)
        if explore.any():
            action[explore] = self._random_action(decisions.take(explore))
        if not explore.all():
            others = decisions.take(~explore) if explore.any() else decisions
            action[~explore] = self.policy.greedy(others, 0.0 if deterministic else self.exploration_bonus)
        return (action if layout.is_batch(observation) else action[0]), state

    def q_values(self, observation: Mapping[str, Any]) -> np.ndarray:
        """Q-values (n, k) of one observation (n = 1) or a batch, masked candidates included."""
        with th.no_grad():
            return self.policy.q_values(self.policy.layout.read(observation)).cpu().numpy()

    def predict_reward(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The world model's rewards (n, k) of one observation (n = 1) or a batch, masked candidates included."""
        return self._imagine(self.policy.layout.read(observation))[0].cpu().numpy()

    def reward_spread(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The world model's doubt about :meth:`predict_reward`, a standard deviation, (n, k); 0 where it has none."""
        return self._imagine(self.policy.layout.read(observation))[1].cpu().numpy()

    def _imagine(self, decisions: DecisionBatch) -> tuple[th.Tensor, th.Tensor]:
        """Mean and spread of the world model's rewards, (n, k) each."""
        with th.no_grad():
            actions, pairs = self.policy.action_features(decisions.candidates), self.policy.tensor(decisions.pairs)
            return self.world_model.score(self._tensor(decisions.state), actions, pairs)

    def _sample_action(
        self,
        learning_starts: int,
        action_noise: ActionNoise | None = None,
        n_envs: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self._last_obs is not None  # set by _setup_learn
        if self.num_timesteps < learning_starts:
            action = self._random_action(self.policy.layout.read(self._last_obs))  # type: ignore[arg-type]
        else:
            action, _ = self.predict(self._last_obs, deterministic=False)  # type: ignore[arg-type]
        return action, action

    def _random_action(self, decisions: DecisionBatch) -> np.ndarray:
        """Uniform among the candidates that the mask allows, (n,)."""
        check_mask(decisions.mask)
        draws = self._rngs["exploration"].random(decisions.candidates.shape[:2])
        return (draws if decisions.mask is None else np.where(decisions.mask, draws, -1.0)).argmax(axis=1)

    # ------------------------------------------------------------------ set-up

    def set_random_seed(self, seed: int | None = None) -> None:
        """Make the generators anew; a given seed is passed on to the environments, and no global state is touched."""
        names = ("exploration", "replay", "planning", "pretrain", "weights")
        streams = np.random.SeedSequence(seed).spawn(len(names))
        self._rngs = {name: np.random.default_rng(stream) for name, stream in zip(names, streams, strict=True)}
        if seed is not None and self.env is not None:
            self.env.seed(seed)

    def set_env(self, env: GymEnv | VectorEnv, force_reset: bool = True) -> None:
        """Change the environment, see SB3; candidate ids must name the same actions.

        Raises:
            ValueError: If the environment shows something else than what the agent reads, another number of candidates,
                or its table of actions is another one, but for rows added at its end.
        """
        env = self._wrap_env(env, self.verbose)
        _refuse_normalised_observations(env)
        _refuse_other_observations(self.reads, what_is_read(env))
        if env.action_space != self.action_space:
            raise ValueError(
                f"`env` must have the action space {self.action_space}, as many candidates as are in replay, got "
                f"{env.action_space}. `DynaQ.load(path, env=env)` takes any number: save the agent, and load it there."
            )
        table, values = self.action_table, table_of(env)
        if table is not None and values is not None and values is not table.values:
            table = self._grown_table(ActionTable(values), table)
            # Ids may name more actions than before.
            self.observation_space = self.policy.observation_space = env.observation_space
        super().set_env(env, force_reset)
        self.policy.action_table = self.action_table = table
        self._find_pair_features()

    def _setup_model(self) -> None:
        self._check_arguments()
        layout = CandidateLayout(self.observation_space, self.action_space)
        if self.env is not None:
            _refuse_normalised_observations(self.env)
            shown = what_is_read(self.env)
            _refuse_other_observations(self.reads, shown)
            self.reads = shown
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._planner = make_planning_source(self.planning_source)
        self.action_table = self._find_action_table() if layout.uses_ids else None
        self.replay_buffer = CandidateReplay(
            self.buffer_size, layout.state_dim, layout.n_candidates, layout.action_dim, self.n_envs, layout.n_pairs
        )
        self._find_pair_features()
        # Torch initialises layers from its global generator: lend it a seed and give it back as it was.
        with th.random.fork_rng(devices=[]):
            th.default_generator.manual_seed(int(self._rngs["weights"].integers(2**63)))
            self.policy = self.policy_class(  # type: ignore[assignment]
                self.observation_space,
                self.action_space,
                self.lr_schedule,
                action_table=self.action_table,
                **self.policy_kwargs,
            ).to(self.device)
            self.world_model = self._make_world_model().to(self.device)
        if self.env is not None and (sample := pair_sample_of(self.env, layout.n_pairs)) is not None:
            self.policy.features.fit_pairs(sample)
        if self.planning == "decision_time":
            for network in (self.policy.q_net, self.policy.q_net_target):
                network.begin_at_zero()
        self.policy.plan_with(self.world_model, self.gamma if self.planning == "decision_time" else None)
        self._kept_values = TargetValues(self.buffer_size, self.device)
        self._squared_error = SquaredError()
        self._create_aliases()
        # Of a loaded agent only their shapes: the values follow.
        self.anchors = self._make_anchors() if self._is_anchored else th.nn.ModuleDict()
        self._convert_train_freq()
        if self._gradient_steps_by_default:
            self.gradient_steps = 1 if self.n_envs == 1 else -1
        self.exploration_schedule = LinearSchedule(
            self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        )
        # Of the replay and the rollout, which a zip does not hold; a checkpoint does.
        self._n_scored = self._rollout_steps = self._rollout_episodes = 0

    def _make_world_model(self) -> WorldModel | GaussianProcess:
        policy = self.policy
        if self.world_model_name == "gaussian_process":
            return GaussianProcess(policy.features, **{"prior": policy.prior, **self.world_model_kwargs})  # type: ignore[arg-type]
        defaults = {
            "net_arch": policy.net_arch,
            "activation_fn": policy.activation_fn,
            "learning_rate": self.lr_schedule(1),
        }
        return WorldModel(policy.features, **{**defaults, **self.world_model_kwargs})

    @property
    def _optimizers(self) -> list[th.optim.Optimizer]:
        return [o for o in (self.policy.optimizer, self.world_model.optimizer) if o is not None]

    def _check_arguments(self) -> None:
        for name, value, known in (
            ("world_model", self.world_model_name, WORLD_MODELS),
            ("planning", self.planning, PLANNING),
            ("bootstrap", self.bootstrap, BOOTSTRAPS),
        ):
            if value not in known:
                raise ValueError(f"`{name}` must be one of {known}, got {value!r}{best_match(value, known)}.")
        model_class = GaussianProcess if self.world_model_name == "gaussian_process" else WorldModel
        for name, made, given in (
            ("policy_kwargs", self.policy_class, self.policy_kwargs),
            ("world_model_kwargs", model_class, self.world_model_kwargs),
        ):
            parameters = inspect.signature(made).parameters
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
                _refuse_unknown_arguments(f"{made.__name__}, by `{name}`,", given, {*parameters})
        if self.relabel and self.world_model_name == "gaussian_process":
            raise ValueError(
                '`relabel` must be False with `world_model="gaussian_process"`, which learns each reward once, as it '
                'was earned, got True. Use `world_model="network"`.'
            )
        if not 0 <= self.weight_pull <= 1:
            raise ValueError(
                f"`weight_pull` must be a share in [0, 1], got {self.weight_pull}. Leave it out, or 0, for no pull."
            )
        if not 0 <= self.exploration_bonus < np.inf:
            raise ValueError(f"`exploration_bonus` must be a finite number of 0 or more, got {self.exploration_bonus}.")
        if not 0 <= self.gamma <= 1 or (self.bootstrap == "same_action" and self.gamma == 1):
            raise ValueError(
                f'`gamma` must be in [0, 1], and below 1 for `bootstrap="same_action"` (its value is r / (1 - gamma)), '
                f'got {self.gamma}. Lower it, or use `bootstrap="max"`.'
            )
        for name, least in {"planning_steps": 0, "batch_size": 1, "target_update_interval": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be {least} or more, got {getattr(self, name)}.")

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(
                f"`policy` must be one of {sorted(self.policy_aliases)} or a subclass of CandidatePolicy, got "
                f"{policy_name!r}{best_match(policy_name, self.policy_aliases)}."
            )
        return self.policy_aliases[policy_name]

    @staticmethod
    def _wrap_env(env: GymEnv | VectorEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, VectorEnv):
            env = GymnasiumVecEnv(env, monitor=monitor_wrapper)
        return DQN._wrap_env(env, verbose, monitor_wrapper)

    def _find_action_table(self) -> ActionTable:
        """The table that ids name: the argument's, the environment's, or the one that a saved agent points to."""
        saved = self._action_table_reference or {}
        source: Any = self.action_features
        if source is None and self.env is not None:
            source = table_of(self.env)
        if source is None and saved.get("path") and Path(str(saved["path"])).exists():
            source = saved["path"]
        if source is None:
            where = f" The agent was trained with {saved['path']}, which is not there." if saved.get("path") else ""
            raise ValueError(
                "`candidates` are ids, so a table (n_actions, d_a) of their features is needed, and neither "
                f"`action_features=` nor an attribute `action_features` of the environment gives one.{where} Pass "
                "`action_features=` (an array or the path of an .npy file) or `env=`."
            )
        table = source if isinstance(source, ActionTable) else ActionTable(source)
        largest = int(self.observation_space["candidates"].high.max())  # type: ignore[index]
        if largest >= len(table):
            raise ValueError(
                f"`action_features` must have a row for every id that `candidates` may hold, 0 to {largest}, "
                f"got {len(table)} rows. Pass the whole table, or lower the bound of the space."
            )
        if saved.get("sha256"):
            self._check_table(table, str(saved["sha256"]), int(saved["rows"] or 0))
        return table

    def _grown_table(self, table: ActionTable, known: ActionTable) -> ActionTable:
        """The table, which begins as the known one."""
        self._check_table(table, known.sha256, len(known))
        return table

    @staticmethod
    def _check_table(table: ActionTable, sha256: str, n: int) -> None:
        if len(table) < n or table.sha256_of_first(n) != sha256:
            raise ValueError(
                f"`action_features` must begin with the {n} rows of the table that the agent was trained with (sha256 "
                f"{sha256[:12]}...), got {table.values.shape} of others: ids would name other actions. Pass the table "
                "of the training run, with new actions at its end, or train a new agent."
            )

    def _find_pair_features(self) -> None:
        """Tell the replay whom to ask about pairs that nobody was shown: the argument's function, or the environment's.

        Without an environment, as of an agent that only predicts, nobody has to be there.
        """
        replay = self.replay_buffer
        if self.env is None or not replay.n_pairs:
            return
        function = self.pair_features
        if function is None and callable(offered := attribute_of(self.env, "pair_features")):
            function = offered
        replay.pair_features = function
        crosses = self.planning_steps > 0 and isinstance(self._planner, CrossedPairs)
        if crosses and (function is None or replay.candidates is not None):
            lacking = "nobody answers" if replay.candidates is None else "candidates are features, not ids"
            raise ValueError(
                '`planning_source="crossed"` imagines pairs that nobody was shown, and of an observation with `pairs` '
                f"someone must know them, but {lacking}. It needs observations of ids, and an environment with a "
                "method `pair_features(applicant_ids, job_ids) -> (n, p)` or `DynaQ(pair_features=function)`. Without, "
                'use `planning_source="visited"` or "candidates".'
            )

    def _sync_target(self) -> None:
        self.q_net_target.load_state_dict(self.q_net.state_dict())

    def _tensor(self, array: np.ndarray) -> th.Tensor:
        return th.as_tensor(array, device=self.device)

    # ------------------------------------------------------------------ saving

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save the agent without its replay, as SB3; a table of actions by path and checksum only."""
        if self.action_table is not None:
            table = self.action_table
            self._action_table_reference = {"path": table.path, "sha256": table.sha256, "rows": len(table)}
        super().save(path, exclude, include)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | Path | io.BufferedIOBase,
        env: GymEnv | VectorEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> DynaQ:
        """Load what :meth:`save` wrote, as SB3.

        The environment may show another number of candidates than in training, and more actions, at the end of its
        table.

        Args:
            path: The zip.
            env: Where it is to act, or to learn on.
            device: Where networks are computed.
            custom_objects: In place of what was saved, by name.
            **kwargs: Further arguments of SB3's `load`, or of the class.

        Raises:
            ValueError: If the environment shows something else than what the agent reads, or names other actions.
        """
        if env is not None:
            env = as_vec_env(env)
            # Its own spaces in place of the saved ones, which SB3 would want to be equal; _setup_model compares.
            spaces_of_env = {"observation_space": env.observation_space, "action_space": env.action_space}
            custom_objects = {**spaces_of_env, **(custom_objects or {})}
        return super().load(path, env=env, device=device, custom_objects=custom_objects, **kwargs)

    def save_replay_buffer(self, path: str | PathLike[str]) -> None:  # type: ignore[override]
        """Save the replay to an .npz file, without pickle."""
        self.replay_buffer.save(path)

    def load_replay_buffer(self, path: str | PathLike[str], truncate_last_traj: bool = True) -> None:  # type: ignore[override]
        """Load what :meth:`save_replay_buffer` wrote; trajectories have no meaning here."""
        self.replay_buffer.load(path)
        self._n_scored = self.replay_buffer.n_added

    def save_checkpoint(self, folder: str | PathLike[str]) -> None:
        """Save everything that :meth:`load_checkpoint` needs to go on as if nothing had happened.

        The folder holds the model, the replay, random states, and what the environments answer to `get_state()`. It is
        replaced as a whole; an old checkpoint is never lost.
        """
        write_checkpoint(self, folder)

    @classmethod
    def load_checkpoint(cls, folder: str | PathLike[str], env: GymEnv | VectorEnv, **kwargs: Any) -> DynaQ:
        """Go on from a checkpoint: `learn(M, reset_num_timesteps=False)` then equals the run that was not stopped.

        On CPU it is equal to the bit, if the environment offers `get_state() -> dict` and `set_state(dict)` and
        `total_timesteps` is the same in sum. Otherwise it warns, and new episodes begin.

        Args:
            folder: Where :meth:`save_checkpoint` wrote.
            env: A fresh environment of the same make.
            **kwargs: For :meth:`load` (`device`, `action_features`, ...).

        Raises:
            FileNotFoundError: If there is no checkpoint.
            ValueError: If `env` has another number of environments.
        """
        return read_checkpoint(cls, folder, env, **kwargs)

    def _excluded_save_params(self) -> list[str]:
        own = [
            "action_features",
            "pair_features",
            "_validity",
            "action_table",
            "anchors",
            "_rngs",
            "_planner",
            "_kept_values",
            "_squared_error",
        ]
        return [*super()._excluded_save_params(), *own]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        optimizer = [] if self.world_model.optimizer is None else ["world_model.optimizer"]
        anchors = ["anchors"] if self._is_anchored else []
        return ["policy", "policy.optimizer", "world_model", *optimizer, *anchors], []


def _of_what_goes_on(values: th.Tensor, terminated: th.Tensor) -> th.Tensor:
    """Values (n,) of the next step, 0 where terminated, or where nothing is left to choose."""
    return values.masked_fill(terminated | (values == -th.inf), 0.0)


def _refuse_unknown_arguments(whose: str, given: Iterable[str], known: set[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        raise TypeError(f"{whose} has no argument {unknown[0]!r}{best_match(unknown[0], sorted(known))}.")


def _reward_weights(info: Mapping[str, Any]) -> dict[str, float]:
    if "reward_weights" not in info or "reward_components" not in info:
        raise ValueError(
            '`relabel=True` needs a reward that is a weighted sum, with `info["reward_components"]` and '
            '`info["reward_weights"]` (name -> number) in each step: wrap the environment in such a reward, '
            "a HybridReward for instance, or leave `relabel` out."
        )
    return {name: float(weight) for name, weight in info["reward_weights"].items()}


def _merged(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults with other values, dictionaries entry by entry."""
    both = {
        name: _merged(defaults[name], value)
        for name, value in overrides.items()
        if isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping)
    }
    return {**defaults, **overrides, **both}


def _mean(values: list[th.Tensor]) -> float:
    return float(th.stack(values).mean())


def _check_dataset(dataset: Mapping[str, Any], policy: CandidatePolicy) -> dict[str, np.ndarray]:
    """The columns of a data set for pretraining, checked, `terminated` filled in."""
    if not isinstance(dataset, Mapping):
        raise ValueError(
            f"`dataset` must be a mapping with the entries state, action and reward, got {type(dataset).__name__}."
        )
    n_pairs = policy.layout.n_pairs
    needed = ("state", "action", "reward", *(("pairs",) if n_pairs else ()))
    if missing := [key for key in needed if key not in dataset]:
        also = f", and pairs (n, {n_pairs}) as the observations have" if n_pairs else ""
        raise ValueError(
            f"`dataset` must have the entries state (n, d_s), action (n, d_a) and reward (n,){also}, lacks {missing}, "
            f"got {sorted(dataset)}."
        )
    optional = ("terminated", "weight")
    if unknown := [key for key in dataset if key not in (*needed, *optional) and not str(key).startswith("info:")]:
        known = (*needed, *optional)
        raise ValueError(
            f"`dataset` may have the entries {known}, got {unknown[0]!r} too{best_match(unknown[0], known)}. Leave out "
            "what is not to be learned from, or begin its name with `info:`."
        )
    data = {key: np.asanyarray(dataset[key]) for key in needed}
    n = len(data["reward"]) if data["reward"].ndim else 0
    data["reward"] = np.asarray(data["reward"], np.float32)
    terminated = np.asarray(dataset.get("terminated", np.zeros(n, bool)))
    if not np.isin(terminated, (0, 1)).all():
        raise ValueError(
            f"`dataset['terminated']` must be True or False (or 1 or 0), got {terminated.reshape(-1)[:3]}."
        )
    data["terminated"] = terminated.astype(bool)
    if "weight" in dataset:
        data["weight"] = np.asarray(dataset["weight"], np.float32)
    shapes: dict[str, tuple[int, ...]] = {
        "state": (n, policy.features.state_dim),
        "action": (n, policy.features.action_dim),
    }
    shapes |= {key: (n,) for key in ("reward", "terminated", "weight") if key in data}
    if n_pairs:
        shapes["pairs"] = (n, n_pairs)
    if policy.layout.uses_ids and data["action"].ndim == 1 and np.issubdtype(data["action"].dtype, np.integer):
        shapes["action"] = (n,)
    for key, shape in shapes.items():
        if data[key].shape != shape or n == 0:
            raise ValueError(f"`dataset[{key!r}]` must have shape {shape} with n >= 1, got {data[key].shape}.")
        if not np.isfinite(data[key]).all():
            row = int(np.argwhere(~np.isfinite(data[key]))[0][0])
            raise ValueError(f"`dataset[{key!r}]` must be finite, row {row} is not. Leave such rows out.")
    if "weight" in data:
        if data["weight"].min() < 0 or not data["weight"].any():
            raise ValueError("`dataset['weight']` must hold numbers of 0 or more, and not 0 alone.")
        data["weight"] = data["weight"] / data["weight"].mean()
    return data


def _progress(epochs: Iterable[int], progress_bar: bool) -> Iterable[int]:
    if not progress_bar:
        return epochs
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError('`progress_bar=True` needs tqdm: pip install "stable-baselines3[extra]".') from error
    return tqdm(epochs, desc="pretrain")


def _refuse_other_observations(reads: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Refuse an environment that shows something else than what an agent reads; both as :func:`what_is_read`."""
    for name in reads:
        if shown.get(name) != reads[name]:
            raise ValueError(
                f"`env` must show what the agent was trained to read: `{name}` was {reads[name]!r}, and is "
                f"{shown.get(name)!r} here. Make the environment with the arguments of training, or train a new agent."
            )


def _refuse_normalised_observations(env: VecEnv) -> None:
    normalize = unwrap_vec_normalize(env)
    if normalize is not None and normalize.norm_obs:
        raise ValueError(
            "VecNormalize must be made with `norm_obs=False` here, got True: vectors are stored once by content, so "
            "they must not change with running statistics. Normalise the environment's own vectors, or rewards only."
        )
