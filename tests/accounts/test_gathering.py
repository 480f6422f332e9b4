"""Single prices that are asked for at about the same time travel in one request."""

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

from singleflight.accounts import AccountInterface
from singleflight.accounts.readings import Readings
from singleflight.testing import FakeClock

getter = AccountInterface.get_instrument_current_price
SYMBOLS = [f"S{number}" for number in range(50)]


@pytest.fixture
def account(open_account):
    """One that gathers for a moment."""
    return open_account(gather=0.02)


@pytest.fixture
def patient(open_account):
    """One that gathers for longer than any test takes, unless a request is full."""
    return open_account(gather=50)


@pytest.fixture(autouse=True)
def market(server):
    """Fifty symbols, which fill one request."""
    server.prices.update(dict.fromkeys(SYMBOLS, 100.0))


def asked(server):
    """The symbols of each request, in their order."""
    return [parse_qs(urlsplit(target).query)["symbols"][0] for target in server.requests]


@pytest.mark.parametrize("fault", [None, "weekend", "wrong keys"])
def test_fifty_threads(patient, server, fault):
    """One request for them all, and none in the refreshes after it, priced or not."""
    server.weekend = fault == "weekend"
    server.secrets = {} if fault == "wrong keys" else None
    counts = []
    with ThreadPoolExecutor(50) as pool:
        for _ in range(3):
            server.reset()
            prices = list(pool.map(patient.get_instrument_current_price, SYMBOLS, timeout=50))
            assert prices == [None if fault else 100.0] * 50
            counts.append(len(server.requests))
    assert counts == [1, 0, 0]


def test_fifty_tasks(patient, server, loop):
    """They are gathered too, in the threads in which their requests are made."""

    async def burst():
        return await asyncio.gather(*map(patient.aget_instrument_current_price, SYMBOLS))

    assert loop.run(burst) == [100.0] * 50
    assert len(server.requests) == 1


@pytest.fixture
def ran_out():
    """Ends the ttl of all prices, and of what they are of."""

    def run():
        getter.cache_clear()
        Readings.reading.cache_clear()

    return run


