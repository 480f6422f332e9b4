"""Coroutine functions at the worst moments: amid a section of their own thread."""

import asyncio
import threading

import pytest

from singleflight import single_flight_ttl, turns

from ..drivers import PATIENCE, Gate, InThread


@pytest.mark.parametrize("section", ["the mutex", "its store"])
def test_a_loop_that_runs_amid_a_section(section):
    """A signal handler that runs a loop there neither waits nor keeps others out: it calls directly."""
    gate, entered, values = Gate(), threading.Event(), []

    @single_flight_ttl(ttl=60, key=lambda: "k")
    def plain():
        entered.set()
        gate.pass_()
        return "led"

    @plain.twin
    async def coroutine():
        return "directly"

    async def lead():
        return plain()

    async def handle():
        with turns.mutex if section == "the mutex" else plain._self_memo.store._lock:
            values.append(asyncio.run(asyncio.wait_for(coroutine(), PATIENCE / 5)))

    leader = InThread(lead, ())
    assert entered.wait(PATIENCE)
    outcome = InThread(handle, ()).outcome()
    gate.set()
    assert leader.outcome() == "led"
    assert (outcome, values) == (None, ["directly"])
