"""The keeper renews leases, probes a lost server and sends what is left to it; it decides nothing."""

import asyncio
import queue
import threading
import time

import pytest

from singleflight.redis import scripts
from singleflight.redis.clients import Clients, Kind, Trouble
from singleflight.redis.keeper import Keeper, Lease, Order

from ..children import in_child
from .waiting import wait_until

PATIENCE = 20.0
LEASE = 600  # milliseconds


class Duties:
    """Does what a test says, and writes down what it was told."""

    def __init__(self):
        self.told = queue.Queue()
        self.at = None
        self.owing = []
        self.unconfirmed = False

    def probe_at(self):
        return self.at

    def answered(self):
        self.told.put("answered")

    def owed(self):
        if not self.owing:
            self.at = None
            self.told.put("nothing owed")
            return []
        return [self.owing[0]]

    def again_at(self):
        return None

    def troubled(self, trouble):
        if self.at is not None:
            self.at = time.monotonic() + 10_000  # the next is for the test to name
        self.told.put(("troubled", trouble.kind))

    def changed(self):
        self.told.put("changed")

    def pending(self):
        return self.unconfirmed or bool(self.owing)

    def next(self):
        return self.told.get(timeout=PATIENCE)


class Kept:
    def __init__(self, url, library, lease=LEASE):
        self.clients = Clients(url.replace("redis://", f"{library}://"), timeout=1.0)
        self.duties = Duties()
        self.lease = lease
        self.keeper = Keeper(self.clients, self.duties, lease=lease)

    def place(self, name):
        return scripts.place(f"sf:{{f:{name}}}")

    def claim(self, name, token=b"a", lease=None):
        call = scripts.claim(self.place(name), b"1", token, "force", lease=lease or self.lease, channel=b"c",
                             leader="me", most=1000)  # fmt: skip
        return scripts.claimed(self.clients.call(call))

    def held(self, name, token=b"a"):
        assert self.claim(name, token).birth
        lease = Lease(self.place(name), b"1", token, lambda lease: self.duties.told.put(("lost", lease)))
        self.keeper.hold(lease)
        return lease

    def order(self, name="k"):
        replies = queue.Queue()
        call = scripts.drop(self.place(name), bus=b"bus", head=b"h" * 40)
        return Order(call, replies.put), lambda: replies.get(timeout=PATIENCE)

    def close(self):
        self.keeper.stop(PATIENCE)
        self.clients.close()


