"""What a bulk call asks the loader for, what it answers, and what it stores."""

import itertools

import pytest

from singleflight import UnhashableKey
from singleflight.testing import FakeClock, Recorder

NAME = "prices of the day"


class Broker:
    """A getter and a loader with a memory of what they were asked for."""

    def __init__(self, driver, missing=(), extra=(), **options):
        self.singles, self.loads, self.missing, self.extra = [], [], missing, extra
        max_batch = options.pop("max_batch", None)

        async def price(symbol, kind="bid"):
            self.singles.append(symbol)
            return f"{symbol} {kind}"

        async def prices(symbols, kind="bid"):
            self.loads.append(symbols)
            return {s: f"{s} {kind}" for s in [*symbols, *self.extra] if s not in self.missing}

        self.price = driver.decorate(price, **options)
        self.prices = driver.loader(self.price, prices, max_batch=max_batch)


def received(stats):
    return stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts


def test_one_call_fetches_all_that_is_not_there(driver):
    """Fresh values come from the store, the rest in one call, and the answer is in the order asked."""
    broker = Broker(driver)
    driver.call(broker.price, "B")
    answer = driver.call(broker.prices, ["C", "B", "A"])
    assert list(answer.items()) == [("C", "C bid"), ("B", "B bid"), ("A", "A bid")]
    assert broker.loads == [["C", "A"]]
    assert driver.call(broker.prices, ("A", "B", "C")) == answer
    assert driver.call(broker.price, "C") == "C bid"
    assert (broker.loads, broker.singles) == ([["C", "A"]], ["B"])
    stats = broker.price.stats()
    assert (stats.fetches, stats.hits, stats.calls, received(stats)) == (3, 5, 2, 8)


def test_nothing_is_asked_for_nothing(driver):
    """An empty iterable is answered with an empty dict, without a call."""
    broker = Broker(driver)
    assert driver.call(broker.prices, []) == {}
    assert driver.call(broker.prices, iter(())) == {}
    assert broker.loads == []


def test_duplicates_collapse(driver):
    """Each key is asked for once, in its first spelling, and answered in every spelling."""
    broker = Broker(driver, key=lambda symbol, kind: (symbol.upper(), kind))
    answer = driver.call(broker.prices, iter(["a", "b", "A", "a"]))
    assert broker.loads == [["a", "b"]]
    assert list(answer.items()) == [("a", "a bid"), ("b", "b bid"), ("A", "a bid")]
    stats = broker.price.stats()
    assert (stats.fetches, received(stats)) == (2, 2)


def test_the_first_spelling_is_asked_for(driver):
    """Of two spellings of one key the loader gets the one that came first, and the answer has both."""
    broker = Broker(driver, key=lambda symbol, kind: (symbol.upper(), kind))
    assert driver.call(broker.prices, ["a", "B", "A", "b"]) == dict.fromkeys("aA", "a bid") | dict.fromkeys(
        "Bb", "B bid"
    )
    assert broker.loads == [["a", "B"]]


def test_other_arguments_are_part_of_the_key(driver):
    """Items of calls with other arguments are other keys, by position, by name and by default."""
    broker = Broker(driver)
    assert driver.call(lambda: broker.prices(symbols=["A"], kind="ask")) == {"A": "A ask"}
    assert driver.call(broker.prices, ["A"], "ask") == {"A": "A ask"}
    assert driver.call(broker.prices, ["A"], "bid") == {"A": "A bid"}
    assert driver.call(broker.prices, ["A"]) == {"A": "A bid"}
    assert broker.loads == [["A"], ["A"]]


def test_values_are_matched_by_key(driver):
    """A loader may spell its items as the broker does."""

    async def price(symbol):
        return symbol

    async def prices(symbols):
        return {symbol.upper(): 1.5 for symbol in symbols}

    price = driver.decorate(price, key=str.upper)
    assert driver.call(driver.loader(price, prices), ["asml", "AAPL"]) == {"asml": 1.5, "AAPL": 1.5}
    assert driver.call(price, "Asml") == 1.5


@pytest.mark.parametrize(("max_batch", "loads"), [(1, ["A", "B", "C"]), (2, ["AB", "C"]), (3, ["ABC"])])
def test_the_loader_is_asked_for_so_many_at_once(driver, max_batch, loads):
    """What exceeds max_batch is fetched in several calls, each with its own keys."""
    broker = Broker(driver, max_batch=max_batch)
    assert list(driver.call(broker.prices, list("ABC"))) == list("ABC")
    assert ["".join(load) for load in broker.loads] == loads
    stats = broker.price.stats()
    assert (stats.calls, stats.fetches) == (len(loads), 3)


