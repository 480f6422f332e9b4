"""One call for many callers: a TTL cache and keyed locks in one decorator."""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from .common.errors import FlightDeadlock, FlightTimeout, SingleFlightError, UnhashableKey
from .common.keys import InstanceKey
from .core.current import Unchanged, current_flight
from .core.options import is_not_none
from .decorator.accelerate import accelerated
from .decorator.decorate import single_flight_ttl
from .decorator.function import BoundSingleFlight, SingleFlightFunction, caches
from .decorator.loader import BoundBulkLoader, BulkLoader
from .drivers.pool import configure_renewal
from .locks.keyed import KeyedLocks
from .process.drain import drain, drain_sync
from .process.registry import invalidate_tag, report
from .storage.ttl import AdaptiveTTL, Landing

if _TYPE_CHECKING:
    from .core.answers import Answer
    from .storage.entry import Entry
    from .telemetry.events import Event, Execution, Listener, LoggingListener
    from .telemetry.views import CurrentFlight, Explanation, FleetExplanation, FlightInfo, Stats

__version__ = "0.1.0"

__all__ = [
    "AdaptiveTTL",
    "Answer",
    "BoundBulkLoader",
    "BoundSingleFlight",
    "BulkLoader",
    "CurrentFlight",
    "Entry",
    "Event",
    "Execution",
    "Explanation",
    "FleetExplanation",
    "FlightDeadlock",
    "FlightInfo",
    "FlightTimeout",
    "InstanceKey",
    "KeyedLocks",
    "Landing",
    "Listener",
    "LoggingListener",
    "SingleFlightError",
    "SingleFlightFunction",
    "Stats",
    "Unchanged",
    "UnhashableKey",
    "accelerated",
    "caches",
    "configure_renewal",
    "current_flight",
    "drain",
    "drain_sync",
    "invalidate_tag",
    "is_not_none",
    "report",
    "single_flight_ttl",
]


def __getattr__(name: str) -> _Any:
    """The classes of what users are shown, which take long to make, when somebody asks for them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .core import answers
    from .storage import entry
    from .telemetry import events, views

    module = next(each for each in (answers, entry, views, events) if name in vars(each))
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
