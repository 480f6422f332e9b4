"""From events to bars: every way in which one begins and ends, from events written by hand."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight.timeline.notes import RECEIVED

from .scripts import FIRST, Script, times


def test_a_call_and_its_followers():
    """The leader's bar, the waits below it, and the hits afterwards."""
    script = Script()
    script.say("fetch", 1.0, flight_id=FIRST)
    script.say("wait", 1.1, "two", flight_id=FIRST)
    script.say("wait", 1.2, "three", flight_id=FIRST)
    script.say("land", 2.0, flight_id=FIRST, followers=2, counted="fetches")
    script.say("share", 2.1, "three", flight_id=FIRST)
    script.say("share", 2.2, "two", flight_id=FIRST)
    script.say("hit", 3.0, "two")
    lane = script.lane()
    assert times(lane.flights) == [("call", 1.0, 2.0, "stored")]
    assert times(lane.waits) == [("wait", 1.1, 2.2, "served"), ("wait", 1.2, 2.1, "served")]
    assert [(mark.what, mark.at) for mark in lane.marks] == [("hit", 3.0)]
    assert [bar.flight_id for bar in lane.flights + lane.waits] == [FIRST] * 3
    totals = script.chart().totals
    assert (totals.fetches, totals.waits, totals.hits, totals.callers, totals.calls) == (1, 2, 1, 4, 1)
    assert totals.saved == 3
    assert totals.longest_wait == pytest.approx(1.1)


def test_notes_come_in_any_order():
    """They are taken in the order of their sequence numbers."""
    script = Script()
    script.say("fetch", 1.0, flight_id=FIRST)
    script.say("wait", 1.1, "two", flight_id=FIRST)
    script.say("land", 2.0, flight_id=FIRST)
    script.say("share", 2.1, "two", flight_id=FIRST)
    expected = script.chart()
    for seed in range(24):
        notes = script.notes.copy()
        random.Random(seed).shuffle(notes)
        script_chart = script.chart(notes=notes)
        assert script_chart == expected


def test_followers_that_are_served_before_the_landing_is_told():
    """A latch opens before the landing is told: the call was over when the first follower had its value."""
    script = Script()
    script.say("fetch", 1.0, flight_id=FIRST)
    script.say("wait", 1.1, "two", flight_id=FIRST)
    script.say("share", 2.0, "two", flight_id=FIRST)
    script.say("land", 2.5, flight_id=FIRST)
    assert times(script.lane().flights) == [("call", 1.0, 2.0, "stored")]


def test_a_follower_that_comes_before_the_call_is_told():
    """The wait may be told before the fetch that it is for."""
    script = Script()
    script.say("wait", 1.0, "two", flight_id=FIRST)
    script.say("fetch", 1.1, flight_id=FIRST)
    script.say("land", 2.0, flight_id=FIRST)
    script.say("share", 2.1, "two", flight_id=FIRST)
    lane = script.lane()
    assert times(lane.flights) == [("call", 1.1, 2.0, "stored")]
    assert times(lane.waits) == [("wait", 1.0, 2.1, "served")]


@pytest.mark.parametrize(
    ("kind", "detail", "how"),
    [
        ("share", {"flight_id": FIRST}, "served"),
        ("share", {"flight_id": FIRST, "error": "OSError"}, "failed"),
        ("share", {"flight_id": 0}, "served"),
        ("resume", {}, "went on"),
        ("timeout", {}, "timed out"),
        ("deadlock", {}, "deadlock"),
        ("left", {"error": "CancelledError", "counted": "errors"}, "left"),
    ],
)
def test_the_ways_in_which_a_wait_ends(kind, detail, how):
    """Each of them ends the bar; none leaves a mark beside it."""
    script = Script().say("wait", 1.0, "two", flight_id=FIRST).say(kind, 2.0, "two", **detail)
    lane = script.lane()
    assert times(lane.waits) == [("wait", 1.0, 2.0, how)]
    assert lane.marks == []


@pytest.mark.parametrize("kind", ["timeout", "deadlock", "left"])
def test_without_a_wait_there_is_a_mark(kind):
    """Who is refused at once, times out in line or is cancelled while it leads was not seen to wait."""
    counted = {"counted": "errors", "error": "CancelledError", "leads": True} if kind == "left" else {}
    lane = Script().say(kind, 2.0, "two", **counted).lane()
    assert lane.waits == []
    assert [mark.what for mark in lane.marks] == [kind]


def test_what_a_leader_meets_ends_no_wait():
    """A leader in line times out; the thread's own wait for another key goes on."""
    script = Script().say("wait", 1.0, "one", key="A", flight_id=FIRST)
    script.say("timeout", 1.5, "one", key="A", leads=True)
    assert times(script.lane().waits) == [("wait", 1.0, ..., "")]


