"""A real browser, for what is only seen there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30.0
SILENT = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


def programs() -> tuple[str | None, str | None]:
    """Return Chromium and its driver, or None for what is not there."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")


@contextmanager
def browser(profile: Path, needed: Sequence[str] = ()) -> Iterator[Any]:
    """Start headless Chromium with this new profile, and end it.

    Skips the test where it, or one of the needed packages, is not there; but not when NEEDS_BROWSER is set,
    as CI does.
    """
    chromium, driver = programs()
    if not os.environ.get("NEEDS_BROWSER") or sys.version_info >= (3, 15):  # see the extra `test`
        for package in ("selenium", *needed):
            if find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        if chromium is None or driver is None:
            pytest.skip("no Chromium with a chromedriver here")
    assert chromium, "NEEDS_BROWSER is set, and there is no Chromium here"
    assert driver, "NEEDS_BROWSER is set, and there is no chromedriver here"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*SILENT, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        chrome = webdriver.Chrome(options=options, service=Service(driver))
        try:
            chrome.set_page_load_timeout(PATIENCE)
            yield chrome
        finally:
            chrome.quit()
