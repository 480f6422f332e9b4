"""Some seconds of the fleet's soak; `nox -s soak_fleet` gives it a minute."""

import json

import pytest

from tools.soak import fleet
from tools.soak.clock import Step, library
from tools.soak.fleet import SoakFailed, Storm
from tools.soak.judge import Judge, Span

from ..redis.server import binaries

needs_a_clock = pytest.mark.skipif(library() is None, reason="no libfaketime here")
pytestmark = pytest.mark.skipif(not binaries(), reason="no Redis or Valkey server here")

DEAF = """
from singleflight.redis.link import Link
Link._heard = lambda link, news: None
"""
UNTOLD = """
from singleflight.redis.shared import SharedFunction
SharedFunction._send = lambda tier, *drops: [tier.link.confirm(drop, b"0") for drop in drops]
"""
CLOCKED = """
from singleflight.fleet.cuts import Known, Numbers
from singleflight.redis import texts
texts.CUT = texts._script("cut", texts.CUT.text.replace("following(KEYS[1], known)", "now"))
Known.heard_cut = lambda known, cut: known.saw(Numbers(cut=cut))
"""
ONE_TOKEN = """
from singleflight.redis.link import Link
Link.new_token = lambda link: b"the same for all"
"""


def test_a_short_soak():
    """Processes, threads, tasks and bulk calls, killed, stopped and cut off: nothing is ever wrong."""
    told = Storm(seed=5, processes=3).run(seconds=4)
    assert "values" in told


@needs_a_clock
@pytest.mark.long
def test_a_short_soak_with_a_clock_that_is_set():
    """Nothing but that is done: what is dropped is dropped as quickly as on a calm server."""
    told = Storm(seed=6, processes=3, disturbances=["step"]).run(seconds=6)
    assert "'step'" in told


def test_a_clock_that_cannot_be_set_is_left_alone(monkeypatch, capsys):
    """And that is said."""
    monkeypatch.setattr(fleet, "library", lambda: None)
    storm = Storm(seed=7, processes=1, disturbances=["step", "gap"])
    storm.run(seconds=1)
    assert "libfaketime" in capsys.readouterr().out
    assert set(storm.done) <= {"gap"}


@needs_a_clock
@pytest.mark.long
@pytest.mark.timeout(240)
def test_tags_that_go_by_the_clock_are_found():
    """A fleet in which a tag's cut is the server's time serves what was invalidated."""
    with pytest.raises(SoakFailed, match=r"it was dropped \(tag"):
        for seed in (3, 4, 5, 6):
            Storm(seed, processes=3, planted=CLOCKED, disturbances=["step"]).run(seconds=15)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("planted", "said"),
    [
        pytest.param(DEAF, "it was dropped", id="drops are not heard", marks=pytest.mark.long),
        pytest.param(UNTOLD, "dropped", id="drops are not told", marks=pytest.mark.long),
        pytest.param(ONE_TOKEN, "two loads at once", id="leases are everybody's", marks=pytest.mark.long),
    ],
)
def test_a_planted_fault_is_found(planted, said):
    """A fleet with such a fault does not get through."""
    with pytest.raises(SoakFailed, match=said):
        for seconds in (5, 10, 20):  # processes of a busy machine take seconds to begin
            Storm(seed=5, processes=3, planted=planted, disturbances=[]).run(seconds=seconds)


# -- the judge ---------------------------------------------------------------------------------------


def judged(*notes, disturbed=(), steps=()):
    return Judge(map(json.dumps, notes), list(disturbed), steps).verdict()


def value(began, symbol="S1", by=1, number=1):
    return {"symbol": symbol, "began": began, "by": by, "number": number}


def drop(what, of, began, returned, confirmed, by=2, number=7):
    return (
        ["drop", by, number, what, of, began],
        ["dropped", by, number, returned],
        ["confirmed", by, [number], confirmed],
    )


