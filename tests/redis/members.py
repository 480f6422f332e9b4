"""Processes of a fleet, forked and told by pipes what to call: to be killed, stopped and continued."""

import asyncio
import os
import queue
import signal
import threading
import time
import warnings
from concurrent.futures import Future
from multiprocessing import Pipe

from singleflight import single_flight_ttl
from singleflight.redis import RedisStore

from .server import LIBC, PR_SET_PDEATHSIG

__all__ = ["Member", "Members"]

PATIENCE = 20.0


class Member:
    """One process, as the test sees it.

    Its function returns the symbol, the process and how many loads it has begun, once `open` was called or
    there is no gate. `entered` gets the symbol of each load; `loads` is a file that all members write.
    """

    def __init__(self, url, loads, **options):
        ours, theirs = Pipe()
        with warnings.catch_warnings():  # newer Pythons warn about forking with threads
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            try:
                if LIBC:
                    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                _Life(theirs, url, loads, **options).serve()
            finally:
                os._exit(1)
        theirs.close()
        self.entered = queue.Queue()
        self._pipe, self._answers, self._number = ours, {}, 0
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self):
        try:
            while True:
                number, came, error = self._pipe.recv()
                if number is None:
                    self.entered.put(came)
                elif error is None:
                    self._answers.pop(number).set_result(came)
                else:
                    self._answers.pop(number).set_exception(error)
        except (EOFError, OSError):
            return

    def begin(self, what, *args):
        """Have it do something; the outcome is a future's."""
        self._number += 1
        self._answers[self._number] = future = Future()
        self._pipe.send((self._number, what, args))
        return future

    def do(self, what, *args):
        """Have it do something, and wait."""
        return self.begin(what, *args).result(PATIENCE)

    def call(self, symbol, way="thread"):
        """Have it ask for a symbol, by a thread or a task or a bulk call."""
        return self.begin(way, symbol)

    def has_entered(self, symbol):
        """Wait until its function was called for this."""
        while self.entered.get(timeout=PATIENCE) != symbol:
            pass

    def waits_elsewhere(self):
        """Wait until a flight of its own waits for another process."""
        self.do("until_shared")

    def kill(self, how=signal.SIGKILL):
        """Send it a signal."""
        os.kill(self.pid, how)

    def stop(self):
        """Have it stand still, and return when it does."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def close(self):
        """End it, whatever it does."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._listening.join(PATIENCE)
        self._pipe.close()


class Members:
    """Makes processes; all write their loads to one file."""

    def __init__(self, url, folder):
        self.url, self.file = url, folder / "loads"
        self.file.touch()
        self.made = []

    def __call__(self, url=None, **options):
        self.made.append(Member(url or self.url, self.file, **options))
        return self.made[-1]

    def loads(self):
        """Return how often each symbol was loaded, by whomever."""
        lines = self.file.read_text().split()
        return {symbol: lines.count(symbol) for symbol in lines}

    def close(self):
        for member in self.made:
            member.close()


