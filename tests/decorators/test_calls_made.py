"""The call that was made is the call that is made: the function gets its arguments as they were given."""

import asyncio
import functools
import inspect
import os
import threading
from unittest import mock

import pytest
import wrapt

from singleflight import single_flight_ttl
from singleflight.decorator import binding
from singleflight.testing import FakeClock


def run(awaitable):
    async def main():
        return await asyncio.wait_for(awaitable, 20)

    return asyncio.run(main())


def call(function, *args, **kwargs):
    """What it returns, awaited where it is a coroutine function."""
    value = function(*args, **kwargs)
    return run(value) if inspect.iscoroutine(value) else value


def noting(calls):
    """A wrapper that notes how it was called."""

    def decorate(function):
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args, **kwargs):
                calls.append((args, kwargs))
                return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                calls.append((args, kwargs))
                return function(*args, **kwargs)

        return wrapper

    return decorate


def provide_session(function):
    """Gives what was left out, as Airflow does."""
    place = list(inspect.signature(function).parameters).index("session")

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        if "session" in kwargs or place < len(args):
            return function(*args, **kwargs)
        return function(*args, session="a session", **kwargs)

    return wrapper


def set_client(function):
    """Gives it by `setdefault`."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        kwargs.setdefault("session", "a session")
        return function(*args, **kwargs)

    return wrapper


@wrapt.decorator
def provide_in_a_proxy(wrapped, instance, args, kwargs):
    """The same, without a signature of its own."""
    return wrapped(*args, **{"session": "a session", **kwargs})


class ProvidingObject:
    """A callable object that shows another function's parameters."""

    def __init__(self, function):
        functools.update_wrapper(self, function)

    def __call__(self, *args, **kwargs):
        return self.__wrapped__(*args, **{"session": "a session", **kwargs})


PROVIDERS = [provide_session, set_client, provide_in_a_proxy, ProvidingObject]


# -- what was left out stays left out ----------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("key", [None, lambda number, session: number], ids=["default key", "own key"])
def test_what_was_left_out_is_not_handed_on(provider, key):
    """A wrapper below that provides what is missing sees that it is missing."""

    @single_flight_ttl(ttl=60, key=key)
    @provider
    def user(number, session=None):
        return number, session

    assert user(1) == (1, "a session")
    assert user(number=1) == (1, "a session")
    assert user.stats().calls == 1
    assert user(2, session="mine") == (2, "mine")
    assert user.refresh(2, session="other") == (2, "other")
    assert user.refresh(1) == (1, "a session")
    assert user.invalidate(number=1)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_not_in_a_partial_of_it_either(provider):
    """The wrapper may be within a partial."""
    user = single_flight_ttl(ttl=60)(functools.partial(provider(lambda number, session=None: session), 1))
    assert user() == "a session"


@pytest.mark.parametrize("provider", [provide_session, set_client, provide_in_a_proxy])
def test_nor_in_methods(provider):
    """Methods, class methods and static methods, bound and unbound."""

    class Owner:
        @single_flight_ttl(ttl=60)
        @provider
        def method(self, number, session=None):
            return number, session

        @single_flight_ttl(ttl=60)
        @classmethod
        @provider
        def of_class(cls, number, session=None):
            return number, session

        @single_flight_ttl(ttl=60)
        @staticmethod
        @provider
        def static(number, session=None):
            return number, session

    owner = Owner()
    right = (1, "a session")
    assert owner.method(1) == owner.method(number=1) == Owner.method(owner, 1) == right
    assert Owner.method(self=owner, number=1) == right
    assert Owner.method.stats().calls == 1
    assert owner.method.refresh(1) == right
    assert Owner.of_class(1) == owner.of_class(number=1) == right
    assert Owner.of_class.stats().calls == 1
    assert Owner.static(1) == owner.static(number=1) == right
    assert Owner.static.stats().calls == 1


def test_nor_when_it_is_run_directly(monkeypatch):
    """In a `bypass()` block, and with the environment's switch."""

    @single_flight_ttl(ttl=60)
    @provide_session
    def user(number, session=None):
        return number, session

    with user.bypass():
        assert user(1) == (1, "a session")
    monkeypatch.setitem(os.environ, "SINGLEFLIGHT_DISABLED", "1")
    assert user(1) == (1, "a session")


