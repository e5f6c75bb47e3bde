"""Refuses keys before Hydra writes a config, wherever in it they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from jobrec_gym.credentials import is_credential_name, place_of_credential

__all__ = ["WAY_OUT", "RefuseKeys", "key_in_config", "refuse_keys"]

WAY_OUT = "set the provider's environment variable (OPENAI_API_KEY, for instance) instead"
_ENTRY = re.compile(r"""([\w$%.-]+)["']?\s*:""")
_SENT = ("simulator", "extra_body", "headers")


def refuse_keys(arguments: Sequence[str]) -> None:
    """Ends a command that was given a key: Hydra writes its overrides into several files before anything else.

    Raises:
        SystemExit: If an argument names or holds one, however it is spelled or nested.
    """
    for argument in arguments:
        name, _, value = argument.partition("=")
        place = name.lstrip("+~")
        sent = any(part in place for part in _SENT)
        named = [part for part in (*place.split("."), *_ENTRY.findall(value)) if is_credential_name(part, sent=sent)]
        if place_of_credential(place) is not None:
            _refuse("an argument")
        if named:
            _refuse(f"`{named[0]}`")
        if place_of_credential(value, place, sent=sent) is not None:
            _refuse(f"`{place}`")


class RefuseKeys(Callback):
    """Ends a command whose config files hold a key; Hydra asks it before it makes a folder."""

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        """Before one run."""
        self._look(config)

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Before a sweep."""
        self._look(config)

    @staticmethod
    def _look(config: Any) -> None:
        found = key_in_config(OmegaConf.to_container(config, resolve=False))
        if found is not None:
            _refuse(f"`{found}`")


def key_in_config(config: Any) -> str | None:
    """Where in a config, in plain dictionaries and lists, a key stands; ``None`` if there is none."""
    found = place_of_credential(config)
    if found is None and isinstance(config, Mapping):
        found = place_of_credential(config.get("simulator"), "simulator", sent=True)
    return found


def _refuse(what: str) -> None:
    # Nothing of an argument's value is repeated.
    raise SystemExit(f"error: {what} looks like a key, which would be written into files: {WAY_OUT}.")
