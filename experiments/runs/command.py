"""Commands with a config. They report an error in the command line in one line, with a suggestion."""

from __future__ import annotations

import inspect
import io
import multiprocessing
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from experiments.runs.arguments import (
    add_own_arguments,
    as_override,
    flags_first,
    from_home,
    refuse_lists_of_values,
    refuse_words,
)
from experiments.runs.folders import clear_if_only, of_the_system
from experiments.runs.help import asks_for_help, help_of
from experiments.runs.interrupts import Interrupted, as_child, end_child, interruptible
from experiments.runs.keys import refuse_keys
from experiments.runs.numbers import require_common
from experiments.runs.progress import progress_bars
from experiments.runs.sweeps import tell_sweep
from jobrec_gym.near_miss import best_match
from jobrec_gym.terminal import output_may_fail

__all__ = ["command", "in_one_line", "plain_command", "typed_command"]

_FULL_ERROR = "HYDRA_FULL_ERROR"
_FINISHED = "the runs that are finished"
_OUR_PACKAGES = ("jobrec_gym", "dynaq_algo", "experiments", "__main__")
_OF_A_USER = (ValueError, TypeError, LookupError, ImportError, OSError)
"""Errors whose message alone says what is wrong. Any other is an error of the code, for which the place matters."""


def command(
    config_path: str, config_name: str, kept: str = "", least_of: Mapping[str, int] | None = None
) -> Callable[[Callable[[DictConfig], Any]], Callable[..., Any]]:
    """Makes a function a command, as ``hydra.main`` does, but with errors in one line and a clean end when stopped.

    An error that a user can cause is reported in one line. With ``debug=true``, or ``HYDRA_FULL_ERROR=1``, every error
    is shown in full. Ctrl-C and SIGTERM end the command and its children: two lines say what was kept and how to
    continue, and the exit code is 130 or 143. If the run's folder holds only Hydra's copy of the config, the folder is
    removed.

    Args:
        config_path: Folder of the configs, relative to the function's file.
        config_name: Name of the primary config.
        kept: Words for the work that is kept when the command is stopped; empty if the work has to start again.
            ``{out}`` stands for the entry ``out`` of the config; if that is null, nothing is kept.
        least_of: See :func:`~experiments.runs.numbers.require_common`.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[..., Any]:
        def run(cfg: DictConfig) -> Any:
            is_child = multiprocessing.parent_process() is not None
            if is_child:
                as_child()
            try:
                require_common(cfg, least_of)
                is_sweep = HydraConfig.get().mode is RunMode.MULTIRUN  # which has more runs to make
                with progress_bars(OmegaConf.select(cfg, "progress_bar")), output_may_fail(goes_on=is_sweep):
                    return task(cfg)
            except KeyboardInterrupt as error:
                stopped = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
                if not _clear_away_nothing() and HydraConfig.get().mode is RunMode.RUN:
                    stopped.goes_on = _in_the_same_folder()
                stopped.kept = stopped.kept or _filled(kept, cfg)
                if is_child:
                    end_child(stopped)
                raise stopped from None
            except BaseException:
                _clear_away_nothing()
                raise

        def told(cfg: DictConfig) -> Any:
            try:
                return run(cfg)
            except Exception as error:
                if HydraConfig.get().mode is RunMode.MULTIRUN or not _is_of_a_user(error):
                    raise  # a sweep continues with its other runs
                raise SystemExit(f"error: {in_one_line(error)}") from error

        # Hydra finds the configs and names the log by the function's name and file.
        in_full, in_short = (wraps(task)(_in_file(one, task)) for one in (run, told))

        @wraps(task)
        def main(cfg: DictConfig | None = None) -> Any:
            if cfg is not None:
                return task(cfg)
            given = sys.argv[1:]
            if asks_for_help(given):
                with output_may_fail():
                    print(help_of(Path(task.__code__.co_filename).parent / config_path / f"{config_name}.yaml"))
                return None
            refuse_keys(given)
            configs = Path(task.__code__.co_filename).parent / config_path
            refuse_words(given, configs / f"{config_name}.yaml")
            refuse_lists_of_values(given, configs)
            in_debug, arguments = _without_debug(given)
            sys.argv[1:] = add_own_arguments(flags_first(from_home(arguments)))
            as_command = hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)
            try:
                with _errors_raised():
                    return _told(as_command(in_full if in_debug else in_short), given, in_debug, task)
            finally:
                with output_may_fail():
                    tell_sweep()

        return main

    return decorate


def plain_command(task: Callable[[], Any]) -> Callable[[], Any]:
    """Like :func:`command`, for a function that reads its own arguments.

    ``debug=true`` is removed from the arguments. With it, programs that the function starts show errors in full too.
    """

    @wraps(task)
    def main() -> Any:
        given = sys.argv[1:]
        refuse_keys(given)
        in_debug, sys.argv[1:] = _without_debug(given)
        if in_debug:
            os.environ[_FULL_ERROR] = "1"
        return _told(task, given, in_debug, task)

    return main


def in_one_line(error: BaseException) -> str:
    """A sentence that says what is wrong, and suggests what may have been meant or what to do.

    Args:
        error: An error of Hydra, OmegaConf, this project, the operating system, or a call with wrong arguments.
    """
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        guess = _guess(option, error.options, f"{group}=")
        return f"there is no {group}={option}.{guess} There are {', '.join(error.options)}."
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read: {_first_line(error)}. A value that holds =, commas, brackets or "
            """letters such as ä needs quotation marks of its own, in a shell 'key="a=b"'."""
        )
    if isinstance(error, HydraException) and (several := re.match(r"Ambiguous value for argument '(.+?)=", str(error))):
        key = several[1].lstrip("+~")
        value = _first_line(error).partition("=")[2].removesuffix("'")
        return f"`{key}` has several values: a list is written '{key}=[{value}]', in quotation marks; -m makes a sweep."
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, OmegaConfBaseException):
        return f"{_first_line(error)}{_entries_beside(error.__cause__)}"
    if isinstance(error, MissingMandatoryValue):
        return f"`{error.full_key}` must be given, {error.full_key}=..."
    if isinstance(error, InterpolationResolutionError):
        what = "an entry" if error.full_key is None else f"`{error.full_key}`"
        return f"{what} cannot be computed from other entries: {_first_line(error)}."
    if isinstance(error, InstantiationException):
        return _not_made(error)
    if isinstance(error, OSError) and error.errno is not None:
        return of_the_system(error, _written_to(error))
    if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None and not _is_raised_by_us(error):
        return in_one_line(error.__cause__)  # a library says only what it was about to do, such as to open a log
    if _is_of_memory(error) and str(error):
        return f"there is not enough memory: {_first_line(error)}. Lower the number that asks for so much."
    said = _with_near_miss(" ".join((error.args[0] if _has_words(error) else str(error)).split()))
    if _is_ours(error) or isinstance(error, (HydraException, OmegaConfBaseException)) or "`" in said:
        return said or type(error).__name__
    if said.startswith("Config group override"):  # Hydra's words, which name no way out
        return f"a group is chosen by the name of an option, algo=dynaq for instance: {said:.200}."
    name = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return f"{name}{said or 'the error has no message'} (debug=true shows where)"


def _told(call: Callable[[], Any], given: Sequence[str], in_debug: bool, task: Callable[..., Any]) -> Any:
    """Calls a command. An error that a user can cause is reported in one line, and an interrupt in two.

    Args:
        call: The command.
        given: The arguments, as they were typed.
        in_debug: Whether errors are shown in full.
        task: The function with which the traceback of any other error begins.
    """
    try:
        with interruptible(), _threads_in_short(in_debug), output_may_fail():
            return call()
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        print(_in_two_lines(stopped, given), file=sys.stderr)
        raise SystemExit(stopped.exit_code) from None
    except SystemExit as error:
        cause = error.__cause__
        if not in_debug or cause is None:
            if isinstance(cause, OSError) and cause.errno is not None and error.code == f"error: {cause}":
                raise SystemExit(f"error: {in_one_line(cause)}") from cause  # the system's own words name no way out
            if isinstance(error.code, str):  # a command has put an error into words
                raise SystemExit(_with_near_miss(" ".join(error.code.split()))) from cause
            raise
    except Exception as error:
        if in_debug:
            raise
        if _is_of_a_user(error):
            raise SystemExit(f"error: {in_one_line(error)}") from error
        # The traceback begins with the command, because Hydra's own frames before it are of no use.
        steps = error.__traceback__
        while steps is not None and steps.tb_frame.f_code is not task.__code__:
            steps = steps.tb_next
        raise error.with_traceback(steps)  # noqa: B904  # it is the same error
    raise cause from cause.__cause__  # in debug mode the cause is shown, not only the line made from it


@contextmanager
def _threads_in_short(in_debug: bool) -> Iterator[None]:
    """Reports in one line an error of a thread that a user can cause, but not the error with which the command ends."""
    if in_debug:
        yield
        return
    before, found = threading.excepthook, []

    def keep(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None and _is_of_a_user(failed.exc_value):
            found.append(failed.exc_value)
        else:
            before(failed)

    threading.excepthook = keep
    ends_by: BaseException | None = None
    try:
        yield
    except BaseException as error:
        ends_by = error
        raise
    finally:
        threading.excepthook = before
        chain = []
        while ends_by is not None:
            chain.append(ends_by)
            ends_by = ends_by.__cause__
        for one in found:
            if one not in chain:
                print(f"error: {in_one_line(one)}", file=sys.stderr)


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Makes Hydra raise its errors, not print them."""
    before = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = before


