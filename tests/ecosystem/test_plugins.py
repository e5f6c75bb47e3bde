"""The example of each page in docs/plugins learns, as it is written and where answers move the applicant.

`make test-ecosystem`.
"""

import ast
import gc
import importlib.util
import re
import time
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {page.stem: page for page in sorted((ROOT / "docs" / "plugins").glob("*.md")) if page.stem != "README"}
BLOCK = re.compile(r"^```python ecosystem\n(.*?)^```", re.MULTILINE | re.DOTALL)
WRITTEN = 'ENV_ID = "JobRec-v0"'  # in the first block of a page, with the other one in a comment behind it
ENVIRONMENTS = ("JobRec-v0", "JobRecCareer-v0")

pytestmark = [
    pytest.mark.ecosystem,
    # What other libraries warn of is theirs to mend; what these packages do is ours.
    pytest.mark.filterwarnings("default", "error:::jobrec_gym", "error:::dynaq_algo"),
]


class Block:
    """One code block of a page, at its own lines so that errors point into the page."""

    def __init__(self, page, match):
        self.code = "\n" * page.read_text()[: match.start(1)].count("\n") + match[1]
        self.path = str(page)

    @property
    def imports(self):
        """The packages that it imports."""
        nodes = [node for node in ast.walk(ast.parse(self.code))]
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        return {name.partition(".")[0] for name in names}

    @property
    def algorithms(self):
        """What it trains: the first argument of each call of `judge`."""
        return [
            ast.literal_eval(node.args[0])
            for node in ast.walk(ast.parse(self.code))
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "judge"
        ]

    def run(self, env_id, namespace):
        exec(compile(self.code.replace(WRITTEN, f'ENV_ID = "{env_id}"'), self.path, "exec"), namespace)


def blocks(page):
    return [Block(PAGES[page], match) for match in BLOCK.finditer(PAGES[page].read_text())]


@cache
def play(page, env_id):
    """Runs a page once: the figures of its algorithms and the seconds that each block took, up to the first error."""
    namespace, seconds, error = {"__name__": "example"}, {}, None
    for block in blocks(page):
        started, known = time.process_time(), set(namespace.get("results", {}))
        try:
            block.run(env_id, namespace)
            assert namespace["ENV_ID"] == env_id, f"the first block has no line {WRITTEN!r}"
        except Exception as raised:
            error = raised
            break
        finally:
            new = set(namespace.get("results", {})) - known
            seconds |= dict.fromkeys(new, (time.process_time() - started) / max(len(new), 1))
    results = namespace.get("results", {})
    namespace.clear()
    gc.collect()  # what libraries left open is complained of here, not at the end of the session
    return results, seconds, error


EXAMPLES = [
    pytest.param(page, algorithm, env_id, id=f"{page}-{algorithm} on {env_id}")
    for page in PAGES
    for env_id in ENVIRONMENTS
    for block in blocks(page)
    for algorithm in block.algorithms
]


@pytest.mark.parametrize(("page", "algorithm", "env_id"), EXAMPLES)
def test_the_example_of_a_page_learns(page, algorithm, env_id, tmp_path, monkeypatch, record_property):
    needed = set().union(*(block.imports for block in blocks(page)))
    if missing := sorted(name for name in needed if importlib.util.find_spec(name) is None):
        pytest.skip(f"needs {', '.join(missing)}")

    monkeypatch.chdir(tmp_path)  # examples write their files here
    results, seconds, error = play(page, env_id)
    if algorithm not in results:
        raise error
    mean, random, standard_error = results[algorithm]
    record_property("figures", f"{mean:.2f} {random:.2f} {standard_error:.2f} {seconds[algorithm]:.0f}")

    assert mean > random + 3 * standard_error
