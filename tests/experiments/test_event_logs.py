"""The commands that take a log take the events of a site."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command
from omegaconf import OmegaConf

import experiments
from experiments.runs.logs import log_on
from jobrec_gym import Interactions, load_interactions, load_market

WORDS = {"shown": "impression", "clicked": "click", "applied": "apply"}


@pytest.fixture
def site(tmp_path):
    """A folder with a saved market and ``events.csv``: every person is shown all jobs, and clicks or applies."""
    market = load_market("default", n_jobs=8, n_applicants=12).save(tmp_path / "market")
    rows = ["at,user,item,what"]
    for number, person in enumerate(market.applicants.keys):
        rows += [f"{100 * number},{person},{job},shown" for job in market.jobs.keys]
        liked = market.jobs.keys[number % 3 :: 3]
        rows += [f"{100 * number + 5},{person},{job},{'applied' if number % 2 else 'clicked'}" for job in liked]
    (tmp_path / "events.csv").write_text("\n".join(rows))
    return tmp_path


def test_learn_replay_and_off_policy_read_events(site):
    columns = {"applicant": "user", "job": "item", "event": "what", "time": "at"}
    market = load_market(site / "market")
    log = load_interactions(site / "events.csv", market, columns, decisions=WORDS, events={"window": 50})
    assert (len(log), log.sizes.tolist()) == (96, [8] * 96)
    typed = [
        "log=events.csv",
        "columns={applicant:user,job:item,event:what,time:at}",
        "decisions={shown:impression,clicked:click,applied:apply}",
        "events={window:50}",
    ]

    learned = run_command("learn", *typed, "source=market", "folder=learned", cwd=site)
    assert learned.returncode == 0, learned.stderr
    assert learned.stderr.count("128 events make 96 recommendations") == 1
    kept = Interactions.load(site / "learned" / "log", market)
    assert kept.reward.tolist() == log.reward.tolist()

    shutil.copytree(site / "learned", site / "again")
    judged = run_command("off_policy", *typed, "run=[learned,again]", "methods=[dm]", "folder=judged", cwd=site)
    assert judged.returncode == 0, judged.stderr
    assert judged.stderr.count("128 events make 96 recommendations") == 1, "runs on one market share the log"
    assert f"mean reward is {log.reward.mean():.4f}, over 96 answers" in judged.stdout

    small = ["n_candidates=4", "n_sets=2", "n_folds=2", "points=[0,5]", "learners=[linear_blocks]", "rankings=[cosine]"]
    compared = run_command("replay", *typed, *small, "source=market", "folder=compared", "reps=20", cwd=site)
    assert compared.returncode == 0, compared.stderr
    assert json.loads((site / "compared" / "replay.json").read_text())["options"]["events"] == {"window": 50}


@pytest.mark.parametrize("command", ["learn", "replay"])
def test_a_long_complaint_about_a_log_is_not_cut_before_its_way_out(site, command):
    strangers = [f"7,{'somebody-who-left-' * 3}{n},{'an-old-job-' * 5}{n},shown" for n in range(4)]
    with (site / "events.csv").open("a") as file:
        file.write("\n".join(["", *strangers]))
    typed = ["log=events.csv", "source=market", "events=true", "columns={applicant:user,job:item,event:what,time:at}"]
    told = ["decisions={shown:impression,clicked:click,applied:apply}", f"folder={command}"]

    done = run_command(command, *typed, *told, cwd=site)

    assert done.returncode == 1
    assert "4 of 132 events are impossible" in done.stderr
    assert done.stderr.endswith("`on_bad='skip'` leaves them out.\n") and done.stderr.count("\n") == 1


def test_a_misspelt_rule_is_told_in_one_line(site):
    done = run_command("learn", "log=events.csv", "source=market", "events={windw:50}", cwd=site)

    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: `events` may name 'window', 'without_impression', 'sets', got 'windw'. Did you mean 'window'?"
    )


@pytest.mark.parametrize("command", ["learn", "replay", "off_policy"])
def test_a_log_in_another_notation_is_read_as_the_options_say(site, command):
    market = load_market(site / "market")
    (one, *_), (first, second, *_) = market.applicants.keys, market.jobs.keys
    header = "Prüfling;job;reward;time;shown;propensity"
    row = f"{one};{first};0,5;24.12.2026 18:00;{first},{second};0,25"
    (site / "log.txt").write_bytes(f"{header}\r\n{row}\r\n".encode("cp1252"))
    options = OmegaConf.to_container(OmegaConf.load(Path(experiments.__file__).parents[1] / "conf" / f"{command}.yaml"))
    options |= {"log": f"csv:{site / 'log.txt'}", "columns": {"applicant": "Prüfling"}, "encoding": "cp1252"}
    options |= {"delimiter": ";", "separator": ",", "decimal": ",", "date_format": "%d.%m.%Y %H:%M"}
    log = log_on(market, options)

    assert (log.reward.tolist(), log.propensity.tolist(), log.shown(0).tolist()) == ([0.5], [0.25], [0, 1])
    assert log.time.tolist() == [1_798_135_200]
