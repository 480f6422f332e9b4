"""The pages that the library itself makes, as a phone shows them."""

import asyncio

import pytest

from singleflight import single_flight_ttl, timeline, web

from .browser import CHROMIUM, widths

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
LONG = "a" * 300


def page_of(application):
    """The text of the page that an ASGI application answers with."""
    sent = []

    async def receive():
        raise AssertionError("nothing is read")

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/", "method": "GET", "root_path": ""}
    asyncio.run(application(scope, receive, send))
    return sent[1]["body"].decode()


@pytest.mark.timeout(180)
def test_long_names_keys_and_values_make_no_page_wider(tmp_path):
    """At 390 pixels neither the page of `web` nor that of `timeline` scrolls sideways."""
    fetch = single_flight_ttl(ttl=60, name=f"module.{LONG}")(lambda key: key * 2)
    with timeline.record(fetch) as seen:
        fetch(LONG)
    seen.save(tmp_path / "timeline.html", title=LONG)
    page = page_of(web.page(LONG, entries=1000, values=True))
    assert page.count(LONG[:150]) >= 4  # title, function, key, value
    (tmp_path / "web.html").write_text(page, encoding="utf-8")

    found = widths(tmp_path, ["web.html", "timeline.html"])

    assert [name for name, *_ in found] == ["web.html", "timeline.html"]
    assert [one for one in found if one[1] > one[2] or one[3]] == []
