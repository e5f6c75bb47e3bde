"""Contextual bandits with SB3's methods. Try them first if a recommendation changes only its own reward."""

from __future__ import annotations

import inspect
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Literal, Self, get_args

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, ProgressBarCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize
from torch.nn import functional as F

from dynaq_algo.action_table import ActionTable, table_elsewhere
from dynaq_algo.agent_file import AgentFileError, building, opened, reading, whole_file, written_by, zip_of
from dynaq_algo.arguments import (
    refuse_other_choice,
    refuse_unknown_arguments,
    refuse_unknown_first,
    require_flag,
    require_number,
    require_row,
    require_whole,
)
from dynaq_algo.array_file import read_arrays
from dynaq_algo.features import BlockwiseFeatures, candidates_of_ids, make_features
from dynaq_algo.gaussian_process import GaussianProcess
from dynaq_algo.layout import CandidateLayout, DecisionBatch, allowed, check_mask, pieces_of, refuse_nan
from dynaq_algo.offline import Answers
from dynaq_algo.plain_data import MAX_BYTES
from dynaq_algo.prior_trust import source_weights, sources_of
from dynaq_algo.validity import Validity
from dynaq_algo.vec_env import (
    as_vec_env,
    observation_sample_of,
    refuse_normalised_observations,
    refuse_other_observations,
    table_of,
    what_is_read,
)

__all__ = ["Bandit", "GaussianProcessBandit", "LinearBandit"]

Obs = Mapping[str, NDArray[Any]]
Exploration = Literal["ucb", "thompson"]
Similarities = Literal["cosine", "blocks"]

FORMAT = "dynaq-bandit/1"
_ARGUMENTS, _LEARNED = "arguments.json", "learned.npz"
_TOGETHER = 256
"""At most this many answers are brought into a linear bandit's posterior together."""
_SCORED = 4_096
"""At most this many pairs are scored by a linear bandit at a time."""


