import subprocess
import sys
from importlib import metadata

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import load_market, recommend
from jobrec_gym.__main__ import extras_found, main, requirements_by_extra, summary
from jobrec_gym.extras import install_command, what_works

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
    assert what_works("checkout") in shown
    assert "  JobRec-v0  jobrec_gym.env:JobRecEnv, vector jobrec_gym.vector:JobRecVectorEnv" in shown
    extras = {line.split()[0] for line in shown[shown.index("extras") + 1 :]}
    assert extras == set(metadata.metadata("jobrec-gym").get_all("Provides-Extra"))


def test_the_command_loads_nothing_heavy():
    code = (
        "import sys; from jobrec_gym.__main__ import summary; summary(); print({'torch', 'litellm'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert shown.strip() == "set()"


def test_info_is_what_the_command_says_without_a_word(capsys):
    main([])
    without = capsys.readouterr().out
    main(["info"])

    assert capsys.readouterr().out == without


def test_the_command_recommends_by_cosine(capsys):
    market = load_market("default")
    first, second = recommend(None, market, "A0000005", n=2)
    main(["recommend", "A0000005", "-n", "2"])
    shown = capsys.readouterr().out

    assert shown.splitlines()[0] == f"A0000005  {market.applicant('A0000005').title}"
    assert f"  1  cosine {first.score:.2f}  {first.key}  {first.title}\n     shared   {first.shared[0]}" in shown
    assert f"  2  cosine {second.score:.2f}  {second.key}" in shown and "  3  cosine" not in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_command_recommends_the_first_applicant_something(capsys):
    main(["recommend", "-n", "1"])

    assert capsys.readouterr().out.startswith(f"{load_market('default').applicants.keys[0]}  ")


@pytest.fixture
def two_files(tmp_path, monkeypatch):
    (tmp_path / "jobs.csv").write_text("key,title,hard\nj1,\x1b[2JBaker,baking;hygiene\nj2,Welder,welding;hygiene\n")
    (tmp_path / "people.csv").write_text("key,hard\np1,baking\np2,welding;hygiene\n")
    monkeypatch.chdir(tmp_path)


def test_the_command_recommends_from_files_without_any_extra(two_files, capsys):
    main(["recommend", "p2", "--market", "jobs.csv", "--applicants", "people.csv", "--encoder", "hashing"])
    best, other = (line for line in capsys.readouterr().out.splitlines() if "cosine" in line)

    assert best == "  1  cosine 1.00  j2  Welder"
    assert other.endswith("j1  \\x1b[2JBaker"), "a terminal would obey the title"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("recommend A000x", "no applicant with the key 'A000x'. Did you mean 'A0000"),
        ("recommend -n 0", "`n` must be a whole number of at least 1, got 0"),
        ("recommend --market defalt", 'did you mean "default"?'),
        ("recommend --encoder hashing", "--encoder is for a file of jobs, and the market 'default' is no file"),
        ("look nowhere.csv", "nowhere.csv"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(words, told):
    with pytest.raises(SystemExit, match="^error: ") as stopped:
        main(words.split())
    assert told in str(stopped.value)
    assert "\n" not in str(stopped.value)
