import itertools

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from matplotlib import pyplot as plt
from matplotlib.text import Text

from experiments.studies import figure
from experiments.studies.figure import plot_learning, plot_levels, plot_settings, plot_shares, spread
from experiments.studies.study import Study

NAMES = [f"learner_{i}" for i in range(6)]


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
    return [text for text in axes.texts if text.get_text() in NAMES]


def test_positions_move_apart_as_little_as_it_takes():
    assert spread([0.0, 5.0, 20.0], 2.0).tolist() == [0.0, 5.0, 20.0]
    assert spread([1.0, 0.0, 9.0], 3.0).tolist() == [2.0, -1.0, 9.0]


def test_every_line_is_labelled_where_it_ends_and_no_label_hides_another(study, figures, tmp_path):
    plot_settings({"vectors": study, "profile": study}, NAMES, tmp_path / "figure.png")

    (figure,) = figures
    left, right, *others = figure.axes
    assert len(others) == 2, "a row of two a setting"
    assert not figure.legends
    assert left.get_legend() is None
    assert [text.get_text() for text in labels_of(left)] == NAMES
    for text, line in zip(labels_of(left), left.get_lines(), strict=True):
        assert text.xy == (line.get_xdata()[-1], line.get_ydata()[-1])
        assert text.get_color() == line.get_color()
    # Without the lines that lead to them, which an annotation's own extent has in it.
    boxes = sorted((Text.get_window_extent(text) for text in labels_of(left)), key=lambda box: box.y0)
    assert all(upper.y0 >= lower.y1 - 1 for lower, upper in itertools.pairwise(boxes))
    assert [text.get_text() for text in right.get_yticklabels()] == list(reversed(NAMES)), "least regret on top"
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_type_is_legible_where_the_figure_is_shown_800_pixels_wide(study, figures, tmp_path):
    plot_settings({"vectors": study}, NAMES, tmp_path / "figure.png")

    pixels_a_point = 800 / figures[0].get_size_inches()[0] / 72
    assert min(text.get_fontsize() for text in labels_of(figures[0].axes[0])) * pixels_a_point >= 12


def test_only_what_is_asked_for_is_drawn_in_one_colour_everywhere(study, figures, tmp_path):
    some = Study([0], [0, 100], {NAMES[2]: [[0.1, 0.2]]}, {NAMES[2]: [1.0]}, {NAMES[2]: [1.0]}, reps=10)

    plot_settings({"a": study, "b": some}, [NAMES[1], NAMES[2]], tmp_path / "figure.png")

    first, _, second, _ = figures[0].axes
    assert [text.get_text() for text in labels_of(first)] == NAMES[1:3]
    assert [text.get_text() for text in labels_of(second)] == [NAMES[2]]
    assert labels_of(second)[0].get_color() == labels_of(first)[1].get_color()


def test_levels_are_the_horizontal_axis(study, figures, tmp_path):
    plot_levels({"0 %": study, "50 %": study}, "corrupted answers", NAMES[:2], tmp_path / "figure.png")

    left, right = figures[0].axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["0 %", "50 %"]
    assert left.get_xlabel() == right.get_xlabel() == "corrupted answers"
    assert len(labels_of(left)) == 2


@pytest.mark.parametrize("drawn", [NAMES[:2], NAMES[:1]])
def test_a_learner_that_one_level_lacks_is_left_out(study, figures, tmp_path, drawn):
    without = Study.from_json(study.to_json(), study.reps)
    for values in (without.scores, without.regret, without.cpu_seconds):
        del values[NAMES[0]]
    for order in ({"0 %": study, "50 %": without}, {"0 %": without, "50 %": study}):
        plot_levels(order, "corrupted answers", drawn, tmp_path / "figure.png")
        assert [text.get_text() for text in labels_of(figures.pop().axes[0])] == drawn[1:]


def test_single_runs_are_drawn_over_interactions_with_the_caption_below(figures, tmp_path):
    curves = {name: pd.Series([0.1 * i, 0.2 * i], [0, 1_000]) for i, name in enumerate(NAMES)}

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


def test_numbers_of_an_axis_never_touch_and_the_last_one_stays(figures, tmp_path):
    points = [0, 20, 50, 100, 200, 400, 800, 1_500, 100_000, 200_000]
    study = Study([0], points, {NAMES[0]: [[0.1] * 10]}, {NAMES[0]: [1.0]}, {NAMES[0]: [1.0]}, reps=10)

    plot_settings({"a": study}, NAMES[:1], tmp_path / "figure.png")

    figures[0].draw_without_rendering()  # at the size of the screen again
    axes = figures[0].axes[0]
    shown = [text for text in axes.get_xticklabels() if text.get_visible()]
    assert shown[-1].get_text() == "200,000" and 4 < len(shown) < len(points)
    boxes = [text.get_window_extent() for text in shown]
    assert min(right.x0 - left.x1 for left, right in itertools.pairwise(boxes)) > 4, [t.get_text() for t in shown]


@pytest.mark.parametrize("regret", [3.0, 547.0, 574.0, 601.0])
def test_the_axis_of_regret_ends_with_a_number_that_no_regret_exceeds(figures, tmp_path, regret):
    study = Study([0], [0, 10], {NAMES[0]: [[0.1, 0.1]]}, {NAMES[0]: [regret]}, {NAMES[0]: [1.0]}, reps=10)

    plot_settings({"a": study}, NAMES[:1], tmp_path / "figure.png")

    axes = figures[0].axes[1]
    assert axes.get_xlim() == (0, axes.get_xticks()[-1])
    assert regret <= axes.get_xticks()[-1] <= 2 * regret


@pytest.mark.parametrize(("drawn", "regret"), [("nobody", 5.0), (NAMES[0], 0.0), (NAMES[0], -2.0)])
def test_a_setting_without_a_drawn_learner_or_without_regret_has_an_axis(figures, tmp_path, drawn, regret):
    study = Study([0], [0, 10], {NAMES[0]: [[0.1, 0.1]]}, {NAMES[0]: [regret]}, {NAMES[0]: [1.0]}, reps=10)

    plot_settings({"a": study}, [drawn], tmp_path / "figure.png")

    low, high = figures[0].axes[1].get_xlim()
    assert low == 0 and high == 1, "nothing lies above 0, so that its end is free"


def test_numbers_of_interactions_are_whole_and_each_stands_once(figures, tmp_path):
    plot_learning({"a": pd.Series([0.1, 0.2], [19, 21])}, "", tmp_path / "figure.png")

    ticks = figures[0].axes[0].get_xticks()
    assert list(ticks) == sorted({round(tick) for tick in ticks})


def test_shares_have_a_band_from_the_worst_to_the_best_seed_and_levels_are_named_at_their_end(figures, tmp_path):
    shares = {"a": np.array([[0.0, 0.2], [0.0, 0.4]])}
    plot_shares([0, 10], {str(number): shares["a"] for number in range(9)}, {}, "share", tmp_path / "many.png")
    figures.clear()

    plot_shares([0, 5_000], shares, {"best": 1.0}, "share", tmp_path / "figure.png")

    (axes,) = figures[0].axes
    curve, level = axes.get_lines()
    assert curve.get_ydata().tolist() == pytest.approx([0.0, 0.3]) and list(level.get_ydata()) == [1.0, 1.0]
    assert axes.collections[0].get_datalim(axes.transData).y1 == pytest.approx(0.4)
    assert [text.get_text() for text in axes.texts] == ["a", "best"] and axes.get_legend() is None
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "5,000"]
