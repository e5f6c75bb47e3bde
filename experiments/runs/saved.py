"""Loads saved agents, and evaluates them on held-out applicants."""

from __future__ import annotations

from typing import Any

from dynaq_algo.agent_file import AgentFileError
from experiments.runs.build import Setup, build
from experiments.runs.careers import is_career
from experiments.runs.folders import EVALUATION, MODEL, Run, RunError, write_json
from experiments.runs.trust import require_trust

__all__ = ["evaluate_run", "load_run"]

_OF_PAIRS = ("n_pairs", "n_episodes")


def evaluate_run(run: Run, changes: dict[str, Any], trust: bool = False) -> dict[str, Any]:
    """Loads the agent of a run, evaluates it, and writes ``evaluation.json`` into the run's folder.

    Args:
        run: A finished run.
        changes: Entries of the config's ``evaluation`` to replace; an entry that is ``None`` stays as it is.
        trust: See :func:`load_run`.

    Returns:
        The content of the file: ``evaluation`` (the settings), ``held_out``, ``references`` and ``outcomes``.

    Raises:
        RunError: As in :func:`load_run`, or if settings for pairs are given for a run that is scored by episodes.
    """
    if is_career(run.config) and (of_pairs := [name for name in _OF_PAIRS if changes.get(name) is not None]):
        raise RunError(
            f"`evaluation.{of_pairs[0]}` does not apply to {run.folder}: there agents are scored by an episode with "
            "each applicant, not on pairs. Give evaluation.n_applicants=... instead."
        )
    setup, model = load_run(run, changes, trust)
    evaluation, options = setup.evaluation, setup.config["evaluation"]
    result = {
        "evaluation": {key: options[key] for key in changes if key in options},
        "held_out": evaluation.with_return(model),
        "references": evaluation.references(),
        "outcomes": {"agent": evaluation.outcomes(model), **evaluation.reference_outcomes()},
    }
    write_json(run.folder / EVALUATION, result)
    return result


def load_run(run: Run, changes: dict[str, Any], trust: bool = False) -> tuple[Setup, Any]:
    """The setup of a run, with some entries of ``evaluation`` replaced, and the run's agent.

    Args:
        run: A finished run.
        changes: Entries to replace; an entry that is ``None`` stays as it is.
        trust: Whether code that is not part of this project may be imported and run, and files of other libraries
            loaded.

    Raises:
        RunError: If there is no saved agent, or it is not whole; or if the agent or the config could run code of others
            and the run is not trusted.
    """
    saved = run.file(MODEL)
    require_trust(run.config, run.folder, trust)
    setup = build(run.config, evaluation={key: value for key, value in changes.items() if value is not None})
    try:
        return setup, setup.algorithm.load(saved, setup.env)
    except AgentFileError as error:
        raise RunError(f"{error} Or run it again with resume=false.") from error
