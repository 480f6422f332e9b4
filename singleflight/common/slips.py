"""Names that other libraries use, or that were misspelt, and what was probably meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

__all__ = ["SLIPS", "Slip", "meant_by_option", "meant_by_parameter", "no_such_attribute"]

_MEANT_TTL = "'ttl'"
_OPTIONS = {
    **dict.fromkeys(("seconds", "ttl_seconds", "ttl_s", "time_to_live", "lifetime", "max_age"), _MEANT_TTL),
    **dict.fromkeys(("expire", "expires", "expire_after", "expiration", "expiry", "expires_in"), _MEANT_TTL),
    "timeout": "'ttl' (of a value), 'wait_timeout' (of who waits) or 'flight_timeout' (of a call)",
    **dict.fromkeys(("max_size", "size", "maxlen", "max_entries", "capacity", "limit"), "'maxsize'"),
    **dict.fromkeys(("key_builder", "key_func", "key_fn", "key_maker", "make_key", "keyfunc"), "'key'"),
    **dict.fromkeys(("exclude", "exclude_args", "skip_args", "ignore_args", "ignored"), "'ignore'"),
    **dict.fromkeys(("cache_none", "skip_none", "unless", "should_cache", "skip_cache_func"), "'cache_if'"),
    **dict.fromkeys(("stale", "stale_ttl", "swr", "stale_while_revalidate", "stale_if_error"), "'grace'"),
    **dict.fromkeys(("early_expiration", "early_ttl", "beta", "refresh", "prefetch"), "'refresh_ahead'"),
    **dict.fromkeys(("retries", "max_retries", "attempts"), "'follower_retries'"),
    **dict.fromkeys(("error_ttl", "exception_ttl", "negative_ttl"), "'failure_ttl'"),
    **dict.fromkeys(("callback", "on_event", "hooks", "listeners"), "'listener'"),
    **dict.fromkeys(("clock", "time", "now"), "'timer'"),
}
_NEEDLESS = {
    **dict.fromkeys(("lock", "condition", "lock_factory"), "concurrent calls are one call without"),
    **dict.fromkeys(("cache", "backend", "info"), "each function has values and stats of its own"),
}

_CLEAR = "'clear()' (all entries), 'invalidate(...)' (one call's) or 'invalidate_where(predicate)'"
_DROP = "'invalidate(...)' (with the arguments of a call)"
_LOOK = "'entry(...)' (with the arguments of a call)"
_STORE = "'put(value, ...)' (with the arguments of a call)"
_COUNTS = "'stats()'"
SLIPS = {
    **dict.fromkeys(("clear_cache", "reset", "flush"), _CLEAR),
    **dict.fromkeys(("delete", "remove", "evict", "expire", "forget", "cache_invalidate"), _DROP),
    **dict.fromkeys(("get", "peek", "lookup", "cache_get"), _LOOK),
    **dict.fromkeys(("set", "store", "cache_set"), _STORE),
    "cache": "'entry(...)' (one value), 'stats()' (numbers) or 'invalidate_where(predicate)'",
    **dict.fromkeys(("cache_key", "make_key"), "'explain(...).key' (with the arguments of a call)"),
    **dict.fromkeys(("cache_lock", "cache_condition", "lock"), "'locks' (with fn.locks(key): ...)"),
    **dict.fromkeys(("cache_stats", "statistics", "info"), _COUNTS),
    **dict.fromkeys(("uncached", "original"), "'__wrapped__' (one function) or 'bypass()' (a block)"),
    **dict.fromkeys(("reload", "renew"), "'refresh(...)' (with the arguments of a call)"),
}
"""Attributes that people look for on a decorated function, and what there is instead."""


def meant_by_option(name: str, known: Collection[str]) -> str:
    """What an unknown option was probably meant for, as the end of a sentence."""
    if name in _NEEDLESS:
        return f"; {_NEEDLESS[name]}"
    meant = _OPTIONS.get(name.lower()) or _close(name, known)
    return f"; did you mean {meant}?" if meant else f"; there are {', '.join(known)}"


def meant_by_parameter(name: str, known: Collection[str]) -> str:
    """What the name of a parameter that is not there was probably meant for, as the end of a sentence."""
    meant = _close(name, known)
    return f"; did you mean {meant}?" if meant else ""


def no_such_attribute(function: str, name: str, known: Iterable[str]) -> str:
    """What an AttributeError says that names the function and what was probably meant."""
    meant = SLIPS.get(name) or _close(name, known)
    return f"{function}: no attribute {name!r}" + (f"; did you mean {meant}?" if meant else "")


class Slip:
    """An attribute that bound methods do not have: it says so, and what was probably meant.

    One for each name, instead of one `__getattr__` for all: see `bound.Shown`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        function = getattr(owner if instance is None else instance, "__qualname__", "")
        raise AttributeError(no_such_attribute(str(function), self.name, ()))


def _close(name: str, known: Iterable[str]) -> str | None:
    import difflib  # rarely needed

    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return repr(close[0]) if close else None
