#!/usr/bin/env bash
# FastAPI 0.165.0 with wrapt 2.5.2: dependencies that wrap one function in different ways are called once, and share an override.
#
# An endpoint has three dependencies: `quote`, and `quote` decorated twice by `wrapt.decorator` with different arguments. It
# gets the first one's result three times. `dependency_overrides` for one of them replaces all three, also where
# `use_cache=False` keeps them apart otherwise.
#
# A good guess gets it wrong because the three are different objects that return different things, and two closures made
# with `functools.wraps` are kept apart. FastAPI keeps what it has called, and overrides, in dicts by the callable itself.
# wrapt's wrappers are transparent for `==` and `hash()`, too: each equals the function that it wraps, and so the other.
#
# Output seen:
#
#     fast == slow == quote: True
#     called directly: ['fast', 'quote'] ['slow', 'quote'] quote
#     as dependencies: [['fast', 'quote'], ['fast', 'quote'], ['fast', 'quote']]
#     without its cache: [['fast', 'quote'], ['slow', 'quote'], 'quote']
#     with functools.wraps: [['fast', 'quote'], ['slow', 'quote'], 'quote']
#     with an override for fast alone: ['override', 'override', 'override']
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check fastapi==0.165.0 starlette==1.10.0 httpx==0.28.1 wrapt==2.5.2
"$folder/venv/bin/python" - <<'PROGRAM'
import asyncio
import functools

import wrapt
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient


def named(name):
    @wrapt.decorator
    def call(wrapped, instance, args, kwargs):
        return [name, wrapped(*args, **kwargs)]

    return call


def plainly_named(name):
    def decorate(function):
        @functools.wraps(function)
        def call():
            return [name, function()]

        return call

    return decorate


def quote():
    return "quote"


fast, slow = named("fast")(quote), named("slow")(quote)
plain_fast, plain_slow = plainly_named("fast")(quote), plainly_named("slow")(quote)
app = FastAPI()


@app.get("/cached")
def cached(a=Depends(fast), b=Depends(slow), c=Depends(quote)):
    return [a, b, c]


@app.get("/called")
def called(
    a=Depends(fast, use_cache=False), b=Depends(slow, use_cache=False), c=Depends(quote, use_cache=False)
):
    return [a, b, c]


@app.get("/closures")
def closures(a=Depends(plain_fast), b=Depends(plain_slow), c=Depends(quote)):
    return [a, b, c]


def get(path):
    async def ask():
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            return (await client.get(path)).json()

    return asyncio.run(ask())


APART = [["fast", "quote"], ["slow", "quote"], "quote"]
print("fast == slow == quote:", fast == slow == quote)
assert fast == slow == quote
print("called directly:", fast(), slow(), quote())
assert [fast(), slow(), quote()] == APART
print("as dependencies:", got := get("/cached"))
assert got == [["fast", "quote"]] * 3
print("without its cache:", got := get("/called"))
assert got == APART
print("with functools.wraps:", closed := get("/closures"))
assert closed == APART
app.dependency_overrides[fast] = lambda: "override"
print("with an override for fast alone:", got := get("/called"))
assert got == ["override"] * 3
PROGRAM
