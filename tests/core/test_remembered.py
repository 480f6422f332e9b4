"""What one decorated function remembers, and what of it a forked child keeps."""

import threading

import pytest

from singleflight.locks.waiters import get_ident
from singleflight.storage.record import AgeingRecord, record_of

from .conftest import in_flight


@pytest.mark.parametrize(
    ("limits", "patient"),
    [
        ({"wait_timeout": None, "flight_timeout": None}, True),
        ({"wait_timeout": 1, "flight_timeout": None}, False),
        ({"wait_timeout": None, "flight_timeout": 1}, False),
        ({"wait_timeout": 1, "flight_timeout": 1}, False),
    ],
)
def test_who_waits_without_a_limit_need_not_look_at_the_clock(make, limits, patient):
    """Neither on how long it waits nor on how long the function may take."""
    assert make(**limits).is_patient is patient


@pytest.mark.parametrize(
    ("wanted", "plain", "renews"),
    [
        ({}, True, False),
        ({"grace": 5}, False, True),
        ({"refresh_ahead": 0.9}, False, True),
        ({"grace": 5, "refresh_ahead": 0.9}, False, True),
    ],
)
def test_what_ages_and_what_is_renewed(make, wanted, plain, renews):
    """With a ttl alone nothing is."""
    made = make(**wanted)
    assert (made.is_plain, made.renews) == (plain, renews)


def test_as_many_idle_locks_are_kept_as_was_said(make):
    """And not the number of entries."""
    made = make(max_idle_locks=1)
    for key in "abc":
        with made.locks(key):
            pass
    assert made.locks.idle == 1
    assert made.warned is False


def test_what_happens_to_a_key_spoils_every_load_in_progress(memo):
    """What those bring for it, unasked, is no news."""
    one, other, over = Spoilable(), Spoilable(), Spoilable()
    memo.batches |= {one, other}
    memo.spoil("k")
    assert (one.spoiled, other.spoiled, over.spoiled) == ({"k"}, {"k"}, set())


class Spoilable:
    """A bulk load in progress."""

    def __init__(self):
        self.spoiled, self.sealed = set(), False


@pytest.mark.parametrize("disabled", [False, True])
def test_hits_take_the_long_way_until_it_is_opened_again(memo, monkeypatch, disabled):
    """And further on, where the environment switches everything off."""
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1" if disabled else "")
    memo.store.put(record_of("k", "value", 100.0, 10.0))
    one, other = {}, {}
    memo.fast_paths += [one, other]
    memo.shut()
    assert [path["_sf_lookup"]("k") for path in (one, other)] == [None, None]
    memo.reopen()
    found = [path["_sf_lookup"]("k") for path in (one, other)]
    assert found == ([None, None] if disabled else [memo.store.index["k"]] * 2)


# -- in a forked child ----------------------------------------------------------------------------------


def test_a_child_keeps_values_and_nothing_that_is_in_progress(memo):
    """Its counts begin at zero, and what runs elsewhere changes nothing."""
    memo.store.put(record_of("k", "value", 100.0, 10.0))
    flight, batch = in_flight(memo, "other"), Spoilable()
    memo.adrift.add(flight)
    memo.batches.add(batch)
    memo.counts.fetches = 3
    switching = memo.switching
    memo.after_fork()
    assert (flight.lost, batch.sealed, memo.adrift, memo.batches) == (True, True, set(), set())
    assert (memo.counts.fetches, memo.store.index["k"].value) == (0, "value")
    assert memo.switching is not switching
    assert memo.switching.acquire(blocking=False)
    memo.switching.release()


@pytest.mark.parametrize(("refresh_at", "then"), [(float("inf"), 110.0), (105.0, 105.0), (115.0, 110.0)])
def test_what_was_being_renewed_is_to_be_renewed_in_the_child(make, refresh_at, then):
    """At its time, or at the latest when its ttl has passed: nobody renews it there."""
    made = make(grace=50)
    ageing = AgeingRecord("k", "value", 100.0, 10.0, grace=50.0, refresh_at=refresh_at)
    made.store.put(ageing)
    made.store.put(record_of("plain", "value", 100.0, 10.0))
    made.after_fork()
    assert ageing.refresh_at == then


@pytest.mark.parametrize("mine", [True, False])
def test_only_the_bypass_of_the_forking_thread_goes_on(memo, mine):
    """Blocks of threads that do not exist there are over, and hits are served again."""
    path = {}
    memo.fast_paths.append(path)
    elsewhere = threading.get_ident() + 1
    memo.bypassed = [(elsewhere, "token"), *([(get_ident(), "mine")] if mine else [])]
    memo.shut()
    memo.store.put(record_of("k", "value", 100.0, 10.0))
    memo.after_fork()
    assert memo.bypassed == ([(get_ident(), "mine")] if mine else [])
    assert (path["_sf_lookup"]("k") is None) is mine
