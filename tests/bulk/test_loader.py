"""The loader as a function and as a method: what it looks like, how it binds, and what is refused."""

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import weakref

import pytest

from singleflight import single_flight_ttl


@single_flight_ttl(ttl=60)
def price(symbol, kind="bid"):
    """One price."""
    return f"{symbol} {kind}"


@price.bulk
def prices(symbols, kind="bid"):
    """Many prices."""
    return {symbol: f"{symbol} {kind}" for symbol in symbols}


class Account:
    def __init__(self, name="account"):
        self.name = name
        self.loads = []

    @single_flight_ttl(ttl=60)
    def price(self, symbol, kind="bid"):
        return f"{self.name} {symbol} {kind}"

    @price.bulk(max_batch=2)
    def prices(self, symbols, kind="bid"):
        """Many prices."""
        self.loads.append(symbols)
        return {symbol: f"{self.name} {symbol} {kind}" for symbol in symbols}

    @price.bulk
    async def aprices(self, symbols, kind="bid"):
        self.loads.append(symbols)
        return {symbol: f"{self.name} {symbol} {kind}" for symbol in symbols}

    @single_flight_ttl(ttl=60)
    @classmethod
    def of_class(cls, symbol):
        return f"{cls.__name__} {symbol}"

    @of_class.bulk
    @classmethod
    def of_class_many(cls, symbols):
        return {symbol: f"{cls.__name__} {symbol}" for symbol in symbols}

    @single_flight_ttl(ttl=60)
    @staticmethod
    def static(symbol):
        return symbol

    @static.bulk
    @staticmethod
    def static_many(symbols):
        return {symbol: symbol for symbol in symbols}


class Special(Account):
    pass


def test_it_looks_like_its_function():
    """Name, docstring, signature, annotations, module and __wrapped__ are the function's own."""
    assert (prices.__name__, prices.__doc__, prices.__module__) == ("prices", "Many prices.", __name__)
    assert str(inspect.signature(prices)) == "(symbols, kind='bid')"
    assert inspect.isfunction(prices)
    assert prices.__wrapped__(["A"]) == {"A": "A bid"}
    assert prices.max_batch is None
    assert inspect.iscoroutinefunction(Account.aprices)
    assert inspect.iscoroutinefunction(Account().aprices)
    assert not inspect.iscoroutinefunction(Account().prices)


def test_a_bound_loader_looks_like_a_method():
    """On an instance the instance is applied, in the signature too."""
    account = Account()
    assert str(inspect.signature(account.prices)) == "(symbols, kind='bid')"
    assert (account.prices.__name__, account.prices.__doc__) == ("prices", "Many prices.")
    assert account.prices.__self__ is account
    assert account.prices.__wrapped__(["A"]) == {"A": "account A bid"}
    assert account.prices == account.prices
    assert (account.prices.max_batch, Account.prices.max_batch) == (2, 2)


def test_methods_load_for_their_instance():
    """Keys are the getter's, each instance has its own, and a call through the class is the same call."""
    one, two = Account("one"), Account("two")
    assert one.prices(["A", "B"]) == {"A": "one A bid", "B": "one B bid"}
    assert two.prices(["A"]) == {"A": "two A bid"}
    assert Account.prices(one, ["B", "C"]) == {"B": "one B bid", "C": "one C bid"}
    assert Account.prices(self=one, symbols=["C"]) == {"C": "one C bid"}
    assert (one.loads, two.loads) == ([["A", "B"], ["C"]], [["A"]])
    assert one.price.entry("A").value == "one A bid"
    assert one.price("C") == "one C bid"
    assert asyncio.run(one.aprices(["A", "C"])) == {"A": "one A bid", "C": "one C bid"}
    assert len(one.loads) == 2


@pytest.mark.parametrize("where", ["plain", "in a class"])
def test_a_method_of_another_object_is_a_loader_like_any_other(where):
    """It has its instance already, wherever it is put, as has a built-in."""

    class Source:
        def price(self, symbol):
            return symbol.lower()

        def prices(self, symbols):
            assert self is source
            return {symbol: symbol.lower() for symbol in symbols}

    source = Source()
    get = single_flight_ttl(ttl=60)(source.price)
    load = get.bulk(source.prices)
    if where == "in a class":
        load = type("Account", (), {"load": load})().load
    assert load(["A", "B"]) == load(symbols=["A", "B"]) == {"A": "a", "B": "b"}
    assert get("A") == "a"
    assert get.stats().calls == 1


