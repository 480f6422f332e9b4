"""What an account is told: credentials, the service's URL, limits; checked before anything is asked."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from urllib.parse import urlsplit

__all__ = ["Limits", "Settings", "checked_wait"]

_FEEDS = ("iex", "sip", "delayed_sip", "otc", "boats", "overnight")
_OPTION_FEEDS = ("indicative", "opra")
_STAND_INS = ("bid", "ask", "mid", "last", "close")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for a server and how often to ask it again; seconds and a count."""

    timeout: float
    retries: int
    retry_wait: float


@dataclass(frozen=True, slots=True)
class Settings:
    """What all of an account's clients are made with."""

    api_key: str | None
    secret_key: str | None
    oauth_token: str | None
    data_url: str | None
    trading_url: str | None
    paper: bool
    sandbox: bool
    feed: str | None
    option_feed: str | None
    currency: str | None
    limits: Limits
    no_price_ttl: float
    max_price_age: float | None
    fallback: tuple[str, ...]
    price_grace: float | None
    stream_url: str | None
    gather: float
    requests_per_minute: int | None

    @classmethod
    def checked(
        cls,
        *,
        api_key: str | None,
        secret_key: str | None,
        url: str | None,
        paper: bool,
        timeout: float,
        retries: int,
        retry_wait: float,
        no_price_ttl: float = 5.0,
        max_price_age: float | None = None,
        fallback: Iterable[str] = (),
        oauth_token: str | None = None,
        data_url: str | None = None,
        trading_url: str | None = None,
        sandbox: bool = False,
        feed: str | None = None,
        option_feed: str | None = None,
        currency: str | None = None,
        price_grace: float | None = None,
        stream_url: str | None = None,
        gather: float = 0.0,
        requests_per_minute: int | None = None,
    ) -> Settings:
        """The arguments of `AlpacaAccount`; `TypeError` or `ValueError` names the one that is wrong."""
        if oauth_token is not None:
            if api_key is not None or secret_key is not None:
                raise ValueError("oauth_token: stands in place of api_key and secret_key, not beside them")
            oauth_token = _credential("oauth_token", oauth_token, "")
        else:
            api_key = _credential("api_key", api_key, "APCA_API_KEY_ID")
            secret_key = _credential("secret_key", secret_key, "APCA_API_SECRET_KEY")
        if api_key and not secret_key:
            raise ValueError("secret_key: missing beside api_key; pass it or set APCA_API_SECRET_KEY")
        if secret_key and not api_key:
            raise ValueError("api_key: missing beside secret_key; pass it or set APCA_API_KEY_ID")
        url = _origin("url", url)
        for name, flag in (("paper", paper), ("sandbox", sandbox)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name}: expected True or False, got {flag!r}")
        for name, value, known in (("feed", feed, _FEEDS), ("option_feed", option_feed, _OPTION_FEEDS)):
            if value is not None and value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        if currency is not None and not (isinstance(currency, str) and re.fullmatch("[A-Z]{3}", currency)):
            raise ValueError(f"currency: expected a code such as 'EUR', got {currency!r}")
        retries = _count("retries", retries, least=0)
        if requests_per_minute is not None:
            requests_per_minute = _count("requests_per_minute", requests_per_minute, least=1)
        limits = Limits(checked_wait("timeout", timeout), retries, checked_wait("retry_wait", retry_wait))
        if limits.timeout == 0:
            raise ValueError("timeout: must be more than 0 seconds")
        if max_price_age is not None:
            max_price_age = checked_wait("max_price_age", max_price_age)
            if max_price_age == 0:
                raise ValueError("max_price_age: must be more than 0 seconds; None for any age")
        no_price_ttl = checked_wait("no_price_ttl", no_price_ttl)
        return cls(
            api_key=api_key,
            secret_key=secret_key,
            oauth_token=oauth_token,
            data_url=_origin("data_url", data_url) or url,
            trading_url=_origin("trading_url", trading_url) or url,
            paper=paper,
            sandbox=sandbox,
            feed=feed,
            option_feed=option_feed,
            currency=currency,
            limits=limits,
            no_price_ttl=no_price_ttl,
            max_price_age=max_price_age,
            fallback=_stand_ins(fallback),
            price_grace=None if price_grace is None else checked_wait("price_grace", price_grace),
            gather=checked_wait("gather", gather),
            stream_url=_origin("stream_url", stream_url, ("ws", "wss")),
            requests_per_minute=requests_per_minute,
        )


def _credential(argument: str, value: str | None, variable: str) -> str | None:
    """A key that can travel in a header, or None. No message shows it: messages end up in logs."""
    source = argument
    if value is None:
        value, source = os.environ.get(variable) or None, variable
        if value is None:
            return None
    if not isinstance(value, str):
        raise TypeError(f"{source}: expected a string, got a {type(value).__name__}")
    if not value:
        raise ValueError(f"{source}: cannot be empty")
    if not (value.isascii() and value.isprintable()) or value != value.strip():
        raise ValueError(f"{source}: expected printable ASCII without white space around it")
    return value


def _origin(argument: str, url: str | None, schemes: tuple[str, ...] = ("http", "https")) -> str | None:
    """The URL without a slash at its end; alpaca-py adds the version and the path."""
    if url is None:
        return None
    if not isinstance(url, str):
        raise TypeError(f"{argument}: expected a string, got {url!r}")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        path, beyond = parts.path, parts.query or parts.fragment
    except ValueError:
        usable, path, beyond = False, "", ""
    if not usable or beyond or any(letter.isspace() for letter in url):
        raise ValueError(
            f"{argument}: expected an origin such as '{schemes[0]}://127.0.0.1:8000', got {url!r}"
        )
    if path.rstrip("/").endswith(("/v2", "/v1beta3")):
        raise ValueError(f"{argument}: leave the version out, alpaca-py adds it; got {url!r}")
    return url.rstrip("/")


def _stand_ins(types: Iterable[str]) -> tuple[str, ...]:
    if isinstance(types, str) or not isinstance(types, Iterable):
        raise TypeError(f"fallback: expected price types such as ('last', 'close'), got {types!r}")
    found = tuple(types)
    for one in found:
        if one not in _STAND_INS:
            raise ValueError(f"fallback: expected some of {', '.join(_STAND_INS)}, got {one!r}")
    return found


def _count(argument: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument}: expected a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{argument}: expected at least {least}, got {value}")
    return value


def checked_wait(argument: str, value: float) -> float:
    """A number of seconds for which a thread can wait; `TypeError` or `ValueError` names the argument."""
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise TypeError(f"{argument}: expected seconds, got {value!r}")
    if not 0 <= value <= threading.TIMEOUT_MAX:
        raise ValueError(f"{argument}: expected a finite number of seconds, not negative, got {value!r}")
    return float(value)
