"""Executions and metrics of functions with `store=`: what runs in another process is none of this one's."""

import pytest
from prometheus_client import CollectorRegistry

from singleflight.process.registry import observe
from singleflight.prometheus import register

from ..drivers import PATIENCE
from .fleets import Loads, called, start, waits_elsewhere


class Observer:
    wants = frozenset()

    def __init__(self):
        self.steps = []

    def __call__(self, event):
        raise AssertionError

    def executing(self, execution):
        self.steps.append((execution.kind, execution.keys))
        return self

    def __enter__(self):
        self.steps.append("enter")

    def __exit__(self, *_):
        self.steps.append("exit")


@pytest.mark.parametrize("colour", ["threads", "tasks"])
def test_only_the_process_that_calls_enters(fleet, pool, colour):
    """Neither waiting for another process nor finding its value is an execution."""
    body = Loads()
    a, b = fleet(body, colour), fleet(body, colour)
    ours, theirs = Observer(), Observer()
    stops = [observe(ours, a), observe(theirs, b)]
    registry = CollectorRegistry()
    collector = register(registry)
    try:
        body.gate.clear()
        first = start(pool, a, "ASML")
        assert body.entered.acquire(timeout=PATIENCE)
        second = start(pool, b, "ASML")
        waits_elsewhere(b)
        assert ours.steps[1:] == ["enter"]
        body.gate.set()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (984.75, 984.75)
        assert called(b, "ASML") == 984.75
        assert ours.steps[1:] == ["enter", "exit"]
        assert theirs.steps == []
        labels = {"name": a.name}  # both have this name: they stand for one function of two processes
        assert b.name == a.name
        stats = [each.stats() for each in (a, b)]
        for count in ("calls", "shared_waits", "shared_hits"):
            found = registry.get_sample_value(f"singleflight_{count}_total", labels)
            assert found >= sum(getattr(each, count) for each in stats)
    finally:
        collector.unregister()
        for stop in stops:
            stop()
