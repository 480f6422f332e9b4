"""Exit and fork with flights in progress: neither hangs, and neither prints a traceback."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import singleflight

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

HEAD = """
import asyncio, os, select, signal, sys, threading, time, warnings
from singleflight import KeyedLocks, drain_sync, single_flight_ttl
from singleflight.testing import Recorder
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn about forking with threads

def run_in_thread(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread

def in_child(run):
    '''What `run` returns in a forked child, as text.'''
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr(run()).encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    try:
        if not select.select([reader], [], [], 15)[0]:
            return "the child hangs"
        return os.read(reader, 10_000).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


def run(text, timeout=25):
    """What a program prints, to either stream; it must end by itself, with success."""
    program = HEAD + textwrap.dedent(text)
    ours = str(Path(singleflight.__file__).parents[1])
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", program],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": ours},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"it hangs; it printed {error.stdout!r} and {error.stderr!r}") from None
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


LOOP_IN_THREAD = """
    loop = asyncio.new_event_loop()
    run_in_thread(loop.run_forever)
"""


def test_exit_while_threads_are_in_flight():
    """A leader and its followers in daemon threads do not keep the process, nor complain."""
    assert (
        run("""
        seen = Recorder()

        @single_flight_ttl(ttl=60, listener=seen)
        def fetch():
            threading.Event().wait()

        for _ in range(4):
            run_in_thread(fetch)
        seen.wait_for("wait", 3)
        print("end")
    """)
        == "end\n"
    )


def test_exit_while_tasks_are_in_flight():
    """A loop in a daemon thread, with leader and followers, is left as it is."""
    assert (
        run(
            LOOP_IN_THREAD
            + """
    seen = Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        await asyncio.Event().wait()

    for _ in range(4):
        asyncio.run_coroutine_threadsafe(fetch(), loop)
    seen.wait_for("wait", 3)
    print("end")
    """
        )
        == "end\n"
    )


def test_exit_while_both_wait_for_each_other():
    """Threads that follow a task, and tasks that follow a thread."""
    assert (
        run(
            LOOP_IN_THREAD
            + """
    seen = Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    def plain(key):
        threading.Event().wait()

    @plain.twin
    async def coroutine(key):
        await asyncio.Event().wait()

    run_in_thread(plain, "by a thread")
    asyncio.run_coroutine_threadsafe(coroutine("by a task"), loop)
    seen.wait_for("fetch", 2)
    for key in ("by a thread", "by a task"):
        run_in_thread(plain, key)
        asyncio.run_coroutine_threadsafe(coroutine(key), loop)
    seen.wait_for("wait", 4)
    print("end")
    """
        )
        == "end\n"
    )


def test_asyncio_run_ends_while_a_flight_is_in_progress():
    """asyncio.run cancels what is left, callers and work, without a word, and the key is free after."""
    assert (
        run("""
        numbers, begun = iter(range(9)), asyncio.Event()

        @single_flight_ttl(ttl=60, max_idle_locks=0)
        async def fetch():
            number = next(numbers)
            if number == 0:
                begun.set()
                await asyncio.Event().wait()
            return number

        async def main():
            tasks = [asyncio.create_task(fetch()) for _ in range(3)]
            await begun.wait()

        asyncio.run(main())
        print(fetch.flights(), len(fetch.locks), asyncio.run(fetch()))
    """)
        == "() 0 1\n"
    )


def test_a_keyboard_interrupt_ends_asyncio_run():
    """Ctrl-C while a flight is in progress: KeyboardInterrupt out of asyncio.run, and no other message."""
    assert (
        run("""
        begun = asyncio.Event()

        @single_flight_ttl(ttl=60)
        async def fetch():
            begun.set()
            await asyncio.Event().wait()

        async def main():
            tasks = [asyncio.create_task(fetch()) for _ in range(3)]
            await begun.wait()
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.gather(*tasks)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted", fetch.flights())
    """)
        == "interrupted ()\n"
    )


@needs_fork
def test_a_childs_keys_values_and_counts():
    """In the child the key is free for both colours, stored values are there, and counts are its own."""
    assert (
        run(
            LOOP_IN_THREAD
            + """
    seen, parent = Recorder(wants={"fetch", "wait"}), os.getpid()
    open_ = asyncio.Event()

    @single_flight_ttl(ttl=60, listener=seen)
    async def coroutine(key):
        if key == "slow" and os.getpid() == parent:
            await open_.wait()
        return key

    @coroutine.twin
    def plain(key):
        return key

    plain("quick")
    flight = asyncio.run_coroutine_threadsafe(coroutine("slow"), loop)
    seen.wait_for("fetch", 2)
    follower = run_in_thread(plain, "slow")
    seen.wait_for("wait")

    def tasks():
        values = asyncio.run(coroutine("quick")), asyncio.run(coroutine("slow")), coroutine.flights()
        stats = coroutine.stats()
        return values, stats.hits, stats.fetches, stats.waits, stats.in_flight, drain_sync(timeout=5)

    def threads():
        values = plain("quick"), plain("slow"), plain.flights()
        stats = plain.stats()
        return values, stats.hits, stats.fetches, stats.waits, stats.in_flight, drain_sync(timeout=5)

    print(in_child(tasks))
    print(in_child(threads))
    loop.call_soon_threadsafe(open_.set)
    print(flight.result(10), coroutine.stats().in_flight)
    """
        )
        == "(('quick', 'slow', ()), 1, 1, 0, 0, True)\n" * 2 + "slow 0\n"
    )


