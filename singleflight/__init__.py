"""One call for many callers: a TTL cache and keyed locks in one decorator."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from .common.errors import FlightDeadlock, FlightTimeout, SingleFlightError, UnhashableKey
from .common.keys import InstanceKey
from .core.shareable import is_not_none
from .decorator.decorate import single_flight_ttl

if _TYPE_CHECKING:
    from .core.answers import Answer
    from .core.current import Unchanged, current_flight
    from .decorator.accelerate import accelerated
    from .decorator.function import BoundSingleFlight, SingleFlightFunction, caches
    from .decorator.loader import BoundBulkLoader, BulkLoader
    from .drivers.pool import configure_renewal
    from .locks.keyed import KeyedLocks
    from .process.drain import drain, drain_sync
    from .process.registry import invalidate_tag, report
    from .storage.entry import Entry
    from .storage.ttl import AdaptiveTTL, Landing
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


# Those that come when somebody asks for them. What a decorated function needs comes with the first one.
_LATE = {
    "core.answers": ("Answer",),
    "core.current": ("Unchanged", "current_flight"),
    "decorator.accelerate": ("accelerated",),
    "decorator.function": ("BoundSingleFlight", "SingleFlightFunction", "caches"),
    "decorator.loader": ("BoundBulkLoader", "BulkLoader"),
    "drivers.pool": ("configure_renewal",),
    "locks.keyed": ("KeyedLocks",),
    "process.drain": ("drain", "drain_sync"),
    "process.registry": ("invalidate_tag", "report"),
    "storage.entry": ("Entry",),
    "storage.ttl": ("AdaptiveTTL", "Landing"),
    "telemetry.events": ("Event", "Execution", "Listener", "LoggingListener"),
    "telemetry.views": ("CurrentFlight", "Explanation", "FleetExplanation", "FlightInfo", "Stats"),
}


def __getattr__(name: str) -> _Any:
    """A name that comes late."""
    for place, names in _LATE.items():
        if name in names:
            value = globals()[name] = getattr(_import_module(f".{place}", __name__), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
