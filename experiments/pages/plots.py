"""The report's pictures. Each is written as an SVG and a PNG file, and the SVG is also put into the page."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from experiments.runs.folders import write_figure
from experiments.runs.intervals import interval
from experiments.runs.tables import Spread
from jobrec_gym.shown_text import as_text

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

__all__ = ["BEST_POLICY", "Figure", "Line", "curves", "families", "level_paths", "lorenz_curves", "mean_line"]

BEST_POLICY = "best policy"
"""The oracle's name in a picture of careers."""

# None of these colours is near the colour of an agent.
REFERENCE_COLOURS = {
    "random": "#6b6b6b",
    "cosine": "#a0003c",
    "oracle": "#2f2f2f",
    BEST_POLICY: "#2f2f2f",
    "myopic": "#6a4a2a",
}

# Okabe and Ito (2008), so that colour-blind people can tell them apart. Dashes and markers differ in grey too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c8c00")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = "osD^vPX*"
_WIDTH, _HEIGHT = 5.4, 3.3
_LEGEND_LINE = 0.19
_APART = 0.065  # distance between two names beside the axes, as a share of their height
_FAMILY_LETTERS = 50
_MARKED = 40  # curves with more points have no markers
_REPS = 1_000
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.parse_math": False,  # a $ in a name is not a formula
    "svg.hashsalt": "jobrec-gym",  # the same runs give the same file
    # Transparent, because the page may be dark. PNG files have a white background.
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


class Figure(NamedTuple):
    """One picture of the report.

    Attributes:
        name: Name of its files, without suffix.
        title: Text above it.
        caption: Text below it, which explains the picture and its bands.
        svg: base64 of the SVG file.
    """

    name: str
    title: str
    caption: str
    svg: str


class Line(NamedTuple):
    """A curve over seeds.

    Attributes:
        at: (n,), positions.
        middle: (n,), interquartile means.
        low: (n,), lower ends of the 95 % bootstrap intervals.
        high: (n,), upper ends of these intervals.
    """

    at: NDArray[np.float64]
    middle: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def curves(
    folder: Path,
    name: str,
    title: str,
    caption: str,
    tables: Mapping[str, Sequence[pd.DataFrame]],
    x: str,
    y: str,
    *,
    y_label: str,
    x_label: str = "interactions",
    references: Mapping[str, float | None] | None = None,
    extra: Mapping[str, Sequence[pd.DataFrame]] | None = None,
    log: bool = False,
    limits: tuple[float, float] | None = None,
) -> Figure | None:
    """Draws one column of the runs' tables over another, with a curve for each group.

    Args:
        folder: Folder of the files.
        name: Name of the files.
        title: Text above the picture.
        caption: Text below the picture.
        tables: The tables of each group of runs, one for each seed.
        x: Column of the positions.
        y: Column of the values.
        y_label: Label of the axis of values.
        x_label: Label of the axis of positions.
        references: Levels by name, drawn as lines with their numbers. The axis fits the agents and the cosine. A level
            beyond it is written as a number at its edge.
        extra: Curves of references by name, drawn dashed in the reference's colour.
        log: Whether the axis is logarithmic, provided that all values are positive.
        limits: Limits of the axis of values. Values outside are cut off.

    Returns:
        The figure; ``None`` if no run has both columns.
    """
    lines = {label: line for label, runs in tables.items() if (line := mean_line(runs, x, y)) is not None}
    others = {label: line for label, runs in (extra or {}).items() if (line := mean_line(runs, x, y)) is not None}
    if not lines:
        return None
    log = log and all((line.middle > 0).all() for line in lines.values())
    with plt.rc_context(_STYLE):
        figure, axes = _page(len(lines) + len(others))
        for label, line in lines.items():
            style = group_style(list(tables).index(label))
            marker = style.pop("marker")
            axes.plot(line.at, line.middle, label=label, marker=marker if len(line.at) < _MARKED else "", **style)
            if (line.high > line.low).any():
                low = np.maximum(line.low, line.middle / 10) if log else line.low
                axes.fill_between(line.at, low, line.high, color=style["color"], alpha=0.16, linewidth=0)
        for label, line in others.items():
            axes.plot(line.at, line.middle, label=label, color=REFERENCE_COLOURS[label], linestyle="--", linewidth=1.2)
        known = {who: value for who, value in (references or {}).items() if value is not None}
        if log:
            axes.set_yscale("log")
            # Matplotlib's own labels are formulas, which this style shows as plain text.
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            shown = [*lines.values(), *others.values()]
            wanted = [known["cosine"]] if "cosine" in known else []
            axes.set_ylim(*_limits(shown, wanted, limits))
        _draw_levels(axes, known)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _legend(figure, axes, [*lines, *others])
        return _saved(figure, folder, name, title, caption)


