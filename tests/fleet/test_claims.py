"""A claim's table: each state with each event, and what cannot happen changes nothing."""

import re

import pytest

from singleflight.fleet import claims
from singleflight.fleet.claims import (
    Adopt,
    Ask,
    Claim,
    IllegalEvent,
    Land,
    Leave,
    Outcome,
    Pass,
    Publish,
    Release,
    Run,
    Share,
    Wait,
)
from singleflight.fleet.replies import (
    AGAIN,
    Absent,
    Found,
    Leased,
    Oversized,
    Passed,
    Refused,
    Renewing,
    Told,
    Waiting,
    Wake,
)

VALUE = Found(b"value", 900, 600, 3)
ENVELOPE = Found(b"sent", 0, 0, 0)
STATES = ("new", "asking", "waiting", "found", "leading", "alone", "telling", "ended")


def claim_in(state, mode="read", retries=1):
    """A claim that came to this state in the plainest way."""
    claim = Claim(mode, b"t", retries, seen=2)
    if state == "new":
        return claim
    claim.begin()
    if state == "waiting":
        claim.answered(Waiting(1000, "w", b"c"))
    elif state == "found":
        claim.answered(VALUE)
    elif state in ("leading", "telling"):
        claim.answered(Leased(None, 5))
    elif state in ("alone", "ended"):
        claim.failed()
    if state in ("telling", "ended"):
        claim.ran(Outcome("value", b"v", 10, 20))
    assert claim.state == state
    return claim


EVENTS = {
    "begin": lambda claim: claim.begin(),
    "answered(Found)": lambda claim: claim.answered(VALUE),
    "answered(Leased)": lambda claim: claim.answered(Leased(None, 5)),
    "answered(Waiting)": lambda claim: claim.answered(Waiting(1000, "w", b"c")),
    "answered(Passed)": lambda claim: claim.answered(Passed(b"sent")),
    "answered(Renewing)": lambda claim: claim.answered(Renewing(1000, "w")),
    "answered(Absent)": lambda claim: claim.answered(Absent()),
    "answered(Oversized)": lambda claim: claim.answered(Oversized(9)),
    "answered(Told)": lambda claim: claim.answered(Told(2)),
    "answered(Refused)": lambda claim: claim.answered(Refused()),
    "woken(value)": lambda claim: claim.woken(Wake("value", VALUE, b"c")),
    "woken(passed)": lambda claim: claim.woken(Wake("passed", ENVELOPE, b"c")),
    "woken(passed, empty)": lambda claim: claim.woken(Wake("passed", chain=b"c")),
    "woken(again)": lambda claim: claim.woken(AGAIN),
    "lapsed": lambda claim: claim.lapsed(),
    "failed": lambda claim: claim.failed(),
    "read_only": lambda claim: claim.read_only(),
    "unreadable": lambda claim: claim.unreadable(),
    "outdated": lambda claim: claim.outdated(),
    "ran": lambda claim: claim.ran(Outcome("value", b"v", 10, 20)),
    "lost": lambda claim: claim.lost(),
    "told_off": lambda claim: claim.told_off(),
    "forked": lambda claim: claim.forked(),
    "given_up": lambda claim: claim.given_up(),
}

# State and event: the state then, and the step (or what `lost` returns). What is not here is illegal.
TABLE = {
    ("new", "begin"): ("asking", Ask("read", 2, b"")),
    ("asking", "answered(Found)"): ("found", Adopt(VALUE)),
    ("asking", "answered(Leased)"): ("leading", Run(1, True, 5)),
    ("asking", "answered(Waiting)"): ("waiting", Wait(1.02, "w")),
    ("asking", "answered(Passed)"): ("found", Share(b"sent")),
    ("asking", "answered(Renewing)"): ("ended", Leave()),
    ("asking", "answered(Absent)"): ("alone", Run(1, False)),
    ("asking", "answered(Oversized)"): ("asking", Ask("force", 2, b"")),
    **{("asking", event): ("asking", None) for event in EVENTS if event.startswith("woken")},
    ("asking", "failed"): ("alone", Run(1, False)),
    ("asking", "read_only"): ("asking", Ask("peek", 2, b"")),
    ("waiting", "woken(value)"): ("found", Adopt(VALUE)),
    ("waiting", "woken(passed)"): ("found", Share(b"sent")),
    ("waiting", "woken(passed, empty)"): ("alone", Run(1, False)),
    ("waiting", "woken(again)"): ("asking", Ask("read", 2, b"c")),
    ("waiting", "lapsed"): ("asking", Ask("read", 2, b"c")),
    ("waiting", "failed"): ("alone", Run(1, False)),
    ("found", "unreadable"): ("asking", Ask("force", 2, b"")),
    ("found", "outdated"): ("asking", Ask("force", 2, b"")),
    ("leading", "ran"): ("telling", Publish(b"v", 10, 20)),
    ("leading", "lost"): ("alone", True),
    ("alone", "ran"): ("ended", Land(True)),
    ("telling", "answered(Told)"): ("ended", Land(True)),
    ("telling", "answered(Refused)"): ("ended", Land(False)),
    ("telling", "failed"): ("ended", Land(True)),
    ("telling", "read_only"): ("ended", Land(True)),
    **{(state, "lost"): (state, False) for state in ("alone", "telling", "ended")},
    **{(state, "told_off"): (state, None) for state in STATES},
    ("leading", "told_off"): ("alone", Release(1)),
    **{(state, "forked"): ("alone" if state == "leading" else state, None) for state in STATES},
    **{(state, "given_up"): ("ended", None) for state in STATES},
    **{(state, "given_up"): ("ended", Release(1)) for state in ("asking", "leading", "telling")},
}


