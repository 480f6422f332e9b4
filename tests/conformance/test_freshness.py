"""freshness: how long values live, how they are renewed, and what is served meanwhile."""

import contextvars
import logging
from datetime import timedelta

import pytest

from singleflight import AdaptiveTTL, Unchanged, configure_renewal, current_flight, single_flight_ttl
from singleflight.testing import FakeClock

from ..drivers import until
from .conftest import outcomes


def stale(scene, *then, **options):
    """A function whose value 0 is stale; its renewal, execution 1, is held at `gate`."""
    one = scene(**{"grace": 600, **options})
    one.call()
    one.clock.advance(60)
    one.gate = one.hold(1, *then)
    return one


def renewing(scene, *then, **options):
    """The same, with the renewal in progress."""
    one = stale(scene, *then, **options)
    assert one.call() == 0
    one.executions.wait_for(2)
    return one


def test_a_refresh_blocks_no_reader(driver, scene):
    """While `refresh` runs the function, all callers get the old value, and after it the new one."""
    one = scene()
    one.call()
    gate = one.hold(1)
    refreshing = driver.start(one.fetch.refresh)
    one.executions.wait_for(2)
    assert [one.call() for _ in range(4)] == [0] * 4
    gate.set()
    assert refreshing.outcome() == 1
    assert one.call() == 1


def test_a_failed_refresh_keeps_the_value(driver, scene):
    """A refresh that fails raises to its caller and is counted; the old value is still served."""
    one = scene()
    one.call()
    one.script[1] = [ValueError()]
    with pytest.raises(ValueError):
        driver.call(one.fetch.refresh)
    assert one.call() == 0
    assert one.fetch.stats().failures == 1


@pytest.mark.parametrize("how", ["put", "invalidate", "cache_clear"])
def test_what_drops_or_replaces_a_value_discards_its_refresh(driver, scene, how):
    """After `put`, `invalidate` or `cache_clear` only its own caller gets the result of a refresh."""
    one = scene()
    one.call()
    gate = one.hold(1)
    refreshing = driver.start(one.fetch.refresh)
    one.executions.wait_for(2)
    getattr(one.fetch, how)(*(["put"] if how == "put" else []))
    gate.set()
    assert refreshing.outcome() == 1
    assert one.call() == ("put" if how == "put" else 2)


def test_a_stale_completion_does_not_kill_its_successor(scene):
    """A run that lost its key and ends late neither stores anything nor ends the run that follows it."""
    one = scene()
    gates = [one.hold(0), one.hold(1)]
    old = one.ask()
    one.fetch.invalidate()
    new = one.ask()
    gates[0].set()
    assert old.outcome() == 0
    assert [flight.detached for flight in one.fetch.flights()] == [False]
    follower = one.join()
    gates[1].set()
    assert outcomes([new, *follower]) == [1, 1]
    assert one.call() == 1


def test_an_entry_that_expires_during_its_refresh(driver, scene):
    """When an entry expires during its refresh, readers wait for the refresh; there is no second run."""
    one = scene()
    one.call()
    gate = one.hold(1)
    refreshing = driver.start(one.fetch.refresh)
    one.executions.wait_for(2)
    one.clock.advance(61)
    readers = one.join(count=3)
    gate.set()
    assert outcomes([refreshing, *readers]) == [1] * 4
    assert one.runs == 2


def test_nothing_is_resurrected_by_a_refresh_of_an_absent_key(driver, scene):
    """A key that is invalidated while it is refreshed for the first time has no entry afterwards."""
    one = scene()
    gate = one.hold(0)
    refreshing = driver.start(one.fetch.refresh)
    one.executions.wait_for(1)
    assert one.fetch.invalidate() is True
    gate.set()
    assert refreshing.outcome() == 0
    assert one.fetch.entry() is None
    assert one.call() == 1


def test_a_miss_waits_for_the_renewal_in_flight(scene):
    """If the grace ends while a value is renewed, callers join the renewal."""
    one = renewing(scene)
    one.clock.advance(600)
    late = one.join(count=3)
    one.gate.set()
    assert outcomes(late) == [1] * 3
    assert one.runs == 2


