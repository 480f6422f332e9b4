"""The options `key` by name, `ignore` and `typed`: what is refused, what is shown, and where they work."""

import asyncio
import collections
import copy
import functools
import gc
import inspect
import pickle
import re

import pytest

from singleflight import UnhashableKey, caches, single_flight_ttl


def price(account, symbol, price_type="bid", *args, session=None, **kwargs):
    return symbol


async def aprice(*args, **kwargs):
    return args


def decorated(**options):
    return single_flight_ttl(ttl=60, **options)(price)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"key": "symbl"},
            ValueError,
            r"key: price\(account, .*\) has no parameter 'symbl'; did you mean 'symbol'\?",
        ),
        ({"key": ("symbol", "quux")}, ValueError, r"key: price\(.*\) has no parameter 'quux'$"),
        ({"key": "acount.id"}, ValueError, r"key: .* no parameter 'acount'; did you mean 'account'\?"),
        ({"ignore": "sesion"}, ValueError, r"ignore: .* no parameter 'sesion'; did you mean 'session'\?"),
        ({"ignore": ("session", "x")}, ValueError, r"ignore: .* no parameter 'x'"),
        ({"key": "symbol", "ignore": "session"}, TypeError, r"ignore: it is what the default key leaves out"),
        ({"key": lambda *a, **k: a, "ignore": "session"}, TypeError, r"ignore: it is what the default key"),
        ({"key": ()}, ValueError, r"key: expected at least one name of a parameter, got \(\)"),
        ({"key": ("symbol", "symbol")}, ValueError, r"key: 'symbol' is there twice"),
        ({"key": ("account.id", "account.id")}, ValueError, r"key: 'account.id' is there twice"),
        ({"ignore": ["session", "session"]}, ValueError, r"ignore: 'session' is there twice"),
        ({"key": ("symbol", 1)}, TypeError, r"key: expected names of parameters, got 1"),
        ({"key": (None,)}, TypeError, r"key: expected names of parameters, got None"),
        ({"ignore": (1,)}, TypeError, r"ignore: expected names of parameters, got 1"),
        ({"ignore": 1}, TypeError, r"ignore: expected a parameter's name or several, got 1"),
        ({"ignore": None}, TypeError, r"ignore: expected a parameter's name or several, got None"),
        (
            {"ignore": b"session"},
            TypeError,
            r"ignore: expected a parameter's name or several, got b'session'",
        ),
        ({"key": aprice}, TypeError, r"key: expected a plain callable"),
        ({"key": 1}, TypeError, r"key: expected a callable of the arguments, the name .*, got 1"),
        (
            {"key": ["symbol"]},
            TypeError,
            r"key: expected a callable .* or a tuple of names, got \['symbol'\]",
        ),
        ({"key": b"symbol"}, TypeError, r"key: expected a callable"),
        (
            {"key": "args.count"},
            ValueError,
            r"key: 'args' collects arguments, so 'args.count' is no attribute",
        ),
        ({"key": "kwargs.get"}, ValueError, r"key: 'kwargs' collects arguments"),
        ({"ignore": "account.id"}, ValueError, r"ignore: 'account.id' is an attribute; only whole arguments"),
        (
            {"key": "account.__class__"},
            ValueError,
            r"key: 'account.__class__' names an attribute that is private",
        ),
        ({"key": "account.id.__x"}, ValueError, r"key: 'account.id.__x' names an attribute that is private"),
        *(
            ({option: name}, ValueError, rf"{option}: {re.escape(repr(name))} is not the name of a parameter")
            for option in ("key", "ignore")
            for name in [
                *("", ".", "account.", ".id", "account..id", "symbol ", "account .id", "1", "class", "None"),
                *(
                    "account.class",
                    "symbol, account",
                    "symbol or 1",
                    "symbol)",
                    "f()",
                    "symbol\n",
                    "a-b",
                    "*args",
                ),
                *("account.id()", "account[0]", "(symbol)", "symbol#", "symbol;x", "a\x00b", "**kwargs"),
            ]
        ),
        ({"typed": 1}, TypeError, r"typed: expected True or False, got 1"),
        ({"typed": None}, TypeError, r"typed: expected True or False, got None"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, kind, message):
    """At decoration, by an error that begins with the option's name."""
    with pytest.raises(kind, match=f"^{message}"):
        decorated(**options)


