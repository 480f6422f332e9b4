"""What the keeper sends, when, and what it makes of the answers: with clients that are stand-ins."""

import math
import queue
import threading
import time
from types import SimpleNamespace

import pytest

from singleflight.redis import scripts
from singleflight.redis.clients import Kind, Trouble
from singleflight.redis.keeper import BATCH, Keeper, Lease, Order

from .waiting import wait_until

PATIENCE = 5.0
LEASE = 3_000_000  # milliseconds: a third of it is longer than any test
THIRD = LEASE / 3000
AWAY, REFUSED = Trouble(Kind.AWAY, "gone"), Trouble(Kind.REFUSED, "no")
OTHER = Trouble(Kind.RIGHTS, "not you")


class Struck(BaseException):
    """An interrupt."""


class Clients:
    """Answers what a test has put down for it, or 1; and notes what it was sent."""

    def __init__(self):
        self.sent, self.replies, self.identities = [], [], ["run 1"]

    def call(self, call):
        (reply,) = self.call_all([call])
        if isinstance(reply, Trouble):
            raise reply
        return reply

    def call_all(self, calls):
        self.sent.append(list(calls))
        reply = self.replies.pop(0) if self.replies else None
        if isinstance(reply, Trouble):
            raise reply
        return [1] * len(calls) if reply is None else reply

    def identity(self):
        return self.identities.pop(0) if len(self.identities) > 1 else self.identities[0]


class Duties:
    """Asks for nothing, unless a test says so; notes what it is told."""

    def __init__(self):
        self.told, self.at, self.owing = [], None, []
        self.at_again, self.refused = None, []

    def probe_at(self):
        return self.at

    def answered(self):
        self.told.append("answered")

    def owed(self):
        owing, self.owing = self.owing, []
        if not owing:
            self.at = None
        return owing

    def again_at(self):
        return self.at_again

    def again(self):
        self.at_again = None
        return self.refused

    def troubled(self, trouble):
        if self.at is not None:
            self.at = time.monotonic() + 10_000
        self.told.append(trouble)

    def changed(self):
        self.told.append("changed")

    def pending(self):
        return False


class Kept:
    def __init__(self):
        self.clients, self.duties = Clients(), Duties()
        self.keeper = Keeper(self.clients, self.duties, lease=LEASE)
        self.lost = []

    def leases(self, **ages):
        """Some that are held, each renewed so many thirds of a lease ago."""
        made = []
        with self.keeper._changed:  # its thread sees all of them, or none
            for name, age in ages.items():
                place = scripts.place(f"sf:{{f:{name}}}")
                made.append(Lease(place, b"1", name.encode(), self.lost.append))
                self.keeper.hold(made[-1])
                made[-1].renewed -= age * THIRD
        return made

    def lease(self, age=0.0):
        (made,) = self.leases(k=age)
        return made

    def round(self):
        """Have it look, and wait until it has done what was to be done by now."""
        assert self.keeper.flush(PATIENCE)  # it may have been in the midst of something
        assert self.keeper.flush(PATIENCE)

    def order(self, number=0, **others):
        replies = queue.Queue()
        return Order(scripts.command("GET", number), replies.put, **others), lambda: replies.get(
            timeout=PATIENCE
        )


def renewal(lease):
    return scripts.renew(lease.place, lease.version, lease.token, lease=LEASE)


@pytest.fixture
def kept():
    made = Kept()
    yield made
    made.keeper.stop(PATIENCE)


def test_orders_go_in_batches(kept):
    """In order, and each is told its own reply; those that nobody wants any more are not sent."""
    done = []
    orders = [
        Order(scripts.command("GET", number), lambda reply, number=number: done.append((number, reply)))
        for number in range(2 * BATCH + 1)
    ]
    unwanted = Order(scripts.command("GET", "unwanted"), done.append, lambda: False)
    kept.clients.replies = [list(range(BATCH)), list(range(BATCH, 2 * BATCH)), [2 * BATCH]]
    kept.keeper.hand_over(unwanted, *orders)
    kept.round()
    assert [len(calls) for calls in kept.clients.sent] == [BATCH, BATCH, 1]
    assert [call for calls in kept.clients.sent for call in calls] == [order.call for order in orders]
    assert done == [(number, number) for number in range(2 * BATCH + 1)]
    assert kept.duties.told == []


