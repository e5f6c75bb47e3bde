"""Run folders: finding, reading, locking and clearing them; and files of results, with format and checksum."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml

from jobrec_gym.paths import place_of
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import whole_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "COLDSTART",
    "COLDSTART_FIGURE",
    "COLDSTART_TABLE",
    "Run",
    "RunError",
    "as_written",
    "changed_keys",
    "clear_if_only",
    "clear_run",
    "commit_of_checkout",
    "commits_by",
    "config_text",
    "file_of_sqlite",
    "find_runs",
    "flat_config",
    "folder_name",
    "is_finished",
    "lock_file",
    "lock_run",
    "lock_served",
    "of_the_system",
    "read_json",
    "read_run",
    "table_digests",
    "unfinished_runs",
    "wait_for_lock",
    "with_log",
    "write_config",
    "write_figure",
    "write_json",
    "write_text",
]

CONFIG, SUMMARY, METRICS, PROGRESS, MODEL = "config.yaml", "summary.json", "metrics.csv", "progress.csv", "model.zip"
CHECKPOINT, TENSORBOARD, EVALUATION = "checkpoint", "tensorboard", "evaluation.json"
PRETRAIN, BEFORE = "pretrain.json", "before.json"
COLDSTART, COLDSTART_TABLE, COLDSTART_FIGURE = "coldstart.json", "coldstart.csv", "coldstart.png"
LOG, LOGGED = "log", "jobrec_gym.LoggedSimulator"
LOCK = ".lock"
HYDRAS = ".hydra"
RUN_FORMAT, RESULTS_FORMAT = "jobrec-run/1", "jobrec-results/1"

HOW_KEYS = ("name", "resume", "progress_bar", "threads", "checkpoint_interval", "tracker")
"""Entries of a config that say how to run and what the run is called. They do not change its results."""

WHERE_KEYS = ("launcher", "sweeper", *HOW_KEYS)
"""Entries of a config that have no part in the name of a run's folder."""

_MAX_NAME = 150

_MOST_OF_A_CONFIG = 200_000
"""Most characters of a config. Reading YAML takes long: this much takes up to two seconds."""


_ADVICE = {
    errno.ENOSPC: "Make room; the same command then goes on.",
    errno.EDQUOT: "Make room; the same command then goes on.",
    errno.EFBIG: "Allow larger files, ulimit -f unlimited, say; the same command then goes on.",
    errno.EROFS: "Choose a place that can be written to.",
    errno.EACCES: "Choose another place, or change its rights.",
    errno.EPERM: "Choose another place, or change its rights.",
    errno.EMFILE: "Allow more open files, ulimit -n 4096, say.",
    errno.ENFILE: "Let other programs close files, or allow more.",
}
"""The way out for errors of the operating system."""


