"""Pages in headless Chromium: what a reader sees at a width, and what axe-core finds that keeps some from using it."""

import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

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
DARK = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]

# The page stands in a frame of the width that is asked for: a window cannot be as narrow as a phone.
HARNESS = """<!doctype html><html lang="en"><body><pre id="found"></pre>
<iframe id="frame" style="width: WIDTHpx; height: 900px; border: 0"></iframe>
<script>
const found = {errors: []}, frame = document.getElementById("frame"), axe = AXE;
async function look() {
  const page = frame.contentDocument, width = page.documentElement.clientWidth;
  const boxed = element => element.closest(".wide, pre") !== null && !element.matches(".wide, pre");
  found.width = width;
  found.scrolled = page.documentElement.scrollWidth;
  found.dark = frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches;
  found.ground = frame.contentWindow.getComputedStyle(page.body).backgroundColor;
  found.over = [...page.body.querySelectorAll("*")].filter(element => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && !boxed(element) && (box.right > width + 1 || box.left < -1);
  }).map(element => element.outerHTML.slice(0, 80));
  found.scrolling = [...page.querySelectorAll(".wide")].filter(box => box.scrollWidth > box.clientWidth + 1)
    .map(box => box.getAttribute("aria-label").slice(0, 80));
  found.pictures = [...page.images].map(image => image.complete && image.naturalWidth > 0);
  if (axe) {
    await new Promise((resolve, reject) => {
      const script = page.createElement("script");
      Object.assign(script, {src: axe, onload: resolve, onerror: reject});
      page.head.append(script);
    });
    const result = await frame.contentWindow.axe.run(page);
    found.violations = result.violations.map(rule => `${rule.id}: ${rule.nodes[0].html.slice(0, 120)}`);
    found.passes = result.passes.length;
  }
  LOOK
  document.getElementById("found").textContent = JSON.stringify(found);
}
frame.addEventListener("load", () => {
  frame.contentWindow.addEventListener("error", event => found.errors.push(event.message));
  // Not `decode()`: of a large picture that is out of sight it never ends.
  const shown = image => image.complete || new Promise(ends => image.addEventListener("load", ends));
  Promise.all([...frame.contentDocument.images].map(shown)).then(look);
}, {once: true});
frame.src = "PAGE";
</script></body></html>"""


def axe_file():
    """Where axe-core's script is; skips where there is none."""
    package = find_spec("axe_playwright_python")
    if package is None:
        pytest.skip("needs axe-core: pip install --no-deps axe-playwright-python")
    return Path(package.submodule_search_locations[0]) / "axe.min.js"


def seen(page, width, tmp_path, look="", axe=None, dark=False):
    """What a browser of a width sees of a page, and the lines of its console.

    Args:
        page: An HTML file.
        width: Of the page, in CSS pixels.
        tmp_path: For the browser's own files.
        look: JavaScript that adds to `found`, given `page`, the document.
        axe: Its script, to ask it for violations; None asks nothing.
        dark: Whether the reader prefers dark pages.
    """
    harness = tmp_path / "harness.html"
    script = json.dumps(axe.as_uri()) if axe else "null"
    text = HARNESS.replace("WIDTH", str(width)).replace("PAGE", page.as_uri()).replace("LOOK", look)
    harness.write_text(text.replace("= AXE", f"= {script}"))
    flags = [*FLAGS, *(DARK if dark else []), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=2000,1000"]
    done = subprocess.run([CHROMIUM, *flags, harness.as_uri()], capture_output=True, text=True, timeout=900)
    told = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told and told[1], done.stderr[-2000:]
    text = told[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(text), console
