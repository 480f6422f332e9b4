"""Coroutine functions are recognised, stay what they are, and have the same control surface."""

import asyncio
import functools
import gc
import inspect
import os
import pickle
import sys
import weakref
from unittest import mock

import pytest
import wrapt

from singleflight import UnhashableKey, single_flight_ttl


@single_flight_ttl(ttl=60)
async def plain(a: int, b: int = 2) -> list[int]:
    """Adds nothing."""
    return [a, b]


class Owner:
    def __init__(self, name="x"):
        self.name = name

    @single_flight_ttl(ttl=60)
    async def method(self, a=1):
        """A method."""
        return [self.name, a]

    @single_flight_ttl(ttl=60)
    @classmethod
    async def of_class(cls, a=1):
        """A class method."""
        return [cls, a]

    @single_flight_ttl(ttl=60)
    @staticmethod
    async def static(a=1):
        """A static method."""
        return [a]

    @classmethod
    @single_flight_ttl(ttl=60)
    async def of_class_below(cls, a=1):
        return [cls, a]

    @staticmethod
    @single_flight_ttl(ttl=60)
    async def static_below(a=1):
        return [a]


WAYS = ["method", "of_class", "static", "of_class_below", "static_below"]


class AsyncAdder:
    async def __call__(self, a):
        return [a]


def run(awaitable):
    async def main():
        return await asyncio.wait_for(awaitable, 20)

    return asyncio.run(main())


def test_a_value_is_kept():
    """The second call is a hit: the same object, without running the function."""

    async def main():
        plain.cache_clear()
        value = await plain(1)
        assert await plain(1, b=2) is value
        assert plain.stats().calls == 1

    run(main())


@pytest.mark.parametrize("name", WAYS)
def test_methods_of_every_kind(name):
    """Bound as Python binds them; one key, bound and unbound."""

    async def main():
        owner = Owner()
        call = getattr(owner, name)
        value = await call(5)
        assert await call(a=5) is value
        if name == "method":
            assert await Owner.method(owner, 5) is value
        else:
            assert await getattr(Owner, name)(5) is value

    run(main())


@pytest.mark.parametrize("name", WAYS)
def test_it_is_a_coroutine_function(name):
    """To inspect and to frameworks, as function and bound."""
    assert inspect.iscoroutinefunction(plain)
    assert inspect.iscoroutinefunction(getattr(Owner(), name))
    assert inspect.iscoroutinefunction(getattr(Owner, name))
    if name != "of_class_below" or sys.version_info < (3, 13):  # there it is a bound method, as Python has it
        assert inspect.iscoroutinefunction(getattr(Owner, name).__call__)
    assert str(inspect.signature(plain)) == "(a: int, b: int = 2) -> list[int]"
    assert pickle.loads(pickle.dumps(plain)) is plain


def test_a_call_does_nothing_until_it_is_awaited():
    """Not even the key is made."""
    call = plain(1, [])
    with pytest.raises(UnhashableKey, match="'b'"):
        run(call)


def test_wrong_arguments_raise_at_the_call():
    """As for any coroutine function: the message is Python's own, and there is nothing to await."""
    for call, original in ((plain, plain.__wrapped__), (Owner().method, Owner().method.__wrapped__)):
        with pytest.raises(TypeError) as ours:
            call(1, 2, 3, 4)
        with pytest.raises(TypeError) as theirs:
            original(1, 2, 3, 4)
        assert str(ours.value) == str(theirs.value)


def test_the_surface_of_a_bound_coroutine_method():
    """The control surface of a coroutine function, on the bound method."""

    async def main():
        owner = Owner()
        value = await owner.method(1)
        assert owner.method.entry(1).value is value
        assert owner.method.explain(1).would == "hit"
        fresh = await owner.method.refresh(1)
        assert fresh is not value
        assert await owner.method(1) is await Owner.method(owner, 1) is fresh
        assert owner.method.invalidate(1)
        owner.method.put("put", 1)
        assert await owner.method(1) == "put"
        assert await Owner.method.refresh(owner, 1) == ["x", 1]
        assert await plain.refresh(1) == [1, 2]
        with plain.bypass():
            assert await plain(1) is not await plain(1)

    run(main())


@wrapt.decorator
def passing_on(wrapped, instance, args, kwargs):
    return wrapped(*args, **kwargs)


