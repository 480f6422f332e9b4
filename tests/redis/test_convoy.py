"""What a bulk call asks, awaits and lands, of scripted passages and a scripted batch: no server is asked."""

from types import SimpleNamespace

import pytest

from singleflight.core.batch import Item
from singleflight.core.landing import Verdict
from singleflight.redis import convoy
from singleflight.redis.clients import raise_trouble
from singleflight.redis.convoy import Convoy
from singleflight.redis.entries import Brought
from singleflight.redis.passage import LISTEN

from .passages import AWAY, REFUSED


class Struck(BaseException):
    pass


class Scripted:
    """A passage that wants these, one after the other, and ends with this; it notes what came of each."""

    def __init__(self, wants, brought=None):
        self.wants, self.brought = wants, brought
        self.is_rung = self.lacks = False
        self.came = []
        self.closed = False

    def steps(self):
        try:
            for todo in self.wants:
                self.came.append((yield todo))
        finally:
            self.closed = True
        return self.brought


@pytest.fixture
def clock(monkeypatch):
    """What the convoy takes for the time: the test sets it."""
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr(convoy, "time", SimpleNamespace(monotonic=lambda: now.at))
    return now


@pytest.fixture
def convoy_of(monkeypatch):
    """Makes the steps of a convoy of scripted passages; `landed` is what its batch was given."""
    made = SimpleNamespace(landed=[], left=[], postponed=[], boxes=[], away=False, drops=[])
    cache = object()
    link = SimpleNamespace(is_away=lambda: made.away, first_for=lambda function, name: made.drops)

    def sending(drop):
        made.drops.remove(drop)
        raise_trouble((yield [drop]))

    def ring():
        return None

    def make(**passages):
        def board(entries, flight, box):
            passages[flight].flight = flight
            made.boxes.append(box)
            return passages[flight]

        batch = SimpleNamespace(
            waiting_for=lambda: {flight: flight.upper() for flight in passages},
            found=lambda items: made.landed.extend(items),
            leave=made.left.append,
        )
        monkeypatch.setattr(convoy, "Passage", board)
        monkeypatch.setattr(convoy, "postpone", lambda *args: made.postponed.append(args))
        made.cache = cache
        entries = SimpleNamespace(cache=cache, link=link, digest=b"f", sending=sending)
        return Convoy(entries, batch, ring).steps(), made

    make.made = made
    return make


def ended(steps, came):
    """Send the last thing that came; the convoy is over then."""
    with pytest.raises(StopIteration):
        steps.send(came)


def test_what_all_want_to_be_sent_goes_in_one_pipeline(convoy_of):
    """Each receives its own replies."""
    a, b, c = (Scripted([todo], Brought(todo)) for todo in (["1"], ["2", "3"], ["4"]))
    steps, made = convoy_of(a=a, b=b, c=c)
    assert next(steps) == ["1", "2", "3", "4"]
    ended(steps, ([1, 2, 3, 4], None))
    assert (a.came, b.came, c.came) == ([([1], None)], [([2, 3], None)], [([4], None)])
    assert made.landed == [
        Item("a", "A", True, ["1"]),
        Item("b", "B", True, ["2", "3"]),
        Item("c", "C", True, ["4"]),
    ]


@pytest.mark.parametrize("came", [(["1"], None), ([REFUSED], None), (None, AWAY)], ids=repr)
def test_what_concerns_all_is_told_once_and_first(convoy_of, came):
    """If the server does not take it each of them finds that out."""
    convoy_of.made.drops = ["clear"]
    steps, made = convoy_of(a=Scripted([["2"]], Brought(1)))
    assert next(steps) == ["clear"]
    assert steps.send(came) == ["2"]
    ended(steps, (["of 2"], None))
    assert len(made.landed) == 1


def test_an_interrupt_while_the_server_is_told_ends_all(convoy_of):
    """Nothing is asked."""
    convoy_of.made.drops = ["clear"]
    a = Scripted([["2"]])
    steps, _ = convoy_of(a=a)
    assert next(steps) == ["clear"]
    with pytest.raises(Struck):
        steps.send((None, Struck()))
    assert a.came == []


def test_while_the_server_is_away_it_is_not_told(convoy_of):
    """What was dropped is replayed when it is back."""
    convoy_of.made.drops, convoy_of.made.away = ["clear"], True
    steps, made = convoy_of(a=Scripted([["2"]]))
    assert next(steps) == ["2"]
    assert made.drops == ["clear"]