@pytest.mark.parametrize("colour", ["plain", "coroutine"])
@pytest.mark.parametrize("key", [None, lambda a, b, c, *, d: (a, b, c, d)], ids=["default key", "own key"])
def test_a_wrapper_is_called_as_the_caller_wrote_it(colour, key):
    """By place stays by place, by name by name; the keys are those of the function below."""
    calls = []

    def plain(a, b=2, c=3, *, d=4):
        return [a, b, c, d]

    async def coroutine(a, b=2, c=3, *, d=4):
        return [a, b, c, d]

    fetch = single_flight_ttl(ttl=60, key=key)(
        noting(calls)({"plain": plain, "coroutine": coroutine}[colour])
    )
    value = call(fetch, 1)
    for args, kwargs in [((), {"a": 1}), ((1,), {"c": 3, "b": 2}), ((1,), {"d": 4}), ((), {"d": 4, "a": 1})]:
        assert call(fetch, *args, **kwargs) is value
    assert calls == [((1,), {})]
    asked = [((5,), {}), ((5, 6), {}), ((5,), {"b": 6}), ((), {"b": 1, "a": 7}), ((5, 2, 3), {"d": 1})]
    for args, kwargs in asked:
        calls.clear()
        call(fetch.refresh, *args, **kwargs)
        assert calls == [(args, kwargs)]
        with fetch.bypass():
            call(fetch, *args, **kwargs)
        assert calls == [(args, kwargs)] * 2


def test_a_renewal_hands_on_what_its_caller_gave():
    """A value is renewed by the call that found it stale."""
    clock, calls, renewed = FakeClock(), [], threading.Event()

    def fetch(a, b=2):
        if len(calls) == 2:
            renewed.set()
        return [a, b]

    fetch = single_flight_ttl(ttl=10, grace=60, timer=clock)(noting(calls)(fetch))
    fetch(1)
    clock.advance(11)
    assert fetch(a=1) == [1, 2]
    assert renewed.wait(20)
    assert calls == [((1,), {}), ((), {"a": 1})]


@pytest.mark.parametrize("colour", ["plain", "coroutine"])
def test_a_twin_and_its_first_hand_on_what_they_got(colour):
    """Each is called as its own caller wrote it, and they share their keys."""
    calls, others = [], []

    def get(symbol, kind="bid", depth=1):
        return [symbol, kind, depth]

    async def aget(symbol, kind="bid", depth=1):
        return [symbol, kind, depth]

    first = single_flight_ttl(ttl=60)(noting(calls)(get))
    twin = first.twin(noting(others)(aget if colour == "coroutine" else get))
    value = first("A")
    assert call(twin, symbol="A") is value
    assert call(twin, "A", depth=1) is value
    assert call(twin, "B", depth=2) is first("B", depth=2)
    assert (calls, others) == ([(("A",), {})], [(("B",), {"depth": 2})])


@pytest.mark.parametrize("colour", ["plain", "coroutine"])
def test_a_loader_gets_its_other_arguments_as_they_came(colour):
    """And its items as a list, by place or by name as they were given."""
    calls = []

    @single_flight_ttl(ttl=60)
    def get(symbol, kind="bid", *, depth=1):
        return (symbol, kind, depth)

    def load(symbols, kind="bid", *, depth=1):
        return {symbol: [symbol, kind, depth] for symbol in symbols}

    async def aload(symbols, kind="bid", *, depth=1):
        return load(symbols, kind, depth=depth)

    loader = get.bulk(noting(calls)(aload if colour == "coroutine" else load))
    assert call(loader, ["A"]) == {"A": ["A", "bid", 1]}
    assert get("A") == ["A", "bid", 1]
    assert get("A", "bid", depth=1) is get("A")
    call(loader, symbols=("B",))
    call(loader, ["C"], kind="ask")
    call(loader, ["D"], "ask", depth=2)
    with get.bypass():
        call(loader, ["E"], depth=2)
    assert calls == [
        ((["A"],), {}),
        ((), {"symbols": ["B"]}),
        ((["C"],), {"kind": "ask"}),
        ((["D"], "ask"), {"depth": 2}),
        ((["E"],), {"depth": 2}),
    ]
    assert get("D", "ask", depth=2) == ["D", "ask", 2]
    with pytest.raises(TypeError, match="items are missing"):
        call(loader, kind="ask")


