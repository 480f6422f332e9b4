"""What a process tells the server and hears of it, for all functions of a store: the rest are stand-ins."""

import asyncio
import gc
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from singleflight.fleet.cuts import Known, Numbers
from singleflight.fleet.mailboxes import Mailbox
from singleflight.locks.mutex import inside_other
from singleflight.redis import link as module
from singleflight.redis import scripts
from singleflight.redis.clients import Kind, Trouble
from singleflight.redis.link import Link

from ..drivers import PATIENCE

AWAY, REFUSED, RIGHTS = (Trouble(kind, f"it is {kind.value}") for kind in Kind)
OTHERS = b"o" * 8
TAG, KEY = b"t" * 16, b"k" * 16


class Keeper:
    """Takes orders; `sends` has them sent, with these replies."""

    def __init__(self):
        self.orders, self.nudges = [], 0

    def hand_over(self, *orders):
        self.orders += orders

    def nudge(self):
        self.nudges += 1

    def sends(self, *replies):
        orders, self.orders = self.orders, []
        return sent(orders, *replies)


def sent(orders, *replies):
    """Send what is wanted of some orders, and tell the replies; return the calls."""
    orders = [order for order in orders if order.wanted()]
    for order, reply in zip(orders, replies, strict=True):
        order.done(reply)
    return [order.call for order in orders]


class Function:
    def __init__(self, link, digest=b"f" * 16, identity="module.price", wants=()):
        self.digest, self.identity, self.numbers = digest, identity, Known()
        self.cache = SimpleNamespace(name="price", tell=self)
        self.link, self._wants, self.seen, self.events = link, wants, [], []
        self.later = []  # what `told` returns
        link.add(self)

    def wants(self, kind):
        return kind in self._wants

    def tell(self, kind, key, **details):
        self.events.append((kind, key, details))

    def is_again(self, other):
        return self.identity == other.identity

    def latest(self):
        return Numbers(5, 6)

    def tag_digest(self, tag):
        return tag.encode().ljust(16)

    def calls_of(self, drop, numbers):
        call = (drop.kind, drop.name, numbers)
        return [call, "numbers"] if drop.kind in ("put", "drop") else [call]

    def told(self, drop, era, sent, replies, again=False):
        self.seen.append(("told", drop.kind, era, sent, replies, again))
        if isinstance(replies[0], Trouble):
            raise replies[0]
        if self.later:
            return self.later.pop(0)
        self.link.confirm(drop, replies[0])
        return None

    def confirmed(self, drop, reply):
        self.seen.append(("confirmed", drop.kind, reply))

    def heard(self, news):
        self.seen.append(("heard", news))

    def forget_near(self):
        assert self.link.lock.acquire(blocking=False)  # it is under no lock of another thread
        self.link.lock.release()
        self.seen.append("forgot")


@pytest.fixture
def now(monkeypatch):
    """What the link takes for the time, and for chance: none."""
    now = SimpleNamespace(at=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.at))
    monkeypatch.setattr(module, "_chance", lambda: 0.0)
    return now


@pytest.fixture
def link(now):
    made = Link("redis://localhost:1", prefix="sf", lease=2.0, timeout=0.3)
    made.keeper = Keeper()
    made.bus = SimpleNamespace(up=True, kicked=0, renewed=0)
    made.bus.renew = lambda: setattr(made.bus, "renewed", made.bus.renewed + 1)
    made.bus.kick = lambda: setattr(made.bus, "kicked", made.bus.kicked + 1)
    return made


@pytest.fixture
def function(link):
    return Function(link, wants=("degraded", "recovered", "gap"))


def lost(link):
    link.failed(AWAY, link.period())
    link.keeper.nudges = 0