class RunError(Exception):
    """A run cannot be made or read. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        folder: The run's folder.
        config: Its resolved config.
        summary: Its results.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]

    @property
    def metrics(self) -> pd.DataFrame:
        """The learning curve, one row for each point.

        Raises:
            RunError: If it is missing, is not a table, or was changed after the run.
        """
        return self._table(self.file(METRICS))

    @property
    def progress(self) -> pd.DataFrame:
        """The algorithm's own log; empty if it wrote none.

        Raises:
            RunError: If it is not a table, or was changed after the run.
        """
        import pandas as pd  # not at the top: most commands read no table

        file = self.folder / PROGRESS
        return self._table(file) if file.is_file() and file.stat().st_size else pd.DataFrame()

    def file(self, name: str) -> Path:
        """A file that every finished run has.

        Raises:
            RunError: If it is gone or empty.
        """
        path = self.folder / name
        if not path.is_file() or not path.stat().st_size:
            raise RunError(f"{self.folder} has a {SUMMARY} but no {name}: run it again with resume=false.")
        return path

    def _table(self, file: Path) -> pd.DataFrame:
        import pandas as pd

        try:
            known = self.summary.get("files", {}).get(file.name)  # summaries of earlier versions have no digests
            if known is not None and _file_digest(file) != known:
                raise ValueError("it was changed after the run ended")
            return pd.read_csv(file)
        except (OSError, ValueError, pd.errors.ParserError) as error:  # an empty file raises a ValueError
            why = " ".join(str(error).split())[:160]
            raise RunError(f"{file} is no whole table: {why}. Run it again with resume=false.") from error


def read_run(folder: Path) -> Run:
    """Opens a finished run.

    Raises:
        RunError: If the folder holds no finished run, or a file in it is not whole, was changed, or is of another
            version.
    """
    none = f"{folder} holds no finished run: "
    for name in (SUMMARY, CONFIG):
        if not (folder / name).is_file():
            raise RunError(f"{none}there is no {name}.")
    again = "Run it again with resume=false."
    summary = read_json(folder / SUMMARY, again, RUN_FORMAT, none)
    config = _read_mapping(folder / CONFIG, partial(_config_in, folder / CONFIG), again, none)
    # A run that learned from a log has it in its own folder, wherever that folder is now.
    return Run(folder, with_log(config, folder / LOG) if "log" in summary else config, summary)


def with_log(config: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """A config whose simulator and reward, if they answer from a log, answer from the log at the path ``log``."""
    changed = dict(config)
    if _is_logged(config.get("simulator")):
        changed["simulator"] = {**config["simulator"], "interactions": str(log)}
    reward = config.get("reward")
    if isinstance(reward, Mapping) and _is_logged(reward.get("simulator")):
        changed["reward"] = {**reward, "simulator": {**reward["simulator"], "interactions": str(log)}}
    return changed


def _is_logged(simulator: Any) -> bool:
    return isinstance(simulator, Mapping) and simulator.get("_target_") == LOGGED


def find_runs(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None, name: str) -> list[Run]:
    """All finished runs in some folders, at any depth, in the order of their paths.

    Args:
        paths: A run folder, a folder that holds runs, or several of them.
        name: Name of the argument that gave ``paths``, for messages.

    Raises:
        RunError: If no path is given, a path is missing, or a path has no finished run.
    """
    if paths is None:
        raise RunError(
            f"`{name}` must be given: {name}=FOLDER, a run or a folder of runs that experiments.train wrote."
        )
    runs: dict[Path, Run] = {}
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    several = list(several) if isinstance(several, Iterable) else several
    if not isinstance(several, list) or not all(isinstance(path, str | os.PathLike) for path in several):
        raise RunError(f"`{name}` must be a folder, or a list of folders, got {paths!r:.80}.")
    if not several:
        raise RunError(f"`{name}` must name at least one folder, got none.")
    for path in several:
        folder = place_of(path)
        if not folder.is_dir():
            raise RunError(f"`{name}`: there is no folder {folder}.")
        found = [file.parent for file in _files_below(folder, SUMMARY)]
        if not found:
            raise RunError(
                f"`{name}`: {folder} holds no finished run (no {SUMMARY} in it or below). Make one: "
                "python -m experiments.train."
            )
        runs |= {run.resolve(): read_run(run) for run in found}
    return list(runs.values())


def _files_below(folder: Path, name: str) -> list[Path]:
    """Files of a name in a folder or below, sorted.

    Checkpoints of runs are left out, and so are hidden folders, except those in which Hydra writes.
    """
    found = []
    for place, folders, files in os.walk(folder):
        left_out = {CHECKPOINT} if CONFIG in files else set()
        folders[:] = [one for one in folders if one not in left_out and (not one.startswith(".") or one == HYDRAS)]
        if name in files:
            found.append(Path(place, name))
    return sorted(found)


def unfinished_runs(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], n_finished: int) -> str:
    """A text such as ``"1 of 3 runs unfinished: FOLDER"`` about some folders; empty if all runs are finished."""
    started: dict[Path, Path] = {}
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        for file in _files_below(place_of(path), CONFIG):
            # A run that failed before its first file has only Hydra's copy of the config.
            folder = file.parent.parent if file.parent.name == HYDRAS else file.parent
            if not (folder / SUMMARY).is_file():
                started[folder.resolve()] = folder
    if not started:
        return ""
    n = len(started) + n_finished
    return f"{len(started)} of {n} runs unfinished: {', '.join(str(folder) for folder in started.values())}"


def table_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the tables of a run by file name, for its summary."""
    return {name: _file_digest(folder / name) for name in (METRICS, PROGRESS) if (folder / name).is_file()}


