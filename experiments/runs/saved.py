"""Saved agents: loaded, and evaluated on held-out applicants."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.build import build_env, build_evaluation, build_market, build_truth, load_algorithm
from experiments.runs.folders import EVALUATION, MODEL, Run, write_json
from jobrec_gym import LabourMarket

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
    cfg, market, model = load_run(run, changes)
    evaluation = build_evaluation(cfg, market, build_truth(cfg, market))
    settings: Any = OmegaConf.to_container(cfg.evaluation)
    result = {
        "evaluation": {key: settings[key] for key in changes},
        "held_out": evaluation.with_return(model),
        "references": evaluation.references(),
        "outcomes": {"agent": evaluation.outcomes(model), **evaluation.reference_outcomes()},
    }
    write_json(run.folder / EVALUATION, result)
    return result


def load_run(run: Run, changes: dict[str, Any]) -> tuple[DictConfig, LabourMarket, Any]:
    """The config of a run with some entries of ``evaluation`` replaced (``None`` keeps one), its market, its agent.

    Raises:
        RunError: If there is no saved agent.
    """
    saved = run.file(MODEL)
    cfg = OmegaConf.create(run.config)
    kept = {key: value for key, value in changes.items() if value is not None}
    cfg.evaluation = OmegaConf.merge(cfg.evaluation, kept)
    market = build_market(cfg)
    return cfg, market, load_algorithm(cfg, saved, build_env(cfg, market))
