"""The cache that holds the entries, against a model of all records: who runs out, and who goes."""

import gc
import itertools
import sys
import weakref
from math import inf
from unittest.mock import patch

import cachetools
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from singleflight.storage import expiry
from singleflight.storage.expiry import cache_for
from singleflight.storage.record import AgeingRecord, record_of

LIVES = pytest.mark.parametrize("ttl", [None, 60.0, inf], ids=["own lives", "one life", "for ever"])


def end(record):
    return record.landed + record.ttl + record.grace


def records(ran_out):
    return [record for _, record in ran_out]


class CacheMachine(RuleBasedStateMachine):
    """Records come, leave, are read, run out and are evicted; time moves on, or also back."""

    life = 60.0
    maxsize = inf
    steps = (0.25, 1.0, 30.0, 59.0, 60.0)

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.cache = cache_for(self.maxsize, self.life)
        self.model = []

    @rule(ttl=st.sampled_from([0.3, 2.0, 64.0, 70.1, 1000.0]), grace=st.sampled_from([0.0, 5.0]))
    def hold(self, ttl, grace):
        if self.life is None:
            record = AgeingRecord(object(), None, self.now, ttl, grace)
        else:
            record = record_of(object(), None, self.now, self.life)
        gone = self.cache.hold(record)
        assert len(gone) == max(0, len(self.model) + 1 - self.maxsize)
        self.model = [kept for kept in [*self.model, record] if kept not in gone]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        record = self.model.pop(data.draw(st.integers(0, len(self.model) - 1)))
        del self.cache[record.place]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def read(self, data):
        data.draw(st.sampled_from(self.model)).hits += 1

    @rule(data=st.data())
    def tick(self, data):
        self.now += data.draw(st.sampled_from(self.steps))

    @rule()
    def run_out(self):
        """What is found at once is over, and all of it where the clock never stepped back."""
        expected = {record for record in self.model if end(record) <= self.now}
        gone = records(self.cache.run_out(self.now))
        assert set(gone) == expected if min(self.steps) > 0 else set(gone) <= expected
        self.model = [record for record in self.model if record not in gone]

    @rule()
    def run_out_exactly(self):
        gone = records(self.cache.run_out_exactly(self.now))
        assert len(gone) == len(set(gone))
        assert set(gone) == {record for record in self.model if end(record) <= self.now}
        self.model = [record for record in self.model if record not in gone]

    @invariant()
    def the_same_records(self):
        assert len(self.cache) == len(self.model)
        assert dict(self.cache.items()) == {record.place: record for record in self.model}

    def teardown(self):
        """In the end everything runs out, if anything does."""
        if self.life != inf:
            assert set(records(self.cache.run_out_exactly(1e9))) == set(self.model)
            assert len(self.cache) == 0


CASES = []
for number, (life_, maxsize_, back) in enumerate(
    itertools.product([60.0, None, inf], [inf, 3], [(), (-40.0, -0.5)])
):
    members = {"life": life_, "maxsize": maxsize_, "steps": (*CacheMachine.steps, *back)}
    CASES.append(type(f"CacheMachine{number}", (CacheMachine,), members).TestCase)
    CASES[-1].settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("case", CASES)
def test_against_the_model(case):
    """For each kind of life, with and without a limit, also where the clock steps back."""
    case().runTest()


@pytest.mark.parametrize(
    ("ttl", "kind"), [(60.0, cachetools.TTLCache), (None, cachetools.TLRUCache), (inf, cachetools.Cache)]
)
def test_it_is_one_of_cachetools(ttl, kind):
    """A TTLCache where one life serves all, a TLRUCache where lives differ, and one without a clock."""
    cache = cache_for(2, ttl)
    assert isinstance(cache, kind)
    assert isinstance(cache, cachetools.TTLCache | cachetools.TLRUCache) == (ttl != inf)
    assert (cache.maxsize, len(cache)) == (2, 0)