class Bandit:
    """Chooses the candidate with the highest score and learns from each reward. Subclasses define scores and learning.

    A subclass defines :meth:`q_values`, and, if it learns, :meth:`explore` and :meth:`observe`. It passes all of its
    arguments but `env` to this constructor by name. They are saved as JSON, so they must be plain values.

    Args:
        env: Gymnasium environment, its id, SB3 VecEnv, or Gymnasium VectorEnv (in SAME_STEP autoreset mode), with a
            Dict observation, see :class:`~dynaq_algo.policies.CandidatePolicy`.
        gamma: Used only for the discounted return of an evaluation, because a bandit does not plan ahead.
        seed: Seed of the environments and of the bandit's own draws.
        **arguments: The subclass's own arguments, which are saved.

    Attributes:
        reads: Which parts of an observation the bandit uses, see :func:`~dynaq_algo.vec_env.what_is_read`.
    """

    _fixed: ClassVar[frozenset[str]] = frozenset()  # arguments that `load` cannot replace

    def __init__(
        self, env: gym.Env | VectorEnv | VecEnv | str, gamma: float = 0.0, seed: int | None = None, **arguments: Any
    ):
        self.env = as_vec_env(env)
        refuse_normalised_observations(self.env)
        self.reads: dict[str, Any] = what_is_read(self.env)
        self.gamma = require_number("gamma", gamma)
        self.seed = None if seed is None else require_whole("seed", seed, 0)
        self.layout = CandidateLayout(self.env.observation_space, self.env.action_space)
        self.num_timesteps = 0
        self.logger = Logger(None, [])
        self.rng = np.random.default_rng(self.seed)
        self._arguments = {"gamma": self.gamma, "seed": self.seed, **arguments}
        self._last_obs: Any = None

    def q_values(self, observation: Obs) -> NDArray[np.floating]:
        """Scores (n, k) of one observation (n = 1) or a batch, masked candidates included."""
        raise NotImplementedError

    def explore(self, observation: Obs) -> NDArray[np.floating]:
        """Scores (n, k) for choosing while the bandit learns; :meth:`q_values` by default."""
        return self.q_values(observation)

    def observe(self, observation: Obs, action: NDArray[np.int64] | int, reward: NDArray[np.floating] | float) -> None:
        """Learn from answers; nothing by default.

        Args:
            observation: One observation or a batch of n.
            action: Index of the recommended candidate, () or (n,).
            reward: What it earned, () or (n,).

        Raises:
            ValueError: If there is not one action and one reward for each observation, if an action is not the index of
                a candidate, if an id is not in the table of actions, or if a number is not finite or so large that
                products overflow.
        """

    def predict(
        self,
        observation: Obs,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...] | None]:
        """The allowed candidate with the highest score.

        Args:
            observation: One observation or a batch of n.
            state: Returned unchanged; a bandit has no state.
            episode_start: Not used.
            deterministic: True for the scores of :meth:`q_values`, False for those of :meth:`explore`.

        Returns:
            Index of the candidate, () for one observation, (n,) for a batch; and `state`.

        Raises:
            ValueError: If an observation allows no candidate, its shape is not that of the environment, or a score is
                NaN.
        """
        scores = self.q_values(observation) if deterministic else self.explore(observation)
        refuse_nan(scores)
        if self.layout.has_mask or "action_mask" in observation:
            mask = allowed(np.reshape(observation["action_mask"], scores.shape))
            check_mask(mask)
            scores = np.where(mask, scores, -np.inf)
        actions = scores.argmax(axis=1)
        return (actions if self.layout.is_batch(observation) else actions[0]), state

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = None,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Interact, and learn from each reward at once, as :meth:`stable_baselines3.DQN.learn`.

        Args:
            total_timesteps: Interactions; with n environments each step counts n.
            callback: Callback of SB3's kind; one that returns False ends learning.
            log_interval: Not used, because a bandit logs nothing.
            tb_log_name: Not used.
            reset_num_timesteps: False continues the environments and the count of interactions.
            progress_bar: Show a progress bar, which needs SB3's extra dependencies.

        Raises:
            ValueError: If `total_timesteps` is not a whole number of 0 or more.
            NothingLearned: If no transition was valid. If only some were invalid, a warning says how many.
        """
        require_whole("total_timesteps", total_timesteps, 0)
        is_new = self._last_obs is None
        if reset_num_timesteps:
            self.num_timesteps = 0
        until = self.num_timesteps + total_timesteps
        callback = _callback(callback, progress_bar)
        callback.init_callback(self)  # type: ignore[arg-type]
        if is_new and self.seed is not None:
            self.env.seed(self.seed)
        if is_new or reset_num_timesteps:
            self._last_obs = self.env.reset()
        callback.on_training_start({"total_timesteps": until, "self": self}, {})
        validity = Validity()
        goes_on = True
        while goes_on and self.num_timesteps < until:
            callback.on_rollout_start()
            obs = self._last_obs
            actions, _ = self.predict(obs)
            self._last_obs, rewards, dones, infos = self.env.step(actions)  # SB3's callbacks look for these names
            valid = validity.count(infos)
            if valid.all():
                self.observe(obs, actions, rewards)
            elif valid.any():
                self.observe({key: values[valid] for key, values in obs.items()}, actions[valid], rewards[valid])
            self.num_timesteps += self.env.num_envs
            callback.update_locals(locals())
            goes_on = bool(callback.on_step())
            callback.on_rollout_end()
        callback.on_training_end()
        validity.report()
        return self

    def save(self, path: str | PathLike[str]) -> None:
        """Write the bandit's arguments (JSON) and what it learned (arrays) to a zip. `load` executes nothing in it.

        Args:
            path: Where to write; a path without a suffix gets `.zip`, as in SB3.
        """
        content = {
            "format": FORMAT,
            "written_by": written_by(),
            "class": type(self).__name__,
            "reads": self.reads,
            "arguments": self._arguments,
            "num_timesteps": self.num_timesteps,
            "rng": self.rng.bit_generator.state,
        }
        with whole_file(zip_of(path)) as place, zipfile.ZipFile(place, "w") as archive:
            # `default` writes numpy's numbers as Python's.
            archive.writestr(_ARGUMENTS, json.dumps(content, default=np.generic.item))
            with archive.open(_LEARNED, "w", force_zip64=True) as file:
                np.savez(file, **self.get_learned())  # type: ignore[arg-type]

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        env: gym.Env | VectorEnv | VecEnv | str,
        *,
        max_bytes: int = MAX_BYTES,
        **arguments: Any,
    ) -> Self:
        """Load what :meth:`save` wrote, for an environment with the same observations.

        Random draws continue where they stopped. Nothing in the file is executed.

        Args:
            path: The zip; a path may lack its suffix.
            env: Any environment that the constructor takes, with any number of candidates.
            max_bytes: Largest uncompressed size of the file, 2 GiB by default.
            **arguments: Arguments that replace saved ones, or that are never saved, such as `action_features`. With a
                new `seed` the random draws start again. With another prior, other scales or another noise a
                :class:`GaussianProcessBandit` computes its posterior anew from the same rewards. A
                :class:`LinearBandit` does not keep its rewards, so its prior and noise cannot be replaced.

        Raises:
            FileNotFoundError: If there is no such file.
            AgentFileError: If the file was saved by another class, is not whole, or was changed.
            ValueError: If the bandit was trained on other observations than the environment's, or if an argument
                cannot be replaced.
            TypeError: If an argument is unknown.
        """
        known = inspect.signature(cls).parameters
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in known.values()):
            refuse_unknown_arguments(f"{cls.__name__}.load", arguments, {*known, "max_bytes"})
        shown = str(path)
        with reading(shown, "bandit"), opened(path) as file, zipfile.ZipFile(file) as archive:
            if _ARGUMENTS not in archive.namelist():
                raise AgentFileError(f"{path} holds no bandit: load it by the class that saved it (`DynaQ.load`, say).")
            if sum(entry.file_size for entry in archive.infolist()) > max_bytes:
                raise AgentFileError(
                    f"{path} unpacks to more than `max_bytes` = {max_bytes:,} bytes: raise that if you know the file."
                )
            content = json.loads(archive.read(_ARGUMENTS))
            if content.get("format", FORMAT) != FORMAT:
                raise AgentFileError(f"{path} has the format {content['format']!r:.40}, this version reads {FORMAT!r}.")
            if content["class"] != cls.__name__:
                raise AgentFileError(f"{path} holds a {content['class']}: load it by {content['class']}.load.")
            given, reads = dict(content["arguments"]), dict(content["reads"])
            learned = read_arrays(io.BytesIO(archive.read(_LEARNED)), shown, "bandit", max_bytes)
            for name, array in learned.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise AgentFileError(
                        f"{path}: `{name}` must be finite. The file was changed: use an unchanged copy."
                    )
        with building(shown):
            bandit = cls(env, **{**given, **arguments})
        refuse_other_observations(reads, bandit.reads)
        for name in sorted(cls._fixed & set(arguments)):
            asked = json.loads(json.dumps(bandit._arguments[name], default=np.generic.item))
            if asked != given[name]:
                raise ValueError(
                    f"`{name}` must be left out, or be that of the saved bandit, {given[name]!r:.80}, got "
                    f"{asked!r:.80}: what the bandit learned depends on it. For another value make a new bandit."
                )
        with reading(shown, "bandit"):
            bandit.set_learned(learned)
            bandit.num_timesteps = int(content["num_timesteps"])
            if "seed" not in arguments:
                bandit.rng.bit_generator.state = content["rng"]
        return bandit

    def get_learned(self) -> dict[str, NDArray[Any]]:
        """What the bandit learned, for :meth:`save`; nothing by default."""
        return {}

    def set_learned(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put back what :meth:`get_learned` gave."""

    def set_logger(self, logger: Logger) -> None:
        """Accept a logger, as in SB3; a bandit logs nothing."""
        self.logger = logger

    def dump_logs(self) -> None:
        """Write the logger's values, for SB3's callbacks."""
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """The space of one observation."""
        return self.env.observation_space

    @property
    def action_space(self) -> spaces.Space[Any]:
        """The space of one action."""
        return self.env.action_space

    @property
    def n_envs(self) -> int:
        """How many environments there are."""
        return self.env.num_envs

    def set_env(self, env: gym.Env | VectorEnv | VecEnv | str) -> None:
        """Continue in another environment with the same observations and any number of candidates.

        Raises:
            ValueError: If its observations are not the same.
        """
        env = as_vec_env(env)
        refuse_normalised_observations(env)
        reads = what_is_read(env)
        refuse_other_observations(self.reads, reads)
        self.reads = reads
        self.layout = CandidateLayout(env.observation_space, env.action_space)
        self.env = env
        self._last_obs = None

    def get_env(self) -> VecEnv:
        """The environments."""
        return self.env

    def get_vec_normalize_env(self) -> VecNormalize | None:
        """The `VecNormalize` around the environments, for SB3's callbacks; None if there is none."""
        return unwrap_vec_normalize(self.env)


