"""The price board's --processes: each has widgets of its own, and with --store all of them are one fleet."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from command_line import told_as_part
from market_server import MarketServer
from widgets import CountingAccount, LogLines, Run, burst, ready_account, say

from singleflight import Landing, single_flight_ttl
from singleflight.accounts import AccountInterface
from singleflight.accounts.interface import LONGEST_FLIGHT, PriceLog, money, price_cache_time, price_key

__all__ = ["fleet_runs"]

LEASE = 1.0  # seconds: so long do the others wait for a process that was killed
PATIENCE = 60.0  # seconds for what takes a few
KILLED = "leader killed"
Lines = dict[str, list[str]]


def fleet_runs(
    options: argparse.Namespace, server: MarketServer | None, store: str | None
) -> tuple[list[Run], Lines]:
    """The same burst in all processes at once: undecorated, decorated, and with each flight the fleet's."""
    names = [
        "undecorated",
        "decorated",
        *(["shared"] if store else []),
        *([KILLED] if options.kill_leader else []),
    ]
    runs, lines = [], Lines()
    with crew(options, server, store) as (pipes, processes):
        for name in names:
            say(f"{name}: {options.processes} processes ...")
            for pipe in pipes:
                pipe.send(name)
            for pipe in pipes:
                told(pipe, "ready")
            if server is not None:
                server.reset()
            for pipe in pipes:
                pipe.send("go")
            if name == KILLED and server is not None:
                pipes.remove(killed_leader(options, server, pipes, processes))
            reports = [told(pipe, "done") for pipe in pipes]
            lines = reports[0][1]
            run = summed(name, [run for run, _ in reports])
            run.requests = (
                sum(each.requests for each, _ in reports) if server is None else len(server.requests)
            )
            runs.append(run)
    return runs, lines


def summed(name: str, parts: list[Run]) -> Run:
    """What the processes' bursts took as one."""
    waits = [seconds for part in parts for seconds in part.waits]
    return Run(name, 0, max(part.wall for part in parts), waits, sum(part.missing for part in parts))


def killed_leader(
    options: argparse.Namespace, server: MarketServer, pipes: list[Connection], processes: dict[Any, Any]
) -> Connection:
    """Kill the process that first led a flight, once the market has all first requests and answers none."""
    hold = threading.Event()

    def held_up(*_: object) -> None:
        hold.wait(PATIENCE)

    server.before_answer = held_up
    try:
        firsts = min(options.widgets, len(options.symbols))
        leads: list[tuple[Connection, str]] = []
        end = time.monotonic() + PATIENCE
        while len(leads) < firsts or len(server.requests) < firsts:
            if time.monotonic() > end:
                raise RuntimeError("--kill-leader: no process led a call")
            leads += [(pipe, told(pipe, "leads")) for pipe in ready(pipes)]
        victim = leads[0][0]
        process = processes[victim]
        process.kill()
        process.join(PATIENCE)
    finally:
        hold.set()
        server.before_answer = None
    led = ", ".join(symbol for pipe, symbol in leads if pipe is victim)
    say("")
    print(
        f"Process {process.pid} was killed in its calls for {led}; the others wait\nuntil its lease ends.\n"
    )
    return victim


def ready(pipes: list[Connection]) -> list[Connection]:
    return [pipe for pipe in wait(pipes, 0.05) if isinstance(pipe, Connection)]


def told(pipe: Connection, what: str) -> Any:
    """The next of these that a process tells."""
    while pipe.poll(PATIENCE):
        kind, told = pipe.recv()
        if kind == "failed":
            raise RuntimeError(told)
        if kind == what:
            return told
    raise RuntimeError(f"a process of the board says nothing for {PATIENCE:g} s")


