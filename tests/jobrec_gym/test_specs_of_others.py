"""Specs of others: what a `type` names is called only if it is what it should be."""

import json
import sys

import gymnasium as gym
import pytest

import jobrec_gym
from jobrec_gym.simulators.base import make_simulator, register_simulator


class Answers:
    """A simulator of one's own."""

    def __init__(self, word):
        self.word = word

    def bind(self, market):
        return self


class Unbound:
    """Not a simulator, because it lacks `bind`."""

    made = 0

    def __init__(self, **options):
        type(self).made += 1

    @classmethod
    def from_spec(cls, spec):
        return cls()


HOSTILE = {
    "a command": {"type": "os:system", "command": "mkdir CANARY"},
    "a process": {"type": "subprocess:Popen", "args": ["mkdir", "CANARY"]},
    "a function that makes a folder": {"type": "os:mkdir", "path": "CANARY"},
    "a function of a module beneath": {"type": "os.path:join", "a": "CANARY"},
    "an evaluation": {"type": "builtins:eval", "source": "open('CANARY', 'w')"},
    "a class of paths": {"type": "pathlib:Path", "args": "CANARY"},
    "a class with from_spec and without bind": {"type": f"{__name__}:Unbound"},
    "a module": {"type": "os:path"},
    "nothing": {"type": "os:"},
    "no module": {"type": ":system"},
    "what is not there": {"type": "nowhere.at.all:Class"},
    "an attribute that is not there": {"type": "os:nothing"},
    "a relative module": {"type": ".os:system"},
    "no text": {"type": ["os:system"]},
    "none": {},
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_a_spec_names_is_not_called_unless_it_is_a_class_with_bind(tmp_path, how):
    canary = tmp_path / "canary"
    spec = json.loads(json.dumps(HOSTILE[how]).replace("CANARY", str(canary)))
    with pytest.raises(ValueError, match=r"`simulator\['type'\]`"):
        make_simulator(spec)
    with pytest.raises(ValueError, match=r"`simulator\['type'\]`"):
        jobrec_gym.FeedbackReward(gym.make("JobRec-v0"), simulator=spec)
    assert not canary.exists()
    assert Unbound.made == 0


def test_the_same_holds_for_an_environment_spec_read_from_json(tmp_path):
    env = jobrec_gym.FeedbackReward(gym.make("JobRec-v0"), simulator={"type": "rules"})
    text = env.spec.to_json()
    (wrapper,) = [one for one in json.loads(text)["additional_wrappers"] if one["name"] == "FeedbackReward"]
    hostile = text.replace(
        json.dumps(wrapper["kwargs"]["simulator"]), json.dumps({"type": "os:mkdir", "path": str(tmp_path / "canary")})
    )
    assert hostile != text
    with pytest.raises(ValueError, match="no class and is not called"):
        gym.make(gym.envs.registration.EnvSpec.from_json(hostile))
    assert not (tmp_path / "canary").exists()


def test_a_class_with_bind_is_made_by_its_name_and_by_a_registered_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "of_ones_own", sys.modules[__name__])
    assert make_simulator({"type": "of_ones_own:Answers", "word": "yes"}).word == "yes"
    register_simulator("of-ones-own", "of_ones_own:Answers")
    assert make_simulator({"type": "of-ones-own", "word": "no"}).word == "no"
