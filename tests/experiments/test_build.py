"""The run as it is to be: what is read of a config, and when what it names is made."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from hydra.errors import InstantiationException
from omegaconf import MissingMandatoryValue, OmegaConf

from experiments.runs import training
from experiments.runs.build import Setup, Task, build, build_seeds, picked
from experiments.runs.folders import RunError
from jobrec_gym import LabourMarket, RuleSimulator

COSTLY = {"market", "env", "truth", "evaluation"}


def test_nothing_costly_is_made_before_it_is_asked_for_and_then_once(small):
    setup = build(small("algo=random"))
    assert not COSTLY & vars(setup).keys()

    assert isinstance(setup.market, LabourMarket)
    assert setup.evaluation is setup.evaluation and setup.env is setup.env
    assert setup.make_env() is not setup.env
    assert vars(setup).keys() >= COSTLY


def test_a_finished_run_is_known_without_its_market(small, tmp_path, monkeypatch):
    first = training.run_training(build(small("algo=random")), tmp_path / "run")
    monkeypatch.setattr(Task, "market", property(lambda self: pytest.fail("a market was opened")))

    assert training.run_training(build(small("algo=random")), tmp_path / "run") == first


def test_another_process_makes_of_it_what_this_one_would(small):
    setup = build(small("algo=linucb"))
    sent = pickle.loads(pickle.dumps(setup))

    assert not COSTLY & vars(sent).keys()
    assert sent.config == setup.config
    models = [one.algorithm.make(one.env) for one in (setup, sent)]
    assert setup.evaluation(models[0]) == sent.evaluation(models[1])


def test_a_config_that_was_written_is_read_as_the_one_that_was_composed(small, run, tmp_path):
    run("algo=random")
    written = OmegaConf.to_container(OmegaConf.load(tmp_path / "run" / "config.yaml"))

    assert build(written).config == build(small("algo=random")).config


def test_entries_of_the_evaluation_are_replaced_and_the_given_config_is_left(small):
    config = build(small("algo=random")).config
    other = build(config, evaluation={"n_pairs": 7})

    assert (other.evaluation_options.n_pairs, config["evaluation"]["n_pairs"]) == (7, 64)
    assert other.evaluation_options.n_episodes == 16
    assert len(other.evaluation.pairs) == 7


def test_a_count_that_is_written_as_a_float_is_a_whole_number_of_the_run(small):
    whole = {"evaluation.n_pairs": 20, "evaluation.seed": 3, "evaluation.n_episodes": 2, "env.n_envs": 2}
    whole |= {"pretrain.epochs": 1, "pretrain.n_pairs": 10, "total_timesteps": 100, "checkpoint_interval": None}
    composed = small("algo=dynaq", *(f"{name}={'null' if one is None else float(one)}" for name, one in whole.items()))
    setup = build(composed)
    for name, one in whole.items():
        assert repr(OmegaConf.select(OmegaConf.create(setup.config), name)) == repr(one), name
    assert len(setup.evaluation.pairs) == 20 and setup.env.num_envs == 2
    assert repr(composed.evaluation.n_pairs) == "20.0", "the given config is left"
    n_sets = build(small("setting=career", "algo=dynaq", "evaluation.n_sets=8.0")).config["evaluation"]["n_sets"]
    assert repr(n_sets) == "8"


def test_what_depends_on_the_seed_follows_it(small):
    first, second = build_seeds(small("algo=random", "env.n_envs=4"), [3, 5])

    assert (first.seed, second.seed) == (3, 5)
    assert (first.algorithm.spec["seed"], second.algorithm.spec["seed"]) == (12, 20)
    assert (first.pretraining.seed, second.pretraining.seed) == (3, 5)


def test_a_learner_that_cannot_be_imported_here_can_be_planned(small):
    setup = build(small("algo=custom", "algo._target_=no_such_lab.Mine"))

    assert (setup.algorithm.name, setup.algorithm.gamma) == ("Mine", 0.9)
    with pytest.raises(Exception, match="no_such_lab"):
        setup.require_verbs()


def test_a_class_method_that_makes_an_agent_is_of_the_class(small):
    assert build(small("algo=dynaq_plus")).algorithm.kind.__name__ == "DynaQ"


def test_what_is_missing_is_named(small):
    with pytest.raises(RunError, match=r"`market\.path` must be given in this setting: market\.path=FILE"):
        build(small("setting=onet"))
    with pytest.raises(MissingMandatoryValue, match=r"algo\._target_"):
        build(small("algo=custom"))


def test_what_cannot_be_made_is_told_with_its_place_in_the_config(small):
    setup = build(small("algo=random", "market.source=nowhere"))
    with pytest.raises(InstantiationException, match=r"(?s)nowhere.*full_key: market"):
        _ = setup.market


def test_the_truth_is_that_of_training_unless_the_evaluation_has_its_own(small):
    own = build(small("algo=random", "+simulator@evaluation.simulator=rules", "evaluation.simulator.seed=5"))
    pairs = np.arange(40)[:, None], np.arange(60)
    simulators = RuleSimulator(seed=5), own.make_simulator()
    given, trained = (simulator.bind(own.market).expected_reward(*pairs) for simulator in simulators)

    np.testing.assert_array_equal(own.truth.expected_reward(*pairs), given)
    assert (given != trained).any()


def test_options_that_are_read_later_keep_their_interpolations():
    @dataclass
    class Options:
        now: list[int]
        later: dict[str, str]

    cfg = OmegaConf.create({"n": 3, "now": ["${n}"], "later": {"seed": "${seed}"}, "other": 1})

    assert picked(Options, cfg, unresolved=("later",)) == Options([3], {"seed": "${seed}"})


def test_a_task_needs_only_what_is_asked_of_it(config):
    task = Task({"market": {"_target_": "jobrec_gym.load_market", "source": "recorded"}})

    assert len(task.market.jobs) == 40
    assert not isinstance(task, Setup)
    with pytest.raises(KeyError, match="env"):
        task.make_env()
