"""How many prices are asked for at once: one request for stocks, one for crypto, nothing made up."""

import logging
from urllib.parse import parse_qs, urlsplit

import pytest

from singleflight.accounts import AccountInterface, AlpacaAccount

from ..drivers import Gate, eventually

getter = AccountInterface.get_instrument_current_price

QUOTE = '{"t":"2026-01-02T15:04:05Z","bp":%s,"bs":1,"ap":11,"as":1}'
LOADED = ("ASML", "BTC/USD", "AAPL", "XYZ")


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def asked(server):
    """What was asked for, by path."""
    targets = [urlsplit(target) for target in server.requests]
    return [(target.path, parse_qs(target.query)["symbols"][0]) for target in targets]


class TestTheBrokersWay:
    """At Alpaca: its multi-symbol requests."""

    @pytest.mark.parametrize(
        ("kind", "stocks", "prices"),
        [
            ("bid", "quotes", [984.75, 64000.5, 190.5]),
            ("ask", "quotes", [985.25, 64001.0, 191.0]),
            ("mid", "quotes", [985.0, 64000.75, 190.75]),
            ("last", "trades", [984.75, 64000.5, 190.5]),
        ],
    )
    def test_one_request_each(self, account, server, kind, stocks, prices):
        """In the order asked, without the unknown one; quotes or trades as for one price."""
        found = account._get_instrument_current_prices_impl(LOADED, kind)
        assert list(found.items()) == list(zip(("ASML", "BTC/USD", "AAPL"), prices, strict=True))
        assert asked(server) == [
            (f"/v2/stocks/{stocks}/latest", "ASML,AAPL,XYZ"),
            (f"/v1beta3/crypto/us/latest/{stocks}", "BTC/USD"),
        ]

    def test_what_is_unknown_is_told(self, account, caplog):
        """In the words of the single getter."""
        account._get_instrument_current_prices_impl(LOADED, "bid")
        assert warnings(caplog) == ["[Account 1] Failed to fetch bid price for XYZ: unknown symbol"]

    def test_a_request_that_fails(self, account, server, caplog):
        """Its symbols are missing, with one line for all; those of the other request are there."""
        server.before_answer = lambda path, symbols: (503, b"{}") if "stocks" in path else None
        assert account._get_instrument_current_prices_impl(LOADED, "bid") == {"BTC/USD": 64000.5}
        (line,) = warnings(caplog)
        assert line.startswith(
            "[Account 1] Failed to fetch bid price for 3 symbols (ASML, AAPL, XYZ): APIError: HTTP 503"
        )
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        ("status", "body"), [(400, b"{}"), (429, b"{}"), (200, b""), (200, b"{}"), (200, b"no"), (0, b"")]
    )
    def test_whatever_goes_wrong(self, account, server, caplog, status, body):
        """Nothing is made of it."""
        server.before_answer = lambda path, symbols: (status, body)
        assert account._get_instrument_current_prices_impl(["ASML", "AAPL"], "bid") == {}
        assert len(warnings(caplog)) == len(server.requests) == 1

    def test_a_price_that_is_none_leaves_the_others(self, account, server, caplog):
        """Each symbol stands alone where the answer came."""
        quotes = ",".join(
            f'"{symbol}":{QUOTE % price}'
            for symbol, price in (("ASML", "0"), ("AAPL", "NaN"), ("MSFT", "410.2"))
        )
        server.before_answer = lambda path, symbols: (200, f'{{"quotes":{{{quotes}}}}}'.encode())
        found = account._get_instrument_current_prices_impl(["ASML", "AAPL", "MSFT", "TSLA"], "bid")
        assert found == {"MSFT": 410.2}
        assert len(warnings(caplog)) == 3

    def test_one_that_is_refused_by_name(self, account, server, caplog):
        """The others are asked for again without it."""

        def refuse(path, symbols):
            bad = [symbol for symbol in symbols if symbol in ("AS.ML", "X")]
            return (400, f'{{"message":"invalid symbol: {bad[0]}"}}'.encode()) if bad else None

        server.before_answer = refuse
        found = account._get_instrument_current_prices_impl(["ASML", "AS.ML", "X", "AAPL"], "bid")
        assert found == {"ASML": 984.75, "AAPL": 190.5}
        assert [symbols for _, symbols in asked(server)] == ["ASML,AS.ML,X,AAPL", "ASML,X,AAPL", "ASML,AAPL"]
        assert [line.partition(": ")[0] for line in warnings(caplog)] == [
            "[Account 1] Failed to fetch bid price for AS.ML",
            "[Account 1] Failed to fetch bid price for X",
        ]

    def test_what_is_wrong_on_this_side_raises(self, server):
        """Before anything is asked."""
        pytest.importorskip("alpaca")
        bare = AlpacaAccount("bare", url=server.url)
        with pytest.raises(ValueError, match="APCA_API_KEY_ID"):
            bare._get_instrument_current_prices_impl(["BTC/USD", "ASML"], "bid")
        assert server.requests == []
        assert bare._get_instrument_current_prices_impl(["BTC/USD"], "bid") == {"BTC/USD": 64000.5}

    def test_a_long_list_makes_a_short_line(self, account, server, caplog):
        """Fifty symbols are named by their number and the first few."""
        server.outage = True
        account._get_instrument_current_prices_impl([f"S{number}" for number in range(50)], "bid")
        (line,) = warnings(caplog)
        assert "price for 50 symbols (S0, S1, " in line
        assert len(line) < 300


