"""A key that is spoilt after it was handed over harms only itself: it changes, or raises."""

import gc
import weakref

import pytest

from singleflight import drain_sync, report
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions
from ..spoilt import SPOIL, Key, SpoiltError, become_another


@pytest.fixture(params=SPOIL.values(), ids=SPOIL)
def spoil(request):
    """What happens to a key."""
    return request.param


@pytest.fixture(params=["part of the key", "the key itself"])
def keyed(request):
    """Options: a default key, which is a tuple, and the user's own object."""
    return {} if request.param == "part of the key" else {"key": lambda key: key}


def settled(fetch):
    """The counts, where nothing is in progress and nothing is held."""
    stats = fetch.stats()
    assert fetch.flights() == ()
    assert (stats.in_flight, stats.locks - stats.idle_locks) == (0, 0)
    assert drain_sync(timeout=5)
    assert "0 flights" in report()
    return stats


async def echo(key):
    return key.first


def test_the_limit_holds(driver, spoil, keyed):
    """However many are spoilt, and whenever: no more are kept than may be, and sound calls hit."""
    fetch = driver.decorate(echo, maxsize=3, **keyed)
    for number in range(12):
        key = Key(f"old {number}")
        assert driver.call(fetch, key) == f"old {number}"
        if number % 4 != 1:
            spoil(key)
        assert settled(fetch).entries <= 3
    for name in "ABCDEF":
        assert [driver.call(fetch, Key(name)) for _ in range(2)] == [name, name]
        assert settled(fetch).entries <= 3
    stats = settled(fetch)
    assert (stats.calls, stats.fetches, stats.hits, stats.uncached) == (18, 18, 6, 0)
    assert stats.evictions == stats.calls - stats.entries
    assert (stats.errors, stats.failures) == (0, 0)


def test_sound_calls_go_on_when_the_spoilt_have_run_out(driver, spoil, keyed):
    """Each entry leaves when its time is over, whatever its key has become."""
    clock = FakeClock()
    fetch = driver.decorate(echo, maxsize=4, timer=clock, **keyed)
    for name in "ABCD":
        key = Key(name)
        driver.call(fetch, key)
        if name in "AC":
            spoil(key)
    clock.advance(61)
    for name in "EFGH":
        assert [driver.call(fetch, Key(name)) for _ in range(2)] == [name, name]
    stats = settled(fetch)
    assert (stats.entries, stats.expirations + stats.evictions, stats.hits) == (4, 4, 4)
    clock.advance(61)
    assert settled(fetch).entries == 0


def test_what_a_spoilt_key_held_is_let_go_of(driver, spoil, keyed):
    """Its value does not outlive its entry."""

    class Value:
        pass

    seen = []

    async def fetch(key):
        value = Value()
        seen.append(weakref.ref(value))
        return value

    fetch = driver.decorate(fetch, maxsize=2, **keyed)
    for name in "AB":
        key = Key(name)
        driver.call(fetch, key)
        spoil(key)
    for name in "CD":
        driver.call(fetch, Key(name))
    driver.callers.clear()
    gc.collect()
    assert [ref() is None for ref in seen] == [True, True, False, False]


def test_a_key_that_has_become_another_serves_nobody(driver, keyed):
    """Whatever happens in the store: who asks for what it has become gets a value of its own."""
    fetch = driver.decorate(echo, maxsize=4, **keyed)
    for name in "AB":
        key = Key(name)
        driver.call(fetch, key)
        become_another(key)
    for name in "CDE":
        driver.call(fetch, Key(name))
    assert [driver.call(fetch, Key("another")) for _ in range(2)] == ["another"] * 2
    assert settled(fetch).entries <= 4


def test_a_sound_entry_survives_what_has_become_its_equal(driver, keyed):
    """The entry of a key that has become equal to a sound one leaves alone."""
    clock = FakeClock()
    fetch = driver.decorate(echo, ttl=lambda landing: 100 if landing.value == "another" else 10, timer=clock)
    key = Key("A")
    driver.call(fetch, key)
    driver.call(fetch, Key("another"))
    become_another(key)
    clock.advance(11)
    assert settled(fetch).entries == 1
    assert driver.call(fetch, Key("another")) == "another"
    assert settled(fetch).hits == 1