def test_class_and_static_methods():
    """They bind as their getters do."""
    assert Account.of_class_many(["A"]) == {"A": "Account A"}
    assert Special().of_class_many(["A"]) == {"A": "Special A"}
    assert (Account.of_class("A"), Special.of_class("A")) == ("Account A", "Special A")
    assert Account.of_class.stats().calls == 2
    assert Account.static_many(["A"]) == Account().static_many(["A"]) == {"A": "A"}
    assert Account.static.stats().calls == 1


def test_a_user_key_sees_the_item():
    """`key` is called as for a single call, with one item in the place of the items."""
    seen = []

    def key(self, symbol, kind):
        seen.append((symbol, kind))
        return self.name, symbol.upper(), kind

    class Account:
        name = "main"

        @single_flight_ttl(ttl=60, key=key)
        def price(self, symbol, kind="bid"):
            return 1

        @price.bulk
        def prices(self, symbols, kind="ask"):
            return {symbol.upper(): 2 for symbol in symbols}

    account = Account()
    assert account.prices(symbol for symbol in ("a", "b")) == {"a": 2, "b": 2}
    assert seen[:2] == [("a", "ask"), ("b", "ask")]
    assert account.price("A", "ask") == 2
    assert account.price("A") == 1


def test_keyword_only_and_collected_arguments():
    """They have their place in the key, whatever the order they are passed in."""

    @single_flight_ttl(ttl=60)
    def get(item, *rest, exact, **more):
        return "single"

    loads = []

    @get.bulk
    def many(items, *rest, exact, **more):
        loads.append((items, rest, exact, more))
        return dict.fromkeys(items, "bulk")

    assert many(["A"], 1, 2, exact=True, a=1, b=2) == {"A": "bulk"}
    assert get("A", 1, 2, b=2, a=1, exact=True) == "bulk"
    assert get("A", 1, exact=True) == "single"
    assert loads == [(["A"], (1, 2), True, {"a": 1, "b": 2})]


def test_a_method_whose_instance_has_another_name():
    """The first argument of a call through the class is the instance, whatever the loader calls it."""

    class Account:
        @single_flight_ttl(ttl=60)
        def price(self, symbol):
            raise AssertionError

        @price.bulk
        def prices(this, symbols):
            return {symbol: (this, symbol) for symbol in symbols}

    account, other = Account(), Account()
    assert Account.prices(account, ["A"]) == {"A": (account, "A")}
    assert Account.prices(other, ["A"]) == {"A": (other, "A")}
    assert account.price("A") == (account, "A")
    assert vars(Account)["prices"](account, ["A", "C"]) == {"A": (account, "A"), "C": (account, "C")}
    assert account.prices(["A", "B"]) == {"A": (account, "A"), "B": (account, "B")}


def test_an_instance_is_not_kept_alive():
    """Neither the loader nor what it stored keeps an instance, and its entries go with it."""
    account = Account()
    account.prices(["A"])
    entries = Account.price.stats().entries
    ref = weakref.ref(account)
    del account
    gc.collect()
    assert ref() is None
    assert Account.price.stats().entries < entries


class Slotted:
    __slots__ = ("__weakref__", "name")

    def __init__(self, name):
        self.name = name

    @single_flight_ttl(ttl=60, key=lambda self, item: (self.name, item))
    def get(self, item):
        return item

    @get.bulk
    def many(self, items):
        return {item: item for item in items}


