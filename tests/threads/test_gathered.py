"""How a thread takes part in a window, step by step; what windows decide is stood in for."""

import contextvars
from functools import partial
from types import SimpleNamespace

import pytest

from singleflight.core.call import LEAD, NONE, SHARE, new_call
from singleflight.drivers import gather_threads
from singleflight.drivers.threads import ThreadCall
from singleflight.locks.waiters import get_ident

from ..windows import HOW, PART, Refused, Windows, cache_of, note_steps


def caller():
    call = new_call(ThreadCall, "a", "actor", 1, 1)
    call.flight, call.decision = "flight", LEAD
    return call


@pytest.fixture
def steps(monkeypatch):
    """Notes the driver's own steps."""
    return partial(note_steps, monkeypatch, gather_threads)


def test_a_call_that_nobody_gathers():
    """It leads: it has no item, or there is no window for it."""
    windows, call = Windows(), caller()
    windows.window = None
    assert gather_threads.gather(cache_of(windows), call, HOW, False) == (LEAD, None)
    assert windows.steps == [("enter", call, PART, HOW, False, False)]
    windows.gathers = False
    assert gather_threads.gather(cache_of(windows), call, HOW, False) == (LEAD, None)
    assert len(windows.steps) == 1


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("amid", [False, True])
@pytest.mark.parametrize("decision", [SHARE, NONE])
def test_who_opens_a_window_runs_it(steps, alone, amid, decision):
    """Alone, too, in a finaliser or signal handler, where waiting could hang others."""
    windows = Windows(call := caller())
    steps(windows, _run=decision, inside_other=amid)
    got = gather_threads.gather(cache_of(windows), call, HOW, alone)
    assert got == ((SHARE, ("taken", "flight")) if decision is SHARE else (NONE, ("alone", "flight")))
    assert windows.steps[-2:] == [("enter", call, PART, HOW, False, alone or amid), ("run", windows, call)]


@pytest.mark.parametrize("decision", [SHARE, NONE])
def test_a_member_waits(steps, decision):
    """For its value, or to be called anew, alone if the window says so."""
    windows, call = Windows(), caller()
    steps(windows, stand=decision)
    cache = cache_of(windows)
    got = gather_threads.join(cache, call, PART, HOW, False)
    assert got == ((SHARE, ("taken", "flight")) if decision is SHARE else (NONE, ("alone", "flight")))
    name, of, by, stay = windows.steps[-1]
    assert (name, of, by, stay._window, stay._call) == ("stand", cache, call, windows, call)


def test_a_call_that_ends_with_an_exception(steps):
    """What it holds is given up, whether it is in a window by then or not."""
    windows, error = Windows(call := caller()), Refused()
    steps(windows, _run=error)
    with pytest.raises(Refused):
        gather_threads.join(cache_of(windows), call, PART, HOW, False)
    assert windows.steps[-1] == ("leave", call, windows, error)


@pytest.fixture
def unsettled(monkeypatch):
    """What is to be settled later."""
    monkeypatch.setattr(gather_threads, "unsettled", {})
    return gather_threads.unsettled


def test_a_call_that_fails_to_enter(unsettled):
    """The same, without a window."""
    windows, call = Windows(), caller()
    windows.fails = RecursionError()
    with pytest.raises(RecursionError):
        gather_threads.join(cache_of(windows), call, PART, HOW, False)
    assert windows.steps[-1] == ("leave", call, None, windows.fails)
    assert unsettled == {call: (windows.settle, call, None, windows.fails)}


@pytest.mark.parametrize("struck", [RecursionError(), MemoryError(), KeyboardInterrupt()])
def test_what_cannot_be_given_up_is_settled_later(unsettled, struck):
    """Its caller receives its own error, but for an interrupt."""
    windows, call, error = Windows(), caller(), Refused()
    windows.fails = struck
    cache = cache_of(windows)
    if isinstance(struck, Exception):
        gather_threads._leave(cache, call, windows, error)
    else:
        with pytest.raises(KeyboardInterrupt):
            gather_threads._leave(cache, call, windows, error)
    assert unsettled == {call: (windows.settle, call, windows, error)}
    windows.fails = None
    unsettled.clear()
    gather_threads._leave(cache, call, windows, error)
    assert unsettled == {}


# -- running one --------------------------------------------------------------------------------------


def test_a_window_is_run(steps):
    """Once it is full, or its time is over."""
    windows = Windows()
    windows.full = SimpleNamespace(wait=lambda seconds: windows.steps.append(("wait", seconds)))
    steps(windows, fly=None)
    assert gather_threads._run(windows, caller()) is SHARE
    assert windows.steps == [("wait", 7.5), "send off", ("fly", windows, "run")]