def test_orders_that_come_before_it_looks(kept):
    """All of them are sent, whoever has handed them over."""
    with kept.keeper._changed:
        (one, one_reply), (other, other_reply) = kept.order("one"), kept.order("other")
        kept.keeper.hand_over(one), kept.keeper.hand_over(other)
    assert (one_reply(), other_reply()) == (1, 1)
    assert kept.clients.sent == [[one.call, other.call]]


def test_an_order_is_wanted_when_its_turn_has_come(kept):
    """And not before: what was sent until then may have done it."""
    done = []
    orders = [Order(scripts.command("GET", number), done.append) for number in range(BATCH)]
    late = Order(scripts.command("GET", "late"), done.append, lambda: not done)
    later = Order(scripts.command("GET", "later"), done.append, lambda: len(done) == BATCH)
    kept.keeper.hand_over(*orders, late, later)
    kept.round()
    assert kept.clients.sent == [[order.call for order in orders], [later.call]]


def test_a_batch_that_is_lost(kept):
    """Each of its orders is told, and the next batch is sent; the first trouble is told once."""
    done = []
    orders = [Order(scripts.command("GET", number), done.append) for number in range(BATCH + 2)]
    kept.clients.replies = [AWAY, [REFUSED, 7]]
    kept.keeper.hand_over(*orders)
    kept.round()
    assert done == [AWAY] * BATCH + [REFUSED, 7]
    assert kept.duties.told == [AWAY]


@pytest.mark.parametrize("replies", [[[REFUSED] * BATCH, AWAY], [[REFUSED, AWAY]], [[REFUSED, OTHER, AWAY]]])
def test_a_server_that_is_lost_after_it_has_refused_something(kept, replies):
    """That it was lost is told: what it kept from arriving is owed, and nobody else would say so."""
    orders = [Order(scripts.command("GET", number), lambda _: None) for number in range(BATCH + 2)]
    kept.clients.replies = replies
    kept.keeper.hand_over(*(orders if len(replies) > 1 else orders[: len(replies[0])]))
    kept.round()
    assert kept.duties.told == [AWAY]


def test_what_is_refused_is_told_once_a_round(kept):
    """The first of it."""
    orders = [Order(scripts.command("GET", number), lambda _: None) for number in range(2)]
    kept.clients.replies = [[OTHER, REFUSED]]
    kept.keeper.hand_over(*orders)
    kept.round()
    assert kept.duties.told == [OTHER]


def test_orders_that_come_with_a_renewal_that_fails(kept):
    """They are told that they are not sent: nobody else would tell them."""
    with kept.keeper._changed:
        lease, (order, reply) = kept.lease(2.0), kept.order()
        kept.clients.replies = [AWAY]
        kept.keeper.hand_over(order)
    assert reply() is AWAY
    kept.round()
    assert (kept.clients.sent, kept.duties.told) == ([[renewal(lease)]], [AWAY])


def test_what_is_to_be_told_again(kept):
    """When its time has come, and after what was ordered."""
    again, again_reply = kept.order("again")
    order, order_reply = kept.order("ordered")
    kept.duties.refused, kept.duties.at_again = [again], time.monotonic() + 10_000
    kept.keeper.hand_over(order)
    assert order_reply() == 1
    kept.round()
    assert kept.clients.sent == [[order.call]]
    kept.duties.at_again = time.monotonic()
    kept.keeper.nudge()
    assert again_reply() == 1
    assert kept.clients.sent == [[order.call], [again.call]]


def test_what_is_to_be_told_again_comes_by_itself(kept):
    """Without a nudge, once its thread knows of it."""
    again, reply = kept.order("again")
    kept.duties.refused, kept.duties.at_again = [again], time.monotonic() + 0.02
    kept.round()
    assert reply() == 1


