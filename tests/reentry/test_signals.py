"""Real signals whose handler raises: they strike where CPython handles them, and nowhere else."""

import signal

import pytest

from singleflight import single_flight_ttl
from singleflight.drivers import pool
from singleflight.locks.mutex import mutex, new_lock

from .test_every_line import finish

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")

STRIKES = 400


@pytest.fixture
def strikes():
    """Runs something again and again until a signal has struck it so many times; tells of each strike."""
    armed = []

    def handler(number, frame):
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    def go_on(use):
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.01)  # again: one signal may be seen late
        while armed:
            use()

    def strikes(use):
        for _ in range(STRIKES):
            armed.append(True)
            try:
                go_on(use)  # not in line: a loop's jump back may be outside of the `try`
            except KeyboardInterrupt:
                yield
            finally:
                armed.clear()

    before = signal.signal(signal.SIGALRM, handler)
    yield strikes
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_lock_that_is_entered(strikes):
    """A lock of a section is free after a `with` that an interrupt has struck."""
    lock = new_lock()

    def use():
        with lock:
            pass

    for _ in strikes(use):
        assert not lock._is_owned()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "step", ["miss", "bulk", "put", "invalidate", "refresh", "clear", "where", "stats", "bypass", "decorate"]
)
def test_sections_are_left(strikes, step):
    """Whatever an interrupt strikes, no section stays closed to others, and their calls get through."""

    @single_flight_ttl(ttl=60, maxsize=2)
    def fetch(key):
        return key

    several = fetch.bulk(lambda keys: {key: key for key in keys})
    numbers = iter(range(10**9))

    def bypassed():
        with fetch.bypass():
            pass

    use = {
        "miss": lambda: fetch(next(numbers)),
        "bulk": lambda: several([next(numbers), next(numbers)]),
        "put": lambda: fetch.put("value", 1),
        "invalidate": lambda: fetch.invalidate(1),
        "refresh": lambda: fetch.refresh(1),
        "clear": lambda: fetch.cache_clear(),
        "where": lambda: fetch.invalidate_where(lambda key: True),
        "stats": lambda: fetch.stats(),
        "bypass": bypassed,
        "decorate": lambda: single_flight_ttl(ttl=60)(use),
    }[step]
    memo = fetch._self_cache
    locks = [mutex, memo.store._lock, memo.switching, pool._pool.lock]
    for _ in strikes(use):
        assert not any(lock._is_owned() for lock in locks)
    finish(lambda: [fetch(key) for key in "ABC"])
