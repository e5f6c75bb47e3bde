"""What the report says of agents beside each other: like with like, intervals in words, equal windows."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.pages import plots
from experiments.pages.data import ReportData
from experiments.pages.page import _breakable, _differences, write_report
from experiments.pages.section import Table
from experiments.pages.sections import held_out, jobs, planning
from experiments.pages.sections.planning import _without_planning
from experiments.pages.verdicts import against, against_cosine, difference_of, headline_of
from experiments.pages.windows import equal_windows, window_length
from experiments.pages.wording import agent_in_words, command_of, over_seeds
from experiments.runs.build import build
from experiments.runs.folders import RUN_FORMAT, Run, find_runs, read_run, write_json
from experiments.runs.grouping import group_runs
from experiments.runs.sweeps import in_words
from experiments.runs.training import run_training


def of(scores, cosine=0.4):
    """Runs of seeds 0, 1, ... with these scores."""
    references = {"cosine": {"score": cosine}}
    return [
        Run(None, {}, {"seed": seed, "held_out": {"score": score}, "references": references})
        for seed, score in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ([0.6, 0.61, 0.59], "above by 0.200 (+0.175 to +0.225)"),
        ([0.2, 0.21, 0.19], "below by 0.200 (-0.225 to -0.175)"),
        ([0.6, 0.4], "not told apart by 2 seeds (-1.171 to +1.371)"),
        ([0.9], "not told apart by one seed (+0.500)"),
        ([0.4, 0.4], "equal"),
        ([0.4001], "equal in one seed"),
        ([None], "no seed in common"),
    ],
)
def test_intervals_are_told_in_words(ours, said):
    assert str(against_cosine(of(ours))) == said


def test_agents_are_compared_seed_by_seed_on_the_same_pairs_alone():
    # Each seed is hard or easy for both, so that the difference is sure though the means are not.
    sure = against(of([0.1, 0.5, 0.9]), of([0.0, 0.41, 0.79, 0.3]))
    assert sure.side == 1 and sure.n_seeds == 3

    assert against(of([0.9, 0.9]), of([0.1, 0.1], cosine=0.3)).n_seeds == 0


def test_two_seeds_make_a_wide_interval():
    assert difference_of([0.1, 0.2]).half == pytest.approx(12.706 * 0.05, rel=1e-3)


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run_training(build(small("algo=dynaq")), folder, ["algo=dynaq"])
    return folder


@pytest.fixture
def copies(trained, tmp_path):
    """Copies of a run with other figures: ``copies(name, seed, score, cosine)``."""
    folder = tmp_path / "runs"

    def copied(name, seed, score, cosine=0.4, finished="2026"):
        copy = shutil.copytree(trained, folder / f"{name}-{seed}-{finished}")
        config = yaml.safe_load((copy / "config.yaml").read_text()) | {"name": name, "seed": seed}
        summary = read_run(copy).summary | {"seed": seed}
        summary["held_out"]["score"] = score
        summary["references"]["cosine"]["score"] = cosine
        summary["wall_clock"]["finished"] = finished
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        write_json(copy / "summary.json", summary, RUN_FORMAT)
        return folder

    return copied


def headline(folder):
    return headline_of(ReportData.of(group_runs(find_runs(folder, "runs")), folder.parent / "report"))


def test_the_best_agent_is_called_so_where_the_seeds_tell_it_from_all_others(copies):
    for seed in (0, 1, 2):
        copies("plain", seed, 0.45 + 0.01 * seed)
        folder = copies("better", seed, 0.6 + 0.01 * seed)

    words, side = headline(folder)

    assert side == "above"
    assert words.startswith(
        "The best agent (better) scores 0.61 on held-out applicants, above the job of highest cosine"
    )
    assert "by 0.19 to 0.23 (95 % interval of 3 seeds)" in words


def test_nobody_is_crowned_by_two_seeds_that_differ_by_noise(copies):
    for seed, score in ((0, 0.3), (1, 0.6)):
        copies("plain", seed, score)
        folder = copies("better", seed, 0.95 - score + 0.1)

    words, side = headline(folder)

    assert side == "" and "best agent" not in words
    assert "2 seeds do not tell the two apart" in words
    assert "The 2 seeds do not tell better apart from plain (0.45)." in words


def test_a_loss_is_called_a_loss(copies):
    for seed in (0, 1):
        folder = copies("plain", seed, 0.1)

    words, side = headline(folder)

    assert side == "below" and "below the job of highest cosine (0.40) by 0.30 to 0.30" in words


def test_one_seed_tells_nothing(copies):
    copies("plain", 0, 0.2)

    words, side = headline(copies("better", 0, 0.6))

    assert side == "" and words.startswith("The highest mean is that of better")
    assert "above the job of highest cosine (0.40); one seed does not tell skill from chance" in words
    assert "plain" not in words


def test_a_tie_is_called_a_tie(copies):
    copies("first", 0, -0.005)
    copies("second", 0, -0.0052)

    words, _ = headline(copies("third", 0, -0.2))

    assert words.startswith(
        "2 agents tie for the highest mean (first; second): of these, first scores -0.01 on held-out"
    )
    assert "each" not in words


def data_of(folder):
    return ReportData.of(group_runs(find_runs(folder, "runs")), folder.parent / "report")


def test_agents_are_ranked_on_the_seeds_that_all_of_them_share(copies):
    # The first is above the cosine everywhere, the second is the cosine; but seeds of the second are easier.
    for seed in (0, 1, 2):
        copies("able", seed, 0.43 + 0.1 * seed, cosine=0.4 + 0.1 * seed)
    for seed in (1, 2, 5, 6):
        folder = copies("plain", seed, 0.4 + 0.1 * seed, cosine=0.4 + 0.1 * seed)

    words, side = headline(folder)

    assert side == "above" and words.startswith(
        "The best agent (able) scores 0.58 on held-out applicants, above the job of highest cosine (0.55) by 0.03 to "
        "0.03 (95 % interval of 2 seeds). The agents ran on unlike seeds: these scores are on the 2 seeds that all "
        "share."
    )
    (table,) = held_out._differences(data_of(folder))
    assert table.header[-1] == "against that of able"
    assert table.note.endswith("The agents ran on unlike seeds: able has the highest mean on those that all share.")


def test_rivals_are_told_by_the_seeds_that_they_share(copies):
    copies("one", 0, 0.8, cosine=0.4)
    copies("one", 1, 0.7, cosine=0.5)
    copies("other", 1, 0.6, cosine=0.5)

    words, _ = headline(copies("other", 2, 0.9, cosine=0.6))

    assert words.startswith("The highest mean is that of one: it scores 0.70") and "highest cosine (0.50)" in words
    assert "one seed does not tell" in words and "2 seeds" not in words
    assert "these scores are on the 1 seed that all share" in words


def test_agents_without_a_common_seed_are_not_ranked(copies):
    for seed in (0, 1):
        copies("first", seed, 0.5, cosine=0.1 * seed)
    copies("link", 1, 0.5, cosine=0.1)
    copies("link", 2, 0.5, cosine=0.2)
    folder = copies("last", 2, 0.9, cosine=0.2)

    assert headline(folder) == ("The agents have no seed in common, so none of them is called the best.", "")
    (table,) = held_out._differences(data_of(folder))
    assert table.header == ["agent", "score against the highest cosine's"]


@pytest.fixture
def twins(trained, tmp_path):
    """Runs with and without planning of one seed, under three truths; each truth is harder for both."""
    for steps, gain in ((0, 0.0), (5, 0.1)):
        for number in range(3):
            copy = shutil.copytree(trained, tmp_path / "twins" / f"{steps}-{number}")
            config = yaml.safe_load((copy / "config.yaml").read_text())
            config["algo"]["planning_steps"] = steps
            config["simulator"]["seed"] = number
            summary = read_run(copy).summary | {"overrides": [f"algo.planning_steps={steps}"]}
            summary["held_out"]["score"] = 0.7 - 0.2 * number + gain * (number + 1)
            summary["references"]["cosine"]["score"] = 0.5 - 0.2 * number
            summary["outcomes"]["cosine"]["exposure"]["lorenz"] = [0.0, 0.1 * number, 1.0]
            for other in ("agent", "random", "oracle"):
                summary["outcomes"][other]["exposure"]["lorenz"] = [0.0, 0.5, 1.0]
            (copy / "config.yaml").write_text(yaml.safe_dump(config))
            write_json(copy / "summary.json", summary, RUN_FORMAT)
    return data_of(tmp_path / "twins")


def test_runs_of_one_seed_and_several_truths_are_paired_by_truth(twins):
    row = planning._row(twins, "algo.planning_steps=5", "algo.planning_steps=0")

    assert row[-1] == "+0.200"
    scores = held_out.scores_by_seed(twins.groups)["algo.planning_steps=0"]["planted"]
    assert scores == {
        "0, simulator.seed=0": pytest.approx(0.7),
        "0, simulator.seed=1": pytest.approx(0.5),
        "0, simulator.seed=2": pytest.approx(0.3),
    }


def test_exposure_of_choices_that_learn_nothing_is_a_mean_over_truths(twins, monkeypatch):
    drawn = {}
    monkeypatch.setattr(jobs, "lorenz_curves", lambda *args: drawn.update(args[4]))

    jobs._draw(twins, jobs._found(twins))

    np.testing.assert_allclose(drawn["cosine"], [0.0, 0.1, 1.0])


def test_a_command_names_seeds_that_were_the_default_of_some_runs():
    def made(seed, *overrides, simulator=0):
        config = {"seed": seed, "simulator": {"seed": simulator}}
        return Run(None, config, {"seed": seed, "overrides": ["algo=a", *overrides]})

    command = "python -m experiments.train"
    assert command_of([made(0), made(1, "seed=1")]) == f"{command} -m algo=a seed=0,1"
    assert command_of([made(0), made(0, "simulator.seed=3", simulator=3)]) == f"{command} -m algo=a simulator.seed=0,3"
    assert command_of([made(0), made(1)]) == f"{command} -m algo=a seed=0,1"
    assert command_of([made(0)]) == f"{command} algo=a"
    both = [made(seed, f"seed={seed}", "simulator.seed=${seed}", simulator=seed) for seed in (0, 1)]
    assert command_of(both) == f"{command} -m algo=a seed=0,1 'simulator.seed=${{seed}}'"


@pytest.mark.usefixtures("unpainted")
def test_unlike_numbers_of_interactions_are_told(copies, tmp_path):
    copies("long", 0, 0.6)
    folder = copies("short", 0, 0.5)
    assert "unlike numbers" not in headline(folder)[0]
    summary = read_run(folder / "short-0-2026").summary | {"interactions": 7}
    write_json(folder / "short-0-2026" / "summary.json", summary, RUN_FORMAT)

    page = write_report(find_runs(folder, "runs"), tmp_path / "report").read_text()

    assert "The agents learned from unlike numbers of interactions: 7 and 30." in page
    assert re.search(r'data-label="interactions">7</td>', page)


@pytest.mark.usefixtures("unpainted")
def test_a_table_of_one_seed_says_so_and_names_no_deviation(copies, tmp_path):
    runs = find_runs(copies("one", 0, 0.6), "runs")

    page = write_report(runs, tmp_path / "report").read_text()

    assert "One seed each." in page and "±" not in page and "standard deviation" not in page


def test_a_line_of_a_cell_ends_within_a_name_and_not_within_a_number():
    parts = str(_breakable("algo.buffer_size=1,000, total_timesteps=20 <b> ± 0.5")).split("<wbr>")

    assert parts == ["algo.", "buffer_", "size=", "1,000, total_", "timesteps=", "20 &lt;b&gt; ±\u00a00.5"]


def test_no_colour_of_a_reference_is_near_that_of_an_agent():
    def lab(colour):
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
        matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        x, y, z = np.cbrt(matrix @ linear / [0.9505, 1, 1.089])
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    near = {
        (who, colour): np.linalg.norm(lab(own) - lab(colour))
        for who, own in plots.REFERENCE_COLOURS.items()
        for colour in plots._COLOURS
    }
    assert min(near.values()) > 35, min(near, key=near.get)


@pytest.mark.usefixtures("unpainted")
def test_runs_of_unlike_pairs_have_tables_figures_and_verdicts_of_their_own(copies, tmp_path):
    for seed in (0, 1):
        copies("here", seed, 0.6)
        folder = copies("there", seed, 0.9, cosine=0.8)
    copies("here", 0, 0.123, finished="2025")

    page = write_report(find_runs(folder, "runs"), tmp_path / "report").read_text()

    found = re.findall(r'<p class="headline ?(\w*)">(.*?)</p>', page)
    assert [words.partition("</strong>")[0] for _, words in found] == ["<strong>Task 1.", "<strong>Task 2."]
    assert "0.60" in found[0][1] and "0.90" in found[1][1] and "there" not in found[0][1]
    first, second = page.partition('<h2 id="task-2-all">')[::2]
    assert ">0.600" in first and ">0.900" not in first and ">0.900" in second and ">0.600" not in second
    for target in re.findall(r'href="(?!data:)([^"]*)"', page):
        assert (tmp_path / "report" / target).is_file() if target[0] != "#" else page.count(f'id="{target[1:]}"') == 1
    assert in_words(folder).count("oracle") == 2
    # What was run twice counts once.
    assert "1 older run of equal config, seed and commit is left out" in page and "here-0-2025" in page
    assert ">0.123" not in page and "0.600 ±\u00a00.000" in page


def test_rates_are_over_equal_windows_though_rows_are_not():
    # 10 a step until 100, then 20 a step: rows of the curve stand at unlike distances.
    table = pd.DataFrame({"interactions": [0, 10, 50, 100, 200, 400], "rate": [np.nan, 10, 10, 10, 20, 20]})

    length = window_length({"a": [table]})
    (found,) = equal_windows({"a": [table]}, "rate", length)["a"]

    assert length == 200
    assert found["interactions"].tolist() == [200, 400] and found["rate"].tolist() == [15, 20]


def test_a_sum_becomes_a_rate_and_windows_fill_the_curve():
    table = pd.DataFrame({"interactions": [0, 100, 200, 250], "sum": [0.0, 100.0, 300.0, 400.0]})

    length = window_length({"a": [table]})
    (found,) = equal_windows({"a": [table]}, "sum", length, sums=True)["a"]

    assert length == 125
    assert found["interactions"].tolist() == [125, 250] and found["sum"].tolist() == [150 / 125, 250 / 125]


def test_windows_in_which_nothing_is_known_are_left_out():
    table = pd.DataFrame({"interactions": [0, 10, 20, 30], "feedback": [np.nan, np.nan, 1.0, 2.0]})

    (found,) = equal_windows({"a": [table]}, "feedback", 10)["a"]

    assert found["interactions"].tolist() == [20, 30]
    assert equal_windows({"a": [table]}, "absent", 10)["a"][0].empty


def test_an_axis_is_that_of_the_curves_and_the_cosine_and_the_oracle_is_a_number(tmp_path, monkeypatch):
    drawn = {}

    def saved(figure, *_):
        (axes,) = figure.axes
        drawn.update(limits=axes.get_ylim(), words=[text.get_text() for text in axes.texts], n_lines=len(axes.lines))
        plt.close(figure)

    monkeypatch.setattr(plots, "_saved", saved)
    tables = {"a": [pd.DataFrame({"x": [0, 10], "y": [0.30, 0.32]})]}
    levels = {"random": 0.0, "cosine": 0.35, "oracle": 1.0}

    plots.curves(tmp_path, "n", "t", "c", tables, "x", "y", y_label="y", references=levels)

    assert 0.29 < drawn["limits"][0] < 0.30 and 0.35 < drawn["limits"][1] < 0.36
    assert drawn["words"] == ["random 0.00 ↓", "cosine 0.35", "oracle 1.00 ↑"]
    assert drawn["n_lines"] == 2  # the agent and the cosine


def test_an_agent_has_one_colour_in_all_pictures_also_beside_one_that_is_called_like_a_reference(copies, monkeypatch):
    colours = {}

    def saved(figure, folder, name, *_):
        lines = [line for line in figure.axes[0].lines if line.get_label() in ("cosine", "plain")]
        colours[name] = [(line.get_label(), line.get_color()) for line in lines]
        plt.close(figure)

    monkeypatch.setattr(plots, "_saved", saved)
    copies("cosine", 0, 0.6)
    folder = copies("plain", 0, 0.5)

    write_report(find_runs(folder, "runs"), folder / "report")

    assert {"held_out_score", "exposure", "families"} <= set(colours)
    for name, found in colours.items():
        assert {("cosine", plots._COLOURS[0]), ("plain", plots._COLOURS[1])} <= set(found), name


def test_numbers_of_interactions_are_whole_and_each_stands_once(tmp_path, monkeypatch):
    said = []

    def saved(figure, *_):
        figure.canvas.draw()
        said.extend(label.get_text() for label in figure.axes[0].get_xticklabels())
        plt.close(figure)

    monkeypatch.setattr(plots, "_saved", saved)

    plots.curves(tmp_path, "n", "t", "c", {"a": [pd.DataFrame({"x": [20], "y": [0.3]})]}, "x", "y", y_label="y")

    assert "20" in said and len(set(said)) == len(said)


def test_a_name_that_begins_with_an_underscore_is_in_the_legend(tmp_path, monkeypatch):
    said = []

    def saved(figure, *_):
        said.append([text.get_text() for text in figure.legends[0].get_texts()])
        plt.close(figure)

    monkeypatch.setattr(plots, "_saved", saved)
    named = ["_mine", "other"]
    table = [pd.DataFrame({"x": [0, 10], "y": [0.3, 0.4]})]
    plots.curves(tmp_path, "n", "t", "c", dict.fromkeys(named, table), "x", "y", y_label="y", extra={"cosine": table})
    plots.lorenz_curves(tmp_path, "n", "t", "c", dict.fromkeys(named, np.linspace(0, 1, 9)), named)
    worth = {name: {"sales": (0.5, 0.0, 1)} for name in named}
    plots.families(tmp_path, "n", "t", "c", {"sales": (0.0, 1.0)}, worth, {"sales": 0.4}, named)
    plots.level_paths(tmp_path, "n", "t", "c", dict.fromkeys(named, ([1, 2], True)))

    assert said == [[*named, "cosine"], [*named, "all jobs equally"], [*named, "cosine"], named]


def test_an_axis_of_powers_says_numbers_and_no_formulas(tmp_path, monkeypatch):
    said = []

    def saved(figure, *_):
        figure.canvas.draw()
        said.extend(label.get_text() for label in figure.axes[0].get_yticklabels(which="both"))
        plt.close(figure)

    monkeypatch.setattr(plots, "_saved", saved)
    tables = {"a": [pd.DataFrame({"x": [0, 10], "y": [0.003, 0.08]})]}

    plots.curves(tmp_path, "n", "t", "c", tables, "x", "y", y_label="y", log=True)

    assert {"0.005", "0.01", "0.05"} <= set(said) and not any("$" in words for words in said)


def test_a_twin_without_planning_may_have_a_name_of_its_own(trained, tmp_path):
    runs = []
    for steps in (0, 5):
        copy = shutil.copytree(trained, tmp_path / f"{steps}")
        config = yaml.safe_load((copy / "config.yaml").read_text()) | {"name": f"{steps} planning steps"}
        config["algo"]["planning_steps"] = steps
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        runs.extend(find_runs(copy, "runs"))
    groups = group_runs(runs)

    assert _without_planning(ReportData.of(groups, tmp_path / "report"), groups["5 planning steps"]) == [
        "0 planning steps"
    ]
    assert [row[0] for row in _differences(groups)] == ["algo.planning_steps"]


def test_a_table_of_many_columns_becomes_several_that_fit():
    table = Table(["agent", *"abcdefg"], [["x", *"1234567"]], "A note.")

    parts = table.parts(4)

    assert [part.header for part in parts] == [["agent", *"abc"], ["agent", *"def"], ["agent", "g"]]
    assert [part.rows[0] for part in parts] == [["x", *"123"], ["x", *"456"], ["x", "7"]]
    assert [part.note for part in parts] == ["", "", "A note."]
    assert table.parts(8) == [table]


def test_seeds_of_a_group_stand_together_and_a_maker_has_its_class():
    configs = [{"algo": {"_target_": "dynaq_algo.DynaQ.plus"}, "simulator": {"seed": seed}} for seed in (1, 0)]

    assert over_seeds([Run(None, config, {}) for config in configs])["simulator"]["seed"] == "0, 1"
    reward = {"_target_": "jobrec_gym.VectorCosineReward", "scale": "unit"}
    config = {**configs[0], "pretrain": {"dataset": None, "n_pairs": 100_000, "epochs": 2}, "reward": reward}
    assert agent_in_words(config, None).startswith("DynaQ.plus; paid the cosine")
    words = agent_in_words(config, {"n_pairs": 3_360, "epochs": 59})
    assert words.startswith("DynaQ.plus, pre-trained on 3,360 cosine rewards (59 epochs); paid the cosine")
