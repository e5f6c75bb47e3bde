import errno
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import RuleSimulator, load_interactions, load_market, recommend
from jobrec_gym.__main__ import extras_found, main, requirements_by_extra, summary
from jobrec_gym.candidates import make_sampler
from jobrec_gym.career import JobRecCareerEnv
from jobrec_gym.dynamics import make_dynamics
from jobrec_gym.extras import install_command, what_works
from jobrec_gym.market import MarketError
from jobrec_gym.market.context import context_fields
from jobrec_gym.near_miss import best_match
from jobrec_gym.simulators.arguments import unknown_argument
from jobrec_gym.terminal import output_may_fail

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
        ("recommend --encoder hashing", "a file of jobs can take --encoder, but the market 'default' is no file"),
        ("look nowhere.csv", "nowhere.csv does not exist"),
        ("look defalt", "defalt does not exist (looked in "),
        ("look defalt", "Did you mean 'default'?"),
        ("look cvs:nowhere.csv", "Did you mean 'csv:nowhere.csv'?"),
        ("look LICENSE", "or have its kind before its path, e.g. 'csv:LICENSE'."),
        ("recommend 99999", "`applicant` must be a row in [0, 1000), got 99999"),
        ("recommend --market nowhere.csv", "nowhere.csv does not exist"),
        ("recommend --market=", "`--market` must not be empty"),
        ("infos", "there is no command 'infos'. Did you mean info?"),
        ("xyz", "there is no command 'xyz'. There are"),
        ("recommend --markt x", "there is no option '--markt'. Did you mean --market?"),
        ("recommend A0000005 A0000006", "'A0000006' is one argument too many"),
        ("recommend -n x", "argument -n: invalid int value: 'x'"),
        ("look", "path must be given, usage: jobrec look [-h] path [applicants]"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(words, told):
    with pytest.raises(SystemExit, match="^error: ") as stopped:
        main(words.split())
    assert told in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_a_number_is_a_row_if_it_is_no_key(two_files, tmp_path, capsys):
    main(["recommend", "5", "-n", "1"])
    assert capsys.readouterr().out.startswith("A0000005  ")
    (tmp_path / "people.csv").write_text("key,hard\n1,baking\n0,welding\n")
    for typed, best in (("0", "j2"), ("1", "j1")):
        main(["recommend", typed, "--market", "jobs.csv", "--applicants", "people.csv", "--encoder", "hashing"])
        assert best in capsys.readouterr().out.splitlines()[3], "a key wins"


def test_a_market_of_the_package_is_looked_at_by_its_name(capsys):
    main(["look", "default"])
    assert capsys.readouterr().out.rstrip().endswith('load_market("default")')


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(SystemExit, match="^error: the path is empty"):
        main(["look", ""])


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"jobrec-gym {metadata.version('jobrec-gym')}"


@pytest.mark.parametrize("words", [["info"], ["--help"], ["recommend"]], ids=" ".join)
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_has_left_is_no_error(words, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "jobrec_gym", *words],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0 if words == ["--help"] and unbuffered else 1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "jobrec_gym"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device. Write it to another place.\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("errors", [subprocess.PIPE, subprocess.STDOUT], ids=["stdout", "stdout and stderr"])
def test_what_has_more_to_do_than_to_print_goes_on_without_a_reader(tmp_path, unbuffered, errors):
    lines = (
        "import sys",
        "from contextlib import suppress",
        "from pathlib import Path",
        "from jobrec_gym.terminal import output_may_fail",
        "sys.stdin.read()",
        "for n in range(2):",
        "    with suppress(BrokenPipeError), output_may_fail(goes_on=True):",
        "        print(n)",
        "print('more', file=sys.stderr)",
        "Path('done').touch()",
    )
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    ) as program:
        program.stdout.close()
        program.stdin.close()
        said = program.stderr.read() if program.stderr else "more\n"

    assert (program.returncode, said) == (0, "more\n")
    assert (tmp_path / "done").exists()