def test_a_loader_of_a_class_does_so_too():
    """Methods' loaders, where a session is provided that callers leave out."""

    class Owner:
        @single_flight_ttl(ttl=60)
        @provide_session
        def get(self, symbol, session=None):
            return symbol, session

        @get.bulk
        @provide_session
        def load(self, symbols, session=None):
            return {symbol: (symbol, session) for symbol in symbols}

    owner = Owner()
    assert owner.load(["A"]) == {"A": ("A", "a session")}
    assert owner.load(symbols=["A", "B"]) == {"A": ("A", "a session"), "B": ("B", "a session")}
    assert owner.get("B") is owner.load(["B"])["B"]
    assert Owner.load(owner, ["C"]) == {"C": ("C", "a session")}
    assert Owner.get.stats().calls == 3


# -- parameters that are not those that are shown ----------------------------------------


def with_session(function):
    """Puts an argument in front."""

    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function("session", *args, **kwargs)

    return inner


@wrapt.decorator
def with_session_in_a_proxy(wrapped, instance, args, kwargs):
    """The same, without a signature of its own."""
    return wrapped("session", *args, **kwargs)


INJECTORS = [with_session, with_session_in_a_proxy]


@pytest.mark.parametrize("injector", INJECTORS)
@pytest.mark.parametrize("key", [None, lambda k: k, lambda k, **more: k], ids=["default", "one", "more"])
def test_an_argument_may_be_put_in_front(injector, key):
    """The parameters are those that callers give."""

    @single_flight_ttl(ttl=60, key=key)
    @injector
    def load(session, k):
        return session, k

    assert load(1) is load(1)
    assert (load(1), load(2), load(k=3)) == (("session", 1), ("session", 2), ("session", 3))
    assert load.stats().calls == 3
    assert load.invalidate(1)
    assert load.entry(1) is None
    with pytest.raises(TypeError, match=r"missing|takes"):
        load()


@pytest.mark.parametrize("injector", INJECTORS)
@pytest.mark.parametrize("key", [None, lambda *args, **kwargs: (args, tuple(sorted(kwargs.items())))])
def test_moved_defaults_never_make_two_calls_one(injector, key):
    """What stands where a default is shown may be another parameter's."""

    @single_flight_ttl(ttl=60, key=key)
    @injector
    def page(session, k=0, limit=100, offset=0):
        return k, limit, offset

    plain = injector(lambda session, k=0, limit=100, offset=0: (k, limit, offset))
    calls = [((k, *rest), more) for k in (0, 100) for rest in ((), (0,), (100,), (0, 100)) for more in ({},)]
    calls += [
        ((7,), {"limit": 100}),
        ((7,), {"offset": 0}),
        ((7, 100), {}),
        ((7, 100, 0), {}),
        ((), {"k": 0}),
    ]
    for args, kwargs in calls + calls[::-1]:
        assert page(*args, **kwargs) == plain(*args, **kwargs)


@pytest.mark.parametrize("injector", INJECTORS)
def test_a_default_moved_into_what_is_collected_never_makes_two_calls_one(injector):
    """Behind an argument that is put in front the one default's value is the first of `*args`."""

    @single_flight_ttl(ttl=60)
    @injector
    def load(session="none", *rest):
        return session, rest

    assert load() == ("session", ())
    assert load("none") == ("session", ("none",))
    assert load.stats().calls == 2


