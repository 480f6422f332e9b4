"""Cases that are the same for threads and tasks: one caller at a time."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

from comparing.callers import Work, kind
from comparing.cases import either


class Asking:
    """Calls decorated functions of one colour, tasks all in one loop."""

    def __init__(self, colour: str) -> None:
        self.loop = asyncio.new_event_loop() if colour == "tasks" else None

    def __call__(self, call, *args, **kwargs):
        if self.loop:
            return self.loop.run_until_complete(call(*args, **kwargs))
        return call(*args, **kwargs)

    def pause(self, seconds: float) -> None:
        if self.loop:
            self.loop.run_until_complete(asyncio.sleep(seconds))
        else:
            time.sleep(seconds)


class Value:
    """Something that can be watched."""


def opened(result="value") -> Work:
    work = Work(result)
    work.go.set()
    return work


GROUP = "Keys, values and instances"


@either(GROUP, '`price("ASML")` and `price(symbol="ASML")`')
def spelling(colour, peer):
    ask, work = Asking(colour), opened()
    call = peer.decorate(work.function(colour))
    ask(call, "ASML")
    try:
        ask(call, symbol="ASML")
    except Exception as error:
        return kind(error)
    return "are one call" if work.calls == 1 else "are two calls"


@either(GROUP, "a caller changes the list that it got: others")
def mutable(colour, peer):
    ask = Asking(colour)
    work = opened([])
    call = peer.decorate(work.function(colour))
    ask(call, "ASML")
    ask(call, "ASML").append(1)
    return "see it" if ask(call, "ASML") else "do not see it"


@either(GROUP, "an expired value, after 2000 other calls, is")
def let_go(colour, peer):
    ask, work = Asking(colour), opened(Value())
    call = peer.decorate(work.function(colour), ttl=0.2)
    ask(call, "ASML")
    watched = weakref.ref(work.result)
    work.result = None
    ask.pause(0.4)  # past the ttl
    work.result = 1.0
    for number in range(2000):
        ask(call, str(number))
    gc.collect()
    return "let go" if watched() is None else "kept"


def account(colour, peer):
    """A class with one decorated method, in the way that the library recommends for methods."""

    def price(self, symbol):
        return self.owner

    async def coroutine_price(self, symbol):
        return self.owner

    method = peer.method(price if colour == "threads" else coroutine_price)

    class Account:
        price = method

        def __init__(self, owner):
            self.owner = owner
            peer.prepare(self)

    return Account


@either(GROUP, "a method, asked on two instances: each gets")
def two_instances(colour, peer):
    ask, Account = Asking(colour), account(colour, peer)
    first, second = Account("first"), Account("second")
    ask(first.price, "ASML")
    return "its own value" if ask(second.price, "ASML") == "second" else "the first one's value"


@either(GROUP, "an instance that only the cache knows is")
def kept_alive(colour, peer):
    ask, Account = Asking(colour), account(colour, peer)
    first = Account("first")
    ask(first.price, "ASML")
    watched = weakref.ref(first)
    del first
    gc.collect()
    return "let go" if watched() is None else "kept alive"


@either(GROUP, "a new instance with a dead one's `id()` gets")
def reused_id(colour, peer):
    ask, Account = Asking(colour), account(colour, peer)
    first = Account("first")
    ask(first.price, "ASML")
    watched = weakref.ref(first)
    del first
    gc.collect()
    if watched() is not None:
        return "n/a, kept alive"
    for _ in range(500):
        first = Account("first")
        ask(first.price, "ASML")
        place, watched = id(first), weakref.ref(first)
        del first
        if watched() is not None:
            gc.collect()
        second = Account("second")
        if id(second) == place:
            return "its own value" if ask(second.price, "ASML") == "second" else "the dead one's value"
    return "no id was used again"
