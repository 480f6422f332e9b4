"""An account's clients: each made once, with limits that alpaca-py's constructors do not take."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .. import KeyedLocks
from .alpaca_settings import Settings
from .gate import gate_of
from .interface import log

__all__ = ["Clients", "cause_of", "importing", "set_limits"]

MISSING = "AlpacaAccount needs alpaca-py; install the extra: pip install 'singleflight-kit[alpaca]'"

_LOGGED_AS = {
    "stock": "data",
    "crypto": "crypto data",
    "option": "option data",
    "trading": "trading",
    "orders": "order",
}
_NEED_KEYS = {
    "stock": "stock prices",
    "option": "option prices",
    "trading": "balances and assets",
    "orders": "orders",
}
_RETRIED = (429, 504)  # too many requests; the gateway had no answer in time
_LONGEST_CAUSE = 300  # characters of a server's answer that are worth a log line


T = TypeVar("T")


class Clients:
    """One account's clients, by kind; each is made when it is first needed.

    Safe to use from any thread: a kind's client is made once, and the others do not wait for it.
    """

    def __init__(self, account: Hashable, settings: Settings) -> None:
        self.settings = settings
        self.opening: KeyedLocks = KeyedLocks()
        self._account = account  # as log lines name it
        # By kind and process: each is made once, under its kind's lock. Sockets cannot be shared with a
        # forked child, and the parent's stay referenced there, since closing them would say goodbye for it.
        self._made: dict[tuple[str, int], Any] = {}

    def __reduce__(self) -> tuple[type[Clients], tuple[Hashable, Settings]]:
        return Clients, (self._account, self.settings)  # a copy makes its own, when it needs them

    def require(self, kind: str) -> None:
        """Raise `ValueError` where a client of this kind needs credentials and the account has none."""
        if kind in _NEED_KEYS and not (self.settings.api_key or self.settings.oauth_token):
            raise ValueError(
                f"api_key and secret_key: {_NEED_KEYS[kind]} need them; pass them or set APCA_API_KEY_ID and "
                f"APCA_API_SECRET_KEY"
            )

    def get(self, kind: str, make: Callable[[str, Settings], T]) -> T:
        """The client of this kind in this process; the first caller makes it.

        Raises `ValueError` where it needs credentials and the account has none, and what `make` raises.
        """
        here = kind, os.getpid()
        client: T | None = self._made.get(here)
        if client is not None:
            return client
        self.require(kind)
        with self.opening(here):
            made: T | None = self._made.get(here)  # by another thread, while this one waited
            if made is not None:
                return made
            client = self._made[here] = make(kind, self.settings)
        log.info("Alpaca %s client initialized for account %s.", _LOGGED_AS[kind], self._account)
        return client


@contextmanager
def importing() -> Iterator[None]:
    """For an import of alpaca-py: its warnings are not for those who ask for a price, least of all as errors.

    Raises `ImportError`, naming the extra, where it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except ImportError as error:
        raise ImportError(f"{MISSING} ({error})") from error


def set_limits(
    client: Any,
    settings: Settings,
    service: str,
    retried: tuple[int, ...] = _RETRIED,
    urgent: bool = False,
) -> None:
    """Set what alpaca-py's constructors do not take, or raise `RuntimeError` where it cannot be set.

    Its requests pass the gate that all clients of one `service` ("data" or "trading") and key pair share;
    `urgent` ones go first, and wait no longer than for an answer.
    """
    for name in ("_session", "_base_url", "_retry", "_retry_wait", "_retry_codes"):
        if not hasattr(client, name):
            raise RuntimeError(
                f"alpaca-py has changed: its {type(client).__name__} has no {name}, so that timeout, retries "
                f"and retry_wait cannot be set; please report this"
            )
    limits = settings.limits
    client._retry = limits.retries
    client._retry_wait = limits.retry_wait
    client._retry_codes = list(retried)

    from .alpaca_adapter import Adapter, leave_alone

    origin = str(getattr(client._base_url, "value", client._base_url))
    gate = gate_of(service, origin, settings.api_key or settings.oauth_token, limits.retry_wait)
    if settings.requests_per_minute is not None:
        gate.keep_to(settings.requests_per_minute, client)
    client._session.auth = leave_alone
    for scheme in ("https://", "http://"):
        client._session.mount(scheme, Adapter(limits, gate, urgent))


def cause_of(error: Exception) -> str:
    """An error in one line of reasonable length: its type, the HTTP status if it has one, its text."""
    text = " ".join(str(error).split())
    status = getattr(error, "status_code", None)
    if status is not None:
        text = f"HTTP {status} {text}".rstrip()
    if len(text) > _LONGEST_CAUSE:
        text = text[:_LONGEST_CAUSE] + "..."
    return f"{type(error).__name__}: {text}"