def test_what_a_process_is_called():
    """Its channel is its own; its keeper renews for as long as a lease lasts, in milliseconds."""
    link, other = (Link("redis://localhost:1", prefix="sf", lease=2.0, timeout=0.3) for _ in range(2))
    assert link.channel == b"sf:p:" + link.me.hex().encode()
    assert (len(link.me), link.me == other.me) == (8, False)
    assert link.name == f"process {os.getpid()} on {socket.gethostname()}"
    assert link.bus_channel == b"sf:bus"
    assert (link.era, link.cuts, link.again_at(), link.pending()) == (0, {}, None, False)
    assert (link.keeper._lease, link.keeper._clients, link.keeper._duties) == (2000, link.clients, link)
    assert (link.bus._own, link.bus._all) == (link.channel, b"sf:bus")
    assert (link.bus._clients, link.bus._mailboxes, link.bus._lock) == (
        link.clients,
        link.mailboxes,
        link.lock,
    )
    assert (link.bus._heard, link.bus._gap, link.bus._silent) == (link._heard, link._gap, link._silent)
    assert link.clients.source.timeout == 0.3
    tokens = [link.new_token(), link.new_token()]
    assert tokens == [link.me + number.to_bytes(8, "big") for number in (1, 2)]


# -- functions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["lock", "clients", "bus", "keeper"])
def test_who_is_inside_a_section(part):
    """A handler finds that out, as long as the link lives; another thread is not inside of it."""
    link = Link("redis://localhost:1", prefix="sf", lease=2.0, timeout=0.3)
    lock = {
        "lock": lambda: link.lock,
        "clients": lambda: link.clients._lock,
        "bus": lambda: link.bus._starting,
        "keeper": lambda: link.keeper._changed,
    }[part]
    for again in (False, True):
        if again:  # as in a forked child
            link.after_fork()
        assert not inside_other()
        with lock():
            assert inside_other()
            with ThreadPoolExecutor(1) as pool:
                assert not pool.submit(inside_other).result(PATIENCE)
        assert not inside_other()


def test_functions_of_one_name(link, function):
    """One, and the same defined again; for as long as they live."""
    again, other = Function(link), Function(link, b"o" * 16, "module.other")
    assert link.functions() == [function, again, other]
    assert link._function(b"f" * 16) is again
    text = "which would share their values; give one of them another `name`"
    with pytest.raises(ValueError, match=f"^store: 'price' is the name of two functions, {text}$"):
        Function(link, identity="elsewhere.price")
    del again
    gc.collect()
    assert link.functions() == [function, other]
    assert link._function(b"f" * 16) is function
    assert link._function(b"?" * 16) is None


# -- may the server be asked? --------------------------------------------------------------------------


def test_a_server_that_is_lost(link, function, now, caplog):
    """It is not asked; whoever waits for it hears of that, and each function once."""
    other, rung = Function(link, b"o" * 16), []
    box = Mailbox(lambda: rung.append(link.keeper.nudges))
    link.mailboxes.register(b"name", box)
    assert (link.period(), link.is_away(), link.state(now.at), link.probe_at()) == (
        0,
        False,
        "connected",
        None,
    )
    now.at += 5
    assert link.failed(AWAY, 0) is False
    assert rung == [1]
    assert box.take() is not None
    assert (link.period(), link.is_away()) == (None, True)
    assert link.state(now.at + 12.345) == "degraded since 12.3 s ago"
    assert link.probe_at() == now.at + 0.25
    assert (function.events, other.events) == ([("degraded", None, {"reason": "it is away"})], [])
    assert caplog.messages == ["sf: it is away; this process works alone until it answers"]
    assert link.failed(AWAY, 0) is False
    assert (link.keeper.nudges, len(function.events)) == (1, 1)


