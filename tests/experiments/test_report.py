import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.pages import sections
from experiments.pages.page import write_report
from experiments.pages.plots import Line, _limits, mean_line
from experiments.pages.section import Section
from experiments.pages.sections.held_out import scores_by_seed, truths_table
from experiments.pages.sections.study import read_study
from experiments.runs.build import build
from experiments.runs.folders import (
    COLDSTART,
    COLDSTART_FIGURE,
    RUN_FORMAT,
    RunError,
    find_runs,
    read_run,
    write_json,
)
from experiments.runs.grouping import group_runs
from experiments.runs.tables import format_table
from experiments.runs.training import run_training


@pytest.fixture(scope="module")
def report(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for algo in ("dynaq", "random"):
        for seed in (0, 1):
            overrides = [f"algo={algo}", f"seed={seed}", "env.max_episode_steps=2"]
            run_training(build(small(*overrides)), folder / f"{algo}{seed}", overrides)
    return write_report(find_runs(folder, "runs"), folder / "report")


@pytest.fixture
def drop_in(tmp_path, monkeypatch):
    """Puts a file beside those of the report's sections: ``drop_in("name", "source")``."""
    folder = tmp_path / "dropped"
    folder.mkdir()
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(folder)])
    names = []

    def dropped(name, source):
        names.append(name)
        (folder / f"{name}.py").write_text(source)

    yield dropped
    for name in names:
        sys.modules.pop(f"{sections.__name__}.{name}", None)
        vars(sections).pop(name, None)


def navigation(page):
    """Anchors that a page names on top, and those of its headings."""
    return re.findall(r'<a href="#([^"]+)"', page.partition("</nav>")[0]), re.findall(r'<h2 id="([^"]+)"', page)


def test_the_page_needs_nothing_but_itself(report):
    page = report.read_text()

    assert set(re.findall(r' src="([a-z]+:)', page)) == {"data:"}
    for target in re.findall(r'href="([^"]*)"', page):
        assert target == "data:," or (report.parent / target.lstrip("#")).is_file() or f'id="{target[1:]}"' in page
    assert "http" not in re.sub(r"data:image/[a-z+]+;base64,[^\"]+", "", page)
    assert "viewport" in page


def test_the_page_shows_groups_references_and_what_was_run(report):
    page = report.read_text()

    for text in ("algo=dynaq", "algo=random", "oracle", "cosine", "±", "Seeds 0, 1", "planning_steps", "nDCG@10"):
        assert text in page, text
    assert "python -m experiments.train -m algo=dynaq seed=0,1 env.max_episode_steps=2" in page
    agent = "DynaQ, 5 planning steps after each real update, features concat; paid by decisions of the planted rules"
    assert agent in page


def test_the_page_says_what_cannot_be_told(report):
    page = report.read_text()

    assert "No language model was asked" in page
    assert "No reward here is annealed" in page
    assert "has a twin without planning" in page


def test_sections_stand_in_their_order_on_the_page_and_in_the_navigation(report):
    on_top, headings = navigation(report.read_text())

    expected = ["example", "learning", "held-out", "regret", "reward", "world-model", "planning", "jobs", "applicants"]
    assert on_top == headings == ["run", *expected, "configs"]


@pytest.mark.usefixtures("unpainted")
def test_a_section_without_data_is_in_neither_page_nor_navigation(run, tmp_path):
    run("algo=random")

    page = write_report(find_runs(tmp_path, "runs"), tmp_path / "report").read_text()

    on_top, headings = navigation(page)
    assert (
        on_top
        == headings
        == ["run", "example", "learning", "held-out", "regret", "reward", "jobs", "applicants", "configs"]
    )
    facts = page.partition('<h2 id="example">')[0]
    for words in (
        "None of these agents has a world model.",
        "No agent here has algo.planning_steps above 0 in its config, so no effect of planning steps can be shown.",
        "No language model was",
    ):
        assert words in facts


SECONDS = """
from experiments.pages.data import has_values
from experiments.pages.section import Content, Section, Table


def draw(data, found):
    assert found is True
    return Content("Since the run began.", [Table(["agent", "last"], [["all of them", "12.5 s"]], "A note on time.")])


SECTION = Section("time", "Time & tide", 15, lambda data: has_values(data.metrics, COLUMN), draw, "No clock was read.")
"""


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("column", ["interactions", "seconds_on_mars"])
def test_a_file_in_the_folder_of_sections_is_a_section(run, tmp_path, drop_in, column):
    run("algo=random")
    drop_in("seconds", SECONDS.replace("COLUMN", repr(column)))

    page = write_report(find_runs(tmp_path / "run", "runs"), tmp_path / "report").read_text()

    on_top, headings = navigation(page)
    if column == "interactions":
        assert on_top == headings
        assert headings[2:5] == ["learning", "time", "held-out"]
        assert page.count("Time &amp; tide") == 2
        assert ">12.5 s</td>" in page and "A note on time." in page and "No clock was read." not in page
    else:
        assert "time" not in on_top + headings
        assert "Time &amp; tide" not in page and "12.5 s" not in page and "No clock was read." in page


