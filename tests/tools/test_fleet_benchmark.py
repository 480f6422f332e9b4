"""The comparison of fleets: what it counts is what there was."""

import sys
import time
from pathlib import Path

import pytest

from ..redis.server import Server, binaries

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "benchmarks"))

from sharing import crew, page
from sharing.contenders import Tasks, Threads
from sharing.marks import Mark, percentile
from sharing.monitor import Monitor


@pytest.fixture(scope="module")
def server():
    """A server of the module's own."""
    if not binaries():
        pytest.skip("no Redis or Valkey server here")
    made = Server(next(iter(binaries().values())))
    yield made
    made.close()


def test_the_monitor_counts_what_clients_send_in_their_segment(server):
    """Not what another database is sent, what a script does, or what came before."""
    server.do("SET", "before", 1)
    with Monitor(server.url) as monitor:
        began = time.time()
        server.do("EVAL", "return redis.call('GET', KEYS[1])", 1, "before")
        server.do("GET", "before")
        ended = time.time()
        time.sleep(0.01)
        server.do("GET", "before")
    monitor.segment("ours", 0, began, ended)
    monitor.segment("another database", 1, began, ended)
    assert monitor.counts() == {"ours": 2, "another database": 0}
    assert monitor.commands(began, ended) == ["EVAL", "GET"]


def test_who_waited_is_who_came_before_the_load_ended():
    """One that loads does not wait, nor does one that comes later; a wrong value is an error."""
    seen = crew.Seen()
    value = "the value of key"
    crew._judge(
        seen,
        [(0.0, 1.0, [0.9], value), (0.1, 1.25, [], value), (0.95, 1.3, [], value), (0.2, 1.0, [], "another")],
        "key",
    )
    assert (dict(seen.loads), seen.calls, seen.most) == ({"key": 1}, 4, 1)
    assert seen.wakes == [pytest.approx(0.35)]
    assert seen.errors == ["key: another"]


@pytest.mark.long
def test_processes_meet_at_each_key(server):
    """With each contender one process loads and the others wait, by one command each and one more."""
    seen = crew.meet(server.url, [Threads, Tasks], 3, processes=2)
    for name in (Threads.name, Tasks.name):
        assert dict(seen[name].loads) == {f"key-{number}": 1 for number in range(3)}
        assert seen[name].errors == []
        assert seen[name].commands >= 9
    assert len(seen[crew.SLEEP].wakes) == 6
    assert min(seen[crew.SLEEP].wakes) >= 0


def test_the_page_says_what_was_missed(tmp_path):
    """A figure over its mark is shown as such, in the list and on the page."""
    missed, met = Mark("a hit", "3.1", "2.6", False), Mark("a wait", "2", "2", True)
    assert page.line(missed).startswith("MISSED")
    assert page.line(met).startswith("met")
    seen = {name: crew.Seen(calls=1) for name in (Threads.name, Tasks.name, crew.SLEEP)}
    page.write(tmp_path / "page.md", "somewhere", [Threads, Tasks], seen, [missed, met])
    written = (tmp_path / "page.md").read_text()
    assert "| a hit | 3.1 | 2.6 | **missed** |" in written
    assert "| a wait | 2 | 2 |  |" in written


def test_percentiles():
    """Of the values in order, the one below which so many are."""
    assert [percentile([3.0, 1.0, 2.0, 4.0], part) for part in (0, 0.5, 0.99)] == [1.0, 3.0, 4.0]
