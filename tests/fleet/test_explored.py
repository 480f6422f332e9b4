"""Every order of what a few processes do about one key, with what may go wrong; planted bugs are found."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight.fleet.claims import Ask, Claim, Land

from .model_server import ModelServer
from .world import Scene, Violation, World, explore, judge_end

CALL, DROP, RENEW, REFRESH = (("call",),), (("drop",),), (("renew",),), (("refresh",),)
ONE_AFTER = (("call", "call"),)

# The first process leads and has published, the second waits: the wake is on its way.
WOKEN = (
    *(("goes_on", 0), ("asks", 0), ("answered", 0)),
    *(("goes_on", 1), ("asks", 1), ("answered", 1)),
    *(("returns", 0), ("asks", 0)),
)
SCENES = {
    "two processes": Scene((CALL, CALL), loads=1),
    "a wake from before the own drop": Scene((ONE_AFTER, (("call",), ("drop", "call"))), beginning=WOKEN),
    "two callers, and one elsewhere": Scene((CALL * 2, CALL), loads=1),
    "a function that fails": Scene((CALL, CALL), loads=2, fails=True, together=True),
    "a function that fails, its retries spent": Scene(
        (CALL, CALL), retries=0, loads=1, fails=True, together=True
    ),
    "two renew a stale value": Scene((RENEW, RENEW), stale=True, loads=1),
    "two refresh": Scene((REFRESH, REFRESH), stale=True, loads=2),
    "a drop elsewhere": Scene((ONE_AFTER, DROP), loads=2),
    "a drop beside a call": Scene((CALL + DROP + CALL,), loads=3),
    "a leader is killed": Scene((CALL, CALL), {"kill": 1}, loads=2),
    "a keeper is starved": Scene((CALL, CALL), {"pause": 1, "time": 1}, loads=2),
    "an answer is lost": Scene((CALL, CALL), {"lose": 1}, loads=2),
    "the bus is away": Scene((CALL, CALL), {"gap": 1}, loads=2),
    "a drop while the bus is away": Scene((ONE_AFTER, DROP), {"gap": 1}),
    "a drop that cannot be sent": Scene((CALL + DROP,), {"lose": 1}),
    "a value that cannot be read": Scene((CALL, CALL), {"unread": 2}),
    "the server takes no writes": Scene((CALL, CALL), {"fills": 1}, loads=3),
    "a drop, and the server takes no writes": Scene((ONE_AFTER + DROP,), {"fills": 1}),
    "a function is aborted": Scene((CALL, CALL), {"abort": 1}, loads=2),
    "a function hangs": Scene((CALL, CALL), {"unseat": 1}, loads=2),
    "a function hangs, and that cannot be told": Scene((CALL, CALL), {"unseat": 1, "lose": 1}, loads=4),
}
LONG = {
    "three processes": Scene((CALL, CALL, CALL), loads=1),
    "three, and the function fails": Scene((CALL, CALL, CALL), loads=2, fails=True, together=True),
    "two renew, one calls": Scene((RENEW, RENEW, CALL), stale=True, loads=1),
    "a drop, and calls around": Scene((CALL + DROP, CALL), loads=3),
    "a drop, and a call after it": Scene((CALL, (("drop", "call"),)), loads=3),
    "a drop, and two others": Scene((CALL, DROP, CALL), loads=3),
    "two drops": Scene((ONE_AFTER, DROP, DROP), loads=3),
    "a leader of three is killed": Scene((CALL, CALL, CALL), {"kill": 1}, loads=2),
    "the server comes back empty": Scene((CALL, CALL), {"restart": 1}, loads=3),
    "the server comes back empty after a drop": Scene((ONE_AFTER, DROP), {"restart": 1}, loads=4),
    "two answers are lost": Scene((CALL, CALL), {"lose": 2}, loads=4),
    "the bus is away and an answer is lost": Scene((CALL, CALL), {"gap": 1, "lose": 1}, loads=3),
    "a keeper is starved for long": Scene((CALL, CALL), {"pause": 1, "time": 3}, loads=3),
    "an abort and failures": Scene((CALL, CALL), {"abort": 1}, loads=3, fails=True, together=True),
    "a function hangs, two callers": Scene((CALL * 2, CALL), {"unseat": 1}, loads=3),
    "no writes are taken, and a call elsewhere": Scene((CALL + DROP, CALL), {"fills": 1}),
    "a drop that is lost, and a call elsewhere": Scene((DROP, CALL), {"lose": 1, "gap": 1}),
}


@pytest.mark.parametrize("name", SCENES)
def test_every_order_keeps_the_promises(name):
    """All states that the scene can come to."""
    _, ends = explore(World(SCENES[name]))
    assert ends


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LONG)
def test_every_order_of_more(name):
    """Scenes with more processes, or more that goes wrong."""
    _, ends = explore(World(LONG[name]))
    assert ends


# -- planted bugs


class Unchained(Claim):
    """It does not say what it waited for."""

    def _ask(self, mode):
        return Ask(mode, super()._ask(mode).seen, b"")


class Credulous(Claim):
    """It takes whatever wake comes for its own."""

    def _act_on(self, wake):
        self._chain = wake.chain
        return super()._act_on(wake)


class Hasty(Claim):
    """It forgets a wake that overtakes the answer."""

    def answered(self, answer, deaf=False):
        self._noted = None
        return super().answered(answer, deaf)


class Stubborn(Claim):
    """Its lease is renewed though it was told off."""

    renews = property(lambda self: self.state in ("leading", "alone"))


class Greedy(Claim):
    """It lands near whatever the server says."""

    def _land(self, near):
        self.state = "ended"
        return Land(True)


class Heedless(Claim):
    """It does not hear that its lease was lost: it publishes, and is renewed."""

    def lost(self):
        return False


class Trusting(ModelServer):
    """A server that believes whoever publishes."""

    def _is_leader(self, key, version, token):
        return version in self._entry(key).leases


class Generous(ModelServer):
    """A server that gives the lease to everybody."""

    def claim(self, key, version, token, **more):
        self._entry(key).leases.pop(version, None)
        return super().claim(key, version, token, **more)


THREE_CALL = Scene((CALL, CALL, CALL), loads=2, fails=True, together=True)
PLANTED = {
    "publish without the token": (
        Scene((CALL, DROP, CALL)),
        "an old value is stored|served 1",
        {"bugs": {"publish without the token"}},
    ),
    "a server that does not compare tokens": (
        Scene((CALL, DROP, CALL)),
        "an old value is stored|served 1|a refused landing",
        {"server": Trusting},
    ),
    "a server that gives a lease twice": (SCENES["two processes"], "given away", {"server": Generous}),
    "wait before registering": (
        SCENES["two processes"],
        "a wake should have come",
        {"bugs": {"late mailbox"}},
    ),
    "a wake that overtakes the answer is forgotten": (
        SCENES["two processes"],
        "a wake should have come",
        {"claims": Hasty},
    ),
    "renew after the claim was told off": (
        SCENES["a function hangs, and that cannot be told"],
        "a wake should have come",
        {"claims": Stubborn},
    ),
    "land near though the lease was lost": (
        SCENES["a keeper is starved"],
        "changes near entries",
        {"claims": Greedy},
    ),
    "no flush after a gap": (
        SCENES["a drop while the bus is away"],
        "served 1|an old value is near",
        {"bugs": {"no flush after a gap"}},
    ),
    "nobody asks again after a gap": (
        SCENES["the bus is away"],
        "a wake should have come",
        {"bugs": {"nobody asks after a gap"}},
    ),
    "a drop that is heard detaches nothing": (
        SCENES["a drop elsewhere"],
        "served 1|an old value is near",
        {"bugs": {"no detaching"}},
    ),
    "retries not passed on": (THREE_CALL, "executions", {"bugs": {"retries not passed on"}}),
    "who comes late begins anew": (THREE_CALL, "executions", {"claims": Unchained}),
    "a wake from before the own drop counts": (
        SCENES["a wake from before the own drop"],
        "served 1",
        {"claims": Credulous},
    ),
    "the drop is sent after the claim": (
        Scene((DROP + CALL, CALL)),
        "served 1",
        {"bugs": {"drop after claim"}},
    ),
    "a value is looked at though the drop before it was not taken": (
        SCENES["a drop, and the server takes no writes"],
        "served 1",
        {"bugs": {"peek past a drop"}},
    ),
    "no replay after an outage": (
        SCENES["a drop that cannot be sent"],
        "a drop was forgotten",
        {"bugs": {"no replay"}},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name):
    """And what is said of it fits."""
    scene, words, bug = PLANTED[name]
    with pytest.raises(Violation, match=f"(?s){words}"):
        explore(World(scene, **bug))


def test_the_way_that_is_printed_shows_the_bug_again():
    """Its lines are moves."""
    scene, words, bug = PLANTED["wait before registering"]
    with pytest.raises(Violation) as found:
        explore(World(scene, **bug))
    world = World(scene, **bug)
    *moves, last = str(found.value).partition("after\n")[2].splitlines()
    for move in moves:
        name, *numbers = move.split()
        world.do((name, *map(int, numbers)))
    name, *numbers = last.split()
    with pytest.raises(Violation, match=words):
        world.do((name, *map(int, numbers)))


# -- walks through what is too large to explore

OPS = ["call"] * 4 + ["refresh"] + ["drop"] * 2
FAULTS = ["time", "lose", "gap", "restart", "kill", "pause", "unseat", "unread", "abort", "fills"]


def walk(seed):
    """Make one move after another in a scene of up to four processes, all by chance, to the end."""
    chance = Random(seed)
    programs = tuple(
        tuple(tuple(chance.choices(OPS, k=chance.randint(1, 4))) for _ in range(chance.randint(1, 3)))
        for _ in range(chance.randint(2, 4))
    )
    faults = {name: chance.randint(1, 3) for name in FAULTS if chance.random() < 0.35}
    retries, fails = chance.choice([0, 1, 3, None]), chance.random() < 0.2
    world = World(Scene(programs, faults, retries=retries, fails=fails))
    for _ in range(2000):
        moves = world.moves()
        if not moves:
            return judge_end(world)
        try:
            world.do(chance.choice(moves))
        except Violation as violation:
            raise Violation(f"{violation}, with seed {seed}, after\n{world}") from None
    raise Violation(f"it does not end, with seed {seed}")


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_walks(first):
    """Many processes, several things that go wrong: the promises hold, and everything ends."""
    for seed in range(first, first + 50):
        walk(seed)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1000, 6000, 1000))
def test_many_walks(first):
    """The same, with which the wakes from before a drop were found (about one walk of two thousand)."""
    for seed in range(first, first + 1000):
        walk(seed)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(SCENES)), st.lists(st.integers(0, 40), max_size=40))
def test_walks_that_shrink(name, choices):
    """Walks through the scenes above with everything that can go wrong: a failure here is a short one."""
    world = World(replace(SCENES[name], faults=dict.fromkeys(FAULTS, 1), loads=None, together=False))
    for choice in choices:
        if moves := world.moves():
            world.do(moves[choice % len(moves)])
    world.faults.clear()
    for _ in range(1000):
        if moves := world.moves():
            world.do(moves[0])
    judge_end(world)