@pytest.mark.parametrize(("what", "of"), [("invalidate", "S1"), ("tag", "group 1"), ("clear", "*")])
def test_what_was_dropped_may_be_served_for_a_moment(what, of):
    """By others; longer by who was cut off, and not at all by who has dropped it."""
    notes = drop(what, of, 2.0, 2.1, 2.1)
    assert not judged(*notes, ["got", 1, "get", "S1", 2.2, 2.3, value(1.0)])
    late = ["got", 1, "get", "S1", 3.0, 3.1, value(1.0)]
    assert "it was dropped" in judged(*notes, late)[0]
    assert not judged(*notes, late, disturbed=[Span(2.0, 2.1, 1)])
    assert judged(*notes, late, disturbed=[Span(2.0, 2.1, 3)])
    assert judged(*notes, ["got", 1, "get", "S1", 9.0, 9.1, value(1.0)], disturbed=[Span(2.0, 2.1, None)])
    own = judged(*notes, ["got", 2, "get", "S1", 2.2, 2.3, value(1.0)])
    assert bool(own) == (what != "tag")


def test_a_put_counts_from_when_the_server_had_it():
    """Until then the order of changes is nobody's promise."""
    put = drop("put", "S1", 1.0, 1.1, 5.0, by=3, number=1)
    notes = drop("invalidate", "S1", 2.0, 2.1, 2.1)
    assert not judged(*put, *notes, ["got", 1, "get", "S1", 6.0, 6.1, value(1.0, by=3)])
    late = drop("invalidate", "S1", 5.5, 5.6, 5.6)
    assert judged(*put, *late, ["got", 1, "get", "S1", 6.0, 6.1, value(1.0, by=3)])


def test_two_loads_of_a_key_are_told():
    """Unless it was dropped in between, or a process could not know."""
    loads = [
        ["load", 1, 1, "S1", 10.0],
        ["load", 2, 1, "S1", 10.1],
        ["loaded", 1, 1, "S1", 10.2],
        ["loaded", 2, 1, "S1", 10.3],
    ]
    assert "two loads at once" in judged(*loads)[0]
    assert not judged(*loads, *drop("tag", "group 1", 10.05, 10.06, 10.06))
    assert not judged(*loads, disturbed=[Span(9.0, 9.5, 2)])


def test_a_lease_may_end_early_where_the_clock_was_set_forward():
    """During the first load alone; set back it excuses nothing."""
    loads = [
        ["load", 1, 1, "S1", 10.0],
        ["load", 2, 1, "S1", 10.1],
        ["loaded", 1, 1, "S1", 10.2],
        ["loaded", 2, 1, "S1", 10.3],
    ]
    assert not judged(*loads, steps=[Step(10.04, 10.05, -1.0, 1.0)])
    for other in (Step(10.04, 10.05, 1.0, -1.0), Step(9.0, 9.1, -1.0, 1.0), Step(10.15, 10.16, -1.0, 1.0)):
        assert "two loads at once" in judged(*loads, steps=[other])[0]


def test_a_value_may_live_for_longer_where_the_clock_was_set_back():
    """By as much as it was, after the load; what was dropped may not."""
    old = ["got", 1, "get", "S1", 20.0, 20.1, value(1.0)]
    assert "s old" in judged(old)[0]
    assert not judged(old, steps=[Step(5.0, 5.1, 2.0, -1.0), Step(6.0, 6.1, -1.0, -2.0)])
    for other in (
        [Step(5.0, 5.1, 2.0, -1.0)],
        [Step(5.0, 5.1, -2.0, 2.0)],
        [Step(0.5, 0.6, 5.0, 0.0), Step(21.0, 21.1, 0.0, -5.0)],
    ):
        assert "s old" in judged(old, steps=other)[0]
    notes = drop("tag", "group 1", 2.0, 2.1, 2.1)
    late = ["got", 1, "get", "S1", 3.0, 3.1, value(1.0)]
    assert "it was dropped" in judged(*notes, late, steps=[Step(1.5, 1.6, 5.0, -5.0)])[0]


def test_other_keys_old_values_errors_and_leftovers_are_told():
    """Each by what it is."""
    assert "another key" in judged(["got", 1, "get", "S1", 1.0, 1.1, value(0.5, "S2")])[0]
    assert "s old" in judged(["got", 1, "get", "S1", 100.0, 100.1, value(0.5)])[0]
    assert "ConnectionError" in judged(["error", 1, "get", "S1", 1.0, 1.1, "ConnectionError", "refused"])[0]
    assert not judged(["error", 1, "get", "S1", 1.0, 1.1, "RemoteFailure", "x.Failed: no"])
    left = {"flights": 0, "leases": 1, "mailboxes": 0, "drops": 0, "threads": 2}
    assert "has left" in judged(["left", 1, left])[0]
