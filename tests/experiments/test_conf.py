from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from experiments.runs import build
from experiments.runs.arguments import PLUGINS

CONF = Path(build.__file__).parents[2] / "conf"


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_primary_config_composes(config, name):
    OmegaConf.to_container(config(name), resolve=True)


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (group.name, option)
        for group in sorted(CONF.iterdir())
        if group.is_dir() and group.name not in ("benchmark", "learner")  # learners: see test_study_runs.py
        for option in options(group.name)
        if option != "custom"  # which class, a user says
    ],
)
def test_every_option_of_every_group_composes(config, group, option):
    if group == "preset":
        OmegaConf.to_container(config("coldstart", f"preset={option}"), resolve=True)
        return
    extra, module = PLUGINS.get(f"{group}={option}", ("", ""))
    if module.startswith("hydra_plugins.") and find_spec(module) is None:
        pytest.skip(f"the extra {extra} is not installed")
    without_path = {"market": ("default", "recorded"), "setting": tuple(set(options("setting")) - {"onet"})}
    needs_path = group in without_path and option not in without_path[group]
    cfg = config("train", f"{group}={option}", *(["market.path=there"] if needs_path else []))
    OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("preset", options("benchmark/preset"))
def test_every_preset_of_the_benchmark_composes(preset):
    with initialize_config_dir(str(CONF / "benchmark"), version_base="1.3"):
        OmegaConf.to_container(compose("benchmark", [f"preset={preset}"]), resolve=True)


@pytest.mark.parametrize("path", ["app.yaml", "frame.yaml", "indexes.yaml", "benchmark/benchmark.yaml"])
def test_a_command_that_takes_long_can_show_its_progress(path):
    assert "\nprogress_bar: null # null: a bar on a terminal" in (CONF / path).read_text()


def test_algo_dynaq_is_the_note_to_the_letter(config):
    algo = OmegaConf.to_container(config("train").algo, resolve=True)

    assert (
        algo
        | {
            "learning_rate": 1e-3,
            "gamma": 0.9,
            "batch_size": 64,
            "buffer_size": 10_000,
            "learning_starts": 64,
            "train_freq": 1,
            "target_update_interval": 100,
            "planning_steps": 5,
            "bootstrap": "same_action",
            "exploration_initial_eps": 1.0,
            "exploration_final_eps": 0.05,
            "exploration_fraction": 0.3,
            "policy_kwargs": {"features": "concat", "net_arch": [256, 256]},
        }
        == algo
    )
    assert algo["world_model_kwargs"]["net_arch"] == [256, 256]


def test_an_experiment_is_read_after_the_defaults_and_the_command_line_after_both(config):
    assert config("train").pretrain.epochs == 0
    assert config("train", "experiment=hybrid_offline").pretrain.epochs > 0
    assert config("train", "experiment=hybrid_offline", "pretrain.epochs=1").pretrain.epochs == 1


def test_an_unknown_option_is_answered_with_those_that_there_are(config):
    with pytest.raises(MissingConfigException, match=r"(?s)algo/dynak.*dynaq"):
        config("train", "algo=dynak")


# llm_demo needs a language model: see test_llm_runs.py.
@pytest.mark.parametrize("experiment", [name for name in options("experiment") if name != "llm_demo"])
def test_every_experiment_runs(run, experiment):
    summary = run(
        f"experiment={experiment}", "pretrain.epochs=1", f"total_timesteps={0 if 'offline' in experiment else 30}"
    )

    assert summary["pretrain"]["n_pairs"] == 100
    assert summary["held_out"]["score"] is not None


def test_hybrid_offline_goes_on_learning_from_feedback(run):
    summary = run("experiment=hybrid_offline", "pretrain.epochs=1", "total_timesteps=30")

    assert summary["interactions"] == 30
    assert summary["online"]["cumulative_reward"] == pytest.approx(summary["online"]["cumulative_expected_reward"])


@pytest.mark.parametrize(("experiment", "reward"), [("hybrid_offline", "Feedback"), ("hybrid", "Hybrid")])
def test_strategies_that_begin_with_cosine_play_the_tuned_agent_of_the_note(config, experiment, reward):
    strategy, tuned = config("train", f"experiment={experiment}"), config("train", "algo=dynaq_tuned")

    assert strategy.algo == tuned.algo
    assert strategy.pretrain == tuned.pretrain, "it stands in both, so that another algo= is pre-trained too"
    assert strategy.reward._target_ == f"jobrec_gym.Vector{reward}Reward"


@pytest.mark.parametrize("algo", [name for name in options("algo") if name != "custom"])
def test_every_algorithm_runs(run, algo):
    assert run(f"algo={algo}")["interactions"] == 30


# A career is no sampler: test_career_runs.py.
@pytest.mark.parametrize("env", [name for name in options("env") if name not in ("custom", "career")])
def test_every_candidate_sampler_runs(run, env):
    assert run("algo=random", f"env={env}")["held_out"]["mean_reward"] is not None


@pytest.mark.parametrize("reward", options("reward"))
def test_every_reward_runs_and_is_judged_by_the_truth(run, reward):
    recorded = ("market=recorded", "simulator=recorded") if reward == "llm" else ()
    summary = run("algo=oracle", f"reward={reward}", *recorded)

    assert summary["held_out"]["score"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "overrides",
    [
        ("env.observation=features",),
        ("env.n_envs=3",),
        ("env.repeats=false",),
        ("env.resample=step", "simulator.noise=0.5"),
        ("env.job_fields=[title]", "algo.policy_kwargs.features=interaction"),
        ("reward.terminate_on=[apply]",),
        ("algo.bootstrap=max", "algo.planning_source=candidates", "algo.planning_steps=1"),
    ],
    ids=" ".join,
)
def test_dynaq_runs_on_every_make_of_environment(run, overrides):
    assert run(*overrides)["interactions"] == 30


def test_seeds_share_no_environment(config):
    first = config("train", "seed=1", "env.n_envs=4").algo.seed
    second = config("train", "seed=2", "env.n_envs=4").algo.seed

    assert second - first >= 4


def test_a_saved_market_is_opened_by_its_path(small, tmp_path):
    market = build.build(small()).market
    market.save(tmp_path / "market")

    opened = build.open_market(None, str(tmp_path / "market"))

    assert opened.fingerprint() == market.fingerprint()
