"""What is noted is sent until it is confirmed, and the last drop of a key counts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight.fleet.drops import Drops

F, G = b"f", b"g"


def told(drops):
    return [(drop.kind, drop.function, drop.name) for drop in drops]


def test_the_last_of_a_key_counts():
    """A put after a drop is a put, and the reverse; what is noted again goes to the end."""
    drops = Drops()
    drops.note("drop", F, b"1")
    drops.note("drop", F, b"2")
    drops.note("put", F, b"1", "value")
    assert told(drops.unconfirmed()) == [("drop", F, b"2"), ("put", F, b"1")]
    assert drops.unconfirmed()[1].payload == "value"
    drops.note("drop", F, b"1")
    assert told(drops.unconfirmed()) == [("drop", F, b"2"), ("drop", F, b"1")]
    assert len(drops) == 2


def test_a_claim_sends_what_concerns_it():
    """Its key's drop, and the clear and the cuts of its function; in order."""
    drops = Drops()
    drops.note("clear", F)
    drops.note("drop", F, b"1")
    drops.note("cut", F, b"1")
    drops.note("drop", F, b"2")
    drops.note("drop", G, b"1")
    assert told(drops.first_for(F, b"1")) == [("clear", F, b""), ("drop", F, b"1"), ("cut", F, b"1")]
    assert told(drops.first_for(G, b"1")) == [("drop", G, b"1")]
    assert drops.first_for(b"h", b"1") == []


def test_what_was_put():
    """Of one function, in order; a put that was dropped since is none."""
    drops = Drops()
    for name in (b"1", b"2", b"3"):
        drops.note("put", F, name)
    drops.note("put", G, b"4")
    drops.note("drop", F, b"1")
    drops.note("put", F, b"2")
    assert [drop.name for drop in drops.puts(F)] == [b"3", b"2"]
    assert drops.puts(b"h") == []


def test_a_clear_covers_what_was_before():
    """And nothing of what comes after it, nor of other functions."""
    drops = Drops()
    drops.note("put", F, b"1")
    drops.note("cut", F, b"t")
    drops.note("drop", G, b"1")
    drops.note("clear", F)
    drops.note("put", F, b"2")
    assert told(drops.unconfirmed()) == [("drop", G, b"1"), ("clear", F, b""), ("put", F, b"2")]


def test_a_drop_is_confirmed_by_identity():
    """What was noted in its place while it was sent stays."""
    drops = Drops()
    first = drops.note("drop", F, b"1")
    second = drops.note("put", F, b"1")
    assert not drops.confirmed(first)
    assert told(drops.first_for(F, b"1")) == [("put", F, b"1")]
    assert drops.confirmed(second)
    assert not drops.confirmed(second)
    assert len(drops) == 0


def test_a_clear_that_is_noted_again_is_not_confirmed_by_the_first():
    """Values may have been stored in between."""
    drops = Drops()
    first = drops.note("clear", F)
    drops.note("clear", F)
    assert not drops.confirmed(first)
    assert told(drops.unconfirmed()) == [("clear", F, b"")]


def test_over_the_limit_a_function_is_cleared():
    """It drops more than was asked for, and never less; others are as they were."""
    drops = Drops(limit=3)
    drops.note("drop", G, b"1")
    for name in (b"1", b"2", b"3"):
        drops.note("drop", F, name)
    drops.note("put", F, b"3")  # no more than there were
    assert len(drops) == 4
    clear = drops.note("put", F, b"4", "value")
    assert clear.kind == "clear"
    assert told(drops.unconfirmed()) == [("drop", G, b"1"), ("clear", F, b"")]
    assert told(drops.first_for(F, b"4")) == [("clear", F, b"")]


def test_what_took_the_place_of_a_drop_is_sent_for_it():
    """A later change of the key, or the clear that covers it; nothing once that is confirmed."""
    drops = Drops()
    first, other = drops.note("drop", F, b"1"), drops.note("cut", F, b"1")
    assert drops.current(first) is first
    second = drops.note("put", F, b"1", "value")
    assert drops.current(first) is drops.current(second) is second
    clear = drops.note("clear", F)
    assert {drops.current(each) for each in (first, second, other, clear)} == {clear}
    later = drops.note("drop", F, b"1")
    assert drops.current(later) is drops.current(second) is later
    drops.confirmed(clear)
    assert drops.current(other) is None
    drops.confirmed(later)
    assert drops.current(first) is None


CHANGES = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["drop", "put", "cut", "clear"]), st.sampled_from([F, G]), st.sampled_from(b"123")
        ),
        st.tuples(st.just("confirm"), st.integers(0, 30), st.none()),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(CHANGES, st.integers(1, 4))
@pytest.mark.parametrize("again", [False, True])
def test_nothing_that_was_dropped_is_left_after_a_replay(again, changes, limit):
    """Whatever was confirmed before, and if all is sent twice (`again`), late confirmations included."""
    drops, noted, sent = Drops(limit), [], []
    for kind, function, name in changes:
        if kind != "confirm":
            noted.append(drops.note(kind, function, b"" if kind == "clear" else bytes([name])))
        elif function < len(noted):
            sent.append(noted[function])
            drops.confirmed(noted[function])
    sent = (noted if again else sent) + drops.unconfirmed() * (1 + again)
    stored = {(function, bytes([name])): 0 for function in (F, G) for name in b"123"}
    cuts = set()
    for kind, function, name, number, _ in sent:
        if kind == "clear":
            stored = {key: value for key, value in stored.items() if key[0] != function}
            cuts |= {(function, bytes([tag])) for tag in b"123"}
        elif kind == "cut":
            cuts.add((function, name))
        elif kind == "put":
            stored[function, name] = number
        else:
            stored.pop((function, name), None)
    for kind, function, name, number, _ in noted:
        if kind == "cut":
            assert (function, name) in cuts
        for (of, key), value in stored.items():
            if of == function and (kind == "clear" or (kind in ("drop", "put") and key == name)):
                assert value >= number
    assert len(drops) <= 2 * limit


def test_numbers_grow():
    """No two drops are equal."""
    drops = Drops()
    assert drops.note("drop", F, b"1") != drops.note("drop", F, b"1")