@LIVES
def test_nothing_that_left_is_kept_alive(ttl):
    """Neither what was removed, evicted nor what ran out is referred to by the cache or by what stays."""

    class Value:
        pass

    cache, kept, seen = cache_for(50, ttl), [], []
    gc.disable()
    try:
        for number in range(60):
            value = Value()
            seen.append(weakref.ref(value))
            kept.append(record_of(object(), value, number * 0.5, ttl or 60.0))
            cache.hold(kept[-1])
        del value, kept[:10]
        for _ in range(10):
            del cache[kept.pop(20).place]
        assert [ref() is None for ref in seen] == [True] * 10 + [False] * 20 + [True] * 10 + [False] * 20
        gone = records(cache.run_out(70.0))
        assert len(gone) == (0 if ttl == inf else 11)
        kept = [record for record in kept if record not in gone]
        del gone
        assert sum(ref() is None for ref in seen) == (20 if ttl == inf else 31)
    finally:
        gc.enable()


@LIVES
def test_a_cache_goes_without_the_collector(ttl):
    """Nothing that it holds leads back to it: what it holds goes when it goes."""

    class Value:
        pass

    cache, value = cache_for(2, ttl), Value()
    cache.hold(record_of(object(), value, 0.0, ttl or 60.0))
    seen = weakref.ref(value)
    gc.disable()
    try:
        del cache, value
        assert seen() is None
    finally:
        gc.enable()


@LIVES
def test_what_comes_and_goes_leaves_nothing_behind(ttl):
    """What is stored and dropped again and again, long before its end, takes no room."""

    def size():
        return sum(len(part) for part in vars(cache).values() if isinstance(part, list | dict))

    cache = cache_for(inf, ttl)
    before = size()
    for number in range(100):
        cache.run_out(float(number))
        record = record_of(number, None, float(number), ttl or 3600.0)
        cache.hold(record)
        del cache[record.place]
    assert size() - before <= 2


def test_a_grace_is_told_exactly():
    """A value goes when its grace is over, and not before."""
    cache, record = cache_for(inf, None), AgeingRecord("key", None, 0.0, 70.0, grace=5.5)
    cache.hold(record)
    assert cache.run_out(75.4) == []
    assert records(cache.run_out(75.5)) == [record]


@pytest.mark.parametrize("life", [1e-12, 5e-324])
@pytest.mark.parametrize("is_one", [False, True])
def test_a_life_too_short_for_the_clock(life, is_one):
    """Where `landed + ttl` is `landed`, it has run out at once and is told so once."""
    cache, record = cache_for(2, life if is_one else None), record_of("key", None, 1e6, life)
    assert cache.hold(record) == []
    assert records(cache.run_out(1e6)) == [record]
    assert cache.run_out_exactly(1e6) == []


def test_what_landed_earlier_than_the_one_before_it_still_runs_out():
    """Where a clock has stepped back it is found when somebody looks for all, and else when that one goes."""
    cache, first, second = cache_for(inf, 60.0), record_of("a", 1, 100.0, 60.0), record_of("b", 1, 50.0, 60.0)
    for record in (first, second, third := record_of("c", 1, 101.0, 60.0)):
        cache.hold(record)
    assert cache.run_out(159.0) == []
    assert records(cache.run_out_exactly(159.0)) == [second]
    cache.hold(fourth := record_of("d", 1, 50.0, 60.0))
    assert records(cache.run_out(161.0)) == [first, third, fourth]


@pytest.mark.parametrize("used", [False, True])
def test_one_that_is_over_and_hidden_is_evicted_like_any_other(used):
    """cachetools raises when it takes out what is over; whoever stores does not see that."""
    cache = cache_for(2, 60.0)
    cache.hold(first := record_of("a", 1, 100.0, 60.0))
    cache.hold(hidden := record_of("b", 1, 50.0, 60.0))
    first.hits += 1
    hidden.hits += used
    assert cache.run_out(120.0) == []
    assert cache.hold(record_of("c", 1, 120.0, 60.0)) == [first if used else hidden]
    assert len(cache) == 2


