"""Builds a run from its config. Environments, rewards, learners and evaluations get plain arguments, not a config."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
from gymnasium.vector import VectorEnv
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

import jobrec_gym
from dynaq_algo import Bandit
from experiments.runs import resolvers  # noqa: F401  # configs cannot be resolved without them
from experiments.runs.careers import CAREER, CareerEvaluation, is_career
from experiments.runs.datasets import PretrainScale
from experiments.runs.evaluation import Evaluation, HeldOutEvaluation, Truth
from experiments.runs.folders import RunError
from experiments.runs.keys import WAY_OUT, key_in_config
from experiments.runs.numbers import MOST, require_switch, require_whole
from experiments.runs.recording import InteractionRecorder, asked_in_all
from experiments.runs.sb3_arguments import as_sb3_wants, require_sb3_arguments
from experiments.runs.trackers import Tracker
from jobrec_gym import JobRecCareerVectorEnv, JobRecVectorEnv, LabourMarket
from jobrec_gym.market import Split
from jobrec_gym.near_miss import did_you_mean
from jobrec_gym.prior_sources import LiveSource

__all__ = [
    "Algorithm",
    "EvaluationOptions",
    "Pretraining",
    "Setup",
    "Task",
    "build",
    "build_seeds",
    "build_task",
    "open_market",
    "picked",
    "plain",
    "truth_spec",
]

Config = Mapping[str, Any]
"""A resolved config, in plain dictionaries and lists."""

T = TypeVar("T")
E = TypeVar("E", bound=JobRecVectorEnv)

_NUMBERS = (
    ("seed", 0, 2**32 - 1),
    ("total_timesteps", 0, MOST),
    ("pretrain.epochs", 0, MOST),
    ("pretrain.n_pairs", 1, MOST),
    ("evaluation.interval", 1, MOST),
    ("evaluation.n_pairs", 1, MOST),
    ("evaluation.n_episodes", 0, MOST),
    ("evaluation.seed", 0, 2**63 - 1),
    ("checkpoint_interval", 1, MOST),
    ("threads", 1, 4096),
    ("env.n_envs", 1, 2**31 - 1),
    ("env.max_episode_steps", 1, MOST),
)
"""Entries of a run's config that are whole numbers, with the smallest and the largest."""

_SECTIONS = ("market", "env", "reward", "simulator", "algo", "pretrain", "evaluation")
_OPTIONAL = ("checkpoint_interval", "pretrain.n_pairs")
_OF_THE_VECTOR = ("id", "n_envs", "max_episode_steps")
_STATIC = "JobRec-v0"
_KINDS = {_STATIC: JobRecVectorEnv, CAREER: JobRecCareerVectorEnv}
_OF_CAREERS = ("n_applicants", "n_sets")


def build(cfg: DictConfig | Config, evaluation: Mapping[str, Any] | None = None) -> Setup:
    """The run that a config describes.

    Args:
        cfg: A composed ``conf/train.yaml``, or the ``config.yaml`` of a finished run.
        evaluation: Entries of its ``evaluation`` to replace.

    Raises:
        RunError: If it cannot be built.
    """
    config = plain(cfg)
    own = config["evaluation"]
    return Setup({**config, "evaluation": {**own, **(evaluation or {})} if isinstance(own, Mapping) else own})


def build_seeds(cfg: DictConfig, seeds: Sequence[int]) -> list[Setup]:
    """The same run with other seeds. Other numbers that depend on the seed follow it by interpolation.

    Raises:
        RunError: If the config is wrong.
    """
    return [build(OmegaConf.merge(cfg, {"seed": seed})) for seed in seeds]  # type: ignore[arg-type]


def build_task(cfg: DictConfig) -> Task:
    """The task of a config that names no agent.

    Raises:
        RunError: If the market needs a path and the config gives none.
    """
    return Task(plain(cfg))


