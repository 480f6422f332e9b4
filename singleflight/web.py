"""The live view as a page: a small ASGI application to mount into one of yours.

It shows what `python -m singleflight top` shows, of the process that answers. It is written out by the server
and needs no script; with scripts it is brought up to date every second. It loads nothing from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from secrets import token_urlsafe
from typing import Any

from .common.messages import visible
from .live.screen import COLUMNS, cells, flights_of, rows, summary
from .live.snapshot import check, snapshot

__all__ = ["page"]

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


def page(title: str = "singleflight", *, entries: int = 0, values: bool = False) -> Application:
    """Return an ASGI application that shows what the decorated functions of this process are doing.

    Args:
        title: what the page is called.
        entries: how many entries of each function are shown, those with the most hits; at most 1000.
        values: show their values, too, each cut to 200 characters.

    Mount it behind your own login: function names, keys and thread names are there to be read. Without
    `values` no value is. It only shows; nothing can be changed.

    It answers GET and HEAD at the path where it is mounted, and at `data.json` below it with what `snapshot`
    returns. Where several worker processes serve, each request shows the one that happens to answer, whose
    number is on the page.

    Raises `TypeError` and `ValueError` for bad arguments. Safe on any event loop; a request takes some
    milliseconds of the loop's thread.

    >>> from singleflight import web
    >>> application = web.page()  # for example: app.mount("/singleflight", web.page())
    """
    if not isinstance(title, str):
        raise TypeError(f"title: expected a string, got {type(title).__name__}")
    check(entries, values)
    if values and not entries:
        raise ValueError("values: needs `entries`, the number of those that are shown")

    async def application(
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await _respond(scope, send, *_answer(scope, title, entries, values))
        else:
            raise NotImplementedError(f"singleflight.web: this page does not speak {scope['type']}")

    return application


Answer = tuple[int, dict[str, str], str]


def _answer(scope: Message, title: str, entries: int, values: bool) -> Answer:
    """Return the status, headers and body of a response."""
    root, path = scope.get("root_path", ""), _below(scope.get("root_path", ""), scope["path"])
    if scope["method"] not in ("GET", "HEAD"):
        return 405, {"allow": "GET, HEAD", **_TEXT}, "only GET and HEAD"
    if path == "":
        place = f"{root.rpartition('/')[2]}/" if root else "/"
        # Relative, since whoever stands in front may know the page by another path.
        return 307, {"location": place, **_TEXT}, ""
    if path in ("/data.json", "/parts.json"):
        told = snapshot(entries, values)
        data = told if path == "/data.json" else _parts(told)
        return 200, {"content-type": "application/json"}, json.dumps(data)
    if path != "/":
        return 404, _TEXT, "not found"
    nonce = token_urlsafe(16)
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'"
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": f"{policy}; base-uri 'none'; form-action 'none'",
    }
    return 200, headers, _page(title, _parts(snapshot(entries, values)), nonce)


def _below(root: str, path: str) -> str:
    """Return what comes after the place where the page is mounted.

    That is the root path. A proxy that takes a prefix away leaves only its end in the path, since frameworks
    add the place of a mount to the root path that they were told.

    >>> _below("/ops", "/ops/data.json"), _below("/api/ops", "/ops/data.json"), _below("/ops", "/opsx")
    ('/data.json', '/data.json', '/opsx')
    """
    root = root.rstrip("/")
    while root:
        if path == root or path.startswith(f"{root}/"):
            return path[len(root) :]
        _, slash, rest = root[1:].partition("/")
        root = slash + rest
    return path


_TEXT = {"content-type": "text/plain; charset=utf-8"}


async def _respond(
    scope: Message,
    send: Callable[[Message], Awaitable[None]],
    status: int,
    headers: dict[str, str],
    body: str,
) -> None:
    content = body.encode("utf-8", "backslashreplace")
    told = {
        **headers,
        "content-length": str(len(content)),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


async def _live(
    receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """There is nothing to start or to stop, which a server that runs this alone wants to hear."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _parts(told: dict[str, Any]) -> dict[str, str]:
    """Return the parts of the page that change, as HTML, by the identity of their element."""
    processes = {told["pid"]: told}
    return {
        "summary": escape(visible(f"Process {told['pid']}, {told['program']}: {summary(processes)}")),
        "functions": "".join(map(_function_row, rows(processes, {}, "received"))),
        "flights": "".join(map(_flight_row, flights_of(processes))) or _NO_FLIGHT,
        "entries": "".join(_entries(function) for function in told["functions"] if function.get("entries")),
    }