def test_leases_that_are_due(kept):
    """With one that is due all are renewed that soon would be; the others are not."""
    due, soon, fresh = kept.leases(due=1.1, soon=0.6, fresh=0.4)
    before = fresh.renewed
    kept.round()
    assert kept.clients.sent == [[renewal(due), renewal(soon)]]
    assert time.monotonic() - due.renewed < THIRD / 10
    assert time.monotonic() - soon.renewed < THIRD / 10
    assert fresh.renewed == before
    kept.round()
    assert len(kept.clients.sent) == 1


def test_a_lease_wakes_a_thread_that_waits_for_nothing(kept):
    """It was asleep for as long as nobody would want anything."""
    kept.round()
    wait_until(lambda: kept.keeper._asleep, PATIENCE)
    lease = kept.lease(2.0)
    wait_until(lambda: kept.clients.sent, PATIENCE)  # less than what it sleeps at most
    assert kept.clients.sent == [[renewal(lease)]]


def test_a_lease_wakes_a_thread_that_waits_for_what_comes_later(kept, monkeypatch):
    """What is to be told again, or a probe, may be due when the lease has long ended."""
    sleeps, wait = threading.Event(), kept.keeper._changed.wait

    def sleep(seconds):
        if kept.duties.at_again is not None:
            sleeps.set()  # under the lock: whoever takes it next finds the thread waiting
        return wait(seconds)

    monkeypatch.setattr(kept.keeper._changed, "wait", sleep)
    kept.duties.at_again = time.monotonic() + 10_000
    kept.keeper.nudge()
    assert sleeps.wait(PATIENCE)
    lease = kept.lease(2.0)
    wait_until(lambda: kept.clients.sent, PATIENCE)
    assert kept.clients.sent == [[renewal(lease)]]


def test_a_lease_does_not_wake_a_thread_that_wakes_in_time(kept, monkeypatch):
    """It looks again for the lease that it has, and sees this one then."""
    sleeps, wait, notified = queue.Queue(), kept.keeper._changed.wait, []

    def sleep(seconds):
        sleeps.put(len(kept.keeper._leases))  # under the lock, as above
        return wait(seconds)

    monkeypatch.setattr(kept.keeper._changed, "wait", sleep)
    kept.lease()
    while sleeps.get(timeout=PATIENCE) == 0:
        pass
    with monkeypatch.context() as patch:
        patch.setattr(kept.keeper._changed, "notify", lambda: notified.append("notified"))
        kept.lease()
    assert notified == []


def test_a_lease_whose_answer_came_late_is_renewed_at_once(kept):
    """Though the thread would wake within a third: by then it may have ended."""
    kept.lease()
    kept.round()
    late = Lease(scripts.place("sf:{f:late}"), b"1", b"late", kept.lost.append)
    kept.keeper.hold(late, time.monotonic() - 2 * THIRD)
    wait_until(lambda: kept.clients.sent, PATIENCE)
    assert kept.clients.sent == [[renewal(late)]]


def test_no_lease_is_due(kept):
    """Then nothing is sent, though some soon would be."""
    kept.lease(0.9)
    kept.round()
    assert kept.clients.sent == []


def test_many_leases_go_in_batches(kept):
    """Each with its own reply."""
    kept.clients.replies = [[1] * BATCH, [-1]]
    leases = kept.leases(**{str(number): 2.0 for number in range(BATCH + 1)})
    kept.round()
    assert [len(calls) for calls in kept.clients.sent] == [BATCH, 1]
    assert kept.lost == [leases[-1]]
    assert [*kept.keeper._leases] == leases[:-1]


def test_what_the_server_says_of_a_lease(kept):
    """Less than 0: it is lost. A trouble is told, and it is held on to; 0 or more: it was renewed."""
    kept.clients.replies = [[-1, REFUSED, 0]]
    lost, refused, zero = kept.leases(lost=2.0, refused=2.0, zero=2.0)
    kept.round()
    assert (kept.lost, kept.duties.told) == ([lost], [REFUSED])
    assert [*kept.keeper._leases] == [refused, zero]


def test_a_lease_that_nobody_is_left_to_end(kept):
    """It lapses, and is not told as lost; the others are renewed."""
    with kept.keeper._changed:
        unwanted, other = kept.leases(unwanted=2.0, other=2.0)
        unwanted.wanted = lambda: False
    kept.round()
    assert kept.clients.sent == [[renewal(other)]]
    assert [*kept.keeper._leases] == [other]
    assert kept.lost == []


