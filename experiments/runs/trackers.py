"""Experiment trackers, Weights & Biases and MLflow, which get the same log as TensorBoard."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from stable_baselines3.common.logger import KVWriter

from experiments.runs.folders import RunError, file_of_sqlite, wait_for_lock, write_text
from jobrec_gym.extras import install_command

__all__ = ["MLflow", "Tracker", "WeightsAndBiases"]

_MODES = ("online", "offline", "shared", "disabled")
_WANDB_ID = "wandb_id.txt"
"""File in a run's folder with its id in Weights & Biases."""
_FOLDER_MARK = "folder_sha256"
"""Tag of a run in MLflow by which its folder is looked up."""
_MOST_LETTERS = 6_000
"""Longest value of a parameter, in letters. MLflow refuses longer ones."""
_MOST_OF_AN_ERROR = 300
_RETRIES, _FEW = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
_MLFLOWS_WORDS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
"""How a run ended, in the words of MLflow."""


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
            A writer that gets what Stable-Baselines3's logger gets, and each point of the learning curve. At the end
            its method ``end``, if it has one, gets the word ``"finished"``, ``"stopped"`` (by a signal) or
            ``"failed"``. Then it is closed.

        Raises:
            RunError: If the run cannot be opened. Nothing in the folder has changed then.
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
        if mode not in _MODES:
            raise ValueError(f"`mode` must be one of {', '.join(_MODES)}, got {mode!r:.80}.")
        self.project = project
        self.mode = mode
        self.folder = folder

    def begin(self, folder: Path, config: Mapping[str, Any], name: str, resumed: bool) -> KVWriter:
        """Opens a run. A run that continues keeps its id, which is in a file of its folder.

        Raises:
            RunError: If wandb is not installed, or refuses the run.
        """
        wandb = _package("wandb")
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        kept = folder / _WANDB_ID
        run_id = kept.read_text(encoding="utf-8") if resumed and kept.is_file() else uuid.uuid4().hex[:16]
        with _errors_of_wandb(wandb):
            run = wandb.init(
                project=self.project,
                mode=self.mode,
                dir=self.folder,
                name=name,
                config=dict(config),
                id=run_id,
                resume="allow",
                settings=wandb.Settings(silent=True, console="off"),
            )
        write_text(kept, run_id)
        return _WandbWriter(wandb, run)


class MLflow:
    """Runs in an experiment of MLflow.

    Args:
        uri: Address of the store: ``sqlite:///FILE``, or that of a server.
        experiment: Name of the experiment. It is made if it does not exist.
    """

    def __init__(self, uri: str = "sqlite:///runs/mlflow.db", experiment: str = "jobrec"):
        if not isinstance(uri, str) or not re.match(r"[a-z][\w+.-]*:|databricks$", uri):
            raise ValueError(
                f"`uri` must be sqlite:///FILE, or the address of a server such as http://HOST:PORT, got {uri!r:.80}."
            )
        self.uri = uri
        self.experiment = experiment

    def begin(self, folder: Path, config: Mapping[str, Any], name: str, resumed: bool) -> KVWriter:
        """Opens a run. A run that continues is found by its folder, whether it was stopped or killed.

        If the run is a new one, what a killed run left open in the same folder is closed first.

        Raises:
            RunError: If mlflow is not installed, or refuses the run.
        """
        mlflow = _package("mlflow")
        with _errors_of_mlflow(mlflow):
            return self._begin(mlflow, folder, config, name, resumed)

    def _begin(
        self, mlflow: ModuleType, folder: Path, config: Mapping[str, Any], name: str, resumed: bool
    ) -> _MLflowWriter:
        with _few_retries(), _alone_at(file_of_sqlite(self.uri)):
            client = mlflow.MlflowClient(tracking_uri=self.uri)
            place = self._experiment_id(mlflow, client)
        where = str(folder.resolve())
        # A filter of MLflow cannot hold every path.
        mark = hashlib.sha256(os.fsencode(where)).hexdigest()
        known = client.search_runs([place], f"tags.{_FOLDER_MARK} = '{mark}'", order_by=["attributes.start_time DESC"])
        if resumed and known:
            run_id = known[0].info.run_id
            client.update_run(run_id, status="RUNNING")
            # What a killed run did after its checkpoint is done again.
            last = {
                key: max(point.step for point in client.get_metric_history(run_id, key))
                for key in client.get_run(run_id).data.metrics
            }
            return _MLflowWriter(mlflow, client, run_id, last)
        for left in known:
            if left.info.status == "RUNNING":
                client.set_terminated(left.info.run_id, status="KILLED")
        run_id = client.create_run(place, run_name=name, tags={"folder": where, _FOLDER_MARK: mark}).info.run_id
        for key, value in config.items():
            client.log_param(run_id, _as_mlflow(key), str(value)[:_MOST_LETTERS])
        return _MLflowWriter(mlflow, client, run_id)

    def _experiment_id(self, mlflow: ModuleType, client: Any) -> str:
        """The id of the experiment, which is made if it does not exist."""
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(client.create_experiment(self.experiment))
            except mlflow.exceptions.MlflowException:
                found = client.get_experiment_by_name(self.experiment)  # another process may have made it meanwhile
                if found is None:
                    raise
        return str(found.experiment_id)