def test_hits_stay_hits_and_can_be_switched_off(driver, spoil, keyed):
    """After spoilt entries have left, calls find what is stored, and a bypass is one."""
    fetch = driver.decorate(echo, maxsize=2, **keyed)
    for name in "ABC":
        key = Key(name)
        driver.call(fetch, key)
        spoil(key)
    driver.call(fetch, Key("D"))
    before = settled(fetch)
    assert [driver.call(fetch, Key("D")) for _ in range(3)] == ["D"] * 3
    with fetch.bypass():
        assert driver.call(fetch, Key("D")) == "D"
    assert driver.call(fetch, Key("D")) == "D"
    after = settled(fetch)
    assert (after.hits - before.hits, after.calls) == (4, before.calls)


def test_a_bypass_survives_spoilt_entries_that_leave(driver, spoil, keyed):
    """What is put inside of a bypass is not served there, whatever leaves for it."""
    executions = Executions()

    async def fetch(key):
        return executions.begin()

    fetch = driver.decorate(fetch, maxsize=2, **keyed)
    for name in "AB":
        key = Key(name)
        driver.call(fetch, key)
        spoil(key)
    with fetch.bypass():
        fetch.put("put", Key("C"))
        assert driver.call(fetch, Key("C")) == 2
    assert driver.call(fetch, Key("C")) == "put"


# -- in flight --------------------------------------------------------------------------------------------


class Held:
    """A function held in a call whose key is spoilt meanwhile, with a follower that has an equal one."""

    def __init__(self, driver, spoil, respond=None, **options):
        seen, gate, self.executions = Recorder(), driver.gate(), Executions()
        self.driver = driver

        async def fetch(key):
            number = self.executions.begin()
            if number == 0:
                await gate
            return respond(number) if respond else number

        self.fetch = driver.decorate(fetch, listener=seen, **options)
        self.key = Key("A")
        driver.start(self.fetch, self.key)
        self.executions.wait_for(1)
        driver.start(self.fetch, Key("A"))
        if "flight_timeout" not in options:  # else it may come too late to wait
            seen.wait_for("wait")
        spoil(self.key)
        self.open = gate.set

    def outcomes(self):
        self.open()
        return self.driver.outcomes()


def test_its_flight_ends_for_everybody(driver, spoil, keyed):
    """Leader and followers get the value, nobody else does, and others are served as ever."""
    held = Held(driver, spoil, **keyed)
    assert driver.call(held.fetch, Key("B")) == 1
    assert held.outcomes() == [0, 0, 1]
    assert driver.call(held.fetch, Key("B")) == 1
    stats = settled(held.fetch)
    assert (stats.calls, stats.fetches, stats.waits, stats.hits, stats.errors) == (2, 2, 1, 1, 0)
    assert stats.entries + stats.uncached == 2


def test_its_flight_ends_when_it_fails(driver, spoil, keyed):
    """Everybody gets what the function raised; nothing of it is left."""

    def respond(number):
        raise LookupError(number)

    held = Held(driver, spoil, respond, follower_retries=0, failure_ttl=60, **keyed)
    assert [repr(error) for error in held.outcomes()] == ["LookupError(0)"] * 2
    stats = settled(held.fetch)
    assert (stats.calls, stats.failures, stats.errors) == (1, 1, 2)


