"""The market on loopback is as strict as the service that it stands for."""

import json
import time
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

KEYS = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
STOCKS, CRYPTO, OPTIONS = "/v2/stocks/%s", "/v1beta3/crypto/us/%s", "/v1beta1/options/%s"
CONTRACT = "AAPL261218C00200000"


@pytest.fixture
def ask(server):
    """Makes one request; gives status, body and headers."""

    def get(path, symbols=None, login=KEYS, **query):
        if symbols is not None:
            query["symbols"] = symbols
        text = "&".join(f"{name}={quote(value)}" for name, value in query.items())
        request = Request(f"{server.url}{path}?{text}", headers=login)
        try:
            with urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer), answer.headers
        except HTTPError as error:
            with error:
                return error.code, json.load(error), error.headers

    return get


@pytest.mark.parametrize(
    ("path", "symbol"),
    [
        (STOCKS, "BTC/USD"),
        (STOCKS, CONTRACT),
        (STOCKS, "aapl"),
        (STOCKS, " AAPL"),
        (STOCKS, ""),
        (CRYPTO, "BTCUSD"),
        (CRYPTO, "AAPL"),
        (OPTIONS, "AAPL"),
        (OPTIONS, "AAPL261218X00200000"),
    ],
)
def test_a_symbol_of_another_kind_is_refused(ask, path, symbol):
    """The whole request is answered 400, which names the first symbol that does not fit."""
    good = {STOCKS: "ASML", CRYPTO: "BTC/USD", OPTIONS: CONTRACT}[path]
    what = "latest/quotes" if path == CRYPTO else "quotes/latest"
    status, found, _ = ask(path % what, f"{good},{symbol}")
    assert status == 400
    assert found["message"].startswith(f"invalid symbol: {symbol} does not match ^")


def test_an_unknown_symbol_is_left_out_or_refused(ask, server):
    """Both are said of the real service."""
    path = STOCKS % "trades/latest"
    assert list(ask(path, "ASML,XYZ")[1]["trades"]) == ["ASML"]
    server.unknown_is_400 = True
    assert ask(path, "ASML,XYZ")[:2] == (400, {"message": "invalid symbol: XYZ"})


@pytest.mark.parametrize(
    ("path", "symbol", "wrapper"),
    [(STOCKS, "ASML", None), (CRYPTO, "BTC/USD", "snapshots"), (OPTIONS, CONTRACT, "snapshots")],
)
def test_a_snapshot_has_all(ask, path, symbol, wrapper):
    """Quote and trade, and bars but for options; those of stocks have no wrapper."""
    found = ask(path % "snapshots", symbol)[1]
    one = (found[wrapper] if wrapper else found)[symbol]
    assert {"latestTrade", "latestQuote"} <= set(one)
    assert ("dailyBar" in one) == (path != OPTIONS)


def test_a_weekend(ask, server):
    """No stock has a bid; the last trade and the close stay, crypto goes on, and the clock says closed."""
    server.weekend = True
    one = ask(STOCKS % "snapshots", "ASML")[1]["ASML"]
    assert (one["latestQuote"]["bp"], one["latestQuote"]["bs"], one["latestQuote"]["ap"]) == (0, 0, 985.25)
    assert one["latestTrade"]["p"] == one["dailyBar"]["c"] == 984.75
    assert ask(CRYPTO % "latest/quotes", "BTC/USD")[1]["quotes"]["BTC/USD"]["bp"] == 64000.5
    assert not ask("/v2/clock")[1]["is_open"]


def test_one_side(ask, server):
    """Single symbols may have one side alone."""
    server.sides["ASML"] = (0, 985.25)
    quotes = ask(STOCKS % "quotes/latest", "ASML,AAPL")[1]["quotes"]
    assert (quotes["ASML"]["bp"], quotes["ASML"]["ap"], quotes["AAPL"]["bp"]) == (0, 985.25, 190.5)


def test_positions_are_spelt_without_a_slash(ask, server):
    """BTC/USD is held as BTCUSD, with its class."""
    server.held.update({"AAPL": 3.0, "BTC/USD": 0.5, CONTRACT: 1.0})
    positions = ask("/v2/positions")[1]
    assert [(one["symbol"], one["asset_class"]) for one in positions] == [
        ("AAPL", "us_equity"),
        ("BTCUSD", "crypto"),
        (CONTRACT, "us_option"),
    ]
    assert ask("/v2/assets/BTCUSD")[1]["symbol"] == "BTC/USD"


def test_logins_and_feeds(ask, server):
    """A wrong key is 401 (crypto needs none), a feed without a subscription 403, no feed at all 400."""
    server.secrets = {"key": "secret"}
    path = STOCKS % "quotes/latest"
    for login in ({}, {**KEYS, "APCA-API-SECRET-KEY": "wrong"}, {**KEYS, "APCA-API-KEY-ID": "other"}):
        assert ask(path, "ASML", login=login)[0] == 401
        assert ask("/v2/account", login=login)[0] == 401
        assert ask(CRYPTO % "latest/quotes", "BTC/USD", login=login)[0] == 200
    assert [ask(path, "ASML", feed=feed)[0] for feed in ("iex", "sip", "cheap")] == [200, 403, 400]
    assert ask(OPTIONS % "quotes/latest", CONTRACT, feed="opra")[0] == 403


@pytest.mark.parametrize("counts_refused", [False, True])
def test_the_limit(market_server, counts_refused):
    """So many requests of a key in each window, data and trading apart; what is refused says until when."""
    with market_server.MarketServer(rate_limit=2, window=3600, counts_refused=counts_refused) as server:

        def get(target, key="key"):
            status, _, extra = server.answer(target, None, {"APCA-API-KEY-ID": key})
            return status, extra

        assert [get("/v2/stocks/quotes/latest?symbols=ASML")[0] for _ in range(4)] == [200, 200, 429, 429]
        assert get("/v2/account")[0] == 200
        assert get("/v2/stocks/quotes/latest?symbols=ASML", "other")[0] == 200
        _, extra = get("/v2/stocks/quotes/latest?symbols=ASML")
        assert (extra["X-Ratelimit-Limit"], extra["X-Ratelimit-Remaining"]) == ("2", "0")
        assert 0 < int(extra["Retry-After"]) <= 3600
        assert time.time() < int(extra["X-Ratelimit-Reset"]) <= time.time() + 3601
        assert server.refused == 3