@pytest.fixture
def make(library):
    made = []

    def make(url, **options):
        made.append(Kept(url, library, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_nothing_runs_before_it_is_needed(make, url):
    """Making one starts no thread and sends nothing."""
    before = set(threading.enumerate())
    make(url)
    assert set(threading.enumerate()) <= before


def test_leases_live_on_while_they_are_held(make, url, direct):
    """Far beyond their own time, all with a few commands; and not a moment longer."""
    kept = make(url)
    leases = [kept.held(str(number)) for number in range(20)]
    ends = time.monotonic() + 3 * LEASE / 1000
    while time.monotonic() < ends:
        assert all(direct.exists(lease.place.flights) for lease in leases)
    assert kept.duties.told.empty()
    for lease in leases:
        kept.keeper.let_go(lease)
    wait_until(lambda: not any(direct.exists(lease.place.flights) for lease in leases))


def test_leases_are_renewed_in_one_pipeline(make, proxy):
    """Those that are due, and those that soon would be."""
    kept = make(proxy.url, lease=900)
    sent = []
    call_all = kept.clients.call_all
    kept.clients.call_all = lambda calls: sent.append(len(calls)) or call_all(calls)
    for number in range(20):
        kept.held(str(number))
    wait_until(lambda: len(sent) >= 2)
    assert 20 in sent[:2]  # the first round may have come while they were claimed


@pytest.mark.parametrize("why", ["dropped", "taken"])
def test_a_lost_lease_is_told_once(make, url, direct, why):
    """And renewed no more."""
    kept = make(url)
    lease, other = kept.held("k"), kept.held("other")
    direct.delete(lease.place.flights)
    if why == "taken":
        kept.claim("k", b"b", lease=60_000)
    assert kept.duties.next() == ("lost", lease)
    wait_until(lambda: other.renewed > time.monotonic() - 1 and lease not in kept.keeper._leases)
    assert kept.duties.told.empty()
    if why == "taken":
        assert direct.hget(lease.place.flights, b"t\x011") == b"b"


def test_a_lease_that_was_let_go_is_not_lost(make, url, direct):
    """Though its renewal was under way, the flight's end is what counts."""
    kept = make(url)
    lease = kept.held("k")
    call_all = kept.clients.call_all
    done = threading.Event()

    def meanwhile(calls):
        direct.delete(lease.place.flights)
        kept.keeper.let_go(lease)
        try:
            return call_all(calls)
        finally:
            done.set()

    kept.clients.call_all = meanwhile
    assert done.wait(PATIENCE)
    assert kept.keeper.flush(PATIENCE)
    assert kept.duties.told.empty()


def test_orders_are_sent_in_order(make, url, direct):
    """And what came back is told."""
    kept = make(url)
    kept.claim("k")
    order, reply = kept.order()
    seen = []
    kept.keeper.hand_over(
        Order(order.call, lambda reply: seen.append(1)),
        Order(order.call, lambda reply: seen.append(2)),
        order,
    )
    assert reply() == 0
    assert seen == [1, 2]
    assert not direct.exists(kept.place("k").flights)


def test_a_refused_order_is_told(make, url, direct):
    """To its owner and to the duties; the others are done."""
    kept = make(url)
    direct.set(kept.place("bad").flights, "not ours", px=60_000)
    bad, bad_reply = kept.order("bad")
    good, good_reply = kept.order("good")
    kept.keeper.hand_over(bad, good)
    assert bad_reply().kind is Kind.REFUSED
    assert good_reply() == 0
    assert kept.duties.next() == ("troubled", Kind.REFUSED)


def test_a_lost_server_is_told_once_a_round(make, own_server):
    """By a renewal; then nothing is sent until a probe is due."""
    kept = make(own_server.url)
    kept.held("k")

    def troubled(trouble):
        kept.duties.at = time.monotonic() + 10_000
        kept.duties.told.put(trouble.kind)

    kept.duties.troubled = troubled
    own_server.kill()
    assert kept.duties.next() is Kind.AWAY
    order, reply = kept.order()
    kept.keeper.hand_over(order)
    assert reply().kind is Kind.AWAY
    assert kept.duties.told.empty()  # nobody asked the server about that order


def test_a_server_that_is_back_is_given_what_it_is_owed(make, own_server):
    """All of it, in order, before it is asked as usual; then leases are renewed at once."""
    kept = make(own_server.url, lease=60_000)
    lease = kept.held("held")
    wait_until(lambda: kept.keeper._thread is not None)
    own_server.kill()
    kept.duties.at = time.monotonic()
    kept.keeper.nudge()
    assert kept.duties.next() == ("troubled", Kind.AWAY)
    own_server.start()
    for name in ("first", "second"):
        order, _ = kept.order(name)

        def done(reply, name=name):
            kept.duties.told.put((name, reply))
            kept.duties.owing.pop(0)

        kept.duties.owing.append(Order(order.call, done))
    kept.duties.at = time.monotonic()
    kept.keeper.nudge()
    told = [kept.duties.next() for _ in range(4)]
    assert told == ["answered", ("first", 0), ("second", 0), "nothing owed"]
    assert kept.duties.next() == ("lost", lease)  # the server has started empty


def test_what_cannot_be_replayed_ends_the_probe(make, url, direct):
    """It is told, and the next probe is the duties' to name."""
    kept = make(url)
    direct.set(kept.place("bad").flights, "not ours", px=60_000)
    order, _ = kept.order("bad")
    kept.duties.owing.append(order)
    kept.duties.at = time.monotonic()
    kept.keeper.nudge()
    assert [kept.duties.next(), kept.duties.next()] == ["answered", ("troubled", Kind.REFUSED)]
    assert kept.keeper.flush(0.05) is False  # it is owed yet
    assert kept.duties.told.empty()


def test_another_run_of_the_server_is_noticed(make, own_server):
    """Though every question was answered."""
    kept = make(own_server.url)
    lease = kept.held("k")
    wait_until(lambda: kept.keeper._identity)
    with kept.keeper._changed:  # the thread does not renew meanwhile
        lease.renewed = time.monotonic() + PATIENCE
        own_server.kill()
        own_server.start()
        lease.renewed = 0.0
    kept.keeper.nudge()
    told = {kept.duties.next(), kept.duties.next()}
    assert told == {"changed", ("lost", lease)}


@pytest.mark.parametrize("where", ["thread", "loop"])
def test_flush_waits_until_all_is_confirmed(make, url, where):
    """By the keeper and by whoever else confirms something, who nudges."""
    kept = make(url)

    def flush(timeout):
        if where == "thread":
            return kept.keeper.flush(timeout)
        return asyncio.run(kept.keeper.aflush(timeout))

    assert flush(PATIENCE)  # there was nothing
    replies = []
    order, _ = kept.order()
    kept.keeper.hand_over(Order(order.call, replies.append))
    assert flush(PATIENCE)
    assert replies == [0]
    kept.duties.unconfirmed = True
    assert not flush(0.05)

    def confirm():
        kept.duties.unconfirmed = False
        kept.keeper.nudge()

    threading.Timer(0.01, confirm).start()
    assert flush(PATIENCE)


def test_a_stopped_keeper_tells_what_it_does_not_send(make, url):
    """Its thread ends."""
    kept = make(url)
    first, first_reply = kept.order()
    kept.keeper.hand_over(first)
    assert first_reply() == 0
    kept.keeper.stop(PATIENCE)
    assert not kept.keeper._thread.is_alive()
    late, late_reply = kept.order()
    kept.keeper.hand_over(late)
    kept.keeper.stop(PATIENCE)
    assert late_reply().kind is Kind.AWAY


def test_an_error_of_a_callback_does_not_end_it(make, url):
    """Leases are renewed all the same."""
    kept = make(url)
    order, reply = kept.order()
    kept.keeper.hand_over(Order(order.call, lambda reply: 1 / 0))
    assert kept.duties.next() == ("troubled", Kind.AWAY)
    kept.keeper.hand_over(order)
    assert reply() == 0


def test_a_child_keeps_nothing_of_its_parents(make, url, direct):
    """It renews no lease and sends no order of theirs; its own it does."""
    kept = make(url)
    lease = kept.held("parents")

    def child():
        held = list(kept.keeper._leases)
        order, reply = kept.order()
        kept.keeper.hand_over(order)
        return held, reply()

    assert in_child(child) == "([], 0)"
    assert list(kept.keeper._leases) == [lease]
    renewed = lease.renewed
    wait_until(lambda: lease.renewed > renewed)
    assert direct.hget(lease.place.flights, b"t\x011") == b"a"


def test_leases_may_be_held_and_let_go_from_many_threads(make, url, crowd):
    """None is renewed after it was let go, none is forgotten."""
    kept = make(url, lease=90)

    def use(number):
        for turn in range(20):
            lease = kept.held(f"{number}:{turn}", b"%d" % turn)
            kept.keeper.let_go(lease)
            assert lease not in kept.keeper._leases

    for number in range(8):
        crowd.add(use, number)
    assert crowd.join() == [None] * 8
    assert kept.keeper._leases == {}
    assert kept.duties.told.empty()


def test_trouble_reads_well():
    assert str(Trouble(Kind.AWAY, "why")) == "why"