def plain(cfg: DictConfig | Config) -> dict[str, Any]:
    """A config with everything resolved, in dictionaries and lists.

    Raises:
        RunError: If the market needs a path and the config gives none.
        MissingMandatoryValue: If another entry is missing.
    """
    if not isinstance(cfg, DictConfig):
        return dict(cfg)
    if "market" in cfg and OmegaConf.is_missing(cfg.market, "path"):
        raise RunError("`market.path` must be given in this setting: market.path=FILE, the file or folder of its data.")
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def picked(kind: Callable[..., T], cfg: DictConfig | Config, unresolved: Collection[str] = ()) -> T:
    """A dataclass of plain values, filled with the entries of a config that its fields name.

    Args:
        kind: The dataclass.
        cfg: The config with the entries.
        unresolved: Entries that are not resolved here, because their interpolations refer to another config.
    """
    values = {field.name: cfg[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    return kind(
        **{
            name: OmegaConf.to_container(value, resolve=name not in unresolved) if OmegaConf.is_config(value) else value
            for name, value in values.items()
        }
    )


@dataclass(frozen=True, slots=True)
class Pretraining:
    """What an agent learns from cosine rewards before its first interaction; see ``conf/train.yaml``.

    Attributes:
        epochs: How often the agent sees the pairs, but see ``n_pairs``; 0 for no pre-training.
        dataset: A file of ``experiments.make_dataset``; ``None`` if pairs are drawn.
        n_pairs: How many pairs are drawn. If the market has fewer, all are drawn, and there are more epochs, so that
            the number of updates stays the same. ``None`` draws all, and leaves the epochs as they are.
        scale: Scale of their rewards, see :func:`~experiments.runs.datasets.cosine_pairs`.
        seed: Seed of the draw.
    """

    epochs: int
    dataset: str | None
    n_pairs: int | None
    scale: PretrainScale
    seed: int


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How an agent is evaluated on held-out applicants, and after which interactions; see ``conf/train.yaml``.

    Attributes:
        split: Which applicants.
        job_split: Which jobs.
        n_pairs: Fixed (applicant, candidate set) pairs; not used if answers change the applicant.
        n_episodes: Greedy episodes for the discounted return; not used if answers change the applicant.
        seed: Seed of pairs and episodes.
        at: Interactions after which the learning curve gets a point.
        interval: Number of interactions between further points.
    """

    split: Split
    job_split: Split
    n_pairs: int
    n_episodes: int
    seed: int
    at: Sequence[int]
    interval: int


class Algorithm:
    """The learner: a class with SB3's methods, and its arguments except ``env``.

    The class is imported when it is first needed, so that a run can be planned where the class cannot be imported.

    Args:
        spec: ``_target_``, the dotted path of the class or of a class method that makes an object, such as
            ``dynaq_algo.DynaQ.plus``; and its arguments.
    """

    def __init__(self, spec: Config):
        self.spec = spec

    @property
    def target(self) -> str:
        """The dotted path."""
        return self.spec["_target_"]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.target.rpartition(".")[2]

    @property
    def gamma(self) -> float:
        """The learner's discount."""
        return self.spec["gamma"]

    @property
    def kind(self) -> Any:
        """The learner's class."""
        target = get_object(self.target)
        return target if isinstance(target, type) else target.__self__

    @property
    def is_bandit(self) -> bool:
        """Whether the learner learns from interactions only, not from a data set."""
        return issubclass(self.kind, Bandit)

    def make(self, env: VectorEnv) -> Any:
        """A new learner."""
        return _make({"algo": self.spec}, "algo", env=env, **as_sb3_wants(self.spec))

    def load(self, path: Path, env: VectorEnv) -> Any:
        """A saved learner, without its replay."""
        return self.kind.load(path, env=env)

    def load_checkpoint(self, path: Path, env: VectorEnv) -> Any:
        """A learner that continues from its checkpoint."""
        return self.kind.load_checkpoint(path, env)


class Task:
    """A market, and environments on it with a reward. Market and environments are made when they are first needed.

    Args:
        config: A config with ``market`` and, if they are needed, ``simulator``, ``env`` and ``reward``.

    Attributes:
        config: The given config.
    """

    def __init__(self, config: Config):
        self.config = config
        self._live_sources: list[LiveSource] = []

    @property
    def sources_asked(self) -> dict[str, float] | None:
        """What the live models in ``prior_sources`` of all environments were asked so far, those of evaluations too.

        See :func:`~experiments.runs.recording.asked_in_all`.
        """
        return asked_in_all([source.usage for source in self._live_sources])

    def _counted(self, make: Callable[..., E]) -> Callable[..., E]:
        """A function like ``make``, whose environments count for :attr:`sources_asked`."""

        def make_counted(*args: Any, **options: Any) -> E:
            env = make(*args, **options)
            self._live_sources += env.live_sources
            return env

        return make_counted

    @cached_property
    def market(self) -> LabourMarket:
        """The market of the applicants and jobs."""
        return _make(self.config, "market")

    def make_simulator(self) -> Any:
        """The simulator that answers in training, not yet bound to a market."""
        return _make(self.config, "simulator")

    @property
    def n_envs(self) -> int:
        """How many environments step together."""
        return self.config["env"]["n_envs"]

    @property
    def max_episode_steps(self) -> int:
        """How long an episode is."""
        return self.config["env"]["max_episode_steps"]

    @property
    def env_id(self) -> str:
        """Id of the environment; ``JobRec-v0`` by default."""
        return self.config["env"].get("id", _STATIC)

    @property
    def is_career(self) -> bool:
        """Whether answers change the applicants."""
        return is_career(self.config)

    @cached_property
    def env_options(self) -> dict[str, Any]:
        """The keywords of one environment, except the market. Entries with a ``_target_`` have become objects."""
        return {
            key: _make(self.config, "env", key) if isinstance(value, dict) and "_target_" in value else value
            for key, value in self.config["env"].items()
            if key not in _OF_THE_VECTOR
        }

    def make_bare_env(self, make: Callable[..., JobRecVectorEnv] | None = None) -> JobRecVectorEnv:
        """The environments without the reward of training, made by ``make`` or else of the kind :attr:`env_id`."""
        return self._counted(make or _KINDS[self.env_id])(
            num_envs=self.n_envs,
            max_episode_steps=self.max_episode_steps,
            autoreset_mode="SameStep",
            market=self.market,
            **self.env_options,
        )

    def make_env(self, make: Callable[..., JobRecVectorEnv] | None = None) -> InteractionRecorder:
        """New training environments under the reward, recorded.

        Args:
            make: Function that makes the environments; by default they are of the kind :attr:`env_id`.
        """
        bare = self.make_bare_env(make)
        pays_itself = self.config["reward"]["_target_"] is None
        return InteractionRecorder(bare if pays_itself else _make(self.config, "reward", env=bare))

    def single_env(self) -> gym.Env[Any, Any]:
        """A single environment with the same reward as in :meth:`make_env`, made by ``gym.make``."""
        env = gym.make(self.env_id, market=self.market, max_episode_steps=self.max_episode_steps, **self.env_options)
        # Every vector wrapper has a twin for single environments with the same arguments.
        reward = self.config["reward"]
        if reward["_target_"] is None:
            return env
        twin = {**reward, "_target_": reward["_target_"].replace(".Vector", ".")}
        return _make({"reward": twin}, "reward", env=env)


class Setup(Task):
    """A run that can be made. Parts that take time are made when they are first used.

    It can be sent to another process before any part is made.

    Args:
        config: A resolved ``conf/train.yaml``.

    Attributes:
        config: The given config, with whole numbers for counts that are written as 1e3. A run's folder is recognised by
            this config.
        seed: Seed of environments, exploration and networks.
        total_timesteps: Interactions at the end.
        pretraining: Options of pre-training, before the first interaction.
        evaluation_options: How and when the agent is evaluated.
        algorithm: The learner.
        resume: Whether a finished run is kept, and an interrupted one continues.
        checkpoint_interval: Interactions between checkpoints; ``None`` for no checkpoints.
        progress_bar: Whether a bar is drawn; ``None`` draws one on a terminal.
        threads: Threads of torch.

    Raises:
        RunError: If the config is wrong.
    """

    def __init__(self, config: Config):
        _check(config)
        config = _as_typed(config)
        super().__init__(config)
        self.seed: int = config["seed"]
        self.total_timesteps: int = config["total_timesteps"]
        self.pretraining = picked(Pretraining, config["pretrain"])
        self.evaluation_options = picked(EvaluationOptions, config["evaluation"])
        self.algorithm = Algorithm(config["algo"])
        self.resume: bool = config["resume"]
        self.checkpoint_interval: int | None = config["checkpoint_interval"]
        self.progress_bar: bool | None = config["progress_bar"]
        self.threads: int = config["threads"]

    @cached_property
    def tracker(self) -> Tracker | None:
        """The tracker that also gets the run; ``None`` if there is none."""
        tracker: Tracker | None = _make(self.config, "tracker") if self.config.get("tracker") else None
        return tracker

    @cached_property
    def env(self) -> InteractionRecorder:
        """The environments that the agent learns in."""
        return self.make_env()

    @cached_property
    def truth(self) -> Truth:
        """The simulator that knows expected rewards, bound to the market.

        Raises:
            RunError: If the simulator must be asked about a pair to know its expected reward, like a language model.
        """
        return self._truth(*self._truth_keys)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The evaluation on held-out applicants, by the run's truth."""
        if self.is_career:
            return self._career_evaluation(*self._truth_keys)
        return self._pairs_evaluation(self.truth)

    @property
    def _truth_keys(self) -> tuple[str, ...]:
        """Keys of the config's entry for the simulator of the evaluation."""
        return (*(("evaluation",) if self.config["evaluation"]["simulator"] else ()), "simulator")

    @property
    def other_truths(self) -> Sequence[str]:
        """Names of further truths by which the agent is scored at the end."""
        return list(self.config["evaluation"]["also"])

    def other_evaluation(self, name: str) -> Evaluation:
        """The held-out evaluation by one of :attr:`other_truths`.

        Raises:
            RunError: See :attr:`truth`.
        """
        keys = "evaluation", "also", name
        return self._career_evaluation(*keys) if self.is_career else self._pairs_evaluation(self._truth(*keys))

    def _career_evaluation(self, *keys: str) -> CareerEvaluation:
        """An evaluation by episodes, in which the simulator at some keys of the config answers."""
        self._truth(*keys)  # refuses a simulator that would have to ask a language model
        options = self.evaluation_options
        shown = {**self.env_options, "split": options.split, "job_split": options.job_split}
        shown |= {"simulator": _make(self.config, *keys), "max_episode_steps": self.max_episode_steps}
        how_many = {name: self.config["evaluation"][name] for name in _OF_CAREERS if name in self.config["evaluation"]}
        make = self._counted(partial(JobRecCareerVectorEnv, market=self.market, **shown))
        return CareerEvaluation(make, seed=options.seed, **how_many)

    def _pairs_evaluation(self, truth: Truth) -> HeldOutEvaluation:
        options = self.evaluation_options
        return HeldOutEvaluation(
            self.market,
            truth,
            {**self.env_options, "split": options.split, "job_split": options.job_split},
            n_pairs=options.n_pairs,
            n_episodes=options.n_episodes,
            max_episode_steps=self.max_episode_steps,
            gamma=self.algorithm.gamma,
            terminate_on=self.config["reward"].get("terminate_on", ()),
            seed=options.seed,
            make=self._counted(JobRecVectorEnv),
        )

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether the algorithm writes checkpoints, from which a stopped run can continue."""
        return hasattr(self.algorithm.kind, "save_checkpoint")

    def require_verbs(self) -> None:
        """Refuses an algorithm that cannot do what the run asks of it.

        Raises:
            RunError: If a method is missing, or if the run would be pre-trained for ``JobRecCareer-v0``.
        """
        algorithm, epochs = self.algorithm, self.pretraining.epochs
        if self.is_career and epochs and not algorithm.is_bandit:
            raise RunError(
                f"`pretrain.epochs` must be 0 in {CAREER}, got {epochs}: the agent reads the applicant's "
                "progress, but the pre-training data have none. Choose another algo, or pretrain.epochs=0."
            )
        for name, value, method in (
            ("pretrain.epochs", None if algorithm.is_bandit else epochs or None, "pretrain"),
            ("checkpoint_interval", self.checkpoint_interval, "save_checkpoint"),
        ):
            if value is not None and not hasattr(algorithm.kind, method):
                raise RunError(
                    f"`{name}` is {value}, but {algorithm.target} has no `{method}`: leave it out, or choose "
                    "algo=dynaq."
                )

    def _truth(self, *keys: str) -> Truth:
        truth = _make(self.config, *keys).bind(self.market)
        lacking = [name for name in ("expected_reward", "decisions") if not hasattr(truth, name)]
        if lacking:
            target = reduce(lambda node, key: node[key], keys, self.config)["_target_"]
            raise RunError(
                f"the simulator that scores the agent is {target}, which would have to be asked about every held-out "
                f"pair, as it has no {' and no '.join(f'`{name}(applicant_ids, job_ids)`' for name in lacking)}: "
                "take +simulator@evaluation.simulator=rules or +simulator@evaluation.simulator=recorded."
            )
        return truth


def truth_spec(config: Config) -> Any:
    """The truth in a resolved config: ``evaluation.simulator``, or else the simulator of training."""
    return config["evaluation"]["simulator"] or config["simulator"]


def open_market(scheme: str | None, path: str, **kwargs: Any) -> LabourMarket:
    """The market at a path. Its scheme says how to read it; ``None`` stands for a saved market.

    Keywords are those of the market's source.
    """
    return jobrec_gym.load_market(path if scheme is None else f"{scheme}:{path}", **kwargs)


def _check(config: Config) -> None:
    """Refuses a config that cannot be built, before anything is changed."""
    if (place := key_in_config(config)) is not None:
        raise RunError(f"`{place}` looks like a key, which would be written into the run's folder: {WAY_OUT}.")
    for name in _SECTIONS:
        if not isinstance(config[name], Mapping):
            raise RunError(f"`{name}` must be a section of the config, {name}.ENTRY=..., got {config[name]!r:.80}.")
    for name in ("reward", "simulator", "algo"):
        target = config[name].get("_target_", "")
        if not (isinstance(target, str) and target) and not (name == "reward" and target is None):
            raise RunError(f"`{name}._target_` must be the dotted name of a class, got {target!r:.80}.")
    _check_environment(config)
    require_sb3_arguments("algo", config["algo"])
    for name, least, most in _NUMBERS:
        value = reduce(lambda node, key: node[key], name.split("."), config)
        require_whole(name, value, least, most, optional=name in _OPTIONAL)
    require_switch("resume", config["resume"])
    require_switch("progress_bar", config["progress_bar"], optional=True)
    title = config.get("name")
    if isinstance(title, bool) or not isinstance(title, str | int | float | None):
        raise RunError(
            f"`name` must be a text or null, got {title!r:.80}. A word such as true is a text in quotation marks of "
            "its own, in a shell 'name=\"true\"'."
        )
    pays = config["reward"]["_target_"] or ""
    if pays.endswith("LLMReward") and config["simulator"]["_target_"].endswith("RuleSimulator"):
        raise RunError(
            "reward=llm needs a language model: add simulator=recorded or simulator=llm, or reward=feedback."
        )
    at = config["evaluation"]["at"]
    if not isinstance(at, list) or not all(isinstance(point, int | float) for point in at):
        raise RunError(f"`evaluation.at` must be a list of numbers of interactions, such as [0,100], got {at!r}.")


def _as_typed(config: Config) -> Config:
    """A checked config whose whole numbers are int, and whose name is a text, as in ``name=2026``.

    Libraries take no float for a count, such as 1e3.
    """
    if config.get("name") is not None:
        config = {**config, "name": str(config["name"])}
    for name in (*(name for name, _, _ in _NUMBERS), *(f"evaluation.{name}" for name in _OF_CAREERS)):
        section, _, key = name.rpartition(".")
        entries = config[section] if section else config
        if isinstance(entries.get(key), float):
            changed = {**entries, key: int(entries[key])}
            config = {**config, section: changed} if section else changed
    return config


def _check_environment(config: Config) -> None:
    """Refuses an unknown environment, and options that do not belong to the chosen one."""
    env_id = config["env"].get("id", _STATIC)
    if env_id not in _KINDS:
        hint = did_you_mean(env_id, _KINDS)
        raise RunError(f"`env.id` must be one of {tuple(_KINDS)}, got {env_id!r:.80}.{hint}")
    evaluation = config["evaluation"]
    if env_id != CAREER:
        if given := [name for name in _OF_CAREERS if name in evaluation]:
            raise RunError(
                f"`evaluation.{given[0]}` is only for {CAREER}, but `env.id` is {env_id}: leave it out. If you "
                "gave setting=career, env=... has replaced its environment: leave env=... out, and change single "
                "parts, such as env.candidate_sampler=mixed."
            )
        return
    require_whole("evaluation.n_applicants", evaluation.get("n_applicants"), 1, MOST, optional=True)
    require_whole("evaluation.n_sets", evaluation.get("n_sets", 0), 0, MOST)
    if config["reward"].get("simulator") is not None:
        raise RunError(
            f"`reward` asks a simulator, but {CAREER} asks its applicants itself: answers of a second simulator would "
            "change nobody. Take reward=own, reward=cosine, or reward=hybrid reward.simulator=null."
        )


def _make(config: Config, *keys: str, **objects: Any) -> Any:
    """Makes the object of an entry with a ``_target_``. Nested entries with a ``_target_`` are made first.

    Args:
        config: The config with the entry.
        keys: Path of the entry, which errors name.
        **objects: Further arguments. They are not passed through Hydra, which would copy them.
    """
    entry = reduce(lambda node, key: node[key], keys, OmegaConf.create(dict(config)))
    if not objects:
        return instantiate(entry, _convert_="all")
    return instantiate(entry, _convert_="all", _partial_=True)(**objects)
