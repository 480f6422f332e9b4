"""`python -m singleflight demo`: a stampede, seen in the terminal, without and with the decorator.

Forty callers want five prices at once. The market answers four requests at a time, each in a second, as
services with a limit do. Then the market is away for a while, and the callers do not notice.
"""

from __future__ import annotations

import shutil
import textwrap
import threading
import time
from collections.abc import Callable
from typing import TextIO

from ..decorator.decorate import single_flight_ttl
from .screen import bar

__all__ = ["run"]

CALLERS = 40
SYMBOLS = ("ASML", "AAPL", "MSFT", "NVDA", "TSLA")
AT_A_TIME = 4  # requests that the market answers at the same time
MOST_REQUESTS = 50  # that the bar has room for: those of the ten without the decorator
_FRAME = 0.1  # seconds between two pictures


class Market:
    """Answers some requests at a time, counts all, and can be away."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.requests: int = 0
        self.is_away = False
        self._seats = threading.Semaphore(AT_A_TIME)
        self._counting = threading.Lock()

    def price(self, symbol: str) -> float:
        """Return the price of a symbol after a while; raise `ConnectionError` while it is away."""
        with self._counting:
            self.requests += 1
        with self._seats:
            time.sleep(self.latency)
        if self.is_away:
            raise ConnectionError("the market does not answer")
        return 100.0 + len(symbol) + SYMBOLS.index(symbol)


class Crowd:
    """Callers that all begin at the same moment; each asks for every symbol, one after another."""

    def __init__(self, call: Callable[[str], float], callers: int) -> None:
        self.served: list[float] = []  # seconds that each price took; appended to by anybody
        self.failed: int = 0
        self.expected: int = callers * len(SYMBOLS)
        self._call = call
        self._start = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(callers)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        self._start.wait()
        for place in range(len(SYMBOLS)):
            began = time.monotonic()
            try:
                self._call(SYMBOLS[(number + place) % len(SYMBOLS)])
            except ConnectionError:
                self.failed += 1
            self.served.append(time.monotonic() - began)

    def go(self) -> None:
        """Begin."""
        self._start.set()

    def is_done(self) -> bool:
        """Return True if every caller has every price."""
        return not any(thread.is_alive() for thread in self._threads)


class Picture:
    """Some lines that are drawn anew in the same place; in a pipe only their last state is written."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._height = out, 0
        self._moves = out.isatty()

    def draw(self, lines: list[str], last: bool = False) -> None:
        """Show these lines in place of those before."""
        if not self._moves and not last:
            return
        width = shutil.get_terminal_size().columns - 1
        back = f"\x1b[{self._height}A" if self._height and self._moves else ""
        end = "\x1b[K\n" if self._moves else "\n"
        self._out.write(back + "".join(line[:width].rstrip() + end for line in lines))
        self._out.flush()
        self._height = 0 if last else len(lines)


def run(out: TextIO, speed: float = 1.0, most: float = 60.0) -> int:
    """Show the demonstration, in about 20 seconds at `speed` 1; return the exit status.

    Args:
        out: where it is shown.
        speed: how many times as fast.
        most: after how many seconds one part gives up, which then says so.
    """
    market = Market(1.0 / speed)

    @single_flight_ttl(ttl=2.0 / speed, grace=600, name="price")
    def price(symbol: str) -> float:
        return market.price(symbol)

    say(out, f"{CALLERS} callers want {len(SYMBOLS)} prices each, all at once.")
    say(out, f"The market takes {market.latency:g} s for a request, and answers {AT_A_TIME} at a time.\n")
    say(out, "Without the decorator each caller asks the market itself. Ten of them alone:")
    with price.bypass():
        if not show(out, market, price, most, CALLERS // 4):  # all of them would take four times as long
            return 1
    say(out, f"\nWith @single_flight_ttl(ttl=2, grace=600) all {CALLERS} share one request a price:")
    if not show(out, market, price, most):
        return 1
    say(out, "\nNow the prices have run out, and the market is away. All get the last prices,")
    say(out, "at once, while new ones are asked for in the background:")
    time.sleep(2.1 / speed)
    market.is_away = True
    if not show(out, market, price, most):
        return 1
    stats = price.stats()
    say(out, f"\nSo {stats.fetches} calls asked the market, {stats.waits} waited for one of these and shared")
    say(out, f"its price, {stats.hits} found a fresh one, and {stats.stale_hits} made do with the last one.")
    say(out, "And a call now? price.explain('ASML') says:")
    say(out, textwrap.fill(str(price.explain("ASML")), 78, initial_indent="  ", subsequent_indent="  "))
    return 0


def show(
    out: TextIO, market: Market, call: Callable[[str], float], most: float, callers: int = CALLERS
) -> bool:
    """Draw a crowd of so many callers until it is served; return False if that takes too long."""
    crowd, asked = Crowd(call, callers), market.requests
    picture, began = Picture(out), time.monotonic()
    crowd.go()
    while not crowd.is_done():
        if time.monotonic() - began > most:
            say(out, "  this takes too long: is the machine busy?")
            return False
        picture.draw(_lines(crowd, market.requests - asked, time.monotonic() - began))
        time.sleep(_FRAME)
    picture.draw(_lines(crowd, market.requests - asked, time.monotonic() - began), last=True)
    return True


def _lines(crowd: Crowd, requests: int, seconds: float) -> list[str]:
    served, expected = len(crowd.served), crowd.expected
    failed = f", {crowd.failed} without a price" if crowd.failed else ""
    return [
        f"  prices    {bar(served / expected, 40)} {served} of {expected}{failed}",
        f"  requests  {bar(requests / MOST_REQUESTS, 40)} {requests}",
        f"  {seconds:4.1f} s; the longest wait for one price: {max(crowd.served, default=0.0):.1f} s",
    ]


def say(out: TextIO, line: str) -> None:
    """Write a line."""
    print(line, file=out, flush=True)
