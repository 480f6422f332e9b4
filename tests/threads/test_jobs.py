"""Locks entered in one job of a pooled thread and left in another, and threads that have ended."""

import asyncio
import contextvars
import gc
import queue
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest

from singleflight import FlightDeadlock, FlightTimeout, KeyedLocks, drain_sync, report, single_flight_ttl
from singleflight.locks import jobs
from singleflight.locks.lives import life_of_this_thread
from singleflight.testing import Recorder

from ..drivers import PATIENCE, until


class Worker:
    """A pool of one thread that nobody knows as one; what it is given runs in it, one after another."""

    def __init__(self):
        self._given = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self):
        while (job := self._given.get()) is not None:
            function, outcome = job
            try:
                outcome.put(function())
            except BaseException as error:
                outcome.put(error)

    def submit(self, function):
        outcome = queue.Queue()
        self._given.put((function, outcome))
        return outcome

    def close(self):
        self._given.put(None)
        self._thread.join(PATIENCE)


@pytest.fixture
def pools():
    """Executors of one thread each."""
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as another:
        yield one, another


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


def exclusive(locks, *keys, timeout=None):
    """A context manager, as users write them."""

    @contextmanager
    def block():
        with locks(*keys, timeout=timeout):
            yield

    return block()


def leave(block):
    return block.__exit__(None, None, None)


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_later_job_of_the_thread_waits(pools, timeout):
    """What an earlier job has entered is somebody else's, who leaves it on whatever thread."""
    locks, (one, another) = KeyedLocks(), pools
    first, second = exclusive(locks, "a", timeout=timeout), exclusive(locks, "a", timeout=timeout)
    one.submit(first.__enter__).result(PATIENCE)
    entering = one.submit(second.__enter__)
    until(lambda: locks.waiting("a") or entering.done())
    assert (locks.held("a"), locks.waiting("a")) == (True, 1)
    another.submit(leave, first).result(PATIENCE)
    entering.result(PATIENCE)
    assert (locks.held("a"), locks.waiting("a")) == (True, 0)
    another.submit(leave, second).result(PATIENCE)
    assert len(locks) == locks.idle == 1


def test_a_later_job_waits_as_long_as_it_may(pools):
    """And is told that the time is over, nothing else."""
    locks, (one, another) = KeyedLocks(), pools
    first = exclusive(locks, "a")
    one.submit(first.__enter__).result(PATIENCE)
    with pytest.raises(FlightTimeout, match=r"^waited 0\.01 s for 'a'$"):
        one.submit(exclusive(locks, "a", timeout=0.01).__enter__).result(PATIENCE)
    another.submit(leave, first).result(PATIENCE)
    assert not locks.held("a")


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_the_same_job_is_refused(pools, timeout):
    """Whoever takes in a job what that very job has would wait for itself."""
    locks = KeyedLocks()

    def job():
        with (
            exclusive(locks, "a", timeout=timeout),
            pytest.raises(FlightDeadlock, match="'a' -> 'a'"),
            exclusive(locks, "a", timeout=timeout),
        ):
            pass

    pools[0].submit(job).result(PATIENCE)
    assert not locks.held("a")


def called_back(pool, function):
    """Run it in a callback of a pool's job, on the thread that ran it; the outcome, as a future."""
    go, outcome = threading.Event(), Future()

    def run(_):
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    pool.submit(go.wait, PATIENCE).add_done_callback(run)
    go.set()
    return outcome


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_callback_of_a_job_is_refused_what_it_has(pools, timeout):
    """It goes on for longer than the job, whose thread it runs on."""
    locks = KeyedLocks()

    def twice():
        with locks("a", timeout=timeout):
            with pytest.raises(FlightDeadlock, match="'a' -> 'a'"):
                locks("a", timeout=timeout).__enter__()
            return "refused"

    assert called_back(pools[0], twice).result(PATIENCE) == "refused"
    assert not locks.held("a")


