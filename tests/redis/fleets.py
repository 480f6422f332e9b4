"""Processes for the tests: each store is a process of its own to the server."""

import asyncio
import threading
import time

from singleflight import single_flight_ttl
from singleflight.redis import RedisStore

from ..drivers import PATIENCE, until

__all__ = ["LEASE", "Fleet", "Loads", "called", "link_of", "never_probe", "start", "waits_elsewhere"]

LEASE = 2.0


class Loads:
    """A function's body: counts, and waits at a gate that a test may shut."""

    def __init__(self, value=984.75):
        self.value = value
        self.calls = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()

    def __call__(self, symbol):
        with self.lock:
            self.calls.append(symbol)
            number = len(self.calls)
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        value = self.value(number) if callable(self.value) else self.value
        if isinstance(value, BaseException):
            raise value
        return value


class Fleet:
    """Makes processes: each a store of its own, with the function that the options make of a body."""

    def __init__(self, url):
        self.url = url
        self.stores = []

    def __call__(self, body, colour="threads", lease=LEASE, terms=None, url=None, **options):
        store = RedisStore(url or self.url, lease=lease, **{"timeout": 2.0, **(terms or {})})
        self.stores.append(store)
        options = {"ttl": 60, "name": "price", **options}

        if colour == "tasks":

            @single_flight_ttl(store=store, **options)
            async def price(symbol):
                return await asyncio.to_thread(body, symbol)
        else:

            @single_flight_ttl(store=store, **options)
            def price(symbol):
                return body(symbol)

        return price

    def store_of(self, function):
        """The store that a function was made with."""
        return next(store for store in self.stores if store._link is function._self_cache.tier.link)

    def close(self):
        for store in self.stores:
            store.close()


def start(pool, function, *args):
    """Have a call run in a thread; of a coroutine function in an event loop of its own."""
    return pool.submit(called, function, *args)


def called(function, *args):
    """Call it; of a coroutine function in an event loop of its own."""
    made = function(*args)
    return asyncio.run(made) if asyncio.iscoroutine(made) else made


def waits_elsewhere(function):
    """Wait until one of its flights waits for another process; return that."""
    until(lambda: any(flight.kind == "shared" for flight in function.flights()))
    return next(flight for flight in function.flights() if flight.kind == "shared")


def link_of(function):
    """What it has in common with the other functions of its process."""
    return function._self_cache.tier.link


def never_probe(function):
    """Its keeper is not to ask whether the server is back."""
    breaker = link_of(function).breaker
    with link_of(function).lock:
        breaker.probe_at = time.monotonic() + 1000
