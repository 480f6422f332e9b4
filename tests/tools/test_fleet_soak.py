"""Some seconds of the fleet's soak; `nox -s soak_fleet` gives it a minute."""

import json

import pytest

from tools.soak.fleet import SoakFailed, Storm
from tools.soak.judge import Judge, Span

from ..redis.server import binaries

pytestmark = pytest.mark.skipif(not binaries(), reason="no Redis or Valkey server here")

DEAF = """
from singleflight.redis.link import Link
Link._heard = lambda link, news: None
"""
UNTOLD = """
from singleflight.redis.shared import SharedFunction
SharedFunction._send = lambda tier, *drops: [tier.link.confirm(drop, b"0") for drop in drops]
"""
ONE_TOKEN = """
from singleflight.redis.link import Link
Link.new_token = lambda link: b"the same for all"
"""


def test_a_short_soak():
    """Processes, threads, tasks and bulk calls, killed, stopped and cut off: nothing is ever wrong."""
    told = Storm(seed=5, processes=3).run(seconds=6)
    assert "values" in told


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("planted", "said"),
    [
        pytest.param(DEAF, "it was dropped", id="drops are not heard"),
        pytest.param(UNTOLD, "dropped", id="drops are not told", marks=pytest.mark.long),
        pytest.param(ONE_TOKEN, "two loads at once", id="leases are everybody's", marks=pytest.mark.long),
    ],
)
def test_a_planted_fault_is_found(planted, said):
    """A fleet with such a fault does not get through."""
    with pytest.raises(SoakFailed, match=said):
        for seconds in (5, 10, 20):  # processes of a busy machine take seconds to begin
            Storm(seed=5, processes=3, planted=planted, calm=True).run(seconds=seconds)


# -- the judge ---------------------------------------------------------------------------------------


def judged(*notes, disturbed=()):
    return Judge(map(json.dumps, notes), list(disturbed)).verdict()


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


def test_other_keys_old_values_errors_and_leftovers_are_told():
    """Each by what it is."""
    assert "another key" in judged(["got", 1, "get", "S1", 1.0, 1.1, value(0.5, "S2")])[0]
    assert "s old" in judged(["got", 1, "get", "S1", 100.0, 100.1, value(0.5)])[0]
    assert "ConnectionError" in judged(["error", 1, "get", "S1", 1.0, 1.1, "ConnectionError", "refused"])[0]
    assert not judged(["error", 1, "get", "S1", 1.0, 1.1, "RemoteFailure", "x.Failed: no"])
    left = {"flights": 0, "leases": 1, "mailboxes": 0, "drops": 0, "threads": 2}
    assert "has left" in judged(["left", 1, left])[0]
