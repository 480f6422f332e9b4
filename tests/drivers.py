"""One body for both colours, and three ways to call it: threads, tasks, and both at once.

A test writes its bodies and scripts as `async def`. Where there is no event loop they are run to their end by
hand (`blocking`): what they await is a `Gate` or a `Pair`, and both block there instead of suspending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from singleflight import KeyedLocks, single_flight_ttl

PATIENCE = 10.0
_local = threading.local()


def suspends() -> bool:
    """Whether what runs here may be suspended: on a loop's thread, and not inside `blocking`."""
    if getattr(_local, "depth", 0):
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def blocking(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends; what it returns."""
    _local.depth = getattr(_local, "depth", 0) + 1
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    finally:
        _local.depth -= 1
        coroutine.close()
    raise AssertionError("the coroutine suspended in a thread")


def until(condition: Callable[[], object]) -> None:
    """Return once the condition is true; fail loudly when it never is."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s in vain"
        time.sleep(0.001)


async def eventually(condition: Callable[[], object]) -> None:
    """The same in a task, which lets the others run meanwhile."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s in vain"
        await asyncio.sleep(0)


class Gate:
    """Shut until it is set. `await` it on any loop and, through `blocking`, in any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._wanted: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def set(self) -> None:
        with self._lock:
            self._event.set()
            wanted, self._wanted = self._wanted, []
        for loop, future in wanted:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lambda future=future: future.done() or future.set_result(None))

    def is_set(self) -> bool:
        return self._event.is_set()

    def pass_(self) -> None:
        assert self._event.wait(PATIENCE), "the gate was never opened"

    def __await__(self) -> Generator[Any, None, None]:
        if not suspends():
            self.pass_()
            return
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            if self._event.is_set():
                return
            self._wanted.append((loop, future))
        yield from future.__await__()


async def stubbornly(gate: Gate) -> None:
    """Await a gate through any number of cancellations."""
    while not gate.is_set():
        try:
            await gate
        except asyncio.CancelledError:
            continue


async def give_way() -> None:
    """Let others run: the tasks of this loop, or other threads."""
    if suspends():
        await asyncio.sleep(0)
    else:
        time.sleep(0)


class Holding:
    """`async with` it to hold keys of a registry, with the lock statement that fits: awaited or blocking."""

    def __init__(self, locks: KeyedLocks, *keys: Any, timeout: float | None = None) -> None:
        self._locks, self._keys, self._timeout = locks, keys, timeout

    async def __aenter__(self) -> None:
        self._statement, self._awaited = self._locks(*self._keys, timeout=self._timeout), suspends()
        if self._awaited:
            await self._statement.__aenter__()
        else:
            self._statement.__enter__()

    async def __aexit__(self, *error: object) -> None:
        if self._awaited:
            await self._statement.__aexit__(*error)
        else:
            self._statement.__exit__(*error)


class Executions:
    """Numbers the executions of a body from 0, and lets a test wait until so many have begun.

    A `fetch` event says that a flight begins; its work may start a moment later.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.begun = 0

    def begin(self) -> int:
        """The number of this execution; called by the body before it awaits anything."""
        with self._changed:
            self.begun += 1
            self._changed.notify_all()
            return self.begun - 1

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.begun >= count, PATIENCE), (
                f"only {self.begun} have begun"
            )


class LoopThread:
    """An event loop in a thread of its own; `reports` is what its exception handler was told."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self.reports: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.reports.append(context))
        self._stopping = self.killed = False
        self.thread = threading.Thread(target=self._run, daemon=True, name="loop")
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._stopping:
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):  # what a task lets out ends `run_forever`
                continue

    def start(self, run: Callable[..., Any], *args: Any) -> Started:
        """A task of `run(*args)`, whose outcome is a value or the exception itself."""
        return Started(self.loop, run, args)

    def run(self, run: Callable[..., Any], *args: Any, timeout: float = PATIENCE) -> Any:
        """Run it as a task, and return or raise what it did."""
        outcome = self.start(run, *args).outcome(timeout)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def stop(self) -> None:
        """Stop the loop and end its thread; tasks stay as they are."""
        self._stopping = True
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(PATIENCE)
            assert not self.thread.is_alive(), "the loop's thread hangs"

    def kill(self) -> None:
        """Close the loop in mid-flight, as a thread that dies without tidying up does."""
        self.killed = True
        self.stop()
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.loop.close()

    def close(self) -> None:
        """Cancel what is left, stop and close."""
        if self.loop.is_closed():
            return
        if self.thread.is_alive() and not self._stopping:
            self.start(_cancel_the_others).outcome()
        self.stop()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


async def _cancel_the_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=2)