def test_an_account_can_be_pickled_with_its_loaders():
    """Loaders pickle by reference, bound ones with their instance."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(prices, protocol)) is prices
        bound = pickle.loads(pickle.dumps(Account("copied").prices, protocol))
        assert bound(["A"]) == {"A": "copied A bid"}
        assert pickle.loads(pickle.dumps(Account.of_class_many, protocol))(["A"]) == {"A": "Account A"}
        assert pickle.loads(pickle.dumps(Account.static_many, protocol))(["A"]) == {"A": "A"}
        assert pickle.loads(pickle.dumps(Account.prices, protocol))(Account("x"), ["A"]) == {"A": "x A bid"}
    assert copy.copy(prices) is copy.deepcopy(prices) is prices
    assert copy.deepcopy(Account("deep").prices)(["A"]) == {"A": "deep A bid"}
    assert Slotted("s").many(["A"]) == {"A": "A"}


def test_a_twin_makes_loaders_too():
    """Loaders of twins are loaders of the same values."""

    @single_flight_ttl(ttl=60)
    def get(item):
        return "plain"

    @get.twin
    async def aget(item):
        return "coroutine"

    @aget.bulk
    def many(items):
        return dict.fromkeys(items, "bulk")

    assert many(["A"]) == {"A": "bulk"}
    assert get("A") == asyncio.run(aget("A")) == "bulk"


def test_several_loaders_share_the_values():
    """A function may have any number of loaders, in both colours."""
    account = Account("many")
    assert asyncio.run(account.aprices(["A"])) == account.prices(["A"])
    assert account.loads == [["A"]]


def nothing():
    return {}


async def spring(items):
    yield items


def stream(items):
    yield items


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (nothing, "too few"),
        (lambda items: {}, "parameters"),
        (lambda kind, symbols: {}, "parameters"),
        (lambda symbols, kind, more: {}, "parameters"),
        (lambda symbols, *kind: {}, "parameters"),
        (lambda symbols, *, kind: {}, "parameters"),
        (stream, "generator"),
        (spring, "generator"),
        (Account, "class"),
        (5, "expected a function or another callable, got 5"),
        (classmethod(lambda cls, symbols, kind: {}), "class method"),
    ],
)
def test_loaders_that_do_not_fit_are_refused(loader, message):
    """At decoration, saying that it is `bulk` and why."""
    with pytest.raises(TypeError, match=rf"bulk: .*{message}"):
        price.bulk(loader)


class Swapped:
    """A loader that is an object, with its parameters in another order."""

    def __call__(self, kind, symbols):
        raise AssertionError


def many(cls, symbols, kind="bid"):
    raise AssertionError


def test_what_a_refusal_says():
    """Which function is meant, by its name or that of its class, and what is wrong with it."""
    for getter, loader, text in [
        (price, classmethod(many), "bulk: only one of many and price is a class method"),
        (vars(Account)["of_class"], many, "bulk: only one of many and Account.of_class is a class method"),
        (
            price,
            Swapped(),
            "bulk: Swapped(kind, symbols) has other parameters than price(",
        ),
        (price, stream, "bulk: stream: a generator can be consumed once only"),
        (price, Account, "bulk: Account: decorate a function or a method, not a class"),
    ]:
        with pytest.raises(TypeError) as refused:
            getter.bulk(loader)
        assert str(refused.value).startswith(text)


@pytest.fixture
def anything():
    """A getter and a loader that take anything by place, and `kind`; and what the loader was called with."""
    calls = []

    @single_flight_ttl(ttl=60)
    def get(*args, kind="bid"):
        raise AssertionError

    @get.bulk
    def load(*args, kind="bid"):
        calls.append((args, kind))
        return dict.fromkeys(args[-1], "bulk")

    class Owner:
        pass

    Owner.get, Owner.load = get, load
    return Owner, calls


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("words", [{}, {"kind": "ask"}, {"kind": ["ask"]}])
def test_items_that_are_missing(anything, bound, words):
    """The function is named; what is given by name is not taken for them."""
    owner, calls = anything
    assert callable(owner().get)  # from now on a first argument may be an instance
    load = owner().load if bound else owner.load
    with pytest.raises(TypeError) as refused:
        load(**words)
    assert str(refused.value) == "anything.<locals>.get: bulk: the items are missing"
    assert calls == []


@pytest.mark.parametrize("word", ["sort", "kind"])
def test_a_loader_below_a_wrapper_may_have_names_of_its_own(word):
    """Also where the wrapper takes others than it shows: single calls find what was loaded."""

    def with_session(function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            return function("session", *args, **kwargs)

        return run

    @single_flight_ttl(ttl=60)
    @with_session
    def get(session, symbol, kind="bid", **more):
        raise AssertionError

    def load(session, symbols, sort="bid", **more):
        return {symbol: (session, symbol, sort, more) for symbol in symbols}

    def load_alike(session, symbols, kind="bid", **more):
        return load(session, symbols, kind, **more)

    many = get.bulk(with_session(load if word == "sort" else load_alike))
    expected = ("session", "A", "ask", {"more": 1})
    assert many(["A"], **{word: "ask"}, more=1) == {"A": expected}
    assert get("A", kind="ask", more=1) == expected


def test_what_only_has_the_name_of_a_parameter_keeps_it_in_a_key():
    """A parameter that can be given by place alone leaves its name to what `**more` collects."""

    def with_session(function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            return function("session", *args, **kwargs)

        return run

    @single_flight_ttl(ttl=60)
    @with_session
    def get(session, symbol, kind="bid", /, **more):
        return "own", symbol, more

    @get.bulk
    @with_session
    def load(session, symbols, sort="bid", /, **more):
        return {symbol: ("loaded", symbol, more) for symbol in symbols}

    assert load(["A"], sort="ask") == {"A": ("loaded", "A", {"sort": "ask"})}
    assert get("A", sort="ask") == ("loaded", "A", {"sort": "ask"})
    assert get("A", kind="ask") == ("own", "A", {"kind": "ask"})


def test_a_loader_of_a_function_that_was_seen_in_a_class():
    """An instance of that class comes before the items; a list of them is none, and the class may be gone."""
    get = single_flight_ttl(ttl=60)(lambda symbol: symbol.lower())
    load = get.bulk(lambda symbols: {symbol: symbol.lower() for symbol in symbols})

    class Symbols(list):
        """Has the function, and a loader that is no method."""

        static = get.bulk(staticmethod(lambda symbols: {symbol: symbol.lower() for symbol in symbols}))

    Symbols.get = get
    assert callable(Symbols().get)
    assert Symbols.static(Symbols(["A"])) == load(["A"]) == {"A": "a"}
    gone = weakref.ref(Symbols)
    del Symbols
    gc.collect()
    assert gone() is None
    assert load(["B"]) == {"B": "b"}


def test_a_wrapped_loader_that_is_bound_by_hand_may_be_given_its_items_by_name():
    """They follow what it is bound to, of which no class and no call before has told."""

    def load(owner, symbols):
        return {symbol: (owner, symbol) for symbol in symbols}

    @functools.wraps(load)
    def wrapper(*args, **words):
        return load(*args, **words)

    get = single_flight_ttl(ttl=60)(functools.wraps(wrapper)(lambda *args: wrapper(*args)))
    many, owner = get.bulk(wrapper), Account()
    assert many.__get__(owner)(symbols=["A"]) == {"A": (owner, "A")}
    assert many.__get__(owner)(["A"]) == {"A": (owner, "A")}
    assert get.stats().calls == 1


def test_a_wrapped_loader_may_name_its_parameters_in_its_own_way():
    """They are the getter's by their places, also where they are given by name."""

    @single_flight_ttl(ttl=60)
    def get(symbol, kind="bid"):
        raise AssertionError

    def load(symbols, price_type="bid"):
        return {symbol: f"{symbol} {price_type}" for symbol in symbols}

    @get.bulk
    @functools.wraps(load)
    def wrapper(*args, **options):
        return load(*args, **options)

    assert wrapper(["A"], price_type="ask") == {"A": "A ask"}
    assert wrapper(price_type="ask", symbols=["A", "B"]) == {"A": "A ask", "B": "B ask"}
    assert get("A", "ask") == "A ask"
    assert get.stats().calls == 2


