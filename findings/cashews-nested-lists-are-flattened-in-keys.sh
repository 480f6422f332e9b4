#!/usr/bin/env bash
# cashews 7.6.0: lists in lists are flattened in keys, so a call gets the value of a list of another shape.
#
# A list among the arguments stands in the key as its items with colons between them, and so do lists in it. So
# `shape([[1, 2], [3, 4]])` and `shape([[1, 2, 3, 4]])` have one key, and the value of the first call is served to both.
# A template with `{matrix:hash}` does not help: it hashes the flattened text.
#
# A good guess gets it wrong because an object of any other type is put into the key by `str()`, and `str()` of a list has its
# brackets.
#
# Output seen:
#
#     the key: __main__:shape:matrix:1:2:3:4
#     [[1, 2], [3, 4]] -> (2, 2)
#     [[1, 2, 3, 4]] -> (2, 2), should be (1, 4)
#     [[1], [2], [3], [4]] -> (2, 2), should be (4, 1)
#     with hash: [[1, 2, 3, 4]] -> (2, 2), should be (1, 4)
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
SQUARE, ROW, COLUMN = [[1, 2], [3, 4]], [[1, 2, 3, 4]], [[1], [2], [3], [4]]


def measured(matrix):
    return len(matrix), len(matrix[0])


@cache(ttl="10m")
async def shape(matrix):
    return measured(matrix)


@cache(ttl="10m", key="hashed:{matrix:hash}")
async def hashed(matrix):
    return measured(matrix)


async def main():
    with cache.detect as detected:
        await shape(SQUARE)
        await shape(SQUARE)
        (key,) = detected.calls
    print("the key:", key)
    for matrix in (SQUARE, ROW, COLUMN):
        got, right = await shape(matrix), measured(matrix)
        print(f"{matrix} -> {got}" + ("" if got == right else f", should be {right}"))
        assert got == (2, 2)
    await hashed(SQUARE)
    got = await hashed(ROW)
    print(f"with hash: {ROW} -> {got}, should be {measured(ROW)}")
    assert got == (2, 2)


asyncio.run(main())
PROGRAM
"$folder/venv/bin/python" "$folder/program.py"