def test_an_argument_may_be_dropped():
    """A wrapper that takes one more than it hands on, told or not."""

    def told(function):
        @functools.wraps(function)
        def wrapper(request, *args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    def untold(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args[1:], **kwargs)

        return wrapper

    def page(limit=100, offset=0, size=5):
        return limit, offset, size

    for drop in (told, untold):
        plain, cached = drop(page), single_flight_ttl(ttl=60)(drop(page))
        for args in ((1,), (1, 2), (1, 2, 0), (1, 2, 0, 5), (1, 100), (1, 0), (1, 100, 5), (1, 0, 5)):
            assert cached(*args) == plain(*args)


def test_a_wrappers_own_keyword_is_taken():
    """It reaches the wrapper, is part of the key, and its default is filled in."""

    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, times=1, **kwargs):
            return [function(*args, **kwargs)] * times

        return wrapper

    fetch = single_flight_ttl(ttl=60)(decorate(lambda a, b=2: (a, b)))
    assert fetch(1) == [(1, 2)]
    assert fetch(a=1, times=1) is fetch(1, 2)
    assert fetch(1, times=2) == [(1, 2), (1, 2)]
    hidden = single_flight_ttl(ttl=60)(set_client(lambda a, **more: (a, more)))
    assert hidden(1, x=2) == (1, {"x": 2, "session": "a session"})


def keeping(function):
    """What the wrapper needs are defaults under private names, and some cannot be hashed (beartype)."""

    @functools.wraps(function)
    def wrapper(*args, __kept=function, __kept_more={}, **kwargs):
        return [__kept(*args, **kwargs), *__kept_more]

    return wrapper


class Keeping:
    @single_flight_ttl(ttl=60)
    @keeping
    def method(self, a, b=2):
        return a, b


def test_what_a_wrapper_keeps_under_a_private_name_is_no_part_of_the_key():
    """The key has what the function inside takes, by default, by names and by a function; on methods, too."""
    fetch = single_flight_ttl(ttl=60)(keeping(lambda a, b=2: (a, b)))
    assert fetch(1) is fetch(a=1) is fetch(b=2, a=1)
    assert fetch.entry(1).key == (1, 2)
    by_name = single_flight_ttl(key="b", ttl=60)(keeping(lambda a, b=2: (a, b)))
    assert by_name(1) is by_name(3)
    asked = single_flight_ttl(key=lambda a, b: b, ttl=60)(keeping(lambda a, b=2: (a, b)))
    assert asked(1) is asked(b=2, a=3) == [(1, 2)]
    keeps = Keeping()
    assert keeps.method(1) is keeps.method(a=1) is Keeping.method(keeps, b=2, a=1)


def test_a_private_name_of_a_wrapper_that_is_given_makes_another_call():
    """It reaches the wrapper, and the value is not that of the calls which leave it out."""
    fetch = single_flight_ttl(ttl=60)(keeping(lambda a, b=2: (a, b)))
    given = {"__kept_more": ("more",)}
    assert fetch(1) == [(1, 2)]
    assert fetch(1, **given) is fetch(1, **given) == [(1, 2), "more"]
    assert fetch(1) == [(1, 2)]


def test_a_private_name_that_the_function_inside_takes_as_well_is_part_of_the_key():
    """Then callers may give it."""

    def fetch(a, *, _limit=1):
        return [a, _limit]

    @functools.wraps(fetch)
    def wrapper(*args, _limit=2, **kwargs):
        return fetch(*args, _limit=_limit, **kwargs)

    get = single_flight_ttl(ttl=60)(wrapper)
    assert get(1) is get(a=1, _limit=2) == [1, 2]
    assert get.entry(1).key == (1, 2)


def test_a_key_with_a_wrappers_names_in_other_places_gets_the_call_as_it_came():
    """What a wrapper shows is a guess, so names that a call gives lead to the key's own parameters."""

    def pair(first, second):
        return first, second

    @functools.wraps(pair)
    def passing(*args, **kwargs):
        return pair(*args, **kwargs)

    fetch = single_flight_ttl(ttl=60, key=lambda second, first: first)(passing)
    assert fetch(first=1, second=2) == (1, 2)
    assert fetch(first=2, second=2) == (2, 2)
    assert fetch(first=1, second=3) == (1, 2)


