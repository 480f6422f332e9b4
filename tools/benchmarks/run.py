"""Time ratios against peers, in one process, in interleaved rounds; the best of many short rounds counts.

    python tools/benchmarks/run.py [--quick] [--only hits|threads|misses|herd|tasks|gather|memory|startup|observed|...]
    python tools/benchmarks/run.py [--quick] --page docs/peers.md

Each peer does the same work with the same key function. Nothing is asserted: machines are shared and noisy.
Peers that are not installed (the extra `bench` has them) are left out, with a line saying so.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import count
from typing import Any

import cachetools
import observed
from comparing import page

import singleflight
from singleflight import single_flight_ttl
from singleflight.decorator import accelerate

try:
    import cachebox
except ImportError:
    cachebox = None
    print("cachebox is not installed: left out")
try:
    import async_lru
except ImportError:
    async_lru = None
    print("async-lru is not installed: left out")
try:
    import moka_py
except ImportError:
    moka_py = None
    print("moka-py is not installed: left out")

OURS = "singleflight"
PURE = "singleflight, hits in pure Python"
ALL_ON = "singleflight, everything on"
EVERYTHING: dict[str, Any] = {"grace": 600, "refresh_ahead": 0.9, "jitter": 0.1, "failure_ttl": 5}


def key(symbol, price_type="bid"):
    return symbol, price_type


def method_key(self, symbol, price_type="bid"):
    return self.id, symbol, price_type


def pure(**options):
    """The decorator as it is where the hit path in C was not built."""

    def decorate(function):
        built, accelerate.accelerated = accelerate.accelerated, False
        try:
            return single_flight_ttl(**options)(function)
        finally:
            accelerate.accelerated = built

    return decorate


def best_of(candidates: dict[str, Callable[[int], Any]], rounds: int, size: int) -> dict[str, float]:
    """Nanoseconds per call of each candidate: the best of its rounds, all candidates taking turns."""
    best = dict.fromkeys(candidates, float("inf"))
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in candidates.items():
                began = time.perf_counter_ns()
                run(size)
                best[name] = min(best[name], (time.perf_counter_ns() - began) / size)
            gc.collect(0)
    finally:
        gc.enable()
    return best


def table(title: str, best: dict[str, float], targets: dict[str, float] | None = None) -> None:
    """One line for each candidate; the ratio is ours to theirs."""
    print(f"\n{title}")
    for name, nanoseconds in best.items():
        ratio = best[OURS] / nanoseconds
        target = (targets or {}).get(name)
        verdict = "" if target is None else f"  target {target:g}: {'met' if ratio <= target else 'missed'}"
        print(f"  {name:34} {nanoseconds:9.0f} ns   ours/theirs {ratio:5.2f}{verdict}")


def repeated(call: Callable[..., Any]) -> Callable[[int], None]:
    """A loop of `call("ASML")`, written out: `call(*args)` would slow only those that CPython can inline."""

    def run(size: int) -> None:
        for _ in range(size):
            call("ASML")

    return run


def named(call: Callable[..., Any]) -> Callable[[int], None]:
    """The same of `call(symbol="ASML")`."""

    def run(size: int) -> None:
        for _ in range(size):
            call(symbol="ASML")

    return run


def by_hand(function):
    """The same logic with a dictionary, a lock for it, and one lock for each key."""
    values, locks, guard = {}, {}, threading.Lock()

    def call(symbol, price_type="bid"):
        wanted = key(symbol, price_type)
        found = values.get(wanted)
        if found is not None and time.monotonic() < found[1]:
            return found[0]
        with guard:
            lock = locks.setdefault(wanted, threading.Lock())
        with lock:
            found = values.get(wanted)
            if found is None or time.monotonic() >= found[1]:
                found = values[wanted] = function(symbol, price_type), time.monotonic() + 60
        return found[0]

    return call


def function(symbol, price_type="bid"):
    return 984.75


def same(symbol):
    return symbol


def single_hits(rounds: int, size: int) -> None:
    """One argument, by place and by name; whoever takes a key function has the same one."""

    def one(symbol):
        return 984.75

    candidates = {
        OURS: single_flight_ttl(key=same, ttl=60)(one),
        PURE: pure(key=same, ttl=60)(one),
        'singleflight, key="symbol"': single_flight_ttl(key="symbol", ttl=60)(one),
        "functools.lru_cache (no ttl)": lru_cache(1024)(one),
    }
    if cachebox:
        candidates["cachebox"] = cachebox.cached(cachebox.TTLCache(1024, 60), key_maker=same)(one)
    if moka_py:
        candidates["moka-py (its own key)"] = moka_py.cached(maxsize=1024, ttl=60)(one)
    targets = {"functools.lru_cache (no ttl)": 2.0, "cachebox": 0.35}
    for title, form, marks in (
        ("by place", repeated, targets),
        ("by name", named, {"functools.lru_cache (no ttl)": 1.0}),
    ):
        for call in candidates.values():
            form(call)(1)
        best = best_of({name: form(call) for name, call in candidates.items()}, rounds, size)
        table(
            f"A hit on a function of one argument, {title}", best, marks if singleflight.accelerated else None
        )


def hits(rounds: int, size: int) -> None:
    timed = cachetools.TTLCache
    candidates = {
        OURS: single_flight_ttl(key=key, ttl=60)(function),
        PURE: pure(key=key, ttl=60)(function),
        ALL_ON: single_flight_ttl(key=key, ttl=60, **EVERYTHING)(function),
        "cachetools lock=": cachetools.cached(timed(1024, 60), key, lock=threading.Lock(), info=True)(
            function
        ),
        "cachetools condition=": cachetools.cached(
            timed(1024, 60), key, condition=threading.Condition(), info=True
        )(function),
        "by hand, two locks and a dict": by_hand(function),
        "functools.lru_cache (no ttl)": lru_cache(1024)(function),
    }
    if cachebox:
        # As it comes it looks at each value for something to copy; without that it does the same work as ours.
        for name, extra in (("cachebox", {}), ("cachebox postprocess=None", {"postprocess": None})):
            cache = cachebox.TTLCache(1024, 60)
            candidates[name] = cachebox.cached(cache, key_maker=key, **extra)(function)
    if moka_py:
        candidates["moka-py (its own key)"] = moka_py.cached(maxsize=1024, ttl=60)(function)
    for call in candidates.values():
        call("ASML")
    best = best_of({name: repeated(call) for name, call in candidates.items()}, rounds, size)
    table("A hit on a function", best, {"cachebox": 0.35 if singleflight.accelerated else 0.6})

    class Account:
        id = 1
        ours = single_flight_ttl(key=method_key, ttl=60)(lambda self, symbol, price_type="bid": 984.75)
        pure = pure(key=method_key, ttl=60)(lambda self, symbol, price_type="bid": 984.75)
        all_on = single_flight_ttl(key=method_key, ttl=60, **EVERYTHING)(
            lambda self, symbol, price_type="bid": 984.75
        )
        tools = cachetools.cachedmethod(lambda self: self.cache, key=method_key, lock=lambda self: self.lock)(
            lambda self, symbol, price_type="bid": 984.75
        )
        if cachebox:
            box = cachebox.cached(cachebox.TTLCache(1024, 60), key_maker=method_key)(
                lambda self, symbol, price_type="bid": 984.75
            )
            bare = cachebox.cached(cachebox.TTLCache(1024, 60), key_maker=method_key, postprocess=None)(
                lambda self, symbol, price_type="bid": 984.75
            )

        def __init__(self):
            self.cache, self.lock = timed(1024, 60), threading.Lock()

    def attribute(name):
        account = Account()
        space: dict[str, Any] = {"account": account}
        exec(f"def run(size):\n for _ in range(size): account.{name}('ASML')", space)
        space["run"](1)
        return space["run"]

    methods = {
        OURS: attribute("ours"),
        PURE: attribute("pure"),
        ALL_ON: attribute("all_on"),
        "cachetools cachedmethod lock=": attribute("tools"),
    }
    if cachebox:
        methods["cachebox"] = attribute("box")
        methods["cachebox postprocess=None"] = attribute("bare")
    table(
        "A hit on a method",
        best_of(methods, rounds, size),
        {"cachebox": 0.4 if singleflight.accelerated else 1.05},
    )


def hits_of_threads(rounds: int, size: int) -> None:
    """Four threads read the same entries of one function at once: from their start to the end of the last."""

    def together(call):
        def run(size):
            start = threading.Barrier(5)

            def read():
                start.wait(30)
                for _ in range(size // 4):
                    call("ASML")

            threads = [threading.Thread(target=read) for _ in range(4)]
            for thread in threads:
                thread.start()
            start.wait(30)
            for thread in threads:
                thread.join(60)

        return run

    candidates = {
        OURS: single_flight_ttl(key=key, ttl=60)(function),
        PURE: pure(key=key, ttl=60)(function),
        "cachetools lock=": cachetools.cached(cachetools.TTLCache(1024, 60), key, lock=threading.Lock())(
            function
        ),
        "by hand, two locks and a dict": by_hand(function),
    }
    if cachebox:
        candidates["cachebox"] = cachebox.cached(cachebox.TTLCache(1024, 60), key_maker=key)(function)
    for call in candidates.values():
        call("ASML")
    best = best_of({name: together(call) for name, call in candidates.items()}, rounds, size)
    table(
        "A hit on a function, four threads at once, in total",
        best,
        {"cachebox": 0.35 if singleflight.accelerated else 0.66},
    )


async def coroutine_function(symbol, price_type="bid"):
    return 984.75


def coroutine_hits(rounds: int, size: int) -> None:
    """Within one event loop that runs all the time; each round is one task's loop of `await call("ASML")`."""
    loop = asyncio.new_event_loop()

    def awaited(call):
        async def many(size):
            for _ in range(size):
                await call("ASML")

        def run(size):
            loop.run_until_complete(many(size))

        run(1)
        return run

    candidates = {
        OURS: single_flight_ttl(key=key, ttl=60)(coroutine_function),
        PURE: pure(key=key, ttl=60)(coroutine_function),
        ALL_ON: single_flight_ttl(key=key, ttl=60, **EVERYTHING)(coroutine_function),
    }
    if async_lru:
        candidates["async-lru (its own key)"] = async_lru.alru_cache(1024, ttl=60)(coroutine_function)
    if cachebox:
        for name, extra in (("cachebox", {}), ("cachebox postprocess=None", {"postprocess": None})):
            cache = cachebox.TTLCache(1024, 60)
            candidates[name] = cachebox.cached(cache, key_maker=key, **extra)(coroutine_function)
    best = best_of({name: awaited(call) for name, call in candidates.items()}, rounds, size)
    table("A hit on a coroutine function", best, {"cachebox": 0.42 if singleflight.accelerated else 0.5})
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def misses(rounds: int, size: int) -> None:
    def one(number):
        return number

    def stream(call):
        numbers = count()

        def run(size):
            for _ in range(size):
                call(next(numbers))

        run(2000)
        return run

    condition = threading.Condition
    fixed = {
        OURS: single_flight_ttl(key=same, ttl=60)(one),
        "cachetools condition=": cachetools.cached(
            cachetools.TTLCache(1024, 60), same, condition=condition(), info=True
        )(one),
        "lru_cache (no ttl, nobody waits)": lru_cache(1024)(one),
    }
    if cachebox:
        fixed["cachebox"] = cachebox.cached(cachebox.TTLCache(1024, 60), key_maker=same)(one)
    if moka_py:
        fixed["moka-py (its own key)"] = moka_py.cached(maxsize=1024, ttl=60)(one)
    varying = {
        OURS: single_flight_ttl(key=same, ttl=lambda landing: 60)(one),
        "cachetools condition=": cachetools.cached(
            cachetools.TLRUCache(1024, lambda key, value, now: now + 60),
            same,
            condition=condition(),
            info=True,
        )(one),
    }
    for title, candidates in (("fixed", fixed), ("per-entry", varying)):
        best = best_of({name: stream(call) for name, call in candidates.items()}, rounds, size)
        table(f"A miss with eviction, {title} ttl", best, {"cachetools condition=": 0.85})


