"""`singleflight.prometheus`: what prometheus-client's own parsers, and Prometheus's, read in a scrape."""

import gc
import logging
import os
import shutil
import subprocess
import sys
import threading
import weakref

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from singleflight import single_flight_ttl
from singleflight.prometheus import register
from singleflight.testing import FakeClock

from ..builds import collects_classes

RESULTS = ("hit", "stale_hit", "wait", "fetch", "error", "timeout")
NAMED = {
    *("calls", "failures", "refreshes", "uncached", "evictions", "expirations"),
    *("entries", "in_flight", "locks", "idle_locks"),
}


@pytest.fixture
def registry():
    """A registry of the test's own that has the collector."""
    registry = CollectorRegistry()
    collector = register(registry)
    yield registry
    collector.unregister()


def sample(registry, metric, name, **labels):
    return registry.get_sample_value(f"singleflight_{metric}", {"name": name, **labels})


def gets(registry, name):
    return {result: sample(registry, "gets_total", name, result=result) for result in RESULTS}


def told(registry, name):
    """What `stats()` says, as a scrape has it."""
    results = gets(registry, name)
    counts = {count: sample(registry, f"{count}_total", name) for count in ("calls", "failures", "refreshes")}
    return results, counts


def expected(stats):
    results = (stats.hits, stats.stale_hits, stats.waits, stats.fetches, stats.errors, stats.timeouts)
    counts = {count: getattr(stats, count) for count in ("calls", "failures", "refreshes")}
    return dict(zip(RESULTS, results, strict=True)), counts


def test_under_load_it_equals_stats(registry, load, name):
    """Of threads, tasks and bulk calls together; every call is in one result, every execution timed."""
    load.run()
    stats = load.fetch.stats()
    assert told(registry, name) == expected(stats)
    assert sum(gets(registry, name).values()) == load.received
    for gauge in ("entries", "locks", "idle_locks", "in_flight"):
        assert sample(registry, gauge, name) == getattr(stats, gauge)
    assert sample(registry, "evictions_total", name) == stats.evictions > 0
    assert sample(registry, "call_seconds_count", name) == stats.calls
    assert sample(registry, "call_seconds_bucket", name, le="+Inf") == stats.calls


def test_scrapes_during_load(registry, load, name):
    """No count ever goes backwards, whoever scrapes, and whatever is cleared meanwhile."""
    over, seen, faults = threading.Event(), [], []

    def scrape():
        before = {}
        while not over.is_set():
            now = gets(registry, name)
            faults.extend(result for result in RESULTS if now[result] < before.get(result, 0))
            before = now
            seen.append(now)

    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    for scraper in scrapers:
        scraper.start()
    try:
        for _ in range(3):
            load.run(rounds=60)
            load.fetch.cache_clear()
    finally:
        over.set()
        for scraper in scrapers:
            scraper.join(20)
    assert faults == []
    assert len(seen) > 2
    assert sum(gets(registry, name).values()) == load.received


def test_both_formats_are_parsed(registry, load, name):
    """By the parsers of prometheus-client: classic text and OpenMetrics."""
    load.run(rounds=20)
    stats = load.fetch.stats()
    for text, parse in (
        (generate_latest(registry).decode(), text_string_to_metric_families),
        (generate_openmetrics(registry).decode(), parse_openmetrics),
    ):
        families = {family.name: family for family in parse(text)}
        found = {
            each.labels["result"]: each.value
            for each in families["singleflight_gets"].samples
            if each.labels["name"] == name
        }
        assert found == expected(stats)[0]
        assert {f"singleflight_{each}" for each in NAMED} <= set(families)
        assert families["singleflight_call_seconds"].type == "histogram"
        every = [
            (each.name, tuple(sorted(each.labels.items())))
            for family in families.values()
            for each in family.samples
        ]
        assert len(every) == len(set(every))


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool here")
def test_promtool_finds_nothing_to_criticise(registry, load):
    """Names, types and help texts are as Prometheus would have them."""
    load.run(rounds=5)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True, timeout=50
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    "odd", ['a "quoted" name', "back\\slash", "two\nlines", "", "\x00", "précis 🎈", "half: \ud83d"]
)
def test_any_name(registry, name, odd):
    """Labels are escaped, and what is no text at all is written as such; the scrape goes on."""
    odd = f"{name} {odd}"
    fetch = single_flight_ttl(ttl=60, name=odd)(lambda key: key)
    fetch(1), fetch(1)
    written = odd.encode("utf-8", "backslashreplace").decode()
    text = generate_latest(registry).decode()
    found = [
        each.value
        for family in text_string_to_metric_families(text)
        if family.name == "singleflight_gets"
        for each in family.samples
        if each.labels == {"name": written, "result": "hit"}
    ]
    assert found == [1.0]


