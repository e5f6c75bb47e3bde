"""Checks command lines before Hydra reads them, and quotes values so that they can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobrec_gym.extras import install_command
from jobrec_gym.paths import place_of

__all__ = [
    "PLUGINS",
    "add_own_arguments",
    "as_override",
    "as_typed",
    "flags_first",
    "from_home",
    "refuse_lists_of_values",
    "refuse_words",
    "require_plugin",
    "written",
]

PLUGINS = {
    **dict.fromkeys(("launcher=ray", "launcher=ray_cluster"), ("ray", "hydra_plugins.hydra_ray_launcher")),
    **dict.fromkeys(
        ("launcher=submitit", "launcher=submitit_local"), ("submitit", "hydra_plugins.hydra_submitit_launcher")
    ),
    "sweeper=optuna": ("optuna", "hydra_plugins.hydra_optuna_sweeper"),
    "tracker=wandb": ("wandb", "wandb"),
    "tracker=mlflow": ("mlflow", "mlflow"),
}
"""Argument -> the extra that it needs, and a module that this extra installs."""

_SWEEP_FLAGS = ("-m", "--multirun")
_FLAGS = {
    *("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p", "--package", "-r", "--run"),
    *("-sc", "--shell-completion", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    *("--experimental-rerun", "-i", "--info", *_SWEEP_FLAGS),
}
"""The flags of Hydra 1.3."""
_FLAGS_WITH_VALUE = {
    *("-c", "--cfg", "-p", "--package", "-sc", "--shell-completion", "-cp", "--config-path", "-cn", "--config-name"),
    *("-cd", "--config-dir", "--experimental-rerun", "-i", "--info"),
}
_OF_CFG, _OF_INFO = ("job", "hydra", "all"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_FIRST = ("path", "runs", "run", "log", "model", "results")
"""Entries that a user is most likely to mean by a word alone."""
_MARK = '"'
_IN_HOME = re.compile(r"~(/[^,\[\]{}()'\"]*)?")
_AS_IT_IS = re.compile(r"[A-Za-z0-9_./+-]+")  # what Hydra takes without quotation marks


def add_own_arguments(arguments: Sequence[str]) -> list[str]:
    """Allows arguments for a class of your own.

    Hydra refuses an entry that a config does not have. If the command line names the class of an entry,
    ``simulator._target_=lab.Mine``, further entries are arguments of that class, and are added.

    Example:
        >>> add_own_arguments(["simulator=custom", "simulator._target_=lab.Mine", "simulator.alpha=0.3", "seed=1"])
        ['simulator=custom', '++simulator._target_=lab.Mine', '++simulator.alpha=0.3', 'seed=1']
    """
    places = tuple(
        f"{key.removesuffix('._target_')}."
        for key in (argument.partition("=")[0] for argument in arguments)
        if key.endswith("._target_") and key[0] not in "+~-"
    )
    return [f"++{argument}" if "=" in argument and argument.startswith(places) else argument for argument in arguments]


def from_home(arguments: Sequence[str]) -> list[str]:
    """Arguments with ``~`` at the start of a path replaced by the home folder, which most shells leave to the program.

    Example:
        >>> from_home(["seed=1", "~simulator", "folder=~/runs"])[:2]
        ['seed=1', '~simulator']
    """
    found = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        found.append(as_override(key, place_of(value)) if _IN_HOME.fullmatch(value) else argument)
    return found


def refuse_lists_of_values(arguments: Sequence[str], configs: Path) -> None:
    """Ends a command that sets a group, such as ``algo``, to a list of values.

    A group takes the name of an option. For a list of values Hydra has no clear error. A list of names of options is
    not refused here.

    Args:
        arguments: The arguments of the command line.
        configs: The folder of the groups.

    Raises:
        SystemExit: With the way out, if there is such an argument.
    """
    # Not at the top: Hydra's grammar takes a while to load, and few command lines need it.
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for argument in arguments:
        name, _, value = argument.partition("=")
        group = name.lstrip("+~").partition("@")[0]
        if not (value.startswith("[") and group and (configs / group).is_dir()):
            continue
        try:
            chosen = OverridesParser.create().parse_override(argument).value()
        except HydraException:
            continue  # Hydra says what cannot be read
        if isinstance(chosen, list) and not all(isinstance(option, str) for option in chosen):
            raise SystemExit(
                f"error: {argument!r:.80}: a group is chosen by the name of an option, {group}=OPTION; --help lists "
                "them."
            )


def refuse_words(arguments: Sequence[str], config: Path) -> None:
    """Ends a command that is given a value without the name of an entry. Hydra's error for it is about quotation marks.

    Args:
        arguments: The arguments of the command line.
        config: The command's config file.

    Raises:
        SystemExit: With the entry that may have been meant, if there is such an argument.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if "=" in argument or argument.startswith(("-", "~")) or before in _FLAGS_WITH_VALUE:
            continue
        entries = re.findall(r"^(\w+):", config.read_text(encoding="utf-8"), re.MULTILINE)
        entry = next((name for name in _FIRST if name in entries), None)
        example = "entry=value" if entry is None else as_typed(entry, argument)
        raise SystemExit(
            f"error: {argument!r:.80}: an argument has a name and a value, {example}; --help lists the names."
        )


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Allows flags anywhere, which Hydra does not, and refuses unknown flags.

    Raises:
        SystemExit: For an unknown flag, with the entry that may have been meant, or for a flag without its value.

    Example:
        >>> flags_first(["algo=dynaq", "-m", "--cfg", "job", "seed=0,1"])
        ['-m', '--cfg', 'job', 'algo=dynaq', 'seed=0,1']
    """
    flags: list[str] = []
    entries: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        flag, has_value, value = argument.partition("=")
        if flag.startswith("-") and flag not in _FLAGS:
            entry = flag.lstrip("-").replace("-", "_")
            raise SystemExit(
                f"error: there is no flag {flag}. Entries are given without dashes, {entry}={value or 'VALUE'}; "
                "--help lists them."
            )
        if flag not in _FLAGS:
            entries.append(argument)
            continue
        if argument not in _SWEEP_FLAGS or not set(flags) & set(_SWEEP_FLAGS):
            flags.append(argument)
        if flag in ("-i", "--info"):  # the one flag whose value may be missing
            if not has_value:
                flags.append(left.pop(0) if left and left[0] in _OF_INFO else "all")
        elif flag in _FLAGS_WITH_VALUE:
            if not has_value:
                value = left.pop(0) if left else ""
                flags.append(value)
            if not value or (flag in ("-c", "--cfg") and value not in _OF_CFG):
                example = _OF_CFG[0] if flag in ("-c", "--cfg") else "VALUE"
                raise SystemExit(f"error: {flag} needs a value, such as {flag} {example}, got {value!r:.80}.")
    return [*flags, *entries]


def require_plugin(arguments: Sequence[str]) -> None:
    """Ends a command that asks for a missing plug-in, because Hydra would not say how to install it.

    Raises:
        SystemExit: If a plug-in is missing.
    """
    for argument in arguments:
        extra, module = PLUGINS.get(argument, ("", ""))
        if extra and find_spec(module) is None:
            raise SystemExit(f"error: {argument} needs an extra: {install_command(extra)}.")


def as_typed(key: str, value: Any) -> str:
    """An override as it is typed in a shell, with the quotation marks that Hydra and the shell need.

    Example:
        >>> print(as_typed("run", "runs/demo"), as_typed("run", "my runs/a=1"))
        run=runs/demo 'run="my runs/a=1"'
    """
    return shlex.quote(as_override(key, value))


def as_override(key: str, value: Any) -> str:
    """An override as Hydra reads it. A text with more than letters, digits and ``_./+-`` is in quotation marks."""
    text = str(value)
    return f"{key}={text}" if _AS_IT_IS.fullmatch(text) else f"{key}={_quoted(text, _MARK)}"


def written(value: Any) -> str:
    """A value in the syntax of Hydra's overrides, with texts in quotation marks.

    Example:
        >>> written({"a": [1, None, True], "b": "x, y"})
        "{a:[1,null,true],b:'x, y'}"
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Mapping():
            return "{" + ",".join(f"{key}:{written(entry)}" for key, entry in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(written, value)) + "]"
        case str():
            return _quoted(value, "'")
        case _:
            return str(value)


def _quoted(text: str, mark: str) -> str:
    """A text in quotation marks, as Hydra reads it. A backslash has a meaning only before such a mark."""
    inside = re.sub(rf"(\\*)({mark}|$)", lambda found: found[1] * 2 + found[2].replace(mark, f"\\{mark}"), text)
    return f"{mark}{inside}{mark}"
