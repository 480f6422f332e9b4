"""The price getter that accounts share, over an account that needs no network."""

import logging
import re
import threading

import pytest

from singleflight import FlightDeadlock
from singleflight.accounts import AccountInterface, price_cache_time
from singleflight.accounts.interface import PriceLog, money
from singleflight.telemetry.events import Hit, Share

NAME = "singleflight.accounts"
getter = AccountInterface.get_instrument_current_price


class Scripted(AccountInterface):
    """Answers with `price` and remembers what it was asked."""

    def __init__(self, name="scripted", price=984.75):
        super().__init__(name)
        self.price = price
        self.asked = []

    def _get_instrument_current_price_impl(self, symbol, price_type):
        self.asked.append((symbol, price_type))
        return self.price


def test_it_is_abstract():
    """An account must say how to ask."""
    with pytest.raises(TypeError, match="_get_instrument_current_price_impl"):
        AccountInterface(1)


def test_the_getter_is_the_decorated_method():
    """It has the control surface, on the class and on an account."""
    account = Scripted()
    assert account.get_instrument_current_price("ASML") == 984.75
    assert account.get_instrument_current_price.entry(" asml").value == 984.75
    assert getter.invalidate(account, "ASML")
    assert account.get_instrument_current_price.entry("ASML") is None


def test_an_id_must_be_hashable():
    """It is part of every key, so it is refused at once."""
    with pytest.raises(TypeError, match="id: "):
        Scripted([])


def test_the_key():
    """It is the account's id, the symbol stripped and in upper case, and the price type."""
    account = Scripted(7)
    account.get_instrument_current_price(" brk.b\n", price_type="mid")
    assert account.get_instrument_current_price.entry("BRK.B", "mid").key == (7, "BRK.B", "mid")
    assert account.asked == [("BRK.B", "mid")]


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (("ASML", "high"), ValueError, "price_type"),
        (("ASML", "BID"), ValueError, "price_type"),
        (("ASML", None), ValueError, "price_type"),
        (("ASML", ["bid"]), ValueError, "price_type"),
        (("",), ValueError, "symbol"),
        ((" \t",), ValueError, "symbol"),
        ((None,), TypeError, "symbol"),
        ((b"ASML",), TypeError, "symbol"),
    ],
)
def test_bad_input_raises_before_any_flight(arguments, error, named):
    """A caller's mistake is told to the caller; nobody is asked and nothing is counted, bypassed or not."""
    account = Scripted()
    with pytest.raises(error, match=named):
        account.get_instrument_current_price(*arguments)
    with getter.bypass(), pytest.raises(error, match=named):
        account.get_instrument_current_price(*arguments)
    assert account.asked == []
    assert getter.stats().calls == 0
    assert getter.flights() == ()


def test_accounts_with_one_id_share():
    """On purpose; different ids do not."""
    first, second, other = Scripted(1), Scripted(1), Scripted(2)
    for account in (first, second, other):
        account.get_instrument_current_price("ASML")
    assert [len(account.asked) for account in (first, second, other)] == [1, 0, 1]


def test_none_is_not_kept():
    """The next caller asks again."""
    account = Scripted(price=None)
    assert account.get_instrument_current_price("ASML") is None
    account.price = 1.5
    assert account.get_instrument_current_price("ASML") == 1.5


def test_a_cycle_is_refused():
    """An account that asks for the price it is fetching gets a FlightDeadlock, not a hang."""

    class Circular(Scripted):
        def _get_instrument_current_price_impl(self, symbol, price_type):
            return self.get_instrument_current_price(symbol, price_type)

    with pytest.raises(FlightDeadlock):
        Circular().get_instrument_current_price("ASML")


class TestPriceCacheTime:
    """PRICE_CACHE_TIME decides how long a price lives."""

    @pytest.mark.parametrize(
        ("text", "seconds"), [(None, 60), ("5", 5), (" 0.5 ", 0.5), ("0", 0), ("inf", float("inf"))]
    )
    def test_numbers(self, monkeypatch, text, seconds):
        """It is a number of seconds, 60 where it is not set."""
        if text is not None:
            monkeypatch.setenv("PRICE_CACHE_TIME", text)
        assert price_cache_time() == seconds

    @pytest.mark.parametrize("text", ["", "soon", "-3", "nan", "1m"])
    def test_nonsense_is_logged_once(self, monkeypatch, caplog, text):
        """Then 60 is used."""
        monkeypatch.setattr("singleflight.accounts.interface._complained", set())
        monkeypatch.setenv("PRICE_CACHE_TIME", text)
        account = Scripted()
        for symbol in ("ASML", "AAPL"):
            account.get_instrument_current_price(symbol)
            assert account.get_instrument_current_price.entry(symbol).ttl == 60
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage() == f"PRICE_CACHE_TIME is no number of seconds: {text!r}; using 60"

    def test_each_variable_is_logged(self, monkeypatch, caplog):
        """Also with the same nonsense; without a grace nothing is served past its ttl."""
        monkeypatch.setattr("singleflight.accounts.interface._complained", set())
        monkeypatch.setenv("PRICE_CACHE_TIME", "soon")
        monkeypatch.setenv("PRICE_CACHE_GRACE", "soon")
        Scripted().get_instrument_current_price("ASML")
        assert caplog.messages == [
            "PRICE_CACHE_TIME is no number of seconds: 'soon'; using 60",
            "PRICE_CACHE_GRACE is no number of seconds: 'soon'; using 0",
        ]

    def test_a_change_applies_to_what_lands_after_it(self, monkeypatch):
        """Prices that are there keep the lifetime they landed with."""
        account = Scripted()
        account.get_instrument_current_price("ASML")
        monkeypatch.setenv("PRICE_CACHE_TIME", "5")
        account.get_instrument_current_price("AAPL")
        entries = [account.get_instrument_current_price.entry(symbol) for symbol in ("ASML", "AAPL")]
        assert [entry.ttl for entry in entries] == [60, 5]

    def test_zero_keeps_nothing_and_still_shares(self, monkeypatch, crowd, gate, followers):
        """Concurrent callers make one call; each later one its own."""
        monkeypatch.setenv("PRICE_CACHE_TIME", "0")

        class Slow(Scripted):
            def _get_instrument_current_price_impl(self, symbol, price_type):
                gate.pass_()
                return super()._get_instrument_current_price_impl(symbol, price_type)

        account = Slow()
        crowd.add(account.get_instrument_current_price, "ASML", count=5)
        followers(4)
        gate.set()
        assert crowd.join() == [984.75] * 5
        assert len(account.asked) == 1
        account.get_instrument_current_price("ASML")
        account.get_instrument_current_price("ASML")
        assert len(account.asked) == 3


