"""Base of SB3 algorithms on candidate sets: environments, replay, rollouts and saving. A subclass adds the learning."""

from __future__ import annotations

import inspect
import io
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch as th
from gymnasium.vector import VectorEnv
from stable_baselines3 import DQN
from stable_baselines3.common import utils
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import recursive_getattr, save_to_zip_file
from stable_baselines3.common.type_aliases import GymEnv, RolloutReturn, TrainFreq
from stable_baselines3.common.utils import LinearSchedule, polyak_update, should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv

from dynaq_algo.action_table import ActionTable, find_action_table, table_elsewhere
from dynaq_algo.agent_attributes import check_attributes
from dynaq_algo.agent_file import (
    REMADE,
    building,
    read_agent,
    read_entries,
    reading,
    shown_path,
    write_agent,
)
from dynaq_algo.arguments import (
    check_collecting,
    is_whole,
    python_numbers,
    refuse_unknown_arguments,
    require_flag,
    require_names,
    require_whole,
    suggestion,
)
from dynaq_algo.array_file import MAX_ARRAY_BYTES
from dynaq_algo.checkpoint import (
    existing_folder,
    new_folder,
    read_env_state,
    read_state,
    write_env_state,
    write_state,
)
from dynaq_algo.gaussian_process import GaussianProcess
from dynaq_algo.layout import CandidateLayout, DecisionBatch
from dynaq_algo.networks import PairNetwork, denormals_flushed
from dynaq_algo.offline import Answers, OfflineBatch, OfflineData, passes
from dynaq_algo.plain_data import MAX_BYTES
from dynaq_algo.policies import CandidatePolicy
from dynaq_algo.replay import UNKNOWN, CandidateReplay, Transitions
from dynaq_algo.target_values import TargetValues
from dynaq_algo.tensor_file import fitting_state, read_parameters
from dynaq_algo.transition_model import TransitionModel
from dynaq_algo.validity import Validity
from dynaq_algo.vec_env import (
    as_vec_env,
    attribute_of,
    observation_sample_of,
    refuse_normalised_observations,
    refuse_other_observations,
    table_of,
    what_is_read,
)
from dynaq_algo.weight_pull import anchors_of
from dynaq_algo.world_model import WorldModel

__all__ = ["CandidateAlgorithm"]

# The log has the mean of each reward component over this many of the latest transitions.
WINDOW = 1_000
# Counters of the replay and the rollout, which a checkpoint puts back.
COUNTERS = ("_n_scored", "_rollout_steps", "_rollout_episodes", "_compares_from", "_asks_pairs")
# Arguments of SB3's DQN that have no meaning here.
NOT_OURS = {"replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage", "n_steps"}


