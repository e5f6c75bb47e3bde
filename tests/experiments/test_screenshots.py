"""Pictures of a page for a page about it."""

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from PIL import Image

from experiments.pages import screenshots
from experiments.pages.screenshots import VIEWS, take_screenshots
from experiments.runs.folders import RunError
from tests.browser import CHROMIUM


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_the_top_of_a_page_is_pictured_at_both_widths(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<body style="margin:0;background:red"><div style="width:100%;height:9000px;background:blue"></div>'
    )

    pictures = take_screenshots(page, tmp_path / "there")

    assert {picture.name for picture in pictures} == set(VIEWS)
    for path in pictures:
        with Image.open(path) as picture:
            width, height = picture.size
            colours = picture.convert("RGB").getcolors()
        assert (width, height) == VIEWS[path.name]
        assert colours == [(width * height, (0, 0, 255))], "more than the page, or less"


def test_without_a_browser_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(screenshots.shutil, "which", lambda name: None)
    with pytest.raises(RunError, match=r"`screenshots` needs Chromium: apt-get install chromium"):
        take_screenshots(tmp_path / "page.html", tmp_path)
    assert list(tmp_path.iterdir()) == []
