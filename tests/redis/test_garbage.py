"""What a call raised goes with it, also where the server was asked: see `tests/endings/test_garbage.py`."""

import pytest

from singleflight.redis import RedisStore

from ..endings.leftover_errors import COLOURS, FORMS, WAYS, left_of, made


@pytest.fixture
def store(url):
    store = RedisStore(url, lease=2.0, timeout=2.0)
    yield store
    store.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("colour", COLOURS)
def test_nothing_is_left_of_an_exception(store, colour, form, way):
    """Whatever raised it; of one that is stored, the copy that callers receive."""
    call = made(colour, form, way, store=store)
    assert left_of(call, colour == "tasks") == (2 if form == "bulk" else 1) * (way == "stored")
