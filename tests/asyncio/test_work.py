"""The task that runs a flight, step by step: when it is stopped, given up, and what it brings home."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from singleflight import FlightTimeout
from singleflight.drivers import tasks
from singleflight.drivers.tasks import Work, new_work, start_task
from singleflight.locks.mutex import mutex

from ..drivers import InThread

TIMEOUT = 10


def run(main):
    """Run it on a loop of its own, to its end."""
    return asyncio.run(asyncio.wait_for(main(), TIMEOUT))


@pytest.fixture
def ends(monkeypatch):
    """The flights that were ended by the way: each with its cache, its work and its error."""
    ended = []
    monkeypatch.setattr(tasks, "_end", lambda *how: ended.append(how))
    return ended


class Flight:
    """A flight that has ended, or not."""

    def __init__(self, over):
        self.has_ended = lambda: over


def test_new_work_is_for_the_running_loop_and_has_not_begun():
    """Its home is open, and it knows what it runs for, and where."""

    async def main():
        work = new_work(Work, "cache", "flight")
        assert (work.cache, work.flight, work.loop) == ("cache", "flight", asyncio.get_running_loop())
        assert (work.home.get_loop(), work.home.done(), work.task) == (work.loop, False, None)
        assert [work.began, work.overdue, work.homeless] == [False] * 3
        assert work._thread is threading.current_thread()
        assert not work.is_dead()
        assert work.may_stop() is True

    run(main)


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("where", ["on its loop", "in another thread"])
def test_work_that_is_stopped_is_cancelled(waits, where):
    """It is overdue if its caller waits for it, and else nobody wants it."""

    async def main():
        work = new_work(Work, None, None)
        work.task = asyncio.ensure_future(asyncio.Event().wait())
        if not waits:
            work.home.cancel()
        if where == "on its loop":
            work.stop()
            assert work.overdue is waits
        else:
            await asyncio.to_thread(work.stop)
        with pytest.raises(asyncio.CancelledError):
            await work.task
        assert work.overdue is waits

    run(main)


def test_work_without_a_task_yet_is_only_overdue():
    """There is nothing to cancel."""

    async def main():
        work = new_work(Work, None, None)
        work.stop()
        assert work.overdue

    run(main)


def test_work_of_a_closed_loop_need_not_be_stopped():
    """Its task went with the loop."""

    async def main():
        return new_work(Work, None, None)

    work = run(main)
    work.stop()
    assert (work.is_dead(), work.overdue) == (True, False)


def test_where_there_is_no_room_to_stop_work_it_is_said():
    """So that it is tried again; RecursionError is a RuntimeError, too."""

    async def main():
        return new_work(Work, None, None)

    def refuse(call):
        raise RecursionError

    work = run(main)
    work.loop = SimpleNamespace(call_soon_threadsafe=refuse)
    with pytest.raises(RecursionError):
        work.stop()


def test_when_work_is_given_up():
    """Its loop is closed, or its thread runs another one; of a renewal also if the loop stands still."""
    loop = asyncio.new_event_loop()
    try:

        async def main():
            return new_work(Work, None, None)

        work = loop.run_until_complete(main())
        assert not work.is_dead()  # its loop stands still, and may go on
        work.homeless = True
        assert work.is_dead()
        work.homeless = False

        async def elsewhere():
            return work.is_dead()

        async def homeless():
            work.homeless = True
            return work.is_dead()

        assert run(elsewhere)  # another loop runs on its thread
        assert InThread(elsewhere_in_thread(work), ()).outcome() is False
        assert loop.run_until_complete(elsewhere()) is False
        assert loop.run_until_complete(homeless()) is False
    finally:
        loop.close()
    assert work.is_dead()


def test_work_whose_loop_has_moved_to_another_thread_goes_on():
    """Whatever runs on the thread that it was begun on."""
    loop = asyncio.new_event_loop()

    async def main():
        return new_work(Work, None, None)

    async def elsewhere():
        return work.is_dead()

    work = loop.run_until_complete(main())
    running = threading.Event()
    loop.call_soon(running.set)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        assert running.wait(TIMEOUT)
        assert run(elsewhere) is False
        work.homeless = True
        assert run(elsewhere) is False
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT)
        loop.close()


def elsewhere_in_thread(work):
    """Whether a loop of another thread takes it for dead."""

    async def look():
        return work.is_dead()

    async def main():
        return asyncio.run(look())

    return main


@pytest.mark.parametrize("overdue", [True, False])
@pytest.mark.parametrize("kind", [asyncio.CancelledError, ValueError])
def test_the_error_that_its_caller_receives(overdue, kind):
    """Nobody has cancelled work that took too long; its own errors stay what they are."""

    async def main():
        work = new_work(Work, None, None)
        work.overdue = overdue
        error = kind()
        given = work.error_to_raise(error)
        if overdue and kind is asyncio.CancelledError:
            assert (type(given), given.args) == (FlightTimeout, ())
        else:
            assert given is error

    run(main)


def test_what_is_brought_home():
    """Once; nothing for a caller that has gone, or whose loop is closed."""

    async def main():
        work = new_work(Work, None, None)
        assert work.bring_home("value", "error") is True
        assert (work.home.result(), work.value, work.error) == (None, "value", "error")
        assert work.bring_home("another", None) is False
        assert (work.value, work.error) == ("value", "error")
        return new_work(Work, None, None)

    work = run(main)
    assert work.bring_home("value", None) is True
    assert (hasattr(work, "value"), work.home.done()) == (False, False)


@pytest.mark.parametrize("over", [True, False])
@pytest.mark.parametrize("home", [True, False])
def test_a_task_that_is_done_ends_what_is_not_ended(ends, over, home):
    """It may have been cancelled before it began, or an interrupt has struck."""

    async def main():
        flight = Flight(over)
        work = new_work(Work, "cache", flight)
        if home:
            work.home.set_result(None)
        work.ended(None)
        assert (work.cache, work.flight) == (None, None)
        if over and home:
            assert ends == []
        else:
            ((cache, ended, by, error),) = ends
            assert (cache, ended, by, type(error)) == ("cache", flight, work, asyncio.CancelledError)
        ends.clear()
        work.ended(None)  # all is settled
        assert ends == []

    run(main)


def test_the_task_has_the_functions_name_and_ends_its_work(ends):
    """Whatever it brings."""

    async def main():
        async def flown():
            pass

        work = new_work(Work, "cache", Flight(False))
        task = start_task(work, flown(), "prices")
        assert (work.task, task.get_name()) == (task, "prices")
        await task
        await asyncio.sleep(0)
        assert len(ends) == 1

    run(main)


def test_a_task_that_takes_no_name_has_none():
    """A loop of another kind may make what has the other methods alone."""

    async def main():
        async def flown():
            pass

        ends, coroutine = [], flown()
        task = SimpleNamespace(add_done_callback=ends.append)
        work = new_work(Work, None, None)
        work.loop = SimpleNamespace(create_task=lambda given: task if given is coroutine else None)
        assert start_task(work, coroutine, "prices") is task
        assert ends == [work.ended]
        coroutine.close()

    run(main)


def test_what_a_factory_refuses_is_closed():
    """Nothing of it has run."""

    async def main():
        async def flown():
            raise AssertionError

        def refuse(loop, coroutine, **more):
            raise ValueError

        work, coroutine = new_work(Work, None, None), flown()
        work.loop.set_task_factory(refuse)
        with pytest.raises(ValueError):
            start_task(work, coroutine, "prices")
        work.loop.set_task_factory(None)
        assert coroutine.cr_frame is None

    run(main)


class Struck(BaseException):
    """What an interrupt raises."""


@pytest.mark.parametrize("how", ["amid a section", "interrupted"])
def test_work_that_cannot_be_ended_is_noted(monkeypatch, how):
    """For whoever comes next; its caller is told at once."""
    noted, flight, error = {}, Flight(False), ValueError()
    cache = SimpleNamespace(stores_failures=False)
    monkeypatch.setattr(tasks, "unsettled", noted)

    def fail(*args, **more):
        raise Struck

    async def main():
        work = new_work(Work, None, None)
        monkeypatch.setattr(tasks, "fail", fail)
        if how == "interrupted":
            with pytest.raises(Struck):
                tasks._end(cache, flight, work, error)
        else:
            with mutex:
                assert tasks._end(cache, flight, work, error) is True
        assert noted == {flight: (tasks.settle_flight, cache, flight, error)}
        assert (work.home.done(), work.error) == (True, error)

    run(main)
