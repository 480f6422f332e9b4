"""The page that compares: this library's column is what it promises, and the harness tells what happened."""

import importlib
import os
import re
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALLS_AGAIN, ITS_OWN = "calls again", "its own value"
ONE, TWO = "1 call", "2 calls"

# What the page shows of this library, set up with a ttl alone.
PROMISED = {
    "threads.cold": ONE,
    "threads.other_key": "is not held up",
    "threads.expired": ONE,
    "threads.failing": TWO,
    "threads.after_failure": CALLS_AGAIN,
    "threads.traceback": "does not grow",
    "threads.nothing": "2 calls, not stored",
    "threads.system_exit": "1 more call",
    "threads.own_key": "FlightDeadlock",
    "threads.cycle": "FlightDeadlock",
    "threads.fork": CALLS_AGAIN,
    "threads.invalidated": "not stored",
    "threads.newcomer": "the new value",
    "tasks.cold": ONE,
    "tasks.other_key": "is not held up",
    "tasks.expired": ONE,
    "tasks.slow": ONE,
    "tasks.both_colours": ONE,
    "tasks.failing": TWO,
    "tasks.after_failure": CALLS_AGAIN,
    "tasks.traceback": "does not grow",
    "tasks.nothing": "2 calls, not stored",
    "tasks.first_cancelled": ONE,
    "tasks.follower_cancelled": ONE,
    "tasks.all_cancelled": "ends too",
    "tasks.own_key": "FlightDeadlock",
    "tasks.cycle": "FlightDeadlock",
    "tasks.four_loops": ONE,
    "tasks.second_loop": "found",
    "tasks.ended_loop": CALLS_AGAIN,
    "tasks.fork": CALLS_AGAIN,
    "tasks.invalidated": "not stored",
    "tasks.newcomer": "the new value",
} | {
    f"{colour}.{name}": cell
    for colour in ("threads", "tasks")
    for name, cell in {
        "spelling": "are one call",
        "mutable": "see it",
        "let_go": "let go",
        "two_instances": ITS_OWN,
        "kept_alive": "let go",
        "reused_id": ITS_OWN,
    }.items()
}
MEASURED = {"tasks.idle"}  # processor time: shown, and not tested

# Mishaps from which a library may not come back: no other library is given one.
ALONE = {
    "threads.system_exit",
    "threads.own_key",
    "threads.cycle",
    "threads.fork",
    "tasks.first_cancelled",
    "tasks.own_key",
    "tasks.cycle",
    "tasks.four_loops",
    "tasks.ended_loop",
    "tasks.fork",
}


@pytest.fixture
def comparing(monkeypatch):
    """Imports a module of the benchmarks, which are no package of the suite."""
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "benchmarks"))
    yield lambda name: importlib.import_module(f"comparing.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "comparing"]:
        del sys.modules[name]


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="two cases fork")
def test_this_librarys_column_shows_what_it_promises(comparing, monkeypatch):
    """Every case of the comparison, each in a process of its own, ends as the docs say."""
    monkeypatch.setenv("COMPARING_PATIENCE", "20")
    cases, ours = comparing("cases"), comparing("peers").PEERS[0]
    monkeypatch.setattr(cases, "LIMIT", 50)
    found = {case: cell for (_, case), cell in cases.cells([ours], leaving_out=MEASURED).items()}
    assert found == PROMISED


def test_the_promises_are_those_of_the_page(comparing):
    """No case is left out of this file."""
    assert set(comparing("cases").load()) == set(PROMISED) | MEASURED


def test_mishaps_are_played_with_this_library_alone(comparing):
    """No other library, however it is set up, is handed a case from which it might not come back."""
    cases, peers = comparing("cases"), comparing("peers")
    everybody = [*peers.PEERS, *comparing("variants").VARIANTS]
    ours = {peer.name for peer in everybody if isinstance(peer, peers.Ours)}
    assert {name for name, case in cases.load().items() if case.alone} == ALONE
    assert {peer for peer, case in cases.wanted(everybody) if case in ALONE} == ours
    assert len(ours) == 2


@pytest.mark.parametrize(("peer", "end"), [("singleflight", KeyError), ("cachetools", ValueError)])
def test_a_mishap_is_refused_where_it_would_be_played(comparing, monkeypatch, peer, end):
    """The process of a case does not begin it with another library, whoever asks for that."""
    cases = comparing("cases")

    def played(peer):
        raise KeyError(peer.name)

    mishap = cases.Case("threads.mishap", "One call", "a mishap", "threads", played, alone=True)
    monkeypatch.setattr(cases, "load", lambda: {mishap.name: mishap})
    with pytest.raises(end):
        cases.show(peer, mishap.name)