class _VectorBandit(Bandit):
    """A bandit on the vectors of states and candidates. Ids are looked up in a table.

    `features` is given as a class and its arguments.
    """

    features: BlockwiseFeatures

    def __init__(
        self,
        env: gym.Env | VectorEnv | VecEnv | str,
        features: tuple[type[BlockwiseFeatures], Mapping[str, Any]],
        exploration: Exploration,
        action_features: NDArray[np.floating] | str | PathLike[str] | None,
        gamma: float,
        seed: int | None,
        **arguments: Any,
    ):
        refuse_other_choice("exploration", exploration, get_args(Exploration))
        super().__init__(env, gamma, seed, exploration=exploration, **arguments)
        self.action_table: ActionTable | None = None
        self._has_given_table = action_features is not None
        self._shown_table: np.ndarray | None = None  # the environments' table, if the bandit is given another one
        if self.layout.uses_ids:
            source = table_of(self.env) if action_features is None else action_features
            if source is None:
                raise ValueError(
                    "`action_features` must be given where `candidates` are ids and the environment has no attribute "
                    "`action_features`: an array (n_actions, d_a) or the path of an .npy file."
                )
            self.action_table = ActionTable(source)
            self._shown_table = table_of(self.env) if self._has_given_table else None
        feature_class, cut = features
        self.features = make_features(feature_class, self.layout, self.action_table, **cut)  # type: ignore[assignment]
        if not self.features.settled and (sample := observation_sample_of(self.env, self.layout)) is not None:
            self.features.fit_sample(sample.state, self._action_rows(sample), sample.pairs)

    def set_env(self, env: gym.Env | VectorEnv | VecEnv | str) -> None:
        """Continue in another environment, see :meth:`Bandit.set_env`. Ids must name the same actions in it.

        Raises:
            ValueError: If its observations are not the same, or it has another table of actions. Rows may be added at
                the end of the table. A bandit with a table of its own, given as `action_features=`, keeps that table,
                which must have a row for each id.
        """
        env = as_vec_env(env)
        table, shown_table = self.action_table, None
        if table is not None:
            shown_table = table_of(env)
            largest_id = CandidateLayout(env.observation_space, env.action_space).largest_id
            table = table_elsewhere(table, self._has_given_table, self._shown_table, shown_table, largest_id)
        super().set_env(env)
        self.action_table = table
        self._shown_table = shown_table if self._has_given_table else None

    def _action_rows(self, decisions: DecisionBatch) -> NDArray[np.float32]:
        """Features (n, k, d_a) of the candidates."""
        return decisions.candidates if self.action_table is None else self.action_table.rows(decisions.candidates)

    def _tensors(self, decisions: DecisionBatch) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """States (n, d_s), candidates (n, k, d_a) and pairs (n, k, p)."""
        shown, table = decisions.candidates, self.action_table
        candidates = th.as_tensor(shown) if table is None else candidates_of_ids(table, shown)
        pairs = None if decisions.pairs is None else th.as_tensor(decisions.pairs)
        return th.as_tensor(decisions.state), candidates, pairs

    def _answers(
        self, observation: Obs, action: NDArray[np.int64] | int, reward: NDArray[np.floating] | float
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None, th.Tensor]:
        """States (n, d_s), recommended actions (n, d_a), their pairs (n, p), and rewards (n,), float64.

        The features learn their scale from the observation.
        """
        answers = Answers.read(self.layout, self.action_table, observation, action, reward)
        decisions, chosen, rows = answers.decisions, answers.action, np.arange(len(answers.action))
        state, candidates, numbers = self._tensors(
            DecisionBatch(
                decisions.state,
                decisions.candidates[rows, chosen][:, None],
                None,
                None if decisions.pairs is None else decisions.pairs[rows, chosen][:, None],
            )
        )
        shared = self.features.shared(state.unsqueeze(1), candidates)
        if not all((vectors.square().sum(dim=-1) < th.inf).all() for vectors in shared):
            raise ValueError(
                "`observation` has numbers so large that products of state and action overflow: scale them to a size "
                "of about 1."
            )
        if not self.features.settled:
            self.features.see(decisions.state, self._action_rows(decisions), decisions.pairs)
        return state, candidates[:, 0], None if numbers is None else numbers[:, 0], th.as_tensor(answers.reward)

    def get_learned(self) -> dict[str, NDArray[Any]]:
        """The scale of the features."""
        return {f"features:{name}": value.numpy().copy() for name, value in self.features.get_state().items()}

    def set_learned(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put back what :meth:`get_learned` gave."""
        self.features.set_state(_tensors_of(arrays, "features:"))


class LinearBandit(_VectorBandit):
    """Bayesian linear regression of the reward on `[1, a, s * a, similarities, pairs]`, with UCB or Thompson sampling.

    The posterior of the weights is exact: a Gaussian, updated by up to 256 answers of a batch at once. UCB follows
    LinUCB (Li et al., "A contextual-bandit approach to personalized news article recommendation", WWW 2010). Thompson
    sampling follows Agrawal and Goyal, ICML 2013. With `alpha=0` the bandit is greedy, which is best on many public
    data sets (Bietti et al., "A Contextual Bandit Bake-off", JMLR 2021).

    An answer costs O(d^2) for d features, however many came before it; d is about 1,540 for vectors of 768 numbers.

    Args:
        env: See :class:`Bandit`.
        exploration: `"ucb"` adds `alpha` standard deviations. `"thompson"` draws the candidates' rewards jointly from
            the posterior, with the posterior's standard deviations multiplied by `alpha`.
        alpha: How much is explored; 0 is greedy.
        noise: Standard deviation of a reward around its mean; for answers of yes and no that earn 1 and 0, up to 0.5.
        prior_std: Prior standard deviation of each weight. Actions `a` are scaled to a mean length of 1, and the
            products `s * a` to a similar length.
        constant_std: Prior standard deviation of the mean reward.
        pairs_std: Prior standard deviation of the weight of each number of `pairs`, which are standardised.
        cosine_prior: Prior mean of the weight of each similarity, in rewards per standard deviation of the similarity.
            With a positive number the bandit begins by ranking jobs by similarity; with 0 it has no such belief.
        pairs_prior: Prior mean of the weight of each number of `pairs`; None for 0.
        prior_sources: Sources of the prior by name, in place of `cosine_prior` and `pairs_prior`: `"blocks"` for all
            similarities, and columns of `pairs`, each optionally with the prior mean of its weight. The prior standard
            deviation of that weight is as large as the prior mean, so 0 and twice the mean are one standard deviation
            away. Answers can then change how far a source is trusted, see :meth:`source_trust`.
        residual_pairs: Whether each number of `pairs` is replaced by its residual: what a regression on the
            similarities leaves of it, see :meth:`~dynaq_algo.features.BlockwiseFeatures.residuals`. A number whose
            weight has a prior mean other than 0 is not replaced.
        similarities: `"cosine"` for the cosine of state and action, or `"blocks"` for the centred similarities of
            :class:`~dynaq_algo.features.BlockwiseFeatures`, one for each of `n_blocks` (hard and soft skills).
        n_blocks: Number of equal parts of the vectors, each of which has a similarity if `similarities="blocks"`.
        action_features: For id observations, (n_actions, d_a) or the path of an .npy file; by default the environment's
            attribute `action_features`.
        gamma: See :class:`Bandit`.
        seed: See :class:`Bandit`.

    Raises:
        ValueError: If `exploration` is unknown, or a number is out of range.
        TypeError: If an argument is unknown.

    Example:
        >>> bandit = LinearBandit(env, alpha=0.3, cosine_prior=0.28).learn(500)  # doctest: +SKIP
    """

    _fixed = frozenset(
        {
            *("noise", "prior_std", "constant_std", "pairs_std", "cosine_prior", "pairs_prior", "prior_sources"),
            *("residual_pairs", "similarities", "n_blocks"),
        }
    )

    @refuse_unknown_first
    def __init__(
        self,
        env: gym.Env | VectorEnv | VecEnv | str,
        exploration: Exploration = "ucb",
        alpha: float = 1.0,
        noise: float = 0.3,
        prior_std: float = 0.3,
        constant_std: float = 1.0,
        pairs_std: float = 0.1,
        cosine_prior: float = 0.0,
        pairs_prior: Sequence[float] | None = None,
        prior_sources: Sequence[str] | Mapping[str, float] | None = None,
        residual_pairs: bool = False,
        similarities: Similarities = "cosine",
        n_blocks: int = 2,
        action_features: NDArray[np.floating] | str | PathLike[str] | None = None,
        gamma: float = 0.0,
        seed: int | None = None,
    ):
        refuse_other_choice("similarities", similarities, get_args(Similarities))
        deviations = {"noise": noise, "prior_std": prior_std, "constant_std": constant_std, "pairs_std": pairs_std}
        for name, value in {"alpha": alpha, **deviations}.items():
            least = 0.0 if name == "alpha" else 1e-6
            if require_number(name, value) < least:
                raise ValueError(f"`{name}` must be a finite number of at least {least}, got {value}.")
        pairs_prior = None if pairs_prior is None else require_row("pairs_prior", pairs_prior)
        is_cosine = similarities == "cosine"
        super().__init__(
            env,
            (_CosineFeatures, {"n_blocks": 1}) if is_cosine else (_LinearBlocks, {"n_blocks": n_blocks}),
            exploration,
            action_features,
            gamma,
            seed,
            alpha=alpha,
            cosine_prior=cosine_prior,
            pairs_prior=pairs_prior,
            prior_sources=None if prior_sources is None else sources_of(prior_sources),
            residual_pairs=require_flag("residual_pairs", residual_pairs),
            similarities=similarities,
            n_blocks=n_blocks,
            **deviations,
        )
        self.exploration, self.alpha, self.noise = exploration, alpha, noise
        n_pairs = self.features.n_pairs
        of_pairs = [0.0] * n_pairs if pairs_prior is None else pairs_prior
        if len(of_pairs) != n_pairs:
            raise ValueError(
                f"`pairs_prior` must hold a weight for each of the {n_pairs} numbers that the observation's entry "
                f"`pairs` has, got {of_pairs}."
            )
        prior = th.tensor([float(cosine_prior)] * self.features.n_cosines + of_pairs, dtype=th.float64)
        if not prior.isfinite().all():
            raise ValueError(f"`cosine_prior` and `pairs_prior` must be finite, got {cosine_prior} and {pairs_prior}.")
        dim = 1 + self.features.output_dim - self.features.state_dim
        self._prior_mean = th.zeros(dim, dtype=th.float64)
        self._prior_mean[dim - len(prior) :] = prior
        self._prior_std = th.full((dim,), prior_std, dtype=th.float64)
        self._prior_std[0], self._prior_std[dim - n_pairs :] = constant_std, pairs_std
        self._source_weights: dict[str, th.Tensor] = {}
        if prior_sources is not None:
            self._expect(sources_of(prior_sources), bool(cosine_prior) or pairs_prior is not None)
        self._has_prior = self._prior_mean[dim - n_pairs :] != 0  # (p,), of the weight of each number of `pairs`
        self.features.uses_residuals = residual_pairs and not bool(self._has_prior.all())
        self._features_version = self.features.version
        # Chosen pairs and their rewards, kept while the scale of the features may still change.
        self._rewards: list[tuple[th.Tensor, th.Tensor, th.Tensor | None, float]] = []
        self._forget()

    def _expect(self, sources: Mapping[str, float], has_other_prior: bool) -> None:
        """Take the prior of the weights from sources."""
        if has_other_prior:
            raise ValueError(
                "`prior_sources` replaces `cosine_prior` and `pairs_prior`, so it cannot be given with either of them: "
                'name all sources in `prior_sources`, `{"blocks": 0.1, ...}`.'
            )
        features = self.features
        given, _ = source_weights(sources, features.n_blocks, features.n_cosines, features.n_pairs, self.reads["pairs"])
        weights = th.as_tensor(given)
        own = slice(len(self._prior_mean) - len(weights), None)
        self._prior_mean[own] = weights.sum(dim=1)
        told = weights.abs().sum(dim=1)
        self._prior_std[own] = th.where(told > 0, told, self._prior_std[own])
        self._source_weights = dict(zip(sources, weights.T, strict=True))

    def source_trust(self) -> dict[str, tuple[float, float]]:
        """Posterior mean and standard deviation of each source's factor.

        Before any answer the mean is 1, and the standard deviation is at most 1.

        If a source has several similarities, their learned weights can differ. The factor is then the mean of these
        weights, divided by the weight that the source was given.
        """
        self._refresh()
        trust = {}
        for name, weights in self._source_weights.items():
            share = th.zeros_like(self._mean)
            share[len(share) - len(weights) :] = weights / weights.square().sum()
            trust[name] = float(share @ self._mean), float((share @ self._covariance @ share).sqrt())
        return trust

    def linear_features(self, observation: Obs) -> NDArray[np.float64]:
        """Inputs (n, k, d) of the linear model."""
        return self._features(*self._tensors(self.layout.read(observation))).numpy()

    def q_values(self, observation: Obs) -> NDArray[np.float64]:
        """Expected rewards (n, k)."""
        state, candidates, pairs = self._tensors(self.layout.read(observation))
        self._refresh()
        return self._of_pieces(state, candidates, pairs, lambda _, features: features @ self._mean)

    def explore(self, observation: Obs) -> NDArray[np.float64]:
        """Scores (n, k) that explore."""
        if self.alpha == 0:
            return self.q_values(observation)
        state, candidates, pairs = self._tensors(self.layout.read(observation))
        self._refresh()
        if self.exploration == "thompson" and candidates.shape[1] <= len(self._mean):
            features = self._features(state, candidates, pairs)
            joint = features @ self._covariance @ features.mT
            return _draws(features @ self._mean, joint, self.alpha, self.rng)
        if self.exploration == "thompson":
            # Drawing weights gives the same distribution, and costs less where there are more candidates than weights.
            n, d = len(state), len(self._mean)
            drawn = _draws(self._mean.expand(n, d), self._covariance.unsqueeze(0), self.alpha, self.rng)
            weights = th.as_tensor(drawn)
            return self._of_pieces(state, candidates, pairs, lambda rows, x: (x @ weights[rows].unsqueeze(-1))[..., 0])

        def bound(_: slice, features: th.Tensor) -> th.Tensor:
            variance = (features @ self._covariance * features).sum(dim=-1)
            return features @ self._mean + self.alpha * variance.clamp_min(0.0).sqrt()

        return self._of_pieces(state, candidates, pairs, bound)

    def _of_pieces(
        self,
        state: th.Tensor,
        candidates: th.Tensor,
        pairs: th.Tensor | None,
        score: Callable[[slice, th.Tensor], th.Tensor],
    ) -> NDArray[np.float64]:
        """Scores (n, k), computed for at most `_SCORED` pairs at a time, because features need much memory.

        `score` takes the rows of a piece and its features (m, l, d), and returns (m, l).
        """
        n, k = candidates.shape[:2]
        found = []
        for rows, columns in pieces_of(n, k, _SCORED):
            numbers = None if pairs is None else pairs[rows, columns]
            found.append(score(rows, self._features(state[rows], candidates[rows, columns], numbers)).flatten())
        return th.cat(found).view(n, k).numpy()

    def observe(self, observation: Obs, action: NDArray[np.int64] | int, reward: NDArray[np.floating] | float) -> None:
        """Bring answers into the posterior, see :meth:`Bandit.observe`."""
        state, chosen, pairs, rewards = self._answers(observation, action, reward)
        self._refresh()
        features = self._features(state, chosen.unsqueeze(1), None if pairs is None else pairs.unsqueeze(1))[:, 0]
        for some, values in zip(features.split(_TOGETHER), rewards.split(_TOGETHER), strict=True):
            self._update(some, values)
        if self.features.settled:
            self._rewards.clear()
            return
        for row, value in enumerate(rewards.tolist()):  # copies are kept, because an observation belongs to the caller
            numbers = None if pairs is None else pairs[row].clone()
            self._rewards.append((state[row].clone(), chosen[row].clone(), numbers, value))

    def _update(self, features: th.Tensor, rewards: th.Tensor) -> None:
        """Bring n answers into the posterior together: features (n, d), rewards (n,)."""
        if len(features) == 1:
            direction = self._covariance @ features[0]
            left = self.noise**2 + features[0] @ direction
            self._mean += direction * ((rewards[0] - features[0] @ self._mean) / left)
            self._covariance.addr_(direction, direction / left, alpha=-1.0)
            return
        directions = features @ self._covariance
        expected_products = directions @ features.T
        expected_products.diagonal().add_(self.noise**2)
        # With the Cholesky factor the answers become independent of each other, each with a variance of 1.
        factor, failed = th.linalg.cholesky_ex(expected_products)
        if failed:  # the noise is so small that rounding hides it beside answers of equal features
            for row in range(len(features)):
                self._update(features[row : row + 1], rewards[row : row + 1])
            return
        directions = th.linalg.solve_triangular(factor, directions, upper=False)
        surprises = th.linalg.solve_triangular(factor, (rewards - features @ self._mean).unsqueeze(1), upper=False)
        self._mean += directions.T @ surprises[:, 0]
        self._covariance.addmm_(directions.T, directions, alpha=-1.0)

    def _features(self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None) -> th.Tensor:
        """States (n, d_s), candidates (n, k, d_a), pairs (n, k, p) -> (n, k, d) float64."""
        states = state.unsqueeze(1).expand(-1, candidates.shape[1], -1)
        features = self.features.of_action(states, candidates, pairs)
        if self.features.uses_residuals:
            similarities, numbers = features[..., -self.features.n_similarities :].split(
                [self.features.n_cosines, self.features.n_pairs], dim=-1
            )
            left = self.features.residuals(similarities, numbers, self._has_prior)
            features = th.cat([features[..., : -self.features.n_pairs], left], dim=-1)
        return F.pad(features, (1, 0), value=1.0).double()

    def _refresh(self) -> None:
        """Learn all kept answers again if the scale of the features has changed."""
        if self._features_version == self.features.version:
            return
        self._features_version = self.features.version
        self._forget()
        for state, action, pairs, reward in self._rewards:
            numbers = None if pairs is None else pairs.view(1, 1, -1)
            features = self._features(state.unsqueeze(0), action.view(1, 1, -1), numbers)[0]
            self._update(features, th.tensor([reward], dtype=th.float64))

    def _forget(self) -> None:
        self._mean = self._prior_mean.clone()
        self._covariance = th.diag(self._prior_std.square())

    def get_learned(self) -> dict[str, NDArray[Any]]:
        """The posterior and, while the features may still change, the answers from which it was learned."""
        self._refresh()
        learned = {"mean": self._mean.numpy().copy(), "covariance": self._covariance.numpy().copy()}
        if self._rewards:
            columns = list(zip(*self._rewards, strict=True))
            names = ("state", "action", "pairs") if columns[2][0] is not None else ("state", "action")
            learned |= {f"seen:{name}": th.stack(column).numpy() for name, column in zip(names, columns, strict=False)}
            learned["seen:reward"] = np.array(columns[3])
        return {**super().get_learned(), **learned}

    def set_learned(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put back what :meth:`get_learned` gave."""
        super().set_learned(arrays)
        mean, covariance = (th.tensor(arrays[name]) for name in ("mean", "covariance"))
        if (mean.shape, covariance.shape) != (self._mean.shape, self._covariance.shape):
            raise ValueError(f"`mean` must be of {len(self._mean)} features, got {tuple(mean.shape)}")
        self._mean, self._covariance = mean, covariance
        self._features_version = self.features.version
        seen = _tensors_of(arrays, "seen:")
        pairs = seen.get("pairs", [None] * len(seen.get("reward", [])))
        self._rewards = [
            (seen["state"][i], seen["action"][i], pairs[i], reward)
            for i, reward in enumerate(seen["reward"].tolist() if seen else [])
        ]


class GaussianProcessBandit(_VectorBandit):
    """Acts by the posterior of a :class:`~dynaq_algo.gaussian_process.GaussianProcess`, without a Q-network.

    UCB follows Srinivas et al., "Gaussian process optimization in the bandit setting", ICML 2010.

    Args:
        env: See :class:`Bandit`.
        exploration: `"ucb"` adds `alpha` standard deviations. `"thompson"` draws the candidates' rewards jointly from
            the posterior, with the posterior's standard deviations multiplied by `alpha`.
        alpha: How much is explored; 0 is greedy.
        prior: See :class:`~dynaq_algo.gaussian_process.GaussianProcess` for this and all arguments down to
            `prior_sources`.
        scales: Prior standard deviations of parts.
        noise: Standard deviation of a reward around its mean; for answers of yes and no that earn 1 and 0, up to 0.5.
        max_pairs: Distinct pairs that are kept.
        spike_slab: Whether a factor of the prior mean is learned.
        spike: Prior probability that the factor of the prior mean is 1.
        contrary: Prior probability that the factor of the prior mean is below 0.
        draw_factor: Whether exploration acts on a drawn factor of the prior.
        learn_pair_scale: Whether the scale of `pairs` is learned.
        residual_pairs: Whether the part `pairs` is linear in the residuals of the numbers, not in the numbers. A
            residual is what a regression on the similarities leaves of a number.
        fit_scales: Whether scales and noise are fitted.
        prior_sources: Parts of the prior, in place of `prior`: `"blocks"` and columns of `pairs`, each with a factor
            that is learned.
        n_blocks: Number of equal parts of the vectors, each of which has a similarity.
        whole: Whether the whole vectors have a similarity too. Give `prior` too then: its weight stands behind those
            of the blocks, such as `[0.03, 0.03, 0.11]`.
        action_features: For id observations, (n_actions, d_a) or the path of an .npy file; by default the environment's
            attribute `action_features`.
        gamma: See :class:`Bandit`.
        seed: See :class:`Bandit`.

    Raises:
        ValueError: If `exploration` is unknown, or a number is out of range.
        TypeError: If an argument is unknown.
    """

    _fixed = frozenset({"n_blocks", "whole"})

    @refuse_unknown_first
    def __init__(
        self,
        env: gym.Env | VectorEnv | VecEnv | str,
        exploration: Exploration = "ucb",
        alpha: float = 1.0,
        prior: Sequence[float] | None = (0.1, 0.1),
        scales: Mapping[str, float] | None = None,
        noise: float = 0.3,
        max_pairs: int = 2_000,
        spike_slab: bool = False,
        spike: float = 0.3,
        contrary: float = 0.07,
        draw_factor: bool = True,
        learn_pair_scale: bool = False,
        residual_pairs: bool = False,
        fit_scales: bool = False,
        prior_sources: Sequence[str] | Mapping[str, float] | None = None,
        n_blocks: int = 2,
        whole: bool = False,
        action_features: NDArray[np.floating] | str | PathLike[str] | None = None,
        gamma: float = 0.0,
        seed: int | None = None,
    ):
        if require_number("alpha", alpha) < 0:
            raise ValueError(f"`alpha` must be a finite number of 0 or more, got {alpha}.")
        model = {
            "prior": None if prior is None else require_row("prior", prior),
            "scales": dict(scales or {}),
            "noise": noise,
            "max_pairs": max_pairs,
            "spike_slab": spike_slab,
            "spike": spike,
            "contrary": contrary,
            "draw_factor": draw_factor,
            "learn_pair_scale": learn_pair_scale,
            "residual_pairs": residual_pairs,
            "fit_scales": fit_scales,
            "prior_sources": None if prior_sources is None else sources_of(prior_sources),
        }
        super().__init__(
            env,
            (BlockwiseFeatures, {"n_blocks": n_blocks, "whole": whole}),
            exploration,
            action_features,
            gamma,
            seed,
            alpha=alpha,
            n_blocks=n_blocks,
            whole=whole,
            **model,
        )
        self.exploration, self.alpha = exploration, alpha
        names = self.reads["pairs"]
        self.model = GaussianProcess(self.features, **model, pair_names=names)  # type: ignore[arg-type]

    def q_values(self, observation: Obs) -> NDArray[np.float32]:
        """Expected rewards (n, k)."""
        with th.no_grad():
            return self.model.score(*self._tensors(self.layout.read(observation)), with_spread=False)[0].numpy()

    def explore(self, observation: Obs) -> NDArray[np.floating]:
        """Scores (n, k) that explore."""
        state, candidates, pairs = self._tensors(self.layout.read(observation))
        with th.no_grad():
            if self.exploration == "ucb":
                return self.model.explore(state, candidates, pairs, self.alpha).numpy()
            joint = [
                self.model.joint(state[i], candidates[i], None if pairs is None else pairs[i])
                for i in range(len(state))
            ]
        if not joint:
            return np.zeros(candidates.shape[:2])
        means, covariances = (th.stack(part) for part in zip(*joint, strict=True))
        return _draws(means, covariances, self.alpha, self.rng)

    def observe(self, observation: Obs, action: NDArray[np.int64] | int, reward: NDArray[np.floating] | float) -> None:
        """Bring answers into the posterior, see :meth:`Bandit.observe`."""
        answers = self._answers(observation, action, reward)
        with th.no_grad():
            self.model.observe(*answers)

    def get_learned(self) -> dict[str, NDArray[Any]]:
        """The posterior."""
        state = self.model.get_extra_state()
        scales = {name: state.pop(name) for name in ("scales", "given")}
        learned = {f"model:{name}": value.numpy() for name, value in state.items()}
        learned |= {f"model:{name}": np.array(json.dumps(numbers)) for name, numbers in scales.items()}
        return {**super().get_learned(), **learned}

    def set_learned(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put back what :meth:`get_learned` gave."""
        super().set_learned(arrays)
        texts = {name: str(values) for name, values in arrays.items() if name in ("model:scales", "model:given")}
        scales = {name.removeprefix("model:"): json.loads(text) for name, text in texts.items()}
        others = {name: values for name, values in arrays.items() if name not in texts}
        self.model.set_extra_state({**_tensors_of(others, "model:"), **scales})


class _LinearBlocks(BlockwiseFeatures):
    """Blockwise features whose actions are also centred, and have unit length on average."""

    _spread = 1.0

    def pair(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The action, the product of state and action, and their similarities."""
        centred = self.centred(action[..., : self.shared_dim]) / self._spread
        return th.cat(
            [centred, action[..., self.shared_dim :], super().pair(state, action)[..., self.action_dim :]], -1
        )

    def get_state(self) -> dict[str, th.Tensor]:
        """The actions and pairs that were seen, and the scale of actions."""
        return {**super().get_state(), "spread": th.tensor(self._spread, dtype=th.float64)}

    def set_state(self, state: Mapping[str, th.Tensor]) -> None:
        """Put back what :meth:`get_state` gave."""
        super().set_state(state)
        self._spread = float(state["spread"])

    def _scale_to(self, actions: np.ndarray) -> None:
        super()._scale_to(actions)
        centred = np.asarray(actions, np.float64) - self._centre.numpy()
        # Vectors of texts have much in common. The rest, after the mean is subtracted, is scaled to unit length.
        self._spread = float(np.linalg.norm(centred, axis=1).mean()) or 1.0


class _CosineFeatures(_LinearBlocks):
    """Linear features whose product is not centred. Their only similarity is the cosine of state and action.

    The cosine is standardised by the mean and standard deviation of the cosines of random pairs of actions.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._cosine = th.tensor([0.0, 1.0])

    def pair(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The action, the product of state and action, and their cosine."""
        s, a = self.shared(state, action)
        centred = self.centred(a) / self._spread
        # If s and a have unit length, `s * a` sums up to the cosine. The factor gives the products a spread like that
        # of the other features.
        product = s * a * (self.shared_dim**0.5 / 2)
        return th.cat([centred, action[..., self.shared_dim :], product, self.of_blocks(s, a)], dim=-1)

    def of_blocks(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """The cosine as the only similarity: (..., shared_dim), (..., shared_dim) -> (..., 1)."""
        mean, deviation = self._cosine
        return (F.cosine_similarity(state, action, dim=-1).unsqueeze(-1) - mean) / deviation

    def get_state(self) -> dict[str, th.Tensor]:
        """The actions and pairs that were seen, and the scales of actions and cosines."""
        return {**super().get_state(), "cosine": self._cosine}

    def set_state(self, state: Mapping[str, th.Tensor]) -> None:
        """Put back what :meth:`get_state` gave."""
        super().set_state(state)
        self._cosine = state["cosine"]

    def _scale_to(self, actions: np.ndarray) -> None:
        super()._scale_to(actions)
        left, right = (
            th.as_tensor(np.asarray(actions[rows], np.float32))
            for rows in np.random.default_rng(0).integers(len(actions), size=(2, 2_000))
        )
        cosine = F.cosine_similarity(left, right, dim=-1)
        # A smaller deviation is only rounding: the cosines do not vary.
        self._cosine = th.stack([cosine.mean(), cosine.std() if cosine.std() > 1e-6 else th.ones(())])


def _draws(mean: th.Tensor, covariance: th.Tensor, alpha: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw rewards (n, k) with means (n, k) and covariances (n, k, k); deviations are multiplied by `alpha`."""
    values, vectors = th.linalg.eigh((covariance + covariance.mT) / 2)
    normal = th.as_tensor(rng.standard_normal(mean.shape)) * values.clamp_min(0.0).sqrt()
    return (mean + alpha * (vectors @ normal.unsqueeze(-1)).squeeze(-1)).numpy()


def _tensors_of(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, th.Tensor]:
    return {name.removeprefix(prefix): th.tensor(a) for name, a in arrays.items() if name.startswith(prefix)}


def _callback(callback: MaybeCallback, progress_bar: bool) -> BaseCallback:
    """One callback from any of the forms that SB3's `learn` takes."""
    several = list(callback) if isinstance(callback, list) else [callback] if callback is not None else []
    each: list[BaseCallback] = [one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in several]
    if progress_bar:
        each.append(ProgressBarCallback())
    return each[0] if len(each) == 1 else CallbackList(each)
