"""What is said about the package in several places is the same."""

import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="needs the extra 'experiments'")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version_under_this_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())

    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_all_has_every_extra_but_those_for_developers_and_those_that_say_why():
    extras = PROJECT["optional-dependencies"]
    (all_of,) = extras["all"]
    named = set(all_of.removeprefix("jobrec-gym[").removesuffix("]").split(","))

    # `ray` holds other packages back: see pyproject.toml.
    assert extras.keys() - named - {"ray"} == {"all", "dev", "docs"}


@pytest.mark.parametrize("requirement", (ROOT / "constraints.txt").read_text().splitlines())
def test_a_constraint_names_one_version(requirement):
    assert requirement.startswith("#") or requirement.count("==") == 1