def _held(go, done):
    go.wait(30)
    done[0] = time.perf_counter()
    return 1


def herd(rounds: int) -> None:
    threading.stack_size(256 * 1024)
    best = float("inf")
    for _ in range(rounds):
        go, done = threading.Event(), [0.0]

        fetch = single_flight_ttl(ttl=60, key=lambda *_: 0)(partial(_held, go, done))
        free = []

        def lead(fetch=fetch, free=free):
            fetch()
            free.append(time.perf_counter())

        threads = [threading.Thread(target=lead)]
        threads[0].start()
        while not fetch.flights():
            time.sleep(0.001)
        threads += [threading.Thread(target=fetch) for _ in range(1000)]
        for thread in threads[1:]:
            thread.start()
        while fetch.flights()[0].followers < 1000:
            time.sleep(0.001)
        go.set()
        for thread in threads:
            thread.join(60)
        best = min(best, free[0] - done[0])
    threading.stack_size(0)
    print(
        f"\nA leader held up by 1000 followers: {best * 1e3:.3f} ms  target 0.2: {'met' if best <= 2e-4 else 'missed'}"
    )


def task_herd(rounds: int) -> None:
    """Tasks that ask for one cold key at once: from the first to the last that has its value."""

    async def slow(number):
        await asyncio.sleep(0.01)
        return number

    async def every(fetch, number, count):
        began = time.perf_counter_ns()
        await asyncio.gather(*[fetch(number) for _ in range(count)])
        return (time.perf_counter_ns() - began - 10_000_000) / count

    async def measured(candidates, count):
        best = dict.fromkeys(candidates, float("inf"))
        for number in range(rounds):
            for name, fetch in candidates.items():
                gc.collect()
                best[name] = min(best[name], await every(fetch, number, count))
        return best

    for size, target in ((5000, 0.55), (10_000, 0.8)):
        candidates = {OURS: single_flight_ttl(ttl=600)(slow)}
        if async_lru:
            candidates["async-lru"] = async_lru.alru_cache(1024, ttl=600)(slow)
        best = asyncio.run(measured(candidates, size))
        table(f"{size} tasks on one cold key, per task", best, {"async-lru": target})


