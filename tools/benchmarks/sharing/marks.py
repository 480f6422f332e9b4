"""What is promised of this library alone, each measured once: round trips, hits, faults, invalidation."""

from __future__ import annotations

import gc
import multiprocessing as mp
import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from math import inf
from statistics import median
from typing import Any, NamedTuple

from sharing.monitor import Monitor

VALUE = "x" * 64
PATIENCE = 60


class Mark(NamedTuple):
    what: str
    figure: str
    limit: str
    met: bool


def percentile(found: list[float], part: float) -> float:
    ordered = sorted(found)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def shared(url: str, body: Any, *, prefix: str, name: str = "marks", **terms: Any) -> tuple[Any, Any]:
    """A function with a store of its own, as another process would have it; and the store."""
    from singleflight import single_flight_ttl
    from singleflight.redis import RedisStore

    store = RedisStore(url, prefix=prefix, **terms)
    return single_flight_ttl(ttl=600, key=lambda key: key, maxsize=100_000, name=name, store=store)(
        body
    ), store


def round_trips(server: Any) -> Iterator[Mark]:
    """What a leader, a remote hit and a follower send."""
    go, entered = threading.Event(), threading.Event()

    def body(key):
        entered.set()
        assert key != "gated" or go.wait(PATIENCE)
        return VALUE

    (a, at_a), (b, at_b) = (shared(server.url, body, prefix="trips", timeout=2) for _ in range(2))
    a("warm"), b("warm")
    with Monitor(server.url) as monitor:
        times = [time.time()]
        a("key")
        times.append(time.time())
        b("key")
        times.append(time.time())
        entered.clear()
        leader = threading.Thread(target=a, args=("gated",))
        leader.start()
        assert entered.wait(PATIENCE)
        follower = threading.Thread(target=b, args=("gated",))
        follower.start()
        while not any(flight.kind == "shared" for flight in b.flights()):
            time.sleep(0.001)
        go.set()
        leader.join(PATIENCE), follower.join(PATIENCE)
        times.append(time.time())
    sent = [[command for command in monitor.commands(*span) if command != "PING"] for span in pairwise(times)]
    for each in at_a, at_b:
        each.close()
    yield Mark("round trips of a leader", str(len(sent[0])), "2", len(sent[0]) == 2)
    yield Mark("round trips of a remote hit", str(len(sent[1])), "1", len(sent[1]) == 1)
    both = len(sent[2])
    yield Mark("round trips of a leader and its follower", str(both), "3", both == 3)


def near_hit(server: Any, rounds: int) -> Iterator[Mark]:
    """A hit of a function with a store, beside the same function without: the median of rounds that alternate."""
    from singleflight import single_flight_ttl

    with_store, store = shared(server.url, lambda key: VALUE, prefix="near", timeout=2)
    without = single_flight_ttl(ttl=600, key=lambda key: key, maxsize=100_000)(lambda key: VALUE)
    spent: dict[Any, list[float]] = {with_store: [], without: []}
    for call in spent:
        call("ASML")
    gc.disable()
    for number in range(rounds):
        for call in list(spent)[:: 1 if number % 2 else -1]:  # who is first is slower
            began = time.perf_counter_ns()
            for _ in range(2000):
                call("ASML")
            spent[call].append((time.perf_counter_ns() - began) / 2000)
    gc.enable()
    store.close()
    ours, theirs = spent.values()
    ratio = median(mine / other for mine, other in zip(ours, theirs, strict=True))
    figure = f"{ratio:.3f} ({median(ours):.0f} ns, {median(theirs):.0f} ns)"
    yield Mark("a near hit, by one without `store=`", figure, "1.03", ratio <= 1.03)


def remote_hit(server: Any, size: int) -> Iterator[Mark]:
    """A call that finds another process's value, beside a GET of a bare client, key by key."""
    import redis

    (a, at_a), (b, at_b) = (
        shared(server.url, lambda key: VALUE, prefix="remote", timeout=2) for _ in range(2)
    )
    bare = redis.Redis.from_url(server.url, protocol=2)
    b("warm")
    for number in range(size):
        a(f"key-{number}")
        bare.set(f"bare-{number}", VALUE, ex=600)
    ours, theirs = [], []
    for number in range(size):
        key, name = f"key-{number}", f"bare-{number}"
        began = time.perf_counter()
        b(key)
        between = time.perf_counter()
        bare.get(name)
        theirs.append(time.perf_counter() - between)
        ours.append(between - began)
    assert b.stats().shared_hits >= size, b.stats()
    for each in at_a, at_b:
        each.close()
    ratio = median(ours) / median(theirs)
    figure = f"{ratio:.2f} ({median(ours) * 1e6:.0f} µs, {median(theirs) * 1e6:.0f} µs)"
    yield Mark("a remote hit, by bare GETs", figure, "2.6", ratio <= 2.6)


