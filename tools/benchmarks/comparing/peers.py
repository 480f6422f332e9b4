"""How each library is set up: as its own documentation recommends it against stampedes.

`PEERS` are the columns of the tables; `variants` has other set-ups of the same libraries.
"""

from __future__ import annotations

import threading
from typing import Any

SIZE = 1024


class Peer:
    """One library, set up in one way. Imports are made late, so that a process pays for one library only."""

    name = ""
    distribution = ""
    setup = ""
    note = ""
    colours = ("threads", "tasks")
    own_key = False  # it takes no key function, or not one that does the same work

    @property
    def version(self) -> str | None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None

    def decorate(self, function, ttl=60.0, key=None):
        raise NotImplementedError

    def method(self, function):
        """The same for a method `function(self, symbol)`, with the key that the library makes itself."""
        return self.decorate(function)

    def prepare(self, instance):
        """What an instance needs for `method`."""

    def forget(self, call, symbol):
        """Drop one value; awaited where it is a coroutine."""
        raise NotImplementedError

    def second(self, call, function):
        """A function of the other colour for the same values, or None if there can be none."""

    def waiting(self, call) -> int | None:
        """How many callers wait for others, for a library that can tell."""
        return None


class Ours(Peer):
    name = "singleflight"
    distribution = "singleflight-kit"
    setup = "`single_flight_ttl(ttl=…)`"
    options: dict[str, Any] = {}

    def decorate(self, function, ttl=60.0, key=None):
        from singleflight import single_flight_ttl

        return single_flight_ttl(ttl=ttl, key=key, maxsize=SIZE, **self.options)(function)

    def forget(self, call, symbol):
        call.invalidate(symbol)

    def second(self, call, function):
        return call.twin(function)

    def waiting(self, call):
        return sum(flight.followers for flight in call.flights())


class Cachetools(Peer):
    name = distribution = "cachetools"
    setup = "`cached(TTLCache(1024, …), condition=Condition(), info=True)`, methods with `cachedmethod`"
    colours = ("threads",)
    waits = True

    def _guard(self):
        return {"condition": threading.Condition()} if self.waits else {"lock": threading.Lock()}

    def decorate(self, function, ttl=60.0, key=None):
        from cachetools import TTLCache, cached, keys

        return cached(TTLCache(SIZE, ttl), key or keys.hashkey, info=True, **self._guard())(function)

    def method(self, function):
        from cachetools import cachedmethod

        guard = "condition" if self.waits else "lock"
        return cachedmethod(lambda self: self.cache, **{guard: lambda self: self.guard})(function)

    def prepare(self, instance):
        from cachetools import TTLCache

        (instance.guard,) = self._guard().values()
        instance.cache = TTLCache(SIZE, 60)

    def forget(self, call, symbol):
        with call.cache_lock or call.cache_condition:
            call.cache.pop(call.cache_key(symbol), None)


class Cachebox(Peer):
    name = distribution = "cachebox"
    setup = "`cached(TTLCache(1024, …))` as it comes, methods with a cache for each instance"

    def decorate(self, function, ttl=60.0, key=None):
        import cachebox

        return cachebox.cached(cachebox.TTLCache(SIZE, ttl), key_maker=key or cachebox.make_key)(function)

    def method(self, function):
        import cachebox

        return cachebox.cached(lambda self: self.cache)(function)

    def prepare(self, instance):
        import cachebox

        instance.cache = cachebox.TTLCache(SIZE, 60)

    def forget(self, call, symbol):
        import cachebox

        call.cache.pop(cachebox.make_key(symbol), None)

    def second(self, call, function):
        import cachebox

        return cachebox.cached(call.cache)(function)


class Moka(Peer):
    name = distribution = "moka-py"
    setup = "`cached(maxsize=1024, ttl=…, wait_concurrent=True)`"
    note = "It takes no key function, and forgets all values or none."
    own_key = True
    options: dict[str, Any] = {}

    def decorate(self, function, ttl=60.0, key=None):
        import moka_py

        return moka_py.cached(maxsize=SIZE, ttl=ttl, wait_concurrent=True, **self.options)(function)

    def forget(self, call, symbol):
        call.cache_clear()


class AsyncLru(Peer):
    name = distribution = "async-lru"
    setup = "`alru_cache(1024, ttl=…)`"
    colours = ("tasks",)

    def decorate(self, function, ttl=60.0, key=None):
        import async_lru

        return async_lru.alru_cache(SIZE, ttl=ttl, key=key)(function)

    def forget(self, call, symbol):
        call.cache_invalidate(symbol)


class Dogpile(Peer):
    name = distribution = "dogpile.cache"
    setup = (
        '`make_region().configure("dogpile.cache.memory", expiration_time=…)`, `region.cache_on_arguments()`'
    )
    note = (
        "This backend has no size limit. Its default key leaves out a parameter named `self`, as documented."
    )
    colours = ("threads",)
    runner = None

    def decorate(self, function, ttl=60.0, key=None):
        from dogpile.cache import make_region

        options = {"function_key_generator": lambda namespace, function, **_: key} if key else {}
        region = make_region(async_creation_runner=self.runner, **options)
        region.configure("dogpile.cache.memory", expiration_time=ttl)
        return region.cache_on_arguments()(function)

    def forget(self, call, symbol):
        call.invalidate(symbol)


class Cashews(Peer):
    name = distribution = "cashews"
    setup = (
        '`cache.setup("mem://")`, `@cache(ttl=…, key="price:{symbol}", lock=True)`, methods without `key=`'
    )
    note = "Its keys are templates."
    colours = ("tasks",)
    own_key = True
    kind, prefix = "cache", ""
    options: dict[str, Any] = {"lock": True}

    def decorate(self, function, ttl=60.0, key=None):
        self.cache, decorator = self._decorator(ttl, key="price:{symbol}")
        return decorator(function)

    def _decorator(self, ttl, **more):
        from cashews import Cache

        cache = Cache()
        cache.setup("mem://", size=SIZE)
        return cache, getattr(cache, self.kind)(ttl=ttl, **self.options, **more)

    def method(self, function):
        return self._decorator(60)[1](function)

    async def forget(self, call, symbol):
        await self.cache.delete(f"{self.prefix}price:{symbol}")


class Aiocache(Peer):
    name = distribution = "aiocache"
    setup = "`@cached_stampede(ttl=…)` with its memory cache"
    note = "This cache has no size limit."
    colours = ("tasks",)

    def decorate(self, function, ttl=60.0, key=None):
        from aiocache import cached_stampede

        builder = (lambda function, *args: key(*args)) if key else None
        self.decorator = cached_stampede(ttl=ttl, key_builder=builder)
        return self.decorator(function)

    async def forget(self, call, symbol):
        await call.cache.delete(self.decorator.get_cache_key(call.__wrapped__, (symbol,), {}))


PEERS = [Ours(), Cachetools(), Cachebox(), Moka(), Dogpile(), AsyncLru(), Cashews(), Aiocache()]


def installed(peers: list[Peer]) -> list[Peer]:
    return [peer for peer in peers if peer.version]