def is_finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the folder holds the finished run of this very config."""
    return (folder / SUMMARY).is_file() and has_config(folder, config)


def has_config(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the folder was written by this config, without regard to :data:`HOW_KEYS`."""
    there = _read_config(folder)
    return there is not None and _what(there) == _what(config)


def changed_keys(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Dotted keys in which the folder's config and another one differ; empty if the folder has no config."""
    there = _read_config(folder)
    if there is None:
        return []
    old, new = flat_config(_what(there)), flat_config(_what(config))
    return sorted(key for key in old.keys() | new.keys() if key not in old or key not in new or old[key] != new[key])


def flat_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config without levels: ``{"algo": {"gamma": 0.9}}`` becomes ``{"algo.gamma": 0.9}``. Empty levels are kept."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flat_config(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def lock_file(file: IO[Any], refusal: str) -> None:
    """Locks an open file against other processes until it is closed, or this process is killed.

    Raises:
        RunError: With the text ``refusal``, if another process holds the lock. The file is closed then.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise RunError(refusal) from error


def wait_for_lock(file: IO[Any], notice: str = "") -> bool:
    """Locks an open file as :func:`lock_file` does, but waits while another process holds the lock.

    Args:
        file: The file.
        notice: A line that is printed if it has to wait; empty for none.

    Returns:
        Whether it had to wait.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if notice:
            print(notice, file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    return False


@contextmanager
def lock_run(folder: Path, waits: bool = False) -> Iterator[bool]:
    """Locks a run folder against other processes until the block ends, or this process is killed.

    The folder is made if it does not exist.

    Args:
        folder: The folder.
        waits: Whether to wait if another process holds the lock. Then a line says so.

    Yields:
        Whether it had to wait.

    Raises:
        RunError: If another process holds the lock, and ``waits`` is false.
    """
    busy = f"another process is in this folder: {folder}."
    has_waited = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("w") as file:
            if waits:
                has_waited |= wait_for_lock(file, f"{busy} This run waits for it.")
            else:
                lock_file(file, f"{busy} Wait for it, or choose another folder.")
            # The other process may have removed the folder, as `clear_if_only` does, and this file with it.
            if (folder / LOCK).exists() and os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat()):
                # The file stays: if it were removed, two other processes could each lock a file of their own.
                yield has_waited
                return


@contextmanager
def lock_served(folder: Path, server: str, name: str) -> Iterator[None]:
    """Locks the folder of a server against other servers until the block ends, or this process is killed.

    The folder is made if it does not exist.

    Args:
        folder: The folder.
        server: The server in words, for the error of another server.
        name: Name of the argument that gave ``folder``, for messages.

    Raises:
        RunError: If another server holds the lock. The error names that server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        file.seek(0)
        other = file.read() or "another process"
        lock_file(file, f"`{name}`: {other} uses {folder} already. Stop it, or choose another `{name}`.")
        file.truncate(0)
        file.write(server)
        file.flush()
        yield


def clear_run(folder: Path) -> None:
    """Removes the files of an earlier run from its folder, the summary first, and nothing else."""
    for name in (SUMMARY, EVALUATION, PRETRAIN, BEFORE, CONFIG, METRICS, PROGRESS, MODEL):
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINT, TENSORBOARD):
        shutil.rmtree(folder / name, ignore_errors=True)


def clear_if_only(folder: Path, names: Collection[str]) -> bool:
    """Removes a run folder that holds nothing but some known files, and the folders above it that are then empty.

    Args:
        folder: The folder.
        names: Names that may be in it, beside a lock that no process holds.

    Returns:
        Whether the folder is gone.
    """
    if Path.cwd().is_relative_to(folder):
        return False
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - {*names, LOCK}:
        return not folder.exists()
    try:
        with lock_run(folder):
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, RunError):
        return False  # another process is about to begin in this folder
    for above in folder.parents:
        if above == Path.cwd() or not above.is_relative_to(Path.cwd()):
            break
        try:
            above.rmdir()
        except OSError:
            break
    return not folder.exists()


def file_of_sqlite(address: object) -> Path | None:
    """The file of a database ``sqlite:///FILE``; ``None`` for any other address."""
    found = re.fullmatch(r"sqlite:///([^?]+).*", address) if isinstance(address, str) else None
    return None if found is None else Path(found[1])


def of_the_system(error: OSError, where: Path | None = None) -> str:
    """An error of the operating system as a sentence: the path, what is wrong, and what to do.

    Args:
        error: The error.
        where: The path that was written to, for an error that does not name one.
    """
    path = error.filename if error.filename is not None else where
    place = "" if path is None else f"{os.fsdecode(path) if isinstance(path, str | bytes | Path) else path}: "
    advice = _ADVICE.get(error.errno or 0)
    return f"{place}{error.strerror or error}.{f' {advice}' if advice else ''}"


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes a resolved config; raises as :func:`config_text`."""
    write_text(folder / CONFIG, config_text(config))


def config_text(config: Mapping[str, Any]) -> str:
    """A resolved config as the text of its file.

    A comment before it says the format, the version that wrote it, and how many lines follow.

    Raises:
        RunError: If the config is so long that it would not be read again.
    """
    text = yaml.dump(dict(config), Dumper=_PlainDumper, sort_keys=False)
    if len(text) > _MOST_OF_A_CONFIG:
        raise RunError(
            f"the config of a run must have at most {_MOST_OF_A_CONFIG:,} characters, got {len(text):,}: shorten its "
            "longest lists."
        )
    lines = text.count("\n")
    return f"# {RUN_FORMAT}, written by {written_by()}, {lines} lines follow\n{text}"


def write_json(path: Path, content: Mapping[str, Any], kind: str = RESULTS_FORMAT) -> None:
    """Writes a JSON file that appears whole or not at all. Numbers that are not finite become null.

    The entries ``format``, ``written_by`` and ``sha256`` are added. By these :func:`read_json` detects another version
    and later changes.

    Args:
        path: Where the file is written; missing folders are made.
        content: Entries in plain JSON.
        kind: The format.
    """
    said = {"format": kind, "written_by": written_by(), **as_written(content)}
    text = json.dumps({**said, "sha256": _content_digest(said)}, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def as_written(value: Any) -> Any:
    """What :func:`write_json` keeps of a value: keys become texts, and numbers that are not finite become ``None``."""
    if isinstance(value, Mapping):
        return {str(key): as_written(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_written(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(file: Path, way_out: str, kind: str = RESULTS_FORMAT, before: str = "") -> dict[str, Any]:
    """The content that :func:`write_json` wrote. A file of an earlier release has no format to check.

    Args:
        file: The file.
        way_out: A sentence that says what to do if the file cannot be read.
        kind: The format.
        before: Words that an error begins with.

    Raises:
        RunError: If the file is missing, is not whole, was changed, has no named entries, or is of another format.
    """

    def parse(text: str) -> Any:
        content = json.loads(text)
        if not isinstance(content, dict):
            return content
        digest = content.pop("sha256", None)
        _require_format(file, content.get("format", kind), kind, content.get("written_by"))
        if digest is not None and digest != _content_digest(content):
            raise ValueError("its content does not match its `sha256`")
        return {key: value for key, value in content.items() if key not in ("format", "written_by")}

    return _read_mapping(file, parse, way_out, before)


def write_text(path: Path, text: str) -> None:
    """Writes a text file that appears whole or not at all. Missing folders are made."""
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_figure(path: Path, figure: Figure, **options: Any) -> None:
    """Writes a figure to a file that appears whole or not at all. Missing folders are made.

    Args:
        path: The file, whose ending says the kind of picture.
        figure: A figure of Matplotlib.
        options: Arguments of the figure's ``savefig``.
    """
    with whole_file(path) as scratch:
        figure.savefig(scratch, format=path.suffix[1:], **options)


def commit_of_checkout() -> str | None:
    """The commit of the checkout, with a mark if files differ from it; ``None`` outside of a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def commits_by(made: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """The commit that made the runs of each name, or several if a study continued with other code.

    Args:
        made: For each run a name, such as that of its learner, and its commit; ``None`` if it is unknown.
    """
    found: dict[str, dict[str, None]] = {}
    for name, commit in made:
        found.setdefault(name, {})[commit or "unknown"] = None
    return {name: ", ".join(commits) for name, commits in found.items()}


def folder_name(overrides: Sequence[str], exclude: Iterable[str] = ()) -> str:
    """The name of a folder for some Hydra overrides. It does not depend on their order.

    The name can be typed in ``run=...`` without quotation marks: it has no ``=``, ``,`` or brackets.

    Args:
        overrides: Overrides of the form ``"key=value"``.
        exclude: Keys that do not count, with all keys below them.

    Example:
        >>> folder_name(["seed=0,1", "algo.planning_steps=0,5"])
        'algo.planning_steps-0-5+seed-0-1'
    """
    kept = sorted(item for item in overrides if re.split(r"[.=]", item.lstrip("+~"), maxsplit=1)[0] not in exclude)
    text = "+".join(re.sub("[=,]", "-", item) for item in kept)
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", text)
    if name != text or len(name) > _MAX_NAME:
        # A checksum tells names apart that would otherwise be the same.
        name = f"{name[:_MAX_NAME]}-{hashlib.sha256(','.join(kept).encode()).hexdigest()[:8]}"
    return name or "default"


def _read_mapping(file: Path, parse: Callable[[str], Any], way_out: str, before: str = "") -> dict[str, Any]:
    """The named entries of a file.

    Args:
        file: The file.
        parse: Function from the file's text to its entries.
        way_out: See :func:`read_json`.
        before: See :func:`read_json`.

    Raises:
        RunError: If the file is missing, is not whole, or has no named entries.
    """
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{before}there is no {file}. {way_out}") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        why = " ".join(str(error).split())[:160]
        raise RunError(f"{before}{file} is not whole, or was changed: {why}. {way_out}") from error
    if not isinstance(content, dict):
        raise RunError(f"{before}{file} must hold named entries, got {content!r:.40}. {way_out}")
    return content


def _config_in(file: Path, text: str) -> Any:
    """A config in YAML.

    Raises:
        RunError: If its first line names another format.
        ValueError: If it has fewer lines than its first line says: a beginning of YAML is often YAML too. And if it is
            longer than a config can be.
        yaml.YAMLError: If it is not YAML, or repeats a part by a name.
    """
    said = re.match(r"# (jobrec-run/\S+), written by (.+?)(?:, (\d+) lines follow)?\n", text)
    if said is not None:
        _require_format(file, said[1], RUN_FORMAT, said[2])
        if said[3] is not None and text.count("\n") - 1 < int(said[3]):
            raise ValueError(f"{text.count(chr(10)) - 1} of {said[3]} lines are there")
    return _plain_yaml(text)


class _PlainLoader(yaml.SafeLoader):
    """Reads YAML without aliases, by which a few lines can stand for more entries than fit into memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next part of the document."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it repeats a part by a name, as no config of a run does")
        return super().compose_node(parent, index)


class _PlainDumper(yaml.SafeDumper):
    """Writes YAML without aliases: a part that is in several places is written in each."""

    def ignore_aliases(self, data: Any) -> bool:
        """Whether a part is written again where it is again."""
        return True


def _plain_yaml(text: str) -> Any:
    if len(text) > _MOST_OF_A_CONFIG:
        raise ValueError(f"it has {len(text):,} characters, but a config has at most {_MOST_OF_A_CONFIG:,}")
    return yaml.load(text, _PlainLoader)


def _require_format(file: Path, found: Any, known: str, writer: Any) -> None:
    if found != known:
        by = "" if writer is None else f", written by {writer!s:.40}"
        raise RunError(
            f"{file} has the format {found!r:.40}{by}; this version ({written_by()}) reads {known!r}. Read it by the "
            "version that wrote it, or make it anew (resume=false makes a run anew)."
        )


def _content_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of entries in plain JSON. It does not depend on their order or on spaces."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read_config(folder: Path) -> dict[str, Any] | None:
    try:
        there = _plain_yaml((folder / CONFIG).read_text())
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    return there if isinstance(there, dict) else None


def _what(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in HOW_KEYS}