def test_a_missing_key_is_absent_and_not_stored(driver):
    """A key that the loader leaves out is not in the answer, and is asked for again by the next call."""
    broker = Broker(driver, missing=["B"])
    for _ in range(2):
        assert driver.call(broker.prices, list("ABC")) == {"A": "A bid", "C": "C bid"}
    assert broker.loads == [["A", "B", "C"], ["B"]]
    assert broker.price.entry("B") is None
    assert broker.price.flights() == ()


def test_a_none_is_handed_out_and_not_stored(driver):
    """A None that the loader returns for a key is that key's value, refused by cache_if as any other."""

    async def price(symbol):
        return None

    async def prices(symbols):
        return dict.fromkeys(symbols)

    price = driver.decorate(price)
    prices = driver.loader(price, prices)
    assert driver.call(prices, ["A"]) == {"A": None}
    assert price.entry("A") is None
    assert price.stats().uncached == 1


def test_what_is_brought_unasked_is_stored(driver):
    """What the loader brings unasked is not in the answer, but served to whoever asks next."""
    seen = Recorder()
    broker = Broker(driver, extra=["X"], listener=seen)
    assert driver.call(broker.prices, ["A"]) == {"A": "A bid"}
    assert driver.call(broker.price, "X") == "X bid"
    assert broker.singles == []
    stats = broker.price.stats()
    assert (stats.fetches, stats.hits, stats.calls, stats.entries) == (1, 1, 1, 2)


def test_extra_keys_may_be_those_of_the_next_batch(driver):
    """What was going to be asked for and has come already is not asked for again."""
    broker = Broker(driver, extra=["C"], max_batch=2)
    assert list(driver.call(broker.prices, list("ABCD"))) == list("ABCD")
    assert broker.loads == [["A", "B"], ["D"]]


@pytest.mark.parametrize("act", ["put", "invalidate", "clear", "cache_clear", "land"])
def test_an_extra_key_never_replaces_something_newer(driver, act):
    """What was put, dropped or fetched for a key while the loader ran is not undone by what it brings."""
    gate, begun, fake = driver.gate(), driver.gate(), FakeClock()

    async def price(symbol):
        return "fetched"

    async def prices(symbols):
        begun.set()
        await gate
        return {"A": "new", "X": "extra"}

    price = driver.decorate(price, timer=fake)
    prices = driver.loader(price, prices)
    price.put("before", "X")
    caller = driver.start(prices, ["A"])
    begun.pass_()
    if act == "put":
        price.put("put", "X")
    elif act == "invalidate":
        price.invalidate("X")
    elif act == "clear":
        assert price.clear() == 1
    elif act == "cache_clear":
        price.cache_clear()
    else:
        driver.call(price.refresh, "X")
    gate.set()
    assert caller.outcome() == {"A": "new"}
    wanted = {"put": "put", "land": "fetched"}.get(act)
    entry = price.entry("X")
    assert (entry and entry.value) == wanted


@pytest.mark.parametrize("request_", ["the first", "a later one"])
def test_an_extra_key_is_as_new_as_the_request_that_brought_it(driver, request_):
    """What was put during one request is older than what the next one brings unasked."""
    gates, begun = [driver.gate(), driver.gate()], [driver.gate(), driver.gate()]

    async def price(symbol):
        return "fetched"

    async def prices(symbols):
        number = "AB".index(symbols[0])
        begun[number].set()
        await gates[number]
        brings = number == (request_ == "a later one")
        return {symbols[0]: "new", **({"X": "extra"} if brings else {})}

    price = driver.decorate(price)
    prices = driver.loader(price, prices, max_batch=1)
    caller = driver.start(prices, ["A", "B"])
    begun[0].pass_()
    price.put("put", "X")
    gates[0].set()
    begun[1].pass_()
    gates[1].set()
    assert caller.outcome() == {"A": "new", "B": "new"}
    assert price.entry("X").value == ("put" if request_ == "the first" else "extra")