def test_a_server_that_is_back(link, function, now, caplog):
    """First it is told what it is owed; what is near is forgotten, and the bus connects now."""
    lost(link)
    drop = link.note("drop", function, KEY, b"written")
    caplog.clear()
    now.at += 12.345
    link.answered()
    assert link.state(now.at) == "recovering"
    assert sent(link.owed(), 1, [b"5", b"6"]) == [("drop", KEY, Numbers(5, 6)), "numbers"]
    assert link.current(drop) is None
    assert (link.is_away(), function.seen.count("forgot"), link.bus.kicked, caplog.messages) == (
        True,
        0,
        0,
        [],
    )
    assert link.owed() == []
    assert (link.period(), link.era, link.probe_at()) == (1, 1, None)
    assert (function.seen.count("forgot"), link.bus.kicked) == (1, 1)
    assert function.events[1:] == [("recovered", None, {"lasted": pytest.approx(12.345)})]
    assert caplog.messages == ["sf: the server is asked again, after 12.3 s"]
    assert (link.owed(), link.bus.kicked, link.era) == ([], 1, 1)


def test_what_is_owed_is_sent_though_another_is_sending_it(link, function, now):
    """That may never be answered."""
    put = link.note("put", function, KEY, "payload")
    assert link.takes(put)
    lost(link)
    link.answered()
    assert len(sent(link.owed(), 1, [b"5", b"6"])) == 2


def test_a_probe_that_failed(link, function, now, caplog):
    """The next one comes later; what is refused is named, and does not count as lost."""
    link.troubled(RIGHTS)
    assert not link.is_away()
    link.troubled(AWAY)
    assert link.probe_at() == now.at + 0.25
    assert function.events == [("degraded", None, {"reason": "it is away"})]
    assert caplog.messages == [
        "sf: it is rights; values are loaded by each process for itself",
        "sf: it is away; this process works alone until it answers",
    ]
    now.at += 1
    link.troubled(AWAY)
    assert link.probe_at() == now.at + 0.5


def test_what_the_server_refuses(link, function, caplog):
    """Each reason is named once, and does not make the process work alone."""
    for trouble in (REFUSED, RIGHTS, REFUSED):
        assert link.failed(trouble, 0) is True
    assert caplog.messages == [
        f"sf: it is {what}; values are loaded by each process for itself" for what in ("refused", "rights")
    ]
    assert (link.period(), link.again_at(), link.keeper.nudges) == (0, None, 3)


# -- drops ---------------------------------------------------------------------------------------------


def test_a_drop_is_owed_until_it_is_confirmed(link, function):
    """Whoever flushes hears of the last one."""
    first, second = link.note("drop", function, KEY, b"written"), link.note("cut", function, TAG)
    assert (first.kind, first.function, first.name, first.payload) == ("drop", b"f" * 16, KEY, b"written")
    assert (second.name, second.payload) == (TAG, None)
    assert link.note("clear", function).name == b""
    clear = link.first_for(b"f" * 16, KEY)
    assert [drop.kind for drop in clear] == ["clear"]
    first = link.note("drop", function, KEY, b"written")
    assert link.first_for(b"f" * 16, KEY) == [*clear, first]
    assert (link.current(first), link.pending(), link.keeper.nudges) == (first, True, 0)
    link.confirm(first, 7)
    assert (link.current(first), link.keeper.nudges) == (None, 0)
    link.confirm(clear[0], 8)
    assert (link.pending(), link.keeper.nudges) == (False, 1)
    assert function.seen == [("confirmed", "drop", 7), ("confirmed", "clear", 8)]


def test_a_drop_of_a_function_that_is_gone(link):
    """Is sent no more."""
    function = Function(link)
    first, second = link.note("cut", function, TAG), link.note("drop", function, KEY, b"")
    del function
    gc.collect()
    link.confirm(first, 1)
    assert link.pending()
    assert link.orders(second) == []
    assert not link.pending()


