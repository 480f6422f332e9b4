"""The processes of the fleet's soak: threads, tasks and bulk calls on one function; each step is noted."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import os
import random
import threading
import time
from typing import Any

from singleflight import single_flight_ttl
from singleflight.redis import RedisStore

__all__ = ["GRACE", "GROUPS", "LEASE", "NEAR", "SYMBOLS", "TTL", "group_of", "live"]

SYMBOLS = [f"S{number}" for number in range(12)]
GROUPS = 3  # each symbol has one of so many tags
TTL, GRACE, NEAR, LEASE = 12.0, 2.0, 1.0, 1.0
_SLOWEST = 0.02  # seconds of a load
_PAUSE = 0.006  # seconds between two steps of an actor, at most

# What an actor does, and how often.
_STEPS = {"get": 70, "invalidate": 5, "put": 4, "tag": 2, "clear": 0.3, "refresh": 3, "clock": 1}


def group_of(symbol: str) -> str:
    """Return the tag of a symbol's values."""
    return f"group {int(symbol[1:]) % GROUPS}"


def live(url: str, file: str, seed: int, until: float) -> None:
    """Be one process until then, and note what is left in the end."""
    faulthandler.dump_traceback_later(max(1.0, until - time.monotonic() + 40), exit=True)
    Life(url, file, seed, until).run()


class Failed(Exception):
    """What the function raises now and then."""