_NO_FLIGHT = '<tr><td colspan="5" class="none">No call is in progress.</td></tr>'
# Of one process, and without an earlier look at it.
_SHOWN = [place for place, name in enumerate(COLUMNS) if name not in ("pid", "rate", "longest")]
_HEADS = [list(COLUMNS.values())[place] for place in _SHOWN]


def _function_row(row: dict[str, Any]) -> str:
    texts = cells(row)
    return _row([texts[place] for place in _SHOWN])


def _flight_row(flight: dict[str, Any]) -> str:
    state = ", ".join([flight["kind"], *(name for name in ("detached", "queued") if flight[name])])
    call = f"{flight['name']} {flight['key']}"
    return _row([call, f"{flight['elapsed']:.1f} s", str(flight["followers"]), flight["leader"], state])


def _entries(function: dict[str, Any]) -> str:
    lines = "".join(
        _row(
            [
                entry["key"],
                f"{entry['hits']:,}",
                f"{entry['age']:.1f} s",
                entry["state"],
                *([entry["value"]] if "value" in entry else []),
            ]
        )
        for entry in function["entries"]
    )
    heads = ["entry", "hits", "age", "state", *(["value"] if "value" in function["entries"][0] else [])]
    return f"<h2>{escape(visible(function['name']))}</h2>{_table(heads, lines)}"


def _row(texts: list[str]) -> str:
    first, *others = map(escape, map(visible, texts))
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{text}</td>" for text in others)}</tr>'


def _table(heads: list[str], lines: str, name: str = "") -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    named = f' id="{name}"' if name else ""
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody{named}>{lines}</tbody></table></div>'
    )


def _page(title: str, parts: dict[str, str], nonce: str) -> str:
    flights = _table(["call", "for", "waiting", "by", "kind"], parts["flights"], "flights")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(visible(title))}</title>
<noscript><meta http-equiv="refresh" content="5"></noscript>
<style nonce="{nonce}">{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(visible(title))}</h1>
<p id="summary">{parts["summary"]}</p>
<h2>Functions</h2>
{_table(_HEADS, parts["functions"], "functions")}
<h2>Calls in progress</h2>
{flights}
<div id="entries">{parts["entries"]}</div>
<p id="state" role="status"></p>
</main>
<script nonce="{nonce}">{_SCRIPT}</script>
</body>
</html>
"""


_STYLE = """
:root { --text: #1c2024; --quiet: #60646c; --line: #d9dce1; --page: #fcfcfd; --mark: #0b68cb; }
@media (prefers-color-scheme: dark) {
  :root { --text: #edeef0; --quiet: #b0b4ba; --line: #363a3f; --page: #111113; --mark: #70b8ff; }
}
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1, h2 { overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: .5rem 0; } h2 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
#summary, #state { color: var(--quiet); margin: .25rem 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
thead th { color: var(--quiet); font-weight: 500; }
th:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
tbody th { font-weight: 600; }
.none { text-align: left; color: var(--quiet); }
@media (max-width: 40rem) { body { font-size: 14px; } th, td { padding: .3rem .4rem; } }
#flights td:nth-child(2) { color: var(--mark); }
#flights td:nth-child(4) { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
#entries :is(th, td):nth-child(5) { text-align: left; white-space: normal; overflow-wrap: anywhere;
  min-width: 9rem; }
"""

_SCRIPT = """
const state = document.getElementById("state");
async function look() {
  try {
    const answer = await fetch("parts.json", {cache: "no-store"});
    if (!answer.ok) throw new Error("status " + answer.status);
    const parts = await answer.json();
    for (const name in parts) document.getElementById(name).innerHTML = parts[name];
    state.textContent = "";
  } catch (error) {
    state.textContent = "Not up to date: the process does not answer (" + error.message + ").";
  }
  setTimeout(look, document.hidden ? 5000 : 1000);
}
setTimeout(look, 1000);
"""