def test_a_call_that_does_not_fit_is_none_of_those_that_do():
    """Its key goes by its spelling, which is no key of arguments that look like it."""

    def pair(first, second=5):
        return first, second

    def triple(first, second=5, third=6):
        return first, second, third

    def anything(*args, **kwargs):
        return args

    for shown, spelling in ((pair, ((1, 2, 3), ())), (triple, ((1, 2, 3, 4), (), ()))):
        fetch = single_flight_ttl(ttl=60)(functools.wraps(shown)(anything))
        assert fetch(*spelling) == spelling
        assert fetch(*spelling[0]) == spelling[0]


@pytest.mark.parametrize("typed", [False, True])
def test_the_types_of_arguments_that_do_not_fit_count_only_if_asked_for(typed):
    """`1` and `1.0` are one key by its spelling, too, unless keys are typed."""
    get = single_flight_ttl(ttl=60, typed=typed)(functools.wraps(lambda a: a)(lambda *args: args))
    assert get(1, 2) == get(1.0, 2)
    assert get.stats().calls == (2 if typed else 1)


def test_a_call_on_an_instance_that_does_not_fit_is_none_of_those_that_do():
    """Nor is it one of those that look like its spelling with the instance in front."""

    def pair(self, first, second=5):
        return first, second

    class Owner:
        fetch = single_flight_ttl(ttl=60)(functools.wraps(pair)(lambda *args, **kwargs: args[1:]))

    owner = Owner()
    assert owner.fetch((1, 2, 3), ()) == ((1, 2, 3), ())
    assert owner.fetch(1, 2, 3) == (1, 2, 3)


def test_what_is_collected_behind_a_default_that_is_given_goes_by_the_parameters():
    """Only the last argument given by place can have been moved onto a default: here it is none."""

    def fetch(first, second=2, *rest, day=1):
        return [first, second, rest, day]

    calls = []
    get = single_flight_ttl(ttl=60)(noting(calls)(fetch))
    value = get(1, 2, 3)
    assert get(1, 2, 3, day=1) is value
    assert get(1, 2, 3, day=2) == [1, 2, (3,), 2]
    assert calls == [((1, 2, 3), {}), ((1, 2, 3), {"day": 2})]


def test_a_key_gets_the_defaults_beside_an_argument_that_cannot_be_hashed():
    """Such an argument is no default that was given, so the call goes by the parameters shown."""

    def fetch(symbol, options=None, depth=1):
        return [symbol, options, depth]

    get = single_flight_ttl(ttl=60, key=lambda symbol, options, depth: (symbol, depth))(noting([])(fetch))
    value = get("A", ["option"])
    assert value == ["A", ["option"], 1]
    assert get("A", depth=1) is value
    assert get.entry("A").key == ("A", 1)


def test_what_raises_any_error_when_it_is_hashed_is_no_default_that_was_given():
    """A writable memoryview raises ValueError; a key that leaves it out works, also if it is the default."""
    view = memoryview(bytearray(b"abc"))

    def fetch(name, data=None, level=1):
        return [name, data, level]

    get = single_flight_ttl(ttl=60, key=lambda *args: (args[0], args[2]))(noting([])(fetch))
    value = get("A", view)
    assert value == ["A", view, 1]
    assert get("A", data=view) is value
    assert get.entry("A").key == ("A", 1)
    with_default = noting([])(lambda name, data=view, level=1: [name, data, level])
    for key in (lambda *args: (args[0], args[2]), ("name", "level")):
        get = single_flight_ttl(ttl=60, key=key)(with_default)
        value = get("A")
        assert value == ["A", view, 1]
        assert get("A", view) is get("A", b"abc", 1) is value


def test_where_the_stack_is_used_up_no_argument_is_taken_for_unhashable(monkeypatch):
    """It may be a default that was given: the caller receives the RecursionError."""

    class Deep:
        def __hash__(self):
            raise RecursionError

    def find_no_room(error):
        raise error

    get = single_flight_ttl(ttl=60, key=lambda *args: args[0])(noting([])(lambda a, b=None, c=1: a))
    assert get(1, Deep()) == 1
    monkeypatch.setattr(binding, "check_room", find_no_room)
    with pytest.raises(RecursionError):
        get(1, Deep())


