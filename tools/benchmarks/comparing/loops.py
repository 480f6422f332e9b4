"""Cases of tasks that wait in circles, in several event loops, and over a fork: all but one for this library alone."""

from __future__ import annotations

import asyncio
import threading

from comparing.callers import PATIENCE, Caller, Work, kind, outcome, outcomes, started, tell, told
from comparing.cases import case
from comparing.tasks import decorated
from comparing.threads import in_child


@case("tasks", "Waiting in a cycle", "the function asks for its own key", alone=True)
def own_key(peer):
    async def price(symbol):
        return await call(symbol)

    call = peer.decorate(price)

    async def main():
        return await outcome(asyncio.create_task(call("ASML")))

    return in_a_thread(main)


@case("tasks", "Waiting in a cycle", "A asks for B, and B for A", alone=True)
def cycle(peer):
    inside = set()

    async def price(symbol):
        inside.add(symbol)
        while len(inside) < 2:
            await asyncio.sleep(0.001)
        return await call("B" if symbol == "A" else "A")

    call = peer.decorate(price)

    async def main():
        got = await outcomes([asyncio.create_task(call(symbol)) for symbol in "AB"])
        return " or ".join(sorted({kind(one) for one in got}))

    return in_a_thread(main)


def in_a_thread(main) -> str:
    """In a loop that is left as it stands, so that the case ends even where the promise is broken."""
    caller = Caller(lambda: asyncio.run(hold(main)))
    told, ready = [], threading.Event()

    async def hold(main):
        told.append(kind(await main()))
        ready.set()

    caller.start()
    ready.wait(2 * PATIENCE)
    return told[0] if told else kind(caller.outcome)


@case("tasks", "Loops and forks", "4 event loops in 4 threads ask at once", alone=True)
def four_loops(peer):
    work = Work()
    call = decorated(peer, work)

    async def main():
        return await asyncio.wait_for(call("ASML"), 1.5 * PATIENCE)

    callers = [Caller(asyncio.run, main()) for _ in range(4)]
    callers[0].start()
    work.started.wait(PATIENCE)
    for caller in callers[1:]:
        caller.start()
    _settled_loops(peer, call, work)
    work.go.set()
    return told(work, [caller.result() for caller in callers], "value")


def _settled_loops(peer, call, work) -> None:
    """Until the other three wait or are inside; a library that cannot tell is given half a second."""
    pause = threading.Event()
    for turn in range(int(PATIENCE * 100)):
        waiting = peer.waiting(call)
        if (waiting or 0) + work.calls >= 4:
            return
        if waiting is None and turn >= 50:
            return
        pause.wait(0.01)


@case("tasks", "Loops and forks", "a value of one `asyncio.run` in the next")
def second_loop(peer):
    work = Work()
    call = decorated(peer, work)
    work.go.set()

    async def main():
        return await outcome(asyncio.create_task(call("ASML")))

    got = [asyncio.run(main()), asyncio.run(main())]
    return tell(got, "value", "found" if work.calls == 1 else "called again")


@case("tasks", "Loops and forks", "the loop ends in mid-call; the next `asyncio.run` asks", alone=True)
def ended_loop(peer):
    work = Work()
    call = decorated(peer, work)

    async def first():
        task = asyncio.create_task(call("ASML"))
        await started(work)
        return task

    async def second():
        work.go.set()
        return await outcome(asyncio.create_task(call("ASML")))

    asyncio.run(first())
    got = asyncio.run(second())
    return "calls again" if got == "value" else kind(got)


@case("tasks", "Loops and forks", "a forked child asks for a key in flight at the fork", alone=True)
def fork(peer):
    work = Work()
    call = decorated(peer, work)

    async def main():
        return await call("ASML")

    Caller(asyncio.run, main()).begin()
    work.started.wait(PATIENCE)

    def ask():
        work.go.set()
        return asyncio.run(main())

    answer = in_child(ask)
    return "calls again" if answer == "value" else answer