def test_a_renewal_ignores_that_its_trigger_goes(task_scene):
    """The caller that found the value stale may be cancelled; the renewal continues."""
    one = stale(task_scene)
    trigger = one.driver.start(one.fetch)
    one.executions.wait_for(2)
    trigger.cancel()
    trigger.outcome()
    one.gate.set()
    until(lambda: one.fetch.entry().value == 1)


@pytest.fixture
def full_pool(make_gate):
    """The pool that renews, with its only thread busy and no place to wait."""
    configure_renewal(threads=1, queued=0)
    clock, busy, runs = FakeClock(), make_gate(), []

    @single_flight_ttl(ttl=1, grace=9, timer=clock)
    def hold():
        runs.append(1)
        busy.pass_()

    hold.put("stale")
    clock.advance(1)
    assert hold() == "stale"
    until(lambda: runs)
    yield
    busy.set()
    until(lambda: not hold.flights())
    configure_renewal()


def test_a_refused_executor_leaves_the_entry_as_it_was(full_pool):
    """If no thread can renew, the caller runs the function, and gets the old value if that fails."""
    clock, fails = FakeClock(), [False]

    @single_flight_ttl(ttl=60, grace=600, timer=clock)
    def fetch():
        if fails[0]:
            raise ValueError
        return clock()

    fetch()
    clock.advance(60)
    fails[0] = True
    assert fetch() == 0.0
    assert (fetch.entry().value, fetch.entry().state, fetch.stats().failures) == (0.0, "stale", 1)
    fails[0] = False
    clock.advance(1)
    assert fetch() == 61.0


def test_failed_renewals_are_throttled(scene, caplog):
    """A failed renewal is tried again after a second, however many read meanwhile, and is logged once."""
    one = stale(scene, ValueError("down"))
    one.gate.set()
    one.script[2] = [ValueError("still down")]
    with caplog.at_level(logging.WARNING, "singleflight"):
        for failures, step in ((1, 0.999), (1, 0.001), (2, 0)):
            assert [one.call() for _ in range(5)] == [0] * 5
            until(lambda failures=failures: one.fetch.stats().failures == failures)
            one.settle()
            assert one.runs == 1 + failures
            one.clock.advance(step)
    assert len(caplog.records) == 1


def test_grace_has_a_hard_end(scene):
    """Until the very end of its grace a value is served, and from then on the error of the call is raised."""
    one = stale(scene, ValueError())
    one.gate.set()
    one.script[2] = [ValueError("no more")]
    one.clock.advance(599)
    assert one.call() == 0
    until(lambda: one.fetch.stats().failures == 1)
    one.settle()
    one.clock.advance(1)
    with pytest.raises(ValueError, match="no more"):
        one.call()


def test_a_stale_value_is_served_at_once(scene):
    """In its grace a value is served without waiting, while one run in the background renews it."""
    one = renewing(scene)
    assert [one.call() for _ in range(5)] == [0] * 5
    assert [flight.kind for flight in one.fetch.flights()] == ["refresh"]
    one.gate.set()
    one.settle()
    assert one.call() == 1
    assert (one.runs, one.fetch.stats().stale_hits) == (2, 6)


def test_invalidate_and_put_discard_a_renewal(scene):
    """After `invalidate` or `put` the result of a renewal in the background is not stored."""
    one = renewing(scene)
    one.fetch.put("put")
    one.gate.set()
    one.settle()
    assert one.call() == "put"


def test_refresh_ahead_renews_before_the_ttl_ends(scene):
    """With `refresh_ahead` a read after that part of the ttl starts a renewal, and nobody waits."""
    one = scene(refresh_ahead=0.9)
    one.call()
    one.clock.advance(53.9)
    assert (one.call(), one.runs) == (0, 1)
    one.clock.advance(0.1)
    gate = one.hold(1)
    assert [one.call() for _ in range(4)] == [0] * 4
    one.executions.wait_for(2)
    gate.set()
    one.settle()
    assert (one.call(), one.runs, one.fetch.stats().stale_hits) == (1, 2, 0)


