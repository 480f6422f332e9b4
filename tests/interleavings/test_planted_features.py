"""Bugs planted in options that few functions have are found, each, and its schedule shows it again."""

import pytest

from ..sampling import one_in
from .test_planted import Planted, finds

TAGS = {
    "a tag is noted after what has it was dropped": Planted(
        "two threads, and their tag is invalidated",
        "which is older than",
        {
            "store": {
                "            self._cuts[tag] = max(number, self._cuts.get(tag, 0))\n": "",
                """            self._cut(tags, number, gone)
            self._torn = False
""": """            self._cut(tags, number, gone)
            self._torn = False
        self._cuts.update(dict.fromkeys(tags, number))
""",
            }
        },
    ),
    "a landing does not ask whether its tag was invalidated": Planted(
        "two threads, and their tag is invalidated",
        "which is older than",
        {"store": {"(record.tags and self.is_cut(record.tags, publisher.number))": "False"}},
    ),
    "what a tag kept from being stored is shared with who came later": Planted(
        "two threads, and their tag is invalidated",
        "which is older than",
        {"landing": {"            storable = None  # a value": "            storable = True  # a value"}},
    ),
    "a tag is invalidated unseen between a landing and its end": Planted(
        "two threads, and their tag is invalidated",
        "which is older than",
        {
            "transitions": {
                "return cache.store.is_cut(flight.stored.tags,": "return False and (flight.stored.tags,"
            }
        },
    ),
    "a flight that has lost its key is shared with who came after its tag went": Planted(
        "a tag is invalidated, and a key",
        "which is older than",
        {"transitions": {"    return flight.number < cache.store.last_cut\n": "    return False\n"}},
    ),
    "an invalidated tag is forgotten while a flight from before goes on": Planted(
        "tags are invalidated, and forgotten",
        "which is older than",
        {
            "controls": {
                "cache.store.forget_cuts(_oldest_in_flight(cache, number))": "cache.store.forget_cuts(number)"
            }
        },
    ),
    "what a loader brings unasked is as young as its landing": Planted(
        "what a loader brings unasked, and its tag is invalidated",
        "which is older than",
        {"batch": {"                flight.number = like.number  # as old as the loader's call\n": ""}},
    ),
    "a fixed tag drops before it detaches": Planted(
        "two threads, and their fixed tag is invalidated",
        "which is older than",
        {
            "controls": {
                "    detached = [of.key for of in slots if _is_of(of.key, owner)": (
                    "    records = cache.store.records()\n"
                    "    detached = [of.key for of in slots if _is_of(of.key, owner)"
                ),
                """    # Second: none of these flights can store anything any more.
    records = cache.store.records() if owner is None else cache.store.records_of(owner)
""": "",
            }
        },
    ),
}

LINE = {
    "a seat is given up before the execution ends": Planted(
        "three threads, one seat",
        "2 run at once",
        {
            "threads": {
                """    with Seated(cache, [flight]):
        if flight.wants_events:
            cache.tell.fetching(flight)
        return run(*args, **kwargs)
""": """    with Seated(cache, [flight]):
        if flight.wants_events:
            cache.tell.fetching(flight)
    return run(*args, **kwargs)
"""
            }
        },
    ),
    "a task that is cancelled in line keeps the seat that it was just given": Planted(
        "one seat, who stands in line is cancelled",
        "had to wait for time|waits for|a seat",
        {
            "keyed": {
                """                if queued is not None:
                    waiter.rise()
                self.release(hold)
""": """                if queued is not None:
                    waiter.rise()
                if hold.missing:
                    self.release(hold)
"""
            }
        },
    ),
    "a task that is cancelled in line stays there": Planted(
        "one seat, who stands in line is cancelled",
        "had to wait for time|waits for|a seat",
        {
            "keyed": {
                """                if queued is not None:
                    waiter.rise()
                self.release(hold)
""": """                if queued is not None:
                    waiter.rise()
"""
            }
        },
    ),
    "who gives a seat up wakes nobody": Planted(
        "three threads, one seat",
        "a lost wake-up",
        {"line": {"            if latch is not None:\n                after.append(latch.open)\n": ""}},
    ),
    "the last in line comes first": Planted(
        "three threads, one seat",
        "was let in before",
        {"line": {"            self.queue.append(hold)\n": "            self.queue.appendleft(hold)\n"}},
    ),
    "whoever comes takes a seat": Planted(
        "three threads, one seat",
        "2 run at once",
        {
            "line": {
                "        if len(self.taken) < self._seats and not self.queue:": "        if not self.queue:"
            }
        },
    ),
    "the time of a flight runs while it stands in line": Planted(
        "one seat, who stands in line does not take too long",
        "executions were expected",
        {"seats": {"        hold_back(self._flights)\n": ""}},
    ),
    "a bulk call needs no seat": Planted(
        "one seat, two bulk calls",
        "2 run at once",
        {
            "bulk_threads": {
                "is None else Seated(batch.cache, batch.flights):\n                while": (
                    "or True else Seated(batch.cache, batch.flights):\n                while"
                )
            }
        },
    ),
    "a renewal needs no seat": Planted(
        "one seat, a renewal stands in line",
        "2 run at once",
        {
            "threads": {
                """        if cache.line is not None:
            value = _run_in_line(cache, flight, run, args, kwargs)
        else:
            if flight.wants_events:
                cache.tell.fetching(flight)
            value = run(*args, **kwargs)
        if type""": """        value = run(*args, **kwargs)
        if type"""
            }
        },
    ),
    "every seat that is taken counts as a cycle": Planted(
        "two seats, one of which comes free",
        "waiting would never end",
        {
            "line": {
                "        self.any_of = self.line = line\n": "        self.line, self.any_of = line, None\n"
            }
        },
    ),
    "no seat that is taken counts as a cycle": Planted(
        "one seat, and a cycle over the line",
        "waits for|lost wake-up|still running",
        {"line": {"            for seat in self.line.taken:\n": "            for seat in ():\n"}},
    ),
    "a flight that timed out in line takes its followers along": Planted(
        "one seat, a leader gives up in line before its follower",
        "was not patient",
        {"transitions": {" or isinstance(error, (FlightDeadlock, FlightTimeout))\n": "\n"}},
    ),
}