def test_coroutine_functions_of_every_kind_are_recognised():
    """In a partial, as a callable object, below a wrapt decorator, marked."""
    partial = functools.partial(lambda a, b: [a, b], 1)

    async def pair(a, b):
        return [a, b]

    kinds = [
        (functools.partial(pair, 1), (2,)),
        (functools.partial(functools.partial(pair), 1), (2,)),
        (functools.partial(AsyncAdder(), a=1), ()),
        (AsyncAdder(), (1,)),
        (Owner("y").method.__wrapped__, (1,)),
        (passing_on(pair), (1, 2)),
        (passing_on(AsyncAdder()), (1,)),
    ]
    if sys.version_info >= (3, 12):
        kinds.append((inspect.markcoroutinefunction(lambda a: pair(a, 2)), (1,)))

    async def main():
        for function, args in kinds:
            decorated = single_flight_ttl(ttl=60)(function)
            assert await decorated(*args) is await decorated(*args), function
            if sys.version_info >= (3, 12) or not isinstance(function, AsyncAdder):
                assert inspect.iscoroutinefunction(decorated) or isinstance(function, functools.partial)
        assert single_flight_ttl(ttl=60)(partial)(2) == [1, 2]

    run(main())


@pytest.mark.skipif(not hasattr(asyncio.coroutines, "_is_coroutine"), reason="asyncio has no mark of its own")
def test_what_is_marked_for_asyncio_is_a_coroutine_function():
    """Mocks have that mark, and wrappers where `inspect` has no other (`typing_extensions.deprecated`)."""

    async def pair(a, b=2):
        return [a, b]

    @functools.wraps(pair)
    def wrapper(*args, **kwargs):
        return pair(*args, **kwargs)

    wrapper._is_coroutine = asyncio.coroutines._is_coroutine

    class Wrapped:
        @single_flight_ttl(ttl=60)
        @functools.wraps(wrapper)
        def method(*args, **kwargs):
            return wrapper(*args[1:], **kwargs)

    async def main():
        for function in (wrapper, mock.create_autospec(pair, return_value=[1, 2])):
            decorated = single_flight_ttl(ttl=60)(function)
            assert await decorated(1) is await decorated(1) == [1, 2]
        wrapped = Wrapped()
        assert await wrapped.method(1) is await wrapped.method(1) == [1, 2]

    run(main())


def test_a_wrapt_decorator_below_a_coroutine_method_is_told_the_instance():
    """The run is bound in this colour too."""
    seen = []

    @wrapt.decorator
    def tell(wrapped, instance, args, kwargs):
        seen.append(instance)
        return wrapped(*args, **kwargs)

    class Wrapped:
        @single_flight_ttl(ttl=60)
        @tell
        async def method(self):
            return self

    instance = Wrapped()
    assert run(instance.method()) is instance
    assert seen == [instance]


def test_a_plain_wrapper_around_a_coroutine_function_is_refused():
    """It returns coroutines, and the error says what to do."""

    async def fetch():
        return 1

    @functools.wraps(fetch)
    def wrapper():
        return fetch()

    for unfit in (wrapper, functools.lru_cache(wrapper), functools.wraps(plain)(lambda: plain(1))):
        with pytest.raises(TypeError, match=r"make the wrapper `async def`"):
            single_flight_ttl(ttl=60)(unfit)


def test_generators_are_refused_however_they_are_hidden():
    """Plain and asynchronous, as callable objects and in partials."""

    def generator(a=1):
        yield a

    async def both(a=1):
        yield a

    class Generating:
        async def __call__(self):
            yield 1

    for unfit in (generator, both, Generating(), functools.partial(both, 1), classmethod(generator)):
        with pytest.raises(TypeError, match="generator"):
            single_flight_ttl(ttl=60)(unfit)
        with pytest.raises(TypeError, match="generator"):
            plain.twin(unfit)


@pytest.mark.parametrize("option", ["key", "cache_if", "timer", "listener", "ttl"])
def test_an_option_that_would_have_to_be_awaited_is_refused(option):
    """A coroutine is never taken for an answer."""

    async def asked(*_):
        return 1

    with pytest.raises(TypeError, match=f"^{option}: expected a plain callable"):
        single_flight_ttl(**{"ttl": 60, option: asked})(lambda a: a)


def test_no_instance_of_a_coroutine_method_is_kept_alive():
    """A coroutine method's entries go with the instance too."""
    owner = Owner()
    run(owner.method(1))
    before = Owner.method.stats().entries
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    assert Owner.method.stats().entries == before - 1


def test_the_environment_switches_a_coroutine_function_off(monkeypatch):
    """What is decorated while the switch is set runs its coroutine at every call."""
    monkeypatch.setitem(os.environ, "SINGLEFLIGHT_DISABLED", "1")
    calls = []

    @single_flight_ttl(ttl=60)
    async def fetch():
        calls.append(1)

    run(fetch())
    run(fetch())
    assert len(calls) == 2
