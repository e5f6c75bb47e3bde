"""Saved agents: loaded, and evaluated on held-out applicants."""

from __future__ import annotations

from typing import Any

from experiments.runs.build import Setup, build
from experiments.runs.folders import EVALUATION, MODEL, Run, write_json

__all__ = ["evaluate_run", "load_run"]


def evaluate_run(run: Run, changes: dict[str, Any]) -> dict[str, Any]:
    """Loads the agent of a run, evaluates it, and writes ``evaluation.json`` beside it.

    Args:
        run: A finished run.
        changes: Entries of its config's ``evaluation`` to replace; ``None`` keeps one.

    Returns:
        What was written: ``evaluation`` (the settings), ``held_out``, ``references`` and ``outcomes``.

    Raises:
        RunError: If there is no saved agent.
    """
    setup, model = load_run(run, changes)
    evaluation = setup.evaluation
    result = {
        "evaluation": {key: setup.config["evaluation"][key] for key in changes},
        "held_out": evaluation.with_return(model),
        "references": evaluation.references(),
        "outcomes": {"agent": evaluation.outcomes(model), **evaluation.reference_outcomes()},
    }
    write_json(run.folder / EVALUATION, result)
    return result


def load_run(run: Run, changes: dict[str, Any]) -> tuple[Setup, Any]:
    """A run as it was set up, with some entries of ``evaluation`` replaced (``None`` keeps one), and its agent.

    Raises:
        RunError: If there is no saved agent.
    """
    saved = run.file(MODEL)
    setup = build(run.config, evaluation={key: value for key, value in changes.items() if value is not None})
    return setup, setup.algorithm.load(saved, setup.env)
