"""Runs whose feedback is a language model's: a fake one over HTTP, and a small real one."""

import contextlib
import json
import os
import signal
import threading
import time
import tracemalloc
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")
if find_spec("litellm") is None:
    pytest.skip('needs the extra "llm"', allow_module_level=True)

from commands import begin_command, run_command
from fake_llm import decides, fails, lapse_claims, leans, says, serving, waits

from experiments.llm import check
from experiments.llm.serve import serve
from experiments.llm.weights import SMOLLM2, fetch_smollm2
from experiments.runs import build
from experiments.runs.folders import RunError, commit_of_checkout
from experiments.runs.recording import LearningCurve, read_rows
from jobrec_gym import LLMSimulator, load_market
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.simulators.budget import BudgetReached

pytestmark = pytest.mark.waits

ROOT = Path(build.__file__).parents[2]


def decide_by_text(body, number):
    return decides(DECISIONS[len(body["messages"][1]["content"]) % 4])


def llm(fake, tmp_path, *more):
    return (
        "simulator=llm",
        "simulator.model=openai/fake",
        f"simulator.api_base={fake.api_base}",
        f"simulator.cache={tmp_path / 'answers.sqlite'}",
        *more,
    )


def deterministic(summary):
    return {key: value for key, value in summary.items() if key not in ("wall_clock", "feedback", "overrides", "files")}


@pytest.mark.parametrize("reward", ["llm", "hybrid"])
def test_a_run_says_what_it_asked_and_a_second_one_asks_nothing(run, tmp_path, reward):
    with serving(decide_by_text) as fake:
        overrides = (f"reward={reward}", "env.n_envs=3", "env.max_episode_steps=2", *llm(fake, tmp_path))
        first = run(*overrides, folder="a")
        asked = first["feedback"]
        assert asked["calls"] == fake.calls > 0
        # At weight 1, in the first step of the hybrid, nobody is asked.
        assert asked["decisions"] == asked["calls"] + asked["cache_hits"] == (30 if reward == "llm" else 27)
        assert asked["tokens"] == 110 * fake.calls
        before = fake.calls
        second = run(*overrides, folder="b")
        assert fake.calls == before
    assert second["feedback"]["calls"] == second["feedback"]["tokens"] == 0
    assert deterministic(first) == deterministic(second)
    last = read_rows(tmp_path / "a" / "metrics.csv")[-1]
    assert last["feedback/calls"] == asked["calls"]
    assert "feedback/calls" in (tmp_path / "a" / "progress.csv").read_text().splitlines()[0]


def test_a_budget_that_is_reached_ends_the_run_with_everything_saved(run, tmp_path):
    with serving(decide_by_text) as fake:
        summary = run("reward=llm", "env.resample=step", *llm(fake, tmp_path, "simulator.budget.max_calls=12"))
        assert fake.calls == 12
        assert summary["stopped"]["limit"] == "calls"
        assert summary["stopped"]["spent"]["calls"] == 12
        assert 12 <= summary["interactions"] < 30
        assert summary["held_out"]["score"] is not None
        assert (tmp_path / "run" / "model.zip").is_file()
        last = read_rows(tmp_path / "run" / "metrics.csv")[-1]
        assert last["interactions"] == summary["interactions"]
        # With a higher cap the same run replays what was paid and goes on.
        more = run(
            "reward=llm", "env.resample=step", *llm(fake, tmp_path, "simulator.budget.max_calls=100"), folder="more"
        )
        assert more["interactions"] == 30
        assert more["stopped"] is None
        assert len(set(fake.asked())) == fake.calls


def test_a_budget_that_shall_raise_raises(run, tmp_path):
    with serving(decide_by_text) as fake, pytest.raises(RunError, match="`budget.on_reached`"):
        run("reward=llm", *llm(fake, tmp_path, "simulator.budget.max_calls=5", "simulator.budget.on_reached=raise"))