def _written_to(error: BaseException) -> Path | None:
    """The file that was open where the error was raised. An error about a full disk does not name the file."""
    found, steps = None, error.__traceback__
    while steps is not None:
        opened = [one for one in steps.tb_frame.f_locals.values() if isinstance(one, io.IOBase)]
        named = [getattr(one, "name", None) for one in opened]
        names = [name for name in named if isinstance(name, str) and not name.startswith("<")]
        found, steps = (Path(names[-1]) if names else found), steps.tb_next
    return found


def _with_near_miss(said: str) -> str:
    """A sentence; if it refuses a choice without a suggestion, one is added."""
    choice = re.search(r"must be .*[(\[]((?:'[^']+'(?:, )?)+),?[)\]].*, got \[?'([^']*)'[^']*\.$", said)
    if choice is None:
        return said
    known = re.findall(r"'([^']+)'", choice[1])
    return f"{said}{_guess(choice[2], known)}"


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _OUR_PACKAGES


def _is_of_a_user(error: BaseException) -> bool:
    """Whether an error's message alone says what is wrong, so that a user does not need the traceback."""
    known = (HydraException, OmegaConfBaseException, *_OF_A_USER)
    return _is_ours(error) or isinstance(error, known) or _is_of_memory(error) or _is_asserted_by_sb3(error)


