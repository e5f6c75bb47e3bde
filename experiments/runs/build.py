"""Config to objects: market, environment, truth, algorithm. The config goes no further than this package."""

from __future__ import annotations

import operator
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

import jobrec_gym
from experiments.runs.evaluation import HeldOutEvaluation, Truth
from experiments.runs.folders import HOW_KEYS, RunError, folder_name
from experiments.runs.recording import InteractionRecorder
from jobrec_gym import JobRecVectorEnv, LabourMarket

__all__ = [
    "build_algorithm",
    "build_env",
    "build_evaluation",
    "build_market",
    "build_single_env",
    "build_truth",
    "env_options",
    "load_algorithm",
    "open_market",
    "refuse_keys",
    "require_launcher",
    "truth_spec",
]

_LAUNCHER_EXTRAS = {"ray": "ray", "ray_cluster": "ray", "submitit": "submitit", "submitit_local": "submitit"}
_OF_THE_VECTOR = ("n_envs", "max_episode_steps")


def open_market(scheme: str | None, path: str, **kwargs: Any) -> LabourMarket:
    """The market at a path, of a scheme or saved (``None``); keywords are those of its source."""
    return jobrec_gym.load_market(path if scheme is None else f"{scheme}:{path}", **kwargs)


def build_market(cfg: DictConfig) -> LabourMarket:
    """The market of ``cfg.market``."""
    return instantiate(cfg.market, _convert_="all")


def env_options(cfg: DictConfig) -> dict[str, Any]:
    """What ``cfg.env`` says of one environment: the keywords of ``JobRec-v0`` but the market."""
    options: dict[str, Any] = OmegaConf.to_container(cfg.env, resolve=True)  # type: ignore[assignment]
    return {key: value for key, value in options.items() if key not in _OF_THE_VECTOR}


def build_env(
    cfg: DictConfig, market: LabourMarket, make: Callable[..., JobRecVectorEnv] = JobRecVectorEnv
) -> InteractionRecorder:
    """The training environments of ``cfg.env`` under the reward of ``cfg.reward``, recorded."""
    env = make(
        num_envs=cfg.env.n_envs,
        max_episode_steps=cfg.env.max_episode_steps,
        autoreset_mode="SameStep",
        market=market,
        **env_options(cfg),
    )
    return InteractionRecorder(_instantiate(cfg.reward, env=env))


def build_single_env(cfg: DictConfig, market: LabourMarket) -> gym.Env[Any, Any]:
    """One environment of those that :func:`build_env` makes, as ``gym.make`` gives it, under the same reward."""
    env = gym.make("JobRec-v0", market=market, max_episode_steps=cfg.env.max_episode_steps, **env_options(cfg))
    # Every vector wrapper has a twin for single environments, of the same arguments.
    twin = cfg.reward._target_.replace(".Vector", ".")
    return _instantiate(OmegaConf.merge(cfg, {"reward": {"_target_": twin}}).reward, env=env)


def truth_spec(cfg: Any) -> Any:
    """What a config, composed or plain, says of the truth: ``evaluation.simulator``, or the one of training."""
    return cfg["evaluation"]["simulator"] or cfg["simulator"]


def build_truth(cfg: DictConfig, market: LabourMarket, name: str | None = None) -> Truth:
    """Who knows what recommendations are worth, tied to the market.

    Args:
        cfg: A composed ``conf/train.yaml``.
        market: Whose recommendations.
        name: An entry of ``cfg.evaluation.also``; ``None`` for the truth of the run.

    Raises:
        RunError: For a simulator that does not know its rewards without asking, such as a language model.
    """
    spec = truth_spec(cfg) if name is None else cfg.evaluation.also[name]
    truth = instantiate(spec, _convert_="all").bind(market)
    if not hasattr(truth, "expected_reward"):
        raise RunError(
            f"`evaluation.simulator` is {spec._target_}, which would have to be asked of every held-out pair: take "
            "+simulator@evaluation.simulator=rules or +simulator@evaluation.simulator=recorded."
        )
    return truth


