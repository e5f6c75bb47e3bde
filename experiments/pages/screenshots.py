"""Takes pictures of a report in a browser, for a page about it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from experiments.runs.folders import RunError
from jobrec_gym.whole_files import whole_file

__all__ = ["VIEWS", "take_screenshots"]

VIEWS = {"report.png": (1_400, 1_750), "report_phone.png": (390, 1_500)}
"""Files with the size of the part of the page that they show, from its top: width and height in CSS pixels."""

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_NARROWEST = 600  # least width of a window; a narrower page is put into a frame, and the rest is cut off
_FRAME = '<body style="margin:0"><iframe src="{page}" style="border:0;width:{width}px;height:{height}px"></iframe>'


def take_screenshots(page: Path, folder: Path) -> list[Path]:
    """Writes :data:`VIEWS` of a page into a folder.

    Raises:
        RunError: If there is no Chromium, or it makes no picture.
    """
    from PIL import Image  # in the extra `render`, which is part of the extra `experiments`

    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise RunError("`screenshots` needs Chromium: apt-get install chromium, or leave out `screenshots`.")
    pictures = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, (width, height) in VIEWS.items():
            frame, whole = Path(scratch) / "frame.html", Path(scratch) / name
            frame.write_text(_FRAME.format(page=page.resolve().as_uri(), width=width, height=height))
            command = [
                browser,
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"),
                f"--user-data-dir={scratch}/profile",
                f"--window-size={max(width, _NARROWEST)},{height}",
                f"--screenshot={whole}",
                frame.as_uri(),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            if not whole.is_file():
                raise RunError(f"`screenshots`: {browser} made no picture: {done.stderr.strip()[-200:]}")
            with Image.open(whole) as picture:
                shown = picture.crop((0, 0, width, height)).convert("RGB")
            # The page has few colours, so a palette halves the file.
            with whole_file(folder / name) as place:
                shown.quantize(256).save(place, format="PNG", optimize=True)
            pictures.append(folder / name)
    return pictures