def fields(claim):
    return {name: getattr(claim, name) for name in Claim.__slots__}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_the_table(state, event):
    """A legal event leads where the table says; any other raises and changes nothing."""
    claim = claim_in(state)
    before = fields(claim)
    if (state, event) in TABLE:
        then, step = TABLE[state, event]
        assert EVENTS[event](claim) == step
        assert claim.state == then
        assert claim.renews == (then == "leading")
        assert claim.runs == (then in ("leading", "alone"))
    else:
        with pytest.raises(IllegalEvent, match=rf"^{event.partition('(')[0]}\b"):
            EVENTS[event](claim)
        assert fields(claim) == before


def test_the_essay_has_the_same_table():
    """Each row of the module's table is one of ours, and each of ours is in it."""
    rows = re.findall(r"^    ([A-Za-z, ]+?)  +(\w.*?)  +(\w+|\(stays\))", claims.__doc__, re.M)
    written = set()
    for states, events, then in rows:
        if states == "state":
            continue
        have = {state for state, event, _ in written if event == events}
        for state in set(STATES) - have if states == "all others" else states.lower().split(", "):
            for event in re.findall(r"\w+(?:\([\w ,]+\))?", events):
                written.add((state, event, state if then == "(stays)" else then.lower()))
    ours = {(state, event, then) for (state, event), (then, _) in TABLE.items()}
    noted = {row for row in ours if row[:1] == ("asking",) and row[1].startswith("woken")}
    ours = (ours - noted) | {("asking", "woken", "asking")}
    ours -= {("waiting", "woken(passed, empty)", "alone")}  # in the row of `woken(passed)`
    assert written == ours


# -- what an answer means is said by more than its state


@pytest.mark.parametrize(
    ("own", "noted", "left"),
    [(1, None, 1), (1, 0, 0), (1, 3, 1), (None, None, None), (None, 2, 2), (0, None, 0)],
)
def test_retries_are_the_fewest(own, noted, left):
    """What the chain of the fleet has left bounds the local flight, and the reverse."""
    claim = Claim("read", b"t", own)
    claim.begin()
    assert claim.answered(Leased(noted, 5)) == Run(left, True, 5)


VALUE_RAN = Outcome("value", b"v", 10, 20)
FAILED = Outcome("failed", b"f")


@pytest.mark.parametrize(
    ("mode", "retries", "outcome", "step"),
    [
        ("read", 1, VALUE_RAN, Publish(b"v", 10, 20)),
        ("renew", 1, VALUE_RAN, Publish(b"v", 10, 20)),
        ("read", 1, Outcome("value", b"v"), Pass(b"v")),
        ("read", 1, FAILED, Release(0)),
        ("read", 3, FAILED, Release(2)),
        ("read", None, FAILED, Release(None)),
        ("read", 0, FAILED, Pass(b"f")),
        ("force", 0, FAILED, Pass(b"f")),
        ("read", 1, Outcome("failed", b"f", 5, 5), Publish(b"f", 5, 5, Release(0))),
        ("read", None, Outcome("failed", b"f", 5, 5), Publish(b"f", 5, 5, Release(None))),
        ("read", 0, Outcome("failed", b"f", 5, 5), Publish(b"f", 5, 5)),
        ("renew", 0, Outcome("failed", b"f", 5, 5), Pass(b"f")),
        ("force", 2, Outcome("failed", b"f", 5, 5), Release(1)),
        ("read", 1, Outcome("aborted"), Release(1)),
        ("read", None, Outcome("aborted"), Release(None)),
        ("read", 1, Outcome("unshareable"), Pass(b"")),
        ("read", 0, Outcome("unshareable"), Pass(b"")),
        ("read", 1, Outcome("unshareable", b"of no use", 5, 5), Pass(b"")),
        ("read", 1, Outcome("value", b"v", 1, 1), Publish(b"v", 1, 1)),
    ],
)
def test_how_flights_end(mode, retries, outcome, step):
    """A failure is retried while it may be, and never takes the place of a value; an abort spends nothing."""
    claim = Claim(mode, b"t", retries)
    claim.begin()
    claim.answered(Leased(None, 5))
    assert claim.ran(outcome) == step


