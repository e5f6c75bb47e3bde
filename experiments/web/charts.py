"""Small SVG pictures for the page, made by the server. Their colours are set in ``static/app.css``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10
from typing import NamedTuple

from markupsafe import Markup

__all__ = ["belief_bar", "lines"]

_LOWEST, _HIGHEST = -0.1, 1.0
"""The rewards of ignore and apply."""

_BAR = (88.0, 16.0)
_LEFT, _TOP, _BOTTOM = 44.0, 32.0, 44.0
_APART = 15.0  # least distance between the names of two lines
_MOST_TICKS = 5


class _Page(NamedTuple):
    """The measures of a picture. Its type is 13 units high, see ``static/app.css``."""

    name: str
    width: float
    height: float
    right: float  # room beside the curves
    names: bool  # whether names stand beside the curves


_WIDE, _NARROW = _Page("wide-chart", 640.0, 266.0, 172.0, True), _Page("narrow-chart", 340.0, 240.0, 12.0, False)


def belief_bar(mean: float, spread: float) -> Markup:
    """An expected reward as a mark between ignore and apply, with one standard deviation to either side."""
    width, height = _BAR

    def place(reward: float) -> float:
        share = (min(max(reward, _LOWEST), _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)
        return 2 + share * (width - 4)

    low, high, middle = place(mean - spread), place(mean + spread), place(mean)
    return Markup(
        '<svg class="belief" viewBox="0 0 {w:g} {h:g}" width="{w:g}" height="{h:g}" aria-hidden="true">'
        '<line class="axis" x1="2" x2="{end:g}" y1="{y:g}" y2="{y:g}"/>'
        '<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="3" y2="{foot:g}"/>'
        '<rect class="spread" x="{low:.1f}" y="{top:g}" width="{wide:.1f}" height="8" rx="4"/>'
        '<circle class="mean" cx="{middle:.1f}" cy="{y:g}" r="4"/></svg>'
    ).format(
        w=width,
        h=height,
        end=width - 2,
        y=height / 2,
        zero=place(0.0),
        foot=height - 3,
        low=low,
        top=height / 2 - 4,
        wide=max(high - low, 1.0),
        middle=middle,
    )


def lines(
    title: str, curves: Mapping[str, Sequence[float]], *, x_label: str, y_label: str, highest: float, steps: int
) -> Markup:
    """Curves over steps: a wide picture with each name at the end of its curve, and a narrow one with a legend below.

    ``static/app.css`` shows the narrow picture and the legend on a phone, and the wide picture elsewhere.

    Args:
        title: Description for screen readers.
        curves: Values of each curve from step 0 on, by name; at most eight curves.
        x_label: Text beneath the axis of steps.
        y_label: Text above the axis of values.
        highest: A number above 0. The axis of values begins at 0 and reaches at least this number.
        steps: The right end of the axis of steps, at least 1.
    """
    drawn = [
        _drawn(title, curves, page, x_label=x_label, y_label=y_label, highest=highest, steps=steps)
        for page in (_WIDE, _NARROW)
    ]
    entries = [
        Markup(
            '<li><svg viewBox="0 0 32 8" width="32" height="8" aria-hidden="true">'
            '<line class="line line-{}" x1="0" x2="32" y1="4" y2="4"/></svg> {}</li>'
        ).format(number, name)
        for number, name in enumerate(curves)
    ]
    return Markup('<div class="charts">{}<ul class="legend">{}</ul></div>').format(
        Markup("").join(drawn), Markup("").join(entries)
    )


def _drawn(
    title: str,
    curves: Mapping[str, Sequence[float]],
    page: _Page,
    *,
    x_label: str,
    y_label: str,
    highest: float,
    steps: int,
) -> Markup:
    """One picture of :func:`lines`."""
    width, height = page.width, page.height
    between = _round_step(highest)
    highest = between * ceil(highest / between - 1e-9)

    def x(step: float) -> float:
        return _LEFT + step / steps * (width - _LEFT - page.right)

    def y(value: float) -> float:
        return height - _BOTTOM - min(value, highest) / highest * (height - _TOP - _BOTTOM)

    parts = [
        Markup('<svg class="chart {}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(
            page.name, width, height, title
        )
    ]
    for tick in range(round(highest / between) + 1):
        value = between * tick
        parts.append(
            Markup(
                '<line class="grid" x1="{:g}" x2="{:g}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text x="{:g}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(_LEFT, width - page.right, y(value), y(value), _LEFT - 6, y(value) + 4, f"{value:g}")
        )
    for step in range(0, steps + 1, max(1, round(_round_step(steps)))):
        parts.append(
            Markup('<text x="{:.1f}" y="{:g}" text-anchor="middle">{}</text>').format(x(step), height - 24, step)
        )
    middle = (_LEFT + width - page.right) / 2
    parts.append(Markup('<text x="{:g}" y="{:g}" text-anchor="middle">{}</text>').format(middle, height - 5, x_label))
    parts.append(Markup('<text x="{:g}" y="{:g}">{}</text>').format(_LEFT, _TOP - 14, y_label))
    for number, values in enumerate(curves.values()):
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in enumerate(values))
        parts.append(
            Markup(
                '<polyline class="line line-{n}" points="{points}"/>'
                '<circle class="end line-{n}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
            ).format(n=number, points=points, x=x(len(values) - 1), y=y(values[-1]))
        )
    if page.names:
        beside = _spread_out({name: y(values[-1]) for name, values in curves.items()}, height - _BOTTOM)
        for number, (name, values) in enumerate(curves.items()):
            parts.append(
                Markup(
                    '<line class="lead line-{n}" x1="{x:.1f}" y1="{y:.1f}" x2="{right:g}" y2="{beside:.1f}"/>'
                    '<text class="name line-{n}" x="{text:g}" y="{foot:.1f}">{name}</text>'
                ).format(
                    n=number,
                    x=x(len(values) - 1),
                    y=y(values[-1]),
                    right=width - page.right + 8,
                    beside=beside[name],
                    text=width - page.right + 12,
                    foot=beside[name] + 4,
                    name=name,
                )
            )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _spread_out(heights: Mapping[str, float], lowest: float) -> dict[str, float]:
    """Heights of the names beside the curves, in the order of the curves' ends, at least one text line apart."""
    names = sorted(heights, key=heights.__getitem__)
    found: dict[str, float] = {}
    below = _TOP
    for name in names:
        below = max(heights[name], below)
        found[name] = below
        below += _APART
    over = lowest
    for name in reversed(names):
        found[name] = min(found[name], over)
        over = found[name] - _APART
    return found


def _round_step(highest: float) -> float:
    """The distance between ticks of an axis: 1, 2 or 5 times a power of ten."""
    least = highest / _MOST_TICKS
    power = 10.0 ** floor(log10(least) + 1e-9)
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
