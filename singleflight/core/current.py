"""The flight that the calling code runs in, and how a function keeps the value that is there.

Who runs a user's function is found in the frames of the caller's thread: each of the few functions that do
says, by `runs`, which of its local variables knows the flight. So nothing is noted on the way to the
function, and only who asks pays. Code in a task or thread that the flight's own task has started is not below
it in the frames; there the context leads back.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..common.errors import SingleFlightError
from ..common.keys import plain
from ..common.messages import shown
from ..locks.waiters import descends
from .call import LEAD, Call
from .flight import Flight
from .shareable import check_shareable

if TYPE_CHECKING:
    from ..storage.entry import Entry
    from ..telemetry.views import CurrentFlight

__all__ = ["Unchanged", "current_flight", "landing_value", "runs"]


class _Unchanged:
    """See `Unchanged`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Unchanged"

    def __reduce__(self) -> str:
        return "Unchanged"  # it is one object, copied and pickled too


Unchanged: Any = _Unchanged()
"""What a function returns, or a loader for one item, to keep the value that is there for another ttl.

It counts as a call. Its callers receive the value that was stored when the flight began, which is
`current_flight().previous`. That value lands anew: `cache_if`, `ttl` and `tags` are asked again. Where there
was none, the flight fails with `SingleFlightError`, which its followers and `failure_ttl` see like any other.

>>> from singleflight import Unchanged, current_flight, single_flight_ttl
>>> @single_flight_ttl(ttl=60)
... def rate(currency):
...     previous = current_flight().previous
...     return 1.08 if previous is None else Unchanged
>>> rate("EUR"), rate.refresh("EUR"), rate.stats().calls
(1.08, 1.08, 2)
"""


def current_flight() -> CurrentFlight | None:
    """Return the flight that this code runs in; None outside.

    The innermost one, where a decorated function calls another. Inside `bypass()`, or with the library
    switched off, there is none. Tasks and `asyncio.to_thread` threads that a coroutine function starts run in
    its flight too, until it has landed. A thread that a plain function starts does not.

    Safe to call from any thread and task. Costs a walk over the frames of the calling thread.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = _runners.get(id(frame.f_code))
        if name is not None:
            return _view(frame.f_locals.get(name))
        frame = frame.f_back
    context = descends.get()
    work: Any = context() if isinstance(context, weakref.ref) else None
    return _view(None if work is None else getattr(work, "batch", work.flight))


def landing_value(
    name: str, flight: Flight, value: Any, references: int = 0, how: str | Callable[[], str] = "returned"
) -> Any:
    """Return what lands: the value, or what is there already; drivers ask where its type is not `accepted`.

    Raises what `check_shareable` does, which has the other arguments, and `SingleFlightError` if there is
    nothing to keep.
    """
    if value is Unchanged:
        return _kept(name, flight)
    check_shareable(name, value, how, references)
    return value


def _kept(name: str, flight: Flight) -> Any:
    """Return the value that `Unchanged` stands for."""
    record = flight.previous
    if record is None or record.error is not None:
        raise SingleFlightError(
            f"{name}: Unchanged was returned for {shown(flight.key)}, and there is no value to keep; "
            f"`current_flight().previous` tells whether there is one"
        )
    return record.value


F = TypeVar("F", bound=Callable[..., Any])
_runners: dict[int, str] = {}  # by the identity of their code, which lives as long as they do


def runs(local: str) -> Callable[[F], F]:
    """Decorator of a function that runs a user's, in the flight that this local variable knows, if any."""

    def noted(function: F) -> F:
        code: CodeType = function.__code__
        _runners[id(code)] = local
        return function

    return noted


class Flown(Protocol):
    """A batch: the flights that its loader is running for."""

    def called(self) -> list[tuple[Any, Flight]]:
        """Each with its item."""
        ...


def _view(flown: Flown | Flight | Call | None) -> CurrentFlight | None:
    from ..telemetry.views import CurrentFlight  # only whoever asks needs it

    if isinstance(flown, Call):
        return _view(flown.flight if flown.decision is LEAD else None)
    if isinstance(flown, Flight):
        ended = flown.has_ended()
        return None if ended else CurrentFlight(plain(flown.key), flown.kind, _entry_before(flown), {})
    called = [] if flown is None else flown.called()
    if not called:
        return None
    entries = {item: entry for item, flight in called if (entry := _entry_before(flight)) is not None}
    return CurrentFlight(tuple(plain(flight.key) for _, flight in called), "bulk", None, entries)


def _entry_before(flight: Flight) -> Entry[Any] | None:
    record = flight.previous
    if record is None or record.error is not None:
        return None
    return record.snapshot(flight.cache.time_or(flight.started))