def test_an_extra_key_is_not_stored_after_invalidate_where(driver):
    """A predicate may pick what a running loader brings unasked, though there is nothing of it yet."""
    gate, begun = driver.gate(), driver.gate()

    async def price(symbol):
        return "fetched"

    async def prices(symbols):
        begun.set()
        await gate
        return {"A": "new", "X": "extra"}

    price = driver.decorate(price)
    prices = driver.loader(price, prices)
    caller = driver.start(prices, ["A"])
    begun.pass_()
    assert price.invalidate_where(lambda key: key == ("X",)) == 0
    gate.set()
    assert caller.outcome() == {"A": "new"}
    assert price.entry("A").value == "new"
    assert price.entry("X") is None


def test_an_extra_key_replaces_what_was_there_before(driver):
    """A value that was stored before the loader was called gives way to the one that it brings."""
    broker = Broker(driver, extra=["X"])
    broker.price.put("old", "X")
    driver.call(broker.prices, ["A"])
    assert broker.price.entry("X").value == "X bid"


def test_an_extra_key_that_somebody_fetches_is_left_to_them(driver):
    """While another flight is in progress for a key, what the loader brings for it is dropped."""
    gate, seen = driver.gate(), Recorder()

    async def price(symbol):
        await gate
        return "fetched"

    async def prices(symbols):
        return {"A": "A", "X": "extra"}

    price = driver.decorate(price, listener=seen)
    prices = driver.loader(price, prices)
    single = driver.start(price, "X")
    seen.wait_for("fetch")
    assert driver.call(prices, ["A"]) == {"A": "A"}
    assert price.entry("X") is None
    gate.set()
    assert single.outcome() == "fetched"
    assert price.entry("X").value == "fetched"


def test_each_key_has_its_own_ttl(driver):
    """A callable ttl sees every key's landing, and each value ages by itself."""
    clock = FakeClock()
    broker = Broker(driver, ttl=lambda landing: {"A": 10, "B": 20}[landing.key[0]], timer=clock)
    driver.call(broker.prices, ["A", "B"])
    assert (broker.price.entry("A").ttl, broker.price.entry("B").ttl) == (10, 20)
    clock.advance(15)
    assert list(driver.call(broker.prices, ["A", "B"])) == ["A", "B"]
    assert broker.loads == [["A", "B"], ["A"]]


@pytest.mark.parametrize("items", ["ASML", b"ASML", 5, None])
def test_items_are_an_iterable_and_no_string(driver, items):
    """A string in place of a list of strings is a slip, and raises; so does what cannot be iterated."""
    broker = Broker(driver)
    with pytest.raises(TypeError) as caught:
        driver.call(broker.prices, items)
    assert str(caught.value) == f"symbols: expected several, as in a list, got {items!r}"
    assert broker.loads == []


def test_equal_items_of_different_types_have_one_place(driver):
    """With `typed=True` they have two values: that raises, and nothing was fetched. Others are answered."""
    broker = Broker(driver, typed=True, name=NAME)
    assert driver.call(broker.prices, [1, "1", 1]) == {1: "1 bid", "1": "1 bid"}
    with pytest.raises(TypeError) as caught:
        driver.call(broker.prices, [2, 3, 2.0])
    assert str(caught.value) == (
        f"{NAME}: symbols: equal items of different types have one place in the answer, and with typed=True "
        f"a value each; ask for them in separate calls"
    )
    assert broker.loads == [[1, "1"]]
    assert received(broker.price.stats()) == 2


def test_a_key_may_change_between_two_equal_items(driver):
    """As one does that has the minute in it: the answer is the value of the later one."""
    minutes = itertools.chain([59], itertools.repeat(60))
    broker = Broker(driver, key=lambda symbol, kind: (symbol, next(minutes)))
    assert driver.call(broker.prices, ["A", "A"]) == {"A": "A bid"}


@pytest.mark.parametrize(
    "spell", [lambda symbol: symbol, lambda symbol: "".join(list(symbol))], ids=["itself", "an equal one"]
)
def test_a_key_may_change_while_the_loader_runs(driver, spell):
    """The value has the key that it was asked for with, and what comes unasked has that of its item now."""
    minute = [59]

    async def price(symbol):
        raise AssertionError

    async def prices(symbols):
        minute[0] += 1
        return {spell(symbol): symbol.lower() for symbol in [*symbols, "XX"]}

    price = driver.decorate(price, key=lambda symbol: (symbol, minute[0]))
    prices = driver.loader(price, prices)
    assert driver.call(prices, ["AA", "BB"]) == {"AA": "aa", "BB": "bb"}
    assert driver.call(price, "XX") == "xx"
    minute[0] -= 1
    assert driver.call(price, "BB") == "bb"