def test_what_a_section_needs_is_found_once_and_handed_to_what_draws():
    looked = []

    def section(found):
        return Section("time", "Time", 15, lambda data: looked.append(data) or found, lambda data, seen: (data, seen))

    assert section(rows := [["all", "12.5 s"]]).content("the data") == ("the data", rows)
    assert section([]).content("the data") is section(None).content("the data") is None
    assert looked == ["the data"] * 3


def test_a_file_of_sections_without_one_is_named(drop_in):
    drop_in("empty", "SECTION = None")

    with pytest.raises(TypeError, match=r"empty\.py .* must declare `SECTION`, a Section, got None"):
        sections.all_sections()


def test_two_sections_of_one_name_are_refused(drop_in):
    drop_in("seconds", SECONDS.replace("COLUMN", "'x'").replace('"time"', '"regret"'))

    with pytest.raises(ValueError, match=r"seconds\.py: a section named 'regret' is there already"):
        sections.all_sections()


@pytest.mark.usefixtures("unpainted")
def test_a_study_is_on_the_page_of_its_folder_and_not_on_that_of_one_setting(run, tmp_path):
    run("algo=random")
    runs = find_runs(tmp_path, "runs")
    (tmp_path / COLDSTART_FIGURE).write_bytes(b"a picture")
    setting = {"name": "quick", "in_words": "Means over seeds."}
    study = {**setting, "tables": [{"header": ["learner", "20"], "rows": [["LinUCB", "0.5"]]}]}

    pages = []
    for told in (setting, study):
        (tmp_path / COLDSTART).write_text(json.dumps(told))
        pages.append(write_report(runs, tmp_path / "report", study=read_study(tmp_path)).read_text())

    (without, _), (on_top, headings) = map(navigation, pages)
    assert "study" not in without and "The cold start" not in pages[0]
    assert on_top == headings and on_top[:3] == ["run", "study", "example"]
    assert ">The cold start</a>" in pages[1] and '<h2 id="study">The cold start: quick</h2>' in pages[1]
    assert ">0.5</td>" in pages[1] and pages[1].count("Means over seeds.") == 1


def test_every_picture_lies_beside_the_page_as_svg_and_png(report):
    names = set(re.findall(r'<figure id="([^"]+)"', report.read_text()))

    assert {"held_out_score", "online_regret", "online_cosine", "model_r2", "td_loss", "exposure", "families"} <= names
    for suffix in ("svg", "png"):
        assert {path.stem for path in report.parent.glob(f"*.{suffix}")} == names
    assert report.read_text().count("data:image/svg+xml") == len(names)


def test_the_same_runs_give_the_same_page(report, tmp_path):
    runs = find_runs(report.parents[1], "runs")

    assert write_report(runs, tmp_path / "again").read_text() == report.read_text()


@pytest.mark.usefixtures("unpainted")
def test_planning_is_compared_with_the_twin_that_does_not_plan(run, tmp_path):
    for steps in (0, 2):
        run(f"algo.planning_steps={steps}", folder=f"runs/{steps}")
    runs = find_runs(tmp_path / "runs", "runs")

    page = write_report(runs, tmp_path / "report").read_text()

    without, planned = (run.summary["held_out"]["score"] for run in runs)
    assert "Each row compares an agent with one that is equal but does not plan" in page
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page.replace("<wbr>", ""))
    assert ["algo.planning_steps=0", f"{planned - without:+.3f}"] in [cells[i : i + 2] for i in range(len(cells))]


def test_an_annealed_reward_shows_its_weight_and_both_components(run, tmp_path):
    run("reward=hybrid")
    runs = find_runs(tmp_path / "run", "runs")
    table = runs[0].metrics

    page = write_report(runs, tmp_path / "report").read_text()

    np.testing.assert_allclose(table["online/cosine_weight"], 1 - table["interactions"] / 30)
    assert table[["online/cosine", "online/feedback"]][1:].notna().all(axis=None)
    for name in ("cosine_weight", "online_cosine", "online_feedback"):
        assert f'<figure id="{name}">' in page


@pytest.mark.usefixtures("unpainted")
def test_runs_of_an_earlier_version_are_reported_without_what_they_lack(run, tmp_path):
    run()
    (found,) = find_runs(tmp_path, "runs")
    for key in ("outcomes", "commit"):
        del found.summary[key]
    for part in (found.summary["held_out"], *found.summary["references"].values()):
        del part["congestion"]

    page = write_report([found], tmp_path / "report").read_text()

    assert "Runs of an earlier version kept no exposure." in page
    assert "Runs of an earlier version kept no outcomes by family" in page
    assert '<figure id="held_out_score">' in page


