"""Other ways to set up the same libraries, shown where they behave otherwise."""

from __future__ import annotations

import threading
from typing import Any

from comparing.peers import PEERS, Cachetools, Cashews, Dogpile, Moka, Ours, Peer


class OursOtherwise(Ours):
    name = "singleflight, other options"
    setup = "`single_flight_ttl(ttl=…, grace=60, follower_retries=0, cache_if=lambda value: True)`"
    options = {"grace": 60, "follower_retries": 0, "cache_if": lambda value: True}


class CachetoolsLock(Cachetools):
    name = "cachetools, lock="
    setup = "`cached(TTLCache(1024, …), lock=Lock(), info=True)`"
    waits = False


class MokaWeigher(Moka):
    name = "moka-py, weigher="
    setup = "`cached(maxsize=1024, ttl=…, wait_concurrent=True, weigher=lambda key, value: 1)`"
    options = {"weigher": lambda key, value: 1}


def _in_a_thread(region, key, creator, mutex):
    def run():
        try:
            region.set(key, creator())
        finally:
            mutex.release()

    threading.Thread(target=run, daemon=True).start()


class DogpileRunner(Dogpile):
    name = "dogpile.cache, async_creation_runner="
    setup = "`make_region(async_creation_runner=…)` with a thread for each renewal"

    def __init__(self):
        self.runner = _in_a_thread


class CashewsPlain(Cashews):
    name = "cashews, no lock="
    setup = "`@cache(ttl=…)`"
    options: dict[str, Any] = {}


class CashewsLockOnly(Cashews):
    name = "cashews, protected=False"
    setup = "`@cache(ttl=…, lock=True, protected=False)`"
    options = {"lock": True, "protected": False}


class CashewsEarly(Cashews):
    name = "cashews, early"
    setup = "`@cache.early(ttl=…, early_ttl=0.2)`"
    kind, prefix = "early", "early:v2:"
    options = {"early_ttl": 0.2}

    def _decorator(self, ttl, **more):
        return super()._decorator(max(ttl, 60), **more)


VARIANTS = [
    OursOtherwise(),
    CachetoolsLock(),
    MokaWeigher(),
    DogpileRunner(),
    CashewsPlain(),
    CashewsLockOnly(),
    CashewsEarly(),
]


def named(name: str) -> Peer:
    return next(peer for peer in PEERS + VARIANTS if peer.name == name)
