"""The dashboard for Grafana, asked of a real Prometheus that scrapes a program under load."""

import json
import math
import re
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from singleflight import single_flight_ttl
from singleflight.process.totals import COUNTERS, GAUGES, SHARED
from singleflight.prometheus import register

from ..drivers import until

DASHBOARD = json.loads(
    (Path(__file__).parents[2] / "examples" / "grafana-singleflight.json").read_text(encoding="utf-8")
)
SCRAPES = 4
EXPRESSIONS = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
]


def asked(expression):
    """An expression as Grafana sends it: its variables replaced."""
    return expression.replace("$__rate_interval", "10s").replace("$name", "dashboard[.]fetch")


class Server:
    """Prometheus, with a folder of its own."""

    def __init__(self, folder, target):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.url = f"127.0.0.1:{taken.getsockname()[1]}"
        (folder / "prometheus.yml").write_text(
            "scrape_configs:\n- job_name: app\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n"
            f"  static_configs: [{{targets: ['{target}']}}]\n"
        )
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={self.url}",
                "--log.level=warn",
            ],
            stdout=self.log,
            stderr=self.log,
        )

    def ask(self, expression):
        """The samples of an instant query; none while it does not answer yet."""
        assert self.process.poll() is None, Path(self.log.name).read_text()
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://{self.url}/api/v1/query?{query}", timeout=10) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it begins
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        except OSError:
            return []
        assert told["status"] == "success"
        return told["data"]["result"]

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A Prometheus that has scraped a program under load a few times, and still does."""
    if not shutil.which("prometheus"):
        pytest.skip("no prometheus here")
    registry, over = CollectorRegistry(), threading.Event()
    collector = register(registry)

    @single_flight_ttl(ttl=0.01, name="dashboard.fetch", maxsize=5, grace=0.05)
    def fetch(key):
        if key == 0:
            raise LookupError
        return key

    def work():
        number = 0
        while not over.wait(0.001):
            number += 1
            try:
                fetch(number % 8)
            except LookupError:
                continue

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    http, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    server = Server(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{http.server_port}")
    try:
        until_scraped = f"count_over_time(singleflight_calls_total[1m]) >= {SCRAPES}"
        for _ in range(3):  # each is given ten seconds
            try:
                until(lambda: server.ask(until_scraped))
                break
            except AssertionError:
                if server.process.poll() is not None:
                    raise
        assert server.ask(until_scraped), "it has not scraped"
        yield server
    finally:
        server.close()
        http.shutdown()
        http.server_close()
        thread.join(10)
        over.set()
        worker.join(10)
        collector.unregister()


@pytest.mark.parametrize(("panel", "expression"), EXPRESSIONS)
def test_each_panel_has_something_to_show(served, panel, expression):
    """Its query is valid, and finds finite numbers; those of `store=` find none where nothing is shared."""
    samples = served.ask(asked(expression))
    shared = any(f"singleflight_{count}_total" in expression for count in SHARED)
    assert bool(samples) is not shared, panel
    for sample in samples:
        assert math.isfinite(float(sample["value"][1])), (panel, sample)


def test_the_variables_find_the_functions(served):
    """Grafana's list of names is made of this metric's labels."""
    (name,) = [each for each in DASHBOARD["templating"]["list"] if each["name"] == "name"]
    metric = re.fullmatch(r"label_values\((\w+), name\)", name["definition"])[1]
    assert {sample["metric"]["name"] for sample in served.ask(metric)} >= {"dashboard.fetch"}


def test_every_metric_is_shown():
    """And nothing else is."""
    text = " ".join(expression for _, expression in EXPRESSIONS)
    found = set(re.findall(r"singleflight_(\w+)", text))
    assert found == {
        "gets_total",
        *("call_seconds_bucket", "call_seconds_sum", "call_seconds_count"),
        *(f"{count}_total" for count in (*COUNTERS, *SHARED)),
        *GAUGES,
    }


def test_it_can_be_imported():
    """Panels do not overlap, each has its own number, and asks the data source that was chosen."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
