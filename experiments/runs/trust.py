"""Refuses an untrusted run folder whose config names classes that are not part of this project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.runs.folders import RunError

__all__ = ["OURS", "require_trust"]

_OTHERS_FILES = {
    "experiments.learners.flat_dqn.FlatDQN": "Stable-Baselines3 pickles its arguments, and loading them runs what is "
    "in them",
    "experiments.learners.vowpal.VowpalWabbit": "Vowpal Wabbit reads options of its command line from its model",
}
"""Learners whose files are made by other libraries, with the reason why loading such a file can run code."""

OURS = frozenset(
    {
        *("dynaq_algo.DynaQ", "dynaq_algo.DynaQ.plus", "dynaq_algo.LinearBandit", "dynaq_algo.GaussianProcessBandit"),
        *(f"experiments.learners.opponents.{name}Recommender" for name in ("Cosine", "Oracle", "Popularity", "Random")),
        *("experiments.runs.build.open_market", "experiments.runs.evaluation.CosineTruth", "jobrec_gym.load_market"),
        *("experiments.runs.keys.RefuseKeys", "experiments.runs.sweeps.NoteSweep"),
        *("experiments.runs.trackers.MLflow", "experiments.runs.trackers.WeightsAndBiases"),
        *(f"jobrec_gym.{name}Simulator" for name in ("LLM", "Logged", "Recorded", "Rule")),
        *(f"jobrec_gym.Vector{name}Reward" for name in ("Cosine", "Feedback", "Hybrid", "LLM")),
        "jobrec_gym.AnnealSchedule",
        *(f"jobrec_gym.candidates.{name}Candidates" for name in ("All", "Mixed", "Retrieval", "Uniform")),
        *_OTHERS_FILES,
    }
)
"""Classes and functions that the config of an untrusted run may name: all that ``conf/`` names. Their arguments are
plain values."""

_MODULES = ("jobrec_gym.", "experiments.", "dynaq_algo.")


def require_trust(config: Mapping[str, Any], folder: Path, trust: bool, loads_agent: bool = True) -> None:
    """Refuses an untrusted run whose config or agent could run code of others.

    Args:
        config: The config of the run.
        folder: The run's folder, for messages.
        trust: Whether the user trusts the run.
        loads_agent: Whether the agent is loaded too.

    Raises:
        RunError: If the run is not trusted, and its config names something that is not part of this project, or the
            agent's file could run code.
    """
    if trust:
        return
    way_out = "If the run is your own, or of somebody you trust, say trust=true; see docs/security.md."
    for key, value in _entries(config):
        if key.rpartition(".")[2] == "_target_" and value is not None and value not in OURS:
            raise RunError(
                f"{folder}: its config names `{key}` = {str(value)!r:.80}, which is no part of this project: making an "
                f"object of it would run its code. {way_out}"
            )
        is_type = key.rpartition(".")[2] == "type" and isinstance(value, str) and ":" in value
        if is_type and not value.startswith(_MODULES):
            raise RunError(
                f"{folder}: its config names `{key}` = {value!r:.80}, which is no part of this project: importing it "
                f"would run its code. {way_out}"
            )
        if isinstance(value, str) and "${" in value:
            raise RunError(
                f"{folder}: its config computes `{key}` = {value!r:.80}, but a finished run has plain values only. "
                f"{way_out}"
            )
    target = config.get("algo", {}).get("_target_") if isinstance(config.get("algo"), Mapping) else None
    if loads_agent and target in _OTHERS_FILES:
        raise RunError(f"{folder}: its agent is a file of another library: {_OTHERS_FILES[target]}. {way_out}")


def _entries(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry of a nested config with its dotted key. The keys themselves are yielded as entries too."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{path}.<key>", key
            yield from _entries(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _entries(item, f"{path}.{number}")
    else:
        yield path, value
