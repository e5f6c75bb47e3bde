"""Refuses secret keys (credentials) anywhere in a config, before Hydra writes it to a file."""

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
    """Ends a command that was given a secret key, because Hydra first of all writes its overrides into several files.

    Raises:
        SystemExit: If an argument names or contains a key, however it is spelled or nested.
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
    """Ends a command whose config files contain a secret key. Hydra calls it before it makes a folder."""

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        """Called by Hydra before a single run."""
        self._look(config)

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Called by Hydra before a sweep."""
        self._look(config)

    @staticmethod
    def _look(config: Any) -> None:
        found = key_in_config(OmegaConf.to_container(config, resolve=False))
        if found is not None:
            _refuse(f"`{found}`")


def key_in_config(config: Any) -> str | None:
    """The place of a secret key in a config of plain dictionaries and lists; ``None`` if there is none."""
    found = place_of_credential(config)
    if found is None and isinstance(config, Mapping):
        found = place_of_credential(config.get("simulator"), "simulator", sent=True)
    return found


def _refuse(what: str) -> None:
    # The message must not repeat any part of the value.
    raise SystemExit(f"error: {what} looks like a key, which would be written into files: {WAY_OUT}.")
