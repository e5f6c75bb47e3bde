"""Pictures of the built site, as a visitor sees it: `make screenshots`."""

import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import CHROMIUM, FLAGS

ROOT = Path(__file__).parents[1]
PAGES = {"index.html": "site_home.png", "gallery.html": "site_gallery.png"}
SIZE = (1400, 1000)
COLOURS = 256  # a palette takes a third of the bytes

if CHROMIUM is None:
    raise SystemExit("error: needs Chromium: apt-get install chromium")
for page, name in PAGES.items():
    target = ROOT / "docs" / "images" / name
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        flags = [flag for flag in FLAGS if flag != "--dump-dom"]
        flags += [f"--user-data-dir={folder}/profile", f"--window-size={SIZE[0]},{SIZE[1]}", f"--screenshot={shot}"]
        address = (ROOT / "build" / "docs" / page).as_uri()
        subprocess.run([CHROMIUM, *flags, address], check=True, capture_output=True, timeout=900)
        Image.open(shot).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"picture  {target.relative_to(ROOT)}, {target.stat().st_size // 1000} kB")
