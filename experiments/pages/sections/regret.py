"""The cost of learning: regret and apply rate of all recommendations, including exploration."""

from __future__ import annotations

from experiments.pages.data import ReportData, has_values
from experiments.pages.plots import curves
from experiments.pages.section import Content, Section, Table
from experiments.pages.windows import equal_windows, window_length
from experiments.runs.tables import Spread, mean_and_spread

__all__ = ["SECTION"]

_REGRET, _RANDOM_REGRET = "online/cumulative_regret", "online/cumulative_random_regret"
_APPLY_RATE = "online/apply_rate"
_COSINE_REGRET, _COSINE_APPLY_RATE = "online/cumulative_cosine_regret", "online/cosine_apply_rate"


def _draw(data: ReportData, found: bool) -> Content:
    rows = _rows(data)
    tables = [table for runs in data.metrics.values() for table in runs]
    others = {
        who: [table.assign(**{_REGRET: table[column]}) for table in tables if column in table]
        for who, column in (("random", _RANDOM_REGRET), ("cosine", _COSINE_REGRET))
    }
    length = window_length(data.metrics)
    rates = equal_windows(data.metrics, _APPLY_RATE, length)
    cosines = equal_windows(data.metrics, _COSINE_APPLY_RATE, length)
    nearest = [table.rename(columns={_COSINE_APPLY_RATE: _APPLY_RATE}) for runs in cosines.values() for table in runs]
    return Content(
        "Regret is what learning cost: the expected reward of the best candidate minus that of the recommended one, "
        "summed over all recommendations made while learning, exploration included.",
        [Table(["agent", "reward, sum", "expected regret, sum", "regret / random's"], rows)] if rows else [],
        [
            curves(
                data.folder,
                "online_regret",
                "Cumulative expected regret",
                "The curve is flat where the agent always recommends the best candidate. Dashed: the regret that a "
                "random choice and the highest cosine would have had on the same candidates.",
                data.metrics,
                "interactions",
                _REGRET,
                y_label="cumulative regret",
                extra=others,
            ),
            curves(
                data.folder,
                "online_apply_rate",
                "Apply rate while learning",
                "Share of recommendations that the applicant would apply to without noise, in windows of "
                f"{length:,.0f} interactions. Dashed: the apply rate of the highest cosine.",
                rates,
                "interactions",
                _APPLY_RATE,
                y_label="apply rate",
                extra={"cosine": nearest},
            ),
        ],
    )


def _rows(data: ReportData) -> list[list[str]]:
    rows = []
    for label, members in data.groups.items():
        online = mean_and_spread([run.summary["online"] for run in members])
        regret, random = online["cumulative_regret"], online["cumulative_random_regret"]
        reward = online["cumulative_reward"]
        if regret is None or random is None or reward is None or random[0] == 0:
            continue
        sums = [f"{entry[0]:,.0f}{_plus_minus(entry)}" for entry in (reward, regret)]
        rows.append([label, *sums, f"{regret[0] / random[0]:.2f}"])
    return rows


def _plus_minus(entry: Spread) -> str:
    return f" ± {entry[1]:,.0f}" if entry[2] > 1 else ""


SECTION = Section(
    "regret",
    "Regret while learning",
    30,
    needs=lambda data: has_values(data.metrics, _REGRET, _APPLY_RATE),
    draw=_draw,
)