class TestTenThreads:
    """That show fifty prices, each asked for by itself: at most five requests in three refreshes."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        """A request is full with ten symbols, so that no window ends by the clock."""
        monkeypatch.setattr("singleflight.accounts.readings.MOST_AT_ONCE", 10)

    @pytest.mark.parametrize("fault", [None, "weekend", "wrong keys"])
    @pytest.mark.parametrize("shows", ["five each", "all, each from another one on"])
    def test_cold(self, patient, server, fault, shows):
        """The ten symbols that are wanted at the same time are one request, priced or not."""
        server.weekend = fault == "weekend"
        server.secrets = {} if fault == "wrong keys" else None

        def widget(number):
            mine = SYMBOLS[5 * number :] + SYMBOLS[: 5 * number]
            shown = mine[:5] if shows == "five each" else mine
            return [patient.get_instrument_current_price(symbol) for symbol in shown]

        counts = []
        with ThreadPoolExecutor(10) as pool:
            for _ in range(3):
                server.reset()
                prices = [price for some in pool.map(widget, range(10), timeout=50) for price in some]
                assert set(prices) == {None if fault else 100.0}
                counts.append(len(server.requests))
        assert counts == [5, 0, 0]


class TestBroughtAlong:
    """A request has those along that were asked for lately and whose prices ran out."""

    @pytest.fixture
    def account(self, open_account):
        """One that gathers for no time that matters."""
        return open_account(gather=1e-6)

    @pytest.fixture
    def clock(self, account, monkeypatch):
        """The time at which symbols are asked for."""
        monkeypatch.setattr(account._prices, "_timer", FakeClock(1000))
        return account._prices._timer

    @pytest.fixture
    def refresh(self, account, server):
        """Ten threads ask for the same symbols in the same order, one by one; gives the requests' symbols."""

        def run(symbols=SYMBOLS, kind="bid"):
            server.reset()

            def widget(_):
                return [account.get_instrument_current_price(symbol, kind) for symbol in symbols]

            with ThreadPoolExecutor(10) as pool:
                self.prices = list(pool.map(widget, range(10), timeout=50))
            return [one.split(",") for one in asked(server)]

        return run

    @pytest.mark.parametrize("first", ["singly", "at once"])
    @pytest.mark.parametrize("weekend", [False, True])
    def test_a_screen(self, account, server, refresh, ran_out, first, weekend):
        """After the first time one request has all fifty: whoever waits for one symbol names no other."""
        server.weekend = weekend
        if first == "singly":
            assert len(refresh()) == 50
        else:
            account.get_instrument_current_prices(SYMBOLS)
        assert refresh() == []
        for price in (101.0, 102.0):
            ran_out()
            server.prices.update(dict.fromkeys(SYMBOLS, price))
            assert list(map(sorted, refresh())) == [sorted(SYMBOLS)]
            assert self.prices == [[None if weekend else price] * 50] * 10

    def test_a_price_that_there_is_none_of(self, open_account, server, ran_out):
        """Once the broker's word for it is not believed any more, one request asks again for all."""
        account = open_account(gather=1e-6, no_price_ttl=0.0)
        server.weekend = True
        account.get_instrument_current_prices(SYMBOLS)
        server.reset()
        assert account.get_instrument_current_price("S0") is None
        assert asked(server)[0].split(",")[0] == "S0"
        assert len(asked(server)[0].split(",")) == 50

    def test_no_more_than_fit(self, account, server, ran_out):
        """Those that were asked for the longest ago come first; another request has the others."""
        symbols = [f"T{number}" for number in range(70)]
        server.prices.update(dict.fromkeys(symbols, 5.0))
        for symbol in (*symbols, "T1"):
            getter.invalidate(account, symbol)
            account.get_instrument_current_price(symbol)
        ran_out()
        server.reset()
        account.get_instrument_current_price("T0")
        assert [one.split(",") for one in asked(server)] == [["T0", *symbols[2:51]]]
        for symbol in symbols:
            account.get_instrument_current_price(symbol)
        assert asked(server)[1].split(",") == ["T1", *symbols[51:]]
        assert len(server.requests) == 2

    def test_who_asks_for_no_price_any_more(self, account, server, clock, refresh, ran_out):
        """It is brought along within two ttls of the last time, and then no more."""
        account.get_instrument_current_prices(["S0", "S1", "S2"])
        for passed, brought in [(61, ["S0", "S1", "S2"]), (58, ["S0", "S1", "S2"]), (2, ["S0"]), (1, ["S0"])]:
            clock.advance(passed)
            ran_out()
            assert [sorted(one) for one in refresh(["S0"])] == [brought]
        account.get_instrument_current_price("S2")
        ran_out()
        assert [sorted(one) for one in refresh(["S0"])] == [["S0", "S2"]]

    def test_without_a_ttl(self, account, server, refresh, monkeypatch):
        """Nothing is brought along: it would not be stored."""
        monkeypatch.setenv("PRICE_CACHE_TIME", "0")
        account.get_instrument_current_prices(["S0", "S1"])
        server.reset()
        account.get_instrument_current_price("S0")
        assert asked(server) == ["S0"]

    def test_not_what_the_broker_refuses(self, account, server, refresh, ran_out):
        """It would cost a request more; nor what belongs to another kind of request."""
        server.unknown_is_400 = True
        for symbol in ("S0", "XYZ", "BTC/USD"):
            account.get_instrument_current_price(symbol)
        account.get_instrument_current_price("S1", "last")
        ran_out()
        assert refresh(["S0"]) == [["S0"]]

    def test_not_what_spoilt_a_request(self, account, server, refresh, ran_out):
        """A request that is refused for no symbol by name brings none of its symbols along again."""
        account.get_instrument_current_prices(["S0", "S1", "S2"])
        ran_out()
        server.before_answer = lambda path, symbols: (400, b"{}") if "S1" in symbols else None
        assert account.get_instrument_current_price("S0") is None
        server.reset()
        assert account.get_instrument_current_price("S0") == 100.0
        assert asked(server) == ["S0"]

    def test_not_what_is_there(self, account, server, ran_out):
        """Nor what somebody is asking for already."""
        account.get_instrument_current_prices(["S0", "S1", "S2"])
        account.get_instrument_current_price.invalidate("S1")
        server.reset()
        account.get_instrument_current_price("S1")
        assert asked(server) == ["S1"]

    def test_who_asks_for_one_that_is_brought_along(
        self, account, server, crowd, gate, followers, ran_out, until
    ):
        """Waits for that request, and makes none; nothing is brought along for a request that is not made."""
        account.get_instrument_current_prices(["S0", "S1", "S2"])
        ran_out()
        server.reset()
        server.before_answer = lambda path, symbols: gate.pass_()
        crowd.add(account.get_instrument_current_price, "S0")
        until(lambda: server.requests)
        account._prices._asked["S3", "bid"] = account._prices._timer()
        crowd.add(account.get_instrument_current_price, "S1")
        followers(1, Readings.reading)
        gate.set()
        assert crowd.join() == [100.0] * 2
        assert [sorted(one.split(",")) for one in asked(server)] == [["S0", "S1", "S2"]]

    def test_what_is_requested_already_is_not_waited_for(self, account, server, crowd, gate, ran_out, until):
        """A request that hangs holds up no other."""
        account.get_instrument_current_prices(["S0", "S1", "S2"])
        ran_out()
        server.reset()
        server.before_answer = lambda path, symbols: gate.pass_() if "S1" in symbols else None
        crowd.add(account._prices.reading, "S1", "bid")  # as another account with this id may
        until(lambda: server.requests)
        assert account.get_instrument_current_price("S0") == 100.0
        assert [sorted(one.split(",")) for one in asked(server)] == [["S1"], ["S0", "S2"]]
        gate.set()
        crowd.join()

    def test_its_prices_are_of_one_quote(self, open_account, server, monkeypatch, until):
        """Also of one that was shown past its ttl meanwhile."""
        monkeypatch.setenv("PRICE_CACHE_TIME", "0.05")
        account = open_account(gather=1e-6, price_grace=60)
        get = account.get_instrument_current_price
        for symbol in ("S0", "S1"):
            get(symbol, "bid")
            get(symbol, "ask")
        monkeypatch.setenv("PRICE_CACHE_TIME", "60")
        until(lambda: get.entry("S0", "bid").state == get.entry("S1", "ask").state == "stale")
        server.prices.update(S0=1000.0, S1=1000.0)
        server.reset()
        until(lambda: get("S0", "bid") == 1000.0)
        until(lambda: get("S1", "bid") == 1000.0)
        assert get("S1", "ask") == 1000.5
        assert [sorted(one.split(",")) for one in asked(server)] == [["S0", "S1"]]

    def test_quotes(self, account, server, ran_out):
        """`get_quote` is gathered too."""
        for symbol in ("S0", "S1"):
            account.get_quote(symbol)
        ran_out()
        server.reset()
        assert [account.get_quote(symbol).bid for symbol in ("S1", "S0")] == [100.0] * 2
        assert [sorted(one.split(",")) for one in asked(server)] == [["S0", "S1"]]

    def test_so_many_are_remembered(self, account, monkeypatch):
        """The latest."""
        monkeypatch.setattr("singleflight.accounts.alpaca_data._MOST_DUE", 3)
        account.get_instrument_current_prices(SYMBOLS)
        assert list(account._prices._asked) == [(symbol, "bid") for symbol in SYMBOLS[-3:]]

    def test_only_if_calls_are_gathered(self, open_account, server, ran_out):
        """Else each request has what was asked for."""
        account = open_account()
        account.get_instrument_current_prices(["S0", "S1"])
        ran_out()
        server.reset()
        account.get_instrument_current_price("S0")
        assert asked(server) == ["S0"]


