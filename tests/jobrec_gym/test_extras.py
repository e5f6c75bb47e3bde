import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from jobrec_gym import extras
from jobrec_gym.extras import install_command, what_works

ROOT = Path(__file__).parents[2]


class Installed:
    version = "0.1.0"

    def __init__(self, url=None):
        self.url = url

    def read_text(self, name):
        assert name == "direct_url.json"
        return None if self.url is None else json.dumps({"url": self.url, "archive_info": {}})


@pytest.fixture
def no_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages" / "jobrec_gym" / "extras.py"))


def test_in_a_checkout_the_command_names_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert install_command("llm") == 'pip install -e ".[llm]"'
    monkeypatch.chdir(tmp_path)
    assert install_command("llm") == f'pip install -e "{ROOT}[llm]"'


def test_from_a_wheel_the_command_names_the_wheel(monkeypatch, no_checkout):
    url = "file:///downloads/jobrec_gym-0.1.0-py3-none-any.whl"
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(url))
    assert install_command("llm") == f'pip install "jobrec-gym[llm] @ {url}"'


def test_a_wheel_found_by_its_name_is_named_by_its_file(monkeypatch, no_checkout):
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert install_command("llm") == 'pip install "jobrec_gym-0.1.0-py3-none-any.whl[llm]"'


def test_a_copy_of_the_source_sends_to_a_checkout(monkeypatch, no_checkout):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert install_command("llm") == 'pip install -e ".[llm]" in a checkout of jobrec-gym'


def test_one_sentence_says_what_works(monkeypatch, tmp_path):
    assert what_works() == what_works("checkout")
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages" / "jobrec_gym" / "extras.py"))
    assert what_works() == what_works("wheel")
    assert "`python -m experiments` and `make` need a checkout" in what_works("wheel")


@pytest.mark.parametrize("origin", ["checkout", "wheel"])
def test_the_quickstart_has_the_same_sentence(origin):
    page = " ".join((ROOT / "docs" / "quickstart.md").read_text().split())
    assert what_works(origin) in page


def test_nothing_names_a_package_that_no_index_has():
    """`pip install "jobrec-gym[llm]"` finds nothing: the project is on no index."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "conf").rglob("*.yaml")]
    for path in [*pages, *(file for folder in ("jobrec_gym", "experiments") for file in (ROOT / folder).rglob("*.py"))]:
        assert not re.search(r"pip install [\"'`]*jobrec-gym", path.read_text()), path.relative_to(ROOT)