def test_a_lease_that_is_let_go_of(kept):
    """Also one that was not held."""
    with kept.keeper._changed:
        lease = kept.lease(2.0)
        kept.keeper.let_go(lease), kept.keeper.let_go(lease)
    kept.round()
    assert kept.clients.sent == []


def test_what_a_lost_server_is_asked(kept):
    """Nothing before a probe is due; orders are told so, and leases wait."""
    kept.duties.at = time.monotonic() + 10_000
    kept.lease(2.0)
    order, reply = kept.order()
    kept.keeper.hand_over(order)
    told = reply()
    assert (told.kind, str(told)) == (Kind.AWAY, "the server was lost")
    kept.round()
    assert (kept.clients.sent, kept.duties.told) == ([], [])


@pytest.mark.parametrize("reply", [None, REFUSED], ids=["it answers", "it refuses that"])
def test_a_probe_that_is_answered(kept, reply):
    """What is owed goes first, until nothing is; then all leases are renewed, however young."""
    lease = kept.lease()
    first, first_reply = kept.order("first")
    kept.clients.replies = [reply]
    kept.duties.owing, kept.duties.at = [first], time.monotonic()
    kept.keeper.nudge()
    assert first_reply() == 1
    kept.round()
    assert kept.clients.sent == [[scripts.command("PING")], [first.call], [renewal(lease)]]
    assert kept.duties.told == ["answered"]


def test_a_probe_comes_by_itself(kept):
    """When it is due, and without a nudge, once its thread knows of it."""
    kept.duties.at = time.monotonic() + 0.05
    kept.keeper.nudge()
    wait_until(lambda: "answered" in kept.duties.told, PATIENCE)
    assert kept.clients.sent == [[scripts.command("PING")]]


def test_when_it_looks_again(kept):
    """A third of a lease after each was renewed and after the last one was held; and when it is told to."""
    kept.keeper._changed.acquire()  # its thread does nothing
    try:
        assert kept.keeper._ends(None, None, 5.0) == []
        first, second = kept.leases(first=0.0, second=0.5)
        held = kept.keeper._held_at
        assert kept.keeper._ends(None, None, held) == [
            first.renewed + THIRD,
            second.renewed + THIRD,
            held + THIRD,
        ]
        kept.keeper.let_go(first), kept.keeper.let_go(second)
        assert kept.keeper._ends(None, 7.0, held + THIRD - 1) == [held + THIRD, 7.0]
        assert kept.keeper._ends(None, None, held + THIRD) == []
        assert kept.keeper._ends(6.0, 7.0, held) == [6.0]
    finally:
        kept.keeper._changed.release()


def test_it_is_awake_while_it_works(kept):
    """After it had nothing to wait for, too: whoever hands over a lease then need not wake it."""
    kept.round()
    wait_until(lambda: kept.keeper._asleep, PATIENCE)
    asleep = queue.Queue()
    order = Order(scripts.command("GET", 1), lambda _: asleep.put(kept.keeper._asleep))
    kept.keeper.hand_over(order)
    assert asleep.get(timeout=PATIENCE) is False