def test_a_wait_on_top_of_a_wait():
    """A signal handler waits while its thread does: the last one that began ends first."""
    script = Script()
    script.say("wait", 1.0, "one", flight_id=FIRST)
    script.say("wait", 2.0, "one", flight_id=FIRST)
    script.say("share", 3.0, "one", flight_id=FIRST)
    script.say("share", 4.0, "one", flight_id=FIRST)
    assert times(script.lane().waits) == [("wait", 1.0, 4.0, "served"), ("wait", 2.0, 3.0, "served")]


def test_a_wait_whose_end_is_not_told():
    """What was on top of a wait that ends has ended too, unseen (an interrupt at an unlucky moment)."""
    script = Script()
    script.say("wait", 1.0, "one", key="A", flight_id=FIRST)
    script.say("wait", 2.0, "one", key="B", flight_id=FIRST + 1)
    script.say("share", 4.0, "one", key="A", flight_id=FIRST)
    assert times(script.lane("A").waits) == [("wait", 1.0, 4.0, "served")]
    assert times(script.lane("B").waits) == [("wait", 2.0, 4.0, "ended unseen")]


def test_keys_that_are_equal_and_written_differently():
    """The flight tells which wait is meant, where `1` and `1.0` are one key with two spellings."""
    script = Script()
    script.say("wait", 1.0, "two", key="1.0", flight_id=FIRST)
    script.say("share", 2.0, "two", key="1", flight_id=FIRST)
    assert times(script.lane("1.0").waits) == [("wait", 1.0, 2.0, "served")]


def test_others_keys_are_left_alone():
    """A bulk caller takes what has landed without having waited for it; its other wait goes on."""
    script = Script()
    script.say("wait", 1.0, "two", key="A", flight_id=FIRST)
    script.say("share", 2.0, "two", key="B", flight_id=FIRST + 1)
    script.say("share", 3.0, "two", key="A", flight_id=FIRST)
    assert times(script.lane("A").waits) == [("wait", 1.0, 3.0, "served")]
    assert script.chart().totals.waits == 2


def test_a_flight_that_passes_to_a_successor():
    """The one fails, a follower leads the next, the others wait on and are served by that."""
    script = Script()
    script.say("fetch", 1.0, "one", flight_id=FIRST)
    script.say("wait", 1.1, "two", flight_id=FIRST)
    script.say("wait", 1.2, "three", flight_id=FIRST)
    script.say("land", 2.0, "one", flight_id=FIRST, error="OSError", retried=True, counted="errors")
    script.say("resume", 2.0, "two")
    script.say("fetch", 2.1, "two", flight_id=FIRST + 1)
    script.say("land", 3.0, "two", flight_id=FIRST + 1, counted="fetches")
    script.say("share", 3.0, "three", flight_id=FIRST + 1)
    lane = script.lane()
    assert times(lane.flights) == [("call", 1.0, 2.0, "failed"), ("call", 2.1, 3.0, "stored")]
    assert lane.flights[0].told == "OSError; its followers try again"
    assert times(lane.waits) == [("wait", 1.1, 2.0, "went on"), ("wait", 1.2, 3.0, "served")]
    assert lane.waits[1].flight_id == FIRST + 1


def test_an_abort_and_a_flight_that_lost_its_key():
    """Both are said; what is not stored is too."""
    script = Script()
    script.say("fetch", 1.0, flight_id=FIRST)
    script.say("unseat", 1.5, "two", flight_id=FIRST)
    script.say("abort", 2.0, flight_id=FIRST, error="KeyboardInterrupt", counted="errors")
    script.say("fetch", 3.0, flight_id=FIRST + 1)
    script.say("land", 4.0, flight_id=FIRST + 1, stored=False, ttl=None, counted="fetches")
    lane = script.lane()
    assert times(lane.flights) == [("call", 1.0, 2.0, "aborted"), ("call", 3.0, 4.0, "not stored")]
    assert [mark.what for mark in lane.marks] == ["unseat"]


def test_what_began_before_the_recording():
    """Its bar is open on the left, and ends with what is told or with its first follower."""
    script = Script()
    script.say("wait", 1.0, "two", flight_id=FIRST - 3)
    script.say("share", 2.0, "two", flight_id=FIRST - 3)
    script.say("land", 3.0, key="B", flight_id=FIRST - 2, error="OSError", counted="errors")
    script.say("wait", 1.0, "three", key="C", flight_id=FIRST - 1)
    assert times(script.lane("A").flights) == [("call", ..., 2.0, "ended unseen")]
    assert times(script.lane("B").flights) == [("call", ..., 3.0, "failed")]
    assert times(script.lane("C").flights) == [("call", ..., ..., "")]
    script.say("fetch", 4.0, "four", key="C", flight_id=FIRST)
    assert times(script.lane("C").flights)[0] == ("call", ..., 4.0, "ended unseen")


