"""The world model, and how well it predicts the reward of a recommendation before it is made."""

from __future__ import annotations

from experiments.pages.data import ReportData, last_value, outcomes_of
from experiments.pages.plots import curves
from experiments.pages.section import Content, Section, Table
from experiments.runs.tables import format_number, mean_and_spread

__all__ = ["SECTION"]

_ERRORS = {
    "reward_mse": "reward, squared error",
    "reward_mse_of_mean": "of the mean",
    "outcome_log_loss": "change of progress, log loss",
    "outcome_log_loss_of_shares": "of the shares",
    "leaving_brier": "leaving, Brier score",
    "leaving_brier_of_share": "of the share",
}
_HELD_OUT = (
    "Errors on the last 1,000 transitions. Each was predicted before the model was trained on it. The column "
    "after each error has the error of the best constant prediction for the same transitions. A model that has learned "
    "something has a smaller error than that."
)


def _draw(data: ReportData, rows: list[list[str]]) -> Content:
    return Content(
        "How well the agent's model predicts the reward of a recommendation before it is made. R² is 1 for a perfect "
        "prediction, 0 for one no better than the mean, and below 0 for a worse one.",
        [
            Table(
                ["agent", "R² while learning", "R² held out", "correlation held out"],
                rows,
                "While learning: on the rewards that the agent was paid, each predicted before the model was trained "
                "on it. Held out: on the expected rewards of all candidates under the truth. An agent that was paid "
                "the cosine learned another signal than the truth, so for it only the correlation is meaningful.",
            ),
            *_errors(data),
        ],
        [
            curves(
                data.folder,
                "model_r2",
                "R² of the world model",
                "Each reward is predicted before the model is trained on it. Values below -1 are cut off.",
                data.progress,
                "time/total_timesteps",
                "train/model_r2",
                y_label="R²",
                limits=(-1.0, 1.02),
            ),
            curves(
                data.folder,
                "model_loss",
                "Loss of the world model",
                "Mean squared error of the reward, on replayed transitions.",
                data.progress,
                "time/total_timesteps",
                "train/model_loss",
                y_label="squared error",
                log=True,
            ),
        ],
    )


def _errors(data: ReportData) -> list[Table]:
    """A table of errors of models that predict whole transitions, each with that of the best constant prediction."""
    rows = []
    for label, tables in data.progress.items():
        entries = [
            mean_and_spread([{"value": last_value(table, f"world_model/{name}")} for table in tables])["value"]
            for name in _ERRORS
        ]
        if any(entry is not None for entry in entries):
            rows.append([label, *map(format_number, entries)])
    return [] if not rows else [Table(["agent", *_ERRORS.values()], rows, _HELD_OUT)]


def _rows(data: ReportData) -> list[list[str]]:
    """Rows of the agents that have a world model."""
    rows = []
    for label, members in data.groups.items():
        last = [last_value(table, "train/model_r2") for table in data.progress[label]]
        held_out = [(outcomes_of(run).get("world_model") or {}) for run in members]
        entries = [
            mean_and_spread([{"value": value} for value in values])["value"]
            for values in (last, *([part.get(key) for part in held_out] for key in ("r2", "correlation")))
        ]
        if any(entry is not None for entry in entries):
            rows.append([label, *map(format_number, entries)])
    return rows


SECTION = Section(
    "world-model",
    "World model",
    50,
    needs=_rows,
    draw=_draw,
    without="None of these agents has a world model.",
)
