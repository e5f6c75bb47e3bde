"""``python -m experiments.report runs=FOLDER``: one self-contained HTML page, and its pictures beside it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import jinja2
import matplotlib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.build import truth_spec
from experiments.grouping import group_runs
from experiments.runs import COLDSTART, COLDSTART_FIGURE, Run, RunError, find_runs, unfinished_runs
from experiments.tables import Spread, format_number, format_table, held_out_table, mean_and_spread

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

__all__ = ["write_report"]

Groups = Mapping[str, Sequence[Run]]

_REFERENCE_STYLE = {"oracle": "#2f2f2f", "cosine": "#b5541c", "random": "#8a8a8a"}
_RANDOM = "a random choice"
_OPPONENTS = "experiments.opponents."
_LINES = ("-", "-.", ":")
_SIZE = (7.2, 4.0)
_MARKED = 40
_IN_THE_AXES, _SHORT_LABEL = 5, 30
_DECISIONS_ASKED = "decisions asked"
_DPI = 140


class Figure(NamedTuple):
    """One picture of the report.

    Attributes:
        name: Of its PNG file.
        title: Above it.
        caption: Below it.
        png: base64 of the file.
    """

    name: str
    title: str
    caption: str
    png: str


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
def main(cfg: DictConfig) -> None:
    """Writes the report of some runs and prints where it is."""
    paths: Any = OmegaConf.to_container(cfg.runs) if OmegaConf.is_list(cfg.runs) else cfg.runs
    try:
        runs = find_runs(paths, "runs")
        unfinished = unfinished_runs(paths, len(runs))
        folder = Path(cfg.output or Path(paths if isinstance(paths, str) else paths[0]) / "report")
        study = _study(Path(paths)) if isinstance(paths, str) else None
        page = write_report(runs, folder, cfg.title, unfinished, study)
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    header, rows = truths_table(group_runs(runs))
    if rows:
        print(f"{format_table(header, rows)}\n")
    if unfinished:
        print(unfinished)
    print(f"report  {page}")


def write_report(
    runs: Sequence[Run],
    folder: Path,
    title: str | None = None,
    unfinished: str = "",
    study: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``report.html`` and a PNG a figure into a folder.

    Args:
        runs: Finished runs, at least one.
        folder: Made if it is not there.
        title: Of the page.
        unfinished: What to say of runs that are not in it.
        study: What ``experiments.coldstart`` found out from these runs: ``name``, ``in_words``, ``tables`` (``header``
            and ``rows``) and ``png``, base64.

    Returns:
        The page.

    Raises:
        RunError: If a run lacks its learning curve.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = group_runs(runs)
    figures = [figure for figure in _figures(groups, folder) if figure is not None]
    agents: dict[str, Any] = {
        label: mean_and_spread([run.summary["held_out"] for run in members]) for label, members in groups.items()
    }
    agents |= runs[0].summary["references"]
    header, rows = held_out_table(agents)
    shown = [column for column in range(len(header)) if column == 0 or any(row[column] != "-" for row in rows)]
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (files("experiments") / "templates" / "report.html.j2").read_text()
    )
    page = folder / "report.html"
    page.write_text(
        template.render(
            title=title
            or "Job recommendation: " + (", ".join(groups) if len(groups) <= 3 else f"{len(groups)} agents"),
            headline=_headline(groups, runs[0]),
            unfinished=unfinished,
            facts=_facts(runs),
            same_pairs=all(run.summary["references"] == runs[0].summary["references"] for run in runs),
            header=[header[column] for column in shown],
            rows=[[row[column] for column in shown] for row in rows],
            n_agents=len(groups),
            online=_online_rows(groups),
            asked=_asked_rows(groups),
            truths=truths_table(groups),
            study=study,
            figures=figures,
            groups=[
                {
                    "label": label,
                    "seeds": ", ".join(str(run.summary["seed"]) for run in members),
                    "folders": [str(run.folder) for run in members],
                    "config": OmegaConf.to_yaml(OmegaConf.create(members[0].config)),
                }
                for label, members in groups.items()
            ],
            differences=_differences(groups),
        )
    )
    return page


# ---------------------------------------------------------------------------------------------------------------- words


def _study(folder: Path) -> dict[str, Any] | None:
    """What ``experiments.coldstart`` left in a folder of runs, if it did."""
    if not (folder / COLDSTART).is_file() or not (folder / COLDSTART_FIGURE).is_file():
        return None
    png = base64.b64encode((folder / COLDSTART_FIGURE).read_bytes()).decode()
    return {**json.loads((folder / COLDSTART).read_text()), "png": png}


def _headline(groups: Groups, first: Run) -> str:
    """The best learner against cosine; empty where none learns, or nothing can be scored."""
    scores = {
        label: [run.summary["held_out"]["score"] for run in members if run.summary["held_out"]["score"] is not None]
        for label, members in groups.items()
        if not members[0].config["algo"]["_target_"].startswith(_OPPONENTS)
    }
    means = {label: float(np.mean(values)) for label, values in scores.items() if values}
    cosine = first.summary["references"]["cosine"]["score"]
    if not means or cosine is None:
        return ""
    best = max(means, key=lambda label: means[label])
    who = f"The best agent ({best})" if len(means) > 1 else "The agent"
    side = "above" if means[best] > cosine else "below"
    if f"{means[best]:.2f}" == f"{cosine:.2f}":
        side = "equal to"
    return (
        f"{who} scores {means[best]:.2f} on held-out applicants, {side} the job of highest cosine ({cosine:.2f}); "
        "0 is a random choice, 1 the best possible one."
    )


def _facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    def values(read: Any) -> str:
        found = list(dict.fromkeys(str(read(run)) for run in runs))
        return ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")

    stopped = sum(run.summary.get("stopped") is not None for run in runs)
    seconds = sum(run.summary["wall_clock"]["seconds"] for run in runs)
    return [
        ("runs", str(len(runs))),
        (
            "market",
            values(lambda run: "{name}: {n_applicants:,} applicants, {n_jobs:,} jobs".format(**run.summary["market"])),
        ),
        (
            "candidates",
            values(lambda run: f"{run.config['env']['num_candidates']} ({run.config['env']['candidate_sampler']})"),
        ),
        ("reward", values(lambda run: run.config["reward"]["_target_"].rpartition(".")[2].removeprefix("Vector"))),
        ("truth", values(lambda run: _simulator(truth_spec(run.config)))),
        ("interactions", values(lambda run: f"{run.summary['interactions']:,}")),
        ("pre-training", values(lambda run: _pretraining(run.summary["pretrain"]))),
        (
            "held out",
            values(
                lambda run: "{n_pairs:,} applicant-candidates pairs, {split} applicants x {job_split} jobs".format(
                    **run.config["evaluation"]
                )
            ),
        ),
        ("time", f"{seconds / 60:.1f} minutes in all"),
    ] + ([("stopped early", f"{stopped} of {len(runs)} runs, by a budget")] if stopped else [])


def _simulator(spec: Mapping[str, Any]) -> str:
    name = spec["_target_"].rpartition(".")[2]
    return name + "".join(f", {key} {spec[key]}" for key in ("seed", "noise") if key in spec)


def _truth(spec: Mapping[str, Any]) -> str:
    """What the truth of a run is called in a table."""
    target = spec["_target_"].rpartition(".")[2]
    return {"RuleSimulator": "planted", "RecordedSimulator": "recorded", "CosineTruth": "cosine"}.get(target, target)


def _pretraining(pretrain: Mapping[str, Any] | None) -> str:
    return "none" if pretrain is None else f"{pretrain['n_pairs']:,} cosine rewards, {pretrain['epochs']} epochs"


def _online_rows(groups: Groups) -> list[list[str]]:
    rows = []
    for label, members in groups.items():
        online = mean_and_spread([run.summary["online"] for run in members])
        regret, random = online["cumulative_regret"], online["cumulative_random_regret"]
        reward = online["cumulative_reward"]
        if regret is None or random is None or reward is None or random[0] == 0:
            continue
        rows.append(
            [
                label,
                f"{reward[0]:,.0f}{_plus_minus(reward)}",
                f"{regret[0]:,.0f}{_plus_minus(regret)}",
                f"{regret[0] / random[0]:.2f}",
            ]
        )
    return rows


def _asked_rows(groups: Groups) -> list[list[str]]:
    """What was asked of a language model, where one was: calls, known answers, tokens, dollars, reward a decision."""
    rows = []
    for label, members in groups.items():
        if any(run.summary.get("feedback") is None for run in members):
            continue
        entry = mean_and_spread([_asked(run.summary["feedback"], run.summary["online"]) for run in members])
        if entry["decisions"] is None or not entry["decisions"][0]:
            continue
        whole = [
            f"{part[0]:,.0f}"
            for name in ("decisions", "calls", "cache_hits", "failures", "tokens")
            if (part := entry[name]) is not None
        ]
        rows.append([label, *whole, format_number(entry["cost_usd"]), format_number(entry["reward"])])
    return rows


def _asked(feedback: Mapping[str, float], online: Mapping[str, float]) -> dict[str, float | None]:
    return {**feedback, "reward": online["cumulative_expected_reward"] / max(feedback["decisions"], 1)}


def truths_table(groups: Groups) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the scores of each group by each signal: its own truth and those of ``evaluation.also``.

    No rows where no run was scored by another signal than its own.
    """
    rows: dict[str, dict[str, Spread | None]] = {}
    cosine: dict[str, dict[str, Spread | None]] = {}
    for label, members in groups.items():
        truth = _truth(truth_spec(members[0].config))
        by_truth = [{truth: run.summary, **(run.summary.get("also") or {})} for run in members]
        rows[label] = mean_and_spread(
            [{name: part["held_out"]["score"] for name, part in each.items()} for each in by_truth]
        )
        market = f"highest cosine, market {members[0].summary['market']['name']}"
        known = cosine.setdefault(market, {})
        known |= mean_and_spread([{name: part["references"]["cosine"]["score"] for name, part in by_truth[0].items()}])
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(names) < 2:
        return [], []
    return (
        ["score by", *names],
        [[agent, *(format_number(row.get(name)) for name in names)] for agent, row in (rows | cosine).items()],
    )


