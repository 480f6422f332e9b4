"""Failures, refused values, aborts, and what followers see of them."""

import gc
import weakref

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import Recorder


def herd(crowd, gate, run, callers, **options):
    """A leader held at the gate with `callers - 1` followers, then released."""
    seen = Recorder(wants={"fetch", "wait"})  # not the outcomes: one test counts who keeps them

    @single_flight_ttl(ttl=60, listener=seen, **options)
    def fetch():
        gate.pass_()
        return run()

    crowd.add(fetch)
    seen.wait_for("fetch")
    crowd.add(fetch, count=callers - 1)
    seen.wait_for("wait", callers - 1)
    gate.set()
    return fetch, crowd.join()


def test_a_storable_none_is_a_value():
    """cache_if decides what a value is."""

    @single_flight_ttl(ttl=60, cache_if=lambda value: True)
    def fetch():
        return None

    assert fetch() is None
    assert fetch() is None
    assert fetch.stats().hits == 1


def test_each_follower_has_a_traceback_of_its_own(crowd, gate):
    """A shared exception is copied: same type, args and attributes, and its traceback does not grow."""

    def fail():
        error = OSError(2, "gone", "file.txt")
        error.extra = [1]
        error.add_note("a note")
        raise error from KeyError("cause")

    _, outcomes = herd(crowd, gate, fail, 10, follower_retries=0)
    assert len(set(map(id, outcomes))) == 10
    for error in outcomes:
        assert (type(error), error.args, error.filename) == (FileNotFoundError, (2, "gone"), "file.txt")
        assert (error.extra, error.__notes__) == ([1], ["a note"])
        assert isinstance(error.__cause__, KeyError)
        names = []
        traceback = error.__traceback__
        while traceback is not None:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert names[-1] == "fail"
        assert len(names) < 9


@pytest.mark.parametrize("names", [{}, {"__name__": None}], ids=["no name", "None"])
def test_a_function_of_a_module_without_a_name_fails_like_any_other(crowd, gate, names):
    """Leader and followers get its error, whatever its globals have for their module's name."""
    namespace = dict(names)
    exec("def check():\n    raise LookupError\ndef run():\n    check()\n", namespace)
    namespace["gate"] = gate
    exec("def fetch():\n    gate.pass_()\n    run()\n", namespace)
    seen = Recorder(wants={"fetch", "wait"})
    fetch = single_flight_ttl(ttl=60, listener=seen, follower_retries=0)(namespace["fetch"])
    crowd.add(fetch)
    seen.wait_for("fetch")
    crowd.add(fetch, count=3)
    seen.wait_for("wait", 3)
    gate.set()
    assert [type(outcome) for outcome in crowd.join()] == [LookupError] * 4
    assert fetch.stats().errors == 4


def test_a_shared_failure_leaves_no_reference_cycle(crowd, gate):
    """When callers have dropped a failure, its frames are gone without the collector's help."""

    class Local:
        pass

    alive = []

    def fail():
        local = Local()
        alive.append(weakref.ref(local))
        raise ValueError("no")

    gc.collect()
    gc.disable()
    try:
        herd(crowd, gate, fail, 3, follower_retries=0)
        crowd.outcomes.clear()
        crowd.threads.clear()
        assert [ref() for ref in alive] == [None]
    finally:
        gc.enable()


def test_what_cache_if_raises_is_the_flights_failure():
    """An exception of cache_if or ttl is raised, nothing is stored, and the key is free again."""

    @single_flight_ttl(ttl=lambda landing: "soon")
    def fetch():
        return 1

    with pytest.raises(TypeError, match="ttl"):
        fetch()
    with pytest.raises(TypeError, match="ttl"):
        fetch()
    assert fetch.stats().failures == 2
    assert fetch.flights() == ()
