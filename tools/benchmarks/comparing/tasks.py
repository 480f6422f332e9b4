"""Cases in which tasks ask."""

from __future__ import annotations

import asyncio
import inspect
import time

from comparing.callers import (
    Caller,
    Work,
    kind,
    outcome,
    outcomes,
    started,
    tasks_at_once,
    tell,
    ticks,
    told,
)
from comparing.cases import case
from comparing.threads import grown, longest_traceback


def decorated(peer, work, **options):
    return peer.decorate(work.function("tasks"), **options)


async def herd(peer, work, call=None, size=10):
    """What the tasks got that asked at once."""
    tasks = await tasks_at_once(call or decorated(peer, work), work, size)
    work.go.set()
    return await outcomes(tasks)


@case("tasks", "One call", "10 ask for a cold key")
def cold(peer):
    work = Work()
    return told(work, asyncio.run(herd(peer, work)), "value")


@case("tasks", "One call", "another key, meanwhile")
def other_key(peer):
    inside = set()

    async def price(symbol):
        inside.add(symbol)
        while len(inside) < 2:
            await asyncio.sleep(0.001)
        return "value"

    async def main():
        call = peer.decorate(price)
        return await outcomes([asyncio.create_task(call(symbol)) for symbol in ("ASML", "AAPL")])

    return tell(asyncio.run(main()), "value", "is not held up")


@case("tasks", "One call", "10 ask when the value has expired")
def expired(peer):
    work = Work("old")

    async def main():
        call = decorated(peer, work, ttl=0.2)
        work.go.set()
        await call("ASML")
        await asyncio.sleep(0.4)  # past the ttl
        work.reset("new")
        return await herd(peer, work, call)

    return told(work, asyncio.run(main()), "new")


@case("tasks", "One call", "10 ask for a cold key, and the call takes 3 seconds")
def slow(peer):
    """Locks that are leases end after a time."""
    work = Work()

    async def main():
        tasks = await tasks_at_once(decorated(peer, work), work)
        await asyncio.sleep(3)
        work.go.set()
        return await outcomes(tasks)

    return told(work, asyncio.run(main()), "value")


@case("tasks", "One call", "10 that wait for half a second use")
def idle(peer):
    """Waiting should cost nothing; who asks again and again costs a core."""

    async def price(symbol):
        await asyncio.sleep(0.5)
        return "value"

    async def main():
        call = peer.decorate(price)
        began = time.process_time()
        await outcomes([asyncio.create_task(call("ASML")) for _ in range(10)])
        return "a processor" if time.process_time() - began > 0.1 else "next to nothing"

    return asyncio.run(main())


@case("tasks", "One call", "a thread and a task ask at once")
def both_colours(peer):
    work = Work()
    call = decorated(peer, work)
    plain = peer.second(call, work.function("threads"))
    if plain is None:
        return "n/a"

    async def main():
        task = asyncio.create_task(call("ASML"))
        await started(work)
        thread = Caller(plain, "ASML").begin()
        while not peer.waiting(call) and work.calls < 2:
            await asyncio.sleep(0.001)
        work.go.set()
        got = await outcome(task)
        return [got, await asyncio.to_thread(thread.result)]

    return told(work, asyncio.run(main()), "value")


@case("tasks", "Failure", "the function fails while 10 wait")
def failing(peer):
    work = Work(ValueError("down"))
    return told(work, asyncio.run(herd(peer, work)), "ValueError")


@case("tasks", "Failure", "the next call after a failure")
def after_failure(peer):
    work = Work(ValueError("down"))

    async def main():
        call = decorated(peer, work)
        work.go.set()
        await outcome(asyncio.create_task(call("ASML")))
        await ticks()
        work.reset()
        work.go.set()
        return await outcome(asyncio.create_task(call("ASML")))

    got = asyncio.run(main())
    return "calls again" if got == "value" else f"is given the {kind(got)}"


@case("tasks", "Failure", "the traceback of a shared exception, with more waiters")
def traceback(peer):
    lengths = []
    for size in (3, 12):
        work = Work(ValueError("down"))
        got = asyncio.run(herd(peer, work, size=size))
        if work.calls >= size:
            return "not shared"
        lengths.append(longest_traceback(got))
    return grown(*lengths)


@case("tasks", "Failure", "10 ask, and the value is `None`")
def nothing(peer):
    work = Work(None)

    async def main():
        call = decorated(peer, work)
        cell = told(work, await herd(peer, work, call), "None")
        before = work.calls
        await call("ASML")
        return cell + (", stored" if work.calls == before else ", not stored")

    return asyncio.run(main())


def after_cancelling(peer, chosen):
    """What the tasks got that were not cancelled, and how many calls there were."""
    work = Work()

    async def main():
        tasks = await tasks_at_once(decorated(peer, work), work)
        tasks[chosen].cancel()
        await ticks()
        work.go.set()
        return await outcomes(task for task in tasks if task is not tasks[chosen])

    return told(work, asyncio.run(main()), "value")


@case("tasks", "Aborts and cancellation", "of 10, the first to ask is cancelled", alone=True)
def first_cancelled(peer):
    return after_cancelling(peer, 0)


@case("tasks", "Aborts and cancellation", "of 10, another is cancelled")
def follower_cancelled(peer):
    return after_cancelling(peer, 5)


@case("tasks", "Aborts and cancellation", "all 10 are cancelled: the work")
def all_cancelled(peer):
    work = Work()

    async def main():
        tasks = await tasks_at_once(decorated(peer, work), work)
        for task in tasks:
            task.cancel()
        await ticks()
        return "runs on" if work.inside else "ends too"

    return asyncio.run(main())


async def forgotten(peer, call) -> None:
    dropped = peer.forget(call, "ASML")
    if inspect.isawaitable(dropped):
        await dropped


@case("tasks", "Invalidation", "invalidated in flight: the value is")
def invalidated(peer):
    work = Work("old")

    async def main():
        call = decorated(peer, work)
        first = asyncio.create_task(call("ASML"))
        await started(work)
        await ticks()
        await forgotten(peer, call)
        work.go.set()
        await outcome(first)
        await ticks()
        work.result = "new"
        return "stored" if await call("ASML") == "old" else "not stored"

    return asyncio.run(main())


@case("tasks", "Invalidation", "who asks after that, still in flight, gets")
def newcomer(peer):
    work = Work("old")

    async def price(symbol):
        with work.counted():
            if work.calls > 1:
                return "new"
            while not work.go.is_set():
                await asyncio.sleep(0.001)
            return "old"

    async def main():
        call = peer.decorate(price)
        first = asyncio.create_task(call("ASML"))
        await started(work)
        await ticks()
        await forgotten(peer, call)
        second = asyncio.create_task(call("ASML"))
        await ticks()
        work.go.set()
        await outcome(first)
        return f"the {kind(await outcome(second))} value"

    return asyncio.run(main())