@pytest.mark.parametrize(
    "function",
    [lambda _sf_x: 1, type("C", (), {"__call__": property(lambda _: max)})()],
    ids=["own", "property"],
)
@pytest.mark.parametrize("options", [{"key": "x"}, {"ignore": "x"}])
def test_unknown_parameters_cannot_be_named(function, options):
    """Where a callable does not say what it takes, the error at decoration says so."""
    option = next(iter(options))
    with pytest.raises(TypeError, match=f"^{option}: the parameters of .* are not known"):
        single_flight_ttl(ttl=60, **options)(function)


def test_typed_keys_need_no_parameters():
    """A callable that does not say what it takes may have typed keys."""
    largest = single_flight_ttl(ttl=60, typed=True)(max)
    assert repr([largest(1, 0), largest(1.0, 0), largest(1, 0.0), largest(1, 0)]) == "[1, 1.0, 1, 1]"
    assert largest.stats().calls == 3


class Name(str):
    """A name of a class of its own, which would mislead."""

    __slots__ = ()

    def split(self, *_):
        return ["print('no')"]

    def partition(self, _):
        return ("print('no')", "", "")

    def __str__(self):
        return "print('no')"


def test_a_names_own_methods_are_not_asked():
    """A subclass of str counts as the text that it is."""
    function = decorated(key=(Name("symbol"), Name("account")), typed=True)
    function(1, "A")
    assert function.entry(1, "A").key == ("A", 1)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"key": "args"}, (1, 2)),
        ({"key": "kwargs"}, (("a", 1), ("b", 2))),
        ({"key": ("args", "kwargs", "symbol")}, ((1, 2), (("a", 1), ("b", 2)), "A")),
        ({"key": ("session", "account.real")}, (None, 5)),
        ({"key": ("price_type",)}, ("bid",)),
        ({"ignore": "args"}, (5, "A", "bid", None, (("a", 1), ("b", 2)))),
        ({"ignore": ("kwargs", "session", "account")}, ("A", "bid", (1, 2))),
        ({"ignore": list(inspect.signature(price).parameters)}, ()),
        ({"ignore": {"kwargs"}}, (5, "A", "bid", (1, 2), None)),
        ({"ignore": ()}, (5, "A", "bid", (1, 2), None, (("a", 1), ("b", 2)))),
    ],
)
@pytest.mark.parametrize("typed", [False, True])
def test_what_is_collected_may_be_named(options, key, typed):
    """`args` is the tuple, `kwargs` the sorted items; a key by names has its parts in the order named."""
    function = decorated(typed=typed, **options)
    function(5, "A", "bid", 1, 2, b=2, a=1)
    assert function.entry(5, "A", "bid", 1, 2, a=1, b=2).key == key


def test_the_options_are_shown():
    """`cache_parameters` tells `key` as it was given, the ignored names as a tuple, and `typed`."""
    asked = [decorated(**options).cache_parameters() for options in ({}, {"key": "symbol", "typed": True})]
    asked += [
        decorated(ignore=["session"]).cache_parameters(),
        decorated(ignore="session").cache_parameters(),
    ]
    assert [(told["key"], told["ignore"], told["typed"]) for told in asked] == [
        (None, (), False),
        ("symbol", (), True),
        (None, ("session",), False),
        (None, ("session",), False),
    ]


def test_a_misspelt_option():
    """Names that other libraries use for `ignore` lead to it."""
    with pytest.raises(TypeError, match="unknown option 'ignore_args'; did you mean 'ignore'"):
        decorated(ignore_args="session")


@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "symbol"}, "price: 'symbol', which key= names, cannot be hashed (list)"),
        ({"key": ("account", "symbol")}, "price: 'account', which key= names, cannot be hashed (dict)"),
        ({"key": ("symbol", "account")}, "price: 'symbol', which key= names, cannot be hashed (list)"),
        ({"key": "args"}, "price: 'args', which key= names, cannot be hashed (tuple)"),
        (
            {"ignore": "account"},
            "price: argument 'symbol' cannot be hashed (list), so it cannot be part of the",
        ),
        (
            {"ignore": ("account", "symbol")},
            "price: argument '*args[0]' cannot be hashed (set), so it cannot",
        ),
    ],
)
@pytest.mark.parametrize("typed", [False, True])
def test_what_cannot_be_hashed_is_named(options, message, typed, loose):
    """The error names the first part of the key that cannot be hashed, and no ignored argument."""
    function = price
    if loose:
        function = functools.wraps(price)(lambda *args, **kwargs: price(*args, **kwargs))
    function = single_flight_ttl(ttl=60, typed=typed, **options)(function)
    for call in (function, function.entry):
        with pytest.raises(UnhashableKey) as raised:
            call({}, [], "bid", set())
        assert str(raised.value).startswith(message)


