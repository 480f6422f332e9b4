"""The drivers of the contract."""

from ..contract.conftest import driver

__all__ = ["driver"]
