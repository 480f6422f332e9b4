"""Prices from Alpaca's streams: alpaca-py's clients, in a thread of their own, fill what the getters find."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Self

from .alpaca_clients import importing
from .alpaca_settings import Settings
from .interface import log

__all__ = ["PriceStream", "StreamRefused"]

# Errors that another try does not mend.
_FINAL = {
    402: "login",
    405: "number of symbols",
    409: "subscription",
}
_LOOK_AGAIN = 0.5  # seconds
_FINAL_TEXTS = ("auth failed", "insufficient subscription", "not authenticated")


class StreamRefused(Exception):
    """The service refuses the stream, and would again: the login, the subscription, or so many symbols."""


class PriceStream:
    """Quotes and trades as the service sends them, until it is stopped; a context manager.

    Made by `AlpacaAccount.stream_prices`. It connects again, later each time, whenever the connection ends;
    prices meanwhile end with their ttl, and are then asked for. Where the service refuses it, it ends:
    `error` says why, which is also logged.

    Safe to use from any thread.
    """

    def __init__(
        self,
        account: Hashable,
        settings: Settings,
        kinds: Mapping[str, list[str]],
        take: Callable[[dict[str, Any], datetime], None],
        data_timeout: float | None,
    ) -> None:
        self._account = account
        self._take = take
        # An error for the caller, not for a thread that nobody looks at.
        self._clients = [client_for(kind, settings, data_timeout, self._refuse) for kind in kinds]
        for client, symbols in zip(self._clients, kinds.values(), strict=True):
            client.subscribe_quotes(self._on_message, *symbols)
            client.subscribe_trades(self._on_message, *symbols)
        self.error: Exception | None = None
        """Why it ended by itself; None while it runs, and after `stop`."""
        self._loop: asyncio.AbstractEventLoop | None = None  # both written by the thread, before `_begun`
        self._work: asyncio.Future[Any] | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="singleflight-stream", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Return True until it has ended."""
        return self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for at most so many seconds; return True if it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End it, and wait until it has ended. Prices stay until their ttl ends."""
        self._begun.wait()
        self._end()
        if threading.current_thread() is not self._thread:
            while not self.wait(_LOOK_AGAIN):
                self._end()

    def _end(self) -> None:
        """Cancel what runs; may be repeated, for a cancellation may be lost.

        alpaca-py waits by `asyncio.wait_for`, which drops it where a message comes at that very moment
        (Python 3.11; CPython's issue 86296).
        """
        loop, work = self._loop, self._work
        if loop is not None and work is not None and not loop.is_closed():
            with suppress(RuntimeError):  # it was closed meanwhile
                loop.call_soon_threadsafe(work.cancel)

    def _run(self) -> None:
        try:
            asyncio.run(self._stream())
        except Exception as error:
            self.error = self.error or error
        finally:
            self._begun.set()
        if self.error is not None:
            log.error("[Account %s] Price stream ended: %s", self._account, self.error)

    async def _stream(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Not with their public `run` and `stop`: a `stop` before the loop runs raises, one while it starts is
        # lost, and each client would need a thread and a loop of its own.
        self._work = asyncio.gather(*(client._run_forever() for client in self._clients))
        self._begun.set()
        try:
            with suppress(asyncio.CancelledError):
                await self._work
        finally:
            for client in self._clients:
                await client.close()

    def _refuse(self, why: str) -> None:
        """The service refuses the stream: end all of it; called in its thread."""
        self.error = StreamRefused(why)
        self._end()

    async def _on_message(self, message: dict[str, Any]) -> None:
        try:
            self._take(message, message["t"].to_datetime())
        except Exception:  # alpaca-py would drop the rest of the frame
            log.exception("[Account %s] A message of the price stream was not understood", self._account)


def client_for(
    kind: str, settings: Settings, data_timeout: float | None, refuse: Callable[[str], None]
) -> Any:
    """alpaca-py's client for the stream of one kind of instrument, which tells what is refused."""
    with importing():
        from alpaca.data import enums, live

    made: Any = {
        "stock": live.StockDataStream,
        "crypto": live.CryptoDataStream,
        "option": live.OptionDataStream,
    }[kind]

    class Client(made):  # type: ignore[misc]
        """Ends where another try would not help; alpaca-py tries for ever."""

        async def _auth(self) -> None:
            try:
                await super()._auth()
            except ValueError as error:
                if any(text in str(error) for text in _FINAL_TEXTS):
                    refuse(str(error))
                raise

        async def _dispatch(self, message: dict[str, Any]) -> None:
            if message.get("T") == "error" and message.get("code") in _FINAL:
                refuse(f"{message.get('msg')} ({_FINAL[message['code']]})")
            await super()._dispatch(message)

    for name in ("_auth", "_dispatch", "_run_forever"):
        if not hasattr(made, name):
            raise RuntimeError(
                f"alpaca-py has changed: its {made.__name__} has no {name}, so that a stream cannot be "
                f"run and ended; please report this"
            )
    terms: dict[str, Any] = {"raw_data": True, "data_timeout": data_timeout}
    path = "/v1beta3/crypto/us"
    if kind == "stock":
        feed = settings.feed or "iex"
        if feed not in ("iex", "sip"):
            raise ValueError(f"feed: {feed!r} has no stream; iex and sip do")
        terms["feed"], path = enums.DataFeed(feed), f"/v2/{feed}"
    elif kind == "option":
        feed = settings.option_feed or "indicative"
        terms["feed"], path = enums.OptionsFeed(feed), f"/v1beta1/{feed}"
    if settings.stream_url is not None:
        terms["url_override"] = settings.stream_url + path
    return Client(settings.api_key, settings.secret_key, **terms)
