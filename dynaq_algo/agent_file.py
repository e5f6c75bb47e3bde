"""The zip of a saved agent: SB3's layout, with arguments as JSON, and tensors. Nothing in it is executed."""

from __future__ import annotations

import io
import json
import os.path
import pickle
import secrets
import shutil
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any

from stable_baselines3.common.save_util import load_from_zip_file, save_to_zip_file

from dynaq_algo.arguments import require_names
from dynaq_algo.plain_data import MAX_BYTES, TYPE, NotPlain, from_json, to_json

__all__ = [
    "REMADE",
    "VARIABLES",
    "AgentFileError",
    "behind_link",
    "building",
    "convert_agent",
    "naming",
    "place_of",
    "read_agent",
    "read_entries",
    "reading",
    "shown_path",
    "whole_file",
    "write_agent",
    "written_by",
]

FORMAT = "dynaq-agent/2"
FORMAT_ENTRY = "dynaq_algo_format.json"
DATA, VARIABLES = "data", "pytorch_variables.pth"
LEFT_OUT = "left out"
PICKLED = ":serialized:"

REMADE = ("lr_schedule", "exploration_schedule", "_planner", "_kept_values")
"""Attributes that are not saved, because an agent makes them anew from others when it is built."""

File = str | PathLike[str] | io.BufferedIOBase


class AgentFileError(ValueError):
    """A file of an agent is not what it should be. One line names the file, the fault and the way out."""


def written_by() -> str:
    """Name and version of this package, which its files record."""
    try:
        return f"dynaq_algo {metadata.version('jobrec-gym')}"
    except metadata.PackageNotFoundError:  # the package is not installed, but imported from a folder of sources
        return "dynaq_algo"


def place_of(path: str | PathLike[str]) -> Path:
    """The place that a path names, for writing and reading: a leading `~` stands for the home folder."""
    # Unlike `Path.expanduser`, this leaves a name such as "~agent.zip" as it is.
    return Path(os.path.expanduser(path))  # noqa: PTH111


def zip_of(path: str | PathLike[str]) -> str | PathLike[str]:
    """The path of the zip that is written: a path without a suffix gets `.zip`, as in SB3."""
    return path if Path(path).suffix else f"{fspath(path)}.zip"


def write_agent(
    path: File, kind: str, data: Mapping[str, Any], params: Mapping[str, Any], left_out: Collection[str]
) -> None:
    """Write the zip of an agent. The file appears whole or not at all.

    Args:
        path: Where to write; a path without a suffix gets `.zip`, as in SB3.
        kind: The name of the agent's class.
        data: The agent's attributes by name.
        params: State dictionaries by name.
        left_out: Names of attributes that are not written. If such an attribute could not be written as JSON, the file
            says that it is missing.

    Raises:
        ValueError: If an attribute that is not left out cannot be written as JSON.
    """
    plain = {}
    for name, value in data.items():
        try:
            encoded = to_json(value)
        except NotPlain as error:
            if name not in left_out:
                raise ValueError(
                    f"`{name}` holds {error}, and an agent is saved as JSON and tensors. Save without it, "
                    f'`save(path, exclude=["{name}"])`, or set `model.save_without = ["{name}"]` before a callback '
                    f'saves it, and give it back when loading, `load(path, custom_objects={{"{name}": ...}})`.'
                ) from error
            plain[name] = {TYPE: LEFT_OUT}
        else:
            if name not in left_out:
                plain[name] = encoded
    buffer = io.BytesIO()
    save_to_zip_file(buffer, data=plain, params=dict(params), pytorch_variables={})
    with zipfile.ZipFile(buffer, "a") as archive:
        content = {"format": FORMAT, "class": kind, "written_by": written_by()}
        archive.writestr(FORMAT_ENTRY, json.dumps(content))
    if not isinstance(path, (str, PathLike)):
        path.write(buffer.getbuffer())
        return
    with whole_file(zip_of(path)) as file:
        file.write(buffer.getbuffer())


