"""Calls that fail, and what is left of their exceptions where nobody collects garbage."""

import asyncio
import gc
import logging
from functools import partial

from singleflight import single_flight_ttl

__all__ = ["COLOURS", "FORMS", "WAYS", "Refused", "left_of", "made"]

COLOURS = ["threads", "tasks"]
FORMS = ["single", "bulk", "gathered"]
WAYS = ["body", "cache_if", "ttl", "tags", "grace", "unshareable", "failure_ttl", "stored"]


class Refused(Exception):
    """What the scenes' own code raises."""


def refuse(*_):
    raise Refused


def options_of(way):
    """The options by which a call fails in this way."""
    if way in ("cache_if", "ttl", "tags", "grace"):
        return {way: refuse}
    return {"failure_ttl": {"failure_ttl": refuse, "stored": 60}.get(way, 0)}


def respond(way):
    """What the body returns: a value that fails later, if it does not raise."""
    if way in ("body", "failure_ttl", "stored"):
        raise Refused
    return (number for number in ()) if way == "unshareable" else 1


def made(colour, form, way, **options):
    """Return what calls a function, without arguments, so that the call fails in this way."""
    options = {"ttl": 60, **options_of(way), **options}
    asynchronous = colour == "tasks"

    def body(symbol):
        return respond(way)

    async def task_body(symbol):
        return respond(way)

    def load(symbols):
        return {symbol: respond(way) for symbol in symbols}

    async def task_load(symbols):
        return {symbol: respond(way) for symbol in symbols}

    price = single_flight_ttl(**options)(task_body if asynchronous else body)
    bulk = price.bulk(**({"gather": 0.001} if form == "gathered" else {}))(
        task_load if asynchronous else load
    )
    return partial(bulk, ["A", "B"]) if form == "bulk" else partial(price, "A")


def left_of(call, asynchronous):
    """How many exceptions of a failed call are left when it is over, before garbage is collected."""

    def failed(error):
        return isinstance(error, Refused | TypeError) and not isinstance(error, type)

    def alive():
        return sum(failed(each) for each in gc.get_objects())

    async def called():
        await asyncio.sleep(0)
        before = alive()
        try:
            await call()
        except (Refused, TypeError):
            pass
        else:
            raise AssertionError("it has not failed")
        for _ in range(3):
            await asyncio.sleep(0)
        return alive() - before

    gc.collect()
    gc.disable()
    logging.disable()  # pytest keeps what is logged, with the exception
    try:
        if asynchronous:
            return asyncio.run(called())
        before = alive()
        try:
            call()
        except (Refused, TypeError):
            pass
        else:
            raise AssertionError("it has not failed")
        return alive() - before
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()