def _plus_minus(entry: Spread) -> str:
    return f" ± {entry[1]:,.0f}" if entry[2] > 1 else ""


def _differences(groups: Groups) -> list[list[str]]:
    """Entries of the config that are not the same in all groups: name, then a value for each."""
    flat = [_flatten(members[0].config) for members in groups.values()]
    keys = sorted({key for config in flat for key in config})
    return [
        [key, *(str(config.get(key, "-")) for config in flat)]
        for key in keys
        if len({str(config.get(key, "-")) for config in flat}) > 1 and key.rpartition(".")[2] != "seed"
    ]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# ------------------------------------------------------------------------------------------------------------- pictures


def _figures(groups: Groups, folder: Path) -> list[Figure | None]:
    metrics = {label: [run.metrics for run in members] for label, members in groups.items()}
    progress = {label: [run.progress for run in members] for label, members in groups.items()}
    references = next(iter(groups.values()))[0].summary["references"]
    band = (
        "Lines are means over seeds, bands one standard deviation."
        if any(len(m) > 1 for m in groups.values())
        else "One seed."
    )
    held_out = (
        ("held_out_score", "score", "Score on held-out applicants", "Normalised: 0 random, 1 oracle."),
        ("held_out_ndcg", "ndcg@10", "nDCG@10 on held-out applicants", "How well all candidates are ordered."),
        (
            "held_out_apply_rate",
            "apply_rate",
            "Apply rate on held-out applicants",
            "Share of recommendations applied to, without noise.",
        ),
    )
    online = (
        (
            "online_reward",
            "online/mean_reward",
            "Reward while learning",
            "Mean since the point before, exploration included.",
        ),
        (
            "online_regret",
            "online/cumulative_regret",
            "Cumulative expected regret",
            "What the oracle would have earned more while learning.",
        ),
    )
    asked = {label: [_with_asked(table) for table in tables] for label, tables in metrics.items()}
    by_decision = (
        (
            "reward_by_decision",
            "online/cumulative_expected_reward",
            "Expected reward by feedback asked",
            "Sum while learning, over the decisions asked of a language model; its slope is reward a decision.",
        ),
        (
            "score_by_decision",
            "held_out/score",
            "Score by feedback asked",
            "Held-out score over the decisions that a language model was asked for, known ones included.",
        ),
    )
    logged = (
        (
            "model_r2",
            "train/model_r2",
            "World model: R²",
            "Of rewards predicted before the model was trained on them; below -1 cut off.",
            False,
            -1.0,
        ),
        (
            "model_loss",
            "train/model_loss",
            "World model: loss",
            "Mean squared error of the reward, on replayed transitions.",
            True,
            None,
        ),
        ("td_loss", "train/loss", "Q-network: TD loss", "Of the direct updates.", True, None),
        (
            "planning_loss",
            "train/planning_loss",
            "Q-network: planning loss",
            "Of updates on imagined rewards.",
            True,
            None,
        ),
    )
    figures = [
        _curves(
            folder,
            name,
            title,
            f"{text} {band}",
            metrics,
            "interactions",
            f"held_out/{key}",
            references={who: references[who][key] for who in _REFERENCE_STYLE},
        )
        for name, key, title, text in held_out
    ]
    figures += [
        _curves(folder, name, title, f"{text} {band}", _with_random(metrics, column), "interactions", column)
        for name, column, title, text in online
    ]
    figures += [
        _curves(folder, name, title, f"{text} {band}", asked, _DECISIONS_ASKED, column)
        for name, column, title, text in by_decision
    ]
    figures += [
        _curves(folder, name, title, f"{text} {band}", progress, "time/total_timesteps", column, log=log, floor=floor)
        for name, column, title, text, log, floor in logged
    ]
    return figures