@contextmanager
def whole_file(path: str | PathLike[str]) -> Iterator[IO[bytes]]:
    """An open file that appears at a path, whole, once the block ends without an error. Missing folders are made.

    A file that is replaced keeps its rights; a new one has those that the system gives new files. A link stays a link,
    and the file that it points to is replaced.

    Raises:
        OSError: If it cannot be written; the message names the path.
    """
    place = behind_link(place_of(path))
    scratch = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    with naming(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("xb") as file:
            try:
                if place.exists():
                    shutil.copymode(place, scratch)
                yield file
                file.flush()
                scratch.replace(place)
            except BaseException:
                scratch.unlink(missing_ok=True)
                raise


def behind_link(place: Path) -> Path:
    """What a path points to if it is a link; otherwise the path itself."""
    return Path(os.path.realpath(place)) if place.is_symlink() else place


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Put `place` into an `OSError` that names no file, or that names a temporary file beside `place`."""
    try:
        yield
    except OSError as error:
        beside = place.with_name(f".{place.name}").absolute()
        is_scratch = error.filename is not None and str(Path(error.filename).absolute()).startswith(str(beside))
        if error.errno is not None and (error.filename is None or is_scratch):
            raise OSError(error.errno, error.strerror, fspath(place)) from error
        raise


def read_agent(
    path: File, custom_objects: Mapping[str, Any] | None = None, max_bytes: int = MAX_BYTES
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read the zip of an agent and check all but its tensors, see :func:`~dynaq_algo.tensor_file.read_parameters`.

    Args:
        path: The zip; a path may lack its suffix.
        custom_objects: Values by name that replace saved ones. The saved ones are not read.
        max_bytes: How much memory the content may take.

    Returns:
        The agent's attributes by name, and the entries of the zip.

    Raises:
        FileNotFoundError: If there is no such file.
        AgentFileError: If it is not an agent of this version, is incomplete, or is larger than `max_bytes`.
    """
    shown = shown_path(path)
    content = read_entries(path, max_bytes)
    with reading(shown):
        if DATA not in content:
            raise AgentFileError(
                f"{shown} holds no agent, or not a whole one. Save it again by `model.save(path)`, or use an "
                "unchanged copy."
            )
        data = json.loads(content[DATA])
        if not isinstance(data, dict):
            raise AgentFileError(f"{shown} holds no agent: its `{DATA}` is no dictionary.")
        said = json.loads(content.get(FORMAT_ENTRY, b"{}"))
        found = said.get("format") if isinstance(said, dict) else None
    if found is None:
        raise AgentFileError(
            f"{shown} is an agent of an earlier version or of another library. It holds pickled Python, which loading "
            "would run. If the file is your own, convert it once: python -m dynaq_algo convert OLD.zip NEW.zip"
        )
    if found != FORMAT:
        raise AgentFileError(
            f"{shown} has the format {found!r:.40}, written by {said.get('written_by')!r:.80}; this version "
            f"({written_by()}) reads {FORMAT!r}. Load it by the version that wrote it."
        )
    return _attributes(shown, data, custom_objects or {}, max_bytes), content


def read_entries(path: File, max_bytes: int) -> dict[str, bytes]:
    """The entries of the zip of an agent by name.

    Raises:
        FileNotFoundError: If there is no such file.
        AgentFileError: If it is not a whole zip, or unpacks to more than `max_bytes`.
    """
    shown = shown_path(path)
    with reading(shown), opened(path) as file, zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > max_bytes:
            raise AgentFileError(
                f"{shown} unpacks to more than `max_bytes` = {max_bytes:,} bytes: raise that if you know the file."
            )
        return {name: archive.read(name) for name in archive.namelist()}  # `read` compares the checksum


def shown_path(path: File) -> str:
    """How messages name a file."""
    return fspath(path) if isinstance(path, (str, PathLike)) else "the file"


@contextmanager
def reading(shown: str, what: str = "agent") -> Iterator[None]:
    """While a file is read, turn any error into one line that names the file.

    Args:
        shown: How the message names the file.
        what: What the file should be, such as "agent".

    Raises:
        AgentFileError: In place of the errors that zipfile, json, torch and the reader of tensors raise.
    """
    try:
        yield
    except (AgentFileError, FileNotFoundError):
        raise
    except pickle.UnpicklingError as error:
        raise AgentFileError(
            f"{shown} holds more than tensors where only tensors are loaded: {_line(error)}. Save it again where it "
            "was made."
        ) from error
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError),
        *(RuntimeError, NotImplementedError, RecursionError, MemoryError, OverflowError, OSError),
        *(SyntaxError, tokenize.TokenError),  # numpy reads the header of an array as Python
    ) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # this error is about the file itself, for instance that it is a folder
        raise AgentFileError(
            f"{shown} is not a whole {what}, or was changed: {_line(error)}. Save it again, or use an unchanged copy."
        ) from error