def test_what_is_collected_by_name_has_its_place_where_there_is_none():
    """A call by place and the same by name have one key."""
    get = single_flight_ttl(ttl=60)(noting([])(lambda symbol, **more: [symbol, more]))
    assert get("A") is get(symbol="A")
    assert get("A", day=1) is get(day=1, symbol="A")
    assert get.stats().calls == 2


def test_an_argument_that_a_wrapper_provides_is_none_that_is_given():
    """A call without it does not fit the parameters shown, and is none of those that do."""

    def fetch(symbol, *, session):
        return symbol, session

    @functools.wraps(fetch)
    def wrapper(*args, **kwargs):
        return fetch(*args, **{"session": "a session", **kwargs})

    get = single_flight_ttl(ttl=60)(wrapper)
    assert get("A") == ("A", "a session")
    assert get("A", session=inspect.Parameter.empty) == ("A", inspect.Parameter.empty)


def test_a_declared_signature_that_was_copied_is_not_the_wrappers_own():
    """`functools.wraps` copies `__signature__` as it copies all attributes: it is still a guess."""

    def page(front, start=0, limit=1):
        return front, start, limit

    page.__signature__ = inspect.signature(page)

    @functools.wraps(page)
    def moving(*args, **kwargs):
        return page("front", *args, **kwargs)

    fetch = single_flight_ttl(ttl=60)(moving)
    assert fetch(9) == ("front", 9, 1)
    assert fetch(9, 0) == ("front", 9, 0)


def test_a_parameter_may_be_declared_under_a_name_that_no_code_can_use():
    """Python allows that for positional parameters of a signature that is set by hand."""

    def fetch(*args):
        return args

    parameter = inspect.Parameter("class", inspect.Parameter.POSITIONAL_ONLY)
    fetch.__signature__ = inspect.Signature([parameter])
    fetch = single_flight_ttl(ttl=60)(fetch)
    assert (fetch(1), fetch(2)) == ((1,), (2,))
    assert fetch(1) is fetch(1)


def test_a_refresh_on_an_instance_binds_the_decorator_below():
    """`instance.method.refresh` calls a decorator that asks for being bound as `instance.method` does."""
    seen = []

    @wrapt.decorator
    def telling(wrapped, instance, args, kwargs):
        seen.append((instance, args))
        return wrapped(*args, **kwargs)

    @telling
    def load(owner, number):
        return number

    class Owner:
        """Gets the function later, so that it is not known to be a method."""

    Owner.load = single_flight_ttl(ttl=60)(load)
    owner = Owner()
    assert owner.load(1) == 1
    assert owner.load.refresh(1) == 1
    assert seen == [(owner, (1,))] * 2


def test_a_mock_may_be_patched_in():
    """`mock.patch` below adds an argument that the caller does not give."""

    @single_flight_ttl(ttl=60)
    @mock.patch("os.getcwd")
    def where(place, getcwd):
        return place, getcwd is os.getcwd

    assert where("here") == ("here", True)
    assert where("here") is where("here")


def test_a_default_may_be_a_marker_for_an_injector():
    """As dependency-injector's `Provide[...]`: what is left out is injected."""
    marker = object()

    def inject(function):
        names = [n for n, p in inspect.signature(function).parameters.items() if p.default is marker]

        @functools.wraps(function)
        def patched(*args, **kwargs):
            return function(*args, **{name: "injected" for name in names if name not in kwargs}, **kwargs)

        return patched

    fetch = single_flight_ttl(ttl=60)(inject(lambda a, cfg=marker: (a, cfg)))
    assert fetch(1) == (1, "injected")
    assert fetch(a=1) is fetch(1)