def test_each_kind_and_type_apart(account, server, crowd):
    """One request for each kind of instrument, and for quotes and trades; bid and ask share a quote."""
    for symbol, kind in [
        ("ASML", "bid"),
        ("AAPL", "bid"),
        ("ASML", "ask"),
        ("BTC/USD", "bid"),
        ("ASML", "last"),
    ]:
        crowd.add(account.get_instrument_current_price, symbol, kind)
    assert crowd.join() == [984.75, 190.5, 985.25, 64000.5, 984.75]
    assert len(server.requests) <= 4
    assert {"BTC/USD"} <= set(asked(server))


def test_a_failure_is_each_ones(account, server, crowd):
    """All have None, and the next callers ask again."""
    server.outage = True
    for symbol in SYMBOLS[:5]:
        crowd.add(account.get_instrument_current_price, symbol)
    assert crowd.join() == [None] * 5
    server.outage = False
    assert account.get_instrument_current_price("S0") == 100.0


def test_one_that_is_refused_leaves_the_others(account, server, crowd):
    """As in a call for many."""
    server.unknown_is_400 = True
    for symbol in ("S0", "XYZ", "S1"):
        crowd.add(account.get_instrument_current_price, symbol)
    assert crowd.join() == [100.0, None, 100.0]


def test_bypassed(patient, server):
    """Nobody waits for others."""
    with patient.get_instrument_current_price.bypass():
        assert patient.get_instrument_current_price("S0") == 100.0
    assert len(server.requests) == 1


def test_copies(account):
    """They gather by themselves, also after a price."""
    account.get_instrument_current_price("S0")
    for other in (pickle.loads(pickle.dumps(account)), copy.copy(account)):
        assert other.get_instrument_current_price("S0", "last") == 100.0


@pytest.mark.parametrize(("gather", "error"), [(-1, ValueError), ("soon", TypeError)])
def test_bad_ones(open_account, gather, error):
    """They are named."""
    with pytest.raises(error, match=r"^gather: "):
        open_account(gather=gather)