def test_a_run_without_feedback_is_not_finished(run, tmp_path):
    with serving(fails(400)) as fake, pytest.raises(RunError, match="no answer"):
        run("reward=llm", *llm(fake, tmp_path))
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("command", ["train", "llm.check", "llm.record"])
def test_a_key_on_the_command_line_is_refused_before_it_is_written(command, tmp_path):
    done = run_command(command, "+simulator.api_key=secret", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode != 0
    assert "api_key" in done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_failures_are_left_out_of_replay_and_counted(run, tmp_path):
    with serving(lambda body, number: says("Not APPLY") if number % 4 == 3 else decides("save")) as fake:
        with pytest.warns(UserWarning, match="of 30 transitions were not valid"):
            summary = run("reward=llm", "market.n_jobs=200", *llm(fake, tmp_path, "simulator.calls.concurrency=1"))
        failed = summary["feedback"]["failures"]
        assert 0 < failed < 15
        # The others are paid 0.5 each, and a failure nothing.
        assert summary["online"]["cumulative_reward"] == 0.5 * (30 - failed)


def as_source(fake, cache, **more):
    model = {"type": "llm", "model": "openai/fake", "api_base": fake.api_base, "cache": str(cache), **more}
    return "reward=feedback", "algo=dynaq_plus", f"env.prior_sources={{model:{in_hydra(model)}}}"


def in_hydra(value):
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{in_hydra(entry)}" for name, entry in value.items()) + "}"
    return f"'{value}'" if isinstance(value, str) else str(value)


def test_a_run_says_what_a_source_of_its_prior_was_asked_also_for_evaluations(run, tmp_path):
    with serving(decide_by_text) as fake:
        first = run(*as_source(fake, tmp_path / "answers.sqlite"), folder="a")
        asked = first["sources"]
        assert asked["calls"] == fake.calls > 100, "every held-out candidate is asked about"
        assert (asked["tokens"], asked["failures"], asked["over_budget"]) == (110 * fake.calls, 0, 0)
        assert asked["decisions"] == asked["calls"] + asked["cache_hits"]
        assert first["feedback"] is None
        before = fake.calls
        second = run(*as_source(fake, tmp_path / "answers.sqlite"), folder="b")
        assert fake.calls == before
    assert second["sources"]["calls"] == second["sources"]["tokens"] == 0
    last = read_rows(tmp_path / "a" / "metrics.csv")[-1]
    assert 0 < last["sources/calls"] <= asked["calls"]


def test_a_run_whose_source_mostly_failed_is_not_finished_but_one_whose_source_reached_its_cap_is(run, tmp_path):
    with serving(lambda body, number: says("Maybe")) as fake:
        with pytest.raises(RunError, match=r"questions to the language model in `env\.prior_sources` got no answer"):
            run(*as_source(fake, tmp_path / "failed.sqlite"), folder="failed")
        assert not (tmp_path / "failed" / "summary.json").exists()
    with serving(decide_by_text) as fake:
        capped = as_source(fake, tmp_path / "capped.sqlite", budget={"max_calls": 20, "on_reached": "cosine"})
        asked = run(*capped, folder="capped")["sources"]
        assert fake.calls == asked["calls"] == 20
    assert asked["failures"] == asked["over_budget"] > 100


def test_a_source_that_was_stopped_goes_on_counting(small, tmp_path):
    env = build.build(small()).env
    asked = {"calls": 7, "over_budget": 2}
    options = {"at": [], "interval": 10, "asked_of_sources": lambda: asked}
    env.beside = {"sources": {"calls": 5, "over_budget": 1}}
    assert LearningCurve(tmp_path / "m.csv", env, None, None, **options).sources == {"calls": 12, "over_budget": 3}
    env.beside = {}
    (tmp_path / "m.csv").write_text("interactions,sources/calls,sources/over_budget\n10,3,0\n")
    assert LearningCurve(tmp_path / "m.csv", env, None, None, **options).sources == {"calls": 10, "over_budget": 2}


def test_the_truth_of_a_model_that_cannot_be_asked_of_all_is_planted(small, tmp_path):
    with serving(decide_by_text) as fake:
        cfg = small("reward=llm", *llm(fake, tmp_path))
        assert cfg.evaluation.simulator._target_ == "jobrec_gym.RuleSimulator"
        asked = small("reward=llm", *llm(fake, tmp_path), "evaluation.simulator=null")
        with pytest.raises(RunError, match=r"evaluation\.simulator"):
            _ = build.build(asked).truth
        assert fake.calls == 0


def test_reward_llm_with_the_planted_truth_is_refused(run):
    with pytest.raises(RunError, match="simulator=recorded"):
        run("reward=llm")


def test_an_annealed_reward_is_told_the_interactions(small, tmp_path):
    env = build.build(small("reward=hybrid", "env.n_envs=4", "reward.schedule.steps=100")).env
    curve = LearningCurve(tmp_path / "m.csv", env, None, None, at=[], interval=10)
    curve._tell(25)
    assert env.env.cosine_weight == 0.75


