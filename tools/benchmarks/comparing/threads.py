"""Cases in which threads ask."""

from __future__ import annotations

import os
import select
import threading
import time

from comparing.callers import (
    HANGS,
    PATIENCE,
    Caller,
    Work,
    ask_at_once,
    kind,
    settled,
    tell,
    times,
    told,
)
from comparing.cases import case


def longest_traceback(errors) -> int:
    def length(traceback):
        return 0 if traceback is None else 1 + length(traceback.tb_next)

    return max(length(error.__traceback__) for error in errors)


def grown(few: int, many: int) -> str:
    return "does not grow" if many <= few else f"grows, {few} to {many} frames"


@case("threads", "One call", "10 ask for a cold key")
def cold(peer):
    work = Work()
    return told(work, ask_at_once(peer, peer.decorate(work.function("threads")), work), "value")


@case("threads", "One call", "another key, meanwhile")
def other_key(peer):
    work = Work()
    both = threading.Barrier(2)

    def price(symbol):
        both.wait(PATIENCE / 2)
        return work.result

    call = peer.decorate(price)
    callers = [Caller(call, symbol).begin() for symbol in ("ASML", "AAPL")]
    return tell([caller.result() for caller in callers], "value", "is not held up")


@case("threads", "One call", "10 ask when the value has expired")
def expired(peer):
    work = Work("old")
    call = peer.decorate(work.function("threads"), ttl=0.2)
    work.go.set()
    call("ASML")
    time.sleep(0.4)  # past the ttl
    work.reset("new")
    return told(work, ask_at_once(peer, call, work), "new")


@case("threads", "Failure", "the function fails while 10 wait")
def failing(peer):
    work = Work(ValueError("down"))
    return told(work, ask_at_once(peer, peer.decorate(work.function("threads")), work), "ValueError")


@case("threads", "Failure", "the next call after a failure")
def after_failure(peer):
    work = Work(ValueError("down"))
    call = peer.decorate(work.function("threads"))
    work.go.set()
    Caller(call, "ASML").begin().result()
    work.reset()
    work.go.set()
    got = Caller(call, "ASML").begin().result()
    return "calls again" if got == "value" else f"is given the {kind(got)}"


@case("threads", "Failure", "the traceback of a shared exception, with more waiters")
def traceback(peer):
    lengths = []
    for size in (3, 12):
        work = Work(ValueError("down"))
        got = ask_at_once(peer, peer.decorate(work.function("threads")), work, size)
        if work.calls >= size:
            return "not shared"
        lengths.append(longest_traceback(got))
    return grown(*lengths)


@case("threads", "Failure", "10 ask, and the value is `None`")
def nothing(peer):
    work = Work(None)
    call = peer.decorate(work.function("threads"))
    cell = told(work, ask_at_once(peer, call, work), "None")
    before = work.calls
    call("ASML")
    return cell + (", stored" if work.calls == before else ", not stored")


@case("threads", "Aborts and cancellation", "`SystemExit` in the first of 10", alone=True)
def system_exit(peer):
    work = Work()

    def price(symbol):
        with work.counted():
            first = work.calls == 1
            work.go.wait(PATIENCE)
            if first:
                raise SystemExit
            return work.result

    got = ask_at_once(peer, peer.decorate(price), work)
    return tell(got[1:], "value", times(work.calls - 1, "more call"))


@case("threads", "Waiting in a cycle", "the function asks for its own key", alone=True)
def own_key(peer):
    def price(symbol):
        return call(symbol)

    call = peer.decorate(price)
    return kind(Caller(call, "ASML").begin().result())


@case("threads", "Waiting in a cycle", "A asks for B, and B for A", alone=True)
def cycle(peer):
    inside = {"A": threading.Event(), "B": threading.Event()}

    def price(symbol):
        other = "B" if symbol == "A" else "A"
        inside[symbol].set()
        inside[other].wait(PATIENCE)
        return call(other)

    call = peer.decorate(price)
    callers = [Caller(call, symbol).begin() for symbol in inside]
    return " or ".join(sorted({kind(caller.result()) for caller in callers}))


def in_child(run) -> str:
    """What `run()` returns in a forked child, or that it hangs there."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        caller = Caller(run).begin()
        os.write(writing, kind(caller.result()).encode())
        os._exit(0)
    ready, _, _ = select.select([reading], [], [], 1.5 * PATIENCE)
    return os.read(reading, 1000).decode() if ready else HANGS


@case("threads", "Loops and forks", "a forked child asks for a key in flight at the fork", alone=True)
def fork(peer):
    work = Work()
    call = peer.decorate(work.function("threads"))
    Caller(call, "ASML").begin()
    work.started.wait(PATIENCE)

    def ask():
        work.go.set()
        return call("ASML")

    answer = in_child(ask)
    return "calls again" if answer == "value" else answer


@case("threads", "Invalidation", "invalidated in flight: the value is")
def invalidated(peer):
    work = Work("old")
    call = peer.decorate(work.function("threads"))
    first = Caller(call, "ASML").begin()
    work.started.wait(PATIENCE)
    peer.forget(call, "ASML")
    work.go.set()
    first.result()
    work.result = "new"
    return "stored" if call("ASML") == "old" else "not stored"


@case("threads", "Invalidation", "who asks after that, still in flight, gets")
def newcomer(peer):
    work = Work("old")

    def price(symbol):
        with work.counted():
            if work.calls > 1:
                return "new"
            work.go.wait(PATIENCE)
            return "old"

    call = peer.decorate(price)
    first = Caller(call, "ASML").begin()
    work.started.wait(PATIENCE)
    peer.forget(call, "ASML")
    second = Caller(call, "ASML").begin()
    if peer.waiting(call) is None:
        settled(peer, call, [second])
    else:
        second.result()
    work.go.set()
    first.result()
    return f"the {kind(second.result())} value"