@pytest.mark.usefixtures("unpainted")
def test_names_of_runs_cannot_write_into_the_page(run, tmp_path):
    run("algo=random", "+note='<script>x'", folder="a")

    page = write_report(find_runs(tmp_path, "runs"), tmp_path / "report").read_text()

    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page


def test_what_a_market_or_a_run_is_called_is_shown_as_text_of_bounded_length(run, tmp_path):
    hostile = r"$\frac{$ " + "\x1b[2J\u202e\nforged"
    run("algo=random", folder="a")
    run("algo=cosine", folder="b")
    summary = read_run(tmp_path / "a").summary
    summary["overrides"] = ["algo=random", f"+note={hostile}"]
    summary["outcomes"]["agent"]["exposure"]["most_recommended"][0]["title"] = f"{hostile}{'x' * 200_000}"
    for part in summary["outcomes"].values():
        part["by_family"] = {f"{hostile}{'y' * 2_000} {name}": row for name, row in part["by_family"].items()}
    write_json(tmp_path / "a" / "summary.json", summary, RUN_FORMAT)
    (tmp_path / "b").rename(tmp_path / "z")

    page = write_report(find_runs(tmp_path, "runs"), tmp_path / "report", f"Title {hostile}").read_text()

    text = re.sub(r"data:image/[a-z+]+;base64,[^\"]+", "", page)
    assert r"$\frac{$ \x1b[2J\u202e" in text and "x" * 200 not in text and "y" * 200 not in text
    assert "\x1b" not in text and "\u202e" not in text


def test_a_table_for_a_terminal_shows_names_as_text_on_one_line():
    table = format_table(["agent", "score"], [["a\nb\x1b[31m", "1"], ["x" * 5_000, "2"]])

    assert table.splitlines()[2].startswith("a b\\x1b[31m ") and len(table.splitlines()) == 4
    assert max(map(len, table.splitlines())) < 400


def test_curves_of_runs_that_log_at_other_steps_meet_on_their_common_range():
    first = pd.DataFrame({"x": [0, 10, 20], "y": [0.0, 10.0, 20.0]})
    second = pd.DataFrame({"x": [5, 15, 25], "y": [7.0, 17.0, 27.0]})

    line = mean_line([first, second], "x", "y")

    np.testing.assert_allclose(line.at, [5, 10, 15, 20])
    np.testing.assert_allclose(line.middle, line.at + 1)
    np.testing.assert_allclose([line.low, line.high], [line.at, line.at + 2])
    assert mean_line([first, second.assign(x=[30, 40, 50])], "x", "y") is None


def test_an_axis_with_limits_stands_upright_also_if_all_values_are_beyond_them():
    def line(low, high):
        return Line(*np.array([[0.0, 1.0], [low, high], [low, high], [low, high]]))

    assert _limits([line(-9.0, -4.0)], [], (-1.0, 1.02)) == (-1.0, 1.02)
    assert _limits([line(-9.0, 0.5)], [], (-1.0, 1.02)) == (-1.0, 1.02)
    low, high = _limits([line(0.0, 0.5)], [], (-1.0, 1.02))
    assert -1 < low < 0 and 0.5 < high < 1.02


@pytest.mark.usefixtures("unpainted")
def test_a_report_of_a_list_of_folders_at_home_is_written_there(run, tmp_path, monkeypatch):
    run("algo=random", folder="home/run")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    done = run_command("report", 'runs=["~/run"]')

    assert f"report  {tmp_path / 'home' / 'run' / 'report' / 'report.html'}" in done.stdout


@pytest.mark.usefixtures("unpainted")
def test_the_headline_is_of_learners(run, tmp_path):
    run("algo=oracle", folder="runs/oracle")
    oracle = find_runs(tmp_path / "runs", "runs")
    assert 'class="headline' not in write_report(oracle, tmp_path / "report").read_text()

    run(folder="runs/dynaq")
    page = write_report(find_runs(tmp_path / "runs", "runs"), tmp_path / "report").read_text()

    assert re.search(r"The agent scores -?\d", page)


@pytest.mark.usefixtures("unpainted")
def test_opponents_of_an_earlier_version_are_not_called_learners(run, tmp_path):
    run("algo=oracle")
    (found,) = find_runs(tmp_path, "runs")
    found.config["algo"]["_target_"] = "experiments.opponents.OracleRecommender"

    assert 'class="headline' not in write_report([found], tmp_path / "report").read_text()