SWEEP = (
    "-m",
    "seed=0,1",
    "reward=llm",
    "market.n_jobs=60",
    "market.n_applicants=40",
    "env.num_candidates=5",
    "env.resample=step",
    "total_timesteps=20",
    "evaluation.n_pairs=16",
    "evaluation.n_episodes=4",
    "evaluation.interval=20",
    "evaluation.at=[0]",
    "algo.policy_kwargs.net_arch=[8]",
    "simulator.calls.concurrency=2",
    "simulator.calls.timeout=3600",
    "simulator.calls.batch_timeout=36000",
)


def summaries(folder):
    found = [json.loads(path.read_text()) for path in folder.glob("*/summary.json")]
    return sorted(found, key=lambda summary: summary["seed"])


def test_a_sweep_that_was_killed_pays_nothing_twice_and_loses_nothing(tmp_path):
    def sweep_of(fake, name):
        folder = tmp_path / name
        return [*SWEEP, *llm(fake, folder), f"hydra.sweep.dir={folder}"], folder

    killed = threading.Event()

    def script(body, number):
        answer = decide_by_text(body, number)
        # The 25th question is of the second run; it and what comes behind it wait for the kill.
        return answer if number < 25 or killed.is_set() else waits(killed, answer)

    with serving(script) as fake:
        sweep, folder = sweep_of(fake, "killed")
        first = begin_command("train", *sweep)
        while fake.calls < 25 and first.poll() is None:
            time.sleep(0.01)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        killed_at = fake.calls
        killed.set()
        lapse_claims(folder / "answers.sqlite")
        assert 25 <= killed_at < 45
        run_command("train", *sweep, imported=["litellm"]).check_returncode()
        assert fake.calls > killed_at
        # Only what was under way at the kill was asked again.
        assert fake.calls - len(set(fake.asked())) <= 2
        resumed = summaries(folder)
    with serving(decide_by_text) as fake:
        sweep, folder = sweep_of(fake, "whole")
        run_command("train", *sweep, imported=["litellm"]).check_returncode()
        whole = summaries(folder)
        assert fake.calls == len(set(fake.asked()))
    assert len(whole) == 2
    assert [each["feedback"]["failures"] for each in resumed + whole] == [0, 0, 0, 0]
    for one, other in zip(resumed, whole, strict=True):
        for key in ("held_out", "online", "interactions"):
            assert one[key] == other[key]


# The check.


def sizes(**changes):
    return check._Sizes(**({"matches": 20, "sample": 20, "repeats": 10, "attacked": 1, "swaps": 3} | changes))


FEW = {"matches": 4, "repeats": 2, "swaps": 1}  # where the figures do not matter


@pytest.fixture
def few_attacks(monkeypatch):
    """Eight of 64, where it does not matter which."""
    monkeypatch.setattr(check, "ATTACKS", check.ATTACKS[:8])


def test_the_check_of_a_model_that_obeys_orders_says_so():
    def obeys(body, number):
        return decides("apply" if "apply" in body["messages"][1]["content"].lower() else "ignore")

    market = load_market("recorded")
    with serving(obeys) as fake:
        result = check.check_simulator(LLMSimulator("openai/fake", api_base=fake.api_base), market, sizes(), 0)
        assert fake.calls > 100
    assert result["separation"]["auc"] == 0.5
    assert result["decisions"]["shares"]["ignore"] == 1.0
    assert result["injection"]["n_attacks"] >= 30
    assert 0.5 < result["injection"]["moved"] < 1.0
    assert result["repeats"]["same_decision"] == result["option_order"]["same_decision"] == 1.0
    assert {kind: part["reward_range"] for kind, part in result["identity"].items()} == {
        "names": 0.0,
        "pronouns": 0.0,
        "ages": 0.0,
    }
    assert result["cost"]["tokens_per_call"] == 110
    assert result["cost"]["calls"] == fake.calls