def test_what_the_keeper_sends_for_a_drop(link, function):
    """With the numbers that are known, and again with those that hold; nothing once it is confirmed."""
    drop = link.note("drop", function, KEY, b"written")
    function.later = [Numbers(7, 8)]
    link.era = 3
    orders = link.orders(drop)
    link.era = 4
    assert sent(orders, 1, 2) == [("drop", KEY, Numbers(5, 6)), "numbers"]
    assert link.keeper.sends(3, 4) == [("drop", KEY, Numbers(7, 8)), "numbers"]
    assert function.seen == [
        ("told", "drop", 3, Numbers(5, 6), [1, 2], False),
        ("told", "drop", 4, Numbers(7, 8), [3, 4], True),
        ("confirmed", "drop", 3),
    ]
    assert link.keeper.orders == []
    assert sent(link.orders(drop)) == []


def test_what_took_the_place_of_a_drop_is_sent_for_itself(link, function):
    """The older one is not wanted any more."""
    first = link.note("drop", function, KEY, b"written")
    orders = link.orders(first)
    second = link.note("put", function, KEY, "payload")
    assert sent(orders) == []
    assert sent(link.orders(second), 1, 2) == [("put", KEY, Numbers(5, 6)), "numbers"]


def test_a_put_is_sent_by_one_at_a_time(link, function):
    """Until it is answered; what the other one has, comes to nothing here, and ends nothing there."""
    put = link.note("put", function, KEY, "payload")
    taken = link.takes(put)
    others = link.orders(put)
    assert sent(others) == []
    for order in others:
        order.done(AWAY)
    assert not link.takes(put)
    link.sent(taken)
    for order in (mine := link.orders(put)):
        assert order.wanted()
    assert not link.takes(put)
    for order in mine:
        order.done(AWAY)
    assert link.takes(put)


@pytest.mark.parametrize("late", ["an outage", "no answer"])
def test_who_is_answered_late_ends_nothing_of_the_next_one(link, function, now, late):
    """Also where it is the same change: after an outage the keeper sends what others may still be sending."""
    put = link.note("put", function, KEY, "payload")
    first = link.takes(put)
    now.at += 0.0 if late == "an outage" else 3 * link.timeout
    second = link.takes(put, late == "an outage")
    link.sent(first)
    assert link.takes(put) is None
    link.sent(second)
    assert link.takes(put)


def test_what_was_taken_and_freed_by_whoever_interrupts(link, function):
    """A signal handler that changes the same key, after it was seen that this one has it still."""

    class Interrupted(dict):
        def get(self, key):
            found = super().get(key)
            self.clear()
            return found

    put = link.note("put", function, KEY, "payload")
    taken = link.takes(put)
    link._sending = Interrupted(link._sending)
    link.sent(taken)
    assert link._sending == {}


def test_what_was_left_to_one_that_never_ends_is_sent_again(link, function, now):
    """It was interrupted, or its loop is gone: the keeper looks when it can be answered no more."""
    put = link.note("put", function, KEY, "payload")
    assert link.takes(put)
    assert link.takes(put) is None
    assert link.again_at() is None
    assert sent(link.orders(put)) == []
    assert link.again_at() == now.at + 3 * link.timeout
    now.at += 3 * link.timeout
    assert sent(link.again(), 1, 2) == [("put", KEY, Numbers(5, 6)), "numbers"]
    assert not link.pending()


def test_what_is_sent_again_is_sent_with_the_first(link, function, now):
    """What was refused is not held up by what was left to others, nor the reverse."""
    put, drop = link.note("put", function, KEY, "payload"), link.note("drop", function, b"o" * 16, b"written")
    link.timeout = 1.0
    assert link.takes(put)
    assert sent(link.orders(put)) == []
    assert link.again_at() == now.at + 3.0
    sent(link.orders(drop), REFUSED, REFUSED)
    assert link.again_at() == now.at + 1.0
    link.timeout = 5.0
    assert sent(link.orders(put)) == []
    assert link.again_at() == now.at + 1.0