def test_an_attribute_that_cannot_be_hashed_is_named():
    """With its dots; and in a method behind the instance."""

    class Account:
        tags = ["x"]

        @single_flight_ttl(ttl=60, key=("self.tags", "symbol"))
        def price(self, symbol):
            return 1

        @single_flight_ttl(ttl=60, key="symbol", typed=True)
        def bid(self, symbol):
            return 1

    with pytest.raises(UnhashableKey, match=r"'self\.tags', which key= names, cannot be hashed"):
        Account().price("A")
    with pytest.raises(UnhashableKey, match=r"'symbol', which key= names, cannot be hashed \(list\)"):
        Account().bid([])


class Rates:
    """Every kind of method, by name."""

    def __init__(self, number):
        self.number = number

    @single_flight_ttl(ttl=60, key="currency")
    def plain(self, currency, day=1):
        return (self.number, currency, day)

    @single_flight_ttl(ttl=60, key="currency")
    @classmethod
    def above(cls, currency, day=1):
        return (cls.__name__, currency, day)

    @classmethod
    @single_flight_ttl(ttl=60, key="currency")
    def below(cls, currency, day=1):
        return (cls.__name__, currency, day)

    @single_flight_ttl(ttl=60, key=("cls.kind", "currency"))
    @classmethod
    def by_kind(cls, currency, day=1):
        return (cls.kind, currency, day)

    @single_flight_ttl(ttl=60, key="currency")
    @staticmethod
    def static(day, currency):
        return (day, currency)

    @staticmethod
    @single_flight_ttl(ttl=60, key="currency")
    def static_above(day, currency):
        return (day, currency)

    @property
    @single_flight_ttl(ttl=60, key="self.number")
    def prop(self):
        return self

    @single_flight_ttl(ttl=60, ignore="day")
    def ignoring(self, currency, day=1):
        return (self.number, currency, day)

    @single_flight_ttl(ttl=60, ignore="self")
    def shared(self, currency):
        return (self.number, currency)

    @single_flight_ttl(ttl=60, key="currency")
    def collected(*args, currency):
        return (args[0].number, currency)

    kind = "base"


class Other(Rates):
    """Inherits all of them."""

    kind = "other"


def test_methods_of_every_kind():
    """Instances and classes stay apart unless named; what is not named does not count."""
    one, two = Rates(1), Rates(2)
    assert [each.plain("EUR", day) for each in (one, two) for day in (1, 2)] == [(1, "EUR", 1)] * 2 + [
        (2, "EUR", 1)
    ] * 2
    assert Rates.plain(one, "EUR", 7) == (1, "EUR", 1)
    for method in ("above", "below"):
        for owner in (Rates, Other):
            found = [getattr(owner, method)("EUR", day) for day in (1, 2)]
            found.append(getattr(owner(1), method)("EUR", 3))
            assert found == [(owner.__name__, "EUR", 1)] * 3
    assert [Rates.by_kind("EUR"), Other.by_kind("EUR", 2), Other.by_kind("EUR")] == [
        ("base", "EUR", 1),
        ("other", "EUR", 2),
        ("other", "EUR", 2),
    ]
    for method in ("static", "static_above"):
        assert [getattr(of, method)(day, "EUR") for of in (Rates, one, Other) for day in (1, 2)] == [
            (1, "EUR")
        ] * 6
    assert (one.prop, Rates(1).prop, two.prop) == (one, one, two)
    assert [each.ignoring("EUR", day) for each in (one, two) for day in (1, 2)] == [(1, "EUR", 1)] * 2 + [
        (2, "EUR", 1)
    ] * 2
    assert one.shared("EUR") == two.shared("EUR") == (1, "EUR")
    assert [each.collected(currency="EUR") for each in (one, two, one)] == [
        (1, "EUR"),
        (2, "EUR"),
        (1, "EUR"),
    ]
    assert Rates.collected(two, currency="EUR") == (2, "EUR")


