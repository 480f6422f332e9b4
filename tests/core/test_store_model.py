"""The store against a model that predicts which entry goes, instances that die included."""

from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from singleflight.common.keys import InstanceKey, Instances
from singleflight.storage import expiry
from singleflight.storage.record import record_of
from singleflight.storage.store import Store

KEYS = st.one_of(st.integers(0, 5), st.sampled_from([(), ("plain", 1)]))
CHANCES = 2


class Thing:
    """An instance that entries belong to."""


def is_of_instance(key):
    return type(key) is tuple and key != () and isinstance(key[0], InstanceKey)


class StoreModel(RuleBasedStateMachine):
    """Puts, reads, drops, deaths of instances and torn mutations; the model is a list, ordered by place.

    A hand goes round over what was there when its round began; `round` is what it has not come by yet. An
    entry takes the place of the one that was evicted or replaced for it.
    """

    maxsize = 4
    per_entry = False

    def __init__(self):
        super().__init__()
        self.chances = patch.object(expiry, "_LOOKS", CHANCES + 1)
        self.chances.start()
        self.now = 0.0
        self.store = Store(self.maxsize, None if self.per_entry else 10.0)
        self.things = [Thing(), Thing()]
        self.instances = Instances(self.store.forget)
        self.model = []  # [record, used since the hand last passed]
        self.round = []
        self.evicted = self.expired = 0

    def at(self, key):
        return next((pair for pair in self.model if pair[0].key == key), None)

    def drop_expired(self):
        gone = [pair[0] for pair in self.model if pair[0].fresh_for(self.now) <= 0]
        self.model = [pair for pair in self.model if pair[0] not in gone]
        self.expired += len(gone)
        return gone

    def evict(self):
        chances = CHANCES
        while True:
            self.round = [pair for pair in self.round if pair in self.model] or self.model.copy()
            pair = self.round.pop(0)
            if not (chances and pair[1]):
                self.evicted += 1
                return pair
            pair[1] = False
            chances -= 1

    def put_record(self, key, ttl):
        record = record_of(key, object(), self.now, ttl if self.per_entry else 10.0)
        expected = []
        expired = self.drop_expired()
        old = self.at(key)
        pair = [record, old is not None]  # what replaces another is spared as if it had been read
        if old is not None:
            self.round = [pair if each is old else each for each in self.round]
        elif self.maxsize is not None and len(self.model) >= self.maxsize:
            old = self.evict()
            expected.append(old[0])
        if old is None:
            self.model.append(pair)
        else:
            self.model[self.model.index(old)] = pair
        gone = self.store.put(record)
        assert gone[: len(expected)] == expected
        assert set(gone[len(expected) :]) == set(expired)

    @rule(key=KEYS, ttl=st.sampled_from([1.0, 5.0, 50.0]))
    def put(self, key, ttl):
        self.put_record(key, ttl)

    @rule(thing=st.integers(0, 1), argument=st.integers(0, 1), ttl=st.sampled_from([1.0, 50.0]))
    def put_for_an_instance(self, thing, argument, ttl):
        self.put_record((self.instances.meet(self.things[thing]), argument), ttl)

    @rule(thing=st.integers(0, 1))
    def an_instance_dies(self, thing):
        key = self.instances.known.get(id(self.things[thing]))
        self.things[thing] = Thing()
        self.model = [p for p in self.model if not (is_of_instance(p[0].key) and p[0].key[0] is key)]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def read(self, data):
        pair = self.model[data.draw(st.integers(0, len(self.model) - 1))]
        record = self.store.index[pair[0].key]
        if self.now < record.deadline:
            record.hits += 1
            pair[1] = True

    @rule(key=KEYS)
    def drop(self, key):
        pair = self.at(key)
        if pair is not None:
            self.model.remove(pair)
        assert self.store.drop(key) is (pair[0] if pair else None)

    @rule()
    def clear(self):
        assert set(self.store.clear()) == {pair[0] for pair in self.model}
        self.model.clear(), self.round.clear()
        self.evicted = self.expired = 0

    @rule()
    def expire(self):
        assert set(self.store.expire(self.now)) == set(self.drop_expired())

    @rule(step=st.sampled_from([0.5, 3.0, 20.0]))
    def tick(self, step):
        self.now += step

    @rule()
    def rebuild(self):
        """A mutation was cut short: the next one makes everything anew, oldest landing first."""
        self.store._torn = True
        self.store.expire(0.0)  # some section, at a time when nothing runs out
        self.round.clear()
        landings = [pair[0].landed for pair in self.model]
        if len(set(landings)) < len(landings) or landings != sorted(landings):
            order = {key: place for place, key in enumerate(self.store.index)}
            self.model.sort(key=lambda pair: (pair[0].landed, order[pair[0].key]))

    @invariant()
    def the_same_entries_in_the_same_order(self):
        assert dict(self.store.index) == {pair[0].key: pair[0] for pair in self.model}
        assert list(self.store._cache.values()) == [pair[0] for pair in self.model]

    @invariant()
    def the_same_counts(self):
        assert (self.store.evictions, self.store.expirations) == (self.evicted, self.expired)

    @invariant()
    def no_more_entries_than_allowed(self):
        assert self.maxsize is None or len(self.store.index) <= self.maxsize

    @invariant()
    def instances_have_the_keys_that_are_stored(self):
        kept = {record.key for own in self.store._of_instance.values() for record in own}
        assert kept == {pair[0].key for pair in self.model if is_of_instance(pair[0].key)}
        assert all(self.store._of_instance.values())

    def teardown(self):
        self.things.clear()
        assert not self.instances.known
        assert not self.store._of_instance
        self.chances.stop()


class PerEntry(StoreModel):
    """A lifetime for each entry."""

    per_entry = True


class Single(StoreModel):
    """Room for one."""

    maxsize = 1
    per_entry = True


class Unlimited(StoreModel):
    """No limit."""

    maxsize = None


TestOneTtl, TestPerEntry, TestSingle, TestUnlimited = (
    StoreModel.TestCase,
    PerEntry.TestCase,
    Single.TestCase,
    Unlimited.TestCase,
)
for case in (TestOneTtl, TestPerEntry, TestSingle, TestUnlimited):
    case.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
del case  # or it would be collected once more