def _with_random(metrics: Mapping[str, Sequence[pd.DataFrame]], column: str) -> Mapping[str, Sequence[pd.DataFrame]]:
    """Adds what a random choice would have missed, where regret is shown; of the first group: all meet the same."""
    if column != "online/cumulative_regret":
        return metrics
    first = next(iter(metrics.values()))
    return {**metrics, _RANDOM: [table.assign(**{column: table["online/cumulative_random_regret"]}) for table in first]}


def _with_asked(table: pd.DataFrame) -> pd.DataFrame:
    """Adds how many decisions of a language model were asked for, where one was asked at all."""
    if "feedback/decisions" not in table or not table["feedback/decisions"].any():
        return table
    return table.assign(**{_DECISIONS_ASKED: table["feedback/decisions"]})


def _curves(
    folder: Path,
    name: str,
    title: str,
    caption: str,
    tables: Mapping[str, Sequence[pd.DataFrame]],
    x: str,
    y: str,
    references: Mapping[str, float | None] | None = None,
    log: bool = False,
    floor: float | None = None,
) -> Figure | None:
    """Mean and spread over seeds of a column; ``None`` where no run has it."""
    lines = {label: line for label, runs in tables.items() if (line := _mean_line(runs, x, y)) is not None}
    if not lines:
        return None
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    places = {label: place for place, label in enumerate(tables)}  # a group has one colour in all figures
    for label, (at, mean, spread) in lines.items():
        number = places[label]
        style: dict[str, Any] = {"color": f"C{number % 10}", "linestyle": _LINES[number // 10 % len(_LINES)]}
        if label == _RANDOM:
            style = {"color": _REFERENCE_STYLE["random"], "linestyle": "--", "linewidth": 1}
        elif len(at) < _MARKED:
            style |= {"marker": "o", "markersize": 3}
        axes.plot(at, mean, label=_short(label), **style)
        if (spread > 0).any():
            low = np.maximum(mean - spread, mean / 10) if log else mean - spread
            axes.fill_between(at, low, mean + spread, color=style["color"], alpha=0.18, linewidth=0)
    for who, value in (references or {}).items():
        if value is not None:
            axes.axhline(value, color=_REFERENCE_STYLE[who], linestyle="--", linewidth=1, zorder=1)
            axes.annotate(
                who,
                (1, value),
                xycoords=("axes fraction", "data"),
                xytext=(-3, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=_REFERENCE_STYLE[who],
            )
    axes.set_xlabel(x if x == _DECISIONS_ASKED else "interactions")
    _dress(axes, title, log and all((line[1] > 0).all() for line in lines.values()), len(lines))
    if floor is not None:
        axes.set_ylim(bottom=max(floor, axes.get_ylim()[0]))
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    plt.close(figure)
    return Figure(path.name, title, caption, base64.b64encode(path.read_bytes()).decode())


def _mean_line(
    tables: Sequence[pd.DataFrame], x: str, y: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Positions, mean and standard deviation over the runs that have the column, each (n,); ``None`` if none has.

    Runs need not log at the same positions: between its own a run is a straight line, and the curve ends where the
    first of them does.
    """
    columns = [table[[x, y]].dropna().groupby(x)[y].mean() for table in tables if {x, y} <= set(table.columns)]
    lines = [(line.index.to_numpy(np.float64), line.to_numpy(np.float64)) for line in columns if len(line)]
    if not lines:
        return None
    grid = np.unique(np.concatenate([at for at, _ in lines]))
    grid = grid[(grid >= max(at[0] for at, _ in lines)) & (grid <= min(at[-1] for at, _ in lines))]
    if not len(grid):
        return None
    values = np.stack([np.interp(grid, at, line) for at, line in lines])
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(grid))
    return grid, values.mean(axis=0), spread


def _dress(axes: Axes, title: str, log: bool, n_lines: int) -> None:
    axes.set_ylabel(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    if log:
        axes.set_yscale("log")
    if n_lines > 1:
        labels = [str(text) for text in axes.get_legend_handles_labels()[1]]
        if n_lines > _IN_THE_AXES or max(map(len, labels)) > _SHORT_LABEL:
            # Beneath, where it hides no curve.
            figure = axes.get_figure()
            assert figure is not None
            width, height = _SIZE
            rows = math.ceil(n_lines / 2)
            figure.set_size_inches(width, height + 0.17 * rows)  # type: ignore[union-attr]
            figure.legend(loc="outside lower center", fontsize=7, frameon=False, ncols=2)
        else:
            axes.legend(fontsize=8, frameon=False)


def _short(label: str, width: int = 60) -> str:
    return label if len(label) <= width else f"{label[: width - 1]}…"


if __name__ == "__main__":
    main()
