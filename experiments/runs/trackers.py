"""Experiment trackers, Weights & Biases and MLflow, which get the same log as TensorBoard."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from stable_baselines3.common.logger import KVWriter

from experiments.runs.folders import RunError, write_text
from jobrec_gym.extras import install_command

__all__ = ["MLflow", "Tracker", "WeightsAndBiases"]

_WANDB_ID = "wandb_id.txt"
"""File in a run's folder with its id in Weights & Biases."""
_FOLDER_MARK = "folder_sha256"
"""Tag of a run in MLflow by which its folder is looked up."""
_MOST_LETTERS = 6_000
"""Longest value of a parameter, in letters. MLflow refuses longer ones."""


class Tracker(Protocol):
    """A tracker of runs, in addition to their folders. ``+tracker._target_=`` takes a class of your own."""

    def begin(self, folder: Path, config: Mapping[str, Any], name: str, resumed: bool) -> KVWriter:
        """Opens a run.

        Args:
            folder: The run's folder. A run that continues has the same folder as before, but a new run may have that
                folder too.
            config: Its config without levels: ``{"algo.gamma": 0.9}``.
            name: The name that is shown.
            resumed: Whether the run that was last begun with this folder continues; otherwise the run is a new one.

        Returns:
            A writer that gets what Stable-Baselines3's logger gets, and each point of the learning curve. It is closed
            at the end.
        """


class WeightsAndBiases:
    """Runs in a project of Weights & Biases.

    Args:
        project: The project of the runs.
        mode: ``"offline"`` writes files that ``wandb sync`` sends later. ``"online"`` sends at once and needs a key in
            ``WANDB_API_KEY``.
        folder: Folder in which wandb makes its own folder, ``wandb/``, for its files.
    """

    def __init__(self, project: str = "jobrec", mode: str = "offline", folder: str = "runs"):
        self.project = project
        self.mode = mode
        self.folder = folder

    def begin(self, folder: Path, config: Mapping[str, Any], name: str, resumed: bool) -> KVWriter:
        """Opens a run. A run that continues keeps its id, which is in a file of its folder.

        Raises:
            RunError: If wandb is not installed.
        """
        wandb = _package("wandb")
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        kept = folder / _WANDB_ID
        if not (resumed and kept.is_file()):
            write_text(kept, uuid.uuid4().hex[:16])
        run = wandb.init(
            project=self.project,
            mode=self.mode,
            dir=self.folder,
            name=name,
            config=dict(config),
            id=kept.read_text(encoding="utf-8"),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        return _WandbWriter(run)


class MLflow:
    """Runs in an experiment of MLflow.

    Args:
        uri: Address of the store: ``sqlite:///FILE``, or that of a server.
        experiment: Name of the experiment. It is made if it does not exist.
    """

    def __init__(self, uri: str = "sqlite:///runs/mlflow.db", experiment: str = "jobrec"):
        self.uri = uri
        self.experiment = experiment

    def begin(self, folder: Path, config: Mapping[str, Any], name: str, resumed: bool) -> KVWriter:
        """Opens a run. A run that continues is found by its folder, whether it was stopped or killed.

        If the run is a new one, what a killed run left open in the same folder is closed first.

        Raises:
            RunError: If mlflow is not installed.
        """
        mlflow = _package("mlflow")
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        client = mlflow.MlflowClient(tracking_uri=self.uri)
        experiment = client.get_experiment_by_name(self.experiment)
        place = client.create_experiment(self.experiment) if experiment is None else experiment.experiment_id
        where = str(folder.resolve())
        # A filter of MLflow cannot hold every path.
        mark = hashlib.sha256(os.fsencode(where)).hexdigest()
        known = client.search_runs([place], f"tags.{_FOLDER_MARK} = '{mark}'", order_by=["attributes.start_time DESC"])
        if resumed and known:
            run_id = known[0].info.run_id
            client.update_run(run_id, status="RUNNING")
            return _MLflowWriter(mlflow, client, run_id)
        for left in known:
            if left.info.status == "RUNNING":
                client.set_terminated(left.info.run_id, status="KILLED")
        run_id = client.create_run(place, run_name=name, tags={"folder": where, _FOLDER_MARK: mark}).info.run_id
        for key, value in config.items():
            client.log_param(run_id, _as_mlflow(key), str(value)[:_MOST_LETTERS])
        return _MLflowWriter(mlflow, client, run_id)


class _WandbWriter(KVWriter):
    def __init__(self, run: Any):
        self._run = run

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._run.log(_numbers(key_values), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflowWriter(KVWriter):
    def __init__(self, mlflow: ModuleType, client: Any, run_id: str):
        self._metric = mlflow.entities.Metric
        self._client = client
        self._run_id = run_id

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        now = int(time.time() * 1_000)
        numbers = _numbers(key_values).items()
        self._client.log_batch(
            self._run_id, metrics=[self._metric(_as_mlflow(key), value, now, step) for key, value in numbers]
        )

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RunError(f"tracker={name} needs an extra: {install_command(name)}.") from error


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value) for key, value in values.items() if isinstance(value, int | float) or hasattr(value, "dtype")
    }


def _as_mlflow(key: str) -> str:
    """A name that MLflow takes: ``"held_out/ndcg@10"`` becomes ``"held_out/ndcg_at_10"``."""
    return re.sub(r"[^\w\-. /]", "_", key.replace("@", "_at_"))