def lorenz_curves(
    folder: Path,
    name: str,
    title: str,
    caption: str,
    shares: Mapping[str, NDArray[np.float64]],
    groups: Sequence[str],
) -> Figure | None:
    """Draws Lorenz curves: the share of all recommendations that the least recommended jobs get.

    Args:
        folder: Folder of the files.
        name: Name of the files.
        title: Text above the picture.
        caption: Text below the picture.
        shares: The curve of each group, and of references, by label.
        groups: The labels of all groups, whose order sets their colours.
    """
    if not shares:
        return None
    with plt.rc_context(_STYLE):
        figure, axes = _page(len(shares) + 1)
        for label, curve in shares.items():
            at = np.linspace(0, 100, len(curve))
            if label in groups:
                axes.plot(at, 100 * curve, label=label, markevery=4, **group_style(groups.index(label)))
            else:
                axes.plot(at, 100 * curve, label=label, color=REFERENCE_COLOURS[label], linestyle="--", linewidth=1.2)
        axes.plot((0, 100), (0, 100), color="#b8bec6", linewidth=1, label="all jobs equally")
        axes.set_xlabel("jobs, least recommended first (%)")
        axes.set_ylabel("share of recommendations (%)")
        _legend(figure, axes, [*shares, "all jobs equally"])
        return _saved(figure, folder, name, title, caption)


def families(
    folder: Path,
    name: str,
    title: str,
    caption: str,
    ranges: Mapping[str, tuple[float, float]],
    agents: Mapping[str, Mapping[str, Spread | None]],
    cosine: Mapping[str, float],
    groups: Sequence[str],
) -> Figure | None:
    """Draws a bar for each family of applicants, from a random choice to the best one, and the agents' rewards.

    Args:
        folder: Folder of the files.
        name: Name of the files.
        title: Text above the picture.
        caption: Text below the picture.
        ranges: Mean rewards of a random and of the best choice for each family, from top to bottom.
        agents: Mean rewards of each agent, by family.
        cosine: Mean reward of the highest cosine, by family.
        groups: The labels of all groups, whose order sets their colours.
    """
    if not ranges:
        return None
    with plt.rc_context(_STYLE):
        figure, axes = _page(len(agents) + 1, height=0.9 + 0.27 * len(ranges))
        rows = np.arange(len(ranges))[::-1]
        low, high = np.array(list(ranges.values())).T
        axes.hlines(rows, low, high, color="#cfd5dd", linewidth=5, zorder=1)
        for number, (label, by_family) in enumerate(agents.items()):
            style = group_style(groups.index(label))
            values = [entry[0] if (entry := by_family.get(family)) else np.nan for family in ranges]
            # Slightly apart, so that equal agents can be seen.
            at = rows + min(0.16, 0.7 / len(agents)) * (number - (len(agents) - 1) / 2)
            axes.plot(values, at, style["marker"], color=style["color"], markersize=5, label=label)
        levels = [cosine.get(family, np.nan) for family in ranges]
        colour = REFERENCE_COLOURS["cosine"]
        axes.plot(levels, rows, "|", color=colour, markersize=11, markeredgewidth=1.6, label="cosine")
        axes.set_yticks(rows, [_short(as_text(family), _FAMILY_LETTERS) for family in ranges])
        axes.set_ylim(-0.7, len(ranges) - 0.3)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("mean expected reward")
        _legend(figure, axes, [*agents, "cosine"])
        return _saved(figure, folder, name, title, caption)


def level_paths(
    folder: Path,
    name: str,
    title: str,
    caption: str,
    paths: Mapping[str, tuple[Sequence[int], bool]],
    behind: Collection[str] = (),
    groups: Sequence[str] = (),
) -> Figure | None:
    """Draws the levels of one applicant over the steps of an episode, under several policies.

    Args:
        folder: Folder of the files.
        name: Name of the files.
        title: Text above the picture.
        caption: Text below the picture.
        paths: For each policy the level at first and after each step, and whether the applicant left at the end, which
            a cross marks. References are dashed in their colours.
        behind: Names of policies that are drawn grey and dotted.
        groups: The labels of all groups of a report, whose order sets their colours. A group that is called like a
            reference is drawn as a group.
    """
    if not paths:
        return None
    with plt.rc_context(_STYLE):
        figure, axes = _page(len(paths))
        number = 0
        for place, (label, (levels, left)) in enumerate(paths.items()):
            if label in behind:
                colour, dashes, width = "#8a929c", ":", 1.4
            elif label in REFERENCE_COLOURS and label not in groups:
                colour, dashes, width = REFERENCE_COLOURS[label], "--", 1.2
            else:
                style = group_style(groups.index(label) if label in groups else number)
                colour, dashes, width = style["color"], style["linestyle"], style["linewidth"]
                number += 1
            # Slightly apart, so that equal paths can be seen.
            at = np.asarray(levels) + 0.05 * (place - (len(paths) - 1) / 2)
            axes.step(range(len(at)), at, where="post", label=label, color=colour, linestyle=dashes, linewidth=width)
            if left:
                axes.plot(len(at) - 1, at[-1], "x", color=colour, markersize=8, markeredgewidth=2)
        axes.set_yticks(range(1, 6))
        axes.set_ylim(0.6, 5.4)
        axes.set_xlabel("steps of the episode")
        axes.set_ylabel("level")
        _legend(figure, axes, [*paths])
        return _saved(figure, folder, name, title, caption)


