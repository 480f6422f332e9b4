"""What an installed wheel must be able to do; run by `run.py` in an environment that has nothing else."""

from __future__ import annotations

import asyncio
import importlib.metadata
import sys
import threading
import time
from pathlib import Path

import singleflight
from singleflight import single_flight_ttl
from singleflight.testing import stampede

version, build = sys.argv[1:]
assert singleflight.__version__ == importlib.metadata.version("singleflight-kit") == version
assert singleflight.accelerated is (build == "compiled"), build
assert Path(singleflight.__file__).is_relative_to(sys.prefix), singleflight.__file__
assert Path(singleflight.__file__).with_name("py.typed").is_file()

asked: list[str] = []


@single_flight_ttl(key="symbol", ttl=60, grace=60)
def price(symbol: str) -> float:
    asked.append(symbol)
    time.sleep(0.05)
    return 984.75


@price.twin
async def aprice(symbol: str) -> float:
    asked.append(symbol)
    await asyncio.sleep(0.05)
    return 984.75


@price.bulk
def prices(symbols: list[str]) -> dict[str, float]:
    asked.extend(symbols)
    return dict.fromkeys(symbols, 984.75)


async def ten() -> list[float]:
    return await asyncio.gather(*(aprice("AAPL") for _ in range(10)))


crowd = stampede(price, 10, args=("ASML",))
assert [caller.value for caller in crowd.callers] == [984.75] * 10, crowd
assert asyncio.run(ten()) == [984.75] * 10
assert prices(["ASML", "NVDA"]) == {"ASML": 984.75, "NVDA": 984.75}
assert asked == ["ASML", "AAPL", "NVDA"], asked
assert price.invalidate("ASML")
assert price.entry("ASML") is None
assert price.stats().calls == 3
assert threading.active_count() < 10, threading.enumerate()
print(f"singleflight-kit {version} works as it is installed ({build})")
