"""Broker accounts whose price getters apply the decorator; `AlpacaAccount` needs the extra `alpaca`."""

from .alpaca import AlpacaAccount
from .alpaca_stream import PriceStream, StreamRefused
from .gate import Gate, GateShut
from .interface import PRICE_TYPES, AccountInterface, price_cache_grace, price_cache_time
from .readings import Quote

__all__ = [
    "PRICE_TYPES",
    "AccountInterface",
    "AlpacaAccount",
    "Gate",
    "GateShut",
    "PriceStream",
    "Quote",
    "StreamRefused",
    "price_cache_grace",
    "price_cache_time",
]