def test_jitter_only_shortens(driver):
    """With `jitter` each lifetime is drawn from `[ttl * (1 - jitter), ttl]`, so deadlines differ."""

    async def fetch(key):
        return key

    fetch = driver.decorate(fetch, jitter=0.5)

    async def ask():
        return [await fetch(key) for key in range(200)]

    driver.call(ask)
    lives = [fetch.entry(key).ttl for key in range(200)]
    assert all(30 <= life <= 60 for life in lives)
    assert len(set(lives)) > 100


def test_the_value_may_decide_how_long_it_lives(scene):
    """A callable `ttl` sees the landing: key, value, duration, followers and the previous entry."""
    landings = []

    def ttl(landing):
        landings.append(landing)
        return timedelta(seconds=10)

    one = scene(ttl=ttl)
    gate = one.hold(0)
    callers = one.herd(4)
    one.clock.advance(2)
    gate.set()
    outcomes(callers)
    one.clock.advance(10)
    one.call()
    first, second = landings
    assert (first.key, first.value, first.duration, first.followers) == (("A",), 0, 2.0, 3)
    assert (first.previous, second.previous.value) == (None, 0)


def test_busy_keys_may_be_kept_longer(scene):
    """`AdaptiveTTL` doubles a ttl while many callers wait, up to a maximum, and then returns to the base."""
    one = scene(ttl=AdaptiveTTL(base=10, maximum=30, factor=2, followers=2))
    lives = []
    for number, waiting in enumerate([5, 5, 5, 0]):
        gate = one.hold(number)
        callers = one.herd(1 + waiting)
        gate.set()
        outcomes(callers)
        lives.append(one.fetch.entry().ttl)
        one.clock.advance(lives[-1])
    assert lives == [20, 30, 30, 10]


def test_a_renewal_has_its_triggers_context(loops):
    """A renewal sees the context variables of the caller that found the value stale."""
    user, clock = contextvars.ContextVar("user"), FakeClock()

    @single_flight_ttl(ttl=60, grace=600, timer=clock)
    def fetch():
        return user.get()

    async def ask(name):
        user.set(name)
        return fetch()

    loop = loops()
    assert loop.run(ask, "Ann") == "Ann"
    clock.advance(60)
    assert loop.run(ask, "Bob") == "Ann"
    until(lambda: fetch.entry().value == "Bob")


def test_a_caller_may_wait_a_little_for_a_renewal(driver):
    """With `soft_timeout` callers get the renewed value if it comes in time, else the stale one."""
    clock, gates, runs = FakeClock(), {1: driver.gate(), 2: driver.gate()}, []

    async def fetch():
        runs.append(len(runs))
        number = runs[-1]
        if number in gates:
            await gates[number]
        return number

    options = {"ttl": 10, "grace": 100, "timer": clock}
    patient = driver.decorate(fetch, soft_timeout=30, **options)
    assert driver.call(patient) == 0
    clock.advance(11)
    caller = driver.start(patient)
    until(lambda: any(flight.followers for flight in patient.flights()))
    gates[1].set()
    assert caller.outcome() == 1
    clock.advance(11)
    hasty = driver.decorate(fetch, soft_timeout=0.01, **options)
    hasty.put("stale")
    clock.advance(11)
    assert driver.call(hasty) == "stale"
    gates[2].set()
    until(lambda: not hasty.flights())
    assert driver.call(hasty) == 2


def test_an_unchanged_value_is_kept_for_another_ttl(driver):
    """A function that returns `Unchanged` keeps the value that `current_flight().previous` showed it."""
    clock, seen = FakeClock(), []

    async def fetch():
        seen.append(current_flight().previous)
        return "value" if seen[-1] is None else Unchanged

    fetch = driver.decorate(fetch, ttl=10, timer=clock)
    assert driver.call(fetch) == "value"
    clock.advance(11)
    assert driver.call(fetch) == "value"
    assert (seen[1].value, seen[1].age) == ("value", 11.0)
    clock.advance(9)
    assert (driver.call(fetch), fetch.stats().calls) == ("value", 2)
