"""Arguments of Stable-Baselines3's classes: what SB3 takes without an error is refused before a run."""

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.runs import build
from experiments.runs.folders import RunError
from experiments.runs.sb3_arguments import as_sb3_wants, require_sb3_arguments

PPO = "stable_baselines3.PPO"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("gamma=2", r"`algo.gamma` must be a number in \[0, 1\], got 2"),
        ("gamma=null", r"`algo.gamma` must be a number in \[0, 1\], got None"),
        ("buffer_size=-1", "`algo.buffer_size` must be a whole number of 1 or more, written without a point, got -1"),
        ("buffer_size=1e5", "`algo.buffer_size` must be a whole number .* got 100000.0"),
        ("train_freq=0", r"`algo.train_freq` must be a whole number of 1 or more, or \[NUMBER,step\] .* got 0"),
        ("train_freq=[0,step]", "`algo.train_freq` must be"),
        ("gradient_steps=-2", "`algo.gradient_steps` must be a whole number of -1 or more"),
        ("exploration_fraction=x", r"`algo.exploration_fraction` must be a number in \[0, 1\], got 'x'"),
        ("exploration_final_eps=1.5", r"`algo.exploration_final_eps` must be a number in \[0, 1\], got 1.5"),
        ("learning_rate=-1", "`algo.learning_rate` must be a number of 0 or more, got -1"),
        ("learning_rate=inf", "`algo.learning_rate` must be a number of 0 or more, got inf"),
        ("learning_starts=true", "`algo.learning_starts` must be a whole number of 0 or more"),
    ],
)
def test_a_number_out_of_its_range_is_named_before_the_run(config, argument, said):
    with pytest.raises(RunError, match=said):
        build.build(config("train", "algo=dqn", f"algo.{argument}"))


def test_what_makes_sense_is_taken():
    require_sb3_arguments("algo", {"_target_": PPO, "max_grad_norm": float("inf"), "learning_rate": 0})
    every = {"learning_rate": {"_target_": "lab.Schedule"}, "train_freq": [1, "episode"], "gradient_steps": -1}
    require_sb3_arguments("algo", {"_target_": PPO, "clip_range_vf": None, "ent_coef": 0.0, "seed": None, **every})
    with pytest.raises(RunError, match="`algo.max_grad_norm` must be a number above 0, got 0"):
        require_sb3_arguments("algo", {"_target_": PPO, "max_grad_norm": 0})
    with pytest.raises(RunError, match="`algo.target_kl` must be a number above 0 or null, got 0"):
        require_sb3_arguments("algo", {"_target_": PPO, "target_kl": 0})


@pytest.mark.parametrize("algo", ["dqn", "dynaq"])
def test_a_list_of_a_config_is_a_tuple_for_sb3_and_for_what_inherits_from_it(small, algo):
    setup = build.build(small(f"algo={algo}", "algo.train_freq=[4,step]"))
    model = setup.algorithm.make(setup.env)
    assert (model.train_freq.frequency, model.train_freq.unit.value) == (4, "step")
    assert as_sb3_wants({"_target_": "lab.Mine", "train_freq": [4, "step"]}) == {}
    assert as_sb3_wants({"_target_": PPO}) == {}


def test_other_learners_check_their_own_arguments():
    require_sb3_arguments("algo", {"_target_": "lab.Mine", "gamma": 2, "learning_rate": "slow"})