@pytest.mark.parametrize(
    ("own", "brought", "raises"),
    [
        (None, "nothing", True),
        ("flight", "nothing", True),
        ("flight", "the error", True),
        ("flight", "another", False),
        ("flight", "a value", False),
    ],
)
def test_a_loader_that_raises(steps, own, brought, raises):
    """Its runner receives that where it is its own outcome, or has none; then nothing is left to take."""
    windows, error = Windows(), Refused()
    windows.full.open()
    windows.outcomes = {"another": Refused()}
    if brought != "nothing":
        windows.outcomes["flight"] = {"the error": error, "another": Refused(), "a value": None}[brought]
    steps(windows, fly=error)
    call = own and caller()
    if not raises:
        assert gather_threads._run(windows, call) is SHARE
        assert ("forget", own) not in windows.steps
        return
    with pytest.raises(Refused) as raised:
        gather_threads._run(windows, call)
    assert raised.value is error
    assert windows.steps[-1] == ("forget", own)


def test_a_loader_that_raises_for_others(steps):
    """Its runner calls anew, but is not kept from an interrupt."""
    windows, call = Windows(), caller()
    windows.full.open()
    windows.skipped = ["flight"]
    steps(windows, fly=Refused())
    assert gather_threads._run(windows, call) is NONE
    steps(windows, fly=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        gather_threads._run(windows, call)


# -- renewals -----------------------------------------------------------------------------------------

LIVES_IN = contextvars.ContextVar("lives in", default="nowhere")


@pytest.mark.parametrize("room", [True, False])
def test_who_opens_a_window_of_renewals_has_it_run(monkeypatch, steps, room):
    """By the pool, in a copy of its own context; without room there by itself: it finds the new value."""
    windows, call, jobs = Windows(), caller(), []
    cache, token = cache_of(windows), LIVES_IN.set("here")
    steps(windows, _run_renewals=None)
    run_renewals = gather_threads._run_renewals

    def noted(*given):
        windows.steps.append(LIVES_IN.get())
        run_renewals(*given)
        LIVES_IN.set("there")

    monkeypatch.setattr(gather_threads, "_run_renewals", noted)
    monkeypatch.setattr(gather_threads, "in_background", lambda run: jobs.append(run) or room)
    try:
        assert gather_threads.renew(cache, call, HOW) is room
        assert LIVES_IN.get() == "here"
    finally:
        LIVES_IN.reset(token)
    assert windows.steps[0] == ("renew", call, PART, HOW, False)
    if room:
        assert len(windows.steps) == 1
        jobs[0]()
        assert not hasattr(call, "record")
    else:
        assert call.record == ("found", "a")
    assert windows.steps[1:] == ["here", ("run_renewals", cache, windows)]


def test_others_only_join():
    """Whoever opened the window has it run."""
    windows = Windows()
    windows.opened = False
    assert gather_threads.renew(cache_of(windows), caller(), HOW) is True


def test_renewals_that_nobody_gathers():
    """They have no item, or there is no window for them."""
    windows = Windows()
    windows.window, windows.opened = None, False
    assert gather_threads.renew(cache_of(windows), caller(), HOW) is None
    windows.gathers = False
    assert gather_threads.renew(cache_of(windows), caller(), HOW) is None
    assert len(windows.steps) == 1


@pytest.mark.parametrize("begins", [True, False])
def test_a_thread_of_the_pool_runs_it(steps, begins):
    """For nobody, unless a caller does that by now."""
    windows = Windows()
    windows.begins = begins
    steps(windows, _run=None, current_actor="me")
    gather_threads._run_renewals(cache_of(windows), windows)
    _, (name, window, call), *run = windows.steps
    assert (name, window, call.key, call.actor) == ("begin", windows, None, "me")
    assert (call.thread, call.blocks) == (get_ident(), get_ident())
    assert (type(call), call.renew, run) == (ThreadCall, False, [("run", windows, None)] if begins else [])


@pytest.mark.parametrize("error", [Refused(), KeyboardInterrupt()])
def test_what_it_raises_is_nobodys_to_see(steps, error):
    """But for an interrupt, which ends the thread; it gives up what it holds."""
    windows = Windows()
    steps(windows, _run=error)
    cache = cache_of(windows)
    if isinstance(error, Exception):
        gather_threads._run_renewals(cache, windows)
    else:
        with pytest.raises(KeyboardInterrupt):
            gather_threads._run_renewals(cache, windows)
    (_, _, call), _, left = windows.steps
    assert left == ("leave", call, windows, error)