@pytest.mark.parametrize("run_in", [ThreadPoolExecutor.submit, called_back], ids=["job", "callback"])
def test_a_cycle_over_a_job_or_its_callback_is_refused(pools, crowd, run_in):
    """Whoever closes it on another thread sees whose the lock is, and that it waits."""
    locks, begun, has_b = KeyedLocks(), threading.Event(), threading.Event()

    def take_both():
        with locks("a"):
            begun.set()
            assert has_b.wait(PATIENCE)
            with locks("b"):
                return "both"

    def take_the_other_way():
        with locks("b"):
            has_b.set()
            until(lambda: locks.waiting("b"))
            with pytest.raises(FlightDeadlock):
                locks("a").__enter__()
            return "refused"

    first = run_in(pools[0], take_both)
    assert begun.wait(PATIENCE)
    crowd.add(take_the_other_way)
    assert first.result(PATIENCE) == "both"
    assert crowd.join() == ["refused"]


@pytest.mark.parametrize("timeout", [None, PATIENCE])
@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_thread_of_its_own_is_refused(crowd, timeout, where):
    """Taking again, in a block or a context manager, what was taken further out raises at once."""
    locks = KeyedLocks()

    def nest():
        with exclusive(locks, "a", timeout=timeout):
            for again in (locks("a", timeout=timeout), exclusive(locks, "a", timeout=timeout)):
                with pytest.raises(FlightDeadlock, match="'a' -> 'a'"):
                    again.__enter__()
        with ExitStack() as stack:
            stack.enter_context(locks("a", timeout=timeout))
            with pytest.raises(FlightDeadlock, match="'a' -> 'a'"):
                stack.enter_context(exclusive(locks, "a", timeout=timeout))
        return "refused"

    if where == "main":
        assert nest() == "refused"
    else:
        crowd.add(nest)
        assert crowd.join() == ["refused"]
    assert not locks.held("a")


class Guard:
    """A context manager written as a class."""

    def __init__(self, locks, timeout):
        self._statement = locks("a", timeout=timeout)

    def __enter__(self):
        self._statement.__enter__()

    def __exit__(self, *error):
        self._statement.__exit__(*error)


@contextmanager
def stacked(locks, timeout):
    with ExitStack() as stack:
        stack.enter_context(locks("a", timeout=timeout))
        yield


@pytest.mark.parametrize(
    "make", [lambda locks, timeout: exclusive(locks, "a", timeout=timeout), Guard, stacked]
)
def test_a_pool_that_is_not_known(worker, pools, make):
    """With a timeout the wait is bounded by that; without one it is refused, as it may never end."""
    locks = KeyedLocks()
    first, second = make(locks, PATIENCE), make(locks, PATIENCE)
    assert worker.submit(first.__enter__).get(timeout=PATIENCE) is None
    assert isinstance(worker.submit(make(locks, None).__enter__).get(timeout=PATIENCE), FlightDeadlock)
    assert isinstance(worker.submit(make(locks, 0.01).__enter__).get(timeout=PATIENCE), FlightTimeout)
    entering = worker.submit(second.__enter__)
    until(lambda: locks.waiting("a") == 1 or not entering.empty())
    assert entering.empty()
    pools[0].submit(leave, first).result(PATIENCE)
    assert entering.get(timeout=PATIENCE) is None
    leave(second)
    assert not locks.held("a")


def test_a_drain_with_a_timeout_is_in_no_cycle_by_a_doubt(worker, crowd):
    """A flight that waits for what an earlier job may have left open is waited for as long as was asked."""
    locks = KeyedLocks()

    @single_flight_ttl(ttl=60)
    def fetch():
        with locks("a", timeout=PATIENCE):
            return 1

    block = exclusive(locks, "a", timeout=PATIENCE)
    worker.submit(block.__enter__).get(timeout=PATIENCE)
    crowd.add(fetch)
    until(lambda: locks.waiting("a"))
    assert worker.submit(lambda: drain_sync(timeout=0.01)).get(timeout=PATIENCE) is False
    assert isinstance(worker.submit(drain_sync).get(timeout=PATIENCE), FlightDeadlock)
    leave(block)
    assert drain_sync(timeout=PATIENCE) is True
    assert crowd.join() == [1]


