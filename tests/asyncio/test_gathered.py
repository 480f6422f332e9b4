"""How a task takes part in a window, step by step; what windows decide is stood in for."""

import asyncio
from functools import partial
from types import SimpleNamespace

import pytest

from singleflight.core.call import JOIN, LEAD, NONE, SHARE
from singleflight.drivers import gather_tasks
from singleflight.locks.mutex import inside, mutex

from ..windows import HOW, PART, Refused, Windows, cache_of, note_steps

TIMEOUT = 10


class Caller:
    """A call of a task that sits, and rises."""

    flight, decision = "flight", LEAD

    def __init__(self, *wakes):
        self.wakes, self.sat, self.rose = list(wakes), [], 0

    async def sit(self, *pauses):
        self.sat.append(pauses)
        woken = self.wakes.pop(0)
        if isinstance(woken, BaseException):
            raise woken
        return woken

    def rise(self):
        self.rose += 1


class Work:
    """What runs a window."""

    error = None
    homeless = False

    def __init__(self, loop=None):
        self.loop = loop or SimpleNamespace(is_closed=lambda: False)
        self.home = SimpleNamespace(
            set_result=lambda result: setattr(self, "came", result),
            cancel=lambda: setattr(self, "cancelled", True),
        )


def run(coroutine):
    """Run it to its end."""
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT))


@pytest.fixture
def steps(monkeypatch):
    """Notes the driver's own steps."""
    return partial(note_steps, monkeypatch, gather_tasks)


@pytest.fixture
def unsettled(monkeypatch):
    """What is to be settled later."""
    monkeypatch.setattr(gather_tasks, "unsettled", {})
    return gather_tasks.unsettled


async def returns(outcome=None):
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


# -- calls --------------------------------------------------------------------------------------------


def test_a_call_that_nobody_gathers():
    """It leads: it has no item, or there is no window for it."""
    windows, call = Windows(), Caller()
    windows.window = None
    assert run(gather_tasks.gather(cache_of(windows), call, HOW, False)) == (LEAD, None)
    assert windows.steps == [("enter", call, PART, HOW, True, False)]
    windows.gathers = False
    assert run(gather_tasks.gather(cache_of(windows), call, HOW, False)) == (LEAD, None)
    assert len(windows.steps) == 1


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("decision", [SHARE, NONE])
def test_who_opens_a_window_has_it_run(monkeypatch, alone, decision):
    """And takes what there is for it."""
    windows = Windows(call := Caller())

    async def noted(*given):
        windows.steps.append(("run", *given))
        return decision

    monkeypatch.setattr(gather_tasks, "_run", noted)
    got = run(gather_tasks.gather(cache_of(windows), call, HOW, alone))
    assert got == ((SHARE, ("taken", "flight")) if decision is SHARE else (NONE, ("alone", "flight")))
    assert windows.steps == [("enter", call, PART, HOW, True, alone), ("run", windows, call)]


@pytest.mark.parametrize("decision", [SHARE, NONE])
def test_a_member_waits(monkeypatch, decision):
    """For its value, or to be called anew, alone if the window says so."""
    windows, call = Windows(), Caller()

    async def noted(*given):
        windows.steps.append(("stay", *given))
        return decision

    monkeypatch.setattr(gather_tasks, "_stay", noted)
    got = run(gather_tasks.join(cache_of(windows), call, PART, HOW, False))
    assert got == ((SHARE, ("taken", "flight")) if decision is SHARE else (NONE, ("alone", "flight")))
    assert windows.steps[-1] == ("stay", windows, call)


def test_a_call_that_ends_with_an_exception(monkeypatch):
    """What it holds is given up."""
    windows, error = Windows(call := Caller()), Refused()
    monkeypatch.setattr(gather_tasks, "_run", lambda *given: returns(error))
    with pytest.raises(Refused):
        run(gather_tasks.join(cache_of(windows), call, PART, HOW, False))
    assert windows.steps[-1] == ("leave", call, windows, error)


def test_a_call_that_fails_to_enter(unsettled):
    """The same, without a window."""
    windows, call = Windows(), Caller()
    windows.fails = RecursionError()
    with pytest.raises(RecursionError):
        run(gather_tasks.join(cache_of(windows), call, PART, HOW, False))
    assert windows.steps[-1] == ("leave", call, None, windows.fails)
    assert unsettled == {call: (windows.settle, call, None, windows.fails)}


