#!/usr/bin/env bash
# cashews 7.6.0: a call with keyword arguments alone shares its entry with a call that passes None, and gets that one's value.
#
# The key of a call is made from a template of its parameters. If at least one argument is given by place, defaults are filled
# in: `rows("orders")` and `rows("orders", limit=10)` are one key, `rows("orders", limit=None)` is another. If all arguments
# are given by name, defaults are not filled in, and stand in the key as an empty text. So does None. So
# `rows(table="orders")`, which returns ten rows, and `rows(table="orders", limit=None)`, which returns all, are one key:
# whichever comes first is served to both. And `rows("orders")` and `rows(table="orders")` are two.
#
# A good guess gets it wrong because by place it works, and because the values in the key are those of the call that was made. A
# shortcut in `get_cache_key` takes the keyword arguments as they are where there are no others.
#
# Output seen:
#
#     by place: 10 rows, with limit=None 25 rows
#     by name: 10 rows, with limit=None 10 rows
#     the other way round: with limit=None 25 rows, without 25 rows
#     calls for rows("orders") and rows(table="orders"): 2
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check cashews==7.6.0
cat > "$folder/program.py" <<'PROGRAM'
import asyncio

from cashews import Cache

cache = Cache()
cache.setup("mem://")
calls = 0


@cache(ttl="10m")
async def rows(table, limit=10):
    global calls
    calls += 1
    return list(range(25))[:limit]


async def main():
    few, every = len(await rows("orders")), len(await rows("orders", limit=None))
    print(f"by place: {few} rows, with limit=None {every} rows")
    assert (few, every) == (10, 25)
    await cache.clear()

    few, every = len(await rows(table="orders")), len(await rows(table="orders", limit=None))
    print(f"by name: {few} rows, with limit=None {every} rows")
    assert (few, every) == (10, 10)
    await cache.clear()

    every, few = len(await rows(table="orders", limit=None)), len(await rows(table="orders"))
    print(f"the other way round: with limit=None {every} rows, without {few} rows")
    assert (every, few) == (25, 25)
    await cache.clear()

    before = calls
    await rows("orders")
    await rows(table="orders")
    print('calls for rows("orders") and rows(table="orders"):', calls - before)
    assert calls - before == 2


asyncio.run(main())
PROGRAM
"$folder/venv/bin/python" "$folder/program.py"
