"""Many callers at once, for tests: they start together, and the outcome of each is reported."""

from __future__ import annotations

import functools
import inspect
import math
import reprlib
import types
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from ..common.durations import seconds
from ..common.messages import shown
from ..core.controls import stats
from ..core.functions import is_coroutine_function
from ..process.registry import all_caches
from ..telemetry.views import Stats
from .callers import Caller, in_tasks, in_threads

__all__ = ["Caller", "Stampede", "stampede"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
SHOWN = 20  # the rows of the table; of more callers it shows the first and the last ones


class Stampede(Generic[R_co]):
    """The result of `stampede`. `print` shows one line for each caller (the first and last ones of many).

    `callers` has a `Caller` for each, in order. `seconds` is the time from their release until the last of
    them had its outcome.
    """

    def __init__(self, name: str, callers: Sequence[Caller[R_co]], seconds: float, calls: int | str) -> None:
        self.name = name
        self.callers: tuple[Caller[R_co], ...] = tuple(callers)
        self.seconds = seconds
        self._calls = calls  # or why they are not known

    @property
    def calls(self) -> int:
        """How many times the counted function ran, for any caller, during the stampede.

        Raises `LookupError`, with the reason, if the number is not known.
        """
        if isinstance(self._calls, str):
            raise LookupError(f"calls: not known, because {self._calls}")
        return self._calls

    @property
    def outcomes(self) -> list[Any]:
        """What each caller got, in order: the value, or the exception itself."""
        return [caller.outcome for caller in self.callers]

    @property
    def values(self) -> list[R_co]:
        """The returned values, in the order of the callers, without those that received an exception."""
        return [caller.value for caller in self.callers if caller.error is None]  # type: ignore[misc]

    @property
    def errors(self) -> list[BaseException]:
        """The exceptions that callers received, in the order of the callers."""
        return [caller.error for caller in self.callers if caller.error is not None]

    def raise_first(self) -> None:
        """Raise the first of `errors`, if there is one."""
        for error in self.errors:
            raise error

    def __repr__(self) -> str:
        return f"<Stampede: {self._summary()}>"

    def __str__(self) -> str:
        rows = self.callers if len(self.callers) <= SHOWN else self.callers[: SHOWN - 5]
        lines = [self._summary(), f"{'caller':>6}  {'waited':>10}  got", *map(_row, rows)]
        if len(self.callers) > SHOWN:
            lines += [f"   ...  ({len(self.callers) - SHOWN} more)", *map(_row, self.callers[-5:])]
        return "\n".join(lines)

    def _summary(self) -> str:
        calls = "calls not counted" if isinstance(self._calls, str) else _many(self._calls, "call")
        got = f"{_many(len(self.values), 'value')}, {_many(len(self.errors), 'error')}"
        return f"{_many(len(self.callers), 'caller')} of {self.name}: {calls}, {got}, in {self.seconds:.4f} s"


def _many(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _row(caller: Caller[Any]) -> str:
    got = " ".join(_short.repr(caller.outcome).split())
    return f"{caller.number:>6}  {caller.waited:>8.4f} s  {'' if caller.error is None else 'raised '}{got}"


_short = reprlib.Repr()
_short.maxother = _short.maxstring = 60


@overload
def stampede(  # type: ignore[overload-overlap]  # checkers take the first that fits
    fn: Callable[..., Coroutine[Any, Any, R]],
    n: int = 10,
    *,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    counting: Callable[..., object] | None = None,
    timeout: float | timedelta = 10.0,
) -> Coroutine[Any, Any, Stampede[R]]: ...
@overload
def stampede(
    fn: Callable[..., R],
    n: int = 10,
    *,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    counting: Callable[..., object] | None = None,
    timeout: float | timedelta = 10.0,
) -> Stampede[R]: ...
def stampede(
    fn: Callable[..., Any],
    n: int = 10,
    *,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    counting: Callable[..., object] | None = None,
    timeout: float | timedelta = 10.0,
) -> Any:
    """Call `fn` from `n` threads, or tasks, at the same moment, and report what each of them got.

    A plain function is called from threads, and its `Stampede` is returned. For a coroutine function this
    returns a coroutine, whose tasks run on the loop that awaits it: `await stampede(fn)` in a task,
    `asyncio.run(stampede(fn))` elsewhere.

    Args:
        fn: the function that every caller calls: decorated or not, a bound method, a `functools.partial`.
        n: the number of callers, 1 or more.
        args: the positional arguments of each call.
        kwargs: its keyword arguments.
        counting: what `Stampede.calls` counts. By default `fn`, if it is a decorated function (or a bound
            method, a `partial` or a `functools.wraps` wrapper of one). Otherwise all decorated functions of
            the process that are called meanwhile, as for a lambda around one; if there are none, the runs of
            `fn` itself. Pass a decorated function to count that one alone, or a function without arguments
            that returns the number of calls so far.
        timeout: how many seconds all of them together may take.

    Returns a `Stampede`. Any exception of a caller, also `SystemExit` and `KeyboardInterrupt`, is an outcome
    and is not raised here.

    Raises `TimeoutError` when the time is up, naming the callers that hang and showing where the first of
    them is. The tasks are then cancelled; the threads are daemons and stay behind. `TypeError` and
    `ValueError` name the argument. A plain function that returns an awaitable raises `TypeError` too.

    Each thread, like a task, runs in a copy of the context in which `stampede` is called. This call waits for
    the threads, so on the thread of an event loop write `await asyncio.to_thread(stampede, fn)`.

    >>> from singleflight import single_flight_ttl
    >>> @single_flight_ttl(ttl=60)
    ... def price(symbol):
    ...     return 984.75
    >>> result = stampede(price, n=3, args=("ASML",))
    >>> result.calls, result.outcomes
    (1, [984.75, 984.75, 984.75])
    >>> print(result)
    3 callers of price: 1 call, 3 values, 0 errors, in 0.0... s
    caller      waited  got
         0    0.0... s  984.75
         1    0.0... s  984.75
         2    0.0... s  984.75
    """
    if not callable(fn):
        raise TypeError(f"fn: expected a function, got {shown(fn)}")
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n: expected an int, got {shown(n)}")
    if n < 1:
        raise ValueError(f"n: there must be at least 1 caller, got {n}")
    if isinstance(args, str | bytes) or not isinstance(args, Iterable):
        raise TypeError(f"args: expected a tuple of arguments, got {shown(args)}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs: expected a dict of arguments, got {shown(kwargs)}")
    patience = seconds(timeout, "timeout")
    if not 0 < patience < math.inf:
        raise ValueError(f"timeout: must be more than 0 and not endless, got {shown(timeout)}")
    call = functools.partial(fn, *args, **(kwargs or {}))
    counter = _Counter(fn, n, counting)
    if is_coroutine_function(fn):
        return _of_tasks(call, n, counter, patience)
    callers, took = in_threads(call, n, patience)
    _refuse_awaitables(callers, counter.name)
    return Stampede(counter.name, callers, took, counter.calls())


async def _of_tasks(call: Any, n: int, counter: _Counter, patience: float) -> Stampede[Any]:
    counter.begin()
    callers, took = await in_tasks(call, n, patience)
    return Stampede(counter.name, callers, took, counter.calls())


class _Counter:
    """Counts how many times something runs from now on."""

    def __init__(self, fn: Any, callers: int, counting: Any) -> None:
        self.name = _name(fn)
        self._source = _decorated(fn) if counting is None else counting
        # Whoever calls `fn` calls what is counted; of what was named here that is not known.
        self._received = callers if counting is None else 1
        if counting is not None and not callable(counting):
            raise TypeError(f"counting: expected a decorated function or a function, got {shown(counting)}")
        self._fn, self._callers = fn, callers
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._before = self._now()
        self._before_all = _counts_of_all() if self._source is None else {}

    def _now(self) -> tuple[int, int]:
        """Return how many times it has run, and how many calls it has received."""
        if self._source is None:
            return 0, 0
        if not _is_decorated(self._source):
            number = self._source()
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"counting: expected it to return an int, got {shown(number)}")
            return number, 0
        return _counts(self._source.stats())

    def calls(self) -> int | str:
        """Return the difference, or the reason why it is not known."""
        if self._source is None:
            return self._calls_of_any()
        calls, received = (now - before for now, before in zip(self._now(), self._before, strict=True))
        if calls < 0 or received < 0:
            return "the count was set back meanwhile"
        if _is_decorated(self._source) and received < self._received:
            return f"{_name(self._source)} has not counted its callers: was it called, and not in a bypass()?"
        return calls

    def _calls_of_any(self) -> int | str:
        """Return the calls of all decorated functions that were called or, if none was, of `fn` itself."""
        total, called = 0, False
        for cache, now in _counts_of_all().items():
            before = self._before_all.get(cache, (0, 0))
            total += now[0] - before[0]
            called = called or now[1] > before[1]
            if now[0] < before[0] or now[1] < before[1]:
                return "a count was set back meanwhile"
        if called:
            return total
        if _runs_itself(self._fn):
            return self._callers
        return f"{self.name} is not a decorated function; say with counting= what is to be counted"


def _counts(stats: Stats) -> tuple[int, int]:
    """Return the executions and the calls received."""
    return stats.calls, stats.hits + stats.stale_hits + stats.misses + stats.errors + stats.timeouts


def _counts_of_all() -> dict[Any, tuple[int, int]]:
    """Return the same for every living decorated function."""
    return {cache: _counts(stats(cache)) for cache in all_caches()}


def _runs_itself(fn: Any) -> bool:
    """Return True if calling it runs it, as far as can be seen: a plain function that wraps no other."""
    while isinstance(fn, functools.partial | types.MethodType):
        fn = fn.func if isinstance(fn, functools.partial) else fn.__func__
    return isinstance(fn, types.FunctionType) and not hasattr(fn, "__wrapped__")


def _is_decorated(function: Any) -> bool:
    """Return True if its class has the control methods; a mock has every attribute itself."""
    return hasattr(type(function), "cache_parameters") and hasattr(type(function), "flights")


def _decorated(fn: Any) -> Any:
    """Return the decorated function that calling `fn` calls, or None."""
    while fn is not None and not _is_decorated(fn):
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, types.MethodType) and _is_decorated(fn.__self__):
            return fn.__self__  # `refresh` of a decorated function
        else:
            fn = vars(fn).get("__wrapped__") if isinstance(fn, types.FunctionType) else None
    return fn


def _name(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", None) or reprlib.repr(fn)


def _refuse_awaitables(callers: Iterable[Caller[Any]], name: str) -> None:
    awaitables = [caller.value for caller in callers if inspect.isawaitable(caller.value)]
    for awaitable in awaitables:
        if inspect.iscoroutine(awaitable):
            awaitable.close()
    if awaitables:
        told = f"fn: {name} returns {type(awaitables[0]).__name__} objects and is not a coroutine function"
        raise TypeError(f"{told}; pass the coroutine function itself and args=, or an `async def`")