@pytest.mark.usefixtures("unpainted")
def test_equal_numbers_are_called_equal(run, tmp_path):
    run()
    (found,) = find_runs(tmp_path, "runs")
    found.summary["held_out"]["score"] = found.summary["references"]["cosine"]["score"] - 1e-6

    assert "equal to the job of highest cosine" in write_report([found], tmp_path / "report").read_text()


@pytest.mark.usefixtures("unpainted")
def test_runs_that_are_left_out_are_on_the_page(run, tmp_path):
    run("algo=random")

    page = write_report(find_runs(tmp_path, "runs"), tmp_path / "report", unfinished="1 of 2 runs unfinished: there")

    assert "1 of 2 runs unfinished: there" in page.read_text()


@pytest.mark.usefixtures("unpainted")
def test_a_curve_that_is_gone_is_named(run, tmp_path):
    run("algo=random")
    (tmp_path / "run" / "metrics.csv").unlink()

    with pytest.raises(RunError, match=r"no metrics\.csv: run it again"):
        write_report(find_runs(tmp_path, "runs"), tmp_path / "report")


@pytest.mark.usefixtures("unpainted")
def test_agents_are_scored_by_every_signal(small, tmp_path):
    for reward in ("cosine", "feedback"):
        overrides = ["experiment=strategies", f"reward={reward}", "total_timesteps=10"]
        run_training(build(small(*overrides)), tmp_path / reward, overrides)
    runs = find_runs(tmp_path, "runs")

    header, rows = truths_table(group_runs(runs))

    assert header == ["score by", "planted", "cosine"]
    table = {row[0]: row[1:] for row in rows}
    summaries = {run.folder.name: run.summary for run in runs}
    for reward, summary in summaries.items():
        scores = [summary["held_out"]["score"], summary["also"]["cosine"]["held_out"]["score"]]
        assert table[f"reward={reward}"] == [f"{score:.3f}" for score in scores]
        assert summary["also"]["planted"]["held_out"] == summary["held_out"]
    assert table["highest cosine, market default"][1] == "1.000"
    of_seeds = scores_by_seed(group_runs(runs))["reward=cosine"]
    assert of_seeds["planted"] == {"0": summaries["cosine"]["held_out"]["score"]}
    assert of_seeds["cosine"] == {"0": summaries["cosine"]["also"]["cosine"]["held_out"]["score"]}
    done = run_command("report", f"runs={tmp_path}", f"output={tmp_path}/report")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"scores  {tmp_path}/report/scores.json"
    kept = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert (
        kept["tables"] == [{"name": "", "header": header, "rows": rows}]
        and kept["by_seed"]["reward=cosine"] == of_seeds
    )
    page = write_report(runs, tmp_path / "report").read_text()
    assert "Scored by every signal" in page
    assert "No language model was asked" in page


def test_the_highest_cosine_by_a_signal_is_a_mean_over_the_truths_of_all_seeds(run, tmp_path):
    also = "+evaluation.also.planted={_target_:jobrec_gym.RuleSimulator,seed:7}"
    summaries = [
        run("algo=cosine", f"seed={seed}", f"simulator.seed={seed}", f"evaluation.seed={seed}", also, folder=f"{seed}")
        for seed in (0, 7)
    ]

    groups = group_runs(find_runs(tmp_path, "runs"))
    header, (agent, cosine) = truths_table(groups)

    # Another truth in `also` has the name of the runs' own one, which is not lost; it is the same in one of the runs.
    assert header == ["score by", "planted (own)", "planted"]
    assert [cell.partition(" ")[0] for cell in agent[1:]] == cosine[1:]
    (of_seeds,) = scores_by_seed(groups).values()
    for name, parts in (
        ("planted (own)", summaries),
        ("planted", [summary["also"]["planted"] for summary in summaries]),
    ):
        scores = [part["held_out"]["score"] for part in parts]
        assert cosine[header.index(name)] == f"{np.mean(scores):.3f}"
        assert of_seeds[name] == dict(zip(("0", "7"), scores, strict=True))


def test_runs_without_a_second_signal_have_no_such_table(run, tmp_path):
    run("algo=random")

    assert truths_table(group_runs(find_runs(tmp_path, "runs"))) == ([], [])


def test_what_was_asked_of_a_model_is_on_the_page(run, tmp_path):
    run("market=recorded", "reward=llm", "simulator=recorded")
    runs = find_runs(tmp_path, "runs")

    assert runs[0].summary["feedback"] == {
        "decisions": 30,
        "calls": 0,
        "cache_hits": 30,
        "tokens": 0,
        "cost_usd": 0.0,
        "failures": 0,
    }
    page = write_report(runs, tmp_path / "report").read_text()

    assert "Feedback of a language model" in page
    assert (tmp_path / "report" / "reward_by_decision.png").is_file()
    assert (tmp_path / "report" / "score_by_decision.png").is_file()
