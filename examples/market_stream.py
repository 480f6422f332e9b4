"""The stream of a `MarketServer`: a websocket on loopback that sends quotes and trades as Alpaca does."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, Self

from market_server import MarketServer

try:
    import msgpack
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import ServerConnection, serve
except ImportError as error:
    sys.exit(f"market_stream: {error}; install what it needs: pip install -e '.[alpaca]'")

__all__ = ["MarketStream"]


class MarketStream:
    """Sends to each connection what it has subscribed to, once it has logged in.

    Args:
        market: whose prices and logins it has.
        says: what it answers to a login instead: an error's code and text, such as (402, "auth failed").
    """

    def __init__(self, market: MarketServer, says: tuple[int, str] | None = None) -> None:
        self.market, self.says = market, says
        self.lock = threading.Lock()
        self.logins = 0  # guarded by `lock`, as what follows
        self.connections: dict[ServerConnection, dict[str, list[str]]] = {}  # what each has subscribed to
        self._server = serve(self._serve, "127.0.0.1", 0, compression=None)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self.drop()
        self._thread.join(5)

    def drop(self) -> None:
        """End all connections."""
        with self.lock:
            connections = list(self.connections)
            self.connections.clear()
        for connection in connections:
            connection.close()

    def send(self, *messages: dict[str, Any]) -> None:
        """Send quotes and trades to those who have subscribed to them."""
        stamp = msgpack.Timestamp.from_unix(time.time())
        with self.lock:
            connections = dict(self.connections)
        for connection, wanted in connections.items():
            channels = {"q": wanted.get("quotes", []), "t": wanted.get("trades", [])}
            some = [{"t": stamp, **each} for each in messages if each["S"] in channels[each["T"]]]
            if some:
                connection.send(msgpack.packb(some))

    def quote(self, symbol: str, **sides: float) -> None:
        """Send a quote at the market's price, or with other sides (`bp`, `ap`)."""
        price = self.market.prices[symbol]
        self.send({"T": "q", "S": symbol, "bp": price, "ap": price + 0.5, "bs": 1, "as": 1, **sides})

    def trade(self, symbol: str, **more: float) -> None:
        """Send a trade at the market's price, or another one (`p`)."""
        self.send({"T": "t", "S": symbol, "p": self.market.prices[symbol], "s": 1, **more})

    def _serve(self, connection: ServerConnection) -> None:
        try:
            connection.send(msgpack.packb([{"T": "success", "msg": "connected"}]))
            login = msgpack.unpackb(connection.recv(10))
            with self.lock:
                self.logins += 1
            refusal = self._refusal(login)
            if refusal is not None:
                connection.send(msgpack.packb([{"T": "error", "code": refusal[0], "msg": refusal[1]}]))
                return
            connection.send(msgpack.packb([{"T": "success", "msg": "authenticated"}]))
            for sent in connection:
                wanted = msgpack.unpackb(sent)
                wanted.pop("action")
                connection.send(msgpack.packb([{"T": "subscription", **wanted}]))
                with self.lock:
                    self.connections[connection] = wanted
        except (ConnectionClosed, TimeoutError):
            pass
        finally:
            with self.lock:
                self.connections.pop(connection, None)

    def _refusal(self, login: dict[str, str]) -> tuple[int, str] | None:
        if self.says is not None:
            return self.says
        secrets = self.market.secrets
        if secrets is not None and secrets.get(login["key"]) != login["secret"]:
            return 402, "auth failed"
        return None


def main() -> None:
    """Have an account's prices come by the stream."""
    from command_line import parser_for  # for who runs it: those who import it may lack these

    from singleflight.accounts import AlpacaAccount

    parser_for(__doc__).parse_args()
    os.environ["no_proxy"] = "127.0.0.1"  # loopback, also where a proxy is set
    with MarketServer() as market, MarketStream(market) as stream:
        account = AlpacaAccount("streamed", "key", "secret", url=market.url, stream_url=stream.url)
        getter = account.get_instrument_current_price
        with account.stream_prices(["ASML"]):
            for price in (984.75, 985.0, 985.5):
                market.prices["ASML"] = price
                end = time.monotonic() + 30
                while (entry := getter.entry("ASML")) is None or entry.value != price:
                    if time.monotonic() > end:
                        sys.exit("market_stream: no quote came within 30 seconds")
                    stream.quote("ASML")  # again, since nothing says that the account listens by now
                    time.sleep(0.05)
                print(f"the stream sent {price}, the getter has {getter('ASML')}", flush=True)
        print(f"{len(market.requests)} requests were made")


if __name__ == "__main__":
    main()
