"""The report in a browser: what one sees on a screen, on a phone and in the dark, and what keeps some from using it."""

import shutil

import pytest
import yaml

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.pages.page import write_report
from experiments.runs.build import build
from experiments.runs.folders import RUN_FORMAT, find_runs, read_run, write_json
from experiments.runs.training import run_training
from tests.browser import CHROMIUM, axe_file, seen

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

SORT = """
  const table = [...page.querySelectorAll("table")].find(table => /nDCG/.test(table.tHead.textContent));
  const head = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.trim() === "score");
  const column = () => [...table.tBodies[0].rows].map(row => row.cells[head].textContent);
  found.sorted = [];
  for (let click = 0; click < 2; click++) {
    table.tHead.rows[0].cells[head].querySelector("button").click();
    found.sorted.push(column());
  }
  found.aria = table.tHead.rows[0].cells[head].getAttribute("aria-sort");
"""


BROKEN = """
  const words = page.createTreeWalker(page.querySelector("main"), NodeFilter.SHOW_TEXT, null);
  found.broken = [];
  found.numbers = 0;
  for (let node = words.nextNode(); node; node = words.nextNode()) {
    if (node.parentElement.closest("pre, code, details") || !node.parentElement.closest("table")) continue;
    for (const number of node.data.matchAll(/\\d+/g)) {
      const range = page.createRange();
      range.setStart(node, number.index);
      range.setEnd(node, number.index + number[0].length);
      const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
      if (lines.size) found.numbers++;
      if (lines.size > 1) found.broken.push(node.data.slice(0, 60));
    }
  }
"""


@pytest.fixture(scope="module")
def page(small, tmp_path_factory):
    """A page of ten agents, most of them of two seeds, with two comparisons."""
    folder = tmp_path_factory.mktemp("runs")
    for reward in ("feedback", "hybrid"):
        overrides = ["experiment=strategies", f"reward={reward}", "total_timesteps=30"]
        run_training(build(small(*overrides)), folder / reward, overrides)
    for number in range(9):
        for seed in (0, 1):
            copy = shutil.copytree(folder / "feedback", folder / f"{number}-{seed}")
            config = yaml.safe_load((copy / "config.yaml").read_text())
            summary = read_run(copy).summary
            config |= {"name": f"algo.buffer_size={number}00, total_timesteps=20", "seed": seed}
            summary["seed"] = seed
            summary["held_out"]["score"] += 0.01 * number * seed
            if number == 8:
                summary["references"]["cosine"]["score"] -= 0.1
            (copy / "config.yaml").write_text(yaml.safe_dump(config))
            write_json(copy / "summary.json", summary, RUN_FORMAT)
    return write_report(find_runs(folder, "runs"), tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, True), (1920, False)])
def test_nothing_overflows_everybody_can_use_it_and_the_console_is_silent(page, width, dark, tmp_path):
    found, console = seen(page, width, tmp_path, axe=axe_file(), dark=dark)

    assert abs(found["width"] - width) <= 20  # less a scroll bar
    assert found["scrolled"] <= found["width"]
    assert found["over"] == found["scrolling"] == []
    assert found["pictures"] and all(found["pictures"])
    assert found["violations"] == [] and found["passes"] > 20
    assert found["dark"] is dark and (found["ground"] == "rgb(255, 255, 255)") is not dark
    assert found["errors"] == console == []


def test_no_number_is_broken_on_a_phone(page, tmp_path):
    found, _ = seen(page, 390, tmp_path, BROKEN)

    assert found["numbers"] > 20 and found["broken"] == []


def test_a_click_on_a_heading_sorts_its_table(page, tmp_path):
    found, _ = seen(page, 1280, tmp_path, SORT)

    falling, rising = ([float(cell.split()[0]) for cell in column] for column in found["sorted"])
    assert len(falling) == 13 and falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)
    assert found["aria"] == "ascending"


def test_an_error_on_the_page_would_be_found(page, tmp_path):
    broken = tmp_path / "broken.html"
    text = page.read_text().replace("<h1>", '<div style="width: 5000px; color: #ddd">wide</div><h1>')
    text = text.replace('<table role="table"', '<table style="width: 4000px" role="table"')
    broken.write_text(text.replace('"use strict";', '"use strict"; console.error("oh"); nothing.there;'))

    found, console = seen(broken, 1280, tmp_path, axe=axe_file())

    assert any("wide" in html for html in found["over"])
    assert any("Table: " in box for box in found["scrolling"])
    assert any(rule.startswith("color-contrast: ") for rule in found["violations"])
    assert any("oh" in line for line in console)