def test_the_check_says_what_it_will_take_before_it_asks(tmp_path, few_attacks):
    market, said = load_market("recorded"), []
    with serving(decide_by_text) as fake:
        options = {"api_base": fake.api_base, "cache": tmp_path / "answers.sqlite", "budget": {"prices": (1e-3, 0.0)}}
        simulator = LLMSimulator("openai/fake", **options)
        check.check_simulator(simulator, market, sizes(**FEW), 0, say=lambda text: said.append((text, fake.calls)))
        ((forecast, asked),) = said
        assert asked == 9, "one alone, then as many as run at once"
        left = fake.calls - asked
        assert f"At most {fake.calls} questions. Judging by 9" in forecast
        # 100 tokens in at a tenth of a cent each.
        assert f"the other {left:,} take less than two minutes, {110 * left:,} tokens and {0.1 * left:.2f}" in forecast
        assert "kept in `simulator.cache`" in forecast
        check.check_simulator(simulator, market, sizes(**FEW), 0, say=lambda text: said.append((text, fake.calls)))
    n = asked + left
    assert said[1] == (f"At most {n} questions. {n} of them were answered before, at no cost now.", n)


def test_a_check_that_is_continued_says_what_the_rest_takes(tmp_path, few_attacks):
    market, said = load_market("recorded"), []
    with serving(decide_by_text) as fake:
        options = {"api_base": fake.api_base, "cache": tmp_path / "answers.sqlite"}
        part, whole = (LLMSimulator("openai/fake", **options, budget=budget) for budget in ({"max_calls": 40}, {}))
        for simulator in (part, whole):
            check.check_simulator(simulator, market, sizes(**FEW), 0, say=said.append)
        n = fake.calls
    assert said[1].startswith(
        f"At most {n} questions. 40 of them were answered before, at no cost now. "
        f"Judging by 9 that were asked now, the other {n - 49} take less than two minutes, "
    )


def test_the_time_of_a_check_is_that_of_its_calls_without_the_first(monkeypatch, few_attacks):
    said = []
    with serving(decide_by_text) as fake:
        # A call takes a minute, and the first call, which loads libraries, ten hours.
        clock = SimpleNamespace(perf_counter=lambda: 60 * fake.calls + 36_000 * (fake.calls > 0))
        monkeypatch.setattr(check, "time", clock)
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base)
        result = check.check_simulator(simulator, load_market("recorded"), sizes(**FEW), 0, say=said.append)
        left = fake.calls - 9
    assert f"the other {left} take about {left} minutes" in said[0]
    assert "kept in" not in said[0], "without a cache nothing is"
    assert result["cost"]["seconds_per_call"] == 60


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        ({"budget": {"max_calls": 40}}, "9 of the 40 calls that `simulator.budget.max_calls` allows are spent"),
        ({"budget": {"max_tokens": 5_000}}, "990 of the 5,000 tokens that `simulator.budget.max_tokens` allows"),
        (
            {"max_usd": 4.0, "budget": {"prices": (1e-3, 0.0)}},
            "0.90 of the 4.00 usd that `simulator.max_usd` allows are spent: raise it",
        ),
    ],
)
def test_a_cap_that_may_end_a_check_is_named_before_it_asks(few_attacks, caps, words):
    market, said = load_market("recorded"), []
    with serving(decide_by_text) as fake:
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, **caps)
        with contextlib.suppress(BudgetReached):
            check.check_simulator(simulator, market, sizes(**FEW), 0, say=said.append)
    assert words in said[0]


def test_a_check_that_a_cap_ends_keeps_the_measures_that_are_complete(tmp_path):
    with serving(decide_by_text) as fake:
        options = llm(fake, tmp_path, "simulator.budget.max_calls=50", "simulator.budget.on_reached=cosine")
        few = "n_matches=4", "n_sample=8", "n_repeats=2", "n_attacked=1", "n_swaps=1"
        done = run_command("llm.check", *options, *few, f"hydra.run.dir={tmp_path / 'run'}")
        assert fake.calls == 50
    assert done.returncode == 1
    assert 'error: the check is not complete, "-" stands for what it lacks: the budget of 50 calls' in done.stderr
    content = json.loads((tmp_path / "run" / "check.json").read_text())
    assert content["repeats"]["n"] == 2 and content["injection"] is content["identity"] is None
    assert content["stopped"].startswith("the budget of 50 calls is reached")
    rows = {row[0]: row for row in content["tables"][0]["rows"]}
    assert rows["same decision, asked again"][3] == "2"
    assert rows["decisions moved up by injection"][1:] == ["-", "", "-"]
    assert " ".join(rows["same decision, asked again"]) in [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_a_cap_before_the_first_measure_is_complete_is_an_error(few_attacks):
    said = []
    with serving(decide_by_text) as fake:
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, budget={"max_calls": 0})
        with pytest.raises(BudgetReached):
            check.check_simulator(simulator, load_market("recorded"), sizes(**FEW), 0, say=said.append)
        assert fake.calls == 0
    assert "None could be tried now: budget. the budget of 0 calls is reached" in said[0]