class Life:
    """One process. Its notes are lines of JSON: times are those of the machine's monotonic clock."""

    def __init__(self, url: str, file: str, seed: int, until: float) -> None:
        self.seed, self.until = seed, until
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._number = 0
        self._lock = threading.Lock()
        self._unconfirmed: list[int] = []
        self._over = threading.Event()  # no actor is left
        self._ahead = 0.0
        clock = time.time
        time.time = lambda: clock() + self._ahead
        self.store = RedisStore(url, near_ttl=NEAR, lease=LEASE, timeout=0.2)
        options: Any = {
            "ttl": TTL,
            "grace": GRACE,
            "refresh_ahead": 0.8,
            "jitter": 0.1,
            "failure_ttl": 0.1,
            "tags": lambda landing: [group_of(landing.key[0])],
            "name": "price",
            "store": self.store,
        }
        self.price = single_flight_ttl(**options)(self._load)
        self.aprice = self.price.twin(self._aload)
        self.prices = self.price.bulk(self._load_all, max_batch=5)

    def note(self, what: str, *details: Any) -> None:
        """Write a line at once: the process may be killed at any moment."""
        os.write(self._file, (json.dumps([what, os.getpid(), *details]) + "\n").encode())

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    # -- the function

    def _begin(self, symbol: str) -> tuple[random.Random, dict[str, Any]]:
        began, number = time.monotonic(), self._next()
        self.note("load", number, symbol, began)
        chance = random.Random(f"{self.seed} {number}")
        return chance, {"symbol": symbol, "began": began, "by": os.getpid(), "number": number}

    def _end(self, chance: random.Random, value: dict[str, Any]) -> Any:
        self._loaded(value)
        return self._outcome(chance, value)

    def _loaded(self, value: dict[str, Any]) -> None:
        self.note("loaded", value["number"], value["symbol"], time.monotonic())

    def _outcome(self, chance: random.Random, value: dict[str, Any]) -> Any:
        drawn = chance.random()
        if drawn < 0.05:
            raise Failed(json.dumps(value))
        return None if drawn < 0.08 else value

    def _load(self, symbol: str) -> Any:
        chance, value = self._begin(symbol)
        time.sleep(chance.random() * _SLOWEST)
        return self._end(chance, value)

    async def _aload(self, symbol: str) -> Any:
        chance, value = self._begin(symbol)
        await asyncio.sleep(chance.random() * _SLOWEST)
        return self._end(chance, value)

    def _load_all(self, symbols: list[str]) -> dict[str, Any]:
        begun = [self._begin(symbol) for symbol in symbols]
        time.sleep(begun[0][0].random() * _SLOWEST)
        for _, value in begun:
            self._loaded(value)
        return {value["symbol"]: self._outcome(chance, value) for chance, value in begun}

    # -- what is done with it

    def run(self) -> None:
        """Have all actors run, then note what is left of their flights."""
        actors = [threading.Thread(target=self._thread, args=(number,)) for number in range(3)]
        actors += [
            threading.Thread(target=self._bulk),
            threading.Thread(target=asyncio.run, args=(self._tasks(),)),
        ]
        flusher = threading.Thread(target=self._flush, daemon=True)
        for each in (*actors, flusher):
            each.start()
        for each in actors:
            each.join()
        self._over.set()
        flusher.join(25)
        tier: Any = self.price._self_cache.tier
        link = tier.link
        end = time.monotonic() + 10
        while time.monotonic() < end and (tier.flying or link.keeper._leases or len(link.mailboxes)):
            time.sleep(0.01)  # renewals in the background
        left = {
            "flights": len(tier.flying),
            "leases": len(link.keeper._leases),
            "mailboxes": len(link.mailboxes),
            "drops": len(self._unconfirmed),
            "threads": sum(thread.name.startswith("singleflight-") for thread in threading.enumerate()),
        }
        self.note("left", left)
        self.store.close()
        self.note("ended")

    def _actor(self, name: str) -> tuple[random.Random, list[str], list[float]]:
        return random.Random(f"{self.seed} {name}"), list(_STEPS), list(_STEPS.values())

    def _thread(self, number: int) -> None:
        chance, steps, weights = self._actor(f"thread {number}")
        while time.monotonic() < self.until:
            step, symbol = chance.choices(steps, weights)[0], chance.choice(SYMBOLS)
            with self._judged(symbol, step) as outcome:
                if step == "get" or step == "refresh":
                    outcome.append((self.price if step == "get" else self.price.refresh)(symbol))
                else:
                    self._change(chance, step, symbol)
            time.sleep(chance.random() * _PAUSE)

    def _bulk(self) -> None:
        chance, _, _ = self._actor("bulk")
        while time.monotonic() < self.until:
            symbols = chance.sample(SYMBOLS, chance.randint(1, 6))
            began = time.monotonic()
            try:
                values = self.prices(symbols)
            except Exception as error:
                self._received("bulk", symbols[0], began, error)
            else:
                for symbol, value in values.items():
                    self._received("bulk", symbol, began, value)
            time.sleep(chance.random() * 2 * _PAUSE)

    async def _tasks(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(self._task(number))

    async def _task(self, number: int) -> None:
        chance, steps, weights = self._actor(f"task {number}")
        while time.monotonic() < self.until:
            step, symbol = chance.choices(steps, weights)[0], chance.choice(SYMBOLS)
            patience = 0.01 if chance.random() < 0.05 else None
            with self._judged(symbol, step) as outcome, contextlib.suppress(TimeoutError):
                if step == "get" or step == "refresh":
                    async with asyncio.timeout(patience):
                        outcome.append(await (self.aprice if step == "get" else self.aprice.refresh)(symbol))
                else:
                    self._change(chance, step, symbol)
            await asyncio.sleep(chance.random() * _PAUSE)

    @contextlib.contextmanager
    def _judged(self, symbol: str, step: str) -> Any:
        began, outcome = time.monotonic(), []
        try:
            yield outcome
        except Exception as error:
            outcome.append(error)
        if outcome:
            self._received(step, symbol, began, outcome[0])

    def _received(self, how: str, symbol: str, began: float, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            self.note(
                "error", how, symbol, began, time.monotonic(), type(outcome).__name__, str(outcome)[:300]
            )
        else:
            self.note("got", how, symbol, began, time.monotonic(), outcome)

    def _change(self, chance: random.Random, step: str, symbol: str) -> None:
        if step == "clock":
            self._ahead = chance.uniform(-7200, 7200)
            return
        began, number = time.monotonic(), self._next()
        of = {"tag": group_of(symbol), "clear": "*"}.get(step, symbol)
        self.note("drop", number, step, of, began)
        if step == "put":
            self.price.put({"symbol": symbol, "began": began, "by": os.getpid(), "number": number}, symbol)
        elif step == "invalidate":
            self.price.invalidate(symbol)
        elif step == "tag":
            self.price.invalidate_tag(of)
        else:
            self.price.clear()
        self.note("dropped", number, time.monotonic())
        with self._lock:
            self._unconfirmed.append(number)

    def _flush(self) -> None:
        """Note when the server has confirmed what was changed here."""
        while not self._over.is_set() or (self._unconfirmed and time.monotonic() < self.until + 20):
            with self._lock:
                noted = list(self._unconfirmed)
            if noted and self.store.flush(1.0):
                self.note("confirmed", noted, time.monotonic())
                with self._lock:
                    del self._unconfirmed[: len(noted)]
            time.sleep(0.005)
