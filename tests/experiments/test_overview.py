import subprocess
import sys
from pathlib import Path

import pytest

import experiments
from experiments.__main__ import GROUPS, main, purpose_of

FOLDER = Path(experiments.__file__).parent


def commands():
    """Modules that say how they are run."""
    names = {path: ".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("*.py")}
    return {
        name
        for path, name in names.items()
        if path.read_text().startswith(f'"""``python -m experiments.{name}') and path.name != "__main__.py"
    }


def test_every_command_is_listed_once_with_what_it_is_for(capsys):
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted(commands())
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


def test_the_list_imports_none_of_the_commands():
    code = (
        "import sys; from experiments.__main__ import main; main([]); assert not {'torch', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, check=True, capture_output=True)