@pytest.mark.parametrize("failure_ttl", [0, 60])
def test_it_is_logged_that_an_outcome_could_not_be_stored(driver, caplog, failure_ttl):
    """With what the key raised: its owner wants to know why nothing of it is ever cached."""

    def respond(number):
        if failure_ttl:
            raise LookupError(number)
        return number

    held = Held(driver, SPOIL["raises when hashed"], respond, follower_retries=0, failure_ttl=failure_ttl)
    held.outcomes()
    (line,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert "fetch: what (" in line
    assert "Key('A')" in line
    assert "could not be stored: SpoiltError('hash')" in line


@pytest.mark.parametrize("failure_ttl", [0, 60])
def test_it_is_logged_once_the_flight_has_ended(driver, failure_ttl):
    """That runs the key's `__repr__`, which may do anything, and nobody waits for it."""
    flying = []

    class Seen(Key):
        def __repr__(self):
            flying.append(len(fetch._self_cache.locks.live()))
            return "Seen()"

    async def fetch(key):
        key.spoilt = "hash!"
        if failure_ttl:
            raise LookupError
        return 1

    fetch = driver.decorate(fetch, key=lambda key: key, failure_ttl=failure_ttl)
    driver.start(fetch, Seen("A"))
    driver.outcomes()
    assert flying == [0]


def test_its_followers_try_again(driver, spoil, keyed):
    """A follower leads the next flight, though the lock's own key is spoilt."""

    def respond(number):
        if number == 0:
            raise LookupError(number)
        return number

    held = Held(driver, spoil, respond, **keyed)
    first, second = held.outcomes()
    assert repr(first) == "LookupError(0)"
    assert second == 1 or isinstance(second, SpoiltError)  # it may meet the spoilt key in a comparison
    settled(held.fetch)


def test_it_is_seen_while_it_flies(driver, spoil, keyed):
    """`flights`, `stats`, `report` and `drain` know of it."""
    held = Held(driver, spoil, **keyed)
    assert [flight.followers for flight in held.fetch.flights()] == [1]
    assert held.fetch.stats().in_flight == 1
    assert "1 flights" in report()
    assert not drain_sync(timeout=0)
    assert held.outcomes() == [0, 0]
    settled(held.fetch)


@pytest.mark.parametrize("how", ["invalidate_where", "cache_clear"])
def test_it_can_be_detached(driver, spoil, keyed, how):
    """Whoever drops everything drops what it brings, too."""
    held = Held(driver, spoil, **keyed)
    if how == "cache_clear":
        held.fetch.cache_clear()
    else:
        assert held.fetch.invalidate_where(lambda key: True) == 1
    assert [flight.detached for flight in held.fetch.flights()] == [True]
    assert held.outcomes() == [0, 0]
    assert settled(held.fetch).entries == 0


def test_it_may_take_too_long(driver, spoil, keyed):
    """A flight that is due loses its key, whatever that has become, and its followers go on."""
    held = Held(driver, spoil, flight_timeout=0.05, **keyed)
    second = driver.callers[1].outcome()
    assert second == 1 or isinstance(second, SpoiltError)  # it may meet the spoilt key in a comparison
    held.outcomes()
    settled(held.fetch)


# -- dropped ----------------------------------------------------------------------------------------------


def test_everything_can_be_dropped(driver, spoil, keyed):
    """By a predicate or all at once, spoilt and sound."""
    fetch = driver.decorate(echo, **keyed)
    for round_ in range(2):
        for name in "ABC":
            key = Key(name)
            driver.call(fetch, key)
            if name != "B":
                spoil(key)
        if round_:
            fetch.cache_clear()
        else:
            picked = []
            assert fetch.invalidate_where(lambda key, picked=picked: picked.append(key) or True) == 3
            assert len(picked) == 3
        assert settled(fetch).entries == 0
    assert driver.call(fetch, Key("B")) == "B"


def test_only_what_is_picked_is_dropped(driver, spoil):
    """A predicate decides about spoilt keys, too, by what they are now."""
    fetch = driver.decorate(echo, key=lambda key: key)
    keys = [Key(name) for name in "ABC"]
    for key in keys:
        driver.call(fetch, key)
    spoil(keys[0])
    assert fetch.invalidate_where(lambda key: key.name == "B") == 1
    assert settled(fetch).entries == 2
    assert fetch.invalidate_where(lambda key: key is keys[0]) == 1
    assert settled(fetch).entries == 1
    assert driver.call(fetch, Key("C")) == "C"
    assert settled(fetch).hits == 1


def test_the_entries_of_an_instance_go_with_it(driver, spoil):
    """No key is hashed or compared for that."""

    class Account:
        pass

    async def price(self, key):
        return key.name

    price = driver.decorate(price)
    Account.price = price.plain if price.plain is not None else price.coroutine
    account, other = Account(), Account()
    for each in (account, other):
        for name in "AB":
            key = Key(name)
            driver.call(price.of(each), key)
            if name == "A":
                spoil(key)
    assert settled(price).entries == 4
    del each, account
    driver.callers.clear()
    gc.collect()
    stats = settled(price)
    assert stats.entries + stats.evictions == 2  # the other's spoilt one may have left with them
    assert driver.call(price.of(other), Key("B")) == "B"
    assert settled(price).hits == 1


# -- locks ------------------------------------------------------------------------------------------------


def test_idle_locks_stay_below_their_limit(driver, spoil, keyed):
    """Spoilt keys do not stay, nor keep others from leaving."""
    fetch = driver.decorate(echo, max_idle_locks=3, **keyed)
    for number in range(20):
        key = Key(f"old {number}")
        driver.call(fetch, key)
        if number % 3:
            spoil(key)
        assert settled(fetch).idle_locks <= 3
    for name in "ABCD":
        driver.call(fetch, Key(name))
    assert settled(fetch).idle_locks == 3
    assert fetch.locks.evict_idle() == 3
    assert settled(fetch).locks == 0


# -- stale values -----------------------------------------------------------------------------------------


def test_a_stale_value_whose_key_raises_is_served_to_its_equal(driver):
    """Its renewal is the caller's, under the caller's sound key."""
    clock, executions = FakeClock(), Executions()

    async def fetch(key):
        return executions.begin()

    fetch = driver.decorate(fetch, grace=60, timer=clock)
    key = Key("A")
    assert driver.call(fetch, key) == 0
    key.spoilt = "hash!"
    clock.advance(61)
    assert driver.call(fetch, Key("A")) == 0
    executions.wait_for(2)
    assert drain_sync(timeout=10)
    assert driver.call(fetch, Key("A")) == 1
    stats = settled(fetch)
    assert (stats.stale_hits, stats.hits, stats.errors, stats.entries) == (1, 1, 0, 1)


def test_a_value_that_is_renewed_may_be_spoilt_meanwhile(driver, spoil, keyed):
    """The renewal ends, and sound keys go on."""
    clock, executions, gate = FakeClock(), Executions(), driver.gate()

    async def fetch(key):
        number = executions.begin()
        if number == 1:
            await gate
        return number

    fetch = driver.decorate(fetch, grace=60, timer=clock, **keyed)
    key = Key("A")
    driver.call(fetch, key)
    clock.advance(61)
    assert driver.call(fetch, key) == 0
    executions.wait_for(2)
    spoil(key)
    gate.set()
    assert drain_sync(timeout=10)
    settled(fetch)
    assert driver.call(fetch, Key("B")) == 2
    clock.advance(200)
    assert settled(fetch).entries == 0


@pytest.mark.parametrize("number", range(20))
def test_what_lands_for_a_key_that_has_changed_is_no_value_of_another(driver, number):
    """Nor what is kept when others leave: a dictionary may find a changed key where another would be."""
    fetch = driver.decorate(echo, maxsize=4, key=lambda key: key)
    gate, executions, new = driver.gate(), Executions(), f"new {number}"

    async def slow(key):
        executions.begin()
        await gate
        return key.first

    held = driver.decorate(slow, key=lambda key: key)
    keys = [Key(f"{name} {number}") for name in "ABCD"]
    for key in keys[:3]:
        driver.call(fetch, key)
        key.name = f"{new}{key.name}"
    driver.start(held, keys[3])
    executions.wait_for(1)
    keys[3].name = new
    gate.set()
    driver.callers[-1].outcome()
    assert held.entry(Key(new)) is None
    for name in "EFGH":
        driver.call(fetch, Key(name))
    for key in keys[:3]:
        assert fetch.entry(Key(key.name)) is None
    assert settled(fetch).entries == 4
