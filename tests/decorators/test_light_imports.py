"""What is loaded by programs that use plain functions, and what comes later when somebody needs it."""

import importlib
import itertools
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

import singleflight
from singleflight.telemetry import events, kinds
from singleflight.telemetry.counters import has_global_lock

ROOT = Path(__file__).parents[2]
ABSENT = {
    *("asyncio", "_asyncio", "socket", "ssl", "selectors", "subprocess", "concurrent", "email", "zipfile"),
    *("importlib.metadata", "csv", "json", "urllib", "sysconfig", "wrapt.decorators"),
    *("logging", "datetime", "numbers", "textwrap", "singleflight.core.answers"),
    *("singleflight.drivers.tasks", "singleflight.drivers.bulk_tasks", "singleflight.locks.task_waiters"),
    *("singleflight.telemetry.events", "singleflight.decorator.loading", "singleflight.core.batch"),
}


def run(program):
    """The words that a program prints that another interpreter runs."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


PLAIN = """
    import sys, threading, time
    from singleflight import FlightDeadlock, KeyedLocks, single_flight_ttl

    @single_flight_ttl(ttl=60, maxsize=100)
    def double(x):
        return 2 * x

    class Desk:
        @single_flight_ttl(ttl=60)
        def price(self, symbol):
            return len(symbol)

        @single_flight_ttl(ttl=60)
        @classmethod
        def rate(cls, currency):
            return len(currency)

    def in_threads(run):
        barrier = threading.Barrier(8)
        def start():
            barrier.wait(30)
            run()
        threads = [threading.Thread(target=start, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()

    inside, go_on = threading.Event(), threading.Event()

    @single_flight_ttl(ttl=60)
    def slow(x):
        inside.set()
        assert go_on.wait(30)
        return x

    leader = threading.Thread(target=slow, args=(1,), daemon=True)
    leader.start()
    assert inside.wait(30)
    followers = [threading.Thread(target=slow, args=(1,), daemon=True) for _ in range(4)]
    for follower in followers:
        follower.start()
    while slow.flights()[0].followers < 4:
        time.sleep(0.001)
    go_on.set()
    for thread in (leader, *followers):
        thread.join(30)
    assert slow.stats().waits == 4

    @single_flight_ttl(ttl=60)
    def round_and_round(x):
        return round_and_round(x)

    try:
        round_and_round(1)
    except FlightDeadlock:
        pass

    assert double(1) == double(1) == 2 and double.refresh(1) == 2
    double.put(2, 7)
    assert double(7) == 2
    desk = Desk()
    assert desk.price("ASML") == desk.price("ASML") == 4 and Desk.rate("EUR") == 3
    in_threads(lambda: [double(x) for x in range(200)])
    in_threads(lambda: desk.price("AAPL"))
    assert double.invalidate(199)
    assert desk.price.invalidate("ASML")
    str(double.explain(1)), double.stats(), double.flights(), double.entry(1), double.cache_info()
    locks = KeyedLocks()
    def locked():
        with locks("a", "b"):
            pass
    in_threads(locked)
    print(*sys.modules)
"""


def test_importing_loads_little():
    """The decorator and the errors; what a decorated function is made of comes with the first one."""
    loaded = set(run("import sys, singleflight; print(*sys.modules)"))
    assert not {"inspect", "dataclasses", "threading", "wrapt", "singleflight.decorator.function"} & loaded
    assert not {name for name in loaded if name in ABSENT or name.partition(".")[0] in ABSENT}


def test_plain_functions_load_little():
    """Hits, misses, herds, methods, refusals, the control methods and keyed locks: no asyncio, no events."""
    loaded = set(run(PLAIN))
    assert "singleflight.drivers.threads" in loaded
    assert not {name for name in loaded if name in ABSENT or name.partition(".")[0] in ABSENT}


def test_a_pool_of_threads_needs_no_event_loop():
    """Callers on an executor's threads are asked who waits for them, and asyncio is not loaded for that."""
    assert run("""
        import sys, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from singleflight import single_flight_ttl

        inside, go_on = threading.Event(), threading.Event()

        @single_flight_ttl(ttl=60)
        def slow(x):
            inside.set()
            assert go_on.wait(30)
            return x

        with ThreadPoolExecutor(5) as pool:
            jobs = [pool.submit(slow, 1)]
            assert inside.wait(30)
            jobs += [pool.submit(slow, 1) for _ in range(4)]
            while slow.flights()[0].followers < 4:
                time.sleep(0.001)
            go_on.set()
            print(*(job.result(30) for job in jobs), "asyncio" in sys.modules)
        """) == ["1"] * 5 + ["False"]


@pytest.mark.parametrize("first", ["import asyncio", ""], ids=["before", "after"])
def test_asyncio_may_come_later(first):
    """Coroutine functions, locks and plain functions in tasks work whenever asyncio is imported."""
    assert run(f"""
        {first or "pass"}
        from singleflight import FlightDeadlock, KeyedLocks, single_flight_ttl

        @single_flight_ttl(ttl=60)
        def plain(x):
            if x == 3:
                return plain(x)
            return x

        locks = KeyedLocks()
        with locks("a"):
            print(plain(1))

        import asyncio

        @single_flight_ttl(ttl=60)
        async def fetch(x):
            await asyncio.sleep(0)
            return x

        async def main():
            print(*await asyncio.gather(*(fetch(1) for _ in range(5))), plain(2))
            print(fetch.stats().waits)
            async with locks("a"):
                print("locked")
                try:
                    async with locks("a", timeout=20):
                        print("twice")
                except FlightDeadlock:
                    print("refused")
            try:
                plain(3)
            except FlightDeadlock:
                print("refused")

        asyncio.run(asyncio.wait_for(main(), 30))
        """) == ["1", "1", "1", "1", "1", "1", "2", "4", "locked", "refused", "refused"]


def test_a_loop_is_not_looked_for_in_half_an_asyncio():
    """While another thread imports asyncio, calls go on, and the loop is found once it is there."""
    assert (
        run("""
        import sys, threading
        from importlib.abc import Loader, MetaPathFinder
        from importlib.machinery import PathFinder
        from singleflight import single_flight_ttl
        from singleflight.locks.waiters import current_actor

        @single_flight_ttl(ttl=60)
        def plain(x):
            return x

        seen = []

        class Between(MetaPathFinder):
            # Calls in the middle of the import, once for each of its modules.
            def find_spec(self, name, path, target=None):
                if name.startswith(("asyncio", "_asyncio")):
                    asked = threading.Thread(target=lambda: seen.append((plain(name), current_actor())))
                    asked.start()
                    asked.join(30)
                    assert not asked.is_alive()
                return None

        sys.meta_path.insert(0, Between())
        import asyncio

        async def main():
            return current_actor() is asyncio.current_task()

        print(len(seen) > 10, all(type(actor) is int for _, actor in seen), asyncio.run(main()))
        """)
        == ["True"] * 3
    )


@pytest.mark.parametrize("first", ["singleflight", "wrapt"])
def test_there_is_one_wrapt(first):
    """Imported before or after the library, `wrapt` has all its names, and its classes are ours."""
    assert run(f"""
        import {first}
        import singleflight, wrapt
        import wrapt.wrappers
        from wrapt import decorator
        import importlib

        @singleflight.single_flight_ttl(ttl=60)
        def double(x):
            return 2 * x

        @decorator
        def traced(wrapped, instance, args, kwargs):
            return wrapped(*args, **kwargs)

        names = {{*wrapt.__all__}}
        print(names <= set(dir(wrapt)), all(hasattr(wrapt, name) for name in names))
        print(isinstance(double, wrapt.FunctionWrapper), isinstance(double, wrapt.BaseObjectProxy))
        print(type(wrapt).__name__, importlib.import_module("wrapt") is wrapt, traced(double)(2))
        print(hasattr(wrapt, "nonsense"), wrapt.wrappers is importlib.import_module("wrapt.wrappers"))
        """) == ["True", "True", "True", "True", "module", "True", "4", "False", "True"]


def test_wrapt_runs_once_for_many_threads():
    """Threads that look into wrapt at the same time all find it whole, also what others have set in it."""
    assert run("""
        import sys, threading
        from singleflight import SingleFlightFunction
        import wrapt
        assert "wrapt.decorators" not in sys.modules
        wrapt.mine = found = []
        barrier = threading.Barrier(8)

        def look():
            barrier.wait(30)
            found.append((wrapt.decorator, wrapt.__version__, wrapt.lru_cache))

        threads = [threading.Thread(target=look, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        print(len(found), len(set(found)), wrapt.mine is found, type(wrapt).__name__)
        """) == ["8", "1", "True", "module"]


def test_a_wrapt_that_cannot_run_says_so_each_time():
    """An error of the package's own code reaches whoever asked, who may ask again."""
    assert run("""
        import sys
        from singleflight import SingleFlightFunction
        import wrapt
        sys.modules["wrapt.caching"] = None
        for _ in range(2):
            try:
                wrapt.decorator
            except ImportError as error:
                print("refused")
        del sys.modules["wrapt.caching"]
        print(callable(wrapt.decorator))
        """) == ["refused", "refused", "True"]


@pytest.mark.parametrize("name", singleflight.__all__)
def test_late_names_are_like_any_other(name):
    """What is loaded when it is asked for is the same whichever way one gets it."""
    found = getattr(singleflight, name)
    places = [place for place, names in singleflight._LATE.items() if name in names]
    assert all(getattr(importlib.import_module(f"singleflight.{place}"), name) is found for place in places)
    assert name in dir(singleflight)


def test_late_names_can_be_imported():
    """By name, and with all the others."""
    assert run("""
        from singleflight import Event, Stats
        from singleflight import *
        print(Event.__name__, Stats.__name__, LoggingListener.__name__)
        """) == ["Event", "Stats", "LoggingListener"]


def test_a_name_that_there_is_not():
    """A misspelt name raises what it raises for any module."""
    with pytest.raises(AttributeError, match="module 'singleflight' has no attribute 'nonsense'"):
        _ = singleflight.nonsense


def test_the_kinds_are_those_of_the_events():
    """What is known of events without their classes is what the classes say."""
    assert {kind.kind for kind in events.Event.__subclasses__()} == kinds.ALL_KINDS == {*events.BY_KIND}


def test_events_come_with_whoever_wants_them():
    """A log line at DEBUG is the first thing that needs an event's class."""
    assert run("""
        import io, logging, sys
        from singleflight import single_flight_ttl

        @single_flight_ttl(ttl=60, name="double")
        def double(x):
            return 2 * x

        double(1)
        print("singleflight.telemetry.events" in sys.modules)
        logging.basicConfig(stream=(lines := io.StringIO()), level=logging.DEBUG, format="%(message)s")
        double(2)
        print("singleflight.telemetry.events" in sys.modules, *lines.getvalue().split()[:2])
        """) == ["False", "True", "double", "fetch"]


def test_the_lock_of_the_interpreter():
    """The build is told from the interpreter's version, as `sysconfig` has it."""
    assert has_global_lock() is not bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def test_a_pool_that_cannot_begin():
    """While the interpreter shuts down nothing is renewed in the background, and the caller does it."""
    assert run("""
        import atexit, threading
        from singleflight import single_flight_ttl
        from singleflight.testing import FakeClock

        clock = FakeClock()

        @single_flight_ttl(ttl=10, grace=10, timer=clock)
        def now():
            return clock()

        now()
        clock.advance(15)
        atexit.register(lambda: print(now()))
        """) == ["15.0"]


DEBUGGED = """
    import sys
    from singleflight import single_flight_ttl

    @single_flight_ttl(ttl=60)
    def double(x):
        return 2 * x

    double(1)
    assert "logging" not in sys.modules
    import logging

    double(2)
    logger = logging.getLogger("singleflight")
    print([type(handler).__name__ for handler in logger.handlers])
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s:%(message)s")
    double(3)
    logger.setLevel(logging.WARNING)
    double(4)
    print([key for key in (1, 2, 3, 4) if double.entry(key)])
"""


def test_debug_lines_are_written_once_a_program_has_logging():
    """Nobody can ask for them before; from then on the logger's level decides at each call."""
    words = run(DEBUGGED)
    assert words[0] == "['NullHandler']"
    told = [kind for word, kind in itertools.pairwise(words) if word.startswith("singleflight:")]
    assert told == ["fetch", "land"]
    assert words[-4:] == ["[1,", "2,", "3,", "4]"]


FAILING = """
    import sys
    from singleflight import single_flight_ttl

    def listen(event):
        raise ValueError("no")

    @single_flight_ttl(ttl=60, listener=listen)
    def double(x):
        return 2 * x

    print(double(1), "logging" in sys.modules)
    import logging
    print([type(handler).__name__ for handler in logging.getLogger("singleflight").handlers])
"""


def test_what_is_to_be_said_is_said_by_the_logger():
    """It is imported for that; without a configuration nothing is printed."""
    assert run(FAILING) == ["2", "True", "['NullHandler']"]


def test_what_logs_events_brings_the_same_logger():
    """With the handler that keeps warnings from being printed where nothing is configured."""
    program = """
        import sys
        from singleflight import LoggingListener

        assert "logging" in sys.modules
        import logging
        print([type(handler).__name__ for handler in logging.getLogger("singleflight").handlers])
    """
    assert run(program) == ["['NullHandler']"]
