"""The command that values saved agents on a log."""

import dataclasses
import json

import gymnasium as gym
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.runs.folders import read_run
from experiments.runs.saved import load_run
from jobrec_gym import ObservationForm, load_interactions, record_interactions
from jobrec_gym.off_policy import estimate


def test_a_saved_agent_is_valued_as_the_library_does(run, tmp_path):
    run("algo=linear_blocks", folder="run")
    setup, agent = load_run(read_run(tmp_path / "run"), {})
    log = record_interactions(setup.single_env(), n=300)
    log.write_csv(tmp_path / "log.csv")

    done = run_command(
        "off_policy",
        f"log={tmp_path / 'log.csv'}",
        f"run={tmp_path / 'run'}",
        f"folder={tmp_path / 'out'}",
        "methods=[snips,dr]",
    )

    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "out" / "off_policy.json").read_text())["tables"][0]
    assert [row[:2] for row in table["rows"]] == [
        *([str(tmp_path / "run"), method] for method in ("snips", "dr")),
        *(["uniform", method] for method in ("snips", "dr")),
    ]
    expected = estimate(agent, log, "snips", form=ObservationForm.of(setup.env))
    assert table["rows"][0][2] == f"{expected.value:.4f}"
    assert table["rows"][2][2] == f"{log.reward.mean():.4f}", "the log was written by a uniform choice"
    compared = estimate(agent, log, "snips", form=ObservationForm.of(setup.env), baseline="uniform")
    columns = dict(zip(table["header"], table["rows"][0], strict=True))
    assert columns["less uniform"] == str(compared.difference) and table["rows"][2][4] == "-"
    assert columns["effective people"] == f"{compared.effective_people:.1f} of {compared.n_people}"
    assert columns["mean weight"] == f"{compared.mean_weight:.2f}"
    assert f"The log's own mean reward is {log.reward.mean():.4f}, over 300 answers." in done.stdout


def test_the_table_says_that_an_agent_never_agrees_with_the_log(run, tmp_path):
    run("algo=linear_blocks", folder="run")
    setup, agent = load_run(read_run(tmp_path / "run"), {})
    log = record_interactions(setup.single_env(), n=60)
    answers = enumerate(log.answers(ObservationForm.of(setup.env)))
    others = [row for row, (obs, action, _) in answers if agent.predict(obs, deterministic=True)[0] != action]
    log.take(others).save(tmp_path / "log")

    done = run_command("off_policy", "log=log", "run=run", "folder=out", "methods=[snips,ips]", cwd=tmp_path)
    rows = json.loads((tmp_path / "out" / "off_policy.json").read_text())["tables"][0]["rows"]

    assert done.returncode == 0, done.stderr
    never = "no: never agrees with the log"
    assert [[*row[2:4], row[5], row[-1]] for row in rows[:2]] == [
        ["nan", "[nan, nan]", "0", never],
        ["0.0000", "[0.0000, 0.0000]", "0", never],
    ]
    assert "nan" not in rows[2][2] and rows[2][-1].startswith("no: effective sample size below 200")
    assert "\nrun (snips, ips): not reliable, never agrees with the log (the answers say" in done.stdout


def test_the_table_says_that_propensities_are_not_those_of_a_choice_among_the_shown_jobs(run, tmp_path):
    run("algo=linear_blocks", folder="run")
    setup, _ = load_run(read_run(tmp_path / "run"), {})
    log = record_interactions(setup.single_env(), n=400)
    dataclasses.replace(log, propensity=log.propensity / 6).save(tmp_path / "log")

    done = run_command("off_policy", "log=log", "run=run", "folder=out", "methods=[dm,ips]", cwd=tmp_path)
    table = json.loads((tmp_path / "out" / "off_policy.json").read_text())["tables"][0]

    assert done.returncode == 0, done.stderr
    model, weighted = table["rows"][2:]
    assert model[-5:] == ["-", "-", "-", "-", "no: relies on its model alone"]
    assert weighted[-3] == "6.00" and weighted[-1].startswith("no: mean weight 6.00, not 1")
    assert "uniform (ips): not reliable, mean weight 6.00, not 1 (" in done.stdout
    assert "run (dm), uniform (dm): not reliable, relies on its model alone (" in done.stdout


def test_each_market_has_its_own_uniform_choice_and_no_run_is_taken_for_one(run, tmp_path):
    run("algo=linear_blocks", "env.num_candidates=5", folder="uniform")
    run("algo=linear_blocks", "market.n_jobs=61", folder="larger")
    setups = [load_run(read_run(tmp_path / name), {})[0] for name in ("uniform", "larger")]
    log = record_interactions(setups[0].single_env(), n=60)
    log.write_csv(tmp_path / "log.csv")
    logs = [load_interactions(f"csv:{tmp_path / 'log.csv'}", setup.market) for setup in setups]

    options = ["log=log.csv", "folder=out", "methods=[dm]"]
    done = run_command("off_policy", *options, "run=[uniform,larger]", cwd=tmp_path)
    rows = json.loads((tmp_path / "out" / "off_policy.json").read_text())["tables"][0]["rows"]

    names = [f"uniform on the market of {name}" for name in ("uniform", "larger")]
    assert [row[0] for row in rows] == ["uniform", "larger", *names], done.stderr
    for row, of in zip(rows[2:], logs, strict=True):
        assert row[2] == f"{estimate(None, of, 'dm').value:.4f}"
        assert f"The log's own mean reward on the market of {row[0].split()[-1]} is" in done.stdout
    alone = run_command("off_policy", *options, "run=uniform", cwd=tmp_path)
    assert [line.split()[:2] for line in alone.stdout.splitlines()[2:4]] == [["uniform", "dm"]] * 2
    assert f"The log's own mean reward is {log.reward.mean():.4f}, over 60 answers." in alone.stdout


def test_what_cannot_be_ends_in_one_line(run, tmp_path):
    done = run_command("off_policy")
    assert (done.returncode, done.stderr.strip()[:27]) == (1, "error: `log` must be given:")
    run("algo=random", folder="run")
    (tmp_path / "log.csv").write_text("applicant,job,reward\nA0000000,J9999999,1\n")
    done = run_command("off_policy", f"log={tmp_path / 'log.csv'}", f"run={tmp_path / 'run'}")
    assert done.returncode == 1
    assert "1 of 1 rows are impossible: unknown job: 1, row 1 ('J9999999')" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    career = gym.make("JobRecCareer-v0", market={"source": "default", "n_jobs": 60, "n_applicants": 40})
    record_interactions(career, n=30).save(tmp_path / "career")
    done = run_command("off_policy", f"log={tmp_path / 'career'}", f"run={tmp_path / 'run'}")
    assert done.returncode == 1
    assert (
        "error: the log is of applicants who change with their answers" in done.stderr
        and "one-step value says nothing" in done.stderr
    )
    assert len(done.stderr.strip().splitlines()) == 1
