"""Ctrl-C, finalisers and handlers at every line where a chosen class holds the entries."""

import contextlib
from itertools import product

import cachetools
import pytest

from singleflight import single_flight_ttl

from ..sampling import one_in
from .test_every_line import AtLine, consistent, finish, lines_of

KINDS = {
    "least recently": {"policy": cachetools.LRUCache},
    "least frequently": {"policy": cachetools.LFUCache},
    "weighed": {"weigh": lambda value: 1},
    "both": {"policy": cachetools.LRUCache, "weigh": lambda value: 1},
}
STEPS = {
    "hit": lambda fetch: fetch("old"),
    "eviction": lambda fetch: fetch("A"),
    "invalidate": lambda fetch: fetch.invalidate("old"),
    "put": lambda fetch: fetch.put("put", "older"),
    "clear": lambda fetch: fetch.cache_clear(),
    "stats": lambda fetch: fetch.stats(),
}


def make(kind):
    fetch = single_flight_ttl(ttl=60, maxsize=2, **KINDS[kind])(lambda key: key)
    for key in ("old", "older"):
        fetch(key)
    return fetch


def in_step(fetch):
    """After one more section the class, the other cache and the index hold the same."""
    fetch.put("last", "last")
    store = fetch._self_cache.store
    places = {record.place for record in store.records()}
    assert set(dict(store._cache.items())) == places == set(cachetools.Cache.__iter__(store._cache._order))
    assert fetch.stats().entries <= 2


@pytest.mark.parametrize(("kind", "step"), one_in(8, product(KINDS, STEPS)))
def test_an_interrupt_at_any_line(kind, step):
    """Later calls work, no lock is left held, and the index is in step with what the class holds."""

    def strike():
        raise KeyboardInterrupt

    for number in range(lines_of(lambda: STEPS[step](make(kind)))):
        fetch = make(kind)

        def run(number=number, fetch=fetch):
            with AtLine(number, strike):
                STEPS[step](fetch)

        with contextlib.suppress(KeyboardInterrupt):
            finish(run)
        fetch.invalidate("older")  # which may be "put" or not
        consistent(fetch)
        in_step(fetch)


@pytest.mark.parametrize(("kind", "step"), one_in(8, product(KINDS, STEPS), keep=2))
def test_coming_back_at_any_line(kind, step):
    """A handler that hits, misses and drops at any line: nothing hangs, and all is in step."""
    for number in range(lines_of(lambda: STEPS[step](make(kind)))):
        fetch = make(kind)

        def strike(fetch=fetch):
            assert fetch("Z") == "Z"
            assert fetch("old") == "old"
            fetch.invalidate("older")

        def run(number=number, fetch=fetch, strike=strike):
            with AtLine(number, strike):
                STEPS[step](fetch)

        finish(run)
        fetch.invalidate("older")
        consistent(fetch)
        in_step(fetch)