@LIVES
def test_the_clock_stands_still(ttl):
    """Asked at any time, as by a debugger, it shows all that is held and lets nothing run out."""
    cache, record = cache_for(2, ttl), record_of("a", 1, -1e9, ttl or 1.0)
    cache.hold(record)
    assert (len(cache), list(cache), list(cache.values())) == (1, [record.place], [record])
    assert record.place in cache
    assert cache.get(record.place) is record
    assert not cache.expire()
    assert cache.currsize == 1


@LIVES
def test_a_hand_goes_round(ttl):
    """Who was read since it last came by is spared, once; newcomers wait for the next round."""
    cache = cache_for(3, ttl)
    held = {key: record_of(key, key, 0.0, ttl or 10.0) for key in "abcdefgh"}
    for key in "abc":
        cache.hold(held[key])
    held["a"].hits += 1
    gone = []
    for key in "defgh":
        (went,) = cache.hold(held[key])
        gone.append(went.key)
        held["d"].hits += 1
    assert gone == ["b", "c", "a", "e", "f"]


@LIVES
def test_an_eviction_looks_at_few(ttl):
    """Where everything was used, one goes all the same, after as many looks as one eviction has."""
    with patch.object(expiry, "_LOOKS", 5):
        cache = cache_for(100, ttl)
        held = [record_of(key, key, 0.0, ttl or 10.0) for key in range(100)]
        for record in held:
            cache.hold(record)
            record.hits += 1
        assert cache.hold(record_of(100, 1, 0.0, ttl or 10.0)) == [held[4]]
        assert [record.hits == record.passed for record in held[:6]] == [True] * 4 + [False] * 2


@LIVES
def test_nothing_to_evict(ttl):
    """cachetools' own error, and no search without an end."""
    with pytest.raises(KeyError, match="nothing"):
        cache_for(1, ttl).popitem()


def test_the_end_of_a_life_is_one_number():
    """cachetools keeps the very number that the record has: an entry takes no room for a second one."""
    record = record_of("a", 1, 1000.25, 60.0)
    before = sys.getrefcount(record.deadline)
    cache = cache_for(inf, 60.0)
    cache.hold(record)
    after = sys.getrefcount(record.deadline)
    assert after == before + 1
    assert records(cache.run_out(1060.25)) == [record]


def test_a_record_that_is_closed_lives_as_long_as_others():
    """Reads of it are to take the longer way, so its `deadline` says nothing of its end."""
    cache = cache_for(inf, 60.0)
    record = record_of("a", 1, 1000.25, 60.0)
    record.deadline = -inf
    cache.hold(record)
    assert not records(cache.run_out(1060.0))
    assert records(cache.run_out(1060.25)) == [record]


def test_a_hidden_record_runs_out_at_the_very_end_of_its_life():
    """One that landed earlier than what came before it, for the clock had stepped back."""
    cache = cache_for(inf, 60.0)
    later, hidden = record_of("a", 1, 1000.0, 60.0), record_of("b", 1, 990.0, 60.0)
    cache.hold(later)
    cache.hold(hidden)
    assert not records(cache.run_out_exactly(1049.75))
    assert records(cache.run_out_exactly(1050.0)) == [hidden]


@LIVES
def test_what_cachetools_raises_is_raised(ttl):
    """Its timers are entered around what it does: nothing is suppressed there."""
    cache = cache_for(0, ttl)
    with pytest.raises(ValueError, match="too large"):
        cache[object()] = record_of("a", 1, 1000.0, 60.0)
    with pytest.raises(KeyError) as raised:
        cache.popitem()
    assert raised.value.args == ("nothing is left to evict",)


def test_it_says_what_its_ttl_is():
    """As cachetools' own."""
    assert cache_for(8, 60.0).ttl == 60.0