def _is_asserted_by_sb3(error: BaseException) -> bool:
    """Whether Stable-Baselines3 has refused an argument by an assertion."""
    return isinstance(error, AssertionError) and _package_that_raised(error) == "stable_baselines3"


def _is_raised_by_us(error: BaseException) -> bool:
    """Whether this project raised the error, so that its words are the ones for users."""
    return _is_ours(error) or _package_that_raised(error) in _OUR_PACKAGES


def _package_that_raised(error: BaseException) -> str:
    """The package in which an error was raised; empty if it was not raised."""
    steps = error.__traceback__
    while steps is not None and steps.tb_next is not None:
        steps = steps.tb_next
    return "" if steps is None else str(steps.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_of_memory(error: BaseException) -> bool:
    """Whether there is not enough memory. Torch raises a RuntimeError for that."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(map(str(error).count, words)))


def _has_words(error: BaseException) -> bool:
    """Whether an error's text must be taken from its arguments, because a LookupError puts it in quotation marks."""
    return isinstance(error, LookupError) and len(error.args) == 1 and isinstance(error.args[0], str)


def _without_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether errors are shown in full, and the arguments without ``debug``, which no config has."""
    others = [argument for argument in arguments if argument.partition("=")[0] != "debug"]
    return "debug=true" in map(str.lower, arguments) or os.environ.get(_FULL_ERROR) == "1", others


def _in_file(function: Any, task: Callable[..., Any]) -> Any:
    function.__code__ = function.__code__.replace(co_filename=task.__code__.co_filename)
    return function


def _clear_away_nothing() -> bool:
    """Removes the run's folder if it has only Hydra's copy of the config; returns whether it did."""
    settings = HydraConfig.get()
    if settings.output_subdir is None:
        return False
    hydras = (settings.output_subdir, f"{settings.job.name}.log")
    return clear_if_only(Path(settings.runtime.output_dir), hydras)


def _in_the_same_folder() -> list[str]:
    """The argument with which a run continues in its folder, whose name may contain the time."""
    settings = HydraConfig.get()
    if settings.output_subdir is None or any(item.startswith("hydra.run.dir=") for item in settings.overrides.hydra):
        return []
    return [as_override("hydra.run.dir", _shown(Path(settings.runtime.output_dir)))]


def _filled(words: str, cfg: DictConfig) -> str:
    """Words with entries of a config filled in; empty if one of these is null."""
    entries = {name: OmegaConf.select(cfg, name) for name in re.findall(r"{([\w.]+)}", words)}
    if None in entries.values():
        return ""
    return re.sub(r"{([\w.]+)}", lambda place: str(entries[place[1]]), words)


def _shown(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def typed_command(module: str) -> str:
    """The present command as it is typed in a shell, with the quotation marks that the shell needs.

    Args:
        module: Name of the module of the command, such as ``experiments.coldstart``.
    """
    return shlex.join(["python", "-m", module, *HydraConfig.get().overrides.task])


def _in_two_lines(stopped: Interrupted, arguments: Sequence[str]) -> str:
    """One line that says what a stopped command has kept, and one with the command that continues."""
    kept = stopped.kept
    if any(argument in ("-m", "--multirun") for argument in arguments):
        kept = kept or "a checkpoint of each run that was learning"
        kept = kept if kept.startswith(_FINISHED) else f"{_FINISHED}, and {kept}"
    again = [argument for argument in arguments if argument.partition("=")[0] != "resume"]
    command = shlex.join(["python", "-m", _name_of_the_program(), *again, *stopped.goes_on])
    return f"{stopped}; kept: {kept or 'nothing'}\n{'go on' if kept else 'again'}: {command}"


def _name_of_the_program() -> str:
    spec = sys.modules["__main__"].__spec__
    return sys.argv[0] if spec is None else spec.name


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _guess(name: str, known: Iterable[str], before: str = "") -> str:
    near = best_match(name, known)
    return f" Did you mean {before}{near}?" if near else ""


def _entries_beside(cause: OmegaConfBaseException) -> str:
    """The end of a sentence about a missing entry: a suggestion, and the entries that exist in its place."""
    beside = cause.parent_node
    name, place = str(cause.key), str(cause.full_key)
    if "not in struct" not in str(cause):
        return f": {_first_line(cause)}."
    if not OmegaConf.is_dict(beside):
        return ": there is no such entry."
    if not len(beside):
        # OmegaConf says the same of a number, which has no entries, and of a mapping that has none yet.
        return f": there is no such entry. Where names are yours to choose, +{place}=... adds one."
    names = [str(key) for key in beside if key != "hydra"]
    before = place.removesuffix(name)
    guess = _guess(name, names, before)
    if not guess:
        deeper = [path for path in _paths(beside) if path.rpartition(".")[2] == name and not path.startswith("hydra.")]
        guess = f" Did you mean {before}{deeper[0]}?" if deeper else ""
    return f": there is no such entry.{guess} There are {', '.join(names)}; +{place}=... adds one."


def _paths(config: Any, before: str = "") -> Iterator[str]:
    """The dotted paths of all entries of a config."""
    for key in config:
        yield f"{before}{key}"
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        if OmegaConf.is_dict(config[key]):
            yield from _paths(config[key], f"{before}{key}.")


def _not_made(error: InstantiationException) -> str:
    """A sentence about an entry with a ``_target_`` that could not be made."""
    place = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
    target = re.search(r"target '([^']+)'", str(error))
    what = f"`{place[1]}`" if place else "an entry"
    cause = error.__cause__
    if cause is None or target is None:
        return f"{what}: {_first_line(error)}."
    if "locating target" in str(error):
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return f"{what}: there is no {target[1]} to be imported: {' '.join(str(cause).split())}."
    said = " ".join(str(cause).split())
    unknown = re.search(r"unexpected keyword argument '(\w+)'", said)
    if unknown:
        known = _arguments_of(target[1])
        said += f".{_guess(unknown[1], known)} There are {', '.join(known)}."
    if not isinstance(cause, _OF_A_USER):
        said = f"{type(cause).__name__}: {said} (debug=true shows where)"
    return f"{what}: {said}"


def _arguments_of(target: str) -> Sequence[str]:
    return [name for name in inspect.signature(get_object(target)).parameters if name not in ("self", "env")]
