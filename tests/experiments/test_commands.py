"""Every command is listed, and says at once what can be set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command, run_shell

import experiments
from experiments.__main__ import GROUPS, main, purpose_of
from jobrec_gym.simulators.stores import open_cache

FOLDER = Path(experiments.__file__).parent

ASK_EACH = """
import contextlib, io, json, runpy, sys
from hydra.core.global_hydra import GlobalHydra

answers = {}
for command in json.loads(sys.argv[1]):
    GlobalHydra.instance().clear()
    sys.argv = [command, "--help"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    answers[command] = {"said": said.getvalue(), "torch": "torch" in sys.modules}
    if "torch" in sys.modules:
        break  # whoever comes behind it is not to blame
print(json.dumps(answers))
"""


def commands():
    """Modules with a `main` that is run."""
    sources = {path: path.read_text() for path in sorted(FOLDER.rglob("*.py")) if path.name != "__main__.py"}
    return [
        f"experiments.{'.'.join(path.relative_to(FOLDER).with_suffix('').parts)}"
        for path, text in sources.items()
        if "\ndef main(" in text and '\nif __name__ == "__main__":' in text
    ]


def test_each_command_answers_help_without_torch():
    names = commands()
    assert len(names) > 15
    done = subprocess.run(
        [sys.executable, "-c", ASK_EACH, json.dumps(names)], cwd=FOLDER.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)

    assert [name for name, answer in answers.items() if answer["torch"]] == []
    assert list(answers) == names
    for name, answer in answers.items():
        assert "== Config ==" in answer["said"] or "usage: " in answer["said"], name


def test_every_command_is_listed_once_with_what_it_is_for(capsys):
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(f"experiments.{name}" for name in listed) == sorted(commands())
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40, "more than a screen"
    for name in listed:
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert len(purpose_of(name)) > 10 and line.endswith(purpose_of(name)) and len(line) <= 120


def test_an_unknown_command_is_refused_with_a_near_miss():
    with pytest.raises(SystemExit, match=r"no command 'trian'\. Did you mean train\? python -m experiments lists them"):
        main(["trian"])


def test_a_command_gets_what_stands_behind_its_name():
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "llm.cache", "path=nowhere.sqlite"],
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: `path` must be a cache that exists, got 'nowhere.sqlite'."


@pytest.mark.parametrize("words", [[], ["llm.cache", "--help"], ["llm.cache", "path=answers.sqlite"]], ids=" ".join)
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_has_left_is_no_error(tmp_path, words, unbuffered):
    open_cache(tmp_path / "answers.sqlite").close()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "experiments", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent), "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [[], ["llm.cache", "--help"], ["llm.cache", "path=answers.sqlite"]], ids=" ".join)
def test_an_output_that_is_full_is_told_in_one_line(tmp_path, words):
    open_cache(tmp_path / "answers.sqlite").close()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "experiments", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device. Write it to another place.\n"


def test_the_list_is_printed_where_the_encoding_of_files_is_ascii():
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "experiments"]
    listed = subprocess.run(command, cwd=FOLDER.parent, env=env, check=True, capture_output=True, text=True).stdout
    assert "  evaluate" in listed


def test_the_list_imports_none_of_the_commands():
    code = (
        "import sys; from experiments.__main__ import main; main([]); assert not {'torch', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, check=True, capture_output=True)


@pytest.mark.parametrize("debug", [[], ["debug=true"]], ids=["a line", "all of it"])
def test_a_fork_says_what_a_process_says_and_ends_alike(debug):
    command = ["experiments.llm.cache", "no_such_option=1", *debug]
    process = subprocess.run([sys.executable, "-m", *command], cwd=FOLDER.parent, capture_output=True, text=True)
    fork = run_command("llm.cache", *command[1:])

    assert (fork.returncode, fork.stdout) == (process.returncode, process.stdout) == (1, "")
    assert fork.stderr.splitlines()[-1] == process.stderr.splitlines()[-1]
    assert ("Traceback" in fork.stderr) is ("Traceback" in process.stderr) is bool(debug)


def test_commands_in_lines_of_a_shell_are_forks_and_the_rest_is_not(tmp_path):
    command = "python -m experiments.llm.cache path=nowhere.sqlite"
    done = run_shell(
        f"python -c 'import sys; print(*sys.modules)'\n{command} || echo ended with $?\n{command}", tmp_path
    )
    whole = run_shell("python -m experiments.llm.cache no_such_option=1 debug=true", tmp_path)

    loaded, ended = done.stdout.splitlines()
    assert "torch" not in loaded.split() and ended == "ended with 1" and done.returncode == 1
    assert done.stderr == 2 * "error: `path` must be a cache that exists, got 'nowhere.sqlite'.\n"
    assert "Traceback" in whole.stderr and "commands.py" in whole.stderr, "a fork has begun there"
