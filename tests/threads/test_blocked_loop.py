"""What a thread says when it holds up a loop."""

import asyncio
import warnings

import pytest

from singleflight import single_flight_ttl
from singleflight.common import patches
from singleflight.testing import Recorder


@pytest.mark.parametrize("debug", [True, False])
def test_a_thread_that_holds_up_its_loop_says_so_once(crowd, make_gate, debug):
    """In asyncio's debug mode a wait for another caller warns, once for a function; without it none does."""
    entered, gates, seen = [], {key: make_gate() for key in "ABC"}, Recorder()

    @single_flight_ttl(ttl=60, listener=seen, name="prices")
    def fetch(key):
        entered.append(key)
        gates[key].pass_()
        return key

    def release(key, number):
        seen.wait_for("wait", count=number)
        gates[key].set()

    async def main():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert [fetch(key) for key in "AB"] == ["A", "B"]
        return caught

    for number, key in enumerate("AB", 1):
        crowd.add(fetch, key)
        seen.wait_for("fetch", count=number)
        crowd.add(release, key, number)
    caught = [each for each in asyncio.run(main(), debug=debug) if each.category is RuntimeWarning]
    assert [str(each.message) for each in caught] == [
        "prices waits for another caller on the thread of an event loop, which stands still meanwhile; await "
        "a coroutine function there (see .twin), or call it in asyncio.to_thread"
    ] * debug
    crowd.join()


def test_a_thread_without_a_loop_says_nothing(crowd, make_gate):
    """It holds up nobody."""
    gate, seen = make_gate(), Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        gate.pass_()
        return 1

    crowd.add(fetch)
    seen.wait_for("fetch")

    def release():
        seen.wait_for("wait")
        gate.set()

    crowd.add(release)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetch() == 1
    crowd.join()


def test_who_waits_is_told_that_threading_was_patched_too_late(crowd, gate, monkeypatch):
    """Whatever it is that waits; a call that need not wait is not."""
    told, seen = [], Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        gate.pass_()

    monkeypatch.setattr(patches, "tell", told.append)
    crowd.add(fetch)
    seen.wait_for("fetch")
    assert told == []
    crowd.add(fetch)
    seen.wait_for("wait")
    gate.set()
    crowd.join()
    assert told == ["waiting"]
