"""How an account's requests travel: with a timeout, past the gate, again where the connection had ended.

Imports requests; so it is imported where a client is made.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as Disconnected

from .alpaca_settings import Limits
from .gate import Gate

__all__ = ["Adapter", "UnexpectedAnswer", "leave_alone"]

_CONNECTIONS = 256  # kept open per client; requests' own ten are fewer than a dashboard's threads


class UnexpectedAnswer(Exception):
    """What answered is not the service: a redirect, or a page for people, as captive portals send."""

    def __init__(self, status_code: int, text: str) -> None:
        super().__init__(text)
        self.status_code = status_code

    def __reduce__(self) -> tuple[type[UnexpectedAnswer], tuple[int, str]]:
        return UnexpectedAnswer, (self.status_code, str(self))


def leave_alone(request: Any) -> Any:
    """A session's `auth`: without one, requests would add what `~/.netrc` has for the host."""
    return request


class Watched:
    """A connection that notes in the errors of its later requests that it has served one before."""

    has_served: bool = False

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Send one."""
        return self._noted("request", *args, **kwargs)

    def getresponse(self) -> Any:
        """Read its answer."""
        answer = self._noted("getresponse")
        self.has_served = True
        return answer

    def close(self) -> None:
        """Forget what it has served: the next request opens it anew."""
        self.has_served = False
        parent: Any = super()
        parent.close()

    def _noted(self, what: str, *args: Any, **kwargs: Any) -> Any:
        was_used = self.has_served
        try:
            return getattr(super(), what)(*args, **kwargs)
        except OSError as error:
            error.was_used = was_used  # type: ignore[attr-defined]
            raise


@cache
def watched(pool: Any) -> Any:
    """A class of pools, whose connections are watched."""
    connection = type(pool.ConnectionCls.__name__, (Watched, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


def watch(manager: Any) -> Any:
    """Have the connections of a manager of pools watched."""
    classes = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in classes.items()}
    return manager


class Adapter(HTTPAdapter):
    """Supplies the timeout that alpaca-py never sends, and waits at the gate.

    A GET is sent once more where a connection that had been used ended before an answer came: servers close
    idle ones, and their idle limit may be our ttl. Nothing else is, least of all an order.
    """

    def __init__(self, limits: Limits, gate: Gate, urgent: bool) -> None:
        self._limits, self._gate = limits, gate
        self._terms: dict[str, Any] = {"urgent": urgent}
        if urgent:
            self._terms["patience"] = limits.timeout
        super().__init__(pool_maxsize=_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As requests has it, watched."""
        super().init_poolmanager(*args, **kwargs)
        watch(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """As requests has it, watched."""
        manager: Any = super().proxy_manager_for(*args, **kwargs)
        first = manager.pool_classes_by_scheme["http"].ConnectionCls
        return manager if issubclass(first, Watched) else watch(manager)

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Send it in its turn. Raises what requests raises, `GateShut` and `UnexpectedAnswer`."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self._limits.timeout
        try:
            response = self._send(request, *args, **kwargs)
        except Disconnected as error:
            if request.method != "GET" or not was_idle(error):
                raise
            response = self._send(request, *args, **kwargs)  # the service may count both
        unexpected = what_is_wrong(response)
        if unexpected is not None:
            response.close()
            raise UnexpectedAnswer(response.status_code, unexpected)
        return response

    def _send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        with self._gate.passing(**self._terms) as answered:
            response = super().send(request, *args, **kwargs)
            answered(response.status_code, response.headers)
        return response


def what_is_wrong(response: Any) -> str | None:
    """Why an answer is not the service's; None if it may be."""
    if 300 <= response.status_code < 400:
        return f"a redirect to {response.headers.get('Location', 'nowhere')}"
    if response.ok and response.headers.get("Content-Type", "").startswith("text/html"):
        return "a page of HTML in place of JSON"
    return None


def was_idle(error: Exception) -> bool:
    """Return True if the connection had served a request before, and ended in this one without an answer."""
    cause: BaseException | None = error
    while cause is not None and not getattr(cause, "was_used", False):
        cause = cause.__context__  # the connection's own error is below those of urllib3 and requests
    return cause is not None
