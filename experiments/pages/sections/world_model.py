"""The world model: how well it predicts the reward of a recommendation before it is made."""

from __future__ import annotations

from experiments.pages.data import ReportData, last_value, outcomes_of
from experiments.pages.plots import curves
from experiments.pages.section import Content, Section, Table
from experiments.runs.tables import format_number, mean_and_spread

__all__ = ["SECTION"]

_ERRORS = {
    "reward_mse": "reward, squared error",
    "reward_mse_of_mean": "of the mean",
    "outcome_log_loss": "what follows, log loss",
    "outcome_log_loss_of_shares": "of the shares",
    "leaving_brier": "leaving, Brier score",
    "leaving_brier_of_share": "of the share",
}
_HELD_OUT = (
    "Errors on the last 1,000 transitions, each foreseen before the model was told of it. Behind each error is that of "
    "the constant which fits the same transitions best: a model that knows something is below it."
)


def _draw(data: ReportData, rows: list[list[str]]) -> Content:
    return Content(
        "How well the agent's model predicts the reward of a recommendation before it is made: 1 is perfect, 0 no "
        "better than the mean, below 0 worse.",
        [
            Table(
                ["agent", "R² while learning", "R² held out", "correlation held out"],
                rows,
                "While learning: of the rewards that the agent was paid, each predicted before the model was trained "
                "on it. Held out: of the expected rewards of all candidates under the truth, which is another signal "
                "than a cosine that an agent may have been paid; there only the correlation says something.",
            ),
            *_errors(data),
        ],
        [
            curves(
                data.folder,
                "model_r2",
                "R² of the world model",
                "Of rewards predicted before the model was trained on them; below -1 cut off.",
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
    """Of models that know what follows: the errors of their parts, each beside that of the best constant."""
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
    """Of the agents that have a world model."""
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