@needs_fork
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio runs no more tasks in a child forked by one")
def test_a_fork_inside_a_coroutine():
    """The frame in the child stores nothing there; what it forked from goes on in the parent."""
    assert (
        run("""
        @single_flight_ttl(ttl=60)
        async def fetch():
            return os.fork()

        reader, writer = os.pipe()

        async def main():
            child = await fetch()
            if child == 0:
                os.write(writer, repr((fetch.entry(), fetch.flights(), len(fetch.locks))).encode())
                os._exit(0)
            return child

        child = asyncio.run(main())
        assert select.select([reader], [], [], 15)[0], "the child hangs"
        print(os.read(reader, 1000).decode(), fetch.entry().value == child)
        os.waitpid(child, 0)
    """)
        == "(None, (), 0) True\n"
    )


@needs_fork
def test_a_fork_inside_a_thread_that_tasks_follow():
    """The child's frame returns to its caller and changes nothing; the parent's followers get the value."""
    assert (
        run(
            LOOP_IN_THREAD
            + """
    seen, reader_writer = Recorder(), os.pipe()

    @single_flight_ttl(ttl=60, listener=seen)
    def plain():
        seen.wait_for("wait", 2)
        return os.fork()

    @plain.twin
    async def coroutine():
        raise AssertionError("a thread was first")

    values = []

    def lead():
        child = plain()
        if child == 0:
            told = plain.entry(), plain.flights(), len(plain.locks)
            os.write(reader_writer[1], repr(told).encode())
            os._exit(0)
        values.append(child)

    leader = run_in_thread(lead)
    seen.wait_for("fetch")
    followers = [asyncio.run_coroutine_threadsafe(coroutine(), loop) for _ in range(2)]
    values += [follower.result(10) for follower in followers]
    leader.join(10)
    assert select.select([reader_writer[0]], [], [], 15)[0], "the child hangs"
    print(os.read(reader_writer[0], 1000).decode(), len(set(values)), len(values))
    """
        )
        == "(None, (), 0) 1 3\n"
    )


@needs_fork
def test_locks_of_tasks_are_free_in_the_child():
    """What tasks of other threads held or waited for is nobody's there."""
    assert (
        run(
            LOOP_IN_THREAD
            + """
    locks = KeyedLocks(max_idle=0)

    async def hold():
        async with locks("theirs"):
            await asyncio.Event().wait()

    for _ in range(3):
        asyncio.run_coroutine_threadsafe(hold(), loop)
    while locks.waiting("theirs") < 2:
        time.sleep(0.001)

    async def take():
        async with locks("theirs", timeout=5):
            return locks.held("theirs"), locks.waiting("theirs")

    def child():
        return locks.held("theirs"), locks.waiting("theirs"), asyncio.run(take()), len(locks)

    print(in_child(child), locks.held("theirs"), locks.waiting("theirs"))
    """
        )
        == "(False, 0, (True, 0), 0) True 2\n"
    )


@needs_fork
def test_a_pre_fork_server():
    """The parent warms the cache, forks workers while flights go on, and each serves both colours."""
    assert (
        run(
            LOOP_IN_THREAD
            + """
    seen, parent = Recorder(wants={"fetch"}), os.getpid()

    @single_flight_ttl(ttl=60, listener=seen)
    def plain(key):
        if key == "slow" and os.getpid() == parent:
            threading.Event().wait()
        return os.getpid()

    @plain.twin
    async def coroutine(key):
        if key == "slow too" and os.getpid() == parent:
            await asyncio.Event().wait()
        return os.getpid()

    warm = plain("warm")
    run_in_thread(plain, "slow")
    asyncio.run_coroutine_threadsafe(coroutine("slow too"), loop)
    seen.wait_for("fetch", 3)

    def serve():
        async def requests():
            asked = [coroutine(key) for key in ("warm", "slow", "slow too", "own") for _ in range(10)]
            asked += [asyncio.to_thread(plain, key) for key in ("warm", "slow", "slow too", "own")]
            return await asyncio.gather(*asked)

        pids = asyncio.run(requests())
        stats = plain.stats()
        assert stats.hits + stats.waits + stats.fetches == 44, stats
        return sorted({pid == os.getpid() for pid in pids}), pids.count(warm), stats.calls

    for _ in range(3):
        print(in_child(serve))
    """
        )
        == "([False, True], 11, 3)\n" * 3
    )


@needs_fork
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method, tmp_path):
    """Worker processes call both colours of a decorated function, also while a flight goes on."""
    (tmp_path / "workers_for_this_test.py").write_text(
        textwrap.dedent("""
        import asyncio, os, threading
        from singleflight import single_flight_ttl

        PARENT = os.getpid()

        @single_flight_ttl(ttl=60)
        async def coroutine(key):
            if os.environ.get("HANGS") == str(os.getpid()):
                await asyncio.Event().wait()
            return key, os.getpid()

        @coroutine.twin
        def plain(key):
            return key, os.getpid()

        def work(key):
            first = asyncio.run(coroutine(key))
            assert plain(key) == first
            return first
        """)
    )
    assert (
        run(f"""
        if __name__ == "__main__":
            import multiprocessing
            sys.path.insert(0, {str(tmp_path)!r})
            os.environ["PYTHONPATH"] = {str(tmp_path)!r} + os.pathsep + os.environ["PYTHONPATH"]
            os.environ["HANGS"] = str(os.getpid())
            import workers_for_this_test as workers

            loop = asyncio.new_event_loop()
            run_in_thread(loop.run_forever)
            asyncio.run_coroutine_threadsafe(workers.coroutine(1), loop)
            while not workers.coroutine.flights():
                time.sleep(0.001)
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                results = pool.map_async(workers.work, range(4), chunksize=1).get(20)
            print([key for key, pid in results], all(pid != os.getpid() for _, pid in results))
    """)
        == "[0, 1, 2, 3] True\n"
    )
