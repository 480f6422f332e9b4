"""Who is evicted by a chosen class of cachetools, against that very class; and classes that do not behave."""

import math
import random
from fractions import Fraction

import cachetools
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from singleflight.storage import policy
from singleflight.storage.expiry import cache_for
from singleflight.storage.policy import ChosenCache, checked_policy, new_cache, wants_hits, weight_from
from singleflight.storage.record import WeighedRecord, record_of
from singleflight.storage.store import Store

KEYS = st.integers(0, 7)
WEIGHTS = st.sampled_from([0, 1, 2, Fraction(1, 3), Fraction(7, 2), 4])


class Middle(cachetools.RRCache):
    """Its choice is no chance, so that two of them choose alike."""

    def __init__(self, maxsize, getsizeof=None):
        super().__init__(maxsize, choice=lambda keys: keys[len(keys) // 2], getsizeof=getsizeof)


class MostRecent(cachetools.LRUCache):
    """A class of the user's own, which evicts the newest."""

    def popitem(self):
        key = list(self)[-1]
        return key, self.pop(key)


def plain(kind, maxsize, weighed):
    """The class as cachetools has it; nothing runs out there."""
    options = {"getsizeof": lambda record: record.weight} if weighed else {}
    if issubclass(kind, cachetools.TTLCache):
        options["ttl"] = math.inf
    elif issubclass(kind, cachetools.TLRUCache):
        options["ttu"] = lambda key, value, now: math.inf
    return kind(maxsize, **options)


def held(cache):
    """What it holds, read without being told."""
    read = cachetools.Cache.__getitem__
    return {key: read(cache, key) for key in cachetools.Cache.__iter__(cache)}


def record_for(key, now, ttl, weight, weighed):
    if not weighed:
        return record_of(key, object(), now, ttl)
    record = WeighedRecord(key, object(), now, ttl)
    record.tags, record.weight = (), weight
    return record


class PolicyMachine(RuleBasedStateMachine):
    """Puts, hits, drops, steps of time; a cache of that class is given the same sequence."""

    kind = cachetools.LRUCache
    weighed = per_entry = False
    maxsize = 4

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.store = Store(self.maxsize, None if self.per_entry else 10.0, self.kind, self.weighed)
        self.model = plain(self.kind, self.maxsize, self.weighed)
        self.left = 0

    @rule(key=KEYS, ttl=st.sampled_from([1.0, 5.0, 50.0]), weight=WEIGHTS)
    def put(self, key, ttl, weight):
        self.now += 0.001
        record = record_for(key, self.now, ttl if self.per_entry else 10.0, weight, self.weighed)
        gone = self.store.put(record)
        for old in gone:
            if old.serves_for(self.now) <= 0:
                del self.model[old.key]
        before = set(held(self.model).values())
        self.model[key] = record
        evicted = {old for old in before - set(held(self.model).values()) if old.key != key}
        assert {old for old in gone if old.serves_for(self.now) > 0} == evicted
        self.left += len(evicted)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def hit(self, data):
        key = data.draw(st.sampled_from(sorted(self.store.index)))
        record = self.store.index[key]
        if self.now < record.deadline:
            assert self.store.used(record) == []
            assert self.model[key] is record

    @rule(key=KEYS)
    def drop(self, key):
        assert self.store.drop(key) is self.model.pop(key, None)

    @rule(step=st.sampled_from([0.5, 3.0, 20.0]))
    def tick(self, step):
        self.now += step

    @rule()
    def expire(self):
        for record in self.store.expire(self.now):
            assert record.serves_for(self.now) <= 0
            del self.model[record.key]
        assert all(record.serves_for(self.now) > 0 for record in self.store.records())

    @rule()
    def clear(self):
        self.store.clear()
        self.model = plain(self.kind, self.maxsize, self.weighed)
        self.left = 0

    @rule()
    def rebuild(self):
        """A mutation was cut short: the next one makes the cache anew, oldest landing first."""
        self.store._torn = True
        self.store.expire(-1.0)  # some section, at a time when nothing runs out
        kept = sorted(self.store.records(), key=lambda record: record.landed)
        self.model = plain(self.kind, self.maxsize, self.weighed)
        for record in kept:
            self.model[record.key] = record

    @invariant()
    def the_same_entries(self):
        assert dict(self.store.index) == held(self.model)
        assert self.store.evictions == self.left
        cache = self.store._cache
        assert dict(cache.items()) == {record.place: record for record in self.store.records()}
        weight = sum(record.weight for record in self.store.records())
        assert weight <= self.maxsize
        assert self.store.weight() == pytest.approx(float(weight))


KINDS = [
    *(cachetools.LRUCache, cachetools.LFUCache, cachetools.FIFOCache, cachetools.TLRUCache),
    *(Middle, MostRecent, cachetools.Cache, type("Aged", (cachetools.TTLCache,), {})),
]
CASES = {}
for kind_ in KINDS:
    for weighed_ in (False, True):
        members = {"kind": kind_, "weighed": weighed_, "per_entry": len(CASES) % 3 == 0}
        name_ = f"{kind_.__name__}{' weighed' * weighed_}"
        CASES[name_] = type(f"Policy{len(CASES)}", (PolicyMachine,), members).TestCase
        CASES[name_].settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_same_survivors(case):
    """For each class, weighed or not: what is stored is what a cache of that class holds."""
    case().runTest()


class Rogue(cachetools.LRUCache):
    """Does what it is told to do next, instead of what it should."""

    mischief = None

    def turn(self, *kinds):
        if Rogue.mischief in kinds:
            kind, Rogue.mischief = Rogue.mischief, None
            return kind
        return None

    def __getitem__(self, key):
        turned = self.turn("read raises", "read drops", "read drops another")
        if turned == "read raises":
            raise RuntimeError(turned)
        if turned == "read drops":
            del self[key]
            return None
        if turned:
            cachetools.Cache.__delitem__(self, next(iter(self)))
            return None
        return super().__getitem__(key)

    def __setitem__(self, key, value, **more):
        turned = self.turn("set raises", "set keeps nothing", "set raises after", "set brings another")
        if turned == "set raises":
            raise RuntimeError(turned)
        if turned == "set keeps nothing":
            self.pop(key, None)
            return
        super().__setitem__(key, value, **more)
        if turned == "set raises after":
            raise RuntimeError(turned)
        if turned:
            cachetools.Cache.__setitem__(self, object(), value)

    def __delitem__(self, key, **more):
        turned = self.turn("delete raises", "delete raises after", "delete takes all")
        if turned == "delete raises":
            raise RuntimeError(turned)
        super().__delitem__(key, **more)
        if turned == "delete raises after":
            raise RuntimeError(turned)
        if turned:
            self.clear()

    def popitem(self):
        turned = self.turn("pop raises", "pop takes two", "pop goes its own way", "pop lies")
        if turned == "pop raises":
            raise RuntimeError(turned)
        if turned == "pop goes its own way":
            cachetools.Cache.__delitem__(self, next(iter(self)))
            return None
        if turned == "pop lies":
            super().popitem()
            return "nonsense"
        if turned and len(self) > 1:
            super().popitem()
        return super().popitem()


MISCHIEF = [
    *("read raises", "read drops", "read drops another"),
    *("set raises", "set keeps nothing", "set raises after", "set brings another"),
    *("delete raises", "delete raises after", "delete takes all"),
    *("pop raises", "pop takes two", "pop goes its own way", "pop lies"),
]


class RogueMachine(RuleBasedStateMachine):
    """Whatever the class does, what is served was stored last, and was not dropped."""

    weighed = False
    maxsize = 3

    def __init__(self):
        super().__init__()
        Rogue.mischief = None
        self.now = 0.0
        self.store = Store(self.maxsize, 1000.0, Rogue, self.weighed)
        self.last = {}  # what may be served; an eviction may have taken it

    @rule(kind=st.sampled_from(MISCHIEF))
    def mischief(self, kind):
        Rogue.mischief = kind

    @rule(key=KEYS, weight=st.sampled_from([0, 1, 2, 3]))
    def put(self, key, weight):
        self.now += 1.0
        record = record_for(key, self.now, 1000.0, weight, self.weighed)
        old = self.store.index.get(key)
        try:
            gone = self.store.put(record)
        except (RuntimeError, KeyError):
            assert self.store.index.get(key) in (old, None)
            return
        if gone is None:
            assert self.store.index.get(key) is None
            return
        assert self.store.index[key] is record
        assert len(gone) == len(set(gone))
        self.last[key] = record

    @rule(key=KEYS)
    def hit(self, key):
        record = self.store.index.get(key)
        if record is not None:
            try:
                self.store.used(record)
            except (RuntimeError, KeyError):
                assert self.store._torn

    @rule(key=KEYS)
    def drop(self, key):
        """It goes for certain, whatever the class thinks of that."""
        there = self.store.index.get(key)
        assert self.store.drop(key) is there
        assert key not in self.store.index
        self.last.pop(key, None)

    @rule()
    def clear(self):
        self.store.clear()
        assert self.store.records() == []
        self.last.clear()

    @invariant()
    def what_is_served_is_what_came_last(self):
        for key, record in self.store.index.items():
            assert self.last[key] is record
        if not self.store._torn:
            cache = self.store._cache
            assert dict(cache.items()) == {record.place: record for record in self.store.records()}
            assert all(record.place is not None for record in self.store.records())

    @invariant()
    def what_has_left_is_closed(self):
        for key, record in list(self.last.items()):
            if self.store.index.get(key) is not record:
                assert record.place is None
                assert record.deadline == -math.inf
                del self.last[key]

    def teardown(self):
        """Once it behaves, everything is in step again, and the limit holds."""
        Rogue.mischief = None
        for number in range(10):  # one of them may find what was wrong: then all is made anew
            try:
                self.store.put(record_for(100 + number, self.now + 1, 1000.0, 1, self.weighed))
            except (RuntimeError, KeyError):
                continue
        assert not self.store._torn
        places = {record.place for record in self.store.records()}
        assert set(held(self.store._cache._order)) == places
        assert sum(record.weight for record in self.store.records()) <= self.maxsize


TestRogue = RogueMachine.TestCase
TestWeighedRogue = type("WeighedRogueMachine", (RogueMachine,), {"weighed": True}).TestCase
TestRogue.settings = TestWeighedRogue.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None
)


@pytest.mark.parametrize("weighed", [False, True])
def test_a_class_that_can_be_made_only_once(weighed):
    """The store goes on with the usual order when it has to be made anew."""

    class Once(cachetools.LRUCache):
        made = 0

        def __init__(self, maxsize, getsizeof=None):
            super().__init__(maxsize, getsizeof)
            Once.made += 1
            if Once.made > 1:
                raise RuntimeError("only once")

    store = Store(4, 10.0, Once, weighed)
    for key in "abcdef":
        store._torn = True
        store.put(record_for(key, 0.0, 10.0, 2, weighed))
    assert sorted(store.index) == (["e", "f"] if weighed else ["c", "d", "e", "f"])


@pytest.fixture
def full():
    """A store of three whose class is to misbehave next."""
    Rogue.mischief = None
    store = Store(3, 1000.0, Rogue)
    for key in "abc":
        store.put(record_of(key, key, 0.0, 1000.0))
    yield store
    Rogue.mischief = None


def put(store, key):
    return [record.key for record in store.put(record_of(key, key, 1.0, 1000.0))]


@pytest.mark.parametrize(
    ("mischief", "gone"),
    [("pop goes its own way", ["a"]), ("pop takes two", ["a", "b"]), ("pop lies", ["a"])],
)
def test_an_eviction_of_its_own_kind(full, mischief, gone):
    """What leaves is seen in the same section, however the class lets it go."""
    Rogue.mischief = mischief
    assert put(full, "d") == gone
    assert full.evictions == len(gone)
    assert not full._torn


@pytest.mark.parametrize(("mischief", "gone"), [("read drops", ["a"]), ("read drops another", [])])
def test_a_read_that_drops(full, mischief, gone):
    """What leaves by `del` leaves the index at once, else with the next that is stored."""
    Rogue.mischief = mischief
    assert [record.key for record in full.used(full.index["a"])] == gone
    put(full, "d")
    assert "a" not in full.index
    assert full.evictions == 1


def test_a_read_of_what_was_taken_out_unseen(full):
    """It leaves then."""
    record = full.index["a"]
    cachetools.Cache.__delitem__(full._cache._order, record.place)
    assert full.used(record) == [record]
    assert (sorted(full.index), full._torn) == (["b", "c"], False)


def test_a_read_that_raises_a_key_error():
    """It is the class's own fault if it holds the place, and is passed on."""

    class Missing(cachetools.LRUCache):
        def __getitem__(self, key):
            raise KeyError(key)

    store = Store(3, 1000.0, Missing)
    put(store, "a")
    with pytest.raises(KeyError):
        store.used(store.index["a"])
    assert store._torn


def test_what_it_was_not_given(full):
    """A class that holds more is made anew."""
    full.drop("c")
    Rogue.mischief = "set brings another"
    with pytest.raises(RuntimeError, match=r"^policy: it holds what it was not given$"):
        put(full, "d")
    assert put(full, "d") == []


@pytest.mark.parametrize("mischief", [None, "delete raises", "delete raises after", "delete takes all"])
def test_what_is_dropped_leaves_the_class(full, mischief):
    """Whatever that does: nothing is left of it, and the next is stored."""
    Rogue.mischief = mischief
    assert full.drop("b").key == "b"
    order = full._cache._order
    assert len(held(order)) == (0 if mischief == "delete takes all" else 2)
    assert order._sf_left == []
    assert sorted(put(full, "d")) == (["a", "c"] if mischief == "delete takes all" else [])


def test_where_no_stack_is_left(monkeypatch, full):
    """An error of the class is only taken for its own where there was room."""
    asked = []
    monkeypatch.setattr(policy, "check_room", lambda error: asked.append(type(error)))
    full._torn, Rogue.mischief = True, "set raises"
    full.drop("none")
    monkeypatch.setattr(policy, "_made", failing := [policy._made])
    monkeypatch.setattr(
        policy, "_made", lambda *given: failing.pop()(*given) if given[0] is not Rogue else 1 / 0
    )
    ChosenCache(Rogue, 3, 1000.0, False)
    assert asked == [RuntimeError, ZeroDivisionError]


@pytest.mark.parametrize(
    ("ttl", "kind"), [(60.0, cachetools.TTLCache), (None, cachetools.TLRUCache), (math.inf, cachetools.Cache)]
)
def test_who_runs_out_is_asked_of_the_usual_cache(ttl, kind):
    """With any policy; it has no limit there."""
    assert type(new_cache(2, ttl, cachetools.TTLCache, False)) is type(cache_for(2, ttl))
    lives = new_cache(2, ttl, cachetools.LRUCache, False)._lives
    assert isinstance(lives, kind)
    assert lives.maxsize == math.inf


def test_a_class_that_calls_the_store():
    """It is inside already: its reads and writes change nothing, and nothing hangs."""

    class Curious(cachetools.LRUCache):
        def popitem(self):
            for record in store.records():
                assert store.used(record) == []
            assert store.put(record_of("z", 1, 0.0, 10.0)) is None
            return super().popitem()

    store = Store(2, 10.0, Curious)
    for key in "abc":
        store.put(record_of(key, key, 0.0, 10.0))
    assert sorted(store.index) == ["b", "c"]


def test_an_interrupt_within_the_class():
    """It passes, and the next section makes the cache anew: nothing else is lost."""

    class Struck(cachetools.LRUCache):
        def __getitem__(self, key):
            if strike:
                raise KeyboardInterrupt
            return super().__getitem__(key)

    strike = []
    store = Store(2, 10.0, Struck)
    for key in "ab":
        store.put(record_of(key, key, 0.0, 10.0))
    strike.append(True)
    with pytest.raises(KeyboardInterrupt):
        store.used(store.index["a"])
    assert store._torn
    strike.clear()
    store.drop("a")
    assert (sorted(store.index), store._torn, len(store._cache)) == (["b"], False, 1)


def test_after_a_fork_the_class_is_made_anew():
    """With what was stored, oldest landing first."""
    store = Store(2, 1000.0, cachetools.LRUCache)
    for number, key in enumerate("ab"):
        store.put(record_of(key, key, float(number), 1000.0))
    store.used(store.index["a"])
    store.after_fork()
    assert [record.key for record in store.put(record_of("c", 1, 2.0, 1000.0))] == ["a"]


def test_what_the_class_does_not_take_again_leaves():
    """When the cache is made anew, in the same section; it counts as evicted."""

    class Choosy(cachetools.LRUCache):
        def __setitem__(self, key, value, **more):
            if value.key in refused:
                raise RuntimeError
            super().__setitem__(key, value, **more)

    refused = set()
    store = Store(3, 10.0, Choosy)
    for key in "abc":
        store.put(record_of(key, key, 0.0, 10.0))
    refused.add("b")
    store._torn = True
    assert store.drop("c").key == "c"
    assert (sorted(store.index), store.evictions) == (["a"], 1)


@pytest.mark.parametrize(
    ("kind", "wants"),
    [
        (cachetools.TTLCache, False),
        (cachetools.Cache, False),
        (cachetools.FIFOCache, False),
        (cachetools.RRCache, False),
        (cachetools.LRUCache, True),
        (cachetools.LFUCache, True),
        (cachetools.TLRUCache, True),
        (type("Aged", (cachetools.TTLCache,), {}), True),
        (type("Reading", (cachetools.FIFOCache,), {"__getitem__": lambda self, key: None}), True),
    ],
)
def test_who_wants_hits(kind, wants):
    """A class that does not look at reads need not be told of them."""
    assert wants_hits(kind) is wants


@pytest.mark.parametrize(
    ("value", "weight"),
    [
        (0, 0),
        (3, 3),
        (2**70, 2**70),
        (2**60 + 1, 2**60 + 1),
        (2.0, 2),
        (0.1, Fraction(0.1)),
        (Fraction(1, 3), Fraction(float(Fraction(1, 3)))),
        (math.inf, math.inf),
    ],
)
def test_weights(value, weight):
    """They are exact: whole numbers, or fractions."""
    found = weight_from(value)
    assert found == weight
    assert type(found) is type(weight)


@pytest.mark.parametrize("value", [None, "1", 1j, True, b"x", [1]])
def test_weights_that_are_no_numbers(value):
    """A `TypeError` that names the option."""
    with pytest.raises(TypeError) as refused:
        weight_from(value)
    assert str(refused.value) == f"weigh: expected a number, got {value!r}"


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, -math.inf])
def test_weights_out_of_range(value):
    """A `ValueError` that names the option."""
    with pytest.raises(ValueError) as refused:
        weight_from(value)
    assert str(refused.value) == f"weigh: expected a number that is not negative, got {value!r}"


