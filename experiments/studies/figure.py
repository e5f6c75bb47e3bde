"""The figures of studies, such as scores on the left and regret on the right. Each line has its name at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from experiments.runs.folders import write_figure
from experiments.runs.intervals import mean_interval
from experiments.studies.study import Study

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["MOST_DRAWN", "plot_learning", "plot_levels", "plot_settings", "plot_shares", "spread"]

MOST_DRAWN = 6
"""Most lines of a figure. More cannot be told apart at the size of a README."""

COLOURS = ("#000000", "#c8500a", "#0072b2", "#00805c", "#a03078", "#8a6a00")
"""Colours of the lines. They are dark enough for text, and colour-blind people can tell them apart."""

_WIDTH, _HEIGHT, _DPI = 8.0, 2.9, 200  # in inches; at a width of 800 pixels a point of type is 1.4 pixels
_SIZE = 10.0
_CAPTION = 118  # letters in a line
_APART = 4.0  # least distance between the numbers of an axis, in points
_FEW = MaxNLocator(nbins=4, steps=[1, 2, 5, 10])
_LEVEL = "#5a5a5a"


def plot_settings(studies: Mapping[str, Study], drawn: Sequence[str], path: Path) -> None:
    """Draws a row of two axes for each setting: mean score over interactions, and regret, with 95 % intervals.

    Args:
        studies: The study of each setting, by name.
        drawn: The learners to draw, at most :data:`MOST_DRAWN`. A learner that a study lacks is left out of its row.
        path: Path of the PNG.
    """
    with plt.rc_context({"font.size": _SIZE}):
        size = (_WIDTH, _HEIGHT * len(studies) + 0.3)
        figure, rows = plt.subplots(
            len(studies), 2, figsize=size, layout="constrained", width_ratios=(3, 2), squeeze=False
        )
        for (setting, study), (left, right) in zip(studies.items(), rows, strict=True):
            colours = _colours(study, drawn)
            ticks = [f"{point:,}" for point in study.points]
            _curves(left, ticks, {name: mean_interval(study.scores[name], study.reps) for name in colours}, colours)
            _bars(right, {name: mean_interval(study.regret[name], study.reps) for name in colours}, colours)
            left.set_title(setting, loc="left", fontweight="bold", fontsize=_SIZE + 1)
            left.set_ylabel("score")
            left.set_xlabel("interactions")
            right.set_xlabel("regret")
        _label_ends(figure, list(rows[:, 0]))
        write_figure(path, figure, dpi=_DPI, metadata={"Software": None})
        plt.close(figure)


def plot_levels(studies: Mapping[str, Study], axis: str, drawn: Sequence[str], path: Path) -> None:
    """Draws mean score at the end, and regret, over settings that are levels of one quantity, with 95 % intervals.

    Args:
        studies: The study of each level, in order.
        axis: The quantity that has these levels.
        drawn: The learners to draw, at most :data:`MOST_DRAWN`. A learner that a level lacks is left out.
        path: See :func:`plot_settings`.
    """
    some = next(iter(studies.values()))
    everywhere = [name for name in some.scores if all(name in study.scores for study in studies.values())]
    colours = {name: colour for name, colour in _colours(some, drawn).items() if name in everywhere}

    def bounds(values: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
        return {
            name: np.stack([mean_interval(of[name], some.reps) for of in values.values()], axis=1) for name in colours
        }

    scores = {level: {name: of[:, -1] for name, of in study.scores.items()} for level, study in studies.items()}
    with plt.rc_context({"font.size": _SIZE}):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(_WIDTH, _HEIGHT + 0.6), layout="constrained", width_ratios=(3, 2)
        )
        _curves(left, list(studies), bounds(scores), colours)
        _curves(right, list(studies), bounds({level: study.regret for level, study in studies.items()}), colours)
        left.set_ylabel(f"score after {some.points[-1]:,}")
        right.set_ylabel("regret")
        for axes in (left, right):
            axes.set_xlabel(axis)
        _label_ends(figure, [left])
        write_figure(path, figure, dpi=_DPI, metadata={"Software": None})
        plt.close(figure)


def plot_learning(scores: Mapping[str, pd.Series], caption: str, path: Path) -> None:
    """Draws the scores of single runs over interactions.

    Args:
        scores: Scores of each learner, indexed by interactions; at most :data:`MOST_DRAWN` learners.
        caption: Text below the axes.
        path: Path of the PNG.
    """
    with plt.rc_context({"font.size": _SIZE}):
        figure, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT + 1.0), layout="constrained")
        for (name, curve), colour in zip(scores.items(), COLOURS, strict=False):
            axes.plot(curve.index, curve, color=colour, linewidth=1.8, marker="o", markersize=3, label=name)
        axes.set_ylabel("score on held-out applicants")
        axes.set_xlabel("interactions")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        _frame(axes, "y")
        figure.supxlabel(fill(caption, _CAPTION), x=0.01, ha="left", fontsize=_SIZE - 1.5, color="#555555")
        _label_ends(figure, [axes])
        write_figure(path, figure, dpi=_DPI, metadata={"Software": None})
        plt.close(figure)


def plot_shares(
    points: Sequence[int],
    shares: Mapping[str, NDArray[np.float64]],
    levels: Mapping[str, float],
    y_label: str,
    path: Path,
) -> None:
    """Draws means over interactions, with a band from the worst to the best seed, and levels as dashed lines.

    Args:
        points: Numbers of interactions, in ascending order; none if there are only levels.
        shares: For each learner its values, (n_seeds, n_points). Colours repeat after :data:`MOST_DRAWN` learners.
        levels: Values that do not depend on interactions, by name.
        y_label: Label of the axis of values.
        path: Path of the PNG.
    """
    with plt.rc_context({"font.size": _SIZE}):
        figure, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT + 1.0), layout="constrained")
        bounds = {
            name: np.stack([values.mean(axis=0), values.min(axis=0), values.max(axis=0)])
            for name, values in shares.items()
        }
        _curves(axes, [f"{point:,}" for point in points], bounds, dict(zip(shares, cycle(COLOURS), strict=False)))
        for name, level in levels.items():
            axes.plot(
                [0, max(len(points) - 1, 1)], [level, level], color=_LEVEL, linestyle="--", linewidth=1.2, label=name
            )
        axes.set_ylabel(y_label)
        axes.set_xlabel("interactions")
        _label_ends(figure, [axes])
        write_figure(path, figure, dpi=_DPI, metadata={"Software": None})
        plt.close(figure)


def spread(positions: Sequence[float], gap: float) -> NDArray[np.float64]:
    """Positions (n,) moved as little as possible, so that no two are nearer than ``gap``. Their order stays."""
    order = np.argsort(positions, kind="stable")
    steps = gap * np.arange(len(order))
    moved = np.empty(len(order))
    moved[order] = isotonic_regression(np.asarray(positions, dtype=np.float64)[order] - steps).x + steps
    return moved


def _colours(study: Study, drawn: Sequence[str]) -> dict[str, str]:
    """The colour of each drawn learner. A learner has the same colour in every setting."""
    return {name: colour for name, colour in zip(drawn, COLOURS, strict=False) if name in study.scores}


def _curves(
    axes: Any, ticks: Sequence[str], bounds: Mapping[str, NDArray[np.float64]], colours: Mapping[str, str]
) -> None:
    """Draws a line and its band for each learner. ``bounds`` (3, n_ticks) are middle, low and high."""
    at = np.arange(len(ticks))
    for name, (middle, low, high) in bounds.items():
        axes.fill_between(at, low, high, color=colours[name], alpha=0.12, linewidth=0)
        axes.plot(at, middle, color=colours[name], linewidth=1.8, marker="o", markersize=3, label=name)
    axes.set_xticks(at, ticks)
    _frame(axes, "y")


def _bars(axes: Any, bounds: Mapping[str, NDArray[np.float64]], colours: Mapping[str, str]) -> None:
    """Draws a dot, its interval and its value for each learner, the smallest on top. ``bounds`` has shape (3,)."""
    best_last = sorted(bounds, key=lambda name: -bounds[name][0])
    for row, name in enumerate(best_last):
        middle, low, high = bounds[name]
        colour = colours[name]
        axes.plot([low, high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round", clip_on=False)
        axes.plot(middle, row, "o", color=colour, markersize=5.5, clip_on=False)
        axes.annotate(f"{middle:.0f}", (middle, row), (0, 4), textcoords="offset points", ha="center", va="bottom")
    axes.set_yticks(range(len(best_last)), best_last)
    for text, name in zip(axes.get_yticklabels(), best_last, strict=True):
        text.set_color(colours[name])
    axes.set_ylim(-0.5, len(best_last) - 0.3)
    # The axis ends with a number that no interval exceeds, and above 0 even if nothing is drawn or nothing was lost.
    highest = max((float(high) for _, _, high in bounds.values()), default=0.0)
    ticks = _FEW.tick_values(0.0, highest if highest > 0 else 1.0)
    axes.set_xticks(ticks)
    axes.set_xlim(0.0, ticks[-1])
    _frame(axes, "x")


def _frame(axes: Any, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def _label_ends(figure: Any, all_axes: Sequence[Any]) -> None:
    """Writes the name of each line at its end, in its colour. Names that would overlap are moved apart.

    Numbers of the horizontal axis that would touch the next one are left out.
    """
    written = []
    for axes in all_axes:
        for line in axes.get_lines():
            x, y = line.get_xdata()[-1], line.get_ydata()[-1]
            text = axes.annotate(
                line.get_label(),
                (x, y),
                (14, 0),
                textcoords="offset points",
                color=line.get_color(),
                va="center",
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "relpos": (0, 0.5),  # the line starts at the label's beginning, and crosses no other label
                    "color": line.get_color(),
                    "linewidth": 0.6,
                    "shrinkA": 0,
                    "shrinkB": 3,
                },
            )
            written.append((axes, text))
    # The layout must make room for the labels first. Only then is the distance between two ends known.
    figure.draw_without_rendering()
    for axes in all_axes:
        _thin_out(axes.get_xticklabels(), _APART * figure.dpi / 72.0)
        texts = [text for of, text in written if of is axes]
        points_a_pixel = 72.0 / figure.dpi
        ends = [axes.transData.transform(text.xy)[1] * points_a_pixel for text in texts]
        for text, end, place in zip(texts, ends, spread(ends, 1.15 * _SIZE), strict=True):
            text.set_position((14, place - end))


def _thin_out(labels: Sequence[Any], apart: float) -> None:
    """Hides the numbers of an axis, from its end on, that are nearer to the next one than some pixels."""
    limit = float("inf")
    for label in reversed(labels):
        box = label.get_window_extent()
        if box.x1 + apart > limit:
            label.set_visible(False)
        else:
            limit = box.x0
