#!/usr/bin/env bash
# cachebox 6.2.10: after three tasks of a TaskGroup shared a failure, the next call raises it again, though nothing was called.
#
# `cached` lets callers of a coroutine function that wait for one another share a failure, and does not store it: the next call
# tries again. With `asyncio.gather` of three it is so. In an `asyncio.TaskGroup` the same three callers leave the failure
# behind. Whoever calls next for that key, minutes later and with the service up again, gets the old exception. The call
# after that one is made.
#
# A good guess gets it wrong because no caller is waiting any more when the next call comes, failures are not stored, and
# two tasks in a TaskGroup are fine. A failure is kept until the last of those who wait has raised it. The TaskGroup cancels
# the rest when the first task fails, so the last one, which would have raised it, never does.
#
# Output seen:
#
#     gather of 3: 1 call, next call: 984.75 by call 2
#     TaskGroup of 2: 1 call, next call: 984.75 by call 2
#     TaskGroup of 3: 1 call, next call: ConnectionError no route, without a call
#     and the one after that: 984.75 by call 2
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check cachebox==6.2.10
"$folder/venv/bin/python" - <<'PROGRAM'
import asyncio

from cachebox import TTLCache, cached


def service():
    """A decorated function whose service is down in its first call, and the calls made."""
    calls = []

    @cached(TTLCache(100, global_ttl=60))
    async def price(symbol):
        calls.append(symbol)
        first = len(calls) == 1
        await asyncio.sleep(0)
        if first:
            raise ConnectionError("no route")
        return 984.75

    return price, calls


async def gathered(price, callers):
    answers = await asyncio.gather(*(price("ASML") for _ in range(callers)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError] * callers


async def grouped(price, callers):
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(price("ASML"))
    except* ConnectionError:
        pass
    else:
        raise AssertionError("nothing failed")


async def told(price, calls):
    before = len(calls)
    try:
        answer = await price("ASML")
    except ConnectionError as error:
        assert len(calls) == before
        return f"ConnectionError {error}, without a call"
    return f"{answer} by call {len(calls)}"


async def main():
    for name, burst, callers in (("gather", gathered, 3), ("TaskGroup", grouped, 2)):
        price, calls = service()
        await burst(price, callers)
        assert calls == ["ASML"]
        print(f"{name} of {callers}: 1 call, next call: {(said := await told(price, calls))}")
        assert said == "984.75 by call 2"
    price, calls = service()
    await grouped(price, 3)
    assert calls == ["ASML"]
    await asyncio.sleep(0.05)
    print(f"TaskGroup of 3: 1 call, next call: {(said := await told(price, calls))}")
    assert said == "ConnectionError no route, without a call"
    print(f"and the one after that: {(said := await told(price, calls))}")
    assert said == "984.75 by call 2"


asyncio.run(main())
PROGRAM