class Started:
    """A caller that is a task on some loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Callable[..., Any], args: tuple[Any, ...]):
        self.loop = loop
        self.task: asyncio.Task[Any] | None = None
        self._future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        loop.call_soon_threadsafe(self._begin, run, args)

    def _begin(self, run: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.task = self.loop.create_task(self._run(run, args))
        self.task.add_done_callback(self._ended)

    async def _run(self, run: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            return await run(*args)
        except BaseException as error:
            return error

    def _ended(self, task: asyncio.Task[Any]) -> None:
        cancelled = task.cancelled()  # before it began
        self._future.set_result(asyncio.CancelledError() if cancelled else task.result())

    def cancel(self) -> None:
        """Cancel the task, from any thread."""
        self.loop.call_soon_threadsafe(lambda: self.task and self.task.cancel())

    def done(self) -> bool:
        return self._future.done()

    def outcome(self, timeout: float = PATIENCE) -> Any:
        try:
            return self._future.result(timeout)
        except TimeoutError:
            raise AssertionError(f"a task hangs: {self.task!r}") from None


class InThread:
    """A caller that is a thread."""

    def __init__(self, run: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._outcome: Any = None
        self._run, self._args = run, args
        self.thread = threading.Thread(target=self._call, daemon=True)
        self.thread.start()

    def _call(self) -> None:
        run, args = self._run, self._args
        del self._run, self._args
        try:
            self._outcome = blocking(run(*args))
        except BaseException as error:
            self._outcome = error

    def done(self) -> bool:
        return not self.thread.is_alive()

    def outcome(self, timeout: float = PATIENCE) -> Any:
        self.thread.join(timeout)
        assert not self.thread.is_alive(), f"{self.thread.name} hangs"
        return self._outcome


class Pair:
    """A decorated function in one colour or both: `await pair(...)` calls the one that fits."""

    def __init__(self, plain: Any, coroutine: Any) -> None:
        self.plain, self.coroutine = plain, coroutine

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.coroutine is None or (self.plain is not None and not suspends()):
            return self.plain(*args, **kwargs)
        return await self.coroutine(*args, **kwargs)

    @property
    def refresh(self) -> Pair:
        plain, coroutine = (each and each.refresh for each in (self.plain, self.coroutine))
        return Pair(plain, coroutine)

    def of(self, instance: Any) -> Pair:
        """The bound methods."""
        plain, coroutine = (
            each and each.__get__(instance, type(instance)) for each in (self.plain, self.coroutine)
        )
        return Pair(plain, coroutine)

    def __getattr__(self, name: str) -> Any:  # the control surface
        return getattr(self.plain if self.plain is not None else self.coroutine, name)


class Driver:
    """Decorates bodies, starts callers, and waits for their outcomes, in one of several ways.

    `turns` says what the callers are, in turn and again from the start: "thread", or a loop's number.
    """

    def __init__(self, *turns: str | int) -> None:
        self.turns = turns
        self.loops = [LoopThread() for _ in {turn for turn in turns if turn != "thread"}]
        self.callers: list[Any] = []
        self._gates: list[Gate] = []

    # -- the function --------------------------------------------------------------------------------

    def decorate(self, body: Callable[..., Any], /, **options: Any) -> Pair:
        """The body, decorated in the colours that this driver's callers have."""
        options = {"ttl": 60, **options}
        if "thread" not in self.turns:
            return Pair(None, single_flight_ttl(**options)(body))
        plain = single_flight_ttl(**options)(self._plain(body))
        return Pair(plain, plain.twin(body) if self.loops else None)

    def _plain(self, body: Callable[..., Any]) -> Callable[..., Any]:
        def plain(*args: Any, **kwargs: Any) -> Any:
            return blocking(body(*args, **kwargs))

        plain.__name__, plain.__qualname__ = body.__name__, body.__qualname__
        plain.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
        return plain

    def gate(self) -> Gate:
        """A gate that is open at the end of the test, whatever happens."""
        self._gates.append(Gate())
        return self._gates[-1]

    # -- the callers ---------------------------------------------------------------------------------

    def start(self, run: Callable[..., Any], *args: Any, count: int = 1) -> Any:
        """One more caller, or several; the last one."""
        for _ in range(count):
            turn = self.turns[len(self.callers) % len(self.turns)]
            caller = InThread(run, args) if turn == "thread" else self.loops[int(turn)].start(run, *args)
            self.callers.append(caller)
        return self.callers[-1]

    def outcomes(self) -> list[Any]:
        """What every caller returned or raised, in the order of their start."""
        return [caller.outcome() for caller in self.callers]

    def call(self, run: Callable[..., Any], *args: Any) -> Any:
        """One more caller, and what it returned or raised."""
        outcome = self.start(run, *args).outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def reports(self) -> list[dict[str, Any]]:
        """What the loops' exception handlers were told."""
        return [report for loop in self.loops for report in loop.reports]

    def close(self) -> None:
        """Open every gate, wait for the callers, end the loops."""
        try:
            for gate in self._gates:
                gate.set()
            for caller in self.callers:
                caller.outcome()
        finally:
            for loop in self.loops:
                loop.close()