def dead_server(make_server: Any, rounds: int) -> Iterator[Mark]:
    """The first call after the server was killed, or stands still; then calls of cold keys, beside others."""
    from singleflight import single_flight_ttl

    for how in ("kill", "pause"):
        server = make_server()
        call, store = shared(server.url, lambda key: VALUE, prefix="dead")
        plain = single_flight_ttl(ttl=600, key=lambda key: key, maxsize=100_000)(lambda key: VALUE)
        call("warm")
        getattr(server, how)()
        began = time.perf_counter()
        call("first")
        first = time.perf_counter() - began
        best = {call: (inf, inf), plain: (inf, inf)}
        for number in range(rounds):
            for each in best:
                best[each] = min(best[each], _cold(each, number))
        if how == "pause":
            server.resume()
        store.close()
        server.close()
        told = {"kill": "killed", "pause": "standing still"}[how]
        limit = "220 ms"
        yield Mark(f"server {told}: the first call", f"{first * 1e3:.1f} ms", limit, first < 0.22)
        (ours, our_middle), (theirs, middle) = best.values()
        more = (ours - theirs) * 1e6
        figure = f"{more:.0f} µs (p50 {our_middle * 1e6:.0f} µs, {middle * 1e6:.0f} µs)"
        what = f"server {told}: p99 of later calls, by one without `store=`, best of {rounds} rounds"
        yield Mark(what, figure, "50 µs", more < 50)


def _cold(call: Any, round_: int) -> tuple[float, float]:
    """The p99 and p50 of calls of keys that nobody has asked for."""
    spent = []
    for number in range(100):
        key = f"key-{round_}-{number}"
        began = time.perf_counter()
        call(key)
        spent.append(time.perf_counter() - began)
    return percentile(spent, 0.99), median(spent)


def killed_leader(server: Any, times: int, lease: float = 1.0) -> Iterator[Mark]:
    """How long after a process was killed another one that waits for it calls."""
    context = mp.get_context("spawn")
    gaps = []
    for number in range(times):
        ours, theirs = context.Pipe()
        leader = context.Process(target=_lead, args=(theirs, server.url, number, lease), daemon=True)
        leader.start()
        assert ours.poll(PATIENCE)
        ours.recv()
        called: list[float] = []
        call, store = shared(server.url, _noting(called), prefix="killed", lease=lease, timeout=2)
        follower = threading.Thread(target=call, args=(f"key-{number}",))
        follower.start()
        while not any(flight.kind == "shared" for flight in call.flights()):
            time.sleep(0.001)
        time.sleep(lease * number / times)  # in another part of its lease each time
        leader.kill()
        killed = time.monotonic()
        follower.join(PATIENCE)
        gaps.append(called[0] - killed)
        store.close()
    worst = max(gaps) / lease
    figure = f"{worst:.2f} leases (median {median(gaps) / lease:.2f}, {times} times)"
    yield Mark("a killed leader is replaced within", figure, "1.2 leases", worst <= 1.2)


def _noting(called: list[float]) -> Any:
    return lambda key: called.append(time.monotonic())


def _lead(pipe: Any, url: str, number: int, lease: float) -> None:
    def body(key):
        pipe.send(os.getpid())
        time.sleep(PATIENCE)

    shared(url, body, prefix="killed", lease=lease, timeout=2)[0](f"key-{number}")


def invalidation(server: Any, seconds: float) -> Iterator[Mark]:
    """How long after `invalidate` has returned a call in another process still returned an old value."""
    import redis

    for drops in (False, True):
        context = mp.get_context("spawn")
        truth = context.Value("q", 0)
        prefix = f"bus-{drops}"
        readers, pipes = [], []
        for _ in range(3):
            ours, theirs = context.Pipe()
            readers.append(
                context.Process(target=_read, args=(theirs, server.url, prefix, truth), daemon=True)
            )
            readers[-1].start()
            pipes.append(ours)
        for pipe in pipes:
            assert pipe.poll(PATIENCE)
            pipe.recv()
        call, store = shared(server.url, lambda key: truth.value, prefix=prefix, timeout=2)
        direct = redis.Redis.from_url(server.url)
        returned: dict[int, float] = {}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if drops and truth.value % 20 == 0:
                direct.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            before = truth.value
            truth.value = before + 1
            call.invalidate("key")
            returned[before] = time.monotonic()
            time.sleep(0.01)
        reads, late = 0, []
        for pipe in pipes:
            pipe.send(None)
            assert pipe.poll(PATIENCE)
            latest, number = pipe.recv()
            reads += number
            late += [at - returned[value] for value, at in latest.items() if value in returned]
        for process in readers:
            process.kill()
        store.close()
        worst = max(0.0, *late)
        limit = 0.3 if drops else 0.05
        figure = f"{worst * 1e3:.1f} ms ({len(returned)} times, {reads} reads)"
        what = "the bus cut every 20 times" if drops else "by three other processes"
        yield Mark(
            f"an old value after `invalidate`, {what}", figure, f"{limit * 1e3:.0f} ms", worst <= limit
        )


def _read(pipe: Any, url: str, prefix: str, truth: Any) -> None:
    call, _ = shared(url, lambda key: truth.value, prefix=prefix, timeout=2)
    latest: dict[int, float] = {}
    reads = 0
    call("key")
    pipe.send(None)
    while not pipe.poll():
        for _ in range(50):
            began = time.monotonic()
            latest[call("key")] = began
            reads += 1
            time.sleep(0.0002)
    pipe.send((latest, reads))


def measured(server: Any, make_server: Any, quick: bool) -> Iterator[Mark]:
    """All of them, one after another."""
    yield from round_trips(server)
    yield from near_hit(server, 30 if quick else 150)
    yield from remote_hit(server, 500 if quick else 3000)
    yield from dead_server(make_server, 30 if quick else 150)
    yield from killed_leader(server, 2 if quick else 5)
    yield from invalidation(server, 2 if quick else 6)