SOFT = {
    "who waited softly is counted twice": Planted(
        "two threads wait softly, too long",
        "2 calls were made",
        {
            "coordinator": {
                """        if not leave(cache, call, timed_out=None):
            return awake(cache, call)
        return board""": """        if not leave(cache, call, timed_out=True):
            return awake(cache, call)
        return board"""
            }
        },
    ),
    "who waited softly still follows": Planted(
        "two threads wait softly, too long",
        "calls were made",
        {"transitions": {"    if flight is not None:\n        flight.followers -= 1\n": ""}},
    ),
    "how a landing counted who waited softly is not taken back": Planted(
        "two threads wait softly, it fails, and nobody tries again",
        "2 calls were made",
        {
            "transitions": {
                """            if failed:
                cache.counts.errors -= 1
            else:
                cache.counts.waits -= 1
""": ""
            }
        },
    ),
    "a renewal that failed is the outcome of who waited softly": Planted(
        "two threads wait softly, it fails, and nobody tries again",
        "Refused",
        {
            "coordinator": {
                "        decision = _served_stale(cache, call, before)\n": "        decision = None\n"
            }
        },
    ),
    "who need not wait softly is served at once": Planted(
        "two threads wait softly",
        "and it did not wait",
        {"coordinator": {"    return _join(cache, call, turn) is None  # else": "    return False  # else"}},
    ),
    "a value that has just landed is not waited for": Planted(
        "two threads wait softly",
        "calls were made|and it did not wait",
        {
            "coordinator": {
                "            return None  # it has landed with a value, perhaps": "            pass  #"
            }
        },
    ),
}

KEPT = {
    "what is stored by then is kept": Planted(
        "a value is kept, and invalidated",
        "there is no value to keep",
        {
            "current": {
                'stands for."""\n    record = flight.previous\n': (
                    'stands for."""\n    record = flight.cache.store.find(flight.key)\n'
                )
            }
        },
    ),
    "what was detached is kept for others": Planted(
        "a value is kept, and invalidated",
        "which is older than",
        {"store": {"                publisher.detached\n": "                False\n"}},
    ),
    "what was put meanwhile is replaced by what is kept": Planted(
        "a value is kept, and another is put",
        "which is older than",
        {
            "store": {
                "                publisher.detached\n": "                False\n",
                "                or (old is not None and old is not publisher.previous)\n": "",
            }
        },
    ),
}

DROPPED = {
    "an instance is cleared before its flights are detached": Planted(
        "an instance is cleared, two threads",
        "which is older than",
        TAGS["a fixed tag drops before it detaches"].mutation,
    ),
    "an instance's flight is left where it is": Planted(
        "an instance is cleared, two threads",
        "which is older than",
        {"controls": {" if _is_of(of.key, owner) and _detach_slot(cache, of)]": " if False]"}},
    ),
    "clearing an instance clears all": Planted(
        "an instance is cleared, and another is not",
        "a second execution",
        {"controls": {"    return owner is None or (type(key)": "    return True or (type(key)"}},
    ),
}

ANSWERS = {
    "who took a value that was put is told of a hit": Planted(
        "it fails, two threads ask how, and a put",
        "callers were told",
        {"transitions": {'    call.served = "wait"\n': '    call.served = "hit"\n'}},
    ),
    "a follower is told of a fetch": Planted(
        "two threads ask how",
        "got",
        {"threads": {'asked.flown("wait", call.flight)': 'asked.flown("fetch", call.flight)'}},
    ),
    "who waited softly is told of the wait": Planted(
        "two threads ask how, softly",
        "callers were told",
        {"renewal": {'        call.served = "stale_hit"\n': '        call.served = "wait"\n'}},
    ),
    "a follower has the leader's object": Planted(
        "everybody has a copy, threads",
        "received one object|has no attribute 'number'",
        {
            "threads": {
                "                return value if cache.copy is None else cache.copy(value)\n        if dec": (
                    "                return value\n        if dec"
                )
            }
        },
    ),
}

ALL = {**TAGS, **LINE, **SOFT, **KEPT, **DROPPED, **ANSWERS}


@pytest.mark.parametrize("planted", one_in(5, ALL.values()), ids=ALL)
def test_a_bug_planted_in_a_feature_is_found(library, planted):
    """Within two preemptions; its schedule shows it again; and the library as it is passes there."""
    finds(library, planted, planted.mutation)