@contextlib.contextmanager
def crew(
    options: argparse.Namespace, server: MarketServer | None, store: str | None
) -> Iterator[tuple[list[Connection], dict[Any, Any]]]:
    """The processes, each ready at its pipe."""
    context = mp.get_context("spawn")
    url = None if server is None else server.url
    processes: dict[Any, Any] = {}
    say(f"starting {options.processes} processes ...")
    try:
        for _ in range(options.processes):
            ours, theirs = context.Pipe()
            arguments = (theirs, options, url, store)
            processes[ours] = context.Process(target=work, args=arguments, daemon=True)
            processes[ours].start()
            theirs.close()
        for pipe in processes:
            told(pipe, "ready")
        yield list(processes), processes
        for pipe in processes:
            with contextlib.suppress(OSError):  # the one that was killed
                pipe.send(None)
        for process in processes.values():
            process.join(PATIENCE)
    finally:
        for process in processes.values():
            process.kill()


# -- one of the processes ----------------------------------------------------------------------------


def work(pipe: Connection, options: argparse.Namespace, url: str | None, store: str | None) -> None:
    """Run bursts as the pipe says, each together with the other processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the board ends us
    sending = threading.Lock()

    def tell(kind: str, what: object) -> None:
        with sending:
            pipe.send((kind, what))

    def together() -> None:
        tell("ready", name)
        pipe.recv()

    name: str | None = ""
    try:
        account = ready_account(options.symbols, url)
        getter = AccountInterface.get_instrument_current_price
        tell("ready", os.getpid())
        while (name := pipe.recv()) is not None:
            if name in ("shared", KILLED) and store is not None:
                kind = shared_account(
                    store, f"board-{os.getppid()}-{name[0]}", lambda key: tell("leads", key[1])
                )
                account = ready_account(options.symbols, url, kind)
            bypassed = getter.bypass() if name == "undecorated" else contextlib.nullcontext()
            account.asked = 0
            with LogLines() as log, bypassed:
                run = burst(name, account, options, together=together, told=silence)
            run.requests = account.asked
            if account.get_instrument_current_price.stats().degraded:
                raise ValueError("--store: the server does not answer, so each process worked alone")
            tell("done", (run, log.lines))
    except (ImportError, ValueError) as error:
        tell("failed", str(error))


def silence(*_: object, **__: object) -> None:
    """No progress: the board tells its own."""


class FleetLog(PriceLog):
    """The price getter's log lines, and what comes from other processes."""

    def __init__(self, leads: Callable[[Any], object]) -> None:
        self._leads = leads

    @property
    def wants(self) -> Collection[str]:
        """What there are lines for, and who leads."""
        return {*super().wants, "claimed", "shared_wait", "adopted"}

    def __call__(self, event: Any) -> None:
        """Write the event's line."""
        if event.kind == "claimed":
            self._leads(event.key)
        else:
            super().__call__(event)

    @staticmethod
    def line(event: Any, symbol: str, price_type: str) -> str | None:
        """The text of one event."""
        if event.kind == "shared_wait":
            return f"Waiting for {event.leader}, which fetches {symbol}"
        if event.kind == "adopted" and event.value is not None:
            return f"Another process cached {symbol}: {money(event.value)} (age: {event.age:.1f}s)"
        return PriceLog.line(event, symbol, price_type)


def price_ttl(_: Landing) -> float:
    return price_cache_time()


def shared_account(store: str, prefix: str, leads: Callable[[Any], object]) -> type[CountingAccount]:
    """An account whose price getter is decorated anew, as it was and with `store=`."""
    from singleflight.redis import RedisStore

    shared = RedisStore(store, prefix=prefix, lease=LEASE, timeout=1)

    class SharedAccount(CountingAccount):
        get_instrument_current_price: Any = single_flight_ttl(
            key=price_key,
            ttl=price_ttl,
            flight_timeout=LONGEST_FLIGHT,
            listener=FleetLog(leads),
            name="get_instrument_current_price",
            store=shared,
        )(undecorated("get_instrument_current_price"))
        aget_instrument_current_price = get_instrument_current_price.twin(
            undecorated("aget_instrument_current_price")
        )
        get_instrument_current_prices = get_instrument_current_price.bulk(
            undecorated("get_instrument_current_prices")
        )
        aget_instrument_current_prices = get_instrument_current_price.bulk(
            undecorated("aget_instrument_current_prices")
        )

    return SharedAccount


def undecorated(name: str) -> Any:
    return getattr(AccountInterface, name).__wrapped__


if __name__ == "__main__":
    sys.exit(told_as_part(__doc__, "price_board.py --processes 4 --store local"))