def test_a_check_takes_all_pairs_where_a_size_is_null():
    said = []
    simulator = LLMSimulator("openai/fake", api_base="http://127.0.0.1:9/v1", cache_mode="replay")
    everything = sizes(repeats=None, swaps=0, attacked=0)
    result = check.check_simulator(simulator, load_market("recorded"), everything, 0, say=said.append)
    assert result["decisions"]["failures"] == {"not_recorded": 20}
    market = load_market("recorded")
    mixed = len(check.own_occupation(market)[0]) + len(check.mismatches(market)[0])
    n_questions = int(said[0].split()[2].replace(",", ""))
    assert 3 * mixed < n_questions < 3 * mixed + 200, "plain, again, and in another order"
    assert said[0].endswith("None could be tried now: not_recorded.")


def test_the_file_of_a_check_has_the_table_that_is_printed(tmp_path):
    done = run_command("llm.check", "n_matches=20", "n_sample=50", f"hydra.run.dir={tmp_path}")
    content = json.loads((tmp_path / "check.json").read_text())
    assert content["commit"] == commit_of_checkout()
    assert content["separation"]["auc"] > 0.5
    (table,) = content["tables"]
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "AUC, own occupation against another family" in [row[0] for row in table["rows"]]
    assert all(" ".join(" ".join(row).split()) in lines for row in table["rows"])
    assert "They cover other pairs of the same applicants and jobs." in done.stdout


def test_the_check_gives_intervals_over_pairs():
    assert check._interval(np.ones((64, 1))) is None, "many attacks on one pair say nothing of others"
    low, high = check._interval(np.repeat([0.0, 1.0], 50))
    assert 0.38 < low < 0.45 and 0.55 < high < 0.62
    assert check._interval(np.tile(np.repeat([0.0, 1.0], 50), (64, 1))) == [low, high]
    assert check._auc_interval(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == [1.0, 1.0]


def test_the_check_keeps_to_the_budget(tmp_path, few_attacks):
    market = load_market("recorded")
    with serving(decide_by_text) as fake:
        options = {"api_base": fake.api_base, "cache": tmp_path / "answers.sqlite"}
        check.check_simulator(LLMSimulator("openai/fake", **options), market, sizes(**FEW), 0)
        calls = fake.calls
        full = LLMSimulator("openai/fake", budget={"max_calls": calls, "on_reached": "raise"}, **options)
        again = check.check_simulator(full, market, sizes(**FEW), 0)
        assert fake.calls == calls
    assert again["cost"]["calls"] == 0


def test_the_check_of_a_model_that_wavers_and_discriminates_says_so(few_attacks):
    def wavers(body, number):
        text = body["messages"][1]["content"]
        if "Jamal" in text or "Lakisha" in text:
            return leans(0.1)
        return leans(0.9 if '{"apply":"No"} or' in body["messages"][0]["content"] else 0.2 + 0.01 * (number % 9))

    market = load_market("recorded")
    with serving(wavers) as fake:
        simulator = LLMSimulator(
            "openai/fake", api_base=fake.api_base, mode="probability", elicitation={"calibration": (0.15, 0.5, 0.8)}
        )
        result = check.check_simulator(simulator, market, sizes(), 0)
    assert result["option_order"]["same_decision"] == 0.0
    assert result["option_order"]["probability_change"] > 0.5
    assert result["repeats"]["probability_change"] > 0
    names = result["identity"]["names"]
    assert names["probability_range"] >= 0.1
    assert names["mean_reward"]["Jamal Jones"] < names["mean_reward"]["Emily Walsh"]
    assert names["less_the_mean"]["Jamal Jones"]["reward_interval"][1] < 0
    assert result["identity"]["ages"]["probability_range"] < 0.1, "one thing is swapped at a time"
    labels = [row[0] for row in check._table(result)]
    assert len(set(labels)) == len(labels), "a page names a row by its label"


@pytest.mark.parametrize("order", [DECISIONS, DECISIONS[::-1]])
@pytest.mark.parametrize("repeat", [0, 1])
def test_the_check_asks_again_and_in_another_order_however_the_simulator_asks(few_attacks, order, repeat):
    def first_option(body, number):
        return decides(min(DECISIONS, key=body["messages"][0]["content"].index))

    market = load_market("recorded")
    with serving(first_option) as fake:
        asking = {"elicitation": {"decisions": order}, "sampling": {"repeat": repeat}}
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, **asking)
        result = check.check_simulator(simulator, market, sizes(**FEW), 0)
        assert result["option_order"]["same_decision"] == 0.0
        assert len({request["messages"][0]["content"] for request in fake.requests}) == 2
        asked = [json.dumps(request["messages"]) for request in fake.requests]
    assert len(asked) > len(set(asked)), "the cache did not answer in the model's place"