def test_a_thread_that_cannot_start(kept, monkeypatch):
    """Nobody is told, and the next one who needs it starts it."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    kept.keeper.nudge()
    monkeypatch.undo()
    assert not kept.keeper._thread.is_alive()
    kept.keeper.stop(PATIENCE)  # it does not wait for what never ran
    kept.keeper._stopped = False
    kept.round()
    assert kept.keeper._thread.is_alive()


def test_a_start_that_is_interrupted(kept, monkeypatch):
    """The thread runs by then, and is known: a second one would change the order of what is sent."""
    start, made = threading.Thread.start, []

    def interrupted(thread):
        made.append(thread)
        start(thread)
        raise Struck

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(Struck):
        kept.keeper.nudge()
    monkeypatch.undo()
    kept.round()
    assert made == [kept.keeper._thread]


def test_a_probe_that_is_not_answered(kept):
    """It is told, and nothing else is asked."""
    kept.lease()
    kept.clients.replies = [AWAY]
    kept.duties.at = time.monotonic()
    kept.round()
    assert (kept.clients.sent, kept.duties.told) == ([[scripts.command("PING")]], [AWAY])


@pytest.mark.parametrize(
    ("identities", "told"),
    [
        (["run 1", "run 1", "run 2", "run 2"], [[], [], ["changed"], ["changed"]]),
        (["run 1", None, "run 2", "run 3"], [[], [], [], []]),
    ],
    ids=["another run", "one that does not say"],
)
def test_which_run_answers(kept, identities, told):
    """It is asked with each renewal; one that does not say is not asked again."""
    kept.clients.identities = identities
    lease, seen = kept.lease(), []
    for _ in range(4):
        with kept.keeper._changed:
            lease.renewed = -math.inf
        kept.round()
        seen.append(kept.duties.told.copy())
    assert seen == told


def test_what_a_stopped_keeper_has_left(kept):
    """It is told that it is not sent; nothing starts the thread again."""
    kept.round()
    thread = kept.keeper._thread
    assert (thread.name, thread.daemon) == ("singleflight-keeper", True)
    kept.keeper.stop(PATIENCE)
    assert not thread.is_alive()
    order, reply = kept.order()
    kept.keeper.hand_over(order)
    kept.keeper.stop(PATIENCE)
    told = reply()
    assert (told.kind, str(told)) == (Kind.AWAY, "the store is closed")
    assert kept.keeper._thread is thread
    assert kept.clients.sent == []


def test_for_how_long_it_waits_for_its_thread(kept):
    """As it is told; a second, where it is not."""
    kept.round()
    thread, joined = kept.keeper._thread, []
    kept.keeper._thread = SimpleNamespace(is_alive=lambda: True, join=joined.append)
    kept.keeper.stop(), kept.keeper.stop(7.0)
    kept.keeper._thread = thread
    assert joined == [1.0, 7.0]


def test_a_keeper_that_stops_itself(kept):
    """From a callback, on its own thread: it does not wait for itself."""
    stopped = threading.Event()

    def stop(reply):
        kept.keeper.stop(PATIENCE)
        stopped.set()

    kept.keeper.hand_over(Order(scripts.command("GET", 1), stop))
    assert stopped.wait(PATIENCE)
    kept.keeper._thread.join(PATIENCE)
    assert not kept.keeper._thread.is_alive()
    assert kept.duties.told == []


def test_a_flush_that_takes_too_long(kept):
    """It says so, and is forgotten."""
    go_on, entered = threading.Event(), threading.Event()

    def wait(reply):
        entered.set()
        go_on.wait(PATIENCE)

    kept.keeper.hand_over(Order(scripts.command("GET", 1), wait))
    assert entered.wait(PATIENCE)
    assert kept.keeper.flush(0.01) is False
    assert kept.keeper._flushes == []
    go_on.set()
    kept.round()


def test_what_comes_while_it_works(kept):
    """A flush waits for what a callback has ordered, too."""
    done = []

    def order_more(reply):
        wait_until(lambda: kept.keeper._flushes, PATIENCE)
        if len(done) < 3:
            kept.keeper.hand_over(Order(scripts.command("GET", len(done)), order_more))
        done.append(reply)

    kept.keeper.hand_over(Order(scripts.command("GET", "first"), order_more))
    assert kept.keeper.flush(PATIENCE)
    assert done == [1] * 4


def test_a_flush_waits_for_what_is_not_yet_sent(kept):
    """Though all is confirmed that was."""
    rung, (order, _) = [], kept.order()
    kept.keeper._flushes.append(lambda: rung.append(1))
    kept.keeper._orders.append(order)
    kept.keeper._tell_flushes()
    assert rung == []
    kept.keeper._orders.clear()
    kept.keeper._tell_flushes()
    assert rung == [1]


def test_whether_it_is_asked_inside_of_a_section(kept):
    """A handler that interrupts a section waits for nobody."""
    assert kept.keeper.is_owned() is False
    with kept.keeper._changed:
        assert kept.keeper.is_owned() is True
