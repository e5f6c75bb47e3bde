import itertools

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from matplotlib import pyplot as plt
from matplotlib.text import Text

from experiments.studies import figure
from experiments.studies.figure import plot_learning, plot_levels, plot_settings, spread
from experiments.studies.study import Study

NAMES = [f"learner_{i}" for i in range(6)]
LABELS = {name: f"label {name[-1]}" for name in NAMES}


@pytest.fixture
def study():
    """Six learners, five of them within a hair's breadth of each other."""
    scores = {name: np.full((3, 2), 0.4 + 1e-3 * i if i else 0.0) for i, name in enumerate(NAMES)}
    return Study(
        [0, 1, 2],
        [0, 100],
        scores,
        {name: np.full(3, 10.0 + i) for i, name in enumerate(NAMES)},
        {name: np.ones(3) for name in NAMES},
        reps=10,
    )


@pytest.fixture
def figures(monkeypatch):
    """Those that were drawn, kept for a look."""
    kept = []
    monkeypatch.setattr(figure.plt, "close", kept.append)
    yield kept
    monkeypatch.undo()
    plt.close("all")


def labels_of(axes):
    return [text for text in axes.texts if text.get_text() in LABELS.values()]


def test_positions_move_apart_as_little_as_it_takes():
    assert spread([0.0, 5.0, 20.0], 2.0).tolist() == [0.0, 5.0, 20.0]
    assert spread([1.0, 0.0, 9.0], 3.0).tolist() == [2.0, -1.0, 9.0]


def test_every_line_is_labelled_where_it_ends_and_no_label_hides_another(study, figures, tmp_path):
    plot_settings({"vectors": study, "profile": study}, LABELS, NAMES, tmp_path / "figure.png")

    (figure,) = figures
    left, right, *others = figure.axes
    assert len(others) == 2, "a row of two a setting"
    assert not figure.legends
    assert left.get_legend() is None
    assert [text.get_text() for text in labels_of(left)] == list(LABELS.values())
    for text, line in zip(labels_of(left), left.get_lines(), strict=True):
        assert text.xy == (line.get_xdata()[-1], line.get_ydata()[-1])
        assert text.get_color() == line.get_color()
    # Without the lines that lead to them, which an annotation's own extent has in it.
    boxes = sorted((Text.get_window_extent(text) for text in labels_of(left)), key=lambda box: box.y0)
    assert all(upper.y0 >= lower.y1 - 1 for lower, upper in itertools.pairwise(boxes))
    assert [text.get_text() for text in right.get_yticklabels()] == list(reversed(LABELS.values())), (
        "least regret on top"
    )
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_type_is_legible_where_the_figure_is_shown_800_pixels_wide(study, figures, tmp_path):
    plot_settings({"vectors": study}, LABELS, NAMES, tmp_path / "figure.png")

    pixels_a_point = 800 / figures[0].get_size_inches()[0] / 72
    assert min(text.get_fontsize() for text in labels_of(figures[0].axes[0])) * pixels_a_point >= 12


def test_only_what_is_asked_for_is_drawn_in_one_colour_everywhere(study, figures, tmp_path):
    some = Study([0], [0, 100], {NAMES[2]: [[0.1, 0.2]]}, {NAMES[2]: [1.0]}, {NAMES[2]: [1.0]}, reps=10)

    plot_settings({"a": study, "b": some}, LABELS, [NAMES[1], NAMES[2]], tmp_path / "figure.png")

    first, _, second, _ = figures[0].axes
    assert [text.get_text() for text in labels_of(first)] == ["label 1", "label 2"]
    assert [text.get_text() for text in labels_of(second)] == ["label 2"]
    assert labels_of(second)[0].get_color() == labels_of(first)[1].get_color()


def test_levels_are_the_horizontal_axis(study, figures, tmp_path):
    plot_levels({"0 %": study, "50 %": study}, "corrupted answers", LABELS, NAMES[:2], tmp_path / "figure.png")

    left, right = figures[0].axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["0 %", "50 %"]
    assert left.get_xlabel() == right.get_xlabel() == "corrupted answers"
    assert len(labels_of(left)) == 2


def test_single_runs_are_drawn_over_interactions_with_the_caption_below(figures, tmp_path):
    curves = {name: pd.Series([0.1 * i, 0.2 * i], [0, 1_000]) for i, name in enumerate(LABELS.values())}

    plot_learning(curves, "A caption of its own.", tmp_path / "figure.png")

    (figure,) = figures
    (axes,) = figure.axes
    lines, texts = axes.get_lines(), labels_of(axes)
    for (name, curve), line, text in zip(curves.items(), lines, texts, strict=True):
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 1_000], list(curve))
        assert (text.get_text(), text.get_color()) == (name, line.get_color())
        assert text.xy == (1_000, curve.iloc[-1])
    assert "A caption of its own." in [text.get_text() for text in figure.texts]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
