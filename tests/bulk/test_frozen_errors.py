"""An exception that nobody may write, in bulk calls."""

import pytest

from singleflight.testing import Recorder

from ..frozen import BASE, KINDS, looks, raised


@pytest.fixture(params=KINDS)
def error(request):
    return raised(KINDS[request.param]())


async def none(item):
    raise AssertionError("not to be called")


def test_those_who_follow_a_loader_receive_it(driver, error):
    """Bulk calls and single ones: type, args, attributes, cause, context and notes."""
    seen, gate = Recorder(), driver.gate()

    async def load(items):
        await gate
        raise error from error.__cause__

    fetch = driver.decorate(none, listener=seen, follower_retries=0)
    loader = driver.loader(fetch, load)
    driver.start(loader, ["A", "B"])
    seen.wait_for("fetch", 2)
    driver.start(loader, ["B"], count=2)
    driver.start(fetch, "A", count=2)
    seen.wait_for("wait", 4)
    gate.set()
    outcomes = driver.outcomes()
    assert outcomes[0] is error
    for outcome in outcomes[1:]:
        assert type(outcome) is type(error)
        assert looks(outcome) == looks(error)
        assert BASE["__dict__"].__get__(outcome)["__notes__"] == ["a note"]


def test_bulk_calls_within_failure_ttl_receive_it(driver, error):
    """What a single call failed with, each time in another object."""

    async def fail(item):
        raise error from error.__cause__

    async def load(items):
        raise AssertionError("not to be called")

    fetch = driver.decorate(fail, failure_ttl=60)
    loader = driver.loader(fetch, load)
    told = []
    for ask in (fetch, loader, loader):
        with pytest.raises(type(error)) as caught:
            driver.call(ask, "A" if ask is fetch else ["A"])
        told.append(caught.value)
    assert len(set(map(id, told))) == 3
    for outcome in told[1:]:
        assert (type(outcome), str(outcome)) == (type(error), str(error))
        assert repr((outcome.__cause__, outcome.__context__)) == repr((error.__cause__, error.__context__))
