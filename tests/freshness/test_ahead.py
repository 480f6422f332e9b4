"""Renewing ahead of time: everybody is served the fresh value, and nobody pays for it."""

import pytest

from singleflight import AdaptiveTTL
from singleflight.core import coordinator
from singleflight.drivers import tasks, threads
from singleflight.testing import Recorder

from ..drivers import until

CALLERS = 6


@pytest.fixture
def due(source):
    """A function whose value 0 is fresh and due for renewal; execution 1 is held at `gate`."""

    def make(*then, **options):
        made = source(**{"ttl": 10, "refresh_ahead": 0.5, **options})
        assert made.call() == 0
        made.clock.advance(5)
        made.gate = made.hold(1, *then)
        return made

    return make


def test_not_before_the_part(source):
    """Until then hits are plain hits, and nothing is renewed."""
    made = source(ttl=10, refresh_ahead=0.5)
    made.call()
    made.clock.advance(4.999)
    assert [made.call() for _ in range(4)] == [0] * 4
    assert (made.executions.begun, made.fetch.flights()) == (1, ())


def test_the_first_reader_renews(due):
    """It and everybody else gets the fresh value, as hits; one renewal, which then replaces it."""
    source = due()
    assert [source.call() for _ in range(CALLERS)] == [0] * CALLERS
    source.executions.wait_for(2)
    source.gate.set()
    source.settle()
    assert source.call() == 1
    stats = source.fetch.stats()
    assert (stats.hits, stats.stale_hits, stats.fetches, stats.calls) == (CALLERS + 1, 0, 1, 2)
    assert source.fetch.entry().age == 0.0
    assert source.sums()


def test_hits_stay_on_the_fast_path_while_it_is_renewed(due, monkeypatch):
    """The decision maker is not asked again until the ttl is over."""
    source = due(listener=None)
    assert source.call() == 0
    source.executions.wait_for(2)
    boarded, board = [], coordinator.board
    for driver in (threads, tasks):
        monkeypatch.setattr(driver, "board", lambda cache, call: boarded.append(call) or board(cache, call))
    source.clock.advance(4.999)
    assert [source.call() for _ in range(CALLERS)] == [0] * CALLERS
    assert boarded == []
    assert source.fetch.stats().hits == CALLERS + 1


def test_without_grace_a_miss_joins_the_renewal(driver, due):
    """When the ttl ends first, callers wait for the renewal in flight and not for another call."""
    source = due()
    assert source.call() == 0
    source.executions.wait_for(2)
    source.clock.advance(5)
    driver.start(source.fetch, count=CALLERS)
    source.seen.wait_for("wait", CALLERS)
    source.gate.set()
    assert driver.outcomes() == [0, 0, *[1] * CALLERS]
    assert source.fetch.stats().calls == 2


def test_with_grace_nobody_waits(due):
    """When the ttl ends first, the value is served on, and the renewal in flight is the one there is."""
    source = due(grace=50)
    assert source.call() == 0
    source.executions.wait_for(2)
    source.clock.advance(30)
    assert [source.call() for _ in range(CALLERS)] == [0] * CALLERS
    assert source.executions.begun == 2
    source.gate.set()
    source.settle()
    assert source.call() == 1
    assert source.fetch.stats().stale_hits == CALLERS


def test_a_failure_ahead_of_time_is_tried_again_after_the_floor(due, caplog):
    """The value stays fresh until its ttl ends; then, without grace, it is gone."""
    source = due(ValueError())
    source.gate.set()
    assert source.call() == 0
    until(lambda: source.fetch.stats().failures == 1)
    source.settle()
    source.clock.advance(0.5)
    assert source.call() == 0
    assert (source.executions.begun, len(caplog.records)) == (2, 1)
    source.clock.advance(0.5)
    source.script[2] = [ValueError()]
    assert source.call() == 0
    until(lambda: source.fetch.stats().failures == 2)
    source.settle()
    source.clock.advance(4)
    assert source.call() == 3
    assert source.fetch.stats().errors == 0
    assert source.sums()


def test_a_flight_that_was_asked_for_is_not_doubled(driver, due):
    """Where `refresh` is under way nobody renews as well."""
    source = due()
    refreshing = driver.start(source.fetch.refresh)
    source.executions.wait_for(2)
    assert [source.call() for _ in range(CALLERS)] == [0] * CALLERS
    source.gate.set()
    assert refreshing.outcome() == 1
    assert source.executions.begun == 2