def test_where_a_pipeline_fails_each_is_told(convoy_of):
    """It goes on as its claim says."""
    a, b = Scripted([["1"]], Brought(1)), Scripted([["2"]], Brought(2))
    steps, _ = convoy_of(a=a, b=b)
    next(steps)
    error = OSError("away")
    ended(steps, (None, error))
    assert a.came == b.came == [(None, error)]


def test_they_listen_once_for_all(convoy_of):
    """Those that want something else keep it for later."""
    a, b, c = Scripted([LISTEN], Brought(1)), Scripted([LISTEN], Brought(2)), Scripted([["3"]], Brought(3))
    steps, _ = convoy_of(a=a, b=b, c=c)
    assert next(steps) is LISTEN
    assert steps.send((True, None)) == ["3"]
    assert (a.came, b.came, c.came) == ([(True, None)], [(True, None)], [])
    ended(steps, ([3], None))


def test_it_waits_for_whoever_is_due_first(convoy_of, clock):
    """The others have waited as long by then."""
    a, b = Scripted([1.0, 2.5], Brought(1)), Scripted([3.0], Brought(2))
    steps, made = convoy_of(a=a, b=b)
    assert next(steps) == 1.0
    clock.at = 101.0
    assert steps.send((False, None)) == 2.0  # of 3.0, one is over
    assert (a.came, b.came) == ([(False, None)], [])
    clock.at = 103.0
    assert steps.send((False, None)) == 0.5
    assert b.came == [(False, None)]
    assert [item.key for item in made.landed] == ["B"]
    clock.at = 103.5
    ended(steps, (False, None))
    assert a.came == [(False, None)] * 2


def test_a_wake_is_for_one_of_them(convoy_of, clock):
    """A bell that was rung for nobody who waits is no reason to go on."""
    a, b = Scripted([5.0], Brought(1)), Scripted([4.0], Brought(2))
    steps, _ = convoy_of(a=a, b=b)
    assert next(steps) == 4.0
    clock.at = 101.0
    assert steps.send((True, None)) == 3.0
    assert a.came == b.came == []
    a.is_rung = True
    assert steps.send((True, None)) == 3.0
    assert (a.came, b.came) == ([(True, None)], [])
    clock.at = 110.0
    ended(steps, (False, None))
    assert b.came == [(False, None)]


def test_who_is_due_at_once_does_not_wait(convoy_of, clock):
    """No pause is negative, however late it is by then."""
    a, b = Scripted([0.0], Brought(1)), Scripted([3.0, 0.0], Brought(2))
    steps, _ = convoy_of(a=a, b=b)
    assert next(steps) == 0.0
    clock.at = 102.5
    assert steps.send((False, None)) == 0.5
    clock.at = 110.0
    assert steps.send((False, None)) == 0.0
    ended(steps, (False, None))
    assert b.came == [(False, None)] * 2


def test_an_interrupt_of_the_wait_ends_all_of_them(convoy_of):
    """Each leaves as it does when it is closed."""
    a, b = Scripted([5.0]), Scripted([4.0])
    steps, made = convoy_of(a=a, b=b)
    next(steps)
    with pytest.raises(Struck):
        steps.send((None, Struck()))
    assert a.closed
    assert b.closed
    assert made.landed == []


def test_a_failure_that_was_found_lands_with_what_is_to_become_of_it(convoy_of):
    """An abort is no failure of its key: it ends all of them."""
    error = ValueError("elsewhere")
    verdict = Verdict(error, 1.0)
    arrival = (True, 5.0, 0.0, None)
    a = Scripted([["1"]], Brought(None, error=error, verdict=verdict))
    b = Scripted([["2"]], Brought(2, arrival=arrival))
    c = Scripted([["3"]], Brought(None, missing=True))
    steps, made = convoy_of(a=a, b=b, c=c)
    next(steps)
    ended(steps, ([1, 2, 3], None))
    assert made.landed == [
        Item("a", "A", True, None, error, None, verdict),
        Item("b", "B", True, 2, None, arrival),
        Item("c", "C", False),
    ]
    steps, made = convoy_of(a=Scripted([["1"]], Brought(None, error=Struck())), b=Scripted([9.0]))
    next(steps)
    with pytest.raises(Struck):
        steps.send(([1], None))
    assert len(made.landed) == 3


def test_a_renewal_that_another_process_does_is_put_off(convoy_of):
    """Its flight is left alone from then on."""
    steps, made = convoy_of(a=Scripted([["1"]]), b=Scripted([["2"]], Brought(2)))
    next(steps)
    ended(steps, ([1, 2], None))
    assert made.left == ["a"]
    assert made.postponed == [(made.cache, "a", 1.0)]
    assert [item.key for item in made.landed] == ["B"]