@pytest.mark.parametrize("mode", ["read", "renew", "force"])
def test_what_cannot_be_read_is_asked_past_once(mode):
    """Then the function runs, whatever comes: a claim does not go round for ever."""
    claim = Claim(mode, b"t", 1)
    claim.begin()
    claim.answered(VALUE)
    assert claim.unreadable() == Ask("force", 0, b"")
    claim.answered(Waiting(1000, "w", b"c"))
    assert claim.woken(AGAIN) == Ask("force", 0, b"c")  # what is stored is still that
    claim.answered(Waiting(1000, "w", b"c"))
    claim.woken(Wake("passed", ENVELOPE, b"c"))
    assert claim.unreadable() == Run(1, False)


@pytest.mark.parametrize("mode", ["read", "renew", "force"])
def test_what_is_outdated_is_asked_past_four_times(mode):
    """Who leads next is likely to know of the cut; in the end the function runs all the same."""
    claim = Claim(mode, b"t", 1)
    claim.begin()
    claim.answered(VALUE)
    for _ in range(4):
        assert claim.outdated() == Ask("force", 0, b"")
        claim.answered(Waiting(1000, "w", b"c"))
        assert claim.lapsed() == Ask("force", 0, b"c")
        claim.answered(Waiting(1000, "w", b"c"))
        claim.woken(Wake("value", VALUE, b"c"))
    assert claim.outdated() == Run(1, False)


def test_what_is_outdated_and_then_cannot_be_read_is_not_asked_past_again():
    """The other way round it is: who leads next may well write what can be read."""
    claim = claim_in("found")
    claim.outdated()
    claim.answered(VALUE)
    assert claim.unreadable() == Run(1, False)
    claim = claim_in("found")
    claim.unreadable()
    claim.answered(VALUE)
    assert claim.outdated() == Ask("force", 2, b"")


def test_an_oversized_value_counts_as_unreadable():
    """Also the second time."""
    claim = claim_in("asking")
    assert claim.answered(Oversized(9)) == Ask("force", 2, b"")
    claim.answered(Waiting(1000, "w", b"c"))
    assert claim.woken(AGAIN) == Ask("force", 2, b"c")
    assert claim.answered(Oversized(9)) == Run(1, False)


@pytest.mark.parametrize("ask", ["answered", "woken"])
def test_what_cannot_be_shared_is_run_by_each(ask):
    """Whether that comes as a wake or as an answer."""
    claim = claim_in("asking")
    claim.answered(Waiting(1000, "w", b"c"))
    if ask == "answered":
        claim.lapsed()
        step = claim.answered(Passed(b""))
    else:
        step = claim.woken(Wake("passed", chain=b"c"))
    assert step == Run(1, False)


@pytest.mark.parametrize("mode", ["renew", "force"])
def test_only_a_reader_peeks(mode):
    """Where the server takes no writes, a renewal runs by itself: no stored value would satisfy it."""
    claim = Claim(mode, b"t", 1)
    claim.begin()
    assert claim.read_only() == Run(1, False)


def test_a_reader_peeks_once():
    """If that is refused as well, it runs by itself."""
    claim = claim_in("asking")
    assert claim.read_only() == Ask("peek", 2, b"")
    assert claim.read_only() == Run(1, False)


def test_a_peek_that_cannot_be_read_runs_in_the_end():
    """The claim past it is refused like the first."""
    claim = claim_in("asking")
    claim.read_only()
    claim.answered(VALUE)
    assert claim.unreadable() == Ask("force", 2, b"")
    assert claim.read_only() == Run(1, False)