@pytest.mark.parametrize("kept", [False, True], ids=["future let go of", "future kept"])
def test_what_a_thread_waits_for_now_is_not_its_earlier_jobs_wait(pools, crowd, kept):
    """The pooled thread waits for B, which wants A, which an earlier job has: no cycle, for nobody."""
    locks, (one, another), futures = KeyedLocks(), pools, []
    has_b, go = threading.Event(), threading.Event()

    def other():
        with locks("B"):
            has_b.set()
            assert go.wait(PATIENCE)
            with locks("A"):
                return "both"

    first = exclusive(locks, "A")
    futures.append(one.submit(first.__enter__))
    futures[0].result(PATIENCE)
    if not kept:
        futures.clear()
    crowd.add(other)
    assert has_b.wait(PATIENCE)
    second = exclusive(locks, "B", timeout=PATIENCE)
    entering = one.submit(second.__enter__)
    until(lambda: locks.waiting("B") == 1)
    go.set()
    until(lambda: locks.waiting("A") == 1 or not locks.held("B"))
    another.submit(leave, first).result(PATIENCE)
    assert crowd.join() == ["both"]
    entering.result(PATIENCE)
    another.submit(leave, second).result(PATIENCE)


@pytest.mark.parametrize("bulk", [False, True])
def test_calls_wait_for_what_an_earlier_job_has(pools, bulk):
    """A flight stands behind a lock that an earlier job of its own thread took."""
    seen, (one, another) = Recorder(), pools

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def fetch(key):
        return key.lower()

    @fetch.bulk
    def fetch_all(keys):
        return {key: key.lower() for key in keys}

    first = exclusive(fetch.locks, "A")
    one.submit(first.__enter__).result(PATIENCE)
    asking = one.submit(fetch_all, ["A"]) if bulk else one.submit(fetch, "A")
    until(lambda: fetch.locks.waiting("A") or asking.done())
    another.submit(leave, first).result(PATIENCE)
    assert asking.result(PATIENCE) == ({"A": "a"} if bulk else "a")


def test_a_loop_that_a_later_job_runs_waits(pools):
    """Its tasks hold up the job that runs it, and not an earlier one of the same thread."""
    locks, (one, another) = KeyedLocks(), pools
    first = exclusive(locks, "a")

    async def take():
        async with locks("a"):
            return "had it"

    def child():
        async def run():
            return await asyncio.create_task(take())

        return asyncio.run(run())

    one.submit(first.__enter__).result(PATIENCE)
    entering = one.submit(child)
    until(lambda: locks.waiting("a") or entering.done())
    another.submit(leave, first).result(PATIENCE)
    assert entering.result(PATIENCE) == "had it"


def test_to_thread(pools):
    """The same for what asyncio runs in threads: three staggered blocks, one after another."""
    locks, pool = KeyedLocks(), ThreadPoolExecutor(1)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(pool)
        first, second = (exclusive(locks, "a", timeout=PATIENCE) for _ in range(2))
        await asyncio.to_thread(first.__enter__)
        entering = asyncio.create_task(asyncio.to_thread(second.__enter__))
        while not locks.waiting("a") and not entering.done():
            await asyncio.sleep(0)
        await loop.run_in_executor(pools[0], leave, first)
        await asyncio.wait_for(entering, PATIENCE)
        await asyncio.to_thread(leave, second)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert not locks.held("a")


def test_run_in_threadpool():
    """The same for what starlette and anyio run in threads, on a pool of one thread."""
    anyio = pytest.importorskip("anyio")
    concurrency = pytest.importorskip("starlette.concurrency")
    locks = KeyedLocks()

    async def main():
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        first, second = (exclusive(locks, "a", timeout=PATIENCE) for _ in range(2))
        await concurrency.run_in_threadpool(first.__enter__)
        entering = asyncio.create_task(concurrency.run_in_threadpool(second.__enter__))
        while not locks.waiting("a") and not entering.done():
            await asyncio.sleep(0)
        leave(first)
        await asyncio.wait_for(entering, PATIENCE)
        leave(second)

        def job():
            with exclusive(locks, "a", timeout=PATIENCE), exclusive(locks, "a", timeout=PATIENCE):
                return "not refused"

        with pytest.raises(FlightDeadlock, match="'a' -> 'a'"):
            await concurrency.run_in_threadpool(job)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert not locks.held("a")


