"""What is compared: each makes one value per key for all processes, as its own documentation says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

TTL = 600
LOAD = 0.05  # seconds
LOCK = 10.0  # seconds after which a lock of the others is free without its holder


class Loads:
    """The function that all of them call: slow, and it notes when it ended."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def load(self, key: str) -> str:
        time.sleep(LOAD)
        return self._made(key)

    async def aload(self, key: str) -> str:
        await asyncio.sleep(LOAD)
        return self._made(key)

    def _made(self, key: str) -> str:
        self.ended.append(time.monotonic())
        return f"the value of {key}"


class Contender:
    """One of them, in one process. Those that await run on a loop that stands still between the calls."""

    name: str
    distribution: str
    setup: str
    awaited = False

    def __init__(self, url: str, loads: Loads) -> None:
        self.make(url, loads)

    def make(self, url: str, loads: Loads) -> None:
        raise NotImplementedError

    get: Callable[[str], Any]

    def close(self) -> None:
        pass


class Threads(Contender):
    name, distribution = "singleflight", "singleflight-kit"
    setup = "`store=RedisStore(url, timeout=2)`"
    colour = "load"

    def make(self, url, loads):
        from singleflight import single_flight_ttl
        from singleflight.redis import RedisStore

        self.store = RedisStore(url, prefix=f"sf-{self.colour}", timeout=2)
        function = getattr(loads, self.colour)
        self.get = single_flight_ttl(ttl=TTL, key=lambda key: key, name="load", store=self.store)(function)

    def close(self):
        self.store.close()


class Tasks(Threads):
    name = "singleflight, tasks"
    setup = "the same, a coroutine function"
    colour, awaited = "aload", True


class Dogpile(Contender):
    name = distribution = "dogpile.cache"
    setup = f'`"dogpile.cache.redis"`, `distributed_lock=True`, `thread_local_lock=False`, `lock_timeout={LOCK:g}`'

    def make(self, url, loads):
        from dogpile.cache import make_region

        arguments = {
            "url": url,
            "distributed_lock": True,
            "thread_local_lock": False,
            "lock_timeout": LOCK,
            "redis_expiration_time": 2 * TTL,
        }
        region = make_region().configure("dogpile.cache.redis", expiration_time=TTL, arguments=arguments)
        self.get = lambda key: region.get_or_create(key, lambda: loads.load(key))


class Lock(Contender):
    name, distribution = "redis-py's `Lock` by hand", "redis"
    setup = f"GET, then `with client.lock(name, timeout={LOCK:g})`, GET, load, SET"

    def make(self, url, loads):
        import redis

        client = redis.Redis.from_url(url)

        def get(key):
            found = client.get(key)
            if found is None:
                with client.lock(f"lock:{key}", timeout=LOCK):
                    found = client.get(key)
                    if found is None:
                        found = json.dumps(loads.load(key))
                        client.set(key, found, ex=TTL)
            return json.loads(found)

        self.get = get


class Cashews(Contender):
    name = distribution = "cashews"
    setup = '`@cache(ttl=…, key="{key}", lock=True)`'
    awaited = True

    def make(self, url, loads):
        import logging

        from cashews import Cache

        # A traceback for each command that took a second.
        logging.getLogger("cashews").setLevel(logging.CRITICAL)
        cache = Cache()
        cache.setup(url)
        self.get = cache(ttl=TTL, key="load:{key}", lock=True)(_coroutine(loads))


class Aiocache(Contender):
    name = distribution = "aiocache"
    setup = "`@cached_stampede(ttl=…, lease=2, cache=RedisCache)`"
    awaited = True

    def make(self, url, loads):
        from aiocache import RedisCache, cached_stampede
        from aiocache.serializers import JsonSerializer

        at = urlsplit(url)
        self.get = cached_stampede(
            lease=2,
            ttl=TTL,
            key_builder=lambda function, key: key,
            cache=RedisCache,
            endpoint=at.hostname,
            port=at.port,
            db=int(at.path.strip("/") or 0),
            serializer=JsonSerializer(),
        )(_coroutine(loads))


def _coroutine(loads):
    async def load(key):
        return await loads.aload(key)

    return load


def installed() -> list[type[Contender]]:
    """Those whose library is here; a line says which are not."""
    found = []
    for each in (Threads, Tasks, Dogpile, Lock, Cashews, Aiocache):
        try:
            __import__(each.distribution.partition("-")[0])
            found.append(each)
        except ImportError:
            print(f"{each.distribution} is not installed: left out")
    return found


def version_of(each: type[Contender]) -> str:
    try:
        return version(each.distribution)
    except ImportError:
        return "this checkout"