@pytest.mark.parametrize(
    ("wakes", "step"),
    [
        ([AGAIN], Ask("read", 2, b"c")),
        ([Wake("value", VALUE, b"c")], Adopt(VALUE)),
        ([Wake("value", VALUE, b"c"), AGAIN], Ask("read", 2, b"c")),
        ([AGAIN, Wake("passed", ENVELOPE, b"c")], Share(b"sent")),
    ],
)
def test_a_wake_that_overtakes_the_answer_counts(wakes, step):
    """The last one, if the answer is to wait."""
    claim = claim_in("asking")
    for wake in wakes:
        assert claim.woken(wake) is None
    assert claim.answered(Waiting(1000, "w", b"c")) == step


@pytest.mark.parametrize("overtakes", [True, False])
@pytest.mark.parametrize("wake", [Wake("value", VALUE, b"old"), Wake("passed", ENVELOPE, b"old")])
def test_a_wake_for_another_chain_is_no_answer(wake, overtakes):
    """It may be from before a drop: the claim asks again."""
    claim = claim_in("asking" if overtakes else "waiting")
    step = claim.woken(wake)
    assert (claim.answered(Waiting(1000, "w", b"c")) if overtakes else step) == Ask("read", 2, b"c")


def test_a_wake_that_brings_nothing_is_no_value():
    """Where the server names no chain it is of that chain, too; the claim asks again all the same."""
    claim = claim_in("asking")
    claim.answered(Waiting(1000, "w", b""))
    assert claim.woken(AGAIN) == Ask("read", 2, b"")


def test_a_wake_is_forgotten_with_its_question():
    """It belongs to the round in which it came."""
    claim = claim_in("asking")
    claim.woken(AGAIN)
    claim.answered(Waiting(1000, "w", b"c"))  # asks again
    assert isinstance(claim.answered(Waiting(1000, "w", b"c")), Wait)


def test_who_hears_no_wakes_asks_often():
    """But not more often than the lease ends."""
    assert claim_in("asking").answered(Waiting(1000, "w", b"c"), deaf=True) == Wait(0.05, "w")
    assert claim_in("asking").answered(Waiting(10, "w", b"c"), deaf=True) == Wait(0.03, "w")


@pytest.mark.parametrize("withdraw", ["lost", "told_off", "forked"])
def test_a_claim_that_lost_its_lease_lands_nothing(withdraw):
    """The server is told nothing more, near entries do not change, and what comes later is no news."""
    claim = claim_in("leading")
    getattr(claim, withdraw)()
    assert claim.lost() is False
    assert claim.ran(VALUE_RAN) == Land(False)
    claim = claim_in("leading")
    getattr(claim, withdraw)()
    assert claim.told_off() is None
    assert claim.ran(VALUE_RAN) == Land(False)


LEAVES = {
    "new": [lambda claim: claim.begin()],
    "asking": [EVENTS[f"answered({what})"] for what in ("Waiting", "Absent", "Oversized", "Renewing")],
    "waiting": [EVENTS["woken(again)"], EVENTS["woken(passed, empty)"], EVENTS["lapsed"], EVENTS["failed"]],
    "found": [EVENTS["unreadable"], EVENTS["outdated"]],
}


@pytest.mark.parametrize("state", LEAVES)
def test_who_was_told_off_leaves_at_the_next_step(state):
    """It asks, waits and runs nothing any more."""
    for event in LEAVES[state]:
        claim = claim_in(state)
        claim.told_off()
        assert event(claim) == Leave()
        assert claim.state == "ended"


def test_a_lease_that_comes_too_late_is_given_back():
    """With the retries that were noted."""
    claim = claim_in("asking")
    claim.told_off()
    assert claim.answered(Leased(0, 5)) == Release(0)
    assert claim.state == "ended"


def test_a_value_that_comes_all_the_same_is_taken():
    """By those who still wait for this flight."""
    claim = claim_in("asking")
    claim.told_off()
    assert claim.answered(VALUE) == Adopt(VALUE)


@pytest.mark.parametrize("end", ["told", "failed"])
def test_told_off_while_it_tells(end):
    """The value is on its way to the server: near entries do not change all the same."""
    claim = claim_in("telling")
    assert claim.told_off() is None
    assert (claim.answered(Told(0)) if end == "told" else claim.failed()) == Land(False)


def test_repr():
    """For a debugger."""
    assert repr(Claim("read", b"t", 1)) == "<Claim read new>"