class Collecting:
    """Methods whose instance comes with other arguments."""

    def __init__(self, number):
        self.number = number

    @single_flight_ttl(ttl=60, ignore="args")
    def ignoring(*args, currency):
        return (args[0].number, currency)

    @single_flight_ttl(ttl=60, key="args")
    def named(*args, currency):
        return (args[0].number, args[1:])

    @single_flight_ttl(ttl=60, ignore="day", typed=True)
    def counted(*args, currency, day=None):
        return (args[0].number, args[1:], currency)


def test_an_instance_that_is_collected_with_other_arguments_stays():
    """What collects it may be ignored, or named: the instance is in front of the key all the same."""
    one, two = Collecting(1), Collecting(2)
    for each in (one, two):
        assert each.ignoring(7, currency="EUR") == (each.number, "EUR")
        assert each.ignoring(8, currency="USD") == (each.number, "USD")
        assert each.named(7, currency="EUR") == each.named(7, currency="USD") == (each.number, (7,))
        assert each.named(8, currency="EUR") == (each.number, (8,))
    assert Collecting.ignoring.stats().calls == Collecting.named.stats().calls == 4
    one.ignoring(9, currency="EUR")
    assert Collecting.ignoring.stats().calls == 4
    (first, currency) = one.ignoring.entry(currency="EUR").key
    assert (first() is one, currency) == (True, "EUR")


def test_calls_that_go_by_their_spelling_keep_their_keys_when_a_function_becomes_a_method():
    """Below a wrapper: those of its instances are apart, whatever else they are called with."""

    def fetch(symbol, side="bid", other=1):
        return symbol

    wrapper = functools.wraps(fetch)(lambda *args, **kwargs: (args, kwargs))
    shared = single_flight_ttl(ttl=60)(wrapper)
    calls = [(("A", "bid", 1), {}), (("B", "bid", 1), {}), ((), {"side": "A"}), ((None,), {"x": 1})]
    assert [shared(*args, **kwargs) for args, kwargs in calls] == calls
    keys = [shared.entry(*args, **kwargs).key for args, kwargs in calls]

    class Account:
        price = shared

    assert [shared.entry(*args, **kwargs).key for args, kwargs in calls] == keys
    mine, yours = Account(), Account()
    for account in (mine, yours):
        for args, kwargs in [(("bid", 1), {}), (("ask", 1), {}), (("bid", 1), {"x": 1})]:
            assert account.price(*args, **kwargs) == ((account, *args), kwargs)
            assert shared(account, *args, **kwargs) == ((account, *args), kwargs)
    assert shared.stats().calls == len(calls) + 6


def test_calls_on_an_instance_that_go_by_their_spelling_are_the_instances():
    """They are cleared with its others, and dropped when it is gone."""

    def price(self, symbol, side="bid", depth=1):
        return symbol

    class Account:
        price_of = single_flight_ttl(ttl=60)(
            functools.wraps(price)(lambda *args, **kwargs: price(*args, **kwargs))
        )

    mine, yours = Account(), Account()
    for account in (mine, yours):
        assert account.price_of("A", "ask", 1) == "A"
        assert account.price_of.entry("A", "ask", 1).key[0]() is account
    mine.price_of.clear()
    assert mine.price_of.entry("A", "ask", 1) is None
    assert yours.price_of.entry("A", "ask", 1).value == "A"
    assert Account.price_of.cache_info().currsize == 1
    del account, yours
    gc.collect()
    assert Account.price_of.cache_info().currsize == 0


@pytest.mark.parametrize("typed", [False, True])
def test_calls_that_name_the_instance_and_go_by_their_spelling_are_the_instances(typed):
    """`Account.price_of(self=account)` with an argument that a wrapper shows nothing of."""

    def price(self, symbol="A"):
        raise AssertionError

    class Account:
        price_of = single_flight_ttl(ttl=60, typed=typed)(
            functools.wraps(price)(lambda *args, **kwargs: (len(args), *kwargs))
        )

    mine, yours = Account(), Account()
    for account in (mine, yours):
        assert Account.price_of(self=account, day=1) == (0, "self", "day")
        assert Account.price_of(day=1, self=account) == (0, "self", "day")
        assert Account.price_of(account, day=1) == account.price_of(day=1) == (1, "day")
    assert Account.price_of.stats().calls == 4
    mine.price_of.clear()
    assert Account.price_of.entry(self=mine, day=1) is None
    assert Account.price_of.entry(self=yours, day=1).value == (0, "self", "day")
    del account, yours
    gc.collect()
    assert Account.price_of.cache_info().currsize == 0