@pytest.mark.parametrize("struck", [RecursionError(), MemoryError(), KeyboardInterrupt()])
def test_what_cannot_be_given_up_is_settled_later(unsettled, struck):
    """Its caller receives its own error, but for an interrupt."""
    windows, call, error = Windows(), Caller(), Refused()
    windows.fails, cache = struck, cache_of(windows)
    if isinstance(struck, Exception):
        gather_tasks._leave(cache, call, windows, error)
    else:
        with pytest.raises(KeyboardInterrupt):
            gather_tasks._leave(cache, call, windows, error)
    assert unsettled == {call: (windows.settle, call, windows, error)}
    windows.fails = None
    unsettled.clear()
    gather_tasks._leave(cache, call, windows, error)
    assert unsettled == {}


def test_a_coroutine_that_is_destroyed_amid_a_section_is_settled_later(unsettled):
    """The collector may do that anywhere."""
    windows, call, error = Windows(), Caller(), Refused()
    with mutex:
        gather_tasks._leave(cache_of(windows), call, windows, error)
    assert unsettled == {call: (windows.settle, call, windows, error)}
    assert windows.steps == []


# -- members ------------------------------------------------------------------------------------------


class Stays:
    """Stands in for a member's wait."""

    def __init__(self, *decisions):
        self.decisions, self.woken_by, self.of = list(decisions), [], None

    def __call__(self, *of):
        self.of = of
        return self

    def pauses(self):
        return 1.0, len(self.woken_by)

    def woken(self, opened):
        self.woken_by.append(opened)
        return self.decisions.pop(0)


@pytest.mark.parametrize("last", [SHARE, NONE])
def test_a_member_sits_until_there_is_something_to_do(monkeypatch, last):
    """With the pauses that it may make by then."""
    windows, call, stays = Windows(), Caller(False, True, False), Stays(JOIN, JOIN, last)
    monkeypatch.setattr(gather_tasks, "Stay", stays)
    assert run(gather_tasks._stay(windows, call)) is last
    assert (stays.of, stays.woken_by) == ((windows, call), [False, True, False])
    assert (call.sat, call.rose) == ([(1.0, 0), (1.0, 1), (1.0, 2)], 0)


def test_a_member_that_is_cancelled_rises(monkeypatch):
    """Nobody looks for it any more."""
    call = Caller(Refused())
    monkeypatch.setattr(gather_tasks, "Stay", Stays())
    with pytest.raises(Refused):
        run(gather_tasks._stay(Windows(), call))
    assert call.rose == 1


# -- running one --------------------------------------------------------------------------------------


def test_a_window_has_a_task_of_its_own(monkeypatch):
    """It waits the window out first."""
    windows, work, waited = Windows(), Work(), []
    windows.let_run_by = lambda *given: windows.steps.append(("let run", *given))

    def set_off(*given, first):
        first()
        return windows.steps.append(("set off", *given)) or (work, "task")

    monkeypatch.setattr(gather_tasks, "set_off", set_off)
    monkeypatch.setattr(gather_tasks, "_wait_out", waited.append)
    assert gather_tasks._set_off(windows) is work
    assert windows.steps == [("set off", windows, "run"), ("let run", work, "task")]
    assert waited == [windows]


def test_a_window_whose_task_cannot_be_made(monkeypatch):
    """It is given up: its members call anew."""
    windows, error = Windows(), Refused()
    windows.give_up = lambda error: windows.steps.append(("give up", error))

    def set_off(*given, first):
        raise error

    monkeypatch.setattr(gather_tasks, "set_off", set_off)
    with pytest.raises(Refused):
        gather_tasks._set_off(windows)
    assert windows.steps == [("give up", error)]


class Waiter:
    """The task that waits a window out."""

    def __init__(self, windows, cancelled=False):
        self.windows, self.cancelled = windows, cancelled

    def stand_at(self, *given):
        assert inside()
        self.windows.steps.append(("stand", *given))

    async def sit(self, *given):
        self.windows.steps.append(("sit", *given))
        if self.cancelled:
            raise asyncio.CancelledError

    def rise(self):
        self.windows.steps.append("rise")


@pytest.mark.parametrize(
    ("is_open", "cancelled"),
    [(True, False), (True, True), (False, False)],
)
def test_a_window_is_waited_out(steps, is_open, cancelled):
    """Until it is full, or its time is over; one that is full already is sent off at once."""
    windows = Windows()
    windows.is_open, windows.name = is_open, "name"
    steps(windows, task_waiter=Waiter(windows, cancelled))

    async def scene():
        if cancelled:
            with pytest.raises(asyncio.CancelledError):
                await gather_tasks._wait_out(windows)
        else:
            await gather_tasks._wait_out(windows)

    run(scene())
    waits = [("stand", windows.full), ("sit", 1.0, 7.5), "rise"] if is_open else []
    assert windows.steps == [("task_waiter", "name"), *waits, *([] if cancelled else ["send off"])]