class TestOneCall:
    """`get_instrument_current_prices` shares flights and prices with the single getter, in either colour."""

    def test_the_answer(self, account, server, loop):
        """In the order asked, as it was spelt, without what is unknown; a symbol named twice is one."""
        symbols = ["TSLA", " asml", "XYZ", "ASML", "btc/usd"]
        expected = [("TSLA", 242.1), (" asml", 984.75), ("ASML", 984.75), ("btc/usd", 64000.5)]
        assert list(account.get_instrument_current_prices(symbols).items()) == expected
        assert list(loop.run(account.aget_instrument_current_prices, iter(symbols)).items()) == expected
        assert {symbols for _, symbols in asked(server)} == {"TSLA,ASML,XYZ", "BTC/USD"}
        assert len(server.requests) == 2

    @pytest.mark.parametrize("colour", ["plain", "awaited"])
    def test_bypassed(self, account, server, loop, colour):
        """The same answer, asked for each time."""
        symbols = ["TSLA", " asml", "XYZ", "ASML"]
        with getter.bypass():
            for _ in range(2):
                if colour == "plain":
                    found = account.get_instrument_current_prices(symbols)
                else:
                    found = loop.run(account.aget_instrument_current_prices, symbols)
                assert list(found.items()) == [("TSLA", 242.1), (" asml", 984.75), ("ASML", 984.75)]
        assert [symbols for _, symbols in asked(server)] == ["TSLA,ASML,XYZ"] * 2

    def test_single_prices_are_found_and_left(self, account, server):
        """Only what is not there is asked for; each price type is its own."""
        account.get_instrument_current_price("AAPL")
        account.get_instrument_current_prices(["ASML", "AAPL", "MSFT"])
        assert account.get_instrument_current_price("msft") == 410.2
        account.get_instrument_current_prices(["AAPL"], "last")
        assert [symbols for _, symbols in asked(server)] == ["AAPL", "ASML,MSFT", "AAPL"]

    def test_ten_widgets_make_one_request(self, account, server, crowd, loop, gate, followers):
        """Threads and tasks that ask while it is under way, for many or for one, wait for it."""
        symbols = ["ASML", "AAPL", "MSFT", "NVDA", "TSLA"]
        server.before_answer = lambda path, symbols: gate.pass_()
        crowd.add(account.get_instrument_current_prices, symbols)
        loop.run(eventually, lambda: server.requests)
        crowd.add(account.get_instrument_current_prices, symbols[::-1], count=4)
        tasks = [loop.start(account.aget_instrument_current_prices, symbols) for _ in range(5)]
        single = loop.start(account.aget_instrument_current_price, "MSFT")
        followers(9 * 5 + 1)
        gate.set()
        answers = [*crowd.join(), *(task.outcome() for task in tasks)]
        assert all(answer == {symbol: server.prices[symbol] for symbol in symbols} for answer in answers)
        assert list(answers[1]) == symbols[::-1]
        assert single.outcome() == 410.2
        assert len(server.requests) == 1

    def test_what_a_single_caller_asks_for_is_joined(self, account, server, crowd, gate, followers, until):
        """The bulk call asks for the others and waits for that one."""
        server.before_answer = lambda path, symbols: gate.pass_() if symbols == ["AAPL"] else None
        crowd.add(account.get_instrument_current_price, "AAPL")
        until(lambda: server.requests)
        crowd.add(account.get_instrument_current_prices, ["ASML", "AAPL"])
        followers(1)
        gate.set()
        assert crowd.join() == [190.5, {"ASML": 984.75, "AAPL": 190.5}]
        assert [symbols for _, symbols in asked(server)] == ["AAPL", "ASML"]

    def test_a_missing_price_is_absent_or_none(self, account, server, crowd, gate, followers, caplog):
        """Absent for who asks for many, None for who waits for one; asked once more, and not kept."""

        def fail(path, symbols):
            gate.pass_()
            return 503, b"{}"

        server.before_answer = fail
        crowd.add(account.get_instrument_current_prices, ["ASML", "AAPL"], count=3)
        followers(4)
        crowd.add(account.get_instrument_current_price, "ASML")
        followers(5)
        gate.set()
        assert crowd.join() == [{}, {}, {}, None]
        assert 2 <= len(server.requests) <= 4
        assert len(warnings(caplog)) == len(server.requests)
        server.before_answer = None
        assert len(account.get_instrument_current_prices(["ASML", "AAPL"])) == 2

    def test_a_missing_price_is_absent_when_single_callers_asked_for_it(
        self, account, server, crowd, make_gate, followers, until
    ):
        """One single caller asks, another one asks once more: who asked for many and waited has nothing."""
        gates = [make_gate(), make_gate()]

        def fail(path, symbols):
            if len(server.requests) <= 2:
                gates[symbols == ["AAPL"]].pass_()
            return 503, b"{}"

        server.before_answer = fail
        crowd.add(account.get_instrument_current_price, "ASML")
        until(lambda: len(server.requests) == 1)
        crowd.add(account.get_instrument_current_price, "asml")
        followers(1)
        crowd.add(account.get_instrument_current_prices, ["ASML", "AAPL"])  # busy with the other one
        until(lambda: len(server.requests) == 2)
        followers(2)
        gates[0].set()
        until(lambda: crowd.ended(2))
        gates[1].set()
        assert crowd.join() == [None, None, {}]
        assert [symbols for _, symbols in asked(server)] == ["ASML", "AAPL", "ASML"]

    def test_a_missing_price_is_absent_when_single_tasks_asked_for_it(self, loop, followers):
        """The same among tasks, which wake in the order in which they came."""

        class Away(AccountInterface):
            asked = 0

            def _get_instrument_current_price_impl(self, symbol, price_type):
                raise AssertionError

            async def _aget_instrument_current_price_impl(self, symbol, price_type):
                self.asked += 1
                if self.asked == 1:
                    await gate

        account, gate = Away("away"), Gate()
        singles = [loop.start(account.aget_instrument_current_price, "ASML")]
        loop.run(eventually, lambda: account.asked)
        singles.append(loop.start(account.aget_instrument_current_price, "ASML"))
        followers(1)
        many = loop.start(account.aget_instrument_current_prices, ["ASML"])
        followers(2)
        gate.set()
        assert [single.outcome() for single in singles] == [None, None]
        assert many.outcome() == {}
        assert account.asked == 2

    def test_a_missing_price_is_absent_whoever_asks_once_more(
        self, account, server, crowd, gate, followers, until
    ):
        """The single caller failed: who asked for many asks once more, and has nothing either."""

        def fail(path, symbols):
            gate.pass_()
            return 503, b"{}"

        server.before_answer = fail
        crowd.add(account.get_instrument_current_price, "ASML")
        until(lambda: server.requests)
        crowd.add(account.get_instrument_current_prices, ["ASML"])
        followers(1)
        gate.set()
        assert crowd.join() == [None, {}]
        assert len(server.requests) == 2

    def test_more_than_fifty(self, account, server):
        """In several requests."""
        symbols = [f"S{number}" for number in range(120)]
        server.prices.update(dict.fromkeys(symbols, 1.5))
        assert account.get_instrument_current_prices(symbols) == dict.fromkeys(symbols, 1.5)
        assert sorted(symbols.count(",") + 1 for _, symbols in asked(server)) == [20, 50, 50]

    @pytest.mark.parametrize("colour", ["plain", "awaited"])
    def test_more_than_fifty_at_the_same_time(self, account, server, loop, meeting, colour):
        """The requests do not wait for one another; what is stored is in none of them."""
        symbols = [f"S{number}" for number in range(200)]
        server.prices.update(dict.fromkeys(symbols, 1.5))
        account.get_instrument_current_prices(symbols[::4])
        server.reset()
        server.before_answer = meeting(3)
        if colour == "plain":
            found = account.get_instrument_current_prices(symbols)
        else:
            found = loop.run(account.aget_instrument_current_prices, symbols)
        assert list(found.items()) == [(symbol, 1.5) for symbol in symbols]
        requested = [symbols.split(",") for _, symbols in asked(server)]
        assert list(map(len, requested)) == [50] * 3
        assert sorted(symbol for some in requested for symbol in some) == sorted(
            set(symbols) - set(symbols[::4])
        )

    def test_many_of_which_few_are_missing(self, account, server):
        """Are one request, wherever they stand."""
        symbols = [f"S{number}" for number in range(200)]
        server.prices.update(dict.fromkeys(symbols, 1.5))
        missing = symbols[::40]
        account.get_instrument_current_prices([symbol for symbol in symbols if symbol not in missing])
        server.reset()
        assert len(account.get_instrument_current_prices(symbols)) == 200
        assert [symbols.split(",") for _, symbols in asked(server)] == [missing]

    @pytest.mark.parametrize(
        ("arguments", "error", "named"),
        [
            ((["ASML"], "high"), ValueError, "price_type"),
            ((["ASML", " "],), ValueError, "symbol"),
            ((["ASML", None],), TypeError, "symbol"),
            (("ASML",), TypeError, "symbols: expected several, as in a list, got 'ASML'"),
            ((None,), TypeError, "symbols"),
        ],
    )
    def test_bad_input_raises_before_anything_is_asked(self, account, server, loop, arguments, error, named):
        """One bad symbol is the caller's mistake, bypassed or not."""
        with pytest.raises(error, match=named):
            account.get_instrument_current_prices(*arguments)
        with pytest.raises(error, match=named):
            loop.run(account.aget_instrument_current_prices, *arguments)
        with getter.bypass(), pytest.raises(error, match=named):
            account.get_instrument_current_prices(*arguments)
        assert server.requests == []
        assert getter.flights() == ()

    def test_nothing_asked(self, account, server):
        """Nothing is answered."""
        assert account.get_instrument_current_prices([]) == {}
        assert server.requests == []

    def test_an_accounts_none_is_missing(self, loop):
        """Whatever a subclass hands over."""

        class Careless(AccountInterface):
            def _get_instrument_current_price_impl(self, symbol, price_type):
                return None

            def _get_instrument_current_prices_impl(self, symbols, price_type):
                return dict.fromkeys(symbols)

        assert Careless(1).get_instrument_current_prices(["ASML"]) == {}
        assert loop.run(Careless(1).aget_instrument_current_prices, ["ASML"]) == {}

    def test_an_account_that_can_be_awaited(self, loop):
        """It needs no thread for many either."""

        class Awaited(AccountInterface):
            def _get_instrument_current_price_impl(self, symbol, price_type):
                raise AssertionError

            async def _aget_instrument_current_prices_impl(self, symbols, price_type):
                return dict.fromkeys(symbols, 1.25)

        account = Awaited(1)
        assert loop.run(account.aget_instrument_current_prices, ["asml"]) == {"asml": 1.25}
        assert account.get_instrument_current_price("ASML") == 1.25


def test_any_other_account_asks_one_by_one():
    """Until it says how its broker does it."""

    class Scripted(AccountInterface):
        def _get_instrument_current_price_impl(self, symbol, price_type):
            return {"ASML": 984.75, "AAPL": 190.5}.get(symbol)

    found = Scripted(1)._get_instrument_current_prices_impl(["AAPL", "XYZ", "ASML"], "bid")
    assert list(found.items()) == [("AAPL", 190.5), ("ASML", 984.75)]
