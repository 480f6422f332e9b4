"""A twin is a second way to fetch the same values."""

import asyncio
import gc
import inspect
import os
import weakref

import pytest

from singleflight import InstanceKey, caches, report, single_flight_ttl


def run(awaitable):
    async def main():
        return await asyncio.wait_for(awaitable, 20)

    return asyncio.run(main())


def pair(**options):
    """A plain function, its coroutine twin, and what they fetched in which colour."""
    fetched = []

    @single_flight_ttl(ttl=60, **options)
    def get(symbol, price_type="bid"):
        fetched.append("plain")
        return [symbol, price_type]

    @get.twin
    async def aget(symbol, price_type="bid"):
        fetched.append("coroutine")
        return [symbol, price_type]

    return get, aget, fetched


class Account:
    @single_flight_ttl(ttl=60)
    def get(self, symbol):
        return [symbol]

    @get.twin
    async def aget(self, symbol):
        return [symbol]

    @single_flight_ttl(ttl=60)
    @classmethod
    def of_class(cls, symbol):
        return [cls, symbol]

    @of_class.twin
    @classmethod
    async def aof_class(cls, symbol):
        return [cls, symbol]

    @single_flight_ttl(ttl=60)
    @staticmethod
    def static(symbol):
        return [symbol]

    @static.twin
    @staticmethod
    async def astatic(symbol):
        return [symbol]

    @single_flight_ttl(key=lambda self, symbol: symbol, ttl=60)
    def shared(self, symbol):
        return [symbol]

    @shared.twin
    async def ashared(self, symbol):
        return [symbol]


@pytest.mark.parametrize("options", [{}, {"key": lambda symbol, price_type: (symbol, price_type)}])
def test_each_twin_finds_what_the_other_fetched(options):
    """In both directions, each running its own colour."""
    get, aget, fetched = pair(**options)
    value = get("A")
    assert run(aget("A", price_type="bid")) is value
    other = run(aget("B"))
    assert get("B") is other
    assert fetched == ["plain", "coroutine"]
    assert get.stats() == aget.stats()
    assert aget.cache_parameters() == get.cache_parameters()


@pytest.mark.parametrize("names", [("get", "aget"), ("of_class", "aof_class"), ("static", "astatic")])
@pytest.mark.parametrize("on", [Account, Account()], ids=["class", "instance"])
def test_twins_of_every_kind_of_method(names, on):
    """Methods share per instance, class methods per class; bound and unbound are one."""
    get, aget = (getattr(on, name) for name in names)
    first = (Account(),) if (on is Account and names[0] == "get") else ()
    value = get(*first, "A")
    assert run(aget(*first, "A")) is value
    assert aget.entry(*first, "A").value is value
    assert aget.invalidate(*first, "A")
    assert get.entry(*first, "A") is None


def test_instances_are_told_apart_and_not_kept_alive():
    """The twins have the same key for an instance, and it goes with it."""
    account, other = Account(), Account()
    value = run(account.aget("A"))
    assert account.get("A") is value
    assert Account.get(account, "A") is value
    assert run(Account.aget(account, "A")) is value
    assert other.get("A") is not value
    key = account.get.entry("A").key
    assert type(key[0]) is InstanceKey
    assert account.aget.entry("A").key == key
    gone = weakref.ref(account)
    del account
    assert gone() is None


def test_a_twin_made_outside_the_class():
    """A module's function as the twin of a method takes the instance first, and has its key."""

    @Account.get.twin
    async def aget(owner, ticker="none"):
        return [ticker]

    account = Account()
    assert run(aget(account, "A")) is account.get("A")
    gone = weakref.ref(account)
    del account
    assert gone() is None


def test_an_inherited_twin():
    """A subclass's instance shares with itself through both."""

    class Child(Account):
        pass

    child = Child()
    assert run(child.aget("A")) is child.get("A")


def test_refresh_calls_the_function_that_it_is_asked_of():
    """The other finds what it brought."""
    get, aget, fetched = pair()
    get("A")
    fresh = run(aget.refresh("A"))
    assert get("A") is fresh
    assert get.refresh("A") is not fresh
    assert fetched == ["plain", "coroutine", "plain"]


def test_it_keeps_its_own_colour_and_looks():
    """Name, signature, colour and wrapped function are the twin's."""
    get, aget, _ = pair()
    assert not inspect.iscoroutinefunction(get)
    assert inspect.iscoroutinefunction(aget)
    assert (get.__name__, aget.__name__) == ("get", "aget")
    assert inspect.iscoroutinefunction(Account().aget)
    assert not inspect.iscoroutinefunction(Account().get)


