"""The examples of README and docs run as they are written."""

import re
from pathlib import Path

import pytest

pytest.importorskip("dynaq_algo.dynaq", reason="needs the extra 'algo'")

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def examples(page):
    """Python blocks of a page, each at its own lines so that errors point into the page.

    But those marked `notest`, and those marked `ecosystem`, which want libraries of their own: `make test-ecosystem`.
    """
    text = page.read_text()
    for match in BLOCK.finditer(text):
        language, *marks = match["info"].split() or [""]
        if language == "python" and not {"notest", "ecosystem"} & set(marks):
            yield "\n" * text[: match.start("code")].count("\n") + match["code"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "example"}
    blocks = list(examples(page))
    if not blocks:
        pytest.skip("a page without examples")
    for code in blocks:
        exec(compile(code, str(page), "exec"), namespace)


def test_all_plug_ins_play_the_same_world():
    pages = [page for page in PAGES if page.parent.name == "plugins" and page.name != "README.md"]
    first = {next(match["code"] for match in BLOCK.finditer(page.read_text())) for page in pages}
    assert len(pages) >= 10
    assert len(first) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
