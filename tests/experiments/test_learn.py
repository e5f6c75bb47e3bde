"""The command that tells an agent a log: what it leaves is what the library would have made."""

import json
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command
from hydra import initialize_config_dir

from dynaq_algo import DynaQ, LinearBandit
from experiments import learn
from experiments.learn import learn_from_log
from experiments.runs.folders import LOG, RunError, read_run
from experiments.runs.saved import load_run
from jobrec_gym import (
    FeedbackReward,
    Interactions,
    LoggedSimulator,
    ObservationForm,
    RuleSimulator,
    load_interactions,
    load_market,
    record_interactions,
)
from jobrec_gym import interactions as log_module

ROOT = Path(learn.__file__).parents[1]
OPTIONS = {
    "columns": None,
    "ids": "key",
    "decisions": None,
    "rewards": None,
    "events": None,
    "separator": ";",
    **dict.fromkeys(("delimiter", "encoding", "decimal", "date_format")),
    "on_bad": "raise",
    "on_unknown_shown": "bad",
    "split": "all",
    "run": None,
    "agent": "linear_blocks",
    "pair_features": [],
    "seed": 0,
    "trust": False,
}


ROUNDING = 1e-12  # a linear bandit learns from batches


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A saved market and two logs of it."""
    folder = tmp_path_factory.mktemp("shop")
    market = load_market("default", n_jobs=40, n_applicants=30).save(folder / "market")
    shown = {"split": "all", "job_split": "all", "num_candidates": 4, "max_episode_steps": 2}
    env = FeedbackReward(gym.make("JobRec-v0", market=market, **shown), RuleSimulator(seed=0, noise=0.5))
    for seed, name in enumerate(("first", "second")):
        record_interactions(env, n=50, seed=seed).write_csv(folder / f"{name}.csv")
    return folder


@pytest.fixture
def told(shop, tmp_path):
    """Learns as the command does: ``told(log="second", agent="dynaq_plus")`` returns the folder."""

    def learned(folder="learned", log="first", **options):
        given = {"log": str(shop / f"{log}.csv"), "source": str(shop / "market"), "folder": str(tmp_path / folder)}
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            learn_from_log({**OPTIONS, **given, **options})
        return tmp_path / folder

    return learned


def contents(folder):
    """All files of a folder and below, with what they hold."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def values_of(agent, market):
    form = ObservationForm("ids", pair_features=tuple(getattr(agent, "reads", {}).get("pairs") or ()))
    return agent.q_values(form(market, np.arange(30), np.broadcast_to(np.arange(40), (30, 40))))


@pytest.mark.parametrize(
    ("options", "rounding"),
    [
        ({}, ROUNDING),
        ({"agent": "dynaq_plus", "pair_features": ["hard_coverage"]}, 0),
        ({"pair_features": "all"}, ROUNDING),
    ],
    ids=str,
)
def test_the_agent_is_the_one_that_was_told_the_answers_one_by_one(shop, told, options, rounding):
    run = read_run(told(**options))
    setup, agent = load_run(run, {})
    by_hand = setup.algorithm.make(setup.env)
    untaught = values_of(by_hand, setup.market)
    log = load_interactions(shop / "first.csv", setup.market)
    for answer in log.answers(ObservationForm.of(setup.env)):
        by_hand.observe(*answer)

    np.testing.assert_allclose(values_of(agent, setup.market), values_of(by_hand, setup.market), rtol=0, atol=rounding)
    assert not np.allclose(untaught, values_of(agent, setup.market))
    algo = setup.config["algo"]
    assert algo.get("noise", algo.get("world_model_kwargs", {}).get("noise")) == 0.5
    assert (run.summary["interactions"], run.summary["n_people"]) == (50, len(log.people))


def test_the_agent_of_a_run_goes_on_with_another_log(shop, told):
    first = told()
    second = told("second", log="second", run=str(first))
    before, (setup, agent) = read_run(first), load_run(read_run(second), {})

    _, by_hand = load_run(before, {})
    for answer in load_interactions(shop / "second.csv", setup.market).answers(ObservationForm.of(setup.env)):
        by_hand.observe(*answer)
    np.testing.assert_allclose(values_of(agent, setup.market), values_of(by_hand, setup.market), rtol=0, atol=ROUNDING)
    other = {**before.config["simulator"], "interactions": str(second / "log")}
    reward = {**before.config["reward"], "simulator": other}
    assert read_run(second).config == {**before.config, "simulator": other, "reward": reward}
    with pytest.raises(RunError, match="`folder` is that of the run"):
        told("second", run=str(second))


@pytest.mark.parametrize("relearned", [False, True])
def test_a_run_has_its_own_log_wherever_its_folder_is(shop, told, tmp_path, monkeypatch, relearned):
    folder = told()
    if relearned:
        folder = told("second", log="second", run=str(folder))
        shutil.rmtree(tmp_path / "learned")
    (tmp_path / "place").mkdir()
    moved = folder.rename(tmp_path / "place" / "moved")
    monkeypatch.chdir(moved.parent)
    setup, _ = load_run(read_run(Path("moved")), {})

    assert yaml.safe_load((moved / "config.yaml").read_text())["simulator"]["interactions"] == "log"
    answers = load_interactions(shop / ("second.csv" if relearned else "first.csv"), setup.market)
    for simulator in (setup.config["simulator"], setup.config["reward"]["simulator"]):
        bound = LoggedSimulator(simulator["interactions"]).bind(setup.market)
        np.testing.assert_array_equal(bound.interactions.reward, answers.reward)