def test_a_twin_of_a_twin_shares_the_same_values():
    """And a twin may have the same colour."""
    get, aget, fetched = pair()

    @aget.twin
    def third(symbol, price_type="bid"):
        fetched.append("third")
        return [symbol, price_type]

    value = third("A")
    assert get("A") is value
    assert run(aget("A")) is value
    assert fetched == ["third"]


def test_names_and_defaults_may_differ():
    """A default key goes by position; each fills in its own defaults."""
    get, _, _ = pair()

    @get.twin
    def other(ticker, *, kind="ask"):
        return [ticker, kind]

    assert other("A", kind="bid") is get("A")
    assert other("A") is get("A", "ask")
    assert get("A") is not get("A", "ask")


@pytest.mark.parametrize(
    "unfit",
    [
        lambda symbol: 1,
        lambda symbol, price_type, more: 1,
        lambda price_type, symbol: 1,
        lambda symbol, *price_type: 1,
        lambda symbol, price_type="bid", **more: 1,
    ],
)
def test_a_twin_that_would_have_other_keys_is_refused(unfit):
    """At decoration, and nothing has changed."""
    get, _, _ = pair()
    with pytest.raises(TypeError, match=r"twin: .*equal keys"):
        get.twin(unfit)
    assert len(get._self_assembly.twins.assemblies) == 2


def test_what_cannot_be_decorated_is_refused_by_the_name_of_the_method():
    """`twin` and `bulk` say that it was given to them, and nothing has changed."""
    get, _, _ = pair()

    def generator(symbol, price_type="bid"):
        yield symbol

    for method in ("twin", "bulk"):
        for unfit, text in (
            (5, "expected a function or another callable, got 5"),
            (dict, "dict: decorate a function or a method, not a class"),
            (generator, ".*generator: a generator can be consumed once only"),
        ):
            with pytest.raises(TypeError, match=f"^{method}: {text}"):
                getattr(get, method)(unfit)
    assert len(get._self_assembly.twins.assemblies) == 2
    with pytest.raises(
        TypeError, match=r"^single_flight_ttl: expected a function or another callable, got 5"
    ):
        single_flight_ttl(ttl=60)(5)


def test_a_twin_that_the_key_cannot_take_is_refused():
    """The key is called with the twin's parameters."""
    get, _, _ = pair(key=lambda symbol, price_type: symbol)
    with pytest.raises(TypeError, match=r"^key: it is called with all arguments of"):
        get.twin(lambda symbol: 1)
    with pytest.raises(TypeError, match="class method"):
        get.twin(classmethod(lambda cls, symbol: 1))
    with pytest.raises(TypeError, match=r"^twin: expected a function"):
        get.twin(3)


def test_a_key_takes_the_arguments_of_both():
    """An account's own key: instances with the same key share, in both colours."""
    value = Account().shared("A")
    assert run(Account().ashared("A")) is value


def test_bypass_and_the_switch_concern_all_twins(monkeypatch):
    """Also twins that are made meanwhile."""
    get, aget, _ = pair()
    get("A")
    with aget.bypass():
        assert get("A") is not get("A")

        @get.twin
        def late(symbol, price_type):
            return [symbol, price_type]

        assert late("A", "bid") is not late("A", "bid")
    assert late("A", "bid") is get("A") is run(aget("A"))
    monkeypatch.setitem(os.environ, "SINGLEFLIGHT_DISABLED", "1")

    @get.twin
    def later(symbol, price_type):
        return [symbol, price_type]

    assert later("A", "bid") is not later("A", "bid")


def test_caches_lists_each_twin_while_it_lives():
    """A decorated function that is gone leaves the memo to its twin."""
    get, aget, _ = pair()
    assert [any(cached is each for cached in caches()) for each in (get, aget)] == [True, True]
    value = get("A")
    gone = weakref.ref(get)
    del get
    gc.collect()
    assert gone() is None
    assert run(aget("A")) is value


def test_a_report_tells_of_twins_once():
    """They share a name, the entries and the flights."""
    get = single_flight_ttl(ttl=60, name="told as one")(lambda symbol: symbol)

    @get.twin
    def later(symbol):
        return symbol

    assert get("A") is later("A")
    assert report().count("told as one: 1 entries, 0 flights") == 1


def test_twins_that_take_nothing_are_seen_in_a_class():
    """The first one takes anything, so it is bound; the keys are equal all the same, and nothing warns."""

    def get(*args, **options):
        return object()

    get.__signature__ = inspect.Signature()
    get = single_flight_ttl(ttl=60)(get)

    @get.twin
    async def aget():
        return object()

    class Body:
        pass

    Body.get = get
    assert callable(Body().get)
    value = get()
    assert run(aget()) is value
    get.invalidate()
    assert run(aget()) is get() is not value
