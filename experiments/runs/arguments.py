"""What a command line says, looked at before Hydra sees it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from jobrec_gym.extras import install_command

__all__ = ["add_own_arguments", "require_launcher"]

_LAUNCHER_EXTRAS = {"ray": "ray", "ray_cluster": "ray", "submitit": "submitit", "submitit_local": "submitit"}


def add_own_arguments(arguments: Sequence[str]) -> list[str]:
    """Lets a class of one's own have arguments of its own.

    Hydra refuses an entry that a config does not have. Where the command line says which class an entry is,
    ``simulator._target_=lab.Mine``, its arguments are those of that class, and are added.

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


def require_launcher(arguments: Sequence[str]) -> None:
    """Ends a command that asks for a launcher whose plug-in is not installed: Hydra would not say how to get it.

    Raises:
        SystemExit: If it is missing.
    """
    for argument in arguments:
        key, _, name = argument.partition("=")
        extra = _LAUNCHER_EXTRAS.get(name) if key == "launcher" else None
        if extra is not None and find_spec(f"hydra_plugins.hydra_{extra}_launcher") is None:
            raise SystemExit(f"error: launcher={name} needs an extra: {install_command(extra)}.")