@pytest.mark.parametrize("kind", [cachetools.TTLCache, cachetools.LRUCache, Middle])
def test_no_sum_drifts(kind):
    """After ten thousand tenths have come and gone there is room for exactly the whole."""
    store, chance = Store(1, 1e9, kind, True), random.Random(1)
    for number in range(3000):
        weight = weight_from(chance.choice([0.1, 0.2, 0.3, 0.7]))
        store.put(record_for(number % 7, float(number), 1e9, weight, True))
    for key in list(store.index):
        store.drop(key)
    assert store._cache._order.currsize == 0
    store.put(whole := record_for("whole", 0.0, 1e9, 1, True))
    assert store.records() == [whole]


def test_the_usual_store_weighed():
    """A hand goes round as without weights; several go for a heavy one, and who was read is spared."""
    store = Store(6, 1000.0, weighed=True)
    for key, weight in (("a", 1), ("b", 2), ("c", 3)):
        store.put(record_for(key, 0.0, 1000.0, weight, True))
    store.index["a"].hits += 1
    gone = store.put(record_for("d", 0.0, 1000.0, 4, True))
    assert [record.key for record in gone] == ["b", "c"]
    assert (store.weight(), store.evictions) == (5, 2)
    assert isinstance(store._cache, ChosenCache)


