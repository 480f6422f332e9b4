#!/usr/bin/env bash
# async-lru 2.4.0: a call that was invalidated, and then fails, takes the entry of the newer call for its key away.
#
# `cache_invalidate` while a call is in progress does what one hopes for: the next caller starts a call of its own, and the old
# value is not stored. But when the old call ends with an exception, the newer call loses its place: a third caller does not
# join it and starts a third call, and the newer call's value is not stored.
#
# A good guess gets it wrong because the failed call was invalidated, so it has no entry to remove, and because the library
# promises one call for concurrent callers. The callback of every task removes what is stored under its key when it
# failed, whichever task put it there.
#
# Output seen:
#
#     the old call succeeds: calls 2, stored True, then 'value 2'
#     the old call fails: calls 3, stored False, then 'value 3'
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check async-lru==2.4.0
"$folder/venv/bin/python" - <<'PROGRAM'
import asyncio

from async_lru import alru_cache


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def scene(old_fails):
    """Start a call, invalidate it, start another; end the first; then ask a third time, while the second is in progress."""
    ends = []

    @alru_cache
    async def price(symbol):
        end, number = asyncio.Event(), len(ends) + 1
        ends.append(end)
        await end.wait()
        if number == 1 and old_fails:
            raise ConnectionError("no route")
        return f"value {number}"

    async def ask():
        task = asyncio.create_task(price("ASML"))
        await settle()
        return task

    old = await ask()
    assert price.cache_invalidate("ASML")
    new = await ask()
    assert len(ends) == 2
    ends[0].set()
    (outcome,) = await asyncio.gather(old, return_exceptions=True)
    assert isinstance(outcome, ConnectionError) if old_fails else outcome == "value 1"
    await settle()
    stored = price.cache_contains("ASML")
    third = await ask()
    calls = len(ends)
    for end in ends:
        end.set()
    assert await new == "value 2"
    return calls, stored, await third


print("the old call succeeds: calls {}, stored {}, then {!r}".format(*(seen := asyncio.run(scene(False)))))
assert seen == (2, True, "value 2")
print("the old call fails: calls {}, stored {}, then {!r}".format(*(seen := asyncio.run(scene(True)))))
assert seen == (3, False, "value 3")
PROGRAM