@pytest.mark.parametrize("wrapped", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("args", "words"), [((), {}), (("ask",), {}), ((), {"kind": "ask"}), ((), {"depth": 2}), (("ask", 2), {})]
)
def test_single_calls_find_what_a_bulk_call_loaded_whatever_is_wrapped(wrapped, args, words):
    """And the other way round, also where several defaults are left out."""

    def passing_on(function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            return function(*args, **kwargs)

        return run

    def get(symbol, kind="bid", depth=1):
        return symbol, kind, depth

    def load(symbols, kind="bid", depth=1):
        return {symbol: [symbol, kind, depth] for symbol in symbols}

    getter_is_wrapped, loader_is_wrapped = wrapped
    one = single_flight_ttl(ttl=60)(passing_on(get) if getter_is_wrapped else get)
    many = one.bulk(passing_on(load) if loader_is_wrapped else load)
    assert one("A", *args, **words) is many(["A", "B"], *args, **words)["A"]
    assert many(["A", "B"], *args, **words)["B"] is one("B", *args, **words)
    value = one("C", *args, **words)
    assert many(["C"], *args, **words)["C"] is value
    assert one.stats().calls == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), {}),
        ((["A"],), {"other": 1}),
        ((["A"], "bid", 3), {}),
        ((["A"],), {"symbols": ["A"]}),
        ((), {"kind": "bid"}),
    ],
)
def test_a_wrong_call_raises_what_python_says(args, words):
    """In the words that name the loader and its parameters."""
    load = price.bulk(prices.__wrapped__)
    with pytest.raises(TypeError) as theirs:
        load.__wrapped__(*args, **words)
    with pytest.raises(TypeError) as ours:
        load(*args, **words)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("called", ["self", "cls"])
