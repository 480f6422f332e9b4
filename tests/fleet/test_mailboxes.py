"""Who waits for a name receives its last wake, and after a gap all ask again."""

from singleflight.fleet.mailboxes import Mailbox, Mailboxes
from singleflight.fleet.replies import AGAIN, Wake

VALUE = Wake("value")


def box():
    return Mailbox(lambda: None)


def test_a_wake_reaches_all_of_a_name():
    """Those who are registered now, and nobody else."""
    boxes, one, two, other = Mailboxes(), box(), box(), box()
    boxes.register(b"k", one)
    boxes.register(b"k", two)
    boxes.register(b"other", other)
    assert boxes.deliver(b"k", VALUE) == [one, two]
    assert (one.wake, two.wake, other.wake) == (VALUE, VALUE, None)
    assert boxes.deliver(b"unknown", VALUE) == []


def test_the_last_wake_counts():
    """It is taken once."""
    boxes, one = Mailboxes(), box()
    boxes.register(b"k", one)
    boxes.deliver(b"k", VALUE)
    boxes.deliver(b"k", AGAIN)
    assert one.take() == AGAIN
    assert one.take() is None


def test_registering_again_empties_the_box():
    """A wake belongs to the round in which it came; the box is still there once."""
    boxes, one = Mailboxes(), box()
    boxes.register(b"k", one)
    boxes.deliver(b"k", VALUE)
    boxes.register(b"k", one)
    assert one.take() is None
    assert boxes.deliver(b"k", VALUE) == [one]


def test_who_left_hears_nothing():
    """Leaving may be repeated, and nothing is left of the name."""
    boxes, one, two = Mailboxes(), box(), box()
    boxes.register(b"k", one)
    boxes.register(b"k", two)
    for _ in range(2):
        boxes.leave(b"k", one)
        boxes.leave(b"unknown", one)
    assert boxes.deliver(b"k", VALUE) == [two]
    assert one.wake is None
    boxes.leave(b"k", two)
    assert len(boxes) == 0


def test_after_a_gap_all_ask_again():
    """Under whatever name they wait."""
    boxes, one, two = Mailboxes(), box(), box()
    boxes.register(b"k", one)
    boxes.register(b"other", two)
    boxes.deliver(b"k", VALUE)
    assert boxes.gap() == [one, two]
    assert one.wake == two.wake == AGAIN
