"""One call for many callers: a TTL cache and keyed locks in one decorator."""

from .common.errors import FlightDeadlock, FlightTimeout, SingleFlightError, UnhashableKey
from .common.keys import InstanceKey
from .core.answers import Answer
from .core.current import CurrentFlight, Unchanged, current_flight
from .core.options import is_not_none
from .decorator.accelerate import accelerated
from .decorator.decorate import single_flight_ttl
from .decorator.function import BoundSingleFlight, SingleFlightFunction, caches
from .decorator.loader import BoundBulkLoader, BulkLoader
from .drivers.pool import configure_renewal
from .locks.keyed import KeyedLocks
from .process.drain import drain, drain_sync
from .process.registry import invalidate_tag, report
from .storage.entry import Entry
from .storage.ttl import AdaptiveTTL, Landing
from .telemetry.counters import Stats
from .telemetry.events import Event, Listener, LoggingListener
from .telemetry.views import Explanation, FlightInfo

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
    "Explanation",
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