def test_who_is_sending_a_change_of_a_key(link, function, pool):
    """A thread; of tasks, which may await one another, that is not said."""
    put, drop = link.note("put", function, KEY, "payload"), link.note("drop", function, b"o" * 16, b"written")
    later = link.note("drop", function, KEY, b"written")

    async def takes():
        return link.takes(drop)

    taken = link.takes(put)
    asyncio.run(takes())
    assert [link.is_sending(each) for each in (put, later, drop)] == [True, True, False]
    assert not pool.submit(link.is_sending, put).result(PATIENCE)
    link.sent(taken)
    assert not link.is_sending(put)


def test_what_the_keeper_leaves_to_another_one(link, function):
    """It is given that back when it was answered, or what took its place; nothing where that is confirmed."""
    first = link.note("put", function, KEY, "payload")
    taken = link.takes(first)
    assert sent(link.orders(first)) == []
    second = link.note("drop", function, KEY, b"written")
    assert sent(link.orders(second)) == []
    assert not link.takes(second)  # nor does a thread get it, which waits
    assert link.keeper.orders == []
    link.sent(taken)
    assert link.keeper.sends(1, 2) == [("drop", KEY, Numbers(5, 6)), "numbers"]
    assert not link.pending()
    third = link.note("put", function, KEY, "payload")
    taken = link.takes(third)
    assert not link.takes(third)
    link.sent(taken)
    assert link.keeper.orders == []
    taken = link.takes(third)
    assert sent(link.orders(third)) == []
    link.confirm(third, 1), link.sent(taken)
    assert link.keeper.orders == []


@pytest.mark.parametrize("before", ["clear", "cut"])
def test_a_put_waits_for_what_it_is_to_outlast(link, function, pool, now, before):
    """Where that is on its way by somebody else, for as long as it can be; the keeper is given it then."""
    earlier = link.note(before, function, TAG if before == "cut" else b"")
    taken = pool.submit(link.takes, earlier).result(PATIENCE)
    put, other = (
        link.note("put", function, KEY, "payload"),
        link.note("drop", function, b"o" * 16, b"written"),
    )
    assert link.in_order(put) == [earlier, put]
    assert link.in_order(other) == [other]
    assert link.takes(put) is None
    assert sent(link.orders(put)) == sent(link.orders(put)) == []
    link.sent(link.takes(other))
    link.confirm(earlier, 1), link.sent(taken)
    assert link.keeper.sends(1, 2) == [("put", KEY, Numbers(5, 6)), "numbers"]
    mine = link.note(before, function, TAG if before == "cut" else b"")
    put = link.note("put", function, KEY, "payload")
    taken = link.takes(mine)
    link.sent(link.takes(put))  # in one pipeline, or by a handler
    link.sent(taken)
    pool.submit(link.takes, mine).result(PATIENCE)
    now.at += 3 * link.timeout
    assert link.takes(put)


def test_what_was_put_before_its_tag_was_invalidated_is_dropped(link, function):
    """Or it would be sent with the number of that cut; what was put with other tags stays, and elsewhere."""
    eu, us = (SimpleNamespace(tags=tags) for tags in (("eu", "x"), ("us",)))
    link.note("put", function, KEY, (b"written", eu))
    link.note("put", function, b"o" * 16, (b"other", us))
    link.note("put", Function(link, b"g" * 16), KEY, (b"written", eu))
    noted = link.note_cut(function, ("de", "eu"))
    assert [(each.kind, each.name, each.payload) for each in noted] == [
        ("cut", function.tag_digest("de"), None),
        ("cut", function.tag_digest("eu"), None),
        ("drop", KEY, b"written"),
    ]
    kept = [(each.kind, each.function, each.name) for each in link.drops.unconfirmed()]
    assert [each for each in kept if each[0] == "put"] == [
        ("put", function.digest, b"o" * 16),
        ("put", b"g" * 16, KEY),
    ]
    assert len(kept) == 5