def test_a_learner_that_is_defined_by_its_pretraining_is_pretrained(shop, told, monkeypatch):
    pairs = []

    def pretrain(agent, dataset, epochs, progress_bar):
        pairs.append(len(dataset["reward"]))
        return {"loss": 0.25}

    monkeypatch.setattr(DynaQ, "pretrain", pretrain)
    folder = told(agent="dynaq_tuned")

    record = json.loads((folder / "pretrain.json").read_text())
    assert pairs == [30 * 40] and record["n_pairs"] == 30 * 40 and record["loss"] == 0.25
    assert not (told(agent="linear_blocks") / "pretrain.json").exists()


def test_only_rows_of_the_split_are_learned_from_and_kept(shop, told):
    folder = told(split="train")
    market = load_market(str(shop / "market"))
    log = load_interactions(shop / "first.csv", market)

    kept = Interactions.load(folder / "log", market)
    assert len(kept) == read_run(folder).summary["interactions"] == int((~log.held_out).sum()) < len(log)


def test_a_log_need_not_say_what_else_was_shown(shop, told, tmp_path):
    market = load_market(str(shop / "market"))
    log = load_interactions(shop / "first.csv", market)
    Interactions.of(market, log.applicant_ids, log.job_ids, log.reward, time=log.time).write_csv(tmp_path / "bare.csv")

    _, bare = load_run(read_run(told("bare", log=str(tmp_path / "bare.csv").removesuffix(".csv"))), {})
    _, whole = load_run(read_run(told()), {})
    np.testing.assert_allclose(values_of(bare, market), values_of(whole, market), atol=1e-6)


@pytest.mark.parametrize("agent", ["linear_blocks", "dynaq_plus"])
def test_a_log_of_applicants_who_move_is_learned_from_with_a_warning(shop, told, tmp_path, agent):
    market = load_market(shop / "market")
    log = load_interactions(shop / "first.csv", market)
    moving = Interactions.of(market, log.applicant_ids, log.job_ids, log.reward, time=log.time, moving=True)
    moving.write_csv(tmp_path / "moving.csv")
    with pytest.warns(UserWarning, match=r"the log is of applicants who change .* \(`moving`\)") as said:
        folder = told(log=tmp_path / "moving", agent=agent)
    assert Interactions.load(folder / LOG, market).moving
    assert {one.filename for one in said} == {log_module.__file__}


def test_a_log_without_any_answer_is_refused_without_naming_another_split(shop, tmp_path):
    market = load_market(str(shop / "market"))
    log = load_interactions(shop / "first.csv", market)
    unanswered = Interactions.of(market, log.applicant_ids, log.job_ids, np.full(len(log), np.nan), time=log.time)
    unanswered.save(tmp_path / "unanswered")

    given = {"log": str(tmp_path / "unanswered"), "source": str(shop / "market"), "folder": str(tmp_path / "learned")}
    with pytest.raises(RunError, match="no recommendation of the log has an answer") as error:
        learn_from_log({**OPTIONS, **given})
    assert "split" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent": "cosine"}, r"cannot learn from a log: it has no `observe` of its own. Take agent=linear_blocks"),
        (
            {"agent": "dynaq"},
            "DynaQ has a gamma of 0.9, and a log does not say what followed an answer: take an agent with",
        ),
        ({"agent": "linear_block"}, r"linear_blocks"),
        ({"log": None}, "`log` must be given"),
        ({"log": "nowhere"}, "does not exist"),
        ({"run": "nowhere"}, "there is no folder nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_learned_leaves_an_earlier_run_as_it_was(shop, told, options, message):
    folder = told()
    before = contents(folder)
    given = {**options, "log": options.get("log", "second")}
    if given["log"] is None:
        with pytest.raises(RunError, match=message):
            learn_from_log({**OPTIONS, "log": None, "source": "default", "folder": str(folder)})
    else:
        with pytest.raises((RunError, ValueError), match=message):
            told(**given)
    assert contents(folder) == before


def test_a_stop_while_it_learns_leaves_an_earlier_run_as_it_was(told, monkeypatch):
    folder = told()
    before = contents(folder)

    def stop(agent, *answer):
        raise KeyboardInterrupt

    monkeypatch.setattr(LinearBandit, "observe", stop)
    with pytest.raises(KeyboardInterrupt):
        told(log="second")
    assert contents(folder) == before


def test_the_command_says_what_it_did_and_the_report_that_there_are_no_scores(shop, tmp_path):
    words = [f"log={shop / 'first.csv'}", f"source={shop / 'market'}", f"folder={tmp_path / 'learned'}"]
    done = run_command("learn", *words)
    assert done.returncode == 0, done.stderr
    n_people = json.loads((tmp_path / "learned" / "summary.json").read_text())["n_people"]
    assert done.stdout.startswith(f"LinearBandit has learned from 50 answers of {n_people} people\n")

    refused = run_command("report", f"runs={tmp_path}")
    assert refused.returncode == 1
    assert "has learned from a log, so it has no scores" in refused.stderr
