import functools
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from hydra import initialize_config_dir
from omegaconf import OmegaConf

from dynaq_algo import WorldModel
from dynaq_algo.gaussian_process import DEFAULT_SCALES
from experiments.runs.build import build
from experiments.runs.folders import RunError
from experiments.runs.numbers import require_known
from experiments.studies.runs import (
    CONF,
    Learner,
    compose_runs,
    define_learner,
    known_learners,
    known_settings,
    read_learner,
)

PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))


@pytest.fixture
def conf():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def run_of(tmp_path, learner, setting="vectors", *more):
    return compose_runs(learner, setting, [f"setting={setting}", *more], [7], tmp_path, None)[0]


@pytest.mark.parametrize("name", known_learners())
def test_every_learner_is_a_run_that_can_be_composed_misled_too(conf, tmp_path, name):
    learner = read_learner(name)

    assert run_of(tmp_path, learner).setup.seed == 7
    misled = run_of(tmp_path, learner, "misled")
    assert misled.overrides[-1 - len(learner.misled) : -1] == learner.misled
    assert run_of(tmp_path, learner, "vectors", *learner.on_logs).setup.seed == 7


@functools.cache
def composes(learner, setting, overrides):
    """A quarter of the runs of presets are in another one, too, with other seeds."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return len(compose_runs(learner, setting, overrides, [100], Path("runs"), "any.zip")) == 1


@pytest.mark.parametrize("name", PRESETS)
def test_every_learner_and_every_setting_of_every_preset_composes(config, name):
    cfg = config("coldstart", f"preset={name}")
    assert cfg.name == name
    variants, definitions = (OmegaConf.to_container(cfg[key]) for key in ("variants", "define"))
    learners = [*map(read_learner, cfg.learners), *(define_learner(*one) for one in definitions.items())]
    names = {learner.name for learner in learners}
    assert {*cfg.settings} <= {*known_settings(), *variants}
    assert set(cfg.only_in) <= set(cfg.settings)
    assert cfg.seeds and all(type(seed) is int for seed in cfg.seeds)
    assert {*(cfg.draw or []), *(one for some in cfg.only_in.values() for one in some)} <= names

    first, *others = cfg.settings
    pairs = [*((learner, first) for learner in learners), *((learners[0], setting) for setting in others)]
    for learner, setting in pairs:
        overrides = (*variants.get(setting, [f"setting={setting}"]), *cfg.common)
        assert composes(learner, setting, overrides)


def test_a_run_of_a_seed_is_what_its_overrides_compose(config, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        first, second = compose_runs(read_learner("linucb"), "vectors", ["setting=vectors"], [3, 4], tmp_path, None)

    assert first.folder == tmp_path / "vectors" / "linucb" / "seed-3"
    assert second.setup.config == OmegaConf.to_container(config("train", *second.overrides), resolve=True)
    assert (second.setup.config["simulator"]["seed"], second.setup.config["algo"]["seed"]) == (4, 4)
    assert first.setup.evaluation_options.seed != second.setup.evaluation_options.seed


def test_a_learner_that_is_another_one_changed_is_misled_as_that_one_is():
    base, changed = read_learner("dynaq_plus"), read_learner("dynaq_plus_no_bonus")

    assert changed.overrides == (*base.overrides, "+algo.exploration_bonus=1e-6")
    assert changed.misled == base.misled != ()
    assert read_learner("dynaq_plus_no_prior").misled == ()


def test_only_on_logs_answers_are_noisier():
    assert [read_learner(name).on_logs for name in ("linear_blocks", "cosine")] == [("algo.noise=0.5",), ()]
    assert "algo.noise=0.5" not in read_learner("linear_blocks").overrides


def test_only_in_misled_a_prior_is_negated(conf, tmp_path):
    learner = read_learner("linear_prior")

    priors = {
        name: run_of(tmp_path, learner, name).setup.config["algo"]["cosine_prior"] for name in ("vectors", "misled")
    }

    assert priors["misled"] == -priors["vectors"] != 0


def test_a_class_of_ones_own_reaches_the_config_with_all_of_its_arguments(conf, tmp_path):
    given = {"alpha": 0.3, "note": "it's, [so]", "deep": {"sizes": [1, 2]}, "none": None, "on": True, "seed": "${seed}"}

    algo = run_of(tmp_path, define_learner("mine", {"_target_": "lab.Mine", **given})).setup.config["algo"]

    assert algo == {"_target_": "lab.Mine", "gamma": 0.9, **given, "seed": 7}


def test_a_learner_of_ones_own_can_be_overrides_too(conf, tmp_path):
    learner = define_learner("bold", ["algo=linucb", "algo.alpha=2"])

    assert run_of(tmp_path, learner).setup.config["algo"]["alpha"] == 2


@pytest.mark.parametrize("definition", [{"alpha": 1}, "lab.Mine", [1], None])
def test_a_definition_that_is_none_is_refused_with_its_name(definition):
    with pytest.raises(RunError, match=r"`define.mine` must be \{_target_: package.Class"):
        define_learner("mine", definition)


def test_an_unknown_name_is_answered_with_the_one_that_was_meant():
    with pytest.raises(RunError, match="`learners`: 'linucp' is not in conf/learner: did you mean 'linucb'?"):
        require_known("learners", ["cosine", "linucp"], known_learners(), "conf/learner")
    with pytest.raises(RunError, match="there are one, two"):
        require_known("learners", ["qqq"], ["one", "two"], "conf/learner")


def test_a_setting_whose_market_lies_elsewhere_needs_a_path(conf, tmp_path):
    with pytest.raises(RunError, match="path=FILE"):
        run_of(tmp_path, read_learner("cosine"), "onet")
    given = compose_runs(read_learner("cosine"), "onet", ["setting=onet"], [0], tmp_path, "my release.zip")[0]
    assert given.setup.config["market"]["path"] == "my release.zip"
    assert "market.path='my release.zip'" in given.overrides


def test_overrides_that_do_not_compose_are_told_in_one_line(conf, tmp_path):
    with pytest.raises(RunError, match="no_such_option") as caught:
        run_of(tmp_path, Learner("wrong", ("algo=linucb", "algo.no_such_option=1")))
    assert "\n" not in str(caught.value)


def test_memory_taken_away_and_a_network_as_model_reach_the_agent(small):
    def agent(learner):
        setup = build(small(*read_learner(learner).overrides))
        return setup.algorithm.make(setup.env)

    scales = agent("dynaq_plus_no_memory").world_model.scales
    assert (scales["same_pair"], scales["bilinear"]) == (0, DEFAULT_SCALES["bilinear"])
    assert isinstance(agent("dynaq_plus_network_model").world_model, WorldModel)
