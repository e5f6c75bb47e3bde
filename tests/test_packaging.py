"""What is said about the package in several places is the same."""

import re
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


def test_the_page_on_citing_says_what_the_citation_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    page = (ROOT / "docs" / "cite.md").read_text()

    assert f"{{{citation['title']}}}" in page
    assert f"version = {{{citation['version']}}}" in page and f"license = {{{citation['license']}}}" in page


def test_all_has_every_extra_but_those_for_developers_and_those_that_say_why():
    extras = PROJECT["optional-dependencies"]
    (all_of,) = extras["all"]
    named = set(all_of.removeprefix("jobrec-gym[").removesuffix("]").split(","))

    # `ray` and `video` hold other packages back, the others are heavy: see pyproject.toml.
    assert extras.keys() - named - {"ray", "video", "wandb", "mlflow", "optuna"} == {"all", "dev", "docs"}


@pytest.mark.parametrize("requirement", (ROOT / "constraints.txt").read_text().splitlines())
def test_a_constraint_names_one_version(requirement):
    assert requirement.startswith("#") or requirement.count("==") == 1


DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_a_container_runs_the_commands_of_the_readme():
    """Read, not built: where the tests run there is no Docker."""
    readme = (ROOT / "README.md").read_text()
    block = readme[readme.index("## Two commands") :].split("```")[1]
    commands = re.findall(r"^make \w+", block, re.MULTILINE)
    shown = re.findall(r"^#   (docker .+)$", DOCKERFILE, re.MULTILINE)
    tag = shown[0].split()[-2]

    assert len(commands) == 2
    assert shown == [f"docker build --tag {tag} .", *(f"docker run --rm {tag} {command}" for command in commands)]
    assert "\n".join(shown) in (ROOT / "docs" / "quickstart.md").read_text()
    assert f"CMD {commands[0].split()}".replace("'", '"') in DOCKERFILE


def test_a_container_has_the_python_that_the_package_asks_for_and_what_make_installs():
    (version,) = re.findall(r"^FROM python:([\d.]+)", DOCKERFILE, re.MULTILINE)
    lines = DOCKERFILE.splitlines()

    assert PROJECT["requires-python"] == f">={version}"
    assert "RUN make install" in lines[lines.index("COPY --chown=jobrec . .") :]


def test_a_container_is_built_from_what_git_holds():
    """Docker reads a pattern from the top of the folder, git at any depth unless it begins with a slash."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    rooted = {line.strip("/") if line.startswith("/") else f"**/{line.rstrip('/')}" for line in ignored}

    assert set((ROOT / ".dockerignore").read_text().splitlines()) == {*rooted, ".git"}