@pytest.mark.parametrize("trouble", [REFUSED, RIGHTS])
def test_a_drop_that_is_refused(link, function, now, trouble):
    """It is sent again after a pause; meanwhile it holds nothing up when the server comes back."""
    drop = link.note("drop", function, KEY, b"written")
    sent(link.orders(drop), trouble, trouble)
    assert (link.again_at(), link.keeper.nudges) == (now.at + 1.0, 1)
    now.at += 0.5
    other = link.note("cut", function, TAG)
    sent(link.orders(other), trouble)
    assert (link.again_at(), link.keeper.nudges) == (now.at + 0.5, 2)
    lost(link)
    link.answered()
    assert len(link.owed()) == 3  # who answers a probe may take it by now
    link.troubled(AWAY)
    link.answered()
    sent(link.owed(), trouble, trouble, trouble)
    assert link.owed() == []
    assert not link.is_away()
    assert sent(link.again(), 1, 2, 3) == [
        ("drop", KEY, Numbers(5, 6)),
        "numbers",
        ("cut", TAG, Numbers(5, 6)),
    ]
    assert (link.again_at(), link.pending(), link._refused) == (None, False, set())


def test_a_drop_that_did_not_arrive(link, function):
    """The server was lost: it is owed, and nothing else comes of that."""
    drop = link.note("cut", function, TAG)
    sent(link.orders(drop), AWAY)
    assert (link.current(drop), link.again_at(), link._refused, link.keeper.nudges) == (drop, None, set(), 0)


# -- what the bus tells --------------------------------------------------------------------------------


def news(kind, key=KEY, sender=OTHERS, number=9, function=b"f" * 16):
    return scripts.News(kind, function, key, sender, number)


def test_news_are_told_to_their_function(link, function):
    """Those of others; own ones where there are two of its name, since the other one has not made them."""
    link._heard(news("drop"))
    link._heard(news("drop", sender=link.me))
    link._heard(news("drop", function=b"?" * 16))
    assert function.seen == [("heard", news("drop"))]
    again = Function(link)
    link._heard(news("epoch", sender=link.me))
    assert function.seen[1:] == again.seen == [("heard", news("epoch", sender=link.me))]
    assert (link.cuts, link.keeper.orders) == ({}, [])


def test_a_cut_is_remembered(link, function):
    """The highest of its tag, and for all processes that could have made it."""
    link._heard(news("cut", TAG, number=9))
    link._heard(news("cut", b"u" * 16, number=11, sender=link.me))
    assert link.cuts == {TAG: 9, b"u" * 16: 11}
    assert function.numbers.ever == Numbers(0, 11)
    assert function.seen == [("heard", news("cut", TAG, number=9))]
    assert link.keeper.orders == []


@pytest.mark.parametrize("twice", [False, True])
def test_a_cut_that_does_not_follow_on_the_last_one(link, function, twice):
    """The server has lost that: it is told to number it again, above all that any of them knows."""
    again = Function(link) if twice else function
    function.numbers.saw(Numbers(0, 30))
    link._heard(news("cut", TAG, number=20))
    link._heard(news("cut", TAG, number=20))
    assert link.cuts == {TAG: 20}
    assert again.numbers.ever == Numbers(0, 30)
    assert link.keeper.sends(31) == [("cut", TAG, Numbers(5, 6))]
    told = ("told", "cut", 0, Numbers(5, 6), [31], False), ("confirmed", "cut", 31)
    heard = ("heard", news("cut", TAG, number=20))
    assert again.seen == [heard, heard, *told]