def test_a_loader_says_by_its_first_parameter_that_it_is_a_method(called):
    """The getter need not be one: a call of the loader on its class has the instance first."""

    @single_flight_ttl(ttl=60)
    def price(owner, symbol):
        raise AssertionError

    class Account:
        if called == "self":

            @price.bulk
            def prices(self, symbols):
                return {symbol: (self, symbol) for symbol in symbols}

        else:

            @price.bulk
            def prices(cls, symbols):
                return {symbol: (cls, symbol) for symbol in symbols}

    for instance in (Account(), object()):  # as in Python, it may be anything
        assert Account.prices(instance, ["A"]) == {"A": (instance, "A")}


def test_items_that_have_no_name(anything):
    """They follow the instance, where there is one."""
    kind, calls = anything
    owner = kind()
    for load in (kind.load, owner.load):
        with pytest.raises(TypeError, match=r"^items: expected several, as in a list, got 'AB'$"):
            load("AB")
    assert owner.load(["A", "B"], kind="ask") == {"A": "bulk", "B": "bulk"}
    assert kind.load(owner, ["B", "C"], kind="ask") == {"B": "bulk", "C": "bulk"}
    assert calls == [((owner, ["A", "B"]), "ask"), ((owner, ["C"]), "ask")]
    assert owner.get("A", kind="ask") == "bulk"


def test_a_getter_without_an_item_has_no_loader():
    """There must be a parameter that takes the items."""

    @single_flight_ttl(ttl=60)
    def clock():
        return 1

    with pytest.raises(TypeError, match=r"bulk: .*too few"):
        clock.bulk(nothing)
    with pytest.raises(TypeError, match=r"bulk: .*too few"):

        class Account:
            @single_flight_ttl(ttl=60)
            def clock(self):
                return 1

            @clock.bulk
            def clocks(self):
                return {}


@pytest.mark.parametrize("wrong", [True, False, 1.0, "2"])
def test_max_batch_is_a_whole_number(wrong):
    """Anything else raises at decoration, naming the option."""
    with pytest.raises(TypeError, match="max_batch"):
        price.bulk(max_batch=wrong)


@pytest.mark.parametrize("wrong", [0, -1])
def test_max_batch_is_at_least_one(wrong):
    """Fewer raises at decoration, naming the option."""
    with pytest.raises(ValueError, match="max_batch"):
        price.bulk(prices.__wrapped__, max_batch=wrong)


def test_wrong_calls_raise_as_the_function_does():
    """What the loader cannot take is a TypeError that names it."""
    with pytest.raises(TypeError, match="prices"):
        prices()
    with pytest.raises(TypeError, match="prices"):
        prices(["A"], other=1)
    with pytest.raises(TypeError, match="prices"):
        Account().prices()
