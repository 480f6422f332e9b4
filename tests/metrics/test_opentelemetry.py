"""`singleflight.opentelemetry`: what the SDK's in-memory exporters receive."""

import asyncio
import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from singleflight import single_flight_ttl
from singleflight.opentelemetry import instrument
from singleflight.testing import FakeClock

from ..bulk.conftest import driving
from ..contract.conftest import TURNS
from ..drivers import Executions, until

RESULTS = {
    "hit": "hits",
    "stale_hit": "stale_hits",
    "wait": "waits",
    "fetch": "fetches",
    "error": "errors",
    "timeout": "timeouts",
}


class Exported:
    """An SDK whose exporters keep what they receive in memory."""

    def __init__(self, **options):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.tracer = self.tracers.get_tracer("the test's")
        self.undo = instrument(self.meters, self.tracers, **options)

    def close(self):
        self.undo()
        self.meters.shutdown()
        self.tracers.shutdown()

    def spans(self, name):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def points(self, metric, name):
        """The data points of one function."""
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == f"singleflight.{metric}"
            for point in each.data.data_points
            if point.attributes["singleflight.name"] == name
        ]

    def value(self, metric, name, **attributes):
        (point,) = [
            point
            for point in self.points(metric, name)
            if all(point.attributes[f"singleflight.{key}"] == value for key, value in attributes.items())
        ]
        return point.value


@pytest.fixture
def sdk():
    exported = Exported()
    yield exported
    exported.close()


@pytest.fixture(params=TURNS.values(), ids=TURNS)
def driver(request):
    """Threads, tasks or both; with loaders."""
    yield from driving(*request.param)


def test_under_load_it_equals_stats(sdk, load, name):
    """Counts and current numbers; and each execution is a span, and is in the histogram."""
    load.run()
    stats = load.fetch.stats()
    data = {point.attributes["singleflight.result"]: point.value for point in sdk.points("gets", name)}
    assert data == {result: getattr(stats, count) for result, count in RESULTS.items()}
    assert sum(data.values()) == load.received
    for metric in ("calls", "failures", "refreshes", "uncached", "evictions", "expirations"):
        assert sdk.value(metric, name) == getattr(stats, metric)
    for metric in ("entries", "in_flight", "locks", "idle_locks"):
        assert sdk.value(metric, name) == getattr(stats, metric)
    assert len(sdk.spans(name)) == stats.calls
    assert sum(point.count for point in sdk.points("call.duration", name)) == stats.calls
    failed = [span for span in sdk.spans(name) if span.status.status_code is StatusCode.ERROR]
    assert len(failed) == stats.failures


def test_a_collection_is_read_in_one_go(sdk, name):
    """All instruments of one collection have the same numbers, and the next one newer numbers."""
    clock = FakeClock()
    ticks = []

    def timer():
        ticks.append(1)  # `stats()` reads it once
        return clock()

    fetch = single_flight_ttl(ttl=60, name=name, timer=timer)(lambda key: key)
    fetch(1)
    ticks.clear()
    sdk.reader.get_metrics_data()
    assert len(ticks) == 1
    sdk.reader.get_metrics_data()
    assert len(ticks) == 2
    fetch(2)
    assert sdk.value("calls", name) == 2


