"""The built site in a browser: nothing overflows, everybody can use it, and a search finds what is public first.

Run by `make test-pages`, which builds the site before.
"""

import json
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, axe_file, seen

SITE = Path(__file__).parents[1] / "build" / "docs"

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="needs the site: make docs"),
]

PAGES = [
    "index.html",
    "gallery.html",
    "leaderboard.html",
    "tutorials/compare_learners.html",
    "api/classes/jobrec_gym.wrappers.HybridReward.html",
]

# What scrolls in a box of its own may be wider than the page.
WIDER = """
  const inBox = element => element.closest("pre, .table-wrapper, .highlight, .output") !== null;
  found.wider = [...page.querySelectorAll("main *")]
    .filter(element => !inBox(element) && element.getBoundingClientRect().right > width + 1)
    .map(element => element.outerHTML.slice(0, 80));
"""

SEARCH = """
  frame.contentWindow.eval("Search").performSearch(QUERY);
  await new Promise(resolve => setTimeout(resolve, 5000));
  found.hits = [...page.querySelectorAll("#search-results li > a")].map(link => link.getAttribute("href"));
"""


@pytest.mark.parametrize("width", [390, 1400, 1920])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows_and_everybody_can_use_it(name, width, tmp_path):
    found, _ = seen(SITE / name, width, tmp_path, look=WIDER, axe=axe_file(), dark=width == 1920)

    assert abs(found["width"] - width) <= 20  # less a scroll bar
    assert found["scrolled"] <= found["width"]
    assert found["wider"] == []
    assert all(found["pictures"])
    assert found["violations"] == []
    assert found["passes"] > 10, "axe-core has looked"


@pytest.mark.parametrize("query", ["predict", "candidates", "LLMSimulator", "market", "feedback"])
def test_a_search_finds_what_is_public_first(query, tmp_path):
    found, _ = seen(SITE / "search.html", 1400, tmp_path, look=SEARCH.replace("QUERY", json.dumps(query)))

    assert len(found["hits"]) > 3
    assert not [hit for hit in found["hits"] if "api/inner" in hit]
