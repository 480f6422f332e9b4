"""The locks of the library's sections are re-entrant locks that `with` enters without running Python code."""

import gc
import sys
import threading
from types import BuiltinMethodType

import pytest

from singleflight.locks import mutex as module
from singleflight.locks.mutex import ask_too, inside_other, new_lock, with_sections


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


@with_sections
class Owner:
    """Something with a lock of its own, like a store."""

    def __init__(self):
        self.owned = False
        self.asked = 0

    def is_owned(self):
        self.asked += 1
        return self.owned

    def section(self, within):
        self.owned = True
        try:
            return within()
        finally:
            self.owned = False

    def before_it(self, within):
        return within()


def test_who_is_inside_a_section_knows():
    """However deep; and not where the same object's method is only on its way there."""
    owner, other = Owner(), Owner()
    assert not inside_other()
    assert owner.section(inside_other)
    assert owner.section(lambda: other.before_it(lambda: inside_other()))
    assert not owner.before_it(inside_other)


def test_only_those_are_asked_that_the_call_came_through():
    """So the price does not grow with the number of decorated functions."""
    owners = [Owner() for _ in range(100)]
    owners[0].before_it(inside_other)
    assert [owner.asked for owner in owners] == [1] + [0] * 99


def test_those_are_asked_as_well_whose_lock_others_enter(monkeypatch):
    """No frame shows them. Those that are gone are let go of when the next one comes."""
    monkeypatch.setattr(module, "_owners", ())
    gone, lives = Owner(), Owner()
    ask_too(gone)
    ask_too(lives)
    lives.owned = True
    assert inside_other()
    lives.owned, gone.owned = False, True
    assert inside_other()
    del gone
    gc.collect()
    assert not inside_other()
    ask_too(another := Owner())
    assert [ref() for ref in module._owners] == [lives, another]