WINDOW = LOADING = 0.1


def gathered(rounds: int, callers: int = 1000) -> None:
    """Single calls of as many keys, gathered: from the first one to the last that has its value.

    The floor is as many threads or tasks that wait at one lock or future for as long, and do nothing else.
    """
    sizes: list[int] = []

    def prepared():
        @single_flight_ttl(ttl=600, key=same)
        def price(symbol):
            raise NotImplementedError

        @price.twin
        async def aprice(symbol):
            raise NotImplementedError

        @price.bulk(gather=WINDOW)
        def load(symbols):
            sizes.append(len(symbols))
            time.sleep(LOADING)
            return dict.fromkeys(symbols, 984.75)

        @price.bulk(gather=WINDOW)
        async def load_in_task(symbols):
            sizes.append(len(symbols))
            await asyncio.sleep(LOADING)
            return dict.fromkeys(symbols, 984.75)

        return price, aprice

    def one_lock():
        turnstile, number = threading.Lock(), count()
        turnstile.acquire()

        def wait(_):
            if next(number) == 0:
                time.sleep(WINDOW + LOADING)
            else:
                turnstile.acquire()
            turnstile.release()

        return wait

    def one_future():
        ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(WINDOW + LOADING, ended.set_result, None)

        async def wait(_):
            await ended

        return wait

    def in_threads(call) -> float:
        go, begun, done = threading.Event(), [], []

        def ask(number):
            go.wait(30)
            begun.append(time.perf_counter())
            call(number)
            done.append(time.perf_counter())

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(callers)]
        for thread in threads:
            thread.start()
        go.set()
        for thread in threads:
            thread.join(60)
        return max(done) - min(begun)

    def in_tasks(make) -> float:
        async def ask():
            call = make()
            began = time.perf_counter()
            await asyncio.gather(*map(call, range(callers)))
            return time.perf_counter() - began

        return asyncio.run(ask())

    candidates = {
        "threads": lambda: in_threads(prepared()[0]),
        "threads, floor": lambda: in_threads(one_lock()),
        "tasks": lambda: in_tasks(lambda: prepared()[1]),
        "tasks, floor": lambda: in_tasks(one_future),
    }
    best: dict[str, tuple[float, int]] = {}
    threading.stack_size(256 * 1024)
    for _ in range(rounds):
        for title, measure in candidates.items():
            sizes.clear()
            gc.collect()
            best[title] = min(best.get(title, (float("inf"), 0)), (measure(), len(sizes)))
    threading.stack_size(0)
    print(f"\n{callers} single calls gathered: window {WINDOW * 1e3:.0f} ms, loader {LOADING * 1e3:.0f} ms")
    for title, (seconds, calls) in best.items():
        ratio = seconds / (WINDOW + LOADING)
        print(f"  {title:34} {seconds * 1e3:9.0f} ms   of window and loader {ratio:5.2f}", end="")
        verdict = f"  target 1.3: {'met' if ratio <= 1.3 and calls == 1 else 'missed'} ({calls} loads)"
        print("" if "floor" in title else verdict)


