"""The desk in a real browser: what its widgets show, and what its counters say after each click."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from .. import browsers

EXAMPLE = Path(__file__).parents[2] / "examples" / "desk.py"
PATIENCE = 30.0
WIDE, PHONE = (1400, 900), (390, 844)
CONTRAST = 4.5  # of text, by WCAG 2.2, level AA
NEEDED = ("nicegui", "alpaca")

pytestmark = [
    pytest.mark.timeout(170),
    pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent in another way"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium."""
    with browsers.browser(tmp_path_factory.mktemp("profile"), NEEDED) as chrome:
        yield chrome


@pytest.fixture
def open_desk(browser):
    """Starts the example, on a free port, and opens its page."""
    started = []

    def start(*arguments):
        clean = {key: text for key, text in os.environ.items() if not key.startswith(("APCA_", "PRICE_"))}
        command = [sys.executable, str(EXAMPLE), "--port=0", "--latency=0.05", *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean
        )
        started.append(process)
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, process.stderr.read()
        browser.get(found[0])
        desk = Page(browser, process)
        desk.wait(lambda: desk.refreshes >= 1)  # the page's own first one
        return desk

    yield start
    browser.get("about:blank")
    for process in started:
        process.kill()
        process.communicate()


class Page:
    """What a user sees and does."""

    def __init__(self, browser, process):
        self.browser, self.process = browser, process

    def find(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, self.find("return document.body.innerText")
            time.sleep(0.05)  # the page tells nobody that it has changed

    def click(self, label):
        """Click the one button or switch with this label."""
        controls = [
            each
            for each in self.browser.find_elements("css selector", ".controls .q-btn, .controls .q-toggle")
            if each.text.strip() == label
        ]
        assert len(controls) == 1, label
        controls[0].click()

    def is_on(self, label):
        """Whether a button is pressed or a switch is on, by what a screen reader is told."""
        script = """
            const pressed = ".controls [aria-pressed], .controls [aria-checked]";
            for (const each of document.querySelectorAll(pressed))
                if (each.innerText.trim() === arguments[0])
                    return (each.ariaPressed ?? each.ariaChecked) === "true";
        """
        return self.find(script, label)

    def press(self, label):
        """Click, and wait until it is pressed where it was not, or the other way round."""
        before = self.is_on(label)
        self.click(label)
        self.wait(lambda: self.is_on(label) is not before)

    def refresh(self, label="Refresh"):
        """Click what has all widgets ask, and wait until all have been answered."""
        self.wait(lambda: self.find("return !document.querySelector('.primary').disabled"))
        before = self.refreshes
        self.click(label)
        self.wait(lambda: self.refreshes == before + 1)

    @property
    def refreshes(self):
        """Those that all parts of the page show: they are not drawn anew in one go."""
        shown = "[...document.querySelectorAll('[data-refreshes]')].map(part => +part.dataset.refreshes)"
        return int(self.find(f"return Math.min(Infinity, ...{shown})") or 0)

    def count(self, name):
        """One of the counters, as it is shown."""
        return self.find("return document.querySelector(`[data-count='${arguments[0]}']`).innerText", name)

    def rows(self):
        """Symbol, price and age of all rows of all widgets."""
        rows = "[...document.querySelectorAll('.widgets tr')]"
        return self.find(f"return {rows}.map(row => [...row.cells].map(cell => cell.innerText))")

    def prices(self):
        """The prices of all rows; None for "no price"."""
        shown = [price for _, price, _ in self.rows()]
        assert all(re.fullmatch(r"[\d,]+\.\d\d|no price", price) for price in shown), shown
        return [None if price == "no price" else float(price.replace(",", "")) for price in shown]


def test_fifty_requests_against_five(open_desk):
    """Ten widgets ask for five prices: 50 requests without the decorator, 5 with, none for stored ones."""
    desk = open_desk("--ttl=600")
    desk.click("Drop prices")
    desk.press("Decorator")
    desk.refresh()
    assert desk.count("requests-without") == "50"
    assert desk.count("asked") == "50"
    assert len(desk.prices()) == 50

    desk.press("Decorator")
    desk.refresh()
    assert (desk.count("requests-without"), desk.count("requests-with")) == ("50", "5")
    assert desk.count("asked") == "5"
    assert sum(int(desk.count(how)) for how in ("asked", "joined", "stored")) == 50
    seen = {(symbol, price) for symbol, price, _ in desk.rows()}
    assert len(seen) == 5  # all widgets show the same
    assert None not in desk.prices()
    assert re.fullmatch(r"\d\.\d\d s", desk.count("waits-with"))

    desk.refresh()
    assert (desk.count("requests-with"), desk.count("stored")) == ("0", "50")
    desk.refresh("Account 2")  # has prices of its own
    assert (desk.count("requests-with"), desk.count("priced")) == ("5", "50")


@pytest.mark.long
def test_an_outage(open_desk):
    """With grace the widgets keep their prices and say how old these are; without it they have none."""
    desk = open_desk("--ttl=1")
    desk.refresh("Account 2")
    desk.refresh("Account 1")
    desk.press("Outage")
    assert "Broker down" in desk.find("return document.querySelector('.state').innerText")

    def is_old():
        return all(re.fullmatch(r"\d+ s old", age) for _, _, age in desk.rows())

    def refreshed_and_old():
        desk.refresh()
        assert None not in desk.prices()
        assert desk.count("stored") == "50"
        return is_old()

    def refreshed_and_gone():
        desk.refresh()
        return desk.prices() == [None] * 50

    desk.wait(refreshed_and_old)
    desk.refresh("Account 2")  # whose prices may be younger than those of account 1
    desk.wait(refreshed_and_gone)
    assert "HTTP 503" in desk.find("return document.querySelector('.log').innerText")

    desk.press("Outage")
    desk.refresh()
    assert None not in desk.prices()


@pytest.mark.long
def test_a_weekend(open_desk):
    """Without bids the last trade or the close stands in, marked; or there is no price, and no storm."""
    desk = open_desk("--ttl=600")
    assert not any("*" in symbol for symbol, _, _ in desk.rows())
    desk.press("Weekend")
    assert "Market closed" in desk.find("return document.querySelector('.state').innerText")
    desk.click("Drop prices")
    desk.refresh()
    assert desk.count("requests-with") == "5"
    assert None not in desk.prices()
    assert all(symbol.endswith("*") for symbol, _, _ in desk.rows())

    desk.refresh("Account 2")
    assert desk.prices() == [None] * 50
    assert 5 <= int(desk.count("requests-with")) <= 10
    assert "not a price: bid 0" in desk.find("return document.querySelector('.log').innerText")


def test_an_account_is_chosen_at_once(monkeypatch):
    """The page may be drawn before the refresh begins; it would set its buttons back to the other account."""
    pytest.importorskip("alpaca")
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    module = importlib.import_module("desk_widgets")
    accounts = [SimpleNamespace(id=number) for number in (1, 2)]
    desk = module.Desk(None, accounts, ["ASML"], ttl=1.0)
    coming = desk.choose("2")
    assert desk.chosen == "2"
    assert desk.choose("2") is None  # it is there already
    coming.close()
    desk.close()


@pytest.mark.long
def test_how_it_looks(open_desk, browser):
    """Nothing scrolls sideways or jumps, all text is readable, and nothing comes from elsewhere."""
    desk = open_desk("--ttl=1")

    def check_contrast():
        for scheme in ("dark", "light"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            desk.wait(lambda dark=scheme == "dark": desk.find(IS_DARK) is dark)
            assert desk.find(UNREADABLE, CONTRAST) == []

    for (width, height), phone in ((WIDE, False), (PHONE, True)):
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        desk.wait(lambda width=width: desk.find("return innerWidth") == width)
        desk.find(WATCH_FOR_JUMPS)
        tall = desk.find("return document.documentElement.scrollHeight")
        for fault in ("Outage", "Weekend"):
            desk.press(fault)
            desk.refresh("Account 2")
            check_contrast()
            desk.refresh("Account 1")
            check_contrast()
            desk.press(fault)
        assert desk.find("return document.documentElement.scrollWidth") == width
        assert desk.find("return document.documentElement.scrollHeight") == tall
        assert desk.find("return window.jumped") < 0.02  # of the screen, by Chromium's measure; 0.1 is good
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    origins = desk.find(
        "return [...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).origin))]"
    )
    assert origins == [desk.find("return location.origin")]
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.long
def test_a_desk_that_refreshes_itself(open_desk):
    """The switch has the widgets ask again and again; Ctrl-C ends all that at once, without a word."""
    desk = open_desk("--ttl=600")
    before = desk.refreshes
    desk.press("Every 2 s")
    desk.wait(lambda: desk.refreshes >= before + 2)
    desk.process.send_signal(signal.SIGINT)
    told, errors = desk.process.communicate(timeout=PATIENCE)
    assert (desk.process.returncode, told, errors) == (0, "", "")


IS_DARK = "return document.body.classList.contains('body--dark')"
WATCH_FOR_JUMPS = """
    window.jumped = 0;
    window.watching?.disconnect();
    window.watching = new PerformanceObserver(
        list => list.getEntries().forEach(entry => { window.jumped += entry.value; }));
    window.watching.observe({type: "layout-shift"});
"""
# The texts whose contrast with what is behind them is too low; what is disabled may be faint.
UNREADABLE = """
    const least = arguments[0];
    const channels = color => color.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (let each = element; each; each = each.parentElement) {
            const found = channels(getComputedStyle(each).backgroundColor);
            if (found.length < 4 || found[3] === 1) return found;
        }
        return [255, 255, 255];
    };
    const poor = [];
    const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
        if (!text || element.closest("[disabled], .q-icon") || !element.checkVisibility()) continue;
        const one = luminance(channels(getComputedStyle(element).color)), other = luminance(behind(element));
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < least) poor.push([text, contrast]);
    }
    return poor;
"""