def test_functions_of_one_name_are_one_sum(registry, name):
    """Prometheus refuses two series with the same labels."""
    first, second = (single_flight_ttl(ttl=60, name=name)(lambda key: key) for _ in range(2))
    first(1), first(1), second(1)
    assert gets(registry, name)["fetch"] == 2
    assert gets(registry, name)["hit"] == 1
    assert sample(registry, "entries", name) == 2
    assert sample(registry, "call_seconds_count", name) == 2


@collects_classes
def test_what_is_gone_has_counted(registry, name):
    """A function's counts outlive it, its entries do not, and nothing of it is kept alive."""

    class Value:
        pass

    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: Value())
    value = fetch(1)
    value.of = fetch  # what is stored leads back to the function
    fetch(1), fetch(2)
    gone = weakref.ref(value), weakref.ref(fetch._self_cache)
    del fetch, value
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert gets(registry, name)["fetch"] == 2
    assert gets(registry, name)["hit"] == 1
    assert sample(registry, "entries", name) == 0
    again = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    again(1)
    assert gets(registry, name)["fetch"] == 3
    assert sample(registry, "entries", name) == 1


def test_functions_that_come_and_go(registry, name):
    """Without a scrape, too, nothing piles up but their sums."""
    from singleflight.process import totals

    for number in range(500):
        single_flight_ttl(ttl=60, name=name)(lambda key: key)(number)
    gc.collect()
    assert len(totals._lost) < 200
    assert gets(registry, name)["fetch"] == 500


def test_cache_clear_zeroes_stats_alone(registry, name):
    """A counter goes on."""
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    fetch(1), fetch(1), fetch(2)
    fetch.cache_clear()
    assert fetch.stats().hits == fetch.stats().fetches == 0
    fetch(1)
    assert gets(registry, name)["fetch"] == 3
    assert gets(registry, name)["hit"] == 1
    assert sample(registry, "calls_total", name) == 3
    assert sample(registry, "entries", name) == 1


def test_the_histogram_goes_by_the_functions_clock(name):
    """Upper bounds belong to their buckets; a clock that steps back counts as no time."""
    registry, clock = CollectorRegistry(), FakeClock()
    collector = register(registry, buckets=[1, 2.5, 10])

    @single_flight_ttl(ttl=0, name=name, timer=clock)
    def fetch(seconds):
        clock.advance(seconds)

    for seconds in (0.5, 1, 2, 11, -3):
        fetch(seconds)
    found = {
        bound: sample(registry, "call_seconds_bucket", name, le=bound)
        for bound in ("1.0", "2.5", "10.0", "+Inf")
    }
    assert found == {"1.0": 3, "2.5": 4, "10.0": 4, "+Inf": 5}
    assert sample(registry, "call_seconds_sum", name) == 14.5
    collector.unregister()


def test_failures_are_timed(registry, name):
    """An execution that raised took its time, too."""

    @single_flight_ttl(ttl=60, name=name)
    def fetch():
        raise OSError

    with pytest.raises(OSError):
        fetch()
    assert sample(registry, "call_seconds_count", name) == 1
    assert sample(registry, "failures_total", name) == 1


def test_one_function_that_misbehaves(registry, name, caplog):
    """A scrape does not fail: its counts are read without its clock, and that is logged once."""
    broken = False

    def timer():
        if broken:
            raise OSError("no clock")
        return 0.0

    odd = single_flight_ttl(ttl=60, name=name, timer=timer)(lambda key: key)
    odd(1), odd(1)
    broken = True
    with caplog.at_level(logging.ERROR, "singleflight"):
        for _ in range(2):
            assert gets(registry, name)["hit"] == 1
    said = f"{name}: its counts could not be read as usual; told once"
    assert [line for line in caplog.messages if name in line] == [said]


