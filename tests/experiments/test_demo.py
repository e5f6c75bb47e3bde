"""`make demo`: three runs, a figure, a report, and a sentence that says what came out."""

import base64
import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.demo import LEARNERS, in_a_sentence
from experiments.runs import build
from experiments.runs.folders import read_run

ROOT = Path(build.__file__).parents[2]
SIZES = ["market.n_jobs=60", "market.n_applicants=40", "env.num_candidates=5", "evaluation.n_pairs=64"]


def demo(*options):
    """The command, small: 120 interactions in one process."""
    return run_command("demo", f"common={json.dumps(SIZES)}", "interactions=120", "n_jobs=1", *options)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Folder and standard output of one demo."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    done = demo(f"folder={folder}", "seed=3")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def scores(folder, name):
    return read_run(folder / name).metrics.set_index("interactions")["held_out/score"]


def test_make_demo_is_the_command():
    command = ["make", "--dry-run", "--no-print-directory", "demo"]  # within `make test`, make would name its folder
    recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert recipe.splitlines()[-1] == ".venv/bin/python -m experiments.demo"


def test_each_learner_has_a_run_folder_of_its_own_name(shown):
    folder, _ = shown

    assert {path.name for path in folder.iterdir()} == {*LEARNERS, "coldstart.json", "learning.png", "report"}
    for name in LEARNERS:
        run = read_run(folder / name)
        assert (run.summary["seed"], run.summary["interactions"]) == (3, 120)
        assert "setting=profile" in run.summary["overrides"]
        assert f"algo={name}" in run.summary["overrides"]
        assert run.file("model.zip")
    references = [read_run(folder / name).summary["references"] for name in LEARNERS]
    assert references[0] == references[1] == references[2], "all are scored on the same pairs, by the same truth"


def test_the_last_lines_are_a_table_and_a_sentence_of_the_figures_of_the_runs(shown):
    folder, out = shown
    *_, head, _, best, cosine, plain, blank, sentence = out.splitlines()

    assert re.split(r"\s{2,}", head) == ["score after", "0", "20", "50", "100", "120", "regret"]
    for name, row in zip(LEARNERS, (best, cosine, plain), strict=True):
        of_run = [f"{scores(folder, name)[point]:.2f}" for point in (0, 20, 50, 100, 120)]
        regret = read_run(folder / name).summary["online"]["cumulative_regret"]
        assert row.split() == [name, *of_run, f"{regret:.0f}"]
    assert not blank
    ends = {name: scores(folder, name).iloc[[0, -1]] for name in LEARNERS}
    assert sentence == in_a_sentence(ends)
    assert " in 120 interactions " in sentence
    said = [float(number) for number in re.findall(r"-?\d\.\d\d", sentence)]
    assert said[0] == round(ends["dynaq_plus"][0], 2)
    assert set(said) <= {round(score, 2) for of in ends.values() for score in of}


def test_the_figure_is_in_the_report(shown):
    folder, out = shown
    figure, page = folder / "learning.png", folder / "report" / "report.html"

    assert f"figure  {figure}\nreport  {page}" in out
    assert figure.stat().st_size > 10_000
    assert base64.b64encode(figure.read_bytes()).decode() in page.read_text()
    oracle = read_run(folder / "cosine").summary["references"]["oracle"]["mean_reward"]
    assert f"1 is the oracle ({oracle:.2f})" in page.read_text()

    page.unlink()
    assert run_command("report", f"runs={folder}").returncode == 0
    assert base64.b64encode(figure.read_bytes()).decode() in page.read_text()


def test_what_is_finished_is_not_trained_again(shown):
    folder, out = shown
    written = {name: (folder / name / "summary.json").stat().st_mtime_ns for name in LEARNERS}

    again = demo(f"folder={folder}", "seed=3")

    assert again.stdout == out
    assert "nothing to train" in again.stderr
    assert written == {name: (folder / name / "summary.json").stat().st_mtime_ns for name in LEARNERS}


@pytest.mark.parametrize(
    ("best", "cosine", "plain", "said"),
    [
        ((0.47, 0.694), (0.426, 0.426), (-0.04, 0.36), "rises from 0.47 to 0.69 in 1,000 interactions and ends above"),
        ((0.47, 0.30), (0.426, 0.426), (0.1, 0.36), "falls from 0.47 to 0.30 in 1,000 interactions and ends below"),
        ((0.431, 0.429), (0.426, 0.426), (0.1, 0.0), "stays at 0.43 in 1,000 interactions and ends level with"),
    ],
    ids=["it learned", "it forgot", "nothing happened"],
)
def test_the_sentence_is_true_whether_or_not_it_learned(best, cosine, plain, said):
    ends = zip(LEARNERS, (best, cosine, plain), strict=True)
    sentence = in_a_sentence({name: pd.Series(values, [0, 1_000]) for name, values in ends})

    verb = "rises" if plain[1] > plain[0] else "falls"
    assert sentence == (
        f"dynaq_plus {said} cosine, which stays at 0.43; dynaq {verb} from {plain[0]:.2f} to {plain[1]:.2f}."
    )


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("interactions=0", "error: `interactions` must be 1 or more, got 0."),
        ("interactions=-1", "error: `interactions` must be 1 or more, got -1."),
        ("interactions=null", "error: `interactions` must be 1 or more, got null."),
        ("n_jobs=two", "error: `n_jobs` must be 1 or more, got 'two'."),
        ('common=["no_such_option=1"]', "error: Could not override 'no_such_option'"),
        ('common=["evaluation.n_pairs=0"]', "error: `evaluation.n_pairs` must be 1 or more, got 0."),
    ],
)
def test_what_cannot_be_ends_in_a_line(tmp_path, option, said):
    done = demo(option, f"folder={tmp_path / 'demo'}")

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
