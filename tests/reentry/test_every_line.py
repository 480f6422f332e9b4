"""What the collector, a signal handler or Ctrl-C can do at every line of the library."""

import contextlib
import gc
import linecache
import signal
import sys
import threading
import weakref
from itertools import product
from pathlib import Path

import pytest

import singleflight
from singleflight import FlightDeadlock, KeyedLocks, single_flight_ttl
from singleflight.testing import Recorder

from ..sampling import one_in

HOME = str(Path(singleflight.__file__).parent)
WATCHED = (
    "coordinator",
    "transitions",
    "landing",
    "leaving",
    "store",
    "expiry",
    "policy",
    "threads",
    "slots",
    "keyed",
    "table",
    "flight",
    "controls",
)


class AtLine:
    """Runs `strike` at the n-th line that this thread executes in the library, once."""

    def __init__(self, number, strike):
        self.left, self.strike, self.struck = number, strike, False

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def trace(self, frame, event, argument):
        path = frame.f_code.co_filename
        if not path.startswith(HOME) or Path(path).stem not in WATCHED:
            return None
        return self.local

    def local(self, frame, event, argument):
        # The line of a `with` comes again when the block is left, before the lock is released. No signal is
        # handled there: the interpreter looks for them at calls and jumps.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and not self.struck and not line.startswith("with "):
            self.left -= 1
            if self.left < 0:
                self.struck = True
                sys.settrace(None)
                frame.f_trace = None
                self.strike()
        return self.local


def finish(run):
    """Run it in a thread of its own that must end; what it raised is raised here."""
    raised = []

    def guarded():
        try:
            run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "hangs"
    if raised:
        raise raised[0]


def make():
    calls = []

    @single_flight_ttl(ttl=60, maxsize=2)
    def fetch(key):
        calls.append(key)
        return key

    for key in ("old", "older"):
        fetch(key)
    return fetch


def consistent(fetch):
    """Everything works as if nothing had happened."""

    def check():
        for key in ("old", "A", "B", "C", "A"):
            assert fetch(key) == key
        assert fetch.flights() == ()
        stats = fetch.stats()
        assert stats.locks == stats.idle_locks
        assert stats.entries <= 2
        assert fetch.locks.waiting(("A",)) == 0

    finish(check)


def lines_of(run):
    """How many lines of the library it executes."""
    counter = AtLine(10**9, None)
    with counter:
        run()
    return 10**9 - counter.left


STEPS = {
    "miss": lambda fetch: fetch("A"),
    "invalidate": lambda fetch: fetch.invalidate("old"),
    "put": lambda fetch: fetch.put("A", "A"),
    "refresh": lambda fetch: fetch.refresh("old"),
    "clear": lambda fetch: fetch.cache_clear(),
    "stats": lambda fetch: fetch.stats(),
    "where": lambda fetch: fetch.invalidate_where(lambda key: True),
    "lock": lambda fetch: take(fetch.locks),
}
INNER = ("miss", "invalidate", "put", "refresh", "stats", "where")


def take(locks):
    with locks(("L",), ("M",)):
        pass


@pytest.mark.parametrize(("step", "inner"), one_in(23, product(STEPS, INNER)))
def test_coming_back_at_any_line_does_not_hang(step, inner):
    """A finaliser or handler that uses the function at any line of any operation ends, and nothing breaks."""
    total = lines_of(lambda: STEPS[step](make()))
    for number in range(total):
        fetch = make()

        def strike(fetch=fetch):
            if inner == "miss":
                assert fetch("Z") == "Z"
            else:
                # Not the key of the outer refresh: asking for that again would rightly be refused.
                fetch.refresh("older") if inner == "refresh" else STEPS[inner](fetch)

        def run(number=number, fetch=fetch, strike=strike):
            with AtLine(number, strike):
                STEPS[step](fetch)

        finish(run)
        consistent(fetch)


@pytest.mark.parametrize("step", one_in(6, [step for step in STEPS if step != "lock"]))
def test_an_interrupt_at_any_line_leaves_the_key_free(step):
    """KeyboardInterrupt at any line of any operation: later calls work and no lock is left held."""

    def strike():
        raise KeyboardInterrupt

    total = lines_of(lambda: STEPS[step](make()))
    for number in range(total):
        fetch = make()

        def run(number=number, fetch=fetch):
            with AtLine(number, strike):
                STEPS[step](fetch)

        with contextlib.suppress(KeyboardInterrupt):
            finish(run)
        consistent(fetch)


def test_a_leader_interrupted_at_any_line_frees_its_followers(crowd, make_gate):
    """KeyboardInterrupt at any line of a landing: the followers get a value all the same."""

    def strike():
        raise KeyboardInterrupt

    for number in range(0, 90, 2):
        seen = Recorder()
        go = make_gate()
        first = [True]

        @single_flight_ttl(ttl=60, listener=seen)
        def fetch():
            if first:
                first.clear()
                go.pass_()
                at.__enter__()
                sys._getframe(1).f_trace = at.local
            return 1

        at = AtLine(number, strike)

        def lead():
            try:
                fetch()
            except KeyboardInterrupt:
                pass
            finally:
                at.__exit__()

        crowd.add(lead)
        seen.wait_for("fetch")
        crowd.add(fetch, count=3)
        seen.wait_for("wait", 3)
        go.set()
        assert crowd.join()[-3:] == [1, 1, 1]
        assert fetch.flights() == ()


def test_a_destructor_of_a_dropped_value_may_call(crowd):
    """Dropped values are destroyed outside the locks: their destructors may use the function."""
    seen = []

    class Value:
        def __init__(self, key):
            self.key = key

        def __del__(self):
            seen.append(self.key)
            if self.key < 100:
                fetch(self.key + 100)
                fetch.invalidate(self.key + 100)

    @single_flight_ttl(ttl=60, maxsize=1)
    def fetch(key):
        return Value(key)

    def run():
        for key in range(5):
            fetch(key)
        fetch.cache_clear()

    crowd.add(run)
    crowd.join()
    assert set(range(5)) <= set(seen)


def test_a_weak_reference_callback_may_call():
    """A callback run by the collector may use the function too."""

    class Node:
        pass

    results = []

    @single_flight_ttl(ttl=60)
    def fetch(key):
        gc.collect()
        return key

    node = Node()
    node.itself = node
    watch = weakref.ref(node, lambda _: results.append(fetch("from the callback")))
    del node
    finish(lambda: fetch("A"))
    assert results == ["from the callback"]
    assert watch() is None


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_a_signal_handler_may_call():
    """Handlers that interrupt calls again and again neither hang nor break anything."""
    handled = []

    @single_flight_ttl(ttl=60, maxsize=10)
    def fetch(key):
        return key

    def handler(number, frame):
        try:
            handled.append(fetch(len(handled) % 30))
        except FlightDeadlock:  # it interrupted the very fetch that it asks for
            handled.append(None)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        for number in range(30_000):
            assert fetch(number % 30) == number % 30
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled
    assert fetch.flights() == ()


def test_locks_cannot_be_taken_from_inside():
    """Taking a keyed lock at any line of an operation ends: with the lock, or with FlightDeadlock."""
    locks = KeyedLocks()

    def run():
        for number in range(120):
            fetch = make()

            def strike():
                try:
                    with locks("x"):
                        pass
                except FlightDeadlock:
                    pass

            with AtLine(number, strike):
                fetch("A")

    finish(run)
    assert len(locks) == locks.idle