def opener(steps, outcome=None, loop=None):
    """A window whose caller waits for its task: that comes home, or this is raised meanwhile."""
    windows, work = Windows(), Work(loop)
    windows.wait_as_opener = lambda call: windows.steps.append(("wait", call))
    work.cancelled = False

    class Home:
        def __await__(self):
            return returns(outcome).__await__()

        def cancel(self):
            work.cancelled = True

    work.home = Home()
    steps(windows, _set_off=work)
    return windows, work


def test_the_opener_waits_for_its_task(steps):
    """It runs whatever becomes of its caller."""
    windows, work = opener(steps)
    call = Caller()
    assert run(gather_tasks._run(windows, call)) is SHARE
    assert windows.steps == [("set_off", windows), ("wait", call)]
    assert work.cancelled is False


@pytest.mark.parametrize("closed", [False, True])
def test_the_opener_is_cancelled(steps, closed):
    """Nobody is at home any more, unless its loop is closed."""
    error = asyncio.CancelledError()
    windows, work = opener(steps, error, SimpleNamespace(is_closed=lambda: closed))

    async def scene():
        with pytest.raises(asyncio.CancelledError):
            await gather_tasks._run(windows, Caller())

    run(scene())
    assert work.cancelled is not closed


@pytest.mark.parametrize(
    ("brought", "raises"), [("nothing", True), ("the error", True), ("another", False), ("a value", False)]
)
def test_a_loader_that_raises(steps, brought, raises):
    """Its opener receives that where it is its own outcome, or has none."""
    windows, work = opener(steps)
    work.error = error = Refused()
    windows.outcomes = {"another": error}
    if brought != "nothing":
        windows.outcomes["flight"] = {"the error": error, "another": Refused(), "a value": None}[brought]

    async def scene():
        try:
            return await gather_tasks._run(windows, Caller())
        except Refused as raised:
            return raised

    assert run(scene()) is (error if raises else SHARE)
    assert work.error is None


def test_a_loader_that_raises_for_others(steps):
    """Its opener calls anew, but is not kept from an abort."""
    windows, work = opener(steps)
    windows.skipped = ["flight"]
    work.error = Refused()
    assert run(gather_tasks._run(windows, Caller())) is NONE
    windows, work = opener(steps)
    windows.skipped = ["flight"]
    work.error = asyncio.CancelledError()

    async def scene():
        with pytest.raises(asyncio.CancelledError):
            await gather_tasks._run(windows, Caller())

    run(scene())


# -- renewals -----------------------------------------------------------------------------------------


def test_who_opens_a_window_of_renewals_has_it_run(steps):
    """By a task that nobody waits for."""
    windows, call, work = Windows(), Caller(), Work()
    steps(windows, _set_off=work)
    assert gather_tasks.renew(cache_of(windows), call, HOW) is True
    assert windows.steps == [("renew", call, PART, HOW, True), ("set_off", windows)]
    assert (work.came, work.homeless) == (None, True)


def test_others_only_join():
    """Whoever opened the window has it run."""
    windows = Windows()
    windows.opened = False
    assert gather_tasks.renew(cache_of(windows), Caller(), HOW) is True


def test_renewals_that_nobody_gathers():
    """They have no item, or there is no window for them."""
    windows = Windows()
    windows.window, windows.opened = None, False
    assert gather_tasks.renew(cache_of(windows), Caller(), HOW) is False
    windows.gathers = False
    assert gather_tasks.renew(cache_of(windows), Caller(), HOW) is False
    assert len(windows.steps) == 1


@pytest.mark.parametrize("error", [Refused(), KeyboardInterrupt()])
def test_a_window_of_renewals_whose_task_cannot_be_made(steps, error):
    """The value is served all the same, but for an interrupt, which gives up what is held."""
    windows, call = Windows(), Caller()
    steps(windows, _set_off=error)
    if isinstance(error, Exception):
        assert gather_tasks.renew(cache_of(windows), call, HOW) is True
        assert len(windows.steps) == 2
        return
    with pytest.raises(KeyboardInterrupt):
        gather_tasks.renew(cache_of(windows), call, HOW)
    assert windows.steps[-1] == ("leave", call, windows, error)