class _WandbWriter(KVWriter):
    def __init__(self, wandb: ModuleType, run: Any):
        self._wandb = wandb
        self._run = run
        self._exit_code = 0

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        with _errors_of_wandb(self._wandb):
            self._run.log(_numbers(key_values), step=step)

    def end(self, status: str) -> None:
        self._exit_code = int(status != "finished")

    def close(self) -> None:
        with _errors_of_wandb(self._wandb):
            self._run.finish(exit_code=self._exit_code)


class _MLflowWriter(KVWriter):
    def __init__(self, mlflow: ModuleType, client: Any, run_id: str, last: Mapping[str, int] | None = None):
        self._mlflow = mlflow
        self._client = client
        self._run_id = run_id
        self._last = last or {}
        self._status = "FINISHED"

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        now, metric = int(time.time() * 1_000), self._mlflow.entities.Metric
        numbers = {_as_mlflow(key): value for key, value in _numbers(key_values).items()}
        with _errors_of_mlflow(self._mlflow):
            self._client.log_batch(
                self._run_id,
                metrics=[
                    metric(key, value, now, step) for key, value in numbers.items() if step > self._last.get(key, -1)
                ],
            )

    def end(self, status: str) -> None:
        self._status = _MLFLOWS_WORDS[status]

    def close(self) -> None:
        with _errors_of_mlflow(self._mlflow):
            self._client.set_terminated(self._run_id, status=self._status)


def _errors_of_wandb(wandb: ModuleType) -> AbstractContextManager[None]:
    return _told("wandb", wandb.errors.Error, "tracker.mode=offline needs neither a key nor a network.")


def _errors_of_mlflow(mlflow: ModuleType) -> AbstractContextManager[None]:
    way_out = "tracker.uri= names another store, and tracker.experiment= another experiment."
    return _told("mlflow", mlflow.exceptions.MlflowException, way_out)


@contextmanager
def _told(tracker: str, kind: type[Exception], way_out: str) -> Iterator[None]:
    """Raises a tracker's own errors as one line, with a way out."""
    try:
        yield
    except kind as error:
        raise RunError(f"tracker={tracker}: {_in_a_line(error)} {way_out}") from error


def _in_a_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{said[:_MOST_OF_AN_ERROR].rstrip('.')}."


@contextmanager
def _few_retries() -> Iterator[None]:
    """By default MLflow asks for minutes if a server does not answer. A value that the user has set stays."""
    if _RETRIES in os.environ:
        yield
        return
    os.environ[_RETRIES] = _FEW
    try:
        yield
    finally:
        del os.environ[_RETRIES]


@contextmanager
def _alone_at(database: Path | None) -> Iterator[None]:
    """Keeps other runs out while a database is made, which fails if two processes do it at once."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("a") as file:
        wait_for_lock(file)
        yield


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
