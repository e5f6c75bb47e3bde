"""The command that compares world models by what they predict in careers."""

import itertools
import json

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from dynaq_algo import DynaQ, LinearBandit
from experiments.studies.career_models import Predicted, career_env, models_table, predicted, transitions

SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 4}


@pytest.fixture(scope="module")
def env() -> gym.Env:
    return career_env({**SMALL, "pair_features": ["seniority"]}, 0.5, 0)


def test_transitions_follow_one_another_and_reach_higher_levels(env):
    steps = transitions(env, 200, 0.5, 8, 0)
    assert len(steps) == 200
    follow = [
        np.array_equal(one.next_obs["candidates"], other.observation["candidates"])
        for one, other in itertools.pairwise(steps)
    ]
    assert 100 < follow.count(True) < 199, "but where an episode ends"
    levels = [step.observation["progress"][0] for step in steps]
    assert min(levels) == 0 and max(levels) > 0.5
    again = transitions(env, 200, 0.5, 8, 0)
    assert [step.action for step in again] == [step.action for step in steps]


@pytest.mark.parametrize("make", [DynaQ.plus, LinearBandit])
def test_a_reward_is_predicted_before_it_is_learned(env, make):
    steps = transitions(env, 30, 0.5, 8, 0)
    first = make(env=env, seed=0)
    found = predicted(first, steps)
    # The last reward does not change what was predicted.
    other = predicted(make(env=env, seed=0), [*steps[:-1], steps[-1]._replace(reward=100.0)])
    np.testing.assert_array_equal(found.rewards, other.rewards)
    changed = predicted(make(env=env, seed=0), [steps[0]._replace(reward=100.0), *steps[1:]])
    assert changed.rewards[0] == found.rewards[0] and not np.array_equal(changed.rewards[1:], found.rewards[1:])
    assert ("reward_mse" in found.errors) == (make == DynaQ.plus)


def test_the_table_has_shares_of_variance_and_times():
    own = [np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 2.0, 0.0, 2.0])]
    right = [Predicted(rewards, np.full(4, 0.002), {}) for rewards in own]
    mean = [Predicted(np.full(4, rewards.mean()), np.full(4, 0.001), {}) for rewards in own]
    header, rows = models_table({"right": right, "mean": [right[0], mean[1]]}, own, [2, 4], 2)
    assert header[1:] == ["2", "4", "ms at 2", "ms at 4"]
    assert rows == [
        ["right", "1.000 (1.000)", "1.000 (1.000)", "2.0", "2.0"],
        ["mean", "0.500 (0.000)", "0.500 (0.000)", "1.5", "1.5"],
    ]


def test_the_command_writes_what_it_prints(tmp_path):
    done = run_command(
        "studies.career_models",
        "env.market={source:default,n_jobs:60,n_applicants:40}",
        "seeds=[0]",
        "at=[10,20]",
        "n_sets=4",
        f"folder={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "career_models.json").read_text())
    (table,) = written["tables"]
    assert len(table["rows"]) == 6 and table["rows"][0][1] in done.stdout.splitlines()[2]
    assert "leaving_brier" in next(iter(written["other_errors"].values()))[0]

    done = run_command("studies.career_models", "+env.split=test", f"folder={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: `env.split` cannot be given, because the command sets it: ")

    done = run_command("studies.career_models", "at=[20,10]", f"folder={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: `at` must be ascending numbers of transitions above 0, got [20, 10]."
