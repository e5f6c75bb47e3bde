"""The page in a browser: all three tabs, two visitors, a kill in between, and what would keep some from using it."""

import json
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")
pytest.importorskip("starlette", reason="needs the extra 'app'")
pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")

from app_world import options, small_market
from playwright.sync_api import sync_playwright

from experiments.web.load import port_of
from experiments.web.serving import pages_of
from tests.browser import CHROMIUM, axe_file

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

PHONE, DESK = (390, 844), (1400, 1000)
OVER = """() => [...document.body.querySelectorAll("*")].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width > 1 && !element.closest(".wide :scope, .only-heard, .skip") && !element.closest(".wide table")
    && (box.right > document.documentElement.clientWidth + 1 || box.left < -1);
}).map(element => element.outerHTML.slice(0, 80))"""


@contextmanager
def server(folder, **others):
    """The command, on a free port, with all agents that it needs; it is killed at the end."""
    given = {"port": 0, **options(folder), **others}
    del given["sessions"]
    words = [f"{name}={json.dumps(value)}" for name, value in flat(given)]
    command = [sys.executable, "-m", "experiments.app", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield f"http://127.0.0.1:{port_of(process)}", process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def flat(given, before=""):
    for name, value in given.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


class Visitor:
    """One visitor's browser of a width, with what its console says."""

    def __init__(self, browser, size, **more):
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **more)
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.told = []
        self.page.on("console", lambda message: self.told.append(message.text))
        self.page.on("pageerror", lambda error: self.told.append(str(error)))

    def begin(self, address):
        self.page.goto(address)
        self.page.get_by_label("Occupation", exact=True).select_option(index=0)
        self.page.get_by_role("button", name="Show its skills").click()
        self.page.get_by_label("Other skills").fill("first aid, teamwork")
        self.page.get_by_role("button", name="Show me jobs").first.click()
        self.page.locator("button.apply").wait_for()

    def answer(self, decision):
        """By the keyboard; returns what a screen reader was told."""
        n = self.n_answers()
        self.page.locator(f"button.{decision}").focus()
        self.page.keyboard.press("Enter")
        self.page.get_by_text(re.compile(rf"^Answer {n + 1} kept: ")).wait_for(state="attached")
        return self.page.locator("#news").text_content()

    def lower_gamma_before_the_script_is_there(self):
        """By the arrow key, on the tab of careers; returns the slider."""
        scripts = []
        self.page.route("**/app.js", lambda script: scripts.append(script))
        self.page.get_by_role("link", name="A career").click()
        slider = self.page.get_by_role("slider")
        slider.press("ArrowLeft")
        for script in scripts:
            script.continue_()
        return slider

    def n_answers(self):
        return int(re.match(r"\d+", self.page.locator("main > .note").first.text_content())[0])

    def asked(self):
        return self.page.locator("input[name=job]").get_attribute("value")

    def fits(self):
        """Nothing is wider than the page."""
        assert self.page.evaluate(OVER) == []
        assert self.page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def violations(browser, visitor, address):
    """What axe-core finds; asked in a page that lets it in, as the same visitor."""
    page = browser.new_context(
        bypass_csp=True,
        storage_state=visitor.context.storage_state(),
        viewport=visitor.page.viewport_size,
        reduced_motion="reduce",  # a text that is still appearing has too little contrast
    ).new_page()
    page.goto(address)
    page.add_script_tag(path=axe_file())
    found = page.evaluate("() => axe.run()")
    page.context.close()
    assert len(found["passes"]) > 10, "axe-core has looked"
    return [f"{rule['id']}: {rule['nodes'][0]['html'][:120]}" for rule in found["violations"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    small_market(folder)
    pages_of(options(folder))[1].learn(print)  # here, where torch is loaded
    return folder


def test_two_visitors_go_the_whole_way_and_a_kill_loses_nothing(folder):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        phone, desk = Visitor(browser, PHONE), Visitor(browser, DESK)
        with server(folder) as (address, process):
            port = int(address.rpartition(":")[2])
            for visitor in (phone, desk):
                visitor.page.goto(address)
                assert violations(browser, visitor, address) == []
                visitor.begin(address)
            first = phone.asked()
            assert first == desk.asked(), "both begin with the same agent"

            said = phone.answer("ignore")
            assert "kept: ignore" in said and "Next: " in said
            assert phone.page.evaluate("() => document.activeElement.id") == "asked", "reading goes on at the next job"
            assert phone.asked() != first
            desk.answer("apply")
            desk.answer("save")
            assert (phone.n_answers(), desk.n_answers()) == (1, 2)
            then = desk.asked(), desk.page.locator("#next + p + ol").text_content()
            process.send_signal(signal.SIGKILL)
            process.wait()

        with server(folder, port=port) as (address, _):
            desk.page.reload()
            assert (desk.asked(), desk.page.locator("#next + p + ol").text_content()) == then
            assert desk.n_answers() == 2
            phone.page.goto(address)
            assert phone.n_answers() == 1
            for visitor in (phone, desk):
                visitor.answer("click")
                assert visitor.page.locator("ul.changes li").count() == 5
                visitor.fits()
                assert violations(browser, visitor, address) == []

                visitor.page.get_by_role("link", name="Somebody else").click()
                visitor.page.get_by_role("button", name="One answer").click()
                visitor.page.get_by_role("heading", name="Regret after 1 recommendation").wait_for()
                visitor.page.get_by_role("button", name="Twenty answers").click()
                visitor.page.get_by_role("heading", name="Regret after 21 recommendations").wait_for()
                visitor.fits()
                assert violations(browser, visitor, f"{address}/somebody") == []

                slider = visitor.lower_gamma_before_the_script_is_there()
                visitor.page.get_by_role("heading", name="DynaQ, gamma 0", exact=True).wait_for()
                assert slider.get_attribute("aria-valuetext") == "gamma 0.0"
                assert visitor.page.evaluate("() => document.activeElement.id") == "gamma", "arrow keys go on"
                visitor.fits()
                assert violations(browser, visitor, f"{address}/career") == []
                assert visitor.told == []
        browser.close()


def test_a_link_on_another_site_and_a_second_server_lose_no_visit(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("visitors"))
    with sync_playwright() as playwright, server(folder) as (address, _), server(other) as (second, _):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        visitor = Visitor(browser, DESK)
        page = visitor.page
        visitor.begin(address)
        visitor.answer("save")
        (cookie,) = visitor.context.cookies()
        foreign = f"""<img src="{address}/"><iframe src="{address}/" name="frame"></iframe><a href="{address}/">it</a>
            <form method="post" action="{address}/forget"><button>delete</button></form>"""
        visitor.context.route(
            "http://elsewhere.example/", lambda asked: asked.fulfill(body=foreign, content_type="text/html")
        )

        page.goto("http://elsewhere.example/")
        page.get_by_role("button").click()
        page.get_by_text("This request comes from a page of another site.").wait_for()
        page.goto("http://elsewhere.example/")
        page.get_by_role("link", name="it").click()
        page.get_by_text("1 answer so far").wait_for()

        visitor.begin(second)
        page.get_by_role("button", name="Delete it all").click()
        page.get_by_role("heading", name="Who are you?").wait_for()
        page.goto(address)
        assert visitor.n_answers() == 1
        assert cookie["value"] in [one["value"] for one in visitor.context.cookies()]
        browser.close()