def mean_line(tables: Sequence[pd.DataFrame], x: str, y: str) -> Line | None:
    """Interquartile mean and its interval over the runs that have a column; ``None`` if none has.

    Runs need not log at the same positions. Each run is interpolated linearly, and the curve ends where the run that
    ends earliest does.
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
    if len(values) == 1:
        return Line(grid, values[0], values[0], values[0])
    return Line(grid, *np.array([interval(column, _REPS) for column in values.T]).T)


def group_style(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of the group with this number. They are the same in all pictures."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4,
        "linewidth": 1.6,
    }


def _page(n_labels: int, height: float = _HEIGHT) -> tuple[Canvas, Axes]:
    """A figure with room for the axes, and for the labels beneath them."""
    return plt.subplots(figsize=(_WIDTH, height + _LEGEND_LINE * n_labels), layout="constrained")


def _legend(figure: Canvas, axes: Axes, labels: Collection[str]) -> None:
    """Draws the legend of the lines with some labels beneath the axes, where it hides no curve.

    Long labels get a line each.
    """
    lines = [line for line in axes.get_lines() if line.get_label() in labels]
    shown = [_short(as_text(str(line.get_label()))) for line in lines]
    columns = 1 if max(map(len, shown)) > 22 else 2 if max(map(len, shown)) > 14 else 3
    rows = -(-len(shown) // columns)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height - _LEGEND_LINE * (len(shown) - rows))
    legend = figure.legend(lines, list(map(str, range(len(shown)))), loc="outside lower center", ncols=columns)
    for text, label in zip(legend.get_texts(), shown, strict=True):
        text.set_text(label)  # only now, because a legend leaves out lines whose label begins with an underscore


def _limits(lines: Sequence[Line], wanted: Sequence[float], allowed: tuple[float, float] | None) -> tuple[float, float]:
    """Limits of an axis: the range of what is drawn with a margin, cut to what is allowed.

    If nothing that is drawn is within what is allowed, the axis shows all that is allowed.
    """
    low = min([*(float(np.nanmin(line.low)) for line in lines), *wanted])
    high = max([*(float(np.nanmax(line.high)) for line in lines), *wanted])
    air = 0.08 * (high - low) or 0.05 * max(abs(high), 0.1)
    low, high = low - air, high + air
    if allowed is None:
        return low, high
    return (max(low, allowed[0]), min(high, allowed[1])) if low < allowed[1] and high > allowed[0] else allowed


def _draw_levels(axes: Axes, levels: Mapping[str, float]) -> None:
    """Draws levels as horizontal lines, with names and numbers on the right. An arrow marks a level beyond the axis."""
    low, high = axes.get_ylim()
    ordered = sorted(levels.items(), key=lambda item: item[1])
    places = [min(max((value - low) / (high - low), 0.0), 1.0) for _, value in ordered]
    for number in range(1, len(places)):
        places[number] = max(places[number], places[number - 1] + _APART)
    for number in reversed(range(len(places))):
        places[number] = min(places[number], 1.0 - _APART * (len(places) - 1 - number))
    for (who, value), place in zip(ordered, places, strict=True):
        colour, beyond = REFERENCE_COLOURS[who], "" if low <= value <= high else " ↑" if value > high else " ↓"
        if not beyond:
            axes.axhline(value, color=colour, linestyle=(0, (2, 2)), linewidth=1, zorder=1)
        words = f"{who} {value:.2f}{beyond}"
        axes.annotate(words, (1.01, place), xycoords="axes fraction", va="center", color=colour, fontsize=9)


def _saved(figure: Canvas, folder: Path, name: str, title: str, caption: str) -> Figure:
    figure.draw_without_rendering()  # computes the layout once for both files, because it takes as long as painting
    figure.set_layout_engine(None)
    write_figure(folder / f"{name}.png", figure, dpi=150, facecolor="white", metadata={"Software": None})
    path = folder / f"{name}.svg"
    write_figure(path, figure, metadata={"Date": None})
    plt.close(figure)
    return Figure(name, title, caption, base64.b64encode(path.read_bytes()).decode())


def _short(label: str, width: int = 68) -> str:
    return label if len(label) <= width else f"{label[: width - 1]}…"