def test_one_that_grows_may_push_itself_out_first():
    """What is replaced may be evicted for its successor, as in cachetools; it is no eviction."""
    store = Store(4, 1000.0, cachetools.LRUCache, True)
    for key in "ab":
        store.put(record_for(key, 0.0, 1000.0, 2, True))
    gone = store.put(record_for("a", 0.0, 1000.0, 4, True))
    assert ([record.key for record in gone], store.evictions, store.weight()) == (["b"], 1, 4)


class OwnSize(cachetools.LRUCache):
    """Measures for itself."""

    def getsizeof(self, value):
        return 2


def halved(self, maxsize, getsizeof=None):
    cachetools.Cache.__init__(self, maxsize // 2)


def furnished(self, maxsize, getsizeof=None):
    cachetools.Cache.__init__(self, maxsize, getsizeof)
    self["before"] = 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (dict, "expected a cache class of cachetools"),
        (cachetools.LRUCache(3), "as LRUCache, got LRUCache.{8}"),
        ("LRU", "expected a cache class of cachetools"),
        (None, "expected a cache class of cachetools"),
        (OwnSize, "a getsizeof of its own"),
        (
            type(
                "Sized",
                (cachetools.LRUCache,),
                {"__init__": lambda s, m: cachetools.Cache.__init__(s, m, len)},
            ),
            "a getsizeof of",
        ),
        (type("Halved", (cachetools.Cache,), {"__init__": halved}), "another maxsize"),
        (type("Full", (cachetools.Cache,), {"__init__": furnished}), "is not empty"),
        (
            type("Two", (cachetools.Cache,), {"__init__": lambda self, one, two: None}),
            "cannot be made as.* missing 1 required",
        ),
        (type("Aged", (cachetools.TTLCache,), {"__init__": lambda self, maxsize: None}), "cannot be made"),
    ],
)
def test_classes_that_do_not_fit(kind, words):
    """They are refused at decoration, by an error that names the option."""
    with pytest.raises(TypeError, match=f"^policy: .*{words}"):
        checked_policy(kind, 10, False)


def test_a_class_that_takes_no_getsizeof():
    """It does where nothing is weighed."""

    class Counting(cachetools.LRUCache):
        def __init__(self, maxsize):
            super().__init__(maxsize)

    assert checked_policy(Counting, 10, False) is Counting
    with pytest.raises(TypeError, match=r"^policy: .*Counting cannot be made"):
        checked_policy(Counting, 10, True)
