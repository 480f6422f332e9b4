"""The locks of the library's sections are re-entrant locks that `with` enters without running Python code."""

import sys
import threading
from types import BuiltinMethodType

import pytest

from singleflight.locks.mutex import new_lock


def test_it_is_a_re_entrant_lock():
    """Its thread may enter again, others may not until it has left as often; an exception leaves, too."""
    lock = new_lock()
    others = []

    def try_it():
        others.append(lock.acquire(blocking=False))
        if others[-1]:
            lock.release()

    def another():
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        return others.pop()

    with lock:
        with lock:
            assert lock._is_owned()
        assert lock._is_owned()
        assert not another()
    assert not lock._is_owned()
    assert another()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert another()


def test_locks_are_apart():
    """Entering one enters no other."""
    one, two = new_lock(), new_lock()
    with one:
        assert one._is_owned()
        assert not two._is_owned()


@pytest.mark.skipif(sys.version_info[:2] == (3, 14), reason="see `tests/reentry/test_signals.py`")
@pytest.mark.parametrize("name", ["__enter__", "__exit__"])
def test_no_interrupt_comes_between(name):
    """What `with` calls is in C, where no signal handler runs between taking the lock and being inside."""
    assert isinstance(getattr(type(new_lock()), name), BuiltinMethodType)