def test_a_span_is_a_child_of_the_leaders_and_current_meanwhile(sdk, driver, name):
    """In threads and tasks; what is begun within is its child."""

    async def fetch(key):
        with sdk.tracer.start_as_current_span("request"):
            return key

    fetch = driver.decorate(fetch, ttl=60, name=name)

    async def ask(key):
        with sdk.tracer.start_as_current_span("caller"):
            value = await fetch(key)
            assert trace.get_current_span().name == "caller"
            return value

    assert driver.call(ask, "a") == driver.call(ask, "a") == "a"
    (span,), (request,), callers = sdk.spans(name), sdk.spans("request"), sdk.spans("caller")
    assert span.parent.span_id == callers[0].context.span_id
    assert request.parent.span_id == span.context.span_id
    assert span.attributes == {
        "singleflight.name": name,
        "singleflight.kind": "call",
        "singleflight.background": False,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert len(callers) == 2  # the second was a hit


def test_followers_are_linked(sdk, driver, name):
    """Each to the one execution, once; who has no span of its own has no link."""
    begun, gate = Executions(), driver.gate()

    async def fetch(key):
        begun.begin()
        await gate
        return key

    fetch = driver.decorate(fetch, ttl=60, name=name)

    async def ask(key):
        with sdk.tracer.start_as_current_span("follower"):
            return await fetch(key)

    callers = [driver.start(fetch, "a")]
    begun.wait_for(1)
    callers += [driver.start(ask, "a") for _ in range(4)]
    callers += [driver.start(fetch, "a") for _ in range(4)]
    until(lambda: fetch.flights()[0].followers == 8)
    gate.set()
    assert [caller.outcome() for caller in callers] == ["a"] * 9
    (span,) = sdk.spans(name)
    followers = sdk.spans("follower")
    assert len(followers) == 4
    for follower in followers:
        (link,) = follower.links
        assert link.context.span_id == span.context.span_id
        assert link.attributes == {"singleflight.name": name}
    assert span.links == ()


def test_a_follower_that_came_first_is_linked(sdk, name):
    """One that waits before the function was called has its link when it is served."""
    seen = []

    async def fetch(key):
        seen.append(key)
        await asyncio.sleep(0)
        return key

    fetch = single_flight_ttl(ttl=60, name=name)(fetch)

    async def ask():
        with sdk.tracer.start_as_current_span("caller"):
            return await fetch("a")

    async def main():
        await asyncio.gather(ask(), ask(), ask())

    asyncio.run(main())
    (span,) = sdk.spans(name)
    links = [[link.context.span_id for link in caller.links] for caller in sdk.spans("caller")]
    assert sorted(links, key=len) == [[], [span.context.span_id], [span.context.span_id]]


def test_a_failure_is_on_the_span(sdk, driver, name):
    """As its status and an event, and it reaches the caller."""

    async def fetch(key):
        raise LookupError(key)

    fetch = driver.decorate(fetch, ttl=60, name=name)
    assert isinstance(driver.start(fetch, "a").outcome(), LookupError)
    (span,) = sdk.spans(name)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "LookupError('a')"
    assert [event.attributes["exception.type"] for event in span.events] == ["LookupError"]
    assert span.attributes["error.type"] == "LookupError"
    (point,) = sdk.points("call.duration", name)
    assert (point.count, point.attributes["error.type"]) == (1, "LookupError")


def test_a_cancelled_execution_is_no_failure(sdk, name):
    """Its span ends, and says what ended it."""

    async def main():
        begun = asyncio.Event()

        @single_flight_ttl(ttl=60, name=name)
        async def fetch():
            begun.set()
            await asyncio.sleep(60)

        task = asyncio.create_task(fetch())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    (span,) = sdk.spans(name)
    assert span.attributes["error.type"] == "CancelledError"
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


def test_renewals_are_children_of_who_came_for_them(sdk, driver, name):
    """In the pool and in tasks, also after that caller's span has ended."""
    clock, begun = FakeClock(), Executions()

    async def fetch(key):
        begun.begin()
        return key

    fetch = driver.decorate(fetch, ttl=60, grace=60, timer=clock, name=name)

    async def ask(span):
        with sdk.tracer.start_as_current_span(span):
            return await fetch("a")

    assert driver.call(ask, "first") == "a"
    clock.advance(61)
    assert driver.call(ask, "second") == "a"
    begun.wait_for(2)
    until(lambda: len(sdk.spans(name)) == 2)
    first, second = sorted(sdk.spans(name), key=lambda span: span.start_time)
    assert first.parent.span_id == sdk.spans("first")[0].context.span_id
    assert second.parent.span_id == sdk.spans("second")[0].context.span_id
    assert (second.attributes["singleflight.kind"], second.attributes["singleflight.background"]) == (
        "refresh",
        True,
    )


def test_a_loaders_call_is_one_span(sdk, driver, name):
    """For all its keys, and current in the loader."""

    async def fetch(key):
        return key

    async def load(keys):
        with sdk.tracer.start_as_current_span("request"):
            return {key: key for key in keys}

    fetch = driver.decorate(fetch, ttl=60, name=name)
    load = driver.loader(fetch, load)
    assert driver.call(load, ["a", "b"]) == {"a": "a", "b": "b"}
    (span,), (request,) = sdk.spans(name), sdk.spans("request")
    assert request.parent.span_id == span.context.span_id
    assert span.attributes["singleflight.batch_size"] == 2
    assert "singleflight.keys" not in span.attributes


def test_callers_that_are_gathered_are_linked(sdk, driver, name):
    """Whoever began the loader's call is the parent of its span; the other has a link to it."""

    async def fetch(key):
        raise AssertionError("the loader does it")

    async def load(keys):
        return {key: key for key in keys}

    fetch = driver.decorate(fetch, ttl=60, name=name)
    driver.loader(fetch, load, gather=30, max_batch=2)

    async def ask(key):
        with sdk.tracer.start_as_current_span("caller"):
            return await fetch(key)

    callers = [driver.start(ask, key) for key in "ab"]
    assert [caller.outcome() for caller in callers] == ["a", "b"]
    (span,) = sdk.spans(name)
    links = {each.context.span_id: each.links for each in sdk.spans("caller")}
    assert links.pop(span.parent.span_id) == ()
    ((link,),) = links.values()
    assert link.context.span_id == span.context.span_id
    assert link.attributes == {"singleflight.name": name}


def test_call_times_have_exemplars(name):
    """The SDK attaches the trace and span in which an execution's time was recorded."""
    sdk = Exported()
    try:
        clock = FakeClock()

        @single_flight_ttl(ttl=60, name=name, timer=clock)
        def fetch(key):
            clock.advance(0.3)
            return key

        with sdk.tracer.start_as_current_span("caller"):
            fetch(1)
        (span,) = sdk.spans(name)
        (point,) = sdk.points("call.duration", name)
        (exemplar,) = point.exemplars
        assert (exemplar.trace_id, exemplar.span_id) == (span.context.trace_id, span.context.span_id)
        assert (point.sum, point.count) == (0.3, 1)
        assert 0.25 in point.explicit_bounds
    finally:
        sdk.close()


def test_keys_are_told_on_request(name):
    """Bounded; by default they are not told."""
    sdk = Exported(keys=True)
    try:
        single_flight_ttl(ttl=60, name=name)(lambda key: 1)("x" * 1000)
        (span,) = sdk.spans(name)
        (key,) = span.attributes["singleflight.keys"]
        assert key.startswith("('xxx")
        assert len(key) <= 200
    finally:
        sdk.close()


def test_undoing(name):
    """No span, no count and no link afterwards; hits and misses take the ways they took before."""
    sdk = Exported()
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    fetch(1)
    sdk.undo()
    sdk.undo()
    assert fetch._self_cache.is_direct
    assert not fetch._self_cache.tell.has_listener
    fetch(2)
    assert len(sdk.spans(name)) == 1
    assert sdk.points("calls", name) == []
    again = instrument(sdk.meters, sdk.tracers)
    fetch(3)
    assert len(sdk.spans(name)) == 2
    assert sdk.value("calls", name) == 3
    again()
    sdk.close()


def test_instrumenting_twice(sdk, name):
    """The same providers are used once; others in addition."""
    assert instrument(sdk.meters, sdk.tracers) is sdk.undo
    with pytest.raises(ValueError, match=r"^keys: these providers are in use already with keys=False"):
        instrument(sdk.meters, sdk.tracers, keys=True)
    assert instrument(sdk.meters, sdk.tracers) is sdk.undo
    other = Exported()
    single_flight_ttl(ttl=60, name=name)(lambda key: key)(1)
    assert len(sdk.spans(name)) == len(other.spans(name)) == 1
    other.close()


def test_the_global_providers_without_an_sdk(name):
    """Nothing is exported, and nothing fails."""
    undo = instrument()
    try:
        fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
        assert fetch(1) == fetch(1) == 1
    finally:
        undo()


def test_a_hit_takes_the_same_way(sdk, name):
    """Nobody listens to hits."""
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    fetch(1)
    assert not fetch._self_cache.tell.watches_hits
    assert fetch._self_cache.store.index[(1,)].deadline > 0


def test_a_coroutine_that_the_collector_closes(sdk, name, caplog):
    """Its span ends; the context of whoever is interrupted stays as it is."""
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)  # only for its context manager
    from singleflight.opentelemetry import _active, _Tracing
    from singleflight.telemetry.executions import Execution

    assert _active
    tracing = _Tracing(sdk.tracer, sdk.meters.get_meter("test").create_histogram("seconds"), False)

    async def run():
        with tracing.executing(Execution(name, (1,), "call", False, lambda: 0.0)):
            await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(main())
    task._log_destroy_pending = False
    loop.close()
    with caplog.at_level(logging.ERROR), sdk.tracer.start_as_current_span("other") as other:
        del task
        gc.collect()
        assert trace.get_current_span() is other
    assert caplog.messages == []
    assert len(sdk.spans(name)) == 1
    assert fetch(1) == 1