class TestLogLines:
    """At DEBUG the getter tells what it does, each account under its own id."""

    def test_each_age_has_one_decimal(self):
        """Whatever the age is."""
        shared = Share(name="f", key=(1, "ASML", "bid"), sequence=1, value=984.75, age=0.13, waited=0.2)
        hit = Hit(name="f", key=(1, "ASML", "bid"), sequence=2, value=984.75, age=0.31)
        assert PriceLog.line(shared, "ASML", "bid").endswith("while waiting: $984.75 (age: 0.1s)")
        assert PriceLog.line(hit, "ASML", "bid").endswith("price for ASML: $984.75 (age: 0.3s)")

    def test_the_wording(self, crowd, gate, followers, caplog):
        """One fetch, one cached, one that waited, one hit."""

        class Slow(Scripted):
            def _get_instrument_current_price_impl(self, symbol, price_type):
                gate.pass_()
                return 984.75

        account = Slow(1)
        with caplog.at_level(logging.DEBUG, logger=NAME):
            crowd.add(account.get_instrument_current_price, "ASML", count=2)
            followers(1)
            gate.set()
            crowd.join()
            account.get_instrument_current_price("ASML")
        lines = sorted(f"{r.levelname} {r.getMessage()}" for r in caplog.records if r.name == NAME)
        expected = [
            r"DEBUG \[Account 1\] Another thread cached ASML while waiting: \$984\.75 \(age: \d+\.\ds\)",
            r"DEBUG \[Account 1\] Cached new bid price for ASML: \$984\.75",
            r"DEBUG \[Account 1\] Fetching fresh bid price for ASML \(holding symbol lock\)",
            r"DEBUG \[Account 1\] Returning cached price for ASML: \$984\.75 \(age: \d+\.\ds\)",
        ]
        assert len(lines) == len(expected)
        assert all(map(re.fullmatch, expected, lines)), lines

    def test_each_account_logs_its_own_id(self, caplog):
        """The id is the key's."""
        with caplog.at_level(logging.DEBUG, logger=NAME):
            Scripted("A").get_instrument_current_price("ASML", "last")
            Scripted("B").get_instrument_current_price("ASML")
        assert "[Account A] Fetching fresh last price for ASML" in caplog.text
        assert "[Account B] Cached new bid price for ASML" in caplog.text

    @pytest.mark.parametrize(("price", "lifetime"), [(None, "60"), (984.75, "0")])
    def test_what_is_not_kept_is_not_called_cached(self, caplog, monkeypatch, price, lifetime):
        """It has a fetch line and nothing more."""
        monkeypatch.setenv("PRICE_CACHE_TIME", lifetime)
        with caplog.at_level(logging.DEBUG, logger=NAME):
            Scripted(price=price).get_instrument_current_price("ASML")
        assert [r.getMessage() for r in caplog.records if r.name == NAME] == [
            "[Account scripted] Fetching fresh bid price for ASML (holding symbol lock)"
        ]

    def test_nothing_is_wanted_while_debug_is_off(self, caplog):
        """So that the lines cost nothing: no event is made, and hits take the fast path."""
        listener = PriceLog()
        with caplog.at_level(logging.INFO, logger=NAME):
            assert set(listener.wants) == set()
        with caplog.at_level(logging.DEBUG, logger=NAME):
            assert set(listener.wants) == {"fetch", "land", "share", "hit"}

    def test_debug_can_be_switched_on_later(self, caplog):
        """It applies to prices that land after it."""
        account = Scripted()
        with caplog.at_level(logging.INFO, logger=NAME):
            account.get_instrument_current_price("ASML")
        with caplog.at_level(logging.DEBUG, logger=NAME):
            account.get_instrument_current_price("AAPL")
            account.get_instrument_current_price("AAPL")
        assert "Returning cached price for AAPL" in caplog.text


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (984.75, "$984.75"),
        (1, "$1.00"),
        (64000.5, "$64,000.50"),
        (0.5, "$0.5000"),
        (0.00001234, "$0.00001234"),
        (0, "$0.00"),
    ],
)
def test_money(price, text):
    """Cents, thousands, and more digits below a dollar, never an exponent."""
    assert money(price) == text


def test_symbols_do_not_hold_each_other_up(crowd):
    """Ten threads on ten symbols are in their calls together."""
    together = threading.Barrier(10)

    class Meeting(Scripted):
        def _get_instrument_current_price_impl(self, symbol, price_type):
            together.wait(20)
            return 1.0

    account = Meeting()
    for number in range(10):
        crowd.add(account.get_instrument_current_price, f"S{number}")
    assert crowd.join() == [1.0] * 10