class _Life:
    """What runs in the process: a function with a twin and a loader, each call in a thread or a task."""

    def __init__(self, pipe, url, loads, store=None, gate=False, inner=None, ahead=0.0, forks="", **options):
        self.pipe, self.sending = pipe, threading.Lock()
        self.loads = os.open(loads, os.O_WRONLY | os.O_APPEND)
        self.gate = threading.Event()
        if not gate:
            self.gate.set()
        self.inner = inner or {}  # which symbol the function asks for, and by which way
        self.begun = 0
        self.pid = os.getpid()
        self.forks = Pipe() if forks else None
        self.forks_in = forks  # "load", or "wait": when its first flight begins to wait for another process
        if forks == "wait":
            options["listener"] = self.fork_at_a_wait
        if ahead:
            clock = time.time
            time.time = lambda: clock() + ahead
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.store = RedisStore(url, **{"lease": 1.0, "timeout": 2.0, **(store or {})})
        self.price = single_flight_ttl(**{"ttl": 60, "name": "price", "store": self.store, **options})(
            self.load
        )
        self.aprice = self.price.twin(self.aload)
        self.prices = self.price.bulk(self.load_all)

    def serve(self):
        while True:
            try:
                number, what, args = self.pipe.recv()
            except EOFError:
                os._exit(0)
            if what == "task":
                made = asyncio.run_coroutine_threadsafe(self.task(number, *args), self.loop)
                made.add_done_callback(lambda ended: ended.exception())
            else:
                threading.Thread(target=self.run, args=(number, what, args), daemon=True).start()

    def run(self, number, what, args):
        me = os.getpid()
        try:
            came = getattr(self, what)(*args)
            if os.getpid() != me:  # the function has forked
                self.forks[1].send(came)
                os._exit(0)
            self.answer(number, came)
        except BaseException as error:
            self.answer(number, None, _portable(error))

    def answer(self, number, came, error=None):
        with self.sending:
            self.pipe.send((number, came, error))

    # -- the function

    def note(self, *symbols):
        self.begun += 1
        os.write(self.loads, "".join(f"{symbol}\n" for symbol in symbols).encode())
        for symbol in symbols:
            self.answer(None, symbol)

    def brought(self, symbol):
        return [symbol, os.getpid(), self.begun]

    def fork_at_a_wait(self, event):
        if event.kind == "shared_wait" and self.forks_in:
            self.forks_in = ""
            os.fork()

    def load(self, symbol):
        if os.getpid() != self.pid:
            return [symbol, "child"]
        self.note(symbol)
        if self.forks_in == "load" and not os.fork():
            return [symbol, "child"]
        assert self.gate.wait(PATIENCE)
        if symbol in self.inner:
            to, way = self.inner[symbol]
            return getattr(self, way)(to)
        return self.brought(symbol)

    async def aload(self, symbol):
        self.note(symbol)
        assert await asyncio.to_thread(self.gate.wait, PATIENCE)
        if symbol in self.inner:
            to, _ = self.inner[symbol]
            return await self.aprice(to)
        return self.brought(symbol)

    def load_all(self, symbols):
        self.note(*symbols)
        assert self.gate.wait(PATIENCE)
        brought = {symbol: self.brought(symbol) for symbol in symbols}
        for symbol in symbols:
            if symbol in self.inner:
                to, way = self.inner[symbol]
                brought[symbol] = getattr(self, way)(to)
        return brought

    # -- what it may be told

    def thread(self, symbol):
        return self.price(symbol)

    async def task(self, number, symbol):
        try:
            self.answer(number, await self.aprice(symbol))
        except BaseException as error:
            self.answer(number, None, _portable(error))

    def bulk(self, symbol):
        return self.prices([symbol])[symbol]

    def many(self, symbols, ways):
        """Ask for all of these, in each of these ways at once."""
        came, asking = [], []

        def ask(way):
            for symbol in symbols:
                if way == "task":
                    made = asyncio.run_coroutine_threadsafe(self.aprice(symbol), self.loop)
                    came.append(made.result(PATIENCE))
                else:
                    came.append(getattr(self, way)(symbol))

        asking = [threading.Thread(target=ask, args=(way,)) for way in ways]
        for each in asking:
            each.start()
        for each in asking:
            each.join(PATIENCE)
        return came

    def open(self):
        self.gate.set()

    def shut(self):
        self.gate.clear()

    def invalidate(self, symbol):
        return self.price.invalidate(symbol)

    def put(self, value, symbol):
        self.price.put(value, symbol)

    def has(self, symbol):
        return self.price.entry(symbol) is not None

    def stats(self):
        return self.price.stats()

    def child(self):
        """What a call returned in the child that its function has made."""
        assert self.forks[0].poll(PATIENCE)
        return self.forks[0].recv()

    def left(self):
        """What is left of flights that have ended."""
        tier = self.price._self_cache.tier
        return len(tier.flying), len(tier.link.mailboxes)

    def state(self):
        return self.store.state

    def until_shared(self):
        end = time.monotonic() + PATIENCE
        while not any(flight.kind == "shared" for flight in self.price.flights()):
            assert time.monotonic() < end, "it does not wait"
            time.sleep(0.002)


def _portable(error):
    """An error that the pipe takes, and that says what it was."""
    kind = type(error)
    return error if kind.__module__.startswith(("builtins", "singleflight")) else RuntimeError(repr(error))