def test_a_decorator_may_be_made_for_methods():
    """As Django's `method_decorator`: the inner decorator sees a partial of the bound method."""

    def method_decorator(decorator):
        def decorate(method):
            @functools.wraps(method)
            def wrapper(self, *args, **kwargs):
                bound = functools.wraps(method)(functools.partial(method.__get__(self, type(self))))
                return decorator(bound)(*args, **kwargs)

            return wrapper

        return decorate

    calls = []

    class Owner:
        @single_flight_ttl(ttl=60)
        @method_decorator(noting(calls))
        def get(self, a, b=2):
            return [a, b]

        @method_decorator(single_flight_ttl(ttl=60))
        def anew(self, a, b=2):
            return [a, b]

    owner = Owner()
    assert owner.get(1) is owner.get(a=1) is owner.get(1, b=2) is owner.get(1, 2)
    assert calls == [((1,), {})]
    assert owner.anew(1) == owner.anew(a=1) == [1, 2]


def test_what_a_wrapper_declares_is_what_it_takes():
    """With a `__signature__` of its own a call has one key however it is written."""

    def wrapper(*args, **kwargs):
        return args, kwargs

    wrapper.__signature__ = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
            for name, default in (("a", 1), ("b", 2), ("c", 3))
        ]
    )
    fetch = single_flight_ttl(ttl=60)(wrapper)
    assert fetch(b=2) == ((), {"b": 2})
    assert fetch(1, 2, 3) is fetch(b=2) is fetch(c=3, a=1) is fetch()
    with pytest.raises(TypeError, match=r"^key: "):
        single_flight_ttl(ttl=60, key=lambda a: a)(wrapper)


def test_the_outermost_wrapper_that_says_what_it_takes_counts():
    """What is below it is its own affair."""

    def provided(function):
        @functools.wraps(function)
        def wrapper(k, limit=10):
            return function("session", k, limit)

        return wrapper

    calls = []
    fetch = single_flight_ttl(ttl=60)(noting(calls)(provided(lambda session, k, page: (session, k, page))))
    assert fetch(1) == ("session", 1, 10)
    assert fetch(k=1) is fetch(1, limit=10) is fetch(1, 10) is fetch(1)
    assert calls == [((1,), {})]
    own = single_flight_ttl(ttl=60)(provided(lambda session, k, page: [session, k, page]))
    assert own(1) is own(k=1, limit=10)
    with pytest.raises(TypeError, match="session"):
        own(1, session=2)


def test_a_compiled_function_takes_what_it_takes():
    """An empty signature (as some compilers write it), none at all, or one of C's."""

    class Compiled:
        """Callable, and shown by `inspect` as if it took nothing."""

        __wrapped__ = staticmethod(lambda: None)

        def __call__(self, *args, **kwargs):
            return [args, kwargs]

    empty = single_flight_ttl(ttl=60)(Compiled())
    assert empty(1, b=2) == [(1,), {"b": 2}]
    assert empty(1, b=2) is empty(1, b=2)
    assert empty() is empty()
    unsaid = single_flight_ttl(ttl=60)(max)
    assert (unsaid(1, 2), unsaid((3,), default=0)) == (2, 3)
    spelt = single_flight_ttl(ttl=60)("a-b-c".split)
    assert spelt("-", 1) == ["a", "b-c"]
    assert spelt("-", 1) is spelt("-", maxsplit=1) is spelt(sep="-", maxsplit=1)
    with pytest.raises(TypeError):
        spelt(1, 2, 3)


def test_a_twin_may_be_a_wrapper_that_injects():
    """It is called as the first one is, so its keys are the first one's, and the reverse."""

    async def aload(session, k, limit=10):
        return [session, k, limit]

    @single_flight_ttl(ttl=60)
    def load(k, limit=10):
        return [k, limit]

    @functools.wraps(aload)
    async def provided(*args, **kwargs):
        return await aload("session", *args, **kwargs)

    twin = load.twin(provided)
    value = run(twin(1))
    assert value == ["session", 1, 10]
    assert load(1) is load(k=1) is load(1, 10) is value
    first = single_flight_ttl(ttl=60)(with_session(lambda session, k: [session, k]))
    second = first.twin(lambda k: ["plain", k])
    assert first(1) is second(1)
    assert first(k=2) is second(k=2)


