"""Some seconds of the soak; `nox -s soak` gives it a minute."""

import pytest

from singleflight.core import controls, transitions
from singleflight.storage.store import Store
from tools.soak.load import Soak, SoakFailed


def test_a_short_soak():
    """Threads, tasks, forks, drops, failures, cancellations and clock steps: nothing is ever wrong."""
    soak = Soak(seed=5, operations=80)
    soak.run(rounds=3)
    assert soak.rounds == 3
    assert all(fetch.stats().hits for fetch in soak.world.functions.values())


@pytest.mark.parametrize(
    ("owner", "name", "planted", "said"),
    [
        (controls, "_detach", lambda memo, key: False, "what was dropped|a forked child"),
        (Store, "drop", lambda store, key: None, "what was dropped|a forked child"),
        (transitions, "count_execution", lambda cache, flight, error, stored: None, "calls counted"),
    ],
    ids=["invalidate detaches nothing", "invalidate drops nothing", "leaders are not counted"],
)
def test_a_planted_fault_is_found(monkeypatch, owner, name, planted, said):
    """A library with such a fault does not get through."""
    monkeypatch.setattr(owner, name, planted)
    with pytest.raises(SoakFailed, match=said):
        Soak(seed=5, operations=150).run(rounds=40)