def test_which_cuts_are_known(link, monkeypatch):
    """Those that were asked for in this era, or heard of; as many as fit."""
    link.learn_cuts({b"a": 3, b"b": 4}, 0)
    link.learn_cuts({b"a": 2}, 0)
    link.learn_cuts({b"a": 9, b"c": 9}, 1)
    assert link.known_cuts([b"a", b"b", b"c"]) == {b"a": 3, b"b": 4}
    link.raise_cut(b"a", 7), link.raise_cut(b"b", 1), link.raise_cut(b"c", 7)
    assert link.known_cuts([b"a", b"b", b"c"]) == {b"a": 7, b"b": 4}
    assert link.known_cuts([b"b"]) == {b"b": 4}
    link.bus.up = False
    assert link.known_cuts([b"a"]) == {}
    monkeypatch.setattr(module, "_MOST_CUTS", 3)
    link.learn_cuts({b"c": 0}, 0)
    assert link.cuts == {b"a": 7, b"b": 4, b"c": 0}
    link.learn_cuts({b"d": 6}, 0)
    assert link.cuts == {b"d": 6}


def test_a_gap(link, function):
    """Nothing is believed that was heard before it; at the first connection rights are asked for."""
    link.learn_cuts({b"a": 3}, 0)
    link._gap(True)
    assert (link.era, link.cuts, function.seen, function.events) == (1, {}, ["forgot"], [])
    assert [order.call for order in link.keeper.orders] == [scripts.check("sf", [link.channel, b"sf:bus"])]
    link._gap(False)
    assert (link.era, function.seen, function.events) == (2, ["forgot"] * 2, [("gap", None, {})])
    assert link.bus.renewed == 0
    link.changed()
    assert (link.era, len(function.events), len(link.keeper.orders), link.bus.renewed) == (3, 2, 1, 1)


def test_a_bus_that_is_silent(link, caplog):
    """Is told at INFO, and may be for a missing right."""
    with caplog.at_level(logging.INFO, "singleflight"):
        link._silent("it was cut")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, "sf: it was cut")
    ]
    assert len(link.keeper.orders) == 1


def test_rights_are_asked_for_once(link, caplog):
    """Unless that was not answered; the user who may not run scripts is told of elsewhere."""
    link._gap(True), link._gap(True)
    [order] = link.keeper.orders
    assert order.wanted()
    order.done(AWAY)
    link._gap(True)
    [_, order] = link.keeper.orders
    order.done(RIGHTS)
    link._gap(True)
    assert len(link.keeper.orders) == 2
    assert caplog.messages == []
    order.done([b"hget", b"publish"])
    assert caplog.messages == [
        f"sf: the server's user lacks a right: {right}" for right in ("+hget ~sf:*", "+publish &sf:*")
    ]


# -- processes -----------------------------------------------------------------------------------------


def test_a_link_that_is_closed(link, function):
    """Its threads and connections end; it begins anew, with the functions that it has."""
    done = []
    keeper, bus, clients = link.keeper, link.bus, link.clients
    keeper.stop, bus.stop = lambda: done.append("keeper"), lambda: done.append("bus")
    clients.close = lambda: done.append("clients")
    lost(link)
    link.note("clear", function)
    me = link.me
    link.close()
    assert link.period() == 1
    link.failed(Trouble(Kind.AWAY, "the store is closed"), 0)  # asked before, by a connection that is closed
    assert done == ["keeper", "bus", "clients"]
    assert link.me != me
    assert (link.is_away(), link.functions()) == (False, [function])
    assert sent(link.again(), 1) == [("clear", b"", Numbers(5, 6))]  # it was to be told, and is now
    assert link.again_at() is None
    assert link.keeper is not keeper
    assert link.bus is not bus
    assert link.clients is not clients
    link.note("clear", function)
    me = link.me
    link.after_fork()
    assert (link.pending(), link.again_at(), link.me == me) == (False, None, False)


@pytest.mark.parametrize("left", [False, True])
def test_what_is_to_be_told_is_told_before_a_link_is_closed(link, function, now, left):
    """For as long as an answer may take."""
    seen = []
    link.keeper.flush = seen.append
    link.keeper.stop = link.bus.stop = lambda: None
    if left:
        link.note("clear", function)
    link.close()
    assert seen == ([link.timeout] if left else [])
    assert link.again_at() == (now.at if left else None)
