"""How long a library takes to begin. This imports next to nothing, so that each library pays for what it needs."""

from __future__ import annotations

import time

from comparing.variants import named


def function(symbol):
    return 984.75


async def coroutine_function(symbol):
    return 984.75


def begin(name: str) -> None:
    """In a process of its own: print the milliseconds of its processor to import a library and decorate."""
    peer = named(name)
    decorated = function if "threads" in peer.colours else coroutine_function
    began = time.process_time_ns()
    peer.decorate(decorated)
    print((time.process_time_ns() - began) / 1e6)
