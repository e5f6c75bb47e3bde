"""Pictures of the page for README and docs, and a short recording. A browser takes them from a server of its own."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.runs.folders import RunError
from experiments.web.load import port_of
from jobrec_gym.extras import install_command
from jobrec_gym.market import SENIORITY_LEVELS
from jobrec_gym.whole_files import whole_file

__all__ = ["CHROMIUM", "browser", "pictured"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Path of an installed browser; ``None`` if there is none."""

_SIZES = {"": (1_400, 1_000), "_phone": (390, 844)}
_RECORDED = (960, 720)
_FRAME_MS = 1_400
_LONGEST_MS = 180_000  # time limit for something to appear on the page, on a busy machine
_LEARNING_MS = 1_800_000  # time limit for the agents of careers to learn, on a busy machine
_PICTURED, _RECORDED_ANSWERS = 5, 8  # after how many answers a picture is taken, and how many the recording has
_COLOURS = 128
_OCCUPATION, _LEVEL = "data scientist", 3
"""The visitor's occupation in the pictures, one of the default market, and the visitor's level."""

_NEAR = 1
"""The visitor applies to jobs that are at most this many levels away, and ignores all others; docs/app.md says so."""

_CAREER = "applicant=2"
"""The applicant whose career is pictured; docs/app.md compares the applicant with others."""


@contextmanager
def browser() -> Iterator[Any]:
    """Debian's Chromium under Playwright.

    Raises:
        RunError: If Playwright or Chromium is not installed.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError:
        raise RunError(f"`pictures` needs Playwright: {install_command('dev')}.") from None
    if CHROMIUM is None:
        raise RunError("`pictures` needs Chromium: apt-get install chromium.")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield started
        except Error as error:
            raise RunError(f"the browser could not go on: {error.message.partition(chr(10))[0]}") from error
        finally:
            started.close()


def pictured(folder: Path, server_folder: Path) -> list[Path]:
    """Writes pictures of the tabs "You" and "A career" at both widths, ``app*.png``, and a recording, ``app.gif``.

    Args:
        folder: Where the pictures are written.
        server_folder: Folder of the server. Its career agents are used, or made; visitors are kept elsewhere.

    Raises:
        RunError: If there is no browser, or the server does not start.
    """
    with _server(server_folder) as address, browser() as started:
        found = []
        for suffix, (width, height) in _SIZES.items():
            page = _page(started, width, height)
            _begin(page, address)
            for _ in range(_PICTURED):
                _answer(page, _decision(page))
            found.append(_written(page.screenshot(), folder / f"app{suffix}.png"))
            page.goto(f"{address}/career?{_CAREER}")
            # The page reloads itself until the agents have learned, so it is not loaded again here.
            page.get_by_role("heading", name="DynaQ, gamma").wait_for(timeout=_LEARNING_MS)
            if suffix:  # a phone shows the curves and their names only further down
                page.locator("form.choose").evaluate("form => form.scrollIntoView()")
            found.append(_written(page.screenshot(), folder / f"app_career{suffix}.png"))
            page.close()
        page = _page(started, *_RECORDED)
        frames = [page.screenshot() for _ in _recorded(page, address)]
    found.append(_recording(frames, folder / "app.gif"))
    return found


def _page(started: Any, width: int, height: int) -> Any:
    page = started.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page.set_default_timeout(_LONGEST_MS)
    return page


def _recorded(page: Any, address: str) -> Iterator[None]:
    """A visit, step by step."""
    _begin(page, address)
    yield
    for _ in range(_RECORDED_ANSWERS):
        decision = _decision(page)
        page.locator(f"button.{decision}").focus()
        yield
        _answer(page, decision)
        yield
    page.goto(f"{address}/somebody")
    yield
    for n in (20, 40):
        page.get_by_role("button", name="Twenty answers").click()
        page.get_by_role("heading", name=f"Regret after {n} recommendations").wait_for()
        yield
    for place in range(4):
        page.goto(f"{address}/career?{_CAREER}&gamma={place}")
        yield


def _begin(page: Any, address: str) -> None:
    page.goto(f"{address}/?occupation={_OCCUPATION.replace(' ', '+')}")
    page.get_by_label("Level", exact=True).select_option(str(_LEVEL))
    page.get_by_role("button", name="Show me jobs").first.click()
    page.locator("button.apply").wait_for()


def _decision(page: Any) -> str:
    """The visitor's answer to the job on the page, whose level is the last of its facts."""
    word = page.locator(".asked .facts").inner_text().rpartition(" · ")[2]
    return "apply" if abs(SENIORITY_LEVELS.index(word) + 1 - _LEVEL) <= _NEAR else "ignore"


def _answer(page: Any, decision: str) -> None:
    before = page.locator("input[name=job]").get_attribute("value")
    page.locator(f"button.{decision}").click()
    page.wait_for_function("before => document.querySelector('input[name=job]').value !== before", arg=before)
    page.evaluate("window.scrollTo(0, 0)")


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as visitors:
        command = [sys.executable, "-m", "experiments.app", "port=0", f"folder={folder}", f"visitors={visitors}"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield f"http://127.0.0.1:{port_of(server)}"
        finally:
            server.terminate()
            server.wait(30)


def _written(png: bytes, file: Path) -> Path:
    from PIL import Image  # in the extra `render`, which is part of the extra `experiments`

    with Image.open(io.BytesIO(png)) as picture, whole_file(file) as place:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(place, format="PNG", optimize=True)
    return file


def _recording(frames: list[bytes], file: Path) -> Path:
    from PIL import Image

    pictures = [Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames]
    # One palette for all frames, so that parts that stay the same need no bytes.
    width, height = _RECORDED
    together = Image.new("RGB", (width, height * len(pictures)))
    for number, picture in enumerate(pictures):
        together.paste(picture, (0, height * number))
    palette = together.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    drawn = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    with whole_file(file) as place:
        drawn[0].save(
            place, format="GIF", save_all=True, append_images=drawn[1:], duration=_FRAME_MS, loop=0, optimize=True
        )
    return file