@contextmanager
def building(shown: str) -> Iterator[None]:
    """While an agent is built from a file, turn an error into one line that names the file.

    A `ValueError` of a constructor or an environment already says what to do, and stays as it is. SB3's `ValueError`
    about missing tensors does not, and is replaced.

    Raises:
        AgentFileError: In place of torch's errors, and of errors due to arguments of a wrong type.
    """
    try:
        yield
    except (
        *(RuntimeError, KeyError, IndexError, TypeError, AttributeError, EOFError, MemoryError, ValueError),
    ) as error:
        if isinstance(error, ValueError) and not str(error).startswith("Names of parameters do not match"):
            raise
        raise AgentFileError(
            f"{shown} holds tensors that do not fit the agent it describes, or was changed: {_line(error)}. Save it "
            "again, or use an unchanged copy."
        ) from error


def convert_agent(old: str | PathLike[str], new: str | PathLike[str], exclude: Collection[str] = ()) -> None:
    """Rewrite an agent of an earlier version, whose arguments are pickled Python, as this version writes it.

    The conversion executes code from the old file. Use it only for a file of your own, or in a throw-away environment.

    Args:
        old: The old zip.
        new: Where the new zip is written.
        exclude: Names of attributes that are code, and are left out. `load` takes them as `custom_objects`.

    Raises:
        ValueError: If an attribute that is not left out cannot be written as JSON, or `exclude` is a text.
    """
    left_out = require_names("exclude", exclude)
    data, params, _ = load_from_zip_file(place_of(old), device="cpu")
    data = data or {}
    kept = {name: value for name, value in data.items() if name not in REMADE}
    write_agent(new, "DynaQ", kept, params, left_out)


@contextmanager
def opened(path: File) -> Iterator[Any]:
    """The open zip of an agent. A path may lack its suffix; an open file is returned as it is.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not isinstance(path, (str, PathLike)):
        yield path
        return
    place = place_of(path)
    if not place.exists():
        place = place_of(f"{fspath(path)}.zip")
    if not place.exists():
        raise FileNotFoundError(f"There is no agent at {fspath(path)}; one is written by `model.save(path)`.")
    with place.open("rb") as file:
        yield file


def _attributes(
    shown: str, data: Mapping[str, Any], custom_objects: Mapping[str, Any], max_bytes: int
) -> dict[str, Any]:
    found = {}
    for name, value in data.items():
        if name in custom_objects:
            found[name] = custom_objects[name]
        elif isinstance(value, dict) and PICKLED in value:
            raise AgentFileError(
                f"{shown}: `{name}` is pickled Python, which is not loaded. If the file is your own, convert it once: "
                "python -m dynaq_algo convert OLD.zip NEW.zip"
            )
        elif isinstance(value, dict) and value.get(TYPE) == LEFT_OUT:
            raise AgentFileError(
                f"{shown} was saved without `{name}`, which is code: give it back, "
                f'`load(path, custom_objects={{"{name}": ...}})`.'
            )
        else:
            try:
                found[name] = from_json(value, max_bytes)
            except NotPlain as error:
                raise AgentFileError(
                    f"{shown}: `{name}` cannot be taken: {error}. Save the agent again, or give "
                    f'`custom_objects={{"{name}": ...}}`.'
                ) from error
    return found


def _line(error: BaseException) -> str:
    """The beginning of an error's message, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}{'...' if len(text) > 160 else ''}"