def test_a_job_that_was_cancelled_is_over_when_its_thread_serves_another():
    """anyio lets it run to its end and marks nothing; the next job of the thread waits like anybody else."""
    anyio = pytest.importorskip("anyio")
    locks, begun, go = KeyedLocks(), threading.Event(), threading.Event()
    block, threads, cancelled = exclusive(locks, "a"), [], []

    def entering():
        threads.append(threading.get_ident())
        block.__enter__()
        begun.set()
        assert go.wait(PATIENCE)
        with pytest.raises(FlightDeadlock):  # it still runs
            locks("a").__enter__()

    def later(together):
        together.wait(PATIENCE)  # so that each has a thread of its own
        threads.append(threading.get_ident())
        with pytest.raises(FlightTimeout):
            locks("a", timeout=0.01).__enter__()

    async def abandoned():
        try:
            await anyio.to_thread.run_sync(entering, abandon_on_cancel=True)
        except asyncio.CancelledError as error:
            cancelled.append(error)  # and with it, through its traceback, the job's future
            raise

    async def main():
        task = asyncio.create_task(abandoned())
        while not begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        go.set()
        while threads[0] not in threads[1:]:  # until anyio knows that it is free again
            count = len(set(threads)) + 1
            together = threading.Barrier(count)
            await asyncio.gather(*(anyio.to_thread.run_sync(later, together) for _ in range(count)))

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert len(cancelled) == 1
    leave(block)
    assert not locks.held("a")


def test_a_stack_is_handed_to_another_thread(pools):
    """What an `ExitStack` has entered is left on the thread that it is given to, in another context."""
    locks, (one, another) = KeyedLocks(), pools

    def enter():
        with ExitStack() as stack:
            stack.enter_context(locks("a", "b"))
            return stack.pop_all()

    stack = one.submit(enter).result(PATIENCE)
    assert locks.held("a")
    entering = one.submit(locks("b").__enter__)
    until(lambda: locks.waiting("b") or entering.done())
    another.submit(contextvars.Context().run, stack.close).result(PATIENCE)
    entering.result(PATIENCE)
    assert (locks.held("a"), locks.held("b")) == (False, True)


def test_it_is_shown_whose_it_is(pools):
    """`report()` names the thread while it is in the job, and says so when that is over."""

    @single_flight_ttl(ttl=60, key=lambda: "a", name="shown")
    def fetch():
        return 1

    block = exclusive(fetch.locks, "a")
    pools[0].submit(block.__enter__).result(PATIENCE)
    assert "lock 'a': held by thread 'ThreadPoolExecutor" in report()
    with pytest.raises(FlightTimeout):
        pools[0].submit(exclusive(fetch.locks, "a", timeout=0).__enter__).result(PATIENCE)
    thread = pools[0].submit(threading.get_ident).result(PATIENCE)
    line = next(line for line in report().splitlines() if "lock 'a'" in line)
    assert f"a job of thread {thread} that is over, 0 queued" in line
    assert fetch.locks.held("a")
    leave(block)
    assert not fetch.locks.held("a")


def test_nothing_of_the_job_is_kept(pools):
    """Neither its outcome nor what it was given, while its lock is held."""

    class Thing:
        pass

    locks = KeyedLocks()
    block = exclusive(locks, "a")

    def job(thing):
        block.__enter__()
        return thing

    future = pools[0].submit(job, Thing())
    alive = weakref.ref(future.result(PATIENCE))
    del future
    pools[0].submit(int).result(PATIENCE)
    gc.collect()
    assert alive() is None
    leave(block)


def test_nothing_of_a_job_of_anyio_is_kept():
    """Its thread's frame stays, and keeps nothing for having been looked at."""
    anyio = pytest.importorskip("anyio")

    class Thing:
        pass

    locks = KeyedLocks()

    async def main():
        thing = Thing()
        alive = weakref.ref(thing)
        block = exclusive(locks, "a")

        def job(_thing):
            block.__enter__()

        await anyio.to_thread.run_sync(job, thing)
        del thing
        leave(block)
        # The thread has let go of its arguments once it takes the next job.
        await asyncio.get_running_loop().run_in_executor(None, until, lambda: alive() is None)

    asyncio.run(main())