class CandidateAlgorithm(DQN):
    """Base of off-policy algorithms that choose from a set of candidates; a subclass adds the learning method.

    It takes environments in all their forms, makes policies, keeps a compact replay, collects rollouts and copies the
    target network when that is due. It keeps the initial weights for `weight_pull`, learns from answers given outside
    of :meth:`learn`, and saves and loads. A subclass makes the networks in :meth:`_setup_model`. There it also makes
    `_kept_values`, a store for values that the target network has computed, so that they need not be computed again. It
    defines :meth:`predict`, :meth:`train`, :meth:`_score_new_transitions`, :meth:`_offline_update` and
    :meth:`_optimizers`.

    Args:
        policy: See :class:`~dynaq_algo.dynaq.DynaQ` for this and all other arguments.
        env: Environment.
        action_features: For id observations; by default those of the environment.
        pair_features: Function that computes the entry `pairs` for pairs that nobody was shown; by default that of the
            environment.
        relabel: Whether rewards in replay follow the latest weights of their components.
        gradient_steps: None stands for 1 if there is one environment, and for -1 if there are several.
        weight_pull: After each update every weight moves this share of the way back to its initial value.
        policy_kwargs: Arguments of the policy.
        **kwargs: Further arguments of :class:`stable_baselines3.DQN`.

    Raises:
        ValueError: If an argument of SB3's has no meaning here.
        TypeError: If an argument is unknown.
    """

    # Attributes whose tensors a file holds; a subclass with further networks adds their names.
    saved_networks: ClassVar[frozenset[str]] = frozenset({"policy", "world_model", "anchors"})
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CandidatePolicy": CandidatePolicy}
    policy: CandidatePolicy  # type: ignore[assignment]
    replay_buffer: CandidateReplay  # type: ignore[assignment]
    q_net: PairNetwork  # type: ignore[assignment]
    q_net_target: PairNetwork  # type: ignore[assignment]
    world_model: WorldModel | GaussianProcess | TransitionModel
    bootstrap: str
    _kept_values: TargetValues
    _n_scored: int

    def __init__(
        self,
        policy: str | type[CandidatePolicy],
        env: GymEnv | VectorEnv | str,
        *,
        action_features: np.ndarray | str | PathLike[str] | None,
        pair_features: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
        relabel: bool,
        gradient_steps: int | None,
        weight_pull: float,
        policy_kwargs: dict[str, Any] | None,
        **kwargs: Any,
    ):
        if refused := NOT_OURS & kwargs.keys():
            raise ValueError(
                f"{sorted(refused)} are not arguments of {type(self).__name__}: it has a compact replay of its own and "
                "one-step targets. Set `buffer_size`."
            )
        refuse_unknown_arguments(type(self).__name__, kwargs, self._argument_names())
        kwargs, gradient_steps = python_numbers(kwargs), python_numbers(gradient_steps)
        check_collecting({**kwargs, "gradient_steps": gradient_steps})
        try:
            th.device("cpu" if (device := kwargs.get("device", "auto")) == "auto" else device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"`device` must be auto, or a device of torch such as cpu or cuda:0, got {device!r:.80}."
            ) from error
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,  # type: ignore[arg-type]
            gradient_steps=1 if gradient_steps is None else gradient_steps,
            policy_kwargs=python_numbers(dict(policy_kwargs or {})),
            _init_setup_model=False,
            **kwargs,
        )
        # Epsilon of an agent that never went through `learn`; SB3 has 0 here.
        self.exploration_rate = self.exploration_final_eps
        self.relabel = require_flag("relabel", relabel)
        self.weight_pull = python_numbers(weight_pull)
        self.action_features = action_features
        self.pair_features = pair_features
        self.action_table: ActionTable | None = None
        # The present environments' table of actions if the agent was given its own by `action_features=`, otherwise
        # None. `set_env` compares it with the table of the next environments. It is kept here because the present
        # environments may be closed by then.
        self._shown_table: np.ndarray | None = None
        # The parts of an observation that the agent reads, kept in a saved agent; see what_is_read.
        self.reads: dict[str, Any] = {}
        # What every `save` leaves out, for callbacks, which cannot pass `exclude`.
        self.save_without: Iterable[str] = []
        self._gradient_steps_by_default = gradient_steps is None
        self._n_transitions = 0
        # Of each replay whose transitions the world model was told: how many, counted from the first, by the replay's
        # id. `_told_of_each` adds those of the present replay.
        self._told: dict[str, int] = {}
        # Whether the initial weights for `weight_pull` are kept; a saved agent then holds them.
        self._is_anchored = False
        self._action_table_reference: dict[str, str | int | None] | None = None
        self._validity = Validity()
        self._component_windows: dict[str, deque[float]] = {}

    @classmethod
    def _argument_names(cls) -> set[str]:
        """Names of all arguments of the constructor, those that it passes on to SB3 included."""
        own = cls.__mro__[: cls.__mro__.index(DQN) + 1]
        known = {name for one in own for name in inspect.signature(one).parameters}
        return known - NOT_OURS - {"args", "kwargs"}

    # ------------------------------------------------------------------ set-up

    def _setup_model(self) -> None:
        """Make everything but the networks."""
        layout = CandidateLayout(self.observation_space, self.action_space)
        if self.env is not None:
            refuse_normalised_observations(self.env)
            shown = what_is_read(self.env)
            refuse_other_observations(self.reads, shown)
            self.reads = shown
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        if layout.uses_ids:
            shown_table = None if self.env is None else table_of(self.env)
            self._shown_table = None if self.action_features is None else shown_table
            self.action_table = find_action_table(
                self.action_features, shown_table, self._action_table_reference, layout.largest_id
            )
        try:
            self.replay_buffer = CandidateReplay(
                self.buffer_size, layout.state_dim, layout.n_candidates, layout.action_dim, self.n_envs, layout.n_pairs
            )
        except MemoryError as error:
            raise ValueError(
                f"`buffer_size` of {self.buffer_size:,} takes more memory than there is ({error}): lower it."
            ) from error
        self._find_pair_features()
        self._convert_train_freq()
        if self._gradient_steps_by_default:
            self.gradient_steps = 1 if self.n_envs == 1 else -1
        self.exploration_schedule = LinearSchedule(
            self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        )
        if not self._told and vars(self).get("_n_scored"):  # a file of an earlier version has only the number
            self._told = {UNKNOWN: self._n_scored}
        self._n_scored = self._rollout_steps = self._rollout_episodes = 0

    def _find_pair_features(self) -> None:
        """Give the replay a function for pairs that nobody was shown: the argument's, or the environment's.

        An agent without an environment, which only predicts, needs none.
        """
        # From this transition on, answers of the function are compared with what is shown, as long as they are alike.
        self._compares_from, self._asks_pairs = self.replay_buffer.n_added, True
        if self.env is not None and self.replay_buffer.n_pairs:
            offered = attribute_of(self.env, "pair_features")
            of_environment = offered if callable(offered) else None
            self.replay_buffer.pair_features = of_environment if self.pair_features is None else self.pair_features

    def set_random_seed(self, seed: int | None = None) -> None:
        """Make new random generators, and pass a given seed on to the environments. No global state is touched."""
        if seed is not None:
            seed = require_whole("seed", seed, 0)
        names = ("exploration", "replay", "planning", "pretrain", "weights")
        streams = np.random.SeedSequence(seed).spawn(len(names))
        self._rngs = {name: np.random.default_rng(stream) for name, stream in zip(names, streams, strict=True)}
        if seed is not None and self.env is not None:
            self.env.seed(seed)

    @contextmanager
    def _drawing_weights(self) -> Iterator[None]:
        """Seed torch's global generator, from which layers are initialised, and restore its state afterwards."""
        with th.random.fork_rng(devices=[]):
            th.default_generator.manual_seed(int(self._rngs["weights"].integers(2**63)))
            yield

    def _make_policy(self) -> CandidatePolicy:
        """A policy of the chosen class. Its features learn their scale from a sample, if the environments give one."""
        policy: CandidatePolicy = self.policy_class(  # type: ignore[assignment]
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            action_table=self.action_table,
            **self.policy_kwargs,
        )
        features = policy.features
        if self.env is not None and not features.settled:
            sample = observation_sample_of(self.env, policy.layout)
            if sample is not None:
                features.fit_sample(sample.state, policy.action_rows(sample.candidates), sample.pairs)
        return policy.to(self.device)

    def set_env(self, env: GymEnv | VectorEnv, force_reset: bool = True) -> None:
        """Change the environment, see SB3. Candidate ids must name the same actions in the new one.

        Raises:
            ValueError: If there is another number of environments, or the environment does not show what the agent
                reads, shows another number of candidates, has a mask where the previous one had none, has no mask where
                the previous one had one, or has another table of actions. Rows may be added at the end of the table. An
                agent with a table of its own, given as `action_features=`, keeps that table, which must have a row for
                each id.
        """
        env = self._wrap_env(env, self.verbose)
        refuse_normalised_observations(env)
        refuse_other_observations(self.reads, what_is_read(env))
        if env.action_space != self.action_space:
            raise ValueError(
                f"`env` must have the action space {self.action_space}, for which replay was made, got "
                f"{env.action_space}. `DynaQ.load(path, env=env)` takes any number: save the agent, and load it there."
            )
        if env.num_envs != self.n_envs:
            raise ValueError(
                f"`env` must hold as many environments as replay was made for, {self.n_envs}, got {env.num_envs}. "
                "`DynaQ.load(path, env=env)` takes any number: save the agent, and load it there."
            )
        layout = CandidateLayout(env.observation_space, env.action_space)
        if layout.has_mask != self.policy.layout.has_mask:
            an, one = ("an", "one") if self.policy.layout.has_mask else ("no", "none")
            raise ValueError(
                f"`env` must show {an} `action_mask`, because the environment so far shows {one}. `DynaQ.load(path, "
                "env=env)` takes environments with and without a mask: save the agent, and load it there."
            )
        before, now = self.policy.layout.progress_bounds, layout.progress_bounds
        if self.world_model.knows_transitions and not np.array_equal(before or [], now or []):
            raise ValueError(
                "`env` must show `progress` within the bounds for which the model of transitions was made, "
                f"{_shown(before)}, got {_shown(now)}. Give its space these bounds, or train a new agent."
            )
        table, is_given = self.action_table, self.action_features is not None
        shown_table = None if table is None else table_of(env)
        if table is not None:
            table = table_elsewhere(table, is_given, self._shown_table, shown_table, layout.largest_id)
        if self.reads or table is not self.action_table or is_given:
            # Ids may name more actions than before, and a Box may have other bounds. SB3 would refuse both.
            self.observation_space = self.policy.observation_space = env.observation_space
        super().set_env(env, force_reset)
        self.policy.action_table = self.action_table = table
        self._shown_table = shown_table if is_given else None
        self._find_pair_features()

    @staticmethod
    def _wrap_env(env: GymEnv | VectorEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        # SB3 would also transpose entries that look like images, and `predict` would then refuse what `env` shows.
        return as_vec_env(env, monitor_wrapper)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(
                f"`policy` must be one of {sorted(self.policy_aliases)} or a subclass of CandidatePolicy, got "
                f"{policy_name!r:.80}{suggestion(policy_name, self.policy_aliases)}"
            )
        return self.policy_aliases[policy_name]

    # ------------------------------------------------------------------ interaction

    def learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> Self:
        """Interact and train, as :meth:`stable_baselines3.DQN.learn`.

        A callback sees a step when it is complete (stored and counted). If the callback returns False, nothing is lost:
        when learning continues with `reset_num_timesteps=False`, the training that is due comes first.

        Raises:
            ValueError: If `total_timesteps` is not a whole number of 0 or more, `log_interval` is not one of 1 or more,
                or a reward is not finite.
            TypeError: If an argument is unknown.
            NothingLearned: If no transition was valid. If only some were invalid, a warning says how many.
        """
        total_timesteps = require_whole("total_timesteps", total_timesteps, 0)
        names = ("callback", "log_interval", "tb_log_name", "reset_num_timesteps", "progress_bar")
        refuse_unknown_arguments(f"{type(self).__name__}.learn", kwargs, names)
        kwargs = {"tb_log_name": type(self).__name__, **dict(zip(names, args, strict=False)), **kwargs}
        every = kwargs.get("log_interval")
        if every is not None and not (is_whole(every) and every >= 1):
            raise ValueError(
                f"`log_interval` must be a whole number of episodes, 1 or more, or None for no log, got {every!r:.80}."
            )
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
        """Interact until training is due, as in SB3. Unlike in SB3, callbacks see a step after it is stored.

        A rollout that a callback stopped continues where it stopped.
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

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random action before `learning_starts`, then an exploring one of :meth:`predict`.

        The action is returned twice, as in SB3.
        """
        obs: Any = self._last_obs
        if self.num_timesteps == 0:
            self.exploration_rate = self.exploration_initial_eps
        if self.num_timesteps < learning_starts:
            action = self.policy.layout.read(obs).any_action(self._rngs["exploration"])
        else:
            action, _ = self.predict(obs, deterministic=False)
        return action, action

    def _on_step(self) -> None:
        """Count a vector step, and lower epsilon."""
        self._count_transitions(self.n_envs)
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def _see(self, decisions: DecisionBatch) -> None:
        """Show the next decisions to the features, which learn the scale of their inputs from them."""
        features = self.policy.features
        if not features.settled:
            features.see(decisions.state, self.policy.action_rows(decisions.candidates), decisions.pairs)

    def _store_transition(  # type: ignore[override]
        self,
        replay_buffer: CandidateReplay,
        buffer_action: np.ndarray,
        new_obs: Any,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one step. A truncated step's next observation is the terminal one, not that of the reset."""
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos], bool) & dones
        layout = self.policy.layout
        next_obs = layout.read(new_obs)
        if truncated.any():
            finals = {i: layout.read(infos[i]["terminal_observation"]) for i in np.flatnonzero(truncated).tolist()}
            next_obs = next_obs.replaced(finals)
        if self._vec_normalize_env is not None:
            reward = self._vec_normalize_env.get_original_reward()
        assert self._last_obs is not None  # set by _setup_learn
        self._make_room(replay_buffer, len(infos))
        obs = layout.read(self._last_obs)  # type: ignore[arg-type]
        replay_buffer.add(obs, next_obs, buffer_action, reward, dones & ~truncated, infos)
        self._take_note(infos)
        self._last_obs = new_obs

    def _make_room(self, replay: CandidateReplay, n: int) -> None:
        """Tell a world model that is told each transition once, if n more would overwrite some that it was not told.

        Without this, episodes longer than `buffer_size` would lose answers where training waits for their end.
        """
        if self.world_model.optimizer is None and replay.n_added - self._n_scored + n > replay.capacity:
            self._score_new_transitions()

    def _score_new_transitions(self) -> None:
        """Let the world model predict rewards that it has not been trained on, then tell it what was earned."""
        raise NotImplementedError

    def _new_transitions(self, most: int | None) -> Transitions | None:
        """Transitions stored since the last call, at most the newest `most`; None if there are none."""
        n_new = min(self.replay_buffer.n_added - self._n_scored, len(self.replay_buffer))
        self._n_scored = self.replay_buffer.n_added
        n_new = n_new if most is None else min(n_new, most)
        return self.replay_buffer.newest(n_new) if n_new > 0 else None

    def _normalised(self, reward: np.ndarray) -> np.ndarray:
        """Rewards (n,) as `VecNormalize` scales them; unchanged if there is no `VecNormalize`."""
        if self._vec_normalize_env is None:
            return reward
        return self._vec_normalize_env.normalize_reward(reward).astype(np.float32)

    def _take_note(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Note which transitions of one step are valid, the reward's latest weights, and its components."""
        for info, is_valid in zip(infos, self._validity.count(infos), strict=True):
            if is_valid:
                if self.relabel:
                    self.replay_buffer.weights = _reward_weights(info)
                components = info.get("reward_components", {})
                for name in {**self._component_windows, **components}:
                    window = self._component_windows.setdefault(name, deque(maxlen=WINDOW))
                    window.append(float(components.get(name, np.nan)))

    # ------------------------------------------------------------------ target network, and weights as they began

    def _count_transitions(self, n: int) -> None:
        """Count n more transitions, and copy the target network when its interval has passed."""
        copies_before = self._n_transitions // self.target_update_interval
        self._n_transitions += n
        if self._n_transitions // self.target_update_interval > copies_before:
            polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), self.tau)

    def _sync_target(self) -> None:
        self.q_net_target.load_state_dict(self.q_net.state_dict())

    def _drop_anchor(self) -> None:
        """Store a copy of the weights with which learning begins, if there is none yet."""
        if self.weight_pull and not self._is_anchored:
            self._is_anchored = True
            self._make_anchors()

    def _pull_back(self, network: str) -> None:
        """After an update, move the weights of `q_net` or `world_model` a share of the way back to the initial ones."""
        if self.weight_pull and network in self.anchors:
            self.anchors[network].pull(getattr(self, network), self.weight_pull)  # type: ignore[operator]

    def _make_anchors(self) -> None:
        """Keep a copy of the weights if learning has begun. In a loaded agent the file's copy replaces it."""
        self.anchors = anchors_of({"q_net": self.q_net, "world_model": self.world_model} if self._is_anchored else {})

    # ------------------------------------------------------------------ what is told

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

        Each answer is stored, counts as an interaction, and is followed by the updates that `learn` would make with
        `train_freq=1`. Epsilon is not lowered, because the number of answers to come is not known. :meth:`predict`
        chooses by `exploration_rate`. For an agent that never went through :meth:`learn`, that is
        `exploration_final_eps`.

        Nothing is stored if one answer of a batch is refused. If a candidate set has another number of candidates than
        in training, it is stored with the chosen one first, then those that the mask allows. If it has too few, the
        first one is repeated; if it has too many, the last ones are left out.

        Args:
            observation: One observation or a batch of n.
            action: Index of the recommended candidate, () or (n,).
            reward: What it earned, () or (n,).
            next_obs: The observation after the answer; may be left out where gamma is 0. If the environment was reset
                in the same step, the last observation of the episode counts in its place. It is read from `info`:
                `final_obs` of a Gymnasium VectorEnv, or `terminal_observation` of an SB3 VecEnv.
            terminated: Whether the answer ended the episode, () or (n,).
            info: The info of each answer, as an environment gives it, or the `infos` of a Gymnasium VectorEnv; an
                answer with `transition_valid` False is not stored.

        Raises:
            ValueError: If numbers of rows differ, an action is not the index of a candidate, an id is not in the table
                of actions, a number is not finite, `progress` is beyond its bounds, `terminated` is neither True nor
                False, an info is not a dict or lacks what `relabel=True` needs, or `next_obs` is missing.
        """
        if next_obs is None and self.gamma > 0:
            raise ValueError(
                f"`next_obs` must be given where gamma is above 0 (it is {self.gamma}): an action is also worth what "
                "follows it. Pass the observation after the answer; where `terminated` is True, any will do."
            )
        layout = self.policy.layout
        answers = Answers.read(layout, self.action_table, observation, action, reward, next_obs, terminated, info)
        if self.relabel:  # infos are checked before the first answer is stored
            for one in answers.infos:
                if one.get("transition_valid", True):
                    _reward_weights(one)
        self._ensure_logger("observe")
        for answer in answers.one_by_one(layout.n_candidates):
            self._take_note(answer.infos)
            self._see(answer.decisions)
            self._make_room(self.replay_buffer, 1)
            self.replay_buffer.add(*answer)
            self.num_timesteps += 1
            self._count_transitions(1)
            if self.num_timesteps > self.learning_starts:
                self.train(self.gradient_steps if self.gradient_steps >= 0 else 1, self.batch_size)

    @denormals_flushed()
    def pretrain(
        self,
        dataset: Mapping[str, np.ndarray],
        epochs: int = 10,
        batch_size: int | None = None,
        progress_bar: bool = False,
    ) -> dict[str, float]:
        """Train the Q-network and the world model's networks on a data set, before or between calls of :meth:`learn`.

        A world model that is a Gaussian process learns nothing from the data set.

        Targets are same-action, whatever `bootstrap` is, with s' = s: `r + gamma * Q_target(s, a)`, or r where
        terminated. With `planning="decision_time"` the Q-network learns only the value of the next state: its target is
        `Q_target(s, a)`, or 0 where terminated. The target network is copied every `target_update_interval` updates and
        at the end.

        Args:
            dataset: `state` (n, d_s), `action` (n, d_a), or (n,) ids if observations hold ids, `reward` (n,), and
                `pairs` (n, p) if observations have them. Optionally `terminated` (n,) bool and `weight` (n,), which
                says how much each row counts, relative to the mean weight. Entries whose names begin with `info:` are
                ignored.
            epochs: Passes over the data, each in a new order.
            batch_size: Pairs in each update; by default the agent's `batch_size`.
            progress_bar: Show a progress bar, which needs SB3's extra dependencies.

        Returns:
            Means over the last epoch: `loss` if a Q-network learns, and `model_loss`, the squared error of the world
            model, whether it learns or not. They are also logged each epoch under `pretrain/`.

        Raises:
            ValueError: If an entry is missing, unknown, of another shape, or holds a value that is not finite; if an id
                is not in the table of actions; or if there is no network that would learn from the data set.
        """
        if not self._optimizers:
            raise ValueError(
                '`pretrain` finds no network to train where `planning="decision_time"` goes with a Gaussian process at '
                "gamma 0, or with a model of transitions. Let the agent learn from answers by `observe`, or give it "
                "prior knowledge by `policy_kwargs={'prior': [...]}`."
            )
        if self.gamma >= 1:
            raise ValueError(f"`gamma` must be below 1 to pretrain with same-action targets, got {self.gamma}.")
        batch_size = self.batch_size if batch_size is None else batch_size
        epochs, batch_size = require_whole("epochs", epochs, 1), require_whole("batch_size", batch_size, 1)
        data = OfflineData(dataset, self.policy)
        self._ensure_logger("pretrain")
        rate = self.lr_schedule(self._current_progress_remaining)
        for optimizer in self._optimizers:
            utils.update_learning_rate(optimizer, rate)
        data.show()
        self.policy.set_training_mode(True)
        rng = self._rngs["pretrain"]
        means: dict[str, float] = {}
        for epoch, n_updates, means in passes(data, epochs, batch_size, rng, self._update_offline, progress_bar):
            for name, value in {"epoch": epoch, **means}.items():
                self.logger.record(f"pretrain/{name}", value)
            self.logger.dump(step=n_updates)
        self._sync_target()
        self._is_anchored = False  # `weight_pull` leads back to the weights after pre-training
        return means

    @property
    def _optimizers(self) -> list[th.optim.Optimizer]:
        """Optimisers of the networks that learn."""
        raise NotImplementedError

    def _offline_update(self, batch: OfflineBatch) -> dict[str, th.Tensor]:
        """An update from rows of a data set; returns losses by name."""
        raise NotImplementedError

    def _update_offline(self, batch: OfflineBatch, number: int) -> dict[str, th.Tensor]:
        """Make the update of this number, counted from 1, and copy the target network if that is due."""
        losses = self._offline_update(batch)
        if number % self.target_update_interval == 0:
            self._sync_target()
        return losses

    def _ensure_logger(self, purpose: str) -> None:
        """Make a logger and note the start time, if there are none yet; `learn` does both itself."""
        self.start_time = self.start_time or time.time_ns()
        if not hasattr(self, "_logger"):
            self._logger = utils.configure_logger(
                self.verbose, self.tensorboard_log, f"{type(self).__name__}_{purpose}"
            )

    def dump_logs(self) -> None:
        """Write the log, with the mean of each reward component over the last 1,000 transitions."""
        for name, values in self._component_windows.items():
            if not np.isnan(values).all():
                self.logger.record(f"reward/{name.removeprefix('reward/')}", float(np.nanmean(values)))
        kept = self.ep_info_buffer, self.ep_success_buffer
        # SB3 makes these windows of episodes only when `learn` begins, and writes no log without them.
        self.ep_info_buffer, self.ep_success_buffer = (deque() if window is None else window for window in kept)
        super().dump_logs()
        self.ep_info_buffer, self.ep_success_buffer = kept

    # ------------------------------------------------------------------ saving

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save the agent without its replay, like SB3, but as JSON and tensors.

        Of a table of actions only the path, the checksum and the number of rows are saved. `tensorboard_log` is not
        saved: whoever loads the agent says where it writes.

        Args:
            path: The zip.
            exclude: Names of attributes to leave out. An attribute that is code, such as a function for the learning
                rate or a class of your own, must be left out. `load(path, custom_objects={...})` gives it back. The
                names in the attribute `save_without` are left out too: set it if a callback of SB3's saves the agent.
            include: Names to write although SB3 leaves them out.

        Raises:
            ValueError: If an attribute is code; the message names it. If `exclude`, `include` or `save_without` is a
                text, or holds anything but names.
        """
        save_without = require_names("save_without", self.save_without)
        left_out = save_without | require_names("exclude", exclude or ())
        included = require_names("include", include or ())
        if self.action_table is not None:
            self._action_table_reference = self.action_table.reference
        params = self.get_parameters()
        unsaved = {*self._excluded_save_params(), *(name.split(".")[0] for name in params)} - included
        data = {name: value for name, value in vars(self).items() if name not in unsaved}
        data |= {"_told": self._told_of_each(), "save_without": sorted(save_without)}
        write_agent(path, type(self).__name__, data, params, left_out)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | Path | io.BufferedIOBase,
        env: GymEnv | VectorEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        max_bytes: int = MAX_BYTES,
        **kwargs: Any,
    ) -> Self:
        """Load what :meth:`save` wrote, like SB3. Nothing in the file is executed.

        The environment may show another number of candidates than in training, and its table of actions may have more
        rows at the end. The agent logs to TensorBoard only if `tensorboard_log` is given here. Optimisers get their
        moments from the file, and their settings from the agent's arguments.

        Args:
            path: The zip.
            env: Environment in which the agent acts or learns.
            device: Where networks are computed.
            custom_objects: Values by name that replace saved ones, or that were not saved because they are code.
            max_bytes: Largest uncompressed size of the file, 2 GiB by default.
            **kwargs: Further arguments of SB3's `load`, or of the class.

        Raises:
            FileNotFoundError: If there is no such file.
            AgentFileError: If it is not an agent of this version, is not whole, was changed, or holds code.
            ValueError: If the environment does not show what the agent reads, or its ids name other actions; or if
                another world model is asked for.
            TypeError: If an argument is unknown.
        """
        of_load = {name for one in (cls, DQN) for name in inspect.signature(one.load).parameters} - {"kwargs"}
        refuse_unknown_arguments(f"{cls.__name__}.load", kwargs, cls._argument_names() | of_load)
        if "world_model" in kwargs:
            raise ValueError(
                "`world_model` must be left out: the saved agent keeps its own. For another model make a new agent."
            )
        if env is not None:
            env = as_vec_env(env)
            # The environment's spaces replace the saved ones, because SB3 refuses spaces other than the saved ones.
            # `_setup_model` compares what the agent reads instead.
            spaces_of_env = {"observation_space": env.observation_space, "action_space": env.action_space}
            custom_objects = {**spaces_of_env, **(custom_objects or {})}
        shown = shown_path(path)
        data, entries = read_agent(path, custom_objects, max_bytes)
        data, kwargs = python_numbers(data), python_numbers(kwargs)
        check_attributes(shown, data, cls)
        given = {**(custom_objects or {}), **kwargs}
        if "gradient_steps" in given:
            data["_gradient_steps_by_default"] = given["gradient_steps"] is None
        if "gamma" in (model_kwargs := data.get("world_model_kwargs", {})) and "world_model_kwargs" not in given:
            # A file of an earlier version: its model discounted by this gamma, whatever the agent's was.
            data["gamma"] = given.get("gamma", model_kwargs.pop("gamma"))
        data["tensorboard_log"] = given.get("tensorboard_log")  # a file of an earlier version names a folder
        params = read_parameters(entries, shown, cls.saved_networks, max_bytes)
        # SB3 gets a file of checked tensors. It reads no attribute of that file, because every attribute is given.
        file = io.BytesIO()
        with building(shown):
            save_to_zip_file(file, data=dict.fromkeys(data), params=params)
            file.seek(0)
            return super().load(file, env=env, device=device, custom_objects=data, **kwargs)

    def set_parameters(
        self,
        load_path_or_dict: str | Path | io.BufferedIOBase | Mapping[str, Any],
        exact_match: bool = True,
        device: th.device | str = "auto",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Take the parameters of networks and the moments of optimisers, like SB3. Nothing in a file is executed.

        Args:
            load_path_or_dict: A zip of :meth:`save`, also of an earlier version or of SB3, of which only the tensors
                are read; or what `get_parameters` gave.
            exact_match: Whether each network and each optimiser must be there, with each of its parameters.
            device: Not used; SB3's argument, but parameters stay on the device of the agent.
            max_bytes: Largest uncompressed size of the file, 2 GiB by default.

        Raises:
            FileNotFoundError: If there is no such file.
            AgentFileError: If the file is not whole, was changed, holds more than tensors, or fits another agent.
            ValueError, RuntimeError, KeyError: If a dictionary does not fit.
        """
        if not isinstance(load_path_or_dict, Mapping):
            shown = shown_path(load_path_or_dict)
            entries = read_entries(load_path_or_dict, max_bytes)
            with building(shown):
                self.set_parameters(read_parameters(entries, shown, self.saved_networks, max_bytes), exact_match)
            return
        parts = {name: recursive_getattr(self, name, None) for name in load_path_or_dict}
        params: dict[str, Any] = {
            name: fitting_state(parts[name], state) if isinstance(parts[name], th.optim.Optimizer) else state
            for name, state in load_path_or_dict.items()
        }
        super().set_parameters(params, exact_match)

    def save_replay_buffer(self, path: str | PathLike[str]) -> None:  # type: ignore[override]
        """Save the replay to an .npz file, without pickle."""
        self.replay_buffer.save(path)

    def load_replay_buffer(  # type: ignore[override]
        self, path: str | PathLike[str], truncate_last_traj: bool = True, max_bytes: int = MAX_ARRAY_BYTES
    ) -> None:
        """Load what :meth:`save_replay_buffer` wrote.

        The whole file is checked first. A file that is refused leaves the replay as it is. The next training tells the
        world model those of the transitions that it was not told yet. The world model of a loaded agent may have been
        told the first of them before the agent was saved. An agent and a replay know this by the random id that each
        replay has. The world model of another run is told all of them. Files of earlier versions hold no id: an agent
        of an earlier version counts any replay of an earlier version as its own.

        Args:
            path: The file.
            truncate_last_traj: Not used; SB3's argument, but a replay of single transitions has no trajectories.
            max_bytes: Largest uncompressed size of the file, 16 GiB by default.

        Raises:
            FileNotFoundError: If there is no such file.
            AgentFileError: If it is not a replay, is not whole, was changed, or holds numbers that are not finite.
            ValueError: If it is of another layout, or its ids name no action.
        """
        told = self._told_of_each()
        self.replay_buffer.load(path, max_bytes, None if self.action_table is None else len(self.action_table))
        self._told, self._n_scored = told, self.replay_buffer.n_known(told)
        self._compares_from = self.replay_buffer.n_added

    def _told_of_each(self) -> dict[str, int]:
        """How many transitions the world model was told of each replay, counted from the first, by the replay's id."""
        here = {replay: min(end, self._n_scored) for replay, end in self.replay_buffer.ends.items()}
        return {**self._told, **{replay: max(n, self._told.get(replay, 0)) for replay, n in here.items()}}

    def save_checkpoint(self, folder: str | PathLike[str], exclude: Iterable[str] | None = None) -> None:
        """Save everything that :meth:`load_checkpoint` needs to go on as if the run had not been stopped.

        The folder holds the model, the replay, random states, and the result of the environments' `get_state()`. A new
        checkpoint replaces the old one as a whole, once everything is written. If writing stops before that, the old
        checkpoint is still there.

        Args:
            folder: Where the checkpoint is written.
            exclude: See :meth:`save`.

        Raises:
            ValueError: As for :meth:`save`.
            FileExistsError: If the folder holds other files and no checkpoint. They are left as they are.
        """
        # Before the first reset an environment has no state to keep.
        running = self.env is not None and self._last_obs is not None
        with new_folder(folder) as new:
            self.save(new / "model.zip", exclude)
            self.replay_buffer.save(new / "replay.npz")
            env = read_env_state(self.env) if running and self.env is not None else None
            write_state(new, {**self._run_state(), "running": running, "env": env})

    @classmethod
    def load_checkpoint(cls, folder: str | PathLike[str], env: GymEnv | VectorEnv, **kwargs: Any) -> Self:
        """Continue from a checkpoint: `learn(M, reset_num_timesteps=False)` then equals the run that was not stopped.

        On CPU both runs are the same to the bit if the environment offers `get_state() -> dict` and `set_state(dict)`,
        and if the values of `total_timesteps` add up to the same sum. If the checkpoint holds no state of the
        environments, new episodes begin, and a warning says so.

        Args:
            folder: Where :meth:`save_checkpoint` wrote.
            env: A fresh environment, built like that of the saved run.
            **kwargs: Arguments of :meth:`load` (`device`, `action_features`, ...).

        Raises:
            FileNotFoundError: If there is no checkpoint.
            AgentFileError: If the checkpoint is not whole, was changed, or is of another version.
            ValueError: If `env` has another number of environments.
            TypeError: If an argument is unknown.
        """
        folder = existing_folder(folder)
        state = read_state(folder)
        model = cls.load(folder / "model.zip", env=env, force_reset=False, **kwargs)
        assert model.env is not None  # `env` was given
        if model.n_envs != state["n_envs"]:
            raise ValueError(
                f"`env` must hold {state['n_envs']} environments, as the saved run had, got {model.n_envs}."
            )
        model.load_replay_buffer(folder / "replay.npz")
        with reading(str(folder), "checkpoint"):
            model._set_run_state(state)
        if state["running"]:
            # Loading has set seeds for the next reset. They belong to the beginning of the run, so they are dropped.
            model.env.unwrapped._reset_seeds()
        if state["running"] and state["env"] is None:
            warnings.warn(
                "The checkpoint holds no state of the environments, so new episodes begin and the run is not the same "
                "to the bit. Give the environment `get_state() -> dict` and `set_state(dict)` (and run it in one "
                "process).",
                stacklevel=2,
            )
            model._last_obs = None
        elif state["running"]:
            write_env_state(model.env, state["env"])
        return model

    def _run_state(self) -> dict[str, Any]:
        """The part of a checkpoint that is not in the model, the replay or the environments."""
        return {
            "n_envs": self.n_envs,
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "reward_weights": self.replay_buffer.weights,
            "rngs": {name: rng.bit_generator.state for name, rng in self._rngs.items()},
            "target_values": self._kept_values.state(self.q_net_target, self.replay_buffer, self.bootstrap),
        }

    def _set_run_state(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`_run_state` gave; the replay is there already."""
        self.replay_buffer.weights = state["reward_weights"]
        for name, value in state["counters"].items():
            setattr(self, name, value)
        for name, rng_state in state["rngs"].items():
            self._rngs[name].bit_generator.state = rng_state
        if "target_values" in state:
            kept = state["target_values"]
            self._kept_values.restore(kept, self.q_net_target, self.replay_buffer, self.bootstrap)

    def _excluded_save_params(self) -> list[str]:
        tables = ["action_features", "action_table", "_shown_table"]
        own = ["pair_features", "anchors", "_validity", "_rngs", "tensorboard_log", "_compares_from", "_asks_pairs"]
        return [*super()._excluded_save_params(), *tables, *own, *REMADE]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        optimizer = [] if self.world_model.optimizer is None else ["world_model.optimizer"]
        anchors = ["anchors"] if self._is_anchored else []
        return ["policy", "policy.optimizer", "world_model", *optimizer, *anchors], []


def _shown(bounds: tuple[np.ndarray, np.ndarray] | None) -> str:
    return "none" if bounds is None else f"{bounds[0].tolist()} to {bounds[1].tolist()}"


def _reward_weights(info: Mapping[str, Any]) -> dict[str, float]:
    if "reward_weights" not in info or "reward_components" not in info:
        raise ValueError(
            '`relabel=True` needs a reward that is a weighted sum, with `info["reward_components"]` and '
            '`info["reward_weights"]` (name -> number) in each step: wrap the environment in such a reward, '
            "a HybridReward for instance, or leave `relabel` out."
        )
    return {name: float(weight) for name, weight in info["reward_weights"].items()}
