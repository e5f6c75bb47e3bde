"""Checkpoint folders: model, replay, random states and environments.

On CPU a run that continues from a checkpoint is the same to the bit as one that was not stopped, if the environments
give and take their state (`get_state`, `set_state`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gymnasium import wrappers
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.save_util import recursive_getattr, recursive_setattr
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

from dynaq_algo.agent_file import AgentFileError, behind_link, naming, place_of, reading, written_by
from dynaq_algo.arguments import require_names, require_whole
from dynaq_algo.array_file import read_arrays
from dynaq_algo.vec_env import GymnasiumVecEnv

__all__ = [
    "DynaQCheckpoint",
    "env_layers",
    "existing_folder",
    "new_folder",
    "read_env_state",
    "read_state",
    "write_env_state",
    "write_state",
]

FORMAT = "dynaq-checkpoint/2"
_STATE = "state.json"

# Layers that have no state.
STATELESS: tuple[type, ...] = (
    DummyVecEnv,
    SyncVectorEnv,
    wrappers.TransformObservation,
    wrappers.TransformReward,
    wrappers.TransformAction,
    wrappers.vector.TransformObservation,
    wrappers.vector.TransformReward,
    wrappers.vector.TransformAction,
)
# Layers that have state but no `get_state`, with the names of the attributes that change as they run.
KNOWN_LAYERS: dict[type, tuple[str, ...]] = {
    wrappers.TimeLimit: ("_elapsed_steps",),
    wrappers.OrderEnforcing: ("_has_reset",),
    wrappers.PassiveEnvChecker: ("checked_reset", "checked_step", "checked_render"),
    wrappers.RecordEpisodeStatistics: ("episode_count", "episode_returns", "episode_lengths"),
    Monitor: (
        "rewards",
        "needs_reset",
        "episode_returns",
        "episode_lengths",
        "episode_times",
        "total_steps",
        "current_reset_info",
    ),
    VecMonitor: ("episode_returns", "episode_lengths", "episode_count"),
    VecNormalize: ("returns", "old_reward", "ret_rms.mean", "ret_rms.var", "ret_rms.count"),
    GymnasiumVecEnv: ("episode_returns", "episode_lengths"),
}


class SavesCheckpoints(Protocol):
    """An agent that writes checkpoints."""

    num_timesteps: int

    def save_checkpoint(self, folder: str | PathLike[str], exclude: Iterable[str] | None = None) -> None:
        """Write a checkpoint."""
        ...


class DynaQCheckpoint(BaseCallback):
    """Saves a checkpoint every `save_freq` transitions, always into the same folder.

    Args:
        folder: See :meth:`~dynaq_algo.dynaq.DynaQ.save_checkpoint`.
        save_freq: Transitions (of all environments together) between two checkpoints.
        exclude: See :meth:`~dynaq_algo.dynaq.DynaQ.save`.

    Raises:
        ValueError: If `save_freq` is not a whole number of 1 or more, or `exclude` is not a list of names.
    """

    model: SavesCheckpoints  # type: ignore[assignment]

    def __init__(self, folder: str | PathLike[str], save_freq: int, exclude: Iterable[str] | None = None):
        super().__init__()
        self.folder = Path(folder)
        self.save_freq = require_whole("save_freq", save_freq, 1)
        self.exclude = exclude if exclude is None else require_names("exclude", exclude)

    def _on_step(self) -> bool:
        now = self.model.num_timesteps
        if now // self.save_freq > (now - self.training_env.num_envs) // self.save_freq:
            if self.exclude is None:
                self.model.save_checkpoint(self.folder)
            else:
                self.model.save_checkpoint(self.folder, self.exclude)
        return True


@contextmanager
def new_folder(folder: str | PathLike[str]) -> Iterator[Path]:
    """An empty folder for a new checkpoint. It replaces `folder` once everything is written.

    The old checkpoint is never lost, even if writing is interrupted: :func:`existing_folder` finds it. The new folder
    has its rights. A link stays a link, and the folder that it points to is replaced.

    Raises:
        FileExistsError: If `folder` is a file, or holds files but no checkpoint. They are left as they are.
        OSError: If the folder cannot be written; the message names the path.
    """
    folder = behind_link(place_of(folder))
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 (so it has a name, also if it ended with "..")
    new, old = _beside(folder, "new"), _beside(folder, "old")
    _restore_interrupted(folder)
    if folder.is_file() or (folder.is_dir() and not (folder / _STATE).exists() and any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists and holds no checkpoint. Only a checkpoint is replaced: choose another folder."
        )
    shutil.rmtree(new, ignore_errors=True)
    try:
        with naming(folder):
            new.mkdir(parents=True)
            if folder.exists():
                shutil.copymode(folder, new)
            yield new
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)  # a kill may have left `old` after a new checkpoint was in place
                folder.replace(old)
            new.replace(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # the disk may be full
        _restore_interrupted(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def existing_folder(folder: str | PathLike[str]) -> Path:
    """The folder of a checkpoint.

    Raises:
        FileNotFoundError: If the folder holds no checkpoint.
    """
    folder = behind_link(place_of(folder))
    _restore_interrupted(folder)
    if not (folder / _STATE).exists():
        raise FileNotFoundError(f"{folder} holds no checkpoint; write one by `model.save_checkpoint(folder)`.")
    return folder


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a nested state of numbers, strings, lists, dicts and arrays, without pickle.

    Raises:
        ValueError: If the state holds anything else.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_pack(state, arrays, "state"))
    np.savez(folder / "state.npz", **arrays)  # type: ignore[arg-type]
    said = {
        "format": FORMAT,
        "written_by": written_by(),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "arrays_sha256": hashlib.sha256((folder / "state.npz").read_bytes()).hexdigest(),
    }
    (folder / _STATE).write_text(json.dumps(said)[:-1] + f', "state": {text}}}')


def read_state(folder: Path) -> dict[str, Any]:
    """Read what :func:`write_state` wrote.

    Raises:
        AgentFileError: If the state is not whole, was changed, or is of another version.
    """
    file = folder / _STATE
    with reading(str(file), "checkpoint"):
        said = json.loads(file.read_text())
        if said.get("format") != FORMAT:
            raise AgentFileError(
                f"{folder} is a checkpoint of the format {said.get('format')!r:.40}, this version ({written_by()}) "
                f"reads {FORMAT!r}. Go on by the version that wrote it, or begin anew: for a run of `experiments` "
                "say resume=false."
            )
        state = said["state"]
        if hashlib.sha256(json.dumps(state).encode()).hexdigest() != said["sha256"]:
            raise AgentFileError(
                f"{file} was changed after it was written. Begin anew: for a run of `experiments` say resume=false."
            )
        arrays = folder / "state.npz"
        found: dict[str, Any] = _unpack(state, read_arrays(arrays, str(arrays), "state"))
        listed = said.get("arrays_sha256")  # checkpoints of earlier versions lack this entry
        if listed is not None and hashlib.sha256(arrays.read_bytes()).hexdigest() != listed:
            raise AgentFileError(
                f"{arrays} was changed after it was written. Begin anew: for a run of `experiments` say resume=false."
            )
        return found


def env_layers(env: VecEnv) -> Iterator[tuple[str, Any, bool]]:
    """All layers of vectorised environments, from the outside in: (path, layer, whether the layer is innermost)."""
    path, layer = type(env).__name__, env
    inner: Any
    while True:
        if isinstance(layer, (DummyVecEnv, SyncVectorEnv)):
            yield path, layer, False
            for i, single in enumerate(layer.envs):
                inner, inner_path = single, f"{path}/{i}/{type(single).__name__}"
                while True:
                    following = getattr(inner, "env", None)
                    yield inner_path, inner, following is None
                    if following is None:
                        break
                    inner, inner_path = following, f"{inner_path}/{type(following).__name__}"
            return
        # SB3's wrappers call the inner layer `venv`, Gymnasium's vector wrappers `env`, GymnasiumVecEnv `vector_env`.
        names = [name for name in ("venv", "vector_env", "env") if name in vars(layer)]
        yield path, layer, not names
        if not names:
            return
        layer = getattr(layer, names[0])
        path = f"{path}/{type(layer).__name__}"


def read_env_state(env: VecEnv) -> dict[str, Any] | None:
    """States of all layers by their paths, or None if an innermost environment has no `get_state`."""
    states: dict[str, Any] = {}
    for path, layer, innermost in env_layers(env):
        if hasattr(type(layer), "get_state") and hasattr(type(layer), "set_state"):
            states[path] = layer.get_state()
        elif innermost:
            return None
        else:
            states[path] = {name: recursive_getattr(layer, name) for name in _known_names(layer)}
    return states


def write_env_state(env: VecEnv, states: dict[str, Any]) -> None:
    """Put back what :func:`read_env_state` read.

    Raises:
        ValueError: If the environments have other layers.
    """
    layers = list(env_layers(env))
    if [path for path, _, _ in layers] != list(states):
        raise ValueError(
            f"`env` must be wrapped as in the saved run, {list(states)}, got {[path for path, _, _ in layers]}. "
            "Build it in the same way."
        )
    unknown = [
        path
        for path, layer, _ in layers
        if not hasattr(type(layer), "set_state") and not isinstance(layer, (*KNOWN_LAYERS, *STATELESS))
    ]
    if unknown:
        warnings.warn(
            f"{unknown} keep no state that a checkpoint knows of; if anything changes in them as they run, the run is "
            "not the same to the bit. Give them `get_state() -> dict` and `set_state(dict)`.",
            stacklevel=3,
        )
    for path, layer, _ in layers:
        if hasattr(type(layer), "set_state"):
            layer.set_state(states[path])
        else:
            for name, value in states[path].items():
                recursive_setattr(layer, name, value)


def _known_names(layer: Any) -> list[str]:
    names = [name for known, names in KNOWN_LAYERS.items() if isinstance(layer, known) for name in names]
    return [name for name in names if hasattr(layer, name.split(".")[0])]


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}.{suffix}")


def _restore_interrupted(folder: Path) -> None:
    """Put an old checkpoint back into its place, if a kill came after it was moved away and before the new one came."""
    if not folder.exists() and _beside(folder, "old").exists():
        _beside(folder, "old").replace(folder)


def _pack(value: Any, arrays: dict[str, np.ndarray], path: str) -> Any:
    """A nested value as JSON; its arrays are put into `arrays`."""
    wanted = "`get_state()` must hold numbers, strings, lists, dicts, and arrays of numbers or strings"
    if isinstance(value, dict):
        if others := [key for key in value if not isinstance(key, str)]:
            raise ValueError(
                f"{wanted}, and the keys of its dicts must be strings, got {others[0]!r:.80} at {path}. Write the key "
                "as a string, and read it back in `set_state(dict)`."
            )
        return {key: _pack(item, arrays, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(item, arrays, f"{path}.{i}") for i, item in enumerate(value)]
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise ValueError(f"{wanted}, got an array of objects at {path}.")
        name = f"a{len(arrays)}"
        arrays[name] = array
        return {"__array__": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{wanted}, got {type(value).__name__} at {path}.")


def _unpack(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        if "__array__" in value:
            return arrays[value["__array__"]][()]
        return {key: _unpack(item, arrays) for key, item in value.items()}
    return [_unpack(item, arrays) for item in value] if isinstance(value, list) else value