def test_named_arguments_count_where_the_instance_is_collected_below_a_wrapper():
    """They have their place in the key, and their defaults are filled in."""

    def price(*args, day=1):
        return [*args[1:], day]

    class Account:
        price_of = single_flight_ttl(ttl=60)(
            functools.wraps(price)(lambda *args, **kwargs: price(*args, **kwargs))
        )

    account = Account()
    assert account.price_of("A", day=2) == ["A", 2]
    assert account.price_of("A") == ["A", 1]
    assert account.price_of("A", day=1) is account.price_of("A") is Account.price_of(account, "A")
    assert Account.price_of.stats().calls == 2


def test_a_call_that_does_not_fit_is_none_that_does_where_the_instance_is_collected():
    """Its key by spelling is no key of arguments that look like it."""

    def price(*args, day=1):
        raise AssertionError

    class Account:
        price_of = single_flight_ttl(ttl=60)(functools.wraps(price)(lambda *args, **kwargs: kwargs))

    account = Account()
    assert account.price_of("A", unit=1) == {"unit": 1}
    assert account.price_of("A", day=(("unit", 1),)) == {"day": (("unit", 1),)}


def test_what_collects_arguments_in_front_may_be_ignored_by_a_function_that_becomes_a_method():
    """Whatever it is called with in a plain call, what was stored stays."""

    @single_flight_ttl(ttl=60, ignore="args")
    def fetch(*args, side):
        return side

    fetch(1, side="bid")

    class Account:
        price = fetch

    account = Account()
    assert (account.price(side="bid"), fetch(account, side="bid")) == ("bid", "bid")
    assert {fetch(2, side="bid"), fetch(side="bid"), fetch(None, side="bid")} == {"bid"}
    assert (fetch.stats().calls, fetch.entry(side="bid").key) == (2, ("bid",))


def test_what_collects_arguments_in_front_may_be_ignored():
    """In a plain function, too: all others are in the key, in their order."""

    @single_flight_ttl(ttl=60, ignore="args")
    def fetch(*args, side, symbol="A", **more):
        return (side, symbol)

    fetch(1, 2, side="bid", day=1)
    assert fetch.entry(side="bid", day=1).key == ("bid", "A", (("day", 1),))
    assert fetch.entry(3, side="bid") is None


@pytest.mark.parametrize("options", [{}, {"ignore": "unit"}, {"key": ("args", "more")}])
@pytest.mark.parametrize(
    ("ones", "others"),
    [
        (((1,), {}), ((1.0,), {})),
        (((), {"day": 1}), ((), {"day": True})),
        (((1,), {"a": 1}), ((1,), {"a": 1.0})),
    ],
)
def test_the_types_of_collected_arguments_count(options, ones, others):
    """With `typed` each of those that differ in nothing but the type of one of them is a key of its own."""

    @single_flight_ttl(ttl=60, typed=True, **options)
    def fetch(unit, *args, **more):
        return (args, more)

    asked = [ones, others, ones, others]
    assert repr([fetch("EUR", *args, **more) for args, more in asked]) == repr(asked)
    assert fetch.stats().calls == 2
    for args, more in asked:
        assert repr(fetch.entry("EUR", *args, **more).value) == repr((args, more))


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("options", [{}, {"ignore": "day"}, {"key": "args"}, {"key": ("day", "args")}])
def test_plain_calls_keep_their_keys_when_a_function_that_collects_its_arguments_becomes_a_method(
    options, typed, wraps
):
    """What was stored for them stays, also for calls with nothing in front, or with None."""

    def collect(*args, day=1):
        return args

    wrapper = functools.wraps(collect)(lambda *args, **kwargs: collect(*args, **kwargs))
    fetch = single_flight_ttl(ttl=60, typed=typed, **options)(wrapper if wraps else collect)
    calls = [(), (None,), (1,), (None, 1), ("A", 2)]
    assert [fetch(*call) for call in calls] == calls
    keys = [fetch.entry(*call).key for call in calls]

    class Account:
        price = fetch

    account = Account()
    assert (account.price(), account.price(1), fetch(account)) == ((account,), (account, 1), (account,))
    assert [fetch(*call) for call in calls] == calls
    assert [fetch.entry(*call).key for call in calls] == keys
    assert fetch.stats().calls == len(calls) + 2
    named = "'args', which" if "key" in options else r"argument '\*args\[0\]'"
    with pytest.raises(UnhashableKey, match=f"{named}.* cannot be hashed"):
        fetch([])