def test_what_goes_on_when_the_recording_ends():
    """Bars are open on the right, until the end of the recording."""
    script = Script()
    script.say("fetch", 1.0, flight_id=FIRST)
    script.say("wait", 2.0, "two", flight_id=FIRST)
    lane = script.lane(ended=5.0)
    assert times(lane.flights) == [("call", 1.0, ..., "")]
    assert times(lane.waits) == [("wait", 2.0, ..., "")]
    assert [bar.end for bar in lane.flights + lane.waits] == [5.0, 5.0]
    assert script.chart(5.0).totals.longest_wait == 3.0


def test_renewals_and_bulk_calls():
    """A renewal is a bar of another kind that no caller is counted for; a loader call is one execution."""
    script = Script()
    script.say("stale_hit", 1.0, "one", age=70.0)
    script.say("fetch", 1.1, "pool", flight="refresh", flight_id=FIRST, background=True)
    script.say("land", 2.0, "pool", flight_id=FIRST)
    for number, key in enumerate("BCD", 1):
        script.say("fetch", 3.0, "one", key, flight="bulk", flight_id=FIRST + number, execution_id=FIRST + 1)
    for number, key in enumerate("BCD", 1):
        script.say("land", 4.0, "one", key, flight_id=FIRST + number, counted="fetches")
    assert times(script.lane().flights) == [("renewal", 1.1, 2.0, "stored")]
    assert script.lane().marks[0].told == "70 s old"
    totals = script.chart().totals
    assert (totals.stale_hits, totals.fetches, totals.calls) == (1, 3, 2)
    bars = [script.lane(key).flights[0] for key in "BCD"]
    assert {bar.execution for bar in bars} == {FIRST + 1}
    assert {bar.what for bar in bars} == {"bulk"}


def test_waiting_for_another_process():
    """The wait is a bar that ends with what comes next of the flight: its value, a claim, a failure."""
    script = Script()
    script.say("shared_wait", 1.0, key="A", flight_id=FIRST)
    script.say("adopted", 2.0, key="A", flight_id=FIRST, age=0.5)
    script.say("land", 2.1, key="A", flight_id=FIRST, counted="fetches")
    script.say("shared_wait", 1.0, key="B", flight_id=FIRST + 1)
    script.say("claimed", 3.0, key="B", flight_id=FIRST + 1)
    script.say("fetch", 3.1, key="B", flight_id=FIRST + 1)
    script.say("land", 4.0, key="B", flight_id=FIRST + 1, counted="fetches")
    script.say("shared_wait", 1.0, key="C", flight_id=FIRST + 2)
    script.say("timeout", 5.0, key="C", leads=True)
    script.say("land", 5.1, key="C", flight_id=FIRST + 2, error="FlightTimeout", counted="timeouts")
    script.say("shared_wait", 1.0, key="D", flight_id=FIRST + 3)
    assert times(script.lane("A").flights) == [("shared", 1.0, 2.0, "adopted")]
    assert times(script.lane("B").flights) == [("shared", 1.0, 3.0, "leads"), ("call", 3.1, 4.0, "stored")]
    assert times(script.lane("C").flights) == [("shared", 1.0, 5.1, "failed")]
    assert times(script.lane("D").flights) == [("shared", 1.0, ..., "")]
    totals = script.chart().totals
    assert (totals.fetches, totals.timeouts, totals.calls) == (2, 1, 1)


def test_phases_without_the_server():
    """They are bars of the function, open where their begin or end is not in the recording."""
    script = Script()
    script.say("recovered", 1.0, key=None)
    script.say("degraded", 2.0, key=None, reason="refused")
    script.say("recovered", 3.0, key=None)
    script.say("gap", 4.0, key=None)
    script.say("degraded", 5.0, key=None)
    (function,) = script.chart().functions
    assert times(function.phases) == [
        ("degraded", ..., 1.0, ""),
        ("degraded", 2.0, 3.0, ""),
        ("degraded", 5.0, ..., ""),
    ]
    assert [mark.what for mark in function.marks] == ["gap"]


def test_marks():
    """What happens at one moment is a mark of its kind."""
    kinds = ["hit", "stored_failure", "invalidate", "put", "evict", "expire", "refused", "lease_lost"]
    script = Script()
    for number, kind in enumerate(kinds):
        detail = {"error": "OSError"} if kind == "stored_failure" else {}
        script.say(kind, float(number), **detail)
    assert [mark.what for mark in script.lane().marks] == kinds


