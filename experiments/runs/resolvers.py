"""Hydra's resolvers, which compute values in ``conf/``. Importing this module registers them, and is fast."""

from __future__ import annotations

import operator
import shlex
import sys
from collections.abc import Sequence
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from experiments.runs.folders import WHERE_KEYS, folder_name

__all__: list[str] = []


def _sweep_folder(overrides: Sequence[str]) -> str:
    return folder_name(overrides, exclude=("seed", *WHERE_KEYS))


def _run_folder(overrides: Sequence[str]) -> str:
    return folder_name(overrides, exclude=WHERE_KEYS)


def _python_here() -> str:
    """The command that starts this interpreter in this folder."""
    return f"env --chdir={shlex.quote(str(Path.cwd()))} {shlex.quote(sys.executable)}"


def _gamma_of_plus(env_id: str) -> float:
    """The discount of ``DynaQ.plus``, which looks ahead if answers change the applicant."""
    # Not at the top: `dynaq_algo` imports torch.
    from dynaq_algo.plus import plus_arguments

    gamma: float = plus_arguments(has_pairs=True, has_progress=env_id == "JobRecCareer-v0", overrides={})["gamma"]
    return gamma


def _trials_in(storage: Any, study: str | None) -> int:
    """How many trials a study of Optuna has in a storage; 0 without a storage, or if the study is a new one."""
    if storage is None or study is None:
        return 0
    optuna = import_module("optuna")  # not at the top: it is an extra
    try:
        found = optuna.get_all_study_summaries(storage if isinstance(storage, str) else instantiate(storage))
    except Exception as error:  # each kind of storage has errors of its own
        raise ValueError(f"`hydra.sweeper.storage` cannot be opened: {' '.join(str(error).split()):.300}") from error
    return sum(one.n_trials for one in found if one.study_name == study)


# The folder is cached, so that each job of a sweep gets the name with which the sweep began.
OmegaConf.register_new_resolver("sweep_folder", _sweep_folder, use_cache=True, replace=True)
OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
OmegaConf.register_new_resolver("python_here", _python_here, replace=True)
OmegaConf.register_new_resolver("trials_in", _trials_in, replace=True)
OmegaConf.register_new_resolver("gamma_of_plus", _gamma_of_plus, replace=True)
OmegaConf.register_new_resolver("first", lambda *nodes: next(node for node in nodes if node is not None), replace=True)
OmegaConf.register_new_resolver("add", lambda *terms: reduce(operator.add, terms), replace=True)  # joins lists, too
OmegaConf.register_new_resolver("mul", lambda *factors: reduce(operator.mul, factors), replace=True)