def test_a_key_of_the_users_has_no_instance():
    """Unless they put it there: so nothing is known of an instance's own entries."""

    class Account:
        @single_flight_ttl(ttl=60, key=lambda self, symbol: symbol)
        def price(self, symbol):
            return self

    one, two = Account(), Account()
    assert one.price("A") is two.price("A") is one
    with pytest.raises(TypeError, match=r"clear: the `key` of .* does not tell which instance"):
        two.price.clear()


def test_a_function_that_becomes_a_method():
    """Calls on the class's instances have these in their keys from then on; others do not."""
    runs = []

    @single_flight_ttl(ttl=60, key="symbol")
    def fetch(account, symbol):
        runs.append(account)
        return symbol

    for account in (1, 2):
        fetch(account, "A")

    class Account:
        price = fetch

    mine, yours = Account(), Account()
    assert [of.price("A") for of in (mine, yours, mine)] == ["A"] * 3
    fetch(yours, "A"), fetch(3, "A")
    assert runs == [1, mine, yours]


def test_a_twin_needs_what_is_named_alone():
    """A twin may have other parameters than the first function, but those of the key."""

    @single_flight_ttl(ttl=60, key="symbol", typed=True)
    def fetch(symbol):
        return symbol

    @fetch.twin
    async def afetch(session, symbol):
        return symbol

    assert fetch(1) == 1
    assert asyncio.run(afetch(object(), 1)) == 1
    assert repr(asyncio.run(afetch(object(), 1.0))) == "1.0"
    assert fetch.entry(1.0).key == 1.0
    assert fetch.stats().calls == 2


def test_a_twin_without_what_is_ignored():
    """What the first function ignores its twin need not have; all else it must."""

    @single_flight_ttl(ttl=60, ignore="session")
    def fetch(symbol, session=None):
        return symbol

    @fetch.twin
    async def afetch(symbol):
        return symbol

    assert (fetch("A", 1), asyncio.run(afetch("A"))) == ("A", "A")
    assert fetch.stats().calls == 1

    @single_flight_ttl(ttl=60, ignore="session")
    def fetch_all(session=None):
        return "all"

    @fetch_all.twin
    def others():
        raise AssertionError

    assert (fetch_all(1), others()) == ("all", "all")
    assert fetch_all.entry(2).key == ()
    with pytest.raises(TypeError, match=r"^twin: .* has other parameters"):

        @fetch.twin
        def other(symbol, http):
            return symbol


def test_a_twin_with_other_keys_is_refused():
    """Both need the named parameters, collected or not alike, and both an instance or neither."""

    @single_flight_ttl(ttl=60, key=("symbol", "args"))
    def fetch(symbol, *args):
        return symbol

    class Account:
        @single_flight_ttl(ttl=60, key="symbol")
        def price(self, symbol):
            return symbol

    for first, twin in (
        (fetch, lambda symbol: 1),
        (fetch, lambda symbol, args: 1),
        (fetch, lambda args, *symbol: 1),
        (Account.price, lambda symbol, other: 1),
    ):
        with pytest.raises(TypeError, match=r"^twin: .* need the same parameters for .*which key= names"):
            first.twin(twin)


def test_a_twin_that_hides_its_parameters_has_those_of_the_first():
    """As with default keys: twins are called alike."""

    @single_flight_ttl(ttl=60, key="symbol")
    def fetch(session, symbol="A"):
        return symbol

    twin = fetch.twin(max)
    fetch(1, "B")
    assert twin(2, "B") == "B"
    assert fetch.stats().calls == 1


class Bulk:
    """Getters by name with their loaders."""

    def __init__(self, number):
        self.number = number
        self.loads = []

    @single_flight_ttl(ttl=60, key="symbol")
    def price(self, symbol, session=None):
        return (self.number, symbol)

    @price.bulk
    def prices(self, symbols, session=None):
        self.loads.append(symbols)
        return {symbol: (self.number, symbol) for symbol in symbols}

    @single_flight_ttl(ttl=60, key=("self.number", "symbol.real"), typed=True)
    def real(self, symbol):
        return symbol

    @real.bulk
    async def reals(self, symbols):
        self.loads.append(symbols)
        return {symbol: symbol for symbol in symbols}


