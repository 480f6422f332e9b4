"""Ctrl-C wherever CPython looks for signals: at a function's entry and after each call."""

import threading
import time
from contextlib import suppress

import pytest

from singleflight import single_flight_ttl
from singleflight.core import coordinator
from singleflight.locks import keyed, waitgraph

from .checks import struck


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Whoever waits looks for itself, as it does once a second: an interrupt may cost it its wake-up."""
    for module in (coordinator, keyed):
        monkeypatch.setattr(module, "LOOK", 0.02)


def all_is_well(fetch, where):
    """The key is free for calls and for plain locks, nobody waits, and nothing is left in the registry."""

    def use():
        with fetch.locks("k"):
            pass
        with suppress(ValueError):  # its first execution, if the interrupt came before that
            fetch()

    assert not waitgraph.waiting, where
    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), where
    stats = fetch.stats()
    assert stats.locks == stats.idle_locks, where
    assert stats.in_flight == 0, where


@pytest.mark.parametrize("fails", [False, True])
def test_a_leader_may_be_interrupted_anywhere(fails):
    """Whether its function returns or raises, an interrupted call leaves the key free."""
    number, where = 0, "start"
    while where is not None:
        calls = []

        def run(calls=calls):
            calls.append(1)
            if fails and len(calls) == 1:
                raise ValueError
            return 1

        fetch = single_flight_ttl(ttl=60, key=lambda *_: "k")(run)
        where = struck(number, fetch)
        all_is_well(fetch, where)
        number += 1
    assert number > 40


@pytest.mark.long
def test_a_follower_may_be_interrupted_anywhere(make_gate):
    """A follower that is interrupted while it joins, waits or takes over leaves nothing behind."""
    number, where = 0, "start"
    while where is not None:
        entered, go, calls = make_gate(), make_gate(), []

        def run(entered=entered, go=go, calls=calls):
            calls.append(1)
            if len(calls) == 1:
                entered.set()
                go.pass_()
                raise ValueError
            return 1

        fetch = single_flight_ttl(ttl=60, key=lambda *_: "k")(run)

        def lead(fetch=fetch):
            with pytest.raises(ValueError):
                fetch()

        leader = threading.Thread(target=lead, daemon=True)
        leader.start()
        entered.pass_()
        locks = fetch.locks
        # The leader goes on when the follower waits, or when it has been interrupted before that.
        watching = threading.Event()

        def release(go=go, locks=locks, watching=watching):
            while not locks.waiting("k") and not watching.is_set():
                time.sleep(0)
            go.set()

        releaser = threading.Thread(target=release, daemon=True)
        releaser.start()
        where = struck(number, fetch)
        watching.set()
        for thread in (leader, releaser):
            thread.join(10)
            assert not thread.is_alive(), where
        all_is_well(fetch, where)
        number += 1
    assert number > 40


def test_whoever_frees_a_key_may_be_interrupted_anywhere(make_gate):
    """A plain lock that queues behind a flight gets the key though its leader is interrupted in landing."""
    number, where = 0, "start"
    while where is not None:
        queued, fetched = make_gate(), []

        def run(queued=queued):
            queued.pass_()
            return 1

        fetch = single_flight_ttl(ttl=60, key=lambda *_: "k")(run)

        def take(fetch=fetch, fetched=fetched):
            while not fetch.locks.held("k") and not fetched:
                time.sleep(0)
            with fetch.locks("k"):
                pass

        def open_when_queued(fetch=fetch, queued=queued, fetched=fetched):
            while not fetch.locks.waiting("k") and not fetched:
                time.sleep(0)
            queued.set()

        others = [threading.Thread(target=target, daemon=True) for target in (take, open_when_queued)]
        for thread in others:
            thread.start()
        where = struck(number, fetch)
        fetched.append(1)
        for thread in others:
            thread.join(10)
            assert not thread.is_alive(), where
        all_is_well(fetch, where)
        number += 1
    assert number > 40