def test_xfetch(source):
    """Nothing is drawn at a read; a function that took no time is renewed at the end of the ttl."""
    made = source(ttl=10, refresh_ahead="xfetch", grace=50)
    made.call()
    made.clock.advance(9.999)
    assert made.call() == 0
    assert made.executions.begun == 1
    made.clock.advance(0.001)
    assert made.call() == 0
    until(lambda: made.fetch.entry().value == 1)


def test_xfetch_goes_by_the_measured_duration(driver):
    """A function that takes 5 s is renewed about that much ahead of time; always within its ttl."""
    from singleflight.testing import FakeClock

    clock = FakeClock()

    async def fetch(key):
        clock.advance(5)
        return key

    fetch = driver.decorate(fetch, ttl=1000, refresh_ahead="xfetch", timer=clock, maxsize=None)
    for key in range(40):
        driver.call(fetch, key)
    records = fetch._self_cache.store.records()
    ahead = [record.landed + record.ttl - record.refresh_at for record in records]
    assert all(0 <= each <= 1000 for each in ahead)
    assert len(set(ahead)) > 20
    assert sum(0.5 < each < 25 for each in ahead) > 20


def test_jitter_spreads_deadlines(source):
    """What landed together does not run out together, and nothing lives for less than its part."""
    made = source(ttl=100, jitter=0.2, maxsize=None)
    for key in range(40):
        made.call(key)
    ttls = [made.fetch.entry(key).ttl for key in range(40)]
    assert all(80 <= ttl <= 100 for ttl in ttls)
    assert len(set(ttls)) > 30
    made.clock.advance(90)
    left = sum(made.fetch.entry(key) is not None for key in range(40))
    assert 0 < left < 40
    assert left == made.fetch.stats().entries
    made.clock.advance(10)
    assert made.fetch.stats().entries == 0


def test_jitter_counts_before_refresh_ahead_and_grace(source):
    """The part and the grace are counted from the shortened life."""
    made = source(ttl=100, jitter=0.5, refresh_ahead=0.5, grace=10)
    made.call()
    (record,) = made.fetch._self_cache.store.records()
    assert record.refresh_at == record.landed + record.ttl * 0.5
    assert record.serves_for(100.0) == pytest.approx(record.ttl + 10)


def test_a_ttl_that_sees_what_it_replaces(source):
    """A callable ttl gets the previous entry, stale as it is; duration and followers of the renewal."""
    landings = []

    def ttl(landing):
        landings.append(landing)
        return 10 * len(landings)

    made = source(ttl=ttl, grace=50)
    made.call()
    made.clock.advance(12)
    assert made.call() == 0
    until(lambda: made.fetch.entry().value == 1)
    assert landings[0].previous is None
    previous = landings[1].previous
    assert (previous.value, previous.ttl, previous.age, previous.state) == (0, 10.0, 12.0, "stale")
    assert (landings[1].followers, landings[1].duration, landings[1].error) == (0, 0.0, None)
    assert made.fetch.entry().ttl == 20.0


def test_a_ttl_that_raises_while_renewing(source):
    """Is a failed renewal: the value stays."""
    ttls = iter([10, LookupError(), 10])

    def ttl(landing):
        answer = next(ttls)
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = source(ttl=ttl, grace=50)
    made.call()
    made.clock.advance(10)
    assert made.call() == 0
    until(lambda: made.fetch.stats().failures == 1)
    made.settle()
    assert made.call() == 0
    made.clock.advance(1)
    assert made.call() == 0
    until(lambda: made.fetch.entry().value == 2)


def test_adaptive_ttl_under_a_crowd(driver, source):
    """A crowd doubles the key's ttl at each landing; a quiet one brings it back."""
    made = source(ttl=AdaptiveTTL(base=10, maximum=40, followers=3))
    for number, ttl in enumerate([20, 40, 40]):
        gate = made.hold(number)
        before = made.seen.count("wait")
        driver.start(made.fetch)
        made.executions.wait_for(number + 1)
        driver.start(made.fetch, count=4)
        made.seen.wait_for("wait", before + 4)
        gate.set()
        driver.outcomes()
        assert made.fetch.entry().ttl == ttl
        made.clock.advance(ttl)
    made.call()
    assert made.fetch.entry().ttl == 10


def test_a_listener_of_hits_with_everything_on(due):
    """Each reader is told of as a hit, also the one that starts the renewal."""
    source = due(grace=50, jitter=0.0, failure_ttl=1)
    assert [source.call() for _ in range(3)] == [0] * 3
    source.seen.wait_for("fetch", 2)
    assert source.seen.count("hit") == 3
    assert source.fetch.stats().hits == 3
    assert isinstance(source.seen, Recorder)
    source.gate.set()
    source.settle()
    assert source.call() == 1
    assert source.seen.count("hit") == 4
