"""The page: what it answers, and that nothing in it comes from the keys."""

import asyncio
import html
import json
import re

import pytest

from singleflight import single_flight_ttl, web


def get(application, path="/", method="GET", root="", prefixed=True):
    """The status, headers and body of a response."""
    sent = []

    async def receive():
        raise AssertionError("nothing is read")

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": root * prefixed + path, "method": method, "root_path": root}
    asyncio.run(application(scope, receive, send))
    start, body = sent
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, body["body"].decode()


@pytest.fixture
def hostile():
    """A function whose name, keys and values are HTML."""
    fetch = single_flight_ttl(ttl=60, key=lambda key: key, name="<b>hostile</b>")(lambda key: "<i>value</i>")
    fetch("<script>alert(1)</script>")
    return fetch


def test_the_page_shows_what_there_is(hostile):
    """Functions and entries, escaped; values only if asked for."""
    status, headers, text = get(web.page("<prices>", entries=1000))
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>&lt;prices&gt;</title>" in text
    assert "&lt;b&gt;hostile&lt;/b&gt;" in text
    assert html.escape("'<script>alert(1)</script>'") in text
    assert "<b>" not in text
    assert "alert(1)</script>" not in text
    assert "value&lt;" not in text
    assert "&lt;i&gt;value&lt;/i&gt;" in get(web.page(entries=1000, values=True))[2]
    assert "alert" not in get(web.page())[2]


def test_nothing_comes_from_elsewhere(hostile):
    """No address but its own, and the policy says so; each response has another nonce."""
    _, headers, text = get(web.page())
    assert not re.search(r"https?://|src=|@import|url\(", text)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert text.count(f'nonce="{nonce}"') == 2 == text.count("nonce=")
    assert get(web.page())[1]["content-security-policy"] != policy
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_it_can_be_read_without_scripts():
    """All is in the page, which then asks the browser to come again."""
    fetch = single_flight_ttl(ttl=60, name="without scripts")(lambda key: key)
    fetch(1)
    text = get(web.page())[2]
    assert re.search(r'<th scope="row">without scripts</th><td>0%</td><td>1</td>', text)
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in text


def test_the_data():
    """`data.json` is a snapshot; `parts.json` has what the script puts in place."""
    fetch = single_flight_ttl(ttl=60, name="data")(lambda key: key)
    fetch(1)
    application = web.page()
    told = json.loads(get(application, "/data.json")[2])
    assert "data" in {function["name"] for function in told["functions"]}
    parts = json.loads(get(application, "/parts.json")[2])
    page = get(application)[2]
    for name in parts:
        assert f'id="{name}"' in page


@pytest.mark.parametrize("root", ["", "/ops/singleflight"])
def test_where_it_is_mounted(root):
    """Below a root path as at the top, and without the last slash it says where to go."""
    application = web.page()
    assert get(application, "/", root=root)[0] == 200
    assert get(application, "/data.json", root=root)[0] == 200
    assert get(application, "/other", root=root)[0] == 404
    if root:
        status, headers, _ = get(application, "", root=root)
        assert (status, headers["location"]) == (307, "singleflight/")


def test_behind_a_proxy_that_takes_a_prefix_away():
    """The root path has the prefix and the mount, the path the mount alone, or neither."""
    application = web.page()
    for root, path, status in (
        ("/api/ops", "/ops/", 200),
        ("/api/ops", "/ops/data.json", 200),
        ("/api/ops", "/ops", 307),
        ("/api", "/", 200),
        ("/api/", "/api/", 200),
        ("/api", "/apis/", 404),
        ("/api/ops", "/cops/", 404),
    ):
        assert get(application, path, root=root, prefixed=False)[0] == status, (root, path)


def test_names_that_no_encoding_has():
    """Half a surrogate pair and control characters are shown as escapes, in the title, too."""
    fetch = single_flight_ttl(ttl=60, key=lambda key: key, name="n\ud800\x1b")(lambda key: key)
    fetch(1)
    text = get(web.page("t\ud800", entries=10))[2]
    assert text.count("t\\ud800") == 2
    assert '<th scope="row">n\\ud800\\x1b</th>' in text
    assert "<h2>n\\ud800\\x1b</h2>" in text
    assert get(web.page(), "/data.json")[0] == get(web.page(), "/parts.json")[0] == 200


def test_only_reading():
    """HEAD has no body, but says how long it is; other methods are refused."""
    status, headers, body = get(web.page(), method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["content-length"]) > 1000
    status, headers, _ = get(web.page(), method="POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_alone_on_a_server():
    """It answers a server that starts and stops it; what is no HTTP is refused."""
    said = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []

    async def receive():
        return next(said)

    async def send(message):
        sent.append(message["type"])

    asyncio.run(web.page()({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(NotImplementedError, match="websocket"):
        asyncio.run(web.page()({"type": "websocket"}, receive, send))


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"title": 3}, TypeError, "title"),
        ({"entries": -1}, ValueError, "entries"),
        ({"entries": 1001}, ValueError, "entries"),
        ({"entries": "all"}, TypeError, "entries"),
        ({"entries": 1, "values": 1}, TypeError, "values"),
        ({"values": True}, ValueError, "values"),
    ],
)
def test_bad_arguments(arguments, error, named):
    """They are refused at once, by name."""
    with pytest.raises(error, match=f"^{named}: "):
        web.page(**arguments)


def test_mounted_in_a_real_application():
    """In FastAPI, behind its own path."""
    fastapi, httpx = pytest.importorskip("fastapi"), pytest.importorskip("httpx")
    application = fastapi.FastAPI()
    application.mount("/ops/live", web.page("Prices"))

    async def main():
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
            answer = await client.get("/ops/live", follow_redirects=True)
            assert answer.status_code == 200
            assert str(answer.url).endswith("/ops/live/")
            assert "<title>Prices</title>" in answer.text
            assert (await client.get("/ops/live/data.json")).json()["pid"]

    asyncio.run(main())