def test_an_error_of_its_own_is_told_also_without_a_reader(tmp_path):
    program = (
        "import sys; from jobrec_gym.terminal import output_may_fail; sys.stdin.read()\n"
        "with output_may_fail(goes_on=True): print(1); raise SystemExit('error: my own')"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", program], env=environment, text=True, **pipes) as started:
        started.stdout.close()
        started.stdin.close()
        said = started.stderr.read()
    assert (started.returncode, said) == (1, "error: my own\n")


def test_letters_that_the_output_cannot_encode_are_spelt_out(tmp_path):
    file = tmp_path / "jobs.csv"
    file.write_text("key,hard\n\u00e4,\u7d0d\u54c1\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "jobrec_gym", "look", str(file)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe4" in done.stdout and "\\u7d0d\\u54c1" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape"])
def test_a_command_spells_out_letters_that_the_output_cannot_encode(encoding):
    done = subprocess.run(
        [sys.executable, "-c", "from jobrec_gym.terminal import output_may_fail\nwith output_may_fail(): print('ä')"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xe4\n", "")


def test_a_pipe_may_take_the_place_of_a_file(tmp_path):
    lines = (
        "import os, sys",
        "from jobrec_gym.terminal import output_may_fail",
        "os.dup2(os.dup(2), 1)",
        "with output_may_fail(): print('\u00e4')",
    )
    with (tmp_path / "file").open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines)],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "\\xe4\n")


def test_another_file_that_is_full_is_not_taken_for_the_output(capfd):
    with pytest.raises(OSError, match="No space left"), output_may_fail():
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_misspelt_name_is_recognised_in_any_case():
    assert best_match("DQN", ["dynaq", "dqn"]) == "dqn"
    assert best_match("dqn", ["DQN", "Dqn"]) == "DQN"
    assert best_match("zzz", ["dqn"]) is None
    assert best_match("", ["dqn"]) is best_match("dqn", []) is None


def log_with(market, folder, **cells):
    file = folder / "log.csv"
    row = {"applicant": market.applicants.keys[0], "job": market.jobs.keys[0], **cells}
    file.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    return file


@pytest.mark.parametrize(
    ("use", "meant"),
    [
        (lambda market, _: make_sampler("UNIFORM"), '"uniform"'),
        (lambda market, _: make_dynamics({"type": "CAREER"}), "'career'"),
        (lambda market, _: make_dynamics({"type": "career", "PATIENCE": 3}), "'patience'"),
        (lambda market, _: JobRecCareerEnv(market, hidden=["PATIENCE"]), "'patience'"),
        (lambda market, _: JobRecCareerEnv(market).reset(options={"APPLICANT_ID": 0}), "'applicant_id'"),
        (lambda market, _: RuleSimulator(weights={"SENIORITY": 1.0}).bind(market), "'seniority'"),
        (lambda market, _: recommend(len, market, 0, observation={"PAIR_FEATURES": "all"}), "'pair_features'"),
        (lambda market, _: context_fields({"salary": "NUMBER"}), "'number'"),
        (lambda market, folder: load_interactions(log_with(market, folder), market, {"JOB": "job"}), "'job'"),
    ],
)
def test_a_name_in_other_case_is_suggested_wherever_names_are_read(market, tmp_path, use, meant):
    with pytest.raises(ValueError, match=f"Did you mean {meant}\\?"):
        use(market, tmp_path)


def test_a_word_of_a_log_and_an_argument_of_a_simulator_are_suggested_in_any_case(market, tmp_path):
    with pytest.raises(ValueError, match=r"`decisions=\{'SAVED': 'save'\}`"):
        load_interactions(log_with(market, tmp_path, decision="SAVED"), market)
    assert "did you mean `budget.max_calls`?" in str(unknown_argument("MAX_CALLS", ["model", "budget.max_calls"]))


def test_names_that_are_no_texts_are_refused_as_others_are(market):
    with pytest.raises(ValueError, match="`dynamics` of type 'career' cannot be made of"):
        make_dynamics({"type": "career", 5: 1})
    with pytest.raises(ValueError, match=r"`weights` must name parts of .*got \[5\]\.$"):
        RuleSimulator(weights={5: 1.0}).bind(market)


def test_a_missing_file_of_jobs_is_named_before_anything_else():
    with pytest.raises(MarketError, match=r"nowhere\.csv does not exist"):
        load_market("csv:nowhere.csv")
