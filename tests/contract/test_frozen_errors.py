"""An exception that nobody may write reaches everybody as what it is."""

import pytest

from singleflight.testing import Recorder

from ..frozen import BASE, KINDS, frames, looks, raised


@pytest.fixture(params=KINDS)
def error(request):
    return raised(KINDS[request.param]())


def failing(error):
    """A body that raises it, from its own cause."""

    async def fetch(gate=None):
        if gate is not None:
            await gate
        raise error from error.__cause__

    return fetch


def test_followers_receive_it(driver, error):
    """Type, args, attributes, cause, context and notes, in an object of their own."""
    seen, gate = Recorder(), driver.gate()
    fetch = driver.decorate(failing(error), listener=seen, follower_retries=0, key=lambda gate: 0)
    driver.start(fetch, gate)
    seen.wait_for("fetch")
    driver.start(fetch, gate, count=3)
    seen.wait_for("wait", 3)
    gate.set()
    outcomes = driver.outcomes()
    assert outcomes[0] is error
    assert len(set(map(id, outcomes))) == 4
    for outcome in outcomes[1:]:
        assert type(outcome) is type(error)
        assert looks(outcome) == looks(error)
        assert BASE["__dict__"].__get__(outcome)["__notes__"] == ["a note"]
        assert frames(outcome)


def test_callers_within_failure_ttl_receive_it(driver, error):
    """The same, and its cause and context with their types and texts."""
    fetch = driver.decorate(failing(error), failure_ttl=60)
    told = []
    for _ in range(3):
        with pytest.raises(type(error)) as caught:
            driver.call(fetch)
        told.append(caught.value)
    assert told[0] is error
    for outcome in told[1:]:
        assert outcome is not error
        assert type(outcome) is type(error)
        assert str(outcome) == str(error)
        assert BASE["__dict__"].__get__(outcome)["__notes__"] == ["a note"]
        assert repr((outcome.__cause__, outcome.__context__)) == repr((error.__cause__, error.__context__))
        assert outcome.__suppress_context__ is error.__suppress_context__
    assert fetch.stats().calls == 1


def test_whoever_handles_another_error_receives_it(driver, error):
    """With its own cause and context, not with what that caller handles; stored or not."""
    fetch = driver.decorate(failing(error), failure_ttl=60)

    async def ask():
        try:
            raise OSError("something else")
        except OSError:
            await fetch()

    with pytest.raises(type(error)):
        driver.call(fetch)
    with pytest.raises(type(error)) as caught:
        driver.call(ask)
    assert repr(caught.value.__context__) == repr(error.__context__)
