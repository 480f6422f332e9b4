"""One call for many callers: a TTL cache and keyed locks in one decorator."""

from .counts import Stats
from .decorator import BoundSingleFlight, SingleFlightFunction
from .draining import drain, drain_sync
from .entries import Entry
from .errors import FlightDeadlock, FlightTimeout, SingleFlightError, UnhashableKey
from .events import Event, Listener, LoggingListener
from .freshness import AdaptiveTTL, Landing
from .keys import InstanceKey
from .loader import BoundBulkLoader, BulkLoader
from .locks import KeyedLocks
from .options import is_not_none
from .public import single_flight_ttl
from .registry import caches, report
from .renewing import configure_renewal
from .views import Explanation, FlightInfo

__version__ = "0.1.0"

__all__ = [
    "AdaptiveTTL",
    "BoundBulkLoader",
    "BoundSingleFlight",
    "BulkLoader",
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
    "UnhashableKey",
    "caches",
    "configure_renewal",
    "drain",
    "drain_sync",
    "is_not_none",
    "report",
    "single_flight_ttl",
]