def test_a_loader_may_be_a_wrapper_that_injects():
    """Its keys are its getter's, which may be one, too."""

    @single_flight_ttl(ttl=60)
    def get(k, kind="bid"):
        return [k, kind]

    @get.bulk
    @with_session
    def load(session, ks, kind="bid"):
        return {k: [session, k, kind] for k in ks}

    value = load(["A"])["A"]
    assert value == ["session", "A", "bid"]
    assert get("A") is value
    assert load(["A"], "ask") == {"A": ["session", "A", "ask"]}
    assert get("A", kind="ask") == ["session", "A", "ask"]

    first = single_flight_ttl(ttl=60)(with_session(lambda session, k: [session, k]))
    plain = first.bulk(lambda ks: {k: ["plain", k] for k in ks})
    assert first("A") is plain(["A"])["A"]
    assert plain(["B"])["B"] is first("B")


@pytest.mark.parametrize("gather", [None, 0.001])
@pytest.mark.parametrize("injector", INJECTORS)
def test_moved_defaults_never_make_two_calls_of_a_loader_one(injector, gather):
    """Its keys are those of single calls that are written alike, so each finds what the other one fetched."""
    fetched = []

    @single_flight_ttl(ttl=60)
    @injector
    def page(session, k, limit=100, offset=0):
        fetched.append("one")
        return k, limit, offset

    @page.bulk(gather=gather)
    @injector
    def pages(session, ks, limit=100, offset=0):
        fetched.append("many")
        return {k: (k, limit, offset) for k in ks}

    plain = injector(lambda session, k, limit=100, offset=0: (k, limit, offset))
    calls = [(rest, {}) for rest in ((), (0,), (100,), (0, 100), (100, 100), (100, 0))]
    calls += [((), {"limit": 100}), ((), {"offset": 100}), ((100,), {"offset": 100})]
    for args, kwargs in calls:
        expected = {k: plain(k, *args, **kwargs) for k in "AB"}
        assert pages(["A", "B"], *args, **kwargs) == expected
        assert page("A", *args, **kwargs) == expected["A"]
    assert set(fetched) == {"many"}
    page.clear()
    for args, kwargs in calls:
        value = page("A", *args, **kwargs)
        assert pages(["A", "A"], *args, **kwargs) == {"A": value}
    assert page.stats().calls == len(fetched)


def test_what_cannot_be_hashed_is_named_there_too():
    """By the name that is shown, or by its place where it fits none."""
    fetch = single_flight_ttl(ttl=60)(noting([])(lambda a, b=2: a))
    with pytest.raises(TypeError, match="argument 'b' cannot be hashed"):
        fetch(1, [])
    with pytest.raises(TypeError, match=r"argument 'a' cannot be hashed"):
        fetch.invalidate([])
    moved = single_flight_ttl(ttl=60)(with_session(lambda session, k: k))
    with pytest.raises(TypeError, match=r"argument '\*args\[0\]' cannot be hashed"):
        moved([])
    with pytest.raises(TypeError, match=r"argument 'k' cannot be hashed"):
        moved(k=[])


# -- what is in a class, and in one another ----------------------------------------


def test_partials_and_callable_objects():
    """Their parameters are known; a partial in a class binds as it does undecorated."""

    class Adder:
        def __call__(self, a, b=2):
            return [a, b]

    added = single_flight_ttl(ttl=60)(Adder())
    assert added(1) is added(a=1) is added(1, 2)
    part = single_flight_ttl(ttl=60)(functools.partial(lambda a, b, c=3: [a, b, c], b=1))
    assert part(1) is part(a=1) is part(1, b=1, c=3)
    assert part(1, b=5) == [1, 5, 3]

    class Owner:
        @single_flight_ttl(ttl=60)
        def get(self, kind, k=1):
            return [kind, k]

        bids = functools.partialmethod(get, "bid")

    owner = Owner()
    assert owner.bids() is owner.bids(k=1) is owner.get("bid")


def test_a_decorated_function_may_be_decorated_again():
    """Each hands on what it got."""
    calls = []
    inner = single_flight_ttl(ttl=60)(noting(calls)(lambda a, b=2: [a, b]))
    outer = single_flight_ttl(ttl=60)(inner)
    assert outer(1) is outer(a=1) is outer(1, 2) is inner(1)
    assert calls == [((1,), {})]