def test_a_hit_takes_the_same_way(registry, name):
    """Nobody listens to hits, and the compiled call finds what it found."""
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    assert fetch(1) == 1
    assert not fetch._self_cache.tell.has_listener
    assert not fetch._self_cache.tell.watches_hits
    assert fetch._self_cache.store.index[(1,)].deadline > 0


def test_shared_counts_are_there_for_functions_with_a_store(registry, name):
    """Others do not have them."""
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    fetch(1)
    assert sample(registry, "shared_hits_total", name) is None


def test_registering_again_changes_nothing(name):
    """It returns the same collector, and no execution is timed twice; after its end it can begin anew."""
    registry = CollectorRegistry()
    collector = register(registry)
    assert register(registry) is collector
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    fetch(1)
    assert sample(registry, "call_seconds_count", name) == 1
    collector.unregister()
    collector.unregister()
    assert sample(registry, "calls_total", name) is None
    assert fetch._self_cache.is_direct
    fetch(2)
    assert register(registry) is collector
    fetch(3)
    assert sample(registry, "calls_total", name) == 3
    assert sample(registry, "call_seconds_count", name) == 2
    registry.unregister(collector)  # as users of prometheus-client do
    assert register(registry) is collector
    assert sample(registry, "calls_total", name) == 3
    collector.unregister()


def test_two_registries(name):
    """Each times for itself."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    collectors = [register(registry) for registry in registries]
    single_flight_ttl(ttl=60, name=name)(lambda key: key)(1)
    for registry, collector in zip(registries, collectors, strict=True):
        assert sample(registry, "call_seconds_count", name) == 1
        collector.unregister()


def test_the_default_is_the_global_registry(name):
    """What `prometheus_client.generate_latest()` and its servers show."""
    collector = register()
    try:
        single_flight_ttl(ttl=60, name=name)(lambda key: key)(1)
        assert sample(REGISTRY, "calls_total", name) == 1
    finally:
        collector.unregister()


def test_a_registry_that_goes_takes_all_along(name):
    """Nothing is timed for it any more."""
    registry = CollectorRegistry()
    gone = weakref.ref(register(registry))
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    assert not fetch._self_cache.is_direct
    del registry
    gc.collect()
    assert gone() is None
    assert fetch._self_cache.is_direct


def test_names_that_are_taken():
    """An error of prometheus-client, after which nothing is observed."""
    registry = CollectorRegistry()
    Counter("singleflight_calls", "Somebody's own.", registry=registry)
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    with pytest.raises(ValueError, match="singleflight_calls"):
        register(registry)
    assert fetch._self_cache.is_direct


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"registry": 3}, TypeError, "^registry: expected a CollectorRegistry or None, got 3"),
        ({"buckets": 3}, TypeError, "^buckets: expected numbers, got 3"),
        ({"buckets": ["a"]}, TypeError, "^buckets: expected numbers"),
        ({"buckets": []}, ValueError, "^buckets: expected upper bounds"),
        ({"buckets": [1, 1]}, ValueError, "^buckets: expected upper bounds"),
        ({"buckets": [0, 1]}, ValueError, "^buckets: expected upper bounds"),
        ({"buckets": [float("nan")]}, ValueError, "^buckets: expected upper bounds"),
    ],
)
def test_bad_input(arguments, error, text):
    """It is refused at once."""
    with pytest.raises(error, match=text):
        register(**{"registry": CollectorRegistry(), **arguments})


def test_other_buckets_for_the_same_registry(registry):
    """They are refused, since there is one histogram."""
    with pytest.raises(ValueError, match=r"^buckets: this registry has"):
        register(registry, buckets=[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_counts_from_zero(registry, name):
    """Executions, too."""
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    fetch(1), fetch(1)
    fetch.cache_clear()
    fetch(1)
    child = os.fork()
    if not child:
        try:
            fetch(1), fetch(2)
            fine = gets(registry, name)["hit"] == gets(registry, name)["fetch"] == 1
            os._exit(0 if fine and sample(registry, "call_seconds_count", name) == 1 else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert gets(registry, name)["fetch"] == 2


def test_nothing_is_imported_until_asked():
    """The package knows of neither library."""
    program = "import sys, singleflight; from singleflight import single_flight_ttl as s\n"
    program += "s(ttl=1)(abs)(1); names = 'prometheus', 'opentelemetry', 'executions', 'totals'\n"
    program += "print(*[name for name in sys.modules if any(part in name for part in names)])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert (done.stdout.split(), done.stderr) == ([], "")
