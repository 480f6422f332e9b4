"""The shared tier: one flight per key per fleet, on a Redis or Valkey server (extra `redis` or `valkey`)."""

from ..fleet.refusals import RemoteFailure, UnportableKey, UnportableValue
from .redis_store import RedisStore

__all__ = ["RedisStore", "RemoteFailure", "UnportableKey", "UnportableValue"]