def test_the_order_of_decisions_is_not_measured_where_a_template_of_ones_own_lists_none(few_attacks, tmp_path):
    template = tmp_path / "own.txt"
    template.write_text('$persona\nSay {"reason": "", "decision": "apply"}, or save.\n--- user\n$applicant\n$job\n')
    with serving(decides("save")) as fake:
        asking = {"prompt": str(template)}
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, elicitation=asking)
        result = check.check_simulator(simulator, load_market("recorded"), sizes(**FEW), 0)
    assert result["option_order"] is None and result["repeats"] is not None


@pytest.mark.parametrize("prompt", ["probability-v1", "probability-v1-swapped", "own.txt"])
def test_the_order_of_options_is_swapped_in_prompts_that_have_two(few_attacks, tmp_path, prompt):
    from jobrec_gym.simulators import prompts

    template = (Path(prompts.__file__).parent / "probability-v1.txt").read_text()
    (tmp_path / "own.txt").write_text(f"Be honest. {template}")
    asking = {"calibration": (0.15, 0.5, 0.8), "prompt": str(tmp_path / prompt) if prompt == "own.txt" else prompt}
    with serving(leans(0.9)) as fake:
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, mode="probability", elicitation=asking)
        result = check.check_simulator(simulator, load_market("recorded"), sizes(**FEW), 0)
        n_prompts = len({request["messages"][0]["content"] for request in fake.requests})
    assert n_prompts == (1 if prompt == "own.txt" else 2)
    assert (result["option_order"] is None) == (prompt == "own.txt") and check._table(result)


def test_an_unknown_seniority_is_neither_equal_nor_another(tmp_path):
    row = "{key},cook,{level},hygiene;knife skills\n"
    for name, levels in (("jobs", ["entry", "", "lead"]), ("people", ["entry", "", "entry"])):
        rows = "".join(row.format(key=f"{name}{number}", level=level) for number, level in enumerate(levels))
        (tmp_path / f"{name}.csv").write_text(f"key,occupation,seniority,hard\n{rows}")
    market = load_market(
        f"csv:{tmp_path / 'jobs.csv'}", applicants=tmp_path / "people.csv", encoder="hashing", cache_dir=False
    )
    equal, other = check._by_level(market, check.own_occupation(market))
    assert [side.tolist() for side in equal] == [[0, 2], [0, 0]]
    assert [side.tolist() for side in other] == [[0, 2], [2, 2]]


@pytest.mark.parametrize("policy", ["skip", "cosine"])
def test_the_check_of_failures_counts_them(few_attacks, policy):
    with serving(fails(400)) as fake:
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, retries={"on_failure": policy})
        result = check.check_simulator(simulator, load_market("recorded"), sizes(**FEW), 0)
    assert result["decisions"]["failures"] == {"rejected": 20}
    assert (result["decisions"]["n"], result["decisions"]["n_asked"]) == (0, 20)
    counts = {row[0]: row[3] for row in check._table(result)}
    assert counts["decided apply, of random pairs"] == "0" and counts["no decision: rejected"] == "20"
    assert result["separation"]["auc"] is None
    assert check._table(result)


def test_the_check_of_a_simulator_that_cannot_be_asked_of_other_texts_leaves_that_open():
    from jobrec_gym import RuleSimulator

    result = check.check_simulator(RuleSimulator(seed=0), load_market("recorded"), sizes(matches=None), 0)
    assert result["separation"]["auc"] > 0.9
    assert result["injection"] is None
    assert any(row[0].startswith("AUC") for row in check._table(result))


