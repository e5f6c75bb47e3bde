"""`make test-ecosystem`: docs/plugins and docs/tracking.md in environments of their own; docs/results/ecosystem.md.

Results are kept beside the environments, a file a page, so that a part can be run anew:

    python tests/ecosystem/run.py --only rllib --only torchrl
"""

import argparse
import os
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-ecosystem"
TABLE = ROOT / "docs" / "results" / "ecosystem.md"
SPECS = tomllib.loads((Path(__file__).parent / "venvs.toml").read_text())
TOOLS = {name: spec for name, spec in SPECS.items() if "tests" in spec}  # with tests of their own
VENVS = {name: spec for name, spec in SPECS.items() if name not in TOOLS}  # in which the pages run
PAGES = sorted(page.stem for page in (ROOT / "docs" / "plugins").glob("*.md") if page.stem != "README")
# The package that a page is about, where it is not the page's name.
PACKAGES = {
    "cleanrl": "torch",
    "continuous_actions": "stable-baselines3",
    "pufferlib": "pufferlib-core",
    "rllib": "ray",
    "sb3_contrib": "sb3-contrib",
    "stable_baselines3": "stable-baselines3",
}


def install(name, spec):
    """Makes the environment, or leaves it as it is if it was made of the same requirements; returns its Python."""
    folder = HOME / name.replace(" ", "-")
    python, stamp = folder / "bin" / "python", folder / ".installed"
    bare = spec.get("without_dependencies", [])
    wanted = repr((spec["requirements"], bare)) + (ROOT / "pyproject.toml").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # Of the project's tried versions all but Gymnasium's, and filelock's, which Tianshou's virtualenv wants older.
    constraints = folder / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines(keepends=True)
    constraints.write_text("".join(line for line in lines if not line.startswith(("gymnasium", "filelock"))))
    pip = [python, "-m", "pip", "install", "--quiet"]
    own = ["--editable", f"{ROOT}[experiments]", "pytest>=8"]
    subprocess.run([*pip, "--constraint", constraints, *own, *spec["requirements"]], check=True)
    if bare:
        subprocess.run([*pip, "--no-deps", *bare], check=True)
    stamp.write_text(wanted)
    return python


def run(python, name, *which):
    """Runs tests in a process of its own, with one thread, and keeps what came out under a name."""
    report = python.parents[1] / "results" / f"{name}.xml"
    report.parent.mkdir(exist_ok=True)
    command = [python, "-m", "pytest", "-m", "ecosystem", *which, "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "-o", "junit_family=xunit1", f"--junitxml={report}"], cwd=ROOT, env=environment)


def read(venv, page):
    """What came out: algorithm and environment -> cell of the table."""
    report = HOME / venv.replace(" ", "-") / "results" / f"{page}.xml"
    cells = defaultdict(lambda: "not run yet")
    if not report.exists():
        return cells
    for case in ElementTree.parse(report).iter("testcase"):
        example = case.get("name").partition("[")[2].removesuffix("]").removeprefix(f"{page}-")
        example = tuple(example.split(" on "))
        skipped, figures = case.find("skipped"), case.find("properties/property[@name='figures']")
        if skipped is not None:
            cells[example] = f"not run: {skipped.get('message')}"
        elif figures is None:
            failure = case.find("failure")
            message = (case if failure is None else failure).get("message", "")
            cells[example] = "**failed**: " + message.split("\n")[0].replace("|", "\\|")
        else:
            mean, chance, error, seconds = figures.get("value").split()
            passed = "passed" if case.find("failure") is None else "**failed**"
            cells[example] = f"{passed}: {mean} against {chance}, ± {error}; {seconds} s"
    return cells


def version(python, package):
    """Of a package in an environment; None where it is not installed, or the environment not made yet."""
    if not python.exists():
        return None
    code = f"from importlib.metadata import version; print(version({package!r}))"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return shown.stdout.strip() or None


def write_table():
    pythons = {name: HOME / name.replace(" ", "-") / "bin" / "python" for name in VENVS}
    rows = []
    for page in PAGES:
        found = {venv: read(venv, page) for venv in VENVS}
        package = PACKAGES.get(page, page)
        versions = {version(python, package) for python in pythons.values()} - {None}
        for example in dict.fromkeys(example for cells in found.values() for example in cells):
            cells = [found[venv][example] for venv in VENVS]
            named = f"{package} {', '.join(sorted(versions))}"
            rows.append([f"[{page}](../plugins/{page}.md)", named, *example, *cells])
    tools = [row for name in TOOLS for row in read_tools(name)]
    header = ["example", "library", "algorithm", "environment", *VENVS]
    plugins, others = table(header, rows), table(["tool", "test", "result"], tools)
    TABLE.write_text(INTRODUCTION + plugins + TRACKING + others)
    print(plugins + others)
    return "failed" not in plugins + others


def table(header, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]) + "\n"


def read_tools(name):
    """Rows of the tests of a tool that ran in its environment."""
    folder = HOME / name
    report = folder / "results" / f"{name}.xml"
    if not report.exists():
        return [[name, "", "not run yet"]]
    named = ", ".join(f"{package} {version(folder / 'bin' / 'python', package)}" for package in TOOLS[name]["packages"])
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None:  # that is of another tool
            failed = case.find("failure") is not None or case.find("error") is not None
            words = case.get("name").removeprefix("test_").replace("_", " ")
            rows.append([named, words, "**failed**" if failed else "passed"])
    return rows


INTRODUCTION = """# Plug-ins

`make test-ecosystem` writes this page. It makes a virtual environment for each version of Gymnasium, and runs every
example of [docs/plugins](../plugins/README.md) there: once as it is written, and once with `ENV_ID` set to
`JobRecCareer-v0`. An example passes if its mean return is above chance by three standard errors. There are eight jobs,
planted feedback, and 200 applicants whom the agent never met. On `JobRec-v0` each gets ten recommendations. On
`JobRecCareer-v0` each gets at most 40, fewer if they leave. (With MaskablePPO each gets four different jobs.) A cell
has the mean return, the mean return by chance, the standard error of the difference, and seconds of CPU on one thread.
RLlib's environment runner is a process of its own, whose time is not counted. The page on
[plug-ins](../plugins/README.md) says how much can be earned. Agents with a return of 2.61 or 7.44 recommend one and
the same job to everybody.

"""

TRACKING = """
## Trackers and Optuna

The commands of [Tracking and tuning](../tracking.md), with the real packages, offline.

"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PAGES, help="pages to run, all by default")
    parser.add_argument("--venv", action="append", choices=SPECS, help="virtual environments, all by default")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table of what was run")
    arguments = parser.parse_args()
    for name in [] if arguments.table else arguments.venv or (VENVS if arguments.only else SPECS):
        python = install(name, SPECS[name])
        if name in TOOLS:
            run(python, name, f"tests/ecosystem/{TOOLS[name]['tests']}")
            continue
        for page in arguments.only or PAGES:
            run(python, page, "tests/ecosystem", "-k", f"[{page}-")
    sys.exit(0 if write_table() else 1)


if __name__ == "__main__":
    main()