def heirs(ident):
    """Threads, one after another, until one has this identifier."""
    for _ in range(200):
        asked, go, outcome = threading.Event(), [], []

        def run(asked=asked, go=go, outcome=outcome):
            assert asked.wait(PATIENCE)
            if go:
                try:
                    outcome.append(go[0]())
                except BaseException as error:
                    outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        if thread.ident == ident:
            return thread, asked, go, outcome
        asked.set()
        thread.join(PATIENCE)
    return pytest.skip("this system gives no identifier to a second thread")


@pytest.mark.parametrize("kind", ["plain", "context manager", "task"])
def test_an_identifier_that_is_used_again(kind):
    """A new thread is not taken for the one that had its identifier and a lock before."""
    locks, loop, idents = KeyedLocks(), asyncio.new_event_loop(), []
    block = exclusive(locks, "a") if kind == "context manager" else locks("a")

    def enter():
        idents.append(threading.get_ident())
        if kind == "task":
            loop.run_until_complete(block.__aenter__())
        else:
            block.__enter__()

    first = threading.Thread(target=enter)
    first.start()
    first.join(PATIENCE)
    thread, asked, go, outcome = heirs(idents[0])

    def take():
        assert threading.get_ident() == idents[0]
        with locks("a"):
            return "had it"

    go.append(take)
    asked.set()
    if kind != "task":  # a task's is given up: its loop stands still on a thread that has ended
        until(lambda: locks.waiting("a") or outcome)
        assert outcome == []
        leave(block)
    thread.join(PATIENCE)
    assert outcome == ["had it"]
    loop.close()


def test_left_after_its_thread_has_ended(crowd):
    """By whoever has the block."""
    locks = KeyedLocks()
    block = exclusive(locks, "a")
    crowd.add(block.__enter__)
    assert crowd.join() == [None]
    assert locks.held("a")
    leave(block)
    assert not locks.held("a")


def test_a_lock_of_a_whole_thread(pools):
    """What a thread takes before its first job is its own in all of them."""
    locks, entered = KeyedLocks(), []

    def enter():
        block = locks("a")
        block.__enter__()
        entered.append(block)

    with ThreadPoolExecutor(1, initializer=enter) as pool:
        for timeout in (None, PATIENCE):
            with pytest.raises(FlightDeadlock):
                pool.submit(exclusive(locks, "a", timeout=timeout).__enter__).result(PATIENCE)
    leave(entered[0])


def test_the_main_thread_has_one_job():
    """It serves no pool, so nothing is looked for there."""
    assert jobs.job_of_thread(sys._getframe()) is None
    assert jobs.job_of_loop() is None


def test_a_future_that_does_not_say_how_it_stands_is_not_done(crowd):
    """It may be another library's; on its own thread the frames tell."""

    class Unknown:
        pass

    future = Unknown()
    job = jobs.Job(life_of_this_thread(), future)
    crowd.add(job.is_over)
    assert crowd.join() == [False]
    assert job.is_over()


def test_the_job_is_found_below_what_a_pool_runs_it_in():
    """The pools of Python 3.14 have a `run` inside of the job's, which knows no future."""
    pool = {"__name__": "concurrent.futures.thread"}
    exec("def run(self, function): return function()", pool)
    run = pool["run"]
    item, context = SimpleNamespace(future=object()), SimpleNamespace()
    assert run(item, lambda: run(context, jobs.future_of_this_thread)) is item.future
    assert run(context, jobs.future_of_this_thread) is None


def test_a_variable_of_the_users_is_no_job():
    """Whatever is named as in the pools' own frames."""

    def run():
        future = object()
        return jobs.future_of_this_thread(), future

    assert run()[0] is None


def test_a_thread_of_no_pool_has_one_job(crowd, monkeypatch):
    """It is not looked through for a pool's each time that it takes a lock."""

    def job():
        return jobs.job_of_thread(sys._getframe())

    def twice():
        first = job()
        monkeypatch.delattr(jobs, "future_of_this_thread")
        return job() is first

    crowd.add(twice)
    assert crowd.join() == [True]