def test_a_page_with_a_cell_that_has_no_answer_is_not_written(comparing, monkeypatch, tmp_path):
    """A case that turns out to be a mishap elsewhere is named, for it to be played alone."""
    page = comparing("page")
    found = {("cachetools", "threads.cold"): "1 call, 2 hang", ("cachebox", "threads.cold"): "hangs"}
    monkeypatch.setattr(page, "measured", lambda peers, quick: {})
    monkeypatch.setattr(page, "cells", lambda peers: found)
    with pytest.raises(SystemExit, match=r"nothing is written\nthreads.cold has 2 cells"):
        page.write(str(tmp_path / "page.md"), quick=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("import time; time.sleep(60)", "hangs"),
        ("import os; os.abort()", "crashes (SIGABRT)"),
        ("1 / 0", "crashes (ZeroDivisionError)"),
        ("print('cell: 1 call'); 1 / 0", "1 call"),
        ("pass", "crashes (no word)"),
    ],
)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes end in another way")
def test_what_became_of_a_case_is_told(comparing, program, shown):
    """A case that hangs is stopped and told as hanging, one that crashes as crashing."""
    limit = 1.0 if shown == "hangs" else 50.0
    assert comparing("cases").cell("any", "any", limit, [sys.executable, "-c", program]) == shown


def test_the_cases_see_a_library_that_does_nothing(comparing):
    """Asked of functions that are not decorated at all, they show a stampede, and a cell for every fault."""
    Peer = comparing("peers").Peer

    class Nothing(Peer):
        name = "nothing"

        def decorate(self, function, ttl=60.0, key=None):
            return function

        def forget(self, call, symbol):
            pass

    cases = comparing("cases").load()
    expected = {
        "threads.cold": "10 calls at once",
        "threads.own_key": "RecursionError",
        "threads.failing": "10 calls at once",
        "threads.traceback": "not shared",
        "tasks.cold": "10 calls at once",
        "tasks.cycle": "RecursionError",
        "tasks.four_loops": "4 calls at once",
        "tasks.second_loop": "called again",
        "threads.spelling": "are two calls",
    }
    assert {name: cases[name].run(Nothing()) for name in expected} == expected


def test_the_page_has_every_case_and_every_library(comparing):
    """The page in the docs was written by the cases that there are now."""
    page = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    for case in comparing("cases").load().values():
        if not case.alone:
            assert f"| {case.title} |" in page
    for peer in comparing("peers").PEERS:
        assert f"| {peer.name} | " in page


def test_the_page_shows_the_stored_run(comparing):
    """Rendered again, what the last full run has found gives the page of the docs, byte for byte."""
    page = comparing("page")
    assert page.text(page.stored()) == (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")


def test_a_run_is_stored_as_it_was_found(comparing, tmp_path):
    """What is read again is what was written, down to quotes and letters that are not ASCII."""
    page = comparing("page")
    run = {"date": "2026-11-25", "cells": [["a", "threads.cold", 'one "call", 5 µs'], ["b", "x", "y"]]}
    page.store(run, tmp_path / "run.json")
    assert page.stored(tmp_path / "run.json") == run


def test_each_cell_has_a_mark_and_each_mark_its_words(comparing):
    """Every case says what a full mark means, and every cell of the stored run is shown in both forms."""
    marks, cases, run = comparing("marks"), comparing("cases").load(), comparing("page").stored()
    compared = {case.name for case in cases.values() if not case.alone}
    assert {name.partition(".")[2] for name in compared} == set(marks.WISHES)
    found = {(case, cell) for name, case, cell in run["cells"] if name in run["versions"]}
    assert {marks.mark_of(*one) for one in found} == set(marks.SIGNS)
    page = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    assert [one for one in found if marks.sign(*one) not in page or f"| {one[1]} |" not in page] == []
    with pytest.raises(LookupError, match=r"threads\.spelling: sings"):
        marks.mark_of("threads.spelling", "sings")


def test_mishaps_are_not_stored(comparing):
    """What this library plays alone is on no page, so it needs no mark."""
    found = {("singleflight", "threads.cold"): "1 call", ("singleflight", "threads.fork"): "calls again"}
    run = comparing("page").found_by({}, found, [], None)
    assert run["cells"] == [["singleflight", "threads.cold", "1 call"]]


@pytest.mark.parametrize(
    ("case", "cell", "mark"),
    [
        ("threads.cold", "1 call", "full"),
        ("threads.failing", "2 calls", "half"),
        ("threads.failing", "10 calls in turn", "empty"),
        ("tasks.follower_cancelled", "1 call, 9 get CancelledError", "empty"),
        ("tasks.both_colours", "2 calls", "empty"),
        ("tasks.both_colours", "n/a", "none"),
        ("tasks.nothing", "1 call, stored", "full"),
        ("threads.mutable", "see it", "empty"),
        ("tasks.reused_id", "n/a, kept alive", "none"),
    ],
)
def test_marks_judge_what_callers_saw(comparing, case, cell, mark):
    """The fewest calls and the right values are full, whoever makes them; this library's own defaults too."""
    assert comparing("marks").mark_of(case, cell) == mark


def test_the_page_is_no_recipe(comparing):
    """No case that is played alone is on it, nor a cell that tells that a library did not come back."""
    page = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    cases = comparing("cases").load().values()
    compared = {case.title for case in cases if not case.alone}
    assert not [case.title for case in cases if case.title not in compared and case.title in page]
    assert not re.findall(r"\b(?:hang|hangs|crash|crashes)\b", page)