def test_loaders():
    """A loader's keys are what the options make of its items, whatever else it is called with."""
    one, two = Bulk(1), Bulk(2)
    one.price("A", 1)
    assert one.prices(["A", "B"], 2) == {"A": (1, "A"), "B": (1, "B")}
    assert one.loads == [["B"]]
    assert two.prices(["A", "B"]) == {"A": (2, "A"), "B": (2, "B")}
    assert one.price("B", 7) == (1, "B")


def test_loaders_tell_types_apart():
    """Equal items of different types are fetched each; in one answer they have no room."""
    one = Bulk(1)
    assert asyncio.run(one.reals([1, 2])) == {1: 1, 2: 2}
    assert repr(asyncio.run(Bulk(1).reals([1.0, 2.0]))) == "{1.0: 1.0, 2.0: 2.0}"
    assert repr([one.real(1), one.real(1.0), Bulk(1).real(2.0)]) == "[1, 1.0, 2.0]"
    assert Bulk.real.stats().calls == 2
    with pytest.raises(
        TypeError, match="symbols: equal items of different types have one place in the answer"
    ):
        asyncio.run(one.reals([1, 1.0]))
    assert asyncio.run(one.reals([1, 1])) == {1: 1}


@pytest.mark.parametrize(
    ("options", "same"),
    [({"key": "symbol"}, "AA"), ({"key": ("symbol", "side")}, "AB"), ({"ignore": "extra"}, "AB")],
)
def test_wrappers_are_taken_at_their_word(options, same):
    """Around a wrapper the names are those that it shows; a call that does not fit them raises."""
    runs = []

    def fetch(symbol, side="bid", extra=None):
        runs.append(side)
        return symbol

    wrapper = functools.wraps(fetch)(lambda *args, **kwargs: fetch(*args, **kwargs))
    shared = single_flight_ttl(ttl=60, **options)(wrapper)
    for call in (("x",), ("x", "bid"), ("x", "bid", None), ("x", "bid", []), ("x", "ask")):
        shared(*call)
    shared(side="ask", symbol="x", extra={})
    assert len(runs) == len(set(same))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'symbol'"):
        shared(side="bid")


def test_a_wrappers_instance_stays():
    """On a method below a wrapper too the instance is in the key, by identity."""

    def tried(function):
        return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))

    class Account:
        __hash__ = None

        @single_flight_ttl(ttl=60, key="symbol", typed=True)
        @tried
        def price(self, symbol, side="bid"):
            return (self, symbol)

        @single_flight_ttl(ttl=60, typed=True)
        @tried
        def typed(self, symbol, side="bid", other=1):
            return (self, symbol)

    mine, yours = Account(), Account()
    for method in ("price", "typed"):
        assert getattr(mine, method)(1)[0] is mine
        assert getattr(yours, method)(1)[0] is yours
        assert getattr(mine, method)(1)[0] is mine
        assert repr([getattr(mine, method)(number)[1] for number in (1, 1.0, True)]) == "[1, 1.0, True]"
        assert getattr(Account, method)(yours, 1)[0] is yours
        assert getattr(mine, method).entry(1.0).key[0]() is mine
    assert mine.typed(1, "bid", 1)[0] is mine  # goes by its spelling
    assert repr([mine.typed(number, "bid", 1)[1] for number in (1, 1.0)]) == "[1, 1.0]"


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024


@pytest.mark.parametrize(
    ("key", "ones", "others"),
    [
        (lambda x: x, 1, 1.0),
        (lambda x: (x, "a"), 1, True),
        (lambda x: Point(x, 0), 1, 1.0),
        (lambda x: [x], None, None),
    ],
)
def test_typed_results_of_a_key(key, ones, others):
    """Of a `key` that is a callable the type of the result counts, or that of each item of a tuple."""
    function = single_flight_ttl(ttl=60, key=key, typed=True)(lambda x: x)
    if ones is None:
        with pytest.raises(UnhashableKey, match=r"the result of key= cannot be hashed: \[1\]"):
            function(1)
        return
    assert repr([function(each) for each in (ones, others, ones)]) == repr([ones, others, ones])
    assert (function.entry(ones).key, type(function.entry(ones).key)) == (key(ones), type(key(ones)))


def test_copies_and_pickles_keep_the_options():
    """A decorated function that is sent by name is itself; its options do not change."""
    assert pickle.loads(pickle.dumps(Rates.plain)) is Rates.plain
    assert copy.deepcopy(Rates.plain) is Rates.plain
    assert Rates.plain in caches()
