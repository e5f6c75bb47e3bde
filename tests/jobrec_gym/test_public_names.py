"""What ``import jobrec_gym`` costs and offers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jobrec_gym


def loaded_after(code):
    """Modules that are loaded after some code in a fresh process."""
    show = f"{code}\nimport sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout.split())


def test_the_import_adds_nothing_but_itself_to_gymnasium():
    # An editable installation has a finder of its own, loaded at start-up in both.
    assert loaded_after("import gymnasium, jobrec_gym") - loaded_after("import gymnasium, importlib") == {"jobrec_gym"}


def test_the_import_registers_the_environment():
    assert (
        "JobRec-v0"
        in subprocess.run(
            [sys.executable, "-c", "import jobrec_gym, gymnasium; print(*gymnasium.registry)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    )


@pytest.mark.parametrize("name", jobrec_gym.__all__)
def test_every_public_name_is_there(name):
    assert getattr(jobrec_gym, name).__name__ == name
    assert name in dir(jobrec_gym)


def test_type_checkers_see_the_public_names():
    tree = ast.parse(Path(jobrec_gym.__file__).read_text())
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )

    assert sorted(alias.name for node in block.body for alias in node.names) == sorted(jobrec_gym.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'LLMSimulater'"):
        jobrec_gym.LLMSimulater  # noqa: B018
    with pytest.raises(ImportError, match="LLMSimulater"):
        from jobrec_gym import LLMSimulater  # noqa: F401