def test_flights_that_called_nothing():
    """One that found its value, or failed before its function ran, has a mark and no bar."""
    script = Script()
    script.say("land", 1.0, flight_id=FIRST, counted="fetches")
    script.say("land", 2.0, flight_id=FIRST + 1, error="FlightTimeout", counted="timeouts")
    script.say("abort", 3.0, flight_id=FIRST + 2, error="CancelledError", counted="errors")
    lane = script.lane()
    assert lane.flights == []
    assert [mark.what for mark in lane.marks] == ["adopted", "failed", "abort"]


def test_tracked_calls():
    """Calls of undecorated functions are bars, and no callers of decorated ones."""
    script = Script()
    script.say("began", 1.0, "one", call=1)
    script.say("began", 1.5, "two", call=2)
    script.say("ended", 2.0, "one", call=1, error=None)
    script.say("ended", 2.5, "two", call=2, error="OSError")
    script.say("began", 3.0, "one", call=3)
    assert times(script.lane().flights) == [
        ("tracked", 1.0, 2.0, "returned"),
        ("tracked", 1.5, 2.5, "failed"),
        ("tracked", 3.0, ..., ""),
    ]
    totals = script.chart().totals
    assert (totals.tracked, totals.callers) == (3, 0)


class Herd:
    """A model of callers, each of which ends in exactly one way, told in a random order of their steps."""

    def __init__(self, draw):
        self.draw, self.script, self.at = draw, Script(), 0.0
        self.received = dict.fromkeys(RECEIVED, 0)
        self.calls = self.waits = 0

    def tick(self):
        self.at += self.draw(st.sampled_from([0.0, 0.1, 1.0]))
        return self.at

    def run(self):
        draw, callers = self.draw, []
        for number in range(draw(st.integers(1, 6))):
            key = draw(st.sampled_from("AB"))
            story = draw(st.sampled_from([self.hit, self.stale, self.leads, self.waits_for, self.refused]))
            callers.append(story(f"caller-{number}", key, FIRST + number))
        while callers:
            caller = draw(st.sampled_from(callers))
            try:
                next(caller)
            except StopIteration:
                callers.remove(caller)

    def say(self, kind, *args, counted=None, **detail):
        if counted:
            self.received[counted] += 1
        if kind in ("left", "land"):
            detail["counted"] = counted
        self.script.say(kind, self.tick(), *args, **detail)

    def hit(self, who, key, _):
        self.say("hit", who, key, counted="hits")
        yield

    def stale(self, who, key, _):
        self.say("stale_hit", who, key, counted="stale_hits")
        yield

    def refused(self, who, key, _):
        kind, counted = self.draw(st.sampled_from([("timeout", "timeouts"), ("deadlock", "errors")]))
        self.say(kind, who, key, counted=counted)
        yield

    def leads(self, who, key, ident):
        self.say("fetch", who, key, flight_id=ident)
        self.calls += 1
        yield
        error = self.draw(st.sampled_from([None, "OSError"]))
        counted = "fetches" if error is None else "errors"
        self.say("land", who, key, counted=counted, flight_id=ident, error=error)

    def waits_for(self, who, key, ident):
        self.waits += 1
        self.say("wait", who, key, flight_id=self.draw(st.sampled_from([0, FIRST, FIRST + 1, ident])))
        yield
        end = self.draw(st.sampled_from(["share", "fails", "timeout", "deadlock", "left", "leads", "hit"]))
        if end in ("share", "fails"):
            error, counted = (None, "waits") if end == "share" else ("OSError", "errors")
            self.say("share", who, key, counted=counted, flight_id=FIRST, error=error)
        elif end == "left":
            counted = self.draw(st.sampled_from(["errors", "timeouts", "waits"]))
            self.say("left", who, key, counted=counted, error="CancelledError", flight_id=FIRST)
        elif end in ("timeout", "deadlock"):
            self.say(end, who, key, counted="timeouts" if end == "timeout" else "errors")
        elif end == "leads":
            self.say("resume", who, key)
            yield from self.leads(who, key, ident + 50)
        else:
            self.say("hit", who, key, counted="hits")
            self.say("resume", who, key)


@settings(deadline=None)
@given(st.data())
def test_every_caller_is_counted_once(data):
    """Whatever the order of their steps: the sums are those of the callers, and no wait is left open."""
    herd = Herd(data.draw)
    herd.run()
    notes = data.draw(st.permutations(herd.script.notes))
    chart = herd.script.chart(ended=herd.at + 1, notes=notes)
    assert {name: getattr(chart.totals, name) for name in RECEIVED} == herd.received
    assert chart.totals.calls == herd.calls
    lanes = [lane for function in chart.functions for lane in function.lanes]
    waits = [bar for lane in lanes for bar in lane.waits]
    assert len(waits) == herd.waits
    assert all(bar.how and bar.how != "ended unseen" and not bar.goes_on for bar in waits)
    assert all(bar.start <= bar.end for lane in lanes for bar in lane.flights + lane.waits)
