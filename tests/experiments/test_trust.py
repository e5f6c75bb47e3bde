"""Run folders of others: what their configs name is not made, and their agents are not unpickled, unless trusted."""

import base64
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import cloudpickle
import pytest
import yaml

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from omegaconf import OmegaConf

from experiments.frame import draw_step
from experiments.learn import learn_from_log
from experiments.runs import build, training
from experiments.runs.folders import RunError, find_runs, read_run
from experiments.runs.ranking import ranking_of_run
from experiments.runs.saved import evaluate_run, load_run
from experiments.runs.trust import OURS, require_trust
from experiments.studies.quadrants import quadrant_scores
from experiments.studies.relearning import relearn

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    training.run_training(build.build(small("algo=dynaq")), folder)
    return folder


@pytest.fixture
def own_run(finished, tmp_path):
    """A finished run of dynaq, and a function that changes what its config says."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)

    def change(*keys, value):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        node = config
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return read_run(folder)

    return change


def hostile(canary):
    """Entries of a config that make a folder when they are made, by their keys."""
    mkdir = {"_target_": "os.mkdir", "path": str(canary)}
    return {
        "a target": (("simulator",), mkdir),
        "a target of the market": (("market",), mkdir),
        "a target of the algorithm": (("algo", "_target_"), "os.mkdir"),
        "a target beneath an argument": (("reward", "simulator"), mkdir),
        "a target in a list": (("evaluation", "at"), [mkdir]),
        "a target of another truth": (("evaluation", "also"), {"mine": mkdir}),
        "Hydra's own instantiate": (("simulator",), {"_target_": "hydra.utils.instantiate", "config": mkdir}),
        "what a module of this project has imported": (
            ("simulator", "_target_"),
            "experiments.runs.build.get_object",
        ),
        "a function of this project": (("simulator", "_target_"), "jobrec_gym.register_simulator"),
        "a type of a spec": (("reward", "simulator"), {"type": "os:mkdir", "path": str(canary)}),
        "an interpolation": (("evaluation", "split"), "${oc.env:HOME}"),
        "a resolver of this project": (("evaluation", "split"), "${python_here:}"),
    }


@pytest.mark.parametrize("how", hostile("x"))
def test_what_a_config_of_others_names_is_not_made(own_run, tmp_path, how):
    canary = tmp_path / "canary"
    keys, value = hostile(canary)[how]
    changed = own_run(*keys, value=value)
    for use in (
        lambda: evaluate_run(changed, {"n_pairs": None}),
        lambda: ranking_of_run(changed.folder),
        lambda: quadrant_scores(changed, None),
        lambda: relearn(changed, 5),
    ):
        with pytest.raises(RunError, match=r"its config (names|computes) .*say trust=true; see docs/security\.md"):
            use()
    assert not canary.exists()


def test_a_class_of_ones_own_is_made_once_it_is_trusted(own_run):
    changed = own_run("simulator", "_target_", value="jobrec_gym.simulators.rules.RuleSimulator")
    with pytest.raises(RunError, match="no part of this project"):
        load_run(changed, {})
    setup, _ = load_run(changed, {}, trust=True)
    assert setup.truth is not None


def test_an_agent_of_another_library_asks_for_trust(run, tmp_path):
    run("algo=dqn")
    (found,) = find_runs(tmp_path, "run")
    with pytest.raises(RunError, match=r"file of another library: Stable-Baselines3 pickles .*trust=true"):
        load_run(found, {})
    assert evaluate_run(found, {"n_pairs": None}, trust=True)["held_out"]
    # Its agent is not loaded to be trained again.
    require_trust(found.config, found.folder, trust=False, loads_agent=False)


@pytest.mark.parametrize("command", ["learn", "frame"])
def test_a_command_that_loads_an_agent_asks_for_trust(own_run, config, tmp_path, monkeypatch, command):
    found = own_run("simulator", value={"_target_": "os.mkdir", "path": str(tmp_path / "canary")})
    verb = {"learn": learn_from_log, "frame": draw_step}[command]
    options = OmegaConf.to_container(config(command, f"run={found.folder}"))
    with pytest.raises(RunError, match=r"names `simulator\._target_` = 'os\.mkdir'.*say trust=true"):
        verb(options | {"log": "no.csv", "folder": str(tmp_path / "learned")})
    assert not (tmp_path / "canary").exists()

    class Trusted(Exception):
        pass

    def trusted(run, changes, trust):
        raise Trusted if trust is True else AssertionError(trust)

    monkeypatch.setattr("experiments.runs.saved.load_run", trusted)
    with pytest.raises(Trusted):
        verb(options | {"log": "no.csv", "folder": str(tmp_path / "learned"), "trust": True})


def test_an_agent_with_a_pickle_is_refused_trusted_or_not(own_run, tmp_path):
    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    found = own_run("seed", value=0)
    path = found.folder / "model.zip"
    shutil.copy(path, tmp_path / "copy.zip")
    with zipfile.ZipFile(tmp_path / "copy.zip") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                pickled = {":type:": "x", ":serialized:": base64.b64encode(cloudpickle.dumps(Canary())).decode()}
                content = json.dumps({**json.loads(content), "gamma": pickled}).encode()
            new.writestr(name, content)
    for trust in (False, True):
        with pytest.raises(RunError, match=re.escape(str(path))):
            load_run(found, {}, trust)
    assert not (tmp_path / "canary").exists()


def test_all_that_conf_names_is_ours():
    named = set()
    for file in CONF.rglob("*.yaml"):
        for target in re.findall(r"^\s*_target_: *([\w.]+)", file.read_text(), re.MULTILINE):
            named.add(target)
    assert len(named) > 15
    assert named - {"null"} <= OURS  # null: nothing is made
