"""The trace: what the format's description asks for, slices that nest, and flows that meet them."""

import itertools
import json
import re

import pytest

from singleflight import single_flight_ttl, timeline
from singleflight.timeline.perfetto import trace_of

from .scripts import FIRST, Script
from .test_page import HOSTILE, everything

NUMBER = (int, float)
# The trace event format as its document describes it: fields of each phase, and of what type they are.
FIELDS = {
    "X": {"name": str, "cat": str, "ts": NUMBER, "dur": NUMBER, "pid": int, "tid": int, "args": dict},
    "i": {"name": str, "cat": str, "ts": NUMBER, "pid": int, "tid": int, "s": str, "args": dict},
    "s": {"name": str, "cat": str, "ts": NUMBER, "pid": int, "tid": int, "id": int},
    "f": {"name": str, "cat": str, "ts": NUMBER, "pid": int, "tid": int, "id": int, "bp": str},
    "M": {"name": str, "ts": NUMBER, "pid": int, "tid": int, "args": dict},
}


def check(trace):
    """Raise `AssertionError` for what a reader of the format would trip over."""
    assert trace.keys() == {"traceEvents", "displayTimeUnit", "otherData"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    slices, threads, flows = {}, set(), {}
    for event in trace["traceEvents"]:
        fields = FIELDS[event["ph"]]
        assert event.keys() == {"ph", *fields}, event
        for name, kind in fields.items():
            assert isinstance(event[name], kind), (name, event)
        assert event["ts"] >= 0
        place = event["pid"], event["tid"]
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert event["args"].keys() == {"name"}
            threads.add(place)
        else:
            assert place in threads, "a thread without a name"
        if event["ph"] == "X":
            assert event["dur"] >= 0
            slices.setdefault(place, []).append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] == "i":
            assert event["s"] in ("t", "p", "g")
        elif event["ph"] in "sf":
            flows.setdefault((event["cat"], event["name"], event["id"]), []).append(event)
    for spans in slices.values():
        spans.sort()
        for before, after in itertools.pairwise(spans):
            assert before[1] <= after[0], "slices of one thread overlap"
    for ends in flows.values():
        begin, end = ends
        assert (begin["ph"], end["ph"], end["bp"]) == ("s", "f", "e")
        assert begin["ts"] <= end["ts"]
        for event in ends:  # each end lies in a slice, which it belongs to
            spans = slices[event["pid"], event["tid"]]
            assert any(first <= event["ts"] <= last for first, last in spans)
    return slices, flows


def test_the_format():
    """Every event has the fields of its phase, and slices of one thread do not overlap."""
    trace = trace_of(everything().chart())
    slices, flows = check(trace)
    assert sum(map(len, slices.values())) == 11
    assert len(flows) == 3
    assert trace["otherData"]["calls_made"] == 4


def test_flows_lead_from_the_leader():
    """From the call to each follower's wait for it."""
    events = trace_of(everything().chart())["traceEvents"]
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    ends = [(event["ph"], names[event["pid"], event["tid"]]) for event in events if event["ph"] in "sf"]
    assert sorted(set(ends)) == [
        ("f", "'A' · waits"),
        ("f", "'A' · waits (2)"),
        ("f", "'A' · waits (3)"),
        ("s", "'A'"),
    ]
    call = next(event for event in events if event["ph"] == "X" and event["args"].get("flight") == FIRST)
    assert all(
        call["ts"] <= event["ts"] <= call["ts"] + call["dur"] and event["tid"] == call["tid"]
        for event in events
        if event["ph"] == "s"
    )


def test_who_tells_late_of_its_wait_has_a_flow():
    """A thread that joined the call, and was held up until it had ended before it said so."""
    script = Script().say("fetch", 1.0, flight_id=FIRST).say("land", 2.0, flight_id=FIRST, counted="fetches")
    script.say("wait", 2.5, "late", flight_id=FIRST).say("share", 3.0, "late", flight_id=FIRST)
    trace = trace_of(script.chart())
    (ends,) = check(trace)[1].values()
    assert [event["ts"] for event in ends] == [1_999_999, 2_500_000]


def test_who_waits_on_for_the_next_call_has_its_flow():
    """The call began while it waited already."""
    script = Script().say("wait", 1.0, "early", flight_id=FIRST).say("fetch", 1.5, flight_id=FIRST)
    script.say("land", 2.0, flight_id=FIRST, counted="fetches").say("share", 2.1, "early", flight_id=FIRST)
    (ends,) = check(trace_of(script.chart()))[1].values()
    assert [event["ts"] for event in ends] == [1_500_000, 1_500_000]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_of_a_real_recording(tmp_path, name):
    """It is JSON in UTF-8, whatever the keys and names are, without escapes that Perfetto does not read."""
    price = single_flight_ttl(ttl=60, name=name)(lambda symbol: symbol)
    with timeline.record(price) as seen:
        price(name), price(name), price("b")
    target = tmp_path / "trace.json"
    seen.to_perfetto(target)
    text = target.read_text(encoding="utf-8")
    assert set(re.findall(r"\\.", text)) <= {r"\"", "\\\\"}
    trace = json.loads(text)
    check(trace)
    assert [event["name"] for event in trace["traceEvents"] if event["ph"] in "Xi"] == ["call", "hit", "call"]
    assert trace["otherData"] == {
        "producer": "singleflight.timeline",
        "calls_received": 3,
        "calls_made": 2,
        "calls_saved": 1,
        "events_not_kept": 0,
    }


def test_an_empty_recording():
    """It is a trace without events."""
    with timeline.record(single_flight_ttl(ttl=60)(len)) as seen:
        pass
    trace = trace_of(seen.chart())
    check(trace)
    assert trace["traceEvents"] == []
