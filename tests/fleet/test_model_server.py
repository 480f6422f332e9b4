"""The model of the server keeps the contract that the scripts keep."""

import pytest

from .contract_of_server import ContractOfServer
from .model_server import ModelServer


class TestModelServer(ContractOfServer):
    """In dictionaries."""

    @pytest.fixture
    def server(self):
        return ModelServer()
