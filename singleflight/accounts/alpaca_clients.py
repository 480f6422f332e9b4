"""What all of alpaca-py's clients need: limits that its constructors do not take, and errors in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["MISSING", "Limits", "cause_of", "set_limits"]

MISSING = "AlpacaAccount needs alpaca-py; install the extra: pip install 'singleflight-kit[alpaca]'"

_CONNECTIONS = 64  # kept open per client; requests' own ten are fewer than a dashboard's threads
_RETRIED = (429, 504)  # too many requests; the gateway had no answer in time
_LONGEST_CAUSE = 300  # characters of a server's answer that are worth a log line


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for a server and how often to ask it again; seconds and a count."""

    timeout: float
    retries: int
    retry_wait: float


def set_limits(client: Any, limits: Limits, retried: tuple[int, ...] = _RETRIED) -> None:
    """Set what alpaca-py's constructors do not take, or raise `RuntimeError` where it cannot be set."""
    for name in ("_session", "_retry", "_retry_wait", "_retry_codes"):
        if not hasattr(client, name):
            raise RuntimeError(
                f"alpaca-py has changed: its {type(client).__name__} has no {name}, so that timeout, retries "
                f"and retry_wait cannot be set; please report this"
            )
    client._retry = limits.retries
    client._retry_wait = limits.retry_wait
    client._retry_codes = list(retried)

    from requests.adapters import HTTPAdapter

    class TimeoutAdapter(HTTPAdapter):
        """Supplies the timeout that alpaca-py never sends."""

        def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("timeout") is None:
                kwargs["timeout"] = limits.timeout
            return super().send(request, *args, **kwargs)

    for scheme in ("https://", "http://"):
        client._session.mount(scheme, TimeoutAdapter(pool_maxsize=_CONNECTIONS))


def cause_of(error: Exception) -> str:
    """An error in one line of reasonable length: its type, the HTTP status if it has one, its text."""
    text = " ".join(str(error).split())
    status = getattr(error, "status_code", None)
    if status is not None:
        text = f"HTTP {status} {text}".rstrip()
    if len(text) > _LONGEST_CAUSE:
        text = text[:_LONGEST_CAUSE] + "..."
    return f"{type(error).__name__}: {text}"