def test_an_item_that_cannot_be_hashed_changes_nothing(driver):
    """UnhashableKey names the argument and the place; nothing was fetched, counted or left behind."""
    broker = Broker(driver, name=NAME)
    with pytest.raises(UnhashableKey) as caught:
        driver.call(broker.prices, ["A", ["B"]])
    said = f"{NAME}: argument 'symbols[1]' cannot be hashed (list), so it cannot have a place in the answer"
    assert str(caught.value) == said
    with pytest.raises(UnhashableKey, match="kind"):
        driver.call(broker.prices, ["A"], [])
    assert broker.loads == []
    assert received(broker.price.stats()) == 0
    assert broker.price.flights() == ()


def test_switched_off_it_calls_the_loader_directly(driver, monkeypatch):
    """In a bypass block and with the environment's switch nothing is looked up, stored or counted."""
    broker = Broker(driver)
    broker.price.put("stored", "A")
    with broker.price.bypass():
        assert driver.call(broker.prices, ["A", "A"]) == {"A": "A bid"}
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    assert driver.call(broker.prices, ["A"]) == {"A": "A bid"}
    assert broker.loads == [["A", "A"], ["A"]]
    assert received(broker.price.stats()) == 0


def test_switched_off_it_keeps_to_max_batch(driver):
    """The loader is never asked for more at once than it can take."""
    broker = Broker(driver, max_batch=2)
    with broker.price.bypass():
        assert list(driver.call(broker.prices, iter("ABC"))) == list("ABC")
    assert broker.loads == [["A", "B"], ["C"]]


def test_switched_off_it_hands_the_items_on_as_they_came(driver, monkeypatch):
    """A loader that takes all at once gets the very object that it would get undecorated."""
    broker, items = Broker(driver), ("A", "A")
    with broker.price.bypass():
        driver.call(broker.prices, items)
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    driver.call(broker.prices, items)
    assert [loaded is items for loaded in broker.loads] == [True, True]


def test_events_tell_of_every_key(driver):
    """A fetch and a landing for each key, of kind bulk."""
    seen = Recorder()
    broker = Broker(driver, listener=seen)
    driver.call(broker.prices, ["A", "B"])
    assert seen.kinds() == ["fetch", "fetch", "land", "land"]
    assert {event.flight for event in seen.of("fetch")} == {"bulk"}
    driver.call(broker.prices, ["A", "B"])
    assert seen.count("hit") == 2


def test_stale_values_are_served_and_renewed_together(driver):
    """Inside their grace values are served at once, while one call renews them all in the background."""
    clock, seen = FakeClock(), Recorder()
    broker = Broker(driver, grace=60, timer=clock, listener=seen)
    driver.call(broker.prices, ["A", "B"])
    clock.advance(61)
    assert driver.call(broker.prices, ["A", "B", "C"]) == {"A": "A bid", "B": "B bid", "C": "C bid"}
    seen.wait_for("land", 5)
    assert sorted(map(sorted, broker.loads)) == [["A", "B"], ["A", "B"], ["C"]]
    stats = broker.price.stats()
    assert (stats.stale_hits, stats.fetches, stats.calls, stats.refreshes) == (2, 3, 3, 1)
    assert broker.price.entry("A").age == 0


def test_a_stored_failure_fails_the_call(driver):
    """While a failure is stored for a key, a bulk call that asks for it raises a copy and loads nothing."""
    clock = FakeClock()

    async def price(symbol):
        raise ValueError(symbol)

    loads = []

    async def prices(symbols):
        loads.append(symbols)
        return dict.fromkeys(symbols, 1)

    price = driver.decorate(price, failure_ttl=5, timer=clock)
    prices = driver.loader(price, prices)
    with pytest.raises(ValueError, match="B"):
        driver.call(price, "B")
    with pytest.raises(ValueError, match="B"):
        driver.call(prices, ["A", "B", "C"])
    assert loads == []
    stats = price.stats()
    assert (stats.errors, received(stats)) == (4, 4)
    assert price.flights() == ()
    clock.advance(5)
    assert driver.call(prices, ["A", "B", "C"]) == {"A": 1, "B": 1, "C": 1}