def build_evaluation(cfg: DictConfig, market: LabourMarket, truth: Truth) -> HeldOutEvaluation:
    """The held-out evaluation of ``cfg.evaluation``."""
    options = {**env_options(cfg), "split": cfg.evaluation.split, "job_split": cfg.evaluation.job_split}
    return HeldOutEvaluation(
        market,
        truth,
        options,
        n_pairs=cfg.evaluation.n_pairs,
        n_episodes=cfg.evaluation.n_episodes,
        max_episode_steps=cfg.env.max_episode_steps,
        gamma=cfg.algo.gamma,
        terminate_on=list(cfg.reward.get("terminate_on", ())),
        seed=cfg.evaluation.seed,
    )


def refuse_keys(arguments: Sequence[str]) -> None:
    """Ends a command that was given a key: Hydra writes its overrides into several files before anything else.

    Raises:
        SystemExit: If an argument names ``api_key``.
    """
    if any("api_key" in argument.partition("=")[0].lower() for argument in arguments):
        raise SystemExit(
            "error: `api_key` would be written into the run's folder: set the provider's environment variable "
            "(OPENAI_API_KEY, for instance) instead."
        )


def require_launcher(arguments: Sequence[str]) -> None:
    """Ends a command that asks for a launcher whose plug-in is not installed: Hydra would not say how to get it.

    Raises:
        SystemExit: If it is missing.
    """
    for argument in arguments:
        key, _, name = argument.partition("=")
        extra = _LAUNCHER_EXTRAS.get(name) if key == "launcher" else None
        if extra is not None and find_spec(f"hydra_plugins.hydra_{extra}_launcher") is None:
            raise SystemExit(f'error: launcher={name} needs an extra: pip install "jobrec-gym[{extra}]".')


def build_algorithm(cfg: DictConfig, env: VectorEnv) -> Any:
    """The algorithm of ``cfg.algo`` on an environment: a :class:`DynaQ`, or an opponent with the same verbs."""
    return _instantiate(cfg.algo, env=env)


def algorithm_class(cfg: DictConfig) -> Any:
    """The class of ``cfg.algo``, whose target is the class or a class method that makes one, such as ``DynaQ.plus``."""
    target = get_object(cfg.algo._target_)
    return target if isinstance(target, type) else target.__self__


def load_algorithm(cfg: DictConfig, path: Path, env: VectorEnv) -> Any:
    """The saved algorithm of a run; only what acts, without its replay."""
    return algorithm_class(cfg).load(path, env=env)


def _instantiate(cfg: DictConfig, **objects: Any) -> Any:
    # Objects go around Hydra, which would copy them.
    return instantiate(cfg, _convert_="all", _partial_=True)(**objects)


def _sweep_folder(overrides: Sequence[str]) -> str:
    return folder_name(overrides, exclude=("seed", "launcher", *HOW_KEYS))


def _run_folder(override_dirname: str) -> str:
    return folder_name(_split(override_dirname))


def _python_here() -> str:
    """The command that starts this interpreter in this folder."""
    return f"env --chdir={shlex.quote(str(Path.cwd()))} {shlex.quote(sys.executable)}"


def _split(override_dirname: str) -> list[str]:
    """``"a=1,b=[2,3]"`` to ``["a=1", "b=[2,3]"]``: a comma within a value has no key behind it."""
    items: list[str] = []
    for part in override_dirname.split(","):
        if items and ("=" not in part or items[-1].count("[") > items[-1].count("]")):
            items[-1] += f",{part}"
        else:
            items.append(part)
    return [item for item in items if item]


# Cached, so that each job of a sweep finds the name that the sweep began with.
OmegaConf.register_new_resolver("sweep_folder", _sweep_folder, use_cache=True, replace=True)
OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
OmegaConf.register_new_resolver("python_here", _python_here, replace=True)
OmegaConf.register_new_resolver("first", lambda *nodes: next(node for node in nodes if node is not None), replace=True)
OmegaConf.register_new_resolver("add", lambda *terms: reduce(operator.add, terms), replace=True)  # lists, too
OmegaConf.register_new_resolver("mul", lambda *factors: reduce(operator.mul, factors), replace=True)
