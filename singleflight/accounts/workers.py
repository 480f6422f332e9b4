"""Threads in which a coroutine has its blocking requests made."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

__all__ = ["Workers", "together"]

P = ParamSpec("P")
R = TypeVar("R")

_MOST = 64  # threads at a time; those that are idle are kept


async def together(calls: Iterable[Awaitable[R]]) -> list[R]:
    """Await all of them at the same time; the first that fails is what this raises."""
    return list(await asyncio.gather(*calls))


class Workers:
    """One account's threads, made when they are first needed; a forked child makes its own.

    Not the event loop's own pool, which `asyncio.to_thread` uses. That one has four threads more than there
    are processors, and everybody's work is in it. Full of threads that wait for a price, it would have none
    left to fetch that price in; and a broker that hangs would hold up all that the application does there.
    """

    def __init__(self) -> None:
        self._pools: dict[int, ThreadPoolExecutor] = {}  # by process: a fork copies no threads

    def __reduce__(self) -> tuple[type[Workers], tuple[()]]:
        return Workers, ()  # a copy of an account has threads of its own

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it in a thread, in a copy of this context.

        A request cannot be taken back: if the task is cancelled, the thread continues to the end of the call,
        and its result is dropped.
        """
        return await asyncio.wrap_future(self.start(call, *args, **kwargs))

    def start(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call it in a thread, in a copy of this context, and give the future of what it returns."""
        context = copy_context()

        def work() -> R:
            try:
                return context.run(call, *args, **kwargs)
            except StopIteration as error:  # a future cannot carry it: its task would hang
                raise RuntimeError(f"{call!r} raised StopIteration") from error

        return self._pool().submit(work)

    def _pool(self) -> ThreadPoolExecutor:
        here = os.getpid()
        pool = self._pools.get(here)
        if pool is None:  # of several made at a time one stays; the others have no threads yet
            made = ThreadPoolExecutor(_MOST, thread_name_prefix="singleflight-account")
            pool = self._pools.setdefault(here, made)
        return pool
