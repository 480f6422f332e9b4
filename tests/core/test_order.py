"""Who runs out next, against a model that looks at every record."""

import gc
import weakref
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from singleflight.storage.entry import AgeingRecord, record_of
from singleflight.storage.expiry import Order

LIFE = 60.0


def end(record):
    return record.landed + record.ttl + record.grace


class OrderMachine(RuleBasedStateMachine):
    """Records come, leave and run out; time moves on, or also back."""

    life = LIFE
    steps = (0.25, 1.0, 30.0, 59.0, 60.0)

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.order = Order()
        self.model = []

    @rule(ttl=st.sampled_from([0.3, 2.0, 64.0, 70.1, 1000.0]), grace=st.sampled_from([0.0, 5.0]))
    def add(self, ttl, grace):
        if self.order.due <= self.now:
            self.expire()
        if self.life is None:
            record = AgeingRecord(object(), None, self.now, ttl, grace)
        else:
            record = record_of(object(), None, self.now, self.life)
        self.order.add(record)
        self.model.append(record)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        record = self.model.pop(data.draw(st.integers(0, len(self.model) - 1)))
        self.order.remove(record)

    @rule(data=st.data())
    def tick(self, data):
        step = data.draw(st.sampled_from(self.steps))
        self.now += step

    @rule()
    def expire(self):
        expected = [record for record in self.model if end(record) <= self.now]
        gone = self.order.expire(self.now)
        assert len(gone) == len(expected)
        assert set(gone) == set(expected)
        self.model = [record for record in self.model if record not in gone]

    @invariant()
    def nothing_runs_out_before_it_is_due(self):
        if self.now < self.order.due:
            assert all(self.now < end(record) for record in self.model)

    def teardown(self):
        """In the end everything runs out, if anything does."""
        if self.life != inf:
            assert set(self.order.expire(1e9)) == set(self.model)
            assert self.order.expire(2e9) == []


class SteppingBack(OrderMachine):
    """The clock steps back at times: lives get longer by that, and nothing is lost or raised."""

    steps = (-40.0, -0.5, 0.25, 1.0, 30.0, 60.0)


class Varying(OrderMachine):
    """A life for each."""

    life = None


class VaryingSteppingBack(SteppingBack):
    """A life for each, and a clock that steps back."""

    life = None


class ForEver(OrderMachine):
    """Nothing runs out."""

    life = inf


TestFixed, TestFixedBack, TestVarying, TestVaryingBack, TestForEver = (
    OrderMachine.TestCase,
    SteppingBack.TestCase,
    Varying.TestCase,
    VaryingSteppingBack.TestCase,
    ForEver.TestCase,
)
for case in (TestFixed, TestFixedBack, TestVarying, TestVaryingBack, TestForEver):
    case.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
del case  # or it would be collected once more


def test_nothing_that_left_is_kept_alive():
    """Neither what was removed nor what ran out is referred to by the order or by what stays."""

    class Value:
        pass

    order, records, seen = Order(), [], []
    gc.disable()
    try:
        for number in range(50):
            value = Value()
            seen.append(weakref.ref(value))
            records.append(record_of(object(), value, number * 0.5, 60.0))
            order.add(records[-1])
        del value
        for _ in range(10):
            order.remove(records.pop(20))
        assert [ref() is None for ref in seen] == [False] * 20 + [True] * 10 + [False] * 20
        gone = order.expire(65.0)
        records = [record for record in records if record not in gone]
        del gone
        assert sum(ref() is None for ref in seen) == 10 + 11
    finally:
        gc.enable()


def test_there_are_few_batches():
    """However many records there are, batches last for a thirty-second to a sixty-fourth of one life."""
    order = Order()
    for number in range(10_000):
        now = number * 0.05
        if order.due <= now:
            order.expire(now)
        order.add(record_of(number, None, now, 60.0))
    assert 33 <= len(order._batches) <= 65


def test_a_grace_puts_off_when_to_ask():
    """Nobody need look for what has run out before a value has, grace included."""
    order = Order()
    order.add(AgeingRecord("key", None, 0.0, 64.0, grace=1000.0))
    assert 1060.0 < order.due <= 1064.0


def test_a_grace_is_told_exactly():
    """A value goes when its grace is over, and not when the time begins in which its batch ends."""
    order, record = Order(), AgeingRecord("key", None, 0.0, 70.0, grace=5.5)
    order.add(record)
    assert order.due == 74.0
    assert order.expire(75.4) == []
    assert order.due == 75.5
    assert order.expire(75.5) == [record]


def test_a_batch_that_is_emptied_goes():
    """What is stored and dropped again and again, long before its end, leaves nothing behind."""
    order = Order()
    for number in range(10):
        record = record_of(number, None, number * 100.0, 3600.0)
        order.add(record)
        order.remove(record)
    assert len(order._batches) == 0


@pytest.mark.parametrize("life", [1e-12, 5e-324])
def test_a_life_too_short_for_the_clock(life):
    """Where `landed + ttl` is `landed`, it has run out at once and is told so once."""
    order, record = Order(), record_of("key", None, 1e6, life)
    order.add(record)
    assert order.expire(1e6) == [record]
    assert order.expire(1e6) == []
