"""The report in a browser: what a reader sees on a screen and on a phone."""

import json
import re
import shutil
import subprocess

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.pages.page import write_report
from experiments.runs.build import build
from experiments.runs.folders import find_runs
from experiments.runs.training import run_training

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
    "--dump-dom",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

# The page stands in a frame of the width that is asked for: a window cannot be as narrow as a phone.
HARNESS = """<!doctype html><html><body><pre id="found"></pre>
<iframe id="frame" style="width: WIDTHpx; height: 900px; border: 0"></iframe>
<script>
const found = {errors: []}, frame = document.getElementById("frame");
function look() {
  const page = frame.contentDocument, width = page.documentElement.clientWidth;
  const boxed = element => element.closest(".wide, pre") !== null && !element.matches(".wide, pre");
  found.width = width;
  found.scrolled = page.documentElement.scrollWidth;
  found.over = [...page.body.querySelectorAll("*")].filter(element => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && !boxed(element) && (box.right > width + 1 || box.left < -1);
  }).map(element => element.outerHTML.slice(0, 80));
  found.pictures = [...page.images].map(image => image.complete && image.naturalWidth > 0);
  const table = [...page.querySelectorAll("table")].find(table => /score/.test(table.tHead.textContent));
  const head = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.trim() === "score");
  const column = () => [...table.tBodies[0].rows].map(row => row.cells[head].textContent);
  found.sorted = [];
  for (let click = 0; click < 2; click++) {
    table.tHead.rows[0].cells[head].querySelector("button").click();
    found.sorted.push(column());
  }
  found.aria = table.tHead.rows[0].cells[head].getAttribute("aria-sort");
  document.getElementById("found").textContent = JSON.stringify(found);
}
frame.addEventListener("load", () => {
  frame.contentWindow.addEventListener("error", event => found.errors.push(event.message));
  Promise.all([...frame.contentDocument.images].map(image => image.decode().catch(() => null))).then(look);
});
frame.src = "PAGE";
</script></body></html>"""


@pytest.fixture(scope="module")
def page(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for reward in ("feedback", "hybrid"):
        overrides = ["experiment=strategies", f"reward={reward}", "total_timesteps=30"]
        run_training(build(small(*overrides)), folder / reward, overrides)
    return write_report(find_runs(folder, "runs"), folder / "report")


def seen(page, width, tmp_path):
    """What a browser of a width sees of a page."""
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.replace("WIDTH", str(width)).replace("PAGE", page.as_uri()))
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", harness.as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
    )
    told = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told and told[1], done.stderr[-2000:]
    text = told[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(text), console


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_and_the_console_is_silent(page, width, tmp_path):
    found, console = seen(page, width, tmp_path)

    assert abs(found["width"] - width) <= 20  # less a scroll bar
    assert found["scrolled"] <= found["width"]
    assert found["over"] == []
    assert found["pictures"] and all(found["pictures"])
    assert found["errors"] == console == []


def test_a_click_on_a_heading_sorts_its_table(page, tmp_path):
    found, _ = seen(page, 1280, tmp_path)

    falling, rising = ([float(cell.split()[0]) for cell in column] for column in found["sorted"])
    assert len(falling) == 5 and falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)
    assert found["aria"] == "ascending"


def test_an_error_on_the_page_would_be_found(page, tmp_path):
    broken = tmp_path / "broken.html"
    text = page.read_text().replace("<h1>", '<div style="width: 5000px">wide</div><h1>')
    broken.write_text(text.replace('"use strict";', '"use strict"; console.error("oh"); nothing.there;'))

    found, console = seen(broken, 1280, tmp_path)

    assert any("wide" in html for html in found["over"])
    assert any("oh" in line for line in console)