def test_many_threads_and_tasks_keep_their_traces_apart(sdk, name):
    """Every execution is in the trace of its own leader, whoever else runs."""

    def fetch(key):
        with sdk.tracer.start_as_current_span(f"request {key}"):
            return key

    fetch = single_flight_ttl(ttl=60, name=name)(fetch)

    @fetch.twin
    async def afetch(key):
        await asyncio.sleep(0)
        with sdk.tracer.start_as_current_span(f"request {key}"):
            return key

    barrier = threading.Barrier(4)

    def in_thread(number):
        barrier.wait(20)
        for key in range(number * 10, number * 10 + 10):
            with sdk.tracer.start_as_current_span(f"caller {key}"):
                fetch(key)

    async def one(key):
        with sdk.tracer.start_as_current_span(f"caller {key}"):
            await afetch(key)

    async def in_tasks():
        barrier.wait(20)
        await asyncio.gather(*(one(key) for key in range(100, 120)))

    with ThreadPoolExecutor(4) as pool:
        ran = [pool.submit(in_thread, number) for number in range(3)]
        ran.append(pool.submit(asyncio.run, in_tasks()))
        for future in ran:
            future.result(30)
    spans = {span.context.span_id: span for span in sdk.exporter.get_finished_spans()}
    requests = [span for span in spans.values() if span.name.startswith("request")]
    assert len(requests) == 50
    for request in requests:
        execution = spans[request.parent.span_id]
        assert execution.name == name
        assert spans[execution.parent.span_id].name == request.name.replace("request", "caller")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"meter_provider": 3}, "^meter_provider: expected a provider or None, got 3"),
        ({"tracer_provider": 3}, "^tracer_provider: expected a provider or None, got 3"),
        ({"keys": 1}, "^keys: expected True or False, got 1"),
    ],
)
def test_bad_input(arguments, text):
    """It is refused at once."""
    with pytest.raises(TypeError, match=text):
        instrument(**arguments)