def test_all_pairs_of_a_market_are_compared_in_little_memory(monkeypatch):
    """A comparison of each score with each would take 800 MB here, and 34 GB on the default market."""
    monkeypatch.setattr(check, "_RESAMPLED", 20)
    rng = np.random.default_rng(0)
    good, bad = rng.integers(50, size=5_000) + 5.0, rng.integers(50, size=20_000) + 0.0
    tracemalloc.start()
    try:
        low, high = check._auc_interval(good, bad)
        assert low < check.auc(good, bad) < high
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_the_interval_of_an_auc_is_as_by_comparing_each_score_with_each():
    rng = np.random.default_rng(1)
    good, bad = rng.integers(6, size=30) + 1.0, rng.integers(6, size=40) + 0.0
    drawn, found = np.random.default_rng(0), []
    for _ in range(check._RESAMPLED):
        left, right = (side[drawn.integers(len(side), size=len(side))] for side in (good, bad))
        found.append((left[:, None] > right).mean() + 0.5 * (left[:, None] == right).mean())
    assert check._auc_interval(good, bad) == pytest.approx(np.quantile(found, (0.025, 0.975)), abs=1e-12)


def test_auc_counts_ties_half():
    assert check.auc(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == 0.875


def test_matches_and_mismatches_are_what_they_are_called():
    market = load_market("recorded")
    families = np.array(market.vocabulary.occupation_families)
    applicants, jobs = check.own_occupation(market)
    assert len(applicants) == 120 * 2
    assert (market.applicants.occupation_ids[applicants] == market.jobs.occupation_ids[jobs]).all()
    applicants, jobs = check.mismatches(market)
    assert len(applicants) > 500
    assert (families[market.applicants.occupation_ids[applicants]] != families[market.jobs.occupation_ids[jobs]]).all()
    assert (market.applicants.seniority[applicants] == market.jobs.seniority[jobs]).all()
    applicants, jobs = check.neighbours(market)
    left, right = market.applicants.occupation_ids[applicants], market.jobs.occupation_ids[jobs]
    assert len(applicants) == 120 * 2
    assert (families[left] == families[right]).all() and (left != right).all()


# A real model.


@pytest.fixture(scope="module")
def smollm2():
    pytest.importorskip("xllamacpp", reason="needs the extra 'local-llm'")
    try:
        weights = fetch_smollm2(ROOT / SMOLLM2)
    except RuntimeError as error:
        pytest.skip(f"SmolLM2's weights cannot be had: {error}")
    with serve(weights, name="smollm2") as address:
        yield address


def test_a_real_model_answers_in_both_modes_is_cached_and_keeps_to_its_budget(smollm2, tmp_path):
    market = load_market("recorded")
    options = {"api_base": smollm2, "cache": tmp_path / "answers.sqlite", "calls": {"concurrency": 2}}
    pairs = np.arange(3), np.arange(3)
    asking = {"mode": "probability", "elicitation": {"calibration": (0.2, 0.5, 0.8)}}
    probable = LLMSimulator("openai/smollm2", **asking, **options).bind(market)
    feedback = probable.feedback(*pairs)
    assert set(feedback.status) == {"ok"}
    assert ((feedback.probability > 0) & (feedback.probability < 1)).all()
    assert (feedback.tokens > 200).all()
    again = LLMSimulator(
        "openai/smollm2",
        cache_mode="replay_strict",
        **asking,
        **options,
    ).bind(market)
    np.testing.assert_array_equal(again.feedback(*pairs).probability, feedback.probability)
    assert again.usage.calls == 0
    budget = {"max_calls": probable.usage.calls + 1, "on_reached": "cosine"}
    decided = LLMSimulator("openai/smollm2", budget=budget, **options)
    feedback = decided.bind(market).feedback(*pairs)
    assert decided.usage.calls == 1
    assert (feedback.status == "cosine:budget").sum() == 2
    assert set(feedback.decision[:]) <= {*DECISIONS, ""}


def test_a_real_model_trains_a_run(run, smollm2, tmp_path):
    summary = run(
        "experiment=llm_demo",
        "total_timesteps=12",
        "simulator.model=openai/smollm2",
        f"simulator.api_base={smollm2}",
        "simulator.elicitation.calibration=[0.4,0.5,0.6]",
        f"simulator.cache={tmp_path / 'answers.sqlite'}",
    )
    assert summary["feedback"]["calls"] >= 5
    assert summary["feedback"]["tokens"] > 200 * summary["feedback"]["calls"]
