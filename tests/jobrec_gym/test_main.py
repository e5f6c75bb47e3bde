import subprocess
import sys
from importlib import metadata

import gymnasium as gym
import numpy as np

from jobrec_gym.__main__ import extras_found, requirements_by_extra, summary
from jobrec_gym.extras import install_command

REQUIRES = [
    "gymnasium<2,>=1.1.1",
    "torch<3,>=2.8; extra == 'algo'",
    'stable-baselines3>=2.9 ; extra == "algo"',
    "litellm; (python_version > '3.8') and extra == 'llm'",
    "jobrec-gym[algo,llm]; extra == 'all'",
]


def test_an_extra_of_extras_needs_what_they_need():
    assert requirements_by_extra(REQUIRES) == {
        "algo": ["stable-baselines3", "torch"],
        "all": ["litellm", "stable-baselines3", "torch"],
        "llm": ["litellm"],
    }


def test_an_extra_is_there_when_each_of_its_packages_is():
    installed = {"torch": "2.13.0", "stable-baselines3": "2.9.2"}

    found = extras_found(REQUIRES, installed.get)

    assert found["algo"] == (["stable-baselines3 2.9.2", "torch 2.13.0"], [])
    assert found["all"][1] == found["llm"][1] == ["litellm"]


def test_a_missing_extra_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("jobrec_gym.__main__._requires", lambda: ["no-such-package; extra == 'llm'"])

    assert f"llm          no   lacks no-such-package: {install_command('llm')}" in summary()


def test_much_that_is_missing_is_counted(monkeypatch):
    monkeypatch.setattr("jobrec_gym.__main__._requires", lambda: [f"no-{i}; extra == 'all'" for i in range(9)])

    assert "lacks no-0, no-1, no-2, 6 more: pip install" in summary()


def test_the_command_prints_versions_environments_and_extras():
    shown = subprocess.run(
        [sys.executable, "-m", "jobrec_gym"], capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert shown[0].startswith("jobrec-gym ")
    assert f"gymnasium {gym.__version__}, numpy {np.__version__}" in shown
    assert "  JobRec-v0  jobrec_gym.env:JobRecEnv, vector jobrec_gym.vector:JobRecVectorEnv" in shown
    extras = {line.split()[0] for line in shown[shown.index("extras") + 1 :]}
    assert extras == set(metadata.metadata("jobrec-gym").get_all("Provides-Extra"))


def test_the_command_loads_nothing_heavy():
    code = (
        "import sys; from jobrec_gym.__main__ import summary; summary(); print({'torch', 'litellm'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert shown.strip() == "set()"