def memory(entries: int = 20_000) -> None:
    def used(decorate):
        gc.collect()
        tracemalloc.start()
        call = decorate(lambda number: float(number))
        for number in range(entries):
            call(number)
        size = tracemalloc.get_traced_memory()[0] / entries
        tracemalloc.stop()
        return size

    def same(number):
        return number

    theirs = used(cachetools.cached(cachetools.TTLCache(entries, 600), same, condition=threading.Condition()))
    print(f"\nMemory per entry, {entries} entries; cachetools {theirs:.0f} bytes")
    for title, options in (("default options", {}), ("max_idle_locks=1024", {"max_idle_locks": 1024})):
        ours = used(single_flight_ttl(key=same, ttl=600, maxsize=entries, **options))
        ratio = ours / theirs
        verdict = "met" if ratio <= 1.8 else "missed"
        print(f"  {title:34} {ours:9.0f} bytes   ours/theirs {ratio:5.2f}  target 1.8: {verdict}")


def startup() -> None:
    numbers = count()

    def decorated():
        number = next(numbers)
        space: dict[str, Any] = {}
        exec(f"def fetch_{number}(a_{number}, b_{number}=1): pass", space)
        began = time.perf_counter()
        single_flight_ttl(ttl=60)(space[f"fetch_{number}"])
        return time.perf_counter() - began

    decoration = min(decorated() for _ in range(200))
    code = (
        "import time; t = time.process_time(); import singleflight; imported = time.process_time() - t; "
        "singleflight.single_flight_ttl(ttl=60)(lambda x: x); all = time.process_time() - t; "
        "import sys; assert 'alpaca' not in sys.modules; print(imported, all)"
    )
    # With compiled files, as an installed package has them, whatever this environment says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        environment["PYTHONPYCACHEPREFIX"] = folder
        program = [sys.executable, "-c", code]
        runs = [
            subprocess.run(
                program, capture_output=True, text=True, check=True, env=environment
            ).stdout.split()
            for _ in range(20)
        ]
    imported, first = (min(map(float, times)) * 1e3 for times in zip(*runs, strict=True))
    print(f"\nDecoration: {decoration * 1e3:.2f} ms  target 1: {'met' if decoration < 1e-3 else 'missed'}")
    print(f"Import: {imported:.1f} ms, with a first function {first:.1f} ms, of the processor's time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument(
        "--only",
        choices=[
            "hits",
            "threads",
            "misses",
            "herd",
            "tasks",
            "gather",
            "memory",
            "startup",
            "observed",
            "peers",
            "behaviour",
        ],
    )
    parser.add_argument(
        "--page", metavar="FILE", help="compare with every library, and write that page of the docs"
    )
    parser.add_argument(
        "--stored",
        action="store_true",
        help="with --page: write it from the run that is stored, without another",
    )
    options = parser.parse_args()
    if options.page and options.stored:
        page.write_stored(options.page)
        return
    if options.page:
        page.write(options.page, options.quick)
        return
    rounds = 20 if options.quick else 150
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, cachetools {cachetools.__version__}",
        end="",
    )
    print(f", cachebox {cachebox.__version__}" if cachebox else "")
    print("Hits are served in C" if singleflight.accelerated else "Hits are served in Python")
    jobs: dict[str, Callable[[], object]] = {
        "hits": lambda: (single_hits(rounds, 2000), hits(rounds, 2000), coroutine_hits(rounds, 5000)),
        "threads": lambda: hits_of_threads(max(5, rounds // 5), 40_000),
        "misses": lambda: misses(rounds, 1000),
        "herd": lambda: herd(3 if options.quick else 8),
        "tasks": lambda: task_herd(5 if options.quick else 20),
        "gather": lambda: gathered(3 if options.quick else 8),
        "memory": memory,
        "startup": startup,
        "observed": lambda: observed.show(rounds),
        "peers": lambda: page.print_times(options.quick),
        "behaviour": page.print_behaviour,
    }
    for name, job in jobs.items():
        if options.only in (None, name):
            job()


if __name__ == "__main__":
    main()
